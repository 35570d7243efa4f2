"""Numbers that underflow become 0 while sums are folded, on x86, and what that may have spoilt.

A processor of Intel takes 200 to 300 cycles for a vector with a result that underflows, one cycle
where it may write 0. Drivers ask for that (the control register MXCSR) around the loops over tiles,
block after block, and give the thread its own back. The register tells whether anything did: if so,
tiles with sums that are not large beside what was lost are folded again without.
See `lower.underflow`.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Generator

from ...lower.kernel import COLUMN, ONCE, ROW
from ...lower.underflow import Flushing, Power, checked, flushing
from . import ir
from .abi import AGAIN, CONTROL_WORDS, LARGEST
from .block import Slots
from .context import Code, Context
from .flow import BYTES, i64
from .runtime import Body, called
from .states import States

_I32, _F64 = ir.IntType(32), ir.DoubleType()
# MXCSR: results that underflow become 0, if the exception for it is masked; that one did.
_FLUSH, _MASKED, _HAPPENED = 1 << 15, 1 << 11, 1 << 4
_CONTROL = ir.FunctionType(ir.VoidType(), (BYTES,))
# (smallest normal number) / eps, as a float64.
_LEAST = {"float32": 2.0 ** (-126 + 23), "float64": 2.0 ** (-1022 + 52)}


class Flush:
    """What a driver does around its blocks; its scratch memory is what it is given second."""

    def __init__(self, body: Body) -> None:
        self.body, self.flow, self.builder = body, body.flow, body.builder
        self.scratch = body.given[1]
        self.own, self.used = (self._at(8 * CONTROL_WORDS + 4 * n) for n in range(2))
        self.flow.store(i64(0), self._at(8 * LARGEST), 8)

    def _at(self, byte: int) -> ir.Value:
        return self.flow.at(self.scratch, i64(byte))

    def _control(self, what: str, address: ir.Value) -> None:
        module = self.body.function.module
        self.builder.call(module.declared(f"llvm.x86.sse.{what}", _CONTROL), [address])

    @contextlib.contextmanager
    def blocks(self, columns: ir.Value) -> Generator[None, None, None]:
        """Around what folds a packed block of so many columns into tiles."""
        flow, b = self.flow, self.builder
        self._control("stmxcsr", self.own)
        own = flow.load(_I32, self.own, 4)
        wanted = b.and_(b.or_(own, _i32(_FLUSH | _MASKED)), _i32(~_HAPPENED))
        flow.store(wanted, self.used, 4)
        self._control("ldmxcsr", self.used)
        yield
        self._control("stmxcsr", self.used)
        self._control("ldmxcsr", self.own)
        happened = b.and_(flow.load(_I32, self.used, 4), _i32(_HAPPENED))
        with flow.when(b.icmp_signed("!=", happened, _i32(0)), rare=True):
            b.call(called(self.body, "largest"), [self.scratch, columns])

    @contextlib.contextmanager
    def tiles(
        self,
        tiles: ir.Value,
        at: Callable[[ir.Value], tuple[ir.Value, ir.Value]],
        columns: ir.Value,
    ) -> Generator[ir.Value, None, None]:
        """What is done with each tile that is to be folded again; `at`: its rows and states."""
        flow, b = self.flow, self.builder
        happened = b.icmp_signed("!=", flow.word(self.scratch, LARGEST), i64(0))
        looked_at = b.select(happened, tiles, i64(0))
        with flow.loop(i64(0), looked_at, name="again") as tile:
            b.call(called(self.body, "again"), [self.scratch, *at(tile.index), columns])
            again = b.icmp_signed("!=", flow.word(self.scratch, AGAIN), i64(0))
            with flow.when(again, rare=True):
                yield tile.index


def write_checks(context: Context) -> bool:
    """Write what drivers call; returns whether numbers that underflow may become 0."""
    plan = context.plan
    x86 = "sse2" in plan.machine.has or "avx2" in plan.machine.has
    if not plan.relaxed or not x86:
        return False
    known = flushing(context.kernel, plan.dtype)
    if known is None:
        return False
    _largest(context, known)
    _again(context, known)
    return True


def _i32(value: int) -> ir.Value:
    return ir.Constant(_I32, value)


def _f64(value: float) -> ir.Value:
    return ir.Constant(_F64, value)


def _greater(b: ir.IRBuilder, x: ir.Value, y: ir.Value) -> ir.Value:
    """The larger of two numbers; y where x is NaN: then all that is made of it is."""
    return b.select(b.fcmp_ordered(">", x, y), x, y)


class _Magnitudes:
    """The largest magnitude of slots, as one number."""

    def __init__(self, code: Code, known: Flushing) -> None:
        self.code, self.known = code, known

    def of(
        self, stage: int, lanes: ir.Value, step: int, at: Callable[[ir.Value, ir.Value], ir.Value]
    ) -> ir.Value:
        """That of a stage; `at` reads a vector of lanes of a slot, from a lane on."""
        code, simd = self.code, self.code.simd
        largest: ir.Value = simd.constant(1)
        for first, stop in self.known.slots.get(stage, ()):
            with code.flow.loop(i64(first), i64(stop), carried=[largest], name="slots") as slot:
                begin = slot.values
                with code.flow.loop(i64(0), lanes, step, begin, name="largest") as lane:
                    value = simd.abs(at(slot.index, lane.index))
                    lane.next = [simd.greater(value, lane.values[0])]
                slot.next = lane.results
            (largest,) = slot.results
        shift = code.plan.width // 2
        while shift:
            largest = simd.greater(code.rotated(largest, shift), largest)
            shift //= 2
        found = code.builder.extract_element(largest, _i32(0))
        return found if found.type == _F64 else code.builder.fpext(found, _F64)


def _largest(context: Context, known: Flushing) -> None:
    """largest(scratch, count): that of the packed block, where something of it underflowed."""
    code = context.slow_entry("largest")
    scratch, count = code.given
    flow, item = code.flow, code.item
    columns, block = code.part(scratch, "columns"), context.plan.block

    def at(slot: ir.Value, lane: ir.Value) -> ir.Value:
        place = code.builder.add(flow.times(slot, block), lane)
        return flow.load(code.simd.type, flow.at(columns, flow.times(place, item)), 4)

    own = _Magnitudes(code, known).of(COLUMN, count, context.plan.width, at)
    there = flow.at(scratch, i64(8 * LARGEST))
    flow.store(_greater(code.builder, own, flow.load(_F64, there, 8)), there, 8)
    code.done()


def _again(context: Context, known: Flushing) -> None:
    """again(scratch, rows, state, columns): whether sums of a tile are too small to be right."""
    code = context.slow_entry("again")
    scratch, rows, state, columns = code.given
    flow, b, plan = code.flow, code.builder, context.plan
    slots = Slots(code, code.part(scratch, "once"), rows)
    row_leaf = slots.leaf(i64(0))

    def of_rows(slot: ir.Value, lane: ir.Value) -> ir.Value:
        if not code.row_major:
            return row_leaf(ROW, 0, slot, (0, 0))
        there = slots._replace(rows=flow.at(rows, flow.times(lane, code.item)))
        return there.leaf(i64(0))(ROW, 0, slot, (0, 0))

    magnitudes = _Magnitudes(code, known)
    lanes = plan.lane_count if code.row_major else plan.width
    largest = flow.load(_F64, flow.at(scratch, i64(8 * LARGEST)), 8)
    for own in (
        magnitudes.of(ROW, i64(lanes), plan.width, of_rows),
        magnitudes.of(ONCE, i64(1), 1, lambda slot, _: row_leaf(ONCE, 0, slot, (0, 0))),
    ):
        largest = _greater(b, own, largest)
    for first, stop in known.positive:
        with flow.loop(i64(first), i64(stop), carried=[largest], name="signs") as each:
            value = row_leaf(ONCE, 0, each.index, (0, 0))
            negative = code.simd.any(code.simd.compare("<", value, code.simd.constant(0)))
            each.next = [b.select(negative, _f64(math.inf), each.values[0])]
        (largest,) = each.results
    one = _LEAST[plan.dtype]
    count = b.fmul(b.sitofp(columns, _F64), _f64(one))
    least = b.fmul(_power(b, known.loss, largest), count)
    shift = b.fmul(_power(b, known.shift, largest), _f64(one))
    well = b.and_(b.fcmp_ordered("<=", least, _f64(1)), b.fcmp_ordered("<=", shift, _f64(1)))
    outer = code.outer
    wanted = outer.splat(least if outer.scalar == _F64 else b.fptrunc(least, outer.scalar))
    enough = b.and_(well, b.not_(_any_small(code, state, wanted)))
    flow.store(b.select(enough, i64(0), i64(1)), flow.at(scratch, i64(8 * AGAIN)), 8)
    code.done()


def _power(b: ir.IRBuilder, bound: Power, largest: ir.Value) -> ir.Value:
    found = _f64(bound.factor)
    for _ in range(bound.degree):
        found = b.fmul(found, largest)
    return found


def _any_small(code: Code, state: ir.Value, wanted: ir.Value) -> ir.Value:
    """Whether any sum of a tile that may be too small is so, or is not a number."""
    small: ir.Value = ir.Constant(ir.IntType(1), 0)
    for run in code.layout.runs:
        states, shifted = States(code, run), run.accumulator.rule.max_shifted
        stop = run.first + (checked(run.accumulator) if shifted else run.places)
        with code.flow.loop(i64(run.first), i64(stop), carried=[small], name="sums") as place:
            vectors = [states.load(state, place.index, r) for r in range(code.plan.vectors)]
            if not code.row_major and not shifted:  # lanes with maxima of their own stay apart
                vectors = [states.across(vectors)]
            (found,) = place.values
            for (high, _), *_rest in vectors:
                large = code.outer.compare(">=", code.outer.abs(high), wanted)
                found = code.builder.or_(found, code.outer.any(code.outer.mask_not(large)))
            place.next = [found]
        (small,) = place.results
    return small
