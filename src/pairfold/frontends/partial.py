"""Reductions in parts: states of some columns, merged, and finished.

`partial` runs over the columns of its arrays on whatever backend they are for; its results may be
kept, sent to another process, and merged in any order. Slabs of columns that do not fit into a
device's memory are computed so.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..arrays.library import ArrayLibrary
from ..core.library import Array
from ..ops import states
from ..ops.states import States
from .fold import Fold
from .ranges import Ranges


def partial(
    fold: Fold,
    library: ArrayLibrary,
    arrays: Sequence[Array],
    start: int = 0,
    ranges: Ranges | None = None,
) -> States:
    """The states of all rows after these columns, of which the first is number `start`.

    New arrays of float64, beside the arguments: (..., rows, components) each, as `ops.states` says.

    Raises:
        ArgumentError, ArrayTypeError, DTypeError, DeviceError, ShapeError, RangeError: what does
            not fit.
    """
    given = _of_states(fold).run(library, arrays, ranges)
    return states.numbered(library, fold.row, given, start)


def merged(fold: Fold, library: ArrayLibrary, a: States, b: States) -> States:
    """The states after the columns of both."""
    return states.merged(library, fold.row, a, b, fold.length)


def finished(fold: Fold, library: ArrayLibrary, given: States, columns: int, dtype: str) -> States:
    """What `fold.run` gives for arrays of a dtype, after so many columns in all."""
    return states.finished(library, fold.row, given, columns, dtype)


def widths(fold: Fold) -> tuple[int, ...]:
    """The number of components of each array of the states."""
    return _of_states(fold).widths


def _of_states(fold: Fold) -> Fold:
    return fold.variant(states.states_of(fold.reduction))
