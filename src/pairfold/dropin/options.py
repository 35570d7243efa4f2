"""The options of calls as PyKeOps' modules hand them on: backends as numbers, flags of accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypedDict

from ..arrays.registry import NUMPY, TORCH
from ..errors import ArrayTypeError, DeviceError, DTypeError, check_option
from ..frontends.devices import BACKENDS
from ..frontends.genred import checked_accuracy
from ..ops.reductions import REDUCTIONS

if TYPE_CHECKING:
    import torch

# dtype of the data -> dtypes that its sums may have -> the type's name in C.
_ACCUMULATORS = {
    "float16": {"float16": "half2", "float32": "float2"},
    "float32": {"float32": "float", "float64": "double"},
    "float64": {"float64": "double"},
}


class Sums(TypedDict, total=False):
    """How sums are accumulated."""

    dtype_acc: str
    sum_scheme: str


class OptionalFlags(Sums, total=False):
    """Options of a reduction, as modules hand them on."""

    use_fast_math: int
    enable_chunks: int


class SetBackend:
    """Names of backends, and the numbers that stand for their parts.

    "auto" is where the arrays are: a GPU for tensors on one.
    """

    dev = {"CPU": 0, "GPU": 1}
    grid = {"1D": 0, "2D": 1}
    memtype = {"host": 0, "device": 1}
    possible_options_list = list(BACKENDS)

    def define_tag_backend(self, backend: str, variables: Sequence[object]) -> tuple[int, int, int]:
        """(0 CPU or 1 GPU, 0 1D or 1 2D, 0 host or 1 device); what a name leaves open is found
        from where the arrays are.

        Raises:
            OptionError: an unknown name. ArrayTypeError, DeviceError: arrays that do not fit.
        """
        check_option("backend", backend, BACKENDS)
        device, *rest = backend.split("_")
        grid = self.grid[rest[0]] if rest else 0
        memory = self.memtype[rest[1]] if len(rest) > 1 else self._find_mem(variables)
        return memory if device == "auto" else self.dev[device], grid, memory

    def define_backend(self, backend: str, variables: Sequence[object]) -> tuple[str, str, str]:
        """What `define_tag_backend` finds, as names: ("CPU", "1D", "host")."""
        tables = (self.dev, self.grid, self.memtype)
        found = self.define_tag_backend(backend, variables)
        first, second, third = (
            next(name for name, number in names.items() if number == tag)
            for names, tag in zip(tables, found, strict=True)
        )
        return first, second, third

    @staticmethod
    def _find_dev() -> int:
        return 0

    @staticmethod
    def _find_grid() -> int:
        return 0

    @staticmethod
    def _find_mem(variables: Sequence[object]) -> int:
        if all(map(NUMPY.owns, variables)):
            return 0
        if not all(map(TORCH.owns, variables)):
            raise ArrayTypeError(
                "All variables should either be numpy arrays or torch tensors.",
                found=", ".join(sorted({type(array).__name__ for array in variables})),
            )
        places = {TORCH.device(array) is not None for array in variables if TORCH.owns(array)}
        if len(places) > 1:
            raise DeviceError("all tensors must be in one place", found="some on a GPU")
        return int(places.pop())


def get_tag_backend(
    backend: str, variables: Sequence[object], str: bool = False
) -> tuple[object, object, object]:
    """The three parts of a backend for arrays: numbers, or names if `str`.

    >>> import numpy as np
    >>> get_tag_backend("auto", [np.ones(3)]), get_tag_backend("GPU_2D_host", [], str=True)
    ((0, 0, 0), ('GPU', '2D', 'host'))

    Raises:
        OptionError, ArrayTypeError, DeviceError: see `SetBackend.define_tag_backend`.
    """
    backends = SetBackend()
    return (backends.define_backend if str else backends.define_tag_backend)(backend, variables)


def set_device(
    tagCPUGPU: int, tagHostDevice: int, device_id_request: int, *args: torch.Tensor
) -> tuple[int, torch.device]:
    """(the number of the device to compute on, -1 for the processor; where the first tensor is).

    Raises:
        DeviceError: tensors on several devices, or on another one than asked for.
    """
    places = {str(tensor.device): tensor.device for tensor in args}
    if len(places) > 1:
        raise DeviceError(
            "Input arrays must be all located on the same device.", found=", ".join(sorted(places))
        )
    device = args[0].device
    index = getattr(device, "index", None)
    if device_id_request == -1:
        return (index or 0) if tagCPUGPU else -1, device
    if index is not None and index != device_id_request:
        raise DeviceError(
            "the tensors are on another device than asked for",
            found=f"device_id={device_id_request}, tensors on {device}",
        )
    return device_id_request, device


def get_optional_flags(
    reduction_op_internal: str,
    dtype_acc: str,
    use_double_acc: bool,
    sum_scheme: str,
    enable_chunks: bool,
    use_fast_math: bool,
) -> OptionalFlags:
    """Checked options of a reduction, with "auto" schemes named.

    >>> get_optional_flags("Sum", "auto", True, "auto", True, True)["dtype_acc"]
    'float64'

    Raises:
        OptionError: a value that the reduction cannot have.
    """
    check_option("reduction_op_internal", reduction_op_internal, REDUCTIONS)
    row = REDUCTIONS[reduction_op_internal]
    accuracy = checked_accuracy(row, dtype_acc, use_double_acc, sum_scheme)
    scheme = "block_sum" if row.additive else "direct_sum"
    return {
        "dtype_acc": accuracy.dtype,
        "sum_scheme": scheme if accuracy.scheme == "auto" else accuracy.scheme,
        "use_fast_math": int(bool(use_fast_math)),
        "enable_chunks": int(bool(enable_chunks)),
    }


def parse_dtype_acc(dtype_acc: str, dtype: str) -> str:
    """The type of accumulators as C names it.

    >>> parse_dtype_acc("auto", "float32"), parse_dtype_acc("float32", "float16")
    ('float', 'float2')

    Raises:
        OptionError: an unknown dtype. DTypeError: an accumulator that these data cannot have.
    """
    check_option("dtype", dtype, _ACCUMULATORS)
    known = _ACCUMULATORS[dtype]
    wanted = dtype if dtype_acc == "auto" else dtype_acc
    if wanted not in known:
        raise DTypeError(
            f"{dtype} data cannot be accumulated so",
            found=f"dtype_acc={dtype_acc!r}",
            hint=f"'auto', {', '.join(map(repr, known))}",
        )
    return known[wanted]
