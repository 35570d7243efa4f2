"""LazyTensor for real numbers: operators, methods by the table of operations, reductions.

Methods come from the rows: every operation with a `method` name gets one (`methods.py`). Written
out below are those whose arguments need more than a row says.
"""

# What is no method here makes tensors, too.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal, NoReturn, cast, overload

import numpy as np

from ..arrays.library import COMPLEX
from ..arrays.opaque import traced_as
from ..calculus.substitute import substitute
from ..core.node import Node, topological
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
from ..ops.vectors import is_whole, zero
from .foreign import LAZY
from .given import numbers_in, plain_number
from .indexing import indexed
from .lazy import (
    Tensor,
    check_kind,
    check_last,
    number_leaf,
    symbol_leaf,
)
from .leaves import Leaf, alike, is_array, library_from
from .linearoperators import LinearOperator
from .methods import add_methods, whole
from .recording import record_calls, recorded_as
from .reducing import COMPONENTS, Reducing
from .softmax import SoftMax
from .summaries import Summaries
from .tables import Tabled
from .typed import RealMethods, binary, scaling

if TYPE_CHECKING:
    from typing_extensions import Self

    from ..core.library import Array
    from .complextensor import ComplexLazyTensor
    from .foreign import Lazy

# Operations whose second operand is a variable.
_OF_VARIABLES = {
    *("Grad", "Diff", "GradMatrix", "Divergence", "Laplacian"),
    *("TraceOperator", "AdjointOperator", "SumLinOperator"),
}


