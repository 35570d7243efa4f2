"""Weighted LogSumExp and soft-max of vectors: each component has a maximum of its own."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from checks import assert_close
from libraries import evaluated

from pairfold import Genred, LazyTensor, Vi, Vj, where
from pairfold.arrays.numpy import NumpyArrays
from pairfold.errors import DimError, UnsupportedError
from pairfold.frontends.fused import Several
from pairfold.frontends.partial import finished, merged, partial
from pairfold.settings import settings

ALIASES = ["x = Vi(3)", "y = Vj(3)", "g = Vj(3)", "s = Vj(1)"]
RNG = np.random.default_rng(8)
X, Y, G = RNG.normal(size=(5, 3)), RNG.normal(size=(7, 3)), RNG.uniform(0.5, 2, (7, 3))
F = X[:, None] * Y


def log_sum(f: Any, g: Any, axis: int = -2) -> Any:
    return np.log((np.exp(f) * g).sum(axis))


def mean(f: Any, g: Any, axis: int = -2) -> Any:
    return (np.exp(f) * g).sum(axis) / np.exp(f).sum(axis)


DENSE: dict[str, Callable[..., Any]] = {"LogSumExp": log_sum, "SumSoftMaxWeight": mean}
SHAPES = [((), 5, 4, "float32"), ((2,), 3, 4, "float64"), ((3, 2), 1, 3, "float64")]

per_reduction = pytest.mark.parametrize("name", DENSE)


@pytest.mark.parametrize(
    ("name", "dim", "library"),
    [
        *((name, dim, lib) for name in DENSE for dim in (1, 2) for lib in ("numpy", "torch")),
        *((name, dim, "jax") for dim, name in enumerate(DENSE, 1)),
    ],
)
def test_vectors_of_exponents_in_every_library(name: str, dim: int, library: str) -> None:
    """Weights of as many components, or of one; over j and over i."""
    batch, m, n, dtype = SHAPES[dim if library != "jax" else 0]
    rng = np.random.default_rng(dim)
    arrays = [
        rng.normal(size=(*batch, m, 2)),
        rng.normal(size=(*batch[-1:], n, 2)),
        rng.uniform(0.5, 2, (*batch[-1:], n, dim)),
    ]

    def lazily(x: Any, y: Any, g: Any) -> Any:
        f = LazyTensor(x[..., :, None, :]) * LazyTensor(y[..., None, :, :])
        weight = LazyTensor(g[..., None, :, :])
        if dim == 1:
            return f.t().reduction(name, weight.t(), axis=-3)
        return f.reduction(name, weight, axis=-2)

    def densely(x: Any, y: Any, g: Any) -> Any:
        f = x[..., :, None, :] * y[..., None, :, :]
        if name == "LogSumExp":
            return (f.exp() * g[..., None, :, :]).sum(-2).log()
        return (f.softmax(-2) * g[..., None, :, :]).sum(-2)

    with settings(backend="auto" if library == "jax" else "reference"):
        got, slopes = evaluated(library, lazily, arrays, dtype)
    want, wanted = evaluated("torch", densely, arrays, "float64")
    rtol = 2e-5 if dtype == "float32" else 1e-11
    assert got.dtype == np.dtype(dtype)
    assert_close(got, want, rtol=rtol, formula=name)
    for slope, each in zip(slopes or (), wanted or ()):
        assert_close(slope, each, rtol=rtol, formula=f"gradient of {name}")


@per_reduction
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_formulas_by_machine_code(name: str, dtype: str) -> None:
    fold = Genred("20*x*y", ALIASES[:3], name, axis=1, formula2="g")
    given = [a.astype(dtype) for a in (X, Y, G)]
    wide = [a.astype(float) for a in given]
    want = DENSE[name](20 * wide[0][:, None] * wide[1], wide[2])
    rtol = {"float64": 1e-13, "float32": 1e-5, "float16": 2e-3}[dtype]
    assert_close(fold(*given).astype(float), want, rtol=rtol)
    out = np.empty((5, 3), dtype)
    assert fold(*given, out=out) is out
    assert_close(out, fold(*given))
    assert_close(pickle.loads(pickle.dumps(fold))(*given), out)
    with settings(check=2):
        assert_close(fold(*given), out)
    assert fold(given[0][:0], *given[1:]).shape == (0, 3)
    nothing = fold(given[0], given[1][:0], given[2][:0])
    assert (nothing == -np.inf).all() if name == "LogSumExp" else np.isnan(nothing).all()
    assert "dimension 3" in str(fold.explain())


@per_reduction
def test_over_i_with_ranges_and_in_parts(name: str) -> None:
    fold = Genred("x*y", ALIASES[:3], name, axis=1, formula2="g")
    ranges = tuple(np.array(a) for a in ([[0, 5]], [1], [[1, 4]], [[1, 4]], [1], [[0, 5]]))
    assert_close(fold(X, Y, G, ranges=ranges), DENSE[name](F[:, 1:4], G[1:4]))
    over_i = Genred("x*y", [*ALIASES[:2], "g = Vi(3)"], name, axis=0, formula2="g")
    assert_close(over_i(X, Y, X**2), DENSE[name](F, (X**2)[:, None], 0))
    one, other = (
        partial(fold._fold, NumpyArrays, [X, Y[a:b], G[a:b]]) for a, b in ((0, 3), (3, 7))
    )
    whole = merged(fold._fold, NumpyArrays, one, other)
    assert_close(finished(fold._fold, NumpyArrays, whole, 7, "float64")[0], DENSE[name](F, G))


@per_reduction
def test_many_components_are_several_passes(name: str) -> None:
    rng = np.random.default_rng(1)
    x, y, g = rng.normal(size=(4, 70)), rng.normal(size=(6, 70)), rng.uniform(1, 2, (6, 70))
    fold = Genred("x*y", ["x = Vi(70)", "y = Vj(70)", "g = Vj(70)"], name, axis=1, formula2="g")
    with settings(backend="reference"):
        assert_close(fold(x, y, g), DENSE[name](x[:, None] * y, g), rtol=1e-12)


def test_components_without_terms_are_apart() -> None:
    """Where all exponents of a component are -inf, others and their gradients are as ever."""
    flags = np.zeros((5, 3))
    flags[2, 1] = 1
    x = torch.tensor(X, requires_grad=True)
    y, g, empty = Vj(torch.tensor(Y)), Vj(torch.tensor(G)), Vi(torch.tensor(flags)) > 0
    out = where(empty, -np.inf, Vi(x) * y).sumsoftmaxweight(g, axis=1)
    want = mean(F, G)
    want[2, 1] = np.nan
    assert_close(out.detach().numpy(), want)
    (slope,) = torch.autograd.grad(out[:, 0].sum(), x, retain_graph=True)
    assert slope.isfinite().all()
    (slope,) = torch.autograd.grad(torch.where(out.isnan(), 0.0, out).sum(), x)
    assert slope.isfinite().all()
    assert slope[2, 1] == 0


def test_soft_max_of_vectors() -> None:
    k = LazyTensor(X[:, None]) * LazyTensor(Y[None])
    assert_close((k.softmax(1) * LazyTensor(G[None])).sum(1), mean(F, G))
    wait = (Vi(0, 3) * Vj(1, 3)).sumsoftmaxweight(Vj(2, 3), axis=1, call=False)
    assert_close(wait(X, Y, G), mean(F, G))


@pytest.mark.usefixtures("interpreter")
@per_reduction
def test_programs_for_gpus(name: str) -> None:
    fold = Genred("x*y", ALIASES[:3], name, axis=1, formula2="g")
    given = [a.astype("float32") for a in (X, Y, G)]
    assert_close(fold(*given, backend="GPU"), DENSE[name](F, G), rtol=1e-5)


def test_derivatives_of_second_order_and_forward() -> None:
    fold = Genred("x*y", ALIASES[:3], "LogSumExp", axis=1, formula2="g")
    x, y, g = (torch.tensor(a[:3], requires_grad=True) for a in (X, Y, G))
    assert torch.autograd.gradcheck(lambda *a: fold(*a), (x, y, g), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(lambda x: fold(x, y, g), (x,))


def test_what_does_not_fit_is_refused() -> None:
    for name in ("LogSumExp", "SumSoftMaxWeight"):
        with pytest.raises(DimError, match="dimension 1, or of its weight's"):
            Genred("x*y", ["x = Vi(3)", "y = Vj(3)", "g = Vj(2)"], name, axis=1, formula2="g")
    with pytest.raises(DimError, match="dimension 1"):
        Genred("x*y", ALIASES[:3], "Max_SumShiftExpWeight", axis=1, formula2="g")
    fold = Genred("x*y", ALIASES[:3], "LogSumExp", axis=1, formula2="g")._fold
    with pytest.raises(UnsupportedError, match="passes of their own"):
        Several([fold, fold])
