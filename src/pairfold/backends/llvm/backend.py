"""Machine code for the host's processor, as a backend."""

from __future__ import annotations

from ...lower.kernel import Kernel
from ...lower.schedule import Accumulation
from ...settings import Settings
from ..shown import Subject
from .explained import Explanation, explain
from .fused_launch import FusedLauncher
from .launch import Launcher
from .masked_launch import MaskedLauncher
from .pruned_launch import PrunedLauncher, PrunedMaskedLauncher, prunable


class Llvm:
    """Kernels as machine code, on arrays in the host's memory."""

    name = "llvm"
    on_devices = False
    fuses = True

    def lowering(self, options: Settings) -> Settings:
        """The settings as they are."""
        return options

    def launcher(self, kernel: Kernel, dtype: str, accumulation: Accumulation) -> Launcher:
        """A launcher of a kernel."""
        made = FusedLauncher if kernel.fused else Launcher
        if kernel.keep is not None:
            made = PrunedMaskedLauncher if prunable(kernel, accumulation) else MaskedLauncher
        elif prunable(kernel, accumulation):
            made = PrunedLauncher
        return made(kernel, dtype, accumulation)

    def explain(self, subject: Subject, launcher: Launcher, options: Settings) -> Explanation:
        """How a launcher's kernel is run for some sizes."""
        return explain(subject, launcher, options)
