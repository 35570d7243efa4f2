"""What an array library has to offer: the operations that derivatives are made of.

An adapter of a library has them as functions of the library's own arrays, differentiable by the
library itself. Arithmetic, comparison, `shape`, `reshape` and slices are the same in all libraries
and are written as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol


class ArrayOperations(Protocol):
    """The operations; `dtype` names are NumPy's, axes may be negative."""

    def dtype(self, array: Any, /) -> str:
        """The name of the dtype."""
        ...

    def cast(self, array: Any, dtype: str, /) -> Any:
        """The array in another dtype."""
        ...

    def detached(self, array: Any, /) -> Any:
        """The same values, which are constants to every derivative."""
        ...

    def constants(self, values: Any, like: Any, /) -> Any:
        """A NumPy array as an array of the library, on the device of another."""
        ...

    def exp(self, array: Any, /) -> Any:
        """e^x."""
        ...

    def log(self, array: Any, /) -> Any:
        """log x."""
        ...

    def larger(self, one: Any, other: Any, /) -> Any:
        """The larger of two numbers each; the second where they are not ordered."""
        ...

    def order(self, values: Any, indices: Any, /) -> Any:
        """Places along the last axis that sort pairs by value, then by index."""
        ...

    def clamped(self, array: Any, low: float, high: float, /) -> Any:
        """The numbers, none below `low` or above `high`."""
        ...

    def where(self, condition: Any, one: Any, other: Any, /) -> Any:
        """`one` where the condition holds, `other` elsewhere."""
        ...

    def sum(self, array: Any, axis: int, /) -> Any:
        """The sum along an axis, which is dropped."""
        ...

    def sum_to(self, array: Any, shape: Sequence[int], /) -> Any:
        """The sum along the axes that broadcasting from `shape` would have added or repeated."""
        ...

    def expanded(self, array: Any, shape: Sequence[int], /) -> Any:
        """The array broadcast to a shape."""
        ...

    def repeated(self, array: Any, count: int, axis: int, /) -> Any:
        """Each entry along an axis, `count` times in a row."""
        ...

    def taken(self, array: Any, places: Any, axis: int, /) -> Any:
        """Entries at places along an axis; the other axes of both broadcast."""
        ...

    def stacked(self, arrays: Sequence[Any], /) -> Any:
        """Arrays of one shape, along a new last axis."""
        ...

    def concatenated(self, arrays: Sequence[Any], /) -> Any:
        """Arrays joined along the last axis."""
        ...

    def moved(self, array: Any, source: int, target: int, /) -> Any:
        """The array with an axis moved to another place."""
        ...
