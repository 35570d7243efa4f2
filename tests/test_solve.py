"""KernelSolve and LazyTensor.solve, against dense matrices of NumPy and torch."""

from __future__ import annotations

import itertools
import pickle
from typing import Any

import numpy as np
import pytest
from checks import assert_close

import pairfold
import pairfold.numpy
import pairfold.torch
from pairfold.errors import (
    ArrayTypeError,
    DimError,
    FormulaError,
    OptionError,
    ShapeError,
    SolveError,
)
from pairfold.frontends.linear import ConjugateGradientSolver, KernelLinearSolver
from pairfold.numpy import LazyTensor, Vi, Vj

FORMULA = "Exp(-g*SqDist(x,y))*b"
ALIASES = ["x = Vi(3)", "y = Vj(3)", "b = Vj(2)", "g = Pm(1)"]
ROWS = 37


def kernel(x: Any, y: Any, g: float = 1.0) -> Any:
    """The dense Gaussian kernel, of NumPy arrays or torch tensors (..., M, D)."""
    return np.exp(-g * ((x[..., :, None, :] - y[..., None, :, :]) ** 2).sum(-1))


def data(dtype: Any = "float64", rows: int = ROWS, seed: int = 0) -> tuple[Any, Any, Any]:
    """Points, right-hand sides, the parameter."""
    rng = np.random.default_rng(seed)
    x, b = rng.normal(size=(rows, 3)), rng.normal(size=(rows, 2))
    return x.astype(dtype), b.astype(dtype), np.array([0.7], dtype)


def dense(x: Any, b: Any, g: Any, alpha: Any) -> Any:
    """The solution by LAPACK, in float64."""
    x, b = x.astype("float64"), b.astype("float64")
    diagonal = np.broadcast_to(np.asarray(alpha, "float64"), (x.shape[0],))
    return np.linalg.solve(kernel(x, x, float(g[0])) + np.diag(diagonal), b)


# -- solutions -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [pairfold.KernelSolve, pairfold.numpy.KernelSolve])
@pytest.mark.parametrize(("dtype", "rtol"), [("float64", 1e-9), ("float32", 1e-4)])
@pytest.mark.parametrize("rows", [1, 2, ROWS, 301])
def test_solutions_are_those_of_the_dense_system(kind, dtype, rtol, rows):
    x, b, g = data(dtype, rows)
    got = kind(FORMULA, ALIASES, "b", axis=1)(x, x, b, g, alpha=0.3, eps=1e-12, tol=rtol / 100)
    assert got.dtype == b.dtype
    assert_close(got, dense(x, b, g, 0.3), rtol=rtol)


def test_the_sum_may_be_over_i():
    x, b, g = data()
    aliases = ["x = Vi(3)", "y = Vj(3)", "b = Vi(2)", "g = Pm(1)"]
    got = pairfold.KernelSolve(FORMULA, aliases, "b")(x, x, b, g, alpha=0.3, tol=1e-12)
    assert_close(got, dense(x, b, g, 0.3), rtol=1e-9)


@pytest.mark.parametrize("unknown", ["b", "Var(1,2,1)", " Var( 1, 2, 1 ) "])
def test_positions_are_those_of_the_aliases(unknown):
    x, b, g = data()
    aliases = ["g = Pm(3,1)", "b = Vj(1,2)", "y = Vj(2,3)", "x = Vi(0,3)"]
    solve = pairfold.KernelSolve(FORMULA, aliases, unknown, axis=1)
    assert_close(solve(x, b, x, g, alpha=0.3, tol=1e-12), dense(x, b, g, 0.3), rtol=1e-9)


