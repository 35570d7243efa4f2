"""A long run of the random-formula test: `python tests/fuzz.py --count 20000 --seed 0`.

Every seed draws a formula, sizes and a plan; machine code in float32 and float64 is compared with
the interpreter, and the interpreter with the dense oracle. Prints mismatches with their seed (which
`--seed S --count 1` runs again) and ends with the counts; exits 1 if there was one. `--gpu`: as
programs for GPUs, in Triton's interpreter.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import traceback
from concurrent.futures import ProcessPoolExecutor


def _one(seed: int) -> str | None:
    try:
        if "TRITON_INTERPRET" in os.environ:
            import interpreted
            from test_gpu_formulas import run_random_as_program

            interpreted.repair()
            run_random_as_program(seed)
        else:
            from test_backends import run_random

            run_random(seed)
    except Exception:
        return f"seed {seed}\n{traceback.format_exc(limit=-3)}"
    return None


def _some(seeds: range) -> list[str]:
    return [failure for seed in seeds if (failure := _one(seed)) is not None]


def main() -> int:
    """Run the seeds over some processes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=20000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--gpu", action="store_true")
    options = parser.parse_args()
    if options.gpu:
        os.environ["TRITON_INTERPRET"] = "1"
    start = time.perf_counter()
    seeds = range(options.seed, options.seed + options.count)
    chunks = [seeds[k : k + 50] for k in range(0, len(seeds), 50)]
    failures: list[str] = []
    with ProcessPoolExecutor(options.jobs) as pool:
        for place, found in enumerate(pool.map(_some, chunks)):
            failures += found
            for text in found:
                print(text, flush=True)
            if place % 20 == 19 or place == len(chunks) - 1:
                done = min(50 * (place + 1), len(seeds))
                seconds = time.perf_counter() - start
                print(f"{done} formulas, {len(failures)} mismatches, {seconds:.0f} s", flush=True)
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
