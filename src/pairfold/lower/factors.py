"""Factors that leave sums: what does not depend on the stage folded over multiplies results."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ..core.scalars import Scalars, Value, reachable

# A product of products that are used twice each, over and over, has too many factors to be listed.
_MOST_FACTORS = 64


def take_factors(
    outputs: Sequence[Value], over: Sequence[int]
) -> tuple[list[Value], list[Value | None]]:
    """Split output = factor * rest, where the factor does not depend on what is folded over.

    `over`: for each output, the stage that it is folded over.

    Sum_j a_i b_ij = a_i Sum_j b_ij: one multiplication per row instead of one per pair. Of what
    is left, the factors that most outputs have come first, so that their product is shared. A
    quotient becomes a product where the reciprocal is computed anyway. The product is
    re-associated, which changes rounding only (and, far outside the dtype's range, where a
    product overflows first).
    """
    known = set(reachable(outputs))
    split = [_factors(output, stage, known) for output, stage in zip(outputs, over, strict=True)]
    count = Counter(factor for _, inside in split for factor in set(inside))
    rests: list[Value] = []
    taken: list[Value | None] = []
    for output, (outside, inside) in zip(outputs, split, strict=True):
        ordered = sorted(inside, key=lambda factor: -count[factor])
        leaves = bool(outside) and bool(inside)
        rest = _product(output.builder, ordered) if leaves or ordered != inside else output
        rests.append(rest)
        taken.append(_product(output.builder, outside) if leaves else None)
    return rests, taken


def _factors(output: Value, over: int, known: set[Value]) -> tuple[list[Value], list[Value]]:
    """(those that do not depend on the stage folded over, the others), with the output's sign.

    `known`: what is computed for some output.
    """
    s = output.builder
    outside: list[Value] = []
    inside: list[Value] = []
    todo = [output]
    while todo:
        value = todo.pop()
        if not value.stage & over:
            outside.append(value)
        elif value.what == "mul" and len(todo) + len(outside) + len(inside) < _MOST_FACTORS:
            todo.extend(reversed(value.args))
        elif value.what == "neg":
            outside.append(s.constant(-1))
            todo.append(value.args[0])
        elif value.what == "div" and not value.args[1].stage & over:
            outside.append(s.apply("div", 1, value.args[1]))
            todo.append(value.args[0])
        elif value.what == "div" and _reciprocal(value) in known and value != _reciprocal(value):
            todo += [_reciprocal(value), value.args[0]]
        else:
            inside.append(value)
    return outside, inside


def _reciprocal(quotient: Value) -> Value:
    return quotient.builder.apply("div", 1, quotient.args[1])


def _product(s: Scalars, values: Sequence[Value]) -> Value:
    product = values[0] if values else s.constant(1)
    for value in values[1:]:
        product = product * value
    return product
