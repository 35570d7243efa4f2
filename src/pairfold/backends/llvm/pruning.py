"""Pruned tasks: extrema and lists of rows, of the blocks of columns that can hold any of them.

Rows and columns come in an order in which neighbours are near. `run` packs the columns, block after
block, and finds the box of each: the least and the largest number in every slot that pairs read.
`combine` takes tiles of rows. The bounds of a tile's box with those of groups of blocks, then of
single blocks, say which may hold a result; these are met from the best bound on, until no row of
the tile has a state that a bound could still beat. States know columns by their own numbers, and of
equal values the smallest number is selected, so that results are those of all pairs in order.
"""

from __future__ import annotations

import math

from ...core.scalars import Value
from ...lower.boxes import Boxes, boxes_of
from ...lower.kernel import COLUMN, ONCE, PAIR, ROW
from . import ir
from .abi import (
    AT_ONCE,
    BOXES,
    COLUMNS,
    EACH,
    FIRST_ROW,
    GROUPS,
    MANY,
    MET,
    MOST,
    ORDER_AT,
    ORDER_OF_COLUMNS,
    ORDER_OF_ROWS,
    PACKED_COLUMNS,
    STOP,
)
from .block import open_block
from .context import Code, Context
from .emitter import Known
from .empty import reset
from .flow import BYTES, I64, i64
from .forms import Forms
from .loops import block_loop
from .outputs import finish_function
from .packing import Packing
from .states import Running
from .tasks import Task, parts_of, task_parts
from .topk import TopK

_I32 = ir.IntType(32)


