"""The names of `pykeops.numpy`: reductions of NumPy arrays."""

from __future__ import annotations

from .frontends import genred as _genred


class Genred(_genred.Genred):
    __doc__ = _genred.Genred.__doc__

    library = "numpy"


__all__ = ["Genred"]
