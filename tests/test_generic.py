"""generic_sum and its like, for both libraries and for either."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.special
import torch
from checks import assert_close

import pairfold
import pairfold.numpy
import pairfold.torch
from pairfold.errors import FormulaError

ARRAYS = {"numpy": np.asarray, "torch": torch.as_tensor}
PLACES = [(pairfold.numpy, "numpy"), (pairfold.torch, "torch"), (pairfold, "torch")]
FORMULA, ALIASES = "SqDist(x,y)*p", ["x = Vi(3)", "y = Vj(3)", "p = Pm(1)"]


def data() -> tuple[list[Any], Any]:
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=shape) for shape in ((17, 3), (23, 3), (1,))]
    x, y, p = arrays
    return arrays, p[0] * ((x[:, None] - y) ** 2).sum(-1)


ORACLES = {
    "generic_sum": lambda pairs, axis: pairs.sum(axis)[:, None],
    "generic_logsumexp": lambda pairs, axis: scipy.special.logsumexp(pairs, axis=axis)[:, None],
    "generic_argmin": lambda pairs, axis: pairs.argmin(axis)[:, None],
    "generic_argkmin": lambda pairs, axis: np.argsort(pairs, axis).take(range(4), axis),
}


@pytest.mark.parametrize(("place", "library"), PLACES, ids=["numpy", "torch", "either"])
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("name", ORACLES)
def test_the_output_tells_which_index_is_kept(
    name: str, axis: int, place: Any, library: str
) -> None:
    arrays, pairs = data()
    output = f"a = {'Vi' if axis == 1 else 'Vj'}({4 if name == 'generic_argkmin' else 1})"
    reduced = getattr(place, name)(FORMULA, output, *ALIASES)
    got = np.asarray(reduced(*(ARRAYS[library](a) for a in arrays)))
    want = ORACLES[name](pairs, axis)
    if name == "generic_argkmin" and axis == 0:
        want = want.T
    assert_close(got, want, terms=23)


def test_options_are_those_of_genred() -> None:
    reduced = pairfold.generic_sum(
        "x*y", "a = Vi(1)", "x = Vi(1)", "y = Vj(1)", dtype_acc="float64"
    )
    assert reduced.accuracy.dtype == "float64"
    with pytest.warns(DeprecationWarning, match="dtype"):
        pairfold.numpy.generic_sum("x*y", "a = Vi(1)", "x = Vi(1)", "y = Vj(1)", dtype="float64")


def test_a_result_is_not_a_parameter() -> None:
    with pytest.raises(FormulaError, match="indexed by i or by j"):
        pairfold.generic_sum("x*y", "a = Pm(1)", "x = Vi(1)", "y = Vj(1)")
    with pytest.raises(ValueError, match="cannot be read"):
        pairfold.numpy.generic_argmin("x*y", "a", "x = Vi(1)", "y = Vj(1)")


@pytest.mark.parametrize("name", ORACLES)
def test_they_say_what_they_are(name: str) -> None:
    for place, _ in PLACES:
        function = getattr(place, name)
        assert function.__name__ == name
        assert "Genred" in function.__doc__
