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

from .genred import call_fold
from .solve import Request, System


class SolveFunction(torch.autograd.Function):
    """a = (alpha Id + K)^-1 b; arguments: the system, the request, alpha, the tensors with b."""

    @staticmethod
    def forward(system: System, request: Request, alpha: Any, *tensors: Any) -> Any:  # pyright: ignore
        """The solution, in b's shape."""
        return system.solution("torch", tensors, alpha, request)

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
        w = SolveFunction.apply(system.transposed(), request, alpha, *adjoint)
        to_alpha = None
        if alpha is not None and ctx.needs_input_grad[2]:
            to_alpha = -(w * solution).sum_to_size(alpha.shape)
        wanted = [n for n in range(len(tensors)) if ctx.needs_input_grad[3 + n]]
        found: list[Any] = [None] * len(tensors)
        if system.position in wanted:
            wanted.remove(system.position)
            found[system.position] = w
        parts = _through_product(system, request, tensors, solution, -w, wanted)
        for n, part in zip(wanted, parts, strict=True):
            found[n] = part
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
        return SolveFunction.apply(system, request, alpha, *moved)


def _through_product(
    system: System,
    request: Request,
    tensors: Sequence[Any],
    vector: Any,
    incoming: Any,
    wanted: Sequence[int],
) -> Sequence[Any]:
    """Gradients of <incoming, K vector> to the wanted tensors, each by itself, the rest fixed."""
    if not wanted:
        return ()
    again = torch.is_grad_enabled()
    with torch.enable_grad():
        # Views: one tensor may be several arguments, and each has a gradient of its own.
        given = [x.view_as(x) if again else x.detach() for x in tensors]
        if not again:
            given = [x.requires_grad_(n in wanted) for n, x in enumerate(given)]
        product = system.product("torch", given, vector if again else vector.detach(), request)
        sources = [given[n] for n in wanted]
        return torch.autograd.grad(product, sources, incoming, create_graph=again)


def solve_tensors(system: System, tensors: Sequence[Any], alpha: Any, request: Request) -> Any:
    """The solution for tensors that fit; it carries a graph where one of them asks for gradients.

    Raises:
        SolveError: see `conjugate_gradients`.
    """
    return SolveFunction.apply(system, request, alpha, *tensors)
