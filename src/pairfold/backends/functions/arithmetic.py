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
from typing import Generic, TypeVar

from ...core.cache import cached
from ...core.dtypes import DTYPES

Number = int | float | Fraction
V = TypeVar("V")  # a value of a backend: an instruction, or a name


def round_to_format(value: Number, dtype: str) -> float:
    """Round an exact number to the nearest value of `dtype`, ties to even.

    Going through a Python float first would round twice for float32, hence the
    integer arithmetic: value = q * 2**e with q rounded once.
    """
    if isinstance(value, float) and (not math.isfinite(value) or value == 0.0):
        return value
    return 0.0 if value == 0 else _rounded(value, dtype)


@cached("rounded numbers", 4096)
def _rounded(value: Number, dtype: str) -> float:
    of = DTYPES[dtype]
    exact = Fraction(value)
    magnitude = abs(exact)
    exponent = magnitude.numerator.bit_length() - magnitude.denominator.bit_length()
    if magnitude < Fraction(2) ** exponent:
        exponent -= 1
    quantum = max(exponent - of.fraction_bits, of.smallest)
    quotient = round(exact / Fraction(2) ** quantum)
    if abs(quotient) * Fraction(2) ** quantum >= Fraction(2) ** of.overflow:
        return math.inf if exact > 0 else -math.inf
    # The product of a 53-bit integer and a power of two in range is exact.
    return math.ldexp(quotient, quantum) if quotient else math.copysign(0.0, exact)


