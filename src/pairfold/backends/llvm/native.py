"""LLVM IR to callable machine code, compiled once per (kernel, plan) and kept with it."""

from __future__ import annotations

import atexit
import ctypes
import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

import llvmlite.binding as llvm

from ...core.locks import fork_safe_lock, hold_across_forks
from ...core.uninterrupted import uninterrupted
from ...lower.kernel import Kernel
from ...lower.schedule import Plan
from .machine import new_target_machine, target_machine
from .probe import write_probe
from .program import write
from .scratch import Layout

log = logging.getLogger("pairfold")

_T = TypeVar("_T")
# Seconds that the end of the program waits for LLVM, at most.
_PATIENCE = 10.0

# llvmlite's own lock nests inside ours, so it is registered first. (A callback of the public
# `register_lock_callback` would run after the lock is taken: a fork could come between.)
_llvm_lock = llvm.ffi.lib._lock._lock  # pyright: ignore[reportPrivateUsage]
hold_across_forks(_llvm_lock.acquire, _llvm_lock.release)

# LLVM's JIT and llvmlite's IR classes are not meant for several threads at once. The lock is taken
# in threads that nobody interrupts.
_compiling = fork_safe_lock()

# Engines that nobody needs: they are freed by the next of these threads.
_unused: deque[Any] = deque()

_ENTRY = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)


def _finish() -> None:
    """Let a compilation end that its caller has left: LLVM must not be unloaded before."""
    if _compiling.acquire(timeout=_PATIENCE):
        _compiling.release()


atexit.register(_finish)


def _without_interrupts(work: Callable[[], _T]) -> _T:
    """What `work` returns, from a thread that nobody interrupts and that compiles alone."""

    def alone() -> _T:
        with _compiling:
            _unused.clear()
            return work()

    return uninterrupted(alone)


def native(cache: dict[Plan, Native], kernel: Kernel, plan: Plan) -> Native:
    """The machine code for a plan, compiled unless it is in the cache, and kept there."""

    def found_or_compiled() -> Native:
        found = cache.get(plan)  # another thread may have compiled it meanwhile
        if found is None:
            found = cache[plan] = Native(kernel, plan)
        return found

    return _without_interrupts(found_or_compiled)


class _Engine:
    """Keeps LLVM's engine, and hands it on to be freed."""

    def __init__(self, engine: Any) -> None:
        self.engine, self.unused = engine, _unused

    def __del__(self) -> None:
        self.unused.append(self.engine)


class Native:
    """Machine code of one kernel under one plan.

    `run` does tasks; `combine`, which merges a split reduced axis, is compiled when first used,
    unless the module of `run` has it.
    The engines that own the code live as long as this object, which `native` makes.
    """

    def __init__(self, kernel: Kernel, plan: Plan) -> None:
        start = time.perf_counter()
        self.kernel, self.plan = kernel, plan
        self.layout = Layout(kernel, plan)
        self.run, self._engine = _compiled(kernel, plan, "run")
        self._combine: Any = None
        self.seconds = time.perf_counter() - start
        log.debug("compiled %s in %.1f ms", kernel.formula, 1e3 * self.seconds)

    @property
    def combine(self) -> Any:
        """The entry point that merges splits."""
        found = self._combine or _without_interrupts(self._add_combine)
        return found[0]

    def _add_combine(self) -> Any:
        if self._combine is None and self.kernel.pieces:
            self._combine = _entry(self._engine, "combine"), self._engine
        elif self._combine is None:
            self._combine = _compiled(self.kernel, self.plan, "combine")
        return self._combine

    def assembly(self) -> str:
        """The machine code of `run` as assembly text (compiled again for the purpose)."""

        def text() -> str:
            module = optimized(str(write_module(self.kernel, self.plan)), self.plan)
            return target_machine(self.plan.machine).emit_assembly(module)

        return _without_interrupts(text)

    def llvm(self) -> str:
        """The LLVM IR of `run` after optimisation."""
        return _without_interrupts(
            lambda: str(optimized(str(write_module(self.kernel, self.plan)), self.plan))
        )


def write_module(kernel: Kernel, plan: Plan, entry: str = "run") -> Any:
    """The LLVM module of a kernel under a plan, with one entry point."""
    module = write(kernel, plan, entry)
    write_probe(module, target_machine(plan.machine).triple)
    return module


def _compiled(kernel: Kernel, plan: Plan, entry: str) -> tuple[Any, _Engine]:
    """An entry point as a C function, and the engine that owns its code."""
    module = optimized(str(write_module(kernel, plan, entry)), plan)
    code = llvm.ObjectFileRef.from_data(target_machine(plan.machine).emit_object(module))
    # An engine that is given the object, not the module, keeps the code alone: 65 kB, not 900.
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), new_target_machine(plan.machine))
    engine.add_object_file(code)
    engine.finalize_object()
    owner = _Engine(engine)
    return _entry(owner, entry), owner


def _entry(owner: _Engine, name: str) -> Any:
    return _ENTRY(owner.engine.get_function_address(name))


def optimized(text: str, plan: Plan) -> Any:
    """Parse and clean up: the code generator already chose loops, lanes and unrolling."""
    machine = target_machine(plan.machine)
    module = llvm.parse_assembly(text)
    module.triple = machine.triple
    module.data_layout = str(machine.target_data)
    options = llvm.create_pipeline_tuning_options(speed_level=2)
    builder = llvm.create_pass_builder(machine, options)
    passes = llvm.create_new_module_pass_manager()
    passes.add_instruction_combine_pass()
    passes.add_new_gvn_pass()
    passes.add_simplify_cfg_pass()
    passes.run(module, builder)
    return module
