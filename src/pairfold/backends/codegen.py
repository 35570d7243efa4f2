"""Kernel and plan to LLVM IR.

A task holds some rows (a panel) and a stretch of columns. Rows and blocks of columns are packed
into component-major buffers ([slot][lane]), strides and tails being dealt with there and nowhere
else; the inner loop over a block reads only these buffers, keeps its accumulators in registers and
flushes them into wider states block after block. User arrays are read only at packing, at indices
below the counts given; all other memory is the task's own scratch.

    run(args, scratch, control)      takes tasks off a shared counter until none is left
    combine(args, scratch, control)  merges the states of a split reduced axis and finishes rows
"""

from __future__ import annotations

from llvmlite import ir

from ..lower.kernel import COLUMN, PAIR, ROW
from ..lower.pattern import PANEL_WORDS
from .emitter import operands
from .flow import BYTES, I64, i64
from .packing import Packing
from .products import Products
from .words import (
    ACTIVE,
    AT_ONCE,
    CHUNK,
    COLUMN_COUNT,
    COLUMNS,
    COLUMNS_PER_SPLIT,
    DONE,
    FIRST_INTERVAL,
    FIRST_ROW,
    INTERVALS,
    LAST_INTERVAL,
    NEXT,
    OWN_INTERVAL,
    PANELS,
    PARTIALS,
    REFUSED,
    ROW_COUNT,
    ROWS,
    ROWS_PER_TASK,
    SPARSE_PANELS,
    SPLITS,
    STOP,
    TOTAL,
)


