"""Ranges: the pairs that a block-sparse reduction goes over, as users give them, checked.

Six arrays of whole numbers: (ranges_i, slices_i, redranges_j, ranges_j, slices_j, redranges_i).
The first three say which intervals of j each block of rows i meets, the others the same with i and
j swapped; results on i are folded by the first half, results on j by the second. A half that is not
read need not fit: libraries fill in what they do not use.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..arrays.library import ArrayLibrary
from ..arrays.registry import LIBRARIES
from ..core.library import Array, NumpyArray
from ..core.node import Axis
from ..errors import DTypeError, OptionError, RangeError, ShapeError
from ..lower.pattern import Pattern

Numbers = NDArray[np.int64]
NAMES = ("ranges_i", "slices_i", "redranges_j", "ranges_j", "slices_j", "redranges_i")


class Ranges:
    """The six arrays, copied as int64; later changes of the user's arrays have no effect.

    Args:
        given: six NumPy arrays, tensors or lists, of any dtype of whole numbers: blocks (B, 2),
            slices (B,), intervals (R, 2), twice.

    >>> both = ([[0, 2]], [1], [[1, 3]], [[1, 3]], [1], [[0, 2]])
    >>> Ranges(both).pattern(Axis.I, 2, 3).pairs
    4

    Raises:
        OptionError: not six arrays.
        DTypeError, ShapeError, DeviceError: what is no such array; `pattern` checks the rest.
    """

    def __init__(self, given: object) -> None:
        parts = zip(NAMES, six(given), strict=True)
        self._set([_numbers(name, part) for name, part in parts])

    def _set(self, arrays: Sequence[Numbers]) -> None:
        self.arrays = arrays
        self._fits: dict[Axis, tuple[int, int]] = {}
        self._patterns: dict[Axis, Pattern] = {}
        self._same = False

    @classmethod
    def of_own_columns(cls, kept: Axis, bounds: Numbers) -> Ranges:
        """Row r of the kept index meets columns bounds[r] to bounds[r + 1], which no other meets.

        >>> Ranges.of_own_columns(Axis.I, np.array([0, 2, 3])).pattern(Axis.J, 2, 3).pairs
        3
        """
        count = len(bounds) - 1
        rows, ends = np.arange(count + 1), np.arange(1, count + 1)
        blocks, intervals = (np.stack([x[:-1], x[1:]], axis=1) for x in (rows, bounds))
        mine, other = [blocks, ends, intervals], [intervals, ends, blocks]
        found = cls.__new__(cls)
        found._set(mine + other if kept == Axis.I else other + mine)
        found._same = True
        return found

    @staticmethod
    def half(kept: Axis) -> slice:
        """Which of the six say the pairs of rows of an index."""
        return slice(0, 3) if kept == Axis.I else slice(3, 6)

    def pattern(self, kept: Axis, i: int, j: int) -> Pattern:
        """The pattern of results on the kept index, for i and j rows; its half is checked.

        Raises:
            ShapeError: another number of slices than of blocks.
            RangeError: bounds outside the arrays, decreasing, or blocks that overlap.
        """
        half = self.half(kept)
        if self._fits.get(kept) != (i, j):
            rows, columns = (i, j) if kept == Axis.I else (j, i)
            _check_half(NAMES[half], self.arrays[half], rows, columns)
            self._fits[kept] = i, j
        found = self._patterns.get(kept)
        if found is None:
            found = self._patterns[kept] = Pattern(*self.arrays[half])
        return found

    def rectangles(self) -> tuple[NumpyArray, NumpyArray]:
        """The pairs as rectangles: an interval (R, 2) of rows, and one of columns, each."""
        blocks, ends, intervals = self.arrays[Ranges.half(Axis.I)]
        return np.repeat(blocks, np.diff(ends, prepend=0), axis=0), intervals

    def table(self, rows: int, columns: int) -> NumpyArray:
        """The pairs that are meant, as a table (M, N) of truth values."""
        (i, stop_i), (j, stop_j) = (pairs.T for pairs in self.rectangles())
        # Each rectangle begins and ends in four corners; sums along both axes fill it.
        corners = np.zeros((rows + 1, columns + 1), np.int32)
        for row, column, value in ((i, j, 1), (stop_i, j, -1), (i, stop_j, -1)):
            np.add.at(corners, (row, column), value)
        np.add.at(corners, (stop_i, stop_j), 1)
        return corners.cumsum(0).cumsum(1)[:rows, :columns] > 0

    def counts(self, kept: Axis, i: int, j: int, library: ArrayLibrary, like: Array) -> Array:
        """The number of columns of each row, as an array (rows, 1) of float64 beside another."""
        counts = self.pattern(kept, i, j).counts(i if kept == Axis.I else j)
        return library.constants(counts[:, None].astype(np.float64), like)

    def of_rows(self, kept: Axis, start: int, stop: int) -> Ranges:
        """The pairs of rows start to stop of the kept index, numbered from 0.

        The other half is empty, and was checked if need be.
        """
        blocks, ends, intervals = self.arrays[self.half(kept)]
        mine = [np.clip(blocks, start, stop) - start, ends, intervals]
        pairs, none = np.zeros((0, 2), np.int64), np.zeros(0, np.int64)
        other = [pairs, none, pairs]
        found = Ranges([*mine, *other] if kept == Axis.I else [*other, *mine])
        found._same = True
        return found

    def check_halves(self, i: int, j: int) -> None:
        """Raise unless both halves fit and mean the same pairs, which gradients rely on.

        Raises:
            ShapeError, RangeError: as `pattern`; saying how many pairs each half has.
        """
        if self._same:
            return
        for kept in (Axis.I, Axis.J):
            self.pattern(kept, i, j)
        halves = self.arrays[:3], self.arrays[3:]
        if _print_of(*halves[0], swapped=False) != _print_of(*halves[1], swapped=True):
            counts = [Pattern(*half).pairs for half in halves]
            parts = [
                f"{count} pairs in ({', '.join(names)})"
                for count, names in zip(counts, (NAMES[:3], NAMES[3:]), strict=True)
            ]
            raise RangeError(
                "both halves of ranges must mean the same pairs where gradients are asked for",
                found=" and ".join(parts) + (", not the same" if counts[0] == counts[1] else ""),
                hint="pairfold.cluster.from_matrix makes both",
            )
        self._same = True


def six(given: object) -> Sequence[object]:
    """Ranges as users give them, if they are six.

    Raises:
        OptionError: they are not.
    """
    if not isinstance(given, (tuple, list)) or len(given) != len(NAMES):
        count = f" of {len(given)}" if isinstance(given, (tuple, list)) else ""
        raise OptionError(
            "ranges must be a tuple of six arrays",
            found=f"a {type(given).__name__}{count}",
            hint=f"({', '.join(NAMES)}), as pairfold.cluster.from_matrix makes them",
        )
    return given


def same_ranges(one: object, other: object) -> bool:
    """Whether two ranges, as users give them, hold the same numbers.

    Raises:
        OptionError, DTypeError, ShapeError, DeviceError: what does not fit.
    """
    first, second = checked_ranges(one), checked_ranges(other)
    if first is None or second is None:
        return first is second
    pairs = zip(first.arrays, second.arrays, strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


def checked_ranges(given: object) -> Ranges | None:
    """The ranges of a call, or None where all pairs are meant: None, or nothing.

    Raises:
        OptionError, DTypeError, ShapeError, DeviceError: what does not fit.
    """
    if all_pairs(given):
        return None
    return given if isinstance(given, Ranges) else Ranges(given)


def all_pairs(given: object) -> bool:
    """Whether no ranges are given, or none are in them."""
    return given is None or (isinstance(given, (tuple, list)) and len(given) == 0)


def _numbers(name: str, given: object) -> Numbers:
    """One of the arrays, as a new array of int64."""
    array = given
    for library in LIBRARIES:
        if library.owns(given):
            library.check_kind(given, name)
            library.check_memory(given, name)
            array = library.whole_numbers(given, name)
    pairs = "slices" not in name
    try:
        array = np.asarray(array)
    except ValueError:
        raise ShapeError(f"{name} must be an array", found="rows of different lengths") from None
    if array.ndim != (2 if pairs else 1) or (pairs and array.shape[-1] != 2):
        what = "(R, 2), a start and a stop per row" if pairs else "(B,), one number per block"
        raise ShapeError(f"{name} must have shape {what}", found=f"shape {array.shape}")
    if array.dtype.kind not in "iu":
        raise DTypeError(
            f"{name} must hold whole numbers",
            found=f"dtype {array.dtype}",
            hint=f"{name}.astype('int64')",
        )
    return np.array(array, np.int64, order="C")


def _print_of(blocks: Numbers, ends: Numbers, intervals: Numbers, swapped: bool) -> int:
    """A fingerprint of the pairs of one half, however they are cut into blocks.

    It is the sum over all pairs (r, c) of f(r) g(c) modulo 2^64, f and g being differences of
    numbers that look random, so that a rectangle of pairs needs its four bounds alone.
    """
    seeds = (2, 1) if swapped else (1, 2)
    rows, columns = (
        np.diff(_scrambled(pairs, seed), axis=1)[:, 0]
        for pairs, seed in zip((blocks, intervals), seeds, strict=True)
    )
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(columns)])
    starts = np.concatenate([np.zeros(1, np.int64), ends])[:-1]
    return int((rows * (sums[ends] - sums[starts])).sum())


def _scrambled(numbers: Numbers, seed: int) -> NDArray[np.uint64]:
    """64 bits for each number: the function that ends each step of SplitMix64 (Steele, Lea and
    Flood, Fast splittable pseudorandom number generators, 2014).
    """
    x = (numbers.astype(np.uint64) + np.uint64(seed << 60)) * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _check_half(names: Sequence[str], arrays: Sequence[Numbers], rows: int, columns: int) -> None:
    blocks, ends, intervals = arrays
    if len(blocks) != len(ends):
        raise ShapeError(
            f"{names[1]} must have one number per row of {names[0]}",
            found=f"{len(ends)} numbers, {len(blocks)} rows",
        )
    kept, reduced = names[0][-1], names[2][-1]
    _check_bounds(names[0], blocks, rows, kept)
    _check_bounds(names[2], intervals, columns, reduced)
    wrong = (np.diff(ends, prepend=0) < 0) | (ends > len(intervals))
    if wrong.any():
        k = int(np.argmax(wrong))
        before = int(ends[k - 1]) if k else 0
        raise RangeError(
            f"{names[1]} must increase, from 0 to at most the {len(intervals)} rows of {names[2]}",
            found=f"{names[1]}[{k}] = {ends[k]} after {before}",
            hint=f"the number of rows of {names[2]} that blocks 0 ... k take together",
        )
    used = int(ends[-1]) if len(ends) else 0
    if used != len(intervals):
        raise RangeError(
            f"{names[1]} must end with the number of rows of {names[2]}",
            found=f"{names[1]} ends with {used}, {names[2]} has {len(intervals)} rows",
            hint=f"the number of rows of {names[2]} that blocks 0 ... k take together",
        )
    order = np.argsort(blocks[:, 0], kind="stable")
    order = order[blocks[order, 0] < blocks[order, 1]]
    overlaps = blocks[order[1:], 0] < blocks[order[:-1], 1]
    if overlaps.any():
        k = int(np.argmax(overlaps))
        one, other = (f"{names[0]}[{n}] = {blocks[n].tolist()}" for n in order[k : k + 2])
        raise RangeError(
            f"blocks of rows must not overlap in {names[0]}",
            found=f"{one} and {other}",
            hint=f"one block per row {kept}, with all its intervals in {names[2]}",
        )


def _check_bounds(name: str, pairs: Numbers, size: int, letter: str) -> None:
    low, high = pairs[:, 0], pairs[:, 1]
    wrong = (low < 0) | (high < low) | (high > size)
    if not wrong.any():
        return
    k = int(np.argmax(wrong))
    what = "stops before it starts" if high[k] < low[k] else f"goes beyond the {size} rows"
    raise RangeError(
        f"a range of {letter} {what}",
        where=name,
        found=f"{name}[{k}] = [{low[k]}, {high[k]}]",
        hint=f"0 <= start <= stop <= {size}",
    )
