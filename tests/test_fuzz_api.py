"""A sample of the random programs of `fuzz_api.py`, and that its judge tells right from wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import fuzz_api
import programs
from dense_torch import OPERATIONS, REDUCTIONS, Expr
from products import some


@pytest.mark.parametrize("seed", range(5000, 5018))
def test_random_programs_equal_dense_torch(seed: int) -> None:
    assert fuzz_api.one(seed, reduce=False) is None


def gauss() -> programs.Program:
    """A sum of Gaussians over 17 x 23 pairs."""
    leaves = [Expr("Leaf", (), (k,), 3) for k in range(2)]
    formula = Expr("Exp", (Expr("Minus", (Expr("SqDist", tuple(leaves)),)),))
    given = [programs.Argument(kind, 3, (), "unit", "plain", 0) for kind in "ij"]
    fields = {"weight": None, "reduction": "Sum", "axis": 1, "length": 0}
    return programs.Program(
        0, tuple(given), 17, 23, formula, **fields, dtype="float32", library="numpy"
    )


def judged(change: Any) -> None:
    """The judge's word on changed results of a program."""
    judge = fuzz_api.Judge(gauss())
    (found,) = fuzz_api.run_ours(gauss(), fuzz_api.as_string, judge.want)
    judge.check([found])
    judge.more()
    judge.check([(found[0], change(np.array(found[1])))])


def test_the_judge_takes_rounding_and_nothing_more() -> None:
    judged(lambda x: x * (1 + 2.0**-22))
    for change, said in (
        (lambda x: x * (1 + 1e-5), "result 0"),
        (lambda x: x[:-1], "shape"),
        (lambda x: np.where(x == x.max(), np.nan, x), "1 of 17"),
    ):
        with pytest.raises(fuzz_api.Mismatch, match=said):
            judged(change)


def test_a_program_that_fails_is_reduced_and_written_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a function that is wrong a program of one pair is left, which has it."""
    monkeypatch.setitem(OPERATIONS, "Exp", lambda x: x.exp() + 0.01)
    way, message, _ = fuzz_api.failure(gauss()) or pytest.fail("nothing was found")
    assert (way, message[:9]) == ("string", "Mismatch:")
    left = fuzz_api.reduced(gauss(), "Mismatch result", 60)
    assert (left.rows, left.columns) == (1, 1)
    assert "pairfold.Genred('Exp(SqDist(v0, v1))'" in fuzz_api.reproduction(left, way)


def slope(function: Any) -> Any:
    """The same function with derivatives a hundredth too large."""

    def changed(*given: Any) -> Any:
        found = function(*given)
        return found.detach() + (found - found.detach()) * 1.01

    return changed


def value(function: Any) -> Any:
    """A thousandth too much."""
    return lambda *given: function(*given) * 1.001


def without_last(function: Any) -> Any:
    """A reduction that leaves out the last column."""

    def changed(r: Any, f: Any, g: Any, length: int, met: Any) -> Any:
        met = met.clone()
        met[..., -1] = False
        return function(r, f, g, length, met)

    return changed


@some(
    "name,change",
    [(name, value) for name in ("Sin", "Exp", "SqDist", "Divide", "Norm2", "Atan", "IfElse")]
    + [(name, slope) for name in ("Sin", "Square", "Tanh", "Powf", "Concat")]
    + [(name, without_last) for name in ("Sum", "Mean", "LogSumExp", "SumSoftMaxWeight", "KMin")],
    lambda entry: entry in (("SqDist", value), ("Tanh", slope), ("LogSumExp", without_last)),
    lambda value: getattr(value, "__name__", value),
)
def test_a_fault_is_noticed_in_one_of_ten_formulas(
    monkeypatch: pytest.MonkeyPatch, name: str, change: Any
) -> None:
    """It is planted in the dense program, which is as much as in pairfold."""
    table = REDUCTIONS if change is without_last else OPERATIONS
    monkeypatch.setitem(table, name, change(table[name]))
    formulas = 0
    for seed in range(600000, 606000, programs.VARIANTS):
        program = programs.draw(seed)
        used = fuzz_api._has(program, lambda f: f.op == name) or program.reduction == name
        if not used or not program.rows or (change is slope and not program.order):
            continue
        formulas += 1
        if formulas > 10:
            break
        if fuzz_api.failure(program) is not None:
            return
    pytest.fail("nobody noticed")
