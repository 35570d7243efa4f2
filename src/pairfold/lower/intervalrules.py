"""The rule of every scalar primitive on intervals: bounds of a result from those of its operands.

Each is the natural extension of its primitive, on arrays of intervals that broadcast. The bounds
hold for the number that any backend computes in a dtype: results of arithmetic are widened by some
units in the last place (products may be fused with sums, quotients be products with inverses),
those of functions by more than what `backends.functions` promises, and subnormal results may be
zero. What is exact is not widened: comparisons, selections, signs, whole numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..core.dtypes import DTYPES
from ..core.primitives import MOST_WHOLE, PRIMITIVES

Numbers = NDArray[np.number]
Bits = NDArray[np.bool_]


class Interval(NamedTuple):
    """What a number lies in, for each cell: low <= number <= high, unless it is NaN.

    Arrays of float64, or of int64 where the value is a whole number, of shapes that broadcast. A
    zero stands for both zeros. `nan`: whether it may be NaN; where it can be nothing else, `low`
    and `high` are any.
    """

    low: Numbers
    high: Numbers
    nan: Bits


class Truth(NamedTuple):
    """Whether a mask may hold for some pair of a cell, and whether it holds for all of them."""

    possible: Bits
    certain: Bits


NEVER, ALWAYS = np.zeros((), bool), np.ones((), bool)
UNKNOWN = Interval(np.asarray(-math.inf), np.asarray(math.inf), ALWAYS)


# ---- rounding ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Format:
    """What rounding to a dtype does.

    Args:
        name: of the dtype.
        eps: the distance from 1 to the next number.
        largest: the largest finite number.
        near: magnitudes up to here stay finite when they are rounded, whatever way.
        normal: the smallest number with all its digits.
        smallest: the smallest number above 0.
    """

    name: str
    eps: float
    largest: float
    near: float
    normal: float
    smallest: float


def _format(name: str) -> Format:
    each = DTYPES[name]
    normal = 2.0 ** (each.smallest + each.fraction_bits)
    near = each.largest * (1 - 64 * each.eps)
    return Format(name, each.eps, each.largest, near, normal, 2.0**each.smallest)


FORMATS = {name: _format(name) for name, each in DTYPES.items() if not each.half}

# By how many eps results are widened: sums and products, which are rounded once at most, and
# quotients and roots, which GPUs approximate; functions, whose errors are at most 4 units in the
# last place (`tests/test_approximations.py`), with those of NumPy's, which compute the bounds.
_SUMS, _QUOTIENTS, _FUNCTIONS = 2.0, 6.0, 8.0
_OWN = 2.0**-48
# The exponent of e^x may be off by so many eps of itself (`exp_of_rounded`, and powers of two).
_EXPONENTS = 4.0
# What underflows may be computed as so many of the smallest number.
_LEFT = 4


def _never() -> Bits:
    return NEVER


def rounded(
    f: Format,
    low: Numbers,
    high: Numbers,
    nan: Bits,
    slack: float,
    invalid: Callable[[], Bits] = _never,
) -> Interval:
    """The interval of a result that is rounded, of the interval of the exact one.

    Bounds are moved apart by `slack`, relative, and keep their signs; zeros stay. NaN in a bound
    means that nothing is known there. `invalid` says where infinite operands may give NaN: it is
    asked where a bound is not finite, or nearly not.
    """
    least, most = np.min(low, initial=math.inf), np.max(high, initial=-math.inf)
    far = not (-f.near <= least and most <= f.near)
    if far:
        nan = nan | invalid()
        low = np.where(np.isnan(low), -math.inf, low)
        high = np.where(np.isnan(high), math.inf, high)
    if least >= 0:
        low, high = low * (1 - slack), high * (1 + slack)
    elif most <= 0:
        low, high = low * (1 + slack), high * (1 - slack)
    else:
        low = np.minimum(low * (1 - slack), low * (1 + slack))
        high = np.maximum(high * (1 - slack), high * (1 + slack))
    if far:
        # What overflowed may be a finite number inside of a fused operation, and else is infinite.
        low = np.where(low < -f.near, -math.inf, np.minimum(low, f.largest))
        high = np.where(high > f.near, math.inf, np.maximum(high, -f.largest))
    if not (least >= 2 * f.normal or most <= -2 * f.normal):
        low, high = _lowered(f, low), -_lowered(f, -high)
    return Interval(low, high, nan)


def _lowered(f: Format, low: Numbers) -> Numbers:
    """A lower bound where subnormal results may be zero, and are rounded to multiples."""
    small = (low < f.normal) & (low > -f.normal)
    small &= low != 0
    if not small.any():
        return low
    return np.where(small, np.where(low > 0, 0.0, low - _LEFT * f.smallest), low)


def _slack(f: Format, units: float) -> float:
    """Some eps, relative, with the errors of bounds themselves, which are computed in float64."""
    return units * f.eps + (_OWN if units >= _FUNCTIONS else 0.0)


def _within(a: Interval, low: float, high: float) -> Interval:
    return Interval(np.clip(a.low, low, high), np.clip(a.high, low, high), a.nan)


def _infinite(a: Interval) -> Bits:
    return (a.low == -math.inf) | (a.high == math.inf)


def _around_zero(a: Interval) -> Bits:
    return (a.low <= 0) & (a.high >= 0)


# ---- arithmetic ----------------------------------------------------------------------------------


def _add(f: Format, a: Interval, b: Interval) -> Interval:
    def invalid() -> Bits:
        up, down = (a.high == math.inf), (a.low == -math.inf)
        return (up & (b.low == -math.inf)) | (down & (b.high == math.inf))

    slack = _slack(f, _SUMS)
    return rounded(f, a.low + b.low, a.high + b.high, a.nan | b.nan, slack, invalid)


def _sub(f: Format, a: Interval, b: Interval) -> Interval:
    return _add(f, a, _neg(f, b))


def _neg(f: Format, a: Interval) -> Interval:
    return Interval(-a.high, -a.low, a.nan)


def _abs(f: Format, a: Interval) -> Interval:
    return Interval(np.maximum(np.maximum(a.low, -a.high), 0), np.maximum(-a.low, a.high), a.nan)


def _corners(
    function: Callable[[Numbers, Numbers], Numbers], a: Interval, b: Interval
) -> tuple[Numbers, Numbers, bool]:
    """The extremes of a function that is monotone in each operand, whatever the other one is.

    0 times infinity and the like count as 0, a limit of what is there; whether there are any.
    """
    first, second = ((x.low,) if x.low is x.high else (x.low, x.high) for x in (a, b))
    ends = [function(x, y) for x in first for y in second]
    low = reduce(np.minimum, ends)
    unclear = bool(np.isnan(np.min(low, initial=0)))
    if unclear:
        ends = [np.where(np.isnan(end), 0.0, end) for end in ends]
        low = reduce(np.minimum, ends)
    return low, reduce(np.maximum, ends), unclear


def _mul(f: Format, a: Interval, b: Interval) -> Interval:
    def invalid() -> Bits:
        return (_around_zero(a) & _infinite(b)) | (_around_zero(b) & _infinite(a))

    low, high, unclear = _corners(np.multiply, a, b)
    nan = a.nan | b.nan | invalid() if unclear else a.nan | b.nan
    return rounded(f, low, high, nan, _slack(f, _SUMS), invalid)


def _square(f: Format, a: Interval) -> Interval:
    size = _abs(f, a)
    return rounded(f, size.low * size.low, size.high * size.high, a.nan, _slack(f, _SUMS))


def _div(f: Format, a: Interval, b: Interval) -> Interval:
    """Nothing is known of what is divided by an interval around 0: either zero may be there."""
    zero = _around_zero(b)

    def invalid() -> Bits:
        return (zero & _around_zero(a)) | (_infinite(a) & _infinite(b))

    low, high, unclear = _corners(np.divide, a, b)
    nan = a.nan | b.nan | invalid() if unclear else a.nan | b.nan
    if zero.any():
        low, high = np.where(zero, -math.inf, low), np.where(zero, math.inf, high)
    return rounded(f, low, high, nan, _slack(f, _QUOTIENTS), invalid)


def _sqrt(f: Format, a: Interval) -> Interval:
    """GPUs may take a subnormal number for 0."""
    low = np.sqrt(np.where(a.low < f.normal, 0.0, a.low))
    high = np.sqrt(np.maximum(a.high, 0))
    return rounded(f, low, high, a.nan | (a.low < 0), _slack(f, _QUOTIENTS))


def _rsqrt(f: Format, a: Interval) -> Interval:
    """Infinite at 0, and at what is taken for it, with the sign of the zero."""
    high = 1 / np.sqrt(np.where(a.low < f.normal, 0.0, a.low))
    low = 1 / np.sqrt(np.maximum(a.high, 0))
    below = (a.low <= 0) & (a.high > -f.normal)
    low = np.where(below, -math.inf, low)
    return rounded(f, low, high, a.nan | (a.low < 0), _slack(f, _QUOTIENTS))


# ---- functions -----------------------------------------------------------------------------------

_ALL = (-math.inf, math.inf)


def _monotone(
    function: Callable[[Numbers], Numbers],
    domain: tuple[float, float] = _ALL,
    image: tuple[float, float] = _ALL,
    falling: bool = False,
) -> Rule:
    """The rule of a function that rises (or falls) all over its domain, and is NaN outside.

    `image`: what its computed values surely stay within.
    """

    def rule(f: Format, a: Interval) -> Interval:
        nan = a.nan
        if domain != _ALL:
            nan = nan | (a.low < domain[0]) | (a.high > domain[1])
            a = _within(a, *domain)
        first, last = (a.high, a.low) if falling else (a.low, a.high)
        found = rounded(f, function(first), function(last), nan, _slack(f, _FUNCTIONS))
        return found if image == _ALL else _within(found, *image)

    return rule


def _exp(f: Format, a: Interval) -> Interval:
    """The error of the exponent counts, too; what underflows may be some subnormal number."""
    slack = _EXPONENTS * f.eps
    low = np.exp(np.minimum(a.low * (1 - slack), a.low * (1 + slack)))
    high = np.exp(np.maximum(a.high * (1 - slack), a.high * (1 + slack)))
    return rounded(f, low, high + _LEFT * f.smallest, a.nan, _slack(f, _FUNCTIONS))


def _erfc(f: Format, a: Interval) -> Interval:
    """It falls, and underflows as e^-x does."""
    function = _each("erfc")
    high = function(a.low) + _LEFT * f.smallest
    return rounded(f, function(a.high), high, a.nan, _slack(f, _FUNCTIONS))


def _wave(function: Callable[[Numbers], Numbers], peak: float) -> Rule:
    """The rule of a sine that is 1 at `peak`."""

    def rule(f: Format, a: Interval) -> Interval:
        turn, near = 2 * math.pi, 1e-8
        first, last = (a.low - peak) / turn, (a.high - peak) / turn
        far, moves = np.maximum(-a.low, a.high) > 2.0**20, a.low < a.high
        every = ~(a.high - a.low < turn) | (far & moves)
        # Peaks and troughs that are met, or nearly met, which moves a bound by next to nothing.
        top = moves & (np.floor(last + near) >= np.ceil(first - near))
        bottom = moves & (np.floor(last - 0.5 + near) >= np.ceil(first - 0.5 - near))
        ends = function(a.low), function(a.high)
        low = np.where(every | bottom, -1.0, np.minimum(*ends))
        high = np.where(every | top, 1.0, np.maximum(*ends))
        return rounded(f, low, high, a.nan | _infinite(a), _slack(f, _FUNCTIONS))

    return rule


def _pow(f: Format, a: Interval, b: Interval) -> Interval:
    """Bases below 0 have powers where the exponent is one whole number; else they may be NaN."""
    size = _abs(f, a)
    least, most, _ = _corners(np.power, size, b)
    left_over = _LEFT * f.smallest
    most = most + left_over
    one = b.low == b.high
    whole = one & (np.floor(b.low) == b.low)
    odd = whole & (np.abs(np.fmod(b.low, 2)) == 1)
    low, high, below = least, most, a.low <= 0  # the zero below 0 counts
    if (below & odd).any():
        # -|x|^n to the left of 0, x^n to the right; through 0 without bounds where n < 0.
        left, right = (np.power(np.maximum(end, 0), b.low) + left_over for end in (-a.low, a.high))
        through = below & odd & (a.high >= 0)
        low = np.where(odd & (a.high < 0), -most, np.where(through, -left, low))
        high = np.where(odd & (a.high < 0), -least, np.where(through, right, high))
        endless = through & (b.low < 0)
        low, high = np.where(endless, -math.inf, low), np.where(endless, math.inf, high)
    low = np.where(below & ~one, -most, low)
    nan = a.nan | b.nan | ((a.low < 0) & ~whole)
    return rounded(f, low, high, nan, _slack(f, _FUNCTIONS))


def _atan2(f: Format, y: Interval, x: Interval) -> Interval:
    """Every angle where the cut, or 0, is met; else the corners have the extremes."""
    low, high, _ = _corners(np.arctan2, y, x)
    clear = (x.low > 0) | (y.low > 0) | (y.high < 0)
    low, high = np.where(clear, low, -math.pi), np.where(clear, high, math.pi)
    return rounded(f, low, high, y.nan | x.nan, _slack(f, _FUNCTIONS))


# Where log gamma(x) is least, for x > 0.
_LEAST_GAMMA = 1.4616321449683622


def _lgamma(f: Format, a: Interval) -> Interval:
    """It falls, then rises; nothing is known below 0. Near its zeros errors are absolute."""
    function, slack = _each("lgamma"), _slack(f, _FUNCTIONS)
    right = _within(a, 0, math.inf)
    low = function(np.clip(_LEAST_GAMMA, right.low, right.high))
    high = np.maximum(function(right.low), function(right.high))
    low, high = low - slack * (np.abs(low) + 1), high + slack * (np.abs(high) + 1)
    below = a.low < 0
    low, high = np.where(below, -math.inf, low), np.where(below, math.inf, high)
    return rounded(f, low, high, a.nan, 0.0)


def _each(name: str) -> Callable[[Numbers], Numbers]:
    """A function that NumPy lacks, as the table of primitives has it."""
    function = PRIMITIVES[name].numpy
    return lambda x: np.asarray(function(x), np.float64)


# ---- comparisons and selections ------------------------------------------------------------------


def _known(bits: Bits, a: Interval, b: Interval) -> Bits:
    """What is certain of two numbers, unless one of them may be NaN."""
    nan = a.nan | b.nan
    return bits & ~nan if nan.any() else bits


def _lt(f: Format, a: Interval, b: Interval) -> Truth:
    return Truth(a.low < b.high, _known(a.high < b.low, a, b))


def _le(f: Format, a: Interval, b: Interval) -> Truth:
    return Truth(a.low <= b.high, _known(a.high <= b.low, a, b))


def _eq(f: Format, a: Interval, b: Interval) -> Truth:
    possible = (a.low <= b.high) & (b.low <= a.high)
    return Truth(possible, _known((a.low == b.high) & (a.high == b.low), a, b))


def _ne(f: Format, a: Interval, b: Interval) -> Truth:
    equal = _eq(f, a, b)
    return Truth(~equal.certain, ~equal.possible)


def _both(f: Format, a: Truth, b: Truth) -> Truth:
    return Truth(a.possible & b.possible, a.certain & b.certain)


def _either(f: Format, a: Truth, b: Truth) -> Truth:
    return Truth(a.possible | b.possible, a.certain | b.certain)


def _select(f: Format, mask: Truth, x: Interval, y: Interval) -> Interval:
    """All that may be taken."""
    if mask.certain.all():
        return x
    if not mask.possible.any():
        return y

    def taken(x: Numbers, y: Numbers, union: Numbers) -> Numbers:
        return np.where(mask.certain, x, np.where(mask.possible, union, y))

    low = taken(x.low, y.low, np.minimum(x.low, y.low))
    high = taken(x.high, y.high, np.maximum(x.high, y.high))
    nan = (x.nan & mask.possible) | (y.nan & ~mask.certain)
    return Interval(low, high, nan)


# ---- whole numbers -------------------------------------------------------------------------------


def _whole_add(f: Format, a: Interval, b: Interval) -> Interval:
    return Interval(a.low + b.low, a.high + b.high, NEVER)


def _whole_sub(f: Format, a: Interval, b: Interval) -> Interval:
    return Interval(a.low - b.high, a.high - b.low, NEVER)


def _whole_mul(f: Format, a: Interval, b: Interval) -> Interval:
    return Interval(*_corners(np.multiply, a, b)[:2], NEVER)


def _whole_of(f: Format, a: Interval) -> Interval:
    """Rounded down; where NaN may occur, 0 may."""
    low, high = (np.clip(np.floor(end), -MOST_WHOLE, MOST_WHOLE) for end in (a.low, a.high))
    low, high = np.where(a.nan, np.minimum(low, 0), low), np.where(a.nan, np.maximum(high, 0), high)
    return Interval(low.astype(np.int64), high.astype(np.int64), NEVER)


def _real(f: Format, a: Interval) -> Interval:
    """Rounded once, or not at all by the interpreter, which computes in float64."""
    narrow = [end.astype(f.name).astype(np.float64) for end in (a.low, a.high)]
    low, high = a.low.astype(np.float64), a.high.astype(np.float64)
    return Interval(np.minimum(low, narrow[0]), np.maximum(high, narrow[1]), NEVER)


# ---- the rules -----------------------------------------------------------------------------------

# The bounds of a result, of what rounding to a dtype does and those of operands.
Rule = Callable[..., Interval | Truth]

RULES: dict[str, Rule] = {
    "add": _add,
    "sub": _sub,
    "apart": _sub,
    "mul": _mul,
    "div": _div,
    "neg": _neg,
    "abs": _abs,
    "sqrt": _sqrt,
    "rsqrt": _rsqrt,
    "exp": _exp,
    "expm1": _monotone(np.expm1),
    "log": _monotone(np.log, domain=(0, math.inf)),
    "log1p": _monotone(np.log1p, domain=(-1, math.inf)),
    "sin": _wave(np.sin, math.pi / 2),
    "cos": _wave(np.cos, 0),
    "tanh": _monotone(np.tanh, image=(-1, 1)),
    "pow": _pow,
    "asin": _monotone(np.arcsin, domain=(-1, 1)),
    "acos": _monotone(np.arccos, domain=(-1, 1), falling=True),
    "atan": _monotone(np.arctan),
    "atan2": _atan2,
    "erf": _monotone(_each("erf"), image=(-1, 1)),
    "erfc": _erfc,
    "lgamma": _lgamma,
    "floor": lambda f, a: Interval(np.floor(a.low), np.floor(a.high), a.nan),
    "lt": _lt,
    "le": _le,
    "eq": _eq,
    "ne": _ne,
    "both": _both,
    "either": _either,
    "select": _select,
    "whole_add": _whole_add,
    "whole_sub": _whole_sub,
    "whole_mul": _whole_mul,
    "whole_neg": _neg,
    "whole_abs": _abs,
    "whole_lt": _lt,
    "whole_le": _le,
    "whole_eq": _eq,
    "whole_ne": _ne,
    "whole_select": _select,
    "whole_of": _whole_of,
    "real": _real,
}


def _reflexive(f: Format, a: Interval) -> Truth:
    return Truth(ALWAYS, ~a.nan)


def _irreflexive(f: Format, a: Interval) -> Truth:
    return Truth(NEVER, NEVER)


def _is_nan(f: Format, a: Interval) -> Truth:
    return Truth(a.nan, NEVER)


# The same of operations whose two operands are one value.
OF_ONE: dict[str, Rule] = {
    "mul": _square,
    "lt": _irreflexive,
    "le": _reflexive,
    "eq": _reflexive,
    "ne": _is_nan,
    "whole_lt": _irreflexive,
    "whole_le": _reflexive,
    "whole_eq": _reflexive,
    "whole_ne": _irreflexive,
}
