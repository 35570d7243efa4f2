"""States of rows in memory: reset, and merge, block after block or split after split.

Layout: [unit][component][state][lane], each state followed by the correction of its compensated
sum where the plan asks for one; the total counts as one more component. Anchors lie behind. A unit
is a tile of rows, or one row spread over the lanes.
"""

from __future__ import annotations

from collections.abc import Sequence

from llvmlite import ir

from ..core.scalars import number, reachable, to_float
from ..lower.kernel import PAIR
from .anchors import Anchors
from .context import no_leaf
from .emitter import Emitter, Known
from .flow import i64
from .simd import Simd

# A number with its correction, where sums are compensated.
Part = tuple[ir.Value, ir.Value | None]


class States(Anchors):
    """Writes what happens to running states outside the inner loop."""

    args: ir.Value

    def _identity(self, dtype: str) -> list[float]:
        return [to_float(number(value), dtype) for value in self.kernel.reduction.identity]

    def _anchor_of(self, place: ir.Value) -> ir.Value:
        """The anchor that a component's sum is measured from."""
        return place if self.kernel.weight is None else i64(0)

    def _reset_states(self, state: ir.Value) -> None:
        """The states of an empty unit."""
        flow = self.flow
        with flow.loop(i64(0), i64(self.kernel.places), name="reset") as place:
            for n, value in enumerate(self._identity(self.plan.dtype)):
                for r in range(self.plan.vectors):
                    address = self._lane_address(state, place.index, n, r)
                    flow.store(self.outer.constant(value), address, 8)
                    if self.plan.accumulation.compensated:
                        flow.store(self.outer.constant(0), self._correction(address), 8)
        self._reset_anchors(state)

    def _state_address(self, state: ir.Value, place: ir.Value, n: int) -> ir.Value:
        """Lanes of state number n (with its correction after it) of component `place`."""
        bytes_per_word = self.plan.lane_count * self.layout.outer_item
        start = self.flow.times(place, self.layout.place_words * bytes_per_word)
        shift = i64(n * self.layout.components * bytes_per_word)
        return self.flow.at(state, self.builder.add(start, shift))

    def _lane_address(self, state: ir.Value, place: ir.Value, n: int, r: int) -> ir.Value:
        shift = r * self.plan.width * self.layout.outer_item
        return self.flow.at(self._state_address(state, place, n), i64(shift))

    def _correction(self, address: ir.Value) -> ir.Value:
        return self.flow.at(address, i64(self.plan.lane_count * self.layout.outer_item))

    def _loaded(self, state: ir.Value, place: ir.Value, r: int) -> list[Part]:
        """Vector r of the states of component `place`."""
        found: list[Part] = []
        for n in range(len(self.kernel.reduction.identity)):
            address = self._lane_address(state, place, n, r)
            low = None
            if self.plan.accumulation.compensated:
                low = self.flow.load(self.outer.type, self._correction(address), 8)
            found.append((self.flow.load(self.outer.type, address, 8), low))
        return found

    def _rescaled(self, name: str, parts: Sequence[Part], place: ir.Value, r: int) -> list[Part]:
        """Sums brought from the anchor they were measured from to the present one."""
        if not self.kernel.anchors:
            return list(parts)
        address = self._scale_address(name, self._anchor_of(place), r)
        factor = self.flow.load(self.outer.type, address, 8)
        return [
            (self.outer.mul(high, factor), None if low is None else self.outer.mul(low, factor))
            for high, low in parts
        ]

    def _flush(
        self, state: ir.Value, place: ir.Value, states: Sequence[ir.Value], base: ir.Value
    ) -> None:
        """Merge a block's accumulators into the states of component `place`.

        Column numbers count from the start of the block, at column `base`.
        """
        vectors = self.vectors
        kinds = self.kernel.reduction.kinds
        start = self.outer.splat(self.builder.sitofp(base, self.outer.scalar))
        for r in range(vectors):
            block: list[Part] = []
            for n, kind in enumerate(kinds):
                value = self.code.to_outer(states[n * vectors + r])
                block.append((self.outer.add(value, start) if kind == "index" else value, None))
            self._merge_vector(state, place, r, block, ("rescale", None))

    def _merge_vector(
        self,
        state: ir.Value,
        place: ir.Value,
        r: int,
        other: Sequence[Part],
        scales: tuple[str | None, str | None],
    ) -> None:
        """state = merge(state, other) for vector r of component `place`."""
        current = self._loaded(state, place, r)
        if scales[0]:
            current = self._rescaled(scales[0], current, place, r)
        if scales[1]:
            other = self._rescaled(scales[1], other, place, r)
        merged = self._merged(self.outer, current, other)
        for n, (high, low) in enumerate(merged):
            address = self._lane_address(state, place, n, r)
            self.flow.store(high, address, 8)
            if low is not None:
                self.flow.store(low, self._correction(address), 8)

    def _merged(self, simd: Simd, a: Sequence[Part], b: Sequence[Part]) -> list[Part]:
        """The reduction's merge; compensated sums keep the rounding error of every addition."""
        if self.plan.accumulation.compensated:
            return [self._two_sum(simd, x, y) for x, y in zip(a, b, strict=True)]
        emitter = Emitter(self.kernel, self.plan, simd, self.flow, PAIR)
        known: Known = {}
        for hole in (v for v in reachable(self.kernel.merges) if v.what == "hole"):
            name, place = hole.data
            known[hole, (0, 0)] = (a if name == "a" else b)[place][0]
        emitter.emit(self.kernel.merges, [(0, 0)], known, no_leaf)
        return [(known[value, emitter.key(value, (0, 0))], None) for value in self.kernel.merges]

    @staticmethod
    def _two_sum(simd: Simd, a: Part, b: Part) -> tuple[ir.Value, ir.Value]:
        """Knuth's TwoSum: high = a + b rounded; what the rounding lost joins the correction."""
        high = simd.add(a[0], b[0])
        back = simd.sub(high, a[0])
        lost = simd.add(simd.sub(a[0], simd.sub(high, back)), simd.sub(b[0], back))
        low = lost if a[1] is None else simd.add(a[1], lost)
        return high, low if b[1] is None else simd.add(low, b[1])

    def _merge_states(self, into: ir.Value, other: ir.Value) -> None:
        """Join the states of two units."""
        self._merge_anchors(into, other)
        with self.flow.loop(i64(0), i64(self.kernel.places), name="merging") as place:
            for r in range(self.plan.vectors):
                there = self._loaded(other, place.index, r)
                self._merge_vector(into, place.index, r, there, ("rescale", "rescale other"))

    def _across(self, vectors: Sequence[Sequence[Part]]) -> list[Part]:
        """Merge all lanes into lane 0, halving: vectors first, then halves of the vector."""
        current = [list(states) for states in vectors]
        while len(current) > 1:
            half = len(current) // 2
            current = [self._merged(self.outer, current[n], current[n + half]) for n in range(half)]
        states, shift = current[0], self.plan.width // 2
        while shift:
            moved: list[Part] = [
                (
                    self.code.rotated(high, shift),
                    None if low is None else self.code.rotated(low, shift),
                )
                for high, low in states
            ]
            states = self._merged(self.outer, states, moved)
            shift //= 2
        return states
