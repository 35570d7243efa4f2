"""LazyTensor for real numbers: operators, methods by the table of operations, reductions.

Methods come from the rows: every operation with a `method` name gets one (`methods.py`). Written
out below are those whose arguments need more than a row says.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..arrays.library import COMPLEX
from ..arrays.registry import library_for
from ..calculus.substitute import substitute
from ..core.node import topological
from ..errors import (
    ArrayTypeError,
    OptionError,
    PairfoldError,
    ShapeError,
    brief,
    shortened,
)
from ..ops.table import OPERATIONS, constant
from ..ops.truth import is_truth
from ..ops.vectors import zero
from .given import numbers_in, plain_number
from .lazy import Tensor, check_kind, is_scalar, number_leaf, symbol_leaf
from .leaves import alike
from .methods import add_methods, whole
from .reducing import COMPONENTS, Reducing

# Operations whose second operand is a variable.
_OF_VARIABLES = {
    *("Grad", "Diff", "GradMatrix", "Divergence", "Laplacian"),
    *("TraceOperator", "AdjointOperator", "SumLinOperator"),
}


class LazyTensor(Reducing):
    """An array (..., M, N, D) that is a formula of arrays, computed only when it is reduced.

    Args:
        x: an array (..., M, 1, D), indexed by i; (..., 1, N, D), by j; (..., 1, 1, D), a parameter;
            with two axes, (M, D) and axis=0 or (N, D) and axis=1; a vector, a number or a list of
            numbers, a parameter; an int, a constant of the formula; a tuple (position, dim,
            category), an argument to be given later.
        axis: the index of an array with two axes.
        is_complex: a tensor of complex numbers, also where x does not show it.

    >>> import numpy as np
    >>> x, y = np.zeros((3, 1, 2)), np.ones((1, 4, 2))
    >>> squared = ((LazyTensor(x) - LazyTensor(y)) ** 2).sum(-1)
    >>> squared.shape, squared.sum(axis=1).tolist()
    ((3, 4), [[8.0], [8.0], [8.0]])

    Raises:
        ArrayTypeError, ShapeError, DTypeError, OptionError, ArgumentError: what cannot be one.
    """

    def __new__(cls, x: Any = None, axis: int | None = None, is_complex: bool = False) -> Any:
        """A ComplexLazyTensor where x holds complex numbers."""
        if (is_complex or _holds_complex(x)) and cls is cls.class_for(False):
            complex_class: Any = cls.class_for(True)
            return complex_class(x, axis, True)
        return object.__new__(cls)

    def __init__(self, x: Any = None, axis: int | None = None, is_complex: bool = False) -> None:
        self._blank()
        if x is None:
            self.node = constant(0)
            return
        library = library_for(x)
        scalar = isinstance(x, np.generic)
        if library is not None and not scalar:
            self._set_array(x, axis)
        elif isinstance(x, tuple):
            if axis is not None:
                raise OptionError("a symbol tells its own category", found=f"axis={axis!r}")
            self._set_leaf(symbol_leaf(x))
        elif isinstance(x, (int, np.integer)) and not isinstance(x, bool):
            self.node = constant(int(x))
        elif plain_number(x) and axis in (None, 2):
            self._set_leaf(number_leaf([float(x)]))
        elif isinstance(x, list) and axis in (None, 2):
            found = numbers_in(x)
            if isinstance(found, list):
                self._set_leaf(number_leaf(found))
            else:
                self._set_array(found, None)
        else:
            check_kind(x)

    @classmethod
    def class_for(cls, is_complex: bool) -> type[Tensor]:
        """The class of results: of complex, or of real, numbers."""
        if not is_complex:
            return LazyTensor
        from .complextensor import ComplexLazyTensor

        return ComplexLazyTensor

    # -- operands -------------------------------------------------------------------------------

    def _operand(self, x: Any) -> Any:
        if isinstance(x, Tensor):
            return x
        if self.ndim == 1 and self.ni and self.nj and len(getattr(x, "shape", ())) == 1:
            self._check_vector(x)
        return self._made(x)

    def _check_vector(self, x: Any) -> None:
        """Raise where a vector beside scalars is more likely one number for each row or column.

        Raises:
            ShapeError: it has as many numbers as there are rows or columns.
        """
        size = x.shape[0]
        if size > 1 and size in (self.ni, self.nj) and not isinstance(x, Tensor):
            kind, name = ("Vj", "columns") if size == self.nj else ("Vi", "rows")
            raise ShapeError(
                f"a vector of {size} numbers beside a matrix of {size} {name}",
                found=f"shapes {(size,)} and {self.shape}",
                hint=f"{kind}(w[:, None]) for one number for each of the {name}; "
                f"Pm(w) for a parameter of {size} components",
            )

    def _call(self, name: str, *operands: Any) -> Any:
        """An operation on lazy tensors or what becomes one, then parameters as they are."""
        try:
            row = OPERATIONS[name]
            arity = len(operands) - len(row.params)
            first = [self._operand(x) for x in operands[:arity]]
            if any(x.is_complex for x in first):
                raise ArrayTypeError(
                    f"{name} is not defined for complex numbers", hint="z.real, z.imag or abs(z)"
                )
            if name in _OF_VARIABLES:
                first[0], first[1] = _aligned(first[0], first[1])
            return first[0]._apply(name, *first, *operands[arity:])
        except PairfoldError as error:
            raise shortened(error)  # noqa: B904

    # -- arithmetic -----------------------------------------------------------------------------

    def __add__(self, other: object) -> Any:
        return self if is_number(other, 0) else self._binary("Add", other)

    def __radd__(self, other: object) -> Any:
        return self if is_number(other, 0) else self._operand(other)._binary("Add", self)

    def __sub__(self, other: object) -> Any:
        return self if is_number(other, 0) else self._binary("Subtract", other)

    def __rsub__(self, other: object) -> Any:
        return -self if is_number(other, 0) else self._operand(other)._binary("Subtract", self)

    def __mul__(self, other: object) -> Any:
        if is_number(other, 0):
            return 0
        if is_number(other, 1):
            return self
        return -self if is_number(other, -1) else self._binary("Mult", other)

    def __rmul__(self, other: object) -> Any:
        if is_number(other, 0) or is_number(other, 1) or is_number(other, -1):
            return self * other
        return self._operand(other)._binary("Mult", self)

    def __truediv__(self, other: object) -> Any:
        return self if is_number(other, 1) else self._binary("Divide", other)

    def __rtruediv__(self, other: object) -> Any:
        if is_number(other, 0):
            return 0
        return (
            self._call("Inv", self)
            if is_number(other, 1)
            else self._operand(other)._binary("Divide", self)
        )

    def _binary(self, name: str, other: Any) -> Any:
        other = self._operand(other)
        if other.is_complex:
            return other.binary_with_real(name, self, swapped=True)
        if name == "Mult":
            _check_infinite(self, other)
            _check_infinite(other, self)
        return self._call(name, self, other)

    def __or__(self, other: object) -> Any:
        """The scalar product; of two truth values, whether one of them holds."""
        if not (is_truth(self.node) and isinstance(other, LazyTensor) and is_truth(other.node)):
            return self._call("Scalprod", self, other)
        if self.ndim > 1 or other.ndim > 1:
            raise ArrayTypeError(
                "x | y is a scalar product, and of vectors of truth values it could mean or",
                found=f"{self!r} | {other!r}",
                hint="where(x, 1, y) for or, (x * y).sum(-1) for how many components hold in both",
            )
        return where(self, 1, other)

    def __ror__(self, other: object) -> Any:
        return self._call("Scalprod", other, self)

    def __neg__(self) -> Any:
        return self._call("Minus", self)

    def __pos__(self) -> Any:
        return self

    def __mod__(self, other: object) -> Any:
        return self.mod(other)

    def __rmod__(self, other: object) -> Any:
        return self._operand(other).mod(self)

    def __floordiv__(self, other: object) -> Any:
        return self._binary("Divide", other).floor()

    def __rfloordiv__(self, other: object) -> Any:
        return self._operand(other)._binary("Divide", self).floor()

    def __abs__(self) -> Any:
        return self._call("Abs", self)

    def __pow__(self, exponent: Any) -> Any:
        if isinstance(exponent, (int, np.integer)) and not isinstance(exponent, bool):
            if exponent == 2:
                return self._call("Square", self)
            return self if exponent == 1 else self._call("Pow", self, int(exponent))
        if plain_number(exponent) and abs(exponent) == 0.5:
            return self._call("Sqrt" if exponent > 0 else "Rsqrt", self)
        exponent = self._operand(exponent)
        return self.real2complex() ** exponent if exponent.is_complex else self.powf(exponent)

    def __rpow__(self, base: Any) -> Any:
        return self._operand(base) ** self

    def power(self, other: Any) -> Any:
        """The power, as `x ** other`."""
        return self**other

    # -- comparison -----------------------------------------------------------------------------

    def __eq__(self, other: object) -> Any:  # type: ignore[override]
        given = self._operand(other)
        return given == self if given.is_complex else self._call("Equal", self, given)

    def __ne__(self, other: object) -> Any:  # type: ignore[override]
        given = self._operand(other)
        return given != self if given.is_complex else self._call("NotEqual", self, given)

    def __lt__(self, other: object) -> Any:
        return self._call("LessThan", self, other)

    def __le__(self, other: object) -> Any:
        return self._call("LessOrEqual", self, other)

    def __gt__(self, other: object) -> Any:
        return self._call("LessThan", other, self)

    def __ge__(self, other: object) -> Any:
        return self._call("LessOrEqual", other, self)

    # -- truth values ---------------------------------------------------------------------------

    def __and__(self, other: object) -> Any:
        """Whether two truth values hold: their product."""
        self._truth("&")
        return self._call("Mult", self, self._operand(other)._truth("&"))

    def __rand__(self, other: object) -> Any:
        return self & other

    def __invert__(self) -> Any:
        """Whether a truth value does not hold: 1 minus it."""
        return 1 - self._truth("~")

    def _truth(self, symbol: str) -> Any:
        """The tensor itself, where it is a truth value."""
        if not is_truth(self.node):
            raise ArrayTypeError(
                f"{symbol} is for truth values: comparisons, and what is made of them",
                found=repr(self),
                hint="(x > 0) & (y > 0), ~(x > 0)",
            )
        return self

    def maximum(self, other: Any) -> Any:
        """The larger of two values, this one where they are equal; NaN where one is."""
        other = self._operand(other)
        return where(self < other, other, where(other == other, self, other))

    def minimum(self, other: Any) -> Any:
        """The smaller of two values, this one where they are equal; NaN where one is."""
        other = self._operand(other)
        return where(self > other, other, where(other == other, self, other))

    def where(self, condition: Any, other: Any) -> Any:
        """The values where a condition is not 0, else those of `other`; as torch's method."""
        return where(condition, self, other)

    # -- components -----------------------------------------------------------------------------

    def __getitem__(self, key: Any) -> Any:
        start, count = component_part(key, self.nbatchdims + 2, self.ndim)
        if not isinstance(key, tuple) and key != slice(None) and is_scalar(self.node):
            raise ShapeError(
                "indices choose components, and this tensor has one for each pair",
                found=f"[{key}] of {self!r}",
                hint="index the arrays that it is made of: x[:5], y[:5]; x[:, :, 0] is the tensor",
            )
        if count is None:
            return self._call("Elem", self, start)
        return self._call("Extract", self, start, count)

    def __iter__(self) -> Any:
        raise TypeError("a LazyTensor cannot be iterated over; x[k] is its component k")

    # -- methods that a row alone does not describe ---------------------------------------------

    def sinc(self) -> Any:
        """sin(pi x) / (pi x), 1 at 0."""
        return (self * math.pi)._call("SinXDivX", self * math.pi)

    def norm(self, dim: int = COMPONENTS, axis: int | None = None) -> Any:
        """The Euclidean norm over the components."""
        dim = dim if axis is None else axis
        check_last(self, dim)
        self._check_components(dim, "norm")
        return self.norm2()

    def clamp(self, other1: Any, other2: Any) -> Any:
        """The values limited to the interval from other1 to other2."""
        if all(isinstance(x, int) and not isinstance(x, bool) for x in (other1, other2)):
            return self._call("ClampInt", self, other1, other2)
        return self._call("Clamp", self, other1, other2)

    def round(self, other: int = 0) -> Any:
        """Rounded to this many decimals, halves away from zero."""
        return self._call("Round", self, whole("other", other))

    def mod(self, modulus: Any, offset: Any = 0) -> Any:
        """self - modulus * floor((self - offset) / modulus)."""
        return self._call("Mod", self, modulus, offset)

    def bspline(self, x: Any, k: int = 0) -> Any:
        """B-splines of order k at x, this tensor being the knots."""
        return self._call("BSpline", self, x, whole("k", k))

    def weightedsqnorm(self, other: Any) -> Any:
        """Squared norm with weights: a scalar, one per component, or a matrix, row by row."""
        return self._call("WeightedSqNorm", other, self)

    def weightedsqdist(self, g: Any, s: Any) -> Any:
        """Squared distance to g with weights s, as in `weightedsqnorm`."""
        return (self - g).weightedsqnorm(s)

    def difference_matrix(self, other: Any) -> Any:
        """All differences between components of self and of other, row by row."""
        other = self._operand(other)
        ones = [self._made([1.0] * n) for n in (other.ndim, self.ndim)]
        return self.tensorprod(ones[0]) - ones[1].tensorprod(other)

    def real2complex(self) -> Any:
        """Real numbers as complex ones."""
        return _to_complex(self, "Real2Complex")

    def imag2complex(self) -> Any:
        """Real numbers as imaginary ones."""
        return _to_complex(self, "Imag2Complex")

    def exp1j(self) -> Any:
        """The points e^(ix) of the unit circle, for real x."""
        return _to_complex(self, "ComplexExp1j")

    @property
    def real(self) -> Any:
        """The tensor itself: its numbers are real."""
        return self

    @property
    def imag(self) -> Any:
        """Zeros: the tensor's numbers are real."""
        return self._like(zero(self.ndim))

    def conj(self) -> Any:
        """The tensor itself: its numbers are real."""
        return self

    def angle(self) -> Any:
        """0 for positive numbers, pi for negative ones."""
        return (self < 0) * math.pi

    def trace_operator(self, var: Any, w: Any = None) -> Any:
        """The trace of this formula, which is linear in the variable `var`; w weighs the diagonal.

        `var`, where it is a symbol, is not an argument of the result.
        """
        return self._without(var, "TraceOperator", *(() if w is None else (w,)))

    def adjoint_operator(self, var: Any, u: Any) -> Any:
        """The adjoint of this formula, which is linear in the variable `var`, applied to u.

        `var`, where it is a symbol, is not an argument of the result.
        """
        return self._without(var, "AdjointOperator", u)

    def sum_lin_operator(self, var: Any, wl: Any = None, wr: Any = None) -> Any:
        """The sum of the entries of this formula's matrix: it is linear in the variable `var`.

        `wl` weighs its rows, `wr` its columns; `var`, where it is a symbol, is not an argument of
        the result.
        """
        weights = () if wl is None and wr is None else (1 if wl is None else wl,)
        return self._without(var, "SumLinOperator", *weights, *(() if wr is None else (wr,)))

    def _without(self, var: Any, name: str, *operands: Any) -> Any:
        """An operation whose result does not depend on the variable that it is told."""
        found = self._call(name, self, var, *operands)
        used = topological([found.node])
        dropped = {leaf.key for leaf in var.leaves if leaf.symbol is not None}
        kept = (x for x in found.leaves if x.key not in dropped or x.node in used)
        found.leaves = tuple(kept)
        return found


