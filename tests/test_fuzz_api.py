"""A sample of the random programs of `fuzz_api.py`, and that its judge tells right from wrong."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import fuzz_api
import programs


@pytest.mark.parametrize("seed", range(5000, 5018))
def test_random_programs_equal_dense_torch(seed: int) -> None:
    assert fuzz_api.one(seed, reduce=False) is None


def judged(seed: int, change: Any) -> None:
    """The judge's word on changed results of a program."""
    program = programs.draw(seed)
    judge = fuzz_api.Judge(program)
    found = fuzz_api.run_ours(program, fuzz_api.as_string, judge.want)
    judge.check(found)
    name, result = found[0]
    judge.more()
    judge.check([(name, change(np.array(result))), *found[1:]])


CLEAN = next(
    seed
    for seed in range(5000, 6000)
    for p in [programs.draw(seed)]
    if p.reduction == "Sum" and p.dtype == "float32" and min(p.rows, p.columns) > 4
    if all(a.numbers == "unit" for a in p.arguments)
)


def test_the_judge_takes_rounding_and_nothing_more() -> None:
    judged(CLEAN, lambda x: x * (1 + 2.0**-24))
    with pytest.raises(fuzz_api.Mismatch, match="result 0"):
        judged(CLEAN, lambda x: x + 1e-3 * np.abs(x).max())
    with pytest.raises(fuzz_api.Mismatch, match="shape"):
        judged(CLEAN, lambda x: x[:-1])
    with pytest.raises(fuzz_api.Mismatch, match="differ"):
        judged(CLEAN, lambda x: np.where(x == x.max(), np.nan, x))


def test_a_program_that_fails_is_reduced_and_written_out() -> None:
    program = dataclasses.replace(programs.draw(CLEAN), reduction="Max", options={})
    assert "pairfold.Genred(" in fuzz_api.reproduction(program, "string")
    assert all(x != program for x in fuzz_api.simpler(program))
