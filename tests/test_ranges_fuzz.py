"""Random patterns of every kind, folded over arrays that end at memory nobody may read."""

from __future__ import annotations

import ctypes
import math
import mmap
from typing import Any

import numpy as np
import pytest
from checks import allow, assert_close
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import pairfold
from pairfold.errors import RangeError
from pairfold.frontends.ranges import Ranges
from pairfold.numpy import Genred

Array = Any
FORMULAS: dict[str, Any] = {
    "x*y": lambda x, y: x * y,
    "x": lambda x, y: x + 0 * y,
    "y": lambda x, y: 0 * x + y,
    "2": lambda x, y: 2 + 0 * (x + y),
    "x-x": lambda x, y: 0 * (x + y),
    "Exp(x+y)": lambda x, y: np.exp(x + y),
}


def stretch(size: int) -> st.SearchStrategy[tuple[int, int]]:
    """An interval within an axis; many are empty, whole, or of one row."""
    cut = st.integers(0, size)
    pair = st.tuples(cut, cut).map(lambda p: (min(p), max(p)))
    return st.one_of(pair, st.just((0, size)), cut.map(lambda c: (c, min(c + 1, size))))


@st.composite
def half(draw: st.DrawFn, rows: int, columns: int) -> tuple[Array, Array, Array]:
    """Blocks that do not overlap, in any order, with any intervals, repeated or empty."""
    cuts = sorted(draw(st.lists(st.integers(0, rows), max_size=8)))
    blocks = list(zip(cuts[::2], cuts[1::2], strict=False))
    blocks = draw(st.permutations(blocks))
    met = [draw(st.lists(stretch(columns), max_size=5)) for _ in blocks]
    ends = np.cumsum([len(intervals) for intervals in met], dtype=np.int64)
    flat = [pair for intervals in met for pair in intervals]
    return table(blocks), ends, table(flat)


def table(pairs: Any) -> Array:
    return np.array(pairs, np.int64).reshape(-1, 2)


def counted(part: tuple[Array, ...], rows: int, columns: int) -> Array:
    """How often each pair is met: (rows, columns)."""
    blocks, ends, intervals = part
    found = np.zeros((rows, columns), np.int64)
    start = 0
    for (a, b), end in zip(blocks, ends, strict=True):
        for c, d in intervals[start:end]:
            found[a:b, c:d] += 1
        start = end
    return found


def transposed(part: tuple[Array, ...], columns: int) -> tuple[Array, ...]:
    """The other half of the same pairs: one block per column."""
    blocks, ends, intervals = part
    owners = np.repeat(np.arange(len(blocks)), np.diff(ends, prepend=0))
    met = [
        [tuple(blocks[k]) for k, (c, d) in zip(owners, intervals, strict=True) if c <= n < d]
        for n in range(columns)
    ]
    ends = np.cumsum([len(own) for own in met], dtype=np.int64)
    return (
        table([(n, n + 1) for n in range(columns)]),
        ends,
        table([pair for own in met for pair in own]),
    )


NOTHING = (table([]), np.zeros(0, np.int64), table([]))


