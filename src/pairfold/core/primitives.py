"""The table of scalar primitives: what every kind of value is made of, and what it means.

A value of a kernel (`core.scalars.Value`) is a row of one of two tables. `PRIMITIVES` are the
machine operations; each has its NumPy meaning (the definition), which the interpreter runs, and the
name of its LLVM spelling (`backends.llvm.simd` or `backends.functions`). `STRUCTURES` are what
surrounds them: constants, components of arguments, component indices, loops and tables, and
placeholders that a backend fills. `lower.verify` checks the values of a kernel against both.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

# What a value is: a number, a truth value, the index of a component, a vector in memory, or a whole
# number that is made of the numbers of rows and columns, exactly.
ValueKind = Literal["real", "mask", "index", "table", "whole"]

# What a backend supplies: parts of running states (`acc`, `a`, `b`), the number of the column, an
# maximum, the sum without weights, the number of columns.
PlaceholderName = Literal["acc", "a", "b", "column", "top", "total", "count"]

What = Literal[
    "abs", "acos", "add", "apart", "asin", "atan", "atan2", "both", "carry", "column_number",
    "const", "cos", "div", "either", "entry", "eq", "erf", "erfc", "exp", "expm1", "floor",
    "index_add", "index_below", "index_floordiv", "index_loop", "index_max", "index_min",
    "index_mod", "index_mul", "index_sub", "le", "lgamma", "load", "log", "log1p", "lt", "memory",
    "mul", "ne", "neg", "placeholder", "position", "pow", "real", "result", "row_number", "rsqrt",
    "select", "sin", "sqrt", "sub", "table", "tanh", "whole", "whole_abs", "whole_add", "whole_eq",
    "whole_le", "whole_lt", "whole_mul", "whole_ne", "whole_neg", "whole_of", "whole_select",
    "whole_sub",
]  # fmt: skip

# Numbers or truth values of NumPy: one, or one for each row, column or pair.
Numbers = NDArray[np.generic] | np.generic


@dataclass(frozen=True)
class Primitive:
    """One machine operation: its operands, its NumPy meaning, its LLVM spelling, its rough cost."""

    name: What
    operands: tuple[ValueKind, ...]
    kind: ValueKind
    numpy: Callable[..., Numbers]
    llvm: str
    cost: float = 1.0

    @property
    def arity(self) -> int:
        """The number of operands."""
        return len(self.operands)

    def whole_bounds(self, given: Sequence[tuple[int, int]]) -> tuple[int, int]:
        """The interval of an operation on whole numbers that lie in theirs; (0, 0) of a mask.

        >>> PRIMITIVES["whole_sub"].whole_bounds([(0, 9), (2, 3)])
        (-3, 7)
        """
        if self.kind == "mask":
            return 0, 0
        if len(given) == 1:
            low, high = given[0]
            least = 0 if low <= 0 <= high else min(abs(low), abs(high))
            return (-high, -low) if self.llvm == "neg" else (least, max(abs(low), abs(high)))
        (a, b), (c, d) = given
        if self.llvm == "select":
            return min(a, c), max(b, d)
        meaning = INDEX_OPERATIONS[self.llvm].meaning
        corners = [meaning(x, y) for x in (a, b) for y in (c, d)]
        return min(corners), max(corners)


@dataclass(frozen=True)
class Structure:
    """A kind of value that is no machine operation.

    `operands`: the lists of operands that it may have; None: what its loop says. `data`: what it
    is made of besides.
    """

    name: What
    kind: ValueKind
    operands: tuple[tuple[ValueKind, ...], ...] | None
    data: Literal[
        "number", "load", "placeholder", "loop", "carried", "integer", "integer or operand", ""
    ]


def _numpy_rsqrt(x: Numbers) -> Numbers:
    return 1.0 / np.sqrt(x)


def _numpy_select(mask: Numbers, x: Numbers, y: Numbers) -> Numbers:
    return np.where(mask, x, y)


def _of_each(function: Callable[[float], float]) -> Callable[[Numbers], Numbers]:
    """A function of one number, for each number of an array: NumPy has none."""

    def apply(x: Numbers) -> Numbers:
        array = np.asarray(x, dtype=np.float64)
        found = np.fromiter(map(function, array.flat), np.float64, array.size)
        return found.reshape(array.shape)

    return apply


def _lgamma(x: float) -> float:
    """The logarithm of the absolute value of the gamma function, infinite at its poles."""
    if x <= 0 and x.is_integer():
        return math.inf
    try:
        return math.lgamma(x)
    except OverflowError:
        return math.inf


def _numpy_real(x: Numbers) -> Numbers:
    return np.asarray(x, np.float64)


# Where whole numbers end that are made of others: beyond all that they are compared with.
MOST_WHOLE = 2**61


def _numpy_whole_of(x: Numbers) -> Numbers:
    whole = np.floor(np.nan_to_num(np.asarray(x, np.float64), nan=0.0))
    return np.clip(whole, -MOST_WHOLE, MOST_WHOLE).astype(np.int64)


_ONE: tuple[ValueKind, ...] = ("real",)
_TWO: tuple[ValueKind, ...] = ("real", "real")
_MASKS: tuple[ValueKind, ...] = ("mask", "mask")
_WHOLE: tuple[ValueKind, ...] = ("whole",)
_WHOLES: tuple[ValueKind, ...] = ("whole", "whole")

PRIMITIVES: dict[str, Primitive] = {
    row.name: row
    for row in (
        Primitive("add", _TWO, "real", np.add, "add"),
        Primitive("sub", _TWO, "real", np.subtract, "sub"),
        # The same, of an x that is rounded: never fused with the product that x is.
        Primitive("apart", _TWO, "real", np.subtract, "sub"),
        Primitive("mul", _TWO, "real", np.multiply, "mul"),
        Primitive("div", _TWO, "real", np.divide, "div", 6),
        Primitive("neg", _ONE, "real", np.negative, "neg"),
        Primitive("abs", _ONE, "real", np.abs, "abs"),
        Primitive("sqrt", _ONE, "real", np.sqrt, "sqrt", 6),
        Primitive("rsqrt", _ONE, "real", _numpy_rsqrt, "rsqrt", 7),
        Primitive("exp", _ONE, "real", np.exp, "exp", 11),
        Primitive("expm1", _ONE, "real", np.expm1, "expm1", 15),
        Primitive("log", _ONE, "real", np.log, "log", 16),
        Primitive("log1p", _ONE, "real", np.log1p, "log1p", 22),
        Primitive("sin", _ONE, "real", np.sin, "sin", 16),
        Primitive("cos", _ONE, "real", np.cos, "cos", 16),
        Primitive("tanh", _ONE, "real", np.tanh, "tanh", 18),
        Primitive("pow", _TWO, "real", np.power, "pow", 50),
        Primitive("asin", _ONE, "real", np.arcsin, "asin", 20),
        Primitive("acos", _ONE, "real", np.arccos, "acos", 20),
        Primitive("atan", _ONE, "real", np.arctan, "atan", 20),
        Primitive("atan2", _TWO, "real", np.arctan2, "atan2", 30),
        Primitive("erf", _ONE, "real", _of_each(math.erf), "erf", 35),
        Primitive("erfc", _ONE, "real", _of_each(math.erfc), "erfc", 60),
        Primitive("lgamma", _ONE, "real", _of_each(_lgamma), "lgamma", 150),
        Primitive("floor", _ONE, "real", np.floor, "floor"),
        Primitive("lt", _TWO, "mask", np.less, "<"),
        Primitive("le", _TWO, "mask", np.less_equal, "<="),
        Primitive("eq", _TWO, "mask", np.equal, "=="),
        Primitive("ne", _TWO, "mask", np.not_equal, "!="),
        Primitive("both", _MASKS, "mask", np.logical_and, "mask_and"),
        Primitive("either", _MASKS, "mask", np.logical_or, "mask_or"),
        Primitive("select", ("mask", "real", "real"), "real", _numpy_select, "select"),
        Primitive("whole_add", _WHOLES, "whole", np.add, "add", 2),
        Primitive("whole_sub", _WHOLES, "whole", np.subtract, "sub", 2),
        Primitive("whole_mul", _WHOLES, "whole", np.multiply, "mul", 4),
        Primitive("whole_neg", _WHOLE, "whole", np.negative, "neg", 2),
        Primitive("whole_abs", _WHOLE, "whole", np.abs, "abs", 2),
        Primitive("whole_lt", _WHOLES, "mask", np.less, "<", 2),
        Primitive("whole_le", _WHOLES, "mask", np.less_equal, "<=", 2),
        Primitive("whole_eq", _WHOLES, "mask", np.equal, "==", 2),
        Primitive("whole_ne", _WHOLES, "mask", np.not_equal, "!=", 2),
        Primitive("whole_select", ("mask", "whole", "whole"), "whole", _numpy_select, "select", 2),
        # The largest whole number below a number, within the limits; 0 for NaN.
        Primitive("whole_of", _ONE, "whole", _numpy_whole_of, "floor", 4),
        # A whole number rounded once.
        Primitive("real", _WHOLE, "real", _numpy_real, "real", 2),
    )
}

# What operations on numbers are on whole numbers.
WHOLE = {
    row.name.removeprefix("whole_"): row
    for row in PRIMITIVES.values()
    if row.name.startswith("whole_") and "real" not in row.operands
}


@dataclass(frozen=True)
class IndexOperation:
    """Integer arithmetic on component indices: the value that it makes, and its meaning."""

    what: What
    meaning: Callable[[int, int], int]

    def bounds(self, left: tuple[int, int], right: tuple[int, int]) -> tuple[int, int]:
        """The interval that results lie in, of operands that lie in theirs.

        >>> INDEX_OPERATIONS["mod"].bounds((5, 7), (4, 4))
        (1, 3)
        """
        (a, b), (low, _) = left, right
        if self.what == "index_mod":
            return (a % low, b % low) if a // low == b // low else (0, low - 1)
        corners = [self.meaning(x, y) for x in left for y in right]
        return min(corners), max(corners)


INDEX_OPERATIONS: dict[str, IndexOperation] = {
    "add": IndexOperation("index_add", operator.add),
    "sub": IndexOperation("index_sub", operator.sub),
    "mul": IndexOperation("index_mul", operator.mul),
    "floordiv": IndexOperation("index_floordiv", operator.floordiv),
    "mod": IndexOperation("index_mod", operator.mod),
    "min": IndexOperation("index_min", min),
    "max": IndexOperation("index_max", max),
}

_INDEX: tuple[ValueKind, ...] = ("index",)

STRUCTURES: dict[str, Structure] = {
    row.name: row
    for row in (
        Structure("const", "real", ((),), "number"),
        # Component k of an argument, which is a number or an operand.
        Structure("load", "real", ((), _INDEX), "load"),
        Structure("placeholder", "real", ((),), "placeholder"),
        Structure("index_loop", "index", ((),), "loop"),
        *(
            Structure(row.what, "index", (_INDEX, ("index", "index")), "integer or operand")
            for row in INDEX_OPERATIONS.values()
        ),
        # The number of the pair's row and column, and a whole constant.
        Structure("row_number", "whole", ((),), ""),
        Structure("column_number", "whole", ((),), ""),
        Structure("whole", "whole", ((),), "integer"),
        Structure("index_below", "mask", (_INDEX,), "integer"),
        Structure("position", "real", (_INDEX,), ""),
        # Part of a loop's state inside the loop, and after it.
        Structure("carry", "real", ((),), "carried"),
        Structure("result", "real", None, "carried"),
        # A table while it is computed, as a whole, and one component of it.
        Structure("memory", "table", ((),), "loop"),
        Structure("table", "table", (("real",),), "loop"),
        Structure("entry", "real", (("table",), ("table", "index")), "integer or operand"),
    )
}
