"""JAX, compiled: chunks of rows with a matrix product, or loops that XLA fuses."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from benchmarks.case import BEYOND, REDUCED, THIN, Arrays, Case
from benchmarks.peers.base import Skip, Work, chunk_rows
from benchmarks.programs import batches

_MOST_FUSED = 500_000_000  # pairs; where XLA does not fuse after all, they are a table in memory


class JaxPeer:
    """`form` is "chunks" (`lax.map`, squared distances from one matrix product, checkpoints) or
    "fused" (the whole table, coordinate by coordinate, left to XLA).
    """

    shaped = True

    def __init__(self, form: str) -> None:
        self.form = form
        self.jax = importlib.import_module("jax")
        self.jax.config.update("jax_platforms", "cpu")
        self.jax.config.update("jax_enable_x64", True)
        self.np = importlib.import_module("jax.numpy")

    def versions(self) -> dict[str, str]:
        """The version of JAX."""
        return {"JAX": str(self.jax.__version__)}

    def prepare(self, case: Case, arrays: Arrays) -> Work:
        """The case's reduction, compiled; arrays are JAX's own."""
        if case.group in (REDUCED, BEYOND, THIN):
            raise Skip
        if case.program == "batched":
            return self._batched(arrays)
        if case.program not in ("", "lazy"):
            raise Skip
        v = {name: self.np.asarray(a) for name, a in arrays.items()}
        work = self._fused(case, v) if self.form == "fused" else self._chunked(case, v)
        run = self.jax.jit(work)
        return lambda: self.jax.block_until_ready(run(v))

    def _batched(self, arrays: Arrays) -> Work:
        """All problems at once, which fit in memory."""
        if self.form == "fused":
            raise Skip
        np, count = self.np, batches(arrays)
        parts = [np.asarray(arrays[name]).reshape(count, -1, arrays[name].shape[-1])
                 for name in ("x", "y", "b")]  # fmt: skip
        one = self.jax.vmap(lambda x, y, b: np.exp(-self._distances(x, y)) @ b)
        run = self.jax.jit(lambda *parts: one(*parts).reshape(-1, 1))
        return lambda: (run(*parts).block_until_ready(),)

    def _fused(self, case: Case, v: dict[str, Any]) -> Callable[[dict[str, Any]], Any]:
        np = self.np
        if len(v["x"]) * len(v["y"]) > _MOST_FUSED:
            raise Skip
        if case.kernel.startswith("seed"):
            return self._seed if case.kernel == "seed" else self._seed_gradient
        small = case.dims["x"] <= 10 and v["x"].dtype == np.float32
        if case.what != "forward" or not small or case.dims.get("b", 1) > 1:
            raise Skip
        kernel = self._kernel(case)

        def fused(v: dict[str, Any]) -> Any:
            d2 = sum(np.square(a[:, None] - b) for a, b in zip(v["x"].T, v["y"].T))
            return ((kernel(d2) * v["b"][:, 0]).sum(1),)

        return fused

    def _seed(self, v: dict[str, Any]) -> Any:
        np, weight = self.np, self.np.square(v["p"] - v["a"])[:, 0]
        pairs = zip(v["x"].T, v["y"].T)
        return (np.stack([(weight * np.exp(x[:, None] + y)).sum(1) for x, y in pairs], 1),)

    def _seed_gradient(self, v: dict[str, Any]) -> Any:
        np, triples = self.np, zip(v["x"].T, v["y"].T, v["e"].T)
        found = np.stack([(e * np.exp(y[:, None] + x)).sum(1) for x, y, e in triples], 1)
        return (found * np.square(v["p"] - v["a"]),)

    def _kernel(self, case: Case) -> Callable[[Any], Any]:
        np = self.np

        def root(d2: Any) -> Any:
            return np.sqrt(np.maximum(d2, 0))

        # The products leave rounding errors where points coincide.
        least = 1e-5 if self.form == "chunks" else 0.0
        kernels: dict[str, Callable[[Any], Any]] = {
            "gaussian": lambda d2: np.exp(-d2),
            "gaussian-gradient": lambda d2: np.exp(-d2),
            "laplacian": lambda d2: np.exp(-root(d2)),
            "matern": lambda d2: (1 + root(d2) + d2 / 3) * np.exp(-root(d2)),
            "cauchy": lambda d2: 1 / (1 + d2),
            "coulomb": lambda d2: np.where(
                d2 <= least, 0, self.jax.lax.rsqrt(np.where(d2 <= least, 1, d2))
            ),
        }
        name = "gaussian" if case.program == "lazy" else case.kernel
        if name not in kernels:
            raise Skip
        return kernels[name]

    def _distances(self, x: Any, y: Any) -> Any:
        square_x, square_y = (self.np.square(z).sum(1) for z in (x, y))
        return square_x[:, None] + square_y - 2 * x @ y.T

    def _mapped(self, fold: Callable[..., Any], x: Any, y: Any, *more: Any) -> Any:
        """`fold(rows of x, y, *more)` chunk by chunk; the last chunk repeats the last row."""
        size = chunk_rows(len(x), len(y), x.dtype.itemsize)
        count = -(-len(x) // size)
        padded = self.np.pad(x, ((0, count * size - len(x)), (0, 0)), mode="edge")
        step = self.jax.checkpoint(lambda part: fold(part, y, *more))
        found = self.jax.lax.map(step, padded.reshape(count, size, -1))
        return found.reshape(count * size, *found.shape[2:])[: len(x)]

    def _chunked(self, case: Case, v: dict[str, Any]) -> Callable[[dict[str, Any]], Any]:
        np, distances = self.np, self._distances
        if case.kernel.startswith("seed"):
            raise Skip
        folds: dict[str, Callable[..., Any]] = {
            "sinkhorn": lambda x, y, b: self.jax.nn.logsumexp(
                100 * (b[:, 0] - distances(x, y)), axis=1
            ),
            "attention": lambda x, y, b: self.jax.nn.softmax(x @ y.T, axis=1) @ b,
            "squared-argmin": lambda x, y: distances(x, y).argmin(1),
            "squared-argkmin": lambda x, y: self.jax.lax.top_k(-distances(x, y), case.opt_arg)[1],
        }
        if case.kernel in folds:
            more = ["b"] if "b" in v else []
            fold = folds[case.kernel]
            return lambda v: (self._mapped(fold, v["x"], v["y"], *(v[name] for name in more)),)
        kernel = self._kernel(case)

        def total(x: Any, y: Any, b: Any) -> Any:
            return self._mapped(lambda x, y, b: kernel(distances(x, y)) @ b, x, y, b)

        if case.what == "forward":
            return lambda v: (total(v["x"], v["y"], v["b"]),)

        def objective(x: Any, y: Any, b: Any, e: Any) -> Any:
            return np.vdot(total(x, y, b), e)

        gradient = self.jax.grad(objective, (0, 1, 2))
        return lambda v: gradient(v["x"], v["y"], v["b"], v["e"])
