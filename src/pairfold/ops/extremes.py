"""The largest and smallest component of a vector, where it is, and unit vectors.

The gradient of an extreme goes to the component that was taken, chosen by a selection: what the
other components are made of cannot reach it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ..core.node import Node
from ..core.scalars import Index, Reader, Scalars, Value
from ..errors import refuse
from .table import Op, Param, guarded, operation
from .vectors import make_constant

Floats = NDArray[np.float64]


def _better(s: Scalars, largest: bool, x: Value, best: Value) -> Value:
    return s.lt(best, x) if largest else s.lt(x, best)


def _extreme(largest: bool) -> Callable[..., Value]:
    def value(s: Scalars, k: Index, x: Reader) -> Value:
        dim = x.dim

        def step(n: Index, best: Value) -> list[Value]:
            found = x(n + 1)
            return [s.select(_better(s, largest, found, best), found, best)]

        return s.loop(dim - 1, [x(0)], step)[0]

    return value


def _place(largest: bool) -> Callable[..., Value]:
    def value(s: Scalars, k: Index, x: Reader) -> Value:
        dim = x.dim

        def step(n: Index, best: Value, place: Value) -> list[Value]:
            found = x(n + 1)
            better = _better(s, largest, found, best)
            return [s.select(better, found, best), s.select(better, s.position(n + 1), place)]

        return s.loop(dim - 1, [x(0), 0], step)[1]

    return value


def _taken(g: Node, x: Node, place: Op) -> Node:
    """g at the component that was taken, 0 elsewhere."""
    return guarded(one_hot(place(x), x.dim) - make_constant(1), g)


def _like_place(largest: bool) -> Callable[[Floats], Floats]:
    """The first component that no other beats; a NaN beats nothing, nor is it beaten."""

    def like(x: Floats) -> Floats:
        worst = -np.inf if largest else np.inf
        cleaned = np.where(np.isnan(x), worst, x)
        found = (np.argmax if largest else np.argmin)(cleaned, axis=-1)
        return np.where(np.isnan(x[..., 0]), 0, found)[..., None].astype(float)

    return like


def _like_extreme(largest: bool) -> Callable[[Floats], object]:
    place = _like_place(largest)
    return lambda x: np.take_along_axis(x, place(x).astype(int), axis=-1)


_ORDER = "a NaN in component 0 stays, others are ignored"
_SAMPLES = ((1,), (3,), (17,))

arg_max = operation(
    "ArgMax",
    "x",
    "The number of the largest component, counted from 0.",
    dims=lambda d: 1,
    value=_place(True),
    pullback=lambda g, out, x: [None],
    method="argmax",
    like=_like_place(True),
    known=(([1, 5, 5], 1), ([3, 2, 1], 0)),
    derivative="0",
    conventions=f"the first of equal ones; {_ORDER}",
    samples=_SAMPLES,
)

arg_min = operation(
    "ArgMin",
    "x",
    "The number of the smallest component, counted from 0.",
    dims=lambda d: 1,
    value=_place(False),
    pullback=lambda g, out, x: [None],
    method="argmin",
    like=_like_place(False),
    known=(([5, 1, 1], 1), ([1, 2, 3], 0)),
    derivative="0",
    conventions=f"the first of equal ones; {_ORDER}",
    samples=_SAMPLES,
)

maximum = operation(
    "Max",
    "x",
    "The largest component.",
    dims=lambda d: 1,
    value=_extreme(True),
    pullback=lambda g, out, x: [_taken(g, x, arg_max)],
    method="max",
    like=_like_extreme(True),
    known=(([1, 5, 2], 5), ([-3, -2, -1], -1)),
    derivative="the incoming gradient at the component that is the largest, 0 elsewhere",
    conventions=f"of equal ones the first has the gradient; {_ORDER}",
    samples=_SAMPLES,
)

minimum = operation(
    "Min",
    "x",
    "The smallest component.",
    dims=lambda d: 1,
    value=_extreme(False),
    pullback=lambda g, out, x: [_taken(g, x, arg_min)],
    method="min",
    like=_like_extreme(False),
    known=(([4, 1, 2], 1), ([-3, -2, -1], -3)),
    derivative="the incoming gradient at the component that is the smallest, 0 elsewhere",
    conventions=f"of equal ones the first has the gradient; {_ORDER}",
    samples=_SAMPLES,
)


def _one_hot(s: Scalars, k: Index, x: Reader, n: int) -> Value:
    """1 at component floor(x + 1/2), where that is one."""
    return s.select(s.eq(s.floor(x(0) + 0.5), s.position(k)), 1, 0)


def _one_hot_dim(d: int, n: int) -> int:
    if d != 1:
        refuse("the position must be a scalar")
    return n if n >= 1 else refuse("a vector has at least one component")


one_hot = operation(
    "OneHot",
    "x",
    "A vector of n zeros, but 1 at the component whose number is x.",
    params=[Param("n", 5)],
    dims=_one_hot_dim,
    value=_one_hot,
    pullback=lambda g, out, x, n: [None],
    method="one_hot",
    like=lambda x, n: (np.floor(x + 0.5) == np.arange(n)).astype(float),
    known=(
        (1, 3, [0, 1, 0]),
        (0.7, 3, [0, 1, 0]),
        (-0.5, 3, [1, 0, 0]),
        (-0.6, 3, [0, 0, 0]),
        (-1, 3, [0, 0, 0]),
        (7, 2, [0, 0]),
    ),
    refuses=[((3,), (5,), "must be a scalar"), ((1,), (0,), "at least one component")],
    derivative="0",
    conventions="x is rounded to the nearest number, halves up; where that is no component, all "
    "are 0",
    samples=((1,),),
    sized=lambda d: ((1,), (d,)),
)
