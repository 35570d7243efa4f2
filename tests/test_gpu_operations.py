"""Every operation as a Triton program, in Triton's interpreter, against its row's oracle."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
import torch
from checks import assert_close
from formulas import dense
from products import some
from test_derivatives import CASES as DERIVED
from test_derivatives import POINTS, Row
from test_rows import CASES, KINDS, case_id, random_arrays, sample_params, seed_of, spread

from pairfold.backends.reference import interpreter as reference
from pairfold.calculus.derive import pull_back
from pairfold.core.node import Axis
from pairfold.frontends.devices import DeviceTensors
from pairfold.frontends.reduction import FormulaReduction
from pairfold.lower.kernel import lower
from pairfold.ops.reductions import REDUCTIONS
from pairfold.ops.table import OPERATIONS, build, variable
from pairfold.settings import settings

pytestmark = pytest.mark.usefixtures("interpreter")
ROWS, COLUMNS = 17, 23


def folded(fold: FormulaReduction, arrays: dict[int, Any], dtype: str, **options: Any) -> Any:
    """The sum of a formula, from its Triton program."""
    given = [
        torch.as_tensor(np.asarray(arrays.get(place, np.zeros(1))).astype(dtype))
        for place in range(len(fold.variables))
    ]
    with settings(**{"tile": "32x16x1", **options}):
        (found,) = fold.run(DeviceTensors, given)
    return found.numpy()


ENTRIES = [c for c in CASES if c[1]]
# In float32 with components written out, in float64 with loops over them.
WAYS = ((0, "float32", 16, Axis.I), (2, "float64", 1, Axis.J))


@some(
    "op,dims,way",
    [(*entry, way) for entry in ENTRIES for way in WAYS],
    lambda entry: (ENTRIES.index(entry[:2]) + WAYS.index(entry[2])) % 2 == 0,
    ids=lambda value: getattr(value, "name", None) or str(value),
)
def test_a_row_computes_what_its_oracle_says(op: Any, dims: Any, way: Any) -> None:
    shift, dtype, unroll, kept = way
    rng = np.random.default_rng(seed_of(op.name, dims))
    kinds = [KINDS[(place + shift) % 3] for place in range(len(dims))]
    variables = [variable(p, dim, kinds[p]) for p, dim in enumerate(dims)]
    formula = build(op, *variables, *sample_params(op))
    arrays = random_arrays(op, variables, rng)
    arrays = {place: array.astype(dtype) for place, array in arrays.items()}
    operands = [spread(arrays[p].astype("float64"), kinds[p]) for p in range(len(dims))]
    pairs = dense(op, operands, sample_params(op))
    # An index that the formula does not read has one value.
    axis = 1 if kept == Axis.I else 0
    shape = [1, 1, formula.dim]
    for kind, axis_, count in ((Axis.I, 0, ROWS), (Axis.J, 1, COLUMNS)):
        if kind in kinds:
            shape[axis_] = count
    pairs = np.broadcast_to(pairs, shape)
    got = folded(FormulaReduction(formula, variables, "Sum", kept), arrays, dtype, unroll=unroll)
    assert_close(
        got.reshape(-1, formula.dim),
        pairs.sum(axis=axis),
        terms=pairs.shape[axis],
        scale=float(np.abs(pairs).sum(axis=axis).max(initial=1.0)),
        formula=(formula, dtype, unroll),
    )


SLOPED = {op.name: (op, dims) for op, dims in DERIVED if op.derivative != "0"}
for _name in ("BSpline", "SoftDTW_SqDist"):  # their loops are long
    SLOPED[_name] = next((op, dims) for op, dims in DERIVED if op.name == _name)


@some("op,dims", list(SLOPED.values()), lambda e: list(SLOPED).index(e[0].name) % 3 == 0, case_id)
def test_the_derivatives_of_a_row_are_those_of_the_reference(op: Any, dims: Any) -> None:
    """All of them in one formula; the reference is compared with slopes in test_derivatives."""
    row = Row(op, dims)
    place = len(dims)
    g = variable(place, row.node.dim, Axis.J)
    arrays = {**row.arrays, place: row.rng.uniform(-1, 1, (3, row.node.dim))}
    found = [back for back in pull_back(row.node, row.operands, g) if back is not None]
    formula = functools.reduce(lambda a, b: build(OPERATIONS["Concat"], a, b), found)
    variables = [*row.operands, g]
    fold = FormulaReduction(formula, variables, "Sum", Axis.I)
    kernel = lower(formula, REDUCTIONS["Sum"], Axis.I, 16)
    given = {argument.position: arrays[argument.position] for argument in kernel.arguments}
    want = reference.evaluate(kernel, given, POINTS, 3)
    got = folded(fold, arrays, "float64", tile="64x4x1", unroll=1 if max(dims) > 3 else 16)
    assert_close(got, want, rtol=1e-11, formula=formula)
