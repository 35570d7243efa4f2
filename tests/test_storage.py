"""float16 and bfloat16 arrays: read and rounded exactly, computed with in float32."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from checks import assert_close, assert_same_bits
from products import every_pair

import pairfold
from pairfold.frontends.genred import Genred
from pairfold.ops.reductions import REDUCTIONS

HALF = {"float16": torch.float16, "bfloat16": torch.bfloat16}
NAMES = [row.name for row in REDUCTIONS.values() if not row.internal]
WEIGHTED = [name for name in NAMES if REDUCTIONS[name].weighted == "must"]


def every_number(dtype: torch.dtype) -> Any:
    """All 65536 bit patterns."""
    return torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)


@pytest.mark.parametrize("dtype", HALF.values(), ids=HALF)
@pytest.mark.parametrize("lanes", ["row", "column"])
@pytest.mark.parametrize("shape", ["adjacent", "strided", "interleaved", "columns"])
def test_every_number_is_read_and_written_exactly(
    dtype: torch.dtype, lanes: str, shape: str
) -> None:
    x = every_number(dtype)
    one = torch.ones(1, 1, dtype=dtype)
    if shape == "columns":  # as a maximum over columns, in groups of one
        x = x.reshape(-1, 1, 1)
        copy = Genred("x*y", ["x = Vj(1)", "y = Vi(1)"], "Max", axis=1)
        x = x[~torch.isnan(x).reshape(-1)]
    else:
        x = x.reshape(-1, 2)
        x = x.t().contiguous().t() if shape == "strided" else x
        x = x[:, :1] if shape == "adjacent" else x
        copy = Genred("x*y", [f"x = Vi({x.shape[-1]})", "y = Vj(1)"], "Sum", axis=1)
    with pairfold.settings(lanes=lanes):
        got = copy(x, one)
    assert got.dtype == dtype
    assert_same_bits(got.double().numpy(), x.double().numpy())


@pytest.mark.parametrize("dtype", HALF.values(), ids=HALF)
def test_results_are_rounded_to_nearest_ties_to_even(dtype: torch.dtype) -> None:
    """Halves of all differences of neighbours: products in float32 that fall between numbers."""
    x = every_number(dtype).reshape(-1, 1)
    factors = torch.tensor([[1.0, 0.5, 1.0078125, 1.0009765625, 1.5, 3.0]], dtype=dtype)
    product = Genred("x*y", ["x = Vi(1)", "y = Vj(6)"], "Sum", axis=1)
    got = product(x, factors)
    want = (x.float() * factors.float()).to(dtype)
    assert_same_bits(got.double().numpy(), want.double().numpy())


@every_pair(("name", NAMES), ("axis", [0, 1]), ("dtype", ["float16", "bfloat16"]))
def test_every_reduction_takes_half_precision(name: str, axis: int, dtype: str) -> None:
    rng = np.random.default_rng(3)
    row = REDUCTIONS[name]
    arrays = [rng.uniform(0.5, 1.5, shape) for shape in ((17, 3), (23, 3), (23, 2), (1,))]
    half = [torch.tensor(a, dtype=HALF[dtype]) for a in arrays]
    if axis == 0:
        half = [half[1], half[0], half[2], half[3]]
    weight = "b*a" if name in WEIGHTED else None
    formula = "SqDist(x,y)" if row.scalar or weight else "x*y"
    sides = ("Vi", "Vj") if axis == 1 else ("Vj", "Vi")
    aliases = [f"x = {sides[0]}(3)", f"y = {sides[1]}(3)", f"b = {sides[1]}(2)", "a = Pm(1)"]
    if axis == 0:
        half = [half[1], half[0], half[2], half[3]]
    reduce_half = Genred(
        formula, aliases, name, axis=axis, opt_arg=4 if row.top_k else None, formula2=weight
    )
    found = reduce_half(*half)
    wanted = reduce_half(*[h.float() for h in half])
    if not isinstance(found, tuple):
        found, wanted = (found,), (wanted,)
    for got, want in zip(found, wanted, strict=True):
        if want.dtype.is_floating_point:
            assert got.dtype == HALF[dtype]
            want = want.to(HALF[dtype])
        assert_same_bits(got.double().numpy(), want.double().numpy(), formula=name)


@pytest.mark.parametrize("batch", [(), (3,)])
def test_numpy_arrays_of_half_precision(batch: tuple[int, ...]) -> None:
    rng = np.random.default_rng(4)
    x, y = (rng.uniform(-1, 1, (*batch, n, 3)).astype(np.float16) for n in (17, 230))
    got = Genred("SqDist(x,y)", ["x = Vi(3)", "y = Vj(3)"], axis=1)(x, y)
    assert got.dtype == np.float16
    wide = x.astype(float)[..., :, None, :] - y.astype(float)[..., None, :, :]
    assert_close(got.astype(float), (wide**2).sum((-1, -2))[..., None], rtol=2.0**-11, atol=0)
    out = np.empty_like(got)
    assert Genred("SqDist(x,y)", ["x = Vi(3)", "y = Vj(3)"], axis=1)(x, y, out=out) is out
    assert_same_bits(out, got)


def test_sums_of_half_precision_do_not_saturate() -> None:
    """5000 ones: float16 alone would stop at 2048, bfloat16 at 256."""
    y = torch.ones(5000, 1, dtype=torch.bfloat16)
    count = Genred("y*x", ["x = Vi(1)", "y = Vj(1)"], axis=1)
    assert float(count(torch.ones(1, 1, dtype=torch.bfloat16), y)) == 4992  # 5000 rounded
    assert float(count(torch.ones(1, 1).half(), y.half())) == 5000


@pytest.mark.parametrize("dtype", HALF.values(), ids=HALF)
@pytest.mark.parametrize("name", ["Sum", "LogSumExp", "Min", "KMin", "SumSoftMaxWeight"])
def test_gradients_of_half_precision(name: str, dtype: torch.dtype) -> None:
    rng = np.random.default_rng(5)
    arrays = [torch.tensor(rng.uniform(0, 1, (n, 2)), dtype=dtype) for n in (17, 23)]
    formula2 = "y" if name == "SumSoftMaxWeight" else None
    length = 3 if name == "KMin" else None
    op = Genred(
        "SqDist(x,y)", ["x = Vi(2)", "y = Vj(2)"], name, axis=1, opt_arg=length, formula2=formula2
    )
    found = []
    for kind in (dtype, torch.float32):
        given = [a.to(kind).requires_grad_() for a in arrays]
        found.append(torch.autograd.grad(op(*given).sum(), given))
    for got, want in zip(*found, strict=True):
        assert got.dtype == dtype
        # The saved results and the gradients that flow in are half numbers, too.
        rtol = 8 * torch.finfo(dtype).eps
        assert_close(got.double().numpy(), want.double().numpy(), rtol=rtol)
