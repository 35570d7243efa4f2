"""What an array library is: what the rest of the package asks of arrays that are not its own.

Every library is one class of this form, in a file of its own, listed in `registry.py`. A library
that differentiates has its hooks beside it, in `frontends`: see `frontends/hooks.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol, TypeGuard

from ..core.dtypes import DTYPES
from ..core.library import A, Array, DeviceOf, NumpyArray, OperationsOn

# What an array needs of memory, to be checked at each call: bytes in all, bytes of an element, and
# how messages call it.
Need = tuple[int, int, str]
WHOLE = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
SUPPORTED = tuple(DTYPES)
COMPLEX = {"complex64": "float32", "complex128": "float64"}


@dataclass(frozen=True)
class Words:
    """What programs write, for hints; the fields in braces are filled in by `str.format`."""

    one: str  # "a NumPy array"
    many: str  # "NumPy arrays"
    joined: str  # the name of the function that joins arrays
    new: str  # a new array to fill: {shape}, {dtype}
    beside: str  # a new array on the device of x
    moved: str  # an array on another device: {name}, {device}
    made: str  # an array made of one of another library: {name}
    numpy: str  # an array as one of NumPy: {name}


class FloatInfo(Protocol):
    """What is known of a floating dtype."""

    @property
    def eps(self) -> float:
        """The distance from 1 to the next number."""
        ...


class LinearAlgebra(Protocol):
    """Functions of matrices under NumPy's names."""

    def eigh(self, matrix: Array, /) -> tuple[Array, Array]:
        """The eigenvalues and eigenvectors of a symmetric matrix."""
        ...


class Functions(Protocol):
    """The functions that solvers are written with: a module, under the names that all share."""

    float64: object
    inf: float
    linalg: LinearAlgebra

    def finfo(self, dtype: object, /) -> FloatInfo:
        """What is known of a dtype."""
        ...

    def asarray(self, values: object, *, dtype: object, **place: object) -> Array:
        """Numbers as an array."""
        ...

    def zeros(self, shape: Sequence[int], *, dtype: object, **place: object) -> Array:
        """An array of zeros."""
        ...

    def eye(self, size: int, *, dtype: object, **place: object) -> Array:
        """The identity matrix."""
        ...

    def zeros_like(self, array: Array, /) -> Array:
        """Zeros of the shape of an array."""
        ...

    def ones_like(self, array: Array, /, *, dtype: object = None) -> Array:
        """Ones of the shape of an array."""
        ...

    def full_like(self, array: Array, value: float, /) -> Array:
        """One number in the shape of an array."""
        ...

    def sqrt(self, array: Array, /) -> Array:
        """The square root."""
        ...

    def isfinite(self, array: Array, /) -> Array:
        """Which entries are finite."""
        ...

    def where(self, condition: Array, one: Array, other: Array, /) -> Array:
        """`one` where the condition holds, `other` elsewhere."""
        ...

    def clip(self, array: Array, low: float | None, high: float | None, /) -> Array:
        """The numbers, none below `low` or above `high`."""
        ...

    def amax(self, array: Array, axis: int, /) -> Array:
        """The largest entries along an axis."""
        ...

    def amin(self, array: Array, axis: int, /) -> Array:
        """The smallest entries along an axis."""
        ...

    def broadcast_to(self, array: Array, shape: Sequence[int], /) -> Array:
        """The array broadcast to a shape."""
        ...

    def swapaxes(self, array: Array, one: int, other: int, /) -> Array:
        """The array with two axes exchanged."""
        ...

    def moveaxis(self, array: Array, source: int, target: int, /) -> Array:
        """The array with an axis moved to another place."""
        ...

    def concatenate(self, arrays: Sequence[Array], axis: int, /) -> Array:
        """Arrays joined along an axis."""
        ...

    def diagonal(self, array: Array, offset: int, one: int, other: int, /) -> Array:
        """The diagonal of two axes, as a new last axis."""
        ...


class ClustersOf(Protocol[A]):
    """What clusters of points need: labels (M,), points (M, D), sizes (C,), ranges (C, 2)."""

    def cells(self, points: A, size: object, /) -> A:
        """The whole numbers of the cells of a grid that points lie in."""
        ...

    def ranks(self, codes: A, /) -> A:
        """The place of each number among all that differ, in order."""
        ...

    def order(self, labels: A, /) -> A:
        """The places that sort labels; equal ones keep their order."""
        ...

    def sizes(self, labels: A, count: int, /) -> A:
        """How often each label from 0 to `count` is there."""
        ...

    def sums(self, values: A, labels: A, count: int, /) -> A:
        """Rows (M, D) added up by label, in float64: (count, D)."""
        ...

    def ratio(self, sums: A, totals: A, /) -> A:
        """Quotients, not a number where nothing is divided by nothing."""
        ...

    def floored(self, totals: A, least: float, /) -> A:
        """Total weights, as large as the library's users expect them to be at least."""
        ...

    def intervals(self, ends: A, sizes: A, /) -> A:
        """Starts and stops (C, 2) of intervals by their stops and lengths."""
        ...

    def chosen(self, ranges: A, where: A, /) -> A:
        """Rows of `ranges` numbered by the second index of a table's true entries."""
        ...

    def whole(self, ranges: A, /) -> A:
        """Ranges in the dtype that the library's users expect."""
        ...


