"""What a small call costs in torch: plain, with its gradient, as an operator, compiled.

    python benchmarks/torch_calls.py --inductor

Minima of many calls with 100 rows and columns, in microseconds, on one thread.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch

from pairfold.frontends.identity import identity
from pairfold.torch import Genred, Vi, Vj, register_operators

SIZE = 100


def best(call: Callable[[], object], budget: float) -> float:
    """The least microseconds of a call, within about so many seconds."""
    for _ in range(5):  # compiled, and with gradients once more
        call()
    end, least, count = time.perf_counter() + budget, float("inf"), 50
    while time.perf_counter() < end:
        start = time.perf_counter()
        for _ in range(count):
            call()
        least = min(least, (time.perf_counter() - start) / count)
    return least * 1e6


def programs(backends: list[str]) -> dict[str, Callable[..., Any]]:
    """The same sum, called in different ways, and in dense torch."""
    kernel = Genred("Exp(-SqDist(x,y))*b", ["x = Vi(3)", "y = Vj(3)", "b = Vj(1)"], axis=1)
    symbols = (-((Vi(0, 3) - Vj(1, 3)) ** 2).sum(-1)).exp() * Vj(2, 1)
    register_operators()
    key = identity(kernel._fold)

    def dense(x: Any, y: Any, b: Any) -> Any:
        return (-((x[:, None] - y[None]) ** 2).sum(-1)).exp() @ b

    found: dict[str, Callable[..., Any]] = {
        "Genred": kernel,
        "lazy tensors of symbols": symbols.sum(axis=1, call=False),
        "torch.ops.pairfold.reduce": lambda *given: torch.ops.pairfold.reduce(key, list(given))[0],
        "dense torch": dense,
    }
    for backend in backends:
        compiled = torch.compile(lambda *given: kernel(*given), fullgraph=True, backend=backend)
        found[f"compiled, {backend}"] = compiled
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--budget", type=float, default=0.5, help="seconds for each figure")
    parser.add_argument("--inductor", action="store_true", help="compile with a C++ compiler, too")
    options = parser.parse_args()
    torch.set_num_threads(1)
    given = [torch.randn(SIZE, width) for width in (3, 3, 1)]
    leaves = [tensor.clone().requires_grad_() for tensor in given]
    incoming = torch.ones(SIZE, 1)
    print(f"{'':28}{'forward':>10}{'with gradient':>16}")
    backends = ["eager", "aot_eager", *(["inductor"] if options.inductor else [])]
    for name, call in programs(backends).items():

        def gradient(call: Callable[..., Any] = call) -> Any:
            return torch.autograd.grad(call(*leaves), leaves, incoming)

        forward = best(lambda call=call: call(*given), options.budget)
        print(f"{name:28}{forward:10.1f}{best(gradient, options.budget):16.1f}")


if __name__ == "__main__":
    main()
