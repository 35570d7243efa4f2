"""Times on a device: samples taken in turn, errors beside them, within a budget of seconds."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.case import SAMPLE, Array, Arrays, sample_rows
from benchmarks.gpu_cases import BOUND, TIMED, Timed
from benchmarks.gpu_peers import NO_METHOD, first_line, unfit
from benchmarks.harness import OURS, Result
from benchmarks.peers.base import Skip, Work
from benchmarks.worker import _flat

CAP = 5.0  # seconds that a call may take
_SHARE = 1.0  # seconds that the samples of one peer and case may take together
_ORACLE_PAIRS = 10_000_000  # fewer in many dimensions


class Budget:
    """Seconds that may be spent, counted from when it is made."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.perf_counter) -> None:
        self.clock = clock
        self.start = clock()
        self.end = self.start + seconds

    @property
    def spent(self) -> float:
        """Seconds since the start."""
        return self.clock() - self.start

    def allows(self, seconds: float = 0.0) -> bool:
        """Whether so many seconds are left, and more."""
        return self.clock() + seconds < self.end

    def part(self, share: float) -> Budget:
        """A budget that ends when this share of what is left is spent."""
        return Budget(share * (self.end - self.clock()), self.clock)


class Device:
    """Where tensors are, and how time is measured there."""

    def __init__(self, torch: Any, name: str) -> None:
        self.torch = torch
        self.device = torch.device(name)
        self.accelerated = self.device.type == "cuda"
        if self.accelerated:
            torch.cuda.set_device(self.device)

    def wait(self) -> None:
        """Until everything is done."""
        if self.accelerated:
            self.torch.cuda.synchronize()

    def free(self) -> None:
        """Give back memory that is kept for later."""
        if self.accelerated:
            self.torch.cuda.empty_cache()

    def seconds(self, work: Callable[[], Any], repeats: int = 1) -> float:
        """The mean time of some calls in a row: events on a GPU, else the clock."""
        self.wait()
        if not self.accelerated:
            start = time.perf_counter()
            for _ in range(repeats):
                work()
            return (time.perf_counter() - start) / repeats
        first, last = (self.torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()
        for _ in range(repeats):
            work()
        last.record()
        last.synchronize()
        return first.elapsed_time(last) / 1e3 / repeats

    def whole(self, work: Callable[[], Any]) -> float:
        """The time of one call until its result is there, by the clock."""
        self.wait()
        start = time.perf_counter()
        work()
        self.wait()
        return time.perf_counter() - start

    def place(self, arrays: Arrays, dtype: str) -> dict[str, Any]:
        """Arrays as tensors there."""
        kind = getattr(self.torch, dtype)
        return {
            name: self.torch.as_tensor(a).to(device=self.device, dtype=kind)
            for name, a in arrays.items()
        }


def exact_arrays(tensors: dict[str, Any]) -> Arrays:
    """Tensors as float64 arrays."""
    return {name: t.detach().double().cpu().numpy() for name, t in tensors.items()}


class Oracle:
    """The sampled rows of a case's results in float64."""

    def __init__(self, timed: Timed, tensors: dict[str, Any]) -> None:
        arrays = exact_arrays(tensors)
        self.timed, self.rows = timed, None
        if timed.of:
            length, other = (len(arrays[name]) for name in ("xy" if timed.of == "x" else "yx"))
            numbers = max(1, other) * (1 + timed.case.dims["x"] // 16)
            most = max(1, min(SAMPLE, length, _ORACLE_PAIRS // numbers))
            self.rows = np.sort(np.random.default_rng(0).choice(length, most, replace=False))
            arrays |= {name: arrays[name][self.rows] for name in timed.kept}
        self.arrays = arrays
        self.exact: Sequence[Array] = timed.case.oracle(arrays)

    def error(self, torch: Any, results: Sequence[Any]) -> float:
        """The largest error of a peer's results."""
        sampled = []
        for result in _flat(results):
            rows = sample_rows(len(result)) if self.rows is None else self.rows
            found = result.detach()[torch.as_tensor(rows, device=result.device)]
            sampled.append((found.double() if found.is_floating_point() else found).cpu().numpy())
        return self.timed.case.error(self.arrays, sampled, self.exact)


@dataclass
class Ready:
    """A peer that did a case: its work, the time of one call, calls in a sample, samples."""

    result: Result
    work: Work
    seconds: float
    repeats: int
    rounds: int


@dataclass
class Speed:
    """All peers on the cases, one after the other.

    Args:
        device: where to measure.
        peers: how to make each peer, ours first.
        absent: why a peer cannot take part, by name.
        budget: the seconds that all of it may take.
        sizes: the rows and columns of a case.
        rounds, shortest: samples of a peer and case, and the seconds that one takes at least.
        wrong: reductions whose results are wrong, so that nothing is said of their speed.
        say: tells of progress.
    """

    device: Device
    peers: dict[str, Callable[[], Any]]
    absent: dict[str, str]
    budget: Budget
    sizes: Callable[[Timed], tuple[int, int]]
    rounds: int
    shortest: float
    wrong: frozenset[str]
    say: Callable[[str], None]
    results: dict[str, dict[str, Result]] = field(default_factory=dict)
    reasons: list[tuple[str, str, str]] = field(default_factory=list)
    moved: dict[str, float] = field(default_factory=dict)
    asked: int = 0
    mistakes: list[str] = field(default_factory=list)
    _compiling: dict[str, float] = field(default_factory=dict)
    _made: dict[str, Any] = field(default_factory=dict)

    def run(self, cases: Sequence[Timed], after: Callable[[], None] = lambda: None) -> None:
        """Measure the cases in this order; `after` each of them something may be done."""
        self.asked += len(cases)
        for timed in cases:
            name, op = timed.case.name, timed.case.reduction_op
            if op in self.wrong:
                self.reasons.append((name, "", f"not timed: {op} is wrong, see Correctness"))
            elif not self.budget.allows():
                self.reasons.append((name, "", "not reached"))
            else:
                self._case(timed)
                after()

    def _case(self, timed: Timed) -> None:
        name, (rows, columns) = timed.case.name, self.sizes(timed)
        self.say(f"{name}: data, {self.budget.spent:.0f} s in all")
        self.results[name] = {}
        able = [peer for peer in self.peers if not self._skipped(timed, peer)]
        if not able:
            return
        drawn = timed.case.draw(np.random.default_rng(0), rows, columns)
        tensors = self.device.place(drawn, timed.case.dtype)
        oracle = Oracle(timed, tensors)
        ready = [found for peer in able if (found := self._first(timed, peer, tensors, oracle))]
        for number in range(self.rounds):
            for one in ready:
                if number < one.rounds and self.budget.allows() and not one.result.failure:
                    self._sample(timed, one)
        for one in ready:
            if not one.result.samples and not one.result.failure:
                self._add(one.result, one.seconds)
        self.device.free()

    def _sample(self, timed: Timed, one: Ready) -> None:
        try:
            self._add(one.result, self.device.seconds(one.work, one.repeats))
        except Exception as error:
            self._fail(timed, one.result, first_line(error))

    def _add(self, result: Result, seconds: float) -> None:
        result.samples.append(seconds)
        result.disturbed.append(False)

    def _fail(self, timed: Timed, result: Result, why: str) -> None:
        """A peer that failed has no time; where it is ours, the run has failed."""
        name = timed.case.name
        self.results[name][result.peer] = Result(result.peer, error=result.error, failure=why)
        self._left_out(timed, result.peer, why)
        if result.peer == OURS:
            self.mistakes.append(f"{name}: {why}")

    def _left_out(self, timed: Timed, peer: str, why: str) -> None:
        self.reasons.append((timed.case.name, peer, why))

    def _skipped(self, timed: Timed, peer: str) -> bool:
        """Whether a peer is not asked, which is noted."""
        why = self.absent.get(peer) or unfit(peer, timed)
        estimate = self._estimate(timed, peer)
        if not why and estimate > CAP:
            why = f"skipped: estimated {estimate:.0f} s"
            self.results[timed.case.name][peer] = Result(peer, estimate=estimate)
        known = 0.0 if math.isnan(estimate) else 2 * estimate
        if not why and not self.budget.allows(known + self._compiling.get(peer, 0.0)):
            why = "not reached"
        if why:
            self._left_out(timed, peer, why)
        return bool(why)

    def _estimate(self, timed: Timed, peer: str) -> float:
        """The seconds that a call should take by what it took, or should have, for fewer pairs."""
        smaller = self.results.get(timed.smaller, {}).get(peer)
        if smaller is None or smaller.failure:
            return math.nan
        less, more = (math.prod(self.sizes(one)) for one in (TIMED[timed.smaller], timed))
        return smaller.median * more / less

    def _first(
        self, timed: Timed, peer: str, tensors: dict[str, Any], oracle: Oracle
    ) -> Ready | None:
        """Do the case once, look at the result, time a second call."""
        name = timed.case.name
        self.say(f"{name}: {peer}")
        result = Result(peer)
        try:
            if peer not in self._made:
                self._made[peer] = self.peers[peer]()
            start = time.perf_counter()
            work = self._made[peer].prepare(timed.case, tensors)
            found = work()
            self.device.wait()
            self._compiling[peer] = max(self._compiling.get(peer, 0.0), time.perf_counter() - start)
            result.error = oracle.error(self.device.torch, found)
            if peer == OURS:
                self.moved[name] = _bytes([*tensors.values(), *_flat(found)])
            del found
            seconds = self.device.seconds(work)
        except Skip:
            self._left_out(timed, peer, NO_METHOD)
            return None
        except Exception as error:
            self._fail(timed, result, first_line(error))
            return None
        finally:
            self.device.free()
        bound = BOUND[timed.case.dtype]
        if peer == OURS and not result.error <= bound:
            self._fail(timed, result, f"wrong: error {result.error:.1e}, at most {bound:.1e}")
            return None
        self.results[name][peer] = result
        repeats = max(1, math.ceil(self.shortest / seconds))
        return Ready(result, work, seconds, repeats, int(_SHARE / (repeats * seconds)))


def _bytes(tensors: Sequence[Any]) -> float:
    """What is read and written at least once."""
    return float(sum(t.numel() * t.element_size() for t in tensors))
