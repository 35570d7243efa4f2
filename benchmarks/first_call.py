"""First calls in fresh processes, and warm calls, of this tree and of another beside it.

    python benchmarks/first_call.py [--beside PATH] [--rounds 7] [--repeats 25] [--cases REGEX]

The first table has milliseconds by the clock and of the processor, medians of fresh processes: to
import the NumPy front end, to call a first formula (Gaussian sum, M = N = 100), a second one
(Laplacian), and the first one again. Python finds its bytecode; without it a process compiles the
modules that the first call imports.

The second table has microseconds of warm calls, the shortest of `--repeats` samples of a few
milliseconds. With another tree both have a process, which are sampled in turn, three pairs of
processes one after the other; figures are medians of the three. A ratio above 1 says that this tree
is slower.
"""

from __future__ import annotations

import argparse
import functools
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from benchmarks import fresh
from benchmarks.tables import ratio, table

ROOT = Path(__file__).resolve().parents[1]
_PAIRS = 3  # of processes
_BURST = 0.004  # seconds of a sample
_SIZES = {
    "100 x 100": (100, 100, 3, "float32"),
    "1000 x 1000": (1000, 1000, 3, "float32"),
    "1000 x 1000, float64": (1000, 1000, 3, "float64"),
    "1 x 10^6": (1, 10**6, 3, "float32"),
    "10^5 x 10": (10**5, 10, 3, "float32"),
    "3000 x 3000, D = 20": (3000, 3000, 20, "float32"),
}
_FORMULAS = {"Sum": "Exp(-SqDist(x,y))*b", "Min_ArgMin": "SqDist(x,y)+b"}
# Reduction, size, threads.
CASES = {
    f"{reduction} {size}, threads {threads}": (reduction, size, threads)
    for size in _SIZES
    for reduction in _FORMULAS
    for threads in (1, 2)
}


def serve() -> None:
    """Answer each name of a case that comes in with seconds: the shortest of some calls."""
    from pairfold import settings
    from pairfold.numpy import Genred

    rng, prepared, calls = np.random.default_rng(0), "", 0
    work: Callable[[], object] = print
    for name in map(str.strip, sys.stdin):
        reduction, size, threads = CASES[name]
        with settings(threads=threads):
            if name != prepared:
                rows, columns, dim, dtype = _SIZES[size]
                shapes = (rows, dim), (columns, dim), (columns, 1)
                arrays = [rng.random(shape).astype(dtype) for shape in shapes]
                aliases = [f"x = Vi({dim})", f"y = Vj({dim})", "b = Vj(1)"]
                fold = Genred(_FORMULAS[reduction], aliases, reduction, axis=1)
                work, prepared = functools.partial(fold, *arrays), name
                work()
                calls = max(1, round(_BURST / _seconds(work, 3)))
            print(_seconds(work, calls), flush=True)


def _seconds(work: Callable[[], object], calls: int) -> float:
    """The shortest of some calls."""
    best = float("inf")
    for _ in range(calls):
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return best


class Server:
    """A process that times warm calls with the library of a tree."""

    def __init__(self, tree: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--serve"],
            env={**os.environ, "PYTHONPATH": str(tree / "src")},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def seconds(self, name: str) -> float:
        """One sample of a case."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(name + "\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


def warm(trees: Sequence[Path], names: Sequence[str], repeats: int) -> dict[str, list[float]]:
    """The shortest sample of each case, by tree, from one process of each."""
    servers = [Server(tree) for tree in trees]
    found: dict[str, list[float]] = {}
    try:
        for name in names:
            samples = [[server.seconds(name) for server in servers] for _ in range(repeats)]
            found[name] = [min(of_tree) for of_tree in zip(*samples, strict=True)]
    finally:
        for server in servers:
            server.close()
    return found


def warm_table(trees: Sequence[Path], names: Sequence[str], repeats: int) -> str:
    """Microseconds of warm calls, and ratios."""
    pairs = [warm(trees, names, repeats) for _ in range(_PAIRS)]
    rows: list[list[str]] = []
    for name in names:
        times = [[pair[name][k] for pair in pairs] for k in range(len(trees))]
        rows.append([name, *(f"{1e6 * statistics.median(own):.1f}" for own in times)])
        if len(trees) > 1:
            ratios = [pair[name][0] / pair[name][1] for pair in pairs]
            rows[-1].append(ratio(statistics.median(ratios)))
    return table(["warm call, us", *_heads(trees)], rows)


def fresh_table(trees: Sequence[Path], rounds: int) -> str:
    """Milliseconds of fresh processes by the clock and of the processor, and ratios of the last."""
    kinds = (("import", "pairfold.numpy"), ("first-call", "pairfold"))
    found: list[dict[str, list[fresh.Seconds]]] = [{} for _ in trees]
    for number in range(rounds + 1):  # the first of them writes bytecode
        for tree, own in zip(trees, found, strict=True):
            for what, subject in kinds:
                source = tree / "src"
                for name, seconds in fresh.sample(what, subject, sys.executable, source).items():
                    own.setdefault(name, []).extend([seconds] if number else [])
    rows: list[list[str]] = []
    for name in (fresh.IMPORT, fresh.FIRST, fresh.SECOND, fresh.WARM):
        for k, kind in enumerate(("clock", "processor")):
            times = [statistics.median(each[k] for each in own[name]) for own in found]
            rows.append([name, kind, *(f"{1e3 * each:.3g}" for each in times)])
            if len(times) > 1:
                rows[-1].append(ratio(times[0] / times[1]))
    return table(["fresh process, ms", "by", *_heads(trees)], rows)


def _heads(trees: Sequence[Path]) -> list[str]:
    return ["this tree", "the other", "ratio"] if len(trees) > 1 else ["this tree"]


def main(arguments: Sequence[str]) -> None:
    """Measure and print both tables, or serve another process that does."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--beside", type=Path, metavar="PATH")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--repeats", type=int, default=25)
    parser.add_argument("--cases", default="", metavar="REGEX")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.serve:
        serve()
        return
    trees = [ROOT] if options.beside is None else [ROOT, options.beside.resolve()]
    if options.rounds:
        print(fresh_table(trees, options.rounds))
    names = [name for name in CASES if re.search(options.cases, name)]
    if options.repeats and names:
        print(warm_table(trees, names, options.repeats))


if __name__ == "__main__":
    main(sys.argv[1:])
