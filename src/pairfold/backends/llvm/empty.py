"""States of no columns: patterns, and the shared function that fills memory with them."""

from __future__ import annotations

import math
import struct
import sys
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from ...core.numbers import number, to_float
from ...lower.kernel import Kernel
from ...lower.schedule import Plan
from . import ir
from .abi import FILL_WORDS
from .flow import BYTES, I64, i64
from .runtime import Body, Format, RuntimeFunction
from .scratch import Layout, ListRows, Run

# The types of what `reset` is given.
RESETTING = (BYTES, I64, BYTES, I64, I64)


class Fill(NamedTuple):
    """Memory of a tile's states to be filled: the first byte, how many, and eight of them."""

    first: int
    bytes: int
    pattern: int


def empty_states(kernel: Kernel, plan: Plan, layout: Layout) -> list[int]:
    """What a tile's states are filled with: see `abi`."""
    fills: list[Fill] = []
    row = plan.lane_count * layout.outer_item
    for run in layout.runs:
        size = run.words * row
        place = _joined(_place(run, plan, layout))
        places, begin = run.places, run.start * row
        if [fill.bytes for fill in place] == [size]:  # they are all one fill
            place, places = [place[0]._replace(bytes=places * size)], 1
        for n in range(places):
            fills += (fill._replace(first=begin + n * size + fill.first) for fill in place)
    if kernel.maxima:
        lowest = _pattern(to_float("lowest", plan.dtype), layout.outer_item)
        fills.append(Fill(layout.state_words * row, kernel.maxima * row, lowest))
    return [n for fill in _joined(fills) for n in (fill.first, fill.bytes // 8, fill.pattern)]


def _joined(fills: Iterable[Fill]) -> list[Fill]:
    """Neighbours that are alike as one."""
    found: list[Fill] = []
    for fill in fills:
        last = found[-1] if found else None
        if last and last.pattern == fill.pattern and last.first + last.bytes == fill.first:
            found[-1] = last._replace(bytes=last.bytes + fill.bytes)
        else:
            found.append(fill)
    return found


def _place(run: Run, plan: Plan, layout: Layout) -> Iterator[Fill]:
    """What one place is filled with, from its own first byte on."""
    rule = run.accumulator.rule
    if rule.top_k:
        # Infinite values with index 0, in all places; nothing was put aside.
        row, held = plan.lane_count * layout.item, ListRows.of(run.accumulator.folded.length)
        yield Fill(0, held.places * row, _pattern(math.inf, layout.item))
        yield Fill(held.places * row, held.places * row, 0)
        yield Fill(2 * (held.places + held.aside) * row, row, 0)
        return
    row = plan.lane_count * layout.outer_item
    values = [to_float(number(v), plan.dtype) for v in rule.identity]
    step = 2 if run.compensated else 1
    for n, value in enumerate(values):
        yield Fill(step * n * row, row, _pattern(value, layout.outer_item))
        if run.compensated:
            yield Fill((step * n + 1) * row, row, 0)


def _pattern(value: float, item: int) -> int:
    """Eight bytes of a number, which may be there twice, as an integer."""
    data = struct.pack("=d", value) if item == 8 else 2 * struct.pack("=f", value)
    return int.from_bytes(data, sys.byteorder, signed=True)


def reset(format: Format) -> RuntimeFunction:
    """reset(fills, count, state, tiles, apart): states of no columns, in tiles `apart` bytes apart.

    `fills` is the list of `empty_states`, `count` entries. Every format has its own, since what
    belongs to a format is compiled together.
    """
    return RuntimeFunction("reset", RESETTING, ir.VoidType(), _reset, format.machine, format)


def _reset(body: Body, own: RuntimeFunction) -> None:
    fills, fill_count, state, tiles, apart = body.given
    flow, lanes = body.flow, own.machine.vector_bytes // 8
    with flow.loop(i64(0), fill_count, 1, [fills], name="fills") as each:
        first, words, pattern = (flow.word(each.values[0], n) for n in range(FILL_WORDS))
        filled = _splat(body.builder, pattern, lanes)
        with flow.loop(i64(0), tiles, 1, [flow.at(state, first)], name="tiles") as tile:
            with flow.loop(i64(0), words, lanes, name="words") as word:
                flow.store(filled, flow.at(tile.values[0], flow.times(word.index, 8)), 8)
            tile.next = [flow.at(tile.values[0], apart)]
        each.next = [flow.at(each.values[0], i64(8 * FILL_WORDS))]
    body.done()


def _splat(b: ir.IRBuilder, word: ir.Value, lanes: int) -> ir.Value:
    """A word in all lanes of a vector."""
    none = ir.Undefined(ir.VectorType(I64, lanes))
    first = b.insert_element(none, word, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), lanes), None)
    return b.shuffle_vector(first, none, zeros)
