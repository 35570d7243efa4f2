"""Reductions of JAX arrays: operations of JAX's programs, under all of its transformations.

Programs call machine code of the CPU by XLA's foreign function interface; see `docs/jax.md`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import signatures as _signatures
from .frontends import generic as _generic
from .frontends import jax as _jax  # asking for this module asks for JAX
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
    """A reduction of JAX arrays from a formula string.

    It may be called under `jax.jit`, `grad`, `jvp`, `vmap`, `scan`, `checkpoint` and `shard_map`,
    in any order.

    >>> import jax
    >>> squared = Genred("SqDist(x,y)", ["x = Vi(2)", "y = Vj(2)"], axis=1)
    >>> x, y = jax.numpy.zeros((1, 2)), jax.numpy.ones((4, 2))
    >>> jax.jit(jax.grad(lambda x: squared(x, y).sum()))(x).tolist()
    [[-8.0, -8.0]]
    """

    library = "jax"


class KernelSolve(_signatures.KernelSolve):
    """Solutions of (alpha Id + K) a = b for JAX arrays; see `pairfold.KernelSolve`.

    Differentiable in b, alpha and every argument of the formula. Conjugate gradients run in Python:
    compiled programs call them back.

    >>> import jax
    >>> solve = KernelSolve("Exp(-SqDist(x,y))*b", ["x=Vi(1)", "y=Vj(1)", "b=Vj(1)"], "b", axis=1)
    >>> x, b = jax.numpy.array([[0.0], [9.0]]), jax.numpy.ones((2, 1))
    >>> float(jax.grad(lambda alpha: solve(x, x, b, alpha=alpha).sum())(1.0))
    -0.5
    """

    library = "jax"


target_names = _jax.target_names

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
    "target_names",
    "together",
    "where",
]


def __dir__() -> list[str]:
    return sorted({*__all__, *LAZY})
