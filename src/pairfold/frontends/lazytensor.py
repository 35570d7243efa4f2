"""LazyTensor for real numbers: operators, methods by the table of operations, reductions.

Methods come from the rows: every operation with a `method` name gets one here, with the row's
words as help. Written out below are those whose arguments need more than a row says.
"""

from __future__ import annotations

import inspect
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..errors import ArgumentError, ArrayTypeError, OptionError, ShapeError
from ..ops.table import OPERATIONS, Op, constant
from .lazy import (
    COMPLEX,
    Tensor,
    adapter_for,
    check_kind,
    number_leaf,
    plain_number,
    symbol_leaf,
)
from .reducing import Reducing


class LazyTensor(Reducing):
    """An array (..., M, N, D) that is a formula of arrays, computed only when it is reduced.

    Args:
        x: an array (..., M, 1, D), indexed by i; (..., 1, N, D), by j; (..., 1, 1, D), a parameter;
            with two axes, (M, D) and axis=0 or (N, D) and axis=1; a vector, a number or a list of
            numbers, a parameter; an int, a constant of the formula; a tuple (position, dim,
            category), an argument to be given later.
        axis: the index of an array with two axes.

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
        if cls is LazyTensor and (is_complex or _holds_complex(x)):
            from .complextensor import ComplexLazyTensor

            return ComplexLazyTensor(x, axis)
        return object.__new__(cls)

    def __init__(self, x: Any = None, axis: int | None = None, is_complex: bool = False) -> None:
        self._blank()
        if x is None:
            self.node = constant(0)
            return
        adapter = adapter_for(x)
        scalar = isinstance(x, np.generic)
        if adapter is not None and not scalar:
            self._set_array(x, adapter, axis, x)
        elif isinstance(x, tuple):
            if axis is not None:
                raise OptionError("a symbol tells its own category", found=f"axis={axis!r}")
            self._set_leaf(symbol_leaf(x))
        elif isinstance(x, (int, np.integer)) and not isinstance(x, bool):
            self.node = constant(int(x))
        elif plain_number(x) and axis in (None, 2):
            self._set_leaf(number_leaf([float(x)]))
        elif isinstance(x, list) and x and all(map(plain_number, x)) and axis in (None, 2):
            self._set_leaf(number_leaf([float(value) for value in x]))
        else:
            check_kind(x)

    # -- operands -------------------------------------------------------------------------------

    def lt_constructor(
        self, x: Any = None, axis: int | None = None, is_complex: bool = False
    ) -> Any:
        """A lazy tensor of x."""
        return LazyTensor(x, axis, is_complex)

    def _operand(self, x: Any) -> Any:
        """x as a lazy tensor."""
        return x if isinstance(x, Tensor) else LazyTensor(x)

    def _call(self, name: str, *operands: Any) -> Any:
        """An operation on lazy tensors or what becomes one, then parameters as they are."""
        arity = len(OPERATIONS[name].args)
        first = [self._operand(x) for x in operands[:arity]]
        if any(x.is_complex for x in first):
            raise ArrayTypeError(
                f"{name} is not defined for complex numbers", hint="z.real, z.imag or abs(z)"
            )
        return first[0]._apply(name, *first, *operands[arity:])

    # -- arithmetic -----------------------------------------------------------------------------

    def __add__(self, other: Any) -> Any:
        return self if is_number(other, 0) else self.addop(other)

    def __radd__(self, other: Any) -> Any:
        return self if is_number(other, 0) else self._operand(other).addop(self)

    def __sub__(self, other: Any) -> Any:
        return self if is_number(other, 0) else self.subop(other)

    def __rsub__(self, other: Any) -> Any:
        return -self if is_number(other, 0) else self._operand(other).subop(self)

    def __mul__(self, other: Any) -> Any:
        if is_number(other, 0):
            return 0
        if is_number(other, 1):
            return self
        return -self if is_number(other, -1) else self.mulop(other)

    def __rmul__(self, other: Any) -> Any:
        if is_number(other, 0) or is_number(other, 1) or is_number(other, -1):
            return self * other
        return self._operand(other).mulop(self)

    def __truediv__(self, other: Any) -> Any:
        return self if is_number(other, 1) else self.divop(other)

    def __rtruediv__(self, other: Any) -> Any:
        if is_number(other, 0):
            return 0
        return self._call("Inv", self) if is_number(other, 1) else self._operand(other).divop(self)

    def addop(self, other: Any, **options: Any) -> Any:
        """The sum; what `+` calls."""
        return self._binary("Add", other)

    def subop(self, other: Any, **options: Any) -> Any:
        """The difference; what `-` calls."""
        return self._binary("Subtract", other)

    def mulop(self, other: Any, **options: Any) -> Any:
        """The product; what `*` calls."""
        return self._binary("Mult", other)

    def divop(self, other: Any, **options: Any) -> Any:
        """The quotient; what `/` calls."""
        return self._binary("Divide", other)

    def _binary(self, name: str, other: Any) -> Any:
        other = self._operand(other)
        if other.is_complex:
            return other.binary_with_real(name, self, swapped=True)
        return self._call(name, self, other)

    def __or__(self, other: Any) -> Any:
        return self._call("Scalprod", self, other)

    def __ror__(self, other: Any) -> Any:
        return self._call("Scalprod", other, self)

    def __neg__(self) -> Any:
        return self._call("Minus", self)

    def __abs__(self) -> Any:
        return self._call("Abs", self)

    def __pow__(self, exponent: Any) -> Any:
        if isinstance(exponent, (int, np.integer)) and not isinstance(exponent, bool):
            if exponent == 2:
                return self._call("Square", self)
            return self if exponent == 1 else self._call("Pow", self, int(exponent))
        if plain_number(exponent) and abs(exponent) == 0.5:
            return self._call("Sqrt" if exponent > 0 else "Rsqrt", self)
        return self._call("Powf", self, exponent)

    def __rpow__(self, base: Any) -> Any:
        return self._call("Powf", base, self)

    def power(self, exponent: Any) -> Any:
        """The power, as `x ** exponent`."""
        return self**exponent

    # -- comparison -----------------------------------------------------------------------------

    def __eq__(self, other: Any) -> Any:  # type: ignore[override]
        return self._call("Equal", self, other)

    def __ne__(self, other: Any) -> Any:  # type: ignore[override]
        return self._call("NotEqual", self, other)

    def __lt__(self, other: Any) -> Any:
        return self._call("LessThan", self, other)

    def __le__(self, other: Any) -> Any:
        return self._call("LessOrEqual", self, other)

    def __gt__(self, other: Any) -> Any:
        return self._call("LessThan", other, self)

    def __ge__(self, other: Any) -> Any:
        return self._call("LessOrEqual", other, self)

    # -- components -----------------------------------------------------------------------------

    def __getitem__(self, key: Any) -> Any:
        found = component_index(key, self.nbatchdims + 2)
        if isinstance(found, slice):
            start, stop, step = found.start or 0, found.stop, found.step
            stop = self.ndim if stop is None else stop
            if step not in (None, 1) or not 0 <= start < stop <= self.ndim:
                raise ShapeError(
                    "a slice of components goes from start to stop, without step",
                    found=f"{found} of {self.ndim} components",
                    hint=f"0 <= start < stop <= {self.ndim}",
                )
            return self._call("Extract", self, start, stop - start)
        return self._call("Elem", self, found)

    def __iter__(self) -> Any:
        raise TypeError("a LazyTensor cannot be iterated over; x[k] is its component k")

    def __bool__(self) -> bool:
        return True

    @staticmethod
    def concatenate(tensors: Sequence[Any], axis: int = -1) -> Any:
        """The components of several tensors, one after the other (the last axis)."""
        parts = [LazyTensor(x) if not isinstance(x, Tensor) else x for x in tensors]
        if not parts:
            raise ArgumentError("nothing to concatenate")
        if axis not in (-1, parts[0].nbatchdims + 2):
            raise OptionError(
                "only the last axis, that of components, can be concatenated", found=f"axis={axis}"
            )
        found: Any = parts[0]
        for part in parts[1:]:
            found = found._call("Concat", found, part)
        return found

    @staticmethod
    def cat(tensors: Sequence[Any], dim: int = -1) -> Any:
        """`concatenate`, with torch's name for the axis."""
        return LazyTensor.concatenate(tensors, axis=dim)

    # -- methods that a row alone does not describe ---------------------------------------------

    def sinc(self) -> Any:
        """sin(pi x) / (pi x), 1 at 0."""
        return (self * math.pi)._call("SinXDivX", self * math.pi)

    def norm(self, dim: int = -1) -> Any:
        """The Euclidean norm over the components."""
        if dim not in (-1, self.nbatchdims + 2):
            raise OptionError("norm is over the last axis", found=f"dim={dim!r}", hint="dim=-1")
        return self._call("Norm2", self)

    def clamp(self, low: Any, high: Any) -> Any:
        """The values limited to the interval from low to high."""
        if all(isinstance(x, int) and not isinstance(x, bool) for x in (low, high)):
            return self._call("ClampInt", self, low, high)
        return self._call("Clamp", self, low, high)

    def round(self, d: int = 0) -> Any:
        """Rounded to d decimals, halves away from zero."""
        return self._call("Round", self, whole("d", d))

    def mod(self, modulus: Any, offset: Any = 0) -> Any:
        """self - modulus * floor((self - offset) / modulus)."""
        return self._call("Mod", self, modulus, offset)

    def bspline(self, x: Any, k: int = 0) -> Any:
        """B-splines of order k at x, this tensor being the knots."""
        return self._call("BSpline", self, x, whole("k", k))

    def one_hot(self, n: int) -> Any:
        """A vector of n components, 1 at the number that this scalar is, else 0."""
        return self._call("OneHot", self, whole("n", n))

    def elem(self, i: int) -> Any:
        """Component i."""
        return self._call("Elem", self, whole("i", i))

    def extract(self, i: int, d: int) -> Any:
        """Components i ... i+d-1."""
        return self._call("Extract", self, whole("i", i), whole("d", d))

    def weightedsqnorm(self, weights: Any) -> Any:
        """Squared norm with weights: a scalar, one per component, or a matrix, row by row."""
        return self._call("WeightedSqNorm", weights, self)

    def weightedsqdist(self, other: Any, weights: Any) -> Any:
        """Squared distance with weights, as in `weightedsqnorm`."""
        return (self - other).weightedsqnorm(weights)

    def softdtw_sqdist(self, other: Any, gamma: Any) -> Any:
        """Soft dynamic time warping of two series of numbers."""
        return self._call("SoftDTW_SqDist", self, other, gamma)

    def matvecmult(self, other: Any) -> Any:
        """This matrix, row by row, times a vector."""
        return self._call("MatVecMult", self, other)

    def vecmatmult(self, other: Any) -> Any:
        """This vector times a matrix, row by row."""
        return self._call("VecMatMult", self, other)

    def tensorprod(self, other: Any) -> Any:
        """All products of components."""
        return self._call("TensorProd", self, other)

    def keops_tensordot(
        self,
        other: Any,
        dimfa: Sequence[int],
        dimfb: Sequence[int],
        contfa: Sequence[int],
        contfb: Sequence[int],
        *permute: Any,
    ) -> Any:
        """Contraction of two tensors of these shapes over these axes."""
        lists = [tuple(int(n) for n in part) for part in (dimfa, dimfb, contfa, contfb)]
        order = [tuple(int(n) for n in part) for part in permute]
        return self._call("TensorDot", self, other, *lists, *order)

    def keops_kron(self, other: Any, dimfself: Sequence[int], dimfother: Sequence[int]) -> Any:
        """Kronecker product of two tensors of these shapes."""
        shapes = [tuple(int(n) for n in part) for part in (dimfself, dimfother)]
        return self._call("Kron", self, other, *shapes)

    def difference_matrix(self, other: Any) -> Any:
        """All differences between components of self and of other, row by row."""
        ones = [LazyTensor([1.0] * n) for n in (other.ndim, self.ndim)]
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

    def grad(self, v: Any, e: Any) -> Any:
        """The gradient with respect to the variable v, applied to e."""
        return self._call("Grad", self, v, e)

    def diff(self, v: Any, e: Any) -> Any:
        """The derivative when the variable v moves along e."""
        return self._call("Diff", self, v, e)

    def factorize(self, other: Any) -> Any:
        """The same formula: what occurs more than once is computed once anyway."""
        return self

    def auto_factorize(self) -> Any:
        """The same formula: what occurs more than once is computed once anyway."""
        return self

    def unary(
        self,
        operation: str,
        dimres: int | None = None,
        opt_arg: Any = None,
        opt_arg2: Any = None,
        is_complex: bool | None = None,
    ) -> Any:
        """Any operation of one operand, by its name, with its parameters."""
        parameters = [x for x in (opt_arg, opt_arg2) if x is not None]
        return self._call(operation, self, *parameters)

    def binary(
        self,
        other: Any,
        operation: str,
        is_operator: bool = False,
        dimres: int | None = None,
        dimcheck: str | None = "sameor1",
        opt_arg: Any = None,
        opt_pos: str = "last",
        rversion: bool = False,
        is_complex: bool | None = None,
    ) -> Any:
        """Any operation of two operands, by its name or its symbol."""
        name = _SYMBOLS.get(operation, operation)
        operands = (other, self) if rversion else (self, other)
        return self._call(name, *operands, *([] if opt_arg is None else [opt_arg]))

    def ternary(
        self,
        other1: Any,
        other2: Any,
        operation: str,
        dimres: int | None = None,
        dimcheck: str | None = "sameor1",
        opt_arg: Any = None,
    ) -> Any:
        """Any operation of three operands, by its name."""
        parameters = [] if opt_arg is None else [opt_arg]
        return self._call(operation, self, other1, other2, *parameters)


