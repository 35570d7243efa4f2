"""Points in the order of a tree of boxes that halves them, and the boxes of every level.

Level l of the tree has 2^l boxes, of equal numbers of points up to one; box k of a level holds
boxes 2k and 2k + 1 of the next. A box is cut across its longest side, near the median: points are
sorted by the cells of a fine grid, and where equal ones go does not matter.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..core.library import NumpyArray

Numbers = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Level:
    """Boxes of one level: points starts[k] to starts[k + 1] lie in low[k] to high[k], (B, D)."""

    starts: Numbers
    low: Floats
    high: Floats

    @property
    def centers(self) -> Floats:
        """The middles of the boxes (B, D)."""
        return self.low + (self.high - self.low) / 2

    @property
    def halves(self) -> Floats:
        """Half the sides of the boxes (B, D)."""
        return (self.high - self.low) / 2


@dataclass(frozen=True)
class Halved:
    """Points (N, D) in the order of the tree, `order` being their old numbers; its levels."""

    points: NumpyArray
    order: Numbers
    levels: tuple[Level, ...]


def halved(points: NumpyArray, most: int) -> Halved:
    """The tree of at least one finite point whose last boxes have at most `most` points.

    >>> tree = halved(np.array([[3.0], [0.0], [2.0], [1.0]]), 2)
    >>> sorted(tree.order[:2].tolist()), tree.levels[1].high[0].tolist()
    ([1, 3], [1.0])
    """
    count, _ = points.shape
    depth = max(0, int(np.ceil(np.log2(count / most))))
    columns = [np.ascontiguousarray(column) for column in points.T]
    order = np.arange(count)
    for level in range(depth):
        places = _cut(columns, _starts(count, level), level)
        columns, order = [column[places] for column in columns], order[places]
    starts = _starts(count, depth)
    low = np.stack([np.minimum.reduceat(c, starts[:-1]) for c in columns], 1).astype(np.float64)
    high = np.stack([np.maximum.reduceat(c, starts[:-1]) for c in columns], 1).astype(np.float64)
    levels = [Level(starts, low, high)]
    for level in range(depth - 1, -1, -1):
        low, high = np.minimum(low[::2], low[1::2]), np.maximum(high[::2], high[1::2])
        levels.append(Level(_starts(count, level), low, high))
    return Halved(np.stack(columns, 1), order, tuple(reversed(levels)))


def _starts(count: int, level: int) -> Numbers:
    return (count * np.arange(2**level + 1, dtype=np.int64)) >> level


def _cut(columns: list[NumpyArray], starts: Numbers, level: int) -> Numbers:
    """Places that sort the points of each box along its longest side, up to a 2^-20 of it."""
    count, sizes = len(columns[0]), np.diff(starts)
    low = np.stack([np.minimum.reduceat(column, starts[:-1]) for column in columns])
    high = np.stack([np.maximum.reduceat(column, starts[:-1]) for column in columns])
    axis = np.argmax(high - low, axis=0)
    low, side = (np.take_along_axis(a, axis[None], 0)[0] for a in (low, high - low))
    bits = int(count - 1).bit_length()
    cells = min(20, 64 - bits - level)
    chosen = columns[0].copy()
    for k in range(1, len(columns)):
        np.copyto(chosen, columns[k], where=np.repeat(axis == k, sizes))
    scale = (2**cells - 1) / np.where(side > 0, side, 1)
    chosen -= np.repeat(low, sizes)
    chosen *= np.repeat(scale.astype(chosen.dtype), sizes)
    key = np.minimum(chosen, 2**cells - 1).astype(np.uint64)
    key += np.repeat(np.arange(len(sizes), dtype=np.uint64) << np.uint64(cells), sizes)
    key <<= np.uint64(bits)
    key += np.arange(count, dtype=np.uint64)
    key.sort()
    key &= np.uint64(2**bits - 1)
    return key.astype(np.int64)
