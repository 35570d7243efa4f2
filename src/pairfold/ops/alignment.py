"""Soft dynamic time warping: a recurrence over a table, and the row that is all its derivatives.

With z = (x, y, c), the value R is a function of one vector. Its gradient, and the derivative of
the gradient along directions h1, h2, ..., are one row, `SoftDTW_Slope`: the forward and backward
recurrences on dual numbers. Derivatives of that row are the row itself with one more direction
(along the incoming gradient) or with one direction replaced by it, since the tensors of higher
derivatives are symmetric.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ..core.node import Node
from ..core.scalars import Entries, Index, Reader, Scalars, Table, Value
from ..errors import refuse
from .duals import Dual, Duals
from .table import Param, operation
from .vectors import concat, extract

Floats = NDArray[np.float64]

_INFINITY = float("inf")


class _Alignment:
    """The recurrences over the cells (i, j) of two series of n and m numbers.

    Cell i*m + j; `x(i)`, `y(j)` and `c` are dual numbers. Each table holds one derivative (one
    set of directions), and reads those of smaller sets.
    """

    def __init__(
        self,
        duals: Duals,
        n: int,
        m: int,
        x: Callable[[Index], Dual],
        y: Callable[[Index], Dual],
        c: Dual,
    ) -> None:
        self.duals, self.n, self.m = duals, n, m
        self.s, self.cells = duals.scalars, n * m
        self.x, self.y, self.c = x, y, c
        self.falls = self.s.apply("lt", duals.number(c), 0)
        self.lengths = self._tables(self._length)
        self.flows = self._tables(self._flow)

    def _tables(self, cell: Callable[[Index, Callable[[Index], Dual]], Dual]) -> list[Table]:
        """One table for each set of directions of a recurrence on dual numbers."""
        made: list[Table] = []
        for mask in self.duals.sets:

            def entry(t: Index, read: Entries, mask: int = mask) -> Value:
                def earlier(k: Index) -> Dual:
                    known: list[Value | None] = [table(k) for table in made[:mask]]
                    return [*known, read(k), *([None] * (len(self.duals.sets) - mask - 1))]

                found = cell(t, earlier)[mask]
                return self.s.constant(0) if found is None else found

            made.append(self.s.table(self.cells, entry, most=2))
        return made

    def difference(self, i: Index, j: Index) -> Dual:
        """x_i - y_j"""
        return self.duals.sub(self.x(i), self.y(j))

    def _choose(
        self, k: Index, limit: int, below: Callable[[], Dual], otherwise: Callable[[], Dual]
    ) -> Dual:
        low, high = (k, k) if isinstance(k, int) else k.bounds
        if high < limit:
            return below()
        if low >= limit:
            return otherwise()
        assert isinstance(k, Value)
        return self.duals.select(self.s.is_below(k, limit), below(), otherwise())

    # -- forward --------------------------------------------------------------------------------

    def length(self, t: Index) -> Dual:
        """The soft length of the best path to cell t."""
        return [table(t) for table in self.lengths]

    def _before(self, t: Index, read: Callable[[Index], Dual]) -> list[Dual]:
        """The lengths of the three cells before cell t, infinitely far where there is none."""
        m = self.m
        far = self.s.select(self.falls, -_INFINITY, _INFINITY)
        nothing = [far, *([None] * (len(self.duals.sets) - 1))]

        def at(back: int) -> Dual:
            return read(self.s.at_least(t + -back, 0))

        def inner(back: int) -> Dual:
            return self._choose(t % m, 1, lambda: nothing, lambda: at(back))

        return [
            self._choose(t, m, lambda: nothing, lambda: inner(m + 1)),
            self._choose(t, m, lambda: nothing, lambda: at(m)),
            inner(1),
        ]

    def _shares(self, lengths: list[Dual]) -> tuple[Value, list[Dual], list[Dual], Dual]:
        """The least length, the excesses over it by c, their exponentials, and the sum of those.

        The greatest length where c < 0: no excess by c is negative. The softmin does not depend on
        what is shifted out, so that is no dual number.
        """
        s, duals = self.s, self.duals
        numbers = [duals.number(length) for length in lengths]
        least = numbers[0]
        for number in numbers[1:]:
            less = s.apply("lt", least, number)
            lower, upper = s.select(less, least, number), s.select(less, number, least)
            least = s.select(self.falls, upper, lower)
        shift = [least, *([None] * (len(duals.sets) - 1))]
        excesses = [
            duals.div(duals.sub(length, shift), self.c, s.apply("eq", number, least))
            for length, number in zip(lengths, numbers, strict=True)
        ]
        weights = [duals.exp(duals.negative(excess)) for excess in excesses]
        total = duals.add(duals.add(weights[0], weights[1]), weights[2])
        return least, excesses, weights, total

    def _length(self, t: Index, read: Callable[[Index], Dual]) -> Dual:
        duals = self.duals

        def soft_minimum() -> Dual:
            least, _, _, total = self._shares(self._before(t, read))
            shift = [least, *([None] * (len(duals.sets) - 1))]
            return duals.sub(shift, duals.mul(self.c, duals.log(total)))

        cost = self.difference(t // self.m, t % self.m)
        cost = duals.mul(cost, cost)
        return duals.add(cost, self._choose(t, 1, lambda: duals.constant(0), soft_minimum))

    # -- backward -------------------------------------------------------------------------------

    def flow(self, t: Index) -> Dual:
        """The derivative of the result by the cost of cell t."""
        return [table(self._mirrored(t)) for table in self.flows]

    def _mirrored(self, t: Index) -> Index:
        return t * -1 + (self.cells - 1)

    def _flow(self, back: Index, read: Callable[[Index], Dual]) -> Dual:
        """The flow into cell t, from the cells after it; tables run from the last cell."""
        duals, n, m = self.duals, self.n, self.m
        t = self._mirrored(back)
        nothing = duals.constant(0)

        def sent(step: int, which: int) -> Dual:
            after = self.s.at_most(t + step, self.cells - 1)
            _, _, weights, total = self._shares(self._before(after, self.length))
            share = duals.div(weights[which], total)
            return duals.mul(read(self.s.at_least(back + -step, 0)), share)

        def right(step: int, which: int) -> Dual:
            return self._choose(t % m, m - 1, lambda: sent(step, which), lambda: nothing)

        def below() -> Dual:
            down = duals.add(sent(m, 1), right(m + 1, 0))
            return duals.add(down, right(1, 2))

        def others() -> Dual:
            return self._choose(t // m, n - 1, below, lambda: right(1, 2))

        return self._choose(back, 1, lambda: duals.constant(1), others)

    # -- the gradient ---------------------------------------------------------------------------

    def slope(self, k: Index) -> Value:
        """Component k of the gradient by (x, y, c), along all directions."""
        s, n, m = self.s, self.n, self.m
        return s.choose(
            k,
            n,
            lambda: self._slope_x(s.at_most(k, n - 1)),
            lambda: s.choose(
                k,
                n + m,
                lambda: self._slope_y(s.at_most(s.at_least(k + -n, 0), m - 1)),
                lambda: s.sum(self.cells, lambda t: self._last(self._slope_c(t))),
            ),
        )

    def _last(self, x: Dual) -> Value:
        found = x[-1]
        return self.s.constant(0) if found is None else found

    def _slope_x(self, i: Index) -> Value:
        duals = self.duals

        def term(j: Index) -> Value:
            return self._last(duals.mul(self.flow(j + i * self.m), self.difference(i, j)))

        return self.s.sum(self.m, term) * 2

    def _slope_y(self, j: Index) -> Value:
        duals = self.duals

        def term(i: Index) -> Value:
            return self._last(duals.mul(self.flow(i * self.m + j), self.difference(i, j)))

        return self.s.sum(self.n, term) * -2

    def _slope_c(self, t: Index) -> Dual:
        """What cell t adds to the derivative by c: its flow times minus the entropy there."""
        duals = self.duals

        def entropy() -> Dual:
            _, excesses, weights, total = self._shares(self._before(t, self.length))
            found = duals.log(total)
            for excess, weight in zip(excesses, weights, strict=True):
                share = duals.div(weight, total)
                vanishes = self.s.apply("eq", duals.number(weight), 0)
                product = duals.mul(share, excess)
                found = duals.add(found, duals.select(vanishes, duals.constant(0), product))
            return found

        def none() -> Dual:
            return duals.constant(0)

        return duals.negative(duals.mul(self.flow(t), self._choose(t, 1, none, entropy)))


# ----- the rows ----------------------------------------------------------------------------------


def _soft_dtw(s: Scalars, k: Index, x: Reader, y: Reader, c: Reader) -> Value:
    n = x.dim
    m = y.dim
    grid = _Alignment(Duals(s, 0), n, m, lambda i: [x(i)], lambda j: [y(j)], [c(0)])
    return grid.lengths[0](n * m - 1)


def _slope(s: Scalars, k: Index, z: Reader, n: int, m: int, order: int) -> Value:
    return _grid(s, z, n, m, order).slope(k)


def _grid(s: Scalars, z: Reader, n: int, m: int, order: int) -> _Alignment:
    duals, size = Duals(s, order), n + m + 1

    def part(start: int) -> Callable[[Index], Dual]:
        return lambda k: duals.variable(
            z(k + start), [z(k + (start + size * (which + 1))) for which in range(order)]
        )

    def build() -> _Alignment:
        return _Alignment(duals, n, m, part(0), part(n), part(n + m)(0))

    return s.remembered(("alignment", z, n, m, order), build)


def _joined(parts: list[Node]) -> Node:
    found = parts[-1]
    for part in reversed(parts[:-1]):
        found = concat(part, found)
    return found


def _soft_dtw_pullback(g: Node, out: Node, x: Node, y: Node, c: Node) -> list[Node]:
    n, m = x.dim, y.dim
    slopes = soft_dtw_slope(_joined([x, y, c]), n, m, 0)
    return [
        g * extract(slopes, 0, n),
        g * extract(slopes, n, m),
        g * extract(slopes, n + m, 1),
    ]


def _slope_pullback(g: Node, out: Node, z: Node, n: int, m: int, order: int) -> list[Node]:
    size = n + m + 1
    parts = [extract(z, size * place, size) for place in range(order + 1)]
    found = [soft_dtw_slope(_joined([*parts, g]), n, m, order + 1)]
    for place in range(1, order + 1):
        moved = [*parts[:place], g, *parts[place + 1 :]]
        found.append(soft_dtw_slope(_joined(moved), n, m, order))
    return [_joined(found)]


def _soft_dtw_like(x: Floats, y: Floats, c: Floats) -> object:
    n, m, c = x.shape[-1], y.shape[-1], c[..., 0]
    cost = (x[..., :, None] - y[..., None, :]) ** 2
    length = np.full((*c.shape, n + 1, m + 1), np.inf) * np.where(c < 0, -1, 1)[..., None, None]
    length[..., 0, 0] = 0
    for i in range(n):
        for j in range(m):
            before = [length[..., i, j], length[..., i, j + 1], length[..., i + 1, j]]
            least = np.where(c < 0, np.maximum.reduce(before), np.minimum.reduce(before))
            total = sum(np.exp((least - other) / c) for other in before)
            length[..., i + 1, j + 1] = cost[..., i, j] + least - c * np.log(total)
    return length[..., n, m, None]


def _slope_dim(d: int, n: int, m: int, order: int) -> int:
    if n < 1 or m < 1 or order < 0:
        refuse("two series of at least one number, and no negative number of directions")
    if d != (n + m + 1) * (order + 1):
        refuse(f"needs (n + m + 1) * (order + 1) = {(n + m + 1) * (order + 1)} numbers")
    return n + m + 1


soft_dtw = operation(
    "SoftDTW_SqDist",
    "x y c",
    "Soft dynamic time warping of two series of numbers, with squared distances, smoothed by c.",
    dims=lambda dx, dy, dc: 1 if dc == 1 else refuse("c must be a scalar"),
    value=_soft_dtw,
    pullback=_soft_dtw_pullback,
    rereads=True,
    like=_soft_dtw_like,
    known=(
        ((1, 2), (3,), 1, 5),
        ((0, 3), (0, 3), 0, 0),
        ((0, 1, 1), (0, 1), 1e-300, 0),
        ((0, 1, 1), (0, 3), -1e-30, 17),
    ),
    domain={"c": (1.5, 3.0)},
    refuses=[((3, 2, 2), (), "c must be a scalar")],
    method="softdtw_sqdist",
    derivative="for x, y and c, by the reversed recurrence; of any order",
    conventions="the limit of hard time warping for c -> 0; of the longest path where c < 0",
    samples=((1, 1, 1), (3, 2, 1)),
    sized=lambda d: ((d, min(d, 3), 1), ()),
)

soft_dtw_slope = operation(
    "SoftDTW_Slope",
    "z",
    "The gradient of SoftDTW_SqDist by z = (x, y, c), differentiated along `order` directions.",
    params=[Param("n", 2), Param("m", 1), Param("order", 0)],
    dims=_slope_dim,
    value=_slope,
    pullback=_slope_pullback,
    rereads=True,
    known=(
        ((1, 2, 3, 1), 2, 1, 0, (-4, -2, 6, 0)),
        ((1, 2, 3, 1, 1, 0, 0, 0), 2, 1, 1, (2, 0, -2, 0)),
    ),
    refuses=[
        ((5,), (2, 1, 0), "= 4 numbers"),
        ((4,), (0, 3, 0), "at least one number"),
    ],
    derivative="the same with one more direction, or with another one",
    conventions="z is followed by the directions, each with as many numbers",
    samples=((4,),),
    sized=lambda d: ((d + 2,), (d, 1, 0)),
    internal=True,
)
