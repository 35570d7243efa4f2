"""Where the parts of a task's scratch memory lie."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ...core.dtypes import DTYPES
from ...errors import MemoryLimitError
from ...lower.accumulators import Accumulator
from ...lower.kernel import COLUMN, ONCE, PAIR, ROW, Kernel
from ...lower.schedule import Plan, cells, frontier
from .abi import ROW_BLOCK
from .shorts import ScreenPlaces
from .tables import TablePlaces

_MOST_MEMORY = 2**30
_LONG_LIST = 16


class ListRows(NamedTuple):
    """How lists of so many places lie in memory, in rows of lanes.

    `long`: pairs are put aside lane by lane; `step`: places that are gone through at a time;
    `places`: those there are room for; `aside`: pairs that may wait for being inserted.
    """

    long: bool
    step: int
    places: int
    aside: int = 32

    @staticmethod
    def of(length: int) -> ListRows:
        """Those of lists of a length."""
        long = length > _LONG_LIST
        step = 4 if long else max(1, length - 1)
        return ListRows(long, step, 1 + -(-(length - 1) // step) * step)

    @property
    def rows(self) -> int:
        """Values and indices, what was put aside, how much, and room for one vector."""
        return 2 * (self.places + self.aside) + 2


class Run(NamedTuple):
    """Neighbouring places of states that have the rule of an accumulator.

    So many `places` of a tile from number `first` on, each of `words` numbers for every lane, after
    `start` words of the places before. Each number may have its correction after it.
    """

    accumulator: Accumulator
    first: int
    places: int
    start: int
    words: int
    compensated: bool

    @property
    def stop(self) -> int:
        """The place after the last."""
        return self.first + self.places

    @property
    def after(self) -> int:
        """The words of all places up to there."""
        return self.start + self.places * self.words


class PrunedSizes(NamedTuple):
    """How much memory a pruned fold needs beside its arrays.

    `blocks` of columns; so many `boxes` and `groups` there is room for, in whole vectors; bytes of
    `packed` columns, and of what each thread needs of its `own`.
    """

    blocks: int
    boxes: int
    groups: int
    packed: int
    own: int

    @staticmethod
    def of(kernel: Kernel, plan: Plan, columns: int) -> PrunedSizes:
        """That of so many columns."""
        item, width = DTYPES[plan.dtype].bytes, plan.width
        blocks = -(-columns // plan.block)
        boxes = -(-blocks // width) * width
        groups = -(-boxes // width**2) * width
        packed = blocks * kernel.stages[COLUMN].size * plan.block * item
        ends = 2 * max(1, kernel.stages[COLUMN].size)
        own = 8 * boxes + 8 * groups + item * groups * (1 + ends)
        return PrunedSizes(blocks, boxes, groups, packed, own)


class Layout:
    """Where the parts of a task's scratch memory lie, in bytes."""

    def __init__(self, kernel: Kernel, plan: Plan) -> None:
        self.item = DTYPES[plan.dtype].bytes
        self.outer_item = DTYPES[plan.accumulation.outer].bytes
        self.components = 2 if plan.accumulation.compensated else 1
        lanes = plan.lane_count
        self.runs = self._runs(plan, kernel.kept_on(ROW))
        self.column_runs = self._runs(plan, kernel.kept_on(COLUMN))
        self.state_words = self.runs[-1].after if self.runs else 0
        self.tile_state = (self.state_words + kernel.maxima) * lanes * self.outer_item
        groups = plan.tiles if plan.lanes == "row" else 1
        # Where pairs read the number of their row, tiles are told apart by where they are packed.
        row_slots = max(kernel.stages[ROW].size, 1 if kernel.numbers else 0)
        self.screen = ScreenPlaces(plan, row_slots * plan.row_group * self.item)
        self.row_group = self.screen.row_bytes
        self.shared_vector = plan.block * (lanes if plan.lanes == "row" else 1) * self.item
        # The bits of a vector of pairs, in whole bytes; so many vectors belong to each column.
        self.mask_vector = -(-plan.width // 8)
        per_column = plan.vectors if plan.lanes == "row" else 1
        self.across = (
            kernel.across * plan.block * plan.width * DTYPES[plan.accumulation.inner].bytes
        )
        self.tables = TablePlaces(kernel, plan)
        sizes = {
            "row block": 8 * ROW_BLOCK,  # the first: drivers know it as the start of the memory
            "once": kernel.stages[ONCE].size * self.item,
            "rows": groups * self.row_group,
            "columns": kernel.stages[COLUMN].size * plan.block * self.item,
            "shared": sum(map(cells, frontier(kernel))) * self.shared_vector,
            "tables": self.tables.total,
            "mask": 0 if kernel.keep is None else self.mask_vector * plan.block * per_column,
            "logits": len(kernel.logits) * self.shared_vector,
            "maxima": kernel.maxima * lanes * self.item,
            "rescale": kernel.maxima * lanes * self.outer_item,
            "rescale other": kernel.maxima * lanes * self.outer_item,
            "across": self.across,
            "state": 0 if kernel.fused else plan.tiles * self.tile_state,
            **self.screen.sizes,
        }
        if plan.pruned:
            sizes |= self._of_pruned(kernel, plan)
        if kernel.stages[PAIR].size:
            sizes["pairs"] = kernel.stages[PAIR].size * self.shared_vector
        for number, (kind, size) in enumerate(zip(kernel.kinds, kernel.results, strict=True)):
            item = self.item if kind == "value" else 8
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
                where=str(kernel),
                found=f"{self.total / 2**30:.1f} GiB of working memory for each thread",
                hint=f"smaller dimensions: each thread may use {_MOST_MEMORY >> 30} GiB",
            )

    def _of_pruned(self, kernel: Kernel, plan: Plan) -> dict[str, int]:
        """Boxes of tiles, and of all; bounds of a vector of boxes, a count, a limit, and keys."""
        return {
            "row boxes": 2 * kernel.stages[ROW].size * self.item * (plan.tiles + 1),
            "bounds": 2 * plan.width * self.item + 64 + 8 * plan.width,
        }

    def words(self, plan: Plan) -> list[int]:
        """What drivers are told of a kernel, from `abi.BLOCK` on."""
        tiles = plan.lanes == "row"
        tile = plan.lane_count if tiles else 1
        packed = plan.lane_count if tiles else plan.row_group
        tile_rows = self.row_group if tiles else self.item
        places = (self.offset[name] for name in ("rows", "columns", "state", "once"))
        sizes = (tile_rows, self.tile_state, self.state_bytes)
        return [plan.block, tile, packed, *sizes, *places]

    def _runs(self, plan: Plan, accumulators: Sequence[Accumulator]) -> list[Run]:
        """The states of some accumulators; running ones of the same rule are one run."""
        found: list[Run] = []
        for each in accumulators:
            last = found[-1] if found else None
            alike = last is not None and last.accumulator.rule is each.rule
            if last is not None and alike and each.rule.form == "running":
                found[-1] = last._replace(places=last.places + each.places)
                continue
            compensated = plan.accumulation.compensated and each.rule.additive
            words = each.parts * (2 if compensated else 1)
            if each.rule.top_k:
                words = -(-ListRows.of(each.folded.length).rows * self.item // self.outer_item)
            start = 0 if last is None else last.after
            found.append(Run(each, each.first, each.places, start, words, compensated))
        return found
