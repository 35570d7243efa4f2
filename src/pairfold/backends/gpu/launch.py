"""From a kernel and sizes to launches on a GPU: tiling, grid, memory, order of passes.

The counterpart of `backends.llvm.launch`: a launcher belongs to a kernel and dtype, a call to
shapes and strides; a call takes arrays, and enqueues its programs on the current stream of their
device. Memory beside them is of their library, which the device stands for. It waits for nothing,
so that a CUDA graph can record it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Sequence

from ...core.cache import Cache, Limit
from ...core.dtypes import DTYPES, result_bytes
from ...core.library import Array, Device, NumpyArray
from ...lower.kernel import ONCE, Kernel, unrearranged
from ...lower.pattern import Pattern
from ...lower.schedule import Accumulation
from ...lower.tiling import Grid, Tiling, grid, groups_of, tilings
from ...settings import Settings
from .compiled import Launched, Program, interpreting, triton

Strides = tuple[int, ...]

# What is kept with each launcher: the programs of tilings, and grids for sizes.
_PROGRAMS, _SIZES = Limit("GPU programs", 4096), Limit("GPU sizes", 4096)
_MANY_ROWS = 1 << 16
# What one launch may use for tables, and the most programs of one launch.
_SCRATCH_BYTES = 1 << 27
_MOST_PROGRAMS = (1 << 31) - 1
# Multiprocessors of a device that nobody names.
_PROCESSORS = 1
_ENTRY_BYTES = 8


class Bound:
    """Programs and a grid for given sizes, or for a pattern; `plain` follows where it may.

    Without a device it is to be looked at, not called.
    """

    __slots__ = ("device", "grid", "options", "pattern", "plain", "program", "sizes", "untuned")

    def __init__(
        self,
        program: Program,
        plain: Program | None,
        parts: Grid,
        sizes: tuple[int, int, int],
        options: Settings,
        device: Device | None,
        pattern: Pattern | None = None,
    ) -> None:
        self.device = device
        self.program, self.plain, self.grid = program, plain, parts
        self.sizes, self.options, self.pattern = sizes, options, pattern
        self.untuned = options.autotune and pattern is None and not interpreting()

    def workspace(self) -> int:
        """Bytes of memory beside the arrays."""
        most = 0
        for program in (self.program, self.plain):
            if program is None:
                continue
            left, parts = 0, grid_of(program, self.grid)
            if parts.splits > 1:
                left = entries(program, parts) * _ENTRY_BYTES
            cells = program.source.cells and wave(program, parts) * parts.groups
            cells *= program.source.cells
            most = max(most, left + cells * cell_bytes(program))
        return most


class GpuLauncher:
    """Runs one kernel on tensors of one dtype and any size."""

    def __init__(self, kernel: Kernel, stored: str, accumulation: Accumulation) -> None:
        self.kernel, self.stored, self.accumulation = kernel, stored, accumulation
        self.dtype = DTYPES[stored].computed
        self.once = [argument.stage == ONCE for argument in kernel.arguments]
        self._bound: Cache[Bound] = Cache(_SIZES)
        self._programs: Cache[tuple[Program, Program | None]] = Cache(_PROGRAMS)
        self._unrearranged: Kernel | None = None

    def alternatives(self, rows: int, options: Settings) -> list[Tiling]:
        """The tilings that settings leave open; the one to use comes first."""
        given = (self.dtype, self.stored, self.accumulation, options, min(rows, _MANY_ROWS))
        return tilings(self.kernel, *given)

    def programs(self, tiling: Tiling) -> tuple[Program, Program | None]:
        """The program of a tiling, and the one that makes no assumptions, if it makes some."""
        found = self._programs.get(tiling)
        if found is None:
            main, plain = Program(self.kernel, tiling), None
            if main.source.checked:
                if self._unrearranged is None:
                    self._unrearranged = unrearranged(self.kernel)
                plain = Program(self._unrearranged, self._without(tiling), guarded=True)
            found = self._programs.put(tiling, (main, plain))
        return found

    def _without(self, tiling: Tiling) -> Tiling:
        """A tiling for the kernel without rearrangement, which has another formula."""
        assert self._unrearranged is not None
        options = Settings(dot=tiling.dot, tile=f"{tiling.rows}x{tiling.columns}x{tiling.warps}")
        # Where a mask leaves pairs out, no 0 may meet what is infinite or NaN.
        given = (self.dtype, self.stored, self.accumulation, options, 1, self.kernel.keep is None)
        found = tilings(self._unrearranged, *given)[0]
        return dataclasses.replace(
            found,
            relaxed=tiling.relaxed,
            batched=tiling.batched,
            sparse=tiling.sparse,
            split=tiling.split,
        )

    def bind(
        self,
        rows: int,
        columns: int,
        batches: int,
        options: Settings,
        device: Device | None = None,
    ) -> Bound:
        """Programs and a grid for these sizes."""
        key = (rows, columns, batches, options, device)
        bound = self._bound.get(key)
        if bound is None:
            tiling = self.alternatives(rows, options)[0]
            bound = self.bound(tiling, (rows, columns, batches), options, device)
            self.keep(bound)
        return bound

    def keep(self, bound: Bound) -> None:
        """Use these programs and this grid for their sizes from now on."""
        self._bound.replace((*bound.sizes, bound.options, bound.device), bound)

    def bound(
        self, tiling: Tiling, sizes: tuple[int, int, int], options: Settings, device: Device | None
    ) -> Bound:
        """Programs and a grid of one tiling."""
        processors = _PROCESSORS if device is None else device.processors()
        parts = grid(tiling, self.kernel, sizes, processors, options)
        shape = {"batched": sizes[2] > 1, "split": parts.splits > 1}
        main, plain = self.programs(dataclasses.replace(tiling, **shape))
        return Bound(main, plain, parts, sizes, options, device)

    def bind_sparse(
        self,
        rows: int,
        batches: int,
        options: Settings,
        pattern: Pattern,
        device: Device | None = None,
    ) -> Bound:
        """Programs and a grid for a pattern; the reduced axis is not split."""
        tiling = self.alternatives(pattern.typical[0], options)[0]
        tiling = dataclasses.replace(tiling, batched=batches > 1, sparse=True)
        main, plain = self.programs(tiling)
        row_blocks = len(pattern.row_blocks(rows, tiling.rows))
        parts = Grid(row_blocks, 1, 0, batches, groups_of(self.kernel, tiling))
        return Bound(main, plain, parts, (rows, 0, batches), options, device, pattern)

    def call(
        self,
        bound: Bound,
        rows: int,
        columns: int,
        strides: Sequence[Strides],
        offsets: NumpyArray | None = None,
    ) -> GpuCall:
        """A fold of these sizes, to be called with arrays of the device.

        `strides`: (of rows, of components) in bytes, of the results, then of the arguments in the
        order of `kernel.arguments`; what every pair has has one of columns, too. `offsets`: int64
        array (batches, arrays) of byte offsets, or None for a single batch element.
        """
        items = [result_bytes(kind, self.stored) for kind in self.kernel.kinds]
        items += [1 if a.truth else DTYPES[self.stored].bytes for a in self.kernel.arguments]
        given = [
            tuple(stride // item for stride in own)
            for own, item in zip(strides, items, strict=True)
        ]
        steps = None if offsets is None else offsets // items
        return GpuCall(self, bound, (rows, columns), given, steps)


class GpuCall:
    """A fold with everything bound but its arrays."""

    def __init__(
        self,
        launcher: GpuLauncher,
        bound: Bound,
        sizes: tuple[int, int],
        strides: Sequence[Strides],
        offsets: NumpyArray | None,
    ) -> None:
        assert bound.device is not None
        self.launcher, self.bound, self.sizes, self.device = launcher, bound, sizes, bound.device
        self.strides, self.offsets = strides, offsets
        self._uploaded: Array | None = None

    def __call__(self, addresses: Sequence[int], arrays: Sequence[Array]) -> None:
        """Fold arrays: results, then arguments."""
        with self.device.current():
            if self.bound.untuned and not self.device.recording():
                self._tune(arrays)
            self.launch(self.bound, arrays)

    def launch(self, bound: Bound, arrays: Sequence[Array]) -> None:
        """Enqueue the programs.

        The first sets a flag where it bails out; the plain one, which assumes nothing,
        then replaces its results.
        """
        flag = None if bound.plain is None else self.device.zeros(1, "int32")
        for program in (bound.program, bound.plain):
            if program is not None:
                parts = grid_of(program, bound.grid)
                left = self._leave(program, parts, arrays, flag)
                if left is not None:
                    self._merge(program, parts, arrays, flag, left)

    def _leave(
        self, program: Program, parts: Grid, arrays: Sequence[Array], flag: Array | None
    ) -> Array | None:
        """The tasks of one program, and what they leave where the reduced axis is split."""
        left = None
        values = self._values(program, parts, arrays)
        values["flag"] = flag
        if program.tiling.split:
            values["partial"] = left = self.device.empty(entries(program, parts), "float64")
        self._waves(program, parts, parts.tasks, values, False)
        return left

    def _merge(
        self,
        program: Program,
        parts: Grid,
        arrays: Sequence[Array],
        flag: Array | None,
        left: Array,
    ) -> None:
        """Merge what the parts of the reduced axis left, in order, into the results."""
        values = self._values(program, parts, arrays)
        values.update(flag=flag, partial=left)
        self._waves(program, parts, parts.row_blocks * parts.batches, values, True)

    def _waves(
        self, program: Program, parts: Grid, tasks: int, values: dict[str, object], combine: bool
    ) -> None:
        """So many tasks, in launches whose scratch memory stays small."""
        step = wave(program, parts)
        if program.source.cells:
            size = min(step, tasks) * parts.groups * program.source.cells
            values["scratch"] = self.device.empty(size, program.tiling.dtype)
        for task in range(0, tasks, step):
            values["first_task"] = task
            programs = (min(step, tasks - task), parts.groups)
            function = program.combine if combine else program.main
            self._enqueue(function, program, programs, values, combine)

    # ---- arguments ----------------------------------------------------------------------------

    def _enqueue(
        self,
        function: Launched,
        program: Program,
        programs: tuple[int, int],
        values: dict[str, object],
        combine: bool,
    ) -> None:
        source = program.source
        names = source.combine_arguments if combine else source.arguments
        given = [values[name] for name in names]
        function[programs](
            *given, **program.constants, num_warps=program.tiling.warps, num_stages=1
        )

    def _values(self, program: Program, parts: Grid, arrays: Sequence[Array]) -> dict[str, object]:
        """Arguments by name."""
        rows, columns = self.sizes
        values: dict[str, object] = {
            "M": rows,
            "N": columns,
            "row_blocks": parts.row_blocks,
            "splits": parts.splits,
            "per_split": parts.per_split,
        }
        values.update(self._tables(program))
        names = [name for name in program.source.arguments if name[0] in "oxypz"]
        pointers = [name for name in names if name[1:].isdigit()]
        for name, array, own in zip(pointers, arrays, self.strides, strict=True):
            values[name] = array
            values.update(zip((f"{name}_r", f"{name}_c", f"{name}_j"), own, strict=False))
            if name[0] == "x" and int(name[1:]) in program.source.centres:
                values[f"centre{name[1:]}"] = self.device.means(array)
        return values

    def _tables(self, program: Program) -> dict[str, object]:
        """Offsets of batch elements and the pattern, on the device, uploaded once."""
        found: dict[str, object] = {}
        device, offsets, pattern = self.device, self.offsets, self.bound.pattern
        if offsets is not None:
            if self._uploaded is None:
                self._uploaded = device.uploaded(offsets)
            found["offsets"] = self._uploaded
        if pattern is not None:
            rows, most = self.sizes[0], program.tiling.rows
            found["table"] = _once(
                pattern.kept, (device, rows, most),
                lambda: device.uploaded(pattern.row_blocks(rows, most)),
            )  # fmt: skip
            found["intervals"] = _once(
                pattern.kept, device, lambda: device.uploaded(pattern.intervals)
            )
        return found

    def _tune(self, arrays: Sequence[Array]) -> None:
        """Time the likeliest tilings, and keep the fastest for such sizes."""
        bound, launcher = self.bound, self.launcher
        bench = triton().testing.do_bench
        times: list[tuple[float, int, Bound]] = []
        for n, tiling in enumerate(launcher.alternatives(bound.sizes[0], bound.options)[:_TUNED]):
            other = launcher.bound(tiling, bound.sizes, bound.options, self.device)
            times.append((bench(lambda o=other: self.launch(o, arrays), 5, 20), n, other))
        self.bound = min(times)[2]
        self.bound.untuned = bound.untuned = False
        launcher.keep(self.bound)


_TUNED = 4


def grid_of(program: Program, parts: Grid) -> Grid:
    """A grid for a program that may share components in another way than the one it is for."""
    return dataclasses.replace(parts, groups=groups_of(program.kernel, program.tiling))


def entries(program: Program, parts: Grid) -> int:
    """Numbers that the parts of a split axis leave."""
    return parts.tasks * parts.groups * program.source.entries * program.tiling.rows


def cell_bytes(program: Program) -> int:
    """The size of a number of scratch memory."""
    return DTYPES[program.tiling.dtype].bytes


def wave(program: Program, parts: Grid) -> int:
    """Tasks of one launch: so many that their scratch memory stays small."""
    if not program.source.cells:
        return _MOST_PROGRAMS
    each = program.source.cells * cell_bytes(program) * parts.groups
    return max(1, min(parts.tasks, _SCRATCH_BYTES // each))


def _once(kept: dict[Hashable, object], key: Hashable, make: Callable[[], object]) -> object:
    found = kept.get(key)
    if found is None:
        found = kept[key] = make()
    return found
