"""How rows are folded: the three forms of reductions as lines of Triton.

A program of running reductions may fold several accumulators, each by its own rules. Within a chunk
of columns every lane has a state of its own; a chunk's states are joined across lanes and added to
the totals of rows, which are wider. What a program leaves, where the reduced axis is split, is a
list of `entries`: columns of numbers (ROWS, 1), all as float64.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from ...core.scalars import Loop, Value, number, reachable, to_float
from ...lower.accumulators import Accumulator
from ...lower.kernel import Kernel
from ...lower.tiling import Tiling
from ...ops.reductions import Reduction
from ..functions import approximations
from ..functions.numerics import LOG2E
from .text import Printed, Text, literal
from .values import Known, Values

# An anchor moves when an exponent exceeds it by so much: terms stay below e^8.
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

    def __init__(self, values: Values, instances: Sequence[Instance]) -> None:
        self.values, self.instances = values, instances
        self.kernel: Kernel = values.kernel
        self.tiling: Tiling = values.tiling
        self.text: Text = values.text
        accumulation = self.tiling.accumulation
        self.inner = Printed(self.text, accumulation.inner)
        self.outer = Printed(self.text, accumulation.outer)
        self._owners = {f"a{i.number}": self.kernel.owner(i.place) for i in instances}

    def owner(self, name: str) -> Accumulator:
        """The accumulator that a state belongs to."""
        return self._owners.get(name, self.kernel.accumulators[0])

    def compensated(self, name: str) -> bool:
        """Whether the rounding errors of a total are kept beside it."""
        return self.tiling.accumulation.compensated and self.owner(name).rule.additive

    # ---- names ---------------------------------------------------------------------------

    def states(self) -> list[tuple[str, int]]:
        """(name, number of the folded value) of every state."""
        found = [(f"a{instance.number}", instance.place) for instance in self.instances]
        if self.kernel.total is not None:
            found.append(("w", len(self.kernel.outputs)))
        return found

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
                self.text.line(f"e{name} = {self.full('value', 0.0, '(ROWS, 1)', self.outer)}")

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
        for name, place, value, _ in self._terms(known):
            self.step(name, place, value)

    def _terms(self, known: Known) -> list[tuple[str, int, str, Known]]:
        """(state, number of the folded value, its name, what is known) of every state."""
        found: list[tuple[str, int, str, Known]] = []
        # What no loop over components changes is computed once for all of them.
        self.values.shared(self.kernel.outputs, known, frozenset())
        for instance in self.instances:
            local = {**known, **instance.known}
            output = self.kernel.outputs[instance.place]
            (value,) = self.values.emit([output], local, instance.inside)
            found.append((f"a{instance.number}", instance.place, value, local))
            if not instance.known:
                known.update(local)
        if self.kernel.total is not None:
            (value,) = self.values.emit([self.kernel.total], known)
            found.append(("w", len(self.kernel.outputs), value, known))
        return found

    def step(self, name: str, place: int, value: str) -> None:
        """The reduction's step on the states of all lanes."""
        parts = self.parts(name)
        if self.inner.dtype != self.tiling.dtype:
            value = self.inner.cast(value)
        owner = self.owner(name)
        steps = owner.steps[place - owner.first]
        given: Known = {self.kernel.folded[place]: value}
        for target in reachable(steps, lambda v: v in given):
            if target.what == "placeholder":
                kind, part = target.supplied
                given[target] = {"acc": parts, "column": ["here"]}[kind][part]
        found = self._rule(steps, given, self.inner)
        if self.values.mask:
            found = [f"tl.where(inside, {n}, {o})" for n, o in zip(found, parts, strict=True)]
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
            self._add_compensated(name, totals[0], states[0])
            return
        given, merges = {"a": totals, "b": list(states)}, self.owner(name).merges
        found = self._rule(merges, self._placeholders(merges, given), self.outer)
        for total, after in zip(totals, found, strict=True):
            self.text.line(f"{total} = {after}")

    def _add_compensated(self, name: str, total: str, state: str) -> None:
        """Knuth's TwoSum: what rounding took from the total is kept beside it."""
        let = self.text.let
        after = let(f"{total} + {state}")
        other = let(f"{after} - {total}")
        lost = let(f"({total} - ({after} - {other})) + ({state} - {other})")
        self.text.line(f"e{name} = e{name} + {lost}")
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
            lost, total = f"e{name}", totals[0]
            totals = [self.text.let(f"tl.where({lost} == {lost}, {total} + {lost}, {total})")]
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

    # ---- results -----------------------------------------------------------------------------

    def finish(self) -> list[tuple[Instance, list[str]]]:
        """For each component the results' numbers (ROWS, 1)."""
        found: list[tuple[Instance, list[str]]] = []
        total = self.closed("w")[0] if self.kernel.total is not None else ""
        for instance in self.instances:
            states = self.closed(f"a{instance.number}")
            states = [self._times_factor(instance, state) for state in states]
            given = {
                "a": states, "top": [self._top(instance)], "total": [total], "count": ["count"],
            }  # fmt: skip
            targets = self.owner(f"a{instance.number}").finished
            placeholders = self._placeholders(targets, given)
            found.append((instance, self._rule(targets, placeholders, self.outer)))
        return found

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
        self.values.refuse(f"(tl.abs({name}) <= {largest}) == 0", 1)
        return self.text.let(f"{state} * tl.cast({name}, {self.outer.triton})")


