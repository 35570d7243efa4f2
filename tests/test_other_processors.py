"""Machine code for processors that this one is not: read here, run by `make test-aarch64`."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from checks import assert_same_bits

from pairfold.backends import launch
from pairfold.backends.machine import machine, target_machine
from pairfold.backends.native import optimized, write_module
from pairfold.frontends.explain import innermost_loop
from pairfold.lower.schedule import Machine, make_plan
from pairfold.numpy import Genred
from pairfold.settings import current, settings

_LINUX = "aarch64-unknown-linux-gnu"
GAUSSIAN = Genred("Exp(-SqDist(x,y))*b", ["x = Vi(3)", "y = Vj(3)", "b = Vj(1)"], axis=1)
MACHINES = {
    "cortex-a72": Machine("native", "cortex-a72", "", frozenset({"neon", "fma"}), 16, 32, _LINUX),
    "neoverse-n1": Machine(
        "native", "neoverse-n1", "", frozenset({"neon", "fma", "dotprod"}), 16, 32, _LINUX
    ),
    "x86-64": Machine("baseline", "x86-64", "", frozenset({"sse2"}), 16, 16, "x86_64-linux-gnu"),
}


@pytest.fixture(autouse=True, scope="module")
def every_target() -> None:
    import llvmlite.binding as llvm

    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()


def assembly(
    genred: Genred, which: str, dtype: str = "float32", system: str = "", **options: Any
) -> str:
    """The machine code of a reduction there."""
    there = MACHINES[which]
    there = dataclasses.replace(there, triple=system or there.triple)
    with settings(target="native", **options):
        launcher = genred._fold.launcher(dtype, current())
        plan = make_plan(launcher.kernel, there, dtype, launcher.accumulation, current())
        module = optimized(str(write_module(launcher.kernel, plan)), plan)
    return target_machine(plan.machine).emit_assembly(module)


def search(dim: int, name: str = "Min_ArgMin", **options: Any) -> Genred:
    aliases = [f"x = Vi({dim})", f"y = Vj({dim})"]
    return Genred("SqDist(x, y)", aliases, reduction_op=name, axis=1, **options)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("which", "instructions"), [("cortex-a72", ("smull", "sadalp")), ("neoverse-n1", ("sdot",))]
)
def test_bounds_of_distances_are_products_of_bytes_on_aarch64(which, instructions, dtype) -> None:
    code = assembly(search(40), which, dtype)
    for name in instructions:
        assert f"\t{name}\t" in code
    assert "\tsdot\t" in code or which == "cortex-a72"
    assert instructions[0] not in assembly(search(40), which, dtype, screen="never")


def test_bounds_are_computed_on_request_whatever_the_processor_multiplies(monkeypatch) -> None:
    here = machine("baseline")
    plain = Machine("baseline", here.cpu, "", frozenset(), 16, 16)
    monkeypatch.setattr(launch, "machine", lambda target: plain)
    rng = np.random.default_rng(4)
    for dtype in ("float32", "float64"):
        x, y = (rng.normal(size=(n, 37)).astype(dtype) for n in (61, 300))
        got = {}
        for screen in ("always", "never"):
            with settings(screen=screen, block=64):
                fold = search(37)
                assert (fold.explain(x, y).plan.screen is None) == (screen == "never")
                assert fold.explain(x, y).plan.machine == plain
                got[screen] = fold(x, y)
        for a, b in zip(got["always"], got["never"], strict=True):
            assert_same_bits(a, b)
    with settings(block=64):
        assert search(37).explain(x, y).plan.screen is None


SYSTEMS = {
    "cortex-a72": (_LINUX, "arm64-apple-macosx", "aarch64-pc-windows-msvc"),
    "x86-64": ("x86_64-unknown-linux-gnu", "x86_64-apple-macosx", "x86_64-pc-windows-msvc"),
}


@pytest.mark.parametrize("which", SYSTEMS)
def test_the_inner_loop_is_found_in_the_assembly_of_every_system(which) -> None:
    sizes = set()
    for system in SYSTEMS[which]:
        loop = innermost_loop(assembly(GAUSSIAN, which, system=system, row_vectors=1))
        assert not [line for line in loop if "//" in line or line.startswith(("#", ";"))]
        # Three differences, their squares, an exponential of 11 operations, a product.
        sizes.add(len(loop))
    assert max(sizes) - min(sizes) <= 3
    assert min(sizes) > 20
