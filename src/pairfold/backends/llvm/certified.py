"""Sums to an error that users name: blocks of columns that matter to it are met, largest first.

Terms must have one sign for all pairs of a row block, or be exponentials: then what was added up so
far is no more than the result. Groups of blocks and blocks wait in one heap, by the most that a
term of theirs can be. Groups are opened, blocks are folded, until the most that is left, for all
pairs, is less than the named part of what each row of a tile has. Where signs differ, or nothing
is known, all blocks are met.
"""

from __future__ import annotations

from ..functions import approximations
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
    SHARE,
    STOP,
)
from .boxed import Bounds, BoxedTasks, Memory
from .context import Code
from .flow import BYTES, I64, i64
from .shifted import MaxShifted
from .states import Running

# Of a key in the heap, what says that it is of a group; the signs that terms may have.
_GROUP = 1 << 31
_UNKNOWN, _POSITIVE, _NEGATIVE = 0, 1, 2


class CertifiedTasks(BoxedTasks):
    """The functions of a module of a sum, and the tasks that call them."""

    def near_function(self) -> ir.Function:
        """near(args, scratch, tiles) -> the sign of all terms of a row block.

        The most that a term of each group can be is kept.
        """
        code = self.context.function("near", BYTES, BYTES, I64, returns=I64)
        args, scratch, tiles = code.given
        flow, b, plan, simd, item = code.flow, code.builder, self.plan, code.simd, self.item
        memory, row = Memory(self, code, args, scratch), code.part(scratch, "row boxes")
        self.row_boxes(code, code.part(scratch, "rows"), tiles, row)
        every = flow.at(row, flow.times(tiles, 2 * len(self.boxes.slots[1]) * item))
        call = Bounds(code, self.bounds, scratch, every, code.part(scratch, "bounds"))
        none = ir.Constant(simd.mask_type, None)
        lows = memory.lows
        highs = flow.at(lows, flow.times(memory.rooms, item))
        with flow.loop(i64(0), memory.groups, plan.width, [none, none], name="groups") as group:
            low, high = call.of(flow.pointer(args, GROUPS), memory.rooms, group.index)
            place = flow.times(group.index, item)
            flow.store(low, flow.at(lows, place), 4)
            flow.store(high, flow.at(highs, place), 4)
            there = b.icmp_signed(
                "<", self.lanes(code), simd.splat(b.sub(memory.groups, group.index))
            )
            zero = simd.constant(0)
            above = simd.mask_not(simd.compare(">=", low, zero))
            below = simd.mask_not(simd.compare("<=", high, zero))
            group.next = [
                simd.mask_or(group.values[0], simd.mask_and(above, there)),
                simd.mask_or(group.values[1], simd.mask_and(below, there)),
            ]
        some_below, some_above = (simd.any(mask) for mask in group.results)
        sign = b.select(some_above, i64(_UNKNOWN), i64(_NEGATIVE))
        sign = b.select(some_below, sign, i64(_POSITIVE))
        if self._of_exponents:
            sign = i64(_POSITIVE)
        with flow.loop(i64(0), memory.groups, plan.width, name="most") as group:
            place = flow.times(group.index, item)
            low, high = (flow.load(simd.type, flow.at(each, place), 4) for each in (lows, highs))
            flow.store(self._opposite(code, low, high, sign), flow.at(lows, place), 4)
        return code.done(sign)

    @property
    def _of_exponents(self) -> bool:
        """Whether bounds are of exponents."""
        return bool(self.kernel.logits)

    def _opposite(self, code: Code, low: ir.Value, high: ir.Value, sign: ir.Value) -> ir.Value:
        """The opposite of the most that terms can be, -inf where that is unknown."""
        b, simd = code.builder, code.simd
        negative = b.icmp_signed("==", sign, i64(_NEGATIVE))
        most = b.select(negative, low, simd.neg(high))
        known = simd.mask_not(simd.mask_or(simd.isnan(low), simd.isnan(high)))
        unknown = simd.constant(float("-inf"))
        return simd.select(known, most, unknown)

    def search_function(self) -> ir.Function:
        """search(args, scratch, control, row, rows, state, sign) -> how many blocks were met."""
        kinds = (BYTES, BYTES, BYTES, BYTES, BYTES, BYTES, I64)
        code = self.context.function("search", *kinds, returns=I64)
        args, scratch, _, row, *_, sign = code.given
        flow, b, plan, simd, item = code.flow, code.builder, self.plan, code.simd, self.item
        memory = Memory(self, code, args, scratch)
        heap = memory.heap, memory.count
        infinite = ir.Constant(simd.scalar, float("inf"))
        flow.store(i64(0), memory.count, 8)
        with flow.loop(i64(0), memory.groups, plan.width, name="groups") as group:
            low = flow.load(simd.type, flow.at(memory.lows, flow.times(group.index, item)), 4)
            self.push_all(code, heap, low, infinite, group.index, memory.groups, _GROUP)
        call = Bounds(code, self.bounds, scratch, row, code.part(scratch, "bounds"))
        # Take the largest, until it is too small.
        before, body = b.block, b.append_basic_block("meet")
        look, take = b.append_basic_block("look"), b.append_basic_block("take")
        open_, fold = b.append_basic_block("open"), b.append_basic_block("fold")
        done = b.append_basic_block("meet.end")
        b.branch(body)
        b.position_at_end(body)
        met = b.phi(I64)
        met.add_incoming(i64(0), before)
        left = flow.word(memory.count, 0)
        b.cbranch(self._goes_on(code, met, left), look, done)
        b.position_at_end(look)
        key = b.call(self.pop, [memory.heap, left])
        flow.store(b.sub(left, i64(1)), memory.count, 8)
        small = b.fcmp_ordered(">", self.bound(code, key), self._enough(code, sign))
        b.cbranch(small, done, take)
        b.position_at_end(take)
        number = b.and_(key, i64(_GROUP - 1))
        b.cbranch(b.icmp_signed("!=", b.and_(key, i64(_GROUP)), i64(0)), open_, fold)
        b.position_at_end(open_)
        first = flow.times(number, plan.width)
        least, most = call.of(flow.pointer(args, BOXES), memory.boxes, first)
        low = self._opposite(code, least, most, sign)
        self.push_all(code, heap, low, infinite, first, memory.blocks)
        met.add_incoming(met, b.block)
        b.branch(body)
        b.position_at_end(fold)
        self._fold(code, number)
        met.add_incoming(b.add(met, i64(1)), b.block)
        b.branch(body)
        b.position_at_end(done)
        return code.done(b.select(b.icmp_signed(">", met, flow.word(args, MOST)), i64(MANY), met))

    def _goes_on(self, code: Code, met: ir.Value, left: ir.Value) -> ir.Value:
        """Whether there is more to take, and nobody stops the task."""
        flow, b, args, control = code.flow, code.builder, code.given[0], code.given[2]
        halt = b.load_atomic(flow.at(control, i64(8 * STOP)), "monotonic", 8, I64)
        going = b.icmp_signed("==", b.and_(halt, i64(AT_ONCE)), i64(0))
        going = b.and_(going, b.icmp_signed("<=", met, flow.word(args, MOST)))
        return b.and_(going, b.icmp_signed(">", left, i64(0)))

    def _fold(self, code: Code, number: ir.Value) -> None:
        """Fold a block into the tile."""
        args, scratch, _, _, rows, state, _ = code.given
        flow, b, plan = code.flow, code.builder, self.plan
        start = flow.times(number, plan.block)
        packed = flow.at(flow.pointer(args, PACKED_COLUMNS), flow.times(number, self.block_bytes))
        order = flow.at(flow.pointer(args, ORDER_OF_COLUMNS), flow.times(start, 4))
        here = flow.minimum(i64(plan.block), b.sub(flow.word(args, COLUMNS), start))
        b.call(self.tile, [scratch, packed, order, rows, state, here])

    def _enough(self, code: Code, sign: ir.Value) -> ir.Value:
        """The opposite of what terms may be at most to be left out; inf: none may."""
        flow, b, double = code.flow, code.builder, ir.DoubleType()
        state, args = code.given[5], code.given[0]
        share = flow.load(double, flow.at(args, i64(8 * SHARE)), 8)
        form, outer = self.forms.form(code, code.places(code.given[1])), code.outer
        vectors: list[ir.Value] = []
        for r in range(self.plan.vectors):
            if isinstance(form, MaxShifted):
                total = form.states.load(state, i64(form.states.run.stop - 1), r)[0][0]
                top = form.maxima.load(state, i64(0), r)
                size = approximations.FUNCTIONS["log"](outer, total)
                vectors.append(outer.add(top, size))
            else:
                assert isinstance(form, Running)
                vectors.append(form.states.load(state, i64(form.first), r)[0][0])
        least = vectors[0] if self._of_exponents else self._sized(code, vectors[0], sign)
        for vector in vectors[1:]:
            other = vector if self._of_exponents else self._sized(code, vector, sign)
            least = outer.lesser(other, least)
        name = f"llvm.vector.reduce.fmin.v{outer.width}f{outer.bits}"
        found = self.double(code, outer.intrinsic(name, outer.scalar, least))
        allowed = b.fadd(found, share) if self._of_exponents else b.fmul(found, share)
        known = b.icmp_signed("!=", sign, i64(_UNKNOWN))
        if not self._of_exponents:
            known = b.and_(known, b.fcmp_ordered(">", found, ir.Constant(double, 0.0)))
        known = b.and_(known, b.fcmp_ordered("==", found, found))
        return b.select(known, b.fneg(allowed), ir.Constant(double, float("inf")))

    def _sized(self, code: Code, sums: ir.Value, sign: ir.Value) -> ir.Value:
        """Sums, the opposite ones where terms are negative."""
        b = code.builder
        return b.select(b.icmp_signed("==", sign, i64(_NEGATIVE)), code.outer.neg(sums), sums)
