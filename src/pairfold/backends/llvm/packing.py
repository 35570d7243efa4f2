"""Packing: arguments of any strides into component-major buffers, and what is computed from them.

Rows and blocks of columns become [slot][lane] buffers in the task's scratch memory. User arrays
are read here and nowhere else, at rows below the count given. Lanes past the end repeat the last
row, up to whole vectors.
"""

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir

from ...lower.bounds import MODERATE
from ...lower.kernel import COLUMN, ONCE, ROW, Argument
from .context import Code, Context
from .emitter import Emitter, Key, Known, Leaf
from .flow import BYTES, I64, i64

_INTERLEAVED = 8
# Bytes ahead of what is packed that memory is asked for, to come while lanes compute; cache lines.
_AHEAD, _LINE = 16384, 64
_PIECE = 16  # bytes: what shuffles within vectors reach on every x86 processor


class Packing:
    """The functions of a module that pack rows, columns or both, and calls of them.

    `stages` are those to pack; a function that has nothing to do is None.
    """

    def __init__(self, context: Context, stages: tuple[int, ...]) -> None:
        self.context, self.kernel, self.plan = context, context.kernel, context.plan
        self.item, self.storage = context.item, context.storage
        self.pack_rows: ir.Function | None = None
        self.pack_columns: ir.Function | None = None
        if not stages:
            return
        self.copy = self._copy_function()
        dims = {a.dim for a in self.kernel.arguments if a.stage in stages}
        self.interleaved = {
            dim: self._interleaved_function(dim) for dim in dims if 2 <= dim <= _INTERLEAVED
        }
        self.transpose: ir.Function | None = None
        if max(dims, default=0) > _INTERLEAVED and self.plan.width >= _PIECE // self.item:
            self.transpose = self._transpose_function()
        if ROW in stages:
            self.pack_rows = self._pack_function(ROW)
        if COLUMN in stages:
            self.pack_columns = self._pack_function(COLUMN)

    def _pack_function(self, stage: int) -> ir.Function | None:
        """pack(args, scratch, batch, start, count, destination): components, then computed slots.

        Lanes beyond `count` repeat the last one, up to whole vectors.
        """
        if not self.kernel.stages[stage].size:
            return None
        name = "pack_rows" if stage == ROW else "pack_columns"
        code = self.context.function(name, BYTES, BYTES, I64, I64, I64, BYTES)
        args, scratch, batch, start, count, destination = code.given
        group = self.plan.row_group if stage == ROW else self.plan.block
        whole = (stage == ROW) == self.context.row_major
        padded = code.round_up(count, self.plan.lane_count if whole else self.plan.width)
        for argument in self.kernel.arguments:
            if argument.stage == stage:
                self._copy_argument(
                    code, argument, args, batch, start, count, padded, destination, group
                )
        self._compute_slots(code, args, stage, scratch, padded, destination, group)
        self._check_slots(code, args, stage, padded, destination, group)
        return code.done()

    def _copy_argument(
        self,
        code: Code,
        argument: Argument,
        args: ir.Value,
        batch: ir.Value,
        start: ir.Value,
        count: ir.Value,
        padded: ir.Value,
        destination: ir.Value,
        group: int,
    ) -> None:
        """Transpose `count` rows of an argument into its raw slots."""
        flow, b = code.flow, code.builder
        base, stride, step = code.argument(argument, args, batch)
        offset = self.kernel.stages[argument.stage].raw[argument.position] * group * self.item
        raw = flow.at(destination, i64(offset))
        source = flow.at(base, b.mul(start, stride))
        spacing = i64(group * self.item)
        done: ir.Value = i64(0)
        if 2 <= argument.dim <= _INTERLEAVED:
            split = self.interleaved[argument.dim]
            done = b.call(split, [source, stride, step, count, raw, spacing])
        elif argument.dim > _INTERLEAVED and self.transpose is not None:
            dim = i64(argument.dim)
            done = b.call(self.transpose, [source, stride, step, dim, count, raw, spacing])
        b.call(
            self.copy,
            [source, stride, step, i64(argument.dim), done, count, padded, raw, spacing],
        )

    def _copy_function(self) -> ir.Function:
        """copy(source, stride, step, dim, done, count, padded, raw, spacing): rows to slots.

        Adjacent numbers go by whole vectors, everything else, whatever its strides, one by one;
        lanes from `count` to `padded` repeat the last row. Rows below `done` are already there.
        """
        code = self.context.function("copy", BYTES, I64, I64, I64, I64, I64, I64, BYTES, I64)
        source, stride, step, dim, done, count, padded, raw, spacing = code.given
        flow, b, item, width = code.flow, code.builder, self.item, self.plan.width
        storage, stored = self.storage, self.storage.item
        whole = b.and_(count, i64(-width))
        adjacent = b.icmp_signed("==", stride, i64(stored))
        start = b.select(adjacent, whole, done)
        with flow.loop(i64(0), dim, name="components") as component:
            row = flow.at(source, b.mul(component.index, step))
            slot = flow.at(raw, b.mul(component.index, spacing))
            with flow.loop(done, b.select(adjacent, whole, done), width, name="adjacent") as lane:
                kind = ir.VectorType(storage.element, width)
                there = flow.at(row, flow.times(lane.index, stored))
                value = flow.load(kind, there, 1)
                flow.prefetch(flow.at(there, i64(_AHEAD)))
                here = flow.at(slot, flow.times(lane.index, item))
                flow.store(storage.opened(b, value), here, 4)
            with flow.loop(start, count, name="strided") as lane:
                value = flow.load(storage.element, flow.at(row, b.mul(lane.index, stride)), 1)
                here = flow.at(slot, flow.times(lane.index, item))
                flow.store(storage.opened(b, value), here, item)
            with flow.loop(count, padded, name="pad") as lane:
                last = flow.at(slot, flow.times(b.sub(count, i64(1)), item))
                value = flow.load(code.simd.scalar, last, item)
                flow.store(value, flow.at(slot, flow.times(lane.index, item)), item)
        return code.done()

    def _interleaved_function(self, dim: int) -> ir.Function:
        """split(source, stride, step, count, raw, spacing) -> rows done.

        Rows of `dim` adjacent components, one after the other, a vector of rows at a time:
        [row][component] to [component][row] by shuffles. Other layouts: 0 rows done.
        """
        name = f"split{dim}"
        code = self.context.function(name, BYTES, I64, I64, I64, BYTES, I64, returns=I64)
        source, stride, step, count, raw, spacing = code.given
        flow, b, item, width = code.flow, code.builder, self.item, self.plan.width
        storage, stored = self.storage, self.storage.item
        packed = b.and_(
            b.icmp_signed("==", stride, i64(dim * stored)), b.icmp_signed("==", step, i64(stored))
        )
        whole = b.select(packed, b.and_(count, i64(-width)), i64(0))
        wide = ir.VectorType(storage.element, width * dim)
        pick = ir.VectorType(ir.IntType(32), width)
        with flow.loop(i64(0), whole, width, name="split") as lane:
            here = flow.at(source, flow.times(lane.index, dim * stored))
            value = flow.load(wide, here, 1)
            for line in range(0, width * dim * stored, _LINE):
                flow.prefetch(flow.at(here, i64(_AHEAD + line)))
            slot = flow.at(raw, flow.times(lane.index, item))
            for component in range(dim):
                places = [component + dim * place for place in range(width)]
                mask = ir.Constant(pick, [ir.Constant(ir.IntType(32), p) for p in places])
                part = b.shuffle_vector(value, ir.Constant(wide, ir.Undefined), mask)
                to = flow.at(slot, b.mul(spacing, i64(component)))
                flow.store(storage.opened(b, part), to, 4)
        return code.done(whole)

    def _transpose_function(self) -> ir.Function:
        """transpose(source, stride, step, dim, count, raw, spacing) -> rows done.

        Rows of many adjacent components, a vector of rows and 16 bytes of their components at a
        time; the last piece begins early enough to end with the row. Other layouts: 0 rows done.
        """
        code = self.context.function(
            "transpose", BYTES, I64, I64, I64, I64, BYTES, I64, returns=I64
        )
        source, stride, step, dim, count, raw, spacing = code.given
        flow, b, item, width = code.flow, code.builder, self.item, self.plan.width
        stored, size = self.storage.item, _PIECE // self.item
        adjacent = b.icmp_signed("==", step, i64(stored))
        whole = b.select(adjacent, b.and_(count, i64(-width)), i64(0))
        kind = ir.VectorType(self.storage.element, size)
        with flow.loop(i64(0), whole, width, name="rows") as lane:
            row = flow.at(source, b.mul(lane.index, stride))
            to = flow.at(raw, flow.times(lane.index, item))
            with flow.loop(i64(0), dim, size, name="pieces") as piece:
                first = flow.minimum(piece.index, b.sub(dim, i64(size)))
                here = flow.at(row, flow.times(first, stored))
                pieces = [
                    flow.load(kind, flow.at(here, b.mul(stride, i64(n))), 1) for n in range(width)
                ]
                slot = flow.at(to, b.mul(first, spacing))
                for n, vector in enumerate(self._transposed(code, pieces)):
                    flow.store(vector, flow.at(slot, b.mul(spacing, i64(n))), 4)
        return code.done(whole)

    def _transposed(self, code: Code, pieces: list[ir.Value]) -> list[ir.Value]:
        """One vector per component, from the short vectors of components of all lanes.

        Lanes n, n + size, n + 2 size ... are joined; what is left are transpositions of squares of
        `size` numbers next to each other, each a few rounds of interleaving.
        """
        width, size = self.plan.width, _PIECE // self.item
        rows = [self._joined(code, pieces[n::size]) for n in range(size)]
        rows = [self.storage.opened(code.builder, row) for row in rows]
        half = size // 2
        low = [
            lane + source * width
            for group in range(0, width, size)
            for lane in range(group, group + half)
            for source in (0, 1)
        ]
        high = [lane + half for lane in low]
        for _ in range(size.bit_length() - 1):
            pairs = zip(rows[:half], rows[half:], strict=True)
            rows = [_shuffled(code, x, y, lanes) for x, y in pairs for lanes in (low, high)]
        return rows

    def _joined(self, code: Code, parts: list[ir.Value]) -> ir.Value:
        """Short vectors one after the other as a long one."""
        while len(parts) > 1:
            lanes = list(range(2 * self.plan.width // len(parts)))
            pairs = zip(parts[::2], parts[1::2], strict=True)
            parts = [_shuffled(code, x, y, lanes) for x, y in pairs]
        return parts[0]

    def _compute_slots(
        self,
        code: Code,
        args: ir.Value,
        stage: int,
        scratch: ir.Value,
        padded: ir.Value,
        destination: ir.Value,
        group: int,
    ) -> None:
        """Values of one stage that later stages read, a vector of lanes at a time."""
        computed = self.kernel.stages[stage].computed
        if not computed:
            return
        flow, item = code.flow, self.item
        emitter = code.emitter(stage, scratch)
        emitter.report = lambda mask: code.refuse(args, mask)
        once = code.part(scratch, "once")
        with flow.loop(i64(0), padded, self.plan.width, name="computed") as lane:
            shift = flow.times(lane.index, item)

            def leaf(where: int, offset: int, index: ir.Value, key: Key) -> ir.Value:
                place = flow.times(code.builder.add(i64(offset), index), item)
                if where == ONCE:
                    return code.simd.splat(flow.load(code.simd.scalar, flow.at(once, place), item))
                address = flow.at(destination, code.builder.add(flow.times(place, group), shift))
                return flow.load(code.simd.type, address, 4)

            def keep(value: ir.Value, slot: ir.Value) -> None:
                place = code.builder.add(flow.times(slot, group * item), shift)
                flow.store(value, flow.at(destination, place), 4)

            self._each_computed(code, stage, emitter, leaf, keep)

    def _check_slots(
        self,
        code: Code,
        args: ir.Value,
        stage: int,
        padded: ir.Value,
        destination: ir.Value,
        group: int,
    ) -> None:
        """Refuse numbers that are too large for exponents to be bounded."""
        ranges = self.kernel.bounds.slots.get(stage, ())
        if not ranges:
            return
        flow, simd, item = code.flow, code.simd, self.item
        excess = ir.Constant(ir.VectorType(ir.IntType(1), self.plan.width), None)
        for first, end in ranges:
            with flow.loop(i64(first), i64(end), 1, [excess], name="slots") as slot:
                start = flow.at(destination, flow.times(slot.index, group * item))
                with flow.loop(
                    i64(0), padded, self.plan.width, slot.values, name="checked"
                ) as lane:
                    value = flow.load(simd.type, flow.at(start, flow.times(lane.index, item)), 4)
                    lane.next = [simd.mask_or(lane.values[0], _excessive(code, value))]
                slot.next = lane.results
            excess = slot.results[0]
        code.refuse(args, excess)

    def _each_computed(
        self,
        code: Code,
        stage: int,
        emitter: Emitter,
        leaf: Leaf,
        keep: Callable[[ir.Value, ir.Value], None],
    ) -> None:
        known: Known = {}
        for value, slot in self.kernel.stages[stage].computed.items():
            if slot.loop is None:
                emitter.emit([value], [(0, 0)], known, leaf)
                keep(known[value, (0, 0)], i64(slot.offset))
                continue
            # What does not vary with the component is computed once, and so is a table.
            emitter.emit([value], [(0, 0)], known, leaf)
            with code.flow.loop(i64(0), i64(slot.loop.n), name="table") as body:
                local = {**known, (slot.loop.index, (0, 0)): body.index}
                component = value
                if value.what == "table":
                    component = self.kernel.scalars.entry(value, slot.loop.index)
                emitter.emit([component], [(0, 0)], local, leaf, frozenset((slot.loop,)))
                keep(local[component, (0, 0)], code.builder.add(i64(slot.offset), body.index))

    def once(self, code: Code, args: ir.Value, scratch: ir.Value, batch: ir.Value) -> None:
        """Parameters, and what is computed from them alone: one number per slot."""
        flow, b, item = code.flow, code.builder, self.item
        once = code.part(scratch, "once")
        for argument in self.kernel.arguments:
            if argument.stage == ONCE:
                base, _, step = code.argument(argument, args, batch)
                raw = self.kernel.stages[ONCE].raw[argument.position]
                with flow.loop(i64(0), i64(argument.dim), name="parameters") as k:
                    source = flow.at(base, b.mul(k.index, step))
                    value = self.storage.opened(b, flow.load(self.storage.element, source, 1))
                    place = flow.times(b.add(k.index, i64(raw)), item)
                    flow.store(value, flow.at(once, place), item)
        emitter = code.emitter(ONCE, scratch)

        def leaf(where: int, offset: int, index: ir.Value, key: Key) -> ir.Value:
            place = flow.times(b.add(i64(offset), index), item)
            return code.simd.splat(flow.load(code.simd.scalar, flow.at(once, place), item))

        def keep(value: ir.Value, slot: ir.Value) -> None:
            first = b.extract_element(value, ir.Constant(ir.IntType(32), 0))
            flow.store(first, flow.at(once, flow.times(slot, item)), item)

        self._each_computed(code, ONCE, emitter, leaf, keep)
        for first, end in self.kernel.bounds.slots.get(ONCE, ()):
            with flow.loop(i64(first), i64(end), name="checked") as slot:
                place = flow.at(once, flow.times(slot.index, item))
                value = code.simd.splat(flow.load(code.simd.scalar, place, item))
                code.refuse(args, _excessive(code, value))

    def rows(
        self,
        code: Code,
        args: ir.Value,
        scratch: ir.Value,
        batch: ir.Value,
        first: ir.Value,
        count: ir.Value,
    ) -> None:
        """The rows of a task from number `first` on, unit after unit."""
        if self.pack_rows is None:
            return
        flow, b = code.flow, code.builder
        rows = code.part(scratch, "rows")
        if not self.context.row_major:
            b.call(self.pack_rows, [args, scratch, batch, first, count, rows])
            return
        lanes = self.plan.lane_count
        with flow.loop(i64(0), count, lanes, name="groups") as group:
            here = flow.minimum(i64(lanes), b.sub(count, group.index))
            unit = b.sdiv(group.index, i64(lanes))
            where = code.unit_rows(rows, unit)
            start = b.add(first, group.index)
            b.call(self.pack_rows, [args, scratch, batch, start, here, where])


def _shuffled(code: Code, x: ir.Value, y: ir.Value, lanes: list[int]) -> ir.Value:
    word = ir.IntType(32)
    kind = ir.VectorType(word, len(lanes))
    mask = ir.Constant(kind, [ir.Constant(word, lane) for lane in lanes])
    return code.builder.shuffle_vector(x, y, mask)


def _excessive(code: Code, value: ir.Value) -> ir.Value:
    return code.simd.compare(">", code.simd.abs(value), code.simd.constant(MODERATE))
