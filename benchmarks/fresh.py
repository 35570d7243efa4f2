"""Times of a fresh process: import, the first call, the first call of a second formula.

Run as `python fresh.py first-call LIBRARY` or `python fresh.py import MODULE`, it measures itself
and prints JSON; `sample` starts it so, `measure` several times.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

FIRST = "first-call.process"
SECOND = "first-call.formula"
IMPORT = "import.numpy"
WARM = "warm-call"  # of the first formula, for `first_call.py`
NAMES = (FIRST, SECOND, IMPORT)
LIMITS = {FIRST: 0.1, SECOND: 0.1, IMPORT: 0.1}
AIMS = {FIRST: 0.04, SECOND: 0.04}
SAYS = {
    FIRST: "first call in a fresh process, after the import (Gaussian sum, M = N = 100)",
    SECOND: "first call of a second formula in that process (Laplacian sum)",
    IMPORT: "import of the NumPy front end, beyond NumPy's own",
}
_FORMULAS = ("Exp(-SqDist(x,y))*b", "Exp(-Norm2(x-y))*b")
_ALIASES = ["x = Vi(3)", "y = Vj(3)", "b = Vj(1)"]
_CALLS = 200  # warm calls, together a few milliseconds

# Seconds by the clock, and of the processor.
Seconds = tuple[float, float]


def _now() -> Seconds:
    return time.perf_counter(), time.process_time()


def _since(start: Seconds, calls: int = 1) -> Seconds:
    clock, processor = _now()
    return (clock - start[0]) / calls, (processor - start[1]) / calls


def first_calls(library: str) -> dict[str, Seconds]:
    """Seconds from building the reduction to its first result, for two formulas in turn."""
    import numpy as np

    fold = importlib.import_module(f"{library}.numpy").Genred
    rng = np.random.default_rng(0)
    x, y = rng.random((2, 100, 3), dtype=np.float32)
    b = rng.random((100, 1), dtype=np.float32)
    found = {}
    for name, formula in zip((FIRST, SECOND), _FORMULAS, strict=True):
        start = _now()
        fold(formula, _ALIASES, axis=1)(x, y, b)
        found[name] = _since(start)
    warm = fold(_FORMULAS[0], _ALIASES, axis=1)
    warm(x, y, b)
    start = _now()
    for _ in range(_CALLS):
        warm(x, y, b)
    return {**found, WARM: _since(start, _CALLS)}


def import_time(module: str) -> dict[str, Seconds]:
    """Seconds that importing a module takes once NumPy is there."""
    importlib.import_module("numpy")
    start = _now()
    importlib.import_module(module)
    return {IMPORT: _since(start)}


def measure(
    wanted: Sequence[str],
    library: str,
    python: str,
    source: Path | None,
    rounds: int,
    wait: Callable[[], bool],
) -> dict[str, list[tuple[float, bool]]]:
    """Samples in fresh processes, by name: (seconds, whether the machine was quiet).

    PyKeOps gets an empty build folder each time, so that it has everything to compile. Python's own
    bytecode is there for both, as pip leaves it.
    """
    found: dict[str, list[tuple[float, bool]]] = {name: [] for name in wanted}
    tasks = []
    if IMPORT in wanted:
        tasks.append(("import", f"{library}.numpy", rounds))
    if FIRST in wanted or SECOND in wanted:
        slow = library == "pykeops"
        tasks.append(("first-call", library, min(rounds, 2) if slow else rounds))
    if tasks:
        sample("import", f"{library}.numpy", python, source)
    for what, subject, count in tasks:
        for _ in range(count):
            calm = wait()
            for name, (seconds, _) in sample(what, subject, python, source).items():
                if name in found:
                    found[name].append((seconds, calm))
    return found


def sample(what: str, subject: str, python: str, source: Path | None) -> dict[str, Seconds]:
    """What one fresh process measures, `what` being one of its actions."""
    with tempfile.TemporaryDirectory() as empty:
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        if what == "first-call":
            environment["KEOPS_CACHE_FOLDER"] = empty
        if source is not None:
            environment["PYTHONPATH"] = str(source)
        done = subprocess.run(
            [python, __file__, what, subject],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    action = {"first-call": first_calls, "import": import_time}[sys.argv[1]]
    print(json.dumps(action(sys.argv[2])))
