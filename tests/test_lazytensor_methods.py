"""Every method of LazyTensor that gives a LazyTensor, against NumPy; signatures and help."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
from scipy import special
from test_lazytensor import D, M, N, X, Y, agree

from pairfold.errors import DimError, FormulaError, OptionError
from pairfold.numpy import ComplexLazyTensor, LazyTensor, Vi, Vj
from pairfold.ops.table import OPERATIONS

pytestmark = pytest.mark.usefixtures("interpreted_kernels")

RNG = np.random.default_rng(6)
S, T = RNG.normal(size=(M, 1, 1)), RNG.normal(size=(1, N, 1))
A, W = RNG.normal(size=(M, 1, 6)), RNG.uniform(0.5, 1.5, (1, 1, 9))
K = np.sort(RNG.uniform(0, 3, (M, 1, 7)), axis=-1)
U, V = RNG.normal(size=(M, 1, D)), RNG.normal(size=(1, N, D))


def total(a: Any) -> Any:
    return np.asarray(a).sum(-1, keepdims=True)


def soft_dtw(x: Any, y: Any, gamma: float) -> Any:
    """Soft dynamic time warping of all pairs, by its recurrence."""
    x, y = (np.broadcast_to(a, (M, N, D)) for a in (x, y))
    table = np.full((D + 1, D + 1, M, N), np.inf)
    table[0, 0] = 0
    for i in range(D):
        for j in range(D):
            before = np.stack([table[i, j], table[i, j + 1], table[i + 1, j]])
            low = -gamma * special.logsumexp(-before / gamma, axis=0)
            table[i + 1, j + 1] = (x[..., i] - y[..., j]) ** 2 + low
    return table[D, D][..., None]


def weighted(x: Any, s: Any) -> Any:
    """Squared norms weighed by a symmetric matrix, a vector or a number."""
    d = x.shape[-1]
    if s.shape[-1] == d * d:
        return np.einsum("...k,...kl,...l->...", x, s.reshape(*s.shape[:-1], d, d), x)[..., None]
    return total(x * x * s)


def spline(knots: Any, x: Any, k: int) -> Any:
    """B-splines by the recurrence of Cox and de Boor."""
    found = [(knots[..., i] <= x[..., 0]) & (x[..., 0] < knots[..., i + 1]) for i in range(6)]
    values = [f.astype(float) for f in found]
    for order in range(1, k + 1):
        values = [
            (x[..., 0] - knots[..., i]) / (knots[..., i + order] - knots[..., i]) * values[i]
            + (knots[..., i + order + 1] - x[..., 0])
            / (knots[..., i + order + 1] - knots[..., i + 1])
            * values[i + 1]
            for i in range(len(values) - 1)
        ]
    return np.stack(np.broadcast_arrays(*values), axis=-1)


SYMMETRIC = (lambda m: (m + m.T).reshape(1, 1, 9))(W.reshape(3, 3))
Z = X - Y  # of both signs
L = lambda a: LazyTensor(a)  # noqa: E731
Zs = lambda: L(X) - L(Y)  # noqa: E731

# method: (lazy, dense) of each of its cases; a lazy one is a function, built when it is run
METHODS: dict[str, list[tuple[Any, Any]]] = {
    "exp": [(lambda: Zs().exp(), np.exp(Z))],
    "log": [(lambda: (L(X) * L(Y)).log(), np.log(X * Y))],
    "xlogx": [(lambda: (L(X) * L(Y)).xlogx(), X * Y * np.log(X * Y))],
    "cos": [(lambda: Zs().cos(), np.cos(Z))],
    "sin": [(lambda: Zs().sin(), np.sin(Z))],
    "tanh": [(lambda: Zs().tanh(), np.tanh(Z))],
    "sinxdivx": [(lambda: Zs().sinxdivx(), np.sin(Z) / Z)],
    "sinc": [(lambda: Zs().sinc(), np.sinc(Z)), (lambda: (L(X) * 0.0 + L(X) - L(X)).sinc(), X**0)],
    "asin": [(lambda: (Zs() / 2).asin(), np.arcsin(Z / 2))],
    "acos": [(lambda: (Zs() / 2).acos(), np.arccos(Z / 2))],
    "atan": [(lambda: Zs().atan(), np.arctan(Z))],
    "atan2": [
        (lambda: Zs().atan2(L(X)), np.arctan2(Z, X)),
        (lambda: Zs().atan2(other=L(-Y)), np.arctan2(Z, -Y)),
    ],
    "sqrt": [(lambda: (L(X) * L(Y)).sqrt(), np.sqrt(X * Y))],
    "rsqrt": [(lambda: (L(X) * L(Y)).rsqrt(), (X * Y) ** -0.5)],
    "square": [(lambda: Zs().square(), Z**2)],
    "inv": [(lambda: Zs().inv(), 1 / Z)],
    "abs": [(lambda: Zs().abs(), np.abs(Z))],
    "sign": [(lambda: Zs().sign(), np.sign(Z)), (lambda: (L(X) - X).sign(), 0 * X)],
    "step": [(lambda: Zs().step(), (Z >= 0) * 1.0), (lambda: (L(X) - X).step(), X**0)],
    "relu": [(lambda: Zs().relu(), np.maximum(Z, 0))],
    "floor": [(lambda: (3 * Zs()).floor(), np.floor(3 * Z))],
    "power": [
        (lambda: L(X).power(3), X**3),
        (lambda: L(X).power(0.3), X**0.3),
        (lambda: L(X).power(L(Y)), X**Y),
    ],
    "powf": [(lambda: L(X).powf(L(Y)), X**Y)],
    "round": [
        (lambda: (3 * Zs()).round(), np.round(3 * Z)),
        (lambda: Zs().round(1), np.round(Z, 1)),
        (lambda: (100 * Zs()).round(-1), np.round(100 * Z, -1)),
    ],
    "mod": [
        (lambda: Zs().mod(0.3), np.mod(Z, 0.3)),
        (lambda: Zs().mod(2), np.mod(Z, 2)),
        (lambda: (3 * Zs()).mod(1.5, -0.5), np.mod(3 * Z + 0.5, 1.5) - 0.5),
        (lambda: Zs().mod(modulus=L(X), offset=L(Y)), np.mod(Z - Y, X) + Y),
    ],
    "clamp": [
        (lambda: (3 * Zs()).clamp(-1, 1), np.clip(3 * Z, -1, 1)),
        (lambda: Zs().clamp(-0.25, 0.5), np.clip(Z, -0.25, 0.5)),
        (lambda: Zs().clamp(L(-X / 4), L(Y / 4)), np.clip(Z, -X / 4, Y / 4)),
        (lambda: Zs().clamp(min=0.1), np.maximum(Z, 0.1)),
        (lambda: Zs().clamp(max=1), np.minimum(Z, 1)),
    ],
    "clip": [(lambda: Zs().clip(-0.25, 0.5), np.clip(Z, -0.25, 0.5))],
    "pow": [(lambda: L(X).pow(L(Y)), X**Y)],
    "ifelse": [
        (lambda: Zs().ifelse(L(X), L(Y)), np.where(Z >= 0, X, Y)),
        (lambda: Zs().ifelse(1, 0.5), np.where(Z >= 0, 1, 0.5)),
    ],
    "sqnorm2": [(lambda: Zs().sqnorm2(), total(Z**2))],
    "norm2": [(lambda: Zs().norm2(), total(Z**2) ** 0.5)],
    "norm": [
        (lambda: Zs().norm(), total(Z**2) ** 0.5),
        (lambda: Zs().norm(-1), total(Z**2) ** 0.5),
        (lambda: Zs().norm(dim=2), total(Z**2) ** 0.5),
    ],
    "normalize": [(lambda: Zs().normalize(), Z / total(Z**2) ** 0.5)],
    "sqdist": [
        (lambda: L(X).sqdist(L(Y)), total(Z**2)),
        (lambda: L(X).sqdist(Y), total(Z**2)),
        (lambda: L(X).sqdist(L(T)), total((X - T) ** 2)),
    ],
    "weightedsqnorm": [
        (lambda: Zs().weightedsqnorm(2.5), 2.5 * total(Z**2)),
        (lambda: Zs().weightedsqnorm([1.0, 2.0, 0.5]), total(Z**2 * [1.0, 2.0, 0.5])),
        (lambda: Zs().weightedsqnorm(L(X)), total(Z**2 * X)),
        (lambda: Zs().weightedsqnorm(L(SYMMETRIC)), weighted(Z, SYMMETRIC)),
    ],
    "weightedsqdist": [
        (lambda: L(X).weightedsqdist(L(Y), 2.5), 2.5 * total(Z**2)),
        (lambda: L(X).weightedsqdist(g=L(Y), s=L(SYMMETRIC)), weighted(Z, SYMMETRIC)),
    ],
    "softdtw_sqdist": [
        (lambda: L(X).softdtw_sqdist(L(Y), 0.5), soft_dtw(X, Y, 0.5)),
        (lambda: L(X).softdtw_sqdist(L(Y), gamma=1.5), soft_dtw(X, Y, 1.5)),
    ],
    "difference_matrix": [
        (
            lambda: L(X).difference_matrix(L(Y)),
            (X[..., :, None] - Y[..., None, :]).reshape(M, N, D * D),
        )
    ],
    "elem": [(lambda: Zs().elem(1), Z[..., 1:2]), (lambda: Zs().elem(i=np.int64(0)), Z[..., :1])],
    "extract": [(lambda: Zs().extract(1, 2), Z[..., 1:]), (lambda: Zs().extract(i=0, d=3), Z)],
    "one_hot": [
        (
            lambda: L(np.arange(M)[:, None, None] % 5.0).one_hot(D=5),
            np.eye(5)[np.arange(M)[:, None] % 5],
        )
    ],
    "bspline": [
        (lambda: L(K).bspline(L(T + 1.5), 2), spline(K, T + 1.5, 2)),
        (lambda: L(K).bspline(L(T + 1.5)), spline(K, T + 1.5, 0)),
        (lambda: L(K).bspline(x=1.5, k=1), spline(K, np.full((1, 1, 1), 1.5), 1)),
    ],
    "concat": [
        (lambda: L(X).concat(L(A)), np.concatenate([X, A], -1)),
        (lambda: L(X).concat([1.0, 2.0]), np.concatenate([X, np.tile([1.0, 2], (M, 1, 1))], -1)),
    ],
    "concatenate": [
        (lambda: LazyTensor.concatenate((L(X), L(A), L(S))), np.concatenate([X, A, S], -1)),
        (lambda: LazyTensor.concatenate([L(X), L(A)], axis=2), np.concatenate([X, A], -1)),
        (lambda: LazyTensor.concatenate((X, L(A)), axis=-1), np.concatenate([X, A], -1)),
        (lambda: LazyTensor.concatenate((L(X),)), X),
    ],
    "cat": [(lambda: LazyTensor.cat((L(X), L(A)), dim=2), np.concatenate([X, A], -1))],
    "matvecmult": [
        (
            lambda: L(A).matvecmult(L(V)),
            np.einsum("mxkl,xnl->mnk", A.reshape(M, 1, 2, 3), V),
        )
    ],
    "vecmatmult": [
        (lambda: L(V).vecmatmult(L(A)), np.einsum("xnk,mxkl->mnl", V, A.reshape(M, 1, 3, 2)))
    ],
    "tensorprod": [
        (lambda: L(A).tensorprod(L(V)), np.einsum("mxk,xnl->mnkl", A, V).reshape(M, N, 18))
    ],
    "keops_tensordot": [
        (
            lambda: L(A).keops_tensordot(L(V), (2, 3), (3,), (1,), (0,)),
            np.einsum("mxkl,xnl->mnk", A.reshape(M, 1, 2, 3), V),
        ),
        (
            lambda: L(A).keops_tensordot(L(V), [2, 3], [3, 1], [], [], [3, 2, 1, 0]),
            np.einsum("mxkl,xnp->mnplk", A.reshape(M, 1, 2, 3), V).reshape(M, N, 18),
        ),
    ],
    "keops_kron": [
        (
            lambda: L(A).keops_kron(L(V), (2, 3), (3, 1)),
            np.einsum("mxkl,xnp->mnkpl", A.reshape(M, 1, 2, 3), V).reshape(M, N, 18),
        )
    ],
    "factorize": [(lambda: Zs().exp().factorize(Zs()), np.exp(Z))],
    "auto_factorize": [(lambda: Zs().exp().auto_factorize(), np.exp(Z))],
    "sum": [
        (lambda: Zs().sum(), total(Z)),
        (lambda: Zs().sum(-1), total(Z)),
        (lambda: Zs().sum(dim=2), total(Z)),
        (lambda: Zs().sum(axis=2, keepdim=True), total(Z)),
        (lambda: Zs().sum(dim=-1, keepdims=False), total(Z)),
    ],
    "min": [(lambda: Zs().min(), Z.min(-1, keepdims=True))],
    "max": [(lambda: Zs().max(dim=-1, keepdim=True), Z.max(-1, keepdims=True))],
    "argmin": [(lambda: Zs().argmin(axis=2), Z.argmin(-1)[..., None] * 1.0)],
    "argmax": [(lambda: Zs().argmax(), Z.argmax(-1)[..., None] * 1.0)],
    "real": [(lambda: Zs().real, Z)],
    "imag": [(lambda: Zs().imag, 0 * Z)],
    "conj": [(lambda: Zs().conj(), Z)],
    "angle": [(lambda: Zs().angle(), np.angle(Z))],
    "real2complex": [(lambda: Zs().real2complex().real, Z)],
    "imag2complex": [(lambda: Zs().imag2complex().imag, Z)],
    "exp1j": [(lambda: Zs().exp1j().imag, np.sin(Z))],
    "t": [(lambda: (2 * L(X) + L(Y)).t(), np.swapaxes(2 * X + Y, 0, 1))],
    "T": [(lambda: (2 * L(X) + L(Y)).T, np.swapaxes(2 * X + Y, 0, 1))],
    "to": [(lambda: Zs().to("float64"), Z)],
    "maximum": [
        (lambda: L(X).maximum(L(Y)), np.maximum(X, Y)),
        (lambda: Zs().maximum(np.nan), np.nan * Z),
        (lambda: (np.nan * Zs()).maximum(1), np.nan * Z),
    ],
    **{
        name: [(lambda name=name: getattr(Zs(), name)(), getattr(np, name)(Z))]
        for name in ("expm1", "tan", "sinh", "cosh")
    },
    "log1p": [(lambda: (L(X) * L(Y)).log1p(), np.log1p(X * Y))],
    "sigmoid": [(lambda: Zs().sigmoid(), special.expit(Z))],
    "softplus": [(lambda: Zs().softplus(), np.logaddexp(0, Z))],
    "asinh": [(lambda: Zs().asinh(), np.arcsinh(Z))],
    "acosh": [(lambda: (1 + L(X) * L(Y)).acosh(), np.arccosh(1 + X * Y))],
    "atanh": [(lambda: (Zs() / 2).atanh(), np.arctanh(Z / 2))],
    "hypot": [(lambda: Zs().hypot(L(X)), np.hypot(Z, X))],
    "erf": [(lambda: Zs().erf(), special.erf(Z))],
    "erfc": [(lambda: Zs().erfc(), special.erfc(Z))],
    "lgamma": [(lambda: Zs().lgamma(), special.gammaln(Z))],
    "digamma": [(lambda: L(X).digamma() * L(Y), special.digamma(X) * Y)],
    "polygamma": [(lambda: L(X).polygamma(2) * L(Y), special.polygamma(2, X) * Y)],
    "logical_and": [(lambda: (Zs() > 0).logical_and(L(X)), np.logical_and(Z > 0, X) * 1.0)],
    "logical_or": [(lambda: (Zs() > 0).logical_or(L(Y) > 1), np.logical_or(Z > 0, Y > 1) * 1.0)],
    "logical_not": [(lambda: Zs().logical_not(), 0.0 * Z)],
    "minimum": [(lambda: Zs().minimum(0.1), np.minimum(Z, 0.1))],
    "where": [(lambda: Zs().where(L(X) < L(Y), 0.5), np.where(X < Y, Z, 0.5))],
}


def _derivatives() -> dict[str, list[tuple[Any, Any]]]:
    """f = |x - y|^2 exp(x), and its derivatives in x."""
    x, y = L(X), L(Y)
    f = x.sqdist(y) * x.exp()
    square = total(Z**2)
    jacobian = 2 * Z[..., None, :] * np.exp(X)[..., :, None]
    jacobian = jacobian + (square * np.exp(X))[..., None] * np.eye(3)
    return {
        "grad": [
            (lambda: f.grad(x, L(U)), np.einsum("mnkl,mnk->mnl", jacobian, U + 0 * Z)),
            (lambda: x.sqdist(y).grad(other=x, gradin=1), 2 * Z),
        ],
        "diff": [(lambda: f.diff(x, L(U)), np.einsum("mnkl,mnl->mnk", jacobian, U + 0 * Z))],
        "grad_matrix": [(lambda: f.grad_matrix(x), jacobian.reshape(M, N, 9))],
        "divergence": [(lambda: f.divergence(var=x), np.einsum("mnkk->mn", jacobian)[..., None])],
        "laplacian": [
            (lambda: x.sqdist(y).exp().laplacian(x), np.exp(square) * (4 * square + 2 * D))
        ],
    }


METHODS |= _derivatives()

# Tested elsewhere: reductions, linear operators and attributes in their own files.
REDUCTIONS = {
    *("reduction", "sum_reduction", "min_reduction", "max_reduction", "argmin_reduction"),
    *("argmax_reduction", "min_argmin", "max_argmax", "min_argmin_reduction", "Kmin", "argKmin"),
    *("max_argmax_reduction", "Kmin_argKmin", "Kmin_reduction", "argKmin_reduction", "logsumexp"),
    *("Kmin_argKmin_reduction", "logsumexp_reduction", "sumsoftmaxweight"),
    *("sumsoftmaxweight_reduction", "mean", "prod", "any", "all", "count", "var", "softmax"),
}
OPERATORS = {"solve", "matvec", "rmatvec", "matmat", "rmatmat"}
TABLES = {"dense", "toarray", "diag", "trace"}  # test_lazytensor_tables.py
LINEAR = {"trace_operator", "adjoint_operator", "sum_lin_operator"}
ATTRIBUTES = {
    *("shape", "ndim", "dim", "dtype", "device", "batchdims", "nbatchdims", "is_complex"),
    *("symbols", "explain", "class_for"),
}
INTERNALS = {"binary_with_real", "with_arrays", "on_leaves", "restored"}


def test_every_public_name_has_a_case() -> None:
    known = set(METHODS) | REDUCTIONS | OPERATORS | LINEAR | TABLES | ATTRIBUTES | INTERNALS
    public = {name for name in dir(LazyTensor) if not name.startswith("_")}
    assert public - {"binary_with_real"} == known - {"binary_with_real"}
    assert all(METHODS.values())


def test_every_row_with_a_method_name_is_a_method() -> None:
    for op in OPERATIONS.values():
        if op.method is not None:
            kind = ComplexLazyTensor if op.args[0] == "z" else LazyTensor
            assert hasattr(kind, op.method), op.name


@pytest.mark.parametrize(
    ("name", "case"), [(name, n) for name, cases in METHODS.items() for n in range(len(cases))]
)
def test_methods(name: str, case: int) -> None:
    lazy, dense = METHODS[name][case]
    agree(lazy(), np.asarray(dense), name)


# -- linear formulas, whose variable is a symbol that disappears -----------------------------------


def test_operators_of_linear_formulas() -> None:
    v = Vi(0, 3)
    f = (L(X) | v) * L(Y)
    dense = Y[..., :, None] * X[..., None, :]
    trace = f.trace_operator(v)
    assert not trace.symbols
    agree(trace, np.einsum("mnkk->mn", dense)[..., None])
    agree(f.trace_operator(var=v, w=L(U)), np.einsum("mnkk,mnk->mn", dense, U + 0 * Z)[..., None])
    agree(f.adjoint_operator(v, L(U)), np.einsum("mnkl,mnk->mnl", dense, U + 0 * Z))
    agree(f.sum_lin_operator(v), dense.sum((-1, -2))[..., None])
    for left, right, wanted in (
        (L(U), None, np.einsum("mnkl,mnk->mn", dense, U + 0 * Z)),
        (None, L(V), np.einsum("mnkl,mnl->mn", dense, V + 0 * Z)),
        (L(U), L(V), np.einsum("mnkl,mnk,mnl->mn", dense, U + 0 * Z, V + 0 * Z)),
    ):
        agree(f.sum_lin_operator(v, left, right), wanted[..., None])
    with pytest.raises(FormulaError, match="linear"):
        (v | v).trace_operator(v)
    assert [leaf.symbol for leaf in f.grad(v, L(U)).symbols] == [0]


# -- signatures and help ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("exp", "(self)"),
        ("sqdist", "(self, other)"),
        ("ifelse", "(self, other1, other2)"),
        ("grad", "(self, other, gradin)"),
        ("extract", "(self, i, d)"),
        ("one_hot", "(self, D)"),
        ("softdtw_sqdist", "(self, other, gamma)"),
        ("keops_tensordot", "(self, other, dimfa, dimfb, contfa, contfb, permute=())"),
        ("tanh", "(self)"),
        ("powf", "(self, y)"),
    ],
)
def test_generated_methods_have_signatures(name: str, wanted: str) -> None:
    assert str(inspect.signature(getattr(LazyTensor, name))) == wanted


def test_generated_methods_have_help() -> None:
    for name in METHODS:
        found = inspect.getdoc(getattr(LazyTensor, name))
        assert found, name
    text = inspect.getdoc(LazyTensor.sqdist)
    assert text is not None
    assert "Squared Euclidean distance" in text
    assert "SqDist(x, y)" in text


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda x: x.exp(1), TypeError),
        (lambda x: x.sqdist(), TypeError),
        (lambda x: x.sqdist(x, x), TypeError),
        (lambda x: x.sqdist(y=x), TypeError),
        (lambda x: x.extract(0.0, 1), OptionError),
        (lambda x: x.elem(True), OptionError),
        (lambda x: x.elem("1"), OptionError),
        (lambda x: x.elem(3), DimError),
        (lambda x: x.elem(-1), DimError),
        (lambda x: x.extract(2, 2), DimError),
        (lambda x: x.one_hot(3), DimError),
        (lambda x: x.round(0.5), OptionError),
        (lambda x: x.norm(1), OptionError),
        (lambda x: x.norm(True), OptionError),
        (lambda x: x.sum(-1, keepdim=2), OptionError),
        (lambda x: x.sum(-1, keep=True), TypeError),
        (lambda x: x.max(True), OptionError),
        (lambda x: x.weightedsqnorm([1.0, 2.0]), DimError),
        (lambda x: x.keops_kron(x, 3, 3), OptionError),
        (lambda x: LazyTensor.concatenate(()), ValueError),
        (lambda x: LazyTensor.concatenate((x, x), axis=1), OptionError),
        (lambda x: x.grad(2 * x, x), FormulaError),
        (lambda x: x.grad(x, x[0]), FormulaError),
        (lambda x: x.atan2([1.0, 2.0]), DimError),
    ],
)
def test_wrong_arguments_are_refused(call: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        call(LazyTensor(X))


def test_symbols_take_every_method() -> None:
    x, y = Vi(0, 3), Vj(1, 3)
    found = (x - y).sqnorm2().exp().sum(axis=1)(X[:, 0], Y[0])
    np.testing.assert_allclose(found, np.exp(total(Z**2)).sum(1))
