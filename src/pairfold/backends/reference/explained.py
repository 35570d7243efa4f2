"""Explanations of what the interpreter does: nothing but what is written."""

from __future__ import annotations

from dataclasses import dataclass

from ...lower.kernel import Kernel
from ..shown import Explained, Subject, flops


@dataclass(frozen=True, repr=False, eq=False)
class ReferenceExplanation(Explained):
    """What is interpreted; print it, or read its fields.

    `flops_per_pair` counts arithmetic as written (an exponential is one).
    """

    flops_per_pair: float

    @property
    def _where(self) -> str:
        """By the interpreter."""
        return " interpreted"

    def _section(self) -> list[str]:
        """What is said of it, and the formula as a tree."""
        return [
            f"interpreted by NumPy in float64 for {self.rows} rows x {self.columns} columns,",
            "one column after the other; results are rounded once",
            f"per pair   {self.flops_per_pair:g} operations",
            "",
            self.tree,
        ]


def explain(subject: Subject, kernel: Kernel) -> ReferenceExplanation:
    """What is interpreted."""
    return ReferenceExplanation(subject, flops(kernel))
