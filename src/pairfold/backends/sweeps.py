"""From a sweep's kernel and sizes to a call: what differs from other kernels."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..lower.kernel import Kernel
from ..lower.schedule import Accumulation, Partition, Plan
from ..lower.sweep import can_sweep, sweep_partition, sweep_plan
from ..settings import Settings
from . import pool
from .launch import Bound, Launcher
from .machine import machine
from .words import ACROSS, PARTIALS, REFUSED

_ALIGNED = 64


class SweepLauncher(Launcher):
    """Runs one sweep on arrays of one dtype and any size but none.

    `sweeps`: whether it can, and as accurately as the separate folds would.
    """

    def __init__(self, kernel: Kernel, stored: str, accumulation: Accumulation) -> None:
        super().__init__(kernel, stored, accumulation)
        self.sweeps = can_sweep(kernel) and not accumulation.every

    def _planned(self, few: bool, options: Settings) -> Plan:
        which = machine(options.target)
        given = (self.dtype, self.accumulation, options, self.stored)
        return sweep_plan(self.kernel, which, *given)

    def _parts(
        self, plan: Plan, rows: int, columns: int, batches: int, options: Settings
    ) -> Partition:
        return sweep_partition(plan, self.kernel, (rows, columns, batches), self.work, options)

    def run(
        self,
        bound: Bound,
        rows: int,
        columns: int,
        arrays: Sequence[tuple[int, int, int]],
        offsets: Any = None,
    ) -> None:
        """Fold both ways; see `Launcher.run`."""
        parts, layout = bound.parts, bound.native.layout
        units = parts.rows_per_task // bound.native.plan.lane_count
        of_rows = parts.tasks * units * layout.unit_state
        of_columns = parts.tasks * parts.columns_per_split * layout.outer_item
        of_columns *= self.kernel.across * layout.components
        memory = np.empty(of_rows + of_columns + _ALIGNED, np.uint8)
        words = self._words(bound, rows, columns, offsets)
        words[PARTIALS] = -(-memory.ctypes.data // _ALIGNED) * _ALIGNED
        words[ACROSS] = words[PARTIALS] + of_rows
        for triple in arrays:
            words += triple
        table = (ctypes.c_int64 * len(words))(*words)
        pool.run(bound.native.run, table, bound.scratch, parts.tasks, bound.seconds)
        merging = (of_rows + of_columns) * 0.2e-9
        tasks = parts.batches * (parts.panels + parts.splits)
        pool.run(bound.native.combine, table, bound.scratch, tasks, merging)
        if table[REFUSED]:
            self._again(bound, rows, columns, arrays, offsets)
