"""Libraries that search nearest neighbours. Points that are searched are indexed beforehand.

Centroids are not: they change from one assignment to the next.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from benchmarks.case import MEANS, NEAR, Arrays, Case
from benchmarks.peers.base import Skip, Work, cores


def _wanted(case: Case) -> int:
    """How many neighbours the case asks for."""
    if case.group not in (NEAR, MEANS) and case.kernel not in ("squared-argmin", "squared-argkmin"):
        raise Skip
    return case.opt_arg or 1


class ScikitPeer:
    """scikit-learn, brute force."""

    def __init__(self) -> None:
        self.library = importlib.import_module("sklearn")
        self.neighbors = importlib.import_module("sklearn.neighbors")
        self.metrics = importlib.import_module("sklearn.metrics")

    def versions(self) -> dict[str, str]:
        """The version of scikit-learn."""
        return {"scikit-learn": str(self.library.__version__)}

    def prepare(self, case: Case, arrays: Arrays) -> Work:
        """Neighbours of all rows, or the assignment to centroids."""
        count, x, y = _wanted(case), arrays["x"], arrays["y"]
        if case.group == MEANS:
            return lambda: (self.metrics.pairwise_distances_argmin(x, y),)
        index = self.neighbors.NearestNeighbors(n_neighbors=count, algorithm="brute").fit(y)
        return lambda: (index.kneighbors(x, return_distance=False),)


class FaissPeer:
    """faiss, the flat index."""

    def __init__(self) -> None:
        self.faiss = importlib.import_module("faiss")
        self.faiss.omp_set_num_threads(cores())

    def versions(self) -> dict[str, str]:
        """The version of faiss."""
        return {"faiss": str(self.faiss.__version__)}

    def prepare(self, case: Case, arrays: Arrays) -> Work:
        """Neighbours of all rows, or the assignment to centroids."""
        count, x, y = _wanted(case), arrays["x"], arrays["y"]
        if case.dtype != "float32":
            raise Skip
        if case.group == MEANS:
            return lambda: (self._index(y).search(x, 1)[1],)
        index = self._index(y)
        return lambda: (index.search(x, count)[1],)

    def _index(self, y: Any) -> Any:
        index = self.faiss.IndexFlatL2(y.shape[1])
        index.add(y)
        return index


class TreePeer:
    """SciPy's tree. It does not look at all pairs, so it is shown and not compared."""

    _LARGEST = 16

    def __init__(self) -> None:
        self.scipy = importlib.import_module("scipy")
        self.spatial = importlib.import_module("scipy.spatial")

    def versions(self) -> dict[str, str]:
        """The version of SciPy."""
        return {"SciPy": str(self.scipy.__version__)}

    def prepare(self, case: Case, arrays: Arrays) -> Work:
        """Neighbours of all rows, or the assignment to centroids."""
        count, x, y = _wanted(case), arrays["x"], arrays["y"]
        if case.dims["x"] > self._LARGEST:
            raise Skip
        if case.group == MEANS:
            return lambda: (self.spatial.cKDTree(y).query(x, 1, workers=cores())[1],)
        tree = self.spatial.cKDTree(y)
        which = np.arange(1, count + 1)
        return lambda: (tree.query(x, which, workers=cores())[1],)
