"""Which columns each box of rows meets: as proxies where they are far, else point by point.

A box of columns is far where its radius is at most `ratio` times the distance of its center to the
box of rows (the criterion of Barnes and Hut, A hierarchical O(N log N) force-calculation algorithm,
Nature 324, 1986, with distances to boxes): how well a polynomial fits a function of the columns
does not depend on the size of the box of rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .halving import Floats, Level, Numbers


@dataclass(frozen=True)
class Met:
    """Pairs of a box of rows and an interval of columns, whose numbers go on with the proxies.

    `boxes` (R,) are in ascending order, `intervals` (R, 2) within each.
    """

    boxes: Numbers
    intervals: Numbers

    def columns(self) -> Numbers:
        """Columns of each pair."""
        return self.intervals[:, 1] - self.intervals[:, 0]


def met(
    low: Floats, high: Floats, levels: Sequence[Level], ratio: float, far: range, size: int
) -> Met:
    """What boxes of rows (B, D) meet, in the order of the boxes.

    Args:
        low, high: the corners of the boxes of rows.
        levels: those of the tree of columns.
        ratio: how large boxes may be for their distance to be far.
        far, size: proxies stand for boxes of these levels, one level after the other, `size` for
            each; boxes of as few points meet rows by their points.
    """
    rows, nodes = np.arange(len(low)), np.zeros(len(low), np.int64)
    boxes: list[Numbers] = []
    starts: list[Numbers] = []
    stops: list[Numbers] = []
    place = int(levels[0].starts[-1])
    for number, level in enumerate(levels):
        last = number == len(levels) - 1
        if number in far:
            isfar = _is_far(low, high, level, rows, nodes, ratio)
            isfar &= np.diff(level.starts)[nodes] > size
            boxes.append(rows[isfar])
            starts.append(place + nodes[isfar] * size)
            stops.append(starts[-1] + size)
            rows, nodes = rows[~isfar], nodes[~isfar]
            place += len(level.low) * size
        if last:
            boxes.append(rows)
            starts.append(level.starts[nodes])
            stops.append(level.starts[nodes + 1])
        rows, nodes = np.repeat(rows, 2), np.repeat(2 * nodes, 2)
        nodes[1::2] += 1
    found, start = np.concatenate(boxes), np.concatenate(starts)
    order = np.lexsort((start, found))
    return Met(found[order], np.stack([start, np.concatenate(stops)], 1)[order])


def _is_far(
    low: Floats, high: Floats, level: Level, rows: Numbers, nodes: Numbers, ratio: float
) -> NDArray[np.bool_]:
    """Whether boxes of columns are far from boxes of rows, pair by pair."""
    centers, halves, own = (low + high) / 2, (high - low) / 2, level.centers
    square = np.zeros(len(rows))
    for k in range(low.shape[1]):
        gap = np.abs(own[nodes, k] - centers[rows, k]) - halves[rows, k]
        square += np.square(np.maximum(gap, 0, out=gap), out=gap)
    radius = (level.halves**2).sum(1) / ratio**2
    return square > radius[nodes]
