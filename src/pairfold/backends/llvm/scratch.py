"""Where the parts of a task's scratch memory lie."""

from __future__ import annotations

from ...errors import MemoryLimitError
from ...lower.kernel import COLUMN, ONCE, ROW, Kernel
from ...lower.schedule import ITEM, Plan, cells, frontier
from .abi import PANEL
from .shorts import ScreenPlaces
from .tables import TablePlaces

_MOST_MEMORY = 2**30
_LONG_LIST = 16


class Layout:
    """Where the parts of a task's scratch memory lie, in bytes."""

    def __init__(self, kernel: Kernel, plan: Plan) -> None:
        self.item = ITEM[plan.dtype]
        self.outer_item = ITEM[plan.accumulation.outer]
        self.components = 2 if plan.accumulation.compensated else 1
        lanes = plan.lane_count
        words = len(kernel.reduction.identity) * self.components
        self._lay_out_lists(kernel.length)
        # Values and indices, what was put aside of both, how much, and room for one vector.
        rows = 2 * (self.list_places + self.list_aside) + 2
        listed = -(-rows * self.item // self.outer_item)
        self.place_words = listed if kernel.reduction.listed else words
        self.state_words = kernel.places * self.place_words
        self.unit_state = (self.state_words + kernel.anchors) * lanes * self.outer_item
        groups = plan.tiles if plan.lanes == "row" else 1
        self.screen = ScreenPlaces(plan, kernel.stages[ROW].size * plan.row_group * self.item)
        self.row_group = self.screen.row_bytes
        self.shared_vector = plan.block * (lanes if plan.lanes == "row" else 1) * self.item
        self.across = kernel.across * plan.block * plan.width * ITEM[plan.accumulation.inner]
        self.tables = TablePlaces(kernel, plan)
        sizes = {
            "panel": 8 * PANEL,
            "once": kernel.stages[ONCE].size * self.item,
            "rows": groups * self.row_group,
            "columns": kernel.stages[COLUMN].size * plan.block * self.item,
            "shared": sum(map(cells, frontier(kernel))) * self.shared_vector,
            "tables": self.tables.total,
            "logits": len(kernel.scores) * self.shared_vector,
            "maxima": kernel.anchors * lanes * self.item,
            "rescale": kernel.anchors * lanes * self.outer_item,
            "rescale other": kernel.anchors * lanes * self.outer_item,
            "across": self.across,
            "state": 0 if kernel.pieces else plan.tiles * self.unit_state,
            **self.screen.sizes,
        }
        for number, (result, size) in enumerate(
            zip(kernel.reduction.results, kernel.results, strict=True)
        ):
            item = self.item if result.kind == "value" else 8
            sizes[f"result {number}"] = size * lanes * item
        self.offset: dict[str, int] = {}
        self.total = 0
        for name, size in sizes.items():
            self.offset[name] = self.total
            self.total += -(-size // 64) * 64
        self.state_bytes = sizes["state"]
        if self.total > _MOST_MEMORY:
            raise MemoryLimitError(
                "this formula is too large to be computed",
                where=str(kernel.formula),
                found=f"{self.total / 2**30:.1f} GiB of working memory for each thread",
                hint=f"smaller dimensions: each thread may use {_MOST_MEMORY >> 30} GiB",
            )

    def _lay_out_lists(self, length: int) -> None:
        """Places of a list, how many are gone through at a time, and how many pairs wait for it."""
        self.list_long = length > _LONG_LIST
        self.list_step = 4 if self.list_long else max(1, length - 1)
        self.list_places = 1 + -(-(length - 1) // self.list_step) * self.list_step
        self.list_aside = 32
