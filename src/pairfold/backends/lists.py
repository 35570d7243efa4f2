"""Sorted lists of the K smallest (value, index) pairs, one per row and component.

Layout: [component][place][value or index][lane], in float64 (indices are exact up to 2^53). Place 0
holds what comes before everything, so inserting needs no special case at the front. The inner loop
only compares with the last value of the list; where a pair is smaller in some lanes, `insert` puts
it into the lists of these lanes, moving the entries after it back.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from llvmlite import ir

from ..core.scalars import reachable
from ..lower.kernel import PAIR
from .emitter import Emitter, Known
from .flow import BYTES, I64, i64
from .simd import Simd
from .states import States


class Lists(States):
    """Writes what happens to lists; the states of a list are its entries."""

    insert: ir.Function

    def _entry_bytes(self) -> int:
        return 2 * self.plan.lane_count * self.layout.outer_item

    def _part(self, entry: ir.Value, n: int, r: int) -> ir.Value:
        """The address of vector r of an entry's value (0) or index (1)."""
        lane = n * self.plan.lane_count + r * self.plan.width
        return self.flow.at(entry, i64(lane * self.layout.outer_item))

    def _entry(self, state: ir.Value, place: ir.Value, position: ir.Value) -> ir.Value:
        """The address of an entry of component `place`; position 0 precedes the list."""
        start = self._state_address(state, place, 0)
        return self.flow.at(start, self.flow.times(position, self._entry_bytes()))

    def _reset_lists(self, state: ir.Value) -> None:
        """Empty lists: infinite values with index 0, after an entry that precedes all others."""
        flow = self.flow
        entries = self.kernel.length + 1
        with flow.loop(i64(0), i64(self.kernel.dim * entries), name="entries") as entry:
            first = self._entry(state, i64(0), entry.index)
            front = self.builder.srem(entry.index, i64(entries))
            ahead = self.builder.icmp_signed("==", front, i64(0))
            for n, values in enumerate(((-math.inf, math.inf), (-1, 0))):
                chosen = self.builder.select(ahead, *map(self.outer.constant, values))
                for r in range(self.plan.vectors):
                    flow.store(chosen, self._part(first, n, r), 8)

    def _insert_function(self) -> ir.Function:
        """insert(list, lanes, value, index): put pairs in their places, one lane after the other.

        `list` is the address of the vector in the list's entry 0; bit n of `lanes` says whether
        lane n has something to insert. Few lanes do at a time, so each moves its own entries.
        """
        kind = ir.VectorType(ir.DoubleType(), self.plan.width)
        start, lanes, value, index = self._function("insert", BYTES, I64, kind, kind)
        b, flow = self.builder, self.flow
        new = [b.alloca(kind, name=name) for name in ("values", "indices")]
        flow.store(value, new[0], 8)
        flow.store(index, new[1], 8)
        more, one, end = (b.append_basic_block(name) for name in ("more", "one", "end"))
        entry = b.block
        b.branch(more)
        b.position_at_end(more)
        left = b.phi(I64, "left")
        left.add_incoming(lanes, entry)
        b.cbranch(b.icmp_signed("!=", left, i64(0)), one, end)
        b.position_at_end(one)
        lane = self.simd.intrinsic("llvm.cttz.i64", I64, left, ir.Constant(ir.IntType(1), 1))
        shift = flow.times(lane, self.layout.outer_item)
        pair = [flow.load(ir.DoubleType(), flow.at(place, shift), 8) for place in new]
        self._insert_one(flow.at(start, shift), pair)
        left.add_incoming(b.and_(left, b.sub(left, i64(1))), b.block)
        b.branch(more)
        b.position_at_end(end)
        b.ret_void()
        return self.module.get_global("insert")

    def _insert_one(self, first: ir.Value, pair: Sequence[ir.Value]) -> None:
        """Insert one (value, index); `first` is the address of the lane in the list's entry 0."""
        b, flow = self.builder, self.flow
        apart = i64(self.plan.lane_count * self.layout.outer_item)

        def keep(entry: ir.Value, what: Sequence[ir.Value]) -> None:
            flow.store(what[0], entry, 8)
            flow.store(what[1], flow.at(entry, apart), 8)

        def kept(entry: ir.Value) -> list[ir.Value]:
            number = ir.DoubleType()
            return [flow.load(number, entry, 8), flow.load(number, flow.at(entry, apart), 8)]

        last = flow.at(first, i64(self.kernel.length * self._entry_bytes()))
        with flow.when(self._precedes(pair, kept(last))):
            test, move, place = (b.append_basic_block(name) for name in ("test", "move", "place"))
            before = b.block
            b.branch(test)
            b.position_at_end(test)
            here = b.phi(BYTES, "here")
            here.add_incoming(last, before)
            ahead = flow.at(here, i64(-self._entry_bytes()))
            found = kept(ahead)
            b.cbranch(self._precedes(pair, found), move, place)
            b.position_at_end(move)
            keep(here, found)
            here.add_incoming(ahead, b.block)
            b.branch(test)
            b.position_at_end(place)
            keep(here, pair)

    def _precedes(self, new: Sequence[ir.Value], old: Sequence[ir.Value]) -> ir.Value:
        """The row's order: whether one (value, index) comes before another."""
        one = Simd(self.builder, "float64", 1, frozenset())
        emitter = Emitter(self.kernel, self.plan, one, self.flow, PAIR)
        order = self.kernel.order
        assert order is not None
        known: Known = {}
        for hole in (v for v in reachable([order]) if v.what == "hole"):
            name, place = hole.data
            known[hole, (0, 0)] = self.builder.bitcast(
                (old if name == "a" else new)[place], one.type
            )
        emitter.emit([order], [(0, 0)], known, self._no_leaf)
        return self.builder.extract_element(
            known[order, emitter.key(order, (0, 0))], ir.Constant(ir.IntType(32), 0)
        )

    def _lanes_of(self, mask: ir.Value) -> ir.Value:
        """A mask as bits."""
        return self.builder.zext(self.builder.bitcast(mask, ir.IntType(self.plan.width)), I64)

    def _limit_address(self, place: ir.Value, r: int) -> ir.Value:
        """Where the last value of a list is kept, in the dtype of pairs, to compare with."""
        start = self.flow.times(place, self.plan.lane_count * self.item)
        shift = i64(r * self.plan.width * self.item)
        return self.flow.at(self.places["limits"], self.builder.add(start, shift))

    def _keep_limit(self, state: ir.Value, place: ir.Value, r: int) -> None:
        last = self._entry(state, place, i64(self.kernel.length))
        value = self.flow.load(self.outer.type, self._part(last, 0, r), 8)
        if value.type != self.simd.type:
            value = self.builder.fptrunc(value, self.simd.type)
        self.flow.store(value, self._limit_address(place, r), 4)

    def _keep_limits(self, state: ir.Value) -> None:
        """What a block's values are compared with, for all components."""
        with self.flow.loop(i64(0), i64(self.kernel.dim), name="limits") as place:
            for r in range(self.plan.vectors):
                self._keep_limit(state, place.index, r)

    def _offer(
        self,
        state: ir.Value,
        place: ir.Value,
        r: int,
        value: ir.Value,
        column: ir.Value,
        valid: ir.Value | None,
    ) -> None:
        """Insert a pair's value where it is smaller than the list's last; `column`: its number."""
        limit = self.flow.load(self.simd.type, self._limit_address(place, r), 4)
        smaller = self.simd.compare("<", value, limit)
        if valid is not None:
            smaller = self.simd.mask_and(smaller, valid)
        lanes = self._lanes_of(smaller)
        with self.flow.when(self.builder.icmp_signed("!=", lanes, i64(0)), rare=True):
            wide = self._to_outer(value)
            index = self.outer.splat(self.builder.sitofp(column, self.outer.scalar))
            if not self.row_major:
                index = self.outer.add(index, self.outer.lanes(list(range(self.plan.width))))
            front = self._part(self._entry(state, place, i64(0)), 0, r)
            self.builder.call(self.insert, [front, lanes, wide, index])
            self._keep_limit(state, place, r)

    def _merge_lists(self, into: ir.Value, other: ir.Value) -> None:
        """Insert the entries of another unit's lists."""
        flow = self.flow
        with flow.loop(i64(0), i64(self.kernel.dim), name="lists") as place:
            for r in range(self.plan.vectors):
                front = self._part(self._entry(into, place.index, i64(0)), 0, r)
                with flow.loop(i64(1), i64(self.kernel.length + 1), name="entries") as position:
                    entry = self._entry(other, place.index, position.index)
                    self._insert_entry(front, entry, r)

    def _insert_entry(self, front: ir.Value, entry: ir.Value, r: int, shift: int = 0) -> None:
        """Insert an entry's vector r into the list at `front`, lanes rotated by `shift`.

        With a shift only lanes below it take part, so that the others can still be read.
        """
        value, index = (self.flow.load(self.outer.type, self._part(entry, n, r), 8) for n in (0, 1))
        if shift:
            value, index = (self._rotated(part, shift) for part in (value, index))
        lanes = i64((1 << (shift or self.plan.width)) - 1)
        self.builder.call(self.insert, [front, lanes, value, index])

    def _gather_lists(self, state: ir.Value) -> None:
        """When lanes are columns: the lists of all lanes into that of lane 0."""
        flow, vectors, width = self.flow, self.plan.vectors, self.plan.width
        steps = [(n, n + half, 0) for half in self._halves(vectors) for n in range(half)]
        steps += [(0, 0, shift) for shift in self._halves(width)]
        with flow.loop(i64(0), i64(self.kernel.dim), name="lists") as place:
            for into, r, shift in steps:
                front = self._part(self._entry(state, place.index, i64(0)), 0, into)
                with flow.loop(i64(1), i64(self.kernel.length + 1), name="entries") as position:
                    entry = self._entry(state, place.index, position.index)
                    self._insert_entry(front, entry, r, shift)

    @staticmethod
    def _halves(count: int) -> list[int]:
        """count/2, count/4 ... 1"""
        return [count >> n for n in range(1, count.bit_length())]
