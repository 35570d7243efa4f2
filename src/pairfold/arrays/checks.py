"""Checks of shapes, dtypes and devices, for arrays of any library, and what follows for memory.

They are made before any machine code runs, and name an argument by its alias.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..core.library import Array, NumpyArray
from ..core.node import Axis, Node
from ..errors import ArgumentError, DeviceError, DTypeError, ShapeError
from .advice import kind_name, label_of, to_dtype, to_one_dtype
from .library import SUPPORTED, ArrayLibrary


@dataclass(frozen=True)
class Sizes:
    """Rows of i and of j, and the common batch shape."""

    i: int
    j: int
    batch: tuple[int, ...]

    def of(self, kind: Axis) -> int:
        """The number of rows of a kind."""
        return self.i if kind == Axis.I else self.j


def truths_of(
    library: ArrayLibrary, variables: Sequence[Node], arrays: Sequence[Array]
) -> frozenset[int]:
    """The positions of arrays of truth values for every pair: a byte each, read as 0 or 1."""
    return frozenset(
        position
        for position, (v, array) in enumerate(zip(variables, arrays, strict=True))
        if v.variable.kind == Axis.PAIR
        and v.dim == 1
        and position > 0
        and library.dtype(array) == "bool"
    )


def check_dtypes(
    library: ArrayLibrary,
    arrays: Sequence[Array],
    names: Mapping[int, str],
    variables: Sequence[Node] | None = None,
) -> str:
    """The one dtype of all arrays but those of truth values for every pair of `variables`.

    Raises:
        DTypeError: a dtype that cannot be computed with, or more than one.
        DeviceError: an array on a device that no backend uses, or on another than the first.
    """
    called = [names.get(position, "x") for position in range(len(arrays))]
    for position, array in enumerate(arrays):
        library.check_kind(array, label_of(position, names))
    dtypes = [library.dtype(array) for array in arrays]
    truths = frozenset[int]() if variables is None else truths_of(library, variables, arrays)
    for position, (array, dtype) in enumerate(zip(arrays, dtypes, strict=True)):
        label = label_of(position, names)
        if position in truths:
            dtype = dtypes[0]
        if dtype not in SUPPORTED:
            raise DTypeError(
                "arrays must be of dtype float32, float64, float16 or bfloat16",
                found=f"{label} has dtype {dtype}",
                hint=to_dtype(array, called[position], dtype, dtypes),
            )
        if dtype != dtypes[0]:
            raise DTypeError(
                "all arrays must have the same dtype",
                found=f"{label} has dtype {dtype}; argument 0 has {dtypes[0]}",
                hint=to_one_dtype(arrays, dtypes, called),
            )
        if library.device(array) != library.device(arrays[0]):
            raise DeviceError(
                "all arrays must be on the same device",
                found=f"{label} is on {_place(library, array)}; "
                f"argument 0 is on {_place(library, arrays[0])}",
                hint=library.words.moved.format(
                    name=called[position], device=_place(library, arrays[0])
                ),
            )
    return dtypes[0]


def _place(library: ArrayLibrary, array: Array) -> str:
    """The device of an array, as its library calls it."""
    return str(library.place(array).get("device", "cpu"))


def check_shapes(
    variables: Sequence[Node],
    shapes: Sequence[tuple[int, ...]],
    names: Mapping[int, str],
    shown: Sequence[tuple[int, ...]] | None = None,
) -> Sizes:
    """The sizes that the shapes agree on.

    Row and column variables: (..., rows, dim); those of pairs: (..., rows, columns, dim);
    parameters: (..., dim). Leading batch axes broadcast as in NumPy; a parameter may carry leading
    axes of size 1 that nothing else has.
    Messages tell the shapes `shown`, those of the user's arrays.

    Raises:
        ShapeError: too few axes, a wrong last axis, or sizes that differ.
    """
    rows: dict[Axis, tuple[int, int]] = {}
    batches: list[tuple[int, ...]] = []
    deepest = max(
        (
            len(s) - v.variable.kind.axes
            for v, s in zip(variables, shapes, strict=True)
            if v.kinds & Axis.PAIR.bits
        ),
        default=0,
    )
    for position, (node, shape) in enumerate(zip(variables, shapes, strict=True)):
        _, dim, kind = node.variable
        own = kind.axes
        if len(shape) < own or shape[-1] != dim:
            raise _bad_shape(position, node, shape, names)
        batch = tuple(shape[:-own])
        if kind == Axis.PARAMETER:
            while len(batch) > deepest and batch[0] == 1:
                batch = batch[1:]
        for axis, size in _lengths(kind, shape):
            known, where = rows.setdefault(axis, (size, position))
            if size != known:
                pairs = Axis.PAIR in (kind, variables[where].variable.kind)
                given = (shown or shapes)[position], (shown or shapes)[where]
                raise ShapeError(
                    f"all variables indexed by {axis.name.lower()} must have the same number of "
                    f"rows",
                    found=f"{label_of(position, names)} has {size} (shape {given[0]}), "
                    f"{label_of(where, names)} has {known}" + f" (shape {given[1]})" * pairs,
                    hint=_other_pairs(position, where, variables, shapes, names)
                    if pairs
                    else _other_index(position, kind, shape, variables, shapes, names),
                )
        batches.append(batch)
    try:
        batch = broadcast_shapes(batches)
    except ValueError:
        listed = "; ".join(f"{label_of(p, names)}: {b}" for p, b in enumerate(batches) if b)
        raise ShapeError("batch axes do not broadcast together", found=listed) from None
    size = {kind: count for kind, (count, _) in rows.items()}
    return Sizes(size.get(Axis.I, 1), size.get(Axis.J, 1), tuple(batch))


def _lengths(kind: Axis, shape: tuple[int, ...]) -> Sequence[tuple[Axis, int]]:
    """The axes of pairs that an array has, and their lengths."""
    if kind == Axis.PARAMETER:
        return ()
    if kind == Axis.PAIR:
        return (Axis.I, shape[-3]), (Axis.J, shape[-2])
    return ((kind, shape[-2]),)


def broadcast_shapes(shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """The shape that all of these broadcast to; NumPy's has a limit of 32 or 64 axes.

    >>> broadcast_shapes([(3, 1), (4,), ()])
    (3, 4)

    Raises:
        ValueError: sizes that differ, neither being 1.
    """
    depth = max(map(len, shapes), default=0)
    found = [1] * depth
    for shape in shapes:
        for axis, size in enumerate(shape, depth - len(shape)):
            if size != 1 and found[axis] not in (1, size):
                raise ValueError("shapes do not broadcast together")
            found[axis] = size if found[axis] == 1 else found[axis]
    return tuple(found)


def _bad_shape(
    position: int, node: Node, shape: tuple[int, ...], names: Mapping[int, str]
) -> ShapeError:
    _, dim, kind = node.params
    letters = {Axis.I: "M, ", Axis.J: "N, ", Axis.PAIR: "M, N, "}.get(kind, "")
    wanted = f"(..., {letters}{dim})"
    name = names.get(position, "x")
    return ShapeError(
        f"{label_of(position, names)} must have shape {wanted}",
        found=f"shape {shape}",
        hint=_other_shape(name, dim, kind, shape),
    )


def _other_index(
    position: int,
    kind: Axis,
    shape: tuple[int, ...],
    variables: Sequence[Node],
    shapes: Sequence[tuple[int, ...]],
    names: Mapping[int, str],
) -> str | None:
    """That an array has as many rows as those of the other index."""
    other = Axis.J if kind == Axis.I else Axis.I
    rows = {s[-2] for v, s in zip(variables, shapes, strict=True) if v.params[2] == other and s[1:]}
    if shape[-2] not in rows:
        return None
    declared, letter = ("Vi", "i") if other == Axis.I else ("Vj", "j")
    name = names.get(position, "x")
    return f'the alias "{name} = {declared}({shape[-1]})", if it is indexed by {letter}'


def _other_pairs(
    position: int,
    where: int,
    variables: Sequence[Node],
    shapes: Sequence[tuple[int, ...]],
    names: Mapping[int, str],
) -> str | None:
    """What an array of pairs may have been meant to be, of two arrays of different sizes."""
    place = position if variables[position].variable.kind == Axis.PAIR else where
    name, (rows, columns) = names.get(place, "x"), shapes[place][-3:-1]
    others = {
        axis: length
        for node, shape in zip(variables, shapes, strict=True)
        if node.variable.kind != Axis.PAIR and len(shape) >= node.variable.kind.axes
        for axis, length in _lengths(node.variable.kind, shape)
    }
    if others.get(Axis.I, columns) == columns and others.get(Axis.J, rows) == rows:
        return f"{name}.swapaxes(-3, -2), if its first axis is j"
    return None


def _other_shape(name: str, dim: int, kind: Axis, shape: tuple[int, ...]) -> str | None:
    """What may have been meant by an array of the wrong shape."""
    if kind == Axis.PARAMETER:
        if shape == (dim, 1):
            return f"{name}[:, 0]"
        if len(shape) == 1:
            return f"{name} = Pm({shape[0]}), if it has {shape[0]} components"
        return None
    if kind == Axis.PAIR:
        return f"{name}[:, :, None]" if dim == 1 and len(shape) == 2 else None
    if not shape:
        return f"{name}.reshape(1, 1)" if dim == 1 else None
    if len(shape) == 1:
        if shape[0] == dim:
            return f"{name}[None, :], if it is one row"
        return f"{name}.reshape(-1, {dim})" if shape[0] % dim == 0 else None
    if shape[-2] == dim:
        return f"{name}.T" if len(shape) == 2 else f"{name}.swapaxes(-1, -2)"
    declared = "Vi" if kind == Axis.I else "Vj"
    return f'the alias "{name} = {declared}({shape[-1]})", if rows have {shape[-1]} components'


def overlap(library: ArrayLibrary, one: Array, other: Array) -> bool:
    """Whether two arrays may share memory (by the ranges of addresses they span)."""
    spans: list[tuple[int, int]] = []
    for array in (one, other):
        reach = [
            stride * (size - 1)
            for size, stride in zip(array.shape, library.strides(array), strict=True)
        ]
        if 0 in array.shape:
            return False
        start = library.address(array)
        item = library.item_bytes(array)
        low = sum(step for step in reach if step < 0)
        high = sum(step for step in reach if step > 0)
        spans.append((start + low, start + high + item))
    return spans[0][0] < spans[1][1] and spans[1][0] < spans[0][1]


def check_out(
    library: ArrayLibrary, out: object, shape: tuple[int, ...], dtype: str, like: Array
) -> None:
    """Raise unless a result of that shape and dtype, where `like` is, can be written to `out`.

    Raises:
        DTypeError, ShapeError, DeviceError: what does not fit.
    """
    if library.owns(out):
        library.check_kind(out, "out")
        library.check_memory(out, "out")
    if not library.owns(out) or library.dtype(out) != dtype:
        raise DTypeError(
            f"out must be a {library.name} array of dtype {dtype}",
            found=f"{kind_name(out)} of dtype {getattr(out, 'dtype', None)}",
            hint=_new(library, shape, dtype),
        )
    if library.device(out) != library.device(like):
        raise DeviceError(
            "out must be on the device of the arguments",
            found=f"out is on {_place(library, out)}, the arguments are on {_place(library, like)}",
            hint=library.words.beside,
        )
    repeated = any(
        stride == 0 and size > 1
        for size, stride in zip(out.shape, library.strides(out), strict=True)
    )
    if repeated or not library.writable(out):
        raise ShapeError(
            "out must be an array that can be written, each element in a place of its own",
            found="a repeated view" if repeated else "a read-only array",
            hint=_new(library, shape, dtype),
        )
    if tuple(out.shape) != shape:
        flat = tuple(out.shape) == shape[:-1] and shape[-1] == 1
        raise ShapeError(
            f"out must have shape {shape}",
            found=f"shape {tuple(out.shape)}",
            hint="out[..., None]" if flat else _new(library, shape, dtype),
        )


def _new(library: ArrayLibrary, shape: tuple[int, ...], dtype: str) -> str:
    """A new array to fill, as a program makes it."""
    return library.words.new.format(shape=shape, dtype=dtype)


def check_count(expected: int, found: int, names: Mapping[int, str]) -> None:
    """Raise unless a call has as many arrays as the formula has arguments.

    Raises:
        ArgumentError: with both counts and the names expected.
    """
    if expected != found:
        listed = ", ".join(label_of(position, names) for position in range(expected))
        raise ArgumentError(
            f"the formula takes {expected} arrays, but {found} were given",
            hint=f"pass {listed}" if listed else None,
        )


def aligned_strides(
    shape: tuple[int, ...], strides: tuple[int, ...], own: int, batch: tuple[int, ...]
) -> tuple[int, ...]:
    """Byte strides along the common batch axes: 0 where an array is repeated."""
    lead = len(shape) - own
    keep = min(lead, len(batch))
    padded = [0] * (len(batch) - keep)
    return tuple(
        padded
        + [
            0 if size == 1 else stride
            for size, stride in zip(
                shape[lead - keep : lead], strides[lead - keep : lead], strict=True
            )
        ]
    )


def kernel_strides(kind: Axis, strides: tuple[int, ...], kept: Axis) -> tuple[int, ...]:
    """Those of byte strides that a kernel with an index for rows takes: see `Strides`.

    >>> kernel_strides(Axis.PAIR, (400, 40, 8), Axis.J)
    (40, 8, 400)
    """
    if kind == Axis.PAIR:
        return (*strides[-3::2], strides[-2]) if kept == Axis.I else (*strides[-2:], strides[-3])
    return (0 if kind == Axis.PARAMETER else strides[-2], strides[-1])


def batch_offsets(batch: tuple[int, ...], per_argument: Sequence[tuple[int, ...]]) -> NumpyArray:
    """Byte offsets of every batch element: int64 array (batches, arguments)."""
    table = np.zeros((math.prod(batch), len(per_argument)), np.int64)
    for column, strides in enumerate(per_argument):
        total = np.zeros((1,), np.int64)
        for size, stride in zip(batch, strides, strict=True):
            steps = np.arange(size, dtype=np.int64) * stride
            total = (total[:, None] + steps).reshape(-1)
        table[:, column] = total
    return table
