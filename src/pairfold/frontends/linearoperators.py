"""Linear operators: matrices that are known by their products, made of lazy tensors and arrays.

Products, sums, multiples, powers and blocks of matrices are kept as they are written and applied
part by part, so that no table is made of them; each part is applied, and differentiated, as it is
by itself. They are linear operators to SciPy, too.
"""

# Operators are made of others.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NoReturn

import numpy as np

from ..arrays.library import COMPLEX, ArrayLibrary
from ..arrays.registry import NUMPY, TORCH, library_for
from ..core.library import Array, NumpyArray
from ..errors import (
    ArgumentError,
    ArrayTypeError,
    DTypeError,
    ShapeError,
    UnsupportedError,
)
from .given import plain_number
from .lazy import Tensor
from .leaves import library_from
from .tables import check_limit, check_size

if TYPE_CHECKING:
    from .gpytorch import PairfoldLinearOperator
    from .reducing import Reducing
    from .typed import Result

_MATRICES = "an array (..., M, N), a lazy tensor with one number for each pair, or an operator"
_OF = {real: name for name, real in COMPLEX.items()}


class LinearOperator:
    """A matrix (..., M, N) that is known by its products with vectors.

    `shape`: with batch axes first; `dtype`: the name of its numbers' dtype, None where it follows
    from the vectors. `A @ v` takes an array (N,) or (..., N, E), `A @ B`, `A + B`, `A - B` lazy
    tensors, operators and arrays, `s * A` numbers and arrays of one number for each batch element.
    Made by `K @ L` of lazy tensors, `aslinearoperator(K)`, `identity`, `block`, `hstack`, `vstack`
    and `matrix_power`.

    >>> import numpy as np
    >>> from pairfold import Vi, Vj
    >>> from pairfold.linalg import identity
    >>> x = np.array([[1.0], [2.0]])
    >>> A = Vi(x).sqdist(Vj(x)) + 3.0 * identity(2)
    >>> A
    <LinearOperator lazy + 3.0 * I, shape (2, 2), dtype float64>
    >>> (A @ np.array([1.0, 0.0])).tolist(), A.dense().tolist()
    ([3.0, 1.0], [[3.0, 1.0], [1.0, 3.0]])
    """

    __array_ufunc__ = None  # NumPy leaves operators to us

    def __init__(self, shape: tuple[int, ...], parts: Sequence[LinearOperator] = ()) -> None:
        self.shape, self.parts = shape, tuple(parts)
        self.library, dtype = _common(self.parts)
        self.is_complex = False
        self._set_dtype(dtype, any(part.is_complex for part in self.parts))

    def _set_dtype(self, dtype: str | None, is_complex: bool) -> None:
        self.is_complex = self.is_complex or is_complex
        self.dtype = _OF.get(dtype, dtype) if self.is_complex and dtype is not None else dtype

    # -- what each kind does --------------------------------------------------------------------

    def _apply(self, v: Result) -> Result:
        """The product with vectors (..., N, E)."""
        raise NotImplementedError

    def _turned(self, conjugate: bool) -> LinearOperator:
        """The transposed operator, or the adjoint one."""
        raise NotImplementedError

    def _entries(self, like: Result, limit: float) -> Result:
        """All entries, beside an array."""
        raise NotImplementedError

    def _diagonal(self, like: Result) -> Result:
        """The diagonal, beside an array."""
        raise UnsupportedError(
            "the diagonal of this operator takes all of its entries",
            found=repr(self),
            hint="A.dense() where it is small",
        )

    def _text(self) -> str:
        raise NotImplementedError

    # -- products -------------------------------------------------------------------------------

    def __matmul__(self, v: Result) -> Result:
        """The product with an array (N,) or (..., N, E), or with another operator.

        Raises:
            ShapeError, ArrayTypeError, DTypeError: what cannot be multiplied.
        """
        if isinstance(v, (Tensor, LinearOperator)):
            return product_of(self, aslinearoperator(v))
        if library_for(v) is None or not len(v.shape):
            raise ArrayTypeError(
                "an operator is multiplied with an array (N,) or (..., N, E), or with a matrix",
                found=f"a {type(v).__name__}",
            )
        columns = v[:, None] if len(v.shape) == 1 else v
        if columns.shape[-2] != self.shape[-1]:
            raise ShapeError(
                f"the operator has {self.shape[-1]} columns",
                found=f"vectors of {columns.shape[-2]} numbers, shape {tuple(v.shape)}",
                hint=f"vectors of {self.shape[-1]} numbers, an operator of shape {self.shape}",
            )
        found = self._apply(columns)
        found = 1 * found if found is columns else found  # never the array that was given
        return found[..., 0] if len(v.shape) == 1 else found

    def __rmatmul__(self, v: Result) -> Result:
        """A vector (M,), or rows (..., E, M), times the operator; a matrix times it.

        Raises:
            ShapeError, ArrayTypeError, DTypeError: what cannot be multiplied.
        """
        if isinstance(v, Tensor):
            return product_of(aslinearoperator(v), self)
        if library_for(v) is None or len(v.shape) < 2:
            return self.T @ v
        return (self.T @ v.swapaxes(-1, -2)).swapaxes(-1, -2)

    def matvec(self, v: Result) -> Result:
        """The product with a vector, as SciPy's linear operators have it.

        A NumPy array gives a NumPy array, whatever library the operator is of.
        """
        return numpy_product(self.library, self._like, self, v)

    def rmatvec(self, v: Result) -> Result:
        """The product of the adjoint operator with a vector."""
        return numpy_product(self.library, self._like, self.H, v)

    def matmat(self, v: Result) -> Result:
        """The product with several vectors, the columns of v."""
        return self.matvec(v)

    def rmatmat(self, v: Result) -> Result:
        """The product of the adjoint operator with several vectors, the columns of v."""
        return self.rmatvec(v)

    @property
    def T(self) -> LinearOperator:
        """The transposed operator."""
        return self._turned(False)

    @property
    def H(self) -> LinearOperator:
        """The adjoint operator, which is the transposed one, conjugate where it is complex."""
        return self._turned(True)

    # -- sums and multiples ---------------------------------------------------------------------

    def __add__(self, other: object) -> LinearOperator:
        return _Sum((self, _addend(other)))

    def __radd__(self, other: object) -> LinearOperator:
        return _Sum((_addend(other), self))

    def __sub__(self, other: object) -> LinearOperator:
        return _Sum((self, -_addend(other)))

    def __rsub__(self, other: object) -> LinearOperator:
        return _Sum((_addend(other), -self))

    def __neg__(self) -> LinearOperator:
        return -1 * self

    def __mul__(self, factor: object) -> LinearOperator:
        return _Multiple(factor, self)

    __rmul__ = __mul__

    def __truediv__(self, divisor: Result) -> LinearOperator:
        return _Multiple(1 / divisor, self)

    def __pow__(self, exponent: object) -> NoReturn:
        raise UnsupportedError(
            "** is the power of each entry, which operators do not know",
            found=f"{self!r} ** {exponent!r}",
            hint="pairfold.linalg.matrix_power(A, 3) for A @ A @ A",
        )

    # -- entries --------------------------------------------------------------------------------

    def dense(self, limit: float = 2**30) -> Result:
        """All entries as an array (..., M, N), with its derivatives.

        Args:
            limit: the most bytes that it, and each array on the way, may have.

        Raises:
            MemoryLimitError: there would be more.
            ArgumentError: the operator has no dtype: it is made of identities alone.
        """
        check_limit(limit)
        return self._entries(self._checked_like(), limit)

    def toarray(self, limit: float = 2**30) -> NumpyArray:
        """All entries as a NumPy array, whatever library the operator is of; see `dense`.

        Raises:
            MemoryLimitError, ArgumentError: as `dense`.
        """
        found = self.dense(limit)
        return library_from(found).to_numpy(found)

    def diag(self) -> Result:
        """The diagonal (..., M) of a square operator, where no table has to be made for it.

        Raises:
            UnsupportedError: it is a product of other than two matrices, or has other blocks.
            ShapeError, ArgumentError: the operator is not square, or has no dtype.
        """
        if self.shape[-1] != self.shape[-2]:
            raise ShapeError("diag() is of a square matrix", found=repr(self))
        return self._diagonal(self._checked_like())

    def trace(self) -> Result:
        """The sum of the diagonal: an array (...).

        Raises:
            UnsupportedError, ShapeError, ArgumentError: as `diag`.
        """
        found = self.diag()
        return library_from(found).sum(found, -1)

    # -- other forms ----------------------------------------------------------------------------

    def with_arrays(self, change: Callable[[Array], Array]) -> LinearOperator:
        """The same operator of other arrays: what `change` makes of each, of the same shape."""
        raise NotImplementedError

    def to_linear_operator(self) -> PairfoldLinearOperator:
        """The operator of tensors as one of the package linear_operator, which has to be installed.

        Raises:
            ArrayTypeError: the operator is of another library, or of identities alone.
            ImportError: the package is not installed.
        """
        if self.library is not TORCH:
            raise ArrayTypeError("linear_operator has operators of tensors", found=repr(self))
        from .gpytorch import wrapped

        return wrapped(self)

    # -- what it is -----------------------------------------------------------------------------

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)

    @property
    def _like(self) -> Result:
        """An array that the operator is made of; None for identities."""
        found = [part._like for part in self.parts]
        return next((like for like in found if like is not None), None)

    def _checked_like(self) -> Result:
        like = self._like
        if like is None:
            raise ArgumentError(
                "an identity has no dtype by itself",
                found=repr(self),
                hint="np.eye(n); or apply it, I @ v",
            )
        return like

    def _check_size(self, like: Result, limit: float) -> None:
        wanted = math.prod(self.shape) * library_from(like).item_bytes(like)
        check_size(wanted, limit, self, "A @ v for products with vectors")

    def __bool__(self) -> NoReturn:
        raise ArrayTypeError("an operator is neither true nor false", found=repr(self))

    def __repr__(self) -> str:
        return f"<LinearOperator {self._text()}, shape {self.shape}, dtype {self.dtype}>"


