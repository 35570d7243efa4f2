"""Solutions of linear systems as differentiable functions of torch tensors.

With A = alpha Id + K and A a = b, a small change gives A da = db - dA a (implicit
differentiation). So for a gradient g of a, w = A^-T g is the gradient of b, -<w, a> that of alpha,
and for any other argument it is that of -<w, K a> with w and a held fixed. w is again a solution,
of the transposed system, so gradients have gradients; da is one of the system itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ..arrays.registry import TORCH
from ..core.library import Array
from ..core.node import Kind
from .derivatives import batch_first, summed
from .genred import call_fold
from .solve import Request, System
from .torch import applied


class SolveFunction(torch.autograd.Function):
    """a = (alpha Id + K)^-1 b; arguments: the system, the request, alpha, the tensors with b."""

    @staticmethod
    def forward(system: System, request: Request, alpha: Any, *tensors: Any) -> Any:  # pyright: ignore
        """The solution, in b's shape."""
        return system.solution(TORCH, tensors, alpha, request)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """Keep the arguments and the solution."""
        ctx.system, ctx.request, alpha, *tensors = inputs
        ctx.has_alpha = alpha is not None
        kept = (output, *([] if alpha is None else [alpha]), *tensors)
        ctx.save_for_backward(*kept)
        ctx.save_for_forward(*kept)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:  # pyright: ignore
        """Gradients to alpha and to the tensors that ask for one."""
        solution, *tensors = ctx.saved_tensors
        alpha = tensors.pop(0) if ctx.has_alpha else None
        system, request = ctx.system, ctx.request.derived()
        adjoint = system.with_vector(tensors, grads[0])
        w = applied(SolveFunction, system.transposed(), request, alpha, *adjoint)
        to_alpha = None
        if alpha is not None and ctx.needs_input_grad[2]:
            to_alpha = -(w * solution).sum_to_size(alpha.shape)
        found: list[Any] = []
        for n, needed in enumerate(ctx.needs_input_grad[3:]):
            if needed and n != system.position:
                found.append(_through_product(system, request, tensors, solution, -w, n))
            else:
                found.append(w if needed else None)
        return None, None, to_alpha, *found

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:  # pyright: ignore
        """The derivative along the tangents that are given: A da = db - dA a."""
        solution, *tensors = ctx.saved_tensors
        alpha = tensors.pop(0) if ctx.has_alpha else None
        system, request = ctx.system, ctx.request.derived()
        given = tangents[3:]
        along_b, along_alpha = given[system.position], tangents[2]
        right = torch.zeros_like(solution) if along_b is None else along_b
        if along_alpha is not None:
            right = right - along_alpha * solution
        positions = [n for n, tangent in enumerate(given) if tangent is not None]
        positions = tuple(n for n in positions if n != system.position)
        if positions:
            (pushed,) = system.fold.push_forward(positions)
            along = (*system.with_vector(tensors, solution), *(given[n] for n in positions))
            right = right - call_fold(pushed, along, "torch", **request.call)
        moved = system.with_vector(tensors, right)
        return applied(SolveFunction, system, request, alpha, *moved)

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
        """One more batch axis, in front of those of every tensor."""
        system, request, alpha, *tensors = args
        b = tensors[system.position]
        depth = b.dim() - (in_dims[3 + system.position] is not None)  # b has every batch axis

        variables = system.fold.variables
        given = [
            batch_first(TORCH, tensor, dim, depth - (v.params[2] == Kind.PARAMETER))
            for tensor, dim, v in zip(tensors, in_dims[3:], variables, strict=True)
        ]
        if in_dims[3 + system.position] is None:
            given[system.position] = b.expand(info.batch_size, *b.shape)
        if alpha is not None:
            alpha = batch_first(TORCH, alpha, in_dims[2], depth)
        return applied(SolveFunction, system, request, alpha, *given), 0


def _through_product(
    system: System,
    request: Request,
    tensors: Sequence[Array],
    vector: Array,
    incoming: Any,
    position: int,
) -> Any:
    """The gradient of <incoming, K vector> to one tensor, all others fixed."""
    args = (*system.with_vector(tensors, vector), incoming)
    result = call_fold(system.fold.pull_back(position), args, "torch", **request.call)
    return summed(TORCH, system.fold, position, result, tensors[position])


def solve_tensors(system: System, tensors: Sequence[Array], alpha: Any, request: Request) -> Any:
    """The solution for tensors that fit; it carries a graph where one of them asks for gradients.

    Raises:
        SolveError: see `conjugate_gradients`.
    """
    return applied(SolveFunction, system, request, alpha, *tensors)
