"""Reductions of lazy tensors by name, lazy tensors as linear operators, symbolic reductions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse.linalg
import torch
from checks import assert_close, assert_same_bits
from scipy.special import logsumexp, softmax
from test_lazytensor import D, M, N, X, Y

from pairfold.errors import ArgumentError, ArrayTypeError, DTypeError, OptionError, ShapeError
from pairfold.numpy import LazyTensor, Pm, Vi, Vj

pytestmark = pytest.mark.usefixtures("interpreted_kernels")

RNG = np.random.default_rng(7)
Z = X - Y
F = (Z**2).sum(-1, keepdims=True)
G = RNG.uniform(0.5, 1.5, (1, N, 2))
K = 4

libraries = pytest.mark.parametrize("make", [np.asarray, torch.as_tensor], ids=["numpy", "torch"])
axes = pytest.mark.parametrize("axis", [0, 1], ids=["over i", "over j"])


def sort(f: Any, axis: int) -> Any:
    return np.argsort(f, axis=axis, kind="stable").take(range(K), axis=axis)


def listed(f: Any, axis: int, places: Any) -> Any:
    """(K, N, D) or (M, K, D) as lists are: (R, K, D), without D where it is 1."""
    found = np.moveaxis(places, axis, 1) if axis == 0 else places
    return found[..., 0] if f.shape[-1] == 1 else found


def values(f: Any, axis: int) -> Any:
    return listed(f, axis, np.take_along_axis(f, sort(f, axis), axis))


# name of the method: (what it is called with besides the axis, its result of the array f)
VECTORS: dict[str, tuple[dict[str, Any], Any]] = {
    "sum": ({}, lambda f, a: f.sum(a)),
    "sum_reduction": ({}, lambda f, a: f.sum(a)),
    "min": ({}, lambda f, a: f.min(a)),
    "min_reduction": ({}, lambda f, a: f.min(a)),
    "__min__": ({}, lambda f, a: f.min(a)),
    "max": ({}, lambda f, a: f.max(a)),
    "max_reduction": ({}, lambda f, a: f.max(a)),
    "__max__": ({}, lambda f, a: f.max(a)),
    "argmin": ({}, lambda f, a: f.argmin(a)),
    "argmin_reduction": ({}, lambda f, a: f.argmin(a)),
    "argmax": ({}, lambda f, a: f.argmax(a)),
    "argmax_reduction": ({}, lambda f, a: f.argmax(a)),
    "min_argmin": ({}, lambda f, a: (f.min(a), f.argmin(a))),
    "min_argmin_reduction": ({}, lambda f, a: (f.min(a), f.argmin(a))),
    "max_argmax": ({}, lambda f, a: (f.max(a), f.argmax(a))),
    "max_argmax_reduction": ({}, lambda f, a: (f.max(a), f.argmax(a))),
    "Kmin": ({"K": K}, values),
    "Kmin_reduction": ({"K": K}, values),
    "argKmin": ({"K": K}, lambda f, a: listed(f, a, sort(f, a))),
    "argKmin_reduction": ({"K": K}, lambda f, a: listed(f, a, sort(f, a))),
    "Kmin_argKmin": ({"K": K}, lambda f, a: (values(f, a), listed(f, a, sort(f, a)))),
    "Kmin_argKmin_reduction": ({"K": K}, lambda f, a: (values(f, a), listed(f, a, sort(f, a)))),
}
# the same for scalars
SCALARS: dict[str, tuple[dict[str, Any], Any]] = {
    "logsumexp": ({}, lambda f, a: logsumexp(f, axis=a)),
    "logsumexp_reduction": ({}, lambda f, a: logsumexp(f, axis=a)),
    "logsumexp, weighted": (
        {"weight": G},
        lambda f, a: np.log((np.exp(f) * G).sum(a)),
    ),
    "logsumexp, other": ({"other": G}, lambda f, a: np.log((np.exp(f) * G).sum(a))),
    "sumsoftmaxweight": ({"weight": G}, lambda f, a: (softmax(f, axis=a) * G).sum(a)),
    "sumsoftmaxweight_reduction": ({"weight": G}, lambda f, a: (softmax(f, axis=a) * G).sum(a)),
    "sumsoftmaxweight, other": ({"other": G}, lambda f, a: (softmax(f, axis=a) * G).sum(a)),
}
GENERAL: dict[str, Any] = {
    "Mean": lambda f, a: f.mean(a),
    "Prod": lambda f, a: f.prod(a),
    "Any": lambda f, a: (f != 0).any(a),
    "All": lambda f, a: (f != 0).all(a),
    "Count": lambda f, a: (f != 0).sum(a),
}


def same(found: Any, wanted: Any) -> None:
    if isinstance(wanted, tuple):
        assert isinstance(found, tuple)
        for one, other in zip(found, wanted, strict=True):
            same(one, other)
        return
    if np.asarray(wanted).dtype.kind == "f":
        assert_close(found, wanted, terms=N)
    else:
        assert np.asarray(found).dtype == np.asarray(wanted).dtype
        np.testing.assert_array_equal(found, wanted)


def reduced(make: Any, name: str, options: dict[str, Any], f: Any, **more: Any) -> Any:
    given = {n: LazyTensor(make(v)) if n in ("weight", "other") else v for n, v in options.items()}
    return getattr(f, name.partition(",")[0])(**given, **more)


@libraries
@axes
@pytest.mark.parametrize("name", VECTORS)
def test_reductions_of_vectors_and_scalars(name: str, axis: int, make: Any) -> None:
    options, dense = VECTORS[name]
    x, y = LazyTensor(make(X)), LazyTensor(make(Y))
    for f, wanted in ((x - y, dense(Z, axis)), (x.sqdist(y), dense(F, axis))):
        for given in ({"axis": axis}, {"dim": axis}):
            found = reduced(make, name, options, f, **given)
            first = found[0] if isinstance(found, tuple) else found
            assert isinstance(first, np.ndarray if make is np.asarray else torch.Tensor)
            same(found, wanted)


@libraries
@axes
@pytest.mark.parametrize("name", SCALARS)
def test_reductions_of_exponentials(name: str, axis: int, make: Any) -> None:
    options, dense = SCALARS[name]
    f = LazyTensor(make(X)).sqdist(LazyTensor(make(Y)))
    same(reduced(make, name, options, f, axis=axis), dense(F, axis))
    same(reduced(make, name, options, f, dim=axis), dense(F, axis))


@axes
@pytest.mark.parametrize("name", GENERAL)
def test_reductions_without_a_method(name: str, axis: int) -> None:
    found = (LazyTensor(X) - LazyTensor(Y)).reduction(name, axis=axis)
    same(found, GENERAL[name](Z, axis))


def test_weights_by_place() -> None:
    f, g = LazyTensor(X).sqdist(LazyTensor(Y)), LazyTensor(G)
    wanted = np.log((np.exp(F) * G).sum(1))
    same(f.logsumexp(1, g), wanted)
    same(f.logsumexp(1, None, g), wanted)
    same(f.reduction("LogSumExp", g, None, 1), wanted)
    same(f.sumsoftmaxweight(g, 1), (softmax(F, axis=1) * G).sum(1))
    same(f.reduction("SoftMax", other=g, axis=1), (softmax(F, axis=1) * G).sum(1))
    same(f.argKmin(K, 1), listed(F, 1, sort(F, 1)))


def test_dim_wins_for_the_five_and_axis_for_the_others() -> None:
    f = LazyTensor(X) - LazyTensor(Y)
    same(f.sum(axis=0, dim=1), Z.sum(1))
    same(f.argmin(axis=-1, dim=0), Z.argmin(0))
    same(f.sum_reduction(axis=0, dim=1), Z.sum(0))


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda f: f.sum_reduction(), TypeError),
        (lambda f: f.logsumexp(), TypeError),
        (lambda f: f.reduction("Sum"), TypeError),
        (lambda f: f.sum(axis=-4), OptionError),
        (lambda f: f.sum(axis=3), OptionError),
        (lambda f: f.sum(axis=True), OptionError),
        (lambda f: f.sum(axis="j"), OptionError),
        (lambda f: f.Kmin(K, axis=2), OptionError),
        (lambda f: f.Kmin(0, axis=1), OptionError),
        (lambda f: f.argKmin(2.5, axis=1), OptionError),
        (lambda f: f.reduction("Summ", axis=1), OptionError),
        (lambda f: f.reduction("Sum", opt_arg=3, axis=1), OptionError),
        (lambda f: f.reduction("Sum", other=f, axis=1), OptionError),
        (lambda f: f.reduction("SumSoftMaxWeight", axis=1), OptionError),
        (lambda f: f.logsumexp(1, weight=G), ArrayTypeError),
        (lambda f: f.logsumexp(1, weight=LazyTensor(1j * G)), ArrayTypeError),
        (lambda f: f.sum(axis=1, keep=True), TypeError),
        (lambda f: f.sum(axis=1, keepdim="yes"), OptionError),
        (lambda f: f.Kmin(K, axis=1, keepdim=True), OptionError),
        (lambda f: f.sum(axis=1, dtype_acc="float8"), OptionError),
        (lambda f: f.sum(axis=1, optional_flags=[]), TypeError),
        (lambda f: f.sum(axis=1, backend="TPU"), OptionError),
    ],
)
def test_what_cannot_be_reduced(call: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        call(LazyTensor(X).sqdist(LazyTensor(Y)))


@pytest.mark.parametrize(
    "options",
    [
        {"dtype_acc": "float64"},
        {"use_double_acc": True},
        {"sum_scheme": "kahan_scheme"},
        {"enable_chunks": False, "use_fast_math": False},
        {"backend": "CPU", "device_id": 0},
    ],
)
def test_options_of_sums(options: dict[str, Any]) -> None:
    f = LazyTensor(X) - LazyTensor(Y)
    assert_close(f.sum(axis=1, **options), Z.sum(1), terms=N)
    assert f.sum(axis=-1, **options)._shape == (M, N, 1)


def test_out() -> None:
    f, out = LazyTensor(X) - LazyTensor(Y), np.empty((M, D))
    assert f.sum(axis=1, out=out) is out
    assert_close(out, Z.sum(1))
    z, out = LazyTensor(1j * X) * LazyTensor(Y), np.empty((M, D), complex)
    assert z.sum(axis=1, out=out) is out
    np.testing.assert_allclose(out, (1j * X * Y).sum(1))


# -- the reduced axis, kept ------------------------------------------------------------------------


@libraries
@axes
@pytest.mark.parametrize("word", ["keepdim", "keepdims"])
@pytest.mark.parametrize("name", ["sum", "max", "argmin", "min_argmin", "logsumexp"])
def test_the_reduced_axis_may_be_kept(name: str, word: str, axis: int, make: Any) -> None:
    x, y = LazyTensor(make(np.stack([X, X + 1]))), LazyTensor(make(Y))
    f = x.sqdist(y) if name == "logsumexp" else x - y
    method = getattr(f, name)
    found, wanted = method(axis=axis + 1, **{word: True}), method(axis=axis + 1, **{word: False})
    if not isinstance(found, tuple):
        found, wanted = (found,), (wanted,)
    for one, other in zip(found, wanted, strict=True):
        rows, dim = other.shape[-2:]
        assert tuple(one.shape) == ((2, rows, 1, dim) if axis == 1 else (2, 1, rows, dim))
        assert_same_bits(one.reshape(other.shape), other)


def test_what_was_kept_joins_again() -> None:
    x, y = LazyTensor(X), LazyTensor(Y)
    top = LazyTensor((x - y).max(axis=1, keepdim=True))
    assert_close((top - (x - y)).sum(axis=1), (Z.max(1, keepdims=True) - Z).sum(1), terms=N)


# -- sizes -----------------------------------------------------------------------------------------


def test_a_formula_without_an_index_has_one_row_of_it() -> None:
    x, p = LazyTensor(X), Pm([1.0, 2.0, 3.0])
    assert_close((x * p).sum(axis=1), X[:, 0] * [1, 2, 3])
    assert_close((x * p).sum(axis=0), (X * [1, 2, 3]).sum(0))
    q = LazyTensor(np.arange(3.0))
    assert_close(q.sum(axis=1), np.arange(3.0)[None])
    assert_close(q.sum(axis=0), np.arange(3.0)[None])


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 1, 1, 1), (1, 1, 1, 1, 2)])
def test_parameters_alone_keep_their_batch_axes(shape: tuple[int, ...]) -> None:
    p = RNG.normal(size=shape)
    batches = len(shape) - 3
    assert_close(LazyTensor(p).sum(axis=batches), p.sum(batches))
    assert_close(LazyTensor(p).sum(axis=batches + 1), p.sum(batches + 1))
    both = LazyTensor(X[..., :1]) * LazyTensor(p[..., :1])
    assert_close(both.sum(axis=batches + 1), (X[..., :1] * p[..., :1]).sum(batches + 1))


def test_sums_with_long_factors() -> None:
    x, v = RNG.normal(size=(M, 1, 1)), RNG.normal(size=(M, 1, 130))
    w = RNG.normal(size=(1, N, 130))
    k, dense = (LazyTensor(x) - LazyTensor(w[..., :1])).exp(), np.exp(x - w[..., :1])
    assert_close((k * LazyTensor(v)).sum(axis=1), (dense * v).sum(1), terms=N)
    assert_close((k * LazyTensor(w)).sum(axis=1), (dense * w).sum(1), terms=N)


@pytest.mark.parametrize(("m", "n"), [(1, 1), (1, 5), (5, 1), (0, 4), (4, 0)])
def test_small_sizes(m: int, n: int) -> None:
    x, y = RNG.normal(size=(m, 3)), RNG.normal(size=(n, 3))
    dense = ((x[:, None] - y[None]) ** 2).sum(-1, keepdims=True)
    k = Vi(x).sqdist(Vj(y))
    assert k._shape == (m or 1, n or 1, 1) or not m * n
    assert_close(k.sum(axis=1), dense.sum(1))
    assert_close(k.sum(axis=0), dense.sum(0))
    assert_close(k @ np.ones((n, 2)), dense.sum(1) + np.zeros((m, 2)))


# -- linear operators ------------------------------------------------------------------------------

DENSE = np.exp(-F)[..., 0]


def kernel(make: Any, x: Any = X, y: Any = Y) -> Any:
    return (-LazyTensor(make(x)).sqdist(LazyTensor(make(y)))).exp()


@libraries
def test_products_with_vectors(make: Any) -> None:
    k, v = kernel(make), RNG.normal(size=(N, 2))
    assert_close(k @ make(v), DENSE @ v, terms=N)
    assert_close(k @ make(v[:, 0].copy()), DENSE @ v[:, 0], terms=N)
    assert_close(k @ make(v[:, :1].copy()), DENSE @ v[:, :1], terms=N)
    assert_close(k.__matmul__(make(v), backend="CPU", sum_scheme="kahan_scheme"), DENSE @ v)
    batch = RNG.normal(size=(3, N, 2))
    assert_close(k @ make(batch), DENSE @ batch, terms=N)
    w = RNG.normal(size=(M, 2))
    assert_close(k.T @ make(w), DENSE.T @ w, terms=M)
    assert_close(k.t() @ make(w[:, 0].copy()), DENSE.T @ w[:, 0], terms=M)
    assert_close(k.matvec(make(v[:, 0].copy())), DENSE @ v[:, 0], terms=N)
    assert_close(k.rmatvec(make(w[:, 0].copy())), DENSE.T @ w[:, 0], terms=M)
    assert_close(k.matmat(make(v)), DENSE @ v, terms=N)
    assert_close(k.rmatmat(make(w)), DENSE.T @ w, terms=M)
    assert_close(k.t().t() @ make(v), DENSE @ v, terms=N)
    assert (k.t().shape, k.t().ni, k.t().nj, LazyTensor(make(X)).t().axis) == ((N, M), N, M, 1)


def test_a_kernel_of_batches_times_vectors() -> None:
    x = np.stack([X, X + 0.1, X - 0.1])
    k = kernel(np.asarray, x)
    dense = np.exp(-((x - Y) ** 2).sum(-1))
    v = RNG.normal(size=(N, 2))
    assert_close(k @ v, dense @ v, terms=N)
    assert_close(k @ v[:, 0], (dense @ v[:, 0]).reshape(-1), terms=N)


def test_products_are_differentiable_in_the_vector() -> None:
    v = torch.tensor(RNG.normal(size=(N, 2)), requires_grad=True)
    (kernel(torch.as_tensor) @ v).sum().backward()
    assert v.grad is not None
    assert_close(v.grad, np.repeat(DENSE.sum(0)[:, None], 2, 1), terms=M)


@pytest.mark.parametrize(
    ("matrix", "v", "error"),
    [
        (lambda: LazyTensor(X) - LazyTensor(Y), np.ones(N), ShapeError),
        (lambda: kernel(np.asarray), np.ones(M), ShapeError),
        (lambda: kernel(np.asarray), np.ones((M, 2)), ShapeError),
        (lambda: kernel(np.asarray), np.array(1.0), ArrayTypeError),
        (lambda: kernel(np.asarray), [1.0] * N, ArrayTypeError),
        (lambda: kernel(np.asarray), kernel(np.asarray), ShapeError),
        (lambda: kernel(np.asarray), torch.ones(N).double(), ArrayTypeError),
        (lambda: kernel(np.asarray), np.ones(N, "float32"), DTypeError),
    ],
)
def test_products_that_are_refused(matrix: Any, v: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        matrix() @ v


@libraries
def test_scipy_takes_lazy_tensors_as_they_are(make: Any) -> None:
    k = kernel(make, X, X.reshape(1, M, D))
    dense = np.exp(-((X - X.reshape(1, M, D)) ** 2).sum(-1))
    linear = scipy.sparse.linalg.aslinearoperator(k)
    assert (linear.shape, linear.dtype) == ((M, M), np.dtype("float64"))
    v = RNG.normal(size=(M, 3))
    assert_close(linear @ v, dense @ v, terms=M)
    assert_close(linear.T @ v[:, 0], dense @ v[:, 0], terms=M)
    assert_close(linear.H @ v, dense @ v, terms=M)
    found, _ = scipy.sparse.linalg.eigsh(k, k=3, tol=1e-12, v0=np.ones(M))
    assert_close(found, np.linalg.eigvalsh(dense)[-3:], rtol=1e-9)
    b = RNG.normal(size=M)
    solution, info = scipy.sparse.linalg.cg(_regular(k, make), b, rtol=1e-12)
    assert info == 0
    assert_close(solution, np.linalg.solve(dense + np.eye(M), b), rtol=1e-8)


def _regular(k: Any, make: Any) -> Any:
    """k plus the identity, as a lazy tensor: 1 where indices are equal."""
    index = np.arange(float(M))[:, None]
    return k + (Vi(make(index)) == Vj(make(index)))


def test_scipy_takes_complex_lazy_tensors() -> None:
    k = (1j * LazyTensor(X[..., :1]) * LazyTensor(Y[..., :1])).exp()
    dense = np.exp(1j * X[..., 0] * Y[..., 0])
    linear = scipy.sparse.linalg.aslinearoperator(k)
    v, w = RNG.normal(size=N) + 1j, RNG.normal(size=M) + 1j
    assert linear.dtype == np.dtype("complex128")
    np.testing.assert_allclose(linear @ v, dense @ v)
    np.testing.assert_allclose(linear.H @ w, dense.conj().T @ w)


# -- transforms ------------------------------------------------------------------------------------


def test_transforms_of_functions_with_lazy_tensors() -> None:
    x, y = torch.tensor(X[:, 0]), torch.tensor(Y[0])

    def lazy(x: Any) -> Any:
        return (-Vi(x).sqdist(Vj(y))).exp().sum(axis=1)

    def dense(x: Any) -> Any:
        return (-((x[:, None] - y) ** 2).sum(-1)).exp().sum(1, keepdim=True)

    same = torch.testing.assert_close
    same(*(torch.func.grad(lambda x, f=f: f(x).square().sum())(x) for f in (lazy, dense)))
    same(*(torch.func.jvp(f, (x,), (x.sin(),))[1] for f in (lazy, dense)))
    same(*(torch.func.jacrev(f)(x[:3]) for f in (lazy, dense)))
    same(*(torch.vmap(f)(torch.stack([x, x + 1])) for f in (lazy, dense)))


# -- reductions that wait --------------------------------------------------------------------------


def test_symbolic_reductions() -> None:
    x, y = X[:, 0], Y[0]
    f = ((Vi(0, 3) - Vj(1, 3)) ** 2).sum().argKmin(5, dim=1)
    np.testing.assert_array_equal(f(x, y), np.argsort(F[..., 0], axis=1, kind="stable")[:, :5])
    g = ((Vi(0, 3) - Vj(1, 3)) * Pm(2, 3)).sum(axis=0)
    assert_close(g(x, y, np.array([1.0, 2.0, 3.0])), (Z * [1, 2, 3]).sum(0), terms=M)
    t = torch.tensor(x, requires_grad=True)
    g(t, torch.as_tensor(y), torch.ones(3).double()).sum().backward()
    assert_close(t.grad, np.full((M, 3), float(N)), terms=N)


def test_symbols_are_taken_by_their_positions_and_arrays_after_them() -> None:
    x, y = X[:, 0], Y[0]
    f = (Vj(1, 3) * LazyTensor(P := RNG.normal(size=3)) - Vi(0, 3)).sum(axis=1)
    assert_close(f(x, y), (Y * P - X).sum(1), terms=N)
    gap = (Vi(0, 3) - Vj(2, 3)).sum(axis=1)
    assert_close(gap(x, None, y), Z.sum(1), terms=N)
    with pytest.raises(ArgumentError, match="3 arrays"):
        gap(x, y)
    with pytest.raises(ValueError):
        f(y)
    with pytest.raises(ShapeError):
        f(x[:, :2], y)


def test_call_false() -> None:
    f = LazyTensor(X).sqdist(LazyTensor(Y)).logsumexp(axis=1, weight=LazyTensor(G), call=False)
    assert (f.reduction_op, f.axis, f.opt_arg, f.formula2) == ("LogSumExp", 1, None, f.formula2)
    assert f.formula2 is not None
    same(f(), np.log((np.exp(F) * G).sum(1)))
    same(f(backend="CPU"), np.log((np.exp(F) * G).sum(1)))
    with pytest.raises(TypeError):
        f(keep=1)
    with pytest.raises(ArgumentError):
        f(X)


def test_options_of_a_call_are_remembered() -> None:
    ranges = tuple(np.array(a) for a in ([[0, M]], [1], [[1, 3]], [[0, N]], [1], [[0, M]]))
    f = (LazyTensor(X) - LazyTensor(Y)).sum(axis=1, call=False)
    assert_close(f(), Z.sum(1), terms=N)
    assert_close(f(ranges=ranges), Z[:, 1:3].sum(1))
    assert_close(f(), Z[:, 1:3].sum(1))
    assert f(keepdim=True).shape == f().shape == (M, 1, D)


def test_numbers_alone_wait_for_a_dtype() -> None:
    waiting = LazyTensor(2).concat([1.0, 2.0]).sum(axis=1)
    assert callable(waiting)
    with pytest.raises(ArgumentError, match="dtype"):
        waiting()
    assert (Vi(0, 1) + 1).sum(axis=1)(np.zeros((2, 1), "float32")).dtype == np.float32


def test_a_symbol_of_complex_numbers() -> None:
    z = LazyTensor((0, 2, 0), is_complex=True)
    f = (z * LazyTensor(Y[..., :2])).sum(axis=1)
    a = RNG.normal(size=(M, 2)) + 1j
    np.testing.assert_allclose(f(a), (a[:, None] * Y[..., :2]).sum(1))
    with pytest.raises(ValueError, match="complex"):
        f(a.real)
