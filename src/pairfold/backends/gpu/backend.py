"""Triton programs on torch's tensors, as a backend."""

from __future__ import annotations

import dataclasses
from typing import Any

from ...errors import DeviceError, UnsupportedError
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

    def device(self, number: int) -> Any:
        """torch's device of that number; the CPU where Triton interprets its programs.

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
        if interpreting():
            return torch.device("cpu")
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
        return torch.device("cuda", number)
