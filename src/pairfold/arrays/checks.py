"""Arrays of any library, read without importing it.

An adapter tells what the core needs of an array: dtype name, shape, byte strides, address. A
library is known only if the user already imported it (`sys.modules`). All checks of shapes, dtypes
and devices happen here, before any machine code runs, and name the argument by its alias.
"""

from __future__ import annotations

import ctypes
import functools
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..core.cache import cached
from ..core.node import Kind, Node
from ..errors import ArgumentError, ArrayTypeError, DeviceError, DTypeError, ShapeError
from . import torch_gate as gate
from .advice import kind_name, to_array, to_dtype, to_one_dtype
from .operations import NumpyOperations, TorchOperations

Triple = tuple[int, int, int]
WHOLE = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
SUPPORTED = ("float32", "float64", "float16", "bfloat16")


@cached("dtype names", 64)  # NumPy makes the name anew each time, in microseconds
def _dtype_name(dtype: np.dtype[Any]) -> str:
    return dtype.name if dtype.isnative else f"{dtype.name} in foreign byte order"


# In memory an array begins with what every object has, then comes the address of its data (the C
# struct PyArrayObject, part of NumPy's binary interface). `__array_interface__` takes microseconds.
_DATA = object.__basicsize__
_word_at = ctypes.c_size_t.from_address


@functools.cache
def _objects_are_read() -> bool:
    """Whether addresses may be read from array objects: on CPython, if a probe confirms it."""
    if sys.implementation.name != "cpython":
        return False
    probe = np.arange(6.0)[2:]
    return _word_at(id(probe) + _DATA).value == probe.__array_interface__["data"][0]


class NumpyArrays(NumpyOperations):
    """Adapter for `numpy.ndarray`."""

    name = "numpy"
    elsewhere = False

    @staticmethod
    def owns(array: object) -> bool:
        """Whether the array belongs to this library (masked arrays do not: masks would be lost)."""
        if not isinstance(array, (np.ndarray, np.generic)):
            return False
        masked = sys.modules.get("numpy.ma")  # importing it would cost milliseconds
        return masked is None or not isinstance(array, masked.MaskedArray)

    @staticmethod
    def key(array: Any) -> tuple[Any, ...]:
        """All but the address: what arrays of equal keys need is worked out only once."""
        return (array.__class__, array.shape, array.strides, array.dtype)

    @staticmethod
    def dtype(array: Any) -> str:
        """The name of the dtype; other byte orders are named as such."""
        return _dtype_name(array.dtype)

    @staticmethod
    def check_kind(array: Any, label: str) -> None:
        """Raise for arrays of subclasses that answer for their shapes and strides."""
        if NumpyArrays.plain(array) is not array:
            raise ArrayTypeError(
                "arrays must have the shape and strides of their memory",
                found=f"{label} is a {type(array).__qualname__}, which answers for them",
                hint="x.view(numpy.ndarray)",
            )

    @staticmethod
    def plain(array: Any) -> Any:
        """The array; its memory alone where it is of a subclass that answers for its shape."""
        kind = type(array)
        if kind is np.ndarray or not isinstance(array, np.ndarray):
            return array
        names = ("shape", "strides", "dtype", "__getattribute__")
        if all(getattr(kind, name) is getattr(np.ndarray, name) for name in names):
            return array
        return array if kind is np.recarray else array.view(np.ndarray)

    @staticmethod
    def check_memory(array: Any, label: str) -> None:
        """NumPy keeps the memory of arrays as long as they are."""

    @staticmethod
    def device(array: Any) -> None:
        """None: the host's memory."""

    @staticmethod
    def strides(array: Any) -> tuple[int, ...]:
        """Strides in bytes."""
        return array.strides

    @staticmethod
    def address(array: Any) -> int:
        """Address of the first element."""
        if isinstance(array, np.ndarray) and _objects_are_read():
            return _word_at(id(array) + _DATA).value
        return array.__array_interface__["data"][0]

    @staticmethod
    def addresses(arrays: list[Any], needs: Sequence[Any]) -> list[int]:
        """Addresses of the first elements."""
        if _objects_are_read():
            return [_word_at(id(array) + _DATA).value for array in arrays]
        return [NumpyArrays.address(array) for array in arrays]

    @staticmethod
    def need(array: Any, label: str) -> None:
        """Nothing has to be checked at each call."""

    @staticmethod
    def empty(shape: tuple[int, ...], like: Any, kind: str = "value") -> Any:
        """A new array of that shape: of the dtype of another, or for indices or truth values."""
        return np.empty(shape, {"index": np.int64, "truth": np.bool_}.get(kind, like.dtype))

    @staticmethod
    def numbers(values: Sequence[float], like: Any) -> Any:
        """Numbers as an array of the dtype of another."""
        return np.array(values, like.dtype)

    @staticmethod
    def writable(array: Any) -> bool:
        """Whether its memory may be written."""
        return bool(array.flags.writeable)

    @staticmethod
    def is_ready(array: Any) -> bool:
        """Whether its memory is its values: scalars have none that stays."""
        return isinstance(array, np.ndarray)

    @staticmethod
    def ready(array: Any) -> Any:
        """The array in a form whose memory is its values."""
        return np.asarray(array)

    @staticmethod
    def to_numpy(array: Any) -> Any:
        """The array itself."""
        return array

    @staticmethod
    def whole_numbers(array: Any, label: str) -> Any:
        """The array itself."""
        return array


