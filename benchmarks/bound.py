"""Inner loops against the machine: instructions, llvm-mca's bound, and measured cycles.

    python benchmarks/bound.py [--cases REGEX] [--llvm-mca PATH] [--size 8000]

A vector is one SIMD register of pairs; all figures are per vector of pairs. Every block of machine
code is counted while it runs, and weighed with its instructions. "Ports" is llvm-mca's reciprocal
throughput of the blocks over pairs, "steady" the cycles that their loops take when dependencies are
simulated too, "around" the throughput of everything else: packing, merging, writing results.
Measured cycles are the time of the whole reduction on one thread, the shortest of five runs, times
the clock, which a chain of dependent additions tells between them. "Where" names the blocks with
the most instructions and their share of all.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from benchmarks import blocks
from benchmarks.blocks import Block
from benchmarks.case import BEYOND, CALLS, REDUCED, Case
from benchmarks.cases import CASES
from benchmarks.peers.genred import GenredPeer
from benchmarks.tables import table

_STEPS = 64
_CHAIN = 200_000  # turns of the chain of additions: about 7 ms
_SMALL = 0.005  # blocks with a smaller share of all instructions are left out
_SHOWN = 0.1  # blocks with this share are named
# Functions of the machine code that are not loops over pairs.
_AROUND = (
    *("copy", "split", "transpose", "pack", "moderate", "reset", "put", "finish"),
    *("task", "one_task", "run", "combine"),
)


@dataclass(frozen=True)
class Bound:
    """One reduction: everything per vector of pairs, in cycles but for the instructions."""

    name: str
    width: int
    instructions: float
    ports: float | None
    steady: float | None
    around: float | None
    measured: float
    clock: float
    where: str

    @property
    def ratio(self) -> float | None:
        """Measured cycles over those of the ports."""
        return None if not self.ports else self.measured / self.ports


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


def mca(programs: Sequence[str], block: Block, cpu: str) -> tuple[float, float] | None:
    """(ports, steady) cycles of one run through a block; None where no program knows the CPU.

    Only loops have a steady state: of other blocks there are only the ports.
    """
    for program in programs:
        short = _mca_run(program, block.instructions, cpu, 100)
        if short is not None and not block.loop:
            return short[1], short[1]
        long = _mca_run(program, block.instructions, cpu, 300)
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
    case: Case,
    size: tuple[int, int],
    counted: Sequence[Block],
    clock: Callable[[], float],
    programs: Sequence[str],
) -> Bound:
    """Measure one case on one thread, and weigh the blocks that ran."""
    from pairfold import settings
    from pairfold.backends.llvm.machine import machine

    host = machine()
    work = GenredPeer("pairfold").prepare(case, case.arrays(0, *size))
    with settings(threads=1, separable="never"):
        work()
        seconds, hertz = _timed(work, clock)
    width = host.vector_bytes // np.dtype(case.dtype).itemsize
    vectors = size[0] * size[1] / width
    total = sum(block.count * len(block.instructions) for block in counted)
    hot = [b for b in counted if b.count * len(b.instructions) > _SMALL * total]
    cycles = {"ports": 0.0, "steady": 0.0, "around": 0.0}
    known = True
    for block in hot:
        found = mca(programs, block, host.cpu)
        if found is None:
            known = False
            break
        ports, steady = (block.count * value / vectors for value in found)
        if block.name.startswith(_AROUND):
            cycles["around"] += ports
        else:
            cycles["ports"] += ports
            cycles["steady"] += steady
    return Bound(
        case.name,
        width,
        total / vectors,
        cycles["ports"] if known and hot else None,
        cycles["steady"] if known and hot else None,
        cycles["around"] if known and hot else None,
        seconds * hertz / vectors,
        hertz,
        _where(counted, total),
    )


def _where(counted: Sequence[Block], total: int) -> str:
    """The blocks with the most instructions, by name, with their share."""
    shares: dict[str, float] = {}
    for block in counted:
        share = block.count * len(block.instructions) / total
        shares[block.name] = shares.get(block.name, 0) + share
    shown = sorted(shares.items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {share:.0%}" for name, share in shown if share >= _SHOWN)


def _timed(work: Callable[[], Any], clock: Callable[[], float]) -> tuple[float, float]:
    """The shortest time of some runs, and the fastest clock around them."""
    times, clocks = [], [clock()]
    for _ in range(5):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
        clocks.append(clock())
    return min(times), max(clocks)


def suitable(case: Case) -> bool:
    """Whether all pairs of the case are looked at, and in one way."""
    if case.group in (REDUCED, BEYOND, CALLS) or case.program in ("lazy", "sparse", "system"):
        return False
    return not in_sizes(case)


def in_sizes(case: Case) -> bool:
    """Whether another case differs from this in size alone."""
    return re.search(r"\.(1k|10k|100k)$", case.name) is not None


def text_table(bounds: Sequence[Bound]) -> str:
    """The bounds as a table."""

    def digits(value: float | None, places: int = 1) -> str:
        return "-" if value is None else f"{value:.{places}f}"

    rows = [
        [b.name, str(b.width), digits(b.instructions), f"{b.instructions / b.width:.2f}",
         digits(b.ports), digits(b.steady), digits(b.around), digits(b.measured),
         digits(b.ratio, 2), f"{b.clock / 1e9:.2f}", b.where]
        for b in bounds
    ]  # fmt: skip
    head = ["case", "pairs per vector", "instructions per vector", "per pair", "ports", "steady",
            "around", "measured", "measured / ports", "GHz", "where"]  # fmt: skip
    return table(head, rows)


def all_bounds(names: Sequence[str], size: int, program: str | None) -> list[Bound]:
    """The bounds of the suitable cases among `names`, at M = N = size or less."""
    clock, programs = make_clock(), find_mca(program)
    chosen = [CASES[name] for name in names if suitable(CASES[name])]
    counted = blocks.measure([case.name for case in chosen], size)
    return [
        bound(case, blocks.looked_at(case, size), counted[case.name], clock, programs)
        for case in chosen
        if case.name in counted
    ]


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
