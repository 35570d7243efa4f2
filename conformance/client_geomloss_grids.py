"""geomloss on grids, and its new solver for samples: part of `client_geomloss.py`.

geomloss 0.3 has no dense computation on grids: the truth is geomloss with dense torch in the place
of its function `softmin_grid`, or of its LazyTensors.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import geomloss
import numpy as np
import torch
from client_report import DTYPES, Row, spread
from geomloss import _backends, ot
from geomloss._legacy import sinkhorn_images, utils, wasserstein_barycenter_images

EXACT = {"float64": 1e-10, "float32": 5e-5}


def along(table: torch.Tensor, axis: int, kernel: torch.Tensor) -> torch.Tensor:
    """log sum_j e^(kernel[i, j] + table[..., j, ...]) along one axis."""
    moved = table.movedim(axis, -1)
    return (moved[..., None, :] + kernel).logsumexp(-1).movedim(-1, axis)


def dense_softmin(eps: float, p: int, heights: torch.Tensor) -> torch.Tensor:
    """What geomloss' `softmin_grid` computes, without KeOps."""
    side = heights.shape[-1]
    x = torch.arange(side).type_as(heights) / side
    gap = x[:, None] - x[None, :]
    kernel = -gap.abs() / eps if p == 1 else -(gap**2) / (2 * eps)
    for axis in range(2, heights.dim()):
        heights = along(heights, axis, kernel)
    return -eps * heights


def densely(run: Callable[..., Any]) -> Callable[..., Any]:
    """A computation on grids with `dense_softmin`."""

    def done(*inputs: torch.Tensor) -> Any:
        with (
            mock.patch.object(sinkhorn_images, "softmin_grid", dense_softmin),
            mock.patch.object(wasserstein_barycenter_images, "softmin", dense_softmin),
        ):
            return run(*inputs)

    return done


def densities(number: int, *shape: int) -> torch.Tensor:
    """Images, or volumes, of mass 1."""
    found = 0.05 + spread(number, *shape) ** 3
    axes = tuple(range(2, len(shape)))
    return found / found.sum(axes, keepdim=True)


def images() -> Iterator[Row]:
    """Sinkhorn divergences of images and volumes: `geomloss.sinkhorn_divergence`."""
    what = "geomloss with dense torch for softmin_grid"
    row = Row("geomloss", "images and volumes", what, EXACT)
    turn = itertools.count()
    for shape in ((1, 1, 16, 16), (2, 3, 8, 8), (1, 2, 8, 8, 8)):
        given = [densities(5, *shape), densities(6, *shape)]
        for p in (1, 2):
            # geomloss wants blurs of one to two pixels, the default being one
            for blur, reach in ((None, None), (1.5 / shape[-1], None), (1.2 / shape[-1], 0.4)):
                for debias in (True, False):
                    k = next(turn)
                    options: dict[str, Any] = {"p": p, "blur": blur, "reach": reach}
                    options |= {"debias": debias, "potentials": bool(k // 2 % 2)}
                    options["scaling"] = (0.5, 0.7)[k // 3 % 2]

                    def run(*inputs: Any, chosen: Any = options) -> Any:
                        return geomloss.sinkhorn_divergence(*inputs, **chosen)

                    row.cases_of(f"{options} {shape}", run, densely(run), given)
    yield row
    row = Row("geomloss", "ImagesBarycenter", what, EXACT)
    given = [densities(7, 2, 3, 16, 16), torch.tensor([[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]]).double()]
    for backward in (0, 2, 5):
        for blur in (0, 0.1):

            def barycenter(*inputs: Any, backward: int = backward, blur: float = blur) -> Any:
                return geomloss.ImagesBarycenter(
                    *inputs, blur=blur, scaling_N=4, backward_iterations=backward
                )

            row.cases_of(f"{backward=} {blur=}", barycenter, densely(barycenter), given)
    yield row


def hard_transforms() -> Iterator[Row]:
    """`C_transform`: max over j of g_j - |x_i - x_j|^2 / 2 tau, axis by axis."""
    row = Row("geomloss", "C_transform (max, no gradient)", "dense torch", EXACT)
    for dim, side in ((1, 23), (2, 9), (3, 6)):
        for tau in (0.5, 3.0):

            def dense(g: torch.Tensor, tau: float = tau) -> torch.Tensor:
                x = torch.arange(g.shape[-1]).type_as(g)
                kernel = (x[:, None] - x[None, :]) ** 2 / (2 * tau)
                for axis in range(1, g.dim()):
                    g = (g.movedim(axis, -1)[..., None, :] - kernel).amax(-1).movedim(-1, axis)
                return g.detach()

            def fast(g: torch.Tensor, tau: float = tau) -> torch.Tensor:
                return utils.C_transform(g.detach(), tau=tau)

            row.cases_of(f"{dim}d {tau=}", fast, dense, [9 * spread(8, 2, *[side] * dim)])
    yield row


def solutions(library: str) -> Callable[..., Any]:
    """Values, potentials, marginals and transport plans of `ot.solve_sample`."""

    def run(a: Any, x: Any, b: Any, y: Any, **options: Any) -> Any:
        given = [a, x, b, y]
        if library == "numpy":
            given = [part.detach().numpy() for part in given]
        weights_a, x, weights_b, y = given
        found = ot.solve_sample(x, y, a=weights_a, b=weights_b, **options)
        moved = found.lazy_plan @ y if found.lazy_plan is not None else found.plan @ y
        back = found.density_operator.T @ x
        parts = [found.value, found.potential_a, found.potential_b, found.plan, moved, back]
        return [torch.as_tensor(np.asarray(v)) if library == "numpy" else v for v in parts]

    return run


def samples() -> Iterator[Row]:
    """The solver for samples of geomloss' new interface, with NumPy and with torch."""
    for library in ("torch", "numpy"):
        run = solutions(library)
        row = Row("geomloss", f"ot.solve_sample, {library}", "its dense cost matrices", EXACT)
        for blur, reach in ((0.1, None), (0.3, None), (0.3, 0.5)):
            for debias in (False, True):
                options: dict[str, Any] = {"blur": blur, "reach": reach, "debias": debias}
                options["max_iter"] = 30

                def fast(*inputs: Any, chosen: Any = options, run: Any = run) -> Any:
                    return run(*inputs, **chosen)

                def slow(*inputs: Any, fast: Any = fast) -> Any:
                    with mock.patch.object(_backends, "keops_available", False):
                        return fast(*inputs)

                a, b = 0.1 + spread(1, 17), 0.1 + spread(2, 23)
                given = [a / a.sum(), spread(3, 17, 2), b / b.sum(), spread(4, 23, 2)]
                # NumPy 2 makes geomloss' dampened float32 potentials float64, and geomloss joins
                # them with costs in float32, which PyKeOps refuses as we do.
                mixed = library == "numpy" and reach is not None
                row.cases_of(f"{options}", fast, slow, given, DTYPES[:1] if mixed else DTYPES)
        yield row


def grid_checks() -> tuple[Callable[[], Iterator[Row]], ...]:
    """The checks of this file."""
    return images, hard_transforms, samples
