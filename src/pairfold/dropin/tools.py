"""`numpytools` and `torchtools`: one set of names for the functions of both libraries."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from ..frontends.cluster import swap_axes

if TYPE_CHECKING:
    import torch

    Device = torch.device | str | int | None

T = TypeVar("T")
Numbers = NDArray[np.generic]
# An array's shape: a whole number where there is one axis.
Shape = int | list[int] | tuple[int, ...]


class _Elsewhere:
    """A class attribute that is an attribute of a module, imported when it is first asked for."""

    def __init__(self, module: str) -> None:
        self._module = module

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = {"arraytype": "Tensor"}.get(name, name)

    def __get__(self, instance: object, owner: type | None = None) -> object:
        return getattr(importlib.import_module(self._module), self._name)


class numpytools:
    """NumPy by the names that programs for both libraries use."""

    Genred = _Elsewhere("pairfold.dropin.numpy")
    KernelSolve = _Elsewhere("pairfold.dropin.numpy")
    swap_axes = staticmethod(swap_axes)
    norm, arraysum = staticmethod(np.linalg.norm), staticmethod(np.sum)
    exp, log = staticmethod(np.exp), staticmethod(np.log)
    arraytype = np.ndarray
    float_types = [float, np.float16, np.float32, np.float64]
    tile, solve = staticmethod(np.tile), staticmethod(np.linalg.solve)
    transpose, contiguous = staticmethod(np.transpose), staticmethod(np.ascontiguousarray)
    copy, eq = staticmethod(np.copy), staticmethod(np.equal)

    @staticmethod
    def is_tensor(x: object) -> bool:
        """Whether x is an array."""
        return isinstance(x, np.ndarray)

    @staticmethod
    def permute(x: Numbers, *args: int) -> Numbers:
        """The axes in another order."""
        return x.transpose(*args)

    @staticmethod
    def numpy(x: T) -> T:
        """The array itself."""
        return x

    @staticmethod
    def size(x: Numbers) -> int:
        """The number of elements."""
        return x.size

    @staticmethod
    def view(x: Numbers, s: Sequence[int]) -> Numbers:
        """The array in another shape."""
        return x.reshape(s)

    @staticmethod
    def long(x: Numbers) -> Numbers:
        """As whole numbers of 64 bits."""
        return x.astype("int64")

    @staticmethod
    def dtype(x: object) -> object:
        """The dtype; for what has none, its type."""
        return getattr(x, "dtype", type(x))

    @staticmethod
    def dtypename(dtype: DTypeLike) -> str:
        """The name of a dtype."""
        return np.dtype(dtype).name

    @staticmethod
    def detect_complex(x: ArrayLike) -> bool:
        """Whether a number, a list or an array is complex."""
        return bool(np.iscomplexobj(x))

    @staticmethod
    def zeros(
        shape: Shape, dtype: DTypeLike, device: object = None, requires_grad: object = None
    ) -> Numbers:
        """Zeros."""
        return np.zeros(shape, dtype)

    @staticmethod
    def empty(
        shape: Shape, dtype: DTypeLike, device: object = None, requires_grad: object = None
    ) -> Numbers:
        """An array to be filled."""
        return np.empty(shape, dtype)

    @staticmethod
    def eye(n: int, dtype: DTypeLike) -> Numbers:
        """The identity matrix."""
        return np.eye(n, dtype=dtype)

    @staticmethod
    def array(x: ArrayLike, dtype: DTypeLike, device: object = None) -> Numbers:
        """x as an array."""
        return np.array(x, dtype)

    @staticmethod
    def rand(m: int, n: int, dtype: DTypeLike) -> Numbers:
        """Uniform random numbers (m, n)."""
        return np.random.rand(m, n).astype(dtype)

    @staticmethod
    def randn(m: int, n: int, dtype: DTypeLike) -> Numbers:
        """Normal random numbers (m, n)."""
        return np.random.randn(m, n).astype(dtype)

    @staticmethod
    def view_as_complex(x: Numbers) -> Numbers:
        """Pairs of neighbours on the last axis as complex numbers."""
        kind = "complex64" if x.dtype == np.float32 else "complex128"
        return np.ascontiguousarray(x).view(kind)

    @staticmethod
    def view_as_real(x: Numbers) -> Numbers:
        """Complex numbers as pairs of neighbours on the last axis."""
        return np.ascontiguousarray(x).view(x.real.dtype)

    @staticmethod
    def get_pointer(x: Numbers) -> int:
        """The address of the first number."""
        return x.ctypes.data

    @staticmethod
    def device(x: object) -> str:
        """Where the array is."""
        return "cpu"

    @staticmethod
    def device_type_index(x: object) -> tuple[str, None]:
        """Where the array is, and its number there."""
        return "cpu", None

    @staticmethod
    def device_dict(x: object) -> dict[str, str]:
        """Where the array is, by name."""
        return {"cat": "cpu"}


def _torch() -> ModuleType:
    return importlib.import_module("torch")


class torchtools:
    """torch by the same names."""

    Genred = _Elsewhere("pairfold.dropin.torch")
    KernelSolve = _Elsewhere("pairfold.dropin.torch")
    arraytype = _Elsewhere("torch")
    float_types = [float]
    swap_axes = staticmethod(swap_axes)

    @staticmethod
    def norm(x: torch.Tensor, *args: object, **options: object) -> torch.Tensor:
        """The norm."""
        norm: Callable[..., torch.Tensor] = x.norm
        return norm(*args, **options)

    @staticmethod
    def arraysum(
        x: torch.Tensor, axis: Shape | None = None, dtype: torch.dtype | None = None
    ) -> torch.Tensor:
        """The sum, of all or along an axis."""
        return x.sum(dtype=dtype) if axis is None else x.sum(axis, dtype=dtype)

    @staticmethod
    def exp(x: torch.Tensor) -> torch.Tensor:
        """The exponential."""
        return x.exp()

    @staticmethod
    def log(x: torch.Tensor) -> torch.Tensor:
        """The logarithm."""
        return x.log()

    @staticmethod
    def is_tensor(x: object) -> bool:
        """Whether x is a tensor."""
        return _torch().is_tensor(x)

    @staticmethod
    def copy(x: torch.Tensor) -> torch.Tensor:
        """A copy."""
        return x.clone()

    @staticmethod
    def eq(x: torch.Tensor, y: torch.Tensor | float) -> torch.Tensor:
        """Where elements are equal."""
        return _torch().eq(x, y)

    @staticmethod
    def transpose(x: torch.Tensor) -> torch.Tensor:
        """The transposed matrix."""
        return x.t()

    @staticmethod
    def permute(x: torch.Tensor, *args: int) -> torch.Tensor:
        """The axes in another order."""
        return x.permute(*args)

    @staticmethod
    def contiguous(x: torch.Tensor) -> torch.Tensor:
        """The tensor with its elements in order."""
        return x.contiguous()

    @staticmethod
    def numpy(x: torch.Tensor) -> Numbers:
        """The tensor as a NumPy array."""
        return x.detach().cpu().numpy()

    @staticmethod
    def tile(x: torch.Tensor, *args: int) -> torch.Tensor:
        """The tensor repeated."""
        return x.repeat(*args)

    @staticmethod
    def solve(A: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """The solution of A x = b."""
        return _torch().linalg.solve(A, b)

    @staticmethod
    def size(x: torch.Tensor) -> int:
        """The number of elements."""
        return x.numel()

    @staticmethod
    def view(x: torch.Tensor, s: Sequence[int]) -> torch.Tensor:
        """The tensor in another shape."""
        return x.view(s)

    @staticmethod
    def long(x: torch.Tensor) -> torch.Tensor:
        """As whole numbers of 64 bits."""
        return x.long()

    @staticmethod
    def dtype(x: object) -> object:
        """The dtype; for what has none, its type."""
        return getattr(x, "dtype", type(x))

    @staticmethod
    def dtypename(dtype: object) -> str:
        """The name of a dtype."""
        return str(dtype).removeprefix("torch.")

    @staticmethod
    def detect_complex(x: torch.Tensor | ArrayLike) -> bool:
        """Whether a number, a list or a tensor is complex."""
        return _torch().is_complex(x) if _torch().is_tensor(x) else bool(np.iscomplexobj(x))

    @staticmethod
    def zeros(
        shape: Shape, dtype: torch.dtype | None, device: Device = None, requires_grad: bool = False
    ) -> torch.Tensor:
        """Zeros."""
        options = {"dtype": dtype, "device": device, "requires_grad": bool(requires_grad)}
        return _torch().zeros(shape, **options)

    @staticmethod
    def empty(
        shape: Shape, dtype: torch.dtype | None, device: Device = None, requires_grad: bool = False
    ) -> torch.Tensor:
        """A tensor to be filled."""
        options = {"dtype": dtype, "device": device, "requires_grad": bool(requires_grad)}
        return _torch().empty(shape, **options)

    @staticmethod
    def eye(n: int, dtype: torch.dtype | None, device: Device = None) -> torch.Tensor:
        """The identity matrix."""
        return _torch().eye(n, dtype=dtype, device=device)

    @staticmethod
    def array(x: object, dtype: torch.dtype | str | None, device: Device = None) -> torch.Tensor:
        """x as a tensor."""
        return _torch().tensor(x, dtype=_kind(dtype), device=device)

    @staticmethod
    def rand(m: int, n: int, dtype: torch.dtype | None, device: Device = None) -> torch.Tensor:
        """Uniform random numbers (m, n)."""
        return _torch().rand(m, n, dtype=dtype, device=device)

    @staticmethod
    def randn(m: int, n: int, dtype: torch.dtype | None, device: Device = None) -> torch.Tensor:
        """Normal random numbers (m, n)."""
        return _torch().randn(m, n, dtype=dtype, device=device)

    @staticmethod
    def view_as_complex(x: torch.Tensor) -> torch.Tensor:
        """Pairs of neighbours on the last axis as complex numbers."""
        return _torch().view_as_complex(x.reshape(*x.shape[:-1], -1, 2))

    @staticmethod
    def view_as_real(x: torch.Tensor) -> torch.Tensor:
        """Complex numbers as pairs of neighbours on the last axis."""
        return _torch().view_as_real(x).flatten(-2)

    @staticmethod
    def get_pointer(x: torch.Tensor) -> int:
        """The address of the first number."""
        return x.data_ptr()

    pointer = get_pointer

    @staticmethod
    def device(x: torch.Tensor) -> torch.device:
        """Where the tensor is."""
        return x.device

    @staticmethod
    def device_type_index(x: torch.Tensor) -> tuple[str, int | None]:
        """The kind of place where the tensor is, and its number there."""
        return x.device.type, x.device.index

    @staticmethod
    def device_dict(x: torch.Tensor) -> dict[str, str]:
        """The kind of place where the tensor is, by name."""
        return {"cat": x.device.type}


def _kind(dtype: torch.dtype | str | None) -> torch.dtype | None:
    """A dtype of torch, from one or from its name."""
    return getattr(_torch(), dtype) if isinstance(dtype, str) else dtype
