"""The masks that numbers 1 and 0 were made of: by comparisons, products and selections."""

from __future__ import annotations

from .scalars import Value

# How deeply the parts of a mask are looked for.
_MOST_NESTED = 32


def mask_of(truth: Value) -> Value:
    """The mask that holds where a number is not 0: where it was made of masks, those."""
    made = made_of_masks(truth)
    return truth.builder.ne(truth, 0) if made is None else made


def made_of_masks(truth: Value, depth: int = _MOST_NESTED) -> Value | None:
    """The mask that a number 1 or 0 was made of by comparisons, products and selections."""
    s = truth.builder
    one, zero = s.constant(1), s.constant(0)
    if depth == 0:
        return None
    if truth.what == "mul":
        both = [made_of_masks(factor, depth - 1) for factor in truth.args]
        return None if None in both else s.both(*(mask for mask in both if mask is not None))
    if truth.what == "sub" and truth.args[0] is one:
        return _opposite(made_of_masks(truth.args[1], depth - 1))
    if truth.what != "select":
        return None
    mask, x, y = truth.args
    if x is one:
        other = None if y is zero else made_of_masks(y, depth - 1)
        return mask if y is zero else None if other is None else s.either(mask, other)
    other = made_of_masks(x, depth - 1) if y is zero else None
    return None if other is None else s.both(mask, other)


_OPPOSITE = {"eq": "ne", "ne": "eq", "whole_eq": "ne", "whole_ne": "eq"}
_SWAPPED = {"whole_lt": "le", "whole_le": "lt"}


def _opposite(mask: Value | None) -> Value | None:
    """The mask that holds where one does not, if a comparison says it, NaN or not."""
    if mask is None:
        return None
    if mask.what in _OPPOSITE:
        return mask.builder.apply(_OPPOSITE[mask.what], *mask.args)
    if mask.what in _SWAPPED:
        return mask.builder.apply(_SWAPPED[mask.what], *mask.args[::-1])
    return None
