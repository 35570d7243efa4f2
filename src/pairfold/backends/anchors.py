"""Anchors of rows: the largest exponent so far, from which terms e^(F - top) are measured.

A block of columns first finds its largest exponent, then adds up its terms, so no term exceeds 1
and no branch is taken. When an anchor moves up, the sums so far are rescaled by e^(before - top).
Anchors stay within the finite numbers: -inf and inf then need no special case, e^(-inf - top) being
0 and e^(inf - top) inf.
"""

from __future__ import annotations

from collections.abc import Sequence

from llvmlite import ir

from ..core.scalars import to_float
from . import approximations
from .flow import i64
from .writer import Writer


class Anchors(Writer):
    """Writes what happens to anchors; they lie behind the states of their unit."""

    def _anchor_address(self, state: ir.Value, which: ir.Value, r: int) -> ir.Value:
        """Lanes of vector r of anchor `which`."""
        lanes, item = self.plan.lane_count, self.layout.outer_item
        start = self.layout.state_words * lanes * item + r * self.plan.width * item
        place = self.flow.times(which, lanes * item)
        return self.flow.at(state, self.builder.add(place, i64(start)))

    def _scale_address(self, name: str, which: ir.Value, r: int) -> ir.Value:
        """Where the factor for the sums under anchor `which` is kept while they are merged."""
        shift = r * self.plan.width * self.layout.outer_item
        place = self.flow.times(which, self.plan.lane_count * self.layout.outer_item)
        return self.flow.at(self.places[name], self.builder.add(place, i64(shift)))

    def _top_address(self, which: ir.Value, r: int) -> ir.Value:
        """Where the anchor is kept, in the dtype of pairs, while a block is folded."""
        shift = r * self.plan.width * self.item
        place = self.flow.times(which, self.plan.lane_count * self.item)
        return self.flow.at(self.places["tops"], self.builder.add(place, i64(shift)))

    def _lowest(self) -> float:
        return to_float("lowest", self.plan.dtype)

    def _reset_anchors(self, state: ir.Value) -> None:
        if not self.kernel.anchors:
            return
        with self.flow.loop(i64(0), i64(self.kernel.anchors), name="anchors") as which:
            for r in range(self.plan.vectors):
                lowest = self.outer.constant(self._lowest())
                self.flow.store(lowest, self._anchor_address(state, which.index, r), 8)

    def _larger(self, x: ir.Value, y: ir.Value) -> ir.Value:
        """The larger of two anchors, neither being NaN."""
        return self.outer.select(self.outer.compare("<", x, y), y, x)

    def _move(self, name: str, which: ir.Value, r: int, before: ir.Value, top: ir.Value) -> None:
        """Keep e^(before - top), by which sums under the anchor `before` are multiplied."""
        factor = approximations.FUNCTIONS["exp"](self.outer, self.outer.sub(before, top))
        self.flow.store(factor, self._scale_address(name, which, r), 8)

    def _raise_anchor(self, state: ir.Value, which: ir.Value, largest: Sequence[ir.Value]) -> None:
        """Move an anchor up to the largest exponents of a block (one vector of lanes each)."""
        flow, outer = self.flow, self.outer
        for r, block in enumerate(largest):
            address = self._anchor_address(state, which, r)
            before = flow.load(outer.type, address, 8)
            limit = outer.constant(-self._lowest())
            block = self.code.to_outer(block)
            block = outer.select(outer.compare("<", limit, block), limit, block)
            top = self._larger(before, block)
            flow.store(top, address, 8)
            self._move("rescale", which, r, before, top)
            narrow = (
                top if top.type == self.simd.type else self.builder.fptrunc(top, self.simd.type)
            )
            flow.store(narrow, self._top_address(which, r), 4)

    def _merge_anchors(self, into: ir.Value, other: ir.Value) -> None:
        """The common anchors of two units, and what their sums are to be multiplied by."""
        if not self.kernel.anchors:
            return
        flow = self.flow
        with flow.loop(i64(0), i64(self.kernel.anchors), name="anchors") as which:
            for r in range(self.plan.vectors):
                address = self._anchor_address(into, which.index, r)
                here = flow.load(self.outer.type, address, 8)
                there = flow.load(self.outer.type, self._anchor_address(other, which.index, r), 8)
                top = self._larger(here, there)
                flow.store(top, address, 8)
                self._move("rescale", which.index, r, here, top)
                self._move("rescale other", which.index, r, there, top)

    def _gather_anchors(self, state: ir.Value) -> None:
        """When lanes are columns: one anchor for all lanes of a row."""
        if not self.kernel.anchors:
            return
        flow = self.flow
        with flow.loop(i64(0), i64(self.kernel.anchors), name="anchors") as which:
            lanes = [
                flow.load(self.outer.type, self._anchor_address(state, which.index, r), 8)
                for r in range(self.plan.vectors)
            ]
            top = lanes[0]
            for vector in lanes[1:]:
                top = self._larger(top, vector)
            shift = self.plan.width // 2
            while shift:
                top = self._larger(top, self.code.rotated(top, shift))
                shift //= 2
            for r, before in enumerate(lanes):
                self._move("rescale", which.index, r, before, top)
                flow.store(top, self._anchor_address(state, which.index, r), 8)
