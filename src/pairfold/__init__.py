"""pairfold folds a formula over all pairs (i, j) without storing the M x N table.

out_i = Reduce_j F(p, x_i, y_j), with F a formula string, compiled for the machine at hand in
milliseconds, differentiated symbolically, in O(M + N) memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .later import LAZY, when_used
from .settings import settings as settings

if TYPE_CHECKING:
    from . import cluster as cluster
    from . import doctor as doctor
    from . import linalg as linalg
    from .core.cache import cache_info as cache_info
    from .core.cache import clear_cache as clear_cache
    from .errors import PairfoldError as PairfoldError
    from .frontends.complextensor import ComplexLazyTensor as ComplexLazyTensor
    from .frontends.explain import explain as explain
    from .frontends.generic import generic_argkmin as generic_argkmin
    from .frontends.generic import generic_argmin as generic_argmin
    from .frontends.generic import generic_logsumexp as generic_logsumexp
    from .frontends.generic import generic_sum as generic_sum
    from .frontends.genred import Genred as Genred
    from .frontends.lazytensor import LazyTensor as LazyTensor
    from .frontends.lazytensor import Pm as Pm
    from .frontends.lazytensor import Vi as Vi
    from .frontends.lazytensor import Vij as Vij
    from .frontends.lazytensor import Vj as Vj
    from .frontends.lazytensor import where as where
    from .frontends.masks import band as band
    from .frontends.masks import causal as causal
    from .frontends.masks import exclude_self as exclude_self
    from .frontends.masks import i as i
    from .frontends.masks import j as j
    from .frontends.masks import lengths as lengths
    from .frontends.masks import mask as mask
    from .frontends.masks import radius as radius
    from .frontends.masks import same as same
    from .frontends.solve import KernelSolve as KernelSolve
    from .frontends.together import together as together
    from .version import __version__ as __version__

_PLACES = {
    **LAZY,
    "Genred": "frontends.genred",
    "KernelSolve": "frontends.solve",
    "PairfoldError": "errors",
    "__version__": "version",
    "cache_info": "core.cache",
    "clear_cache": "core.cache",
    "doctor": "doctor:",
    "explain": "frontends.explain",
    "generic_argkmin": "frontends.generic",
    "generic_argmin": "frontends.generic",
    "generic_logsumexp": "frontends.generic",
    "generic_sum": "frontends.generic",
    "linalg": "linalg:",
}
__all__ = [
    "ComplexLazyTensor",
    "Genred",
    "KernelSolve",
    "LazyTensor",
    "PairfoldError",
    "Pm",
    "Vi",
    "Vij",
    "Vj",
    "__version__",
    "cache_info",
    "clear_cache",
    "cluster",
    "explain",
    "generic_argkmin",
    "generic_argmin",
    "generic_logsumexp",
    "generic_sum",
    "linalg",
    "settings",
    "together",
    "where",
]


if not TYPE_CHECKING:  # to a type checker, a name that is not above is none
    __getattr__ = when_used(__name__, _PLACES)


def __dir__() -> list[str]:
    return sorted({*__all__, *_PLACES})