def test_every_right_hand_side_has_its_own_criterion():
    x, b, g = data()
    b = b * [1e5, 1e-3]
    solve = pairfold.KernelSolve(FORMULA, ALIASES, "b", axis=1)
    matrix = kernel(x, x, 0.7) + 0.3 * np.eye(ROWS)
    for eps in (1e-4, 1e-8):
        residual = matrix @ solve(x, x, b, g, alpha=0.3, eps=eps) - b
        assert (np.linalg.norm(residual, axis=0) <= ROWS**0.5 * eps * 1.01).all()
    residual = matrix @ solve(x, x, b, g, alpha=0.3, tol=1e-7) - b
    assert (np.linalg.norm(residual, axis=0) <= 1.01e-7 * np.linalg.norm(b, axis=0)).all()


def test_what_is_solved_is_frozen_while_others_go_on():
    x, b, g = data()
    b = b * [1e6, 1.0]
    seen: list[Any] = []
    solve = pairfold.KernelSolve(FORMULA, ALIASES, "b", axis=1)
    solve(x, x, b, g, alpha=0.3, eps=1e-3, callback=lambda n, norms: seen.append((n, norms.copy())))
    assert [n for n, _ in seen] == list(range(1, len(seen) + 1))
    norms = np.array([found for _, found in seen])[:, 0, :]
    limit = ROWS**0.5 * 1e-3
    first = int(np.argmax(norms[:, 1] <= limit))
    assert first < len(seen) - 1
    assert (norms[first:, 1] == norms[first, 1]).all()
    assert norms[-2, 0] > limit >= norms[-1, 0]


def test_a_right_hand_side_of_zeros_has_the_solution_zero():
    x, b, g = data()
    b[:, 1] = 0
    solve = pairfold.KernelSolve(FORMULA, ALIASES, "b", axis=1)
    got = solve(x, x, b, g, alpha=0.3, tol=1e-12)
    assert (got[:, 1] == 0).all()
    assert_close(got, dense(x, b, g, 0.3), rtol=1e-9)
    assert (solve(x, x, b * 1e-9, g, alpha=0.3) == 0).all()  # within eps of 0, as in PyKeOps
    assert solve(x[:0], x[:0], b[:0], g).shape == (0, 2)


def test_batches_broadcast_and_each_element_has_its_own_steps():
    rng = np.random.default_rng(1)
    x, b = rng.normal(size=(2, 1, 19, 3)), rng.normal(size=(3, 19, 2))
    b[1] *= 1e4
    g = np.array([[[0.5]], [[2.0]]])
    solve = pairfold.KernelSolve(FORMULA, ALIASES, "b", axis=1)
    got = solve(x, x, b, g, alpha=0.3, tol=1e-12)
    matrix = kernel(x, x, g[..., None]) + 0.3 * np.eye(19)
    want = np.linalg.solve(matrix, np.broadcast_to(b, (2, 3, 19, 2)))
    assert got.shape == (2, 3, 19, 2)
    for index in np.ndindex(2, 3):
        assert_close(got[index], want[index], rtol=1e-9)


def test_formulas_that_mix_components_are_one_system():
    x, b, _ = data()
    mix = np.array([[2.0, 0.9], [0.9, 1.0]])
    aliases = ["x = Vi(3)", "y = Vj(3)", "b = Vj(2)", "A = Pm(4)"]
    solve = pairfold.KernelSolve("Exp(-SqDist(x,y))*MatVecMult(A,b)", aliases, "b", axis=1)
    got = solve(x, x, b, mix.reshape(4), alpha=0.3, tol=1e-13)
    matrix = np.kron(kernel(x, x), mix) + 0.3 * np.eye(2 * ROWS)
    assert_close(got, np.linalg.solve(matrix, b.reshape(-1)).reshape(b.shape), rtol=1e-9)


@pytest.mark.parametrize(
    "alpha", [0.5, np.float32(0.5), np.array(0.5), np.array([0.5]), np.linspace(0.2, 2, ROWS)]
)
def test_alpha_is_a_number_or_an_array(alpha):
    x, b, g = data()
    column = alpha[:, None] if np.size(alpha) > 1 else alpha
    solve = pairfold.KernelSolve(FORMULA, ALIASES, "b", axis=1)
    assert_close(solve(x, x, b, g, alpha=column, tol=1e-12), dense(x, b, g, alpha), rtol=1e-9)


