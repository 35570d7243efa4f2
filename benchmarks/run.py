"""All benchmarks in one run: `python benchmarks/run.py --write benchmarks/results.md`.

PyKeOps is installed into a virtual environment of its own (`--cache` keeps it, and what it
compiled, for the next run); without network or compiler the run goes on without it, and says so.
"""

from __future__ import annotations

import argparse
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import bound, environment, fresh, report
from benchmarks.cases import BEYOND, CASES, REDUCED, THIN, Case
from benchmarks.harness import ROOT, Peer, Process, Result, measure, processes
from benchmarks.quiet import Quiet


def parser() -> argparse.ArgumentParser:
    """The command line."""
    found = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    add = found.add_argument
    add("--cases", default="", metavar="REGEX", help="only cases whose name matches")
    add("--rounds", type=int, default=7, help="samples per peer and case (fewer for slow peers)")
    add("--quick", action="store_true", help="tiny sizes and two rounds: does it all work?")
    add("--pykeops-python", metavar="PATH", help="a Python that has PyKeOps and torch")
    add("--cache", metavar="DIR", help="keeps PyKeOps and its builds; default: a temporary one")
    add("--write", metavar="FILE", help="write the report here; default: print it")
    add("--peers", default="", metavar="REGEX", help="only pairfold and peers that match")
    add("--patience", type=float, default=120, help="seconds to wait for a quiet machine, in all")
    add("--llvm-mca", metavar="PATH", help="the program; default: the newest on PATH")
    return found


@dataclass
class Setup:
    """What is there to measure with."""

    options: argparse.Namespace
    peers: list[Peer]
    pykeops: str | None
    notes: list[str]
    quiet: Quiet
    folder: Path

    @property
    def rounds(self) -> int:
        """Samples per peer and case."""
        return min(2, self.options.rounds) if self.options.quick else self.options.rounds

    def size(self, case: Case) -> tuple[int, int]:
        """The rows and columns of a case in this run."""
        if not self.options.quick:
            return case.rows, case.columns
        most = 20_000 if case.group == THIN else 500
        return min(most, case.rows), min(most, case.columns)

    def chosen(self, name: str) -> bool:
        """Whether a case is asked for."""
        return re.search(self.options.cases, name) is not None


def prepare(options: argparse.Namespace, folder: Path) -> Setup:
    """Find or make what the peers need."""
    cache = Path(options.cache) if options.cache else folder
    cache.mkdir(parents=True, exist_ok=True)
    notes = []
    say("looking for PyKeOps")
    python, note = environment.pykeops_python(options.pykeops_python, cache, folder / "pip.log")
    if note:
        notes.append(f"Without PyKeOps: {note}.")
    peers = [Peer("pairfold")]
    if python:
        shipped = {"KEOPS_CACHE_FOLDER": str(cache / "builds"), "CXXFLAGS": ""}
        tuned = {"KEOPS_CACHE_FOLDER": str(cache / "builds-tuned")}
        tuned["CXXFLAGS"] = environment.PYKEOPS_FLAGS
        peers.append(Peer("PyKeOps", python, environment=shipped))
        peers.append(Peer("PyKeOps tuned", python, environment=tuned))
    libraries, note = environment.cpp_libraries(folder)
    if note:
        notes.append(f"Without C++: {note}.")
    peers += [Peer(name) for name in ("torch products", "torch differences")]
    peers += [Peer(name, option=path) for name, path in libraries.items()]
    peers.append(Peer("memory"))
    peers = [p for p in peers if p.name == "pairfold" or re.search(options.peers, p.name)]
    patience = 0 if options.quick else options.patience
    return Setup(options, peers, python, notes, Quiet(patience), folder)


def say(text: str) -> None:
    """Print progress."""
    print(text, file=sys.stderr, flush=True)


def _progress(items: Sequence[Case]) -> tuple[Any, Callable[[str], None]]:
    """An iterator over the items, and how to say what is going on; a bar where tqdm is there."""
    try:
        from tqdm import tqdm
    except ImportError:
        return items, say
    bar = tqdm(items, unit="case")
    return bar, bar.set_postfix_str


def run_cases(setup: Setup) -> tuple[dict[str, dict[str, Result]], dict[str, str]]:
    """Results by case and peer, and the versions of the peers' libraries."""
    found: dict[str, dict[str, Result]] = {}
    chosen = [case for case in CASES.values() if setup.chosen(case.name)]
    if not chosen:
        return found, {}
    with processes(setup.peers, setup.folder / "peers.log") as running:
        able, extra = _started(running, setup.notes)
        items, tell = _progress(chosen)
        for case in items:
            found[case.name] = measure(
                case, setup.size(case), able, setup.rounds, setup.quiet, setup.folder, tell
            )
    return found, extra


def _started(running: Sequence[Process], notes: list[str]) -> tuple[list[Process], dict[str, str]]:
    """The processes whose peer could be made, and the versions of their libraries."""
    able: list[Process] = []
    extra: dict[str, str] = {}
    for process in running:
        answer = process.ask(do="versions")
        if "error" in answer:
            notes.append(f"Without {process.peer.name}: {answer['error']}.")
            say(notes[-1])
            continue
        able.append(process)
        extra |= answer["versions"]
    return able, extra


