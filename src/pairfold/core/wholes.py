"""Whole numbers that are made of the numbers of rows and columns: exact, whatever the dtype.

Operations on them are chosen where rows of operations apply theirs to such operands; where a result
may be too large, or is not whole, they become numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .primitives import MOST_WHOLE, WHOLE

if TYPE_CHECKING:
    from .scalars import Scalars, Value

# Results of operations stay below.
_LARGEST = 2**62


def on_wholes(s: Scalars, name: str, args: Sequence[Value]) -> Value | None:
    """An operation of which some operands are whole numbers, exactly; None where it cannot be."""
    return _whole(s, name, args) or _compared(s, name, args)


def _whole(s: Scalars, name: str, args: Sequence[Value]) -> Value | None:
    """An operation on whole numbers; None where the result may be too large, or not whole."""
    row = WHOLE.get(name)
    if row is None:
        return None
    wholes = [arg if arg.kind == "mask" else _as_whole(s, arg) for arg in args]
    if None in wholes:
        return None
    own = tuple(arg for arg in wholes if arg is not None)
    bounds = row.whole_bounds([arg.bounds for arg in own if arg.kind == "whole"])
    if max(map(abs, bounds)) > _LARGEST:
        return None
    return s.make(row.name, own, kind=row.kind, bounds=bounds)


def _as_whole(s: Scalars, value: Value) -> Value | None:
    """A whole number itself, or that which a constant is."""
    if value.what != "const":
        return value if value.kind == "whole" else None
    found = value.number
    if isinstance(found, str) or found.denominator != 1 or abs(found) > _LARGEST:
        return None
    bounds = (int(found), int(found))
    return s.make("whole", data=int(found), kind="whole", bounds=bounds)


def _compared(s: Scalars, name: str, args: Sequence[Value]) -> Value | None:
    """A comparison of a whole number and another; None for any other operation."""
    if name not in ("lt", "le", "eq", "ne"):
        return None
    first = args[0].kind == "whole"
    whole, x = args if first else args[::-1]
    below = whole_of(s, x)
    if name in ("eq", "ne"):
        fits = s.apply(name, x, s.apply("floor", x))
        joined = "both" if name == "eq" else "either"
        return s.apply(joined, s.apply(name, whole, below), fits)
    above = -whole_of(s, -x)
    # whole < x, whole <= x, x < whole, x <= whole, in which x may be no whole number.
    limit = above if first == (name == "lt") else below
    found = s.apply(name, *((whole, limit) if first else (limit, whole)))
    return s.apply("both", found, s.apply("eq", x, x))


def whole_of(
    s: Scalars, value: Value, bounds: tuple[int, int] = (-MOST_WHOLE, MOST_WHOLE)
) -> Value:
    """The largest whole number that a number is not below, known to lie in an interval."""
    if value.what == "const" and not isinstance(value.number, str):
        least = min(max(math.floor(value.number), -MOST_WHOLE), MOST_WHOLE)
        return s.make("whole", data=least, kind="whole", bounds=(least, least))
    return s.make("whole_of", (value,), kind="whole", bounds=bounds)
