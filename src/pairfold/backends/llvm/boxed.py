"""Tasks that know boxes: bounds of values say which blocks of columns a tile of rows meets.

Rows and columns come in an order in which neighbours are near. `run` packs the columns, block after
block, and finds the box of each: the least and the largest number in every slot that pairs read.
`combine` takes row blocks: what their tiles meet is said by those that know what is looked for, in
two functions, `near` of a row block and `search` of a tile.
"""

from __future__ import annotations

import math

from ...core.scalars import Value
from ...lower.boxes import Boxes, boxes_of
from ...lower.kernel import COLUMN, ONCE, PAIR, ROW
from . import ir
from .abi import (
    BOXES,
    COLUMNS,
    EACH,
    FIRST_ROW,
    MET,
    ORDER_AT,
    ORDER_OF_ROWS,
    PACKED_COLUMNS,
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
from .tasks import Task, parts_of, task_parts
from .topk import TopK

_I32 = ir.IntType(32)


class BoxedTasks:
    """The functions of a module, and the tasks that call them."""

    def __init__(self, context: Context, packing: Packing) -> None:
        self.context, self.kernel, self.plan = context, context.kernel, context.plan
        self.packing, self.forms, self.item = packing, Forms(context), context.item
        found = boxes_of(self.kernel, self.plan.dtype)
        assert found is not None
        self.boxes: Boxes = found
        self.falls = self.kernel.only.rule.identity[0] == "-inf"
        self.block_bytes = self.kernel.stages[COLUMN].size * self.plan.block * self.item
        self.near: ir.Function
        self.search: ir.Function

    def write(self) -> None:
        """Write all functions."""
        self.context.link(reset(self.context.format))
        finish_function(self.context, self.forms)
        self.tile = self._tile_function()
        self.bounds = self._bounds_function()
        self.push, self.pop = self._push_function(), self._pop_function()
        self.near, self.search = self.near_function(), self.search_function()
        self._run()
        self._combine()

    def near_function(self) -> ir.Function:
        """near(args, scratch, tiles) -> how many groups of blocks may matter to a row block."""
        raise NotImplementedError

    def search_function(self) -> ir.Function:
        """search(args, scratch, control, row, rows, state, near) -> how many blocks were met.

        `row`: the box of the tile; `near`: what the function of this name has found.
        """
        raise NotImplementedError

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
        """The least and the largest of so many packed numbers; all, where there is NaN.

        Selections pass NaN over, sums do not: of numbers that are not finite their bounds know
        nothing, which NaN says.
        """
        selects = self.kernel.only.rule.selects
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
                simd.mask_or(nan, simd.isnan(value if selects else simd.sub(value, value))),
            ]
        low, high, nan = lane.results
        unknown = simd.any(nan)
        found: list[ir.Value] = []
        for name, value, end in (("fmin", low, "-inf"), ("fmax", high, "inf")):
            full = f"llvm.vector.reduce.{name}.v{simd.width}f{simd.bits}"
            most = simd.intrinsic(full, simd.scalar, value)
            all_of_them = ir.Constant(simd.scalar, float(end) if selects else math.nan)
            found.append(b.select(unknown, all_of_them, most))
        return found[0], found[1]

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

    def _beyond(self, code: Code, op: str, end: ir.Value, so_far: ir.Value) -> ir.Value:
        """Whether an end lies beyond that of other boxes, or is NaN."""
        b = code.builder
        return b.or_(b.fcmp_ordered(op, end, so_far), b.fcmp_unordered("uno", end, end))

    def row_boxes(self, code: Code, rows: ir.Value, tiles: ir.Value, row: ir.Value) -> None:
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
                    b.select(self._beyond(code, op, end, so_far), end, so_far)
                    for op, end, so_far in zip("<>", found, (low, high), strict=True)
                ]
            for place, end in enumerate(tile.results):
                flow.store(end, flow.at(every, i64((2 * n + place) * item)), item)

    def lanes(self, code: Code) -> ir.Value:
        """0, 1, 2 ... lane by lane, in 64 bits."""
        return ir.Constant(ir.VectorType(I64, code.simd.width), range(code.simd.width))

    def push_all(
        self,
        code: Code,
        heap: tuple[ir.Value, ir.Value],
        low: ir.Value,
        limit: ir.Value,
        first: ir.Value,
        blocks: ir.Value,
        mark: int = 0,
    ) -> None:
        """Put blocks on a heap (its address, and that of its count) that may hold a result.

        `mark` is added to their numbers.
        """
        flow, b, simd = code.flow, code.builder, code.simd
        far = simd.compare(">", low, simd.splat(limit))
        there = b.icmp_signed("<", self.lanes(code), simd.splat(b.sub(blocks, first)))
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
        key = b.or_(key, b.add(b.add(first, lane), i64(mark)))
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

    def bound(self, code: Code, key: ir.Value) -> ir.Value:
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

    def double(self, code: Code, value: ir.Value) -> ir.Value:
        """A number in float64."""
        wide = ir.DoubleType()
        return value if value.type == wide else code.builder.fpext(value, wide)

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


class Memory:
    """Sizes of a call, and a thread's own memory, in one function being written.

    `limit`: what values must not exceed; `listed`: numbers of groups; `lows`: their bounds;
    `close`: their boxes; `heap`: blocks to be met, `count` of them.
    """

    def __init__(self, tasks: BoxedTasks, code: Code, args: ir.Value, scratch: ir.Value) -> None:
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
        self.close = flow.at(self.lows, flow.times(self.rooms, item))
        self._flow = flow

    def number(self, place: ir.Value) -> ir.Value:
        """The number of a listed group."""
        return self._flow.load(I64, self._flow.at(self.listed, self._flow.times(place, 8)), 8)


class Bounds:
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
