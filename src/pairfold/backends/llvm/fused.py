"""Fused tasks: reductions kept on rows and reductions kept on columns from one pass over the pairs.

Lanes hold rows. Their own states are folded as everywhere, in any form. States of columns are
numbers (`lower.fused` says which reductions may have them): those of the lanes are vectors in the
task's memory, one per column of the block and output, into which every tile of rows is folded; when
all tiles are through with the block, lanes are merged, in the wider dtype. Each task leaves its
states of rows and of columns; `combine` merges them in order, and finishes rows and columns.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Sequence
from typing import NamedTuple

from ...core.dtypes import DTYPES
from ...lower.kernel import COLUMN, ROW
from . import ir
from .abi import (
    ACROSS,
    COLUMNS,
    COLUMNS_PER_SPLIT,
    PARTIALS,
    ROW_BLOCKS,
    ROWS,
    ROWS_PER_TASK,
    SPLITS,
)
from .block import Block, Slots, open_block
from .context import Code, Context, Places
from .emitter import Key, Known, Leaf
from .empty import reset
from .flow import BYTES, I64, Carried, i64
from .forms import Forms
from .logits import Logits
from .loops import alike
from .masks import Mask
from .outputs import Outputs
from .packing import Packing
from .scratch import Run
from .shared import Shared
from .states import Form, Part, States, closed, finished
from .tasks import Task, parts_of, task_parts


class LaneStates:
    """The lanes' states of the columns of a block, in one function being written.

    Outputs are counted from the first that is kept on columns.
    """

    def __init__(self, code: Code, places: Places) -> None:
        self.code, self.across = code, code.kernel.across
        self.buffer = places["across"]
        runs = [States(code, run) for run in code.layout.column_runs]
        self.states = [states for states in runs for _ in range(states.run.places)]

    def clear(self, columns: ir.Value) -> None:
        """Those of so many columns that have met no rows."""
        with self.code.flow.loop(i64(0), columns, name="clear") as column:
            for output, states in enumerate(self.states):
                (empty,) = states.initial(1)
                self.code.flow.store(empty, self.address(column.index, output), 4)

    def address(self, column: ir.Value, output: int | ir.Value) -> ir.Value:
        """Where those of a column of the block and an output are kept."""
        flow, b = self.code.flow, self.code.builder
        place = flow.times(column, self.across)
        number = i64(output) if isinstance(output, int) else output
        item = DTYPES[self.code.plan.accumulation.inner].bytes
        shift = flow.times(b.add(place, number), self.code.plan.width * item)
        return flow.at(self.buffer, shift)

    def load(self, address: ir.Value) -> ir.Value:
        """A vector of them."""
        return self.code.flow.load(self.code.inner.type, address, 4)


class ColumnStates:
    """The states of columns that tasks leave, of a run of outputs, in one function being written.

    Those of an output lie `stride` bytes apart from those of the next; corrections of compensated
    sums lie between. Outputs `first` to `stop` are counted from the first that is kept on columns.
    """

    def __init__(self, code: Code, stride: ir.Value, run: Run) -> None:
        self.code, self.stride, self.states = code, stride, States(code, run)
        self.first, self.stop = (n - code.kernel.places for n in (run.first, run.stop))

    def clear(self, sums: ir.Value, columns: ir.Value) -> None:
        """Those of so many columns that have met no rows."""
        flow, outer, (empty,) = self.code.flow, self.code.outer, self.states.identity()
        none = outer.constant(0) if self.states.compensated else None
        with (
            flow.loop(i64(self.first), i64(self.stop), name="outputs") as output,
            flow.loop(i64(0), columns, self.code.plan.width, name="clear") as column,
        ):
            where = self.addresses(sums, column.index, output.index)
            self.store((outer.constant(empty), none), *where)

    def addresses(
        self, sums: ir.Value, column: ir.Value, output: ir.Value
    ) -> tuple[ir.Value, ir.Value]:
        """A task's states, from some column on, for an output, and their corrections if any."""
        flow, b, layout = self.code.flow, self.code.builder, self.code.layout
        start = b.mul(flow.times(output, layout.components), self.stride)
        high = flow.at(sums, b.add(start, flow.times(column, layout.outer_item)))
        return high, flow.at(high, self.stride)

    def load(self, high: ir.Value, low: ir.Value) -> Part:
        """A vector of states."""
        flow, outer = self.code.flow, self.code.outer
        correction = flow.load(outer.type, low, 8) if self.states.compensated else None
        return flow.load(outer.type, high, 8), correction

    def store(self, part: Part, high: ir.Value, low: ir.Value) -> None:
        """Keep a vector of states."""
        self.code.flow.store(part[0], high, 8)
        if part[1] is not None:
            self.code.flow.store(part[1], low, 8)

    def add(self, other: Part, high: ir.Value, low: ir.Value) -> None:
        """Merge a vector of states into those at these addresses."""
        (merged,) = self.states.merged([self.load(high, low)], [other])
        self.store(merged, high, low)


