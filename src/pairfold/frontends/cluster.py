"""Clusters of points, and the block-sparse ranges made of them, for NumPy arrays and tensors.

Label points (`grid_cluster`), take their clusters' sizes and centers (`cluster_ranges_centroids`),
sort the points (`sort_clusters`), decide which pairs of clusters matter, and make of that table the
`ranges` of a reduction (`from_matrix`).
"""

from __future__ import annotations

from ..arrays.library import ArrayLibrary
from ..arrays.registry import library_for
from ..core.library import Array, UserArray
from ..errors import ArrayTypeError, DTypeError, ShapeError, UnsupportedError

_CELL_BITS = 10


def _library(array: object, name: str) -> ArrayLibrary:
    found = library_for(array)
    if found is None:
        raise ArrayTypeError(
            f"{name} must be an array of NumPy, torch or JAX", found=f"a {type(array).__name__}"
        )
    return found


def _count(labels: Array, count: int | None) -> int:
    if count is not None:
        return count
    return int(labels.max()) + 1 if len(labels) else 0


def grid_cluster(x: UserArray, size: object) -> UserArray:
    """Labels of points by the cell of a grid that they lie in, numbered without gaps.

    Cells begin at the origin for arrays, at the smallest coordinates for tensors. Further than
    1024 cells apart, two cells may get the same label.

    Args:
        x: points (M, D) of floats, D being 1, 2 or 3.
        size: the side of a cell, a number or one per coordinate (D,).

    Returns:
        Labels (M,), int64 for arrays, int32 for tensors.

    >>> import numpy as np
    >>> grid_cluster(np.array([[0.1], [2.5], [0.2]]), 1.0)
    array([0, 1, 0])

    Raises:
        UnsupportedError: D is not 1, 2 or 3. ShapeError: x is not a table.
    """
    clusters = _library(x, "x").clusters
    _table("x", x)
    if x.shape[1] not in (1, 2, 3):
        raise UnsupportedError(
            "grids are made for points of 1, 2 or 3 coordinates",
            found=f"shape {tuple(x.shape)}",
            hint="labels of your own, from 0, do as well",
        )
    cells = clusters.cells(x, size)
    code = cells[:, 0]
    for component in range(1, x.shape[1]):
        code = code * 2**_CELL_BITS + cells[:, component]
    return clusters.ranks(code)


def sort_clusters(x: UserArray, lab: UserArray) -> tuple[UserArray, UserArray]:
    """Points and labels, sorted by label; points of one label keep their order.

    Args:
        x: an array (M, ...), or a tuple or list of them.
        lab: labels (M,) of whole numbers.

    Returns:
        (x sorted, in the type that it had, labels sorted).

    >>> import numpy as np
    >>> sort_clusters(np.array([[5.0], [6.0], [7.0]]), np.array([1, 0, 1]))[0].tolist()
    [[6.0], [5.0], [7.0]]

    Raises:
        ArrayTypeError: not arrays.
    """
    order = _library(lab, "lab").clusters.order(lab)
    if isinstance(x, (tuple, list)):
        return type(x)(part[order] for part in x), lab[order]  # pyright: ignore
    return x[order], lab[order]


def cluster_ranges(lab: UserArray, Nlab: int | None = None) -> UserArray:
    """Where each cluster lies among points sorted by label: int64 (C, 2), start and stop.

    Args:
        lab: labels (M,) from 0, sorted or not.
        Nlab: how many clusters there are; by default one more than the largest label.

    >>> import numpy as np
    >>> cluster_ranges(np.array([0, 2, 0])).tolist()
    [[0, 2], [2, 2], [2, 3]]

    Raises:
        ArrayTypeError: not an array.
    """
    clusters = _library(lab, "lab").clusters
    sizes = clusters.sizes(lab, _count(lab, Nlab))
    return clusters.intervals(sizes.cumsum(0), sizes)


