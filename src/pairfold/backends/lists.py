"""Sorted lists of the K smallest (value, index) pairs, one per row and component.

Layout: [component][value or index][lane][place], in float64 (indices are exact up to 2^53). Place 0
holds what comes before everything, and lists are padded to whole vectors. So one list is inserted
into by vector instructions over its places: place l takes what it has, what place l-1 had, or the
new pair, without a branch. The inner loop only compares with the last values of the lists, kept in
registers, lanes being rows or columns as ever; lanes that are smaller insert one after the other.
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

_NUMBER, _FLOAT = ir.DoubleType(), ir.FloatType()


class Lists(States):
    """Writes what happens to lists; the states of a list are its places."""

    insert: ir.Function

    def _list_bytes(self) -> int:
        """Bytes of the values, or of the indices, of one list."""
        return self.layout.list_places * self.layout.outer_item

    def _list_address(self, state: ir.Value, place: ir.Value, n: int, lane: ir.Value) -> ir.Value:
        """The address of place 0 of a lane's values (n = 0) or indices (1) of component `place`."""
        start = self._state_address(state, place, 0)
        shift = self.flow.times(lane, self._list_bytes())
        whole = i64(n * self.plan.lane_count * self._list_bytes())
        return self.flow.at(start, self.builder.add(whole, shift))

    def _parts(self, values: ir.Value, position: ir.Value) -> list[ir.Value]:
        """Addresses of value and index at a place, from the address of the list's values."""
        value = self.flow.at(values, self.flow.times(position, self.layout.outer_item))
        apart = i64(self.plan.lane_count * self._list_bytes())
        return [value, self.flow.at(value, apart)]

    def _reset_lists(self, state: ir.Value) -> None:
        """Empty lists: infinite values with index 0, after what precedes all others."""
        flow, b = self.flow, self.builder
        places, lanes = self.layout.list_places, self.plan.lane_count
        for n, (front, empty) in enumerate(((-math.inf, math.inf), (-1.0, 0.0))):
            with flow.loop(i64(0), i64(self.kernel.dim), name="lists") as place:
                start = self._list_address(state, place.index, n, i64(0))
                with flow.loop(i64(0), i64(lanes * places), name="places") as each:
                    ahead = b.icmp_signed("==", b.srem(each.index, i64(places)), i64(0))
                    value = b.select(ahead, _NUMBER(front), _NUMBER(empty))
                    where = flow.at(start, flow.times(each.index, self.layout.outer_item))
                    flow.store(value, where, 8)

    def _insert_function(self) -> ir.Function:
        """insert(list, value, index): put a pair in its place, wherever its index stands.

        `list` is the address of the list's values.
        """
        values, value, index = self._function("insert", BYTES, _NUMBER, _NUMBER)
        new = [self.outer.splat(value), self.outer.splat(index)]
        self._shift(values, self.kernel.merges, {"b": new})
        self.builder.ret_void()
        return self.module.get_global("insert")

    def _shift(
        self,
        values: ir.Value,
        rule: Sequence[Value],
        holes: dict[str, list[ir.Value]],
        given: Known | None = None,
    ) -> None:
        """Apply a rule to all places, the last ones first: each reads itself and its predecessor.

        The rule's holes `a` or `acc` are the place before and the place itself.
        """
        flow, kind = self.flow, self.outer.type
        emitter = Emitter(self.kernel, self.plan, self.outer, self.flow, PAIR)
        width = self.plan.width
        chunks = (self.layout.list_places - 1) // width
        with flow.loop(i64(0), i64(chunks), name="chunks") as chunk:
            first = self.builder.sub(i64(1 + (chunks - 1) * width), flow.times(chunk.index, width))
            here = self._parts(values, first)
            before = self._parts(values, self.builder.sub(first, i64(1)))
            old = [flow.load(kind, address, 8) for address in (*before, *here)]
            known: Known = dict(given or {})
            for hole in (v for v in reachable(rule) if v.what == "hole"):
                name, part = hole.data
                known[hole, (0, 0)] = (old if name in ("a", "acc") else holes[name])[part]
            inside = frozenset().union(*(value.loops for value in rule))
            emitter.emit(rule, [(0, 0)], known, self._no_leaf, inside)
            for address, value in zip(here, rule, strict=True):
                flow.store(known[value, emitter.key(value, (0, 0))], address, 8)

    def _limit(self, state: ir.Value, place: ir.Value, r: int) -> ir.Value:
        """The last values of the lists of vector r, in the dtype of pairs, to compare with."""
        found = ir.Constant(self.simd.type, ir.Undefined)
        for lane in range(self.plan.width):
            values = self._list_address(state, place, 0, i64(r * self.plan.width + lane))
            word = ir.Constant(ir.IntType(32), lane)
            found = self.builder.insert_element(found, self._last(values), word)
        return found

    def _last(self, values: ir.Value) -> ir.Value:
        """The last value of a list, in the dtype of pairs: what it holds came from there."""
        last = self._parts(values, i64(self.kernel.length))[0]
        value = self.flow.load(_NUMBER, last, 8)
        return value if self.simd.scalar == _NUMBER else self.builder.fptrunc(value, _FLOAT)

    def _offer(
        self,
        number: int,
        limit: ir.Value,
        front: ir.Value,
        value: ir.Value,
        column: ir.Value,
        valid: ir.Value | None,
    ) -> ir.Value:
        """Insert a pair's value where it is smaller than the list's last; the last values after.

        `number` is that of the output, `front` the address of the first lane's list, `column` the
        number of the (first) column.
        """
        b, flow, simd = self.builder, self.flow, self.simd
        smaller = simd.compare("<", value, limit)
        if valid is not None:
            smaller = simd.mask_and(smaller, valid)
        lanes = b.zext(b.bitcast(smaller, ir.IntType(self.plan.width)), I64)
        some, after = b.append_basic_block("some"), b.append_basic_block("none")
        before = b.block
        b.cbranch(b.icmp_signed("!=", lanes, i64(0)), some, after).set_weights([1, 1000])
        b.position_at_end(some)
        left, kept = b.phi(I64, "left"), b.phi(limit.type, "kept")
        left.add_incoming(lanes, before)
        kept.add_incoming(limit, before)
        lane = simd.intrinsic("llvm.cttz.i64", I64, left, ir.Constant(ir.IntType(1), 1))
        found: ir.Value = b.extract_element(value, lane)
        wide = found if found.type == _NUMBER else b.fpext(found, _NUMBER)
        own = column if self.row_major else b.add(column, lane)
        values = flow.at(front, flow.times(lane, self._list_bytes()))
        index = self.outer.splat(b.sitofp(own, _NUMBER))
        output, steps = self.kernel.folded[number], self.kernel.steps[number]
        emitter = Emitter(self.kernel, self.plan, self.outer, self.flow, PAIR)
        given: Known = {(output, emitter.key(output, (0, 0))): self.outer.splat(wide)}
        self._shift(values, steps, {"column": [index]}, given)
        changed = b.insert_element(kept, self._last(values), lane)
        rest = b.and_(left, b.sub(left, i64(1)))
        left.add_incoming(rest, b.block)
        kept.add_incoming(changed, b.block)
        inside = b.block
        b.cbranch(b.icmp_signed("!=", rest, i64(0)), some, after)
        b.position_at_end(after)
        limits = b.phi(limit.type, "limit")
        limits.add_incoming(limit, before)
        limits.add_incoming(changed, inside)
        return limits

    def _insert_list(self, into: ir.Value, other: ir.Value) -> None:
        """Insert all pairs of one list into another; both by the address of their values."""
        with self.flow.loop(i64(1), i64(self.kernel.length + 1), name="entries") as position:
            pair = [
                self.flow.load(_NUMBER, address, 8)
                for address in self._parts(other, position.index)
            ]
            self.builder.call(self.insert, [into, *pair])

    def _merge_lists(self, into: ir.Value, other: ir.Value) -> None:
        """Insert the pairs of another unit's lists."""
        flow = self.flow
        with flow.loop(i64(0), i64(self.kernel.dim), name="lists") as place:  # noqa: SIM117
            with flow.loop(i64(0), i64(self.plan.lane_count), name="lanes") as lane:
                self._insert_list(
                    self._list_address(into, place.index, 0, lane.index),
                    self._list_address(other, place.index, 0, lane.index),
                )

    def _gather_lists(self, state: ir.Value) -> None:
        """When lanes are columns: the lists of all lanes into that of lane 0."""
        flow = self.flow
        with flow.loop(i64(0), i64(self.kernel.dim), name="lists") as place:
            first = self._list_address(state, place.index, 0, i64(0))
            with flow.loop(i64(1), i64(self.plan.lane_count), name="lanes") as lane:
                self._insert_list(first, self._list_address(state, place.index, 0, lane.index))

    def _entry_vector(
        self, state: ir.Value, place: ir.Value, position: ir.Value, r: int
    ) -> list[ir.Value]:
        """Values and indices at a place of the lists of vector r, lane by lane."""
        found = [ir.Constant(self.outer.type, ir.Undefined)] * 2
        for lane in range(self.plan.width if self.row_major else 1):
            values = self._list_address(state, place, 0, i64(r * self.plan.width + lane))
            word = ir.Constant(ir.IntType(32), lane)
            for n, address in enumerate(self._parts(values, position)):
                value = self.flow.load(_NUMBER, address, 8)
                found[n] = self.builder.insert_element(found[n], value, word)
        return found
