"""JAX as an array library; JAX is not imported here, but found where a program imported it.

Arrays have no memory of their own that could be read or written: reductions are operations of
compiled programs (`frontends/jax.py`). Under a transformation they are tracers.
"""

from __future__ import annotations

import copy
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from types import ModuleType
from typing import TYPE_CHECKING, ClassVar, TypeGuard, cast

import numpy as np

from ..core.dtypes import RESULTS
from ..core.library import NumpyArray
from ..errors import ArrayTypeError, DeviceError, DTypeError, UnsupportedError
from .library import COMPLEX, WHOLE, ClustersOf, Functions, Need, Words
from .numpy import NumpyArrays

if TYPE_CHECKING:
    from jax import Array as JaxArray

    from ..core.library import DeviceOf


def _jax() -> ModuleType:
    return sys.modules["jax"]


def _numpy() -> ModuleType:
    return _jax().numpy


class _Clusters:
    """Clusters of points, as they are for NumPy: of arrays that have values."""

    @staticmethod
    def cells(points: JaxArray, size: object) -> JaxArray:
        return _of(_clusters.cells(_values(points), size))

    @staticmethod
    def ranks(codes: JaxArray) -> JaxArray:
        return _of(_clusters.ranks(_values(codes)))

    @staticmethod
    def order(labels: JaxArray) -> JaxArray:
        return _of(_clusters.order(_values(labels)))

    @staticmethod
    def sizes(labels: JaxArray, count: int) -> JaxArray:
        return _of(_clusters.sizes(_values(labels), count))

    @staticmethod
    def sums(values: JaxArray, labels: JaxArray, count: int) -> JaxArray:
        return _of(_clusters.sums(_values(values), _values(labels), count))

    @staticmethod
    def ratio(sums: JaxArray, totals: JaxArray) -> JaxArray:
        return sums / totals

    @staticmethod
    def floored(totals: JaxArray, least: float) -> JaxArray:
        return totals

    @staticmethod
    def intervals(ends: JaxArray, sizes: JaxArray) -> JaxArray:
        return _numpy().stack([ends - sizes, ends], axis=1)

    @staticmethod
    def chosen(ranges: JaxArray, where: JaxArray) -> JaxArray:
        return _of(_clusters.chosen(_values(ranges), _values(where)))

    @staticmethod
    def whole(ranges: JaxArray) -> JaxArray:
        return ranges


_clusters = NumpyArrays.clusters


def _of(values: NumpyArray) -> JaxArray:
    return _numpy().asarray(values)


def _values(array: object) -> NumpyArray:
    """The values of an array that has some.

    Raises:
        ArrayTypeError: a tracer.
    """
    if JaxArrays.owns(array) and isinstance(array, _jax().core.Tracer):
        raise ArrayTypeError(
            "values are needed, which arrays have only outside of JAX's transformations",
            found=f"a tracer of shape {tuple(array.shape)}",
            hint="the call outside of jax.jit, jax.grad and jax.vmap",
        )
    return np.asarray(array)


