"""PyKeOps' raw results: what its `out=` argument receives, before any finishing.

Layouts, one row per row of the result: LogSumExp [m, s...]; SumSoftMaxWeight [m, total, sums];
indices as numbers of the data's dtype; values beside indices; lists place after place, and with
both results (place, value or index, component).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..arrays.checks import check_out
from ..arrays.library import ArrayLibrary
from ..core.library import Array
from .fold import Fold
from .ranges import Ranges

_LOGS = ("LogSumExp", "LogSumExpWeight")


def _width(fold: Fold) -> int:
    """Numbers per row of the raw result."""
    if fold.reduction in _LOGS:
        return 1 + fold.dim
    if fold.reduction == "SumSoftMaxWeight":
        return 2 + fold.dim
    return sum(fold.widths)


def is_raw(fold: Fold, library: ArrayLibrary, arrays: Sequence[Array], out: Any) -> bool:
    """Whether `out` has the shape of the raw result and not that of the finished one.

    Raises:
        ArrayTypeError, DeviceError: `out` is no plain memory.
    """
    if not library.owns(out):
        return False
    library.check_kind(out, "out")
    binding = fold.binding(library, arrays)
    if tuple(out.shape) != (*binding.out_shapes[0][:-1], _width(fold)):
        return False
    lists = fold.row.listed and fold.dim > 1
    joined = len(fold.widths) > 1 and not fold.row.joined
    numbered = fold.row.results[0].kind == "index" and library.dtype(out) == binding.dtype
    other = fold.reduction in (*_LOGS, "SumSoftMaxWeight")
    return lists or joined or numbered or other


def fill_raw(
    fold: Fold,
    library: ArrayLibrary,
    arrays: Sequence[Array],
    out: Any,
    ranges: Ranges | None = None,
) -> None:
    """Write the raw result to `out`.

    Raises:
        DTypeError, ShapeError: `out` cannot hold it.
    """
    check_out(library, out, tuple(out.shape), library.dtype(arrays[0]), arrays[0])
    shift = "Max_SumShiftExp"
    if fold.reduction in _LOGS:
        parts = fold.variant(shift if fold.weight is None else f"{shift}Weight").run(
            library, arrays, ranges
        )
    elif fold.reduction == "SumSoftMaxWeight":
        sums = fold.variant(f"{shift}Weight").run(library, arrays, ranges)[1]
        parts = (*fold.variant(shift).run(library, arrays, ranges), sums)
    else:
        parts = fold.run(library, arrays, ranges)
    if fold.row.listed and len(parts) > 1:
        for n, part in enumerate(parts):
            found = part.reshape((*out.shape[:-1], fold.length, fold.dim))
            for place in range(fold.length):
                start = (2 * place + n) * fold.dim
                out[..., start : start + fold.dim] = found[..., place, :]
        return
    start = 0
    for part in parts:
        out[..., start : start + part.shape[-1]] = part
        start += part.shape[-1]
