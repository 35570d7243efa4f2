"""Differential operators that formulas may contain: each is replaced by its derivative's graph.

Matrices are never written out entry by entry: a Jacobian is the pull-back of a batch of unit
vectors (`calculus.batch`), and a trace reads only its diagonal. Where an operator needs a formula
that is linear in a variable, linearity is read off the operations between the two.
"""

from __future__ import annotations

from typing import NoReturn, TypedDict

import numpy as np

from ..core.node import Node, depends_on, topological
from ..errors import FormulaError, refuse
from ..ops.table import constant, fit, is_constant, operation
from ..ops.vectors import concat, extract, scalprod, summed, zero
from .batch import diag, diagonal, on_batch, ones, placeholder
from .derive import pull_back, push_forward

_SAME = "the formula must have the dimension of the variable"
_SCALAR = "the formula must be a scalar"
_THIRD = "the third operand has another dimension"

# ----- operands ----------------------------------------------------------------------------------


def _variables(v: Node) -> list[Node]:
    """The variables that an operand names: one, or several joined."""
    found: list[Node] = []
    todo = [v]
    while todo:
        node = todo.pop()
        if node.op is concat:
            todo.extend(reversed(node.args))
        elif node.op.name == "Var":
            found.append(node)
        else:
            refuse(
                "differentiates with respect to a variable", "name one of the declared variables"
            )
    if len(set(found)) < len(found):
        refuse("differentiates with respect to the same variable twice", "name it once")
    return found


def _check_dim(direction: Node, dim: int, whose: str) -> None:
    if direction.dim != dim:
        refuse(
            f"the third operand must have the dimension of the {whose}, {dim}",
            "a variable of that dimension, declared like the others",
        )


def _weights(w: Node | None, dim: int, whose: str) -> Node:
    """A vector of weights: ones where there are none, a number for all of them."""
    if w is None:
        return ones(dim)
    if w.dim not in (1, dim):
        refuse(f"weights must be one number or as many as the {whose} has components, {dim}")
    return fit(w, dim)


def _joined(parts: list[Node]) -> Node:
    whole = parts[-1]
    for part in reversed(parts[:-1]):
        whole = concat(part, whole)
    return whole


# ----- first derivatives -------------------------------------------------------------------------


def _grad(f: Node, v: Node, e: Node) -> Node:
    wrt = _variables(v)
    _check_dim(e, f.dim, "formula")
    parts = pull_back(f, wrt, e)
    return _joined([part or zero(x.dim) for part, x in zip(parts, wrt, strict=True)])


def _diff(f: Node, v: Node, t: Node) -> Node:
    wrt = _variables(v)
    _check_dim(t, v.dim, "variable")
    moved: dict[Node, Node] = {}
    start = 0
    for x in wrt:
        moved[x] = extract(t, start, x.dim)
        start += x.dim
    return push_forward(f, moved)


class _Again(TypedDict):
    """What rows say that are formulas again."""

    derivative: str
    samples: tuple[tuple[int, ...], ...]
    tuples: tuple[str, ...]


_REFUSES = "differentiates with respect to a variable"
_AGAIN: _Again = {
    "derivative": "again a formula",
    "samples": (),
    "tuples": ("v", "t"),
}

grad = operation(
    "Grad",
    "f v e",
    "Gradient of f with respect to the variable v, applied to e: (df/dv)^T e.",
    dims=lambda df, dv, de: dv if de == df else refuse(_THIRD),
    expand=_grad,
    method="grad",
    refuses=[((3, 3, 3), (), _REFUSES)],
    conventions="variables in parentheses, (v, w), give their gradients one after the other",
    **_AGAIN,
)

diff = operation(
    "Diff",
    "f v t",
    "Derivative of f when the variable v moves along t: (df/dv) t.",
    dims=lambda df, dv, dt: df if dt == dv else refuse(_THIRD),
    expand=_diff,
    method="diff",
    refuses=[((3, 3, 3), (), _REFUSES)],
    conventions="variables in parentheses, (v, w), move together, along (t, u)",
    **_AGAIN,
)