class Codegen(Products):
    """Writes the tasks and the entry points."""

    def write(self, entry: str) -> ir.Module:
        """The module with one of the entry points, `run` or `combine`."""
        refactored = any(factor is not None for factor in self.kernel.factors)
        if entry == "run":
            self.packing = Packing(self.context, (ROW, COLUMN))
        else:
            self.packing = Packing(self.context, (ROW,) if refactored else ())
        if self.kernel.reduction.listed:
            self._write_lists()
        self.finish_unit = self._finish_function()
        if entry == "run":
            self._write_screen()
            self.unit = self._unit_function()
            self._entry_point(entry, self._task_function())
        else:
            self._entry_point(entry, self._combine_function())
        return self.module

    def _unit_function(self) -> ir.Function:
        """unit(scratch, rows, state, count, base): fold a packed block into one unit's states.

        A unit is a tile of rows (lanes are rows) or a single row (lanes are columns; `rows` then
        points at its lane in the group). The block begins with column number `base`.
        """
        scratch, *given = self._function("unit", BYTES, BYTES, BYTES, I64, I64)
        self._begin_unit(scratch, *given)
        self._fold_block()
        self.builder.ret_void()
        return self.module.get_global("unit")

    def _fold_block(self) -> None:
        if self.kernel.output_loop is None:
            self._fold_short()
        else:
            self._fold_long()

    def _begin_unit(
        self, scratch: ir.Value, rows: ir.Value, state: ir.Value, count: ir.Value, base: ir.Value
    ) -> None:
        """Take what a unit is given as what its loops read."""
        self._enter(scratch)
        self.column_buffers = [self.places["columns"]]
        if operands(self.kernel, self.plan):
            for _ in range(1, self.plan.vectors):
                self.column_buffers.append(self.flow.opaque(self.column_buffers[-1]))
        self.row_buffer, self.state, self.count, self.base = rows, state, count, base
        self.emitter = self.code.emitter(PAIR, scratch)
        self.iota = self.code.lane_numbers()

    def _task_parts(
        self, args: ir.Value, which: ir.Value, splits: ir.Value
    ) -> tuple[ir.Value, ir.Value, ir.Value, ir.Value]:
        """(batch, first row, rows, split) of a task."""
        flow, b = self.flow, self.builder
        split = b.srem(which, splits)
        panel_of_all = b.sdiv(which, splits)
        panels = flow.word(args, PANELS)
        batch = b.sdiv(panel_of_all, panels)
        first = b.mul(b.srem(panel_of_all, panels), flow.word(args, ROWS_PER_TASK))
        count = flow.minimum(flow.word(args, ROWS_PER_TASK), b.sub(flow.word(args, ROWS), first))
        return batch, first, count, split

    def _panel(
        self, args: ir.Value, which: ir.Value, dense: tuple[ir.Value, ...], panel: ir.Value
    ) -> ir.Value:
        """Write what a task knows of its panel of rows; returns the table of intervals.

        `dense`: (first row, rows, split), of a fold over all columns: one interval. The panels of
        a sparse fold, and their intervals, are read from tables.
        """
        flow, b = self.flow, self.builder
        first, count, split = dense
        start = b.mul(split, flow.word(args, COLUMNS_PER_SPLIT))
        stop = b.add(start, flow.word(args, COLUMNS_PER_SPLIT))
        stop = flow.minimum(stop, flow.word(args, COLUMNS))
        words = [first, count, i64(0), i64(1), flow.word(args, COLUMNS), start, stop]
        for place, word in enumerate(words):
            flow.store(word, flow.at(panel, i64(8 * place)), 8)
        sparse = b.icmp_signed("!=", flow.word(args, SPARSE_PANELS), i64(0))
        with flow.when(sparse):
            number = b.srem(which, flow.word(args, PANELS))
            source = flow.at(flow.pointer(args, SPARSE_PANELS), flow.times(number, 8 * PANEL_WORDS))
            for place in range(PANEL_WORDS):
                flow.store(flow.word(source, place), flow.at(panel, i64(8 * place)), 8)
        own = flow.at(panel, i64(8 * OWN_INTERVAL))
        return b.select(sparse, flow.pointer(args, INTERVALS), own)

    def _task_function(self) -> ir.Function:
        """task(args, scratch, control, which): fold a panel of rows over intervals of columns."""
        args, scratch, control, which = self._function("task", BYTES, BYTES, BYTES, I64)
        flow, b = self.flow, self.builder
        splits = flow.word(args, SPLITS)
        batch, *dense = self._task_parts(args, which, splits)
        panel = flow.at(scratch, i64(self.layout.offset["panel"]))
        intervals = self._panel(args, which, tuple(dense), panel)
        first, count = flow.word(panel, FIRST_ROW), flow.word(panel, ROW_COUNT)
        self.packing.once(self.code, args, scratch, batch)
        self.packing.rows(self.code, args, scratch, batch, first, count)
        units = self.code.units(count)
        self._rows_packed(scratch, units)
        own = flow.at(scratch, i64(self.layout.offset["state"]))
        partial = flow.at(flow.pointer(args, PARTIALS), flow.times(which, self.layout.state_bytes))
        alone = b.icmp_signed("==", splits, i64(1))
        state = b.select(alone, own, partial)
        self._reset(state, units)
        low, high = flow.word(panel, FIRST_INTERVAL), flow.word(panel, LAST_INTERVAL)
        with flow.loop(low, high, name="intervals") as each:
            interval = flow.at(intervals, flow.times(each.index, 16))
            start, stop = flow.word(interval, 0), flow.word(interval, 1)
            self._fold_interval((args, scratch, control), batch, units, state, start, stop)
        with flow.when(alone):
            columns = flow.word(panel, COLUMN_COUNT)
            b.call(self.finish_unit, [args, scratch, batch, first, count, columns, state])
        b.ret_void()
        return self.module.get_global("task")

    def _write_screen(self) -> None:
        """The functions that a screen of pairs needs."""

    def _rows_packed(self, scratch: ir.Value, units: ir.Value) -> None:
        """What else a task does with its rows."""

    def _columns_packed(self, scratch: ir.Value, count: ir.Value) -> None:
        """What else it does with a block of columns."""

    def _fold_interval(
        self,
        given: tuple[ir.Value, ir.Value, ir.Value],
        batch: ir.Value,
        units: ir.Value,
        state: ir.Value,
        start: ir.Value,
        stop: ir.Value,
    ) -> None:
        """Fold columns from start to stop, block after block, unless the task is to stop."""
        flow, b = self.flow, self.builder
        args, scratch, control = given
        columns = flow.at(scratch, i64(self.layout.offset["columns"]))
        with flow.loop(start, stop, self.plan.block, name="blocks") as block:
            halt = b.load_atomic(flow.at(control, i64(8 * STOP)), "monotonic", 8, typ=I64)
            refused = b.load_atomic(flow.at(args, i64(8 * REFUSED)), "monotonic", 8, typ=I64)
            going = b.icmp_signed("==", b.or_(b.and_(halt, i64(AT_ONCE)), refused), i64(0))
            with flow.when(going):
                width = flow.minimum(i64(self.plan.block), b.sub(stop, block.index))
                if self.packing.pack_columns is not None:
                    b.call(
                        self.packing.pack_columns,
                        [args, scratch, batch, block.index, width, columns],
                    )
                self._columns_packed(scratch, width)
                self._fold_units(scratch, units, state, width, block.index)

    def _fold_units(
        self,
        scratch: ir.Value,
        units: ir.Value,
        state: ir.Value,
        count: ir.Value,
        base: ir.Value,
    ) -> None:
        """Fold the block that was packed, which begins with column `base`, into every unit."""
        rows = self.flow.at(scratch, i64(self.layout.offset["rows"]))
        with self.flow.loop(i64(0), units, name="units") as unit:
            where, own = (
                self.code.unit_rows(rows, unit.index),
                self.code.unit_state(state, unit.index),
            )
            self.builder.call(self.unit, [scratch, where, own, count, base])

    def _combine_function(self) -> ir.Function:
        """combine_task(args, scratch, control, which): merge the splits of a panel, in order."""
        args, scratch, _, which = self._function("combine_task", BYTES, BYTES, BYTES, I64)
        flow, b = self.flow, self.builder
        batch, first, count, _ = self._task_parts(args, which, i64(1))
        splits = flow.word(args, SPLITS)
        self._enter(scratch)
        self.packing.once(self.code, args, scratch, batch)
        if self.packing.pack_rows is not None:
            self.packing.rows(self.code, args, scratch, batch, first, count)
        partials = flow.pointer(args, PARTIALS)
        panel = flow.at(partials, flow.times(b.mul(which, splits), self.layout.state_bytes))
        with flow.loop(i64(1), splits, name="splits") as split:
            other = flow.at(panel, flow.times(split.index, self.layout.state_bytes))
            with flow.loop(i64(0), self.code.units(count), name="units") as unit:
                self._merge_units(
                    self.code.unit_state(panel, unit.index), self.code.unit_state(other, unit.index)
                )
        columns = flow.word(args, COLUMNS)
        b.call(self.finish_unit, [args, scratch, batch, first, count, columns, panel])
        b.ret_void()
        return self.module.get_global("combine_task")

    def _entry_point(self, name: str, task: ir.Function) -> None:
        """While not stopped: take the next tasks off the counter and do them.

        Returns how many tasks are not done; once they are stopped at once, how many other threads
        are inside. Either way 0 says that nobody will touch the arrays any more, and that what was
        written to them is to be seen. Without scratch memory it only looks.
        """
        args, scratch, control = self._function(name, BYTES, BYTES, BYTES, returns=I64)
        b, flow = self.builder, self.flow
        take, work, leave = (b.append_basic_block(part) for part in ("take", "work", "leave"))
        active, done = flow.at(control, i64(8 * ACTIVE)), flow.at(control, i64(8 * DONE))
        stop_word = flow.at(control, i64(8 * STOP))
        b.atomic_rmw("add", active, i64(1), "acq_rel")
        # Whoever stops the tasks passes this, too, before counting who is inside: either is seen.
        b.fence("seq_cst")
        stop = b.load_atomic(stop_word, "monotonic", 8, typ=I64)
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
        stop = b.load_atomic(stop_word, "monotonic", 8, typ=I64)
        b.cbranch(b.icmp_signed("==", stop, i64(0)), take, leave)
        b.position_at_end(leave)
        others = b.sub(b.atomic_rmw("sub", active, i64(1), "acq_rel"), i64(1))
        stop = b.load_atomic(stop_word, "monotonic", 8, typ=I64)
        left = b.sub(flow.word(control, TOTAL), b.load_atomic(done, "acquire", 8, typ=I64))
        b.ret(b.select(b.icmp_signed("==", stop, i64(AT_ONCE)), others, left))
