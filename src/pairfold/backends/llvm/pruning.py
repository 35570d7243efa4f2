"""Searches for extrema and lists of rows: the blocks of columns that can hold any of them are met.

The bounds of a tile's box with those of groups of blocks, then of single blocks, say which may hold
a result. Those of the nearest group come first, since what they leave in the states of rows rules
out most others; then what is left is met from the best bound on, until no row of the tile has a
state that a bound could still beat. States know columns by their own numbers, and of equal values
the smallest number is selected, so that results are those of all pairs in order.
"""

from __future__ import annotations

import math

from ...lower.kernel import COLUMN, ROW
from . import ir
from .abi import (
    AT_ONCE,
    BOXES,
    COLUMNS,
    GROUPS,
    MANY,
    MOST,
    ORDER_OF_COLUMNS,
    PACKED_COLUMNS,
    STOP,
)
from .boxed import Bounds, BoxedTasks, Memory
from .context import Code
from .flow import BYTES, I64, i64
from .states import Running
from .topk import TopK

_I32 = ir.IntType(32)


class PrunedTasks(BoxedTasks):
    """The functions of a module of a search, and the tasks that call them."""

    def _worst(self, code: Code, state: ir.Value) -> ir.Value:
        """What no row of a tile has yet; the opposite number where the largest are wanted."""
        form, simd = self.forms.form(code), code.outer
        vectors: list[ir.Value] = []
        for r in range(self.plan.vectors):
            if isinstance(form, TopK):
                vectors.append(code.to_outer(form.last(state, r)))
            else:
                assert isinstance(form, Running)
                vectors.append(form.states.load(state, i64(form.first), r)[0][0])
        if self.falls:
            vectors = [simd.neg(vector) for vector in vectors]
        most = vectors[0]
        for vector in vectors[1:]:
            most = simd.greater(most, vector)
        name = f"llvm.vector.reduce.fmax.v{simd.width}f{simd.bits}"
        return self.double(code, simd.intrinsic(name, simd.scalar, most))

    def near_function(self) -> ir.Function:
        """near(args, scratch, tiles) -> how many groups of blocks may matter to a task's rows.

        Their numbers are listed; what values must not exceed goes to the place of limits.
        """
        code = self.context.function("near", BYTES, BYTES, I64, returns=I64)
        args, scratch, tiles = code.given
        flow, b, plan, simd, item = code.flow, code.builder, self.plan, code.simd, self.item
        memory, out = Memory(self, code, args, scratch), code.part(scratch, "bounds")
        row = code.part(scratch, "row boxes")
        self.row_boxes(code, code.part(scratch, "rows"), tiles, row)
        every = flow.at(row, flow.times(tiles, 2 * len(self.boxes.slots[ROW]) * item))
        call = Bounds(code, self.bounds, scratch, every, out)
        whole = b.sdiv(memory.full, i64(plan.width))
        none = simd.constant(math.inf)
        begin = [none, none, simd.splat(i64(0))]
        with flow.loop(i64(0), memory.groups, plan.width, begin, name="groups") as group:
            found, high = call.of(flow.pointer(args, GROUPS), memory.rooms, group.index)
            flow.store(found, flow.at(memory.lows, flow.times(group.index, item)), 4)
            limits, least, nearest = group.values
            numbers = b.add(simd.splat(group.index), self.lanes(code))
            there = b.icmp_signed("<", numbers, simd.splat(memory.groups))
            nearer = simd.mask_and(simd.compare("<", found, least), there)
            group.next = [
                self._limited(code, limits, high, group.index, whole),
                simd.select(nearer, found, least),
                b.select(nearer, numbers, nearest),
            ]
        limits, least, nearest = group.results
        # Blocks of the nearest group say best how near others must be.
        first = flow.times(self._of_least(code, least, nearest), plan.width)
        _, high = call.of(flow.pointer(args, BOXES), memory.boxes, first)
        limits = self._limited(code, limits, high, first, memory.full)
        limit = self._least(code, limits)
        flow.store(limit, memory.limit, item)
        flow.store(i64(0), memory.count, 8)
        with flow.loop(i64(0), memory.groups, 1, name="near") as group:
            low = flow.load(simd.scalar, flow.at(memory.lows, flow.times(group.index, item)), item)
            far = b.fcmp_ordered(">", low, limit)
            with flow.when(b.not_(far)):
                self._list(code, memory, group.index)
        return code.done(flow.word(memory.count, 0))

    def _list(self, code: Code, memory: Memory, number: ir.Value) -> None:
        """One more group that may matter to a task: its number, and its box beside the others'."""
        flow, b, simd, item = code.flow, code.builder, code.simd, self.item
        boxes, count = flow.pointer(code.given[0], GROUPS), flow.word(memory.count, 0)
        flow.store(number, flow.at(memory.listed, flow.times(count, 8)), 8)
        for end in range(2 * len(self.boxes.slots[COLUMN])):
            start = flow.times(memory.rooms, end)
            own, to = (flow.times(b.add(start, each), item) for each in (number, count))
            value = flow.load(simd.scalar, flow.at(boxes, own), item)
            flow.store(value, flow.at(memory.close, to), item)
        flow.store(b.add(count, i64(1)), memory.count, 8)

    def search_function(self) -> ir.Function:
        """search(args, scratch, control, row, rows, state, near) -> how many blocks were met.

        `row`: the box of the tile; `near`: how many groups are listed.
        """
        kinds = (BYTES, BYTES, BYTES, BYTES, BYTES, BYTES, I64)
        code = self.context.function("search", *kinds, returns=I64)
        args, scratch, control, row, rows, state, near = code.given
        flow, b, plan, simd, item = code.flow, code.builder, self.plan, code.simd, self.item
        memory, out = Memory(self, code, args, scratch), code.part(scratch, "bounds")
        call = Bounds(code, self.bounds, scratch, row, out)
        # The last group may lack columns: it bounds nothing from above.
        whole = b.sub(near, b.zext(b.icmp_signed("<", memory.full, memory.boxes), I64))
        begin = [simd.splat(flow.load(simd.scalar, memory.limit, item))]
        begin += [simd.constant(math.inf), simd.splat(i64(0))]
        with flow.loop(i64(0), near, plan.width, begin, name="groups") as group:
            low, high = call.of(memory.close, memory.rooms, group.index)
            flow.store(low, flow.at(memory.lows, flow.times(group.index, item)), 4)
            limits, least, nearest = group.values
            numbers = b.add(simd.splat(group.index), self.lanes(code))
            there = b.icmp_signed("<", numbers, simd.splat(near))
            nearer = simd.mask_and(simd.compare("<", high, least), there)
            group.next = [
                self._limited(code, limits, high, group.index, whole),
                simd.select(nearer, high, least),
                b.select(nearer, numbers, nearest),
            ]
        limits, least, nearest = group.results
        limit = self._least(code, limits)
        # Once the nearest group is met, states say better than bounds how near others must be.
        flow.store(i64(0), memory.count, 8)
        before = self._of_least(code, least, nearest)
        with flow.when(b.icmp_signed(">", near, i64(0))):
            self._push_group(code, memory, call, before, limits)
        count = flow.word(memory.count, 0)
        met = self._meet(code, count, memory.heap, rows, state, control)
        worst = b.fptrunc(self._worst(code, state), simd.scalar)
        limit = b.select(b.fcmp_ordered("<", worst, limit), worst, limit)
        flow.store(i64(0), memory.count, 8)
        with flow.loop(i64(0), near, 1, name="near") as group:
            low = flow.load(simd.scalar, flow.at(memory.lows, flow.times(group.index, item)), item)
            other = b.icmp_signed("!=", group.index, before)
            far = b.fcmp_ordered(">", low, limit)
            with flow.when(b.and_(other, b.not_(far))):
                self._push_group(code, memory, call, group.index, simd.splat(limit))
        count = flow.word(memory.count, 0)
        more = self._meet(code, count, memory.heap, rows, state, control)
        return code.done(b.add(met, more))

    def _push_group(
        self, code: Code, memory: Memory, call: Bounds, place: ir.Value, limits: ir.Value
    ) -> None:
        """Put the blocks of a listed group on the heap that may hold a result."""
        first = code.flow.times(memory.number(place), self.plan.width)
        low, high = call.of(code.flow.pointer(code.given[0], BOXES), memory.boxes, first)
        limit = self._least(code, self._limited(code, limits, high, first, memory.full))
        heap = memory.heap, memory.count
        self.push_all(code, heap, low, limit, first, memory.blocks)

    def _of_least(self, code: Code, least: ir.Value, numbers: ir.Value) -> ir.Value:
        """The number in a lane that has the smallest value."""
        b, simd = code.builder, code.simd
        same = simd.compare("==", least, simd.splat(self._least(code, least)))
        name = f"llvm.vector.reduce.smax.v{simd.width}i64"
        none = ir.Constant(ir.VectorType(I64, simd.width), 0)
        return simd.intrinsic(name, I64, b.select(same, numbers, none))

    def _limited(
        self, code: Code, limits: ir.Value, high: ir.Value, first: ir.Value, whole: ir.Value
    ) -> ir.Value:
        """The smaller ones of limits and largest possible values, of boxes that have enough."""
        if self.kernel.only.folded.length > self.plan.block or self.kernel.keep is not None:
            return limits
        b, simd = code.builder, code.simd
        left = code.flow.minimum(b.sub(whole, first), i64(self.plan.width))
        there = b.icmp_signed("<", self.lanes(code), simd.splat(left))
        return simd.lesser(simd.select(there, high, simd.constant(math.inf)), limits)

    def _least(self, code: Code, limits: ir.Value) -> ir.Value:
        name = f"llvm.vector.reduce.fmin.v{code.simd.width}f{code.simd.bits}"
        return code.simd.intrinsic(name, code.simd.scalar, limits)

    def _meet(
        self,
        code: Code,
        count: ir.Value,
        heap: ir.Value,
        rows: ir.Value,
        state: ir.Value,
        control: ir.Value,
    ) -> ir.Value:
        """Fold the blocks of a heap, the best first, until none can change a state; how many."""
        args, scratch = code.given[:2]
        flow, b, plan = code.flow, code.builder, self.plan
        columns = flow.word(args, COLUMNS)
        before, body = b.block, b.append_basic_block("meet")
        look, fold = b.append_basic_block("look"), b.append_basic_block("fold")
        done = b.append_basic_block("meet.end")
        b.branch(body)
        b.position_at_end(body)
        left, met = b.phi(I64), b.phi(I64)
        left.add_incoming(count, before)
        met.add_incoming(i64(0), before)
        halt = b.load_atomic(flow.at(control, i64(8 * STOP)), "monotonic", 8, I64)
        going = b.icmp_signed("==", b.and_(halt, i64(AT_ONCE)), i64(0))
        going = b.and_(going, b.icmp_signed("<=", met, flow.word(args, MOST)))
        going = b.and_(going, b.icmp_signed(">", left, i64(0)))
        b.cbranch(going, look, done)
        b.position_at_end(look)
        key = b.call(self.pop, [heap, left])
        late = b.fcmp_ordered(">", self.bound(code, key), self._worst(code, state))
        b.cbranch(late, done, fold)
        b.position_at_end(fold)
        number = b.and_(key, i64(0xFFFFFFFF))
        start = flow.times(number, plan.block)
        packed = flow.at(flow.pointer(args, PACKED_COLUMNS), flow.times(number, self.block_bytes))
        order = flow.at(flow.pointer(args, ORDER_OF_COLUMNS), flow.times(start, 4))
        here = flow.minimum(i64(plan.block), b.sub(columns, start))
        b.call(self.tile, [scratch, packed, order, rows, state, here])
        left.add_incoming(b.sub(left, i64(1)), b.block)
        met.add_incoming(b.add(met, i64(1)), b.block)
        b.branch(body)
        b.position_at_end(done)
        return b.select(b.icmp_signed(">", met, flow.word(args, MOST)), i64(MANY), met)
