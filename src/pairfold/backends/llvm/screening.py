"""The nearest columns of each row, most pairs being decided by a bound and not evaluated.

Rows and columns of a task are rounded to short integers on a grid of width s around its rows, and
clamped to its range. Clamping brings no two points farther apart, so

    |x - y| >= s |X - Y| - |rounding of x| - |rounding of y|,

where |X - Y|^2 = |X|^2 + |Y|^2 - 2 X.Y is exact. A pair whose bound is not below the largest value
that still counts is left out; all others are evaluated by the very instructions of an unscreened
fold, in its order, so the results are the same, bit for bit. What the bound says is right for any
data; infinities, NaN, outliers and clusters far apart only make it decide less. Where it decides
too little, a few blocks go without.

Errors are in units of s; sums of them are rounded up.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ...lower.distance import Distance
from . import ir
from .block import Block
from .context import Code, Context, Places
from .emitter import Known
from .flow import I64, i64
from .loops import alike
from .shorts import I32, Product, product
from .states import Form

_UNIT = {"float32": 2.0**-24, "float64": 2.0**-53}
# Grids are no finer than this, and squares below it may have lost digits.
_FINEST = {"float32": 2.0**100, "float64": 2.0**900}
_TINY = {"float32": 2.0**-126, "float64": 2.0**-960}
_LARGEST = {
    "float32": float.fromhex("0x1.fffffep127"),
    "float64": float.fromhex("0x1.fffffffffffffp1023"),
}
_FAR = float(2**30)
_COLUMNS = 4
_REST = 4


@dataclass
class _Sums:
    """Of one vector of points: |X|^2, the sum of X, errors within the range and with the rest."""

    norm: ir.Value
    sum: ir.Value
    rounding: ir.Value
    whole: ir.Value


class _Memory:
    """The parts of a screen's memory, in one function being written."""

    def __init__(self, code: Code, places: Places, distance: Distance) -> None:
        self.code, self.plan, self.places, self.distance = code, code.plan, places, distance
        self.flow, self.builder = code.flow, code.builder
        self.simd, self.item = code.simd, code.item
        self.product: Product = product(code.plan, distance)

    def integers(self, value: int) -> ir.Value:
        """A vector of words, every lane equal to `value`."""
        return self.simd.splat(ir.Constant(I32, value))

    def part(self, rows: ir.Value, name: str, place: ir.Value, item: int) -> ir.Value:
        """The address of entry `place` of a part of a tile's screen."""
        start = self.flow.at(rows, i64(self.code.layout.screen.row[name]))
        return self.flow.at(start, self.flow.times(place, item))

    def scalar(self, name: str, place: ir.Value | None = None) -> ir.Value:
        """One number of a part of scratch memory."""
        shift = self.flow.times(i64(0) if place is None else place, self.item)
        address = self.flow.at(self.places[name], shift)
        return self.flow.load(self.simd.scalar, address, self.item)

    def across_lanes(self, name: str, value: ir.Value) -> ir.Value:
        """The smallest or largest lane."""
        full = f"llvm.vector.reduce.{name}.v{self.simd.width}f{self.simd.bits}"
        return self.simd.intrinsic(full, self.simd.scalar, value)


