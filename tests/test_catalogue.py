"""The page of operations says what the rows say, and the one in the repository is up to date."""

from __future__ import annotations

from pathlib import Path

import pytest

from pairfold.__main__ import main
from pairfold.catalogue import catalogue, dimensions
from pairfold.ops.reductions import REDUCTIONS
from pairfold.ops.table import OPERATIONS

PAGE = Path(__file__).resolve().parents[1] / "docs" / "operations.md"


def test_the_page_in_the_repository_is_up_to_date() -> None:
    assert PAGE.read_text() == catalogue(), "regenerate it: make operations"


def test_every_row_is_on_the_page() -> None:
    page = catalogue()
    for name in OPERATIONS:
        assert name == "Constant" or f"`{name}(" in page
    for name in REDUCTIONS:
        assert f"`{name}`" in page


def test_the_command_prints_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["operations"]) == 0
    assert capsys.readouterr().out == catalogue()


DIMENSIONS = {
    "Exp": "d -> d",
    "Add": "d or 1, d or 1 -> d",
    "Sum": "d -> 1",
    "SumT": "1 -> n",
    "Concat": "d, e -> d + e",
    "IfElse": "d or 1, d or 1, d or 1 -> d",
    "ComplexMult": "d or 2, d or 2, even -> d",
    "ComplexReal": "d, even -> d/2",
    "Real2Complex": "d -> 2*d",
    "Zero": "-> n",
    "Extract": "d, at least 3 -> n",
    "GradMatrix": "d, e -> d*e",
    "Grad": "d, e, d -> e",
    "Diff": "d, e, e -> d",
    "Divergence": "d, d -> 1",
    "Laplacian": "1, d -> 1",
    "TraceOperator": "d, d, d or 1 -> 1",
    "SumLinOperator": "d, e, d or 1, e or 1 -> 1",
    "Diag": "d -> d*d",
    "Tile": "d -> d*n",
}


@pytest.mark.parametrize("name", DIMENSIONS)
def test_dimensions_are_found_by_trying(name: str) -> None:
    assert dimensions(OPERATIONS[name]) == DIMENSIONS[name]


@pytest.mark.parametrize("name", [n for n in OPERATIONS if n != "Constant"])
def test_every_row_has_dimensions(name: str) -> None:
    assert "->" in dimensions(OPERATIONS[name])
