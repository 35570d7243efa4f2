"""Genred on torch tensors: autograd of every order and mode, against dense torch programs."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from products import some
from torch.autograd import forward_ad, gradcheck, gradgradcheck

import pairfold.torch
from pairfold.errors import ArrayTypeError, DeviceError, DTypeError, ShapeError
from pairfold.frontends.reduction import FormulaReduction
from pairfold.frontends.torch import FoldFunction

Tensor = torch.Tensor

CASES: dict[str, tuple[str, list[str], Callable[..., Tensor]]] = {
    "seed": (
        "Square(p-a)*Exp(x+y)",
        ["x = Vi(2)", "y = Vj(2)", "a = Vj(1)", "p = Pm(1)"],
        lambda x, y, a, p: (
            (p[..., None, None, :] - a[..., None, :, :]) ** 2
            * (x[..., :, None, :] + y[..., None, :, :]).exp()
        ),
    ),
    "gaussian": (
        "Exp(-p*SqDist(x,y))*b",
        ["x = Vi(2)", "y = Vj(2)", "b = Vj(3)", "p = Pm(1)"],
        lambda x, y, b, p: (
            (
                -p[..., None, None, :]
                * ((x[..., :, None, :] - y[..., None, :, :]) ** 2).sum(-1, keepdim=True)
            ).exp()
            * b[..., None, :, :]
        ),
    ),
    "broadcast scalar": (
        "Powf(Exp(x), p)*(x|y) + Clamp(y, -p, p)",
        ["x = Vi(2)", "y = Vj(2)", "b = Vj(1)", "p = Pm(1)"],
        lambda x, y, b, p: (
            x[..., :, None, :].exp() ** p[..., None, None, :]
            * (x[..., :, None, :] * y[..., None, :, :]).sum(-1, keepdim=True)
            + torch.clamp(y[..., None, :, :], -p[..., None, None, :], p[..., None, None, :]).expand(
                *torch.broadcast_shapes(x[..., :, None, :].shape, y[..., None, :, :].shape)
            )
        ),
    ),
    "distances": (
        "Concat(Norm2(x-y), Sqrt(SqNorm2(x)+1)/(2+Sin(y)))",
        ["x = Vi(2)", "y = Vj(2)", "b = Vj(1)", "p = Pm(1)"],
        lambda x, y, b, p: torch.cat(
            [
                (x[..., :, None, :] - y[..., None, :, :]).norm(dim=-1, keepdim=True),
                ((x**2).sum(-1, keepdim=True) + 1).sqrt()[..., :, None, :]
                / (2 + y.sin()[..., None, :, :]),
            ],
            -1,
        ),
    ),
}


def arguments(
    aliases: list[str],
    batch: tuple[tuple[int, ...], ...] = ((),) * 4,
    sizes: tuple[int, int] = (4, 5),
) -> list[Tensor]:
    """One tensor per alias, in float64, asking for gradients."""
    torch.manual_seed(0)
    made: list[Tensor] = []
    for alias, lead in zip(aliases, batch, strict=True):
        kind, dim = alias.split("= ")[1][:2], int(alias.split("(")[1][:-1])
        rows = {"Vi": sizes[:1], "Vj": sizes[1:], "Pm": ()}[kind]
        tensor = torch.rand(*lead, *rows, dim, dtype=torch.float64) * 0.8 + 0.1
        made.append(tensor.requires_grad_())
    return made


BATCHES = {
    "plain": ((), (), (), ()),
    "batch": ((2,), (2,), (2,), (2,)),
    "broadcast": ((2, 1), (3,), (1, 1), (2, 3)),
}


# The kernels of batches are those of one element.
EACH = [pytest.param(n, marks=[pytest.mark.any_target] * (n != "plain")) for n in BATCHES]


@pytest.mark.parametrize("batch", EACH)
@some(
    "name,axis",
    [(name, axis) for name in CASES for axis in (0, 1)],
    lambda entry: list(CASES).index(entry[0]) % 2 != entry[1],
)
def test_values_and_gradients_are_those_of_dense_torch(name: str, batch: str, axis: int) -> None:
    formula, aliases, dense = CASES[name]
    tensors = arguments(aliases, BATCHES[batch])
    used = [t for t, n in zip(tensors, "xyabp", strict=False) if t is not None]
    genred = pairfold.torch.Genred(formula, aliases, axis=axis)
    got = genred(*tensors)
    want = dense(*tensors).sum(-2 if axis == 1 else -3)
    torch.testing.assert_close(got, want.expand_as(got))
    weight = torch.randn_like(got)
    first = torch.autograd.grad((got * weight).sum(), used, create_graph=True, allow_unused=True)
    other = torch.autograd.grad((want * weight).sum(), used, create_graph=True, allow_unused=True)
    for tensor, a, b in zip(used, first, other, strict=True):
        b = torch.zeros_like(tensor) if b is None else b
        a = torch.zeros_like(tensor) if a is None else a
        assert a.shape == tensor.shape
        torch.testing.assert_close(a, b)
    second = torch.autograd.grad(sum(g.sin().sum() for g in first if g.requires_grad), used[:2])
    other2 = torch.autograd.grad(
        sum(g.sin().sum() for g in other if g is not None and g.requires_grad), used[:2]
    )
    for a, b in zip(second, other2, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.any_target
@some(
    "name,axis",
    [(name, axis) for name in CASES for axis in (0, 1)],
    lambda entry: list(CASES).index(entry[0]) % 2 == entry[1],
)
def test_gradcheck_and_gradgradcheck_pass(name: str, axis: int) -> None:
    formula, aliases, _ = CASES[name]
    tensors = arguments(aliases, sizes=(2, 3))
    genred = pairfold.torch.Genred(formula, aliases, axis=axis)
    assert gradcheck(genred, tensors, check_forward_ad=True)
    assert gradgradcheck(genred, tensors, check_fwd_over_rev=True, fast_mode=True)


def test_only_the_tensors_that_ask_get_gradients() -> None:
    formula, aliases, _ = CASES["gaussian"]
    tensors = [t.detach() for t in arguments(aliases)]
    tensors[1].requires_grad_()
    pairfold.torch.Genred(formula, aliases, axis=1)(*tensors).sum().backward()
    assert [t.grad is not None for t in tensors] == [False, True, False, False]


@pytest.mark.parametrize("asking", [(0,), (2, 3), (0, 1, 2, 3)])
def test_tensors_are_looked_at_once_forward_and_once_backward(
    asking: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small calls take the time of what is asked about their tensors."""
    formula, aliases, _ = CASES["gaussian"]
    tensors = [t.detach() for t in arguments(aliases)]
    leaves = [tensors[n].requires_grad_() for n in asking]
    genred = pairfold.torch.Genred(formula, aliases, axis=1)
    seen: list[str] = []
    for owner, name in ((FormulaReduction, "binding"), (FoldFunction, "forward")):
        monkeypatch.setattr(owner, name, watched(seen, name, getattr(owner, name)))
    torch.autograd.grad(genred(*tensors).sum(), leaves)
    assert seen == ["forward", "binding", "binding"]


