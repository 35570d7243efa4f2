"""The names of `pykeops.torch`: reductions of torch tensors, differentiable to any order."""

from __future__ import annotations

import torch as _torch  # noqa: F401 (asking for this module asks for torch)

from .frontends import genred as _genred


class Genred(_genred.Genred):
    __doc__ = _genred.Genred.__doc__

    library = "torch"


__all__ = ["Genred"]
