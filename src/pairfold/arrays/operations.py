"""The operations of `core/library.py` on NumPy's arrays and torch's tensors."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np


class NumpyOperations:
    """Operations on `numpy.ndarray`, which has no derivatives."""

    @staticmethod
    def cast(array: Any, dtype: str) -> Any:
        """The array in another dtype; itself where it has it."""
        return array.astype(dtype, copy=False)

    @staticmethod
    def detached(array: Any) -> Any:
        """The array itself."""
        return array

    @staticmethod
    def constants(values: Any, like: Any) -> Any:
        """The array itself."""
        return values

    @staticmethod
    def exp(array: Any) -> Any:
        """e^x."""
        return np.exp(array)

    @staticmethod
    def clamped(array: Any, low: float, high: float) -> Any:
        """The numbers, none below `low` or above `high`."""
        return np.clip(array, low, high)

    @staticmethod
    def where(condition: Any, one: Any, other: Any) -> Any:
        """`one` where the condition holds, `other` elsewhere."""
        return np.where(condition, one, other)

    @staticmethod
    def sum(array: Any, axis: int) -> Any:
        """The sum along an axis, which is dropped."""
        return array.sum(axis)

    @staticmethod
    def sum_to(array: Any, shape: Sequence[int]) -> Any:
        """The sum along the axes that broadcasting from `shape` would have added or repeated.

        >>> NumpyOperations.sum_to(np.ones((2, 3, 4)), (3, 1)).tolist()
        [[8.0], [8.0], [8.0]]
        """
        added = array.ndim - len(shape)
        repeated = [added + n for n, size in enumerate(shape) if size == 1]
        return array.sum((*range(added), *repeated)).reshape(shape)

    @staticmethod
    def expanded(array: Any, shape: Sequence[int]) -> Any:
        """The array broadcast to a shape."""
        return np.broadcast_to(array, shape)

    @staticmethod
    def repeated(array: Any, count: int, axis: int) -> Any:
        """Each entry along an axis, `count` times in a row."""
        return np.repeat(array, count, axis)

    @staticmethod
    def taken(array: Any, places: Any, axis: int) -> Any:
        """Entries at places along an axis; the other axes of both broadcast."""
        return np.take_along_axis(array, places, axis)

    @staticmethod
    def stacked(arrays: Sequence[Any]) -> Any:
        """Arrays of one shape, along a new last axis."""
        return np.stack(arrays, -1)

    @staticmethod
    def concatenated(arrays: Sequence[Any]) -> Any:
        """Arrays joined along the last axis."""
        return np.concatenate(arrays, axis=-1)

    @staticmethod
    def moved(array: Any, source: int, target: int) -> Any:
        """The array with an axis moved to another place."""
        return np.moveaxis(array, source, target)


class TorchOperations:
    """Operations on `torch.Tensor`, which torch differentiates and batches."""

    @staticmethod
    def cast(array: Any, dtype: str) -> Any:
        """The tensor in another dtype; itself where it has it."""
        return array.to(getattr(sys.modules["torch"], dtype))

    @staticmethod
    def detached(array: Any) -> Any:
        """The same values, without a graph and without tangents."""
        return array.detach()

    @staticmethod
    def constants(values: Any, like: Any) -> Any:
        """A NumPy array as a tensor, on the device of another."""
        return sys.modules["torch"].from_numpy(values).to(like.device)

    @staticmethod
    def exp(array: Any) -> Any:
        """e^x."""
        return array.exp()

    @staticmethod
    def clamped(array: Any, low: float, high: float) -> Any:
        """The numbers, none below `low` or above `high`."""
        return array.clamp(low, high)

    @staticmethod
    def where(condition: Any, one: Any, other: Any) -> Any:
        """`one` where the condition holds, `other` elsewhere."""
        return sys.modules["torch"].where(condition, one, other)

    @staticmethod
    def sum(array: Any, axis: int) -> Any:
        """The sum along an axis, which is dropped."""
        return array.sum(axis)

    @staticmethod
    def sum_to(array: Any, shape: Sequence[int]) -> Any:
        """The sum along the axes that broadcasting from `shape` would have added or repeated."""
        return array.sum_to_size(shape)

    @staticmethod
    def expanded(array: Any, shape: Sequence[int]) -> Any:
        """The tensor broadcast to a shape."""
        return array.expand(shape)

    @staticmethod
    def repeated(array: Any, count: int, axis: int) -> Any:
        """Each entry along an axis, `count` times in a row."""
        return array.repeat_interleave(count, dim=axis)

    @staticmethod
    def taken(array: Any, places: Any, axis: int) -> Any:
        """Entries at places along an axis; the other axes of both broadcast."""
        return sys.modules["torch"].take_along_dim(array, places, dim=axis)

    @staticmethod
    def stacked(arrays: Sequence[Any]) -> Any:
        """Tensors of one shape, along a new last axis."""
        return sys.modules["torch"].stack(list(arrays), dim=-1)

    @staticmethod
    def concatenated(arrays: Sequence[Any]) -> Any:
        """Tensors joined along the last axis."""
        return sys.modules["torch"].cat(list(arrays), dim=-1)

    @staticmethod
    def moved(array: Any, source: int, target: int) -> Any:
        """The tensor with an axis moved to another place."""
        return array.movedim(source, target)
