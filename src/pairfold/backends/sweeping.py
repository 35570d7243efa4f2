"""Sweeps to LLVM IR: sums of rows and sums of columns from one pass over the pairs.

Lanes hold rows. Their own sums stay in registers over a block of columns, as everywhere. The sums
of columns are vectors of partial sums in the task's memory, one per column of the block and
output, to which every tile of rows adds; when all tiles are through with the block, lanes are added
up, in the wider dtype. Each task leaves its sums of rows and of columns; `combine` merges them in
order, and finishes rows and columns.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Sequence

from llvmlite import ir

from ..lower.kernel import COLUMN, ROW
from ..lower.schedule import ITEM
from .codegen import Codegen
from .emitter import Key, Known, Leaf
from .flow import BYTES, I64, Carried, i64
from .packing import Packing
from .simd import Simd
from .states import Part
from .words import (
    ACROSS,
    COLUMNS,
    COLUMNS_PER_SPLIT,
    PANELS,
    PARTIALS,
    ROWS_PER_TASK,
    SPLITS,
)


class Sweeping(Codegen):
    """Writes the loops, tasks and entry points of a sweep.

    `valid`: rows of the present piece of a panel; `sums`: the task's sums of columns.
    """

    valid: ir.Value
    sums: ir.Value

    def write(self, entry: str) -> ir.Module:
        """The module, with both entry points: every call needs both, and they share the packing."""
        self.packing = Packing(self.context, (ROW, COLUMN))
        self.unit = self._unit_function()
        self.gather = self._gather_function()
        self.finish_rows = self._finish_rows_function()
        self.finish_columns = self._finish_columns_function()
        self._entry_point("run", self._task_function())
        self._entry_point("combine", self._combine_function())
        return self.module

    @property
    def _first(self) -> int:
        """The number of the first output that is folded across."""
        return self.kernel.places

    # -- the inner loop -------------------------------------------------------------------------

    def _unit_function(self) -> ir.Function:
        """unit(scratch, rows, state, count, valid): a packed block of columns and a tile of rows.

        Lanes from `valid` on repeat other rows: they add nothing to sums of columns.
        """
        scratch, rows, state, count, valid = self._function("unit", BYTES, BYTES, BYTES, I64, I64)
        self._begin_unit(scratch, rows, state, count, i64(0))
        masks = self._masks(valid)
        known: Known = {}
        instances = self._instances()
        self._fill_shared(weighted=False)
        self._invariant(self.kernel.outputs, instances, known)
        vectors, places = self.plan.vectors, self._first

        def body(columns: Carried, jam: int) -> None:
            local, leaf = dict(known), self._pair_leaf(columns.index)
            self._recall_shared(local, instances, columns.index)
            where = [self._sum_place(columns.index, n) for n in range(self.kernel.across)]
            sums = [self.flow.load(self.inner.type, address, 4) for address in where]
            columns.next = list(columns.values)
            for instance, mask in zip(instances, masks, strict=True):
                self.emitter.emit(self.kernel.outputs, [instance], local, leaf)
                for n in range(places):
                    part = slice(n * vectors, (n + 1) * vectors)
                    columns.next[part] = self._step(
                        n, i64(n), columns.next[part], [instance], local, columns.index
                    )
                for n, output in enumerate(self.kernel.outputs[places:]):
                    value = self.code.to_inner(local[output, self.emitter.key(output, instance)])
                    added = self.builder.fadd(sums[n], value, flags=("contract",))
                    sums[n] = self.builder.select(mask, added, sums[n])
            for address, value in zip(where, sums, strict=True):
                self.flow.store(value, address, 4)

        results = self._columns(self._initial() * places, body)
        self._flush_all([i64(n) for n in range(places)], results)
        self.builder.ret_void()
        return self.module.get_global("unit")

    def _masks(self, valid: ir.Value) -> list[ir.Value]:
        """For each vector of rows, which of its lanes are rows of their own."""
        b, width = self.builder, self.plan.width
        lanes = self.code.lane_numbers()
        left = b.trunc(self.flow.minimum(valid, i64(self.plan.lane_count)), ir.IntType(32))
        starts = (ir.Constant(ir.IntType(32), r * width) for r in range(self.plan.vectors))
        return [b.icmp_signed("<", lanes, self.simd.splat(b.sub(left, s))) for s in starts]

    def _sum_place(self, column: ir.Value, output: int | ir.Value) -> ir.Value:
        """Where the lanes' sums for a column of the block and an output are kept."""
        flow, b, item = self.flow, self.builder, ITEM[self.plan.accumulation.inner]
        place = flow.times(column, self.kernel.across)
        number = i64(output) if isinstance(output, int) else output
        shift = flow.times(b.add(place, number), self.plan.width * item)
        return flow.at(self.places["across"], shift)

    # -- a block of columns ---------------------------------------------------------------------

    def _fold_units(
        self,
        scratch: ir.Value,
        units: ir.Value,
        state: ir.Value,
        count: ir.Value,
        base: ir.Value,
    ) -> None:
        """Fold the block that was packed into every tile of rows, and add up its columns."""
        flow, b, lanes = self.flow, self.builder, self.plan.lane_count
        rows = flow.at(scratch, i64(self.layout.offset["rows"]))
        with flow.loop(i64(0), units, name="units") as unit:
            where, own = (
                self.code.unit_rows(rows, unit.index),
                self.code.unit_state(state, unit.index),
            )
            valid = b.sub(self.valid, flow.times(unit.index, lanes))
            b.call(self.unit, [scratch, where, own, count, valid])
        here = flow.at(self.sums, flow.times(b.sub(base, self.start), self.layout.outer_item))
        b.call(self.gather, [scratch, count, here, self.stride])

    def _gather_function(self) -> ir.Function:
        """gather(scratch, count, sums, stride): lanes added up and joined to the task's sums.

        The lanes' sums are 0 afterwards. Sums lie `stride` bytes apart from output to output.
        """
        scratch, count, sums, stride = self._function("gather", BYTES, I64, BYTES, I64)
        flow, width = self.flow, self.plan.width
        self._enter(scratch)
        with (
            flow.loop(i64(0), count, width, name="columns") as column,
            flow.loop(i64(0), i64(self.kernel.across), name="outputs") as output,
        ):
            vectors: list[ir.Value] = []
            for n in range(width):
                place = self._sum_place(self.builder.add(column.index, i64(n)), output.index)
                vectors.append(self.code.to_outer(flow.load(self.inner.type, place, 4)))
                flow.store(self.inner.constant(0), place, 4)
            total = _sums_of_lanes(self.outer, vectors)
            high, low = self._sum_addresses(sums, stride, column.index, output.index)
            (merged,) = self._merged(self.outer, [self._sum(high, low)], [(total, None)])
            self._keep_sum(merged, high, low)
        self.builder.ret_void()
        return self.module.get_global("gather")

    def _sum_addresses(
        self, sums: ir.Value, stride: ir.Value, column: ir.Value, output: ir.Value
    ) -> tuple[ir.Value, ir.Value]:
        """A task's sums, from some column on, for an output, and their corrections if any."""
        flow, b = self.flow, self.builder
        start = b.mul(flow.times(output, self.layout.components), stride)
        high = flow.at(sums, b.add(start, flow.times(column, self.layout.outer_item)))
        return high, flow.at(high, stride)

    def _sum(self, high: ir.Value, low: ir.Value) -> Part:
        compensated = self.plan.accumulation.compensated
        correction = self.flow.load(self.outer.type, low, 8) if compensated else None
        return self.flow.load(self.outer.type, high, 8), correction

    def _keep_sum(self, part: Part, high: ir.Value, low: ir.Value) -> None:
        self.flow.store(part[0], high, 8)
        if part[1] is not None:
            self.flow.store(part[1], low, 8)

    # -- tasks ----------------------------------------------------------------------------------

    def _sizes(self, args: ir.Value) -> tuple[ir.Value, ir.Value, ir.Value]:
        """Bytes of a task's sums: of its rows, of its columns, and of one output's columns."""
        flow = self.flow
        units = self.code.units(flow.word(args, ROWS_PER_TASK))
        stride = flow.times(flow.word(args, COLUMNS_PER_SPLIT), self.layout.outer_item)
        count = self.kernel.across * self.layout.components
        return flow.times(units, self.layout.unit_state), flow.times(stride, count), stride

    def _stretch(self, args: ir.Value, split: ir.Value) -> tuple[ir.Value, ir.Value]:
        """(first column, the one after the last) of a split."""
        start = self.builder.mul(split, self.flow.word(args, COLUMNS_PER_SPLIT))
        stop = self.builder.add(start, self.flow.word(args, COLUMNS_PER_SPLIT))
        return start, self.flow.minimum(stop, self.flow.word(args, COLUMNS))

    def _task_function(self) -> ir.Function:
        """task(args, scratch, control, which): a panel of rows and a stretch of columns."""
        args, scratch, control, which = self._function("task", BYTES, BYTES, BYTES, I64)
        flow, b = self.flow, self.builder
        self._enter(scratch)
        batch, first, count, split = self._task_parts(args, which, flow.word(args, SPLITS))
        self.start, stop = self._stretch(args, split)
        of_rows, of_columns, self.stride = self._sizes(args)
        state = flow.at(flow.pointer(args, PARTIALS), b.mul(which, of_rows))
        self.sums = flow.at(flow.pointer(args, ACROSS), b.mul(which, of_columns))
        self.packing.once(self.code, args, scratch, batch)
        self._reset(state, self.code.units(count))
        self._clear(self.sums, of_columns)
        self._clear(self.places["across"], i64(self.layout.across))
        with self._pieces(count) as (piece, self.valid):
            self.packing.rows(self.code, args, scratch, batch, b.add(first, piece), self.valid)
            own = self.code.unit_state(state, self.code.units(piece))
            units = self.code.units(self.valid)
            self._fold_interval((args, scratch, control), batch, units, own, self.start, stop)
        b.ret_void()
        return self.module.get_global("task")

    @contextlib.contextmanager
    def _pieces(self, count: ir.Value) -> Generator[tuple[ir.Value, ir.Value], None, None]:
        """The rows of a panel, as many at a time as are packed: (first, how many)."""
        step = self.plan.rows_per_task
        with self.flow.loop(i64(0), count, step, name="pieces") as piece:
            left = self.builder.sub(count, piece.index)
            yield piece.index, self.flow.minimum(i64(step), left)

    def _clear(self, start: ir.Value, size: ir.Value) -> None:
        step = self.plan.width * self.layout.outer_item
        with self.flow.loop(i64(0), size, step, name="clear") as place:
            self.flow.store(self.outer.constant(0), self.flow.at(start, place.index), 8)

    # -- merging and finishing ------------------------------------------------------------------

    def _combine_function(self) -> ir.Function:
        """combine_task(args, scratch, control, which): a panel of rows, or a stretch of columns."""
        args, scratch, _, which = self._function("combine_task", BYTES, BYTES, BYTES, I64)
        flow, b = self.flow, self.builder
        self._enter(scratch)
        panels, splits = flow.word(args, PANELS), flow.word(args, SPLITS)
        each = b.add(panels, splits)
        batch, number = b.sdiv(which, each), b.srem(which, each)
        first_task = b.mul(b.mul(batch, panels), splits)
        self.packing.once(self.code, args, scratch, batch)
        with flow.when(b.icmp_signed("<", number, panels)):
            self._combine_rows(args, scratch, batch, number, first_task)
        with flow.when(b.icmp_signed(">=", number, panels)):
            self._combine_columns(args, scratch, batch, b.sub(number, panels), first_task)
        b.ret_void()
        return self.module.get_global("combine_task")

    def _combine_rows(
        self, args: ir.Value, scratch: ir.Value, batch: ir.Value, panel: ir.Value, task: ir.Value
    ) -> None:
        """All splits of a panel; `task` is the first task of the batch element."""
        flow, b = self.flow, self.builder
        which = b.add(b.mul(batch, flow.word(args, PANELS)), panel)
        _, first, count, _ = self._task_parts(args, which, i64(1))
        of_rows, _, _ = self._sizes(args)
        task = b.add(task, b.mul(panel, flow.word(args, SPLITS)))
        state = flow.at(flow.pointer(args, PARTIALS), b.mul(task, of_rows))
        with self._pieces(count) as (piece, here):
            start = b.add(first, piece)
            if any(self.kernel.factors[: self._first]):
                self.packing.rows(self.code, args, scratch, batch, start, here)
            own = self.code.unit_state(state, self.code.units(piece))
            b.call(self.finish_rows, [args, scratch, batch, start, here, own])

    def _finish_rows_function(self) -> ir.Function:
        """finish_rows(args, scratch, batch, first, count, state): sums of rows to results.

        `state`: those of the first split.
        """
        args, scratch, batch, first, count, state = self._function(
            "finish_rows", BYTES, BYTES, I64, I64, I64, BYTES
        )
        flow, b, lanes = self.flow, self.builder, self.plan.lane_count
        self.args, self.scratch = args, scratch
        self._enter(scratch)
        of_rows, _, _ = self._sizes(args)
        with flow.loop(i64(0), self.code.units(count), name="units") as unit:
            self.row_buffer = self.code.unit_rows(self.places["rows"], unit.index)
            base = self.code.unit_state(state, unit.index)
            with flow.loop(i64(1), flow.word(args, SPLITS), name="splits") as split:
                self._merge_states(base, flow.at(base, b.mul(split.index, of_rows)))
            for output in range(self._first):
                for r in range(self.plan.vectors):
                    (part,) = self._loaded(base, i64(output), r)
                    self._finish_sum(output, r, part, self._pair_leaf(i64(0)))
            start = flow.times(unit.index, lanes)
            here = flow.minimum(i64(lanes), b.sub(count, start))
            for number in self._results(ROW):
                self._write_rows(args, batch, number, b.add(first, start), here)
        b.ret_void()
        return self.module.get_global("finish_rows")

    def _combine_columns(
        self, args: ir.Value, scratch: ir.Value, batch: ir.Value, split: ir.Value, task: ir.Value
    ) -> None:
        """All panels of a stretch of columns; `task` is the first task of the batch element."""
        flow, b, block = self.flow, self.builder, self.plan.block
        start, stop = self._stretch(args, split)
        _, of_columns, _ = self._sizes(args)
        sums = flow.at(flow.pointer(args, ACROSS), b.mul(b.add(task, split), of_columns))
        with flow.loop(start, stop, block, name="blocks") as column:
            count = flow.minimum(i64(block), b.sub(stop, column.index))
            if self.packing.pack_columns is not None and any(self.kernel.factors[self._first :]):
                into = self.places["columns"]
                b.call(self.packing.pack_columns, [args, scratch, batch, column.index, count, into])
            shift = flow.times(b.sub(column.index, start), self.layout.outer_item)
            own = flow.at(sums, shift)
            b.call(self.finish_columns, [args, scratch, batch, column.index, count, own])

    def _finish_columns_function(self) -> ir.Function:
        """finish_columns(args, scratch, batch, first, count, sums): a block to results.

        `sums`: those of the first panel.
        """
        args, scratch, batch, first, count, sums = self._function(
            "finish_columns", BYTES, BYTES, I64, I64, I64, BYTES
        )
        flow, b, width = self.flow, self.builder, self.plan.width
        self.args, self.scratch = args, scratch
        self._enter(scratch)
        _, of_columns, stride = self._sizes(args)
        apart = b.mul(flow.word(args, SPLITS), of_columns)
        with flow.loop(i64(0), count, width, name="columns") as column:
            leaf = self._column_leaf(column.index)
            for n in range(self.kernel.across):
                high, low = self._sum_addresses(sums, stride, column.index, i64(n))
                with flow.loop(i64(1), flow.word(args, PANELS), name="panels") as panel:
                    shift = b.mul(panel.index, apart)
                    other = self._sum(flow.at(high, shift), flow.at(low, shift))
                    (merged,) = self._merged(self.outer, [self._sum(high, low)], [other])
                    self._keep_sum(merged, high, low)
                self._finish_sum(self._first + n, 0, self._sum(high, low), leaf)
            here = flow.minimum(i64(width), b.sub(count, column.index))
            for number in self._results(COLUMN):
                self._write_rows(args, batch, number, b.add(first, column.index), here)
        b.ret_void()
        return self.module.get_global("finish_columns")

    def _column_leaf(self, at: ir.Value) -> Leaf:
        """Reads slots of columns as vectors, from column `at` of the block on."""
        flow, b, item = self.flow, self.builder, self.item
        elsewhere = self._pair_leaf(i64(0))

        def leaf(where: int, offset: int, index: ir.Value, key: Key) -> ir.Value:
            if where != COLUMN:
                return elsewhere(where, offset, index, key)
            slot = flow.times(b.add(i64(offset), index), self.plan.block * item)
            address = flow.at(self.places["columns"], b.add(slot, flow.times(at, item)))
            return flow.load(self.simd.type, address, 4)

        return leaf

    def _results(self, stage: int) -> list[int]:
        """The numbers of the results that are sums of rows, or of columns."""
        starts = [sum(self.kernel.pieces[:n]) for n in range(len(self.kernel.pieces))]
        return [n for n, start in enumerate(starts) if (start < self._first) == (stage == ROW)]

    def _finish_sum(self, output: int, r: int, part: Part, leaf: Leaf) -> None:
        """One vector of sums as components of a result, times the factor that had left them."""
        value = self._times_factor(self._closed(self.outer, *part), output, i64(0), r, leaf)
        for number, size in enumerate(self.kernel.pieces):
            if output < size:
                self._keep_result(number, i64(output), r, value)
                return
            output -= size


def _sums_of_lanes(simd: Simd, vectors: Sequence[ir.Value]) -> ir.Value:
    """Lane n is the sum of all lanes of vector n, for as many vectors as there are lanes.

    Two vectors are joined at a time: half of the lanes of the sum belong to either.
    """
    b, word, width = simd.builder, ir.IntType(32), simd.width
    current, bit = list(vectors), 1
    while len(current) > 1:
        joined: list[ir.Value] = []
        for even, odd in zip(current[::2], current[1::2], strict=True):
            parts: list[ir.Value] = []
            for flip in (0, bit):
                lanes = [(n ^ flip) + (width if n & bit else 0) for n in range(width)]
                mask = ir.Constant(
                    ir.VectorType(word, width), [ir.Constant(word, n) for n in lanes]
                )
                parts.append(b.shuffle_vector(even, odd, mask))
            joined.append(simd.add(*parts))
        current, bit = joined, 2 * bit
    return current[0]
