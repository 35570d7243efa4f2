"""Calls that meet few pairs: whether that pays; rows and columns put in order; their tables."""

from __future__ import annotations

import ctypes
import dataclasses
import math
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from ...core.dtypes import DTYPES
from ...core.library import Device
from ...core.uninterrupted import beside
from ...lower.boxes import Boxes, boxes_of, coordinates
from ...lower.curve import Places, ordered, principal, sorted_in_blocks
from ...lower.kernel import COLUMN, PAIR, ROW, Kernel
from ...lower.schedule import Accumulation, Partition, Plan, make_plan, partition
from ...settings import Settings, thread_count
from ..interface import Tally
from ..memory import Stored, view_of, widened
from . import pool
from .abi import (
    BAILED_OUT,
    BOXES,
    EACH,
    GROUPS,
    MANY,
    MET,
    MOST,
    ORDER_OF_COLUMNS,
    ORDER_OF_ROWS,
    PACKED_COLUMNS,
    SHARE,
)
from .launch import SECONDS_PER_OPERATION, Bound, Call, Launcher, Strides
from .machine import machine
from .masked_launch import MaskedCall, MaskedLauncher
from .scratch import PrunedSizes

if TYPE_CHECKING:
    from .native import Native

_BLOCK = 64
_MOST = 2**31
# About how long it takes to put a point in order and pack it, in cycles, and how often that must
# fit into the time of all pairs: more often for points of many components, which are pruned less.
_CYCLES_PER_POINT, _CYCLES_PER_COMPONENT = 80, 6
_WORTH, _FEW_COMPONENTS, _WORTH_MANY = 4, 8, 16
_SECONDS_PER_POINT = 3e-9
# Of how many row blocks one is tried first; how much of its pairs it may meet.
_TRIED = 48
# The least share of the variance of columns in three directions.
_LEAST_SHARE = 0.45
_MOST_MET, _MOST_MET_SCREENED = 0.5, 0.15
# The share of pairs under a mask that may be met, which cost more here; how many there must be.
_MASKED_SHARE, _LEAST_PAIRS = 0.5, 0.05
_UNSAFE = "numbers are too large for the formula as it is computed here"
# How long calls of sizes that could not be pruned are left alone: so many, then twice as many.
_PATIENCE, _MOST_PATIENCE = 4, 32
_ALIGNED = 64
# Points that are put in order on one thread.
_FEW = 2**15
_VECTORS = 2


def prunable(kernel: Kernel, accumulation: Accumulation) -> bool:
    """Whether some pairs may not matter: to extreme values, to sums that may have an error."""
    if kernel.fused or len(kernel.accumulators) != 1:
        return False
    if any(argument.stage == PAIR for argument in kernel.arguments):
        return False
    rule = kernel.only.rule
    if rule.selects:
        return rule.form != "max-shifted" and len(kernel.outputs) == 1
    return accumulation.rtol > 0


class PrunedCall(Call):
    """A fold of the pairs that can matter, with everything bound but its arrays."""

    __slots__ = ()

    launcher: PrunedLauncher

    def __call__(self, addresses: Sequence[int], alive: object = None) -> None:
        """Fold the arrays at these addresses: results, then arguments."""
        if isinstance(self.searched(addresses, alive), str):
            super().__call__(addresses, alive)

    def share(self, addresses: Sequence[int], arrays: object) -> float:
        """The share of pairs that there would be to fold otherwise."""
        return 1.0

    def searched(self, addresses: Sequence[int], arrays: object) -> Tally | str:
        """Fold the arrays and say how many blocks were met; or say why that does not pay."""
        if self.bound.pattern is not None:
            return "ranges say which pairs are met"
        if self.bound.reason:
            return self.bound.reason
        return self.launcher.search(self, addresses, arrays)


