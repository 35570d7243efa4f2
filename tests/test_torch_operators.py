"""Reductions as operators of torch: in graphs, under transforms, on tensors without numbers."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from checks import assert_close

from pairfold.errors import (
    ArrayTypeError,
    DeviceError,
    FormulaError,
    RangeError,
    ShapeError,
    UnsupportedError,
)

torch = pytest.importorskip("torch", reason="operators are torch's, which is not installed")

from products import every_pair  # noqa: E402
from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: E402
from torch.fx.experimental.proxy_tensor import make_fx  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402

from pairfold.frontends.identity import identity  # noqa: E402
from pairfold.torch import Genred, KernelSolve, LazyTensor  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")

NAMES = ["x = Vi(3)", "y = Vj(3)", "b = Vj(1)"]
KERNEL = Genred("Exp(-SqDist(x,y))*b", NAMES, axis=1)
F = torch.func
# Rows 0 to 2 meet columns 0 to 2 and 3, the others column 1; the same from the side of columns.
RANGES = [
    torch.tensor(part)
    for part in (
        [[0, 2], [2, 4]],
        [2, 3],
        [[0, 2], [3, 4], [1, 2]],
        [[0, 1], [1, 2], [3, 4]],
        [1, 2, 3],
        [[0, 2], [0, 4], [0, 2]],
    )
]
MASK = torch.tensor([[1, 1, 0, 1], [1, 1, 0, 1], [0, 1, 0, 0], [0, 1, 0, 0]]).double()


def points() -> tuple[Any, Any, Any]:
    drawn = torch.Generator().manual_seed(0)
    sizes = (4, 3), (4, 3), (4, 1)
    return tuple(torch.randn(size, generator=drawn, dtype=torch.float64) for size in sizes)  # pyright: ignore


def dense(x: Any, y: Any, b: Any) -> Any:
    return (-((x[:, None] - y[None]) ** 2).sum(-1)).exp() @ b


def loss(kernel: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *given: kernel(*given).sin().sum()


def same(got: Any, want: Any) -> None:
    if isinstance(want, (tuple, list)):
        for one, other in zip(got, want, strict=True):
            same(one, other)
    else:
        assert_close(got.detach().numpy(), want.detach().numpy(), rtol=1e-9)


def operators() -> Any:
    from pairfold.frontends import torchops

    return torchops


def by_operator(kernel: Any) -> Callable[..., Any]:
    """A reduction by torch's operators, as where torch records, but at once."""
    return lambda *given: operators().call(kernel._fold, operators().TORCH, given, None, None)


# ----- graphs ------------------------------------------------------------------------------------


def gradient_of_graph(kernel: Callable[..., Any]) -> Callable[..., Any]:
    def run(x: Any, y: Any, b: Any) -> Any:
        leaves = [tensor.clone().requires_grad_() for tensor in (x, y, b)]
        return torch.autograd.grad(loss(kernel)(*leaves), leaves)

    return run


