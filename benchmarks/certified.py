"""Density estimates to an error that is asked for, beside trees and all pairs, in the same run.

    python benchmarks/certified.py --write benchmarks/certified.md

Each round runs every program once, in turn. Times are CPU seconds of all threads and the clock's,
medians of the rounds; trees are built in them. All pairs, and trees that take long, are run for a
part of the rows, once, and multiplied (`~`). scikit-learn and mlpack are used where they are
installed. Errors are the largest of 200 rows, relative, against NumPy in float64.
"""

from __future__ import annotations

import argparse
import importlib
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pairfold import Genred
from pairfold.settings import available_cpus, settings

HEAD = """# Sums to an error that is asked for

Written by `python benchmarks/certified.py --write benchmarks/certified.md` on {cpus} CPUs
({machine}), NumPy {numpy}{versions}. Gaussian density estimates, {points} rows and columns
uniform in the unit cube, D = 3, rtol = 1e-4; medians of {rounds} rounds, CPU seconds of all
threads, in parentheses seconds by the clock. `~`: of a part of the rows, multiplied. "met": the
share of blocks.

| h | pairfold, rtol | met | error | all pairs | scikit-learn | its error | mlpack | its error |
|---|---|---|---|---|---|---|---|---|
"""
RTOL = 1e-4
_SHOWN = 200


def timed(run: Callable[[], Any], rows: int, part: int) -> tuple[float, float, Any]:
    """CPU seconds and those of the clock, multiplied where only a part of the rows is computed."""
    cpu, clock = time.process_time(), time.perf_counter()
    found = run()
    scale = rows / part
    return (time.process_time() - cpu) * scale, (time.perf_counter() - clock) * scale, found


def optional(name: str) -> Any:
    """A module, if it is installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


class Case:
    """Density estimates of one width."""

    def __init__(self, points: int, h: float) -> None:
        rng = np.random.default_rng(0)
        self.points, self.h = points, h
        self.x, self.y = (rng.random((points, 3)).astype("float32") for _ in range(2))
        wide = ((self.x[:_SHOWN, None].astype("f8") - self.y[None]) ** 2).sum(-1)
        self.right = np.exp(-wide / (2 * h * h)).mean(1)
        aliases = ["x = Vi(3)", "y = Vj(3)", "g = Pm(1)"]
        formula = "Exp(-g*SqDist(x,y))"
        self.exact = Genred(formula, aliases, "Mean", axis=1)
        self.certified = Genred(formula, aliases, "Mean", axis=1, rtol=RTOL)
        self.scale = np.asarray([1 / (2 * h * h)], "float32")
        self.norm = (2 * np.pi * h * h) ** 1.5

    def ours(self) -> Any:
        """By bounds."""
        return self.certified(self.x, self.y, self.scale)[:, 0]

    def all_pairs(self, part: int) -> Any:
        """All pairs of some rows."""
        with settings(prune="never"):
            return self.exact(self.x[:part], self.y, self.scale)[:, 0]

    def scikit(self, part: int) -> Any:
        """scikit-learn's tree."""
        neighbors = optional("sklearn.neighbors")
        tree = neighbors.KernelDensity(bandwidth=self.h, rtol=RTOL).fit(self.y)
        return np.exp(tree.score_samples(self.x[:part])) * self.norm

    def mlpack(self, part: int) -> Any:
        """mlpack's dual trees."""
        found = optional("mlpack").kde(
            reference=self.y.astype("f8"),
            query=self.x[:part].astype("f8"),
            bandwidth=self.h,
            rel_error=RTOL,
        )
        return found["predictions"] * self.norm

    def error(self, found: Any) -> float:
        """The largest relative error of some rows."""
        count = min(_SHOWN, len(found))
        return float(np.max(abs(found[:count] - self.right[:count]) / self.right[:count]))


def line(case: Case, rounds: int, part: int) -> str:
    """A row of the table."""
    case.ours()
    case.all_pairs(64)
    samples: dict[str, list[tuple[float, float, Any]]] = {}
    programs: dict[str, tuple[Callable[[int], Any], str, int]] = {
        "all": (case.all_pairs, "numpy", part),
        "scikit": (case.scikit, "sklearn", part),
        "mlpack": (case.mlpack, "mlpack", case.points),
    }
    for number in range(rounds):
        samples.setdefault("ours", []).append(timed(case.ours, 1, 1))
        for name, (run, module, rows) in programs.items():
            if not number and optional(module) is not None:
                once = timed(lambda run=run, rows=rows: run(rows), case.points, rows)
                samples.setdefault(name, []).append(once)
    found = case.certified.explain(case.x, case.y, case.scale).subject.searched
    met = "all" if isinstance(found, str) else f"{100 * found[0] / found[1]:.2g} %"
    cells = [f"{case.h:g}", told(samples["ours"], ""), met]
    cells.append(f"{case.error(samples['ours'][0][2]):.1e}")
    cells.append(told(samples["all"], "~"))
    for name in ("scikit", "mlpack"):
        if name in samples:
            cells += [told(samples[name], "~" if name == "scikit" else "")]
            cells.append(f"{case.error(samples[name][0][2]):.1e}")
        else:
            cells += ["not installed", "-"]
    return "| " + " | ".join(cells) + " |\n"


def told(samples: list[tuple[float, float, Any]], mark: str) -> str:
    """Medians of CPU seconds and of the clock's."""
    cpu, clock = (statistics.median(each[n] for each in samples) for n in (0, 1))
    return f"{mark}{cpu:.3g} ({clock:.3g})"


def main() -> None:
    """Measure, and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=100_000)
    parser.add_argument("--part", type=int, default=2_000, help="rows of programs that take long")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--machine", default="")
    parser.add_argument("--write", type=Path)
    asked = parser.parse_args()
    modules = {name: optional(name) for name in ("sklearn", "mlpack")}
    versions = "".join(f", {n} {m.__version__}" for n, m in modules.items() if m is not None)
    text = HEAD.format(
        cpus=available_cpus(),
        machine=asked.machine,
        numpy=np.__version__,
        versions=versions,
        points=asked.points,
        rounds=asked.rounds,
    )
    for h in (0.02, 0.05, 0.1):
        text += line(Case(asked.points, h), asked.rounds, asked.part)
    if asked.write is None:
        print(text)
    else:
        asked.write.write_text(text)


if __name__ == "__main__":
    main()
