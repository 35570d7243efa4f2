"""Work that no exception interrupts: done in a thread of its own, to which nobody sends one.

LLVM's bindings are Python that takes locks, and owns memory that another part frees: an exception
between two of its bytecodes leaves a lock closed, or memory to be freed twice.
"""

from __future__ import annotations

import weakref
from _thread import allocate_lock, start_new_thread
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

_T = TypeVar("_T")
_U = TypeVar("_U")
_POLL = 0.05
_TRIES = 3


class _Alive:
    """Held by a thread as long as it runs."""


class _Raised:
    """What work raised, where it returned nothing."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


def uninterrupted(work: Callable[[], _T], lock: AbstractContextManager[object] | None = None) -> _T:
    """What `work` returns or raises; it is done while a lock is held, if one is given.

    The caller can be interrupted; then work that has begun is still done to its end, but nobody
    waits for it, and work that waits for the lock is not begun. Where no thread can be started, it
    is done here.

    >>> uninterrupted(lambda: 6 * 7)
    42
    """
    outcome: list[_T | _Raised] = []
    for _ in range(_TRIES):
        if not _begun(work, outcome, lock or nullcontext()):
            break
        if outcome:
            found = outcome.pop()
            if not isinstance(found, _Raised):
                return found
            try:
                raise found.error
            finally:
                del found  # its traceback refers to this frame
    with lock or nullcontext():
        return work()


def _begun(
    work: Callable[[], _T], outcome: list[_T | _Raised], lock: AbstractContextManager[object]
) -> bool:
    """Whether a thread could be started; it has ended, and written down how, if it came so far.

    An exception that is sent to a thread just as it starts another goes to the new one before
    Python 3.12, and ends it.
    """
    alive, done = _Alive(), allocate_lock()
    done.acquire()
    left: list[bool] = []

    def inside(alive: _Alive) -> None:
        try:
            with lock:
                if not left:
                    outcome.append(work())
        except BaseException as error:
            outcome.append(_Raised(error))
        done.release()

    try:
        start_new_thread(inside, (alive,))
    except (RuntimeError, MemoryError):
        return False
    alive = weakref.ref(alive)
    # In steps: an exception sent to this thread arrives between them.
    try:
        while not done.acquire(timeout=_POLL) and alive() is not None:
            pass
    except BaseException:
        left.append(True)
        raise
    return True


def beside(work: Callable[[], _T], other: Callable[[], _U]) -> tuple[_T, _U]:
    """What both return; `other` is done in a thread of its own meanwhile, if one can be started.

    >>> beside(lambda: 1, lambda: 2)
    (1, 2)
    """
    outcome: list[_U | _Raised] = []
    done = allocate_lock()
    done.acquire()

    def inside() -> None:
        try:
            outcome.append(other())
        except BaseException as error:
            outcome.append(_Raised(error))
        done.release()

    try:
        start_new_thread(inside, ())
    except (RuntimeError, MemoryError):
        return work(), other()
    mine = work()
    while not done.acquire(timeout=_POLL):
        pass
    found = outcome.pop()
    if isinstance(found, _Raised):
        raise found.error
    return mine, found
