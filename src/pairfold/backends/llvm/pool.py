"""A small thread pool for native code that takes tasks off a shared counter.

Workers call machine code through ctypes, which releases the interpreter lock. The caller works
too, unless the job is long: then it waits, so that Ctrl-C, the handlers of signals and exceptions
sent by other threads are answered at once. Workers are started on first use and forgotten by a
forked child.

An exception can arrive in the caller between any two of its bytecodes. Hence machine code itself
counts the tasks that are done and the threads inside; no lock is held; a job keeps alive whatever
its tasks touch; and an interrupted caller stops them in a step without a call.
"""

from __future__ import annotations

import ctypes
import os
import threading
import time
from _thread import allocate_lock, start_new_thread
from collections.abc import Callable
from queue import SimpleQueue
from typing import Protocol

from ...core.progress import progress_bar
from ...errors import MemoryLimitError
from ...settings import current, thread_count
from .abi import ACTIVE, AT_ONCE, CHUNK, CONTROL, DONE, NEXT, SOON, STOP, TOTAL

Table = ctypes.Array[ctypes.c_int64]
Control = ctypes.c_int64 * CONTROL
_CHUNKS = 512
_LONG = 0.05
_PARALLEL = 60e-6
_POLL = 0.05
# How often an interrupted caller, interrupted again, goes on waiting for the others to leave.
_PATIENCE = 1000
_allocate = ctypes.create_string_buffer
_NOTHING: tuple[object, int, int] = (None, 0, 0)


class Entry(Protocol):
    """An entry point of machine code, as a C function; `owner` keeps the code."""

    owner: object
    combine: Entry

    def __call__(self, args: Table, scratch: int | None, control: int | Table, /) -> int: ...


class Job:
    """Tasks 0..total-1 of one entry point, and all memory that they use."""

    __slots__ = ("address", "alive", "args", "control", "entry", "failures", "finished", "scratch")

    def __init__(
        self, entry: Entry, args: Table, scratch_bytes: int, total: int, alive: object
    ) -> None:
        self.entry, self.args, self.scratch, self.alive = entry, args, scratch_bytes, alive
        self.control = Control(0, 0, total, 0, 1 + total // _CHUNKS)
        self.address = ctypes.addressof(self.control)
        self.failures: list[None] = []
        self.finished = allocate_lock()
        self.finished.acquire()

    def left(self) -> int:
        """0 when no thread touches the job's memory any more, nor will."""
        return self.entry(self.args, None, self.address)

    def work(self) -> int:
        """Do tasks until none is left to take; called by any number of threads."""
        memory = scratch(self.scratch)
        return self.entry(self.args, memory[1], self.address)

    def help(self) -> None:
        """What a worker does: it tells the caller when all is done, or that it could not."""
        control = self.control
        try:
            while control[STOP] != AT_ONCE and control[NEXT] < control[TOTAL]:
                if not self.work():
                    break
            else:
                return  # others do the rest
        except BaseException:
            self.failures.append(None)  # above all of memory: the caller will see for itself
        if self.finished.locked():
            self.finished.release()

    def wait(self, workers: int, update: Callable[[int], None] | None = None) -> None:
        """Return when all is done; work, some tasks at a time, while no worker does."""
        control, patience = self.control, _POLL
        while self.left():
            if len(self.failures) >= workers:
                patience = 0
            if self.finished.acquire(timeout=patience):
                continue
            if update is not None:
                update(control[DONE])
            if control[ACTIVE] or control[NEXT] >= control[TOTAL]:
                control[STOP], patience = 0, _POLL
            else:
                control[STOP], patience = SOON, 0
                self.work()

    def settle(self) -> None:
        """Return when no thread touches the job's memory any more, whatever else arrives."""
        last: BaseException | None = None
        for _ in range(_PATIENCE):
            try:
                while self.left():
                    time.sleep(0.0005)
                break
            except BaseException as error:
                last = error
        if last is not None:
            raise last


class Local(threading.local):
    """What each thread has of its own: scratch memory."""

    held: tuple[object, int, int] = _NOTHING


_local = Local()


def scratch(size: int) -> tuple[object, int, int]:
    """This thread's scratch memory: (owner, address, bytes), at least `size`, 64-byte aligned.

    Hold on to what is returned: a handler of signals may make a call that needs more.

    Raises:
        MemoryLimitError: there is no memory for it.
    """
    held = _local.held
    if held[2] < size:
        _local.held = _NOTHING
        try:
            memory = _allocate(size + 64)
        except MemoryError:
            raise MemoryLimitError(
                "there is no memory for a thread to work in",
                found=f"{size} bytes wanted",
                hint="fewer threads, as in settings(threads=1), or smaller dimensions",
            ) from None
        _local.held = held = (memory, -(-ctypes.addressof(memory) // 64) * 64, size)
    return held


class Pool:
    """Worker threads, by number, and the queue they read."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin without workers, as a forked child must."""
        self.jobs: SimpleQueue[Job] = SimpleQueue()
        self.workers: dict[int, object] = {}

    def offer(self, job: Job, wanted: int) -> int:
        """Offer a job to so many workers, starting those that are missing; how many there are."""
        workers = self.workers
        found = len(workers)
        if found < wanted:
            found = 0
            for number in range(wanted):
                if number not in workers:
                    try:
                        start_new_thread(_serve, (number, workers, self.jobs))
                    except (RuntimeError, MemoryError):
                        continue  # the caller works itself
                found += 1
        found = min(found, wanted)
        for _ in range(found):
            self.jobs.put(job)
        return found


def _serve(number: int, workers: dict[int, object], jobs: SimpleQueue[Job]) -> None:
    """What a worker thread runs; one that comes too late for its number ends."""
    me = object()
    if workers.setdefault(number, me) is not me:
        return
    try:
        while True:
            job = jobs.get()
            try:
                job.help()
            except BaseException:
                del job  # the caller will see for itself
            else:
                del job
    finally:
        workers.pop(number, None)


_pool = Pool()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.reset)


def threads_for(seconds: float, total: int) -> int:
    """How many threads are worth it for so many tasks that take so long on one."""
    return 1 if seconds < _PARALLEL or total == 1 else min(thread_count(), total)


def run(
    entry: Entry, args: Table, scratch_bytes: int, total: int, seconds: float, alive: object = None
) -> None:
    """Do all tasks of an entry point; `seconds` is the expected time on one thread.

    Raises:
        MemoryLimitError: there is no scratch memory.
        KeyboardInterrupt: when interrupted; no thread touches the caller's memory afterwards.
    """
    threads = threads_for(seconds, total)
    waits = seconds > _LONG
    if threads == 1 and not waits:
        memory = scratch(scratch_bytes)
        control = Control()
        control[TOTAL] = control[CHUNK] = total
        entry(args, memory[1], control)
        return
    job = Job(entry, args, scratch_bytes, total, alive)
    try:
        _together(job, threads, waits)
    except BaseException:
        job.control[STOP] = AT_ONCE  # no call, so nothing can arrive before it
        job.settle()
        raise
    job.alive = None  # a worker may take the job off the queue much later


def _together(job: Job, threads: int, waits: bool) -> None:
    """Do a job with other threads; the caller only waits, or works too."""
    workers = _pool.offer(job, threads if waits else threads - 1)
    if not waits:
        if job.work():
            job.wait(workers)
    elif current().progress:
        with progress_bar(job.control[TOTAL]) as update:
            job.wait(workers, update)
            update(job.control[DONE])
    else:
        job.wait(workers)
