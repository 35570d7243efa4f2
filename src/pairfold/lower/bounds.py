"""How large the exponents of pairs can be, if what they are made from is of moderate size.

Backends check the size of what pairs read as they pack it, row by row and column by column, so that
nothing needs to be checked pair by pair. Data that fail are folded again without assumptions.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from ..core.numbers import Number, to_float
from ..core.scalars import Loop, Value
from .kernel import PAIR, Bounds, Kernel

# The largest magnitude that is assumed of what pairs read.
MODERATE = 2.0**24

# Exponents up to here are bounded: nothing on the way to e^x overflows, in float32 either.
BOUNDED = 2.0**86


def assume_moderate(kernel: Kernel) -> None:
    """Note which exponentials of pairs have bounded arguments, and what backends have to check."""
    kernel.bounds = _bounds(kernel)


def _bounds(kernel: Kernel) -> Bounds:
    magnitudes = _Magnitudes(kernel)
    values = kernel.needed(kernel.pair_values, PAIR)
    for value in values:
        magnitudes.add(value)
    own = [v for v in values if v.what == "exp" and not kernel.is_leaf(v, PAIR)]
    found = [v for v in own if magnitudes.of[v.args[0]] <= BOUNDED]
    # What exponents are measured from, the largest of them, is bounded as they are.
    exponents = [v.args[0] for v in found]
    reads = [v.args[0] if v.what == "apart" else v for v in exponents]
    reads += [v for v in values if v in kernel.scalars.inverses]
    reads += [v.args[1] for v in values if v in kernel.scalars.inverses]
    return Bounds(frozenset(found), slots_read(kernel, reads))


def slots_read(kernel: Kernel, targets: Iterable[Value]) -> dict[int, tuple[tuple[int, int], ...]]:
    """The slots of rows and columns that pairs read for these, by stage: see `Bounds`."""
    slots: dict[int, set[int]] = {}
    for read in kernel.needed(targets, PAIR):
        slot = None if read.kind == "index" else kernel.slot(read, PAIR)
        if slot is not None and slot[0] != PAIR:  # of which nothing is assumed
            stage, offset, index = slot
            low, high = (index, index) if isinstance(index, int) else index.bounds
            slots.setdefault(stage, set()).update(range(offset + low, offset + high + 1))
    return {stage: _ranges(at) for stage, at in slots.items()}


def _ranges(slots: set[int]) -> tuple[tuple[int, int], ...]:
    """Adjacent slots as (first, the one after the last)."""
    found: list[tuple[int, int]] = []
    for slot in sorted(slots):
        if found and found[-1][1] == slot:
            found[-1] = found[-1][0], slot + 1
        else:
            found.append((slot, slot + 1))
    return tuple(found)


def _size(number: Number) -> float:
    """The magnitude of a constant; infinite where it is none of a finite number."""
    return math.inf if isinstance(number, str) else abs(to_float(number, "float64"))


class _Magnitudes:
    """The largest magnitude of each value; infinite where nothing is known."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.of: dict[Value, float] = {}

    def max_shifted(self, placeholder: Value) -> list[Value]:
        """The exponents that a maximum is the largest of."""
        name, place = placeholder.supplied
        return [self.kernel.logits[place]] if name == "top" else []

    def add(self, value: Value) -> None:
        """Find the bound of a value whose arguments have theirs."""
        self.of[value] = self._bound(value)

    def _bound(self, value: Value) -> float:
        if value.kind != "real":
            return math.inf
        if self.kernel.is_leaf(value, PAIR):
            # To check numbers of pairs would cost more than it wins.
            return math.inf if value.stage == PAIR else MODERATE
        if value.what == "result":
            return self._sum(*value.carried)
        # A value that is not a number needs no bound: whatever is made of it is none either.
        what, args = value.what, [self.of.get(arg, math.inf) for arg in value.args]
        if what == "const":
            return _size(value.number)
        if what == "placeholder":
            return max(
                (self.of.get(s, math.inf) for s in self.max_shifted(value)), default=math.inf
            )
        if what in ("add", "sub"):
            return args[0] + args[1]
        if what == "apart":  # what it is measured from is the largest value of the same
            return 2 * args[0]
        if what == "mul":
            return args[0] * args[1] if min(args) > 0 else 0.0
        if what in ("neg", "abs"):
            return args[0]
        if what == "select":
            return max(args[1:])
        return max(1.0, args[0]) if what == "sqrt" else math.inf

    def _sum(self, loop: Loop, place: int) -> float:
        """The bound of a component loop that adds terms up; of any other, none."""
        following, carry = loop.nexts[place], loop.carries[place]
        if following.what != "add" or carry not in following.args:
            return math.inf
        term = following.args[following.args[0] is carry]
        if loop in term.running:
            return math.inf
        return self.of.get(loop.inits[place], math.inf) + loop.n * self.of.get(term, math.inf)