class LazyTensor(Summaries, RealMethods):
    """An array (..., M, N, D) that is a formula of arrays, computed only when it is reduced.

    Args:
        x: an array (..., M, 1, D), indexed by i; (..., 1, N, D), by j; (..., M, N, D), by both;
            (..., 1, 1, D), a parameter; with two axes, (M, D) and axis=0 or (N, D) and axis=1; a
            vector, a number or a list of numbers, a parameter; an int, a constant of the formula; a
            tuple (position, dim, category), an argument to be given later.
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

    @overload
    def __new__(
        cls, x: object = None, axis: int | None = None, is_complex: Literal[False] = False
    ) -> Self: ...
    @overload
    def __new__(cls, x: object, axis: int | None = None, is_complex: bool = False) -> Lazy: ...
    def __new__(cls, x: object = None, axis: int | None = None, is_complex: bool = False) -> Lazy:
        """A ComplexLazyTensor where x holds complex numbers."""
        if (is_complex or _holds_complex(x)) and cls is cls.class_for(False):
            return cls.class_for(True)(x, axis, True)
        return object.__new__(cls)

    def __init__(self, x: object = None, axis: int | None = None, is_complex: bool = False) -> None:
        self._blank()
        if x is None:
            self.node = constant(0)
            return
        if is_array(x) and not isinstance(x, np.generic):
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
    def class_for(cls, is_complex: bool) -> type[Lazy]:
        """The class of results: of complex, or of real, numbers."""
        if not is_complex:
            return LazyTensor
        from .complextensor import ComplexLazyTensor

        return ComplexLazyTensor

    # -- operands -------------------------------------------------------------------------------

    def _operand(self, x: object) -> Lazy:
        if isinstance(x, LAZY):
            return x
        if self.ndim == 1 and self.ni and self.nj:
            self._check_vector(*getattr(x, "shape", ()))
        if isinstance(x, int) and is_whole(self.node):
            from .masks import whole_number

            return whole_number(x)
        return self._made(x)

    def _check_vector(self, *shape: int) -> None:
        """Raise where a vector beside scalars is more likely one number for each row or column.

        Raises:
            ShapeError: it has as many numbers as there are rows or columns.
        """
        size = shape[0] if len(shape) == 1 else 0
        if size > 1 and size in (self.ni, self.nj):
            kind, name = ("Vj", "columns") if size == self.nj else ("Vi", "rows")
            raise ShapeError(
                f"a vector of {size} numbers beside a matrix of {size} {name}",
                found=f"shapes {(size,)} and {self.shape}",
                hint=f"{kind}(w[:, None]) for one number for each of the {name}; "
                f"Pm(w) for a parameter of {size} components",
            )

    def _call(self, name: str, *operands: object) -> LazyTensor:
        """An operation on lazy tensors or what becomes one, then parameters as they are."""
        try:
            row = OPERATIONS[name]
            arity = len(operands) - len(row.params)
            first = [x for x in map(self._operand, operands[:arity]) if isinstance(x, LazyTensor)]
            if len(first) < arity:
                raise ArrayTypeError(
                    f"{name} is not defined for complex numbers", hint="z.real, z.imag or abs(z)"
                )
            if name in _OF_VARIABLES:
                first[0], first[1] = _aligned(first[0], first[1])
            return first[0]._apply(name, *first, *operands[arity:])
        except PairfoldError as error:
            raise shortened(error)  # noqa: B904

    # -- arithmetic -----------------------------------------------------------------------------

    @binary
    def __add__(self, other: object) -> Lazy:
        if isinstance(other, LinearOperator):
            return NotImplemented
        return self if is_number(other, 0) else self._binary("Add", other)

    @binary
    def __radd__(self, other: object) -> Lazy:
        return self if is_number(other, 0) else self._operand(other)._binary("Add", self)

    @binary
    def __sub__(self, other: object) -> Lazy:
        if isinstance(other, LinearOperator):
            return NotImplemented
        return self if is_number(other, 0) else self._binary("Subtract", other)

    @binary
    def __rsub__(self, other: object) -> Lazy:
        return -self if is_number(other, 0) else self._operand(other)._binary("Subtract", self)

    @scaling
    def __mul__(self, other: object) -> Lazy | int:
        if isinstance(other, SoftMax):
            return NotImplemented
        if is_number(other, 0):
            return 0
        if is_number(other, 1):
            return self
        return -self if is_number(other, -1) else self._binary("Mult", other)

    @scaling
    def __rmul__(self, other: object) -> Lazy | int:
        if is_number(other, 0) or is_number(other, 1) or is_number(other, -1):
            return self * other
        return self._operand(other)._binary("Mult", self)

    @binary
    def __truediv__(self, other: object) -> Lazy:
        return self if is_number(other, 1) else self._binary("Divide", other)

    @scaling
    def __rtruediv__(self, other: object) -> Lazy | int:
        if is_number(other, 0):
            return 0
        return (
            self._call("Inv", self)
            if is_number(other, 1)
            else self._operand(other)._binary("Divide", self)
        )

    def _binary(self, name: str, other: object) -> Lazy:
        given = self._operand(other)
        if not isinstance(given, LazyTensor):
            return given.binary_with_real(name, self, swapped=True)
        if name == "Mult":
            _check_infinite(self, given)
            _check_infinite(given, self)
        return self._call(name, self, given)

    def __or__(self, other: object) -> LazyTensor:
        """The scalar product; of two truth values, whether one of them holds."""
        if not (is_truth(self.node) and isinstance(other, LazyTensor) and is_truth(other.node)):
            return self._call("Scalprod", self, other)
        if self.ndim > 1 or other.ndim > 1:
            raise ArrayTypeError(
                "x | y is a scalar product, and of vectors of truth values it could mean or",
                found=f"{self!r} | {other!r}",
                hint="x.logical_or(y) for or, (x * y).sum(-1) for how many components hold in both",
            )
        return self._call("LogicalOr", self, other)

    def __ror__(self, other: object) -> LazyTensor:
        return self._call("Scalprod", other, self)

    def __neg__(self) -> LazyTensor:
        return self._call("Minus", self)

    def __pos__(self) -> Self:
        return self

    def __mod__(self, other: object) -> LazyTensor:
        return self.mod(other)

    def __rmod__(self, other: object) -> LazyTensor:
        return self._call("Mod", other, self, 0)

    def __floordiv__(self, other: object) -> LazyTensor:
        return self._call("Floor", self._binary("Divide", other))

    def __rfloordiv__(self, other: object) -> LazyTensor:
        return self._call("Floor", self._operand(other)._binary("Divide", self))

    def __abs__(self) -> LazyTensor:
        return self._call("Abs", self)

    @binary
    def __pow__(self, exponent: object) -> Lazy:
        if isinstance(exponent, (int, np.integer)) and not isinstance(exponent, bool):
            if exponent == 2:
                return self._call("Square", self)
            return self if exponent == 1 else self._call("Pow", self, int(exponent))
        if plain_number(exponent) and abs(exponent) == 0.5:
            return self._call("Sqrt" if exponent > 0 else "Rsqrt", self)
        power = self._operand(exponent)
        return self.powf(power) if isinstance(power, LazyTensor) else self.real2complex() ** power

    @binary
    def __rpow__(self, base: object) -> Lazy:
        return self._operand(base) ** self

    @binary
    def power(self, other: object) -> Lazy:
        """The power, as `x ** other`."""
        return self**other

    pow = power

    # -- comparison -----------------------------------------------------------------------------

    @binary
    def __eq__(self, other: object) -> Lazy:  # type: ignore[override]
        given = self._operand(other)
        return given == self if given.is_complex else self._call("Equal", self, given)

    @binary
    def __ne__(self, other: object) -> Lazy:  # type: ignore[override]
        given = self._operand(other)
        return given != self if given.is_complex else self._call("NotEqual", self, given)

    def __lt__(self, other: object) -> LazyTensor:
        return self._call("LessThan", self, other)

    def __le__(self, other: object) -> LazyTensor:
        return self._call("LessOrEqual", self, other)

    def __gt__(self, other: object) -> LazyTensor:
        return self._call("LessThan", other, self)

    def __ge__(self, other: object) -> LazyTensor:
        return self._call("LessOrEqual", other, self)

    # -- truth values ---------------------------------------------------------------------------

    def __and__(self, other: object) -> LazyTensor:
        """Whether two truth values hold: their product."""
        both = _truth(self, "&"), _truth(self._operand(other), "&")
        return self._call("LogicalAnd", *both)

    def __rand__(self, other: object) -> LazyTensor:
        return self & other

    def __invert__(self) -> LazyTensor:
        """Whether a truth value does not hold: 1 minus it."""
        return self._call("LogicalNot", _truth(self, "~"))

    @overload
    def where(self, condition: object, other: LazyTensor | float) -> LazyTensor: ...
    @overload
    def where(self, condition: object, other: object) -> Lazy: ...
    def where(self, condition: object, other: object) -> Lazy:
        """The values where a condition is not 0, else those of `other`; as torch's method."""
        return where(condition, self, other)

    # -- components -----------------------------------------------------------------------------

    def __getitem__(self, key: object) -> Self:
        """Components, x[k], x[1:3], x[-1]; rows of one number for each pair, K[10:20]; by a tuple,
        K[:, columns], x[..., k], parts of the axes of `shape`.

        Raises:
            ShapeError, UnsupportedError, ArgumentError: what cannot be chosen.
        """
        return indexed(self, key)

    def __iter__(self) -> NoReturn:
        raise TypeError("a LazyTensor cannot be iterated over; x[k] is its component k")

    # -- methods that a row alone does not describe ---------------------------------------------

    def sinc(self) -> LazyTensor:
        """sin(pi x) / (pi x), 1 at 0."""
        return (self * math.pi)._call("SinXDivX", self * math.pi)

    def norm(self, dim: int | None = COMPONENTS, axis: int | None = None) -> Self:
        """The Euclidean norm over the components."""
        dim = dim if axis is None else axis
        check_last(self, dim)
        self._check_components(dim, "norm")
        return self.norm2()

    def clamp(
        self,
        other1: object = None,
        other2: object = None,
        *,
        min: object = None,
        max: object = None,
    ) -> LazyTensor:
        """The values limited to the interval from other1 to other2; either may be left out.

        Args:
            other1, min: the lower limit; two names of one argument.
            other2, max: the upper limit, likewise.

        Raises:
            OptionError: no limit, or one that is given twice.
        """
        low, high = _limit("min", other1, min), _limit("max", other2, max)
        if low is None and high is None:
            raise OptionError("clamp needs a limit", hint="x.clamp(min=0), x.clamp(0, 1)")
        low, high = -math.inf if low is None else low, math.inf if high is None else high
        if all(isinstance(x, int) and not isinstance(x, bool) for x in (low, high)):
            return self._call("ClampInt", self, low, high)
        return self._call("Clamp", self, low, high)

    clip = clamp

    def round(self, other: int = 0) -> LazyTensor:
        """Rounded to this many decimals, halves away from zero."""
        return self._call("Round", self, whole("other", other))

    def mod(self, modulus: object, offset: object = 0) -> LazyTensor:
        """self - modulus * floor((self - offset) / modulus)."""
        return self._call("Mod", self, modulus, offset)

    def bspline(self, x: object, k: int = 0) -> LazyTensor:
        """B-splines of order k at x, this tensor being the knots."""
        return self._call("BSpline", self, x, whole("k", k))

    def weightedsqnorm(self, other: object) -> LazyTensor:
        """Squared norm with weights: a scalar, one per component, or a matrix, row by row."""
        return self._call("WeightedSqNorm", other, self)

    def weightedsqdist(self, g: object, s: object) -> LazyTensor:
        """Squared distance to g with weights s, as in `weightedsqnorm`."""
        return (self - g).weightedsqnorm(s)

    def difference_matrix(self, other: object) -> LazyTensor:
        """All differences between components of self and of other, row by row."""
        given = self._operand(other)
        ones = [self._made([1.0] * n) for n in (given.ndim, self.ndim)]
        return self.tensorprod(ones[0]) - self._call("TensorProd", ones[1], given)

    def real2complex(self) -> ComplexLazyTensor:
        """Real numbers as complex ones."""
        return _to_complex(self, "Real2Complex")

    def imag2complex(self) -> ComplexLazyTensor:
        """Real numbers as imaginary ones."""
        return _to_complex(self, "Imag2Complex")

    def exp1j(self) -> ComplexLazyTensor:
        """The points e^(ix) of the unit circle, for real x."""
        return _to_complex(self, "ComplexExp1j")

    @property
    def real(self) -> Self:
        """The tensor itself, whose numbers are real."""
        return self

    @property
    def imag(self) -> Self:
        """Zeros, the tensor's numbers being real."""
        return self._like(zero(self.ndim))

    def conj(self) -> Self:
        """The tensor itself, whose numbers are real."""
        return self

    def angle(self) -> LazyTensor:
        """0 for positive numbers, pi for negative ones."""
        return (self < 0) * math.pi

    def trace_operator(self, var: Tensor, w: object = None) -> LazyTensor:
        """The trace of this formula, which is linear in the variable `var`; w weighs the diagonal.

        `var`, where it is a symbol, is not an argument of the result.
        """
        return self._without(var, "TraceOperator", *(() if w is None else (w,)))

    def adjoint_operator(self, var: Tensor, u: object) -> LazyTensor:
        """The adjoint of this formula, which is linear in the variable `var`, applied to u.

        `var`, where it is a symbol, is not an argument of the result.
        """
        return self._without(var, "AdjointOperator", u)

    def sum_lin_operator(self, var: Tensor, wl: object = None, wr: object = None) -> LazyTensor:
        """The sum of the entries of this formula's matrix: it is linear in the variable `var`.

        `wl` weighs its rows, `wr` its columns; `var`, where it is a symbol, is not an argument of
        the result.
        """
        weights = () if wl is None and wr is None else (1 if wl is None else wl,)
        return self._without(var, "SumLinOperator", *weights, *(() if wr is None else (wr,)))

    def _without(self, var: Tensor, name: str, *operands: object) -> LazyTensor:
        """An operation whose result does not depend on the variable that it is told."""
        found = self._call(name, self, var, *operands)
        used = topological([found.node])
        dropped = {leaf.key for leaf in var.leaves if leaf.symbol is not None}
        kept = (x for x in found.leaves if x.key not in dropped or x.node in used)
        found.leaves = tuple(kept)
        return found


