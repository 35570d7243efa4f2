"""Copies of symbolic tensors: graphs and leaves in a form that can be pickled, arrays replaced.

Nodes are interned and cannot be pickled; a graph is written as a list of steps, arguments before
users, so its depth does not matter. Leaves are objects of their own: tensors that are pickled
together keep sharing them, and so their arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..calculus.substitute import substitute
from ..core.library import Array
from ..core.node import Node, topological
from ..ops.table import OPERATIONS, build
from .leaves import Leaf, library_from

# An operation's name, the places of its arguments among the steps before, its parameters; for a
# variable "Var", the place of its leaf.
Step = tuple[str, tuple[int, ...], tuple[Any, ...]]
Steps = tuple[tuple[Step, ...], tuple[int, ...]]


def packed(roots: Sequence[Node], leaves: Sequence[Leaf]) -> Steps:
    """Graphs as steps, and the places of the roots among them."""
    order = topological(roots)
    places = {node: place for place, node in enumerate(order)}
    leaf_of = {leaf.node: place for place, leaf in enumerate(leaves)}
    steps: list[Step] = []
    for node in order:
        if node in leaf_of:
            steps.append(("Var", (leaf_of[node],), ()))
        else:
            steps.append((node.op.name, tuple(places[arg] for arg in node.args), node.params))
    return tuple(steps), tuple(places[root] for root in roots)


def unpacked(steps: Steps, leaves: Sequence[Leaf]) -> list[Node]:
    """The graphs of `packed`, on these leaves."""
    nodes: list[Node] = []
    for name, places, params in steps[0]:
        if name == "Var":
            nodes.append(leaves[places[0]].node)
        else:
            nodes.append(build(OPERATIONS[name], *(nodes[place] for place in places), *params))
    return [nodes[place] for place in steps[1]]


def with_owners(
    nodes: Sequence[Node], leaves: Sequence[Leaf], change: Callable[[Any], Any]
) -> tuple[list[Node], list[Leaf]]:
    """Graphs and leaves with every array replaced by what `change` makes of it, once."""
    owners: dict[int, Any] = {}
    found: list[Leaf] = []
    for leaf in leaves:
        if leaf.form is None:
            found.append(leaf)
            continue
        if id(leaf.owner) not in owners:
            owners[id(leaf.owner)] = change(leaf.owner)
        found.append(leaf.of_owner(owners[id(leaf.owner)]))
    moved = {old.node: new.node for old, new in zip(leaves, found, strict=True)}
    return [substitute(node, moved) for node in nodes], found


def copied(array: Array, memo: dict[int, object]) -> Array:
    """A deep copy of an array.

    Raises:
        ArrayTypeError: one that cannot be copied alone.
    """
    return library_from(array).copied(array, memo)


def converted(array: Array, *args: object, **options: object) -> Array:
    """An array on another device or of another dtype, as its library's users ask for it.

    Raises:
        ArrayTypeError: what the library does not take.
    """
    return library_from(array).converted(array, args, options)
