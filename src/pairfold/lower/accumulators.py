"""Accumulators: the reductions of a kernel, each with its rules applied to the values it folds.

A kernel is a list of them. All fold values of the same pairs, so what their formulas share is
computed once per pair; each is kept on rows or, where it is folded across, on columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..core.node import Node
from ..core.scalars import ROW, Scalars, Value
from ..ops.reductions import Ends, Reduction


@dataclass(frozen=True)
class Folded:
    """What is asked of an accumulator: a formula, its reduction, the stage that results belong to.

    `weight` multiplies the terms of a max-shifted reduction; `length` is that of a list; pairs
    for which `where` is 0 are absent.
    """

    formula: Node
    rule: Reduction
    weight: Node | None = None
    length: int = 0
    axis: int = ROW
    where: Node | None = None

    @property
    def dim(self) -> int:
        """Components that are folded."""
        return self.formula.dim if self.weight is None else self.weight.dim

    @property
    def maxima(self) -> int:
        """Maxima kept per row."""
        if not self.rule.max_shifted:
            return 0
        return self.dim if self.weight is None else 1

    @property
    def results(self) -> tuple[int, ...]:
        """The number of components of each result."""
        sizes = {"component": self.dim, "maximum": self.maxima, "list": self.dim * self.length}
        return tuple(sizes[result.per] for result in self.rule.results)

    def __str__(self) -> str:
        weight = "" if self.weight is None else f" {self.weight}"
        where = "" if self.where is None else f" where {self.where}"
        return f"{self.rule.name} {self.formula}{weight}{where}"


@dataclass(frozen=True)
class Accumulator:
    """A reduction of a kernel: its states are numbers `first` ... `first + places - 1` of all.

    They are those of its `count` components and, where it wants the sum of unweighted terms, of
    that `total`. Its results are those from number `result` on. `logits` are the exponents that
    terms of a max-shifted reduction are made of; `top` is the number of the first of their maxima
    among all of the kernel. Where an accumulator before it has the same exponents, it `shares`
    these maxima, which are moved for that one. The rules read placeholders (see
    `PlaceholderName`): `steps` has one for each value that is folded, the total's last; `finished`
    has one value per result.
    """

    folded: Folded
    first: int
    count: int
    result: int
    top: int
    shares: bool
    logits: tuple[Value, ...]
    total: Value | None
    steps: tuple[tuple[Value, ...], ...]
    merges: tuple[Value, ...]
    finished: tuple[Value, ...]

    @property
    def rule(self) -> Reduction:
        """The reduction."""
        return self.folded.rule

    @property
    def axis(self) -> int:
        """The stage that its results belong to: ROW, or COLUMN where it is folded across."""
        return self.folded.axis

    @property
    def places(self) -> int:
        """States kept per row: one per component, and one for the total."""
        return self.count + (self.total is not None)

    @property
    def stop(self) -> int:
        """The number after that of its last state."""
        return self.first + self.places

    @property
    def last(self) -> int:
        """The number of the last value that it folds: where there is a total, of that."""
        return self.first + len(self.steps) - 1

    @property
    def parts(self) -> int:
        """The numbers that one state consists of; of a list, those of one entry."""
        return len(self.rule.identity)

    @property
    def kept(self) -> int:
        """Numbers that are kept per row; a list has those of one entry more than its places."""
        return self.places * self.parts * (self.folded.length + 1) + self.folded.maxima

    @property
    def numbers(self) -> range:
        """The numbers of its components among all of the kernel."""
        return range(self.first, self.first + self.count)


def rules_of(
    s: Scalars, reduction: Reduction, outputs: Sequence[Value]
) -> tuple[tuple[tuple[Value, ...], ...], tuple[Value, ...], tuple[Value, ...]]:
    """The reduction's rules applied to placeholders: `acc` (inner state), `a` and `b` (states).

    For a list, `acc` and `a` hold two entries of it: the place before, and the place itself.
    """
    size = len(reduction.identity)
    own = 2 * size if reduction.top_k else size
    acc, a = ([s.placeholder(name, place) for place in range(own)] for name in ("acc", "a"))
    b = [s.placeholder("b", place) for place in range(size)]
    column = s.placeholder("column", 0)
    steps = tuple(tuple(reduction.step(s, acc, output, column)) for output in outputs)
    merges = tuple(reduction.merge(s, a, b))
    ends = Ends(a, s.placeholder("top", 0), s.placeholder("total", 0), s.placeholder("count", 0))
    return steps, merges, tuple(reduction.finish(s, ends))
