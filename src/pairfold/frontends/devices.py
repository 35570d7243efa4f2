"""Where arrays are computed: on the device that holds them, or host arrays on a GPU.

Host arrays go to a GPU only where a call says so. An adapter `OnGpu` then stands in for the
arrays' own: it copies them there and the results back, in slabs where they do not fit; derivatives
use the same adapter, and so the same device.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

from ..arrays.checks import TorchArrays
from ..backends.chosen import TRITON
from ..errors import DeviceError, OptionError, attempted, check_option
from .slabs import Slabs

# The defaults of calls, told from others by identity: it is fast, and safe with any object.
AUTO, ANY_DEVICE = "auto", -1
BACKENDS = (
    "auto",
    "CPU",
    "GPU",
    "GPU_1D",
    "GPU_1D_device",
    "GPU_1D_host",
    "GPU_2D",
    "GPU_2D_device",
    "GPU_2D_host",
)


def placed(adapter: Any, arrays: Sequence[Any], backend: str, device_id: Any) -> Any:
    """The adapter for a call that says where it is to be computed.

    Raises:
        OptionError: an unknown backend, or a device that is not an integer.
        DeviceError: tensors that are elsewhere, no GPU, or no library for one.
    """
    check_option("backend", backend, BACKENDS)
    device_id = _checked_number(device_id)
    devices = [adapter.device(array) for array in arrays if adapter.owns(array)]
    device = next((d for d in devices if d is not None), None)
    if device is not None:
        if backend == "CPU":
            raise DeviceError(
                'backend="CPU" computes on tensors of the host',
                found=f"a tensor on device {device}",
                hint='x.cpu() for every argument, or backend="auto"',
            )
        if device_id not in (-1, device.index):
            raise DeviceError(
                "tensors are computed on the device that holds them",
                found=f"device_id={device_id} and a tensor on device {device}",
                hint=f'x.to("cuda:{device_id}") for every argument, or device_id=-1',
            )
        return adapter
    if not backend.startswith("GPU"):
        return adapter
    return OnGpu(adapter, TRITON.device(max(0, device_id)))


def _checked_number(device_id: Any) -> int:
    if device_id is None:  # the index of torch.device("cpu")
        return -1
    number = -2 if isinstance(device_id, bool) else attempted(operator.index, device_id, -2)
    if number < -1:
        raise OptionError(
            "device_id must be None or an integer from -1",
            found=f"device_id={device_id!r}",
            hint='device_id=0 for the first GPU, with backend="GPU" where arrays are of the host',
        )
    return number


class DeviceTensors(TorchArrays):
    """Tensors that are where their kernel runs: on a GPU, or in the interpreter's memory."""

    @staticmethod
    def key(array: Any) -> tuple[Any, ...]:
        """As for other tensors, which are computed elsewhere where Triton interprets."""
        return ("there", *TorchArrays.key(array))

    @staticmethod
    def device(array: Any) -> Any:
        """The device, the interpreter's too."""
        return array.device


class OnGpu:
    """Adapter of host arrays that are computed on a GPU; all else is as for their own."""

    elsewhere = True

    def __init__(self, base: Any, target: Any) -> None:
        self.base, self.target = base, target

    def __getattr__(self, name: str) -> Any:
        return getattr(self.base, name)

    def key(self, array: Any) -> tuple[Any, ...]:
        """All but the address."""
        return (self.target, *self.base.key(array))

    def device(self, array: Any) -> Any:
        """The GPU."""
        return self.target

    def there(self, array: Any) -> Any:
        """An array as a tensor on the device; nothing waits for the copy."""
        if self.base is not TorchArrays:
            array = TorchArrays.tensor(array)
        return array.detach().to(self.target, non_blocking=True)

    def back(self, tensor: Any, into: Any) -> None:
        """Copy a result into a host array, when it is there."""
        if self.base is TorchArrays:
            into.copy_(tensor)
        else:
            into[...] = tensor.cpu().numpy()

    def run(
        self,
        fold: Any,
        arrays: Sequence[Any],
        results: Sequence[Any],
        binding: Any,
        ranges: Any,
    ) -> None:
        """Fill new host arrays with the results of a fold."""
        if ranges is not None:
            fold.pattern(ranges, binding.sizes)
        if binding.rows and binding.count:
            slabs = Slabs(fold, arrays, binding, self.there, self.back, DeviceTensors)
            slabs.run(results, ranges)
