"""Bounds of a pair's value over a box of rows and a box of columns, as values for machine code.

A box is the least and the largest number of each slot that pairs read, of some rows or columns.
`boxes_of` writes interval arithmetic on them as scalar values, which any emitter can turn into
code. A bound is right for every pair of the boxes whose value is a number, however products are
fused and functions are approximated; where it is NaN, nothing is known. Pairs whose value is NaN
are never selected by extrema and lists, so nothing is claimed of them.

Bounds of masks are computed otherwise (`intervals`): before a call, in float64, of every primitive.
These are computed by the million within a call, in the dtype of the data, of what is common.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ..core.dtypes import DTYPES
from ..core.primitives import INDEX_OPERATIONS
from ..core.scalars import Loop, Value, reachable
from .kernel import COLUMN, ONCE, PAIR, ROW, Kernel

# Values that bounds may take: formulas beyond are not bounded.
_MOST_VALUES = 4000
# By how many eps results are widened: of arithmetic, and of functions.
_SLACK, _FUNCTION_SLACK = 2.0, 32.0
# The exponent of e^x may be off by so many eps of itself.
_EXPONENTS = 4.0


class _Interval(NamedTuple):
    """What a value lies in; one object twice is a number that is known."""

    low: Value
    high: Value


class _Unbounded(Exception):
    """There is no rule for something in a formula."""


@dataclass(frozen=True)
class Boxes:
    """Bounds of a kernel's only value: `low` and `high`, made of those of slots.

    `slots`: of rows, of columns, and of what is computed once, the slots that are read; `ends`:
    (stage, slot) to the values that stand for the least and the largest number there (of what is
    computed once, for the number).
    """

    low: Value
    high: Value
    slots: dict[int, tuple[int, ...]]
    ends: dict[tuple[int, int], tuple[Value, Value]]


def boxes_of(kernel: Kernel, dtype: str) -> Boxes | None:
    """Bounds of the value of pairs of a kernel that folds one; None where there are none.

    Of terms that are measured from maxima, it is their exponent.

    >>> from ..core.node import Axis
    >>> from ..frontends.parse import parse
    >>> from ..ops.reductions import REDUCTIONS
    >>> from .kernel import lower
    >>> node = parse("SqDist(x, y)", ["x = Vi(2)", "y = Vj(2)"]).node
    >>> found = boxes_of(lower(node, REDUCTIONS["Min"], Axis.I, 16), "float32")
    >>> found.slots[1], found.slots[2]
    ((0, 1), (0, 1))
    """
    values = kernel.logits or kernel.outputs
    if len(values) != 1 or (kernel.output_loop is not None and not kernel.logits):
        return None
    bounds = _Bounds(kernel, dtype)
    try:
        low, high = bounds.of(values[0])
    except _Unbounded:
        return None
    slots = {
        stage: tuple(sorted(slot for at, slot in bounds.ends if at == stage))
        for stage in (ONCE, ROW, COLUMN)
    }
    if not slots[ROW] or not slots[COLUMN]:
        return None
    return Boxes(low, high, slots, bounds.ends)


def coordinates(kernel: Kernel) -> frozenset[int]:
    """The positions of arguments that place rows and columns: which meet in one operation.

    A weight that multiplies the value of a pair does not. All of them, if none meet.
    """
    found: set[int] = set()
    for value in kernel.needed([*kernel.outputs, *kernel.logits], PAIR):
        if kernel.is_leaf(value, PAIR):
            continue
        read = [arg for arg in value.args if arg.kind == "real" and kernel.is_leaf(arg, PAIR)]
        if {arg.stage for arg in read} >= {ROW, COLUMN}:
            below = reachable(read)
            found.update(each.loaded.position for each in below if each.what == "load")
    placed = {kernel.read_at[position] for position in found}
    if not placed >= {ROW, COLUMN}:
        return frozenset(kernel.read_at)
    return frozenset(found)


# A value that is known: by the loops it is inside of, what was found.
_Known = dict[Value, "_Interval | int"]


class _Bounds:
    """Interval arithmetic on the values of a kernel, written with its builder."""

    def __init__(self, kernel: Kernel, dtype: str) -> None:
        self.kernel, self.scalars = kernel, kernel.scalars
        self.eps = DTYPES[dtype].eps
        self.tiny = 2.0 ** (DTYPES[dtype].smallest + DTYPES[dtype].fraction_bits + 1)
        self.ends: dict[tuple[int, int], tuple[Value, Value]] = {}
        self.left = _MOST_VALUES
        self.nan, self.infinity = self.scalars.constant("nan"), self.scalars.constant("inf")

    def of(self, value: Value) -> _Interval:
        """The interval of a value outside of loops."""
        found = self._found(value, {})
        assert isinstance(found, _Interval)
        return found

    def _found(self, target: Value, known: _Known) -> _Interval | int:
        """The interval of a value, of those that are known; these are added to."""
        todo = [target]
        while todo:
            value = todo[-1]
            if value in known:
                todo.pop()
                continue
            missing = [arg for arg in self._below(value) if arg not in known]
            if missing:
                todo += missing
                continue
            self.left -= 1
            if self.left < 0:
                raise _Unbounded
            known[value] = self._one(value, known)
            todo.pop()
        return known[target]

    def _below(self, value: Value) -> Sequence[Value]:
        """What must be known before a value."""
        slot = None if value.kind == "index" else self.kernel.slot(value, PAIR)
        if slot is not None:
            return [] if isinstance(slot[2], int) else [slot[2]]
        if value.kind == "mask":
            return []
        return value.loop.inits if value.what == "result" else value.args

    def _one(self, value: Value, known: _Known) -> _Interval | int:
        if value.kind == "index":
            return self._index(value, known)
        slot = self.kernel.slot(value, PAIR)
        if slot is not None:
            stage, offset, index = slot
            k = index if isinstance(index, int) else known[index]
            assert isinstance(k, int)
            return self._slot(stage, offset + k)
        if value.what == "const":
            return _Interval(value, value)
        if value.what == "result":
            return self._loop(value.loop, known)[value.carried.place]
        if value.kind == "mask":
            return 0  # all that may be selected counts
        if value.what == "select":
            return self._select(value, known)
        rule = _RULES.get(value.what)
        if rule is None:
            raise _Unbounded
        if value.what == "mul" and value.args[0] is value.args[1]:
            return _square(self, _interval(known[value.args[0]]))
        return rule(self, *(_interval(known[arg]) for arg in value.args))

    def _index(self, value: Value, known: _Known) -> int:
        if value.what not in _INDEX:
            raise _Unbounded
        args = [known[arg] for arg in value.args]
        if len(args) == 1:
            args.append(value.integer)
        left, right = args
        assert isinstance(left, int)
        assert isinstance(right, int)
        return _INDEX[value.what](left, right)

    def _slot(self, stage: int, slot: int) -> _Interval:
        """What stands for the ends of a slot's box."""
        if stage == PAIR:
            raise _Unbounded
        found = self.ends.get((stage, slot))
        if found is None:
            number = 2 * len(self.ends)
            low = self.scalars.placeholder("a", number)
            high = low if stage == ONCE else self.scalars.placeholder("b", number)
            found = self.ends[stage, slot] = low, high
        return _Interval(*found)

    def _loop(self, loop: Loop, known: _Known) -> list[_Interval]:
        """The results of a component loop, written out."""
        state = [_interval(known[init]) for init in loop.inits]
        for k in range(loop.n):
            inside: _Known = {
                each: found for each, found in known.items() if loop not in each.loops
            }
            inside[loop.index] = k
            inside.update(zip(loop.carries, state, strict=True))
            state = [_interval(self._found(after, inside)) for after in loop.nexts]
        return state

    def _select(self, value: Value, known: _Known) -> _Interval:
        """The smaller or larger of two where that is what is selected; else all that may be."""
        mask, x, y = value.args
        a, b = _interval(known[x]), _interval(known[y])
        if mask.what in ("lt", "le"):
            if mask.args == (x, y):
                return _Interval(self.lesser(a.low, b.low), self.lesser(a.high, b.high))
            if mask.args == (y, x):
                return _Interval(self.greater(a.low, b.low), self.greater(a.high, b.high))
        return _Interval(self.lesser(a.low, b.low), self.greater(a.high, b.high))

    # -- values ---------------------------------------------------------------------------------

    def lesser(self, x: Value, y: Value) -> Value:
        """The smaller of two; NaN where one is."""
        s = self.scalars
        return x if x is y else s.select(s.le(x, y), x, s.select(s.lt(y, x), y, self.nan))

    def greater(self, x: Value, y: Value) -> Value:
        """The larger of two; NaN where one is."""
        s = self.scalars
        return x if x is y else s.select(s.le(y, x), x, s.select(s.lt(x, y), y, self.nan))

    def widened(self, low: Value, high: Value, units: float = _SLACK) -> _Interval:
        """Bounds moved apart by so many eps, and by what may underflow."""
        s = self.scalars
        slack, tiny = s.constant(units * self.eps), s.constant(self.tiny)
        lower = low - (s.abs(low) * slack + tiny)
        return _Interval(lower, high + (s.abs(high) * slack + tiny))

    def rounded(self, low: Value, high: Value) -> _Interval:
        """The same for results that are rounded from exact ones, which keeps their signs."""
        s, zero = self.scalars, self.scalars.constant(0)
        found = self.widened(low, high)
        return _Interval(
            s.select(s.le(zero, low), self.greater(found.low, zero), found.low),
            s.select(s.le(high, zero), self.lesser(found.high, zero), found.high),
        )


