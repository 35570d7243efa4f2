"""Searches for the nearest: bounds that decide most pairs must never change a result.

Every case is computed with bounds and without, and must agree bit for bit; and with NumPy.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from checks import assert_close, assert_same_bits
from products import every_pair, some
from targets import SHORT_TARGETS

from pairfold.errors import UnsupportedError
from pairfold.numpy import Genred
from pairfold.settings import settings

Array = Any


def search(name: str, dim: int, length: int = 0, formula: str = "SqDist(x, y)") -> Genred:
    aliases = [f"x = Vi({dim})", f"y = Vj({dim})"]
    options = {"opt_arg": length} if length else {}
    return Genred(formula, aliases, reduction_op=name, axis=1, **options)


def both(fold: Genred, *arrays: Array, **how: Any) -> tuple[Array, ...]:
    """The results with bounds, having seen that they are the same without."""
    with settings(screen="always"):
        got = fold(*arrays, **how)
    with settings(screen="never"):
        want = fold(*arrays, **how)
    gots, wants = (r if isinstance(r, tuple) else (r,) for r in (got, want))
    for a, b in zip(gots, wants, strict=True):
        assert_same_bits(a, b)
    return gots


DATA = {
    "normal": lambda r, n, d: r.normal(size=(n, d)),
    "ties": lambda r, n, d: r.integers(-1, 2, (n, d)),
    "the same": lambda r, n, d: np.ones((n, d)),
    "clusters": lambda r, n, d: r.integers(0, 4, (n, 1)) * 100 + r.normal(size=(n, d)),
    "far": lambda r, n, d: 1000 + r.normal(size=(n, d)),
    "tiny": lambda r, n, d: 1e-30 * r.normal(size=(n, d)),
    "subnormal": lambda r, n, d: 1e-40 * r.normal(size=(n, d)),
    "small": lambda r, n, d: 1e-25 * r.normal(size=(n, d)),
    "huge": lambda r, n, d: 1e30 * r.normal(size=(n, d)),
    "near the end": lambda r, n, d: 3e38 * np.sign(r.normal(size=(n, d))),
    "all magnitudes": lambda r, n, d: r.normal(size=(n, d)) * 10.0 ** r.integers(-25, 25, (n, 1)),
    "outliers": lambda r, n, d: np.where(r.random((n, 1)) < 0.05, 1e20, 1) * r.normal(size=(n, d)),
    "not finite": lambda r, n, d: np.where(
        r.random((n, d)) < 0.3 / d,
        r.choice([np.nan, np.inf, -np.inf], (n, d)),
        r.normal(size=(n, d)),
    ),
    "one direction": lambda r, n, d: np.linspace(0, 50, n)[:, None] + 0.01 * r.normal(size=(n, d)),
}


@some(
    "kind,dtype",
    [(kind, dtype) for kind in DATA for dtype in ("float32", "float64")],
    lambda entry: (entry[1] == "float32") == list(DATA).index(entry[0]) % 2,
)
def test_results_are_those_of_all_pairs_whatever_the_data(kind, dtype):
    rng = np.random.default_rng(7)
    for rows, columns, dim in ((17, 23, 5), (100, 700, 16), (90, 400, 33), (65, 160, 2)):
        with np.errstate(all="ignore"):
            x, y = (DATA[kind](rng, n, dim).astype(dtype) for n in (rows, columns))
        for name, length in (("Min_ArgMin", 0), ("KMin_ArgKMin", 1), ("KMin_ArgKMin", 10)):
            both(search(name, dim, length), x, y)
        both(search("KMin_ArgKMin", dim, 100), x, y)


@pytest.mark.parametrize(
    "kinds", [("normal", "far"), ("one direction", "normal"), ("tiny", "huge")]
)
def test_rows_and_columns_of_different_kinds(kinds):
    rng = np.random.default_rng(8)
    x, y = (DATA[k](rng, n, 20).astype("float32") for k, n in zip(kinds, (150, 600), strict=True))
    for name, length in (("Min_ArgMin", 0), ("KMin_ArgKMin", 10)):
        both(search(name, 20, length), x, y)
        both(search(name, 20, length), y, x)


@some(
    "dim",
    [1, 2, 3, 4, 7, 15, 16, 17, 31, 64, 100, 129],
    lambda dim: dim in (1, 3, 16, 17, 64, 129),
)
def test_every_dimension(dim):
    rng = np.random.default_rng(dim)
    x, y = rng.normal(size=(130, dim)), rng.normal(size=(500, dim))
    for name, length in ((("Min", "ArgMin")[dim % 2], 0), ("KMin_ArgKMin", 7)):
        both(search(name, dim, length), x.astype("float32"), y.astype("float32"))
    values, places = both(search("KMin_ArgKMin", dim, 7), x, y)
    all_pairs = ((x[:, None] - y[None]) ** 2).sum(-1)
    order = np.argsort(all_pairs, axis=1, kind="stable")[:, :7]
    assert_same_bits(places, order)
    assert_close(values, np.take_along_axis(all_pairs, order, 1), terms=dim)


@pytest.mark.parametrize("length", [1, 2, 15, 16, 17, 33, 100])
def test_lists_of_any_length_also_longer_than_there_are_columns(length):
    rng = np.random.default_rng(length)
    for rows, columns in ((70, 1000), (20, 30)):
        x, y = (rng.integers(-3, 4, (n, 18)).astype("float32") for n in (rows, columns))
        values, places = both(search("KMin_ArgKMin", 18, length), x, y)
        all_pairs = ((x[:, None].astype(float) - y[None]) ** 2).sum(-1)
        order = np.argsort(all_pairs, axis=1, kind="stable")[:, :length]
        most = min(length, columns)
        assert_same_bits(places[:, :most], order)
        assert (values[:, :most] == np.take_along_axis(all_pairs, order, 1)).all()
        assert np.isinf(values[:, most:]).all()
        assert not places[:, most:].any()


@pytest.mark.parametrize("formula", ["Norm2(x - y)", "SqDist(y, x)", "Sum(Square(x - y))"])
def test_other_ways_to_write_a_distance(formula):
    rng = np.random.default_rng(2)
    x, y = (rng.normal(size=(n, 20)).astype("float32") for n in (150, 900))
    for name, length in (("Min_ArgMin", 0), ("KMin_ArgKMin", 10)):
        fold = search(name, 20, length, formula)
        with settings(screen="always"):  # whether it pays is a matter of the processor
            assert fold.explain(x, y).plan.screen is not None
        both(fold, x, y)


def test_points_that_are_computed():
    aliases = ["x = Vi(20)", "y = Vj(20)", "p = Pm(1)"]
    fold = Genred("SqDist(p * x, Exp(y))", aliases, reduction_op="ArgMin", axis=1)
    rng = np.random.default_rng(3)
    x, y = (rng.normal(size=(n, 20)).astype("float32") for n in (150, 900))
    p = np.array([1.5], "float32")
    with settings(screen="always"):
        assert fold.explain(x, y, p).plan.screen is not None
    (places,) = both(fold, x, y, p)
    differences = 1.5 * x[:, None].astype(float) - np.exp(y[None].astype(float))
    assert_same_bits(places, (differences**2).sum(-1).argmin(1)[:, None])


@pytest.mark.parametrize("name", ["Max", "ArgMax", "Sum"])
def test_what_is_not_a_search_for_the_smallest_is_not_screened(name):
    with settings(screen="always"):
        assert search(name, 20).explain(np.ones((500, 20)), np.ones((500, 20))).plan.screen is None


@pytest.mark.parametrize(
    "formula", ["SqDist(x, y) + x", "Sum(Square(x - y) * y)", "SqNorm2(x + y)", "-SqDist(x, y)"]
)
def test_what_is_no_distance_is_not_screened(formula):
    fold = search("ArgMin", 1, 0, formula)
    with settings(screen="always"):
        assert fold.explain(np.ones((500, 1)), np.ones((500, 1))).plan.screen is None


def test_the_setting_decides_and_by_default_the_dimension():
    few, many = (np.ones((500, dim), "float32") for dim in (3, 40))
    assert search("ArgMin", 3).explain(few, few).plan.screen is None
    assert search("ArgMin", 40).explain(many, many).plan.screen is not None
    with settings(screen="always"):
        assert search("ArgMin", 3).explain(few, few).plan.screen is not None
    with settings(screen="never"):
        assert search("ArgMin", 40).explain(many, many).plan.screen is None


@pytest.mark.parametrize("target", SHORT_TARGETS)
@some("dtype", ["float32", "float64"], lambda dtype: dtype == "float32")
def test_every_target(target, dtype):
    rng = np.random.default_rng(4)
    x, y = (rng.normal(size=(n, 37)).astype(dtype) for n in (120, 500))
    with settings(target=target):
        for name, length in (("Min_ArgMin", 0), ("KMin_ArgKMin", 5), ("ArgKMin", 40)):
            both(search(name, 37, length), x, y)


def test_batches_strides_threads_splits_and_blocks():
    rng = np.random.default_rng(5)
    x = rng.normal(size=(3, 2, 140, 40)).astype("float32")[..., ::2]
    y = rng.normal(size=(1, 2, 24, 700)).astype("float32").swapaxes(2, 3)[..., :20]
    for name, length in (("Min_ArgMin", 0), ("KMin_ArgKMin", 10), ("KMin_ArgKMin", 40)):
        fold = search(name, 20, length)
        want = both(fold, x, y)
        for options in ({"threads": 2}, {"splits": 3}, {"block": 16}, {"row_vectors": 1}):
            with settings(**options):
                for a, b in zip(both(fold, x, y), want, strict=True):
                    assert_same_bits(a, b)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_empty_and_small(dtype):
    rng = np.random.default_rng(6)
    for rows, columns in ((0, 5), (5, 0), (1, 1), (40, 1), (33, 2)):
        x, y = (rng.normal(size=(n, 20)).astype(dtype) for n in (rows, columns))
        with settings(lanes="row"):
            both(search("Min_ArgMin", 20), x, y)
            both(search("KMin_ArgKMin", 20, 3), x, y)


def test_patterns_of_blocks():
    rng = np.random.default_rng(9)
    x, y = (rng.normal(size=(n, 24)).astype("float32") for n in (300, 800))
    rows = np.array([[0, 130], [130, 131], [131, 300]])
    ends = np.array([2, 3, 5])
    intervals = np.array([[0, 170], [300, 800], [5, 9], [0, 400], [600, 700]])
    other = np.array([[0, 800]]), np.array([1]), np.array([[0, 300]])
    ranges = (rows, ends, intervals, *other)
    inside = np.zeros((300, 800), bool)
    first = 0
    for (low, high), end in zip(rows, ends, strict=True):
        for start, stop in intervals[first:end]:
            inside[low:high, start:stop] = True
        first = end
    for length in (3, 20):
        values, places = both(search("KMin_ArgKMin", 24, length), x, y, ranges=ranges)
        all_pairs = ((x[:, None].astype(float) - y[None]) ** 2).sum(-1)
        all_pairs[~inside] = np.inf
        order = np.argsort(all_pairs, axis=1, kind="stable")[:, :length]
        want = np.take_along_axis(all_pairs, order, 1)
        assert_same_bits(places, np.where(np.isinf(want), 0, order))
        assert_close(values, want, terms=24)


def test_gradients_of_selected_values():
    torch = pytest.importorskip("torch")
    from pairfold.torch import Genred as TorchGenred

    aliases = ["x = Vi(20)", "y = Vj(20)"]
    fold = TorchGenred("SqDist(x, y)", aliases, reduction_op="KMin", axis=1, opt_arg=4)
    rng = np.random.default_rng(10)
    x, y = (torch.tensor(rng.normal(size=(n, 20)), requires_grad=True) for n in (150, 400))
    with settings(screen="always"):
        fold(x, y).square().sum().backward()
    got = x.grad.clone()
    x.grad = None
    torch.cdist(x, y).square().topk(4, largest=False).values.square().sum().backward()
    assert_close(got.numpy(), x.grad.numpy(), terms=80)


def test_lists_of_more_columns_than_their_indices_count_are_refused():
    x = np.ones((1, 1), "float32")
    y = np.broadcast_to(x, (2**32 + 1, 1))
    with pytest.raises(UnsupportedError, match="at most 2\\^32 columns"):
        search("ArgKMin", 1, 3)(x, y)


@every_pair(
    ("rows,columns", [(17, 23), (1, 1), (5, 0), (0, 5), (100, 37)]),
    ("dim", [3, 20]),
    ("dtype", ["float32", "float64", "float16"]),
)
def test_a_list_of_one_is_the_beginning_of_a_list_of_two(rows, columns, dim, dtype):
    rng = np.random.default_rng(13)
    x, y = (rng.normal(size=(n, dim)).astype(dtype) for n in (rows, columns))
    if columns > 3:
        y[0], y[1], y[3] = np.inf, np.nan, y[2]
    for name in ("KMin", "ArgKMin", "KMin_ArgKMin"):
        aliases = [f"x = Vi({dim})", f"y = Vj({dim})"]
        one, two = (
            Genred("SqDist(x,y)", aliases, reduction_op=name, opt_arg=k, axis=1)(x, y)
            for k in (1, 2)
        )
        pairs = zip(one, two, strict=True) if isinstance(one, tuple) else [(one, two)]
        for single, double in pairs:
            assert single.dtype == double.dtype
            assert single.shape == (rows, 1)
            assert np.array_equal(single, double[:, :1], equal_nan=True), name
