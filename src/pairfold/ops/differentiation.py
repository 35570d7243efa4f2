"""How a reduction is differentiated, as its row says it: three ways, and none.

- `PullBack`: what a gradient sends to each pair, as formulas. Derivatives are then sums over pairs.
- `Composition`: the results are made of those of other reductions, by operations on arrays.
- `Selection`: the results are the formula at some pairs, which another reduction finds.

Without any of them, results that are whole numbers or truth values are constants to every
derivative, and a derivative of values is an error. No library of arrays is known here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..core.library import Array, ArrayOperations
from ..core.node import Node

# (F, G, results, incoming) -> what goes to F and to the weight G; None: nothing.
Rule = Callable[
    [Node, "Node | None", Sequence[Node], Sequence[Node]], "tuple[Node | None, Node | None]"
]

# (library, results of each part, count) -> the results. `count()` is the number of columns of each
# row: a number, or where rows differ an array (rows, 1) of float64.
Join = Callable[
    [ArrayOperations, Sequence[Sequence[Array]], Callable[[], "Array | float"]], Sequence[Array]
]


@dataclass(frozen=True)
class PullBack:
    """`rule(F, G, results, incoming)` is what gradients of the results send to each pair's F and G.

    The rule is linear in `incoming`; forward mode is made by transposing it. It may read the
    results if they are to be saved.
    """

    rule: Rule
    saves: bool = False


def first_result(
    library: ArrayOperations, parts: Sequence[Sequence[Array]], count: Callable[[], Array | float]
) -> Sequence[Array]:
    """The first result of the first part."""
    return parts[0][:1]


@dataclass(frozen=True)
class Composition:
    """The results are `join(library, results of each part, count)`.

    `parts` are names of reductions of the same formula, with the same weight if they take one.
    """

    parts: tuple[str, ...]
    join: Join = first_result


@dataclass(frozen=True)
class Selection:
    """The results are the formula at selected pairs, or numbers of their columns.

    `located` is the name of the reduction that gives both; its identity is what stands where no
    pair was selected.
    """

    located: str


Differentiation = PullBack | Composition | Selection
