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
from products import some

from pairfold import cluster
from pairfold.backends.reference import interpreter as reference
from pairfold.dropin import numpy as dropin
from pairfold.errors import DTypeError, InternalError, OptionError, RangeError, ShapeError
from pairfold.lower.pattern import Pattern
from pairfold.numpy import Genred, KernelSolve, LazyTensor, Vi, Vj
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
            if row.top_k:
                axis = -1 if f.shape[-1] == 1 else -2
                at = np.moveaxis(at, axis, -1)
                at = np.where(np.arange(at.shape[-1]) < len(columns), at, 0)
                at = np.moveaxis(at, -1, axis)
            parts[n] = at
        found.append(tuple(parts))
    joint = -2
    if row.top_k:
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


# All pairs of the three: `test_reductions.py` has every combination on all pairs of points.
OPTIONS = [
    (1, 1, "float32", "row"),
    (1, 0, "float64", "column"),
    (3, 1, "float32", "column"),
    (3, 0, "float64", "row"),
    (20, 1, "float32", "row"),
    (20, 0, "float64", "column"),
]


@some(
    "name,weighted,dim,axis,dtype,lanes",
    [(*entry, *options) for entry in plain.CASES for options in OPTIONS],
    lambda entry: (plain.CASES.index(entry[:2]) + OPTIONS.index(entry[2:])) % 2 == 0,
)
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


def test_no_block_of_rows_is_larger_than_the_plan_allows() -> None:
    ranges, _ = random_ranges(3, 1000, 90)
    pattern = Pattern(*ranges[:3])
    for most in (1, 7, 64, 5000):
        row_blocks = pattern.row_blocks(1000, most)
        assert row_blocks[:, 1].max() <= most
        rows = [r for first, count, *_ in row_blocks for r in range(first, first + count)]
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
    logs = dropin.Genred("SqDist(x,y)", SQUARES, "LogSumExp", axis=1)
    raw = np.zeros((30, 2))
    found = logs(x, y, ranges=ranges, out=raw)
    assert_same_bits(
        found, Genred("SqDist(x,y)", SQUARES, "LogSumExp", axis=1)(x, y, ranges=ranges)
    )
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


