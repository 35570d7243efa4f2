"""Clusters of points, and the block-sparse ranges made of them, for NumPy arrays and tensors.

Label points (`grid_cluster`), take their clusters' sizes and centers (`cluster_ranges_centroids`),
sort the points (`sort_clusters`), decide which pairs of clusters matter, and make of that table the
`ranges` of a reduction (`from_matrix`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..arrays.numpy import NumpyArrays
from ..arrays.torch import TorchArrays
from ..errors import ArrayTypeError, DTypeError, ShapeError, UnsupportedError

_CELL_BITS = 10


class _Numpy:
    """What the functions below need of NumPy."""

    name = "numpy"

    @staticmethod
    def cells(x: Any, size: Any) -> Any:
        return np.floor(x / np.asarray(size)).astype(np.int64)

    @staticmethod
    def ranks(codes: Any) -> Any:
        return np.unique(codes, return_inverse=True)[1].reshape(-1).astype(np.int64)

    @staticmethod
    def order(labels: Any) -> Any:
        return np.argsort(labels, kind="stable")

    @staticmethod
    def sizes(labels: Any, count: int) -> Any:
        return np.bincount(labels, minlength=count).astype(np.int64)

    @staticmethod
    def sums(values: Any, labels: Any, count: int) -> Any:
        """Rows (M, D) added up by label, in float64: (count, D)."""
        found = np.zeros((count, values.shape[1]))
        np.add.at(found, labels, values)
        return found

    @staticmethod
    def like(array: Any, other: Any) -> Any:
        return array.astype(other.dtype)

    @staticmethod
    def ratio(sums: Any, totals: Any) -> Any:
        with np.errstate(invalid="ignore", divide="ignore"):
            return sums / totals

    @staticmethod
    def intervals(ends: Any, sizes: Any) -> Any:
        return np.stack([ends - sizes, ends], axis=1)

    @staticmethod
    def taken(ranges: Any, where: Any) -> Any:
        """Rows of `ranges` numbered by the second index of a table's true entries."""
        return np.asarray(ranges)[where.nonzero()[1]].astype(np.int64)

    @staticmethod
    def truth(array: Any) -> bool:
        return array.dtype == np.bool_

    @staticmethod
    def whole(array: Any) -> Any:
        return np.asarray(array).astype(np.int64)


class _Torch:
    """The same of torch; functions are those of the tensors, so torch is not imported here."""

    name = "torch"

    @staticmethod
    def cells(x: Any, size: Any) -> Any:
        x = x.detach()
        if not isinstance(size, (int, float)):
            size = x.new_tensor(size) if not TorchArrays.owns(size) else size.detach()
        return ((x - x.min(0).values) / size).floor().long() if len(x) else x.long()

    @staticmethod
    def ranks(codes: Any) -> Any:
        return codes.unique(return_inverse=True)[1].int()

    @staticmethod
    def order(labels: Any) -> Any:
        return labels.argsort(stable=True)

    @staticmethod
    def sizes(labels: Any, count: int) -> Any:
        return labels.long().bincount(minlength=count)

    @staticmethod
    def sums(values: Any, labels: Any, count: int) -> Any:
        """Rows (M, D) added up by label, in float64, differentiably: (count, D)."""
        values = values.double()
        return values.new_zeros(count, values.shape[1]).index_add(0, labels.long(), values)

    @staticmethod
    def like(array: Any, other: Any) -> Any:
        return array.to(other.dtype)

    @staticmethod
    def ratio(sums: Any, totals: Any) -> Any:
        return sums / totals

    @staticmethod
    def intervals(ends: Any, sizes: Any) -> Any:
        return (ends - sizes)[:, None].repeat(1, 2).index_add(1, ends.new_ones(1), sizes[:, None])

    @staticmethod
    def taken(ranges: Any, where: Any) -> Any:
        """Rows of `ranges` numbered by the second index of a table's true entries."""
        return ranges[where.nonzero()[:, 1]]

    @staticmethod
    def truth(array: Any) -> bool:
        return TorchArrays.dtype(array) == "bool"

    @staticmethod
    def whole(array: Any) -> Any:
        return array


