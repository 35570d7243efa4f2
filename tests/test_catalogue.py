"""The page of operations says what the rows say, and the one in the repository is up to date."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pairfold
from pairfold import errors
from pairfold.__main__ import main
from pairfold.catalogue import called, catalogue, dimensions, settings_page
from pairfold.errors import OptionError
from pairfold.later import LAZY
from pairfold.numpy import Genred
from pairfold.ops.reductions import ALIASES, GENERAL, REDUCTIONS, Reduction
from pairfold.ops.table import OPERATIONS

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "operations.md"


def test_the_page_in_the_repository_is_up_to_date() -> None:
    assert PAGE.read_text() == catalogue(), "regenerate it: make operations"


def test_the_page_of_settings_is_up_to_date() -> None:
    page = ROOT / "docs" / "reference" / "settings.md"
    assert page.read_text() == settings_page(), "regenerate it: make operations"


def test_every_error_and_every_name_is_on_its_page() -> None:
    pages = ROOT / "docs" / "reference"
    kinds = {row.__name__ for row in vars(errors).values() if isinstance(row, type)} - {"Refusal"}
    kinds = {name for name in kinds if name.endswith("Error")}
    headings = re.findall(r"^## (.*)$", (pages / "errors.md").read_text(), re.MULTILINE)
    assert {name for line in headings for name in line.split(", ")} == kinds - {"PairfoldError"}
    named = set(re.findall(r"^.. auto\w+:: (\w+)$", (pages / "api.md").read_text(), re.MULTILINE))
    public = {*pairfold.__all__, *LAZY} - {"__version__", "cluster", "i", "j", "linalg"}
    assert public | kinds <= named


def test_every_row_is_on_the_page() -> None:
    page = catalogue()
    for name, op in OPERATIONS.items():
        assert (f"`{name}(" in page) != op.internal
    for name, row in REDUCTIONS.items():
        assert (f'| `"{name}"`' in page) != row.internal
    for name in ALIASES:
        assert f'or `"{name}"`' in page
    for rule in GENERAL:
        assert page.count(rule) == 1


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


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_row_has_dimensions(name: str) -> None:
    assert "->" in dimensions(OPERATIONS[name])


# -- what the page says of a reduction is what happens ---------------------------------------------

PUBLIC = [row for row in REDUCTIONS.values() if not row.internal]
ROWS, COLUMNS, K, WEIGHTS = 4, 7, 2, 5
public = pytest.mark.parametrize("row", PUBLIC, ids=lambda row: row.name)


def results(row: Reduction, name: str, dim: int, weighted: bool, columns: int = COLUMNS) -> Any:
    """A call with the arguments that the page asks for, as a list of arrays."""
    rng = np.random.default_rng(0)
    shapes = ((ROWS, dim), (columns, 1), (columns, WEIGHTS))
    options: dict[str, Any] = {"opt_arg": K} if "`opt_arg=K`" in called(row) else {}
    if weighted:
        options["formula2"] = "g"
    aliases = [f"x = Vi({dim})", "y = Vj(1)", f"g = Vj({WEIGHTS})"]
    found = Genred("x*y", aliases, name, axis=1, **options)(*(rng.uniform(1, 2, s) for s in shapes))
    return list(found) if isinstance(found, tuple) else [found]


def ways(row: Reduction) -> list[tuple[int, bool]]:
    """(dimension of F, whether weighted) of the calls that the page allows."""
    needed = "`formula2=G`" in called(row)
    optional = needed and "if weighted" in called(row)
    plain = [] if needed and not optional else [(1, False)]
    if plain and not row.scalar:
        plain.append((3, False))
    return [*plain, *[(1, True)] * needed]


@public
def test_reductions_are_called_as_the_page_says(row: Reduction) -> None:
    names = re.findall(r'`"(\w+)"`', called(row))
    assert row.name in names
    for name in names:
        for dim, weighted in ways(row):
            found = results(row, name, dim, weighted)
            kinds = [result.kind for result in row.results[: len(found)]]
            dtypes = {"value": np.float64, "index": np.int64, "truth": np.bool_}
            assert [a.dtype for a in found] == [dtypes[kind] for kind in kinds]
            assert len(found) == 1 + ("two arrays" in row.shape)
            sizes = {"R": ROWS, "K": K, "D": dim, "dim G": WEIGHTS, "1 + dim G": 1 + WEIGHTS}
            said = [text.split(", ")[1:] for text in re.findall(r"\((\.\.\.[^)]*)\)", row.shape)]
            shape = said[-1] if weighted or (row.top_k and dim == 1) else said[0]
            wanted = tuple(sizes[word] if word in sizes else int(word) for word in shape)
            assert {a.shape for a in found} == {wanted}


@public
def test_arguments_that_the_page_does_not_name_are_refused(row: Reduction) -> None:
    aliases = ["x = Vi(1)", "y = Vj(1)"]
    wrong: list[dict[str, Any]] = [{"opt_arg": None if row.top_k else K}]
    if row.weighted != "may":
        wrong.append({"formula2": None if row.weighted == "must" else "y"})
    for options in wrong:
        given = {"opt_arg": K if row.top_k else None, "formula2": "y" * (row.weighted == "must")}
        arguments: dict[str, Any] = {**given, **options}
        with pytest.raises(OptionError):
            Genred("x*y", aliases, row.name, axis=1, **arguments)


@public
def test_the_page_tells_what_comes_of_no_columns(row: Reduction) -> None:
    words = {"nan": "NaN", "0": "index 0" if row.selects else "0"}
    for dim, weighted in ways(row):
        for array in results(row, row.name, dim, weighted, columns=0):
            for value in {str(entry) for entry in array.ravel()}:
                word = words.get(value.removesuffix(".0"), value.removesuffix(".0"))
                found = re.search(r"padded with (.*)|(.*?) without columns", row.conventions)
                assert found
                told = re.split(r", | and ", found[1] or found[2])
                assert word in told
