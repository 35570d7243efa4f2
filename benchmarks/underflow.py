"""What sums of exponentials cost where terms underflow, in interleaved rounds.

    python benchmarks/underflow.py --write benchmarks/underflow.md

`rules="exact"` lets every term underflow gradually, as all sums did before tiny terms were made 0.
Each row of the data has a column that is near; all others are at the distance that a line names.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pairfold import Vi, Vj, settings
from pairfold.settings import available_cpus

HEAD = """# Sums of which terms underflow

Written by `python benchmarks/underflow.py --write benchmarks/underflow.md` on {cpus} CPUs (Intel
Xeon with AVX-512) of a machine that other programs used as well; D = 3, M = N = {size}, {rounds}
interleaved rounds; medians, in ns per pair. "exact": with `rules="exact"`, by which results that
underflow are rounded as subnormal numbers; `x`: the median of the ratios within a round.

| Sum | terms | ns | exact, ns | x |
|---|---|---|---|---|
"""
# Exponents of the far terms, by dtype: normal, subnormal, 0.
EXPONENTS = {"float32": (80, 95, 200, 900), "float64": (600, 725, 1000, 2100)}


def programs(dtype: str, size: int) -> dict[tuple[str, str], Callable[[], Any]]:
    """Sums, logarithms, soft maxima of points at one distance; Gaussians of random points."""
    found: dict[tuple[str, str], Callable[[], Any]] = {}
    rng = np.random.default_rng(0)
    x, b = np.zeros((size, 3), dtype), rng.normal(size=(size, 1)).astype(dtype)
    for exponent in EXPONENTS[dtype]:
        y = np.zeros((size, 3), dtype)
        y[1:, 0] = exponent**0.5
        logits = -Vi(x).sqdist(Vj(y))
        terms = f"e^-{exponent}, {dtype}"
        found["sum", terms] = lambda k=logits: k.exp() @ b
        found["LogSumExp", terms] = lambda k=logits: k.logsumexp(dim=1)
        found["SumSoftMaxWeight", terms] = lambda k=logits: k.sumsoftmaxweight(Vj(b), dim=1)
    points = rng.uniform(size=(size, 3)).astype(dtype)
    for width in (0.3, 0.03):
        logits = -Vi(points).sqdist(Vj(points)) / (2 * width**2)
        found["Gaussian", f"random points, sigma {width}, {dtype}"] = lambda k=logits: k.exp() @ b
    return found


def timed(program: Callable[[], Any]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    program()
    return time.perf_counter() - start


def lines(size: int, rounds: int) -> list[str]:
    """The lines of the table."""
    found: list[str] = []
    for dtype in EXPONENTS:
        for (name, terms), program in programs(dtype, size).items():
            times: list[tuple[float, float]] = []
            for _ in range(rounds + 1):
                own = timed(program)
                with settings(rules="exact"):
                    times.append((own, timed(program)))
            kept = times[1:]  # the first compiles
            own, exact = (
                1e9 / size**2 * statistics.median(each) for each in zip(*kept, strict=True)
            )
            ratio = statistics.median(b / a for a, b in kept)
            found.append(f"| {name} | {terms} | {own:.2f} | {exact:.2f} | {ratio:.1f} |")
    return found


def main() -> None:
    """Measure, and write or print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=6000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", type=Path)
    given = parser.parse_args()
    head = HEAD.format(cpus=available_cpus(), size=given.size, rounds=given.rounds)
    text = head + "\n".join(lines(given.size, given.rounds)) + "\n"
    if given.write:
        given.write.write_text(text)
    else:
        print(text)


if __name__ == "__main__":
    main()
