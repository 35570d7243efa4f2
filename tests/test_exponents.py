"""Derivatives of sums of exponentials: exponents of any magnitude, rows that hold nothing."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from products import some

from pairfold.torch import Genred, LazyTensor

SHIFTED = ["Max_SumShiftExp", "Max_SumShiftExpWeight"]
NAMES = ["LogSumExp", "LogSumExp+weight", "LogSumExpWeight", "SumSoftMaxWeight", *SHIFTED]


def dense(name: str, f: Any, b: Any) -> Any:
    """The reduction over axis 1 of exponents f (M, N), with weights b (N, D)."""
    if name == "LogSumExp":
        return torch.logsumexp(f, 1, keepdim=True)
    if name == "SumSoftMaxWeight":
        return torch.softmax(f, 1) @ b
    if name in SHIFTED:
        top = f.amax(1, keepdim=True)
        terms = (f - top).exp()
        terms = terms @ b if name.endswith("Weight") else terms.sum(1, keepdim=True)
        return torch.cat([top, terms], 1)
    return torch.logsumexp(f[:, :, None] + b.log(), 1)


def program(name: str, formula: str, axis: int, *aliases: str) -> Genred:
    """The same as a reduction of a formula of x (kept), y (reduced), with weights b."""
    kept, reduced = ("Vi", "Vj") if axis == 1 else ("Vj", "Vi")
    own = [f"x = {kept}(3)", f"y = {reduced}(3)", f"b = {reduced}(2)", *aliases]
    options = {"formula2": "b"} if name not in ("LogSumExp", "Max_SumShiftExp") else {}
    return Genred(formula, own, name.split("+")[0], axis=axis, **options)


def gradients(result: Any, inputs: list[Any]) -> list[Any]:
    """Those of a sum of the results with random signs, which are exact in every dtype."""
    generator = torch.Generator().manual_seed(1)
    signs = 2 * torch.randint(0, 2, result.shape, generator=generator) - 1
    return list(torch.autograd.grad((result * signs.to(result)).sum(), inputs))


def data(dtype: Any, spread: float = 1.0) -> list[Any]:
    """x (23, 3), y (19, 3), b (19, 2)."""
    generator = torch.Generator().manual_seed(0)
    x, y = (spread * torch.randn(n, 3, generator=generator) for n in (23, 19))
    b = 0.5 + torch.rand(19, 2, generator=generator)
    return [v.to(dtype).requires_grad_() for v in (x, y, b)]


def error(got: list[Any], want: list[Any]) -> float:
    """The largest error, against the largest gradient of its kind."""
    pairs = zip(got, want, strict=True)
    return max(float((a - b).abs().max() / b.abs().max().clamp(min=1e-30)) for a, b in pairs)


# Exponents of x and y as text, as the same in torch: their sizes are up to some 1e10.
EXPONENTS: dict[str, Callable[[Any, Any], Any]] = {
    "-7*SqDist(x,y)": lambda x, y: -7 * ((x - y) ** 2).sum(-1),
    "-1000000*SqDist(x,y)": lambda x, y: -1e6 * ((x - y) ** 2).sum(-1),
    "-SqDist(x,y)/IntCst(3)": lambda x, y: -((x - y) ** 2).sum(-1) / 3,
    "70*(x|y)+Elem(y,0)": lambda x, y: 70 * (x * y).sum(-1) + y[..., 0],
    "900*Exp((Elem(x,0)+Elem(y,1))*0.01)": lambda x, y: (
        900 * ((x[..., 0] + y[..., 1]) * 0.01).exp()
    ),
    "-99*SqDist(x,y)/(1+Square(Elem(x,1)))": lambda x, y: (
        -99 * ((x - y) ** 2).sum(-1) / (1 + x[..., 1] ** 2)
    ),
}


def errors(name: str, formula: str, axis: int, dtype: Any, spread: float) -> tuple[float, float]:
    """Ours, and that of the dense program in float32."""
    given = data(dtype, spread)
    inputs = 3 if name not in ("LogSumExp", "Max_SumShiftExp") else 2
    found = [gradients(program(name, formula, axis)(*given), given[:inputs])]
    for kind in (torch.float32, torch.float64):
        x, y, b = (v.detach().to(kind).requires_grad_() for v in given)
        f = EXPONENTS[formula](x[:, None], y[None])
        found.append(gradients(dense(name, f, b), [x, y, b][:inputs]))
    return error(found[0], found[2]), error(found[1], found[2])


def check(name: str, formula: str, axis: int, dtype: Any, spread: float) -> None:
    """Our error is a few times that of the dense program, or a few units of rounding."""
    ours, theirs = errors(name, formula, axis, dtype, spread)
    single = 8 * theirs + 16 * 2.0**-23
    bound = {
        torch.float64: single * 2.0**-27,
        torch.float32: single,
        torch.float16: single + 2.0**-11,
        torch.bfloat16: single + 2.0**-8,
    }[dtype]
    assert ours <= bound, (formula, name, axis, dtype, spread, ours, theirs)


@some(
    "name,formula",
    [(name, formula) for name in NAMES for formula in EXPONENTS],
    lambda entry: (list(NAMES).index(entry[0]) + list(EXPONENTS).index(entry[1])) % 2 == 0,
)
def test_gradients_measure_from_exponents_as_they_were_rounded(name: str, formula: str) -> None:
    axis = (NAMES.index(name) + list(EXPONENTS).index(formula)) % 2
    check(name, formula, axis, torch.float32, 30)


@pytest.mark.parametrize(
    ("dtype", "axis", "spread"),
    [
        (torch.float32, 0, 1),
        (torch.float64, 0, 30),
        (torch.float64, 1, 1),
        (torch.float16, 1, 1),
        (torch.bfloat16, 0, 30),
    ],
)
@pytest.mark.parametrize("name", NAMES)
def test_the_same_in_every_dtype(name: str, dtype: Any, axis: int, spread: float) -> None:
    check(name, "-7*SqDist(x,y)", axis, dtype, spread)


def test_the_same_of_lazy_tensors() -> None:
    x, y, _ = data(torch.float32, 30)
    found = []
    for kind in (torch.float32, torch.float64):
        a, b = (v.detach().to(kind).requires_grad_() for v in (x, y))
        f = -7 * ((a[:, None] - b[None]) ** 2).sum(-1)
        found.append(gradients(torch.logsumexp(f, 1, keepdim=True), [a, b]))
    lazy = -7 * ((LazyTensor(x[:, None]) - LazyTensor(y[None])) ** 2).sum(-1)
    ours = gradients(lazy.logsumexp(dim=1), [x, y])
    assert error(ours, found[1]) <= 8 * error(found[0], found[1]) + 16 * 2.0**-23


@pytest.mark.parametrize("name", NAMES)
def test_second_derivatives(name: str) -> None:
    """Nothing depends on where the maximum is, so that it may be taken for a constant."""
    x, y, b = (v.detach().double().requires_grad_() for v in data(torch.float32, 0.4))
    ours = program(name, "-3*SqDist(x,y)", 1)
    f = -3 * ((x[:, None] - y[None]) ** 2).sum(-1)
    inputs = [x, y, b] if name not in ("LogSumExp", "Max_SumShiftExp") else [x, y]
    found = []
    for result in (ours(x, y, b), dense(name, f, b)):
        first = torch.autograd.grad(result.square().sum(), inputs, create_graph=True)
        found.append(gradients(torch.cat([g.sin().flatten() for g in first]), inputs))
    assert error(*found) <= 1e-11


@pytest.mark.parametrize(("dtype", "axis"), [(torch.float32, 1), (torch.bfloat16, 0)])
@pytest.mark.parametrize("name", NAMES)
def test_rows_of_nothing_send_nothing(name: str, dtype: Any, axis: int) -> None:
    """Rows whose exponents are all -inf: zero gradients, whatever is sent in; others are finite."""
    x, y, b = data(dtype)
    some = torch.ones(23, dtype=torch.bool)
    some[[0, 3, 22]] = False
    mask = torch.where(some, 0.0, -math.inf)[:, None].to(dtype)
    kept = "m = Vi(1)" if axis == 1 else "m = Vj(1)"
    reduction = program(name, "-SqDist(x,y)/IntCst(3)+m", axis, kept)
    inputs = [x, y, b] if name not in ("LogSumExp", "Max_SumShiftExp") else [x, y]
    whole = gradients(reduction(x, y, b, mask), inputs)
    alone = [v.detach().requires_grad_() for v in (x, y, b)]
    result = program(name, "-SqDist(x,y)/IntCst(3)+m", axis, kept)(*alone, mask)
    sliced = gradients(result[some], alone[: len(inputs)])
    rest = x.detach()[some].requires_grad_()
    want = gradients(
        program(name, "-SqDist(x,y)/IntCst(3)", axis)(rest, *alone[1:]),
        [rest, *alone[1 : len(inputs)]],
    )
    for found in (whole, sliced):
        assert all(torch.isfinite(g).all() for g in found)
        assert not found[0][~some].any()
    for got, expected in zip([sliced[0][some], *sliced[1:]], want, strict=True):
        torch.testing.assert_close(got, expected)
