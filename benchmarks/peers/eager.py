"""torch in chunks of rows, one operation after the other."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from benchmarks.case import BEYOND, MEANS, NEAR, REDUCED, SOFT, Arrays, Case
from benchmarks.peers.base import CHUNK_BYTES, Skip, Work, chunk_rows, tensors
from benchmarks.programs import SYSTEM_ALPHA, batches

_MOST_DIFFERENCES = 16  # dimensions up to which one subtracts coordinate by coordinate


def torch_folds() -> dict[str, Callable[[Any, Any, int], Sequence[Any]]]:
    """What torch makes of a chunk of pair values f (may be overwritten), weights b, and K."""
    torch = importlib.import_module("torch")

    def shift(f: Any) -> Any:
        """The largest value of each row; f becomes e^(f - largest)."""
        top = f.amax(1, keepdim=True)
        f.sub_(top).exp_()
        return top

    def sums(f: Any, b: Any) -> Any:
        return f.sum(1, keepdim=True) if b is None else f @ b

    def shifted(f: Any, b: Any, k: int) -> Sequence[Any]:
        return (torch.cat([shift(f), sums(f, b)], 1),)

    def softmax(f: Any, b: Any, k: int) -> Sequence[Any]:
        shift(f)
        return ((f @ b).div_(f.sum(1, keepdim=True)),)

    return {
        "Sum": lambda f, b, k: (f.sum(1),),
        "LogSumExp": lambda f, b, k: (shift(f) + sums(f, b).log_(),),
        "SumSoftMaxWeight": softmax,
        "Max_SumShiftExp": shifted,
        "Max_SumShiftExpWeight": shifted,
        "Min": lambda f, b, k: (f.amin(1),),
        "Max": lambda f, b, k: (f.amax(1),),
        "ArgMin": lambda f, b, k: (f.argmin(1),),
        "ArgMax": lambda f, b, k: (f.argmax(1),),
        "Min_ArgMin": lambda f, b, k: tuple(f.min(1)),
        "Max_ArgMax": lambda f, b, k: tuple(f.max(1)),
        "KMin": lambda f, b, k: tuple(f.topk(k, 1, largest=False))[:1],
        "ArgKMin": lambda f, b, k: tuple(f.topk(k, 1, largest=False))[1:],
        "KMin_ArgKMin": lambda f, b, k: tuple(f.topk(k, 1, largest=False)),
    }


class TorchPeer:
    """torch in chunks of rows, with buffers that are allocated once per call.

    `form` is "products" (|x|^2 + |y|^2 - 2 x.y from one matrix product: fast, but it cancels) or
    "differences" (coordinate by coordinate). A buffer has at most `chunk_bytes`.
    """

    def __init__(self, form: str, chunk_bytes: int = CHUNK_BYTES) -> None:
        self.form = form
        self.chunk_bytes = chunk_bytes
        self.torch = importlib.import_module("torch")

    def versions(self) -> dict[str, str]:
        """The version of torch."""
        return {"torch": str(self.torch.__version__)}

    def prepare(self, case: Case, arrays: Arrays) -> Work:
        """The method for the case's kernel."""
        v = tensors(arrays)
        differences = self.form == "differences"
        if case.wrt and not case.kernel.endswith("-gradient") and case.what != "both":
            raise Skip
        if case.program:
            return self._program(case, v)
        if case.what == "both":
            if not differences:
                raise Skip
            return lambda: self._dense(v)
        if case.kernel.startswith("seed") and not differences:
            raise Skip
        if case.dims["x"] > _MOST_DIFFERENCES and differences:
            raise Skip
        if case.group == BEYOND:
            raise Skip
        if case.group in (REDUCED, NEAR, MEANS, SOFT):
            return lambda: self._reduced(case, v)
        if case.kernel == "seed":
            return lambda: (self._seed(v),)
        if case.kernel == "seed-gradient":
            return lambda: (self._seed_gradient(v),)
        if case.kernel == "gaussian-gradient":
            return lambda: self._gaussian_gradient(v)
        return lambda: (self._radial(case.kernel, v),)

    def _program(self, case: Case, v: dict[str, Any]) -> Work:
        """Lazy tensors are sums; batches are products of batches; systems are dense."""
        torch = self.torch
        if case.program == "lazy":
            return lambda: (self._radial("gaussian", v),)
        if self.form == "differences":
            raise Skip
        if case.program == "batched":
            count = batches(v)
            x, y, b = (v[name].reshape(count, -1, v[name].shape[-1]) for name in ("x", "y", "b"))

            def batched() -> Sequence[Any]:
                kernel = torch.baddbmm((x * x).sum(2, keepdim=True), x, y.mT, alpha=-2)
                kernel.add_((y * y).sum(2)[:, None]).neg_().exp_()
                return ((kernel @ b).reshape(-1, 1),)

            return batched
        if case.program == "system":

            def dense() -> Sequence[Any]:
                kernel = torch.cdist(v["x"], v["x"]).square_().neg_().exp_()
                kernel.diagonal().add_(SYSTEM_ALPHA)
                return (torch.cholesky_solve(v["b"], torch.linalg.cholesky(kernel)),)

            return dense
        raise Skip

    def _chunks(self, rows: int, like: Any, columns: int, buffers: int) -> Any:
        """Slices of rows, each with buffers of that many rows."""
        size = chunk_rows(rows, columns, like.element_size(), self.chunk_bytes)
        whole = [like.new_empty((size, columns)) for _ in range(buffers)]
        for start in range(0, rows, size):
            part = slice(start, min(start + size, rows))
            yield part, [buffer[: part.stop - start] for buffer in whole]

    def _distances(self, v: dict[str, Any], sign: int) -> Any:
        """(rows, sign * squared distances of these rows to all columns), chunk by chunk."""
        torch, x, y = self.torch, v["x"], v["y"]
        if self.form == "differences":
            columns = y.T.contiguous()
            for part, (buffer, scratch) in self._chunks(len(x), x, len(y), 2):
                buffer.zero_()
                for k in range(x.shape[1]):
                    torch.sub(x[part, k, None], columns[k], out=scratch)
                    buffer.addcmul_(scratch, scratch, value=sign)
                yield part, buffer
            return
        one = torch.ones_like
        square_x, square_y = (x * x).sum(1, keepdim=True), (y * y).sum(1, keepdim=True)
        left = sign * torch.cat([-2 * x, square_x, one(square_x)], 1)
        right = torch.cat([y, one(square_y), square_y], 1).T
        for part, (buffer,) in self._chunks(len(x), x, len(y), 1):
            yield part, torch.mm(left[part], right, out=buffer)

    def _reduced(self, case: Case, v: dict[str, Any]) -> Sequence[Any]:
        fold = torch_folds()[case.reduction_op]
        weight = v[case.formula2] if case.formula2 else None
        parts = [fold(f, weight, case.opt_arg or 0) for f in self._values(case, v)]
        return [self.torch.cat(chunks) for chunks in zip(*parts)]

    def _values(self, case: Case, v: dict[str, Any]) -> Iterator[Any]:
        """The pair values that a reduction takes in, chunk by chunk."""
        if case.kernel == "attention":
            if self.form == "differences":
                raise Skip
            for part, (buffer,) in self._chunks(len(v["x"]), v["x"], len(v["y"]), 1):
                yield self.torch.mm(v["x"][part], v["y"].T, out=buffer)
        elif case.kernel == "sinkhorn":
            for _, f in self._distances(v, -100):
                yield f.add_(v["b"].T, alpha=100)
        else:
            for _, f in self._distances(v, -1 if case.formula.startswith("-") else 1):
                yield f

    def _radial(self, kernel: str, v: dict[str, Any]) -> Any:
        out = v["b"].new_empty((len(v["x"]), v["b"].shape[1]))
        for part, buffer in self._distances(v, -1 if kernel == "gaussian" else 1):
            self.torch.mm(self._map(kernel, buffer), v["b"], out=out[part])
        return out

    def _map(self, kernel: str, d2: Any) -> Any:
        """The kernel of squared distances, in place (minus squared distances for "gaussian")."""
        if kernel == "gaussian":
            return d2.exp_()
        if kernel == "cauchy":
            return d2.add_(1).reciprocal_()
        if kernel == "coulomb":
            # The products leave rounding errors where points coincide.
            least = 1e-5 if self.form == "products" else 0.0
            return d2.masked_fill_(d2 <= least, float("inf")).rsqrt_()
        if kernel == "laplacian":
            return d2.clamp_min_(0).sqrt_().neg_().exp_()
        if kernel == "matern":
            root = d2.clamp_min_(0).sqrt()
            d2.div_(3).add_(root).add_(1)
            return d2.mul_(root.neg_().exp_())
        raise Skip

    def _seed(self, v: dict[str, Any]) -> Any:
        out = self.torch.empty_like(v["x"])
        weight = (v["p"] - v["a"]).square_()[:, 0]
        columns = v["y"].T.contiguous()
        for part, (buffer,) in self._chunks(len(v["x"]), v["x"], len(v["y"]), 1):
            for k in range(3):
                self.torch.add(v["x"][part, k, None], columns[k], out=buffer)
                out[part, k] = buffer.exp_() @ weight
        return out

    def _seed_gradient(self, v: dict[str, Any]) -> Any:
        out = self.torch.empty_like(v["y"])
        columns, upstream = v["x"].T.contiguous(), v["e"].T.contiguous()
        for part, (buffer,) in self._chunks(len(v["y"]), v["y"], len(v["x"]), 1):
            for k in range(3):
                self.torch.add(v["y"][part, k, None], columns[k], out=buffer)
                out[part, k] = buffer.exp_() @ upstream[k]
        return out.mul_((v["p"] - v["a"]).square_())

    def _gaussian_gradient(self, v: dict[str, Any]) -> Any:
        torch, x, y, b, e = self.torch, v["x"], v["y"], v["b"], v["e"]
        by_x, by_y, by_b = torch.empty_like(x), torch.zeros_like(y), torch.zeros_like(b)
        for part, buffer in self._distances(v, -1):
            buffer.exp_()
            by_b.addmm_(buffer.T, e[part])
            buffer.mul_(e[part]).mul_(b.T)
            by_x[part] = 2 * (buffer @ y - x[part] * buffer.sum(1, keepdim=True))
            by_y += 2 * (buffer.T @ x[part] - y * buffer.sum(0)[:, None])
        return by_x, by_y, by_b

    def _dense(self, v: dict[str, Any]) -> Any:
        """The whole table at once, through autograd: what one writes for small arrays."""
        wrt = [v[name].requires_grad_() for name in ("x", "y", "b")]
        d2 = (wrt[0][:, None] - wrt[1][None]).square().sum(-1)
        return self.torch.autograd.grad(d2.neg().exp() @ wrt[2], wrt, v["e"])