def fenced(values: Array, before: bool) -> Array:
    """A copy that begins just after, or ends just before, a page that may not be read."""
    page = mmap.PAGESIZE
    pages = -(-max(values.nbytes, 1) // page)
    block = mmap.mmap(-1, (pages + 2) * page)
    base = ctypes.addressof(ctypes.c_char.from_buffer(block))
    for number in (0, pages + 1):
        allow(base + number * page, page, reading=False)
    raw = np.frombuffer(block, np.uint8, (pages + 1) * page)
    start = page if before else (pages + 1) * page - values.nbytes
    found = raw[start : start + values.nbytes].view(values.dtype).reshape(values.shape)
    found[...] = values
    return found


def want(name: str, values: Array, counts: Array) -> Array:
    """A reduction over columns, each as often as it is met."""
    found: list[Any] = []
    for row, often in zip(values, counts, strict=True):
        met, columns = np.repeat(row, often), np.repeat(np.arange(len(row)), often)
        empty = not len(met)
        found.append(
            {
                "Sum": lambda m=met: m.sum(),
                "Mean": lambda m=met, e=empty: math.nan if e else m.mean(),
                "Count": lambda m=met: np.count_nonzero(m),
                "Max": lambda m=met: m.max(initial=-math.inf),
                "ArgMin": lambda m=met, c=columns, e=empty: 0 if e else c[m.argmin()],
                "LogSumExp": lambda m=met, e=empty: -math.inf if e else np.log(np.exp(m).sum()),
                "KMin": lambda m=met: np.sort(np.append(m, [math.inf] * 3))[:3],
            }[name]()
        )
    width = 3 if name == "KMin" else 1
    return np.array(found, float).reshape(len(values), width)


@pytest.mark.parametrize("name", ["Sum", "Mean", "Count", "Max", "ArgMin", "LogSumExp", "KMin"])
@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_pattern_gives_the_numbers_of_the_table(name: str, data: st.DataObject) -> None:
    sizes = st.sampled_from([0, 1, 2, 3, 7, 16, 33, 70])
    rows, columns = data.draw(sizes), data.draw(sizes)
    axis, before = data.draw(st.integers(0, 1)), data.draw(st.booleans())
    part = data.draw(half(rows, columns))
    counts = counted(part, rows, columns)
    formula = data.draw(st.sampled_from(list(FORMULAS)))
    rng = np.random.default_rng(rows + columns)
    kept, reduced = (fenced(rng.normal(size=(n, 1)), before) for n in (rows, columns))
    names = ("x", "y") if axis == 1 else ("y", "x")
    given_arrays = dict(zip(names, (kept, reduced), strict=True))
    ranges = (*part, *NOTHING) if axis == 1 else (*NOTHING, *part)
    options = {"opt_arg": 3} if name == "KMin" else {}
    genred = Genred(formula, ["x = Vi(1)", "y = Vj(1)"], name, axis=axis, **options)
    with pairfold.settings(lanes=data.draw(st.sampled_from(["row", "column"])), block=16):
        got = genred(given_arrays["x"], given_arrays["y"], ranges=ranges)
    pairs = (kept, reduced[:, 0]) if axis == 1 else (reduced[:, 0], kept)
    values = FORMULAS[formula](*pairs)
    assert_close(got, want(name, values, counts), terms=100, formula=formula)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(data=st.data())
def test_halves_of_the_same_pairs_are_told_from_others(data: st.DataObject) -> None:
    rows, columns = data.draw(st.integers(0, 9)), data.draw(st.integers(0, 9))
    first = data.draw(half(rows, columns))
    other = transposed(first, columns)
    ranges = Ranges((*first, *other))
    ranges.check_halves(rows, columns)
    swapped = Ranges((*other, *first))
    swapped.check_halves(columns, rows)
    second = data.draw(half(columns, rows))
    mixed = Ranges((*first, *second))
    same = (counted(first, rows, columns) == counted(second, columns, rows).T).all()
    if same:
        mixed.check_halves(rows, columns)
    else:
        with pytest.raises(RangeError, match="both halves"):
            mixed.check_halves(rows, columns)


def test_a_million_intervals_are_no_trouble() -> None:
    """Time and memory of patterns are those of their tables, not of the pairs."""
    count = 500_000
    starts = np.arange(count) * 3
    blocks = np.stack([starts, starts + 2], 1)
    intervals = np.stack([starts, starts + 2], 1).repeat(2, 0)
    intervals[1::2] = 0, 1
    ends = np.arange(1, count + 1) * 2
    x = np.broadcast_to(np.ones((1, 1), "float32"), (3 * count, 1))
    genred = Genred("x*y", ["x = Vi(1)", "y = Vj(1)"], axis=1)
    got = genred(x, x, ranges=(blocks, ends, intervals, *NOTHING))
    assert (got.reshape(-1, 3) == [3, 3, 0]).all()


def test_one_row_of_very_many_columns_and_the_other_way_round() -> None:
    size = 300_001
    y = np.arange(size, dtype=float)[:, None]
    x = np.ones((1, 1))
    intervals = table([(5, 7), (1000, 200_000), (size - 1, size)])
    wanted = np.concatenate([np.arange(*pair) for pair in intervals]).sum()
    part = (table([(0, 1)]), np.array([3]), intervals)
    for axis in (0, 1):
        ranges = (*part, *NOTHING) if axis == 1 else (*NOTHING, *part)
        genred = Genred("x*y", ["x = Vi(1)", "y = Vj(1)"], axis=axis)
        got = genred(*((x, y) if axis == 1 else (y, x)), ranges=ranges)
        assert got.tolist() == [[wanted]]
    back = (intervals, np.array([1, 2, 3]), table([(0, 1)] * 3))
    got = Genred("x*y", ["x = Vi(1)", "y = Vj(1)"], axis=0)(x, y, ranges=(*part, *back))
    mask = np.zeros(size)
    for a, b in intervals:
        mask[a:b] = 1
    assert_close(got[:, 0], mask * y[:, 0])
