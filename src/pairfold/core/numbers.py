"""Constants: exact until they are rounded, once, to the dtype of the computation."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np

from .dtypes import DTYPES

Number = Fraction | str
SPECIAL = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf, "-0.0": -0.0}
# The extremes of the finite numbers, whatever the dtype.
EXTREMES = {"largest": 1, "lowest": -1}


def number(value: float | Fraction | str) -> Number:
    """A constant in its one canonical form: an exact fraction, or one of nan, inf, -inf, -0.0.

    >>> number(0.5), number(-0.0), number(3)
    (Fraction(1, 2), '-0.0', Fraction(3, 1))
    """
    if isinstance(value, (str, Fraction)):
        return value
    if isinstance(value, float):
        if math.isnan(value):
            return "nan"
        if math.isinf(value):
            return "inf" if value > 0 else "-inf"
        if value == 0 and math.copysign(1, value) < 0:
            return "-0.0"
    return Fraction(value)


def to_float(value: Number, dtype: str = "float64") -> float:
    """The constant rounded once to the dtype (not through a narrower one)."""
    if isinstance(value, str):
        if value in EXTREMES:
            return EXTREMES[value] * DTYPES[dtype].largest
        return SPECIAL[value]
    try:
        wide = float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
    if dtype == "float64":
        return wide
    with np.errstate(over="ignore", under="ignore"):
        return float(np.float32(wide))
