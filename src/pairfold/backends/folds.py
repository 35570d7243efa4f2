"""Loops over a packed block of columns: accumulators in registers, states flushed after it.

All parts of a formula that pairs need are computed here, for a few columns and vectors of rows in
lock-step; components of long outputs come after, in `products`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from llvmlite import ir

from ..core.scalars import Loop, Value, reachable
from ..lower.kernel import COLUMN, PAIR
from ..lower.schedule import cells
from .emitter import Emitter, Key, Known, Leaf
from .flow import Carried, i64
from .results import Results


class Folds(Results):
    """Writes the loops over a block, with all components at once."""

    count: ir.Value
    base: ir.Value
    state: ir.Value
    emitter: Emitter
    iota: ir.Value

    def _invariant(self, targets: Sequence[Value], instances: Sequence[Key], known: Known) -> None:
        """Read once, before the loop over columns, what does not vary in it."""
        leaf = self._pair_leaf(i64(0))
        for value in self.kernel.needed(targets, PAIR):
            if value.kind == "index" or value.loops or value.stage & COLUMN:
                continue
            if self.kernel.is_leaf(value, PAIR):
                self.emitter.emit([value], instances, known, leaf)

    def _instances(self, jam: int = 1) -> list[Key]:
        return [(u, r) for u in range(jam) for r in range(self.vectors)]

    def _starting(self, places: Sequence[ir.Value]) -> list[ir.Value]:
        """What the loop over a block carries for components: states, or lists' last values."""
        if not self.kernel.reduction.listed:
            return self._initial() * len(places)
        vectors = range(self.vectors)
        return [self._limit(self.state, place, r) for place in places for r in vectors]

    def _carried(self) -> int:
        """Values carried per component."""
        return self.vectors if self.kernel.reduction.listed else len(self._initial())

    def _initial(self) -> list[ir.Value]:
        """The states that a block starts from."""
        return [
            self.inner.constant(value)
            for value in self._identity(self.plan.dtype)
            for _ in range(self.vectors)
        ]

    def _columns(
        self,
        carried: Sequence[ir.Value],
        body: Callable[[Carried, int], None],
    ) -> list[ir.Value]:
        """The loop over a block: `jam` columns at a time, then the rest one by one."""
        state = list(carried)
        if not self.row_major:
            stop = self.code.round_up(self.count, self.plan.lane_count)
            with self.flow.loop(i64(0), stop, self.plan.lane_count, state, name="pairs") as columns:
                body(columns, 1)
            return columns.results
        jam = self.plan.jam
        start: ir.Value = i64(0)
        if jam > 1:
            jammed = self.builder.mul(self.builder.sdiv(self.count, i64(jam)), i64(jam))
            with self.flow.loop(start, jammed, jam, state, name="pairs") as columns:
                body(columns, jam)
            start, state = jammed, columns.results
        with self.flow.loop(start, self.count, 1, state, name="pairs" if jam == 1 else "rest") as c:
            body(c, 1)
        return c.results

    def _fold_short(self) -> None:
        """All components at once, their accumulators in registers."""
        kernel = self.kernel
        known: Known = {}
        if kernel.anchors:
            self._fold_scores([i64(place) for place in range(len(kernel.scores))], {})
        self._holes(known, [i64(place) for place in range(kernel.anchors)])
        self._invariant(kernel.folded, self._instances(self.plan.jam), known)
        per_output = self._carried()
        places = [i64(place) for place in range(len(kernel.folded))]

        def body(columns: Carried, jam: int) -> None:
            instances = self._instances(jam)
            local = dict(known)
            self._recall_scores(local, instances, columns.index)
            self.emitter.emit(kernel.folded, instances, local, self._pair_leaf(columns.index))
            columns.next = list(columns.values)
            for place in range(len(kernel.folded)):
                start = place * per_output
                states = columns.next[start : start + per_output]
                columns.next[start : start + per_output] = self._step(
                    place, i64(place), states, instances, local, columns.index
                )

        self._flush_all(places, self._columns(self._starting(places), body))

    def _flush_all(self, places: Sequence[ir.Value], results: Sequence[ir.Value]) -> None:
        """Merge a block's accumulators, component after component, into the states."""
        if self.kernel.reduction.listed:
            return  # lists live in memory
        per_output = self._carried()
        for n, place in enumerate(places):
            part = results[n * per_output : (n + 1) * per_output]
            self._flush(self.state, place, part, self.base)

    def _step(
        self,
        number: int,
        place: ir.Value,
        states: Sequence[ir.Value],
        instances: Sequence[Key],
        local: Known,
        at: ir.Value,
    ) -> list[ir.Value]:
        """The states after the pairs of these instances. `states`: [state][vector].

        `number` is that of the output, `place` its component.
        """
        vectors = self.vectors
        current = list(states)
        emitter = Emitter(self.kernel, self.plan, self.inner, self.flow, PAIR)
        steps = self.kernel.steps[number]
        output = self.kernel.folded[number]
        for instance in instances:
            r = instance[1]
            value = local[output, self.emitter.key(output, instance)]
            if self.kernel.reduction.listed:
                column = self.builder.add(self.base, self._column_number(at, instance))
                if not self.row_major:
                    nothing = self.simd.constant(math.inf)
                    value = self.builder.select(self._valid(at, r), value, nothing)
                lists = self._list_address(self.state, place, r)
                current[r] = self._offer(current[r], lists, value, column)
                continue
            known: Known = {(output, emitter.key(output, instance)): self.code.to_inner(value)}
            for hole in (v for v in reachable(steps) if v.what == "hole"):
                name, part = hole.data
                if name == "column":
                    known[hole, instance] = self._column_vector(at, instance)
                elif name == "acc":
                    known[hole, instance] = current[part * vectors + r]
            emitter.emit(steps, [instance], known, self._inner_leaf(at), output.loops)
            for n, step in enumerate(steps):
                after = known[step, emitter.key(step, instance)]
                before = current[n * vectors + r]
                current[n * vectors + r] = self._only_valid(after, before, at, r)
        return current

    def _inner_leaf(self, at: ir.Value) -> Leaf:
        leaf = self._pair_leaf(at)
        return lambda *where: self.code.to_inner(leaf(*where))

    def _column_number(self, at: ir.Value, instance: Key) -> ir.Value:
        """The number of an instance's (first) column."""
        u, r = instance
        if self.row_major:
            return self._column(at, u)
        return self.builder.add(at, i64(r * self.plan.width))

    def _column_vector(self, at: ir.Value, instance: Key) -> ir.Value:
        """Numbers of columns, lane by lane, counted from the start of the block."""
        number = self.builder.sitofp(self._column_number(at, instance), self.inner.scalar)
        column = self.inner.splat(number)
        if self.row_major:
            return column
        return self.inner.add(column, self.inner.lanes(list(range(self.plan.width))))

    def _valid(self, at: ir.Value, r: int) -> ir.Value:
        """When lanes are columns: which of them lie within the block."""
        b = self.builder
        left = b.sub(self.count, b.add(at, i64(r * self.plan.width)))
        left = self.flow.minimum(left, i64(self.plan.width))
        bound = self.simd.splat(b.trunc(left, ir.IntType(32)))
        return b.icmp_signed("<", self.iota, bound)

    def _only_valid(self, after: ir.Value, before: ir.Value, at: ir.Value, r: int) -> ir.Value:
        """When lanes are columns, those past the end of the block change nothing."""
        if self.row_major:
            return after
        return self.builder.select(self._valid(at, r), after, before)

    # -- anchors ------------------------------------------------------------------------------

    def _score_place(self, number: int, at: ir.Value, instance: Key) -> ir.Value:
        """Where exponent `number` of one column (or vector of columns) is kept."""
        flow, b, plan, item = self.flow, self.builder, self.plan, self.item
        lanes = plan.lane_count if self.row_major else 1
        column = b.add(at, i64(instance[0])) if self.row_major else at
        shift = b.add(flow.times(column, lanes * item), i64(self.code.vector(instance)))
        start = i64(number * plan.block * lanes * item)
        return flow.at(self.places["scores"], b.add(start, shift))

    def _fold_scores(
        self, anchors: Sequence[ir.Value], given: Known, loops: frozenset[Loop] = frozenset()
    ) -> None:
        """The exponents of a block, and the anchors moved up to the largest of them.

        `given` is what is known beforehand, inside component loops `loops`; shared values are
        read where there are any.
        """
        vectors, scores = self.plan.vectors, self.kernel.scores
        known = dict(given)
        if not loops:
            self._invariant(scores, self._instances(self.plan.jam), known)
        lowest = self.simd.constant(self._lowest())

        def body(columns: Carried, jam: int) -> None:
            instances = self._instances(jam)
            local = dict(known)
            if loops:
                self._recall_shared(local, instances, columns.index)
            leaf = self._pair_leaf(columns.index)
            self.emitter.emit(scores, instances, local, leaf, loops)
            columns.next = list(columns.values)
            for n, score in enumerate(scores):
                for instance in instances:
                    value = local[score, self.emitter.key(score, instance)]
                    self.flow.store(value, self._score_place(n, columns.index, instance), 4)
                    place = n * vectors + instance[1]
                    before = columns.next[place]
                    larger = self.simd.select(self.simd.compare("<", before, value), value, before)
                    columns.next[place] = self._only_valid(
                        larger, before, columns.index, instance[1]
                    )

        largest = self._columns([lowest] * (len(scores) * vectors), body)
        for n, anchor in enumerate(anchors):
            part = largest[n * vectors : (n + 1) * vectors]
            self._raise_anchor(self.state, anchor, part)

    def _holes(self, known: Known, anchors: Sequence[ir.Value]) -> None:
        """The anchors of the block, for the terms that are measured from them."""
        holes = [v for v in reachable(self.kernel.folded) if v.what == "hole"]
        for hole in holes:
            for instance in self._instances(self.plan.jam):
                address = self._top_address(anchors[hole.data[1]], instance[1])
                known[hole, instance] = self.flow.load(self.simd.type, address, 4)

    def _recall_scores(self, local: Known, instances: Sequence[Key], at: ir.Value) -> None:
        for n, score in enumerate(self.kernel.scores):
            for instance in instances:
                where = self._score_place(n, at, instance)
                value = self.flow.load(self.simd.type, where, 4)
                local[score, self.emitter.key(score, instance)] = value

    # -- shared values of long outputs -----------------------------------------------------------

    def _shared_places(self, at: ir.Value) -> Iterator[tuple[Value, Callable[[Key], ir.Value]]]:
        """The shared values of one column (or vector of columns), and where each is kept.

        A table is computed where it is kept, its components a whole block apart.
        """
        tables = self.emitter.tables
        assert tables is not None
        start, vector = 0, self.layout.shared_vector
        for value in self.shared:
            place = partial(self._shared_place, start, at)
            if value.what == "table":
                tables.homes[value.data] = place, vector
            yield value, place
            start += cells(value) * vector

    def _shared_place(self, start: int, at: ir.Value, key: Key) -> ir.Value:
        flow, b, plan, item = self.flow, self.builder, self.plan, self.item
        lanes = plan.lane_count if self.row_major else 1
        column = b.add(at, i64(key[0])) if self.row_major else at
        shift = b.add(flow.times(column, lanes * item), i64(self.code.vector(key)))
        return flow.at(self.places["shared"], b.add(i64(start), shift))

    def _recall_shared(self, local: Known, instances: Sequence[Key], at: ir.Value) -> None:
        """Shared values as they were kept; of a table, its address."""
        for value, place in self._shared_places(at):
            for instance in instances:
                key = self.emitter.key(value, instance)
                local[value, key] = place(key)
                if value.kind == "real":
                    local[value, key] = self.flow.load(self.simd.type, place(key), 4)
