"""Sums that are computed without pairs: moments of the columns, then each row with them.

Both are reductions of formulas like any other, in float64. Beside each result its magnitude is
computed, the sum of the absolute values of all products: rows in which too much of that cancels are
reduced over pairs, as are rows with what is not finite.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..arrays.advice import label_of
from ..arrays.library import ArrayLibrary
from ..arrays.registry import NUMPY
from ..backends.chosen import REFERENCE, chosen
from ..backends.memory import view_of
from ..backends.shown import flops
from ..calculus.separable import TINY, NotSeparable, Separation, separate
from ..calculus.substitute import substitute
from ..core.dtypes import DTYPES
from ..core.library import Array, Device, NumpyArray
from ..core.node import Axis, Node, topological
from ..lower.kernel import Kernel
from ..ops.table import variable
from ..settings import Settings, settings
from .binding import Binding

if TYPE_CHECKING:
    from .reduction import FormulaReduction

_REDUCTIONS = ("Sum", "Mean")
# Pairs below which nobody looks whether a formula is separable.
_FEW = 2**22
# What two reductions cost beside one, in operations of pairs; a number that is read by them, and a
# moment of a row or column. By how much they have to be cheaper.
_TWICE, _READ, _MOMENT, _CLEARLY = 1.5e7, 100.0, 20.0, 2.0
# Rows of all batch elements that are float64 at a time, so that these numbers stay in the cache; at
# least so many of each.
_AT_ONCE, _LEAST = 2**16, 2**10
# How many pairs a GPU goes over in the time of one; calls, and waiting for it, take as long.
_DEVICE = 64
# How far magnitudes may exceed results, which is what is lost of float64's digits; and below what
# magnitude results may be anything, as numbers of the dtype are not nearly so small.
_LOST = {"float64": (1e3, 1e-150)}
_LOST_BELOW = 2.0**20, 1e-50


class Separated:
    """A sum over pairs as two reductions, called on the arrays of the first."""

    def __init__(self, fold: FormulaReduction, found: Separation) -> None:
        self.fold, self.found = fold, found
        place = {node: n for n, node in enumerate(fold.variables)}
        moved: dict[Node, Node] = {}
        self.centres: list[tuple[int, FormulaReduction]] = []
        centres: list[Node] = []
        for group in found.centred:
            kinds = {node.variable.kind: node for node in group}
            if not {Axis.I, Axis.J} <= kinds.keys():
                continue
            own = kinds[fold.kept.other]
            centres.append(variable(found.free + len(centres), own.dim, Axis.PARAMETER))
            moved.update((node, node - centres[-1]) for node in group)
            self.centres.append((place[own], _mean(own)))
        last = [*centres, found.sums, found.magnitudes, found.limits]
        reduced = fold.kept.other
        self.moments = None
        if found.moments is not None:
            self.moments = _Part(fold, substitute(found.moments, moved), reduced, centres)
        self.tables = [
            [
                _Part(fold, substitute(t, moved), reduced, [*centres, each.table.units])
                for t in (each.table.value, each.table.size)
            ]
            for each in found.layout
            if each.table is not None
        ]
        self.rows = _Part(fold, substitute(found.rows, moved), fold.kept, last)

    def __call__(
        self, library: ArrayLibrary, arrays: Sequence[Array], binding: Binding
    ) -> tuple[Array, ...] | None:
        """New arrays of the results; None where pairs are to be gone over."""
        if binding.device is not None and binding.device.recording():
            return None
        with library.no_graph(), settings(separable="never"):
            if binding.device is not None or binding.dtype == "bfloat16" or library is NUMPY:
                found = self._computed(library, arrays, binding)
                return None if found is None else (found,)
            # Threads of another library would wait for ours.
            ready = [self._ready(library, array, n) for n, array in enumerate(arrays)]
            found = self._computed(NUMPY, [_view(library, a) for a in ready], binding)
            if found is None:
                return None
            results = self.fold.empty(library, arrays, binding)
            _view(library, results[0])[...] = NUMPY.to_numpy(found)
            return results

    def _ready(self, library: ArrayLibrary, array: Array, position: int) -> Array:
        library.check_memory(array, label_of(position, self.fold.names))
        return library.ready(array)

    def _computed(
        self, library: ArrayLibrary, arrays: Sequence[Array], binding: Binding
    ) -> Array | None:
        """A new array of the results; None where pairs are to be gone over."""
        step = max(binding.rows, binding.columns)
        if binding.device is None:
            step = max(_AT_ONCE // binding.count, _LEAST)
        means = [one.run(library, [arrays[n]])[0][..., 0, :] for n, one in self.centres]
        given = [library.cast(mean, "float64") for mean in means]
        given += self._moments(library, arrays, given, binding.columns, step)
        given.append(library.constants(np.array(_limits(binding.dtype)), given[-1]))
        nothing = library.constants(np.zeros(1), given[-1])
        found = library.empty(binding.out_shapes[0], arrays[0])
        lost: list[NumpyArray] = []
        for start in range(0, binding.rows, step):
            stop = min(start + step, binding.rows)
            value, kept = self._rows(library, arrays, given, binding, slice(start, stop))
            if not bool(kept.all()):
                good = library.to_numpy(kept).reshape(-1, stop - start).all(0)
                lost.append(start + np.flatnonzero(~good))
                value = library.where(kept, value, nothing)
            found[..., start:stop, :] = value
        return self._completed(library, arrays, found, lost) if lost else found

    def _rows(
        self,
        library: ArrayLibrary,
        arrays: Sequence[Array],
        given: Sequence[Array],
        binding: Binding,
        rows: slice,
    ) -> tuple[Array, Array]:
        """The results of some rows, and which of them may be trusted."""
        dim = self.fold.dim
        shape = (*binding.out_shapes[0][:-2], rows.stop - rows.start, dim + 1)
        found = library.expanded(self.rows(library, arrays, given, rows), shape)
        value, kept = found[..., :dim], found[..., dim:] == dim
        return value * (1.0 / binding.columns) if self.fold.reduction == "Mean" else value, kept

    def _moments(
        self,
        library: ArrayLibrary,
        arrays: Sequence[Array],
        given: Sequence[Array],
        columns: int,
        step: int,
    ) -> list[Array]:
        """The sums of all g_r and of their absolute values, without an axis of rows."""
        total: list[Array] = []
        for start in range(0, columns, step):
            some = self._moments_of(library, arrays, given, slice(start, start + step))
            total = [a + b for a, b in zip(total, some, strict=True)] if total else some
        return [total[0], total[1] + float(TINY)]

    def _moments_of(
        self,
        library: ArrayLibrary,
        arrays: Sequence[Array],
        given: Sequence[Array],
        columns: slice,
    ) -> list[Array]:
        found = None
        if self.moments is not None:
            found = self.moments(library, arrays, given, columns)[..., 0, :]
        sums: list[Array] = []
        sizes: list[Array] = []
        tables = iter(self.tables)
        for each in self.found.layout:
            if each.table is None:
                assert found is not None
                sums.append(found[..., each.start : each.start + each.dim])
                sizes.append(found[..., each.size : each.size + each.dim])
                continue
            units = library.constants(np.eye(each.table.units.dim), arrays[0])
            for part, parts in zip(next(tables), (sums, sizes), strict=True):
                table = part(library, arrays, [*given, units], columns)
                parts.append(table.reshape((*table.shape[:-2], each.dim)))
        return [_joined(library, sums), _joined(library, sizes)]

    def _completed(
        self,
        library: ArrayLibrary,
        arrays: Sequence[Array],
        found: Array,
        lost: Sequence[NumpyArray],
    ) -> Array | None:
        """The results, with rows that lost digits reduced over pairs; None where most have."""
        fold, places = self.fold, np.concatenate(lost)
        if 2 * len(places) > found.shape[-2]:
            return None
        where = library.constants(places, arrays[0])
        some = [
            library.selected(array, where, -2) if v.variable.kind == fold.kept else array
            for v, array in zip(fold.variables, arrays, strict=True)
        ]
        found[..., where, :] = fold.run(library, some)[0]
        return found


def _view(library: ArrayLibrary, array: Array) -> NumpyArray:
    """The memory of an array of the host."""
    shape, strides = tuple(array.shape), library.strides(array)
    return view_of(library.address(array), shape, strides, library.dtype(array))


def _joined(library: ArrayLibrary, parts: Sequence[Array]) -> Array:
    """Vectors joined, whose batch axes broadcast."""
    shapes = [tuple(part.shape[:-1]) for part in parts]
    if len(set(shapes)) > 1:
        batch = np.broadcast_shapes(*shapes)
        parts = [library.expanded(part, (*batch, part.shape[-1])) for part in parts]
    return library.concatenated(list(parts))


def _mean(node: Node) -> FormulaReduction:
    """The mean of the rows of an array."""
    from .reduction import FormulaReduction

    kind = node.variable.kind
    own = variable(0, node.dim, kind)
    return FormulaReduction(own, [own], "Mean", kind.other)


def _limits(dtype: str) -> tuple[float, float, float]:
    """The limits of `Separation` for data of a dtype."""
    return *_LOST.get(dtype, _LOST_BELOW), DTYPES[dtype].largest / 4


class _Part:
    """A sum over columns, or over nothing, of some of a fold's variables, and of further ones.

    It takes those of a kind that it reads (all, where it reads none, for their number) and
    parameters, then the variables `last`.
    """

    def __init__(
        self, fold: FormulaReduction, formula: Node, kind: Axis, last: Sequence[Node]
    ) -> None:
        from .reduction import FormulaReduction

        read = set(topological([formula]))
        own = [n for n, v in enumerate(fold.variables) if v.variable.kind == kind]
        self.read = [n for n in own if fold.variables[n] in read] or own
        self.read += [
            n
            for n, v in enumerate(fold.variables)
            if v.variable.kind == Axis.PARAMETER and v in read
        ]
        self.kinds = [fold.variables[n].variable.kind for n in self.read]
        moved: dict[Node, Node] = {}
        for place, node in enumerate([*(fold.variables[n] for n in self.read), *last]):
            moved[node] = variable(place, node.dim, node.variable.kind)
        formula = substitute(formula, moved)
        self.fold = FormulaReduction(formula, list(moved.values()), "Sum", fold.kept)

    def __call__(
        self, library: ArrayLibrary, arrays: Sequence[Array], last: Sequence[Array], rows: slice
    ) -> Array:
        """The sums, of some rows of a fold's arguments and of further ones, in float64."""
        given: list[Array] = []
        for n, kind in zip(self.read, self.kinds, strict=True):
            array = arrays[n] if kind == Axis.PARAMETER else arrays[n][..., rows, :]
            given.append(library.cast(library.ready(array), "float64"))
        return self.fold.run(library, [*given, *last])[0]


