"""Masks of labels: rows and columns of which a mask reads the same numbers, one after the other.

A run is such rows, or columns. All pairs of two runs have one answer, and the mask is bounded over
points: labels of documents, clouds or classes are told apart exactly. Row blocks and the columns
that they meet then end where runs do, not where cells and blocks would. Blocks of columns still
begin and end at multiples of their length, so sums are those of all blocks, bit for bit: what a
run leaves of a block is folded as one part of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..core.scalars import reachable
from .blocks import (
    TESTED_EVERYWHERE,
    Answers,
    Arguments,
    Grid,
    Integers,
    Runs,
    in_order,
    numbered,
    runs_of,
    sorted_runs,
)
from .kernel import COLUMN, PAIR, ROW, Kernel
from .pattern import ROW_BLOCK_WORDS, cut

# What is looked at first of an array: where its rows all differ, no more is.
_SAMPLE = 4096
# The least columns of a run, on average.
_COLUMNS = 16

# The numbers of a component, or of all of them, to be compared bit by bit: (rows,).
Compared = NDArray[np.generic]


class Cuts(NamedTuple):
    """Where runs of rows and of columns begin, and where the last of each ends."""

    rows: Integers
    columns: Integers


def labelled(kernel: Kernel) -> bool:
    """Whether a mask reads nothing but numbers of rows, of columns, and of neither."""
    assert kernel.keep is not None
    loads = (value for value in reachable([kernel.keep]) if value.what == "load")
    of_pairs = any(kernel.read_at[value.loaded.position] == PAIR for value in loads)
    return not of_pairs and not numbered(kernel)


def cuts_of(
    kernel: Kernel, compared: Callable[[int], Sequence[Compared]], grid: Grid, shortest: int
) -> Cuts | None:
    """The runs of rows and columns of a mask; None where they are short.

    Args:
        kernel: one that is `labelled`.
        compared: what tells the rows of the argument at a position apart.
        grid: how pairs are cut otherwise.
        shortest: the least rows of a run, on average.
    """
    assert kernel.keep is not None
    loads = (value for value in reachable([kernel.keep]) if value.what == "load")
    positions = sorted({value.loaded.position for value in loads})
    of_rows, of_columns = (
        [part for n in positions if kernel.read_at[n] == stage for part in compared(n)]
        for stage in (ROW, COLUMN)
    )
    rows = _starts(of_rows, grid.rows, shortest)
    if rows is None:
        return None
    if grid.rows == grid.columns and _alike(of_rows, of_columns):
        return Cuts(rows, rows)
    columns = _starts(of_columns, grid.columns, min(shortest, _COLUMNS))
    return None if columns is None else Cuts(rows, columns)


def _alike(one: Sequence[Compared], other: Sequence[Compared]) -> bool:
    """Whether these are the same numbers in memory."""
    places = ([(x.ctypes.data, x.strides, x.dtype) for x in parts] for parts in (one, other))
    return next(places) == next(places)


def _starts(parts: Sequence[Compared], count: int, least: int) -> Integers | None:
    """Where the runs of so many rows begin, and the last ends; None where there are too many."""
    if count > _SAMPLE:
        changes = _changes([part[:_SAMPLE] for part in parts])
        if np.count_nonzero(changes) * least > 2 * _SAMPLE:
            return None
    changes = np.flatnonzero(_changes(parts)) + 1
    if (len(changes) + 1) * least > max(count, least):
        return None
    return np.concatenate([[0], changes, [count]]).astype(np.int64)


def _changes(parts: Sequence[Compared]) -> NDArray[np.bool_]:
    found = np.zeros(0, bool)
    for n, part in enumerate(parts):
        changed = part[1:] != part[:-1]
        found = np.logical_or(found, changed, out=found) if n else changed
    return found


def answers_of_labels(
    kernel: Kernel, arguments: Arguments, grid: Grid, dtype: str, cuts: Cuts
) -> Answers:
    """What is known of a kernel's mask, of which these are the runs.

    Row blocks have as many rows as those of the grid, or fewer, and are of one run each.
    """
    first: Mapping[int, Integers] = {ROW: cuts.rows[:-1], COLUMN: cuts.columns[:-1]}

    def of_runs(position: int, component: int) -> NDArray[np.floating]:
        numbers = arguments(position, component)
        where = first.get(kernel.read_at[position])
        return numbers if where is None else numbers[where]  # pyright: ignore (no truth values)

    # Runs as rows and columns of their own; all tiles of a row block share an answer.
    small = Grid(len(cuts.rows) - 1, len(cuts.columns) - 1, 1, 1, 1, 32)
    found = runs_of(kernel, of_runs, small, dtype)
    pieces = found._replace(start=cuts.columns[found.start], stop=cuts.columns[found.stop])
    runs = _within_blocks(pieces, grid)
    ends = np.searchsorted(runs.row_block, np.arange(small.rows + 1))
    table = np.zeros((small.rows, ROW_BLOCK_WORDS), np.int64)
    table[:, 0], table[:, 1] = cuts.rows[:-1], np.diff(cuts.rows)
    table[:, 2], table[:, 3], table[:, 4] = ends[:-1], ends[1:], grid.columns
    table = cut(table, grid.cell * grid.cells)
    intervals = np.ascontiguousarray(np.stack([runs.start, runs.stop], axis=1))
    return Answers(grid, table, intervals, runs.word, len(table))


def _within_blocks(pieces: Runs, grid: Grid) -> Runs:
    """The same columns, but of one block no two parts: where there are more, all between is tested.

    `pieces`: of the columns from `start` to `stop`, ascending for each run of rows.
    """
    block = grid.block
    low = -(-pieces.start // block) * block
    high = np.where(pieces.stop == grid.columns, pieces.stop, pieces.stop // block * block)
    middle = _chosen(pieces, low, high, low < high)
    heads = _chosen(pieces, pieces.start, np.minimum(low, pieces.stop), pieces.start < low)
    tails = _chosen(pieces, high, pieces.stop, (low <= high) & (high < pieces.stop))
    parts = sorted_runs([heads, tails], grid.columns)
    key = parts.row_block * grid.blocks + parts.start // block
    new = np.ones(len(key), bool)
    new[1:] = key[1:] != key[:-1]
    last = np.roll(new, -1)
    word = np.where((new & last)[new], parts.word[new], np.uint64(TESTED_EVERYWHERE))
    joined = Runs(parts.row_block[new], parts.start[new], parts.stop[last], word)
    return in_order([middle, joined], grid.columns)


def _chosen(pieces: Runs, start: Integers, stop: Integers, which: NDArray[np.bool_]) -> Runs:
    return Runs(pieces.row_block[which], start[which], stop[which], pieces.word[which])
