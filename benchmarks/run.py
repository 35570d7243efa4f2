"""All benchmarks in one run: `python benchmarks/run.py --write benchmarks/results.md`.

PyKeOps is installed into a virtual environment of its own, and so are JAX, numba and the libraries
that search neighbours; `--cache` keeps both, and what PyKeOps compiled, for the next run. Without
network or compiler the run goes on without them, and says so.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import bound, environment, fresh, ours, report
from benchmarks.bound import Bound
from benchmarks.case import THIN, Case, below
from benchmarks.cases import CASES
from benchmarks.harness import OURS, ROOT, Peer, Process, Result, measure, processes
from benchmarks.quiet import Quiet

# Peers that compile for seconds are left out of a quick run, unless `--peers` names them.
SLOW = ("PyKeOps", "PyKeOps tuned", "torch compiled")
TORCH = ("torch products", "torch differences", "torch compiled", "torch attention")
OTHERS = ("JAX chunks", "JAX fused", "numba", "scikit-learn", "faiss", "SciPy cKDTree")


def asked(options: argparse.Namespace, name: str) -> bool:
    """Whether a peer is to take part."""
    if name == OURS:
        return True
    if not options.peers:
        return not (options.quick and name in SLOW)
    return re.search(options.peers, name) is not None


def parser() -> argparse.ArgumentParser:
    """The command line."""
    found = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    add = found.add_argument
    add("--cases", default="", metavar="REGEX", help="only cases whose name matches")
    add("--rounds", type=int, default=7, help="samples per peer and case (fewer for slow peers)")
    add("--quick", action="store_true", help="tiny sizes and two rounds: does it all work?")
    add("--pykeops-python", metavar="PATH", help="a Python that has PyKeOps and torch")
    add("--peers-python", metavar="PATH", help="a Python that has JAX, numba, faiss and so on")
    add("--cache", metavar="DIR", help="keeps what is installed and built; default: nothing is")
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
    started: float = field(default_factory=time.perf_counter)

    @contextlib.contextmanager
    def stage(self, name: str) -> Generator[None, None, None]:
        """Say how long a stage took, and the run so far."""
        start = time.perf_counter()
        yield
        now = time.perf_counter()
        say(f"{name}: {now - start:.0f} s, {now - self.started:.0f} s in all")

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
        """Whether a case is asked for; in a quick run those that differ in size alone are not."""
        if self.options.quick and name in CASES and bound.in_sizes(CASES[name]):
            return False
        return re.search(self.options.cases, name) is not None


def prepare(options: argparse.Namespace, folder: Path) -> Setup:
    """Find or make what the peers need."""
    cache = Path(options.cache).resolve() if options.cache else folder
    cache.mkdir(parents=True, exist_ok=True)
    notes = []
    say("looking for PyKeOps and other peers")
    log = folder / "pip.log"
    python = other = None
    if asked(options, "PyKeOps") or asked(options, "PyKeOps tuned"):
        python, note = environment.pykeops_python(options.pykeops_python, cache, log)
        if note:
            notes.append(f"Without PyKeOps: {note}.")
    peers = [Peer(OURS)]
    if python:
        shipped = {"KEOPS_CACHE_FOLDER": str(cache / "builds"), "CXXFLAGS": ""}
        tuned = {"KEOPS_CACHE_FOLDER": str(cache / "builds-tuned")}
        tuned["CXXFLAGS"] = environment.PYKEOPS_FLAGS
        peers.append(Peer("PyKeOps", python, environment=shipped))
        peers.append(Peer("PyKeOps tuned", python, environment=tuned))
    inductor = {"TORCHINDUCTOR_CACHE_DIR": str(cache / "inductor")}
    peers += [Peer(name, environment=inductor) for name in TORCH]
    if any(asked(options, name) for name in OTHERS):
        other, note = environment.peers_python(options.peers_python, cache, log)
        if note:
            notes.append(f"Without {', '.join(environment.PEERS)}: {note}.")
    if other:
        peers += [Peer(name, other) for name in OTHERS]
    libraries, note = environment.cpp_libraries(folder)
    if note:
        notes.append(f"Without C++: {note}.")
    peers += [Peer(name, option=path) for name, path in libraries.items()]
    peers.append(Peer("memory"))
    peers = [peer for peer in peers if asked(options, peer.name)]
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
                case,
                setup.size(case),
                able,
                setup.rounds,
                0.002 if setup.options.quick else 0.05,
                setup.quiet,
                setup.folder,
                tell,
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
        (OURS, "pairfold", sys.executable, ROOT / "src"),
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
                peer,
                samples=[seconds for seconds, _ in times],
                disturbed=[not calm for _, calm in times],
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
    bounds: Sequence[Bound],
    sections: Sequence[str],
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
    rows = _fresh_rows(results)
    by_name = {b.name: b for b in bounds}
    floors, aims = (report.verdicts(results, by_name, rows, aim) for aim in (False, True))
    parts = ["# Benchmark results\n", "Written by `benchmarks/run.py`.\n"]
    if setup.options.quick:
        parts.append("**A quick run on tiny sizes: these figures mean nothing.**\n")
    parts.append("\n".join(f"- {key}: {value}" for key, value in facts.items()) + "\n")
    parts += [note + "\n" for note in setup.notes]
    parts += [report.findings(results, floors), report.PEERS_TEXT]
    parts += ["## Summary\n", report.summary(results)]
    if floors or aims:
        parts += ["## Floors and aims\n", report.bars(floors, aims)]
    parts += [*sections, *_groups(setup, results)]
    if rows:
        parts.append("## Fresh processes\n")
        parts.append("\n".join(f"- **{row.name}**: {row.says}" for row in rows) + "\n")
        parts.append(report.peer_tables({row.name: results[row.name] for row in rows}, {}))
    if bounds:
        about = (bound.__doc__ or "").split("\n\n")[-1].strip()
        parts += ["## Inner loops on one thread\n", about + "\n", bound.text_table(bounds)]
    return "\n".join(parts)


def _fresh_rows(results: dict[str, dict[str, Result]]) -> list[report.Fresh]:
    return [
        report.Fresh(
            name,
            fresh.SAYS[name],
            below(fresh.LIMITS[name]),
            below(fresh.AIMS[name]) if name in fresh.AIMS else (),
        )
        for name in fresh.NAMES
        if name in results
    ]


def _groups(setup: Setup, results: dict[str, dict[str, Result]]) -> list[str]:
    """For each group what its cases are, and all peers side by side."""
    parts: list[str] = []
    chosen = [case for case in CASES.values() if case.name in results]
    for group in dict.fromkeys(case.group for case in chosen):
        sizes = {case.name: setup.size(case) for case in chosen if case.group == group}
        titles = [report.case_title(CASES[name], size) for name, size in sizes.items()]
        pairs = {name: rows * columns for name, (rows, columns) in sizes.items()}
        tables = report.peer_tables({name: results[name] for name in sizes}, pairs)
        parts += [f"## {group}\n", "\n".join(titles) + "\n", tables]
    return parts


def run_ours(setup: Setup) -> list[str]:
    """The sections about pairfold alone: flat times, threads, memory, compilation."""
    parts: list[str] = []
    quick = setup.options.quick

    def section(name: str, title: str, text: Callable[[], str]) -> None:
        if name != "threads" and not setup.chosen(name):
            return
        say(name)
        setup.quiet.wait()
        with setup.stage(name):
            try:
                parts.extend([f"## {title}\n", text()])
            except subprocess.CalledProcessError as error:
                setup.notes.append(f"{name} failed in a fresh process.")
                say(f"{setup.notes[-1]}\n{error.stderr}")

    lengths = [str(n) for n in ((500, 1000) if quick else ours.LENGTHS)]
    section(
        "flatness",
        "Time per pair",
        lambda: report.flatness(ours.measure("flatness", lengths)),
    )
    several = [case for case in CASES.values() if ours.threaded(case) and setup.chosen(case.name)]
    if several and ours.two_cores():
        asked = ["{}:{}:{}".format(case.name, *setup.size(case)) for case in several]
        asked = asked[:: 10 if quick else 1]
        section("threads", "Two threads", lambda: report.threads(ours.measure("threads", asked)))
    section("memory", "Memory", lambda: report.memory(ours.measure("memory")[0]))
    rounds = 1 if quick else min(3, setup.rounds)
    section(
        "compilation",
        "Compile time of large formulas",
        lambda: report.compilation(ours.compilations(rounds)),
    )
    return parts


def run_bounds(setup: Setup) -> list[Bound]:
    """The bounds of the chosen cases."""
    names = [name for name in CASES if setup.chosen(name) and bound.suitable(CASES[name])]
    if not names:
        return []
    say("inner loops")
    setup.quiet.wait()
    if setup.options.quick:
        return bound.all_bounds(names[::8], 500, setup.options.llvm_mca)
    return bound.all_bounds(names, 8000, setup.options.llvm_mca)


def main(arguments: Sequence[str]) -> None:
    """Measure, and write or print the report."""
    options = parser().parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        setup = prepare(options, Path(folder))
        for note in setup.notes:
            say(note)
        with setup.stage("cases"):
            results, extra = run_cases(setup)
        with setup.stage("fresh processes"):
            results |= run_fresh(setup)
        sections = run_ours(setup)
        with setup.stage("inner loops"):
            bounds = run_bounds(setup)
        text = document(setup, results, extra, bounds, sections, arguments)
        if any(r.failure for found in results.values() for r in found.values()):
            say((Path(folder) / "peers.log").read_text()[-4000:])
    if options.write:
        Path(options.write).write_text(text, encoding="utf-8")
    else:
        print(text)


if __name__ == "__main__":
    main(sys.argv[1:])
