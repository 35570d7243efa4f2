"""States of rows in memory: reset, and merge, block after block or split after split.

Layout: [tile][component][state][lane], each state followed by the correction of its compensated
sum where the plan asks for one; the total counts as one more component. Components of each
accumulator have as many states as its rule. Running maxima lie behind. A tile is as many rows as
there are lanes, or one row spread over the lanes.

A `Form` says what some states of a kernel are and what becomes of them; there is one for running
states (here), one for terms that are measured from running maxima, and one for lists of the K
smallest. Where a kernel has several runs of states, each has a form of its own, and `Together` is
the form of all.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import reduce
from typing import NamedTuple, Protocol

from ...core.numbers import number, to_float
from ...core.scalars import reachable
from ...lower.accumulators import Accumulator
from ...lower.kernel import PAIR
from . import ir
from .block import Block
from .context import Code, no_leaf
from .emitter import Key, Known
from .flow import Carried, i64
from .scratch import Run
from .simd import Simd

# A value that is folded: its number, and the place of its states.
Output = tuple[int, ir.Value]
# A number with its correction, where sums are compensated.
Part = tuple[ir.Value, ir.Value | None]
# What vector r of the states of a component is multiplied by before it is merged.
Scale = Callable[[Sequence[Part], ir.Value, int], list[Part]]


class Finished(NamedTuple):
    """A vector of finished values: component `at` of a result.

    `number`: that of the result, of all that the kernel gives.

    `output`: the number of the output that it is made of and its component, whose factor is yet
    missing; None if there is no such factor.
    """

    number: int
    at: ir.Value
    value: ir.Value
    output: tuple[int, ir.Value] | None


class Form(Protocol):
    """States of a kernel's rows, in one function being written: places `first` to `stop` of a tile.

    `state` is always the address of a tile's states, or of those of one vector of its rows.
    """

    @property
    def first(self) -> int:
        """The first place."""
        ...

    @property
    def stop(self) -> int:
        """The place after the last."""
        ...

    def merge(self, into: ir.Value, other: ir.Value) -> None:
        """Join the states of two tiles."""
        ...

    def begin(self, block: Block, outputs: Sequence[Output]) -> list[list[ir.Value]]:
        """What a loop over a block carries for each of these: [state][vector]."""
        ...

    def step(
        self,
        block: Block,
        output: Output,
        carried: Sequence[ir.Value],
        instances: Sequence[Key],
        local: Known,
        at: ir.Value,
    ) -> list[ir.Value]:
        """What is carried for one output after the pairs of these instances.

        `local` has the pairs' values.
        """
        ...

    def end(
        self, block: Block, outputs: Sequence[Output], carried: Sequence[Sequence[ir.Value]]
    ) -> None:
        """Merge what the loop over a block has carried into the states."""
        ...

    def gather(self, state: ir.Value) -> None:
        """Before results are taken: nothing is left aside; when lanes are columns, what has to be
        common to all lanes of a row becomes so.
        """
        ...

    def finish(self, state: ir.Value, columns: ir.Value) -> Iterator[Finished]:
        """The results of the first vector of rows after so many columns; when lanes are columns,
        those of the row.
        """
        ...

    def narrowed(self, state: ir.Value, lane: ir.Value) -> tuple[Form, ir.Value]:
        """The states of the vector of rows from a lane on: their form, and where they are."""
        ...

    def limit(self, state: ir.Value) -> ir.Value:
        """What a value of the first component must be smaller than to count."""
        ...


class States:
    """Numbers with a rule to merge them, in memory: those of a run of places.

    Places are counted from the first of the tile.
    """

    def __init__(self, code: Code, run: Run) -> None:
        self.code, self.kernel, self.plan = code, code.kernel, code.plan
        self.flow, self.builder, self.outer = code.flow, code.builder, code.outer
        self.run = run
        self.rule, self.compensated = self.run.accumulator.rule, self.run.compensated
        self.row_bytes = code.plan.lane_count * code.layout.outer_item

    def identity(self) -> list[float]:
        """The states of no columns."""
        return [to_float(number(v), self.plan.dtype) for v in self.rule.identity]

    # -- memory ---------------------------------------------------------------------------------

    def address(self, state: ir.Value, place: ir.Value, n: int) -> ir.Value:
        """Lanes of state number n (with its correction after it) of component `place`."""
        run = self.run
        start = self.flow.times(place, run.words * self.row_bytes)
        words = run.start - run.first * run.words + n * (2 if run.compensated else 1)
        shift = i64(words * self.row_bytes)
        return self.flow.at(state, self.builder.add(start, shift))

    def lane_address(self, state: ir.Value, place: ir.Value, n: int, r: int) -> ir.Value:
        """Vector r of the lanes of state number n of component `place`."""
        shift = r * self.plan.width * self.code.layout.outer_item
        return self.flow.at(self.address(state, place, n), i64(shift))

    def _correction(self, address: ir.Value) -> ir.Value:
        return self.flow.at(address, i64(self.row_bytes))

    def _each(self, name: str) -> contextlib.AbstractContextManager[Carried]:
        """A loop over the places."""
        return self.flow.loop(i64(self.run.first), i64(self.run.stop), name=name)

    def load(self, state: ir.Value, place: ir.Value, r: int) -> list[Part]:
        """Vector r of the states of component `place`."""
        found: list[Part] = []
        for n in range(len(self.rule.identity)):
            address = self.lane_address(state, place, n, r)
            low = None
            if self.compensated:
                low = self.flow.load(self.outer.type, self._correction(address), 8)
            found.append((self.flow.load(self.outer.type, address, 8), low))
        return found

    def store(self, parts: Sequence[Part], state: ir.Value, place: ir.Value, r: int) -> None:
        """Keep vector r of the states of component `place`."""
        for n, (high, low) in enumerate(parts):
            address = self.lane_address(state, place, n, r)
            self.flow.store(high, address, 8)
            if low is not None:
                self.flow.store(low, self._correction(address), 8)

    # -- merging --------------------------------------------------------------------------------

    def merged(self, a: Sequence[Part], b: Sequence[Part]) -> list[Part]:
        """The reduction's merge; compensated sums keep the rounding error of every addition."""
        if self.compensated:
            return [two_sum(self.outer, x, y) for x, y in zip(a, b, strict=True)]
        return self.plainly_merged(a, b)

    def plainly_merged(self, a: Sequence[Part], b: Sequence[Part]) -> list[Part]:
        """The same, without corrections."""
        emitter, merges = self.code.rules(PAIR, self.outer), self.run.accumulator.merges
        known: Known = {}
        for placeholder in (v for v in reachable(merges) if v.what == "placeholder"):
            name, place = placeholder.supplied
            known[placeholder, (0, 0)] = (a if name == "a" else b)[place][0]
        emitter.emit(merges, [(0, 0)], known, no_leaf)
        return [(known[value, emitter.key(value, (0, 0))], None) for value in merges]

    def merge_vector(
        self,
        state: ir.Value,
        place: ir.Value,
        r: int,
        other: Sequence[Part],
        scales: tuple[Scale | None, Scale | None] = (None, None),
    ) -> None:
        """state = merge(state, other) for vector r of component `place`, either scaled first."""
        current = self.load(state, place, r)
        if scales[0]:
            current = scales[0](current, place, r)
        if scales[1]:
            other = scales[1](other, place, r)
        self.store(self.merged(current, other), state, place, r)

    def merge(
        self,
        into: ir.Value,
        other: ir.Value,
        scales: tuple[Scale | None, Scale | None] = (None, None),
    ) -> None:
        """Join the states of two tiles."""
        with self._each("merging") as place:
            for r in range(self.plan.vectors):
                there = self.load(other, place.index, r)
                self.merge_vector(into, place.index, r, there, scales)

    def across(self, vectors: Sequence[Sequence[Part]]) -> list[Part]:
        """Merge all lanes into lane 0, halving: vectors first, then halves of the vector."""
        current = [list(states) for states in vectors]
        while len(current) > 1:
            half = len(current) // 2
            current = [self.merged(current[n], current[n + half]) for n in range(half)]
        states, shift, rotated = current[0], self.plan.width // 2, self.code.rotated
        while shift:
            moved: list[Part] = [
                (rotated(high, shift), None if low is None else rotated(low, shift))
                for high, low in states
            ]
            states = self.merged(states, moved)
            shift //= 2
        return states

    # -- loops over a block ---------------------------------------------------------------------

    def initial(self, vectors: int) -> list[ir.Value]:
        """The accumulators of a component that a block starts from: [state][vector]."""
        values = self.identity()
        return [self.code.inner.constant(value) for value in values for _ in range(vectors)]

    def step(
        self,
        block: Block,
        number: int,
        states: Sequence[ir.Value],
        instances: Sequence[Key],
        local: Known,
        at: ir.Value,
    ) -> list[ir.Value]:
        """The accumulators of output `number` after the pairs of these instances."""
        vectors, current = block.vectors, list(states)
        emitter = self.code.rules(PAIR, self.code.inner)
        owner, output = self.kernel.owner(number), self.kernel.outputs[number]
        steps = owner.steps[number - owner.first]
        for instance in instances:
            r = instance[1]
            value = self.code.to_inner(local[output, block.key(output, instance)])
            known: Known = {(output, emitter.key(output, instance)): value}
            for placeholder in (v for v in reachable(steps) if v.what == "placeholder"):
                name, part = placeholder.supplied
                if name == "column":
                    known[placeholder, instance] = block.column_vector(at, instance)
                elif name == "acc":
                    known[placeholder, instance] = current[part * vectors + r]
            leaf = block.slots.inner_leaf(at)
            emitter.emit(steps, [instance], known, leaf, output.loops)
            for n, step in enumerate(steps):
                after = known[step, emitter.key(step, instance)]
                before = current[n * vectors + r]
                current[n * vectors + r] = block.only_counted(after, before, at, instance, local)
        return current

    def end(
        self,
        block: Block,
        place: ir.Value,
        states: Sequence[ir.Value],
        scale: Scale | None = None,
    ) -> None:
        """Merge the accumulators of a component into its states.

        Column numbers count from the start of the block.
        """
        vectors = block.vectors
        for r in range(vectors):
            own: list[Part] = []
            for n, kind in enumerate(self.rule.kinds):
                value = self.code.to_outer(states[n * vectors + r])
                own.append((block.numbers_of(value) if kind == "index" else value, None))
            self.merge_vector(block.state, place, r, own, (scale, None))

    # -- finishing ------------------------------------------------------------------------------

    def accumulators(self) -> Iterator[Accumulator]:
        """Those whose states these are."""
        for each in self.kernel.accumulators:
            if self.run.first <= each.first < self.run.stop:
                yield each

    def components(self, accumulator: Accumulator) -> Iterable[tuple[Output, ir.Value]]:
        """The outputs of an accumulator, each with its component; a long output is one loop."""
        if self.kernel.output_loop is None:
            for number in accumulator.numbers:
                yield (number, i64(number)), i64(number - accumulator.first)
        else:
            with self.flow.loop(i64(0), i64(accumulator.count), name="finishing") as body:
                yield (0, body.index), body.index

    def whole(self, state: ir.Value, place: ir.Value, scale: Scale | None = None) -> list[Part]:
        """The states of a place, of the first vector of rows; of the row where lanes are columns.

        The lanes of a row are scaled before they are merged.
        """
        if self.code.row_major:
            return self.load(state, place, 0)
        vectors = [self.load(state, place, r) for r in range(self.plan.vectors)]
        if scale is not None:
            vectors = [scale(parts, place, r) for r, parts in enumerate(vectors)]
        return self.across(vectors)


