"""Solutions of linear systems as differentiable functions of torch tensors.

What the derivatives are is said in `solvederivatives.py`, for any library; here torch's autograd,
forward mode and vmap are told of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch

from ..arrays.library import ArrayLibrary
from ..core.library import Array
from .solve import Request, System
from .solvederivatives import Calls, batched, gradients, tangents
from .torch import BatchAxis, applied, apply_fold


class _Context(Protocol):
    """What torch keeps of a solution for its derivatives."""

    asked: tuple[System, Request, ArrayLibrary]
    has_alpha: bool
    saved_tensors: tuple[Array, ...]
    needs_input_grad: tuple[bool, ...]

    def save_for_backward(self, *tensors: Array) -> None: ...
    def save_for_forward(self, *tensors: Array) -> None: ...


class SolveFunction(torch.autograd.Function):
    """a = (alpha Id + K)^-1 b, with its pull-back, push-forward and batching rule."""

    @staticmethod
    def forward(  # pyright: ignore
        system: System,
        request: Request,
        library: ArrayLibrary,
        alpha: Array | None,
        *tensors: Array,
    ) -> Array:
        """The solution, in b's shape."""
        return system.solution(library, tensors, alpha, request)

    @staticmethod
    def setup_context(ctx: _Context, inputs: tuple[Any, ...], output: Array) -> None:
        """Keep the arguments and the solution."""
        ctx.asked, (alpha, *tensors) = inputs[:3], inputs[3:]
        ctx.has_alpha = alpha is not None
        kept = (output, *([] if alpha is None else [alpha]), *tensors)
        ctx.save_for_backward(*kept)
        ctx.save_for_forward(*kept)

    @staticmethod
    def backward(ctx: _Context, *grads: Array) -> tuple[Array | None, ...]:  # pyright: ignore
        """Gradients to alpha and to the tensors that ask for one."""
        found = gradients(*_saved(ctx), grads[0], ctx.needs_input_grad[3:], _CALLS)
        return None, None, None, *found

    @staticmethod
    def jvp(ctx: _Context, *along: Array | None) -> Array:  # pyright: ignore
        """The derivative along the tangents that are given."""
        return tangents(*_saved(ctx), along[3:], _CALLS)

    @staticmethod
    def vmap(info: BatchAxis, in_dims: tuple[int | None, ...], *args: Any) -> tuple[Array, int]:
        """One more batch axis, in front of those of every tensor."""
        system, request, library, *given = args
        found = batched(system, request, library, given, in_dims[3:], info.batch_size, _CALLS)
        return found, 0


def _saved(
    ctx: _Context,
) -> tuple[System, Request, ArrayLibrary, list[Array | None], Array]:
    """What was asked for: alpha or None, then the tensors; the solution."""
    system, request, library = ctx.asked
    solution, *given = ctx.saved_tensors
    none = [] if ctx.has_alpha else [None]
    return system, request, library, [*none, *given], solution


def _solve(
    system: System, request: Request, library: ArrayLibrary, given: Sequence[Array | None]
) -> Array:
    return applied(SolveFunction, system, request, library, *given)


_CALLS = Calls(apply_fold, _solve)


def solve_tensors(
    system: System,
    library: ArrayLibrary,
    tensors: Sequence[Array],
    alpha: Array | None,
    request: Request,
) -> Array:
    """The solution for tensors that fit; it carries a graph where one of them asks for gradients.

    Raises:
        SolveError: see `conjugate_gradients`.
    """
    return _solve(system, request, library, [alpha, *tensors])
