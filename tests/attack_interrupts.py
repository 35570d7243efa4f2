"""Interrupts at random moments: each call ends soon, the next one is right, nobody waits for ever.

    python tests/attack_interrupts.py --count 1000

In the main thread exceptions come from a signal's handler: one for each call (signals), or one
every few milliseconds (storm). In another thread they come from the interpreter's call for
asynchronous exceptions (threads). Last, each allocation in turn fails (memory), where Python has
the module for it. Every case runs in a process of its own, which has a watchdog.
"""

from __future__ import annotations

import _thread
import argparse
import contextlib
import ctypes
import faulthandler
import importlib
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

SOON = 1.0
_WATCHDOG = 60
_EVERY = 100


HOW = ("signals", "storm", "threads", "memory")
# Where an allocation fails, NumPy's `errstate` and torch's autograd end the process themselves.
_MEMORY = ("small", "middle", "nearest", "compilation")
threads_inside = getattr(sys, "_current_frames")  # noqa: B009


class Interrupted(BaseException):
    """What arrives."""


def _points(rows: int, dim: int = 3, seed: int = 0) -> Any:
    return np.random.default_rng(seed).random((rows, dim))


def _gaussian(x: Any, y: Any, scale: float = 1.0) -> Any:
    return np.exp(-scale * ((x[:, None, :] - y[None, :, :]) ** 2).sum(-1))


def _sums(rows: int, shown: int) -> tuple[Callable[[], Any], Any]:
    """A sum over rows x rows pairs; the first results are compared."""
    from pairfold.numpy import Genred

    x = _points(rows)
    genred = Genred("Exp(-SqDist(x,y))", ["x = Vi(3)", "y = Vj(3)"], axis=1)
    single = x.astype(np.float32)
    return lambda: genred(single, single)[:shown, 0], _gaussian(x[:shown], x).sum(1)


def _nearest() -> tuple[Callable[[], Any], Any]:
    """The nearest, with bounds first."""
    from pairfold.numpy import Genred

    x, y = _points(900, 40), _points(700, 40, 1)
    genred = Genred(
        "SqDist(x,y)", ["x = Vi(40)", "y = Vj(40)"], reduction_op="ArgKMin", axis=1, opt_arg=3
    )
    distances = ((x[:, None, :] - y[None, :, :]) ** 2).sum(-1)
    return lambda: genred(x, y), np.argsort(distances, axis=1)[:, :3]


def _kernel_solve() -> tuple[Callable[[], Any], Any]:
    from pairfold.numpy import KernelSolve

    x = _points(400)
    b = _points(400, 1, 1)
    solve = KernelSolve("Exp(-SqDist(x,y))*b", ["x = Vi(3)", "y = Vj(3)", "b = Vj(1)"], "b", axis=1)
    want = np.linalg.solve(_gaussian(x, x) + np.eye(400), b)
    return lambda: solve(x, x, b, alpha=1.0), want


def _lazy_solve() -> tuple[Callable[[], Any], Any]:
    from pairfold.numpy import Vi, Vj

    x = _points(400)
    b = _points(400, 1, 1)
    want = np.linalg.solve(_gaussian(x, x) + np.eye(400), b)

    def solve() -> Any:
        kernel = (-((Vi(x) - Vj(x)) ** 2).sum(-1)).exp()
        return kernel.solve(Vi(b), alpha=1.0)

    return solve, want


def _compilation() -> tuple[Callable[[], Any], Any]:
    """A formula that was never seen before, in each call."""
    from pairfold.numpy import Genred

    x = _points(50)
    numbers = iter(range(1, 10**9))

    def fresh() -> Any:
        text = f"Exp(-SqDist(x,y))*{next(numbers)}/Sqrt(IntCst(4))"
        scale = float(text.split("*")[1].split("/")[0]) / 2
        return Genred(text, ["x = Vi(3)", "y = Vj(3)"], axis=1)(x, x) / scale

    return fresh, _gaussian(x, x).sum(1)[:, None]


