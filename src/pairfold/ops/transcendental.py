"""Exponentials and logarithms near 0 and 1, logistic and hyperbolic functions, the tangent.

Each is written so that it keeps its digits where the textbook formula loses them: near 0, where
terms cancel, and far out, where a part of the formula overflows before the whole does.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np

from ..core.node import Node
from ..core.scalars import Scalars, Value
from .elementwise import exp, inv, rsqrt, sqrt, square, tanh
from .functions import one_minus_square
from .table import elementwise
from .vectors import make_constant

# Beyond this size, 1 + x^2 is x^2 and x^2 is still finite, in float32 and in float64.
_LARGE = 2.0**60


def _odd(s: Scalars, x: Value, result: Value) -> Value:
    """A function of |x| with the sign of x; zeros and NaN stay what they are."""
    return s.select(s.lt(0, x), result, s.select(s.lt(x, 0), -result, x))


expm1 = elementwise(
    "Expm1",
    "x",
    "The exponential minus 1, accurate near 0.",
    value=lambda s, x: s.expm1(x),
    slopes=lambda out, x: [exp(x)],
    method="expm1",
    like=np.expm1,
    known=((0, 0), (1, 1.718281828459045), (1e-20, 1e-20)),
    derivative="Exp(x)",
)

log1p = elementwise(
    "Log1p",
    "x",
    "The natural logarithm of 1 + x, accurate near 0.",
    value=lambda s, x: s.log1p(x),
    slopes=lambda out, x: [inv(make_constant(1) + x)],
    method="log1p",
    like=np.log1p,
    domain={"x": (-0.8, 3)},
    known=((0, 0), (1, 0.6931471805599453), (1e-20, 1e-20)),
    derivative="1/(1 + x)",
    conventions="-inf at -1, NaN below",
)

# ----- logistic functions ------------------------------------------------------------------------


def _sigmoid(s: Scalars, x: Value) -> Value:
    small = s.exp(-s.abs(x))
    rest = 1 / (1 + small)
    return s.select(s.lt(x, 0), small * rest, rest)


def _sigmoid_slope(s: Scalars, x: Value) -> Value:
    small = s.exp(-s.abs(x))
    rest = 1 / (1 + small)
    return small * rest * rest


sigmoid_slope = elementwise(
    "SigmoidSlope",
    "x",
    "Sigmoid(x) * Sigmoid(-x), accurate where one of them is nearly 1.",
    value=_sigmoid_slope,
    slopes=lambda out, x: [-(out * tanh(make_constant(Fraction(1, 2)) * x))],
    like=lambda x: 1 / (2 + np.exp(x) + np.exp(-x)),
    known=((0, 0.25),),
    derivative="-SigmoidSlope(x) * Tanh(x/2)",
    internal=True,
)

sigmoid = elementwise(
    "Sigmoid",
    "x",
    "The logistic function 1/(1 + exp(-x)).",
    value=_sigmoid,
    slopes=lambda out, x: [sigmoid_slope(x)],
    method="sigmoid",
    like=lambda x: 1 / (1 + np.exp(-x)),
    known=((0, 0.5), (1, 0.7310585786300049), (-40, 4.248354255291589e-18)),
    derivative="Sigmoid(x) * Sigmoid(-x)",
)

softplus = elementwise(
    "Softplus",
    "x",
    "The logarithm of 1 + exp(x), a smooth ReLU.",
    value=lambda s, x: s.select(s.lt(x, 0), 0, x) + s.log1p(s.exp(-s.abs(x))),
    slopes=lambda out, x: [sigmoid(x)],
    method="softplus",
    like=lambda x: np.log(1 + np.exp(x)),
    known=((0, 0.6931471805599453), (40, 40), (-40, 4.248354255291589e-18)),
    derivative="Sigmoid(x)",
)

# ----- the tangent, hyperbolic functions ---------------------------------------------------------

tan = elementwise(
    "Tan",
    "x",
    "The tangent (radians).",
    value=lambda s, x: s.sin(x) / s.cos(x),
    slopes=lambda out, x: [make_constant(1) + square(out)],
    method="tan",
    like=np.tan,
    domain={"x": (-1.3, 1.3)},
    known=((0, 0), (1, 1.5574077246549023)),
    derivative="1 + Tan(x)^2",
)


def _half_exponentials(s: Scalars, x: Value) -> tuple[Value, Value, Value]:
    """e^(|x|/2) - 1, e^(|x|/2), e^(-|x|/2): their products do not overflow before the result."""
    less = s.expm1(s.abs(x) * 0.5)
    whole = 1 + less
    return less, whole, 1 / whole


def _sinh(s: Scalars, x: Value) -> Value:
    """2 sinh(x/2) cosh(x/2), where the first is not a difference of large numbers."""
    less, whole, inverse = _half_exponentials(s, x)
    rest = s.select(s.eq(less, math.inf), 1, less * inverse)
    return _odd(s, x, (less + rest) * 0.5 * (whole + inverse))


def _cosh(s: Scalars, x: Value) -> Value:
    _, whole, inverse = _half_exponentials(s, x)
    return whole * 0.5 * whole + inverse * 0.5 * inverse


sinh = elementwise(
    "Sinh",
    "x",
    "The hyperbolic sine.",
    value=_sinh,
    slopes=lambda out, x: [cosh(x)],
    method="sinh",
    like=np.sinh,
    known=((0, 0), (1, 1.1752011936438014), (1e-20, 1e-20)),
    derivative="Cosh(x)",
)

cosh = elementwise(
    "Cosh",
    "x",
    "The hyperbolic cosine.",
    value=_cosh,
    slopes=lambda out, x: [sinh(x)],
    method="cosh",
    like=np.cosh,
    known=((0, 1), (1, 1.543080634815244)),
    derivative="Sinh(x)",
)


def _asinh(s: Scalars, x: Value) -> Value:
    """log(|x| + sqrt(1 + x^2)), by what the argument is above 1; log(2 |x|) far out."""
    size = s.abs(x)
    large = s.le(_LARGE, size)
    square_ = size * size
    above = s.select(large, size, size + square_ / (1 + s.sqrt(1 + square_)))
    return _odd(s, x, s.log1p(above) + s.select(large, math.log(2), 0))


asinh = elementwise(
    "Asinh",
    "x",
    "The number whose hyperbolic sine is x.",
    value=_asinh,
    slopes=lambda out, x: [rsqrt(make_constant(1) + square(x))],
    method="asinh",
    like=np.arcsinh,
    known=((0, 0), (1, 0.881373587019543), (-1e-20, -1e-20)),
    derivative="1/Sqrt(1 + x^2)",
)


def _acosh(s: Scalars, x: Value) -> Value:
    """log(x + sqrt(x^2 - 1)), by what the argument is above 1; log(2 x) far out."""
    more = x - 1
    large = s.le(_LARGE, x)
    above = s.select(large, x, more + s.sqrt(more) * s.sqrt(x + 1))
    return s.log1p(above) + s.select(large, math.log(2), 0)


def _acosh_slope(x: Node) -> Node:
    """1/sqrt(x^2 - 1), of a product that keeps its digits near 1."""
    return inv(sqrt((x - make_constant(1)) * (x + make_constant(1))))


acosh = elementwise(
    "Acosh",
    "x",
    "The number above 0 whose hyperbolic cosine is x.",
    value=_acosh,
    slopes=lambda out, x: [_acosh_slope(x)],
    method="acosh",
    like=np.arccosh,
    domain={"x": (1.2, 4)},
    known=((1, 0), (2, 1.3169578969248166)),
    derivative="1/Sqrt(x^2 - 1)",
    conventions="the derivative is infinite at 1; NaN below 1",
)


def _atanh(s: Scalars, x: Value) -> Value:
    size = s.abs(x)
    return _odd(s, x, s.log1p((size + size) / (1 - size)) * 0.5)


atanh = elementwise(
    "Atanh",
    "x",
    "The number whose hyperbolic tangent is x.",
    value=_atanh,
    slopes=lambda out, x: [inv(one_minus_square(x))],
    method="atanh",
    like=np.arctanh,
    domain={"x": (-0.8, 0.8)},
    known=((0, 0), (0.5, 0.5493061443340549), (-1e-20, -1e-20)),
    derivative="1/(1 - x^2)",
    conventions="infinite at -1 and 1, as is the derivative; NaN outside [-1, 1]",
)
