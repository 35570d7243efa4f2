"""A formula at every pair, as an array: what gradients to arrays of pairs are.

A row becomes a batch element, in which what is indexed by i has one column, and what is indexed by
j, or by both, has rows: the sum over the one column is the formula. So it is one more reduction,
with derivatives of its own. Where all batch elements share the array, there is a column for each of
them, and their gradients are added up as they are computed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..arrays.checks import broadcast_shapes
from ..arrays.library import ArrayLibrary
from ..calculus.substitute import substitute
from ..core.dtypes import DTYPES
from ..core.library import Array, NumpyArray
from ..core.node import Axis
from ..ops.table import OPERATIONS, variable
from .ranges import Ranges
from .reduction import FormulaReduction

if TYPE_CHECKING:
    from .derivatives import Apply

# What is indexed by an index, where rows are batch elements and columns those that share an array:
# what is the same for all of these, and what is not.
_SAME = {Axis.I: Axis.J, Axis.J: Axis.I, Axis.PAIR: Axis.I, Axis.PARAMETER: Axis.PARAMETER}
_OTHER = {Axis.I: Axis.J, Axis.J: Axis.PAIR, Axis.PAIR: Axis.PAIR, Axis.PARAMETER: Axis.J}


class _Shared(NamedTuple):
    """Batch axes that are summed over: their sizes, and which arguments have them."""

    batch: tuple[int, ...] = ()
    has: tuple[bool, ...] = ()

    @property
    def size(self) -> int:
        """How many batch elements share the result."""
        return math.prod(self.batch)


def at_every_pair(
    fold: FormulaReduction,
    position: int,
    library: ArrayLibrary,
    arrays: Sequence[Array],
    ranges: Ranges | None,
    apply: Apply,
) -> Array:
    """The formula that is folded at every pair: (..., M, N, D), 0 for pairs that are left out.

    `position`: that of an array of pairs among the arguments, whose sizes are those of the result.
    Where it has no batch axes, the sum over those of the others. `apply` calls a fold.
    """
    dtype = library.dtype(arrays[0])
    known = DTYPES.get(dtype)
    if fold.counts_pairs and known is not None and known.half:  # which has no number for each row
        arrays = [library.cast(array, known.computed) for array in arrays]
    number = library.dtype(arrays[0])  # which truth values, a byte each, become: rows are batches
    arrays = [x if library.dtype(x) == number else library.cast(x, number) for x in arrays]
    rows, columns = arrays[position].shape[-3:-1]
    shared = _shared(fold, position, arrays)
    moved = _moved(fold, library, arrays, shared)

    def numbers(given: NumpyArray) -> Array:
        return library.cast(library.constants(given, arrays[0]), library.dtype(arrays[0]))

    if fold.counts_pairs:
        each = numbers(np.arange(rows, dtype=np.float64)[:, None, None])
        moved.append(library.expanded(each, (rows, shared.size, 1)))
    if ranges is not None:
        moved.append(numbers(ranges.table(rows, columns)[..., None].astype(np.float64)))
    key = ("every pair", ranges is None, shared.has)
    turned = fold.derived(key, lambda: _turned(fold, ranges is not None, shared.has))
    return library.cast(apply(turned, library, moved, None)[0], dtype)


def _shared(fold: FormulaReduction, position: int, arrays: Sequence[Array]) -> _Shared:
    """The batch axes to be summed over; none where the result has some, or copies would be made."""
    kinds = [v.variable.kind for v in fold.variables]
    batches = [tuple(array.shape[: -kind.axes]) for array, kind in zip(arrays, kinds, strict=True)]
    batch = broadcast_shapes(batches)
    if math.prod(batches[position]) != 1 or math.prod(batch) == 1:
        return _Shared()
    has = tuple(math.prod(own) != 1 for own in batches)
    for kind, own, there in zip(kinds, batches, has, strict=True):
        if kind == Axis.PAIR and there and own != batch:
            return _Shared()
    return _Shared(batch, has)


def _moved(
    fold: FormulaReduction, library: ArrayLibrary, arrays: Sequence[Array], shared: _Shared
) -> list[Array]:
    """The arguments with i as the last batch axis and, after it, an axis of what is summed over."""
    found: list[Array] = []
    for place, (array, v) in enumerate(zip(arrays, fold.variables, strict=True)):
        kind, shape = v.variable.kind, tuple(array.shape)
        own = shape[-kind.axes :]
        if shared.has and shared.has[place]:
            array = library.expanded(array, (*shared.batch, *own)).reshape((shared.size, *own))
            array = library.moved(array, 0, kind.axes - 1)
            found.append(array.reshape((1, *array.shape)) if kind in _WITHOUT_ROWS else array)
            continue
        lead = () if shared.has else shape[: -kind.axes]
        if kind == Axis.I:
            array = array.reshape((*lead, own[0], 1, own[1]))
            if shared.has:
                array = library.expanded(array, (own[0], shared.size, own[1]))
        else:
            array = array.reshape((*lead, *((1,) if kind in _WITHOUT_ROWS else ()), *own))
        found.append(array)
    return found


# What has no axis of rows, which are batch elements.
_WITHOUT_ROWS = (Axis.J, Axis.PARAMETER)


def _turned(fold: FormulaReduction, masked: bool, has: tuple[bool, ...]) -> FormulaReduction:
    """The reduction whose batch elements are the rows of `fold`; `has`: see `_Shared`.

    After the arguments it takes the numbers of rows where the formula counts pairs, and whether
    each pair is meant where they are `masked`.
    """
    count = len(fold.variables)
    variables = [
        variable(place, v.dim, (_OTHER if has and has[place] else _SAME)[v.variable.kind])
        for place, v in enumerate(fold.variables)
    ]
    moved = dict(zip(fold.variables, variables, strict=True))
    if fold.counts_pairs:
        variables.append(variable(len(variables), 1, Axis.J))
        moved[OPERATIONS["Ind"](Axis.I)] = variables[-1]
        moved[OPERATIONS["Ind"](Axis.J)] = OPERATIONS["Ind"](Axis.I)
    formula = substitute(fold.formula, moved)
    if masked:
        variables.append(variable(len(variables), 1, Axis.I))
        formula = OPERATIONS["Where"](variables[-1], formula, OPERATIONS["Zero"](formula.dim))
    names = {place: name for place, name in fold.names.items() if place < count}
    where = None if fold.where is None else substitute(fold.where, moved)
    given = (formula, variables, "Sum", Axis.I, names, fold.accuracy)
    return FormulaReduction(*given, where=where)
