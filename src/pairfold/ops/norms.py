"""Norms with weights, unit vectors, the length of a pair.

The first are expansions, like the norms without weights. Weights are a number, one per component,
or a whole matrix of dim x dim entries, row by row.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ..core.node import Node
from ..core.scalars import Scalars, Value
from ..errors import refuse
from .elementwise import if_else, rsqrt, square
from .table import OPERATIONS, broadcast_dims, elementwise, operation
from .vectors import sq_norm2, summed, zero

Floats = NDArray[np.float64]

normalize = operation(
    "Normalize",
    "x",
    "x over its Euclidean norm.",
    dims=lambda d: d,
    expand=lambda x: rsqrt(sq_norm2(x)) * x,
    method="normalize",
    like=lambda x: x / np.sqrt((x * x).sum(-1, keepdims=True)),
    derivative="that of the quotient",
    conventions="value and derivative are 0 at x = 0",
    domain={"x": (0.2, 2)},
    samples=((1,), (3,), (17,)),
)


def _iso(s: Node, x: Node) -> Node:
    if s.dim != 1:
        refuse("the weight must be a scalar", "WeightedSqNorm(s, x) takes weights of any kind")
    return s * sq_norm2(x)


def _diagonal(s: Node, x: Node) -> Node:
    broadcast_dims(s.dim, x.dim)
    return summed(s * square(x))


def _full(s: Node, x: Node) -> Node:
    if s.dim != x.dim**2:
        refuse(
            f"the weights of a vector of dimension {x.dim} are a matrix of {x.dim**2} entries",
            "WeightedSqNorm(s, x) takes weights of any kind",
        )
    return summed(x * OPERATIONS["MatVecMult"](s, x))


def _weighted(s: Node, x: Node) -> Node:
    if s.dim == 1:
        return _iso(s, x)
    if s.dim == x.dim:
        return _diagonal(s, x)
    if s.dim != x.dim**2:
        refuse(
            f"a vector of dimension {x.dim} has 1, {x.dim} or {x.dim**2} weights",
            "a number, one weight per component, or a matrix, row by row",
        )
    return _full(s, x)


def _like_diagonal(s: Floats, x: Floats) -> object:
    return (s * x * x).sum(-1, keepdims=True)


def _like_full(s: Floats, x: Floats) -> object:
    matrix = s.reshape(*s.shape[:-1], x.shape[-1], x.shape[-1])
    return np.einsum("...k,...kl,...l->...", x, matrix, x)[..., None]


def _like_weighted(s: Floats, x: Floats) -> object:
    full = s.shape[-1] not in (1, x.shape[-1])
    return _like_full(s, x) if full else _like_diagonal(s, x)


sq_norm_iso = operation(
    "SqNormIso",
    "s x",
    "Squared norm times a number.",
    dims=lambda ds, d: 1,
    expand=_iso,
    like=_like_diagonal,
    refuses=[((3, 3), (), "must be a scalar")],
    derivative="|x|^2 and 2*s*x",
    samples=((1, 1), (1, 3), (1, 17)),
    sized=lambda d: ((1, d), ()),
)

sq_norm_diag = operation(
    "SqNormDiag",
    "s x",
    "Squared norm with a weight for each component.",
    dims=lambda ds, d: 1,
    expand=_diagonal,
    like=_like_diagonal,
    refuses=[((2, 3), (), "same dimension")],
    derivative="x^2 and 2*s*x",
    samples=((1, 1), (3, 3), (1, 3), (3, 1), (17, 17)),
)

sym_sq_norm = operation(
    "SymSqNorm",
    "s x",
    "The scalar product of x with s x, for a matrix s (row by row).",
    dims=lambda ds, d: 1,
    expand=_full,
    like=_like_full,
    refuses=[((3, 3), (), "a matrix of 9 entries")],
    derivative="x x^T and (s + s^T) x: s need not be symmetric",
    samples=((1, 1), (4, 2), (9, 3)),
    sized=lambda d: ((d * d, d), ()) if d <= 32 else None,
)

weighted_sq_norm = operation(
    "WeightedSqNorm",
    "s x",
    "Squared norm with weights: a number, one per component, or a matrix.",
    dims=lambda ds, d: 1,
    expand=_weighted,
    method="weightedsqnorm",
    like=_like_weighted,
    refuses=[((2, 3), (), "1, 3 or 9 weights")],
    derivative="that of SqNormIso, SqNormDiag or SymSqNorm",
    conventions="the number of weights tells which it is",
    samples=((1, 1), (1, 3), (3, 3), (9, 3), (17, 17)),
)

weighted_sq_dist = operation(
    "WeightedSqDist",
    "s x y",
    "Squared distance with weights: a number, one per component, or a matrix.",
    dims=lambda ds, dx, dy: 1,
    expand=lambda s, x, y: _weighted(s, x - y),
    method="weightedsqdist",
    like=lambda s, x, y: _like_weighted(s, x - y),
    refuses=[((2, 3, 3), (), "1, 3 or 9 weights"), ((1, 3, 2), (), "same dimension")],
    derivative="that of WeightedSqNorm(s, x - y)",
    samples=((1, 1, 1), (1, 3, 3), (3, 3, 3), (9, 3, 3), (3, 1, 3)),
)


def _hypot(s: Scalars, x: Value, y: Value) -> Value:
    """The longer one times sqrt(1 + ratio^2), which does not overflow before the result."""
    a, b = s.abs(x), s.abs(y)
    less = s.lt(a, b)
    ratio = s.select(less, a, b) / s.select(less, b, a)
    found = s.select(less, b, a) * s.sqrt(1 + ratio * ratio)
    found = s.select(s.eq(a + b, 0), 0, found)
    infinite = s.either(s.eq(a, math.inf), s.eq(b, math.inf))
    return s.select(infinite, math.inf, found)


def _hypot_slope(out: Node, x: Node) -> Node:
    """x over the length, but 0 where that is 0; -length >= 0 only there."""
    return if_else(-out, zero(out.dim), x / out)


hypot = elementwise(
    "Hypot",
    "x y",
    "The length Sqrt(x^2 + y^2) of the pair, component by component.",
    value=_hypot,
    slopes=lambda out, x, y: [_hypot_slope(out, x), _hypot_slope(out, y)],
    method="hypot",
    like=np.hypot,
    domain={"x": (0.2, 3), "y": (-3, 3)},
    known=((3, 4, 5), (0, 0, 0), (-5, 12, 13)),
    derivative="x/Hypot(x, y) and y/Hypot(x, y)",
    conventions="the derivative is 0 at (0, 0); infinite where one is, as in C99",
)
