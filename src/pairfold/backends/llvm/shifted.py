"""Sums of terms e^(F - m), measured from the running maximum m of the exponents of each row.

A block of columns first finds its largest exponent, then adds up its terms, so no term exceeds 1
and no branch is taken. When a maximum grows, the sums so far are rescaled by e^(before - m).
Maxima stay within the finite numbers: -inf and inf then need no special case, e^(-inf - m) being
0 and e^(inf - m) inf.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from llvmlite import ir

from ...core.scalars import to_float
from ...errors import InternalError
from ..functions import approximations
from .block import Block
from .context import Code, Places
from .emitter import Key, Known
from .flow import i64
from .states import Finished, Output, Part, Scale, States, closed, finished


class Maxima:
    """The running maxima of a unit; they lie behind its states.

    A kernel has one for each component, or one for all where a weight multiplies the terms.
    """

    def __init__(self, code: Code, places: Places) -> None:
        self.code, self.kernel, self.plan, self.places = code, code.kernel, code.plan, places
        self.flow, self.outer = code.flow, code.outer
        self.lowest = to_float("lowest", code.plan.dtype)

    def of(self, component: ir.Value) -> ir.Value:
        """The number of the maximum that a component's terms are measured from."""
        return component if self.kernel.weight is None else i64(0)

    def _address(self, state: ir.Value, which: ir.Value, r: int) -> ir.Value:
        """Lanes of vector r of maximum `which`."""
        lanes, item = self.plan.lane_count, self.code.layout.outer_item
        start = self.code.layout.state_words * lanes * item + r * self.plan.width * item
        place = self.flow.times(which, lanes * item)
        return self.flow.at(state, self.code.builder.add(place, i64(start)))

    def _kept(self, name: str, item: int, which: ir.Value, r: int) -> ir.Value:
        """Where a number for each lane is kept while a block is folded, or sums are merged."""
        place = self.flow.times(which, self.plan.lane_count * item)
        shift = i64(r * self.plan.width * item)
        return self.flow.at(self.places[name], self.code.builder.add(place, shift))

    def _factor(self, name: str, which: ir.Value, r: int) -> ir.Value:
        """The address of the factor for the sums under a maximum."""
        return self._kept(name, self.code.layout.outer_item, which, r)

    def load(self, state: ir.Value, which: ir.Value, r: int) -> ir.Value:
        """Vector r of a maximum."""
        return self.flow.load(self.outer.type, self._address(state, which, r), 8)

    def load_narrow(self, which: ir.Value, r: int) -> ir.Value:
        """Vector r of a maximum in the dtype of pairs, as the last `grow` left it."""
        address = self._kept("maxima", self.code.item, which, r)
        return self.flow.load(self.code.simd.type, address, 4)

    def reset(self, state: ir.Value) -> None:
        """The maxima of no columns."""
        with self.flow.loop(i64(0), i64(self.kernel.anchors), name="anchors") as which:
            for r in range(self.plan.vectors):
                lowest = self.outer.constant(self.lowest)
                self.flow.store(lowest, self._address(state, which.index, r), 8)

    def _larger(self, x: ir.Value, y: ir.Value) -> ir.Value:
        """The larger of two, neither being NaN."""
        return self.outer.select(self.outer.compare("<", x, y), y, x)

    def _keep_factor(
        self, name: str, which: ir.Value, r: int, before: ir.Value, after: ir.Value
    ) -> None:
        """Keep e^(before - after), by which sums measured from `before` are multiplied."""
        factor = approximations.FUNCTIONS["exp"](self.outer, self.outer.sub(before, after))
        self.flow.store(factor, self._factor(name, which, r), 8)

    def scale(self, name: str) -> Scale:
        """Sums brought from the maximum they were measured from to the present one."""
        return partial(self._scaled, name)

    def _scaled(self, name: str, parts: Sequence[Part], place: ir.Value, r: int) -> list[Part]:
        factor = self.flow.load(self.outer.type, self._factor(name, self.of(place), r), 8)
        return [
            (self.outer.mul(high, factor), None if low is None else self.outer.mul(low, factor))
            for high, low in parts
        ]

    def grow(self, state: ir.Value, which: ir.Value, largest: Sequence[ir.Value]) -> None:
        """Take in the largest exponents of a block (one vector of lanes each)."""
        flow, outer, simd = self.flow, self.outer, self.code.simd
        for r, block in enumerate(largest):
            address = self._address(state, which, r)
            before = flow.load(outer.type, address, 8)
            limit = outer.constant(-self.lowest)
            block = self.code.to_outer(block)
            block = outer.select(outer.compare("<", limit, block), limit, block)
            after = self._larger(before, block)
            flow.store(after, address, 8)
            self._keep_factor("rescale", which, r, before, after)
            if after.type != simd.type:
                after = self.code.builder.fptrunc(after, simd.type)
            flow.store(after, self._kept("maxima", self.code.item, which, r), 4)

    def merge(self, into: ir.Value, other: ir.Value) -> None:
        """The common maxima of two units, and what the sums of either are to be multiplied by."""
        flow = self.flow
        with flow.loop(i64(0), i64(self.kernel.anchors), name="anchors") as which:
            for r in range(self.plan.vectors):
                address = self._address(into, which.index, r)
                here = flow.load(self.outer.type, address, 8)
                there = self.load(other, which.index, r)
                common = self._larger(here, there)
                flow.store(common, address, 8)
                self._keep_factor("rescale", which.index, r, here, common)
                self._keep_factor("rescale other", which.index, r, there, common)

    def gather(self, state: ir.Value) -> None:
        """When lanes are columns: one maximum for all lanes of a row."""
        with self.flow.loop(i64(0), i64(self.kernel.anchors), name="anchors") as which:
            lanes = [self.load(state, which.index, r) for r in range(self.plan.vectors)]
            common = lanes[0]
            for vector in lanes[1:]:
                common = self._larger(common, vector)
            shift = self.plan.width // 2
            while shift:
                common = self._larger(common, self.code.rotated(common, shift))
                shift //= 2
            for r, before in enumerate(lanes):
                self._keep_factor("rescale", which.index, r, before, common)
                self.flow.store(common, self._address(state, which.index, r), 8)