class PrunedLauncher(Launcher):
    """Runs a kernel of extreme values on arrays of one dtype and any size."""

    calls = PrunedCall

    def __init__(self, kernel: Kernel, stored: str, accumulation: Accumulation) -> None:
        super().__init__(kernel, stored, dataclasses.replace(accumulation, rtol=0.0))
        self.rtol = accumulation.rtol
        self._left_alone = 0
        self._patience = _PATIENCE
        self._last = ""
        self._refused: tuple[int, int] | None = None

    @cached_property
    def boxes(self) -> Boxes | None:
        """Bounds of the values of pairs, if there are any."""
        return boxes_of(self.kernel, self.dtype)

    @cached_property
    def placing(self) -> frozenset[int]:
        """The positions of arguments that say where rows and columns are."""
        return coordinates(self.kernel)

    def bind(
        self, rows: int, columns: int, batches: int, options: Settings, device: Device | None = None
    ) -> Bound:
        """Machine code and tasks for these sizes."""
        bound = super().bind(rows, columns, batches, options, device)
        bound.reason = self._reason(rows, columns, options)
        return bound

    def _reason(self, rows: int, columns: int, options: Settings) -> str:
        """Why it does not pay to meet blocks by their bounds; empty where it may."""
        other = options.lanes == "column" or options.screen == "always"
        if options.prune == "never" or other:
            return "the settings say so"
        if not 0 < min(rows, columns) <= max(rows, columns) < _MOST:
            return "there are no pairs, or too many"
        if options.prune == "auto" and not self._pays(rows, columns, options):
            return "there are few pairs"
        return "" if self.boxes is not None else "there are no bounds of this formula"

    def _pays(self, rows: int, columns: int, options: Settings) -> bool:
        """Whether pairs take much longer than to put rows and columns in order."""
        cycles = self.alternatives(rows, columns, options)[0].cycles
        dim = sum(argument.dim for argument in self.kernel.arguments)
        point = _CYCLES_PER_POINT + _CYCLES_PER_COMPONENT * dim
        worth = _WORTH if dim <= _FEW_COMPONENTS else _WORTH_MANY
        return rows * columns * cycles > worth * point * (rows + columns)

    def pruned_plan(self, options: Settings, columns: int) -> Plan:
        """The plan of tiles that meet blocks by their bounds."""
        own = dataclasses.replace(options, screen="never", lanes="row", block=_BLOCK)
        if not options.row_vectors:
            own = dataclasses.replace(own, row_vectors=_VECTORS)
        plan = make_plan(
            self.kernel, machine(options.target), self.dtype, self.accumulation, own, self.stored
        )
        counted = columns <= 2 / DTYPES[self.dtype].eps
        return dataclasses.replace(plan, pruned=True, counted=counted)

    # -- a call ---------------------------------------------------------------------------------

    def search(self, call: PrunedCall, addresses: Sequence[int], arrays: object) -> Tally | str:
        """Fold all batch elements; why not, in words, where too many pairs would be met."""
        options = call.bound.options
        if options.prune == "auto":
            if self._refused == call.sizes and self._left_alone:
                self._left_alone -= 1
                return self._last
            if self._refused != call.sizes:
                self._patience = _PATIENCE
        plan = self.pruned_plan(options, call.sizes[1])
        share = call.share(addresses, arrays) if options.prune == "auto" else 1.0
        offsets = call.alive[0].reshape(-1, len(addresses))
        met = every = 0
        for element in offsets:
            own = [where + int(offset) for where, offset in zip(addresses, element, strict=True)]
            try:
                found = _Element(self, plan, call, own, arrays).fold(share)
            except MemoryError:
                found = "there is no memory for it"
            if isinstance(found, str):
                self._left_alone, self._refused = self._patience, call.sizes
                self._patience = min(2 * self._patience, _MOST_PATIENCE)
                self._last = found
                return found
            met, every = met + found.met, every + found.all
        self._patience = _PATIENCE
        return Tally(met, every)


class PrunedMaskedCall(PrunedCall, MaskedCall):
    """The same with a mask: where it does not pay, blocks are skipped that the mask leaves out."""

    __slots__ = ()

    launcher: PrunedMaskedLauncher  # pyright: ignore[reportIncompatibleVariableOverride] (is both)

    def share(self, addresses: Sequence[int], arrays: object) -> float:
        """Those of blocks that the mask does not leave out, where that is known beforehand."""
        if not self.bound.asks or self.launcher.constants(arrays) is None:
            return _MASKED_SHARE
        found = self.answers(addresses, arrays)
        if found is None:
            return _MASKED_SHARE
        skipped, *met = found.counts()
        return _MASKED_SHARE * sum(met) / max(1, skipped + sum(met))


class PrunedMaskedLauncher(PrunedLauncher, MaskedLauncher):
    """Runs a kernel of extreme values with a mask."""

    calls = PrunedMaskedCall


