"""Attention, clouds of several sizes and radius sums over the pairs that a mask leaves.

    python benchmarks/mask_pairs.py --write benchmarks/masks.md

Peers are torch's FlexAttention (compiled, where it can be) and scaled_dot_product_attention, the
pairs of a mask without any mask, and SciPy's tree. In each round every program runs once, in turn,
so that what else the machine does meets all; the figures are medians of the rounds.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch.nn.functional import scaled_dot_product_attention

import pairfold
from pairfold import Vi, Vj
from pairfold.settings import available_cpus

HEAD = """# Pairs that a mask leaves

Written by `python benchmarks/mask_pairs.py --write benchmarks/masks.md` on {cpus} CPUs
({machine}), torch {torch}, float32, {rounds} interleaved rounds; medians, in ms. pairfold makes
its mask in every call. `blocks` are those of the mask: skipped, tested, met whole. The load of the
machine when it began (one, five and fifteen minutes) was {load}, of other programs.

"""

ATTENTION = """## Attention, {length} positions of dimension {dim}, one head

"x Flex": the time over that of FlexAttention, without and with its mask; "x SDPA": over that of
torch's scaled_dot_product_attention with a dense mask.

| Mask | pairfold | FlexAttention | its mask | SDPA | x Flex | with its mask | x SDPA | blocks, % |
|---|---|---|---|---|---|---|---|---|
"""

BACKWARD = """
With gradients to queries, keys and values (FlexAttention has none on a CPU: {refusal}):

| Mask | pairfold | SDPA, dense mask | x SDPA |
|---|---|---|---|
"""

LENGTHS = """
The first call of a formula compiles it; another length or width of band does not. First calls, ms,
each in turn: {first}.
"""

CLOUDS = """
## {count} clouds of 10 to 2000 points, D = 3, a Gaussian sum within each ({pairs:.3g} pairs)

"x": medians of the ratios of each round, of time and of CPU time, which others disturb less.

| Program | ms | CPU ms | x the pairs alone | x, CPU time |
|---|---|---|---|---|
"""

RADIUS = """
## A Gaussian sum over the neighbours within {radius}, {points} points in the unit cube

