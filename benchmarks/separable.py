"""Sums that are short sums of products, without pairs and over pairs, in the same run.

    python benchmarks/separable.py --write benchmarks/separable.md

In each round every program runs once, in turn, so that what else the machine does meets all; the
figures are medians of the rounds. With a million rows, the programs over pairs have a hundredth of
them, once, and their time is multiplied. Errors are those of 50 rows, relative to the largest
result, against NumPy in float64; gradients are those to all arguments, in torch.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pairfold import Genred
from pairfold.settings import available_cpus, settings

HEAD = """# Sums without pairs

Written by `python benchmarks/separable.py --write benchmarks/separable.md` on {cpus} CPUs
({machine}), NumPy {numpy}, torch {torch}, float32, {rounds} interleaved rounds; medians, in ms, in
parentheses the fastest round. `~`: of a hundredth of the rows, once, times a hundred. Errors are
relative to the largest result, against float64. By hand: the same moments in NumPy, in float64.
Other programs used the processors at the same time: ratios of a line say more than its times.

"""
TABLE = """## {points} x {points}

| Sum | rank | without pairs | over pairs | x | error | over pairs | by hand |
|---|---|---|---|---|---|---|---|
"""
GRADIENTS = """
Forward and gradients to all arguments, in torch:

| Sum | without pairs | over pairs | x |
|---|---|---|---|
"""
_SHOWN = 50


def seed_by_hand(p: Any, a: Any, x: Any, y: Any) -> Any:
    """Square(p-a)*Exp(x+y) by its three moments."""
    p, a, x, y = (each.astype(np.float64) for each in (p, a, x, y))
    e = np.exp(y)
    moments = e.sum(0), (a * e).sum(0), (a * a * e).sum(0)
    return np.exp(x) * (p * p * moments[0] - 2 * p * moments[1] + moments[2])


def distances_by_hand(x: Any, y: Any, b: Any) -> Any:
    """SqDist(x,y)*b by its five moments."""
    x, y, b = (each.astype(np.float64) for each in (x, y, b))
    squares = (x * x).sum(1, keepdims=True) * b.sum()
    return squares - 2 * x @ (y.T @ b) + ((y * y).sum(1, keepdims=True) * b).sum()


XYB = ["x = Vi(3)", "y = Vj(3)", "b = Vj(1)"]
SUMS: dict[str, tuple[str, list[str], Callable[..., Any], Callable[..., Any] | None]] = {
    "`Square(p-a)*Exp(x+y)`, p of rows": (
        "Square(p-a)*Exp(x+y)",
        ["p = Vi(1)", "a = Vj(1)", "x = Vi(3)", "y = Vj(3)"],
        lambda p, a, x, y: ((p[:, None] - a) ** 2 * np.exp(x[:, None] + y)).sum(1),
        seed_by_hand,
    ),
    "the same, p a parameter": (
        "Square(p-a)*Exp(x+y)",
        ["p = Pm(1)", "a = Vj(1)", "x = Vi(3)", "y = Vj(3)"],
        lambda p, a, x, y: ((p - a) ** 2 * np.exp(x[:, None] + y)).sum(1),
        None,
    ),
    "`SqDist(x,y)*b`": (
        "SqDist(x,y)*b",
        XYB,
        lambda x, y, b: (((x[:, None] - y) ** 2).sum(-1, keepdims=True) * b).sum(1),
        distances_by_hand,
    ),
    "the same, data shifted by 1e4": (
        "SqDist(x,y)*b",
        XYB,
        lambda x, y, b: (((x[:, None] - y) ** 2).sum(-1, keepdims=True) * b).sum(1),
        None,
    ),
    "`Square((x\\|y)+1)*b`": (
        "Square((x|y)+1)*b",
        XYB,
        lambda x, y, b: (x @ y.T + 1) ** 2 @ b,
        None,
    ),
    "`(Exp(x)\\|Exp(y))*b`, D = 16, E = 16": (
        "(Exp(x)|Exp(y))*b",
        ["x = Vi(16)", "y = Vj(16)", "b = Vj(16)"],
        lambda x, y, b: np.exp(x) @ np.exp(y).T @ b,
        lambda x, y, b: np.exp(x.astype("f8")) @ (np.exp(y.astype("f8")).T @ b.astype("f8")),
    ),
}


def arrays_of(name: str, points: int) -> list[Any]:
    """Float32 data of a sum."""
    random = np.random.default_rng(0)
    found: list[Any] = []
    for alias in SUMS[name][1]:
        dim = int(alias.partition("(")[2][:-1])
        array = random.standard_normal(dim if "Pm" in alias else (points, dim))
        shift = 1e4 if "shifted" in name and not alias.startswith("b") else 0
        array = np.abs(array) if alias.startswith("b") else array + shift
        found.append(array.astype(np.float32))
    return found


def measured(
    programs: Sequence[Callable[[], object]], rounds: int
) -> tuple[list[float], list[float]]:
    """Medians and minima in ms; programs are called before, so that they are compiled."""
    spent: list[list[float]] = [[] for _ in programs]
    for program in programs:
        program()
    for _ in range(rounds):
        for program, times in zip(programs, spent, strict=True):
            start = time.perf_counter()
            program()
            times.append(1000 * (time.perf_counter() - start))
    return [statistics.median(times) for times in spent], [min(times) for times in spent]


def over_pairs(program: Callable[[], object]) -> Callable[[], object]:
    """The program, over pairs."""

    def run() -> object:
        with settings(separable="never"):
            return program()

    return run


def some_rows(name: str, arrays: Sequence[Any], count: int) -> list[Any]:
    """Arrays with fewer rows."""
    aliases = SUMS[name][1]
    return [a[:count] if "Vi" in alias else a for a, alias in zip(arrays, aliases, strict=True)]


def row(name: str, points: int, rounds: int) -> str:
    """A line of the table."""
    formula, aliases, dense, by_hand = SUMS[name]
    genred = Genred(formula, aliases, axis=1)
    arrays = arrays_of(name, points)
    part = 100 if points > 100_000 else 1
    some = some_rows(name, arrays, points // part)
    programs = [lambda: genred(*arrays)]
    programs += [] if by_hand is None else [lambda: by_hand(*arrays)]
    pairs = over_pairs(lambda: genred(*some))
    if part == 1:
        spent, fastest = measured([*programs, pairs], rounds)
        slow = spent.pop()
    else:
        spent, fastest = measured(programs, rounds)
        slow = part * measured([pairs], 1)[0][0]
    few = some_rows(name, arrays, _SHOWN)
    exact = dense(*(each.astype(np.float64) for each in few))
    errors = [
        np.abs(np.asarray(result)[:_SHOWN] - exact).max() / np.abs(exact).max()
        for result in (genred(*arrays), over_pairs(lambda: genred(*few))())
    ]
    rank = genred.explain(*arrays).separable.partition(",")[0].removeprefix("rank ")
    hand = "" if by_hand is None else f"{spent[1]:.1f} ({fastest[1]:.1f})"
    mark = "~" if part > 1 else ""
    return (
        f"| {name} | {rank} | {spent[0]:.2f} ({fastest[0]:.2f}) | {mark}{slow:.1f} | "
        f"{mark}{slow / spent[0]:.0f} | "
        f"{errors[0]:.1e} | {errors[1]:.1e} | {hand} |\n"
    )


def gradient_row(name: str, points: int, rounds: int) -> str:
    """A line of the table of gradients."""
    formula, aliases, _, _ = SUMS[name]
    genred = Genred(formula, aliases, axis=1)
    part = 100 if points > 100_000 else 1
    arrays = arrays_of(name, points)

    def gradients(count: int) -> Callable[[], object]:
        given = [torch.tensor(a, requires_grad=True) for a in some_rows(name, arrays, count)]
        return lambda: torch.autograd.grad(genred(*given).sum(), given)

    fast, slow = gradients(points), over_pairs(gradients(points // part))
    if part == 1:
        spent, fastest = measured([fast, slow], rounds)
    else:
        spent, fastest = measured([fast], rounds)
        spent.append(part * measured([slow], 1)[0][0])
    mark = "~" if part > 1 else ""
    times = f"{spent[0]:.2f} ({fastest[0]:.2f}) | {mark}{spent[1]:.0f}"
    return f"| {name} | {times} | {mark}{spent[1] / spent[0]:.0f} |\n"


def machine() -> str:
    """What the processor calls itself."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return "unknown"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, nargs="*", default=[20_000, 1_000_000])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--write", type=Path)
    given = parser.parse_args()
    versions = {"numpy": np.__version__, "torch": torch.__version__}
    text = HEAD.format(cpus=available_cpus(), machine=machine(), rounds=given.rounds, **versions)
    for points in given.points:
        text += TABLE.format(points=points)
        text += "".join(row(name, points, given.rounds) for name in SUMS)
        text += GRADIENTS
        text += (
            "".join(gradient_row(name, points, given.rounds) for name in list(SUMS)[:4:2]) + "\n"
        )
    text = text.rstrip() + "\n"
    print(text)
    if given.write:
        given.write.write_text(text)


if __name__ == "__main__":
    main()
