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

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from llvmlite import ir

from ..core.scalars import Loop, Value, reachable
from ..lower.kernel import COLUMN, PAIR, ROW, Kernel
from ..lower.schedule import Plan, cells
from .emitter import Emitter, Key, Known
from .flow import BYTES, I64, Carried, i64
from .states import States
from .words import (
    CHUNK,
    COLUMNS,
    COLUMNS_PER_SPLIT,
    DONE,
    NEXT,
    PANELS,
    PARTIALS,
    REFUSED,
    ROWS,
    ROWS_PER_TASK,
    SPLITS,
    STOP,
    TOTAL,
)


class Codegen(States):
    """Writes the inner loops, the tasks and the entry points."""

    def write(self, entry: str) -> ir.Module:
        """The module with one of the entry points, `run` or `combine`."""
        if entry == "run":
            self._write_packing((ROW, COLUMN))
            self.finish_unit = self._finish_function()
            self.unit = self._unit_function()
            self._entry(entry, self._task_function())
        else:
            refactored = any(factor is not None for factor in self.kernel.factors)
            self._write_packing((ROW,) if refactored else ())
            self.finish_unit = self._finish_function()
            self._entry(entry, self._combine_function())
        return self.module

    def _unit_function(self) -> ir.Function:
        """unit(scratch, rows, state, count): fold a packed block into the states of one unit.

        A unit is a tile of rows (lanes are rows) or a single row (lanes are columns; `rows` then
        points at its lane in the group).
        """
        scratch, rows, state, count = self._function("unit", BYTES, BYTES, BYTES, I64)
        self.places = {
            name: self.flow.at(scratch, i64(offset)) for name, offset in self.layout.offset.items()
        }
        self.row_buffer, self.state, self.count = rows, state, count
        self.emitter = Emitter(self.kernel, self.plan, self.simd, self.flow, PAIR)
        self._equipped(self.emitter, scratch)
        self.iota = self._lane_numbers()
        if self.kernel.output_loop is None:
            self._fold_short()
        else:
            self._fold_long()
        self.builder.ret_void()
        return self.module.get_global("unit")

    def _lane_numbers(self) -> ir.Value:
        word = ir.IntType(32)
        kind = ir.VectorType(word, self.plan.width)
        return ir.Constant(kind, [ir.Constant(word, lane) for lane in range(self.plan.width)])

    def _invariant(self, targets: Sequence[Value], instances: Sequence[Key], known: Known) -> None:
        """Read once, before the loop over columns, what does not vary in it."""
        leaf = self._pair_leaf(i64(0))
        for value in self.kernel.needed(targets, PAIR):
            if value.kind == "index" or value.loops or value.stage & COLUMN:
                continue
            if self.kernel.is_leaf(value, PAIR):
                self.emitter.emit([value], instances, known, leaf)

    def _instances(self, jam: int = 1) -> list[Key]:
        return [(u, r) for u in range(jam) for r in range(self.plan.vectors)]

    def _initial(self) -> list[ir.Value]:
        return [
            self.inner.constant(value)
            for value in self.kernel.reduction.identity
            for _ in range(self.plan.vectors)
        ]

    def _columns(
        self,
        carried: Sequence[ir.Value],
        body: Callable[[Carried, int], None],
    ) -> list[ir.Value]:
        """The loop over a block: `jam` columns at a time, then the rest one by one."""
        state = list(carried)
        if not self.row_major:
            stop = self._round_up(self.count, self.plan.lane_count)
            with self.flow.loop(i64(0), stop, self.plan.lane_count, state, name="pairs") as columns:
                body(columns, 1)
            return columns.results
        jam = self.plan.jam
        start: ir.Value = i64(0)
        if jam > 1:
            jammed = self.builder.mul(self.builder.sdiv(self.count, i64(jam)), i64(jam))
            with self.flow.loop(start, jammed, jam, state, name="pairs") as columns:
                body(columns, jam)
            start, state = jammed, columns.results
        with self.flow.loop(start, self.count, 1, state, name="pairs" if jam == 1 else "rest") as c:
            body(c, 1)
        return c.results

    def _fold_short(self) -> None:
        """All components at once, their accumulators in registers."""
        kernel = self.kernel
        known: Known = {}
        self._invariant(kernel.outputs, self._instances(self.plan.jam), known)
        per_output = len(self._initial())

        def body(columns: Carried, jam: int) -> None:
            instances = self._instances(jam)
            local = dict(known)
            self.emitter.emit(kernel.outputs, instances, local, self._pair_leaf(columns.index))
            columns.next = list(columns.values)
            for place in range(len(kernel.outputs)):
                start = place * per_output
                states = columns.next[start : start + per_output]
                columns.next[start : start + per_output] = self._step(
                    place, states, instances, local, columns.index
                )

        carried = self._initial() * len(kernel.outputs)
        results = self._columns(carried, body)
        for place in range(len(kernel.outputs)):
            part = results[place * per_output : (place + 1) * per_output]
            self._flush(self.state, i64(place), part)

    def _step(
        self,
        place: int,
        states: Sequence[ir.Value],
        instances: Sequence[Key],
        local: Known,
        at: ir.Value,
    ) -> list[ir.Value]:
        """The states after the pairs of these instances. `states`: [state][vector]."""
        vectors = self.plan.vectors
        current = list(states)
        emitter = Emitter(self.kernel, self.plan, self.inner, self.flow, PAIR)
        steps = self.kernel.steps[place]
        output = self.kernel.outputs[place]
        for instance in instances:
            r = instance[1]
            value = local[output, self.emitter.key(output, instance)]
            known: Known = {(output, emitter.key(output, instance)): self._to_inner(value)}
            for hole in (v for v in reachable(steps) if v.what == "hole"):
                known[hole, instance] = current[hole.data[1] * vectors + r]
            emitter.emit(steps, [instance], known, self._pair_leaf(at), output.loops)
            for number, step in enumerate(steps):
                after = known[step, emitter.key(step, instance)]
                before = current[number * vectors + r]
                current[number * vectors + r] = self._only_valid(after, before, at, r)
        return current

    def _to_inner(self, value: ir.Value) -> ir.Value:
        if self.inner.type == value.type:
            return value
        return self.builder.fpext(value, self.inner.type)

    def _only_valid(self, after: ir.Value, before: ir.Value, at: ir.Value, r: int) -> ir.Value:
        """When lanes are columns, those past the end of the block change nothing."""
        if self.row_major:
            return after
        b = self.builder
        left = b.sub(self.count, b.add(at, i64(r * self.plan.width)))
        left = self.flow.minimum(left, i64(self.plan.width))
        bound = self.simd.splat(b.trunc(left, ir.IntType(32)))
        return b.select(b.icmp_signed("<", self.iota, bound), after, before)

    def _fold_long(self) -> None:
        """Shared pair values to a buffer, then the components, a few at a time, as a product."""
        loop = self.kernel.output_loop
        assert loop is not None
        self._fill_shared()
        jam = min(self.plan.output_jam, loop.n)
        whole = loop.n // jam * jam
        with self.flow.loop(i64(0), i64(whole), jam, name="outputs") as outputs:
            self._fold_components(outputs.index, jam)
        for rest in range(whole, loop.n):
            self._fold_components(i64(rest), 1)

    def _shared_places(self, at: ir.Value) -> Iterator[tuple[Value, Callable[[Key], ir.Value]]]:
        """The shared values of one column (or vector of columns), and where each is kept.

        A table is computed where it is kept, its components a whole block apart.
        """
        tables = self.emitter.tables
        assert tables is not None
        start, vector = 0, self.layout.shared_vector
        for value in self.shared:
            place = partial(self._shared_place, start, at)
            if value.what == "table":
                tables.homes[value.data] = place, vector
            yield value, place
            start += cells(value) * vector

    def _shared_place(self, start: int, at: ir.Value, key: Key) -> ir.Value:
        flow, b, plan, item = self.flow, self.builder, self.plan, self.item
        lanes = plan.lane_count if self.row_major else 1
        column = b.add(at, i64(key[0])) if self.row_major else at
        shift = b.add(flow.times(column, lanes * item), i64(self._vector(key)))
        return flow.at(self.places["shared"], b.add(i64(start), shift))

    def _fill_shared(self) -> None:
        if not self.shared:
            return
        known: Known = {}
        self._invariant(self.shared, self._instances(self.plan.jam), known)

        def body(columns: Carried, jam: int) -> None:
            instances = self._instances(jam)
            local = dict(known)
            places = dict(self._shared_places(columns.index))
            self.emitter.emit(self.shared, instances, local, self._pair_leaf(columns.index))
            for value, place in places.items():
                keys = {self.emitter.key(value, instance) for instance in instances}
                for key in sorted(keys if value.kind == "real" else ()):
                    self.flow.store(local[value, key], place(key), 4)

        self._columns([], body)

    def _fold_components(self, first: ir.Value, jam: int) -> None:
        """Components first ... first+jam-1 of every pair of the block, then flush them."""
        kernel, loop = self.kernel, self.kernel.output_loop
        assert loop is not None
        output, instances = kernel.outputs[0], self._instances()
        starts: list[Known] = []
        for extra in range(jam):
            known: Known = {(loop.index, (0, 0)): self.builder.add(first, i64(extra))}
            self._invariant_component(output, loop, instances, known)
            starts.append(known)
        per_output = len(self._initial())
        step = 1 if self.row_major else self.plan.lane_count
        stop = self.count if self.row_major else self._round_up(self.count, step)
        with self.flow.loop(i64(0), stop, step, self._initial() * jam, name="product") as columns:
            shared: Known = {}
            for value, place in self._shared_places(columns.index):
                for instance in instances:
                    key = self.emitter.key(value, instance)
                    shared[value, key] = place(key)
                    if value.kind == "real":
                        shared[value, key] = self.flow.load(self.simd.type, place(key), 4)
            columns.next = []
            for extra in range(jam):
                local = {**shared, **starts[extra]}
                leaf = self._pair_leaf(columns.index)
                self.emitter.emit([output], instances, local, leaf, frozenset((loop,)))
                states = columns.values[extra * per_output : (extra + 1) * per_output]
                columns.next += self._step(0, states, instances, local, columns.index)
        for extra in range(jam):
            part = columns.results[extra * per_output : (extra + 1) * per_output]
            self._flush(self.state, self.builder.add(first, i64(extra)), part)

    def _invariant_component(
        self, output: Value, loop: Loop, instances: Sequence[Key], known: Known
    ) -> None:
        """What depends on the component and the row, but not on the column."""
        leaf = self._pair_leaf(i64(0))
        kernel = self.kernel
        for value in kernel.needed([output], PAIR):
            if value.kind == "index" or value.stage & COLUMN or not value.loops <= {loop}:
                continue
            if kernel.is_leaf(value, PAIR):
                self.emitter.emit([value], instances, known, leaf, frozenset((loop,)))

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

    def _task_function(self) -> ir.Function:
        """task(args, scratch, control, which): fold a panel of rows over a stretch of columns."""
        args, scratch, control, which = self._function("task", BYTES, BYTES, BYTES, I64)
        flow, b = self.flow, self.builder
        splits = flow.word(args, SPLITS)
        batch, first, count, split = self._task_parts(args, which, splits)
        self._pack_once(args, scratch, batch)
        self._pack_row_groups(args, scratch, batch, first, count)
        units = self._units(count)
        rows = flow.at(scratch, i64(self.layout.offset["rows"]))
        own = flow.at(scratch, i64(self.layout.offset["state"]))
        partial = flow.at(flow.pointer(args, PARTIALS), flow.times(which, self.layout.state_bytes))
        alone = b.icmp_signed("==", splits, i64(1))
        state = b.select(alone, own, partial)
        self._reset(state, units)
        start = b.mul(split, flow.word(args, COLUMNS_PER_SPLIT))
        stop = flow.minimum(
            b.add(start, flow.word(args, COLUMNS_PER_SPLIT)), flow.word(args, COLUMNS)
        )
        columns = flow.at(scratch, i64(self.layout.offset["columns"]))
        with flow.loop(start, stop, self.plan.block, name="blocks") as block:
            halt = b.load_atomic(flow.at(control, i64(8 * STOP)), "monotonic", 8, typ=I64)
            refused = flow.word(args, REFUSED)
            going = b.icmp_signed("==", b.or_(halt, refused), i64(0))
            with flow.when(going):
                width = flow.minimum(i64(self.plan.block), b.sub(stop, block.index))
                if self.pack_columns is not None:
                    b.call(self.pack_columns, [args, scratch, batch, block.index, width, columns])
                with flow.loop(i64(0), units, name="units") as unit:
                    where = self._unit_rows(rows, unit.index)
                    b.call(
                        self.unit,
                        [scratch, where, self._unit_state(state, unit.index), width],
                    )
        with flow.when(alone):
            b.call(self.finish_unit, [args, scratch, batch, first, count, state])
        b.ret_void()
        return self.module.get_global("task")

    def _combine_function(self) -> ir.Function:
        """combine_task(args, scratch, control, which): merge the splits of a panel, in order."""
        args, scratch, _, which = self._function("combine_task", BYTES, BYTES, BYTES, I64)
        flow, b = self.flow, self.builder
        batch, first, count, _ = self._task_parts(args, which, i64(1))
        splits = flow.word(args, SPLITS)
        self._pack_once(args, scratch, batch)
        if self.pack_rows is not None:
            self._pack_row_groups(args, scratch, batch, first, count)
        partials = flow.pointer(args, PARTIALS)
        panel = flow.at(partials, flow.times(b.mul(which, splits), self.layout.state_bytes))
        with flow.loop(i64(1), splits, name="splits") as split:
            other = flow.at(panel, flow.times(split.index, self.layout.state_bytes))
            with flow.loop(i64(0), self._units(count), name="units") as unit:
                self._merge_units(
                    self._unit_state(panel, unit.index), self._unit_state(other, unit.index)
                )
        b.call(self.finish_unit, [args, scratch, batch, first, count, panel])
        b.ret_void()
        return self.module.get_global("combine_task")

    def _entry(self, name: str, task: ir.Function) -> None:
        """While not stopped: take the next tasks off the counter and do them."""
        args, scratch, control = self._function(name, BYTES, BYTES, BYTES)
        b, flow = self.builder, self.flow
        again = b.append_basic_block("again")
        take = b.append_basic_block("take")
        work = b.append_basic_block("work")
        end = b.append_basic_block("end")
        b.branch(again)
        b.position_at_end(again)
        stop = b.load_atomic(flow.at(control, i64(8 * STOP)), "monotonic", 8, typ=I64)
        b.cbranch(b.icmp_signed("==", stop, i64(0)), take, end)
        b.position_at_end(take)
        chunk = flow.word(control, CHUNK)
        total = flow.word(control, TOTAL)
        first = b.atomic_rmw("add", flow.at(control, i64(8 * NEXT)), chunk, "monotonic")
        b.cbranch(b.icmp_signed("<", first, total), work, end)
        b.position_at_end(work)
        last = flow.minimum(b.add(first, chunk), total)
        with flow.loop(first, last, name="tasks") as tasks:
            b.call(task, [args, scratch, control, tasks.index])
        done = flow.at(control, i64(8 * DONE))
        b.atomic_rmw("add", done, b.sub(last, first), "monotonic")
        b.branch(again)
        b.position_at_end(end)
        b.ret_void()


def write_module(kernel: Kernel, plan: Plan, entry: str = "run") -> ir.Module:
    """The LLVM module of a kernel under a plan, with one entry point."""
    return Codegen(kernel, plan).write(entry)
