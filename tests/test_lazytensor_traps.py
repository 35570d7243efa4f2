"""Natural Python on lazy tensors: what the same program says of dense arrays, or an error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from checks import assert_close

from pairfold import Genred
from pairfold.errors import ArrayTypeError, DimError
from pairfold.numpy import LazyTensor, Pm, Vi, Vj, where

RNG = np.random.default_rng(11)
M, N = 13, 17
# Some coordinates are shared, so that comparisons meet equal numbers.
X, Y = RNG.integers(0, 4, (M, 1, 2)) / 4.0, RNG.integers(0, 4, (1, N, 2)) / 4.0
DENSE = ((X - Y) ** 2).sum(-1, keepdims=True)
DTYPES = ("float32", "float64")
libraries = pytest.mark.parametrize("make", [np.asarray, torch.as_tensor], ids=["numpy", "torch"])


def agree(lazy: Any, dense: Any, what: object = None) -> None:
    """Both sums of a lazy tensor are those of a dense array (..., M, N, D)."""
    dense = np.broadcast_to(dense, np.broadcast_shapes(dense.shape, (M, N, 1)))
    for axis in (dense.ndim - 3, dense.ndim - 2):
        found, wanted = np.asarray(lazy.sum(axis=axis)), dense.sum(axis)
        for part in (np.real, np.imag):
            assert_close(part(found), part(wanted), terms=dense.shape[axis], formula=(what, axis))


# -- conditions that are truth values --------------------------------------------------------------

# A formula, the condition as a string, on lazy tensors, and on dense arrays.
Condition = Callable[[Any, Any, Any], Any]
TRUTHS: dict[str, tuple[str, Condition, Condition]] = {
    "less": ("SqDist(x,y) < 0.25", lambda x, y, k: k < 0.25, lambda x, y, k: k < 0.25),
    "at most": ("SqDist(x,y) <= 0.25", lambda x, y, k: k <= 0.25, lambda x, y, k: k <= 0.25),
    "more": ("SqDist(x,y) > 0.25", lambda x, y, k: k > 0.25, lambda x, y, k: k > 0.25),
    "at least": ("SqDist(x,y) >= 0.25", lambda x, y, k: k >= 0.25, lambda x, y, k: k >= 0.25),
    "equal": ("SqDist(x,y) == 0", lambda x, y, k: k == 0, lambda x, y, k: k == 0),
    "different": ("SqDist(x,y) != 0", lambda x, y, k: k != 0, lambda x, y, k: k != 0),
    "and": (
        "(SqDist(x,y) < 0.5) * (SqDist(x,y) > 0.1)",
        lambda x, y, k: (k < 0.5) & (k > 0.1),
        lambda x, y, k: (k < 0.5) & (k > 0.1),
    ),
    "or": (
        "(SqDist(x,y) < 0.1) + (SqDist(x,y) > 0.5)",
        lambda x, y, k: (k < 0.1) | (k > 0.5),
        lambda x, y, k: (k < 0.1) | (k > 0.5),
    ),
    "not": ("1 - (SqDist(x,y) < 0.5)", lambda x, y, k: ~(k < 0.5), lambda x, y, k: ~(k < 0.5)),
    "vectors": ("x < y", lambda x, y, k: x < y, lambda x, y, k: x < y),
    "all of a vector": (
        "Min(x < y)",
        lambda x, y, k: (x < y).min(-1),
        lambda x, y, k: (x < y).all(-1, keepdims=True),
    ),
    "any of a vector": (
        "Sum(x < y)",
        lambda x, y, k: (x < y).sum(-1),
        lambda x, y, k: (x < y).any(-1, keepdims=True),
    ),
    "a choice": (
        "IfElse(x - y, 1, 0)",
        lambda x, y, k: (x - y).ifelse(1, 0),
        lambda x, y, k: x >= y,
    ),
    "of a choice": (
        "IfElse(SqDist(x,y) < 0.5, x < y, y < x)",
        lambda x, y, k: where(k < 0.5, x < y, y < x),
        lambda x, y, k: np.where(k < 0.5, x < y, y < x),
    ),
    "a number": ("SqDist(x,y) - 0.25", lambda x, y, k: k - 0.25, lambda x, y, k: k >= 0.25),
    "a difference": ("(x<y) - (y<x)", lambda x, y, k: (x < y) - (y < x), lambda x, y, k: x <= y),
}


@libraries
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", TRUTHS)
def test_a_truth_value_is_a_condition_as_it_stands(name: str, dtype: str, make: Any) -> None:
    text, lazy, dense = TRUTHS[name]
    x, y = X.astype(dtype), Y.astype(dtype)
    i, j = LazyTensor(make(x)), LazyTensor(make(y))
    k = i.sqdist(j)
    wanted = np.where(dense(X, Y, DENSE), X + 1, -2 * Y)
    condition = lazy(i, j, k)
    agree(condition.ifelse(i + 1, -2 * j), wanted, name)
    for axis in (0, 1):
        formula = Genred(f"IfElse({text}, x+1, -2*y)", ["x = Vi(2)", "y = Vj(2)"], axis=axis)
        found = np.asarray(formula(make(x[:, 0]), make(y[0])))
        assert_close(found, wanted.sum(axis), terms=wanted.shape[axis], formula=(name, axis))


@libraries
@pytest.mark.parametrize("name", [name for name in TRUTHS if not name.startswith("a ")])
def test_where_selects_by_what_is_not_zero(name: str, make: Any) -> None:
    text, lazy, dense = TRUTHS[name]
    i, j = LazyTensor(make(X)), LazyTensor(make(Y))
    condition = lazy(i, j, i.sqdist(j))
    wanted = np.where(dense(X, Y, DENSE), X + 1, -2 * Y)
    agree(where(condition, i + 1, -2 * j), wanted, name)
    agree((i + 1).where(condition, -2 * j), wanted, name)
    formula = Genred(f"Where({text}, x+1, -2*y)", ["x = Vi(2)", "y = Vj(2)"], axis=1)
    assert_close(np.asarray(formula(make(X[:, 0]), make(Y[0]))), wanted.sum(1), terms=N)


def test_where_takes_numbers_for_masks_and_never_looks_at_the_rest() -> None:
    i, j = LazyTensor(X), LazyTensor(Y)
    agree(where(i - j, 3, i), np.where(X - Y, 3, X))
    agree(where(i == j, np.inf, 1 / (i - j)) < 0, np.where(X < Y, 1, 0))
    agree(where(i != j, (i - j).log(), np.nan) < -0.6, (X - Y > 0) & (X - Y < 0.55))
    batches = np.stack([X, 1 - X, X / 2])
    many = LazyTensor(batches)
    agree(where(many < j, many, 2), np.where(batches < Y, batches, 2))


def test_where_of_complex_numbers() -> None:
    i, j, z = LazyTensor(X), LazyTensor(Y), X - 2j * X
    k, w = i.sqdist(j), LazyTensor(z)
    agree(where(k < 0.5, w, j), np.where(DENSE < 0.5, z, Y))
    agree(where(i < j, w, 1j), np.where(X < Y, z, 1j))
    agree(w.where(i < j, 2), np.where(X < Y, z, 2))


def test_gradients_go_to_what_was_selected_alone() -> None:
    made = []
    for dense in (False, True):
        x = torch.tensor(X, requires_grad=True)
        y = torch.tensor(Y, requires_grad=True)
        if dense:
            k = ((x - y) ** 2).sum(-1, keepdim=True)
            root = torch.where(k > 0, k, 1.0).sqrt()
            total = torch.where(k > 0.1, root, 3 * k).sum(1)
        else:
            i, j = LazyTensor(x), LazyTensor(y)
            k = i.sqdist(j)
            total = where(k > 0.1, k**0.5, 3 * k).sum(axis=1)
        first = torch.autograd.grad((total**2).sum(), [x, y], create_graph=True)
        second = torch.autograd.grad((first[0] * first[1].sum()).sum(), [x, y])
        made.append([g.detach().numpy() for g in (*first, *second)])
    for found, wanted in zip(*made, strict=True):
        assert_close(found, wanted, terms=40 * N)


def test_what_is_no_truth_value_says_so() -> None:
    i, j = Vi(X[:, 0]), Vj(Y[0])
    for wrong in (lambda: i & (i < j), lambda: ~i, lambda: (i < j) & i, lambda: where(1, 2, 3)):
        with pytest.raises(ArrayTypeError):
            wrong()
    with pytest.raises(ArrayTypeError, match=r"where\(x, 1, y\) for or"):
        _ = (i < j) | (j < i)
    with pytest.raises(ArrayTypeError, match="cannot be complex"):
        where(i.real2complex(), i, j)
    with pytest.raises(DimError, match="Where: operands must have the same dimension"):
        where(i < j, i, i.concat(j))


# -- variables that are made anew ------------------------------------------------------------------

POINTS, COLUMNS = RNG.normal(size=(M, 2)), RNG.normal(size=(N, 2))
Made = Callable[[Any], Any]
# How a variable is made each time that it is asked for, of the array (M, 2).
ANEW: dict[str, Made] = {
    "Vi": Vi,
    "a view": lambda x: LazyTensor(x[:, None, :]),
    "another view": lambda x: Vi(x[:]),
    "batches": lambda x: LazyTensor(x[None, :, None, :]),
    "transposed": lambda x: Vj(x).t(),
}


def derivatives(f: Any, v: Any) -> dict[str, Any]:
    """Derivatives of a formula, and of it as a vector."""
    both = f.concat(2 * f)
    return {
        "grad": f.grad(v, 1),
        "diff": f.diff(v, LazyTensor([1.0, 2.0])),
        "grad_matrix": both.grad_matrix(v),
        "divergence": both.divergence(v),
        "laplacian": f.laplacian(v),
    }


@libraries
@pytest.mark.parametrize("name", ANEW)
def test_a_variable_made_anew_is_the_same_variable(name: str, make: Any) -> None:
    x, y, new = make(POINTS), make(COLUMNS), ANEW[name]
    once = new(x)
    kept = (-once.sqdist(Vj(y))).exp() * once.sqdist(Vj(y))
    made = (-new(x).sqdist(Vj(y))).exp() * new(x).sqdist(Vj(y))
    for wanted, found in zip(
        derivatives(kept, once).items(), derivatives(made, new(x)).items(), strict=True
    ):
        for axis in (kept.nbatchdims, kept.nbatchdims + 1):
            sums = [np.asarray(tensor.sum(axis=axis)) for _, tensor in (wanted, found)]
            assert np.abs(sums[0]).max() > 0.1
            assert_close(sums[1], sums[0], terms=N, formula=(name, wanted[0]))
    t = torch.tensor(POINTS, requires_grad=True)
    square = ((t[:, None] - torch.tensor(COLUMNS)) ** 2).sum(-1)
    (dense,) = torch.autograd.grad((square * (-square).exp()).sum(), t)
    total = made.grad(new(x), 1).sum(axis=made.nbatchdims + 1)
    assert_close(np.asarray(total).reshape(M, 2), dense.numpy(), terms=N)


def test_symbols_and_parameters_made_anew() -> None:
    p, y = np.array([0.5, 2.0]), Vj(COLUMNS)
    for make, given in ((lambda: Vi(0, 2), [POINTS]), (lambda: Pm(p), []), (lambda: Pm(0, 2), [p])):
        x = make()
        f = (make() * y).exp().sum().grad(make(), 1)
        g = (x * y).exp().sum().grad(x, 1)
        found, wanted = (h.sum_reduction(axis=1, call=False)(*given) for h in (f, g))
        assert np.abs(wanted).max() > 0.1
        assert_close(found, wanted, terms=N)


def test_equal_numbers_and_detached_tensors_are_variables_of_their_own() -> None:
    a, b = Pm([2.0]), Pm([2.0])
    found = (a**2 * b * Vi(POINTS)).grad(a, Vi(POINTS)).sum(axis=1)
    assert_close(found, 8 * (POINTS**2).sum(-1, keepdims=True), terms=2)
    x = torch.tensor(POINTS, requires_grad=True)
    once = (Vi(x) * Vi(x.detach())).grad(Vi(x), LazyTensor([1.0, 1.0])).sum(axis=0)
    assert_close(once.detach().numpy(), POINTS.sum(0)[None], terms=M)
    both = (Vi(x) * Vi(x)).grad(Vi(x), LazyTensor([1.0, 1.0])).sum(axis=0)
    assert_close(both.detach().numpy(), 2 * POINTS.sum(0)[None], terms=M)
