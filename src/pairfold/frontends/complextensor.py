"""ComplexLazyTensor: lazy tensors of complex numbers, real and imaginary parts in turn.

The graph of a vector of n complex numbers has dimension 2n. Real operands take part as complex
numbers without imaginary part. Functions follow from the real and imaginary parts, or from modulus
and angle, with the branches of NumPy; what has no complex meaning is refused.
"""

# What is no method here makes tensors, too.
# pyright: reportPrivateUsage=false

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from ..errors import ArrayTypeError, OptionError
from ..ops.table import OPERATIONS, constant
from ..ops.vectors import zero
from .given import numbers_in, plain_number
from .indexing import indexed
from .lazy import check_kind, check_last, number_leaf, symbol_leaf
from .lazytensor import LazyTensor, is_number, where
from .leaves import is_array
from .linearoperators import LinearOperator
from .methods import add_methods, add_refusals, whole
from .recording import record_calls
from .reducing import Reducing
from .typed import ComplexMethods, Result, complex_scaling

if TYPE_CHECKING:
    from typing_extensions import Self

    from .foreign import Lazy

_OF = {"float32": "complex64", "float64": "complex128"}
_REAL = {"ComplexReal", "ComplexImag", "ComplexAbs", "ComplexAngle", "ComplexSquareAbs"}
_ORDER = "complex numbers have no order"


