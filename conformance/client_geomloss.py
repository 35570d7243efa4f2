"""geomloss on pairfold: every loss and backend against geomloss' own dense computation.

Started by `clients.py` in an environment with geomloss and the package `pykeops` of pairfold.

Two things make geomloss' backends differ among themselves, so that a comparison to rounding has to
avoid them:

* "tensorized" replaces distances below 1e-4 by 1e-4 (`clamp_min(1e-8)` of the square); "online"
  does not. `cost=` and `kernel=`, which geomloss offers, give it distances without that.
* "online" and "multiscale" round 1 / eps to float32 (`torch.Tensor([1 / eps])`), "tensorized" does
  not. With a diameter of 2, a scaling of 1/2 and blurs that are powers of 2 nothing is rounded.

Both are then compared as they are, too, with limits that follow from the two.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import geomloss
import torch
from client_report import Row, emit, spread
from geomloss import SamplesLoss
from geomloss._legacy import kernel_samples, sinkhorn_samples

EXACT = {"float64": 1e-10, "float32": 5e-5}
KERNELS = ("gaussian", "laplacian", "energy")


# -- dense truths ----------------------------------------------------------------------------------


def plain_distance(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Distances of points; their gradient at coinciding points is 0, as KeOps has it."""
    return torch.linalg.vector_norm(x[..., :, None, :] - y[..., None, :, :], dim=-1)


