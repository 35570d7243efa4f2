"""What explanations of all backends share: what they explain, and how they print.

They are short where they are one value among others, whole on request and in notebooks.
"""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass

from ..core.library import Device
from ..core.primitives import PRIMITIVES
from ..lower.kernel import PAIR, Kernel
from ..lower.pattern import Pattern

_LONGEST = 60


@dataclass(frozen=True)
class Subject:
    """A reduction to explain, for some sizes.

    `formula` is what was written, `simplified` the same after expansions and rules; `names` are
    those of the arguments. `pattern` are the pairs, None being all.
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


class Shown:
    """Something whose `str` is a text of several lines and whose `repr` is its summary."""

    @property
    def summary(self) -> str:
        """What it is, in one line."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.summary}; print() shows all>"

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"


def shortened(text: str) -> str:
    """A text that fits into a line, its middle left out where it is long.

    >>> shortened("x+" * 100 + "x")
    'x+x+x+x+x+x+x+x+x+x+x+x+x+x+... ...x+x+x+x+x+x+x+x+x+x+x+x+x'
    """
    if len(text) <= _LONGEST:
        return text
    half = (_LONGEST - 5) // 2
    return f"{text[: half + 1]}... ...{text[-half + 1 :]}"


def flops(kernel: Kernel) -> float:
    """Operations per pair, as written: an exponential is one."""
    count = float(kernel.places)
    for value in kernel.needed(kernel.folded, PAIR):
        if value.what in PRIMITIVES and not kernel.is_leaf(value, PAIR):
            times = 1
            for loop in value.loops:
                times *= loop.n
            count += times
    return count
