"""Graphs with some of their nodes replaced by others."""

from __future__ import annotations

from collections.abc import Mapping

from ..core.node import Node, topological
from ..ops.table import build


def substitute(root: Node, replacements: Mapping[Node, Node]) -> Node:
    """`root` with nodes replaced wherever they occur; what is unchanged is not rebuilt.

    >>> from pairfold.ops.table import variable
    >>> x, y = variable(0, 3, 0), variable(1, 3, 1)
    >>> substitute(x + x * y, {x: y})
    Var(1,3,1)+Square(Var(1,3,1))
    """
    known: dict[Node, Node] = dict(replacements)
    for node in topological([root]):
        if node in known:
            continue
        args = [known[arg] for arg in node.args]
        same = all(new is old for new, old in zip(args, node.args, strict=True))
        known[node] = node if same else build(node.op, *args, *node.params)
    return known[root]
