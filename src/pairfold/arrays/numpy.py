"""NumPy as an array library."""

from __future__ import annotations

import copy
import ctypes
import functools
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, ClassVar, TypeGuard, cast

import numpy as np

from ..core.cache import cached
from ..core.dtypes import RESULTS
from ..core.library import NumpyArray
from ..errors import ArrayTypeError
from .library import COMPLEX, ClustersOf, Functions, Need, Words

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

_COMPLEX_OF = {real: pairs for pairs, real in COMPLEX.items()}


@cached("dtype names", 64)  # NumPy makes the name anew each time, in microseconds
def _dtype_name(dtype: np.dtype[np.generic]) -> str:
    return dtype.name if dtype.isnative else f"{dtype.name} in foreign byte order"


# In memory an array begins with what every object has, then comes the address of its data (the C
# struct PyArrayObject, part of NumPy's binary interface). `__array_interface__` takes microseconds.
_DATA = object.__basicsize__
_word_at = ctypes.c_size_t.from_address


def stand_in(shape: Sequence[int], dtype: DTypeLike) -> NumpyArray:
    """An array that has a shape, strides and a dtype; none of its numbers is ever to be read."""
    one = np.zeros(1, dtype)
    sizes = [max(size, 1) for size in shape]
    strides = [one.itemsize * math.prod(sizes[n + 1 :]) for n in range(len(shape))]
    return np.lib.stride_tricks.as_strided(one, tuple(shape), strides, writeable=False)


@functools.cache
def _objects_are_read() -> bool:
    """Whether addresses may be read from array objects: on CPython, if a probe confirms it."""
    if sys.implementation.name != "cpython":
        return False
    probe = np.arange(6.0)[2:]
    return _word_at(id(probe) + _DATA).value == probe.__array_interface__["data"][0]


class _Clusters:
    """Clusters of points, as PyKeOps has them for NumPy."""

    @staticmethod
    def cells(points: NumpyArray, size: object) -> NumpyArray:
        return np.floor(points / np.asarray(size)).astype(np.int64)

    @staticmethod
    def ranks(codes: NumpyArray) -> NumpyArray:
        return np.unique(codes, return_inverse=True)[1].reshape(-1).astype(np.int64)

    @staticmethod
    def order(labels: NumpyArray) -> NumpyArray:
        return np.argsort(labels, kind="stable")

    @staticmethod
    def sizes(labels: NumpyArray, count: int) -> NumpyArray:
        return np.bincount(labels, minlength=count).astype(np.int64)

    @staticmethod
    def sums(values: NumpyArray, labels: NumpyArray, count: int) -> NumpyArray:
        found = np.zeros((count, values.shape[1]))
        np.add.at(found, labels, values)
        return found

    @staticmethod
    def ratio(sums: NumpyArray, totals: NumpyArray) -> NumpyArray:
        with np.errstate(invalid="ignore", divide="ignore"):
            return sums / totals

    @staticmethod
    def floored(totals: NumpyArray, least: float) -> NumpyArray:
        return totals

    @staticmethod
    def intervals(ends: NumpyArray, sizes: NumpyArray) -> NumpyArray:
        return np.stack([ends - sizes, ends], axis=1)

    @staticmethod
    def chosen(ranges: NumpyArray, where: NumpyArray) -> NumpyArray:
        return np.asarray(ranges)[where.nonzero()[1]].astype(np.int64)

    @staticmethod
    def whole(ranges: NumpyArray) -> NumpyArray:
        return np.asarray(ranges).astype(np.int64)


