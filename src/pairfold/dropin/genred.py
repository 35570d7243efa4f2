"""PyKeOps' Genred and KernelSolve with what programs find inside: flags, texts, raw results."""

from __future__ import annotations

from typing import Any

from .. import signatures
from ..frontends.accuracy import Accuracy
from .layouts import call_raw
from .options import OptionalFlags


class Flags:
    """The attributes of PyKeOps' classes that tell how they were built."""

    accuracy: Accuracy
    hints: dict[str, Any]

    @property
    def optional_flags(self) -> OptionalFlags:
        """How sums are accumulated, and hints, which have no effect."""
        return {
            "dtype_acc": self.accuracy.dtype,
            "sum_scheme": self.accuracy.scheme,
            "use_fast_math": self.hints["use_fast_math"],
            "enable_chunks": self.hints["enable_chunks"],
        }

    @property
    def rec_multVar_highdim(self) -> Any:
        """The hint, as it was given."""
        return self.hints["rec_multVar_highdim"]


class Inside(Flags, signatures.Genred):
    """What PyKeOps' Genred has and does beside what is documented."""

    _compute = staticmethod(call_raw)

    @property
    def formula(self) -> str:
        """The whole reduction as one text."""
        parts = (self._text, self.opt_arg, 1 - self.axis, self.formula2)
        inner = ",".join(str(part) for part in parts if part not in (None, ""))
        return f"{self.reduction_op}_Reduction({inner})"


class Genred(Inside):
    """A reduction of arrays of any library from a formula string.

    `out` may have the raw layout of PyKeOps' compiled code: it is filled so, and the finished
    result returned.

    >>> import numpy as np
    >>> logs = Genred("x*y", ["x = Vi(1)", "y = Vj(1)"], "LogSumExp", axis=1)
    >>> raw = np.empty((1, 2))
    >>> logs(np.zeros((1, 1)), np.zeros((3, 1)), out=raw).round(4).tolist(), raw.tolist()
    ([[1.0986]], [[0.0, 3.0]])
    >>> logs.formula
    'LogSumExp_Reduction(x*y,0)'
    """


class KernelSolve(Flags, signatures.KernelSolve):
    """Solutions of (alpha Id + K) a = b for arrays of any library; see `pairfold.KernelSolve`."""
