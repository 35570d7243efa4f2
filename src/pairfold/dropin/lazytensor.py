"""PyKeOps' lazy tensors: pairfold's, with the internal names of PyKeOps' classes.

One class for every array library, as in pairfold. What operations make of one is one again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import brief
from ..frontends import complextensor, lazytensor
from .internals import Internals

if TYPE_CHECKING:
    from ..frontends.foreign import Lazy


class GenericLazyTensor(Internals):
    """What lazy tensors of real and of complex numbers have in common."""

    @classmethod
    def class_for(cls, is_complex: bool) -> type[Lazy]:
        """The class of results: of complex, or of real, numbers."""
        return ComplexLazyTensor if is_complex else LazyTensor


class LazyTensor(GenericLazyTensor, lazytensor.LazyTensor):
    """An array (..., M, N, D) that is a formula of arrays; see `pairfold.LazyTensor`.

    >>> import numpy as np
    >>> x, y = LazyTensor(np.zeros((3, 1, 2))), LazyTensor(np.ones((1, 4, 2)))
    >>> x.binary(y, "Subtract").unary("Exp", dimres=2).sum(axis=1).shape
    (3, 2)
    """


class ComplexLazyTensor(GenericLazyTensor, complextensor.ComplexLazyTensor):
    """An array (..., M, N, D) of complex numbers; see `pairfold.ComplexLazyTensor`."""


@brief
def Var(x_or_ind: Any, dim: int | None = None, cat: int | None = None) -> Any:
    """A variable; see `pairfold.torch.Var`.

    >>> Var(0, 3, 1).symbolic_variables
    ((0, 3, 1),)

    Raises:
        ArrayTypeError, ShapeError, OptionError, ArgumentError: what cannot be one.
    """
    found = lazytensor.Var(x_or_ind, dim, cat)
    return found._as(LazyTensor.class_for(found.is_complex))  # pyright: ignore[reportPrivateUsage]


def Vi(x_or_ind: Any, dim: int | None = None) -> Any:
    """A variable indexed by i; see `pairfold.Vi`."""
    return Var(x_or_ind, dim, 0)


def Vj(x_or_ind: Any, dim: int | None = None) -> Any:
    """A variable indexed by j; see `pairfold.Vj`."""
    return Var(x_or_ind, dim, 1)


def Pm(x_or_ind: Any, dim: int | None = None) -> Any:
    """A parameter; see `pairfold.Pm`."""
    return Var(x_or_ind, dim, 2)
