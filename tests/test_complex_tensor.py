"""Lazy tensors of complex numbers, against NumPy's own complex arithmetic."""

from __future__ import annotations

import numpy as np
import pytest

from pairfold.numpy import ComplexLazyTensor, LazyTensor

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


def test_complex_arrays_make_complex_tensors_and_single_precision_stays():
    z = LazyTensor(Z.astype("complex64"))
    assert isinstance(z, ComplexLazyTensor)
    assert (z.is_complex, z.dtype, z.shape) == (True, "complex64", (M, 1, D))
    assert z.sum(axis=0).dtype == np.complex64


@pytest.mark.parametrize("name", ["min", "argmax", "logsumexp"])
def test_what_needs_an_order_is_refused(name):
    with pytest.raises((TypeError, ValueError)):
        getattr(LazyTensor(Z), name)(axis=0)


def test_gradients_agree_with_torch():
    torch = pytest.importorskip("torch")
    z, w = (torch.tensor(a, requires_grad=True) for a in (Z, W))
    lazy = (LazyTensor(z) * LazyTensor(w)).exp().sum(axis=1)
    dense = (z * w).exp().sum(dim=1)
    assert torch.allclose(lazy, dense)
    for found, wanted in zip(
        torch.autograd.grad(lazy.abs().sum(), (z, w)),
        torch.autograd.grad(dense.abs().sum(), (z, w)),
        strict=True,
    ):
        assert torch.allclose(found, wanted)
