"""Weighted reductions of vectors of exponents: each component has weights of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..arrays.library import ArrayLibrary
from ..core.library import Array
from ..core.node import Axis, Node
from ..lower.accumulators import Folded
from ..ops.reductions import Reduction
from ..ops.table import OPERATIONS
from .accuracy import Accuracy
from .fused import Several
from .ranges import Ranges
from .reduction import FormulaReduction


class Componentwise(FormulaReduction):
    """log sum e^F G, sum e^F G / sum e^F and the like, of F and G component by component.

    The maximum that terms are measured from is a component's own, so each is a reduction of its
    own, of a scalar: `by_component`. They are computed in one pass over the pairs, or in few.
    """

    def __init__(
        self,
        formula: Node,
        variables: Sequence[Node],
        reduction: str,
        kept: Axis,
        names: Mapping[int, str] | None = None,
        accuracy: Accuracy | None = None,
        weight: Node | None = None,
        length: int = 0,
        asked: Axis | None = None,
        where: Node | None = None,
    ) -> None:
        super().__init__(
            formula, variables, reduction, kept, names, accuracy, weight, length, asked, where
        )
        assert self.weight is not None
        if self.weight.dim == 1:
            self.weight = OPERATIONS["SumT"](self.weight, formula.dim)
        pick = OPERATIONS["Elem"]
        self.by_component = tuple(
            self.with_formula(
                pick(formula, k), self.variables, reduction, kept, pick(self.weight, k)
            )
            for k in range(formula.dim)
        )

    @property
    def widths(self) -> tuple[int, ...]:
        """The number of components of each result: those of maxima, too."""
        return (self.dim,) * len(self.row.results)

    @property
    def simple(self) -> bool:
        """Machine code writes the components apart."""
        return False

    def _variant(self, row: Reduction) -> FormulaReduction:
        given = (self.formula, self.variables, row.name, self.kept)
        return self.with_formula(*given, self.weight if row.weighted != "no" else None)

    def folded(self) -> list[Folded]:
        """The reductions that a kernel for all components has."""
        return [each for fold in self.by_component for each in fold.folded()]

    def run(
        self, library: ArrayLibrary, arrays: Sequence[Array], ranges: Ranges | None = None
    ) -> tuple[Array, ...]:
        """New arrays of the results."""
        together = self.derived("together", lambda: Several(self.by_component))
        found = together.run(library, arrays, ranges)
        count = len(self.row.results)
        return tuple(library.concatenated(list(found[n::count])) for n in range(count))
