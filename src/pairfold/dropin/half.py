"""PyKeOps' packing of float16 numbers in pairs, which pairfold does without.

Its functions pack, reduce and unpack; here every step leaves arrays as they are, so programs that
take these steps compute the same. pairfold reads float16 as it is stored.
"""

from __future__ import annotations

from typing import Any


def half2half2(x: Any) -> Any:
    """The array itself."""
    return x


half22half = half2half2


def make_even_size(x: Any) -> tuple[Any, bool]:
    """(the array itself, False: no row was added)."""
    return x, False


def make_odd_cat(y: Any) -> tuple[Any, int]:
    """(the array itself, its rows)."""
    return y, y.shape[-2]


def ranges2half2(ranges: Any, N: int) -> Any:
    """Half of the ranges, unchanged."""
    return ranges


def preprocess_half2(
    args: Any, aliases: Any, axis: int, ranges: Any, nx: int, ny: int
) -> tuple[list[Any], Any, bool, int]:
    """(arrays, ranges, False: no row was added, the length of the reduced axis)."""
    return list(args), ranges, False, ny if axis == 1 else nx


def postprocess_half2(out: Any, tag_dummy: bool, reduction_op: str, N: int) -> Any:
    """The result itself."""
    return out
