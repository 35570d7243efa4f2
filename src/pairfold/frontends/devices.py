"""Where arrays are computed: on the device that holds them, or host arrays on a GPU.

Host arrays go to a GPU only where a call says so. A library `OnGpu` then stands in for the
arrays' own: it copies them there and the results back, in slabs where they do not fit; derivatives
use the same library, and so the same device.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import TYPE_CHECKING, SupportsIndex, TypedDict, cast

from ..arrays.library import ArrayLibrary
from ..arrays.registry import TORCH
from ..arrays.torch import DeviceTensors, TorchArrays
from ..arrays.torch_device import TorchDevice, device_for_programs
from ..backends.chosen import TRITON
from ..core.library import Array
from ..errors import DeviceError, OptionError, attempted, check_option
from ..settings import current
from .ranges import Ranges
from .reduction import Binding, FormulaReduction
from .slabs import Slabs

if TYPE_CHECKING:
    from torch import Tensor

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


_TENSORS = cast(ArrayLibrary, DeviceTensors)


class CallOptions(TypedDict, total=False):
    """Where and over which pairs a call computes: see `Genred.__call__`."""

    backend: str
    device_id: int | None
    ranges: object


def placed(
    library: ArrayLibrary,
    arrays: Sequence[Array],
    backend: str = AUTO,
    device_id: SupportsIndex | None = ANY_DEVICE,
) -> ArrayLibrary:
    """The library for a call that says where it is to be computed.

    Raises:
        OptionError: an unknown backend, or a device that is not an integer.
        DeviceError: tensors that are elsewhere, no GPU, or no library for one.
    """
    check_option("backend", backend, BACKENDS)
    if backend == AUTO and current().backend == TRITON.name:
        backend = "GPU"
    device_id = _checked_number(device_id)
    devices = [library.device(array) for array in arrays if library.owns(array)]
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
        return library
    if not backend.startswith("GPU"):
        return library
    # What an OnGpu has not of its own, it has of the arrays' library.
    target = device_for_programs(max(0, device_id), TRITON.interprets)
    return cast(ArrayLibrary, OnGpu(library, target))


def _checked_number(device_id: SupportsIndex | None) -> int:
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


class OnGpu:
    """The library of host arrays that are computed on a GPU; all else is as for their own."""

    def __init__(self, base: ArrayLibrary, target: TorchDevice) -> None:
        self.base, self.target = base, target

    def __getattr__(self, name: str) -> object:
        return getattr(self.base, name)

    def key(self, array: Array) -> tuple[object, ...]:
        """All but the address."""
        return (self.target, *self.base.key(array))

    def device(self, array: Array) -> TorchDevice:
        """The GPU."""
        return self.target

    def there(self, array: Array) -> Array:
        """An array as a tensor on the device; nothing waits for the copy."""
        host = array if TorchArrays.owns(array) else TorchArrays.tensor(self.base.to_numpy(array))
        return host.detach().to(self.target.place, non_blocking=True)

    def back(self, tensor: Array, into: Array) -> None:
        """Copy a result into a host array, when it is there."""
        if TorchArrays.owns(into):
            into.copy_(cast("Tensor", tensor))
        else:
            into[...] = TORCH.to_numpy(tensor)

    def elsewhere(
        self,
        fold: FormulaReduction,
        arrays: Sequence[Array],
        results: Sequence[Array],
        binding: Binding,
        ranges: Ranges | None,
    ) -> None:
        """Fill new host arrays with the results of a fold."""
        if ranges is not None:
            fold.pattern(ranges, binding.sizes)
        if binding.rows and binding.count:
            slabs = Slabs(fold, arrays, binding, self.there, self.back, _TENSORS)
            slabs.run(results, ranges)
