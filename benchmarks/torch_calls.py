"""What a small call costs in torch: plain, with its gradients, as an operator, compiled.

    python benchmarks/torch_calls.py --inductor

Minima of many calls with 100 rows and columns, in microseconds, on one thread. Gradients are those
to x alone and to x, y and b: of `torch.autograd.grad` with a given incoming gradient, and of
`sum().backward()`. "nothing" is a function of torch that computes neither results nor gradients:
what torch's own machinery takes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from pairfold.frontends.identity import identity
from pairfold.torch import Genred, Vi, Vj, register_operators

SIZE = 100
ONES = torch.ones(SIZE, 1)


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


class Nothing(torch.autograd.Function):
    """New tensors of the shapes of the result and of the gradients."""

    @staticmethod
    def forward(ctx: Any, x: Any, y: Any, b: Any) -> Any:  # pyright: ignore
        """A tensor without values."""
        ctx.save_for_backward(x, y, b)
        return torch.empty(SIZE, 1)

    @staticmethod
    def backward(ctx: Any, incoming: Any) -> tuple[Any, ...]:  # pyright: ignore
        """A tensor without values for each gradient that is asked for."""
        pairs = zip(ctx.saved_tensors, ctx.needs_input_grad, strict=True)
        return tuple(torch.empty_like(given) if needed else None for given, needed in pairs)


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
        "nothing": Nothing.apply,
    }
    for backend in backends:
        compiled = torch.compile(lambda *given: kernel(*given), fullgraph=True, backend=backend)
        found[f"compiled, {backend}"] = compiled
    return found


def gradients(call: Callable[..., Any], given: list[Any], leaves: list[Any]) -> Any:
    """A call with its gradients, for a gradient of ones."""
    return torch.autograd.grad(call(*given), leaves, ONES)


def accumulated(call: Callable[..., Any], given: list[Any], leaves: list[Any]) -> None:
    """The same as programs mostly ask for it."""
    for leaf in leaves:
        leaf.grad = None
    call(*given).sum().backward()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--budget", type=float, default=0.5, help="seconds for each figure")
    parser.add_argument("--inductor", action="store_true", help="compile with a C++ compiler, too")
    options = parser.parse_args()
    torch.set_num_threads(1)
    plain = [torch.randn(SIZE, width) for width in (3, 3, 1)]
    leaves = [tensor.clone().requires_grad_() for tensor in plain]
    print(f"{'':28}{'':10}{'grad':>10}{'':10}{'backward':>10}")
    print(f"{'':28}" + "".join(f"{title:>10}" for title in ("forward", *["x", "x, y, b"] * 2)))
    backends = ["eager", "aot_eager", *(["inductor"] if options.inductor else [])]
    for name, call in programs(backends).items():
        torch.compiler.reset()  # what was compiled counts against a limit of all backends
        found = [best(partial(call, *plain), options.budget)]
        for way in (gradients, accumulated):
            for count in (1, 3):
                given = [*leaves[:count], *plain[count:]]
                found.append(best(partial(way, call, given, leaves[:count]), options.budget))
        print(f"{name:28}" + "".join(f"{value:10.1f}" for value in found))


if __name__ == "__main__":
    main()
