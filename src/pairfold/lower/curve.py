"""Points put in an order in which neighbours are near each other: along a space-filling curve."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# The most axes that the curve fills; bits of a point's place along each, by how many there are.
_AXES = 3
BITS = {1: 32, 2: 16, 3: 10}
# Points that principal axes are found from.
_SAMPLE = 1024
# Steps in which principal axes are found: which they are exactly does not matter.
_STEPS = 24

# Cells have room for multiples of so many points; where the last cell ends.
ROOM = 64
_BELOW = 1 - 2.0**-20

Floats = NDArray[np.floating]
Places = NDArray[np.uint32]
Keys = Callable[[NDArray[np.float32], int], NDArray[np.uint64]]


def ordered(points: Floats, keys: Keys, axes: Axes | None = None) -> Places:
    """The numbers of points (n, d) in the order of a Hilbert curve.

    Of points in more than three dimensions, the curve fills the space of some of their principal
    axes. Points with numbers that are not finite come last. `keys`: what finds places
    along the curve, of cells (axes, room) and how many there are.
    """
    count = len(points)
    axes = axes or principal(points)
    with np.errstate(all="ignore"):
        placed = points if axes is None else points @ axes.along.astype(points.dtype)
    along = np.ascontiguousarray(placed.T)
    room = -(-count // ROOM) * ROOM
    cells = np.empty((len(along), room), np.float32)
    low, high = along.min(1), along.max(1)
    with np.errstate(all="ignore"):
        every = bool(np.isfinite(high - low).all())
        finite = None if every else np.isfinite(along).all(0)
        if finite is not None:
            low = along.min(1, where=finite, initial=np.inf)
            high = along.max(1, where=finite, initial=-np.inf)
        most = 2.0 ** BITS[len(along)] - 1
        reach = float((high - low).max())
        scale = most / reach if 0 < reach < np.inf else 0.0
        inside = cells[:, :count]
        np.subtract(along, low[:, None], out=inside, casting="same_kind")
        inside *= np.float32(scale if scale < 1e38 else 0.0)
        np.clip(inside, 0, np.float32(most * _BELOW), out=inside)
    cells[:, count:] = 0
    if finite is not None:
        inside[:, ~finite] = 0
    found = keys(cells, count)
    if finite is not None:
        found[~finite] |= np.uint64(0xFFFFFFFF << 32)
    found.sort()
    return found.astype(np.uint32)


def sorted_in_blocks(order: Places, block: int) -> Places:
    """The same numbers, those of each block of so many in rising order.

    >>> sorted_in_blocks(np.array([3, 1, 2, 5, 0], np.uint32), 2)
    array([1, 3, 2, 5, 0], dtype=uint32)
    """
    found = order.copy()
    whole = len(order) // block * block
    found[:whole].reshape(-1, block).sort(axis=1)
    found[whole:].sort()
    return found


class Axes(NamedTuple):
    """The directions that a curve fills, columns of a matrix; their share of the variance."""

    along: Floats
    share: float


def principal(points: Floats) -> Axes | None:
    """The first principal axes of points (n, d), which a sample tells; None where d is small.

    >>> principal(np.array([[0.0, 0, 0, 1], [0, 0, 0, 2]])).share
    1.0
    """
    if points.shape[1] <= _AXES:
        return None
    sample = points[:: max(1, len(points) // _SAMPLE)].astype(np.float64)
    sample = sample[np.isfinite(sample).all(1)]
    found = np.eye(points.shape[1], _AXES)
    with np.errstate(all="ignore"):
        if len(sample):
            sample -= sample.mean(0)
        size = np.abs(sample).max(initial=0)
        if not 0 < size < np.inf:
            return Axes(found, 1.0)
        sample /= size
        variances = np.einsum("nd,ne->de", sample, sample)
        found = _largest(variances)
        share = np.einsum("dk,de,ek->", found, variances, found) / np.trace(variances)
    return Axes(found, float(share))


def _largest(variances: Floats) -> Floats:
    """Nearly the directions of the largest variances, as columns: some steps of iteration.

    Products are not those of BLAS, nor eigenvectors those of LAPACK: threads of theirs would wait
    actively for more, and take the processors from what follows.
    """
    order = np.argsort(-np.diagonal(variances), kind="stable")[:_AXES]
    found = np.eye(len(variances))[:, order]
    for _ in range(_STEPS):
        found = np.einsum("de,ek->dk", variances, found) + 1e-12 * found
        for k in range(_AXES):
            for before in range(k):
                found[:, k] -= found[:, before] * (found[:, before] * found[:, k]).sum()
            found[:, k] /= np.sqrt((found[:, k] ** 2).sum()) or 1.0
    return found
