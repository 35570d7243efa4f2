"""The names of `pykeops.torch`, with what PyKeOps' classes have inside."""

from __future__ import annotations

from .. import torch as _documented
from ..frontends import generic as _generic
from .genred import Flags, Inside
from .lazytensor import ComplexLazyTensor, LazyTensor, Pm, Var, Vi, Vj


class Genred(Inside, _documented.Genred):
    """A reduction of torch tensors from a formula string; `out` may have PyKeOps' raw layout."""


class KernelSolve(Flags, _documented.KernelSolve):
    """Solutions of (alpha Id + K) a = b for torch tensors; see `pairfold.KernelSolve`."""


generic_sum, generic_logsumexp, generic_argmin, generic_argkmin = (
    _generic.generic(name, Genred) for name in _generic.NAMES
)

__all__ = [
    "ComplexLazyTensor",
    "Genred",
    "KernelSolve",
    "LazyTensor",
    "Pm",
    "Var",
    "Vi",
    "Vj",
    "generic_argkmin",
    "generic_argmin",
    "generic_logsumexp",
    "generic_sum",
]
