"""Numbers from arrays of any strides to packed memory and back: functions that all kernels share.

Packed memory is [slot][lane], `spacing` bytes from one slot to the next. A row of an array is
`stride` bytes after the one before, a component `step` bytes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import NamedTuple

from ...lower.bounds import MODERATE
from . import ir
from .abi import (
    ARGUMENT_WORDS,
    ARGUMENTS,
    ARRAYS,
    LIST_HEAD,
    OFFSETS,
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
CHECKING = (BYTES, I64, I64, I64, I64, I64, BYTES, I64)

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
    """copy(source, stride, done, count, group, whole, raw, apart): a component of rows to a slot.

    There are `count` rows, `group` of them together, each group `apart` bytes after the one before.
    Adjacent numbers go by whole vectors, everything else, whatever its stride, one by one; lanes
    beyond the rows of a group, up to multiples of `whole`, repeat the last. Where `done` is -1, not
    0, whole vectors of rows are already there.
    """
    kinds = (BYTES, I64, I64, I64, I64, I64, BYTES, I64)
    return RuntimeFunction(f"copy{format.suffix}", kinds, _VOID, _copy, format.machine, format)


def _copy(body: Body, own: RuntimeFunction) -> None:
    source, stride, done, count, group, whole, raw, apart = body.given
    this = _Numbers(body, own)
    flow, b, item, width = this.flow, this.builder, this.item, this.width
    storage, stored = this.storage, this.stored
    adjacent = b.icmp_signed("==", stride, i64(stored))
    with flow.loop(i64(0), count, group, [raw], name="groups") as rows:
        here = flow.minimum(group, b.sub(count, rows.index))
        row, (slot,) = flow.at(source, b.mul(rows.index, stride)), rows.values
        vectors, last = b.and_(here, i64(-width)), b.sub(here, i64(1))
        begin = b.and_(vectors, done)
        start = b.select(adjacent, vectors, begin)
        with flow.loop(begin, start, width, name="adjacent") as lane:
            kind = ir.VectorType(storage.element, width)
            there = flow.at(row, flow.times(lane.index, stored))
            value = flow.load(kind, there, 1)
            flow.prefetch(flow.at(there, i64(_AHEAD)))
            flow.store(storage.opened(b, value), flow.at(slot, flow.times(lane.index, item)), 4)
        with flow.loop(start, rounded_up(body, here, whole), name="strided") as lane:
            which = flow.minimum(lane.index, last)
            value = flow.load(storage.element, flow.at(row, b.mul(which, stride)), 1)
            flow.store(storage.opened(b, value), flow.at(slot, flow.times(lane.index, item)), item)
        rows.next = [flow.at(slot, apart)]
    body.done()


# What functions are given that copy whole vectors of rows only: like `copy`.
_VECTORS = (BYTES, I64, I64, I64, I64, BYTES, I64, I64)


def split(format: Format, dim: int) -> RuntimeFunction:
    """split(source, stride, dim, count, group, raw, apart, spacing): whole vectors of rows.

    Rows of `dim` adjacent components, one after the other, a vector of rows at a time:
    [row][component] to [component][row] by shuffles.
    """
    return RuntimeFunction(f"split{dim}", _VECTORS, _VOID, _split, format.machine, format, (dim,))


def _split(body: Body, own: RuntimeFunction) -> None:
    this, (dim,) = _Numbers(body, own), own.detail
    flow, b, item, width = this.flow, this.builder, this.item, this.width
    storage, stored, spacing = this.storage, this.stored, body.given[-1]
    wide = ir.VectorType(storage.element, width * dim)
    pick = ir.VectorType(ir.IntType(32), width)
    with _vectors(body, width) as (row, slot, lane):
        here = flow.at(row, flow.times(lane, dim * stored))
        value = flow.load(wide, here, 1)
        for line in range(0, width * dim * stored, _LINE):
            flow.prefetch(flow.at(here, i64(_AHEAD + line)))
        slot = flow.at(slot, flow.times(lane, item))
        for component in range(dim):
            places = [component + dim * place for place in range(width)]
            part = b.shuffle_vector(value, ir.Undefined(wide), ir.Constant(pick, places))
            to = flow.at(slot, b.mul(spacing, i64(component)))
            flow.store(storage.opened(b, part), to, 4)
    body.done()


@contextlib.contextmanager
def _vectors(body: Body, width: int) -> Generator[tuple[ir.Value, ir.Value, ir.Value], None, None]:
    """Each whole vector of rows: (where its group's rows begin, and their slots; its first row)."""
    source, stride, _, count, group, raw, apart, _ = body.given
    flow, b = body.flow, body.builder
    with flow.loop(i64(0), count, group, [raw], name="groups") as rows:
        here = flow.minimum(group, b.sub(count, rows.index))
        first = flow.at(source, b.mul(rows.index, stride))
        with flow.loop(i64(0), b.and_(here, i64(-width)), width, name="vectors") as lane:
            yield first, rows.values[0], lane.index
        rows.next = [flow.at(rows.values[0], apart)]


def adjacent(format: Format) -> RuntimeFunction:
    """adjacent(source, step, dim, count, group, raw, apart, spacing): whole vectors of rows.

    One group of rows that are one after the other; its components are `step` bytes apart.
    """
    return RuntimeFunction(
        f"adjacent{format.suffix}", _VECTORS, _VOID, _adjacent, format.machine, format
    )


def _adjacent(body: Body, own: RuntimeFunction) -> None:
    source, step, dim, count, _, raw, _, spacing = body.given
    this = _Numbers(body, own)
    flow, b, kind = this.flow, this.builder, ir.VectorType(this.storage.element, this.width)
    with flow.loop(i64(0), dim, 1, [source, raw], name="components") as component:
        here, slot = component.values
        with flow.loop(i64(0), b.and_(count, i64(-this.width)), this.width, name="vectors") as lane:
            value = flow.load(kind, flow.at(here, flow.times(lane.index, this.stored)), 1)
            to = flow.at(slot, flow.times(lane.index, this.item))
            flow.store(this.storage.opened(b, value), to, 4)
        component.next = [flow.at(here, step), flow.at(slot, spacing)]
    body.done()


def can_transpose(format: Format) -> bool:
    """Whether vectors are long enough for `transpose`."""
    return format.width >= _SHORT // format.item


def transpose(format: Format) -> RuntimeFunction:
    """transpose(source, stride, dim, count, group, raw, apart, spacing): whole vectors of rows.

    Rows of many adjacent components, a vector of rows and 16 bytes of their components at a time;
    the last of these short vectors begins early enough to end with the row.
    """
    return RuntimeFunction(
        f"transpose{format.suffix}", _VECTORS, _VOID, _transpose, format.machine, format
    )


def _transpose(body: Body, own: RuntimeFunction) -> None:
    _, stride, dim, *_, spacing = body.given
    this = _Numbers(body, own)
    flow, b, item, width = this.flow, this.builder, this.item, this.width
    stored, size = this.stored, _SHORT // item
    kind = ir.VectorType(this.storage.element, size)
    with _vectors(body, width) as (rows, slot, lane):
        row = flow.at(rows, b.mul(lane, stride))
        to = flow.at(slot, flow.times(lane, item))
        with flow.loop(i64(0), dim, size, name="short") as short:
            first = flow.minimum(short.index, b.sub(dim, i64(size)))
            here = flow.at(row, flow.times(first, stored))
            vectors = [
                flow.load(kind, flow.at(here, b.mul(stride, i64(n))), 1) for n in range(width)
            ]
            slots = flow.at(to, b.mul(first, spacing))
            for n, vector in enumerate(_transposed(this, vectors)):
                flow.store(vector, flow.at(slots, b.mul(spacing, i64(n))), 4)
    body.done()


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
    parts = splitting(format, dims)
    detail, inner = tuple(parts), (copy(format), *parts.values())
    return RuntimeFunction(
        "pack", PACKING, _VOID, _pack, format.machine, format, detail, inner, rare=True
    )


def splitting(format: Format, dims: Iterable[int]) -> dict[int, RuntimeFunction]:
    """What copies whole vectors of rows of these numbers of components; 0: of many."""
    dims = [*dims]
    split_by = {dim for dim in dims if 2 <= dim <= MOST_SPLIT}
    if can_transpose(format) and any(dim > MOST_SPLIT for dim in dims):
        split_by.add(0)
    return {dim: split(format, dim) if dim else transpose(format) for dim in sorted(split_by)}


def _pack(body: Body, own: RuntimeFunction) -> None:
    assert own.format is not None
    args, batch, start, count, group, destination, apart, given = body.given
    flow, b = body.flow, body.builder
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
        source = flow.at(flow.at(flow.pointer(array, 0), offset), b.mul(start, stride))
        to = flow.at(destination, raw)
        numbers = Numbers(source, stride, step, dim, count, group, to, whole, spacing, apart)
        copy_components(body, own, own.detail, numbers)
    body.done()


class Numbers(NamedTuple):
    """Components of rows of an array, and the packed memory that they go to.

    `dim` components, `step` bytes apart, of `rows` rows, `stride` bytes apart; `group` of them go
    together to slots from `to` on that are `spacing` bytes apart, each group `apart` bytes after
    the one before. Lanes are filled up to multiples of `whole`.
    """

    source: ir.Value
    stride: ir.Value
    step: ir.Value
    dim: ir.Value
    rows: ir.Value
    group: ir.Value
    to: ir.Value
    whole: ir.Value
    spacing: ir.Value
    apart: ir.Value = i64(0)


def copy_components(
    body: Body, own: RuntimeFunction, split_by: Sequence[int], numbers: Numbers
) -> None:
    """Pack all components of some rows.

    `own`, the function being written, has `copy` and what copies whole vectors of rows for parts:
    `splitting` for numbers of components in `split_by`, `adjacent` for 1.
    """
    assert own.format is not None
    source, stride, step, dim, count, group, to, whole, spacing, apart = numbers
    flow, b, module = body.flow, body.builder, body.function.module
    copying, *splitters = (part.declared(module) for part in own.parts)
    stored, done = own.format.storage.item, i64(0)
    even = b.or_(b.sub(whole, i64(1)), i64(own.format.width - 1))
    together = b.icmp_signed("==", step, i64(stored))
    for known, function in zip(split_by, splitters, strict=True):
        if known == 0:
            fits = b.icmp_signed(">", dim, i64(MOST_SPLIT))
        elif known == 1:
            fits = b.icmp_signed("==", stride, i64(stored))
        else:
            packed = b.icmp_signed("==", stride, i64(known * stored))
            fits = b.and_(b.icmp_signed("==", dim, i64(known)), packed)
        fits = fits if known == 1 else b.and_(fits, together)
        with flow.when(fits):
            between = step if known == 1 else stride
            b.call(function, [source, between, dim, count, group, to, apart, spacing])
        done = b.select(fits, i64(-1), done)
    left = b.or_(b.xor(done, i64(-1)), b.and_(b.or_(count, group), even))
    components = b.select(b.icmp_signed("==", left, i64(0)), i64(0), dim)
    with flow.loop(i64(0), components, 1, [source, to], name="components") as component:
        row, slot = component.values
        b.call(copying, [row, stride, done, count, group, whole, slot, apart])
        component.next = [flow.at(row, step), flow.at(slot, spacing)]


def rounded_up(body: Body, count: ir.Value, unit: ir.Value) -> ir.Value:
    """The next multiple of a power of two."""
    b = body.builder
    return b.and_(b.add(count, b.sub(unit, i64(1))), b.neg(unit))


def moderate(format: Format) -> RuntimeFunction:
    """moderate(args, slots, spacing, count, group, whole, first, apart): are numbers too large?

    They are those of some slots of `count` rows, as `pack` leaves them, the first at `first`.
    Exponents made of them would be beyond what `lower.bounds` says: then bail out.
    """
    return RuntimeFunction("moderate", CHECKING, _VOID, _moderate, format.machine, format)


def _moderate(body: Body, own: RuntimeFunction) -> None:
    args, slots, spacing, count, group, whole, first, apart = body.given
    this = _Numbers(body, own)
    flow, b, simd, width = this.flow, this.builder, this.simd, this.width
    begin = [ir.Constant(ir.VectorType(ir.IntType(1), width), None), first]
    with flow.loop(i64(0), count, group, begin, name="groups") as rows:
        padded = rounded_up(body, flow.minimum(group, b.sub(count, rows.index)), whole)
        with flow.loop(i64(0), slots, 1, rows.values, name="slots") as slot:
            excess, start = slot.values
            with flow.loop(i64(0), padded, width, [excess], name="checked") as lane:
                address = flow.at(start, flow.times(lane.index, this.item))
                value = flow.load(simd.type, address, 4)
                lane.next = [simd.mask_or(lane.values[0], excessive(simd, value))]
            slot.next = [*lane.results, flow.at(start, spacing)]
        rows.next = [slot.results[0], flow.at(rows.values[1], apart)]
    bail_out(body, args, simd.any(rows.results[0]))
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
