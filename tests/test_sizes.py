"""Every row at every size: values and derivatives by machine code, against the row's oracle.

A row f is folded with weights g along a direction t, all of them random: f itself and its forward
derivative are one kernel, <g, Df t> by the pull-back and <g, D2f(t, t)> by pulling back twice the
other. Differences of the oracle along t say what they must be. Data keep away from kinks, so that
every element counts.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from checks import assert_close, tolerance
from formulas import JUMPS, KINKED, dense, operand_values
from products import some

from pairfold.arrays.numpy import NumpyArrays
from pairfold.backends.llvm.native import write_module
from pairfold.calculus.derive import pull_back, push_forward
from pairfold.core.node import Axis, Node
from pairfold.frontends.reduction import FormulaReduction
from pairfold.ops.table import OPERATIONS, Op, build, constant, variable
from pairfold.settings import current, settings

SIZES = (1, 3, 17, 100, 1000)
KINDS = ((Axis.I, Axis.J, Axis.PARAMETER), (Axis.J, Axis.I, Axis.PARAMETER))
ROWS = [op for op in OPERATIONS.values() if op.args and op.like is not None]
CASES = [(op, d) for op in ROWS for d in SIZES if op.at_size(d) is not None]
EXTREMES = {"Max", "Min", "ArgMax", "ArgMin"}
KEEPS_AWAY = {("Mod", "n"): (0.98, 1.02), ("Mod", "o"): (-0.02, 0.02)}

# Central differences of order 8: the first and the second derivative; steps of STEP * t.
STEP = 2.0**-6
FIRST = (0, 4 / 5, -1 / 5, 4 / 105, -1 / 280)
SECOND = (-205 / 72, 8 / 5, -1 / 5, 8 / 315, -1 / 560)


def case_id(value: Any) -> str:
    return getattr(value, "name", None) or str(value)


def calm_values(op: Op, place: int, rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    """Values of an operand, far enough from the row's kinks and jumps to move a little."""
    name = op.args[place]
    if (op.name, name) in KEEPS_AWAY:
        return rng.uniform(*KEEPS_AWAY[op.name, name], shape)
    jumps = op.derivative == "0" or op.name in (KINKED | JUMPS)
    limited = name in op.domain and op.name not in ("Abs", "ReLU")
    if not jumps or limited or op.name == "BSpline":
        return operand_values(op, name, rng, shape)
    found = rng.integers(-2, 3, shape) + 0.25 + 0.5 * (place % 2) + rng.uniform(-0.05, 0.05, shape)
    if op.name in EXTREMES and shape[-1] > 1:
        largest, smallest = rng.permutation(shape[-1])[:2]
        found[..., largest], found[..., smallest] = 3.5, -3.5
    return found


class Case:
    """A row at a size: nodes, arrays, and what the oracle says."""

    def __init__(self, op: Op, d: int) -> None:
        found = op.at_size(d)
        assert found is not None
        self.op, (self.dims, self.params) = op, found
        self.rng = np.random.default_rng([SIZES.index(d), ROWS.index(op)])
        self.rows, self.columns = (17, 23) if d < 100 else (3, 5)
        count = len(self.dims)
        kinds = KINDS[ROWS.index(op) % 2]
        self.operands = [variable(p, n, kinds[p % 3]) for p, n in enumerate(self.dims)]
        self.node = build(op, *self.operands, *self.params)
        self.tangents = [
            variable(count + p, v.dim, v.params[2]) for p, v in enumerate(self.operands)
        ]
        self.weight = variable(2 * count, self.node.dim, Axis.I)
        counts_columns = variable(2 * count + 1, 1, Axis.J)
        self.variables = [*self.operands, *self.tangents, self.weight, counts_columns]

    def arrays(self) -> list[Any]:
        """Arguments that float32 holds too: operands, a direction for each, weights."""
        shapes = {Axis.I: (self.rows,), Axis.J: (self.columns,), Axis.PARAMETER: ()}
        found = []
        for p, v in enumerate(self.variables):
            shape = (*shapes[v.params[2]], v.dim)
            if p < len(self.dims):
                found.append(calm_values(self.op, p, self.rng, shape))
            else:
                found.append(self.rng.uniform(-0.25, 0.25, shape))
        return [array.astype(np.float32).astype(float) for array in found]

    def formulas(self) -> tuple[Node, Node]:
        """f and its derivative along t; <g, Df t> by the pull-back, and the same once more."""
        tangents = dict(zip(self.operands, self.tangents, strict=True))
        forward = push_forward(self.node, tangents)
        first = self.along(pull_back(self.node, self.operands, self.weight))
        second = self.along(pull_back(first, self.operands, constant(1)))
        concat = OPERATIONS["Concat"]
        return concat(self.node, forward), concat(first, second)

    def along(self, gradients: list[Node | None]) -> Node:
        """The sum of scalar products of gradients with the directions."""
        total = OPERATIONS["Zero"](1)
        for gradient, tangent in zip(gradients, self.tangents, strict=True):
            if gradient is not None:
                total = total + OPERATIONS["Scalprod"](gradient, tangent)
        return total

    def oracle(self, arrays: list[Any]) -> tuple[Any, Any, Any]:
        """f, its first and its second derivative along t at every pair: (rows, columns, dim)."""
        spread = [self.spread(a, v) for a, v in zip(arrays, self.variables, strict=True)]
        count = len(self.dims)
        values, slopes = spread[:count], spread[count : 2 * count]
        steps = np.roll(np.arange(-4, 5), -4)  # at[-n] is n steps back
        moved = [
            np.stack([v + n * STEP * t for n in steps]) for v, t in zip(values, slopes, strict=True)
        ]
        at = dense(self.op, moved, self.params)
        first = sum(FIRST[n] * (at[n] - at[-n]) for n in range(1, 5)) / STEP
        second = sum(SECOND[n] * (at[n] + at[-n]) for n in range(1, 5)) + SECOND[0] * at[0]
        shape = (self.rows, self.columns, self.node.dim)
        every = (at[0], first, second / STEP**2)
        return tuple(np.broadcast_to(a, shape) for a in every)  # type: ignore[return-value]

    @staticmethod
    def spread(array: Any, v: Node) -> Any:
        kind = v.params[2]
        if kind == Axis.PARAMETER:
            return array[None, None]
        return array[:, None] if kind == Axis.I else array[None]


