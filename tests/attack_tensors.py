"""Tensors of every kind in every place where a tensor may come in: a right value or a typed error.

    python tests/attack_tensors.py

The kinds: torch's own subclasses, those of its testing package, every layout, device and dtype,
memory that was freed, shortened or never there. What torch itself refuses, or raises on the way to
us, is counted as torch's.
"""

from __future__ import annotations

import os
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from typing import Any

ROWS, DIM = 4, 3
# What torch reads by itself, before we could say anything.
READ_BY_TORCH = {(kind, "tangent") for kind in ("freed", "one byte short")}


# ----- kinds --------------------------------------------------------------------------------------


def _lost(x: Any, bytes_left: int) -> Any:
    x = x.clone()
    x.untyped_storage().resize_(bytes_left)
    return x


def memory_kinds(torch: Any) -> Iterator[tuple[str, Callable[[Any], Any], bool]]:
    """Names, how to make one of plain values, and whether it has these values."""
    yield "plain", lambda x: x, True
    yield "parameter", torch.nn.Parameter, True
    yield "buffer", torch.nn.Buffer, True
    yield "freed", lambda x: _lost(x, 0), False
    yield "one byte short", lambda x: _lost(x, x.untyped_storage().nbytes() - 1), False
    yield (
        "zeros without memory",
        lambda x: torch._efficientzerotensor(x.shape, dtype=x.dtype),
        False,
    )
    yield "negation view", lambda x: torch.complex(x, -x).conj().imag, True
    yield "copy on write", torch._lazy_clone, True
    yield "functional", torch._to_functional_tensor, False
    yield "meta", lambda x: x.to("meta"), False
    yield "inference", lambda x: _inference(torch, x), True


def layout_kinds(torch: Any) -> Iterator[tuple[str, Callable[[Any], Any], bool]]:
    """Tensors that are stored in other ways, or as other numbers."""
    yield "coo", lambda x: x.to_sparse(), False
    yield "csr", lambda x: x.to_sparse_csr(), False
    yield "csc", lambda x: x.to_sparse_csc(), False
    yield "bsr", lambda x: x.to_sparse_bsr((1, 1)), False
    yield "bsc", lambda x: x.to_sparse_bsc((1, 1)), False
    yield "mkldnn", lambda x: x.float().to_mkldnn(), False
    yield "nested", lambda x: torch.nested.nested_tensor([x, x[:1]]), False
    yield "jagged", lambda x: torch.nested.nested_tensor([x, x[:1]], layout=torch.jagged), False
    yield "uninitialized", lambda x: torch.nn.UninitializedParameter(), False
    yield "uninitialized buffer", lambda x: torch.nn.UninitializedBuffer(), False
    yield "quantized", lambda x: torch.quantize_per_tensor(x.float(), 0.1, 0, torch.qint8), False
    for dtype in sorted({d for d in vars(torch).values() if isinstance(d, torch.dtype)}, key=str):
        if dtype != torch.float64:
            yield str(dtype), lambda x, dtype=dtype: torch.empty(x.shape, dtype=dtype), False


def _inference(torch: Any, x: Any) -> Any:
    with torch.inference_mode():
        return x.clone()


def subclass_kinds(torch: Any) -> Iterator[tuple[str, Callable[[Any], Any], bool]]:
    """torch's own subclasses, and those of its testing package."""
    from torch._inductor.freezing import ErasedTensor
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch._subclasses.functional_tensor import FunctionalTensor, FunctionalTensorMode
    from torch.masked import masked_tensor
    from torch.nn.utils._expanded_weights.expanded_weights_impl import ExpandedWeight
    from torch.testing._internal import common_subclass, logging_tensor
    from torch.testing._internal.composite_compliance import generate_cct_and_mode
    from torch.testing._internal.custom_tensor import (
        ConstantExtraMetadataTensor,
        CustomTensorPlainOut,
    )
    from torch.testing._internal.subclasses import WrapperSubclass
    from torch.testing._internal.two_tensor import TwoTensor

    def functional(x: Any) -> Any:
        with FunctionalTensorMode():
            return FunctionalTensor.to_functional(x)

    yield "fake", lambda x: FakeTensorMode().from_tensor(x), False
    yield "functional wrapper", functional, False
    yield "masked", lambda x: masked_tensor(x, x > 0), False
    yield "expanded weight", lambda x: ExpandedWeight(torch.nn.Parameter(x), 2, "sum"), False
    yield "erased", lambda x: ErasedTensor(x, "name", torch.nn.Linear(1, 1)), False
    yield "two", lambda x: TwoTensor(x, x.clone()), False
    yield "wrapper", WrapperSubclass, False
    yield "constant", ConstantExtraMetadataTensor, False
    yield "plain out", lambda x: CustomTensorPlainOut(x, x.clone()), False
    yield "logging", logging_tensor.LoggingTensor, False
    yield "reentrant logging", logging_tensor.LoggingTensorReentrant, False
    compliant, mode = generate_cct_and_mode()
    yield "compliance", lambda x: compliant(x, mode), False
    for info in common_subclass.subclass_db.values():
        flat = info.name.startswith("diag")  # made of a diagonal
        yield (
            info.name,
            lambda x, make=info.create_fn, flat=flat: make(tuple(x.shape[flat:])),
            False,
        )
    yield "distributed", _distributed, False


