"""torch's compiler on chunks of rows, and torch's own attention."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.case import BEYOND, MEANS, NEAR, REDUCED, THIN, Arrays, Case
from benchmarks.peers.base import CHUNK_BYTES, Skip, Work, chunk_rows, tensors

_MOST = 500_000_000  # pairs
_DIFFERENCES = 10  # dimensions up to which differences are written out


class CompiledPeer:
    """`torch.compile` of a chunk of rows: differences in few dimensions, products in many.

    Without `compiled` the same, one operation after the other. A table of pairs that is stored has
    at most `chunk_bytes`; cases of more than `most` pairs are left out.
    """

    shaped = True

    def __init__(
        self, chunk_bytes: int = CHUNK_BYTES, most: float = _MOST, compiled: bool = True
    ) -> None:
        self.torch = importlib.import_module("torch")
        self.chunk_bytes, self.most, self.compiled = chunk_bytes, most, compiled

    def versions(self) -> dict[str, str]:
        """The version of torch."""
        return {"torch": str(self.torch.__version__)}

    def prepare(self, case: Case, arrays: Arrays) -> Work:
        """The case's reduction over a chunk of rows, compiled for its sizes."""
        if case.group in (REDUCED, BEYOND, THIN, NEAR, MEANS) or case.program not in ("", "lazy"):
            raise Skip
        if case.rows * case.columns > self.most or case.what == "both":
            raise Skip
        if case.dtype == "float64" and case.kernel != "gaussian":
            raise Skip  # each compilation takes seconds
        v = tensors(arrays)
        kept, reduced = ("y", "x") if case.kernel == "seed-gradient" else ("x", "y")
        fold = self._fold(case)
        if self.compiled:
            fold = self.torch.compile(fold, dynamic=False)
        rows = len(v[kept])
        size = chunk_rows(rows, len(v[reduced]), v[kept].element_size(), self.chunk_bytes)
        size = next(k for k in range(size, 0, -1) if rows % k == 0)
        parts = [slice(start, start + size) for start in range(0, rows, size)]
        if case.wrt == ("x", "y", "b"):
            return lambda: self._gradient(fold, v, parts)
        along = [name for name in (kept, "a") if name in v and len(v[name]) == rows]

        def work() -> Sequence[Any]:
            chunks = (fold({**v, **{name: v[name][part] for name in along}}) for part in parts)
            return (self.torch.cat(list(chunks)),)

        return work

    def _gradient(self, fold: Any, v: dict[str, Any], parts: Sequence[slice]) -> Sequence[Any]:
        """Forward and backward of each chunk; what belongs to columns is added up."""
        torch, e = self.torch, v["e"]
        y, b = v["y"].requires_grad_(), v["b"].requires_grad_()
        by_x, by_y, by_b = [], torch.zeros_like(y), torch.zeros_like(b)
        for part in parts:
            x = v["x"][part].detach().requires_grad_()
            out = fold({"x": x, "y": y, "b": b})
            found = torch.autograd.grad(out, (x, y, b), e[part].reshape(out.shape))
            by_x.append(found[0])
            by_y += found[1]
            by_b += found[2]
        return torch.cat(by_x), by_y, by_b

    def _fold(self, case: Case) -> Callable[[dict[str, Any]], Any]:
        torch = self.torch

        def squared(v: dict[str, Any]) -> Any:
            x, y = v["x"], v["y"]
            if x.shape[1] <= _DIFFERENCES:
                return sum((x[:, k, None] - y[:, k]).square() for k in range(x.shape[1]))
            return (x * x).sum(1)[:, None] + (y * y).sum(1) - 2 * x @ y.T

        def coulomb(d2: Any) -> Any:
            zero = d2 == 0
            return torch.where(zero, 0, torch.where(zero, 1, d2).rsqrt())

        def matern(d2: Any) -> Any:
            root = d2.sqrt()
            return (1 + root + d2 / 3) * (-root).exp()

        radial: dict[str, Callable[[Any], Any]] = {
            "gaussian": lambda d2: (-d2).exp(),
            "gaussian-gradient": lambda d2: (-d2).exp(),
            "lazy": lambda d2: (-d2).exp(),
            "laplacian": lambda d2: (-d2.sqrt()).exp(),
            "matern": matern,
            "cauchy": lambda d2: 1 / (1 + d2),
            "coulomb": coulomb,
        }
        if case.kernel in radial:
            return lambda v: self._sum(radial[case.kernel](squared(v)), v["b"])
        others: dict[str, Callable[[dict[str, Any]], Any]] = {
            "seed": lambda v: (
                (v["x"][:, None] + v["y"]).exp() * (v["p"] - v["a"]).square()
            ).sum(1),
            "seed-gradient": lambda v: (
                (v["y"][:, None] + v["x"]).exp() * v["e"]
            ).sum(1) * (v["p"] - v["a"]).square(),
            "sinkhorn": lambda v: torch.logsumexp(100 * (v["b"][:, 0] - squared(v)), 1),
            "attention": lambda v: torch.softmax(v["x"] @ v["y"].T, 1) @ v["b"],
        }  # fmt: skip
        if case.kernel not in others:
            raise Skip
        return others[case.kernel]

    def _sum(self, weights: Any, b: Any) -> Any:
        """Weights times b: a sum that the compiler fuses for one output, a product for more."""
        if b.shape[1] == 1:
            return (weights * b[:, 0]).sum(1, keepdim=True)
        return weights @ b


class AttentionPeer:
    """torch's scaled_dot_product_attention."""

    def __init__(self) -> None:
        self.torch = importlib.import_module("torch")

    def versions(self) -> dict[str, str]:
        """The version of torch."""
        return {"torch": str(self.torch.__version__)}

    def prepare(self, case: Case, arrays: Arrays) -> Work:
        """Attention with one head, products as they are; or its backward pass."""
        if case.kernel != "attention":
            raise Skip
        v, attend = tensors(arrays), self.torch.nn.functional.scaled_dot_product_attention

        def attended() -> Any:
            return attend(*(v[name][None, None] for name in ("x", "y", "b")), scale=1.0)[0, 0]

        if not case.wrt:
            return lambda: (attended(),)
        wrt = [v[name].requires_grad_() for name in case.wrt]
        result = attended()
        return lambda: self.torch.autograd.grad(result, wrt, v["e"], retain_graph=True)
