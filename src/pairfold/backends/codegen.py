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

from collections.abc import Callable, Iterable, Sequence


from llvmlite import ir

from ..core.scalars import PRIMITIVES, SPECIAL, Index, Loop, Value, reachable
from ..errors import InternalError
from ..lower.kernel import COLUMN, ONCE, PAIR, ROW, Argument, Kernel
from ..lower.schedule import ITEM, Plan, frontier
from . import approximations
from .flow import BYTES, I64, Carried, Flow, i64
from .simd import Simd

# Words of the table of arguments that every entry point receives.
ROWS, COLUMNS, ROWS_PER_TASK, PANELS, SPLITS, COLUMNS_PER_SPLIT = range(6)
OFFSETS, PARTIALS, OUT, OUT_ROW_STRIDE, OUT_COMPONENT_STRIDE = range(6, 11)
FIRST_ARGUMENT = 11
WORDS_PER_ARGUMENT = 3
# Words of the control block.
NEXT, STOP, TOTAL, DONE = range(4)

_INTERLEAVED = 8
_MASKS = {"lt": "<", "le": "<=", "eq": "==", "ne": "!="}

Key = tuple[int, int]
Known = dict[tuple[Value, Key], ir.Value]
Leaf = Callable[[int, int, ir.Value, Key], ir.Value]