def test_a_preconditioner_saves_iterations():
    x, b, _ = data()
    weights = np.logspace(-3, 3, ROWS)
    aliases = ["x = Vi(3)", "y = Vj(3)", "b = Vj(2)", "v = Vi(1)", "w = Vj(1)"]
    solve = pairfold.KernelSolve("v*w*Exp(-9*SqDist(x,y))*b", aliases, "b", axis=1)
    column = weights[:, None]
    counts: list[int] = []
    options: dict[str, Any] = {"alpha": 1e-8, "tol": 1e-10, "maxiter": 100000}
    for precondition in (None, lambda r: r / column**2):
        seen: list[int] = []
        got = solve(
            *(x, x, b, column, column),
            **options,
            preconditioner=precondition,
            callback=lambda n, _, seen=seen: seen.append(n),
        )
        counts.append(len(seen))
    matrix = column * kernel(x, x, 9.0) * weights + 1e-8 * np.eye(ROWS)
    assert_close((got * column), np.linalg.solve(matrix, b) * column, rtol=1e-5)
    assert counts[1] < counts[0] / 2


def test_a_progress_bar_is_shown_on_request(capsys):
    pytest.importorskip("tqdm")
    x, b, g = data()
    solve = pairfold.KernelSolve(FORMULA, ALIASES, "b", axis=1)
    solve(x, x, b, g, alpha=0.3)
    assert capsys.readouterr().err == ""
    with pairfold.settings(progress=True):
        solve(x, x, b, g, alpha=0.3)
    assert "pairfold solve" in capsys.readouterr().err


# -- what cannot be solved -------------------------------------------------------------------------


def test_an_operator_that_is_not_positive_is_refused():
    x, b, g = data()
    solve = pairfold.KernelSolve("-" + FORMULA, ALIASES, "b", axis=1)
    with pytest.raises(SolveError, match="not positive definite") as caught:
        solve(x, x, b, g)
    assert "iteration 1" in str(caught.value)
    assert "alpha" in str(caught.value.hint)
    with pytest.raises(ArithmeticError):
        pairfold.KernelSolve("0.5*(x|y)*b", ALIASES[:3], "b", axis=1)(x, x, b, alpha=-1.0)


def test_too_few_iterations_are_an_error_that_says_how_far():
    x, b, g = data()
    solve = pairfold.KernelSolve(FORMULA, ALIASES, "b", axis=1)
    with pytest.raises(SolveError, match="did not converge in 2 iterations") as caught:
        solve(x, x, b * [1.0, 50.0], g, alpha=0.3, maxiter=2)
    assert caught.value.iterations == 2
    assert "right-hand side (0, 1); 2 of 2 are not solved" in str(caught.value.found)
    assert "maxiter" in str(caught.value.hint)


def smooth_system(rows: int, dims: int, scale: float, dtype: Any = "float64") -> Any:
    """Points, noise, and the dense kernel of a system with a very small least eigenvalue."""
    rng = np.random.default_rng(5)
    x, b = rng.random((rows, dims)).astype(dtype) / scale, rng.normal(size=(rows, 1)).astype(dtype)
    return x.astype(dtype), b, kernel(x.astype("float64"), x.astype("float64"))