def _limit(name: str, first: object, named: object) -> object:
    """A limit that has two names.

    Raises:
        OptionError: it was given by both.
    """
    if first is not None and named is not None:
        raise OptionError(f"{name} is given twice", found=f"{first!r} and {name}={named!r}")
    return named if first is None else first


def _truth(x: Lazy, symbol: str) -> LazyTensor:
    """The tensor, where it is a truth value."""
    if not isinstance(x, LazyTensor) or not is_truth(x.node):
        raise ArrayTypeError(
            f"{symbol} is for truth values: comparisons, and what is made of them",
            found=repr(x),
            hint="(x > 0) & (y > 0), ~(x > 0)",
        )
    return x


def _check_infinite(truth: LazyTensor, factor: LazyTensor) -> None:
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


def _aligned(f: LazyTensor, v: LazyTensor) -> tuple[LazyTensor, LazyTensor]:
    """A formula and variables of it, in which each argument has one node.

    Variables that are made of one array, several times, are one variable.
    """
    moved: dict[Node, Node] = {}
    leaves: dict[Leaf, Leaf] = {leaf: leaf for leaf in v.leaves}
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


def _to_complex(x: LazyTensor, name: str) -> ComplexLazyTensor:
    """An operation from real numbers to complex ones."""
    return x._apply(name, x)._as_complex()