def _check_infinite(truth: Any, factor: Any) -> None:
    """Raise for a truth value times an infinite number: 0 times infinity is NaN.

    Raises:
        ArrayTypeError: the product selects nothing.
    """
    values = factor.leaves[0].values if len(factor.leaves) == 1 else None
    if values and any(map(math.isinf, values)) and is_truth(truth.node):
        raise ArrayTypeError(
            "a truth value times an infinite number is NaN where it does not hold",
            found=f"{truth!r} * {values[0]}",
            hint="where(i == j, inf, D), not D + (i == j) * inf",
        )


def _aligned(f: Any, v: Any) -> tuple[Any, Any]:
    """A formula and variables of it, in which each argument has one node.

    Variables that are made of one array, several times, are one variable.
    """
    moved: dict[Any, Any] = {}
    leaves = {leaf: leaf for leaf in v.leaves}
    for leaf in v.leaves:
        found = alike(f.leaves, leaf)
        if found and found != [leaf]:
            leaves[leaf] = found[0]
            moved |= {other.node: found[0].node for other in (leaf, *found[1:])}
    if not moved:
        return f, v
    formula, variable = (x._like(substitute(x.node, moved)) for x in (f, v))
    variable.leaves = tuple(leaves.values())
    return formula, variable


def _to_complex(x: Any, name: str) -> Any:
    """An operation from real numbers to complex ones."""
    return x._apply(name, x)._as(x.class_for(True))


