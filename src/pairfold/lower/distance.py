"""Squared distances found in a kernel, so that bounds may decide which pairs need evaluation."""

from __future__ import annotations

from dataclasses import dataclass

from ..core.scalars import Value
from .kernel import COLUMN, PAIR, ROW, Kernel


@dataclass(frozen=True)
class Distance:
    """The value of a pair is sum_k (x_k - y_k)^2, or its `root`.

    `row` and `column` are the slots of the first components; the others follow.
    """

    row: int
    column: int
    dim: int
    root: bool


def distance(kernel: Kernel) -> Distance | None:
    """The distance whose smallest values a kernel looks for, if that is all that it does.

    What is ruled out by bounds must not matter to any of its accumulators.
    """
    if kernel.fused or kernel.output_loop is not None:
        return None
    rules = [each.rule for each in kernel.accumulators]
    if not all(rule.selects and rule.identity[0] == "inf" for rule in rules):
        return None
    found = {_distance(kernel, value) for value in kernel.outputs}
    return found.pop() if len(found) == 1 else None


def _distance(kernel: Kernel, value: Value) -> Distance | None:
    root = value.what == "sqrt"
    if root:
        value = value.args[0]
    found = _looped(kernel, value) if value.what == "result" else _written_out(kernel, value)
    return None if found is None else Distance(*found, root)


def summed(value: Value) -> Value | None:
    """What the component loop of a result adds up from 0, if that is all it does."""
    loop = value.loop
    if len(loop.nexts) != 1 or loop.inits[0].what != "const" or loop.inits[0].number != 0:
        return None
    after, carry = loop.nexts[0], loop.carries[0]
    if after.what != "add" or carry not in after.args:
        return None
    return after.args[1] if after.args[0] is carry else after.args[0]


def _looped(kernel: Kernel, value: Value) -> tuple[int, int, int] | None:
    """(row slot, column slot, dim) of a sum that is a component loop."""
    term, loop = summed(value), value.loop
    found = None if term is None else _square(kernel, term)
    if found is None or any(index is not loop.index for _, index in found):
        return None
    return found[0][0], found[1][0], loop.n


def _written_out(kernel: Kernel, value: Value) -> tuple[int, int, int] | None:
    """(row slot, column slot, dim) of a sum whose terms are written out, in any order."""
    terms: list[tuple[int, int]] = []
    todo = [value]
    while todo:
        value = todo.pop()
        if value.what == "add":
            todo += value.args
            continue
        found = _square(kernel, value)
        if found is None or not all(isinstance(index, int) for _, index in found):
            return None
        (row, m), (column, n) = found
        terms.append((row + m, column + n))  # pyright: ignore[reportOperatorIssue]
    terms.sort()
    row, column = terms[0]
    if terms != [(row + k, column + k) for k in range(len(terms))]:
        return None
    return row, column, len(terms)


def _square(kernel: Kernel, value: Value) -> list[tuple[int, object]] | None:
    """(slot, index) of x and of y, if the value is (x - y)^2 or (y - x)^2."""
    if value.what != "mul" or value.args[0] is not value.args[1]:
        return None
    difference = value.args[0]
    if difference.what != "sub":
        return None
    found = [kernel.slot(arg, PAIR) for arg in difference.args if arg.kind == "real"]
    read = {slot[0]: (slot[1], slot[2]) for slot in found if slot is not None}
    return [read[ROW], read[COLUMN]] if read.keys() == {ROW, COLUMN} else None
