"""Elementary functions on SIMD vectors, in float32 and float64.

Turns one or two vectors into the IR of exp, log, sin, cos, tanh, pow, rsqrt, exp2, expm1,
log1p, atan, atan2, asin, acos, erf, erfc or lgamma of them, using the instructions of any
target that has IEEE arithmetic.  The invariant: a lane's result depends on that lane's input
alone, is within 2 ulp (exp, log, rsqrt) or 4 ulp (the others) over the whole domain (lgamma
below zero: of the larger of the two numbers that it is a difference of), and follows Annex F
of C99 on zeros, infinities and NaN.  It assumes round-to-nearest and no flushing of
subnormals, and leaves the floating-point status flags in any state.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .exponentials import exp, exp2, expm1, log, log1p, pow, rsqrt, tanh
from .special import erf, erfc, lgamma
from .trigonometry import acos, asin, atan, atan2, cos, sin

# Each takes an arithmetic and values of its kind, one or two, and gives a value of that kind: the
# one type variable of each is not that of a table.
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "exp": exp,
    "log": log,
    "sin": sin,
    "cos": cos,
    "tanh": tanh,
    "pow": pow,
    "rsqrt": rsqrt,
    "exp2": exp2,
    "expm1": expm1,
    "log1p": log1p,
    "atan": atan,
    "asin": asin,
    "acos": acos,
    "atan2": atan2,
    "erf": erf,
    "erfc": erfc,
    "lgamma": lgamma,
}
