"""Is the machine quiet? Load of other processes, from /proc; no answer on other systems."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path

_STAT = Path("/proc/stat")
_LOOK = 0.2  # seconds that one look at the machine takes
_CORES = 0.15  # cores that others may use on a quiet machine
_FRESH = 1.0  # seconds for which a look at a quiet machine counts
_EACH = 5.0  # seconds that one sample waits at most


def busy_seconds() -> float:
    """CPU seconds that all processes (and other guests of the host) have used since boot."""
    fields = [int(field) for field in _STAT.read_text().split("\n")[0].split()[1:9]]
    idle = fields[3] + fields[4]
    return (sum(fields) - idle) / os.sysconf("SC_CLK_TCK")


def process_seconds(pid: int) -> float:
    """CPU seconds that one process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@dataclass
class Quiet:
    """Waits for a quiet machine, `patience` seconds in the whole run."""

    patience: float
    known: bool = field(default_factory=_STAT.exists)
    waited: float = 0.0
    looked: float = -_FRESH
    calm: bool = False

    def wait(self) -> bool:
        """Wait until others use little; False if they never did.

        Where patience is at its end, one look a second is enough.
        """
        if not self.known:
            return True
        start = time.perf_counter()
        tired = self.waited >= self.patience
        if start - self.looked < _FRESH and (self.calm or tired):
            return self.calm
        while True:
            before = busy_seconds()
            time.sleep(_LOOK)
            self.looked = time.perf_counter()
            self.calm = busy_seconds() - before < _CORES * _LOOK
            passed = self.looked - start
            if self.calm:
                return True
            if passed > _EACH or self.waited + passed > self.patience:
                self.waited += passed
                return False

    def others(self, pid: int) -> Meter:
        """A meter of what processes other than `pid` use from now on."""
        return Meter(self.known, pid)


class Meter:
    """Cores that other processes used since it was made; 0 for what is too short to tell."""

    def __init__(self, known: bool, pid: int) -> None:
        self._known, self._pid = known, pid
        self._start = time.perf_counter()
        self._used = self._read()

    def _read(self) -> float:
        return busy_seconds() - process_seconds(self._pid) if self._known else 0.0

    def disturbed(self) -> bool:
        """Whether others used more than they may."""
        passed = time.perf_counter() - self._start
        return passed > 2 * _LOOK and (self._read() - self._used) / passed > _CORES
