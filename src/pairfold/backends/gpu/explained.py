"""Explanations of programs for GPUs: tiles, grid, registers, alternatives, the program."""

from __future__ import annotations

from dataclasses import dataclass

from ...lower.tiling import Grid, Tiling, cost, registers
from ...settings import Settings
from ..shown import Shown, Subject, shortened
from .launch import GpuLauncher


@dataclass(frozen=True, repr=False)
class GpuExplanation(Shown):
    """How one reduction is computed on a GPU; print it, or read its fields.

    `tiling` and `grid` say how the pairs are cut; `registers` estimates the 32-bit registers of a
    thread; `estimates` are the tilings that the settings leave open with instructions per pair of
    a thread, the chosen one first (the setting `tile` forces any). `triton` is the program;
    `literal` the one that follows where data break its assumptions, empty where it makes none.
    """

    formula: str
    simplified: str
    reduction: str
    dim: int
    rows: int
    columns: int
    tiling: Tiling
    grid: Grid
    registers: float
    estimates: tuple[tuple[Tiling, float], ...]
    triton: str
    literal: str

    @property
    def summary(self) -> str:
        """One line: what is reduced, over which sizes, and at what estimated cost."""
        cost = f"about {self.estimates[0][1]:.3g} instructions per pair"
        sizes = f"{self.rows} x {self.columns} {self.tiling.dtype}"
        return f"{self.reduction} on a GPU, F = {shortened(self.formula)}: {sizes}, {cost}"

    def __str__(self) -> str:
        t, g, acc = self.tiling, self.grid, self.tiling.accumulation
        lines = [
            f"formula    {self.formula}",
            f"by rules   {self.simplified}",
            f"reduction  {self.reduction}, dimension {self.dim}",
            "",
            f"programs for {self.rows} rows x {self.columns} columns, {t.dtype}",
            f"  {g.batches} batch elements x {g.splits} parts of the columns x {g.panels} panels "
            f"of rows x {g.groups} groups of components",
            f"  {t.name}; sums of {t.chunk} columns are added to wider ones",
        ]
        if t.product is not None:
            lines.append(f"  a product of matrices, {t.group} components at a time, {t.dot}")
        if g.splits > 1:
            lines.append("  a second program merges the parts in order")
        if self.literal:
            lines.append("  a literal program follows where data break assumptions of the first")
        lines += [
            "",
            f"states     {acc.inner} inside a chunk, {acc.outer} across chunks"
            + (", compensated" if acc.compensated else ""),
            f"registers  about {self.registers:.0f} of a thread's 255",
            "",
            "estimated instructions per pair of a thread",
        ]
        lines += [f"  {t.name:<34} {estimate:.1f}" for t, estimate in self.estimates]
        return "\n".join(lines)


def explain(subject: Subject, launcher: GpuLauncher, options: Settings) -> GpuExplanation:
    """How a program does it, on a device or (None) on any."""
    rows, columns, pattern = subject.rows, subject.columns, subject.pattern
    if pattern is None:
        sizes = (max(1, rows), columns, max(1, subject.batches))
        bound = launcher.bind(*sizes, options, subject.device)
    else:
        batches = max(1, subject.batches)
        bound = launcher.bind_sparse(rows, batches, options, pattern, subject.device)
        rows, columns = pattern.typical
    kernel, tiling = launcher.kernel, bound.program.tiling
    found = launcher.alternatives(rows, options)
    return GpuExplanation(
        formula=subject.formula,
        simplified=subject.simplified,
        reduction=subject.reduction,
        dim=subject.dim,
        rows=rows,
        columns=columns,
        tiling=tiling,
        grid=bound.grid,
        registers=registers(kernel, tiling),
        estimates=tuple((other, cost(kernel, other, rows)) for other in found),
        triton=bound.program.source.text,
        literal="" if bound.literal is None else bound.literal.source.text,
    )
