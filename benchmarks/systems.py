"""Iterations and times of linear systems, with and without preconditioners, as a table.

    python benchmarks/systems.py --write docs/solvers.md

Times are those of the processor, all threads together, in units of one product with K, so that
what else the machine does matters little.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np

from pairfold import LazyTensor
from pairfold.errors import SolveError

CHOICES = (None, "auto", "nystrom", "pivoted-cholesky")
HEAD = """# Linear systems

Written by `python benchmarks/systems.py --write docs/solvers.md`. Gaussian kernels
exp(-|x - y|^2 / s^2) of points drawn evenly from the unit cube, float64, one right-hand side: drawn
evenly from [0, 1] (README), normal (noise), or sin(x_1 + ... + x_D) of the scaled points (smooth).
Iterations, and in brackets processor time in products with K, the making of preconditioners
included; their rank is the default. "x" marks systems that ended with an error, after that many
iterations; more than {most} are not allowed here.

| Points | b | alpha | None | "auto" (default) | "nystrom" | "pivoted-cholesky" |
|---|---|---|---|---|---|---|
"""


def solve(K: Any, b: Any, alpha: float, choice: Any, most: int, unit: float) -> str:
    """One cell of the table."""
    count = 0

    def callback(n: int, norms: Any) -> None:
        nonlocal count
        count = n

    start, mark = time.process_time(), ""
    try:
        K.solve(b, alpha=alpha, preconditioner=choice, maxiter=most, callback=callback)
    except SolveError:
        mark = " x"
    return f"{count}{mark} ({(time.process_time() - start) / unit:.0f})"


def product_time(K: Any, b: Any) -> float:
    """Seconds of the processor for one product."""
    K @ b
    start = time.process_time()
    for _ in range(5):
        K @ b
    return (time.process_time() - start) / 5


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--write", type=Path)
    parser.add_argument("--most", type=int, default=1000, help="iterations that are allowed")
    parser.add_argument("--sizes", default="1000,3000")
    options = parser.parse_args()
    cases: list[tuple[int, int, float, str, float]] = [
        (int(n), 2, 0.2, kind, alpha)
        for n in options.sizes.split(",")
        for kind in ("noise", "smooth")
        for alpha in (1e-3, 1e-6, 1e-10)
    ]
    cases.append((20000, 3, 1.0, "README", 1e-3))
    lines: list[str] = []
    for n, dims, scale, kind, alpha in cases:
        rng = np.random.default_rng(0)
        y = rng.random((n, dims)) / scale
        b = {
            "README": rng.random((n, 1)),
            "noise": rng.normal(size=(n, 1)),
            "smooth": np.sin(y.sum(1, keepdims=True)),
        }[kind]
        squared = ((LazyTensor(y[:, None, :]) - LazyTensor(y[None, :, :])) ** 2).sum(-1)
        K = (-squared).exp()
        unit = product_time(K, b)
        cells = [solve(K, b, alpha, choice, options.most, unit) for choice in CHOICES]
        points = f"{n}, D = {dims}, s = {scale:g}"
        lines.append(f"| {points} | {kind} | {alpha:.0e} | {' | '.join(cells)} |")
        text = HEAD.format(most=options.most) + "\n".join(lines) + "\n"
        if options.write:
            options.write.write_text(text)


if __name__ == "__main__":
    main()
