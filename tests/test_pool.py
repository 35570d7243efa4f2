"""Threads, forks and interruptions."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from typing import Any

import numpy as np
import pytest
from checks import assert_same_bits

from pairfold.backends import pool
from pairfold.numpy import Genred
from pairfold.settings import available_cpus, settings, thread_count

ALIASES = ["x = Vi(3)", "y = Vj(3)"]


def cloud(rows: int, seed: int = 0) -> Any:
    """Random points."""
    return np.random.default_rng(seed).random((rows, 3)).astype("float32")


def test_two_hundred_threads_may_call_one_and_many_formulas() -> None:
    texts = ["Exp(-SqDist(x,y))", *(f"Exp(-{k}*SqDist(x,y))" for k in range(2, 9))]
    x, y = cloud(900), cloud(1100, 1)
    want = [Genred(text, ALIASES, axis=1)(x, y) for text in texts]
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
        import os, threading, warnings
        warnings.simplefilter("ignore")
        import numpy as np
        from pairfold.numpy import Genred
        x = np.ones((50, 3))
        def build():
            for k in range(30):
                Genred(f"Exp(-{k}*SqDist(x,y))+{k}", ["x = Vi(3)", "y = Vj(3)"], axis=1)(x, x)
        thread = threading.Thread(target=build)
        Genred("x+y", ["x = Vi(3)", "y = Vj(3)"], axis=1)(x, x)
        thread.start()
        for number in range(5):
            child = os.fork()
            if child == 0:
                Genred(f"Sin({number}*x+y)", ["x = Vi(3)", "y = Vj(3)"], axis=1)(x, x)
                os._exit(0)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
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
        time.sleep(0.7)
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


def test_small_problems_start_no_thread() -> None:
    done = _run(
        """
        import threading
        import numpy as np
        from pairfold.numpy import Genred
        x = np.ones((10, 3))
        Genred("Exp(-SqDist(x,y))", ["x = Vi(3)", "y = Vj(3)"], axis=1)(x, x)
        assert threading.active_count() == 1
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
