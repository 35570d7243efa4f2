"""The error function, the gamma function's logarithm, and the derivatives of that of every order.

The derivatives are polygamma functions. Far from 0 they are asymptotic series; the numbers near 0
are moved there by recurrences, and negative ones by reflection (Abramowitz and Stegun, Handbook of
Mathematical Functions, 6.3 and 6.4). All orders are rows, so derivatives never end.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from ..core.scalars import Scalars, Value
from ..errors import refuse
from .elementwise import exp, square, whole_power
from .table import Param, elementwise
from .vectors import make_constant

Floats = NDArray[np.float64]

_SLOPE = make_constant(2 / math.sqrt(math.pi))  # of erf at 0


def _integral(start: float, end: float, count: int) -> tuple[Floats, Floats]:
    """Points and weights of a Gauss-Legendre rule."""
    points, weights = np.polynomial.legendre.leggauss(count)
    half = (end - start) / 2
    return start + half * (points + 1), weights * half


def _like_erf(x: Floats) -> Floats:
    """The integral of 2/sqrt(pi) exp(-x^2 u^2) x for u from 0 to 1, by quadrature."""
    points, weights = _integral(0, 1, 48)
    x = np.asarray(x)
    return 2 / math.sqrt(math.pi) * x * (np.exp(-np.square(x[..., None] * points)) @ weights)


erf = elementwise(
    "Erf",
    "x",
    "The error function.",
    value=lambda s, x: s.erf(x),
    slopes=lambda out, x: [_SLOPE * exp(-square(x))],
    method="erf",
    like=_like_erf,
    known=((0, 0), (1, 0.8427007929497149), (-0.5, -0.5204998778130465)),
    derivative="2/sqrt(pi) * Exp(-x^2)",
)

erfc = elementwise(
    "Erfc",
    "x",
    "1 - Erf(x), accurate where that is small.",
    value=lambda s, x: s.erfc(x),
    slopes=lambda out, x: [-(_SLOPE * exp(-square(x)))],
    method="erfc",
    like=lambda x: 1 - _like_erf(x),
    known=((0, 1), (1, 0.15729920705028513), (5, 1.5374597944280347e-12)),
    derivative="-2/sqrt(pi) * Exp(-x^2)",
)

# ----- the gamma function ------------------------------------------------------------------------


_SHIFTS = np.arange(30.0)


def _like_lgamma(x: Floats) -> Floats:
    """Stirling's series of x + 30, less the logarithms of the numbers between."""
    y = np.asarray(x) + _SHIFTS.size
    far = (y - 0.5) * np.log(y) - y + math.log(2 * math.pi) / 2
    far = far + 1 / (12 * y) - 1 / (360 * y**3) + 1 / (1260 * y**5)
    return far - np.log(np.asarray(x)[..., None] + _SHIFTS).sum(-1)


lgamma = elementwise(
    "Lgamma",
    "x",
    "The logarithm of the absolute value of the gamma function.",
    value=lambda s, x: s.lgamma(x),
    slopes=lambda out, x: [digamma(x)],
    method="lgamma",
    like=_like_lgamma,
    domain={"x": (0.5, 4)},
    known=((1, 0), (2, 0), (0.5, 0.5723649429247001), (10, 12.801827480081469)),
    derivative="Digamma(x)",
    conventions="infinite at 0 and at negative whole numbers",
)


def _bernoulli(count: int) -> list[Fraction]:
    """B_0, B_1, ..., with B_1 = -1/2."""
    found: list[Fraction] = []
    for m in range(count):
        total = sum((math.comb(m + 1, k) * b for k, b in enumerate(found)), Fraction(0))
        found.append((1 - total if m == 0 else -total) / (m + 1))
    return found


# Where series begin: from here on they have float64's digits.
_FAR = 8