def _distributed(x: Any) -> Any:
    import torch
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor
    from torch.testing._internal.distributed.fake_pg import FakeStore

    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group("fake", store=FakeStore(), rank=0, world_size=2)
    return distribute_tensor(x, init_device_mesh("cpu", (2,)), [Shard(0)])


def answering_kinds(torch: Any) -> Iterator[tuple[str, Callable[[Any], Any], bool]]:
    """Subclasses with memory of their own that say something else of it."""
    for name, value in {
        "shape": (10**6, DIM),
        "dtype": torch.float32,
        "stride": lambda self: (10**6, 1),
        "data_ptr": lambda self: 4096,
        "is_neg": lambda self: True,
        "storage_offset": lambda self: -(10**9),
        "element_size": lambda self: 1,
        "requires_grad": False,
        "device": torch.device("cuda"),
    }.items():
        kind = type(f"Answers{name}", (torch.Tensor,), {name: value})
        yield f"answers for {name}", lambda x, kind=kind: x.clone().as_subclass(kind), True

    class Function(torch.Tensor):
        @classmethod
        def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None):
            if func is torch.Tensor.stride:
                return (10**6, 1)
            return super().__torch_function__(func, types, args, kwargs or {})

    yield "answers in __torch_function__", lambda x: x.clone().as_subclass(Function), True


def kinds(torch: Any) -> Iterator[tuple[str, Callable[[Any], Any], bool]]:
    """All of them."""
    for some in (memory_kinds, layout_kinds, subclass_kinds, answering_kinds):
        yield from some(torch)


# ----- places -------------------------------------------------------------------------------------


def places(torch: Any) -> dict[str, Callable[[Callable[[Any], Any]], tuple[Any, Any]]]:
    """Names, and a function from how to make a kind to a result and what it should be."""
    from torch.autograd import forward_ad

    import pairfold
    from pairfold.torch import Genred, KernelSolve, LazyTensor

    names = ["x = Vi(3)", "y = Vj(3)", "b = Vj(3)", "p = Pm(3)"]
    kernel = Genred("Exp(-SqDist(x,y))*b*p", names, axis=1)
    x, y, b, p = (torch.rand(ROWS, DIM, dtype=torch.float64) for _ in range(4))
    p = p[0]

    def dense(x: Any, y: Any, b: Any, p: Any) -> Any:
        return (-((x[:, None] - y) ** 2).sum(-1)).exp() @ (b * p)

    def argument(position: int, asks: bool = False, **options: Any) -> Any:
        def call(make: Any) -> Any:
            plain = [x, y, b, p]
            given = list(plain)
            given[position] = make(plain[position].clone())
            if asks:
                given[position].requires_grad_()
                found = kernel(*given, **options)
                leaf = plain[position].clone().requires_grad_()
                plain[position] = leaf
                want = torch.autograd.grad(dense(*plain).sum(), leaf)
                return torch.autograd.grad(found.sum(), given[position])[0], want[0]
            return kernel(*given, **options), dense(*plain)

        return call

    def out(make: Any) -> Any:
        into = make(torch.zeros(ROWS, DIM, dtype=x.dtype))
        kernel(x, y, b, p, out=into)
        return into, dense(x, y, b, p)

    def incoming(make: Any) -> Any:
        leaves = x.clone().requires_grad_(), b.clone().requires_grad_()
        gradient = torch.rand(ROWS, DIM, dtype=x.dtype)
        found = torch.autograd.grad(kernel(leaves[0], y, leaves[1], p), leaves, make(gradient))
        want = torch.autograd.grad(dense(leaves[0], y, leaves[1], p), leaves, gradient)
        return torch.cat(found), torch.cat(want)

    def tangent(make: Any) -> Any:
        along = torch.rand(ROWS, DIM, dtype=x.dtype)
        want = torch.func.jvp(lambda x: dense(x, y, b, p), (x,), (along,))[1]
        with forward_ad.dual_level():
            dual = forward_ad.make_dual(x, make(along))
            return forward_ad.unpack_dual(kernel(dual, y, b, p)).tangent, want

    def saved(make: Any) -> Any:
        leaf = x.clone().requires_grad_()
        with torch.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: make(t.detach())):
            found = kernel(leaf, y, b, p)
        return torch.autograd.grad(found.sum(), leaf)[0], torch.autograd.grad(
            dense(leaf, y, b, p).sum(), leaf
        )[0]

    def transformed(make: Any) -> Any:
        found = torch.func.vmap(lambda b: kernel(x, y, b, p), in_dims=0)(
            make(b.expand(2, ROWS, DIM))
        )
        return found, torch.stack([dense(x, y, b, p)] * 2)

    def ranges(make: Any) -> Any:
        half = [torch.tensor(part) for part in ([[0, ROWS]], [1], [[0, ROWS]])]
        given = [*half, *half]
        given[2] = make(given[2])
        return kernel(x, y, b, p, ranges=given), dense(x, y, b, p)

    system = KernelSolve("Exp(-SqDist(x,y))*b*p", names, "b", axis=1)
    solved = system(x, x, b, torch.ones_like(p), alpha=1.0)

    def right_side(make: Any) -> Any:
        return system(x, x, make(b.clone()), torch.ones_like(p), alpha=1.0), solved

    def alpha(make: Any) -> Any:
        ones = torch.ones(ROWS, 1, dtype=x.dtype)
        return system(x, x, b, torch.ones_like(p), alpha=make(ones)), solved

    def lazy(make: Any) -> Any:
        symbol = LazyTensor(make(x.clone())[:, None, :])
        found = (-symbol.sqdist(LazyTensor(y[None]))).exp() @ b
        return found, dense(x, y, b, torch.ones_like(p))

    def explained(make: Any) -> Any:
        kernel.explain(make(x.clone()), y, b, p)
        return kernel(x, y, b, p), kernel(x, y, b, p)

    def both(make: Any) -> Any:
        found = pairfold.Genred("Exp(-SqDist(x,y))*b*p", names, axis=1)
        return found(x.numpy(), make(y.clone()), b.numpy(), p.numpy()), dense(x, y, b, p)

    found = {f"argument {n}": argument(n) for n in range(4)}
    found |= {f"argument {n} that asks for a gradient": argument(n, True) for n in range(4)}
    found |= {"argument on a GPU": argument(0, backend="GPU")}
    found |= {f.__name__: f for f in (out, incoming, tangent, saved, transformed, ranges)}
    found |= {f.__name__: f for f in (right_side, alpha, lazy, explained, both)}
    return found