class PrunedTasks:
    """The functions of a module of a pruned fold, and the tasks that call them."""

    def __init__(self, context: Context, packing: Packing) -> None:
        self.context, self.kernel, self.plan = context, context.kernel, context.plan
        self.packing, self.forms, self.item = packing, Forms(context), context.item
        found = boxes_of(self.kernel, self.plan.dtype)
        assert found is not None
        self.boxes: Boxes = found
        self.falls = self.kernel.only.rule.identity[0] == "-inf"
        self.block_bytes = self.kernel.stages[COLUMN].size * self.plan.block * self.item

    def write(self) -> None:
        """Write all functions."""
        self.context.link(reset(self.context.format))
        finish_function(self.context, self.forms)
        self.tile = self._tile_function()
        self.bounds = self._bounds_function()
        self.push, self.pop = self._push_function(), self._pop_function()
        self.near, self.search = self._near_function(), self._search_function()
        self._run()
        self._combine()

    # -- packing --------------------------------------------------------------------------------

    def _run(self) -> ir.Function:
        """task(args, scratch, control, which): pack as many blocks as there are lanes."""
        code = self.context.slow_entry("task")
        args, _, _, which = code.given
        flow, b, plan = code.flow, code.builder, self.plan
        task = Task(code, i64(0), parts_of(self.packing))
        task.once()
        columns = flow.word(args, COLUMNS)
        blocks = b.sdiv(b.add(columns, i64(plan.block - 1)), i64(plan.block))
        boxes, stride = flow.pointer(args, BOXES), self._boxes(code, blocks)
        first = flow.times(which, plan.width)
        last = flow.minimum(b.add(first, i64(plan.width)), blocks)
        with flow.loop(first, last, name="blocks") as block:
            start = flow.times(block.index, plan.block)
            count = flow.minimum(i64(plan.block), b.sub(columns, start))
            to = flow.at(
                flow.pointer(args, PACKED_COLUMNS), flow.times(block.index, self.block_bytes)
            )
            task.block_of_columns(start, count, to)
            padded = code.round_up(count, plan.width)
            for n, slot in enumerate(self.boxes.slots[COLUMN]):
                ends = self._box(code, flow.at(to, i64(slot * plan.block * self.item)), padded)
                for place, end in enumerate(ends):
                    at = b.add(flow.times(stride, 2 * n + place), block.index)
                    flow.store(end, flow.at(boxes, flow.times(at, self.item)), self.item)
        return code.done()

    def _boxes(self, code: Code, blocks: ir.Value) -> ir.Value:
        """How many boxes there is room for, in whole vectors."""
        return code.round_up(blocks, self.plan.width)

    def _box(self, code: Code, start: ir.Value, lanes: ir.Value) -> tuple[ir.Value, ir.Value]:
        """The least and the largest of so many packed numbers; all, where there is NaN."""
        flow, b, simd = code.flow, code.builder, code.simd
        begin = [
            simd.constant(math.inf),
            simd.constant(-math.inf),
            ir.Constant(ir.VectorType(ir.IntType(1), simd.width), None),
        ]
        with flow.loop(i64(0), lanes, self.plan.width, begin, name="box") as lane:
            value = flow.load(simd.type, flow.at(start, flow.times(lane.index, self.item)), 4)
            low, high, nan = lane.values
            lane.next = [
                simd.lesser(value, low),
                simd.greater(value, high),
                simd.mask_or(nan, simd.isnan(value)),
            ]
        low, high, nan = lane.results
        unknown = simd.any(nan)
        found: list[ir.Value] = []
        for name, value, end in (("fmin", low, "-inf"), ("fmax", high, "inf")):
            full = f"llvm.vector.reduce.{name}.v{simd.width}f{simd.bits}"
            most = simd.intrinsic(full, simd.scalar, value)
            found.append(b.select(unknown, ir.Constant(simd.scalar, float(end)), most))
        return found[0], found[1]

    # -- bounds ---------------------------------------------------------------------------------

    def _bounds_function(self) -> ir.Function:
        """bounds(scratch, row, boxes, stride, at, out): of a row's box with a vector of boxes.

        `row`: the ends of its slots; `stride`: boxes there is room for. Least and largest possible
        values go to `out`, those of opposite numbers where the largest are wanted.
        """
        code = self.context.function("bounds", BYTES, BYTES, BYTES, I64, I64, BYTES)
        scratch, row, boxes, stride, at, out = code.given
        flow, b, simd, item = code.flow, code.builder, code.simd, self.item
        known: Known = {}
        once = code.part(scratch, "once")
        for slot in self.boxes.slots[ONCE]:
            (low, _) = self.boxes.ends[ONCE, slot]
            value = flow.load(simd.scalar, flow.at(once, i64(slot * item)), item)
            known[low, (0, 0)] = simd.splat(value)
        for n, slot in enumerate(self.boxes.slots[ROW]):
            for place, end in enumerate(self.boxes.ends[ROW, slot]):
                address = flow.at(row, i64((2 * n + place) * item))
                known[end, (0, 0)] = simd.splat(flow.load(simd.scalar, address, item))
        for n, slot in enumerate(self.boxes.slots[COLUMN]):
            for place, end in enumerate(self.boxes.ends[COLUMN, slot]):
                number = b.add(flow.times(stride, 2 * n + place), at)
                address = flow.at(boxes, flow.times(number, item))
                known[end, (0, 0)] = flow.load(simd.type, address, 4)
        targets: list[Value] = [self.boxes.low, self.boxes.high]
        emitter = code.rules(PAIR, simd)
        emitter.emit(targets, [(0, 0)], known, _no_slot)
        low, high = (known[target, emitter.key(target, (0, 0))] for target in targets)
        if self.falls:
            low, high = simd.neg(high), simd.neg(low)
        flow.store(low, out, 4)
        flow.store(high, flow.at(out, i64(simd.width * item)), 4)
        return code.done()

    # -- a heap of bounds -----------------------------------------------------------------------

    def _push_function(self) -> ir.Function:
        """push(heap, count, key): one more key, the smallest of all being the first."""
        code = self.context.function("push", BYTES, I64, I64)
        heap, count, key = code.given
        flow, b = code.flow, code.builder
        before, body = b.block, b.append_basic_block("up")
        move, done = b.append_basic_block("move"), b.append_basic_block("up.end")
        b.branch(body)
        b.position_at_end(body)
        place = b.phi(I64)
        place.add_incoming(count, before)
        above = b.ashr(b.sub(place, i64(1)), i64(1))
        look, test = b.append_basic_block("look"), b.block
        b.cbranch(b.icmp_signed(">", place, i64(0)), look, done)
        b.position_at_end(look)
        parent = flow.load(I64, flow.at(heap, flow.times(above, 8)), 8)
        b.cbranch(b.icmp_unsigned("<", key, parent), move, done)
        b.position_at_end(move)
        flow.store(parent, flow.at(heap, flow.times(place, 8)), 8)
        place.add_incoming(above, b.block)
        b.branch(body)
        b.position_at_end(done)
        del test
        flow.store(key, flow.at(heap, flow.times(place, 8)), 8)
        return code.done()

    def _pop_function(self) -> ir.Function:
        """pop(heap, count) -> the smallest key, which is taken off `count` of them."""
        code = self.context.function("pop", BYTES, I64, returns=I64)
        heap, count = code.given
        flow, b = code.flow, code.builder
        least = flow.word(heap, 0)
        left = b.sub(count, i64(1))
        key = flow.load(I64, flow.at(heap, flow.times(left, 8)), 8)
        before, body = b.block, b.append_basic_block("down")
        look, move = b.append_basic_block("look"), b.append_basic_block("move")
        done = b.append_basic_block("down.end")
        b.branch(body)
        b.position_at_end(body)
        place = b.phi(I64)
        place.add_incoming(i64(0), before)
        child = b.add(flow.times(place, 2), i64(1))
        b.cbranch(b.icmp_signed("<", child, left), look, done)
        b.position_at_end(look)
        # Beyond the last there is the key that is moved, or room for it.
        second = flow.minimum(b.add(child, i64(1)), b.sub(left, i64(1)))
        keys = [flow.load(I64, flow.at(heap, flow.times(each, 8)), 8) for each in (child, second)]
        less = b.icmp_unsigned("<", keys[1], keys[0])
        smaller, where = b.select(less, keys[1], keys[0]), b.select(less, second, child)
        b.cbranch(b.icmp_unsigned("<", smaller, key), move, done)
        b.position_at_end(move)
        flow.store(smaller, flow.at(heap, flow.times(place, 8)), 8)
        place.add_incoming(where, b.block)
        b.branch(body)
        b.position_at_end(done)
        flow.store(key, flow.at(heap, flow.times(place, 8)), 8)
        return code.done(least)

    # -- a tile ---------------------------------------------------------------------------------

    def _tile_function(self) -> ir.Function:
        """tile(scratch, columns, order, rows, state, count): fold a packed block into a tile."""
        code = self.context.function("tile", BYTES, BYTES, BYTES, BYTES, BYTES, I64)
        scratch, columns, order, *given = code.given
        flow, places = code.flow, {**code.places(scratch), "columns": columns}
        of_rows = flow.pointer(scratch, ORDER_AT)
        block = open_block(code, places, scratch, [*given, i64(0)])
        block = block._replace(order=order, rows=of_rows)
        form = self.forms.form(code, places)
        block_loop(block, form, places).fold()
        if isinstance(form, TopK):
            form.tidy(block.state)
        return code.done()

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
        return self._double(code, simd.intrinsic(name, simd.scalar, most))

    def _double(self, code: Code, value: ir.Value) -> ir.Value:
        wide = ir.DoubleType()
        return value if value.type == wide else code.builder.fpext(value, wide)

    def _row_boxes(self, code: Code, rows: ir.Value, tiles: ir.Value, row: ir.Value) -> None:
        """The boxes of tiles, and after them, that of all of them."""
        flow, b, simd, item = code.flow, code.builder, code.simd, self.item
        size = 2 * len(self.boxes.slots[ROW]) * item
        every = flow.at(row, flow.times(tiles, size))
        for n, slot in enumerate(self.boxes.slots[ROW]):
            shift = i64(slot * self.plan.row_group * item)
            ends = [ir.Constant(simd.scalar, end) for end in (math.inf, -math.inf)]
            with flow.loop(i64(0), tiles, 1, ends, name="tiles") as tile:
                start = flow.at(code.tile_rows(rows, tile.index), shift)
                found = self._box(code, start, i64(self.plan.lane_count))
                own = flow.at(row, b.add(flow.times(tile.index, size), i64(2 * n * item)))
                for place, end in enumerate(found):
                    flow.store(end, flow.at(own, i64(place * item)), item)
                low, high = tile.values
                tile.next = [
                    b.select(b.fcmp_ordered("<", found[0], low), found[0], low),
                    b.select(b.fcmp_ordered(">", found[1], high), found[1], high),
                ]
            for place, end in enumerate(tile.results):
                flow.store(end, flow.at(every, i64((2 * n + place) * item)), item)

    def _near_function(self) -> ir.Function:
        """near(args, scratch, tiles) -> how many groups of blocks may matter to a task's rows.

        Their numbers are listed; what values must not exceed goes to the place of limits.
        """
        code = self.context.function("near", BYTES, BYTES, I64, returns=I64)
        args, scratch, tiles = code.given
        flow, b, plan, simd, item = code.flow, code.builder, self.plan, code.simd, self.item
        memory, out = _Memory(self, code, args, scratch), code.part(scratch, "bounds")
        row = code.part(scratch, "row boxes")
        self._row_boxes(code, code.part(scratch, "rows"), tiles, row)
        every = flow.at(row, flow.times(tiles, 2 * len(self.boxes.slots[ROW]) * item))
        call = _Bounds(code, self.bounds, scratch, every, out)
        whole = b.sdiv(memory.full, i64(plan.width))
        none = simd.constant(math.inf)
        begin = [none, none, simd.splat(i64(0))]
        with flow.loop(i64(0), memory.groups, plan.width, begin, name="groups") as group:
            found, high = call.of(flow.pointer(args, GROUPS), memory.rooms, group.index)
            flow.store(found, flow.at(memory.lows, flow.times(group.index, item)), 4)
            limits, least, nearest = group.values
            numbers = b.add(simd.splat(group.index), self._lanes(code))
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
        with flow.loop(i64(0), memory.groups, 1, [i64(0)], name="near") as group:
            (count,) = group.values
            low = flow.at(memory.lows, flow.times(group.index, item))
            far = b.fcmp_ordered(">", flow.load(simd.scalar, low, item), limit)
            flow.store(group.index, flow.at(memory.listed, flow.times(count, 8)), 8)
            group.next = [b.select(far, count, b.add(count, i64(1)))]
        return code.done(group.results[0])

    def _search_function(self) -> ir.Function:
        """search(args, scratch, control, row, rows, state, near) -> how many blocks were met.

        `row`: the box of the tile; `near`: how many groups are listed.
        """
        kinds = (BYTES, BYTES, BYTES, BYTES, BYTES, BYTES, I64)
        code = self.context.function("search", *kinds, returns=I64)
        args, scratch, control, row, rows, state, near = code.given
        flow, plan, simd, item = code.flow, self.plan, code.simd, self.item
        memory, out = _Memory(self, code, args, scratch), code.part(scratch, "bounds")
        call = _Bounds(code, self.bounds, scratch, row, out)
        begin = [simd.splat(flow.load(simd.scalar, memory.limit, item))]
        begin += [simd.constant(math.inf), simd.splat(i64(0))]
        with flow.loop(i64(0), near, 1, begin, name="groups") as group:
            first = flow.times(memory.number(group.index), plan.width)
            low, high = call.of(flow.pointer(args, BOXES), memory.boxes, first)
            flow.store(low, memory.low(group.index), 4)
            limits, least, nearest = group.values
            nearer = simd.compare("<", low, least)
            group.next = [
                self._limited(code, limits, high, first, memory.full),
                simd.select(nearer, low, least),
                code.builder.select(nearer, simd.splat(group.index), nearest),
            ]
        limits, least, nearest = group.results
        limit = self._least(code, limits)
        counts = memory.count
        flow.store(i64(0), counts, 8)
        met, before = i64(0), i64(-1)
        if self.kernel.keep is not None:
            # Bounds do not tell how many pairs a mask leaves: the nearest group is met before.
            before = self._of_least(code, least, nearest)
            self._push_group(code, memory, before, limit)
            met = self._meet(code, flow.word(counts, 0), memory.heap, rows, state, control)
            limit = code.builder.fptrunc(self._worst(code, state), simd.scalar)
            flow.store(i64(0), counts, 8)
        with (
            flow.loop(i64(0), near, 1, name="near") as group,
            flow.when(code.builder.icmp_signed("!=", group.index, before)),
        ):
            self._push_group(code, memory, group.index, limit)
        count = flow.word(counts, 0)
        more = self._meet(code, count, memory.heap, rows, state, control)
        return code.done(code.builder.add(met, more))

    def _push_group(self, code: Code, memory: _Memory, place: ir.Value, limit: ir.Value) -> None:
        """Put the blocks of a listed group on the heap that may hold a result."""
        below = code.flow.load(code.simd.type, memory.low(place), 4)
        first = code.flow.times(memory.number(place), self.plan.width)
        heap = memory.heap, memory.count
        self._push_all(code, heap, below, limit, first, memory.blocks)

    def _lanes(self, code: Code) -> ir.Value:
        """0, 1, 2 ... lane by lane, in 64 bits."""
        return ir.Constant(ir.VectorType(I64, code.simd.width), range(code.simd.width))

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
        there = b.icmp_signed("<", self._lanes(code), simd.splat(left))
        return simd.lesser(simd.select(there, high, simd.constant(math.inf)), limits)

    def _least(self, code: Code, limits: ir.Value) -> ir.Value:
        name = f"llvm.vector.reduce.fmin.v{code.simd.width}f{code.simd.bits}"
        return code.simd.intrinsic(name, code.simd.scalar, limits)

    def _push_all(
        self,
        code: Code,
        heap: tuple[ir.Value, ir.Value],
        low: ir.Value,
        limit: ir.Value,
        first: ir.Value,
        blocks: ir.Value,
    ) -> None:
        """Put blocks on a heap (its address, and that of its count) that may hold a result."""
        flow, b, simd = code.flow, code.builder, code.simd
        far = simd.compare(">", low, simd.splat(limit))
        there = b.icmp_signed("<", self._lanes(code), simd.splat(b.sub(blocks, first)))
        near = simd.mask_and(simd.mask_not(far), there)
        keys = self._keys(code, low)
        values = flow.at(heap[1], i64(64))
        flow.store(keys, values, 8)
        bits = b.zext(b.bitcast(near, ir.IntType(simd.width)), I64)
        before, body = b.block, b.append_basic_block("push")
        take, done = b.append_basic_block("take"), b.append_basic_block("push.end")
        b.branch(body)
        b.position_at_end(body)
        left = b.phi(I64)
        left.add_incoming(bits, before)
        b.cbranch(b.icmp_signed("!=", left, i64(0)), take, done)
        b.position_at_end(take)
        lane = simd.intrinsic("llvm.cttz.i64", I64, left, ir.Constant(ir.IntType(1), 1))
        key = flow.load(I64, flow.at(values, flow.times(lane, 8)), 8)
        key = b.or_(key, b.add(first, lane))
        count = flow.word(heap[1], 0)
        b.call(self.push, [heap[0], count, key])
        flow.store(b.add(count, i64(1)), heap[1], 8)
        left.add_incoming(b.and_(left, b.sub(left, i64(1))), b.block)
        b.branch(body)
        b.position_at_end(done)

    def _keys(self, code: Code, low: ir.Value) -> ir.Value:
        """Bounds as the upper halves of integers in the same order, those that are NaN first."""
        b, simd = code.builder, code.simd
        low = simd.select(simd.isnan(low), simd.constant(-math.inf), low)
        if simd.bits == 64:
            low = b.fptrunc(low, ir.VectorType(ir.FloatType(), simd.width))
        words = ir.VectorType(_I32, simd.width)
        bits = b.bitcast(low, words)
        sign = ir.Constant(words, -(2**31))
        negative = b.icmp_signed("<", bits, ir.Constant(words, 0))
        ordered = b.select(negative, b.xor(bits, ir.Constant(words, -1)), b.xor(bits, sign))
        wide = ir.VectorType(I64, simd.width)
        return b.shl(b.zext(ordered, wide), ir.Constant(wide, 32))

    def _bound(self, code: Code, key: ir.Value) -> ir.Value:
        """A number that the bound of a key is surely not below: it was rounded to float32."""
        b, double = code.builder, ir.DoubleType()
        bits = b.trunc(b.lshr(key, i64(32)), _I32)
        sign = ir.Constant(_I32, -(2**31))
        positive = b.icmp_signed("<", bits, ir.Constant(_I32, 0))
        back = b.select(positive, b.xor(bits, sign), b.xor(bits, ir.Constant(_I32, -1)))
        value = b.fpext(b.bitcast(back, ir.FloatType()), double)
        name = "llvm.fabs.f64"
        size = code.simd.intrinsic(name, double, value)
        slack = b.fmul(size, ir.Constant(double, 2.0**-22))
        return b.fsub(value, b.fadd(slack, ir.Constant(double, 2.0**-140)))

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
        late = b.fcmp_ordered(">", self._bound(code, key), self._worst(code, state))
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

    # -- tasks ----------------------------------------------------------------------------------

    def _which(self, code: Code, which: ir.Value, each: ir.Value) -> ir.Value:
        """The row block of a task: each that many-th or, where that is below 0, all between."""
        b = code.builder
        between = b.add(b.add(which, b.sdiv(which, b.neg(each))), i64(1))
        return b.select(b.icmp_signed(">", each, i64(0)), b.mul(which, each), between)

    def _combine(self) -> ir.Function:
        """combine_task(args, scratch, control, which): a row block, over the blocks it needs."""
        code = self.context.slow_entry("combine_task")
        args, scratch, control, which = code.given
        flow, b = code.flow, code.builder
        which = self._which(code, which, flow.word(args, EACH))
        batch, first, count, _ = task_parts(code, args, which, i64(1))
        task = Task(code, batch, parts_of(self.packing))
        state, tiles = code.part(scratch, "state"), code.tiles(count)
        flow.store(first, flow.at(scratch, i64(8 * FIRST_ROW)), 8)
        order = flow.word(args, ORDER_OF_ROWS)
        flow.store(order, flow.at(scratch, i64(8 * ORDER_AT)), 8)
        task.once()
        task.reset(state, tiles)
        task.rows(first, count)
        rows, boxes = code.part(scratch, "rows"), code.part(scratch, "row boxes")
        size = 2 * len(self.boxes.slots[ROW]) * self.item
        near = b.call(self.near, [args, scratch, tiles])
        with flow.loop(i64(0), tiles, 1, [i64(0)], name="tiles") as tile:
            box = flow.at(boxes, flow.times(tile.index, size))
            where = box, code.tile_rows(rows, tile.index), code.tile_state(state, tile.index)
            met = b.call(self.search, [args, scratch, control, *where, near])
            tile.next = [b.add(tile.values[0], met)]
        b.atomic_rmw("add", flow.at(args, i64(8 * MET)), tile.results[0], "monotonic")
        finish = code.context.module.declared(
            "finish", ir.FunctionType(ir.VoidType(), (BYTES, BYTES, I64, I64, I64, I64, BYTES))
        )
        columns = flow.word(args, COLUMNS)
        b.call(finish, [args, scratch, batch, first, count, columns, state])
        return code.done()