class _Side(NamedTuple):
    """Arguments of rows, or of columns: their places in a call, their numbers, where these lie.

    `placing`: which of them say where points are.
    """

    places: list[int]
    views: list[Stored]
    placing: list[bool]
    memory: object

    def points(self) -> NDArray[np.floating]:
        """The components of points."""
        views = [_real(view) for view, own in zip(self.views, self.placing, strict=True) if own]
        return views[0] if len(views) == 1 else np.concatenate(views, axis=1)

    def copies(self, order: Places) -> list[Stored]:
        """The arguments in an order."""
        return [np.take(view, order, axis=0) for view in self.views]


class _Element:
    """A batch element of a call."""

    def __init__(
        self,
        launcher: PrunedLauncher,
        plan: Plan,
        call: PrunedCall,
        addresses: Sequence[int],
        alive: object,
    ) -> None:
        self.launcher, self.plan, self.call, self.alive = launcher, plan, call, alive
        self.kernel, self.results = launcher.kernel, len(launcher.kernel.results)
        self.rows, self.columns = call.sizes
        self.addresses = list(addresses)
        self.strides: list[Strides] = list(call.strides)
        self.sizes = PrunedSizes.of(self.kernel, plan, self.columns)
        self.copies: object = None

    @cached_property
    def native(self) -> Native:
        """The machine code, compiled where it is first needed."""
        return self.launcher.native(self.plan)

    def fold(self, share: float) -> Tally | str:
        """Fold it; why not, in words, where too many blocks would be met.

        `share`: that of all pairs which there would be to fold otherwise.
        """
        always = self.call.bound.options.prune == "always"
        if share < _LEAST_PAIRS and not always:
            return "the mask leaves few pairs"
        orders = self._in_order(always)
        if orders is None:
            return "columns fill too many dimensions"
        by_rows, by_columns = orders
        launcher, sizes = self.launcher, self.sizes
        parts = partition(
            self.plan, self.rows, self.columns, 1, launcher.work,
            dataclasses.replace(self.call.bound.options, splits=1),
        )  # fmt: skip
        seconds = self.rows * self.columns * launcher.work / self.plan.width
        seconds *= SECONDS_PER_OPERATION
        bound = Bound(self.native, parts, seconds, self.call.bound.options)
        table = self._table(bound)
        table[ORDER_OF_ROWS], table[ORDER_OF_COLUMNS] = (
            each.ctypes.data for each in (by_rows, by_columns)
        )
        table[SHARE] = self._share()
        packed = np.empty(sizes.packed + _ALIGNED, np.uint8)
        table[PACKED_COLUMNS] = _aligned(packed)
        boxes = self._boxes(sizes.boxes)
        table[BOXES] = boxes.ctypes.data
        alive = self.call, self.alive, by_rows, by_columns, packed, boxes
        native, width = self.native, self.plan.width
        tasks = -(-sizes.blocks // width)
        scratch = native.layout.total + sizes.own
        packing = self.columns * _SECONDS_PER_POINT
        pool.run(native.run, table, scratch, tasks, packing, alive)
        if table[BAILED_OUT]:
            return _UNSAFE
        groups = self._groups(boxes)
        table[GROUPS] = groups.ctypes.data
        alive = *alive, groups
        table[EACH], table[MET], left = 1, 0, parts.tasks
        if not always and parts.tasks > 1:
            each = min(_TRIED, parts.tasks)
            tried = self._try(table, parts, each, scratch, share, alive)
            if tried is None:
                return "too many blocks matter"
            table[EACH], table[MET] = (1 - each, table[MET]) if tried else (1, 0)
            left -= tried
        table[MOST] = 2 * sizes.blocks
        pool.run(native.combine, table, scratch, left, seconds / 8, alive)
        tiles = -(-self.rows // self.plan.lane_count)
        return _UNSAFE if table[BAILED_OUT] else Tally(table[MET], tiles * sizes.blocks)

    def _try(
        self,
        table: pool.Table,
        parts: Partition,
        each: int,
        scratch: int,
        share: float,
        alive: object,
    ) -> int | None:
        """Fold each that many-th row block; how many these are, None where pruning does not pay.

        0: it does, but some of their rows met so much that they were left.
        """
        tasks = -(-parts.tasks // each)
        screened = self.call.bound.native.plan.screen is not None
        most = share * (_MOST_MET_SCREENED if screened else _MOST_MET)
        table[EACH], table[MOST] = each, int(most * self.sizes.blocks)
        pool.run(self.native.combine, table, scratch, tasks, 1e-3, alive)
        left, met = divmod(table[MET], MANY)
        starts = np.arange(0, parts.tasks, each) * parts.rows_per_task
        rows = np.minimum(parts.rows_per_task, self.rows - starts)
        tiles = int((-(-rows // self.plan.lane_count)).sum())
        if met + left * self.sizes.blocks > most * tiles * self.sizes.blocks:
            return None
        return 0 if left else tasks

    # -- arrays ---------------------------------------------------------------------------------

    def _in_order(self, always: bool) -> tuple[Places, Places] | None:
        """The orders of rows and columns; their arrays are replaced by copies in this order.

        None where columns fill so many dimensions that no order along a curve has near neighbours.
        """
        rows, columns = self._side(ROW, self.rows), self._side(COLUMN, self.columns)
        lanes = self.plan.lane_count
        axes = principal(columns.points())
        if axes is not None and axes.share < _LEAST_SHARE and not always:
            return None
        from .curves import keys  # LLVM is loaded with the first kernel

        block, which = self.plan.block, self.plan.machine

        def find(side: _Side) -> Places:
            return ordered(side.points(), lambda cells, count: keys(cells, count, which))

        def of_columns(order: Places) -> tuple[Places, list[Stored]]:
            own = sorted_in_blocks(order, block)
            return own, columns.copies(own)

        def of_rows(order: Places) -> tuple[Places, list[Stored]]:
            # Lanes beyond the last row have numbers, too.
            return np.append(order, np.full(lanes, order[-1])), rows.copies(order)

        if rows.memory == columns.memory:
            order = find(rows)
            found = of_rows(order), of_columns(order)
        elif min(self.rows, self.columns) > _FEW and thread_count() > 1:
            found = beside(lambda: of_rows(find(rows)), lambda: of_columns(find(columns)))
        else:
            found = of_rows(find(rows)), of_columns(find(columns))
        for side, (_, copies) in zip((rows, columns), found, strict=True):
            for place, copy in zip(side.places, copies, strict=True):
                self.addresses[place], self.strides[place] = copy.ctypes.data, copy.strides
        self.copies = found[0][1], found[1][1]
        return found[0][0], found[1][0]

    def _side(self, stage: int, count: int) -> _Side:
        """The arguments of rows, or of columns."""
        own = [
            (n, a) for n, a in enumerate(self.kernel.arguments, self.results) if a.stage == stage
        ]
        placing = [a.position in self.launcher.placing for _, a in own]
        places = [n for n, _ in own]
        stored = self.launcher.stored
        memory = [(count, a.dim, self.addresses[n], self.strides[n][:2]) for n, a in own]
        views = [view_of(where, (n, dim), strides, stored) for n, dim, where, strides in memory]
        return _Side(places, views, placing, memory)

    def _share(self) -> int:
        """What a pair that is left out of a sum may be of what is there, as a word."""
        share = self.launcher.rtol / self.columns
        found = math.log(share) if self.kernel.logits and share else share
        return int(np.float64(found).view(np.int64))

    def _table(self, bound: Bound) -> pool.Table:
        """The words of this element's call."""
        launcher = self.launcher
        plain = Launcher.call(launcher, bound, self.rows, self.columns, self.strides)
        self._plain = plain
        return plain.addressed(self.addresses)

    def _boxes(self, room: int) -> NDArray[np.floating]:
        slots = self.launcher.boxes
        assert slots is not None
        return np.empty((len(slots.slots[COLUMN]), 2, room), self.plan.dtype)

    def _groups(self, boxes: NDArray[np.floating]) -> NDArray[np.floating]:
        """The boxes of groups of so many as there are lanes."""
        width, sizes = self.plan.width, self.sizes
        boxes[:, 0, sizes.blocks :], boxes[:, 1, sizes.blocks :] = np.inf, -np.inf
        found = self._boxes(sizes.groups)
        count = sizes.boxes // width
        parts = boxes.reshape(len(boxes), 2, count, width)
        found[:, 0, :count], found[:, 1, :count] = parts[:, 0].min(2), parts[:, 1].max(2)
        found[:, :, count:] = 0
        return found


def _real(view: Stored) -> NDArray[np.floating]:
    """Numbers that NumPy computes with."""
    if view.dtype.itemsize < 4:
        return widened(view)
    return cast("NDArray[np.floating]", view)


def _aligned(memory: NDArray[np.uint8]) -> int:
    start = ctypes.addressof(ctypes.c_byte.from_buffer(memory.data))
    return -(-start // _ALIGNED) * _ALIGNED
