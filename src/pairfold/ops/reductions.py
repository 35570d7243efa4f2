"""The table of reductions: each a monoid (state, merge) with one step per pair and a finish.

`step`, `merge` and `finish` are written in scalar values, like operations, so every backend folds,
splits the reduced axis and combines partial results by the same rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..core.scalars import Scalars, Value

State = Sequence[Value]


@dataclass(frozen=True, eq=False)
class Reduction:
    """Everything the package knows about one reduction over pairs.

    `identity` is the state of an empty row; `linear` says that factors of the row may leave it
    and that derivatives may enter it; `additive` that its states are summed (so a summation
    scheme applies).
    """

    name: str
    says: str
    identity: tuple[float, ...]
    step: Callable[[Scalars, State, Value], State]
    merge: Callable[[Scalars, State, State], State]
    finish: Callable[[Scalars, State], Value]
    empty: float
    linear: bool = False
    additive: bool = False

    def __repr__(self) -> str:
        return f"<reduction {self.name}>"


REDUCTIONS: dict[str, Reduction] = {}


def reduction(name: str, says: str, **fields: object) -> Reduction:
    """Add a row to the table of reductions."""
    row = Reduction(name, says, **fields)  # type: ignore[arg-type]
    REDUCTIONS[name] = row
    return row


total = reduction(
    "Sum",
    "The sum over the reduced index.",
    identity=(0.0,),
    step=lambda s, state, x: [state[0] + x],
    merge=lambda s, a, b: [a[0] + b[0]],
    finish=lambda s, state: state[0],
    empty=0.0,
    linear=True,
    additive=True,
)
