"""Sums from which pairs are left out that are provably less than a part of them."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

import pairfold
from pairfold import Genred, Vi, Vj, settings
from pairfold.errors import OptionError

RTOL = 1e-2
ALIASES = ["x = Vi(3)", "y = Vj(3)", "b = Vj(1)", "g = Pm(1)"]
LOGITS = "-g*SqDist(x,y)"
# By reduction: the formula, the weight, and whether terms are exponentials.
SUMS = {
    "Sum": ("Exp(-g*SqDist(x,y))*b", None),
    "Mean": ("Exp(-g*SqDist(x,y))*b", None),
    "LogSumExp": (LOGITS, None),
    "SumSoftMaxWeight": (LOGITS, "b"),
}


def clouds(dtype: str, rows: int = 900, columns: int = 1900, seed: int = 0):
    rng = np.random.default_rng(seed)
    x, y = rng.random((rows, 3)), rng.random((columns, 3))
    x[:5] += 3  # rows far from all columns: their sums are small, and as exact
    b = rng.random((columns, 1)) + 0.1
    return [array.astype(dtype) for array in (x, y, b, np.asarray([400.0]))]


def terms(x, y, b, g) -> tuple[np.ndarray, np.ndarray]:
    """Exponents and weights of all pairs, in float64."""
    x, y, b, g = (array.astype("float64") for array in (x, y, b, g))
    return -g * ((x[:, None] - y[None]) ** 2).sum(-1), b[:, 0][None] + 0 * x[:, :1]


def expected(name: str, exponents: np.ndarray, weights: np.ndarray, axis: int):
    """The result, and what it may be off by."""
    if name in ("Sum", "Mean"):
        found = (np.exp(exponents) * weights).sum(axis)
        found = found / (exponents.shape[axis] if name == "Mean" else 1)
        return found, RTOL * found
    top = exponents.max(axis, keepdims=True)
    share = np.exp(exponents - top)
    if name == "LogSumExp":
        return np.log(share.sum(axis)) + top.squeeze(axis), np.full(1, -np.log1p(-RTOL))
    found = (share * weights).sum(axis) / share.sum(axis)
    return found, np.full(1, 2 * RTOL * weights.max())


def fold_of(name: str, axis: int = 1, **options) -> Genred:
    formula, weight = SUMS[name]
    return Genred(formula, ALIASES, name, axis=axis, formula2=weight, **options)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", list(SUMS))
def test_errors_are_below_what_was_asked(name: str, dtype: str) -> None:
    arrays = clouds(dtype)
    fold = fold_of(name, rtol=RTOL)
    with settings(prune="always"):
        found = fold(*arrays)[:, 0]
        met, every = fold.explain(*arrays).subject.searched
    want, allowed = expected(name, *terms(*arrays), 1)
    rounding = 1e-4 if dtype == "float32" else 1e-10
    assert (abs(found - want) <= allowed + rounding * abs(want)).all()
    assert met < 0.7 * every
    with settings(prune="never"):
        full = fold(*arrays)[:, 0]
    assert (abs(full - want) <= rounding * (abs(want) + 1e-30)).all()
    assert not np.array_equal(full, found)  # something was left out


@pytest.mark.parametrize("name", list(SUMS))
def test_the_other_axis_and_batches(name: str) -> None:
    x, y, b, g = clouds("float64", 333, 444)
    fold = fold_of(name, axis=0, rtol=RTOL)
    turned = ["x = Vj(3)", "y = Vi(3)", "b = Vi(1)", "g = Pm(1)"]
    formula, weight = SUMS[name]
    same = Genred(formula, turned, name, axis=1, formula2=weight, rtol=RTOL)
    batched = fold_of(name, rtol=RTOL)
    with settings(prune="always"):
        if name != "SumSoftMaxWeight":
            want, allowed = expected(name, *terms(x, y, b, g), 0)
            assert (abs(fold(x, y, b, g)[:, 0] - want) <= allowed + 1e-9 * abs(want)).all()
        assert same(x, y, b, g).shape == (444, 1)
        several = batched(np.stack([x, x + 0.1]), y, b, g)
        one = batched(x, y, b, g)
    np.testing.assert_allclose(several[0], one, rtol=1e-12)


def test_terms_of_both_signs_are_all_met() -> None:
    x, y, b, g = clouds("float64", 300, 500)
    b = b - 0.6
    with settings(prune="always"):
        fold = fold_of("Sum", rtol=0.5)
        found = fold(x, y, b, g)[:, 0]
        met, every = fold.explain(x, y, b, g).subject.searched
    exponents, weights = terms(x, y, b, g)
    np.testing.assert_allclose(found, (np.exp(exponents) * weights).sum(1), atol=1e-12)
    assert met == every


def test_negative_terms_masks_and_odd_numbers() -> None:
    x, y, b, g = clouds("float64", 300, 700)
    exponents, weights = terms(x, y, b, g)
    want = (np.exp(exponents) * weights).sum(1)
    with settings(prune="always"):
        found = fold_of("Sum", rtol=RTOL)(x, y, -b, g)[:, 0]
        assert (abs(found + want) <= RTOL * want + 1e-12 * want).all()
        kernel = (-Vi(x).sqdist(Vj(y)) * 400.0).exp()
        masked = kernel.sum(axis=1, where=pairfold.i >= pairfold.j, rtol=RTOL)[:, 0]
        keep = np.arange(300)[:, None] >= np.arange(700)
        full = (np.exp(exponents) * keep).sum(1)
        assert (abs(masked - full) <= RTOL * full + 1e-12).all()
        y[3, 1] = np.nan
        assert np.isnan(fold_of("Sum", rtol=RTOL)(x, y, b, g)).all()


def test_gradients_are_exact() -> None:
    torch = pytest.importorskip("torch")
    arrays = [torch.tensor(array) for array in clouds("float64", 90, 130)]
    x = arrays[0].requires_grad_()
    with settings(prune="always"):
        (mine,) = torch.autograd.grad(fold_of("Sum", rtol=RTOL)(*arrays).sum(), x)
    squared = ((x[:, None] - arrays[1][None]) ** 2).sum(-1)
    (theirs,) = torch.autograd.grad(((-400 * squared).exp() @ arrays[2]).sum(), x)
    torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-300)


def test_options_are_checked_and_kept() -> None:
    for wrong in (0, 1, -1e-3, True, "a", np.nan):
        with pytest.raises(OptionError, match="rtol"):
            fold_of("Sum", rtol=wrong)
    with pytest.raises(OptionError, match="rtol"):
        Genred(LOGITS, ALIASES, "Max", axis=1, rtol=1e-3)
    fold = pickle.loads(pickle.dumps(fold_of("Sum", rtol=1e-3)))
    assert fold.accuracy.rtol == 1e-3
    assert not fold.accuracy.far


@pytest.mark.parametrize("odd", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["Sum", "LogSumExp"])
def test_numbers_that_are_none_are_met_whatever_their_weight(name: str, odd: float) -> None:
    """Terms of one cluster are tiny, and one of them is NaN: results are, as over all pairs."""
    x, y, b, g = clouds("float64", 200, 640)
    x[7, 0] = odd  # inf - inf where columns have it, too
    y[:64] = y[:64] * 1e-3 + 5
    y[3, 0] = odd
    b[:64] = 1e-30
    formula = "Exp(-g*SqDist(x,y))*b" if name == "Sum" else "-g*SqDist(x,y)+Log(b)"
    fold = Genred(formula, ALIASES, name, axis=1, rtol=RTOL)
    with settings(prune="always"):
        found = np.isnan(fold(x, y, b, g)[:, 0])
    with settings(prune="never"):
        full = np.isnan(fold(x, y, b, g)[:, 0])
    np.testing.assert_array_equal(found, full)
    assert full[7]


@pytest.mark.parametrize("sign", [1, -1])
def test_many_small_terms_together_are_not_small(sign: int) -> None:
    """Each far term is below `rtol` of the near ones; all of them are more than these."""
    rng = np.random.default_rng(1)
    x, y = rng.random((100, 3)) * 1e-2, rng.random((1564, 3)) * 1e-2
    y[64:, 0] += 5
    b = np.ones((1564, 1))
    b[64:] *= sign
    g = np.asarray([0.12])
    with settings(prune="always"):
        found = fold_of("Sum", rtol=RTOL)(x, y, b, g)[:, 0]
    exponents, weights = terms(x, y, b, g)
    want = (np.exp(exponents) * weights).sum(1)
    assert (abs(found - want) <= RTOL * abs(want)).all()