PROGRAMS: dict[str, Callable[[Callable[..., Any]], Callable[..., Any]]] = {
    "value": lambda k: k,
    "out": lambda k: k if k is dense else (lambda x, y, b: k(x, y, b, out=torch.empty_like(b))),
    "autograd": gradient_of_graph,
    "grad": lambda k: F.grad(loss(k), argnums=(0, 1, 2)),
    "vmap of grad": lambda k: (
        lambda x, y, b: F.vmap(F.grad(loss(k)), in_dims=(0, None, None))(
            torch.stack([x, 2 * x]), y, b
        )
    ),
    "hessian": lambda k: F.hessian(loss(k), argnums=1),
    "jvp": lambda k: lambda x, y, b: F.jvp(lambda x: k(x, y, b), (x,), (y,)),
    "functionalized": lambda k: k if k is dense else F.functionalize(k),
    "functionalized grad": lambda k: (
        F.functionalize(F.grad(loss(k))) if k is not dense else F.grad(loss(k))
    ),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_graphs_of_programs(name: str):
    given, program = points(), PROGRAMS[name]
    want = program(dense)(*given)
    for options in ({}, {"tracing_mode": "symbolic"}):
        graph = make_fx(program(KERNEL), **options)(*given)
        text = graph.code
        assert "pairfold.reduce" in text
        same(graph(*given), want)
        others = [tensor.flip(0) * 2 for tensor in given]
        same(graph(*others), program(dense)(*others))
    same(program(KERNEL)(*given), want)


def test_graphs_of_gradients_have_one_pass_and_can_be_differentiated():
    given = points()
    graph = make_fx(gradient_of_graph(KERNEL))(*given)
    assert graph.code.count("pairfold.gradients") == 1
    leaves = [tensor.clone().requires_grad_() for tensor in given]
    wanted = F.grad(loss(dense), argnums=(0, 1, 2))
    pulled = [torch.ones_like(tensor) for tensor in given]
    found = F.vjp(graph, *given)[1](tuple(pulled))
    same(found, F.vjp(wanted, *given)[1](tuple(pulled)))
    stacked = torch.stack([given[0], given[0] + 1])
    in_dims = (0, None, None)
    same(F.vmap(graph, in_dims)(stacked, *given[1:]), F.vmap(wanted, in_dims)(stacked, *given[1:]))
    second = torch.autograd.grad(sum(gradient.sum() for gradient in graph(*leaves)), leaves)
    same(second, F.vjp(wanted, *given)[1](tuple(pulled)))


def test_gradients_of_results_that_were_computed_before_a_graph():
    x, y, b = points()
    leaf = x.clone().requires_grad_()
    found, wanted = loss(KERNEL)(leaf, y, b), loss(dense)(leaf, y, b)

    def gradient(result: Any) -> Callable[..., Any]:
        return lambda g: torch.autograd.grad(result, leaf, g, retain_graph=True)[0]

    g = torch.tensor(2.0).double()
    same(make_fx(gradient(found))(g)(g), gradient(wanted)(g))


def test_linearize():
    x, y, b = points()
    value, along = F.linearize(lambda x: KERNEL(x, y, b), x)
    want = F.jvp(lambda x: dense(x, y, b), (x,), (y,))
    same((value, along(y)), want)


def test_lazy_tensors_and_arguments_that_leave_something_out():
    x, y, b = points()

    def lazy(x: Any, y: Any, b: Any) -> Any:
        pairs = LazyTensor(x[:, None]) - LazyTensor(y[None])
        return (-(pairs**2).sum(-1)).exp() @ b

    for program, given in (
        (lazy, (x, y, b)),
        (lambda x, y, b: KERNEL(x, y, b), (x, y, b[:, 0])),
        (lambda x, y: Genred("p*SqDist(x,y)", ["p=Pm(1)", *NAMES[:2]], axis=1)(0.5, x, y), (x, y)),
    ):
        for mode in ("real", "symbolic"):
            same(make_fx(program, tracing_mode=mode)(*given)(*given), program(*given))


@pytest.mark.parametrize("reduction", ["Sum", "Mean", "LogSumExp", "Max"])
def test_ranges_are_arguments_of_graphs(reduction: str):
    kernel = Genred("SqDist(x,y)", NAMES[:2], reduction, axis=1)
    x, y, _ = points()

    def program(x: Any, y: Any, *ranges: Any) -> Any:
        result = kernel(x, y, ranges=ranges)
        return result, F.grad(lambda x: kernel(x, y, ranges=ranges).sin().sum())(x)

    def want(mask: Any) -> Any:
        def masked(x: Any) -> Any:
            pairs = ((x[:, None] - y[None]) ** 2).sum(-1)
            low = pairs.masked_fill(mask == 0, -torch.inf)
            found = {
                "Sum": lambda: (pairs * mask).sum(1),
                "Mean": lambda: (pairs * mask).sum(1) / mask.sum(1),
                "LogSumExp": lambda: low.logsumexp(1),
                "Max": lambda: low.max(1).values,
            }
            return found[reduction]()[:, None]

        return masked(x), F.grad(lambda x: masked(x).sin().sum())(x)

    everything = [torch.tensor(part) for part in ([[0, 4]], [1], [[0, 4]])] * 2
    for mode in ("real", "symbolic"):
        graph = make_fx(program, tracing_mode=mode)(x, y, *RANGES)
        same(graph(x, y, *RANGES), want(MASK))
        if mode == "symbolic":
            same(graph(x, y, *everything), want(torch.ones_like(MASK)))
        with pytest.raises(RangeError):
            graph(x, y, torch.tensor([[0, 9]]), *everything[1:])
    with pytest.raises(ShapeError, match="slices_i"):
        make_fx(program)(x, y, RANGES[0], RANGES[0], *RANGES[2:])


def test_several_results_indices_and_other_kinds():
    x, y, _ = points()
    pairs = ((x[:, None] - y[None]) ** 2).sum(-1)
    values, indices = pairs.topk(2, largest=False)
    names = NAMES[:2]
    for reduction, options, want in (
        ("KMin_ArgKMin", {"opt_arg": 2}, (values, indices)),
        ("ArgKMin", {"opt_arg": 2}, indices),
        ("Max_ArgMax", {}, (pairs.max(1).values[:, None], pairs.argmax(1)[:, None])),
    ):
        kernel = Genred("SqDist(x,y)", names, reduction, axis=1, **options)
        graph = make_fx(kernel, tracing_mode="symbolic")(x, y)
        same(graph(x, y), want)


@pytest.mark.filterwarnings("ignore")
def test_what_cannot_be_recorded_says_so():
    x, y, b = points()
    system = KernelSolve("Exp(-SqDist(x,y))*b", NAMES, "b", axis=1)
    for record in (
        lambda: torch.jit.trace(lambda x: KERNEL(x, y, b), x),
        lambda: torch.jit.trace(lambda x: LazyTensor(x[:, None]).sqdist(LazyTensor(y[None])), x),
        lambda: make_fx(lambda b: system(y, y, b, alpha=1.0))(b),
    ):
        with pytest.raises(UnsupportedError, match="not recorded"):
            record()
    with pytest.raises(ShapeError, match="argument 1"):
        make_fx(lambda x: KERNEL(x, y[:, :2], b))(x)
    with pytest.raises(FormulaError, match="no reduction"):
        torch.ops.pairfold.reduce('{"version":2}', [x, y, b])


# ----- transforms --------------------------------------------------------------------------------


def pair_values(reduction: str) -> Callable[..., Any]:
    def value(x: Any, y: Any, b: Any) -> Any:
        pairs = ((x[:, None] - y[None]) ** 2).sum(-1) * b[:, 0]
        found = {
            "Sum": lambda: pairs.sum(1),
            "LogSumExp": lambda: pairs.logsumexp(1),
            "Mean": lambda: pairs.mean(1),
            "Max": lambda: pairs.max(1).values,
            "Prod": lambda: pairs.prod(1),
        }
        return found[reduction]()[:, None]

    return value


V = points()[0][:2] + 1
TRANSFORMS: dict[str, Callable[[Callable[..., Any]], Callable[..., Any]]] = {
    "rev": F.jacrev,
    "fwd": F.jacfwd,
    "jvp": lambda f: lambda x: F.jvp(f, (x,), (V,))[1],
    "vjp": lambda f: lambda x: (lambda value, pull: pull(value)[0])(*F.vjp(f, x)),
    "vmap": lambda f: lambda x: F.vmap(f)(torch.stack([x, 2 * x])).sum(0),
}


@every_pair(
    ("reduction", ["Sum", "LogSumExp", "Mean", "Max", "Prod"]),
    ("first", list(TRANSFORMS)),
    ("second", list(TRANSFORMS)),
)
def test_compositions_of_transforms_through_the_operator(reduction: str, first: str, second: str):
    """The dispatcher calls it once for each level, as it does with operators of torch's own."""
    x, y, b = points()
    x, y, b = x[:2], y[:3], b[:3]
    kernel = by_operator(Genred("SqDist(x,y)*b", NAMES, reduction, axis=1))
    found, wanted = (lambda x: kernel(x, y, b)), (lambda x: pair_values(reduction)(x, y, b))
    thirds = TRANSFORMS if reduction == "Sum" else ()
    for f, g in (
        (TRANSFORMS[first](found), TRANSFORMS[first](wanted)),
        (
            TRANSFORMS[second](TRANSFORMS[first](found)),
            TRANSFORMS[second](TRANSFORMS[first](wanted)),
        ),
    ):
        same(f(x), g(x))
    for third in thirds:
        names = (first, second, third)
        f, g = found, wanted
        for name in names:
            f, g = TRANSFORMS[name](f), TRANSFORMS[name](g)
        same(f(x), g(x))


def test_torch_s_own_checks_of_operators():
    operators()
    x, y, b = (tensor.requires_grad_() for tensor in points())
    key = identity(KERNEL._fold)
    found = torch.library.opcheck(torch.ops.pairfold.reduce.default, (key, [x, y, b]))
    g = torch.ones(4, 1, dtype=x.dtype)
    given = (key, [0, 2], [tensor.detach() for tensor in (x, y, b)] + [g])
    found.update(torch.library.opcheck(torch.ops.pairfold.gradients.default, given))
    assert set(found.values()) == {"SUCCESS"}


@pytest.mark.parametrize("kernel", [KERNEL, by_operator(KERNEL)], ids=["plain", "operator"])
def test_checkpoints_hooks_batches_and_autocast(kernel: Callable[..., Any]):
    x, y, b = points()
    want = F.grad(loss(dense))(x, y, b)
    for reentrant in (True, False):
        leaf = x.clone().requires_grad_()
        checkpoint(loss(kernel), leaf, y, b, use_reentrant=reentrant).backward()
        same(leaf.grad, want)
    leaf = x.clone().requires_grad_()
    packed = lambda tensor: tensor.numpy(force=True).copy()  # noqa: E731
    with torch.autograd.graph.saved_tensors_hooks(packed, torch.tensor):
        same(torch.autograd.grad(loss(kernel)(leaf, y, b), leaf)[0], want)
    jacobian = torch.autograd.functional.jacobian
    # Autograd's older vmap has no rules for operators; plain calls answer it by themselves.
    batches = kernel is KERNEL
    for options in ({}, {"vectorize": True, "strategy": "forward-mode"})[: 1 + batches]:
        same(jacobian(kernel, (x, y, b), **options), jacobian(dense, (x, y, b)))
    leaves = [tensor.clone().requires_grad_() for tensor in (x, y, b)]
    checks = dict.fromkeys(("check_batched_grad", "check_batched_forward_grad"), batches)
    assert torch.autograd.gradcheck(kernel, leaves, check_forward_ad=True, **checks)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        single = kernel(x.float(), y.float(), b.float())
    assert single.dtype == torch.float32
    assert_close(single.numpy(), dense(x, y, b).numpy(), terms=16)


# ----- tensors without numbers of their own ------------------------------------------------------


class Wrapper(torch.Tensor):
    """A tensor whose numbers are in another; operations are computed there."""

    @staticmethod
    def __new__(cls: Any, inner: Any) -> Any:
        found = torch.Tensor._make_wrapper_subclass(
            cls, inner.shape, dtype=inner.dtype, requires_grad=inner.requires_grad
        )
        found.inner = inner.detach()
        return found

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        from torch.utils._pytree import tree_map

        plain = tree_map(lambda x: x.inner if isinstance(x, cls) else x, (args, kwargs or {}))
        found = func(*plain[0], **plain[1])
        return tree_map(lambda x: cls(x) if isinstance(x, torch.Tensor) else x, found)


def test_classes_that_compute_on_other_tensors():
    given = points()
    for places in itertools.product((False, True), repeat=3):
        mixed = [Wrapper(t) if wrap else t for t, wrap in zip(given, places, strict=True)]
        found = KERNEL(*mixed)
        assert isinstance(found, Wrapper) == any(places)
        same(found.inner if isinstance(found, Wrapper) else found, dense(*given))
    leaf = Wrapper(given[0].clone().requires_grad_())
    (found,) = torch.autograd.grad(loss(KERNEL)(leaf, *given[1:]), leaf)
    same(found.inner, F.grad(loss(dense))(*given))
    for reduction in ("Max", "Mean", "LogSumExp", "ArgMin"):
        kernel = Genred("SqDist(x,y)", NAMES[:2], reduction, axis=1)
        same(kernel(Wrapper(given[0]), given[1]).inner, kernel(*given[:2]))
    with pytest.raises(ShapeError, match=r"argument 0 \(x\)"):
        KERNEL(Wrapper(given[0][:, :2]), *given[1:])


def test_functional_tensors_are_unwrapped_by_torch():
    x, y, b = points()
    found = KERNEL(torch._to_functional_tensor(x), y, b)
    assert torch._is_functional_tensor(found)
    same(torch._from_functional_tensor(found), dense(x, y, b))


def test_tensors_without_values_give_shapes():
    x, y, b = points()
    mode = FakeTensorMode()
    for convert in (mode.from_tensor, lambda t: t.to("meta")):
        leaves = [convert(tensor).requires_grad_() for tensor in (x[:3], y, b)]
        result = KERNEL(*leaves)
        assert (result.shape, result.dtype, result.is_meta) == ((3, 1), x.dtype, leaves[0].is_meta)
        for gradient, leaf in zip(torch.autograd.grad(result.sum(), leaves), leaves, strict=True):
            assert gradient.shape == leaf.shape
        (index,) = [Genred("SqDist(x,y)", NAMES[:2], "ArgMin", axis=1)(*leaves[:2])]
        assert index.dtype == torch.int64
        with pytest.raises(ShapeError, match="argument 1"):
            KERNEL(leaves[0], leaves[1][:, :2], leaves[2])
    with pytest.raises(DeviceError, match="same device"):
        KERNEL(x.to("meta"), y, b)
    with FakeTensorMode(allow_non_fake_inputs=True):
        assert type(KERNEL(x, y, b)).__name__ == "FakeTensor"


@pytest.mark.filterwarnings("ignore")
def test_classes_that_do_not_compute_reductions_are_named():
    from torch.masked import masked_tensor

    x, y, b = points()

    class Silent(Wrapper):
        @classmethod
        def __torch_dispatch__(
            cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            return NotImplemented

    kinds = [masked_tensor(x, x > 0), Silent(x), FakeTensorMode().from_tensor(x)]
    for strange in kinds:
        with pytest.raises(ArrayTypeError, match=type(strange).__name__):
            KERNEL(strange, y, b)


def test_distributed_tensors_are_refused():
    script = """
import tempfile, torch
import torch.distributed as dist
from torch.distributed.tensor import DeviceMesh, Shard, distribute_tensor
from pairfold.errors import ArrayTypeError
from pairfold.torch import Genred
with tempfile.NamedTemporaryFile() as file:
    dist.init_process_group("gloo", init_method=f"file://{file.name}", rank=0, world_size=1)
    x = distribute_tensor(torch.randn(4, 3), DeviceMesh("cpu", [0]), [Shard(0)])
    try:
        Genred("SqDist(x,y)", ["x = Vi(3)", "y = Vj(3)"], axis=1)(x, torch.randn(5, 3))
    except ArrayTypeError as error:
        assert "DTensor" in str(error) and "to_local" in str(error), error
        print("refused")
    dist.destroy_process_group()
"""
    if not torch.distributed.is_available():
        pytest.skip("this torch has no torch.distributed")  # so no DTensor either
    command = [sys.executable, "-W", "ignore", "-c", script]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.stdout.endswith("refused\n"), found.stderr  # older versions say more before


def test_plain_calls_register_nothing():
    script = """
import sys, torch
from pairfold.torch import Genred
x = torch.randn(4, 3, requires_grad=True)
result = Genred("SqDist(x,y)", ["x = Vi(3)", "y = Vj(3)"], axis=1)(x, torch.randn(5, 3))
torch.autograd.grad(result.sum(), x)
print(hasattr(torch.ops.pairfold, "reduce"), "pairfold.frontends.torchops" in sys.modules)
"""
    found = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert found.stdout.split() == ["False", "False"]
