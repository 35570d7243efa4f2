"""Preconditioners with a name: the same solutions as LAPACK's, in few iterations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from checks import assert_close

import pairfold
from pairfold.arrays.registry import NUMPY
from pairfold.errors import OptionError, SolveError, UnsupportedError
from pairfold.frontends.entries import Entries
from pairfold.frontends.linear import ConjugateGradientSolver
from pairfold.frontends.preconditioners import (
    NAMES,
    LowRank,
    Matrix,
    factor,
    nystrom,
    pivoted_cholesky,
)
from pairfold.numpy import LazyTensor, Vi, Vj

GAUSSIAN = "Exp(-SqDist(x,y))*b"
ROWS = 203


def table(x: Any, g: Any = 1.0) -> Any:
    """The dense Gaussian kernel."""
    return np.exp(-g * ((x[..., :, None, :] - x[..., None, :, :]) ** 2).sum(-1))


def data(rows: int = ROWS, dims: int = 2, width: int = 2, scale: float = 0.4) -> tuple[Any, Any]:
    """Points of a smooth kernel, and noise."""
    rng = np.random.default_rng(3)
    return rng.random((rows, dims)) / scale, rng.normal(size=(rows, width))


def known(matrix: Any, rounding: float = 1e-16) -> Matrix:
    diagonal = np.diagonal(matrix, 0, -2, -1)
    return Matrix(
        NUMPY, matrix.shape[-1], lambda places: matrix[..., places], lambda: diagonal, rounding
    )


class Counted:
    """A callback that counts iterations."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, n: int, norms: Any) -> None:
        self.count = n


def solved(solve: Any, *args: Any, **options: Any) -> tuple[Any, int]:
    """A solution and its number of iterations."""
    counted = Counted()
    return solve(*args, **options, callback=counted), counted.count


# -- factors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("batch", [(), (3,)])
def test_factors_come_close_to_the_matrix(name, batch):
    rng = np.random.default_rng(0)
    matrix = table(rng.random((*batch, 80, 2)))
    errors = []
    for rank in (5, 20, 40):
        found = factor(name, known(matrix), rank)
        assert found.shape[:-1] == (*batch, 80)
        assert found.shape[-1] <= rank
        errors.append(abs(matrix - found @ np.swapaxes(found, -1, -2)).max())
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-5
    again = factor(name, known(matrix), 20)
    assert (again == factor(name, known(matrix), 20)).all()


def test_the_whole_matrix_is_reproduced():
    rng = np.random.default_rng(1)
    basis = rng.normal(size=(30, 30))
    matrix = basis @ basis.T + np.eye(30)
    for method in (nystrom, pivoted_cholesky):
        found = method(known(matrix), 30)
        assert_close(found @ found.T, matrix, rtol=1e-10)


def test_pivots_are_the_largest_entries_that_remain():
    matrix = np.diag([1.0, 5.0, 3.0, 4.0])
    assert pivoted_cholesky(known(matrix), 2).T.tolist() == [[0, 5**0.5, 0, 0], [0, 0, 0, 2]]
    singular = np.outer([1.0, 2.0, 3.0], [1.0, 2.0, 3.0])
    assert_close(pivoted_cholesky(known(singular), 3), np.array([[1.0], [2.0], [3.0]]))
    assert pivoted_cholesky(known(np.zeros((3, 3))), 2).tolist() == [[0.0]] * 3


@pytest.mark.parametrize("shift", [0.1, 1e-6])
def test_the_inverse_is_that_of_the_factor(shift):
    """(I - P P_exact) vanishes on the range of L, up to the factor that is documented."""
    rng = np.random.default_rng(2)
    low = rng.normal(size=(40, 6))
    whole = low @ low.T + shift * np.eye(40)
    least = np.linalg.eigvalsh(low @ low.T)[-6]
    product = LowRank(NUMPY, low, shift)(whole)
    assert_close(product @ low, (least + shift) * low, rtol=1e-7)
    assert_close(np.linalg.eigvalsh((product + product.T) / 2)[0], np.array(shift), rtol=1e-4)


# -- solutions -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("dtype", "alpha", "rtol"), [("float64", 1e-4, 1e-6), ("float32", 0.01, 1e-3)]
)
def test_solutions_are_those_of_the_dense_system(name, dtype, alpha, rtol):
    x, b = (array.astype(dtype) for array in data())
    solve = pairfold.KernelSolve(GAUSSIAN, ["x = Vi(2)", "y = Vj(2)", "b = Vj(2)"], "b", axis=1)
    plain = solved(solve, x, x, b, alpha=alpha, preconditioner=None)
    got, count = solved(solve, x, x, b, alpha=alpha, preconditioner=name, rank=80)
    want = np.linalg.solve(table(x.astype("float64")) + alpha * np.eye(ROWS), b)
    assert got.dtype == dtype
    assert_close(got, want, rtol=rtol)
    assert count < plain[1] / 5
    again, _ = solved(solve, x, x, b, alpha=alpha, preconditioner=name, rank=80)
    assert (got == again).all()


