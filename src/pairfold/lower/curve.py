"""Points put in an order in which neighbours are near each other: along a space-filling curve."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Axes that the curve fills, and bits of a point's place along each.
_AXES = 3
_BITS = {1: 32, 2: 16, 3: 10}
# Points that principal axes are found from.
_SAMPLE = 4096

Floats = NDArray[np.floating]
Places = NDArray[np.uint32]


def ordered(points: Floats, block: int) -> Places:
    """The numbers of points (n, d) along a Hilbert curve, those of each block in rising order.

    Of points in more than three dimensions, the curve fills the space of their first three
    principal axes. Points with numbers that are not finite come last.

    Reference: J. Skilling, "Programming the Hilbert curve", AIP Conference Proceedings 707 (2004).

    >>> ordered(np.array([[3.0], [0.0], [2.0], [1.0]]), 2)
    array([1, 3, 0, 2], dtype=uint32)
    """
    count = len(points)
    along = points if points.shape[1] <= _AXES else _principal(points)
    finite = np.isfinite(along).all(1)
    every = bool(finite.all())
    inside = along if every else along[finite]
    keys = np.arange(count, dtype=np.uint64)
    if len(inside):
        low = inside.min(0)
        reach = float((inside.max(0) - low).max())
        codes = _codes(inside, low, reach)
        if every:
            keys |= codes.astype(np.uint64) << np.uint64(32)
        else:
            keys[~finite] |= np.uint64(0xFFFFFFFF << 32)
            keys[finite] |= codes.astype(np.uint64) << np.uint64(32)
    keys.sort()
    found = keys.astype(np.uint32)
    whole = count // block * block
    found[:whole].reshape(-1, block).sort(axis=1)
    found[whole:].sort()
    return found


def _principal(points: Floats) -> Floats:
    """Points along their first principal axes, which a sample tells."""
    sample = points[:: max(1, len(points) // _SAMPLE)].astype(np.float64)
    sample = sample[np.isfinite(sample).all(1)]
    if len(sample) < 2:
        return points[:, :_AXES]
    sample -= sample.mean(0)
    size = np.abs(sample).max()
    if not 0 < size < np.inf:
        return points[:, :_AXES]
    sample /= size
    _, axes = np.linalg.eigh(sample.T @ sample)
    with np.errstate(all="ignore"):
        return points @ np.ascontiguousarray(axes[:, : -_AXES - 1 : -1]).astype(points.dtype)


def _codes(points: Floats, low: Floats, reach: float) -> Places:
    """The places of points along the curve."""
    dim = points.shape[1]
    bits = _BITS[dim]
    scale = (2.0**bits - 1) / reach if 0 < reach < np.inf else 0.0
    if not np.isfinite(scale):
        scale = 0.0
    with np.errstate(all="ignore"):
        cells = [
            np.minimum((points[:, k] - low[k]) * scale, 2.0**bits - 1).astype(np.uint32)
            for k in range(dim)
        ]
    if dim == 1:
        return cells[0]
    _transposed(cells, bits)
    codes = np.zeros(len(points), np.uint32)
    for bit in range(bits - 1, -1, -1):
        for cell in cells:
            codes = (codes << np.uint32(1)) | ((cell >> np.uint32(bit)) & np.uint32(1))
    return codes


def _transposed(cells: list[Places], bits: int) -> None:
    """Cells to their place along the curve, whose bits they have in turn."""
    first = cells[0]
    for bit in range(bits - 1, 0, -1):
        top, below = np.uint32(1 << bit), np.uint32((1 << bit) - 1)
        for cell in cells:
            set_ = (cell & top) != 0
            swapped = np.where(set_, np.uint32(0), (first ^ cell) & below)
            first ^= np.where(set_, below, swapped)
            if cell is not first:
                cell ^= swapped
    for before, cell in zip(cells, cells[1:], strict=False):
        cell ^= before
    flips = np.zeros_like(first)
    for bit in range(bits - 1, 0, -1):
        flips ^= np.where((cells[-1] >> np.uint32(bit)) & np.uint32(1), np.uint32((1 << bit) - 1), np.uint32(0))
    for cell in cells:
        cell ^= flips
