"""The text of a reduction: equal for equal reductions, read back in any process."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys

import numpy as np
import pytest

import pairfold
from pairfold import Genred
from pairfold.arrays.numpy import NumpyArrays
from pairfold.core.node import Axis
from pairfold.errors import FormulaError
from pairfold.frontends.identity import identity, rebuilt
from pairfold.frontends.reduction import FormulaReduction
from pairfold.ops.reductions import REDUCTIONS
from pairfold.ops.states import states_of
from pairfold.ops.table import OPERATIONS, constant, variable

ALIASES = ["x = Vi(3)", "y = Vj(3)", "p = Pm(2)"]


def folds():
    """Every reduction, with weights, lengths, numbers that are no doubles, and other accuracy."""
    text = "Exp(-SqDist(x,y)/3)*Elem(p,1)"
    for row in REDUCTIONS.values():
        if row.internal:
            continue
        options = {"opt_arg": 4} if row.top_k else {}
        if row.weighted == "must":
            options["formula2"] = "y*IntInv(7)"
        yield Genred(text, ALIASES, row.name, axis=0, **options)._fold
    yield Genred("x-y", ALIASES, axis=1, dtype_acc="float64")._fold
    yield Genred("x-y", ALIASES, axis=1, sum_scheme="kahan_scheme")._fold
    yield Genred("Grad(Sin(x|y),x,p)", ["x = Vi(2)", "y = Vj(2)", "p = Pm(1)"], axis=1)._fold
    yield Genred("TensorDot(x,y,[3],[3],[0],[0])", ALIASES[:2], axis=1)._fold


@pytest.mark.parametrize("fold", list(folds()), ids=lambda fold: fold.reduction)
def test_a_rebuilt_reduction_is_the_same(fold):
    text = identity(fold)
    again = rebuilt(text)
    assert again.formula is fold.formula
    assert again.weight is fold.weight
    assert again.variables == fold.variables
    for name in ("reduction", "kept", "asked", "length", "names", "accuracy"):
        assert getattr(again, name) == getattr(fold, name)
    assert identity(again) == text
    assert "\n" not in text
    json.loads(text)


def test_derivatives_and_states_have_one_too():
    fold = Genred("Exp(-SqDist(x,y))*p", ["x = Vi(3)", "y = Vj(3)", "p = Pm(1)"], axis=1)._fold
    for derived in (
        fold.pull_back(1),
        fold.pull_back(0).pull_back(0),
        *fold.push_forward((0, 2)),
        fold.variant(states_of("Sum")),
        fold.variant("LogSumExp").variant("LogParts").pull_back(0),
    ):
        again = rebuilt(identity(derived))
        assert again.formula is derived.formula
        assert (again.row, again.kept, again.asked) == (derived.row, derived.kept, derived.asked)


def test_what_differs_has_another_text():
    base = {"formula": "x-y", "aliases": ALIASES, "reduction_op": "Sum", "axis": 1}
    changes = [
        {},
        {"formula": "y-x"},
        {"formula": "x-y+1"},
        {"aliases": ["x = Vi(3)", "z = Vj(0, 3)", "y = Vj(1, 3)"]},
        {"reduction_op": "Max"},
        {"axis": 0},
        {"reduction_op": "KMin", "opt_arg": 2},
        {"reduction_op": "KMin", "opt_arg": 3},
        {"dtype_acc": "float64"},
        {"sum_scheme": "kahan_scheme"},
        {"rtol": 1e-3},
        {"rtol": 1e-4},
        {"formula": "Sum(x-y)", "reduction_op": "LogSumExp", "formula2": "x"},
        {"formula": "Sum(x-y)", "reduction_op": "LogSumExp", "formula2": "y"},
    ]
    changes[3]["aliases"] = ["z = Vi(3)", "y = Vj(3)", "p = Pm(2)"]
    changes[3]["formula"] = "z-y"
    texts = [identity(Genred(**{**base, **change})._fold) for change in changes]
    assert len(set(texts)) == len(texts)


def test_shared_parts_are_written_once():
    x = variable(0, 1, Axis.I)
    for _ in range(60):  # as a tree it would have 2^60 leaves
        x = OPERATIONS["Sin"](x) * x
    fold = FormulaReduction(x, [variable(0, 1, Axis.I)], "Sum", Axis.I)
    assert len(identity(fold)) < 10_000
    assert rebuilt(identity(fold)).formula is x


def test_a_deep_formula_is_written_without_recursion():
    x = variable(0, 1, Axis.I)
    for _ in range(5000):
        x = OPERATIONS["Sin"](x)
    fold = FormulaReduction(x, [variable(0, 1, Axis.I)], "Sum", Axis.I)
    assert rebuilt(identity(fold)).formula is x


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "-0.0"])
def test_numbers_that_are_no_fractions(value):
    node = variable(0, 2, Axis.I) + constant(float(value))
    fold = FormulaReduction(node, [variable(0, 2, Axis.I)], "Sum", Axis.I)
    assert rebuilt(identity(fold)).formula is node


def test_simplification_that_was_not_wanted_is_not_made_up_for():
    with pairfold.settings(rules="exact"):
        fold = Genred("x-x+y", ALIASES[:2], axis=1)._fold
    with pairfold.settings(rules="all"):
        again = rebuilt(identity(fold))
    assert again.formula is fold.formula


def test_another_process_computes_the_same(tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(17, 3)), rng.normal(size=(23, 3))
    fold = Genred("Exp(-SqDist(x,y)/3)*y", ALIASES[:2], "Sum", axis=1)._fold
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", y)
    (tmp_path / "fold.txt").write_text(identity(fold))
    program = """
import sys
from pathlib import Path
import numpy as np
from pairfold.arrays.numpy import NumpyArrays
from pairfold.frontends.identity import rebuilt
here = Path(sys.argv[1])
fold = rebuilt((here / "fold.txt").read_text())
arrays = [np.load(here / name) for name in ("x.npy", "y.npy")]
np.save(here / "out.npy", fold.run(NumpyArrays, arrays)[0])
"""
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, timeout=120)
    want = fold.run(NumpyArrays, [x, y])[0]
    assert np.array_equal(np.load(tmp_path / "out.npy"), want)


def test_reductions_are_pickled_by_their_text():
    for fold in folds():
        again = pickle.loads(pickle.dumps(fold))
        assert identity(again) == identity(fold)


GOOD = identity(Genred("x-y", ALIASES[:2], axis=1)._fold)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no reduction"),
        ("{}", "no reduction"),
        ("[1, 2]", "no reduction"),
        (GOOD[:-9], "no reduction"),
        (GOOD.replace('"version":2', '"version":99'), "version 99"),
        (GOOD.replace('"Sum"', '"__import__"'), "no reduction"),
        (GOOD.replace('"Subtract"', '"os.system"'), "no reduction"),
        (GOOD.replace('"kept":0', '"kept":7'), "no reduction"),
        ("[" * 100_000, "no reduction"),
        (GOOD.replace('["auto","auto"]', '["float8","auto"]'), "no reduction"),
        (GOOD.replace('["auto","auto"]', '["auto","best"]'), "no reduction"),
        (GOOD.replace('"length":0', '"length":3'), "no reduction"),
        (GOOD.replace('"length":0', '"length":-1'), "no reduction"),
        (GOOD.replace('"Sum"', '"KMin"'), "no reduction"),
        (GOOD.replace('"Sum"', '"SumSoftMaxWeight"'), "no reduction"),
    ],
)
def test_other_text_is_refused(text, says):
    assert text != GOOD
    with pytest.raises(FormulaError, match=says):
        rebuilt(text)
