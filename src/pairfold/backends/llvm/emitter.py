"""Scalar values to vector instructions, for several instances in lock-step.

An emitter walks the values that a stage needs and writes each once per distinct instance; leaves
(slots of earlier stages) are read by a function that its user supplies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from ...core.numbers import to_float
from ...core.primitives import MOST_WHOLE, PRIMITIVES
from ...core.scalars import Index, Loop, Value, reachable_through
from ...errors import InternalError
from ...lower.kernel import COLUMN, PAIR, ROW, Kernel
from ...lower.schedule import Plan
from ..functions import approximations
from ..functions.exponentials import exp_of_bounded, exp_of_negative, exp_of_rounded, has_table
from . import ir
from .flow import I64, Flow, i64
from .outline import call
from .simd import Simd
from .tables import TableMemory

_ROUNDED = {"add", "sub", "apart", "mul", "div", "sqrt", "result", "memory"}

# Exponents that e^x e^y may be computed from instead of e^(x+y), far from the dtype's range.
SAFE_EXPONENT = {"float32": 16, "float64": 128}

_LOOPS = {"result", "table"}

_MASKS = {"lt": "<", "le": "<=", "eq": "==", "ne": "!="}

Key = tuple[int, int]
Known = dict[tuple[Value, Key], ir.Value]
Leaf = Callable[[int, int, ir.Value, Key], ir.Value]


def operands(kernel: Kernel, plan: Plan) -> frozenset[Value]:
    """Numbers of columns that every vector of rows reads for itself.

    A broadcast into a register takes the ports of additions; AVX-512 has broadcasts that are
    operands of an addition, which do not. So a column's number that a component loop reads for one
    addition or subtraction is read there. (Without a jam the row's number is the operand that
    comes from memory.)
    """
    if plan.jam == 1 or plan.lanes != "row" or "avx512f" not in plan.machine.has:
        return frozenset()
    values = kernel.needed(kernel.pair_values, PAIR)
    users: dict[Value, list[Value]] = {}
    for value in values:
        for arg in kernel.below(value, PAIR):
            users.setdefault(arg, []).append(value)
    return frozenset(
        value
        for value, (user, *more) in users.items()
        if value.loops and value.stage == COLUMN and value.kind == "real"
        and kernel.is_leaf(value, PAIR) and not more
        and user.what in ("add", "sub") and user.stage == PAIR
    )  # fmt: skip


class Emitter:
    """Emits scalar values as vectors, for several instances in lock-step.

    An instance is a pair (u, r): column u of a jam, vector r of lanes. A value is emitted once
    per distinct key: the part of the instance that its stage depends on.
    """

    def __init__(self, kernel: Kernel, plan: Plan, simd: Simd, flow: Flow, at: int) -> None:
        self.kernel, self.plan, self.simd, self.flow, self.at = kernel, plan, simd, flow, at
        self.report: Callable[[ir.Value], None] | None = None
        self.tables: TableMemory | None = None
        self.calls = False
        self.spread = frozenset[Value]()

    def key(self, value: Value, instance: Key) -> Key:
        """The part of an instance that a value of this stage depends on."""
        if value.what == "placeholder" or self.at != PAIR:
            return instance if value.what == "placeholder" else (0, 0)
        u, r = instance
        if value in self.spread:
            return instance
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
            if value.what in _LOOPS and not self.kernel.is_leaf(value, self.at):
                self._segment(segment, instances, known, leaf)
                segment = []
                emit = self._loop if value.what == "result" else self._table
                emit(value, instances, known, leaf, inside)
            else:
                segment.append(value)
        self._segment(segment, instances, known, leaf)

    def _is_known(self, value: Value, instances: Sequence[Key], known: Known) -> bool:
        return all((value, self.key(value, instance)) in known for instance in instances)

    def _wanted(
        self, targets: Iterable[Value], instances: Sequence[Key], known: Known
    ) -> list[Value]:
        def below(value: Value) -> Iterable[Value]:
            if self._is_known(value, instances, known):
                return ()
            return self.kernel.below(value, self.at)

        return reachable_through(targets, below)

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
            return leaf(
                stage, offset, self._index(index, instance, known), self.key(value, instance)
            )
        args = [known[arg, self.key(arg, instance)] for arg in value.args]
        what, s, b = value.what, self.simd, self.simd.builder
        if what == "const":
            data = value.number
            # The extremes of the finite numbers are those of the data, also in wider states.
            return s.constant(to_float(data, self.plan.dtype) if isinstance(data, str) else data)
        if what == "exp":
            return self._exponential(value, args[0], instance, known)
        if what == "whole":
            return ir.Constant(ir.VectorType(I64, s.width), value.integer)
        if what == "real":
            return b.sitofp(args[0], s.type)
        if what.startswith("whole_"):
            return self._whole(what, args)
        if what in PRIMITIVES:
            return self._primitive(what, args)
        if what == "entry":
            return self._entry(value, args)
        if what == "position":
            return s.splat(b.sitofp(args[0], s.scalar))
        if what == "index_below":
            return s.splat(b.icmp_signed("<", args[0], i64(value.integer)))
        if value.kind == "index":
            right = args[1] if len(args) > 1 else i64(value.integer)
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

    def _exponential(self, value: Value, x: ir.Value, instance: Key, known: Known) -> ir.Value:
        """e^x; half of a separated exponential reports an x that is out of its safe range."""
        if value in self.kernel.guarded and self.report is not None:
            limit = SAFE_EXPONENT[self.simd.dtype]
            inside = self.simd.compare("<=", self.simd.abs(x), self.simd.constant(limit))
            self.report(self.simd.mask_not(inside))
        argument = value.args[0]
        if argument.what == "neg" and not has_table(self.simd):
            opposite = argument.args[0], self.key(argument.args[0], instance)
            if opposite in known:
                return self._function("exp_of_negative", exp_of_negative, [known[opposite]])
        while argument.what in ("neg", "entry", "table"):
            argument = argument.args[0]
        if not self.plan.relaxed or argument.what not in _ROUNDED:
            return self._function("exp", approximations.FUNCTIONS["exp"], [x])
        if value not in self.kernel.bounds.exponentials:
            return self._function("exp_of_rounded", exp_of_rounded, [x])
        scaled = self._scaled(value.args[0], instance, known)
        name = "exp_of_product" if scaled else "exp_of_bounded"
        return self._function(name, exp_of_bounded, scaled or [x])

    def _scaled(self, exponent: Value, instance: Key, known: Known) -> list[ir.Value]:
        """An exponent as a value of pairs and its scale, which no column changes; or nothing."""
        negative = exponent.what == "neg"
        product = exponent.args[0] if negative else exponent
        if product.what != "mul":
            return []
        first, second = product.args
        scale, other = (second, first) if first.stage & COLUMN else (first, second)
        keys = [(part, self.key(part, instance)) for part in (other, scale)]
        if scale.stage & COLUMN or other.stage != PAIR or scale.loops:
            return []
        if not all(key in known for key in keys):
            return []
        x, factor = (known[key] for key in keys)
        return [x, self.simd.neg(factor) if negative else factor]

    def _function(
        self, name: str, function: Callable[..., ir.Value], args: Sequence[ir.Value]
    ) -> ir.Value:
        """An elementary function written out here or, in long code, called."""
        return call(self.simd, name, function, args) if self.calls else function(self.simd, *args)

    def _primitive(self, name: str, args: Sequence[ir.Value]) -> ir.Value:
        s, b = self.simd, self.simd.builder
        fused = " contract"
        if name in ("add", "sub", "mul"):
            return {"add": b.fadd, "sub": b.fsub, "mul": b.fmul}[name](args[0], args[1], fused)
        if name == "apart":
            return b.fsub(args[0], args[1])
        if name in _MASKS:
            return s.compare(_MASKS[name], *args)
        spelling = PRIMITIVES[name].llvm
        written = approximations.FUNCTIONS.get(spelling)
        if written is None:
            return getattr(s, spelling)(*args)
        return self._function(spelling, written, args)

    def _whole(self, name: str, args: Sequence[ir.Value]) -> ir.Value:
        """An operation on vectors of 64-bit integers."""
        b, spelling = self.simd.builder, PRIMITIVES[name].llvm
        zero = ir.Constant(ir.VectorType(I64, self.simd.width), 0)
        if spelling == "floor":
            return self._whole_of(args[0], zero.type)
        if spelling == "select":
            return b.select(*args)
        if spelling == "neg":
            return b.sub(zero, args[0])
        if spelling == "abs":
            return b.select(b.icmp_signed("<", args[0], zero), b.sub(zero, args[0]), args[0])
        if spelling in ("add", "sub", "mul"):
            return {"add": b.add, "sub": b.sub, "mul": b.mul}[spelling](*args)
        return b.icmp_signed(spelling, *args)

    def _whole_of(self, x: ir.Value, kind: ir.Type) -> ir.Value:
        """Numbers rounded down, kept within the limits; 0 for NaN."""
        s = self.simd
        most = s.constant(MOST_WHOLE)
        whole = s.floor(s.select(s.compare("==", x, x), x, s.constant(0)))
        whole = s.select(s.compare("<", most, whole), most, whole)
        whole = s.select(s.compare("<", whole, s.neg(most)), s.neg(most), whole)
        return s.builder.fptosi(whole, kind)

    def _loop(
        self,
        result: Value,
        instances: Sequence[Key],
        known: Known,
        leaf: Leaf,
        inside: frozenset[Loop],
    ) -> None:
        loop = result.loop
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
                place = places.index((value.carried.place, key))
                known[value, key] = body.results[place]

    def _table(
        self,
        table: Value,
        instances: Sequence[Key],
        known: Known,
        leaf: Leaf,
        inside: frozenset[Loop],
    ) -> None:
        """The components into memory, in order; what is known of a table is its address."""
        loop = table.loop
        memory, value = loop.carries[0], loop.nexts[0]
        instance_of = {self.key(table, i): i for i in reversed(list(instances))}
        # What the components need but does not vary among them is computed before them.
        self.emit([value], instances, known, leaf, inside)
        for key in instance_of:
            known[table, key] = self._tables().address(loop, key)
        with self.flow.loop(i64(0), i64(loop.n), name="table") as body:
            local = dict(known)
            local[loop.index, (0, 0)] = body.index
            local.update({(memory, key): known[table, key] for key in instance_of})
            self.emit([value], instances, local, leaf, inside | {loop})
            for key, instance in instance_of.items():
                where = self._tables().component(known[table, key], loop, body.index)
                self.flow.store(local[value, self.key(value, instance)], where, 4)

    def _entry(self, value: Value, args: Sequence[ir.Value]) -> ir.Value:
        """One component of a table in memory."""
        k = i64(value.integer) if len(args) == 1 else args[1]
        where = self._tables().component(args[0], value.args[0].loop, k)
        return self.flow.load(self.simd.type, where, 4)

    def _tables(self) -> TableMemory:
        if self.tables is None:
            raise InternalError("a reduction's rule needs a table")
        return self.tables
