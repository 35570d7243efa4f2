"""gpytorch on pairfold: its KeOps kernels and Gaussian processes against dense ones.

Started by `clients.py` in an environment with gpytorch and the package `pykeops` of pairfold.

gpytorch asks KeOps only for matrices with at least `max_cholesky_size` rows and columns, 800 if not
set: here it is set to 2, for gradients, too, for which gpytorch makes new LazyTensors. That
LazyTensors were made is checked in every case.
"""

from __future__ import annotations

import contextlib
import itertools
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from unittest import mock

import gpytorch
import linear_operator
import torch
from client_report import Row, Within, emit, spread
from gpytorch import settings
from gpytorch.kernels import ScaleKernel, keops
from pykeops.torch import LazyTensor

EXACT = {"float64": 1e-10, "float32": 2e-5}
# Dense distances are at least sqrt(1e-15), those with KeOps sqrt(1e-20): on diagonals of e^(-d),
# and of no smoother kernel, this is seen, and more so in solutions of systems.
ROUGH = {"float64": 1e-7, "float32": 2e-5}
# name -> kernel with KeOps, without, its arguments
KERNELS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "RBF": (keops.RBFKernel, gpytorch.kernels.RBFKernel, {}),
    "Matern 1/2": (keops.MaternKernel, gpytorch.kernels.MaternKernel, {"nu": 0.5}),
    "Matern 3/2": (keops.MaternKernel, gpytorch.kernels.MaternKernel, {"nu": 1.5}),
    "Matern 5/2": (keops.MaternKernel, gpytorch.kernels.MaternKernel, {"nu": 2.5}),
    "periodic": (keops.PeriodicKernel, gpytorch.kernels.PeriodicKernel, {}),
}


class NoKeops(AssertionError):
    """gpytorch took its dense path where KeOps was meant to be asked, or the other way round."""


@contextlib.contextmanager
def counted(wanted: bool) -> Iterator[None]:
    """See that LazyTensors are made, or that none is."""
    place = "gpytorch.kernels.keops.keops_kernel.LazyTensor"
    with mock.patch(place, wraps=LazyTensor) as made:
        yield
    if bool(made.called) != wanted:
        raise NoKeops(f"{made.call_count} LazyTensors were made")


def build(kind: Any, options: dict[str, Any], scaled: bool, dtype: torch.dtype) -> Any:
    """A kernel, in a ScaleKernel if asked to."""
    made = kind(**options)
    if scaled:
        made = ScaleKernel(made, batch_shape=options.get("batch_shape", torch.Size()))
    return made.to(dtype)


def names_of(kernel: Any) -> list[str]:
    """Names of raw hyperparameters, in an order that kernels with and without KeOps share."""
    return sorted(name for name, _ in kernel.named_parameters())


def with_parameters(kernel: Any, values: Sequence[torch.Tensor]) -> Any:
    """The kernel with tensors in the place of its parameters, so that gradients reach them."""
    for name, value in zip(names_of(kernel), values, strict=True):
        path, _, last = name.rpartition(".")
        kernel.get_submodule(path)._parameters[last] = value
    return kernel


# -- matrices --------------------------------------------------------------------------------------


def between(kernel: Any, x: Any, y: Any, v: Any) -> list[torch.Tensor]:
    """Products with a kernel matrix, its entries and parts."""
    matrix = kernel(x, y)
    tall = v[..., : x.shape[-2], :]
    single = matrix if v.dim() == 2 else matrix[(0,) * (v.dim() - 2)]
    return [
        matrix @ v,
        single @ v.reshape(-1, *v.shape[-2:])[0, :, 0],
        matrix.mT @ tall,
        matrix.sum(-1),
        matrix.to_dense(),
        matrix[..., 2:9, :].to_dense(),
        matrix[..., 1:, 3:] @ v[..., 3:, :],
    ]


def square(kernel: Any, x: Any, y: Any, v: Any) -> list[torch.Tensor]:
    """The same points on both sides: diagonals, jitter, solutions and log-determinants."""
    matrix = kernel(x, x)
    steady = matrix.add_jitter(0.3)
    right = v[..., : x.shape[-2], :]
    return [
        matrix @ right,
        matrix.diagonal(dim1=-1, dim2=-2),
        kernel(x, diag=True),
        steady @ right,
        steady.solve(right),
    ]


