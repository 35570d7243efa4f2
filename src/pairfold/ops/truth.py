"""Truth values: which formulas are one, logic and selection by them.

Comparisons give 1 or 0, and so do products of them (and), 1 minus one (not) and selections between
them; sums of them count. `IfElse` tests numbers for >= 0, which all of these pass: as conditions
they are taken for what they say, true where they are not 0.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import numpy as np

from ..core.node import Node
from ..core.scalars import Scalars, Value
from ..core.truths import made_of_masks
from .table import (
    OPERATIONS,
    broadcast_dims,
    constant,
    elementwise,
    fit,
    guarded,
    operation,
    scaled,
)

_COMPARISONS = {"LessThan", "LessOrEqual", "Equal", "NotEqual", "Step", "DiffClampInt", "OneHot"}
_MOVES = {"SumT", "Elem", "Extract", "Concat", "Complex", "Max", "Min", "Square", "Abs"}


def _row(name: str, *operands: Node | int) -> Node:
    return OPERATIONS[name](*operands)


def _bit(node: Node) -> bool:
    """Whether a node is the number 0 or the number 1."""
    if node.op.name == "Zero":
        return True
    return node.op.name == "Constant" and node.params[0] in (Fraction(0), Fraction(1))


def _parts(node: Node) -> tuple[Node, ...] | None:
    """The nodes that have to be truth values for this one to be one; None where it never is."""
    name = node.op.name
    if name in _COMPARISONS:
        return ()
    if name in _MOVES or name == "Mult":
        return node.args
    if name == "Subtract" and node.args[0].op.name == "Constant":
        return node.args[1:] if node.args[0].params[0] == 1 else None
    if name == "IfElse":
        return tuple(part for part in node.args[1:] if not _bit(part))
    return None


def is_truth(node: Node) -> bool:
    """Whether a formula's values are 0 and 1 by the way it is made."""
    return _all(node, _parts)


def is_count(node: Node) -> bool:
    """Whether a formula is a sum of truth values, or a truth value."""
    return _all(node, lambda x: x.args if x.op.name in ("Add", "Sum") else _parts(x))


def _all(node: Node, parts: Callable[[Node], tuple[Node, ...] | None]) -> bool:
    """Whether a walk from a node to what its nature rests on ends well everywhere."""
    seen, todo = {node}, [node]
    while todo:
        found = parts(todo.pop())
        if found is None:
            return False
        todo += [part for part in found if part not in seen]
        seen.update(found)
    return True


def condition_of(mask: Node) -> Node:
    """A number that is >= 0 where a mask is not 0; NaN is not 0."""
    truth = mask if is_truth(mask) else _row("NotEqual", mask, 0)
    return truth - constant(1)


def holds(s: Scalars, condition: Value) -> Value:
    """Where a condition is >= 0; for a truth value minus 1, where it is true."""
    one = s.constant(1)
    if condition.what == "sub" and condition.args[1] is one:
        mask = made_of_masks(condition.args[0])
        if mask is not None:
            return mask
    return s.le(0, condition)


def _where(mask: Node, x: Node, y: Node) -> Node:
    broadcast_dims(mask.dim, x.dim, y.dim)
    return _row("IfElse", condition_of(mask), x, y)


where = operation(
    "Where",
    "mask x y",
    "x where the mask is not 0, else y.",
    dims=broadcast_dims,
    expand=_where,
    like=lambda mask, x, y: np.where(mask != 0, x, y),
    known=((1, 5, 7, 5), (0, 5, 7, 7), (-1, 5, 7, 5)),
    refuses=[((1, 3, 2), (), "same dimension")],
    derivative="the incoming gradient to the selected branch, 0 to the other and to the mask",
    conventions="a NaN is not 0; the branch not selected never poisons the gradient",
    samples=((1, 1, 1), (3, 3, 3), (1, 3, 3), (3, 1, 3)),
)


# ----- the larger, the smaller -------------------------------------------------------------------


def _extreme(s: Scalars, other: Value, x: Value, y: Value) -> Value:
    """y where that is the one, else x; NaN where one is."""
    return s.select(other, y, s.select(s.eq(y, y), x, y))


def _shared(g: Node, other: Node, x: Node, y: Node) -> Node:
    """The gradient to x: nothing where y is taken, half of it where they are equal."""
    share = scaled(g, constant(1) - constant(Fraction(1, 2)) * _row("Equal", x, y))
    return fit(guarded(condition_of(other), share, False), x.dim)


maximum = elementwise(
    "Maximum",
    "x y",
    "The larger of x and y, component by component.",
    value=lambda s, x, y: _extreme(s, s.lt(x, y), x, y),
    slopes=None,
    pullback=lambda g, out, x, y: [
        _shared(g, _row("LessThan", x, y), x, y),
        _shared(g, _row("LessThan", y, x), y, x),
    ],
    method="maximum",
    like=np.maximum,
    known=((1, 2, 2), (3, -1, 3)),
    derivative="1 to the larger, 1/2 to each where they are equal",
    conventions="NaN where one is; what is not taken never poisons the gradient",
)

minimum = elementwise(
    "Minimum",
    "x y",
    "The smaller of x and y, component by component.",
    value=lambda s, x, y: _extreme(s, s.lt(y, x), x, y),
    slopes=None,
    pullback=lambda g, out, x, y: [
        _shared(g, _row("LessThan", y, x), x, y),
        _shared(g, _row("LessThan", x, y), y, x),
    ],
    method="minimum",
    like=np.minimum,
    known=((1, 2, 1), (3, -1, -1)),
    derivative="1 to the smaller, 1/2 to each where they are equal",
    conventions="NaN where one is; what is not taken never poisons the gradient",
)

# ----- logic -------------------------------------------------------------------------------------


def _truth_of(mask: Node) -> Node:
    """1 where a mask is not 0, else 0."""
    return mask if is_truth(mask) else _row("NotEqual", mask, 0)


_LOGIC_CONVENTIONS = "truth values stand for themselves, other numbers hold where they are not 0"

logical_and = operation(
    "LogicalAnd",
    "x y",
    "1 where both x and y hold, else 0.",
    dims=broadcast_dims,
    expand=lambda x, y: _truth_of(x) * _truth_of(y),
    method="logical_and",
    like=lambda x, y: 1.0 * np.logical_and(x, y),
    known=((1, 2, 1), (0, 3, 0), (0, 0, 0)),
    derivative="0",
    conventions=_LOGIC_CONVENTIONS,
    samples=((1, 1), (3, 3), (1, 3)),
)

logical_or = operation(
    "LogicalOr",
    "x y",
    "1 where x or y holds, else 0.",
    dims=broadcast_dims,
    expand=lambda x, y: _where(x, constant(1), _truth_of(y)),
    method="logical_or",
    like=lambda x, y: 1.0 * np.logical_or(x, y),
    known=((1, 2, 1), (0, 3, 1), (0, 0, 0)),
    derivative="0",
    conventions=_LOGIC_CONVENTIONS,
    samples=((1, 1), (3, 3), (1, 3)),
)

logical_not = operation(
    "LogicalNot",
    "x",
    "1 where x does not hold, else 0.",
    dims=lambda d: d,
    expand=lambda x: constant(1) - x if is_truth(x) else _row("Equal", x, 0),
    method="logical_not",
    like=lambda x: 1.0 * np.logical_not(x),
    known=((1, 0), (0, 1), (-2, 0)),
    derivative="0",
    conventions=_LOGIC_CONVENTIONS,
    samples=((1,), (3,)),
)
