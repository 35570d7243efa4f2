"""Thousands of distinct formulas in one process: how much memory stays.

    python tests/attack_memory.py --count 20000

Each formula has constants of its own and one of many shapes; it is compiled and called once on
arrays of 17 x 23 points. Most go through `Genred`, every fourth through lazy tensors, some through
gradients of torch where it is installed. `--hold` keeps all reductions, as a program does that
never lets go of any. Memory is that of the process beyond what it had before the first formula;
with `--limit` (in MB) more than that is an error.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

import numpy as np

import pairfold
from pairfold.numpy import Genred, Vi, Vj

M, N = 17, 23
TERMS = (
    "Exp(-{c}*SqDist(x,y))",
    "Sqrt({c}+SqDist(x,y))",
    "Inv({c}+SqDist(x,y))",
    "({c}*(x|y))",
    "Cos({c}*(x|y))",
    "Log({c}+SqDist(x,y))",
    "Square({c}+(x|y))",
    "Exp(-Sqrt({c}*SqDist(x,y)))",
    "Sum(Abs(x-{c}*y))",
    "Tanh({c}*(x|y))",
    "Rsqrt({c}+Norm2(x-y))",
)
REDUCTIONS = ("Sum", "Sum", "LogSumExp", "Max", "ArgMin", "Min_ArgMin")


def resident() -> float:
    """Megabytes of this process that are in memory."""
    with open("/proc/self/status") as file:
        line = next(line for line in file if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def formula(number: int) -> str:
    """A formula that no other number has."""
    first = TERMS[number % len(TERMS)].format(c=f"{1 + number / 7919:.6f}")
    second = TERMS[number // len(TERMS) % len(TERMS)].format(c=f"{1 + number / 104729:.6f}")
    joint = "*+-"[number // len(TERMS) ** 2 % 3]
    return f"{first}{joint}{second}"


def through_strings(number: int) -> tuple[Any, Any]:
    """A reduction and its result."""
    dim = 1 + number % 5
    x, y = np.full((M, dim), 0.3), np.full((N, dim), 0.2)
    name = REDUCTIONS[number % len(REDUCTIONS)]
    genred = Genred(formula(number), [f"x = Vi({dim})", f"y = Vj({dim})"], name, axis=number % 2)
    return genred, genred(x, y)


def through_tensors(number: int) -> tuple[Any, Any]:
    """The same of a lazy tensor."""
    x, y = np.full((M, 3), 0.3), np.full((N, 3), 0.2)
    tensor = (-((Vi(x) - Vj(y)) ** 2).sum(-1) * (1 + number / 7919)).exp()
    if number % 8 == 3:
        tensor = tensor + (Vi(x) | Vj(y)) * (2 + number / 7919)
    return tensor, tensor.sum(axis=1)


def through_gradients(number: int) -> tuple[Any, Any]:
    """A gradient to both arguments."""
    import torch

    x, y = torch.full((M, 3), 0.3, requires_grad=True), torch.full((N, 3), 0.2, requires_grad=True)
    genred = pairfold.Genred(formula(number), ["x = Vi(3)", "y = Vj(3)"], axis=1)
    return genred, torch.autograd.grad(genred(x, y).sum(), [x, y])[0].numpy()


def main() -> int:
    """Run, and say what stays."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--every", type=int, default=1000)
    parser.add_argument("--hold", action="store_true")
    parser.add_argument("--torch", action="store_true", help="every eighth with gradients")
    parser.add_argument("--limit", type=float, default=0.0)
    chosen = parser.parse_args()
    if chosen.torch:
        import torch

        torch.set_num_threads(1)
    held: list[Any] = []
    start, began, most = resident(), time.perf_counter(), 0.0
    for number in range(chosen.count):
        if chosen.torch and number % 8 == 7:
            make = through_gradients
        else:
            make = through_tensors if number % 4 == 3 else through_strings
        made, result = make(number)
        assert np.isfinite(result[0] if isinstance(result, tuple) else result).all(), number
        if chosen.hold:
            held.append(made)
        if (number + 1) % chosen.every == 0 or number + 1 == chosen.count:
            above, seconds = resident() - start, time.perf_counter() - began
            most = max(most, above)
            print(f"{number + 1} formulas: {above:.0f} MB more, {seconds:.0f} s", flush=True)
    if hasattr(pairfold, "cache_info"):
        print(pairfold.cache_info())
        pairfold.clear_cache()
        print(f"after clear_cache(): {resident() - start:.0f} MB more")
    return int(bool(chosen.limit) and most > chosen.limit)


if __name__ == "__main__":
    sys.exit(main())
