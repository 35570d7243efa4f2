"""Block-sparse ranges: every reduction against NumPy on the pairs that are left."""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import test_reductions as plain
from checks import assert_close, assert_same_bits

from pairfold.backends import reference
from pairfold.errors import DTypeError, InternalError, OptionError, RangeError, ShapeError
from pairfold.lower.pattern import Pattern
from pairfold.numpy import Genred, LazyTensor
from pairfold.ops.reductions import REDUCTIONS
from pairfold.settings import settings

Array = Any
SQUARES = ["x = Vi(2)", "y = Vj(2)"]


# -- patterns --------------------------------------------------------------------------------------


def clusters(rng: Any, size: int) -> Array:
    """Stretches of an axis: with gaps, single rows, empty ones, in any order."""
    cuts = np.sort(rng.integers(0, size + 1, min(6, size + 1)))
    cuts = np.concatenate([cuts, cuts[1:2] + (cuts[1:2] < size)])  # a single row
    cuts = np.sort(cuts)
    parts = [(a, b) for a, b in itertools.pairwise(cuts) if rng.random() < 0.8]
    parts.append((cuts[0], cuts[0]))
    found = np.array(parts, np.int64).reshape(-1, 2)
    return found[rng.permutation(len(found))]


def half(rng: Any, blocks: Array, others: Array, keep: Array) -> tuple[list[int], Array]:
    """Ends and intervals of one half, each block's intervals in any order."""
    ends: list[int] = []
    intervals: list[Array] = []
    for row in keep:
        mine = others[row]
        intervals += list(mine[rng.permutation(len(mine))])
        ends.append(len(intervals))
    return ends, np.array(intervals, np.int64).reshape(-1, 2)


def random_ranges(seed: int, rows: int, columns: int) -> tuple[tuple[Array, ...], Array]:
    """Six arrays, and which pairs they mean (rows, columns)."""
    rng = np.random.default_rng(seed)
    on_i, on_j = clusters(rng, rows), clusters(rng, columns)
    keep = rng.random((len(on_i), len(on_j))) < 0.6
    keep[rng.integers(len(on_i))] = False
    mask = np.zeros((rows, columns), bool)
    for k, (a, b) in enumerate(on_i):
        for n, (c, d) in enumerate(on_j):
            if keep[k, n]:
                mask[a:b, c:d] = True
    ends_i, to_j = half(rng, on_i, on_j, keep)
    ends_j, to_i = half(rng, on_j, on_i, keep.T)
    return (on_i, np.array(ends_i), to_j, on_j, np.array(ends_j), to_i), mask


def both(blocks: Any, ends: Any, intervals: Any) -> tuple[Any, ...]:
    """Ranges whose second half is empty."""
    nothing = np.zeros((0, 2), np.int64)
    return blocks, ends, intervals, nothing, nothing[:, 0], nothing


def on_kept(mask: Array, axis: int) -> Array:
    return mask if axis == 1 else mask.T


# -- values ----------------------------------------------------------------------------------------


def masked(name: str, f: Array, g: Array | None, mask: Array) -> tuple[Array, ...]:
    """The oracle row by row, on the columns that are left; indices are those of all columns."""
    row = REDUCTIONS[name]
    found: list[tuple[Array, ...]] = []
    for r, keep in enumerate(mask):
        columns = np.flatnonzero(keep)
        want = plain.oracle(
            name,
            f[..., r : r + 1, columns, :],
            None if g is None else g[..., r : r + 1, columns, :],
        )
        parts = list(want) if isinstance(want, tuple) else [want]
        for n, result in enumerate(row.results):
            if result.kind != "index" or name == "Count":
                continue
            at = columns[parts[n]] if len(columns) else np.zeros_like(parts[n])
            if row.listed:
                axis = -1 if f.shape[-1] == 1 else -2
                at = np.moveaxis(at, axis, -1)
                at = np.where(np.arange(at.shape[-1]) < len(columns), at, 0)
                at = np.moveaxis(at, -1, axis)
            parts[n] = at
        found.append(tuple(parts))
    joint = -2
    if row.listed:
        joint = -2 if f.shape[-1] == 1 else -3
    return tuple(np.concatenate(parts, axis=joint) for parts in zip(*found, strict=True))


def check_masked(
    name: str,
    weighted: bool,
    dim: int,
    sizes: tuple[int, int],
    axis: int,
    dtype: str,
    batch: Sequence[tuple[int, ...]] = ((),) * 5,
) -> None:
    given = plain.arrays(name, dim, *sizes, dtype, batch)
    ranges, mask = random_ranges(sum(sizes) + dim, *sizes)
    f, g = plain.pairs(name, weighted, given, axis)
    want = masked(name, f, g, on_kept(mask, axis))
    got = plain.program(name, weighted, dim, axis)(*given, ranges=ranges)
    plain.check(name, got, want if len(want) > 1 else want[0], dtype, sizes, terms=max(sizes))


