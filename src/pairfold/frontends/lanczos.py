"""What the coefficients of conjugate gradients say of a system, and whether to go on.

Step sizes and ratios of gains are the entries of Lanczos' tridiagonal matrix, whose extreme
eigenvalues approach those of the operator from within (Saad, Iterative methods for sparse linear
systems, section 6.7). From them follow an estimate of the condition, and how small rounding lets a
residual become.

Residuals may stand still for hundreds of iterations and then fall, so that alone is no reason to
stop. It is one where theory forbids it, or where rounding is larger than what is asked for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]

CHECK = 16  # iterations from one look at progress to the next
STANDING = 48  # iterations without progress after which the coefficients are read
_LONG = 8 * STANDING  # iterations without progress after which a forecast is believed
_SHIFTS = 64
_MOST = 4096  # rows of a matrix that are looked at: the last ones


@dataclass(frozen=True)
class Outlook:
    """What is known of one right-hand side after some iterations without progress.

    Args:
        stalled: how many.
        condition: the estimated condition of the (preconditioned) operator.
        floor: the residual below which rounding dominates, from the solution so far.
        forecast: the same, if what is left of the residual belongs to the least eigenvalues.
        begun: the residual at the start, |b|.
        wanted: the residual to reach.
        rounding: the relative error of one operation.
    """

    stalled: int
    condition: float
    floor: float
    forecast: float
    begun: float
    wanted: float
    rounding: float

    @property
    def hopeless(self) -> bool:
        """Whether to stop.

        Conjugate gradients reduce the energy of the error by e in sqrt(condition) / 2 iterations,
        and it bounds the residual up to the condition of the system: sixteen such periods cover
        1e14. Computed residuals may fall below the level of rounding while true ones do not, so
        that level must be as large as b, or progress absent for long.
        """
        if self.stalled >= STANDING + 8 * math.sqrt(self.condition):
            return True
        if self.stalled >= _LONG:
            singular = self.condition * self.rounding > 1
            return singular or max(self.floor, self.forecast) > 10 * self.wanted
        return self.stalled >= 2 * STANDING and self.floor > self.begun


def tridiagonal(steps: Sequence[float], ratios: Sequence[float]) -> tuple[Numbers, Numbers]:
    """Lanczos' matrix as its diagonal and the squares beside it, from m steps and m - 1 ratios."""
    inverse = 1 / np.asarray(steps, np.float64)
    ratio = np.asarray(ratios, np.float64)[: len(inverse) - 1]
    diagonal = inverse.copy()
    diagonal[1:] += ratio * inverse[:-1]
    return diagonal[-_MOST:], (ratio * inverse[:-1] ** 2)[1 - _MOST :]


def extremes(diagonal: Numbers, squares: Numbers) -> tuple[float, float]:
    """The least and the largest eigenvalue of a positive tridiagonal matrix, to one percent.

    By counts of the eigenvalues below a shift, many shifts at a time, logarithmically spaced.

    >>> least, largest = extremes(np.array([2.0, 2.0]), np.array([1.0]))
    >>> round(least, 1), round(largest, 1)
    (1.0, 3.0)
    """
    beside = np.sqrt(np.concatenate([[0.0], squares, [0.0]]))
    top = float((diagonal + beside[:-1] + beside[1:]).max())
    found: list[float] = []
    for wanted in (1, len(diagonal)):
        low, high = math.log(top * 1e-20), math.log(top) + 1e-9
        while high - low > 0.01:
            shifts = np.linspace(low, high, _SHIFTS)
            place = int(np.argmax(_below(diagonal, squares, np.exp(shifts)) >= wanted))
            low, high = float(shifts[max(place - 1, 0)]), float(shifts[place])
            if place == 0:
                break
        found.append(math.exp(high))
    return found[0], found[1]


def _below(diagonal: Numbers, squares: Numbers, shifts: Numbers) -> NDArray[np.int64]:
    """How many eigenvalues lie below each shift: the negative pivots of the shifted matrix."""
    tiny = np.finfo(np.float64).tiny
    pivots = diagonal[0] - shifts
    count = (pivots < 0).astype(np.int64)
    for entry, square in zip(diagonal[1:].tolist(), squares.tolist(), strict=True):
        pivots = (entry - shifts) - square / np.where(pivots == 0, tiny, pivots)
        count += pivots < 0
    count[-1] = len(diagonal)  # beyond all of them, whatever rounding says
    return count
