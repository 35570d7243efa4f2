"""What concerns pairfold alone: flat times, threads, memory, the compilation of large formulas.

`python -m benchmarks.ours flatness|threads|memory|compilation [WHAT...]` measures itself and prints
JSON.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.case import BEYOND, Case
from benchmarks.cases import CASES
from benchmarks.peers.base import cores
from benchmarks.peers.genred import GenredPeer

ROOT = Path(__file__).resolve().parents[1]
LENGTHS = (2000, 5000, 20_000, 50_000, 100_000)
MANY = 100_000_000  # pairs from which a second thread must pay
LARGE = 100_000
_FLAT, _THREADED = "gaussian.float32", 0.2  # seconds for each number of threads
_GAUSSIAN = "Exp(-SqDist(x,y))*b"


def operations(count: int) -> str:
    """A formula of so many operations on one number per pair."""
    turns = ("Sin({})", "Square({})", "Exp(-{})", "Log(1+{})", "Cos({})", "Atan({})", "Abs({})")
    formula, done = "(x-y)", 1
    while done < count:
        turn = turns[done % len(turns)]
        formula = turn.format(formula)
        done += 1 + turn.count("-") + turn.count("+")
    return f"{formula}*b"


def formulas() -> dict[str, tuple[str, list[str], dict[str, Any]]]:
    """Large formulas, by what they are: formula, aliases, options of the reduction."""
    three = ["x = Vi(3)", "y = Vj(3)", "b = Vj(1)"]
    long = ["x = Vi(1000)", "y = Vj(1000)", "b = Vj(1)"]
    derived = _GAUSSIAN
    for name in ("u", "v", "w"):
        derived = f"Grad({derived},x,{name})"
    third = [*three, "u = Vi(1)", "v = Vi(3)", "w = Vi(3)"]
    return {
        "Gaussian, dimension 3": (_GAUSSIAN, three, {}),
        "Gaussian, dimension 1000": (_GAUSSIAN, long, {}),
        "gradient of that for x": (f"Grad({_GAUSSIAN},x,e)", [*long, "e = Vi(1)"], {}),
        "50 operations": (operations(50), ["x = Vi(1)", "y = Vj(1)", "b = Vj(1)"], {}),
        "third derivative of a Gaussian": (derived, third, {}),
        "100 nearest neighbours": ("SqDist(x,y)", three[:2], {"reduction_op": "ArgKMin",
                                                              "opt_arg": 100}),
    }  # fmt: skip


def _best(work: Callable[[], Any], enough: float, least: int = 2) -> float:
    """The shortest of several calls that take so many seconds together, and at least so many."""
    best, spent, count = float("inf"), 0.0, 0
    while spent < enough or count < least:
        start = time.perf_counter()
        work()
        seconds = time.perf_counter() - start
        best, spent, count = min(best, seconds), spent + seconds, count + 1
    return best


def _work(case: Case, arrays: Any) -> Callable[[], Any]:
    return GenredPeer("pairfold").prepare(case, arrays)


def flatness(lengths: Sequence[str]) -> list[dict[str, float]]:
    """Seconds of the Gaussian sum at M = N."""
    case, found = CASES[_FLAT], []
    for length in map(int, lengths):
        work = _work(case, case.arrays(0, length, length))
        work()
        found.append({"length": length, "seconds": _best(work, 1.0)})
    return found


def threads(asked: Sequence[str]) -> list[dict[str, Any]]:
    """Seconds of cases with one thread and with two, taken in turn; whether results are equal.

    Cases are asked for as NAME:ROWS:COLUMNS.
    """
    from pairfold import settings

    found = []
    for name, rows, columns in (text.split(":") for text in asked):
        case = CASES[name]
        work = _work(case, case.arrays(0, int(rows), int(columns)))
        results: dict[int, Any] = {}
        best = dict.fromkeys((1, 2), float("inf"))
        for _ in range(2):
            for count in best:
                with settings(threads=count):
                    if count not in results:
                        results[count] = _bytes(work())
                    best[count] = min(best[count], _best(work, _THREADED / 2, 1))
        found.append({"case": name, "one": best[1], "two": best[2],
                      "equal": results[1] == results[2]})  # fmt: skip
    return found


def _bytes(results: Any) -> list[bytes]:
    flat = [part for r in results for part in (r if isinstance(r, tuple) else (r,))]
    return [np.asarray(part).tobytes() for part in flat]


def threaded(case: Case) -> bool:
    """Whether the number of threads is tried on a case: the largest sums have one kernel only."""
    many = case.rows * case.columns >= MANY and case.group != BEYOND
    return many and (case.rows < LARGE or case.columns < LARGE or case.kernel == "gaussian")


def memory(names: Sequence[str]) -> list[dict[str, float]]:
    """Growth of resident memory at its peak, in MB, over a large sum; first with compilation."""
    case = CASES[_FLAT]
    work = _work(case, case.arrays(0, LARGE, LARGE))
    found = {}
    for name in ("first", "later"):
        before = _resident()
        work()
        found[name] = _peak() - before
    return [found]


def _resident() -> float:
    """The resident memory now, from which the peak starts again where the system can do that."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return _peak()
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def _peak() -> float:
    """The largest resident memory since `_resident`; in all, where the system cannot say that."""
    with contextlib.suppress(OSError):
        status = Path("/proc/self/status").read_text()
        found = re.search(r"VmHWM:\s*(\d+) kB", status)
        if found:
            return int(found.group(1)) * 1.024e-3
    import resource

    unit = 1e6 if sys.platform == "darwin" else 1e3 / 1.024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def compilation(names: Sequence[str]) -> list[dict[str, Any]]:
    """Seconds of the first call of each formula, less those of a later one."""
    from pairfold.numpy import Genred

    rng = np.random.default_rng(0)
    # What LLVM does once in a process is no formula's.
    Genred("x-y", ["x = Vi(1)", "y = Vj(1)"], axis=1)(*rng.random((2, 10, 1)))
    found = []
    for name, (formula, aliases, options) in formulas().items():
        row: dict[str, Any] = {"formula": name}
        for dtype in ("float32", "float64"):
            dims = [int(alias.partition("(")[2].rstrip(")")) for alias in aliases]
            arrays = [rng.random((100, dim)).astype(dtype) / dim for dim in dims]
            start = time.perf_counter()
            work = functools.partial(Genred(formula, aliases, axis=1, **options), *arrays)
            work()
            row[dtype] = time.perf_counter() - start - _best(work, 0.01)
        found.append(row)
    return found


def measure(what: str, names: Sequence[str] = ()) -> list[dict[str, Any]]:
    """One of the functions above, in a fresh process."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-m", "benchmarks.ours", what, *names]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def compilations(rounds: int) -> list[dict[str, Any]]:
    """The medians of several processes."""
    runs = [measure("compilation") for _ in range(rounds)]
    return [
        {key: value if isinstance(value, str) else statistics.median(run[k][key] for run in runs)
         for key, value in row.items()}
        for k, row in enumerate(runs[0])
    ]  # fmt: skip


def two_cores() -> bool:
    """Whether there is a second core to use."""
    return cores() > 1


if __name__ == "__main__":
    action = {"flatness": flatness, "threads": threads, "memory": memory,
              "compilation": compilation}[sys.argv[1]]  # fmt: skip
    print(json.dumps(action(sys.argv[2:])))