class FusedLoop:
    """The loop over a block that folds into states of rows, and into those of columns.

    Lanes from `valid` on repeat other rows: they change no states of columns.
    """

    def __init__(self, block: Block, form: Form, places: Places, valid: ir.Value) -> None:
        self.block, self.form, self.code, self.kernel = block, form, block.code, block.code.kernel
        self.shared, self.sums = Shared(block, places), LaneStates(block.code, places)
        self.logits = Logits(block, places, Mask(block, places)) if self.kernel.maxima else None
        self.valid = valid

    def fold(self) -> None:
        """Write the loop."""
        block, kernel, form, sums = self.block, self.kernel, self.form, self.sums
        masks = self._masks()
        known: Known = {}
        instances, logits = block.instances(), self.logits
        if logits is not None:
            logits.begin(known)
        self.shared.fill(dict(known), None if logits is None else logits.recall)
        block.invariant(kernel.outputs, instances, known)
        outputs = [(n, i64(n)) for n in range(kernel.places)]
        begin = form.begin(block, outputs)

        def body(columns: Carried, jam: int) -> None:
            local, at = dict(known), columns.index
            self.shared.recall(local, instances, at)
            if logits is not None:
                logits.recall(local, instances, at)
            where = [sums.address(at, n) for n in range(kernel.across)]
            added = [sums.load(address) for address in where]
            carried = alike(columns.values, begin)
            for instance, mask in zip(instances, masks, strict=True):
                block.emit(kernel.outputs, [instance], local, at)
                for n, output in enumerate(outputs):
                    carried[n] = form.step(block, output, carried[n], [instance], local, at)
                self._fold_across(added, instance, mask, local, at)
            columns.next = sum(carried, list[ir.Value]())
            for address, value in zip(where, added, strict=True):
                self.code.flow.store(value, address, 4)

        joined = block.columns(sum(begin, list[ir.Value]()), body)
        form.end(block, outputs, alike(joined, begin))

    def _fold_across(
        self, states: list[ir.Value], instance: Key, mask: ir.Value, local: Known, at: ir.Value
    ) -> None:
        """Fold the pairs of an instance into the lanes' states of columns."""
        b, vectors = self.code.builder, self.block.vectors
        for n, rule in enumerate(self.sums.states):
            number = self.kernel.places + n
            carried = [states[n]] * vectors
            after = rule.step(self.block, number, carried, [instance], local, at)[instance[1]]
            states[n] = b.select(mask, after, states[n])

    def _masks(self) -> list[ir.Value]:
        """For each vector of rows, which of its lanes are rows of their own."""
        code, b, plan = self.code, self.code.builder, self.code.plan
        word, lanes = ir.IntType(32), code.lane_numbers()
        left = b.trunc(code.flow.minimum(self.valid, i64(plan.lane_count)), word)
        starts = (ir.Constant(word, r * plan.width) for r in range(plan.vectors))
        return [b.icmp_signed("<", lanes, code.simd.splat(b.sub(left, s))) for s in starts]


class _Sizes(NamedTuple):
    """Bytes of a task's sums: of its rows, of its columns, and of one output's columns."""

    rows: ir.Value
    columns: ir.Value
    stride: ir.Value


