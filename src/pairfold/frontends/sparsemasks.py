"""Sparse matrices as masks: reductions over their entries, which are never made dense.

The entries are sorted by the index that is kept. What is indexed by the other index is gathered at
the entries, by the array library's own indexing, so that gradients pass; row r then meets the
columns bounds[r] to bounds[r + 1] of what was gathered, and block-sparse ranges say so. Column 0 of
it is met by no row: indices of results that mean nothing are 0 there, and stay 0.
"""

# What is made here are lazy tensors of the same class.
# pyright: reportPrivateUsage=false

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..arrays.sparse import entries_of, is_sparse
from ..calculus.substitute import substitute
from ..core.library import Array, NumpyArray
from ..core.node import Axis
from ..errors import ArgumentError, OptionError, ShapeError
from ..ops.table import OPERATIONS, constant
from .genred import checked_reduction
from .lazy import Tensor
from .leaves import Leaf, array_leaf, library_from, moved_leaves, placed
from .masks import checked_mask, counts, index_node, numbers_as_codes
from .ranges import Ranges, all_pairs

if TYPE_CHECKING:
    from .reducing import Reducing
    from .typed import ReductionOptions, Result

_T = TypeVar("_T", bound=Tensor)
_Numbers = NDArray[np.int64]


def has_entries(where: object) -> bool:
    """Whether a mask is a sparse matrix, or one among several masks."""
    return any(map(is_sparse, where if isinstance(where, (tuple, list)) else (where,)))


def over_entries(
    tensor: Reducing,
    reduction_op: str,
    other: object,
    opt_arg: int | None,
    kept: Axis,
    call: bool,
    options: ReductionOptions,
) -> Result:
    """`reduction` of a lazy tensor over the entries of a sparse matrix, its option `where`.

    Raises:
        ShapeError, DTypeError: a matrix of another shape, or of numbers that are no truth values.
        ArgumentError: arguments of the formula are to come.
        OptionError: ranges, or several sparse matrices.
        ArrayTypeError: another mask beside it that is none.
    """
    matrix, mask = _separated(options.get("where"))
    if not (all_pairs(options.get("ranges")) and all_pairs(tensor.ranges)):
        raise OptionError(
            "a sparse mask says which pairs count, and so do ranges",
            found="both of them",
            hint="one of them: where=matrix, or ranges=...",
        )
    given = [part for part in (tensor, other, mask) if isinstance(part, Tensor)]
    gather = _Gather(matrix, given, kept)
    if mask is None and checked_reduction(reduction_op)[1].masked:
        # Rows without entries are those of masks.
        mask = tensor.class_for(False)._of_leaves(constant(1), ())
    weight = gather.of(other) if isinstance(other, Tensor) else other
    mine = options.copy()
    mine["where"] = None if mask is None else gather.of(mask)
    mine["ranges"] = Ranges.of_own_columns(kept, gather.bounds)
    axis = -2 if kept == Axis.I else -3
    gathered = gather.of(tensor, sized=True)
    found = gathered.reduction(reduction_op, weight, opt_arg, axis, call=False, **mine)
    found.columns = gather.places[kept.other]
    return found() if call and found.ready else found


