"""Sweep: the gradients of a fold to several arguments, from one pass over the pairs.

What they share (differences, exponentials) is then evaluated once. Some of them keep the index
that lanes hold, the others the one that is looped over.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

from ..arrays.checks import Sizes
from ..arrays.library import ArrayLibrary
from ..backends.chosen import chosen
from ..core.library import Array
from ..core.node import Kind
from ..lower.bounds import assume_moderate
from ..lower.kernel import Kernel, lower
from ..lower.sweep import MOST_COMPONENTS, sums
from ..ops.table import OPERATIONS
from ..settings import Settings, current
from .fold import Fold
from .ranges import Ranges

# Where lanes would hold fewer rows, they hold the other index if it has more.
_SHORT = 128


class Sweep(Fold):
    """Several sums of the same variables, called like a fold of all of them.

    `order` are the numbers of the folds as results have them: first those that keep `kept`.
    """

    def __init__(self, folds: Sequence[Fold], kept: Kind) -> None:
        self.order = sorted(range(len(folds)), key=lambda n: folds[n].kept != kept)
        self.folds = [folds[n] for n in self.order]
        self.pieces = tuple(fold.dim for fold in self.folds)
        self.across = sum(fold.dim for fold in self.folds if fold.kept != kept)
        joined = reduce(OPERATIONS["Concat"], [fold.formula for fold in self.folds])
        first = folds[0]
        super().__init__(joined, first.variables, "Sum", kept, first.names, first.accuracy)
        self.row = sums(len(folds))
        self.split = (self.across, *self.pieces)

    @property
    def widths(self) -> tuple[int, ...]:
        """The number of components of each result."""
        return self.pieces

    def out_shapes(self, sizes: Sizes) -> tuple[tuple[int, ...], ...]:
        """The shapes of the results, whose rows belong to either index."""
        return tuple(shape for fold in self.folds for shape in fold.out_shapes(sizes))

    def kernel(self, options: Settings | None = None) -> Kernel:
        """The lowered kernel."""
        options = options or current()
        rearrange = options.rules != "exact"
        kernel = lower(
            self.formula,
            self.row,
            self.kept,
            options.unroll,
            rearrange,
            across=self.across,
            pieces=self.pieces,
        )
        if rearrange:
            assume_moderate(kernel)
        return kernel

    def reference(
        self, library: ArrayLibrary, arrays: Sequence[Array], ranges: Ranges | None = None
    ) -> Sequence[Array]:
        """The results as the interpreter of kernels has them: those of the folds, one by one."""
        found = (fold.reference(library, arrays, ranges) for fold in self.folds)
        return [result for results in found for result in results]

    def fits(self, options: Settings) -> bool:
        """Whether its formulas are short enough to be worth lowering as one."""
        return sum(self.pieces) <= MOST_COMPONENTS and max(self.pieces) <= options.unroll


def sweep(
    fold: Fold, positions: Sequence[int], library: ArrayLibrary, arrays: Sequence[Array]
) -> list[Array] | None:
    """What `fold.pull_back` to these arguments gives for arrays, or None: folds are to do it.

    Not every backend has such passes.
    """
    options = current()
    if not chosen(options, library.device(arrays[0])).fuses:
        return None
    if len(positions) < 2 or options.sweep == "separate" or options.lanes == "column":
        return None
    kept = fold.derived(("sweep", *positions), lambda: _larger(fold, positions))
    found = _in_lanes(fold, positions, kept)
    if not found.fits(options):
        return None
    binding = found.binding(library, arrays)
    if not binding.launcher.sweeps or not binding.rows * binding.columns * binding.count:
        return None
    if binding.rows < _SHORT and binding.rows < binding.columns:
        found = _in_lanes(fold, positions, Kind.I if kept == Kind.J else Kind.J)
    results = found.run(library, arrays)
    return [results[found.order.index(n)] for n in range(len(positions))]


def _larger(fold: Fold, positions: Sequence[int]) -> Kind:
    """The index that more components are kept on: their sums are best kept in registers."""
    count = {Kind.I: 0, Kind.J: 0}
    for position in positions:
        pulled = fold.pull_back(position)
        count[pulled.kept] += pulled.dim
    return max(count, key=lambda kind: count[kind])


def _in_lanes(fold: Fold, positions: Sequence[int], kept: Kind) -> Sweep:
    """The sweep whose lanes hold an index."""
    folds = [fold.pull_back(position) for position in positions]
    return fold.derived(("sweep", *positions, kept), lambda: Sweep(folds, kept))