# -- matrices --------------------------------------------------------------------------------------


class _OfLazy(LinearOperator):
    """A lazy tensor."""

    def __init__(self, tensor: Reducing) -> None:
        if tensor.symbols or tensor.library is None:
            raise ArgumentError(
                "an operator is made of arrays, and this tensor has none, or waits for some",
                found=repr(tensor),
                hint="Vi(x), Vj(y) in place of symbols",
            )
        if tensor.ndim != 1 + tensor.is_complex:
            raise ShapeError(
                "only a matrix of scalars is an operator",
                found=f"shape {tensor.shape}",
                hint="x.sum(-1) makes scalars of vectors",
            )
        super().__init__(tensor._shape[:-1])
        self.tensor, self.library = tensor, tensor.library
        self._set_dtype(tensor.dtype, tensor.is_complex)

    @property
    def _like(self) -> Result:
        return next(leaf.owner for leaf in self.tensor.leaves if leaf.given)

    def _apply(self, v: Result) -> Result:
        if not v.shape[-1]:  # no vectors, which reductions refuse
            batch = common_batch(self.shape[:-2], tuple(v.shape[:-2]))
            return library_from(v).empty((*batch, self.shape[-2], 0), v)
        return self.tensor @ v

    def _turned(self, conjugate: bool) -> LinearOperator:
        tensor = self.tensor.conj() if conjugate and self.tensor.is_complex else self.tensor
        return _OfLazy(tensor.t())

    def _entries(self, like: Result, limit: float) -> Result:
        return self.tensor.dense(limit)

    def _diagonal(self, like: Result) -> Result:
        return self.tensor.diag()

    def with_arrays(self, change: Callable[[Array], Array]) -> LinearOperator:
        return _OfLazy(self.tensor.with_arrays(change))

    def _text(self) -> str:
        return "lazy"


