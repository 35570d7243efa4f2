"""All that is measured on a GPU, in one run: `python benchmarks/gpu.py --write FILE`.

Correctness comes first: what is wrong is not timed, and the exit status is 1. Then calls, then the
cases of `gpu_cases.py` beside all peers, in order of importance, until the budget is spent.
`--device cpu --quick` does the same on the CPU at tiny sizes: does it all work?
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import re
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import environment, gpu_calls, gpu_correct, gpu_limits, gpu_peers, report
from benchmarks.gpu_cases import TIMED, Timed
from benchmarks.gpu_measure import CAP, Budget, Device, Speed
from benchmarks.harness import OURS
from benchmarks.tables import ratio, seconds, table

PARTS = ("correctness", "calls", "speed")
_CORRECTNESS = 0.4  # of the budget
_QUICK = {"1e4": 49, "1e5": 54, "1e6": 61}  # rows of a quick run


def parser() -> argparse.ArgumentParser:
    """The command line."""
    found = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    add = found.add_argument
    add("--device", default="cuda", help="where to run: cuda, cuda:1, cpu")
    add("--quick", action="store_true", help="tiny sizes: does it all work?")
    add("--budget", type=float, default=450, help="seconds that the run may take, about")
    add("--rounds", type=int, default=5, help="samples per peer and case (fewer for slow ones)")
    add("--cases", default="", metavar="REGEX", help="only timed cases whose name matches")
    add("--reductions", default="", metavar="REGEX", help="only reductions that match are checked")
    add("--peers", default="", metavar="REGEX", help="only pairfold and peers that match")
    add("--parts", default=",".join(PARTS), help=f"which of {', '.join(PARTS)}")
    add("--write", metavar="FILE", help="write the report here as it grows; default: print it")
    return found


def say(text: str) -> None:
    """Print progress."""
    print(text, file=sys.stderr, flush=True)


def without_llvmlite() -> str:
    """Something to import in llvmlite's place where it is missing, and a note.

    Only the CPU's code generator uses it; it fails there, if it comes to that.
    """
    if importlib.util.find_spec("llvmlite") is not None:
        return ""
    whole = MagicMock()
    sys.modules |= {"llvmlite": whole, "llvmlite.binding": whole.binding}
    return "Without llvmlite, which only the CPU's code generator uses."


@dataclass
class Run:
    """A run, and what it found so far."""

    options: argparse.Namespace
    device: Device
    budget: Budget
    notes: list[str]
    facts: dict[str, str]
    chip: gpu_limits.Chip
    checks: list[gpu_correct.Check] = field(default_factory=list)
    late: list[gpu_correct.Task] = field(default_factory=list)
    calls: str = ""
    speed: Speed | None = None
    mistakes: list[str] = field(default_factory=list)

    @property
    def quick(self) -> bool:
        """Whether sizes are tiny."""
        return bool(self.options.quick)

    def size(self, timed: Timed) -> tuple[int, int]:
        """The rows and columns of a case in this run."""
        if not self.quick:
            return timed.case.rows, timed.case.columns
        return _QUICK[timed.size], _QUICK[timed.size] + 16

    @property
    def checked_size(self) -> tuple[int, int]:
        """The rows and columns on which reductions are checked."""
        return gpu_correct.QUICK_SIZE if self.quick else gpu_correct.SIZE

    def wrong(self) -> list[str]:
        """What is wrong."""
        checks = [f"{gpu_correct.named(c.task)}" for c in self.checks if not c.right]
        return [*checks, *self.mistakes, *(self.speed.mistakes if self.speed else [])]

    def write(self) -> None:
        """The report so far, if it goes to a file."""
        if self.options.write:
            Path(self.options.write).write_text(document(self), encoding="utf-8")


def prepare(options: argparse.Namespace, notes: list[str]) -> Run:
    """Look at the device."""
    budget = Budget(options.budget)
    torch = importlib.import_module("torch")
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        raise SystemExit("torch finds no GPU here; `--device cpu --quick` tries the program")
    device = Device(torch, options.device)
    chip, told = gpu_limits.chip(torch, device.device)
    facts = {**environment.accelerator(torch, device.device), **told}
    return Run(options, device, budget, notes, facts, chip)


def check(run: Run) -> None:
    """Every reduction on the device."""
    tasks = [t for t in gpu_correct.tasks() if re.search(run.options.reductions, t.name)]
    checker = gpu_correct.Checker(run.device, run.checked_size)
    run.checks, run.late = gpu_correct.run(checker, tasks, run.budget.part(_CORRECTNESS), say)


def call(run: Run) -> None:
    """Latencies."""
    say("calls")
    found = gpu_calls.measure(run.device, 5 if run.quick else 200)
    run.calls = gpu_calls.text(found)
    run.mistakes += [f"{one.name}: {one.failure}" for one in found if one.failure]


def time_cases(run: Run) -> None:
    """The cases beside all peers."""
    chunk = gpu_peers.CHUNK_BYTES
    if run.device.accelerated:
        total = run.device.torch.cuda.get_device_properties(run.device.device).total_memory
        chunk = min(chunk, total // 16)
    peers = gpu_peers.table(10_000 if run.quick else chunk)
    chosen = {n: make for n, make in peers.items() if _asked(run.options, n)}
    run.speed = Speed(
        run.device,
        chosen,
        _absent(run, chosen),
        run.budget,
        run.size,
        min(2, run.options.rounds) if run.quick else run.options.rounds,
        1e-4 if run.quick else 0.02,
        frozenset(c.task.name for c in run.checks if not c.right),
        say,
    )
    cases = [t for name, t in TIMED.items() if re.search(run.options.cases, name)]
    run.speed.run(cases, (lambda: None) if run.quick else run.write)


def _asked(options: argparse.Namespace, name: str) -> bool:
    return name == OURS or re.search(options.peers, name) is not None


def _absent(run: Run, peers: dict[str, Callable[[], Any]]) -> dict[str, str]:
    """Why peers cannot take part."""
    found: dict[str, str] = {}
    if gpu_peers.PYKEOPS in peers:
        if why := gpu_peers.without_pykeops():
            found[gpu_peers.PYKEOPS] = why
        else:
            run.facts["PyKeOps"] = peers[gpu_peers.PYKEOPS]().versions()["pykeops"]
    if run.quick and gpu_peers.COMPILING in peers and not run.options.peers:
        found[gpu_peers.COMPILING] = "left out of a quick run, unless --peers names it"
    return found


def document(run: Run) -> str:
    """The whole report."""
    wrong = run.wrong()
    parts = ["# Benchmark on a GPU\n", "Written by `benchmarks/gpu.py`.\n"]
    if run.quick:
        parts.append("**A quick run on tiny sizes: these figures mean nothing.**\n")
    parts.append("\n".join(f"- {key}: {value}" for key, value in run.facts.items()) + "\n")
    parts += [note + "\n" for note in run.notes]
    parts.append(f"Wrong: {'; '.join(wrong) or 'nothing'}.\n")
    if run.checks or run.late:
        text = gpu_correct.text(run.checks, run.late, run.checked_size)
        parts += ["## Correctness\n", text]
    if run.calls:
        parts += ["## Calls\n", run.calls]
    if run.speed is not None:
        parts += _speed(run, run.speed)
    return "\n".join(parts)


_SPEED = f"""\
Seconds are medians of samples taken in turn, by the device's events; `~`: estimated from the same
case with fewer points, since a call would take more than {CAP:g} s. Gradients are the backward pass
alone unless a peer is said to do both. Error: max|out - exact| / max|exact| against float64 on
sampled rows: all gradients of the Gaussian at 1e4, that for x (the seed: y) elsewhere; nearest
neighbours as the quotient of squared distances. `-`: the peer has no method for the case, unless
another reason is given under "Not measured".
"""

_LIMITS = """\
What pairfold reaches of what the chip can do. *FMA*: float32 (or float64) multiply-adds, adds and
multiplications; *special*: exponentials; *tensor*: matrix products, TF32 or 16 bits; *memory*:
inputs and outputs once; *issue*: instructions. The work of a pair is the least that a loop needs,
counted by hand; a case that replaces multiply-adds by the tensor cores exceeds 100 % of *FMA*. The
seed's exponential leaves the sum over pairs, and is not counted.
"""


def _speed(run: Run, speed: Speed) -> list[str]:
    parts = ["## Speed\n", gpu_peers.SAYS, _SPEED]
    done = {name: TIMED[name] for name, found in speed.results.items() if found}
    for group in dict.fromkeys(timed.case.group for timed in done.values()):
        own = {name: timed for name, timed in done.items() if timed.case.group == group}
        titles = [report.case_title(t.case, run.size(t)) for t in own.values()]
        pairs = {name: _pairs(run, timed) for name, timed in own.items()}
        results = {name: speed.results[name] for name in own}
        parts += [f"### {group}\n", "\n".join(titles) + "\n", report.peer_tables(results, pairs)]
    parts += ["### Shares of the chip's limits\n", _LIMITS, _limits(run, speed)]
    if speed.reasons:
        parts += ["### Not measured\n", _reasons(speed.reasons, speed.asked)]
    return parts


def _pairs(run: Run, timed: Timed) -> int:
    rows, columns = run.size(timed)
    return rows * columns


def _limits(run: Run, speed: Speed) -> str:
    """Pairs per second and shares of the limits."""
    rows = []
    for name, found in speed.results.items():
        ours, timed = found.get(OURS), TIMED[name]
        if ours is None or not ours.samples:
            continue
        pairs, spent = _pairs(run, timed), ours.median
        part = gpu_limits.shares(
            run.chip, timed.cost, timed.case.dtype, pairs, speed.moved[name], spent
        )
        cells = [f"{ratio(100 * part[k])} %" if part[k] == part[k] else "-" for k in part]
        each = f"{timed.cost.issue:g}"
        rows.append([name, seconds(spent), ratio(pairs / spent / 1e9), each, *cells])
    head = ["case", "seconds", "Gpairs/s", "instructions per pair", *gpu_limits.LIMITS]
    return table(head, rows)


def _reasons(reasons: Sequence[tuple[str, str, str]], asked: int) -> str:
    """What was left out and why; cases with the same peer and reason together."""
    by_why: dict[tuple[str, str], list[str]] = {}
    for case, peer, why in reasons:
        if why != gpu_peers.NO_METHOD:
            by_why.setdefault((peer or "all peers", why), []).append(case)
    return "\n".join(
        f"- {peer}, {why}: {', '.join(cases) if len(cases) < asked else 'every case'}"
        for (peer, why), cases in by_why.items()
    )


def main(arguments: Sequence[str]) -> int:
    """Measure, write or print the report; 1 where something is wrong."""
    options = parser().parse_args(arguments)
    note = without_llvmlite()
    with tempfile.TemporaryDirectory() as folder:
        for name in ("TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR"):
            os.environ.setdefault(name, str(Path(folder) / name.lower()))
        run = prepare(options, [note] if note else [])
        for part, work in (("correctness", check), ("calls", call), ("speed", time_cases)):
            if part in options.parts.split(","):
                work(run)
                run.write()
                say(f"{part}: {run.budget.spent:.0f} s in all")
    if not options.write:
        print(document(run))
    for wrong in run.wrong():
        say(f"wrong: {wrong}")
    return 1 if run.wrong() else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