def lazy_points(rows: int = 31, columns: int = 43) -> tuple[Any, ...]:
    """Two clouds, ranges of their pairs, and the squared distances that are left."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(rows, 3)), rng.normal(size=(columns, 3))
    ranges, mask = random_ranges(9, rows, columns)
    return x, y, ranges, ((x[:, None] - y) ** 2).sum(-1) * mask


def test_an_operand_without_ranges_takes_those_of_the_other() -> None:
    x, y, ranges, table = lazy_points()
    i, j = LazyTensor(x[:, None]), LazyTensor(y[None])
    j.ranges = ranges
    k = ((i - j) ** 2).sum(-1)
    assert k.ranges is ranges
    assert_close(k.sum(axis=1)[:, 0], table.sum(1), terms=43)
    i.ranges = [part.tolist() for part in ranges]
    assert_close(((i - j) ** 2).sum(-1).sum(axis=1)[:, 0], table.sum(1), terms=43)


def test_operands_with_other_ranges_do_not_mix() -> None:
    x, y, ranges, _ = lazy_points()
    i, j = LazyTensor(x[:, None]), LazyTensor(y[None])
    i.ranges = ranges
    changed = [part.copy() for part in ranges]
    changed[2][0, 1] += 1
    shorter = (*ranges[:2], ranges[2][:-1], *ranges[3:])
    for other in (tuple(changed), shorter):
        j.ranges = other
        with pytest.raises(ValueError, match="ranges"):
            i - j


def test_ranges_of_the_call_take_precedence() -> None:
    x, y, ranges, table = lazy_points()
    other, mask = random_ranges(10, 31, 43)
    k = ((LazyTensor(x[:, None]) - LazyTensor(y[None])) ** 2).sum(-1)
    full = ((x[:, None] - y) ** 2).sum(-1)
    k.ranges = other
    for axis in (0, 1):
        assert_close(k.sum(axis=axis, ranges=ranges)[:, 0], table.sum(axis), terms=43)
        assert_close(k.sum(axis=axis)[:, 0], (full * mask).sum(axis), terms=43)
        assert_close(k.sum(axis=axis, ranges=())[:, 0], full.sum(axis), terms=43)
    assert_close(k.__matmul__(y, ranges=ranges), table @ y, terms=43)


def test_ranges_go_with_the_transposed_tensor() -> None:
    x, y, ranges, table = lazy_points()
    k = ((LazyTensor(x[:, None]) - LazyTensor(y[None])) ** 2).sum(-1)
    k.ranges = ranges
    for made in (k.t(), k.T, (2 * k).T / 2):
        assert_close(made.sum(axis=1)[:, 0], table.sum(0), terms=31)
        assert_close(made.argmin(axis=0)[:, 0], k.argmin(axis=1)[:, 0])
    back = k.T.T.ranges
    assert all(a is b for a, b in zip(back, ranges, strict=True))


def test_symbols_take_ranges_at_the_call_and_remember_them() -> None:
    x, y, ranges, table = lazy_points()
    squared = ((Vi(0, 3) - Vj(1, 3)) ** 2).sum(-1)
    call = squared.sum(axis=1)
    assert_close(call(x, y, ranges=ranges)[:, 0], table.sum(1), terms=43)
    assert_close(call(x, y)[:, 0], table.sum(1), terms=43)
    squared.ranges = ranges
    assert_close(squared.sum(axis=0)(x, y)[:, 0], table.sum(0), terms=31)
    with pytest.raises(RangeError):
        call(x[:1], y)


def test_every_lazy_reduction_takes_ranges() -> None:
    x, y, ranges, _ = lazy_points()
    k = ((LazyTensor(x[:, None]) - LazyTensor(y[None])) ** 2).sum(-1)
    other = LazyTensor(y[None])
    calls: dict[str, Callable[..., Any]] = {
        "Min": k.min, "Max": k.max, "ArgMin": k.argmin, "ArgMax": k.argmax,
        "KMin": lambda **o: k.Kmin(4, **o), "ArgKMin": lambda **o: k.argKmin(4, **o),
        "LogSumExp": k.logsumexp, "SumSoftMaxWeight": lambda **o: k.sumsoftmaxweight(other, **o),
        "Min_ArgMin": k.min_argmin, "Max_ArgMax": k.max_argmax,
        "KMin_ArgKMin": lambda **o: k.Kmin_argKmin(4, **o),
    }  # fmt: skip
    for name, call in calls.items():
        weight = {"formula2": "y"} if name == "SumSoftMaxWeight" else {}
        count = {"opt_arg": 4} if "KMin" in name else {}
        for axis in (0, 1):
            genred = Genred("SqDist(x,y)", ["x=Vi(3)", "y=Vj(3)"], name, axis, **weight, **count)
            want, got = genred(x, y, ranges=ranges), call(axis=axis, ranges=ranges)
            whole = call(axis=axis)
            if not isinstance(want, tuple):
                want, got, whole = (want,), (got,), (whole,)
            for one, other_one, all_pairs in zip(got, want, whole, strict=True):
                assert_close(one, other_one.reshape(one.shape), formula=name)
                assert not np.array_equal(one, all_pairs, equal_nan=True)


def test_lazy_systems_solve_with_ranges() -> None:
    x, _, _, _ = lazy_points()
    ranges, mask = symmetric_ranges(31)
    table = np.exp(-((x[:, None] - x) ** 2).sum(-1)) * mask + 3 * np.eye(31)
    k = (-((LazyTensor(x[:, None]) - LazyTensor(x[None])) ** 2).sum(-1)).exp()
    options: dict[str, Any] = {"alpha": 3.0, "tol": 1e-13}
    want = np.linalg.solve(table, x)
    assert_close(k.solve(x, ranges=ranges, **options), want, rtol=1e-11)
    solve = KernelSolve("Exp(-SqDist(x,y))*b", ["x=Vi(3)", "y=Vj(3)", "b=Vj(3)"], "b", axis=1)
    assert_close(solve(x, x, x, ranges=ranges, **options), want, rtol=1e-11)
    batch = np.stack([x, 2 * x])
    got = solve(x, x, batch, ranges=ranges, **options)
    assert_close(got, np.linalg.solve(table, batch), rtol=1e-11)
    k.ranges = ranges
    assert_close(k.solve(x, **options), want, rtol=1e-11)
    assert_close(k.solve(x, call=False)(**options), want, rtol=1e-11)
    wrong = (ranges[0], ranges[1], ranges[2] + 1, *ranges[3:])
    with pytest.raises(RangeError):
        solve(x, x, 0 * x, ranges=wrong)  # no product is needed for this solution


def symmetric_ranges(size: int) -> tuple[tuple[Array, ...], Array]:
    """Ranges of a symmetric pattern of clusters, and its mask."""
    rng = np.random.default_rng(size)
    lab = np.sort(rng.integers(0, 6, size))
    keep = rng.random((6, 6)) < 0.3
    keep = keep | keep.T | np.eye(6, dtype=bool)
    parts = cluster.cluster_ranges(lab, 6)
    assert not keep.all()
    return cluster.from_matrix(parts, parts, keep), keep[lab][:, lab]


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
    "slices end early": (1, [1, 1], RangeError, ("slices_i ends with 1", "2 rows")),
    "slices end early, of the other half": (4, [0, 0], RangeError, ("slices_j ends with 0",)),
    "slices too large": (1, [1, 3], RangeError, ("slices_i[1] = 3", "2 rows")),
    "other half": (5, [[0, 2], [2, 6]], RangeError, ("redranges_i[1]",)),
    "other slices": (4, [1, 9], RangeError, ("slices_j[1] = 9",)),
    "too few slices": (1, [2], ShapeError, ("slices_i", "1 numbers, 2 rows")),
    "floats": (0, np.ones((2, 2)), DTypeError, ("ranges_i", "float64")),
    "words": (2, np.array([["0", "3"], ["3", "7"]]), DTypeError, ("redranges_j", "<U1")),
    "complex": (2, np.zeros((2, 2), complex), DTypeError, ("redranges_j", "complex128")),
    "a number": (1, 2, ShapeError, ("slices_i", "()")),
    "nothing": (3, None, ShapeError, ("ranges_j", "()")),
    "ragged": (2, [[0, 3], [3]], ShapeError, ("redranges_j",)),
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
    unread = (place < 3) != (axis == 1)
    if (unread and error is RangeError) or (fault == "too few slices" and unread):
        # The half that is not read need not fit; see below for gradients, which read both.
        want = genred(x, y, ranges=GOOD)
        assert_same_bits(genred(x, y, ranges=tuple(ranges), out=out), want)
        axis = 1 - axis
        genred, out = Genred("SqDist(x,y)", SQUARES, axis=axis), np.full((12 - len(out), 1), 9.0)
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
