"""Clusters and the ranges made of them, for NumPy arrays and torch tensors."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest

import pairfold
from pairfold import cluster
from pairfold.errors import ArrayTypeError, DTypeError, ShapeError

Array = Any
LIBRARIES = ["numpy", "torch"]
library = pytest.mark.parametrize("library", LIBRARIES)


def array(library: str, values: Any) -> Any:
    """Values as an array of a library."""
    found = np.asarray(values)
    if library == "torch":
        return pytest.importorskip("torch").from_numpy(found.copy())
    return found


def numbers(found: Any) -> Array:
    return np.asarray(found)


def dtype(found: Any) -> str:
    return str(found.dtype).removeprefix("torch.")


@library
def test_the_module_is_in_every_place(library: str) -> None:
    pytest.importorskip(library)
    assert importlib.import_module(f"pairfold.{library}").cluster is cluster
    assert pairfold.cluster is cluster


# -- labels ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize("per_coordinate", [False, True])
@library
def test_labels_are_ranks_of_cells(library: str, per_coordinate: bool, dim: int) -> None:
    x = np.random.default_rng(dim).normal(size=(211, dim))
    size = np.linspace(0.5, 0.9, dim) if per_coordinate else 0.7
    lab = cluster.grid_cluster(array(library, x), array(library, size) if dim == 2 else size)
    assert dtype(lab) == {"numpy": "int64", "torch": "int32"}[library]
    origin = x.min(0) if library == "torch" else 0
    cells = [tuple(cell) for cell in np.floor((x - origin) / size).astype(int)]
    order = {cell: n for n, cell in enumerate(sorted(set(cells)))}
    assert numbers(lab).tolist() == [order[cell] for cell in cells]


@library
def test_grids_of_other_dimensions_are_refused(library: str) -> None:
    for dim in (0, 4):
        with pytest.raises(NotImplementedError, match="1, 2 or 3"):
            cluster.grid_cluster(array(library, np.ones((5, dim))), 1.0)
    with pytest.raises(ShapeError):
        cluster.grid_cluster(array(library, np.ones(5)), 1.0)
    with pytest.raises(ArrayTypeError):
        cluster.grid_cluster([[1.0]], 1.0)


@library
def test_labels_carry_no_gradient_and_may_be_of_no_points(library: str) -> None:
    assert cluster.grid_cluster(array(library, np.ones((0, 2))), 1.0).shape == (0,)
    if library == "torch":
        x = array(library, np.ones((3, 2))).requires_grad_()
        assert not cluster.grid_cluster(x, 0.5).requires_grad


# -- sorting and sizes -----------------------------------------------------------------------------

LABELS = [3, 0, 3, 1, 0, 3, 5]


@pytest.mark.parametrize("kind", [tuple, list])
@library
def test_sorting_keeps_the_type_and_the_order_within_labels(library: str, kind: type) -> None:
    lab = array(library, LABELS)
    x = array(library, np.arange(14.0).reshape(7, 2))
    w = array(library, np.arange(7.0))
    order = [1, 4, 3, 0, 2, 5, 6]
    alone, sorted_lab = cluster.sort_clusters(x, lab)
    assert numbers(sorted_lab).tolist() == sorted(LABELS)
    assert numbers(alone)[:, 0].tolist() == [2.0 * k for k in order]
    several, _ = cluster.sort_clusters(kind([x, w]), lab)
    assert type(several) is kind
    assert numbers(several[0]).tolist() == numbers(alone).tolist()
    assert numbers(several[1]).tolist() == order


@library
def test_ranges_of_clusters_are_where_sorted_points_lie(library: str) -> None:
    lab = array(library, np.array(LABELS, "int32"))
    found = cluster.cluster_ranges(lab)
    assert dtype(found) == "int64"
    assert numbers(found).tolist() == [[0, 2], [2, 3], [3, 3], [3, 6], [6, 6], [6, 7]]
    assert numbers(cluster.cluster_ranges(lab, 8))[6:].tolist() == [[7, 7], [7, 7]]
    assert cluster.cluster_ranges(lab[:0]).shape == (0, 2)


@pytest.mark.parametrize("kind", ["float32", "float64"])
@library
def test_centers_are_means(library: str, kind: str) -> None:
    rng = np.random.default_rng(0)
    lab = rng.integers(0, 9, 211)
    lab[lab == 4] = 5
    x, w = rng.normal(size=(211, 3)).astype(kind), rng.uniform(0.5, 2, 211).astype(kind)
    mine = (array(library, x), array(library, lab))
    with np.errstate(invalid="ignore"):
        want = np.stack([x[lab == k].sum(0) / (lab == k).sum() for k in range(9)])
        heavy = np.stack([(x * w[:, None])[lab == k].sum(0) / w[lab == k].sum() for k in range(9)])
    eps = 100 * np.finfo(kind).eps
    for found, expected in (
        (cluster.cluster_centroids(*mine), want),
        (cluster.cluster_centroids(*mine, weights=array(library, w)), heavy),
    ):
        assert dtype(found) == kind
        assert np.isnan(numbers(found)[4]).all()
        np.testing.assert_allclose(numbers(found), expected, rtol=eps, atol=eps)
    totals = array(library, np.full(9, 2.0, kind))
    found = cluster.cluster_centroids(*mine, 9, array(library, w), totals)
    sums = np.stack([(x * w[:, None])[lab == k].sum(0) / 2 for k in range(9)])
    np.testing.assert_allclose(numbers(found), sums, rtol=eps, atol=eps)


@library
def test_ranges_centers_and_weights_together(library: str) -> None:
    lab = array(library, [0, 2, 0])
    x = array(library, np.array([[1.0], [5.0], [3.0]], "float32"))
    ranges, centers, totals = cluster.cluster_ranges_centroids(x, lab)
    assert numbers(ranges).tolist() == [[0, 2], [2, 2], [2, 3]]
    assert dtype(totals) == "float32"
    assert numbers(totals).tolist() == [2, 0, 1]
    assert numbers(centers)[[0, 2], 0].tolist() == [2, 5]
    w = array(library, np.array([1.0, 2.0, 3.0], "float32"))
    _, centers, totals = cluster.cluster_ranges_centroids(x, lab, w)
    least = {"numpy": 0.0, "torch": 1e-9}[library]
    np.testing.assert_allclose(numbers(totals), [4, least, 2], rtol=1e-6)
    np.testing.assert_allclose(numbers(centers)[[0, 2], 0], [2.5, 5])
    assert np.isnan(numbers(centers)[1, 0]) == (library == "numpy")


def test_centers_of_tensors_are_differentiable() -> None:
    torch = pytest.importorskip("torch")
    x = torch.rand(7, 2, dtype=torch.float64, requires_grad=True)
    w = torch.rand(7, dtype=torch.float64, requires_grad=True)
    lab = torch.tensor([0, 1, 1, 0, 2, 2, 2], dtype=torch.int32)

    def centers(x: Any, w: Any) -> Any:
        return cluster.cluster_centroids(x, lab, weights=w)

    assert torch.autograd.gradcheck(centers, (x, w))


# -- ranges ----------------------------------------------------------------------------------------


@library
def test_the_example_of_the_documentation(library: str) -> None:
    ranges_i, ranges_j = [[0, 2], [2, 3]], [[0, 1], [1, 4], [4, 6]]
    keep = array(library, np.array([[1, 0, 1], [0, 0, 1]], bool))
    found = cluster.from_matrix(array(library, ranges_i), array(library, ranges_j), keep)
    assert [numbers(part).tolist() for part in found] == [
        ranges_i,
        [2, 3],
        [[0, 1], [4, 6], [4, 6]],
        ranges_j,
        [1, 1, 3],
        [[0, 2], [0, 2], [2, 3]],
    ]
    swapped = cluster.swap_axes(found)
    assert all(a is b for a, b in zip(swapped, (*found[3:], *found[:3]), strict=True))
    assert cluster.swap_axes(None) is None


@library
def test_dtypes_of_ranges(library: str) -> None:
    small = array(library, np.array([[0, 2], [2, 3]], "int32"))
    found = cluster.from_matrix(small, small, array(library, np.eye(2, dtype=bool)))
    kept = {"numpy": "int64", "torch": "int32"}[library]
    assert [dtype(part) for part in found] == [kept, "int64", kept] * 2


@library
def test_a_wrong_table_is_refused(library: str) -> None:
    ranges = array(library, [[0, 2], [2, 3]])
    with pytest.raises(DTypeError, match="truth values"):
        cluster.from_matrix(ranges, ranges, array(library, np.eye(2)))
    with pytest.raises(ShapeError, match="keep"):
        cluster.from_matrix(ranges, ranges, array(library, np.ones((2, 3), bool)))


@library
def test_from_points_to_a_sparse_reduction(library: str) -> None:
    pytest.importorskip(library)
    genred = importlib.import_module(f"pairfold.{library}").Genred(
        "Exp(-SqDist(x,y))", ["x = Vi(2)", "y = Vj(2)"], axis=1
    )
    rng = np.random.default_rng(1)
    clouds = [array(library, rng.uniform(0, 9, (size, 2))) for size in (307, 401)]
    parts: list[Any] = []
    for cloud in clouds:
        lab = cluster.grid_cluster(cloud, 1.0)
        ranges, centers, _ = cluster.cluster_ranges_centroids(cloud, lab)
        cloud, lab = cluster.sort_clusters(cloud, lab)
        parts.append((cloud, numbers(lab), ranges, centers))
    (x, lab_x, ranges_x, c_x), (y, lab_y, ranges_y, c_y) = parts
    keep = ((c_x[:, None] - c_y[None]) ** 2).sum(-1) < 12.0
    ranges = cluster.from_matrix(ranges_x, ranges_y, keep)
    table = np.exp(-((numbers(x)[:, None] - numbers(y)) ** 2).sum(-1))
    left = numbers(keep)[lab_x][:, lab_y]
    assert 0 < left.sum() < 0.5 * left.size
    got = numbers(genred(x, y, ranges=ranges))[:, 0]
    np.testing.assert_allclose(got, (table * left).sum(1), rtol=1e-12)
    np.testing.assert_allclose(got, table.sum(1), rtol=0.05)


def test_the_module_of_clusters_can_be_imported_from():
    names = importlib.import_module("pairfold.cluster").__all__
    assert sorted(names) == [
        "cluster_centroids", "cluster_ranges", "cluster_ranges_centroids", "from_matrix",
        "grid_cluster", "sort_clusters", "swap_axes",
    ]  # fmt: skip
    for name in names:
        assert getattr(pairfold.cluster, name).__module__ == "pairfold.frontends.cluster"