# ----- Jacobians and traces ----------------------------------------------------------------------


def _jacobian(f: Node, v: Node, weights: Node) -> Node:
    """Row k of the Jacobian times weight k, row after row."""
    if f.dim == 1:
        return _grad(f, v, weights)
    unit = placeholder(0, f.dim)
    pulled = _grad(f, v, unit)
    if unit not in topological([pulled]):
        return zero(f.dim * v.dim)
    return on_batch(pulled, {unit: (diag(weights), True)}, f.dim)


def _trace(f: Node, v: Node, weights: Node) -> Node:
    if f.dim != v.dim:
        refuse(_SAME)
    return summed(diagonal(_jacobian(f, v, weights)))


def _laplacian(f: Node, v: Node) -> Node:
    if f.dim != 1:
        refuse(_SCALAR)
    return _trace(_grad(f, v, constant(1)), v, ones(v.dim))


grad_matrix = operation(
    "GradMatrix",
    "f v",
    "The Jacobian of f with respect to the variable v, row by row: entry (k, l) is df_k/dv_l.",
    dims=lambda df, dv: df * dv,
    expand=lambda f, v: _jacobian(f, v, ones(f.dim)),
    method="grad_matrix",
    refuses=[((3, 3), (), _REFUSES)],
    **_AGAIN,
)

divergence = operation(
    "Divergence",
    "f v",
    "The divergence of f with respect to the variable v: the sum of df_k/dv_k.",
    dims=lambda df, dv: 1 if df == dv else refuse(_SAME),
    expand=lambda f, v: _trace(f, v, ones(f.dim)),
    method="divergence",
    refuses=[((3, 3), (), _REFUSES), ((3, 2), (), "dimension of the variable")],
    **_AGAIN,
)

laplacian = operation(
    "Laplacian",
    "f v",
    "The Laplacian of the scalar f with respect to the variable v: the sum of d2f/dv_k^2.",
    dims=lambda df, dv: 1 if df == 1 else refuse(_SCALAR),
    expand=_laplacian,
    method="laplacian",
    refuses=[((1, 3), (), _REFUSES), ((3, 3), (), "must be a scalar")],
    **_AGAIN,
)

# ----- linear formulas ---------------------------------------------------------------------------

# For each operation the groups of operands that it is linear in, those of one group together.
LINEAR_IN: dict[str, tuple[tuple[int, ...], ...]] = {
    "Add": ((0, 1),),
    "Subtract": ((0, 1),),
    "Minus": ((0,),),
    "Mult": ((0,), (1,)),
    "Divide": ((0,),),
    "IfElse": ((1, 2),),
    "Sum": ((0,),),
    "SumT": ((0,),),
    "Concat": ((0, 1),),
    "Extract": ((0,),),
    "ExtractT": ((0,),),
    "Complex": ((0, 1),),
    "ComplexReal": ((0,),),
    "ComplexImag": ((0,),),
    "Tile": ((0,),),
    "Stretch": ((0,),),
    "SumOfBlocks": ((0,),),
    "BlockSums": ((0,),),
    "Diag": ((0,),),
    "Diagonal": ((0,),),
    "MatVecMult": ((0,), (1,)),
    "VecMatMult": ((0,), (1,)),
    "TensorProd": ((0,), (1,)),
    "TensorDot": ((0,), (1,)),
}


def check_linear(f: Node, v: Node, name: str) -> None:
    """Raise unless f is linear in the variables v, by the operations between the two.

    Raises:
        FormulaError: naming the operation that is not linear.
    """
    wrt = _variables(v)
    moving = depends_on([f], wrt)
    vanishing: set[Node] = set()
    for node in topological([f]):
        groups = LINEAR_IN.get(node.op.name.removeprefix("Each"), ())
        if is_constant(node, 0) or any(
            all(node.args[place] in vanishing for place in group) for group in groups
        ):
            vanishing.add(node)
        if node not in moving or node in wrt or node in vanishing:
            continue
        places = {place for place, arg in enumerate(node.args) if arg in moving}
        group = next((group for group in groups if places <= set(group)), None)
        if group is None:
            _not_linear(name, v, node, f"{node.op.name} is not linear")
        rest = (node.args[place] for place in group if place not in places)
        if not all(arg in vanishing for arg in rest):
            _not_linear(name, v, node, "a part of it does not involve the variable")
    if f not in moving and f not in vanishing:
        _not_linear(name, v, f, "it does not involve the variable")


