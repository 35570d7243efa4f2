"""Partial states: what some of the columns leave of a reduction, as arrays of float64.

Parts of the reduced axis may be computed apart, by any backend, on other devices or in other
processes: `states_of` is a reduction whose results are the states of another, so that whatever
runs reductions gives them. `merged` and `finished` apply the rules of a row to such arrays, of any
library. The arrays of a state have the shape (..., rows, components), in this order:

- one for each part of the row's state (`identity`, `kinds`), its components those of the formula,
  or, for a list, those of its places, K times as many;
- for a max-shifted reduction the maximum, then, where the row wants it, the unweighted sum.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import cast

import numpy as np

from ..core.dtypes import DTYPES
from ..core.library import Array, ArrayOperations
from ..core.numbers import number, to_float
from ..core.scalars import Value
from .reductions import REDUCTIONS, Ends, Reduction, Result

# The arrays of a partial state.
States = tuple[Array, ...]

_SUFFIX = " (states)"


def states_of(name: str) -> str:
    """The name of the reduction that gives the states of another; of such a one, its own.

    >>> states_of("LogSumExp")
    'LogSumExp (states)'
    """
    return name if name.endswith(_SUFFIX) else name + _SUFFIX


def row_of(name: str) -> Reduction:
    """The row of a reduction of the table, or of one that gives states."""
    return _states_row(name.removesuffix(_SUFFIX)) if name.endswith(_SUFFIX) else REDUCTIONS[name]


def masked(name: str) -> str:
    """The name of the reduction that stands for one where a mask leaves pairs out.

    >>> masked("Mean"), masked("Sum"), masked("Mean (states)")
    ('Mean of some', 'Sum', 'Mean of some (states)')
    """
    plain = name.removesuffix(_SUFFIX)
    found = REDUCTIONS[plain].masked or plain
    return found + name[len(plain) :]


def as_asked(name: str) -> str:
    """The name of the reduction that was asked for, which another may stand for under a mask.

    >>> as_asked("Mean of some"), as_asked("Sum")
    ('Mean', 'Sum')
    """
    return next((row.name for row in REDUCTIONS.values() if row.masked == name), name)


@functools.cache
def _states_row(name: str) -> Reduction:
    row = REDUCTIONS[name]
    per = "list" if row.top_k else "component"
    results = [Result("state", per) for _ in row.identity]
    if row.max_shifted:
        results += [Result("state", "maximum")] * (1 + row.totals)
    return replace(
        row,
        name=states_of(name),
        says=f"The states of {row.name}.",
        finish=lambda s, ends: _all_parts(row, ends),
        results=tuple(results),
        single=states_of("Min_ArgMin") if row.top_k else "",  # a list has values and indices
        joined=False,
        internal=True,
        differentiated=None,
    )


def _all_parts(row: Reduction, ends: Ends) -> list[Value]:
    parts = list(ends.state[: len(row.identity)])
    if row.max_shifted:
        parts += [ends.top, ends.total][: 1 + row.totals]
    return parts


class ArrayRules:
    """What the rules of rows are written in, for arrays of a library instead of scalar values."""

    def __init__(self, library: ArrayOperations, dtype: str = "float64") -> None:
        self.library, self.dtype = library, DTYPES[dtype].computed

    def constant(self, value: float | str) -> float:
        """A number, or the name of one: `lowest` and `largest` are those of the data's dtype."""
        return to_float(number(value), self.dtype)

    def select(self, condition: Array, one: Array, other: Array) -> Array:
        """`one` where the condition holds, `other` elsewhere."""
        return self.library.where(condition, one, other)

    def log(self, x: Array) -> Array:
        """log x."""
        return self.library.log(x)

    def lt(self, x: Array, y: Array) -> Array:
        """x < y."""
        return x < y

    def le(self, x: Array, y: Array) -> Array:
        """x <= y."""
        return x <= y

    def eq(self, x: Array, y: Array) -> Array:
        """x = y."""
        return x == y

    def both(self, x: Array, y: Array) -> Array:
        """Whether both hold."""
        return x & y

    def either(self, x: Array, y: Array) -> Array:
        """Whether one of them holds."""
        return x | y


def _on_arrays(rule: Callable[..., Sequence[Value]]) -> Callable[..., Sequence[Array]]:
    """A rule of a row, which is written for scalar values, as one for arrays and `ArrayRules`."""
    return cast("Callable[..., Sequence[Array]]", rule)


_ends: Callable[..., Ends] = Ends  # the same, of arrays


def numbered(library: ArrayOperations, row: Reduction, states: States, start: int) -> States:
    """The states of columns that were counted from 0 and whose first is number `start`.

    Where nothing was selected there is no column to number.
    """
    if "index" not in row.kinds:
        return states
    nothing = to_float(number(row.identity[0]))
    empty = states[0] == nothing
    return tuple(
        library.where(empty, state, state + float(start)) if kind == "index" else state
        for state, kind in zip(states, row.kinds, strict=True)
    )


def merged(
    library: ArrayOperations, row: Reduction, a: States, b: States, length: int = 0
) -> States:
    """The states of all columns of both; `length` is the K of a list.

    Parts may be merged in any order. Sums differ by rounding; what is selected does not.
    """
    with np.errstate(all="ignore"):
        if row.top_k:
            return _merged_lists(library, a, b, length)
        rules, merge = ArrayRules(library), _on_arrays(row.merge)
        count = len(row.identity)
        if not row.max_shifted:
            return tuple(merge(rules, a, b))
        top = library.larger(a[count], b[count])
        ours, theirs = (library.exp(part[count] - top) for part in (a, b))
        sums = merge(
            rules, [part * ours for part in a[:count]], [part * theirs for part in b[:count]]
        )
        rest = zip(a[count + 1 :], b[count + 1 :], strict=True)
        return (*sums, top, *(x * ours + y * theirs for x, y in rest))


def _merged_lists(library: ArrayOperations, a: States, b: States, length: int) -> States:
    """The first K of both lists, by value and then by index."""
    shape = tuple(a[0].shape)
    places = (*shape[:-1], length, shape[-1] // length)
    both = [
        library.concatenated([library.moved(x.reshape(places), -2, -1) for x in pair])
        for pair in zip(a, b, strict=True)
    ]
    order = library.order(*both)[..., :length]
    return tuple(
        library.moved(library.taken(part, order, -1), -1, -2).reshape(shape) for part in both
    )


def finished(
    library: ArrayOperations, row: Reduction, states: States, columns: int, dtype: str
) -> States:
    """The results for data of a dtype after so many columns, as machine code writes them."""
    rules = ArrayRules(library, dtype)
    count = len(row.identity)
    top, total, *_ = (*states[count:], None, None)
    ends = _ends(states[:count], top, total, columns)
    with np.errstate(all="ignore"):
        found = _on_arrays(row.finish)(rules, ends)
        return tuple(
            _stored(library, x, result.kind, dtype)
            for x, result in zip(found, row.results, strict=True)
        )


def _stored(library: ArrayOperations, values: Array, kind: str, dtype: str) -> Array:
    if kind == "truth":
        return values != 0
    if kind == "index":
        return library.cast(values, "int64")
    if kind == "state":
        return values
    # Half precision is rounded from what is computed with.
    return library.cast(library.cast(values, DTYPES[dtype].computed), dtype)
