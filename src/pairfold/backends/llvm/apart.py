"""Blocks of columns for which a mask holds at no row of a tile, found before pairs are tested.

Where a mask compares what is read of rows with what is read of columns, as masks of labels do, the
least and the largest number of the block's columns say for each row whether it may hold. Numbers
are compared as they are, so nothing is rounded; NaN, which no comparison holds for, is left out.
Whatever else a mask is made of may hold.
"""

from __future__ import annotations

from typing import NamedTuple

from ...core.scalars import Value
from ...lower.kernel import COLUMN, PAIR, Kernel
from . import ir
from .block import Block
from .emitter import Known
from .flow import i64

_COMPARED = {"lt": "<", "le": "<=", "eq": "<="}


class _Test(NamedTuple):
    """A comparison of two values, or several tests that are joined."""

    what: str
    values: tuple[Value, ...] = ()
    parts: tuple[_Test, ...] = ()


class _Ends(NamedTuple):
    low: ir.Value
    high: ir.Value


def may_hold(block: Block, keep: Value) -> ir.Value | None:
    """Whether a mask may hold for a pair of a block, one bit; None where nothing says that it not.

    Lanes are rows: each is compared with the block's columns.
    """
    test = _test(block.code.kernel, keep) if block.code.row_major else None
    if test is None:
        return None
    ends, simd = _columns(block, test), block.code.simd
    found = [_emitted(block, test, ends, r) for r in range(block.vectors)]
    some = found[0]
    for other in found[1:]:
        some = simd.mask_or(some, other)
    return simd.any(some)


def _test(kernel: Kernel, mask: Value) -> _Test | None:
    """What has to hold for a mask to hold; None where nothing is known to."""
    if mask.what in ("both", "either"):
        found = [_test(kernel, arg) for arg in mask.args]
        parts = tuple(part for part in found if part is not None)
        if not parts or (mask.what == "either" and len(parts) < len(found)):
            return None
        return _Test(mask.what, parts=parts)
    if mask.what in _COMPARED and all(_is_read(kernel, arg) for arg in mask.args):
        return _Test(mask.what, mask.args)
    return None


def _is_read(kernel: Kernel, value: Value) -> bool:
    """Whether a value is a constant, or a number that is read of a row or column, or of neither."""
    slot = kernel.slot(value, PAIR)
    if slot is None:
        return value.what == "const"
    return slot[0] != PAIR and isinstance(slot[2], int)


def _read(test: _Test) -> list[Value]:
    found = list(test.values)
    for part in test.parts:
        found += _read(part)
    return found


def _columns(block: Block, test: _Test) -> dict[Value, _Ends]:
    """The least and the largest numbers of the block's columns, in all lanes."""
    code = block.code
    flow, simd, plan = code.flow, code.simd, code.plan
    places: dict[Value, int] = {}
    for value in _read(test):
        slot = code.kernel.slot(value, PAIR)
        if slot is not None and slot[0] == COLUMN:
            assert isinstance(slot[2], int)
            places[value] = (slot[1] + slot[2]) * plan.block * code.item
    begin = [simd.constant(sign * float("inf")) for _ in places for sign in (1, -1)]
    # Lanes past the last column repeat it.
    with flow.loop(i64(0), block.size, plan.width, begin, name="ends") as each:
        shift, after = flow.times(each.index, code.item), list[ir.Value]()
        for place, low, high in zip(
            places.values(), each.values[::2], each.values[1::2], strict=True
        ):
            there = flow.at(block.slots.columns[0], code.builder.add(i64(place), shift))
            number = flow.load(simd.type, there, 4)
            after.append(simd.select(simd.compare("<", number, low), number, low))
            after.append(simd.select(simd.compare(">", number, high), number, high))
        each.next = after
    return {
        value: _Ends(_of_lanes(block, "fmin", low), _of_lanes(block, "fmax", high))
        for value, low, high in zip(places, each.results[::2], each.results[1::2], strict=True)
    }


def _of_lanes(block: Block, name: str, vector: ir.Value) -> ir.Value:
    simd = block.code.simd
    name = f"llvm.vector.reduce.{name}.v{simd.width}f{simd.bits}"
    return simd.splat(simd.intrinsic(name, simd.scalar, vector))


def _emitted(block: Block, test: _Test, columns: dict[Value, _Ends], r: int) -> ir.Value:
    """The rows of vector r for which a test may hold at some column."""
    simd = block.code.simd
    if test.parts:
        parts = [_emitted(block, part, columns, r) for part in test.parts]
        join = simd.mask_and if test.what == "both" else simd.mask_or
        return parts[0] if len(parts) == 1 else join(*parts)
    x, y = (_ends(block, value, columns, r) for value in test.values)
    found = simd.compare(_COMPARED[test.what], x.low, y.high)
    if test.what == "eq":
        found = simd.mask_and(found, simd.compare("<=", y.low, x.high))
    return found


def _ends(block: Block, value: Value, columns: dict[Value, _Ends], r: int) -> _Ends:
    if value in columns:
        return columns[value]
    known: Known = {}
    block.emit([value], [(0, r)], known, i64(0))
    number = known[value, block.key(value, (0, r))]
    return _Ends(number, number)
