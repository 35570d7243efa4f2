"""Numbers with derivatives along several directions, for rows that are algorithms.

A dual number of order k holds one value for each set of directions: the number itself, its
derivative along each of k directions, along each pair of them, and so on. Arithmetic on dual
numbers is arithmetic on values, so a recurrence written once is also its derivative of any order.
Sets of directions are bit masks; None stands for a derivative that is zero.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..core.scalars import Scalars, Value

Dual = Sequence[Value | None]


def subsets(mask: int) -> Iterator[int]:
    """All subsets of a set of directions, from the empty one to the set itself.

    >>> list(subsets(0b101))
    [0, 1, 4, 5]
    """
    part = 0
    while True:
        yield part
        if part == mask:
            return
        part = (part - mask) & mask


class Duals:
    """Arithmetic on dual numbers of one order."""

    def __init__(self, scalars: Scalars, order: int) -> None:
        self.scalars, self.order = scalars, order
        self.sets = range(1 << order)

    def constant(self, value: float) -> Dual:
        """A number that does not vary."""
        return [self.scalars.constant(value), *([None] * (len(self.sets) - 1))]

    def variable(self, value: Value, directions: Sequence[Value]) -> Dual:
        """A number that moves along each direction by so much."""
        found: list[Value | None] = [None] * len(self.sets)
        found[0] = value
        for place, direction in enumerate(directions):
            found[1 << place] = direction
        return found

    def number(self, x: Dual) -> Value:
        """The number itself."""
        found = x[0]
        assert found is not None
        return found

    def add(self, x: Dual, y: Dual) -> Dual:
        """x + y"""
        return [self._plus(a, b) for a, b in zip(x, y, strict=True)]

    def negative(self, x: Dual) -> Dual:
        """-x"""
        return [None if a is None else -a for a in x]

    def sub(self, x: Dual, y: Dual) -> Dual:
        """x - y"""
        return [self._minus(a, b) for a, b in zip(x, y, strict=True)]

    def mul(self, x: Dual, y: Dual) -> Dual:
        """x * y"""
        found: list[Value | None] = []
        for mask in self.sets:
            total: Value | None = None
            for part in subsets(mask):
                total = self._plus(total, self._product(x[part], y[mask ^ part]))
            found.append(total)
        return found

    def div(self, x: Dual, y: Dual, zero: Value | None = None) -> Dual:
        """x / y; the number itself is 0 where the mask `zero` holds."""
        divisor = self.number(y)
        found: list[Value | None] = []
        for mask in self.sets:
            rest = x[mask]
            for part in subsets(mask):
                if part != mask:
                    rest = self._minus(rest, self._product(found[part], y[mask ^ part]))
            quotient = None if rest is None else rest / divisor
            if mask == 0 and quotient is not None and zero is not None:
                quotient = self.scalars.select(zero, 0, quotient)
            found.append(quotient)
        return found

    def exp(self, x: Dual) -> Dual:
        """e^x; where that is 0, so are its derivatives."""
        s = self.scalars
        found: list[Value | None] = [s.apply("exp", self.number(x))]
        vanishes = s.apply("eq", self.number(found), 0)
        for mask in self.sets[1:]:
            others = mask & (mask - 1)
            total: Value | None = None
            for part in subsets(others):
                total = self._plus(total, self._product(found[part], x[mask ^ part]))
            found.append(None if total is None else s.select(vanishes, 0, total))
        return found

    def log(self, x: Dual) -> Dual:
        """The natural logarithm."""
        number = self.number(x)
        found: list[Value | None] = [self.scalars.apply("log", number)]
        for mask in self.sets[1:]:
            rest = x[mask]
            for part in subsets(mask & (mask - 1)):
                if part:
                    rest = self._minus(rest, self._product(x[part], found[mask ^ part]))
            found.append(None if rest is None else rest / number)
        return found

    def select(self, condition: Value, x: Dual, y: Dual) -> Dual:
        """x where the condition holds, else y."""
        return [
            None
            if a is None and b is None
            else self.scalars.select(condition, 0 if a is None else a, 0 if b is None else b)
            for a, b in zip(x, y, strict=True)
        ]

    def _plus(self, a: Value | None, b: Value | None) -> Value | None:
        if a is None or b is None:
            return b if a is None else a
        return a + b

    def _minus(self, a: Value | None, b: Value | None) -> Value | None:
        if b is None:
            return a
        return -b if a is None else a - b

    def _product(self, a: Value | None, b: Value | None) -> Value | None:
        return None if a is None or b is None else a * b
