"""Explanations of programs for GPUs: tiles, grid, registers, alternatives, the program."""

from __future__ import annotations

from dataclasses import dataclass

from ...lower.tiling import Grid, Tiling, cost, registers
from ...settings import Settings
from ..shown import Explained, Subject, states
from .launch import GpuLauncher


@dataclass(frozen=True, repr=False, eq=False)
class GpuExplanation(Explained):
    """How one reduction is computed on a GPU; print it, or read its fields.

    `tiling` and `grid` say how the pairs are cut; `registers` estimates the 32-bit registers of a
    thread; `estimates` are the tilings that the settings leave open with instructions per pair of
    a thread, the chosen one first (the setting `tile` forces any). `triton` is the program;
    `plain` the one that follows where data break its assumptions, empty where it makes none.
    """

    tiling: Tiling
    grid: Grid
    registers: float
    estimates: tuple[tuple[Tiling, float], ...]
    triton: str
    plain: str

    @property
    def _where(self) -> str:
        """On a GPU."""
        return " on a GPU"

    @property
    def _cost(self) -> str:
        """The dtype, and instructions."""
        return f" {self.tiling.dtype}, about {self.estimates[0][1]:.3g} instructions per pair"

    @property
    def _counted(self) -> str:
        """Nothing: programs have no nodes."""
        return ""

    def _section(self) -> list[str]:
        """Grid and tiles, registers, the tilings that were compared."""
        t, g = self.tiling, self.grid
        lines = [
            "",
            f"programs for {self.rows} rows x {self.columns} columns, {t.dtype}",
            f"  {g.batches} batch elements x {g.splits} parts of the columns x {g.row_blocks} row "
            f"blocks x {g.groups} groups of components",
            f"  {t.name}; sums of {t.chunk} columns are added to wider ones",
        ]
        if t.product is not None:
            lines.append(f"  a product of matrices, {t.group} components at a time, {t.dot}")
        if g.splits > 1:
            lines.append("  a second program merges the parts in order")
        if self.plain:
            lines.append("  a program without rearrangement follows where data break assumptions")
        lines += [
            "",
            states(t.accumulation, "chunk"),
            f"registers  about {self.registers:.0f} of a thread's 255",
            "",
            "estimated instructions per pair of a thread",
        ]
        return lines + [f"  {t.name:<34} {estimate:.1f}" for t, estimate in self.estimates]


def explain(subject: Subject, launcher: GpuLauncher, options: Settings) -> GpuExplanation:
    """How a program does it, on a device or (None) on any."""
    rows, columns = subject.sizes
    batches, pattern = max(1, subject.batches), subject.pattern
    if pattern is None:
        bound = launcher.bind(max(1, rows), columns, batches, options, subject.device)
    else:
        bound = launcher.bind_sparse(subject.rows, batches, options, pattern, subject.device)
    kernel, tiling = launcher.kernel, bound.program.tiling
    found = launcher.alternatives(rows, options)
    return GpuExplanation(
        subject,
        tiling=tiling,
        grid=bound.grid,
        registers=registers(kernel, tiling),
        estimates=tuple((other, cost(kernel, other, rows)) for other in found),
        triton=bound.program.source.text,
        plain="" if bound.plain is None else bound.plain.source.text,
    )
