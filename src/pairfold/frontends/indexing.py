"""Parts of lazy tensors: rows, columns and components, by slices and arrays of indices.

Rows and columns are chosen from the arrays that a formula is made of, by their library's own
indexing, so gradients pass; components by operations of the formula. A key alone means components,
as in PyKeOps, but for a formula that is one number for each pair, whose rows it means; a tuple has
a key for each of the axes of `shape`.
"""

# What is made here are lazy tensors of the same class.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from ..arrays.library import WHOLE, ArrayLibrary
from ..arrays.registry import library_for
from ..calculus.substitute import substitute
from ..core.library import Array
from ..core.node import Axis, Node
from ..errors import ArgumentError, PairfoldError, ShapeError, UnsupportedError, attempted, brief
from ..ops.table import constant
from .lazy import Tensor, is_scalar
from .leaves import Leaf, moved_leaves
from .masks import counts, index_node

if TYPE_CHECKING:
    from .foreign import Lazy

_T = TypeVar("_T", bound="Lazy")
_ALL = slice(None)
_LETTERS = {Axis.I: "i", Axis.J: "j"}


@brief
def indexed(tensor: _T, key: object) -> _T:
    """The rows, columns and components of a tensor that a key chooses.

    Raises:
        ShapeError: a key that chooses nothing of the kind, or beyond the sizes.
        UnsupportedError: parts of batch axes, of several axes by arrays, or of ranges.
        ArgumentError: rows of a symbol.
    """
    rows, columns, components = _keys(tensor, key)
    found = tensor
    if not _is_all(components):
        found = _chosen_components(found, components)
    if _is_all(rows) and _is_all(columns):
        return found
    simple = slice, int, np.integer
    if sum(not isinstance(part, simple) for part in (rows, columns, components)) > 1:
        raise UnsupportedError(
            "arrays of indices choose along one axis at a time",
            found=_shown(key),
            hint="K[rows][:, columns] for a block; arrays index entry by entry: "
            "(x[rows] - y[columns]) ** 2",
        )
    if tensor.ranges is not None:
        raise UnsupportedError(
            "ranges are of all rows and columns",
            found=f"{_shown(key)} of a tensor with ranges",
            hint="set .ranges to None, choose, and set those of the part",
        )
    return _chosen_pairs(found, {Axis.I: rows, Axis.J: columns})


# -- which axes ------------------------------------------------------------------------------------


def _width(tensor: Tensor) -> int:
    """The number of components: of complex numbers where they are complex."""
    return tensor.ndim // 2 if tensor.is_complex else tensor.ndim


def _keys(tensor: Tensor, key: object) -> tuple[object, object, object]:
    """The keys of rows, columns and components."""
    batches = tensor.nbatchdims
    if not isinstance(key, tuple) and key is not Ellipsis:
        if not is_scalar(tensor.node) or _is_all(key):
            return _ALL, _ALL, key
        if batches:
            raise ShapeError(
                "a key alone chooses rows, and could be meant for a batch axis here",
                found=f"{_shown(key)} of shape {tensor.shape}",
                hint=f"K[..., {_text(key)}, :]",
            )
        return key, _ALL, _ALL
    keys: list[object] = list(key) if isinstance(key, tuple) else [key]
    if any(part is None for part in keys):
        raise ShapeError(
            "new axes cannot be made by an index",
            found=_shown(key),
            hint="shape the arrays that the tensor is made of: x[:, None, :], y[None, :, :]",
        )
    dots = [place for place, part in enumerate(keys) if part is Ellipsis]
    given = len(keys) - len(dots)
    axes = batches + (2 if _width(tensor) == 1 and given <= batches + 2 else 3)
    if len(dots) > 1 or given > axes:
        raise ShapeError(
            f"there are {axes} axes to index"
            if given > axes
            else "`...` stands for axes once in an index",
            found=f"{_shown(key)} of shape {tensor.shape}",
            hint=f"x[{':, ' * (batches + 2)}k]",
        )
    place = dots[0] if dots else len(keys)
    keys[place : place + 1] = [_ALL] * (axes - given)
    keys += [_ALL] * (batches + 3 - axes)
    if not all(map(_is_all, keys[:batches])):
        raise UnsupportedError(
            "batch axes cannot be indexed",
            found=f"{_shown(key)} of shape {tensor.shape}",
            hint="index the arrays that the tensor is made of",
        )
    return keys[batches], keys[batches + 1], keys[batches + 2]


def _is_all(key: object) -> bool:
    return isinstance(key, slice) and key == _ALL