@pytest.mark.parametrize(("dtype", "alpha"), [("float64", 1e-10), ("float32", 1e-6)])
def test_what_rounding_does_not_let_be_solved_ends_early(dtype, alpha):
    """Not even LAPACK reaches the tolerance, in the same precision."""
    x, b, matrix = smooth_system(400, 2, 0.3, dtype)
    matrix = (matrix + alpha * np.eye(len(x))).astype(dtype)
    exact = np.linalg.norm(matrix @ np.linalg.solve(matrix, b) - b) / len(x) ** 0.5
    assert exact > 1e-5
    K = (-((Vi(x) - Vj(x)) ** 2).sum(-1)).exp()
    with pytest.raises(SolveError, match="no progress in") as caught:
        K.solve(b, alpha=alpha, preconditioner=None)
    error = caught.value
    assert error.iterations < 500
    assert "the condition is at least" in error.found
    assert "rounding alone" in error.found
    assert "alpha" in error.hint
    assert ("float64" in error.hint) == (dtype == "float32")
    assert error.residuals.item() <= np.linalg.norm(b)


def test_rounding_may_make_a_system_indefinite():
    rng = np.random.default_rng(2)
    x = (3 * rng.random((400, 1))).astype("float32")
    K = (-((Vi(x) - Vj(x)) ** 2).sum(-1)).exp()
    with pytest.raises(SolveError, match="not positive definite") as caught:
        K.solve(rng.normal(size=(400, 1)).astype("float32"))
    assert "may be rounding" in caught.value.found
    assert "float64" in caught.value.hint


def test_residuals_may_stand_still_for_long():
    """A hundred iterations without progress, and solved in the end."""
    x, b, matrix = smooth_system(300, 3, 1.0)
    seen: list[float] = []
    K = (-((Vi(x) - Vj(x)) ** 2).sum(-1)).exp()
    options: dict[str, Any] = {"alpha": 1e-5, "preconditioner": None}
    got = K.solve(b, **options, callback=lambda _, norms: seen.append(norms.item()))
    assert min(seen[:100]) > 0.9 * np.linalg.norm(b)
    matrix = matrix + 1e-5 * np.eye(300)
    assert_close(got, np.linalg.solve(matrix, b), rtol=1e-5)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_operators_that_are_not_symmetric_end_early(dtype):
    """Their quadratic form may be positive, and residuals grow."""
    skew = 200 * np.triu(np.ones((20, 20)), 1)
    matrix = (np.diag(np.logspace(0, 3, 20)) + skew - skew.T).astype(dtype)
    with pytest.raises(SolveError, match="not symmetric") as caught:
        ConjugateGradientSolver("numpy", lambda a: matrix @ a, np.ones(20, dtype), maxiter=100000)
    assert caught.value.iterations < 100
    x, b, _ = data(dtype, 200)
    K = (-((Vi(x) - Vj(x + 1)) ** 2).sum(-1)).exp()
    with pytest.raises(SolveError, match=r"symmetric|positive"):
        K.solve(b, alpha=1e-3)


def test_residuals_that_grow_for_ever_end_early():
    values = np.logspace(-24, 0, 20).astype("float32")
    with pytest.raises(SolveError, match="diverge") as caught:
        ConjugateGradientSolver("numpy", lambda a: values * a, np.ones(20, "float32"))
    assert caught.value.iterations < 100


def test_spectra_from_coefficients():
    from pairfold.frontends.lanczos import extremes, tridiagonal

    rng = np.random.default_rng(0)
    for count in (1, 2, 40):
        steps, ratios = 10 ** rng.uniform(-1, 4, size=count), rng.random(count)
        diagonal, squares = tridiagonal(steps, ratios)
        beside = np.sqrt(squares)
        values = np.linalg.eigvalsh(np.diag(diagonal) + np.diag(beside, 1) + np.diag(beside, -1))
        assert_close(np.array(extremes(diagonal, squares)), values[[0, -1]], rtol=0.011, atol=0)


