"""Sums of terms e^(F - m), measured from the running maximum m of the exponents of each row.

A block of columns first finds its largest exponent, then adds up its terms, so no term exceeds 1
and no branch is taken. When a maximum grows, the sums so far are rescaled by e^(before - m).
Maxima stay within the finite numbers: -inf and inf then need no special case, e^(-inf - m) being
0 and e^(inf - m) inf.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from ...core.numbers import to_float
from ...errors import InternalError
from ...lower.accumulators import Accumulator
from ..functions import approximations
from . import ir
from .block import Block
from .context import Code, Places
from .emitter import Key, Known
from .flow import Carried, i64
from .scratch import Run
from .states import Finished, Form, Output, Part, Scale, States, closed, finished


class Maxima:
    """The running maxima of a tile; they lie behind its states.

    An accumulator has one for each component, or one for all where a weight multiplies the terms.
    Those of all accumulators of a kernel are numbered one after the other; accumulators of the same
    exponents share them, and the first of these moves them for all.
    """

    def __init__(self, code: Code, places: Places) -> None:
        self.code, self.kernel, self.plan, self.places = code, code.kernel, code.plan, places
        self.flow, self.outer = code.flow, code.outer
        self.lowest = to_float("lowest", code.plan.dtype)

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

    def _each(self, accumulator: Accumulator) -> contextlib.AbstractContextManager[Carried]:
        """A loop over the maxima of an accumulator."""
        first = accumulator.top
        stop = first + accumulator.folded.maxima
        return self.flow.loop(i64(first), i64(stop), name="maxima")

    def _larger(self, x: ir.Value, y: ir.Value) -> ir.Value:
        """The larger of two, neither being NaN."""
        return self.outer.select(self.outer.compare("<", x, y), y, x)

    def _keep_factor(
        self, name: str, which: ir.Value, r: int, before: ir.Value, after: ir.Value
    ) -> None:
        """Keep e^(before - after), by which sums measured from `before` are multiplied."""
        factor = approximations.FUNCTIONS["exp"](self.outer, self.outer.sub(before, after))
        self.flow.store(factor, self._factor(name, which, r), 8)

    def scaled(self, name: str, parts: Sequence[Part], which: ir.Value, r: int) -> list[Part]:
        """Sums brought from the maximum they were measured from to the present one."""
        factor = self.flow.load(self.outer.type, self._factor(name, which, r), 8)
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

    def merge(self, into: ir.Value, other: ir.Value, accumulator: Accumulator) -> None:
        """The common maxima of two tiles, and what the sums of either are to be multiplied by."""
        flow = self.flow
        with self._each(accumulator) as which:
            for r in range(self.plan.vectors):
                address = self._address(into, which.index, r)
                here = flow.load(self.outer.type, address, 8)
                there = self.load(other, which.index, r)
                common = self._larger(here, there)
                flow.store(common, address, 8)
                self._keep_factor("rescale", which.index, r, here, common)
                self._keep_factor("rescale other", which.index, r, there, common)

    def gather(self, state: ir.Value, accumulator: Accumulator) -> None:
        """When lanes are columns: one maximum for all lanes of a row."""
        with self._each(accumulator) as which:
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
    """Sums of terms that are measured from running maxima: the states of an accumulator."""

    def __init__(self, code: Code, run: Run, places: Places) -> None:
        self.code, self.states, self.maxima = code, States(code, run), Maxima(code, places)
        self.accumulator, self.first, self.stop = run.accumulator, run.first, run.stop

    def _maximum(self, place: ir.Value) -> ir.Value:
        """The number of the maximum that the terms of a place are measured from."""
        own = self.accumulator
        if own.folded.weight is not None:
            return i64(own.top)
        shift = own.top - own.first
        return self.code.builder.add(place, i64(shift)) if shift else place

    def _scale(self, name: str) -> Scale:
        """Sums of a place brought from the maximum they were measured from to the present one."""
        return lambda parts, place, r: self.maxima.scaled(name, parts, self._maximum(place), r)

    def merge(self, into: ir.Value, other: ir.Value) -> None:
        """Join the states of two tiles."""
        if not self.accumulator.shares:
            self.maxima.merge(into, other, self.accumulator)
        self.states.merge(into, other, (self._scale("rescale"), self._scale("rescale other")))

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
            self.states.end(block, place, own, self._scale("rescale"))

    def gather(self, state: ir.Value) -> None:
        """When lanes are columns: one maximum for all lanes of a row."""
        if not self.code.row_major and not self.accumulator.shares:
            self.maxima.gather(state, self.accumulator)

    def finish(self, state: ir.Value, columns: ir.Value) -> Iterator[Finished]:
        """The results of a vector of rows."""
        own, outer, scale = self.accumulator, self.code.outer, self._scale("rescale")
        for output, component in self.states.components(own):
            _, place = output
            parts, total = self.states.whole(state, place, scale), None
            if own.total is not None:
                (of_all,) = self.states.whole(state, i64(own.first + own.count), scale)
                total = closed(outer, *of_all)
            maximum = self.maxima.load(state, self._maximum(place), 0)
            values = [closed(outer, *part) for part in parts]
            values = finished(self.code, own, columns, values, maximum, total)
            for n, (value, result) in enumerate(zip(values, own.rule.results, strict=True)):
                # A maximum for all components is written again with each of them.
                once = result.per == "maximum" and own.folded.weight is not None
                yield Finished(own.result + n, i64(0) if once else component, value, output)

    def narrowed(self, state: ir.Value, lane: ir.Value) -> tuple[Form, ir.Value]:
        """Lanes lie side by side."""
        flow = self.code.flow
        return self, flow.at(state, flow.times(lane, self.code.layout.outer_item))

    def limit(self, state: ir.Value) -> ir.Value:
        """None: every term counts."""
        raise InternalError("sums have no limit for a screen")
