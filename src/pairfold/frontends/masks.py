"""Which pairs count: the numbers of rows and columns, and masks that are made of them or of data.

Masks are lazy tensors of truth values: `&`, `|` and `~` join them, with comparisons of lazy tensors
too, and every reduction takes one as `where=`. Pairs for which it does not hold are absent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..arrays.opaque import opaque
from ..arrays.sparse import is_sparse
from ..core.library import Array, NumpyArray
from ..core.node import Axis, Node, topological
from ..errors import ArrayTypeError, DTypeError, OptionError, ShapeError
from ..ops.table import OPERATIONS, constant
from ..ops.vectors import DIGITS
from .given import as_float, plain_number
from .lazy import Tensor
from .leaves import Leaf, array_leaf, is_array, library_from
from .recording import recorded_as

if TYPE_CHECKING:
    from .lazytensor import LazyTensor

    i: LazyTensor
    j: LazyTensor

# The largest whole number that is given by digits.
_LARGEST = DIGITS**6 - 1
_MASKS = "x_i < y_j, pairfold.causal(), pairfold.same(ids_i, ids_j)"
# How many digits the numbers of a dtype have, where they have no values yet.
_BYTES = {"bool": 1, "uint8": 1, "int8": 1, "int16": 2, "int32": 4, "int64": 8}


def index_node(axis: Axis) -> Node:
    """The number of a pair's row along an axis."""
    return OPERATIONS["Ind"](axis)


def counts(node: Node, axis: Axis) -> bool:
    """Whether a formula reads the numbers of the rows along an axis."""
    return index_node(axis) in topological([node])


def numbers_as_codes(count: int) -> NumpyArray:
    """The numbers 0, 1, 2 ... of rows, as codes (count, digits) that are exact in any dtype."""
    return _digits(np.arange(count), 3 if count <= DIGITS**3 else 6)


