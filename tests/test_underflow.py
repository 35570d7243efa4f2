"""Sums of exponentials of which some underflow: what becomes 0 on the way must not matter."""

from __future__ import annotations

import numpy as np
import pytest

from pairfold import Genred, LazyTensor, Vi, Vj, settings
from pairfold.lower.underflow import Known, Power, _product, flushing

# Exponents of which exponentials are normal, subnormal, and 0.
_NEAR = {"float32": (1.0, 70.0), "float64": (1.0, 650.0)}
_SUBNORMAL = {"float32": (89.0, 95.0), "float64": (710.0, 730.0)}
_ZERO = {"float32": (110.0, 400.0), "float64": (760.0, 1500.0)}
_CLOSE = {"float32": 2e-5, "float64": 1e-12}
_DTYPES = ("float32", "float64")


def _logits(dtype: str, kinds: str, columns: int = 23) -> np.ndarray:
    """-x - y is the exponent: rows of `kinds` n(ear), s(ubnormal), z(ero); columns differ by 1."""
    rng = np.random.default_rng(0)
    bounds = {"n": _NEAR, "s": _SUBNORMAL, "z": _ZERO}
    rows = [rng.uniform(*bounds[kind][dtype]) for kind in kinds]
    return np.array(rows, dtype)[:, None], rng.uniform(0, 1, (columns, 1)).astype(dtype)