@pytest.mark.parametrize("name", NAMES)
def test_the_sum_may_be_over_i_and_arrays_may_have_batches(name):
    x, b = data()
    points = np.stack([x, 1.5 * x])[:, None]
    solve = pairfold.KernelSolve(GAUSSIAN, ["x = Vi(2)", "y = Vj(2)", "b = Vi(2)"], "b")
    got, count = solved(solve, points, points, b[None, None], alpha=1e-3, preconditioner=name)
    want = np.linalg.solve(table(points) + 1e-3 * np.eye(ROWS), b[None, None])
    assert got.shape == (2, 1, ROWS, 2)
    assert_close(got, want, rtol=1e-6)
    assert count < 20


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(ROWS, 1), (1, 2), (ROWS, 2)])
def test_alpha_may_be_a_diagonal(name, shape):
    x, b = data()
    alpha = 10 ** np.random.default_rng(0).uniform(-4, 1, size=shape)
    solve = pairfold.KernelSolve(GAUSSIAN, ["x = Vi(2)", "y = Vj(2)", "b = Vj(2)"], "b", axis=1)
    got, count = solved(solve, x, x, b, alpha=alpha, preconditioner=name)
    for column, diagonal in enumerate(np.broadcast_to(alpha, (ROWS, 2)).T):
        want = np.linalg.solve(table(x) + np.diag(diagonal), b[:, column])
        assert_close(got[:, column], want, rtol=1e-5)
    assert count < 20


@pytest.mark.parametrize("name", NAMES)
def test_components_may_have_kernels_of_their_own_and_mix(name):
    x, b = data()
    apart = pairfold.KernelSolve(
        "Exp(-Square(x-y))*b", ["x = Vi(2)", "y = Vj(2)", "b = Vj(2)"], "b", axis=1
    )
    got, count = solved(apart, x, x, b, alpha=1e-3, preconditioner=name, rank=60)
    for column in range(2):
        matrix = table(x[:, column : column + 1]) + 1e-3 * np.eye(ROWS)
        assert_close(got[:, column], np.linalg.solve(matrix, b[:, column]), rtol=1e-6)
    assert count < 20
    aliases = ["x = Vi(2)", "y = Vj(2)", "b = Vj(2)", "A = Pm(4)"]
    mixed = pairfold.KernelSolve("Exp(-SqDist(x,y))*MatVecMult(A,b)", aliases, "b", axis=1)
    mix = np.array([[2.0, 0.9], [0.9, 1.0]])
    given = (x, x, b, mix.reshape(4))
    plain = solved(mixed, *given, alpha=1e-3, preconditioner=None)
    got, count = solved(mixed, *given, alpha=1e-3, preconditioner=name, rank=160)
    matrix = np.kron(table(x), mix) + 1e-3 * np.eye(2 * ROWS)
    assert_close(got, np.linalg.solve(matrix, b.reshape(-1)).reshape(b.shape), rtol=1e-6)
    assert count < plain[1] / 5


def test_half_precision():
    x, b = (array.astype("float16") for array in data())
    K = (-((Vi(x) - Vj(x)) ** 2).sum(-1)).exp()
    got = K.solve(b, alpha=0.5, preconditioner="nystrom")
    want = np.linalg.solve(table(x.astype("float64")) + 0.5 * np.eye(ROWS), b.astype("float64"))
    assert K.solve(b[:, :1], alpha=0.5, preconditioner="nystrom").shape == (ROWS, 1)
    assert got.dtype == "float16"
    assert_close(got, want, rtol=2e-3, atol=2e-3 * abs(want).max())


# -- chosen by themselves --------------------------------------------------------------------------


@pytest.fixture
def builds(monkeypatch):
    """The ranks of the preconditioners that are made."""
    ranks: list[Any] = []
    made = Entries.inverse

    def inverse(self, library, args, b, alpha, name, rank, call):
        ranks.append(rank)
        return made(self, library, args, b, alpha, name, rank, call)

    monkeypatch.setattr(Entries, "inverse", inverse)
    return ranks


@pytest.mark.parametrize("alpha", [1e-3, 1e-6])
def test_systems_of_many_iterations_choose_one(builds, alpha):
    x, b = data(600)
    K = (-((Vi(x) - Vj(x)) ** 2).sum(-1)).exp()
    plain = solved(K.solve, b[:, 0], alpha=1e-3, preconditioner=None)
    assert builds == []
    got, count = solved(K.solve, b[:, 0], alpha=alpha)
    want = np.linalg.solve(table(x) + alpha * np.eye(600), b[:, 0])
    assert_close(got, want, rtol=1e-5)
    assert builds
    assert count < plain[1] / 2


