"""Programs that run outside the process of the tests: each in its own, or one after another in one.

A new process imports NumPy, torch and all it needs of pairfold again, which is most of its time. So
those programs share one for which it is enough that no earlier program has imported pykeops.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SOURCES = [ROOT / "src", ROOT / "dropin" / "src"]

# Answers each line, a program, with a line: what it has printed, and how it failed.
_SERVE = """
import contextlib, io, json, sys, traceback
import pairfold.dropin

def run(program):
    for name in list(sys.modules):
        if name.partition(".")[0] in ("pykeops", "keopscore"):
            del sys.modules[name]
    pairfold.dropin.install()
    exec(program, {"__name__": "__main__", "pairfold": pairfold})  # programs of these tests

for line in sys.stdin:
    printed, failed = io.StringIO(), ""
    with contextlib.redirect_stdout(printed):
        try:
            run(json.loads(line))
        except BaseException:
            failed = traceback.format_exc()
    print(json.dumps([printed.getvalue(), failed]), flush=True)
"""


def environment(path: list[Path] | None = None) -> dict[str, str]:
    """Variables for a process that finds packages in `path` first (default: only pairfold's)."""
    folders = [str(folder) for folder in (path if path is not None else SOURCES[:1])]
    found = {**os.environ, "PYTHONPATH": os.pathsep.join(folders)}
    found.pop("PYKEOPS_VERBOSE", None)
    return found


def python(
    *arguments: str, path: list[Path] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a new interpreter that finds packages in `path` first (default: only pairfold's)."""
    return subprocess.run(
        [sys.executable, *arguments],
        env=environment(path),
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
    )


class Installed:
    """An interpreter that runs programs, each after a new `pairfold.dropin.install()`."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", _SERVE],
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Installed:
        return self

    def __exit__(self, *_: Any) -> None:
        self.process.communicate(timeout=60)

    def __call__(self, program: str) -> str:
        """What a program prints."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(program) + "\n")
        self.process.stdin.flush()
        printed, failed = json.loads(self.process.stdout.readline())
        assert not failed, failed
        return printed.strip()
