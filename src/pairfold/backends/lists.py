"""Sorted lists of the K smallest (value, index) pairs, one per row and component.

Layout: [component][place][value or index][lane], in float64 (indices are exact up to 2^53). Place 0
holds what comes before everything, so inserting needs no special case at the front. The inner loop
only compares with the last value of the list; a pair that is smaller somewhere in the lanes goes
through `insert`, which moves entries back from the end until nothing moves any more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from llvmlite import ir

from ..core.scalars import Value, reachable
from ..lower.kernel import PAIR
from .emitter import Emitter, Known
from .flow import BYTES, I64, i64
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
        """insert(list, value, index): put a pair of vectors in its place, lane by lane.

        `list` is the address of the vector in the list's entry 0. Stops where no lane moves.
        """
        kind = ir.VectorType(ir.DoubleType(), self.plan.width)
        start, value, index = self._function("insert", BYTES, kind, kind)
        b, flow = self.builder, self.flow
        body, end = b.append_basic_block("entries"), b.append_basic_block("end")
        before_loop = b.block
        b.branch(body)
        b.position_at_end(body)
        position = b.phi(I64, "position")
        position.add_incoming(i64(self.kernel.length), before_loop)
        here = flow.at(start, flow.times(position, self._entry_bytes()))
        before = flow.at(here, i64(-self._entry_bytes()))
        old = [
            flow.load(kind, self._part(entry, n, 0), 8) for entry in (before, here) for n in (0, 1)
        ]
        moved = self._apply(self.kernel.merges, old, [value, index])
        for n in (0, 1):
            flow.store(moved[n], self._part(here, n, 0), 8)
        precedes = self.outer.compare("<", value, old[0])
        tied = self.outer.mask_and(
            self.outer.compare("==", value, old[0]), self.outer.compare("<", index, old[1])
        )
        again = b.sub(position, i64(1))
        position.add_incoming(again, b.block)
        more = self.outer.any(self.outer.mask_or(precedes, tied))
        b.cbranch(b.and_(more, b.icmp_signed(">", again, i64(0))), body, end)
        b.position_at_end(end)
        b.ret_void()
        return self.module.get_global("insert")

    def _apply(
        self, targets: Sequence[Value], a: Sequence[ir.Value], b: Sequence[ir.Value]
    ) -> list[ir.Value]:
        """The reduction's merge of entries `a` (the one before, the one here) and `b`."""
        emitter = Emitter(self.kernel, self.plan, self.outer, self.flow, PAIR)
        known: Known = {}
        for hole in (v for v in reachable(targets) if v.what == "hole"):
            name, place = hole.data
            known[hole, (0, 0)] = (a if name == "a" else b)[place]
        emitter.emit(targets, [(0, 0)], known, self._no_leaf)
        return [known[value, emitter.key(value, (0, 0))] for value in targets]

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
        with self.flow.when(self.simd.any(smaller), rare=True):
            wide = self._to_outer(value)
            if valid is not None:
                wide = self.outer.select(valid, wide, self.outer.constant(math.inf))
            index = self.outer.splat(self.builder.sitofp(column, self.outer.scalar))
            if not self.row_major:
                index = self.outer.add(index, self.outer.lanes(list(range(self.plan.width))))
            front = self._part(self._entry(state, place, i64(0)), 0, r)
            self.builder.call(self.insert, [front, wide, index])
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
            word = ir.IntType(1)
            taking = ir.Constant(
                self.outer.mask_type,
                [ir.Constant(word, int(lane < shift)) for lane in range(self.plan.width)],
            )
            value = self.outer.select(
                taking, self._rotated(value, shift), self.outer.constant(math.inf)
            )
            index = self._rotated(index, shift)
        self.builder.call(self.insert, [front, value, index])

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
