"""Blocks of pairs for which a mask surely holds nowhere, or everywhere: skipped, or not tested.

Rows are cut into cells, columns into blocks, and the mask is bounded (`lower.intervals`) over boxes
of what its pairs read: the numbers of rows and columns, and the slots of both. A block of a cell
then has one of three answers: no pair counts (it is skipped), every pair does (the loop has no
test), or pairs are tested. Where there are many, groups of cells and blocks are asked first, groups
of groups before these, and only those that are neither are looked into.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeVar, cast

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

_GROUP = 4  # cells, or blocks, of a group
_FEW = 2**16  # blocks of cells that are asked one by one
_CACHED = 2**18  # bytes of truth values that are joined at once
_AT_ONCE = 2**17  # blocks of cells that are bounded at once: their bounds stay in the cache

_ANYTHING = Interval(np.asarray(-np.inf), np.asarray(np.inf), np.asarray(True))

Integers = NDArray[np.int64]
Words = NDArray[np.uint64]
Floats = NDArray[np.float64]
Bytes = NDArray[np.uint8]
Number = TypeVar("Number", bound=np.generic)
# The numbers of a component of an argument: (rows,), or one of a parameter, of some float type;
# bytes (rows, columns) of truth values.
Arguments = Callable[[int, int], NDArray[np.floating] | Bytes]


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


class Runs(NamedTuple):
    """Blocks `start` to `stop` of columns that a row block meets, with one answer for its tiles."""

    row_block: Integers
    start: Integers
    stop: Integers
    word: Words


def sorted_runs(parts: Sequence[Runs], blocks: int) -> Runs:
    """All of these, in order; `blocks`: how many there are of columns."""
    row_block = np.concatenate([run.row_block for run in parts])
    start = np.concatenate([run.start for run in parts])
    order = np.argsort(row_block * blocks + start)  # of which no two are equal
    stop = np.concatenate([run.stop for run in parts])[order]
    word = np.concatenate([run.word for run in parts])[order]
    return Runs(row_block[order], start[order], stop, word)


def in_order(parts: Sequence[Runs], blocks: int) -> Runs:
    """The same, those joined that go on where others of the same answer end."""
    row_block, start, stop, word = sorted_runs(parts, blocks)
    first = np.ones(len(start), bool)
    first[1:] = (
        (row_block[1:] != row_block[:-1]) | (start[1:] != stop[:-1]) | (word[1:] != word[:-1])
    )
    return Runs(row_block[first], start[first], stop[np.roll(first, -1)], word[first])


class Answers:
    """What is known of the blocks of a mask, as tables for machine code.

    `row_blocks`: int64 (R, ROW_BLOCK_WORDS), `each` of them for every batch element; `intervals`:
    int64 (K, 2), the columns that some row of a row block meets; `words`: uint64 (K,), the answers
    of such columns: two bits for each tile.
    """

    def __init__(
        self, grid: Grid, row_blocks: Integers, intervals: Integers, words: Words, each: int
    ) -> None:
        self.grid, self.row_blocks, self.each = grid, row_blocks, each
        self.intervals, self.words = intervals, np.ascontiguousarray(words)

    @property
    def bytes(self) -> int:
        """The memory of its tables."""
        return self.row_blocks.nbytes + self.intervals.nbytes + self.words.nbytes

    def counts(self) -> tuple[int, int, int]:
        """How many blocks of cells are skipped, tested, and met whole, of all batch elements.

        A block of which not all columns are met counts as one.
        """
        grid = self.grid
        found = [0, 0, 0]
        step = grid.tiles // grid.cells
        first, stop = self.intervals[:, 0] // grid.block, -(-self.intervals[:, 1] // grid.block)
        low, many = self.row_blocks[:, 2], np.diff(self.row_blocks[:, 2:4])[:, 0]
        # Row blocks may share intervals.
        owner = np.repeat(np.arange(len(many)), many)
        own = np.arange(len(owner)) + np.repeat(low - np.cumsum(many) + many, many)
        lengths, words = (stop - first)[own], self.words[own]
        cells = -(-self.row_blocks[:, 1] // grid.cell)
        for cell in range(grid.cells):
            answer = words >> np.uint64(2 * cell * step) & np.uint64(3)
            there = cell < cells[owner]
            for which in (TESTED, WHOLE):
                found[which] += int(lengths[(answer == which) & there].sum())
        found[NONE] = int(cells.sum()) * grid.blocks - found[TESTED] - found[WHOLE]
        return found[NONE], found[TESTED], found[WHOLE]


def _of_grid(grid: Grid, runs: Runs) -> Answers:
    """The tables of runs of blocks."""
    ends = np.minimum(runs.stop * grid.block, grid.columns)
    numbers = np.arange(grid.row_blocks + 1)
    height = grid.cell * grid.cells
    table = np.zeros((grid.row_blocks, ROW_BLOCK_WORDS), np.int64)
    table[:, 0] = numbers[:-1] * height
    table[:, 1] = np.minimum(height, grid.rows - table[:, 0])
    starts = np.searchsorted(runs.row_block, numbers)
    table[:, 2], table[:, 3] = starts[:-1], starts[1:]
    table[:, 4] = grid.columns
    intervals = np.ascontiguousarray(np.stack([runs.start * grid.block, ends], axis=1))
    return Answers(grid, table, intervals, runs.word, len(table))


def joined(answers: Sequence[Answers]) -> Answers:
    """The answers of all batch elements, one after the other, as one table."""
    words = np.concatenate([each.words for each in answers])
    intervals = np.concatenate([each.intervals for each in answers])
    before = 0
    tables: list[Integers] = []
    for each in answers:
        table = each.row_blocks.copy()
        table[:, 2:4] += before
        before += len(each.intervals)
        tables.append(table)
    return Answers(answers[0].grid, np.concatenate(tables), intervals, words, answers[0].each)


def read_positions(kernel: Kernel) -> frozenset[int]:
    """The positions of the arguments that a mask depends on, and that are looked at for blocks.

    They are those of rows, of columns and of neither, and truth values of pairs.
    """
    assert kernel.keep is not None
    found = (value for value in reachable([kernel.keep]) if value.what == "load")
    positions = frozenset(value.loaded.position for value in found)
    truths = truth_positions(kernel)
    return frozenset(n for n in positions if kernel.read_at[n] != PAIR or n in truths)


def truth_positions(kernel: Kernel) -> frozenset[int]:
    """The positions of arguments that hold truth values of pairs."""
    return frozenset(argument.position for argument in kernel.arguments if argument.truth)


def numbered(kernel: Kernel) -> bool:
    """Whether a mask depends on the numbers of rows or columns."""
    assert kernel.keep is not None
    return any(v.what in ("row_number", "column_number") for v in reachable([kernel.keep]))


def _below(kernel: Kernel) -> list[Value]:
    assert kernel.keep is not None
    return kernel.needed([kernel.keep], PAIR)


def answers_of(
    kernel: Kernel, arguments: Arguments | None, grid: Grid, dtype: str, ask: bool = True
) -> Answers:
    """What is known of a kernel's mask for these arguments, for any where there are none.

    Unless `ask`, all is to be tested.
    """
    if not ask:
        numbers = np.arange(grid.row_blocks)
        word = np.full(grid.row_blocks, TESTED_EVERYWHERE, np.uint64)
        return _of_grid(grid, Runs(numbers, 0 * numbers, 0 * numbers + grid.blocks, word))
    return _of_grid(grid, runs_of(kernel, arguments, grid, dtype))


def runs_of(kernel: Kernel, arguments: Arguments | None, grid: Grid, dtype: str) -> Runs:
    """The blocks of columns that row blocks meet under a kernel's mask, in order."""
    asked = _Boxes(kernel, arguments, grid, dtype)
    if not asked.top:
        return in_order([_of_cells(grid, *asked.everywhere())], grid.blocks)
    runs: list[Runs] = []
    groups = _found(*asked.everywhere())
    for level in range(asked.top, 0, -1):
        whole = groups.answers == WHOLE
        runs.append(asked.of_groups(level, groups.cells[whole], groups.blocks[whole]))
        rest = groups.cells[~whole], groups.blocks[~whole]
        parts = list(asked.within(level, *rest))
        if level == 1:
            runs += [_of_cells(grid, *part) for part in parts]
        else:
            found = [_found(*part) for part in parts]
            groups = _Found(*(np.concatenate(each) for each in zip(*found, strict=True)))
    return in_order(runs, grid.blocks)