@pytest.mark.parametrize("flat", [False, True])
def test_nothing_is_lost_when_iterations_end_early(flat):
    """The error has the best iterates: with one more iteration they would have been solutions."""
    x, b, _ = data()
    b = b * [1.0, 1e-3]
    K = (-0.7 * ((Vi(x) - Vj(x)) ** 2).sum(-1)).exp()
    matrix = kernel(x, x, 0.7) + 0.3 * np.eye(ROWS)
    other = b[:, 0] if flat else b
    seen: list[Any] = []
    K.solve(other, alpha=0.3, callback=lambda n, norms: seen.append(norms.copy()))
    for most in (0, 1, 3, len(seen) - 1):
        with pytest.raises(SolveError) as caught:
            K.solve(other, alpha=0.3, maxiter=most)
        error = caught.value
        assert error.iterations == most
        assert error.solution.shape == other.shape
        norms = np.linalg.norm(matrix @ error.solution - other, axis=0)
        assert_close(error.residuals.reshape(norms.shape), norms, rtol=1e-6)
        before = [np.linalg.norm(b[:, : 1 if flat else 2], axis=0)[None], *seen[:most]]
        assert_close(norms, np.min(before, axis=0).reshape(norms.shape), rtol=1e-6)


def test_the_best_iterate_is_not_always_the_last():
    """A nearly singular operator, where residuals grow before they fall."""
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(30, 30)))[0]
    matrix = basis @ np.diag(np.logspace(-6, 0, 30)) @ basis.T
    b = rng.normal(size=30)
    norms = [np.linalg.norm(b)]
    for most in range(1, 12):
        with pytest.raises(SolveError) as caught:
            ConjugateGradientSolver("numpy", lambda a: matrix @ a, b, tol=1e-9, maxiter=most)
        norms.append(float(caught.value.residuals[0]))
        assert_close(np.linalg.norm(matrix @ caught.value.solution - b), norms[-1], rtol=1e-6)
    assert norms == sorted(norms, reverse=True)
    assert any(a == b for a, b in itertools.pairwise(norms))


def test_a_breakdown_keeps_what_was_found_before():
    """Right-hand sides that are solved before another meets a negative eigenvalue."""
    matrix = np.diag([1.0, 2.0, -1.0])
    b = np.array([[1.0, 1.0], [1.0, 2.0], [0.1, 0.0]])
    x = np.eye(3)
    formula = "(x|y)*b"
    solve = pairfold.KernelSolve(formula, ["x = Vi(3)", "y = Vj(3)", "b = Vj(2)"], "b", axis=1)
    with pytest.raises(SolveError, match="not positive definite") as caught:
        solve(x @ matrix, x, b, alpha=None)
    assert_close(matrix @ caught.value.solution[:, 1], b[:, 1], rtol=1e-9)
    assert caught.value.residuals.shape == (1, 2)
    with pytest.raises(SolveError, match="b is not finite") as caught:
        solve(x, x, b * np.nan, alpha=None)
    assert caught.value.solution is None


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_other_precisions(dtype):
    x, b, g = (a.astype(dtype) for a in data())
    solve = pairfold.KernelSolve(FORMULA, ALIASES, "b", axis=1)
    got = solve(x, x, b, g, alpha=0.5)
    assert got.dtype == dtype
    want = dense(x, b, g, 0.5)
    eps = float(np.finfo(dtype).eps)
    assert_close(got, want, rtol=max(eps, 1e-5), atol=max(eps, 1e-5) * np.abs(want).max())


def test_an_iteration_without_a_progress_bar_installed(monkeypatch, capsys):
    import sys

    x, b, g = data()
    solve = pairfold.KernelSolve(FORMULA, ALIASES, "b", axis=1)
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    with pairfold.settings(progress=True):
        assert_close(solve(x, x, b, g, alpha=0.3, tol=1e-12), dense(x, b, g, 0.3), rtol=1e-9)
    assert capsys.readouterr().err == ""


def test_an_error_in_a_callback_reaches_the_caller():
    x, b, g = data()

    def stop(n, norms):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pairfold.KernelSolve(FORMULA, ALIASES, "b", axis=1)(x, x, b, g, callback=stop)


