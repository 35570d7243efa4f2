"""Arguments that have a vector for every pair: the part of a tile and a block, packed.

What a tile of rows needs of them for a block of columns is brought to scratch memory just before
they are folded. An argument lies there as [column][component][lane] where lanes are rows; where
lanes are columns, and a tile is one row, as [component][column]. User arrays are read within the
rows and columns given; lanes past the end repeat the last one.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...core.dtypes import DTYPES
from ...lower.kernel import PAIR, Kernel
from ...lower.schedule import Plan
from . import ir
from .abi import (
    ARGUMENT_WORDS,
    ARGUMENTS,
    ARRAYS,
    FIRST_RESULT,
    LIST_HEAD,
    OFFSETS,
    RANGES,
    SPACING,
    WHOLE,
    WORDS_PER_ARRAY,
)
from .copying import Numbers, adjacent, can_transpose, copy, copy_components, splitting, transpose
from .flow import BYTES, I64, i64
from .runtime import Body, Format, RuntimeFunction, declared

# The types of what `pack_pairs` is given.
PACKING_PAIRS = (BYTES, I64, I64, I64, I64, I64, BYTES, BYTES)


def pair_list(kernel: Kernel, plan: Plan) -> list[int]:
    """The list of the arguments that pairs have: see `abi`.

    The last word of each is that of its stride of columns, which stands behind all arrays. Those
    of truth values come last; how many they are stands where other lists have ranges.
    """
    held, arrays = kernel.stages[PAIR], len(kernel.results)
    lanes = plan.lane_count if plan.lanes == "row" else plan.block
    spacing = lanes * DTYPES[plan.dtype].bytes
    apart = spacing * plan.block if plan.lanes == "row" else spacing
    words: dict[bool, list[int]] = {False: [], True: []}
    behind = FIRST_RESULT + WORDS_PER_ARRAY * (arrays + len(kernel.arguments))
    for place, argument in enumerate(kernel.arguments, arrays):
        if argument.stage == PAIR:
            word, raw = FIRST_RESULT + WORDS_PER_ARRAY * place, held.raw[argument.position]
            words[argument.truth] += [word, place, argument.dim, raw * apart, behind]
            behind += WORDS_PER_ARRAY
    counts = (len(words[truth]) // (ARGUMENT_WORDS + 1) for truth in (False, True))
    return [spacing, plan.lane_count, *counts, *words[False], *words[True]]


def pack_pairs(format: Format, kernel: Kernel, row_major: bool) -> RuntimeFunction:
    """pack_pairs(args, batch, row, rows, column, columns, destination, list).

    Packs numbers, then truth values by `pack_truths`: `rows` rows from number `row` on, a tile at
    most, at `columns` columns from number `column` on, a block at most. `row_major`: lanes are
    rows.
    """
    parts = splitting(format, [a.dim for a in kernel.arguments if a.stage == PAIR])
    if row_major:  # the columns of a row are transposed like components, those of others moved
        parts[1] = adjacent(format)
        if can_transpose(format):
            parts[0] = transpose(format)
    truths = any(argument.truth for argument in kernel.arguments)
    return RuntimeFunction(
        "pack_pairs",
        PACKING_PAIRS,
        ir.VoidType(),
        _pack,
        format.machine,
        format,
        (int(row_major), int(truths), *parts),
        (copy(format), *parts.values()),
        rare=True,
    )


def pack_truths(format: Format, row_major: bool) -> RuntimeFunction:
    """pack_truths(args, ...): what `pack_pairs` is given, of arrays of truth values."""
    format = format._replace(stored="bool")
    parts = {}
    if row_major:
        parts = {0: transpose(format)} if can_transpose(format) else {}
        parts[1] = adjacent(format)
    return RuntimeFunction(
        "pack_truths",
        PACKING_PAIRS,
        ir.VoidType(),
        _pack,
        format.machine,
        format,
        (int(row_major), 0, *parts),
        (copy(format), *parts.values()),
        rare=True,
    )


class _Argument:
    """An argument of the list, in the function that packs it: where its part begins, its strides.

    `slots`: where it goes; `spacing`: from a slot's lanes to the next.
    """

    def __init__(self, body: Body, entry: ir.Value) -> None:
        args, batch, row, _, column, _, destination, given = body.given
        flow, b = body.flow, body.builder
        word, place, self.dim, raw, behind = (flow.word(entry, n) for n in range(5))
        cell = b.add(b.mul(batch, flow.word(args, ARRAYS)), place)
        offset = flow.load(I64, flow.at(flow.pointer(args, OFFSETS), flow.times(cell, 8)), 8)
        array = flow.at(args, flow.times(word, 8))
        self.row, self.step = flow.word(array, 1), flow.word(array, 2)
        self.column = flow.word(flow.at(args, flow.times(behind, 8)), 1)
        start = b.add(b.mul(row, self.row), b.mul(column, self.column))
        self.source = flow.at(flow.at(flow.pointer(array, 0), offset), start)
        self.slots = flow.at(destination, raw)
        self.spacing = flow.word(given, SPACING)


def _pack(body: Body, own: RuntimeFunction) -> None:
    assert own.format is not None
    flow, given = body.flow, body.given[-1]
    numbers, truths = flow.word(given, ARGUMENTS), flow.word(given, RANGES)
    first, stop = i64(0), numbers
    if own.format.stored == "bool":
        first, stop = numbers, body.builder.add(numbers, truths)
    row_major, others, *detail = own.detail
    with flow.loop(first, stop, name="arguments") as each:
        this = _Argument(body, _entry(body, each.index))
        (_pack_rows if row_major else _pack_columns)(body, own, detail, this)
    if others:
        body.builder.call(declared(body, "pack_truths", PACKING_PAIRS), body.given)
    body.done()


def _pack_rows(body: Body, own: RuntimeFunction, detail: Sequence[int], this: _Argument) -> None:
    """Lanes are rows: what is adjacent in a row is transposed, be it columns or components.

    Where the components of all columns are adjacent they go together; where those of a column are,
    column after column; else component after component, for all columns.
    """
    assert own.format is not None
    _, _, _, rows, _, columns, _, given = body.given
    flow, b, stored = body.flow, body.builder, i64(own.format.storage.item)
    whole, one = flow.word(given, WHOLE), i64(1)
    of_column = b.mul(this.dim, this.spacing)
    adjacent = b.icmp_signed("==", this.step, stored)
    by_column = b.and_(adjacent, b.icmp_signed(">", this.dim, one))
    joined = b.and_(adjacent, b.icmp_signed("==", this.column, b.mul(this.dim, stored)))
    count = b.select(by_column, this.dim, columns)
    step = b.select(by_column, this.step, this.column)
    spacing = b.select(by_column, this.spacing, of_column)
    parts = b.select(by_column, columns, this.dim)
    parts = b.select(joined, one, parts)
    count = b.select(joined, b.mul(columns, this.dim), count)
    step, spacing = b.select(joined, stored, step), b.select(joined, this.spacing, spacing)
    ahead = b.select(by_column, this.column, this.step)
    further = b.select(by_column, of_column, this.spacing)
    with flow.loop(i64(0), parts, 1, [this.source, this.slots], name="parts") as part:
        source, slots = part.values
        numbers = Numbers(source, this.row, step, count, rows, whole, slots, whole, spacing)
        copy_components(body, own, detail, numbers)
        part.next = [flow.at(source, ahead), flow.at(slots, further)]


def _pack_columns(body: Body, own: RuntimeFunction, detail: Sequence[int], this: _Argument) -> None:
    """Lanes are columns of one row: they are packed as rows of an argument are."""
    _, _, _, _, _, columns, _, given = body.given
    whole = body.flow.word(given, WHOLE)
    numbers = Numbers(
        this.source, this.column, this.step, this.dim, columns, columns, this.slots, whole,
        this.spacing,
    )  # fmt: skip
    copy_components(body, own, detail, numbers)


def _entry(body: Body, number: ir.Value) -> ir.Value:
    """The words of an argument of the list."""
    first = body.flow.at(body.given[-1], i64(8 * LIST_HEAD))
    return body.flow.at(first, body.flow.times(number, 8 * (ARGUMENT_WORDS + 1)))