class ComplexLazyTensor(Reducing, ComplexMethods):
    """An array (..., M, N, D) of complex numbers that is a formula of arrays.

    Takes what `LazyTensor` takes, with complex numbers.

    >>> import numpy as np
    >>> z = LazyTensor(np.array([[[1 + 2j]], [[3j]]]))
    >>> type(z).__name__, (z * z.conj()).real.sum(axis=1).tolist()
    ('ComplexLazyTensor', [[5.0], [9.0]])
    """

    is_complex = True

    def __init__(self, x: object = None, axis: int | None = None, is_complex: bool = True) -> None:
        self._blank()
        if x is None:
            self.node = OPERATIONS["Zero"](2)
            return
        if is_array(x) and not isinstance(x, np.generic):
            self._set_array(x, axis)
        elif isinstance(x, tuple) and axis is None:
            self._set_leaf(symbol_leaf(x, pairs=True))
        elif (isinstance(x, list) or _is_number(x)) and axis in (None, 2):
            found = numbers_in(x if isinstance(x, list) else [x], complex)
            if isinstance(found, list):
                self._set_leaf(number_leaf([part for v in found for part in (v.real, v.imag)]))
            else:
                self._set_array(found, None)
        else:
            check_kind(x)

    # -- sizes ----------------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, ...]:
        """(..., M, N, D) for D complex numbers, or (..., M, N) where D is 1."""
        found = (*self._shape[:-1], self.ndim // 2)
        return found[:-1] if found[-1] == 1 else found

    @property
    def dtype(self) -> str | None:
        """ "complex64" or "complex128", None where it follows from what is joined later."""
        return None if self.real_dtype is None else _OF.get(self.real_dtype, self.real_dtype)

    @classmethod
    def class_for(cls, is_complex: bool) -> type[Lazy]:
        """The class of results: of complex, or of real, numbers."""
        return ComplexLazyTensor if is_complex else LazyTensor

    # -- operands -------------------------------------------------------------------------------

    def _operand(self, x: object) -> ComplexLazyTensor:
        """x as a complex lazy tensor."""
        found = self._made(x)
        return found.real2complex() if isinstance(found, LazyTensor) else found

    def _call(self, name: str, *operands: object) -> Lazy:
        """An operation on complex numbers, then parameters as they are."""
        found = self._complex(name, *operands)
        return found._as_real() if name in _REAL else found

    def _complex(self, name: str, *operands: object) -> ComplexLazyTensor:
        """An operation whose results are complex."""
        arity = len(OPERATIONS[name].args)
        first = [self._operand(x) for x in operands[:arity]]
        return first[0]._apply(name, *first, *operands[arity:])

    def _real(self, name: str) -> LazyTensor:
        """An operation on this tensor whose results are real."""
        return self._complex(name, self)._as_real()

    def binary_with_real(self, name: str, other: LazyTensor, swapped: bool) -> ComplexLazyTensor:
        """The arithmetic of a real tensor and this one."""
        if name == "Mult":
            return self._binary(name, other)
        return self._complex(f"Complex{name}", *((other, self) if swapped else (self, other)))

    # -- arithmetic -----------------------------------------------------------------------------

    def _binary(self, name: str, other: object) -> ComplexLazyTensor:
        if name == "Mult":
            factor = self._made(other)
            if isinstance(factor, LazyTensor) and factor.ndim == 1:
                return self._like(OPERATIONS["ComplexRealScal"](factor.node, self.node), factor)
        return self._complex(f"Complex{name}", self, other)

    def __add__(self, other: object) -> ComplexLazyTensor:
        if isinstance(other, LinearOperator):
            return NotImplemented
        return self if is_number(other, 0) else self._binary("Add", other)

    def __radd__(self, other: object) -> ComplexLazyTensor:
        return self + other

    def __sub__(self, other: object) -> ComplexLazyTensor:
        if isinstance(other, LinearOperator):
            return NotImplemented
        return self if is_number(other, 0) else self._binary("Subtract", other)

    def __rsub__(self, other: object) -> ComplexLazyTensor:
        return -self if is_number(other, 0) else self._complex("ComplexSubtract", other, self)

    @complex_scaling
    def __mul__(self, other: object) -> ComplexLazyTensor | int:
        if is_number(other, 0):
            return 0
        return self if is_number(other, 1) else self._binary("Mult", other)

    @complex_scaling
    def __rmul__(self, other: object) -> ComplexLazyTensor | int:
        return self * other

    def __truediv__(self, other: object) -> ComplexLazyTensor:
        return self if is_number(other, 1) else self._binary("Divide", other)

    @complex_scaling
    def __rtruediv__(self, other: object) -> ComplexLazyTensor | int:
        return 0 if is_number(other, 0) else self._complex("ComplexDivide", other, self)

    def __neg__(self) -> Self:
        return self._apply("Minus", self)

    def __abs__(self) -> LazyTensor:
        return self._real("ComplexAbs")

    def __pow__(self, exponent: object) -> ComplexLazyTensor:
        if plain_number(exponent) and float(exponent).is_integer() and abs(exponent) < 2**31:
            return self._whole_power(int(exponent))
        if plain_number(exponent) and abs(exponent) == 0.5:
            return self.sqrt() if exponent > 0 else self.rsqrt()
        power = self._made(exponent)
        if not isinstance(power, LazyTensor):
            return (self.log() * power).exp()
        return polar(abs(self) ** power, self.angle() * power)

    def __rpow__(self, base: object) -> ComplexLazyTensor:
        return self._operand(base) ** self

    def power(self, other: object) -> ComplexLazyTensor:
        """The power, as `z ** other`: e^(other log z), by multiplications for whole numbers."""
        return self**other

    pow = power

    def _whole_power(self, power: int) -> ComplexLazyTensor:
        """A whole power, by multiplications."""
        if power < 0:
            return 1 / self._whole_power(-power)
        if not power:
            ones = OPERATIONS["SumT"](constant(1), self.ndim // 2)
            return self._like(OPERATIONS["Complex"](ones, zero(ones.dim)))
        result: ComplexLazyTensor | None = None
        factor: ComplexLazyTensor = self
        while power:
            if power & 1:
                result = factor if result is None else result * factor
            power >>= 1
            factor = factor * factor if power else factor
        assert result is not None
        return result

    # -- comparison -----------------------------------------------------------------------------

    def __eq__(self, other: object) -> LazyTensor:  # type: ignore[override]
        given = self._operand(other)
        return (self.real == given.real) * (self.imag == given.imag)

    def __ne__(self, other: object) -> LazyTensor:  # type: ignore[override]
        return 1 - (self == other)

    def _unordered(self, other: object) -> NoReturn:
        raise ArrayTypeError(_ORDER, found=repr(self), hint="compare abs(z), z.real or z.imag")

    __lt__ = __le__ = __gt__ = __ge__ = _unordered

    def _no_product(self, other: object) -> NoReturn:
        raise ArrayTypeError(
            "z | w could conjugate z or not, so it is not defined for complex numbers",
            found=repr(self),
            hint="(z.conj() * w).sum(-1) or (z * w).sum(-1)",
        )

    __or__ = __ror__ = _no_product

    def where(self, condition: object, other: object) -> Lazy:
        """The numbers where a condition is not 0, else those of `other`; as torch's method."""
        return where(condition, self, other)

    # -- parts ----------------------------------------------------------------------------------

    @property
    def real(self) -> LazyTensor:
        """The real parts."""
        return self._real("ComplexReal")

    @property
    def imag(self) -> LazyTensor:
        """The imaginary parts."""
        return self._real("ComplexImag")

    def elem(self, i: int) -> Self:
        """Complex number i of the vector."""
        return self[whole("i", i)]

    def extract(self, i: int, d: int) -> Self:
        """Complex numbers i ... i+d-1 of the vector."""
        return self[whole("i", i) : i + whole("d", d)]

    def __getitem__(self, key: object) -> Self:
        """Complex numbers of the vectors, rows and columns, as of a `LazyTensor`.

        Raises:
            ShapeError, UnsupportedError, ArgumentError: what cannot be chosen.
        """
        return indexed(self, key)

    def __iter__(self) -> NoReturn:
        raise TypeError("a LazyTensor cannot be iterated over; z[k] is its number k")

    def concat(self, other: object) -> ComplexLazyTensor:
        """The numbers of this vector followed by those of another."""
        return self._complex("Concat", self, other)

    # -- functions ------------------------------------------------------------------------------

    def log(self) -> ComplexLazyTensor:
        """The logarithm, with imaginary part between -pi and pi."""
        return joined(abs(self).log(), self.angle())

    def sqrt(self) -> ComplexLazyTensor:
        """The square root with non-negative real part."""
        return polar(abs(self).sqrt(), self.angle() * 0.5)

    def rsqrt(self) -> ComplexLazyTensor:
        """One over the square root."""
        return polar(abs(self).rsqrt(), self.angle() * -0.5)

    def square(self) -> ComplexLazyTensor:
        """The square."""
        return self * self

    def inv(self) -> ComplexLazyTensor:
        """The inverse."""
        return 1 / self

    def cos(self) -> ComplexLazyTensor:
        """The cosine."""
        x, y = self.real, self.imag
        return joined(x.cos() * y.cosh(), -x.sin() * y.sinh())

    def sin(self) -> ComplexLazyTensor:
        """The sine."""
        x, y = self.real, self.imag
        return joined(x.sin() * y.cosh(), x.cos() * y.sinh())

    def tanh(self) -> ComplexLazyTensor:
        """The hyperbolic tangent."""
        t, y = self.real.tanh(), self.imag
        return joined(t * y.cos(), y.sin()) / joined(y.cos(), t * y.sin())

    def sqnorm2(self) -> LazyTensor:
        """The sum of the squared moduli."""
        return self._real("ComplexSquareAbs").sum(-1)

    def norm2(self) -> LazyTensor:
        """The Euclidean norm."""
        return self.sqnorm2().sqrt()

    def norm(self, dim: int | None = -1, axis: int | None = None) -> LazyTensor:
        """The Euclidean norm over the components."""
        check_last(self, dim if axis is None else axis)
        return self.norm2()

    def normalize(self) -> ComplexLazyTensor:
        """The vector divided by its norm."""
        return self * self.sqnorm2().rsqrt()

    def sqdist(self, other: object) -> LazyTensor:
        """The squared distance: the sum of the squared moduli of the differences."""
        return (self - other).sqnorm2()

    # -- reductions -----------------------------------------------------------------------------

    def _over_components(self, name: str) -> ComplexLazyTensor:
        if name != "Sum":
            raise ArrayTypeError(f"{name}: {_ORDER}", hint="of abs(z), z.real or z.imag")
        return self._complex("ComplexSum", self)

    def reduction(self, reduction_op: str, *args: Any, **options: Any) -> Result:
        """A reduction over i or j: "Sum" or "Mean".

        Raises:
            OptionError: another one.
        """
        if reduction_op not in ("Sum", "Mean"):
            raise OptionError(
                f"{reduction_op} is not defined for complex numbers: Sum and Mean are",
                hint="a reduction of abs(z), z.real or z.imag",
            )
        return super().reduction(reduction_op, *args, **options)


def joined(x: LazyTensor, y: LazyTensor) -> ComplexLazyTensor:
    """The complex tensor of real and imaginary parts."""
    return x._apply("Complex", x, y)._as_complex()


def polar(size: LazyTensor, angle: LazyTensor) -> ComplexLazyTensor:
    """The complex tensor of moduli and angles."""
    return joined(size * angle.cos(), size * angle.sin())


def _is_number(x: object) -> bool:
    return plain_number(x) or isinstance(x, (complex, np.complexfloating))


add_methods(ComplexLazyTensor, for_complex=True)
record_calls(ComplexLazyTensor)
add_refusals(
    ComplexLazyTensor,
    {name for name in dir(LazyTensor) if name[0] != "_"} - set(dir(ComplexLazyTensor)),
    "is not defined for complex numbers",
    "z.real, z.imag, abs(z) and z.angle() are real",
)