def _text(key: object) -> str:
    """A key as it is written."""
    if isinstance(key, slice):
        parts = [key.start, key.stop] if key.step is None else [key.start, key.stop, key.step]
        return ":".join("" if part is None else str(part) for part in parts)
    if key is Ellipsis:
        return "..."
    shape = getattr(key, "shape", ())
    return f"<{type(key).__name__} of shape {tuple(shape)}>" if len(shape) else repr(key)


def _shown(key: object) -> str:
    return f"[{', '.join(map(_text, key if isinstance(key, tuple) else (key,)))}]"


# -- components ------------------------------------------------------------------------------------


def _chosen_components(tensor: _T, key: object) -> _T:
    """Some of the components, joined again."""
    size, factor = _width(tensor), 1 + tensor.is_complex
    if isinstance(key, (int, np.integer)) and not isinstance(key, bool):
        if not -size <= key < size:
            raise ShapeError(
                f"components are numbered from 0 to {size - 1}, or from -1 to {-size} backwards",
                found=f"{_shown(key)} of shape {tensor.shape}",
                hint="x[0]",
            )
        place = int(key) % size
        if factor == 1:
            return tensor._apply("Elem", tensor, place)
        return tensor._apply("Extract", tensor, 2 * place, 2)
    places = _of_slice(tensor, key) if isinstance(key, slice) else _listed(tensor, key)
    if not len(places):
        raise ShapeError(
            "a vector has at least one component", found=f"{_shown(key)} of {size} components"
        )
    runs: list[tuple[int, int]] = []
    for place in places:
        if runs and place == sum(runs[-1]):
            runs[-1] = runs[-1][0], runs[-1][1] + 1
        else:
            runs.append((place, 1))
    parts = [
        tensor._apply("Extract", tensor, factor * start, factor * count) for start, count in runs
    ]
    found = parts[0]
    for part in parts[1:]:
        found = found._apply("Concat", found, part)
    return found


def _of_slice(tensor: Tensor, key: slice) -> Sequence[int]:
    """The components of a slice, which has to stay within them."""
    size = _width(tensor)
    bounds = [0 if bound is None else _whole(bound, key) for bound in (key.start, key.stop)]
    if any(not -size <= bound <= size for bound in bounds):
        raise ShapeError(
            "a slice of components goes beyond them",
            found=f"{_shown(key)} of {size} components",
            hint="x[:2], x[-2:], x[::2]"
            if size > 1
            else "K[a:b, :] for rows of a matrix with one number for each pair",
        )
    return range(size)[_checked_step(key)]


def _whole(bound: object, key: slice) -> int:
    found = attempted(operator.index, bound, None)  # pyright: ignore
    if found is None or isinstance(bound, bool):
        raise ShapeError("slices have whole numbers", found=_shown(key), hint="x[2:5], x[::2]")
    return found


def _checked_step(key: slice) -> slice:
    if key.step is not None and not _whole(key.step, key):
        raise ShapeError("the step of a slice cannot be 0", found=_shown(key), hint="x[::2]")
    return key


def _listed(tensor: Tensor, key: object) -> Sequence[int]:
    """The components of an array or list of indices or of truth values."""
    size = _width(tensor)
    if isinstance(key, (int, str, float, bool)):
        raise ShapeError(
            "components are indexed by whole numbers and slices",
            found=_shown(key),
            hint="x[0], x[1:3], x[[0, 2]]",
        )
    library = library_for(key)
    values = np.asarray(key if library is None else library.to_numpy(key))  # pyright: ignore
    chosen = _of_numbers(values, size, "components", key)
    return (chosen % size).tolist()


# -- rows and columns ------------------------------------------------------------------------------


def _of_numbers(values: np.ndarray, size: int, what: str, key: object) -> np.ndarray:
    """The places that an array of the host names, whole numbers or truth values.

    Raises:
        ShapeError: it is neither, or not of one axis, or beyond the size.
    """
    if values.ndim == 1 and not values.size and values.dtype.kind == "f":  # []
        values = values.astype(np.int64)
    if values.ndim != 1 or values.dtype.kind not in "iub":
        raise ShapeError(
            f"{what} are indexed by slices and arrays (k,) of whole numbers or truth values",
            found=f"{_shown(key)}, of shape {values.shape} and dtype {values.dtype}",
            hint="K[3:4] for one row, K[:, 3:4] for one column, x[:, :, k] for a component",
        )
    if values.dtype.kind == "b":
        _check_mask(values.shape, size, what, key)
        return np.flatnonzero(values)
    values = values.astype(np.int64)
    wrong = (values < -size) | (values >= size)
    if wrong.any():
        raise ShapeError(
            f"there are {size} {what}", found=f"index {values[wrong][0]} in {_shown(key)}"
        )
    return values