def is_number(x: object, value: int) -> bool:
    """Whether x is a plain number of this value."""
    return plain_number(x) and x == value


def _shows_complex(x: object) -> bool:
    """What `_holds_complex` says, as torch.compile sees it: of tensors and plain numbers."""
    if isinstance(x, (list, complex)):
        return isinstance(x, complex) or any(isinstance(part, complex) for part in x)
    return getattr(getattr(x, "dtype", None), "is_complex", False)


@traced_as(_shows_complex)
def _holds_complex(x: object) -> bool:
    if isinstance(x, (complex, np.complexfloating)):
        return True
    if isinstance(x, list):
        return any(map(_holds_complex, x))
    return is_array(x) and library_from(x).dtype(x) in COMPLEX


add_methods(LazyTensor, for_complex=False)
for _class in (Tensor, Tabled, Reducing, Summaries, LazyTensor):
    record_calls(_class)


@overload
def where(condition: object, x: LazyTensor | float, y: LazyTensor | float) -> LazyTensor: ...
@overload
def where(condition: object, x: object, y: object) -> Lazy: ...
@recorded_as("where")
def where(condition: object, x: object, y: object) -> Lazy:
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
    tensor = next((x for x in given if isinstance(x, LAZY)), None)
    if tensor is None:
        raise ArrayTypeError(
            "where selects by lazy tensors", found=str([type(o).__name__ for o in given])
        )
    mask, *both = map(tensor._made, given)
    if mask.is_complex:
        raise ArrayTypeError("a condition cannot be complex", found=repr(mask), hint="z != 0")
    if any(tensor.is_complex for tensor in both):
        both = [t.real2complex() if isinstance(t, LazyTensor) else t for t in both]
        most = max(2 * mask.ndim, *(tensor.ndim for tensor in both))
        both = [t if t.ndim > 2 or most == 2 else t._apply("ComplexSumT", t, most) for t in both]
        if mask.ndim > 1:
            mask = mask._apply("Complex", mask, mask)
    return both[0]._apply("Where", mask, *both)