class Layout:
    """Where the parts of a task's scratch memory lie, in bytes."""

    def __init__(self, kernel: Kernel, plan: Plan) -> None:
        self.item = ITEM[plan.dtype]
        self.outer_item = ITEM[plan.accumulation.outer]
        self.components = 2 if plan.accumulation.compensated else 1
        lanes = plan.lane_count
        self.state_words = kernel.dim * len(kernel.reduction.identity) * self.components
        self.unit_state = self.state_words * lanes * self.outer_item
        groups = plan.tiles if plan.lanes == "row" else 1
        self.row_group = kernel.stages[ROW].size * plan.row_group * self.item
        sizes = {
            "once": kernel.stages[ONCE].size * self.item,
            "rows": groups * self.row_group,
            "columns": kernel.stages[COLUMN].size * plan.block * self.item,
            "shared": len(frontier(kernel)) * plan.block * self._shared_lanes(plan) * self.item,
            "state": plan.tiles * self.unit_state,
            "finished": kernel.dim * lanes * self.item,
        }
        self.offset: dict[str, int] = {}
        self.total = 0
        for name, size in sizes.items():
            self.offset[name] = self.total
            self.total += -(-size // 64) * 64
        self.state_bytes = sizes["state"]

    @staticmethod
    def _shared_lanes(plan: Plan) -> int:
        return plan.lane_count if plan.lanes == "row" else 1


class Emitter:
    """Emits scalar values as vectors, for several instances in lock-step.

    An instance is a pair (u, r): column u of a jam, vector r of lanes. A value is emitted once
    per distinct key: the part of the instance that its stage depends on.
    """

    def __init__(self, kernel: Kernel, plan: Plan, simd: Simd, flow: Flow, at: int) -> None:
        self.kernel, self.plan, self.simd, self.flow, self.at = kernel, plan, simd, flow, at
        self.uses: dict[Value, int] = {}

    def key(self, value: Value, instance: Key) -> Key:
        """The part of an instance that a value of this stage depends on."""
        if value.what == "hole" or self.at != PAIR:
            return instance if value.what == "hole" else (0, 0)
        u, r = instance
        if self.plan.lanes == "row":
            return (u if value.stage & COLUMN else 0, r if value.stage & ROW else 0)
        return (0, r if value.stage & COLUMN else 0)

    def emit(
        self,
        targets: Sequence[Value],
        instances: Sequence[Key],
        known: Known,
        leaf: Leaf,
        inside: frozenset[Loop] = frozenset(),
    ) -> None:
        """Compute the targets for all instances; results are entered in `known`."""
        segment: list[Value] = []
        for value in self._wanted(targets, instances, known):
            if not value.loops <= inside or self._is_known(value, instances, known):
                continue
            if value.what == "result" and not self.kernel.is_leaf(value, self.at):
                self._segment(segment, instances, known, leaf)
                segment = []
                self._loop(value, instances, known, leaf, inside)
            else:
                segment.append(value)
        self._segment(segment, instances, known, leaf)

    def _is_known(self, value: Value, instances: Sequence[Key], known: Known) -> bool:
        return all((value, self.key(value, instance)) in known for instance in instances)

    def _wanted(
        self, targets: Iterable[Value], instances: Sequence[Key], known: Known
    ) -> list[Value]:
        def stop(value: Value) -> bool:
            if self._is_known(value, instances, known):
                return True
            return value.what != "load" and self.kernel.is_leaf(value, self.at)

        return reachable(targets, stop)

    def _segment(
        self, values: Sequence[Value], instances: Sequence[Key], known: Known, leaf: Leaf
    ) -> None:
        """One instance after the other, to keep few values alive."""
        for instance in instances:
            for value in values:
                key = self.key(value, instance)
                if (value, key) not in known:
                    known[value, key] = self._value(value, instance, known, leaf)

    def _value(self, value: Value, instance: Key, known: Known, leaf: Leaf) -> ir.Value:
        slot = None if value.kind == "index" else self.kernel.slot(value, self.at)
        if slot is not None:
            stage, offset, index = slot
            return leaf(stage, offset, self._index(index, instance, known), self.key(value, instance))
        args = [known[arg, self.key(arg, instance)] for arg in value.args]
        what, s, b = value.what, self.simd, self.simd.builder
        if what == "const":
            data = value.data
            return s.constant(SPECIAL[data] if isinstance(data, str) else data)
        if what in PRIMITIVES:
            return self._primitive(what, args)
        if what == "index_below":
            return s.splat(b.icmp_signed("<", args[0], i64(value.data)))
        if value.kind == "index":
            right = args[1] if len(args) > 1 else i64(value.data)
            return self._index_op(what, args[0], right)
        raise InternalError(f"no machine code for {value}")

    def _index(self, index: Index, instance: Key, known: Known) -> ir.Value:
        if isinstance(index, int):
            return i64(index)
        return known[index, self.key(index, instance)]

    def _index_op(self, what: str, x: ir.Value, y: ir.Value) -> ir.Value:
        b = self.simd.builder
        if what in ("index_min", "index_max"):
            return b.select(b.icmp_signed("<" if what == "index_min" else ">", x, y), x, y)
        simple = {"index_add": b.add, "index_sub": b.sub, "index_mul": b.mul}
        if what in simple:
            return simple[what](x, y)
        # Component indices are never negative here, so truncating division is floor division.
        return b.sdiv(x, y) if what == "index_floordiv" else b.srem(x, y)

    def _primitive(self, name: str, args: Sequence[ir.Value]) -> ir.Value:
        s, b = self.simd, self.simd.builder
        fused = ("contract",)
        if name in ("add", "sub", "mul"):
            return {"add": b.fadd, "sub": b.fsub, "mul": b.fmul}[name](*args, flags=fused)
        if name in _MASKS:
            return s.compare(_MASKS[name], *args)
        spelling = PRIMITIVES[name].llvm
        written = approximations.FUNCTIONS.get(spelling)
        return written(s, *args) if written else getattr(s, spelling)(*args)

    def _loop(
        self,
        result: Value,
        instances: Sequence[Key],
        known: Known,
        leaf: Leaf,
        inside: frozenset[Loop],
    ) -> None:
        loop: Loop = result.data[0]
        keys = list(dict.fromkeys(self.key(result, instance) for instance in instances))
        instance_of = {self.key(result, i): i for i in reversed(list(instances))}
        within = inside | {loop}
        # What the body needs but does not vary in it is computed before it.
        self.emit([*loop.inits, *loop.nexts], instances, known, leaf, inside)
        initial = [
            known[init, self.key(init, instance_of[key])] for init in loop.inits for key in keys
        ]
        with self.flow.loop(i64(0), i64(loop.n), carried=initial, name="components") as body:
            local = dict(known)
            local[loop.index, (0, 0)] = body.index
            places = [(place, key) for place in range(len(loop.inits)) for key in keys]
            for (place, key), value in zip(places, body.values, strict=True):
                local[loop.carries[place], key] = value
            self.emit(loop.nexts, instances, local, leaf, within)
            body.next = [
                local[loop.nexts[place], self.key(loop.nexts[place], instance_of[key])]
                for place, key in places
            ]
        for value in loop.results:
            for key in keys:
                place = places.index((value.data[1], key))
                known[value, key] = body.results[place]


class Codegen:
    """Writes the module of one kernel under one plan."""

    def __init__(self, kernel: Kernel, plan: Plan) -> None:
        self.kernel, self.plan = kernel, plan
        self.layout = Layout(kernel, plan)
        self.module = ir.Module("pairfold")
        self.shared = frontier(kernel)
        self.item = ITEM[plan.dtype]
        self.row_major = plan.lanes == "row"

    def write(self) -> ir.Module:
        """The module, with entry points `run` and `combine`."""
        self.pack_rows = self._pack_function(ROW)
        self.pack_columns = self._pack_function(COLUMN)
        self.finish_unit = self._finish_function()
        self.unit = self._unit_function()
        task = self._task_function()
        self._entry("run", task)
        self._entry("combine", self._combine_function())
        return self.module

    # -- functions ------------------------------------------------------------------------------

    def _function(self, name: str, *kinds: ir.Type, inline: bool = False) -> list[ir.Value]:
        kind = ir.FunctionType(ir.VoidType(), kinds)
        function = ir.Function(self.module, kind, name)
        if name not in ("run", "combine"):
            function.linkage = "internal"
        function.attributes.add("nounwind")
        builder = ir.IRBuilder(function.append_basic_block("entry"))
        self.builder, self.flow = builder, Flow(builder)
        self.simd = Simd(builder, self.plan.dtype, self.plan.width, self.plan.machine.has)
        self.outer = self.simd.resized(self.plan.accumulation.outer)
        self.inner = self.simd.resized(self.plan.accumulation.inner)
        return list(function.args)

    def _entry(self, name: str, task: ir.Function) -> None:
        """while not stopped: take the next task off the counter and do it."""
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
        which = b.atomic_rmw("add", flow.at(control, i64(8 * NEXT)), i64(1), "monotonic")
        b.cbranch(b.icmp_signed("<", which, flow.word(control, TOTAL)), work, end)
        b.position_at_end(work)
        b.call(task, [args, scratch, control, which])
        b.atomic_rmw("add", flow.at(control, i64(8 * DONE)), i64(1), "monotonic")
        b.branch(again)
        b.position_at_end(end)
        b.ret_void()

    # -- packing --------------------------------------------------------------------------------

    def _pack_function(self, stage: int) -> ir.Function | None:
        """pack(args, scratch, batch, start, count, destination): components, then computed slots.

        Lanes beyond `count` repeat the last one, up to whole vectors.
        """
        if not self.kernel.stages[stage].size:
            return None
        name = "pack_rows" if stage == ROW else "pack_columns"
        args, scratch, batch, start, count, destination = self._function(
            name, BYTES, BYTES, I64, I64, I64, BYTES
        )
        group = self.plan.row_group if stage == ROW else self.plan.block
        whole = (stage == ROW) == self.row_major
        padded = self._round_up(count, self.plan.lane_count if whole else self.plan.width)
        for argument in self.kernel.arguments:
            if argument.stage == stage:
                self._copy_argument(argument, args, batch, start, count, padded, destination, group)
        self._compute_slots(stage, scratch, padded, destination, group)
        self.builder.ret_void()
        return self.module.get_global(name)

    def _round_up(self, count: ir.Value, unit: int) -> ir.Value:
        b = self.builder
        return b.and_(b.add(count, i64(unit - 1)), i64(-unit))

    def _argument(
        self, argument: Argument, args: ir.Value, batch: ir.Value
    ) -> tuple[ir.Value, ir.Value, ir.Value]:
        """Address of an argument's batch element, its row stride and its component stride."""
        flow, b = self.flow, self.builder
        place = [a.position for a in self.kernel.arguments].index(argument.position)
        word = FIRST_ARGUMENT + WORDS_PER_ARGUMENT * place
        offset = self._batch_offset(args, batch, place)
        base = flow.at(b.inttoptr(flow.word(args, word), BYTES), offset)
        return base, flow.word(args, word + 1), flow.word(args, word + 2)

    def _batch_offset(self, args: ir.Value, batch: ir.Value, place: int) -> ir.Value:
        flow = self.flow
        table = flow.pointer(args, OFFSETS)
        width = len(self.kernel.arguments) + 1
        cell = self.builder.add(flow.times(batch, width), i64(place))
        return flow.load(I64, flow.at(table, flow.times(cell, 8)), 8)

    def _copy_argument(
        self,
        argument: Argument,
        args: ir.Value,
        batch: ir.Value,
        start: ir.Value,
        count: ir.Value,
        padded: ir.Value,
        destination: ir.Value,
        group: int,
    ) -> None:
        """Transpose `count` rows of an argument into its raw slots.

        Whole vectors of adjacent rows go through vector loads (and shuffles where components
        are interleaved); everything else, whatever its strides, element by element.
        """
        flow, b, item, dim = self.flow, self.builder, self.item, argument.dim
        base, stride, step = self._argument(argument, args, batch)
        base = flow.at(base, b.mul(start, stride))
        offset = self.kernel.stages[argument.stage].raw[argument.position] * group * item
        raw = flow.at(destination, i64(offset))
        width = self.plan.width
        whole = b.and_(count, i64(-width))
        adjacent = b.icmp_signed("==", stride, i64(item))
        done = b.select(adjacent, whole, i64(0))
        with flow.loop(i64(0), i64(dim), name="unit_components") as component:
            source = flow.at(base, b.mul(component.index, step))
            target = flow.at(raw, flow.times(component.index, group * item))
            with flow.loop(i64(0), done, width, name="unit") as lane:
                shift = flow.times(lane.index, item)
                value = flow.load(self.simd.type, flow.at(source, shift), 1)
                flow.store(value, flow.at(target, shift), 4)
        if 2 <= dim <= _INTERLEAVED:
            mixed = b.and_(
                b.icmp_signed("==", stride, i64(dim * item)),
                b.icmp_signed("==", step, i64(item)),
            )
            interleaved = b.select(mixed, whole, i64(0))
            self._deinterleave(base, raw, interleaved, dim, group)
            done = b.select(mixed, whole, done)
        with flow.loop(i64(0), i64(dim), name="copy_components") as component:
            source = flow.at(base, b.mul(component.index, step))
            target = flow.at(raw, flow.times(component.index, group * item))
            with flow.loop(done, count, name="copy") as lane:
                value = flow.load(self.simd.scalar, flow.at(source, b.mul(lane.index, stride)), 1)
                flow.store(value, flow.at(target, flow.times(lane.index, item)), item)
            last = flow.at(target, flow.times(b.sub(count, i64(1)), item))
            value = flow.load(self.simd.scalar, last, item)
            with flow.loop(count, padded, name="pad") as lane:
                flow.store(value, flow.at(target, flow.times(lane.index, item)), item)

    def _deinterleave(
        self, base: ir.Value, raw: ir.Value, count: ir.Value, dim: int, group: int
    ) -> None:
        """[lane][component] to [component][lane], a vector of lanes at a time."""
        flow, b, item, width = self.flow, self.builder, self.item, self.plan.width
        wide = ir.VectorType(self.simd.scalar, width * dim)
        pick = ir.VectorType(ir.IntType(32), width)
        with flow.loop(i64(0), count, width, name="interleaved") as lane:
            source = flow.at(base, flow.times(lane.index, dim * item))
            value = flow.load(wide, source, 1)
            for component in range(dim):
                places = [component + dim * place for place in range(width)]
                mask = ir.Constant(pick, [ir.Constant(ir.IntType(32), p) for p in places])
                part = b.shuffle_vector(value, ir.Constant(wide, ir.Undefined), mask)
                shift = b.add(i64(component * group * item), flow.times(lane.index, item))
                flow.store(part, flow.at(raw, shift), 4)

    def _compute_slots(
        self, stage: int, scratch: ir.Value, padded: ir.Value, destination: ir.Value, group: int
    ) -> None:
        """Values of one stage that later stages read, a vector of lanes at a time."""
        computed = self.kernel.stages[stage].computed
        if not computed:
            return
        flow, item = self.flow, self.item
        emitter = Emitter(self.kernel, self.plan, self.simd, flow, stage)
        once = flow.at(scratch, i64(self.layout.offset["once"]))
        with flow.loop(i64(0), padded, self.plan.width, name="computed") as lane:
            shift = flow.times(lane.index, item)

            def leaf(where: int, offset: int, index: ir.Value, key: Key) -> ir.Value:
                place = flow.times(self.builder.add(i64(offset), index), item)
                if where == ONCE:
                    return self.simd.splat(flow.load(self.simd.scalar, flow.at(once, place), item))
                address = flow.at(destination, self.builder.add(flow.times(place, group), shift))
                return flow.load(self.simd.type, address, 4)

            def keep(value: ir.Value, slot: ir.Value) -> None:
                place = self.builder.add(flow.times(slot, group * item), shift)
                flow.store(value, flow.at(destination, place), 4)

            self._each_computed(stage, emitter, leaf, keep)

    def _each_computed(
        self,
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
            with self.flow.loop(i64(0), i64(slot.loop.n), name="table") as body:
                local = {**known, (slot.loop.index, (0, 0)): body.index}
                emitter.emit([value], [(0, 0)], local, leaf, frozenset((slot.loop,)))
                keep(local[value, (0, 0)], self.builder.add(i64(slot.offset), body.index))

    def _pack_once(self, args: ir.Value, scratch: ir.Value, batch: ir.Value) -> None:
        """Parameters, and what is computed from them alone: one number per slot."""
        flow, b, item = self.flow, self.builder, self.item
        once = flow.at(scratch, i64(self.layout.offset["once"]))
        for argument in self.kernel.arguments:
            if argument.stage == ONCE:
                base, _, step = self._argument(argument, args, batch)
                raw = self.kernel.stages[ONCE].raw[argument.position]
                with flow.loop(i64(0), i64(argument.dim), name="parameters") as k:
                    value = flow.load(self.simd.scalar, flow.at(base, b.mul(k.index, step)), 1)
                    place = flow.times(b.add(k.index, i64(raw)), item)
                    flow.store(value, flow.at(once, place), item)
        emitter = Emitter(self.kernel, self.plan, self.simd, flow, ONCE)

        def leaf(where: int, offset: int, index: ir.Value, key: Key) -> ir.Value:
            place = flow.times(b.add(i64(offset), index), item)
            return self.simd.splat(flow.load(self.simd.scalar, flow.at(once, place), item))

        def keep(value: ir.Value, slot: ir.Value) -> None:
            first = b.extract_element(value, ir.Constant(ir.IntType(32), 0))
            flow.store(first, flow.at(once, flow.times(slot, item)), item)

        self._each_computed(ONCE, emitter, leaf, keep)

    # -- one unit of rows against one block of columns -------------------------------------------

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

    def _vector(self, key: Key) -> int:
        return key[1] * self.plan.width * self.item

    def _pair_leaf(self, at: ir.Value) -> Leaf:
        """Reads slots for column (or vector of columns) number `at` of the block."""
        flow, b, item, plan = self.flow, self.builder, self.item, self.plan

        def leaf(where: int, offset: int, index: ir.Value, key: Key) -> ir.Value:
            slot = b.add(i64(offset), index)
            if where == ONCE:
                address = flow.at(self.places["once"], flow.times(slot, item))
                return self.simd.splat(flow.load(self.simd.scalar, address, item))
            if where == ROW:
                place = flow.times(slot, plan.row_group * item)
                if not self.row_major:
                    address = flow.at(self.row_buffer, place)
                    return self.simd.splat(flow.load(self.simd.scalar, address, item))
                address = flow.at(self.row_buffer, b.add(place, i64(self._vector(key))))
                return flow.load(self.simd.type, address, 4)
            place = flow.times(slot, plan.block * item)
            if self.row_major:
                column = b.add(at, i64(key[0]))
                address = flow.at(self.places["columns"], b.add(place, flow.times(column, item)))
                return self.simd.splat(flow.load(self.simd.scalar, address, item))
            shift = b.add(flow.times(at, item), i64(self._vector(key)))
            return flow.load(
                self.simd.type, flow.at(self.places["columns"], b.add(place, shift)), 4
            )

        return leaf

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
            with self.flow.loop(
                i64(0), stop, self.plan.lane_count, state, name="pairs"
            ) as columns:
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
            self._flush(i64(place), part)

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

    def _only_valid(
        self, after: ir.Value, before: ir.Value, at: ir.Value, r: int
    ) -> ir.Value:
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
        kernel, loop = self.kernel, self.kernel.output_loop
        assert loop is not None
        self._fill_shared()
        jam = min(self.plan.output_jam, loop.n)
        whole = loop.n // jam * jam
        with self.flow.loop(i64(0), i64(whole), jam, name="outputs") as outputs:
            self._fold_components(outputs.index, jam)
        for rest in range(whole, loop.n):
            self._fold_components(i64(rest), 1)

    def _shared_place(self, number: int, at: ir.Value, key: Key) -> ir.Value:
        """Where shared value `number` of one column (or vector of columns) is kept."""
        flow, b, plan, item = self.flow, self.builder, self.plan, self.item
        lanes = plan.lane_count if self.row_major else 1
        start = i64(number * plan.block * lanes * item)
        column = b.add(at, i64(key[0])) if self.row_major else at
        shift = b.add(flow.times(column, lanes * item), i64(self._vector(key)))
        return flow.at(self.places["shared"], b.add(start, shift))

    def _fill_shared(self) -> None:
        if not self.shared:
            return
        known: Known = {}
        self._invariant(self.shared, self._instances(self.plan.jam), known)

        def body(columns: Carried, jam: int) -> None:
            instances = self._instances(jam)
            local = dict(known)
            self.emitter.emit(self.shared, instances, local, self._pair_leaf(columns.index))
            for number, value in enumerate(self.shared):
                for instance in instances:
                    key = self.emitter.key(value, instance)
                    where = self._shared_place(number, columns.index, key)
                    self.flow.store(local[value, key], where, 4)

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
        with self.flow.loop(
            i64(0), stop, step, self._initial() * jam, name="product"
        ) as columns:
            shared: Known = {}
            for number, value in enumerate(self.shared):
                for instance in instances:
                    key = self.emitter.key(value, instance)
                    where = self._shared_place(number, columns.index, key)
                    shared[value, key] = self.flow.load(self.simd.type, where, 4)
            columns.next = []
            for extra in range(jam):
                local = {**shared, **starts[extra]}
                leaf = self._pair_leaf(columns.index)
                self.emitter.emit([output], instances, local, leaf, frozenset((loop,)))
                states = columns.values[extra * per_output : (extra + 1) * per_output]
                columns.next += self._step(0, states, instances, local, columns.index)
        for extra in range(jam):
            part = columns.results[extra * per_output : (extra + 1) * per_output]
            self._flush(self.builder.add(first, i64(extra)), part)

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

    # -- states ---------------------------------------------------------------------------------

    def _state_address(self, state: ir.Value, place: ir.Value, number: int) -> ir.Value:
        """Lanes of state `number` (with its correction after it) of component `place`."""
        words = len(self.kernel.reduction.identity) * self.layout.components
        bytes_per_word = self.plan.lane_count * self.layout.outer_item
        start = self.flow.times(place, words * bytes_per_word)
        shift = i64(number * self.layout.components * bytes_per_word)
        return self.flow.at(state, self.builder.add(start, shift))

    def _flush(self, place: ir.Value, states: Sequence[ir.Value]) -> None:
        """Merge a block's accumulators into the states of component `place`."""
        vectors = self.plan.vectors
        count = len(self.kernel.reduction.identity)
        for r in range(vectors):
            block = [self._to_outer(states[number * vectors + r]) for number in range(count)]
            self._merge_vector(self.state, place, r, [(value, None) for value in block])

    def _to_outer(self, value: ir.Value) -> ir.Value:
        if value.type == self.outer.type:
            return value
        return self.builder.fpext(value, self.outer.type)

    def _lane_address(self, state: ir.Value, place: ir.Value, number: int, r: int) -> ir.Value:
        shift = r * self.plan.width * self.layout.outer_item
        return self.flow.at(self._state_address(state, place, number), i64(shift))

    def _correction(self, address: ir.Value) -> ir.Value:
        return self.flow.at(address, i64(self.plan.lane_count * self.layout.outer_item))

    def _merge_vector(
        self,
        state: ir.Value,
        place: ir.Value,
        r: int,
        other: Sequence[tuple[ir.Value, ir.Value | None]],
    ) -> None:
        """state = merge(state, other) for vector r of component `place`."""
        flow, kind = self.flow, self.outer.type
        addresses = [self._lane_address(state, place, n, r) for n in range(len(other))]
        current: list[tuple[ir.Value, ir.Value | None]] = []
        for address in addresses:
            low = None
            if self.plan.accumulation.compensated:
                low = flow.load(kind, self._correction(address), 8)
            current.append((flow.load(kind, address, 8), low))
        merged = self._merged(self.outer, current, other)
        for address, (high, low) in zip(addresses, merged, strict=True):
            flow.store(high, address, 8)
            if low is not None:
                flow.store(low, self._correction(address), 8)

    def _merged(
        self,
        simd: Simd,
        a: Sequence[tuple[ir.Value, ir.Value | None]],
        b: Sequence[tuple[ir.Value, ir.Value | None]],
    ) -> list[tuple[ir.Value, ir.Value | None]]:
        """The reduction's merge; compensated sums keep the rounding error of every addition."""
        if self.plan.accumulation.compensated:
            return [self._two_sum(simd, x, y) for x, y in zip(a, b, strict=True)]
        emitter = Emitter(self.kernel, self.plan, simd, self.flow, PAIR)
        known: Known = {}
        for hole in (v for v in reachable(self.kernel.merges) if v.what == "hole"):
            name, place = hole.data
            known[hole, (0, 0)] = (a if name == "a" else b)[place][0]
        emitter.emit(self.kernel.merges, [(0, 0)], known, self._no_leaf)
        return [(known[value, emitter.key(value, (0, 0))], None) for value in self.kernel.merges]

    @staticmethod
    def _two_sum(
        simd: Simd, a: tuple[ir.Value, ir.Value | None], b: tuple[ir.Value, ir.Value | None]
    ) -> tuple[ir.Value, ir.Value]:
        """Knuth's TwoSum: high = a + b rounded; what the rounding lost joins the correction."""
        high = simd.add(a[0], b[0])
        back = simd.sub(high, a[0])
        lost = simd.add(simd.sub(a[0], simd.sub(high, back)), simd.sub(b[0], back))
        low = lost if a[1] is None else simd.add(a[1], lost)
        return high, low if b[1] is None else simd.add(low, b[1])

    @staticmethod
    def _no_leaf(where: int, offset: int, index: ir.Value, key: Key) -> ir.Value:
        raise InternalError("a reduction's rule reads an argument")

    # -- tasks ----------------------------------------------------------------------------------

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

    def _units(self, count: ir.Value) -> ir.Value:
        if not self.row_major:
            return count
        lanes = self.plan.lane_count
        return self.builder.sdiv(self.builder.add(count, i64(lanes - 1)), i64(lanes))

    def _unit_rows(self, rows: ir.Value, unit: ir.Value) -> ir.Value:
        size = self.layout.row_group if self.row_major else self.item
        return self.flow.at(rows, self.flow.times(unit, size))

    def _unit_state(self, state: ir.Value, unit: ir.Value) -> ir.Value:
        return self.flow.at(state, self.flow.times(unit, self.layout.unit_state))

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
        partial = flow.at(
            flow.pointer(args, PARTIALS), flow.times(which, self.layout.state_bytes)
        )
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
            going = b.icmp_signed("==", halt, i64(0))
            with flow.when(going):
                width = flow.minimum(i64(self.plan.block), b.sub(stop, block.index))
                if self.pack_columns is not None:
                    b.call(
                        self.pack_columns, [args, scratch, batch, block.index, width, columns]
                    )
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

    def _pack_row_groups(
        self,
        args: ir.Value,
        scratch: ir.Value,
        batch: ir.Value,
        first: ir.Value,
        count: ir.Value,
    ) -> None:
        if self.pack_rows is None:
            return
        flow, b = self.flow, self.builder
        rows = flow.at(scratch, i64(self.layout.offset["rows"]))
        if not self.row_major:
            b.call(self.pack_rows, [args, scratch, batch, first, count, rows])
            return
        lanes = self.plan.lane_count
        with flow.loop(i64(0), count, lanes, name="groups") as group:
            here = flow.minimum(i64(lanes), b.sub(count, group.index))
            unit = b.sdiv(group.index, i64(lanes))
            where = self._unit_rows(rows, unit)
            start = b.add(first, group.index)
            b.call(self.pack_rows, [args, scratch, batch, start, here, where])

    def _reset(self, state: ir.Value, units: ir.Value) -> None:
        """States of empty rows."""
        flow = self.flow
        with flow.loop(i64(0), units, name="reset") as unit:
            base = self._unit_state(state, unit.index)
            with flow.loop(i64(0), i64(self.kernel.dim)) as place:
                for number, value in enumerate(self.kernel.reduction.identity):
                    for r in range(self.plan.vectors):
                        address = self._lane_address(base, place.index, number, r)
                        flow.store(self.outer.constant(value), address, 8)
                        if self.plan.accumulation.compensated:
                            zero = self.outer.constant(0)
                            flow.store(zero, self._correction(address), 8)

    # -- finishing ------------------------------------------------------------------------------

    def _finish_function(self) -> ir.Function:
        """finish(args, scratch, batch, first, count, state): states of rows to results."""
        args, scratch, batch, first, count, state = self._function(
            "finish", BYTES, BYTES, I64, I64, I64, BYTES
        )
        flow, b = self.flow, self.builder
        self.places = {
            name: flow.at(scratch, i64(offset)) for name, offset in self.layout.offset.items()
        }
        out = flow.at(
            flow.pointer(args, OUT),
            self._batch_offset(args, batch, len(self.kernel.arguments)),
        )
        with flow.loop(i64(0), self._units(count), name="units") as unit:
            self.row_buffer = self._unit_rows(self.places["rows"], unit.index)
            base = self._unit_state(state, unit.index)
            for place, each in self._components():
                self._finish_component(base, place, each)
            start = self.flow.times(unit.index, self.plan.lane_count if self.row_major else 1)
            here = i64(1)
            if self.row_major:
                here = flow.minimum(i64(self.plan.lane_count), b.sub(count, start))
            self._write_rows(args, out, b.add(first, start), here)
        b.ret_void()
        return self.module.get_global("finish")

    def _components(self) -> Iterable[tuple[int, ir.Value]]:
        """(number of the output, component) pairs; a long output is one loop."""
        if self.kernel.output_loop is None:
            for place in range(self.kernel.dim):
                yield place, i64(place)
        else:
            with self.flow.loop(i64(0), i64(self.kernel.dim), name="finishing") as body:
                yield 0, body.index

    def _finish_component(self, state: ir.Value, place: int, component: ir.Value) -> None:
        """One component of one unit, times the factor that had left the sum."""
        flow, simd = self.flow, self.outer
        count = len(self.kernel.reduction.identity)
        vectors: list[list[tuple[ir.Value, ir.Value | None]]] = []
        for r in range(self.plan.vectors):
            loaded: list[tuple[ir.Value, ir.Value | None]] = []
            for number in range(count):
                address = self._lane_address(state, component, number, r)
                low = None
                if self.plan.accumulation.compensated:
                    low = flow.load(simd.type, self._correction(address), 8)
                loaded.append((flow.load(simd.type, address, 8), low))
            vectors.append(loaded)
        if not self.row_major:
            vectors = [self._across(vectors)]
        for r, states in enumerate(vectors):
            result = self._finished([self._closed(simd, *pair) for pair in states])
            result = self._times_factor(result, place, component, r)
            if result.type != self.simd.type:
                result = self.builder.fptrunc(result, self.simd.type)
            shift = i64(r * self.plan.width * self.item)
            start = flow.times(component, self.plan.lane_count * self.item)
            flow.store(result, flow.at(self.places["finished"], self.builder.add(start, shift)), 4)

    def _across(
        self, vectors: Sequence[Sequence[tuple[ir.Value, ir.Value | None]]]
    ) -> list[tuple[ir.Value, ir.Value | None]]:
        """Merge all lanes into lane 0, halving: vectors first, then halves of the vector."""
        current = [list(states) for states in vectors]
        while len(current) > 1:
            half = len(current) // 2
            current = [
                self._merged(self.outer, current[n], current[n + half]) for n in range(half)
            ]
        states, width = current[0], self.plan.width
        word = ir.IntType(32)
        shift = width // 2
        while shift:
            places = [(lane + shift) % width for lane in range(width)]
            mask = ir.Constant(
                ir.VectorType(word, width), [ir.Constant(word, place) for place in places]
            )
            moved = [
                (self._moved(high, mask), None if low is None else self._moved(low, mask))
                for high, low in states
            ]
            states = self._merged(self.outer, states, moved)
            shift //= 2
        return states

    def _moved(self, value: ir.Value, mask: ir.Value) -> ir.Value:
        return self.builder.shuffle_vector(value, ir.Constant(value.type, ir.Undefined), mask)

    @staticmethod
    def _closed(simd: Simd, high: ir.Value, low: ir.Value | None) -> ir.Value:
        """A compensated sum as one number; an infinite sum has no meaningful correction."""
        if low is None:
            return high
        return simd.select(simd.isnan(low), high, simd.add(high, low))

    def _finished(self, states: Sequence[ir.Value]) -> ir.Value:
        emitter = Emitter(self.kernel, self.plan, self.outer, self.flow, PAIR)
        target = self.kernel.finished
        known: Known = {
            (value, (0, 0)): states[value.data[1]]
            for value in reachable([target])
            if value.what == "hole"
        }
        emitter.emit([target], [(0, 0)], known, self._no_leaf)
        return known[target, emitter.key(target, (0, 0))]

    def _times_factor(
        self, result: ir.Value, place: int, component: ir.Value, r: int
    ) -> ir.Value:
        factor = self.kernel.factors[place]
        if factor is None:
            return result
        emitter = Emitter(self.kernel, self.plan, self.simd, self.flow, PAIR)
        known: Known = {}
        inside: frozenset[Loop] = frozenset()
        if self.kernel.output_loop is not None:
            known[self.kernel.output_loop.index, (0, 0)] = component
            inside = frozenset((self.kernel.output_loop,))
        emitter.emit([factor], [(0, r)], known, self._pair_leaf(i64(0)), inside)
        value = known[factor, emitter.key(factor, (0, r))]
        return self.builder.fmul(self._to_outer(value), result)

    def _write_rows(
        self, args: ir.Value, out: ir.Value, first: ir.Value, count: ir.Value
    ) -> None:
        """Copy finished rows to the output array, whatever its strides."""
        flow, b, item = self.flow, self.builder, self.item
        stride = flow.word(args, OUT_ROW_STRIDE)
        step = flow.word(args, OUT_COMPONENT_STRIDE)
        target = flow.at(out, b.mul(first, stride))
        with flow.loop(i64(0), i64(self.kernel.dim), name="write_components") as component:
            source = flow.at(
                self.places["finished"],
                flow.times(component.index, self.plan.lane_count * item),
            )
            to = flow.at(target, b.mul(component.index, step))
            with flow.loop(i64(0), count, name="write") as row:
                value = flow.load(
                    self.simd.scalar, flow.at(source, flow.times(row.index, item)), item
                )
                flow.store(value, flow.at(to, b.mul(row.index, stride)), 1)

    def _combine_function(self) -> ir.Function:
        """combine_task(args, scratch, control, which): merge the splits of a panel, in order."""
        args, scratch, _, which = self._function("combine_task", BYTES, BYTES, BYTES, I64)
        flow, b = self.flow, self.builder
        batch, first, count, _ = self._task_parts(args, which, i64(1))
        splits = flow.word(args, SPLITS)
        self._pack_once(args, scratch, batch)
        if any(factor is not None for factor in self.kernel.factors):
            self._pack_row_groups(args, scratch, batch, first, count)
        partials = flow.pointer(args, PARTIALS)
        panel = flow.at(
            partials, flow.times(b.mul(which, splits), self.layout.state_bytes)
        )
        with flow.loop(i64(1), splits, name="splits") as split:
            other = flow.at(panel, flow.times(split.index, self.layout.state_bytes))
            with flow.loop(i64(0), self._units(count), name="units") as unit:
                self._merge_units(
                    self._unit_state(panel, unit.index), self._unit_state(other, unit.index)
                )
        b.call(self.finish_unit, [args, scratch, batch, first, count, panel])
        b.ret_void()
        return self.module.get_global("combine_task")

    def _merge_units(self, into: ir.Value, other: ir.Value) -> None:
        flow = self.flow
        with flow.loop(i64(0), i64(self.kernel.dim), name="merging") as place:
            for r in range(self.plan.vectors):
                loaded: list[tuple[ir.Value, ir.Value | None]] = []
                for number in range(len(self.kernel.reduction.identity)):
                    address = self._lane_address(other, place.index, number, r)
                    low = None
                    if self.plan.accumulation.compensated:
                        low = flow.load(self.outer.type, self._correction(address), 8)
                    loaded.append((flow.load(self.outer.type, address, 8), low))
                self._merge_vector(into, place.index, r, loaded)


def write_module(kernel: Kernel, plan: Plan) -> tuple[ir.Module, Layout]:
    """The LLVM module of a kernel under a plan, and the layout of its scratch memory."""
    codegen = Codegen(kernel, plan)
    return codegen.write(), codegen.layout


