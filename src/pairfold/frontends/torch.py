"""torch's side: every fold as a differentiable function of its arguments.

Each derivative is again a fold of a formula, called through the same function, so gradients of any
order, forward mode and `torch.func`'s vmap need no code of their own: vmap is one more batch axis.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd import forward_ad

from ..calculus.substitute import substitute
from ..core.node import Kind
from ..errors import ArrayTypeError, DerivativeError, PairfoldError
from ..ops.table import OPERATIONS, variable
from .arrays import label_of
from .fold import Fold, fill
from .gate import check_recording
from .ranges import Ranges
from .sweep import sweep

# Looked up once: these are asked at every call.
_torch: Any = torch
_inside = _torch._C
_dispatch_modes = _inside._len_torch_dispatch_stack
_function_modes = _inside._len_torch_function_stack
_tracing = _inside._is_tracing
_transform = _inside._functorch.peek_interpreter_stack
_grad_enabled = torch.is_grad_enabled
_HALVES = (torch.float16, torch.bfloat16)
_VMAP_MODE = _inside._parse_dispatch_key("VmapMode")


class FoldFunction(torch.autograd.Function):
    """fold(*tensors), with its pull-back, push-forward and batching rule."""

    @staticmethod
    def forward(fold: Fold, adapter: Any, ranges: Any, *tensors: Any) -> Any:  # pyright: ignore
        """The reduction itself: one tensor, or a tuple, as machine code writes them."""
        results = fold.run(adapter, tensors, ranges)
        return results[0] if len(results) == 1 else results

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """Keep the arguments, and the results where derivatives read them."""
        ctx.fold, ctx.adapter, ctx.ranges, *tensors = inputs
        results = output if isinstance(output, tuple) else (output,)
        if ctx.fold.row.pullback is None:
            ctx.mark_non_differentiable(*results)
        kept = (*tensors, *results) if ctx.fold.row.saves else tensors
        ctx.save_for_backward(*kept)
        ctx.save_for_forward(*kept)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:  # pyright: ignore
        """Gradients to the tensors that ask for one."""
        tensors = ctx.saved_tensors  # hooks may give them away once
        wanted = ctx.needs_input_grad[3:]
        positions = [position for position, needed in enumerate(wanted) if needed]
        found: list[Any] = [None] * len(wanted)
        given = [*tensors, *map(ctx.adapter.plain, grads)]
        if any(_is_shared(ctx.fold, position, tensors) for position in positions):
            given = list(map(widened, given))
        for position, gradient in zip(positions, _gradients(ctx, positions, given), strict=True):
            # In the tensor's own shape: summed over whatever was broadcast.
            target = tensors[position]
            found[position] = summed(ctx.fold, position, gradient, target).to(target.dtype)
        return None, None, None, *found

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:  # pyright: ignore
        """The derivative along the tangents that are given."""
        tensors = ctx.saved_tensors
        given = tangents[3:]
        positions = tuple(n for n, tangent in enumerate(given) if tangent is not None)
        along = (*tensors, *(ctx.adapter.plain(given[n]) for n in positions))
        found = [
            _apply(fold, ctx.adapter, along, ctx.ranges)
            for fold in ctx.fold.push_forward(positions)
        ]
        return found[0] if len(found) == 1 else tuple(found)

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
        """One more batch axis, in front of those of every tensor."""
        fold, adapter, ranges, *tensors = args
        for position, tensor in enumerate(tensors):
            adapter.check_memory(tensor, label_of(position, fold.names))
        own = [1 if v.params[2] == Kind.PARAMETER else 2 for v in fold.variables]
        depth = max(
            tensor.dim() - (dim is not None) - least
            for tensor, dim, least in zip(tensors, in_dims[3:], own, strict=True)
        )
        moved: list[Any] = []
        for tensor, dim, least in zip(tensors, in_dims[3:], own, strict=True):
            if dim is None:
                moved.append(tensor)
                continue
            front = tensor.movedim(dim, 0)
            missing = depth - (front.dim() - 1 - least)
            moved.append(front.reshape(front.shape[0], *[1] * missing, *front.shape[1:]))
        results: list[Any] = []
        for result in _all(_apply(fold, adapter, moved, ranges)):
            if result.dim() < depth + 3:  # only a parameter had the axis, of size 1: it was dropped
                result = result.unsqueeze(0)
            results.append(result.expand(info.batch_size, *result.shape[1:]))
        return (results[0], 0) if len(results) == 1 else (tuple(results), (0,) * len(results))


def applied(function: Any, *args: Any) -> Any:
    """`function.apply(*args)`, also where autograd computes many gradients at once.

    `is_grads_batched=True` and its like do so under an older vmap than `torch.func`'s, which hides
    axes of tensors and does not ask functions for their batching rule; here it is used.
    """
    if not _in_older_vmap():
        return function.apply(*args)
    levels = _inside._vmapmode_increment_nesting() - 1
    _inside._vmapmode_decrement_nesting()
    for level in range(levels, 0, -1):
        found = [_exposed(argument, level) for argument in args]
        sizes = [tensor.shape[0] for tensor in found if tensor is not None]
        if sizes:
            in_dims = [None if tensor is None else 0 for tensor in found]
            moved = [a if tensor is None else tensor for a, tensor in zip(args, found, strict=True)]
            results, out_dims = function.vmap(_Axis(sizes[0]), in_dims, *moved)
            if isinstance(results, tuple):
                pairs = zip(results, out_dims, strict=True)
                return tuple(_torch._add_batch_dim(result, dim, level) for result, dim in pairs)
            return _torch._add_batch_dim(results, out_dims, level)
    return function.apply(*args)


@dataclass(frozen=True)
class _Axis:
    """What a batching rule asks about the axis."""

    batch_size: int


def _in_older_vmap() -> bool:
    return _inside._dispatch_tls_is_dispatch_key_included(_VMAP_MODE)


def _exposed(tensor: Any, level: int) -> Any:
    """The tensor with its hidden axis of a level in front, or None if it has none."""
    if not _is(tensor) or not _inside._functorch.is_legacy_batchedtensor(tensor):
        return None
    # A tensor without that axis is repeated as often as one says.
    one, two = (_torch._remove_batch_dim(tensor, level, count, 0) for count in (1, 2))
    return one if one.shape[0] == two.shape[0] else None


def _apply(fold: Fold, adapter: Any, tensors: Sequence[Any], ranges: Ranges | None = None) -> Any:
    return applied(FoldFunction, fold, adapter, ranges, *tensors)


def _all(results: Any) -> tuple[Any, ...]:
    return results if isinstance(results, tuple) else (results,)


def _gradients(ctx: Any, positions: Sequence[int], given: Sequence[Any]) -> Sequence[Any]:
    """The gradients to some tensors, with every row and batch axis.

    They are swept where no derivative of them is asked for.
    """
    if ctx.ranges is None and _plain(given) and not _in_older_vmap():
        swept = sweep(ctx.fold, positions, ctx.adapter, given)
        if swept is not None:
            return swept
    folds = (ctx.fold.pull_back(position) for position in positions)
    return [_apply(fold, ctx.adapter, given, ctx.ranges) for fold in folds]


def _is_shared(fold: Fold, position: int, tensors: Sequence[Any]) -> bool:
    """Whether a gradient is a sum over rows or batches."""
    inner = [1 if v.params[2] == Kind.PARAMETER else 2 for v in fold.variables]
    if inner[position] == 1:
        return True
    batches = [t.shape[:-n] for t, n in zip(tensors, inner, strict=False)]
    return batches[position].numel() < torch.broadcast_shapes(*batches).numel()


def widened(tensor: Any) -> Any:
    """The tensor, in float32 if it is of half precision: what is added up is rounded once."""
    return tensor.float() if tensor.dtype in _HALVES else tensor


def summed(fold: Fold, position: int, result: Any, target: Any) -> Any:
    """A gradient with every row and batch axis, summed to the shape of its argument."""
    if fold.variables[position].params[2] == Kind.PARAMETER:
        result = result.sum(-2)
    if result.shape == target.shape:
        return result
    # Leading axes of size 1 that only a parameter has are not those of the result.
    missing = max(target.dim() - result.dim(), 0)
    return result.sum_to_size(target.shape[missing:]).reshape(target.shape)


def call(
    fold: Fold, adapter: Any, tensors: Sequence[Any], out: Any, ranges: Ranges | None = None
) -> Any:
    """Reduce tensors; the result carries a graph where one of them asks for gradients.

    Raises:
        DerivativeError: `out` together with tensors that need gradients.
    """
    try:
        direct = out is None and _plain(tensors)
    except PairfoldError:
        raise
    except Exception:
        fold.check(tensors, adapter.name)  # says which tensor does not answer
        raise
    if direct:
        try:
            return fold(adapter, tensors, None, ranges)
        except ArrayTypeError:
            if not _in_older_vmap():
                raise
    # Errors are raised here, not from inside autograd's machinery.
    wrapped = _inside._functorch.is_functorch_wrapped_tensor
    if _in_older_vmap() or any(wrapped(tensor) for tensor in tensors if _is(tensor)):
        fold.check(tensors, adapter.name)
    else:
        sizes = fold.binding(adapter, tensors).sizes
        if ranges is not None:
            ranges.pattern(fold.kept, sizes.i, sizes.j)
    if out is None:
        return fold.shaped(adapter, differentiable(fold, adapter, tensors, ranges))
    if _in_older_vmap() or any(wrapped(given) for given in (*tensors, *_all(out)) if _is(given)):
        raise DerivativeError("out is not filled inside a transform of torch", hint="out=None")
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        found = fold.shaped(adapter, differentiable(fold, adapter, tensors, ranges))
        targets = _all(out)
        if any(target.requires_grad and target.is_leaf for target in targets):
            raise DerivativeError("out must not require gradients itself", hint="out.detach()")
        return fill(adapter, out, found, fold)
    return fold(adapter, tensors, out, ranges)


def _is(tensor: object) -> bool:
    return isinstance(tensor, torch.Tensor)


def _plain(tensors: Sequence[Any]) -> bool:
    """Whether no derivative or batching is going on: the kernel may be called directly.

    Raises:
        UnsupportedError: torch records operations.
    """
    transformed = _transform() is not None
    if transformed or _dispatch_modes() or _function_modes() or _tracing():
        check_recording()
    if transformed:
        return False
    if forward_ad._current_level >= 0:  # pyright: ignore
        return False
    if not _grad_enabled():
        return True
    wanted = False
    for tensor in tensors:
        if _is(tensor):
            wanted |= tensor.requires_grad
    return not wanted


# ----- reductions whose derivatives are made of others' ------------------------------------------


def differentiable(
    fold: Fold, adapter: Any, tensors: Sequence[Any], ranges: Ranges | None
) -> tuple[Any, ...]:
    """The results of a reduction, made of parts that know their derivatives."""
    if fold.row.pullback is not None:
        return _all(_apply(fold, adapter, tensors, ranges))
    if fold.row.selects and any(result.kind == "value" for result in fold.row.results):
        return _selected(fold, adapter, tensors, ranges)
    composed = _COMPOSED.get(fold.reduction)
    if composed is None:  # whole numbers: constants to every derivative
        return _all(_apply(fold, adapter, [tensor.detach() for tensor in tensors], ranges))
    # What derivatives read of the results must not be rounded to half precision.
    found = _all(composed(fold, adapter, list(map(widened, tensors)), ranges))
    return tuple(result.to(tensors[0].dtype) for result in found)


def _columns(fold: Fold, tensors: Sequence[Any]) -> int:
    """The length of the reduced axis."""
    reduced = Kind.J if fold.kept == Kind.I else Kind.I
    pairs = zip(fold.variables, tensors, strict=True)
    return next((tensor.shape[-2] for v, tensor in pairs if v.params[2] == reduced), 1)


def _mean(fold: Fold, adapter: Any, tensors: Sequence[Any], ranges: Ranges | None) -> Any:
    """The sum, divided by the number of columns."""
    found = _apply(fold.variant("Sum"), adapter, tensors, ranges)
    if ranges is None:
        return found / _columns(fold, tensors)
    rows, columns = found.shape[-2], _columns(fold, tensors)
    i, j = (rows, columns) if fold.kept == Kind.I else (columns, rows)
    counts = ranges.pattern(fold.kept, i, j).counts(rows)
    counted = torch.from_numpy(counts).to(found.device, torch.float64)
    return (found / counted[:, None]).to(found.dtype)


def _shifted(
    fold: Fold, adapter: Any, tensors: Sequence[Any], ranges: Ranges | None
) -> tuple[Any, Any]:
    """m = max F, then sum e^(F - m) G, which changes with m too."""
    largest = fold.derived("largest", lambda: _largest(fold))
    (top,) = _selected(largest, adapter, tensors, ranges)
    _, _, total = _apply(fold.variant("LogParts"), adapter, tensors, ranges)
    # As in the kernel the anchor is finite: -inf and inf then need no special case.
    limit = torch.finfo(top.dtype).max
    anchor = top.clamp(-limit, limit)
    return top, total * (anchor.detach() - anchor).exp()


def _largest(fold: Fold) -> Fold:
    return fold.with_formula(fold.formula, fold.variables, "Max", fold.kept)


_COMPOSED: dict[str, Callable[..., Any]] = {
    "Mean": _mean,
    "Prod": lambda fold, *rest: _apply(fold.variant("ProdParts"), *rest)[0],
    "LogSumExp": lambda fold, *rest: _apply(fold.variant("LogParts"), *rest)[0],
    "LogSumExpWeight": lambda fold, *rest: _apply(fold.variant("LogParts"), *rest)[0],
    "SumSoftMaxWeight": lambda fold, *rest: _apply(fold.variant("SoftMaxParts"), *rest)[0],
    "Max_SumShiftExp": _shifted,
    "Max_SumShiftExpWeight": _shifted,
}

_LOCATED = {
    "Min": "Min_ArgMin",
    "Max": "Max_ArgMax",
    "KMin": "KMin_ArgKMin",
}


def _selected(
    fold: Fold, adapter: Any, tensors: Sequence[Any], ranges: Ranges | None
) -> tuple[Any, ...]:
    """Selected values as functions of the arguments: the formula at the selected pairs.

    Which pairs they are is found without a graph; the formula is then evaluated at these pairs
    alone, one per result, so the derivatives of any order cost as much as the result is long.
    """
    located = fold.variant(_LOCATED.get(fold.reduction, fold.reduction))
    frozen = [tensor.detach() for tensor in tensors]
    values, indices = _apply(located, adapter, frozen, ranges)
    if not _columns(fold, tensors):
        # Nothing is selected: constants that stand in the graph, so that gradients are zeros.
        nothing = _apply(fold.variant("Sum"), adapter, tensors)
        found = values + nothing.repeat(*[1] * (nothing.dim() - 1), values.shape[-1] // fold.dim)
    else:
        # Gradients of what is gathered are added up: in float32, and rounded once.
        wide = list(map(widened, tensors))
        parts: list[Any] = []
        for component in range(fold.dim):
            places = indices[..., component :: fold.dim]
            at_pairs = fold.derived(("at", component), lambda c=component: _at_pairs(fold, c))
            part = _apply(at_pairs, adapter, _gathered(fold, wide, places)).to(values.dtype)
            long = places.flatten(-2).unsqueeze(-1)  # a formula of parameters has one row only
            parts.append(part.expand(long.shape).reshape(places.shape))
        # Places that no pair took hold a constant.
        found = torch.stack(parts, dim=-1).reshape(values.shape)
        nothing = -math.inf if located.reduction == "Max_ArgMax" else math.inf
        found = torch.where(values == nothing, values, found)
    given = {"value": found, "index": indices}
    return tuple(given[result.kind] for result in fold.row.results)


def _at_pairs(fold: Fold, component: int) -> Fold:
    """One component of the formula, every variable indexed as the results are."""
    moved = {
        v: variable(v.params[0], v.params[1], fold.kept)
        for v in fold.variables
        if v.params[2] != Kind.PARAMETER
    }
    variables = [moved.get(v, v) for v in fold.variables]
    formula = OPERATIONS["Elem"](substitute(fold.formula, moved), component)
    return fold.with_formula(formula, variables, "Sum", fold.kept)


def _gathered(fold: Fold, tensors: Sequence[Any], places: Any) -> list[Any]:
    """Arguments at rows r and columns places[..., r, :], as rows of one long axis."""
    length = places.shape[-1]
    flat = places.flatten(-2).unsqueeze(-1)
    found: list[Any] = []
    for v, tensor in zip(fold.variables, tensors, strict=True):
        if v.params[2] == fold.kept:
            tensor = tensor.repeat_interleave(length, dim=-2)
        elif v.params[2] != Kind.PARAMETER:
            tensor = tensor.reshape(*[1] * (flat.dim() - tensor.dim()), *tensor.shape)
            tensor = torch.take_along_dim(tensor, flat, dim=-2)
        found.append(tensor)
    return found