def test_scipy_agrees():
    linalg = pytest.importorskip("scipy.sparse.linalg")
    x, b, g = data(rows=101)
    got = pairfold.numpy.KernelSolve(FORMULA, ALIASES, "b", axis=1)(
        *(x, x, b, g), alpha=0.3, tol=1e-12
    )
    K = (-0.7 * ((Vi(x) - Vj(x)) ** 2).sum(-1)).exp()
    shifted = linalg.aslinearoperator(K) + linalg.aslinearoperator(0.3 * np.eye(101))
    for column in range(2):
        want, status = linalg.cg(shifted, b[:, column], rtol=1e-12)
        assert status == 0
        assert_close(got[:, column], want, rtol=1e-9)

    def solved(v):
        return K.solve(v, alpha=0.3, tol=1e-10)

    inverse = linalg.LinearOperator((101, 101), matvec=solved, dtype=float)
    smallest = linalg.eigsh(inverse, k=1, v0=b[:, 0], return_eigenvectors=False)[0]
    values = np.linalg.eigvalsh(kernel(x, x, 0.7) + 0.3 * np.eye(101))
    assert_close(1 / smallest, values[0], rtol=1e-8)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("place", [0, 2])
def test_numbers_that_are_not_finite_end_the_iteration(bad, place):
    x, b, g = data()
    arguments = [x.copy(), x.copy(), b, g]
    arguments[place][3, 1] = bad
    solve = pairfold.KernelSolve(FORMULA, ALIASES, "b", axis=1)
    if place == 2 or np.isnan(bad):
        what = "b is not finite" if place == 2 else "left the finite numbers"
        with pytest.raises(SolveError, match=what):
            solve(*arguments, alpha=0.3)
    else:  # a point at infinity has no neighbours: an equation of zeros, which alpha cannot mend
        with pytest.raises(SolveError):
            solve(arguments[0], arguments[0], b, g, alpha=0.3)


def test_a_preconditioner_is_checked():
    x, b, g = data()
    solve = pairfold.KernelSolve(FORMULA, ALIASES, "b", axis=1)
    with pytest.raises(SolveError, match="preconditioner is not positive"):
        solve(x, x, b, g, preconditioner=lambda r: -r)
    with pytest.raises(ShapeError, match="preconditioner"):
        solve(x, x, b, g, preconditioner=lambda r: r[:-1])


@pytest.mark.parametrize(
    ("formula", "unknown", "error", "words"),
    [
        ("Exp(-g*SqDist(x,y))*Square(b)", "b", FormulaError, "linear"),
        ("Exp(-g*SqDist(x,y))*b + 1", "b", FormulaError, "linear"),
        ("Exp(-g*SqDist(x,y))", "b", FormulaError, "does not involve"),
        ("Exp(-g*SqDist(x,y))*Concat(b,b)", "b", DimError, "dimension"),
        (FORMULA, "g", FormulaError, "indexed by i or by j"),
        (FORMULA, "c", FormulaError, "c"),
        (FORMULA, "2*b", FormulaError, "alias of a variable"),
        (FORMULA, 2, OptionError, "alias of a variable"),
    ],
)
def test_formulas_that_are_no_systems_are_refused(formula, unknown, error, words):
    with pytest.raises(error, match=words):
        pairfold.KernelSolve(formula, ALIASES, unknown, axis=1)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"alpha": np.ones((2, 1, 1))}, ShapeError),
        ({"alpha": np.ones(5)}, ShapeError),
        ({"alpha": "much"}, OptionError),
        ({"eps": -1.0}, OptionError),
        ({"tol": np.nan}, OptionError),
        ({"maxiter": 2.5}, OptionError),
        ({"backend": "Gpu"}, OptionError),
    ],
)
def test_wrong_options_are_refused(options, error):
    x, b, g = data()
    with pytest.raises(error):
        pairfold.KernelSolve(FORMULA, ALIASES, "b", axis=1)(x, x, b, g, **options)


