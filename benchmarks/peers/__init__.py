"""What each peer does with a case. These modules run inside the peers' own processes.

A peer's `prepare(case, arrays)` returns a function of no arguments that does the work once and
returns its results; it raises `Skip` for what the peer has no method for. A peer whose attribute
`shaped` is true compiles anew for every size.
"""

from __future__ import annotations

import importlib
from typing import Any

# Peers by name: module, class, arguments. C++ is given the path of its library.
_PEERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "pairfold": ("genred", "GenredPeer", {"library": "pairfold"}),
    "PyKeOps": ("genred", "GenredPeer", {"library": "pykeops"}),
    "PyKeOps tuned": ("genred", "GenredPeer", {"library": "pykeops", "sum_scheme": "direct_sum"}),
    "torch products": ("eager", "TorchPeer", {"form": "products"}),
    "torch differences": ("eager", "TorchPeer", {"form": "differences"}),
    "torch compiled": ("compiled", "CompiledPeer", {}),
    "torch attention": ("compiled", "AttentionPeer", {}),
    "JAX chunks": ("jaxes", "JaxPeer", {"form": "chunks"}),
    "JAX fused": ("jaxes", "JaxPeer", {"form": "fused"}),
    "numba": ("loops", "NumbaPeer", {}),
    "scikit-learn": ("neighbours", "ScikitPeer", {}),
    "faiss": ("neighbours", "FaissPeer", {}),
    "SciPy cKDTree": ("neighbours", "TreePeer", {}),
    "memory": ("cpp", "MemoryPeer", {}),
}


def make(name: str, option: str) -> Any:
    """The peer of that name; `option` is the path of the C++ library."""
    cpp = ("cpp", "CppPeer", {"path": option})
    module, kind, arguments = cpp if name.startswith("C++") else _PEERS[name]
    return getattr(importlib.import_module(f"benchmarks.peers.{module}"), kind)(**arguments)
