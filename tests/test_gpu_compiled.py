"""The benchmark's kernels as machine code of GPUs that are not here: no spills, few instructions.

Budgets are instructions per pair of the main loop, on the shortest way through it: what compiled
code had when they were set, and a little more. The Gaussian of 3 dimensions has nine arithmetic
instructions; the loop, addresses and loads share the rest.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("triton", "3.9", reason="Triton 3.9 is not installed: pip install triton")
pytest.importorskip("torch", reason="programs for GPUs run on torch's tensors")

from gpu_code import TARGETS
from products import some

TESTS = Path(__file__).parent

# On sm_90. Those of many components: a turn of the loop over blocks, with the first 16 components.
BUDGETS = {
    "gaussian": 10,
    "gaussian.backward.x": 13.5,
    "gaussian.backward.y": 13.5,
    "gaussian.backward.b": 10,
    "gaussian.float16": 10,
    "gaussian.bfloat16": 10,
    "gaussian.float64": 42,
    "gaussian.dim10": 27,
    "gaussian.dim64": 46,
    "gaussian.dim100": 46,
    "gaussian.dim64.backward.b": 46,
    "logsumexp": 17,
    "logsumexp.backward.x": 16,
    "logsumexp.backward.y": 17,
    "knn.dim3.k10": 14,
    "knn.dim64.k10": 46,
    "seed": 6,
    "seed.backward.y": 6,
    "attention": 145,
}


# One kernel of each kind, which are compiled for every GPU, those with a budget for sm_90.
EVERYWHERE = (
    "gaussian", "gaussian.float64", "gaussian.dim64", "gaussian.dim64.backward.x", "logsumexp",
    "attention", "knn.dim3.k10", "knn.dim64.k10", "together", "masked",
)  # fmt: skip
# By default, for sm_90: a kernel whose arithmetic is counted by hand; one that makes assumptions,
# and what follows it; one with products of components, and lists; one with products of matrices.
# For the other GPUs: all forms of reductions in one program; other numbers.
BRIEF = ("gaussian", "logsumexp.backward.x", "knn.dim64.k10", "attention")
BRIEFLY = ("masked:sm_80", "together:sm_80", "together:gfx942", "gaussian.float64:gfx942")


@pytest.fixture(scope="module")
def wanted(request: pytest.FixtureRequest) -> set[str]:
    """The kernels that are compiled, and for which GPU."""
    brief = request.config.option.markexpr == "not product"
    budgets = {f"{kernel}:sm_90" for kernel in (BRIEF if brief else BUDGETS)}
    every = (f"{kernel}:{target}" for kernel in EVERYWHERE for target in TARGETS)
    return budgets.union(BRIEFLY if brief else every)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory, wanted: set[str]) -> list[dict[str, Any]]:
    """What the compiler made of every kernel for every GPU, from a process of its own."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path_factory.mktemp("triton"))
    done = subprocess.run(
        [sys.executable, str(TESTS / "gpu_code.py"), *sorted(wanted)],
        env=environment, capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_every_kernel_compiles_for_every_gpu(found: list[dict[str, Any]], wanted: set[str]) -> None:
    assert not [each for each in found if "error" in each]
    compiled = {f"{each['kernel']}:{each['target']}" for each in found}
    assert {each for each in compiled if ".literal:" not in each} == wanted
    assert "logsumexp.backward.x.literal:sm_90" in compiled


def test_no_kernel_spills_registers(found: list[dict[str, Any]]) -> None:
    assert not [(e["kernel"], e["target"], e["tile"], e["spills"]) for e in found if e["spills"]]


@some("kernel", list(BUDGETS), lambda kernel: kernel in BRIEF)
def test_inner_loops_stay_within_their_budget(kernel: str, found: list[dict[str, Any]]) -> None:
    (code,) = [e for e in found if e["kernel"] == kernel and e["target"] == "sm_90"]
    assert 1 < code["per_pair"] <= BUDGETS[kernel]


def test_spills_and_instructions_are_seen() -> None:
    """The reader of disassembly, on code that is known."""
    from pairfold.backends.gpu.compiled import Compiled

    class Made:
        asm = {
            "sass": "Function:f\n"
            "--:-\tMOV R0, RZ;\n"
            "LBB0:\n"
            "--:-\tFADD R1, R1, R2;\n"
            "--:-\tSTL [R1], R2;\n"
            "LBB1:\n"
            "--:-\tFMUL R3, R3, R3;\n"
            "--:-\t@P0 BRA LBB2;\n"
            "--:-\tFFMA R3, R3, R3, R3;\n"
            "--:-\tFFMA R3, R3, R3, R3;\n"
            "LBB2:\n"
            "--:-\t@P1 BRA LBB1;\n"
            "--:-\t@P2 BRA LBB0;\n"
            "--:-\tEXIT;\n"
        }

    code = Compiled("sm_90", Made(), 0.0)
    assert code.loops() == [(1, 8), (3, 7)]
    assert code.main_loop() == (3, 7)
    assert code.turn((3, 7)) == 3
    assert code.turn((1, 8)) == 6
    assert code.spills() == 1
