"""Derivatives of block-sparse reductions, against dense torch programs on the pairs left."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import test_reductions_torch as plain  # noqa: E402
from test_ranges import random_ranges, symmetric_ranges  # noqa: E402

import pairfold.numpy  # noqa: E402
import pairfold.torch  # noqa: E402
from pairfold.errors import (  # noqa: E402
    ArrayTypeError,
    DeviceError,
    DTypeError,
    RangeError,
    ShapeError,
)
from pairfold.ops.reductions import REDUCTIONS  # noqa: E402
from pairfold.settings import settings  # noqa: E402

pytestmark = pytest.mark.usefixtures("interpreted_kernels")

Tensor = Any
ROWS, COLUMNS, SEED = 9, 11, 3
NEUTRAL = {"Sum": 0.0, "Prod": 1.0, "Max": -math.inf, "Max_ArgMax": -math.inf, "Mean": math.nan}
NEUTRAL |= dict.fromkeys(("LogSumExp", "LogSumExpWeight"), -math.inf)
NEUTRAL |= dict.fromkeys(("Min", "Min_ArgMin", "KMin", "KMin_ArgKMin"), math.inf)
NEUTRAL["SumSoftMaxWeight"] = math.nan


def sparse(name: str, weighted: bool, axis: int) -> tuple[Callable[..., Tensor], Any]:
    """The value part of the sparse reduction, and its mask."""
    row = REDUCTIONS[name]
    options: dict[str, Any] = {"opt_arg": plain.K} if row.top_k else {}
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
        joint = -3 if REDUCTIONS[name].top_k else -2
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


@pytest.mark.parametrize("way", ["twice", "other axis", "broadcast"])
@plain.case
def test_derivatives_are_those_of_the_masked_program(name: str, weighted: bool, way: str) -> None:
    """Twice along one axis, once along the other, without a batch and with; reductions alternate.

    Without ranges, `test_reductions_torch.py` has second derivatives along both axes.
    """
    axis = list(plain.DENSE).index((name, weighted)) % 2
    axis = axis if way == "twice" else 1 - axis
    batch = "broadcast" if way == "broadcast" else "plain"
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
    if way != "twice":
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


@settings(backend="llvm")  # many calls
def test_gradcheck_passes() -> None:
    run, _ = sparse("LogSumExp", True, 1)
    tensors = plain.arguments(rows=ROWS, columns=COLUMNS)
    assert torch.autograd.gradcheck(lambda *t: finite(run(*t)), tensors, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(lambda *t: finite(run(*t)), tensors, fast_mode=True)


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


# -- both halves -----------------------------------------------------------------------------------


def one_half(axis: int) -> tuple[Any, ...]:
    """Ranges whose half for results on the other index is empty, as tensors."""
    given, _ = random_ranges(SEED, ROWS, COLUMNS)
    nothing = (np.zeros((0, 2), int), np.zeros(0, int), np.zeros((0, 2), int))
    halves = (*given[:3], *nothing) if axis == 1 else (*nothing, *given[3:])
    return tuple(map(torch.from_numpy, halves))


@pytest.mark.parametrize("axis", [0, 1])
def test_gradients_that_need_one_half_need_no_other(axis: int) -> None:
    """Those to rows of the result, to parameters, and along tangents."""
    genred = pairfold.torch.Genred("Sin(p*x-y)", ["x=Vi(1)", "y=Vj(1)", "p=Pm(1)"], axis=axis)
    given, mask = random_ranges(SEED, ROWS, COLUMNS)
    rng = torch.Generator().manual_seed(0)
    x, y, p = (torch.rand(n, dtype=torch.float64, generator=rng) for n in (ROWS, COLUMNS, 1))

    def run(ranges: Any, *tensors: Tensor) -> Tensor:
        return genred(tensors[0][:, None], tensors[1][:, None], tensors[2], ranges=ranges)[:, 0]

    def dense(x: Tensor, y: Tensor, p: Tensor) -> Tensor:
        return (torch.sin(p * x[:, None] - y) * torch.from_numpy(mask)).sum(axis)

    both, half = tuple(map(torch.from_numpy, given)), one_half(axis)
    for ranges in (both, half):
        for place in (0 if axis == 1 else 1, 2):
            got, want = (
                torch.func.grad(lambda *t, f=f: f(*t).sin().sum(), place)(x, y, p)
                for f in (lambda *t, r=ranges: run(r, *t), dense)
            )
            torch.testing.assert_close(got, want)
        got, want = (
            torch.func.jvp(f, (x, y, p), (x, y, p))[1]
            for f in (lambda *t, r=ranges: run(r, *t), dense)
        )
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize("axis", [0, 1])
def test_gradients_to_the_reduced_index_need_both_halves(axis: int) -> None:
    genred = pairfold.torch.Genred("Sin(x-y)", ["x=Vi(1)", "y=Vj(1)"], axis=axis)
    x, y = torch.ones(ROWS, 1), torch.ones(COLUMNS, 1, requires_grad=True)
    x.requires_grad_(axis == 0)
    y.requires_grad_(axis == 1)
    out = genred(x, y, ranges=one_half(axis))
    with pytest.raises(RangeError, match="both halves of ranges") as caught:
        out.sum().backward()
    assert "0 pairs" in caught.value.found
    assert "from_matrix" in caught.value.hint


@pytest.mark.parametrize("fault", [[5, 8, 9], [5, 9, 8], [5, 8, 8, 8]])
def test_a_half_that_does_not_fit_matters_where_it_is_read(fault: list[int]) -> None:
    """As where slices count one interval more than there are."""
    genred = pairfold.torch.Genred("p*Sin(x-y)", ["x=Vi(1)", "y=Vj(1)", "p=Pm(1)"], axis=1)
    given, _ = random_ranges(SEED, ROWS, COLUMNS)
    both = [torch.from_numpy(np.asarray(part)) for part in given]
    unfit = [*both[:4], torch.tensor(fault), both[5]]
    x, y, p = (torch.rand(n, 1, requires_grad=True) for n in (ROWS, COLUMNS, 1))
    want = genred(x, y.detach(), p[0], ranges=both)
    found = genred(x, y.detach(), p[0], ranges=unfit)
    torch.testing.assert_close(found, want, rtol=0, atol=0)
    for gradients in zip(
        torch.autograd.grad(found.sin().sum(), [x, p]),
        torch.autograd.grad(want.sin().sum(), [x, p]),
        strict=True,
    ):
        torch.testing.assert_close(*gradients)
    with pytest.raises((RangeError, ShapeError), match="slices_j"):
        genred(x, y, p[0], ranges=unfit).sum().backward()


def test_halves_of_as_many_other_pairs_are_told_apart() -> None:
    genred = pairfold.torch.Genred("Sin(x-y)", ["x=Vi(1)", "y=Vj(1)"], axis=1)
    blocks = torch.tensor([[0, 1], [1, 2]])
    ends, one, other = torch.tensor([1, 2]), blocks, blocks.flip(0)
    x = torch.ones(2, 1, requires_grad=True)
    y = torch.ones(2, 1, requires_grad=True)
    genred(x, y, ranges=(blocks, ends, other, blocks, ends, other)).sum().backward()
    with pytest.raises(RangeError, match=r"2 pairs in \(ranges_i.* 2 pairs in .* not the same"):
        genred(x, y, ranges=(blocks, ends, one, blocks, ends, other)).sum().backward()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_has_sparse_gradients(dtype: str) -> None:
    given, mask = random_ranges(SEED, ROWS, COLUMNS)
    genred = pairfold.torch.Genred("x*y", ["x = Vi(1)", "y = Vj(1)"], axis=1)
    x, y = (torch.ones(n, 1, dtype=getattr(torch, dtype)) for n in (ROWS, COLUMNS))
    x.requires_grad_()
    y.requires_grad_()
    out = genred(x, y, ranges=given)
    out.sum().backward()
    assert out.dtype == x.grad.dtype == x.dtype
    assert out.flatten().tolist() == x.grad.flatten().tolist() == mask.sum(1).tolist()
    assert y.grad.flatten().tolist() == mask.sum(0).tolist()


@pytest.mark.parametrize("data", ["numpy", "torch"])
def test_ranges_of_either_library_will_do(data: str) -> None:
    given, mask = random_ranges(SEED, ROWS, COLUMNS)
    mixed = tuple(torch.from_numpy(p) if n % 2 else p for n, p in enumerate(given))
    kind = pairfold.torch.Genred if data == "torch" else pairfold.numpy.Genred
    x, y = torch.ones(ROWS, 1), torch.ones(COLUMNS, 1)
    arrays = (x, y) if data == "torch" else (x.numpy(), y.numpy())
    for ranges in (given, tuple(map(torch.from_numpy, given)), mixed):
        got = kind("x*y", ["x = Vi(1)", "y = Vj(1)"], axis=1)(*arrays, ranges=ranges)
        assert got.flatten().tolist() == mask.sum(1).tolist()


@pytest.mark.parametrize("change", ["float", "bool"])
def test_tensors_of_other_numbers_are_refused(change: str) -> None:
    given, _ = random_ranges(SEED, ROWS, COLUMNS)
    ranges = [torch.from_numpy(part) for part in given]
    ranges[2] = getattr(ranges[2], change)()
    genred = pairfold.torch.Genred("x*y", ["x = Vi(1)", "y = Vj(1)"], axis=1)
    with pytest.raises(DTypeError, match="redranges_j must hold whole numbers"):
        genred(torch.ones(ROWS, 1), torch.ones(COLUMNS, 1), ranges=tuple(ranges))


# -- lazy tensors and systems ----------------------------------------------------------------------


def test_lazy_tensors_with_ranges_have_gradients() -> None:
    given, mask = random_ranges(SEED, ROWS, COLUMNS)
    ranges = tuple(map(torch.from_numpy, given))
    rng = torch.Generator().manual_seed(0)
    shapes = ((ROWS, 2), (COLUMNS, 2), (COLUMNS, 3))
    tensors = [torch.rand(s, dtype=torch.float64, generator=rng).requires_grad_() for s in shapes]
    found: list[list[Tensor]] = []
    for lazy in (True, False):
        x, y, b = tensors
        if lazy:
            i, j = pairfold.torch.LazyTensor(x[:, None]), pairfold.torch.LazyTensor(y[None])
            k = (-((i - j) ** 2).sum(-1)).exp()
            k.ranges = ranges
            out = k.T @ (k @ b)
        else:
            table = (-((x[:, None] - y[None]) ** 2).sum(-1)).exp() * torch.from_numpy(mask)
            out = table.T @ (table @ b)
        first = torch.autograd.grad(out.sin().sum(), tensors, create_graph=True)
        second = torch.autograd.grad(sum(g.sin().sum() for g in first), tensors)
        found.append([out, *first, *second])
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("lazy", [False, True])
def test_systems_with_ranges_have_gradients(lazy: bool) -> None:
    given, mask = symmetric_ranges(ROWS)
    ranges = tuple(map(torch.from_numpy, given))
    aliases = ["x = Vi(2)", "y = Vj(2)", "b = Vj(1)", "g = Pm(1)"]
    solver = pairfold.torch.KernelSolve("Exp(-g*SqDist(x,y))*b", aliases, "b", axis=1)
    rng = torch.Generator().manual_seed(0)
    x, b, g, alpha = (
        torch.rand(s, dtype=torch.float64, generator=rng) for s in ((ROWS, 2), (ROWS, 1), 1, ())
    )
    alpha = alpha + 3
    wrt = [t.requires_grad_() for t in (x, b, g, alpha)]

    def solved(x: Tensor, b: Tensor, g: Tensor, alpha: Tensor) -> Tensor:
        if not lazy:
            return solver(x, x, b, g, alpha=alpha, tol=1e-14, ranges=ranges)
        i, j = pairfold.torch.LazyTensor(x[:, None]), pairfold.torch.LazyTensor(x[None])
        k = (-pairfold.torch.Pm(g) * ((i - j) ** 2).sum(-1)).exp()
        k.ranges = ranges
        return k.solve(b, alpha=alpha, tol=1e-14)

    def dense(x: Tensor, b: Tensor, g: Tensor, alpha: Tensor) -> Tensor:
        table = (-g * ((x[:, None] - x[None]) ** 2).sum(-1)).exp() * torch.from_numpy(mask)
        return torch.linalg.solve(table + alpha * torch.eye(ROWS, dtype=torch.float64), b)

    found: list[list[Tensor]] = []
    for function in (solved, dense):
        out = function(*wrt)
        first = torch.autograd.grad(out.sin().sum(), wrt, create_graph=True)
        second = torch.autograd.grad(sum(v.sin().sum() for v in first), wrt)
        found.append([out, *first, *second])
        plain = [t.detach() for t in wrt]
        found[-1].append(torch.func.jvp(function, tuple(plain), tuple(plain))[1])
    torch.testing.assert_close(*found, rtol=1e-8, atol=1e-8)
    if not lazy:
        batch = torch.stack([b.detach(), -2 * b.detach()])
        plain = [t.detach() for t in wrt]
        got = torch.func.vmap(solved, (None, 0, None, None))(plain[0], batch, *plain[2:])
        torch.testing.assert_close(got[1], -2 * dense(*plain), rtol=1e-8, atol=1e-8)