def watched(seen: list[str], name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*given: Any) -> Any:
        seen.append(name)
        return function(*given)

    return call


def test_tensors_that_outlive_a_transform_are_what_it_wrapped() -> None:
    kept: list[Tensor] = []

    def program(x: Tensor) -> Tensor:
        kept.append(x)
        return x.sum()

    x, y = torch.rand(4, 1), torch.rand(5, 1, requires_grad=True)
    torch.func.jvp(program, (x,), (x,))
    genred = pairfold.torch.Genred("x*y", ["x = Vi(1)", "y = Vj(1)"], axis=1)
    (got,) = torch.autograd.grad(genred(kept[0], y).sum(), y)
    torch.testing.assert_close(got, x.sum().expand(5, 1))


def test_a_variable_that_does_not_matter_gets_a_zero_gradient() -> None:
    x = torch.rand(4, 1, requires_grad=True)
    y = torch.rand(5, 1, requires_grad=True)
    genred = pairfold.torch.Genred("Step(x)+y", ["x = Vi(1)", "y = Vj(1)"], axis=1)
    genred(x, y).sum().backward()
    torch.testing.assert_close(x.grad, torch.zeros_like(x))
    torch.testing.assert_close(y.grad, torch.full_like(y, 4.0))


def test_incoming_gradients_of_any_strides_are_right() -> None:
    formula, aliases, dense = CASES["gaussian"]
    tensors = arguments(aliases)
    genred = pairfold.torch.Genred(formula, aliases, axis=1)
    for reduce in (
        lambda out: out.sum(),
        lambda out: (out.T @ torch.ones(4, 2, dtype=out.dtype)).sum(),
        lambda out: torch.cat([out[::2], out.flip(0)]).prod(),
        lambda out: out[:, 1].sum(),
    ):
        got = torch.autograd.grad(reduce(genred(*tensors)), tensors)
        want = torch.autograd.grad(reduce(dense(*tensors).sum(-2)), tensors)
        for a, b in zip(got, want, strict=True):
            torch.testing.assert_close(a, b)


