"""Explanations, of which every backend writes a section: what is explained, and how it prints.

They are short where they are one value among others, whole on request and in notebooks.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..core.library import Device
from ..core.notebook import page
from ..core.primitives import PRIMITIVES
from ..lower.kernel import PAIR, Kernel
from ..lower.pattern import Pattern
from ..lower.schedule import Accumulation

_LONGEST = 60
_KEY = 11  # characters before what a line says


@dataclass(frozen=True)
class Subject:
    """A reduction to explain, for some sizes.

    `formula` is what was written, `simplified` the same after expansions and rules; `names` are
    those of the arguments. `pattern` are the pairs, None being all; `where` is the mask, `blocks`
    are how many of its blocks are skipped, tested, and met whole, None where nothing is known.
    `searched`: how many blocks a search for extrema met, and of how many; or why it met all.
    `separable` says whether pairs are needed at all, "" of what is no sum.
    """

    formula: str
    simplified: str
    reduction: str
    dim: int
    nodes: int
    tree: str
    names: Mapping[int, str]
    rows: int
    columns: int
    batches: int
    pattern: Pattern | None
    device: Device | None
    where: str = ""
    blocks: tuple[int, int, int] | None = None
    searched: tuple[int, int] | str = ""
    separable: str = ""

    @property
    def sizes(self) -> tuple[int, int]:
        """Rows and columns; those of a block, on average, where there are ranges."""
        return (self.rows, self.columns) if self.pattern is None else self.pattern.typical


@dataclass(frozen=True, repr=False, eq=False)
class Explained:
    """How one reduction is computed; print it, or read its fields.

    `formula` is what was written, `simplified` the same after expansions and rules, `tree` the
    latter as a tree of `nodes`. `rows` and `columns` are those of a block, on average, where there
    are ranges. `str` is the whole text, `repr` its summary; a backend has more fields, a section
    of the text, and a few words of the summary.
    """

    subject: Subject

    @property
    def formula(self) -> str:
        """What was written."""
        return self.subject.formula

    @property
    def simplified(self) -> str:
        """The same after expansions and rules."""
        return self.subject.simplified

    @property
    def reduction(self) -> str:
        """What is reduced over which index."""
        return self.subject.reduction

    @property
    def dim(self) -> int:
        """The dimension of the formula."""
        return self.subject.dim

    @property
    def separable(self) -> str:
        """Whether a sum is one of products, and computed without pairs; "" of what is no sum."""
        return self.subject.separable

    @property
    def nodes(self) -> int:
        """How many nodes the formula's graph has."""
        return self.subject.nodes

    @property
    def tree(self) -> str:
        """The formula as a tree."""
        return self.subject.tree

    @property
    def rows(self) -> int:
        """The number of rows."""
        return self.subject.sizes[0]

    @property
    def columns(self) -> int:
        """The number of columns."""
        return self.subject.sizes[1]

    @property
    def _where(self) -> str:
        """Where it is computed, for the summary."""
        return ""

    @property
    def _cost(self) -> str:
        """What it is computed in, and at what estimated cost, for the summary."""
        return ""

    @property
    def _counted(self) -> str:
        """What is told of the formula besides its dimension."""
        return f", {self.nodes} nodes"

    def _section(self) -> Sequence[str]:
        """How the backend computes it, line by line."""
        raise NotImplementedError

    def _mask(self) -> list[str]:
        """The mask, and what becomes of its blocks."""
        subject = self.subject
        if not subject.where:
            return []
        lines = [f"where      {subject.where}"]
        if subject.blocks is not None:
            total = max(1, sum(subject.blocks))
            names = ("skipped", "tested", "met whole")
            counts = zip(subject.blocks, names, strict=True)
            shares = ", ".join(f"{100 * n / total:.3g} % {name}" for n, name in counts)
            lines.append(f"blocks     {sum(subject.blocks)}: {shares}")
        elif subject.pattern is None:
            lines.append("blocks     all tested")
        return lines

    def _searched(self) -> list[str]:
        """What bounds have decided of a search."""
        found = self.subject.searched
        if not found:
            return []
        if isinstance(found, str):
            return [f"search     all blocks are met: {found}"]
        share = 100 * found[0] / max(1, found[1])
        return [f"search     {share:.3g} % of {found[1]} blocks are met, the others ruled out"]

    @property
    def summary(self) -> str:
        """One line: what is reduced, over which sizes, and at what estimated cost."""
        what = f"{self.reduction}{self._where}, F = {shortened(self.formula)}"
        return f"{what}: {self.rows} x {self.columns}{self._cost}"

    def _reduction(self) -> list[str]:
        """What is computed, and of which pairs."""
        return [
            f"formula    {self.formula}",
            f"by rules   {self.simplified}",
            f"reduction  {self.reduction}, dimension {self.dim}{self._counted}",
            *self._mask(),
            *self._searched(),
            *([f"separable  {self.subject.separable}"] if self.subject.separable else []),
        ]

    def __str__(self) -> str:
        return "\n".join([*self._reduction(), *self._section()])

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.summary}; print() shows all>"

    def _repr_html_(self) -> str:
        size = ("size", f"{self.rows} x {self.columns}{self._cost}")
        rows = [(line[:_KEY].strip(), line[_KEY:]) for line in self._reduction()]
        return page(type(self).__name__, [*rows, size], {"how": "\n".join(self._section())})


def states(accumulation: Accumulation, part: str) -> str:
    """The line that says how sums are accumulated, inside parts of the columns and across them."""
    compensated = ", compensated" if accumulation.compensated else ""
    inner, outer = accumulation.inner, accumulation.outer
    return f"states     {inner} inside a {part}, {outer} across {part}s{compensated}"


def shortened(text: str) -> str:
    """A text that fits into a line, its middle left out where it is long.

    >>> shortened("x+" * 100 + "x")
    'x+x+x+x+x+x+x+x+x+x+x+x+x+x+... ...x+x+x+x+x+x+x+x+x+x+x+x+x'
    """
    if len(text) <= _LONGEST:
        return text
    half = (_LONGEST - 5) // 2
    return f"{text[: half + 1]}... ...{text[-half + 1 :]}"


def operations(kernel: Kernel) -> Counter[str]:
    """Operations per pair, as written, by name: an exponential is one."""
    found: Counter[str] = Counter()
    for value in kernel.needed(kernel.outputs, PAIR):
        if value.what in PRIMITIVES and not kernel.is_leaf(value, PAIR):
            found[value.what] += math.prod(loop.n for loop in value.loops)
    return found


def flops(kernel: Kernel) -> float:
    """Operations per pair, and what takes the values in."""
    return float(kernel.places + operations(kernel).total())
