"""GPUs as torch has them: their memory, streams and sizes."""

from __future__ import annotations

import contextlib
import sys
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING

from ..core.library import NumpyArray
from ..errors import DeviceError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# The share of a GPU's free memory that a call fills: allocators round sizes up.
_SHARE = 0.8
# Multiprocessors that the interpreter pretends to have.
_INTERPRETED = 1


def _torch() -> ModuleType:
    return sys.modules["torch"]


@dataclass(frozen=True)
class TorchDevice:
    """A GPU, or the host's memory where programs for GPUs are interpreted."""

    place: torch.device

    def __str__(self) -> str:
        return str(self.place)

    @property
    def index(self) -> int | None:
        """Its number among the GPUs."""
        return self.place.index

    @property
    def _is_host(self) -> bool:
        return self.place.type == "cpu"

    def processors(self) -> int:
        """How many multiprocessors it has."""
        if self._is_host:
            return _INTERPRETED
        return _torch().cuda.get_device_properties(self.place).multi_processor_count

    def free_memory(self) -> int:
        """Bytes that may be used: what is free, and what torch holds without using it."""
        if self._is_host:
            return sys.maxsize
        cuda = _torch().cuda
        held = cuda.memory_reserved(self.place) - cuda.memory_allocated(self.place)
        return int(_SHARE * (cuda.mem_get_info(self.place)[0] + held))

    def current(self) -> AbstractContextManager[object]:
        """A context in which it is torch's current device; its current stream is used."""
        return contextlib.nullcontext() if self._is_host else _torch().cuda.device(self.place)

    def recording(self) -> bool:
        """Whether a CUDA graph is being recorded, in which nothing can be timed."""
        return self.place.type == "cuda" and _torch().cuda.is_current_stream_capturing()

    def empty(self, count: int, dtype: str) -> Tensor:
        """So many numbers of any value, in a new tensor."""
        torch = _torch()
        return torch.empty(count, dtype=getattr(torch, dtype), device=self.place)

    def zeros(self, count: int, dtype: str) -> Tensor:
        """So many zeros, in a new tensor."""
        torch = _torch()
        return torch.zeros(count, dtype=getattr(torch, dtype), device=self.place)

    def uploaded(self, values: NumpyArray) -> Tensor:
        """Whole numbers of the host, as a new tensor of int64."""
        given = values.astype("int64", copy=True)
        return _torch().as_tensor(given).contiguous().to(self.place)

    def means(self, array: Tensor) -> Tensor:
        """The mean of each component of a tensor there, in float32."""
        others = tuple(range(array.dim() - 1))
        return array.mean(others, dtype=_torch().float32)


def device_for_programs(number: int, interpreted: bool) -> TorchDevice:
    """The GPU of a number; the host's memory where programs for GPUs are interpreted.

    Raises:
        DeviceError: torch is not there, sees no GPU, or not so many.
    """
    try:
        import torch
    except ImportError:
        raise DeviceError(
            'backend="GPU" needs torch, which owns the memory of GPUs',
            hint="pip install torch triton",
        ) from None
    if interpreted:
        return TorchDevice(torch.device("cpu"))
    if not torch.cuda.is_available():
        raise DeviceError(
            "there is no GPU that can be used",
            found="torch.cuda.is_available() is False",
            hint='backend="auto", or `python -m pairfold doctor` to see what is missing',
        )
    if number >= torch.cuda.device_count():
        raise DeviceError(
            "there is no such GPU",
            found=f"device_id={number}, of {torch.cuda.device_count()} GPUs",
        )
    return TorchDevice(torch.device("cuda", number))