def test_a_system_is_square():
    x, b, g = data()
    solve = pairfold.KernelSolve(FORMULA, ALIASES, "b", axis=1)
    with pytest.raises(ShapeError, match="as many equations as unknowns"):
        solve(x[:-1], x, b, g)


def test_arguments_come_in_the_order_of_either_package():
    numpy = pairfold.numpy.KernelSolve(FORMULA, ALIASES, "b", 1, None, None, "float64")
    assert numpy.accuracy.dtype == "float64"
    torch = pairfold.torch.KernelSolve(FORMULA, ALIASES, "b", 1, "float64", False, "kahan_scheme")
    assert torch.accuracy.scheme == "kahan_scheme"
    for kind in (pairfold.torch.KernelSolve, pairfold.numpy.KernelSolve):
        for name in ("dtype", "cuda_type", "opt_arg"):
            with pytest.warns(DeprecationWarning, match="ignored") as seen:
                kind(FORMULA, ALIASES, "b", axis=1, **{name: "float32"})
            assert seen[0].filename == __file__


def test_objects_can_be_pickled():
    x, b, g = data()
    solve = pairfold.numpy.KernelSolve(FORMULA, ALIASES, "b", axis=1)
    again = pickle.loads(pickle.dumps(solve))
    assert type(again) is type(solve)
    assert (again(x, x, b, g, alpha=0.3) == solve(x, x, b, g, alpha=0.3)).all()


# -- lazy tensors ----------------------------------------------------------------------------------


def test_a_lazy_tensor_solves():
    x, b, g = data()
    K = (-0.7 * ((Vi(x) - Vj(x)) ** 2).sum(-1)).exp()
    want = dense(x, b, g, 0.3)
    options: dict[str, Any] = {"alpha": 0.3, "tol": 1e-12}
    for other in (b, Vi(b), Vj(b)):
        assert_close(K.solve(other, **options), want, rtol=1e-9)
    assert_close(K.solve(b[:, 0], **options), want[:, 0], rtol=1e-9)
    waiting = K.solve(b, call=False, **options)
    assert_close(waiting(), want, rtol=1e-9)
    assert_close(waiting(alpha=2.0), dense(x, b, g, 2.0), rtol=1e-9)


def test_a_lazy_tensor_with_batches_solves():
    x, b, _ = data()
    points = np.stack([x, 2 * x])
    i, j = LazyTensor(points[:, :, None, :]), LazyTensor(points[:, None, :, :])
    got = (-((i - j) ** 2).sum(-1)).exp().solve(b, alpha=0.3, tol=1e-12)
    want = np.linalg.solve(kernel(points, points) + 0.3 * np.eye(ROWS), np.stack([b, b]))
    assert_close(got, want, rtol=1e-9)


def test_lazy_systems_take_symbols():
    x, b, g = data()
    want = dense(x, b, g, 0.3)
    i, j = Vi(0, 3), Vj(1, 3)
    K = (-0.7 * ((i - j) ** 2).sum(-1)).exp()
    assert_close(K.solve(Vi(2, 2), alpha=0.3, tol=1e-12)(x, x, b), want, rtol=1e-9)
    unknown = Vj(3, 2)
    solve = (K * unknown).solve(Vi(2, 2), var=unknown, alpha=0.3)
    assert_close(solve(x, x, b, tol=1e-12), want, rtol=1e-9)
    K = (-0.7 * ((Vi(x) - Vj(x)) ** 2).sum(-1)).exp() * unknown
    assert_close(K.solve(b, var=unknown, alpha=0.3, tol=1e-12), want, rtol=1e-9)