def _horner(s: Scalars, x: Value, coefficients: list[Fraction]) -> Value:
    """c[0] + c[1] x + c[2] x^2 + ..."""
    total = s.constant(coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        total = s.constant(coefficient) + x * total
    return total


def _cotangent(s: Scalars, x: Value) -> Value:
    """cot(pi x), infinite at whole numbers; by sines alone, which keep their digits near 0."""
    turn = x - s.floor(x + 0.5)
    return s.sin((0.5 - s.abs(turn)) * math.pi) / s.sin(turn * math.pi)


def _digamma(s: Scalars, x: Value) -> Value:
    """log(y) - 1/(2 y) - sum B_2k/(2 k y^2k), minus 1/x + ... + 1/(x + 7) where y is x + 8."""
    below = s.lt(x, 0)
    start = s.select(below, 1 - x, x)
    far = s.le(_FAR, start)
    near = s.select(far, 1, start)
    over, under = s.constant(1), near
    for k in range(1, _FAR):
        over = over * (near + k) + under
        under = under * (near + k)
    y = s.select(far, start, start + _FAR)
    inverse = 1 / y
    numbers = _bernoulli(21)
    square_ = inverse * inverse
    series = _horner(s, square_, [numbers[2 * k] / (2 * k) for k in range(1, 11)])
    found = s.log(y) - inverse * 0.5 - square_ * series - s.select(far, 0, over / under)
    reflected = found - _cotangent(s, x) * math.pi
    whole = s.eq(x, s.floor(x))
    return s.select(below, s.select(whole, math.nan, reflected), found)


def _like_digamma(x: Floats) -> Floats:
    """The derivative of that series."""
    y = np.asarray(x) + _SHIFTS.size
    far = np.log(y) - 1 / (2 * y) - 1 / (12 * y**2) + 1 / (120 * y**4) - 1 / (252 * y**6)
    return far - (1 / (np.asarray(x)[..., None] + _SHIFTS)).sum(-1)


digamma = elementwise(
    "Digamma",
    "x",
    "The derivative of Lgamma.",
    value=_digamma,
    slopes=lambda out, x: [polygamma(x, 1)],
    method="digamma",
    like=_like_digamma,
    domain={"x": (0.5, 4)},
    known=((1, -0.5772156649015329), (0.5, -1.9635100260214235), (-0.5, 0.03648997397857652)),
    derivative="Polygamma(x, 1)",
    conventions="-inf at 0, inf at -0, NaN at negative whole numbers; errors are relative to 1 "
    "where it is small",
)


def _zeta_tail(order: int, start: int) -> list[Fraction]:
    """B_2j/(2j)! s (s+1) ... (s+2j-2), until terms over start^(2j-1) are rounding errors.

    The series of Euler and Maclaurin for the sum of (y + k)^-s over k.
    """
    numbers = _bernoulli(61)
    found: list[Fraction] = []
    rising = Fraction(order, 2)  # s (s+1) ... over (2j)!
    for j in range(1, 31):
        found.append(numbers[2 * j] * rising)
        if abs(float(found[-1])) * (order - 1) * float(start) ** (-2 * j) < 2.0**-58:
            break
        rising *= Fraction((order + 2 * j - 1) * (order + 2 * j), (2 * j + 1) * (2 * j + 2))
    return found


def _polygamma_positive(s: Scalars, x: Value, n: int) -> Value:
    """n! times the sum of (x + k)^-(n+1) over all k; without the sign."""
    power, count = n + 1, _FAR + n // 2
    total = whole_power(s, 1 / x, power)
    for k in range(1, count):
        total = total + whole_power(s, 1 / (x + k), power)
    y = x + count
    inverse = 1 / y
    tail = _horner(s, inverse * inverse, _zeta_tail(power, count)) * inverse + Fraction(1, 2)
    last = whole_power(s, inverse, n) * (Fraction(1, n) + inverse * tail)
    return (total + last) * math.factorial(n)


def _cotangent_derivative(n: int) -> list[int]:
    """The n-th derivative of cot(t) as a polynomial of cot(t): each is -(1 + c^2) times P'(c)."""
    found = [0, 1]
    for _ in range(n):
        slope = [k * c for k, c in enumerate(found)][1:]
        found = [0] * (len(slope) + 2)
        for k, c in enumerate(slope):
            found[k] -= c
            found[k + 2] -= c
    return found


def _polygamma(s: Scalars, x: Value, n: int) -> Value:
    below = s.lt(x, 0)
    found = _polygamma_positive(s, s.select(below, 1 - x, x), n)
    polynomial = [Fraction(c) for c in _cotangent_derivative(n)]
    turned = _horner(s, _cotangent(s, x), polynomial) * math.pi ** (n + 1)
    return s.select(below, -(found + turned), found if n % 2 else -found)


def _like_polygamma(x: Floats, n: int) -> Floats:
    """The same of any order: the sum of 30 terms, and five of the series for what is left."""
    y = np.asarray(x) + _SHIFTS.size
    far = y ** (-float(n)) / n + y ** (-n - 1.0) / 2 + (n + 1) * y ** (-n - 2.0) / 12
    far = far - (n + 1) * (n + 2) * (n + 3) * y ** (-n - 4.0) / 720
    far = far + math.prod(range(n + 1, n + 6)) * y ** (-n - 6.0) / 30240
    terms = (np.asarray(x)[..., None] + _SHIFTS) ** (-n - 1.0)
    return (-1) ** (n + 1) * math.factorial(n) * (terms.sum(-1) + far)


polygamma = elementwise(
    "Polygamma",
    "x",
    "The derivative of Digamma of order n.",
    params=[Param("n", 1)],
    dims=lambda d, n: d if n >= 1 else refuse("the order is at least 1", "Digamma(x) is that of 0"),
    value=_polygamma,
    slopes=lambda out, x, n: [polygamma(x, n + 1)],
    method="polygamma",
    like=_like_polygamma,
    domain={"x": (0.5, 4)},
    known=(
        *((1, 1, 1.6449340668482264), (1, 2, -2.4041138063191885), (0.5, 3, 97.40909103400244)),
        *((-0.5, 1, 8.934802200544679), (-0.5, 2, -0.8287966442343199)),
    ),
    refuses=[((3,), (0,), "at least 1")],
    derivative="Polygamma(x, n+1)",
    conventions="infinite at 0",
)
