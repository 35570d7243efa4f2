"""Names of a module that are imported when they are first used, so that importing stays quick."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping

# The names around lazy tensors, which `pairfold`, `pairfold.numpy` and `pairfold.torch` share.
LAZY = {
    "ComplexLazyTensor": "frontends.complextensor",
    **dict.fromkeys(
        ("LazyTensor", "Pm", "Var", "Vi", "Vij", "Vj", "where"), "frontends.lazytensor"
    ),
    **dict.fromkeys(
        ("band", "causal", "exclude_self", "i", "j", "lengths", "mask", "radius", "same"),
        "frontends.masks",
    ),
    "cluster": "cluster:",
    "together": "frontends.together",
}


def when_used(module: str, places: Mapping[str, str]) -> Callable[[str], object]:
    """A module's `__getattr__`: each name comes from its place, "file" or "file:" for all of it.

    >>> find = when_used("pairfold.numpy", {"parse": "frontends.parse"})
    >>> find("parse").__module__
    'pairfold.frontends.parse'
    """

    def find(name: str) -> object:
        if name not in places:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        place, whole, _ = places[name].partition(":")
        found: object = importlib.import_module(f".{place}", "pairfold")
        found = found if whole else getattr(found, name)
        setattr(sys.modules[module], name, found)
        return found

    return find
