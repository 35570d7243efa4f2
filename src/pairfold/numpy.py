"""The names of `pykeops.numpy`: reductions of NumPy arrays.

Everything that PyKeOps documents of them works; what it does not (names inside its classes, raw
results) is in `pykeops.numpy` itself, as `pairfold.dropin` provides it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, SupportsIndex

from . import signatures as _signatures
from .frontends import generic as _generic
from .later import LAZY, when_used

if TYPE_CHECKING:
    from . import cluster as cluster
    from .frontends.complextensor import ComplexLazyTensor as ComplexLazyTensor
    from .frontends.lazytensor import LazyTensor as LazyTensor
    from .frontends.lazytensor import Pm as Pm
    from .frontends.lazytensor import Var as Var
    from .frontends.lazytensor import Vi as Vi
    from .frontends.lazytensor import Vij as Vij
    from .frontends.lazytensor import Vj as Vj
    from .frontends.lazytensor import where as where
    from .frontends.together import together as together


class Genred(_signatures.Genred):
    """A reduction of NumPy arrays from a formula string; the arguments are PyKeOps'.

    >>> import numpy as np
    >>> product = Genred("x*y", ["x = Vi(1)", "y = Vj(1)"], axis=1)
    >>> product(np.ones((2, 1)), np.ones((5, 1))).tolist()
    [[5.0], [5.0]]
    """

    library = "numpy"


class KernelSolve(_signatures.KernelSolve):
    """Solutions of (alpha Id + K) a = b for NumPy arrays; see `pairfold.KernelSolve`.

    >>> import numpy as np
    >>> solve = KernelSolve("Exp(-SqDist(x,y))*b", ["x=Vi(1)", "y=Vj(1)", "b=Vj(1)"], "b", axis=1)
    >>> x = np.array([[0.0], [9.0]])
    >>> solve(x, x, np.ones((2, 1)), alpha=1.0).round(4).tolist()
    [[0.5], [0.5]]
    """

    library = "numpy"

    def __init__(
        self,
        formula: str,
        aliases: Sequence[str],
        varinvalias: str,
        axis: int = 0,
        dtype: object = None,
        opt_arg: SupportsIndex | None = None,
        dtype_acc: str = "auto",
        use_double_acc: bool = False,
        sum_scheme: str = "auto",
        enable_chunks: bool = True,
        rec_multVar_highdim: object = None,
        use_fast_math: bool = True,
        cuda_type: object = None,
    ) -> None:
        super().__init__(
            formula,
            aliases,
            varinvalias,
            axis,
            dtype_acc,
            use_double_acc,
            sum_scheme,
            enable_chunks,
            rec_multVar_highdim,
            dtype,
            cuda_type,
            use_fast_math,
            opt_arg,
        )


generic_sum, generic_logsumexp, generic_argmin, generic_argkmin = (
    _generic.generic(name, Genred) for name in _generic.NAMES
)

if not TYPE_CHECKING:  # to a type checker, a name that is not above is none
    __getattr__ = when_used(__name__, LAZY)

__all__ = [
    "ComplexLazyTensor",
    "Genred",
    "KernelSolve",
    "LazyTensor",
    "Pm",
    "Var",
    "Vi",
    "Vij",
    "Vj",
    "cluster",
    "generic_argkmin",
    "generic_argmin",
    "generic_logsumexp",
    "generic_sum",
    "together",
    "where",
]


def __dir__() -> list[str]:
    return sorted({*__all__, *LAZY})
