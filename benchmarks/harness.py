"""The driver's side: peers as processes, samples taken in turn, medians.

Every peer lives in one warm process and only one of them works at a time. For each case all peers
compile first (together, on tiny arrays), then each does the case once (its result is compared with
the oracle), then they are timed in turn, round after round.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.case import Array, Arrays, Case
from benchmarks.quiet import Quiet

ROOT = Path(__file__).resolve().parents[1]
_BUDGET = 3.0  # seconds that one peer may take for the samples of one case
OURS = "pairfold"
CAP = 6.0  # a peer that needs more seconds for a case is not run: its time is estimated


@dataclass
class Peer:
    """How to start a peer: its Python, one option of its own, its environment."""

    name: str
    python: str = sys.executable
    option: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Result:
    """What one peer did on one case; `estimate`: the seconds that the whole would take."""

    peer: str
    estimate: float | None = None
    samples: list[float] = field(default_factory=list)
    disturbed: list[bool] = field(default_factory=list)
    error: float | None = None
    failure: str = ""

    @property
    def clean(self) -> list[float]:
        """The undisturbed samples, or all where fewer than three are undisturbed."""
        good = [s for s, bad in zip(self.samples, self.disturbed, strict=True) if not bad]
        return good if len(good) >= 3 else self.samples

    @property
    def median(self) -> float:
        """The median of the clean samples, or the estimate where there are none."""
        if self.samples:
            return statistics.median(self.clean)
        return math.nan if self.estimate is None else self.estimate

    @property
    def best(self) -> float:
        """The shortest sample."""
        return min(self.samples, default=math.nan)

    @property
    def noisy(self) -> bool:
        """Whether the median rests on disturbed samples."""
        return any(self.disturbed) and self.clean is self.samples


class Process:
    """A peer's running process."""

    def __init__(self, peer: Peer, log: Any) -> None:
        self.peer = peer
        environment = {**os.environ, **peer.environment}
        if peer.name == OURS:
            paths = [str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]
            environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        self._process = subprocess.Popen(
            [peer.python, str(ROOT / "benchmarks" / "worker.py"), peer.name, peer.option],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=environment,
            text=True,
        )
        self.pid = self._process.pid

    def send(self, **request: Any) -> None:
        """Send a request."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()

    def receive(self) -> dict[str, Any]:
        """The answer to the last request."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        return json.loads(line) if line else {"error": "the peer's process has ended"}

    def ask(self, **request: Any) -> dict[str, Any]:
        """Send a request and wait for the answer."""
        self.send(**request)
        return self.receive()

    def close(self) -> None:
        """End the process."""
        self.send(do="quit")
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@contextlib.contextmanager
def processes(peers: Sequence[Peer], log: Path) -> Generator[list[Process], None, None]:
    """The peers' processes; what they print goes to `log`."""
    with log.open("w") as stream:
        running = [Process(peer, stream) for peer in peers]
        try:
            yield running
        finally:
            for process in running:
                process.close()


@dataclass(frozen=True)
class Stored:
    """The arrays of a case, the oracle's results, and the folder that has the arrays as files."""

    arrays: Arrays
    exact: Sequence[Array]
    folder: Path


@contextlib.contextmanager
def _stored(case: Case, rows: int, columns: int, folder: Path) -> Generator[Stored, None, None]:
    """The case's arrays, and the same as files in a new folder."""
    arrays = case.arrays(0, rows, columns)
    place = Path(tempfile.mkdtemp(dir=folder))
    (place / "results").mkdir()
    for name, array in arrays.items():
        np.save(place / f"{name}.npy", array)
    try:
        yield Stored(arrays, case.exact(arrays), place)
    finally:
        shutil.rmtree(place)


def measure(
    case: Case,
    size: tuple[int, int],
    running: Sequence[Process],
    rounds: int,
    shortest: float,
    quiet: Quiet,
    folder: Path,
    say: Callable[[str], None],
) -> dict[str, Result]:
    """All peers on one case, by name; peers without a method for it are left out.

    A sample consists of as many calls as take `shortest` seconds.
    """
    say(f"{case.name}: compiling")
    able = _warm(case, running)
    results = {p.peer.name: Result(p.peer.name, failure=why) for p, why in able}
    with _stored(case, *size, folder) as stored:
        plans = {}
        for process, why in able:
            if not why and not _slow(case, size, process, results):
                say(f"{case.name}: {process.peer.name}, first run")
                seconds = _first(case, process, stored, results, quiet)
                repeats = max(1, math.ceil(shortest / seconds))
                plans[process] = repeats, max(1, round(_BUDGET / seconds))
        for number in range(rounds):
            for process, (repeats, wanted) in plans.items():
                result = results.get(process.peer.name)
                if result and not result.failure and len(result.samples) < min(rounds, wanted):
                    say(f"{case.name}: {process.peer.name}, round {number + 1}")
                    _sample(process, repeats, result, quiet)
    return results


def _warm(case: Case, running: Sequence[Process]) -> list[tuple[Process, str]]:
    """Peers that can do the case, each with what went wrong, if anything."""
    for process in running:
        process.send(do="warm", case=case.name)
    able = []
    for process in running:
        answer = process.receive()
        if not answer.get("skip"):
            able.append((process, answer.get("error", "")))
    return able


def _slow(case: Case, size: tuple[int, int], process: Process, results: dict[str, Result]) -> bool:
    """Whether a part of a heavy case shows that a peer, not us, is too slow for all of it."""
    if process.peer.name == OURS or not case.heavy(*size):
        return False
    result = results[process.peer.name]
    answer = process.ask(do="probe", case=case.name, size=size)
    result.failure = answer.get("error", "")
    if "seconds" in answer and answer["seconds"] > CAP:
        result.estimate = answer["seconds"]
    if answer.get("skip"):
        del results[process.peer.name]
    return bool(answer.get("skip") or result.failure or result.estimate)


def _first(
    case: Case,
    process: Process,
    stored: Stored,
    results: dict[str, Result],
    quiet: Quiet,
) -> float:
    """Run the case once and check the result; the seconds of a call, infinite for a failure."""
    result = results[process.peer.name]
    calm = quiet.wait()
    meter = quiet.others(process.pid)
    folder, stem = stored.folder, process.peer.name.replace(" ", "-")
    answer = process.ask(
        do="load", case=case.name, folder=str(folder), stem=stem, names=list(stored.arrays)
    )
    if answer.get("skip"):
        del results[process.peer.name]
        return math.inf
    if "error" in answer:
        result.failure = answer["error"]
        return math.inf
    if answer["files"]:
        sampled = [np.load(folder / "results" / file) for file in answer["files"]]
        result.error = case.error(stored.arrays, sampled, stored.exact)
    seconds = answer["seconds"]
    if answer["sample"]:
        result.samples.append(seconds)
        result.disturbed.append(not calm or meter.disturbed())
    return seconds


def _sample(process: Process, repeats: int, result: Result, quiet: Quiet) -> None:
    calm = quiet.wait()
    meter = quiet.others(process.pid)
    answer = process.ask(do="time", repeats=repeats)
    if "error" in answer:
        result.failure = answer["error"]
        return
    result.samples.append(answer["seconds"])
    result.disturbed.append(not calm or meter.disturbed())
