"""How rows are folded: the three forms of reductions as lines of Triton.

A program may fold several accumulators, each by its own rules; those of one form are one `Folding`,
and `Foldings` are all of a program. Within a chunk of columns every lane has a state of its own; a
chunk's states are joined across lanes and added to the totals of rows, which are wider. What a
program leaves, where the reduced axis is split, is a list of `entries`: columns of numbers
(ROWS, 1), all as float64.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from ...core.numbers import number, to_float
from ...core.scalars import Loop, Value, reachable
from ...lower.accumulators import Accumulator
from ...lower.kernel import Kernel
from ...lower.tiling import Tiling
from ...ops.reductions import Reduction
from ..functions import approximations
from ..functions.numerics import LOG2E
from .results import Results
from .text import Printed, Text, literal
from .values import Known, Values

# A maximum is moved when an exponent exceeds it by so much: terms stay below e^8.
_AHEAD = 8.0
_LATER = 1 << 62
_NEVER = (1 << 63) - 1


@dataclass
class Instance:
    """One folded component: its number among the outputs, and its component index."""

    number: int
    place: int
    component: str
    known: Known = field(default_factory=dict)

    @property
    def inside(self) -> frozenset[Loop]:
        """The loop over components that it is one turn of."""
        return frozenset(value.loop for value in self.known if value.what == "index_loop")


class Folding:
    """Running reductions: a small state per component."""

    def __init__(
        self, values: Values, accumulators: Sequence[Accumulator], instances: Sequence[Instance]
    ) -> None:
        self.values, self.accumulators, self.instances = values, accumulators, instances
        self.kernel: Kernel = values.kernel
        self.tiling: Tiling = values.tiling
        self.text: Text = values.text
        accumulation = self.tiling.accumulation
        self.inner = Printed(self.text, accumulation.inner)
        self.outer = Printed(self.text, accumulation.outer)
        with_total = [each for each in self.kernel.accumulators if each.total is not None]
        self._weights = {each.first: f"w{n or ''}" for n, each in enumerate(with_total)}
        self._owners = {f"a{i.number}": self.kernel.owner(i.place) for i in instances}
        self._owners |= {self._weights[each.first]: each for each in with_total}

    def owner(self, name: str) -> Accumulator:
        """The accumulator that a state belongs to."""
        return self._owners.get(name, self.accumulators[0])

    def instances_of(self, accumulator: Accumulator) -> list[Instance]:
        """The components of an accumulator."""
        return [each for each in self.instances if self.kernel.owner(each.place) is accumulator]

    def weights(self, accumulator: Accumulator) -> list[str]:
        """The state of the sum of its unweighted terms, if it wants one."""
        return [self._weights[accumulator.first]] if accumulator.total is not None else []

    def compensated(self, name: str) -> bool:
        """Whether the rounding errors of a total are kept beside it."""
        return self.tiling.accumulation.compensated and self.owner(name).rule.additive

    def _lost(self, name: str) -> list[str]:
        """The rounding errors of a total, of each of its parts."""
        return [f"e{name}"] if self.owner(name).parts == 1 else [f"e{p}" for p in self.parts(name)]

    # ---- names ---------------------------------------------------------------------------

    def states(self) -> list[tuple[str, int]]:
        """(name, number of the folded value) of every state."""
        return [state for each in self.accumulators for state in self._states(each)]

    def _states(self, accumulator: Accumulator) -> list[tuple[str, int]]:
        found = [(f"a{each.number}", each.place) for each in self.instances_of(accumulator)]
        return found + [(name, accumulator.last) for name in self.weights(accumulator)]

    def parts(self, name: str) -> list[str]:
        """The parts of one state."""
        return [f"{name}_{part}" for part in range(self.owner(name).parts)]

    def _empty(self, name: str) -> Iterator[tuple[str, str, float | str]]:
        """(name, kind, number where nothing was met) of every part of a state."""
        rule = self.owner(name).rule
        return zip(self.parts(name), rule.kinds, rule.identity, strict=True)

    # ---- totals of rows ------------------------------------------------------------------

    def begin(self) -> None:
        """Totals of rows that have met nothing."""
        for name, _ in self.states():
            for part, kind, empty in self._empty(name):
                self.text.line(f"t{part} = {self.full(kind, empty, '(ROWS, 1)', self.outer)}")
            if self.compensated(name):
                for lost in self._lost(name):
                    self.text.line(f"{lost} = {self.full('value', 0.0, '(ROWS, 1)', self.outer)}")

    def full(self, kind: str, value: float | str, shape: str, simd: Printed) -> str:
        """A tensor of one number."""
        if kind == "index":
            return f"tl.full({shape}, {int(float(value))}, tl.int64)"
        found = to_float(number(value), self.tiling.dtype)
        return f"tl.full({shape}, {literal(found)}, {simd.triton})"

    def reset(self) -> None:
        """States of lanes, at the start of a chunk."""
        for name, _ in self.states():
            for part, kind, empty in self._empty(name):
                made = self.full(kind, empty, "(ROWS, COLUMNS)", self.inner)
                self.text.line(f"{part} = {made.replace('tl.int64', 'tl.int32')}")

    # ---- pairs ---------------------------------------------------------------------------

    def fold(self, known: Known) -> None:
        """One block of columns."""
        self._fold(known, self.accumulators)

    def _fold(self, known: Known, accumulators: Sequence[Accumulator]) -> None:
        """One block of columns into the states of some accumulators."""
        values = [value for each in accumulators for value in self._terms(known, each)]
        states = [state for each in accumulators for state in self._states(each)]
        for (name, place), value in zip(states, values, strict=True):
            self.step(name, place, value)

    def _terms(self, known: Known, accumulator: Accumulator) -> list[str]:
        """The names of the values that are folded into the states of an accumulator."""
        found: list[str] = []
        instances = self.instances_of(accumulator)
        # What no loop over components changes is computed once for all of them.
        outputs = [self.kernel.outputs[instance.place] for instance in instances]
        self.values.shared(outputs, known, frozenset())
        for instance, output in zip(instances, outputs, strict=True):
            local = {**known, **instance.known}
            found += self.values.emit([output], local, instance.inside)
            if not instance.known:
                known.update(local)
        if accumulator.total is not None:
            found += self.values.emit([accumulator.total], known)
        return found

    def step(self, name: str, place: int, value: str) -> None:
        """The reduction's step on the states of all lanes."""
        parts = self.parts(name)
        if self.inner.dtype != self.tiling.dtype:
            value = self.inner.cast(value)
        owner = self.owner(name)
        steps = owner.steps[place - owner.first]
        given: Known = {self.kernel.outputs[place]: value}
        for target in reachable(steps, lambda v: v in given):
            if target.what == "placeholder":
                kind, part = target.supplied
                given[target] = {"acc": parts, "column": ["here"]}[kind][part]
        found = self._rule(steps, given, self.inner)
        counted = self.values.counted
        if counted:
            found = [f"tl.where({counted}, {n}, {o})" for n, o in zip(found, parts, strict=True)]
        for part, after in zip(parts, found, strict=True):
            self.text.line(f"{part} = {after}")

    def _rule(self, targets: Sequence[Value], given: Known, simd: Printed) -> list[str]:
        """A rule of the reduction on given states."""
        plain = Values(self.text, self.kernel, self.tiling)
        plain.simd, plain.plain = simd, True
        inside = frozenset[Loop]().union(*(target.loops for target in targets))
        return plain.emit(targets, dict(given), inside)

    # ---- chunks --------------------------------------------------------------------------

    def flush(self) -> None:
        """Join the lanes' states, and add them to the totals of rows."""
        for name, _ in self.states():
            self._add(name, self._joined(name))

    def _joined(self, name: str) -> list[str]:
        """A state of rows (ROWS, 1), in the wider dtype."""
        parts, rule = self.parts(name), self.owner(name).rule
        if rule.additive:
            found = [self.text.let(f"tl.sum({part}, 1, keep_dims=True)") for part in parts]
        else:
            found = [self.text.name("j") for _ in parts]
            listed = ", ".join(parts) if len(parts) == 1 else f"({', '.join(parts)})"
            merge = merging(self.kernel)[rule]
            self.text.line(f"{', '.join(found)} = tl.reduce({listed}, 1, {merge}, keep_dims=True)")
        return [
            self.text.let(f"tl.cast({part}, tl.int64) + start")
            if kind == "index"
            else self.outer.cast(part)
            for part, kind in zip(found, rule.kinds, strict=True)
        ]

    def _add(self, name: str, states: Sequence[str]) -> None:
        """Merge states of rows into the totals."""
        totals = [f"t{part}" for part in self.parts(name)]
        if self.compensated(name):
            for lost, total, state in zip(self._lost(name), totals, states, strict=True):
                self._add_compensated(lost, total, state)
            return
        given, merges = {"a": totals, "b": list(states)}, self.owner(name).merges
        found = self._rule(merges, self._placeholders(merges, given), self.outer)
        for total, after in zip(totals, found, strict=True):
            self.text.line(f"{total} = {after}")

    def _add_compensated(self, errors: str, total: str, state: str) -> None:
        """Knuth's TwoSum: what rounding took from the total is kept beside it."""
        let = self.text.let
        after = let(f"{total} + {state}")
        other = let(f"{after} - {total}")
        lost = let(f"({total} - ({after} - {other})) + ({state} - {other})")
        self.text.line(f"{errors} = {errors} + {lost}")
        self.text.line(f"{total} = {after}")

    def _placeholders(self, targets: Sequence[Value], given: dict[str, list[str]]) -> Known:
        return {
            value: given[value.supplied.name][value.supplied.place]
            for value in reachable(targets)
            if value.what == "placeholder" and value.supplied.name in given
        }

    def closed(self, name: str) -> list[str]:
        """The totals of one state; an infinite sum has no meaningful correction."""
        totals = [f"t{part}" for part in self.parts(name)]
        if self.compensated(name):
            totals = [
                self.text.let(f"tl.where({lost} == {lost}, {total} + {lost}, {total})")
                for lost, total in zip(self._lost(name), totals, strict=True)
            ]
        return totals

    # ---- parts of the reduced axis -----------------------------------------------------------

    def entries(self) -> list[str]:
        """What a part of the reduced axis leaves."""
        found = [total for name, _ in self.states() for total in self.closed(name)]
        return [self.text.let(f"tl.cast({entry}, tl.float64)") for entry in found]

    def entry_count(self) -> int:
        """How many they are."""
        return sum(self.owner(name).parts for name, _ in self.states())

    def join(self, entries: Sequence[str]) -> None:
        """Merge what a part left into the totals."""
        todo = list(entries)
        for name, _ in self.states():
            kinds = self.owner(name).rule.kinds
            states = [todo.pop(0) for _ in kinds]
            self._add(name, [
                self.text.let(f"tl.cast({state}, tl.int64)") if kind == "index"
                else self.outer.cast(state)
                for state, kind in zip(states, kinds, strict=True)
            ])  # fmt: skip

    def leave(self, first: int) -> None:
        """Write the entries, from number `first` on, to `left`."""
        for n, entry in enumerate(self.entries(), first):
            self.text.line(f"tl.store(left + {n} * ROWS + own_lanes, {entry}, mask=own)")

    def join_parts(self, first: int) -> None:
        """Read the entries of a part, from number `first` on, and merge them."""
        self.join([
            self.text.let(f"tl.load(left + {n} * ROWS + own_lanes, mask=own, other=0.0)")
            for n in range(first, first + self.entry_count())
        ])  # fmt: skip

    # ---- results -----------------------------------------------------------------------------

    def finish(self) -> list[tuple[Instance, list[str]]]:
        """For each component the results' numbers (ROWS, 1)."""
        found: list[tuple[Instance, list[str]]] = []
        for own in self.accumulators:
            total = [part for name in self.weights(own) for part in self.closed(name)] or [""]
            for instance in self.instances_of(own):
                states = self.closed(f"a{instance.number}")
                states = [self._times_factor(instance, state) for state in states]
                given = {
                    "a": states, "top": [self._top(instance)], "total": total, "count": ["count"],
                }  # fmt: skip
                placeholders = self._placeholders(own.finished, given)
                found.append((instance, self._rule(own.finished, placeholders, self.outer)))
        return found

    def write(self, results: Results) -> None:
        """Write the results."""
        for instance, found in self.finish():
            own, written = self.kernel.owner(instance.place), results.within(instance.component)
            for n, (value, result) in enumerate(zip(found, own.rule.results, strict=True)):
                if result.per != "maximum" or own.folded.weight is None:
                    results.write(own.result + n, instance.component, value, written)
                elif instance.place == own.first and instance.number == own.first:
                    results.write(own.result + n, "0", value, results.once)

    def _top(self, instance: Instance) -> str:
        return ""

    def _times_factor(self, instance: Instance, state: str) -> str:
        """inf * sum is not the sum of inf * terms: a factor that is not finite is refused."""
        factor = self.kernel.factors[instance.place]
        if factor is None:
            return state
        known = {**self.values.prelude, **instance.known}
        (name,) = self.values.emit([factor], known, instance.inside)
        largest = self.values.simd.constant(to_float("largest", self.tiling.dtype))
        self.values.bail_out(f"(tl.abs({name}) <= {largest}) == 0", 1)
        return self.text.let(f"{state} * tl.cast({name}, {self.outer.triton})")


