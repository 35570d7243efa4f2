"""PyKeOps' packing of float16 numbers in pairs, which pairfold does without.

Its functions pack, reduce and unpack; here every step leaves arrays as they are, so programs that
take these steps compute the same. pairfold reads float16 as it is stored.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, TypeVar


class _Shaped(Protocol):
    @property
    def shape(self) -> tuple[int, ...]: ...


T = TypeVar("T")
R = TypeVar("R")
Array = TypeVar("Array", bound=_Shaped)


def half2half2(x: T) -> T:
    """The array itself."""
    return x


half22half = half2half2


def make_even_size(x: T) -> tuple[T, bool]:
    """(the array itself, False: no row was added)."""
    return x, False


def make_odd_cat(y: Array) -> tuple[Array, int]:
    """(the array itself, its rows)."""
    return y, y.shape[-2]


def ranges2half2(ranges: R, N: int) -> R:
    """Half of the ranges, unchanged."""
    return ranges


def preprocess_half2(
    args: Iterable[T], aliases: object, axis: int, ranges: R, nx: int, ny: int
) -> tuple[list[T], R, bool, int]:
    """(arrays, ranges, False: no row was added, the length of the reduced axis)."""
    return list(args), ranges, False, ny if axis == 1 else nx


def postprocess_half2(out: T, tag_dummy: bool, reduction_op: str, N: int) -> T:
    """The result itself."""
    return out
