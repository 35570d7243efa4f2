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
from collections.abc import Callable, Iterator, Sequence

from llvmlite import ir

from ..core.scalars import Value, reachable
from ..lower.kernel import PAIR
from .context import no_leaf
from .emitter import Emitter, Known
from .flow import BYTES, I64, i64
from .states import States

# A value and its index, lane by lane.
Entry = tuple[ir.Value, ir.Value]


class Lists(States):
    """Writes what happens to lists; the states of a list are its places."""

    insert: ir.Function
    join: ir.Function
    settle: ir.Function

    def _write_lists(self) -> None:
        """insert(list, value, index) -> last values, of pairs that come later than all before;
        join, the same for any; settle(list): insert what was put aside.

        `list` is the address of a vector of lists.
        """
        if self.layout.list_long:
            self.insert = self._insertion("insert", self._later_placed)
        self.join = self._insertion("join", self._placed)
        self.settle = self._settle_function()

    # -- memory -------------------------------------------------------------------------------

    def _list_address(self, state: ir.Value, place: ir.Value, r: int) -> ir.Value:
        """The address of the lists of vector r of component `place`."""
        return self.flow.at(self._state_address(state, place, 0), i64(self.code.vector((0, r))))

    def _row(self, lists: ir.Value, number: ir.Value) -> ir.Value:
        return self.flow.at(lists, self.flow.times(number, self.plan.lane_count * self.item))

    def _entry_at(self, lists: ir.Value, place: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Addresses of values and indices at a place."""
        index = self.builder.add(place, i64(self.layout.list_places))
        return self._row(lists, place), self._row(lists, index)

    def _aside_at(self, lists: ir.Value, place: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Addresses of values and indices that were put aside."""
        first = self.builder.add(place, i64(2 * self.layout.list_places))
        return self._row(lists, first), self._row(
            lists, self.builder.add(first, i64(self.layout.list_aside))
        )

    def _counts_at(self, lists: ir.Value) -> ir.Value:
        """The address of how many were put aside."""
        return self._row(lists, i64(2 * (self.layout.list_places + self.layout.list_aside)))

    def _load_entry(self, where: tuple[ir.Value, ir.Value]) -> Entry:
        value, index = where
        load = self.flow.load
        return load(self.simd.type, value, self.item), load(self.simd.int_type, index, self.item)

    def _store_entry(self, entry: Sequence[ir.Value], where: tuple[ir.Value, ir.Value]) -> None:
        for part, address in zip(entry, where, strict=True):
            self.flow.store(part, address, self.item)

    def _each_list(self, state: ir.Value) -> Iterator[tuple[ir.Value, int]]:
        """(component, vector) of the lists of a unit."""
        with self.flow.loop(i64(0), i64(self.kernel.dim), name="lists") as place:
            for r in range(self.plan.vectors):
                yield place.index, r

    def _reset_lists(self, state: ir.Value) -> None:
        """Empty lists: infinite values with index 0."""
        flow, simd = self.flow, self.simd
        empty = simd.constant(math.inf), simd.int_constant(0)
        for place, r in self._each_list(state):
            lists = self._list_address(state, place, r)
            with flow.loop(i64(0), i64(self.layout.list_places), name="places") as each:
                self._store_entry(empty, self._entry_at(lists, each.index))
            flow.store(simd.int_constant(0), self._counts_at(lists), self.item)

    # -- insertion ----------------------------------------------------------------------------

    def _insertion(self, name: str, placed: Callable[..., Entry]) -> ir.Function:
        """A function that applies a rule to all places, the last ones first.

        `placed(before, here, new)` is what a place holds afterwards.
        """
        bits = ir.IntType(8 * self.item)
        real = ir.VectorType(ir.FloatType() if self.item == 4 else ir.DoubleType(), self.plan.width)
        whole = ir.VectorType(bits, self.plan.width)
        lists, *new = self._function(name, BYTES, real, whole, returns=real)
        flow, places = self.flow, self.layout.list_places
        front = self.simd.constant(-math.inf), self.simd.int_constant(0)
        step = self.layout.list_step
        last = i64(places - 1)
        here = self._load_entry(self._entry_at(lists, last))
        with flow.loop(i64(0), i64((places - 1) // step), carried=here, name="places") as chunk:
            here = chunk.values
            for extra in range(step):
                done = self.builder.add(flow.times(chunk.index, step), i64(extra))
                place = self.builder.sub(last, done)
                before = self._load_entry(self._entry_at(lists, self.builder.sub(place, i64(1))))
                self._store_entry(placed(before, here, new), self._entry_at(lists, place))
                here = before
            chunk.next = list(here)
        self._store_entry(placed(front, chunk.results, new), self._entry_at(lists, i64(0)))
        self.builder.ret(self._last(lists))
        return self.module.get_global(name)

    def _later_placed(
        self, before: Sequence[ir.Value], here: Sequence[ir.Value], new: Sequence[ir.Value]
    ) -> Entry:
        """The reduction's step: indices are selected as they are, and never compared."""
        rule, output = self.kernel.steps[0], self.kernel.folded[0]
        emitter = Emitter(self.kernel, self.plan, self.simd, self.flow, PAIR)
        known: Known = {(output, emitter.key(output, (0, 0))): new[0]}
        return self._applied(emitter, rule, {"acc": [*before, *here], "column": [new[1]]}, known)

    def _placed(
        self, before: Sequence[ir.Value], here: Sequence[ir.Value], new: Sequence[ir.Value]
    ) -> Entry:
        """The reduction's merge, whose indices are numbers."""
        emitter = Emitter(self.kernel, self.plan, self.outer, self.flow, PAIR)
        old = [*self._opened(before), *self._opened(here)]
        value, index = self._applied(
            emitter, self.kernel.merges, {"a": old, "b": list(self._opened(new))}, {}
        )
        if self.simd.scalar != self.outer.scalar:
            value = self.builder.fptrunc(value, self.simd.type)
        return value, self.builder.fptoui(index, self.simd.int_type)

    def _opened(self, entry: Sequence[ir.Value]) -> Entry:
        """An entry in the type of states."""
        index = self.builder.uitofp(entry[1], self.outer.type)
        return self.code.to_outer(entry[0]), index

    def _applied(
        self,
        emitter: Emitter,
        rule: Sequence[Value],
        holes: dict[str, list[ir.Value]],
        given: Known,
    ) -> Entry:
        known = dict(given)
        for hole in (v for v in reachable(rule) if v.what == "hole"):
            name, part = hole.data
            known[hole, (0, 0)] = holes[name][part]
        inside = frozenset().union(*(value.loops for value in rule))
        emitter.emit(rule, [(0, 0)], known, no_leaf, inside)
        value, index = (known[part, emitter.key(part, (0, 0))] for part in rule)
        return value, index

    def _last(self, lists: ir.Value) -> ir.Value:
        """The last values of a vector of lists."""
        where = self._row(lists, i64(self.kernel.length - 1))
        return self.flow.load(self.simd.type, where, self.item)

    def _limit(self, state: ir.Value, place: ir.Value, r: int) -> ir.Value:
        """The last values of the lists of vector r."""
        return self._last(self._list_address(state, place, r))

    def _offer(
        self, limit: ir.Value, lists: ir.Value, value: ir.Value, column: ir.Value
    ) -> ir.Value:
        """Take in a vector of pairs where they are smaller than the lists' last values, `limit`;
        the last values after. `column` is the number of the (first) column.
        """
        b = self.builder
        smaller = self.simd.compare("<", value, limit)
        lanes = b.bitcast(smaller, ir.IntType(self.plan.width))
        some = b.icmp_unsigned("!=", lanes, ir.Constant(lanes.type, 0))
        if self.layout.list_long:
            with self.flow.when(some, rare=True):
                self._put_aside(lists, value, column, b.zext(lanes, I64))
        else:
            self._put_all_aside(lists, value, column, some)
        return self._last(lists)

    def _put_all_aside(
        self, lists: ir.Value, value: ir.Value, column: ir.Value, some: ir.Value
    ) -> None:
        """Keep a whole vector of pairs for later if some of them are to be inserted.

        It is written in any case, and counted or not: there is no branch to predict.
        """
        b, flow, item = self.builder, self.flow, self.item
        kind = self.simd.scalar_int
        counts = self._counts_at(lists)
        count = flow.load(kind, counts, item)
        place = count if kind == I64 else b.zext(count, I64)
        values, numbers = self._aside_at(lists, place)
        flow.store(value, values, item)
        flow.store(column if kind == I64 else b.trunc(column, kind), numbers, item)
        count = b.add(count, b.zext(some, kind))
        flow.store(count, counts, item)
        full = b.icmp_signed("==", count, ir.Constant(kind, self.layout.list_aside))
        with flow.when(full, rare=True):
            b.call(self.settle, [lists])

    def _put_aside(
        self, lists: ir.Value, value: ir.Value, column: ir.Value, lanes: ir.Value
    ) -> None:
        """Keep the pairs of some lanes (bits) for later; make room when one lane has none left."""
        b, flow, item = self.builder, self.flow, self.item
        kind = self.simd.scalar_int
        counts = self._counts_at(lists)
        values = self._row(counts, i64(1))
        flow.store(value, values, item)
        body, done = b.append_basic_block("aside"), b.append_basic_block("aside.end")
        before = b.block
        b.branch(body)
        b.position_at_end(body)
        left, most = b.phi(I64, "left"), b.phi(kind, "most")
        left.add_incoming(lanes, before)
        most.add_incoming(ir.Constant(kind, 0), before)
        lane = self.simd.intrinsic("llvm.cttz.i64", I64, left, ir.Constant(ir.IntType(1), 1))
        shift = flow.times(lane, item)
        own = flow.at(counts, shift)
        count = flow.load(kind, own, item)
        place = count if kind == I64 else b.zext(count, I64)
        number = column if self.row_major else b.add(column, lane)
        number = number if kind == I64 else b.trunc(number, kind)
        parts = flow.load(self.simd.scalar, flow.at(values, shift), item), number
        for part, row in zip(parts, self._aside_at(lists, place), strict=True):
            flow.store(part, flow.at(row, shift), item)
        count = b.add(count, ir.Constant(kind, 1))
        flow.store(count, own, item)
        larger = b.select(b.icmp_signed(">", count, most), count, most)
        rest = b.and_(left, b.sub(left, i64(1)))
        left.add_incoming(rest, b.block)
        most.add_incoming(larger, b.block)
        b.cbranch(b.icmp_signed("!=", rest, i64(0)), body, done)
        b.position_at_end(done)
        full = b.icmp_signed("==", larger, ir.Constant(kind, self.layout.list_aside))
        with flow.when(full, rare=True):
            b.call(self.settle, [lists])

    def _settle_function(self) -> ir.Function:
        """settle(list): insert all pairs that were put aside, in the order they came in."""
        (lists,) = self._function("settle", BYTES)
        if self.layout.list_long:
            self._settle_lanes(lists)
        else:
            self._settle_vectors(lists)
        self.flow.store(self.simd.int_constant(0), self._counts_at(lists), self.item)
        self.builder.ret_void()
        return self.module.get_global("settle")

    def _settle_lanes(self, lists: ir.Value) -> None:
        """Where each lane has put aside its own pairs."""
        flow, b, simd = self.flow, self.builder, self.simd
        counts = flow.load(simd.int_type, self._counts_at(lists), self.item)
        name = f"llvm.vector.reduce.smax.v{simd.width}i{simd.bits}"
        most = simd.intrinsic(name, simd.scalar_int, counts)
        most = most if simd.bits == 64 else b.zext(most, I64)
        with flow.loop(i64(0), most, name="aside") as each:
            value, number = self._load_entry(self._aside_at(lists, each.index))
            index = each.index if simd.bits == 64 else b.trunc(each.index, simd.scalar_int)
            here = b.icmp_signed("<", simd.splat(index), counts)
            value = b.select(here, value, simd.constant(math.inf))
            b.call(self.insert, [lists, value, number])

    def _settle_vectors(self, lists: ir.Value) -> None:
        """Where whole vectors were put aside: the lists stay in registers meanwhile."""
        flow, b, simd = self.flow, self.builder, self.simd
        count = flow.load(simd.scalar_int, self._counts_at(lists), self.item)
        count = count if simd.bits == 64 else b.zext(count, I64)
        places = [self._entry_at(lists, i64(place)) for place in range(self.kernel.length)]
        old = [part for place in places for part in self._load_entry(place)]
        front = simd.constant(-math.inf), simd.int_constant(0)
        with flow.loop(i64(0), count, carried=old, name="aside") as each:
            values, numbers = self._aside_at(lists, each.index)
            number = simd.splat(flow.load(simd.scalar_int, numbers, self.item))
            if not self.row_major:
                lanes = [ir.Constant(simd.scalar_int, n) for n in range(simd.width)]
                number = b.add(number, ir.Constant(simd.int_type, lanes))
            new = flow.load(simd.type, values, self.item), number
            entries = [front, *zip(each.values[::2], each.values[1::2], strict=True)]
            each.next = [
                part
                for before, here in itertools.pairwise(entries)
                for part in self._later_placed(before, here, new)
            ]
        results = each.results
        for place, entry in zip(places, zip(results[::2], results[1::2], strict=True), strict=True):
            self._store_entry(entry, place)

    def _settle_lists(self, state: ir.Value) -> None:
        """Nothing is left aside in a unit's lists."""
        for place, r in self._each_list(state):
            self.builder.call(self.settle, [self._list_address(state, place, r)])

    # -- lists as states ----------------------------------------------------------------------

    def _merge_lists(self, into: ir.Value, other: ir.Value) -> None:
        """Insert the pairs of another unit's lists."""
        self._settle_lists(into)
        self._settle_lists(other)
        for place, r in self._each_list(into):
            self._join_lists(
                self._list_address(into, place, r), self._list_address(other, place, r)
            )

    def _join_lists(self, into: ir.Value, other: ir.Value, shift: int = 0) -> None:
        """Insert the pairs of other lists; those of the lanes `shift` ahead in lanes below it."""
        b, width = self.builder, self.plan.width
        with self.flow.loop(i64(0), i64(self.kernel.length), name="entries") as place:
            value, index = self._load_entry(self._entry_at(other, place.index))
            if shift:
                value, index = self.code.rotated(value, shift), self.code.rotated(index, shift)
                bits = [ir.Constant(ir.IntType(1), lane < shift) for lane in range(width)]
                below = ir.Constant(self.simd.mask_type, bits)
                value = b.select(below, value, self.simd.constant(math.inf))
                index = b.select(below, index, self.simd.int_constant(0))
            b.call(self.join, [into, value, index])

    def _gather_lists(self, state: ir.Value) -> None:
        """When lanes are columns: the lists of all lanes into that of lane 0."""
        self._settle_lists(state)
        with self.flow.loop(i64(0), i64(self.kernel.dim), name="lists") as place:
            first = self._list_address(state, place.index, 0)
            for r in range(1, self.plan.vectors):
                self._join_lists(first, self._list_address(state, place.index, r))
            shift = self.plan.width // 2
            while shift:
                self._join_lists(first, first, shift)
                shift //= 2

    def _entry_vector(
        self, state: ir.Value, place: ir.Value, position: ir.Value, r: int
    ) -> list[ir.Value]:
        """Values and indices at a place of the lists of vector r, as states."""
        lists = self._list_address(state, place, r)
        return list(self._opened(self._load_entry(self._entry_at(lists, position))))