class _OfArray(LinearOperator):
    """An array."""

    def __init__(self, array: Result) -> None:
        super().__init__(tuple(array.shape))
        self.array, self.library = array, library_from(array)
        dtype = self.library.dtype(array)
        self._set_dtype(dtype, dtype in COMPLEX)

    @property
    def _like(self) -> Result:
        return self.array

    def _apply(self, v: Result) -> Result:
        return self.array @ v

    def _turned(self, conjugate: bool) -> LinearOperator:
        array = self.array.conj() if conjugate and self.is_complex else self.array
        return _OfArray(array.swapaxes(-1, -2))

    def _entries(self, like: Result, limit: float) -> Result:
        return self.array

    def _diagonal(self, like: Result) -> Result:
        assert self.library is not None
        return self.library.functions().diagonal(self.array, 0, -2, -1)

    def with_arrays(self, change: Callable[[Array], Array]) -> LinearOperator:
        return _OfArray(change(self.array))

    def _text(self) -> str:
        return "array"


class Identity(LinearOperator):
    """The identity of n rows."""

    def __init__(self, rows: int) -> None:
        super().__init__((rows, rows))

    def _apply(self, v: Result) -> Result:
        return v

    def _turned(self, conjugate: bool) -> LinearOperator:
        return self

    def _entries(self, like: Result, limit: float) -> Result:
        self._check_size(like, limit)
        library = library_from(like)
        return library.functions().eye(self.shape[0], dtype=like.dtype, **library.place(like))

    def _diagonal(self, like: Result) -> Result:
        library = library_from(like)
        return library.cast_like(library.constants(np.ones(self.shape[0]), like), like)

    def with_arrays(self, change: Callable[[Array], Array]) -> LinearOperator:
        """The same operator of other arrays."""
        return self

    def _text(self) -> str:
        return "I"