def half_square(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Half the squared distances."""
    return ((x[..., :, None, :] - y[..., None, :, :]) ** 2).sum(-1) / 2


COSTS: dict[int, Callable[..., torch.Tensor]] = {1: plain_distance, 2: half_square}
FORMULAS = {formula: COSTS[p] for p, formula in sinkhorn_samples.cost_formulas.items()}


def mask(ranges: Any, rows: int, columns: int) -> torch.Tensor:
    """Which pairs ranges keep: block k of rows meets the intervals up to slices[k]."""
    kept = torch.zeros(rows, columns, dtype=torch.bool)
    begin = 0
    for (first, last), end in zip(ranges[0].tolist(), ranges[1].tolist(), strict=True):
        for start, stop in ranges[2][begin:end].tolist():
            kept[first:last, start:stop] = True
        begin = end
    return kept


def dense_lse(cost: str, *_: Any, **__: Any) -> Callable[..., torch.Tensor]:
    """What geomloss' `keops_lse` and `lse_genred` make, without KeOps."""

    def lse(
        x: torch.Tensor, y: torch.Tensor, h: torch.Tensor, scale: torch.Tensor, ranges: Any = None
    ) -> torch.Tensor:
        heights = h.reshape(1, -1) - scale * FORMULAS[cost](x, y)
        if ranges is not None:
            heights = heights.masked_fill(~mask(ranges, *heights.shape), -torch.inf)
        return heights.logsumexp(-1, keepdim=True)

    return lse


@contextlib.contextmanager
def dense() -> Iterator[None]:
    """geomloss with these functions in the place of its calls of KeOps: for the truth alone."""
    with (
        mock.patch.object(sinkhorn_samples, "keops_lse", dense_lse),
        mock.patch.object(sinkhorn_samples, "lse_genred", dense_lse),
    ):
        yield


def densely(run: Callable[..., Any]) -> Callable[..., Any]:
    """A computation with `dense` functions."""

    def done(*inputs: torch.Tensor) -> Any:
        with dense():
            return run(*inputs)

    return done


def dense_kernel(name: str) -> Callable[..., torch.Tensor]:
    """A kernel for geomloss' `kernel=`: a dense matrix, without clamped distances."""

    def kernel(
        x: torch.Tensor, y: torch.Tensor, blur: float = 1, ranges: Any = None, **_: Any
    ) -> torch.Tensor:
        scale = 1 if name == "energy" else blur
        if name == "gaussian":
            table = (-half_square(x / scale, y / scale)).exp()
        else:
            far = plain_distance(x / scale, y / scale)
            table = -far if name == "energy" else (-far).exp()
        return table if ranges is None else table * mask(ranges, *table.shape[-2:])

    return kernel


# -- data ------------------------------------------------------------------------------------------


def clouds(rows: int, columns: int, dim: int, batch: tuple[int, ...] = ()) -> list[torch.Tensor]:
    """Weights and points of two measures, as SamplesLoss takes them; all weights sum to 1."""
    a, b = 0.1 + spread(1, *batch, rows), 0.1 + spread(2, *batch, columns)
    x, y = spread(3, *batch, rows, dim), 0.8 * spread(4, *batch, columns, dim) + 0.2
    return [a / a.sum(-1, keepdim=True), x, b / b.sum(-1, keepdim=True), y]


def loss(name: str, backend: str, **options: Any) -> Callable[..., Any]:
    """A SamplesLoss as a function; a value without batch as a number.

    Without batches, values have shape () or (1,) and potentials (N,) or (1, N), by the backend.
    """
    chosen = SamplesLoss(name, backend=backend, **options)

    def run(*inputs: torch.Tensor) -> Any:
        found = chosen(*inputs)
        parts = found if isinstance(found, tuple) else (found,)
        return [part.reshape(-1) for part in parts] if inputs[-1].dim() == 2 else list(parts)

    return run


def described(**options: Any) -> str:
    """Options as text, without functions."""
    return " ".join(f"{k}={v}" for k, v in options.items() if not callable(v))


# -- Sinkhorn --------------------------------------------------------------------------------------

SWITCHES = [
    {"debias": debias, "potentials": potentials, "reach": reach}
    for debias in (True, False)
    for potentials in (False, True)
    for reach in (None, 0.5)
]
DYADIC = {"diameter": 2, "scaling": 0.5}


SHAPES: list[tuple[int, tuple[int, ...]]] = [(1, ()), (2, ()), (3, ()), (3, (1,)), (2, (3,))]


def online() -> Iterator[Row]:
    """backend="online" against "tensorized"."""
    row = Row("geomloss", "sinkhorn, online", "tensorized, exact distances", EXACT)
    turn = itertools.count()
    for p, cost in COSTS.items():
        for blur in (0.5, 0.125, 0.0625):
            for switches in SWITCHES:
                k = next(turn)
                for dim, batch in (SHAPES[k % 5], SHAPES[(k + 2) % 5]):
                    options: dict[str, Any] = {"p": p, "blur": blur, **switches, **DYADIC}
                    row.cases_of(
                        f"{described(**options)} dim={dim} batch={batch}",
                        loss("sinkhorn", "online", **options),
                        loss("sinkhorn", "tensorized", cost=cost, **options),
                        clouds(17, 23, dim, batch),
                    )
    yield row
    # 1 / eps is rounded by up to 2^-24 of itself, so costs of up to 1.5 are wrong by 1e-7, with
    # values near 1e-2: 1e-5. Of gradients by small blurs: 1e-7 * 1.5 / eps = 6e-5 of themselves.
    row = Row("geomloss", "sinkhorn, online, as it is", "tensorized", {"float64": 2e-4})
    for blur in (0.05, 0.1, 0.3, 1.0):
        for switches in SWITCHES:
            options = {"p": 2, "blur": blur, **switches}
            row.cases_of(
                described(**options),
                loss("sinkhorn", "online", **options),
                loss("sinkhorn", "tensorized", **options),
                clouds(17, 23, 3),
            )
    yield row


def online_rounded() -> Iterator[Row]:
    """Any temperatures and formulas of costs, against dense sums of the same rounded numbers."""
    what = "geomloss with dense torch for generic_logsumexp"
    row = Row("geomloss", "sinkhorn, online, any temperature", what, EXACT)
    for p in COSTS:
        for blur in (0.05, 0.1, 0.3, 1.0):
            for k, switches in enumerate(SWITCHES):
                options: dict[str, Any] = {"p": p, "blur": blur, **switches}
                options["scaling"] = (0.5, 0.8)[(k + p) % 2]
                run = loss("sinkhorn", "online", **options)
                row.cases_of(described(**options), run, densely(run), clouds(17, 23, 3))
    yield row
    row = Row("geomloss", "sinkhorn, online, cost=formula", "tensorized, cost=function", EXACT)
    costs: dict[str, Callable[..., torch.Tensor]] = {
        "(IntCst(1) - (X|Y) / (Norm2(X) * Norm2(Y)))": lambda x, y: (
            1 - torch.nn.functional.cosine_similarity(x[..., :, None, :], y[..., None, :, :], -1)
        ),
        "Sum(Abs(X - Y))": lambda x, y: (x[..., :, None, :] - y[..., None, :, :]).abs().sum(-1),
        "Square(SqDist(X,Y))": lambda x, y: 4 * half_square(x, y) ** 2,
    }
    for formula, function in costs.items():
        for switches in SWITCHES:
            options = {"p": 2, "blur": 0.25, **switches, **DYADIC}
            row.cases_of(
                f"{formula} {described(**options)}",
                loss("sinkhorn", "online", cost=formula, **options),
                loss("sinkhorn", "tensorized", cost=function, **options),
                clouds(17, 23, 3),
            )
    yield row


def multiscale() -> Iterator[Row]:
    """backend="multiscale": coarse sums of clusters, then fine sums of the blocks that matter."""
    what = "geomloss with dense, masked torch for generic_logsumexp"
    row = Row("geomloss", "sinkhorn, multiscale", what, EXACT)
    turn = itertools.count()
    for dim, rows, columns in ((1, 217, 323), (2, 217, 323), (3, 170, 230)):
        for p in COSTS:
            for truncate in (None, 5, 1):
                for scale in (None, 0.15):
                    for k in (next(turn) % 8, next(turn) % 8, next(turn) % 8):
                        options: dict[str, Any] = {"p": p, "blur": (0.05, 0.2)[k % 2]}
                        options |= SWITCHES[k]
                        options |= {"truncate": truncate, "cluster_scale": scale}
                        run = loss("sinkhorn", "multiscale", **options)
                        label = f"{described(**options)} {dim}d"
                        row.cases_of(
                            label, run, densely(run), clouds(rows, columns, dim), alone(options)
                        )
    yield row
    yield labelled(what)
    yield converged()


def converged() -> Row:
    """Where no trace of the coarse start is left: at the fixed point of Sinkhorn's iteration.

    By a blur as wide as the data, and temperatures that fall slowly, it is reached but for the
    last of them, behind which potentials lag by parts in 1e9, and values by squares of that.
    Potentials, and so gradients of weights, are fixed up to a constant only: the weights are scaled
    to sum 1 before.
    """
    limits = {**EXACT, "float64": 1e-8}
    row = Row("geomloss", "sinkhorn, multiscale, converged", "tensorized", limits)
    for dim in (1, 2, 3):
        for debias in (True, False):
            options = {"p": 2, "blur": 0.5, "scaling": 0.99, "debias": debias}
            coarse = loss("sinkhorn", "multiscale", truncate=None, cluster_scale=0.7, **options)
            row.cases_of(
                f"{described(**options)} {dim}d",
                scaled(coarse),
                scaled(loss("sinkhorn", "tensorized", **options)),
                clouds(217, 323, dim),
            )
    return row


def scaled(run: Callable[..., Any]) -> Callable[..., Any]:
    """A computation on weights of sum 1."""

    def done(a: torch.Tensor, x: torch.Tensor, b: torch.Tensor, y: torch.Tensor) -> Any:
        return run(a / a.sum(), x, b / b.sum(), y)

    return done


def alone(options: dict[str, Any]) -> tuple[str, ...]:
    """Dtypes of a multiscale case.

    The centroid of a cluster of one point differs from it by rounding. With p = 1 and `debias`,
    geomloss' gradient has the direction of that difference, which float32 does not share with
    float64.
    """
    return ("float64",) if options["p"] == 1 and options["debias"] else ("float64", "float32")


def labelled(what: str) -> Row:
    """Clusters given by the caller, in six arguments."""
    row = Row("geomloss", "sinkhorn, multiscale, labels", what, EXACT)
    given = clouds(217, 323, 2)
    labels = [(x > 0.5).long() @ torch.tensor([1, 2]) for x in (given[1], given[3])]
    for p in COSTS:
        for k, switches in enumerate(SWITCHES):
            options: dict[str, Any] = {"p": p, "blur": (0.05, 0.2)[k % 2], **switches}
            options |= {"cluster_scale": 0.5, "truncate": 3}
            chosen = loss("sinkhorn", "multiscale", **options)

            def run(*inputs: torch.Tensor, chosen: Any = chosen) -> Any:
                a, x, b, y = inputs
                return chosen(labels[0], a, x, labels[1], b, y)

            row.cases_of(described(**options), run, densely(run), given, alone(options))
    return row


# -- kernels ---------------------------------------------------------------------------------------


def kernels() -> Iterator[Row]:
    """The losses that are norms of kernels, and "hausdorff", which takes its kernel from us."""
    for name in KERNELS:
        own = getattr(kernel_samples, f"{name}_kernel")
        row = Row("geomloss", f"{name}, online and multiscale", "tensorized, exact", EXACT)
        other = Row("geomloss", f"hausdorff, kernel={name}", "tensorized, exact", EXACT)
        for backend, truncate in (("online", 5), ("multiscale", None), ("multiscale", 60)):
            for blur in (0.05, 0.3, 1.0):
                for potentials in (False, True):
                    for dim, batch in ((1, ()), (3, ()), (3, (1,)), (2, (3,))):
                        if backend == "multiscale" and (batch or (potentials and truncate)):
                            continue  # no batches there; potentials in the order of clusters
                        options = {"blur": blur, "potentials": potentials, "truncate": truncate}
                        label = f"{backend} {described(**options)} dim={dim} batch={batch}"
                        given = clouds(17, 23, dim, batch)
                        fast = loss(name, backend, **options)
                        exact = loss(name, "tensorized", kernel=dense_kernel(name), **options)
                        row.cases_of(label, fast, exact, given)
                        if blur == 0.3:
                            fast = loss("hausdorff", backend, kernel=own, **options)
                            other.cases_of(label, fast, exact, given)
        yield row
        yield other


def truncated_kernels() -> Iterator[Row]:
    """Kernels with blocks left out, against dense matrices with the same blocks left out."""
    row = Row("geomloss", "kernels, multiscale, truncated", "dense, masked kernel=", EXACT)
    turn = itertools.count()
    near = Row("geomloss", "gaussian, multiscale, truncate=5", "tensorized", {"float64": 1e-4})
    for dim, rows, columns in ((1, 217, 323), (2, 217, 323), (3, 170, 230)):
        given = clouds(rows, columns, dim)
        for name in KERNELS[:2]:
            for blur in (0.02, 0.1, 0.3):
                for truncate in (0.5, 2, 5):
                    options: dict[str, Any] = {"blur": blur, "potentials": bool(next(turn) % 2)}
                    options |= {"truncate": truncate, "cluster_scale": 0.5}
                    fast = loss(name, "multiscale", **options)
                    slow = loss(name, "multiscale", kernel=dense_kernel(name), **options)
                    row.cases_of(f"{name} {described(**options)} {dim}d", fast, slow, given)
        # Blocks are left out where centroids are further apart than 5 + d, d the diameter of a
        # cluster, so points by more than 5 - d = 4.8: e^(-4.8^2 / 2) = 1e-5 of each pair at most.
        for blur in (0.05, 0.1):
            options = {"blur": blur, "truncate": 5, "cluster_scale": 0.1}
            fast = loss("gaussian", "multiscale", **options)
            near.cases_of(
                f"{described(**options)} {dim}d",
                fast,
                loss("gaussian", "tensorized", blur=blur),
                given,
            )
    yield row
    yield near


def clamped() -> Iterator[Row]:
    """Distances as "tensorized" has them: at least 1e-4, so 1e-4 instead of 0 on diagonals."""
    # It moves (half the sum of a_i^2) 1e-4 < 1e-5 of values near 1e-2, more with small blurs.
    row = Row("geomloss", "distances, online, as it is", "tensorized", {"float64": 1e-2})
    given = clouds(17, 23, 3)
    for blur in (0.1, 0.3, 1.0):
        for name in ("laplacian", "energy", "sinkhorn"):
            options = {"p": 1, "blur": blur}
            fast, slow = (loss(name, b, **options) for b in ("online", "tensorized"))
            row.cases_of(f"{name} {described(**options)}", fast, slow, given)
    yield row


def hausdorff_alone() -> Iterator[Row]:
    """Without `kernel`, "hausdorff" of geomloss 0.3 has none: every backend raises KeyError."""
    row = Row("geomloss", "hausdorff, no kernel: KeyError", "every backend", {"float64": 0.0})
    for backend in ("tensorized", "online", "multiscale"):
        row.cases += 1
        try:
            loss("hausdorff", backend)(*clouds(17, 23, 2))
        except KeyError:
            row.errors["float64"] = [0.0, 0.0]
        else:
            row.failed.append(f"{backend} computes something")
    yield row


def main() -> None:
    """Run every check."""
    from client_geomloss_grids import grid_checks

    assert sinkhorn_samples.keops_available
    parts = (online, online_rounded, multiscale, kernels, truncated_kernels, clamped)
    checks = (part() for part in (*parts, hausdorff_alone, *grid_checks()))
    emit(itertools.chain.from_iterable(checks), {"geomloss": geomloss.__version__})


if __name__ == "__main__":
    main()