class TorchArrays(TorchOperations):
    """Adapter for `torch.Tensor` (parameters and other subclasses included)."""

    name = "torch"
    elsewhere = False

    @staticmethod
    def owns(array: object) -> bool:
        """Whether the array is a tensor; False when torch was never imported."""
        torch = sys.modules.get("torch")
        return torch is not None and isinstance(array, torch.Tensor)

    @staticmethod
    def key(array: Any) -> tuple[Any, ...]:
        """All but the address: what tensors of equal keys need is worked out only once."""
        return (
            array.__class__,
            array.dtype,
            array.device,
            array.layout,
            array.is_neg(),
            array.shape,
            array.stride(),
        )

    @staticmethod
    def dtype(array: Any) -> str:
        """The name of the dtype, as NumPy has it."""
        return str(array.dtype).removeprefix("torch.")

    @staticmethod
    def device(array: Any) -> Any:
        """The GPU that holds the tensor; None: the host's memory."""
        return None if array.device.type == "cpu" else array.device

    @staticmethod
    def strides(array: Any) -> tuple[int, ...]:
        """Strides in bytes."""
        item = array.element_size()
        return tuple([stride * item for stride in array.stride()])

    @staticmethod
    def address(array: Any) -> int:
        """Address of the first element."""
        return array.data_ptr()

    addresses = staticmethod(gate.addresses)
    check_kind = staticmethod(gate.check_kind)
    check_memory = staticmethod(gate.check_memory)
    plain = staticmethod(gate.plain)

    @staticmethod
    def need(array: Any, label: str) -> Any:
        """What the tensor needs of memory, to be checked at each call."""
        return (*gate.span(array), label)

    @staticmethod
    def empty(shape: tuple[int, ...], like: Any, kind: str = "value") -> Any:
        """A new tensor of that shape on the device of another: of its dtype, or for indices or
        truth values."""
        torch = sys.modules["torch"]
        dtype = like.dtype
        if kind != "value":
            dtype = torch.int64 if kind == "index" else torch.bool
        return torch.empty(shape, dtype=dtype, device=like.device)

    @staticmethod
    def numbers(values: Sequence[float], like: Any) -> Any:
        """Numbers as a tensor of the dtype and on the device of another; never to be changed."""
        if like.device.type == "cpu":
            return sys.modules["torch"].tensor(values, dtype=like.dtype)
        return _numbers_there(tuple(values), like.dtype, like.device)

    @staticmethod
    def writable(array: Any) -> bool:
        """Whether its memory holds its values, to be written."""
        return not array.is_neg() and not array._is_zerotensor()

    @staticmethod
    def is_ready(array: Any) -> bool:
        """Whether its memory is its values: that of a negation view is not."""
        return not array.is_neg()

    @staticmethod
    def ready(array: Any) -> Any:
        """The tensor in a form whose memory is its values (a negation view is carried out)."""
        return array.resolve_neg() if array.is_neg() else array

    @staticmethod
    def to_numpy(array: Any) -> Any:
        """The tensor's values as a NumPy array."""
        array = array.detach()
        torch = sys.modules["torch"]
        return (array.float() if array.dtype == torch.bfloat16 else array).cpu().numpy()

    @staticmethod
    def tensor(array: Any) -> Any:
        """A NumPy array as a tensor, of the same memory where that is possible."""
        array = np.ascontiguousarray(array)
        return sys.modules["torch"].as_tensor(array if array.flags.writeable else array.copy())

    @staticmethod
    def whole_numbers(array: Any, label: str) -> Any:
        """The values of a tensor that no derivative reads, as a NumPy array.

        Inside the transforms of `torch.func` even a plain tensor's `detach` would wrap it.

        Raises:
            ArrayTypeError: other values for each batch element of a vmap.
            DTypeError: numbers that NumPy has no whole numbers for.
        """
        if TorchArrays.dtype(array) not in WHOLE:
            raise DTypeError(
                f"{label} must hold whole numbers", found=f"dtype {array.dtype}", hint="x.long()"
            )
        inside = sys.modules["torch"]._C._functorch
        while inside.is_functorch_wrapped_tensor(array):
            if inside.is_batchedtensor(array):
                raise ArrayTypeError(
                    "all batch elements must have the same numbers",
                    found=f"{label} is mapped over",
                    hint="in_dims=None for it",
                )
            array = inside.get_unwrapped(array)
        with sys.modules["torch"]._C._DisableFuncTorch():
            return array.numpy(force=True)


