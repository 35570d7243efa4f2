"""The names of `pykeops.numpy`: reductions of NumPy arrays."""

from __future__ import annotations

from .frontends import cluster
from .frontends import generic as _generic
from .frontends import genred as _genred
from .frontends.complextensor import ComplexLazyTensor
from .frontends.lazytensor import LazyTensor, Pm, Var, Vi, Vj


class Genred(_genred.Genred):
    """A reduction of NumPy arrays from a formula string; the arguments are `pairfold.Genred`'s.

    >>> import numpy as np
    >>> product = Genred("x*y", ["x = Vi(1)", "y = Vj(1)"], axis=1)
    >>> product(np.ones((2, 1)), np.ones((5, 1))).tolist()
    [[5.0], [5.0]]
    """

    library = "numpy"


generic_sum, generic_logsumexp, generic_argmin, generic_argkmin = (
    _generic.generic(name, Genred) for name in _generic.NAMES
)

__all__ = [
    "ComplexLazyTensor",
    "Genred",
    "LazyTensor",
    "Pm",
    "Var",
    "Vi",
    "Vj",
    "cluster",
    "generic_argkmin",
    "generic_argmin",
    "generic_logsumexp",
    "generic_sum",
]
