"""Arrays of pairs with one row, or one column, for all: against NumPy and torch on whole tables."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from checks import assert_close
from test_pair_operands import (
    ALIASES,
    FORMULA,
    genred,
    layout,
    points,
    reduced,
    refused,
    table,
    tensors,
    torch_reduced,
    torch_table,
)

import pairfold
from pairfold import Genred
from pairfold.errors import ShapeError

SPREAD = [(1, 23, 2), (17, 1, 2), (1, 1, 2), (3, 1, 23, 2), (2, 1, 17, 1, 2)]


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("shape", SPREAD)
def test_a_size_of_one_broadcasts(shape, axis):
    x, y = points(17, 23)
    b = np.random.default_rng(1).uniform(-1, 1, shape)
    whole = np.broadcast_to(b, (*shape[:-3], 17, 23, 2))
    want = table(x, y, whole)
    inside = np.arange(23) <= np.arange(17)[:, None]
    for dtype in ("float32", "float64"):
        given = [array.astype(dtype) for array in (x, y, b)]
        for name in ("Sum", "ArgMin"):
            assert_close(
                genred(name, 2, axis)(*given).astype(float), reduced(name, want, axis), terms=23,
                rtol=1e-5 if dtype == "float32" else 1e-12,
            )  # fmt: skip
    where = Genred(
        FORMULA,
        [a.format(dim=2) for a in ALIASES],
        axis=axis,
        where="(Ind(j) <= Ind(i))*(Elem(b,1) < 0.5)",
    )
    assert_close(
        where(x, y, b),
        (want * (inside[..., None] & (whole[..., 1:] < 0.5))).sum(axis - 3),
        terms=23,
    )
    blocks = np.array([[0, 5], [5, 17]]), np.array([[0, 9], [9, 23]])
    ranges = pairfold.cluster.from_matrix(*blocks, np.array([[True, False], [True, True]]))
    met = np.ones((17, 23, 1))
    met[:5, 9:] = 0
    got = genred("Sum", 2, axis)(x, y, b, ranges=ranges)
    assert_close(got, (want * met).sum(axis - 3), terms=23)


@pytest.mark.parametrize(("name", "axis"), [("Sum", 0), ("Sum", 1), ("Min", 1)])
def test_gradients_are_sums_over_what_broadcasts(name, axis):
    fold = genred(name, 2, axis, "Exp(b - SqDist(x,y))*b")
    for shape in [(1, 5, 2), (6, 1, 2), (1, 1, 2), (3, 1, 5, 2)]:
        x, y, _ = tensors(6, 5, 2)
        b = torch.rand(shape, dtype=torch.float64, requires_grad=True)
        orders = []
        for dense in (False, True):
            wide = b.expand(*shape[:-3], 6, 5, 2)
            result = (
                torch_reduced(name, torch_table(x, y, wide) * wide, axis)
                if dense
                else fold(x, y, b)
            )
            first = torch.autograd.grad(result.sin().sum(), (x, y, b), create_graph=True)
            second = torch.autograd.grad(sum(s.pow(2).sum() for s in first), (x, y, b))
            assert first[2].shape == b.shape
            orders.append((result, *first, *second))
        for got, want in zip(*orders, strict=True):
            scale = float(want.detach().abs().max())
            assert_close(got.detach().numpy(), want.detach().numpy(), terms=60, scale=scale)


def test_nothing_is_repeated_for_what_broadcasts():
    """An array (M, 1, D) is one of rows, so that its gradient is no table, either."""
    x, y = points(6, 5)
    explained = str(genred("Sum", 2).explain(x, y, np.ones((6, 1, 2))))
    assert "row    x[2], b[2]" in explained
    assert "pair   b" not in explained
    assert "pair   b[2]" in str(genred("Sum", 2).explain(x, y, np.ones((6, 5, 2))))


def test_two_arrays_of_pairs_make_the_pairs_of_both():
    a, b = layout("apart", 1, 23, 2, "float64"), layout("apart", 17, 1, 2, "float64")
    given = ["a = Vij(2)", "b = Vij(2)", "m = Vij(1)"]
    for axis in (0, 1):
        fold = Genred("a*b", given, axis=axis, where="m")
        for m in (np.arange(23)[None] % 3 > 0, np.arange(17)[:, None, None] % 3 > 0, b < a):
            m = m[..., :1] if m.ndim == 3 and m.shape[1] > 1 else m
            kept = m[..., None] if m.ndim == 2 else m
            assert_close(fold(a, b, m), (a * b * kept).sum(axis), terms=23)
    nothing = Genred("a*b", given[:2], axis=1)(a[:, :0], b)
    assert nothing.shape == (17, 2)
    assert not nothing.any()


def test_reductions_together_and_systems_take_what_broadcasts():
    x, y = points(17, 23)
    b = layout("rows", 1, 23, 2, "float64")
    folds = genred("Sum", 2, 1), genred("Min", 2, 1), genred("Sum", 2, 0)
    both = pairfold.together(*folds)
    for got, fold in zip(both(x, y, b), folds, strict=True):
        assert_close(got, fold(x, y, b), terms=23)
    weights = 1 + layout("rows", 1, 17, 1, "float64") ** 2
    solve = pairfold.KernelSolve(
        "Exp(-SqDist(x,y))*b*v", ["x=Vi(2)", "y=Vj(2)", "b=Vij(1)", "v=Vj(1)"], "v", axis=1
    )
    dense = np.exp(-((x[:, None] - x[None]) ** 2).sum(-1))
    right, one = np.ones((17, 1)), weights[:, :1]
    got = solve(x, x, one, right, alpha=0.5, eps=1e-12)
    want = np.linalg.solve(dense * one[0, 0, 0] + 0.5 * np.eye(17), right)
    assert_close(got, want, rtol=1e-7, scale=10)


def test_jax_broadcasts_them():
    jax = pytest.importorskip("jax")
    from pairfold.jax import Genred as JaxGenred

    x, y = map(jax.numpy.asarray, points(7, 5, "float32"))
    fold = JaxGenred(FORMULA, [alias.format(dim=1) for alias in ALIASES], axis=1)
    for b in (layout("rows", 1, 5, 1, "float32"), layout("rows", 7, 1, 1, "float32")):
        value, slope = jax.jit(jax.value_and_grad(lambda b: fold(x, y, b).sum()))(b)
        whole = table(np.asarray(x), np.asarray(y), np.broadcast_to(b, (7, 5, 1)))
        assert_close(np.asarray(value), whole.sum(), terms=35)
        along = tuple(n for n in range(2) if b.shape[n] == 1)
        assert_close(np.asarray(slope), whole.sum(along, keepdims=True), terms=7)


def test_other_sizes_than_one_are_refused():
    x, y = points(7, 5)
    said = refused(lambda: genred()(x, y, np.ones((2, 5, 1))), ShapeError)
    assert "argument 2 (b) has 2 (shape (2, 5, 1)), argument 0 (x) has 7" in said
    two = Genred("b*c*x", ["x=Vi(2)", "b=Vij(1)", "c=Vij(1)"], axis=1)
    said = refused(lambda: two(x, np.ones((1, 5, 1)), np.ones((4, 5, 1))), ShapeError)
    assert "argument 2 (c) has 4 (shape (4, 5, 1)), argument 0 (x) has 7" in said
    said = refused(lambda: genred()(x[:1], y, np.ones((7, 5, 1))), ShapeError)
    assert "argument 2 (b) has 7" in said
