"""What the peers share."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
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


def chunk_rows(rows: int, columns: int, itemsize: int) -> int:
    """Rows of a chunk whose table of pairs has about `CHUNK_BYTES`."""
    return min(rows, max(1, CHUNK_BYTES // (itemsize * max(1, columns))))