@cache
def case(op: Op, d: int) -> tuple[Case, tuple[Node, Node]]:
    made = Case(op, d)
    return made, made.formulas()


def runs(op: Op, d: int) -> bool:
    """By default a short and a long size of each row, which others than the next row's."""
    place, sizes = ROWS.index(op), [size for size in SIZES if op.at_size(size) is not None]
    short, long = sizes[: len(sizes) // 2], sizes[len(sizes) // 2 :]
    return d in (*short[place % 2 :][:1], *long[place % 3 :][:1]) or len(sizes) < 3


@some("op,d", CASES, lambda entry: runs(*entry), case_id)
def test_values_and_derivatives_are_those_of_the_oracle(op: Op, d: int) -> None:
    made, formulas = case(op, d)
    arrays = made.arrays()
    value, first, second = made.oracle(arrays)
    weight = arrays[-2][:, None]
    wanted = (
        np.concatenate([value, first], -1),
        np.stack([(weight * first).sum(-1), (weight * second).sum(-1)], -1),
    )
    sizes = (
        np.abs(value) + np.abs(first),
        (np.abs(weight) * (np.abs(value) + np.abs(first) + np.abs(second))).sum(-1),
    )
    # The one formula in float32, the other in float64: both of every row, at sizes that alternate.
    in_float32 = formulas[(ROWS.index(op) // 2 + SIZES.index(d)) % 2]
    for formula, want, size in zip(formulas, wanted, sizes, strict=True):
        fold = FormulaReduction(formula, made.variables, "Sum", Axis.I)
        scale = 1 + float(size.sum(1).max())
        allowed, given = 1e-9, arrays
        if formula is in_float32:
            allowed = tolerance("float32", made.columns * max(made.dims))
            given = [a.astype(np.float32) for a in arrays]
        # Machine code of the one, which alternates as well; the other is interpreted.
        backend = "llvm" if formula is in_float32 else "reference"
        with settings(row_vectors=1, column_jam=1, backend=backend):
            got = fold(NumpyArrays, given)
        assert_close(got, want.sum(1), rtol=allowed, atol=allowed * scale, formula=formula)


GROWING = [op for op in ROWS if op.at_size(100) is not None and op.at_size(1000) is not None]


@some("op", GROWING, lambda op: GROWING.index(op) % 3 == 0, case_id)
def test_the_code_of_a_long_vector_is_that_of_a_shorter_one(op: Op) -> None:
    sizes = []
    for d in (100, 1000):
        made, formulas = case(op, d)
        for formula in formulas:
            launcher = FormulaReduction(formula, made.variables, "Sum", Axis.I).launcher(
                "float32", current()
            )
            plan = launcher.plan(1000, 1000, current())
            sizes.append(len(str(write_module(launcher.kernel, plan))))
    # Plans differ with the dimension, by half of the text at most; written out, it is ten times.
    for short, long in zip(sizes[:2], sizes[2:], strict=True):
        assert long <= 2 * short
