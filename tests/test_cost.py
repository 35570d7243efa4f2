"""Plans are chosen by estimates that can be read, any can be forced, and all compute the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from checks import assert_close
from numpy.typing import NDArray

from pairfold import settings
from pairfold.backends.llvm.launch import Launcher
from pairfold.lower.cost import Estimate
from pairfold.lower.schedule import Plan, partition
from pairfold.numpy import Genred
from pairfold.settings import Settings, current

Array = NDArray[Any]

FORMULAS = {
    "gaussian": ("Exp(-SqDist(x,y))*b", 3, 2),
    "long": ("Exp(-SqDist(x,y))*b", 40, 2),
    "wide": ("Exp(-SqDist(x,y))*b", 3, 30),
}


def draw(name: str, rows: int, columns: int) -> tuple[Genred, list[Array], Array]:
    """A reduction, its arguments and its value in float64."""
    formula, dim, outputs = FORMULAS[name]
    rng = np.random.default_rng(7)
    x, y = (rng.normal(size=(n, dim)) / dim**0.5 for n in (rows, columns))
    b = rng.normal(size=(columns, outputs))
    args = [a.astype(np.float32) for a in (x, y, b)]
    x, y, b = (a.astype(np.float64) for a in args)
    aliases = [f"x = Vi({dim})", f"y = Vj({dim})", f"b = Vj({outputs})"]
    want = np.exp(-np.square(x[:, None] - y).sum(-1)) @ b
    return Genred(formula, aliases, axis=1), args, want


def forced(plan: Plan) -> dict[str, Any]:
    """The settings that leave only this plan open."""
    screen = "never" if plan.screen is None else "always"
    instances = {"row_vectors": plan.vectors, "column_jam": plan.jam}
    return {"lanes": plan.lanes, "screen": screen, **instances}


@pytest.mark.parametrize(("rows", "columns"), [(1, 300), (5, 1000), (17, 23), (200, 37), (300, 1)])
@pytest.mark.parametrize("name", list(FORMULAS))
def test_every_alternative_can_be_forced_and_is_right(name: str, rows: int, columns: int) -> None:
    genred, args, want = draw(name, rows, columns)
    estimates = genred.explain(*args).estimates
    assert len({e.plan for e in estimates}) == len(estimates) > 1
    for estimate in estimates:
        with settings(**forced(estimate.plan)):
            assert [e.plan for e in genred.explain(*args).estimates] == [estimate.plan]
            assert_close(genred(*args), want, terms=columns, formula=estimate.name)


def test_bounds_are_an_alternative() -> None:
    rng = np.random.default_rng(11)
    x, y = (rng.normal(size=(n, 24)).astype(np.float32) for n in (100, 300))
    genred = Genred("SqDist(x,y)", ["x = Vi(24)", "y = Vj(24)"], "ArgKMin", opt_arg=3, axis=1)
    d2 = np.square(x[:, None].astype(np.float64) - y).sum(-1)
    want = np.argsort(d2, axis=1, kind="stable")[:, :3]
    estimates = genred.explain(x, y).estimates
    assert estimates[0].plan.screen is not None
    assert {e.plan.screen is None for e in estimates} == {True, False}
    for estimate in estimates:
        with settings(**forced(estimate.plan)):
            assert genred.explain(x, y).plan == estimate.plan
            assert np.array_equal(genred(x, y), want)


def test_what_is_explained_is_what_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    genred, args, _ = draw("gaussian", 5, 1000)
    compiled: list[Plan] = []
    native = Launcher.native

    def noted(self: Launcher, plan: Plan) -> Any:
        compiled.append(plan)
        return native(self, plan)

    monkeypatch.setattr(Launcher, "native", noted)
    explained = genred.explain(*args)
    compiled.clear()
    genred(*args)
    assert compiled == [explained.plan] == [explained.estimates[0].plan]


def gaussian(rows: int, columns: int) -> list[Estimate]:
    """The alternatives of a Gaussian sum."""
    found = draw("gaussian", 1, 1)[0].explain().native
    launcher = Launcher(found.kernel, "float32", found.plan.accumulation)
    return launcher.alternatives(rows, columns, current())


def test_lanes_hold_what_there_is_much_of() -> None:
    assert gaussian(1, 10**6)[0].plan.lanes == "column"
    assert gaussian(3, 10**5)[0].plan.lanes == "column"
    assert gaussian(10**5, 10**5)[0].plan.lanes == "row"
    assert gaussian(10**5, 10)[0].plan.lanes == "row"
    width = gaussian(10**5, 10)[0].plan.width
    few = gaussian(width, 10**4)[0]
    assert few.share == 1
    assert (few.plan.lanes, few.plan.vectors) == ("row", 1)


def test_estimates_add_up_and_count_idle_lanes() -> None:
    for estimate in gaussian(100, 10**4):
        parts = sum(estimate.parts.values())
        assert estimate.cycles == pytest.approx(parts / estimate.share)
        assert min(estimate.parts.values()) >= 0 < parts
        unit = estimate.plan.lane_count
        if estimate.plan.lanes == "row":
            assert estimate.share == pytest.approx(100 / (-(-100 // unit) * unit))


def test_the_chosen_plan_is_within_a_tenth_of_the_cheapest() -> None:
    for rows in (1, 2, 7, 16, 40, 100, 1000, 10**5):
        for columns in (1, 30, 1000, 10**6):
            found = gaussian(rows, columns)
            assert found[0].cycles <= 1.1 * min(e.cycles for e in found) + 1e-12


def test_few_rows_are_packed_against_together() -> None:
    plan = gaussian(3, 10**5)[0].plan
    parts = partition(plan, 3, 10**5, 1, 22.0, Settings())
    assert parts.rows_per_task >= 3
    assert parts.row_blocks == 1
    assert parts.splits > 1
    many = partition(plan, 1000, 10, 1, 22.0, Settings())
    assert many.row_blocks * many.splits >= 16


@pytest.mark.parametrize("rows", [2, 3, 9, 16, 20])
def test_few_rows_and_many_columns(rows: int) -> None:
    genred, args, want = draw("gaussian", rows, 30_011)
    results = []
    for threads in (1, 2):
        with settings(threads=threads):
            results.append(genred(*args))
    assert np.array_equal(results[0], results[1])
    assert_close(results[0], want, terms=30_011)


def test_estimates_are_printed() -> None:
    genred, args, _ = draw("long", 100, 100)
    text = str(genred.explain(*args))
    assert "estimated cycles per pair" in text
    assert "lanes of rows, 4 vectors" in text
    assert "columns at a time" in text
    assert "% of lanes used" in text


def test_sizes_share_their_plans() -> None:
    assert len({gaussian(rows, 400)[0].plan for rows in range(250, 300)}) <= 2
    assert len({gaussian(rows, rows)[0].plan for rows in range(1000, 100_000, 999)}) == 1