class LibraryOf(OperationsOn[A], Protocol[A]):
    """A library whose arrays are of a class: operations, memory, and what is told of arrays.

    `name` is what users call it. `differentiates`: whether it has hooks, see `frontends/hooks.py`.
    `elsewhere` computes folds where arrays are not on the device that computes: it fills new
    results, from (fold, arrays, results, binding, ranges); None: arrays are where they are needed.
    """

    name: str
    words: Words
    differentiates: bool
    clusters: ClustersOf[A]
    elsewhere: Callable[..., None] | None

    # -- what an array is -----------------------------------------------------------------------

    def owns(self, array: object, /) -> TypeGuard[A]:
        """Whether the array belongs to this library; False where it was never imported."""
        ...

    def key(self, array: A, /) -> tuple[object, ...]:
        """All but the address: what arrays of equal keys need is worked out only once."""
        ...

    def plain(self, array: A, /) -> A:
        """The array; its memory alone where it is of a subclass that answers for its shape."""
        ...

    def check_kind(self, array: A, label: str, /) -> None:
        """Raise for arrays whose memory is not what their shapes and strides say."""
        ...

    def check_memory(self, array: A, label: str, /) -> None:
        """Raise unless memory holds all elements."""
        ...

    def check_layout(self, array: A, label: str, /) -> None:
        """Raise for arrays that no reduction is computed on, be it by an operator of the library.

        Arrays without memory of their own pass: `check_kind` refuses these as well.
        """
        ...

    def check_traced(self) -> None:
        """Raise where the sizes of arrays are not numbers."""
        ...

    def check_recording(self) -> None:
        """Raise where the library records operations, or computes without values."""
        ...

    # -- where it is ----------------------------------------------------------------------------

    def device(self, array: A, /) -> DeviceOf[A] | None:
        """The GPU that holds the array; None: the host's memory."""
        ...

    def place(self, array: A, /) -> Mapping[str, object]:
        """The options of `functions` that make a new array on the device of another."""
        ...

    def strides(self, array: A, /) -> tuple[int, ...]:
        """Strides in bytes."""
        ...

    def item_bytes(self, array: A, /) -> int:
        """Bytes of an element."""
        ...

    def address(self, array: A, /) -> int:
        """Address of the first element."""
        ...

    def addresses(self, arrays: list[A], needs: Sequence[Need | None], /) -> list[int]:
        """Addresses of the first elements, once what they need is there."""
        ...

    def need(self, array: A, label: str, /) -> Need | None:
        """What has to be checked at each call, None where nothing has."""
        ...

    def memory(self, array: A, /) -> tuple[object, ...] | None:
        """What two views of the same numbers have in common, None where there is no telling."""
        ...

    def writable(self, array: A, /) -> bool:
        """Whether its memory holds its values, to be written."""
        ...

    def is_ready(self, array: A, /) -> bool:
        """Whether its memory is its values."""
        ...

    def ready(self, array: A, /) -> A:
        """The array in a form whose memory is its values."""
        ...

    # -- new arrays -----------------------------------------------------------------------------

    def empty(self, shape: tuple[int, ...], like: A, kind: str = "value", /) -> A:
        """A new array beside another: of its dtype, or that of a kind of results."""
        ...

    def numbers(self, values: Sequence[float], like: A, /) -> A:
        """Numbers as an array of the dtype and on the device of another; never to be changed."""
        ...

    def vector(self, values: Sequence[object], like: A, /) -> A:
        """Numbers, and arrays of one number each, joined to one vector; derivatives pass."""
        ...

    def cast_like(self, array: A, like: A, /) -> A:
        """The array in the dtype of another."""
        ...

    def matched(self, array: A, like: A, /) -> A:
        """The array in the dtype and on the device of another; derivatives pass."""
        ...

    def converted(self, array: A, args: Sequence[object], options: Mapping[str, object], /) -> A:
        """An array on another device or of another dtype, as users ask for it."""
        ...

    def copied(self, array: A, memo: dict[int, object], /) -> A:
        """A deep copy."""
        ...

    # -- numbers --------------------------------------------------------------------------------

    def to_numpy(self, array: A, /) -> NumpyArray:
        """The values as a NumPy array."""
        ...

    def whole_numbers(self, array: A, label: str, /) -> NumpyArray:
        """The values of an array that no derivative reads, as a NumPy array."""
        ...

    def as_real(self, array: A, /) -> A:
        """Complex numbers as real ones, twice as many along the last axis; else itself."""
        ...

    def as_complex(self, array: A, /) -> A:
        """Pairs of real numbers along the last axis, as half as many complex ones."""
        ...

    # -- functions and derivatives --------------------------------------------------------------

    def functions(self) -> Functions:
        """The module of functions that solvers are written with."""
        ...

    def wants_gradient(self, array: A, /) -> bool:
        """Whether a derivative of what is made of the array will be asked for."""
        ...

    def no_graph(self) -> AbstractContextManager[object]:
        """A context in which operations are not recorded for derivatives."""
        ...


ArrayLibrary = LibraryOf[Array]
