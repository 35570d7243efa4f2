"""Results compared with those of the interpreter of kernels, where the setting `check` is 2."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..arrays.library import ArrayLibrary
from ..core.dtypes import DTYPES
from ..core.library import Array
from ..errors import InternalError
from .ranges import Ranges

if TYPE_CHECKING:
    from .reduction import Binding, FormulaReduction


def compare(
    fold: FormulaReduction,
    library: ArrayLibrary,
    arrays: Sequence[Array],
    results: Sequence[Array],
    binding: Binding,
    ranges: Ranges | None,
) -> None:
    """Raise where results are not those of the reference.

    Raises:
        InternalError: naming the first that differs.
    """
    wanted = fold.reference(library, arrays, ranges)
    for result, array, want in zip(fold.results, results, wanted, strict=True):
        if result.kind != "value":
            # Near ties may be decided by rounding; the values themselves are compared. States
            # depend on how sums are cut.
            continue
        got = np.asarray(library.to_numpy(array), np.float64)
        finite = np.abs(want[np.isfinite(want)])
        scale = finite.max(initial=0) or 1.0
        eps = DTYPES[binding.dtype].eps
        # What is left out of a sum is less than `rtol` of it.
        bound = (100 * eps * (binding.columns**0.5 + 1) + 2 * (fold.accuracy.rtol or 0)) * scale
        same = np.isclose(got, want, rtol=0, atol=bound, equal_nan=True)
        if not same.all():
            where = tuple(int(n[0]) for n in np.nonzero(~same))
            raise InternalError(
                "this is a bug in pairfold: machine code and reference differ",
                where=str(fold.formula),
                found=f"{got[where]} instead of {want[where]} at {where}, dtype {binding.dtype}",
            )