# -- what is made of them --------------------------------------------------------------------------


class _Sum(LinearOperator):
    """The sum of operators of one shape."""

    def __init__(self, terms: Sequence[LinearOperator]) -> None:
        flat = [part for term in terms for part in (term.parts if _is(term, _Sum) else (term,))]
        if len({term.shape[-2:] for term in flat}) > 1:
            raise ShapeError(
                "operators of different shapes cannot be added",
                found=" and ".join(str(term.shape) for term in terms),
            )
        super().__init__((*batch_of(flat), *flat[0].shape[-2:]), flat)

    def _apply(self, v: Result) -> Result:
        return total_of(part._apply(v) for part in self.parts)

    def _turned(self, conjugate: bool) -> LinearOperator:
        return _Sum([part._turned(conjugate) for part in self.parts])

    def _entries(self, like: Result, limit: float) -> Result:
        self._check_size(like, limit)
        return total_of(part._entries(like, limit) for part in self.parts)

    def _diagonal(self, like: Result) -> Result:
        return total_of(part._diagonal(like) for part in self.parts)

    def with_arrays(self, change: Callable[[Array], Array]) -> LinearOperator:
        return _Sum([part.with_arrays(change) for part in self.parts])

    def _text(self) -> str:
        return " + ".join(part._text() for part in self.parts)


