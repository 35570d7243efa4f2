"""Formulas of any length, depth and sharing: an answer, or an error that says why not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from checks import assert_close

from pairfold.errors import DimError, UnsupportedError
from pairfold.lower import kernel
from pairfold.numpy import Genred, LazyTensor
from pairfold.settings import current
from pairfold.torch import LazyTensor as TorchLazyTensor

DEPTH = 300


def nested(levels: int, start: str, around: str) -> str:
    """A formula put into another, over and over."""
    for _ in range(levels):
        start = around.replace("_", start)
    return start


@pytest.mark.parametrize("dim", [3, 20])
@pytest.mark.parametrize(
    ("around", "factor"),
    [
        ("(x*Sum(_))", lambda d: d),
        ("SumT(Sum(_),{d})", lambda d: d),
        ("MatVecMult(A,_)", lambda d: d / 2),
        ("(x*Max(_))", lambda d: 1.0),
        ("Extract(Concat(_,x),0,{d})", lambda d: 1.0),
        ("(x*Norm2(_))", lambda d: d**0.5),
        ("TensorDot(A,_,[{d},{d}],[{d}],[1],[0])", lambda d: d / 2),
    ],
)
def test_nested_formulas(around: str, factor: Any, dim: int) -> None:
    levels = DEPTH if dim == 3 else 100
    formula = nested(levels, "y", around.replace("{d}", str(dim)))
    aliases = [f"x = Vi({dim})", f"y = Vj({dim})", f"A = Pm({dim * dim})"]
    given = np.ones((2, dim)), np.ones((3, dim)), np.full(dim * dim, 0.5)
    got = Genred(formula, aliases, axis=1)(*given)
    want = float(factor(dim)) ** levels
    assert_close(got / want, np.full((2, dim), 3.0), rtol=1e-12)


def test_many_arguments() -> None:
    count = 300
    aliases = [f"a{n} = {('Vi', 'Vj')[n % 2]}(1)" for n in range(count)]
    given = [np.full(((2, 3)[n % 2], 1), float(n)) for n in range(count)]
    formula = "+".join(f"a{n}" for n in range(count))
    got = Genred(formula, aliases, axis=1)(*given)
    assert_close(got, np.full((2, 1), 3.0 * count * (count - 1) / 2))


def test_sixty_squares() -> None:
    """2^60 factors, if they were listed."""
    x = np.array([[[1 + 2.0**-60]], [[1.0]]])
    lazy = LazyTensor(x) * LazyTensor(np.ones((1, 3, 1)))
    for _ in range(60):
        lazy = lazy * lazy
    assert_close(lazy.sum(1), np.full((2, 1), 3.0))
    y = torch.full((2, 1), 1 - 2.0**-52, dtype=torch.float64, requires_grad=True)
    tensor = TorchLazyTensor(y[:, None]) * TorchLazyTensor(torch.ones(1, 3, 1).double())
    for _ in range(60):
        tensor = tensor * tensor
    (gradient,) = torch.autograd.grad(tensor.sum(1).sum(), [y])
    want = 3 * 2.0**60 * np.exp(2.0**60 * np.log1p(-(2.0**-52)))
    assert_close(gradient, np.full((2, 1), want), rtol=1e-9)


def test_every_array_has_an_offset_however_many_there_are() -> None:
    fold = Genred("x*y", ["x = Vi(1)", "y = Vj(1)"], axis=1)._fold
    launcher = fold.launcher("float64", current())
    bound = launcher.bind(2, 3, 1, current())
    offsets, _ = launcher.call(bound, 2, 3, [(0, 0)] * 5001).alive
    assert offsets.shape == (5001,)
    assert not offsets.any()


@pytest.mark.parametrize(
    "formula",
    [
        "SumT(x|y,{n})",
        "Sum(SumT(x|y,{n}))",
        "Sum(OneHot(x|y,{n}))",
        "ExtractT(x,{n},{n}0)",
        "ElemT(x|y,{n},0)",
        "Zero({n})",
        "Tile(x,{n})",
        "Sum(TensorProd(SumT(x|y,100000),SumT(x|y,100000)))",
        "Extract(x,{n},1)",
        "Extract(x,0,{n})",
        "TensorDot(x,y,[{n}],[3],[0],[0])",
        "Var(0,{n},0)",
    ],
)
def test_dimensions_beyond_all_memory_are_refused(formula: str) -> None:
    with pytest.raises(DimError):
        Genred(formula.replace("{n}", str(10**18)), ["x = Vi(3)", "y = Vj(3)"])


def test_formulas_too_long_to_be_compiled_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert kernel._MOST_NODES == 50_000
    monkeypatch.setattr(kernel, "_MOST_NODES", 2000)
    formula = "+".join(["Sin(x)*y"] + [f"x*{n}" for n in range(1, 1200)])
    reduction = Genred(formula, ["x = Vi(1)", "y = Vj(1)"], axis=1)
    with pytest.raises(UnsupportedError, match="the limit is 2000"):
        reduction(np.ones((2, 1)), np.ones((3, 1)))