@pytest.mark.parametrize("lanes", ["row", "column"])
@pytest.mark.parametrize(("axis", "dtype"), [(1, "float32"), (0, "float64")])
@pytest.mark.parametrize("dim", [1, 3, 20])
@plain.case
def test_every_reduction_equals_numpy_on_the_pairs_that_are_left(
    name: str, weighted: bool, dim: int, axis: int, dtype: str, lanes: str
) -> None:
    with settings(lanes=lanes, block=64):
        for sizes in [(37, 53), (3, 300), (1, 1), (211, 7)]:
            check_masked(name, weighted, dim, sizes, axis, dtype)


@pytest.mark.parametrize(("axis", "dtype"), [(0, "float32"), (1, "float64")])
@plain.case
def test_the_interpreter_agrees(name: str, weighted: bool, axis: int, dtype: str) -> None:
    with settings(check=2):
        check_masked(name, weighted, 3, (23, 31), axis, dtype)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("name", ["Sum", "Mean", "ArgMin", "KMin_ArgKMin", "LogSumExp"])
def test_batch_elements_have_the_same_pairs(name: str, axis: int) -> None:
    for batch in (((2,),) * 5, ((2, 1), (3,), (1, 1), (), (2, 3))):
        if name == "Sum" or batch[0] == (2,):
            check_masked(name, False, 3, (23, 31), axis, "float64", batch)


@pytest.mark.parametrize("axis", [0, 1])
def test_large_sizes_are_cut_into_many_tasks(axis: int) -> None:
    rng = np.random.default_rng(5)
    x, y = rng.normal(size=(3001, 2)), rng.normal(size=(2503, 2))
    table = np.exp(-((x[:, None] - y) ** 2).sum(-1))
    ranges, mask = random_ranges(11, len(x), len(y))
    got = Genred("Exp(-SqDist(x,y))", SQUARES, axis=axis)(x, y, ranges=ranges)
    assert 0 < mask.sum() < mask.size
    assert_close(got[:, 0], np.where(mask, table, 0).sum(axis), terms=3000)


def test_no_panel_is_larger_than_the_plan_allows() -> None:
    ranges, _ = random_ranges(3, 1000, 90)
    pattern = Pattern(*ranges[:3])
    for most in (1, 7, 64, 5000):
        panels = pattern.panels(1000, most)
        assert panels[:, 1].max() <= most
        rows = [r for first, count, *_ in panels for r in range(first, first + count)]
        assert rows == list(range(1000))


@pytest.mark.parametrize("lanes", ["row", "column"])
def test_a_column_of_two_intervals_counts_twice(lanes: str) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(7, 1)), rng.normal(size=(11, 1))
    intervals = [[4, 9], [0, 6], [5, 6], [2, 2]]
    ranges = both([[1, 6]], [4], intervals)
    columns = np.concatenate([np.arange(*pair) for pair in intervals])
    pairs = x[1:6] * y[columns, 0]
    wants = {
        "Sum": pairs.sum(1),
        "Mean": pairs.mean(1),
        "Min": pairs.min(1),
        "LogSumExp": np.log(np.exp(pairs).sum(1)),
        "Count": np.full(5, 12),
        "KMin": np.sort(pairs, axis=1)[:, :3],
    }
    with settings(lanes=lanes):
        for name, want in wants.items():
            length = {"opt_arg": 3} if name == "KMin" else {}
            genred = Genred("x*y", ["x = Vi(1)", "y = Vj(1)"], name, axis=1, **length)
            got = genred(x, y, ranges=ranges)[1:6]
            assert_close(got.reshape(want.shape), want, terms=12, formula=name)


def test_rows_without_pairs_get_the_neutral_value() -> None:
    ranges = both([[0, 1], [1, 1], [3, 4]], [1, 1, 1], [[0, 5]])
    ranges_none = both(np.zeros((0, 2), int), np.zeros(0, int), np.zeros((0, 2), int))
    x, y = np.ones((5, 1)), np.ones((5, 1))
    wants = {
        "Sum": 0.0, "Min": math.inf, "Max": -math.inf, "ArgMin": 0, "LogSumExp": -math.inf,
        "Prod": 1.0, "Mean": math.nan, "All": True, "Any": False,
    }  # fmt: skip
    for name, want in wants.items():
        genred = Genred("x*y", ["x = Vi(1)", "y = Vj(1)"], name, axis=1)
        assert_same_bits(genred(x, y, ranges=ranges)[1:, 0], np.full(4, want), formula=name)
        assert_same_bits(genred(x, y, ranges=ranges_none)[:, 0], np.full(5, want), formula=name)


