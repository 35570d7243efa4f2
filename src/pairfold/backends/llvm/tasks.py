"""Tasks: rows and columns packed and folded, and the drivers that take tasks until none is left.

run(args, scratch, control)      takes tasks off a shared counter; of most kernels, a task holds
                                 some rows (a row block) and folds intervals of columns into them
combine(args, scratch, control)  likewise, tasks that merge what those of `run` have left

All kernels share drivers. What they need to know of a kernel stands in the table of arguments, and
its own functions are called by the names that `runtime.CALLED` lists.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import NamedTuple

from ...lower.blocks import TESTED, TESTED_EVERYWHERE
from ...lower.blocks import WHOLE as WHOLE_BLOCK
from ...lower.kernel import ROW
from ...lower.pattern import ROW_BLOCK_WORDS
from ...lower.schedule import Machine
from . import ir
from .abi import (
    ACTIVE,
    ANSWERS,
    ARGUMENT_WORDS,
    ARGUMENTS,
    AT_ONCE,
    BAILED_OUT,
    BLOCK,
    CHUNK,
    COLUMN_COUNT,
    COLUMNS,
    COLUMNS_AT,
    COLUMNS_LIST,
    COLUMNS_PER_SPLIT,
    DONE,
    FILL_COUNT,
    FILLS,
    FIRST_INTERVAL,
    FIRST_ROW,
    INTERVALS,
    LAST_INTERVAL,
    LIST_HEAD,
    NEXT,
    NO_ANSWER,
    ONCE_AT,
    ONCE_LIST,
    OWN_INTERVAL,
    PACKED,
    PAIRS_AT,
    PAIRS_LIST,
    PARTIALS,
    PATTERN_BLOCKS,
    RANGE_WORDS,
    RANGES,
    ROW_BLOCKS,
    ROW_COUNT,
    ROWS,
    ROWS_AT,
    ROWS_LIST,
    ROWS_PER_TASK,
    SPACING,
    SPARSE_ROW_BLOCKS,
    SPLITS,
    STATE_AT,
    STATE_BYTES,
    STOP,
    TILE,
    TILE_ROWS,
    TILE_STATE,
    TOTAL,
    WHOLE,
)
from .copying import CHECKING, PACKING, rounded_up
from .empty import RESETTING
from .flow import BYTES, I64, i64
from .packing import Packing
from .pairs import PACKING_PAIRS
from .runtime import CALLED, Body, RuntimeFunction, begun, called, declared
from .underflow import Flush

# Folds the block that was packed, (number of columns, first of them), into the rows of a task.
FoldBlock = Callable[[ir.Value, ir.Value], None]
_DRIVER = (BYTES, BYTES, BYTES)


class Parts(NamedTuple):
    """What the tasks of a kernel do: whether they pack rows, and which functions go over them."""

    rows: bool
    compute_once: bool
    compute_rows: bool
    compute_columns: bool
    check: bool
    screen: bool
    mask: bool
    pairs: bool
    flushes: bool


def parts_of(
    packing: Packing, screen: bool = False, mask: bool = False, flushes: bool = False
) -> Parts:
    """Which of them the module of a kernel has."""
    return Parts(
        ROW in packing.stages,
        packing.compute_once is not None,
        packing.compute_rows is not None,
        packing.compute_columns is not None,
        packing.check is not None,
        screen,
        mask,
        packing.pairs is not None,
        flushes,
    )


def run_driver(machine: Machine, parts: Parts) -> RuntimeFunction:
    """run(args, scratch, control), of a kernel that leaves its tasks to the driver."""
    detail = _numbers(parts)
    return RuntimeFunction("run", _DRIVER, I64, _write_run, machine, detail=detail, rare=True)


def combine_driver(machine: Machine, parts: Parts) -> RuntimeFunction:
    """combine(args, scratch, control), which merges splits."""
    detail = _numbers(parts)
    return RuntimeFunction(
        "combine", _DRIVER, I64, _write_combine, machine, detail=detail, rare=True
    )


def own_driver(machine: Machine, name: str) -> RuntimeFunction:
    """`run` or `combine` of a kernel that has tasks of its own, (args, scratch, control, which)."""
    return RuntimeFunction(name, _DRIVER, I64, _write_own, machine, rare=True)


def _numbers(parts: Parts) -> tuple[int, ...]:
    return tuple(map(int, parts))


def _write_own(body: Body, own: RuntimeFunction) -> None:
    _take_tasks(body, called(body, "task" if own.name == "run" else "combine_task"))


def _write_run(body: Body, own: RuntimeFunction) -> None:
    parts = Parts(*map(bool, own.detail))
    _take_tasks(body, _task(body.function.module, parts))


def _write_combine(body: Body, own: RuntimeFunction) -> None:
    parts = Parts(*map(bool, own.detail))
    _take_tasks(body, _combine_task(body.function.module, parts))


class Task:
    """A task in the function that does it: what it was given, how it goes through its rows.

    `parts` are those of the kernel, each called by its name.
    """

    def __init__(self, body: Body, batch: ir.Value, parts: Parts) -> None:
        self.body, self.flow, self.builder, self.batch = body, body.flow, body.builder, batch
        self.args, self.scratch, self.control, _ = body.given
        self.parts = parts

    def word(self, place: int) -> ir.Value:
        """A word of the table of arguments."""
        return self.flow.word(self.args, place)

    def part(self, place: int) -> ir.Value:
        """A part of scratch memory, the offset of which is a word of the table."""
        return self.flow.at(self.scratch, self.word(place))

    def tiles(self, count: ir.Value) -> ir.Value:
        """How many tiles that many rows are: as many as there are lanes each, or one."""
        b, tile = self.builder, self.word(TILE)
        return b.sdiv(b.add(count, b.sub(tile, i64(1))), tile)

    def once(self) -> None:
        """Pack parameters, and compute what depends on them alone."""
        one = i64(1)
        self._pack(i64(0), one, one, self.part(ONCE_AT), i64(0), ONCE_LIST)
        if self.parts.compute_once:
            self.builder.call(called(self.body, "compute_once"), [self.args, self.scratch])

    def reset(self, state: ir.Value, tiles: ir.Value) -> None:
        """States of no columns."""
        function = declared(self.body, "reset", RESETTING)
        fills = self.flow.pointer(self.args, FILLS), self.word(FILL_COUNT)
        self.builder.call(function, [*fills, state, tiles, self.word(TILE_STATE)])

    def rows(self, first: ir.Value, count: ir.Value) -> None:
        """Pack rows from number `first` on, tile by tile where lanes are rows."""
        if not self.parts.rows:
            return
        flow, b = self.flow, self.builder
        together, rows = self.word(PACKED), self.part(ROWS_AT)
        tiles = b.sdiv(together, self.word(TILE))
        apart = b.mul(tiles, self.word(TILE_ROWS))
        self._pack(first, count, together, rows, apart, ROWS_LIST)
        if self.parts.compute_rows:
            function = called(self.body, "compute_rows")
            whole = flow.word(flow.pointer(self.args, ROWS_LIST), WHOLE)
            with flow.loop(i64(0), count, together, [rows], name="groups") as group:
                here = flow.minimum(together, b.sub(count, group.index))
                padded = rounded_up(self.body, here, whole)
                b.call(function, [self.args, self.scratch, group.values[0], padded])
                group.next = [flow.at(group.values[0], apart)]
        self._check(count, together, rows, apart, ROWS_LIST)
        if self.parts.screen:
            b.call(called(self.body, "screen_rows"), [self.scratch, self.tiles(count)])

    def columns(self, start: ir.Value, stop: ir.Value, fold: FoldBlock) -> None:
        """FoldBlock columns from start to stop, block after block, unless the task is to stop.

        Under a mask, blocks end at multiples of their length, wherever the columns begin.
        """
        flow, b, block = self.flow, self.builder, self.word(BLOCK)
        begin = b.sub(start, b.srem(start, block)) if self.parts.mask else start
        with flow.loop(begin, stop, block, name="blocks") as each:
            halt = b.load_atomic(flow.at(self.control, i64(8 * STOP)), "monotonic", 8, I64)
            refused = b.load_atomic(flow.at(self.args, i64(8 * BAILED_OUT)), "monotonic", 8, I64)
            going = b.icmp_signed("==", b.or_(b.and_(halt, i64(AT_ONCE)), refused), i64(0))
            with flow.when(going):
                first = each.index
                end = flow.minimum(b.add(first, block), stop)
                if self.parts.mask:
                    first = b.select(b.icmp_signed("<", first, start), start, first)
                width = b.sub(end, first)
                self.block_of_columns(first, width)
                if self.parts.screen:
                    b.call(called(self.body, "screen_columns"), [self.scratch, width])
                fold(width, first)

    def answers(self, interval: ir.Value) -> ir.Value:
        """What is known of a mask on an interval of columns, for each tile: see `lower.blocks`.

        Where nothing is known, each tile tests its pairs.
        """
        flow, b = self.flow, self.builder
        none = flow.at(self.scratch, i64(8 * NO_ANSWER))
        flow.store(i64(TESTED_EVERYWHERE), none, 8)
        given = flow.at(flow.pointer(self.args, ANSWERS), flow.times(interval, 8))
        known = b.icmp_signed("!=", self.word(ANSWERS), i64(0))
        return flow.word(b.select(known, given, none), 0)

    def block_of_columns(
        self, start: ir.Value, count: ir.Value, to: ir.Value | None = None
    ) -> None:
        """Pack a block of columns, into scratch memory unless it is said where."""
        columns = self.part(COLUMNS_AT) if to is None else to
        self._pack(start, count, count, columns, i64(0), COLUMNS_LIST)
        if self.parts.compute_columns:
            whole = self.flow.word(self.flow.pointer(self.args, COLUMNS_LIST), WHOLE)
            function, padded = (
                called(self.body, "compute_columns"),
                rounded_up(self.body, count, whole),
            )
            self.builder.call(function, [self.args, self.scratch, columns, padded])
        self._check(count, count, columns, i64(0), COLUMNS_LIST)

    def pairs(self, rows: tuple[ir.Value, ir.Value], columns: tuple[ir.Value, ir.Value]) -> None:
        """Pack what a tile needs of a block: (first, how many) of its rows, and of its columns."""
        function = declared(self.body, "pack_pairs", PACKING_PAIRS)
        to, listed = self.part(PAIRS_AT), self.flow.pointer(self.args, PAIRS_LIST)
        self.builder.call(function, [self.args, self.batch, *rows, *columns, to, listed])

    def _pack(
        self,
        start: ir.Value,
        count: ir.Value,
        group: ir.Value,
        where: ir.Value,
        apart: ir.Value,
        given: int,
    ) -> None:
        function = declared(self.body, "pack", PACKING)
        listed = self.flow.pointer(self.args, given)
        rows = (self.args, self.batch, start, count, group)
        self.builder.call(function, [*rows, where, apart, listed])

    def _check(
        self, count: ir.Value, group: ir.Value, where: ir.Value, apart: ir.Value, given: int
    ) -> None:
        """Bail out where packed numbers are too large, if that matters."""
        if not self.parts.check:
            return
        flow, b, function = self.flow, self.builder, declared(self.body, "moderate", CHECKING)
        listed = flow.pointer(self.args, given)
        spacing, whole = flow.word(listed, SPACING), flow.word(listed, WHOLE)
        size = flow.times(flow.word(listed, ARGUMENTS), 8 * ARGUMENT_WORDS)
        ranges = flow.at(flow.at(listed, i64(8 * LIST_HEAD)), size)
        rows = spacing, count, group, whole
        with flow.loop(i64(0), flow.word(listed, RANGES), 1, [ranges], name="ranges") as each:
            first, slots = (flow.word(each.values[0], n) for n in range(RANGE_WORDS))
            b.call(function, [self.args, slots, *rows, flow.at(where, first), apart])
            each.next = [flow.at(each.values[0], i64(8 * RANGE_WORDS))]


def task_parts(
    body: Body, args: ir.Value, which: ir.Value, splits: ir.Value
) -> tuple[ir.Value, ir.Value, ir.Value, ir.Value]:
    """(batch, first row, rows, split) of a task."""
    flow, b = body.flow, body.builder
    split = b.srem(which, splits)
    block_of_all = b.sdiv(which, splits)
    row_blocks = flow.word(args, ROW_BLOCKS)
    batch = b.sdiv(block_of_all, row_blocks)
    first = b.mul(b.srem(block_of_all, row_blocks), flow.word(args, ROWS_PER_TASK))
    count = flow.minimum(flow.word(args, ROWS_PER_TASK), b.sub(flow.word(args, ROWS), first))
    return batch, first, count, split


def _begun_task(module: ir.Module) -> Body:
    body = Body(begun(module, "one_task", *CALLED["task"]))
    body.function.linkage = "internal"
    return body


def _task(module: ir.Module, parts: Parts) -> ir.Function:
    """one_task(args, scratch, control, which): fold a block of rows over intervals of columns."""
    body = _begun_task(module)
    args, scratch, _, which = body.given
    flow, b = body.flow, body.builder
    splits = flow.word(args, SPLITS)
    batch, *dense = task_parts(body, args, which, splits)
    task = Task(body, batch, parts)
    finish, row_block = called(body, "finish"), scratch
    intervals = _row_block(body, which, (dense[0], dense[1], dense[2]), row_block)
    first, count = flow.word(row_block, FIRST_ROW), flow.word(row_block, ROW_COUNT)
    tiles = task.tiles(count)
    partial = flow.at(flow.pointer(args, PARTIALS), b.mul(which, task.word(STATE_BYTES)))
    alone = b.icmp_signed("==", splits, i64(1))
    state = b.select(alone, task.part(STATE_AT), partial)
    task.once()
    task.reset(state, tiles)
    task.rows(first, count)
    low, high = flow.word(row_block, FIRST_INTERVAL), flow.word(row_block, LAST_INTERVAL)

    def fold_all(fold: Callable[[ir.Value, ir.Value, ir.Value], None]) -> None:
        with flow.loop(low, high, name="intervals") as each:
            interval = flow.at(intervals, flow.times(each.index, 16))
            start, stop = flow.word(interval, 0), flow.word(interval, 1)
            task.columns(start, stop, lambda count, base: fold(count, base, each.index))

    every = Tiles(task, (first, count), state)
    if not parts.flushes:
        fold_all(lambda columns, base, which: every.fold(columns, base, which, i64(0), tiles))
    else:
        flush = Flush(body)

        def flushed(columns: ir.Value, base: ir.Value, interval: ir.Value) -> None:
            with flush.blocks(columns):
                every.fold(columns, base, interval, i64(0), tiles)

        fold_all(flushed)
        with flush.tiles(tiles, every.at, flow.word(row_block, COLUMN_COUNT)) as tile:
            task.reset(every.at(tile)[1], i64(1))
            end = b.add(tile, i64(1))
            fold_all(lambda columns, base, which: every.fold(columns, base, which, tile, end))
    with flow.when(alone):
        columns = flow.word(row_block, COLUMN_COUNT)
        b.call(finish, [args, scratch, batch, first, count, columns, state])
    return body.done()


class Tiles:
    """The tiles of a task: `rows` are (first, how many), `state` the address of all states."""

    def __init__(self, task: Task, rows: tuple[ir.Value, ir.Value], state: ir.Value) -> None:
        self.task, self.rows, self.state = task, rows, state

    def at(self, tile: ir.Value) -> tuple[ir.Value, ir.Value]:
        """The packed rows and the states of one."""
        task, b = self.task, self.task.builder
        rows = task.flow.at(task.part(ROWS_AT), b.mul(tile, task.word(TILE_ROWS)))
        return rows, task.flow.at(self.state, b.mul(tile, task.word(TILE_STATE)))

    def fold(
        self,
        columns: ir.Value,
        base: ir.Value,
        interval: ir.Value,
        begin: ir.Value,
        end: ir.Value,
    ) -> None:
        """Fold the packed block of columns into some of them."""
        task, parts, (first, count) = self.task, self.task.parts, self.rows
        body, flow, b = task.body, task.flow, task.builder
        apart = task.word(TILE_ROWS), task.word(TILE_STATE)
        carried = [*self.at(begin)]
        if parts.mask:
            bits = b.and_(flow.times(begin, 2), i64(63))
            word = task.answers(interval)
            upper = b.shl(word, b.and_(b.neg(bits), i64(63)))
            carried.append(b.or_(b.lshr(word, bits), upper))
        with flow.loop(begin, end, 1, carried, name="tiles") as each:
            rows, states, *word = each.values
            if parts.pairs:
                done = b.mul(each.index, task.word(TILE))
                here = flow.minimum(task.word(TILE), b.sub(count, done))
                packed = (b.add(first, done), here), (base, columns)
                with flow.when(_is_met(body, word[0])) if word else nullcontext():
                    task.pairs(*packed)
            given = [task.scratch, rows, states, columns, base]
            each.next = [flow.at(rows, apart[0]), flow.at(states, apart[1])]
            if word:
                _answered(body, word[0], given)
                each.next.append(b.or_(b.lshr(word[0], i64(2)), b.shl(word[0], i64(62))))
            else:
                b.call(called(body, "tile"), given)


def _is_met(body: Body, word: ir.Value) -> ir.Value:
    """Whether the lowest bits of a word say that a block is not skipped."""
    return body.builder.icmp_signed("!=", body.builder.and_(word, i64(3)), i64(0))


def _answered(body: Body, word: ir.Value, given: Sequence[ir.Value]) -> None:
    """Fold a block into a tile as the lowest bits of a word say."""
    b = body.builder
    answer = b.and_(word, i64(3))
    for wanted, name in ((TESTED, "tile"), (WHOLE_BLOCK, "tile_whole")):
        with body.flow.when(b.icmp_signed("==", answer, i64(wanted))):
            b.call(called(body, name), given)


def _row_block(
    body: Body, which: ir.Value, dense: tuple[ir.Value, ir.Value, ir.Value], row_block: ir.Value
) -> ir.Value:
    """Write what a task knows of its block of rows; returns the table of intervals.

    `dense`: (first row, rows, split), of a fold over all columns: one interval. The row blocks of
    a sparse fold, and their intervals, are read from tables.
    """
    flow, b, args = body.flow, body.builder, body.given[0]
    first, count, split = dense
    start = b.mul(split, flow.word(args, COLUMNS_PER_SPLIT))
    stop = b.add(start, flow.word(args, COLUMNS_PER_SPLIT))
    stop = flow.minimum(stop, flow.word(args, COLUMNS))
    columns = flow.word(args, COLUMNS)
    words = [first, count, i64(0), i64(1), columns, start, stop]
    for place, word in enumerate(words):
        flow.store(word, flow.at(row_block, i64(8 * place)), 8)
    sparse = b.icmp_signed("!=", flow.word(args, SPARSE_ROW_BLOCKS), i64(0))
    with flow.when(sparse):
        number = b.srem(which, flow.word(args, PATTERN_BLOCKS))
        shift = flow.times(number, 8 * ROW_BLOCK_WORDS)
        source = flow.at(flow.pointer(args, SPARSE_ROW_BLOCKS), shift)
        for place in range(ROW_BLOCK_WORDS):
            flow.store(flow.word(source, place), flow.at(row_block, i64(8 * place)), 8)
    own = flow.at(row_block, i64(8 * OWN_INTERVAL))
    return b.select(sparse, flow.pointer(args, INTERVALS), own)


def _combine_task(module: ir.Module, parts: Parts) -> ir.Function:
    """one_task(args, scratch, control, which): merge the splits of a row block, in order."""
    body = _begun_task(module)
    args, scratch, _, which = body.given
    flow, b = body.flow, body.builder
    splits = flow.word(args, SPLITS)
    batch, first, count, _ = task_parts(body, args, which, i64(1))
    task = Task(body, batch, parts)
    merge, finish = called(body, "merge"), called(body, "finish")
    size, tiles = task.word(STATE_BYTES), task.tiles(count)
    row_block = flow.at(flow.pointer(args, PARTIALS), b.mul(b.mul(which, splits), size))
    task.once()
    task.rows(first, count)
    with flow.loop(i64(1), splits, name="splits") as split:
        other = flow.at(row_block, b.mul(split.index, size))
        b.call(merge, [scratch, row_block, other, tiles])
    columns = flow.word(args, COLUMNS)
    b.call(finish, [args, scratch, batch, first, count, columns, row_block])
    return body.done()


def _take_tasks(body: Body, task: ir.Function) -> None:
    """While not stopped: take the next tasks off the counter and do them.

    Returns how many tasks are not done; once they are stopped at once, how many other threads
    are inside. Either way 0 says that nobody will touch the arrays any more, and that what was
    written to them is to be seen. Without scratch memory it only looks.
    """
    args, scratch, control = body.given
    b, flow = body.builder, body.flow
    take, work, leave = (b.append_basic_block(part) for part in ("take", "work", "leave"))
    active, done = flow.at(control, i64(8 * ACTIVE)), flow.at(control, i64(8 * DONE))
    stop_word = flow.at(control, i64(8 * STOP))
    b.atomic_rmw("add", active, i64(1), "acq_rel")
    # Whoever stops the tasks passes this, too, before counting who is inside: either is seen.
    b.fence("seq_cst")
    stop = b.load_atomic(stop_word, "monotonic", 8, I64)
    looks = b.icmp_signed("==", scratch, ir.Constant(BYTES, None))
    b.cbranch(b.or_(looks, b.icmp_signed("==", stop, i64(AT_ONCE))), leave, take)
    b.position_at_end(take)
    chunk = flow.word(control, CHUNK)
    total = flow.word(control, TOTAL)
    first = b.atomic_rmw("add", flow.at(control, i64(8 * NEXT)), chunk, "monotonic")
    b.cbranch(b.icmp_signed("<", first, total), work, leave)
    b.position_at_end(work)
    last = flow.minimum(b.add(first, chunk), total)
    with flow.loop(first, last, name="tasks") as tasks:
        b.call(task, [args, scratch, control, tasks.index])
    b.atomic_rmw("add", done, b.sub(last, first), "acq_rel")
    stop = b.load_atomic(stop_word, "monotonic", 8, I64)
    b.cbranch(b.icmp_signed("==", stop, i64(0)), take, leave)
    b.position_at_end(leave)
    others = b.sub(b.atomic_rmw("sub", active, i64(1), "acq_rel"), i64(1))
    stop = b.load_atomic(stop_word, "monotonic", 8, I64)
    left = b.sub(flow.word(control, TOTAL), b.load_atomic(done, "acquire", 8, I64))
    b.ret(b.select(b.icmp_signed("==", stop, i64(AT_ONCE)), others, left))
