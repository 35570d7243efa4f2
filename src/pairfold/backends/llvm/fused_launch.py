"""From a fused kernel and sizes to a call: what differs from other kernels."""

from __future__ import annotations

from ...lower.cost import Estimate, estimate
from ...lower.fused import can_fuse, fused_partition, fused_plan
from ...lower.kernel import Kernel
from ...lower.schedule import Accumulation, Partition, Plan
from ...settings import Settings
from .launch import Call, Launcher, Left
from .machine import machine


class FusedCall(Call):
    """A fused pass with everything bound but the addresses of its arrays."""

    __slots__ = ()

    def _left(self) -> Left:
        """States of rows, then those of columns."""
        bound, across = self.bound, self.launcher.kernel.across
        parts, layout = bound.parts, bound.native.layout
        tiles = parts.rows_per_task // bound.native.plan.lane_count
        of_rows = parts.tasks * tiles * layout.tile_state
        of_columns = parts.tasks * parts.columns_per_split * layout.outer_item
        of_columns *= across * layout.components
        tasks = parts.batches * (parts.row_blocks + parts.splits)
        return Left(of_rows + of_columns, of_rows, tasks)


class FusedLauncher(Launcher):
    """Runs one fused kernel on arrays of one dtype and any size but none.

    `fuses`: whether it can, and as accurately as the separate folds would.
    """

    calls = FusedCall

    def __init__(self, kernel: Kernel, stored: str, accumulation: Accumulation) -> None:
        super().__init__(kernel, stored, accumulation)
        self.fuses = can_fuse(kernel) and not accumulation.every

    def alternatives(self, rows: int, columns: int, options: Settings) -> list[Estimate]:
        """The one plan of a fused kernel; what else there is are separate folds."""

        def only() -> list[Estimate]:
            given = (self.dtype, self.accumulation, options, self.stored)
            plan = fused_plan(self.kernel, machine(options.target), *given)
            return [estimate(self.kernel, plan, rows, columns)]

        return self._plans.of(options, only)

    def parts(
        self, plan: Plan, rows: int, columns: int, batches: int, options: Settings
    ) -> Partition:
        """The same for rows and columns that are both kept."""
        return fused_partition(plan, self.kernel, (rows, columns, batches), self.work, options)