class FusedTasks:
    """The functions of a module of fused sums, and the tasks that call them."""

    def __init__(self, context: Context, packing: Packing) -> None:
        self.context, self.kernel, self.plan = context, context.kernel, context.plan
        self.packing, self.forms = packing, Forms(context)

    def write(self) -> None:
        """Write all functions."""
        self.context.link(reset(self.context.format))
        self.tile = self._tile_function()
        self.gather = self._gather_function()
        self.finish_rows = self._finish_rows_function()
        self.finish_columns = self._finish_columns_function()
        self._run()
        self._combine()

    @property
    def _first(self) -> int:
        """The number of the first output that is folded across."""
        return self.kernel.places

    def _tile_function(self) -> ir.Function:
        """tile(scratch, rows, state, count, base, valid): fold a packed block into a tile of rows.

        The block begins with column number `base`. Lanes from `valid` on repeat other rows.
        """
        code = self.context.function("tile", BYTES, BYTES, BYTES, I64, I64, I64)
        scratch, *given, valid = code.given
        places = code.places(scratch)
        block = open_block(code, places, scratch, given)
        FusedLoop(block, self.forms.form(code, places), places, valid).fold()
        return code.done()

    def _gather_function(self) -> ir.Function:
        """gather(scratch, count, sums, stride): lanes merged, and joined to the task's states.

        Those of the lanes have met no rows afterwards.
        """
        code = self.context.function("gather", BYTES, I64, BYTES, I64)
        scratch, count, sums, stride = code.given
        flow, width = code.flow, self.plan.width
        lanes = LaneStates(code, code.places(scratch))
        with flow.loop(i64(0), count, width, name="columns") as column:
            for columns in self._columns(code, stride):
                states = columns.states
                (empty,) = states.initial(1)
                first, stop = i64(columns.first), i64(columns.stop)
                with flow.loop(first, stop, name="outputs") as output:
                    vectors: list[ir.Value] = []
                    for n in range(width):
                        place = lanes.address(code.builder.add(column.index, i64(n)), output.index)
                        vectors.append(code.to_outer(lanes.load(place)))
                        flow.store(empty, place, 4)
                    total = _lanes_merged(states, vectors)
                    where = columns.addresses(sums, column.index, output.index)
                    columns.add((total, None), *where)
        return code.done()

    def _columns(self, code: Code, stride: ir.Value) -> list[ColumnStates]:
        """The states of columns, run by run."""
        return [ColumnStates(code, stride, run) for run in code.layout.column_runs]

    # -- tasks ----------------------------------------------------------------------------------

    def _sizes(self, code: Code, args: ir.Value) -> _Sizes:
        flow, layout = code.flow, self.context.layout
        tiles = code.tiles(flow.word(args, ROWS_PER_TASK))
        stride = flow.times(flow.word(args, COLUMNS_PER_SPLIT), layout.outer_item)
        count = self.kernel.across * layout.components
        return _Sizes(flow.times(tiles, layout.tile_state), flow.times(stride, count), stride)

    def _columns_of(self, code: Code, args: ir.Value, split: ir.Value) -> tuple[ir.Value, ir.Value]:
        """(first column, the one after the last) of a split."""
        flow, b = code.flow, code.builder
        start = b.mul(split, flow.word(args, COLUMNS_PER_SPLIT))
        stop = b.add(start, flow.word(args, COLUMNS_PER_SPLIT))
        return start, flow.minimum(stop, flow.word(args, COLUMNS))

    def _run(self) -> ir.Function:
        """task(args, scratch, control, which): a block of rows and some columns."""
        code = self.context.slow_entry("task")
        args, scratch, _, which = code.given
        flow, b, lanes = code.flow, code.builder, self.plan.lane_count
        places = code.places(scratch)
        batch, first, count, split = task_parts(code, args, which, flow.word(args, SPLITS))
        start, stop = self._columns_of(code, args, split)
        sizes = self._sizes(code, args)
        state = flow.at(flow.pointer(args, PARTIALS), b.mul(which, sizes.rows))
        sums = flow.at(flow.pointer(args, ACROSS), b.mul(which, sizes.columns))
        task = Task(code, batch, parts_of(self.packing))
        task.once()
        task.reset(state, code.tiles(count))
        for columns in self._columns(code, sizes.stride):
            columns.clear(sums, flow.word(args, COLUMNS_PER_SPLIT))
        LaneStates(code, places).clear(i64(self.plan.block))
        with self._groups(code, count) as (group, here):
            task.rows(b.add(first, group), here)
            own = code.tile_state(state, code.tiles(group))
            tiles = code.tiles(here)

            def fold(columns: ir.Value, base: ir.Value) -> None:
                rows = code.part(scratch, "rows")
                with flow.loop(i64(0), tiles, name="tiles") as tile:
                    where = code.tile_rows(rows, tile.index), code.tile_state(own, tile.index)
                    done = flow.times(tile.index, lanes)
                    valid = b.sub(here, done)
                    if task.parts.pairs:
                        begin = flow.sum(first, group, done)
                        task.pairs((begin, flow.minimum(valid, i64(lanes))), (base, columns))
                    b.call(self.tile, [scratch, *where, columns, base, valid])
                shift = flow.times(b.sub(base, start), self.context.layout.outer_item)
                b.call(self.gather, [scratch, columns, flow.at(sums, shift), sizes.stride])

            task.columns(start, stop, fold)
        return code.done()

    @contextlib.contextmanager
    def _groups(
        self, code: Code, count: ir.Value
    ) -> Generator[tuple[ir.Value, ir.Value], None, None]:
        """The rows of a row block, as many at a time as are packed: (first, how many)."""
        step = self.plan.rows_per_task
        with code.flow.loop(i64(0), count, step, name="groups") as group:
            left = code.builder.sub(count, group.index)
            yield group.index, code.flow.minimum(i64(step), left)

    # -- merging and finishing ------------------------------------------------------------------

    def _combine(self) -> ir.Function:
        """combine_task(args, scratch, control, which): a block of rows, or some columns."""
        code = self.context.slow_entry("combine_task")
        args, _, _, which = code.given
        flow, b = code.flow, code.builder
        row_blocks, splits = flow.word(args, ROW_BLOCKS), flow.word(args, SPLITS)
        each = b.add(row_blocks, splits)
        batch, number = b.sdiv(which, each), b.srem(which, each)
        first_task = b.mul(b.mul(batch, row_blocks), splits)
        task = Task(code, batch, parts_of(self.packing))
        task.once()
        with flow.when(b.icmp_signed("<", number, row_blocks)):
            self._combine_rows(code, task, number, first_task)
        with flow.when(b.icmp_signed(">=", number, row_blocks)):
            split = b.sub(number, row_blocks)
            self._combine_columns(code, task, split, first_task)
        return code.done()

    def _combine_rows(
        self,
        code: Code,
        task: Task,
        row_block: ir.Value,
        first_task: ir.Value,
    ) -> None:
        """All splits of a row block; `first_task` is that of the batch element."""
        flow, b, batch = code.flow, code.builder, task.batch
        args, scratch = task.args, task.scratch
        which = b.add(b.mul(batch, flow.word(args, ROW_BLOCKS)), row_block)
        _, first, count, _ = task_parts(code, args, which, i64(1))
        sizes = self._sizes(code, args)
        number = b.add(first_task, b.mul(row_block, flow.word(args, SPLITS)))
        state = flow.at(flow.pointer(args, PARTIALS), b.mul(number, sizes.rows))
        with self._groups(code, count) as (group, here):
            start = b.add(first, group)
            if any(self.kernel.factors[: self._first]):
                task.rows(start, here)
            own = code.tile_state(state, code.tiles(group))
            b.call(self.finish_rows, [args, scratch, batch, start, here, own])

    def _finish_rows_function(self) -> ir.Function:
        """finish_rows(args, scratch, batch, first, count, state): states of rows to results.

        `state`: those of the first split.
        """
        code = self.context.function("finish_rows", BYTES, BYTES, I64, I64, I64, BYTES)
        args, scratch, batch, first, count, state = code.given
        flow, b, lanes = code.flow, code.builder, self.plan.lane_count
        places = code.places(scratch)
        form, outputs = self.forms.form(code, places), Outputs(code, args, scratch, places)
        sizes = self._sizes(code, args)
        with flow.loop(i64(0), code.tiles(count), name="tiles") as tile:
            slots = Slots(code, places["once"], code.tile_rows(places["rows"], tile.index))
            base = code.tile_state(state, tile.index)
            with flow.loop(i64(1), flow.word(args, SPLITS), name="splits") as split:
                form.merge(base, flow.at(base, b.mul(split.index, sizes.rows)))
            outputs.take(form, base, flow.word(args, COLUMNS), slots)
            start = flow.times(tile.index, lanes)
            here = flow.minimum(i64(lanes), b.sub(count, start))
            for number in self._results(ROW):
                outputs.write(batch, number, b.add(first, start), here)
        return code.done()

    def _combine_columns(
        self,
        code: Code,
        task: Task,
        split: ir.Value,
        first_task: ir.Value,
    ) -> None:
        """All row blocks of some columns; `first_task` is that of the batch element."""
        flow, b, block = code.flow, code.builder, self.plan.block
        args, scratch, batch = task.args, task.scratch, task.batch
        start, stop = self._columns_of(code, args, split)
        sizes = self._sizes(code, args)
        sums = flow.at(flow.pointer(args, ACROSS), b.mul(b.add(first_task, split), sizes.columns))
        with flow.loop(start, stop, block, name="blocks") as column:
            count = flow.minimum(i64(block), b.sub(stop, column.index))
            if any(self.kernel.factors[self._first :]):
                task.block_of_columns(column.index, count)
            shift = flow.times(b.sub(column.index, start), self.context.layout.outer_item)
            own = flow.at(sums, shift)
            b.call(self.finish_columns, [args, scratch, batch, column.index, count, own])

    def _finish_columns_function(self) -> ir.Function:
        """finish_columns(args, scratch, batch, first, count, sums): a block to results.

        `sums`: those of the first row block.
        """
        code = self.context.function("finish_columns", BYTES, BYTES, I64, I64, I64, BYTES)
        args, scratch, batch, first, count, sums = code.given
        flow, b, width = code.flow, code.builder, self.plan.width
        places = code.places(scratch)
        outputs = Outputs(code, args, scratch, places)
        sizes = self._sizes(code, args)
        apart = b.mul(flow.word(args, SPLITS), sizes.columns)
        with flow.loop(i64(0), count, width, name="columns") as column:
            leaf = _column_leaf(code, places, column.index)
            each = [(n, run) for run in self._columns(code, sizes.stride)
                    for n in range(run.first, run.stop)]  # fmt: skip
            for n, columns in each:
                high, low = columns.addresses(sums, column.index, i64(n))
                with flow.loop(i64(1), flow.word(args, ROW_BLOCKS), name="row_blocks") as row_block:
                    shift = b.mul(row_block.index, apart)
                    other = columns.load(flow.at(high, shift), flow.at(low, shift))
                    columns.add(other, high, low)
                state = closed(code.outer, *columns.load(high, low))
                state = outputs.times_factor(state, self._first + n, i64(0), leaf)
                self._finish(outputs, self._first + n, flow.word(args, ROWS), state)
            here = flow.minimum(i64(width), b.sub(count, column.index))
            for number in self._results(COLUMN):
                outputs.write(batch, number, b.add(first, column.index), here)
        return code.done()

    def _results(self, stage: int) -> list[int]:
        """The numbers of the results that are kept on rows, or on columns."""
        kept = self.kernel.kept_on(stage)
        return [each.result + n for each in kept for n in range(len(each.rule.results))]

    def _finish(self, outputs: Outputs, output: int, rows: ir.Value, state: ir.Value) -> None:
        """One vector of columns as components of their results, after so many rows."""
        owner = self.kernel.owner(output)
        for n, value in enumerate(finished(outputs.code, owner, rows, [state])):
            outputs.keep(owner.result + n, i64(output - owner.first), i64(0), value)