_SYMBOLS = {
    op.symbol.text: op.name
    for op in OPERATIONS.values()
    if op.symbol is not None and len(op.args) == 2
}


def _to_complex(x: Any, name: str) -> Any:
    """An operation from real numbers to complex ones."""
    from .complextensor import ComplexLazyTensor

    made = object.__new__(ComplexLazyTensor)
    made.__dict__.update(x._apply(name, x).__dict__)
    return made


def is_number(x: Any, value: int) -> bool:
    """Whether x is a plain number of this value."""
    return plain_number(x) and x == value


def whole(name: str, value: Any) -> int:
    """The value as a whole number.

    Raises:
        OptionError: it is none.
    """
    try:
        if isinstance(value, bool):
            raise TypeError
        return operator.index(value)
    except TypeError:
        raise OptionError(f"{name} must be a whole number", found=f"{name}={value!r}") from None


def _holds_complex(x: Any) -> bool:
    if isinstance(x, (complex, np.complexfloating)):
        return True
    if isinstance(x, list):
        return any(isinstance(value, (complex, np.complexfloating)) for value in x)
    adapter = adapter_for(x)
    return adapter is not None and adapter.dtype(x) in COMPLEX


def component_index(key: Any, last: int) -> Any:
    """The part of an index that concerns components; full slices stand before it.

    Raises:
        ShapeError: another axis is indexed, or by something else.
    """
    if not isinstance(key, tuple):
        found = key
    else:
        if len(key) != last + 1 or any(k != slice(None) for k in key[:-1]):
            raise ShapeError(
                "only the last axis, that of components, can be indexed",
                found=f"[{', '.join(map(str, key))}]",
                hint=f"x[{':, ' * last}k]",
            )
        found = key[-1]
    if isinstance(found, slice):
        return found
    if isinstance(found, bool) or not isinstance(found, (int, np.integer)):
        raise ShapeError(
            "components are indexed by a whole number or a slice", found=repr(found), hint="x[0]"
        )
    return int(found)


