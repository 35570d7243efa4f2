"""Inner loops against the machine: instructions, llvm-mca's bound, and measured cycles.

    python benchmarks/bound.py [--cases REGEX] [--llvm-mca PATH] [--size 8000]

A vector is one SIMD register of pairs. "Ports" is llvm-mca's reciprocal throughput of the innermost
loop, "steady" the cycles it takes when its dependencies are simulated too; measured cycles are the
time of the whole reduction on one thread times the clock, which a chain of dependent additions
tells just before and after.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.cases import CASES, DIMS, POINTS, SEED, Case
from benchmarks.report import table

_STEPS = 64
_CHAIN = 200_000  # turns of the chain of additions: about 7 ms


@dataclass(frozen=True)
class Bound:
    """One reduction: everything per vector of pairs, in cycles but for the instructions."""

    name: str
    width: int
    instructions: float
    ports: float | None
    steady: float | None
    measured: float
    clock: float


def chain_source(steps: int) -> str:
    """LLVM IR of a loop of 2 * steps operations, each of which waits for the one before."""
    body = [f"%x0 = phi i64 [%a, %entry], [%x{2 * steps}, %loop]"]
    for k in range(0, 2 * steps, 2):
        body += [f"%x{k + 1} = add i64 %x{k}, %a", f"%x{k + 2} = xor i64 %x{k + 1}, %b"]
    lines = "\n  ".join(body)
    return f"""
define i64 @chain(i64 %n, i64 %a, i64 %b) {{
entry:
  br label %loop
loop:
  %i = phi i64 [0, %entry], [%next, %loop]
  {lines}
  %next = add i64 %i, 1
  %more = icmp slt i64 %next, %n
  br i1 %more, label %loop, label %done
done:
  ret i64 %x{2 * steps}
}}"""


def make_clock() -> Callable[[], float]:
    """A function that measures the clock now, in Hz."""
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine(opt=1, jit=True)
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(chain_source(_STEPS)), machine)
    engine.finalize_object()
    kind = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * 3)
    chain = kind(engine.get_function_address("chain"))

    def clock(_keep: Any = engine) -> float:
        best = float("inf")
        for _ in range(3):
            start = time.perf_counter()
            chain(_CHAIN, 3, 5)
            best = min(best, time.perf_counter() - start)
        return 2 * _STEPS * _CHAIN / best

    return clock


def find_mca(given: str | None) -> list[str]:
    """llvm-mca programs, the given one, or those on PATH with the newest first."""
    if given:
        return [given]
    found = set[str]()
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        for path in Path(folder).glob("llvm-mca*") if folder else ():
            if re.fullmatch(r"llvm-mca(-\d+)?(\.exe)?", path.name) and shutil.which(str(path)):
                found.add(str(path))
    return sorted(found, key=_mca_version, reverse=True)


def _mca_version(program: str) -> int:
    done = subprocess.run([program, "--version"], capture_output=True, text=True)
    version = re.search(r"version (\d+)", done.stdout)
    return int(version.group(1)) if version else 0


def mca(programs: Sequence[str], loop: Sequence[str], cpu: str) -> tuple[float, float] | None:
    """(ports, steady) cycles of one run through a loop; None where no program knows the CPU."""
    for program in programs:
        short, long = (_mca_run(program, loop, cpu, times) for times in (100, 300))
        if short is not None and long is not None:
            return long[1], (long[0] - short[0]) / 200
    return None


def _mca_run(program: str, loop: Sequence[str], cpu: str, times: int) -> tuple[float, float] | None:
    command = [program, f"-mcpu={cpu}", f"-iterations={times}", "-resource-pressure=false",
               "-instruction-info=false"]  # fmt: skip
    text = "\n".join(loop) + "\n"
    done = subprocess.run(command, input=text, capture_output=True, text=True)
    cycles = re.search(r"Total Cycles:\s+(\d+)", done.stdout)
    ports = re.search(r"Block RThroughput:\s+([\d.]+)", done.stdout)
    if done.returncode or cycles is None or ports is None or "not a recognized" in done.stderr:
        return None
    return float(cycles.group(1)), float(ports.group(1))


def bound(
    case: Case, size: tuple[int, int], clock: Callable[[], float], programs: Sequence[str]
) -> Bound:
    """Measure one case on one thread, and read its inner loop."""
    from pairfold import settings
    from pairfold.numpy import Genred

    arrays = case.arrays(0, *size)
    args = [arrays[name] for name in case.variables]
    fold = Genred(case.formula, list(case.aliases), axis=case.axis)
    with settings(threads=1, rules=case.rules):
        fold(*args)
        explanation = fold.explain(*args)
        seconds, hertz = _timed(lambda: fold(*args), clock)
    plan = explanation.plan
    per_vector = case.passes / (plan.vectors * plan.jam)
    found = mca(programs, explanation.inner_loop(), plan.machine.cpu)
    ports, steady = (None, None) if found is None else found
    return Bound(
        case.name,
        plan.width,
        explanation.instructions_per_vector() * case.passes,
        None if ports is None else ports * per_vector,
        None if steady is None else steady * per_vector,
        seconds * hertz / (size[0] * size[1] / plan.width),
        hertz,
    )


def _timed(work: Callable[[], Any], clock: Callable[[], float]) -> tuple[float, float]:
    """The median time of five runs, and the clock around the run that had that time."""
    runs: list[tuple[float, float]] = []
    for _ in range(5):
        before = clock()
        start = time.perf_counter()
        work()
        seconds = time.perf_counter() - start
        runs.append((seconds, (before + clock()) / 2))
    middle = statistics.median_low([seconds for seconds, _ in runs])
    return next(run for run in runs if run[0] == middle)


def suitable(case: Case) -> bool:
    """Whether one innermost loop does nearly all the work of the case."""
    one_loop = case.dims.get("b", 1) <= 16
    return case.front == "numpy" and case.group in (SEED, POINTS, DIMS) and one_loop


def text_table(bounds: Sequence[Bound]) -> str:
    """The bounds as a table."""

    def digits(value: float | None) -> str:
        return "-" if value is None else f"{value:.1f}"

    rows = [
        [b.name, str(b.width), digits(b.instructions), f"{b.instructions / b.width:.2f}",
         digits(b.ports), digits(b.steady), digits(b.measured),
         "-" if b.ports is None else f"{b.measured / b.ports:.2f}", f"{b.clock / 1e9:.2f}"]
        for b in bounds
    ]  # fmt: skip
    head = ["case", "pairs per vector", "instructions per vector", "per pair", "ports", "steady",
            "measured", "measured / ports", "GHz"]  # fmt: skip
    return table(head, rows)


def all_bounds(names: Sequence[str], size: int, program: str | None) -> list[Bound]:
    """The bounds of the suitable cases among `names`, at M = N = size or less."""
    clock, programs = make_clock(), find_mca(program)
    found: list[Bound] = []
    for name in names:
        case = CASES[name]
        if suitable(case):
            found.append(bound(case, (min(size, case.rows), min(size, case.columns)), clock,
                               programs))  # fmt: skip
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--cases", default="", help="a regular expression")
    parser.add_argument("--llvm-mca", help="the program; default: the newest on PATH")
    parser.add_argument("--size", type=int, default=8000, help="M and N, at most")
    options = parser.parse_args()
    names = [name for name in CASES if re.search(options.cases, name)]
    print(text_table(all_bounds(names, options.size, options.llvm_mca)))


if __name__ == "__main__":
    main()
