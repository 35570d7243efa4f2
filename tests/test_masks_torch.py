"""Masks in what torch does with programs: compiled, exported, mapped, differentiated again."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from checks import assert_close
from torch._dynamo.testing import CompileCounter

import pairfold as pf
from pairfold import Genred, Vi, Vj
from pairfold.errors import DTypeError, ShapeError
from pairfold.frontends import torchops
from pairfold.frontends.identity import identity

M, N = 9, 12
F = torch.func
ALIASES = ["x=Vi(3)", "y=Vj(3)"]


@pytest.fixture(autouse=True)
def anew() -> None:
    """Programs are compiled as in a new process."""
    torch.manual_seed(0)
    torch._dynamo.reset()


def points(*batch: int) -> tuple[Any, Any, Any, Any]:
    """Points, and labels of them."""
    return (
        torch.randn(*batch, M, 3, dtype=torch.float64),
        torch.randn(*batch, N, 3, dtype=torch.float64),
        torch.randint(-2, 2, (*batch, M)),
        torch.randint(-2, 2, (*batch, N)),
    )


def finite(x: Any) -> Any:
    return torch.where(x.isfinite(), x, torch.zeros_like(x))


MASKS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "causal": (lambda x, y, a, b: pf.causal(), lambda i, j, d, a, b: j <= i),
    "band": (lambda x, y, a, b: pf.band(3), lambda i, j, d, a, b: abs(i - j) <= 3),
    "joined": (
        lambda x, y, a, b: pf.exclude_self() & (pf.i >= 2) | pf.radius(x, y, 0.5),
        lambda i, j, d, a, b: (i != j) & (i >= 2) | (d <= 0.25),
    ),
    "same": (lambda x, y, a, b: pf.same(a, b), lambda i, j, d, a, b: a[:, None] == b),
    "document": (
        lambda x, y, a, b: pf.same(a.int(), b) & pf.causal(),
        lambda i, j, d, a, b: (a[:, None] == b) & (j <= i),
    ),
}
masks = pytest.mark.parametrize("mask", list(MASKS))


def lazy(mask: str) -> Callable[..., Any]:
    def program(x: Any, y: Any, a: Any, b: Any) -> Any:
        f = -(Vi(x) - Vj(y)).sqnorm2()
        return f.sumsoftmaxweight(Vj(y), axis=1, where=MASKS[mask][0](x, y, a, b))

    return program


def dense(mask: str) -> Callable[..., Any]:
    def program(x: Any, y: Any, a: Any, b: Any) -> Any:
        d = ((x[:, None] - y) ** 2).sum(-1)
        i, j = torch.arange(x.shape[0])[:, None], torch.arange(y.shape[0])
        keep = MASKS[mask][1](i, j, d, a, b)
        return (torch.softmax(torch.where(keep, -d, -1e30), 1) * keep) @ y

    return program


def slopes(program: Callable[..., Any], x: Any, y: Any, *labels: Any) -> list[Any]:
    u, v = x.clone().requires_grad_(), y.clone().requires_grad_()
    found = program(u, v, *labels)
    return [found.detach(), *torch.autograd.grad(found.sin().sum(), (u, v))]


# -- torch.compile --------------------------------------------------------------------------------


@masks
def test_masks_that_compiled_programs_make(mask: str) -> None:
    given = points()
    compiled = torch.compile(lazy(mask), backend="aot_eager", fullgraph=True)
    for got, want in zip(slopes(compiled, *given), slopes(dense(mask), *given), strict=True):
        assert_close(got, want, rtol=1e-9)


@masks
def test_new_lengths_are_not_compiled_again(mask: str) -> None:
    counter = CompileCounter()
    compiled = torch.compile(lazy(mask), backend=counter, fullgraph=True, dynamic=True)
    x, y, a, b = points()
    for m, n in ((9, 12), (5, 7), (8, 4)):
        given = [part.clone() for part in (x[:m], y[:n], a[:m], b[:n])]
        assert_close(compiled(*given), dense(mask)(*given), rtol=1e-9)
    assert counter.frame_count == 1


def test_masks_that_are_made_outside_of_compiled_programs() -> None:
    x, y, a, b = points()
    for mask in (pf.causal(), pf.same(a, b), pf.lengths([4, 5], [6, 6]) & pf.causal()):

        def program(x: Any, y: Any, mask: Any = mask) -> Any:
            return (Vi(x) - Vj(y)).sqnorm2().sum(axis=1, where=mask)

        assert_close(torch.compile(program, backend="eager")(x, y), program(x, y))


@pytest.mark.parametrize("where", ["Ind(j) <= Ind(i)", "SqDist(x,y) <= 4", pf.causal()])
@pytest.mark.parametrize("name", ["Sum", "Mean", "LogSumExp", "Min_ArgMin"])
def test_formulas_with_masks_in_graphs(name: str, where: Any) -> None:
    kernel = Genred("SqDist(x,y)", ALIASES, name, axis=1, where=where)
    x, y, *_ = points()

    def program(x: Any, y: Any) -> Any:
        found = kernel(x, y)
        return found[0] if isinstance(found, tuple) else found

    compiled = torch.compile(program, backend="aot_eager", fullgraph=True)
    for got, want in zip(slopes(compiled, x, y), slopes(program, x, y), strict=True):
        assert_close(got, want)


def test_exported_programs_have_masks() -> None:
    class Module(torch.nn.Module):
        def forward(self, x: Any, y: Any, a: Any, b: Any) -> Any:
            return lazy("document")(x, y, a, b)

    given = points()
    m, n = torch.export.Dim("m"), torch.export.Dim("n")
    shapes = ({0: m}, {0: n}, {0: m}, {0: n})
    program = torch.export.export(Module(), given, dynamic_shapes=shapes, strict=True)
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    again = torch.export.load(file).module()
    for size in (M, 6):
        x, y, a, b = given
        part = x[:size], y[:size], a[:size], b[:size]
        assert_close(again(*part), dense("document")(*part), rtol=1e-9)


def test_operators_with_masks_pass_the_checks_of_torch() -> None:
    assert torchops  # which makes them
    x, y, *_ = points()
    kernel = Genred("SqDist(x,y)", ALIASES, "LogSumExp", axis=1, where="Ind(j) <= Ind(i)")
    key = identity(kernel._fold)
    given = (key, [x.requires_grad_(), y.requires_grad_()])
    found = torch.library.opcheck(torch.ops.pairfold.reduce.default, given)
    assert set(found.values()) == {"SUCCESS"}


# -- torch.func -----------------------------------------------------------------------------------


@masks
def test_transformations_are_those_of_dense_programs(mask: str) -> None:
    ours, theirs = lazy(mask), dense(mask)
    x, y, a, b = points(3)
    for dims in ((0, 0, 0, 0), (0, None, None, None), (None, 0, 0, None)):
        given = [t if d == 0 else t[0] for t, d in zip((x, y, a, b), dims, strict=True)]
        assert_close(F.vmap(ours, dims)(*given), F.vmap(theirs, dims)(*given), rtol=1e-9)
    one, labels = (x[0], y[0]), (a[0], b[0])

    def loss(program: Callable[..., Any]) -> Callable[..., Any]:
        return lambda x, y: program(x, y, *labels).sin().sum()

    for transform in (
        lambda f: F.grad(f, (0, 1))(*one),
        lambda f: F.jvp(f, one, (x[1], y[1])),
        lambda f: F.hessian(f, (0, 1))(*one)[0],
        lambda f: F.vmap(F.grad(f), (0, None))(x, y[0]),
    ):
        for got, want in zip(transform(loss(ours)), transform(loss(theirs)), strict=True):
            assert_close(got, want, rtol=1e-8, atol=1e-8)


def test_gradcheck_of_both_orders() -> None:
    x, y, *_ = points()
    given = x[:4].requires_grad_(), y[:5].requires_grad_()
    kernel = Genred("Exp(-SqDist(x,y))", ALIASES, "Mean", axis=0, where="Ind(j) <= Ind(i)+1")
    assert torch.autograd.gradcheck(kernel, given, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(kernel, given)


# -- labels ---------------------------------------------------------------------------------------


def test_labels_of_every_kind_without_values() -> None:
    numbers = [-(2**40), -300, -1, 0, 1, 255, 256, 2**24, 2**24 + 1, 2**40 + 7]
    wide = torch.tensor(numbers)
    ones = torch.ones(len(numbers), 1)
    for a, b in (
        (wide, wide.flip(0)),
        (wide[1:7].int(), wide),
        (wide, torch.arange(-2, 8, dtype=torch.int8)),
        (torch.arange(10, dtype=torch.uint8), torch.arange(-5, 5).short()),
        (wide > 0, wide.flip(0) > 3),
        (wide > 0, wide),
    ):
        want = (a[:, None].long() == b.long()).sum(1).tolist()
        for half in (torch.float32, torch.float16, torch.bfloat16):
            x, y = ones[: len(a)].to(half), ones[: len(b)].to(half)
            kernel = lambda x, y, a, b: (Vi(x) * Vj(y)).sum(axis=1, where=pf.same(a, b))  # noqa: E731
            assert kernel(x, y, a, b)[:, 0].tolist() == want
            mapped = F.vmap(kernel, (None, None, 0, None))(x, y, a[None], b)
            assert mapped[0, :, 0].tolist() == want


def test_labels_and_points_that_do_not_fit() -> None:
    x, y, a, b = points()
    for labels, error in (((a.double(), b), DTypeError), ((a[:-1], b), ShapeError)):
        with pytest.raises(error):
            lazy("same")(x, y, *labels)
    with pytest.raises(DTypeError, match="ids_i"):
        F.vmap(lazy("same"), (None, None, 0, None))(x, y, a[None].double(), b)


def test_tensors_on_other_devices_and_of_other_dtypes_keep_their_masks() -> None:
    x, y, a, b = points()
    waiting = (Vi(x) - Vj(y)).sqnorm2().reduction("Sum", axis=1, call=False, where=pf.same(a, b))
    got = waiting.to(torch.float32)()
    assert got.dtype == torch.float32
    assert_close(got, waiting().float(), terms=N)


def test_rows_of_nan_meet_nothing() -> None:
    x, y, *_ = points()
    x[:3], y[7:] = math.nan, math.inf
    f = (Vi(x.requires_grad_()) - Vj(y.requires_grad_())).sqnorm2()
    mask = (pf.i >= 3) & (pf.j < 7)
    for name in ("Sum", "LogSumExp", "Min", "Prod"):
        found = f.reduction(name, axis=1, where=mask)
        rest = (Vi(x[3:].detach()) - Vj(y[:7].detach())).sqnorm2().reduction(name, axis=1)
        assert found[3:].isfinite().all()
        assert_close(found[3:].detach(), rest)
        for gradient in torch.autograd.grad(finite(found).sum(), (x, y)):
            assert gradient.isfinite().all()
