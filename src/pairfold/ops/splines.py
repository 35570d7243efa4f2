"""B-splines: values of the basis functions as vectors, one level of degree after the other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..core.node import Node
from ..errors import refuse
from .elementwise import absolute, if_else, less_or_equal, less_than
from .table import Param, operation
from .vectors import extract, make_constant

Floats = NDArray[np.float64]


def _basis(knots: Node, x: Node, k: int) -> Node:
    """Level p has one function fewer than level p-1, from two neighbours over their spans.

    A span of length 0 belongs to a function that is 0; it is divided by 1, so that neither value
    nor gradient is NaN there.
    """
    count = knots.dim
    if x.dim != 1:
        refuse("the point must be a scalar")
    if k < 0:
        refuse("the degree of a spline is at least 0")
    if count < k + 2:
        refuse(f"splines of degree {k} need at least {k + 2} knots", "knots of a larger dimension")
    start, stop = extract(knots, 0, count - 1), extract(knots, 1, count - 1)
    basis = less_or_equal(start, x) * less_than(x, stop)
    for degree in range(1, k + 1):
        spans = count - degree
        start, stop = extract(knots, 0, spans), extract(knots, degree, spans)
        length = stop - start
        part = basis / if_else(-absolute(length), make_constant(1), length)
        rising, falling = (x - start) * part, (stop - x) * part
        basis = extract(rising, 0, spans - 1) + extract(falling, 1, spans - 1)
    return basis


def _like_basis(knots: Floats, x: Floats, k: int) -> object:
    """The recursion of de Boor on arrays, where 0/0 is 0."""
    basis = ((knots[..., :-1] <= x) & (x < knots[..., 1:])).astype(float)
    for degree in range(1, k + 1):
        left, right = knots[..., :-degree], knots[..., degree:]
        empty = left == right
        rise = np.where(empty, 0, (x - left) / np.where(empty, 1, right - left))
        fall = np.where(empty, 0, (right - x) / np.where(empty, 1, right - left))
        basis = rise[..., :-1] * basis[..., :-1] + fall[..., 1:] * basis[..., 1:]
    return basis


bspline = operation(
    "BSpline",
    "knots x",
    "The B-spline basis functions of degree k on the knots, at the point x.",
    params=[Param("k", 3)],
    dims=lambda dk, dx, k: dk - k - 1,
    expand=_basis,
    method="bspline",
    like=_like_basis,
    domain={"x": (0, 8)},
    known=(
        ([0, 1, 2], 0.5, 0, [1, 0]),
        ([0, 1, 2], 1.25, 1, [0.75]),
        ([0, 0, 1, 1], 0.25, 1, [0.75, 0.25]),
    ),
    refuses=[
        ((4, 1), (3,), "at least 5 knots"),
        ((4, 1), (-1,), "at least 0"),
        ((5, 2), (1,), "must be a scalar"),
    ],
    derivative="that of the recursion, to the point and to the knots",
    conventions="half-open intervals; 0/0 is 0 at repeated knots; knots must not decrease",
    samples=((6, 1), (9, 1)),
    sized=lambda d: ((d + 4, 1), (3,)),
)
