"""Masks of labels: blocks that begin and end where runs of equal rows and columns do."""

from __future__ import annotations

import numpy as np
import pytest
from random_masks import Maker, compare
from test_blocks import kernels_of, truths

import pairfold
from pairfold import Genred, LazyTensor, settings
from pairfold.backends.llvm import masked_launch
from pairfold.core.node import Axis
from pairfold.lower.blocks import TESTED, WHOLE, Grid
from pairfold.lower.kernel import COLUMN, ROW
from pairfold.lower.labels import answers_of_labels, cuts_of, labelled

GRIDS = [(4, 3, 8), (8, 1, 16), (16, 2, 4)]


def known(text: str, arrays, cut: tuple[int, int, int], kept: Axis):
    """The answers of a mask, and its truth values."""
    kernel, _ = kernels_of(text, kept)
    sizes = [len(arrays[0]), len(arrays[1])][:: 1 if kept == Axis.I else -1]
    cell, cells, block = cut
    grid = Grid(*sizes, cell, cells, block, cells)
    assert labelled(kernel)
    cuts = cuts_of(kernel, lambda n: list(arrays[n].T), grid, 1)
    assert cuts is not None
    with np.errstate(all="ignore"):
        found = answers_of_labels(
            kernel, lambda n, k: arrays[n][..., k], grid, str(arrays[0].dtype), cuts
        )
    return found, truths(text, arrays, kept)


@pytest.mark.parametrize("cut", GRIDS)
def test_answers_are_true_and_no_block_has_two_parts(cut):
    met = np.zeros(2, int)
    for seed in range(60):
        make = Maker(seed, runs=True)
        text, dtype = make.mask(2), make.one(["float32", "float64"])
        kept = make.one([Axis.I, Axis.J])
        arrays = make.arrays(dtype, True)
        answers, holds = known(text, arrays, cut, kept)
        left, rows_of_all = holds.copy(), 0
        for first, rows, low, high, columns in answers.row_blocks.tolist():
            assert first == rows_of_all
            assert 0 < rows <= cut[0] * cut[1]
            assert columns == holds.shape[1]
            rows_of_all += rows
            before = -1
            for (start, stop), word in zip(
                answers.intervals[low:high].tolist(), answers.words[low:high].tolist(), strict=True
            ):
                assert word in (TESTED * 0x5555555555555555, WHOLE * 0x5555555555555555)
                if start // cut[2] <= before:  # a whole block may go on where another answer ends
                    assert start % cut[2] == 0
                before = (stop - 1) // cut[2]
                pairs = holds[first : first + rows, start:stop]
                assert word & 3 == TESTED or pairs.all(), text
                met[int(word & 3 == WHOLE)] += 1
                left[first : first + rows, start:stop] = False
        assert rows_of_all == len(holds)
        assert not left.any(), text
    assert (met > 30).all()


def test_skipping_runs_changes_no_bit():
    for seed in range(20):
        differences, _ = compare(5000 + seed, 25, runs=True)
        assert not differences, differences[0]


def counted(monkeypatch) -> list[object]:
    """The answers that are made by labels from here on."""
    made: list[object] = []

    def answers(*given):
        made.append(answers_of_labels(*given))
        return made[-1]

    monkeypatch.setattr(masked_launch, "answers_of_labels", answers)
    return made


def sums(x, b, y, where):
    x, y, b = LazyTensor(x[..., :, None, :]), LazyTensor(y[..., None, :, :]), b[..., None, :, :]
    return (((x - y) ** 2).sum(-1) * LazyTensor(b)).sum(axis=x.nbatchdims + 1, where=where)


