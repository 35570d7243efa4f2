"""Proxies: few weighted points that stand for all points of a box, where these are far away.

A function that is smooth over a box is there nearly its polynomial through the values at a grid of
p^D Chebyshev points of the second kind. A sum over the points of the box is then a sum over the
grid, with weights W_m = sum_j L_m(y_j) b_j, L_m being the polynomial that is 1 at point m and 0 at
the others: Berrut and Trefethen, Barycentric Lagrange interpolation, SIAM Review 46, 2004, sections
2 and 5; Wang, Krasny and Tlupova, A kernel-independent treecode based on barycentric Lagrange
interpolation, Communications in Computational Physics 28, 2020, where W are the modified weights.
Neither depends on the function.

Here W is found from moments sum_j T_a(y_j) b_j of Chebyshev polynomials: nothing is divided by a
distance that may be 0, moments of a box follow from those of its halves exactly, those of a high
degree serve all lower ones, and points of the grid may be where their dtype can say that they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..core.library import NumpyArray
from .halving import Floats, Halved, Level

# Points of boxes whose moments are computed at once: what is made of them stays in a core's cache.
_CHUNK = 2**14
# A side of fewer of its coordinates' last digits than this is one coordinate.
_FLAT = 64


def nodes(order: int) -> Floats:
    """The Chebyshev points of the second kind (p,): cos(pi k / (p - 1)).

    >>> nodes(3).round(3).tolist()
    [1.0, 0.0, -1.0]
    """
    return np.cos(np.pi * np.arange(order) / max(1, order - 1))


def polynomials(t: Floats, order: int) -> Floats:
    """T_0 to T_(p - 1) at t of any shape (..., S): (..., p, S), by their recurrence."""
    found = np.empty((*t.shape[:-1], order, t.shape[-1]))
    found[..., 0, :] = 1
    if order > 1:
        found[..., 1, :] = t
    for k in range(2, order):
        np.multiply(found[..., k - 1, :], t, out=found[..., k, :])
        found[..., k, :] *= 2
        found[..., k, :] -= found[..., k - 2, :]
    return found


@dataclass(frozen=True)
class Moments:
    """Moments of the boxes of some levels: each (B, p, ..., p, E), p as often as there are axes.

    `numbers` are those of these levels in the tree.
    """

    tree: Halved
    numbers: range
    levels: tuple[Floats, ...]
    order: int


def moments(tree: Halved, weights: NumpyArray, order: int, numbers: range) -> Moments:
    """Moments of all boxes of some levels; weights (N, E) in the order of the tree."""
    found = [_of_points(tree, tree.levels[numbers[-1]], weights, order)]
    for number in reversed(numbers[:-1]):
        found.append(_of_halves(tree.levels[number], tree.levels[number + 1], found[-1], order))
    return Moments(tree, numbers, tuple(reversed(found)), order)


def _sides(level: Level) -> Floats:
    """Half the sides of boxes, 1 for those of no length."""
    return np.where(level.halves > 0, level.halves, 1.0)


def _of_points(tree: Halved, level: Level, weights: NumpyArray, order: int) -> Floats:
    """Moments of the boxes of a level from their points."""
    sizes = np.diff(level.starts)
    most, count, dim = int(sizes.max()), len(weights), tree.points.shape[1]
    width, centers, sides = weights.shape[1], level.centers, _sides(level)
    found = np.empty((len(sizes), order**dim, width))
    step = max(1, _CHUNK // most)
    for start in range(0, len(sizes), step):
        boxes = slice(start, min(start + step, len(sizes)))
        places = level.starts[boxes][:, None] + np.arange(most)
        b = weights[np.minimum(places, count - 1)].astype(np.float64)
        b[places >= level.starts[1:][boxes][:, None]] = 0
        t = tree.points[np.minimum(places, count - 1)].astype(np.float64)
        t = (t - centers[boxes, None]) / sides[boxes, None]
        values = [polynomials(np.ascontiguousarray(t[..., k]), order) for k in range(dim)]
        right = np.swapaxes(b, 1, 2)
        half = max(1, (dim + 1) // 2)
        for value in reversed(values[half:]):
            right = _outer(value, right)
        left = values[half - 1]
        for value in reversed(values[: half - 1]):
            left = _outer(value, left)
        product = left @ np.swapaxes(right, 1, 2)
        found[boxes] = product.reshape(len(b), order**dim, width)
    return found.reshape(len(sizes), *[order] * dim, width)


def _outer(one: Floats, other: Floats) -> Floats:
    """(B, p, S) and (B, q, S) to (B, p q, S)."""
    return (one[:, :, None] * other[:, None]).reshape(len(one), -1, one.shape[-1])


def _of_halves(whole: Level, halves: Level, below: Floats, order: int) -> Floats:
    """Moments of boxes from those of their halves: T_m(a t + c) is a sum of T_0(t) to T_m(t)."""
    grid = nodes(order)
    back = np.linalg.inv(polynomials(grid, order).T)
    sides = _sides(whole).repeat(2, 0)
    scale = np.where(halves.halves > 0, _sides(halves), 0) / sides
    shift = (halves.centers - whole.centers.repeat(2, 0)) / sides
    at = polynomials(scale[..., None] * grid + shift[..., None], order)  # (B, D, m, k)
    moved = _along_axes(below, at @ back.T)
    return moved[::2] + moved[1::2]


def _along_axes(values: Floats, matrices: Floats) -> Floats:
    """(B, p, ..., p, E) with axis k multiplied by matrices[:, k] (B, D, q, p)."""
    count, width, dim = len(values), values.shape[-1], matrices.shape[1]
    for k in range(dim):
        product = matrices[:, k] @ values.reshape(count, matrices.shape[-1], -1)
        values = np.swapaxes(product, 1, 2)
    sizes = [matrices.shape[2]] * dim
    found = values.reshape(count, width, *sizes)
    return np.moveaxis(found, 1, -1)


def proxies(
    found: Moments, number: int, order: int, dtype: np.dtype[np.floating]
) -> tuple[NumpyArray, NumpyArray]:
    """Points (B, p^D, D) and weights (B, p^D, E) of the boxes of a level, in a dtype.

    Polynomials are those through the points as the dtype rounds them; an axis along which a box has
    hardly a length is one point, with all of the weight.
    """
    level = found.tree.levels[number]
    own = found.levels[number - found.numbers[0]]
    dim = own.ndim - 2
    own = own[(slice(None), *[slice(order)] * dim)]
    centers, sides = level.centers[..., None], _sides(level)[..., None]
    largest = np.maximum(np.abs(level.low), np.abs(level.high))
    flat = level.halves <= _FLAT * float(np.finfo(dtype).eps) * largest
    along = (centers + np.where(flat[..., None], 0, sides) * nodes(order)).astype(dtype)
    t = (along.astype(np.float64) - centers) / sides
    at = polynomials(t, order)  # (B, D, m, k)
    at[flat] = np.eye(order)
    back: Floats = np.linalg.inv(at)  # pyright: ignore[reportAssignmentType] (NumPy says less)
    weights = _along_axes(own, back)
    weights = np.where(_single(flat, order)[..., None], weights, 0) if flat.any() else weights
    grids = [
        np.broadcast_to(
            along[:, k].reshape(-1, *[order if axis == k else 1 for axis in range(dim)]),
            (len(along), *[order] * dim),
        )
        for k in range(dim)
    ]
    points = np.stack(grids, -1).reshape(len(along), order**dim, dim)
    return points, weights.reshape(len(along), order**dim, -1).astype(dtype)


def _single(flat: NDArray[np.bool_], order: int) -> NDArray[np.bool_]:
    """Which points (B, p, ..., p) are the first along all axes that are flat."""
    count, dim = flat.shape
    found = np.ones((count, *[order] * dim), bool)
    for k in range(dim):
        first = ~flat[:, k, None] | (np.arange(order) == 0)
        found &= first.reshape(count, *[order if axis == k else 1 for axis in range(dim)])
    return found