class Anchored(Folding):
    """Sums of exponentials, measured from the largest exponent.

    An anchor belongs to a row. It is moved, and the lanes' sums with it, only when some exponent is
    far above it: then all of a tile's anchors become the largest exponents so far.
    """

    def anchors(self) -> list[tuple[str, list[Instance]]]:
        """(name, the components measured from it)."""
        if self.kernel.weight is not None:
            return [("top0", list(self.instances))]
        return [(f"top{instance.number}", [instance]) for instance in self.instances]

    def _anchor_of(self, instance: Instance) -> str:
        return "top0" if self.kernel.weight is not None else f"top{instance.number}"

    def begin(self) -> None:
        """Totals, their anchors, and the anchors of the chunk."""
        super().begin()
        lowest = literal(to_float("lowest", self.tiling.dtype))
        for top, _ in self.anchors():
            self.text.line(f"{top} = tl.full((ROWS, 1), {lowest}, {self.values.simd.triton})")
            self.text.line(f"t{top} = tl.full((ROWS, 1), {lowest}, {self.values.simd.triton})")

    def fold(self, known: Known) -> None:
        """Exponents, anchors, then terms."""
        for top, instances in self.anchors():
            instance = instances[0]
            place = instance.place if self.kernel.weight is None else 0
            local = {**known, **instance.known}
            (score,) = self.values.emit([self.kernel.scores[place]], local, instance.inside)
            if self.values.mask:
                score = self.text.let(f'tl.where(inside, {score}, float("-inf"))')
                local[self.kernel.scores[place]] = score
            over = self._move(top, score, [*instances, *self._weights()])
            self.measured(local, place, top, over)
            if self.kernel.weight is None:
                instance_known = {**local, **instance.known}
                (value,) = self.values.emit(
                    [self.kernel.outputs[instance.place]], instance_known, instance.inside
                )
                self.step(f"a{instance.number}", instance.place, value)
            else:
                known.update(local)
        if self.kernel.weight is not None:
            super().fold(known)

    def _weights(self) -> list[str]:
        return ["w"] if self.kernel.total is not None else []

    def measured(self, known: Known, place: int, top: str, over: str) -> None:
        """What is known once anchors stand: they, and exponents measured from them."""
        anchor = self.kernel.scalars.placeholder("top", place)
        known[anchor] = top
        known[self.kernel.scalars.apply("apart", self.kernel.scores[place], anchor)] = over

    def _move(self, top: str, score: str, measured: Sequence[Instance | str]) -> str:
        """Move the anchors up to the exponents of this block, if one is far above.

        Returns the exponents measured from the anchors.
        """
        text, simd = self.text, self.values.simd
        # Where the anchors are results, they are the largest exponents at any time.
        limit = simd.constant(0 if self.kernel.only.rule.joined else _AHEAD)
        largest = simd.constant(to_float("largest", self.tiling.dtype))
        over = text.let(f"{score} - {top}")
        with text.block(f"if tl.max(tl.ravel({over})) > {limit}:"):
            number_ = text.let(f'tl.where({score} == {score}, {score}, float("-inf"))')
            highest = text.let(f"tl.minimum(tl.max({number_}, 1, keep_dims=True), {largest})")
            after = text.let(f"tl.maximum({top}, {highest})")
            scale = self._scale(top, after)
            if self.inner.dtype != simd.dtype:
                scale = self.inner.cast(scale)
            for state in measured:
                name = state if isinstance(state, str) else f"a{state.number}"
                for part in self.parts(name):
                    text.line(f"{part} = {part} * {scale}")
            text.line(f"{top} = {after}")
            text.line(f"{over} = {score} - {top}")
        return over

    def _scale(self, before: str, after: str) -> str:
        """e^(before - after)"""
        moved = self.text.let(f"{before} - {after}")
        if self.values.simd.dtype == "float32":
            return self.values.power_of_two(f"{moved} * {self.values.simd.constant(LOG2E)}")
        return approximations.FUNCTIONS["exp"](self.values.simd, moved)

    def flush(self) -> None:
        """As for sums, after the totals were measured from the chunk's anchors."""
        for top, instances in self.anchors():
            self._rebase(top, top, [*instances, *self._weights()])
        super().flush()

    def _rebase(self, top: str, after: str, measured: Sequence[Instance | str]) -> None:
        """Measure totals from a higher anchor."""
        scale = self.outer.cast(self._scale(f"t{top}", after))
        for state in measured:
            name = state if isinstance(state, str) else f"a{state.number}"
            for part in [f"t{part}" for part in self.parts(name)]:
                self.text.line(f"{part} = {part} * {scale}")
            if self.compensated(name):
                self.text.line(f"e{name} = e{name} * {scale}")
        self.text.line(f"t{top} = {after}")

    def entries(self) -> list[str]:
        """The sums, then the anchors."""
        tops = [self.text.let(f"tl.cast(t{top}, tl.float64)") for top, _ in self.anchors()]
        return [*super().entries(), *tops]

    def entry_count(self) -> int:
        """How many they are."""
        return super().entry_count() + len(self.anchors())

    def join(self, entries: Sequence[str]) -> None:
        """Both sides are measured from the higher anchor."""
        count = super().entry_count()
        sums, tops = list(entries[:count]), entries[count:]
        for (top, instances), other in zip(self.anchors(), tops, strict=True):
            own = self.values.simd.cast(other)
            after = self.text.let(f"tl.maximum(t{top}, {own})")
            scale = self.text.let(f"tl.cast({self._scale(own, after)}, tl.float64)")
            names = [name for name, _ in self.states()]
            measured = [*instances, *self._weights()]
            for state in measured:
                name = state if isinstance(state, str) else f"a{state.number}"
                place = names.index(name)
                sums[place] = self.text.let(f"{sums[place]} * {scale}")
            self._rebase(top, after, measured)
        super().join(sums)

    def _top(self, instance: Instance) -> str:
        return self.outer.cast(f"t{self._anchor_of(instance)}")


