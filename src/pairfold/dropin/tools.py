"""`numpytools` and `torchtools`: one set of names for the functions of both libraries."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..frontends.cluster import swap_axes


class _Elsewhere:
    """A class attribute that is an attribute of a module, imported when it is first asked for."""

    def __init__(self, module: str) -> None:
        self._module = module

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = {"arraytype": "Tensor"}.get(name, name)

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        return getattr(importlib.import_module(self._module), self._name)


class numpytools:
    """NumPy by the names that programs for both libraries use."""

    Genred = _Elsewhere("pairfold.numpy")
    KernelSolve = _Elsewhere("pairfold.numpy")
    swap_axes = staticmethod(swap_axes)
    norm, arraysum = staticmethod(np.linalg.norm), staticmethod(np.sum)
    exp, log = staticmethod(np.exp), staticmethod(np.log)
    arraytype = np.ndarray
    float_types = [float, np.float16, np.float32, np.float64]
    tile, solve = staticmethod(np.tile), staticmethod(np.linalg.solve)
    transpose, contiguous = staticmethod(np.transpose), staticmethod(np.ascontiguousarray)
    copy, eq = staticmethod(np.copy), staticmethod(np.equal)

    @staticmethod
    def is_tensor(x: Any) -> bool:
        """Whether x is an array."""
        return isinstance(x, np.ndarray)

    @staticmethod
    def permute(x: Any, *args: int) -> Any:
        """The axes in another order."""
        return x.transpose(*args)

    @staticmethod
    def numpy(x: Any) -> Any:
        """The array itself."""
        return x

    @staticmethod
    def size(x: Any) -> int:
        """The number of elements."""
        return x.size

    @staticmethod
    def view(x: Any, s: Sequence[int]) -> Any:
        """The array in another shape."""
        return x.reshape(s)

    @staticmethod
    def long(x: Any) -> Any:
        """As whole numbers of 64 bits."""
        return x.astype("int64")

    @staticmethod
    def dtype(x: Any) -> Any:
        """The dtype; for what has none, its type."""
        return getattr(x, "dtype", type(x))

    @staticmethod
    def dtypename(dtype: Any) -> str:
        """The name of a dtype."""
        return np.dtype(dtype).name

    @staticmethod
    def detect_complex(x: Any) -> bool:
        """Whether a number, a list or an array is complex."""
        return bool(np.iscomplexobj(x))

    @staticmethod
    def zeros(shape: Any, dtype: Any, device: Any = None, requires_grad: Any = None) -> Any:
        """Zeros."""
        return np.zeros(shape, dtype)

    @staticmethod
    def empty(shape: Any, dtype: Any, device: Any = None, requires_grad: Any = None) -> Any:
        """An array to be filled."""
        return np.empty(shape, dtype)

    @staticmethod
    def eye(n: int, dtype: Any) -> Any:
        """The identity matrix."""
        return np.eye(n, dtype=dtype)

    @staticmethod
    def array(x: Any, dtype: Any, device: Any = None) -> Any:
        """x as an array."""
        return np.array(x, dtype)

    @staticmethod
    def rand(m: int, n: int, dtype: Any) -> Any:
        """Uniform random numbers (m, n)."""
        return np.random.rand(m, n).astype(dtype)

    @staticmethod
    def randn(m: int, n: int, dtype: Any) -> Any:
        """Normal random numbers (m, n)."""
        return np.random.randn(m, n).astype(dtype)

    @staticmethod
    def view_as_complex(x: Any) -> Any:
        """Pairs of neighbours on the last axis as complex numbers."""
        kind = "complex64" if x.dtype == np.float32 else "complex128"
        return np.ascontiguousarray(x).view(kind)

    @staticmethod
    def view_as_real(x: Any) -> Any:
        """Complex numbers as pairs of neighbours on the last axis."""
        return np.ascontiguousarray(x).view(x.real.dtype)

    @staticmethod
    def get_pointer(x: Any) -> int:
        """The address of the first number."""
        return x.ctypes.data

    @staticmethod
    def device(x: Any) -> str:
        """Where the array is."""
        return "cpu"

    @staticmethod
    def device_type_index(x: Any) -> tuple[str, None]:
        """Where the array is, and its number there."""
        return "cpu", None

    @staticmethod
    def device_dict(x: Any) -> dict[str, Any]:
        """Where the array is, by name."""
        return {"cat": "cpu"}


def _torch() -> Any:
    return importlib.import_module("torch")


class torchtools:
    """torch by the same names."""

    Genred = _Elsewhere("pairfold.torch")
    KernelSolve = _Elsewhere("pairfold.torch")
    arraytype = _Elsewhere("torch")
    float_types = [float]
    swap_axes = staticmethod(swap_axes)

    @staticmethod
    def norm(x: Any, *args: Any, **options: Any) -> Any:
        """The norm."""
        return x.norm(*args, **options)

    @staticmethod
    def arraysum(x: Any, axis: Any = None, dtype: Any = None) -> Any:
        """The sum, of all or along an axis."""
        return x.sum(dtype=dtype) if axis is None else x.sum(axis, dtype=dtype)

    @staticmethod
    def exp(x: Any) -> Any:
        """The exponential."""
        return x.exp()

    @staticmethod
    def log(x: Any) -> Any:
        """The logarithm."""
        return x.log()

    @staticmethod
    def is_tensor(x: Any) -> bool:
        """Whether x is a tensor."""
        return _torch().is_tensor(x)

    @staticmethod
    def copy(x: Any) -> Any:
        """A copy."""
        return x.clone()

    @staticmethod
    def eq(x: Any, y: Any) -> Any:
        """Where elements are equal."""
        return _torch().eq(x, y)

    @staticmethod
    def transpose(x: Any) -> Any:
        """The transposed matrix."""
        return x.t()

    @staticmethod
    def permute(x: Any, *args: int) -> Any:
        """The axes in another order."""
        return x.permute(*args)

    @staticmethod
    def contiguous(x: Any) -> Any:
        """The tensor with its elements in order."""
        return x.contiguous()

    @staticmethod
    def numpy(x: Any) -> Any:
        """The tensor as a NumPy array."""
        return x.detach().cpu().numpy()

    @staticmethod
    def tile(x: Any, *args: Any) -> Any:
        """The tensor repeated."""
        return x.repeat(*args)

    @staticmethod
    def solve(A: Any, b: Any) -> Any:
        """The solution of A x = b."""
        return _torch().linalg.solve(A, b)

    @staticmethod
    def size(x: Any) -> int:
        """The number of elements."""
        return x.numel()

    @staticmethod
    def view(x: Any, s: Sequence[int]) -> Any:
        """The tensor in another shape."""
        return x.view(s)

    @staticmethod
    def long(x: Any) -> Any:
        """As whole numbers of 64 bits."""
        return x.long()

    @staticmethod
    def dtype(x: Any) -> Any:
        """The dtype; for what has none, its type."""
        return getattr(x, "dtype", type(x))

    @staticmethod
    def dtypename(dtype: Any) -> str:
        """The name of a dtype."""
        return str(dtype).removeprefix("torch.")

    @staticmethod
    def detect_complex(x: Any) -> bool:
        """Whether a number, a list or a tensor is complex."""
        return x.is_complex() if _torch().is_tensor(x) else bool(np.iscomplexobj(x))

    @staticmethod
    def zeros(shape: Any, dtype: Any, device: Any = None, requires_grad: bool = False) -> Any:
        """Zeros."""
        options = {"dtype": dtype, "device": device, "requires_grad": bool(requires_grad)}
        return _torch().zeros(shape, **options)

    @staticmethod
    def empty(shape: Any, dtype: Any, device: Any = None, requires_grad: bool = False) -> Any:
        """A tensor to be filled."""
        options = {"dtype": dtype, "device": device, "requires_grad": bool(requires_grad)}
        return _torch().empty(shape, **options)

    @staticmethod
    def eye(n: int, dtype: Any, device: Any = None) -> Any:
        """The identity matrix."""
        return _torch().eye(n, dtype=dtype, device=device)

    @staticmethod
    def array(x: Any, dtype: Any, device: Any = None) -> Any:
        """x as a tensor."""
        return _torch().tensor(x, dtype=_kind(dtype), device=device)

    @staticmethod
    def rand(m: int, n: int, dtype: Any, device: Any = None) -> Any:
        """Uniform random numbers (m, n)."""
        return _torch().rand(m, n, dtype=dtype, device=device)

    @staticmethod
    def randn(m: int, n: int, dtype: Any, device: Any = None) -> Any:
        """Normal random numbers (m, n)."""
        return _torch().randn(m, n, dtype=dtype, device=device)

    @staticmethod
    def view_as_complex(x: Any) -> Any:
        """Pairs of neighbours on the last axis as complex numbers."""
        return _torch().view_as_complex(x.reshape(*x.shape[:-1], -1, 2))

    @staticmethod
    def view_as_real(x: Any) -> Any:
        """Complex numbers as pairs of neighbours on the last axis."""
        return _torch().view_as_real(x).flatten(-2)

    @staticmethod
    def get_pointer(x: Any) -> int:
        """The address of the first number."""
        return x.data_ptr()

    pointer = get_pointer

    @staticmethod
    def device(x: Any) -> Any:
        """Where the tensor is."""
        return x.device

    @staticmethod
    def device_type_index(x: Any) -> tuple[str, int | None]:
        """The kind of place where the tensor is, and its number there."""
        return x.device.type, x.device.index

    @staticmethod
    def device_dict(x: Any) -> dict[str, Any]:
        """The kind of place where the tensor is, by name."""
        return {"cat": x.device.type}


def _kind(dtype: Any) -> Any:
    """A dtype of torch, from one or from its name."""
    return getattr(_torch(), dtype) if isinstance(dtype, str) else dtype