@pytest.mark.parametrize("stored", ["float16", "float32", "float64"])
@pytest.mark.parametrize("sizes", [[170, 0, 301, 64, 90, 375], [1000]])
def test_clouds_meet_their_own_columns_alone(sizes, stored, monkeypatch):
    made = counted(monkeypatch)
    rng, total = np.random.default_rng(1), sum(sizes)
    x, b = (rng.random((total, n)).astype(stored) for n in (3, 1))
    with settings(lanes="row", row_vectors=1, blocks="always"):
        found = sums(x, b, x, pairfold.lengths(sizes))
        (answers,) = made
        with settings(blocks="test"):
            same = sums(x, b, x, pairfold.lengths(sizes))
    assert (found == same).all()
    ends = np.cumsum(sizes)
    wanted = [[end - size, end] for size, end in zip(sizes, ends, strict=True) if size]
    assert answers.intervals.tolist() == wanted
    assert (answers.words & np.uint64(3) == WHOLE).all()
    labels = np.repeat(np.arange(len(sizes)), sizes)
    wide, weights = x.astype(float), b.astype(float)
    table = ((wide[:, None] - wide[None]) ** 2).sum(-1) * (labels[:, None] == labels)
    tolerance = {"float16": 2e-3, "float32": 1e-5, "float64": 1e-12}[stored]
    np.testing.assert_allclose(found, table @ weights, rtol=tolerance)


def test_other_rows_and_columns_and_their_layout(monkeypatch):
    """Clouds without rows or without columns, labels that lie apart in memory, in both axes."""
    made = counted(monkeypatch)
    rng = np.random.default_rng(2)
    rows, columns = np.array([40, 0, 130, 61]), np.array([70, 33, 0, 118])
    x, y = rng.random((rows.sum(), 2)), rng.random((columns.sum(), 2))
    of_rows, of_columns = (np.repeat(np.arange(4.0), n) for n in (rows, columns))
    wide = np.zeros((len(x), 6))
    wide[:, 2] = of_rows
    table = ((x[:, None] - y[None]) ** 2).sum(-1) * (of_rows[:, None] == of_columns)
    for axis, wanted in ((1, table.sum(1)), (0, table.sum(0))):
        aliases = ["x = Vi(2)", "y = Vj(2)", "l = Vi(1)", "m = Vj(1)"]
        reduce = Genred("SqDist(x,y)", aliases, axis=axis, where="l == m")
        with settings(lanes="row", blocks="always"):
            found = reduce(x, y, wide[:, 2:3], of_columns[:, None])
        np.testing.assert_allclose(found[:, 0], wanted, rtol=1e-12)
    assert len(made) == 2


def test_batch_elements_that_share_labels(monkeypatch):
    made = counted(monkeypatch)
    rng = np.random.default_rng(3)
    x, b = rng.random((3, 300, 2)), rng.random((3, 300, 1))
    labels = np.repeat(np.arange(3), (100, 50, 150))
    own = np.stack([labels, labels[::-1], labels])
    with settings(lanes="row", blocks="always"):
        found = sums(x, b, x, pairfold.lengths([100, 50, 150]))
        assert len(made) == 1
        apart = sums(x, b, x, pairfold.same(own, own))
        assert len(made) == 1  # elements of which each has its own runs are asked otherwise
    distances = ((x[:, :, None] - x[:, None]) ** 2).sum(-1)
    table = distances * (labels[:, None] == labels)
    np.testing.assert_allclose(found, table @ b, rtol=1e-12)
    table = distances * (own[:, :, None] == own[:, None])
    np.testing.assert_allclose(apart, table @ b, rtol=1e-12)


def test_runs_are_found_only_where_they_are_long():
    kernel, _ = kernels_of("Elem(x,0) == Elem(y,1)")
    assert (kernel.read_at[0], kernel.read_at[1]) == (ROW, COLUMN)
    for count in (1, 2, 1000, 5000, 20000):
        grid = Grid(count, count, 8, 2, 16, 2)
        for length in (3, 100):
            labels = np.arange(count) // length
            cuts = cuts_of(kernel, lambda n, labels=labels: [labels], grid, 10)
            if length == 3 and count > 10:
                assert cuts is None
            else:
                assert cuts is not None
                starts = [*range(0, count, length), count]
                assert cuts.rows.tolist() == cuts.columns.tolist() == starts
    late = np.minimum(np.arange(20000) % 2, np.arange(20000) // 5000)
    assert cuts_of(kernel, lambda n: [late], Grid(20000, 20000, 8, 2, 16, 2), 10) is None
    assert not labelled(kernels_of("Ind(j) <= Ind(i)")[0])