def _tools(array: Any, name: str) -> Any:
    for library, tools in ((NumpyArrays, _Numpy), (TorchArrays, _Torch)):
        if library.owns(array):
            return tools
    raise ArrayTypeError(
        f"{name} must be a NumPy array or a torch tensor", found=f"a {type(array).__name__}"
    )


def _count(labels: Any, count: int | None) -> int:
    if count is not None:
        return count
    return int(labels.max()) + 1 if len(labels) else 0


def grid_cluster(x: Any, size: Any) -> Any:
    """Labels of points by the cell of a grid that they lie in, numbered without gaps.

    Cells begin at the origin for arrays, at the smallest coordinates for tensors. Further than
    1024 cells apart, two cells may get the same label.

    Args:
        x: points (M, D) of floats, D being 1, 2 or 3.
        size: the side of a cell, a number or one per coordinate (D,).

    Returns:
        Labels (M,), int64 for arrays, int32 for tensors.

    >>> grid_cluster(np.array([[0.1], [2.5], [0.2]]), 1.0)
    array([0, 1, 0])

    Raises:
        UnsupportedError: D is not 1, 2 or 3. ShapeError: x is not a table.
    """
    tools = _tools(x, "x")
    _table("x", x)
    if x.shape[1] not in (1, 2, 3):
        raise UnsupportedError(
            "grids are made for points of 1, 2 or 3 coordinates",
            found=f"shape {tuple(x.shape)}",
            hint="labels of your own, from 0, do as well",
        )
    cells = tools.cells(x, size)
    code = cells[:, 0]
    for component in range(1, x.shape[1]):
        code = code * 2**_CELL_BITS + cells[:, component]
    return tools.ranks(code)


def sort_clusters(x: Any, lab: Any) -> tuple[Any, Any]:
    """Points and labels, sorted by label; points of one label keep their order.

    Args:
        x: an array (M, ...), or a tuple or list of them.
        lab: labels (M,) of whole numbers.

    Returns:
        (x sorted, in the type that it had, labels sorted).

    >>> sort_clusters(np.array([[5.0], [6.0], [7.0]]), np.array([1, 0, 1]))[0].tolist()
    [[6.0], [5.0], [7.0]]

    Raises:
        ArrayTypeError: not arrays.
    """
    order = _tools(lab, "lab").order(lab)
    if isinstance(x, (tuple, list)):
        parts: Sequence[Any] = x
        return type(x)(part[order] for part in parts), lab[order]  # pyright: ignore
    return x[order], lab[order]


def cluster_ranges(lab: Any, Nlab: int | None = None) -> Any:
    """Where each cluster lies among points sorted by label: int64 (C, 2), start and stop.

    Args:
        lab: labels (M,) from 0, sorted or not.
        Nlab: how many clusters there are; by default one more than the largest label.

    >>> cluster_ranges(np.array([0, 2, 0])).tolist()
    [[0, 2], [2, 2], [2, 3]]

    Raises:
        ArrayTypeError: not an array.
    """
    tools = _tools(lab, "lab")
    sizes = tools.sizes(lab, _count(lab, Nlab))
    return tools.intervals(sizes.cumsum(0), sizes)


def cluster_centroids(
    x: Any, lab: Any, Nlab: int | None = None, weights: Any = None, weights_c: Any = None
) -> Any:
    """Centers of clusters (C, D), in the dtype of x; NaN for clusters without points.

    Args:
        x: points (M, D).
        lab: labels (M,) from 0.
        Nlab: how many clusters there are; by default one more than the largest label.
        weights: weights of the points (M,); by default 1.
        weights_c: total weights of the clusters (C,), if known.

    >>> cluster_centroids(np.array([[1.0], [5.0], [3.0]]), np.array([0, 1, 0])).tolist()
    [[2.0], [5.0]]

    Raises:
        ArrayTypeError, ShapeError: what does not fit.
    """
    tools = _tools(x, "x")
    _table("x", x)
    count = _count(lab, Nlab)
    if weights is None:
        return tools.like(tools.ratio(tools.sums(x, lab, count), _sizes(tools, lab, count)), x)
    weights = weights.reshape(-1, 1)
    sums = tools.sums(x * weights, lab, count)
    totals = tools.sums(weights, lab, count) if weights_c is None else weights_c.reshape(-1, 1)
    return tools.like(tools.ratio(sums, totals), x)