class Running:
    """States that columns are merged into as they come: sums, extremes, indices."""

    def __init__(self, code: Code, run: Run) -> None:
        self.code, self.states = code, States(code, run)
        self.first, self.stop = run.first, run.stop

    def merge(self, into: ir.Value, other: ir.Value) -> None:
        """Join the states of two tiles."""
        self.states.merge(into, other)

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
        """Merge accumulators into the states."""
        for (_, place), own in zip(outputs, carried, strict=True):
            self.states.end(block, place, own)

    def gather(self, state: ir.Value) -> None:
        """Lanes have nothing in common, and nothing is left aside."""

    def finish(self, state: ir.Value, columns: ir.Value) -> Iterator[Finished]:
        """The results of a vector of rows."""
        for each in self.states.accumulators():
            for output, component in self.states.components(each):
                parts = self.states.whole(state, output[1])
                own = [closed(self.code.outer, *part) for part in parts]
                for n, value in enumerate(finished(self.code, each, columns, own)):
                    yield Finished(each.result + n, component, value, output)

    def narrowed(self, state: ir.Value, lane: ir.Value) -> tuple[Form, ir.Value]:
        """Lanes lie side by side."""
        flow = self.code.flow
        return self, flow.at(state, flow.times(lane, self.code.layout.outer_item))

    def limit(self, state: ir.Value) -> ir.Value:
        """The best value so far."""
        address = self.states.lane_address(state, i64(self.first), 0, 0)
        return self.code.flow.load(self.code.outer.type, address, 8)


