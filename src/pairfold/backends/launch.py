"""From a kernel and sizes to a call: compiles through the cache, cuts tasks, passes addresses.

A `Launcher` belongs to one kernel and dtype. What depends on the sizes alone (plan, partition) is
bound once per size and kept; a warm call writes one table of 64-bit words and enters machine code.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import UnsupportedError
from ..lower.kernel import ONCE, Kernel, lower
from ..lower.pattern import Pattern, sparse_partition
from ..lower.schedule import (
    Accumulation,
    Partition,
    Plan,
    few_rows,
    make_plan,
    operations,
    partition,
)
from ..settings import Settings
from . import pool
from .machine import machine
from .storage import STORED
from .words import INTERVALS, PARTIALS, REFUSED, SPARSE_PANELS

if TYPE_CHECKING:
    from .native import Native

_SECONDS_PER_OPERATION = 0.5e-9
_NO_OFFSETS = (ctypes.c_int64 * 4096)()
_KEPT = 256
_MOST_LISTED = 2**32  # indices in lists are as wide as values


class Bound:
    """Machine code and a partition for given sizes, or for a pattern."""

    __slots__ = ("native", "options", "parts", "pattern", "scratch", "seconds")

    def __init__(
        self,
        native: Native,
        parts: Partition,
        seconds: float,
        options: Settings,
        pattern: Pattern | None = None,
    ) -> None:
        self.native, self.parts, self.seconds, self.options = native, parts, seconds, options
        self.pattern = pattern
        self.scratch = native.layout.total


class Launcher:
    """Runs one kernel on arrays of one dtype and any size."""

    def __init__(self, kernel: Kernel, stored: str, accumulation: Accumulation) -> None:
        self.kernel, self.stored, self.accumulation = kernel, stored, accumulation
        self.dtype = STORED[stored]
        self.work = operations(kernel)
        self.once = [argument.stage == ONCE for argument in kernel.arguments]
        self._bound: dict[Any, Bound] = {}
        self._plans: dict[Any, Plan] = {}
        self._native: dict[Plan, Native] = {}
        self._literal: Launcher | None = None

    def plan(self, rows: int, columns: int, options: Settings) -> Plan:
        """The plan for these sizes under these settings."""
        which = machine(options.target)
        few = few_rows(rows, columns, which, self.dtype)
        found = self._plans.get((few, options))
        if found is None:
            found = make_plan(
                self.kernel, which, self.dtype, self.accumulation, few, options, self.stored
            )
            if len(self._plans) >= _KEPT:
                self._plans.clear()
            self._plans[few, options] = found
        return found

    def native(self, plan: Plan) -> Native:
        """The machine code for a plan, compiled at the first request."""
        found = self._native.get(plan)
        if found is None:
            from .native import Native  # LLVM is loaded with the first kernel

            found = self._native.setdefault(plan, Native(self.kernel, plan))
        return found

    def bind(self, rows: int, columns: int, batches: int, options: Settings) -> Bound:
        """Machine code and tasks for these sizes."""
        key = (rows, columns, batches, options)
        bound = self._bound.get(key)
        if bound is None:
            plan = self.plan(rows, columns, options)
            parts = partition(plan, rows, columns, batches, self.work, options)
            seconds = rows * columns * batches * self.work / plan.width * _SECONDS_PER_OPERATION
            bound = Bound(self.native(plan), parts, seconds, options)
            if len(self._bound) >= _KEPT:
                self._bound.clear()
            self._bound[key] = bound
        return bound

    def bind_sparse(self, rows: int, batches: int, options: Settings, pattern: Pattern) -> Bound:
        """Machine code and tasks for a pattern; not kept, since a pattern belongs to its caller."""
        plan = self.plan(*pattern.typical, options)
        parts = sparse_partition(plan, pattern, rows, batches)
        seconds = pattern.pairs * batches * self.work / plan.width * _SECONDS_PER_OPERATION
        return Bound(self.native(plan), parts, seconds, options, pattern)

    def run(
        self,
        bound: Bound,
        rows: int,
        columns: int,
        arrays: Sequence[tuple[int, int, int]],
        offsets: Any = None,
    ) -> None:
        """Fold. `arrays`: (address, row stride, component stride) in bytes, of the results, then
        of the arguments in the order of `kernel.arguments`. `offsets`: int64 array (batches,
        arrays) of byte offsets, or None for a single batch element.
        """
        parts, native = bound.parts, bound.native
        if columns > _MOST_LISTED and self.kernel.reduction.listed and self.dtype == "float32":
            raise UnsupportedError(
                "lists of float32 values are of at most 2^32 columns",
                found=f"{columns} columns",
                hint="float64 arrays",
            )
        words = [
            rows,
            columns,
            parts.rows_per_task,
            parts.panels,
            parts.splits,
            parts.columns_per_split,
            ctypes.addressof(_NO_OFFSETS) if offsets is None else offsets.ctypes.data,
            0,
            0,
            0,
            0,
        ]
        panels = None
        if bound.pattern is not None:
            panels = bound.pattern.panels(rows, parts.rows_per_task)
            words[SPARSE_PANELS] = panels.ctypes.data
            words[INTERVALS] = bound.pattern.intervals.ctypes.data
        for triple in arrays:
            words += triple
        tasks = parts.tasks
        if parts.splits == 1:
            table = (ctypes.c_int64 * len(words))(*words)
            pool.run(native.run, table, bound.scratch, tasks, bound.seconds)
            if table[REFUSED]:
                self._again(bound, rows, columns, arrays, offsets)
            return
        partial = np.empty(tasks * native.layout.state_bytes, np.uint8)
        words[PARTIALS] = partial.ctypes.data
        table = (ctypes.c_int64 * len(words))(*words)
        pool.run(native.run, table, bound.scratch, tasks, bound.seconds)
        merging = tasks * native.layout.state_bytes * 0.2e-9
        pool.run(native.combine, table, bound.scratch, tasks // parts.splits, merging)
        if table[REFUSED]:
            self._again(bound, rows, columns, arrays, offsets)

    def _again(
        self,
        bound: Bound,
        rows: int,
        columns: int,
        arrays: Sequence[tuple[int, int, int]],
        offsets: Any,
    ) -> None:
        """Fold without any rearrangement: inf, NaN and huge exponents act on each term."""
        if self._literal is None:
            kernel = self.kernel
            unroll = kernel.scalars.unroll
            inside = lower(kernel.formula, kernel.reduction, kernel.kept, unroll)
            self._literal = Launcher(inside, self.stored, self.accumulation)
        exact = self._literal
        batches = bound.parts.batches
        if bound.pattern is None:
            again = exact.bind(rows, columns, batches, bound.options)
        else:
            again = exact.bind_sparse(rows, batches, bound.options, bound.pattern)
        exact.run(again, rows, columns, arrays, offsets)
