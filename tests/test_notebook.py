"""What notebooks show of values: tables, with all text escaped."""

from __future__ import annotations

import importlib
import pydoc
import rlcompleter

import numpy as np
import pytest
from notebook_pages import cells, read

from pairfold import Genred, LazyTensor, Vi, Vj, doctor
from pairfold.core.notebook import in_bytes, page
from pairfold.numpy import Var

X, Y = np.zeros((17, 3)), np.zeros((23, 3), order="F")
TAGS = {"div", "b", "table", "tr", "th", "td", "span", "details", "summary", "pre"}


def test_texts_are_escaped_wherever_they_stand() -> None:
    hostile = "<script>alert('x')</script>&<b>"
    found = read(page(hostile, [(hostile, hostile)], {hostile: hostile}))
    assert found.tags == TAGS
    texts = [text for tag, text in found.texts if text]
    assert texts == [hostile] * 5


def test_a_lazy_tensor_shows_its_formula_and_what_its_table_would_take() -> None:
    found = cells((Vi(X) - Vj(Y)).exp()._repr_html_())
    assert found == {
        "formula": "Exp(Var(0,3,0)-Var(1,3,1))",
        "shape": "17 x 23 x 3",
        "dtype": "float64",
        "device": "cpu",
        "as a table": f"{17 * 23 * 3 * 8 / 1000:.3g} kB, never made",
    }


def test_a_long_formula_is_shortened_and_unfolds() -> None:
    long = Vi(X)
    for _ in range(60):
        long = (long + 1).sin()
    short, *whole = [text for tag, text in read(long._repr_html_()).texts if tag in ("span", "pre")]
    assert len(short) < 200
    assert whole[-1].count("Sin(") == 60
    assert short in repr(long)


def test_a_complex_tensor_has_numbers_of_twice_the_size() -> None:
    real = cells((1 * Vi(X)).sum(-1)._repr_html_())["as a table"]
    turned = cells((1j * Vi(X)).sum(-1)._repr_html_())["as a table"]
    assert (real, turned) == ("136 bytes, never made", "272 bytes, never made")


def test_what_is_to_be_given_is_listed() -> None:
    found = cells((Var(0, 3, 0) < Var(1, 3, 1))._repr_html_())
    assert found["formula"] == "Var(0,3,0)<Var(1,3,1)"
    assert found["to be given"] == "Var(1, 3, 1)"
    assert "as a table" not in found


def test_nothing_is_computed_for_it() -> None:
    huge = np.broadcast_to(np.float32(1), (10**9, 1))
    found = cells((LazyTensor(huge[:, None]) - LazyTensor(huge[None]))._repr_html_())
    assert found["as a table"] == "4e+06 TB, never made"


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 bytes"), (999, "999 bytes"), (1000, "1 kB"), (2.5e9, "2.5 GB")]
)
def test_bytes_are_written_for_people(count: float, text: str) -> None:
    assert in_bytes(count) == text


def test_the_doctors_report_is_a_table_of_its_sections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_PAIRS_SIDE", 300)
    report = doctor.report()
    found = cells(report._repr_html_())
    assert list(found) == ["versions", "processor", "threads", "settings", "GPU", "a kernel"]
    assert "llvmlite" in found["versions"]
    assert str(report).splitlines() == report.lines
    assert repr(report) == "<Report pairfold works here; print() shows all>"


def test_columns_of_a_text_stay_in_line() -> None:
    assert page("", [("a", "b")]).count("font-family: monospace") == 1


@pytest.mark.parametrize("module", ["pairfold", "pairfold.numpy", "pairfold.torch", "pairfold.jax"])
def test_names_that_are_imported_late_complete_early(module: str) -> None:
    if not module.endswith(("pairfold", "numpy")):
        pytest.importorskip(module.partition(".")[2])
    space = {"m": importlib.import_module(module)}
    completer = rlcompleter.Completer(space)
    for start, name in (
        ("m.cau", "m.causal()"),
        ("m.LazyT", "m.LazyTensor("),
        ("m.tog", "m.together("),
    ):
        assert completer.complete(start, 0) == name
    assert all(hasattr(space["m"], name) for name in dir(space["m"]))


def test_help_says_types_and_shows_an_example() -> None:
    text = pydoc.plain(pydoc.render_doc(LazyTensor.sum))
    assert "axis: 'Axes'" in text
    assert ".sum(axis=1)" in text
    text = pydoc.plain(pydoc.render_doc(Genred))
    assert "aliases: 'Sequence[str]'" in text
    assert ">>> squared = Genred(" in text
