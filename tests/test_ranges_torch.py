"""Derivatives of block-sparse reductions, against dense torch programs on the pairs left."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import test_reductions_torch as plain  # noqa: E402
from test_ranges import random_ranges  # noqa: E402

import pairfold.torch  # noqa: E402
from pairfold.errors import ArrayTypeError, DeviceError, RangeError  # noqa: E402
from pairfold.ops.reductions import REDUCTIONS  # noqa: E402

Tensor = Any
ROWS, COLUMNS, SEED = 9, 11, 3
NEUTRAL = {"Sum": 0.0, "Prod": 1.0, "Max": -math.inf, "Max_ArgMax": -math.inf, "Mean": math.nan}
NEUTRAL |= dict.fromkeys(("LogSumExp", "LogSumExpWeight"), -math.inf)
NEUTRAL |= dict.fromkeys(("Min", "Min_ArgMin", "KMin", "KMin_ArgKMin"), math.inf)
NEUTRAL["SumSoftMaxWeight"] = math.nan


def sparse(name: str, weighted: bool, axis: int) -> tuple[Callable[..., Tensor], Any]:
    """The value part of the sparse reduction, and its mask."""
    row = REDUCTIONS[name]
    options: dict[str, Any] = {"opt_arg": plain.K} if row.listed else {}
    options |= {"formula2": "b*c"} if weighted else {}
    formula = "Sum(Sin(p*x-y)+x*y)" if weighted or row.scalar else "Sin(p*x-y)+x*y"
    genred = pairfold.torch.Genred(formula, plain.ALIASES, name, axis=axis, **options)
    given, mask = random_ranges(SEED, ROWS, COLUMNS)
    ranges = tuple(map(torch.from_numpy, given))
    assert 0 < mask.sum() < mask.size
    assert not mask.any(axis).all()

    def run(*tensors: Tensor) -> Tensor:
        found = genred(*tensors, ranges=ranges)
        return found[0] if isinstance(found, tuple) else found

    return run, mask


def masked(name: str, weighted: bool, axis: int, mask: Any) -> Callable[..., Tensor]:
    """The dense program row by row, on the columns that are left."""
    real = plain.DENSE[name, weighted]

    def by_row(f: Tensor, g: Tensor | None) -> Tensor:
        found: list[Tensor] = []
        shape = real(f[..., :1, :, :], None if g is None else g[..., :1, :, :]).shape
        for r, keep in enumerate(mask if axis == 1 else mask.T):
            columns = torch.from_numpy(np.flatnonzero(keep))
            if not len(columns):
                found.append(neutral(name, f.new_empty(shape), f.dim()))
                continue
            part = None if g is None else g[..., r : r + 1, :, :][..., columns, :]
            found.append(real(f[..., r : r + 1, :, :][..., columns, :], part))
        joint = -3 if REDUCTIONS[name].listed else -2
        return torch.cat(found, joint)

    def run(*tensors: Tensor) -> Tensor:
        before = plain.DENSE[name, weighted]
        plain.DENSE[name, weighted] = by_row
        try:
            return plain.dense(name, weighted, axis)(*tensors)
        finally:
            plain.DENSE[name, weighted] = before

    return run


def neutral(name: str, like: Tensor, _: int) -> Tensor:
    if name.startswith("Max_SumShift"):
        found = torch.zeros_like(like)
        found[..., 0] = -math.inf
        return found
    return torch.full_like(like, NEUTRAL[name])


def finite(out: Tensor) -> Tensor:
    return torch.where(torch.isfinite(out), out, torch.zeros_like(out))


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("batch", ["plain", "broadcast"])
@plain.case
def test_derivatives_are_those_of_the_masked_program(
    name: str, weighted: bool, batch: str, axis: int
) -> None:
    run, mask = sparse(name, weighted, axis)
    tensors = plain.arguments(plain.BATCHES[batch], ROWS, COLUMNS)
    got, want = run(*tensors), masked(name, weighted, axis, mask)(*tensors)
    torch.testing.assert_close(got, want, equal_nan=True)
    weight = torch.randn_like(got)
    first, other = (
        plain.gradients((finite(out) * weight).sum(), tensors, create_graph=True)
        for out in (got, want)
    )
    plain.compare(first, other)
    if batch == "broadcast":
        return
    second, other2 = (
        plain.gradients(sum(g.sin().sum() for g in grads if g.requires_grad), tensors)
        for grads in (first, other)
    )
    plain.compare(second, other2)


@pytest.mark.parametrize("axis", [0, 1])
@plain.case
def test_forward_mode_is_that_of_the_masked_program(name: str, weighted: bool, axis: int) -> None:
    run, mask = sparse(name, weighted, axis)
    tensors = tuple(t.detach() for t in plain.arguments(rows=ROWS, columns=COLUMNS))
    tangents = tuple(torch.randn_like(t) for t in tensors)
    (_, got), (_, want) = (
        torch.func.jvp(lambda *t, f=f: finite(f(*t)), tensors, tangents)
        for f in (run, masked(name, weighted, axis, mask))
    )
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize("name", ["Sum", "Mean", "Min", "LogSumExp", "KMin"])
def test_vmap_is_one_more_batch_axis(name: str) -> None:
    run, _ = sparse(name, False, 1)
    lead = ((4,), (), (4,), (4,), ())
    tensors = [t.detach() for t in plain.arguments(lead, ROWS, COLUMNS)]
    where = tuple(0 if batch else None for batch in lead)
    got = torch.func.vmap(run, where)(*tensors)
    for k in range(4):
        one = [t[k] if batch else t for t, batch in zip(tensors, lead, strict=True)]
        torch.testing.assert_close(got[k], run(*one), equal_nan=True)
    grads = torch.func.vmap(torch.func.grad(lambda *t: finite(run(*t)).sum(), 1), where)(*tensors)
    for k in range(4):
        one = [t[k] if batch else t for t, batch in zip(tensors, lead, strict=True)]
        want = torch.func.grad(lambda *t: finite(run(*t)).sum(), 1)(*one)
        torch.testing.assert_close(grads[k], want)


def test_gradcheck_passes() -> None:
    run, _ = sparse("LogSumExp", True, 1)
    tensors = plain.arguments(rows=ROWS, columns=COLUMNS)
    assert torch.autograd.gradcheck(lambda *t: finite(run(*t)), tensors, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(lambda *t: finite(run(*t)), tensors)


def test_ranges_may_be_made_inside_a_transform() -> None:
    genred = pairfold.torch.Genred("x*x*y", ["x = Vi(1)", "y = Vj(1)"], axis=1)

    def run(x: Tensor, shift: Tensor | None = None) -> Tensor:
        half = (torch.tensor([[0, 2]]), torch.tensor([1]), torch.tensor([[0, 2]]))
        half = half if shift is None else (half[0], half[1], half[2] + shift)
        return genred(x, torch.ones(3, 1), ranges=half * 2).sum()

    x = torch.tensor([[1.0], [2.0]])
    assert torch.func.grad(run)(x).flatten().tolist() == [4, 8]
    assert torch.func.vmap(torch.func.grad(run))(x.expand(3, 2, 1))[1].flatten().tolist() == [4, 8]
    with pytest.raises(ArrayTypeError, match="redranges_j is mapped over"):
        torch.func.vmap(run)(x.expand(2, 2, 1), torch.tensor([0, 1]))


def test_ranges_are_those_of_the_call_even_if_they_change_later() -> None:
    genred = pairfold.torch.Genred("x*y", ["x = Vi(1)", "y = Vj(1)"], axis=1)
    blocks = torch.tensor([[0, 2]])
    ranges = (blocks, torch.tensor([1]), torch.tensor([[0, 3]]))
    ranges = (*ranges, torch.tensor([[0, 3]]), torch.tensor([1]), blocks)
    x, y = torch.ones(2, 1, requires_grad=True), torch.ones(3, 1, requires_grad=True)
    out = genred(x, y, ranges=ranges)
    blocks.fill_(0)
    out.sum().backward()
    assert x.grad.flatten().tolist() == [3, 3]
    assert y.grad.flatten().tolist() == [2, 2, 2]


def test_wrong_ranges_are_refused_where_gradients_are_asked_for() -> None:
    genred = pairfold.torch.Genred("x*y", ["x = Vi(1)", "y = Vj(1)"], axis=1)
    given, _ = random_ranges(SEED, ROWS, COLUMNS)
    x, y = torch.ones(1, 1, requires_grad=True), torch.ones(COLUMNS, 1)
    with pytest.raises(RangeError):
        genred(x, y, ranges=given)
    elsewhere = tuple(torch.from_numpy(part).to("meta") for part in given)
    with pytest.raises(DeviceError, match="ranges_i"):
        genred(x, y, ranges=elsewhere)
