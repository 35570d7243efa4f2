"""The small functions of `pykeops.common`: categories, aliases, shapes, tools by name."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from ..errors import ArgumentError, OptionError, ShapeError
from ..frontends.lazy import Tensor
from ..frontends.lazytensor import is_number

if TYPE_CHECKING:
    from .tools import numpytools, torchtools


class Shaped(Protocol):
    """An array of either library."""

    @property
    def shape(self) -> Sequence[int]:
        """The length of each axis."""
        ...


categories = {"Vi": 0, "Vj": 1, "Pm": 2}
c_type = {"float16": "half2", "float32": "float", "float64": "double"}

_VARIABLE = re.compile(r"(Var\((\d+),\d+,\d+\))")
_ALIAS = re.compile(r"(?:([^=()]+)=)?(Vi|Vj|Pm|Var)\(([\d,]+)\)")


def axis2cat(axis: int) -> int:
    """The category that is left when an axis is reduced.

    Raises:
        OptionError: neither 0 nor 1.
    """
    if axis not in (0, 1):
        raise OptionError("axis must be 0 or 1", found=f"axis={axis!r}")
    return 1 - axis


def cat2axis(cat: int) -> int:
    """The axis that is reduced where a category is left.

    Raises:
        OptionError: neither 0 nor 1.
    """
    if cat not in (0, 1):
        raise OptionError("Category should be Vi or Vj.", found=f"cat={cat!r}")
    return 1 - cat


def get_tools(lang: str) -> type[numpytools] | type[torchtools]:
    """`numpytools` or `torchtools`, by the name of the library.

    Raises:
        OptionError: another name.
    """
    from . import tools

    if lang not in ("numpy", "torch", "pytorch"):
        raise OptionError("the library is numpy, torch or pytorch", found=repr(lang))
    return tools.numpytools if lang == "numpy" else tools.torchtools


def max_tuple(a: Sequence[int], b: Sequence[int]) -> tuple[int, ...]:
    """The larger of each pair of numbers."""
    return tuple(max(pair) for pair in zip(a, b, strict=True))


def check_broadcasting(
    dims_1: Sequence[int] | None, dims_2: Sequence[int] | None
) -> Sequence[int] | None:
    """The shape that two shapes broadcast to; None where both are None.

    Raises:
        ShapeError: they do not.
    """
    if dims_1 is None or dims_2 is None:
        return dims_2 if dims_1 is None else dims_1
    try:
        return tuple(np.broadcast_shapes(tuple(dims_1), tuple(dims_2)))
    except ValueError:
        raise ShapeError("Incompatible batch dimensions", found=f"{dims_1}, {dims_2}") from None


def WarmUpGpu(lang: str) -> None:
    """Do nothing: pairfold computes on the processor."""


def get_gpu_number() -> int:
    """0: pairfold computes on the processor."""
    return 0


def get_type(
    type_str: str, position_in_list: int | None = None
) -> tuple[str | None, int, int, int | None]:
    """(name or None, category, dimension, position) of an alias.

    >>> get_type("x = Vi(3)", 2), get_type("Var(1,4,0)")
    (('x', 0, 3, 2), (None, 0, 4, 1))

    Raises:
        ArgumentError: it is no alias.
    """
    text = "".join(type_str.split()).rstrip(",")
    if "Vx(" in text or "Vy(" in text:
        warnings.warn("Vx and Vy are the old names of Vi and Vj", DeprecationWarning, stacklevel=2)
        text = text.replace("Vx(", "Vi(").replace("Vy(", "Vj(")
    found = _ALIAS.fullmatch(text)
    numbers = [int(n) for n in found[3].split(",") if n] if found else []
    if found and found[2] == "Var" and len(numbers) == 3:
        position, dim, category = numbers
        return found[1], category, dim, position
    if not found or found[2] == "Var" or len(numbers) not in (1, 2):
        raise ArgumentError("this is no alias", found=repr(type_str), hint='"x = Vi(3)"')
    position = numbers[0] if len(numbers) == 2 else position_in_list
    return found[1], categories[found[2]], numbers[-1], position


def get_sizes(aliases: Sequence[str], *args: Shaped) -> tuple[int, int]:
    """The rows of the first arguments that are indexed by i and by j, 1 without any."""
    sizes: dict[int, int] = {}
    for place, alias in enumerate(aliases):
        _, category, _, position = get_type(alias, place)
        if category < 2 and position is not None:
            sizes.setdefault(category, args[position].shape[-2])
    return sizes.get(0, 1), sizes.get(1, 1)


def complete_aliases(formula: str, aliases: Sequence[str]) -> list[str]:
    """Aliases for all variables: those given, then the `Var(position,dimension,category)` of the
    formula at further positions.

    >>> complete_aliases("x * Var(1,3,1)", ["x = Vi(3)"])
    ['x = Vi(3)', 'Var(1,3,1)']

    Raises:
        ArgumentError: two variables of one position, or a position that is left out.
    """
    found = list(aliases)
    written = set(_VARIABLE.findall("".join(formula.split())))
    more = sorted((int(position), text) for text, position in written)
    for position, text in more:
        if position < len(aliases):
            continue
        if position != len(found):
            raise ArgumentError(
                "variables must have one position each, without gaps",
                found=f"{text} after {len(found)} aliases",
            )
        found.append(text)
    return found


def same_or_one_test(*dims: int) -> bool:
    """Whether dimensions are equal, apart from those that are 1."""
    return len(set(dims) - {1}) <= 1


def is_scalar_and_equals(x: object, val: float) -> bool:
    """Whether x is a number of this value."""
    return is_number(x, val)  # type: ignore[arg-type]


def is_complex_lazytensor(x: object) -> bool:
    """Whether x is a lazy tensor of complex numbers."""
    return isinstance(x, Tensor) and x.is_complex