class Arithmetic(ABC, Generic[V]):
    """Arithmetic on values of `dtype`, float32 or float64, on a target with some features."""

    def __init__(self, dtype: str, features: frozenset[str]) -> None:
        if dtype not in DTYPES or DTYPES[dtype].half:
            raise ValueError(f"dtype must be float32 or float64, not {dtype!r}")
        self.dtype = dtype
        self.features = features
        self.bits = 8 * DTYPES[dtype].bytes
        self.fraction_bits = DTYPES[dtype].fraction_bits

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
    def resized(self, dtype: str) -> Arithmetic[V]:
        """The same arithmetic on another type."""

    # ---- constants -------------------------------------------------------------------

    @abstractmethod
    def constant(self, value: Number) -> V:
        """A vector with every lane equal to `value`, correctly rounded."""

    @abstractmethod
    def int_constant(self, value: int) -> V:
        """A vector of integers as wide as the floats, every lane equal to `value`."""

    @abstractmethod
    def splat(self, value: V) -> V:
        """Copy one scalar IR value into every lane."""

    # ---- float arithmetic ------------------------------------------------------------

    @abstractmethod
    def add(self, a: V, b: V) -> V:
        """a + b, rounded once."""

    @abstractmethod
    def sub(self, a: V, b: V) -> V:
        """a - b, rounded once."""

    @abstractmethod
    def mul(self, a: V, b: V) -> V:
        """a * b, rounded once; never fused with a later addition."""

    @abstractmethod
    def div(self, a: V, b: V) -> V:
        """a / b, rounded once."""

    @abstractmethod
    def neg(self, a: V) -> V:
        """Flip the sign bit (of NaN and zero too)."""

    @abstractmethod
    def fma(self, a: V, b: V, c: V) -> V:
        """a * b + c: one fused instruction where the target has it, two elsewhere.

        Never a library call.  Where the fused rounding is essential, test
        `has_fma` first.
        """

    @abstractmethod
    def fused(self, a: V, b: V, c: V) -> V:
        """a * b + c, rounded once; only where `has_fma`."""

    @abstractmethod
    def abs(self, a: V) -> V:
        """Clear the sign bit."""

    @abstractmethod
    def sqrt(self, a: V) -> V:
        """The correctly rounded square root; NaN below zero."""

    @abstractmethod
    def floor(self, a: V) -> V:
        """The largest integer not above a."""

    @abstractmethod
    def copysign(self, magnitude: V, sign: V) -> V:
        """The magnitude of the one with the sign bit of the other."""

    @abstractmethod
    def lesser(self, a: V, b: V) -> V:
        """a if a < b else b: the result is b when either is NaN; of two zeros, either."""

    @abstractmethod
    def greater(self, a: V, b: V) -> V:
        """a if a > b else b: the result is b when either is NaN; of two zeros, either."""

    # ---- masks -----------------------------------------------------------------------

    @abstractmethod
    def compare(self, op: str, a: V, b: V) -> V:
        """A mask from "<", "<=", ">", ">=", "==" (false on NaN) or "!=" (true on NaN)."""

    @abstractmethod
    def int_compare(self, op: str, a: V, b: V) -> V:
        """A mask from a signed comparison of integer vectors."""

    @abstractmethod
    def select(self, mask: V, a: V, b: V) -> V:
        """a where the mask is set, b elsewhere."""

    @abstractmethod
    def mask_and(self, a: V, b: V) -> V:
        """Both masks."""

    @abstractmethod
    def mask_or(self, a: V, b: V) -> V:
        """Either mask."""

    @abstractmethod
    def mask_not(self, a: V) -> V:
        """The lanes that the mask leaves out."""

    @abstractmethod
    def isnan(self, a: V) -> V:
        """A mask of the NaN lanes."""

    # ---- other types -----------------------------------------------------------------

    @abstractmethod
    def widened(self, a: V) -> V:
        """float32 values as those of `resized("float64")`."""

    @abstractmethod
    def narrowed(self, a: V) -> V:
        """Values of `resized("float64")` as float32, rounded."""

    # ---- bits and integers -----------------------------------------------------------

    @abstractmethod
    def to_bits(self, a: V) -> V:
        """The bit patterns of the floats, as integers of the same size."""

    @abstractmethod
    def from_bits(self, a: V) -> V:
        """The floats with these bit patterns."""

    @abstractmethod
    def to_int(self, a: V) -> V:
        """Convert values (not bits), truncating; poison outside the integer range."""

    @abstractmethod
    def to_float(self, a: V) -> V:
        """Convert signed integer values (not bits) to floats."""

    @abstractmethod
    def int_add(self, a: V, b: V) -> V:
        """a + b modulo the integer size."""

    @abstractmethod
    def int_sub(self, a: V, b: V) -> V:
        """a - b modulo the integer size."""

    @abstractmethod
    def int_and(self, a: V, b: V) -> V:
        """Bitwise and."""

    @abstractmethod
    def int_or(self, a: V, b: V) -> V:
        """Bitwise or."""

    @abstractmethod
    def int_xor(self, a: V, b: V) -> V:
        """Bitwise exclusive or."""

    @abstractmethod
    def shift_left(self, a: V, count: int) -> V:
        """Shift every lane left by the same count."""

    @abstractmethod
    def shift_right(self, a: V, count: int) -> V:
        """Shift every lane right, copying the sign bit in."""

    @abstractmethod
    def shift_right_zero(self, a: V, count: int) -> V:
        """Shift every lane right, moving zeros in."""

    # ---- calls -----------------------------------------------------------------------

    @abstractmethod
    def rescue(self, name: str, x: V, fast: V, far: V) -> V:
        """`fast`, but the library's function in the lanes of `far`, in a cold branch.

        The choice is made lane by lane: which path a lane's value comes from depends on that
        lane only.
        """

    # ---- instructions of some processors -------------------------------------------
    # `has_avx512` and `has_root_steps` say where they are; elsewhere nobody calls them.

    def low_bits(self, wide: V) -> V:
        """The lower halves of integers of `resized("float64")`, as wide as the floats; of CPUs."""
        raise NotImplementedError

    def scaled(self, a: V, n: V) -> V:
        """a 2^floor(n), which overflows and underflows by itself (AVX-512)."""
        raise NotImplementedError

    def limited(self, a: V, bound: V) -> V:
        """The one of smaller magnitude, with the sign of the first; a NaN gives the other
        (AVX-512)."""
        raise NotImplementedError

    def exponent(self, a: V) -> V:
        """floor(log2 |a|), inf of infinities and -inf of zeros (AVX-512)."""
        raise NotImplementedError

    def mantissa(self, a: V) -> V:
        """a over a power of two, in [3/4, 3/2); NaN of negative numbers (AVX-512)."""
        raise NotImplementedError

    def lookup(self, index: V, table: Sequence[Number]) -> V:
        """table[index modulo its size], of the two registers that there may be (AVX-512)."""
        raise NotImplementedError

    def root_estimate(self, a: V) -> V:
        """About 1 / sqrt(a): to 14 bits (AVX-512), or to 8 (where there is `root_step`)."""
        raise NotImplementedError

    def root_step(self, a: V, b: V) -> V:
        """(3 - a b) / 2."""
        raise NotImplementedError
