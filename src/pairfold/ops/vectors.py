"""Leaves, and operations that join, cut, sum or repeat vectors.

Sum and SumT are the two halves of broadcasting and each other's pull-back; Extract/ExtractT and
Elem/ElemT likewise. Scalar products, norms and distances are defined by what they mean (a sum of
products): the derivative, the machine code and the simplifications then come from their parts.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from ..core.node import Axis, Node
from ..core.numbers import number
from ..core.scalars import Index, Reader, Scalars, Value
from ..core.wholes import whole_of
from ..errors import refuse
from .table import (
    OPERATIONS,
    Op,
    Param,
    Rule,
    Symbol,
    build,
    fit,
    guard_of,
    guarded,
    operation,
)

# The base of whole numbers that are given by their digits, which every dtype holds.
DIGITS = 256


def _row(name: str, *operands: object) -> Node:
    return build(OPERATIONS[name], *operands)


def _positive(dim: int) -> int:
    return dim if dim >= 1 else refuse("a vector has at least one component")


# ----- leaves ------------------------------------------------------------------------------------

var = operation(
    "Var",
    "",
    "Argument number `position`, a vector of `dim` components: row i, row j, the whole, or (i, j).",
    params=[Param("position", 0), Param("dim", 3), Param("kind", 0)],
    dims=lambda position, dim, kind: _positive(dim),
    derivative="identity with respect to itself",
)

constant = operation(
    "Constant",
    "",
    "A number, exact until it is rounded once to the dtype of the computation.",
    params=[Param("value", Fraction(3, 2), kind="number")],
    dims=lambda value: 1,
    value=lambda s, k, value: s.constant(value),
    pullback=lambda g, out, value: [],
    like=lambda value: np.array([float(value)]),
    internal=True,
)


def _constant(value: int | float | Fraction | str) -> Node:
    return build(constant, number(value))


zero = operation(
    "Zero",
    "",
    "A vector of `n` zeros.",
    params=[Param("n", 3)],
    dims=lambda n: _positive(n),
    value=lambda s, k, n: s.constant(0),
    pullback=lambda g, out, n: [],
    sized=lambda d: ((), (d,)),
    like=lambda n: np.zeros(n),
    refuses=[((), (0,), "at least one component")],
)

ind = operation(
    "Ind",
    "",
    "The number of the pair's row along `axis`, i or j, from 0.",
    params=[Param("axis", Axis.J, kind="axis")],
    dims=lambda axis: 1,
    value=lambda s, k, axis: s.number_along(axis),
    pullback=lambda g, out, axis: [],
    sized=lambda d: ((), (Axis.J,)),
    samples=(),
    conventions="exact in sums, differences, whole multiples and comparisons, whatever the dtype",
)

digits = operation(
    "Digits",
    "x",
    "The whole number whose digits to base 256 are the components of x, the highest first.",
    dims=lambda d: 1,
    value=lambda s, k, x: _of_digits(s, x),
    pullback=lambda g, out, x: [None],
    known=((3, 3),),
    derivative="0",
    conventions="exact, as `Ind`",
    samples=((1,),),
    internal=True,
)


def _of_digits(s: Scalars, x: Reader) -> Value:
    total = whole_of(s, x(0), (0, DIGITS - 1))
    for k in range(1, x.dim):
        total = total * DIGITS + whole_of(s, x(k), (0, DIGITS - 1))
    return total


def _is_whole_number(value: Fraction | str) -> bool:
    return isinstance(value, Fraction) and value.denominator == 1


_WHOLE = {"Add", "Subtract", "Minus", "Mult", "Abs"}


def is_whole(node: Node) -> bool:
    """Whether a formula is made of numbers of rows and of whole numbers alone."""
    todo, some = [node], False
    while todo:
        found = todo.pop()
        if found.op.name in ("Ind", "Digits"):
            some = True
        elif found.op.name in _WHOLE:
            todo += found.args
        elif found.op.name != "Constant" or not _is_whole_number(found.params[0]):
            return False
    return some


int_cst = operation(
    "IntCst",
    "",
    "The whole number `n`.",
    params=[Param("n", 3)],
    dims=lambda n: 1,
    expand=lambda n: _constant(n),
    like=lambda n: np.array([float(n)]),
)

int_inv = operation(
    "IntInv",
    "",
    "The fraction 1/n.",
    params=[Param("n", 3)],
    dims=lambda n: 1,
    expand=lambda n: _constant(Fraction(1, n) if n else refuse("1/0 is not a number")),
    like=lambda n: np.array([1.0 / n]),
    refuses=[((), (0,), "1/0")],
)

rat_cst = operation(
    "RatCst",
    "",
    "The fraction a/b.",
    params=[Param("a", 3), Param("b", 7)],
    dims=lambda a, b: 1,
    expand=lambda a, b: _constant(Fraction(a, b) if b else refuse(f"{a}/0 is not a number")),
    like=lambda a, b: np.array([a / b]),
    refuses=[((), (1, 0), "1/0")],
)

# ----- sums and repetition -----------------------------------------------------------------------


def _sum_of_product(x: Node) -> Node | None:
    """Sum(u*v) -> u*Sum(v) for a scalar u: one multiplication instead of dim v."""
    scalars: list[tuple[Node, bool]] = []
    while x.op.name == "Mult" and x.dim > 1 and 1 in (x.args[0].dim, x.args[1].dim):
        first = x.args[0].dim == 1
        scalar, x = x.args if first else x.args[::-1]
        scalars.append((scalar, first))
    if not scalars:
        return None
    product = summed(x)
    for scalar, first in reversed(scalars):
        product = scalar * product if first else product * scalar
    return product


summed = operation(
    "Sum",
    "x",
    "Sum of the components.",
    dims=lambda d: 1,
    value=lambda s, k, x: s.sum(x.dim, x),
    pullback=lambda g, out, x: [fit(g, x.dim)],
    rules=[
        Rule("Sum(x) -> x for a vector of one component", lambda x: x if x.dim == 1 else None),
        Rule("Sum(0) -> 0", lambda x: zero(1) if x.op is zero else None),
        Rule("Sum(Minus(x)) -> -Sum(x)", lambda x: -summed(x.args[0]) if _is(x, "Minus") else None),
        Rule("Sum(u*v) -> u*Sum(v) for a scalar u", _sum_of_product, "domain"),
    ],
    method="sum",
    like=lambda x: x.sum(-1, keepdims=True),
    derivative="the incoming gradient, repeated",
    samples=((1,), (3,), (17,)),
)

sum_t = operation(
    "SumT",
    "x",
    "A scalar repeated n times.",
    params=[Param("n", 4)],
    dims=lambda d, n: _positive(n) if d == 1 else refuse("only a scalar can be repeated"),
    moves=True,
    value=lambda s, k, x, n: x(0),
    pullback=lambda g, out, x, n: [fit(g, 1)],
    rules=[
        Rule("SumT(x, 1) -> x", lambda x, n: x if n == 1 else None),
        Rule("SumT(0, n) -> 0", lambda x, n: zero(n) if x.op is zero else None),
    ],
    like=lambda x, n: np.repeat(x, n, axis=-1),
    refuses=[((3,), (2,), "only a scalar"), ((1,), (0,), "at least one component")],
    derivative="sum of the incoming gradient",
    samples=((1,),),
    sized=lambda d: ((1,), (d,)),
)


def _is(x: Node, name: str) -> bool:
    return x.op.name == name


# ----- scalar products, norms, distances ---------------------------------------------------------


def _scalar_product(x: Node, y: Node) -> Node:
    if x.dim != y.dim and 1 not in (x.dim, y.dim):
        refuse("needs two vectors of the same dimension", "Extract(y, 0, n) keeps n components")
    return summed(x * y)


scalprod = operation(
    "Scalprod",
    "x y",
    "Scalar product: the sum over components of x*y.",
    dims=lambda dx, dy: 1,
    expand=_scalar_product,
    symbol=Symbol("|", 20),
    like=lambda x, y: (x * y).sum(-1, keepdims=True),
    refuses=[((3, 5), (), "same dimension")],
    derivative="y and x, times the incoming gradient",
    samples=((1, 1), (3, 3), (1, 3), (17, 17)),
)

sq_norm2 = operation(
    "SqNorm2",
    "x",
    "Squared Euclidean norm.",
    dims=lambda d: 1,
    expand=lambda x: summed(_row("Square", x)),
    method="sqnorm2",
    like=lambda x: (x * x).sum(-1, keepdims=True),
    derivative="2*x",
    samples=((1,), (3,), (17,)),
)

norm2 = operation(
    "Norm2",
    "x",
    "Euclidean norm.",
    dims=lambda d: 1,
    expand=lambda x: _row("Sqrt", sq_norm2(x)),
    method="norm2",
    like=lambda x: np.sqrt((x * x).sum(-1, keepdims=True)),
    derivative="x / |x|",
    conventions="the derivative is 0 at x = 0",
    samples=((1,), (3,), (17,)),
)

sq_dist = operation(
    "SqDist",
    "x y",
    "Squared Euclidean distance, computed from the differences (never negative).",
    dims=lambda dx, dy: 1,
    expand=lambda x, y: sq_norm2(x - y),
    method="sqdist",
    like=lambda x, y: ((x - y) ** 2).sum(-1, keepdims=True),
    refuses=[((3, 5), (), "same dimension")],
    derivative="2*(x - y) and 2*(y - x)",
    samples=((1, 1), (3, 3), (1, 3), (17, 17)),
)

# ----- joining and cutting -----------------------------------------------------------------------


def _moved(row: Op, g: Node, *params: int) -> Node:
    """The row applied to a gradient, where a selection in it stays outermost (see `scaled`)."""
    guard = guard_of(g)
    if guard is None:
        return row(g, *params)
    condition, value, chosen = guard
    taken = _row("IfElse", fit(condition, g.dim), *((1, 0) if chosen else (0, 1)))
    return guarded(row(taken, *params) - 1, row(fit(value, g.dim), *params))


def _joined(s: Scalars, k: Index, x: Reader, y: Reader) -> Value:
    dim = x.dim
    return s.choose(
        k,
        dim,
        lambda: x(s.at_most(k, dim - 1)),
        lambda: y(s.at_least(k - dim, 0)),
    )


concat = operation(
    "Concat",
    "x y",
    "The components of x followed by those of y.",
    dims=lambda dx, dy: dx + dy,
    value=_joined,
    pullback=lambda g, out, x, y: [
        _moved(extract, g, 0, x.dim),
        _moved(extract, g, x.dim, y.dim),
    ],
    method="concat",
    like=lambda x, y: np.concatenate([x, y], axis=-1),
    derivative="the matching part of the incoming gradient",
    samples=((1, 1), (3, 2), (1, 17), (17, 3)),
)


def _part(s: Scalars, k: Index, x: Reader, start: int, n: int) -> Value:
    return x(k + start)


def _extract_dim(d: int, start: int, n: int) -> int:
    if n < 1:
        refuse("a vector has at least one component")
    if not 0 <= start <= start + n <= d:
        last = start + n - 1
        refuse(
            f"components {start}..{last} lie outside a vector of dimension {d}",
            f"start from 0 to {d - 1}, and n up to {d} - start",
        )
    return n


def _extract_of_concat(x: Node, start: int, n: int) -> Node | None:
    """A part that lies within one half of a Concat is a part of that half."""
    if not _is(x, "Concat"):
        return None
    first, second = x.args
    if start + n <= first.dim:
        return extract(first, start, n)
    if start >= first.dim:
        return extract(second, start - first.dim, n)
    return None


extract = operation(
    "Extract",
    "x",
    "Components start ... start+n-1 of x.",
    params=[Param("start", 1), Param("n", 2)],
    dims=_extract_dim,
    moves=True,
    value=_part,
    pullback=lambda g, out, x, start, n: [_moved(extract_t, g, start, x.dim)],
    rules=[
        Rule("Extract(x, 0, dim x) -> x", lambda x, start, n: x if n == x.dim else None),
        Rule("Extract(0, start, n) -> 0", lambda x, start, n: zero(n) if x.op is zero else None),
        Rule(
            "Extract(Extract(x, a, b), c, n) -> Extract(x, a+c, n)",
            lambda x, start, n: (
                extract(x.args[0], x.params[0] + start, n) if _is(x, "Extract") else None
            ),
        ),
        Rule("Extract(Concat(x, y), ...) -> Extract of the half it lies in", _extract_of_concat),
    ],
    method="extract",
    like=lambda x, start, n: x[..., start : start + n],
    refuses=[
        ((3,), (2, 2), "outside a vector of dimension 3"),
        ((3,), (-1, 2), "outside a vector"),
        ((3,), (0, 0), "at least one component"),
    ],
    derivative="the incoming gradient, put back in place",
    samples=((3,), (19,)),
    sized=lambda d: ((d,), (d // 3, d - d // 2)),
)


def _padded(s: Scalars, k: Index, x: Reader, start: int, n: int) -> Value:
    dim = x.dim
    inside = lambda: x(s.at_most(s.at_least(k - start, 0), dim - 1))  # noqa: E731
    nothing = lambda: s.constant(0)  # noqa: E731
    return s.choose(k, start, nothing, lambda: s.choose(k, start + dim, inside, nothing))


def _extract_t_dim(d: int, start: int, n: int) -> int:
    if not 0 <= start <= start + d <= n:
        refuse(f"{d} components placed at {start} do not fit in a vector of dimension {n}")
    return n


extract_t = operation(
    "ExtractT",
    "x",
    "A vector of n zeros with x placed at component `start`.",
    params=[Param("start", 1), Param("n", 21)],
    dims=_extract_t_dim,
    value=_padded,
    pullback=lambda g, out, x, start, n: [_moved(extract, g, start, x.dim)],
    rules=[
        Rule("ExtractT(x, 0, dim x) -> x", lambda x, start, n: x if n == x.dim else None),
        Rule("ExtractT(0, start, n) -> 0", lambda x, start, n: zero(n) if x.op is zero else None),
    ],
    like=lambda x, start, n: np.concatenate(
        [
            np.zeros((*x.shape[:-1], start)),
            x,
            np.zeros((*x.shape[:-1], n - start - x.shape[-1])),
        ],
        axis=-1,
    ),
    refuses=[((3,), (1, 3), "do not fit"), ((3,), (-1, 9), "do not fit")],
    derivative="the part of the incoming gradient where x was placed",
    samples=((3,), (17,)),
    sized=lambda d: ((d,), (2, d + 3)),
)

elem = operation(
    "Elem",
    "x",
    "Component m of x.",
    params=[Param("m", 2)],
    dims=lambda d, m: 1,
    expand=lambda x, m: extract(x, m, 1),
    method="elem",
    like=lambda x, m: x[..., m : m + 1],
    refuses=[((3,), (3,), "outside a vector of dimension 3"), ((3,), (-1,), "outside a vector")],
    derivative="the incoming gradient at component m, 0 elsewhere",
    samples=((3,), (19,)),
    sized=lambda d: ((d,), (2 * d // 3,)),
)

elem_t = operation(
    "ElemT",
    "x",
    "A vector of n zeros with the scalar x at component m.",
    params=[Param("n", 5), Param("m", 2)],
    dims=lambda d, n, m: n,
    expand=lambda x, n, m: extract_t(x, m, n) if x.dim == 1 else refuse("x must be a scalar"),
    like=lambda x, n, m: np.concatenate(
        [np.zeros((*x.shape[:-1], m)), x, np.zeros((*x.shape[:-1], n - m - 1))], axis=-1
    ),
    refuses=[((1,), (3, 3), "do not fit"), ((2,), (3, 0), "must be a scalar")],
    derivative="component m of the incoming gradient",
    samples=((1,),),
    sized=lambda d: ((1,), (d, d // 2)),
)


def make_constant(value: int | float | Fraction | str) -> Node:
    """The node of a number, exact."""
    return _constant(value)


def make_variable(position: int, dim: int, kind: int) -> Node:
    """The node of a call argument."""
    return build(var, position, dim, Axis(kind))
