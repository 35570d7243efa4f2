"""Results in arrays of users: checked, and filled."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from ..arrays.checks import check_out
from ..arrays.library import ArrayLibrary
from ..core.library import Array, Results
from ..errors import ShapeError

if TYPE_CHECKING:
    from .reduction import FormulaReduction


def fill(library: ArrayLibrary, out: Results, found: Results, fold: FormulaReduction) -> Results:
    """Copy results that are more than one plain array into the user's.

    Of several reductions each has its own, or None: then what was found is given.

    Raises:
        ShapeError, DTypeError: what does not fit.
    """
    if fold.joint:
        targets = cast("tuple[Results | None, ...]", out)
        parts = zip(fold.apart, targets, cast("tuple[Results, ...]", found), strict=True)
        return tuple(
            own if target is None else fill(library, target, own, part)
            for part, target, own in parts
        )
    for array, target in targets_of(library, out, found, fold):
        target[...] = array
    return out


def targets_of(
    library: ArrayLibrary, out: Results, found: Results, fold: FormulaReduction
) -> list[tuple[Array, Array]]:
    """Each result and the user's array for it.

    Raises:
        ShapeError, DTypeError: what does not fit.
    """
    arrays = cast("tuple[Array, ...]", found if isinstance(found, tuple) else (found,))
    targets = cast("tuple[Array, ...]", out if isinstance(out, tuple) else (out,))
    if len(arrays) != len(targets):
        shapes = ", ".join(str(tuple(array.shape)) for array in arrays)
        raise ShapeError(
            f"out must be a tuple of {len(arrays)} arrays",
            found=f"{len(targets)} arrays",
            hint=f"arrays of shapes {shapes}",
        )
    for array, target in zip(arrays, targets, strict=True):
        check_out(library, target, tuple(array.shape), library.dtype(array), array)
    return list(zip(arrays, targets, strict=True))