class Listed(Folding):
    """The K smallest, in no order: a pair that is smaller than the largest of them takes its place.

    Blocks without such a pair cost a comparison. Of equal values the earlier column stays.
    """

    def begin(self) -> None:
        """Lists of inf; places beyond K hold -inf, which nothing replaces."""
        length, text = self.kernel.length, self.text
        dtype = self.values.simd.triton
        text.line("places = tl.arange(0, PLACES)[None, :]")
        for n in self._numbers():
            infinite = f'tl.where(places < {length}, float("inf"), float("-inf"))'
            text.line(f"l{n} = tl.broadcast_to(tl.cast({infinite}, {dtype}), (ROWS, PLACES))")
            text.line(f"i{n} = tl.broadcast_to({_LATER} + tl.cast(places, tl.int64), "
                      "(ROWS, PLACES))")  # fmt: skip
            text.line(f'worst{n} = tl.full((ROWS, 1), float("inf"), {dtype})')

    def _numbers(self) -> list[int]:
        return [instance.number for instance in self.instances]

    def reset(self) -> None:
        """Lanes have no states."""

    def flush(self) -> None:
        """Lists are always whole."""

    def fold(self, known: Known) -> None:
        """One block of columns."""
        self.values.shared(self.kernel.outputs, known, frozenset())
        for instance in self.instances:
            local = {**known, **instance.known}
            output = self.kernel.outputs[instance.place]
            (value,) = self.values.emit([output], local, instance.inside)
            if not instance.known:
                known.update(local)
            inside = f" & inside & ({value} == {value})" if self.values.mask else ""
            smaller = f"({value} < worst{instance.number}){inside}"
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
        length = self.kernel.length
        self.text.line(f'l{n} = tl.where(places < {length}, l{n}, float("inf"))')
        self.text.line(f"i{n} = tl.where(places < {length}, i{n}, {_NEVER})")

    def entry_count(self) -> int:
        """A value and a column for every place of every list."""
        return 2 * self.kernel.length * len(self.instances)

    def join_lists(self) -> None:
        """Merge the lists that a part left: `left` is where its entries begin."""
        length, text = self.kernel.length, self.text
        for order, instance in enumerate(self.instances):
            first = 2 * length * order
            at = "left + ({} + places) * ROWS + own_lanes"
            mask = f"mask=places < {length}"
            value = text.let(f'tl.load({at.format(first)}, {mask}, other=float("inf"))')
            value = self.values.simd.cast(value)
            column = text.let(f"tl.cast(tl.load({at.format(first + length)}, {mask}, other=0.0), "
                              "tl.int64)")  # fmt: skip
            taken = f"tl.sum(tl.where(places == lane, {column}, 0), 1, keep_dims=True)"
            self._insert(instance.number, value, "places", taken)


def merging(kernel: Kernel) -> dict[Reduction, str]:
    """The functions that join lanes' states, by the reductions whose states are not summed."""
    rules = {each.rule: "" for each in kernel.accumulators}
    joined = [rule for rule in rules if not rule.additive and not rule.listed]
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
