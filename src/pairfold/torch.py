"""The names of `pykeops.torch`: reductions of torch tensors, differentiable to any order.

Everything that PyKeOps documents of them works; what it does not (names inside its classes, raw
results) is in `pykeops.torch` itself, as `pairfold.dropin` provides it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import signatures as _signatures
from .frontends import generic as _generic
from .frontends import torch as _torch  # asking for this module asks for torch
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
    """A reduction of torch tensors from a formula string, differentiable to any order.

    The arguments are PyKeOps'; results carry a graph where an argument asks for
    gradients. Forward mode and the transforms of `torch.func` work too.

    >>> import torch
    >>> squared = Genred("SqDist(x,y)", ["x = Vi(2)", "y = Vj(2)"], axis=1)
    >>> x = torch.zeros(1, 2, requires_grad=True)
    >>> torch.autograd.grad(squared(x, torch.ones(4, 2)).sum(), x)
    (tensor([[-8., -8.]]),)
    """

    library = "torch"


class KernelSolve(_signatures.KernelSolve):
    """Solutions of (alpha Id + K) a = b for torch tensors; see `pairfold.KernelSolve`.

    Differentiable in b, alpha and every argument of the formula, to any order; forward mode and
    the transforms of `torch.func` work too.

    >>> import torch
    >>> solve = KernelSolve("Exp(-SqDist(x,y))*b", ["x=Vi(1)", "y=Vj(1)", "b=Vj(1)"], "b", axis=1)
    >>> x, alpha = torch.tensor([[0.0], [9.0]]), torch.tensor(1.0, requires_grad=True)
    >>> torch.autograd.grad(solve(x, x, torch.ones(2, 1), alpha=alpha).sum(), alpha)
    (tensor(-0.5000),)
    """

    library = "torch"


FoldFunction = _torch.FoldFunction


def register_operators() -> None:
    """Make the operators known that graphs of torch call: `pairfold::reduce` and `gradients`.

    Calls of reductions do so where they are needed. Programs that load a graph, as
    `torch.export.load` does, before they call one, do so first.

    >>> register_operators()
    >>> import torch
    >>> torch.ops.pairfold.reduce.default.name()
    'pairfold::reduce'
    """
    _torch.operators()


generic_sum, generic_logsumexp, generic_argmin, generic_argkmin = (
    _generic.generic(name, Genred) for name in _generic.NAMES
)

if not TYPE_CHECKING:  # to a type checker, a name that is not above is none
    __getattr__ = when_used(__name__, LAZY)

__all__ = [
    "ComplexLazyTensor",
    "FoldFunction",
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
    "register_operators",
    "together",
    "where",
]


def __dir__() -> list[str]:
    return sorted({*__all__, *LAZY})