def __getattr__(name: str) -> LazyTensor:
    """`i` and `j`, made when they are first asked for."""
    if name not in ("i", "j"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = _index(Axis.I if name == "i" else Axis.J)
    return found


def _index(axis: Axis) -> LazyTensor:
    from .lazytensor import LazyTensor

    return LazyTensor._of_leaves(index_node(axis), ())  # pyright: ignore[reportPrivateUsage]


@recorded_as("causal")
def causal() -> LazyTensor:
    """The pairs with j <= i: what a position may look at, itself and those before it.

    >>> import numpy as np
    >>> from pairfold import Vi, causal
    >>> x = np.ones((3, 1))
    >>> (Vi(x) * Vi(x).T).sum(axis=1, where=causal())[:, 0]
    array([1., 2., 3.])
    """
    return _index(Axis.J) <= _index(Axis.I)


@recorded_as("band")
def band(width: float) -> LazyTensor:
    """The pairs with |i - j| <= width: a window around each position.

    >>> import numpy as np
    >>> from pairfold import Vi, band
    >>> x = np.ones((4, 1))
    >>> (Vi(x) * Vi(x).T).sum(axis=1, where=band(1))[:, 0]
    array([2., 3., 3., 2.])

    Raises:
        OptionError: a width that is no number, or is negative.
    """
    if not plain_number(width) or not width >= 0:
        raise OptionError("the width of a band is a number from 0", found=f"{width!r}", hint="64")
    return abs(_index(Axis.I) - _index(Axis.J)) <= int(min(width, _LARGEST))


def whole_number(value: int) -> LazyTensor:
    """A whole number beside index variables: exact, and an argument of the formula.

    Raises:
        OptionError: it has more than 48 bits.
    """
    if abs(value) > _LARGEST:
        raise OptionError("index variables meet numbers of 48 bits", found=f"{value}")
    count = 3 if abs(value) < DIGITS**3 else 6
    codes = np.array(list(abs(value).to_bytes(count, "big")), np.uint8)
    tensor = _of_leaf(array_leaf(codes, Axis.PARAMETER))  # pyright: ignore[reportArgumentType] (of NumPy)
    found = tensor._apply("Digits", tensor)  # pyright: ignore[reportPrivateUsage]
    return -found if value < 0 else found


@recorded_as("exclude_self")
def exclude_self() -> LazyTensor:
    """The pairs with i != j: all but a point with itself.

    >>> import numpy as np
    >>> from pairfold import Vi, Vj, exclude_self
    >>> x = np.array([[0.0], [1.0], [3.0]])
    >>> ((Vi(x) - Vj(x)) ** 2).sum(-1).min(axis=1, where=exclude_self())[:, 0]
    array([1., 1., 4.])
    """
    return _index(Axis.I) != _index(Axis.J)


@recorded_as("radius")
def radius(x: object, y: object, r: object) -> LazyTensor:
    """The pairs that are at most `r` apart: |x_i - y_j| <= r.

    Args:
        x, y: points (..., M, D) and (..., N, D), or lazy tensors.
        r: a number, or a lazy tensor: a radius for each point.

    >>> import numpy as np
    >>> from pairfold import Vi, Vj, radius
    >>> x = np.array([[0.0], [1.0], [3.0]])
    >>> (Vi(x) - Vj(x)).sum(axis=1, where=radius(x, x, 1.5))[:, 0]
    array([-1.,  1.,  0.])

    Raises:
        OptionError: an r that is neither.
        ArrayTypeError, ShapeError, DTypeError: points that are no arrays, or do not fit.
    """
    if not isinstance(r, Tensor):
        if not plain_number(r):
            raise OptionError(
                "a radius is a number or a lazy tensor", found=f"a {type(r).__name__}", hint="0.5"
            )
        r = as_float(r)
    points = _points(x, Axis.I), _points(y, Axis.J)
    return points[0].sqdist(points[1]) <= r * r  # pyright: ignore (numbers or lazy tensors)


def _points(x: object, axis: Axis) -> LazyTensor:
    """Points (..., R, D) as a variable; a lazy tensor itself."""
    from .lazytensor import LazyTensor, Var

    if isinstance(x, Tensor):
        return x  # pyright: ignore[reportReturnType] (complex ones have no distance)
    shape = getattr(x, "shape", ())
    if len(shape) < 3:
        return Var(x, None, int(axis))
    found = object.__new__(LazyTensor)
    found._blank()  # pyright: ignore[reportPrivateUsage]
    if not is_array(x):
        return LazyTensor(x)  # which says what it takes
    placed = x[..., :, None, :] if axis == Axis.I else x[..., None, :, :]
    found._set_owner(placed, axis)  # pyright: ignore[reportPrivateUsage]
    return found


@recorded_as("same")
def same(ids_i: object, ids_j: object) -> LazyTensor:
    """The pairs with equal labels: of one document, one batch, one class.

    Args:
        ids_i, ids_j: labels (..., M) and (..., N), arrays of whole numbers or truth values. Where a
            program is traced (`torch.compile`, `torch.vmap`, `jax.jit`), they may be arrays that
            have no values yet.

    >>> import numpy as np
    >>> from pairfold import Vi, Vj, same
    >>> x, ids = np.array([[1.0], [2.0], [4.0]]), np.array([7, 7, 9])
    >>> (Vi(0 * x) + Vj(x)).sum(axis=1, where=same(ids, ids))[:, 0]
    array([3., 3., 4.])

    Raises:
        ArrayTypeError, DTypeError, ShapeError: what is no array of labels.
    """
    try:
        first, second = _labels(ids_i, "ids_i"), _labels(ids_j, "ids_j")
    except ArrayTypeError:  # they have no values yet, or are no labels
        return _equal(*_without_values(_checked(ids_i, "ids_i"), _checked(ids_j, "ids_j")))
    given = [first.ravel()] if ids_j is ids_i else [first.ravel(), second.ravel()]
    found = np.unique(np.concatenate(given), return_inverse=True)
    codes = _digits(np.asarray(found[1]).reshape(-1), _digits_of(len(found[0])))
    rows = codes[: first.size].reshape((*first.shape, -1))
    if ids_j is ids_i:
        return _equal(rows, rows)
    return _equal(rows, codes[first.size :].reshape((*second.shape, -1)))


@opaque
def lengths(li: object, lj: object | None = None) -> LazyTensor:
    """The pairs of one cloud, where clouds lie one after the other: a ragged batch.

    Args:
        li, lj: how many rows of i and of j each cloud has, (B,); `lj` is `li` where it is left
            out. Offsets, as those of jagged tensors and `cu_seqlens`, are `np.diff(offsets)`.

    >>> import numpy as np
    >>> from pairfold import Vi, Vj, lengths
    >>> x = np.array([[1.0], [2.0], [4.0]])
    >>> (Vi(0 * x) + Vj(x)).sum(axis=1, where=lengths([2, 1]))[:, 0]
    array([3., 3., 4.])

    Raises:
        ArrayTypeError, DTypeError, ShapeError: what is no list of sizes.
    """
    first = _sizes(li, "li")
    second = first if lj is None else _sizes(lj, "lj")
    if len(first) != len(second):
        raise ShapeError(
            "li and lj must have one size for each cloud",
            found=f"{len(first)} and {len(second)} sizes",
            hint="0 for a cloud without rows",
        )
    codes = _digits(np.arange(len(first)), _digits_of(len(first)))
    rows = np.repeat(codes, first, axis=0)
    return _equal(rows, rows if second is first else np.repeat(codes, second, axis=0))


def _sizes(given: object, name: str) -> NDArray[np.int64]:
    sizes = _labels(given, name)
    if sizes.ndim != 1 or (sizes < 0).any():
        raise ShapeError(
            f"{name} must be sizes (B,), from 0",
            found=f"shape {sizes.shape}" if sizes.ndim != 1 else f"{sizes.min()}",
        )
    return sizes.astype(np.int64)


def _checked(given: object, name: str) -> Array:
    """Labels as they are, once their dtype and shape are checked."""
    if not is_array(given):
        return _labels(given, name)
    library = library_from(given)
    library.check_layout(given, name)
    dtype = library.dtype(given)
    if dtype not in _BYTES:
        raise DTypeError(
            f"{name} must hold signed whole numbers, where a program is traced",
            found=f"dtype {dtype}",
            hint='"int32", "int64"',
        )
    if not given.shape:
        raise ShapeError(f"{name} must have an axis", found="a single number")
    return library.cast(given, "int32") if _BYTES[dtype] < 4 else given


def _without_values(*given: Array) -> list[Array]:
    """The digits of labels of any library, as many of each."""
    bytes_of = [_BYTES[library_from(labels).dtype(labels)] for labels in given]
    found: list[Array] = []
    for labels, own in zip(given, bytes_of, strict=True):
        library = library_from(labels)
        parts = [labels // DIGITS**k % DIGITS for k in range(own)]
        # The digits of what is negative go on.
        parts += [(DIGITS - 1) * (labels < 0)] * (max(bytes_of) - own)
        found.append(library.concatenated([library.cast(p, "uint8")[..., None] for p in parts]))
    return found


def _labels(given: object, name: str) -> NumpyArray:
    """Labels as a NumPy array of whole numbers."""
    if is_array(given):
        library = library_from(given)
        library.check_kind(given, name)
        library.check_memory(given, name)
        if library.dtype(given) == "bool":
            given = library.cast(given, "uint8")
        given = library.whole_numbers(given, name)
    elif not isinstance(given, (list, tuple)):
        raise ArrayTypeError(
            f"{name} must be an array of whole numbers", found=f"a {type(given).__name__}"
        )
    try:
        array = np.asarray(given)
    except ValueError:
        raise ShapeError(f"{name} must be an array", found="rows of different lengths") from None
    if array.size == 0:
        array = array.astype(np.int64)
    if array.dtype.kind not in "iub":
        raise DTypeError(
            f"{name} must hold whole numbers",
            found=f"dtype {array.dtype}",
            hint=f"{name}.astype('int64')",
        )
    if array.ndim < 1:
        raise ShapeError(f"{name} must have an axis", found="a single number")
    return array


def _digits_of(count: int) -> int:
    """How many digits so many codes have."""
    digits = 1
    while DIGITS**digits < count:
        digits += 1
    return digits


def _digits(codes: NumpyArray, digits: int) -> NumpyArray:
    """Codes (..., R) as their digits (..., R, digits), the highest first."""
    powers = DIGITS ** np.arange(digits)[::-1]
    return (codes[..., None] // powers % DIGITS).astype(np.uint8)


def _equal(first: Array, second: Array) -> LazyTensor:
    """Whether all digits of a row i and of a row j are equal."""
    rows = array_leaf(first[..., :, None, :], Axis.I)
    columns = array_leaf(second[..., None, :, :], Axis.J)
    if second is first:
        columns.codes_of(rows)
    x, y = _of_leaf(rows), _of_leaf(columns)
    found = x.elem(0) == y.elem(0)
    for digit in range(1, first.shape[-1]):
        found = found & (x.elem(digit) == y.elem(digit))
    return found


def _of_leaf(leaf: Leaf) -> LazyTensor:
    """Codes as a lazy tensor; they become numbers of the data's library and dtype in a call."""
    from .lazytensor import LazyTensor

    found = object.__new__(LazyTensor)
    found._blank()  # pyright: ignore[reportPrivateUsage]
    found._set_array_leaf(leaf)  # pyright: ignore[reportPrivateUsage]
    return found


@recorded_as("mask")
def mask(array: object) -> LazyTensor:
    """The pairs where an array is true: a truth value for every pair, which `where=` takes, too.

    The array is read where it lies, a byte for each pair; blocks of pairs without a true one are
    skipped. Gradients do not flow to it.

    Args:
        array: truth values (..., M, N), or numbers of dtype uint8, true where they are not 0, of
            which a copy is made. Sizes are those of the pairs: views repeat rows or columns
            (`np.broadcast_to`, `expand`).

    >>> import numpy as np
    >>> from pairfold import Vi, causal, mask
    >>> x, allowed = np.ones((3, 1)), np.array([[True, False, True]] * 3)
    >>> (Vi(x) * Vi(x).T).sum(axis=1, where=mask(allowed) & causal())[:, 0]
    array([1., 1., 2.])

    Raises:
        ArrayTypeError, DTypeError, ShapeError: what is no array of truth values (..., M, N).
    """
    from .lazytensor import LazyTensor

    if not is_array(array) or isinstance(array, np.generic):
        raise ArrayTypeError(
            "a mask is an array of truth values", found=f"a {type(array).__name__}", hint=_MASKS
        )
    library = library_from(array)
    library.check_layout(array, "mask")
    dtype = library.dtype(array)
    if dtype not in ("bool", "uint8"):
        raise DTypeError("a mask holds truth values", found=f"dtype {dtype}", hint="mask != 0")
    if len(array.shape) < 2:
        raise ShapeError(
            "a mask has a truth value for every pair: (..., M, N)",
            found=f"shape {tuple(array.shape)}",
        )
    found = object.__new__(LazyTensor)
    found._blank()  # pyright: ignore[reportPrivateUsage]
    found.library = library
    truths: Array = array if dtype == "bool" else array != 0  # pyright: ignore (an array)
    found._set_array_leaf(array_leaf(truths[..., None], Axis.PAIR))  # pyright: ignore
    return found._apply("NotEqual", found, constant(0))  # pyright: ignore[reportPrivateUsage]


def checked_mask(where: object) -> Tensor | None:
    """The mask of a reduction, if there is one.

    Raises:
        ArrayTypeError: it is no lazy tensor of real numbers, and no array.
        DTypeError: an array of numbers.
        ShapeError: it has several components, or no axes of pairs.
    """
    if where is None:
        return None
    if is_sparse(where):
        raise ArrayTypeError(
            "sparse matrices are masks of a LazyTensor's reductions",
            found=f"a {type(where).__name__}",
            hint="K.sum(axis=1, where=matrix), K.reduction('Sum', axis=1, where=(matrix, mask))",
        )
    if is_array(where):
        return mask(where)
    if not isinstance(where, Tensor):
        raise ArrayTypeError(
            "a mask is a LazyTensor or an array of truth values",
            found=f"a {type(where).__name__}",
            hint=_MASKS,
        )
    if where.is_complex:
        raise ArrayTypeError(
            "a mask cannot be complex", found=repr(where), hint="mask.real, mask.imag"
        )
    if where.ndim != 1:
        raise ShapeError(
            "a mask has one component for each pair",
            found=f"shape {where.shape}",
            hint="mask.min(-1), where all components have to hold; mask.max(-1), where one has to",
        )
    return where


def mask_node(where: object) -> tuple[Node | None, bool]:
    """The mask of a formula of aliases where that is no text: its graph, if it has no arrays.

    Returns:
        The graph, and whether the mask has arrays, which calls then need.

    Raises:
        ArrayTypeError, ShapeError, DTypeError: it is no mask.
    """
    if any(map(is_sparse, where if isinstance(where, (tuple, list)) else (where,))):
        return None, True
    mask = checked_mask(where)
    if mask is None or mask.leaves:
        return None, mask is not None
    return mask.node, False
