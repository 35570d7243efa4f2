"""Copies of symbolic tensors: graphs and leaves in a form that can be pickled, arrays replaced.

Nodes are interned and cannot be pickled; a graph is written as a list of steps. Leaves are objects
of their own: tensors that are pickled together keep sharing them, and so their arrays.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

from ..calculus.substitute import substitute
from ..core.node import Node
from ..errors import ArrayTypeError
from ..ops.steps import Steps, graphs_of, steps_of
from .leaves import Leaf, adapter_for


def packed(roots: Sequence[Node], leaves: Sequence[Leaf]) -> Steps:
    """Graphs as steps on these leaves, which are not in them."""
    return steps_of(roots, {leaf.node: place for place, leaf in enumerate(leaves)})


def unpacked(steps: Steps, leaves: Sequence[Leaf]) -> list[Node]:
    """The graphs of `packed`, on these leaves."""
    return graphs_of(steps, [leaf.node for leaf in leaves])


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


def copied(array: Any, memo: dict[int, Any]) -> Any:
    """A deep copy; a view of a torch parameter becomes the same view of the parameter's copy.

    Raises:
        ArrayTypeError: a tensor computed from others that ask for gradients.
    """
    if adapter_for(array).name == "numpy" or array.is_leaf:
        return copy.deepcopy(array, memo)
    base = array._base if array._is_view() else None
    if base is None or not base.is_leaf or array.is_conj() or array.dtype != base.dtype:
        raise ArrayTypeError(
            "a tensor that was computed from others cannot be copied with its history",
            found=f"a {type(array).__name__} of shape {tuple(array.shape)} with a graph",
            hint="make the LazyTensor where it is used, from the parameters; or x.detach()",
        )
    owner = copy.deepcopy(base, memo)
    return owner.as_strided(array.shape, array.stride(), array.storage_offset())


def converted(array: Any, *args: Any, **options: Any) -> Any:
    """An array on another device or of another dtype: what torch's `to` makes of it, or astype.

    Raises:
        ArrayTypeError: for NumPy arrays, anything but one dtype.
    """
    if adapter_for(array).name == "torch":
        return array.to(*args, **options)
    wanted = [*args, *options.values()]
    if len(wanted) != 1 or not set(options) <= {"dtype"}:
        raise ArrayTypeError(
            "NumPy arrays take one dtype", found=f"to{(*args, *options)}", hint="x.to('float32')"
        )
    return array.astype(wanted[0], copy=False)
