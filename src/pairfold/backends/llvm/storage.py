"""Numbers as arrays store them: float16 and bfloat16 become float32 on the way in, and back.

Both ways are written in integer arithmetic, so they need no instruction that a machine may lack.
Subnormal numbers, infinities and NaN are kept; what is stored is rounded to nearest, ties to even.
float32 and float64 are stored as they are computed with.
"""

from __future__ import annotations

from ...core.dtypes import DTYPES
from . import ir

_I16, _I32, _F32 = ir.IntType(16), ir.IntType(32), ir.FloatType()
# float16: the exponent's offset is 15, float32's is 127, and 13 more bits follow the point.
_SHIFT = 13
_REBIAS = 2.0**112
_INFINITE = 0x7F800000


class Storage:
    """How numbers of one stored dtype are read and written, one by one or a vector at a time."""

    def __init__(self, stored: str) -> None:
        self.stored = stored
        self.item = DTYPES[stored].bytes
        self.half = DTYPES[stored].half

    @property
    def element(self) -> ir.Type:
        """The type that is loaded from memory."""
        if self.half:
            return _I16
        return _F32 if self.stored == "float32" else ir.DoubleType()

    def opened(self, b: ir.IRBuilder, value: ir.Value) -> ir.Value:
        """A stored number (or vector of them) as a number to compute with."""
        if not self.half:
            return value
        return (_from_half if self.stored == "float16" else _from_brain)(_Bits(b, value))

    def closed(self, b: ir.IRBuilder, value: ir.Value) -> ir.Value:
        """A number (or vector of them) as it is stored."""
        if not self.half:
            return value
        bits = _Bits(b, value)
        return (_to_half if self.stored == "float16" else _to_brain)(bits)


class Truths(Storage):
    """Truth values, a byte each, as the numbers 0 and 1; whatever else a byte is counts as true."""

    def __init__(self, dtype: str) -> None:
        self.stored, self.item, self.half = "bool", 1, False
        self.number = _F32 if dtype == "float32" else ir.DoubleType()

    @property
    def element(self) -> ir.Type:
        """The type that is loaded from memory."""
        return ir.IntType(8)

    def opened(self, b: ir.IRBuilder, value: ir.Value) -> ir.Value:
        """0 or 1, as a number or a vector of them."""
        x = _Bits(b, value)
        true = b.icmp_unsigned("!=", value, x.constant(0, self.element))
        return b.uitofp(true, x.shaped(self.number))


class _Bits:
    """Integer arithmetic on a number's bits, in the number's own shape."""

    def __init__(self, b: ir.IRBuilder, value: ir.Value) -> None:
        self.b, self.value = b, value
        self.lanes = getattr(value.type, "count", 0)

    def shaped(self, kind: ir.Type) -> ir.Type:
        return ir.VectorType(kind, self.lanes) if self.lanes else kind

    def constant(self, value: int | float, kind: ir.Type = _I32) -> ir.Constant:
        return ir.Constant(self.shaped(kind), value)

    def float(self, bits: ir.Value) -> ir.Value:
        return self.b.bitcast(bits, self.shaped(_F32))

    def int(self, number: ir.Value) -> ir.Value:
        return self.b.bitcast(number, self.shaped(_I32))


def _from_half(x: _Bits) -> ir.Value:
    """Exponent and fraction moved into place, then scaled: exact, for subnormal numbers too."""
    b, c = x.b, x.constant
    bits = b.zext(x.value, x.shaped(_I32))
    sign = b.shl(b.and_(bits, c(0x8000)), c(16))
    size = b.shl(b.and_(bits, c(0x7FFF)), c(_SHIFT))
    scaled = x.int(b.fmul(x.float(size), c(_REBIAS, _F32)))
    special = b.icmp_unsigned(">=", size, c(0x7C00 << _SHIFT))
    return x.float(b.or_(sign, b.select(special, b.or_(size, c(_INFINITE)), scaled)))


def _to_half(x: _Bits) -> ir.Value:
    """Three ranges: infinite and NaN, normal (rounded by a carry), subnormal (by an addition)."""
    b, c = x.b, x.constant
    bits = x.int(x.value)
    sign = b.and_(b.lshr(bits, c(16)), c(0x8000))
    size = b.and_(bits, c(0x7FFFFFFF))
    # Adding 1/2 leaves a number below 2^-14 rounded to multiples of 2^-24 in the last bits.
    half = c(0.5, _F32)
    small = b.sub(x.int(b.fadd(x.float(size), half)), x.int(half))
    odd = b.and_(b.lshr(size, c(_SHIFT)), c(1))
    rebased = b.sub(size, c((127 - 15) << 23))
    normal = b.lshr(b.add(b.add(rebased, c(0x0FFF)), odd), c(_SHIFT))
    found = b.select(b.icmp_unsigned("<", size, c(113 << 23)), small, normal)
    infinite = b.icmp_unsigned(">=", size, c(143 << 23))
    nan = b.icmp_unsigned(">", size, c(_INFINITE))
    found = b.select(infinite, b.select(nan, c(0x7E00), c(0x7C00)), found)
    return b.trunc(b.or_(sign, found), x.shaped(_I16))


def _from_brain(x: _Bits) -> ir.Value:
    """bfloat16 is the upper half of float32."""
    return x.float(x.b.shl(x.b.zext(x.value, x.shaped(_I32)), x.constant(16)))


def _to_brain(x: _Bits) -> ir.Value:
    b, c = x.b, x.constant
    bits = x.int(x.value)
    odd = b.and_(b.lshr(bits, c(16)), c(1))
    rounded = b.add(b.add(bits, c(0x7FFF)), odd)
    nan = b.icmp_unsigned(">", b.and_(bits, c(0x7FFFFFFF)), c(_INFINITE))
    quiet = b.or_(bits, c(0x00400000))
    return b.trunc(b.lshr(b.select(nan, quiet, rounded), c(16)), x.shaped(_I16))
