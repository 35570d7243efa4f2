"""The peers on a GPU: those of the CPU's benchmark, on tensors that are there, and torch.cdist."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.case import NEAR, Arrays, Case
from benchmarks.gpu_cases import COMPILED, Timed
from benchmarks.harness import OURS
from benchmarks.peers.base import Skip, Work, chunk_rows, tensors
from benchmarks.peers.compiled import AttentionPeer, CompiledPeer
from benchmarks.peers.eager import TorchPeer
from benchmarks.peers.genred import GenredPeer

PYKEOPS, COMPILING, CDIST = "PyKeOps", "torch compiled", "torch cdist"
NO_METHOD = "no method for this"
CHUNK_BYTES = 4_000_000_000  # fewer than 2^31 numbers of 16 bits

SAYS = f"""\
Peers, all on the same device:

- *torch products*, *torch differences*: chunks of rows whose table of pairs has at most
  {CHUNK_BYTES / 1e9:g} GB (or a sixteenth of the memory), squared distances from one matrix product
  (fast, but it cancels, see the errors) or coordinate by coordinate; gradients derived by hand.
- *torch autograd*: gradients through autograd, forward and backward of each chunk.
- *{COMPILING}*: `torch.compile` of a chunk of rows, differences up to 10 dimensions, products
  above; gradients through autograd, forward and backward of each chunk; at {COMPILED[0]} alone.
- *torch attention*: `scaled_dot_product_attention`.
- *{CDIST}*: `torch.cdist` and `topk` of chunks of rows.
- *{PYKEOPS}*: as installed.

Matrix products are exact float32 where they are float32 (no TF32).
"""


class CdistPeer:
    """The nearest columns from `torch.cdist` and `topk`, in chunks of rows."""

    def __init__(self, chunk_bytes: int) -> None:
        self.torch = importlib.import_module("torch")
        self.chunk_bytes = chunk_bytes

    def prepare(self, case: Case, arrays: Arrays) -> Work:
        """The indices of the K nearest columns of each row."""
        if case.group != NEAR or case.reduction_op != "ArgKMin":
            raise Skip
        torch, v, count = self.torch, tensors(arrays), case.opt_arg
        size = chunk_rows(len(v["x"]), len(v["y"]), v["x"].element_size(), self.chunk_bytes)

        def work() -> Sequence[Any]:
            parts = [
                torch.cdist(x, v["y"]).topk(count, 1, largest=False).indices
                for x in v["x"].split(size)
            ]
            return (torch.cat(parts),)

        return work


class AutogradPeer(CompiledPeer):
    """Gradients by autograd, for cases whose gradient no other peer derives by hand."""

    def prepare(self, case: Case, arrays: Arrays) -> Work:
        """Forward and backward of each chunk of rows."""
        if not case.wrt or case.kernel.endswith("-gradient"):
            raise Skip
        return super().prepare(case, arrays)


class FreshCompiledPeer(CompiledPeer):
    """torch.compile that forgets earlier cases: they count against its limit of compilations."""

    def prepare(self, case: Case, arrays: Arrays) -> Work:
        """The case's reduction, compiled for its sizes."""
        self.torch._dynamo.reset()
        return super().prepare(case, arrays)


def without_pykeops() -> str:
    """Why PyKeOps cannot be asked; "" where it can. Pairfold's package of that name is not it."""
    try:
        with contextlib.redirect_stdout(sys.stderr):
            module = importlib.import_module("pykeops.torch")
    except Exception as error:
        return first_line(error)
    owner = str(module.Genred.__module__)
    return "" if owner.startswith("pykeops.") else "pairfold stands under that name"


def first_line(error: BaseException) -> str:
    """An error in a line."""
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]


def table(chunk_bytes: int) -> dict[str, Callable[[], Any]]:
    """How to make each peer, by name; ours first."""
    return {
        OURS: lambda: GenredPeer(OURS),
        "torch products": lambda: TorchPeer("products", chunk_bytes),
        "torch differences": lambda: TorchPeer("differences", chunk_bytes),
        "torch autograd": lambda: AutogradPeer(chunk_bytes // 4, float("inf"), compiled=False),
        COMPILING: lambda: FreshCompiledPeer(chunk_bytes, float("inf")),
        "torch attention": AttentionPeer,
        CDIST: lambda: CdistPeer(chunk_bytes),
        PYKEOPS: lambda: GenredPeer("pykeops"),
    }


def unfit(name: str, timed: Timed) -> str:
    """Why a peer is not asked to do a case although it could be; "" where it is."""
    if name == COMPILING and timed.size not in COMPILED:
        return f"compiled at {COMPILED[0]} alone"
    return ""