def test_systems_of_few_iterations_choose_none(builds):
    x, b = data(600)
    K = (-((Vi(x) - Vj(x)) ** 2).sum(-1)).exp()
    for alpha in (100.0, 1000.0):
        plain = solved(K.solve, b, alpha=alpha, preconditioner=None)
        chosen = solved(K.solve, b, alpha=alpha)
        assert (plain[0] == chosen[0]).all()
        assert plain[1] == chosen[1]
    assert builds == []
    near = (-400 * ((Vi(x) - Vj(x)) ** 2).sum(-1)).exp()  # nearly the identity: tried, once
    assert (near.solve(b) == near.solve(b, preconditioner=None)).all()
    assert len(builds) == 1


def test_the_default_alpha_on_a_smooth_kernel_is_not_endless():
    """10^-10 is at the limit of float64 here: the residual comes as near to 0 as LAPACK's."""
    x, b = data(1000, 2, 1)
    K = (-((Vi(x) - Vj(x)) ** 2).sum(-1)).exp()
    got, count = solved(K.solve, b)
    matrix = table(x) + 1e-10 * np.eye(1000)
    limit = np.linalg.norm(matrix @ np.linalg.solve(matrix, b) - b)
    assert np.linalg.norm(matrix @ got - b) < 100 * limit
    assert count < 1000


# -- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"preconditioner": "nystroem"}, "did you mean nystrom"),
        ({"preconditioner": "cholesky"}, "pivoted-cholesky"),
        ({"preconditioner": 3}, "function"),
        ({"preconditioner": "nystrom", "rank": 0}, "rank"),
        ({"preconditioner": "nystrom", "rank": 2.5}, "rank"),
        ({"preconditioner": "nystrom", "rank": True}, "rank"),
        ({"preconditioner": lambda r: r, "rank": 3}, "nystrom"),
        ({"preconditioner": None, "rank": 3}, "nystrom"),
        ({"preconditioner": "auto", "rank": 3}, "nystrom"),
    ],
)
def test_wrong_options_are_refused(options, words):
    x, b = data(10)
    solve = pairfold.KernelSolve(GAUSSIAN, ["x = Vi(2)", "y = Vj(2)", "b = Vj(2)"], "b", axis=1)
    with pytest.raises(OptionError, match=words):
        solve(x, x, b, **options)
    with pytest.raises(OptionError, match=words):
        LazyTensor(x[:, None]).sqdist(LazyTensor(x[None])).solve(b, **options)


def test_sums_without_columns_are_refused():
    x, b = data(10)
    whole = np.array([[0, 10]]), np.array([1]), np.array([[0, 10]])
    solve = pairfold.KernelSolve(GAUSSIAN, ["x = Vi(2)", "y = Vj(2)", "b = Vj(2)"], "b", axis=1)
    with pytest.raises(UnsupportedError, match="all pairs"):
        solve(x, x, b, alpha=1.0, preconditioner="nystrom", ranges=whole * 2)
    diagonal = pairfold.KernelSolve(
        "Exp(-SqDist(x,y))*b", ["x = Vi(2)", "y = Vj(2)", "b = Vi(2)"], "b", axis=1
    )
    with pytest.raises(UnsupportedError, match="index of the sum"):
        diagonal(x, x, b, alpha=1.0, preconditioner="nystrom")
    sums = table(x).sum(1, keepdims=True)
    assert_close(diagonal(x, x, b, alpha=1.0, tol=1e-12), b / (1 + sums), rtol=1e-9)


def test_kernels_that_are_not_positive_are_refused_as_before():
    x, b = data()
    K = -(-((Vi(x) - Vj(x)) ** 2).sum(-1)).exp()
    for name in (*NAMES, "auto", None):
        with pytest.raises(SolveError, match="not positive definite"):
            K.solve(b, alpha=1e-3, preconditioner=name)


@pytest.mark.parametrize("name", NAMES)
def test_arguments_that_are_not_finite_are_refused(name):
    x, b = data()
    x[7] = np.nan
    K = (-((Vi(x) - Vj(x)) ** 2).sum(-1)).exp()
    with pytest.raises(SolveError, match="finite"):
        K.solve(b, alpha=1e-3, preconditioner=name)


@pytest.mark.parametrize("name", NAMES)
def test_systems_may_be_small_or_empty(name):
    x, b = data(1)
    for rows in (0, 1):
        K = (-((Vi(x[:rows]) - Vj(x[:rows])) ** 2).sum(-1)).exp()
        assert_close(K.solve(b[:rows], alpha=1.0, preconditioner=name), b[:rows] / 2, rtol=1e-9)


def test_operators_that_are_functions_take_functions():
    with pytest.raises(OptionError, match="KernelSolve"):
        ConjugateGradientSolver("numpy", lambda a: a, np.ones(3), preconditioner="nystrom")
