"""torch's side: every fold as a differentiable function of its arguments.

What the derivatives are is said in `derivatives.py`, for any library; here torch's autograd,
forward mode and vmap are told of them. Each is again a fold of a formula, called through the same
function, so gradients of any order need no code of their own.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeGuard, cast

import torch
from torch import Tensor
from torch.autograd import forward_ad

from ..arrays.advice import label_of
from ..arrays.library import ArrayLibrary
from ..arrays.torch_gate import check_kind, is_dispatched, recorder
from ..core.library import Array, Results
from ..errors import ArrayTypeError, DerivativeError, DeviceError, PairfoldError
from .derivatives import (
    Apply,
    OnePass,
    all_tangents,
    batched,
    by_part,
    differentiable,
    gradients,
)
from .filling import fill
from .fused import computed_gradients
from .passes import Joint
from .ranges import Ranges, checked_ranges
from .reduction import FormulaReduction

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .solve import Request, System

    Outputs = Array | tuple[Array, ...]
    Inputs = tuple[FormulaReduction, ArrayLibrary, Ranges | None, Unpack[tuple[Array, ...]]]

# Looked up once: these are asked at every call.
_torch: Any = torch  # names that its stubs leave out
inside = _torch._C
_dispatch_modes = inside._len_torch_dispatch_stack
_function_modes = inside._len_torch_function_stack
_tracing = inside._is_tracing
_transform = inside._functorch.peek_interpreter_stack
_transforms = inside._are_functorch_transforms_active
_alive = inside._functorch.unwrap_if_dead
_grad_enabled = torch.is_grad_enabled
_VMAP_MODE = inside._parse_dispatch_key("VmapMode")


class _Context(Protocol):
    """What torch keeps of a call of a fold for its derivatives."""

    fold: FormulaReduction
    library: ArrayLibrary
    ranges: Ranges | None
    saved_tensors: tuple[Tensor, ...]
    needs_input_grad: tuple[bool, ...]

    def save_for_backward(self, *tensors: Array) -> None: ...
    def save_for_forward(self, *tensors: Array) -> None: ...
    def mark_non_differentiable(self, *tensors: Array) -> None: ...
    def set_materialize_grads(self, value: bool) -> None: ...


class FoldFunction(torch.autograd.Function):
    """fold(*tensors), with its pull-back, push-forward and batching rule."""

    @staticmethod
    def forward(
        fold: FormulaReduction, library: ArrayLibrary, ranges: Ranges | None, *tensors: Array
    ) -> Outputs:
        """The reduction itself: one tensor, or a tuple, as machine code writes them."""
        results = fold.run(library, tensors, ranges)
        return results[0] if len(results) == 1 else results

    @staticmethod
    def setup_context(ctx: _Context, inputs: Inputs, output: Outputs) -> None:
        """Keep the arguments, and the results where derivatives read them."""
        ctx.fold, ctx.library, ctx.ranges, *tensors = inputs
        results = output if isinstance(output, tuple) else (output,)
        if ctx.fold.joint or not ctx.fold.has_derivatives:
            ctx.set_materialize_grads(not ctx.fold.joint)
            parts = by_part(ctx.fold, results)
            constant = [result for part, own in parts if not part.has_derivatives for result in own]
            ctx.mark_non_differentiable(*constant)
        kept = (*tensors, *results) if ctx.fold.saves else tensors
        ctx.save_for_backward(*kept)
        ctx.save_for_forward(*kept)

    @staticmethod
    def backward(  # pyright: ignore
        ctx: _Context, *grads: Array | None
    ) -> tuple[Array | None, ...]:
        """Gradients to tensors that ask for one; in one pass where they have none themselves."""
        saved = ctx.saved_tensors  # hooks may give them away once
        wanted = ctx.needs_input_grad[3:]
        positions = [position for position, needed in enumerate(wanted) if needed]
        incoming = [None if g is None else ctx.library.plain(g) for g in grads]
        one_pass = None
        if is_final([*saved, *incoming]) and not _in_older_vmap():
            one_pass = operators().one_pass if _is_recorded() else computed_gradients
        given = (
            ctx.fold,
            ctx.library,
            positions,
            saved,
            incoming,
            ctx.ranges,
            apply_fold,
            one_pass,
        )
        try:
            results = gradients(*given)
        except PairfoldError:
            raise
        except Exception:
            for position, tensor in enumerate(saved):  # says which tensor does not answer
                check_kind(tensor, label_of(position, ctx.fold.names))
            raise
        found: list[Array | None] = [None] * len(wanted)
        for position, gradient in zip(positions, results, strict=True):
            found[position] = gradient
        return None, None, None, *found

    @staticmethod
    def jvp(  # pyright: ignore
        ctx: _Context, *given: Array | None
    ) -> Array | tuple[Array | None, ...] | None:
        """The derivative along the tangents that are given."""
        saved = ctx.saved_tensors
        moved = {n: t for n, t in enumerate(given[3:]) if t is not None}
        positions, along = list(moved), list(map(ctx.library.plain, moved.values()))
        found = all_tangents(ctx.fold, ctx.library, positions, saved, along, ctx.ranges, apply_fold)
        return found[0] if len(found) == 1 else found

    @staticmethod
    def vmap(
        info: BatchAxis, in_dims: tuple[int | None, ...], *args: Any
    ) -> tuple[Results, int | tuple[int, ...]]:
        """One more batch axis, in front of those of every tensor."""
        fold, library, ranges, *tensors = args
        for position, tensor in enumerate(tensors):
            library.check_memory(tensor, label_of(position, fold.names))
        found = batched(fold, library, tensors, in_dims[3:], info.batch_size, ranges, apply_fold)
        return (found[0], 0) if len(found) == 1 else (found, (0,) * len(found))


def applied(function: type[torch.autograd.Function], *args: object) -> Any:
    """`function.apply(*args)`, also where autograd computes many gradients at once.

    `is_grads_batched=True` and its like do so under an older vmap than `torch.func`'s, which hides
    axes of tensors and does not ask functions for their batching rule; here it is used.
    """
    if not _in_older_vmap():
        if _transforms():
            return function.apply(*args)
        # What `apply` does, which looks at the signature of `forward` first: that takes as long as
        # a small reduction.
        alive = [_alive(each) if isinstance(each, Tensor) else each for each in args]
        return super(torch.autograd.Function, function).apply(*alive)  # pyright: ignore
    levels = inside._vmapmode_increment_nesting() - 1
    inside._vmapmode_decrement_nesting()
    for level in range(levels, 0, -1):
        found = [_exposed(argument, level) for argument in args]
        sizes = [tensor.shape[0] for tensor in found if tensor is not None]
        if sizes:
            in_dims = [None if tensor is None else 0 for tensor in found]
            moved = [a if tensor is None else tensor for a, tensor in zip(args, found, strict=True)]
            results, out_dims = function.vmap(BatchAxis(sizes[0]), in_dims, *moved)
            if isinstance(results, tuple):
                pairs = zip(results, out_dims, strict=True)
                return tuple(_torch._add_batch_dim(result, dim, level) for result, dim in pairs)
            return _torch._add_batch_dim(results, out_dims, level)
    return function.apply(*args)


@dataclass(frozen=True)
class BatchAxis:
    """What a batching rule asks about the axis."""

    batch_size: int


def _in_older_vmap() -> bool:
    return inside._dispatch_tls_is_dispatch_key_included(_VMAP_MODE)


def _exposed(tensor: object, level: int) -> Tensor | None:
    """The tensor with its hidden axis of a level in front, or None if it has none."""
    if not _is(tensor) or not inside._functorch.is_legacy_batchedtensor(tensor):
        return None
    # A tensor without that axis is repeated as often as one says.
    one, two = (_torch._remove_batch_dim(tensor, level, count, 0) for count in (1, 2))
    return one if one.shape[0] == two.shape[0] else None


def apply_fold(
    fold: FormulaReduction, library: ArrayLibrary, tensors: Sequence[Array], ranges: Ranges | None
) -> tuple[Array, ...]:
    """The results of one fold, as machine code writes them, with their derivatives."""
    if _is_recorded():
        return operators().apply(fold, library, tensors, ranges)
    return _all(applied(FoldFunction, fold, library, ranges, *tensors))


def _all(results: Any) -> tuple[Tensor, ...]:
    return results if isinstance(results, tuple) else (results,)


def _flat(out: object) -> list[Tensor]:
    """The tensors to be filled, of all results of all reductions."""
    if isinstance(out, tuple):
        return [tensor for part in cast("tuple[object, ...]", out) for tensor in _flat(part)]
    return [out] if _is(out) else []


def call(
    fold: FormulaReduction,
    library: ArrayLibrary,
    tensors: Sequence[Tensor],
    out: Results | None,
    ranges: object = None,
) -> Results:
    """Reduce tensors; the result carries a graph where one of them asks for gradients.

    Where torch records operations, or tensors have no numbers of their own, operators of torch are
    called instead.

    Raises:
        DerivativeError: `out` together with tensors that need gradients.
    """
    if isinstance(fold, Joint) and (_is_recorded() or any(map(is_dispatched, tensors))):
        operators().checked(fold, tensors)
        return fold.one_by_one(call, library, tensors, out, ranges)
    if _is_recorded():
        return operators().call(fold, library, tensors, out, ranges)
    pairs = None if ranges is None else checked_ranges(ranges)
    try:
        return _computed(fold, library, tensors, out, pairs)
    except (ArrayTypeError, DeviceError):
        if not any(is_dispatched(tensor) for tensor in tensors if _is(tensor)):
            raise
    return operators().call(fold, library, tensors, out, ranges)


def _is_recorded() -> bool:
    """Whether torch records operations, or computes without values.

    Raises:
        UnsupportedError: torch.jit.trace records.
    """
    if _transform() is None and not _dispatch_modes() and not _function_modes() and not _tracing():
        return False
    return recorder() is not None


class Operators(Protocol):
    """Reductions as operators of torch, see `torchops.py`."""

    apply: Apply
    one_pass: OnePass

    def checked(self, fold: FormulaReduction, tensors: Sequence[Tensor]) -> object:
        """The sizes that tensors agree on, which may be symbols."""
        ...

    def call(
        self,
        fold: FormulaReduction,
        library: ArrayLibrary,
        tensors: Sequence[Tensor],
        out: Results | None,
        ranges: object,
    ) -> Results:
        """What `call` gives, by operators."""
        ...


def operators() -> Operators:
    """The module of operators, which registers them when it is first asked for."""
    return cast(Operators, importlib.import_module(".torchops", __package__))


def _computed(
    fold: FormulaReduction,
    library: ArrayLibrary,
    tensors: Sequence[Tensor],
    out: Results | None,
    ranges: Ranges | None,
) -> Results:
    try:
        direct = out is None and is_final(tensors)
    except PairfoldError:
        raise
    except Exception:
        fold.check(tensors, library.name)  # says which tensor does not answer
        raise
    if direct:
        try:
            return fold(library, tensors, None, ranges)
        except ArrayTypeError:
            if not _in_older_vmap():
                raise
    # Errors are raised here, not from inside the machinery of transforms, nor from parts.
    transformed = _transforms()
    wrapped = inside._functorch.is_functorch_wrapped_tensor
    if _in_older_vmap() or (transformed and any(map(wrapped, filter(_is, tensors)))):
        fold.check(tensors, library.name)
    elif transformed or ranges is not None or fold.joint or not fold.has_derivatives:
        sizes = fold.sizes(library, tensors)
        for part in fold.apart:
            if ranges is not None:
                ranges.pattern(part.kept, sizes.i, sizes.j)
    if out is None:
        return fold.shaped(library, differentiable(fold, library, tensors, ranges, apply_fold))
    targets = _flat(out)
    if _in_older_vmap() or any(wrapped(given) for given in (*tensors, *targets) if _is(given)):
        raise DerivativeError("out is not filled inside a transform of torch", hint="out=None")
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        found = fold.shaped(library, differentiable(fold, library, tensors, ranges, apply_fold))
        if any(target.requires_grad and target.is_leaf for target in targets):
            raise DerivativeError("out must not require gradients itself", hint="out.detach()")
        return fill(library, out, found, fold)
    return fold(library, tensors, out, ranges)


def solve(
    system: System,
    library: ArrayLibrary,
    tensors: Sequence[Array],
    alpha: Array | None,
    request: Request,
) -> Array:
    """The solution of a system; it carries a graph where a tensor asks for gradients.

    Raises:
        SolveError: see `conjugate_gradients`.
    """
    from .torchsolve import solve_tensors

    return solve_tensors(system, library, tensors, alpha, request)


def _is(tensor: object) -> TypeGuard[Tensor]:
    return isinstance(tensor, torch.Tensor)


def is_final(tensors: Sequence[object]) -> bool:
    """Whether no derivative or batching is going on: the kernel may be called directly."""
    if _transform() is not None:
        return False
    if forward_ad._current_level >= 0:  # pyright: ignore
        return False
    if not _grad_enabled():
        return True
    wanted = False
    for tensor in tensors:
        if isinstance(tensor, Tensor):
            wanted |= tensor.requires_grad
    return not wanted