def _check_mask(shape: Sequence[int], size: int, what: str, key: object) -> None:
    if tuple(shape) != (size,):
        raise ShapeError(
            f"a mask has one truth value for each of the {size} {what}", found=_shown(key)
        )


def _places(library: ArrayLibrary, like: Array, size: int, key: object, kind: Axis) -> object:
    """A key as the library of the arrays takes it."""
    what = "rows" if kind == Axis.I else "columns"
    if isinstance(key, slice):
        for bound in (key.start, key.stop):
            if bound is not None:
                _whole(bound, key)
        if _checked_step(key).step is None or key.step > 0:
            return key
        return library.constants(np.arange(operator.index(size))[key].copy(), like)
    if isinstance(key, (bool, int, np.integer, float, str)):
        row = isinstance(key, (int, np.integer)) and not isinstance(key, bool)
        part = f"{key}:{key + 1 or ''}" if row else "3:4"  # pyright: ignore
        raise ShapeError(
            f"one of the {what} is a lazy tensor with as many axes: it is chosen by a slice",
            found=_shown(key),
            hint=f"K[{part}]" if kind == Axis.I else f"K[:, {part}]",
        )
    if library.owns(key):
        dtype = library.dtype(key)
        if len(key.shape) == 1 and dtype == "bool":
            _check_mask(tuple(key.shape), size, what, key)
            return key
        if len(key.shape) == 1 and dtype in WHOLE and not isinstance(key, np.ndarray):
            # What is beyond the size is found, or not, as the library does it.
            return library.cast(key, "int32") if dtype == "uint8" else key  # a mask to torch
    other = library_for(key)
    try:
        values = np.asarray(key if other is None else other.to_numpy(key))  # pyright: ignore
    except PairfoldError:
        raise
    except ValueError:
        values = np.zeros((0, 0))
    return library.constants(_of_numbers(values, size, what, key), like)


def _numbers_of(key: object, size: int, kind: Axis) -> Node:
    """The number of a chosen row among all, exactly: start + step times its own.

    Raises:
        UnsupportedError: an array has chosen them.
    """
    if not isinstance(key, slice):
        raise UnsupportedError(
            f"rows of a formula that reads their numbers are chosen by slices: "
            f"pairfold.{_LETTERS[kind]} has others where an array chooses",
            found=_shown(key),
            hint="K[10:20], K[::2]; an array of the numbers in the place of the index variable",
        )
    start, _, step = key.indices(operator.index(size))
    return constant(start) + constant(step) * index_node(kind)


def _chosen_pairs(tensor: _T, keys: dict[Axis, object]) -> _T:
    """Some of the rows and columns: of all arrays that have them."""
    places: dict[Axis, object] = {}
    numbers: dict[Node, Node] = {}
    for kind, key in keys.items():
        size = tensor.ni if kind == Axis.I else tensor.nj
        if _is_all(key):
            continue
        leaves = [leaf for leaf in tensor.leaves if leaf.kind in (kind, Axis.PAIR)]
        if any(leaf.symbol is not None for leaf in leaves):
            raise ArgumentError(
                f"rows of an argument that is to come cannot be chosen: it is indexed by "
                f"{_LETTERS[kind]}",
                found=repr(tensor),
                hint="choose from the array, and give it in the call",
            )
        if size is None or tensor.library is None:
            if isinstance(key, slice) and len(range(1)[_checked_step(key)]):
                continue
            raise ShapeError(
                f"the formula does not depend on {_LETTERS[kind]}: there is one to choose",
                found=f"{_text(key)} of shape {tensor.shape}",
            )
        like = next(leaf.owner for leaf in leaves if leaf.given)
        places[kind] = _places(tensor.library, like, size, key, kind)
        if counts(tensor.node, kind):
            numbers[index_node(kind)] = _numbers_of(key, size, kind)

    def part(leaf: Leaf) -> Leaf:
        if leaf.kind == Axis.PAIR:
            owner = leaf.owner
            for place, kind in enumerate((Axis.I, Axis.J)):
                if kind in places:
                    owner = owner[(..., places[kind], *[_ALL] * (2 - place))]
            return leaf.of_owner(owner)
        if leaf.kind not in places:
            return leaf
        assert leaf.form is not None
        after = 2 if leaf.form == Axis.I and len(leaf.owner.shape) > 2 else 1
        return leaf.of_owner(leaf.owner[(..., places[leaf.kind], *[_ALL] * after)])

    node, leaves = moved_leaves(tensor.node, tensor.leaves, part)
    found = tensor._of_leaves(substitute(node, numbers), leaves)
    found.axis, found.backend = tensor.axis, tensor.backend
    return found