def run_fresh(setup: Setup) -> dict[str, dict[str, Result]]:
    """First calls and imports, in fresh processes."""
    wanted = [name for name in fresh.NAMES if setup.chosen(name)]
    found: dict[str, dict[str, Result]] = {name: {} for name in wanted}
    pythons: list[tuple[str, str, str | None, Path | None]] = [
        (report.OURS, "pairfold", sys.executable, ROOT / "src"),
        (report.SHIPPED, "pykeops", setup.pykeops, None),
    ]
    for peer, library, python, source in pythons:
        if python is None or not wanted:
            continue
        say(f"{peer}: fresh processes")
        try:
            samples = fresh.measure(wanted, library, python, source, setup.rounds, setup.quiet.wait)
        except subprocess.CalledProcessError as error:
            setup.notes.append(f"{peer} failed in a fresh process.")
            say(f"{setup.notes[-1]}\n{error.stderr}")
            continue
        for name, times in samples.items():
            found[name][peer] = Result(
                peer, [seconds for seconds, _ in times], [not calm for _, calm in times]
            )
    return found


def command(arguments: Sequence[str]) -> str:
    """The command of this run, without the absolute paths."""
    shown: list[str] = []
    for argument in arguments:
        name, equals, value = argument.rpartition("=")
        shown.append(f"{name}{equals}PATH" if Path(value).is_absolute() else argument)
    return "python benchmarks/run.py " + shlex.join(shown)


def document(
    setup: Setup,
    results: dict[str, dict[str, Result]],
    extra: dict[str, str],
    bounds: str,
    arguments: Sequence[str],
) -> str:
    """The whole report."""
    facts = {
        **environment.machine(),
        "date": environment.today(),
        "revision": environment.revision(),
        "command": f"`{command(arguments)}`",
        "versions": ", ".join(f"{k} {v}" for k, v in environment.versions(extra).items()),
    }
    rows = [report.Fresh(n, fresh.SAYS[n], fresh.LIMITS[n]) for n in fresh.NAMES if n in results]
    parts = ["# Benchmark results\n", "Written by `benchmarks/run.py`.\n"]
    if setup.options.quick:
        parts.append("**A quick run on tiny sizes: these figures mean nothing.**\n")
    parts.append("\n".join(f"- {key}: {value}" for key, value in facts.items()) + "\n")
    parts += [note + "\n" for note in setup.notes]
    parts += [report.PEERS_TEXT, "## Summary\n", report.summary(results, rows)]
    parts += _groups(setup, results)
    if rows:
        parts.append("## Fresh processes\n")
    for row in rows:
        parts += [f"**{row.name}**: {row.says}\n", report.peer_table(results[row.name], None)]
    if bounds:
        about = (bound.__doc__ or "").split("\n\n")[-1].strip()
        parts += ["## Inner loops on one thread\n", about + "\n", bounds]
    return "\n".join(parts)


def _groups(setup: Setup, results: dict[str, dict[str, Result]]) -> list[str]:
    parts: list[str] = []
    group = ""
    for case in CASES.values():
        if case.name not in results:
            continue
        if case.group != group:
            group = case.group
            parts.append(f"## {group}\n")
            if group in (REDUCED, BEYOND):
                parts.append(_reductions(setup, results, group))
        if group in (REDUCED, BEYOND):
            continue
        size = setup.size(case)
        parts.append(report.case_title(case, size) + "\n")
        parts.append(report.peer_table(results[case.name], size[0] * size[1]))
    return parts


def _reductions(setup: Setup, results: dict[str, dict[str, Result]], group: str) -> str:
    """A group of reductions as one table, under what its cases have in common."""
    chosen = {n: found for n, found in results.items() if n in CASES and CASES[n].group == group}
    sizes = {name: setup.size(CASES[name]) for name in chosen}
    first = next(iter(chosen))
    rows, columns = sizes[first]
    widths = {f"{k}: {d}": None for n in chosen for k, d in CASES[n].dims.items()}
    dims = ", ".join(widths)
    about = f"M = {rows}, N = {columns}, {CASES[first].dtype}, {dims}, through NumPy.\n"
    return f"{about}\n{report.group_table(chosen, sizes)}"


def run_bounds(setup: Setup) -> str:
    """The table of bounds for the chosen cases."""
    names = [name for name in CASES if setup.chosen(name) and bound.suitable(CASES[name])]
    if not names:
        return ""
    say("inner loops")
    setup.quiet.wait()
    size = 1000 if setup.options.quick else 8000
    return bound.text_table(bound.all_bounds(names, size, setup.options.llvm_mca))


def main(arguments: Sequence[str]) -> None:
    """Measure, and write or print the report."""
    options = parser().parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        setup = prepare(options, Path(folder))
        for note in setup.notes:
            say(note)
        results, extra = run_cases(setup)
        results |= run_fresh(setup)
        text = document(setup, results, extra, run_bounds(setup), arguments)
        if any(r.failure for found in results.values() for r in found.values()):
            say((Path(folder) / "peers.log").read_text()[-4000:])
    if options.write:
        Path(options.write).write_text(text, encoding="utf-8")
    else:
        print(text)


if __name__ == "__main__":
    main(sys.argv[1:])
