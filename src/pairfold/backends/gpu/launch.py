"""From a kernel and sizes to launches on a GPU: tiling, grid, memory of torch's, order of passes.

The counterpart of `backends.launch`: a launcher belongs to a kernel and dtype, a call to shapes and
strides; a call takes tensors, and enqueues its programs on the current stream of their device. It
waits for nothing, so that a CUDA graph can record it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Sequence
from typing import Any

from ...lower.kernel import ONCE, Kernel, literally
from ...lower.pattern import Pattern
from ...lower.schedule import Accumulation
from ...lower.tiling import Grid, Tiling, grid, groups_of, tilings
from ...settings import Settings
from ..storage import BYTES_STORED, STORED
from .compiled import Program, interpreting, triton

Strides = tuple[int, int]

_KEPT = 256
_MANY_ROWS = 1 << 16
# What one launch may use for tables, and the most programs of one launch.
_SCRATCH_BYTES = 1 << 27
_MOST_PROGRAMS = (1 << 31) - 1
# Multiprocessors that the interpreter pretends to have.
_INTERPRETED = 1
_ITEM = {"index": 8, "truth": 1}


class Bound:
    """Programs and a grid for given sizes, or for a pattern; `literal` follows where it may."""

    __slots__ = ("grid", "literal", "options", "pattern", "program", "sizes")

    def __init__(
        self,
        program: Program,
        literal: Program | None,
        parts: Grid,
        sizes: tuple[int, int, int],
        options: Settings,
        pattern: Pattern | None = None,
    ) -> None:
        self.program, self.literal, self.grid = program, literal, parts
        self.sizes, self.options, self.pattern = sizes, options, pattern


class GpuLauncher:
    """Runs one kernel on tensors of one dtype and any size."""

    by_address = False

    def __init__(self, kernel: Kernel, stored: str, accumulation: Accumulation) -> None:
        self.kernel, self.stored, self.accumulation = kernel, stored, accumulation
        self.dtype = STORED[stored]
        self.once = [argument.stage == ONCE for argument in kernel.arguments]
        self._bound: dict[Any, Bound] = {}
        self._programs: dict[Tiling, tuple[Program, Program | None]] = {}
        self._literal: Kernel | None = None
        self.chosen: dict[Any, Tiling] = {}

    def alternatives(self, rows: int, options: Settings) -> list[Tiling]:
        """The tilings that settings leave open; the one to use comes first."""
        given = (self.dtype, self.stored, self.accumulation, options, min(rows, _MANY_ROWS))
        return tilings(self.kernel, *given)

    def programs(self, tiling: Tiling) -> tuple[Program, Program | None]:
        """The program of a tiling, and the one that makes no assumptions, if it makes some."""
        found = self._programs.get(tiling)
        if found is None:
            main, literal = Program(self.kernel, tiling), None
            if main.source.checked:
                if self._literal is None:
                    self._literal = literally(self.kernel)
                literal = Program(self._literal, self._without(tiling), guarded=True)
            found = self._programs.setdefault(tiling, (main, literal))
        return found

    def _without(self, tiling: Tiling) -> Tiling:
        """A tiling for the literal kernel, which has another formula."""
        assert self._literal is not None
        options = Settings(dot=tiling.dot, tile=f"{tiling.rows}x{tiling.columns}x{tiling.warps}")
        given = (self.dtype, self.stored, self.accumulation, options, 1)
        found = tilings(self._literal, *given)[0]
        return dataclasses.replace(
            found,
            relaxed=tiling.relaxed,
            batched=tiling.batched,
            sparse=tiling.sparse,
            split=tiling.split,
        )

    def bind(
        self, rows: int, columns: int, batches: int, options: Settings, device: Any = None
    ) -> Bound:
        """Programs and a grid for these sizes."""
        key = (rows, columns, batches, options, str(device))
        bound = self._bound.get(key)
        if bound is None:
            tiling = self.chosen.get((rows, columns, batches, options))
            tiling = tiling or self.alternatives(rows, options)[0]
            bound = self.bound(tiling, (rows, columns, batches), options, device)
            if len(self._bound) >= _KEPT:
                self._bound.clear()
            self._bound[key] = bound
        return bound

    def bound(
        self, tiling: Tiling, sizes: tuple[int, int, int], options: Settings, device: Any
    ) -> Bound:
        """Programs and a grid of one tiling."""
        parts = grid(tiling, self.kernel, sizes, processors(device), options)
        shape = {"batched": sizes[2] > 1, "split": parts.splits > 1}
        main, literal = self.programs(dataclasses.replace(tiling, **shape))
        return Bound(main, literal, parts, sizes, options)

    def bind_sparse(
        self, rows: int, batches: int, options: Settings, pattern: Pattern, device: Any = None
    ) -> Bound:
        """Programs and a grid for a pattern; the reduced axis is not split."""
        tiling = self.alternatives(pattern.typical[0], options)[0]
        tiling = dataclasses.replace(tiling, batched=batches > 1, sparse=True)
        main, literal = self.programs(tiling)
        panels = len(pattern.panels(rows, tiling.rows))
        parts = Grid(panels, 1, 0, batches, groups_of(self.kernel, tiling))
        return Bound(main, literal, parts, (rows, 0, batches), options, pattern)

    def call(
        self, bound: Bound, rows: int, columns: int, strides: Sequence[Strides], offsets: Any = None
    ) -> GpuCall:
        """A fold of these sizes, to be called with tensors.

        `strides`: (of rows, of components) in bytes, of the results, then of the arguments in the
        order of `kernel.arguments`. `offsets`: int64 array (batches, arrays) of byte offsets, or
        None for a single batch element.
        """
        items = [
            _ITEM.get(r.kind, BYTES_STORED[self.stored]) for r in self.kernel.reduction.results
        ]
        items += [BYTES_STORED[self.stored]] * len(self.kernel.arguments)
        given = [
            (row // item, own // item) for (row, own), item in zip(strides, items, strict=True)
        ]
        steps = None if offsets is None else offsets // items
        return GpuCall(self, bound, (rows, columns), given, steps)


class GpuCall:
    """A fold with everything bound but its tensors."""

    def __init__(
        self,
        launcher: GpuLauncher,
        bound: Bound,
        sizes: tuple[int, int],
        strides: Sequence[Strides],
        offsets: Any,
    ) -> None:
        self.launcher, self.bound, self.sizes = launcher, bound, sizes
        self.strides, self.offsets = strides, offsets
        self._uploaded: dict[Any, dict[str, Any]] = {}
        self._tuned = not bound.options.autotune or interpreting() or bound.pattern is not None

    def __call__(self, tensors: Sequence[Any]) -> None:
        """Fold the tensors: results, then arguments."""
        device = tensors[0].device
        with on_device(device):
            if not self._tuned:
                self._tune(tensors)
            self.launch(self.bound, tensors)

    def launch(self, bound: Bound, tensors: Sequence[Any]) -> None:
        """Enqueue the programs."""
        torch = sys.modules["torch"]
        device = tensors[0].device
        flag = None
        if bound.literal is not None:
            flag = torch.zeros(1, dtype=torch.int32, device=device)
        self._fold(bound.program, bound.grid, tensors, flag)
        if bound.literal is not None:
            groups = groups_of(bound.literal.kernel, bound.literal.tiling)
            parts = dataclasses.replace(bound.grid, groups=groups)
            self._fold(bound.literal, parts, tensors, flag)

    def _fold(self, program: Program, parts: Grid, tensors: Sequence[Any], flag: Any) -> None:
        """The tasks of one program, and the merge of what they leave."""
        torch = sys.modules["torch"]
        device, source = tensors[0].device, program.source
        values = self._values(program, parts, tensors)
        values["flag"] = flag
        if parts.splits > 1:
            size = parts.tasks * parts.groups * source.entries * program.tiling.rows
            values["partial"] = torch.empty(size, dtype=torch.float64, device=device)
        wave = _MOST_PROGRAMS
        if source.cells:
            cell = 8 if program.tiling.dtype == "float64" else 4
            wave = max(1, min(parts.tasks, _SCRATCH_BYTES // (source.cells * cell * parts.groups)))
            dtype = getattr(torch, program.tiling.dtype)
            size = wave * parts.groups * source.cells
            values["scratch"] = torch.empty(size, dtype=dtype, device=device)
        for first in range(0, parts.tasks, wave):
            values["first_task"] = first
            programs = min(wave, parts.tasks - first)
            self._enqueue(program.main, program, (programs, parts.groups), values, False)
        merged = parts.panels * parts.batches if parts.splits > 1 else 0
        for first in range(0, merged, wave):
            values["first_task"] = first
            programs = min(wave, merged - first)
            self._enqueue(program.combine, program, (programs, parts.groups), values, True)

    def _enqueue(
        self, function: Any, program: Program, programs: tuple[int, int], values: Any, combine: bool
    ) -> None:
        source = program.source
        names = source.combine_arguments if combine else source.arguments
        given = [values[name] for name in names]
        function[programs](
            *given, **program.constants, num_warps=program.tiling.warps, num_stages=1
        )

    def _values(self, program: Program, parts: Grid, tensors: Sequence[Any]) -> dict[str, Any]:
        """Arguments by name."""
        rows, columns = self.sizes
        values: dict[str, Any] = {
            "M": rows,
            "N": columns,
            "first_column": 0,
            "panels": parts.panels,
            "splits": parts.splits,
            "per_split": parts.per_split,
        }
        values.update(self._tables(program, tensors[0].device))
        names = [name for name in program.source.arguments if name[0] in "oxyp"]
        pointers = [name for name in names if name[1:].isdigit()]
        for name, tensor, (row, own) in zip(pointers, tensors, self.strides, strict=True):
            values[name], values[f"{name}_r"], values[f"{name}_c"] = tensor, row, own
            if name[0] == "x" and int(name[1:]) in program.source.centres:
                others = tuple(range(tensor.dim() - 1))
                dtype = sys.modules["torch"].float32
                values[f"centre{name[1:]}"] = tensor.mean(others, dtype=dtype)
        return values

    def _tables(self, program: Program, device: Any) -> dict[str, Any]:
        """Offsets of batch elements and the pattern, on the device, kept with the call."""
        key = (device, program.tiling.rows)
        found = self._uploaded.get(key)
        if found is None:
            found = {}
            if self.offsets is not None:
                found["offsets"] = uploaded(self.offsets, device)
            pattern = self.bound.pattern
            if pattern is not None:
                panels = pattern.panels(self.sizes[0], program.tiling.rows)
                found["table"] = uploaded(panels, device)
                found["intervals"] = uploaded(pattern.intervals, device)
            self._uploaded[key] = found
        return found

    def _tune(self, tensors: Sequence[Any]) -> None:
        """Time the likeliest tilings, and keep the fastest for such sizes."""
        bound, launcher = self.bound, self.launcher
        bench = triton().testing.do_bench
        times: list[tuple[float, int, Bound]] = []
        for n, tiling in enumerate(launcher.alternatives(bound.sizes[0], bound.options)[:_TUNED]):
            other = launcher.bound(tiling, bound.sizes, bound.options, tensors[0].device)
            times.append((bench(lambda o=other: self.launch(o, tensors), 5, 20), n, other))
        _, n, self.bound = min(times)
        tiling = launcher.alternatives(bound.sizes[0], bound.options)[n]
        launcher.chosen[(*bound.sizes, bound.options)] = tiling
        self._tuned = True


_TUNED = 4


def uploaded(array: Any, device: Any) -> Any:
    """A NumPy array of whole numbers as a tensor on a device."""
    torch = sys.modules["torch"]
    return torch.as_tensor(array.astype("int64", copy=True)).contiguous().to(device)


def processors(device: Any) -> int:
    """Multiprocessors of a device."""
    if device is None or device.type == "cpu":
        return _INTERPRETED
    return sys.modules["torch"].cuda.get_device_properties(device).multi_processor_count


def on_device(device: Any) -> Any:
    """A context in which a device is torch's current one; its current stream is used."""
    if device.type == "cpu":
        return contextlib.nullcontext()
    return sys.modules["torch"].cuda.device(device)
