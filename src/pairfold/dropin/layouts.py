"""Raw results: what PyKeOps' modules exchange before a reduction is finished.

A whole reduction is one text there, `Name_Reduction(formula,K,category,weight)`, and its raw
result one array: LogSumExp's is [m, s], a list's one place after the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from ..arrays.registry import library_for
from ..core.library import UserArray
from ..errors import FormulaError, OptionError
from ..frontends.devices import CallOptions
from ..frontends.genred import Genred, checked_reduction
from ..ops.reductions import REDUCTIONS
from .common import get_tools
from .options import OptionalFlags, Sums

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
    if row.listed:
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
        listed = name in REDUCTIONS and REDUCTIONS[name].listed
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
        self.genred = _genred(library)(
            parts[0],
            list(aliases),
            self.name,
            1 - self.category,
            opt_arg=int(parts[1]) if listed else None,
            formula2=weight,
            **given,
        )

    def __call__(self, *args: UserArray, out: UserArray = None, **options: object) -> UserArray:
        """The raw result; written to `out` if that is given, and then returned too."""
        row = REDUCTIONS[checked_reduction(self.name)[0]]
        found = self.genred(*args, **cast("CallOptions", options))
        parts = found if isinstance(found, tuple) else (found,)
        library = library_for(parts[0])
        assert library is not None
        parts = [library.cast_like(part, args[0]) for part in parts]
        axis = -1
        if row.listed:  # (..., K, D), or (..., K) where D is 1
            most = max(array.ndim for array in args)
            wide = [part if len(part.shape) > most else part[..., None] for part in parts]
            parts, axis = [part[..., None, :] for part in wide], -2
        raw = parts[0] if len(parts) == 1 else library.functions().concatenate(parts, axis)
        if row.listed:
            raw = raw.reshape((*raw.shape[:-3], -1))
        if out is None:
            return raw
        out[...] = raw
        return out


def _genred(library: str) -> type[Genred]:
    from importlib import import_module

    return import_module(f"pairfold.{library}").Genred


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
