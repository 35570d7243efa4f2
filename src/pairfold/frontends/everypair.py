"""A formula at every pair, as an array: what gradients to arrays of pairs are.

A row becomes a batch element, in which what is indexed by i has one column, and what is indexed by
j, or by both, has rows: the sum over the one column is the formula. So it is one more reduction,
with derivatives of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..arrays.library import ArrayLibrary
from ..calculus.substitute import substitute
from ..core.dtypes import DTYPES
from ..core.library import Array
from ..core.node import Axis, Node
from ..ops.table import OPERATIONS, variable
from .ranges import Ranges
from .reduction import FormulaReduction

if TYPE_CHECKING:
    from .derivatives import Apply

# What is indexed by an index, where rows are batch elements.
_TURNED = {Axis.I: Axis.J, Axis.J: Axis.I, Axis.PAIR: Axis.I, Axis.PARAMETER: Axis.PARAMETER}


def at_every_pair(
    fold: FormulaReduction,
    library: ArrayLibrary,
    arrays: Sequence[Array],
    ranges: Ranges | None,
    apply: Apply,
) -> Array:
    """The formula that is folded at every pair: (..., M, N, D), 0 for pairs that are left out.

    `apply` calls a fold. A variable of pairs must be among the fold's, which says how many there
    are.
    """
    dtype = library.dtype(arrays[0])
    known = DTYPES.get(dtype)
    if fold.counts_pairs and known is not None and known.half:  # which has no number for each row
        arrays = [library.cast(array, known.computed) for array in arrays]
    moved = [_placed(array, v) for array, v in zip(arrays, fold.variables, strict=True)]
    pairs = zip(fold.variables, arrays, strict=True)
    rows, columns = next(a.shape[-3:-1] for v, a in pairs if v.variable.kind == Axis.PAIR)

    def numbers(given: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> Array:
        return library.cast(library.constants(given, arrays[0]), library.dtype(arrays[0]))

    if fold.counts_pairs:
        moved.append(numbers(np.arange(rows, dtype=np.float64)[:, None, None]))
    if ranges is not None:
        moved.append(numbers(ranges.table(rows, columns)[..., None].astype(np.float64)))
    turned = fold.derived(("every pair", ranges is None), lambda: _turned(fold, ranges is not None))
    return library.cast(apply(turned, library, moved, None)[0], dtype)


def _placed(array: Array, v: Node) -> Array:
    """An argument with i as the last batch axis."""
    kind, shape = v.variable.kind, array.shape
    if kind == Axis.PAIR:
        return array
    if kind == Axis.I:
        return array.reshape((*shape[:-1], 1, shape[-1]))
    return array.reshape((*shape[: -kind.axes], 1, *shape[-kind.axes :]))


def _turned(fold: FormulaReduction, masked: bool) -> FormulaReduction:
    """The reduction of one column, whose batch elements are the rows of `fold`.

    After the arguments it takes the numbers of rows where the formula counts pairs, and whether
    each pair is meant where they are `masked`.
    """
    count = len(fold.variables)
    variables = [
        variable(v.variable.position, v.dim, _TURNED[v.variable.kind]) for v in fold.variables
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
