"""LLVM IR to callable machine code, compiled once per (kernel, plan), and again where it is gone.

Machine code is in caches that are bounded by its bytes. What runs is a C function that owns the
engine with its code: that of a call that runs stays until the call is over, whatever the caches do.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, NamedTuple, TypeVar, cast

import llvmlite.binding as llvm

from ...core.cache import Cache, Limit
from ...core.locks import fork_safe_lock, hold_across_forks
from ...core.uninterrupted import uninterrupted
from ...lower.kernel import COLUMN, ONCE, ROW, Kernel
from ...lower.schedule import Machine, Plan
from . import ir
from .abi import FILL_WORDS
from .empty import empty_states
from .machine import new_target_machine, target_machine
from .packing import packing_list
from .pairs import pair_list
from .probe import write_probe
from .program import Program, write
from .runtime import RuntimeFunction, shared_module
from .scratch import Layout

if TYPE_CHECKING:
    from .pool import Entry
    from .xla_target import XlaTarget

_T = TypeVar("_T")
# Seconds that the end of the program waits for LLVM, at most.
_PATIENCE = 10.0

# llvmlite's own lock nests inside ours, so it is registered first. (A callback of the public
# `register_lock_callback` would run after the lock is taken: a fork could come between.)
_llvm_lock = llvm.ffi.lib._lock._lock  # pyright: ignore[reportPrivateUsage]
hold_across_forks(_llvm_lock.acquire, _llvm_lock.release)

# LLVM's JIT and llvmlite's binding are not meant for several threads at once. The lock is taken
# in threads that nobody interrupts.
_compiling = fork_safe_lock()

# Engines that nobody needs: they are freed by the next of these threads.
_unused: deque[llvm.ExecutionEngine] = deque()

# An engine has, beside its code, tables and pages that are not full.
_ENGINE_BYTES = 48 * 1024

_ENTRY = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)


def _finish() -> None:
    """Let a compilation end that its caller has left: LLVM must not be unloaded before."""
    if _compiling.acquire(timeout=_PATIENCE):
        _compiling.release()


atexit.register(_finish)


def without_interrupts(work: Callable[[], _T]) -> _T:
    """What `work` returns, from a thread that nobody interrupts and that compiles alone."""

    def alone() -> _T:
        try:
            return work()
        finally:
            _unused.clear()

    return uninterrupted(alone, _compiling)


def _free_unused() -> None:
    """Free engines, and give their memory back to the system where the C library keeps it."""
    without_interrupts(lambda: None)
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
        if trim is not None:
            trim(0)


_CODE = Limit("machine code", 1024, 64 * 2**20, _free_unused)
_shared: Cache[bytes] = Cache(Limit("shared machine code", 256))


def _log(text: str, *values: object) -> None:
    """A message for those who debug; nobody listens where nobody has imported the module for it."""
    logging = sys.modules.get("logging")
    if logging is not None:
        logging.getLogger("pairfold").debug(text, *values)


class Engine:
    """Keeps LLVM's engine, and hands it on to be freed."""

    def __init__(self, engine: llvm.ExecutionEngine) -> None:
        self.engine, self.unused = engine, _unused

    def __del__(self) -> None:
        self.unused.append(self.engine)

    def address(self, name: str) -> int:
        """Where a function is."""
        return self.engine.get_function_address(name)


