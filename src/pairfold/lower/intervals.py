"""Bounds of scalar values over boxes: what a value can be for all pairs of a block of pairs.

A *cell* is a block of rows and a block of columns. What the values of a kernel are made of (what
is loaded, the numbers of rows and columns) lies in an interval for each cell; arrays of such
intervals, which broadcast as rows and columns do, become intervals of whatever is computed, and a
mask becomes two truth values: whether it may hold somewhere, and whether it holds everywhere.

Primitives follow their rules (`intervalrules`); component loops and tables are run as they are
written. The bounds hold for every backend, but not for matrices that are multiplied in less than
the dtype because the setting `dot` asks for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from fractions import Fraction

import numpy as np

from ..core.numbers import to_float
from ..core.primitives import INDEX_OPERATIONS
from ..core.scalars import Load, Loop, Value, reachable
from ..errors import InternalError
from .distance import summed
from .intervalrules import (
    FORMATS,
    NEVER,
    OF_ONE,
    RULES,
    UNKNOWN,
    Format,
    Interval,
    Numbers,
    Truth,
    rounded,
)
from .products import scalar_product, squared_distance

Leaf = Callable[[int, int], Interval]
# What a value is: bounds of a number or a mask, the number of a component, or those of a table.
Cell = Interval | Truth | int | list[Interval]
Known = dict[Value, Cell]


def bounds(
    targets: Sequence[Value],
    known: Mapping[Value, Interval],
    dtype: str,
    leaf: Leaf | None = None,
) -> list[Interval | Truth]:
    """Bounds of the targets, numbers or masks, over cells.

    Arrays of results broadcast to the shape of the cells; what depends on rows alone has the shape
    of rows.

    Args:
        targets: values that are inside no component loop.
        known: intervals of values that are not looked into: of what is loaded, of `row_number` and
            `column_number`, of anything else that was bounded before. What backends supply later
            (maxima and the like) has no bounds unless they are given.
        dtype: what numbers are computed in, "float32" or "float64".
        leaf: the interval of a component of an argument, called with the position and the
            component, where that is not in `known`; needed for what component loops load.

    Raises:
        InternalError: a value whose interval is needed and not given.

    >>> from ..core.scalars import ROW, Scalars
    >>> s = Scalars()
    >>> x = s.load(0, 1, ROW, 0)
    >>> box = Interval(np.array([-2.0, 1.0]), np.array([1.0, 3.0]), np.array(False))
    >>> square, mask = bounds([x * x, s.lt(x * x, 5)], {x: box}, "float64")
    >>> mask.possible, mask.certain
    (array([ True,  True]), array([ True, False]))
    """
    given: Known = {value: _as_arrays(interval) for value, interval in known.items()}
    with np.errstate(all="ignore"):
        found = _Evaluation(FORMATS[dtype], leaf).prepared(targets, given)(given)
    results: list[Interval | Truth] = []
    for cell in found:
        assert isinstance(cell, (Interval, Truth))
        results.append(cell)
    return results


def _as_arrays(interval: Interval) -> Interval:
    low, high, nan = np.asarray(interval.low), np.asarray(interval.high), np.asarray(interval.nan)
    if nan.any():  # a NaN in a bound stands for nothing that is known
        low = np.where(np.isnan(low), -math.inf, low)
        high = np.where(np.isnan(high), math.inf, high)
    return Interval(low, high, nan)


class _Evaluation:
    """Computes cells of values from those that are known; see `bounds`."""

    def __init__(self, f: Format, leaf: Leaf | None) -> None:
        self.format, self.leaf = f, leaf

    def prepared(
        self, targets: Sequence[Value], given: Collection[Value]
    ) -> Callable[[Known], list[Cell]]:
        """What computes the targets, given those values; what to compute is found once."""
        inside = {value.loop for value in given if value.what == "index_loop"}
        needed = reachable(targets, lambda value: value in given)
        order = [value for value in needed if value not in given and value.loops <= inside]

        def run(known: Known) -> list[Cell]:
            for value in order:
                if value not in known:
                    known[value] = self._value(value, known)
            return [known[target] for target in targets]

        return run

    def _value(self, value: Value, known: Known) -> Cell:
        what, args = value.what, value.args
        if what in RULES:
            if len(args) == 2 and args[0] is args[1] and what in OF_ONE:
                return OF_ONE[what](self.format, known[args[0]])
            return RULES[what](self.format, *[known[arg] for arg in args])
        if value.kind == "index":
            right = known[args[1]] if len(args) > 1 else value.integer
            return _INDEX[what](_integer(known[value.args[0]]), _integer(right))
        if what == "load":
            return self._load(value.loaded, known[args[0]] if args else None)
        if what == "const":
            return self._constant(value)
        if what == "whole":
            return _point(np.asarray(value.integer, np.int64))
        if what == "placeholder":
            return UNKNOWN
        if what == "position":
            return _point(np.asarray(_integer(known[args[0]]), self.format.name))
        if what == "index_below":
            below = np.asarray(_integer(known[args[0]]) < value.integer)
            return Truth(below, below)
        if what == "result":
            self._loop(value.loop, known)
            return known[value]
        if what == "table":
            return self._table(value.loop, known)
        if what == "entry":
            cells, k = known[args[0]], value.integer if len(args) == 1 else known[args[1]]
            assert isinstance(cells, list)
            # What is read before it is there is an undefined number.
            return cells[_integer(k)] if _integer(k) < len(cells) else UNKNOWN
        raise InternalError(f"the interval of {value} is not given")

    def _load(self, load: Load, operand: Cell | None) -> Interval:
        position, k = load
        if self.leaf is None:
            raise InternalError(f"the intervals of argument {position} are not given")
        return _as_arrays(self.leaf(position, _integer(operand) if k is None else k))

    def _constant(self, value: Value) -> Interval:
        """The number rounded to the dtype: once, or first to float64, as `to_float` does it."""
        exact, narrow = value.number, self.format.name
        found = to_float(exact, narrow)
        if math.isnan(found):
            return UNKNOWN
        wide = to_float(exact)
        if isinstance(exact, str) or not math.isfinite(wide) or Fraction(wide) == exact:
            return _point(np.asarray(found))
        beside = math.nextafter(wide, math.inf if exact > Fraction(wide) else -math.inf)
        other = to_float(Fraction(beside), narrow) if narrow != "float64" else found
        if other == found:
            return _point(np.asarray(found))
        return Interval(np.asarray(min(found, other)), np.asarray(max(found, other)), NEVER)

    def _loop(self, loop: Loop, known: Known) -> None:
        """Add the results of a loop to what is known."""
        state: Sequence[Cell] = [known[init] for init in loop.inits]
        step = self.prepared(loop.nexts, {*known, loop.index, *loop.carries})
        (result, *_) = loop.results
        product, distance = scalar_product(result), squared_distance(result)
        term = summed(result) if product else None
        size: Numbers = np.zeros(())
        for k in range(loop.n):
            inside: Known = {**known, loop.index: k, **dict(zip(loop.carries, state, strict=True))}
            state = step(inside)
            if term is not None:
                size = size + _magnitude(inside[term])
        if product or distance:
            state = [self._in_any_order(_interval(state[0]), loop.n, None if distance else size)]
        known.update(zip(loop.results, state, strict=True))

    def _in_any_order(self, total: Interval, n: int, size: Numbers | None) -> Interval:
        """A sum that GPUs may compute as a product of matrices, in an order of their own.

        `size`: the sum of the terms' magnitudes. A distance has none: it may be the difference of
        norms of up to eight times its size.
        """
        slack = 8 * (n + 8) * self.format.eps
        if size is None:
            return rounded(self.format, total.low, total.high, total.nan, slack)
        return Interval(total.low - slack * size, total.high + slack * size, total.nan)

    def _table(self, loop: Loop, known: Known) -> list[Interval]:
        """The components in order."""
        computed: list[Interval] = []
        step = self.prepared(loop.nexts, {*known, loop.index, loop.carries[0]})
        for k in range(loop.n):
            inside: Known = {**known, loop.index: k, loop.carries[0]: computed}
            computed.append(_interval(step(inside)[0]))
        return computed


def _point(number: Numbers) -> Interval:
    return Interval(number, number, NEVER)


def _magnitude(cell: Cell) -> Numbers:
    return np.maximum(-_interval(cell).low, _interval(cell).high)


def _interval(cell: Cell) -> Interval:
    assert isinstance(cell, Interval)
    return cell


def _integer(cell: Cell | None) -> int:
    assert isinstance(cell, int)
    return cell


_INDEX = {row.what: row.meaning for row in INDEX_OPERATIONS.values()}
