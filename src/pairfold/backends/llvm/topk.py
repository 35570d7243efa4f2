"""Sorted lists of the K smallest (value, index) pairs, one per row and component.

Layout: [component][row of the list][lane]: values, then indices, as integers as wide as the values.
Lanes being rows or columns as ever, a vector of pairs is inserted into as many lists at once: place
l takes what it has, what place l-1 had, or the new pair, without a branch. The inner loop only
compares with the last values of the lists, kept in registers; a vector none of whose lanes is
smaller is left out.

In long lists most lanes of such a vector change nothing, K times. There, pairs that are smaller are
put aside, lane by lane; when a lane has no room left, all are inserted, those of every lane
together. The last values are those of the lists, so they are larger than need be for a while.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Protocol

from ...core.scalars import Value, reachable
from ...lower.accumulators import Accumulator
from ...lower.kernel import PAIR
from . import ir
from .block import Block
from .context import Code, Context, no_leaf
from .emitter import Emitter, Key, Known
from .flow import BYTES, I64, i64
from .scratch import ListRows, Run
from .states import Finished, Form, Output, States, finished

# A value and its index, lane by lane.
Entry = tuple[ir.Value, ir.Value]


class _Placed(Protocol):
    """What a place of a list holds after an insertion."""

    def __call__(
        self, before: Sequence[ir.Value], here: Sequence[ir.Value], new: Sequence[ir.Value], /
    ) -> Entry: ...


class Lists:
    """Vectors of an accumulator's lists in memory, in one function being written.

    `lists` is the address of one.
    """

    def __init__(self, code: Code, accumulator: Accumulator) -> None:
        self.code, self.plan, self.accumulator = code, code.plan, accumulator
        self.length = accumulator.folded.length
        self.rows = ListRows.of(self.length)
        self.flow, self.builder = code.flow, code.builder
        self.simd, self.item = code.simd, code.item

    def row(self, lists: ir.Value, number: ir.Value) -> ir.Value:
        """The address of a row of lanes."""
        return self.flow.at(lists, self.flow.times(number, self.plan.lane_count * self.item))

    def entry_at(self, lists: ir.Value, place: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Addresses of values and indices at a place."""
        index = self.builder.add(place, i64(self.rows.places))
        return self.row(lists, place), self.row(lists, index)

    def aside_at(self, lists: ir.Value, place: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Addresses of values and indices that were put aside."""
        first = self.builder.add(place, i64(2 * self.rows.places))
        return self.row(lists, first), self.row(
            lists, self.builder.add(first, i64(self.rows.aside))
        )

    def counts_at(self, lists: ir.Value) -> ir.Value:
        """The address of how many were put aside."""
        return self.row(lists, i64(2 * (self.rows.places + self.rows.aside)))

    def load(self, where: tuple[ir.Value, ir.Value]) -> Entry:
        """The entry at these addresses."""
        value, index = where
        load = self.flow.load
        return load(self.simd.type, value, self.item), load(self.simd.int_type, index, self.item)

    def store(self, entry: Sequence[ir.Value], where: tuple[ir.Value, ir.Value]) -> None:
        """Keep an entry at these addresses."""
        for part, address in zip(entry, where, strict=True):
            self.flow.store(part, address, self.item)

    def last(self, lists: ir.Value) -> ir.Value:
        """The last values."""
        where = self.row(lists, i64(self.length - 1))
        return self.flow.load(self.simd.type, where, self.item)

    def nothing(self) -> Entry:
        """What stands in an empty list: infinite values with index 0."""
        return self.simd.constant(math.inf), self.simd.int_constant(0)

    def front(self) -> Entry:
        """What stands before the first place."""
        return self.simd.constant(-math.inf), self.simd.int_constant(0)

    def opened(self, entry: Sequence[ir.Value]) -> Entry:
        """An entry in the type of states."""
        index = self.builder.uitofp(entry[1], self.code.outer.type)
        return self.code.to_outer(entry[0]), index

    # -- rules ----------------------------------------------------------------------------------

    def later_placed(
        self, before: Sequence[ir.Value], here: Sequence[ir.Value], new: Sequence[ir.Value], /
    ) -> Entry:
        """The reduction's step: indices are selected as they are, and never compared.

        They are where columns have an order of their own, in which none comes later.
        """
        if self.plan.pruned:
            return self._placed_by_number(before, here, new)
        own = self.accumulator
        rule, output = own.steps[0], self.code.kernel.outputs[own.first]
        emitter = self.code.rules(PAIR, self.simd)
        known: Known = {(output, emitter.key(output, (0, 0))): new[0]}
        return _applied(emitter, rule, {"acc": [*before, *here], "column": [new[1]]}, known)

    def _placed_by_number(
        self, before: Sequence[ir.Value], here: Sequence[ir.Value], new: Sequence[ir.Value]
    ) -> Entry:
        """The reduction's merge, on numbers of columns as they are kept."""
        b, simd = self.builder, self.simd

        def first(old: Sequence[ir.Value]) -> ir.Value:
            tied = simd.mask_and(
                simd.compare("==", new[0], old[0]), b.icmp_unsigned("<", new[1], old[1])
            )
            return simd.mask_or(simd.compare("<", new[0], old[0]), tied)

        later, now = first(before), first(here)
        value, index = (
            b.select(later, old, b.select(now, fresh, same))
            for old, fresh, same in zip(before, new, here, strict=True)
        )
        return value, index

    def placed(
        self, before: Sequence[ir.Value], here: Sequence[ir.Value], new: Sequence[ir.Value], /
    ) -> Entry:
        """The reduction's merge, whose indices are numbers."""
        emitter = self.code.rules(PAIR, self.code.outer)
        old = [*self.opened(before), *self.opened(here)]
        value, index = _applied(
            emitter, self.accumulator.merges, {"a": old, "b": list(self.opened(new))}, {}
        )
        if self.simd.scalar != self.code.outer.scalar:
            value = self.builder.fptrunc(value, self.simd.type)
        return value, self.builder.fptoui(index, self.simd.int_type)

    def insert(self, lists: ir.Value, new: Sequence[ir.Value], placed: _Placed) -> None:
        """Apply a rule to all places, the last ones first."""
        flow, b, step = self.flow, self.builder, self.rows.step
        places = self.rows.places
        front, last = self.front(), i64(places - 1)
        here = self.load(self.entry_at(lists, last))
        with flow.loop(i64(0), i64((places - 1) // step), carried=here, name="places") as chunk:
            here = chunk.values
            for extra in range(step):
                done = b.add(flow.times(chunk.index, step), i64(extra))
                place = b.sub(last, done)
                before = self.load(self.entry_at(lists, b.sub(place, i64(1))))
                self.store(placed(before, here, new), self.entry_at(lists, place))
                here = before
            chunk.next = list(here)
        self.store(placed(front, chunk.results, new), self.entry_at(lists, i64(0)))

    # -- pairs that were put aside --------------------------------------------------------------

    def keep_vector(
        self, lists: ir.Value, value: ir.Value, column: ir.Value, some: ir.Value
    ) -> ir.Value:
        """Put a whole vector of pairs aside if some of them are to be inserted; whether it is full.

        It is written in any case, and counted or not: there is no branch to predict.
        """
        b, flow, item = self.builder, self.flow, self.item
        kind = self.simd.scalar_int
        counts = self.counts_at(lists)
        count = flow.load(kind, counts, item)
        place = count if kind == I64 else b.zext(count, I64)
        values, numbers = self.aside_at(lists, place)
        flow.store(value, values, item)
        flow.store(column if kind == I64 else b.trunc(column, kind), numbers, item)
        count = b.add(count, b.zext(some, kind))
        flow.store(count, counts, item)
        return b.icmp_signed("==", count, ir.Constant(kind, self.rows.aside))

    def keep_lanes(
        self, lists: ir.Value, value: ir.Value, column: ir.Value, lanes: ir.Value
    ) -> ir.Value:
        """Put the pairs of some lanes (bits) aside; whether one of these lanes is full."""
        b, flow, item = self.builder, self.flow, self.item
        kind = self.simd.scalar_int
        counts = self.counts_at(lists)
        values = self.row(counts, i64(1))
        flow.store(value, values, item)
        body, done = b.append_basic_block("aside"), b.append_basic_block("aside.end")
        before = b.block
        b.branch(body)
        b.position_at_end(body)
        left, most = b.phi(I64), b.phi(kind)
        left.add_incoming(lanes, before)
        most.add_incoming(ir.Constant(kind, 0), before)
        lane = self.simd.intrinsic("llvm.cttz.i64", I64, left, ir.Constant(ir.IntType(1), 1))
        shift = flow.times(lane, item)
        own = flow.at(counts, shift)
        count = flow.load(kind, own, item)
        place = count if kind == I64 else b.zext(count, I64)
        number = column if self.code.row_major else b.add(column, lane)
        number = number if kind == I64 else b.trunc(number, kind)
        parts = flow.load(self.simd.scalar, flow.at(values, shift), item), number
        for part, row in zip(parts, self.aside_at(lists, place), strict=True):
            flow.store(part, flow.at(row, shift), item)
        count = b.add(count, ir.Constant(kind, 1))
        flow.store(count, own, item)
        larger = b.select(b.icmp_signed(">", count, most), count, most)
        rest = b.and_(left, b.sub(left, i64(1)))
        left.add_incoming(rest, b.block)
        most.add_incoming(larger, b.block)
        b.cbranch(b.icmp_signed("!=", rest, i64(0)), body, done)
        b.position_at_end(done)
        return b.icmp_signed("==", larger, ir.Constant(kind, self.rows.aside))

    def settle_lanes(self, lists: ir.Value, insert: ir.Function) -> None:
        """Insert what was put aside, where each lane has its own pairs."""
        flow, b, simd = self.flow, self.builder, self.simd
        counts = flow.load(simd.int_type, self.counts_at(lists), self.item)
        name = f"llvm.vector.reduce.smax.v{simd.width}i{simd.bits}"
        most = simd.intrinsic(name, simd.scalar_int, counts)
        most = most if simd.bits == 64 else b.zext(most, I64)
        with flow.loop(i64(0), most, name="aside") as each:
            value, number = self.load(self.aside_at(lists, each.index))
            index = each.index if simd.bits == 64 else b.trunc(each.index, simd.scalar_int)
            here = b.icmp_signed("<", simd.splat(index), counts)
            value = b.select(here, value, simd.constant(math.inf))
            b.call(insert, [lists, value, number])

    def settle_vectors(self, lists: ir.Value) -> None:
        """Insert vectors that were put aside whole; the lists stay in registers meanwhile."""
        flow, b, simd = self.flow, self.builder, self.simd
        count = flow.load(simd.scalar_int, self.counts_at(lists), self.item)
        count = count if simd.bits == 64 else b.zext(count, I64)
        places = [self.entry_at(lists, i64(place)) for place in range(self.length)]
        old = [part for place in places for part in self.load(place)]
        with flow.loop(i64(0), count, carried=old, name="aside") as each:
            values, numbers = self.aside_at(lists, each.index)
            number = simd.splat(flow.load(simd.scalar_int, numbers, self.item))
            if not self.code.row_major:
                number = b.add(number, ir.Constant(simd.int_type, range(simd.width)))
            new = flow.load(simd.type, values, self.item), number
            entries = [self.front(), *zip(each.values[::2], each.values[1::2], strict=True)]
            each.next = [
                part
                for before, here in itertools.pairwise(entries)
                for part in self.later_placed(before, here, new)
            ]
        results = each.results
        for place, entry in zip(places, zip(results[::2], results[1::2], strict=True), strict=True):
            self.store(entry, place)


class ListFunctions:
    """The functions of a module that change the lists of an accumulator.

    insert(list, value, index) -> last values, of pairs that come later than all before; join, the
    same for any; settle(list): insert what was put aside. `list` is the address of a vector of
    lists.
    """

    def __init__(self, context: Context, accumulator: Accumulator, mark: str) -> None:
        self.context, self.accumulator, self.mark = context, accumulator, mark
        self.insert: ir.Function | None = None
        if ListRows.of(accumulator.folded.length).long:
            self.insert = self._insertion("insert", later=True)
        self.join = self._insertion("join", later=False)
        self.settle = self._settle()

    def _insertion(self, name: str, later: bool) -> ir.Function:
        plan, item = self.context.plan, self.context.item
        real = ir.VectorType(ir.FloatType() if item == 4 else ir.DoubleType(), plan.width)
        whole = ir.VectorType(ir.IntType(8 * item), plan.width)
        code = self.context.function(name + self.mark, BYTES, real, whole, returns=real)
        address, *new = code.given
        lists = Lists(code, self.accumulator)
        lists.insert(address, new, lists.later_placed if later else lists.placed)
        return code.done(lists.last(address))

    def _settle(self) -> ir.Function:
        code = self.context.function("settle" + self.mark, BYTES)
        (address,) = code.given
        lists = Lists(code, self.accumulator)
        if self.insert is not None:
            lists.settle_lanes(address, self.insert)
        else:
            lists.settle_vectors(address)
        code.flow.store(code.simd.int_constant(0), lists.counts_at(address), code.item)
        return code.done()


class TopK:
    """The K smallest values of each component, with their indices: an accumulator's states."""

    def __init__(self, code: Code, run: Run, functions: ListFunctions) -> None:
        self.code, self.plan, self.accumulator = code, code.plan, run.accumulator
        self.flow, self.builder = code.flow, code.builder
        self.functions, self.lists = functions, Lists(code, run.accumulator)
        self.states, self.first, self.stop = States(code, run), run.first, run.stop

    def _at(self, state: ir.Value, place: ir.Value, r: int) -> ir.Value:
        """The address of the lists of vector r of component `place`."""
        shift = i64(self.code.vector((0, r)))
        return self.flow.at(self.states.address(state, place, 0), shift)

    def _each(self) -> Iterator[tuple[ir.Value, int]]:
        """(component, vector) of the lists of a tile."""
        with self.flow.loop(i64(self.first), i64(self.stop), name="lists") as place:
            for r in range(self.plan.vectors):
                yield place.index, r

    def _settle(self, state: ir.Value) -> None:
        """Nothing is left aside in a tile's lists."""
        for place, r in self._each():
            self.builder.call(self.functions.settle, [self._at(state, place, r)])

    def last(self, state: ir.Value, r: int) -> ir.Value:
        """The last values of the lists of the first component, of vector r."""
        return self.lists.last(self._at(state, i64(self.first), r))

    def tidy(self, state: ir.Value) -> None:
        """Nothing is left aside, so that last values are those of all pairs so far."""
        flow, b, lists = self.flow, self.builder, self.lists
        kind = self.code.simd.int_type
        zero = ir.Constant(ir.IntType(8 * lists.item * self.plan.width), 0)
        for place, r in self._each():
            own = self._at(state, place, r)
            counts = b.bitcast(flow.load(kind, lists.counts_at(own), lists.item), zero.type)
            with flow.when(b.icmp_unsigned("!=", counts, zero)):
                b.call(self.functions.settle, [own])

    def merge(self, into: ir.Value, other: ir.Value) -> None:
        """Insert the pairs of another tile's lists."""
        self._settle(into)
        self._settle(other)
        for place, r in self._each():
            self._join(self._at(into, place, r), self._at(other, place, r))

    def _join(self, into: ir.Value, other: ir.Value, shift: int = 0) -> None:
        """Insert the pairs of other lists; those of the lanes `shift` ahead in lanes below it."""
        b, code, lists = self.builder, self.code, self.lists
        with self.flow.loop(i64(0), i64(self.lists.length), name="entries") as place:
            value, index = lists.load(lists.entry_at(other, place.index))
            if shift:
                value, index = code.rotated(value, shift), code.rotated(index, shift)
                bits = [n < shift for n in range(self.plan.width)]
                below = ir.Constant(code.simd.mask_type, bits)
                nothing = lists.nothing()
                value = b.select(below, value, nothing[0])
                index = b.select(below, index, nothing[1])
            b.call(self.functions.join, [into, value, index])

    def begin(self, block: Block, outputs: Sequence[Output]) -> list[list[ir.Value]]:
        """The last values of the lists; all else stays in memory."""
        return [
            [self.lists.last(self._at(block.state, place, r)) for r in range(block.vectors)]
            for _, place in outputs
        ]

    def step(
        self,
        block: Block,
        output: Output,
        carried: Sequence[ir.Value],
        instances: Sequence[Key],
        local: Known,
        at: ir.Value,
    ) -> list[ir.Value]:
        """The last values after some pairs have been offered."""
        number, place = output
        limits, formula = list(carried), self.code.kernel.outputs[number]
        for instance in instances:
            r = instance[1]
            value = local[formula, block.key(formula, instance)]
            column = block.number_of_all(at, instance)
            nothing = self.code.simd.constant(math.inf)
            value = block.only_counted(value, nothing, at, instance, local)
            lists = self._at(block.state, place, r)
            limits[r] = self._offer(limits[r], lists, value, column)
        return limits

    def _offer(
        self, limit: ir.Value, lists: ir.Value, value: ir.Value, column: ir.Value
    ) -> ir.Value:
        """Take in a vector of pairs where they are smaller than the lists' last values, `limit`;
        the last values after. `column` is the number of the (first) column.
        """
        b, settle = self.builder, self.functions.settle
        # Where columns have an order of their own, an equal value may have a smaller number.
        closer = "<=" if self.plan.pruned else "<"
        smaller = self.code.simd.compare(closer, value, limit)
        lanes = b.bitcast(smaller, ir.IntType(self.plan.width))
        some = b.icmp_unsigned("!=", lanes, ir.Constant(lanes.type, 0))
        if self.lists.rows.long:
            with self.flow.when(some, rare=True):
                full = self.lists.keep_lanes(lists, value, column, b.zext(lanes, I64))
                with self.flow.when(full, rare=True):
                    b.call(settle, [lists])
        else:
            full = self.lists.keep_vector(lists, value, column, some)
            with self.flow.when(full, rare=True):
                b.call(settle, [lists])
        return self.lists.last(lists)

    def end(
        self, block: Block, outputs: Sequence[Output], carried: Sequence[Sequence[ir.Value]]
    ) -> None:
        """Lists are in memory already."""

    def gather(self, state: ir.Value) -> None:
        """Nothing is left aside; when lanes are columns: all lists into that of lane 0."""
        self._settle(state)
        if self.code.row_major:
            return
        with self.flow.loop(i64(self.first), i64(self.stop), name="lists") as place:
            first = self._at(state, place.index, 0)
            for r in range(1, self.plan.vectors):
                self._join(first, self._at(state, place.index, r))
            shift = self.plan.width // 2
            while shift:
                self._join(first, first, shift)
                shift //= 2

    def finish(self, state: ir.Value, columns: ir.Value) -> Iterator[Finished]:
        """The results of a vector of rows: values and indices, place after place."""
        b, own, lists = self.builder, self.accumulator, self.lists
        with self.flow.loop(i64(0), i64(own.count * lists.length), name="lists") as which:
            position = b.sdiv(which.index, i64(own.count))
            place = b.srem(which.index, i64(own.count))
            if own.first:
                place = b.add(place, i64(own.first))
            entry = lists.load(lists.entry_at(self._at(state, place, 0), position))
            found = finished(self.code, own, columns, lists.opened(entry))
            for n, value in enumerate(found):
                yield Finished(own.result + n, which.index, value, None)

    def narrowed(self, state: ir.Value, lane: ir.Value) -> tuple[Form, ir.Value]:
        """Lanes lie side by side."""
        return self, self.flow.at(state, self.flow.times(lane, self.code.item))

    def limit(self, state: ir.Value) -> ir.Value:
        """The last values of the lists."""
        return self.lists.last(self._at(state, i64(self.first), 0))


def _applied(
    emitter: Emitter, rule: Sequence[Value], placeholders: dict[str, list[ir.Value]], given: Known
) -> Entry:
    known = dict(given)
    for placeholder in (v for v in reachable(rule) if v.what == "placeholder"):
        name, part = placeholder.supplied
        known[placeholder, (0, 0)] = placeholders[name][part]
    inside = frozenset().union(*(value.loops for value in rule))
    emitter.emit(rule, [(0, 0)], known, no_leaf, inside)
    value, index = (known[part, emitter.key(part, (0, 0))] for part in rule)
    return value, index
