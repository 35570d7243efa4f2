"""Node: one formula, as an immutable, interned graph.

A node is an operation row applied to argument nodes and compile-time parameters. Building the same
thing twice gives the same object, so equality is identity and passes memoise by node. All walks
use an explicit stack: a formula may be thousands of levels deep. This module knows no operation by
name; `ops.table.build` is the only place that makes nodes.
"""

from __future__ import annotations

import enum
import weakref
from _weakref import _remove_dead_weakref  # pyright: ignore
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast

if TYPE_CHECKING:
    from ..ops.table import Op

Params = tuple[Any, ...]  # the parameters of a node, of the types that its row says


class Axis(enum.IntEnum):
    """What a variable is indexed by; the numbers up to 2 are PyKeOps' categories.

    A variable of kind `PAIR` has a vector for every pair: an array (..., M, N, D).
    """

    I = 0  # noqa: E741 (the field's own letter)
    J = 1
    PARAMETER = 2
    PAIR = 3

    @property
    def other(self) -> Axis:
        """J for I, and I for J.

        >>> Axis.I.other.name
        'J'
        """
        return Axis(1 - self)

    @property
    def axes(self) -> int:
        """How many axes an array of this kind has, besides those of batches.

        >>> [kind.axes for kind in Axis]
        [2, 2, 1, 3]
        """
        return _AXES[self]

    @property
    def says(self) -> str:
        """What messages call it.

        >>> Axis.I.says
        'indexed by i'
        """
        return _SAYS[self]

    @property
    def bits(self) -> int:
        """What `Node.kinds` is of a variable of this kind."""
        return 1 << Axis.I | 1 << Axis.J if self == Axis.PAIR else 1 << self


_AXES = (2, 2, 1, 3)
_SAYS = ("indexed by i", "indexed by j", "a parameter", "indexed by i and j")


class Variable(NamedTuple):
    """The parameters of a variable: its place in the call, its dimension, its index."""

    position: int
    dim: int
    kind: Axis


class Node:
    """A formula: `op` applied to `args` and `params`, with values of dimension `dim`.

    `kinds` has bit `1 << Axis.I` set if the value depends on i, and likewise for j; on both, if it
    depends on a variable of pairs.
    """

    __slots__ = ("__weakref__", "args", "dim", "kinds", "op", "params")

    op: Op
    args: tuple[Node, ...]
    params: Params
    dim: int
    kinds: int

    operators: dict[str, Callable[..., Node]] = {}

    def __repr__(self) -> str:
        from .show import formula_text

        return formula_text(self)

    @property
    def variable(self) -> Variable:
        """The parameters of a variable; of no other node."""
        return cast("Variable", self.params)  # those of Var, by `ops.table.build`

    def __add__(self, other: object) -> Node:
        return Node.operators["+"](self, other)

    def __radd__(self, other: object) -> Node:
        return Node.operators["+"](other, self)

    def __sub__(self, other: object) -> Node:
        return Node.operators["-"](self, other)

    def __rsub__(self, other: object) -> Node:
        return Node.operators["-"](other, self)

    def __mul__(self, other: object) -> Node:
        return Node.operators["*"](self, other)

    def __rmul__(self, other: object) -> Node:
        return Node.operators["*"](other, self)

    def __truediv__(self, other: object) -> Node:
        return Node.operators["/"](self, other)

    def __rtruediv__(self, other: object) -> Node:
        return Node.operators["/"](other, self)

    def __or__(self, other: object) -> Node:
        return Node.operators["|"](self, other)

    def __pow__(self, other: object) -> Node:
        return Node.operators["**"](self, other)

    def __neg__(self) -> Node:
        return Node.operators["neg"](self)

    def __reduce__(self) -> tuple[object, ...]:
        from .show import formula_text

        raise TypeError(
            f"graph nodes are not picklable; pickle the text instead: {formula_text(self)}"
        )


Key = tuple["Op", tuple[Node, ...], Params]


class _Reference(weakref.ref[Node]):
    """A weak reference that knows where it is in the table."""

    __slots__ = ("key",)

    key: Key


_interned: dict[Key, _Reference] = {}


def _forget(reference: _Reference) -> None:
    _remove_dead_weakref(_interned, reference.key)


def intern_node(op: Op, args: tuple[Node, ...], params: Params, dim: int, kinds: int) -> Node:
    """The one node for this operation, these arguments and these parameters.

    Each use of the table is one step for the interpreter, so no lock can be left closed.
    """
    key = (op, args, params)
    reference = _interned.get(key)
    found = None if reference is None else reference()
    if found is not None:
        return found
    node = Node()
    node.op, node.args, node.params, node.dim, node.kinds = op, args, params, dim, kinds
    mine = _Reference(node, _forget)
    mine.key = key
    while True:
        reference = _interned.setdefault(key, mine)
        found = reference()
        if found is not None:
            return found
        _remove_dead_weakref(_interned, key)


def topological(roots: Iterable[Node]) -> list[Node]:
    """All nodes below `roots`, arguments before users, each once."""
    order: list[Node] = []
    seen: set[Node] = set()
    stack: list[tuple[Node, bool]] = [(root, False) for root in reversed(list(roots))]
    while stack:
        node, ready = stack.pop()
        if ready:
            order.append(node)
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            stack.extend((arg, False) for arg in reversed(node.args) if arg not in seen)
    return order


def depends_on(roots: Sequence[Node], leaves: Iterable[Node]) -> set[Node]:
    """The nodes below `roots` whose value involves one of `leaves` (the leaves included)."""
    wanted = set(leaves)
    found: set[Node] = set()
    for node in topological(roots):
        if node in wanted or any(arg in found for arg in node.args):
            found.add(node)
    return found
