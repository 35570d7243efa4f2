"""Compiles the kernels of the GPU benchmark for GPUs that need not be there; prints what it found.

A process of its own, because Triton decides at its import whether it compiles or interprets.
One line of JSON per kernel and GPU: its tile, instructions per pair, spills.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.gpu_cases import TIMED
from pairfold.backends.chosen import TRITON
from pairfold.backends.gpu.compiled import Program
from pairfold.frontends.fused import Several
from pairfold.frontends.reduction import FormulaReduction
from pairfold.lower.tiling import threads_hold
from pairfold.ops.differentiation import Composition
from pairfold.settings import current
from pairfold.torch import Genred

ROWS = 100_000
TARGETS = ("sm_80", "sm_90", "gfx942")


def folds() -> Iterator[tuple[str, FormulaReduction, str]]:
    """Name, fold and dtype of every kernel that the benchmark runs, each once."""
    seen: set[Any] = set()
    for timed in TIMED.values():
        case = timed.case
        given = {"reduction_op": case.reduction_op, "axis": case.axis, "opt_arg": case.opt_arg}
        fold = Genred(case.formula, list(case.aliases), formula2=case.formula2, **given)._fold
        found = {"": fold}
        how = fold.row.differentiated
        if case.wrt and isinstance(how, Composition):  # what runs where gradients are asked for
            fold = fold.variant(how.parts[0])
            found = {"": fold}
        names = [alias.split("=")[0].strip() for alias in case.aliases]
        found |= {f".{name}": fold.pull_back(names.index(name)) for name in case.wrt}
        for suffix, each in found.items():
            key = (each.formula, each.weight, each.reduction, each.kept, each.length, case.dtype)
            if key not in seen:
                seen.add(key)
                yield timed.case.name.rpartition(".")[0] + suffix, each, case.dtype

    yield "together", together(), "float32"
    yield "masked", masked(), "float32"


def together() -> FormulaReduction:
    """Reductions of every form in one pass."""
    aliases, distance = ["x = Vi(3)", "y = Vj(3)", "b = Vj(2)"], "SqDist(x,y)"
    asked: list[tuple[str, str, dict[str, Any]]] = [
        (distance, "ArgKMin", {"opt_arg": 5}),
        (f"Exp(-{distance})*b", "Sum", {}),
        (distance, "KMin", {"opt_arg": 2}),
        (f"-{distance}", "LogSumExp", {}),
        (f"-{distance}", "SumSoftMaxWeight", {"formula2": "b"}),
        (distance, "Max_ArgMax", {}),
        (f"-2*{distance}", "SumSoftMaxWeight", {"formula2": "y"}),
    ]
    return Several([Genred(f, aliases, name, axis=1, **more)._fold for f, name, more in asked])


def masked() -> FormulaReduction:
    """Attention to what is at most so far back."""
    aliases, mask = ["x = Vi(64)", "y = Vj(64)", "v = Vj(64)"], "Abs(2*(Ind(i)-Ind(j))-500) <= 500"
    how: dict[str, Any] = {"formula2": "v", "where": mask}
    return Genred("(x|y)", aliases, "SumSoftMaxWeight", axis=1, **how)._fold


def programs(fold: FormulaReduction, dtype: str) -> tuple[Program, Program | None]:
    """What runs for many rows, and what follows it where data are refused."""
    options = current()
    launcher = fold.launcher(dtype, options, TRITON)
    return launcher.programs(launcher.alternatives(ROWS, options)[0])


def measured(program: Program, target: str) -> dict[str, Any]:
    """What machine code says: spills, and the shortest way through the main loop, per pair."""
    code = program.compiled(target)
    pairs = threads_hold(program.tiling)[0]
    return {
        "tile": program.tiling.name,
        "spills": code.spills(),
        # Instructions of GCN are for 64 lanes, some for two numbers of each: another measure.
        "per_pair": code.turn(code.main_loop()) / pairs if target.startswith("sm_") else None,
        "seconds": code.seconds,
    }


def main() -> None:
    """All kernels for all GPUs (`make gpu-code`), or those that words kernel:GPU name."""
    wanted = sys.argv[1:]
    for name, fold, dtype in folds():
        targets = [each for each in TARGETS if not wanted or f"{name}:{each}" in wanted]
        if not targets:
            continue
        for number, program in enumerate(programs(fold, dtype)):
            if program is None:
                continue
            for target in {"sm_90"}.intersection(targets) if number else targets:
                found = {"kernel": name + ".literal" * number, "target": target}
                try:
                    found |= measured(program, target)
                except Exception as error:
                    found["error"] = f"{type(error).__name__}: {error}"[:300]
                print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
