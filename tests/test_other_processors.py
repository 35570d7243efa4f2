"""Machine code for processors that this one is not: read here, run by `make test-aarch64`."""

from __future__ import annotations

import dataclasses
import re
from typing import Any
from unittest import mock

import numpy as np
import pytest
from checks import assert_close, assert_same_bits

from pairfold.backends.llvm import launch, native
from pairfold.backends.llvm.explained import innermost_loop
from pairfold.backends.llvm.machine import machine, target_machine
from pairfold.backends.llvm.probe import write_probe
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
        with mock.patch.object(native, "write_probe"):  # LLVM reads assembly of this machine only
            text = str(native.write_module(launcher.kernel, plan))
            module = native.optimized(text, plan.machine)
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


@pytest.mark.parametrize(("dtype", "most"), [("float32", 34), ("float64", 45)])
def test_the_inner_loop_of_the_gaussian_stays_within_its_budget_on_aarch64(dtype, most) -> None:
    """Clamps are FMIN and FMAX, a sign is part of FMLS, few constants are copied."""
    code = assembly(GAUSSIAN, "cortex-a72", dtype, row_vectors=4)
    assert len(innermost_loop(code)) / 4 < most


def test_inverse_roots_are_estimates_made_precise_on_aarch64() -> None:
    aliases = ["x = Vi(3)", "y = Vj(3)", "b = Vj(1)"]
    for dtype in ("float32", "float64"):
        code = "\n".join(
            innermost_loop(
                assembly(Genred("Rsqrt(SqDist(x,y))*b", aliases, axis=1), "cortex-a72", dtype)
            )
        )
        assert "frsqrte" in code
        assert "fdiv" not in code
        assert "fsqrt" not in code


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_numbers_are_rounded_without_calls_where_there_is_no_instruction(dtype) -> None:
    rounding = Genred("Floor(x*y)", ["x = Vi(1)", "y = Vj(1)"], axis=1)
    unit = assembly(rounding, "x86-64", dtype).split("\ntile:")[1].split("\tret")[0]
    assert "addp" in unit
    assert "call" not in unit
    most = 2.0 ** (23 if dtype == "float32" else 52)
    x = np.array([0.0, 0.3, 0.5, 0.7, 1, 1.5, 2.5, 7.9, most / 2 + 0.5, most - 0.5, most, 1e30])
    x = np.concatenate([x, np.nextafter(x, 9e30), np.nextafter(x, -1), [np.inf, np.nan]])
    x = np.concatenate([x, -x]).astype(dtype)
    got = {}
    for name in ("Sum", "Max"):
        genred = Genred("Floor(x)*y", ["x = Vi(1)", "y = Vj(1)"], reduction_op=name, axis=1)
        with settings(target="baseline"):
            got[name] = genred(x[:, None], np.ones((1, 1), dtype))[:, 0]
    want = np.floor(x)
    assert_same_bits(got["Sum"], want)
    # A sum begins at 0, which has no sign; a maximum at -inf.
    assert (np.signbit(got["Max"]) == np.signbit(want))[~np.isnan(want)].all()


@pytest.mark.skipif(
    "avx2" not in machine().has, reason="the probe is that of x86; frames are small in SSE2"
)
def test_large_frames_are_probed_page_by_page_on_windows(monkeypatch) -> None:
    """The code for Windows calls `__chkstk`, which it has; here the same runs on request."""
    import llvmlite.binding as llvm

    llvm.initialize_native_asmparser()
    waves = "+".join(f"Sin({k}*(x|y))" for k in range(1, 60))
    x, y = (np.random.default_rng(5).normal(size=(n, 3)) for n in (70, 90))

    def genred() -> Genred:
        return Genred(waves, ["x = Vi(3)", "y = Vj(3)"], axis=1)

    with settings(block=48):
        want = genred()(x, y)
    sizes = []

    def probed(module: Any, triple: str) -> None:
        write_probe(module, "x86_64-pc-windows-msvc")
        for name, function in module.globals.items():
            if function.blocks and name != "__chkstk":
                function.attributes.add('"probe-stack"="__chkstk"')
        code = str(module)
        sizes.append(code.count('"probe-stack"'))

    monkeypatch.setattr(native, "write_probe", probed)
    with settings(block=56):
        fold = genred()
        assert_close(fold(x, y), want, terms=90 * 40)
        assert re.search(r"(call\w*\s+|\$)__chkstk", fold.explain(x, y).assembly())
    assert sizes[0] >= 3
    there = dataclasses.replace(machine(), triple="x86_64-pc-windows-msvc")
    plan = dataclasses.replace(fold.explain(x, y).plan, machine=there)
    monkeypatch.undo()
    module = native.write_module(fold._fold.launcher("float64", current()).kernel, plan)
    assert "@__chkstk(" in str(module)
    target_machine(there).emit_object(native.optimized(str(module), there))
