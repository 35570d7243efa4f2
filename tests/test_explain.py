"""Explanations: fields that hold, and code on request."""

from __future__ import annotations

import numpy as np
import pytest

from pairfold import Genred, explain
from pairfold.backends.machine import machine
from pairfold.settings import settings

GAUSSIAN = Genred("Exp(-SqDist(x,y))*b", ["x = Vi(3)", "y = Vj(3)", "b = Vj(1)"], axis=1)


def test_an_explanation_names_formula_stages_loops_and_cost() -> None:
    plan = explain(GAUSSIAN)
    text = str(plan)
    assert plan.formula == "Exp(-SqDist(x,y))*b"
    assert plan.simplified == "Exp(-Sum(Square(x-y)))*b"
    for part in ("Exp(", "x[3]", "y[3], b[1]", "exp x1", "for task in", "float64 across blocks"):
        assert part in text
    assert plan.flops_per_pair == 12
    assert plan.registers <= plan.plan.machine.registers + 8
    assert plan.splits == 1


def test_work_that_does_not_depend_on_both_indices_leaves_the_inner_loop() -> None:
    genred = Genred("Square(p-a)*Exp(x)*y", ["x=Vi(1)", "a=Vj(1)", "y=Vj(1)", "p=Pm(1)"], axis=1)
    plan = explain(genred)
    assert plan.stages["pair"] == []
    assert plan.flops_per_pair == 1
    assert "1 factors leave the sum" in plan.stages["leaves"]


def test_an_explanation_for_arrays_describes_their_sizes() -> None:
    x, y, b = np.ones((5, 3)), np.ones((1_000_000, 3)), np.ones((1_000_000, 1))
    plan = explain(GAUSSIAN, x, y, b)
    assert (plan.rows, plan.columns) == (5, 1_000_000)
    assert plan.plan.lanes == "column"
    assert plan.plan.dtype == "float64"
    assert plan.splits > 1


def test_a_deep_graph_is_explained_without_repeating_itself() -> None:
    text = "x"
    for _ in range(12):
        text = f"Sin({text})*Exp({text})"
    plan = explain(Genred(f"{text}+y", ["x = Vi(1)", "y = Vj(1)"], axis=1))
    assert len(plan.simplified) < 5000
    assert plan.tree.count("\n") < 60


def test_the_code_is_there_on_request() -> None:
    plan = explain(GAUSSIAN)
    assert "define" in plan.llvm()
    assert "unit" in plan.assembly()


@pytest.mark.skipif(
    "avx2" not in machine().has, reason="the inner loop is recognised in AVX code only"
)
def test_the_inner_loop_of_the_gaussian_stays_within_its_budget() -> None:
    """About 13 multiplications and 5 additions per vector of pairs; moves and loads beside them."""
    with settings(target="native"):
        plan = explain(GAUSSIAN)
    loop = plan.inner_loop()
    assert loop
    if "avx512f" in plan.plan.machine.has:
        assert plan.instructions_per_vector() < 27


def test_a_gpu_is_explained_without_one() -> None:
    plan = explain(GAUSSIAN, backend="GPU")
    text = str(plan)
    for part in ("programs for 100000 rows", "tiles of", "registers  about", "of a thread"):
        assert part in text
    assert "@triton.jit" in plan.triton
    assert plan.estimates[0][0].rows == plan.tiling.rows
    assert plan.grid.panels == -(-100_000 // plan.tiling.rows)
    factored = explain(Genred("x*y", ["x = Vi(2)", "y = Vj(2)"], axis=1), backend="GPU")
    assert "a literal program follows" in str(factored)
    assert "tl.load(flag)" in factored.literal


def test_a_gpu_is_explained_for_arrays() -> None:
    x, y, b = np.ones((7, 3)), np.ones((1000, 3)), np.ones((1000, 1))
    with settings(tile="16x32x1", splits=4):
        plan = explain(GAUSSIAN, x, y, b, backend="GPU_1D")
    assert (plan.rows, plan.columns, plan.tiling.dtype) == (7, 1000, "float64")
    assert (plan.grid.panels, plan.grid.splits) == (1, 4)
    assert "merges the parts" in str(plan)
