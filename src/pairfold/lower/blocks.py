"""Blocks of pairs for which a mask surely holds nowhere, or everywhere: skipped, or not tested.

Rows are cut into cells, columns into blocks, and the mask is bounded (`lower.intervals`) over boxes
of what its pairs read: the numbers of rows and columns, and the slots of both. A block of a cell
then has one of three answers: no pair counts (it is skipped), every pair does (the loop has no
test), or pairs are tested. Where there are many blocks, groups of cells and blocks are asked first,
and only those that are neither are looked into.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..core.scalars import Value, reachable
from .intervals import Interval, Truth, bounds
from .kernel import COLUMN, ONCE, PAIR, ROW, Kernel
from .pattern import ROW_BLOCK_WORDS
from .schedule import Partition, Plan

# The answers, two bits each in a word for all tiles of a row block.
NONE, TESTED, WHOLE = range(3)
TESTED_EVERYWHERE = 0x5555555555555555

_GROUP = 16  # cells, or blocks, of a group
_FEW = 2**16  # blocks of cells that are asked one by one
_AT_ONCE = 2**21  # blocks of cells that are bounded at once

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]
# The numbers of a component of an argument: (rows,), or one of a parameter.
Arguments = Callable[[int, int], Floats]


class Grid(NamedTuple):
    """How pairs are cut: rows into cells, `cells` of them in a row block; columns into blocks.

    `tiles`: the tiles of a row block, which share their cell's answer where there are more of them.
    """

    rows: int
    columns: int
    cell: int
    cells: int
    block: int
    tiles: int

    @property
    def row_cells(self) -> int:
        """How many cells there are."""
        return -(-self.rows // self.cell)

    @property
    def blocks(self) -> int:
        """How many blocks of columns there are."""
        return -(-self.columns // self.block)

    @property
    def row_blocks(self) -> int:
        """How many row blocks there are."""
        return -(-self.rows // (self.cell * self.cells))


def grid_of(plan: Plan, parts: Partition, rows: int, columns: int) -> Grid:
    """The grid of a plan; a cell is a tile where lanes are rows, else all rows of a row block."""
    tiles = parts.rows_per_task // (plan.lane_count if plan.lanes == "row" else 1)
    if plan.lanes == "row":
        return Grid(rows, columns, plan.lane_count, tiles, plan.block, tiles)
    return Grid(rows, columns, parts.rows_per_task, 1, plan.block, tiles)


class Answers:
    """What is known of the blocks of a mask, as tables for machine code.

    `row_blocks`: int64 (R, ROW_BLOCK_WORDS); `intervals`: int64 (K, 2), the columns that some row
    of a row block meets; `words`: uint64, one for each block in them: two bits for each tile.
    """

    def __init__(self, grid: Grid, keys: Integers, words: NDArray[np.uint64]) -> None:
        self.grid, self.words = grid, words
        row_blocks, columns = np.divmod(keys, max(1, grid.blocks))
        first = np.ones(len(keys), bool)
        first[1:] = (np.diff(keys) != 1) | (row_blocks[1:] != row_blocks[:-1])
        last = np.roll(first, -1)
        ends = np.minimum((columns[last] + 1) * grid.block, grid.columns)
        self.intervals = np.ascontiguousarray(
            np.stack([columns[first] * grid.block, ends], axis=1), np.int64
        )
        numbers = np.arange(grid.row_blocks + 1)
        height = grid.cell * grid.cells
        table = np.zeros((grid.row_blocks, ROW_BLOCK_WORDS), np.int64)
        table[:, 0] = numbers[:-1] * height
        table[:, 1] = np.minimum(height, grid.rows - table[:, 0])
        starts = np.searchsorted(row_blocks[first], numbers)
        table[:, 2], table[:, 3] = starts[:-1], starts[1:]
        table[:, 4] = grid.columns
        table[:, 5] = np.searchsorted(row_blocks, numbers[:-1])
        self.row_blocks = table

    def counts(self) -> tuple[int, int, int]:
        """How many blocks of cells are skipped, tested, and met whole."""
        grid = self.grid
        found = [0, 0, 0]
        step = grid.tiles // grid.cells
        for cell in range(grid.cells):
            answer = self.words >> np.uint64(2 * cell * step) & np.uint64(3)
            for which in (TESTED, WHOLE):
                found[which] += int((answer == which).sum())
        found[NONE] = grid.row_cells * grid.blocks - found[TESTED] - found[WHOLE]
        return found[NONE], found[TESTED], found[WHOLE]

    @property
    def met(self) -> float:
        """The share of blocks that are not skipped."""
        skipped, tested, whole = self.counts()
        return (tested + whole) / max(1, skipped + tested + whole)


def joined(answers: Sequence[Answers]) -> Answers:
    """The answers of all batch elements, one after the other, as one table."""
    found = object.__new__(Answers)
    found.grid = answers[0].grid
    found.words = np.concatenate([each.words for each in answers])
    found.intervals = np.concatenate([each.intervals for each in answers])
    intervals = words = 0
    tables: list[Integers] = []
    for each in answers:
        table = each.row_blocks.copy()
        table[:, 2:4] += intervals
        table[:, 5] += words
        intervals, words = intervals + len(each.intervals), words + len(each.words)
        tables.append(table)
    found.row_blocks = np.concatenate(tables)
    return found


def read_positions(kernel: Kernel) -> frozenset[int]:
    """The positions of the arguments that a mask depends on."""
    assert kernel.keep is not None
    found = (value for value in reachable([kernel.keep]) if value.what == "load")
    return frozenset(value.loaded.position for value in found)


def _below(kernel: Kernel) -> list[Value]:
    assert kernel.keep is not None
    return kernel.needed([kernel.keep], PAIR)


def answers_of(
    kernel: Kernel, arguments: Arguments, grid: Grid, dtype: str, ask: bool = True
) -> Answers:
    """What is known of a kernel's mask for these arguments; unless `ask`, all is to be tested."""
    if not ask:
        keys = np.arange(grid.row_blocks * grid.blocks)
        return Answers(grid, keys, np.full(len(keys), TESTED_EVERYWHERE, np.uint64))
    asked = _Boxes(kernel, arguments, grid, dtype)
    cells, blocks = grid.row_cells, grid.blocks
    if cells * blocks <= _FEW:
        found = asked.fine(np.arange(cells)[:, None], np.arange(blocks)[None, :])
        padded = np.zeros((grid.row_blocks * grid.cells, blocks), np.uint8)
        padded[:cells] = found
        words = _words(padded.reshape(grid.row_blocks, grid.cells, blocks), grid)
        keys = np.flatnonzero(words)
        return Answers(grid, keys, words.reshape(-1)[keys])
    return _by_groups(asked, grid)