def cluster_centroids(
    x: UserArray,
    lab: UserArray,
    Nlab: int | None = None,
    weights: UserArray = None,
    weights_c: UserArray = None,
) -> UserArray:
    """Centers of clusters (C, D), in the dtype of x; NaN for clusters without points.

    Args:
        x: points (M, D).
        lab: labels (M,) from 0.
        Nlab: how many clusters there are; by default one more than the largest label.
        weights: weights of the points (M,); by default 1.
        weights_c: total weights of the clusters (C,), if known.

    >>> import numpy as np
    >>> cluster_centroids(np.array([[1.0], [5.0], [3.0]]), np.array([0, 1, 0])).tolist()
    [[2.0], [5.0]]

    Raises:
        ArrayTypeError, ShapeError: what does not fit.
    """
    library = _library(x, "x")
    _table("x", x)
    clusters, count = library.clusters, _count(lab, Nlab)
    if weights is None:
        sums, totals = clusters.sums(x, lab, count), clusters.sizes(lab, count).reshape(-1, 1)
        return library.cast_like(clusters.ratio(sums, totals), x)
    weights = weights.reshape(-1, 1)
    sums = clusters.sums(x * weights, lab, count)
    totals = clusters.sums(weights, lab, count) if weights_c is None else weights_c.reshape(-1, 1)
    return library.cast_like(clusters.ratio(sums, totals), x)


def cluster_ranges_centroids(
    x: UserArray, lab: UserArray, weights: UserArray = None, min_weight: float = 1e-9
) -> tuple[UserArray, UserArray, UserArray]:
    """Ranges (C, 2), centers (C, D) and total weights (C,) of clusters.

    Args:
        x: points (M, D).
        lab: labels (M,) from 0.
        weights: weights of the points (M,); by default 1, so that totals are counts, as floats.
        min_weight: for tensors, the least that the total weight of a cluster is taken as.

    >>> import numpy as np
    >>> ranges, _, totals = cluster_ranges_centroids(np.ones((3, 2)), np.array([0, 1, 0]))
    >>> ranges.tolist(), totals.tolist()
    ([[0, 2], [2, 3]], [2.0, 1.0])

    Raises:
        ArrayTypeError, ShapeError: what does not fit.
    """
    library, count = _library(x, "x"), _count(lab, None)
    clusters = library.clusters
    if weights is None:
        totals = library.cast_like(clusters.sizes(lab, count), x)
    else:
        totals = clusters.sums(weights.reshape(-1, 1), lab, count)[:, 0]
        totals = clusters.floored(library.cast_like(totals, weights), min_weight)
    centers = cluster_centroids(x, lab, count, weights, None if weights is None else totals)
    return cluster_ranges(lab, count), centers, totals


def from_matrix(ranges_i: UserArray, ranges_j: UserArray, keep: UserArray) -> tuple[UserArray, ...]:
    """The `ranges` of a reduction over those pairs of clusters that a table keeps.

    Args:
        ranges_i: clusters of rows i, whole numbers (C, 2), start and stop.
        ranges_j: clusters of rows j, whole numbers (E, 2).
        keep: truth values (C, E): whether cluster c of i meets cluster e of j.

    Returns:
        (ranges_i, slices_i, redranges_j, ranges_j, slices_j, redranges_i), all int64 for arrays;
        tensors of ranges keep their dtype.

    >>> import numpy as np
    >>> clusters = np.array([[0, 2], [2, 3]])
    >>> from_matrix(clusters, clusters, np.eye(2, dtype=bool))[2].tolist()
    [[0, 2], [2, 3]]

    Raises:
        DTypeError: `keep` does not hold truth values.
        ShapeError: its shape is not that of the ranges.
    """
    library = _library(keep, "keep")
    if library.dtype(keep) != "bool":
        raise DTypeError(
            "keep must hold truth values", found=f"dtype {keep.dtype}", hint="keep > 0"
        )
    wanted = (len(ranges_i), len(ranges_j))
    if tuple(keep.shape) != wanted:
        raise ShapeError(
            "keep must have a row per range of i and a column per range of j",
            found=f"shape {tuple(keep.shape)} for {wanted[0]} and {wanted[1]} ranges",
        )
    clusters = library.clusters
    ranges_i, ranges_j = clusters.whole(ranges_i), clusters.whole(ranges_j)
    slices_i, slices_j = keep.sum(1).cumsum(0), keep.sum(0).cumsum(0)
    meets_j, meets_i = clusters.chosen(ranges_j, keep), clusters.chosen(ranges_i, keep.T)
    return ranges_i, slices_i, meets_j, ranges_j, slices_j, meets_i


def swap_axes(ranges: UserArray) -> tuple[UserArray, ...] | None:
    """The ranges of the transposed table of pairs: the two halves trade places; None stays None.

    >>> swap_axes((1, 2, 3, 4, 5, 6))
    (4, 5, 6, 1, 2, 3)
    """
    return None if ranges is None else (*ranges[3:6], *ranges[:3])


def _table(name: str, array: Array) -> None:
    if len(array.shape) != 2:
        raise ShapeError(f"{name} must have shape (M, D)", found=f"shape {tuple(array.shape)}")
