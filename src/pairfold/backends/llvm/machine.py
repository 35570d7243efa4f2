"""The CPU targets: what LLVM is told to compile for, and what plans need to know of it.

`native` is the CPU at hand; the narrower targets compile the same kernels with fewer features, so
that one machine can test them all. Nothing is looked up before the first kernel.
"""

from __future__ import annotations

import ctypes
import functools
import sys
from types import ModuleType
from typing import TYPE_CHECKING

from ...core.cache import cached
from ...core.uninterrupted import uninterrupted
from ...errors import OptionError, UnsupportedError
from ...lower.schedule import Machine

if TYPE_CHECKING:
    import llvmlite.binding as llvm

_X86_LEVELS = {"avx512": ("x86-64-v4", 64, 32), "avx2": ("x86-64-v3", 32, 16)}
_LEVEL_HAS = {
    "avx512": {"avx512f", "avx512dq", "avx512vl", "avx512bw", "avx2", "fma", "sse4.1"},
    "avx2": {"avx2", "fma", "sse4.1"},
    "baseline": set[str](),
}
_X86, _AARCH64 = ("x86_64", "amd64"), ("aarch64", "arm64")
# Every AArch64 processor has these, and every one of a Mac those. Elsewhere Linux says in words of
# bits (word, bit) what a processor has; LLVM knows it from a file that need not be there.
_ALL_AARCH64, _ALL_MACS = frozenset({"neon", "fma"}), frozenset({"dotprod", "lse"})
_LINUX_WORDS = {"lse": (16, 8), "dotprod": (16, 20), "sve": (16, 22), "sve2": (26, 1)}


@functools.cache
def _llvm() -> ModuleType:
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    if sys.platform == "win32":
        llvm.initialize_native_asmparser()  # of the stack probe
    return llvm


@cached("processors", 16)
def machine(target: str = "native") -> Machine:
    """The machine that kernels are compiled for.

    Raises:
        OptionError: for a target that this CPU cannot run.
        UnsupportedError: in a process of 32 bits, whose addresses are not as long as our words.
    """
    bits = 8 * ctypes.sizeof(ctypes.c_void_p)
    if bits != 64:
        raise UnsupportedError(
            "pairfold compiles for 64 bits only",
            found=f"a Python of {bits} bits",
            hint="a Python of 64 bits, which every processor since 2005 runs",
        )
    return uninterrupted(lambda: _machine(target))


def _machine(target: str) -> Machine:
    llvm = _llvm()
    features = llvm.get_host_cpu_features()
    present = frozenset(name for name, on in features.items() if on)
    family = llvm.get_process_triple().split("-")[0]
    if family not in _X86:
        return _other(target, family, features.flatten(), present)
    if target == "native":
        wide, registers = (64, 32) if "avx512f" in present else (32, 16)
        if "avx2" not in present:
            wide = 16
        cpu = llvm.get_host_cpu_name()
        return Machine(target, cpu, features.flatten(), present, wide, registers)
    missing = _LEVEL_HAS[target] - present
    if missing:
        raise OptionError(
            f"this processor cannot run target {target!r}",
            found="missing " + ", ".join(sorted(missing)),
            hint="target='native'",
        )
    if target == "baseline":
        return Machine(target, "x86-64", "", frozenset({"sse2"}), 16, 16)
    cpu, wide, registers = _X86_LEVELS[target]
    return Machine(target, cpu, "", frozenset(_LEVEL_HAS[target]), wide, registers)


def _other(target: str, family: str, features: str, present: frozenset[str]) -> Machine:
    """A machine that is not x86. Of one that is not AArch64, only what LLVM says is used."""
    if target not in ("native", "baseline"):
        raise OptionError(
            f"target {target!r} needs an x86 processor",
            found=family,
            hint="target='native'",
        )
    arm = family in _AARCH64
    if target == "baseline":
        return Machine(target, "generic", "", _ALL_AARCH64 if arm else frozenset(), 16, 32)
    cpu = _llvm().get_host_cpu_name()
    if not arm:
        return Machine(target, cpu, features, present, 16, 32)
    told = _told()
    features = ",".join([*filter(None, [features]), *(f"+{name}" for name in sorted(told))])
    return Machine(target, cpu, features, _ALL_AARCH64 | present | told, 16, 32)


def _told() -> frozenset[str]:
    """What the system says of an AArch64 processor."""
    if sys.platform == "darwin":
        return _ALL_MACS
    if sys.platform != "linux":
        return frozenset()
    read = ctypes.CDLL(None).getauxval
    read.restype, read.argtypes = ctypes.c_ulong, [ctypes.c_ulong]
    return frozenset(name for name, (word, bit) in _LINUX_WORDS.items() if read(word) >> bit & 1)


@functools.cache
def target_machine(which: Machine, opt: int = 2) -> llvm.TargetMachine:
    """The LLVM target machine that code for one of ours is written with; 0: not optimised."""
    return new_target_machine(which, opt)


def new_target_machine(which: Machine, opt: int = 2) -> llvm.TargetMachine:
    """An LLVM target machine of one's own: an execution engine takes it over."""
    binding = _llvm()
    target = binding.Target.from_triple(which.triple or binding.get_process_triple())
    return target.create_target_machine(cpu=which.cpu, features=which.features, opt=opt, jit=True)
