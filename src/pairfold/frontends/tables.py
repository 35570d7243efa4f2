"""Arrays of the entries of lazy tensors: all of them, and those of the diagonal.

Each is one reduction of the same formula, whose leaves are seen in another way. In the table of all
entries a row is a batch element: what is indexed by i has one column there, what is indexed by j
becomes its rows, and the sum over the one column is the entry. On the diagonal, whatever is indexed
by j is indexed by i. So values and derivatives are those of every other reduction.
"""

# What is made here are lazy tensors of the same class.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from ..calculus.substitute import substitute
from ..core.dtypes import DTYPES
from ..core.library import NumpyArray
from ..core.node import Axis, Node
from ..errors import ArgumentError, MemoryLimitError, OptionError, ShapeError
from ..ops.table import OPERATIONS
from .given import plain_number
from .lazy import Tensor
from .leaves import Leaf, array_leaf, library_from, moved_leaves, placed
from .masks import counts, index_node, numbers_as_codes
from .ranges import Ranges, checked_ranges

if TYPE_CHECKING:
    from .typed import Result


class Tabled(Tensor):
    """A lazy tensor whose entries can be had as arrays."""

    if TYPE_CHECKING:

        def reduction(self, reduction_op: str, *, axis: int) -> Result: ...

    def dense(self, limit: float = 2**30) -> Result:
        """All entries as an array (..., M, N), or (..., M, N, D) of vectors, with its derivatives.

        Pairs outside of `ranges` are 0. An axis that the formula does not depend on has size 1.

        Args:
            limit: the most bytes that the array may have.

        >>> import numpy as np
        >>> from pairfold import Vi, Vj
        >>> x = np.array([[1.0], [2.0]])
        >>> (Vi(x) * Vj(x)).dense().tolist()
        [[1.0, 2.0], [2.0, 4.0]]

        Raises:
            MemoryLimitError: it would have more.
            ArgumentError: the tensor waits for symbols, or is made of numbers alone.
            OptionError: a limit that is no number.
        """
        return dense(self, limit)

    def toarray(self, limit: float = 2**30) -> NumpyArray:
        """All entries as a NumPy array, whatever library the tensor is of; see `dense`.

        Raises:
            MemoryLimitError, ArgumentError, OptionError: as `dense`.
        """
        found = dense(self, limit)
        return library_from(found).to_numpy(found)

    def diag(self) -> Result:
        """The entries with i = j of a square matrix, as an array (..., M), or (..., M, D).

        >>> import numpy as np
        >>> from pairfold import Vi, Vj
        >>> x = np.array([[1.0], [2.0]])
        >>> (Vi(x) * Vj(x)).diag().tolist(), (Vi(x) * Vj(x)).trace().tolist()
        ([1.0, 4.0], 5.0)

        Raises:
            ShapeError: there are not as many rows as columns.
            ArgumentError: the tensor waits for symbols, or is made of numbers alone.
        """
        return diagonal(self)

    def trace(self) -> Result:
        """The sum of the diagonal, as an array (...), or (..., D) of vectors.

        Raises:
            ShapeError, ArgumentError: as `diag`.
        """
        return trace(self)


def dense(tensor: Tabled, limit: float) -> Result:
    """All entries: an array (..., M, N), or (..., M, N, D) of vectors.

    Raises:
        ArgumentError: the tensor waits for symbols, or is made of numbers alone.
        MemoryLimitError: the array would have more than `limit` bytes.
        OptionError: a limit that is no number.
    """
    check_limit(limit)
    _check_given(tensor, "dense")
    assert tensor.real_dtype is not None
    wanted = math.prod(tensor._shape) * DTYPES[tensor.real_dtype].bytes
    hint = "reduce it, K @ v or K.sum(axis=1); a part, K[:1000].dense()"
    check_size(wanted, limit, tensor, hint)
    found = _on(tensor, *_all_turned(tensor))
    if tensor.ranges is not None:
        ranges, rows, columns = _checked(tensor)
        found = _within(found, ranges.table(rows, columns))
    return _numbers(found.reduction("Sum", axis=found.nbatchdims + 1))


def diagonal(tensor: Tabled) -> Result:
    """The entries of a square matrix with i = j: an array (..., M), or (..., M, D) of vectors.

    Raises:
        ArgumentError: the tensor waits for symbols, or is made of numbers alone.
        ShapeError: there are not as many rows as columns.
    """
    found = _diagonal(tensor, "diag")
    return _numbers(found.reduction("Sum", axis=found.nbatchdims + 1))


def trace(tensor: Tabled) -> Result:
    """The sum of the diagonal: an array (...), or (..., D) of vectors.

    Raises:
        ArgumentError, ShapeError: as `diagonal`.
    """
    found = _diagonal(tensor, "trace")
    return _numbers(found.reduction("Sum", axis=found.nbatchdims)[..., 0, :])


def _check_given(tensor: Tabled, method: str) -> None:
    if tensor.symbols:
        raise ArgumentError(
            f"{method}() is of arrays, and this tensor waits for arguments",
            found=repr(tensor),
            hint="Vi(x), Vj(y) in place of the symbols",
        )
    if tensor.library is None:
        raise ArgumentError(
            "a formula of numbers alone has no dtype: there is nothing to compute with",
            found=repr(tensor),
            hint="make one of them an array",
        )