class Together:
    """The states of several runs, each of its own form.

    `apart`: the addresses of the states of each form, where they are not that of the tile.
    """

    def __init__(
        self, code: Code, forms: Sequence[Form], apart: Sequence[ir.Value] | None = None
    ) -> None:
        self.code, self.forms, self.apart = code, forms, apart
        self.first, self.stop = 0, max((form.stop for form in forms), default=0)

    def _of(self, block: Block, number: int) -> tuple[Form, Block]:
        """The form of an output's states, and the block as it sees it.

        The components of several accumulators are written out: their numbers are their places.
        """
        which, form = next((n, f) for n, f in enumerate(self.forms) if number < f.stop)
        return form, block if self.apart is None else block._replace(state=self.apart[which])

    def merge(self, into: ir.Value, other: ir.Value) -> None:
        """Join the states of two tiles."""
        for form in self.forms:
            form.merge(into, other)

    def begin(self, block: Block, outputs: Sequence[Output]) -> list[list[ir.Value]]:
        """What a loop over a block carries for each of these."""
        found: list[list[ir.Value]] = []
        for output in outputs:
            form, own = self._of(block, output[0])
            found += form.begin(own, [output])
        return found

    def step(
        self,
        block: Block,
        output: Output,
        carried: Sequence[ir.Value],
        instances: Sequence[Key],
        local: Known,
        at: ir.Value,
    ) -> list[ir.Value]:
        """What is carried for one output after some pairs."""
        form, own = self._of(block, output[0])
        return form.step(own, output, carried, instances, local, at)

    def end(
        self, block: Block, outputs: Sequence[Output], carried: Sequence[Sequence[ir.Value]]
    ) -> None:
        """Merge what the loop over a block has carried into the states."""
        for output, values in zip(outputs, carried, strict=True):
            form, own = self._of(block, output[0])
            form.end(own, [output], [values])

    def gather(self, state: ir.Value) -> None:
        """What has to be common to all lanes of a row becomes so."""
        for form in self.forms:
            form.gather(state)

    def finish(self, state: ir.Value, columns: ir.Value) -> Iterator[Finished]:
        """The results of a vector of rows."""
        for form, own in zip(self.forms, self.apart or [state] * len(self.forms), strict=True):
            yield from form.finish(own, columns)

    def narrowed(self, state: ir.Value, lane: ir.Value) -> tuple[Form, ir.Value]:
        """Lanes are not equally far apart in all forms."""
        apart = [form.narrowed(state, lane)[1] for form in self.forms]
        return Together(self.code, self.forms, apart), state

    def limit(self, state: ir.Value) -> ir.Value:
        """What a value must be smaller than to count for some of them: the largest of theirs."""
        apart = self.apart or [state] * len(self.forms)
        limits = [
            self.code.to_outer(form.limit(own)) for form, own in zip(self.forms, apart, strict=True)
        ]
        return reduce(self.code.outer.greater, limits)


