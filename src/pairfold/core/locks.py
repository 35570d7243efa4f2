"""A lock that a fork does not leave behind closed.

Forking waits until no other thread is inside, so that the child finds the lock open and whatever
it guards in order.
"""

from __future__ import annotations

import os
import threading
from typing import Any


def fork_safe_lock() -> Any:
    """A new re-entrant lock, released in parent and child after every fork."""
    lock = threading.RLock()
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(
            before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release
        )
    return lock
