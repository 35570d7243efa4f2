"""A small thread pool for native code that takes tasks off a shared counter.

Workers call machine code through ctypes, which releases the interpreter lock. The caller works
too, unless it is the main thread and the job is long: then it waits, so that Ctrl-C is answered at
once (a stop word in the control block ends every task at its next block of columns). Workers are
daemons, started on first use and forgotten by a forked child.
"""

from __future__ import annotations

import ctypes
import os
import queue
import threading
import time
from collections.abc import Callable
from typing import Any

from ..settings import current, thread_count
from .words import CHUNK, DONE, NEXT, STOP, TOTAL

Control = ctypes.c_int64 * 5
_CHUNKS = 512
_LONG = 0.2
_PARALLEL = 60e-6
_POLL = 0.1


class Job:
    """Tasks 0..total-1 of one entry point; keeps the memory they use alive."""

    def __init__(self, entry: Any, args: Any, scratch_bytes: int, total: int) -> None:
        self.entry, self.args, self.scratch_bytes = entry, args, scratch_bytes
        self.control = Control()
        self.control[TOTAL] = total
        self.control[CHUNK] = 1 + total // _CHUNKS
        self.lock = threading.Lock()
        self.active = 0
        self.finished = threading.Event()

    def work(self) -> None:
        """Do tasks until none is left; called by any number of threads."""
        with self.lock:
            if self.control[STOP] or self.control[NEXT] >= self.control[TOTAL]:
                return
            self.active += 1
        self.entry(self.args, scratch(self.scratch_bytes), ctypes.addressof(self.control))
        with self.lock:
            self.active -= 1
            if self.is_over():
                self.finished.set()

    def is_over(self) -> bool:
        """Whether no thread works on it any more, and none will."""
        if self.control[STOP]:
            return self.active == 0
        return self.control[DONE] >= self.control[TOTAL]

    def cancel(self) -> None:
        """Stop, and return when no thread touches the job's memory any more."""
        with self.lock:
            self.control[STOP] = 1
            idle = self.active == 0
        while not idle:
            with self.lock:
                idle = self.active == 0
            time.sleep(0.001)


class _Local(threading.local):
    memory: Any = None
    address: int = 0
    size: int = 0


_local = _Local()


def scratch(size: int) -> int:
    """The address of this thread's scratch memory, of at least `size` bytes, 64-byte aligned."""
    if _local.size < size:
        _local.memory = ctypes.create_string_buffer(size + 64)
        _local.address = -(-ctypes.addressof(_local.memory) // 64) * 64
        _local.size = size
    return _local.address


class _Pool:
    """Worker threads and the queue they read."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.lock = threading.Lock()
        self.jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()
        self.workers = 0

    def submit(self, job: Job, helpers: int) -> None:
        """Offer a job to so many workers, starting those that are missing."""
        with self.lock:
            while self.workers < helpers:
                self.workers += 1
                threading.Thread(
                    target=self._serve, args=(self.jobs,), name="pairfold", daemon=True
                ).start()
        for _ in range(helpers):
            self.jobs.put(job)

    @staticmethod
    def _serve(jobs: queue.SimpleQueue[Job]) -> None:
        while True:
            job = jobs.get()
            job.work()
            del job


_pool = _Pool()
_fork_ready = False


def _prepare_for_fork() -> None:
    global _fork_ready
    if not _fork_ready and hasattr(os, "register_at_fork"):
        _fork_ready = True
        os.register_at_fork(after_in_child=_pool.reset)


def run(entry: Any, args: Any, scratch_bytes: int, total: int, seconds: float) -> None:
    """Do all tasks of an entry point; `seconds` is the expected time on one thread.

    Raises:
        KeyboardInterrupt: when interrupted; no thread touches the caller's memory afterwards.
    """
    threads = 1 if seconds < _PARALLEL or total == 1 else min(thread_count(), total)
    main = threading.current_thread() is threading.main_thread()
    waits = main and seconds > _LONG
    if threads == 1 and not waits:
        control = Control(0, 0, total, 0, total)
        entry(args, scratch(scratch_bytes), control)
        return
    _prepare_for_fork()
    job = Job(entry, args, scratch_bytes, total)
    try:
        _pool.submit(job, threads if waits else threads - 1)
        if not waits:
            job.work()
        _wait(job, current().progress and waits)
    except BaseException:
        job.cancel()
        raise


def _wait(job: Job, progress: bool) -> None:
    if job.is_over():
        return
    if not progress:
        while not job.finished.wait(
            _POLL
        ):  # in steps: a plain wait cannot be interrupted on Windows
            pass
        return
    with progress_bar(job.control[TOTAL]) as update:
        while not job.finished.wait(_POLL):
            update(job.control[DONE])
        update(job.control[DONE])


class progress_bar:
    """A tqdm bar over tasks, or nothing when tqdm is not installed."""

    def __init__(self, total: int) -> None:
        try:
            from tqdm.auto import tqdm
        except ImportError:
            self.bar: Any = None
        else:
            self.bar = tqdm(total=total, desc="pairfold", unit="task", leave=False)

    def __enter__(self) -> Callable[[int], None]:
        return self._update

    def _update(self, done: int) -> None:
        if self.bar is not None:
            self.bar.update(done - self.bar.n)

    def __exit__(self, *exc: object) -> None:
        if self.bar is not None:
            self.bar.close()