class Native:
    """Machine code of one kernel under one plan, compiled when it is first used.

    `run` does tasks; `combine` merges a split reduced axis. Both are C functions; hold on to one
    for as long as it runs. `words` are what drivers are told, from `abi.BLOCK` on; they refer to
    `lists`, memory of this object.
    """

    def __init__(self, kernel: Kernel, plan: Plan) -> None:
        self.kernel, self.plan = kernel, plan
        self.layout = Layout(kernel, plan)
        lists = [packing_list(kernel, plan, stage) for stage in (ONCE, ROW, COLUMN)]
        self.lists = [(ctypes.c_int64 * len(each))(*each) for each in lists]
        self.words = self.layout.words(plan)
        self.words += map(ctypes.addressof, self.lists)
        fills = empty_states(kernel, plan, self.layout)
        self.lists.append((ctypes.c_int64 * len(fills))(*fills))
        self.words.append(len(kernel.results) + len(kernel.arguments))
        self.words += ctypes.addressof(self.lists[-1]), len(fills) // FILL_WORDS
        pairs = pair_list(kernel, plan)
        self.lists.append((ctypes.c_int64 * len(pairs))(*pairs))
        self.words += self.layout.offset.get("pairs", 0), ctypes.addressof(self.lists[-1])
        self._code: Cache[Entry] = Cache(_CODE)
        self._seconds = 0.0
        # What XLA calls, and whether that may bail out: see `xla_target`.
        self.targets: dict[object, XlaTarget] = {}
        self.bails_out: dict[bool, bool] = {}

    @property
    def run(self) -> Entry:
        """The entry point that does tasks."""
        found = self._code.get("run")
        return self._compiled("run") if found is None else found

    @property
    def together(self) -> bool:
        """Whether one module has both entry points: each call needs both."""
        return self.kernel.fused or self.plan.pruned

    @property
    def combine(self) -> Entry:
        """The entry point that merges splits."""
        if self.together:
            return self.run.combine
        found = self._code.get("combine")
        return self._compiled("combine") if found is None else found

    @property
    def seconds(self) -> float:
        """How long it took to compile `run`."""
        if not self._seconds:
            self._compiled("run")
        return self._seconds

    def _compiled(self, entry: str) -> Entry:
        def found_or_compiled() -> Entry:
            found = self._code.peek(entry)  # another thread may have compiled it meanwhile
            return self._add(entry) if found is None else found

        return without_interrupts(found_or_compiled)

    def _add(self, entry: str) -> Entry:
        start = time.perf_counter()
        owner, size = _compiled(self.kernel, self.plan, entry)
        found = entry_of(owner, entry)
        if self.together:
            found.combine = entry_of(owner, "combine")
        if entry == "run":
            self._seconds = time.perf_counter() - start
            _log("compiled %s in %.1f ms", self.kernel, 1e3 * self._seconds)
        return self._code.put(entry, found, size)

    def assembly(self) -> str:
        """The machine code of `run` as assembly text (compiled again for the purpose)."""

        def text() -> str:
            with self._optimized() as module:
                return target_machine(self.plan.machine).emit_assembly(module)

        return without_interrupts(text)

    def llvm(self) -> str:
        """The LLVM IR of `run` after optimisation."""

        def text() -> str:
            with self._optimized() as module:
                return str(module)

        return without_interrupts(text)

    def _optimized(self) -> closing[llvm.ModuleRef]:
        return closing(optimized(str(write_module(self.kernel, self.plan)), self.plan.machine))


def write_module(kernel: Kernel, plan: Plan, entry: str = "run") -> ir.Module:
    """The LLVM module of a kernel under a plan, to which shared functions are linked."""
    return _written(kernel, plan, entry).module


def _written(kernel: Kernel, plan: Plan, entry: str) -> Program:
    program = write(kernel, plan, entry)
    write_probe(program.module, target_machine(plan.machine).triple)
    return program


