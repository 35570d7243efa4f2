"""Preconditioners for kernel systems: approximate inverses from few columns of a matrix.

A positive matrix K is replaced by L L^T, L having few columns:

- "nystrom": L is made of randomly drawn columns C and the block W of their rows, K ~ C W^-1 C^T,
  shifted for stability as in Frangella, Tropp and Udell (Randomized Nystrom preconditioning, 2023).
- "pivoted-cholesky": Cholesky's method, ended early, with the largest remaining entry of the
  diagonal as the next pivot (Harbrecht, Peters and Schneider, On the low-rank approximation by the
  pivoted Cholesky decomposition, 2012).

With the eigenvalues l_1 >= ... >= l_k of L L^T and its eigenvectors U, residuals are multiplied by
I - U diag(1 - (l_k + alpha) / (l + alpha)) U^T: the inverse of alpha Id + K, up to a factor, where
L L^T is K, and the identity where L L^T knows nothing. Only columns and the diagonal of K are used.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import SupportsIndex, cast

import numpy as np

from ..arrays.library import ArrayLibrary
from ..core.library import Array
from ..errors import OptionError, SolveError, closest

# As users give one: a name, a function, or none.
Preconditioner = Callable[[Array], Array] | str | None
NAMES = ("nystrom", "pivoted-cholesky")
_ROUNDING, _TINY = 1e-13, float(np.finfo(np.float64).tiny)
RANK = 200  # columns, where nobody says how many


@dataclass(frozen=True)
class Matrix:
    """Positive matrices (..., n, n), known by their columns and diagonals, in float64.

    Args:
        library: that of the arrays.
        size: n.
        columns: from k places among n to an array (..., n, k).
        diagonal: to an array (..., n); None where nobody asks for it.
        rounding: the relative error of entries.
    """

    library: ArrayLibrary
    size: int
    columns: Callable[[Sequence[int]], Array]
    diagonal: Callable[[], Array] | None
    rounding: float


def checked_preconditioner(
    value: object, rank: SupportsIndex | None = None
) -> tuple[Preconditioner, int | None]:
    """A preconditioner as a user gave it, and its rank.

    Raises:
        OptionError: neither a known name, nor a function, nor None; a rank that is none.
    """
    if isinstance(value, str):
        if value not in ("auto", *NAMES):
            listed = ", ".join(map(repr, ("auto", *NAMES)))
            raise OptionError(
                "preconditioner has an unknown name",
                found=f"preconditioner={value!r}",
                hint=closest(value, NAMES) or f"one of {listed}, None, or a function r -> z",
            )
    elif value is not None and not callable(value):
        raise OptionError(
            "preconditioner must be a name, a function r -> z, or None",
            found=f"preconditioner={value!r}",
            hint=f"one of {', '.join(map(repr, NAMES))}",
        )
    given = cast("Preconditioner", value)
    if rank is None:
        return given, None
    try:
        count = -1 if isinstance(rank, bool) else operator.index(rank)
    except TypeError:
        count = -1
    if count < 1:
        raise OptionError("rank must be a whole number from 1", found=f"rank={rank!r}")
    if not isinstance(value, str) or value == "auto":
        raise OptionError(
            "rank belongs to a preconditioner with a name",
            found=f"rank={rank!r}, preconditioner={value!r}",
            hint='preconditioner="nystrom"',
        )
    return given, count


def factor(name: str, matrix: Matrix, rank: int | None = None) -> Array:
    """L (..., n, k) with K ~ L L^T, by the method of that name; the same at every call."""
    count = min(matrix.size, RANK if rank is None else rank)
    return nystrom(matrix, count) if name == "nystrom" else pivoted_cholesky(matrix, count)


def nystrom(matrix: Matrix, rank: int, seed: int = 0) -> Array:
    """L (..., n, rank) from columns drawn without replacement.

    Raises:
        SolveError: the columns are not finite.

    >>> from ..arrays.registry import NUMPY
    >>> K = np.array([[2.0, 1.0], [1.0, 2.0]])
    >>> known = Matrix(NUMPY, 2, lambda places: K[:, places], lambda: np.diag(K), 1e-16)
    >>> found = nystrom(known, 2)
    >>> (found @ found.T).round(6).tolist()
    [[2.0, 1.0], [1.0, 2.0]]
    """
    xp = matrix.library.functions()
    drawn = np.random.default_rng(seed).choice(matrix.size, rank, replace=False)
    places = np.sort(drawn).tolist()
    columns = matrix.columns(places)
    if not bool(xp.isfinite(columns).all()):
        raise SolveError("the matrix of the system is not finite", hint="arguments that are finite")
    block = columns[..., places, :]
    values, vectors = xp.linalg.eigh((block + xp.swapaxes(block, -1, -2)) / 2)
    # A shift of the size of rounding errors keeps what is divided by positive. What a matrix that
    # is not positive has below it is left out.
    shift = rank * matrix.rounding * abs(values[..., -1:])
    scale = xp.where(values + shift > shift / 2, values + shift, xp.full_like(values, xp.inf))
    return columns @ (vectors / xp.sqrt(scale)[..., None, :])


def pivoted_cholesky(matrix: Matrix, rank: int) -> Array:
    """L (..., n, k), k <= rank, from the columns of the largest entries that remain.

    Matrices of a batch share their pivots: those whose remaining entries are largest in sum,
    relative to the first diagonals. It ends where rounding is all that remains.

    >>> from ..arrays.registry import NUMPY
    >>> K = np.array([[4.0, 2.0], [2.0, 1.0]])
    >>> known = Matrix(NUMPY, 2, lambda places: K[:, places], lambda: np.diag(K), 1e-16)
    >>> pivoted_cholesky(known, 2).tolist()
    [[2.0], [1.0]]
    """
    assert matrix.diagonal is not None
    xp = matrix.library.functions()
    rest = xp.clip(matrix.diagonal(), 0, None)
    most = xp.amax(rest, -1)[..., None] if matrix.size else rest
    weight = 1 / xp.where(most > 0, most, xp.ones_like(most))
    floor = matrix.size * matrix.rounding
    rows: list[int] = []
    place = matrix.library.place(rest)
    stack = xp.zeros((*rest.shape[:-1], rank, matrix.size), dtype=xp.float64, **place)
    for count in range(rank):
        share = rest * weight
        total = share.reshape(-1, matrix.size).sum(0)
        pivot = int(total.argmax())
        if not float(share[..., pivot].max()) > floor:
            break
        known = stack[..., :count, :]
        column = matrix.columns([pivot])[..., 0]
        column = column - (known[..., pivot][..., None, :] @ known)[..., 0, :]
        left = rest[..., pivot][..., None]
        fine = left * weight > floor
        column = column / xp.sqrt(xp.where(fine, left, xp.full_like(left, xp.inf)))
        stack[..., count, :] = column
        rest = xp.clip(rest - column**2, 0, None)
        rest[..., pivot] = 0
        rows.append(pivot)
    return xp.swapaxes(stack[..., : max(1, len(rows)), :], -1, -2)


class LowRank:
    """The inverse of shift + L L^T, up to a factor, on arrays (..., n, E).

    Args:
        library: that of the arrays.
        factor: L (..., n, k), in float64.
        shift: what is added to the diagonal, from 0.
        exact: take eigenvalues that L L^T does not have for 0, as Woodbury's formula does; else
            for the least that it has, which is safer where they decay slowly.

    >>> from ..arrays.registry import NUMPY
    >>> inverse = LowRank(NUMPY, np.array([[3.0], [0.0]]), 1.0)
    >>> inverse(np.array([[1.0], [1.0]])).tolist()
    [[1.0], [1.0]]
    """

    def __init__(
        self, library: ArrayLibrary, factor: Array, shift: float, exact: bool = False
    ) -> None:
        self.library, self.factor, self.batch = library, factor, tuple(factor.shape[:-2])
        self.xp = xp = library.functions()
        values, vectors = xp.linalg.eigh(xp.swapaxes(factor, -1, -2) @ factor)
        # Squaring leaves nothing of eigenvalues below the rounding errors of the largest.
        known = values > _ROUNDING * xp.clip(values[..., -1:], _TINY, None)
        least = xp.amin(xp.where(known, values, values[..., -1:] * xp.ones_like(values)), -1)
        rest = 0.0 if exact else least[..., None]
        self.damping = xp.where(known, (rest + shift) / (values + shift), xp.ones_like(values))
        inside = (1 - self.damping) / xp.where(known, values, xp.ones_like(values))
        self.core = (vectors * inside[..., None, :]) @ xp.swapaxes(vectors, -1, -2)

    @property
    def gain(self) -> float:
        """By how much the condition falls where the spectrum goes on below the last eigenvalue."""
        return float((1 / self.damping).max())

    def fits(self, shape: Sequence[int]) -> bool:
        """Whether vectors (..., n, E) of that shape can be multiplied."""
        batch, own = tuple(shape[:-2]), self.batch
        return len(own) <= len(batch) and all(
            mine in (1, other) for mine, other in zip(own[::-1], batch[::-1], strict=False)
        )

    def __call__(self, r: Array) -> Array:
        """z, in the dtype of r."""
        wide = self.library.cast(r, "float64")
        inside = self.core @ (self.xp.swapaxes(self.factor, -1, -2) @ wide)
        return self.library.cast_like(wide - self.factor @ inside, r)