def test_tensors_of_any_strides_are_read_in_place() -> None:
    formula, aliases, dense = CASES["gaussian"]
    x, y, b, p = (t.detach() for t in arguments(aliases))
    x, y, b = x.T.contiguous().T, y.flip(0)[::2], b[:1].expand(3, 3)
    got = pairfold.torch.Genred(formula, aliases, axis=1)(x, y, b, p)
    torch.testing.assert_close(got, dense(x, y, b, p).sum(-2))


def test_forward_mode_equals_the_dense_program() -> None:
    formula, aliases, dense = CASES["gaussian"]
    tensors = [t.detach() for t in arguments(aliases)]
    tangents = [torch.randn_like(t) for t in tensors]
    genred = pairfold.torch.Genred(formula, aliases, axis=1)
    with forward_ad.dual_level():
        duals = [forward_ad.make_dual(t, d) for t, d in zip(tensors[:2], tangents, strict=False)]
        got = forward_ad.unpack_dual(genred(*duals, *tensors[2:]))
    want = torch.func.jvp(
        lambda x, y: dense(x, y, *tensors[2:]).sum(-2), tuple(tensors[:2]), tuple(tangents[:2])
    )
    torch.testing.assert_close(got.primal, want[0])
    torch.testing.assert_close(got.tangent, want[1])


@pytest.mark.parametrize("transform", ["grad", "jacrev", "jacfwd", "hessian"])
def test_function_transforms_equal_the_dense_program(transform: str) -> None:
    formula, aliases, dense = CASES["seed"]
    tensors = [t.detach() for t in arguments(aliases)]
    genred = pairfold.torch.Genred(formula, aliases, axis=1)
    of = getattr(torch.func, transform)
    for place in range(4):
        torch.testing.assert_close(
            of(lambda *a: genred(*a).sin().sum(), argnums=place)(*tensors),
            of(lambda *a: dense(*a).sum(-2).sin().sum(), argnums=place)(*tensors),
        )


@pytest.mark.parametrize("in_dims", [(0, None, None, None), (1, 0, None, -1), (-1, None, 2, 0)])
def test_vmap_is_one_more_batch_axis(in_dims: tuple[Any, ...]) -> None:
    formula, aliases, dense = CASES["gaussian"]
    tensors = [t.detach() for t in arguments(aliases)]
    many = [
        t if dim is None else torch.stack([t * k for k in (0.5, 1.0, 1.5)], dim)
        for t, dim in zip(tensors, in_dims, strict=True)
    ]
    genred = pairfold.torch.Genred(formula, aliases, axis=1)
    got = torch.func.vmap(genred, in_dims)(*many)
    want = torch.func.vmap(lambda *a: dense(*a).sum(-2), in_dims)(*many)
    torch.testing.assert_close(got, want)