def is_number(x: Any, value: int) -> bool:
    """Whether x is a plain number of this value."""
    return plain_number(x) and x == value


def _holds_complex(x: Any) -> bool:
    if isinstance(x, (complex, np.complexfloating)):
        return True
    if isinstance(x, list):
        return any(map(_holds_complex, x))
    library = library_for(x)
    return library is not None and library.dtype(x) in COMPLEX


def component_part(key: Any, last: int, dim: int) -> tuple[int, int | None]:
    """The first component of an index, and how many, None for a single one, of `dim`.

    Full slices may stand before it, one for each of the axes before the last.

    Raises:
        ShapeError: another axis is indexed, by something else, or beyond the components.
    """
    found = key
    if isinstance(key, tuple):
        if len(key) != last + 1 or any(
            not isinstance(k, slice) or k != slice(None) for k in key[:-1]
        ):
            raise ShapeError(
                "only the last axis, that of components, can be indexed",
                found=f"[{', '.join(map(str, key))}]",
                hint=f"x[{':, ' * last}k]",
            )
        found = key[-1]
    if isinstance(found, slice):
        start, stop = found.start or 0, dim if found.stop is None else found.stop
        if found.step not in (None, 1) or not 0 <= start < stop <= dim:
            raise ShapeError(
                "a slice of components goes from start to stop, without step",
                found=f"{found} of {dim} components",
                hint=f"0 <= start < stop <= {dim}",
            )
        return start, stop - start
    if isinstance(found, bool) or not isinstance(found, (int, np.integer)):
        raise ShapeError(
            "components are indexed by a whole number or a slice", found=repr(found), hint="x[0]"
        )
    if not 0 <= found < dim:
        raise ShapeError(
            f"components are numbered from 0 to {dim - 1}", found=repr(found), hint="x[0]"
        )
    return int(found), None


