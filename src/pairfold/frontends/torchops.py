"""Reductions as operators of torch: what graphs of its operations call, and tensors of other kinds.

`pairfold::reduce` computes one reduction, `pairfold::gradients` its gradients to several arguments.
Which reduction is said by a text, so that a graph can be kept in a file. This module is imported
where torch records operations or meets tensors without numbers of their own: registering takes
time, and plain calls need none of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol, cast

import torch
from torch import Tensor
from torch._functorch.utils import enable_single_level_autograd_function
from torch.autograd import forward_ad
from torch.autograd.function import _SingleLevelFunction  # pyright: ignore

from ..arrays.advice import label_of
from ..arrays.checks import Sizes, check_count, check_dtypes, check_shapes
from ..arrays.library import WHOLE, ArrayLibrary
from ..arrays.registry import TORCH, library_of
from ..arrays.torch import TorchArrays
from ..arrays.torch_gate import is_dispatched, not_plain, recorder
from ..backends.chosen import TRITON
from ..core.cache import Cache, Limit
from ..core.library import Array, Results
from ..core.node import Axis
from ..errors import ArrayTypeError, DTypeError, PairfoldError, ShapeError, UnsupportedError
from .derivatives import batched, differentiable, gradients, tangents
from .devices import OnGpu, device_for_programs
from .filling import fill
from .fused import computed_gradients
from .identity import identity, rebuilt
from .ranges import NAMES, Ranges, all_pairs, six
from .reduction import FormulaReduction
from .torch import BatchAxis, inside, is_final

if TYPE_CHECKING:
    from typing_extensions import Unpack

    _Inputs = tuple[str, tuple[bool, bool], Unpack[tuple[Array, ...]]]

_named: Cache[Named] = Cache(Limit("reductions of graphs", 512))


class DispatchedTensors(TorchArrays):
    """Tensors of any kind, also without numbers of their own: operators alone are called on them.

    What reaches machine code is checked there, by the library of plain tensors.
    """

    @staticmethod
    def check_kind(array: Tensor, label: str) -> None:
        """Raise for tensors that no reduction is computed on."""
        TorchArrays.check_layout(array, label)

    @staticmethod
    def check_memory(array: Tensor, label: str) -> None:
        """There is none, or it is looked at where it is read."""


_DISPATCHED = cast(ArrayLibrary, DispatchedTensors)


class TensorRanges(Ranges):
    """Ranges whose numbers are not known before a graph runs: six tensors, checked when it does.

    Raises:
        OptionError: not six arrays.
        DTypeError, ShapeError: what is no such array.
    """

    def __init__(self, given: object) -> None:
        parts = given.arrays if isinstance(given, Ranges) else six(given)
        self.tensors: list[Tensor] = [
            _whole(name, part) for name, part in zip(NAMES, parts, strict=True)
        ]

    def counts(self, kept: Axis, i: int, j: int, library: ArrayLibrary, like: Array) -> Array:
        """The number of columns of each row, by operations of torch."""
        blocks, ends, intervals = (part.long() for part in self.tensors[self.half(kept)])
        sums = (intervals[:, 1] - intervals[:, 0]).cumsum(0)
        sums = torch.cat([sums.new_zeros(1), sums])[ends]
        each = sums.diff(prepend=sums.new_zeros(1))
        steps = each.new_zeros((i if kept == Axis.I else j) + 1)
        steps = steps.index_add(0, blocks[:, 0], each).index_add(0, blocks[:, 1], -each)
        return cast(Array, steps.cumsum(0)[:-1, None].double().to(cast(Tensor, like).device))


def _whole(name: str, given: object) -> Tensor:
    tensor = given if isinstance(given, Tensor) else torch.as_tensor(given)
    if TorchArrays.dtype(tensor) not in WHOLE:
        raise DTypeError(f"{name} must hold whole numbers", found=f"dtype {tensor.dtype}")
    if tensor.dim() != (1 if "slices" in name else 2):
        raise ShapeError(f"{name} has another number of axes", found=f"shape {tensor.shape}")
    return tensor


# ----- texts -------------------------------------------------------------------------------------


class Named(NamedTuple):
    """What the text of an operator says: a reduction, and the library that computes it."""

    fold: FormulaReduction
    computing: ArrayLibrary
    shown: ArrayLibrary


def _key(fold: FormulaReduction, library: ArrayLibrary) -> str:
    """The text of a reduction, after the GPU that host tensors are copied to, if any."""
    if fold.far:
        raise UnsupportedError(
            "graphs of torch contain no treecodes: their plan depends on values",
            found="method='treecode'",
            hint="method='exact', or a call outside of the graph",
        )
    text = identity(fold)
    if isinstance(library, OnGpu):
        number = library.target.index
        text = f"GPU {number or 0} {text}"
    _named.of(text, lambda: _named_by(fold, library))
    return text


def text_of(fold: FormulaReduction) -> str:
    """The text of a reduction that is computed where its tensors are."""
    return _key(fold, TORCH)


def named(key: str) -> Named:
    """What a text says.

    Raises:
        FormulaError: other text, or that of another version.
        DeviceError: there is no such GPU.
    """
    return _named.of(key, lambda: _parsed(key))


def _parsed(key: str) -> Named:
    place, brace, rest = key.partition("{")
    fold = rebuilt(brace + rest)
    if not place:
        return _named_by(fold, TORCH)
    target = device_for_programs(int(place.split()[1]), TRITON.interprets)
    return _named_by(fold, cast(ArrayLibrary, OnGpu(TORCH, target)))


def _named_by(fold: FormulaReduction, library: ArrayLibrary) -> Named:
    if not isinstance(library, OnGpu):
        return Named(fold, TORCH, _DISPATCHED)
    both = OnGpu(TORCH, library.target), OnGpu(_DISPATCHED, library.target)
    return Named(fold, *cast("tuple[ArrayLibrary, ArrayLibrary]", both))


def _split(
    fold: FormulaReduction, given: Sequence[Array]
) -> tuple[list[Array], TensorRanges | None]:
    """The arguments of a reduction, and its ranges."""
    count = len(fold.variables)
    rest = list(given[count:])
    return list(given[:count]), TensorRanges(rest) if rest else None


# ----- operators ---------------------------------------------------------------------------------

_LIBRARY = torch.library.Library("pairfold", "DEF")
_TAGS = (torch.Tag.pt2_compliant_tag,)
_LIBRARY.define("reduce(str key, Tensor[] tensors) -> Tensor[]", tags=_TAGS)
_LIBRARY.define("gradients(str key, int[] positions, Tensor[] tensors) -> Tensor[]", tags=_TAGS)
_reduce = cast("Operator", torch.ops.pairfold.reduce.default)
_gradients = cast("Operator", torch.ops.pairfold.gradients.default)


class Operator(Protocol):
    """An operator of torch, called with its text first."""

    def __call__(self, key: str, /, *given: Sequence[int] | Sequence[Array]) -> list[Array]: ...


def _reduced(key: str, given: Sequence[Array]) -> list[Array]:
    """Machine code: the results of a reduction."""
    fold, library, _ = named(key)
    tensors, ranges = _split(fold, given)
    return list(fold.run(library, tensors, None if ranges is None else Ranges(ranges.tensors)))


def _computed_gradients(
    key: str, positions: Sequence[int], tensors: Sequence[Array]
) -> list[Array]:
    """Machine code: what the folds of these gradients give, from one pass where that can be."""
    fold, library, _ = named(key)
    return computed_gradients(fold, positions, library, tensors)


def _reduced_shapes(key: str, given: Sequence[Array]) -> list[Array]:
    """New tensors as `_reduced` returns them."""
    fold = named(key).fold
    return _empty(fold, _split(fold, given)[0])


def _gradients_shapes(key: str, positions: Sequence[int], tensors: Sequence[Array]) -> list[Array]:
    """New tensors as `_computed_gradients` returns them."""
    fold = named(key).fold
    return [_empty(fold.pull_back(position), tensors)[0] for position in positions]


def checked(fold: FormulaReduction, tensors: Sequence[Array]) -> Sizes:
    """The sizes that tensors agree on, which may be symbols.

    Raises:
        ArgumentError, DTypeError, DeviceError, ShapeError: they do not agree.
    """
    check_count(len(fold.variables), len(tensors), fold.names)
    check_dtypes(_DISPATCHED, tensors, fold.names, fold.variables)
    return check_shapes(fold.variables, [tuple(array.shape) for array in tensors], fold.names)


def _empty(fold: FormulaReduction, tensors: Sequence[Array]) -> list[Array]:
    sizes, like = checked(fold, tensors), tensors[0]
    shapes = zip(fold.out_shapes(sizes), fold.results, strict=True)
    return [_DISPATCHED.empty(shape, like, result.kind) for shape, result in shapes]


def apply(
    fold: FormulaReduction, library: ArrayLibrary, tensors: Sequence[Array], ranges: Ranges | None
) -> tuple[Array, ...]:
    """The results of one fold by its operator, with their derivatives."""
    given = list(tensors)
    if ranges is not None:
        pairs = ranges if isinstance(ranges, TensorRanges) else TensorRanges(ranges)
        given += pairs.tensors
    return tuple(_reduce(_key(fold, library), given))


def one_pass(
    fold: FormulaReduction, positions: Sequence[int], library: ArrayLibrary, arrays: Sequence[Array]
) -> Sequence[Array] | None:
    """What `fold.pull_back` to these arguments gives, by one operator."""
    if len(positions) < 2:
        return None
    return _gradients(_key(fold, library), list(positions), list(arrays))


class _Context(Protocol):
    """What torch keeps of a call for its derivatives."""

    key: str
    saved_tensors: tuple[Array, ...]
    needs_input_grad: tuple[bool, ...]

    def save_for_backward(self, *tensors: Array) -> None: ...
    def save_for_forward(self, *tensors: Array) -> None: ...
    def mark_non_differentiable(self, *tensors: Array) -> None: ...


class ReduceFunction(_SingleLevelFunction):
    """`pairfold::reduce` where derivatives are kept: the kernel of its Autograd key.

    torch's dispatcher calls it once for each transform of `torch.func`, so that it is a function of
    one level; those that programs call ask for the transforms themselves.
    """

    @staticmethod
    def forward(  # pyright: ignore
        key: str, modes: tuple[bool, bool], *given: Array
    ) -> tuple[Array, ...]:
        """The operator below autograd; outer transforms differentiate as the call's modes say."""
        with (
            torch.set_grad_enabled(modes[0]),
            forward_ad._set_fwd_grad_enabled(modes[1]),  # pyright: ignore
            inside._AutoDispatchBelowAutograd(),
        ):
            return tuple(_reduce(key, list(given)))

    @staticmethod
    def setup_context(  # pyright: ignore
        ctx: _Context, inputs: _Inputs, output: tuple[Array, ...]
    ) -> None:
        """Keep the arguments and ranges, and the results where derivatives read them."""
        ctx.key, _, *given = inputs
        fold = named(ctx.key).fold
        if not fold.has_derivatives:
            ctx.mark_non_differentiable(*output)
        kept = (*given, *output) if fold.saves else given
        ctx.save_for_backward(*kept)
        ctx.save_for_forward(*kept)

    @staticmethod
    def backward(ctx: _Context, *grads: Array) -> tuple[Array | None, ...]:  # pyright: ignore
        """Gradients to the tensors that ask for one; from one pass where it can be."""
        fold, _, library = named(ctx.key)
        saved, ranges = _saved(fold, ctx.saved_tensors)
        wanted = ctx.needs_input_grad[2:]
        positions = [position for position, needed in enumerate(wanted) if needed]
        together = one_pass if is_final([*saved, *grads]) else None
        given = (fold, library, positions, saved, grads, ranges, apply, together)
        found: list[Array | None] = [None] * len(wanted)
        for position, gradient in zip(positions, gradients(*given), strict=True):
            found[position] = gradient
        return None, None, *found

    @staticmethod
    def jvp(ctx: _Context, *given: Array | None) -> Results:  # pyright: ignore
        """The derivative along the tangents that are given."""
        fold, _, library = named(ctx.key)
        saved, ranges = _saved(fold, ctx.saved_tensors)
        count = len(fold.variables)
        moved = {n: t for n, t in enumerate(given[2 : 2 + count]) if t is not None}
        along = list(moved.values())
        return tangents(fold, library, list(moved), saved, along, ranges, apply)


