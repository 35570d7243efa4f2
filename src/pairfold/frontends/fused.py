"""Several reductions in one pass over the pairs; gradients to several arguments are one case.

What they share (differences, exponentials) is then evaluated once. Of gradients, some keep the
index that lanes hold, the others the one that is looped over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from typing import cast

from ..arrays.checks import Sizes
from ..arrays.library import ArrayLibrary
from ..backends.chosen import chosen
from ..backends.interface import Fused
from ..core.dtypes import DTYPES
from ..core.library import Array, NumpyArray, Results
from ..core.node import Axis, Node
from ..errors import UnsupportedError
from ..lower.accumulators import Folded
from ..lower.fused import MOST_COMPONENTS
from ..lower.kernel import COLUMN, ROW
from ..lower.schedule import Accumulation
from ..ops.reductions import MAXIMUM
from ..settings import current
from .ranges import Ranges
from .reduction import Binding, FormulaReduction
from .separated import may_pay

# Where lanes would hold fewer rows, they hold the other index if it has more.
SHORT = 128
# Components in one pass, which are all written out: more would not compile soon.
MOST_TOGETHER = 64


def _bytes(dtype: str) -> int:
    return DTYPES[dtype].bytes


class Several(FormulaReduction):
    """Several reductions of the same variables in one pass over the pairs, or in few.

    `run` gives the results of all, in their order. All are kept on the same index. In one pass all
    components are written out, so more of them are several passes. Long outputs, which are
    loops, are passes of their own: the loops of two would have nothing in common but what is
    computed before either.
    """

    joint = True

    def __init__(self, folds: Sequence[FormulaReduction], kept: Axis | None = None) -> None:
        self._check(folds)
        first = folds[0]
        accuracy = next((fold.accuracy for fold in folds if fold.row.additive), first.accuracy)
        super().__init__(
            first.formula,
            first.variables,
            first.reduction,
            first.kept if kept is None else kept,
            first.names,
            accuracy,
            first.weight,
            first.length,
            first.asked,
            first.where,
        )
        self.folds = list(folds)
        self._widths = tuple(width for fold in folds for width in fold.widths)
        self.results = tuple(result for fold in folds for result in fold.results)
        self.beside = tuple((f.formula, f.reduction, f.weight, f.length, f.kept) for f in folds)

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.folds, self.kept)

    @property
    def widths(self) -> tuple[int, ...]:
        """The number of components of each result."""
        return self._widths

    @property
    def simple(self) -> bool:
        """There is more than one array."""
        return False

    @property
    def apart(self) -> tuple[FormulaReduction, ...]:
        """The reductions, one by one."""
        return tuple(self.folds)

    @property
    def saves(self) -> bool:
        """Whether derivatives read some of the results."""
        return any(fold.saves for fold in self.folds)

    def _check(self, folds: Sequence[FormulaReduction]) -> None:
        """Raise for reductions that no kernel has beside others.

        Raises:
            UnsupportedError: weighted reductions of vectors of exponents.
        """
        if len({fold.where for fold in folds}) > 1:
            raise UnsupportedError(
                "reductions of different pairs are passes of their own",
                found=" and ".join(str(fold.where) for fold in folds),
                hint="one mask for all of them",
            )
        if any(fold.by_component for fold in folds):
            raise UnsupportedError(
                "weighted reductions of vectors of exponents are passes of their own",
                hint="one for each component: Elem(f, k) with the weight Elem(g, k)",
            )

    def of_states(self) -> FormulaReduction:
        """The states of all."""
        folds = [fold.of_states() for fold in self.folds]
        return self.derived("states", lambda: Several(folds, self.kept))

    def out_shapes(self, sizes: Sizes) -> tuple[tuple[int, ...], ...]:
        """The shapes of the results, whose rows belong to the index that each is kept on."""
        return tuple(shape for fold in self.folds for shape in fold.out_shapes(sizes))

    def shaped(self, library: ArrayLibrary, results: Sequence[Array]) -> Results:
        """The results of each reduction as users see them."""
        left = iter(results)
        return tuple(
            fold.shaped(library, list(islice(left, len(fold.results)))) for fold in self.folds
        )

    def folded(self) -> list[Folded]:
        """The reductions that the kernel has."""
        return [
            replace(each, axis=ROW if fold.kept == self.kept else COLUMN)
            for fold in self.folds
            for each in fold.folded()
        ]

    def accumulation(self, dtype: str) -> Accumulation:
        """What is accurate enough for every reduction."""
        found = [fold.accumulation(dtype) for fold in self.folds]
        return Accumulation(
            max((each.inner for each in found), key=_bytes),
            max((each.outer for each in found), key=_bytes),
            any(each.compensated for each in found),
            max(each.every for each in found),
        )

    def run(
        self, library: ArrayLibrary, arrays: Sequence[Array], ranges: Ranges | None = None
    ) -> tuple[Array, ...]:
        """New arrays of all results; one reduction after the other, where arrays are elsewhere."""
        passes = [[n] for n in range(len(self.folds))] if library.elsewhere else self.passes()
        if len(passes) == 1:
            return super().run(library, arrays, ranges)
        found: dict[int, tuple[Array, ...]] = {}
        for numbers in passes:
            fold = self.some(numbers)
            left = iter(fold.run(library, arrays, ranges))
            for n in numbers:
                found[n] = tuple(islice(left, len(self.folds[n].results)))
        return tuple(result for n in range(len(self.folds)) for result in found[n])

    def passes(self) -> list[list[int]]:
        """The numbers of the folds of each pass: each joins the first that has room for it."""
        found: list[list[int]] = []
        room: list[int] = []
        for n, fold in enumerate(self.folds):
            place = next((k for k, left in enumerate(room) if fold.dim <= left), len(room))
            if place == len(room):
                found.append([])
                room.append(MOST_TOGETHER)
            found[place].append(n)
            room[place] -= fold.dim
        return found

    def some(self, numbers: Sequence[int]) -> FormulaReduction:
        """These of the reductions."""
        if len(numbers) == len(self.folds):
            return self
        folds = [self.folds[n] for n in numbers]
        if len(folds) == 1:
            return folds[0]
        return self.derived(("some", *numbers), lambda: Several(folds, self.kept))

    # -- derivatives: sums of what each has ------------------------------------------------------

    def _like_results(self, start: int, step: int = 1) -> list[Node]:
        found: list[Node] = []
        for fold in self.folds:
            found += fold._like_results(start + step * len(found), step)
        return found

    def _saved(self, start: int) -> list[Node]:
        found: list[Node] = []
        for fold in self.folds:
            found += fold._saved(start + len(found))
        return found

    def _sent(self, saved: Sequence[Node], incoming: Sequence[Node]) -> list[tuple[Node, Node]]:
        left, also = iter(saved), iter(incoming)
        # What is sent to one formula is added up first. Terms of the same exponents were measured
        # from the same maxima, which are saved with each: read from the first of them, they are
        # the same terms again.
        found: dict[Node, Node] = {}
        maxima: dict[tuple[Node, Axis], Node] = {}
        for fold in self.folds:
            count = len(fold.results)
            own = list(islice(left, count if fold.saves else 0))
            if own and fold.row.max_shifted:
                own[MAXIMUM] = maxima.setdefault((fold.formula, fold.kept), own[MAXIMUM])
            for formula, sent in fold._sent(own, list(islice(also, count))):
                found[formula] = found[formula] + sent if formula in found else sent
        return list(found.items())

    def reference(
        self, library: ArrayLibrary, arrays: Sequence[Array], ranges: Ranges | None = None
    ) -> Sequence[NumpyArray]:
        """The results as the interpreter of kernels has them: those of the folds, one by one."""
        found = (fold.reference(library, arrays, ranges) for fold in self.folds)
        return [result for results in found for result in results]


class FusedReductions(Several):
    """Several reductions, some of which may keep the other index, from one pass over the pairs.

    Those whose states are one number for each component (see `lower.fused`) may; others are passes
    of their own.

    `order` are the numbers of the folds as results have them: first those that keep `kept`;
    `places` are those of the folds in it.
    """

    fused = True

    def of_states(self) -> FormulaReduction:
        """There are none: what is a column to some results is a row to others.

        Raises:
            UnsupportedError: always.
        """
        raise UnsupportedError(
            "a pass that keeps rows and columns leaves no partial states",
            found=", ".join(fold.reduction for fold in self.folds),
            hint="those of each reduction",
        )

    def __init__(self, folds: Sequence[FormulaReduction], kept: Axis) -> None:
        self.order = sorted(range(len(folds)), key=lambda n: folds[n].kept != kept)
        self.places = [self.order.index(n) for n in range(len(folds))]
        super().__init__([folds[n] for n in self.order], kept)
        dims = [fold.dim for fold in folds]
        self.components, self.longest = sum(dims), max(dims)

    def run(
        self, library: ArrayLibrary, arrays: Sequence[Array], ranges: Ranges | None = None
    ) -> tuple[Array, ...]:
        """New arrays of all results; one reduction after the other, where it cannot be one pass."""
        binding = self.fusing(library, arrays, ranges)
        if binding is not None:
            return self.in_one_pass(library, arrays, binding)
        found = (fold.run(library, arrays, ranges) for fold in self.folds)
        return tuple(result for results in found for result in results)

    def in_one_pass(
        self, library: ArrayLibrary, arrays: Sequence[Array], binding: Binding
    ) -> tuple[Array, ...]:
        """New arrays of all results, where it `fuses`."""
        return self.run_bound(library, arrays, binding)

    def in_order(self, results: Sequence[Array]) -> list[Array]:
        """Results, one for each fold, in the order that the folds were given in."""
        return [results[place] for place in self.places]

    def fuses(
        self, library: ArrayLibrary, arrays: Sequence[Array], ranges: Ranges | None = None
    ) -> bool:
        """Whether one pass gives all results: there are pairs, and the backend has such passes."""
        return self.fusing(library, arrays, ranges) is not None

    def fusing(
        self, library: ArrayLibrary, arrays: Sequence[Array], ranges: Ranges | None = None
    ) -> Binding | None:
        """What is known of arrays, where it `fuses`."""
        options = current()
        fuses = chosen(options, library.device(arrays[0])).fuses
        if not fuses or library.elsewhere or ranges is not None or options.lanes == "column":
            return None
        if self.where is not None or self.counts_pairs:  # these passes have no masks
            return None
        # Others are not worth lowering as one.
        if self.components > MOST_COMPONENTS or self.longest > options.unroll:
            return None
        binding = self.binding(library, arrays)
        pairs = binding.rows * binding.columns * binding.count
        return binding if pairs and cast("Fused", binding.launcher).fuses else None


def computed_gradients(
    fold: FormulaReduction, positions: Sequence[int], library: ArrayLibrary, arrays: Sequence[Array]
) -> list[Array]:
    """What `fold.pull_back` to these arguments gives for arrays, from one pass where that can be.

    Derivatives of it are not kept.
    """
    found = fused_pass(fold, positions, library, arrays)
    if found is None:
        return [fold.pull_back(position).run(library, arrays)[0] for position in positions]
    one, binding = found
    return one.in_order(one.in_one_pass(library, arrays, binding))


def fused_pass(
    fold: FormulaReduction, positions: Sequence[int], library: ArrayLibrary, arrays: Sequence[Array]
) -> tuple[FusedReductions, Binding] | None:
    """The pass that gives the gradients to these arguments, where one is best for such arrays, and
    what is known of these.

    Not every backend has such passes.
    """
    if len(positions) < 2 or fold.far or current().fused == "separate":
        return None
    found = fold.derived(("fused", *positions), lambda: _in_lanes(fold, positions, None))
    binding = found.fusing(library, arrays)
    if binding is None:
        return None
    if may_pay(binding, current()) and all(
        each.binding(library, arrays).separated is not None for each in found.folds
    ):
        return None
    if binding.rows < SHORT and binding.rows < binding.columns:
        kept = Axis.I if found.kept == Axis.J else Axis.J
        key = ("fused", *positions, kept)
        found = fold.derived(key, lambda: _in_lanes(fold, positions, kept))
        binding = found.binding(library, arrays)
    return found, binding


def _in_lanes(
    fold: FormulaReduction, positions: Sequence[int], kept: Axis | None
) -> FusedReductions:
    """The fused pass whose lanes hold an index.

    By default that which more components are kept on: their sums are best kept in registers.
    """
    folds = [fold.pull_back(position) for position in positions]
    if kept is None:
        count = {Axis.I: 0, Axis.J: 0}
        for pulled in folds:
            count[pulled.kept] += pulled.dim
        kept = max(count, key=lambda kind: count[kind])
    return FusedReductions(folds, kept)