def _by_groups(asked: _Boxes, grid: Grid) -> Answers:
    """The answers of many blocks: of groups first."""
    coarse = asked.coarse()
    rows, columns = np.nonzero(coarse)
    kinds = coarse[rows, columns]
    height = asked.group_cells
    all_keys: list[Integers] = []
    all_words: list[NDArray[np.uint64]] = []
    most = max(1, _AT_ONCE // (height * _GROUP))
    for start in range(0, len(rows), most):
        some = slice(start, start + most)
        cells = rows[some, None] * height + np.arange(height)
        blocks = columns[some, None] * _GROUP + np.arange(_GROUP)
        fine = np.full((len(cells), height, _GROUP), WHOLE, np.uint8)
        mixed = kinds[some] == TESTED
        fine[mixed] = asked.fine(cells[mixed, :, None], blocks[mixed, None, :])
        fine *= (cells < grid.row_cells)[:, :, None] & (blocks < grid.blocks)[:, None, :]
        words = _words(fine.reshape(-1, grid.cells, _GROUP), grid).reshape(len(cells), -1, _GROUP)
        row_blocks = cells[:, :: grid.cells] // grid.cells
        keys = row_blocks[:, :, None] * grid.blocks + blocks[:, None, :]
        some_met = words != 0
        all_keys.append(keys[some_met])
        all_words.append(words[some_met])
    keys = np.concatenate([np.zeros(0, np.int64), *all_keys])
    words = np.concatenate([np.zeros(0, np.uint64), *all_words])
    order = np.argsort(keys, kind="stable")
    return Answers(grid, keys[order], words[order])


def _words(answers: NDArray[np.uint8], grid: Grid) -> NDArray[np.uint64]:
    """Answers (..., cells of a row block, blocks) as one word for each row block and block."""
    step = grid.tiles // grid.cells
    found = np.zeros((*answers.shape[:-2], answers.shape[-1]), np.uint64)
    for cell in range(grid.cells):
        same = sum(1 << 2 * (cell * step + tile) for tile in range(min(step, 32)))
        found |= answers[..., cell, :].astype(np.uint64) * np.uint64(same)
    return found


class _Boxes:
    """Boxes of what a mask reads: of cells of rows and blocks of columns, and of groups of them."""

    def __init__(self, kernel: Kernel, arguments: Arguments, grid: Grid, dtype: str) -> None:
        assert kernel.keep is not None
        self.kernel, self.keep, self.grid, self.dtype = kernel, kernel.keep, grid, dtype
        self.arguments = arguments
        self.group_cells = -(-_GROUP // grid.cells) * grid.cells
        self.known: dict[Value, tuple[int, Interval]] = {}
        self.groups: dict[Value, tuple[int, Interval]] = {}
        self._loads: dict[tuple[int, int], tuple[int, Interval]] = {}
        self._exact: dict[tuple[int, int], tuple[int, Interval]] = {}
        sizes = {ROW: grid.rows, COLUMN: grid.columns}
        self._apart = {ROW: grid.cell, COLUMN: grid.block}
        for value in _below(kernel):
            if value.what in ("row_number", "column_number"):
                stage = ROW if value.what == "row_number" else COLUMN
                self._enter(value, stage, _numbered(sizes[stage], self._apart[stage]))
            elif value.kind == "real" and not value.loops and self._computed(value):
                self._enter(value, value.stage, self._box(value.stage, self._slot(value)))

    def _enter(self, value: Value, stage: int, box: Interval) -> None:
        self.known[value] = stage, box
        self.groups[value] = stage, self._grouped(stage, box)

    def _computed(self, value: Value) -> bool:
        """Whether a value is read from a slot that is computed for each row or column."""
        return value.what != "load" and value.stage in (ONCE, ROW, COLUMN) and self._is_slot(value)

    def _is_slot(self, value: Value) -> bool:
        return value in self.kernel.stages[value.stage].computed

    def _slot(self, value: Value) -> Interval:
        """Bounds of a computed slot, row by row or column by column."""

        def exact(position: int, component: int) -> Interval:
            return self._argument(position, component)

        (found,) = bounds([value], {}, self.dtype, exact)
        assert isinstance(found, Interval)
        return found

    def _argument(self, position: int, component: int) -> Interval:
        """The numbers of a component of an argument, each by itself."""
        numbers = self.arguments(position, component)
        return Interval(numbers, numbers, np.isnan(numbers))

    def _box(self, stage: int, each: Interval) -> Interval:
        """The boxes of cells or blocks of what has bounds row by row, or column by column."""
        if stage == ONCE:
            return each
        count = self.grid.rows if stage == ROW else self.grid.columns
        low, high, nan = (np.broadcast_to(part, (count,)) for part in each)
        places = np.arange(0, count, self._apart[stage])
        if nan.any():  # a box with NaN has no other bounds
            low, high = np.where(nan, -np.inf, low), np.where(nan, np.inf, high)
        return Interval(
            np.minimum.reduceat(low, places),
            np.maximum.reduceat(high, places),
            np.logical_or.reduceat(nan, places),
        )

    def _grouped(self, stage: int, box: Interval) -> Interval:
        """The boxes of groups."""
        if stage == ONCE:
            return box
        places = np.arange(0, len(box.low), self.group_cells if stage == ROW else _GROUP)
        return Interval(
            np.minimum.reduceat(box.low, places),
            np.maximum.reduceat(box.high, places),
            np.logical_or.reduceat(box.nan, places),
        )

    def _load(self, position: int, component: int, groups: bool) -> tuple[int, Interval]:
        stage = self.kernel.read_at[position]
        kept = self._loads if groups else self._exact
        found = kept.get((position, component))
        if found is None:
            if groups:
                found = stage, self._grouped(stage, self._load(position, component, False)[1])
            else:
                found = stage, self._box(stage, self._argument(position, component))
            kept[position, component] = found
        return found

    def _bounded(
        self, groups: bool, placed: Callable[[tuple[int, Interval]], Interval]
    ) -> NDArray[np.uint8]:
        known = self.groups if groups else self.known

        def leaf(position: int, component: int) -> Interval:
            return placed(self._load(position, component, groups))

        given = {value: placed(box) for value, box in known.items()}
        (found,) = bounds([self.keep], given, self.dtype, leaf)
        assert isinstance(found, Truth)
        certain = found.certain.astype(np.uint8)
        return np.where(found.possible, TESTED + certain, NONE).astype(np.uint8)

    def fine(self, cells: Integers, blocks: Integers) -> NDArray[np.uint8]:
        """The answers of blocks of cells, numbers that broadcast; those beyond the last are any."""
        cells = np.minimum(cells, self.grid.row_cells - 1)
        blocks = np.minimum(blocks, self.grid.blocks - 1)
        shape = np.broadcast_shapes(cells.shape, blocks.shape)

        def placed(box: tuple[int, Interval]) -> Interval:
            stage, found = box
            if stage == ONCE:
                return found
            which = cells if stage == ROW else blocks
            return Interval(*(part[which] for part in found))

        return np.broadcast_to(self._bounded(False, placed), shape)

    def coarse(self) -> NDArray[np.uint8]:
        """The answers of all groups."""
        rows = -(-self.grid.row_cells // self.group_cells)
        columns = -(-self.grid.blocks // _GROUP)

        def placed(box: tuple[int, Interval]) -> Interval:
            stage, found = box
            if stage == ONCE:
                return found
            shape = (-1, 1) if stage == ROW else (1, -1)
            return Interval(*(part.reshape(shape) for part in found))

        return np.broadcast_to(self._bounded(True, placed), (rows, columns))


def _numbered(count: int, apart: int) -> Interval:
    """Boxes of the numbers of rows, so many in each."""
    first = np.arange(0, count, apart)
    return Interval(first, np.minimum(first + apart, count) - 1, np.zeros(len(first), bool))  # pyright: ignore[reportArgumentType]
