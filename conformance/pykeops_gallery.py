"""Run PyKeOps' gallery of tutorials and examples, unmodified, on pairfold's package `pykeops`.

    python conformance/pykeops_gallery.py --write conformance/pykeops_gallery.md

The scripts come from PyKeOps' source archive, which `pip download` fetches into a temporary folder.
Each runs in a process of its own, on the processor, without a display. It passes if it ends without
an error, every relative error that it prints is below 1 % and every comparison that it prints is
true. The scripts need torch, matplotlib, SciPy, scikit-learn and plotly (`--install` puts what is
missing into a temporary environment). The exit status is 1 if a script failed for no known reason.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from conformance.pykeops_suite import archived

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("tutorials/", "examples/")
LIMIT = 600
NEEDS = ("torch", "matplotlib", "scipy", "scikit-learn", "plotly")

# Part of what a failing script says -> why it cannot run here.
CANNOT = {
    "not compiled with CUDA": "needs a GPU",
    "max_workers must be greater than 0": "needs a GPU",
    "there is no GPU that can be used": "needs a GPU",
    "urlopen error": "needs a data set from the network",
}


@dataclass
class Outcome:
    """What became of a script."""

    name: str
    said: str = ""
    seconds: float = 0.0

    @property
    def reason(self) -> str | None:
        """Why it cannot run here, None if that is not known."""
        return next((why for text, why in CANNOT.items() if text in self.said), None)

    @property
    def verdict(self) -> str:
        """A few words for the table."""
        return self.reason or (f"**fails**: {self.said.splitlines()[-1]}" if self.said else "runs")


def fetch(version: str, folder: Path) -> list[Path]:
    """Unpack the gallery; the scripts, in order."""
    found: list[Path] = []
    for name, content in archived("pykeops", version):
        inside = name.partition("pykeops/")[2]
        if not inside.startswith(FOLDERS) or ".." in Path(inside).parts:
            continue
        path = folder / inside
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        if path.suffix == ".py" and path.name != "__init__.py":
            found.append(path)
    return sorted(found)


def run(script: Path, name: str, python: str) -> Outcome:
    """Run a script in its own folder."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT / "src"),
        "MPLBACKEND": "agg",
        "CUDA_VISIBLE_DEVICES": "",
    }
    start = time.perf_counter()
    try:
        done = subprocess.run(
            [python, "-m", "pairfold.dropin", script.name],
            cwd=script.parent,
            env=environment,
            capture_output=True,
            text=True,
            timeout=LIMIT,
        )
    except subprocess.TimeoutExpired:
        return Outcome(name, f"took more than {LIMIT} seconds", LIMIT)
    seconds = time.perf_counter() - start
    said = done.stderr.strip() or f"exit status {done.returncode}" if done.returncode else ""
    return Outcome(name, said or disagreement(done.stdout), seconds)


def disagreement(printed: str) -> str:
    """The first line by which a script says that two of its results differ, "" for none.

    >>> disagreement("Relative error = 2e-05")
    ''
    >>> disagreement("All good ? False")
    'All good ? False'
    """
    for line in printed.splitlines():
        if "good" in line and "False" in line:
            return line
        number = re.search(
            r"relative error[^=:]*[=:]\s*([\d.]+(?:e[+-]?\d+)?|nan|inf)(%?)", line, re.I
        )
        if number and not float(number[1]) * (0.01 if number[2] else 1) < 0.01:
            return line
    return ""


def table(outcomes: Sequence[Outcome], version: str) -> str:
    """The results as a page."""
    able = [o for o in outcomes if o.reason is None]
    ran = sum(not o.said for o in outcomes)
    lines = [
        f"# The gallery of PyKeOps {version}, run on pairfold\n",
        f"{ran} of {len(able)} scripts run; {len(outcomes) - len(able)} more cannot run here.\n",
        "| script | | seconds |\n|---|---|---|",
        *(f"| {o.name} | {o.verdict} | {o.seconds:.0f} |" for o in outcomes),
    ]
    return "\n".join(lines) + "\n"


def installed(folder: Path) -> str:
    """The Python of a new environment that has pairfold and what the scripts need."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    command = [str(python), "-m", "pip", "install", "-q", "-c", str(ROOT / "constraints.txt")]
    subprocess.run([*command, str(ROOT), *NEEDS], check=True, stdout=sys.stderr)
    return str(python)


def main() -> int:
    """Run the program; the exit status."""
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--version", default="2.3", help="the version to fetch")
    options.add_argument("--install", action="store_true", help="use a temporary environment")
    options.add_argument("--only", default="", help="scripts whose names contain this")
    options.add_argument("--write", type=Path, help="a file for the results")
    chosen = options.parse_args()
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "gallery"
        python = installed(Path(temporary) / "environment") if chosen.install else sys.executable
        for script in fetch(chosen.version, folder):
            name = script.relative_to(folder).as_posix()
            if chosen.only in name:
                outcomes.append(run(script, name, python))
                sys.stderr.write(f"{name}: {outcomes[-1].verdict}\n")
    text = table(outcomes, chosen.version)
    sys.stdout.write(text)
    if chosen.write:
        chosen.write.write_text(text)
    return int(not outcomes or any(o.said and o.reason is None for o in outcomes))


if __name__ == "__main__":
    sys.exit(main())
