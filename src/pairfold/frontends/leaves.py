"""Leaves of symbolic tensors: arrays, numbers and symbols that a graph's variables stand for.

Every leaf has a variable node of its own, with a position that no other living leaf has; when a
formula is reduced, its variables are numbered anew in the order of their leaves, so equal formulas
of different arrays are one graph and share their machine code. Positions are used again, the
lowest first: a program that makes the same lazy tensors again and again makes the same nodes, too.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeGuard

import numpy as np

from ..arrays.library import COMPLEX, ArrayLibrary
from ..arrays.registry import library_for
from ..calculus.substitute import substitute
from ..core.cache import cached
from ..core.constants import mark
from ..core.library import Array, Device
from ..core.node import Axis, Node
from ..errors import ArgumentError, ArrayTypeError, DTypeError
from ..ops.table import variable

_positions = itertools.count(1)
_free: list[int] = []  # a heap; each use of it is one step for the interpreter, so no lock


class Leaf:
    """An argument of a formula: an array, a list of numbers, or a symbol to be given later.

    `array` is indexed as a fold wants it: (..., rows, dim), or (..., dim) for a parameter; it is a
    view of `owner`, the array as it was given, by its `form`: the kind it was given as. `values`
    are numbers without a dtype; `symbol` is the position in a later call. `pairs`: whether the
    array is one of complex numbers, or will be.
    """

    __slots__ = (
        "_array",
        "_constants",
        "dim",
        "form",
        "kind",
        "node",
        "owner",
        "pairs",
        "symbol",
        "values",
    )

    def __init__(
        self,
        kind: Axis,
        dim: int,
        array: Array | None = None,
        values: Sequence[float] | None = None,
        symbol: int | None = None,
        owner: Any = None,  # an array; whatever no other leaf has, where one is to come
        form: Axis | None = None,
        pairs: bool = False,
    ) -> None:
        self.kind, self.dim, self._array = kind, dim, array
        self.values = None if values is None else tuple(values)
        self.symbol, self.owner, self.form, self.pairs = symbol, owner, form, pairs
        self._constants: dict[tuple[str, str, Device | None], Array] = {}
        self.node = placed_variable(_position(), dim, kind)

    def __del__(self) -> None:
        node = getattr(self, "node", None)
        if node is not None and heapq is not None:
            heapq.heappush(_free, node.params[0])

    @property
    def array(self) -> Any:
        """The array's present values: pairs of a complex array may have to be copied for a call.

        None for numbers and symbols.
        """
        if self.form is not None and self._array is None:
            return viewed(self.owner, self.form)
        return self._array

    @property
    def given(self) -> bool:
        """Whether the leaf stands for an array."""
        return self.owner is not None

    @property
    def coded(self) -> bool:
        """Whether the array holds codes: truth values are some, but for those of pairs."""
        return self.form is not None and is_coded(self.owner) and not self.truth

    @property
    def truth(self) -> bool:
        """Whether the array holds a truth value for every pair, which are read as they are."""
        if self.kind != Axis.PAIR or self.form is None:
            return False
        return library_from(self.owner).dtype(self.owner) == "bool"

    def codes_like(self, library: ArrayLibrary, like: Array) -> Array:
        """The codes as numbers of the dtype of another array, beside it: made once for each.

        Where a program is traced, they are a part of it, and not kept.
        """
        if not isinstance(self.owner, np.ndarray):
            return library.cast(self.array, library.dtype(like))
        key = library.name, library.dtype(like), library.device(like)
        found = self._constants.get(key)
        if found is None:
            found = library.cast(library.constants(self.array, like), key[1])
            if _has_values(library, found):
                self._constants[key] = mark(found)
        return found

    def codes_of(self, other: Leaf) -> None:
        """The codes are those of another leaf, for the other index: numbers are made for both."""
        self._constants = other._constants

    @property
    def key(self) -> tuple[object, ...]:
        """Equal for leaves that are one argument: the same array, symbol or numbers."""
        if self.symbol is not None:
            return self.kind, self.dim, "symbol", self.symbol, self.pairs
        if self.values is not None:
            return self.kind, self.dim, "numbers", *(float(value).hex() for value in self.values)
        return self.kind, self.dim, "array", id(self.owner), self.form

    def same(self, other: Leaf) -> bool:
        """Whether two leaves are one argument."""
        return self.key == other.key

    def of_kind(self, kind: Axis) -> Leaf:
        """The argument of this leaf, indexed by another index."""
        if kind == self.kind:
            return self
        found = (self._array, self.values, self.symbol, self.owner, self.form, self.pairs)
        return Leaf(kind, self.dim, *found)

    def transposed(self) -> Leaf:
        """The argument of this leaf, an array of pairs, with i and j the other way round.

        Raises:
            ArgumentError: the array is to come.
        """
        if self.form is None:
            raise ArgumentError(
                "an array of pairs that is to come cannot be transposed",
                found=repr(self),
                hint="the formula written with the other axis: axis=0 in place of axis=1",
            )
        axis = len(self.owner.shape) - 3
        return array_leaf(library_from(self.owner).moved(self.owner, axis, axis + 1), Axis.PAIR)

    def of_owner(self, owner: Array) -> Leaf:
        """A leaf of another array of the same shape, seen in the same way.

        Raises:
            DTypeError: complex numbers for real ones, or real ones for complex ones.
        """
        assert self.form is not None
        dtype = library_from(owner).dtype(owner)
        if (dtype in COMPLEX) != self.pairs:
            raise DTypeError(
                f"{'complex' if self.pairs else 'real'} numbers cannot become others",
                found=f"an array of dtype {dtype}",
                hint="x.real, x.imag or x.real2complex()",
            )
        return array_leaf(owner, self.form).of_kind(self.kind)

    def __reduce__(self) -> tuple[object, ...]:
        if self.form is not None:
            return _restored, (self.kind, self.form, self.owner)
        found = (self._array, self.values, self.symbol, self.owner, self.form, self.pairs)
        return Leaf, (self.kind, self.dim, *found)

    def __repr__(self) -> str:
        return f"<leaf {self.node}>"


def _position() -> int:
    """The lowest position that no living leaf has."""
    try:
        return heapq.heappop(_free)
    except IndexError:
        return next(_positions)


@cached("variables of lazy tensors", 1024)
def placed_variable(position: int, dim: int, kind: Axis) -> Node:
    """The node of an argument; the last ones made are kept."""
    return variable(position, dim, kind)


def array_leaf(owner: Array, form: Axis) -> Leaf:
    """The leaf of an array, given as a variable of this kind."""
    array = viewed(owner, form)
    pairs = library_from(owner).dtype(owner) in COMPLEX
    shown = None if pairs else array
    # Where torch records, sizes may be symbols; the dimension is a part of the formula.
    return Leaf(form, int(array.shape[-1]), shown, owner=owner, form=form, pairs=pairs)


def _has_values(library: ArrayLibrary, array: Array) -> bool:
    """Whether an array is more than a part of a program that is traced."""
    try:
        library.check_kind(array, "codes")
    except ArrayTypeError:
        return False
    return not library.wants_gradient(array)


def is_coded(array: Array) -> bool:
    """Whether an array holds codes or truth values: numbers to 255, for data of any dtype."""
    return library_from(array).dtype(array) in ("uint8", "bool")


def _restored(kind: Axis, form: Axis, owner: Array) -> Leaf:
    return array_leaf(owner, form).of_kind(kind)


def library_from(array: object) -> ArrayLibrary:
    """The library of what is known to be an array."""
    found = library_for(array)
    assert found is not None
    return found


def is_array(x: object) -> TypeGuard[Array]:
    """Whether x is an array of some library."""
    return library_for(x) is not None


def viewed(owner: Array, form: Axis) -> Array:
    """An array as a fold wants it: without the axis of the index that it does not have."""
    library = library_from(owner)
    library.check_traced()  # sizes would be tensors
    return placed(library.as_real(owner), form)


def placed(x: Array, form: Axis) -> Array:
    """An array given as a variable of this kind, as (..., rows, dim), or (..., dim)."""
    if len(x.shape) >= 3 and form != Axis.PAIR:
        if form == Axis.I:
            return x[..., 0, :]
        return x[..., 0, :, :] if form == Axis.J else x[..., 0, 0, :]
    if form == Axis.PARAMETER:
        return x.reshape(1) if not len(x.shape) else x[0] if len(x.shape) == 2 else x
    return x


def moved_leaves(
    node: Node, leaves: Sequence[Leaf], move: Callable[[Leaf], Leaf]
) -> tuple[Node, tuple[Leaf, ...]]:
    """A graph on other leaves: `move` says which, of equal leaves once."""
    found: dict[tuple[object, ...], Leaf] = {}
    for leaf in leaves:
        if leaf.key not in found:
            found[leaf.key] = move(leaf)
    others = {leaf.node: found[leaf.key].node for leaf in leaves}
    return substitute(node, others), tuple(found.values())


def alike(leaves: Iterable[Leaf], wanted: Leaf) -> list[Leaf]:
    """The leaves that stand for the same argument: the same array, or else the same memory.

    Numbers are the same argument where they are one object, or else where they are equal. An array
    and its detached twin share their memory, but not their gradients: they are two.
    """
    leaves = tuple(leaves)
    if wanted.values is not None and wanted in leaves:
        return [wanted]
    found = [leaf for leaf in leaves if leaf.same(wanted)]
    memory = None if found else _memory(wanted)
    if memory is not None:
        found = [leaf for leaf in leaves if _memory(leaf) == memory]
    return found


def _memory(leaf: Leaf) -> tuple[object, ...] | None:
    """What two views of the same numbers have in common, None where there is no telling."""
    if not leaf.given or leaf.form is None or leaf.pairs:
        return None
    array, library = leaf.array, library_from(leaf.owner)
    place = library.memory(array)
    if place is None:
        return None
    return leaf.kind, library.dtype(array), tuple(array.shape), *place


def joined(first: Sequence[Leaf], second: Sequence[Leaf]) -> tuple[Leaf, ...]:
    """The leaves of both, each once."""
    found = dict.fromkeys(first)
    found.update(dict.fromkeys(second))
    return tuple(found)


def numbered(
    nodes: Sequence[Node | None], leaves: Iterable[Leaf]
) -> tuple[list[Node | None], list[Leaf]]:
    """Graphs with variables numbered from 0, and the leaf at each number.

    Symbols come first, by their positions; arrays and numbers after them, in the order of
    `leaves`, but arrays of truth values last: the first array says the dtype of results. Leaves
    that no graph uses are kept: their sizes count.
    """
    leaves = tuple(leaves)
    distinct: dict[tuple[object, ...], Leaf] = {}
    for leaf in leaves:
        distinct.setdefault(leaf.key, leaf)
    symbols = sorted((x for x in distinct.values() if x.symbol is not None), key=_symbol)
    others = [leaf for leaf in distinct.values() if leaf.symbol is None]
    order = symbols + sorted(others, key=lambda leaf: leaf.truth)
    final = {leaf.key: place for place, leaf in enumerate(order)}
    moved = tuple((leaf.node, final[leaf.key]) for leaf in leaves)
    return [None if node is None else _renumbered(node, moved) for node in nodes], order


@cached("formulas of lazy tensors", 1024)
def _renumbered(node: Node, moved: tuple[tuple[Node, int], ...]) -> Node:
    """The graph with each of these variables at its new position."""
    return substitute(node, {old: variable(new, *old.params[1:]) for old, new in moved})


def _symbol(leaf: Leaf) -> int:
    assert leaf.symbol is not None
    return leaf.symbol