def test_wrong_lazy_systems_are_refused():
    x, b, _ = data()
    K = (-((Vi(x) - Vj(x)) ** 2).sum(-1)).exp()
    with pytest.raises(ArrayTypeError, match="b must be"):
        K.solve(Vi(b) * 2)
    with pytest.raises(ArrayTypeError, match="b must be"):
        K.solve("b")
    with pytest.raises(OptionError, match="var must be"):
        K.solve(b, var=Vi(b))
    with pytest.raises(OptionError, match="symbol of the formula"):
        K.solve(b, var=Vj(0, 2))
    with pytest.raises(TypeError, match="epsilon"):
        K.solve(b, epsilon=1e-3)
    with pytest.raises(SolveError):
        K.solve(b, alpha=-2.0)
    with pytest.raises(ArrayTypeError, match="complex"):
        K.real2complex().solve(b)


def test_scipy_solves_with_a_lazy_tensor():
    linalg = pytest.importorskip("scipy.sparse.linalg")
    x, b, _ = data()
    matrix = linalg.aslinearoperator((-2 * ((Vi(x) - Vj(x)) ** 2).sum(-1)).exp())
    assert matrix.shape == (ROWS, ROWS)
    whole = kernel(x, x, 2.0)
    eye = linalg.aslinearoperator(0.3 * np.eye(ROWS))
    got, status = linalg.cg(matrix + eye, b[:, 0], rtol=1e-12)
    assert status == 0
    assert_close(got, np.linalg.solve(whole + 0.3 * np.eye(ROWS), b[:, 0]), rtol=1e-8)
    values = linalg.eigsh(matrix, k=4, v0=b[:, 1], return_eigenvectors=False)
    assert_close(np.sort(values), np.linalg.eigvalsh(whole)[-4:], rtol=1e-9)
    assert_close(matrix.T @ b, whole.T @ b)


# -- operators that are functions ------------------------------------------------------------------


def test_conjugate_gradients_take_any_operator():
    x, b, g = data()
    matrix = kernel(x, x, 0.7) + 0.3 * np.eye(ROWS)
    got = ConjugateGradientSolver("numpy", lambda a: matrix @ a, b, eps=1e-12)
    assert_close(got, dense(x, b, g, 0.3), rtol=1e-9)
    with pytest.raises(OptionError, match="binding"):
        ConjugateGradientSolver("jax", lambda a: a, b)
    with pytest.raises(ArrayTypeError):
        ConjugateGradientSolver("numpy", lambda a: a, b.tolist())


@pytest.mark.parametrize("binding", ["numpy", "torch"])
@pytest.mark.parametrize("precond", [False, True])
def test_the_kernel_solver_with_and_without_landmarks(binding, precond):
    x, b, _ = data(rows=151)
    want = np.linalg.solve(kernel(x, x, 0.25) + 0.05 * np.eye(151), b)
    if binding == "torch":
        x, b = map(pytest.importorskip("torch").from_numpy, (x, b))
    gaussian = ("gaussian", 3, 2, 2.0)
    got = KernelLinearSolver(binding, gaussian, x, b, alpha=0.05, eps=1e-11, precond=precond)
    assert_close(np.asarray(got), want, rtol=1e-9)
    with pytest.raises(OptionError, match="alpha"):
        KernelLinearSolver(binding, gaussian, x, b, precond=True)
    with pytest.raises(OptionError, match="tuple"):
        KernelLinearSolver(binding, ("cauchy", 3, 2, 1.0), x, b)


@pytest.mark.parametrize("table", [None, lambda x, y: kernel(x, y, 0.25)])
def test_landmarks_save_iterations(table):
    x, b, _ = data(rows=151)
    counts: list[int] = []

    def product(x: Any, y: Any, b: Any) -> Any:
        counts[-1] += b.shape[-1] == 2
        return kernel(x, y, 0.25) @ b

    for precond in (False, True):
        counts.append(0)
        got = KernelLinearSolver("numpy", product, x, b, 0.05, 1e-8, precond, table)
        residual = product(x, x, got) + 0.05 * got - b
        assert (np.linalg.norm(residual, axis=0) < 1.01e-8 * (1 if precond else 151**0.5)).all()
    assert counts[1] < 0.7 * counts[0]
