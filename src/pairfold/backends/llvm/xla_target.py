"""Targets of XLA: machine code of kernels that XLA calls by a name, and what it is called with.

A target belongs to machine code; its name is a hash of that, so it means the same in all processes.
What depends on sizes is an attribute of each call, and holds no address: compiled programs that
XLA keeps on disk stay right.
"""

from __future__ import annotations

import ctypes
import hashlib
import math
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ...core.library import NumpyArray
from . import pool, xla
from .abi import (
    ANSWERS,
    BLOCK,
    FIRST_RESULT,
    INTERVALS,
    OFFSETS,
    PATTERN_BLOCKS,
    SPARSE_ROW_BLOCKS,
)
from .native import Code, Engine, Native, without_interrupts

if TYPE_CHECKING:
    from .launch import Call

_ENTRY = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)
_RESOURCE_EXHAUSTED = 8

# Targets by name, kept for good: XLA may call them as long as the process lives.
_targets: dict[str, XlaTarget] = {}


class XlaTarget:
    """A handler with the code of a kernel, and of the same without rearrangement where need be.

    `entry` is what XLA calls, under `name`.
    """

    def __init__(self, name: str, parts: Sequence[tuple[Native, dict[str, Code]]]) -> None:
        self.name = name
        self._natives = [native for native, _ in parts]
        self._engines: list[Engine] = []
        self._message = ctypes.create_string_buffer(b"pairfold: there is no memory")
        message = ctypes.addressof(self._message)
        self._error = (ctypes.c_int64 * 4)(28, 0, message, _RESOURCE_EXHAUSTED)
        words = [*_c_functions(), ctypes.addressof(self._error)]
        for native, codes in parts:
            words += self._linked(native, codes)
        words += [0] * (xla.MAIN_CODE + 2 * xla.CODE - len(words))
        self._words = (ctypes.c_int64 * len(words))(*words)
        machine = self._natives[0].plan.machine
        module = xla.entry_module(machine, ctypes.addressof(self._words))
        engine = Code.around(module, machine, xla.handler(machine)).linked(machine)
        self._engines.append(engine)
        self.entry = _ENTRY(engine.address("entry"))

    def _linked(self, native: Native, codes: dict[str, Code]) -> list[int]:
        """The words of a kernel's code."""
        found: dict[str, int] = {}
        for name, code in codes.items():
            engine = code.linked(native.plan.machine)
            self._engines.append(engine)
            found[name] = engine.address(name)
            if native.kernel.fused:
                found["combine"] = engine.address("combine")
        entries = found["run"], found.get("combine", 0)
        return [*entries, native.layout.total, *native.words]


def _c_functions() -> tuple[int, int, int]:
    """The addresses of malloc, free and of what leaves the processor to other threads."""
    if sys.platform == "win32":
        library, leave = ctypes.CDLL("msvcrt"), ctypes.CDLL("kernel32").SwitchToThread
    else:
        library = ctypes.CDLL(None)
        leave = library.sched_yield
    one, two, three = (
        ctypes.cast(each, ctypes.c_void_p).value for each in (library.malloc, library.free, leave)
    )
    assert one
    assert two
    assert three
    return one, two, three


def target_of(call: Call) -> tuple[XlaTarget, Call | None]:
    """The target of a call, and the same call without rearrangement where the target has it."""
    native, merges = call.bound.native, bool(call.left.tasks)
    codes: dict[str, Code] | None = None
    if merges not in native.bails_out:
        codes = _codes(native, merges)
        native.bails_out[merges] = any(code.bails_out for code in codes.values())
    literal = call.launcher.unrearranged(call) if native.bails_out[merges] else None
    parts = [(native, merges)]
    if literal is not None:
        parts.append((literal.bound.native, bool(literal.left.tasks)))
    key = tuple(parts)
    found = native.targets.get(key)
    if found is None:
        found = _target(key, codes or _codes(native, merges))
        native.targets[key] = found
    return found, literal


def _codes(native: Native, merges: bool) -> dict[str, Code]:
    """The code of each entry point; that of a fused kernel is one."""
    names = ("run", "combine") if merges and not native.kernel.fused else ("run",)
    kernel, plan = native.kernel, native.plan
    return without_interrupts(lambda: {name: Code.of(kernel, plan, name) for name in names})


def _target(key: Sequence[tuple[Native, bool]], first: dict[str, Code]) -> XlaTarget:
    """The target of code, and maybe of the same without rearrangement."""
    parts = [(key[0][0], first), *((native, _codes(native, merges)) for native, merges in key[1:])]
    digest = hashlib.sha256()
    for native, codes in parts:
        layout = native.layout
        digest.update(repr((layout.total, layout.words(native.plan), len(codes))).encode())
        for block in (*native.lists, *(code.name for code in codes.values())):
            digest.update(block)
    name = f"pairfold_{digest.hexdigest()[:24]}"
    known = _targets.get(name)
    if known is None:
        known = without_interrupts(lambda: XlaTarget(name, parts))
        known = _targets.setdefault(name, known)
    return known


# ----- what a call is told -----------------------------------------------------------------------


def attribute(
    call: Call,
    literal: Call | None,
    batch: Sequence[int],
    strides: Sequence[Sequence[int]],
) -> NumpyArray:
    """What a handler needs to know of a call: see `xla.HEAD` and `xla.TABLE`."""
    words = [0] * xla.HEAD
    words[xla.BATCHES], words[xla.AXES] = math.prod(batch), len(batch)
    words[xla.BATCH] = len(words)
    words += batch
    for own in strides:
        words += own
    words[xla.MAIN] = _add_part(words, call)
    if literal is not None:
        words[xla.LITERAL] = _add_part(words, literal)
    return np.array(words, np.int64)


def _add_part(words: list[int], call: Call) -> int:
    """Add what is known of a kernel's tasks, and of its blocks; where it begins."""
    left, parts, bound = call.left, call.bound.parts, call.bound
    table = np.frombuffer(call.words, np.int64).tolist()
    table[OFFSETS] = table[SPARSE_ROW_BLOCKS] = table[INTERVALS] = table[ANSWERS] = 0
    table[BLOCK:FIRST_RESULT] = [0] * (FIRST_RESULT - BLOCK)
    for place, numbers in call.tables().items():
        table[place] = len(words)
        words += numbers.view(np.int64).reshape(-1).tolist() or [0]
        if place == SPARSE_ROW_BLOCKS:
            table[PATTERN_BLOCKS] = len(numbers)
    start = len(words)
    words += [
        parts.tasks,
        pool.threads_for(bound.seconds, parts.tasks),
        left.tasks,
        pool.threads_for(left.seconds, left.tasks),
        left.bytes,
        left.across,
        len(table),
        *table,
    ]
    return start
