"""Random well-typed formulas with an independent meaning: the rows' `like` functions on arrays.

`random_formula(rng)` and the hypothesis strategy `formulas()` make the same kind of thing. Each
draw is a choice among n, where choice 0 is the simplest, so hypothesis shrinks well. Operands are
kept inside the domain that their row declares by squashing them with sines. The dense evaluation
never looks at a row's `value`, `expand` or `pullback`: Grad and Diff are difference quotients.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from hypothesis import strategies as st

import pairfold.calculus.operators  # noqa: F401 (registers Grad and Diff)
from pairfold.core.node import Axis, Node, topological
from pairfold.errors import DerivativeError
from pairfold.ops.table import OPERATIONS, Op, build, constant, variable

Array = Any
Choose = Callable[[int], int]

DIMS = (1, 3, 2, 17)
NUMBERS = (2, Fraction(1, 2), -1, 3, 0, Fraction(1, 3), Fraction(-5, 4))
KINKED = {"Abs", "ReLU", "Clamp", "ClampInt", "IfElse", "Mod", "Max", "Min", "BSpline"}
KINKED |= {"Maximum", "Minimum"}
JUMPS = {"Mod"}  # beside the rows whose derivative is 0
_LEAVES = {"Var", "Constant"}
_CALCULUS = ("Grad", "Diff")
_LIMIT = 4.0

# Central differences of order 8: the derivative is the sum of weight * f(x + steps*h) / h.
_STEP = 2.0**-8
_STENCIL = ((1, 4 / 5), (2, -1 / 5), (3, 4 / 105), (4, -1 / 280))


class Point:
    """One argument array per position, and the values already found from them."""

    def __init__(self, arrays: Mapping[int, Array]) -> None:
        self.arrays = dict(arrays)
        self.known: dict[int, Array] = {}

    def moved(self, position: int, by: Array) -> Point:
        """The point with one argument moved."""
        return Point({**self.arrays, position: self.arrays[position] + by})


@dataclass(frozen=True, eq=False)
class Term:
    """A sub-formula and what it means on arrays of shape (M or 1, N or 1, dim)."""

    node: Node
    meaning: Callable[[Point], Array]
    smooth: bool = True

    def at(self, point: Point) -> Array:
        """The values at a point, found once."""
        if id(self) not in point.known:
            with np.errstate(all="ignore"):
                point.known[id(self)] = self.meaning(point)
        return point.known[id(self)]


@dataclass(frozen=True, eq=False)
class Formula:
    """A formula, the arguments it may use (position, dim, kind), and its dense meaning."""

    node: Node
    declared: tuple[tuple[int, int, Axis], ...]
    term: Term
    differentiates: bool

    @property
    def variables(self) -> tuple[Node, ...]:
        """The variable at each position."""
        return tuple(variable(*fields) for fields in self.declared)

    def arrays(self, rng: np.random.Generator, rows: int, columns: int) -> dict[int, Array]:
        """Random arguments: (rows, dim), (columns, dim) or (dim,), within [-1, 1]."""
        count = {Axis.I: (rows,), Axis.J: (columns,), Axis.PARAMETER: ()}
        return {p: rng.uniform(-1, 1, (*count[kind], dim)) for p, dim, kind in self.declared}

    def pairs(self, arrays: Mapping[int, Array], rows: int, columns: int) -> Array:
        """The formula at every pair: (rows, columns, dim)."""
        point = Point({p: _spread(arrays[p], kind) for p, _, kind in self.declared})
        return np.broadcast_to(self.term.at(point), (rows, columns, self.node.dim))

    def oracle(
        self, arrays: Mapping[int, Array], rows: int, columns: int, kept: Axis = Axis.I
    ) -> Array:
        """The sum over the index that is not kept: (rows, dim), or (columns, dim) for J."""
        return self.pairs(arrays, rows, columns).sum(axis=1 if kept == Axis.I else 0)

    def __repr__(self) -> str:
        return f"{self.node} with {self.declared}"


def _spread(array: Array, kind: Axis) -> Array:
    array = np.asarray(array, dtype=float)
    if kind == Axis.PARAMETER:
        return array[None, None, :]
    return array[:, None, :] if kind == Axis.I else array[None, :, :]


def dense(op: Op, operands: Sequence[Array], params: Sequence[Any] = ()) -> Array:
    """A row's `like` on arrays (M or 1, N or 1, dim), whose leading axes are made to agree."""
    assert op.like is not None
    if operands:
        leading = np.broadcast_shapes(*(array.shape[:-1] for array in operands))
        operands = [np.broadcast_to(a, (*leading, a.shape[-1])) for a in operands]
    with np.errstate(all="ignore"):
        found = np.asarray(op.like(*operands, *params), dtype=float)
    return found if operands else found.reshape(1, 1, -1)