def _terms(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """e^-|x - y| in higher precision; far exponents stay numbers that float64 has."""
    wide = np.abs(x.astype(np.longdouble) - y.astype(np.longdouble).T)
    return np.exp(-wide)


def _kernel(x: np.ndarray, y: np.ndarray) -> LazyTensor:
    return (-((Vi(x) - Vj(y)).abs())).exp()


def _far_apart(dtype: str, rows: int = 17, columns: int = 23) -> tuple[np.ndarray, np.ndarray]:
    """Points on a line, as many terms near as subnormal and 0."""
    rng = np.random.default_rng(1)
    reach = 3 * _SUBNORMAL[dtype][1]
    x, y = (rng.uniform(0, reach, (n, 1)).astype(dtype) for n in (rows, columns))
    y[: columns // 2] = x[rng.integers(0, rows, columns // 2)] + 1
    return x, y


@pytest.mark.parametrize("lanes", ["row", "column"])
@pytest.mark.parametrize("splits", [1, 2])
@pytest.mark.parametrize("dtype", _DTYPES)
def test_sums_of_which_terms_underflow(dtype: str, splits: int, lanes: str) -> None:
    x, y = _far_apart(dtype, 17, 523)
    b = np.random.default_rng(2).normal(size=(523, 2)).astype(dtype)
    terms = _terms(x, y)
    sizes = terms @ np.abs(b)
    with settings(splits=splits, lanes=lanes):
        found = _kernel(x, y) @ b
        mean = (_kernel(x, y) * Vj(b)).mean(dim=1)
        other = _kernel(x, y).sum(dim=0)
    assert np.all(np.abs(found - terms @ b) <= _CLOSE[dtype] * sizes + np.finfo(dtype).tiny)
    np.testing.assert_allclose(mean * 523, found, rtol=10 * _CLOSE[dtype])
    np.testing.assert_allclose(other[:, 0], terms.sum(0).astype(float), rtol=_CLOSE[dtype])


@pytest.mark.parametrize("lanes", ["row", "column"])
@pytest.mark.parametrize("dtype", _DTYPES)
def test_sums_that_are_subnormal_stay_so(dtype: str, lanes: str) -> None:
    kinds = "nszsn" * 8
    x, y = _logits(dtype, kinds)
    terms = _terms(x, -y)
    least = float(np.finfo(dtype).smallest_subnormal)
    with settings(lanes=lanes):
        found = (-(Vi(x) + Vj(y))).exp().sum(dim=1)
    wanted = terms.sum(1)
    off = np.abs(found[:, 0] - wanted)
    assert np.all(off <= 30 * least + 1e-4 * wanted)
    subnormal = np.array([kind == "s" for kind in kinds])
    assert np.all(found[subnormal] > 100 * least)


def test_a_large_weight_makes_a_tiny_term_count() -> None:
    x, y = np.zeros((3, 1), "f"), np.array([[95.0], [300.0], [94.0]], "f")
    weights = np.array([[1e30], [1.0], [1e30]], "f")
    found = _kernel(x, y) @ weights
    wanted = _terms(x, y) @ weights
    np.testing.assert_allclose(found, wanted.astype("f"), rtol=1e-3)
    scaled = (_kernel(x, y) * Vi(np.full((3, 1), 1e30, "f"))).sum(dim=1)
    np.testing.assert_allclose(scaled, 1e30 * _terms(x, y).sum(1)[:, None].astype("d"), rtol=1e-3)


def _rows(values: list[list[float]]) -> np.ndarray:
    return np.array(values, "f")


def test_terms_that_count_though_the_others_are_normal() -> None:
    """Sums that are not tiny, of which most would be lost: what pairs read says so."""
    x, y = np.zeros((3, 1), "f"), _rows([[95.0], [30.0]])
    wanted = _terms(x[:1], y)[0]
    found = _kernel(x, y) @ _rows([[1e30], [1.0]])
    np.testing.assert_allclose(found[:, 0], float(wanted[0] * 1e30 + wanted[1]), rtol=1e-3)
    sums = Genred(
        "Exp(-Abs(x-y))*(u*v+w)", ["x=Vi(1)", "y=Vj(1)", "u=Vi(1)", "v=Vj(1)", "w=Vj(1)"], axis=1
    )
    u, v, w = np.full((3, 1), 1e30, "f"), _rows([[1.0], [0.0]]), _rows([[0.0], [1.0]])
    np.testing.assert_allclose(sums(x, y, u, v, w), found, rtol=1e-3)


def test_differences_that_count_where_exponentials_are_large() -> None:
    sums = Genred("Exp(-p*SqDist(x,y))*(x-y)", ["p=Pm(1)", "x=Vi(2)", "y=Vj(2)"], axis=1)
    y = _rows([[1.0, 1e-39], [0.0, 1e-6]])
    found = sums(np.array([-80.0], "f"), np.zeros((5, 2), "f"), y)
    wanted = -np.exp(80.0) * float(y[0, 1]) - float(y[1, 1])
    np.testing.assert_allclose(found[:, 1], wanted, rtol=1e-3)


def test_products_that_count_in_exponents() -> None:
    logarithms = Genred("(x*y)*z", ["x=Vi(1)", "y=Vj(1)", "z=Vj(1)"], "LogSumExp", axis=1)
    y, z = _rows([[1e-20], [0.0]]), _rows([[1e38], [0.0]])
    found = logarithms(np.full((5, 1), 1e-20, "f"), y, z)
    np.testing.assert_allclose(found[:, 0], np.log(np.exp(0.01) + 1), rtol=1e-4)


@pytest.mark.parametrize("dtype", _DTYPES)
def test_logarithms_and_soft_maxima(dtype: str) -> None:
    x, y = _far_apart(dtype)
    b = np.random.default_rng(2).normal(size=(23, 2)).astype(dtype)
    logits = -((Vi(x) - Vj(y)).abs())
    terms = _terms(x, y)
    found = logits.logsumexp(dim=1)[:, 0]
    np.testing.assert_allclose(found, np.log(terms.sum(1)).astype(float), rtol=1e-5, atol=1e-6)
    weighted = logits.sumsoftmaxweight(Vj(b), dim=1)
    wanted = (terms @ b / terms.sum(1, keepdims=True)).astype(float)
    np.testing.assert_allclose(weighted, wanted, rtol=2e-4, atol=1e-6)


def test_the_soft_maximum_of_one_far_column_is_subnormal() -> None:
    x, y = np.zeros((5, 1), "f"), np.array([[0.0], [95.0], [200.0]], "f")
    one = np.array([[0.0], [1.0], [0.0]], "f")
    found = (-((Vi(x) - Vj(y)).abs())).sumsoftmaxweight(Vj(one), dim=1)
    np.testing.assert_allclose(found, np.full((5, 1), np.exp(-95.0), "d"), rtol=1e-3)


def test_selections_keep_subnormal_numbers_apart() -> None:
    y = np.linspace(103, 88, 31).astype("f")[:, None]
    x = np.zeros((17, 1), "f")
    K = _kernel(x, y)
    assert np.all(K.argmin(dim=1) == 0)
    assert np.all(K.max(dim=1) == np.exp(np.float64(-88)).astype("f"))
    assert np.all(K.min(dim=1) > 0)


def test_batches_and_masks() -> None:
    x, y = _far_apart("float64", 17, 46)
    rows, columns = LazyTensor(x[None, :, None]), LazyTensor(y.reshape(2, 1, 23, 1))
    both = (-((rows - columns).abs())).exp().sum(axis=2)
    terms = _terms(x, y).reshape(17, 2, 23)
    np.testing.assert_allclose(both[..., 0], terms.sum(2).T.astype(float), rtol=1e-12)
    where = Vi(x) <= Vj(y)
    masked = _kernel(x, y).sum(axis=1, where=where)[:, 0]
    wanted = np.where(x <= y.T, _terms(x, y), 0).sum(1).astype(float)
    np.testing.assert_allclose(masked, wanted, rtol=1e-12, atol=1e-320)


def test_gradients() -> None:
    torch = pytest.importorskip("torch")
    from pairfold.torch import Pm, Vi, Vj

    rng = np.random.default_rng(3)
    x = torch.tensor(rng.uniform(0, 30, (17, 2)), requires_grad=True)
    y, b = torch.tensor(rng.uniform(0, 30, (23, 2))), torch.tensor(rng.normal(size=(23, 1)))
    p = torch.tensor([1.0], dtype=x.dtype)
    found = ((-(Vi(x).sqdist(Vj(y))) * Pm(p)).exp() @ b)[:, 0]
    wanted = torch.exp(-((x[:, None] - y) ** 2).sum(2) * p) @ b
    (a,) = torch.autograd.grad(found.sum(), x)
    (c,) = torch.autograd.grad(wanted.sum(), x)
    torch.testing.assert_close(a, c, rtol=1e-9, atol=0.0)


def test_threads_and_control_words() -> None:
    x, y = _far_apart("float32", 1500, 1500)
    found = []
    for threads in (1, 2):
        with settings(threads=threads):
            found.append(_kernel(x, y).sum(dim=1))
        # Arithmetic of this thread underflows gradually, as before.
        assert np.float32(1e-38) * np.float32(0.01) > 0
    assert np.array_equal(*found)


def test_factors_of_any_size_may_not_be_off() -> None:
    exact, off = Known(None, Power(0.0)), Known(Power(2.0, 1), Power(3.0))
    assert _product(off, exact, 0) is None
    assert _product(Known(Power(5.0), Power(0.0)), off, 0) == Known(Power(10.0, 1), Power(16.0), 0)


@pytest.mark.parametrize(
    ("formula", "reduction", "flushed"),
    [
        ("Exp(-SqDist(x,y))*b", "Sum", True),
        ("Exp(-SqDist(x,y))", "Min", False),
        ("SqDist(x,y)*b", "Sum", False),
        ("Exp(-SqDist(x,y))", "Prod", False),
        ("Inv(Exp(-SqDist(x,y)))*b", "Sum", False),
        ("Step(Exp(-SqDist(x,y)))*b", "Sum", False),
        ("Exp(SqDist(x,y))*(x-y)", "Sum", False),
        ("Exp(-p*SqDist(x,y))*(x-y)", "Sum", True),
    ],
)
def test_which_sums(formula: str, reduction: str, flushed: bool) -> None:
    from pairfold.core.node import Axis
    from pairfold.frontends.parse import parse
    from pairfold.lower.kernel import lower
    from pairfold.ops.reductions import REDUCTIONS

    node = parse(formula, ["x = Vi(3)", "y = Vj(3)", "b = Vj(1)", "p = Pm(1)"]).node
    kernel = lower(node, REDUCTIONS[reduction], Axis.I, 16)
    assert (flushing(kernel, "float32") is not None) == flushed
