"""From a kernel with a mask and sizes to a call: which blocks it skips, and which it does not test.

That is found before each call from the arrays that the mask reads, or once for all calls of a size
where it reads none. Where it would take longer than it saves, every pair is tested.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from ...core.cache import Cache, Limit
from ...core.constants import number_of
from ...core.dtypes import DTYPES
from ...core.library import Device, NumpyArray
from ...lower.blocks import (
    Answers,
    Bytes,
    answers_of,
    grid_of,
    joined,
    numbered,
    read_positions,
    truth_positions,
)
from ...lower.kernel import ONCE, ROW, Argument, Kernel
from ...lower.labels import Compared, answers_of_labels, cuts_of, labelled
from ...lower.schedule import TASKS, Accumulation, Partition, Plan, partition
from ...settings import Settings
from ..memory import view_of, widened
from .abi import (
    ANSWERS,
    BAILED_OUT,
    INTERVALS,
    PATTERN_BLOCKS,
    ROW_BLOCKS,
    SPARSE_ROW_BLOCKS,
)
from .launch import SECONDS_PER_OPERATION, Bound, Call, Launcher, Strides

# About how long it takes to find out which blocks are skipped, of one batch element.
_SECONDS = 3e-4
# And for each truth value of pairs.
_SECONDS_PER_TRUTH = 2e-10
# What is known of masks that read what nobody changes; calls come and go with sizes.
_ANSWERS = Limit("blocks of masks", 64, 256 * 2**20)
# The most bytes of tables that are a part of a program.
_MOST_BYTES = 2**20
# The least rows of a run of labels, on average, that have row blocks of their own: half a tile. (A
# call is as fast either way with a third of one.) Where blocks are always skipped, two rows.
_PART_OF_TILE, _SHORTEST = 2, 2
# Row blocks from which on all threads are busy, though columns are not split.
_ROW_BLOCKS = 8


class _Places(NamedTuple):
    """Where the arrays of a call lie."""

    addresses: Sequence[int]
    strides: Sequence[Strides]
    offsets: NumpyArray


class MaskedCall(Call):
    """A fold of the pairs that a mask leaves, with everything bound but its arrays."""

    __slots__ = ("kept",)

    launcher: MaskedLauncher
    kept: tuple[Hashable, Answers] | None

    def __init__(
        self, launcher: Launcher, bound: Bound, words: list[int], alive: tuple[NumpyArray, object]
    ) -> None:
        super().__init__(launcher, bound, words, alive)
        self.kept = None

    def __call__(self, addresses: Sequence[int], alive: object = None) -> None:
        """Fold the arrays at these addresses: results, then arguments."""
        table = self.addressed(addresses)
        answers, tasks = self.answers(addresses, alive), 0
        if answers is not None:
            table[ROW_BLOCKS] = answers.each
            tasks = answers.each * self.bound.parts.batches
            table[SPARSE_ROW_BLOCKS] = answers.row_blocks.ctypes.data
            table[PATTERN_BLOCKS] = len(answers.row_blocks)
            table[INTERVALS] = answers.intervals.ctypes.data
            table[ANSWERS] = answers.words.ctypes.data
        self.work(table, (self, alive, answers), tasks)
        if table[BAILED_OUT]:
            self.launcher.unrearranged(self)(addresses, alive)

    def answers(self, addresses: Sequence[int], arrays: object = None) -> Answers | None:
        """What is known of the mask's blocks; None where every pair is to be tested.

        It is kept for arrays that nobody changes.
        """
        bound = self.bound
        if not bound.asks:
            return None
        key = self.launcher.constants(arrays)
        last = self.kept
        if last is not None and last[0] == key:
            return last[1]
        places = _Places(addresses, self.strides, self.alive[0])
        if key is None:
            return self.launcher.answers(bound, self.sizes, places)
        found = self.launcher.kept_answers(key, bound, self.sizes, places)
        self.kept = key, found
        return found

    def tables(self) -> dict[int, NumpyArray]:
        """What a call reads beside its arrays, whatever these hold."""
        found = super().tables()
        answers = None if found else self.launcher.whatever(self.bound, self.sizes)
        if answers is None:
            return found
        return {
            SPARSE_ROW_BLOCKS: answers.row_blocks,
            INTERVALS: answers.intervals,
            ANSWERS: answers.words,
        }

    def blocks(self, addresses: Sequence[int], arrays: object) -> tuple[int, int, int] | None:
        """How many blocks are skipped, tested, and met whole; None where all are tested."""
        found = self.answers(addresses, arrays)
        return None if found is None else found.counts()


class MaskedLauncher(Launcher):
    """Runs a kernel with a mask on arrays of one dtype and any size."""

    calls = MaskedCall

    def __init__(self, kernel: Kernel, stored: str, accumulation: Accumulation) -> None:
        super().__init__(kernel, stored, accumulation)
        self.reads = read_positions(kernel)
        self._kept: Cache[Answers] = Cache(_ANSWERS)
        self.truths = len(self.reads & truth_positions(kernel))
        self.labelled, self.numbered = labelled(kernel), numbered(kernel)

    def parts(
        self, plan: Plan, rows: int, columns: int, batches: int, options: Settings
    ) -> Partition:
        """How sizes are cut into tasks: columns are split only where blocks are not skipped."""
        dense = partition(plan, rows, columns, batches, self.work, options)
        unit = plan.lane_count if plan.lanes == "row" else 1
        units = -(-rows // unit)
        most = unit * max(1, min(plan.tiles, units * batches // TASKS))
        row_blocks = -(-rows // most)
        few = dense.splits > 1 and row_blocks * batches < _ROW_BLOCKS
        always = options.blocks == "always"
        if not always and (few or not self._asks(plan, rows, columns, batches)):
            return dense
        whole = -(-columns // plan.block) * plan.block
        return Partition(most, row_blocks, 1, whole, batches)

    def _asks(self, plan: Plan, rows: int, columns: int, batches: int) -> bool:
        """Whether it is worth while to find out which blocks are skipped."""
        if not self.reads:
            return columns > plan.block or rows > plan.lane_count
        seconds = rows * columns * batches * self.work / plan.width * SECONDS_PER_OPERATION
        asking = _SECONDS + rows * columns * _SECONDS_PER_TRUTH * self.truths
        return seconds > 2 * asking * batches

    def bind(
        self, rows: int, columns: int, batches: int, options: Settings, device: Device | None = None
    ) -> Bound:
        """Machine code and tasks for these sizes."""
        bound = super().bind(rows, columns, batches, options, device)
        parts, plan = bound.parts, bound.native.plan
        asks = options.blocks == "always" or self._asks(plan, rows, columns, batches)
        bound.asks = parts.splits == 1 and asks and rows > 0 and columns > 0
        return bound

    def constants(self, arrays: object) -> Hashable:
        """What tells the arrays that the mask reads from all others; None where they may change."""
        if not self.reads:
            return ()
        if not isinstance(arrays, list):
            return None
        given = cast("list[object]", arrays)[len(self.kernel.results) :]
        pairs = zip(self.kernel.arguments, given, strict=True)
        found = [number_of(array) for a, array in pairs if a.position in self.reads]
        return None if None in found else tuple(found)

    def kept_answers(
        self, constants: Hashable, bound: Bound, sizes: tuple[int, int], places: _Places
    ) -> Answers:
        """The same for arrays that nobody changes: found once."""
        given = bound.native.plan, bound.parts, bound.options.blocks, places.offsets.tobytes()
        key = (constants, sizes, *given, tuple(places.strides))
        found = self._kept.get(key)
        if found is None:
            found = self.answers(bound, sizes, places)
            found = self._kept.put(key, found, found.bytes)
        return found

    def whatever(self, bound: Bound, sizes: tuple[int, int]) -> Answers | None:
        """What is known of a mask whatever its arrays hold; None where that is nothing, or long.

        It follows from the numbers of rows and columns.
        """
        if not bound.asks or bound.options.blocks == "test" or not self.numbered:
            return None
        grid = grid_of(bound.native.plan, bound.parts, *sizes)
        found = answers_of(self.kernel, None, grid, self.dtype)
        skipped, _, whole = found.counts()
        return found if skipped + whole and found.bytes <= _MOST_BYTES else None

    def answers(self, bound: Bound, sizes: tuple[int, int], places: _Places) -> Answers:
        """What is known of the mask for arrays at these places, of all batch elements."""
        grid = grid_of(bound.native.plan, bound.parts, *sizes)
        ask = bound.options.blocks != "test"
        count = len(self.kernel.results)
        own = [place for place, a in enumerate(self.kernel.arguments) if a.position in self.reads]
        offsets = places.offsets.reshape(-1, count + len(self.kernel.arguments))
        columns = [count + place for place in own]
        alike = not ask or not own or bool((offsets[:, columns] == offsets[:1, columns]).all())
        first = offsets[0]
        if alike and ask and self.labelled and bound.native.plan.lanes == "row":
            # Lanes of columns would add up those of a part in another order.
            always = bound.options.blocks == "always"
            shortest = _SHORTEST if always else grid.cell // _PART_OF_TILE
            cuts = cuts_of(
                self.kernel, lambda n: self._compared(n, sizes, places, first), grid, shortest
            )
            if cuts is not None:
                return answers_of_labels(
                    self.kernel,
                    lambda n, k: self._component(n, k, sizes, places, first),
                    grid,
                    self.dtype,
                    cuts,
                )
        found = [
            answers_of(
                self.kernel,
                lambda position, k, each=each: self._component(position, k, sizes, places, each),
                grid,
                self.dtype,
                ask,
            )
            for each in (offsets[:1] if alike else offsets)
        ]
        return found[0] if len(found) == 1 else joined(found)

    def _component(
        self, position: int, k: int, sizes: tuple[int, int], places: _Places, offsets: NumpyArray
    ) -> NDArray[np.floating] | Bytes:
        """The numbers of a component of an argument, of one batch element; bytes of pairs."""
        argument, address, strides = self._where(position, places, offsets)
        if argument.truth:
            down, _, along = strides
            return cast("Bytes", view_of(address, sizes, (down, along), "uint8"))
        view = view_of(address, self._shape(argument, sizes), strides, self.stored)[:, k]
        found = view if self.stored in ("float32", "float64") else widened(view)
        return found[0] if argument.stage == ONCE else found  # pyright: ignore (an array of one)

    def _compared(
        self, position: int, sizes: tuple[int, int], places: _Places, offsets: NumpyArray
    ) -> list[Compared]:
        """The bits of an argument's rows: all of one together where that is a word."""
        argument, address, strides = self._where(position, places, offsets)
        shape, item = self._shape(argument, sizes), DTYPES[self.stored].bytes
        together = item * argument.dim
        if together in (2, 4, 8) and strides[1] == item:
            return [view_of(address, (shape[0],), strides[:1], f"uint{8 * together}")]
        view = view_of(address, shape, strides, f"uint{8 * item}")
        return [view[:, k] for k in range(argument.dim)]

    def _where(
        self, position: int, places: _Places, offsets: NumpyArray
    ) -> tuple[Argument, int, Strides]:
        """An argument, the address of a batch element, and its strides."""
        number = next(n for n, a in enumerate(self.kernel.arguments) if a.position == position)
        place = len(self.kernel.results) + number
        address = places.addresses[place] + int(offsets[place])
        return self.kernel.arguments[number], address, places.strides[place]

    def _shape(self, argument: Argument, sizes: tuple[int, int]) -> tuple[int, int]:
        rows = 1 if argument.stage == ONCE else sizes[0] if argument.stage == ROW else sizes[1]
        return rows, argument.dim
