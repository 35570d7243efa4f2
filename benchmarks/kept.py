"""Products with a kernel matrix, beside the matrix kept as a table.

    python -m benchmarks.kept --write benchmarks/kept.md

5000 x 5000 Gaussians, float32: `K @ b` here, the product of the kept table by NumPy, and what it
takes to make the table once. Programs take turns; medians of the rounds, by the clock.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.environment import machine
from pairfold import Vi, Vj

SIZE, ROUNDS = 5000, 9
CASES = [(3, 1), (3, 100), (3, 500), (64, 1), (64, 100)]
HEAD = """# A kernel matrix, kept or not

Written by `python -m benchmarks.kept --write benchmarks/kept.md` on {machine}; NumPy {numpy}.
{size} x {size} Gaussians, float32, milliseconds by the clock, medians of {rounds} interleaved
rounds. The table takes {bytes:.0f} MB.

| D | columns of b | `K @ b` here | table kept, NumPy | to make the table once, NumPy |
|---|---|---|---|---|
"""


def milliseconds(programs: list[Callable[[], object]]) -> list[float]:
    """The median time of each program."""
    times: list[list[float]] = [[] for _ in programs]
    for _ in range(ROUNDS):
        for own, program in zip(times, programs, strict=True):
            start = time.perf_counter()
            program()
            own.append(1e3 * (time.perf_counter() - start))
    return [statistics.median(own) for own in times]


def row(dim: int, columns: int) -> str:
    """A row of the table; what is measured is compared first."""
    rng = np.random.default_rng(0)
    x, y = (rng.random((SIZE, dim), np.float32) for _ in range(2))
    b = rng.random((SIZE, columns), np.float32)
    kernel = (-Vi(x).sqdist(Vj(y))).exp()

    def made() -> np.ndarray:
        table = -2 * x @ y.T
        table += (x * x).sum(1)[:, None]
        table += (y * y).sum(1)
        return np.exp(-table)

    kept = made()
    np.testing.assert_allclose(kernel @ b, kept @ b, rtol=1e-3)
    found = milliseconds([lambda: kernel @ b, lambda: kept @ b, made])
    return f"| {dim} | {columns} | " + " | ".join(f"{each:.3g}" for each in found) + " |"


def main() -> None:
    """Measure, and write the page where `--write` says."""
    parser = argparse.ArgumentParser(description="A kernel matrix, kept or not.")
    parser.add_argument("--write", type=Path, help="the file for the page")
    chosen = parser.parse_args()
    lines = [
        HEAD.format(
            machine=machine()["CPU"], numpy=np.__version__, size=SIZE, rounds=ROUNDS,
            bytes=SIZE * SIZE * 4 / 1e6,
        )
    ]  # fmt: skip
    for case in CASES:
        lines.append(row(*case) + "\n")
        print(lines[-1], end="", flush=True)
    if chosen.write:
        chosen.write.write_text("".join(lines))


if __name__ == "__main__":
    main()