def operand_values(op: Op, name: str, rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Random values of one operand, inside the row's domain.

    Knots increase, and the point of a spline keeps away from them.
    """
    if op.name == "BSpline":
        start = np.arange(shape[-1]) if name == "knots" else rng.integers(1, 7, shape) + 0.5
        return start + rng.uniform(-0.2, 0.2, shape)
    return rng.uniform(*op.domain.get(name, (-2, 2)), shape)


def drawable(op: Op) -> bool:
    """Whether random formulas may contain the row."""
    return op.name not in _LEAVES and op.name not in _CALCULUS and op.like is not None


# ----- building terms ----------------------------------------------------------------------------


def variable_term(position: int, dim: int, kind: Axis) -> Term:
    """An argument of the call."""
    return Term(variable(position, dim, kind), lambda point: point.arrays[position])


def number_term(value: int | Fraction) -> Term:
    """A number."""
    return Term(constant(value), lambda point: np.full((1, 1, 1), float(value)))


def apply_term(name: str, *operands: Term, params: Sequence[Any] = ()) -> Term:
    """An operation applied to terms; its meaning is the row's `like`."""
    op = OPERATIONS[name]
    node = build(op, *(term.node for term in operands), *params)
    smooth = name not in KINKED and op.derivative != "0" and all(t.smooth for t in operands)
    return Term(node, lambda point: dense(op, [t.at(point) for t in operands], params), smooth)


def gradient_term(f: Term, v: Term, e: Term) -> Term:
    """Grad(f, v, e), meaning difference quotients of f."""
    position, dim, _ = v.node.params

    def meaning(point: Point) -> Array:
        weight = e.at(point)
        steps = [_difference(f, point, position, unit) for unit in np.eye(dim)]
        return np.stack([(weight * step).sum(-1) for step in steps], axis=-1)

    node = build(OPERATIONS["Grad"], f.node, v.node, e.node)
    return Term(node, meaning, f.smooth and e.smooth)


def directional_term(f: Term, v: Term, t: Term) -> Term:
    """Diff(f, v, t), meaning difference quotients of f along t."""
    position = v.node.params[0]

    def meaning(point: Point) -> Array:
        return _difference(f, point, position, t.at(point))

    node = build(OPERATIONS["Diff"], f.node, v.node, t.node)
    return Term(node, meaning, f.smooth and t.smooth)


def _difference(f: Term, point: Point, position: int, direction: Array) -> Array:
    total: Array = 0.0
    for steps, weight in _STENCIL:
        by = direction * (steps * _STEP)
        ahead, behind = f.at(point.moved(position, by)), f.at(point.moved(position, -by))
        total = total + weight * (ahead - behind)
    return total / _STEP


def within(term: Term, low: float, high: float) -> Term:
    """The term squashed into an open interval by a sine."""
    middle = number_term(Fraction((low + high) / 2).limit_denominator(64))
    half = number_term(Fraction((high - low) * 0.48).limit_denominator(64))
    return apply_term("Add", middle, apply_term("Mult", half, apply_term("Sin", term)))


def ramp(dim: int) -> Term:
    """The numbers 0, 1, ... as a vector."""
    found = number_term(0)
    for k in range(1, dim):
        found = apply_term("Concat", found, number_term(k))
    return found


def resized(term: Term, dim: int) -> Term:
    """The term cut, padded or repeated to another dimension."""
    have = term.node.dim
    if have == dim:
        return term
    if have == 1:
        return apply_term("SumT", term, params=(dim,))
    if have > dim:
        return apply_term("Extract", term, params=(have - dim, dim))
    return apply_term("ExtractT", term, params=(dim - have, dim))


# ----- drawing -----------------------------------------------------------------------------------


class _Drawing:
    """One random formula being made by a source of choices."""

    def __init__(self, choose: Choose, rows: Sequence[Op], derivatives: bool) -> None:
        self.choose, self.rows, self.derivatives = choose, rows, derivatives
        kinds = (Axis.I, Axis.J, Axis.PARAMETER, Axis.I, Axis.J)
        count = 2 + choose(4)
        self.declared = tuple((p, DIMS[choose(len(DIMS))], kinds[p]) for p in range(count))
        self.variables = [variable_term(*fields) for fields in self.declared]
        self.made: list[Term] = []
        self.differentiated = False
        rng = np.random.default_rng(0)
        self.probe = Point({p: rng.uniform(-1, 1, (5, 7, dim)) for p, dim, _ in self.declared})

    def pick(self, options: Sequence[Any]) -> Any:
        return options[self.choose(len(options))]

    def term(self, depth: int, dim: int | None = None) -> Term:
        """A term of at most this depth; of dimension `dim` if given."""
        what = self.choose(18) if depth else self.choose(8)
        if what < (2 if depth else 7) or (what == 3 and not self.made):
            found = self.argument(dim)
        elif what == 3 and depth:
            found = self.pick(self.made)
        elif what == 2 or not depth:
            found = number_term(self.pick(NUMBERS))
        elif what < 6 and self.derivatives and not self.differentiated:
            found = self.derivative(depth - 1)
        else:
            found = self.operation(depth - 1, dim)
        return found if dim is None else resized(found, dim)

    def argument(self, dim: int | None) -> Term:
        """A variable, of the wanted dimension if there is one."""
        fitting = [v for v in self.variables if v.node.dim == dim]
        return self.pick(fitting or self.variables)

    def tame(self, term: Term) -> Term:
        """The term itself, or its sine where its values are large."""
        values = term.at(self.probe)
        return term if np.abs(values).max() <= _LIMIT else apply_term("Sin", term)

    def operation(self, depth: int, dim: int | None = None) -> Term:
        op = self.pick(self.rows)
        dims = self.pick(op.samples) if op.args else ()
        if op.elementwise:
            common = dim or self.pick(self.variables).node.dim
            dims = [common if self.choose(3) < 2 else 1 for _ in op.args]
        operands = []
        for name, size in zip(op.args, dims, strict=True):
            jumps = op.derivative == "0" or op.name in JUMPS or name == "condition"
            operand = self.tame(self.term(0 if jumps else depth, size))
            if name == "knots":
                operand = apply_term("Add", ramp(size), within(operand, -0.35, 0.35))
            elif name in op.domain:
                operand = within(operand, *op.domain[name])
            operands.append(operand)
        return self.kept(apply_term(op.name, *operands, params=self.params(op, dims)))

    def params(self, op: Op, dims: Sequence[int]) -> tuple[Any, ...]:
        """Parameters that fit; the row's own samples unless something more varied is known."""
        choose = self.choose
        if op.name == "Extract":
            start = choose(dims[0])
            return start, 1 + choose(dims[0] - start)
        if op.name == "Elem":
            return (choose(dims[0]),)
        if op.name == "Pow":
            return ((2, 3, 1, 0, -1, -2, 5, 19)[choose(8)],)
        if op.name == "Round":
            return ((1, 0, 2, -1)[choose(4)],)
        if op.name in ("SumT", "Zero", "OneHot"):
            return (self.pick(DIMS),)
        return tuple(param.sample for param in op.params)

    def derivative(self, depth: int) -> Term:
        """Grad or Diff of a smooth term, or the term itself if it is not."""
        self.differentiated = True
        f = self.tame(self.term(depth))
        v = self.pick(self.variables)
        if not f.smooth:
            return f
        forward = self.choose(2)
        e = self.tame(self.term(0, v.node.dim if forward else f.node.dim))
        try:
            found = (directional_term if forward else gradient_term)(f, v, e)
        except DerivativeError:
            return f
        return self.kept(found, instead=f)

    def kept(self, term: Term, instead: Term | None = None) -> Term:
        """The term, remembered for another use, or a variable where it is not finite."""
        values = term.at(self.probe)
        if not np.isfinite(values).all() or np.abs(values).max() > 1e6:
            return instead or self.variables[0]
        self.made.append(term)
        return term


def _formula(choose: Choose, depth: int, rows: Sequence[Op] | None, derivatives: bool) -> Formula:
    if rows is None:
        rows = [op for op in OPERATIONS.values() if drawable(op)]
        rows += [op for op in rows if op.symbol and op.symbol.binds > 10] * 4
    drawing = _Drawing(choose, rows, derivatives)
    term = drawing.tame(drawing.term(depth))
    return Formula(term.node, drawing.declared, term, drawing.differentiated)


def random_formula(
    rng: np.random.Generator,
    *,
    depth: int = 4,
    rows: Sequence[Op] | None = None,
    derivatives: bool = True,
) -> Formula:
    """A random formula of at most this depth, over `rows` (default: all that have an oracle).

    Most depend on both i and j.
    """
    while True:
        formula = _formula(lambda n: int(rng.integers(n)), depth, rows, derivatives)
        pairs = formula.node.kinds & 3 == 3
        if len(topological([formula.node])) > 2 and (pairs or rng.integers(8) == 0):
            return formula


@st.composite
def formulas(
    draw: Callable[[Any], Any],
    depth: int = 4,
    rows: Sequence[Op] | None = None,
    derivatives: bool = True,
) -> Formula:
    """Hypothesis strategy of the formulas that `random_formula` makes."""
    return _formula(lambda n: draw(st.integers(0, n - 1)), depth, rows, derivatives)