class _Multiple(LinearOperator):
    """A number, or one for each batch element, times an operator."""

    def __init__(self, factor: Result, part: LinearOperator) -> None:
        factor = factor.item() if isinstance(factor, np.generic) else factor
        library, batch = library_for(factor), ()
        if library is not None:
            batch = tuple(factor.shape)
        elif not plain_number(factor) and not isinstance(factor, complex):
            raise ArrayTypeError(
                "an operator is multiplied with numbers",
                found=f"a {type(factor).__name__}",
                hint="A @ B for the product of two matrices",
            )
        super().__init__((*common_batch(batch, part.shape[:-2]), *part.shape[-2:]), (part,))
        self.factor: Result = factor
        kind = None if library is None else library.dtype(self.factor)
        self._set_dtype(self.dtype, isinstance(factor, complex) or kind in COMPLEX)

    def _times(self, x: Result, axes: int) -> Result:
        factor = self.factor
        if library_for(factor) is not None and len(factor.shape):
            factor = factor.reshape(*factor.shape, *[1] * axes)
        return factor * x

    @property
    def part(self) -> LinearOperator:
        """What is multiplied."""
        return self.parts[0]

    def _apply(self, v: Result) -> Result:
        return self._times(self.part._apply(v), 2)

    def _turned(self, conjugate: bool) -> LinearOperator:
        factor = self.factor
        if conjugate:
            factor = factor.conj() if library_for(factor) is not None else factor.conjugate()
        return _Multiple(factor, self.part._turned(conjugate))

    def _entries(self, like: Result, limit: float) -> Result:
        return self._times(self.part._entries(like, limit), 2)

    def _diagonal(self, like: Result) -> Result:
        return self._times(self.part._diagonal(like), 1)

    def with_arrays(self, change: Callable[[Array], Array]) -> LinearOperator:
        given = library_for(self.factor) is not None
        factor = change(self.factor) if given else self.factor
        return _Multiple(factor, self.part.with_arrays(change))

    def _text(self) -> str:
        text = self.part._text()
        factor = str(self.factor) if library_for(self.factor) is None else "array"
        return f"{factor} * {text}" if not _is(self.part, _Sum) else f"{factor} * ({text})"


class Product(LinearOperator):
    """The product of operators."""

    def __init__(self, factors: Sequence[LinearOperator]) -> None:
        flat = [part for x in factors for part in (x.parts if _is(x, Product) else (x,))]
        for one, other in itertools.pairwise(flat):
            if one.shape[-1] != other.shape[-2]:
                raise ShapeError(
                    f"a matrix of {one.shape[-1]} columns times one of {other.shape[-2]} rows",
                    found=f"shapes {one.shape} and {other.shape}",
                    hint="K.T is the transposed matrix",
                )
        super().__init__((*batch_of(flat), flat[0].shape[-2], flat[-1].shape[-1]), flat)

    def _apply(self, v: Result) -> Result:
        for part in reversed(self.parts):
            v = part._apply(v)
        return v

    def _turned(self, conjugate: bool) -> LinearOperator:
        return Product([part._turned(conjugate) for part in reversed(self.parts)])

    def _entries(self, like: Result, limit: float) -> Result:
        """The smaller end as a table, the others applied to it."""
        self._check_size(like, limit)
        first, last = self.parts[0], self.parts[-1]
        if math.prod(first.shape) < math.prod(last.shape):
            turned = Product([part.T for part in reversed(self.parts)])
            return turned._from(like, limit).swapaxes(-1, -2)
        return self._from(like, limit)

    def _from(self, like: Result, limit: float) -> Result:
        found = self.parts[-1]._entries(like, limit)
        for part in reversed(self.parts[:-1]):
            found = part._apply(found)
        return found

    def _diagonal(self, like: Result) -> Result:
        """Of two lazy tensors: the sums along the rows of K * L.T."""
        if len(self.parts) != 2:
            return super()._diagonal(like)
        one, other = self.parts
        if isinstance(one, _OfLazy) and isinstance(other, _OfLazy):
            left: Result = one.tensor
            both: Reducing = left * other.tensor.t()
            return both.reduction("Sum", axis=both.nbatchdims + 1)[..., 0]
        if isinstance(one, _OfArray) and isinstance(other, _OfArray):
            return (one.array * other.array.swapaxes(-1, -2)).sum(-1)
        return super()._diagonal(like)

    def with_arrays(self, change: Callable[[Array], Array]) -> LinearOperator:
        """The same operator of other arrays."""
        return Product([part.with_arrays(change) for part in self.parts])

    def _text(self) -> str:
        texts = [part._text() for part in self.parts]
        simple = [_is(part, _OfLazy, _OfArray, Identity) for part in self.parts]
        return " @ ".join(t if plain else f"({t})" for t, plain in zip(texts, simple, strict=True))


# -- how they are made -----------------------------------------------------------------------------


