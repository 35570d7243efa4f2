"""Linear operators made of lazy tensors and arrays: sums, products, powers and blocks of them.

>>> import numpy as np
>>> from pairfold import Vi, Vj
>>> x = np.array([[0.0], [1.0]])
>>> A = Vi(x).sqdist(Vj(x)) + 2.0 * identity(2)
>>> (A @ np.array([1.0, 0.0])).tolist()
[2.0, 1.0]
"""

from __future__ import annotations

from .frontends.blockoperators import block, hstack, identity, matrix_power, vstack
from .frontends.linearoperators import LinearOperator, aslinearoperator

__all__ = [
    "LinearOperator",
    "aslinearoperator",
    "block",
    "hstack",
    "identity",
    "matrix_power",
    "vstack",
]
