"""Sums and minima over all pairs in programs of JAX: pairfold beside plain JAX, time and memory.

    python benchmarks/jax_pairs.py --write benchmarks/jax.md

The problems are those of https://github.com/openxla/xla/issues/49131: reductions of f(x_i, y_j)
over j that need the memory of x and y alone, and what XLA's CPU compiler makes of them, for values
and for derivatives in both modes. First, what a call costs where there is little to compute.
"""

from __future__ import annotations

import argparse
import ctypes
import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pairfold.jax import Genred
from pairfold.numpy import Genred as NumpyGenred
from pairfold.settings import available_cpus

ALIASES = ["x=Vi(3)", "y=Vj(3)", "w=Vj(1)"]
RBF = "Exp(-SqDist(x,y)/2)*w"
_SMALL = 100
_MEGABYTE = 2**20

HEAD = """# JAX

Written by `python benchmarks/jax_pairs.py --write benchmarks/jax.md`, with JAX {version} on
{cpus} CPUs that other programs used as well; float32, D = 3, as many rows as columns. Times are the
least of some repetitions.
"""
PAIRS = """
## Over all pairs

Milliseconds, and megabytes of memory that the process had at most beyond what it had before.
"error": the largest difference from plain JAX, relative to the largest value.

| Problem | M = N | mode | plain JAX, ms | MB | pairfold, ms | MB | error |
|---|---|---|---|---|---|---|---|
"""
CALLS = """
## A small call

M = N = 100, microseconds from a call to its result, in a row of calls.

| Gaussian sum | us |
|---|---|
"""


def differences(x: Any, y: Any) -> Any:
    """x_i - y_j, all of them."""
    return x[:, None, :] - y[None, :, :]


def rbf(x: Any, y: Any, w: Any) -> Any:
    """A Gaussian sum in plain JAX."""
    return jnp.exp(-(differences(x, y) ** 2).sum(-1) / 2) @ w


def nearest(x: Any, y: Any, w: Any) -> Any:
    """The distance to the nearest point in plain JAX."""
    return jnp.sqrt((differences(x, y) ** 2).sum(-1)).min(1, keepdims=True)


def gravity(x: Any, y: Any, w: Any) -> Any:
    """Forces of softened masses in plain JAX."""
    d = differences(x, y)
    return (w[:, 0, None] * d * ((d**2).sum(-1, keepdims=True) + 0.01) ** -1.5).sum(1)


def ours(formula: str, reduction: str) -> Callable[..., Any]:
    """The same by pairfold."""
    aliases = ALIASES if "w" in formula else ALIASES[:2]
    reduce = Genred(formula, aliases, reduction, axis=1)
    return lambda *args: reduce(*args[: len(aliases)])


PROBLEMS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "RBF sum": (rbf, ours(RBF, "Sum")),
    "nearest neighbour": (nearest, ours("Norm2(x-y)", "Min")),
    "gravity": (gravity, ours("w*(x-y)*Powf(SqDist(x,y)+0.01,-1.5)", "Sum")),
}


def value(f: Callable[..., Any]) -> Callable[..., Any]:
    """The reduction itself."""
    return f


def forward(f: Callable[..., Any]) -> Callable[..., Any]:
    """Its derivative along a tangent of x."""
    return lambda x, y, w: jax.jvp(lambda x: f(x, y, w), (x,), (jnp.cos(x),))[1]


def reverse(f: Callable[..., Any]) -> Callable[..., Any]:
    """Gradients of a number that is made of it, to x and y."""
    return jax.grad(lambda *args: jnp.sin(f(*args)).sum(), (0, 1))


MODES = {"value": value, "forward mode": forward, "reverse mode": reverse}


def data(size: int) -> list[Any]:
    """Points and weights."""
    rng = np.random.default_rng(0)
    shapes = ((size, 3), (size, 3), (size, 1))
    return [jnp.asarray(rng.standard_normal(shape), "float32") for shape in shapes]


def best(work: Callable[[], Any], repeats: int, inner: int = 1) -> float:
    """Seconds of one run, the least of some."""
    jax.block_until_ready(work())
    found = math.inf
    for _ in range(repeats):
        start = time.perf_counter()
        for _ in range(inner):
            result = work()
        jax.block_until_ready(result)
        found = min(found, (time.perf_counter() - start) / inner)
    return found


def peak(work: Callable[[], Any]) -> float:
    """Megabytes that a run takes at most; not a number where the system does not say."""
    try:
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:  # what glibc keeps of earlier runs would hide what this one takes
            trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        before = _status("VmRSS")
        jax.block_until_ready(work())
        return max(0, _status("VmHWM") - before) / 1024
    except OSError:
        return math.nan


def _status(name: str) -> int:
    """Kilobytes of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


def pairs(sizes: Sequence[int], repeats: int) -> list[str]:
    """The rows of all problems."""
    rows: list[str] = []
    for name, programs in PROBLEMS.items():
        for size in sizes:
            given = data(size)
            for mode, made in MODES.items():
                cells: list[str] = []
                results: list[Any] = []
                for program in programs:
                    run = partial(jax.jit(made(program)), *given)
                    cells += [f"{1e3 * best(run, repeats):.1f}", f"{peak(run):.0f}"]
                    results.append(jax.tree.leaves(run()))
                plain, found = results
                error = max(
                    float(abs(a - b).max() / abs(a).max())
                    for a, b in zip(plain, found, strict=True)
                )
                rows.append(f"| {name} | {size} | {mode} | {' | '.join(cells)} | {error:.0e} |")
    return rows


def calls(repeats: int) -> list[str]:
    """What a call costs, by the way it is made."""
    given = data(_SMALL)
    arrays = [np.asarray(array) for array in given]
    by_numpy = NumpyGenred(RBF, ALIASES, axis=1)
    program = PROBLEMS["RBF sum"][1]
    programs = {
        "pairfold, NumPy arrays": (by_numpy, arrays),
        "pairfold, `jax.jit`": (jax.jit(program), given),
        "plain JAX, `jax.jit`": (jax.jit(rbf), given),
        "a program that returns an argument": (jax.jit(lambda x, y, w: w), given),
        "pairfold, JAX arrays, not compiled": (program, given),
        "gradients to x and y, pairfold": (jax.jit(reverse(program)), given),
        "gradients to x and y, plain JAX": (jax.jit(reverse(rbf)), given),
    }
    return [
        f"| {name} | {1e6 * best(partial(run, *args), 10 * repeats, 100):.1f} |"
        for name, (run, args) in programs.items()
    ]


def report(sizes: Sequence[int], repeats: int) -> str:
    """The whole page."""
    head = HEAD.format(version=jax.__version__, cpus=available_cpus())
    return "\n".join(
        (head + CALLS.rstrip("\n"), *calls(repeats), PAIRS.rstrip("\n"), *pairs(sizes, repeats), "")
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print or write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 5000])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--write", type=Path)
    options = parser.parse_args(arguments)
    text = report(options.sizes, options.repeats)
    if options.write is None:
        print(text)
    else:
        options.write.write_text(text)


if __name__ == "__main__":
    main()
