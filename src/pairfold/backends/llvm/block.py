"""A packed block of columns, as a function sees it that folds it into some vectors of rows.

Packed numbers are read here; which lanes count, and which column a lane is, is said here. Loops
over the block are written here, their bodies elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from ...core.scalars import Loop, Value
from ...lower.kernel import COLUMN, ONCE, PAIR, ROW, Argument
from . import ir
from .abi import FIRST_ROW
from .context import Code, Places
from .emitter import Emitter, Key, Known, Leaf
from .flow import I64, Carried, i64


class Slots(NamedTuple):
    """Reads the packed slots of one tile: what is computed once, rows, and columns.

    `columns` are the packed columns, as each vector of rows sees them. `picked`, if it is not
    None, is the address of the numbers of the columns that are folded; else all are. `pairs` is
    what the tile needs of arguments that every pair has: see `pairs`.
    """

    code: Code
    once: ir.Value
    rows: ir.Value
    columns: Sequence[ir.Value] = ()
    picked: ir.Value | None = None
    pairs: ir.Value | None = None

    def column(self, at: ir.Value, u: int) -> ir.Value:
        """The number in the block of column u of a jam, where lanes are rows."""
        flow = self.code.flow
        column = self.code.builder.add(at, i64(u))
        if self.picked is None:
            return column
        return flow.load(I64, flow.at(self.picked, flow.times(column, 8)), 8)

    def leaf(self, at: ir.Value) -> Leaf:
        """Reads slots for column (or vector of columns) number `at` of the block."""
        code = self.code
        flow, b, item, simd, plan = code.flow, code.builder, code.item, code.simd, code.plan

        def leaf(where: int, offset: int, index: ir.Value, key: Key) -> ir.Value:
            if where == PAIR:
                return flow.load(simd.type, self.of_pair(at, offset, index, key), 4)
            slot = b.add(i64(offset), index)
            if where == ONCE:
                address = flow.at(self.once, flow.times(slot, item))
                return simd.splat(flow.load(simd.scalar, address, item))
            if where == ROW:
                place = flow.times(slot, plan.row_group * item)
                if not code.row_major:
                    return simd.splat(flow.load(simd.scalar, flow.at(self.rows, place), item))
                address = flow.at(self.rows, b.add(place, i64(code.vector(key))))
                return flow.load(simd.type, address, 4)
            place = flow.times(slot, plan.block * item)
            if code.row_major:
                column = self.column(at, key[0])
                address = flow.at(self.columns[key[1]], b.add(place, flow.times(column, item)))
                return simd.splat(flow.load(simd.scalar, address, item))
            shift = b.add(flow.times(at, item), i64(code.vector(key)))
            return flow.load(simd.type, flow.at(self.columns[0], b.add(place, shift)), 4)

        return leaf

    def of_pair(self, at: ir.Value, offset: int, index: ir.Value, key: Key) -> ir.Value:
        """Where a component of what an instance's pairs have is; `offset`: its argument's slot."""
        code = self.code
        flow, b, plan = code.flow, code.builder, code.plan
        assert self.pairs is not None
        if code.row_major:
            dim = next(a.dim for a in code.kernel.arguments if self._is_at(a, offset))
            first = b.add(flow.times(self.column(at, key[0]), dim), i64(offset * plan.block))
            place = flow.times(b.add(first, index), plan.lane_count)
        else:
            place = b.add(flow.times(b.add(i64(offset), index), plan.block), at)
        place = flow.times(place, code.item)
        return flow.at(self.pairs, b.add(place, i64(code.vector(key))))

    def _is_at(self, argument: Argument, offset: int) -> bool:
        raw = self.code.kernel.stages[PAIR].raw
        return argument.stage == PAIR and raw[argument.position] == offset

    def inner_leaf(self, at: ir.Value) -> Leaf:
        """The slots in the dtype of accumulators."""
        leaf = self.leaf(at)
        return lambda *where: self.code.to_inner(leaf(*where))


class Block(NamedTuple):
    """A block of columns and the tile that it is folded into.

    `size` columns, the first of which is column number `base` of all; `state`: the address of the
    tile's states; `vectors` of lanes are handled at once. The tile begins with row number `row`.
    `tested`: whether the kernel's mask, if it has one, says which pairs count; else all do. Loops
    begin with column `first` of the block. `order`, if it is not None, is the address of the
    numbers of its columns, 32 bits each: they are not those from `base` on; `rows` likewise, of
    all rows.
    """

    code: Code
    slots: Slots
    emitter: Emitter
    state: ir.Value
    size: ir.Value
    base: ir.Value
    vectors: int
    row: ir.Value
    tested: bool = True
    first: ir.Value = i64(0)
    order: ir.Value | None = None
    rows: ir.Value | None = None

    def narrowed(self, rows: ir.Value, state: ir.Value, picked: ir.Value) -> Block:
        """Some columns of the block, and one vector of rows of the tile."""
        slots = self.slots._replace(rows=rows, picked=picked)
        return self._replace(slots=slots, state=state, vectors=1)

    def leaf(self, at: ir.Value) -> Leaf:
        """Reads slots for column (or vector of columns) number `at`."""
        return self.slots.leaf(at)

    def instances(self, jam: int = 1) -> list[Key]:
        """Pairs in lock-step: columns of a jam, vectors of lanes."""
        return [(u, r) for u in range(jam) for r in range(self.vectors)]

    def key(self, value: Value, instance: Key) -> Key:
        """The part of an instance that a value depends on."""
        return self.emitter.key(value, instance)

    def emit(
        self,
        targets: Sequence[Value],
        instances: Sequence[Key],
        known: Known,
        at: ir.Value,
        inside: frozenset[Loop] = frozenset(),
    ) -> None:
        """Compute values of pairs; they are entered in `known`."""
        for value in self.code.kernel.numbers:
            number = self._row_lanes if value.what == "row_number" else self._column_lanes
            for instance in instances:
                known[value, self.key(value, instance)] = number(at, instance)
        self.emitter.emit(targets, instances, known, self.leaf(at), inside)

    def invariant(self, targets: Sequence[Value], instances: Sequence[Key], known: Known) -> None:
        """Read once, before the loop over columns, what does not vary in it."""
        leaf, kernel = self.leaf(i64(0)), self.code.kernel
        for value in kernel.needed(targets, PAIR):
            if value.kind == "index" or value.loops or value.stage & COLUMN:
                continue
            if kernel.is_leaf(value, PAIR):
                self.emitter.emit([value], instances, known, leaf)

    # -- loops ----------------------------------------------------------------------------------

    def step(self) -> int:
        """Columns that one instance of a loop takes."""
        return 1 if self.code.row_major else self.code.plan.lane_count

    def stop(self) -> ir.Value:
        """Where a loop ends that takes that many."""
        return self.size if self.code.row_major else self.code.round_up(self.size, self.step())

    def columns(
        self, carried: Sequence[ir.Value], body: Callable[[Carried, int], None]
    ) -> list[ir.Value]:
        """The loop over a block: `jam` columns at a time, then the rest one by one."""
        code, state = self.code, list(carried)
        flow, b, plan = code.flow, code.builder, code.plan
        if not code.row_major:
            with flow.loop(self.first, self.stop(), self.step(), state, name="pairs") as columns:
                body(columns, 1)
            return columns.results
        jam = plan.jam
        start = self.first
        if jam > 1:
            left = b.sub(self.size, start)
            jammed = b.add(start, b.mul(b.sdiv(left, i64(jam)), i64(jam)))
            with flow.loop(start, jammed, jam, state, name="pairs") as columns:
                body(columns, jam)
            start, state = jammed, columns.results
        with flow.loop(start, self.size, 1, state, name="pairs" if jam == 1 else "rest") as c:
            body(c, 1)
        return c.results

    # -- columns, as numbers and as lanes -------------------------------------------------------

    def column_number(self, at: ir.Value, instance: Key) -> ir.Value:
        """The number of an instance's (first) column."""
        u, r = instance
        if self.code.row_major:
            return self.slots.column(at, u)
        return self.code.builder.add(at, i64(r * self.code.plan.width))

    def number_of_all(self, at: ir.Value, instance: Key) -> ir.Value:
        """The number of an instance's (first) column among all columns."""
        number = self.column_number(at, instance)
        if self.order is None:
            return self.code.builder.add(self.base, number)
        return self._ordered(number)

    def _ordered(self, number: ir.Value) -> ir.Value:
        """The number among all columns of one of the block, where these have an order."""
        assert self.order is not None
        flow, word = self.code.flow, ir.IntType(32)
        found = flow.load(word, flow.at(self.order, flow.times(number, 4)), 4)
        return self.code.builder.zext(found, I64)

    def numbers_of(self, columns: ir.Value) -> ir.Value:
        """The numbers among all columns, lane by lane, of those that a loop over the block has.

        These are counted from the block's first, unless columns have an order and the dtype has all
        their numbers. Both are in the type of states.
        """
        b, outer, plan = self.code.builder, self.code.outer, self.code.plan
        if self.order is None:
            return outer.add(columns, outer.splat(b.sitofp(self.base, outer.scalar)))
        if plan.counted:
            return columns
        found: ir.Value = ir.Undefined(columns.type)
        for lane in range(plan.width):
            place = ir.Constant(ir.IntType(32), lane)
            number = self._ordered(b.fptosi(b.extract_element(columns, place), I64))
            found = b.insert_element(found, b.sitofp(number, outer.scalar), place)
        return found

    def column_vector(self, at: ir.Value, instance: Key) -> ir.Value:
        """Numbers of columns, lane by lane: see `numbers_of`."""
        inner = self.code.inner
        column = self.column_number(at, instance)
        if self.order is not None and self.code.plan.counted:
            column = self._ordered(column)
        number = self.code.builder.sitofp(column, inner.scalar)
        column = inner.splat(number)
        if self.code.row_major:
            return column
        return inner.add(column, inner.lanes(list(range(self.code.plan.width))))

    def _wide_lanes(self, first: ir.Value) -> ir.Value:
        """first, first + 1, first + 2 ... lane by lane."""
        width, b = self.code.plan.width, self.code.builder
        lanes = ir.Constant(ir.VectorType(I64, width), range(width))
        return b.add(self.code.simd.splat(first), lanes)

    def _row_lanes(self, at: ir.Value, instance: Key) -> ir.Value:
        """The numbers of the rows of all lanes, 64 bits each."""
        if not self.code.row_major:
            return self.code.simd.splat(self.row)
        shift = i64(instance[1] * self.code.plan.width)
        first = self.code.builder.add(self.row, shift)
        if self.rows is None:
            return self._wide_lanes(first)
        words = ir.VectorType(ir.IntType(32), self.code.plan.width)
        flow = self.code.flow
        found = flow.load(words, flow.at(self.rows, flow.times(first, 4)), 4)
        return self.code.builder.zext(found, ir.VectorType(I64, self.code.plan.width))

    def _column_lanes(self, at: ir.Value, instance: Key) -> ir.Value:
        """The numbers of the columns of all lanes, 64 bits each, counted from the first of all."""
        first = self.number_of_all(at, instance)
        return self.code.simd.splat(first) if self.code.row_major else self._wide_lanes(first)

    def valid(self, at: ir.Value, r: int) -> ir.Value:
        """When lanes are columns: which of them lie within the block."""
        b, width = self.code.builder, self.code.plan.width
        left = b.sub(self.size, b.add(at, i64(r * width)))
        left = self.code.flow.minimum(left, i64(width))
        bound = self.code.simd.splat(b.trunc(left, ir.IntType(32)))
        return b.icmp_signed("<", self.code.lane_numbers(), bound)

    def counted(self, at: ir.Value, instance: Key, known: Known) -> ir.Value | None:
        """Which lanes count: those within the block, where the mask holds; None: all of them.

        `known` has what the loop has recalled of the mask.
        """
        keep = self.code.kernel.keep
        inside = None if self.code.row_major else self.valid(at, instance[1])
        if keep is None or not self.tested:
            return inside
        mask = known[keep, instance]
        return mask if inside is None else self.code.builder.and_(mask, inside)

    def only_counted(
        self, after: ir.Value, before: ir.Value, at: ir.Value, instance: Key, known: Known
    ) -> ir.Value:
        """Lanes that do not count change nothing."""
        counted = self.counted(at, instance, known)
        return after if counted is None else self.code.builder.select(counted, after, before)

    # -- memory of a block ----------------------------------------------------------------------

    def cell(self, buffer: ir.Value, start: int, at: ir.Value, key: Key) -> ir.Value:
        """The address of a vector of lanes of one column (or vector of columns) in a buffer.

        The buffer has a vector for each pair of the block, from byte `start` on.
        """
        code = self.code
        flow, b, plan, item = code.flow, code.builder, code.plan, code.item
        lanes = plan.lane_count if code.row_major else 1
        column = b.add(at, i64(key[0])) if code.row_major else at
        shift = b.add(flow.times(column, lanes * item), i64(code.vector(key)))
        return flow.at(buffer, b.add(i64(start), shift))


