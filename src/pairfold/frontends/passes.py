"""Which of several reductions come from one pass over the pairs: as many as can be.

Reductions that keep one index are one kernel, whatever their forms, up to a number of components;
those that keep both are one fused kernel, where the backend has such. The rest are passes of their
own, so that every combination has its results.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from itertools import islice

from ..arrays.checks import Sizes, check_shapes
from ..arrays.library import ArrayLibrary
from ..arrays.numpy import stand_in
from ..arrays.registry import NUMPY
from ..backends.chosen import chosen
from ..core.cache import Cache, Limit
from ..core.dtypes import DTYPES
from ..core.library import Array, NumpyArray, Results
from ..core.node import Axis
from ..lower.fused import may_keep_columns
from ..settings import current
from .filling import fill
from .fused import MOST_TOGETHER, SHORT, FusedReductions, Several
from .ranges import Ranges
from .reduction import FormulaReduction

_PLANS = Limit("passes of several reductions", 1024)
_FAR, _APART, _SIZES, _MASK, _ACCURACY, _AXES, _LONG, _COPIED = (
    "its far columns are met as proxies",
    "each component of its exponents has a maximum of its own",
    "its index or batch axes have other sizes",
    "its mask leaves other pairs",
    "its sums are accumulated otherwise",
    "it keeps the other index: one pass keeps there sums, products, extrema and truth values, in "
    "machine code, without ranges",
    f"it has more components than there is room for: {MOST_TOGETHER} in a pass",
    "arrays are copied to a GPU for one reduction after the other",
)
Apply = Callable[
    [FormulaReduction, ArrayLibrary, Sequence[Array], "Ranges | None"], tuple[Array, ...]
]


@dataclass(frozen=True)
class Alone:
    """A reduction of its own variables, and which of all they are."""

    fold: FormulaReduction
    positions: tuple[int, ...]


@dataclass(frozen=True)
class Pass:
    """One pass over the pairs.

    `numbers` are those of the reductions that it gives results of, in the order of its results;
    `why` says why they are not in the first pass, "" of that; `positions` are those of the arrays
    that it takes, None being all.
    """

    numbers: tuple[int, ...]
    fold: FormulaReduction
    why: str = ""
    positions: tuple[int, ...] | None = None


class Joint(Several):
    """Several reductions of one call, in as few passes as can be.

    `folds` have the variables of all. `alone` are the same reductions of their own variables: one
    whose sizes are others than those of all is computed so, and weighted ones of vectors of
    exponents.
    """

    def __init__(self, folds: Sequence[FormulaReduction], alone: Sequence[Alone]) -> None:
        super().__init__(folds)
        self.alone = tuple(alone)
        self._plans: Cache[tuple[Pass, ...]] = Cache(_PLANS)
        self._sizes: Cache[Sizes] = Cache(_PLANS)
        self._others: Cache[frozenset[int]] = Cache(_PLANS)

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.folds, self.alone)

    def check(
        self, arrays: Sequence[Array], name: str | None = None
    ) -> tuple[ArrayLibrary, Sizes, str]:
        """The library, sizes and dtype of a call's arrays.

        Raises:
            ArgumentError, ArrayTypeError, DTypeError, DeviceError, ShapeError: what does not fit
                one of the reductions.
        """
        found = super().check(arrays, name)
        for fold in self.folds:
            fold.accumulation(found[2])
        return found

    def _check(self, folds: Sequence[FormulaReduction]) -> None:
        """All reductions can be computed in one call."""

    def computed_alone(self, arrays: Sequence[Array]) -> frozenset[int]:
        """The numbers of the reductions that are computed of their own variables."""
        shapes = tuple(tuple(array.shape) for array in arrays)
        return self._others.of(shapes, lambda: self._computed_alone(shapes))

    def _computed_alone(self, shapes: Sequence[tuple[int, ...]]) -> frozenset[int]:
        sizes = check_shapes(self.variables, shapes, self.names)
        found: set[int] = set()
        for number, alone in enumerate(self.alone):
            own = [shapes[position] for position in alone.positions]
            other = check_shapes(alone.fold.variables, own, alone.fold.names) != sizes
            masked = self.folds[number].where is not self.folds[0].where
            if other or masked or alone.fold.by_component or alone.fold.far:
                found.add(number)
        return frozenset(found)

    def plan(
        self,
        library: ArrayLibrary,
        arrays: Sequence[Array],
        ranges: Ranges | None = None,
        copied: bool = False,
    ) -> tuple[Pass, ...]:
        """The passes for such arrays, under the settings in force; see `passes`.

        Raises:
            ArgumentError, ArrayTypeError, DTypeError, DeviceError, ShapeError: what does not fit.
        """
        described = self._described(library, arrays)
        key = (current(), library.elsewhere is None, *described, ranges is None, copied)
        return self._plans.of(key, lambda: self._plan(library, arrays, ranges, copied))

    def _plan(
        self, library: ArrayLibrary, arrays: Sequence[Array], ranges: Ranges | None, copied: bool
    ) -> tuple[Pass, ...]:
        self.check(arrays, library.name)
        others = self.computed_alone(arrays)
        same = [number for number in range(len(self.folds)) if number not in others]
        folds = [self.folds[number] for number in same]
        found = [
            Pass(tuple(same[n] for n in each.numbers), each.fold, each.why)
            for each in passes(folds, library, arrays, ranges, copied)
        ]
        for number in sorted(others):
            alone = self.alone[number]
            masked = self.folds[number].where is not self.folds[0].where
            own = alone.fold
            why = _FAR if own.far else _APART if own.by_component else _MASK if masked else _SIZES
            found.append(Pass((number,), alone.fold, why if found else "", alone.positions))
        return tuple(found)

    def sizes(self, library: ArrayLibrary, arrays: Sequence[Array]) -> Sizes:
        """The sizes of a call's arrays, which are checked where such are not known."""
        key = (library.name, *self._described(library, arrays))
        return self._sizes.of(key, lambda: self.check(arrays, library.name)[1])

    def _described(self, library: ArrayLibrary, arrays: Sequence[Array]) -> list[Hashable]:
        """What a plan depends on."""
        try:
            return [(tuple(a.shape), library.dtype(a), library.device(a)) for a in arrays]
        except Exception:
            self.check(arrays, library.name)  # says which is no array
            raise

    def one_by_one(
        self,
        call: Callable[..., Results],
        library: ArrayLibrary,
        arrays: Sequence[Array],
        out: Results | None,
        ranges: object,
    ) -> Results:
        """What `call` gives for each reduction alone."""
        targets = out if isinstance(out, tuple) else (None,) * len(self.folds)
        return tuple(
            call(alone.fold, library, [arrays[n] for n in alone.positions], target, ranges)
            for alone, target in zip(self.alone, targets, strict=True)
        )

    def run(
        self, library: ArrayLibrary, arrays: Sequence[Array], ranges: Ranges | None = None
    ) -> tuple[Array, ...]:
        """New arrays of all results."""
        found: dict[int, tuple[Array, ...]] = {}
        for each in self.plan(library, arrays, ranges):
            own = arrays if each.positions is None else [arrays[n] for n in each.positions]
            _enter(found, each, self.folds, each.fold.run(library, own, ranges))
        return tuple(result for n in range(len(self.folds)) for result in found[n])

    def __call__(
        self,
        library: ArrayLibrary,
        arrays: Sequence[Array],
        out: Results | None = None,
        ranges: Ranges | None = None,
    ) -> Results:
        """The results of each; `out` has an array or a tuple for each, or None."""
        found = self.shaped(library, self.run(library, arrays, ranges))
        return found if out is None else fill(library, out, found, self)