def _gradients() -> tuple[Callable[[], Any], Any]:
    import torch

    from pairfold.torch import Genred

    x = torch.tensor(_points(500), requires_grad=True)
    y = torch.tensor(_points(600, 3, 1), requires_grad=True)
    genred = Genred("Exp(-SqDist(x,y))", ["x = Vi(3)", "y = Vj(3)"], axis=1)

    def gradient() -> Any:
        of_x, of_y = torch.autograd.grad(genred(x, y).sum(), [x, y])
        return np.concatenate([of_x.numpy(), of_y.numpy()])

    a, b = x.detach().numpy(), y.detach().numpy()
    terms = _gaussian(a, b)[:, :, None] * -2 * (a[:, None, :] - b[None, :, :])
    return gradient, np.concatenate([terms.sum(1), -terms.sum(0)])


CASES: dict[str, Callable[[], tuple[Callable[[], Any], Any]]] = {
    "small": lambda: _sums(100, 100),
    "middle": lambda: _sums(600, 600),
    "long": lambda: _sums(20_000, 20),
    "nearest": _nearest,
    "KernelSolve": _kernel_solve,
    "K.solve": _lazy_solve,
    "compilation": _compilation,
    "gradients": _gradients,
}


class Attack:
    """One case, interrupted again and again; `latencies` from the interrupt to its arrival."""

    def __init__(self, case: str, seed: int) -> None:
        self.call, self.want = CASES[case]()
        self.random = random.Random(seed)
        self.latencies: list[float] = []
        self.swallowed = 0
        self.strange: set[str] = set()
        self.sent = 0.0
        sys.unraisablehook = self._unraisable
        self.check()
        start = time.perf_counter()
        self.check()
        self.typical = time.perf_counter() - start

    def _unraisable(self, found: Any) -> None:
        """Python ignores exceptions that arrive in finalizers, after saying so."""
        if isinstance(found.exc_value, Interrupted):
            self.swallowed += 1
        else:
            sys.__unraisablehook__(found)

    def delay(self) -> float:
        return 1e-5 + self.random.random() * min(1.0, 3 * self.typical)

    def check(self) -> None:
        got = np.asarray(self.call())
        if not np.allclose(got, self.want, rtol=1e-4, atol=1e-5):
            raise AssertionError(f"wrong numbers: {np.abs(got - self.want).max()}")

    def until_interrupted(self) -> None:
        """Call until the exception arrives, or is swallowed."""
        known = self.swallowed
        while self.swallowed == known:
            self.call()

    def arrived(self) -> None:
        faulthandler.dump_traceback_later(_WATCHDOG, exit=True)
        self.latencies.append(time.perf_counter() - self.sent)
        self.check()
        if len(self.latencies) % _EVERY == 0:
            self.others()

    def others(self) -> None:
        """Another thread can compile and compute: no lock was left closed."""
        failures: list[BaseException] = []

        def work() -> None:
            try:
                call, want = _compilation()
                assert np.allclose(call(), want)
                self.check()
            except BaseException as error:
                failures.append(error)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        thread.join(20)
        assert not thread.is_alive(), "another thread waits for ever"
        assert not failures, failures[0]

    def by_signals(self, count: int) -> None:
        def handler(*_: object) -> None:
            self.sent = time.perf_counter()
            raise Interrupted

        signal.signal(signal.SIGALRM, handler)
        for _ in range(count):
            try:
                signal.setitimer(signal.ITIMER_REAL, self.delay())
                self.until_interrupted()
            except Interrupted:
                pass
            self.arrived()

    def by_storm(self, count: int) -> None:
        """Exceptions that come while others are being dealt with."""
        number = 0

        def handler(_: int, frame: Any) -> None:
            nonlocal number
            if "pairfold" in frame.f_code.co_filename and number < count:
                number += 1
                raise Interrupted

        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.002, max(0.0005, self.typical / 4))
        while number < count:
            self.sent = time.perf_counter()
            with contextlib.suppress(Interrupted):
                self.call()
            self.latencies.append(time.perf_counter() - self.sent)
        signal.setitimer(signal.ITIMER_REAL, 0)
        self.check()

    def by_memory(self, count: int) -> None:
        """The allocations of Python objects fail, one after the other, in all threads."""
        try:
            capi = importlib.import_module("_testcapi")
        except ImportError:
            print("this Python has no way to let allocations fail")
            return
        for number in range(1, count + 1):
            self.sent = time.perf_counter()
            capi.set_nomemory(number, number + self.random.choice((1, 2, 50)))
            got = None
            try:
                try:
                    got = self.call()
                finally:
                    capi.remove_mem_hooks()
            except Exception as error:
                if "memory" not in repr(error).lower():
                    self.strange.add(repr(error)[:80])
            assert got is None or np.allclose(got, self.want, rtol=1e-4, atol=1e-5)
            self.arrived()

    def by_threads(self, count: int) -> None:
        """The calls are made in a thread, and interrupted from here."""
        sys.setswitchinterval(1e-4)
        ready, done = _thread.allocate_lock(), _thread.allocate_lock()
        ready.acquire()
        done.acquire()
        failures: list[BaseException] = []

        def work() -> None:
            try:
                for _ in range(count):
                    try:
                        ready.release()
                        self.until_interrupted()
                    except Interrupted:
                        pass
                    self.arrived()
                    done.release()
            except BaseException as error:
                failures.append(error)
                done.release()

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        for _ in range(count):
            ready.acquire()
            time.sleep(self.delay())
            self.sent = time.perf_counter()
            target = ctypes.c_ulong(thread.ident or 0)
            ctypes.pythonapi.PyThreadState_SetAsyncExc(target, ctypes.py_object(Interrupted))
            done.acquire()
            if failures:
                raise failures[0]
        thread.join(10)

    def report(self) -> str:
        found = sorted(self.latencies) or [0.0]
        return (
            f"{len(found)} interrupts, {self.swallowed} in finalizers, "
            f"{1e3 * found[len(found) // 2]:.1f} ms, at most {1e3 * found[-1]:.0f} ms, "
            f"{len(threads_inside()) - 1} other threads {self.strange or ''}"
        )


