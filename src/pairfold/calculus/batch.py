"""A formula for many vectors at once, as one graph: what Jacobians and traces are made of.

A *batch* of n vectors of dimension d is one vector of dimension n*d, one after the other. A graph
is applied to a batch node by node: component-wise operations as they are, sums by rows of their
own, any other operation by a row derived from its own that reads each vector in its place. The
graph does not grow with n: vectors are components, and many components are a loop. Derivatives
follow: the pull-back of a batch is the batch of pull-backs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar, cast

import numpy as np

from ..core.cache import Cache, Limit
from ..core.node import Axis, Node, topological
from ..core.scalars import Index, Reader, Scalars, Value
from ..errors import refuse
from ..ops.table import OPERATIONS, Op, Param, Rule, build, constant, operation, variable
from ..ops.vectors import zero

_R = TypeVar("_R")

# ----- rows that move between a vector and a batch -----------------------------------------------


def _nothing(row: str, dim: Callable[[int, int], int]) -> Rule:
    return Rule(f"{row}(0, n) -> 0", lambda x, n: zero(dim(x.dim, n)) if x.op is zero else None)


def _blocks(d: int, n: int) -> int:
    """The dimension of each of n vectors."""
    if n < 1 or d % n:
        refuse(f"a vector of dimension {d} is not {n} vectors of one dimension")
    return d // n


def _several(n: int) -> int:
    return n if n >= 1 else refuse("a vector has at least one component")


def _same(row: str) -> Rule:
    return Rule(f"{row}(x, 1) -> x", lambda x, n: x if n == 1 else None)


_COUNT = [Param("n", 3)]

tile = operation(
    "Tile",
    "x",
    "The vector x, n times one after the other.",
    params=_COUNT,
    dims=lambda d, n: d * _several(n),
    value=lambda s, k, x, n: x(k % x.dim),
    pullback=lambda g, out, x, n: [sum_of_blocks(g, n)],
    rules=[_same("Tile"), _nothing("Tile", lambda d, n: d * n)],
    like=lambda x, n: np.concatenate([x] * n, axis=-1),
    refuses=[((3,), (0,), "at least one component")],
    derivative="sum of the n parts of the incoming gradient",
    samples=((1,), (2,), (17,)),
)

stretch = operation(
    "Stretch",
    "x",
    "Every component of x, n times in a row.",
    params=_COUNT,
    dims=lambda d, n: d * _several(n),
    value=lambda s, k, x, n: x(k // n),
    pullback=lambda g, out, x, n: [block_sums(g, x.dim)],
    rules=[_same("Stretch"), _nothing("Stretch", lambda d, n: d * n)],
    like=lambda x, n: np.repeat(x, n, axis=-1),
    refuses=[((3,), (0,), "at least one component")],
    derivative="sums of n components of the incoming gradient each",
    samples=((1,), (2,), (17,)),
)

sum_of_blocks = operation(
    "SumOfBlocks",
    "x",
    "The sum of the n equally long parts of x.",
    params=_COUNT,
    dims=_blocks,
    value=lambda s, k, x, n: s.sum(n, lambda m: x(m * (x.dim // n) + k)),
    pullback=lambda g, out, x, n: [tile(g, n)],
    rules=[
        _same("SumOfBlocks"),
        _nothing("SumOfBlocks", lambda d, n: d // n),
        Rule(
            "SumOfBlocks(Diag(x), dim x) -> x",
            lambda x, n: x.args[0] if x.op is diag and x.args[0].dim == n else None,
        ),
    ],
    like=lambda x, n: x.reshape(*x.shape[:-1], n, -1).sum(-2),
    refuses=[((5,), (3,), "not 3 vectors")],
    derivative="the incoming gradient, n times",
    samples=((3,), (6,), (51,)),
    sized=lambda d: ((3 * d,), (3,)),
)

block_sums = operation(
    "BlockSums",
    "x",
    "The sum of the components of each of the n equally long parts of x.",
    params=_COUNT,
    dims=lambda d, n: n if _blocks(d, n) else 0,
    value=lambda s, k, x, n: s.sum(x.dim // n, lambda m: x(k * (x.dim // n) + m)),
    pullback=lambda g, out, x, n: [stretch(g, x.dim // n)],
    rules=[
        Rule("BlockSums(x, dim x) -> x", lambda x, n: x if n == x.dim else None),
        _nothing("BlockSums", lambda d, n: n),
        Rule(
            "BlockSums(Diag(x), dim x) -> x",
            lambda x, n: x.args[0] if x.op is diag and x.args[0].dim == n else None,
        ),
    ],
    like=lambda x, n: x.reshape(*x.shape[:-1], n, -1).sum(-1),
    refuses=[((5,), (3,), "not 3 vectors")],
    derivative="components of the incoming gradient, repeated",
    samples=((3,), (6,), (51,)),
    sized=lambda d: ((3 * d,), (3,)),
)


def _on_diagonal(s: Scalars, k: Index, x: Reader) -> Value:
    n = x.dim
    row, column = k // n, k % n
    if isinstance(row, int) and isinstance(column, int):
        return x(row) if row == column else s.constant(0)
    return s.select(s.eq(s.position(row), s.position(column)), x(row), 0)


diag = operation(
    "Diag",
    "x",
    "The square matrix with x on its diagonal, row by row.",
    dims=lambda d: d * d,
    value=_on_diagonal,
    pullback=lambda g, out, x: [diagonal(g)],
    rules=[
        Rule("Diag(x) -> x for one component", lambda x: x if x.dim == 1 else None),
        Rule("Diag(0) -> 0", lambda x: zero(x.dim**2) if x.op is zero else None),
    ],
    like=lambda x: (x[..., None] * np.eye(x.shape[-1])).reshape(*x.shape[:-1], -1),
    derivative="the diagonal of the incoming gradient",
    samples=((1,), (3,), (7,)),
    sized=lambda d: ((d,), ()) if d <= 100 else None,
)


def _side(d: int) -> int:
    n = round(d**0.5)
    return n if n * n == d else refuse(f"{d} components are not those of a square matrix")


diagonal = operation(
    "Diagonal",
    "x",
    "The diagonal of a square matrix given row by row.",
    dims=_side,
    value=lambda s, k, x: x(k * (_side(x.dim) + 1)),
    pullback=lambda g, out, x: [diag(g)],
    rules=[
        Rule("Diagonal(x) -> x for one component", lambda x: x if x.dim == 1 else None),
        Rule("Diagonal(0) -> 0", lambda x: zero(_side(x.dim)) if x.op is zero else None),
        Rule("Diagonal(Diag(x)) -> x", lambda x: x.args[0] if x.op is diag else None),
    ],
    like=lambda x: x[..., :: _side(x.shape[-1]) + 1],
    refuses=[((3,), (), "square matrix")],
    derivative="the incoming gradient on the diagonal, 0 elsewhere",
    samples=((1,), (9,), (49,)),
    sized=lambda d: ((d * d,), ()) if d <= 100 else None,
)

# ----- any operation, on each vector of a batch --------------------------------------------------


class _Vector:
    """Reads one vector of a batch; what a row is given for that operand."""

    __slots__ = ("block", "dim", "reader")

    def __init__(self, reader: Reader, block: Index, count: int) -> None:
        self.reader, self.block, self.dim = reader, block, reader.dim // count

    def __call__(self, k: Index) -> Value:
        return self.reader(self.block * self.dim + (0 if self.dim == 1 else k))


_each: Cache[Op] = Cache(Limit("operations of batches", 1024))


def each(op: Op, batched: tuple[bool, ...]) -> Op:
    """The row of `op` on each of n vectors: n is its first parameter.

    `batched` says which operands are batches; the others are the same vector for all.
    """
    return _each.of((op, batched), lambda: _derived(op, batched))


# What a derived row is given: for each operand what a rule reads of it, the count, the parameters.
_Parts = tuple[tuple[_R, ...], int, tuple[object, ...]]


def _parts(given: tuple[object, ...], arity: int) -> tuple[object, ...]:
    return given[:arity], given[arity], given[arity + 1 :]


def _derived(op: Op, batched: tuple[bool, ...]) -> Op:
    arity = len(op.args)

    def dims(*rest: object) -> int:
        sizes, count, params = cast("_Parts[int]", _parts(rest, arity))
        single = (d // count if b else d for d, b in zip(sizes, batched, strict=True))
        return count * op.dims(*single, *params)

    def value(s: Scalars, k: Index, *rest: object) -> Value:
        readers, count, params = cast("_Parts[Reader]", _parts(rest, arity))
        dim = dims(*(reader.dim for reader in readers), count, *params) // count
        block: Index = k if dim == 1 else k // dim
        vectors = (
            _Vector(reader, block, count) if b else reader
            for reader, b in zip(readers, batched, strict=True)
        )
        assert op.value is not None
        return op.value(s, 0 if dim == 1 else k % dim, *vectors, *params)

    def pullback(g: Node, out: Node, *rest: object) -> list[Node | None]:
        operands, count, params = cast("_Parts[Node]", _parts(rest, arity))
        return _pulled_each(op, batched, g, out, operands, count, params)

    return replace(
        op,
        name=f"Each{op.name}",
        says=f"{op.name}, for each vector of a batch.",
        dims=dims,
        value=value,
        pullback=None if op.pullback is None else pullback,
        params=(Param("count", 3), *op.params),
        # What is said of single vectors alone.
        rules=(),
        symbol=None,
        method=None,
        like=None,
        known=(),
        refuses=(),
        sized=None,
    )


def _pulled_each(
    op: Op,
    batched: tuple[bool, ...],
    g: Node,
    out: Node,
    operands: Sequence[Node],
    count: int,
    params: Sequence[object],
) -> list[Node | None]:
    """The row's own pull-back, written for one vector and then applied to the batch."""
    many = (True, True, *batched)
    whole = (g, out, *operands)
    single = [
        placeholder(place, node.dim // count if b else node.dim)
        for place, (node, b) in enumerate(zip(whole, many, strict=True))
    ]
    images = dict(zip(single, zip(whole, many, strict=True), strict=True))
    assert op.pullback is not None
    found: list[Node | None] = []
    for part, b in zip(op.pullback(*single, *params), batched, strict=True):
        if part is None:
            found.append(None)
            continue
        sent = on_batch(part, images, count)
        found.append(sent if b else sum_of_blocks(sent, count))
    return found


def placeholder(place: int, dim: int) -> Node:
    """A variable that stands for something to be put in its place (never an argument)."""
    return variable(-2 - place, dim, Axis.PARAMETER)


def on_batch(root: Node, images: Mapping[Node, tuple[Node, bool]], count: int) -> Node:
    """The graph with nodes replaced, of which those marked True are batches of `count` vectors.

    The result is a batch, too: n equal vectors if no batch takes part.
    """
    found: dict[Node, tuple[Node, bool]] = dict(images)
    for node in topological([root]):
        if node in found:
            continue
        args = [found[arg] for arg in node.args]
        if any(b for _, b in args):
            found[node] = _apply(node, args, count), True
        elif any(image is not arg for (image, _), arg in zip(args, node.args, strict=True)):
            found[node] = build(node.op, *(image for image, _ in args), *node.params), False
        else:
            found[node] = node, False
    image, batch = found[root]
    return image if batch else tile(image, count)


_INTERLEAVED = {"Complex", "ComplexReal", "ComplexImag"}


def _apply(node: Node, args: Sequence[tuple[Node, bool]], count: int) -> Node:
    """One node of the graph, on operands of which some are batches."""
    op = node.op
    if op.elementwise:
        found = _of_diagonals(node, args, count)
        if found is not None:
            return found
        operands = [
            _spread(image, batch, arg.dim, node.dim, count)
            for (image, batch), arg in zip(args, node.args, strict=True)
        ]
        return build(op, *operands, *node.params)
    if op.name in _INTERLEAVED:
        operands = [image if batch else tile(image, count) for image, batch in args]
        return build(op, *operands)
    if op.name == "Sum":
        return block_sums(args[0][0], count)
    if op.name == "SumT":
        return stretch(args[0][0], node.params[0])
    row = each(op, tuple(batch for _, batch in args))
    return build(row, *(image for image, _ in args), count, *node.params)


def _spread(image: Node, batch: bool, dim: int, wanted: int, count: int) -> Node:
    """An operand of dimension `dim` next to a batch of vectors of the wanted dimension."""
    if batch:
        return stretch(image, wanted) if dim < wanted else image
    return tile(image, count) if dim > 1 else image


_LINEAR_TOGETHER = {"Add", "Subtract", "Minus"}


def _of_diagonals(node: Node, args: Sequence[tuple[Node, bool]], count: int) -> Node | None:
    """An operation on diagonal matrices that gives one: it acts on the diagonals."""
    name = node.op.name
    if node.dim != count or any(b and image.op is not diag for image, b in args):
        return None
    batches = [b for _, b in args]
    if name == "Mult":
        fits = batches.count(True) == 1
    elif name == "Divide":
        fits = not batches[1]
    elif name == "IfElse":
        rest = [image for image, b in args[1:] if not b]
        fits = not batches[0] and all(image.op is zero for image in rest)
    else:
        fits = name in _LINEAR_TOGETHER and all(batches)
    if not fits:
        return None
    operands = (image.args[0] if b else image for image, b in args)
    return diag(build(node.op, *operands, *node.params))


def ones(dim: int) -> Node:
    """A vector of ones."""
    return OPERATIONS["SumT"](constant(1), dim)
