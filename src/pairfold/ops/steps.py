"""Graphs as lists of steps, arguments before users, and as text that any process can read back.

Nodes are interned and are not written as they are. A list of steps has as many entries as the graph
has nodes, however often they are shared, and its depth does not matter.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from fractions import Fraction

from ..core.node import Node, topological
from ..errors import FormulaError
from ..settings import settings
from .table import OPERATIONS, build

# An operation's name, the places of its arguments among the steps before, its parameters; instead
# of a variable that the caller names, "Var" and its number.
Step = tuple[str, tuple[int, ...], tuple[object, ...]]
Steps = tuple[tuple[Step, ...], tuple[int, ...]]


def steps_of(roots: Sequence[Node], variables: Mapping[Node, int]) -> Steps:
    """Graphs as steps, and the places of the roots among them."""
    order = topological(roots)
    places = {node: place for place, node in enumerate(order)}
    steps: list[Step] = []
    for node in order:
        if node in variables:
            steps.append(("Var", (variables[node],), ()))
        else:
            steps.append((node.op.name, tuple(places[arg] for arg in node.args), node.params))
    return tuple(steps), tuple(places[root] for root in roots)


def graphs_of(steps: Steps, variables: Sequence[Node]) -> list[Node]:
    """The graphs of `steps_of`, on these variables; what was simplified is not simplified again."""
    nodes: list[Node] = []
    with settings(rules="exact"):
        for name, places, params in steps[0]:
            if name == "Var" and not params:
                nodes.append(variables[places[0]])
            else:
                nodes.append(build(OPERATIONS[name], *(nodes[place] for place in places), *params))
    return [nodes[place] for place in steps[1]]


def written(value: object) -> str:
    """Numbers, fractions, text, sequences and mappings as one line of JSON.

    >>> written({"a": (Fraction(1, 3), "inf")})
    '{"a":[{"fraction":"1/3"},"inf"]}'
    """
    return json.dumps(value, default=_fraction, separators=(",", ":"), sort_keys=True)


def read(text: str) -> object:
    """What `written` wrote, sequences as tuples.

    Raises:
        FormulaError: text that is no JSON.
    """
    try:
        return _tuples(json.loads(text, object_hook=_of_fraction))
    except (ValueError, TypeError, RecursionError, ZeroDivisionError) as error:
        raise FormulaError(
            "this is no reduction as `identity` writes it", found=str(error)
        ) from error


def _fraction(value: object) -> dict[str, str]:
    if isinstance(value, Fraction):
        return {"fraction": str(value)}
    raise TypeError(f"{type(value).__name__} cannot be written")


def _of_fraction(found: dict[str, str]) -> object:
    return Fraction(found["fraction"]) if set(found) == {"fraction"} else found


def _tuples(value: object) -> object:
    if isinstance(value, list):
        return tuple(map(_tuples, value))  # pyright: ignore[reportUnknownArgumentType]
    if isinstance(value, dict):
        return {key: _tuples(part) for key, part in value.items()}  # pyright: ignore
    return value
