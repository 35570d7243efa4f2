"""Cases that are programs rather than one `Genred`: lazy tensors, batches, blocks, systems.

Each is written once, as a user of PyKeOps writes it; `library` is `pairfold.numpy` or
`pykeops.numpy`. Data and oracles are here, too; only NumPy is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[np.floating]]
Work = Callable[[], Sequence[Any]]

REACH = 0.25  # blocks whose cells are closer than this times the width of the data are kept
CELLS = 8  # cells along each axis of the grid of blocks
SYSTEM_ALPHA = 1.0
SYSTEM_EPS = 1e-6


def squared_distances(library: Any, x: Any, y: Any) -> Any:
    """|x_i - y_j|^2 as a lazy tensor."""
    x_i, y_j = library.LazyTensor(x[..., :, None, :]), library.LazyTensor(y[..., None, :, :])
    return ((x_i - y_j) ** 2).sum(-1)


def lazy_sum(library: Any, v: Arrays, options: dict[str, Any]) -> Work:
    """A Gaussian sum: lazy tensors made, combined and reduced at every call."""

    def work() -> Sequence[Any]:
        kernel = (-squared_distances(library, v["x"], v["y"])).exp()
        return (kernel.__matmul__(v["b"], **options),)

    return work


def batched_sum(library: Any, v: Arrays, options: dict[str, Any]) -> Work:
    """Many small Gaussian sums in one call."""
    count = batches(v)
    x, y, b = (v[name].reshape(count, -1, v[name].shape[-1]) for name in ("x", "y", "b"))

    def work() -> Sequence[Any]:
        kernel = (-squared_distances(library, x, y)).exp()
        found = kernel.__matmul__(b, **options)
        return (found.reshape(-1, found.shape[-1]),)

    return work


def sparse_sum(library: Any, v: Arrays, options: dict[str, Any]) -> Work:
    """A Gaussian sum over the blocks of near cells."""
    fold = library.Genred(
        "Exp(-SqDist(x,y))*b", ["x = Vi(3)", "y = Vj(3)", "b = Vj(1)"], axis=1, **options
    )
    ranges = block_ranges(v["x"], v["y"])
    args = [v[name] for name in ("x", "y", "b")]
    return lambda: (fold(*args, ranges=ranges),)


def system(library: Any, v: Arrays, options: dict[str, Any]) -> Work:
    """(alpha Id + K) a = b for a Gaussian K, by conjugate gradients."""
    x = v["x"]

    def work() -> Sequence[Any]:
        kernel = (-squared_distances(library, x, x)).exp()
        return (kernel.solve(v["b"], alpha=SYSTEM_ALPHA, eps=SYSTEM_EPS, **options),)

    return work


PROGRAMS = {"lazy": lazy_sum, "batched": batched_sum, "sparse": sparse_sum, "system": system}


def batches(v: Arrays) -> int:
    """How many problems of the shape (columns, columns) there are, 500 columns each."""
    return max(1, len(v["b"]) // 500)


def draw(name: str) -> Callable[[np.random.Generator, int, int], Arrays]:
    """Normal points with |x-y|^2 of order one, normal b; for `sparse`, sorted by cells."""

    def points(rng: np.random.Generator, rows: int, columns: int) -> Arrays:
        if name == "system":
            columns = rows
        if name == "batched":
            columns *= max(1, rows // 500)
        scale = 1 / np.sqrt(3)
        found: dict[str, NDArray[Any]] = {
            "x": scale * rng.standard_normal((rows, 3)),
            "y": scale * rng.standard_normal((columns, 3)),
            "b": rng.standard_normal((columns, 1)),
        }
        if name == "sparse":
            for key in ("x", "y"):
                p = found[key].astype(np.float32)
                found[key] = p[np.argsort(cell_codes(p), kind="stable")]
        return found

    return points


def oracle(name: str) -> Callable[[Arrays], list[Any]]:
    """The float64 result of a program, for the sampled rows."""
    from benchmarks.case import sample_rows

    def dense(v: Arrays) -> list[Any]:
        x, y, b = v["x"], v["y"], v["b"]
        chosen = sample_rows(len(x))
        if name == "system":
            d2 = sum(np.square(c[:, None] - c) for c in x.T)
            return [np.linalg.solve(np.exp(-d2) + SYSTEM_ALPHA * np.eye(len(x)), b)[chosen]]
        distances = (np.square(x[i] - y).sum(1) for i in chosen)
        weights = np.exp(-np.stack(list(distances)))
        if name == "batched":
            count = batches(v)
            own = np.arange(len(y)) // (len(y) // count)
            weights = weights * (own[None] == (chosen // (len(x) // count))[:, None])
        if name == "sparse":
            weights = weights * near(x[chosen], y)
        return [weights @ b]

    return dense


def cell_codes(points: NDArray[Any]) -> NDArray[np.int64]:
    """The cell of each point on a grid of `CELLS` cells along each axis, over [-2, 2]."""
    cells = np.clip(np.floor((points + 2) * (CELLS / 4)), 0, CELLS - 1).astype(np.int64)
    return (cells[:, 0] * CELLS + cells[:, 1]) * CELLS + cells[:, 2]


def _centers(codes: NDArray[np.int64]) -> NDArray[Any]:
    digits = np.stack([codes // CELLS**2, codes // CELLS % CELLS, codes % CELLS], 1)
    return (digits + 0.5) * (4 / CELLS) - 2


def _blocks(points: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(codes of the cells that have points, first and last-but-one row of each)."""
    codes, starts = np.unique(cell_codes(points), return_index=True)
    ends = np.append(starts[1:], len(points))
    return codes, np.stack([starts, ends], 1).astype(np.int64)


def _kept(first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.bool_]:
    d2 = np.square(_centers(first)[:, None] - _centers(second)[None]).sum(-1)
    return d2 < (4 * REACH) ** 2


def near(x: NDArray[Any], y: NDArray[Any]) -> NDArray[np.bool_]:
    """The pairs that the blocks hold."""
    first, of_x = np.unique(cell_codes(x.astype(np.float32)), return_inverse=True)
    second, of_y = np.unique(cell_codes(y.astype(np.float32)), return_inverse=True)
    return _kept(first, second)[of_x][:, of_y]


def block_ranges(x: NDArray[Any], y: NDArray[Any]) -> tuple[NDArray[np.int64], ...]:
    """The six arrays of PyKeOps' `ranges` for points sorted by cells."""
    (first, rows), (second, columns) = _blocks(x), _blocks(y)
    keep = _kept(first, second)
    j_of, i_of = np.nonzero(keep)[1], np.nonzero(keep.T)[1]
    ends_i, ends_j = np.cumsum(keep.sum(1)), np.cumsum(keep.sum(0))
    return rows, ends_i, columns[j_of], columns, ends_j, rows[i_of]