class MaxShifted(Folding):
    """Sums of exponentials, measured from the largest exponent.

    A maximum belongs to a row. It is moved, and the lanes' sums with it, only when some exponent
    is far above it: then all of a tile's maxima become the largest exponents so far.
    """

    def maxima(self) -> list[tuple[str, list[str]]]:
        """(name, the states measured from it), which may be those of several accumulators."""
        found: dict[str, list[str]] = {}
        for top, names in (
            maximum for each in self.accumulators for maximum in self._maxima_of(each)
        ):
            found.setdefault(top, []).extend(names)
        return list(found.items())

    def _maxima_of(self, own: Accumulator) -> list[tuple[str, list[str]]]:
        names = [f"a{instance.number}" for instance in self.instances_of(own)]
        if own.folded.weight is not None:
            return [(f"top{own.top}", names + self.weights(own))]
        return [(f"top{own.top + n}", [name]) for n, name in enumerate(names)]

    def begin(self) -> None:
        """Totals, their maxima, and the maxima of the chunk."""
        super().begin()
        lowest = literal(to_float("lowest", self.tiling.dtype))
        for top, _ in self.maxima():
            self.text.line(f"{top} = tl.full((ROWS, 1), {lowest}, {self.values.simd.triton})")
            self.text.line(f"t{top} = tl.full((ROWS, 1), {lowest}, {self.values.simd.triton})")

    def fold(self, known: Known) -> None:
        """Exponents, maxima, then terms.

        What several accumulators measure from one maximum is moved with it before any of them takes
        the terms of this block in.
        """
        measured, moved = dict(self.maxima()), dict[str, Known]()
        for own in self.accumulators:
            instances = self.instances_of(own)
            for (top, states), instance in zip(self._maxima_of(own), instances, strict=False):
                local = {**known, **instance.known}
                # The components of a long output have one exponent for all turns of its loop.
                place = instance.place - own.first if own.folded.weight is None else 0
                if top not in moved:
                    given = local, own, place, top, measured[top], instance.inside
                    moved[top] = self.maximum(*given)
                local.update(moved[top])
                if own.folded.weight is None:
                    output = self.kernel.outputs[instance.place]
                    (value,) = self.values.emit([output], local, instance.inside)
                    self.step(states[0], instance.place, value)
                else:
                    known.update(local)
                    self._fold(known, [own])

    def maximum(
        self,
        known: Known,
        own: Accumulator,
        place: int,
        top: str,
        states: Sequence[str],
        inside: frozenset[Loop] = frozenset(),
    ) -> Known:
        """Exponent number `place` of an accumulator, and its maximum, moved if need be.

        They are given, and entered in `known`, as is the exponent measured from the maximum.
        """
        exponent = own.logits[place]
        (logit,) = self.values.emit([exponent], known, inside)
        if self.values.counted:
            logit = self.text.let(f'tl.where({self.values.counted}, {logit}, float("-inf"))')
        over = self._move(top, logit, states)
        maximum = self.kernel.scalars.placeholder("top", own.top + place)
        apart = self.kernel.scalars.apply("apart", exponent, maximum)
        found: Known = {exponent: logit, maximum: top, apart: over}
        known.update(found)
        return found

    def _move(self, top: str, logit: str, measured: Sequence[str]) -> str:
        """Move the maxima up to the exponents of this block, if one is far above.

        Returns the exponents measured from the maxima.
        """
        text, simd = self.text, self.values.simd
        # Where the maxima are results, they are the largest exponents at any time.
        results = any(self.owner(name).rule.joined for name in measured)
        limit = simd.constant(0 if results else _AHEAD)
        largest = simd.constant(to_float("largest", self.tiling.dtype))
        over = text.let(f"{logit} - {top}")
        with text.block(f"if tl.max(tl.ravel({over})) > {limit}:"):
            number_ = text.let(f'tl.where({logit} == {logit}, {logit}, float("-inf"))')
            highest = text.let(f"tl.minimum(tl.max({number_}, 1, keep_dims=True), {largest})")
            after = text.let(f"tl.maximum({top}, {highest})")
            scale = self._scale(top, after)
            if self.inner.dtype != simd.dtype:
                scale = self.inner.cast(scale)
            for name in measured:
                for part in self.parts(name):
                    text.line(f"{part} = {part} * {scale}")
            text.line(f"{top} = {after}")
            text.line(f"{over} = {logit} - {top}")
        return over

    def _scale(self, before: str, after: str) -> str:
        """e^(before - after)"""
        moved = self.text.let(f"{before} - {after}")
        if self.values.simd.dtype == "float32":
            return self.values.power_of_two(f"{moved} * {self.values.simd.constant(LOG2E)}")
        return approximations.FUNCTIONS["exp"](self.values.simd, moved)

    def flush(self) -> None:
        """As for sums, after the totals were measured from the chunk's maxima."""
        for top, measured in self.maxima():
            self._rebase(top, top, measured)
        super().flush()

    def _rebase(self, top: str, after: str, measured: Sequence[str]) -> None:
        """Measure totals from a higher maximum."""
        scale = self.outer.cast(self._scale(f"t{top}", after))
        for name in measured:
            for part in [f"t{part}" for part in self.parts(name)]:
                self.text.line(f"{part} = {part} * {scale}")
            if self.compensated(name):
                for lost in self._lost(name):
                    self.text.line(f"{lost} = {lost} * {scale}")
        self.text.line(f"t{top} = {after}")

    def entries(self) -> list[str]:
        """The sums, then the maxima."""
        tops = [self.text.let(f"tl.cast(t{top}, tl.float64)") for top, _ in self.maxima()]
        return [*super().entries(), *tops]

    def entry_count(self) -> int:
        """How many they are."""
        return super().entry_count() + len(self.maxima())

    def join(self, entries: Sequence[str]) -> None:
        """Both sides are measured from the higher maximum."""
        count = super().entry_count()
        sums, tops = list(entries[:count]), entries[count:]
        names = [name for name, _ in self.states()]
        for (top, measured), other in zip(self.maxima(), tops, strict=True):
            own = self.values.simd.cast(other)
            after = self.text.let(f"tl.maximum(t{top}, {own})")
            scale = self.text.let(f"tl.cast({self._scale(own, after)}, tl.float64)")
            for name in measured:
                place = names.index(name)
                sums[place] = self.text.let(f"{sums[place]} * {scale}")
            self._rebase(top, after, measured)
        super().join(sums)

    def _top(self, instance: Instance) -> str:
        name = f"a{instance.number}"
        top = next(top for top, measured in self.maxima() if name in measured)
        return self.outer.cast(f"t{top}")