def test_empty_axes() -> None:
    none = np.zeros((0, 2), int)
    genred = Genred("SqDist(x,y)", SQUARES, axis=1)
    ranges = both(none, none[:, 0], none)
    assert genred(np.ones((0, 2)), np.ones((4, 2)), ranges=ranges).shape == (0, 1)
    assert_same_bits(genred(np.ones((3, 2)), np.ones((0, 2)), ranges=ranges), np.zeros((3, 1)))


@pytest.mark.parametrize("dtype", ["int32", "uint8", "int64", "uint64", "list"])
def test_any_whole_numbers_will_do(dtype: str) -> None:
    ranges, mask = random_ranges(2, 30, 40)
    change: Callable[[Array], Any] = operator.methodcaller("astype", dtype)
    if dtype == "list":
        change = np.ndarray.tolist
    given = tuple(map(change, ranges))
    x, y = np.ones((30, 2)), np.zeros((40, 2))
    got = Genred("SqDist(x,y)", SQUARES, axis=1)(x, y, ranges=given)
    assert_same_bits(got[:, 0], 2.0 * mask.sum(1))


@pytest.mark.parametrize("rules", ["exact", "default"])
def test_infinite_factors_and_huge_exponents(rules: str) -> None:
    ranges, mask = random_ranges(8, 19, 27)
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(19, 1)), rng.normal(size=(27, 1))
    x[::4] = math.inf
    options = {} if rules == "default" else {"rules": rules}
    with settings(**options), np.errstate(all="ignore"):
        got = Genred("x*y", ["x = Vi(1)", "y = Vj(1)"], axis=1)(x, y, ranges=ranges)[:, 0]
        want = [(x[r] * y[keep, 0]).sum() for r, keep in enumerate(mask)]
        assert_close(got, np.array(want), terms=27)
        x[::4] = 400.0
        y[:] = -300.0
        got = Genred("Exp(x+y)", ["x = Vi(1)", "y = Vj(1)"], axis=1)(x, y, ranges=ranges)[:, 0]
        assert_close(got, (np.exp(x + y[:, 0]) * mask).sum(1), rtol=1e-12, atol=0)


def test_results_go_to_out() -> None:
    ranges, mask = random_ranges(2, 30, 40)
    x, y = np.ones((30, 2)), np.zeros((40, 2))
    out = np.full((30, 1), 7.0)
    genred = Genred("SqDist(x,y)", SQUARES, axis=1)
    assert genred(x, y, ranges=ranges, out=out) is out
    assert_same_bits(out[:, 0], 2.0 * mask.sum(1))
    logs = Genred("SqDist(x,y)", SQUARES, "LogSumExp", axis=1)
    raw = np.zeros((30, 2))
    logs(x, y, ranges=ranges, out=raw)
    assert_same_bits(raw[:, 1], 1.0 * mask.sum(1))


def test_threads_do_not_change_a_bit() -> None:
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=(900, 2)), rng.normal(size=(1100, 2))
    ranges, _ = random_ranges(4, 900, 1100)
    genred = Genred("Exp(-SqDist(x,y))", SQUARES, axis=1)
    with settings(threads=1):
        one = genred(x, y, ranges=ranges)
    with settings(threads=3):
        assert_same_bits(genred(x, y, ranges=ranges), one)


def test_half_precision() -> None:
    ranges, mask = random_ranges(6, 30, 40)
    x, y = np.ones((30, 2), "float16"), np.zeros((40, 2), "float16")
    got = Genred("SqDist(x,y)", SQUARES, axis=1)(x, y, ranges=ranges)
    assert got.dtype == np.float16
    assert_same_bits(got[:, 0], 2.0 * mask.sum(1))


def test_the_check_notices_wrong_results(monkeypatch: pytest.MonkeyPatch) -> None:
    real = reference.evaluate_sparse
    monkeypatch.setattr(reference, "evaluate_sparse", lambda *a: [r + 0.01 for r in real(*a)])
    ranges, _ = random_ranges(6, 30, 40)
    with settings(check=2), pytest.raises(InternalError):
        Genred("SqDist(x,y)", SQUARES, axis=1)(np.ones((30, 2)), np.ones((40, 2)), ranges=ranges)


def test_lazy_tensors_carry_their_ranges() -> None:
    rng = np.random.default_rng(0)
    x, y, b = rng.normal(size=(31, 3)), rng.normal(size=(43, 3)), rng.normal(size=(43, 2))
    ranges, mask = random_ranges(9, 31, 43)
    table = ((x[:, None] - y) ** 2).sum(-1) * mask
    k = ((LazyTensor(x[:, None]) - LazyTensor(y[None])) ** 2).sum(-1)
    assert_close(k.sum(axis=1, ranges=ranges)[:, 0], table.sum(1), terms=43)
    k.ranges = ranges
    assert_close((2 * k).sum(axis=0)[:, 0], 2 * table.sum(0), terms=31)
    assert_close(k @ b, table @ b, terms=43)
    assert_close(k.T @ x, table.T @ x, terms=31)