class NumpyArrays:
    """The library of `numpy.ndarray`, which has no derivatives."""

    name: ClassVar[str] = "numpy"
    differentiates: ClassVar[bool] = False
    clusters: ClassVar[ClustersOf[NumpyArray]] = _Clusters
    elsewhere: ClassVar[Callable[..., None] | None] = None
    words: ClassVar[Words] = Words(
        one="a NumPy array",
        many="NumPy arrays",
        joined="numpy.concatenate",
        new="numpy.empty({shape}, {dtype!r})",
        beside="numpy.empty(...)",
        moved="{name}",
        made="{name}",
        numpy="{name}",
    )

    # -- what an array is -----------------------------------------------------------------------

    @staticmethod
    def owns(array: object) -> TypeGuard[NumpyArray]:
        """Whether the array belongs to this library (masked arrays do not: masks would be lost)."""
        if not isinstance(array, (np.ndarray, np.generic)):
            return False
        masked = sys.modules.get("numpy.ma")  # importing it would cost milliseconds
        return masked is None or not isinstance(array, masked.MaskedArray)

    @staticmethod
    def key(array: NumpyArray) -> tuple[object, ...]:
        """All but the address: what arrays of equal keys need is worked out only once."""
        return (array.__class__, array.shape, array.strides, array.dtype)

    @staticmethod
    def dtype(array: NumpyArray) -> str:
        """The name of the dtype; other byte orders are named as such."""
        return _dtype_name(array.dtype)

    @staticmethod
    def check_kind(array: NumpyArray, label: str) -> None:
        """Raise for arrays of subclasses that answer for their shapes and strides."""
        if NumpyArrays.plain(array) is not array:
            raise ArrayTypeError(
                "arrays must have the shape and strides of their memory",
                found=f"{label} is a {type(array).__qualname__}, which answers for them",
                hint="x.view(numpy.ndarray)",
            )

    @staticmethod
    def plain(array: NumpyArray) -> NumpyArray:
        """The array; its memory alone where it is of a subclass that answers for its shape."""
        kind = type(array)
        if kind is np.ndarray or not isinstance(array, np.ndarray):
            return array
        names = ("shape", "strides", "dtype", "__getattribute__")
        if all(getattr(kind, name) is getattr(np.ndarray, name) for name in names):
            return array
        return array if kind is np.recarray else array.view(np.ndarray)

    @staticmethod
    def check_memory(array: NumpyArray, label: str) -> None:
        """NumPy keeps the memory of arrays as long as they are."""

    @staticmethod
    def check_layout(array: NumpyArray, label: str) -> None:
        """The same: arrays have no operators but those of this library."""
        NumpyArrays.check_kind(array, label)

    @staticmethod
    def check_traced() -> None:
        """Sizes are numbers."""

    @staticmethod
    def check_recording() -> None:
        """NumPy records nothing."""

    # -- where it is ----------------------------------------------------------------------------

    @staticmethod
    def device(array: NumpyArray) -> None:
        """None: the host's memory."""

    @staticmethod
    def place(array: NumpyArray) -> Mapping[str, object]:
        """No options: there is one place only."""
        return {}

    @staticmethod
    def strides(array: NumpyArray) -> tuple[int, ...]:
        """Strides in bytes."""
        return array.strides

    @staticmethod
    def item_bytes(array: NumpyArray) -> int:
        """Bytes of an element."""
        return array.itemsize

    @staticmethod
    def address(array: NumpyArray) -> int:
        """Address of the first element."""
        if isinstance(array, np.ndarray) and _objects_are_read():
            return _word_at(id(array) + _DATA).value
        return array.__array_interface__["data"][0]

    @staticmethod
    def addresses(arrays: list[NumpyArray], needs: Sequence[Need | None]) -> list[int]:
        """Addresses of the first elements."""
        if _objects_are_read():
            return [_word_at(id(array) + _DATA).value for array in arrays]
        return [NumpyArrays.address(array) for array in arrays]

    @staticmethod
    def need(array: NumpyArray, label: str) -> None:
        """Nothing has to be checked at each call."""

    @staticmethod
    def memory(array: NumpyArray) -> tuple[object, ...] | None:
        """The address and strides."""
        return array.ctypes.data, array.strides

    @staticmethod
    def writable(array: NumpyArray) -> bool:
        """Whether its memory may be written."""
        return bool(array.flags.writeable)

    @staticmethod
    def is_ready(array: NumpyArray) -> bool:
        """Whether its memory is its values: scalars have none that stays."""
        return isinstance(array, np.ndarray)

    @staticmethod
    def ready(array: NumpyArray) -> NumpyArray:
        """The array in a form whose memory is its values."""
        return np.asarray(array)

    # -- new arrays -----------------------------------------------------------------------------

    @staticmethod
    def empty(shape: tuple[int, ...], like: NumpyArray, kind: str = "value") -> NumpyArray:
        """A new array of that shape: of the dtype of another, or that of a kind of results."""
        return np.empty(shape, RESULTS.get(kind, like.dtype))

    @staticmethod
    def numbers(values: Sequence[float], like: NumpyArray) -> NumpyArray:
        """Numbers as an array of the dtype of another."""
        return np.array(values, like.dtype)

    @staticmethod
    def vector(values: Sequence[object], like: NumpyArray) -> NumpyArray:
        """Numbers, and arrays of one number each, joined to one vector."""
        return np.concatenate([np.asarray(value, like.dtype).reshape(1) for value in values])

    @staticmethod
    def constants(values: NumpyArray, like: NumpyArray) -> NumpyArray:
        """The array itself."""
        return values

    @staticmethod
    def cast(array: NumpyArray, dtype: str) -> NumpyArray:
        """The array in another dtype; itself where it has it."""
        return array.astype(dtype, copy=False)

    @staticmethod
    def cast_like(array: NumpyArray, like: NumpyArray) -> NumpyArray:
        """The array in the dtype of another; itself where it has it."""
        return array.astype(like.dtype, copy=False)

    @staticmethod
    def matched(array: NumpyArray, like: NumpyArray) -> NumpyArray:
        """The array in the dtype of another; itself where it has it."""
        return array.astype(like.dtype, copy=False)

    @staticmethod
    def converted(
        array: NumpyArray, args: Sequence[object], options: Mapping[str, object]
    ) -> NumpyArray:
        """The array in another dtype.

        Raises:
            ArrayTypeError: anything but one dtype.
        """
        wanted = [*args, *options.values()]
        if len(wanted) != 1 or not set(options) <= {"dtype"}:
            raise ArrayTypeError(
                "NumPy arrays take one dtype",
                found=f"to{(*args, *options)}",
                hint="x.to('float32')",
            )
        return array.astype(cast("DTypeLike", wanted[0]), copy=False)

    @staticmethod
    def copied(array: NumpyArray, memo: dict[int, object]) -> NumpyArray:
        """A deep copy."""
        return copy.deepcopy(array, memo)

    @staticmethod
    def detached(array: NumpyArray) -> NumpyArray:
        """The array itself."""
        return array

    # -- numbers --------------------------------------------------------------------------------

    @staticmethod
    def to_numpy(array: NumpyArray) -> NumpyArray:
        """The array itself."""
        return array

    @staticmethod
    def whole_numbers(array: NumpyArray, label: str) -> NumpyArray:
        """The array itself."""
        return array

    @staticmethod
    def as_real(array: NumpyArray) -> NumpyArray:
        """Complex numbers as real ones, twice as many along the last axis; else itself."""
        if NumpyArrays.dtype(array) not in COMPLEX:
            return array
        array = array if array.shape else array.reshape(1)
        return np.ascontiguousarray(array).view(COMPLEX[array.dtype.name])

    @staticmethod
    def as_complex(array: NumpyArray) -> NumpyArray:
        """Pairs of real numbers along the last axis, as half as many complex ones."""
        return np.ascontiguousarray(array).view(_COMPLEX_OF[array.dtype.name])

    # -- operations -----------------------------------------------------------------------------

    @staticmethod
    def exp(array: NumpyArray) -> NumpyArray:
        """e^x."""
        return np.exp(array)

    @staticmethod
    def log(array: NumpyArray) -> NumpyArray:
        """log x."""
        return np.log(array)

    @staticmethod
    def larger(one: NumpyArray, other: NumpyArray) -> NumpyArray:
        """The larger of two numbers each."""
        return np.where(one > other, one, other)

    @staticmethod
    def order(values: NumpyArray, indices: NumpyArray) -> NumpyArray:
        """Places along the last axis that sort pairs by value, then by index."""
        return np.lexsort((indices, values), axis=-1)

    @staticmethod
    def clamped(array: NumpyArray, low: float, high: float) -> NumpyArray:
        """The numbers, none below `low` or above `high`."""
        number = array.dtype.type  # NumPy 1 would widen the array for a number near its bounds
        return np.clip(array, number(low), number(high))

    @staticmethod
    def where(condition: NumpyArray, one: NumpyArray, other: NumpyArray) -> NumpyArray:
        """`one` where the condition holds, `other` elsewhere."""
        return np.where(condition, one, other)

    @staticmethod
    def sum(array: NumpyArray, axis: int) -> NumpyArray:
        """The sum along an axis, which is dropped."""
        return array.sum(axis)

    @staticmethod
    def sum_to(array: NumpyArray, shape: Sequence[int]) -> NumpyArray:
        """The sum along the axes that broadcasting from `shape` would have added or repeated.

        >>> NumpyArrays.sum_to(np.ones((2, 3, 4)), (3, 1)).tolist()
        [[8.0], [8.0], [8.0]]
        """
        added = array.ndim - len(shape)
        repeated = [added + n for n, size in enumerate(shape) if size == 1]
        return array.sum((*range(added), *repeated)).reshape(shape)

    @staticmethod
    def expanded(array: NumpyArray, shape: Sequence[int]) -> NumpyArray:
        """The array broadcast to a shape."""
        return np.broadcast_to(array, shape)

    @staticmethod
    def repeated(array: NumpyArray, count: int, axis: int) -> NumpyArray:
        """Each entry along an axis, `count` times in a row."""
        return np.repeat(array, count, axis)

    @staticmethod
    def selected(array: NumpyArray, places: NumpyArray, axis: int) -> NumpyArray:
        """What is at places (k,) along an axis, which has k of them then."""
        return np.take(array, places, axis)

    @staticmethod
    def taken(array: NumpyArray, places: NumpyArray, axis: int) -> NumpyArray:
        """Entries at places along an axis; the other axes of both broadcast."""
        return np.take_along_axis(array, places, axis)

    @staticmethod
    def stacked(arrays: Sequence[NumpyArray]) -> NumpyArray:
        """Arrays of one shape, along a new last axis."""
        return np.stack(arrays, -1)

    @staticmethod
    def concatenated(arrays: Sequence[NumpyArray]) -> NumpyArray:
        """Arrays joined along the last axis."""
        return np.concatenate(arrays, axis=-1)

    @staticmethod
    def moved(array: NumpyArray, source: int, target: int) -> NumpyArray:
        """The array with an axis moved to another place."""
        return np.moveaxis(array, source, target)

    # -- functions and derivatives --------------------------------------------------------------

    @staticmethod
    def functions() -> Functions:
        """NumPy itself."""
        return cast(Functions, np)

    @staticmethod
    def wants_gradient(array: NumpyArray) -> bool:
        """Never."""
        return False

    @staticmethod
    def no_graph() -> AbstractContextManager[object]:
        """A context that changes nothing."""
        return nullcontext()