@cached("numbers on devices", 256)  # a copy to a GPU waits for it, and no CUDA graph records one
def _numbers_there(values: tuple[float, ...], dtype: Any, device: Any) -> Any:
    return sys.modules["torch"].tensor(values, dtype=dtype, device=device)


ADAPTERS: tuple[Any, ...] = (NumpyArrays, TorchArrays)


def label_of(position: int, names: Mapping[int, str]) -> str:
    """How messages call an argument: `argument 0 (x)`.

    >>> label_of(0, {0: "x"})
    'argument 0 (x)'
    """
    return (
        f"argument {position} ({names[position]})"
        if position in names
        else (f"argument {position}")
    )


def adapter_of(arrays: Sequence[object], names: Mapping[int, str], library: str | None) -> Any:
    """The adapter of the one library that all arrays belong to.

    Raises:
        ArrayTypeError: arrays of different libraries, of another than `library`, or none at all.
    """
    allowed = [a for a in ADAPTERS if library in (None, a.name)]
    found: Any = None
    for position, array in enumerate(arrays):
        owner = next((a for a in allowed if a.owns(array)), None)
        if owner is None or (found is not None and owner is not found):
            owners = (a for x in arrays for a in allowed if a.owns(x))
            first = next(owners, None) if found is None else found
            wanted = first.name if first is not None else " or ".join(a.name for a in allowed)
            dtypes = [first.dtype(x) for x in arrays if first is not None and first.owns(x)]
            dtype = next((dtype for dtype in dtypes if dtype in SUPPORTED), None)
            raise ArrayTypeError(
                "all arguments must be arrays of one library",
                found=f"{label_of(position, names)} is {kind_name(array)}, expected {wanted}",
                hint=to_array(array, names.get(position, "x"), wanted, dtype),
            )
        found = owner
    return found


@dataclass(frozen=True)
class Sizes:
    """Rows of i and of j, and the common batch shape."""

    i: int
    j: int
    batch: tuple[int, ...]

    def of(self, kind: Kind) -> int:
        """The number of rows of a kind."""
        return self.i if kind == Kind.I else self.j


