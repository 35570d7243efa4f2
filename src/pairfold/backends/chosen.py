"""Which backend runs a call: by the memory that holds its arrays, or the one that settings name."""

from __future__ import annotations

from ..core.library import Device
from ..errors import DeviceError
from ..settings import Settings
from .gpu.backend import Triton
from .interface import Backend
from .llvm.backend import Llvm
from .reference.backend import Reference

LLVM, TRITON, REFERENCE = Llvm(), Triton(), Reference()
BACKENDS: dict[str, Backend] = {b.name: b for b in (LLVM, TRITON, REFERENCE)}


def chosen(options: Settings, device: Device | None) -> Backend:
    """The backend for arrays on a device (None: in the host's memory).

    Raises:
        DeviceError: the settings name a backend that does not compute there.
    """
    if options.backend == "auto":
        return LLVM if device is None else TRITON
    backend = BACKENDS[options.backend]
    if backend.on_devices != (device is not None):
        raise _elsewhere(backend, "arrays of the host" if device is None else f"arrays on {device}")
    return backend


def asked(options: Settings, device: Device | None, where: str) -> Backend:
    """The backend for arrays on a device, of a call that says where it is to be computed.

    Raises:
        DeviceError: the settings name a backend that does not compute there.
    """
    named = BACKENDS.get(options.backend)
    if device is None and (where.startswith("GPU") or (where == "auto" and named is TRITON)):
        if named in (None, TRITON):
            return TRITON
        raise _elsewhere(named, f"backend={where!r}")
    return chosen(options, device)


def _elsewhere(backend: Backend, found: str) -> DeviceError:
    needed = "on a GPU" if backend.on_devices else "in the host's memory"
    return DeviceError(
        f"settings(backend={backend.name!r}) computes on arrays {needed}",
        found=found,
        hint='settings(backend="auto")',
    )
