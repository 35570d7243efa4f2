"""Leaves of symbolic tensors: arrays, numbers and symbols that a graph's variables stand for.

Every leaf has a variable node of its own, with a position that no other living leaf has; when a
formula is reduced, its variables are numbered anew in the order of their leaves, so equal formulas
of different arrays are one graph and share their machine code. Positions are used again, the
lowest first: a program that makes the same lazy tensors again and again makes the same nodes, too.
"""

from __future__ import annotations

import functools
import heapq
import itertools
from collections.abc import Iterable, Sequence
from typing import Any

from ..calculus.substitute import substitute
from ..core.node import Kind, Node
from ..ops.table import variable

_positions = itertools.count(1)
_free: list[int] = []  # a heap; each use of it is one step for the interpreter, so no lock


class Leaf:
    """An argument of a formula: an array, a list of numbers, or a symbol to be given later.

    `array` is indexed as a fold wants it: (..., rows, dim), or (..., dim) for a parameter;
    `values` are numbers without a dtype; `symbol` is the position in a later call.
    """

    __slots__ = ("array", "dim", "kind", "node", "owner", "symbol", "values")

    def __init__(
        self,
        kind: Kind,
        dim: int,
        array: Any = None,
        values: Sequence[float] | None = None,
        symbol: int | None = None,
        owner: Any = None,
    ) -> None:
        self.kind, self.dim, self.array = kind, dim, array
        self.values = None if values is None else tuple(values)
        self.symbol, self.owner = symbol, owner
        try:
            position = heapq.heappop(_free)
        except IndexError:
            position = next(_positions)
        self.node = placed_variable(position, dim, kind)

    def __del__(self) -> None:
        node = getattr(self, "node", None)
        if node is not None and heapq is not None:
            heapq.heappush(_free, node.params[0])

    def same(self, other: Leaf) -> bool:
        """Whether two leaves are one argument: the same array, symbol or numbers."""
        if self is other:
            return True
        if self.kind != other.kind or self.dim != other.dim:
            return False
        if self.symbol is not None or other.symbol is not None:
            return self.symbol == other.symbol
        if self.values is not None or other.values is not None:
            return self.values is not None and self.values == other.values
        return self.owner is other.owner

    def __repr__(self) -> str:
        return f"<leaf {self.node}>"


@functools.lru_cache(maxsize=1024)
def placed_variable(position: int, dim: int, kind: Kind) -> Node:
    """The node of an argument; the last ones made are kept."""
    return variable(position, dim, kind)


def joined(first: Sequence[Leaf], second: Sequence[Leaf]) -> tuple[Leaf, ...]:
    """The leaves of both, each once."""
    found = dict.fromkeys(first)
    found.update(dict.fromkeys(second))
    return tuple(found)


def numbered(
    nodes: Sequence[Node | None], leaves: Iterable[Leaf]
) -> tuple[list[Node | None], list[Leaf]]:
    """Graphs with variables numbered from 0, and the leaf at each number.

    Symbols come first, by their positions; arrays and numbers after them, in the order of
    `leaves`. Leaves that no graph uses are kept: their sizes count.
    """
    distinct: list[Leaf] = []
    place_of: dict[Leaf, int] = {}
    for leaf in leaves:
        for place, other in enumerate(distinct):
            if leaf.same(other):
                place_of[leaf] = place
                break
        else:
            place_of[leaf] = len(distinct)
            distinct.append(leaf)
    symbols = sorted((leaf for leaf in distinct if leaf.symbol is not None), key=_symbol)
    order = symbols + [leaf for leaf in distinct if leaf.symbol is None]
    final = {distinct.index(leaf): place for place, leaf in enumerate(order)}
    moved = tuple((leaf.node, final[place]) for leaf, place in place_of.items())
    return [None if node is None else _renumbered(node, moved) for node in nodes], order


@functools.lru_cache(maxsize=1024)
def _renumbered(node: Node, moved: tuple[tuple[Node, int], ...]) -> Node:
    """The graph with each of these variables at its new position."""
    return substitute(node, {old: variable(new, *old.params[1:]) for old, new in moved})


def _symbol(leaf: Leaf) -> int:
    assert leaf.symbol is not None
    return leaf.symbol