def _of_cells(grid: Grid, cells: Integers, blocks: Integers, answers: Bytes) -> Runs:
    """The runs of single blocks, of cells of which those of a row block have one word.

    `cells`: (R, 1, G), from the first of a row block on; `blocks`: (1, C, G); `answers`: (R, C, G).
    """
    step = grid.tiles // grid.cells
    same = np.uint64(sum(1 << 2 * tile for tile in range(min(step, 32))))
    missing = -len(cells) % grid.cells  # of the last row block
    if missing:
        answers = np.concatenate([answers, np.zeros((missing, *answers.shape[1:]), np.uint8)])
    count = len(answers) // grid.cells
    answers = answers.reshape((count, grid.cells, *answers.shape[1:]))
    words = np.zeros((count, *answers.shape[2:]), np.uint64)
    for cell in range(grid.cells):
        words |= answers[:, cell] * same << np.uint64(2 * step * cell)
    there = words != 0
    row_blocks = np.broadcast_to(cells[:: grid.cells] // grid.cells, there.shape)[there]
    starts = np.broadcast_to(blocks, there.shape)[there]
    return Runs(row_blocks, starts, starts + 1, words[there])


# Cells (R, 1, G), blocks of columns (1, C, G), and the answers of all (R, C, G).
_Asked = tuple[Integers, Integers, Bytes]


class _Found(NamedTuple):
    """What is not skipped: cells, blocks of columns, and the answers of both."""

    cells: Integers
    blocks: Integers
    answers: Bytes


def _found(cells: Integers, blocks: Integers, answers: Bytes) -> _Found:
    row, column, group = np.nonzero(answers)
    return _Found(cells[row, 0, group], blocks[0, column, group], answers[row, column, group])


class _Boxes:
    """Boxes of what a mask reads, of cells of rows and blocks of columns, and of groups of them.

    On level 0 are cells and blocks, on the next ones groups of those of the level before; `top` is
    the level that has few.
    """

    def __init__(self, kernel: Kernel, arguments: Arguments | None, grid: Grid, dtype: str) -> None:
        assert kernel.keep is not None
        self.kernel, self.keep, self.grid, self.dtype = kernel, kernel.keep, grid, dtype
        self.unknown, self.arguments = arguments is None, arguments or _none
        # Groups of the first level are made of whole row blocks.
        self._first = -(-_GROUP // grid.cells) * grid.cells
        self._apart = {ROW: grid.cell, COLUMN: grid.block}
        self._sizes = {ROW: grid.rows, COLUMN: grid.columns}
        self._truths = truth_positions(kernel)
        self.top = 0
        while self._count(ROW, self.top) * self._count(COLUMN, self.top) > _FEW:
            self.top += 1
        self._loads: dict[tuple[int, int], _Leveled] = {}
        self._known: dict[Value, _Leveled] = {}
        for value in _below(kernel):
            if value.what in ("row_number", "column_number"):
                stage = ROW if value.what == "row_number" else COLUMN
                box = _numbered(self._sizes[stage], self._apart[stage])
                self._known[value] = self._leveled(stage, box)
            elif value.kind == "real" and not value.loops and self._is_computed(value):
                self._known[value] = self._computed(value)

    def _height(self, stage: int, level: int) -> int:
        """How many cells or blocks a group of a level spans."""
        if not level:
            return 1
        return (self._first if stage == ROW else _GROUP) * _GROUP ** (level - 1)

    def _count(self, stage: int, level: int) -> int:
        """How many cells, blocks or groups of them there are on a level."""
        of_one = self._apart[stage] * self._height(stage, level)
        return -(-self._sizes[stage] // of_one)

    # -- boxes ------------------------------------------------------------------------------------

    def _is_computed(self, value: Value) -> bool:
        """Whether a value is read from a slot that is computed for each row or column."""
        held = self.kernel.stages.get(value.stage)
        return held is not None and value in held.computed

    def _computed(self, value: Value) -> _Leveled:
        """The boxes of a slot that is computed for each row or column."""
        if self.unknown:
            return self._anything()
        return self._leveled(value.stage, self._box(value.stage, self._slot(value)))

    def _anything(self) -> _Leveled:
        return ONCE, [_ANYTHING] * (self.top + 1)

    def _slot(self, value: Value) -> Interval:
        """Bounds of a computed slot, row by row or column by column."""

        def each(position: int, component: int) -> Interval:
            numbers = self.arguments(position, component).astype(np.float64)
            return Interval(numbers, numbers, np.isnan(numbers))

        (found,) = bounds([value], {}, self.dtype, each)
        assert isinstance(found, Interval)
        return found

    def _argument(self, position: int, component: int) -> Interval:
        """The numbers of a component of an argument, each by itself; boxes tell which are NaN."""
        numbers = cast("NDArray[np.floating]", self.arguments(position, component))
        return Interval(numbers, numbers, np.zeros((), bool))

    def _box(self, stage: int, each: Interval) -> Interval:
        """The boxes of cells or blocks of what has bounds row by row, or column by column."""
        if stage == ONCE:
            return Interval(
                each.low.astype(np.float64), each.high.astype(np.float64), np.isnan(each.low)
            )
        count = self._sizes[stage]
        apart = self._apart[stage]
        low = _joined(np.minimum, np.broadcast_to(each.low, (count,)), apart)
        high = _joined(np.maximum, np.broadcast_to(each.high, (count,)), apart)
        nan = np.isnan(low) | np.isnan(high)
        if each.nan.any():
            nan |= _joined(np.logical_or, np.broadcast_to(each.nan, (count,)), apart)
        if nan.any():  # a box with NaN has no other bounds
            low, high = np.where(nan, -np.inf, low), np.where(nan, np.inf, high)
        return Interval(low.astype(np.float64), high.astype(np.float64), nan)

    def _leveled(self, stage: int, box: Interval) -> _Leveled:
        """The boxes of all levels."""
        found = [box]
        for level in range(1, self.top + 1):
            height = self._height(stage, level) // self._height(stage, level - 1)
            found.append(box if stage == ONCE else _covering(found[-1], height))
        return stage, found

    def _load(self, position: int, component: int) -> _Leveled:
        stage = self.kernel.read_at[position]
        if self.unknown or (stage == PAIR and position not in self._truths):
            return self._anything()  # so may be what pairs have themselves
        found = self._loads.get((position, component))
        if found is None and stage == PAIR:
            found = self._loads[position, component] = stage, self._of_truths(position)
        elif found is None:
            box = self._box(stage, self._argument(position, component))
            found = self._loads[position, component] = self._leveled(stage, box)
        return found

    def _of_truths(self, position: int) -> list[Interval]:
        """The boxes (rows, columns) of all levels, of an argument of truth values."""
        bytes_of = cast("Bytes", self.arguments(position, 0))
        sizes = self._apart[ROW], self._apart[COLUMN]
        turned = abs(bytes_of.strides[0]) < abs(bytes_of.strides[1])  # columns lie in memory
        if turned:
            bytes_of, sizes = bytes_of.T, sizes[::-1]
        all_true, any_true = _all_and_any(bytes_of, *sizes)
        if turned:
            all_true, any_true = all_true.T, any_true.T
        found: list[Interval] = []
        for level in range(self.top + 1):
            for axis, stage in enumerate((ROW, COLUMN) if level else ()):
                height = self._height(stage, level) // self._height(stage, level - 1)
                all_true = _grouped(np.bitwise_and, all_true, height, axis)
                any_true = _grouped(np.bitwise_or, any_true, height, axis)
            # Bytes that are not 0 are read as 1.
            low, high = ((x != 0).astype(np.float64) for x in (all_true, any_true))
            found.append(Interval(low, high, np.zeros((), bool)))
        return found

    # -- answers ----------------------------------------------------------------------------------

    def _answers(self, level: int, rows: Integers, columns: Integers) -> Bytes:
        """The answers of groups of a level, whose numbers broadcast."""

        def placed(leveled: _Leveled) -> Interval:
            stage, boxes = leveled
            if stage == ONCE:
                return boxes[level]
            if stage == PAIR:
                low, high = (side[rows, columns] for side in boxes[level][:2])
                return Interval(low, high, boxes[level].nan)
            which, box = rows if stage == ROW else columns, boxes[level]
            return Interval(box.low[which], box.high[which], box.nan[which])

        given = {value: placed(leveled) for value, leveled in self._known.items()}
        (found,) = bounds(
            [self.keep], given, self.dtype, lambda position, k: placed(self._load(position, k))
        )
        assert isinstance(found, Truth)
        shape = np.broadcast_shapes(rows.shape, columns.shape)
        answers = found.possible.astype(np.uint8) + (found.possible & found.certain)
        return np.broadcast_to(answers, shape)

    def everywhere(self) -> _Asked:
        """The top level."""
        rows, columns = (np.arange(self._count(stage, self.top)) for stage in (ROW, COLUMN))
        rows, columns = rows[:, None, None], columns[None, :, None]
        return rows, columns, self._answers(self.top, rows, columns)

    def within(self, level: int, cells: Integers, blocks: Integers) -> Iterator[_Asked]:
        """The level below, in groups of a level: some groups at a time, which are the last axis.

        What is not there has the answer of nothing.
        """
        below = level - 1
        height = self._height(ROW, level) // self._height(ROW, below)
        most = max(1, _AT_ONCE // (height * _GROUP))
        inside = np.arange(height)[:, None, None], np.arange(_GROUP)[None, :, None]
        last = self._count(ROW, below) - 1, self._count(COLUMN, below) - 1
        for start in range(0, max(1, len(cells)), most):
            rows = cells[start : start + most] * height + inside[0]
            columns = blocks[start : start + most] * _GROUP + inside[1]
            there = (rows <= last[0]) & (columns <= last[1])
            rows, columns = np.minimum(rows, last[0]), np.minimum(columns, last[1])
            yield rows, columns, self._answers(below, rows, columns) * there

    def of_groups(self, level: int, cells: Integers, blocks: Integers) -> Runs:
        """The runs of groups where the mask holds everywhere."""
        grid = self.grid
        height = self._height(ROW, level) // grid.cells
        width = self._height(COLUMN, level)
        row_blocks = (cells[:, None] * height + np.arange(height)).reshape(-1)
        start = np.repeat(blocks * width, height)
        there = row_blocks < grid.row_blocks
        row_blocks, start = row_blocks[there], start[there]
        word = np.full(len(start), WHOLE * TESTED_EVERYWHERE, np.uint64)
        return Runs(row_blocks, start, np.minimum(start + width, grid.blocks), word)


def _none(position: int, component: int) -> Bytes:
    raise AssertionError("what is unknown is not read")


# The stage of a value, and its boxes on each level.
_Leveled = tuple[int, list[Interval]]


def _covering(each: Interval, height: int) -> Interval:
    """Boxes of so many intervals, one after the other."""
    return Interval(
        _joined(np.minimum, each.low, height),
        _joined(np.maximum, each.high, height),
        _joined(np.logical_or, each.nan, height),
    )


def _joined(join: np.ufunc, each: NDArray[Number], height: int) -> NDArray[Number]:
    """Numbers joined, so many one after the other: by twos, which is faster than `reduceat`."""
    while height % 2 == 0 and len(each) > 1:
        last = each[len(each) // 2 * 2 :]
        each = join(each[: len(each) - len(last) : 2], each[1::2])
        each = np.concatenate([each, last]) if len(last) else each
        height //= 2
    return (
        each
        if height == 1 or not len(each)
        else join.reduceat(each, np.arange(0, len(each), height))
    )


def _all_and_any(bytes_of: Bytes, height: int, width: int) -> Sequence[Bytes]:
    """Boxes of truth values joined by "and" and by "or": parts that stay in the cache for both."""
    at_once = height * max(1, _CACHED // (height * max(1, bytes_of.shape[1])))
    found: list[list[Bytes]] = [[], []]
    for start in range(0, len(bytes_of), at_once):
        part = bytes_of[start : start + at_once]
        for join, parts in zip((np.bitwise_and, np.bitwise_or), found, strict=True):
            parts.append(_grouped(join, _grouped(join, part, height, 0), width, 1))
    return [np.concatenate(parts) for parts in found]


def _grouped(join: np.ufunc, bytes_of: Bytes, height: int, axis: int) -> Bytes:
    """Bytes joined along an axis of two, so many at a time, in whole rows of memory."""
    if height == 1:
        return bytes_of
    count = bytes_of.shape[axis]
    whole = count - count % height
    parts = bytes_of[:whole], bytes_of[whole:]
    if axis:
        parts = bytes_of[:, :whole], bytes_of[:, whole:]
    shape = list(bytes_of.shape)
    shape[axis : axis + 1] = whole // height, height
    found = join.reduce(parts[0].reshape(shape), axis=axis + 1)
    if whole == count:
        return found
    return np.concatenate([found, join.reduce(parts[1], axis=axis, keepdims=True)], axis=axis)


def _numbered(count: int, apart: int) -> Interval:
    """Boxes of the numbers of rows, so many in each."""
    first = np.arange(0, count, apart)
    last = np.minimum(first + apart, count) - 1
    return Interval(first, last, np.zeros(len(first), bool))  # pyright: ignore[reportArgumentType] (whole)