class _Memory:
    """Sizes of a call, and a thread's own memory, in one function being written.

    `limit`: what values must not exceed; `listed`: numbers of groups; `lows`: bounds; `heap`:
    blocks to be met, `count` of them.
    """

    def __init__(self, tasks: PrunedTasks, code: Code, args: ir.Value, scratch: ir.Value) -> None:
        flow, b, plan, item = code.flow, code.builder, tasks.plan, tasks.item
        columns = flow.word(args, COLUMNS)
        self.blocks = b.sdiv(b.add(columns, i64(plan.block - 1)), i64(plan.block))
        self.boxes = code.round_up(self.blocks, plan.width)
        self.groups = b.sdiv(self.boxes, i64(plan.width))
        self.rooms = code.round_up(self.groups, plan.width)
        # Blocks that have all their columns: others bound nothing from above.
        self.full = b.sdiv(columns, i64(plan.block))
        out = code.part(scratch, "bounds")
        self.count = flow.at(out, i64(2 * plan.width * item))
        self.limit = flow.at(self.count, i64(8))
        self.heap = flow.at(scratch, i64(tasks.context.layout.total))
        self.listed = flow.at(self.heap, flow.times(self.boxes, 8))
        self.lows = flow.at(self.listed, flow.times(self.rooms, 8))
        self._flow, self._vector = flow, plan.width * item

    def number(self, place: ir.Value) -> ir.Value:
        """The number of a listed group."""
        return self._flow.load(I64, self._flow.at(self.listed, self._flow.times(place, 8)), 8)

    def low(self, place: ir.Value) -> ir.Value:
        """Where the bounds of a listed group's blocks are."""
        return self._flow.at(self.lows, self._flow.times(place, self._vector))


class _Bounds:
    """Calls of the function of bounds, in one function being written."""

    def __init__(
        self, code: Code, function: ir.Function, scratch: ir.Value, row: ir.Value, out: ir.Value
    ) -> None:
        self.code, self.function = code, function
        self.scratch, self.row, self.out = scratch, row, out

    def of(self, boxes: ir.Value, stride: ir.Value, first: ir.Value) -> tuple[ir.Value, ir.Value]:
        """The least and largest possible values, of the boxes from one on."""
        code = self.code
        flow, simd = code.flow, code.simd
        given = [self.scratch, self.row, boxes, stride, first, self.out]
        code.builder.call(self.function, given)
        high = flow.at(self.out, i64(simd.width * code.item))
        return flow.load(simd.type, self.out, 4), flow.load(simd.type, high, 4)


def _no_slot(where: int, offset: int, index: ir.Value, key: tuple[int, int]) -> ir.Value:
    raise AssertionError("bounds read nothing but boxes")
