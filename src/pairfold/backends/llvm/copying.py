"""Numbers from arrays of any strides to packed memory and back: functions that all kernels share.

Packed memory is [slot][lane], `spacing` bytes from one slot to the next. A row of an array is
`stride` bytes after the one before, a component `step` bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ...lower.bounds import MODERATE
from . import ir
from .abi import (
    ARGUMENT_WORDS,
    ARGUMENTS,
    ARRAYS,
    LIST_HEAD,
    OFFSETS,
    RANGE_WORDS,
    RANGES,
    SPACING,
    WHOLE,
)
from .flow import BYTES, I8, I64, i64
from .runtime import Body, Format, RuntimeFunction, bail_out
from .simd import Simd

# Rows of so many components, one after the other, are split by shuffles of whole vectors.
MOST_SPLIT = 8
# Bytes ahead of what is packed that memory is asked for, to come while lanes compute; cache lines.
_AHEAD, _LINE = 16384, 64
_SHORT = 16  # bytes: what shuffles within vectors reach on every x86 processor
_VOID = ir.VoidType()
# The types of what `pack` and `moderate` are given.
PACKING = (BYTES, I64, I64, I64, I64, BYTES, I64, BYTES)
CHECKING = (BYTES, I64, I64, BYTES, I64, BYTES)

# What is stored of a number.
Closing = Callable[[ir.IRBuilder, ir.Value], ir.Value]


class _Numbers:
    """A body that moves numbers of one format."""

    def __init__(self, body: Body, own: RuntimeFunction) -> None:
        assert own.format is not None
        self.flow, self.builder, self.format = body.flow, body.builder, own.format
        self.item, self.width = own.format.item, own.format.width
        self.storage, self.stored = own.format.storage, own.format.storage.item
        self.simd = Simd(self.builder, own.format.dtype, self.width, own.machine.has)


def copy(format: Format) -> RuntimeFunction:
    """copy(source, stride, step, dim, done, count, padded, raw, spacing): rows to slots.

    Adjacent numbers go by whole vectors, everything else, whatever its strides, one by one; lanes
    from `count` to `padded` repeat the last row. Rows below `done` are already there.
    """
    kinds = (BYTES, I64, I64, I64, I64, I64, I64, BYTES, I64)
    return RuntimeFunction("copy", kinds, _VOID, _copy, format.machine, format)


def _copy(body: Body, own: RuntimeFunction) -> None:
    source, stride, step, dim, done, count, padded, raw, spacing = body.given
    this = _Numbers(body, own)
    flow, b, item, width = this.flow, this.builder, this.item, this.width
    storage, stored = this.storage, this.stored
    whole = b.and_(count, i64(-width))
    adjacent = b.icmp_signed("==", stride, i64(stored))
    start = b.select(adjacent, whole, done)
    with flow.loop(i64(0), dim, name="components") as component:
        row = flow.at(source, b.mul(component.index, step))
        slot = flow.at(raw, b.mul(component.index, spacing))
        with flow.loop(done, b.select(adjacent, whole, done), width, name="adjacent") as lane:
            kind = ir.VectorType(storage.element, width)
            there = flow.at(row, flow.times(lane.index, stored))
            value = flow.load(kind, there, 1)
            flow.prefetch(flow.at(there, i64(_AHEAD)))
            here = flow.at(slot, flow.times(lane.index, item))
            flow.store(storage.opened(b, value), here, 4)
        with flow.loop(start, padded, name="strided") as lane:
            which = flow.minimum(lane.index, b.sub(count, i64(1)))
            value = flow.load(storage.element, flow.at(row, b.mul(which, stride)), 1)
            here = flow.at(slot, flow.times(lane.index, item))
            flow.store(storage.opened(b, value), here, item)
    body.done()


def split(format: Format, dim: int) -> RuntimeFunction:
    """split(source, stride, step, dim, count, raw, spacing) -> rows done.

    Rows of `dim` adjacent components, one after the other, a vector of rows at a time:
    [row][component] to [component][row] by shuffles. Other layouts: 0 rows done.
    """
    kinds = (BYTES, I64, I64, I64, I64, BYTES, I64)
    return RuntimeFunction(f"split{dim}", kinds, I64, _split, format.machine, format, (dim,))


def _split(body: Body, own: RuntimeFunction) -> None:
    source, stride, step, _, count, raw, spacing = body.given
    this = _Numbers(body, own)
    (dim,) = own.detail
    flow, b, item, width = this.flow, this.builder, this.item, this.width
    storage, stored = this.storage, this.stored
    packed = b.and_(
        b.icmp_signed("==", stride, i64(dim * stored)), b.icmp_signed("==", step, i64(stored))
    )
    whole = b.select(packed, b.and_(count, i64(-width)), i64(0))
    wide = ir.VectorType(storage.element, width * dim)
    pick = ir.VectorType(ir.IntType(32), width)
    with flow.loop(i64(0), whole, width, name="split") as lane:
        here = flow.at(source, flow.times(lane.index, dim * stored))
        value = flow.load(wide, here, 1)
        for line in range(0, width * dim * stored, _LINE):
            flow.prefetch(flow.at(here, i64(_AHEAD + line)))
        slot = flow.at(raw, flow.times(lane.index, item))
        for component in range(dim):
            places = [component + dim * place for place in range(width)]
            mask = ir.Constant(pick, list(places))
            part = b.shuffle_vector(value, ir.Undefined(wide), mask)
            to = flow.at(slot, b.mul(spacing, i64(component)))
            flow.store(storage.opened(b, part), to, 4)
    body.done(whole)


def can_transpose(format: Format) -> bool:
    """Whether vectors are long enough for `transpose`."""
    return format.width >= _SHORT // format.item


def transpose(format: Format) -> RuntimeFunction:
    """transpose(source, stride, step, dim, count, raw, spacing) -> rows done.

    Rows of many adjacent components, a vector of rows and 16 bytes of their components at a time;
    the last of these short vectors begins early enough to end with the row. Other layouts: 0 rows
    done.
    """
    kinds = (BYTES, I64, I64, I64, I64, BYTES, I64)
    return RuntimeFunction("transpose", kinds, I64, _transpose, format.machine, format)


def _transpose(body: Body, own: RuntimeFunction) -> None:
    source, stride, step, dim, count, raw, spacing = body.given
    this = _Numbers(body, own)
    flow, b, item, width = this.flow, this.builder, this.item, this.width
    stored, size = this.stored, _SHORT // item
    adjacent = b.icmp_signed("==", step, i64(stored))
    whole = b.select(adjacent, b.and_(count, i64(-width)), i64(0))
    kind = ir.VectorType(this.storage.element, size)
    with flow.loop(i64(0), whole, width, name="rows") as lane:
        row = flow.at(source, b.mul(lane.index, stride))
        to = flow.at(raw, flow.times(lane.index, item))
        with flow.loop(i64(0), dim, size, name="short") as short:
            first = flow.minimum(short.index, b.sub(dim, i64(size)))
            here = flow.at(row, flow.times(first, stored))
            vectors = [
                flow.load(kind, flow.at(here, b.mul(stride, i64(n))), 1) for n in range(width)
            ]
            slot = flow.at(to, b.mul(first, spacing))
            for n, vector in enumerate(_transposed(this, vectors)):
                flow.store(vector, flow.at(slot, b.mul(spacing, i64(n))), 4)
    body.done(whole)


def _transposed(this: _Numbers, vectors: list[ir.Value]) -> list[ir.Value]:
    """One vector per component, from the short vectors of components of all lanes.

    Lanes n, n + size, n + 2 size ... are joined; what is left are transpositions of squares of
    `size` numbers next to each other, each a few rounds of interleaving.
    """
    width, size = this.width, _SHORT // this.item
    rows = [_joined(this, vectors[n::size]) for n in range(size)]
    rows = [this.storage.opened(this.builder, row) for row in rows]
    half = size // 2
    low = [
        lane + source * width
        for group in range(0, width, size)
        for lane in range(group, group + half)
        for source in (0, 1)
    ]
    high = [lane + half for lane in low]
    for _ in range(size.bit_length() - 1):
        pairs = zip(rows[:half], rows[half:], strict=True)
        rows = [_shuffled(this, x, y, lanes) for x, y in pairs for lanes in (low, high)]
    return rows


def _joined(this: _Numbers, parts: list[ir.Value]) -> ir.Value:
    """Short vectors one after the other as a long one."""
    while len(parts) > 1:
        lanes = list(range(2 * this.width // len(parts)))
        pairs = zip(parts[::2], parts[1::2], strict=True)
        parts = [_shuffled(this, x, y, lanes) for x, y in pairs]
    return parts[0]


def _shuffled(this: _Numbers, x: ir.Value, y: ir.Value, lanes: list[int]) -> ir.Value:
    word = ir.IntType(32)
    kind = ir.VectorType(word, len(lanes))
    mask = ir.Constant(kind, lanes)
    return this.builder.shuffle_vector(x, y, mask)


def pack(format: Format, dims: Iterable[int]) -> RuntimeFunction:
    """pack(args, batch, start, count, group, destination, apart, list): rows of all arguments.

    They are `count` rows from `start` on, `group` of them together, each group `apart` bytes after
    the one before. Lanes beyond the last row repeat it, up to whole vectors, as many as the list
    says. `dims`: the components that arguments may have.
    """
    split_by = {dim for dim in dims if 2 <= dim <= MOST_SPLIT}
    if can_transpose(format) and any(dim > MOST_SPLIT for dim in dims):
        split_by.add(0)
    detail = tuple(sorted(split_by))
    parts = [transpose(format) if dim == 0 else split(format, dim) for dim in detail]
    return RuntimeFunction(
        "pack", PACKING, _VOID, _pack, format.machine, format, detail, (copy(format), *parts)
    )


def _pack(body: Body, own: RuntimeFunction) -> None:
    args, batch, start, count, group, destination, apart, given = body.given
    flow, b, module = body.flow, body.builder, body.function.module
    copying, *splitting = (part.declared(module) for part in own.parts)
    spacing, whole = flow.word(given, SPACING), flow.word(given, WHOLE)
    arrays = b.mul(batch, flow.word(args, ARRAYS))
    with flow.loop(i64(0), flow.word(given, ARGUMENTS), name="arguments") as each:
        entry = flow.at(given, i64(8 * LIST_HEAD))
        entry = flow.at(entry, flow.times(each.index, 8 * ARGUMENT_WORDS))
        word, place, dim, raw = (flow.word(entry, n) for n in range(ARGUMENT_WORDS))
        cell = flow.times(b.add(arrays, place), 8)
        offset = flow.load(I64, flow.at(flow.pointer(args, OFFSETS), cell), 8)
        array = flow.at(args, flow.times(word, 8))
        stride, step = flow.word(array, 1), flow.word(array, 2)
        base = flow.at(flow.at(flow.pointer(array, 0), offset), b.mul(start, stride))
        first = flow.at(destination, raw)
        with flow.loop(i64(0), count, group, [i64(0)], name="groups") as rows:
            here = flow.minimum(group, b.sub(count, rows.index))
            source = flow.at(base, b.mul(rows.index, stride))
            to = flow.at(first, rows.values[0])
            done: ir.Value = i64(0)
            for known, function in zip(own.detail, splitting, strict=True):
                applies = b.icmp_signed("==", dim, i64(known))
                if known == 0:
                    applies = b.icmp_signed(">", dim, i64(MOST_SPLIT))
                before = b.block
                with flow.when(applies):
                    found = b.call(function, [source, stride, step, dim, here, to, spacing])
                    inside = b.block
                chosen = b.phi(I64)
                chosen.add_incoming(done, before)
                chosen.add_incoming(found, inside)
                done = chosen
            padded = rounded_up(body, here, whole)
            b.call(copying, [source, stride, step, dim, done, here, padded, to, spacing])
            rows.next = [b.add(rows.values[0], apart)]
    body.done()


def rounded_up(body: Body, count: ir.Value, unit: ir.Value) -> ir.Value:
    """The next multiple of a power of two."""
    b = body.builder
    return b.and_(b.add(count, b.sub(unit, i64(1))), b.neg(unit))


def moderate(format: Format) -> RuntimeFunction:
    """moderate(args, count, group, destination, apart, list): bail out where numbers are too large.

    They are those of `count` packed rows, as `pack` leaves them. Exponents made of them would be
    beyond what `lower.bounds` says.
    """
    return RuntimeFunction("moderate", CHECKING, _VOID, _moderate, format.machine, format)


def _moderate(body: Body, own: RuntimeFunction) -> None:
    args, count, group, destination, apart, given = body.given
    this = _Numbers(body, own)
    flow, b, simd, width = this.flow, this.builder, this.simd, this.width
    spacing, arguments = flow.word(given, SPACING), flow.word(given, ARGUMENTS)
    whole = flow.word(given, WHOLE)
    ranges = flow.at(given, flow.times(arguments, 8 * ARGUMENT_WORDS))
    ranges = flow.at(ranges, i64(8 * LIST_HEAD))
    excess = ir.Constant(ir.VectorType(ir.IntType(1), width), None)
    with flow.loop(i64(0), flow.word(given, RANGES), 1, [excess], name="ranges") as each:
        entry = flow.at(ranges, flow.times(each.index, 8 * RANGE_WORDS))
        first, slots = flow.at(destination, flow.word(entry, 0)), flow.word(entry, 1)
        begin = [*each.values, i64(0)]
        with flow.loop(i64(0), count, group, begin, name="groups") as rows:
            here = flow.minimum(group, b.sub(count, rows.index))
            padded = rounded_up(body, here, whole)
            own_rows = flow.at(first, rows.values[1])
            with flow.loop(i64(0), slots, 1, rows.values[:1], name="slots") as slot:
                start = flow.at(own_rows, b.mul(slot.index, spacing))
                with flow.loop(i64(0), padded, width, slot.values, name="checked") as lane:
                    address = flow.at(start, flow.times(lane.index, this.item))
                    value = flow.load(simd.type, address, 4)
                    lane.next = [simd.mask_or(lane.values[0], excessive(simd, value))]
                slot.next = lane.results
            rows.next = [slot.results[0], b.add(rows.values[1], apart)]
        each.next = rows.results[:1]
    bail_out(body, args, simd.any(each.results[0]))
    body.done()


def excessive(simd: Simd, value: ir.Value) -> ir.Value:
    """Which lanes are too large for exponents to be bounded."""
    return simd.compare(">", simd.abs(value), simd.constant(MODERATE))


def put(format: Format, kind: str) -> RuntimeFunction:
    """put(source, spacing, target, stride, step, dim, count): results, of a kind, to an array."""
    kinds = (BYTES, I64, BYTES, I64, I64, I64, I64)
    if kind == "value":
        return RuntimeFunction("put_values", kinds, _VOID, _put_values, format.machine, format)
    if kind == "truth":
        return RuntimeFunction("put_truths", kinds, _VOID, _put_truths, format.machine)
    return RuntimeFunction("put_words", kinds, _VOID, _put_words, format.machine)


def _put_values(body: Body, own: RuntimeFunction) -> None:
    this = _Numbers(body, own)
    _put(body, this.simd.scalar, this.item, this.storage.closed)


def _put_words(body: Body, own: RuntimeFunction) -> None:
    _put(body, I64, 8, lambda b, value: value)


def _put_truths(body: Body, own: RuntimeFunction) -> None:
    _put(body, I64, 8, lambda b, value: b.trunc(value, I8))


def _put(body: Body, element: ir.Type, item: int, closed: Closing) -> None:
    source, spacing, target, stride, step, dim, count = body.given
    flow, b = body.flow, body.builder
    with flow.loop(i64(0), dim, name="write_components") as component:
        here = flow.at(source, b.mul(component.index, spacing))
        to = flow.at(target, b.mul(component.index, step))
        with flow.loop(i64(0), count, name="write") as row:
            value = flow.load(element, flow.at(here, flow.times(row.index, item)), item)
            flow.store(closed(b, value), flow.at(to, b.mul(row.index, stride)), 1)
    body.done()
