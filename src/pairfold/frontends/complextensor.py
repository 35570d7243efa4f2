"""ComplexLazyTensor: lazy tensors of complex numbers, real and imaginary parts in turn.

The graph of a vector of n complex numbers has dimension 2n. Real operands take part as complex
numbers without imaginary part; what has no complex meaning is refused.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from ..errors import ArrayTypeError, DerivativeError
from ..ops.table import OPERATIONS
from .lazy import COMPLEX, Tensor, adapter_for, number_leaf
from .lazytensor import LazyTensor, is_number, whole
from .reducing import Reducing

_OF = {"float32": "complex64", "float64": "complex128"}


class ComplexLazyTensor(Reducing):
    """An array (..., M, N, D) of complex numbers that is a formula of arrays.

    Takes what `LazyTensor` takes, with complex numbers.

    >>> import numpy as np
    >>> z = LazyTensor(np.array([[[1 + 2j]], [[3j]]]))
    >>> type(z).__name__, (z * z.conj()).real.sum(axis=1).tolist()
    ('ComplexLazyTensor', [[5.0], [9.0]])
    """

    is_complex = True

    def __init__(self, x: Any = None, axis: int | None = None, is_complex: bool = True) -> None:
        self._blank()
        adapter = adapter_for(x)
        if x is None:
            self.node = OPERATIONS["Zero"](2)
        elif adapter is not None and not isinstance(x, np.generic):
            self._set_array(_parts(x, adapter), adapter, axis, x)
        else:
            values = x if isinstance(x, list) else [x]
            pairs = [part for v in values for part in (complex(v).real, complex(v).imag)]
            self._set_leaf(number_leaf(pairs))

    # -- sizes ----------------------------------------------------------------------------------

    @property
    def _shape(self) -> tuple[int, ...]:
        return (*self.batch, self.ni or 1, self.nj or 1, self.ndim)

    @property
    def shape(self) -> tuple[int, ...]:
        """(..., M, N, D) for D complex numbers, or (..., M, N) where D is 1."""
        found = (*self._shape[:-1], self.ndim // 2)
        return found[:-1] if found[-1] == 1 else found

    @property
    def dtype(self) -> str | None:
        """ "complex64" or "complex128", None where it follows from what is joined later."""
        return None if self.real_dtype is None else _OF.get(self.real_dtype, self.real_dtype)

    # -- operands -------------------------------------------------------------------------------

    def lt_constructor(
        self, x: Any = None, axis: int | None = None, is_complex: bool = False
    ) -> Any:
        """A lazy tensor of x."""
        return LazyTensor(x, axis, is_complex)

    def _operand(self, x: Any) -> Any:
        """x as a complex lazy tensor."""
        found: Any = x if isinstance(x, Tensor) else LazyTensor(x)
        return found if found.is_complex else found.real2complex()

    def _call(self, name: str, *operands: Any) -> Any:
        """An operation from complex numbers to complex numbers."""
        arity = len(OPERATIONS[name].args)
        first = [self._operand(x) for x in operands[:arity]]
        return first[0]._apply(name, *first, *operands[arity:])

    def _real(self, name: str) -> Any:
        """An operation from complex numbers to real ones."""
        found = self._apply(name, self)
        real = object.__new__(LazyTensor)
        real.__dict__.update(found.__dict__)
        return real

    def binary_with_real(self, name: str, other: Any, swapped: bool) -> Any:
        """The arithmetic of a real tensor and this one."""
        real = other.real2complex() if isinstance(other, LazyTensor) else self._operand(other)
        pair = (real, self) if swapped else (self, real)
        return self._call(f"Complex{name}", *pair)

    # -- arithmetic -----------------------------------------------------------------------------

    def _binary(self, name: str, other: Any) -> Any:
        scalar = not isinstance(other, Tensor) or not other.is_complex
        if name == "Mult" and scalar:
            other = other if isinstance(other, Tensor) else LazyTensor(other)
            if not other.is_complex and other.ndim == 1:
                return self._like_complex(OPERATIONS["ComplexRealScal"], other)
        return self._call(f"Complex{name}", self, other)

    def _like_complex(self, op: Any, real: Any) -> Any:
        return self._like(op(real.node, self.node), real)

    def __add__(self, other: Any) -> Any:
        return self if is_number(other, 0) else self._binary("Add", other)

    def __radd__(self, other: Any) -> Any:
        return self + other

    def __sub__(self, other: Any) -> Any:
        return self if is_number(other, 0) else self._binary("Subtract", other)

    def __rsub__(self, other: Any) -> Any:
        return self._call("ComplexSubtract", other, self)

    def __mul__(self, other: Any) -> Any:
        if is_number(other, 0):
            return 0
        return self if is_number(other, 1) else self._binary("Mult", other)

    def __rmul__(self, other: Any) -> Any:
        return self * other

    def __truediv__(self, other: Any) -> Any:
        return self if is_number(other, 1) else self._binary("Divide", other)

    def __rtruediv__(self, other: Any) -> Any:
        return self._call("ComplexDivide", other, self)

    addop, subop, mulop, divop = __add__, __sub__, __mul__, __truediv__

    def __neg__(self) -> Any:
        return self._apply("Minus", self)

    def __abs__(self) -> Any:
        return self._real("ComplexAbs")

    def __pow__(self, exponent: Any) -> Any:
        """A whole power, by multiplications."""
        power = whole("exponent", exponent)
        if power < 0:
            return 1 / self ** (-power)
        result: Any = None
        factor = self
        while power:
            if power & 1:
                result = factor if result is None else result * factor
            power >>= 1
            factor = factor * factor if power else factor
        return self._operand(1) if result is None else result

    # -- parts and functions --------------------------------------------------------------------

    @property
    def real(self) -> Any:
        """The real parts."""
        return self._real("ComplexReal")

    @property
    def imag(self) -> Any:
        """The imaginary parts."""
        return self._real("ComplexImag")

    def abs(self) -> Any:
        """The moduli."""
        return abs(self)

    def angle(self) -> Any:
        """The arguments, between -pi and pi."""
        return self._real("ComplexAngle")

    def conj(self) -> Any:
        """The complex conjugates."""
        return self._apply("Conj", self)

    def exp(self) -> Any:
        """The exponential."""
        return self._apply("ComplexExp", self)

    def cos(self) -> Any:
        """The cosine, (e^(iz) + e^(-iz)) / 2."""
        turned = self * 1j
        return (turned.exp() + (-turned).exp()) * 0.5

    def sin(self) -> Any:
        """The sine, (e^(iz) - e^(-iz)) / 2i."""
        turned = self * 1j
        return (turned.exp() - (-turned).exp()) * -0.5j

    def square(self) -> Any:
        """The square."""
        return self * self

    def inv(self) -> Any:
        """The inverse."""
        return 1 / self

    def sqnorm2(self) -> Any:
        """The sum of the squared moduli."""
        return self._real("ComplexSquareAbs").sum(-1)

    def norm2(self) -> Any:
        """The Euclidean norm."""
        return self.sqnorm2().sqrt()

    def elem(self, i: int) -> Any:
        """Complex number i of the vector."""
        return self._apply("Extract", self, 2 * whole("i", i), 2)

    def __getitem__(self, key: Any) -> Any:
        from .lazytensor import component_index

        found = component_index(key, self.nbatchdims + 2)
        count = self.ndim // 2
        if isinstance(found, slice):
            start, stop, step = found.indices(count)
            if step != 1 or stop <= start:
                raise ArrayTypeError("a slice of components has no step", found=str(found))
            return self._apply("Extract", self, 2 * start, 2 * (stop - start))
        return self.elem(found)

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("_") and hasattr(LazyTensor, name):
            raise DerivativeError(
                f"{name} is not defined for complex lazy tensors",
                hint="z.real, z.imag, abs(z) or z.angle() give real ones",
            )
        raise AttributeError(name)

    # -- reductions -----------------------------------------------------------------------------

    def _over_components(self, name: str) -> Any:
        if name != "Sum":
            raise ArrayTypeError(f"complex numbers have no order: {name} is not defined")
        return self._apply("ComplexSum", self)

    def reduction(self, reduction_op: str, *args: Any, **options: Any) -> Any:
        """A reduction over i or j: "Sum" or "Mean"."""
        if reduction_op not in ("Sum", "Mean"):
            raise ArrayTypeError(
                f"complex numbers have no order: {reduction_op} is not defined for them",
                hint="z.real, abs(z)",
            )
        return super().reduction(reduction_op, *args, **options)

    def _finished(self, result: Any) -> Any:
        """Pairs of real numbers as complex ones."""
        shape = (*result.shape[:-1], result.shape[-1] // 2, 2)
        if isinstance(result, np.ndarray):
            return np.ascontiguousarray(result).view(_OF[result.dtype.name])
        return sys.modules["torch"].view_as_complex(result.reshape(shape).contiguous())


def _parts(x: Any, adapter: Any) -> Any:
    """A complex array as real numbers, twice as many along the last axis."""
    if adapter.dtype(x) not in COMPLEX:
        return x
    if adapter.name == "numpy":
        return np.ascontiguousarray(x).view(COMPLEX[x.dtype.name])
    return sys.modules["torch"].view_as_real(x.resolve_conj()).flatten(-2)
