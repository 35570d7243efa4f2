"""Means, products, truth, variances, several axes, soft-max along an axis: in every library."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from checks import assert_close
from libraries import evaluated, per_library

from pairfold import ComplexLazyTensor, LazyTensor, Vi, Vj
from pairfold.errors import (
    ArrayTypeError,
    AxisError,
    OptionError,
    PairfoldError,
    ReducedError,
    ShapeError,
)
from pairfold.settings import settings

Program = Callable[..., Any]
# Batch axes, rows, columns, dtype.
SHAPES = [
    ((), 5, 4, "float32"),
    ((2,), 3, 4, "float64"),
    ((3, 2), 1, 3, "float64"),
    ((), 4, 1, "float64"),
]


def lazy(x: Any, y: Any) -> Any:
    return LazyTensor(x) * LazyTensor(y)


def product(t: Any, axes: Any, keepdim: bool = False) -> Any:
    for axis in sorted((a % t.ndim for a in axes), reverse=True):
        t = t.prod(axis, keepdim=keepdim)
    return t


DENSE: dict[str, Program] = {
    "sum": lambda t, axes, keepdim: t.sum(axes, keepdim=keepdim),
    "mean": lambda t, axes, keepdim: t.mean(axes, keepdim=keepdim),
    "prod": product,
    "max": lambda t, axes, keepdim: t.amax(axes, keepdim=keepdim),
    "min": lambda t, axes, keepdim: t.amin(axes, keepdim=keepdim),
    "logsumexp": lambda t, axes, keepdim: t.logsumexp(axes, keepdim=keepdim),
    "var": lambda t, axes, keepdim: t.var(axes, correction=0, keepdim=keepdim),
}
AXES: list[Callable[[int], Any]] = [
    lambda b: b,
    lambda b: -2,
    lambda b: -3,
    lambda b: (b, b + 1),
    lambda b: (-2, b),
    lambda b: (-2, -1),
    lambda b: (b, b + 1, b + 2),
    lambda b: None,
]


@pytest.mark.parametrize(
    ("name", "library"),
    [
        *((name, library) for name in DENSE for library in ("numpy", "torch")),
        *((name, "jax") for name in ("mean", "max", "var")),
    ],
)
def test_reductions_over_one_axis_and_several(name: str, library: str) -> None:
    """Each axis, kept and dropped, with batches or without, in turn.

    For JAX, which compiles every shape anew, two axes of some reductions are enough: axes are taken
    apart before a library is asked for anything.
    """
    rng = np.random.default_rng(5)
    for place, axes in enumerate(AXES[:7] if name == "logsumexp" else AXES):
        batch, m, n, dtype = SHAPES[(place + len(name)) % len(SHAPES)]
        if library == "jax":
            batch, m, n, dtype = SHAPES[0]
            if place not in (1, 3):
                continue
        arrays = [rng.normal(size=(*batch, m, 1, 2)), rng.normal(size=(*batch[-1:], 1, n, 2))]
        axis, keepdim = axes(len(batch)), bool(place % 2)
        every = tuple(range(len(batch) + 3))
        listed = every if axis is None else axis if isinstance(axis, tuple) else (axis,)
        options = {"ddof": 0} if name == "var" else {}

        def lazily(
            x: Any, y: Any, axis: Any = axis, keepdim: bool = keepdim, options: Any = options
        ) -> Any:
            return getattr(lazy(x, y), name)(axis, keepdim=keepdim, **options)

        def densely(x: Any, y: Any, listed: Any = listed, keepdim: bool = keepdim) -> Any:
            return DENSE[name](x * y, listed, keepdim)

        with settings(backend="auto" if library == "jax" else "reference"):
            got, slopes = evaluated(library, lazily, arrays, dtype)
        want, wanted = evaluated("torch", densely, arrays, "float64")
        assert got.dtype == np.dtype(dtype)
        rtol = 2e-5 if dtype == "float32" else 1e-11
        assert_close(got, want, rtol=rtol, formula=(name, axis))
        for slope, each in zip(slopes or (), wanted or ()):
            assert_close(slope, each, rtol=rtol, formula=f"gradient of {name} over {axis}")


TRUTHS = {
    "any": lambda t, axis, keepdim: np.any(t, axis, keepdims=keepdim),
    "all": lambda t, axis, keepdim: np.all(t, axis, keepdims=keepdim),
    "count": lambda t, axis, keepdim: np.count_nonzero(t, axis, keepdims=keepdim),
}


@per_library
@pytest.mark.parametrize("name", TRUTHS)
def test_truth_over_one_axis_and_several(name: str, library: str) -> None:
    rng = np.random.default_rng(6)
    x, y = rng.normal(size=(2, 4, 1, 2)), rng.normal(size=(2, 1, 3, 2))
    for place, axis in enumerate((1, -2, (1, 2), None, (-3, -2, -1))):
        keepdim = bool(place % 2)

        def lazily(x: Any, y: Any, axis: Any = axis, keepdim: bool = keepdim) -> Any:
            return getattr(LazyTensor(x) < LazyTensor(y), name)(axis, keepdim=keepdim)

        with settings(backend="auto" if library == "jax" else "reference"):
            got, _ = evaluated(library, lazily, [x, y], "float32")
        want = TRUTHS[name](x < y, axis, keepdim)
        assert got.dtype.kind == np.asarray(want).dtype.kind
        assert got.shape == np.shape(want)
        assert (got == want).all()


# -- components ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [1, 2, 3, 7])
def test_summaries_of_components(dim: int) -> None:
    rng = np.random.default_rng(dim)
    x, y = rng.normal(size=(4, 1, dim)), rng.normal(size=(1, 3, dim))
    k, t = lazy(x, y), x * y
    for found, want in (
        (k.mean(-1), t.mean(-1)),
        (k.prod(-1), t.prod(-1)),
        (k.var(-1), t.var(-1)),
        (k.var(2, correction=1), t.var(-1, ddof=1) if dim > 1 else t[..., 0] * np.nan),
        ((k > 0).any(-1), (t > 0).any(-1)),
        ((k > 0).all(-1), (t > 0).all(-1)),
        (k.any(-1), t.any(-1)),
        ((k > 0).count(-1), (t > 0).sum(-1)),
    ):
        assert found.shape == (4, 3)
        assert_close(found.sum(axis=1), want.sum(1)[:, None], rtol=1e-12)


def test_means_of_complex_numbers() -> None:
    rng = np.random.default_rng(2)
    z = rng.normal(size=(4, 1, 3)) + 1j * rng.normal(size=(4, 1, 3))
    k = LazyTensor(z) * LazyTensor(rng.normal(size=(1, 5, 3)))
    assert isinstance(k, ComplexLazyTensor)
    t = k.sum(axis=1)
    assert_close(np.abs(k.mean(1) - t / 5), 0 * np.abs(t))
    assert_close(np.abs(k.mean((0, 1)) - t.mean(0) / 5), 0 * np.abs(t[0]))
    assert_close(np.abs(k.mean(-1).sum(axis=1)[:, 0] - t.mean(-1)), 0 * np.abs(t[:, 0]))
    with pytest.raises(ArrayTypeError, match="var is not defined for complex"):
        k.var(1)


# -- conventions -----------------------------------------------------------------------------------


def test_empty_axes_and_single_rows() -> None:
    one = np.ones((1, 1, 1))
    for m, n in ((0, 3), (3, 0), (0, 0)):
        k = lazy(np.ones((m, 1, 1)), np.ones((1, n, 1)))
        assert k.sum((0, 1)) == 0
        assert k.sum(None) == 0
        assert k.prod((0, 1)) == 1
        assert k.max((0, 1)) == -np.inf
        assert k.all((0, 1)) & ~k.any((0, 1))
        assert k.count(None) == 0
        assert np.isnan(k.mean(-2)).all()
    k = lazy(one, one)
    assert k.sum((0, 1)).shape == k.max(None).shape == ()
    assert (k.var((0, 1)), k.mean((0, 1), keepdim=True).shape) == (0, (1, 1, 1))
    assert np.isnan(k.var(1, ddof=1)).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_variances_do_not_cancel_and_correct_as_libraries_do(dtype: str) -> None:
    rng = np.random.default_rng(3)
    x = (1000 + rng.normal(size=(6, 1, 2))).astype(dtype)
    y = (1 + 0 * rng.normal(size=(1, 1, 2))).astype(dtype)
    k, wide = LazyTensor(x).t() - LazyTensor(y), (x.astype(float) - y).swapaxes(0, 1)
    tolerance = 1e-5 if dtype == "float32" else 1e-12
    assert_close(k.var(1), wide.var(1), rtol=tolerance)
    assert_close(k.var(1, ddof=2), wide.var(1, ddof=2), rtol=tolerance)
    tensors = LazyTensor(torch.as_tensor(x)).t() - LazyTensor(torch.as_tensor(y))
    assert_close(tensors.var(1).numpy(), wide.var(1, ddof=1), rtol=tolerance)
    assert_close(tensors.var((0, 1), correction=0).numpy(), wide.var((0, 1)), rtol=tolerance)
    assert_close(tensors.var(None).numpy(), np.asarray(wide.var(ddof=1)), rtol=tolerance)
    assert_close(torch.var(tensors, 1).numpy(), wide.var(1, ddof=1), rtol=tolerance)
    assert_close(np.var(k, axis=1), wide.var(1), rtol=tolerance)


def test_axes_that_cannot_be_are_refused() -> None:
    k = lazy(np.ones((3, 1, 2)), np.ones((1, 4, 2)))
    symbols = Vi(0, 2) - Vj(1, 2)
    ranges = tuple(np.array(a) for a in ([[0, 3]], [1], [[1, 3]], [[1, 3]], [1], [[0, 3]]))
    for program, error, words in (
        (lambda: k.sum((0, 0)), OptionError, "several axes"),
        (lambda: k.sum((0, 5)), OptionError, "several axes"),
        (lambda: k.sum((-1,)), OptionError, "several axes"),
        (lambda: k.sum(()), OptionError, "several axes"),
        (lambda: k.sum(-4), OptionError, "over i"),
        (lambda: k.sum(True), OptionError, "over i"),
        (lambda: k.argmin((0, 1)), OptionError, "over one axis"),
        (lambda: k.argmin(None), OptionError, "over one axis"),
        (lambda: k.logsumexp(), AxisError, "needs an axis"),
        (lambda: k.sum((0, 1), call=False), OptionError, "nothing can wait"),
        (lambda: k.sum((0, 1), out=np.zeros(2)), OptionError, "nothing can wait"),
        (lambda: symbols.max((0, 1)), OptionError, "nothing can wait"),
        (lambda: symbols.var(1), OptionError, "two passes"),
        (lambda: k.var(1, ddof=0, correction=1), OptionError, "two names"),
        (lambda: k.var(1, ddof=1, ranges=ranges), OptionError, "ranges"),
        (lambda: k.mean((0, 1), ranges=ranges), OptionError, "ranges"),
        (lambda: k.sum(-1).mean(), OptionError, "over the components"),
    ):
        with pytest.raises(error, match=words):
            program()
    assert symbols.mean(1, call=False)(np.ones((3, 2)), np.ones((4, 2))).shape == (3, 2)
    assert_close(k.sum((0, 1), ranges=ranges), np.array([6.0, 6.0]))


# -- soft-max along an axis ------------------------------------------------------------------------

SOFTMAX: dict[str, tuple[Program, Program]] = {
    "@ vectors": (lambda k, v, w: k.softmax(-2) @ v, lambda k, v, w: k.softmax(-1) @ v),
    "vectors @": (
        lambda k, v, w: w.swapaxes(-1, -2) @ k.softmax(dim=-3),
        lambda k, v, w: w.swapaxes(-1, -2) @ k.softmax(-2),
    ),
    "transposed": (
        lambda k, v, w: k.softmax(-3).T @ w,
        lambda k, v, w: k.softmax(-2).swapaxes(-1, -2) @ w,
    ),
    "times lazy": (
        lambda k, v, w: (k.softmax(-2) * LazyTensor(v[..., None, :, :]) * k).sum(-2),
        lambda k, v, w: ((k.softmax(-1) * k)[..., None] * v[..., None, :, :]).sum(-2),
    ),
    "lazy times": (
        lambda k, v, w: (2 * (LazyTensor(w[..., None, :]) * k.softmax(-3))).sum(),
        lambda k, v, w: 2 * (k.softmax(-2)[..., None] * w[..., None, :]).sum(-3),
    ),
}


@per_library
@pytest.mark.parametrize("name", SOFTMAX)
def test_soft_max_along_an_axis(name: str, library: str) -> None:
    lazily, densely = SOFTMAX[name]
    place = list(SOFTMAX).index(name)
    batch, m, n, dtype = SHAPES[0 if library == "jax" else place % len(SHAPES)]
    rng = np.random.default_rng(place)
    shapes = ((m, 3), (n, 3), (n, 2), (m, 2))
    arrays = [rng.normal(size=(*batch, *shape)) for shape in shapes]

    def ours(x: Any, y: Any, v: Any, w: Any) -> Any:
        return lazily(LazyTensor(x[..., None, :]) | LazyTensor(y[..., None, :, :]), v, w)

    def theirs(x: Any, y: Any, v: Any, w: Any) -> Any:
        return densely(x @ y.swapaxes(-1, -2), v, w)

    with settings(backend="auto" if library == "jax" else "reference"):
        got, slopes = evaluated(library, ours, arrays, dtype)
    want, wanted = evaluated("torch", theirs, arrays, "float64")
    rtol = 2e-5 if dtype == "float32" else 1e-11
    assert_close(got, want, rtol=rtol, formula=name)
    for slope, each in zip(slopes or (), wanted or ()):
        assert_close(slope, each, rtol=rtol, formula=f"gradient of {name}")


def test_what_a_soft_max_is_not_is_refused() -> None:
    x, y, v = np.ones((3, 1, 2)), np.ones((1, 4, 2)), np.ones(4)
    k = LazyTensor(x) | LazyTensor(y)
    weights = k.softmax(1)
    assert weights.shape == (3, 4)
    assert weights.T.shape == (4, 3)
    assert (weights @ v).tolist() == [1, 1, 1]
    assert (np.ones(3) @ k.softmax(0)).tolist() == [1, 1, 1, 1]
    tensors = LazyTensor(torch.ones(3, 1, 1)) * LazyTensor(torch.ones(1, 4, 1))
    assert (torch.ones(3) @ tensors.softmax(0)).tolist() == [1, 1, 1, 1]
    assert torch.matmul(torch.ones(3), tensors.softmax(0)).tolist() == [1, 1, 1, 1]  # pyright: ignore
    assert torch.matmul(tensors.softmax(1), torch.ones(4)).tolist() == [1, 1, 1]  # pyright: ignore
    assert weights.sum(1).tolist() == [[1.0]] * 3
    for wrong in (
        lambda: weights + 1,
        lambda: -weights,
        lambda: weights**2,
        lambda: weights[0],
        lambda: weights.exp(),
        lambda: weights.sum(0),
        lambda: bool(weights),
        lambda: np.asarray(weights),
        lambda: weights @ k,
        lambda: torch.exp(weights),  # pyright: ignore
        lambda: len(weights),  # pyright: ignore
    ):
        with pytest.raises(ReducedError, match="multiplied and summed") as caught:
            wrong()
        assert caught.value.hint
    with pytest.raises(ArrayTypeError, match="along i"):
        _ = k.softmax(0) @ v
    with pytest.raises(ShapeError, match="one for each pair"):
        _ = lazy(x, y).softmax(1) @ v
    with pytest.raises(PairfoldError, match="axis"):
        k.softmax()
    assert "soft-max along axis 1" in repr(weights)
