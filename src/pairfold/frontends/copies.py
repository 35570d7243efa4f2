"""Copies of symbolic tensors: graphs and leaves in a form that can be pickled, arrays replaced.

Nodes are interned and cannot be pickled; a graph is written as a list of steps. Leaves are objects
of their own: tensors that are pickled together keep sharing them, and so their arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..calculus.substitute import substitute
from ..core.library import Array
from ..core.node import Node
from ..ops.steps import Steps, graphs_of, steps_of
from .leaves import Leaf, is_coded, library_from


def packed(roots: Sequence[Node], leaves: Sequence[Leaf]) -> Steps:
    """Graphs as steps on these leaves, which are not in them."""
    return steps_of(roots, {leaf.node: place for place, leaf in enumerate(leaves)})


def unpacked(steps: Steps, leaves: Sequence[Leaf]) -> list[Node]:
    """The graphs of `packed`, on these leaves."""
    return graphs_of(steps, [leaf.node for leaf in leaves])


def with_owners(
    nodes: Sequence[Node], leaves: Sequence[Leaf], change: Callable[[Array], Array]
) -> tuple[list[Node], list[Leaf]]:
    """Graphs and leaves with every array replaced by what `change` makes of it, once."""
    owners: dict[int, Array] = {}
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

    Codes are for data of any dtype, and go with them.

    Raises:
        ArrayTypeError: what the library does not take.
    """
    if is_coded(array):
        return array
    return library_from(array).converted(array, args, options)