def _interval(found: _Interval | int) -> _Interval:
    if isinstance(found, int):
        raise _Unbounded
    return found


_INDEX = {row.what: row.meaning for row in INDEX_OPERATIONS.values()}

# ---- the rules -----------------------------------------------------------------------------------

_Rule = Callable[..., _Interval]


def _add(t: _Bounds, a: _Interval, b: _Interval) -> _Interval:
    return t.rounded(a.low + b.low, a.high + b.high)


def _sub(t: _Bounds, a: _Interval, b: _Interval) -> _Interval:
    return t.rounded(a.low - b.high, a.high - b.low)


def _neg(t: _Bounds, a: _Interval) -> _Interval:
    return _Interval(-a.high, -a.low)


def _abs(t: _Bounds, a: _Interval) -> _Interval:
    low = t.greater(t.greater(a.low, -a.high), t.scalars.constant(0))
    return _Interval(low, t.greater(-a.low, a.high))


def _mul(t: _Bounds, a: _Interval, b: _Interval) -> _Interval:
    ends = [x * y for x in dict.fromkeys(a) for y in dict.fromkeys(b)]
    low = high = ends[0]
    for end in ends[1:]:
        low, high = t.lesser(low, end), t.greater(high, end)
    return t.rounded(low, high)


def _square(t: _Bounds, a: _Interval) -> _Interval:
    size = _abs(t, a)
    return t.rounded(size.low * size.low, size.high * size.high)