def check_last(tensor: Any, axis: int | None) -> None:
    """Raise unless an axis is that of components.

    Raises:
        OptionError: another axis.
    """
    if isinstance(axis, bool) or axis not in (-1, tensor.nbatchdims + 2):
        raise OptionError(
            "norms are over the last axis, that of components",
            found=f"dim={axis!r}",
            hint="dim=-1; over the pairs, (K**2).sum(axis=1) is the square, an array",
        )


add_methods(LazyTensor, for_complex=False)


def where(condition: Any, x: Any, y: Any) -> Any:
    """x where a condition is not 0, else y: lazy tensors, numbers and arrays as for `LazyTensor`.

    Conditions are comparisons, products of them (and, `&`), sums of them (or, `|`), 1 minus one
    (not, `~`), or any numbers. What is not selected has no part in values and gradients, whatever
    it is: infinite, NaN. Shapes join as in sums.

    >>> import numpy as np
    >>> index = np.arange(4.0)[:, None]
    >>> i, j = Vi(index), Vj(index)
    >>> where(i == j, np.inf, (i - j) ** 2).argmin(axis=1).ravel().tolist()
    [1, 0, 1, 2]

    Raises:
        ArrayTypeError: no operand is a lazy tensor, or the condition is complex.
        ShapeError, DTypeError, DimError: what does not join.
    """
    given = (condition, x, y)
    tensor: Any = next((x for x in given if isinstance(x, Tensor)), None)
    if tensor is None:
        raise ArrayTypeError(
            "where selects by lazy tensors", found=str([type(o).__name__ for o in given])
        )
    mask, *both = map(tensor._made, given)
    if mask.is_complex:
        raise ArrayTypeError("a condition cannot be complex", found=repr(mask), hint="z != 0")
    if any(tensor.is_complex for tensor in both):
        both = [tensor if tensor.is_complex else tensor.real2complex() for tensor in both]
        most = max(2 * mask.ndim, *(tensor.ndim for tensor in both))
        both = [t if t.ndim > 2 or most == 2 else t._apply("ComplexSumT", t, most) for t in both]
        if mask.ndim > 1:
            mask = mask._apply("Complex", mask, mask)
    return both[0]._apply("Where", mask, *both)