class _Gather:
    """The entries of a matrix in the order of the kept index, and lazy tensors at them.

    `places`: the row and the column of each, after one that no row meets, if there are any.
    """

    def __init__(self, matrix: object, tensors: list[Tensor], kept: Axis) -> None:
        self.kept, self.reduced = kept, kept.other
        (rows, columns), i, j = entries_of(matrix)
        for tensor in tensors:
            _check_fits(tensor, rows, columns)
        self.sizes = {Axis.I: rows, Axis.J: columns}
        own, others = (i, j) if kept == Axis.I else (j, i)
        self.bounds, met = _sorted(own, others, self.sizes[kept], self.sizes[self.reduced])
        self.places = {self.reduced: met}
        self._moved: dict[tuple[object, ...], Leaf] = {}
        self._at: dict[tuple[object, ...], Array] = {}
        self._numbers: Leaf | None = None

    def of(self, tensor: _T, sized: bool = False) -> _T:
        """A lazy tensor at the entries; `sized`: with all rows and entries in its shape."""
        node, leaves = moved_leaves(tensor.node, tensor.leaves, self._leaf)
        if counts(node, self.reduced):
            if self._numbers is None:
                codes = numbers_as_codes(self.sizes[self.reduced])[self.places[self.reduced]]
                self._numbers = array_leaf(codes, self.reduced)
            number = OPERATIONS["Digits"](self._numbers.node)
            node = substitute(node, {index_node(self.reduced): number})
            leaves = (*leaves, self._numbers)
        if sized:
            lengths = {
                self.kept: self.sizes[self.kept],
                self.reduced: len(self.places[self.reduced]),
            }
            for axis, length in lengths.items():
                if not any(leaf.kind == axis for leaf in leaves):
                    zeros: NumpyArray = np.zeros((length, 1), np.uint8)
                    leaves = (*leaves, array_leaf(zeros, axis))
        found = tensor._of_leaves(node, leaves)
        found.axis, found.backend = tensor.axis, tensor.backend
        return found

    def _leaf(self, leaf: Leaf) -> Leaf:
        """An argument at the entries, the same one each time."""
        if leaf.kind not in (self.reduced, Axis.PAIR):
            return leaf
        if leaf.key not in self._moved:
            self._moved[leaf.key] = self._gathered(leaf)
        return self._moved[leaf.key]

    def _gathered(self, leaf: Leaf) -> Leaf:
        if leaf.kind != Axis.PAIR:
            assert leaf.form is not None
            axis = -3 if leaf.form == Axis.I and len(leaf.owner.shape) > 2 else -2
            places = self._beside(leaf.owner, self.reduced)
            return leaf.of_owner(library_from(leaf.owner).selected(leaf.owner, places, axis))
        if self.kept not in self.places:
            own = np.repeat(np.arange(self.sizes[self.kept]), np.diff(self.bounds))
            self.places[self.kept] = np.concatenate([np.zeros(self.bounds[0], np.int64), own])
        i, j = (self._beside(leaf.owner, axis) for axis in (Axis.I, Axis.J))
        x = placed(leaf.owner, Axis.PAIR)[..., i, j, :]
        x = x[..., :, None, :] if self.reduced == Axis.I else x[..., None, :, :]
        return array_leaf(x, self.reduced)

    def _beside(self, owner: Array, axis: Axis) -> Array:
        """The places along an axis as the library of an array takes them."""
        library = library_from(owner)
        key = library.name, library.device(owner), axis
        if key not in self._at:
            self._at[key] = library.constants(self.places[axis], owner)
        return self._at[key]


def _separated(where: object) -> tuple[object, Tensor | None]:
    """The sparse matrix, and the mask beside it, which is none where there are no others.

    Raises:
        OptionError: several sparse matrices. ArrayTypeError, ShapeError: what is no mask.
    """
    given = where if isinstance(where, (tuple, list)) else (where,)
    found = [part for part in given if is_sparse(part)]
    if len(found) > 1:
        raise OptionError(
            "a reduction takes one sparse mask",
            found=f"{len(found)} of them",
            hint="their entries in common: first.multiply(second)",
        )
    mask: Tensor | None = None
    for part in (part for part in given if not is_sparse(part)):
        checked = checked_mask(part)
        mask = checked if mask is None or checked is None else mask & checked  # pyright: ignore
    return found[0], mask


def _check_fits(tensor: Tensor, rows: int, columns: int) -> None:
    """Raise unless a lazy tensor is one of arrays, with these sizes."""
    if tensor.symbols:
        raise ArgumentError(
            "a sparse mask chooses from arrays, and this formula waits for arguments",
            found=repr(tensor),
            hint="Vi(x), Vj(y) in place of the symbols",
        )
    if tensor.ni not in (None, rows) or tensor.nj not in (None, columns):
        wanted = (tensor.ni or rows, tensor.nj or columns)
        turned = wanted == (columns, rows)
        raise ShapeError(
            f"a sparse mask must have the shape {wanted} of the pairs",
            found=f"a sparse matrix of shape {(rows, columns)}",
            where="where",
            hint="where=matrix.T" if turned else "an entry for each pair that counts",
        )


def _sorted(own: _Numbers, others: _Numbers, rows: int, columns: int) -> tuple[_Numbers, _Numbers]:
    """Where the entries of each row begin and end, and the columns of all, each pair once.

    Column 0 stands before them, where there are columns at all.
    """
    first = int(rows > 0 and columns > 0)
    numbers = np.empty(first + len(own), np.int64)  # of entries, counted row by row
    numbers[:first] = -1
    numbers[first:] = own
    numbers[first:] *= columns
    numbers[first:] += others
    if (numbers[1:] > numbers[:-1]).all():
        counted = np.bincount(own, minlength=rows)
        bounds = first + np.concatenate([[0], np.cumsum(counted)])
        numbers[first:] = others
    else:
        numbers.sort()
        once = np.ones(len(numbers), bool)
        once[1:] = numbers[1:] != numbers[:-1]
        numbers = numbers[once]
        bounds = np.searchsorted(numbers, np.arange(rows + 1) * columns)
        numbers %= columns
    numbers[:first] = 0
    return bounds, numbers
