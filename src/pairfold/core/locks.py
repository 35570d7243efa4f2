"""A lock that a fork does not leave behind closed.

Forking waits until no other thread is inside, so that the child finds the lock open and whatever
it guards in order.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any


def fork_safe_lock() -> Any:
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
