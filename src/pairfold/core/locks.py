"""A lock that a fork does not leave behind closed.

Forking waits until no other thread is inside, so that the child finds the lock open and whatever
it guards in order.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Protocol


class Lock(Protocol):
    """A lock that is held in a `with` block, or from `acquire` to `release`."""

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Wait for it, and hold it."""
        ...

    def release(self) -> None:
        """Hold it no longer."""
        ...

    def __enter__(self) -> bool: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None: ...


def fork_safe_lock() -> Lock:
    """A new re-entrant lock, released in parent and child after every fork."""
    lock = threading.RLock()
    hold_across_forks(lock.acquire, lock.release)
    return lock


def hold_across_forks(acquire: Callable[[], object], release: Callable[[], object]) -> None:
    """Acquire before every fork, release after it in parent and child.

    What is registered last is acquired first; register in the opposite order of nesting.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=acquire, after_in_parent=release, after_in_child=release)
