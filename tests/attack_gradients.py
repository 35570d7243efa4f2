"""Gradients of every reduction that has them, as torch asks for them in batches and in checkpoints.

    python tests/attack_gradients.py

The same derivatives one by one, without a checkpoint, are what they are compared with; those are
tested against closed forms elsewhere.
"""

from __future__ import annotations

import sys
import warnings
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from pairfold.torch import Genred

REDUCTIONS: dict[str, dict[str, Any]] = {
    "Sum": {},
    "Mean": {},
    "Prod": {},
    "LogSumExp": {},
    "LogSumExpWeight": {"formula2": "1 + Square(x - y)"},
    "SumSoftMaxWeight": {"formula2": "x - y"},
    "Max_SumShiftExp": {},
    "Max_SumShiftExpWeight": {"formula2": "x + y"},
    "Min": {},
    "Max": {},
    "Max_ArgMax": {},
    "KMin": {"opt_arg": 2},
}
ALIASES = ["x = Vi(2)", "y = Vj(2)", "p = Pm(1)"]


def _same(got: Any, want: Any) -> None:
    if isinstance(want, tuple):
        for one, other in zip(got, want, strict=True):
            _same(one, other)
    else:
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-10)


def attack(name: str, axis: int, batch: tuple[int, ...]) -> int:
    """Derivatives of one reduction in every way; how many were compared."""
    reduction = Genred("-p*SqDist(x,y)", ALIASES, name, axis=axis, **REDUCTIONS[name])
    shapes = (*batch, 4, 2), (3, 2), (1,)
    given = tuple(torch.rand(shape, dtype=torch.float64) + 0.5 for shape in shapes)

    def values(*given: Any) -> Any:
        found = reduction(*given)
        return found[0] if isinstance(found, tuple) else found

    def number(*given: Any) -> Any:
        return values(*given).sin().sum()

    def through(*given: Any) -> Any:
        return checkpoint(values, *given, use_reentrant=False)

    jacobian, hessian = torch.autograd.functional.jacobian, torch.autograd.functional.hessian
    first, second = jacobian(values, given), hessian(number, given)
    _same(jacobian(values, given, vectorize=True), first)
    _same(jacobian(values, given, vectorize=True, strategy="forward-mode"), first)
    _same(jacobian(through, given), first)
    _same(hessian(number, given, vectorize=True), second)
    forward = {"vectorize": True, "outer_jacobian_strategy": "forward-mode"}
    _same(hessian(number, given, **forward), second)
    _same(hessian(lambda *given: through(*given).sin().sum(), given), second)
    _same(torch.func.hessian(number, argnums=(0, 1, 2))(*given), second)
    leaves = tuple(tensor.clone().requires_grad_() for tensor in given)
    assert torch.autograd.gradcheck(values, leaves, check_batched_grad=True)
    return 8


def main() -> int:
    """Every reduction, both axes, with and without a batch axis."""
    warnings.simplefilter("ignore")
    done = 0
    for name in REDUCTIONS:
        for axis, batch in ((0, ()), (1, ()), (1, (2,))):
            print(f"{name} axis {axis} batch {batch}", flush=True)
            done += attack(name, axis, batch)
    print(f"{done} kinds of derivatives of {len(REDUCTIONS)} reductions")
    return 0


if __name__ == "__main__":
    sys.exit(main())
