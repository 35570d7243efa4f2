"""Threads, forks and interruptions."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
import numpy as np
import pytest
from checks import assert_same_bits

from pairfold.backends.llvm import native, pool
from pairfold.backends.llvm.abi import AT_ONCE, STOP
from pairfold.backends.llvm.machine import machine, target_machine
from pairfold.backends.llvm.runtime import shared_module
from pairfold.backends.llvm.tasks import own_driver
from pairfold.core import uninterrupted
from pairfold.errors import MemoryLimitError
from pairfold.lower.schedule import Machine
from pairfold.numpy import Genred
from pairfold.settings import available_cpus, settings, thread_count

ALIASES = ["x = Vi(3)", "y = Vj(3)"]


def cloud(rows: int, seed: int = 0) -> Any:
    """Random points."""
    return np.random.default_rng(seed).random((rows, 3)).astype("float32")


def test_two_hundred_threads_may_call_one_and_many_formulas() -> None:
    texts = ["Exp(-SqDist(x,y))", *(f"Exp(-{k}*SqDist(x,y))" for k in range(2, 9))]
    x, y = cloud(400), cloud(700, 1)
    want = [Genred(text, ALIASES, axis=1)(x, y) for text in texts]
    np.testing.assert_allclose(want[0], gaussian_sums(x, y), rtol=1e-5)
    fresh = [Genred(text, ALIASES, axis=1) for text in texts]
    failures: list[BaseException] = []
    gate = threading.Barrier(200)

    def work(number: int) -> None:
        try:
            gate.wait(60)
            for step in range(4):
                place = 0 if number % 2 else (number + step) % len(texts)
                unseen = Genred(f"{number % 5 + 1}*SqNorm2(x-y)", ALIASES, axis=1)
                unseen(x[: 10 + number], y)
                with settings(threads=1 + number % 4):
                    assert_same_bits(fresh[place](x, y), want[place])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not any(thread.is_alive() for thread in threads)
    assert not failures, failures[0]


def gaussian_sums(x: Any, y: Any) -> Any:
    """What Exp(-SqDist(x,y)) adds up to, in float64."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    return np.exp(-((x[:, None, :] - y[None, :, :]) ** 2).sum(-1)).sum(1, keepdims=True)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no such timer")
