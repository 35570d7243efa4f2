"""Which formulas and weights a reduction folds."""

from __future__ import annotations

from collections.abc import Mapping

from ..core.node import Node
from ..core.show import formula_text
from ..errors import DimError
from ..ops.reductions import Reduction


def check_formulas(
    row: Reduction,
    formula: Node,
    weight: Node | None,
    names: Mapping[int, str] | None = None,
    where: Node | None = None,
) -> None:
    """Raise unless the reduction can fold these formulas.

    Raises:
        DimError: a formula that should be a scalar is not.
    """
    if where is not None and where.dim != 1:
        raise DimError(
            "a mask has one component for each pair",
            found=f"{formula_text(where, names or {})} has dimension {where.dim}",
            hint="Elem(mask, k) is one component; min over the components, where all have to hold",
        )
    fits = weight is None or weight.dim in (1, formula.dim)
    if formula.dim == 1 or (fits and not row.scalar):
        return
    size = "" if weight is None else f", the weight {weight.dim}"
    raise DimError(
        f"{row.name} needs a formula of dimension 1" + ", or of its weight's" * (not row.scalar),
        found=f"{formula_text(formula, names or {})} has dimension {formula.dim}{size}",
        hint="Sum(f), SqNorm2(f) or Elem(f, m) make a scalar of a vector",
    )