def two_sum(simd: Simd, a: Part, b: Part) -> tuple[ir.Value, ir.Value]:
    """Knuth's TwoSum: high = a + b rounded; what the rounding lost joins the correction."""
    high = simd.add(a[0], b[0])
    back = simd.sub(high, a[0])
    lost = simd.add(simd.sub(a[0], simd.sub(high, back)), simd.sub(b[0], back))
    low = lost if a[1] is None else simd.add(a[1], lost)
    return high, low if b[1] is None else simd.add(low, b[1])


def closed(simd: Simd, high: ir.Value, low: ir.Value | None) -> ir.Value:
    """A compensated sum as one number; an infinite sum has no meaningful correction."""
    if low is None:
        return high
    return simd.select(simd.isnan(low), high, simd.add(high, low))


def finished(
    code: Code,
    accumulator: Accumulator,
    columns: ir.Value,
    states: Sequence[ir.Value],
    maximum: ir.Value | None = None,
    total: ir.Value | None = None,
) -> list[ir.Value]:
    """The reduction's finish: one value per result."""
    emitter = code.rules(PAIR, code.outer)
    count = code.outer.splat(code.builder.sitofp(columns, code.outer.scalar))
    given = {"a": states, "top": [maximum], "total": [total], "count": [count]}
    targets = accumulator.finished
    known: Known = {}
    for value in reachable(targets):
        if value.what == "placeholder":
            part = given[value.supplied.name][value.supplied.place]
            assert part is not None
            known[value, (0, 0)] = part
    emitter.emit(targets, [(0, 0)], known, no_leaf)
    return [known[target, emitter.key(target, (0, 0))] for target in targets]
