"""What elementary functions are written in: arithmetic on values of one float type.

Turns calls such as ``s.fma(a, b, c)`` into whatever a backend makes of them: instructions, or text.
The invariant: every value that goes in or comes out is of the one type (a vector of lanes, a tile),
and what is written is what is computed, element by element. It does not choose targets, lay out
memory or build loops.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

Number = int | float | Fraction
Value = Any  # of a backend: an instruction, or a name

# (bits of the stored fraction, exponent of the smallest subnormal, exponent of overflow)
FORMATS = {"float32": (23, -149, 128), "float64": (52, -1074, 1024)}


def round_to_format(value: Number, dtype: str) -> float:
    """Round an exact number to the nearest value of `dtype`, ties to even.

    Going through a Python float first would round twice for float32, hence the
    integer arithmetic: value = q * 2**e with q rounded once.
    """
    fraction_bits, smallest, overflow = FORMATS[dtype]
    if isinstance(value, float) and (not math.isfinite(value) or value == 0.0):
        return value
    exact = Fraction(value)
    if exact == 0:
        return 0.0
    magnitude = abs(exact)
    exponent = magnitude.numerator.bit_length() - magnitude.denominator.bit_length()
    if magnitude < Fraction(2) ** exponent:
        exponent -= 1
    quantum = max(exponent - fraction_bits, smallest)
    quotient = round(exact / Fraction(2) ** quantum)
    if abs(quotient) * Fraction(2) ** quantum >= Fraction(2) ** overflow:
        return math.inf if exact > 0 else -math.inf
    # The product of a 53-bit integer and a power of two in range is exact.
    return math.ldexp(quotient, quantum) if quotient else math.copysign(0.0, exact)


class Arithmetic(ABC):
    """Arithmetic on values of `dtype`, float32 or float64, on a target with some features."""

    def __init__(self, dtype: str, features: frozenset[str]) -> None:
        if dtype not in FORMATS:
            raise ValueError(f"dtype must be float32 or float64, not {dtype!r}")
        self.dtype = dtype
        self.features = features
        self.bits = 32 if dtype == "float32" else 64
        self.fraction_bits = FORMATS[dtype][0]

    @property
    def has_fma(self) -> bool:
        """Whether `fma` rounds once (a fused instruction) on this target."""
        return bool(self.features & {"fma", "avx512f", "neon"})

    @property
    def has_neon(self) -> bool:
        """Whether this is AArch64, whose fused operations overwrite their addend."""
        return "neon" in self.features

    @property
    def has_avx512(self) -> bool:
        """Whether values are whole AVX-512 registers."""
        return False

    @property
    def has_root_steps(self) -> bool:
        """Whether `root_estimate` is one of 8 bits that `root_step` refines."""
        return False

    @abstractmethod
    def resized(self, dtype: str) -> Any:
        """The same arithmetic on another type."""

    # ---- constants -------------------------------------------------------------------

    @abstractmethod
    def constant(self, value: Number) -> Value:
        """A vector with every lane equal to `value`, correctly rounded."""

    @abstractmethod
    def int_constant(self, value: int) -> Value:
        """A vector of integers as wide as the floats, every lane equal to `value`."""

    @abstractmethod
    def splat(self, value: Value) -> Value:
        """Copy one scalar IR value into every lane."""

    # ---- float arithmetic ------------------------------------------------------------

    @abstractmethod
    def add(self, a: Value, b: Value) -> Value:
        """a + b, rounded once."""

    @abstractmethod
    def sub(self, a: Value, b: Value) -> Value:
        """a - b, rounded once."""

    @abstractmethod
    def mul(self, a: Value, b: Value) -> Value:
        """a * b, rounded once; never fused with a later addition."""

    @abstractmethod
    def div(self, a: Value, b: Value) -> Value:
        """a / b, rounded once."""

    @abstractmethod
    def neg(self, a: Value) -> Value:
        """Flip the sign bit (of NaN and zero too)."""

    @abstractmethod
    def fma(self, a: Value, b: Value, c: Value) -> Value:
        """a * b + c: one fused instruction where the target has it, two elsewhere.

        Never a library call.  Where the fused rounding is essential, test
        `has_fma` first.
        """

    @abstractmethod
    def fused(self, a: Value, b: Value, c: Value) -> Value:
        """a * b + c, rounded once; only where `has_fma`."""

    @abstractmethod
    def abs(self, a: Value) -> Value:
        """Clear the sign bit."""

    @abstractmethod
    def sqrt(self, a: Value) -> Value:
        """The correctly rounded square root; NaN below zero."""

    @abstractmethod
    def floor(self, a: Value) -> Value:
        """The largest integer not above a."""

    @abstractmethod
    def rint(self, a: Value) -> Value:
        """The nearest integer, ties to even."""

    @abstractmethod
    def copysign(self, magnitude: Value, sign: Value) -> Value:
        """The magnitude of the one with the sign bit of the other."""

    @abstractmethod
    def lesser(self, a: Value, b: Value) -> Value:
        """a if a < b else b: the result is b when either is NaN; of two zeros, either."""

    @abstractmethod
    def greater(self, a: Value, b: Value) -> Value:
        """a if a > b else b: the result is b when either is NaN; of two zeros, either."""

    # ---- masks -----------------------------------------------------------------------

    @abstractmethod
    def compare(self, op: str, a: Value, b: Value) -> Value:
        """A mask from "<", "<=", ">", ">=", "==" (false on NaN) or "!=" (true on NaN)."""

    @abstractmethod
    def int_compare(self, op: str, a: Value, b: Value) -> Value:
        """A mask from a signed comparison of integer vectors."""

    @abstractmethod
    def select(self, mask: Value, a: Value, b: Value) -> Value:
        """a where the mask is set, b elsewhere."""

    @abstractmethod
    def mask_and(self, a: Value, b: Value) -> Value:
        """Both masks."""

    @abstractmethod
    def mask_or(self, a: Value, b: Value) -> Value:
        """Either mask."""

    @abstractmethod
    def mask_not(self, a: Value) -> Value:
        """The lanes that the mask leaves out."""

    @abstractmethod
    def isnan(self, a: Value) -> Value:
        """A mask of the NaN lanes."""

    # ---- other types -----------------------------------------------------------------

    @abstractmethod
    def widened(self, a: Value) -> Value:
        """float32 values as those of `resized("float64")`."""

    @abstractmethod
    def narrowed(self, a: Value) -> Value:
        """Values of `resized("float64")` as float32, rounded."""

    # ---- bits and integers -----------------------------------------------------------

    @abstractmethod
    def to_bits(self, a: Value) -> Value:
        """The bit patterns of the floats, as integers of the same size."""

    @abstractmethod
    def from_bits(self, a: Value) -> Value:
        """The floats with these bit patterns."""

    @abstractmethod
    def to_int(self, a: Value) -> Value:
        """Convert values (not bits), truncating; poison outside the integer range."""

    @abstractmethod
    def to_float(self, a: Value) -> Value:
        """Convert signed integer values (not bits) to floats."""

    @abstractmethod
    def int_add(self, a: Value, b: Value) -> Value:
        """a + b modulo the integer size."""

    @abstractmethod
    def int_sub(self, a: Value, b: Value) -> Value:
        """a - b modulo the integer size."""

    @abstractmethod
    def int_and(self, a: Value, b: Value) -> Value:
        """Bitwise and."""

    @abstractmethod
    def int_or(self, a: Value, b: Value) -> Value:
        """Bitwise or."""

    @abstractmethod
    def int_xor(self, a: Value, b: Value) -> Value:
        """Bitwise exclusive or."""

    @abstractmethod
    def shift_left(self, a: Value, count: int) -> Value:
        """Shift every lane left by the same count."""

    @abstractmethod
    def shift_right(self, a: Value, count: int) -> Value:
        """Shift every lane right, copying the sign bit in."""

    @abstractmethod
    def shift_right_zero(self, a: Value, count: int) -> Value:
        """Shift every lane right, moving zeros in."""

    # ---- calls -----------------------------------------------------------------------

    @abstractmethod
    def rescue(self, name: str, x: Value, fast: Value, far: Value) -> Value:
        """`fast`, but the library's function in the lanes of `far`, in a cold branch.

        The choice is made lane by lane: which path a lane's value comes from depends on that
        lane only.
        """

    # ---- instructions of some processors -------------------------------------------
    # `has_avx512` and `has_root_steps` say where they are; elsewhere nobody calls them.

    def low_bits(self, wide: Value) -> Value:
        """The lower halves of integers of `resized("float64")`, as wide as the floats; of CPUs."""
        raise NotImplementedError

    def scaled(self, a: Value, n: Value) -> Value:
        """a 2^floor(n), which overflows and underflows by itself (AVX-512)."""
        raise NotImplementedError

    def limited(self, a: Value, bound: Value) -> Value:
        """The one of smaller magnitude, with the sign of the first; a NaN gives the other
        (AVX-512)."""
        raise NotImplementedError

    def exponent(self, a: Value) -> Value:
        """floor(log2 |a|), inf of infinities and -inf of zeros (AVX-512)."""
        raise NotImplementedError

    def mantissa(self, a: Value) -> Value:
        """a over a power of two, in [3/4, 3/2); NaN of negative numbers (AVX-512)."""
        raise NotImplementedError

    def lookup(self, index: Value, table: Sequence[Number]) -> Value:
        """table[index modulo its size], of the two registers that there may be (AVX-512)."""
        raise NotImplementedError

    def root_estimate(self, a: Value) -> Value:
        """About 1 / sqrt(a): to 14 bits (AVX-512), or to 8 (where there is `root_step`)."""
        raise NotImplementedError

    def root_step(self, a: Value, b: Value) -> Value:
        """(3 - a b) / 2."""
        raise NotImplementedError
