"""What an array is, and what a library has to offer: operations on arrays, memory on devices.

A library has the operations as functions of its own arrays, differentiable by the library itself;
derivatives are written in them. What `Array` lists is the same in all libraries and is written as
it is. A device is all that programs for GPUs ask of the library whose arrays they are given.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar

import numpy as np

A = TypeVar("A")
# An array of NumPy, of any dtype and number of axes.
NumpyArray = np.ndarray[Any, np.dtype[Any]]


class Array(Protocol):
    """An array of any library."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The length of each axis."""
        ...

    @property
    def dtype(self) -> object:
        """The dtype, an object of the library."""
        ...

    def reshape(self, *shape: int | Sequence[int]) -> Array:
        """The same numbers in another shape, given as one sequence or as its numbers."""
        ...

    def sum(self, axis: int | Sequence[int] | None = None, keepdims: bool = False) -> Array:
        """The sum along axes."""
        ...

    @property
    def T(self) -> Array:
        """A matrix, transposed."""
        ...

    def cumsum(self, axis: int, /) -> Array:
        """The sums of the first entries along an axis."""
        ...

    def any(self) -> Array:
        """Whether any entry is true."""
        ...

    def all(self) -> Array:
        """Whether all entries are true."""
        ...

    def min(self) -> Array:
        """The smallest entry."""
        ...

    def max(self) -> Array:
        """The largest entry."""
        ...

    def argmax(self) -> Array:
        """The place of the largest entry."""
        ...

    def item(self) -> Any:
        """The number in an array of one."""
        ...

    def __getitem__(self, where: Any, /) -> Array: ...
    def __setitem__(self, where: Any, value: Any, /) -> None: ...
    def __len__(self) -> int: ...
    def __bool__(self) -> bool: ...
    def __int__(self) -> int: ...
    def __float__(self) -> float: ...
    def __neg__(self) -> Array: ...
    def __abs__(self) -> Array: ...
    def __invert__(self) -> Array: ...
    def __add__(self, other: Array | float, /) -> Array: ...
    def __radd__(self, other: Array | float, /) -> Array: ...
    def __sub__(self, other: Array | float, /) -> Array: ...
    def __rsub__(self, other: Array | float, /) -> Array: ...
    def __mul__(self, other: Array | float, /) -> Array: ...
    def __rmul__(self, other: Array | float, /) -> Array: ...
    def __truediv__(self, other: Array | float, /) -> Array: ...
    def __rtruediv__(self, other: Array | float, /) -> Array: ...
    def __pow__(self, other: Array | float, /) -> Array: ...
    def __matmul__(self, other: Array, /) -> Array: ...
    def __and__(self, other: Array, /) -> Array: ...
    def __lt__(self, other: Array | float, /) -> Array: ...
    def __le__(self, other: Array | float, /) -> Array: ...
    def __gt__(self, other: Array | float, /) -> Array: ...
    def __ge__(self, other: Array | float, /) -> Array: ...
    def __eq__(self, other: object, /) -> Array: ...  # pyright: ignore


class OperationsOn(Protocol[A]):
    """The operations on arrays of a class; `dtype` names are NumPy's, axes may be negative."""

    def dtype(self, array: A, /) -> str:
        """The name of the dtype."""
        ...

    def cast(self, array: A, dtype: str, /) -> A:
        """The array in another dtype."""
        ...

    def detached(self, array: A, /) -> A:
        """The same values, which are constants to every derivative."""
        ...

    def constants(self, values: NumpyArray, like: A, /) -> A:
        """A NumPy array as an array of the library, on the device of another."""
        ...

    def exp(self, array: A, /) -> A:
        """e^x."""
        ...

    def log(self, array: A, /) -> A:
        """log x."""
        ...

    def larger(self, one: A, other: A, /) -> A:
        """The larger of two numbers each; the second where they are not ordered."""
        ...

    def order(self, values: A, indices: A, /) -> A:
        """Places along the last axis that sort pairs by value, then by index."""
        ...

    def clamped(self, array: A, low: float, high: float, /) -> A:
        """The numbers, none below `low` or above `high`."""
        ...

    def where(self, condition: A, one: A, other: A, /) -> A:
        """`one` where the condition holds, `other` elsewhere."""
        ...

    def sum(self, array: A, axis: int, /) -> A:
        """The sum along an axis, which is dropped."""
        ...

    def sum_to(self, array: A, shape: Sequence[int], /) -> A:
        """The sum along the axes that broadcasting from `shape` would have added or repeated."""
        ...

    def expanded(self, array: A, shape: Sequence[int], /) -> A:
        """The array broadcast to a shape."""
        ...

    def repeated(self, array: A, count: int, axis: int, /) -> A:
        """Each entry along an axis, `count` times in a row."""
        ...

    def taken(self, array: A, places: A, axis: int, /) -> A:
        """Entries at places along an axis; the other axes of both broadcast."""
        ...

    def stacked(self, arrays: Sequence[A], /) -> A:
        """Arrays of one shape, along a new last axis."""
        ...

    def concatenated(self, arrays: Sequence[A], /) -> A:
        """Arrays joined along the last axis."""
        ...

    def moved(self, array: A, source: int, target: int, /) -> A:
        """The array with an axis moved to another place."""
        ...


ArrayOperations = OperationsOn[Array]


class DeviceOf(Protocol[A]):
    """A device other than the host, with the memory and the streams that a library has there.

    Devices that are the same are equal, and have one hash; `str` names them.
    """

    @property
    def index(self) -> int | None:
        """Its number among those of its kind."""
        ...

    def processors(self) -> int:
        """How many multiprocessors it has."""
        ...

    def free_memory(self) -> int:
        """Bytes that may be used: what is free, and what the library holds without using it."""
        ...

    def current(self) -> AbstractContextManager[object]:
        """A context in which it is the library's current device; its current stream is used."""
        ...

    def recording(self) -> bool:
        """Whether what is enqueued is recorded, to be run later: nothing can be timed."""
        ...

    def empty(self, count: int, dtype: str, /) -> A:
        """So many numbers of any value, in a new array."""
        ...

    def zeros(self, count: int, dtype: str, /) -> A:
        """So many zeros, in a new array."""
        ...

    def uploaded(self, values: NumpyArray, /) -> A:
        """Whole numbers of the host, as a new array of int64."""
        ...

    def means(self, array: A, /) -> A:
        """The mean of each component (along the last axis) of an array there, in float32."""
        ...


Device = DeviceOf[Array]
