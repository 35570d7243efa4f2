"""Arrays of pairs at the ends of pages, beside pages that may not be read: nothing reads there.

    python tests/attack_pairs.py --calls 400 --seed 0

Sizes, layouts, dtypes and plans are drawn; a process of its own makes the calls, since a mistake
ends it; its last line says where.
"""

from __future__ import annotations

import argparse
import random
import sys
from typing import Any

import numpy as np
from attack_pages import fenced
from checks import run_alone

SIZES = [1, 2, 3, 4, 7, 8, 15, 16, 17, 33, 64, 65, 129, 257]
LAYOUTS = ["rows", "columns", "components", "backwards", "one row", "one column", "spread"]


def placed(rng: random.Random, rows: int, columns: int, dim: int, dtype: str) -> tuple[str, Any]:
    """A layout, and an array (rows, columns, dim) in memory that begins or ends with a page."""
    layout, item = rng.choice(LAYOUTS), np.dtype(dtype).itemsize
    steps = {
        "rows": (columns * dim, dim, 1),
        "columns": (dim, rows * dim, 1),
        "components": (columns, 1, rows * columns),
        "backwards": (-columns * dim, -dim, -1),
        "one row": (0, dim, 1),
        "one column": (dim, 0, 1),
        "spread": (2 * columns * dim + 1, 2 * dim, 2),
    }[layout]
    reach = [(n - 1) * step for n, step in zip((rows, columns, dim), steps, strict=True)]
    low, high = sum(min(0, r) for r in reach), sum(max(0, r) for r in reach)
    memory = fenced((high - low + 1) * item, rng.random() < 0.7).view(dtype)
    numbers = np.random.default_rng(rng.randrange(2**32)).uniform(-1, 1, len(memory))
    memory[:] = numbers > 0 if dtype == "bool" else numbers
    found = np.lib.stride_tricks.as_strided(
        memory[-low:], (rows, columns, dim), [step * item for step in steps]
    )
    return layout, found


def call(rng: random.Random) -> None:
    """One call; raises where its result is wrong."""
    from pairfold import Genred, settings

    rows, columns = rng.choice(SIZES), rng.choice(SIZES)
    dim, axis = rng.choice([1, 2, 3, 8, 9, 17]), rng.randrange(2)
    dtype, lanes = rng.choice(["float16", "float32", "float64"]), rng.choice(["row", "column"])
    if rng.random() < 0.4:
        call_masked(rng, rows, columns, axis, dtype, lanes)
        return
    layout, b = placed(rng, rows, columns, dim, dtype)
    print(f"{rows}x{columns} {dim} {layout} {dtype} {lanes} axis {axis}", flush=True)
    with settings(lanes=lanes):
        got = Genred("Abs(b)", [f"b = Vij({dim})"], axis=axis)(b)
    want = np.abs(b.astype(np.float64)).sum(axis)
    if not np.allclose(got, want, rtol=2e-3 if dtype == "float16" else 1e-5):
        raise AssertionError(f"{got} instead of {want}")


def call_masked(
    rng: random.Random, rows: int, columns: int, axis: int, dtype: str, lanes: str
) -> None:
    """One call with truth values; raises where its result is wrong."""
    from pairfold import Genred, settings

    layout, b = placed(rng, rows, columns, 1, "bool")
    blocks = rng.choice(["auto", "always"])
    print(f"{rows}x{columns} mask {layout} {dtype} {lanes} {blocks} axis {axis}", flush=True)
    x = np.ones((rows, 1), dtype)
    with settings(lanes=lanes, blocks=blocks):
        got = Genred("x", ["x = Vi(1)", "b = Vij(1)"], axis=axis, where="b")(x, b)
    if not (got == b.sum(axis)).all():
        raise AssertionError(f"{got} instead of {b.sum(axis)}")


def main() -> int:
    """Make the calls in a process of its own."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--calls", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--here", action="store_true", help="in this process")
    chosen = parser.parse_args()
    if chosen.here:
        rng = random.Random(chosen.seed)
        for _ in range(chosen.calls):
            call(rng)
        print(f"done: {chosen.calls} calls with arrays of pairs at the ends of pages")
        return 0
    return run_alone(__file__, calls=chosen.calls, seed=chosen.seed)


if __name__ == "__main__":
    sys.exit(main())
