"""Linear operators by their names: identities, powers, matrices of matrices."""

# Operators are made of others.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..core.library import Array
from ..errors import OptionError, ShapeError, attempted
from .leaves import library_from
from .linearoperators import (
    Identity,
    LinearOperator,
    Product,
    aslinearoperator,
    batch_of,
    common_batch,
    total_of,
)

if TYPE_CHECKING:
    from .typed import Result


class _Block(LinearOperator):
    """A matrix of operators; None is a block of zeros."""

    def __init__(self, rows: Sequence[Sequence[LinearOperator | None]]) -> None:
        self.rows = rows
        self.heights = [_size(row, -2, "row") for row in rows]
        self.widths = [_size(column, -1, "column") for column in zip(*rows, strict=True)]
        parts = [part for row in rows for part in row if part is not None]
        super().__init__((*batch_of(parts), sum(self.heights), sum(self.widths)), parts)

    def _apply(self, v: Result) -> Result:
        xp = library_from(v).functions()
        ends = np.cumsum([0, *self.widths]).tolist()
        pieces = [v[..., a:b, :] for a, b in itertools.pairwise(ends)]
        found = [
            total_of(
                part._apply(x) for part, x in zip(row, pieces, strict=True) if part is not None
            )
            for row in self.rows
        ]
        batch = common_batch(*[tuple(each.shape[:-2]) for each in found])
        return xp.concatenate([xp.broadcast_to(x, (*batch, *x.shape[-2:])) for x in found], -2)

    def _turned(self, conjugate: bool) -> LinearOperator:
        columns = zip(*self.rows, strict=True)
        return _Block(
            [[None if x is None else x._turned(conjugate) for x in column] for column in columns]
        )

    def _entries(self, like: Result, limit: float) -> Result:
        self._check_size(like, limit)
        xp, batch = library_from(like).functions(), self.shape[:-2]
        place = library_from(like).place(like)

        def entries(part: LinearOperator | None, height: int, width: int) -> Result:
            if part is None:
                found = xp.zeros((height, width), dtype=like.dtype, **place)
            else:
                found = part._entries(like, limit)
            return xp.broadcast_to(found, (*batch, height, width))

        rows = [
            xp.concatenate([entries(x, h, w) for x, w in zip(row, self.widths, strict=True)], -1)
            for row, h in zip(self.rows, self.heights, strict=True)
        ]
        return xp.concatenate(rows, -2)

    def _diagonal(self, like: Result) -> Result:
        blocks = [row[k] for k, row in enumerate(self.rows) if k < len(row)]
        if self.heights != self.widths or any(block is None for block in blocks):
            return super()._diagonal(like)
        xp = library_from(like).functions()
        found = [block._diagonal(like) for block in blocks if block is not None]
        batch = self.shape[:-2]
        return xp.concatenate([xp.broadcast_to(x, (*batch, x.shape[-1])) for x in found], -1)

    def with_arrays(self, change: Callable[[Array], Array]) -> LinearOperator:
        """The same blocks of other arrays."""
        return _Block(
            [[None if x is None else x.with_arrays(change) for x in row] for row in self.rows]
        )

    def _text(self) -> str:
        rows = [", ".join("0" if x is None else x._text() for x in row) for row in self.rows]
        return f"[[{'], ['.join(rows)}]]"


def identity(n: int) -> LinearOperator:
    """The identity of n rows, of any dtype and library: `K + 0.1 * identity(n)`.

    >>> import numpy as np
    >>> (2.0 * identity(3) @ np.ones(3)).tolist()
    [2.0, 2.0, 2.0]

    Raises:
        OptionError: n is no whole number from 0.
    """
    return Identity(_whole(n, "n"))


def matrix_power(matrix: object, n: int) -> LinearOperator:
    """The product of n copies of a square matrix; `K ** n` is the power of each entry.

    >>> import numpy as np
    >>> (matrix_power(np.array([[1.0, 1.0], [0.0, 1.0]]), 3) @ np.ones(2)).tolist()
    [4.0, 1.0]

    Raises:
        ShapeError: the matrix is not square.
        OptionError: n is no whole number from 0.
    """
    found = aslinearoperator(matrix)
    if found.shape[-1] != found.shape[-2]:
        raise ShapeError("powers are of a square matrix", found=repr(found))
    count = _whole(n, "n")
    if count == 1:
        return found
    return Product([found] * count) if count else Identity(found.shape[-1])


def block(rows: Sequence[Sequence[object]]) -> LinearOperator:
    """A matrix of matrices, row by row; None is a block of zeros.

    >>> import numpy as np
    >>> A = block([[np.eye(2), None], [None, 3.0 * identity(1)]])
    >>> A, (A @ np.ones(3)).tolist()
    (<LinearOperator [[array, 0], [0, 3.0 * I]], shape (3, 3), dtype float64>, [1.0, 1.0, 3.0])

    Raises:
        ShapeError: blocks that do not fit, or rows of different lengths.
        ArrayTypeError, DTypeError: what is no matrix.
    """
    made = [[None if x is None else aslinearoperator(x) for x in row] for row in rows]
    if not made or not made[0] or len({len(row) for row in made}) > 1:
        raise ShapeError(
            "blocks are rows of equal lengths",
            found=f"rows of {[len(row) for row in made]} blocks",
            hint="block([[A, B], [C, None]])",
        )
    return _Block(made)


def hstack(matrices: Sequence[object]) -> LinearOperator:
    """Matrices side by side.

    Raises:
        ShapeError, ArrayTypeError, DTypeError: what does not fit.
    """
    return block([matrices])


def vstack(matrices: Sequence[object]) -> LinearOperator:
    """Matrices one below the other.

    Raises:
        ShapeError, ArrayTypeError, DTypeError: what does not fit.
    """
    return block([[matrix] for matrix in matrices])


def _size(parts: Sequence[LinearOperator | None], axis: int, name: str) -> int:
    """The common size of the blocks of a row or column."""
    sizes = {part.shape[axis] for part in parts if part is not None}
    if len(sizes) != 1:
        raise ShapeError(
            f"a {name} of blocks has one size",
            found=f"sizes {sorted(sizes)}",
            hint=None if sizes else "a block of zeros needs another beside it and below it",
        )
    return sizes.pop()


def _whole(n: object, name: str) -> int:
    found = -1 if isinstance(n, bool) else attempted(operator.index, n, -1)  # pyright: ignore
    if found < 0:
        raise OptionError(f"{name} is a whole number from 0", found=f"{name}={n!r}")
    return found