def _saved(
    fold: FormulaReduction, kept: Sequence[Array]
) -> tuple[list[Array], TensorRanges | None]:
    """The arguments and results that were kept, and the ranges between them."""
    count, results = len(fold.variables), len(fold.results) if fold.saves else 0
    end = len(kept) - results
    between = kept[count:end]
    return [*kept[:count], *kept[end:]], TensorRanges(between) if between else None


def _reduced_with_graph(key: str, given: Sequence[Array]) -> list[Array]:
    # torch turns forward mode off while it asks for a push-forward, but outer transforms need it.
    forward = inside._is_fwd_grad_enabled() or inside._functorch.peek_interpreter_stack()
    modes = torch.is_grad_enabled(), bool(forward)
    with enable_single_level_autograd_function():
        return list(ReduceFunction.apply(key, modes, *given))  # pyright: ignore


def _gradients_with_graph(
    key: str, positions: Sequence[int], tensors: Sequence[Array]
) -> list[Array]:
    """Gradients one by one where their own derivatives may be asked for."""
    if is_final(tensors):
        with inside._AutoDispatchBelowAutograd():
            return _gradients(key, positions, tensors)
    fold, _, library = named(key)
    pulled = (fold.pull_back(position) for position in positions)
    return [apply(one, library, tensors, None)[0] for one in pulled]


