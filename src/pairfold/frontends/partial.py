"""Reductions in parts: states of some columns, merged, and finished.

`partial` runs over the columns of its arrays on whatever backend they are for; its results may be
kept, sent to another process, and merged in any order. Slabs of columns that do not fit into a
device's memory are computed so. The states of several reductions are those of each, one after the
other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from ..arrays.library import ArrayLibrary
from ..core.library import Array
from ..errors import UnsupportedError
from ..ops import states
from ..ops.states import States
from .ranges import Ranges
from .reduction import FormulaReduction


def partial(
    fold: FormulaReduction,
    library: ArrayLibrary,
    arrays: Sequence[Array],
    start: int = 0,
    ranges: Ranges | None = None,
) -> States:
    """The states of all rows after these columns, of which the first is number `start`.

    New arrays of float64, beside the arguments: (..., rows, components) each, as `ops.states` says.

    Raises:
        UnsupportedError: columns from another number than 0, and a formula that reads the numbers.
        ArgumentError, ArrayTypeError, DTypeError, DeviceError, ShapeError, RangeError: what does
            not fit.
    """
    if start and fold.kept.other in fold.counted_axes:
        raise UnsupportedError(
            "the states of some columns cannot be had of a formula that reads their numbers",
            found=f"columns from number {start} of {fold.formula}",
            hint="an array of the numbers in the place of the index variable",
        )
    found = _apart(fold, fold.of_states().run(library, arrays, ranges))
    return _joined(states.numbered(library, each.row, own, start) for each, own in found)


def merged(fold: FormulaReduction, library: ArrayLibrary, a: States, b: States) -> States:
    """The states after the columns of both."""
    both = zip(_apart(fold, a), _apart(fold, b), strict=True)
    return _joined(
        states.merged(library, each.row, own, other, each.length)
        for (each, own), (_, other) in both
    )


def finished(
    fold: FormulaReduction, library: ArrayLibrary, given: States, columns: int, dtype: str
) -> States:
    """What `fold.run` gives for arrays of a dtype, after so many columns in all."""
    return _joined(
        states.finished(library, each.row, own, columns, dtype) for each, own in _apart(fold, given)
    )


def widths(fold: FormulaReduction) -> tuple[int, ...]:
    """The number of components of each array of the states."""
    return fold.of_states().widths


def _apart(fold: FormulaReduction, given: States) -> Iterator[tuple[FormulaReduction, States]]:
    """Each reduction with its states."""
    left = iter(given)
    for each in fold.apart:
        yield each, tuple(islice(left, len(each.of_states().results)))


def _joined(parts: Iterable[States]) -> States:
    return tuple(array for part in parts for array in part)
