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

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from llvmlite import ir

from ..core.scalars import Loop, Value, reachable
from ..lower.kernel import COLUMN, PAIR, ROW
from ..lower.pattern import PANEL_WORDS
from ..lower.schedule import cells
from .emitter import Emitter, Key, Known, Leaf
from .flow import BYTES, I64, Carried, i64
from .results import Results
from .words import (
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


class Codegen(Results):
    """Writes the inner loops, the tasks and the entry points."""

    def write(self, entry: str) -> ir.Module:
        """The module with one of the entry points, `run` or `combine`."""
        refactored = any(factor is not None for factor in self.kernel.factors)
        if entry == "run":
            self._write_packing((ROW, COLUMN))
        else:
            self._write_packing((ROW,) if refactored else ())
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
        scratch, rows, state, count, base = self._function("unit", BYTES, BYTES, BYTES, I64, I64)
        self._enter(scratch)
        self.row_buffer, self.state, self.count, self.base = rows, state, count, base
        self.emitter = Emitter(self.kernel, self.plan, self.simd, self.flow, PAIR)
        self._equipped(self.emitter, scratch)
        self.iota = self._lane_numbers()
        self._fold_block()
        self.builder.ret_void()
        return self.module.get_global("unit")

    def _fold_block(self) -> None:
        if self.kernel.output_loop is None:
            self._fold_short()
        else:
            self._fold_long()

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
        return [(u, r) for u in range(jam) for r in range(self.vectors)]

    def _starting(self, places: Sequence[ir.Value]) -> list[ir.Value]:
        """What the loop over a block carries for components: states, or lists' last values."""
        if not self.kernel.reduction.listed:
            return self._initial() * len(places)
        vectors = range(self.vectors)
        return [self._limit(self.state, place, r) for place in places for r in vectors]

    def _carried(self) -> int:
        """Values carried per component."""
        return self.vectors if self.kernel.reduction.listed else len(self._initial())

    def _initial(self) -> list[ir.Value]:
        """The states that a block starts from."""
        return [
            self.inner.constant(value)
            for value in self._identity(self.plan.dtype)
            for _ in range(self.vectors)
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
        if kernel.anchors:
            self._fold_scores([i64(place) for place in range(len(kernel.scores))], {})
        self._holes(known, [i64(place) for place in range(kernel.anchors)])
        self._invariant(kernel.folded, self._instances(self.plan.jam), known)
        per_output = self._carried()
        places = [i64(place) for place in range(len(kernel.folded))]

        def body(columns: Carried, jam: int) -> None:
            instances = self._instances(jam)
            local = dict(known)
            self._recall_scores(local, instances, columns.index)
            self.emitter.emit(kernel.folded, instances, local, self._pair_leaf(columns.index))
            columns.next = list(columns.values)
            for place in range(len(kernel.folded)):
                start = place * per_output
                states = columns.next[start : start + per_output]
                columns.next[start : start + per_output] = self._step(
                    place, i64(place), states, instances, local, columns.index
                )

        self._flush_all(places, self._columns(self._starting(places), body))

    def _flush_all(self, places: Sequence[ir.Value], results: Sequence[ir.Value]) -> None:
        """Merge a block's accumulators, component after component, into the states."""
        if self.kernel.reduction.listed:
            return  # lists live in memory
        per_output = self._carried()
        for n, place in enumerate(places):
            part = results[n * per_output : (n + 1) * per_output]
            self._flush(self.state, place, part, self.base)

    def _step(
        self,
        number: int,
        place: ir.Value,
        states: Sequence[ir.Value],
        instances: Sequence[Key],
        local: Known,
        at: ir.Value,
    ) -> list[ir.Value]:
        """The states after the pairs of these instances. `states`: [state][vector].

        `number` is that of the output, `place` its component.
        """
        vectors = self.vectors
        current = list(states)
        emitter = Emitter(self.kernel, self.plan, self.inner, self.flow, PAIR)
        steps = self.kernel.steps[number]
        output = self.kernel.folded[number]
        for instance in instances:
            r = instance[1]
            value = local[output, self.emitter.key(output, instance)]
            if self.kernel.reduction.listed:
                column = self.builder.add(self.base, self._column_number(at, instance))
                if not self.row_major:
                    nothing = self.simd.constant(math.inf)
                    value = self.builder.select(self._valid(at, r), value, nothing)
                lists = self._list_address(self.state, place, r)
                current[r] = self._offer(current[r], lists, value, column)
                continue
            known: Known = {(output, emitter.key(output, instance)): self._to_inner(value)}
            for hole in (v for v in reachable(steps) if v.what == "hole"):
                name, part = hole.data
                if name == "column":
                    known[hole, instance] = self._column_vector(at, instance)
                elif name == "acc":
                    known[hole, instance] = current[part * vectors + r]
            emitter.emit(steps, [instance], known, self._inner_leaf(at), output.loops)
            for n, step in enumerate(steps):
                after = known[step, emitter.key(step, instance)]
                before = current[n * vectors + r]
                current[n * vectors + r] = self._only_valid(after, before, at, r)
        return current

    def _inner_leaf(self, at: ir.Value) -> Leaf:
        leaf = self._pair_leaf(at)
        return lambda *where: self._to_inner(leaf(*where))

    def _to_inner(self, value: ir.Value) -> ir.Value:
        if self.inner.type == value.type:
            return value
        return self.builder.fpext(value, self.inner.type)

    def _column_number(self, at: ir.Value, instance: Key) -> ir.Value:
        """The number of an instance's (first) column."""
        u, r = instance
        if self.row_major:
            return self._column(at, u)
        return self.builder.add(at, i64(r * self.plan.width))

    def _column_vector(self, at: ir.Value, instance: Key) -> ir.Value:
        """Numbers of columns, lane by lane, counted from the start of the block."""
        number = self.builder.sitofp(self._column_number(at, instance), self.inner.scalar)
        column = self.inner.splat(number)
        if self.row_major:
            return column
        return self.inner.add(column, self.inner.lanes(list(range(self.plan.width))))

    def _valid(self, at: ir.Value, r: int) -> ir.Value:
        """When lanes are columns: which of them lie within the block."""
        b = self.builder
        left = b.sub(self.count, b.add(at, i64(r * self.plan.width)))
        left = self.flow.minimum(left, i64(self.plan.width))
        bound = self.simd.splat(b.trunc(left, ir.IntType(32)))
        return b.icmp_signed("<", self.iota, bound)

    def _only_valid(self, after: ir.Value, before: ir.Value, at: ir.Value, r: int) -> ir.Value:
        """When lanes are columns, those past the end of the block change nothing."""
        if self.row_major:
            return after
        return self.builder.select(self._valid(at, r), after, before)

    # -- anchors ------------------------------------------------------------------------------

    def _score_place(self, number: int, at: ir.Value, instance: Key) -> ir.Value:
        """Where exponent `number` of one column (or vector of columns) is kept."""
        flow, b, plan, item = self.flow, self.builder, self.plan, self.item
        lanes = plan.lane_count if self.row_major else 1
        column = b.add(at, i64(instance[0])) if self.row_major else at
        shift = b.add(flow.times(column, lanes * item), i64(self._vector(instance)))
        start = i64(number * plan.block * lanes * item)
        return flow.at(self.places["scores"], b.add(start, shift))

    def _fold_scores(
        self, anchors: Sequence[ir.Value], given: Known, loops: frozenset[Loop] = frozenset()
    ) -> None:
        """The exponents of a block, and the anchors moved up to the largest of them.

        `given` is what is known beforehand, inside component loops `loops`; shared values are
        read where there are any.
        """
        vectors, scores = self.plan.vectors, self.kernel.scores
        known = dict(given)
        if not loops:
            self._invariant(scores, self._instances(self.plan.jam), known)
        lowest = self.simd.constant(self._lowest())

        def body(columns: Carried, jam: int) -> None:
            instances = self._instances(jam)
            local = dict(known)
            if loops:
                self._recall_shared(local, instances, columns.index)
            leaf = self._pair_leaf(columns.index)
            self.emitter.emit(scores, instances, local, leaf, loops)
            columns.next = list(columns.values)
            for n, score in enumerate(scores):
                for instance in instances:
                    value = local[score, self.emitter.key(score, instance)]
                    self.flow.store(value, self._score_place(n, columns.index, instance), 4)
                    place = n * vectors + instance[1]
                    before = columns.next[place]
                    larger = self.simd.select(self.simd.compare("<", before, value), value, before)
                    columns.next[place] = self._only_valid(
                        larger, before, columns.index, instance[1]
                    )

        largest = self._columns([lowest] * (len(scores) * vectors), body)
        for n, anchor in enumerate(anchors):
            part = largest[n * vectors : (n + 1) * vectors]
            self._raise_anchor(self.state, anchor, part)

    def _holes(self, known: Known, anchors: Sequence[ir.Value]) -> None:
        """The anchors of the block, for the terms that are measured from them."""
        holes = [v for v in reachable(self.kernel.folded) if v.what == "hole"]
        for hole in holes:
            for instance in self._instances(self.plan.jam):
                address = self._top_address(anchors[hole.data[1]], instance[1])
                known[hole, instance] = self.flow.load(self.simd.type, address, 4)

    def _recall_scores(self, local: Known, instances: Sequence[Key], at: ir.Value) -> None:
        for n, score in enumerate(self.kernel.scores):
            for instance in instances:
                where = self._score_place(n, at, instance)
                value = self.flow.load(self.simd.type, where, 4)
                local[score, self.emitter.key(score, instance)] = value

    # -- long outputs -------------------------------------------------------------------------

    def _fold_long(self) -> None:
        """Shared pair values to a buffer, then the components, a few at a time, as a product."""
        kernel, loop = self.kernel, self.kernel.output_loop
        assert loop is not None
        weighted = kernel.weight is not None
        if kernel.anchors and weighted:
            self._fold_scores([i64(0)], {})
        self._fill_shared(weighted)
        jam = min(self.plan.output_jam, loop.n)
        if kernel.reduction.listed or (kernel.anchors and not weighted):
            jam = 1
        whole = loop.n // jam * jam
        with self.flow.loop(i64(0), i64(whole), jam, name="outputs") as outputs:
            self._fold_components(outputs.index, jam)
        for rest in range(whole, loop.n):
            self._fold_components(i64(rest), 1)
        if kernel.total is not None:
            self._fold_total()

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

    def _fill_shared(self, weighted: bool) -> None:
        if not self.shared:
            return
        known: Known = {}
        if weighted:
            self._holes(known, [i64(0)])
        self._invariant(self.shared, self._instances(self.plan.jam), known)

        def body(columns: Carried, jam: int) -> None:
            instances = self._instances(jam)
            local = dict(known)
            if weighted:
                self._recall_scores(local, instances, columns.index)
            places = dict(self._shared_places(columns.index))
            self.emitter.emit(self.shared, instances, local, self._pair_leaf(columns.index))
            for value, place in places.items():
                keys = {self.emitter.key(value, instance) for instance in instances}
                for key in sorted(keys if value.kind == "real" else ()):
                    self.flow.store(local[value, key], place(key), 4)

        self._columns([], body)

    def _recall_shared(self, local: Known, instances: Sequence[Key], at: ir.Value) -> None:
        """Shared values as they were kept; of a table, its address."""
        for value, place in self._shared_places(at):
            for instance in instances:
                key = self.emitter.key(value, instance)
                local[value, key] = place(key)
                if value.kind == "real":
                    local[value, key] = self.flow.load(self.simd.type, place(key), 4)

    def _fold_components(self, first: ir.Value, jam: int) -> None:
        """Components first ... first+jam-1 of every pair of the block, then flush them."""
        kernel, loop = self.kernel, self.kernel.output_loop
        assert loop is not None
        output, instances = kernel.outputs[0], self._instances()
        inside = frozenset((loop,))
        places = [self.builder.add(first, i64(extra)) for extra in range(jam)]
        starts: list[Known] = []
        for place in places:
            known: Known = {(loop.index, (0, 0)): place}
            self._invariant_component([output, *kernel.scores], loop, instances, known)
            starts.append(known)
        own_anchor = kernel.anchors > 0 and kernel.weight is None
        if own_anchor:
            self._fold_scores(places, starts[0], inside)
            self._holes(starts[0], places)
        per_output = self._carried()
        step = 1 if self.row_major else self.plan.lane_count
        stop = self.count if self.row_major else self._round_up(self.count, step)
        starting = self._starting(places)
        with self.flow.loop(i64(0), stop, step, starting, name="product") as columns:
            shared: Known = {}
            self._recall_shared(shared, instances, columns.index)
            if own_anchor:
                self._recall_scores(shared, instances, columns.index)
            columns.next = []
            for extra in range(jam):
                local = {**shared, **starts[extra]}
                leaf = self._pair_leaf(columns.index)
                self.emitter.emit([output], instances, local, leaf, inside)
                states = columns.values[extra * per_output : (extra + 1) * per_output]
                columns.next += self._step(
                    0, places[extra], states, instances, local, columns.index
                )
        self._flush_all(places, columns.results)

    def _fold_total(self) -> None:
        """The terms without weights, read from the buffer of shared values."""
        total, instances = self.kernel.total, self._instances()
        assert total is not None
        step = 1 if self.row_major else self.plan.lane_count
        stop = self.count if self.row_major else self._round_up(self.count, step)
        with self.flow.loop(i64(0), stop, step, self._initial(), name="total") as columns:
            local: Known = {}
            self._recall_shared(local, instances, columns.index)
            columns.next = self._step(
                len(self.kernel.outputs), i64(0), columns.values, instances, local, columns.index
            )
        self._flush_all([i64(self.kernel.dim)], columns.results)

    def _invariant_component(
        self, targets: Sequence[Value], loop: Loop, instances: Sequence[Key], known: Known
    ) -> None:
        """What depends on the component and the row, but not on the column."""
        leaf = self._pair_leaf(i64(0))
        kernel = self.kernel
        for value in kernel.needed(targets, PAIR):
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
        self._pack_once(args, scratch, batch)
        self._pack_row_groups(args, scratch, batch, first, count)
        units = self._units(count)
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
        rows = flow.at(scratch, i64(self.layout.offset["rows"]))
        columns = flow.at(scratch, i64(self.layout.offset["columns"]))
        with flow.loop(start, stop, self.plan.block, name="blocks") as block:
            halt = b.load_atomic(flow.at(control, i64(8 * STOP)), "monotonic", 8, typ=I64)
            refused = flow.word(args, REFUSED)
            going = b.icmp_signed("==", b.or_(halt, refused), i64(0))
            with flow.when(going):
                width = flow.minimum(i64(self.plan.block), b.sub(stop, block.index))
                if self.pack_columns is not None:
                    b.call(self.pack_columns, [args, scratch, batch, block.index, width, columns])
                self._columns_packed(scratch, width)
                with flow.loop(i64(0), units, name="units") as unit:
                    where = self._unit_rows(rows, unit.index)
                    b.call(
                        self.unit,
                        [
                            scratch,
                            where,
                            self._unit_state(state, unit.index),
                            width,
                            block.index,
                        ],
                    )

    def _combine_function(self) -> ir.Function:
        """combine_task(args, scratch, control, which): merge the splits of a panel, in order."""
        args, scratch, _, which = self._function("combine_task", BYTES, BYTES, BYTES, I64)
        flow, b = self.flow, self.builder
        batch, first, count, _ = self._task_parts(args, which, i64(1))
        splits = flow.word(args, SPLITS)
        self._enter(scratch)
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
        columns = flow.word(args, COLUMNS)
        b.call(self.finish_unit, [args, scratch, batch, first, count, columns, panel])
        b.ret_void()
        return self.module.get_global("combine_task")

    def _entry_point(self, name: str, task: ir.Function) -> None:
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
