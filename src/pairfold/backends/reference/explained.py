"""Explanations of what the interpreter does: nothing but what is written."""

from __future__ import annotations

from dataclasses import dataclass

from ...lower.kernel import Kernel
from ..shown import Shown, Subject, flops, shortened


@dataclass(frozen=True, repr=False)
class ReferenceExplanation(Shown):
    """What is interpreted; print it, or read its fields.

    `flops_per_pair` counts arithmetic as written (an exponential is one).
    """

    formula: str
    simplified: str
    reduction: str
    dim: int
    nodes: int
    rows: int
    columns: int
    flops_per_pair: float
    tree: str

    @property
    def summary(self) -> str:
        """One line: what is reduced, over which sizes."""
        sizes = f"{self.rows} x {self.columns}"
        return f"{self.reduction} interpreted, F = {shortened(self.formula)}: {sizes}"

    def __str__(self) -> str:
        lines = [
            f"formula    {self.formula}",
            f"by rules   {self.simplified}",
            f"reduction  {self.reduction}, dimension {self.dim}, {self.nodes} nodes",
            f"interpreted by NumPy in float64 for {self.rows} rows x {self.columns} columns,",
            "one column after the other; results are rounded once",
            f"per pair   {self.flops_per_pair:g} operations",
            "",
            self.tree,
        ]
        return "\n".join(lines)


def explain(subject: Subject, kernel: Kernel) -> ReferenceExplanation:
    """What is interpreted."""
    rows, columns = subject.rows, subject.columns
    if subject.pattern is not None:
        rows, columns = subject.pattern.typical
    return ReferenceExplanation(
        formula=subject.formula,
        simplified=subject.simplified,
        reduction=subject.reduction,
        dim=subject.dim,
        nodes=subject.nodes,
        rows=rows,
        columns=columns,
        flops_per_pair=flops(kernel),
        tree=subject.tree,
    )
