"""PyKeOps' raw layouts in `out=`: filled, and the finished result returned beside them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from checks import assert_close

from pairfold.dropin.genred import Genred
from pairfold.errors import DTypeError, ShapeError

ALIASES = ["x = Vi(2)", "y = Vj(2)", "b = Vj(3)"]
SCALAR, VECTOR = "-SqDist(x,y)", "x-y"


def data() -> tuple[list[Any], Any, Any]:
    rng = np.random.default_rng(0)
    x, y, b = (rng.normal(size=shape) for shape in ((17, 2), (23, 2), (23, 3)))
    wide = x[:, None] - y
    return [x, y, b], -(wide**2).sum(-1), wide


def shifted(pairs: Any, b: Any) -> list[Any]:
    top = pairs.max(1, keepdims=True)
    terms = np.exp(pairs - top)
    return [top, terms.sum(1, keepdims=True), terms @ b]


def expected(name: str) -> Any:
    (_, _, b), pairs, wide = data()
    top, total, sums = shifted(pairs, b)
    order = np.argsort(wide, axis=1)[:, :4]
    smallest = np.take_along_axis(wide, order, 1)
    extremes = {"ArgMin": wide.argmin(1), "ArgMax": wide.argmax(1)}
    if name in extremes:
        return extremes[name]
    return {
        "LogSumExp": np.hstack([top, total]),
        "LogSumExpWeight": np.hstack([top, sums]),
        "SumSoftMaxWeight": np.hstack([top, total, sums]),
        "Min_ArgMin": np.hstack([wide.min(1), wide.argmin(1)]),
        "Max_ArgMax": np.hstack([wide.max(1), wide.argmax(1)]),
        "KMin": smallest.reshape(17, -1),
        "ArgKMin": order.reshape(17, -1),
        "KMin_ArgKMin": np.stack([smallest, order], axis=2).reshape(17, -1),
    }[name]


NAMES = ["ArgMin", "ArgMax", "LogSumExp", "LogSumExpWeight", "SumSoftMaxWeight", "Min_ArgMin"]
NAMES += ["Max_ArgMax", "KMin", "ArgKMin", "KMin_ArgKMin"]


@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize("name", NAMES)
def test_out_of_the_raw_layout_is_filled(name: str, library: str) -> None:
    arrays, _, _ = data()
    weighted = name in ("LogSumExpWeight", "SumSoftMaxWeight")
    exponential = weighted or name == "LogSumExp"
    genred = Genred(
        SCALAR if exponential else VECTOR,
        ALIASES,
        name,
        axis=1,
        opt_arg=4 if "KMin" in name else None,
        formula2="b" if weighted else None,
    )
    want = expected(name)
    out: Any = np.full(want.shape, np.nan)
    if library == "torch":
        arrays, out = [torch.tensor(a) for a in arrays], torch.tensor(out)
    found, plain = genred(*arrays, out=out), genred(*arrays)
    assert_close(np.asarray(out), want, terms=23)
    several = isinstance(plain, tuple)
    for one, other in zip(*((found, plain) if several else ((found,), (plain,))), strict=True):
        np.testing.assert_array_equal(one, other)


def test_out_of_neither_layout_is_refused() -> None:
    arrays, _, _ = data()
    genred = Genred(SCALAR, ALIASES, "LogSumExp", axis=1)
    with pytest.raises(ShapeError, match="out must have shape"):
        genred(*arrays, out=np.empty((17, 3)))
    with pytest.raises(DTypeError, match="float64"):
        genred(*arrays, out=np.empty((17, 2), np.float32))