_Axes = Sequence[int | None]


def _batched(
    info: BatchAxis, in_dims: tuple[None, _Axes], key: str, given: Sequence[Array]
) -> tuple[list[Array], list[int]]:
    """The batching rule: one more axis, in front of those of every tensor."""
    fold, _, library = named(key)
    tensors, ranges = _split(fold, given)
    axes, of_ranges = in_dims[1][: len(tensors)], in_dims[1][len(tensors) :]
    if any(axis is not None for axis in of_ranges):
        raise ArrayTypeError(
            "all batch elements must have the same numbers",
            found="ranges are mapped over",
            hint="in_dims=None for them",
        )
    found = batched(fold, library, tensors, axes, info.batch_size, ranges, apply)
    return list(found), [0] * len(found)


def _batched_gradients(
    info: BatchAxis,
    in_dims: tuple[None, None, _Axes],
    key: str,
    positions: Sequence[int],
    tensors: Sequence[Array],
) -> tuple[list[Array], list[int]]:
    fold, _, library = named(key)
    found: list[Array] = []
    for position in positions:
        pulled = fold.pull_back(position)
        found += batched(pulled, library, tensors, in_dims[2], info.batch_size, None, apply)
    return found, [0] * len(found)


for _device in ("CPU", "CUDA"):
    _LIBRARY.impl("reduce", _reduced, _device)
    _LIBRARY.impl("gradients", _computed_gradients, _device)