def _inverse(t: _Bounds, a: _Interval) -> _Interval:
    """Nothing is known of the inverse of what may be 0."""
    s = t.scalars
    apart = s.either(s.lt(0, a.low), s.lt(a.high, 0))
    low, high = (s.select(apart, 1 / end, t.nan) for end in (a.high, a.low))
    return t.widened(low, high, _FUNCTION_SLACK)


def _div(t: _Bounds, a: _Interval, b: _Interval) -> _Interval:
    return _mul(t, a, _inverse(t, b))


def _rising(name: str, units: float = _FUNCTION_SLACK) -> _Rule:
    """The rule of a function that rises wherever it is a number."""

    def rule(t: _Bounds, a: _Interval) -> _Interval:
        low, high = (t.scalars.apply(name, end) for end in a)
        return t.rounded(low, high) if name == "sqrt" else t.widened(low, high, units)

    return rule


def _falling(name: str) -> _Rule:
    """The rule of a function that falls wherever it is a number."""

    def rule(t: _Bounds, a: _Interval) -> _Interval:
        low, high = t.scalars.apply(name, a.high), t.scalars.apply(name, a.low)
        return t.widened(low, high, _FUNCTION_SLACK)

    return rule


def _exp(t: _Bounds, a: _Interval) -> _Interval:
    found = _rising("exp")(t, t.widened(a.low, a.high, _EXPONENTS))
    return _Interval(t.greater(found.low, t.scalars.constant(0)), found.high)


def _wave(name: str) -> _Rule:
    """The rule of a sine, which changes by no more than its argument does."""

    def rule(t: _Bounds, a: _Interval) -> _Interval:
        s = t.scalars
        middle, reach = (a.low + a.high) * 0.5, (a.high - a.low) * 0.5
        size = t.greater(s.abs(a.low), s.abs(a.high))
        off = reach + (size + 1) * (_FUNCTION_SLACK * t.eps)
        there = s.apply(name, middle)
        one = s.constant(1)
        return _Interval(t.greater(there - off, -one), t.lesser(there + off, one))

    return rule


def _floor(t: _Bounds, a: _Interval) -> _Interval:
    return _Interval(t.scalars.floor(a.low), t.scalars.floor(a.high))


_RULES: dict[str, _Rule] = {
    "add": _add,
    "sub": _sub,
    "apart": _sub,
    "mul": _mul,
    "div": _div,
    "neg": _neg,
    "abs": _abs,
    "sqrt": _rising("sqrt"),
    "rsqrt": _falling("rsqrt"),
    "exp": _exp,
    "expm1": _rising("expm1"),
    "log": _rising("log"),
    "log1p": _rising("log1p"),
    "tanh": _rising("tanh"),
    "asin": _rising("asin"),
    "acos": _falling("acos"),
    "atan": _rising("atan"),
    "erf": _rising("erf"),
    "sin": _wave("sin"),
    "cos": _wave("cos"),
    "floor": _floor,
}