def one_matrix(
    kind: Any, options: dict[str, Any], scaled: bool, ask: Callable[..., Any], lazy: bool
) -> Callable[..., Any]:
    """A computation on a new kernel, from data and raw hyperparameters."""

    is_keops = kind.__module__.startswith("gpytorch.kernels.keops")

    @contextlib.contextmanager
    def around() -> Iterator[None]:
        with (
            settings.max_cholesky_size(2),
            settings.use_keops(lazy),
            settings.fast_computations(False, False, False),  # Cholesky: exact solutions
            counted(lazy and is_keops),
        ):
            yield

    def run(x: Any, y: Any, v: Any, *values: Any) -> Any:
        kernel = with_parameters(build(kind, options, scaled, x.dtype), values)
        return ask(kernel, x, y, v)

    return Within(run, around)


BATCHES: list[tuple[tuple[int, ...], tuple[int, ...]]] = [
    ((), ()),
    ((2,), (2,)),
    ((3, 2), ()),
    ((), (2,)),
    ((2,), (3, 1)),
]


def matrices() -> Iterator[Row]:
    """Every kernel, with one or several lengths, for batches of data and of hyperparameters."""
    for name, (fast, slow, extra) in KERNELS.items():
        same = Row("gpytorch", f"{name}", "the same kernel, use_keops off", EXACT)
        limits = ROUGH if name == "Matern 1/2" else EXACT
        other = Row("gpytorch", f"{name}", "gpytorch's dense kernel", limits)
        for k, (data, batch) in enumerate(BATCHES):
            for ard in (None, 3):
                scaled = (k + (ard is None)) % 2 == 0
                options = {**extra, "batch_shape": torch.Size(batch)}
                if ard is not None or name != "periodic":
                    options["ard_num_dims"] = ard
                given = numbers(fast, options, scaled, data, batch)
                label = f"data {data}, batch {batch}, ard {ard}, scaled {scaled}"
                for ask in (between, square):
                    run = one_matrix(fast, options, scaled, ask, True)
                    truth = one_matrix(fast, options, scaled, ask, False)
                    same.cases_of(f"{ask.__name__} {label}", run, truth, given)
                    truth = one_matrix(slow, options, scaled, ask, False)
                    other.cases_of(f"{ask.__name__} {label}", run, truth, given)
        yield same
        yield other


def numbers(
    kind: Any,
    options: dict[str, Any],
    scaled: bool,
    data: tuple[int, ...],
    batch: tuple[int, ...],
) -> list[torch.Tensor]:
    """Points, vectors and raw hyperparameters."""
    whole = torch.broadcast_shapes(data, batch)
    kernel = build(kind, options, scaled, torch.float64)
    sizes = dict(kernel.named_parameters())
    raw = [spread(20 + k, *sizes[n].shape) for k, n in enumerate(names_of(kernel))]
    return [spread(11, *data, 17, 3), spread(12, *data, 23, 3), spread(13, *whole, 23, 2), *raw]


# -- Gaussian processes ----------------------------------------------------------------------------


class Process(gpytorch.models.ExactGP):
    """An exact Gaussian process with a constant mean."""

    def __init__(self, x: Any, y: Any, likelihood: Any, kernel: Any) -> None:
        super().__init__(x, y, likelihood)
        self.mean_module = gpytorch.means.ConstantMean(batch_shape=kernel.batch_shape)
        self.covar_module = kernel

    def forward(self, x: torch.Tensor) -> Any:
        """The prior at x."""
        found = self.mean_module(x), self.covar_module(x)
        return gpytorch.distributions.MultivariateNormal(*found)


def fitted(
    kernel: Any, x: torch.Tensor, y: torch.Tensor, steps: int
) -> tuple[Process, Any, list[torch.Tensor]]:
    """A process after some steps of Adam, with the losses on the way and its hyperparameters."""
    likelihood = gpytorch.likelihoods.GaussianLikelihood(batch_shape=kernel.batch_shape).to(x.dtype)
    model = Process(x, y, likelihood, kernel).to(x.dtype)
    likelihood.noise = 0.3
    objective = gpytorch.mlls.ExactMarginalLogLikelihood(likelihood, model)
    adam = torch.optim.Adam(model.parameters(), lr=0.1)
    said: list[torch.Tensor] = []
    model.train()
    for step in range(steps):
        torch.manual_seed(step)  # probes of traces are random: the same on both sides
        adam.zero_grad()
        loss = -objective(model(x), y).sum()
        loss.backward()
        adam.step()
        said.append(loss.detach())
    found = dict(model.named_parameters())
    return model, likelihood, [torch.stack(said), *(found[n].detach() for n in sorted(found))]