def aslinearoperator(matrix: object) -> LinearOperator:
    """A matrix as a linear operator: an array (..., M, N), a lazy tensor, or an operator itself.

    >>> import numpy as np
    >>> aslinearoperator(np.eye(3)).shape
    (3, 3)

    Raises:
        ArrayTypeError, ShapeError, ArgumentError: what is no matrix.
    """
    if isinstance(matrix, LinearOperator):
        return matrix
    if isinstance(matrix, Tensor):
        return _OfLazy(matrix)  # pyright: ignore[reportArgumentType] (both kinds are reduced)
    library = library_for(matrix)
    if library is None or len(matrix.shape) < 2:  # pyright: ignore[reportAttributeAccessIssue]
        shape = "" if library is None else f" of shape {tuple(matrix.shape)}"  # pyright: ignore
        raise ArrayTypeError(
            "this is no matrix", found=f"a {type(matrix).__name__}{shape}", hint=_MATRICES
        )
    return _OfArray(matrix)


def product_of(*matrices: object) -> LinearOperator:
    """The product of matrices, each an operator or what `aslinearoperator` takes.

    Raises:
        ShapeError, ArrayTypeError, DTypeError: what cannot be multiplied.
    """
    return Product([aslinearoperator(matrix) for matrix in matrices])


# -- what they share -------------------------------------------------------------------------------


def numpy_product(library: ArrayLibrary | None, like: Result, matrix: Result, v: Result) -> Result:
    """The product of a matrix of a library with a vector; of NumPy's with what it gives as such."""
    if library is None or library is NUMPY or not isinstance(v, np.ndarray):
        return matrix @ v
    vectors = library.constants(v, like)
    if NUMPY.dtype(v) not in COMPLEX:
        vectors = library.cast(vectors, _real(library.dtype(like)))
    return library.to_numpy(matrix @ vectors)


def _real(dtype: str) -> str:
    return COMPLEX.get(dtype, dtype)


def _is(part: LinearOperator, *kinds: type[LinearOperator]) -> bool:
    return isinstance(part, kinds)


def _addend(other: object) -> LinearOperator:
    try:
        return aslinearoperator(other)
    except ArrayTypeError:
        raise ArrayTypeError(
            "only matrices are added to an operator",
            found=f"a {type(other).__name__}",
            hint="A + 2.0 * pairfold.linalg.identity(n) for 2 on the diagonal",
        ) from None


def total_of(parts: Iterator[Result]) -> Result:
    """The sum of arrays, at least one."""
    found = next(parts)
    for part in parts:
        found = found + part
    return found


def _common(parts: Sequence[LinearOperator]) -> tuple[ArrayLibrary | None, str | None]:
    """The library and the dtype of operators.

    Raises:
        ArrayTypeError, DTypeError: they differ.
    """
    known = [part for part in parts if part.dtype is not None]
    for other in known[1:]:
        if other.library is not known[0].library:
            names = [str(part.library and part.library.words.many) for part in (known[0], other)]
            raise ArrayTypeError(
                f"{names[0]} and {names[1]} cannot be combined",
                found=f"{known[0]!r} and {other!r}",
            )
        if _real(str(other.dtype)) != _real(str(known[0].dtype)):
            raise DTypeError(
                f"matrices of dtype {known[0].dtype} and {other.dtype} cannot be combined",
                found=f"{known[0]!r} and {other!r}",
                hint=f"the arrays of one of them as {known[0].dtype}",
            )
    return (known[0].library, known[0].dtype) if known else (None, None)


def batch_of(parts: Sequence[LinearOperator]) -> tuple[int, ...]:
    """The batch axes of operators, joined.

    Raises:
        ShapeError: they do not join.
    """
    return common_batch(*[part.shape[:-2] for part in parts])


def common_batch(*shapes: tuple[int, ...]) -> tuple[int, ...]:
    """Batch axes, joined.

    Raises:
        ShapeError: they do not join.
    """
    try:
        return tuple(np.broadcast_shapes(*shapes))
    except ValueError:
        listed = ", ".join(map(str, shapes))
        raise ShapeError("incompatible batch axes", found=listed) from None
