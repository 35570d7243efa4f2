"""Pattern: which columns each row meets, as blocks of rows and intervals of columns.

A pattern is cut into row blocks, each the work of one task, like dense sizes are, but by a table:
each lies within one block of the pattern, and names the intervals of columns that its rows are
folded over. Rows of no block make row blocks without intervals, so every row of a result is
written.
"""

from __future__ import annotations

from collections.abc import Hashable

import numpy as np
from numpy.typing import NDArray

from .schedule import TASKS, Partition, Plan

Integers = NDArray[np.int64]

# Words of a row block: first row, rows, first interval, the one after the last, columns in all.
ROW_BLOCK_WORDS = 5


class Pattern:
    """Rows blocks[k, 0] to blocks[k, 1] meet intervals ends[k - 1] to ends[k], all int64.

    Blocks do not overlap, and all bounds were checked. `intervals` are kept in ascending order
    within their block, empty ones left out and adjacent ones joined; a column of two intervals
    counts twice. `blocks` are the row blocks of all blocks with rows, uncut, in ascending order.

    >>> pattern = Pattern(np.array([[0, 2]]), np.array([2]), np.array([[3, 4], [0, 3]]))
    >>> pattern.intervals.tolist(), pattern.counts(3).tolist()
    ([[0, 4]], [4, 4, 0])
    """

    def __init__(self, blocks: Integers, ends: Integers, intervals: Integers) -> None:
        owner = np.repeat(np.arange(len(blocks)), np.diff(ends, prepend=0))
        used = intervals[: len(owner)]
        order = np.lexsort((used[:, 0], owner))
        order = order[used[order, 0] < used[order, 1]]
        used, owner = used[order], owner[order]
        first = np.ones(len(used), bool)
        first[1:] = (owner[1:] != owner[:-1]) | (used[1:, 0] != used[:-1, 1])
        joined = [used[first, 0], used[np.roll(first, -1), 1]]
        self.intervals = np.ascontiguousarray(np.stack(joined, axis=1), np.int64)
        starts = np.searchsorted(owner[first], np.arange(len(blocks) + 1))
        total = np.concatenate([[0], np.cumsum(np.diff(self.intervals, axis=1))])
        whole = np.empty((len(blocks), ROW_BLOCK_WORDS), np.int64)
        whole[:, 0], whole[:, 1] = blocks[:, 0], blocks[:, 1] - blocks[:, 0]
        whole[:, 2], whole[:, 3] = starts[:-1], starts[1:]
        whole[:, 4] = total[starts[1:]] - total[starts[:-1]]
        whole = whole[whole[:, 1] > 0]
        self.blocks = whole[np.argsort(whole[:, 0], kind="stable")]
        self._row_blocks: dict[tuple[int, int], Integers] = {}
        self.kept: dict[Hashable, object] = {}  # what backends made of it, in memory of their own

    @property
    def pairs(self) -> int:
        """Pairs that are folded."""
        return int((self.blocks[:, 1] * self.blocks[:, 4]).sum())

    @property
    def typical(self) -> tuple[int, int]:
        """(rows of a block, columns that a row meets), on average."""
        rows = int(self.blocks[:, 1].sum())
        return -(-rows // max(1, len(self.blocks))), self.pairs // max(1, rows)

    def counts(self, rows: int) -> Integers:
        """Columns that each row meets, int64 (rows,)."""
        steps = np.zeros(rows + 1, np.int64)
        np.add.at(steps, self.blocks[:, 0], self.blocks[:, 4])
        np.add.at(steps, self.blocks[:, 0] + self.blocks[:, 1], -self.blocks[:, 4])
        return np.cumsum(steps)[:rows]

    def whole(self, rows: int) -> Integers:
        """Blocks, and the rows between them, in order: int64 (row blocks, ROW_BLOCK_WORDS)."""
        gaps = np.zeros((len(self.blocks) + 1, ROW_BLOCK_WORDS), np.int64)
        gaps[1:, 0] = self.blocks[:, 0] + self.blocks[:, 1]
        gaps[:, 1] = np.append(self.blocks[:, 0], rows) - gaps[:, 0]
        found = np.concatenate([self.blocks, gaps[gaps[:, 1] > 0]])
        return found[np.argsort(found[:, 0], kind="stable")]

    def row_blocks(self, rows: int, most: int) -> Integers:
        """The row blocks of `whole`, cut so that none has more than `most` rows."""
        found = self._row_blocks.get((rows, most))
        if found is None:
            found = self._row_blocks[rows, most] = cut(self.whole(rows), most)
        return found

    def column_numbers(self, row_block: Integers) -> Integers:
        """The columns that the rows of a row block meet, one after the other."""
        intervals = self.intervals[row_block[2] : row_block[3]]
        parts = [np.arange(start, stop) for start, stop in intervals]
        return np.concatenate([np.zeros(0, np.int64), *parts])


def cut(row_blocks: Integers, most: int) -> Integers:
    """Row blocks (R, ROW_BLOCK_WORDS) cut so that none has more than `most` rows."""
    cuts = -(-row_blocks[:, 1] // most)
    found = np.repeat(row_blocks, cuts, axis=0)
    number = np.arange(len(found)) - np.repeat(np.cumsum(cuts) - cuts, cuts)
    found[:, 1] = np.minimum(most, found[:, 1] - number * most)
    found[:, 0] += number * most
    return found


def sparse_partition(plan: Plan, pattern: Pattern, rows: int, batches: int) -> Partition:
    """Cut a pattern into tasks; the reduced axis is not split."""
    unit = plan.lane_count if plan.lanes == "row" else 1
    units = int((-(-pattern.whole(rows)[:, 1] // unit)).sum())
    most = unit * max(1, min(plan.tiles, units * batches // TASKS))
    return Partition(most, len(pattern.row_blocks(rows, most)), 1, 0, batches)