class Code(NamedTuple):
    """The machine code of an entry point, in parts that are linked to each other.

    `name`: what says which code it is, in all processes: an object with shared functions depends on
    which of them were asked for together. `bails_out`: see `Program`.
    """

    objects: tuple[bytes, ...]
    name: bytes
    bails_out: bool

    @classmethod
    def of(cls, kernel: Kernel, plan: Plan, entry: str) -> Code:
        """The code of a kernel under a plan. No other thread may use LLVM meanwhile."""
        program, machine = _written(kernel, plan, entry), plan.machine
        own = object_code(optimized(str(program.module), machine), machine)
        shared = [
            (each.name, each.detail, each.format and each.format[1:]) for each in program.runtime
        ]
        where = machine.cpu, machine.features, sorted(machine.has), machine.vector_bytes
        name = own + repr((where, shared)).encode()
        return cls((own, *shared_code(program.runtime)), name, program.bails_out)

    @classmethod
    def around(cls, module: ir.Module, machine: Machine, runtime: RuntimeFunction) -> Code:
        """The code of a small module, which is not optimised, and of what it calls."""
        own = object_code(_parsed(str(module), machine), machine, 0)
        return cls((own, *shared_code([runtime])), own, False)

    def linked(self, machine: Machine) -> Engine:
        """The code in memory."""
        # An engine that is given objects, not modules, keeps the code alone: 65 kB, not 900.
        engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), new_target_machine(machine))
        for each in self.objects:
            engine.add_object_file(llvm.ObjectFileRef.from_data(each))
        engine.finalize_object()
        return Engine(engine)


def _compiled(kernel: Kernel, plan: Plan, entry: str) -> tuple[Engine, int]:
    """An engine that owns the machine code of an entry point, and about how many bytes that is."""
    code = Code.of(kernel, plan, entry)
    return code.linked(plan.machine), sum(map(len, code.objects)) + _ENGINE_BYTES


def shared_code(functions: Iterable[RuntimeFunction]) -> list[bytes]:
    """The object code of shared functions. (Their frames are small and need no stack probe.)

    Those that were not compiled before are compiled together, as far as they belong to the same
    format: LLVM takes a millisecond to begin.
    """
    found = {own: _shared.get(own) for own in functions}
    missing: dict[object, list[RuntimeFunction]] = {}
    for own, code in found.items():
        if code is None:
            missing.setdefault(own if own.rare else own.format, []).append(own)
    for together in missing.values():
        code = shared_object(together)
        for own in together:
            found[own] = _shared.put(own, code)
    return list(dict.fromkeys(code for code in found.values() if code is not None))


def shared_object(functions: Sequence[RuntimeFunction]) -> bytes:
    """An object with shared functions of one format, which are all rare or all not.

    Passes are for conversions of half precision alone: the other loops are written as they are
    meant, and become the same assembly.
    """
    own, text = functions[0], str(shared_module(functions))
    converts = own.format is not None and own.format.storage.half and not own.rare
    module = (optimized if converts else _parsed)(text, own.machine)
    return object_code(module, own.machine, 0 if own.rare else 2)


def object_code(module: llvm.ModuleRef, machine: Machine, opt: int = 2) -> bytes:
    """The object code of a module, which is closed.

    Left to the garbage collector, its context could be freed before it, which ends the process.
    """
    with closing(module):
        return target_machine(machine, opt).emit_object(module)


def entry_of(owner: Engine, name: str) -> Entry:
    """An entry point as a C function, which keeps the engine."""
    found = cast("Entry", _ENTRY(owner.address(name)))
    found.owner = owner
    return found


def optimized(text: str, which: Machine) -> llvm.ModuleRef:
    """Parse and clean up: the code generator already chose loops, lanes and unrolling."""
    machine = target_machine(which)
    # A builder is for one run: it keeps what observed the last.
    options = llvm.create_pipeline_tuning_options(speed_level=2)
    builder, passes = llvm.create_pass_builder(machine, options), _passes()
    module = _parsed(text, which)
    passes.run(module, builder)
    return module


def _parsed(text: str, which: Machine) -> llvm.ModuleRef:
    machine = target_machine(which)
    # LLVM never frees the constants of its global context: each module has a context of its own.
    module = llvm.parse_assembly(text, llvm.create_context())
    module.triple = machine.triple
    module.data_layout = str(machine.target_data)
    return module


@functools.cache
def _passes() -> llvm.ModulePassManager:
    """The passes over a module; to make them anew each time would lose kilobytes."""
    passes = llvm.create_new_module_pass_manager()
    passes.add_instruction_combine_pass()
    passes.add_new_gvn_pass()
    passes.add_simplify_cfg_pass()
    return passes
