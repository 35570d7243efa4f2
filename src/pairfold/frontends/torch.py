"""torch's side: every fold as a differentiable function of its arguments.

Each derivative is again a fold of a formula, called through the same function, so gradients of any
order, forward mode and `torch.func`'s vmap need no code of their own: vmap is one more batch axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ..core.node import Kind
from ..errors import DerivativeError, ShapeError
from .fold import Fold


class FoldFunction(torch.autograd.Function):
    """fold(*tensors), with its pull-back, push-forward and batching rule."""

    @staticmethod
    def forward(fold: Fold, adapter: Any, *tensors: Any) -> Any:  # pyright: ignore
        """The reduction itself."""
        return fold(adapter, tensors)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """Keep the arguments for the derivatives."""
        ctx.fold, ctx.adapter, *tensors = inputs
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:  # pyright: ignore
        """Gradients to the tensors that ask for one."""
        tensors = ctx.saved_tensors
        wanted = ctx.needs_input_grad[2:]
        found = [
            _gradient(ctx.fold, ctx.adapter, position, tensors, grads[0]) if needed else None
            for position, needed in enumerate(wanted)
        ]
        return None, None, *found

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:  # pyright: ignore
        """The derivative along the tangents that are given."""
        tensors = ctx.saved_tensors
        given = tangents[2:]
        positions = tuple(n for n, tangent in enumerate(given) if tangent is not None)
        fold = ctx.fold.push_forward(positions)
        return _apply(fold, ctx.adapter, (*tensors, *(given[n] for n in positions)))

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
        """One more batch axis, in front of those of every tensor."""
        fold, adapter, *tensors = args
        own = [1 if v.params[2] == Kind.PARAMETER else 2 for v in fold.variables]
        depth = max(
            tensor.dim() - (dim is not None) - least
            for tensor, dim, least in zip(tensors, in_dims[2:], own, strict=True)
        )
        moved: list[Any] = []
        for tensor, dim, least in zip(tensors, in_dims[2:], own, strict=True):
            if dim is None:
                moved.append(tensor)
                continue
            front = tensor.movedim(dim, 0)
            missing = depth - (front.dim() - 1 - least)
            moved.append(front.reshape(front.shape[0], *[1] * missing, *front.shape[1:]))
        result = _apply(fold, adapter, moved)
        if result.dim() < depth + 3:  # only a parameter had the axis, of size 1: it was dropped
            result = result.unsqueeze(0)
        return result.expand(info.batch_size, *result.shape[1:]), 0


def _apply(fold: Fold, adapter: Any, tensors: Sequence[Any]) -> Any:
    return FoldFunction.apply(fold, adapter, *tensors)


def _gradient(
    fold: Fold, adapter: Any, position: int, tensors: Sequence[Any], incoming: Any
) -> Any:
    """The gradient to one tensor, in its own shape: summed over whatever was broadcast."""
    pulled = fold.pull_back(position)
    result = _apply(pulled, adapter, (*tensors, incoming))
    target = tensors[position]
    if fold.variables[position].params[2] == Kind.PARAMETER:
        result = result.sum(-2)
    if result.shape == target.shape:
        return result
    if result.dim() < target.dim():
        return result.reshape(target.shape)
    return result.sum_to_size(target.shape)


def call(fold: Fold, adapter: Any, tensors: Sequence[Any], out: Any) -> Any:
    """Reduce tensors; the result carries a graph where one of them asks for gradients.

    Raises:
        DerivativeError: `out` together with tensors that need gradients.
    """
    if out is None and _plain(tensors):
        return fold(adapter, tensors)
    # Errors are raised here, not from inside autograd's machinery.
    if not any(torch._C._functorch.is_functorch_wrapped_tensor(t) for t in tensors if _is(t)):  # pyright: ignore
        fold.binding(adapter, tensors)
    if out is None:
        return _apply(fold, adapter, tensors)
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        result = _apply(fold, adapter, tensors)
        if out.shape != result.shape:
            raise ShapeError(
                f"out must have shape {tuple(result.shape)}", found=f"shape {tuple(out.shape)}"
            )
        if out.requires_grad and out.is_leaf:
            raise DerivativeError("out must not require gradients itself", hint="out.detach()")
        return out.copy_(result)
    return fold(adapter, tensors, out)


def _is(tensor: object) -> bool:
    return isinstance(tensor, torch.Tensor)


def _plain(tensors: Sequence[Any]) -> bool:
    """Whether no derivative, tracing or batching is going on: the kernel may be called directly."""
    if torch._C._functorch.peek_interpreter_stack() is not None:  # pyright: ignore
        return False
    if torch.autograd.forward_ad._current_level >= 0:  # pyright: ignore
        return False
    if not torch.is_grad_enabled():
        return True
    return not any(tensor.requires_grad for tensor in tensors if _is(tensor))
