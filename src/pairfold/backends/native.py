"""LLVM IR to callable machine code, compiled once per (kernel, plan) and kept with it."""

from __future__ import annotations

import ctypes
import logging
import time
from dataclasses import dataclass, field
from typing import Any

from ..core.locks import fork_safe_lock
from ..lower.kernel import Kernel
from ..lower.schedule import Plan
from .codegen import Layout, write_module
from .machine import target_machine

log = logging.getLogger("pairfold")

# LLVM's JIT and llvmlite's IR classes are not meant for several threads at once.
_compiling = fork_safe_lock()

_ENTRY = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)


@dataclass(eq=False)
class Native:
    """Machine code of one kernel under one plan; keeps the engine that owns the code alive."""

    kernel: Kernel
    plan: Plan
    layout: Layout
    run: Any
    combine: Any
    engine: Any
    seconds: float
    text: str = field(repr=False)

    def assembly(self) -> str:
        """The machine code as assembly text (compiled again for the purpose)."""
        with _compiling:
            return target_machine(self.plan.machine).emit_assembly(_optimized(self.text, self.plan))

    def llvm(self) -> str:
        """The LLVM IR after optimisation."""
        with _compiling:
            return str(_optimized(self.text, self.plan))


def _optimized(text: str, plan: Plan) -> Any:
    """Parse and clean up: the code generator already chose loops, lanes and unrolling."""
    import llvmlite.binding as llvm

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


def compile_kernel(kernel: Kernel, plan: Plan) -> Native:
    """Compile a kernel for the plan's machine."""
    import llvmlite.binding as llvm

    start = time.perf_counter()
    with _compiling:
        written, layout = write_module(kernel, plan)
        text = str(written)
        machine = target_machine(plan.machine)
        module = _optimized(text, plan)
        engine = llvm.create_mcjit_compiler(module, machine)
        engine.finalize_object()
        run = _ENTRY(engine.get_function_address("run"))
        combine = _ENTRY(engine.get_function_address("combine"))
    seconds = time.perf_counter() - start
    log.debug("compiled %s in %.1f ms", kernel.formula, 1e3 * seconds)
    return Native(kernel, plan, layout, run, combine, engine, seconds, text)
