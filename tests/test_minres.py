"""Minimal residuals and methods of users, beside dense solutions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from checks import assert_close

import pairfold
from pairfold import numpy as ours
from pairfold.arrays.registry import NUMPY
from pairfold.errors import ArrayTypeError, OptionError, ShapeError, SolveError, UnsupportedError
from pairfold.frontends.conjugate import Stop
from pairfold.frontends.minres import minimal_residuals

NAMES = ["x=Vi(2)", "y=Vj(2)", "b=Vj(3)"]
# Distances are negative definite on vectors of sum 0: their matrix has both signs.
DISTANCES = pairfold.KernelSolve("Norm2(x-y)*b", NAMES, "b", axis=1)
DRAWN = np.random.default_rng(4)
X, B = DRAWN.normal(size=(23, 2)), DRAWN.normal(size=(23, 3))


def distances(x: Any) -> Any:
    return np.sqrt(((x[..., :, None, :] - x[..., None, :, :]) ** 2).sum(-1))


@pytest.mark.parametrize(("dtype", "tol"), [("float64", 1e-10), ("float32", 1e-3)])
def test_systems_that_are_not_definite(dtype: str, tol: float):
    x, b = X.astype(dtype), B.astype(dtype)
    residuals: list[np.ndarray[Any, Any]] = []
    found = DISTANCES(
        x, x, b, alpha=0.1, method="minres", tol=tol, callback=lambda _, r: residuals.append(r)
    )
    matrix = 0.1 * np.eye(23) + distances(X)
    assert np.linalg.eigvalsh(matrix)[0] < -1
    error = np.linalg.norm(matrix @ found - B, axis=0) / np.linalg.norm(B, axis=0)
    assert found.dtype == dtype
    assert error.max() < 2 * tol
    steps = np.diff(np.concatenate(residuals)[:, 0], axis=0)
    assert (steps <= 1e-3 * tol + 1e-6 * np.linalg.norm(B)).all()  # residuals only shrink
    with pytest.raises(SolveError, match="not positive definite"):
        DISTANCES(x, x, b, alpha=0.1)


def test_a_preconditioner_that_is_a_function():
    matrix = 0.1 * np.eye(23) + distances(X)
    vectors, values = np.linalg.eigh(matrix)[::-1]
    inverse = vectors / np.abs(values) @ vectors.T
    for scale in (1.0, 1e-3):
        found = ours.Vi(X)
        kernel = (found - ours.Vj(X)).norm2()
        seen: list[int] = []
        got = kernel.solve(
            B,
            alpha=0.1,
            method="minres",
            preconditioner=lambda r, s=scale: s * inverse @ r,
            tol=1e-9,
            callback=lambda n, _, s=seen: s.append(n),
        )
        assert_close(got, np.linalg.solve(matrix, B), rtol=1e-7)
        assert len(seen) <= 4  # eigenvalues are 1 and -1
    with pytest.raises(SolveError, match="preconditioner is not positive"):
        DISTANCES(X, X, B, method="minres", preconditioner=lambda r: -r)


def test_batches_are_solved_by_themselves():
    x = DRAWN.normal(size=(4, 17, 2))
    b, scales = DRAWN.normal(size=(4, 17, 3)), 10.0 ** np.arange(4)[:, None, None]
    found = DISTANCES(x, x, scales * b, alpha=0.3, method="minres", tol=1e-11)
    want = np.linalg.solve(0.3 * np.eye(17) + distances(x), b)
    assert_close(found / scales, want, rtol=1e-6)


def test_small_and_empty_systems():
    for count in (0, 1):
        x, b = X[:count], B[:count]
        found = DISTANCES(x, x, b, alpha=2.0, method="minres", tol=1e-12)
        assert_close(found, b / 2)
    assert not DISTANCES(X, X, 0 * B, method="minres").any()


def test_what_cannot_be_solved_is_said():
    singular = np.diag([1.0, 0.0])
    with pytest.raises(SolveError, match=r"singular|come to an end"):
        minimal_residuals(NUMPY, lambda a: singular @ a, np.ones((2, 1)), (-2,), Stop())
    turned = np.random.default_rng(0).normal(size=(6, 6))
    with pytest.raises(SolveError, match="not symmetric: minimal residuals") as caught:
        minimal_residuals(NUMPY, lambda a: turned @ a, np.ones((6, 1)), (-2,), Stop(maxiter=5))
    assert caught.value.solution is not None
    with pytest.raises(SolveError, match="minimal residuals did not converge in 3 iterations"):
        DISTANCES(X, X, B, alpha=0.1, method="minres", maxiter=3)
    with pytest.raises(SolveError, match="finite"):
        DISTANCES(X, X, B * np.nan, method="minres")
    with pytest.raises(OptionError, match="minres"):
        DISTANCES(X, X, B, method="gmres")
    with pytest.raises(OptionError, match="positive definite matrices"):
        DISTANCES(X, X, B, method="minres", preconditioner="nystrom")


def dense_method(product: Any, b: Any) -> Any:
    """The matrix of a product, and its solution: any system that has one."""
    count = b.shape[-2]
    unit = np.eye(count) if isinstance(b, np.ndarray) else b.new_ones(count).diag()
    columns = [product(unit[:, n : n + 1] + 0 * b)[:, :1] for n in range(count)]
    if isinstance(b, np.ndarray):
        return np.linalg.solve(np.concatenate(columns, 1), b)
    import torch

    return torch.linalg.solve(torch.cat(columns, 1), b)


SHIFTED = pairfold.KernelSolve(
    "Exp(x-y)/(1+SqDist(x,y))*b", ["x=Vi(1)", "y=Vj(1)", "b=Vj(2)"], "b", 1
)


@pytest.mark.parametrize("method", ["minres", dense_method])
def test_derivatives_are_those_of_dense_solutions(method: Any):
    torch = pytest.importorskip("torch")
    x = torch.tensor(X[:9], requires_grad=True)
    b = torch.tensor(B[:9], requires_grad=True)
    alpha = torch.tensor(0.2, dtype=torch.float64, requires_grad=True)
    tol = {} if callable(method) else {"tol": 1e-12}

    def dense(x: Any, b: Any, alpha: Any) -> Any:
        apart = ((x[:, None] - x[None]) ** 2).sum(-1)
        unit = torch.eye(9, dtype=x.dtype)
        far = (apart + unit).sqrt() * (1 - unit)
        return torch.linalg.solve(far + alpha * unit, b)

    def solved(x: Any, b: Any, alpha: Any) -> Any:
        return DISTANCES(x, x, b, alpha=alpha, method=method, **tol)

    given = x, b, alpha
    for program in (
        lambda f: f,
        lambda f: lambda *a: torch.autograd.grad(f(*a).sin().sum(), a, create_graph=True),
    ):
        ours_, theirs = program(solved)(*given), program(dense)(*given)
        for one, other in zip(
            ours_ if isinstance(ours_, tuple) else (ours_,),
            theirs if isinstance(theirs, tuple) else (theirs,),
            strict=True,
        ):
            assert_close(one.detach().numpy(), other.detach().numpy(), rtol=1e-6, atol=1e-8)


def test_systems_that_are_not_symmetric_by_a_method_of_ones_own():
    torch = pytest.importorskip("torch")
    x = torch.linspace(0, 1, 9, dtype=torch.float64)[:, None].requires_grad_()
    b = torch.tensor(B[:9, :2], requires_grad=True)
    matrix = (x - x.T).exp() / (1 + (x - x.T) ** 2) + 0.5 * torch.eye(9, dtype=x.dtype)
    want = torch.linalg.solve(matrix, b)
    found = SHIFTED(x, x, b, alpha=0.5, method=dense_method)
    assert_close(found.detach().numpy(), want.detach().numpy(), rtol=1e-9)
    for one, other in zip(
        *(torch.autograd.grad(a.cos().sum(), (x, b)) for a in (found, want)), strict=True
    ):
        assert_close(one.numpy(), other.numpy(), rtol=1e-8, atol=1e-10)


def test_methods_are_checked():
    with pytest.raises(ShapeError, match="b's shape"):
        DISTANCES(X, X, B, method=lambda product, b: b[1:])
    with pytest.raises(ArrayTypeError, match="array like b"):
        DISTANCES(X, X, B, method=lambda product, b: None)
    with pytest.raises(OptionError, match="method of ours"):
        DISTANCES(X, X, B, method=dense_method, preconditioner="nystrom")
    jax = pytest.importorskip("jax")
    x, b = (jax.numpy.asarray(array) for array in (X, B))
    with pytest.raises(UnsupportedError, match="by name"):
        DISTANCES(x, x, b, method=dense_method)
    found = DISTANCES(x, x, b, alpha=0.1, method="minres", tol=1e-4)
    want = np.linalg.solve(0.1 * np.eye(23) + distances(X), B)
    assert_close(np.asarray(found), want, rtol=0.05, atol=1e-2)