class _Grid:
    """Rounds packed points to words, in one function being written."""

    def __init__(self, memory: _Memory) -> None:
        self.memory, self.code, self.places = memory, memory.code, memory.places
        self.plan, self.distance, self.product = memory.plan, memory.distance, memory.product
        self.flow, self.builder, self.simd = memory.flow, memory.builder, memory.simd
        self.item = memory.item

    def rows(self, tiles: ir.Value) -> None:
        """The grid of a task, and its rows on it."""
        flow, lanes, item, part = self.flow, self.plan.lane_count, self.item, self.memory.part
        self._choose(tiles)
        slots = i64(self.distance.row * lanes * item)
        with flow.loop(i64(0), tiles, name="tiles") as tile:
            rows = self.code.tile_rows(self.places["rows"], tile.index)
            with flow.loop(i64(0), i64(self.plan.vectors), name="vectors") as r:
                lane = flow.times(r.index, self.plan.width)
                start = flow.at(flow.at(rows, slots), flow.times(lane, item))
                words = part(rows, "words", lane, 4)
                sums = self._rounded(start, words, lanes, self.product.offset)
                flow.store(sums.norm, part(rows, "norm", lane, 4), 4)
                for name, error in (("rounding", sums.rounding), ("whole", sums.whole)):
                    flow.store(error, part(rows, name, lane, item), 4)
            # The first blocks of a list are all evaluated.
            longest = max((each.folded.length for each in self.code.kernel.lists), default=0)
            first = -(-2 * longest // self.plan.block)
            flow.store(i64(first), part(rows, "rest", i64(0), 8), 8)

    def columns(self, count: ir.Value) -> None:
        """A packed block of columns on the grid."""
        flow, b, simd, item, block = self.flow, self.builder, self.simd, self.item, self.plan.block
        integers = self.memory.integers
        slots = flow.at(self.places["columns"], i64(self.distance.column * block * item))
        stop = self.code.round_up(count, self.plan.width)
        zero = simd.constant(0)
        with flow.loop(i64(0), stop, self.plan.width, [zero, zero], name="points") as lane:
            start = flow.at(slots, flow.times(lane.index, item))
            words = flow.at(self.places["screen words"], flow.times(lane.index, 4))
            sums = self._rounded(start, words, block, 0)
            # X.Y - |Y|^2/2, without what the offset of X adds, starts from here.
            half = b.ashr(sums.norm, integers(1))
            raised = b.mul(sums.sum, integers(self.product.offset))
            begin = b.neg(b.add(half, raised))
            flow.store(begin, flow.at(self.places["screen starts"], flow.times(lane.index, 4)), 4)
            new = (sums.rounding, sums.whole)
            lane.next = [simd.greater(x, y) for x, y in zip(new, lane.values, strict=True)]
        for place, error in enumerate(lane.results):
            most = self.memory.across_lanes("fmax", error)
            flow.store(most, flow.at(self.places["screen errors"], i64(place * item)), item)

    def _choose(self, tiles: ir.Value) -> None:
        """Centre: the middle of the rows' range, component by component; width: from the largest.

        Numbers that are not finite have no part in it.
        """
        flow, b, simd, item = self.flow, self.builder, self.simd, self.item
        largest = _LARGEST[self.plan.dtype]
        lanes, half = self.plan.lane_count, simd.constant(0.5)
        zero = ir.Constant(simd.scalar, 0.0)
        start = flow.at(self.places["rows"], i64(self.distance.row * lanes * item))
        with flow.loop(i64(0), i64(self.distance.dim), carried=[zero], name="ranges") as k:
            ends = [simd.constant(largest), simd.constant(-largest)]
            with flow.loop(i64(0), tiles, carried=ends, name="tiles") as tile:
                row = self.code.tile_rows(start, tile.index)
                row = flow.at(row, flow.times(k.index, lanes * item))
                low, high = tile.values
                for r in range(self.plan.vectors):
                    value = flow.load(simd.type, flow.at(row, i64(self.code.vector((0, r)))), 4)
                    finite = simd.compare("<=", simd.abs(value), simd.constant(largest))
                    low = simd.lesser(simd.select(finite, value, low), low)
                    high = simd.greater(simd.select(finite, value, high), high)
                tile.next = [low, high]
            low, high = (
                self.memory.across_lanes(name, simd.mul(value, half))
                for name, value in zip(("fmin", "fmax"), tile.results, strict=True)
            )
            centre = flow.at(self.places["screen centre"], flow.times(k.index, item))
            flow.store(b.fadd(low, high), centre, item)
            reach = b.fsub(high, low)
            k.next = [b.select(b.fcmp_ordered(">", reach, k.values[0]), reach, k.values[0])]
        scale = b.fdiv(ir.Constant(simd.scalar, float(self.product.most)), k.results[0])
        finest = ir.Constant(simd.scalar, _FINEST[self.plan.dtype])
        scale = b.select(b.fcmp_ordered("<", scale, finest), scale, finest)
        flow.store(scale, self.places["screen scale"], item)

    def _rounded(self, start: ir.Value, words: ir.Value, group: int, offset: int) -> _Sums:
        """A vector of points from slots at `start`, `group` apart, into words likewise."""
        flow, simd, dim = self.flow, self.simd, self.distance.dim
        scale, each = simd.splat(self.memory.scalar("screen scale")), self.product.group
        integer, real = self.memory.integers(0), simd.constant(0)
        state: list[ir.Value] = [integer, integer, real, real]

        def word(number: ir.Value, parts: int, sums: Sequence[ir.Value]) -> list[ir.Value]:
            packed, after = self.memory.integers(0), list(sums)
            for part in range(parts):
                k = self.builder.add(flow.times(number, each), i64(part))
                address = flow.at(start, flow.times(k, group * self.item))
                value = flow.load(simd.type, address, 4)
                centre = simd.splat(self.memory.scalar("screen centre", k))
                value = simd.mul(simd.sub(value, centre), scale)
                bits, after = self._component(value, after, offset)
                shift = self.memory.integers(part * 32 // each)
                packed = self.builder.or_(packed, self.builder.shl(bits, shift))
            flow.store(packed, flow.at(words, flow.times(number, 4 * group)), 4)
            return after

        whole = dim // each
        with flow.loop(i64(0), i64(whole), carried=state, name="words") as number:
            number.next = word(number.index, each, number.values)
        state = number.results
        if dim % each:
            state = word(i64(whole), dim % each, state)
        return _Sums(state[0], state[1], *self._errors(state[2], state[3]))

    def _component(
        self, value: ir.Value, sums: Sequence[ir.Value], offset: int
    ) -> tuple[ir.Value, list[ir.Value]]:
        """The bits of one component in a word, and the sums after it."""
        b, simd = self.builder, self.simd
        most = simd.constant(self.product.most)
        # The order of operands matters: NaN becomes the lower end of the range.
        inside = simd.lesser(simd.greater(value, simd.neg(most)), most)
        nearest = simd.rint(inside)
        whole = b.fptosi(nearest, ir.VectorType(I32, simd.width))
        near, far = simd.sub(inside, nearest), simd.sub(value, nearest)
        after = [
            b.add(sums[0], b.mul(whole, whole)),
            b.add(sums[1], whole),
            simd.fma(near, near, sums[2]),
            simd.fma(far, far, sums[3]),
        ]
        mask = (1 << (32 // self.product.group)) - 1
        return b.and_(b.add(whole, self.memory.integers(offset)), self.memory.integers(mask)), after

    def _errors(self, rounding: ir.Value, whole: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Lengths from squares, rounded up, and with what was lost on the way to the grid.

        A component within the range has lost 3 roundings of at most `most`; one far outside, a
        few roundings of itself. NaN is infinitely far off.
        """
        simd, dim = self.simd, self.distance.dim
        unit = _UNIT[self.plan.dtype]
        lost = simd.constant(4 * unit * self.product.most * dim**0.5)
        more = simd.constant(1 + (2 * dim + 32) * unit)
        found = [simd.add(simd.mul(simd.sqrt(square), more), lost) for square in (rounding, whole)]
        return found[0], simd.lesser(found[1], simd.constant(float("inf")))


class Screen:
    """A screen of a module: the functions that its driver calls, the loop of its tiles.

    screen_rows(scratch, tiles): the grid of a task, and its rows on it; screen_columns(scratch,
    count): a packed block of columns on the grid.
    """

    def __init__(self, context: Context, distance: Distance) -> None:
        self.context, self.distance = context, distance
        self._rows_function()
        self._columns_function()

    def _rows_function(self) -> ir.Function:
        code = self.context.entry("screen_rows")
        scratch, tiles = code.given
        _Grid(_Memory(code, code.places(scratch), self.distance)).rows(tiles)
        return code.done()

    def _columns_function(self) -> ir.Function:
        code = self.context.entry("screen_columns")
        scratch, count = code.given
        _Grid(_Memory(code, code.places(scratch), self.distance)).columns(count)
        return code.done()

    def loop(self, block: Block, form: Form, places: Places) -> ScreenedLoop:
        """The loop over a block that looks at bounds first."""
        return ScreenedLoop(block, form, places, self.distance)


class ScreenedLoop:
    """Bounds of all pairs, then, vector by vector of rows, the columns that are left."""

    def __init__(self, block: Block, form: Form, places: Places, distance: Distance) -> None:
        self.block, self.form, self.places, self.code = block, form, places, block.code
        self.memory = _Memory(block.code, places, distance)
        self.plan, self.item = block.code.plan, block.code.item
        self.flow, self.builder, self.simd = block.code.flow, block.code.builder, block.code.simd

    def fold(self) -> None:
        """Write the loop."""
        flow, b, block = self.flow, self.builder, self.block
        rows, count = block.slots.rows, block.size
        rest = self.memory.part(rows, "rest", i64(0), 8)
        resting = flow.load(I64, rest, 8)
        screened = b.icmp_signed("==", resting, i64(0))
        some = self.places["screen count"]
        flow.store(b.sub(resting, i64(1)), rest, 8)
        with flow.when(screened):
            flow.store(i64(0), rest, 8)
            self._bounds()
        with flow.when(b.not_(screened)):
            self._pick_all()
        with flow.loop(i64(0), i64(self.plan.vectors), carried=[i64(0)], name="vectors") as r:
            lane = flow.times(r.index, self.plan.width)
            own = flow.at(rows, flow.times(lane, self.item))
            form, state = self.form.narrowed(block.state, lane)
            flow.store(count, some, 8)
            with flow.when(screened):
                flow.store(self._pick(form, rows, state, lane), some, 8)
            left = flow.word(some, 0)
            with flow.when(b.icmp_signed("!=", left, i64(0))):
                picked = block.narrowed(own, state, self.places["screen picks"])
                self._fold_picked(form, picked, left)
            r.next = [b.add(r.values[0], left)]
        most = b.mul(count, i64(self.plan.vectors))
        useless = b.icmp_signed(">", b.mul(r.results[0], i64(2)), most)
        with flow.when(b.and_(screened, useless)):
            flow.store(i64(_REST), rest, 8)

    def _fold_picked(self, form: Form, block: Block, count: ir.Value) -> None:
        """Fold the picked columns into the states of one vector of rows, as all would be.

        Where fewer are left than go together, the values of the others are NaN.
        """
        b, jam = self.builder, self.plan.jam
        for extra in range(jam - 1):
            place = self.flow.times(b.add(count, i64(extra)), 8)
            self.flow.store(i64(0), self.flow.at(self.places["screen picks"], place), 8)
        values, instances = self.code.kernel.outputs, block.instances(jam)
        outputs = [(number, i64(number)) for number in range(len(values))]
        known: Known = {}
        block.invariant(values, instances, known)
        nothing = self.simd.constant(math.nan)
        stop, begin = self.code.round_up(count, jam), form.begin(block, outputs)
        carried = sum(begin, list[ir.Value]())
        with self.flow.loop(i64(0), stop, jam, carried, name="picked") as columns:
            local, at = dict(known), columns.index
            block.emit(values, instances, local, at)
            for instance in instances[1:]:
                here = b.icmp_signed("<", b.add(at, i64(instance[0])), count)
                for value in dict.fromkeys(values):
                    key = value, block.key(value, instance)
                    local[key] = b.select(here, local[key], nothing)
            columns.next = []
            for output, own in zip(outputs, alike(columns.values, begin), strict=True):
                columns.next += form.step(block, output, own, instances, local, at)
        form.end(block, outputs, alike(columns.results, begin))

    def _pick_all(self) -> None:
        """All columns."""
        with self.flow.loop(i64(0), self.block.size, name="all") as each:
            where = self.flow.at(self.places["screen picks"], self.flow.times(each.index, 8))
            self.flow.store(each.index, where, 8)

    def _sums_address(self, column: ir.Value, lane: ir.Value) -> ir.Value:
        number = self.builder.add(self.flow.times(column, self.plan.lane_count), lane)
        return self.flow.at(self.places["screen sums"], self.flow.times(number, 4))

    def _bounds(self) -> None:
        """X.Y - |Y|^2/2 of all pairs of the block, and the largest for each row."""
        flow, b, simd, plan = self.flow, self.builder, self.simd, self.plan
        kind = ir.VectorType(I32, plan.width)
        words = flow.at(self.block.slots.rows, i64(self.code.layout.screen.row["words"]))
        stop = self.code.round_up(self.block.size, _COLUMNS)
        instances = [(u, r) for u in range(_COLUMNS) for r in range(plan.vectors)]

        def read(name: str, number: ir.Value) -> ir.Value:
            return flow.load(I32, flow.at(self.places[name], flow.times(number, 4)), 4)

        low = [self.memory.integers(-(2**31))] * plan.vectors
        with flow.loop(i64(0), stop, _COLUMNS, low, name="bounds") as column:
            places = [b.add(column.index, i64(u)) for u in range(_COLUMNS)]
            starts = [simd.splat(read("screen starts", place)) for place in places]
            sums = [starts[u] for u, _ in instances]
            with flow.loop(
                i64(0), i64(self.code.layout.screen.words), carried=sums, name="products"
            ) as k:
                shift = flow.times(k.index, 4 * plan.lane_count)
                here = flow.at(words, shift)
                x = [
                    flow.load(kind, flow.at(here, i64(4 * plan.width * r)), 4)
                    for r in range(plan.vectors)
                ]
                line = flow.times(k.index, plan.block)
                y = [simd.splat(read("screen words", b.add(line, place))) for place in places]
                k.next = [
                    self.memory.product.dot(simd, value, x[r], y[u])
                    for (u, r), value in zip(instances, k.values, strict=True)
                ]
            column.next = list(column.values)
            for (u, r), value in zip(instances, k.results, strict=True):
                where = self._sums_address(places[u], i64(r * plan.width))
                flow.store(value, where, 4)
                before = column.next[r]
                column.next[r] = b.select(b.icmp_signed(">", value, before), value, before)
        for r, value in enumerate(column.results):
            where = flow.at(self.places["screen tops"], i64(4 * r * plan.width))
            flow.store(value, where, 4)

    def _pick(self, form: Form, rows: ir.Value, state: ir.Value, lane: ir.Value) -> ir.Value:
        """The columns that some row of a vector may be near enough to: how many were written."""
        flow, b, plan = self.flow, self.builder, self.plan
        kind = ir.VectorType(I32, plan.width)
        bits = ir.IntType(plan.width)
        bound = self._bound(rows, form.limit(state), lane)
        with flow.loop(i64(0), self.block.size, carried=[i64(0)], name="pick") as column:
            sums = flow.load(kind, self._sums_address(column.index, lane), 4)
            near = b.bitcast(b.icmp_signed(">", sums, bound), bits)
            number = column.values[0]
            where = flow.at(self.places["screen picks"], flow.times(number, 8))
            flow.store(column.index, where, 8)
            some = b.icmp_signed("!=", near, ir.Constant(bits, 0))
            column.next = [b.add(number, b.zext(some, I64))]
        return column.results[0]

    def _bound(self, rows: ir.Value, most: ir.Value, lane: ir.Value) -> ir.Value:
        """What the sums of columns exceed that may be near enough to a vector of rows.

        That is nearer than `most`, or for the first time as near as any.
        |x - y|^2, as it is computed, differs from the exact one by a factor within 1 +- slack, and
        by squares that underflow.
        """
        flow, b, dim = self.flow, self.builder, self.memory.distance.dim
        wide = self.simd.resized("float64")
        slack = 2 * (dim + 8) * _UNIT[self.plan.dtype] + 2.0**-40
        more, tiny = wide.constant(1 + slack), wide.constant(_TINY[self.plan.dtype] * dim)
        scale = wide.splat(self._double(self.memory.scalar("screen scale")))
        norm = self._double(self._vector_at(self.memory.part(rows, "norm", lane, 4), I32))
        rounding, whole = (
            self._double(
                self._vector_at(self.memory.part(rows, name, lane, self.item), self.simd.scalar)
            )
            for name in ("rounding", "whole")
        )
        errors = [
            wide.splat(self._double(self.memory.scalar("screen errors", i64(place))))
            for place in (0, 1)
        ]
        limit = self._double(most)
        if self.memory.distance.root:
            limit = wide.mul(limit, limit)
        limit = wide.fma(limit, more, tiny)
        if not self.code.kernel.lists:
            # The column with the largest sum is no farther than this.
            top = flow.at(self.places["screen tops"], flow.times(lane, 4))
            top = self._double(self._vector_at(top, I32))
            far = wide.add(wide.sub(norm, wide.add(top, top)), wide.constant(1))
            far = wide.div(wide.add(wide.add(wide.sqrt(far), whole), errors[1]), scale)
            limit = wide.lesser(wide.fma(wide.mul(far, far), more, tiny), limit)
            limit = wide.mul(limit, more)
        reach = wide.mul(wide.sqrt(limit), scale)
        reach = wide.mul(
            wide.add(reach, wide.add(rounding, errors[0])), wide.constant(1 + 2.0**-40)
        )
        bound = wide.mul(wide.sub(norm, wide.mul(reach, reach)), wide.constant(0.5))
        bound = wide.floor(wide.sub(bound, wide.constant(2)))
        bound = wide.lesser(wide.greater(bound, wide.constant(-_FAR)), wide.constant(_FAR))
        return b.fptosi(bound, ir.VectorType(I32, self.plan.width))

    def _vector_at(self, address: ir.Value, kind: ir.Type) -> ir.Value:
        return self.flow.load(ir.VectorType(kind, self.plan.width), address, 4)

    def _double(self, value: ir.Value) -> ir.Value:
        """A number, or a vector of numbers, in float64."""
        own = value.type.element if isinstance(value.type, ir.VectorType) else value.type
        kind: ir.Type = ir.DoubleType()
        if isinstance(value.type, ir.VectorType):
            kind = ir.VectorType(kind, value.type.count)
        if own == I32:
            return self.builder.sitofp(value, kind)
        return value if own == ir.DoubleType() else self.builder.fpext(value, kind)