def check_dtypes(adapter: Any, arrays: Sequence[Any], names: Mapping[int, str]) -> str:
    """The one dtype of all arrays.

    Raises:
        DTypeError: a dtype that cannot be computed with, or more than one.
        DeviceError: an array on a device that no backend uses, or on another than the first.
    """
    called = [names.get(position, "x") for position in range(len(arrays))]
    for position, array in enumerate(arrays):
        adapter.check_kind(array, label_of(position, names))
    dtypes = [adapter.dtype(array) for array in arrays]
    for position, (array, dtype) in enumerate(zip(arrays, dtypes, strict=True)):
        label = label_of(position, names)
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
        if adapter.device(array) != adapter.device(arrays[0]):
            raise DeviceError(
                "all arrays must be on the same device",
                found=f"{label} is on {array.device}; argument 0 is on {arrays[0].device}",
                hint=f"{called[position]}.to({str(arrays[0].device)!r})",
            )
    return dtypes[0]


def check_shapes(
    variables: Sequence[Node],
    shapes: Sequence[tuple[int, ...]],
    names: Mapping[int, str],
    shown: Sequence[tuple[int, ...]] | None = None,
) -> Sizes:
    """The sizes that the shapes agree on.

    Row and column variables: (..., rows, dim); parameters: (..., dim). Leading batch axes
    broadcast as in NumPy; a parameter may carry leading axes of size 1 that nothing else has.
    Messages tell the shapes `shown`, those of the user's arrays.

    Raises:
        ShapeError: too few axes, a wrong last axis, or sizes that differ.
    """
    rows: dict[Kind, tuple[int, int]] = {}
    batches: list[tuple[int, ...]] = []
    deepest = max(
        (len(s) - 2 for v, s in zip(variables, shapes, strict=True) if v.kinds & 3), default=0
    )
    for position, (node, shape) in enumerate(zip(variables, shapes, strict=True)):
        _, dim, kind = node.params
        own = 1 if kind == Kind.PARAMETER else 2
        if len(shape) < own or shape[-1] != dim:
            raise _bad_shape(position, node, shape, names)
        batch = tuple(shape[:-own])
        if kind == Kind.PARAMETER:
            while len(batch) > deepest and batch[0] == 1:
                batch = batch[1:]
        else:
            known, where = rows.setdefault(kind, (shape[-2], position))
            if shape[-2] != known:
                letter = "i" if kind == Kind.I else "j"
                raise ShapeError(
                    f"all variables indexed by {letter} must have the same number of rows",
                    found=f"{label_of(position, names)} has {shape[-2]} "
                    f"(shape {(shown or shapes)[position]}), "
                    f"{label_of(where, names)} has {known}",
                    hint=_other_index(position, kind, shape, variables, shapes, names),
                )
        batches.append(batch)
    try:
        batch = broadcast_shapes(batches)
    except ValueError:
        listed = "; ".join(f"{label_of(p, names)}: {b}" for p, b in enumerate(batches) if b)
        raise ShapeError("batch axes do not broadcast together", found=listed) from None
    size = {kind: count for kind, (count, _) in rows.items()}
    return Sizes(size.get(Kind.I, 1), size.get(Kind.J, 1), tuple(batch))


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
    letter = {Kind.I: "M", Kind.J: "N"}.get(kind)
    wanted = f"(..., {dim})" if letter is None else f"(..., {letter}, {dim})"
    name = names.get(position, "x")
    return ShapeError(
        f"{label_of(position, names)} must have shape {wanted}",
        found=f"shape {shape}",
        hint=_other_shape(name, dim, kind, shape),
    )


def _other_index(
    position: int,
    kind: Kind,
    shape: tuple[int, ...],
    variables: Sequence[Node],
    shapes: Sequence[tuple[int, ...]],
    names: Mapping[int, str],
) -> str | None:
    """That an array has as many rows as those of the other index."""
    other = Kind.J if kind == Kind.I else Kind.I
    rows = {s[-2] for v, s in zip(variables, shapes, strict=True) if v.params[2] == other and s[1:]}
    if shape[-2] not in rows:
        return None
    declared, letter = ("Vi", "i") if other == Kind.I else ("Vj", "j")
    name = names.get(position, "x")
    return f'the alias "{name} = {declared}({shape[-1]})", if it is indexed by {letter}'


