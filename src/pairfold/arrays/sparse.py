"""Sparse matrices of SciPy and torch: which they are, and where their entries lie.

SciPy is known to a call only if the user has imported it: nothing is imported here.
"""

# What torch says of tensors inside transforms has no public name.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from ..core.library import NumpyArray
from ..errors import DTypeError, ShapeError
from .registry import TORCH

if TYPE_CHECKING:
    from torch import Tensor

Numbers = NDArray[np.int64]
# Formats of tensors whose entries are listed one by one, in torch's words.
_LISTED = {"torch.sparse_coo", "torch.sparse_csr", "torch.sparse_csc"}


class _List(Protocol):
    """The entries of a sparse matrix of SciPy."""

    data: NumpyArray
    row: Numbers
    col: Numbers


class _Sparse(Protocol):
    """A sparse matrix of SciPy."""

    shape: tuple[int, ...]
    dtype: object

    def tocoo(self, copy: bool = ...) -> _List: ...


def is_sparse(x: object) -> bool:
    """Whether x is a sparse matrix: of SciPy, in any format, or of torch, with listed entries."""
    scipy = sys.modules.get("scipy.sparse")
    if scipy is not None and scipy.issparse(x):
        return True
    return TORCH.owns(x) and str(getattr(x, "layout", "")) in _LISTED


def entries_of(matrix: object) -> tuple[tuple[int, int], Numbers, Numbers]:
    """The shape of a sparse matrix, and the rows and the columns of the entries that are not 0.

    An entry may be there several times, and they are in any order.

    Raises:
        ShapeError: it has not two axes. DTypeError: it has complex numbers, or none.
    """
    if TORCH.owns(matrix):
        sizes = _sizes(matrix.shape, TORCH.dtype(matrix))
        return (sizes, *_of_torch(cast("Tensor", matrix)))
    sparse = cast(_Sparse, matrix)
    sizes = _sizes(sparse.shape, str(sparse.dtype))
    listed = sparse.tocoo(copy=False)
    chosen = listed.data != 0
    if chosen.all():
        return sizes, listed.row, listed.col
    return sizes, listed.row[chosen], listed.col[chosen]


def _of_torch(matrix: Tensor) -> tuple[Numbers, Numbers]:
    # Inside the transforms of torch.func, results of a plain tensor would be of theirs.
    with sys.modules["torch"]._C._DisableFuncTorch():
        coo = matrix.detach().to_sparse_coo()
        if coo.dense_dim():
            raise ShapeError(
                "entries of a sparse mask are numbers",
                found=f"rows of {matrix.shape[1]} numbers",
                hint="matrix.to_dense().to_sparse()",
            )
        chosen = coo._values() != 0
        i, j = (part[chosen].cpu().numpy() for part in coo._indices())
    return i, j


def _sizes(shape: Sequence[int], dtype: str) -> tuple[int, int]:
    """The sizes of a matrix whose dtype is one of truth values or real numbers.

    Raises:
        ShapeError, DTypeError: they are not.
    """
    if len(shape) != 2:
        raise ShapeError(
            "a sparse mask has two axes, of rows and columns",
            found=f"shape {tuple(shape)}",
            hint="one pattern is shared by all batches",
        )
    if not dtype.startswith(("bool", "int", "uint", "float", "bfloat", "longdouble")):
        raise DTypeError(
            "a sparse mask has truth values or real numbers",
            found=f"dtype {dtype}",
            hint="matrix != 0",
        )
    return int(shape[0]), int(shape[1])