def _method(op: Op) -> Callable[..., Any]:
    """A method from a row: self is the first operand."""
    names = [*op.args[1:], *(param.name for param in op.params)]

    def method(self: Any, *operands: Any) -> Any:
        most = len(names)
        least = most - op.optional - sum(param.default is not None for param in op.params)
        if not least <= len(operands) <= most:
            raise ArgumentError(
                f"{op.method} takes {', '.join(names) or 'nothing'}",
                found=f"{len(operands)} arguments",
            )
        return self._call(op.name, self, *operands)

    method.__name__ = method.__qualname__ = str(op.method)
    method.__doc__ = f"{op.says}\n\nThe operation `{op.name}`. Derivative: {op.derivative}."
    parameter = inspect.Parameter
    method.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [parameter(name, parameter.POSITIONAL_ONLY) for name in ("self", *names)]
    )
    return method


for _op in OPERATIONS.values():
    if _op.method is not None and not hasattr(LazyTensor, _op.method):
        setattr(LazyTensor, _op.method, _method(_op))


def Var(x_or_ind: Any, dim: int | None = None, cat: int | None = None) -> Any:
    """A variable: a symbol (position, dimension, category), or a lazy tensor of an array.

    >>> Var(0, 3, 1).shape
    (1, 1, 3)

    Raises:
        ArrayTypeError, ShapeError, OptionError, ArgumentError: what cannot be one.
    """
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
