"""The table of operations carries rows of every shape: the hard ones, written here as a trial.

Complex pairs, one-hot vectors and a divergence need nothing that the row form
does not have. These rows are not registered; they are built, differentiated and compiled like any.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from checks import assert_close

from pairfold.arrays.numpy import NumpyArrays
from pairfold.calculus.derive import push_forward
from pairfold.core.node import Axis, Node
from pairfold.errors import DimError, FormulaError, InternalError, refuse
from pairfold.frontends.reduction import FormulaReduction
from pairfold.ops.reductions import REDUCTIONS
from pairfold.ops.table import OPERATIONS, Op, Param, build, operation, variable
from pairfold.settings import settings


def row(name: str, args: str, **fields: Any) -> Op:
    """A row of the table that stays out of the table."""
    op = operation(f"Trial{name}", args, "A trial.", **fields)
    del OPERATIONS[op.name]
    return op


complex_mult = row(
    "ComplexMult",
    "x y",
    dims=lambda dx, dy: dx if dx == dy and dx % 2 == 0 else refuse("pairs of equal number"),
    value=lambda s, k, x, y: s.select(
        s.eq(s.position(k % 2), 0),
        x(2 * (k // 2)) * y(2 * (k // 2)) - x(2 * (k // 2) + 1) * y(2 * (k // 2) + 1),
        x(2 * (k // 2)) * y(2 * (k // 2) + 1) + x(2 * (k // 2) + 1) * y(2 * (k // 2)),
    ),
)
one_hot = row(
    "OneHot",
    "x",
    params=[Param("n", 5)],
    dims=lambda d, n: n if d == 1 else refuse("x must be a scalar"),
    value=lambda s, k, x, n: s.select(s.eq(s.floor(x(0) + 0.5), s.position(k)), 1, 0),
    pullback=lambda g, out, x, n: [None],
)
divergence = row(
    "Divergence",
    "f v",
    dims=lambda df, dv: 1,
    expand=lambda f, v: _trace(f, v),
)


def _trace(f: Node, v: Node) -> Node:
    """Sum over k of component k of the derivative of f along the unit vector k."""
    total = OPERATIONS["Zero"](1)
    for k in range(v.dim):
        unit = OPERATIONS["ElemT"](1, v.dim, k)
        total = total + OPERATIONS["Elem"](push_forward(f, {v: unit}), k)
    return total


def summed(node: Node, variables: list[Node], arrays: list[Any], **options: Any) -> Any:
    """Sum over j by machine code, checked against the interpreter."""
    with settings(check=2, **options):
        return FormulaReduction(node, variables, "Sum", Axis.I)(NumpyArrays, arrays)


@pytest.mark.parametrize("unroll", [1, 4, 64])
@pytest.mark.parametrize("lanes", ["row", "column"])
def test_products_of_complex_vectors_are_rows_like_any_other(unroll: int, lanes: str) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(17, 6)), rng.normal(size=(23, 12))
    vx, vy = variable(0, 6, Axis.I), variable(1, 12, Axis.J)
    options = {"unroll": unroll, "lanes": lanes}
    pairs = (x.view(complex)[:, None] * y[:, :6].copy().view(complex)).view(float)
    half = OPERATIONS["Extract"](vy, 0, 6)
    got = summed(complex_mult(vx, half), [vx, vy], [x, y], **options)
    assert_close(got, pairs.sum(1), terms=23)


@pytest.mark.parametrize("unroll", [2, 16])
def test_one_hot_vectors_compare_a_component_with_its_position(unroll: int) -> None:
    x, y = np.arange(17.0)[:, None] % 7 - 1, np.ones((23, 1))
    vx, vy = variable(0, 1, Axis.I), variable(1, 1, Axis.J)
    want = 23.0 * (x == np.arange(5))
    assert_close(summed(build(one_hot, vx, 5) * vy, [vx, vy], [x, y], unroll=unroll), want)


def test_a_divergence_is_an_expansion_into_derivatives() -> None:
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(17, 3)), rng.normal(size=(23, 3))
    vx, vy = variable(0, 3, Axis.I), variable(1, 3, Axis.J)
    field = OPERATIONS["Sin"](vx) * vy + vx * OPERATIONS["Sum"](vx)
    pairs = np.cos(x[:, None]) * y + x[:, None] + x.sum(1)[:, None, None]
    want = pairs.sum((1, 2))[:, None]
    assert_close(summed(divergence(field, vx), [vx, vy], [x, y]), want, terms=69)


def test_a_row_refuses_what_it_cannot_combine() -> None:
    x, y = variable(0, 5, Axis.I), variable(1, 3, Axis.J)
    with pytest.raises(DimError, match="pairs of equal number"):
        complex_mult(x, y)
    with pytest.raises(FormulaError, match="1 arguments"):
        build(one_hot, x)


def test_a_row_that_reads_outside_its_operand_is_caught_before_any_code_exists() -> None:
    wrong = row(
        "Wrong", "x", dims=lambda d: d, value=lambda s, k, x: x(k + 1), pullback=lambda g, o, x: [g]
    )
    x = variable(0, 40, Axis.I)
    for unroll in (2, 64):
        with settings(unroll=unroll), pytest.raises(InternalError, match="components"):
            FormulaReduction(wrong(x), [x], "Sum", Axis.I).kernel()


def test_a_reduction_row_is_a_monoid() -> None:
    total = REDUCTIONS["Sum"]
    assert total.identity == (0.0,)
