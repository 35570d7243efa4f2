"""Triton programs on arrays of GPUs, as a backend."""

from __future__ import annotations

import dataclasses

from ...errors import UnsupportedError
from ...lower.kernel import Kernel
from ...lower.schedule import Accumulation
from ...settings import Settings
from ..shown import Subject
from .compiled import interpreting
from .explained import GpuExplanation, explain
from .launch import GpuLauncher


class Triton:
    """Kernels as programs for GPUs, on tensors that are there."""

    name = "triton"
    on_devices = True
    fuses = False

    def lowering(self, options: Settings) -> Settings:
        """Short loops are written out: registers hold the components."""
        return dataclasses.replace(options, unroll_pairs=options.unroll)

    def launcher(self, kernel: Kernel, dtype: str, accumulation: Accumulation) -> GpuLauncher:
        """A launcher of a kernel.

        Raises:
            UnsupportedError: the kernel keeps columns, too.
        """
        if kernel.across:
            raise UnsupportedError("programs for GPUs keep rows alone", found=str(kernel))
        return GpuLauncher(kernel, dtype, accumulation)

    def explain(self, subject: Subject, launcher: GpuLauncher, options: Settings) -> GpuExplanation:
        """How a launcher's kernel is run for some sizes."""
        return explain(subject, launcher, options)

    @property
    def interprets(self) -> bool:
        """Whether Triton interprets its programs, in the host's memory."""
        return interpreting()
