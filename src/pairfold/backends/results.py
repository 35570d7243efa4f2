"""From states to results: finish rows, write them to output arrays of any strides."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from llvmlite import ir

from ..core.scalars import Loop, reachable
from ..lower.kernel import PAIR
from .context import no_leaf
from .emitter import Emitter, Known, Leaf
from .flow import BYTES, I8, I64, i64
from .lists import Lists
from .simd import Simd
from .states import Part


class Results(Lists):
    """Writes what happens to the states of rows at the end."""

    scratch: ir.Value
    folded: ir.Value

    def _reset(self, state: ir.Value, units: ir.Value) -> None:
        """States of empty rows."""
        with self.flow.loop(i64(0), units, name="units") as unit:
            base = self.code.unit_state(state, unit.index)
            if self.kernel.reduction.listed:
                self._reset_lists(base)
            else:
                self._reset_states(base)

    def _merge_units(self, into: ir.Value, other: ir.Value) -> None:
        if self.kernel.reduction.listed:
            self._merge_lists(into, other)
        else:
            self._merge_states(into, other)

    def _finish_function(self) -> ir.Function:
        """finish(args, scratch, batch, first, count, columns, state): states of rows to results.

        `columns` is how many of them were folded.
        """
        args, scratch, batch, first, count, columns, state = self._function(
            "finish", BYTES, BYTES, I64, I64, I64, I64, BYTES
        )
        flow, b = self.flow, self.builder
        self.args, self.scratch, self.folded = args, scratch, columns
        self._enter(scratch)
        listed = self.kernel.reduction.listed
        with flow.loop(i64(0), self.code.units(count), name="units") as unit:
            self.row_buffer = self.code.unit_rows(self.places["rows"], unit.index)
            base = self.code.unit_state(state, unit.index)
            if not self.row_major:
                (self._gather_lists if listed else self._gather_anchors)(base)
            if listed:
                self._finish_lists(base)
            else:
                for place, each in self._components():
                    self._finish_component(base, place, each)
            start = flow.times(unit.index, self.plan.lane_count if self.row_major else 1)
            here = i64(1)
            if self.row_major:
                here = flow.minimum(i64(self.plan.lane_count), b.sub(count, start))
            for number in range(len(self.kernel.results)):
                self._write_rows(args, batch, number, b.add(first, start), here)
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
        vectors = self._row_vectors(state, component)
        totals: list[list[Part]] = []
        if self.kernel.total is not None:
            totals = self._row_vectors(state, i64(self.kernel.dim))
        for r, states in enumerate(vectors):
            anchor = None
            if self.kernel.anchors:
                address = self._anchor_address(state, self._anchor_of(component), r)
                anchor = self.flow.load(self.outer.type, address, 8)
            total = self._closed(self.outer, *totals[r][0]) if totals else None
            closed = [self._closed(self.outer, *pair) for pair in states]
            for number, value in enumerate(self._finished(closed, anchor, total)):
                value = self._times_factor(value, place, component, r)
                own = self.kernel.reduction.results[number].per == "component"
                # An anchor for all components is written again with each of them.
                self._keep_result(
                    number, component if own else self._anchor_of(component), r, value
                )

    def _row_vectors(self, state: ir.Value, component: ir.Value) -> list[list[Part]]:
        """The states of a component, a vector of rows each; one vector where lanes are columns."""
        vectors = [self._loaded(state, component, r) for r in range(self.plan.vectors)]
        if self.row_major:
            return vectors
        if self.kernel.anchors:
            vectors = [
                self._rescaled("rescale", parts, component, r) for r, parts in enumerate(vectors)
            ]
        return [self._across(vectors)]

    def _finish_lists(self, state: ir.Value) -> None:
        flow, dim = self.flow, self.kernel.dim
        self._settle_lists(state)
        with flow.loop(i64(0), i64(dim * self.kernel.length), name="lists") as which:
            position = self.builder.sdiv(which.index, i64(dim))
            place = self.builder.srem(which.index, i64(dim))
            for r in range(self.plan.vectors if self.row_major else 1):
                parts = self._entry_vector(state, place, position, r)
                for number, value in enumerate(self._finished(parts, None, None)):
                    self._keep_result(number, which.index, r, value)

    @staticmethod
    def _closed(simd: Simd, high: ir.Value, low: ir.Value | None) -> ir.Value:
        """A compensated sum as one number; an infinite sum has no meaningful correction."""
        if low is None:
            return high
        return simd.select(simd.isnan(low), high, simd.add(high, low))

    def _finished(
        self, states: Sequence[ir.Value], top: ir.Value | None, total: ir.Value | None
    ) -> list[ir.Value]:
        """The reduction's finish: one value per result."""
        emitter = Emitter(self.kernel, self.plan, self.outer, self.flow, PAIR)
        count = self.builder.sitofp(self.folded, self.outer.scalar)
        given = {"a": states, "top": [top], "total": [total], "count": [self.outer.splat(count)]}
        targets = self.kernel.finished
        known: Known = {
            (value, (0, 0)): given[value.data[0]][value.data[1]]
            for value in reachable(targets)
            if value.what == "hole"
        }
        emitter.emit(targets, [(0, 0)], known, no_leaf)
        return [known[target, emitter.key(target, (0, 0))] for target in targets]

    def _times_factor(
        self,
        result: ir.Value,
        place: int,
        component: ir.Value,
        r: int,
        leaf: Leaf | None = None,
    ) -> ir.Value:
        factor = self.kernel.factors[place]
        if factor is None:
            return result
        emitter = self.code.emitter(PAIR, self.scratch)
        known: Known = {}
        inside: frozenset[Loop] = frozenset()
        if self.kernel.output_loop is not None:
            known[self.kernel.output_loop.index, (0, 0)] = component
            inside = frozenset((self.kernel.output_loop,))
        emitter.emit([factor], [(0, r)], known, leaf or self._pair_leaf(i64(0)), inside)
        value = known[factor, emitter.key(factor, (0, r))]
        self.code.refuse(self.args, self.simd.isnan(self.simd.sub(value, value)))
        return self.builder.fmul(self.code.to_outer(value), result)

    def _element(self, number: int) -> tuple[ir.Type, int]:
        """The type of a result while it is kept, and its bytes."""
        if self.kernel.reduction.results[number].kind == "value":
            return self.simd.scalar, self.item
        return I64, 8

    def _keep_result(self, number: int, component: ir.Value, r: int, value: ir.Value) -> None:
        """Keep one component of a result of a unit, to be written when the unit is finished."""
        b, width = self.builder, self.plan.width
        kind = self.kernel.reduction.results[number].kind
        element, item = self._element(number)
        if kind == "index":
            value = b.fptosi(value, ir.VectorType(element, width))
        elif kind == "truth":
            value = b.zext(
                self.outer.compare("!=", value, self.outer.constant(0)),
                ir.VectorType(element, width),
            )
        elif value.type != self.simd.type:
            value = b.fptrunc(value, self.simd.type)
        start = self.flow.times(component, self.plan.lane_count * item)
        place = b.add(start, i64(r * width * item))
        self.flow.store(value, self.flow.at(self.places[f"result {number}"], place), 4)

    def _write_rows(
        self, args: ir.Value, batch: ir.Value, number: int, first: ir.Value, count: ir.Value
    ) -> None:
        """Copy finished rows to an output array, whatever its strides."""
        flow, b = self.flow, self.builder
        base, stride, step = self.code.array(number, args, batch)
        element, item = self._element(number)
        kind = self.kernel.reduction.results[number].kind
        target = flow.at(base, b.mul(first, stride))
        size = self.kernel.results[number]
        with flow.loop(i64(0), i64(size), name="write_components") as component:
            source = flow.at(
                self.places[f"result {number}"],
                flow.times(component.index, self.plan.lane_count * item),
            )
            to = flow.at(target, b.mul(component.index, step))
            with flow.loop(i64(0), count, name="write") as row:
                value = flow.load(element, flow.at(source, flow.times(row.index, item)), item)
                if kind == "truth":
                    value = b.trunc(value, I8)
                elif kind == "value":
                    value = self.storage.closed(b, value)
                flow.store(value, flow.at(to, b.mul(row.index, stride)), 1)
