"""Lazy tensors of complex numbers, against NumPy's own complex arithmetic."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import pytest
import torch

from pairfold.errors import ArrayTypeError
from pairfold.numpy import ComplexLazyTensor, LazyTensor, Pm, Vi, Vj

pytestmark = pytest.mark.usefixtures("interpreted_kernels")

RNG = np.random.default_rng(0)
M, N, D = 5, 7, 3


def complexes(*shape: int):
    return RNG.normal(size=shape) + 1j * RNG.normal(size=shape)


Z, W = complexes(M, 1, D), complexes(1, N, D)
X, S = RNG.normal(size=(M, 1, D)), RNG.normal(size=(M, 1, 1))

FORMULAS = {
    "sum": lambda z, w, x, s: z + w,
    "difference": lambda z, w, x, s: z - w,
    "product": lambda z, w, x, s: z * w,
    "quotient": lambda z, w, x, s: z / w,
    "with real vectors": lambda z, w, x, s: (z * x + x - w / x) * (x - w),
    "with real scalars": lambda z, w, x, s: s * z + w * s,
    "with real numbers": lambda z, w, x, s: 2 * z - w / 4 + 1,
    "with complex numbers": lambda z, w, x, s: 2j * z - w * (1 + 1j),
    "of real tensors": lambda z, w, x, s: (1j * x) * w,
    "minus and conjugate": lambda z, w, x, s: -z.conj() * w,
    "real part": lambda z, w, x, s: (z * w).real,
    "imaginary part": lambda z, w, x, s: (z * w).imag,
    "modulus": lambda z, w, x, s: abs(z * w),
}


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("axis", [0, 1])
def test_formulas_agree_with_numpy(name, axis):
    formula = FORMULAS[name]
    found = formula(*map(LazyTensor, (Z, W, X, S))).sum(axis=axis)
    wanted = np.broadcast_to(formula(Z, W, X, S), (M, N, D)).sum(axis=axis)
    assert found.dtype == wanted.dtype
    np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("axis", [0, 1])
def test_components_of_complex_vectors_are_summed(axis):
    found = (LazyTensor(Z) * LazyTensor(W)).sum(-1).sum(axis=axis)
    np.testing.assert_allclose(found, (Z * W).sum(-1, keepdims=True).sum(axis=axis))


def test_the_exponential_and_the_unit_circle():
    z, w, x = map(LazyTensor, (Z, W, X))
    np.testing.assert_allclose((z + w).exp().sum(axis=1), np.exp(Z + W).sum(axis=1))
    np.testing.assert_allclose((x.exp1j() * w).sum(axis=1), (np.exp(1j * X) * W).sum(axis=1))


V = complexes(M, 1, 1)

# formula: (of lazy tensors, of arrays)
FUNCTIONS: dict[str, tuple[Any, Any]] = {
    "exp": (lambda z: z.exp(), np.exp),
    "log": (lambda z: z.log(), np.log),
    "sqrt": (lambda z: z.sqrt(), np.sqrt),
    "rsqrt": (lambda z: z.rsqrt(), lambda z: 1 / np.sqrt(z)),
    "cos": (lambda z: z.cos(), np.cos),
    "sin": (lambda z: z.sin(), np.sin),
    "tanh": (lambda z: z.tanh(), np.tanh),
    "square": (lambda z: z.square(), lambda z: z**2),
    "inv": (lambda z: z.inv(), lambda z: 1 / z),
    "abs": (lambda z: z.abs(), np.abs),
    "angle": (lambda z: z.angle(), np.angle),
    "conj": (lambda z: z.conj(), np.conj),
    "real": (lambda z: z.real, np.real),
    "imag": (lambda z: z.imag, np.imag),
    "sum": (lambda z: z.sum(), lambda z: z.sum(-1, keepdims=True)),
    "sqnorm2": (lambda z: z.sqnorm2(), lambda z: (abs(z) ** 2).sum(-1, keepdims=True)),
    "norm2": (lambda z: z.norm2(), lambda z: np.linalg.norm(z, axis=-1, keepdims=True)),
    "norm": (lambda z: z.norm(-1), lambda z: np.linalg.norm(z, axis=-1, keepdims=True)),
    "normalize": (
        lambda z: z.normalize(),
        lambda z: z / np.linalg.norm(z, axis=-1, keepdims=True),
    ),
    "sqdist": (lambda z: z.sqdist(z.conj()), lambda z: (4 * z.imag**2).sum(-1, keepdims=True)),
    "elem": (lambda z: z.elem(1), lambda z: z[..., 1:2]),
    "extract": (lambda z: z.extract(1, 2), lambda z: z[..., 1:3]),
    "z[k]": (lambda z: z[2], lambda z: z[..., 2:3]),
    "z[:, :, k]": (lambda z: z[:, :, 0], lambda z: z[..., 0:1]),
    "z[k:l]": (lambda z: z[1:], lambda z: z[..., 1:]),
    "z[-1]": (lambda z: z[-1], lambda z: z[..., -1:]),
    "z[::-1]": (lambda z: z[::-1], lambda z: z[..., ::-1]),
    "z[..., list]": (lambda z: z[..., [2, 0]], lambda z: z[..., [2, 0]]),
    "concat": (lambda z: z.concat(z[:1]), lambda z: np.concatenate([z, z[..., :1]], -1)),
    "concatenate": (
        lambda z: z.concatenate((z.real, z)),
        lambda z: np.concatenate([z.real, z], -1),
    ),
    "cat": (lambda z: z.cat((z, z), 2), lambda z: np.concatenate([z, z], -1)),
    "power": (lambda z: z.power(3), lambda z: z**3),
    "pow": (lambda z: z.pow(3), lambda z: z**3),
    "t": (lambda z: z.t(), lambda z: np.swapaxes(z, 0, 1)),
    "T": (lambda z: z.T, lambda z: np.swapaxes(z, 0, 1)),
    "to": (lambda z: z.to("complex128"), lambda z: z),
}
SCALARS = [2, 0.5, -1, 1, 0.0, 1j, 2 - 1j, np.float64(3), np.complex128(1 + 1j), np.complex64(2j)]
POWERS = [0, 1, 2, 5, -1, -3, 2.0, 0.5, -0.5, 0.3, -1.7, 1j, 0.5 - 2j]


def agree(lazy: Any, dense: Any, what: object = None) -> None:
    assert lazy.shape == (dense.shape[:-1] if dense.shape[-1] == 1 else dense.shape), what
    assert lazy.is_complex == np.iscomplexobj(dense), what
    for axis in (0, 1):
        found = lazy.sum(axis=axis)
        assert found.dtype == dense.dtype
        np.testing.assert_allclose(found, dense.sum(axis), 1e-12, 1e-12, err_msg=str(what))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name):
    lazy, dense = FUNCTIONS[name]
    agree(lazy(LazyTensor(Z)), np.asarray(dense(Z)), name)
    if name != "to":
        agree(lazy(LazyTensor(Z) * LazyTensor(W)), np.asarray(dense(Z * W)), name)


@pytest.mark.parametrize("scalar", SCALARS)
@pytest.mark.parametrize("name", ["add", "sub", "mul", "truediv", "eq", "ne"])
def test_operators_with_numbers(name, scalar):
    op = getattr(operator, name)
    z, x = LazyTensor(Z), LazyTensor(X)
    if name == "mul" and scalar == 0:
        assert op(z, scalar) == op(scalar, z) == 0
        return
    change = (lambda a: a * 1.0) if name in ("eq", "ne") else (lambda a: a)
    if not (name == "truediv" and scalar == 0):
        agree(op(z, scalar), change(op(Z, complex(scalar))), name)
    if not (name == "truediv" and scalar == 0):
        agree(op(scalar, z), change(op(complex(scalar), Z)), name)
    if isinstance(scalar, (complex, np.complexfloating)):
        agree(op(x, scalar), change(op(X, scalar)), name)
        agree(op(scalar, x), change(op(scalar, X)), name)


@pytest.mark.parametrize("power", POWERS)
def test_powers(power):
    agree(LazyTensor(Z) ** power, Z ** complex(power), power)
    agree(LazyTensor(Z * 0 + 2) ** power, 2.0 ** complex(power) + 0 * Z, power)


def test_powers_of_and_by_tensors():
    z, w, x = map(LazyTensor, (Z, W, X))
    agree(z**w, Z**W)
    agree(x**z, X.astype(complex) ** Z)
    agree(2**z, 2**Z)
    agree(1j**z, 1j**Z)
    agree(z ** LazyTensor(S), Z**S)
    agree((z * 0.0 + z - z) ** 1.5, 0 * Z)
    agree(x ** (1 + 1j), X.astype(complex) ** (1 + 1j))


def test_functions_at_the_edges():
    edge = np.array([1e-9, 1e-9j, -1, -2.5, 1j, -1j, 300.0, 3 + 40j]).reshape(8, 1, 1)
    for name in ("sin", "cos", "log", "sqrt", "exp"):
        lazy, dense = FUNCTIONS[name]
        found = lazy(LazyTensor(edge)).sum(axis=1)[:, 0]
        wanted = dense(edge)[:, 0, 0]
        np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-15, err_msg=name)
    assert LazyTensor(np.array([[[400 + 1j]]])).tanh().sum(axis=1).item() == 1
    assert LazyTensor(np.zeros((1, 1, 1), complex)).sqrt().sum(axis=1).item() == 0


def test_broadcasting():
    z, v, w = map(LazyTensor, (Z, V, W))
    for found, wanted in ((z + v, Z + V), (v * w, V * W), (w / v, W / V), (v - w, V - W)):
        agree(found, wanted)
    agree(z == LazyTensor(Z.copy()), (Z == Z) * 1.0)
    agree((z == v) + (v != w), (Z == V) * 1.0 + (V != W))
    with pytest.raises(ValueError):
        _ = z + z[:2]
    batch = np.stack([Z, 2 * Z])
    found = (LazyTensor(batch) * w).sum(axis=2)
    np.testing.assert_allclose(found, (batch * W).sum(2))


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (1j, [1j]),
        ([1j, 2j, 3j], [1j, 2j, 3j]),
        ([1, 2 - 1j, 0.5], [1, 2 - 1j, 0.5]),
        (np.complex64(1 + 2j), [1 + 2j]),
        (np.array([1j, 2]), [1j, 2]),
        (np.array(2j), [2j]),
    ],
)
def test_numbers_and_lists(given, wanted):
    made = LazyTensor(given)
    assert made.shape == ((1, 1) if len(wanted) == 1 else (1, 1, len(wanted)))
    one = LazyTensor(np.ones((2, 1, 1)))
    np.testing.assert_array_equal((made * one).sum(axis=1), np.tile(wanted, (2, 1)))


def test_constructors_of_arrays():
    np.testing.assert_array_equal(Vi(Z[:, 0]).sum(axis=1), Z[:, 0])
    np.testing.assert_array_equal(Vj(W[0]).sum(axis=0), W[0])
    assert Pm(1j).axis == 2
    strided = np.asfortranarray(Z[::2, :, ::-1])
    lazy = LazyTensor(strided)
    before = lazy.sum(axis=1)
    np.testing.assert_array_equal(before, strided[:, 0])
    strided *= 2
    np.testing.assert_array_equal(lazy.sum(axis=1), 2 * before)
    assert ComplexLazyTensor().is_complex
    assert ComplexLazyTensor(Z).sum(axis=1).dtype == complex
    for wrong in (True, "z", [], [True], [[1j]], X):
        with pytest.raises(ValueError):
            ComplexLazyTensor(wrong)


def test_matrices_times_vectors():
    k = LazyTensor(Z[..., :1]) * LazyTensor(W[..., :1])
    dense, v = Z[..., 0] * W[..., 0], complexes(N, 2)
    np.testing.assert_allclose(k @ v, dense @ v)
    np.testing.assert_allclose(k @ v[:, 0], dense @ v[:, 0])
    np.testing.assert_allclose(k @ v.real, dense @ v.real)
    np.testing.assert_allclose(k.conj() @ v, dense.conj() @ v)
    real = LazyTensor(X[..., :1]) * LazyTensor(W.real[..., :1])
    np.testing.assert_allclose(real @ v, (X[..., 0] * W.real[..., 0]) @ v)
    with pytest.raises(ValueError):
        _ = LazyTensor(Z) @ v


def test_means_keepdim_and_calls():
    z = LazyTensor(Z) * LazyTensor(W)
    np.testing.assert_allclose(z.reduction("Mean", axis=1), (Z * W).mean(1))
    np.testing.assert_allclose(z.sum(axis=1, keepdim=True), (Z * W).sum(1, keepdims=True))
    np.testing.assert_allclose(z.sum(axis=0, call=False)(), (Z * W).sum(0))


# -- what is refused -------------------------------------------------------------------------------

REFUSING = {
    *("acos", "asin", "atan", "atan2", "bspline", "clamp", "diff", "difference_matrix", "floor"),
    *("divergence", "exp1j", "grad", "grad_matrix", "ifelse", "imag2complex", "keops_kron"),
    *("keops_tensordot", "laplacian", "matvecmult", "mod", "one_hot", "powf", "real2complex"),
    *("relu", "round", "sign", "sinc", "sinxdivx", "softdtw_sqdist", "step", "tensorprod"),
    *("vecmatmult", "weightedsqdist", "weightedsqnorm", "xlogx", "trace_operator"),
    *("adjoint_operator", "sum_lin_operator", "factorize", "auto_factorize", "maximum", "minimum"),
    *("logical_and", "logical_or", "logical_not", "clip", "expm1", "log1p", "sigmoid", "softplus"),
    *("tan", "sinh", "cosh", "asinh", "acosh", "atanh", "hypot", "erf", "erfc", "lgamma"),
    *("digamma", "polygamma", "prod", "any", "all", "count", "var", "softmax"),
}
ORDERED = {"min", "max", "argmin", "argmax"}
REDUCING = {name for name in dir(LazyTensor) if "arg" in name or name.endswith("_reduction")}
REDUCING |= {"Kmin", "logsumexp", "sumsoftmaxweight"}
REDUCING -= {"sum_reduction", "argmin", "argmax"}


def test_every_public_name_is_defined_or_refused():
    public = {name for name in dir(ComplexLazyTensor) if not name.startswith("_")}
    shared = {
        *("solve", "matvec", "rmatvec", "matmat", "rmatmat", "reduction", "sum_reduction"),
        *("shape", "ndim", "dim", "dtype", "device", "batchdims", "nbatchdims", "is_complex"),
        *("symbols", "class_for", "binary_with_real", "with_arrays"),
        *("on_leaves", "restored", "explain", "where", "mean"),
        *("dense", "toarray", "diag", "trace"),
    }
    named = {name for name in FUNCTIONS if name.isidentifier()}
    known = named | REFUSING | ORDERED | REDUCING | shared
    assert public == known
    assert public >= {name for name in dir(LazyTensor) if not name.startswith("_")}


@pytest.mark.parametrize("name", sorted(REFUSING))
def test_what_has_no_complex_meaning_is_refused(name):
    with pytest.raises(ArrayTypeError, match=name) as caught:
        getattr(LazyTensor(Z), name)()
    assert caught.value.hint
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("name", sorted(ORDERED | REDUCING))
def test_what_needs_an_order_is_refused(name):
    options = {"K": 2} if "K" in name else {}
    if "sumsoftmax" in name:
        options = {"weight": LazyTensor(X)}
    with pytest.raises(ValueError, match="complex"):
        getattr(LazyTensor(Z), name)(axis=0, **options)
    if name in ORDERED:
        with pytest.raises(ValueError, match="order"):
            getattr(LazyTensor(Z), name)()


@pytest.mark.parametrize(
    "use",
    [
        lambda z, x: z | z,
        lambda z, x: x | z,
        lambda z, x: X | z,
        lambda z, x: z < 1,
        lambda z, x: x <= z,
        lambda z, x: z > z,
        lambda z, x: z <= 1j,
        lambda z, x: x.atan2(z),
        lambda z, x: x.sqdist(z),
        lambda z, x: x.concat(z),
        lambda z, x: x.ifelse(z, 1),
        lambda z, x: x.clamp(0, 1j),
        lambda z, x: x.mod(1j),
        lambda z, x: x.grad(x, z),
        lambda z, x: z[3],
        lambda z, x: z[-4],
        lambda z, x: z[2:1],
        lambda z, x: z[0:4],
        lambda z, x: z.elem(0.5),
        lambda z, x: z.extract(2, 2),
        lambda z, x: z.solve(X[:, 0]),
        lambda z, x: z.norm(0),
        lambda z, x: z + "1",
        lambda z, x: z * None,
        lambda z, x: z == None,  # noqa: E711
        lambda z, x: z ** [[1]],
        lambda z, x: z(),
        lambda z, x: z.sum(axis=-4),
    ],
)
def test_nothing_is_silently_wrong(use):
    with pytest.raises(ValueError):
        use(LazyTensor(Z), LazyTensor(X))


def test_complex_arrays_make_complex_tensors_and_single_precision_stays():
    z = LazyTensor(Z.astype("complex64"))
    assert isinstance(z, ComplexLazyTensor)
    assert (z.is_complex, z.dtype, z.shape) == (True, "complex64", (M, 1, D))
    assert (z.ndim, z._shape, abs(z).dtype) == (2 * D, (M, 1, 2 * D), "float32")
    assert z.sum(axis=0).dtype == np.complex64
    assert (z + 0.1j).sum(axis=0).dtype == np.complex64
    with pytest.raises(ValueError, match="dtype"):
        _ = z + LazyTensor(W)
    with pytest.raises(TypeError):
        iter(z)


# -- gradients -------------------------------------------------------------------------------------

GRADIENTS: dict[str, tuple[Any, Any]] = {
    "+": (lambda z, w, x: z + w, lambda z, w, x: z + w),
    "-": (lambda z, w, x: 1j - z - w, lambda z, w, x: 1j - z - w),
    "*": (lambda z, w, x: z * w, lambda z, w, x: z * w),
    "/": (lambda z, w, x: z / w, lambda z, w, x: z / w),
    "real scalar": (lambda z, w, x: x[0] * z, lambda z, w, x: x[..., :1] * z),
    "real vector": (lambda z, w, x: (x - w) / z, lambda z, w, x: (x - w) / z),
    "1/z": (lambda z, w, x: 1 / z, lambda z, w, x: 1 / z),
    "z**3": (lambda z, w, x: (z * w) ** 3, lambda z, w, x: (z * w) ** 3),
    "z**0.3": (lambda z, w, x: (z * w) ** 0.3, lambda z, w, x: (z * w) ** 0.3),
    "z**w": (lambda z, w, x: z**w, lambda z, w, x: z**w),
    "x**z": (lambda z, w, x: (x * x + 1) ** z, lambda z, w, x: (x * x + 1) ** z),
    "exp": (lambda z, w, x: (z * w).exp(), lambda z, w, x: (z * w).exp()),
    "exp1j": (lambda z, w, x: (z.real * x).exp1j(), lambda z, w, x: (1j * z.real * x).exp()),
    "log": (lambda z, w, x: (z * w).log(), lambda z, w, x: (z * w).log()),
    "sqrt": (lambda z, w, x: (z * w).sqrt(), lambda z, w, x: (z * w).sqrt()),
    "cos": (lambda z, w, x: (z * w).cos(), lambda z, w, x: (z * w).cos()),
    "sin": (lambda z, w, x: (z * w).sin(), lambda z, w, x: (z * w).sin()),
    "tanh": (lambda z, w, x: (z * w).tanh(), lambda z, w, x: (z * w).tanh()),
    "conj": (lambda z, w, x: (z * w).conj() * z, lambda z, w, x: (z * w).conj() * z),
    "parts": (
        lambda z, w, x: (z * w).real + 1j * (z.imag * x),
        lambda z, w, x: (z * w).real + 1j * (z.imag * x),
    ),
    "abs": (lambda z, w, x: abs(z * w), lambda z, w, x: abs(z * w)),
    "angle": (lambda z, w, x: (z * w).angle(), lambda z, w, x: (z * w).angle()),
    "sum": (lambda z, w, x: (z * w).sum(), lambda z, w, x: (z * w).sum(-1, keepdim=True)),
    "elem": (lambda z, w, x: (z * w)[1] * z, lambda z, w, x: (z * w)[..., 1:2] * z),
    "concat": (lambda z, w, x: z.concat(w * z), lambda z, w, x: torch.cat([z + 0 * w, w * z], -1)),
    "norm2": (lambda z, w, x: (z * w).norm2(), lambda z, w, x: (z * w).norm(dim=-1, keepdim=True)),
    "normalize": (
        lambda z, w, x: (z * w).normalize(),
        lambda z, w, x: (z * w) / (z * w).norm(dim=-1, keepdim=True),
    ),
}


TWICE = {"*", "/", "exp", "sqrt", "abs"}


@pytest.mark.parametrize(("name", "axis"), [(name, n % 2) for n, name in enumerate(GRADIENTS)])
def test_gradients_agree_with_torch(name, axis):
    formula, dense_formula = GRADIENTS[name]
    arrays = [torch.tensor(a, requires_grad=True) for a in (Z, W, X)]
    lazy = formula(*map(LazyTensor, arrays)).sum(axis=axis)
    dense = dense_formula(*arrays).sum(axis)
    torch.testing.assert_close(lazy, dense, rtol=1e-10, atol=1e-10)
    weight = torch.tensor(complexes(*lazy.shape))
    weight = weight if lazy.is_complex() else weight.real.clone()
    found, wanted = (gradients((r * weight).real.sum(), arrays, name) for r in (lazy, dense))
    compare(found, wanted)
    if name in TWICE:
        found, wanted = (
            gradients(sum((g * g.conj()).real.sum() for g in first[:2]), arrays, name)
            for first in (found, wanted)
        )
        compare(found, wanted)


def gradients(loss, arrays, name):
    found = torch.autograd.grad(loss, arrays, allow_unused=True, create_graph=name in TWICE)
    return [torch.zeros_like(a) if g is None else g for a, g in zip(arrays, found, strict=True)]


def compare(found, wanted):
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_torch_arrays_with_a_conjugate_bit():
    z = torch.tensor(Z).conj()
    torch.testing.assert_close(LazyTensor(z).sum(axis=1), z.resolve_conj().sum(1))
    torch.testing.assert_close(LazyTensor(z.imag).sum(axis=1), z.imag.sum(1))


def test_slopes_at_zero_are_zero():
    z = torch.zeros(1, 1, 1, dtype=torch.complex128, requires_grad=True)
    lazy = LazyTensor(z)
    for made in (abs(lazy), lazy.angle(), lazy.sqrt().real, lazy.norm2()):
        (found,) = torch.autograd.grad(made.sum(axis=1).sum(), z)
        assert found.item() == 0
