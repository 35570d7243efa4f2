"""The text of results.md: tables of medians, errors and ratios."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.cases import CASES, Case
from benchmarks.harness import Result

OURS, SHIPPED, TUNED = "pairfold", "PyKeOps", "PyKeOps tuned"
Results = Mapping[str, Mapping[str, Result]]

PEERS_TEXT = """\
Peers: *pairfold*; *PyKeOps* 2.3 as shipped; *PyKeOps tuned*: `CXXFLAGS="-march=native
-ffast-math"` and `sum_scheme="direct_sum"`; *torch products* and *torch differences*: torch in
chunks of rows of 16 MB with preallocated buffers, squared distances from one matrix product
(fast, but it cancels: see the errors) or coordinate by coordinate (gradients are derived by hand;
for small arrays it is the dense program through autograd); *C++*: `reference.cpp`, g++ with
`-O3 -march=native -ffast-math -fopenmp`, *512-bit* with `-mprefer-vector-width=512` in addition;
*memory*: reading the inputs and writing the outputs, nothing else.

Each peer is one warm process; peers take turns, one at a time. Before each sample the driver waits
for the machine to be quiet. Median of the samples that others did not disturb; `†`: fewer than
three were undisturbed (compare the best). `x PyKeOps`: time of PyKeOps as shipped over this
peer's, medians. Error: max|out - exact| / max|exact| against float64 on 300 rows, the worst over
results; an index counts as the value of the pair that it points at. Gradients are the backward pass
alone unless the case says otherwise.
"""


@dataclass(frozen=True)
class Fresh:
    """A row of the table of fresh processes: its name, what it is, and the limit in seconds."""

    name: str
    says: str
    limit: float


def seconds(value: float) -> str:
    """A time with three digits."""
    return "-" if math.isnan(value) else f"{value:.3g}"


def ratio(value: float) -> str:
    """A ratio with three digits, without exponents."""
    if math.isnan(value):
        return "-"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"


def _of(results: Mapping[str, Result], peer: str) -> float:
    return results[peer].median if peer in results else math.nan


def fastest(results: Mapping[str, Result], start: str) -> str:
    """The peer with the shortest median among those whose name begins so; "" for none."""
    able = [name for name, r in results.items() if name.startswith(start) and r.samples]
    return min(able, key=lambda name: results[name].median, default="")


def best_of(results: Mapping[str, Result], start: str) -> float:
    """The shortest median among peers whose name begins so."""
    return _of(results, fastest(results, start))


def program(case: Case) -> str:
    """The reduction of a case, with its formula."""
    more = [f"K={case.opt_arg}"] if case.opt_arg else []
    more += [f"weight={case.formula2}"] if case.formula2 else []
    return f"{case.reduction_op}({', '.join([case.formula, *more])})"


def case_title(case: Case, size: tuple[int, int]) -> str:
    """What a case computes, in a line."""
    formula = case.formula if case.reduction_op == "Sum" else program(case)
    what = {"forward": "", "gradient": ", backward pass", "both": ", forward and backward"}
    wrt = f" for {', '.join(case.wrt)}" if case.wrt else ""
    return (
        f"**{case.name}**: `{formula}`, M = {size[0]}, N = {size[1]}, {case.dtype}, "
        f"{', '.join(f'{k}: {d}' for k, d in case.dims.items())}, through {case.front}"
        f"{what[case.what]}{wrt}"
    )


def peer_table(results: Mapping[str, Result], pairs: int | None) -> str:
    """One case: a row per peer."""
    shipped = _of(results, SHIPPED)
    rows = []
    for name, result in results.items():
        if not result.samples:
            rows.append([name, f"failed: {result.failure}", "-", "-", "-", "-"])
            continue
        rate = ratio(pairs / result.median / 1e9) if pairs else "-"
        error = "-" if result.error is None else f"{result.error:.1e}"
        mark = " †" if result.noisy else ""
        rows.append(
            [name, seconds(result.median) + mark, seconds(result.best), rate,
             ratio(shipped / result.median), error]
        )  # fmt: skip
    head = ["peer", "median s", "best s", "Gpairs/s", "x PyKeOps", "error"]
    return table(head, rows)


def _error(results: Mapping[str, Result], peer: str) -> str:
    error = results[peer].error if peer in results else None
    return "-" if error is None else f"{error:.1e}"


def group_table(results: Results, sizes: Mapping[str, tuple[int, int]]) -> str:
    """A group of cases that differ by little: a row per case, without empty columns."""
    head = [
        "reduction", "ours s", "Gpairs/s", "PyKeOps s", "tuned s", "best torch s", "best C++ s",
        "x PyKeOps", "x tuned", "x torch", "x C++", "our error", "PyKeOps error", "torch error",
    ]  # fmt: skip
    rows = []
    for name, found in results.items():
        peers = [OURS, SHIPPED, TUNED, fastest(found, "torch"), fastest(found, "C++")]
        ours, *others = (_of(found, peer) for peer in peers)
        times = [
            seconds(_of(found, peer)) + (" †" if peer in found and found[peer].noisy else "")
            for peer in peers
        ]
        rows.append(
            [f"`{program(CASES[name])}`", times[0],
             ratio(sizes[name][0] * sizes[name][1] / ours / 1e9), *times[1:],
             *(ratio(other / ours) for other in others),
             *(_error(found, peers[k]) for k in (0, 1, 3))]
        )  # fmt: skip
    kept = [k for k in range(len(head)) if any(row[k] != "-" for row in rows)]
    return table([head[k] for k in kept], [[row[k] for k in kept] for row in rows])


def _verdict(case: Any, ours: float, gain: float, results: Results) -> tuple[str, str]:
    """(floor, met?) of a case, as text."""
    if getattr(case, "floor", None) is not None:
        return f"{case.floor:g} x", _yes(gain >= case.floor, gain)
    if case.limit is not None:
        return f"< {1e3 * case.limit:g} ms", _yes(ours < case.limit, ours)
    if case.relative is not None:
        other, factor = case.relative
        base = _of(results.get(other, {}), OURS)
        return f"<= {factor:g} x {other} ({ratio(ours / base)})", _yes(
            ours <= factor * base, ours / base
        )
    return "-", "-"


def _yes(met: bool, value: float) -> str:
    return "-" if math.isnan(value) else "yes" if met else "**no**"


@dataclass(frozen=True)
class _NoFloor:
    limit: float
    relative: None = None


def summary(results: Results, fresh: Sequence[Fresh]) -> str:
    """One row per case: ours against the others, and the floors."""
    limits: dict[str, Any] = {row.name: _NoFloor(row.limit) for row in fresh}
    rows = []
    for name, found in results.items():
        case = CASES.get(name) or limits[name]
        ours, shipped = _of(found, OURS), _of(found, SHIPPED)
        cpp, memory, torch = (best_of(found, start) for start in ("C++", "memory", "torch"))
        floor, met = _verdict(case, ours, shipped / ours, results)
        if not math.isnan(memory):
            floor = f"memory {seconds(memory)} s ({ratio(ours / memory)} x)"
        rows.append(
            [name, *(seconds(t) for t in (ours, shipped, _of(found, TUNED), torch, cpp)),
             ratio(shipped / ours), ratio(cpp / ours), floor, met]
        )  # fmt: skip
    head = [
        "case", "ours s", "PyKeOps s", "tuned s", "best torch s", "best C++ s", "x PyKeOps",
        "x C++", "floor", "met?",
    ]  # fmt: skip
    return table(head, rows)
