"""Products of matrices found in a kernel: what tensor cores, or blocked loops, compute best."""

from __future__ import annotations

from dataclasses import dataclass

from ..core.scalars import Loop, Value
from .distance import summed
from .kernel import COLUMN, PAIR, ROW, Kernel


@dataclass(frozen=True)
class Product:
    """A long output is `weight` times component k of the column argument at `position`."""

    weight: Value
    position: int


@dataclass(frozen=True)
class Scalar:
    """A sum over `dim` components of a row argument (its position) and a column argument."""

    row: int
    column: int
    dim: int


def output_product(kernel: Kernel) -> Product | None:
    """The product that a long output is, if it is one and its sum is a sum of products."""
    loop = kernel.output_loop
    if loop is None:
        return None
    rule = kernel.only.rule
    if not rule.additive or kernel.only.parts != 1 or not (rule.linear or rule.max_shifted):
        return None
    output = kernel.outputs[0]
    if output.what != "mul":
        return None
    for weight, other in (output.args, output.args[::-1]):
        if other.what != "load" or other.args != (loop.index,):
            continue
        if other.stage == COLUMN and weight.stage == PAIR and loop not in weight.loops:
            return Product(weight, other.loaded.position)
    return None


def scalar_product(value: Value) -> Scalar | None:
    """The scalar product that the result of a component loop is, if it is one."""
    found = _term(value)
    return None if found is None else _factors(*found, *found[0].args)


def squared_distance(value: Value) -> Scalar | None:
    """The factors of sum_k (x_k - y_k)^2, in either order, if a component loop computes that."""
    found = _term(value)
    if found is None or found[0].args[0] is not found[0].args[1]:
        return None
    difference = found[0].args[0]
    return None if difference.what != "sub" else _factors(*found, *difference.args)


def _term(value: Value) -> tuple[Value, Loop] | None:
    """The product of two values that a component loop adds up."""
    if value.what != "result" or value.stage != PAIR:
        return None
    term = summed(value)
    return None if term is None or term.what != "mul" else (term, value.loop)


def _factors(term: Value, loop: Loop, *args: Value) -> Scalar | None:
    if not all(_component(arg, loop) for arg in args):
        return None
    read = {arg.stage: arg.loaded.position for arg in args}
    if read.keys() != {ROW, COLUMN}:
        return None
    return Scalar(read[ROW], read[COLUMN], loop.n)


def _component(value: Value, loop: Loop) -> bool:
    """Whether a value is component k of an argument."""
    return value.what == "load" and value.args == (loop.index,)
