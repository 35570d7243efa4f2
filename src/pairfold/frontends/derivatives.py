"""Derivatives of reductions, for any array library: a graph of other reductions and operations.

Which derivative a reduction has, its row says (`ops/differentiation.py`). A library needs
the operations of `core/library.py`, and a function `apply` that calls one fold and
tells the library that its derivatives are `gradients` and `all_tangents`, its batches `batched`.
These call `apply` again, so derivatives of any order follow.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import TypeVar, cast

import numpy as np

from ..arrays.checks import broadcast_shapes
from ..arrays.library import ArrayLibrary
from ..calculus.substitute import substitute
from ..core.dtypes import DTYPES
from ..core.library import Array, ArrayOperations
from ..core.node import Axis
from ..errors import DerivativeError
from ..ops.differentiation import Composition, PullBack, Selection
from ..ops.reductions import REDUCTIONS
from ..ops.table import OPERATIONS, variable
from .everypair import at_every_pair
from .fused import Several
from .passes import Joint, in_passes
from .ranges import Ranges
from .reduction import FormulaReduction

# (fold, library, arrays, ranges) -> the results as machine code writes them, differentiable in the
# library's way where the fold's reduction has a pull-back.
Apply = Callable[
    [FormulaReduction, ArrayLibrary, Sequence[Array], "Ranges | None"], tuple[Array, ...]
]
# (fold, positions, library, arrays) -> what `fold.pull_back` to these arguments gives, from one
# pass; None where folds are to do it.
OnePass = Callable[
    [FormulaReduction, Sequence[int], ArrayLibrary, Sequence[Array]], "Sequence[Array] | None"
]
T = TypeVar("T")


def differentiable(
    fold: FormulaReduction,
    library: ArrayLibrary,
    arrays: Sequence[Array],
    ranges: Ranges | None,
    apply: Apply,
) -> tuple[Array, ...]:
    """The results of a reduction, made of parts that know their derivatives.

    Raises:
        DerivativeError: a row names reductions that are not there, or that give something else.
    """
    if fold.by_component:
        parts = [differentiable(x, library, arrays, ranges, apply) for x in fold.by_component]
        return tuple(library.concatenated(list(results)) for results in zip(*parts, strict=True))
    if isinstance(fold, Joint):
        return _together(fold, library, arrays, ranges, apply)
    how = fold.row.differentiated
    if isinstance(how, PullBack):
        return apply(fold, library, arrays, ranges)
    if isinstance(how, Composition):
        return _composed(fold, how, library, arrays, ranges, apply)
    if isinstance(how, Selection):
        return _selected(fold, how, library, arrays, ranges, apply)
    if fold.row.constant:
        arrays = list(map(library.detached, arrays))
    return apply(fold, library, arrays, ranges)


def by_part(
    fold: FormulaReduction, results: Sequence[T]
) -> Iterator[tuple[FormulaReduction, list[T]]]:
    """Each reduction of a fold, with those of its results."""
    left = iter(results)
    for part in fold.apart:
        yield part, list(islice(left, len(part.results)))


# ----- derivatives of one call -------------------------------------------------------------------


def gradients(
    fold: FormulaReduction,
    library: ArrayLibrary,
    positions: Sequence[int],
    saved: Sequence[Array],
    incoming: Sequence[Array | None],
    ranges: Ranges | None,
    apply: Apply,
    one_pass: OnePass | None,
) -> list[Array]:
    """Gradients to the arguments at some positions, in their shapes and dtypes.

    Args:
        saved: the arguments, then the results if the fold `saves` them.
        incoming: the gradient of each result; of several reductions some may be None, for zeros.
        one_pass: computes them from one pass where it can; None where a derivative of them
            may be asked for.

    Raises:
        DerivativeError: the reduction or an operation of the formula has no derivative.
    """
    if not isinstance(fold, Several):
        given = [*saved, *cast("Sequence[Array]", incoming)]
        return _gradients(fold, library, positions, given, ranges, apply, one_pass)
    numbers = _moved(fold, incoming)
    given = _sent(fold, library, numbers, saved, incoming)
    some = fold.some(numbers)
    reached = [position for position in positions if numbers and some.reads(position)]
    found = _gradients(some, library, reached, given, ranges, apply, one_pass)
    known = dict(zip(reached, found, strict=True))
    return [
        known[n] if n in known else _zeros(library, saved[n], saved[n].shape) for n in positions
    ]


def _gradients(
    fold: FormulaReduction,
    library: ArrayLibrary,
    positions: Sequence[int],
    given: list[Array],
    ranges: Ranges | None,
    apply: Apply,
    one_pass: OnePass | None,
) -> list[Array]:
    """Gradients to the arguments at some positions, from what their pull-backs take."""
    arguments = given[: len(fold.variables)]
    dtype = library.dtype(given[0])  # that of all arguments
    known = DTYPES.get(dtype)
    wide = known is not None and known.half
    wide = wide and any(_is_shared(fold, position, arguments) for position in positions)
    if wide:
        given = [widened(library, array) for array in given]
    whole = [n for n in positions if fold.variables[n].variable.kind == Axis.PAIR]
    sums = [n for n in positions if n not in whole]
    known = {n: at_every_pair(fold.pull_back(n), n, library, given, ranges, apply) for n in whole}
    found = one_pass(fold, sums, library, given) if one_pass and ranges is None else None
    if found is None:
        folds = (fold.pull_back(position) for position in sums)
        found = [apply(pulled, library, given, ranges)[0] for pulled in folds]
    known.update(zip(sums, found, strict=True))
    found = [known[position] for position in positions]
    results: list[Array] = []
    for position, gradient in zip(positions, found, strict=True):
        gradient = summed(library, fold, position, gradient, arguments[position])
        results.append(library.cast(gradient, dtype) if wide else gradient)
    return results


def _moved(fold: FormulaReduction, incoming: Sequence[Array | None]) -> list[int]:
    """The numbers of the reductions that a gradient goes through."""
    return [
        number
        for number, (part, own) in enumerate(by_part(fold, incoming))
        if part.has_derivatives and any(gradient is not None for gradient in own)
    ]


def _sent(
    fold: FormulaReduction,
    library: ArrayLibrary,
    numbers: Sequence[int],
    saved: Sequence[Array],
    incoming: Sequence[Array | None],
) -> list[Array]:
    """What the pull-backs of some of several reductions take."""
    found = _read(fold, numbers, saved)
    for number, (part, own) in enumerate(by_part(fold, incoming)):
        if number not in numbers:
            continue
        like = next(gradient for gradient in own if gradient is not None)
        shapes = [(*like.shape[:-1], width) for width in part.widths]
        found += [
            _zeros(library, like, shape) if gradient is None else gradient
            for gradient, shape in zip(own, shapes, strict=True)
        ]
    return found


def _read(fold: FormulaReduction, numbers: Sequence[int], saved: Sequence[Array]) -> list[Array]:
    """The arguments, and those results that the derivatives of some reductions read."""
    count = len(fold.variables)
    found = list(saved[:count])
    if fold.saves:
        for number, (part, own) in enumerate(by_part(fold, saved[count:])):
            found += own if number in numbers and part.saves else []
    return found


def _zeros(library: ArrayLibrary, like: Array, shape: Sequence[int]) -> Array:
    """Zeros of the dtype of an array, and beside it."""
    zero = library.cast(library.constants(np.zeros((1,)), like), library.dtype(like))
    return library.expanded(zero, tuple(shape)) + 0


def tangents(
    fold: FormulaReduction,
    library: ArrayLibrary,
    positions: Sequence[int],
    saved: Sequence[Array],
    along: Sequence[Array],
    ranges: Ranges | None,
    apply: Apply,
) -> tuple[Array, ...]:
    """Derivatives of the results along tangents of the arguments at some positions.

    Raises:
        DerivativeError: the reduction or an operation of the formula has no derivative.
    """
    given = [*saved, *along]
    folds = fold.push_forward(tuple(positions))
    return tuple(apply(pushed, library, given, ranges)[0] for pushed in folds)


def all_tangents(
    fold: FormulaReduction,
    library: ArrayLibrary,
    positions: Sequence[int],
    saved: Sequence[Array],
    along: Sequence[Array],
    ranges: Ranges | None,
    apply: Apply,
) -> tuple[Array | None, ...]:
    """The same of what may be several reductions, in few passes; None for those without any."""
    if not isinstance(fold, Several):
        return tangents(fold, library, positions, saved, along, ranges, apply)
    numbers = [n for n, part in enumerate(fold.apart) if part.has_derivatives]
    folds = fold.some(numbers).push_forward(tuple(positions))
    given = [*_read(fold, numbers, saved), *along]
    left = iter(in_passes(folds, library, given, ranges, apply))
    found: list[Array | None] = []
    for number, part in enumerate(fold.apart):
        found += [next(left)[0] if number in numbers else None for _ in part.results]
    return tuple(found)


def batched(
    fold: FormulaReduction,
    library: ArrayLibrary,
    arrays: Sequence[Array],
    axes: Sequence[int | None],
    size: int,
    ranges: Ranges | None,
    apply: Apply,
) -> tuple[Array, ...]:
    """The results for arrays with an axis more (None: without it), which is their first axis."""
    own = [v.variable.kind.axes for v in fold.variables]
    given = list(zip(arrays, axes, own, strict=True))
    depth = max(len(array.shape) - (axis is not None) - least for array, axis, least in given)
    moved = [batch_first(library, array, axis, depth + least) for array, axis, least in given]
    results: list[Array] = []
    for result in apply(fold, library, moved, ranges):
        if len(result.shape) < depth + 3:  # only a parameter had the axis, of size 1: it is gone
            result = result.reshape((1, *result.shape))
        results.append(library.expanded(result, (size, *result.shape[1:])))
    return tuple(results)


def batch_first(library: ArrayOperations, array: Array, axis: int | None, depth: int) -> Array:
    """The array with an axis in front of `depth` others, of which leading ones may be missing."""
    if axis is None:
        return array
    front = library.moved(array, axis, 0)
    missing = depth - (len(front.shape) - 1)
    return front.reshape((front.shape[0], *[1] * missing, *front.shape[1:]))


def _is_shared(fold: FormulaReduction, position: int, arrays: Sequence[Array]) -> bool:
    """Whether a gradient is a sum over rows or batches."""
    own = [v.variable.kind.axes for v in fold.variables]
    if fold.variables[position].variable.kind == Axis.PARAMETER:
        return True
    batches = [tuple(array.shape[:-n]) for array, n in zip(arrays, own, strict=True)]
    return math.prod(batches[position]) < math.prod(broadcast_shapes(batches))


def widened(library: ArrayOperations, array: Array) -> Array:
    """The array, in float32 if it is of half precision: what is added up is rounded once."""
    known = DTYPES.get(library.dtype(array))
    return array if known is None or not known.half else library.cast(array, known.computed)


def summed(
    library: ArrayOperations, fold: FormulaReduction, position: int, gradient: Array, target: Array
) -> Array:
    """A gradient with every row and batch axis, summed to the shape of its argument."""
    if fold.variables[position].params[2] == Axis.PARAMETER:
        gradient = library.sum(gradient, -2)
    if gradient.shape == target.shape:
        return gradient
    # Leading axes of size 1 that only a parameter has are not those of the result.
    missing = max(len(target.shape) - len(gradient.shape), 0)
    return library.sum_to(gradient, target.shape[missing:]).reshape(target.shape)


# ----- several reductions ------------------------------------------------------------------------


def _together(
    fold: Joint,
    library: ArrayLibrary,
    arrays: Sequence[Array],
    ranges: Ranges | None,
    apply: Apply,
) -> tuple[Array, ...]:
    """The results of several reductions: what they are made of comes from few passes."""
    others = fold.computed_alone(arrays)
    parts = [part for number, part in enumerate(fold.folds) if number not in others]
    half = DTYPES[library.dtype(arrays[0])].half
    leaves = [leaf for part in parts for leaf in _leaves(part, False)]
    known: dict[FormulaReduction, tuple[Array, ...]] = {}
    for wide in (False, True):
        own = [*dict.fromkeys(leaf for leaf, wider in leaves if (half and wider) == wide)]
        given = [widened(library, array) for array in arrays] if wide else arrays
        for leaf, results in zip(own, in_passes(own, library, given, ranges, apply), strict=True):
            constant = not leaf.has_derivatives
            known[leaf] = tuple(map(library.detached, results)) if constant else results

    def served(
        each: FormulaReduction, library: ArrayLibrary, given: Sequence[Array], pairs: Ranges | None
    ) -> tuple[Array, ...]:
        return known[each] if each in known else apply(each, library, given, pairs)

    found: list[Array] = []
    for number, part in enumerate(fold.folds):
        if number in others:
            alone = fold.alone[number]
            own = [arrays[position] for position in alone.positions]
            found += differentiable(alone.fold, library, own, ranges, apply)
        else:
            found += differentiable(part, library, arrays, ranges, served)
    return tuple(found)


def _leaves(fold: FormulaReduction, wide: bool) -> Iterator[tuple[FormulaReduction, bool]]:
    """The folds that `differentiable` calls first, and whether at widened arrays."""
    how = fold.row.differentiated
    if isinstance(how, Composition):
        for name in how.parts:
            yield from _leaves(_variant(fold, name), True)
    elif isinstance(how, Selection):
        yield _variant(fold, how.located), True
    else:
        yield fold, wide


# ----- results made of others' -------------------------------------------------------------------


def _composed(
    fold: FormulaReduction,
    how: Composition,
    library: ArrayLibrary,
    arrays: Sequence[Array],
    ranges: Ranges | None,
    apply: Apply,
) -> tuple[Array, ...]:
    # What derivatives read of the results must not be rounded to half precision.
    wide = [widened(library, array) for array in arrays]
    parts = [
        differentiable(_variant(fold, name), library, wide, ranges, apply) for name in how.parts
    ]
    found = how.join(library, parts, lambda: _counts(fold, library, arrays, ranges, apply))
    if len(found) != len(fold.row.results):
        raise _wrong(fold, f"{len(found)} results of {' and '.join(how.parts)}")
    return tuple(library.cast(result, library.dtype(arrays[0])) for result in found)


def _variant(fold: FormulaReduction, reduction: str) -> FormulaReduction:
    if reduction not in REDUCTIONS:
        raise _wrong(fold, f"no reduction {reduction}")
    return fold.variant(reduction)


def _wrong(fold: FormulaReduction, found: str) -> DerivativeError:
    return DerivativeError(f"the row of {fold.reduction} has no derivative that works", found=found)


def _rows(fold: FormulaReduction, arrays: Sequence[Array], kind: Axis) -> int:
    """The length of an axis of pairs; 1 where no array has it."""
    for v, array in zip(fold.variables, arrays, strict=True):
        if v.variable.kind in (kind, Axis.PAIR):
            return array.shape[-3 if v.variable.kind == Axis.PAIR and kind == Axis.I else -2]
    return 1


def _counts(
    fold: FormulaReduction,
    library: ArrayLibrary,
    arrays: Sequence[Array],
    ranges: Ranges | None,
    apply: Apply,
) -> Array | int:
    """The number of columns of each row: one for all, or an array (..., rows, 1)."""
    if fold.where is not None:
        counts = differentiable(fold.count(), library, arrays, ranges, apply)[0]
        return library.cast(counts, DTYPES[library.dtype(arrays[0])].computed)
    i, j = (_rows(fold, arrays, kind) for kind in (Axis.I, Axis.J))
    if ranges is None:
        return j if fold.kept == Axis.I else i
    return ranges.counts(fold.kept, i, j, library, arrays[0])


# ----- selected values ---------------------------------------------------------------------------


def _selected(
    fold: FormulaReduction,
    how: Selection,
    library: ArrayLibrary,
    arrays: Sequence[Array],
    ranges: Ranges | None,
    apply: Apply,
) -> tuple[Array, ...]:
    """Selected values as functions of the arguments: the formula at the selected pairs.

    Which pairs they are is found at constants; the formula is then evaluated at these pairs alone,
    one per result, so the derivatives of any order cost as much as the result is long.
    """
    located = _variant(fold, how.located)
    # A value that half precision has no number for is not that of nothing: infinity.
    wide = [widened(library, array) for array in arrays]
    found = apply(located, library, list(map(library.detached, wide)), ranges)
    kinds = [result.kind for result in located.row.results]
    given = dict(zip(kinds, found, strict=True))
    if set(given) != {"value", "index"} or any(r.kind not in given for r in fold.row.results):
        raise _wrong(fold, f"results of {located.reduction}: {', '.join(kinds)}")
    value = _at_selected(fold, located, library, wide, apply, **given)
    given["value"] = library.cast(value, library.dtype(arrays[0]))
    return tuple(given[result.kind] for result in fold.row.results)


def _at_selected(
    fold: FormulaReduction,
    located: FormulaReduction,
    library: ArrayLibrary,
    arrays: Sequence[Array],
    apply: Apply,
    value: Array,
    index: Array,
) -> Array:
    """The formula at the pairs that `index` names; `value` itself where none was selected."""
    if not _rows(fold, arrays, Axis.J if fold.kept == Axis.I else Axis.I):
        # Nothing is selected: constants that stand in the graph, so that gradients are zeros.
        (nothing,) = apply(fold.variant("Sum"), library, arrays, None)
        return value + library.concatenated([nothing] * (value.shape[-1] // fold.dim))
    parts: list[Array] = []
    for component in range(fold.dim):
        places = index[..., component :: fold.dim]
        at_pairs = component_at_pairs(fold, component)
        given = _gathered(fold, library, arrays, places)
        if fold.where is not None:  # what was not selected is absent, whatever its numbers are
            selected = value[..., component :: fold.dim] != float(located.row.identity[0])
            flat = selected.reshape((*places.shape[:-2], math.prod(places.shape[-2:]), 1))
            given.append(library.cast(flat, library.dtype(value)))
        (part,) = apply(at_pairs, library, given, None)
        # A formula of parameters has one row only.
        part = library.expanded(part, (*places.shape[:-2], math.prod(places.shape[-2:]), 1))
        parts.append(part.reshape(places.shape))
    found = library.stacked(parts).reshape(value.shape)
    return library.where(value == float(located.row.identity[0]), value, found)


def component_at_pairs(fold: FormulaReduction, component: int) -> FormulaReduction:
    """A fold of one component of the formula, every variable indexed as the results are."""
    return fold.derived(("at", component), lambda: _component_at_pairs(fold, component))


def _component_at_pairs(fold: FormulaReduction, component: int) -> FormulaReduction:
    moved = {
        v: variable(v.params[0], v.params[1], fold.kept)
        for v in fold.variables
        if v.params[2] != Axis.PARAMETER
    }
    variables = [moved.get(v, v) for v in fold.variables]
    if fold.counts_pairs:  # numbers of rows are what no row of one long axis has: they are given
        first = len(variables)
        for place, axis in enumerate((fold.kept, fold.kept.other)):
            variables.append(variable(first + place, 1, fold.kept))
            moved[OPERATIONS["Ind"](axis)] = variables[-1]
    formula = OPERATIONS["Elem"](substitute(fold.formula, moved), component)
    selected = None
    if fold.where is not None:
        selected = variable(len(variables), 1, fold.kept)
        variables.append(selected)
    rest = (fold.names, fold.accuracy, None, 0, fold.asked, selected)
    return FormulaReduction(formula, variables, "Sum", fold.kept, *rest)


def _gathered(
    fold: FormulaReduction, library: ArrayOperations, arrays: Sequence[Array], places: Array
) -> list[Array]:
    """Arguments at rows r and columns places[..., r, :], as rows of one long axis."""
    length = places.shape[-1]
    flat = places.reshape((*places.shape[:-2], math.prod(places.shape[-2:]), 1))
    found: list[Array] = []
    for v, array in zip(fold.variables, arrays, strict=True):
        if v.variable.kind == Axis.PAIR:
            array = _of_pairs(fold, library, array, places)
            array = library.cast(array, library.dtype(arrays[0]))
        elif v.params[2] == fold.kept:
            array = library.repeated(array, length, -2)
        elif v.params[2] != Axis.PARAMETER:
            missing = len(flat.shape) - len(array.shape)
            array = array.reshape((*[1] * missing, *array.shape))
            array = library.taken(array, flat, -2)
        found.append(array)
    if fold.counts_pairs:
        rows = np.repeat(np.arange(places.shape[-2]), length)[:, None].astype(np.float64)
        like = found[0]
        numbers = library.constants(rows, like), flat
        found += [library.cast(each, library.dtype(like)) for each in numbers]
    return found


def _of_pairs(
    fold: FormulaReduction, library: ArrayOperations, array: Array, places: Array
) -> Array:
    """What an array of pairs has at rows r and columns places[..., r, :], row after row."""
    if fold.kept == Axis.J:
        array = library.moved(array, -2, -3)
    missing = len(places.shape) + 1 - len(array.shape)
    array = array.reshape((*[1] * missing, *array.shape))
    found = library.taken(array, places.reshape((*places.shape, 1)), -2)
    return found.reshape((*found.shape[:-3], math.prod(found.shape[-3:-1]), found.shape[-1]))
