"""States of no columns: patterns that drivers fill the memory of states with."""

from __future__ import annotations

import math
import struct
import sys
from collections.abc import Iterator

from ...core import scalars
from ...core.scalars import to_float
from ...lower.kernel import Kernel
from ...lower.schedule import Plan
from .scratch import Layout, ListRows, Run


def empty_states(kernel: Kernel, plan: Plan, layout: Layout) -> list[int]:
    """What a tile's states are filled with: see `abi`."""
    found: list[int] = []
    row = plan.lane_count * layout.outer_item
    for run in layout.runs:
        start, apart = run.start * row, run.words * row
        for first, size, pattern in _place(run, plan, layout):
            found += [start + first, run.count, apart, size // 8, pattern]
    if kernel.maxima:
        lowest = _pattern(to_float("lowest", plan.dtype), layout.outer_item)
        found += [layout.state_words * row, 1, 0, kernel.maxima * row // 8, lowest]
    return found


def _place(run: Run, plan: Plan, layout: Layout) -> Iterator[tuple[int, int, int]]:
    """(first byte, bytes, pattern) of what one place is filled with."""
    rule = run.accumulator.rule
    if rule.top_k:
        # Infinite values with index 0, in all places; nothing was put aside.
        row, held = plan.lane_count * layout.item, ListRows.of(run.accumulator.folded.length)
        yield 0, held.places * row, _pattern(math.inf, layout.item)
        yield held.places * row, held.places * row, 0
        yield 2 * (held.places + held.aside) * row, row, 0
        return
    row = plan.lane_count * layout.outer_item
    values = [to_float(scalars.number(v), plan.dtype) for v in rule.identity]
    step = 2 if run.compensated else 1
    for n, value in enumerate(values):
        yield step * n * row, row, _pattern(value, layout.outer_item)
        if run.compensated:
            yield (step * n + 1) * row, row, 0


def _pattern(value: float, item: int) -> int:
    """Eight bytes of a number, which may be there twice, as an integer."""
    data = struct.pack("=d", value) if item == 8 else 2 * struct.pack("=f", value)
    return int.from_bytes(data, sys.byteorder, signed=True)