def process(
    kind: Any, options: dict[str, Any], lazy: bool | None, path: Callable[[], Any], fast: bool
) -> Callable[..., Any]:
    """Losses, hyperparameters, and means and variances of predictions at new points.

    `lazy`: whether KeOps has to be asked; None: it may not be.
    """

    @contextlib.contextmanager
    def around() -> Iterator[None]:
        keops_on = settings.use_keops(lazy is not None)
        with path(), keops_on, counted(bool(lazy)), settings.fast_pred_var(fast):
            yield

    def run(x: torch.Tensor, y: torch.Tensor, new: torch.Tensor) -> list[torch.Tensor]:
        kernel = build(kind, options, True, x.dtype)
        model, likelihood, found = fitted(kernel, x.detach(), y.detach(), 5)
        model.eval()  # torch's switch from fitting to predicting
        torch.manual_seed(99)
        prediction = likelihood(model(new))
        return [*found, prediction.mean, prediction.variance]

    return Within(run, around)


@contextlib.contextmanager
def conjugate_gradients(preconditioner: int = 0) -> Iterator[None]:
    """gpytorch's iterative path, run as far as it goes: the matrix is only multiplied."""
    with (
        settings.max_cholesky_size(2),
        settings.cg_tolerance(1e-9),
        settings.eval_cg_tolerance(1e-9),
        settings.max_cg_iterations(80),
        settings.num_trace_samples(12),
        settings.min_preconditioning_size(2),
        settings.max_preconditioner_size(preconditioner),
        settings.max_lanczos_quadrature_iterations(20),
    ):
        yield


@contextlib.contextmanager
def decomposed() -> Iterator[None]:
    """Cholesky factors of a matrix whose entries come from KeOps."""
    with settings.max_cholesky_size(2), settings.fast_computations(False, False, False):
        yield


PATHS: dict[str, tuple[bool, Callable[[], Any]]] = {
    "Cholesky, 41 points: KeOps not asked": (False, contextlib.nullcontext),
    "Cholesky of entries from KeOps": (True, decomposed),
    "conjugate gradients": (True, conjugate_gradients),
    "conjugate gradients, preconditioned": (True, lambda: conjugate_gradients(9)),
}


def processes() -> Iterator[Row]:
    """A fit by five steps of Adam, and predictions, with gradients to the new points."""
    x, new = spread(31, 41, 2), spread(32, 13, 2)
    y = torch.sin(5 * x[:, 0]) + x[:, 1] ** 2 + 0.1 * spread(33, 41)
    two = [x.expand(2, 41, 2), torch.stack([y, 2 * y]), new.expand(2, 13, 2)]
    what = "dense kernels (Matern 1/2: use_keops off)"
    for title, (lazy, path) in PATHS.items():
        row = Row("gpytorch", f"fit and predict: {title}", what, {"float64": 1e-9})
        # gpytorch's conjugate gradients take directions p with p K p below 1e-10 for 0: residuals
        # stop near 1e-5, wherever rounding leaves them, which differs from processor to processor;
        # with a preconditioner they do on some. So its dense answers are asked, too, how far they
        # move when the data move by rounding.
        row.moves = 10 if "conjugate" in title else 0
        for name, (fast, slow, extra) in KERNELS.items():
            for batch, data in (((), [x, y, new]), ((2,), two)):
                options = {**extra, "ard_num_dims": 2, "batch_shape": torch.Size(batch)}
                quick = bool(batch)
                run = process(fast, options, lazy, path, quick)
                plain = fast if name == "Matern 1/2" else slow  # which is ROUGH
                truth = process(plain, options, None, path, quick)
                row.cases_of(f"{name} {batch} fast_pred_var={quick}", run, truth, data)
        yield row


def main() -> None:
    """Run every check."""
    # Where rounding is asked of conjugate gradients, gpytorch warns that it was not reached.
    warnings.simplefilter("ignore", linear_operator.utils.warnings.NumericalWarning)
    versions = {m.__name__: m.__version__ for m in (gpytorch, linear_operator)}
    emit(itertools.chain(matrices(), processes()), versions)


if __name__ == "__main__":
    main()
