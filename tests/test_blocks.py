"""Blocks of pairs where a mask holds nowhere, or everywhere: what is known, what it changes."""

from __future__ import annotations

import gc
import os
import weakref

import numpy as np
import pytest
from random_masks import ALIASES, Maker, compare

import pairfold
from pairfold import Genred, Vi, Vj, settings
from pairfold.backends.llvm.masked_launch import MaskedLauncher
from pairfold.backends.reference.interpreter import pair_values
from pairfold.core.constants import mark, number_of
from pairfold.core.node import Axis
from pairfold.frontends.parse import parse_many
from pairfold.lower import blocks
from pairfold.lower.blocks import NONE, TESTED, WHOLE, Answers, Grid, answers_of, joined
from pairfold.lower.kernel import lower
from pairfold.ops.reductions import REDUCTIONS

# Layouts that skipping is compared on; a hundred thousand take half an hour.
LAYOUTS = int(os.environ.get("PAIRFOLD_LAYOUTS", "600"))


def kernels_of(text: str, kept: Axis = Axis.I):
    """The kernel of a sum with a mask, and that of the mask's own values."""
    one, mask = parse_many(["Elem(x,0)+Elem(y,0)+p", text], ALIASES)
    row = REDUCTIONS["Sum"]
    return lower(one.node, row, kept, 16, where=mask.node), lower(mask.node, row, kept, 16)


def truths(text: str, arrays, kept: Axis = Axis.I) -> np.ndarray:
    """Where a mask holds, (rows, columns), as the interpreter has it."""
    _, kernel = kernels_of(text, kept)
    x, y, p = arrays if kept == Axis.I else (arrays[1], arrays[0], arrays[2])
    given = {0: arrays[0], 1: arrays[1], 2: p}
    values = pair_values(kernel, given, len(x), len(y), str(x.dtype))
    return np.broadcast_to(values[..., 0] != 0, (len(x), len(y)))


def known(text: str, arrays, grid: Grid, kept: Axis = Axis.I) -> Answers:
    """What is known of a mask's blocks."""
    kernel, _ = kernels_of(text, kept)

    def component(position: int, k: int):
        return arrays[position][..., k]

    with np.errstate(all="ignore"):
        return answers_of(kernel, component, grid, str(arrays[0].dtype))