class JaxArrays:
    """The library of `jax.Array`, tracers included."""

    name: ClassVar[str] = "jax"
    differentiates: ClassVar[bool] = True
    clusters: ClassVar[ClustersOf[JaxArray]] = _Clusters
    elsewhere: ClassVar[Callable[..., None] | None] = None
    words: ClassVar[Words] = Words(
        one="a JAX array",
        many="JAX arrays",
        joined="jax.numpy.concatenate",
        new="jax.numpy.empty({shape}, {dtype!r})",
        beside="jax.numpy.empty(...)",
        moved="jax.device_put({name}, jax.devices({device!r})[0])",
        made="jax.numpy.asarray({name})",
        numpy="numpy.asarray({name})",
    )

    # -- what an array is -----------------------------------------------------------------------

    @staticmethod
    def owns(array: object) -> TypeGuard[JaxArray]:
        """Whether the array is JAX's; False where it was never imported."""
        kind = getattr(sys.modules.get("jax"), "Array", None)
        return kind is not None and isinstance(array, kind)

    @staticmethod
    def key(array: JaxArray) -> tuple[object, ...]:
        """Shape and dtype: there are no strides."""
        return ("jax", array.shape, array.dtype)

    @staticmethod
    def dtype(array: JaxArray) -> str:
        """The name of the dtype, as NumPy has it."""
        return str(array.dtype)

    @staticmethod
    def plain(array: JaxArray) -> JaxArray:
        """The array itself."""
        return array

    @staticmethod
    def check_kind(array: JaxArray, label: str) -> None:
        """Raise for arrays of unknown size, and for those that are not the host's.

        Raises:
            UnsupportedError: an axis whose length is a symbol.
            DeviceError: an array on a GPU or a TPU.
        """
        if not all(isinstance(size, int) for size in array.shape):
            raise UnsupportedError(
                "reductions are compiled for sizes that are known",
                found=f"{label} has shape {tuple(array.shape)}",
                hint="one export for each size",
            )
        if isinstance(array, _jax().core.Tracer):  # where it will be is known when it is lowered
            return
        for device in array.devices():
            if device.platform != "cpu":
                raise DeviceError(
                    "arrays of JAX are computed with on CPUs only",
                    found=f"{label} is on {device}",
                    hint='jax.device_put(x, jax.devices("cpu")[0])',
                )

    @staticmethod
    def check_memory(array: JaxArray, label: str) -> None:
        """JAX keeps the memory of arrays as long as they are."""

    @staticmethod
    def check_layout(array: JaxArray, label: str) -> None:
        """The same as `check_kind`: a primitive is called on all that passes."""
        JaxArrays.check_kind(array, label)

    @staticmethod
    def check_traced() -> None:
        """Sizes are numbers, or `check_kind` refuses them."""

    @staticmethod
    def check_recording() -> None:
        """What is recorded has known shapes, and reductions are recorded as others are."""

    # -- where it is ----------------------------------------------------------------------------

    @staticmethod
    def device(array: JaxArray) -> DeviceOf[JaxArray] | None:
        """None: the host's memory."""

    @staticmethod
    def place(array: JaxArray) -> Mapping[str, object]:
        """No options: JAX decides."""
        return {}

    @staticmethod
    def strides(array: JaxArray) -> tuple[int, ...]:
        """Strides in bytes, as programs lay arrays out for reductions: without gaps."""
        item = JaxArrays.item_bytes(array)
        return tuple(item * math.prod(array.shape[n + 1 :]) for n in range(array.ndim))

    @staticmethod
    def item_bytes(array: JaxArray) -> int:
        """Bytes of an element."""
        return array.dtype.itemsize

    @staticmethod
    def address(array: JaxArray) -> int:
        """There is none.

        Raises:
            ArrayTypeError: always.
        """
        raise _no_memory()

    @staticmethod
    def addresses(arrays: list[JaxArray], needs: Sequence[Need | None]) -> list[int]:
        """There are none.

        Raises:
            ArrayTypeError: always.
        """
        raise _no_memory()

    @staticmethod
    def need(array: JaxArray, label: str) -> None:
        """Nothing has to be checked at each call."""

    @staticmethod
    def memory(array: JaxArray) -> tuple[object, ...] | None:
        """None: arrays are the same where they are one object."""

    @staticmethod
    def writable(array: JaxArray) -> bool:
        """Never."""
        return False

    @staticmethod
    def is_ready(array: JaxArray) -> bool:
        """Always."""
        return True

    @staticmethod
    def ready(array: JaxArray) -> JaxArray:
        """The array itself."""
        return array

    # -- new arrays -----------------------------------------------------------------------------

    @staticmethod
    def empty(shape: tuple[int, ...], like: JaxArray, kind: str = "value") -> JaxArray:
        """A new array of that shape: of the dtype of another, or that of a kind of results."""
        return _numpy().empty(shape, RESULTS.get(kind, like.dtype))

    @staticmethod
    def numbers(values: Sequence[float], like: JaxArray) -> JaxArray:
        """Numbers as an array of the dtype of another."""
        return _numpy().array(values, like.dtype)

    @staticmethod
    def vector(values: Sequence[object], like: JaxArray) -> JaxArray:
        """Numbers, and arrays of one number each, joined to one vector; derivatives pass."""
        new = _numpy()
        return new.concatenate([new.asarray(value, like.dtype).reshape(1) for value in values])

    @staticmethod
    def constants(values: NumpyArray, like: JaxArray) -> JaxArray:
        """A NumPy array as one of JAX: of 32 bits, unless programs have allowed 64."""
        return _of(values)

    @staticmethod
    def cast(array: JaxArray, dtype: str) -> JaxArray:
        """The array in another dtype."""
        return array.astype(dtype)

    @staticmethod
    def cast_like(array: JaxArray, like: JaxArray) -> JaxArray:
        """The array in the dtype of another."""
        return array.astype(like.dtype)

    @staticmethod
    def matched(array: JaxArray, like: JaxArray) -> JaxArray:
        """The array in the dtype of another; derivatives pass."""
        return array.astype(like.dtype)

    @staticmethod
    def converted(
        array: JaxArray, args: Sequence[object], options: Mapping[str, object]
    ) -> JaxArray:
        """The array in another dtype.

        Raises:
            ArrayTypeError: anything but one dtype.
        """
        wanted = [*args, *options.values()]
        if len(wanted) != 1 or not set(options) <= {"dtype"}:
            raise ArrayTypeError(
                "JAX arrays take one dtype",
                found=f"to{(*args, *options)}",
                hint="x.to('float32')",
            )
        return array.astype(cast(str, wanted[0]))

    @staticmethod
    def copied(array: JaxArray, memo: dict[int, object]) -> JaxArray:
        """A deep copy."""
        return copy.deepcopy(array, memo)

    @staticmethod
    def detached(array: JaxArray) -> JaxArray:
        """The same values, which are constants to every derivative."""
        return _jax().lax.stop_gradient(array)

    # -- numbers --------------------------------------------------------------------------------

    @staticmethod
    def to_numpy(array: JaxArray) -> NumpyArray:
        """The values as a NumPy array.

        Raises:
            ArrayTypeError: a tracer.
        """
        return _values(array)

    @staticmethod
    def whole_numbers(array: JaxArray, label: str) -> NumpyArray:
        """The values of an array that no derivative reads, as a NumPy array.

        Raises:
            DTypeError: other than whole numbers.
            ArrayTypeError: a tracer.
        """
        if JaxArrays.dtype(array) not in WHOLE:
            raise DTypeError(
                f"{label} must hold whole numbers",
                found=f"dtype {array.dtype}",
                hint='x.astype("int32")',
            )
        return _values(array)

    @staticmethod
    def as_real(array: JaxArray) -> JaxArray:
        """Complex numbers as real ones, twice as many along the last axis; else itself."""
        if JaxArrays.dtype(array) not in COMPLEX:
            return array
        array = array if array.shape else array.reshape(1)
        pairs = _numpy().stack([array.real, array.imag], -1)
        return pairs.reshape((*array.shape[:-1], 2 * array.shape[-1]))

    @staticmethod
    def as_complex(array: JaxArray) -> JaxArray:
        """Pairs of real numbers along the last axis, as half as many complex ones."""
        return _jax().lax.complex(array[..., ::2], array[..., 1::2])

    # -- operations -----------------------------------------------------------------------------

    @staticmethod
    def exp(array: JaxArray) -> JaxArray:
        """e^x."""
        return _numpy().exp(array)

    @staticmethod
    def log(array: JaxArray) -> JaxArray:
        """log x."""
        return _numpy().log(array)

    @staticmethod
    def larger(one: JaxArray, other: JaxArray) -> JaxArray:
        """The larger of two numbers each."""
        return _numpy().where(one > other, one, other)

    @staticmethod
    def order(values: JaxArray, indices: JaxArray) -> JaxArray:
        """Places along the last axis that sort pairs by value, then by index."""
        return _numpy().lexsort((indices, values), axis=-1)

    @staticmethod
    def clamped(array: JaxArray, low: float, high: float) -> JaxArray:
        """The numbers, none below `low` or above `high`."""
        return array.clip(low, high)

    @staticmethod
    def where(condition: JaxArray, one: JaxArray, other: JaxArray) -> JaxArray:
        """`one` where the condition holds, `other` elsewhere."""
        return _numpy().where(condition, one, other)

    @staticmethod
    def sum(array: JaxArray, axis: int) -> JaxArray:
        """The sum along an axis, which is dropped."""
        return array.sum(axis)

    @staticmethod
    def sum_to(array: JaxArray, shape: Sequence[int]) -> JaxArray:
        """The sum along the axes that broadcasting from `shape` would have added or repeated."""
        added = array.ndim - len(shape)
        repeated = [added + n for n, size in enumerate(shape) if size == 1]
        return array.sum((*range(added), *repeated)).reshape(tuple(shape))

    @staticmethod
    def expanded(array: JaxArray, shape: Sequence[int]) -> JaxArray:
        """The array broadcast to a shape."""
        return _numpy().broadcast_to(array, tuple(shape))

    @staticmethod
    def repeated(array: JaxArray, count: int, axis: int) -> JaxArray:
        """Each entry along an axis, `count` times in a row."""
        return _numpy().repeat(array, count, axis)

    @staticmethod
    def selected(array: JaxArray, places: JaxArray, axis: int) -> JaxArray:
        """What is at places (k,) along an axis, which has k of them then."""
        return _numpy().take(array, places, axis)

    @staticmethod
    def taken(array: JaxArray, places: JaxArray, axis: int) -> JaxArray:
        """Entries at places along an axis; the other axes of both broadcast."""
        return _numpy().take_along_axis(array, places, axis)

    @staticmethod
    def stacked(arrays: Sequence[JaxArray]) -> JaxArray:
        """Arrays of one shape, along a new last axis."""
        return _numpy().stack(list(arrays), -1)

    @staticmethod
    def concatenated(arrays: Sequence[JaxArray]) -> JaxArray:
        """Arrays joined along the last axis."""
        return _numpy().concatenate(list(arrays), axis=-1)

    @staticmethod
    def moved(array: JaxArray, source: int, target: int) -> JaxArray:
        """The array with an axis moved to another place."""
        return _numpy().moveaxis(array, source, target)

    # -- functions and derivatives --------------------------------------------------------------

    @staticmethod
    def functions() -> Functions:
        """`jax.numpy`."""
        return cast(Functions, _numpy())

    @staticmethod
    def wants_gradient(array: JaxArray) -> bool:
        """Whether it is part of a program that is recorded, which may be differentiated."""
        return isinstance(array, _jax().core.Tracer)

    @staticmethod
    def no_graph() -> AbstractContextManager[object]:
        """A context that changes nothing."""
        return nullcontext()


def _no_memory() -> ArrayTypeError:
    return ArrayTypeError(
        "JAX arrays are read by compiled programs alone",
        found="a request for their memory",
        hint="numpy.asarray(x) for every argument",
    )