@brief
def Var(x_or_ind: object, dim: int | None = None, cat: int | None = None) -> LazyTensor:
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


def Vi(x_or_ind: object, dim: int | None = None) -> LazyTensor:
    """A variable indexed by i: of an array (M, D), or argument number `x_or_ind` of a later call.

    >>> import numpy as np
    >>> Vi(np.zeros((5, 3))).shape, Vi(0, 3).ndim
    ((5, 1, 3), 3)

    Raises:
        ArrayTypeError, ShapeError, OptionError, ArgumentError: what cannot be one.
    """
    return Var(x_or_ind, dim, 0)


def Vj(x_or_ind: object, dim: int | None = None) -> LazyTensor:
    """A variable indexed by j: of an array (N, D), or argument number `x_or_ind` of a later call.

    >>> import numpy as np
    >>> Vj(np.zeros((5, 3))).shape
    (1, 5, 3)

    Raises:
        ArrayTypeError, ShapeError, OptionError, ArgumentError: what cannot be one.
    """
    return Var(x_or_ind, dim, 1)


def Pm(x_or_ind: object, dim: int | None = None) -> LazyTensor:
    """A parameter: of a vector, a number or a list of them, or an argument of a later call.

    >>> Pm([1.0, 2.0]).ndim
    2

    Raises:
        ArrayTypeError, ShapeError, OptionError, ArgumentError: what cannot be one.
    """
    return Var(x_or_ind, dim, 2)


def Vij(x_or_ind: object, dim: int | None = None) -> LazyTensor:
    """A variable of pairs: of an array (..., M, N, D) or (M, N), or an argument of a later call.

    It is read where pairs need it, and never copied as a whole.

    >>> import numpy as np
    >>> bias = np.array([[0.0, 1.0], [2.0, 3.0]])
    >>> x = np.array([[1.0], [2.0]])
    >>> (Vij(bias) * Vj(x)).sum(axis=1).tolist()
    [[2.0], [8.0]]

    Raises:
        ArrayTypeError, ShapeError, ArgumentError: what cannot be one.
    """
    if dim is not None:
        return Var(x_or_ind, dim, 3)
    axes = len(getattr(x_or_ind, "shape", ()))
    if axes < 2:
        if not is_array(x_or_ind):
            check_kind(x_or_ind)
        raise ShapeError(
            "an array of pairs has shape (..., M, N, D) or (M, N)",
            found=f"{axes} axes",
            hint="Vi(x) or Vj(x) for one number for each row",
        )
    return LazyTensor(cast("Array", x_or_ind)[:, :, None] if axes == 2 else x_or_ind)
