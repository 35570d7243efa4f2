"""Arrays of pairs with one row, or one column, for all: arguments of one index, as of lazy tensors.

A size of 1 broadcasts as in NumPy. Nothing is repeated: an array (..., M, 1, D) becomes one of a
variable indexed by i, and its gradient is a sum, not a table.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..calculus.substitute import substitute
from ..core.node import Axis
from ..ops.table import variable
from .passes import Alone, Joint
from .reduction import FormulaReduction

Shape = tuple[int, ...]


def spread_kinds(fold: FormulaReduction, shapes: Sequence[Shape]) -> tuple[Axis, ...]:
    """What arrays of these shapes are indexed by, those of pairs without axes that broadcast.

    An axis of size 1 does where an argument has another size along it. Shapes may be too short.
    """
    kinds = [v.variable.kind for v in fold.variables]
    if Axis.PAIR not in kinds:
        return tuple(kinds)
    # Sizes of traced programs are symbols, which no set takes.
    lengths: dict[Axis, list[int]] = {Axis.I: [], Axis.J: []}
    for kind, shape in zip(kinds, shapes, strict=True):
        for axis, size in _lengths(kind, shape):
            if size != 1 or kind != Axis.PAIR:
                lengths[axis].append(size)
    repeated = {axis for axis, sizes in lengths.items() if any(size != 1 for size in sizes)}
    found: list[Axis] = []
    for kind, shape in zip(kinds, shapes, strict=True):
        if kind == Axis.PAIR:
            alike = {axis for axis, size in _lengths(kind, shape) if size == 1} & repeated
            kind = _WITHOUT[Axis.I in alike, Axis.J in alike]
        found.append(kind)
    return tuple(found)


# What is indexed by both, without i, without j.
_WITHOUT = {
    (False, False): Axis.PAIR,
    (False, True): Axis.I,
    (True, False): Axis.J,
    (True, True): Axis.PARAMETER,
}


def _lengths(kind: Axis, shape: Shape) -> Sequence[tuple[Axis, int]]:
    if kind == Axis.PARAMETER or len(shape) < kind.axes:
        return ()
    if kind == Axis.PAIR:
        return (Axis.I, shape[-3]), (Axis.J, shape[-2])
    return ((kind, shape[-2]),)


def of_kinds(fold: FormulaReduction, kinds: Sequence[Axis]) -> FormulaReduction:
    """The reduction with its variables indexed so."""
    if tuple(kinds) == tuple(v.variable.kind for v in fold.variables):
        return fold
    return fold.derived(("kinds", tuple(kinds)), lambda: _of_kinds(fold, kinds))


def _of_kinds(fold: FormulaReduction, kinds: Sequence[Axis]) -> FormulaReduction:
    if isinstance(fold, Joint):
        alone = [
            Alone(of_kinds(each.fold, [kinds[n] for n in each.positions]), each.positions)
            for each in fold.alone
        ]
        return Joint([of_kinds(each, kinds) for each in fold.folds], alone)
    variables = [
        variable(place, v.dim, kind)
        for place, (v, kind) in enumerate(zip(fold.variables, kinds, strict=True))
    ]
    moved = dict(zip(fold.variables, variables, strict=True))
    formula, weight, where = (
        None if root is None else substitute(root, moved)
        for root in (fold.formula, fold.weight, fold.where)
    )
    assert formula is not None
    given = (fold.reduction, fold.kept, fold.names, fold.accuracy, weight, fold.length, fold.asked)
    return FormulaReduction(formula, variables, *given, where)
