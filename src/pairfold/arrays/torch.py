"""torch as an array library; torch is not imported here, but found where a program imported it."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from types import ModuleType
from typing import TYPE_CHECKING, ClassVar, TypeGuard, cast

import numpy as np

from ..core.cache import cached
from ..core.dtypes import RESULTS
from ..core.library import NumpyArray
from ..errors import ArrayTypeError, DTypeError
from . import torch_gate as gate
from .library import COMPLEX, WHOLE, ClustersOf, Functions, Need, Words
from .torch_device import TorchDevice

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    _Addresses = Callable[[list[Tensor], Sequence[Need | None]], list[int]]


def _torch() -> ModuleType:
    return sys.modules["torch"]


class _Clusters:
    """Clusters of points, as PyKeOps has them for torch."""

    @staticmethod
    def cells(points: Tensor, size: object) -> Tensor:
        x = points.detach()
        if not isinstance(size, (int, float)):
            size = size.detach() if TorchArrays.owns(size) else x.new_tensor(size)
        return ((x - x.min(0).values) / size).floor().long() if len(x) else x.long()

    @staticmethod
    def ranks(codes: Tensor) -> Tensor:
        return codes.unique(return_inverse=True)[1].int()

    @staticmethod
    def order(labels: Tensor) -> Tensor:
        return labels.argsort(stable=True)

    @staticmethod
    def sizes(labels: Tensor, count: int) -> Tensor:
        return labels.long().bincount(minlength=count)

    @staticmethod
    def sums(values: Tensor, labels: Tensor, count: int) -> Tensor:
        values = values.double()
        return values.new_zeros(count, values.shape[1]).index_add(0, labels.long(), values)

    @staticmethod
    def ratio(sums: Tensor, totals: Tensor) -> Tensor:
        return sums / totals

    @staticmethod
    def floored(totals: Tensor, least: float) -> Tensor:
        return totals.clamp(min=least)

    @staticmethod
    def intervals(ends: Tensor, sizes: Tensor) -> Tensor:
        return (ends - sizes)[:, None].repeat(1, 2).index_add(1, ends.new_ones(1), sizes[:, None])

    @staticmethod
    def chosen(ranges: Tensor, where: Tensor) -> Tensor:
        return ranges[where.nonzero()[:, 1]]

    @staticmethod
    def whole(ranges: Tensor) -> Tensor:
        return ranges


class TorchArrays:
    """The library of `torch.Tensor` (parameters and other subclasses included)."""

    name: ClassVar[str] = "torch"
    differentiates: ClassVar[bool] = True
    clusters: ClassVar[ClustersOf[Tensor]] = _Clusters
    elsewhere: ClassVar[Callable[..., None] | None] = None
    words: ClassVar[Words] = Words(
        one="a torch tensor",
        many="torch tensors",
        joined="torch.cat",
        new="torch.empty({shape}, dtype=torch.{dtype})",
        beside="torch.empty(..., device=x.device)",
        moved="{name}.to({device!r})",
        made="torch.as_tensor({name})",
        numpy="{name}.numpy()",
    )

    # -- what an array is -----------------------------------------------------------------------

    @staticmethod
    def owns(array: object) -> TypeGuard[Tensor]:
        """Whether the array is a tensor; False when torch was never imported."""
        torch = sys.modules.get("torch")
        return torch is not None and isinstance(array, torch.Tensor)

    @staticmethod
    def key(array: Tensor) -> tuple[object, ...]:
        """All but the address: what tensors of equal keys need is worked out only once."""
        return (
            array.__class__,
            array.dtype,
            array.device,
            array.layout,
            array.is_neg(),
            array.shape,
            array.stride(),
        )

    @staticmethod
    def dtype(array: Tensor) -> str:
        """The name of the dtype, as NumPy has it."""
        return str(array.dtype).removeprefix("torch.")

    @staticmethod
    def plain(array: Tensor) -> Tensor:
        """The tensor; its memory alone where it is of a subclass that answers for its shape."""
        return gate.plain(array)

    @staticmethod
    def check_kind(array: Tensor, label: str) -> None:
        """Raise for tensors that no backend reads, or that are not stored as plain numbers."""
        gate.check_kind(array, label)

    @staticmethod
    def check_memory(array: Tensor, label: str) -> None:
        """Raise unless the memory of a tensor holds all its elements."""
        gate.check_memory(array, label)

    @staticmethod
    def check_layout(array: Tensor, label: str) -> None:
        """Raise for tensors that no reduction is computed on, be it by an operator."""
        gate.check_layout(array, label)

    @staticmethod
    def check_traced() -> None:
        """Raise inside torch.jit.trace, where sizes are tensors."""
        gate.check_traced()

    @staticmethod
    def check_recording() -> None:
        """Raise where torch records operations, or computes without values."""
        gate.check_recording()

    # -- where it is ----------------------------------------------------------------------------

    @staticmethod
    def device(array: Tensor) -> TorchDevice | None:
        """The GPU that holds the tensor; None: the host's memory."""
        return None if array.device.type == "cpu" else TorchDevice(array.device)

    @staticmethod
    def place(array: Tensor) -> Mapping[str, object]:
        """The device."""
        return {"device": array.device}

    @staticmethod
    def strides(array: Tensor) -> tuple[int, ...]:
        """Strides in bytes."""
        item = array.element_size()
        return tuple([stride * item for stride in array.stride()])

    @staticmethod
    def item_bytes(array: Tensor) -> int:
        """Bytes of an element."""
        return array.element_size()

    @staticmethod
    def address(array: Tensor) -> int:
        """Address of the first element."""
        return array.data_ptr()

    # Asked at every call, so nothing stands between.
    addresses: ClassVar[_Addresses] = staticmethod(gate.addresses)

    @staticmethod
    def need(array: Tensor, label: str) -> Need:
        """What the tensor needs of memory, to be checked at each call."""
        return (*gate.span(array), label)

    @staticmethod
    def memory(array: Tensor) -> tuple[object, ...] | None:
        """Device, address and strides, and whether gradients are asked for."""
        try:
            place = array.data_ptr()
        except RuntimeError:  # arrays inside a transform have no memory of their own
            return None
        if not place:
            return None
        return str(array.device), place, array.stride(), array.requires_grad

    @staticmethod
    def writable(array: Tensor) -> bool:
        """Whether its memory holds its values, to be written."""
        return not array.is_neg() and not array._is_zerotensor()

    @staticmethod
    def is_ready(array: Tensor) -> bool:
        """Whether its memory is its values: that of a negation view is not."""
        return not array.is_neg()

    @staticmethod
    def ready(array: Tensor) -> Tensor:
        """The tensor in a form whose memory is its values (a negation view is carried out)."""
        return array.resolve_neg() if array.is_neg() else array

    # -- new arrays -----------------------------------------------------------------------------

    @staticmethod
    def empty(shape: tuple[int, ...], like: Tensor, kind: str = "value") -> Tensor:
        """A new tensor of that shape on the device of another: of its dtype, or that of a kind of
        results."""
        torch = sys.modules["torch"]
        dtype = like.dtype
        if kind in RESULTS:
            dtype = getattr(torch, RESULTS[kind])
        # One number after the other, torch reads sizes faster than as a tuple.
        return torch.empty(*shape, dtype=dtype, device=like.device)

    @staticmethod
    def numbers(values: Sequence[float], like: Tensor) -> Tensor:
        """Numbers as a tensor of the dtype and on the device of another; never to be changed."""
        if like.device.type == "cpu":
            return _torch().tensor(values, dtype=like.dtype)
        return _numbers_there(tuple(values), like.dtype, like.device)

    @staticmethod
    def vector(values: Sequence[object], like: Tensor) -> Tensor:
        """Numbers, and tensors of one number each, joined to one vector; gradients pass."""
        torch, options = _torch(), {"dtype": like.dtype, "device": like.device}
        return torch.cat([torch.as_tensor(value, **options).reshape(1) for value in values])

    @staticmethod
    def tensor(array: NumpyArray) -> Tensor:
        """A NumPy array as a tensor, of the same memory where that is possible."""
        array = np.ascontiguousarray(array)
        return _torch().as_tensor(array if array.flags.writeable else array.copy())

    @staticmethod
    def constants(values: NumpyArray, like: Tensor) -> Tensor:
        """A NumPy array as a tensor, on the device of another."""
        return TorchArrays.tensor(values).reshape(values.shape).to(like.device)

    @staticmethod
    def cast(array: Tensor, dtype: str) -> Tensor:
        """The tensor in another dtype; itself where it has it."""
        return array.to(getattr(sys.modules["torch"], dtype))

    @staticmethod
    def cast_like(array: Tensor, like: Tensor) -> Tensor:
        """The tensor in the dtype of another; itself where it has it."""
        return array.to(like.dtype)

    @staticmethod
    def matched(array: Tensor, like: Tensor) -> Tensor:
        """The tensor in the dtype and on the device of another; itself where it has them."""
        return array.to(like)

    @staticmethod
    def converted(array: Tensor, args: Sequence[object], options: Mapping[str, object]) -> Tensor:
        """What torch's `to` makes of the tensor."""
        to: Callable[..., Tensor] = array.to
        return to(*args, **options)

    @staticmethod
    def copied(array: Tensor, memo: dict[int, object]) -> Tensor:
        """A deep copy; a view of a parameter becomes the same view of the parameter's copy.

        Raises:
            ArrayTypeError: a tensor computed from others that ask for gradients.
        """
        if array.is_leaf:
            return copy.deepcopy(array, memo)
        base = array._base if array._is_view() else None
        if base is None or not base.is_leaf or array.is_conj() or array.dtype != base.dtype:
            raise ArrayTypeError(
                "a tensor that was computed from others cannot be copied with its history",
                found=f"a {type(array).__name__} of shape {tuple(array.shape)} with a graph",
                hint="make the LazyTensor where it is used, from the parameters; or x.detach()",
            )
        owner = copy.deepcopy(base, memo)
        return owner.as_strided(array.shape, array.stride(), array.storage_offset())

    @staticmethod
    def detached(array: Tensor) -> Tensor:
        """The same values, without a graph and without tangents."""
        return array.detach()

    # -- numbers --------------------------------------------------------------------------------

    @staticmethod
    def to_numpy(array: Tensor) -> NumpyArray:
        """The tensor's values as a NumPy array."""
        array = array.detach()
        return (array.float() if array.dtype == _torch().bfloat16 else array).cpu().numpy()

    @staticmethod
    def whole_numbers(array: Tensor, label: str) -> NumpyArray:
        """The values of a tensor that no derivative reads, as a NumPy array.

        Inside the transforms of `torch.func` even a plain tensor's `detach` would wrap it.

        Raises:
            ArrayTypeError: other values for each batch element of a vmap.
            DTypeError: numbers that NumPy has no whole numbers for.
        """
        if TorchArrays.dtype(array) not in WHOLE:
            raise DTypeError(
                f"{label} must hold whole numbers", found=f"dtype {array.dtype}", hint="x.long()"
            )
        inside = _torch()._C._functorch
        while inside.is_functorch_wrapped_tensor(array):
            if inside.is_batchedtensor(array):
                raise ArrayTypeError(
                    "all batch elements must have the same numbers",
                    found=f"{label} is mapped over",
                    hint="in_dims=None for it",
                )
            array = inside.get_unwrapped(array)
        with _torch()._C._DisableFuncTorch():
            return array.numpy(force=True)

    @staticmethod
    def as_real(array: Tensor) -> Tensor:
        """Complex numbers as real ones, twice as many along the last axis; else itself."""
        if TorchArrays.dtype(array) not in COMPLEX:
            return array
        array = array if array.shape else array.reshape(1)
        return _torch().view_as_real(array.resolve_conj()).flatten(-2)

    @staticmethod
    def as_complex(array: Tensor) -> Tensor:
        """Pairs of real numbers along the last axis, as half as many complex ones."""
        shape = (*array.shape[:-1], array.shape[-1] // 2, 2)
        return _torch().view_as_complex(array.reshape(shape).contiguous())

    # -- operations -----------------------------------------------------------------------------

    @staticmethod
    def exp(array: Tensor) -> Tensor:
        """e^x."""
        return array.exp()

    @staticmethod
    def log(array: Tensor) -> Tensor:
        """log x."""
        return array.log()

    @staticmethod
    def larger(one: Tensor, other: Tensor) -> Tensor:
        """The larger of two numbers each."""
        return sys.modules["torch"].where(one > other, one, other)

    @staticmethod
    def order(values: Tensor, indices: Tensor) -> Tensor:
        """Places along the last axis that sort pairs by value, then by index."""
        by_index = indices.argsort(dim=-1, stable=True)
        by_value = values.gather(-1, by_index).argsort(dim=-1, stable=True)
        return by_index.gather(-1, by_value)

    @staticmethod
    def clamped(array: Tensor, low: float, high: float) -> Tensor:
        """The numbers, none below `low` or above `high`."""
        return array.clamp(low, high)

    @staticmethod
    def where(condition: Tensor, one: Tensor, other: Tensor) -> Tensor:
        """`one` where the condition holds, `other` elsewhere."""
        return _torch().where(condition, one, other)

    @staticmethod
    def sum(array: Tensor, axis: int) -> Tensor:
        """The sum along an axis, which is dropped."""
        return array.sum(axis)

    @staticmethod
    def sum_to(array: Tensor, shape: Sequence[int]) -> Tensor:
        """The sum along the axes that broadcasting from `shape` would have added or repeated."""
        return array.sum_to_size(shape)

    @staticmethod
    def expanded(array: Tensor, shape: Sequence[int]) -> Tensor:
        """The tensor broadcast to a shape."""
        return array.expand(shape)

    @staticmethod
    def repeated(array: Tensor, count: int, axis: int) -> Tensor:
        """Each entry along an axis, `count` times in a row."""
        return array.repeat_interleave(count, dim=axis)

    @staticmethod
    def selected(array: Tensor, places: Tensor, axis: int) -> Tensor:
        """What is at places (k,) along an axis, which has k of them then."""
        return array.index_select(axis, places)

    @staticmethod
    def taken(array: Tensor, places: Tensor, axis: int) -> Tensor:
        """Entries at places along an axis; the other axes of both broadcast."""
        # torch's take_along_dim is this, but takes no sizes that are symbols.
        shapes = [list(array.shape), list(places.shape)]
        for shape in shapes:
            shape[axis] = 1
        common = list(_torch().broadcast_shapes(*shapes))
        spread: list[Tensor] = []
        for given in (array, places):
            common[axis] = given.shape[axis]
            spread.append(given.expand(common))
        return spread[0].gather(axis, spread[1])

    @staticmethod
    def stacked(arrays: Sequence[Tensor]) -> Tensor:
        """Tensors of one shape, along a new last axis."""
        return _torch().stack(list(arrays), dim=-1)

    @staticmethod
    def concatenated(arrays: Sequence[Tensor]) -> Tensor:
        """Tensors joined along the last axis."""
        return _torch().cat(list(arrays), dim=-1)

    @staticmethod
    def moved(array: Tensor, source: int, target: int) -> Tensor:
        """The tensor with an axis moved to another place."""
        return array.movedim(source, target)

    # -- functions and derivatives --------------------------------------------------------------

    @staticmethod
    def functions() -> Functions:
        """torch itself."""
        return cast(Functions, _torch())

    @staticmethod
    def wants_gradient(array: Tensor) -> bool:
        """Whether the tensor is a parameter, or computed from one."""
        return array.requires_grad

    @staticmethod
    def no_graph() -> AbstractContextManager[object]:
        """torch's own context."""
        return _torch().no_grad()


@cached("numbers on devices", 256)  # a copy to a GPU waits for it, and no CUDA graph records one
def _numbers_there(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    return _torch().tensor(values, dtype=dtype, device=device)


class DeviceTensors(TorchArrays):
    """Tensors that are where their kernel runs: on a GPU, or in the interpreter's memory."""

    @staticmethod
    def key(array: Tensor) -> tuple[object, ...]:
        """As for other tensors, which are computed elsewhere where Triton interprets."""
        return ("there", *TorchArrays.key(array))

    @staticmethod
    def device(array: Tensor) -> TorchDevice:
        """The device, the interpreter's too."""
        return TorchDevice(array.device)
