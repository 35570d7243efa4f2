"""Nodes as text: formulas that parse back to the same node, and trees that name shared nodes once.

The text of a deep graph can be long, but never exponentially so: a node used several times is
printed once, under a short name, whenever printing it in full would repeat more than a few words.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import cast

from .node import Axis, Node, topological

_ATOM = 100
_UNARY, _POWER, _COMPARISON = 50, 60, 10


def number_text(value: Fraction | str) -> str:
    """A constant as the formula language writes it.

    >>> number_text(Fraction(1, 2)), number_text(Fraction(1, 3)), number_text(Fraction(7))
    ('0.5', 'RatCst(1,3)', '7')
    """
    if isinstance(value, str):
        return {"nan": "(0/0.)", "inf": "1e999", "-inf": "(-1e999)", "-0.0": "(-0.0)"}[value]
    if value.denominator == 1 and abs(value.numerator) < 10**16:
        return str(value.numerator)
    try:
        text = repr(float(value))
    except OverflowError:
        text = "inf"
    if text not in ("inf", "-inf") and Fraction(text) == value:
        return text
    return f"RatCst({value.numerator},{value.denominator})"


def _variable_text(node: Node, names: Mapping[int, str]) -> str:
    position, dim, kind = node.variable
    return names.get(position, f"Var({position},{dim},{int(kind)})")


def _one(node: Node, parts: list[tuple[str, int]], names: Mapping[int, str]) -> tuple[str, int]:
    """The text of a node given that of its arguments, and how tightly it binds."""
    op = node.op
    if op.name == "Var":
        return _variable_text(node, names), _ATOM
    if op.name == "Constant":
        text = number_text(node.params[0])
        return text, _UNARY if text.startswith("-") else _ATOM

    def bracketed(place: int, at_least: int) -> str:
        text, binds = parts[place]
        return text if binds >= at_least else f"({text})"

    if op.name == "Minus":
        return f"-{bracketed(0, _UNARY)}", _UNARY
    if op.symbol is not None and len(parts) == 2:
        binds = op.symbol.binds
        left = binds + 1 if binds == _COMPARISON else binds
        text = f"{bracketed(0, left)}{op.symbol.text}{bracketed(1, binds + 1)}"
        return text, binds
    inner = [text for text, _ in parts]
    inner += map(_param_text, node.params)
    return f"{op.name}({','.join(inner)})", _ATOM


def _param_text(param: object) -> str:
    if isinstance(param, Axis):
        return param.name.lower()
    return str(list(cast("tuple[int, ...]", param)) if isinstance(param, tuple) else param)


def formula_text(root: Node, names: Mapping[int, str] | None = None, limit: int = 400) -> str:
    """The formula as one line; shared parts beyond `limit` characters get names (`t1 := ...`)."""
    names = names or {}
    order = topological([root])
    uses: dict[Node, int] = dict.fromkeys(order, 0)
    for node in order:
        for arg in node.args:
            uses[arg] += 1
    texts: dict[Node, tuple[str, int]] = {}
    lines: list[str] = []
    for node in order:
        text, binds = _one(node, [texts[arg] for arg in node.args], names)
        long = len(text) > limit or (uses[node] > 1 and len(text) > limit // 8)
        if long and node is not root:
            lines.append(f"t{len(lines) + 1} := {text}")
            text, binds = f"t{len(lines)}", _ATOM
        texts[node] = (text, binds)
    return "; ".join([*lines, texts[root][0]])


def tree_text(root: Node, names: Mapping[int, str] | None = None) -> str:
    """The graph as an indented list, one line per node, shared nodes named once."""
    names = names or {}
    numbers = {node: place for place, node in enumerate(topological([root]))}
    lines: list[str] = []
    for node, place in numbers.items():
        if node.op.name == "Var":
            what = _variable_text(node, names)
        else:
            inner = [f"%{numbers[arg]}" for arg in node.args] + [
                number_text(p) if isinstance(p, (Fraction, str)) else str(p) for p in node.params
            ]
            what = f"{node.op.name}({', '.join(inner)})"
        lines.append(f"%{place:<4} = {what:<40} dim {node.dim:<5} {kinds_text(node)}")
    return "\n".join(lines)


def kinds_text(node: Node) -> str:
    """Which indices a node depends on: `i,j`, `i`, `j` or `-`.

    >>> from pairfold.ops.vectors import make_variable
    >>> kinds_text(make_variable(0, 3, 0) * make_variable(1, 3, 1))
    'i,j'
    """
    found = [kind.name.lower() for kind in (Axis.I, Axis.J) if node.kinds >> kind & 1]
    return ",".join(found) or "-"
