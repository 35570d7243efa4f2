"""Raw results: what PyKeOps' modules exchange before a reduction is finished.

A whole reduction is one text there, `Name_Reduction(formula,K,category,weight)`, and its raw
result one array, with a row for each row of the result: LogSumExp's is [m, s...],
SumSoftMaxWeight's [m, total, sums]; indices are numbers of the data's dtype, and values stand
beside them; a list's are place after place, and with both results (place, value or index,
component). An array that is given as `out` may have this layout.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..arrays.checks import check_out
from ..arrays.library import ArrayLibrary
from ..arrays.opaque import opaque
from ..arrays.registry import library_for
from ..core.library import Array, UserArray
from ..errors import FormulaError, OptionError
from ..frontends.genred import Genred, call_fold, checked_reduction
from ..frontends.leaves import library_from
from ..frontends.reduction import FormulaReduction
from ..ops.reductions import REDUCTIONS
from ..ops.table import OPERATIONS, constant
from .common import get_tools
from .options import OptionalFlags, Sums

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ..frontends.devices import CallOptions

_LOGS = ("LogSumExp", "LogSumExpWeight")
_SOFT = ("SumSoftMaxWeight", "SoftMax")
_SHIFTED = "Max_SumShiftExp"


def preprocess(reduction_op: str, formula2: str | None) -> tuple[str, str | None]:
    """The reduction whose raw result a reduction is finished from, and its weight.

    >>> preprocess("SumSoftMaxWeight", "b")
    ('Max_SumShiftExpWeight', 'Concat(IntCst(1),b)')

    Raises:
        OptionError: an unknown reduction, or a weight that is missing.
    """
    if reduction_op == "LogSumExpWeight" and not formula2:
        raise OptionError("LogSumExpWeight needs formula2, the weight")
    if reduction_op in _SOFT:
        return f"{_SHIFTED}Weight", f"Concat(IntCst(1),{formula2})"
    if reduction_op in _LOGS:
        return _SHIFTED + ("Weight" if formula2 else ""), formula2
    checked_reduction(reduction_op)
    return reduction_op, formula2


def postprocess(
    out: UserArray, binding: str, reduction_op: str, nout: int, opt_arg: int | None, dtype: str
) -> UserArray:
    """The finished result of a raw one; see `Genred.__call__` for its shape.

    Args:
        out: the raw result, (..., M, width).
        binding: "numpy" or "torch".
        reduction_op: the name that the user gave.
        nout, dtype: what PyKeOps passes; not needed.
        opt_arg: K, for lists.
    """
    tools = get_tools(binding)
    name = reduction_op if reduction_op in (*_LOGS, *_SOFT) else checked_reduction(reduction_op)[0]
    if name in _SOFT:
        return out[..., 2:] / out[..., 1:2]
    if name in _LOGS:
        return out[..., :1] + tools.log(out[..., 1:])
    row = REDUCTIONS[name]
    kinds = [result.kind for result in row.results]
    if row.top_k:
        parts = out.reshape((*out.shape[:-1], opt_arg, len(kinds), -1))
        parts = [parts[..., n, :] for n in range(len(kinds))]
        parts = [part[..., 0] if part.shape[-1] == 1 else part for part in parts]
    elif len(kinds) > 1 and not row.joined:
        halves = out.reshape((*out.shape[:-1], len(kinds), -1))
        parts = [halves[..., n, :] for n in range(len(kinds))]
    else:
        return tools.long(out) if kinds[0] == "index" else out
    found = [
        tools.long(part) if kind == "index" else part
        for part, kind in zip(parts, kinds, strict=True)
    ]
    return found[0] if len(found) == 1 else tuple(found)


def raw_fold(fold: FormulaReduction) -> FormulaReduction:
    """The fold whose results, side by side, are the raw result of another."""
    weight = fold.weight
    name, _ = preprocess(fold.reduction, None if weight is None else "w")
    if name == fold.reduction:
        return fold
    if weight is not None and fold.reduction in _SOFT:
        weight = OPERATIONS["Concat"](constant(1), weight)
    given = (fold.formula, fold.variables, name, fold.kept, weight)
    return fold.derived(("raw",), lambda: fold.with_formula(*given))


def side_by_side(
    fold: FormulaReduction, library: ArrayLibrary, parts: Sequence[Array], like: Array
) -> Array:
    """The results of a fold as one array of the dtype of another; derivatives pass."""
    parts = [library.cast_like(part, like) for part in parts]
    concatenate = library.functions().concatenate
    if not fold.row.top_k:
        return parts[0] if len(parts) == 1 else concatenate(parts, -1)
    lists = parts if fold.dim > 1 else [part[..., None] for part in parts]  # (..., K, D)
    whole = concatenate([part[..., None, :] for part in lists], -2)
    return whole.reshape((*whole.shape[:-3], -1))


def _may_be_raw(fold: FormulaReduction, library: ArrayLibrary, out: UserArray) -> bool:
    """Whether a raw result looks other than a finished one, and `out` is as wide."""
    library.check_kind(out, "out")
    lists = fold.row.top_k and fold.dim > 1
    joined = len(fold.widths) > 1 and not fold.row.joined
    numbered = fold.row.results[0].kind == "index" and library.dtype(out) != "int64"
    shifted = fold.reduction in (*_LOGS, *_SOFT)
    width = sum(raw_fold(fold).widths)
    return (lists or joined or numbered or shifted) and tuple(out.shape[-1:]) == (width,)


@opaque
def call_raw(
    fold: FormulaReduction,
    args: Sequence[UserArray],
    name: str | None,
    backend: str = "auto",
    device_id: int | None = -1,
    ranges: object = None,
    out: UserArray = None,
) -> UserArray:
    """A fold called as `call_fold` does; where `out` has the raw layout it is filled so.

    The finished result is then returned beside it.

    Raises:
        ArgumentError, ArrayTypeError, ShapeError, DTypeError, DeviceError, OptionError: what
            does not fit.
    """
    library = library_for(out)
    if library is None or not _may_be_raw(fold, library, out):
        return call_fold(fold, args, name, backend, device_id, ranges, out)
    found: UserArray = call_fold(fold, args, name, backend, device_id, ranges)
    first = found[0] if isinstance(found, tuple) else found
    lists = fold.row.top_k and fold.dim > 1  # (..., K, D)
    rows = tuple(first.shape[: -2 if lists else -1])
    if (*rows, out.shape[-1]) != tuple(out.shape):  # as wide by chance
        return call_fold(fold, args, name, backend, device_id, ranges, out)
    like = next(x for x in args if library.owns(x))
    check_out(library, out, tuple(out.shape), library.dtype(like), like)
    with library.no_graph():
        parts = call_fold(raw_fold(fold), args, name, backend, device_id, ranges)
        parts = parts if isinstance(parts, tuple) else (parts,)
        out[...] = side_by_side(fold, library, parts, like)
    return found


class _SideBySide(Genred):
    """A reduction that can give its results as one array."""

    def side_by_side(self, *args: UserArray, **options: Unpack[CallOptions]) -> UserArray:
        """What a call gives, as one array of the dtype of the first argument."""
        found = self(*args, **options)
        parts = found if isinstance(found, tuple) else (found,)
        return side_by_side(self._fold, library_from(args[0]), parts, args[0])


class RawReduction:
    """A whole reduction from its text, whose results are raw; tensors carry their graph.

    >>> import numpy as np
    >>> logs = RawReduction("LogSumExp_Reduction(x*y,0)", ["x = Vi(1)", "y = Vj(1)"], "numpy")
    >>> logs(np.zeros((1, 1)), np.zeros((3, 1))).tolist()
    [[0.0, 3.0]]

    Raises:
        FormulaError: no text of a reduction. OptionError: an unknown one.
    """

    def __init__(
        self,
        text: str,
        aliases: Sequence[str],
        library: str,
        flags: OptionalFlags | None = None,
    ) -> None:
        name, _, rest = text.replace(" ", "").partition("_Reduction(")
        parts = _split(rest[:-1]) if rest.endswith(")") else []
        listed = name in REDUCTIONS and REDUCTIONS[name].top_k
        if len(parts) not in ((3,) if listed else (2, 3)) or parts[1 + listed] not in ("0", "1"):
            raise FormulaError(
                "this is no text of a reduction",
                found=text,
                hint="Sum_Reduction(x*y,0): formula, K for lists, kept index, weight",
            )
        self.formula, self.category = parts[0], int(parts[1 + listed])
        weight = parts[2] if len(parts) > 2 and not listed else None
        self.name, weight = preprocess(name, weight)
        given: Sums = {}
        if flags and "dtype_acc" in flags:
            given["dtype_acc"] = flags["dtype_acc"]
        if flags and "sum_scheme" in flags:
            given["sum_scheme"] = flags["sum_scheme"]
        self.genred = _SideBySide(
            parts[0],
            list(aliases),
            self.name,
            1 - self.category,
            opt_arg=int(parts[1]) if listed else None,
            formula2=weight,
            **given,
        )
        self.genred.library = library

    def __call__(
        self, *args: UserArray, out: UserArray = None, **options: Unpack[CallOptions]
    ) -> UserArray:
        """The raw result; written to `out` if that is given, and then returned too."""
        raw = self.genred.side_by_side(*args, **options)
        if out is None:
            return raw
        out[...] = raw
        return out


def _split(text: str) -> list[str]:
    """The parts between the commas that are in no parentheses."""
    parts, depth = [""], 0
    for letter in text:
        depth += letter in "([{"
        depth -= letter in ")]}"
        if letter == "," and not depth:
            parts.append("")
        else:
            parts[-1] += letter
    return parts
