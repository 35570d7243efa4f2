"""Derivatives of graphs, as graphs.

The pull-back walks the graph once from the result to the variables, adding up what each row's
`pullback` sends to its arguments. Forward mode needs no second set of rules: the pull-back is
linear in the incoming gradient, so the derivative along a direction t is the pull-back of the
pull-back, taken with respect to a placeholder that then disappears (transposing twice).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..core.node import Axis, Node, depends_on, topological
from ..errors import DerivativeError, InternalError
from ..ops.table import (
    any_selected,
    fit,
    guard_of,
    guarded,
    signature,
    sum_of_gradients,
    variable,
)
from ..ops.vectors import zero


def pull_back(f: Node, wrt: Sequence[Node], g: Node) -> list[Node | None]:
    """For each variable v of `wrt`, the node of (df/dv)^T g; None where f does not involve v.

    `g` has the dimension of `f`; each result has that of its variable.

    Raises:
        DerivativeError: when an operation on the way has no derivative.
    """
    if g.dim != f.dim:
        raise InternalError(f"a gradient of dimension {g.dim} was sent into dimension {f.dim}")
    active = depends_on([f], wrt)
    gradients: dict[Node, Node] = {f: g}
    found: dict[Node, Node] = {}
    for node in reversed(topological([f])):
        incoming = gradients.pop(node, None)
        if incoming is None or node not in active:
            continue
        if node in wrt:
            found[node] = incoming
            continue
        if node.op.pullback is None:
            raise DerivativeError(f"{node.op.name} has no derivative", found=signature(node.op))
        for arg, part in zip(node.args, _sent(node, incoming), strict=True):
            if part is None or arg not in active:
                continue
            if part.dim != arg.dim:
                raise InternalError(f"the pull-back of {node.op.name} has dimension {part.dim}")
            known = gradients.get(arg)
            gradients[arg] = part if known is None else sum_of_gradients(known, part)
    return [found.get(v) for v in wrt]


def _sent(node: Node, incoming: Node) -> Sequence[Node | None]:
    """What a node passes on to its arguments; a selection stays outermost.

    Pull-backs are linear, so they may be taken inside the selection by a scalar: a NaN slope that
    belongs to a branch that was not selected then never meets the gradient. Rows that work
    component by component, or move components, select component by component; the others mix
    them, and what they pass on is 0 where no component was selected.
    """
    assert node.op.pullback is not None
    guard = guard_of(incoming)
    if guard is None or (guard[0].dim != 1 and node.op.elementwise):
        return node.op.pullback(incoming, node, *node.args, *node.params)
    condition, value, chosen = guard
    if condition.dim != 1:
        parts = node.op.pullback(incoming, node, *node.args, *node.params)
        return [_kept_guarded(part, condition, chosen) for part in parts]
    value = fit(value, incoming.dim)
    parts = node.op.pullback(value, node, *node.args, *node.params)
    return [None if part is None else guarded(condition, part, chosen) for part in parts]


def _kept_guarded(part: Node | None, condition: Node, chosen: bool) -> Node | None:
    if part is None or guard_of(part) is not None:
        return part
    return guarded(any_selected(condition, chosen), part)


_PLACEHOLDER = -1


def push_forward(f: Node, tangents: Mapping[Node, Node]) -> Node:
    """The derivative of f when each variable v moves along tangents[v]: sum of (df/dv) t."""
    placeholder = variable(_PLACEHOLDER, f.dim, Axis.PARAMETER)
    wrt = list(tangents)
    total: Node | None = None
    for v, transposed in zip(wrt, pull_back(f, wrt, placeholder), strict=True):
        if transposed is None:
            continue
        part = pull_back(transposed, [placeholder], tangents[v])[0]
        if part is not None:
            total = part if total is None else total + part
    if total is None:
        return zero(f.dim)
    if placeholder in topological([total]):
        raise InternalError(f"a pull-back in {f} is not linear in the incoming gradient")
    return total