def table(answers: Answers) -> np.ndarray:
    """The answer of each cell and block."""
    grid = answers.grid
    found = np.zeros((grid.row_blocks * grid.cells, grid.blocks), int)
    step = grid.tiles // grid.cells
    for number, (first, rows, low, high, columns) in enumerate(answers.row_blocks.tolist()):
        assert first == number * grid.cell * grid.cells
        assert 0 < rows <= grid.cell * grid.cells
        assert columns == grid.columns
        stop = 0
        for (start, end), word in zip(
            answers.intervals[low:high].tolist(), answers.words[low:high].tolist(), strict=True
        ):
            assert start % grid.block == 0
            assert stop <= start < end <= grid.columns
            assert end % grid.block == 0 or end == grid.columns
            stop = end
            for cell in range(grid.cells):
                answer = word >> 2 * cell * step & 3
                assert all(word >> 2 * (cell * step + k) & 3 == answer for k in range(step))
                place = (
                    number * grid.cells + cell,
                    slice(start // grid.block, -(-end // grid.block)),
                )
                found[place] = answer
    return found[: grid.row_cells]


def check(text: str, arrays, grid: Grid, kept: Axis = Axis.I) -> np.ndarray:
    """The answers are true; returns how many there are of each."""
    answers = known(text, arrays, grid, kept)
    found, holds = table(answers), truths(text, arrays, kept)
    for cell in range(grid.row_cells):
        rows = holds[cell * grid.cell : (cell + 1) * grid.cell]
        for block in range(grid.blocks):
            pairs = rows[:, block * grid.block : (block + 1) * grid.block]
            if found[cell, block] == NONE:
                assert not pairs.any(), (text, cell, block)
            elif found[cell, block] == WHOLE:
                assert pairs.all(), (text, cell, block)
    counts = tuple(int((found == answer).sum()) for answer in (NONE, TESTED, WHOLE))
    assert counts == answers.counts()
    return counts


@pytest.fixture
def small_groups(monkeypatch):
    monkeypatch.setattr(blocks, "_FEW", 4)
    monkeypatch.setattr(blocks, "_AT_ONCE", 64)


GRIDS = [
    lambda rows, columns: Grid(rows, columns, 4, 3, 8, 3),
    lambda rows, columns: Grid(rows, columns, 8, 1, 4, 8),
    lambda rows, columns: Grid(rows, columns, 16, 8, 16, 8),
]


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("few", [True, False], ids=["one by one", "by groups"])
def test_answers_are_true(grid, few, request):
    if not few:
        request.getfixturevalue("small_groups")
    total = np.zeros(3, int)
    for seed in range(60):
        make = Maker(seed)
        text, dtype = make.mask(2), make.one(["float32", "float64"])
        kept = make.one([Axis.I, Axis.J])
        arrays = make.arrays(dtype, True)
        sizes = (len(arrays[0]), len(arrays[1]))
        sizes = sizes if kept == Axis.I else sizes[::-1]
        total += check(text, arrays, grid(*sizes), kept)
    assert (total > 200).all()


@pytest.mark.usefixtures("small_groups")
@pytest.mark.parametrize("text", ["Ind(j) <= Ind(i)", "Abs(Ind(i)-Ind(j)) <= 20"])
def test_no_more_blocks_of_indices_are_tested_than_need_be(text):
    arrays, grid = [np.zeros((n, 2), "float32") for n in (300, 210)], Grid(300, 210, 8, 4, 8, 4)
    arrays.append(np.ones(1, "float32"))
    holds, found = truths(text, arrays), table(known(text, arrays, grid))
    for cell in range(grid.row_cells):
        for block in range(grid.blocks):
            pairs = holds[cell * 8 : cell * 8 + 8, block * 8 : block * 8 + 8]
            wanted = WHOLE if pairs.all() else TESTED if pairs.any() else NONE
            assert found[cell, block] == wanted, (cell, block)


def test_answers_of_batch_elements_are_one_table():
    grid = Grid(20, 40, 4, 2, 8, 2)
    rng = np.random.default_rng(1)
    both = [
        known(
            "Elem(x,0) < Elem(y,0)",
            [rng.normal(size=(n, 2)) for n in (20, 40)] + [np.ones(1)],
            grid,
        )
        for _ in range(2)
    ]
    whole = joined(both)
    assert len(whole.row_blocks) == 2 * grid.row_blocks
    for each, rows in zip(both, np.split(whole.row_blocks, 2), strict=True):
        for own, row in zip(each.row_blocks, rows, strict=True):
            mine, theirs = slice(*own[2:4]), slice(*row[2:4])
            assert (each.intervals[mine] == whole.intervals[theirs]).all()
            assert (each.words[mine] == whole.words[theirs]).all()
    assert whole.counts() == tuple(np.add(both[0].counts(), both[1].counts()))


# -- results -------------------------------------------------------------------------------------


def test_skipping_changes_no_bit():
    count = 30
    for seed in range(-(-LAYOUTS // count)):
        differences, _ = compare(1000 + seed, count)
        assert not differences, differences[0]


@pytest.mark.parametrize("lanes", ["row", "column"])
@pytest.mark.parametrize("dim", [1, 40])
def test_batch_elements_skip_blocks_of_their_own(lanes, dim):
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(3, 130, 1)), rng.normal(size=(3, 210, 1))
    x.sort(axis=1)
    y.sort(axis=1)
    b = rng.normal(size=(210, dim))
    reduce = Genred("x*y*b", ["x=Vi(1)", "y=Vj(1)", f"b=Vj({dim})"], axis=1, where="Abs(x-y)<=0.3")
    with settings(blocks="always", lanes=lanes, block=16):
        found = reduce(x, y, b)
    keep = np.abs(x - y.swapaxes(1, 2)) <= 0.3
    np.testing.assert_allclose(found, (keep * x * y.swapaxes(1, 2)) @ b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("sizes", [(0, 5), (5, 0), (1, 1), (1, 900), (900, 1)])
def test_sizes_at_the_edges(sizes):
    x, y = (np.arange(n, dtype="float32")[:, None] for n in sizes)
    reduce = Genred("x+y", ["x = Vi(1)", "y = Vj(1)"], axis=1, where="y <= x")
    keep = x >= y.T
    for option in ("always", "auto", "test"):
        with settings(blocks=option):
            np.testing.assert_allclose(reduce(x, y)[:, 0], (keep * (x + y.T)).sum(1))


def test_ranges_and_masks_go_together():
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(60, 2)), rng.normal(size=(50, 2))
    ranges = pairfold.cluster.from_matrix(
        np.array([[0, 20], [20, 60]]),
        np.array([[0, 30], [30, 50]]),
        np.array([[1, 0], [1, 1]], bool),
    )
    reduce = Genred("SqDist(x,y)", ["x=Vi(2)", "y=Vj(2)"], axis=1, where="Ind(j) <= Ind(i)")
    keep = np.arange(50)[None] <= np.arange(60)[:, None]
    keep[:20, 30:] = False
    wanted = (keep * ((x[:, None] - y[None]) ** 2).sum(-1)).sum(1)
    for option in ("always", "test"):
        with settings(blocks=option):
            np.testing.assert_allclose(reduce(x, y, ranges=ranges)[:, 0], wanted)


def test_what_is_known_of_labels_is_kept_and_that_of_data_is_not():
    rng = np.random.default_rng(4)
    x, labels = rng.normal(size=(500, 1)), np.sort(rng.integers(7, size=500))
    product, mask = Vi(x) * Vj(x), pairfold.same(labels, labels)
    with settings(blocks="always"):
        first = product.sum(axis=1, where=mask)
        assert (product.sum(axis=1, where=mask) == first).all()
        reduce = Genred("x*y", ["x=Vi(1)", "y=Vj(1)"], axis=1, where="x <= y")
        before = reduce(x, x)
        y = x.copy()
        again = reduce(y, y)
        y[:] = rng.normal(size=(500, 1))
        after = reduce(y, y)
    keep = labels[:, None] == labels[None]
    np.testing.assert_allclose(first[:, 0], (keep * (x * x.T)).sum(1), atol=1e-12)
    assert (before == again).all()
    np.testing.assert_allclose(after[:, 0], ((y <= y.T) * (y * y.T)).sum(1), atol=1e-12)


def test_masks_of_labels_that_take_turns_are_asked_once_each(monkeypatch):
    asked = []

    answers = MaskedLauncher.answers

    def counted(*given):
        asked.append(given)
        return answers(*given)

    monkeypatch.setattr(MaskedLauncher, "answers", counted)
    x = np.arange(400.0)[:, None]
    masks = [pairfold.lengths(sizes) for sizes in ([100, 300], [399, 1], [200, 200])]
    with settings(blocks="always"):
        for mask in masks * 3:
            (Vi(x) * Vj(x)).sum(axis=1, where=mask)
        assert len(asked) == 3
        for first in range(1, 9):  # other masks do not have one forgotten that is used again
            (Vi(x) * Vj(x)).sum(axis=1, where=pairfold.lengths([first, 400 - first]))
            (Vi(x) * Vj(x)).sum(axis=1, where=masks[0])
    assert len(asked) == 11


def test_constants_are_forgotten_with_their_arrays():
    x = mark(np.ones(3))
    number, gone = number_of(x), weakref.ref(x)
    assert number is not None
    assert number_of(np.ones(3)) is None
    del x
    gc.collect()
    assert gone() is None
    assert number_of(mark(np.ones(3))) not in (None, number)


def test_explanations_count_blocks():
    x = np.sort(np.random.default_rng(5).normal(size=(2000, 1)), axis=0)
    reduce = Genred("x*y", ["x=Vi(1)", "y=Vj(1)"], axis=1, where="Abs(x-y) <= 0.1")
    explained = reduce.explain(x, x)
    skipped, tested, whole = explained.subject.blocks
    assert min(skipped, tested) > 0
    lines = str(explained).splitlines()
    assert any(line.startswith("where      Abs(x-y)<=0.1") for line in lines)
    assert any("skipped" in line and "tested" in line and "met whole" in line for line in lines)
    with settings(blocks="test"):
        assert reduce.explain(x, x).subject.blocks == (0, skipped + tested + whole, 0)
    assert "all tested" in str(reduce.explain(x[:10], x[:10]))
    assert "where" not in str(Genred("x*y", ["x=Vi(1)", "y=Vj(1)"], axis=1).explain(x, x))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("backend", ["llvm", "reference"])
def test_numbers_of_rows_meet_numbers_that_are_not_whole(dtype, backend):
    """Row 2 is below 2.5 and not below 2; NaN is never met, infinity always."""
    limits = [2.5, 2.0, -1.5, -0.0, 0.0, 3.999, np.inf, -np.inf, np.nan]
    x, y = np.zeros((7, 1), dtype), np.array(limits, dtype)[:, None]
    i, wide = np.arange(7)[:, None], y.astype(float).T
    for text, keep in {
        "Ind(i) < y": i < wide,
        "Ind(i) <= y": i <= wide,
        "y < Ind(i)": i > wide,
        "y <= Ind(i)": i >= wide,
        "y == Ind(i)": i == wide,
        "y != Ind(i)": i != wide,
    }.items():
        count = Genred("x+1", ["x=Vi(1)", "y=Vj(1)"], "Count", axis=1, where=text)
        with settings(backend=backend):
            np.testing.assert_array_equal(count(x, y)[:, 0], keep.sum(1))
