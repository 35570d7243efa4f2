"""Formulas as text with masks that have arrays of their own: lazy tensors of the arguments.

What a mask needs is then what every mask of a lazy tensor needs: labels become numbers of the
data's dtype, entries of sparse matrices are gathered, tables of truth values are read in place.
"""

# What is made here are lazy tensors.
# pyright: reportPrivateUsage=false

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..calculus.substitute import substitute
from ..core.library import Array
from ..core.node import Axis, Node
from .given import checked
from .lazytensor import LazyTensor
from .leaves import Leaf, array_leaf

if TYPE_CHECKING:
    from .genred import Genred
    from .reduced import Reduced


def masked_reduction(reduce: Genred, args: Sequence[object], **options: object) -> Reduced:
    """The reduction of these arguments with the mask that `reduce` was given, before its call.

    Raises:
        ArgumentError, ArrayTypeError, ShapeError, DTypeError, DeviceError, OptionError: what does
            not fit.
    """
    fold, arrays, _ = checked(reduce._fold, args, reduce.library)
    leaves = [_leaf(v, array) for v, array in zip(fold.variables, arrays, strict=True)]
    moved = {v: leaf.node for v, leaf in zip(fold.variables, leaves, strict=True)}

    def of(formula: Node) -> LazyTensor:
        return LazyTensor._of_leaves(substitute(formula, moved), leaves)

    accuracy = fold.accuracy
    if accuracy.rtol is not None:
        options = {**options, "rtol": accuracy.rtol}
    return of(fold.formula).reduction(
        reduce.reduction_op,
        None if fold.weight is None else of(fold.weight),
        fold.length or None,
        axis=-2 if fold.kept == Axis.I else -3,
        call=False,
        where=reduce.where,
        dtype_acc=accuracy.dtype,
        sum_scheme=accuracy.scheme,
        **options,  # pyright: ignore[reportArgumentType] (checked where they are used)
    )


def _leaf(variable: Node, array: Array) -> Leaf:
    """An argument as a lazy tensor has it, with axes for both indices."""
    kind = variable.variable.kind
    if kind == Axis.I:
        return array_leaf(array[..., :, None, :], kind)
    if kind == Axis.J:
        return array_leaf(array[..., None, :, :], kind)
    return array_leaf(array if kind == Axis.PAIR else array[..., None, None, :], kind)
