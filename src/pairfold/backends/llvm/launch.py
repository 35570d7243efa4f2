"""From a kernel and sizes to a call: compiles through the cache, cuts tasks, passes addresses.

A `Launcher` belongs to one kernel and dtype. What depends on the sizes alone (plan, partition) is
bound once per size and kept; a `Call` has the strides, too: a warm one copies its table of 64-bit
words, writes addresses into it and enters machine code.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ...core.cache import Cache, Limit
from ...core.dtypes import DTYPES
from ...core.library import Device, NumpyArray
from ...errors import UnsupportedError
from ...lower.cost import Estimate, alternatives
from ...lower.kernel import ONCE, Kernel, unrearranged
from ...lower.pattern import Pattern, sparse_partition
from ...lower.schedule import (
    Accumulation,
    Partition,
    Plan,
    make_plan,
    operations,
    partition,
)
from ...settings import Settings
from . import pool
from .abi import (
    ACROSS,
    BAILED_OUT,
    BLOCK,
    COLUMNS,
    FIRST_RESULT,
    INTERVALS,
    OFFSETS,
    PARTIALS,
    PATTERN_BLOCKS,
    ROWS,
    SPARSE_ROW_BLOCKS,
    WORDS_PER_ARRAY,
)
from .machine import machine

if TYPE_CHECKING:
    from .native import Native
    from .xla_target import XlaTarget

Strides = tuple[int, ...]

# What is kept with each launcher: the plans thought of for sizes, the code of plans, and its tasks.
_PLANS, _CODES, _SIZES = Limit("plans", 4096), Limit("compiled plans", 4096), Limit("sizes", 4096)

SECONDS_PER_OPERATION = 0.5e-9
_SECONDS_PER_BYTE = 0.2e-9
_ALIGNED = 64
_MANY_ROWS, _MANY_COLUMNS = 2048, 2**17
_MOST_LISTED = 2**32  # indices in lists are as wide as values


class Bound:
    """Machine code and a partition for given sizes, or for a pattern."""

    __slots__ = (
        "asks", "native", "options", "parts", "pattern", "reason", "scratch", "seconds", "tasks",
    )  # fmt: skip

    # Whether calls ask which blocks of a mask can be skipped: see `masked_launch`; why they do not
    # try to meet few blocks, if they do not: see `pruned_launch`.
    asks: bool
    reason: str

    def __init__(
        self,
        native: Native,
        parts: Partition,
        seconds: float,
        options: Settings,
        pattern: Pattern | None = None,
    ) -> None:
        self.native, self.parts, self.seconds, self.options = native, parts, seconds, options
        self.pattern, self.asks, self.reason = pattern, False, ""
        self.scratch, self.tasks = native.layout.total, parts.tasks


class Left(NamedTuple):
    """What tasks leave: bytes of partial states, in which those of columns begin at `across`.

    `tasks`: how many merge them; 0: the results are there.
    """

    bytes: int
    across: int
    tasks: int

    @property
    def seconds(self) -> float:
        """About how long merging takes."""
        return self.bytes * _SECONDS_PER_BYTE


_NOTHING = Left(0, 0, 0)


class Call:
    """A fold with everything bound but the addresses of its arrays.

    The words are copied for each call: several threads may make one.
    """

    __slots__ = ("alive", "bound", "launcher", "left", "sizes", "strides", "table", "words")

    def __init__(
        self, launcher: Launcher, bound: Bound, words: list[int], alive: tuple[NumpyArray, object]
    ) -> None:
        self.launcher, self.bound, self.alive = launcher, bound, alive
        self.sizes = words[ROWS], words[COLUMNS]
        self.strides: list[Strides] = []
        self.table = ctypes.c_int64 * len(words)
        self.words = bytes(self.table(*words))
        self.left = self._left()

    def __call__(self, addresses: Sequence[int], alive: object = None) -> None:
        """Fold the arrays at these addresses: results, then arguments.

        `alive` is what has the memory there, for threads that outlast an interrupted call.
        """
        table = self.addressed(addresses)
        self.work(table, (self, alive))
        if table[BAILED_OUT]:
            self.launcher.unrearranged(self)(addresses, alive)

    def addressed(self, addresses: Sequence[int]) -> pool.Table:
        """The words of a call with these addresses."""
        table = self.table.from_buffer_copy(self.words)
        place = FIRST_RESULT
        for address in addresses:
            table[place] = address
            place += WORDS_PER_ARRAY
        return table

    def _left(self) -> Left:
        """What tasks leave to be merged."""
        tasks, splits = self.bound.parts.tasks, self.bound.parts.splits
        if splits == 1:
            return _NOTHING
        return Left(tasks * self.bound.native.layout.state_bytes, 0, tasks // splits)

    def work(self, table: pool.Table, alive: object, tasks: int = 0) -> None:
        """Do all tasks, and merge what they leave; `tasks`: how many, if not those of the sizes."""
        bound, left = self.bound, self.left
        native, tasks = bound.native, tasks or bound.tasks
        if not left.tasks:
            pool.run(native.run, table, bound.scratch, tasks, bound.seconds, alive)
            return
        memory = np.empty(left.bytes + _ALIGNED, np.uint8)
        # `memory.ctypes` takes a microsecond.
        start = -(-ctypes.addressof(ctypes.c_byte.from_buffer(memory.data)) // _ALIGNED) * _ALIGNED
        table[PARTIALS], table[ACROSS] = start, start + left.across
        alive = alive, memory
        pool.run(native.run, table, bound.scratch, tasks, bound.seconds, alive)
        pool.run(native.combine, table, bound.scratch, left.tasks, left.seconds, alive)

    def tables(self) -> dict[int, NumpyArray]:
        """What a call reads beside its arrays, whatever these hold: by the word that says where."""
        bound = self.bound
        if bound.pattern is None:
            return {}
        row_blocks = bound.pattern.row_blocks(self.sizes[0], bound.parts.rows_per_task)
        return {SPARSE_ROW_BLOCKS: row_blocks, INTERVALS: bound.pattern.intervals}

    def for_xla(
        self, batch: Sequence[int], strides: Sequence[Sequence[int]]
    ) -> tuple[XlaTarget, NumpyArray]:
        """What XLA calls instead, and the attribute that it is called with.

        `batch`: the sizes of batch axes; `strides`: those of each array along them, in bytes.
        """
        from .xla_target import attribute, target_of

        target, literal = target_of(self)
        return target, attribute(self, literal, batch, strides)


class Launcher:
    """Runs one kernel on arrays of one dtype and any size."""

    calls: type[Call] = Call

    def __init__(self, kernel: Kernel, stored: str, accumulation: Accumulation) -> None:
        self.kernel, self.stored, self.accumulation = kernel, stored, accumulation
        self.dtype = DTYPES[stored].computed
        self.work = operations(kernel)
        self.once = [argument.stage == ONCE for argument in kernel.arguments]
        self._bound: Cache[Bound] = Cache(_SIZES)
        self._plans: Cache[list[Estimate]] = Cache(_PLANS)
        self._native: Cache[Native] = Cache(_CODES)
        self._unrearranged: Launcher | None = None

    def plan(self, rows: int, columns: int, options: Settings) -> Plan:
        """The plan for these sizes under these settings."""
        return self.alternatives(rows, columns, options)[0].plan

    def alternatives(self, rows: int, columns: int, options: Settings) -> list[Estimate]:
        """What the settings leave open, with estimates; the plan to use comes first.

        Sizes count as far as they matter for plans: a formula is compiled for few of them.
        """
        key = (min(rows, _MANY_ROWS), min(1 << columns.bit_length(), _MANY_COLUMNS), options)
        return self._plans.of(
            key, lambda: alternatives(self.kernel, self._planned, options, key[0], key[1])
        )

    def _planned(self, options: Settings) -> Plan:
        which = machine(options.target)
        return make_plan(self.kernel, which, self.dtype, self.accumulation, options, self.stored)

    def parts(
        self, plan: Plan, rows: int, columns: int, batches: int, options: Settings
    ) -> Partition:
        """How sizes are cut into tasks under a plan."""
        return partition(plan, rows, columns, batches, self.work, options)

    def native(self, plan: Plan) -> Native:
        """The machine code for a plan, compiled at the first request."""
        found = self._native.get(plan)
        if found is None:
            from .native import Native  # LLVM is loaded with the first kernel

            found = self._native.put(plan, Native(self.kernel, plan))
        return found

    def bind(
        self, rows: int, columns: int, batches: int, options: Settings, device: Device | None = None
    ) -> Bound:
        """Machine code and tasks for these sizes."""
        key = (rows, columns, batches, options)
        bound = self._bound.get(key)
        if bound is None:
            plan = self.plan(rows, columns, options)
            parts = self.parts(plan, rows, columns, batches, options)
            seconds = rows * columns * batches * self.work / plan.width * SECONDS_PER_OPERATION
            bound = Bound(self.native(plan), parts, seconds, options)
            bound = self._bound.put(key, bound)
        return bound

    def bind_sparse(
        self,
        rows: int,
        batches: int,
        options: Settings,
        pattern: Pattern,
        device: Device | None = None,
    ) -> Bound:
        """Machine code and tasks for a pattern; not kept, since a pattern belongs to its caller."""
        plan = self.plan(*pattern.typical, options)
        parts = sparse_partition(plan, pattern, rows, batches)
        seconds = pattern.pairs * batches * self.work / plan.width * SECONDS_PER_OPERATION
        return Bound(self.native(plan), parts, seconds, options, pattern)

    def call(
        self,
        bound: Bound,
        rows: int,
        columns: int,
        strides: Sequence[Strides],
        offsets: NumpyArray | None = None,
    ) -> Call:
        """A fold of these sizes, to be called with addresses.

        `strides`: (of rows, of components) in bytes, of the results, then of the arguments in the
        order of `kernel.arguments`; what every pair has has one of columns, too. `offsets`: int64
        array (batches, arrays) of byte offsets, or None for a single batch element.
        """
        if columns > _MOST_LISTED and self.kernel.lists and self.dtype == "float32":
            raise UnsupportedError(
                "lists of float32 values are of at most 2^32 columns",
                found=f"{columns} columns",
                hint="float64 arrays",
            )
        parts = bound.parts
        cut = (parts.rows_per_task, parts.row_blocks, parts.splits, parts.columns_per_split)
        if offsets is None:
            offsets = np.zeros(len(strides), np.int64)
        words = [rows, columns, *cut, offsets.ctypes.data, *[0] * (BLOCK - OFFSETS - 1)]
        words += bound.native.words
        row_blocks = None
        if bound.pattern is not None:
            row_blocks = bound.pattern.row_blocks(rows, parts.rows_per_task)
            words[SPARSE_ROW_BLOCKS] = row_blocks.ctypes.data
            words[PATTERN_BLOCKS] = len(row_blocks)
            words[INTERVALS] = bound.pattern.intervals.ctypes.data
        for own in strides:
            words += (0, *own[:2])
        for own in strides:
            if len(own) > 2:
                words += (0, own[2], 0)
        call = self.calls(self, bound, words, (offsets, row_blocks))
        call.strides += strides
        return call

    def unrearranged(self, call: Call) -> Call:
        """The same without rearrangement or assumption: inf, NaN, huge exponents in each term."""
        bound = call.bound
        if self._unrearranged is None:
            self._unrearranged = type(self)(
                unrearranged(self.kernel), self.stored, self.accumulation
            )
        exact, (rows, columns) = self._unrearranged, call.sizes
        if bound.pattern is None:
            again = exact.bind(rows, columns, bound.parts.batches, bound.options)
        else:
            again = exact.bind_sparse(rows, bound.parts.batches, bound.options, bound.pattern)
        return exact.call(again, rows, columns, call.strides, call.alive[0])