class TopK(Folding):
    """The K smallest, in no order: a pair that is smaller than the largest of them takes its place.

    Blocks without such a pair cost a comparison. Of equal values the earlier column stays.
    """

    def begin(self) -> None:
        """Lists of inf; places beyond K hold -inf, which nothing replaces."""
        text, dtype = self.text, self.values.simd.triton
        text.line("places = tl.arange(0, PLACES)[None, :]")
        for n in self._numbers():
            length = self._length(n)
            infinite = f'tl.where(places < {length}, float("inf"), float("-inf"))'
            text.line(f"l{n} = tl.broadcast_to(tl.cast({infinite}, {dtype}), (ROWS, PLACES))")
            text.line(f"i{n} = tl.broadcast_to({_LATER} + tl.cast(places, tl.int64), "
                      "(ROWS, PLACES))")  # fmt: skip
            text.line(f'worst{n} = tl.full((ROWS, 1), float("inf"), {dtype})')

    def _numbers(self) -> list[int]:
        return [instance.number for instance in self.instances]

    def _length(self, n: int) -> int:
        """The places of list number n."""
        return self.owner(f"a{n}").folded.length

    def reset(self) -> None:
        """Lanes have no states."""

    def flush(self) -> None:
        """Lists are always whole."""

    def fold(self, known: Known) -> None:
        """One block of columns."""
        outputs = [self.kernel.outputs[instance.place] for instance in self.instances]
        self.values.shared(outputs, known, frozenset())
        for instance in self.instances:
            local = {**known, **instance.known}
            output = self.kernel.outputs[instance.place]
            (value,) = self.values.emit([output], local, instance.inside)
            if not instance.known:
                known.update(local)
            counted = self.values.counted
            those = f" & {counted} & ({value} == {value})" if counted else ""
            smaller = f"({value} < worst{instance.number}){those}"
            # NaN is never smaller, and is not looked at again.
            kept = self.text.let(
                f"tl.where({smaller}, {value} + tl.zeros((ROWS, COLUMNS), "
                f'{self.values.simd.triton}), float("inf"))'
            )
            self._insert(instance.number, kept, "lanes", "block + tl.cast(lane, tl.int64)")

    def _insert(self, n: int, value: str, lanes: str, index: str) -> None:
        """Take in the values of a tile that are smaller than the largest of their row's list."""
        text = self.text
        text.line(f"rest = {value}")
        with text.block(f"while tl.max(tl.ravel(tl.cast(rest < worst{n}, tl.int32))) > 0:"):
            text.line("best, lane = tl.min(rest, 1, return_indices=True, keep_dims=True)")
            text.line(f"column = {index}")
            text.line(f"last = tl.max(tl.where(l{n} == worst{n}, i{n}, -1), 1, keep_dims=True)")
            text.line(f"leaves = (best < worst{n}) & (l{n} == worst{n}) & (i{n} == last)")
            text.line(f"l{n} = tl.where(leaves, best, l{n})")
            text.line(f"i{n} = tl.where(leaves, column, i{n})")
            text.line(f"worst{n} = tl.max(l{n}, 1, keep_dims=True)")
            text.line(f'rest = tl.where({lanes} == lane, float("inf"), rest)')

    # ---- sorted lists ------------------------------------------------------------------------

    def take(self, n: int) -> tuple[str, str]:
        """Take the smallest out of a list: (value, column)."""
        text = self.text
        value = text.let(f"tl.min(l{n}, 1, keep_dims=True)")
        column = text.let(f"tl.min(tl.where(l{n} == {value}, i{n}, {_NEVER}), 1, keep_dims=True)")
        out = text.let(f"(l{n} == {value}) & (i{n} == {column})")
        text.line(f'l{n} = tl.where({out}, float("inf"), l{n})')
        text.line(f"i{n} = tl.where({out}, {_NEVER}, i{n})")
        return value, text.let(f'tl.where({value} == float("inf"), 0, {column})')

    def close(self, n: int) -> None:
        """Places beyond K come last."""
        length = self._length(n)
        self.text.line(f'l{n} = tl.where(places < {length}, l{n}, float("inf"))')
        self.text.line(f"i{n} = tl.where(places < {length}, i{n}, {_NEVER})")

    def entry_count(self) -> int:
        """A value and a column for every place of every list."""
        return sum(2 * self._length(n) for n in self._numbers())

    def leave(self, first: int) -> None:
        """Write the lists, sorted."""
        line = self.text.line
        for n in self._numbers():
            length = self._length(n)
            self.close(n)
            with self.text.block(f"for place in range(0, {length}):"):
                value, column = self.take(n)
                at = f"left + ({first} + place) * ROWS + own_lanes"
                line(f"tl.store({at}, tl.cast({value}, tl.float64), mask=own)")
                line(f"tl.store({at} + {length} * ROWS, tl.cast({column}, tl.float64), "
                     "mask=own)")  # fmt: skip
            first += 2 * length

    def join_parts(self, first: int) -> None:
        """Merge the lists that a part left."""
        text = self.text
        for n in self._numbers():
            length = self._length(n)
            at = "left + ({} + places) * ROWS + own_lanes"
            mask = f"mask=own & (places < {length})"
            value = text.let(f'tl.load({at.format(first)}, {mask}, other=float("inf"))')
            value = self.values.simd.cast(value)
            column = text.let(f"tl.cast(tl.load({at.format(first + length)}, {mask}, other=0.0), "
                              "tl.int64)")  # fmt: skip
            taken = f"tl.sum(tl.where(places == lane, {column}, 0), 1, keep_dims=True)"
            self._insert(n, value, "places", taken)
            first += 2 * length

    def write(self, results: Results) -> None:
        """Write the lists, sorted."""
        for instance in self.instances:
            own = self.kernel.owner(instance.place)
            self.close(instance.number)
            with self.text.block(f"for place in range(0, {own.folded.length}):"):
                found = self.take(instance.number)
                for n, value in enumerate(own.finished):
                    component = f"(place * {own.count} + {instance.component})"
                    given = (component, found[value.supplied.place])
                    results.write(own.result + n, *given, results.within(instance.component))