def _sizes(tools: Any, lab: Any, count: int) -> Any:
    return tools.sizes(lab, count).reshape(-1, 1)


def cluster_ranges_centroids(
    x: Any, lab: Any, weights: Any = None, min_weight: float = 1e-9
) -> tuple[Any, Any, Any]:
    """Ranges (C, 2), centers (C, D) and total weights (C,) of clusters.

    Args:
        x: points (M, D).
        lab: labels (M,) from 0.
        weights: weights of the points (M,); by default 1, so that totals are counts, as floats.
        min_weight: for tensors, the least that the total weight of a cluster is taken as.

    >>> ranges, _, totals = cluster_ranges_centroids(np.ones((3, 2)), np.array([0, 1, 0]))
    >>> ranges.tolist(), totals.tolist()
    ([[0, 2], [2, 3]], [2.0, 1.0])

    Raises:
        ArrayTypeError, ShapeError: what does not fit.
    """
    tools = _tools(x, "x")
    count = _count(lab, None)
    if weights is None:
        totals = tools.like(tools.sizes(lab, count), x)
    else:
        totals = tools.sums(weights.reshape(-1, 1), lab, count)[:, 0]
        totals = tools.like(totals, weights)
        totals = totals.clamp(min=min_weight) if tools is _Torch else totals
    centers = cluster_centroids(x, lab, count, weights, None if weights is None else totals)
    return cluster_ranges(lab, count), centers, totals


def from_matrix(ranges_i: Any, ranges_j: Any, keep: Any) -> tuple[Any, ...]:
    """The `ranges` of a reduction over those pairs of clusters that a table keeps.

    Args:
        ranges_i: clusters of rows i, whole numbers (C, 2), start and stop.
        ranges_j: clusters of rows j, whole numbers (E, 2).
        keep: truth values (C, E): whether cluster c of i meets cluster e of j.

    Returns:
        (ranges_i, slices_i, redranges_j, ranges_j, slices_j, redranges_i), all int64 for arrays;
        tensors of ranges keep their dtype.

    >>> clusters = np.array([[0, 2], [2, 3]])
    >>> from_matrix(clusters, clusters, np.eye(2, dtype=bool))[2].tolist()
    [[0, 2], [2, 3]]

    Raises:
        DTypeError: `keep` does not hold truth values.
        ShapeError: its shape is not that of the ranges.
    """
    tools = _tools(keep, "keep")
    if not tools.truth(keep):
        raise DTypeError(
            "keep must hold truth values", found=f"dtype {keep.dtype}", hint="keep > 0"
        )
    wanted = (len(ranges_i), len(ranges_j))
    if tuple(keep.shape) != wanted:
        raise ShapeError(
            "keep must have a row per range of i and a column per range of j",
            found=f"shape {tuple(keep.shape)} for {wanted[0]} and {wanted[1]} ranges",
        )
    ranges_i, ranges_j = tools.whole(ranges_i), tools.whole(ranges_j)
    slices_i, slices_j = keep.sum(1).cumsum(0), keep.sum(0).cumsum(0)
    meets_j, meets_i = tools.taken(ranges_j, keep), tools.taken(ranges_i, keep.T)
    return ranges_i, slices_i, meets_j, ranges_j, slices_j, meets_i


def swap_axes(ranges: Any) -> tuple[Any, ...] | None:
    """The ranges of the transposed table of pairs: the two halves trade places; None stays None.

    >>> swap_axes((1, 2, 3, 4, 5, 6))
    (4, 5, 6, 1, 2, 3)
    """
    return None if ranges is None else (*ranges[3:6], *ranges[:3])


def _table(name: str, array: Any) -> None:
    if array.ndim != 2:
        raise ShapeError(f"{name} must have shape (M, D)", found=f"shape {tuple(array.shape)}")
