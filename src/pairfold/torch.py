"""The names of `pykeops.torch`: reductions of torch tensors, differentiable to any order."""

from __future__ import annotations

from .frontends import genred as _genred
from .frontends import torch as _torch  # asking for this module asks for torch


class Genred(_genred.Genred):
    __doc__ = _genred.Genred.__doc__

    library = "torch"


FoldFunction = _torch.FoldFunction

__all__ = ["FoldFunction", "Genred"]
