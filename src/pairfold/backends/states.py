"""States of rows in memory: reset, merge block after block, finish, write out.

Layout: [unit][component][state][lane], each state followed by the correction of its compensated
sum where the plan asks for one. A unit is a tile of rows, or one row spread over the lanes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from llvmlite import ir

from ..core.scalars import Loop, reachable
from ..lower.kernel import PAIR
from .emitter import Emitter, Known
from .flow import BYTES, I64, i64
from .packing import Packing
from .simd import Simd
from .words import OUT, OUT_COMPONENT_STRIDE, OUT_ROW_STRIDE


class States(Packing):
    """Writes what happens to running states outside the inner loop."""

    args: ir.Value
    scratch: ir.Value

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

    def _state_address(self, state: ir.Value, place: ir.Value, number: int) -> ir.Value:
        """Lanes of state `number` (with its correction after it) of component `place`."""
        words = len(self.kernel.reduction.identity) * self.layout.components
        bytes_per_word = self.plan.lane_count * self.layout.outer_item
        start = self.flow.times(place, words * bytes_per_word)
        shift = i64(number * self.layout.components * bytes_per_word)
        return self.flow.at(state, self.builder.add(start, shift))

    def _lane_address(self, state: ir.Value, place: ir.Value, number: int, r: int) -> ir.Value:
        shift = r * self.plan.width * self.layout.outer_item
        return self.flow.at(self._state_address(state, place, number), i64(shift))

    def _correction(self, address: ir.Value) -> ir.Value:
        return self.flow.at(address, i64(self.plan.lane_count * self.layout.outer_item))

    def _to_outer(self, value: ir.Value) -> ir.Value:
        if value.type == self.outer.type:
            return value
        return self.builder.fpext(value, self.outer.type)

    def _flush(self, state: ir.Value, place: ir.Value, states: Sequence[ir.Value]) -> None:
        """Merge a block's accumulators into the states of component `place`."""
        vectors = self.plan.vectors
        count = len(self.kernel.reduction.identity)
        for r in range(vectors):
            block = [self._to_outer(states[number * vectors + r]) for number in range(count)]
            self._merge_vector(state, place, r, [(value, None) for value in block])

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

    def _finish_function(self) -> ir.Function:
        """finish(args, scratch, batch, first, count, state): states of rows to results."""
        args, scratch, batch, first, count, state = self._function(
            "finish", BYTES, BYTES, I64, I64, I64, BYTES
        )
        flow, b = self.flow, self.builder
        self.args, self.scratch = args, scratch
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
        """One component of one unit, times the factor that had left the sum.

        inf * sum is not the sum of inf * terms: a factor that is not finite is reported, and the
        caller folds again with the factor inside.
        """
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
            current = [self._merged(self.outer, current[n], current[n + half]) for n in range(half)]
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

    def _times_factor(self, result: ir.Value, place: int, component: ir.Value, r: int) -> ir.Value:
        factor = self.kernel.factors[place]
        if factor is None:
            return result
        emitter = Emitter(self.kernel, self.plan, self.simd, self.flow, PAIR)
        self._equipped(emitter, self.scratch)
        known: Known = {}
        inside: frozenset[Loop] = frozenset()
        if self.kernel.output_loop is not None:
            known[self.kernel.output_loop.index, (0, 0)] = component
            inside = frozenset((self.kernel.output_loop,))
        emitter.emit([factor], [(0, r)], known, self._pair_leaf(i64(0)), inside)
        value = known[factor, emitter.key(factor, (0, r))]
        self.refuse(self.args, self.simd.isnan(self.simd.sub(value, value)))
        return self.builder.fmul(self._to_outer(value), result)

    def _write_rows(self, args: ir.Value, out: ir.Value, first: ir.Value, count: ir.Value) -> None:
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
