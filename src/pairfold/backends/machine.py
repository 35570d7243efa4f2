"""The CPU targets: what LLVM is told to compile for, and what plans need to know of it.

`native` is the CPU at hand; the narrower targets compile the same kernels with fewer features, so
that one machine can test them all. Nothing is looked up before the first kernel.
"""

from __future__ import annotations

import functools
from typing import Any

from ..errors import OptionError
from ..lower.schedule import Machine

_X86_LEVELS = {"avx512": ("x86-64-v4", 64, 32), "avx2": ("x86-64-v3", 32, 16)}
_LEVEL_HAS = {
    "avx512": {"avx512f", "avx512dq", "avx512vl", "avx512bw", "avx2", "fma", "sse4.1"},
    "avx2": {"avx2", "fma", "sse4.1"},
    "baseline": set[str](),
}


@functools.cache
def _llvm() -> Any:
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm


@functools.cache
def machine(target: str = "native") -> Machine:
    """The machine that kernels are compiled for.

    Raises:
        OptionError: for a target that this CPU cannot run.
    """
    llvm = _llvm()
    features = llvm.get_host_cpu_features()
    present = frozenset(name for name, on in features.items() if on)
    x86 = llvm.get_process_triple().split("-")[0] in ("x86_64", "amd64", "i686")
    if target == "native":
        if not x86:
            arm = frozenset({"neon", "fma"}) | present
            return Machine(target, llvm.get_host_cpu_name(), features.flatten(), arm, 16, 32)
        wide, registers = (64, 32) if "avx512f" in present else (32, 16)
        if "avx2" not in present:
            wide = 16
        cpu = llvm.get_host_cpu_name()
        return Machine(target, cpu, features.flatten(), present, wide, registers)
    if not x86 and target != "baseline":
        raise OptionError(f"target {target!r} needs an x86 processor", hint="target='native'")
    missing = _LEVEL_HAS[target] - present if x86 else set[str]()
    if missing:
        raise OptionError(
            f"this processor cannot run target {target!r}",
            found="missing " + ", ".join(sorted(missing)),
            hint="target='native'",
        )
    if target == "baseline":
        has = frozenset({"sse2"} if x86 else {"neon", "fma"})
        return Machine(target, "x86-64" if x86 else "generic", "", has, 16, 16 if x86 else 32)
    cpu, wide, registers = _X86_LEVELS[target]
    return Machine(target, cpu, "", frozenset(_LEVEL_HAS[target]), wide, registers)


@functools.cache
def target_machine(which: Machine) -> Any:
    """The LLVM target machine that code for one of ours is written with."""
    return new_target_machine(which)


def new_target_machine(which: Machine) -> Any:
    """An LLVM target machine of one's own: an execution engine takes it over."""
    llvm = _llvm()
    target = llvm.Target.from_triple(llvm.get_process_triple())
    return target.create_target_machine(cpu=which.cpu, features=which.features, opt=2, jit=True)
