"""More functions that act component by component: inverse trigonometry, rounding, remainders.

Rows are as in `elementwise`; what is at a singular point is said in each row's conventions. The
derivatives of sin(x)/x of every order are spherical Bessel functions, computed without the
cancellation of the textbook formulas.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from ..core.node import Node
from ..core.scalars import Scalars, Value
from ..errors import refuse
from .elementwise import absolute, if_else, inv, log, rsqrt, square
from .table import Param, elementwise
from .vectors import make_constant, zero

Floats = NDArray[np.float64]

# ----- inverse trigonometry ----------------------------------------------------------------------


one_minus_square = elementwise(
    "OneMinusSquare",
    "x",
    "1 - x^2, as a product that keeps its digits near 1.",
    value=lambda s, x: (1 - x) * (1 + x),
    slopes=lambda out, x: [-2 * x],
    like=lambda x: 1 - x * x,
    known=((0, 1), (0.5, 0.75), (2, -3)),
    derivative="-2 x",
    internal=True,
)


def _arc_slope(x: Node) -> Node:
    """1/sqrt(1 - x^2)"""
    return rsqrt(one_minus_square(x))


asin = elementwise(
    "Asin",
    "x",
    "The angle in [-pi/2, pi/2] whose sine is x.",
    value=lambda s, x: s.asin(x),
    slopes=lambda out, x: [_arc_slope(x)],
    method="asin",
    like=np.arcsin,
    domain={"x": (-0.9, 0.9)},
    known=((0, 0), (1, 1.5707963267948966), (-0.5, -0.5235987755982989)),
    derivative="Rsqrt(1 - x^2)",
    conventions="the derivative is 0 at -1 and 1; NaN outside [-1, 1]",
)

acos = elementwise(
    "Acos",
    "x",
    "The angle in [0, pi] whose cosine is x.",
    value=lambda s, x: s.acos(x),
    slopes=lambda out, x: [-_arc_slope(x)],
    method="acos",
    like=np.arccos,
    domain={"x": (-0.9, 0.9)},
    known=((1, 0), (0, 1.5707963267948966), (-1, 3.141592653589793)),
    derivative="-Rsqrt(1 - x^2)",
    conventions="the derivative is 0 at -1 and 1; NaN outside [-1, 1]",
)

atan = elementwise(
    "Atan",
    "x",
    "The angle in (-pi/2, pi/2) whose tangent is x.",
    value=lambda s, x: s.atan(x),
    slopes=lambda out, x: [inv(make_constant(1) + square(x))],
    method="atan",
    like=np.arctan,
    known=((0, 0), (1, 0.7853981633974483)),
    derivative="1/(1 + x^2)",
)


def _atan2_slopes(out: Node, y: Node, x: Node) -> list[Node | None]:
    length = square(x) + square(y)
    return [x / length, -(y / length)]


atan2 = elementwise(
    "Atan2",
    "y x",
    "The angle of the point (x, y), from -pi to pi.",
    value=lambda s, y, x: s.atan2(y, x),
    slopes=_atan2_slopes,
    method="atan2",
    like=np.arctan2,
    domain={"x": (0.5, 3)},
    known=((0, 1, 0), (1, 0, 1.5707963267948966), (0, -1, 3.141592653589793)),
    derivative="x/(x^2 + y^2) and -y/(x^2 + y^2)",
    conventions="special values as in C99; the derivative is NaN at (0, 0)",
)

# ----- rounding and remainders -------------------------------------------------------------------

floor = elementwise(
    "Floor",
    "x",
    "The largest whole number that is not above x.",
    value=lambda s, x: s.floor(x),
    slopes=lambda out, x: [None],
    method="floor",
    like=np.floor,
    known=((1.5, 1), (-0.5, -1), (3, 3)),
    derivative="0",
)


def _nearest(s: Scalars, x: Value) -> Value:
    """|x| to the nearest whole number, halves upwards; every step is exact."""
    whole = s.floor(x)
    return s.select(s.le(0.5, x - whole), whole + 1, whole)


def _rounded(s: Scalars, x: Value, d: int) -> Value:
    """Half away from zero. What has no digits left to round is not scaled back and forth."""
    if d == 0:
        size = _nearest(s, s.abs(x))
    else:
        scale = s.constant(Fraction(10) ** abs(d) if abs(d) <= 308 else math.inf)
        scaled = s.abs(x * scale if d > 0 else x / scale)
        size = _nearest(s, scaled)
        if d > 0:
            size = s.select(s.lt(scaled, scaled + 0.25), size / scale, s.abs(x))
        else:
            size = s.select(s.eq(size, 0), 0, size * scale)
    return s.select(s.lt(x, 0), -size, size)


def _like_rounded(x: Floats, d: int) -> object:
    scaled = np.abs(x) * 10.0**d
    return np.sign(x) * (np.trunc(scaled) + (np.mod(scaled, 1) >= 0.5)) / 10.0**d


round_ = elementwise(
    "Round",
    "x",
    "x rounded to d decimal digits; to tens, hundreds ... for negative d.",
    params=[Param("d", 0)],
    value=_rounded,
    slopes=lambda out, x, d: [None],
    method="round",
    like=_like_rounded,
    known=((-0.5, 0, -1), (2.5, 0, 3), (0.25, 1, 0.3), (1234, -2, 1200), (-150, -2, -200)),
    derivative="0",
    conventions="halves away from zero; numbers too large to have such digits stay as they are",
)


def _remainder(s: Scalars, x: Value, n: Value, o: Value) -> Value:
    """x - n*floor((x-o)/n); where rounding puts that outside of the interval, it is the start."""
    inside = x - n * s.floor((x - o) / n)
    place = (inside - o) / n
    return s.select(s.lt(place, 0), o, s.select(s.le(1, place), o, inside))


mod = elementwise(
    "Mod",
    "x n o",
    "x minus the whole multiple of n that leaves a remainder in [o, o+n).",
    value=_remainder,
    slopes=lambda out, x, n, o: [make_constant(1), -floor((x - o) / n), None],
    method="mod",
    like=lambda x, n, o: x - n * np.floor((x - o) / n),
    domain={"n": (0.7, 1.5), "o": (-0.5, 0.5)},
    known=((3.5, 2, 0, 1.5), (-0.5, 2, 0, 1.5), (5, 2, -1, -1), (-0.5, -2, 0, -0.5)),
    derivative="1, -floor((x-o)/n) and 0",
    conventions="follows the sign of n: in (o+n, o] where n < 0",
)


def _like_clamped(x: Floats, a: int, b: int) -> object:
    return np.where(x < a, a, np.where(x > b, b, x))


clamp_int = elementwise(
    "ClampInt",
    "x",
    "x limited to the interval between two whole numbers.",
    params=[Param("a", -1), Param("b", 1)],
    value=lambda s, x, a, b: s.select(s.lt(x, a), a, s.select(s.lt(b, x), b, x)),
    slopes=lambda out, x, a, b: [diff_clamp_int(x, a, b)],
    like=_like_clamped,
    known=((3, 0, 1, 1), (-3, 0, 1, 0), (0.5, 0, 1, 0.5)),
    derivative="DiffClampInt(x, a, b)",
    conventions="the derivative is 1 on the closed interval; where a > b, a wins; NaN stays NaN",
)

diff_clamp_int = elementwise(
    "DiffClampInt",
    "x",
    "1 where x lies in the closed interval between two whole numbers, else 0.",
    params=[Param("a", -1), Param("b", 1)],
    value=lambda s, x, a, b: s.select(s.lt(x, a), 0, s.select(s.lt(b, x), 0, 1)),
    slopes=lambda out, x, a, b: [None],
    like=lambda x, a, b: np.where((x < a) | (x > b), 0.0, 1.0),
    known=((3, 0, 1, 0), (0, 0, 1, 1), (1, 0, 1, 1), (0.5, 0, 1, 1)),
    derivative="0",
    conventions="1 for NaN",
)

# ----- sin(x)/x, x log(x) ------------------------------------------------------------------------


def _bessel_series(s: Scalars, square_: Value, n: int, limit: float) -> Value:
    """The sum over k of (-x^2/2)^k / (k! (2n+2k+1)!!) up to x^2 = limit, by Horner's rule."""
    coefficients = [Fraction(1, math.prod(range(1, 2 * n + 2, 2)))]
    size = 1.0
    while size > 2.0**-64:
        k = len(coefficients)
        factor = Fraction(-1, 2 * k * (2 * n + 2 * k + 1))
        coefficients.append(coefficients[-1] * factor)
        size *= limit * abs(float(factor))
    total = s.constant(coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        total = s.constant(coefficient) + square_ * total
    return total


def _bessel(s: Scalars, x: Value, n: int) -> Value:
    """j_n(x)/x^n: upwards from sin(x)/x and cos(x) where that is stable, else the series."""
    first = s.sin(x) / x
    if n == 0:
        return s.select(s.eq(x, 0), 1, first)
    square_ = x * x
    before, last = first, (first - s.cos(x)) / square_
    for order in range(1, n):
        before, last = last, (last * (2 * order + 1) - before) / square_
    limit = max(4 * n, n * n)
    return s.select(s.lt(square_, limit), _bessel_series(s, square_, n, limit), last)


def _like_bessel(x: Floats, n: int) -> object:
    """Poisson's integral of cos(x u) (1 - u^2)^n, by quadrature."""
    nodes, weights = np.polynomial.legendre.leggauss(48)
    weights = weights * (1 - nodes**2) ** n / (2 ** (n + 1) * math.factorial(n))
    return np.cos(np.asarray(x)[..., None] * nodes) @ weights


bessel_div_x = elementwise(
    "BesselDivX",
    "x",
    "The spherical Bessel function of order n at x, over x^n.",
    params=[Param("n", 2)],
    dims=lambda d, n: d if n >= 0 else refuse("the order of a Bessel function is at least 0"),
    value=lambda s, x, n: _bessel(s, x, n),
    slopes=lambda out, x, n: [-(x * bessel_div_x(x, n + 1))],
    like=_like_bessel,
    known=((0, 0, 1), (0, 1, 0.3333333333333333), (0, 2, 0.06666666666666667)),
    refuses=[((3,), (-1,), "at least 0")],
    derivative="-x*BesselDivX(x, n+1)",
    conventions="1/(1*3*5* ... *(2n+1)) at 0, with all derivatives finite",
)


sin_x_div_x = elementwise(
    "SinXDivX",
    "x",
    "The sine of x, over x.",
    value=lambda s, x: _bessel(s, x, 0),
    slopes=lambda out, x: [-(x * bessel_div_x(x, 1))],
    method="sinxdivx",
    like=lambda x: np.sinc(x / np.pi),
    known=((0, 1), (3.141592653589793, 3.8981718325193755e-17), (1, 0.8414709848078965)),
    derivative="cos(x)/x - sin(x)/x^2, as -x*BesselDivX(x, 1)",
    conventions="1 at 0, where all derivatives are finite: 0, -1/3, 0, 1/5 ...",
)


def _x_log_x_slope(x: Node) -> Node:
    """log(x) + 1, but 0 at 0; -|x| >= 0 only there."""
    return if_else(-absolute(x), zero(x.dim), log(x) + make_constant(1))


x_log_x = elementwise(
    "XLogX",
    "x",
    "x*log(x), 0 at 0.",
    value=lambda s, x: s.select(s.eq(x, 0), 0, x * s.log(x)),
    slopes=lambda out, x: [_x_log_x_slope(x)],
    method="xlogx",
    like=lambda x: np.where(x == 0, 0, x * np.log(np.where(x == 0, 1, x))),
    domain={"x": (0.1, 4)},
    known=((0, 0), (1, 0), (2, 1.3862943611198906)),
    derivative="Log(x) + 1",
    conventions="value and derivatives are 0 at 0; NaN below 0",
)