def attack(case: str, how: str, count: int, seed: int, threads: int) -> str:
    """Interrupt a case so often; raises where a call is wrong or late."""
    from pairfold import settings

    faulthandler.enable()
    faulthandler.dump_traceback_later(_WATCHDOG, exit=True)
    settings(threads=threads)
    found = Attack(case, seed)
    getattr(found, f"by_{how}")(count)
    found.others()
    faulthandler.cancel_dump_traceback_later()
    late = [latency for latency in found.latencies if latency > SOON]
    if late:
        raise AssertionError(f"{len(late)} late: {found.report()}")
    return found.report()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--case", choices=CASES)
    parser.add_argument("--how", choices=HOW)
    given = parser.parse_args()
    if given.case and given.how:
        print(attack(given.case, given.how, given.count, given.seed, given.threads))
        return 0
    failed = 0
    for case in [given.case] if given.case else CASES:
        for how in [given.how] if given.how else HOW:
            if how == "memory" and case not in _MEMORY:
                continue
            options = ["--case", case, "--how", how, "--count", str(given.count)]
            options += ["--seed", str(given.seed), "--threads", str(given.threads)]
            start = time.perf_counter()
            done = subprocess.run(
                [sys.executable, __file__, *options], capture_output=True, text=True, check=False
            )
            said = done.stdout.strip() or done.stderr.strip()[-3000:]
            print(f"{case}, {how}: {said} ({time.perf_counter() - start:.0f} s)", flush=True)
            failed += done.returncode != 0
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
