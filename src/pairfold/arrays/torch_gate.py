"""The gate in front of machine code: tensors whose memory is what their shapes and strides say.

torch has tensors of many kinds that share one class and one interface: without values, with values
in other tensors, with freed or shortened memory. What depends on the class and layout is asked once
for arrays of a kind, what can change from call to call is asked at each call, and cheaply.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING

from ..errors import ArrayTypeError, DeviceError, UnsupportedError

if TYPE_CHECKING:
    from torch import SymInt, Tensor

# What is known of classes that wrap other tensors, by name: their packages need not be imported.
_UNWRAPPED = {
    "DTensor": "x.to_local() for the part that is here, x.full_tensor() for the whole",
    "AsyncCollectiveTensor": "x.wait()",
    "MaskedTensor": "x.to_tensor(value), which says what masked elements are",
    "NestedTensor": "x.unbind() and a call for each, or x.to_padded_tensor(value)",
}


# What machine code is told of a tensor, and what is looked up on the way to it.
_ASKED = (
    *("dtype", "device", "layout", "shape", "stride", "is_neg", "element_size", "data_ptr"),
    *("storage_offset", "untyped_storage", "__getattribute__"),
)


def answers(kind: type[Tensor]) -> bool:
    """Whether a class of tensors answers in its own way for what memory is like."""
    torch = sys.modules["torch"]
    if kind is torch.Tensor or kind is torch.nn.Parameter:
        return False
    function = kind.__torch_function__
    own = torch.Tensor.__torch_function__.__func__
    usual = getattr(function, "__func__", None) is own
    usual = usual or function is torch._C._disabled_torch_function_impl
    return not usual or any(getattr(kind, n) is not getattr(torch.Tensor, n) for n in _ASKED)


def plain(array: Tensor) -> Tensor:
    """The tensor; its memory alone where it is of a subclass that answers for its shape."""
    torch = sys.modules["torch"]
    kind = type(array)
    if not answers(kind) or _wraps(kind) or torch.nn.parameter.is_lazy(array):
        return array
    with torch._C.DisableTorchFunctionSubclass():
        return array.as_subclass(torch.Tensor)


def _wraps(kind: type[Tensor]) -> bool:
    """Whether a class computes in its own way, mostly on other tensors."""
    own = kind.__torch_dispatch__  # pyright: ignore[reportAttributeAccessIssue]
    return own is not sys.modules["torch"]._C._disabled_torch_dispatch_impl


def check_kind(array: Tensor, label: str) -> None:
    """Raise for tensors that no backend reads, or that are not stored as plain numbers.

    Raises:
        ArrayTypeError: a subclass that computes in its own way, a layout other than strided, a
            nested tensor, a parameter without shape.
        DeviceError: a device that no backend uses.
    """
    array = _innermost(array)
    if _wraps(type(array)) or sys.modules["torch"]._is_functional_tensor(array):
        raise not_plain(array, label)
    check_layout(array, label)
    if array.device.type not in ("cpu", "cuda"):
        raise DeviceError(
            "pairfold computes on CPUs and on the GPUs of CUDA and ROCm",
            found=f"{label} is on device {array.device}",
            hint="x.cpu() for every argument"
            if array.device.type != "meta"
            else "tensors with values: those of the device meta have none",
        )


def is_dispatched(array: Tensor) -> bool:
    """Whether only an operator of torch can be computed on a tensor: it has no numbers of its own.

    Such are those of classes with a dispatch of their own, of functionalization, and of the device
    meta.
    """
    torch = sys.modules["torch"]
    array = _innermost(array)
    return _wraps(type(array)) or torch._is_functional_tensor(array) or array.is_meta


def not_plain(array: Tensor, label: str, why: str = "") -> ArrayTypeError:
    """The error for a tensor whose numbers are elsewhere; `why` its class does not compute them."""
    array = _innermost(array)
    kind = type(array)
    name = f"{kind.__module__}.{kind.__qualname__}" if _wraps(kind) else "functional tensor"
    return ArrayTypeError(
        "arguments must be tensors that hold their own numbers",
        found=f"{label} is a {name}" + why,
        hint=_UNWRAPPED.get(kind.__name__, "a plain torch.Tensor of its values"),
    )


def _innermost(array: Tensor) -> Tensor:
    """What the transforms of torch.func have wrapped."""
    inside = sys.modules["torch"]._C._functorch
    while inside.is_functorch_wrapped_tensor(array):
        array = inside.get_unwrapped(array)
    return array


def check_layout(array: Tensor, label: str) -> None:
    """Raise for tensors that no reduction is computed on, be it by an operator of torch.

    Raises:
        ArrayTypeError: a layout other than strided, a nested tensor, a parameter without shape, a
            subclass that answers for its shape.
    """
    torch = sys.modules["torch"]
    array = _innermost(array)
    kind = type(array)
    if torch.nn.parameter.is_lazy(array):
        raise ArrayTypeError(
            "arguments must have a shape and values",
            found=f"{label} is a {kind.__name__}",
            hint="x.materialize(shape) and values for it, or a first call of its module",
        )
    if answers(kind) and not _wraps(kind):
        raise ArrayTypeError(
            "tensors must have the shape and strides of their memory",
            found=f"{label} is a {kind.__module__}.{kind.__qualname__}, which answers for them",
            hint="x.as_subclass(torch.Tensor)",
        )
    if array.is_nested:
        raise ArrayTypeError(
            "arguments must be dense tensors",
            found=f"{label} is a nested tensor",
            hint=_UNWRAPPED["NestedTensor"],
        )
    if array.layout != torch.strided:
        raise ArrayTypeError(
            "arguments must be dense tensors",
            found=f"{label} has layout {array.layout}",
            hint="x.to_dense()",
        )


def span(array: Tensor) -> tuple[int, int]:
    """Bytes from the first element to the end of the last, and bytes of an element."""
    item = array.element_size()
    if 0 in array.shape:
        return 0, item
    reach = sum(
        (size - 1) * stride for size, stride in zip(array.shape, array.stride(), strict=True)
    )
    return (reach + 1) * item, item


def check_memory(array: Tensor, label: str) -> None:
    """Raise unless the memory of a tensor holds all its elements, or torch knows them to be zero.

    Tensors inside a transform of torch have no memory of their own; functions get what they hold.

    Raises:
        ArrayTypeError: saying how many bytes there are.
    """
    size, item = span(array)
    try:
        there = array.untyped_storage().nbytes() - array.storage_offset() * item
        address = array.data_ptr()
    except RuntimeError:
        return
    if size and (there < size or not address) and not array._is_zerotensor():
        raise _no_memory(array, label, size, max(0, there) if address else 0)


def _no_memory(array: Tensor, label: str, size: int, there: int | SymInt) -> ArrayTypeError:
    return ArrayTypeError(
        "the memory of a tensor must hold all its elements",
        found=f"{label} of shape {tuple(array.shape)} takes {size} bytes, of which {there} are "
        "there",
        hint="keep its storage as it was until the call, and until gradients are computed",
    )


def addresses(arrays: list[Tensor], needs: Sequence[tuple[int, int, str] | None]) -> list[int]:
    """The addresses of tensors; those of zeros that torch holds no memory for are replaced.

    `needs`: of those whose memory could have changed, `span` and how messages call them.

    Raises:
        ArrayTypeError: memory that does not hold what a tensor's shape and strides say.
    """
    try:
        found = [array.data_ptr() for array in arrays]
        for array, need in zip(arrays, needs, strict=True):
            if need is not None:
                size, item, label = need
                if array.untyped_storage().nbytes() < size + array.storage_offset() * item:
                    check_memory(array, label)
    except RuntimeError:  # inside a transform of torch they have none
        for array, need in zip(arrays, needs, strict=True):
            if not _has_memory(array):
                label = need[2] if need else "a result"
                raise _no_memory(array, label, span(array)[0], 0) from None
        raise
    if 0 in found:
        for n, (array, need) in enumerate(zip(arrays, needs, strict=True)):
            if not found[n] and array._is_zerotensor():
                arrays[n] = array = _zeros(array)
            check_memory(array, need[2] if need else "a result")
        found = [array.data_ptr() for array in arrays]
    return found


def _has_memory(array: Tensor) -> bool:
    try:
        array.data_ptr()
    except RuntimeError:
        return False
    return True


def _zeros(array: Tensor) -> Tensor:
    """A zero tensor with memory, of the same strides."""
    torch = sys.modules["torch"]
    shape, strides = array.shape, array.stride()
    return torch.empty_strided(shape, strides, dtype=array.dtype, device=array.device).zero_()


def check_traced() -> None:
    """Raise inside torch.jit.trace, where sizes are tensors.

    Raises:
        UnsupportedError: it is on.
    """
    if sys.modules["torch"]._C._is_tracing():
        raise _unrecorded("reductions are not recorded by torch.jit.trace", "torch.jit.trace")


def check_recording() -> None:
    """Raise where torch records operations, or computes without values, for what is no operator.

    Raises:
        UnsupportedError: naming what records.
    """
    found = recorder()
    if found is not None:
        raise _unrecorded("solutions are not recorded in graphs of torch's operations", found)


def _unrecorded(what: str, recorder: str) -> UnsupportedError:
    return UnsupportedError(
        what,
        found=f"a call inside {recorder}",
        hint="torch.compile, which calls them as they are, or record the program around the call",
    )


def recorder() -> str | None:
    """What records torch's operations, or computes without values: it sees operators only.

    Other modes of torch only look on.

    Raises:
        UnsupportedError: torch.jit.trace records.
    """
    torch = sys.modules["torch"]
    inside = torch._C
    check_traced()
    found = None
    if inside._len_torch_dispatch_stack() or inside._len_torch_function_stack():
        found = _mode(torch)
    if found is None and inside._functorch.peek_interpreter_stack() is not None:
        levels = inside._functorch.get_interpreter_stack()
        if any(level.key() == inside._functorch.TransformType.Functionalize for level in levels):
            found = "torch.func.functionalize"
    return found


def _mode(torch: ModuleType) -> str | None:
    """The mode that records, or computes without values."""
    names = {
        "PROXY": "a trace of torch.fx (make_fx, torch.export, torch.func.linearize)",
        "FAKE": "FakeTensorMode",
        "FUNCTIONAL": "a functionalization of torch",
    }
    keys = torch._C._TorchDispatchModeKey
    early = getattr(torch._ops, "_get_dispatch_mode_pre_dispatch", lambda key: None)
    for name, text in names.items():
        key = getattr(keys, name)
        if torch._C._get_dispatch_mode(key) is not None:
            return text
        if name != "FAKE" and early(key) is not None:
            return text
    return None