def check_limit(limit: object) -> None:
    """Raise unless a limit is a number of bytes.

    Raises:
        OptionError: it is none.
    """
    if not plain_number(limit) or math.isnan(limit):
        raise OptionError("limit is a number of bytes", found=f"limit={limit!r}", hint="2**30")


def check_size(wanted: int, limit: float, found: object, hint: str) -> None:
    """Raise where an array would have more bytes than a limit.

    Raises:
        MemoryLimitError: it would; `hint` says what to do instead.
    """
    if wanted > limit:
        raise MemoryLimitError(
            f"the array would have {wanted} bytes ({wanted / 2**30:.2f} GiB), "
            f"and the limit is {limit:.0f}",
            found=repr(found),
            hint=f"{hint}; limit={wanted} for all of it",
        )


def _all_turned(tensor: Tabled) -> tuple[Node, tuple[Leaf, ...]]:
    """The graph and the arguments of the table; numbers of rows are given there."""
    node, leaves = moved_leaves(tensor.node, tensor.leaves, _turned)
    own, others = index_node(Axis.I), index_node(Axis.J)
    moved = {others: own}
    if counts(node, Axis.I):
        codes = numbers_as_codes(tensor._shape[-3])
        leaf = array_leaf(codes[:, None, None, :], Axis.J)
        moved[own] = OPERATIONS["Digits"](leaf.node)
        leaves = (*leaves, leaf)
    return substitute(node, moved), leaves


def _turned(leaf: Leaf) -> Leaf:
    """The argument with i as the last batch axis, and with j as the index of rows."""
    if leaf.form is None:
        return leaf
    x = placed(leaf.owner, leaf.form)
    if leaf.kind == Axis.I:
        return array_leaf(x[..., :, None, None, :], Axis.J)
    if leaf.kind == Axis.J:
        return array_leaf(x[..., None, :, None, :], Axis.I)
    if leaf.kind == Axis.PAIR:
        return array_leaf(x[..., :, :, None, :], Axis.I)
    return array_leaf(x[..., None, None, None, :], Axis.PARAMETER)


def _diagonal(tensor: Tabled, method: str) -> Tabled:
    """The tensor on the diagonal alone: nothing in it is indexed by j."""
    _check_given(tensor, method)
    rows, columns = tensor._shape[-3:-1]
    if rows != columns:
        raise ShapeError(
            f"{method}() is of a square matrix",
            found=f"shape {tensor.shape}",
            hint=f"K[:{min(rows, columns)}, :{min(rows, columns)}].{method}()",
        )

    def joined(leaf: Leaf) -> Leaf:
        if leaf.kind == Axis.PAIR:
            x = placed(leaf.owner, Axis.PAIR)
            # Every entry whose two numbers are equal.
            flat = x.reshape((*x.shape[:-3], rows * rows, x.shape[-1]))
            return array_leaf(flat[..., :: rows + 1, None, :], Axis.I)
        return leaf.of_kind(Axis.I) if leaf.kind == Axis.J else leaf

    node, leaves = moved_leaves(tensor.node, tensor.leaves, joined)
    found = _on(tensor, substitute(node, {index_node(Axis.J): index_node(Axis.I)}), leaves)
    if tensor.ranges is not None:
        found = _within(found, _met(_checked(tensor)))
    return found


def _on(tensor: Tabled, node: Node, leaves: tuple[Leaf, ...]) -> Tabled:
    found = tensor._of_leaves(node, leaves)
    found.backend = tensor.backend
    return found


def _numbers(result: Result) -> Result:
    """Results without the axis of a vector of one number."""
    return result[..., 0] if result.shape[-1] == 1 else result


# -- ranges ----------------------------------------------------------------------------------------


def _checked(tensor: Tabled) -> tuple[Ranges, int, int]:
    found = checked_ranges(tensor.ranges)
    assert found is not None
    rows, columns = tensor._shape[-3:-1]
    found.pattern(Axis.I, rows, columns)
    return found, rows, columns


def _within(tensor: Tabled, mask: NumpyArray) -> Tabled:
    """The tensor where a mask (..., rows) holds, 0 elsewhere."""
    from .lazytensor import where

    library, like = tensor.library, next(leaf.owner for leaf in tensor.leaves if leaf.given)
    assert library is not None
    assert tensor.real_dtype is not None
    chosen = library.cast(library.constants(mask.astype(np.float32), like), tensor.real_dtype)
    leaf = array_leaf(chosen[..., :, None, None], Axis.I)
    found = where(tensor.class_for(False)._of_leaves(leaf.node, [leaf]), tensor, 0)
    found.backend = tensor.backend
    return found


def _met(given: tuple[Ranges, int, int]) -> NumpyArray:
    """Which entries of the diagonal are among the pairs that ranges mean: (M,)."""
    ranges, rows, _ = given
    (i, stop_i), (j, stop_j) = (pairs.T for pairs in ranges.rectangles())
    start, stop = np.maximum(i, j), np.minimum(stop_i, stop_j)
    some = start < stop
    ends = np.zeros(rows + 1, np.int64)
    np.add.at(ends, start[some], 1)
    np.add.at(ends, stop[some], -1)
    return ends.cumsum()[:rows] > 0
