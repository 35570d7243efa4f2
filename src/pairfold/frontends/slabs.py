"""Slabs: host arrays copied to a GPU and their results back, in parts where they do not fit.

Batch elements and rows are computed apart from each other, so they are cut as they are. Where not
even the columns fit, each slab of columns leaves the states of rows so far, as the parts of a split
axis do, and these are merged in order.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Protocol, cast

from ..arrays.library import ArrayLibrary
from ..core.dtypes import DTYPES, result_bytes
from ..core.library import Array
from ..core.node import Axis
from ..core.progress import progress_bar
from ..errors import MemoryLimitError
from ..settings import current
from .partial import States, finished, merged, partial, widths
from .ranges import Ranges
from .reduction import Binding, FormulaReduction


class _Bound(Protocol):
    """What a launcher on a GPU makes for sizes."""

    def workspace(self) -> int: ...


@dataclass(frozen=True)
class Cut:
    """The most batch elements (along each batch axis), rows and columns of a slab."""

    batch: tuple[int, ...]
    rows: int
    columns: int


class Slabs:
    """A fold of host arrays on a GPU.

    `there` makes tensors on the device of arrays, `back` copies them into arrays, `tensors` is the
    library of tensors there.
    """

    def __init__(
        self,
        fold: FormulaReduction,
        arrays: Sequence[Array],
        binding: Binding,
        there: Callable[[Array], Array],
        back: Callable[[Array, Array], None],
        tensors: ArrayLibrary,
    ) -> None:
        self.fold, self.arrays, self.binding, self.tensors = fold, arrays, binding, tensors
        self.there, self.back = there, back
        self.kinds = [v.params[2] for v in fold.variables]
        self.alive = {position for position, _ in binding.positions}
        self.truths = {a.position for a in binding.launcher.kernel.arguments if a.truth}
        self.whole = Cut(tuple(binding.sizes.batch), binding.rows, binding.columns)

    # -- how much fits --------------------------------------------------------------------------

    def bytes(self, cut: Cut) -> tuple[int, int, int]:
        """Memory for parameters, for what grows with rows (and columns), and for columns."""
        found = dict.fromkeys(Axis, 0)
        dtype = self.binding.dtype
        item = DTYPES[dtype].bytes
        for position in self.alive:
            kind, shape = self.kinds[position], tuple(self.arrays[position].shape)
            lead = shape[: len(shape) - kind.axes]
            count = math.prod(map(min, lead[::-1], cut.batch[::-1]))
            truth = position in self.truths
            found[kind] += count * shape[-1] * (1 if truth else item)
        kept = self.fold.kept
        (reduced,) = {Axis.I, Axis.J} - {kept}
        count = math.prod(cut.batch)
        for width, result in zip(self.fold.widths, self.fold.row.results, strict=True):
            found[kept] += count * width * result_bytes(result.kind, dtype)
        if cut.columns < self.whole.columns:  # states so far, of a slab, and of both
            found[kept] += 3 * count * sum(widths(self.fold)) * result_bytes("state", dtype)
        of_rows = cut.rows * (found[kept] + cut.columns * found[Axis.PAIR])
        return found[Axis.PARAMETER], of_rows, cut.columns * found[reduced]

    def cut(self, free: int, ranges: Ranges | None) -> Cut:
        """The largest slabs, by halving, that fit into so much memory.

        Raises:
            MemoryLimitError: what does not fit must not be cut, for ranges or numbers of rows.
        """
        cut = self.whole
        while True:
            parameters, rows, columns = self.bytes(cut)
            needed = parameters + rows + columns + self._workspace(cut, ranges)
            if needed <= free:
                return cut
            axis = next((n for n, size in enumerate(cut.batch) if size > 1), None)
            if axis is not None:
                batch = list(cut.batch)
                batch[axis] = -(-batch[axis] // 2)
                cut = Cut(tuple(batch), cut.rows, cut.columns)
                continue
            own, others = self._open(cut)
            alone = ranges is not None or not others
            if own and (alone or rows >= columns or 2 * columns <= free):
                cut = Cut(cut.batch, -(-cut.rows // 2), cut.columns)
            elif self.fold.counts_pairs and alone and (cut.rows > 1 or cut.columns > 1):
                raise MemoryLimitError(
                    "rows and columns whose numbers a formula reads must fit into a GPU's memory",
                    found=f"{needed} bytes for {cut.rows} rows and {cut.columns} columns, "
                    f"{free} bytes free",
                    hint='backend="CPU"',
                )
            elif ranges is not None:
                raise MemoryLimitError(
                    "the columns of a block-sparse reduction must fit into a GPU's memory",
                    found=f"{columns} bytes of columns, {free} bytes free",
                    hint='backend="CPU"',
                )
            elif others:
                cut = Cut(cut.batch, cut.rows, -(-cut.columns // 2))
            else:
                return cut  # torch says that there is no memory

    def _open(self, cut: Cut) -> tuple[bool, bool]:
        """Whether rows and columns may be cut further: where no formula reads their numbers."""
        kept, counted = self.fold.kept, self.fold.counted_axes
        return cut.rows > 1 and kept not in counted, cut.columns > 1 and kept.other not in counted

    def _workspace(self, cut: Cut, ranges: Ranges | None) -> int:
        binding, count = self.binding, math.prod(cut.batch)
        device, options = binding.device, binding.options
        if ranges is not None:
            pattern = self.fold.pattern(ranges, binding.sizes)
            bound = binding.launcher.bind_sparse(cut.rows, count, options, pattern, device)
            return cast("_Bound", bound).workspace() + pattern.intervals.nbytes
        bound = binding.launcher.bind(cut.rows, cut.columns, count, options, device)
        return cast("_Bound", bound).workspace()

    # -- slabs, one after the other -------------------------------------------------------------

    def run(self, results: Sequence[Array], ranges: Ranges | None) -> None:
        """Fill host arrays with the results."""
        assert self.binding.device is not None
        cut = self.cut(self.binding.device.free_memory(), ranges)
        batches = list(_boxes(self.whole.batch, cut.batch))
        rows = list(_slices(self.whole.rows, cut.rows))
        columns = list(_slices(self.whole.columns, cut.columns))
        total = len(batches) * len(rows) * len(columns)
        shown = progress_bar(total) if current().progress and total > 1 else nullcontext()
        done = itertools.count(1)
        with shown as show:

            def step() -> None:
                if show is not None:
                    show(next(done))

            for box in batches:
                fixed = self._there(box, self._reduced, columns[0]) if len(columns) == 1 else {}
                fixed.update(self._there(box, Axis.PARAMETER))
                for part in rows:
                    given = {**fixed, **self._there(box, self.fold.kept, part)}
                    if len(columns) == 1:
                        given.update(self._pairs(box, part, columns[0]))
                    found = self._folded(given, box, part, columns, ranges, step)
                    for tensor, into in zip(found, results, strict=True):
                        self.back(tensor, into[(*box, part)])

    @property
    def _reduced(self) -> Axis:
        return Axis.J if self.fold.kept == Axis.I else Axis.I

    def _pairs(self, box: Sequence[slice], rows: slice, columns: slice) -> dict[int, Array]:
        """The arguments that every pair has, cut, on the device."""
        cut = (rows, columns) if self.fold.kept == Axis.I else (columns, rows)
        return self._there(box, Axis.PAIR, *cut)

    def _there(self, box: Sequence[slice], kind: Axis, *cut: slice) -> dict[int, Array]:
        """The arguments of a kind on the device, cut along batch axes and those of pairs."""
        found: dict[int, Array] = {}
        for position, array in enumerate(self.arrays):
            if self.kinds[position] != kind:
                continue
            lead = tuple(array.shape)[: len(array.shape) - kind.axes]
            repeated = [slice(None)] * max(0, len(lead) - len(box))
            taken = box[max(0, len(box) - len(lead)) :]
            places = [slice(None) if n == 1 else s for n, s in zip(lead[::-1], taken[::-1])][::-1]
            view = array[(*repeated, *places, *cut)]
            if position in self.alive:
                found[position] = self.there(view)
            else:  # no kernel reads it
                one = self.there(array.reshape(-1)[:1]).sum()
                found[position] = self.tensors.expanded(one, tuple(view.shape))
        return found

    def _folded(
        self,
        given: dict[int, Array],
        box: Sequence[slice],
        part: slice,
        columns: Sequence[slice],
        ranges: Ranges | None,
        step: Callable[[], None],
    ) -> tuple[Array, ...]:
        """The results of some rows, on the device."""
        if len(columns) > 1:
            return self._in_slabs(given, box, part, columns, step)
        fold = self.fold
        tensors = [given[position] for position in range(len(self.arrays))]
        binding = fold.binding(self.tensors, tensors)
        results = fold.empty(self.tensors, tensors, binding)
        if ranges is not None and binding.rows < self.whole.rows:
            ranges = ranges.of_rows(fold.kept, part.start, part.stop)
        call, taken = fold.call(self.tensors, tensors, results, binding, ranges)
        call(self.tensors.addresses(taken, binding.needs), taken)
        step()
        return results

    def _in_slabs(
        self,
        given: dict[int, Array],
        box: Sequence[slice],
        rows: slice,
        columns: Sequence[slice],
        step: Callable[[], None],
    ) -> tuple[Array, ...]:
        """The results of a box of rows whose columns come in slabs: states, merged and finished."""
        fold, library = self.fold, self.tensors
        states: States | None = None
        for part in columns:
            here = {**given, **self._there(box, self._reduced, part)}
            here.update(self._pairs(box, rows, part))
            tensors = [here[position] for position in range(len(self.arrays))]
            found = partial(fold, library, tensors, part.start)
            states = found if states is None else merged(fold, library, states, found)
            step()
        assert states is not None
        return finished(fold, library, states, self.whole.columns, self.binding.dtype)


def _slices(size: int, most: int) -> Iterator[slice]:
    """0 to size in parts; one part where there is nothing.

    >>> list(_slices(5, 3))
    [slice(0, 3, None), slice(3, 5, None)]
    """
    for start in range(0, max(1, size), max(1, most)):
        yield slice(start, min(start + max(1, most), size))


def _boxes(sizes: Sequence[int], most: Sequence[int]) -> Iterator[tuple[slice, ...]]:
    """Batch axes in parts."""
    return itertools.product(*map(_slices, sizes, most))