class MaxShifted:
    """Sums of terms that are measured from running maxima."""

    def __init__(self, code: Code, places: Places) -> None:
        self.code, self.states, self.maxima = code, States(code), Maxima(code, places)
        self.lane_bytes = code.layout.outer_item

    def reset(self, state: ir.Value) -> None:
        """The states of an empty unit."""
        self.states.reset(state)
        self.maxima.reset(state)

    def merge(self, into: ir.Value, other: ir.Value) -> None:
        """Join the states of two units."""
        self.maxima.merge(into, other)
        scales = self.maxima.scale("rescale"), self.maxima.scale("rescale other")
        self.states.merge(into, other, scales)

    def begin(self, block: Block, outputs: Sequence[Output]) -> list[list[ir.Value]]:
        """The accumulators of a block."""
        return [self.states.initial(block.vectors) for _ in outputs]

    def step(
        self,
        block: Block,
        output: Output,
        carried: Sequence[ir.Value],
        instances: Sequence[Key],
        local: Known,
        at: ir.Value,
    ) -> list[ir.Value]:
        """The accumulators after some pairs."""
        return self.states.step(block, output[0], carried, instances, local, at)

    def end(
        self, block: Block, outputs: Sequence[Output], carried: Sequence[Sequence[ir.Value]]
    ) -> None:
        """Merge accumulators into the states, which are rescaled to the maxima of the block."""
        for (_, place), own in zip(outputs, carried, strict=True):
            self.states.end(block, place, own, self.maxima.scale("rescale"))

    def gather(self, state: ir.Value) -> None:
        """One maximum for all lanes of a row."""
        self.maxima.gather(state)

    def finish(self, state: ir.Value, columns: ir.Value) -> Iterator[Finished]:
        """The results of a unit."""
        kernel, outer, scale = self.code.kernel, self.code.outer, self.maxima.scale("rescale")
        for output, component in self.states.components(kernel.only):
            vectors = self.states.vectors(state, component, scale)
            totals: list[list[Part]] = []
            if kernel.total is not None:
                totals = self.states.vectors(state, i64(kernel.dim), scale)
            for r, parts in enumerate(vectors):
                maximum = self.maxima.load(state, self.maxima.of(component), r)
                total = closed(outer, *totals[r][0]) if totals else None
                values = [closed(outer, *part) for part in parts]
                values = finished(self.code, kernel.only, columns, values, maximum, total)
                for number, value in enumerate(values):
                    own = kernel.only.rule.results[number].per == "component"
                    # A maximum for all components is written again with each of them.
                    at = component if own else self.maxima.of(component)
                    yield Finished(number, at, r, value, output)

    def limit(self, state: ir.Value) -> ir.Value:
        """None: every term counts."""
        raise InternalError("sums have no limit for a screen")
