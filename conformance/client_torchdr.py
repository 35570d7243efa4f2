"""TorchDR on pairfold: its KeOps backend against its dense one.

Started by `clients.py` in an environment with TorchDR and the package `pykeops` of pairfold.

Affinities and embeddings are computed by iterations, which TorchDR ends after a number of rounds
that is set here: no rounding error then decides about their number. Embeddings whose iterations
amplify rounding errors (UMAP's random neighbours: a change of the data by 1e-13 moves points by
their distances) are not compared, and the others in float64 only. Nor are gradients of Euclidean
distances: where a point meets itself, dense torch's are NaN, and KeOps' are 0.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torchdr
from client_report import Row, emit, spread
from pykeops.torch import LazyTensor
from torchdr.distance import LIST_METRICS_KEOPS, pairwise_distances

EXACT = {"float64": 1e-10, "float32": 2e-5}
SIZE, DIM = 117, 5
AFFINITIES: dict[str, dict[str, Any]] = {
    "GaussianAffinity": {},
    "StudentAffinity": {},
    "NormalizedGaussianAffinity": {},
    "NormalizedStudentAffinity": {},
    "SelfTuningAffinity": {},
    "MAGICAffinity": {},
    "SinkhornAffinity": {"max_iter": 20},
    "DoublyStochasticQuadraticAffinity": {"max_iter": 20},
    "EntropicAffinity": {"perplexity": 10, "sparsity": False},
    "UMAPAffinity": {"n_neighbors": 10, "sparsity": False},
}
EMBEDDINGS: dict[str, dict[str, Any]] = {
    "SNE": {"perplexity": 10, "max_iter": 10},
    "TSNE": {"perplexity": 10, "max_iter": 10},
    "LargeVis": {"perplexity": 10, "max_iter": 10},
    "InfoTSNE": {"perplexity": 10, "max_iter": 10},
}


def points() -> torch.Tensor:
    """Two clouds."""
    x = spread(3, SIZE, DIM)
    x[SIZE // 2 :] += 1.5
    return x


def dense(found: Any) -> torch.Tensor:
    """A matrix as its entries: a lazy one times the identity."""
    found = found[0] if isinstance(found, tuple) else found
    if isinstance(found, LazyTensor):
        like = found.variables[0]
        return found @ torch.eye(found.shape[1], dtype=like.dtype)
    return found


def distances(backend: str | None, x: torch.Tensor, **options: Any) -> Any:
    """Distances, all of them or those of the nearest."""
    x = x.detach() if options["metric"] == "euclidean" else x
    return dense(pairwise_distances(x, backend=backend, **options))


def affinity(backend: str | None, x: torch.Tensor, name: str, options: dict[str, Any]) -> Any:
    """A matrix of affinities."""
    return dense(getattr(torchdr, name)(backend=backend, **options)(x.detach()))


def embedding(backend: str | None, x: torch.Tensor, name: str, options: dict[str, Any]) -> Any:
    """Points in the plane, after a few rounds from the same start."""
    model = getattr(torchdr, name)(backend=backend, random_state=0, init="pca", **options)
    return torch.as_tensor(model.fit_transform(x.detach()))


def row(check: str, *dtypes: str) -> Row:
    """A row of the table."""
    limits = {name: limit for name, limit in EXACT.items() if name in (dtypes or EXACT)}
    return Row("torchdr", check, "backend=None", limits)


def compared(found: Row, label: str, run: Callable[..., Any], **options: Any) -> None:
    """The same with KeOps and without, in both dtypes."""
    found.cases_of(
        label,
        functools.partial(run, "keops", **options),
        functools.partial(run, None, **options),
        [points()],
    )


def rows() -> Iterator[Row]:
    """All checks."""
    found = row("distances")
    for metric in LIST_METRICS_KEOPS:
        for excluded in (True,) if metric == "euclidean" else (False, True):
            compared(found, metric, distances, metric=metric, exclude_diag=excluded)
    yield found
    found = row("distances of the 7 nearest")
    for metric in LIST_METRICS_KEOPS:
        compared(found, metric, distances, metric=metric, k=7, exclude_diag=True)
    yield found
    found = row("affinities")
    for name, options in AFFINITIES.items():
        if hasattr(torchdr, name):
            compared(found, name, affinity, name=name, options=options)
    yield found
    found = row("embeddings, 10 rounds", "float64")
    for name, options in EMBEDDINGS.items():
        compared(found, name, embedding, name=name, options=options)
    yield found


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    emit(rows(), {"torchdr": str(torchdr.__version__)})
