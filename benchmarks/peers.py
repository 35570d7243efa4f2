"""What each peer does with a case. This module runs inside the peers' own processes.

A peer's `prepare(case, arrays)` returns a function of no arguments that does the work once and
returns its results; it raises `Skip` for what the peer has no method for.
"""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks.cases import BEYOND, REDUCED, THIN, Array, Arrays, Case
from benchmarks.programs import PROGRAMS

Work = Callable[[], Sequence[Any]]

CHUNK_BYTES = 16_000_000


class Skip(Exception):
    """The peer has no method for this case."""


class GenredPeer:
    """pairfold, or PyKeOps: the same program for both."""

    def __init__(self, library: str, **options: Any) -> None:
        self.library = library
        self.options = options

    def prepare(self, case: Case, arrays: Arrays) -> Work:
        """The case as a user writes it."""
        if self.library != "pairfold" and case.group == BEYOND:
            raise Skip
        module = importlib.import_module(f"{self.library}.{case.front}")
        if self.library == "pairfold" and case.rules != "rounding":
            work = self._prepare(case, arrays, module)
            settings = importlib.import_module("pairfold").settings

            def under_rules() -> Sequence[Any]:
                with settings(rules=case.rules):
                    return work()

            return under_rules
        return self._prepare(case, arrays, module)

    def _prepare(self, case: Case, arrays: Arrays, module: Any) -> Work:
        if case.program:
            return PROGRAMS[case.program](module, arrays, self.options)
        fold = module.Genred(
            case.formula,
            list(case.aliases),
            reduction_op=case.reduction_op,
            axis=case.axis,
            opt_arg=case.opt_arg,
            formula2=case.formula2,
            **self.options,
        )
        if case.front == "numpy":
            args: list[Any] = [arrays[name] for name in case.variables]
            return lambda: (fold(*args),)
        torch = importlib.import_module("torch")
        tensors = {name: torch.from_numpy(a) for name, a in arrays.items()}
        args = [tensors[name] for name in case.variables]
        if case.what == "forward":
            return lambda: (fold(*args),)
        wrt = [tensors[name].requires_grad_() for name in case.wrt]
        upstream = tensors["e"]
        if case.what == "both":
            return lambda: torch.autograd.grad(fold(*args), wrt, upstream)
        result = fold(*args)
        return lambda: torch.autograd.grad(result, wrt, upstream, retain_graph=True)

    def versions(self) -> dict[str, str]:
        """The version of the library."""
        return {self.library: str(importlib.import_module(self.library).__version__)}


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
    "differences" (coordinate by coordinate).
    """

    def __init__(self, form: str) -> None:
        self.form = form
        self.torch = importlib.import_module("torch")

    def versions(self) -> dict[str, str]:
        """The version of torch."""
        return {"torch": str(self.torch.__version__)}

    def prepare(self, case: Case, arrays: Arrays) -> Work:
        """The method for the case's kernel."""
        if case.program:
            raise Skip
        v = {name: self.torch.from_numpy(a) for name, a in arrays.items()}
        differences = self.form == "differences"
        if case.what == "both":
            if not differences:
                raise Skip
            return lambda: self._dense(v)
        if case.kernel.startswith("seed") and not differences:
            raise Skip
        if case.dims["x"] > 16 and differences:
            raise Skip
        if case.group == BEYOND:
            raise Skip
        if case.group == REDUCED:
            return lambda: self._reduced(case, v)
        if case.kernel == "seed":
            return lambda: (self._seed(v),)
        if case.kernel == "seed-gradient":
            return lambda: (self._seed_gradient(v),)
        if case.kernel == "gaussian-gradient":
            return lambda: self._gaussian_gradient(v)
        return lambda: (self._radial(case.kernel, v),)

    def _chunks(self, rows: int, like: Any, columns: int, buffers: int) -> Any:
        """Slices of rows, each with buffers of that many rows."""
        size = max(1, CHUNK_BYTES // (like.element_size() * max(1, columns)))
        size = min(size, rows)
        whole = [self.torch.empty((size, columns), dtype=like.dtype) for _ in range(buffers)]
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
        sign = -1 if case.formula.startswith("-") else 1
        weight = v[case.formula2] if case.formula2 else None
        parts = [fold(f, weight, case.opt_arg or 0) for _, f in self._distances(v, sign)]
        return [self.torch.cat(chunks) for chunks in zip(*parts)]

    def _radial(self, kernel: str, v: dict[str, Any]) -> Any:
        out = self.torch.empty((len(v["x"]), v["b"].shape[1]), dtype=v["b"].dtype)
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


class CppPeer:
    """The hand-written C++ of `reference.cpp`, compiled by the driver and loaded with ctypes."""

    _TYPES = {"float32": "float", "float64": "double"}

    def __init__(self, path: str) -> None:
        self.library = ctypes.CDLL(path)

    def versions(self) -> dict[str, str]:
        """Nothing: the driver knows the compiler."""
        return {}

    def prepare(self, case: Case, arrays: Arrays) -> Work:
        """The entry of the kernel, for the dimension and dtype of the case."""
        kernel = case.kernel.replace("-", "_")
        name = f"{kernel}_{case.dims['x']}_{self._TYPES[case.dtype]}"
        if not hasattr(self.library, name) or case.dims.get("b", 1) > 1:
            raise Skip
        if case.what == "both" or case.group == THIN or case.program:
            raise Skip
        names = ["x", "y", "a", "p", "e"] if kernel.startswith("seed") else ["x", "y", "b", "e"]
        given = [arrays[name] for name in names if name in arrays]
        outs = self._outs(case, arrays)
        entry = self.library[name]
        pointers = (ctypes.c_void_p * len(given))(*(a.ctypes.data for a in given))
        results = (ctypes.c_void_p * len(outs))(*(a.ctypes.data for a in outs))
        rows, columns = ctypes.c_long(len(arrays["x"])), ctypes.c_long(len(arrays["y"]))

        def work(_keep: Any = given) -> Sequence[Array]:
            entry(pointers, results, rows, columns)
            return outs

        return work

    @staticmethod
    def _outs(case: Case, arrays: Arrays) -> list[Array]:
        like = {
            "seed": ["x"],
            "seed-gradient": ["y"],
            "gaussian-gradient": ["x", "y", "b"],
        }
        if case.kernel in like:
            return [np.zeros_like(arrays[name]) for name in like[case.kernel]]
        dtype = np.int64 if case.kernel.endswith("argmin") else case.dtype
        return [np.zeros((len(arrays["x"]), 1), dtype)]


class MemoryPeer:
    """Reads every input byte and writes every output byte, on all cores, and nothing else."""

    def __init__(self) -> None:
        self.torch = importlib.import_module("torch")

    def versions(self) -> dict[str, str]:
        """torch does the reading."""
        return {"torch": str(self.torch.__version__)}

    def prepare(self, case: Case, arrays: Arrays) -> Work:
        """One sum over the inputs, one fill of the outputs."""
        if case.group != THIN:
            raise Skip
        given = self.torch.cat([self.torch.from_numpy(a).reshape(-1) for a in arrays.values()])
        out = self.torch.empty(len(arrays["x"]), dtype=given.dtype)

        def work() -> Sequence[Any]:
            out.fill_(1.0)
            given.sum()
            return ()

        return work


def make(name: str, option: str) -> Any:
    """The peer of that name; `option` is the C++ library's path."""
    makers: dict[str, Callable[[], Any]] = {
        "pairfold": lambda: GenredPeer("pairfold"),
        "PyKeOps": lambda: GenredPeer("pykeops"),
        "PyKeOps tuned": lambda: GenredPeer("pykeops", sum_scheme="direct_sum"),
        "torch products": lambda: TorchPeer("products"),
        "torch differences": lambda: TorchPeer("differences"),
        "memory": MemoryPeer,
    }
    return CppPeer(option) if name.startswith("C++") else makers[name]()
