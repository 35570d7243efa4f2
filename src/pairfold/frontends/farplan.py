"""Plans of treecodes: which order of proxies is enough for the rows that are looked at.

The error of a plan is measured: the sum is computed exactly, in float64, for some rows that lie
evenly in the order of the tree, and with proxies as all rows would be. The lowest order whose error
is small enough is taken. Where none is, or where so many columns are left that proxies do not pay,
all pairs are met.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..arrays.registry import NUMPY
from ..core.library import NumpyArray
from ..core.node import Axis
from .halving import Numbers, halved
from .meeting import Met, met
from .proxies import Moments, moments, proxies
from .ranges import Ranges

if TYPE_CHECKING:
    from .farfield import Roles
    from .reduction import FormulaReduction

# Rows and columns of the smallest boxes: below, the work for a box exceeds that for its pairs.
ROWS, COLUMNS = 256, 256
# Boxes are far whose radius is at most this times their distance. More lets fewer boxes be met, as
# proxies of a higher order: for 1/r, e^-r and Gaussians the columns met to an error of 1e-4 to
# 1e-7 vary by a tenth from 0.7 to 0.85.
RATIO = 0.75
# Rows whose sums are computed exactly, and how much smaller their error has to be than what is
# asked: the other rows have their own.
SAMPLES, MARGIN = 64, 0.5
# An order is to leave less than this of the error of the one before: else none will be enough.
FALLS = 0.7
# The highest orders, by the number of coordinates: proxies of a box are not to be thousands.
ORDERS = {1: 24, 2: 16, 3: 11, 4: 7}
# Pairs that a plan has to save to pay: for being made, and for each row and column.
FIXED_PAIRS, PAIRS_PER_POINT = 2**28, 2**13


@dataclass(frozen=True)
class Far:
    """What the exact fold folds in place of all pairs.

    `arrays` are its arguments, rows and columns in the order of their trees, proxies after the
    columns; `order` are the old numbers of the rows.
    """

    arrays: list[NumpyArray]
    ranges: Ranges
    order: Numbers


@dataclass(frozen=True)
class Planned:
    """A plan, as it is told: `far` is None where all pairs are met, `why` says why.

    `columns` is how many columns a row meets on average, proxies among them, `error` is the
    relative error that was measured, and `order` that of the polynomials.
    """

    far: Far | None
    why: str = ""
    order: int = 0
    columns: float = 0.0
    error: float = 0.0


def planned(
    fold: FormulaReduction, roles: Roles, arrays: Sequence[NumpyArray], rtol: float
) -> Planned:
    """The plan for a sum over all pairs, with arrays without batch axes, to a relative error."""
    x, y = arrays[roles.rows], arrays[roles.columns]
    pairs = len(x) * len(y)
    if pairs <= FIXED_PAIRS + PAIRS_PER_POINT * (len(x) + len(y)) or not pairs:
        return Planned(None, f"{len(x)} x {len(y)} pairs are soon met")
    if not all(np.isfinite(arrays[n]).all() for n in (roles.rows, roles.columns, roles.weights)):
        return Planned(None, "positions or weights are not finite")
    made = _Making(fold, roles, arrays)
    return made.planned(rtol)


class _Making:
    """Trees of rows and columns, and what plans of any order share."""

    def __init__(self, fold: FormulaReduction, roles: Roles, arrays: Sequence[NumpyArray]) -> None:
        self.fold, self.roles = fold, roles
        self.dtype = arrays[roles.columns].dtype
        self.dim = arrays[roles.columns].shape[1]
        self.rows = halved(arrays[roles.rows], ROWS)
        same = ROWS == COLUMNS and _same(arrays[roles.rows], arrays[roles.columns])
        self.columns = self.rows if same else halved(arrays[roles.columns], COLUMNS)
        self.arrays = list(arrays)
        self.weights = arrays[roles.weights][self.columns.order]
        for n, v in enumerate(fold.variables):
            if v.variable.kind == fold.kept:
                self.arrays[n] = arrays[n][self.rows.order]
        count = len(self.rows.points)
        samples = min(SAMPLES, count)
        # One row in each part, anywhere in its box: multiples of the golden ratio are spread so.
        parts = np.arange(samples)
        places = (parts + parts * 0.6180339887498949 % 1) / samples * count
        self.sample = np.minimum(places.astype(np.int64), count - 1)
        self.exact = self._exact()
        self._moments: Moments | None = None

    def planned(self, rtol: float) -> Planned:
        """The plan of the lowest order that is enough."""
        count, points = len(self.columns.points), len(self.rows.points) + len(self.columns.points)
        most = count - (FIXED_PAIRS + PAIRS_PER_POINT * points) / len(self.rows.points)
        why = "no order of proxies is enough"
        before = np.inf
        for order in self._orders(rtol):
            if not self._levels(order):
                why = f"boxes have fewer points than proxies of order {order}"
                break
            columns = self._met(order, self.sample).columns().sum() / len(self.sample)
            if columns >= most:
                why = f"a row would meet {columns:.0f} of {count} columns"
                break
            arrays = self._with_proxies(order)
            error = self._error(arrays, order)
            if error <= MARGIN * rtol:
                return self._of(arrays, order, error)
            why = f"an error of {error:.1e} is left, of order {order}"
            if not error < FALLS * before:
                break
            before = error
        return Planned(None, why)

    def _orders(self, rtol: float) -> Iterator[int]:
        """Orders to be tried: polynomials of three coordinates gain about a digit with each."""
        most = ORDERS[self.dim]
        first = min(most, max(2, int(np.ceil(-np.log10(rtol)))))
        return iter(range(first, most + 1))

    def _of(self, arrays: list[NumpyArray], order: int, error: float) -> Planned:
        level = self.rows.levels[-1]
        found = self._meeting(level.low, level.high, order)
        sizes = np.diff(level.starts)
        columns = (found.columns() * sizes[found.boxes]).sum() / len(self.rows.points)
        blocks = np.stack([level.starts[:-1], level.starts[1:]], 1)
        far = Far(arrays, self._ranges(blocks, found), self.rows.order)
        return Planned(far, "", order, float(columns), error)

    # -- proxies --------------------------------------------------------------------------------

    def _levels(self, order: int) -> range:
        """The levels whose boxes may be far: not the whole cloud, nor where points are fewer."""
        sizes = [int(np.diff(level.starts).max()) for level in self.columns.levels]
        return range(1, sum(size > order**self.dim for size in sizes))

    def _with_proxies(self, order: int) -> list[NumpyArray]:
        """The arguments of the fold, proxies after the columns."""
        levels = self._levels(order)
        known = self._moments
        if known is None or known.order < order:
            most = min(ORDERS[self.dim], order + 2)
            known = self._moments = moments(self.columns, self.weights, most, levels)
        made = [proxies(known, level, order, self.dtype) for level in levels]
        found = list(self.arrays)
        positions = [self.columns.points, *(p.reshape(-1, self.dim) for p, _ in made)]
        weights = [self.weights, *(w.reshape(-1, w.shape[-1]) for _, w in made)]
        found[self.roles.columns] = np.concatenate(positions)
        found[self.roles.weights] = np.concatenate(weights)
        return self._fitting(found, len(found[self.roles.columns]))

    def _fitting(self, arrays: list[NumpyArray], columns: int) -> list[NumpyArray]:
        """Arrays of columns that the formula does not read, as long as the others."""
        for n, v in enumerate(self.fold.variables):
            own = n in (self.roles.columns, self.roles.weights)
            if v.variable.kind == self.fold.kept.other and not own:
                shape = (columns, arrays[n].shape[1])
                arrays[n] = np.broadcast_to(np.zeros((), self.dtype), shape)
        return arrays

    def _met(self, order: int, rows: Numbers) -> Met:
        """What single rows meet: what their boxes do."""
        level = self.rows.levels[-1]
        boxes = np.searchsorted(level.starts, rows, side="right") - 1
        return self._meeting(level.low[boxes], level.high[boxes], order)

    def _meeting(self, low: NumpyArray, high: NumpyArray, order: int) -> Met:
        far, size = self._levels(order), order**self.dim
        return met(low, high, self.columns.levels, RATIO, far, size)

    def _ranges(self, blocks: Numbers, found: Met) -> Ranges:
        ends = np.searchsorted(found.boxes, np.arange(len(blocks)), side="right")
        none = np.zeros((0, 2), np.int64)
        mine, other = [blocks, ends, found.intervals], [none, none[:, 0], none]
        return Ranges([*mine, *other] if self.fold.kept == Axis.I else [*other, *mine])

    # -- the rows that are looked at ------------------------------------------------------------

    def _of_sample(self, arrays: Sequence[NumpyArray]) -> list[NumpyArray]:
        kept = self.fold.kept
        return [
            array[self.sample] if v.variable.kind == kept else array
            for v, array in zip(self.fold.variables, arrays, strict=True)
        ]

    def _exact(self) -> NumpyArray:
        """Sums over all columns in float64."""
        given = list(self.arrays)
        given[self.roles.columns], given[self.roles.weights] = self.columns.points, self.weights
        given = self._fitting(given, len(self.weights))
        wide: list[NumpyArray] = [a.astype(np.float64) for a in self._of_sample(given)]
        return NUMPY.to_numpy(self.fold.run(NUMPY, wide)[0])

    def _error(self, arrays: Sequence[NumpyArray], order: int) -> float:
        """The largest relative error of a component, as a root mean square over the rows."""
        one = np.arange(len(self.sample))
        ranges = self._ranges(np.stack([one, one + 1], 1), self._met(order, self.sample))
        found = NUMPY.to_numpy(self.fold.run(NUMPY, self._of_sample(arrays), ranges)[0])
        error = np.sqrt(np.square(found - self.exact).sum(0))
        size = np.sqrt(np.square(self.exact).sum(0))
        with np.errstate(all="ignore"):
            relative = np.where(error == 0, 0.0, error / size)
        return float(relative.max(initial=0.0)) if np.isfinite(relative).all() else np.inf


def _same(x: NumpyArray, y: NumpyArray) -> bool:
    """Whether two arrays are the same memory, seen in the same way."""
    kinds = (x.shape, x.strides, x.dtype) == (y.shape, y.strides, y.dtype)
    return kinds and x.__array_interface__["data"] == y.__array_interface__["data"]