# ----- choosing ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Work:
    """A reduction over pairs that two others may stand for; `why`: why they never do here."""

    rows: int
    columns: int
    count: int
    dtype: str
    device: Device | None
    kernel: Kernel
    why: str = ""


def may_pay(binding: Binding, options: Settings) -> bool:
    """Whether there are so many pairs that it is worth asking whether they are needed."""
    pairs = binding.rows * binding.columns * binding.count
    return options.separable == "always" or (options.separable == "auto" and pairs >= _FEW)


def separated(
    fold: FormulaReduction, binding: Binding, library: ArrayLibrary, options: Settings
) -> Separated | None:
    """The two reductions for arrays of which all else is known, where they are to be taken."""
    if library.elsewhere is not None or not may_pay(binding, options):
        return None
    sizes = (binding.rows, binding.columns, binding.count)
    work = Work(*sizes, binding.dtype, binding.device, binding.launcher.kernel)
    if _why_not(fold, work, options):
        return None
    return fold.derived("separated", lambda: Separated(fold, _separation(fold)))


def told(fold: FormulaReduction, work: Work, options: Settings) -> str:
    """What explanations say of a sum; "" of other reductions."""
    if fold.joint or fold.reduction not in _REDUCTIONS:
        return ""
    why = _why_not(fold, work, options)
    try:
        found = _separation(fold)
    except NotSeparable:
        return f"no: {why}"
    what = f"rank {found.rank}, {found.count} moments in float64"
    return f"{what}; over pairs, since {why}" if why else f"{what}; pairs where digits are lost"


