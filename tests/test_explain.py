"""Explanations: fields that hold, and code on request."""

from __future__ import annotations

import numpy as np
import pytest
from notebook_pages import cells

from pairfold import Genred, KernelSolve, LazyTensor, Vi, Vj, explain, generic_sum
from pairfold.backends.llvm.machine import machine
from pairfold.errors import ArgumentError, ArrayTypeError, ShapeError
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
    assert plan.splits == 1
    with settings(target="baseline", row_vectors=1, lanes="row"):
        one = explain(GAUSSIAN).registers
    with settings(target="baseline", row_vectors=4, lanes="row"):
        assert one < explain(GAUSSIAN).registers < 4 * one


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
    assert "tile" in plan.assembly()


@pytest.mark.skipif(
    not machine().has & {"sse2", "neon"}, reason="assembly is read of x86 and AArch64 only"
)
def test_the_inner_loop_of_the_gaussian_stays_within_its_budget() -> None:
    """About 13 multiplications and 5 additions per vector of pairs; moves and loads beside them."""
    with settings(target="native"):
        plan = explain(GAUSSIAN)
    loop = plan.inner_loop()
    assert loop
    if "avx512f" in plan.plan.machine.has:
        assert plan.instructions_per_vector() < 27


@pytest.mark.parametrize("backend", ["llvm", "triton", "reference"])
def test_every_backend_says_in_the_same_words_what_is_reduced(backend: str) -> None:
    with settings(backend=backend):
        plan = explain(GAUSSIAN, backend="GPU" if backend == "triton" else "auto")
    begun = str(plan).splitlines()[:3]
    assert begun[:2] == ["formula    Exp(-SqDist(x,y))*b", "by rules   Exp(-Sum(Square(x-y)))*b"]
    assert begun[2].startswith("reduction  out_i = Sum_j F(x_i, y_j), dimension 1")
    assert (", 9 nodes" in begun[2]) == (backend != "triton")
    how = {"llvm": "", "triton": " on a GPU", "reference": " interpreted"}[backend]
    assert plan.summary.startswith(f"{plan.reduction}{how}, F = {plan.formula}: 100000 x 100000")
    assert repr(plan) == f"<{type(plan).__name__} {plan.summary}; print() shows all>"
    assert (plan.dim, plan.nodes, plan.rows, plan.columns) == (1, 9, 100_000, 100_000)


