"""What PyKeOps' modules load compiled code by: pairfold's own, under the name "cpp" alone."""

from __future__ import annotations

from collections.abc import Sequence

from ..frontends.devices import CallOptions
from .layouts import RawReduction
from .options import OptionalFlags


class LoadKeOps:
    """A whole reduction, with the arguments by which PyKeOps asks for its compiled code."""

    def __init__(
        self,
        tagCPUGPU: int,
        tag1D2D: int,
        tagHostDevice: int,
        use_ranges: object,
        device_id_request: int,
        formula: str,
        aliases: Sequence[str],
        nargs: int,
        dtype: str,
        lang: str,
        optional_flags: OptionalFlags,
    ) -> None:
        self.call: CallOptions = {}
        if tagCPUGPU:
            self.call = {"backend": "GPU", "device_id": device_id_request}
        library = "torch" if lang in ("torch", "pytorch") else "numpy"
        self.reduction = RawReduction(formula, aliases, library, optional_flags)

    def import_module(self) -> LoadKeOps:
        """The object itself: there is no module to import."""
        return self

    def genred(
        self,
        device_args: object,
        ranges: object,
        nx: int,
        ny: int,
        nbatchdims: int,
        out: object,
        *args: object,
    ) -> object:
        """The raw result for arrays; sizes are read off the arrays."""
        options: CallOptions = {**self.call, "ranges": ranges}
        return self.reduction(*args, out=out, **options)

    genred_pytorch = genred_numpy = genred


keops_binder = {"cpp": LoadKeOps}


def get_gpu_props() -> tuple[int, str]:
    """(0, ""): there is no compiler that would have to be told about GPUs."""
    return 0, ""
