"""Formulas as text with masks that have arrays: labels, tables of truth values, sparse matrices."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

import pairfold as pf
from pairfold import Genred, Vi, Vj
from pairfold.errors import ArrayTypeError, ShapeError

ALIASES = ["x = Vi(2)", "y = Vj(2)", "b = Vj(1)", "p = Pm(1)"]
ROWS, COLUMNS = 17, 23
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(ROWS, 2)), RNG.normal(size=(COLUMNS, 2))
B, P = RNG.normal(size=(COLUMNS, 1)), np.array([0.7])
KEEP = RNG.random((ROWS, COLUMNS)) < 0.3
KEEP[3] = False
LABELS = RNG.integers(4, size=ROWS), RNG.integers(4, size=COLUMNS)


def masks():
    sparse = pytest.importorskip("scipy.sparse")
    i, j = np.arange(ROWS)[:, None], np.arange(COLUMNS)
    return {
        "table": (KEEP, KEEP),
        "sparse": (sparse.csr_matrix(KEEP), KEEP),
        "sparse and causal": ((sparse.coo_array(KEEP), pf.causal()), KEEP & (j <= i)),
        "labels": (pf.same(*LABELS), LABELS[0][:, None] == LABELS[1]),
        "band": (pf.band(3), abs(i - j) <= 3),
        "data": (Vi(X[:, :1]) <= Vj(Y[:, :1]), X[:, :1] <= Y[:, 0]),
    }


@pytest.mark.parametrize("name", ["table", "sparse", "sparse and causal", "labels", "band", "data"])
@pytest.mark.parametrize("axis", [0, 1])
def test_masks_with_arrays(name, axis):
    where, keep = masks()[name]
    squared = ((X[:, None] - Y) ** 2).sum(-1)
    over = 1 if axis == 1 else 0
    for reduction, wanted in (
        ("Sum", np.where(keep, P * squared * B.T, 0).sum(over)),
        ("Max", np.where(keep, P * squared * B.T, -np.inf).max(over)),
        ("ArgMin", np.where(keep, P * squared * B.T, np.inf).argmin(over)),
    ):
        reduce = Genred("p*SqDist(x,y)*b", ALIASES, reduction, axis=axis, where=where)
        np.testing.assert_allclose(reduce(X, Y, B, P)[:, 0], wanted, rtol=1e-12)
        out = np.empty((len(wanted), 1), "int64" if reduction == "ArgMin" else float)
        assert reduce(X, Y, B, 0.7, out=out) is out
        np.testing.assert_allclose(out[:, 0], wanted, rtol=1e-12)


def test_weights_lists_batches_and_files():
    where, keep = masks()["sparse"]
    x = np.stack([X, X + 1])
    mean = Genred("(x|y)", ALIASES, "SumSoftMaxWeight", axis=1, formula2="b", where=where)
    weights = np.where(keep, np.exp(x @ Y.T), 0)
    total = weights.sum(-1, keepdims=True)
    wanted = np.divide(weights @ B, total, out=np.zeros((2, ROWS, 1)), where=total > 0)
    for reduce in (mean, pickle.loads(pickle.dumps(mean))):
        np.testing.assert_allclose(reduce(x, Y, B, P), wanted, rtol=1e-12, atol=1e-14)
    nearest = Genred("SqDist(x,y)", ALIASES, "ArgKMin", axis=1, opt_arg=2, where=KEEP)
    squared = np.where(KEEP, ((X[:, None] - Y) ** 2).sum(-1), np.inf)
    found = nearest(X, Y, B, P)
    enough = KEEP.sum(1) >= 2
    np.testing.assert_array_equal(found[enough], np.argsort(squared, 1)[enough, :2])


def test_gradients_and_explanations():
    torch = pytest.importorskip("torch")
    where, keep = masks()["sparse"]
    reduce = Genred("Exp(-SqDist(x,y))*b", ALIASES, "Sum", axis=1, where=where)
    x, y, b = (torch.from_numpy(a.copy()).requires_grad_() for a in (X, Y, B))
    p = torch.ones(1, dtype=torch.float64)
    table = torch.exp(-((x[:, None] - y) ** 2).sum(-1)) * torch.from_numpy(keep)
    ours = torch.autograd.grad(reduce(x, y, b, p).square().sum(), (x, y, b))
    theirs = torch.autograd.grad((table @ b).square().sum(), (x, y, b))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)
    table = Genred("x*y", ["x = Vi(2)", "y = Vj(2)"], axis=1, where=KEEP)
    assert "where" in str(table.explain(X, Y))


def test_what_is_no_mask_is_refused():
    with pytest.raises(ShapeError):
        Genred("x*y", ["x = Vi(2)", "y = Vj(2)"], axis=1, where=KEEP[:5])(X, Y)
    with pytest.raises(ArrayTypeError):
        Genred("x*y", ["x = Vi(2)", "y = Vj(2)"], axis=1, where=object())
