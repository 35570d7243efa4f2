"""What an array is, and what a library has to offer: operations on arrays, memory on devices.

A library has the operations as functions of its own arrays, differentiable by the library itself;
derivatives are written in them. What `Array` lists is the same in all libraries and is written as
it is. A device is all that programs for GPUs ask of the library whose arrays they are given.

`NumpyArray` and `torch.Tensor` are of type `Array` as they are, with no cast. NumPy arrays whose
type says their dtype are not, as those of floats have no `&`: declare variables as `NumpyArray`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from types import EllipsisType
from typing import Any, Protocol, TypeAlias, TypeVar, overload

import numpy as np

A = TypeVar("A")
S = TypeVar("S")  # the class of `self`
# What an array is indexed with, beside arrays.
Index: TypeAlias = "int | slice | EllipsisType | list[int] | None"
# An array of NumPy, of any dtype and number of axes.
NumpyArray = np.ndarray[Any, np.dtype[Any]]


class Scalar(Protocol):
    """An array of one number, or a number of an array library."""

    def item(self) -> float:
        """The number itself."""
        ...

    def __bool__(self) -> bool: ...
    def __int__(self) -> int: ...
    def __float__(self) -> float: ...


class Array(Protocol):
    """An array of any library.

    Methods give, and operators take, what is of the class of `self`: no library's arrays would be
    of this type if they had to take those of others.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """The length of each axis."""
        ...

    @property
    def dtype(self) -> object:
        """The dtype, an object of the library."""
        ...

    @overload
    def reshape(self: S, shape: Sequence[int], /) -> S:
        """The same numbers in another shape."""
        ...

    @overload
    def reshape(self: S, *shape: int) -> S:
        """The same, the shape given as its numbers."""
        ...

    @property
    def sum(self) -> Callable[..., Array]:
        """The sum along axes: of (axis: int | Sequence[int] | None, keepdims: bool)."""
        ...

    @property
    def T(self: S) -> S:
        """A matrix, transposed."""
        ...

    def cumsum(self: S, axis: int, /) -> S:
        """The sums of the first entries along an axis."""
        ...

    def any(self) -> Scalar:
        """Whether any entry is true."""
        ...

    def all(self) -> Scalar:
        """Whether all entries are true."""
        ...

    def min(self: S) -> S:
        """The smallest entry."""
        ...

    def max(self: S) -> S:
        """The largest entry."""
        ...

    def argmax(self) -> Scalar:
        """The place of the largest entry."""
        ...

    def item(self) -> float:
        """The number in an array of one."""
        ...

    def __getitem__(self: S, where: Index | S | tuple[Index | S, ...], /) -> S: ...
    def __setitem__(
        self: S, where: Index | S | tuple[Index | S, ...], value: S | float, /
    ) -> None: ...
    def __len__(self) -> int: ...
    def __bool__(self) -> bool: ...
    def __int__(self) -> int: ...
    def __float__(self) -> float: ...
    def __neg__(self: S) -> S: ...
    def __abs__(self: S) -> S: ...
    def __invert__(self: S) -> S: ...
    def __add__(self: S, other: S | float, /) -> S: ...
    def __radd__(self: S, other: S | float, /) -> S: ...
    def __sub__(self: S, other: S | float, /) -> S: ...
    def __rsub__(self: S, other: S | float, /) -> S: ...
    def __mul__(self: S, other: S | float, /) -> S: ...
    def __rmul__(self: S, other: S | float, /) -> S: ...
    def __truediv__(self: S, other: S | float, /) -> S: ...
    def __rtruediv__(self: S, other: S | float, /) -> S: ...
    def __floordiv__(self: S, other: S | float, /) -> S: ...
    def __mod__(self: S, other: S | float, /) -> S: ...
    def __pow__(self: S, other: S | float, /) -> S: ...
    def __matmul__(self: S, other: S, /) -> S: ...
    def __and__(self: S, other: S, /) -> S: ...
    def __or__(self: S, other: S, /) -> S: ...
    def __lt__(self: S, other: S | float, /) -> S: ...
    def __le__(self: S, other: S | float, /) -> S: ...
    def __gt__(self: S, other: S | float, /) -> S: ...
    def __ge__(self: S, other: S | float, /) -> S: ...
    def __eq__(self: S, other: S | float, /) -> S: ...  # pyright: ignore
    def __ne__(self: S, other: S | float, /) -> S: ...  # pyright: ignore


# What a reduction gives: an array, or several; several reductions give what each gives.
Results: TypeAlias = "Array | tuple[Results, ...]"


# An array of the library of whoever calls, or what it makes one of: their types say more than ours.
UserArray: TypeAlias = Any


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

    def selected(self, array: A, places: A, axis: int, /) -> A:
        """What is at places (k,) along an axis, which has k of them then."""
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