def test_interrupts_at_random_moments_end_calls_and_spoil_nothing() -> None:
    """A sample of `attack_interrupts.py`."""
    done = _run(
        f"""
        import sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from attack_interrupts import attack
        for how in ("signals", "threads"):
            for case, count in [("small", 50), ("middle", 50), ("long", 2), ("compilation", 5)]:
                print(case, attack(case, how, count, 0, 2))
        """,
        timeout=200,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_interrupted_caller_interrupted_again_still_stops_the_others() -> None:
    """Machine code is played by a function that hides when the others have left."""
    calls: list[int] = []

    def entry(args: Any, scratch: Any, control: Any) -> int:
        words = pool.Control.from_address(control)
        calls.append(words[STOP])
        if len(calls) < 6:
            raise KeyboardInterrupt
        return max(0, 9 - len(calls))

    with pytest.raises(KeyboardInterrupt):
        pool.run(entry, None, 64, 100, 0.001)
    assert calls == [0] + [AT_ONCE] * 8


@pytest.mark.parametrize("long", [False, True])
def test_without_new_threads_the_caller_does_all_itself(
    monkeypatch: pytest.MonkeyPatch, long: bool
) -> None:
    def refuse(*_: Any) -> int:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(pool, "start_new_thread", refuse)
    monkeypatch.setattr(pool, "_pool", pool.Pool())
    monkeypatch.setattr(pool, "_LONG", 0.0 if long else 1e9)
    x, y = cloud(3000), cloud(900, 1)
    genred = Genred("Exp(-SqDist(x,y))", ALIASES, axis=1)
    with settings(threads=4):
        np.testing.assert_allclose(genred(x, y), gaussian_sums(x, y), rtol=1e-5)


@pytest.mark.parametrize("long", [False, True])
@pytest.mark.parametrize("working", [0, 1, 2])
def test_threads_without_scratch_memory_leave_the_work_to_those_with_some(
    monkeypatch: pytest.MonkeyPatch, long: bool, working: int
) -> None:
    """`working`: nobody, the caller, or one of the helpers."""
    caller, allowed = threading.get_ident(), set[int]()

    def allocate(size: int) -> Any:
        me = threading.get_ident()
        if working == 2 and me != caller and not allowed:
            allowed.add(me)
        if (working == 1 and me == caller) or me in allowed:
            return ctypes.create_string_buffer(size)
        raise MemoryError

    x, y = cloud(3000), cloud(900, 1)
    genred = Genred("Exp(-SqDist(x,y))", ALIASES, axis=1)
    want = genred(x, y)
    monkeypatch.setattr(pool, "_allocate", allocate)
    monkeypatch.setattr(pool, "_pool", pool.Pool())
    monkeypatch.setattr(pool, "_local", pool.Local())
    monkeypatch.setattr(pool, "_LONG", 0.0 if long else 1e9)
    with settings(threads=3):
        if working == 1 or (working == 2 and long):
            assert_same_bits(genred(x, y), want)
        else:
            with pytest.raises(MemoryLimitError, match="no memory for a thread"):
                genred(x, y)
            monkeypatch.setattr(pool, "_allocate", ctypes.create_string_buffer)
            assert_same_bits(genred(x, y), want)


def test_compilation_survives_threads_that_do_not_start_or_end_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real, begun = uninterrupted.start_new_thread, list[int]()

    def refuse(*_: Any) -> int:
        raise RuntimeError("can't start new thread")

    def dies_once(work: Any, args: Any) -> int:
        """Before Python 3.12 the new thread may get an exception that is meant for the old one."""
        begun.append(1)
        return real((lambda _: None) if len(begun) == 1 else work, args)

    x = cloud(40)
    for start, text in [(refuse, "Exp(-5*SqDist(x,y))"), (dies_once, "Exp(-6*SqDist(x,y))")]:
        monkeypatch.setattr(uninterrupted, "start_new_thread", start)
        got = Genred(text, ALIASES, axis=1)(x, x)
        scaled = np.sqrt(float(text[5])) * x
        np.testing.assert_allclose(got, gaussian_sums(scaled, scaled), rtol=1e-5)
    assert len(begun) > 1


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX")
def test_work_that_waits_is_not_begun_once_nobody_waits_for_it() -> None:
    lock, begun = threading.Lock(), list[int]()

    def leave(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, leave)
    try:
        with lock:
            for number in range(3):
                signal.setitimer(signal.ITIMER_REAL, 0.02)
                with pytest.raises(KeyboardInterrupt):
                    uninterrupted.uninterrupted(lambda number=number: begun.append(number), lock)
    finally:
        signal.signal(signal.SIGALRM, before)
    uninterrupted.uninterrupted(lambda: begun.append(3), lock)
    assert begun == [3]


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no such timer")
def test_work_that_is_not_interrupted_goes_on_when_its_caller_is() -> None:
    done = threading.Event()

    def work() -> None:
        time.sleep(0.3)
        done.set()

    def handler(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        start = time.perf_counter()
        with pytest.raises(KeyboardInterrupt):
            uninterrupted.uninterrupted(work)
        assert time.perf_counter() - start < 0.25
        assert done.wait(10)
    finally:
        signal.signal(signal.SIGALRM, before)
    with pytest.raises(ZeroDivisionError):
        uninterrupted.uninterrupted(lambda: 1 / 0)


def test_engines_are_freed_by_threads_that_are_not_interrupted() -> None:
    """llvmlite's lock is Python code: an exception could come between its steps."""
    freed: list[int] = []

    class Engine:
        def __del__(self) -> None:
            freed.append(threading.get_ident())

    x = cloud(30)
    found: Any = Genred("Exp(-77*SqDist(x,y))", ALIASES, axis=1).explain(x, x)
    owner = native.Engine(Engine())
    del owner
    assert freed == []
    found.native.llvm()
    assert len(freed) == 1
    assert freed[0] != threading.get_ident()


def test_a_handler_of_signals_may_make_a_call_that_needs_more_scratch_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pool, "_local", pool.Local())
    first = pool.scratch(1000)
    ctypes.memset(first[1], 7, 1000)
    second = pool.scratch(100_000)
    ctypes.memset(second[1], 9, 100_000)
    assert ctypes.string_at(first[1], 1000) == b"\7" * 1000
    assert second[1] % 64 == 0
    assert pool.scratch(500) is second


def test_arrays_are_not_kept_once_a_call_has_returned() -> None:
    x = cloud(4000)
    genred = Genred("Exp(-SqDist(x,y))", ALIASES, axis=1)
    for _ in range(20):
        with settings(threads=3):
            result = genred(x, x)
        own = x.copy()
        genred(own, own)
        own.resize((7, 3))  # NumPy refuses to where something refers to the array
        result.resize((7, 1))


def test_results_are_written_before_their_tasks_count_as_done() -> None:
    """On AArch64 another thread would see the count before them."""
    module = str(shared_module([own_driver(machine(), "run")]))
    body = module[module.index("i64 @run(") :]
    done = re.search(r"(%\S+) = getelementptr i8, ptr \S+, i64 24\n", body)
    assert done is not None
    touched = re.findall(rf".*(?:atomic|load|store).*{re.escape(done[1])}\b.*", body)
    orders = [re.search(r"(monotonic|acq_rel|acquire|release)", line) for line in touched]
    assert [order and order[1] for order in orders] == ["acquire", "acq_rel"]
    assert "fence seq_cst" in body


@pytest.mark.parametrize(
    ("cpu", "features", "adds", "reads"),
    [("cortex-a72", "+neon", "stlxr", "ldar"), ("neoverse-n1", "+neon,+lse", "ldaddal", "ldapr")],
)
def test_aarch64_code_orders_results_and_counter(
    cpu: str, features: str, adds: str, reads: str
) -> None:
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    triple = "aarch64-unknown-linux-gnu"
    arm = Machine("native", cpu, features, frozenset({"neon", "fma"}), 16, 32, triple)
    module = llvm.parse_assembly(str(shared_module([own_driver(arm, "run")])))
    module.triple = triple
    text = target_machine(arm).emit_assembly(module)
    entry = text[text.index("\nrun:") :]
    assert len(re.findall(rf"\b{adds}\b", entry)) == 3
    assert len(re.findall(rf"\b{reads}\b", entry)) == 1
    assert "dmb" in entry


def _run(program: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_computes_after_the_parent_has_used_threads() -> None:
    done = _run(
        """
        import os, sys
        import numpy as np
        from pairfold.numpy import Genred
        x = np.random.default_rng(0).random((3000, 3)).astype("float32")
        genred = Genred("Exp(-SqDist(x,y))", ["x = Vi(3)", "y = Vj(3)"], axis=1)
        want = genred(x, x)
        children = []
        for number in range(4):
            child = os.fork()
            if child == 0:
                same = (genred(x, x) == want).all()
                other = Genred("Exp(-2*SqDist(x,y))", ["x = Vi(3)", "y = Vj(3)"], axis=1)
                same = same and np.isfinite(other(x, x)).all()
                os._exit(0 if same else 1)
            children.append(child)
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        assert codes == [0, 0, 0, 0], codes
        assert (genred(x, x) == want).all()
        """
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_fork_during_compilation_in_another_thread_does_not_block_the_child() -> None:
    done = _run(
        """
        import os, signal, threading, warnings
        warnings.simplefilter("ignore")
        import numpy as np
        from pairfold.numpy import Genred
        x = np.ones((50, 3))
        forked = threading.Event()
        def build():
            for k in range(1000):
                Genred(f"Exp(-{k}*SqDist(x,y))+{k}", ["x = Vi(3)", "y = Vj(3)"], axis=1)(x, x)
                if forked.is_set():
                    break
        thread = threading.Thread(target=build)
        Genred("x+y", ["x = Vi(3)", "y = Vj(3)"], axis=1)(x, x)
        thread.start()
        for number in range(5):
            child = os.fork()
            if child == 0:
                signal.alarm(30)  # for one that waits for ever
                # Else the next thread may have the number of the one that holds the lock.
                threading.Thread(target=threading.Event().wait, daemon=True).start()
                Genred(f"Sin({number}*x+y)", ["x = Vi(3)", "y = Vj(3)"], axis=1)(x, x)
                os._exit(0)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert thread.is_alive()
        forked.set()
        thread.join()
        """
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.skipif(sys.platform == "win32", reason="SIGINT cannot be sent to one process there")
def test_ctrl_c_stops_a_minute_long_sum_within_a_second(threads: int) -> None:
    program = f"""
        import signal
        import numpy as np
        from pairfold.numpy import Genred
        from pairfold.settings import settings
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it
        x = np.random.default_rng(0).random((1_000_000, 3)).astype("float32")
        genred = Genred("Exp(-SqDist(x,y))", ["x = Vi(3)", "y = Vj(3)"], axis=1)
        small = genred(x[:100], x[:100])
        with settings(threads={threads}):
            try:
                print("running", flush=True)
                genred(x, x)
            except KeyboardInterrupt:
                print("stopped", flush=True)
        assert (genred(x[:100], x[:100]) == small).all()
        print("fine", flush=True)
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        watchdog = threading.Timer(50, process.kill)
        watchdog.start()
        assert process.stdout.readline() == "running\n"
        time.sleep(0.3)
        assert process.poll() is None
        start = time.perf_counter()
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "stopped\n"
        assert time.perf_counter() - start < 1
        assert process.stdout.readline() == "fine\n"
        assert process.wait(10) == 0
        watchdog.cancel()


def test_the_program_ends_while_workers_wait() -> None:
    done = _run(
        """
        import numpy as np
        from pairfold.numpy import Genred
        from pairfold.settings import settings
        x = np.ones((3000, 3))
        with settings(threads=4):
            Genred("Exp(-SqDist(x,y))", ["x = Vi(3)", "y = Vj(3)"], axis=1)(x, x)
        """
    )
    assert done.returncode == 0
    assert done.stderr == ""


def test_the_number_of_threads_follows_setting_environment_and_affinity(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert thread_count() == available_cpus()
    monkeypatch.setenv("OMP_NUM_THREADS", "3,2")
    assert thread_count() == 3
    with settings(threads=5):
        assert thread_count() == 5


def test_an_import_that_was_interrupted_can_be_done_again(tmp_path: Path) -> None:
    """Once in every module, at its second line or so; then at the twelfth, then at the fortieth."""
    done = _run(
        f"""
        import sys
        import numpy as np
        sys.dont_write_bytecode, sys.pycache_prefix = False, {str(tmp_path)!r}  # compiled once
        seen = {{}}
        def trace(frame, event, _):
            code = frame.f_code
            if "pairfold" not in code.co_filename or code.co_name != "<module>":
                return None
            if event == "line":
                seen[code.co_filename] = seen.get(code.co_filename, 0) + 1
                if seen[code.co_filename] == line:
                    raise KeyboardInterrupt
            return trace
        def compute():
            from pairfold.numpy import Genred, Vi, Vj
            x = np.arange(12.0).reshape(4, 3) / 7
            found = Genred("Exp(-SqDist(x,y))", ["x = Vi(3)", "y = Vj(3)"], axis=1)(x, x)
            lazy = (-((Vi(x) - Vj(x)) ** 2).sum(-1)).exp().sum(axis=1)
            table = np.exp(-((x[:, None] - x[None]) ** 2).sum(-1)).sum(1, keepdims=True)
            assert np.allclose(found, table) and np.allclose(lazy, table)
        for line in (2, 12, 40):
            for name in [name for name in sys.modules if name.split(".")[0] == "pairfold"]:
                del sys.modules[name]
            seen.clear()
            interrupts = 0
            while True:
                sys.settrace(trace)
                try:
                    compute()
                    break
                except KeyboardInterrupt:
                    interrupts += 1
            sys.settrace(None)
            print(interrupts)
        """
    )
    assert done.returncode == 0, done.stderr
    assert all(int(interrupts) > 15 for interrupts in done.stdout.split())
    assert len(done.stdout.split()) == 3


def test_small_problems_leave_no_thread() -> None:
    done = _run(
        """
        import sys, time
        import numpy as np
        from pairfold.numpy import Genred
        x = np.ones((10, 3))
        before = len(sys._current_frames())
        Genred("Exp(-SqDist(x,y))", ["x = Vi(3)", "y = Vj(3)"], axis=1)(x, x)
        time.sleep(0.2)  # that of the compiler may be about to end
        assert len(sys._current_frames()) == before
        """
    )
    assert done.returncode == 0, done.stderr


def test_a_long_job_shows_progress_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    tqdm = pytest.importorskip("tqdm.auto", reason="tqdm is an optional extra")
    seen: list[int] = []

    class Bar:
        n = 0

        def __init__(self, total: int, **_: Any) -> None:
            seen.append(total)

        def update(self, step: int) -> None:
            self.n += step
            seen.append(self.n)

        def close(self) -> None:
            seen.append(-1)

    monkeypatch.setattr(tqdm, "tqdm", Bar)
    monkeypatch.setattr(pool, "_LONG", 0.0)
    x = cloud(12_000)
    with settings(progress=True):
        Genred("Exp(-SqDist(x,y))", ALIASES, axis=1)(x, x)
    assert seen[0] > 1
    assert seen[-2:] == [seen[0], -1]
