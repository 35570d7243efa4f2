"""Arguments as people give them: plain numbers, axes left out, arrays of pairs that broadcast.

A parameter of dimension 1 may be a number, an array () or (...); a variable of dimension 1 indexed
by i or j may be (..., M) or (..., N); one of pairs may have one row or one column for all. Such
calls are refused like any that does not fit, and only then looked at here, so complete arguments
cost nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeGuard, TypeVar

import numpy as np

from ..arrays.advice import label_of
from ..arrays.checks import Sizes, check_shapes
from ..arrays.library import COMPLEX, SUPPORTED, ArrayLibrary
from ..arrays.registry import LIBRARIES, library_for
from ..core.library import Array
from ..core.node import Axis, Node
from ..errors import ArrayTypeError, DTypeError, ShapeError
from .leaves import placed
from .spread import of_kinds, spread_kinds

if TYPE_CHECKING:
    from .reduction import FormulaReduction

Shape = tuple[int, ...]
Value = TypeVar("Value")
Number = TypeVar("Number", float, complex)
# What calls raise for arguments that are not complete.
BAILED_OUT = (ArrayTypeError, DTypeError, ShapeError)


def plain_number(x: object) -> TypeGuard[float]:
    """Whether x is a real number other than a truth value."""
    return isinstance(x, (int, float, np.integer, np.floating)) and not isinstance(x, bool)


def as_float(x: float) -> float:
    """A number in float64.

    Raises:
        DTypeError: a whole number too large for it.
    """
    return float(_checked(x))


def _checked(x: Value) -> Value:
    if isinstance(x, int):
        try:
            float(x)
        except OverflowError:
            raise DTypeError(
                "numbers are float64 at most",
                found=f"a whole number of {x.bit_length()} bits",
                hint="numbers below 1.8e308",
            ) from None
    return x


def numbers_in(values: Sequence[Any], kind: type[Number] = float) -> list[Number] | Array:
    """A list of numbers, or of arrays of one number each, as numbers of a kind.

    Where a tensor among them asks for a gradient, all of them are joined to one tensor instead.

    Raises:
        ArrayTypeError: an empty list, or something that is not one number.
    """
    what = "a list holds the components of a parameter: numbers, or arrays of one number"
    if not values:
        raise ArrayTypeError(what, found="an empty list", hint="Pm([1.0, 2.0])")
    owners = [library_for(value) for value in values]
    for place, (value, library) in enumerate(zip(values, owners, strict=True)):
        if plain_number(value) or isinstance(value, kind):
            continue
        if library is None:
            name = type(value)
            raise ArrayTypeError(
                what,
                found=f"element {place} is a {name.__module__}.{name.__qualname__}",
                hint="Pm([1.0, 2.0]), or an array",
            )
        library.check_kind(value, f"element {place}")
        dtype = library.dtype(value)
        numbers = ("int", "uint", "float", "bfloat", "complex")[: 5 if kind is complex else 4]
        if math.prod(value.shape) != 1 or not dtype.startswith(numbers):
            raise ArrayTypeError(
                what,
                found=f"element {place} has shape {tuple(value.shape)}, dtype {dtype}",
                hint=f"Pm({library.words.joined}(x)), one vector of all components",
            )
    for value, library in zip(values, owners, strict=True):
        if library is not None and library.wants_gradient(value):
            return library.vector(values, value)
    return [
        kind(_checked(value)) if library is None else kind(value.item())
        for value, library in zip(values, owners, strict=True)
    ]


def completed(
    fold: FormulaReduction, args: Sequence[object], name: str | None
) -> tuple[FormulaReduction, list[Array]] | None:
    """The arguments of a call with nothing left out, and the reduction that takes them.

    None where nothing was. The reduction is another one where arrays of pairs broadcast.

    Raises:
        ShapeError: completed, they do not fit.
        ArrayTypeError, DeviceError: arrays that are no plain memory.
    """
    plain = [_plain(x, label_of(place, fold.names)) for place, x in enumerate(args)]
    like, library = _first_array(plain, name)
    if like is None or library is None or len(args) != len(fold.variables):
        return None
    found: list[Any] = [
        _parameter(x, library, like) if _is_parameter(v) else x
        for v, x in zip(fold.variables, plain, strict=True)
    ]
    if not all(library.owns(x) for x in found):
        return None
    shapes = [tuple(x.shape) for x in found]
    places = lacking(fold.variables, shapes)
    for place in places:
        found[place] = found[place][..., None]
    fold = _spread(fold, library, found)
    if all(x is y for x, y in zip(args, found, strict=True)):
        return None
    try:
        check_shapes(fold.variables, [tuple(x.shape) for x in found], fold.names, shapes)
    except ShapeError:
        if any(len(shapes[place]) > 1 for place in places):
            return None  # more axes than one row of numbers: what is said of the array as it is
        raise
    return fold, found


def _spread(fold: FormulaReduction, library: ArrayLibrary, found: list[Array]) -> FormulaReduction:
    """The reduction where arrays of pairs with one row or column for all have lost that axis.

    Truth values become numbers, as they are for every variable but those of pairs.
    """
    kinds = spread_kinds(fold, [tuple(x.shape) for x in found])
    for place, (v, kind) in enumerate(zip(fold.variables, kinds, strict=True)):
        if kind != v.variable.kind:
            x = placed(found[place], kind)
            truth = place > 0 and v.dim == 1 and library.dtype(x) == "bool"
            found[place] = library.cast_like(x, found[0]) if truth else x
    return of_kinds(fold, kinds)


def _plain(x: object, label: str) -> object:
    """An argument; of an array of a subclass that answers for its shape, the memory alone."""
    for library in LIBRARIES:
        if library.owns(x):
            x = library.plain(x)
            library.check_layout(x, label)
    return x


def checked(
    fold: FormulaReduction, args: Sequence[Any], name: str | None
) -> tuple[FormulaReduction, Sequence[Array], tuple[ArrayLibrary, Sizes, str]]:
    """The reduction and the arguments of a call, completed where need be (see `completed`); their
    library, sizes and dtype.

    Raises:
        ArgumentError, ArrayTypeError, ShapeError, DTypeError, DeviceError: what does not fit.
    """
    try:
        return fold, args, fold.check(args, name)
    except BAILED_OUT:
        found = completed(fold, args, name)
        if found is None:
            raise
    fold, complete = found
    return fold, complete, fold.check(complete, name)


def _first_array(
    args: Sequence[object], name: str | None
) -> tuple[Array, ArrayLibrary] | tuple[None, None]:
    """The first array among arguments, if possible one with axes, and its library."""
    first: tuple[Array, ArrayLibrary] | None = None
    for x in args:
        if not plain_number(x):
            for library in LIBRARIES:
                if name in (None, library.name) and library.owns(x):
                    found = x, library
                    if len(x.shape):
                        return found if library.dtype(x) in SUPPORTED else (None, None)
                    first = first or found
    return first or (None, None)


def _parameter(x: object, library: ArrayLibrary, like: Array) -> object:
    """A parameter of one number in the dtype of arrays: plain numbers, and arrays without axes."""
    if plain_number(x):
        return library.numbers([as_float(x)], like)
    if library.owns(x) and not len(x.shape) and library.dtype(x) not in COMPLEX:
        return library.cast_like(x, like)
    return x


def _is_parameter(node: Node) -> bool:
    _, dim, kind = node.params
    return dim == 1 and kind == Axis.PARAMETER


def lacking(variables: Sequence[Node], shapes: Sequence[Shape]) -> list[int]:
    """Positions of variables of dimension 1 whose arrays can only be without their last axis.

    Batch axes need another argument that has them, or as many rows: else (M, 2) for a variable of
    dimension 1 is more likely a mistake. An array whose last axis has size 1 is complete, unless
    the others leave no place for it so: where they have one row and B batch elements, (B, 1) is one
    number for each of these.
    """
    short: list[int] = []
    unsure: list[int] = []
    rows: dict[Axis, int] = {}
    batches: list[Shape] = []
    depth = 0
    for place, (node, shape) in enumerate(zip(variables, shapes, strict=True)):
        _, dim, kind = node.variable
        own = kind.axes
        if len(shape) < own or shape[-1] != dim:
            if dim == 1 and len(shape) >= own - 1:
                short.append(place)
                if len(shape) == 1 and own == 2:
                    rows.setdefault(kind, shape[0])
            continue
        depth = max(depth, len(shape) - own)
        if dim == 1 and len(shape) > 1 and kind != Axis.PAIR:
            unsure.append(place)
            continue
        batches.append(shape[:-own])
        if own == 2:
            rows.setdefault(kind, shape[len(shape) - 2])
    for place in sorted(unsure, key=lambda n: variables[n].params[2] == Axis.PARAMETER):
        kind, shape = variables[place].params[2], shapes[place]
        rows.setdefault(kind, shape[-2])
        own = 1 if kind == Axis.PARAMETER else 2
        fits = _broadcast(batches, shape[:-own]) and (own == 1 or rows[kind] == shape[-2])
        other = shape[: len(shape) - own + 1]
        if not fits and len(other) <= depth and _broadcast(batches, other):
            short.append(place)
        else:
            other = shape[:-own]
        batches.append(other)
    return sorted(
        place for place in short if _confirmed(variables[place], shapes[place], rows, depth)
    )


def _confirmed(node: Node, shape: Shape, rows: dict[Axis, int], depth: int) -> bool:
    """Whether other arguments have the batch axes, or the rows, that an array would have."""
    kind = node.variable.kind
    batch = len(shape) + 1 - kind.axes
    return batch <= depth or (kind in rows and rows[kind] == shape[-1])


def _broadcast(batches: Sequence[Shape], batch: Shape) -> bool:
    try:
        np.broadcast_shapes(*batches, batch)
    except ValueError:
        return False
    return True