# ----- verdicts -----------------------------------------------------------------------------------


def verdict(torch: Any, place: Any, make: Any, has_values: bool) -> str:
    """right, refused, torch (which raised before or beside us), or what is wrong."""
    from pairfold.errors import InternalError, PairfoldError

    try:
        got, want = place(make)
    except InternalError as error:
        return f"WRONG: {error}"
    except PairfoldError:
        return "refused"
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        ours = [frame for frame in frames if "pairfold" in frame.filename.split("src")[-1]]
        last = frames[-1]
        outside = "site-packages/torch" in last.filename or __file__ == last.filename
        if not ours or outside or "saved_tensors" in str(last.line):
            return f"torch: {type(error).__name__}: {str(error)[:100]}"
        where = f"{last.filename}:{last.lineno}"
        return f"WRONG: {type(error).__name__}: {str(error)[:200]} at {where}"
    if got is None:
        return "other values"
    if type(got) is not torch.Tensor:
        with torch._C.DisableTorchFunctionSubclass():
            got = got.as_subclass(torch.Tensor)
    if torch.allclose(got.detach(), want.detach(), rtol=1e-9, atol=1e-12):
        return "right"
    zeros = not got.any() or not has_values
    return "other values" if zeros else f"WRONG: {got} instead of {want}"


def _meet(torch: Any, name: str, make: Callable[[Any], Any], has_values: bool) -> None:
    """One kind in every place; a line for each."""
    try:
        make(torch.rand(ROWS, DIM, dtype=torch.float64))
    except Exception as error:
        print(f"{name}: not made: {error}"[:200].replace("\n", " "), flush=True)
        return
    for where, place in places(torch).items():
        if (name, where) not in READ_BY_TORCH:
            print(f"{name} as {where}", end=": ", flush=True)
            print(verdict(torch, place, make, has_values).replace("\n", " "), flush=True)


def attack() -> None:
    """Every kind in every place, each in a process of its own: some leave torch in disorder."""
    import torch

    warnings.simplefilter("ignore")
    for place in places(torch).values():  # compiled once, for all processes
        verdict(torch, place, lambda x: x.clone(), True)
    for name, make, has_values in kinds(torch):
        child = os.fork()
        if not child:
            _meet(torch, name, make, has_values)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if status:
            print(f" WRONG: the process ended with status {status}", flush=True)


def main() -> int:
    """Run it and count."""
    if "--here" in sys.argv:
        attack()
        return 0
    command = [sys.executable, "-X", "faulthandler", __file__, "--here"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = found.stdout.splitlines()
    verdicts = ("right", "refused", "torch", "other values", "not made", "WRONG")
    counts = {kind: sum(f": {kind}" in line for line in lines) for kind in verdicts}
    wrong = [line for line in lines if "WRONG" in line]
    print(*wrong, ", ".join(f"{count} {kind}" for kind, count in counts.items()), sep="\n")
    if found.returncode or wrong:
        print(found.stderr[-4000:], file=sys.stderr, end="")
    return 1 if wrong or not counts["right"] else found.returncode


if __name__ == "__main__":
    sys.exit(main())