| Program | ms |
|---|---|
"""


def each_round(programs: Sequence[Callable[[], Any]], rounds: int) -> np.ndarray:
    """Milliseconds (2, rounds, programs): of the clock, and of all threads of the process."""
    for program in programs:
        program()
    found = np.empty((2, rounds, len(programs)))
    for n in range(rounds):
        for k, program in enumerate(programs):
            starts = time.perf_counter(), time.process_time()
            program()
            found[:, n, k] = time.perf_counter() - starts[0], time.process_time() - starts[1]
    return 1e3 * found


def measured(programs: Sequence[Callable[[], Any]], rounds: int) -> list[float]:
    """Milliseconds of each program, the median of the rounds."""
    return np.median(each_round(programs, rounds)[0], axis=0).tolist()


class Attention:
    """Queries, keys and values, and masks of them in the words of each library."""

    def __init__(self, length: int, dim: int) -> None:
        torch.manual_seed(0)
        self.length, self.dim = length, dim
        self.given = [torch.randn(length, dim) for _ in range(3)]
        self.documents = torch.sort(torch.randint(0, 16, (length,))).values
        self.masks: dict[str, tuple[Callable[[], Any], Callable[..., Any]]] = {
            "causal": (pairfold.causal, lambda b, h, i, j: i >= j),
            "band of 256": (lambda: pairfold.band(256), lambda b, h, i, j: (i - j).abs() <= 256),
            "causal band of 256": (
                lambda: pairfold.causal() & pairfold.band(256),
                lambda b, h, i, j: (i >= j) & (i - j <= 256),
            ),
            "16 documents": (
                lambda: pairfold.same(self.documents, self.documents),
                lambda b, h, i, j: self.documents[i] == self.documents[j],
            ),
        }

    def pairfold(self, where: Any, given: Sequence[torch.Tensor]) -> torch.Tensor:
        """Soft-max attention over the pairs of a mask."""
        q, k, v = given
        return ((Vi(q) * Vj(k)).sum(-1) / self.dim**0.5).sumsoftmaxweight(
            Vj(v), axis=1, where=where
        )

    def dense(self, mask: Callable[..., Any]) -> torch.Tensor:
        """A mask as a table."""
        i = torch.arange(self.length)
        return mask(0, 0, i[:, None], i[None])

    def sdpa(self, table: torch.Tensor, given: Sequence[torch.Tensor]) -> torch.Tensor:
        """The same by torch."""
        q, k, v = (x[None, None] for x in given)
        return scaled_dot_product_attention(q, k, v, attn_mask=table)[0, 0]

    def flex(self, mask: Callable[..., Any]) -> tuple[Callable[[], Any], Callable[[], Any]]:
        """The same by FlexAttention, and what makes its mask."""
        from torch.nn.attention.flex_attention import create_block_mask, flex_attention

        n = self.length
        make = lambda: create_block_mask(mask, None, None, n, n, device="cpu")  # noqa: E731
        block_mask = make()
        compiled: Any = torch.compile(flex_attention)
        q, k, v = (x[None, None] for x in self.given)

        def run() -> Any:
            with torch.no_grad():
                return compiled(q, k, v, block_mask=block_mask)[0, 0]

        return run, make


def blocks_of(reduction: Any) -> str:
    """The shares of blocks that are skipped, tested, and met whole."""
    counts = reduction.explain().subject.blocks or (0, 1, 0)
    return ", ".join(f"{100 * n / sum(counts):.1f}" for n in counts)


def attention(length: int, dim: int, rounds: int) -> str:
    """The part on attention."""
    it = Attention(length, dim)
    text = ATTENTION.format(length=length, dim=dim)
    backward, refusal = "", ""
    for name, (make, mask) in it.masks.items():
        table = it.dense(mask)
        wanted = it.sdpa(table, it.given)
        programs: list[Callable[[], Any]] = [
            lambda make=make: it.pairfold(make(), it.given),
            lambda table=table: it.sdpa(table, it.given),
        ]
        assert (programs[0]() - wanted).abs().max() < 1e-5
        try:
            torch._dynamo.reset()
            flex, made = it.flex(mask)
            assert (flex() - wanted).abs().max() < 1e-5
            programs += [flex, made]
        except Exception as error:
            print(f"no FlexAttention: {type(error).__name__}: {str(error)[:200]}")
        ours, sdpa, *rest = measured(programs, rounds)
        one, two = rest or (float("nan"), float("nan"))
        q, k, v = it.given
        waits = ((Vi(q) * Vj(k)).sum(-1) / dim**0.5).sumsoftmaxweight(
            Vj(v), axis=1, where=make(), call=False
        )
        text += (
            f"| {name} | {ours:.1f} | {one:.1f} | {two:.0f} | {sdpa:.1f} | {ours / one:.2f} | "
            f"{ours / (one + two):.3f} | {ours / sdpa:.2f} | {blocks_of(waits)} |\n"
        )
        leaves = [x.clone().requires_grad_() for x in it.given]
        weight = torch.randn(length, dim)

        def gradients(
            run: Callable[[], torch.Tensor], leaves: Any = leaves, weight: Any = weight
        ) -> Any:
            return torch.autograd.grad((run() * weight).sum(), leaves)

        both = [
            lambda make=make, leaves=leaves: it.pairfold(make(), leaves),
            lambda table=table, leaves=leaves: it.sdpa(table, leaves),
        ]
        ours, sdpa = measured([lambda run=run: gradients(run) for run in both], max(3, rounds // 3))
        backward += f"| {name} | {ours:.0f} | {sdpa:.0f} | {ours / sdpa:.2f} |\n"
    refusal = flex_refusal(it)
    return text + BACKWARD.format(refusal=refusal) + backward + lengths(it)


def flex_refusal(it: Attention) -> str:
    """What FlexAttention says of gradients on a CPU."""
    from torch.nn.attention.flex_attention import flex_attention

    q, k, v = (x[None, None].clone().requires_grad_() for x in it.given)
    try:
        torch._dynamo.reset()
        compiled: Any = torch.compile(flex_attention)
        compiled(q[:, :, :256], k[:, :, :256], v[:, :, :256]).sum().backward()
    except Exception as error:
        return type(error).__name__
    return "none"


def lengths(it: Attention) -> str:
    """First calls of other lengths and widths."""
    pairfold.clear_cache()
    found: list[str] = []
    for length, width in ((4096, 100), (4000, 100), (3500, 217), (4096, 1000), (2049, 64)):
        given = [x[:length] for x in it.given]
        start = time.perf_counter()
        it.pairfold(pairfold.band(width), given)
        spent = 1e3 * (time.perf_counter() - start)
        found.append(f"{length} positions, width {width}: {spent:.0f}")
    return LENGTHS.format(first="; ".join(found))


def gaussian(x: Any, b: Any, where: Any = None, scale: float = 1.0) -> Any:
    """A Gaussian sum over the pairs of a mask."""
    kernel = (-scale * ((Vi(x) - Vj(x)) ** 2).sum(-1)).exp() * Vj(b)
    return kernel.sum(axis=1, where=where)


def clouds(rounds: int) -> str:
    """The part on clouds of several sizes."""
    random = np.random.default_rng(0)
    sizes = random.integers(10, 2001, 1000)
    pairs, total = int((sizes.astype(float) ** 2).sum()), int(sizes.sum())
    x = random.standard_normal((total, 3)).astype("float32")
    b = random.standard_normal((total, 1)).astype("float32")
    side = int(pairs**0.5)
    mask = pairfold.lengths(sizes)
    ends = np.cumsum(sizes)
    parts = [slice(end - size, end) for size, end in zip(sizes, ends, strict=True)]
    programs: dict[str, Callable[[], Any]] = {
        "as many pairs without a mask": lambda: gaussian(x[:side], b[:side]),
        "one call, mask made before": lambda: gaussian(x, b, mask),
        "one call, mask made in it": lambda: gaussian(x, b, pairfold.lengths(sizes)),
        "a call for each cloud": lambda: [gaussian(x[part], b[part]) for part in parts],
    }
    found = each_round(list(programs.values()), rounds)
    spent, ratios = (np.median(each, axis=1) for each in (found, found / found[..., :1]))
    text = CLOUDS.format(count=len(sizes), pairs=pairs)
    for k, name in enumerate(programs):
        text += f"| {name} | {spent[0, k]:.0f} | {spent[1, k]:.0f} "
        text += f"| {ratios[0, k]:.2f} | {ratios[1, k]:.2f} |\n"
    waits = (-((Vi(x) - Vj(x)) ** 2).sum(-1)).exp() * Vj(b)
    return text + f"\nBlocks, %: {blocks_of(waits.sum(axis=1, where=mask, call=False))}.\n"


def radius(points: int, rounds: int) -> str:
    """The part on neighbours within a radius."""
    random = np.random.default_rng(0)
    within = 0.05
    x = random.random((points, 3)).astype("float32")
    b = random.random((points, 1)).astype("float32")
    order = np.lexsort((x * 16).astype(int).T)
    y, c = x[order], b[order]

    def tree() -> Any:
        made = cKDTree(x)
        found: Any = made.sparse_distance_matrix(made, within, output_type="coo_matrix")
        return np.bincount(found.row, np.exp(-(found.data**2)) * b[found.col, 0], points)

    def sorted_and_summed() -> Any:
        order = np.lexsort((x * 16).astype(int).T)
        y = x[order]
        found = np.empty((points, 1), "float32")
        found[order] = gaussian(y, b[order], pairfold.radius(y, y, within))
        return found

    programs: dict[str, Callable[[], Any]] = {
        "pairfold, points in any order": lambda: gaussian(x, b, pairfold.radius(x, x, within)),
        "pairfold, points in the order of cells": lambda: gaussian(
            y, c, pairfold.radius(y, y, within)
        ),
        "pairfold, points put in that order and back": sorted_and_summed,
        "pairfold, all pairs": lambda: gaussian(x, b),
        "SciPy, a tree made and all neighbours": tree,
    }
    assert np.abs(sorted_and_summed()[:, 0] - tree()).max() < 1e-4
    found = measured(list(programs.values()), rounds)
    text = RADIUS.format(points=points, radius=within)
    for name, spent in zip(programs, found, strict=True):
        text += f"| {name} | {spent:.1f} |\n"
    reduction = (-((Vi(y) - Vj(y)) ** 2).sum(-1)).exp() * Vj(c)
    waits = reduction.sum(axis=1, where=pairfold.radius(y, y, within), call=False)
    return text + f"\nBlocks in the order of cells, %: {blocks_of(waits)}.\n"


def machine() -> str:
    """What the processor calls itself."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return "unknown"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--length", type=int, default=8192)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--points", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--only", choices=("clouds", "radius"), help="print one part alone")
    parser.add_argument("--write", type=Path)
    given = parser.parse_args()
    if given.only:
        print(
            clouds(given.rounds) if given.only == "clouds" else radius(given.points, given.rounds)
        )
        return
    text = HEAD.format(
        cpus=available_cpus(),
        machine=machine(),
        torch=torch.__version__,
        rounds=given.rounds,
        load=", ".join(f"{load:.1f}" for load in os.getloadavg()),
    )
    text += attention(given.length, given.dim, given.rounds)
    text += clouds(given.rounds) + radius(given.points, given.rounds)
    print(text)
    if given.write:
        given.write.write_text(text)


if __name__ == "__main__":
    main()
