"""What a sum loses, at most, where numbers of pairs that are too small to be normal become 0.

Processors take hundreds of cycles for a result that underflows, unless they may make it 0. Each
operation is then off by its rounding and by less than the smallest normal number. What becomes of
the latter in a sum is bounded here by a polynomial in the largest magnitude L of what pairs read,
which backends find out where something did underflow: a sum that is large beside its bound is what
it was, up to rounding; any other is computed again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ..core.numbers import to_float
from ..core.scalars import Loop, Value
from .accumulators import Accumulator
from .bounds import slots_read
from .kernel import ONCE, PAIR, Kernel


@dataclass(frozen=True)
class Power:
    """`factor` L^`degree`, for the largest magnitude L of what pairs read, which is at least 1."""

    factor: float
    degree: int = 0

    def __bool__(self) -> bool:
        """Whether it is not 0."""
        return self.factor != 0

    def __add__(self, other: Power) -> Power:
        """At least the sum of two."""
        if not other or not self:
            return self or other
        return Power(self.factor + other.factor, max(self.degree, other.degree))

    def __mul__(self, other: Power) -> Power:
        """The product of two."""
        both = self.factor * other.factor
        return Power(both, self.degree + other.degree) if both else _NONE


_NONE, _ONE = Power(0.0), Power(1.0)


class Known(NamedTuple):
    """What is known of a value: its magnitude is at most `size`, None: nothing; its sign.

    `off`: by how many of the smallest normal number it may be off; `sign`: 1, -1 where it is never
    on the other side of 0; 0: nothing is known.
    """

    size: Power | None
    off: Power
    sign: int = 0


class Flushing(NamedTuple):
    """What is lost, in multiples of the smallest normal number.

    `loss`: by each term that a sum adds up; `shift`: in an exponent, where it has to be small
    beside the rounding error of an exponential. `slots`: what pairs read, by stage; `positive`:
    slots of parameters that must not be negative.
    """

    loss: Power
    shift: Power
    slots: Mapping[int, tuple[tuple[int, int], ...]]
    positive: tuple[tuple[int, int], ...] = ()


def flushing(kernel: Kernel, dtype: str) -> Flushing | None:
    """What sums of a kernel lose; None where nothing is to become 0.

    That is where something else than sums is computed, where there is no exponential of pairs, from
    which nearly all tiny numbers come, and where no bound is known.
    """
    if kernel.fused or kernel.stages[PAIR].size:
        return None
    if not all(_adds(kernel, each) for each in kernel.accumulators):
        return None
    values = kernel.needed(kernel.pair_values, PAIR)
    if not any(v.what == "exp" and not kernel.is_leaf(v, PAIR) for v in values):
        return None
    return _bounded(kernel, values, dtype, False) or _bounded(kernel, values, dtype, True)


def _bounded(kernel: Kernel, values: Sequence[Value], dtype: str, assumes: bool) -> Flushing | None:
    """The bounds, if there are any; `assumes`: parameters that scale exponents are positive."""
    losses = _Losses(kernel, dtype, assumes)
    for value in values:
        losses.add(value)
    if kernel.keep is not None and losses.off(kernel.keep) != _NONE:
        return None
    exponents = [v.args[0] for v in values if v.what == "exp" and not kernel.is_leaf(v, PAIR)]
    found = [losses.off(value) for value in (*kernel.outputs, *exponents)]
    known = [each for each in found if each is not None]
    if len(known) < len(found):
        return None
    count = len(kernel.outputs)
    # Additions, merging and corrections of sums may underflow, too.
    loss, shift = sum(known[:count], Power(4.0)), sum(known[count:], _ONE)
    positive = slots_read(kernel, losses.positive).get(ONCE, ())
    return Flushing(loss, shift, slots_read(kernel, kernel.pair_values), positive)


def checked(accumulator: Accumulator) -> int:
    """How many of its places, from the first on, may be sums that are small beside a loss.

    Terms that are measured from the largest exponent add up to 1 or more.
    """
    if not accumulator.rule.max_shifted:
        return accumulator.places
    return 0 if accumulator.folded.weight is None else accumulator.count


def _adds(kernel: Kernel, accumulator: Accumulator) -> bool:
    """Whether its states are sums of what it folds, or count."""
    for number, steps in enumerate(accumulator.steps, accumulator.first):
        for step in steps:
            rest = [arg for arg in step.args if arg.what != "placeholder"]
            if step.what != "add" or len(rest) != 1:
                return False
            if rest[0].what != "const" and rest[0] is not kernel.outputs[number]:
                return False
    return True


class _Losses:
    """What is known of each value that pairs compute, where it is known."""

    def __init__(self, kernel: Kernel, dtype: str, assumes: bool) -> None:
        self.kernel, self.assumes = kernel, assumes
        self.positive: list[Value] = []
        self.of: dict[Value, Known] = {}
        # The square root of the smallest normal number, in multiples of it.
        self.root = 2.0 ** (63 if dtype == "float32" else 511)

    def off(self, value: Value) -> Power | None:
        """By how much a value may be off; None: that is not known."""
        found = self.of.get(value)
        return None if found is None else found.off

    def add(self, value: Value) -> None:
        """Find out what is known of a value whose arguments were looked at."""
        found = self._known(value)
        if found is not None:
            self.of[value] = found

    def _known(self, value: Value) -> Known | None:
        what = value.what
        if value.kind == "real" and self.kernel.is_leaf(value, PAIR):
            return Known(Power(1.0, 1), _NONE)
        if what == "const":
            if isinstance(value.number, str):
                return None
            number = to_float(value.number, "float64")
            return Known(Power(abs(number)), _NONE, 1 if number >= 0 else -1)
        if what == "result":
            return self._sum(*value.carried)
        if what in ("row_number", "column_number"):
            return Known(None, _NONE, 1)
        args = [self.of.get(arg) for arg in value.args]
        if what == "apart" and args[0] is not None:
            return Known(None, args[0].off + args[0].off + _ONE, -1)
        given = [arg for arg in args if arg is not None]
        if what in ("carry", "placeholder") or len(given) < len(args):
            return None
        if all(arg.off == _NONE for arg in given) and value.kind != "real":
            return Known(None, _NONE)
        return self._made(value, given)

    def _made(self, value: Value, given: Sequence[Known]) -> Known | None:
        """What is known of a number made of numbers of which something is known."""
        what, a = value.what, given[0] if given else None
        if a is None:
            return None
        if what in ("add", "sub"):
            b = given[1]
            size = None if a.size is None or b.size is None else a.size + b.size
            alike = a.sign == (b.sign if what == "add" else -b.sign)
            return Known(size, a.off + b.off + _ONE, a.sign if alike else 0)
        if what == "mul":
            return _product(a, given[1], self._sign(value.args, given))
        if what == "neg":
            return a._replace(sign=-a.sign)
        if what == "abs":
            return a._replace(sign=1)
        if what == "exp":
            # Where exponents are measured from the largest of another kernel, 0 may be rounded up.
            return Known(Power(2.0) if a.sign < 0 else None, _ONE, 1)
        if what == "sqrt":
            size = None if a.size is None else a.size + _ONE
            return Known(size, (a.off + _ONE) * Power(self.root), 1)
        return None

    def _sign(self, args: Sequence[Value], given: Sequence[Known]) -> int:
        """The sign of a product."""
        if args[0] is args[1]:
            return 1
        for scale, other in ((args[0], given[1]), (args[1], given[0])):
            once = scale.stage == ONCE and self.kernel.is_leaf(scale, PAIR)
            if self.assumes and once and other.sign:
                self.positive.append(scale)
                return other.sign
        return given[0].sign * given[1].sign

    def _sum(self, loop: Loop, place: int) -> Known | None:
        """A component loop that adds terms up; of any other nothing is known."""
        following, carry = loop.nexts[place], loop.carries[place]
        if following.what != "add" or carry not in following.args:
            return None
        term = following.args[following.args[0] is carry]
        first, each = self.of.get(loop.inits[place]), self.of.get(term)
        if loop in term.running or first is None or each is None:
            return None
        count = Power(float(loop.n))
        size = None
        if first.size is not None and each.size is not None:
            size = first.size + each.size * count
        sign = each.sign if first.sign in (0, each.sign) or first.size == _NONE else 0
        return Known(size, first.off + (each.off + _ONE) * count, sign)


def _product(a: Known, b: Known, sign: int) -> Known | None:
    """What is known of a product: neither may be off where the other is of any size."""
    off = _ONE + a.off * b.off
    for one, other in ((a, b), (b, a)):
        if one.off == _NONE:
            continue
        if other.size is None:
            return None
        off += one.off * other.size
    size = None if a.size is None or b.size is None else a.size * b.size
    return Known(size, off, sign)
