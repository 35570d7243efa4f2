"""What several reductions cost in one call, beside each of them alone, in interleaved rounds.

    python benchmarks/together_passes.py --write benchmarks/together.md

In each round every program runs once, in turn, so that what else the machine does meets all; the
figures are medians of the rounds, and of the ratios within a round.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pairfold import Vi, Vj, together
from pairfold.settings import available_cpus

HEAD = """# Several reductions in one call

Written by `python benchmarks/together_passes.py --write benchmarks/together.md` on {cpus} CPUs of a
machine that other programs used as well; float32, D = {dim}, M = N = {size}, {rounds} interleaved
rounds. "x the dearest": the time of `together` over that of the dearest of its reductions alone in
the same round; "x all": over that of all of them, one after the other. Medians, and of the first
ratio the quartiles.

| Reductions | passes | together, ms | alone, ms | x the dearest | quartiles | x all |
|---|---|---|---|---|---|---|
"""


def programs(x: Any, y: Any, b: Any) -> dict[str, list[Any]]:
    """Reductions of logits, of Gaussian weights, of distances, that wait for their call."""
    D = Vi(x).sqdist(Vj(y))
    logits, weight, gaussian = -D / 2, Vj(b), (-D / 2).exp()
    rows: dict[str, Any] = {"axis": 1, "call": False}
    columns: dict[str, Any] = {"axis": 0, "call": False}
    return {
        "log-sum-exp, its weighted mean (vectors)": [
            logits.logsumexp(**rows),
            logits.sumsoftmaxweight(weight, **rows),
        ],
        "log-sum-exp, its weighted mean (numbers)": [
            logits.logsumexp(**rows),
            logits.sumsoftmaxweight(weight[:, :, :1], **rows),
        ],
        "Gaussian sum, largest distance": [(gaussian * weight).sum(**rows), D.max(**rows)],
        "nearest, furthest, mean distance": [
            D.min_argmin(**rows),
            D.max_argmax(**rows),
            D.reduction("Mean", **rows),
        ],
        "Gaussian sums over j and over i": [gaussian.sum(**rows), gaussian.sum(**columns)],
        "log-sum-exp over j and over i": [logits.logsumexp(**rows), logits.logsumexp(**columns)],
        "Gaussian sum, 5 nearest": [(gaussian * weight).sum(**rows), D.argKmin(5, **rows)],
    }


def with_gradients(reductions: list[Any], leaves: list[Any]) -> tuple[Any, list[Any]]:
    """The values with their gradients, together and one by one."""

    def gradient(results: Any) -> Any:
        return torch.autograd.grad(sum(r.sum() for r in results), leaves, allow_unused=True)

    whole = lambda: gradient(together(*reductions))  # noqa: E731
    return whole, [lambda r=r: gradient([r()]) for r in reductions]


def measured(programs: list[Callable[[], Any]], rounds: int) -> np.ndarray:
    """Seconds of each program in each round."""
    for program in programs:
        program()
    found = np.empty((rounds, len(programs)))
    for n in range(rounds):
        for k, program in enumerate(programs):
            start = time.perf_counter()
            program()
            found[n, k] = time.perf_counter() - start
    return found


def row(label: str, passes: int | str, seconds: np.ndarray) -> str:
    """A line of the table; together is the first program."""
    whole, alone = seconds[:, 0], seconds[:, 1:]
    dearest = int(np.argmax(np.median(alone, 0)))
    ratios = whole / alone[:, dearest]
    low, _, high = statistics.quantiles(ratios, n=4)
    each = " + ".join(f"{1e3 * time:.2f}" for time in np.median(alone, 0))
    return (
        f"| {label} | {passes} | {1e3 * np.median(whole):.2f} | {each} | {np.median(ratios):.2f} "
        f"| {low:.2f} - {high:.2f} | {np.median(whole / alone.sum(1)):.2f} |\n"
    )


def report(size: int, dim: int, rounds: int) -> str:
    """The whole text."""
    random = np.random.default_rng(0)
    given = [random.standard_normal((size, dim)).astype("float32") for _ in range(3)]
    text = HEAD.format(cpus=available_cpus(), dim=dim, size=size, rounds=rounds)
    for label, reductions in programs(*given).items():
        passes = len(together(*reductions, call=False).explain().passes)
        whole: list[Callable[[], Any]] = [lambda r=reductions: together(*r)]
        text += row(label, passes, measured(whole + reductions, rounds))
    leaves = [torch.from_numpy(array).requires_grad_() for array in given]
    for label, reductions in list(programs(*leaves).items())[:3:2]:
        whole_, alone = with_gradients(reductions, leaves)
        text += row(f"{label}, with gradients", "", measured([whole_, *alone], rounds))
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=10_000)
    parser.add_argument("--dim", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=41)
    parser.add_argument("--write", type=Path, help="the file for the table")
    options = parser.parse_args()
    text = report(options.size, options.dim, options.rounds)
    print(text)
    if options.write:
        options.write.write_text(text)


if __name__ == "__main__":
    main()