def _why_not(fold: FormulaReduction, work: Work, options: Settings) -> str:
    """Why pairs are gone over; "" where they are not."""
    if fold.joint or fold.reduction not in _REDUCTIONS or fold.where is not None:
        return "only sums and means of all pairs are separated"
    try:
        found = _separation(fold)
    except NotSeparable as error:
        return str(error)
    if work.why:
        return work.why
    for name, value in (("separable", "never"), ("rules", "exact")):
        if getattr(options, name) == value:
            return f"settings({name}={value!r})"
    if min(work.rows, work.columns) < 2 or not work.count:
        return "there are too few"
    if options.separable == "always":
        return ""
    if chosen(options, work.device) is REFERENCE:
        return "the reference says what they give"
    return "" if _pays(fold, found, work) else "they cost less"


def _pays(fold: FormulaReduction, found: Separation, work: Work) -> bool:
    """Whether two reductions are clearly cheaper than one over pairs."""
    scale = DTYPES[DTYPES[work.dtype].computed].bytes / 4
    pairs = work.rows * work.columns * flops(work.kernel) * scale
    if work.device is not None:
        pairs /= _DEVICE
    numbers = dict.fromkeys(Axis, 0)
    for v in fold.variables:
        numbers[v.variable.kind] += v.dim
    each = _MOMENT * 2 * found.count
    rows = work.rows * (_READ * (numbers[fold.kept] + 2 * fold.dim) + each)
    columns = work.columns * (_READ * numbers[fold.kept.other] + each)
    return _CLEARLY * (_TWICE + work.count * (rows + columns)) < work.count * pairs


def _separation(fold: FormulaReduction) -> Separation:
    """How the formula is separated, looked for once.

    Raises:
        NotSeparable: it is not.
    """
    found = fold.derived("separation", lambda: _sought(fold))
    if isinstance(found, str):
        raise NotSeparable(found)
    return found


def _sought(fold: FormulaReduction) -> Separation | str:
    try:
        return separate(fold.formula, fold.kept, len(fold.variables))
    except NotSeparable as error:
        return str(error)