_LIBRARY.impl("reduce", _reduced_with_graph, "Autograd")
_LIBRARY.impl("gradients", _gradients_with_graph, "Autograd")
torch.library.register_fake("pairfold::reduce", _reduced_shapes, lib=_LIBRARY)
torch.library.register_fake("pairfold::gradients", _gradients_shapes, lib=_LIBRARY)
torch.library.register_vmap("pairfold::reduce", _batched, lib=_LIBRARY)
torch.library.register_vmap("pairfold::gradients", _batched_gradients, lib=_LIBRARY)


# ----- calls -------------------------------------------------------------------------------------


def call(
    fold: FormulaReduction,
    library: ArrayLibrary,
    tensors: Sequence[Tensor],
    out: Results | None,
    ranges: object,
) -> Results:
    """A fold called as users call it, by operators.

    Raises:
        ArgumentError, ArrayTypeError, ShapeError, DTypeError, DeviceError, OptionError: what
            does not fit, and classes of tensors that do not compute reductions.
    """
    library_of(tensors, fold.names, TORCH.name)
    checked(fold, tensors)
    pairs = None if all_pairs(ranges) else TensorRanges(ranges)
    shown = _named_by(fold, library).shown
    try:
        found = differentiable(fold, shown, tensors, pairs, apply)
    except PairfoldError:
        raise
    except Exception as error:
        if recorder() is not None:
            raise
        for position, tensor in enumerate(tensors):
            if is_dispatched(tensor):
                why = f", whose operations do not include pairfold::reduce: {error}"
                raise not_plain(tensor, label_of(position, fold.names), why) from error
        raise
    result = fold.shaped(shown, found)
    return result if out is None else fill(shown, out, result, fold)