def in_passes(
    folds: Sequence[FormulaReduction],
    library: ArrayLibrary,
    arrays: Sequence[Array],
    ranges: Ranges | None,
    apply: Apply,
) -> list[tuple[Array, ...]]:
    """What `apply` gives for each of these folds, which have the same variables."""
    found: dict[int, tuple[Array, ...]] = {}
    for each in passes(folds, library, arrays, ranges):
        _enter(found, each, folds, apply(each.fold, library, arrays, ranges))
    return [found[n] for n in range(len(folds))]


def _enter(
    found: dict[int, tuple[Array, ...]],
    given: Pass,
    folds: Sequence[FormulaReduction],
    results: Sequence[Array],
) -> None:
    """Enter the results of a pass by the numbers of its reductions."""
    left = iter(results)
    for number in given.numbers:
        found[number] = tuple(islice(left, len(folds[number].results)))


def passes(
    folds: Sequence[FormulaReduction],
    library: ArrayLibrary,
    arrays: Sequence[Array],
    ranges: Ranges | None,
    copied: bool = False,
) -> list[Pass]:
    """The passes of reductions of the same variables, whose sizes are those of all.

    Arrays that are `copied` to a GPU are there for one reduction after the other.
    """
    numbers = range(len(folds))
    if copied or library.elsewhere is not None:
        return [Pass((n,), folds[n], _COPIED if n else "") for n in numbers]
    found: list[Pass] = []
    for group in _alike(folds):
        fused = _fused([folds[n] for n in group], library, arrays, ranges)
        if fused is not None:
            mine = tuple(group[n] for n in fused.order)
            found.append(Pass(mine, fused, _ACCURACY if found else ""))
            continue
        for kept in dict.fromkeys(folds[n].kept for n in group):
            own = [n for n in group if folds[n].kept == kept]
            other = folds[group[0]].kept != kept
            found += _on_one_index(folds, own, _AXES if other else _ACCURACY if found else "")
    return found