def open_block(
    code: Code,
    places: Places,
    scratch: ir.Value,
    given: Sequence[ir.Value],
    tested: bool = True,
) -> Block:
    """What a tile's function is given, (rows, state, count, base), as a block.

    Vectors of rows that read operands from memory see the columns at addresses of their own.
    """
    rows, state, count, base = given
    columns = [places["columns"]]
    if code.context.spread:
        for _ in range(1, code.plan.vectors):
            columns.append(code.flow.opaque(columns[-1]))
    slots = Slots(code, places["once"], rows, columns, pairs=places.get("pairs"))
    emitter = code.emitter(PAIR, scratch)
    row = _first_row(code, places, scratch, rows)
    return Block(code, slots, emitter, state, count, base, code.plan.vectors, row, tested)


def _first_row(code: Code, places: Places, scratch: ir.Value, rows: ir.Value) -> ir.Value:
    """The number of a tile's first row: tiles lie one after the other, from the task's first."""
    b, flow = code.builder, code.flow
    if not code.kernel.numbers:
        return i64(0)
    apart, lanes = (
        (code.layout.row_group, code.plan.lane_count) if code.row_major else (code.item, 1)
    )
    shift = b.sub(b.ptrtoint(rows, I64), b.ptrtoint(places["rows"], I64))
    tile = b.sdiv(shift, i64(apart))
    return b.add(flow.word(scratch, FIRST_ROW), flow.times(tile, lanes))
