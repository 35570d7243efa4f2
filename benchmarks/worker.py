"""One peer's process: reads requests as JSON lines, answers with JSON lines.

Requests: {"do": "warm" | "probe" | "load" | "time" | "versions" | "quit", ...}. Arrays come and
go as .npy files in the folder that a request names. Whatever a library prints goes to the error
stream.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from benchmarks import peers
from benchmarks.case import sample_rows
from benchmarks.cases import CASES
from benchmarks.peers.base import Skip

_TINY = (40, 150)
_LONG = 1.0
_PART = 8


class Worker:
    """Keeps a peer and the work it is prepared for."""

    def __init__(self, name: str, option: str) -> None:
        self.peer = peers.make(name, option)
        self.shaped = getattr(self.peer, "shaped", False)
        self.work: Callable[[], Any] = lambda: ()

    def warm(self, request: dict[str, Any]) -> dict[str, Any]:
        """Do the case on tiny arrays: whatever must be compiled is compiled.

        A peer that compiles for sizes only tells whether it can do the case.
        """
        case = CASES[request["case"]]
        if self.shaped:
            self.peer.prepare(case, case.arrays(1, *_TINY))
            return {}
        start = time.perf_counter()
        self.peer.prepare(case, case.arrays(1, *_TINY))()
        return {"seconds": time.perf_counter() - start}

    def probe(self, request: dict[str, Any]) -> dict[str, Any]:
        """Do a part of the case, and say how long all of it would take."""
        case, (rows, columns) = CASES[request["case"]], request["size"]
        part = (max(1, rows // _PART), max(1, columns // _PART))
        work = self.peer.prepare(case, case.arrays(2, *part))
        work()
        start = time.perf_counter()
        work()
        seconds = time.perf_counter() - start
        return {"seconds": seconds * rows * columns / (part[0] * part[1])}

    def load(self, request: dict[str, Any]) -> dict[str, Any]:
        """Prepare the case on the driver's arrays, run it, leave sampled rows of the results."""
        case, folder = CASES[request["case"]], Path(request["folder"])
        arrays = {path.stem: np.load(path) for path in sorted(folder.glob("*.npy"))}
        arrays = {name: arrays[name] for name in request["names"]}
        self.work = self.peer.prepare(case, arrays)
        if self.shaped:
            self.work()
        start = time.perf_counter()
        results = self.work()
        seconds = time.perf_counter() - start
        files = []
        for number, result in enumerate(_flat(results)):
            rows = np.asarray(result)[sample_rows(len(result))]
            files.append(f"{request['stem']}-{number}.npy")
            np.save(folder / "results" / files[-1], rows)
        del results
        if seconds < _LONG:
            seconds = self._time(1)
        return {"seconds": seconds, "sample": seconds >= _LONG, "files": files}

    def time(self, request: dict[str, Any]) -> dict[str, Any]:
        """The mean time of some calls in a row."""
        return {"seconds": self._time(request["repeats"])}

    def versions(self, request: dict[str, Any]) -> dict[str, Any]:
        """Versions of what this peer uses."""
        return {"versions": self.peer.versions()}

    def _time(self, repeats: int) -> float:
        work = self.work
        start = time.perf_counter()
        for _ in range(repeats):
            work()
        return (time.perf_counter() - start) / repeats


def _flat(results: Any) -> list[Any]:
    """The results one by one; some reductions give a pair of them."""
    return [part for r in results for part in (r if isinstance(r, tuple) else (r,))]


def _answer(worker: Worker, request: dict[str, Any]) -> dict[str, Any]:
    try:
        answer = getattr(worker, request["do"])(request)
    except Skip:
        return {"skip": True}
    except Exception as error:
        traceback.print_exc()
        return {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
    if not math.isfinite(answer.get("seconds", 0.0)):
        return {"error": "no time"}
    return answer


def main() -> None:
    """Serve requests until there are no more."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    worker = Worker(*sys.argv[1:3])
    for line in sys.stdin:
        request = json.loads(line)
        if request["do"] == "quit":
            break
        answers.write(json.dumps(_answer(worker, request)) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
