"""Calls on a device: first ones, that compile, and warm ones on small arrays."""

from __future__ import annotations

import importlib
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.gpu_measure import Device
from benchmarks.gpu_peers import first_line
from benchmarks.tables import seconds, table

_ROWS = 100
_ERROR = 1e-4

# Formulas that nothing else here has compiled: only their constants are unusual.
_FORMULAS: dict[str, tuple[str, str, int | None]] = {
    "Gaussian sum": ("Exp(-SqDist(x,y)*(11/32))*b", "Sum", None),
    "log-sum-exp": ("-SqDist(x,y)*(11/32)", "LogSumExp", None),
    "10 nearest": ("SqDist(x,y)*(11/32)", "ArgKMin", 10),
}
_LAZY = "Gaussian sum by LazyTensor"


@dataclass
class Call:
    """The first call of a formula, and warm ones: until the result is there, and one by one."""

    name: str
    first: float = math.nan
    alone: float = math.nan
    queued: float = math.nan
    failure: str = ""


def programs(v: dict[str, Any]) -> dict[str, Callable[[], Any]]:
    """What is called, by name."""
    library = importlib.import_module("pairfold.torch")
    aliases = ["x = Vi(3)", "y = Vj(3)", "b = Vj(1)"]

    def genred(formula: str, op: str, length: int | None) -> Callable[[], Any]:
        fold = library.Genred(formula, aliases, op, axis=1, opt_arg=length)
        return lambda: fold(v["x"], v["y"], v["b"])

    def lazy() -> Any:
        x, y = library.LazyTensor(v["x"][:, None]), library.LazyTensor(v["y"][None])
        return (-((x - y) ** 2).sum(-1) * (11 / 32)).exp() @ v["b"]

    return {name: genred(*given) for name, given in _FORMULAS.items()} | {_LAZY: lazy}


def measure(device: Device, repeats: int) -> list[Call]:
    """Latencies of all programs; a wrong or missing result is a failure."""
    torch = device.torch
    made = torch.Generator().manual_seed(0)
    shapes = {"x": (_ROWS, 3), "y": (_ROWS, 3), "b": (_ROWS, 1)}
    drawn = {name: torch.randn(*shape, generator=made).numpy() for name, shape in shapes.items()}
    v = device.place(drawn, "float32")
    found: list[Call] = []
    for name, work in programs(v).items():
        call = Call(name)
        found.append(call)
        try:
            call.first = device.whole(work)
            call.failure = _mistake(name, work(), v)
            call.alone = statistics.median(device.whole(work) for _ in range(repeats))
            call.queued = _queued(device, work, repeats)
        except Exception as error:
            call.failure = first_line(error)
    return found


def _queued(device: Device, work: Callable[[], Any], repeats: int) -> float:
    """The time of a call among many that do not wait for each other, by the clock."""

    def many() -> None:
        for _ in range(repeats):
            work()

    return device.whole(many) / repeats


def _mistake(name: str, found: Any, v: dict[str, Any]) -> str:
    """What is wrong with the result of a Gaussian sum; the others are checked elsewhere."""
    if not name.startswith("Gaussian"):
        return ""
    x, y, b = (v[key].double().cpu() for key in ("x", "y", "b"))
    exact = (x[:, None] - y).square().sum(-1).mul(-11 / 32).exp() @ b
    error = float((found.double().cpu() - exact).abs().max() / exact.abs().max())
    return "" if error <= _ERROR else f"wrong: error {error:.1e}"


def text(calls: Sequence[Call]) -> str:
    """The table of calls."""
    rows = [
        [c.name, *(seconds(t) for t in (c.first, c.alone, c.queued)), c.failure or "-"]
        for c in calls
    ]
    head = ["program", "first call s", "warm call s", "one of many s", "failure"]
    about = (
        f"M = N = {_ROWS}, D = 3, float32. The first call of a formula compiles it. A warm call: "
        "until its result is there. One of many: calls that do not wait for each other.\n"
    )
    return f"{about}\n{table(head, rows)}"