def test_a_gpu_is_explained_without_one() -> None:
    plan = explain(GAUSSIAN, backend="GPU")
    text = str(plan)
    for part in ("programs for 100000 rows", "tiles of", "registers  about", "of a thread"):
        assert part in text
    assert "@triton.jit" in plan.triton
    assert plan.estimates[0][0].rows == plan.tiling.rows
    assert plan.grid.row_blocks == -(-100_000 // plan.tiling.rows)
    factored = explain(Genred("x*y", ["x = Vi(2)", "y = Vj(2)"], axis=1), backend="GPU")
    assert "a program without rearrangement follows" in str(factored)
    assert "tl.load(flag)" in factored.plain


def test_a_gpu_is_explained_for_arrays() -> None:
    x, y, b = np.ones((7, 3)), np.ones((1000, 3)), np.ones((1000, 1))
    with settings(tile="16x32x1", splits=4):
        plan = explain(GAUSSIAN, x, y, b, backend="GPU_1D")
    assert (plan.rows, plan.columns, plan.tiling.dtype) == (7, 1000, "float64")
    assert (plan.grid.row_blocks, plan.grid.splits) == (1, 4)
    assert "merges the parts" in str(plan)


# ----- everything that reduces explains itself ---------------------------------------------------


def test_a_reduction_of_a_lazy_tensor_is_explained_with_its_own_arrays() -> None:
    x, y = np.ones((7, 3)), np.ones((11, 3), np.float64)
    distance = Vi(x).sqdist(Vj(y))
    for plan in (
        (-distance).exp().sum(axis=1, call=False).explain(),
        explain((-distance).exp()),
        (-distance).exp().explain(),
    ):
        assert (plan.rows, plan.columns, plan.plan.dtype) == (7, 11, "float64")
        assert plan.reduction == "out_i = Sum_j F(x_i, y_j)"
        assert plan.stages["pair"].count("exp x1") == 1
    other = explain(distance, "ArgKMin", axis=0, opt_arg=3)
    assert (other.rows, other.columns) == (11, 7)
    assert other.reduction == "out_j = ArgKMin_i F(x_j, y_i)"
    weighted = explain(distance, "LogSumExp", other=Vj(np.ones((11, 2))))
    assert (weighted.dim, weighted.forms) == (2, ("max-shifted",))
    assert "@triton.jit" in distance.explain("Min", backend="GPU").triton


def test_symbols_are_explained_for_large_sizes_and_for_arrays() -> None:
    waiting = Vi(0, 3).sqdist(Vj(1, 3)).min(axis=1)
    assert (waiting.explain().rows, waiting.explain().plan.dtype) == (100_000, "float32")
    plan = waiting.explain(np.ones((5, 3)), np.ones((6, 3)))
    assert (plan.rows, plan.columns, plan.plan.dtype) == (5, 6, "float64")
    with pytest.raises(ArgumentError, match="takes 2 arrays"):
        waiting.explain(np.ones((5, 3)))
    with pytest.raises(ShapeError, match="argument 1"):
        waiting.explain(np.ones((5, 3)), np.ones((6, 4)))
    assert LazyTensor((0, 2, 2)).explain().dim == 2


def test_systems_and_generic_functions_are_explained() -> None:
    x, b = np.ones((9, 2)), np.ones((9, 1))
    aliases = ["x = Vi(2)", "y = Vj(2)", "b = Vj(1)"]
    solve = KernelSolve("Exp(-SqDist(x,y))*b", aliases, "b", axis=1)
    assert explain(solve).formula == "Exp(-SqDist(x,y))*b"
    assert (explain(solve, x, x, b).rows, explain(solve, x, x, b).columns) == (9, 9)
    kernel = (-Vi(x).sqdist(Vj(x))).exp()
    plan = kernel.solve(b, alpha=1.0, call=False).explain()
    assert (plan.rows, plan.columns, plan.plan.dtype) == (9, 9, "float64")
    symbolic = (-Vi(0, 2).sqdist(Vj(1, 2))).exp().solve(Vi(2, 1))
    assert symbolic.explain().rows == 100_000
    assert symbolic.explain(x, x, b).rows == 9
    assert explain(generic_sum("Exp(-SqDist(x,y))*b", "a = Vi(1)", *aliases)).dim == 1


def test_ranges_are_explained_with_the_arrays_that_they_cut() -> None:
    x = np.ones((8, 1))
    rows = np.array([[0, 3], [3, 8]])
    columns = np.array([[0, 2], [2, 8]])
    ranges = (rows, np.array([1, 2]), columns, columns, np.array([1, 2]), rows)
    genred = Genred("SqDist(x,y)", ["x = Vi(1)", "y = Vj(1)"], axis=1)
    for plan in (
        genred.explain(x, x, ranges=ranges),
        Vi(x).sqdist(Vj(x)).sum(axis=1, call=False, ranges=ranges).explain(),
    ):
        assert plan.sparse
        assert plan.pairs == 3 * 2 + 5 * 6
        assert (plan.rows, plan.columns) == (4, 36 // 8)
        assert "of 36 pairs in ranges" in str(plan)
    assert genred.explain(x, x).pairs == 64
    assert "row_blocks" in genred.explain(x, x, ranges=ranges, backend="GPU").triton
    with pytest.raises(ArgumentError, match="for the arrays that they cut"):
        genred.explain(ranges=ranges)


def test_an_explanation_is_short_among_other_values_and_whole_in_a_notebook() -> None:
    long = Genred("+".join(["Exp(-SqDist(x,y))"] * 50), ["x = Vi(3)", "y = Vj(3)"], axis=1)
    for plan in (explain(GAUSSIAN), explain(long), explain(GAUSSIAN, backend="GPU")):
        assert len(repr(plan)) < 250
        assert "100000 x 100000 float32" in repr(plan)
        assert plan.reduction in repr(plan)
        page = plan._repr_html_()
        table = cells(page)
        assert table["formula"] == plan.formula
        assert table["reduction"].startswith(plan.reduction)
        assert "F(x_i, y_j)" in page
    compared = explain(Genred("x<y", ["x = Vi(1)", "y = Vj(1)"], axis=1))._repr_html_()
    assert cells(compared)["formula"] == "x<y"


def test_what_is_no_reduction_is_refused_by_name() -> None:
    with pytest.raises(ArrayTypeError, match=r"a numpy\.ndarray"):
        explain(np.ones(3))