# -- what is refused -------------------------------------------------------------------------------

GOOD = ([[0, 2], [2, 5]], [1, 2], [[0, 3], [3, 7]], [[0, 3], [3, 7]], [1, 2], [[0, 2], [2, 5]])
WRONG: dict[str, tuple[int, Any, type[Exception], tuple[str, ...]]] = {
    "beyond the rows": (0, [[0, 2], [2, 6]], RangeError, ("ranges_i[1] = [2, 6]", "5 rows")),
    "negative": (0, [[-1, 2], [2, 5]], RangeError, ("ranges_i[0] = [-1, 2]",)),
    "decreasing": (2, [[0, 3], [7, 3]], RangeError, ("redranges_j[1] = [7, 3]", "before")),
    "beyond the columns": (2, [[0, 3], [3, 8]], RangeError, ("redranges_j[1]", "7 rows")),
    "overlap": (0, [[0, 3], [2, 5]], RangeError, ("overlap", "[0, 3]", "[2, 5]")),
    "same block twice": (0, [[0, 2], [0, 2]], RangeError, ("overlap",)),
    "slices decrease": (1, [2, 1], RangeError, ("slices_i[1] = 1 after 2",)),
    "slices begin below 0": (1, [-1, 2], RangeError, ("slices_i[0] = -1",)),
    "slices too large": (1, [1, 3], RangeError, ("slices_i[1] = 3", "2 rows")),
    "other half": (5, [[0, 2], [2, 6]], RangeError, ("redranges_i[1]",)),
    "other slices": (4, [1, 9], RangeError, ("slices_j[1] = 9",)),
    "too few slices": (1, [2], ShapeError, ("slices_i", "1 numbers, 2 rows")),
    "floats": (0, np.ones((2, 2)), DTypeError, ("ranges_i", "float64")),
    "truth values": (4, np.ones(2, bool), DTypeError, ("slices_j", "bool")),
    "one axis": (0, [0, 2], ShapeError, ("ranges_i", "(2,)")),
    "three columns": (2, np.zeros((2, 3), int), ShapeError, ("redranges_j", "(2, 3)")),
    "slices of two axes": (1, [[1], [2]], ShapeError, ("slices_i", "(2, 1)")),
    "huge": (2, np.array([[0, 3], [3, 2**64 - 1]], np.uint64), RangeError, ("redranges_j[1]",)),
}


@pytest.mark.parametrize("fault", WRONG)
@pytest.mark.parametrize("axis", [0, 1])
def test_wrong_ranges_are_refused_before_anything_runs(fault: str, axis: int) -> None:
    place, value, error, words = WRONG[fault]
    ranges = [*GOOD[:place], value, *GOOD[place + 1 :]]
    genred = Genred("SqDist(x,y)", SQUARES, axis=axis)
    x, y = np.ones((5, 2)), np.ones((7, 2))
    out = np.full((5 if axis == 1 else 7, 1), 9.0)
    with pytest.raises(error) as raised:
        genred(x, y, ranges=tuple(ranges), out=out)
    assert isinstance(raised.value, ValueError)
    assert (out == 9).all()
    for word in words:
        assert word in str(raised.value)


@pytest.mark.parametrize("ranges", [5, (1, 2, 3), "ranges", GOOD[:5]])
def test_what_is_not_six_arrays_is_refused(ranges: Any) -> None:
    genred = Genred("SqDist(x,y)", SQUARES, axis=1)
    with pytest.raises(OptionError, match="six arrays"):
        genred(np.ones((5, 2)), np.ones((7, 2)), ranges=ranges)


def test_good_ranges_and_no_ranges() -> None:
    genred = Genred("SqDist(x,y)", SQUARES, axis=1)
    x, y = np.ones((5, 2)), np.zeros((7, 2))
    assert genred(x, y, ranges=GOOD)[:, 0].tolist() == [6, 6, 8, 8, 8]
    assert genred(x, y, ranges=())[:, 0].tolist() == [14] * 5


def test_ranges_are_checked_against_each_call() -> None:
    genred = Genred("SqDist(x,y)", SQUARES, axis=1)
    genred(np.ones((5, 2)), np.ones((7, 2)), ranges=GOOD)
    with pytest.raises(RangeError):
        genred(np.ones((4, 2)), np.ones((7, 2)), ranges=GOOD)
