"""`Genred` and `KernelSolve` with the arguments that PyKeOps documents, in its order.

Those that choose between PyKeOps' ways of computing are hints: nothing depends on them.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Sequence
from typing import Any, SupportsIndex

from .frontends import genred as _genred
from .frontends import solve as _solve


class _Hinted:
    """What remembers the hints that it was given, also in files."""

    hints: dict[str, Any]

    def __reduce__(self) -> tuple[Any, ...]:
        whole: Any = super().__reduce__()
        rebuild, (kind, options) = whole
        return rebuild, (kind, {**options, **self.hints})


class Genred(_Hinted, _genred.Genred):
    """A reduction from a formula string; see `pairfold.Genred`.

    Args:
        formula, aliases, reduction_op, axis, opt_arg, formula2, dtype_acc, use_double_acc,
            sum_scheme, where, method, rtol: as for `pairfold.Genred`.
        dtype, cuda_type: deprecated; the dtype is that of the arrays.
        enable_chunks, rec_multVar_highdim, use_fast_math: hints, without effect.

    >>> import numpy as np
    >>> product = Genred("x*y", ["x = Vi(1)", "y = Vj(1)"], "Sum", 1, enable_chunks=False)
    >>> product(np.ones((1, 1)), np.ones((5, 1))).tolist()
    [[5.0]]

    Raises:
        FormulaError, OptionError: as `pairfold.Genred`.
    """

    def __init__(
        self,
        formula: str,
        aliases: Sequence[str],
        reduction_op: str = "Sum",
        axis: int = 0,
        dtype: object = None,
        opt_arg: SupportsIndex | None = None,
        formula2: str | None = None,
        cuda_type: object = None,
        dtype_acc: str = "auto",
        use_double_acc: bool = False,
        sum_scheme: str = "auto",
        enable_chunks: bool = True,
        rec_multVar_highdim: object = False,
        use_fast_math: bool = True,
        where: object = None,
        method: str = "exact",
        rtol: float | None = None,
    ) -> None:
        if dtype or cuda_type:
            _warn("dtype and cuda_type are ignored: the dtype is that of the arrays")
        super().__init__(
            formula,
            aliases,
            reduction_op,
            axis,
            opt_arg=opt_arg,
            formula2=formula2,
            dtype_acc=dtype_acc,
            use_double_acc=use_double_acc,
            sum_scheme=sum_scheme,
            where=where,
            method=method,
            rtol=rtol,
        )
        self.hints = {
            "enable_chunks": enable_chunks,
            "rec_multVar_highdim": rec_multVar_highdim,
            "use_fast_math": use_fast_math,
        }


class KernelSolve(_Hinted, _solve.KernelSolve):
    """Solutions of (alpha Id + K) a = b; see `pairfold.KernelSolve`.

    Args:
        formula, aliases, varinvalias, axis, dtype_acc, use_double_acc, sum_scheme: as for
            `pairfold.KernelSolve`.
        dtype, cuda_type, opt_arg: deprecated; the dtype is that of the arrays.
        enable_chunks, rec_multVar_highdim, use_fast_math: hints, without effect.

    The order is that of `pykeops.torch`; `pairfold.numpy.KernelSolve` has the other.

    Raises:
        FormulaError, OptionError: as `pairfold.KernelSolve`.
    """

    def __init__(
        self,
        formula: str,
        aliases: Sequence[str],
        varinvalias: str,
        axis: int = 0,
        dtype_acc: str = "auto",
        use_double_acc: bool = False,
        sum_scheme: str = "auto",
        enable_chunks: bool = True,
        rec_multVar_highdim: object = None,
        dtype: object = None,
        cuda_type: object = None,
        use_fast_math: bool = True,
        opt_arg: SupportsIndex | None = None,
    ) -> None:
        if dtype or cuda_type or opt_arg:
            _warn("dtype, cuda_type and opt_arg are ignored: the dtype is that of the arrays")
        super().__init__(
            formula,
            aliases,
            varinvalias,
            axis,
            dtype_acc=dtype_acc,
            use_double_acc=use_double_acc,
            sum_scheme=sum_scheme,
        )
        self.hints = {
            "enable_chunks": enable_chunks,
            "rec_multVar_highdim": rec_multVar_highdim,
            "use_fast_math": use_fast_math,
        }


def _warn(text: str) -> None:
    """Warn of the line outside pairfold that a class was called in."""
    level, frame = 1, inspect.currentframe()
    while frame is not None and frame.f_globals.get("__name__", "").startswith("pairfold."):
        level, frame = level + 1, frame.f_back
    warnings.warn(text, DeprecationWarning, stacklevel=level)