def _not_linear(name: str, v: Node, node: Node, why: str) -> NoReturn:
    raise FormulaError(
        f"{name} needs a formula that is linear in {v}",
        found=f"{node}: {why}",
        hint="Grad, Diff, GradMatrix or Divergence take any formula",
    )


def _trace_operator(f: Node, v: Node, w: Node | None = None) -> Node:
    check_linear(f, v, "TraceOperator")
    return _trace(f, v, _weights(w, v.dim, "variable"))


def _adjoint_operator(f: Node, v: Node, u: Node) -> Node:
    check_linear(f, v, "AdjointOperator")
    return _grad(f, v, u)


def _sum_lin_operator(f: Node, v: Node, wl: Node | None = None, wr: Node | None = None) -> Node:
    check_linear(f, v, "SumLinOperator")
    left, right = _weights(wl, f.dim, "formula"), _weights(wr, v.dim, "variable")
    return scalprod(left, _diff(f, v, right))


_LINEAR = "by the operations between f and v; anything else is refused"

trace_operator = operation(
    "TraceOperator",
    "f v w",
    "The trace of f, which is linear in v and of its dimension; w weighs the diagonal.",
    dims=lambda df, dv, dw=1: 1 if df == dv and dw in (1, dv) else refuse(_SAME),
    expand=_trace_operator,
    optional=1,
    method="trace_operator",
    refuses=[((3, 3, 3), (), _REFUSES)],
    conventions=f"linearity is checked {_LINEAR}",
    **_AGAIN,
)

adjoint_operator = operation(
    "AdjointOperator",
    "f v u",
    "The adjoint of f, which is linear in v, applied to u: <f(v), u> = <v, AdjointOperator(u)>.",
    dims=lambda df, dv, du: dv if du == df else refuse(_THIRD),
    expand=_adjoint_operator,
    method="adjoint_operator",
    refuses=[((3, 3, 3), (), _REFUSES)],
    conventions=f"linearity is checked {_LINEAR}",
    **_AGAIN,
)

sum_lin_operator = operation(
    "SumLinOperator",
    "f v wl wr",
    "The sum of the entries of the matrix of f, which is linear in v: wl^T f(wr).",
    dims=lambda df, dv, dl=1, dr=1: 1 if dl in (1, df) and dr in (1, dv) else refuse(_SAME),
    expand=_sum_lin_operator,
    optional=2,
    method="sum_lin_operator",
    refuses=[((3, 3, 3, 3), (), _REFUSES)],
    conventions=f"weights left out are ones; linearity is checked {_LINEAR}",
    **_AGAIN,
)

# ----- factorization -----------------------------------------------------------------------------

factorize = operation(
    "Factorize",
    "f g",
    "f itself: what occurs several times in a formula, such as g, is always computed once.",
    dims=lambda df, dg: df,
    expand=lambda f, g: f,
    like=lambda f, g: f,
    method="factorize",
    derivative="that of f",
    samples=((1, 1), (3, 2)),
)

auto_factorize = operation(
    "AutoFactorize",
    "f",
    "f itself: what occurs several times in a formula is always computed once.",
    dims=lambda df: df,
    expand=lambda f: f,
    like=np.asarray,
    method="auto_factorize",
    derivative="that of f",
)

# Names of the formula language that stand for something else here, and what to write instead.
ELSEWHERE = {
    "Grad_WithSavedForward": "Grad(f, v, e) in a formula; the torch front end differentiates "
    "whole reductions by itself",
    "Diff_WithSavedForward": "Diff(f, v, t) in a formula; the torch front end differentiates "
    "whole reductions by itself",
}