@brief
def Var(x_or_ind: Any, dim: int | None = None, cat: int | None = None) -> Any:
    """A variable: a symbol (position, dimension, category), or a lazy tensor of an array.

    >>> Var(0, 3, 1).shape
    (1, 1, 3)

    Raises:
        ArrayTypeError, ShapeError, OptionError, ArgumentError: what cannot be one.
    """
    if x_or_ind is None:
        check_kind(x_or_ind)
    if dim is None:
        return LazyTensor(x_or_ind, axis=cat)
    return LazyTensor((x_or_ind, dim, cat))


def Vi(x_or_ind: Any, dim: int | None = None) -> Any:
    """A variable indexed by i: of an array (M, D), or argument number `x_or_ind` of a later call.

    >>> import numpy as np
    >>> Vi(np.zeros((5, 3))).shape, Vi(0, 3).ndim
    ((5, 1, 3), 3)

    Raises:
        ArrayTypeError, ShapeError, OptionError, ArgumentError: what cannot be one.
    """
    return Var(x_or_ind, dim, 0)


def Vj(x_or_ind: Any, dim: int | None = None) -> Any:
    """A variable indexed by j: of an array (N, D), or argument number `x_or_ind` of a later call.

    >>> import numpy as np
    >>> Vj(np.zeros((5, 3))).shape
    (1, 5, 3)

    Raises:
        ArrayTypeError, ShapeError, OptionError, ArgumentError: what cannot be one.
    """
    return Var(x_or_ind, dim, 1)


def Pm(x_or_ind: Any, dim: int | None = None) -> Any:
    """A parameter: of a vector, a number or a list of them, or an argument of a later call.

    >>> Pm([1.0, 2.0]).ndim
    2

    Raises:
        ArrayTypeError, ShapeError, OptionError, ArgumentError: what cannot be one.
    """
    return Var(x_or_ind, dim, 2)