def test_parameters_modules_and_copies_work() -> None:
    x, y = torch.nn.Parameter(torch.rand(4, 2)), torch.rand(5, 2)
    genred = pairfold.torch.Genred("SqDist(x,y)", ["x = Vi(2)", "y = Vj(2)"], axis=1)
    for version in (genred, copy.deepcopy(genred), pickle.loads(pickle.dumps(genred))):
        out = version(x, y)
        (grad,) = torch.autograd.grad(out.sum(), x)
        torch.testing.assert_close(grad, 2 * (x[:, None] - y).sum(1).detach())


def test_negation_views_are_carried_out() -> None:
    z = torch.complex(torch.rand(4, 1), torch.rand(4, 1))
    x = z.conj().imag
    assert x.is_neg()
    got = pairfold.torch.Genred("x+y", ["x = Vi(1)", "y = Vj(1)"], axis=1)(x, torch.zeros(3, 1))
    torch.testing.assert_close(got, 3 * x.resolve_neg())


def test_out_is_filled_and_keeps_the_graph() -> None:
    formula, aliases, _ = CASES["gaussian"]
    tensors = arguments(aliases)
    genred = pairfold.torch.Genred(formula, aliases, axis=1)
    out = torch.empty(4, 3, dtype=torch.float64)
    with torch.no_grad():
        assert genred(*tensors, out=out) is out
        torch.testing.assert_close(out, genred(*tensors))
    filled = genred(*tensors, out=out)
    assert filled.requires_grad
    (got,) = torch.autograd.grad(filled.sum(), tensors[0])
    (want,) = torch.autograd.grad(genred(*tensors).sum(), tensors[0])
    torch.testing.assert_close(got, want)
    with pytest.raises(ShapeError, match="out"):
        genred(*tensors, out=torch.empty(5, 3, dtype=torch.float64))


def test_wrong_tensors_get_clear_errors() -> None:
    genred = pairfold.torch.Genred("x*y", ["x = Vi(1)", "y = Vj(1)"], axis=1)
    x = torch.rand(4, 1, requires_grad=True)
    with pytest.raises(DTypeError, match="int64"):
        genred(x.long(), x.long())
    with pytest.raises(DeviceError, match="meta"):
        genred(x.detach().to("meta"), x)
    with pytest.raises(ArrayTypeError, match="sparse"):
        genred(x.detach().to_sparse(), x)
    with pytest.raises(ShapeError, match=r'"x = Vi\(2\)"'):
        genred(torch.rand(4, 2), x)
    with pytest.raises(ArrayTypeError, match="list"):
        genred(x, [[1.0]])


def test_float32_gradients_of_large_clouds_are_accurate() -> None:
    torch.manual_seed(0)
    x, y = torch.rand(300, 3), torch.rand(5000, 3)
    b = torch.randn(5000, 1)
    genred = pairfold.torch.Genred(
        "Exp(-SqDist(x,y))*b", ["x = Vi(3)", "y = Vj(3)", "b = Vj(1)"], axis=1
    )

    def gradients(dtype: torch.dtype) -> list[Tensor]:
        tensors = [t.detach().clone().to(dtype).requires_grad_() for t in (x, y, b)]
        (genred(*tensors) ** 2).sum().backward()
        return [t.grad for t in tensors if t.grad is not None]

    for narrow, wide in zip(gradients(torch.float32), gradients(torch.float64), strict=True):
        error = (narrow - wide).abs().max() / wide.abs().max()
        assert error < 2e-6


def test_an_unselected_nan_branch_does_not_poison_the_gradient() -> None:
    x = torch.tensor([[-1.0], [4.0]], requires_grad=True)
    y = torch.zeros(3, 1)
    genred = pairfold.torch.Genred("IfElse(x, Sqrt(x), 2*x)+y", ["x = Vi(1)", "y = Vj(1)"], axis=1)
    (got,) = torch.autograd.grad(genred(x, y).sum(), x)
    torch.testing.assert_close(got, torch.tensor([[6.0], [0.75]]))
