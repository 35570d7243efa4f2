"""Nothing reaches machine code but memory that is what shapes and strides say."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checks import assert_close, run_alone

from pairfold.errors import (
    ArrayTypeError,
    DerivativeError,
    DeviceError,
    MemoryLimitError,
    ShapeError,
)
from pairfold.numpy import Genred as NumpyGenred

torch = pytest.importorskip("torch", reason="tensors are torch's, which is not installed")

from torch.autograd import forward_ad  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402

from pairfold.torch import Genred, KernelSolve  # noqa: E402

NAMES = ["x = Vi(3)", "y = Vj(3)", "b = Vj(1)"]
KERNEL = Genred("Exp(-SqDist(x,y))*b", NAMES, axis=1)


SYSTEM = KernelSolve("Exp(-SqDist(x,y))*b", NAMES, "b", axis=1)


def points(seed: int = 0, dtype: Any = None) -> tuple[Any, Any, Any]:
    drawn = torch.Generator().manual_seed(seed)
    sizes = (5, 3), (4, 3), (4, 1)
    return tuple(torch.randn(size, generator=drawn, dtype=dtype or torch.float64) for size in sizes)  # pyright: ignore


def dense(x: Any, y: Any, b: Any) -> Any:
    return (-((x[:, None] - y[None]) ** 2).sum(-1)).exp() @ b


def same(got: Any, want: Any) -> None:
    assert_close(got.detach().numpy(), want.detach().numpy(), terms=16)


# ----- memory that is not there ------------------------------------------------------------------


def freed(x: Any) -> Any:
    x.untyped_storage().resize_(0)
    return x


def shortened(x: Any) -> Any:
    x.untyped_storage().resize_(x.untyped_storage().nbytes() - 1)
    return x


def behind_an_offset(x: Any) -> Any:
    view = torch.cat([x, x])[x.shape[0] :]
    view.untyped_storage().resize_(view.numel() * view.element_size())
    return view


LOST = [freed, shortened, behind_an_offset]


@pytest.mark.parametrize("lose", LOST)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_memory_that_was_freed_or_shortened_is_not_read(lose: Callable[..., Any], dtype: Any):
    x, y, b = points(dtype=dtype)
    KERNEL(x, y, b)  # what is known of such tensors must not hide what happens to their memory
    for place in range(3):
        given = [x, y, b]
        given[place] = lose(given[place].clone())
        with pytest.raises(ArrayTypeError, match=rf"argument {place} \([xyb]\) of shape"):
            KERNEL(*given)
    out = lose(torch.zeros(5, 1, dtype=dtype))
    with pytest.raises(ArrayTypeError, match="out of shape"):
        KERNEL(x, y, b, out=out)
    same(KERNEL(x, y, b).double(), KERNEL(x.clone(), y, b).double())


@pytest.mark.parametrize("wanted", ["x", "b", "xyb"])
def test_memory_freed_between_a_call_and_its_gradient_is_not_read(wanted: str):
    given = dict(zip("xyb", points(), strict=True))
    leaves = [given[name].requires_grad_() for name in wanted]
    result = KERNEL(*given.values())
    given["y"].untyped_storage().resize_(0)
    with pytest.raises(ArrayTypeError, match="memory of a tensor"):
        torch.autograd.grad(result.sum(), leaves)


def test_incoming_gradients_and_tangents_without_memory():
    x, y, b = points()
    leaves = x.clone().requires_grad_(), y.clone().requires_grad_()
    zeros = torch._efficientzerotensor((5, 1), dtype=x.dtype)
    for found in torch.autograd.grad(KERNEL(*leaves, b), leaves, zeros):
        assert not found.any()
    with pytest.raises(ArrayTypeError, match="memory of a tensor"):
        torch.autograd.grad(KERNEL(*leaves, b), leaves, freed(torch.ones(5, 1, dtype=x.dtype)))
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(x, torch._efficientzerotensor(x.shape, dtype=x.dtype))
        same(forward_ad.unpack_dual(KERNEL(dual, y, b)).tangent, torch.zeros(5, 1))
        dual = forward_ad.make_dual(x, torch.ones_like(x))
        freed(forward_ad.unpack_dual(dual).tangent)
        with pytest.raises(ArrayTypeError, match="memory of a tensor"):
            KERNEL(dual, y, b)


@pytest.mark.parametrize("flat", [torch.sign, torch.floor, torch.zeros_like, lambda x: x.detach()])
def test_tangents_that_are_zero(flat: Callable[..., Any]):
    x, y, b = points()
    value, tangent = torch.func.jvp(lambda x: KERNEL(flat(x), y, b), (x,), (torch.ones_like(x),))
    same(value, dense(flat(x), y, b))
    assert tangent.shape == value.shape
    assert not tangent.any()


def test_zeros_without_memory_are_zeros():
    x, y, b = points()
    same(KERNEL(torch._efficientzerotensor(x.shape, dtype=x.dtype), y, b), dense(0 * x, y, b))


def test_other_places_where_tensors_come_in():
    x, _, b = points()
    system = SYSTEM
    with pytest.raises(ArrayTypeError, match="memory of a tensor"):
        system(x[:4], x[:4], freed(b.clone()), alpha=1.0)
    with pytest.raises(ArrayTypeError, match="alpha of shape"):
        system(x[:4], x[:4], b, alpha=freed(torch.ones(4, 1, dtype=b.dtype)))
    both = [torch.tensor(part) for part in ([[0, 5]], [1], [[0, 4]], [[0, 4]], [1], [[0, 5]])]
    same(KERNEL(x, x[:4], b, ranges=both), dense(x, x[:4], b))
    both[2] = freed(both[2].clone())
    with pytest.raises(ArrayTypeError, match="redranges_j of shape"):
        KERNEL(x, x[:4], b, ranges=both)


# ----- kinds of tensors --------------------------------------------------------------------------


class Wrapper(torch.Tensor):
    """A tensor whose numbers are elsewhere."""

    @staticmethod
    def __new__(cls: Any, inner: Any) -> Any:
        return torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError("no operation of torch was asked for")


class Named(torch.Tensor):
    """A subclass that only has a name."""


class Liar(torch.Tensor):
    """A subclass that answers for its shape."""

    shape = (1000, 3)  # pyright: ignore


def wrappers(x: Any) -> dict[str, Any]:
    from torch._subclasses.fake_tensor import FakeTensorMode

    return {
        "wrapper": Wrapper(x),
        "fake": FakeTensorMode().from_tensor(x),
        "nested": torch.nested.nested_tensor([x, x[:3]]),
        "jagged": torch.nested.nested_tensor([x, x[:3]], layout=torch.jagged),
        "uninitialized": torch.nn.UninitializedParameter(),
        "uninitialized buffer": torch.nn.UninitializedBuffer(),
        "coo": x.to_sparse(),
        "csr": x.to_sparse_csr(),
        "csc": x.to_sparse_csc(),
        "bsr": x[:4, :2].to_sparse_bsr((2, 2)),
        "mkldnn": x.float().to_mkldnn(),
    }


@pytest.mark.filterwarnings("ignore")
def test_tensors_that_do_not_hold_their_numbers_are_refused():
    x, y, b = points()
    for name, strange in wrappers(x).items():
        for call in (
            lambda s=strange: KERNEL(s, y, b),
            lambda s=strange: KERNEL(x, y, s),
            lambda s=strange: KERNEL(x, y, b, out=s),
        ):
            with pytest.raises((ArrayTypeError, ShapeError)):  # that of a wrapper is known
                print(name, call())
    with pytest.raises(DeviceError, match="meta"):
        KERNEL(x.to("meta"), y, b)


def test_plain_subclasses_are_tensors_and_their_shape_is_that_of_their_memory():
    x, y, b = points()
    want = dense(x, y, b)
    for kind in (Named, Liar):
        given = x.clone().as_subclass(kind)
        assert KERNEL(given, y, b).shape == (5, 1)
        same(KERNEL(given, y, b), want)
        leaf = given.detach().requires_grad_()
        (found,) = torch.autograd.grad(KERNEL(leaf, y, b).sum(), leaf)
        (wanted,) = torch.func.vjp(lambda x: dense(x, y, b).sum(), x)[1](torch.ones(()).double())
        same(found.as_subclass(torch.Tensor), wanted)
        leaf = x.clone().requires_grad_()
        (found,) = torch.autograd.grad(KERNEL(leaf, y, b), leaf, want.as_subclass(kind))
        (wanted,) = torch.autograd.grad(dense(leaf, y, b), leaf, want)
        same(found, wanted)
    with pytest.raises(ArrayTypeError, match="answers for them"):
        KERNEL(x, y, b, out=torch.zeros(5, 1, dtype=x.dtype).as_subclass(Liar))
    out = torch.zeros(5, 1, dtype=x.dtype).as_subclass(Named)
    assert KERNEL(x, y, b, out=out) is out
    same(out.as_subclass(torch.Tensor), want)


def test_arrays_of_numpy_that_answer_for_their_shape():
    class Long(np.ndarray):
        shape = (1000, 3)  # pyright: ignore

    x, y, b = points()
    kernel = NumpyGenred("Exp(-SqDist(x,y))*b", NAMES, axis=1)
    got = kernel(x.numpy().view(Long), y.numpy(), b.numpy())
    assert_close(got, dense(x, y, b).numpy(), terms=16)
    with pytest.raises(ArrayTypeError, match="answers for them"):
        kernel(x.numpy(), y.numpy(), b.numpy(), out=np.zeros((5, 1)).view(Long))


def test_any_number_of_batch_axes_and_sizes_that_no_memory_holds():
    x, y, b = points()
    assert KERNEL(x.reshape(*[1] * 60, 5, 3), y, b).shape == (*[1] * 60, 5, 1)
    for given in (x[:1].expand(10**18, 3), x.expand(10**17, 5, 3)):
        with pytest.raises(MemoryLimitError, match="no memory for the results"):
            KERNEL(given, y, b)
    with pytest.raises(MemoryLimitError, match="no memory for the results"):
        KERNEL(x.expand(2**31, 1, 5, 3), y.expand(2**32, 4, 3), b)


# ----- transforms and modes ----------------------------------------------------------------------


def test_out_inside_a_transform_is_refused():
    x, y, b = points()
    out = torch.zeros(2, 5, 1, dtype=x.dtype)
    with pytest.raises(DerivativeError, match="inside a transform"):
        torch.func.vmap(lambda x, out: KERNEL(x, y, b, out=out))(x.expand(2, 5, 3), out)


def test_modes_that_only_look_on():
    from torch.testing._internal.logging_tensor import LoggingTensorMode
    from torch.utils.flop_counter import FlopCounterMode

    x, y, b = points()
    for mode in (LoggingTensorMode(), FlopCounterMode(display=False), torch.device("cpu")):
        with mode:
            found = KERNEL(x, y, b)
        same(found, dense(x, y, b))


# ----- saved tensors, gradients in batches -------------------------------------------------------


def gradients(kernel: Callable[..., Any], x: Any, *rest: Any) -> list[Any]:
    """First and second derivatives through a checkpoint."""
    leaf = x.clone().requires_grad_()
    result = checkpoint(kernel, leaf, *rest, use_reentrant=False)
    (first,) = torch.autograd.grad(result.square().sum(), leaf, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), leaf)
    return [first, second]


@pytest.mark.parametrize("reduction", ["Sum", "LogSumExp", "Max", "Prod"])
def test_saved_tensors_are_read_once(reduction: str):
    x, y, _ = points()
    ours = Genred("SqDist(x,y)", NAMES[:2], reduction, axis=1)

    def theirs(x: Any, y: Any) -> Any:
        pairs = ((x[:, None] - y[None]) ** 2).sum(-1)
        values = {"Sum": pairs.sum(1), "LogSumExp": pairs.logsumexp(1), "Prod": pairs.prod(1)}
        return values.get(reduction, pairs.max(1).values)[:, None]

    for got, want in zip(gradients(ours, x, y), gradients(theirs, x, y), strict=True):
        same(got, want)
    leaf = x.clone().requires_grad_()
    (want,) = torch.autograd.grad(theirs(leaf, y).sum(), leaf)
    with torch.autograd.graph.save_on_cpu():
        same(torch.autograd.grad(ours(leaf, y).sum(), leaf)[0], want)
    packed = lambda tensor: tensor.numpy(force=True).copy()  # noqa: E731
    with torch.autograd.graph.saved_tensors_hooks(packed, torch.tensor):
        same(torch.autograd.grad(ours(leaf, y).sum(), leaf)[0], want)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_saved_tensors_that_come_back_as_others_are_refused():
    """Hooks may give back what has no shape."""
    x, y, _ = points()
    leaf = x.clone().requires_grad_()
    nested = lambda tensor: torch.nested.nested_tensor([tensor, tensor[:1]])  # noqa: E731
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor, nested):
        result = Genred("SqDist(x,y)", NAMES[:2], axis=1)(leaf, y)
    with pytest.raises(ArrayTypeError, match=r"\(x\) is a nested tensor"):
        torch.autograd.grad(result.sum(), leaf)


@pytest.mark.parametrize("reduction", ["Sum", "LogSumExp", "Max"])
def test_gradients_in_batches(reduction: str):
    x, y, _ = points()
    p = torch.tensor([0.7], dtype=x.dtype)
    ours = Genred("-p*SqDist(x,y)", [*NAMES[:2], "p = Pm(1)"], reduction, axis=1)
    jacobian = torch.autograd.functional.jacobian
    want = jacobian(ours, (x, y, p))
    for options in ({}, {"strategy": "forward-mode"}):
        found = jacobian(ours, (x, y, p), vectorize=True, **options)
        for got, part in zip(found, want, strict=True):
            same(got, part)


def test_second_derivatives_in_batches():
    x, y, b = points()
    hessian = torch.autograd.functional.hessian
    wanted = hessian(lambda *given: dense(*given).sin().sum(), (x, y, b))
    found = hessian(lambda *given: KERNEL(*given).sin().sum(), (x, y, b), vectorize=True)
    for got_row, row in zip(found, wanted, strict=True):
        for got, part in zip(got_row, row, strict=True):
            same(got, part)


def test_gradcheck_in_batches():
    leaves = [tensor.requires_grad_() for tensor in points()]
    options = {"check_batched_grad": True, "check_forward_ad": True}
    assert torch.autograd.gradcheck(KERNEL, leaves, **options, check_batched_forward_grad=True)


def test_solutions_have_gradients_in_batches():
    x, _, b = points()
    solve = SYSTEM

    def function(x: Any, b: Any) -> Any:
        return solve(x, x, b, alpha=0.5)

    jacobian = torch.autograd.functional.jacobian
    want = jacobian(function, (x[:4], b))
    for got, part in zip(jacobian(function, (x[:4], b), vectorize=True), want, strict=True):
        assert_close(got.numpy(), part.numpy(), rtol=1e-6)


# ----- samples of attacks ------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="pages are protected by mprotect")
@pytest.mark.parametrize(
    ("script", "options"),
    [("attack_pages.py", {"kernels": 12, "calls": 3}), ("attack_calls.py", {"count": 60})],
)
def test_a_sample_of_what_make_attack_does(script: str, options: dict[str, int]):
    assert run_alone(str(Path(__file__).with_name(script)), **options, seed=3) == 0