def _column_leaf(code: Code, places: Places, at: ir.Value) -> Leaf:
    """Reads slots of columns as vectors, from column `at` of the block on."""
    flow, b, item = code.flow, code.builder, code.item
    elsewhere = Slots(code, places["once"], places["rows"]).leaf(i64(0))

    def leaf(where: int, offset: int, index: ir.Value, key: Key) -> ir.Value:
        if where != COLUMN:
            return elsewhere(where, offset, index, key)
        slot = flow.times(b.add(i64(offset), index), code.plan.block * item)
        address = flow.at(places["columns"], b.add(slot, flow.times(at, item)))
        return flow.load(code.simd.type, address, 4)

    return leaf


def _lanes_merged(states: States, vectors: Sequence[ir.Value]) -> ir.Value:
    """Lane n is all lanes of vector n merged, for as many vectors as there are lanes.

    Two vectors are joined at a time: half of the lanes of what is merged belong to either.
    """
    b, word, width = states.builder, ir.IntType(32), states.plan.width
    current, bit = list(vectors), 1
    while len(current) > 1:
        joined: list[ir.Value] = []
        for even, odd in zip(current[::2], current[1::2], strict=True):
            parts: list[Part] = []
            for flip in (0, bit):
                lanes = [(n ^ flip) + (width if n & bit else 0) for n in range(width)]
                mask = ir.Constant(ir.VectorType(word, width), lanes)
                parts.append((b.shuffle_vector(even, odd, mask), None))
            ((merged, _),) = states.plainly_merged(parts[:1], parts[1:])
            joined.append(merged)
        current, bit = joined, 2 * bit
    return current[0]
