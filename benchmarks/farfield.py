"""Sums of smooth kernels over all pairs, and by treecodes.

    python benchmarks/farfield.py --write benchmarks/farfield.md

The sum over all pairs is computed for some rows and scaled to all: 10^12 pairs take minutes. In
each round every program runs once, in turn, so that what else the machine does meets all; figures
are medians of the rounds. Errors are those of rows that the treecode does not look at, against sums
in float64.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pairfold import Genred
from pairfold.frontends.explain import ExplainedFar
from pairfold.settings import available_cpus

HEAD = """# Far fields

Written by `python benchmarks/farfield.py --rounds {rounds} --write benchmarks/farfield.md` on
{cpus} CPUs ({machine}), NumPy {numpy}, {rounds} interleaved rounds; medians. As many rows as
columns, uniform in the unit cube, D = 3, weights uniform in [0, 1]. "All pairs" is measured on
{rows} rows and scaled to all of them. "x" is how many times faster the treecode is, by the
clock and by CPU time of all threads; its time includes trees, proxies and the measurement of the
error. "Columns" are those that a row meets, proxies among them. "Error" is
|found - right| / |right|, Euclidean, over 500 rows against sums in float64; "told" is what
`explain()` says, from 64 other rows. Other programs may run on the machine: their
share meets both, so that "x" holds where seconds do not.
"""

TABLE = """
| Kernel | dtype | rtol | all pairs, s | treecode, s | x | x CPU | order | columns | error | told |
|---|---|---|---|---|---|---|---|---|---|---|
"""

GRADIENTS = """
## With gradients to positions of rows and columns and to weights, float32, rtol 1e-5

Through torch; "error" is the largest of the three, for 50000 points, against float64.

| Kernel | points | all pairs, s | treecode, s | x | x CPU | error |
|---|---|---|---|---|---|---|
"""

KERNELS = {
    "Coulomb, 1/sqrt(r^2 + 1e-4)": "Rsqrt(SqDist(x,y)+0.0001)",
    "exp(-4 r)": "Exp(-4*Norm2(x-y))",
    "Gaussian, h = 0.2": "Exp(-12.5*SqDist(x,y))",
}
ALIASES = ["x = Vi(3)", "y = Vj(3)", "b = Vj(1)"]
ROWS, LOOKED_AT, SOME = 10_000, 500, 50_000


def measured(programs: Sequence[Callable[[], Any]], rounds: int) -> list[tuple[float, float]]:
    """Seconds and CPU seconds of each program, medians of the rounds."""
    for program in programs:
        program()
    found = np.empty((rounds, len(programs), 2))
    for n in range(rounds):
        for k, program in enumerate(programs):
            start = time.perf_counter(), time.process_time()
            program()
            found[n, k] = time.perf_counter() - start[0], time.process_time() - start[1]
    return [
        (statistics.median(column[:, 0].tolist()), statistics.median(column[:, 1].tolist()))
        for column in found.transpose(1, 0, 2)
    ]


def cloud(count: int, dtype: str) -> list[Any]:
    """Positions of rows and of columns, and weights."""
    rng = np.random.default_rng(0)
    return [rng.random((count, dim)).astype(dtype) for dim in (3, 3, 1)]


def error(found: Any, right: Any) -> float:
    """The relative error, Euclidean."""
    found, right = np.asarray(found, float), np.asarray(right, float)
    return float(np.linalg.norm(found - right) / np.linalg.norm(right))


def sums(name: str, count: int, dtype: str, rtol: float, rounds: int) -> str:
    """A row of the table of sums."""
    x, y, b = cloud(count, dtype)
    formula = f"{KERNELS[name]}*b"
    exact = Genred(formula, ALIASES, axis=1)
    far = Genred(formula, ALIASES, axis=1, method="treecode", rtol=rtol)
    rows = min(count, ROWS)
    times = measured([lambda: exact(x[:rows], y, b), lambda: far(x, y, b)], rounds)
    (all_pairs, all_cpu), (tree, tree_cpu) = times
    scale = count / rows
    some = x[:LOOKED_AT].astype(float), y.astype(float), b.astype(float)
    made = far.explain(x, y, b)
    assert isinstance(made, ExplainedFar)
    assert made.plan is not None
    return (
        f"| {name} | {dtype} | {rtol:.0e} | {scale * all_pairs:.3g} | {tree:.3g} "
        f"| {scale * all_pairs / tree:.1f} | {scale * all_cpu / tree_cpu:.1f} "
        f"| {made.plan.order} | {made.plan.columns:.0f} "
        f"| {error(far(x, y, b)[:LOOKED_AT], exact(*some)):.1e} | {made.plan.error:.1e} |\n"
    )


def gradients(name: str, count: int, rounds: int) -> str:
    """A row of the table of gradients."""
    formula = f"{KERNELS[name]}*b"
    exact = Genred(formula, ALIASES, axis=1)
    far = Genred(formula, ALIASES, axis=1, method="treecode", rtol=1e-5)

    def of(reduction: Genred, given: Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
        return torch.autograd.grad(reduction(*given).sum(), list(given))

    def tensors(points: int, dtype: str, rows: int) -> list[torch.Tensor]:
        x, y, b = cloud(points, dtype)
        return [torch.tensor(a, requires_grad=True) for a in (x[:rows], y, b)]

    rows = min(count, ROWS)
    some, given = tensors(count, "float32", rows), tensors(count, "float32", count)
    times = measured([lambda: of(exact, some), lambda: of(far, given)], rounds)
    (all_pairs, all_cpu), (tree, tree_cpu) = times
    scale = count / rows
    pairs = zip(
        of(far, tensors(SOME, "float32", SOME)),
        of(exact, tensors(SOME, "float64", SOME)),
        strict=True,
    )
    worst = max(error(found, right) for found, right in pairs)
    return (
        f"| {name} | {count:.0e} | {scale * all_pairs:.3g} | {tree:.3g} "
        f"| {scale * all_pairs / tree:.1f} | {scale * all_cpu / tree_cpu:.1f} | {worst:.1e} |\n"
    )


def machine() -> str:
    """The name of the processor."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return "unknown processor"


def main() -> None:
    """Measure, and write or print a report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", type=Path, help="the file to write")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="10^5 points only")
    given = parser.parse_args()
    text = HEAD.format(
        cpus=available_cpus(),
        machine=machine(),
        numpy=np.__version__,
        rounds=given.rounds,
        rows=ROWS,
    )
    for part in parts(given.rounds, given.quick):
        text += part
        if given.write:  # as far as it is measured
            given.write.write_text(text)
    if not given.write:
        print(text)


def parts(rounds: int, quick: bool) -> Iterator[str]:
    """The report, piece by piece."""
    first = next(iter(KERNELS))
    if not quick:
        yield f"\n## 1000000 points\n{TABLE}"
        for name in KERNELS:
            yield sums(name, 1_000_000, "float32", 1e-5, rounds)
        yield sums(first, 1_000_000, "float64", 1e-5, rounds)
    yield f"\n## 100000 points\n{TABLE}"
    for name in KERNELS:
        for dtype, rtol in (("float32", 1e-3), ("float32", 1e-5), ("float64", 1e-5)):
            yield sums(name, 100_000, dtype, rtol, rounds)
    yield GRADIENTS
    for name in KERNELS:
        yield gradients(name, 100_000, rounds)
    if not quick:
        yield gradients(first, 1_000_000, rounds)


if __name__ == "__main__":
    main()