def _other_shape(name: str, dim: int, kind: Kind, shape: tuple[int, ...]) -> str | None:
    """What may have been meant by an array of the wrong shape."""
    if kind == Kind.PARAMETER:
        if shape == (dim, 1):
            return f"{name}[:, 0]"
        if len(shape) == 1:
            return f"{name} = Pm({shape[0]}), if it has {shape[0]} components"
        return None
    if not shape:
        return f"{name}.reshape(1, 1)" if dim == 1 else None
    if len(shape) == 1:
        if shape[0] == dim:
            return f"{name}[None, :], if it is one row"
        return f"{name}.reshape(-1, {dim})" if shape[0] % dim == 0 else None
    if shape[-2] == dim:
        return f"{name}.T" if len(shape) == 2 else f"{name}.swapaxes(-1, -2)"
    declared = "Vi" if kind == Kind.I else "Vj"
    return f'the alias "{name} = {declared}({shape[-1]})", if rows have {shape[-1]} components'


def overlap(adapter: Any, one: Any, other: Any) -> bool:
    """Whether two arrays may share memory (by the ranges of addresses they span)."""
    spans: list[tuple[int, int]] = []
    for array in (one, other):
        reach = [
            stride * (size - 1)
            for size, stride in zip(array.shape, adapter.strides(array), strict=True)
        ]
        if 0 in array.shape:
            return False
        start = adapter.address(array)
        item = int(array.itemsize if hasattr(array, "itemsize") else array.element_size())
        low = sum(step for step in reach if step < 0)
        high = sum(step for step in reach if step > 0)
        spans.append((start + low, start + high + item))
    return spans[0][0] < spans[1][1] and spans[1][0] < spans[0][1]


def check_out(adapter: Any, out: Any, shape: tuple[int, ...], dtype: str, like: Any) -> None:
    """Raise unless a result of that shape and dtype, where `like` is, can be written to `out`.

    Raises:
        DTypeError, ShapeError, DeviceError: what does not fit.
    """
    if adapter.owns(out):
        adapter.check_kind(out, "out")
        adapter.check_memory(out, "out")
    if not adapter.owns(out) or adapter.dtype(out) != dtype:
        raise DTypeError(
            f"out must be a {adapter.name} array of dtype {dtype}",
            found=f"{kind_name(out)} of dtype {getattr(out, 'dtype', None)}",
            hint=_new(adapter, shape, dtype),
        )
    if adapter.device(out) != adapter.device(like):
        raise DeviceError(
            "out must be on the device of the arguments",
            found=f"out is on {out.device}, the arguments are on {like.device}",
            hint="torch.empty(..., device=x.device)",
        )
    repeated = any(
        stride == 0 and size > 1
        for size, stride in zip(out.shape, adapter.strides(out), strict=True)
    )
    if repeated or not adapter.writable(out):
        raise ShapeError(
            "out must be an array that can be written, each element in a place of its own",
            found="a repeated view" if repeated else "a read-only array",
            hint=_new(adapter, shape, dtype),
        )
    if tuple(out.shape) != shape:
        flat = tuple(out.shape) == shape[:-1] and shape[-1] == 1
        raise ShapeError(
            f"out must have shape {shape}",
            found=f"shape {tuple(out.shape)}",
            hint="out[..., None]" if flat else _new(adapter, shape, dtype),
        )


def _new(adapter: Any, shape: tuple[int, ...], dtype: str) -> str:
    """A new array to fill, as a program makes it."""
    if adapter.name == "torch":
        return f"torch.empty({shape}, dtype=torch.{dtype})"
    return f"numpy.empty({shape}, {dtype!r})"


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


def batch_offsets(batch: tuple[int, ...], per_argument: Sequence[tuple[int, ...]]) -> Any:
    """Byte offsets of every batch element: int64 array (batches, arguments)."""
    table = np.zeros((math.prod(batch), len(per_argument)), np.int64)
    for column, strides in enumerate(per_argument):
        total = np.zeros((1,), np.int64)
        for size, stride in zip(batch, strides, strict=True):
            steps = np.arange(size, dtype=np.int64) * stride
            total = (total[:, None] + steps).reshape(-1)
        table[:, column] = total
    return table
