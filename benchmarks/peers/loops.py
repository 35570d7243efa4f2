"""numba: the loops that one writes, in parallel and with fast mathematics."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.case import Arrays, Case
from benchmarks.peers.base import Skip, Work
from benchmarks.programs import batches, block_ranges

_UNROLLED = 16  # dimensions up to which the loop over components has a constant length


def _diagonal(v: Arrays) -> tuple[Any, Any, Any]:
    """Batches as blocks: each has its own rows and columns."""
    count = batches(v)
    starts = [np.arange(count + 1) * (len(v[name]) // count) for name in ("x", "y")]
    rows, columns = (np.stack([ends[:-1], ends[1:]], 1) for ends in starts)
    return rows, np.arange(1, count + 1), columns


class NumbaPeer:
    """`njit(parallel=True, fastmath=True)`; columns are transposed in each call, where it helps."""

    def __init__(self) -> None:
        self.numba = importlib.import_module("numba")
        self.compile = self.numba.njit(parallel=True, fastmath=True)
        self.inline = self.numba.njit(fastmath=True)
        self.made: dict[tuple[Any, ...], Callable[..., Any]] = {}

    def versions(self) -> dict[str, str]:
        """The version of numba."""
        return {"numba": str(self.numba.__version__)}

    def prepare(self, case: Case, arrays: Arrays) -> Work:
        """The loop of the case's kernel."""
        v, dtype = arrays, np.dtype(case.dtype)
        if case.program == "system":
            raise Skip
        if case.kernel == "seed":
            fold = self._once(self._seed, dtype)
            return lambda: (fold(v["x"], v["y"].T.copy(), (v["p"] - v["a"])[:, 0] ** 2),)
        if case.kernel == "seed-gradient":
            fold = self._once(self._seed_gradient, dtype)
            return lambda: (fold(v["y"], v["x"].T.copy(), v["e"].T.copy(), v["p"] - v["a"]),)
        squared, layout = self._squared(case.dims["x"], dtype)
        kernel = "gaussian" if case.program else case.kernel
        if case.program in ("batched", "sparse"):
            fold = self._once(self._blocks, dtype, squared, self._kernel(kernel, dtype))
            blocks = block_ranges(v["x"], v["y"]) if case.program == "sparse" else _diagonal(v)
            return lambda: (fold(v["x"], layout(v["y"]), v["b"][:, 0], *blocks[:3]),)
        if kernel == "gaussian-gradient":
            pull = self._once(self._pull, dtype)
            return lambda: self._gradient(pull, v)
        if kernel in ("squared-argmin", "squared-argkmin"):
            count = case.opt_arg or 1
            make = self._argmin if count == 1 else self._nearest
            fold = self._once(make, dtype, squared, count)
            return lambda: (fold(v["x"], layout(v["y"])),)
        if kernel == "sinkhorn":
            fold = self._once(self._sinkhorn, dtype, squared)
            return lambda: (fold(v["x"], layout(v["y"]), v["b"][:, 0]),)
        if case.dims.get("b", 1) > 1 or len(v["x"]) == 1:
            raise Skip
        fold = self._once(self._radial, dtype, squared, self._kernel(kernel, dtype))
        return lambda: (fold(v["x"], layout(v["y"]), v["b"][:, 0]),)

    def _once(self, make: Callable[..., Any], *key: Any) -> Callable[..., Any]:
        """Loops are compiled once for what they are made from."""
        name = (make.__name__, *key)
        if name not in self.made:
            self.made[name] = make(*key)
        return self.made[name]

    def _squared(self, dim: int, dtype: Any) -> tuple[Any, Callable[[Any], Any]]:
        """|x_i - y_j|^2 as a function, and the layout of y that it reads."""
        if dim <= _UNROLLED:
            return self._once(self._unrolled, dim, dtype), lambda y: np.ascontiguousarray(y.T)
        return self._once(self._looped, dtype), lambda y: y

    def _unrolled(self, dim: int, dtype: Any) -> Any:
        zero = dtype.type(0)

        @self.inline
        def squared(x: Any, i: Any, y: Any, j: Any) -> Any:
            total = zero
            for k in range(dim):
                d = x[i, k] - y[k, j]
                total += d * d
            return total

        return squared

    def _looped(self, dtype: Any) -> Any:
        zero = dtype.type(0)

        @self.inline
        def squared(x: Any, i: Any, y: Any, j: Any) -> Any:
            total = zero
            for k in range(x.shape[1]):
                d = x[i, k] - y[j, k]
                total += d * d
            return total

        return squared

    def _kernel(self, name: str, dtype: Any) -> Any:
        zero, one, third = dtype.type(0), dtype.type(1), dtype.type(1 / 3)

        def coulomb(d2: Any) -> Any:
            return zero if d2 == zero else one / np.sqrt(d2)

        def matern(d2: Any) -> Any:
            root = np.sqrt(d2)
            return (one + root + d2 * third) * np.exp(-root)

        kernels: dict[str, Callable[[Any], Any]] = {
            "gaussian": lambda d2: np.exp(-d2),
            "laplacian": lambda d2: np.exp(-np.sqrt(d2)),
            "matern": matern,
            "cauchy": lambda d2: one / (one + d2),
            "coulomb": coulomb,
        }
        if name not in kernels:
            raise Skip
        if ("kernel", name, dtype) not in self.made:
            self.made["kernel", name, dtype] = self.inline(kernels[name])
        return self.made["kernel", name, dtype]

    def _radial(self, dtype: Any, squared: Any, kernel: Any) -> Any:
        prange, zero = self.numba.prange, dtype.type(0)

        @self.compile
        def fold(x: Any, y: Any, b: Any) -> Any:
            out = np.empty((len(x), 1), x.dtype)
            for i in prange(len(x)):
                total = zero
                for j in range(len(b)):
                    total += kernel(squared(x, i, y, j)) * b[j]
                out[i, 0] = total
            return out

        return fold

    def _blocks(self, dtype: Any, squared: Any, kernel: Any) -> Any:
        """Sums over blocks: rows of each, where its slices end, columns of each slice."""
        prange, zero = self.numba.prange, dtype.type(0)

        @self.compile
        def fold(x: Any, y: Any, b: Any, rows: Any, ends: Any, columns: Any) -> Any:
            out = np.zeros((len(x), 1), x.dtype)
            for block in prange(len(rows)):
                first = ends[block - 1] if block > 0 else 0
                for i in range(rows[block, 0], rows[block, 1]):
                    total = zero
                    for part in range(first, ends[block]):
                        for j in range(columns[part, 0], columns[part, 1]):
                            total += kernel(squared(x, i, y, j)) * b[j]
                    out[i, 0] = total
            return out

        return fold

    def _seed(self, dtype: Any) -> Any:
        prange, zero = self.numba.prange, dtype.type(0)

        @self.compile
        def fold(x: Any, y: Any, weight: Any) -> Any:
            out = np.empty_like(x)
            for i in prange(len(x)):
                for k in range(3):
                    total = zero
                    for j in range(len(weight)):
                        total += weight[j] * np.exp(x[i, k] + y[k, j])
                    out[i, k] = total
            return out

        return fold

    def _seed_gradient(self, dtype: Any) -> Any:
        prange, zero = self.numba.prange, dtype.type(0)

        @self.compile
        def fold(y: Any, x: Any, e: Any, weight: Any) -> Any:
            out = np.empty_like(y)
            for j in prange(len(y)):
                for k in range(3):
                    total = zero
                    for i in range(x.shape[1]):
                        total += e[k, i] * np.exp(y[j, k] + x[k, i])
                    out[j, k] = total * weight[j, 0] * weight[j, 0]
            return out

        return fold

    def _gradient(self, pull: Any, v: Arrays) -> Any:
        """By x, by y and by b, from two sweeps."""
        x, y, b, e = v["x"], v["y"], v["b"], v["e"]
        by_x = pull(x, y.T.copy(), b[:, 0])[:, :3] * (-2 * e)
        swept = pull(y, x.T.copy(), e[:, 0])
        return by_x, swept[:, :3] * (-2 * b), swept[:, 3:]

    def _pull(self, dtype: Any) -> Any:
        prange, zero = self.numba.prange, dtype.type(0)

        @self.compile
        def fold(z: Any, o: Any, w: Any) -> Any:
            out = np.empty((len(z), 4), z.dtype)
            for i in prange(len(z)):
                s0 = s1 = s2 = s3 = zero
                for j in range(len(w)):
                    d0, d1, d2 = z[i, 0] - o[0, j], z[i, 1] - o[1, j], z[i, 2] - o[2, j]
                    weight = w[j] * np.exp(-(d0 * d0 + d1 * d1 + d2 * d2))
                    s0 += weight * d0
                    s1 += weight * d1
                    s2 += weight * d2
                    s3 += weight
                out[i, 0], out[i, 1], out[i, 2], out[i, 3] = s0, s1, s2, s3
            return out

        return fold

    def _sinkhorn(self, dtype: Any, squared: Any) -> Any:
        prange, zero, scale = self.numba.prange, dtype.type(0), dtype.type(100)

        @self.compile
        def fold(x: Any, y: Any, b: Any) -> Any:
            out = np.empty((len(x), 1), x.dtype)
            for i in prange(len(x)):
                terms = np.empty(len(b), x.dtype)
                for j in range(len(b)):
                    terms[j] = scale * (b[j] - squared(x, i, y, j))
                top = terms.max()
                total = zero
                for j in range(len(b)):
                    total += np.exp(terms[j] - top)
                out[i, 0] = top + np.log(total)
            return out

        return fold

    def _argmin(self, dtype: Any, squared: Any, count: int) -> Any:
        prange, largest = self.numba.prange, np.finfo(dtype).max

        @self.compile
        def fold(x: Any, y: Any) -> Any:
            columns = y.size // x.shape[1]
            out = np.empty((len(x), 1), np.int64)
            for i in prange(len(x)):
                least, place = largest, 0
                for j in range(columns):
                    d2 = squared(x, i, y, j)
                    if d2 < least:
                        least, place = d2, j
                out[i, 0] = place
            return out

        return fold

    def _nearest(self, dtype: Any, squared: Any, count: int) -> Any:
        prange, largest = self.numba.prange, np.finfo(dtype).max

        @self.compile
        def fold(x: Any, y: Any) -> Any:
            columns = y.size // x.shape[1]
            out = np.empty((len(x), count), np.int64)
            for i in prange(len(x)):
                least = np.full(count, largest)
                for j in range(columns):
                    d2 = squared(x, i, y, j)
                    if d2 < least[count - 1]:
                        at = count - 1
                        while at > 0 and least[at - 1] > d2:
                            least[at] = least[at - 1]
                            out[i, at] = out[i, at - 1]
                            at -= 1
                        least[at] = d2
                        out[i, at] = j
            return out

        return fold
