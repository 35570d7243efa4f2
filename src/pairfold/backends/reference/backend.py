"""The interpreter as a backend: slow, and what every other is compared with.

It computes in float64 on kernels that nothing has rearranged, and rounds results once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ...core.dtypes import RESULTS
from ...lower.kernel import COLUMN, ONCE, PAIR, ROW, Kernel
from ...lower.pattern import Pattern
from ...lower.schedule import Accumulation
from ...settings import Settings
from ..interface import Strides
from ..memory import Floats, Stored, view_of, widened
from ..shown import Subject
from . import interpreter
from .explained import ReferenceExplanation, explain


class ReferenceCall:
    """A reduction with everything bound but its arrays."""

    def __init__(
        self,
        launcher: ReferenceLauncher,
        pattern: Pattern | None,
        sizes: tuple[int, int],
        strides: Sequence[Strides],
        offsets: NDArray[np.int64] | None,
    ) -> None:
        self.launcher, self.pattern, self.sizes = launcher, pattern, sizes
        self.strides = list(strides)
        self.offsets = np.zeros((1, len(strides)), np.int64) if offsets is None else offsets

    def __call__(self, addresses: Sequence[int], arrays: object = None) -> None:
        """Interpret the kernel for one batch element after the other."""
        launcher, kernel = self.launcher, self.launcher.kernel
        shapes, dtypes = launcher.shapes(*self.sizes), launcher.dtypes
        count = len(kernel.results)
        for offsets in self.offsets:
            views = [
                view_of(address + int(offset), shape, strides, dtype)
                for address, offset, shape, strides, dtype in zip(
                    addresses, offsets, shapes, self.strides, dtypes, strict=True
                )
            ]
            given = {
                argument.position: widened(_placed(view, argument.stage))
                for argument, view in zip(kernel.arguments, views[count:], strict=True)
            }
            for view, values in zip(views, self._results(given), strict=False):
                view[...] = _stored(values, view.dtype)

    def _results(self, given: dict[int, Floats]) -> list[Stored]:
        rows, columns = self.sizes
        if self.pattern is None:
            return interpreter.evaluate_all(self.launcher.kernel, given, rows, columns)
        return interpreter.evaluate_sparse(self.launcher.kernel, given, rows, self.pattern)


class ReferenceLauncher:
    """Interprets one kernel on arrays of one dtype and any size."""

    def __init__(self, kernel: Kernel, stored: str) -> None:
        self.kernel, self.stored = kernel, stored
        results = [RESULTS.get(kind, stored) for kind in kernel.kinds]
        self.dtypes = results + ["bool" if a.truth else stored for a in kernel.arguments]

    def shapes(self, rows: int, columns: int) -> list[tuple[int, ...]]:
        """Of one batch element of results and arguments, in the order of their strides."""
        length = {ONCE: 1, ROW: rows, COLUMN: columns}
        found: list[tuple[int, ...]] = [
            (length[each.axis], width)
            for each in self.kernel.accumulators
            for width in each.folded.results
        ]
        return found + [
            (rows, a.dim, columns) if a.stage == PAIR else (length[a.stage], a.dim)
            for a in self.kernel.arguments
        ]

    def bind(
        self, rows: int, columns: int, batches: int, options: Settings, device: object = None
    ) -> None:
        """Nothing is made for sizes."""

    def bind_sparse(
        self, rows: int, batches: int, options: Settings, pattern: Pattern, device: object = None
    ) -> Pattern:
        """The pattern itself."""
        return pattern

    def call(
        self,
        bound: Pattern | None,
        rows: int,
        columns: int,
        strides: Sequence[Strides],
        offsets: NDArray[np.int64] | None = None,
    ) -> ReferenceCall:
        """A reduction of these sizes, over all pairs or those of the pattern that is bound."""
        return ReferenceCall(self, bound, (rows, columns), strides, offsets)


class Reference:
    """Kernels interpreted by NumPy, on arrays in the host's memory."""

    name = "reference"
    on_devices = False
    fuses = False

    def lowering(self, options: Settings) -> Settings:
        """Without rearrangement: what a formula says is what is computed."""
        return dataclasses.replace(options, rules="exact")

    def launcher(self, kernel: Kernel, dtype: str, accumulation: Accumulation) -> ReferenceLauncher:
        """A launcher of a kernel; sums are in float64 however they are to be accumulated."""
        return ReferenceLauncher(kernel, dtype)

    def explain(
        self, subject: Subject, launcher: ReferenceLauncher, options: Settings
    ) -> ReferenceExplanation:
        """How a launcher's kernel is run for some sizes."""
        return explain(subject, launcher.kernel)


def _placed(view: Stored, stage: int) -> Stored:
    """An argument as the interpreter takes it."""
    if stage == PAIR:
        return view.swapaxes(1, 2)
    return view[0] if stage == ONCE else view


def _stored(values: Stored, dtype: np.dtype[np.generic]) -> Stored:
    """Values rounded to what memory holds; to bfloat16 with ties to even bits."""
    if dtype != np.uint16:
        with np.errstate(all="ignore"):
            return values.astype(dtype)
    with np.errstate(all="ignore"):
        bits = values.astype(np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.where(np.isnan(values), 0x7FC0, rounded).astype(np.uint16)