def _alike(folds: Sequence[FormulaReduction]) -> list[list[int]]:
    """The numbers of folds whose sums are accumulated alike, those without sums in the first."""
    found: dict[Hashable, list[int]] = {}
    first = next((fold.accuracy for fold in folds if fold.row.additive), None)
    for n, fold in enumerate(folds):
        found.setdefault(fold.accuracy if fold.row.additive else first, []).append(n)
    return list(found.values())


def _on_one_index(
    folds: Sequence[FormulaReduction], numbers: Sequence[int], why: str
) -> list[Pass]:
    """The passes of reductions that keep one index."""
    if len(numbers) == 1:
        return [Pass((numbers[0],), folds[numbers[0]], why)]
    own = [folds[n] for n in numbers]
    several = own[0].derived(("several", *own), lambda: Several(own))
    found: list[Pass] = []
    for each in several.passes():
        mine = tuple(numbers[n] for n in each)
        found.append(Pass(mine, several.some(each), _LONG if found else why))
    return found


def _fused(
    folds: Sequence[FormulaReduction],
    library: ArrayLibrary,
    arrays: Sequence[Array],
    ranges: Ranges | None,
) -> FusedReductions | None:
    """The pass of reductions that keep both indices, where one gives all of their results."""
    options, device = current(), library.device(arrays[0])
    if len({fold.kept for fold in folds}) < 2 or not chosen(options, device).fuses:
        return None
    given = [_stand_in(library, array) for array in arrays]
    found: list[FusedReductions] = []
    for kept in sorted(Axis, key=lambda axis: -sum(f.dim for f in folds if f.kept == axis))[:2]:
        asked = [each for fold in folds if fold.kept != kept for each in fold.folded()]
        if not all(may_keep_columns(each.rule) for each in asked):
            continue
        fused = folds[0].derived(
            ("fused", kept, *folds), lambda kept=kept: FusedReductions(folds, kept)
        )
        if fused.fuses(NUMPY, given, ranges):
            found.append(fused)
    if not found:
        return None
    binding = found[0].binding(NUMPY, given)
    return found[-1] if binding.rows < SHORT and binding.rows < binding.columns else found[0]


def _stand_in(library: ArrayLibrary, array: Array) -> NumpyArray:
    """An array of NumPy of the same shape: what can be fused does not depend on half precision."""
    dtype = library.dtype(array)
    return stand_in(array.shape, "float16" if DTYPES[dtype].half else dtype)
