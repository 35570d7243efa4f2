"""What the peers share."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Work = Callable[[], Sequence[Any]]

CHUNK_BYTES = 16_000_000


class Skip(Exception):
    """The peer has no method for this case."""


def cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def tensors(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """New torch tensors that share the memory of arrays, or of tensors on any device."""
    torch = importlib.import_module("torch")
    return {name: torch.as_tensor(array).detach() for name, array in arrays.items()}


def chunk_rows(rows: int, columns: int, itemsize: int, most: int = CHUNK_BYTES) -> int:
    """Rows of a chunk whose table of pairs has at most about so many bytes."""
    return min(rows, max(1, most // (itemsize * max(1, columns))))