class Foldings:
    """All accumulators of a program, in the forms that they have."""

    def __init__(self, forms: Sequence[Folding]) -> None:
        self.forms = forms

    def begin(self) -> None:
        """Totals of rows that have met nothing."""
        for form in self.forms:
            form.begin()

    def reset(self) -> None:
        """States of lanes, at the start of a chunk."""
        for form in self.forms:
            form.reset()

    def fold(self, known: Known) -> None:
        """One block of columns; what is computed for one form is known to those after it."""
        for form in self.forms:
            form.fold(known)

    def flush(self) -> None:
        """Join the lanes' states, and add them to the totals of rows."""
        for form in self.forms:
            form.flush()

    def entry_count(self) -> int:
        """How many numbers per row a part of the reduced axis leaves."""
        return sum(form.entry_count() for form in self.forms)

    def leave(self) -> None:
        """Write them to `left`."""
        first = 0
        for form in self.forms:
            form.leave(first)
            first += form.entry_count()

    def join_parts(self) -> None:
        """Merge those of a part at `left` into the totals."""
        first = 0
        for form in self.forms:
            form.join_parts(first)
            first += form.entry_count()

    def write(self, results: Results) -> None:
        """Write the results."""
        for form in self.forms:
            form.write(results)


def merging(kernel: Kernel) -> dict[Reduction, str]:
    """The functions that join lanes' states, by the reductions whose states are not summed."""
    rules = {each.rule: "" for each in kernel.accumulators}
    joined = [rule for rule in rules if not rule.additive and not rule.top_k]
    return {rule: f"merge{n or ''}" for n, rule in enumerate(joined)}


def merge_functions(kernel: Kernel, tiling: Tiling) -> list[str]:
    """Their text, for `tl.reduce`."""
    owners = {each.rule: each for each in kernel.accumulators}
    return [
        _merge_function(kernel, tiling, owners[rule], name)
        for rule, name in merging(kernel).items()
    ]


def _merge_function(kernel: Kernel, tiling: Tiling, accumulator: Accumulator, name: str) -> str:
    names = [f"{side}{part}" for side in "ab" for part in range(accumulator.parts)]
    text = Text()
    plain = Values(text, kernel, tiling)
    plain.simd, plain.plain = Printed(text, tiling.accumulation.inner), True
    given: Known = {
        value: f"{value.supplied.name}{value.supplied.place}"
        for value in reachable(accumulator.merges)
        if value.what == "placeholder"
    }
    found = plain.emit(accumulator.merges, given)
    text.line(f"return {', '.join(found)}")
    return f"@triton.jit\ndef {name}({', '.join(names)}):\n{text.whole()}"
