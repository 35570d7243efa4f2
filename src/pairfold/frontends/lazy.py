"""LazyTensor: an array that is a formula of arrays, computed only when it is reduced.

One class for every array library. A lazy tensor holds a graph, the leaves that its variables stand
for, and sizes; operators and methods build larger graphs by the rows of the table of operations,
and a reduction over i or j folds the graph. Data are held by reference, never copied.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..core.node import Kind, Node
from ..core.show import formula_text
from ..errors import ArgumentError, ArrayTypeError, DTypeError, OptionError, ShapeError
from ..ops.table import OPERATIONS, build
from .arrays import ADAPTERS, SUPPORTED
from .leaves import Leaf, joined, numbered
from .ranges import same_ranges

COMPLEX = {"complex64": "float32", "complex128": "float64"}


class Tensor:
    """What real and complex lazy tensors share: leaves, sizes, joining, printing.

    `ni`, `nj`: sizes of the axes, None where the formula does not depend on them; `batch`: the
    sizes of batch axes; `dtype`: that of the arrays, None where only numbers are known.
    """

    __array_ufunc__ = None  # NumPy leaves operators to us
    __hash__ = None  # type: ignore[assignment]
    is_complex = False

    node: Node
    leaves: tuple[Leaf, ...]
    batch: tuple[int, ...]
    ni: int | None
    nj: int | None
    adapter: Any
    real_dtype: str | None
    axis: int | None
    ranges: Any
    backend: Any

    # -- construction ---------------------------------------------------------------------------

    def _blank(self) -> None:
        self.leaves, self.batch = (), ()
        self.ni = self.nj = self.adapter = self.real_dtype = None
        self.axis = self.ranges = self.backend = None

    def _set_leaf(self, leaf: Leaf) -> None:
        self.leaves, self.node = (leaf,), leaf.node
        self.axis = int(leaf.kind)

    def _set_array(self, x: Any, adapter: Any, axis: int | None, given: Any) -> None:
        """A leaf from an array: of three axes or more by its shape, else by `axis`."""
        self.adapter, self.real_dtype = adapter, adapter.dtype(x)
        if self.real_dtype not in SUPPORTED:
            raise DTypeError(
                "a lazy tensor holds float32, float64, float16 or bfloat16 numbers",
                found=f"an array of dtype {adapter.dtype(given)}",
                hint="x.astype('float32')" if adapter.name == "numpy" else "x.float()",
            )
        shape = tuple(x.shape)
        if len(shape) >= 3:
            if axis is not None:
                raise OptionError(
                    "axis is told by the shape of an array with three axes",
                    found=f"axis={axis!r} and shape {shape}",
                    hint="LazyTensor(x) without axis",
                )
            kind, x = _by_shape(x, shape)
        else:
            kind = _by_axis(shape, axis)
            x = x.reshape(1) if not shape else x
            x = x[0] if kind == Kind.PARAMETER and len(shape) == 2 else x
        own = 1 if kind == Kind.PARAMETER else 2
        self.batch = tuple(x.shape[:-own])
        if kind == Kind.I:
            self.ni = x.shape[-2]
        elif kind == Kind.J:
            self.nj = x.shape[-2]
        self._set_leaf(Leaf(kind, x.shape[-1], x, owner=given))

    def lt_constructor(
        self, x: Any = None, axis: int | None = None, is_complex: bool = False
    ) -> Any:
        """A lazy tensor of x."""
        raise NotImplementedError

    # -- sizes ----------------------------------------------------------------------------------

    @property
    def ndim(self) -> int:
        """The dimension of the vector at each pair (not a number of axes)."""
        return self.node.dim

    @property
    def _shape(self) -> tuple[int, ...]:
        """(..., M, N, D), with 1 for an axis that the formula does not depend on."""
        return (*self.batch, self.ni or 1, self.nj or 1, self.ndim)

    @property
    def shape(self) -> tuple[int, ...]:
        """(..., M, N, D), or (..., M, N) where D is 1."""
        found = self._shape
        return found[:-1] if found[-1] == 1 else found

    def dim(self) -> int:
        """The number of axes, with that of the vector."""
        return len(self._shape)

    @property
    def nbatchdims(self) -> int:
        """The number of batch axes."""
        return len(self.batch)

    @property
    def batchdims(self) -> tuple[int, ...] | None:
        """The sizes of the batch axes, None without any."""
        return self.batch or None

    @property
    def dtype(self) -> str | None:
        """The name of the numbers' dtype, None where it follows from what is joined later."""
        return self.real_dtype

    @property
    def symbols(self) -> list[Leaf]:
        """Arguments to be given in a call, in the order of their positions."""
        found = {leaf.symbol: leaf for leaf in self.leaves if leaf.symbol is not None}
        return [found[position] for position in sorted(found)]

    @property
    def device(self) -> Any:
        """The device of the arrays, as their library has it; None where there is none."""
        array = next((leaf.array for leaf in self.leaves if leaf.array is not None), None)
        return getattr(array, "device", None)

    # -- joining --------------------------------------------------------------------------------

    def _like(self, node: Node, *others: Tensor) -> Any:
        """A tensor of this class with a graph of this tensor's leaves and those of others."""
        found = object.__new__(type(self))
        found._blank()
        found.node = node
        parts = (self, *others)
        for part in parts:
            found.leaves = joined(found.leaves, part.leaves)
        for name in ("ni", "nj", "real_dtype", "adapter", "backend", "ranges"):
            setattr(found, name, _common(name, [getattr(part, name) for part in parts]))
        try:
            found.batch = tuple(np.broadcast_shapes(*(part.batch for part in parts)))
        except ValueError:
            raise ShapeError(
                "Incompatible batch dimensions",
                found=", ".join(str(part.batch) for part in parts),
            ) from None
        return found

    def _apply(self, name: str, *operands: Any) -> Any:
        """An operation on tensors of this class, nodes and parameters, in the row's order."""
        tensors = [operand for operand in operands if isinstance(operand, Tensor)]
        nodes = [o.node if isinstance(o, Tensor) else o for o in operands]
        others = [tensor for tensor in tensors if tensor is not self]
        return self._like(build(OPERATIONS[name], *nodes), *others)

    # -- text -----------------------------------------------------------------------------------

    def __str__(self) -> str:
        (node,), order = numbered([self.node], self.leaves)
        assert node is not None
        lines = ["KeOps LazyTensor", f"    formula: {formula_text(node)}"]
        if self.symbols:
            listed = ", ".join(str(leaf.node) for leaf in order if leaf.symbol is not None)
            lines.append(f"    symbolic variables: {listed}")
        lines.append(f"    shape: {self.shape}")
        return "\n".join(lines)

    def __repr__(self) -> str:
        (node,), _ = numbered([self.node], self.leaves)
        assert node is not None
        place = "" if self.device is None else f", device {self.device}"
        kind = type(self).__name__
        return f"<{kind} {formula_text(node)}, shape {self.shape}, dtype {self.dtype}{place}>"

    # -- copies ---------------------------------------------------------------------------------

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        import copy

        return self._with_arrays(lambda array: copy.deepcopy(array, memo))

    def to(self, *args: Any, **options: Any) -> Any:
        """The same formula of arrays moved by their own `to` (torch), e.g. to a device or dtype."""
        return self._with_arrays(lambda array: array.to(*args, **options))

    def _with_arrays(self, change: Any) -> Any:
        from ..calculus.substitute import substitute

        found = self._like(self.node)
        moved: dict[Node, Node] = {}
        leaves: list[Leaf] = []
        changed: dict[int, Any] = {}
        for leaf in self.leaves:
            if leaf.array is None:
                leaves.append(leaf)
                continue
            array = change(leaf.array)
            owner = changed.setdefault(id(leaf.owner), array)
            leaves.append(Leaf(leaf.kind, leaf.dim, array, owner=owner))
            moved[leaf.node] = leaves[-1].node
            found.real_dtype = found.adapter.dtype(array)
        found.leaves, found.node = tuple(leaves), substitute(self.node, moved)
        return found


def _common(name: str, values: Sequence[Any]) -> Any:
    """The one value that parts have in common, None being unknown."""
    known = [value for value in values if value is not None]
    for value in known[1:]:
        same = value is known[0]
        if not same and name == "ranges":
            same = same_ranges(value, known[0])
        if not same and name != "ranges":
            same = value == known[0]
        if not same:
            label = {"real_dtype": "dtype", "adapter": "tools"}.get(name, name)
            shown = [getattr(v, "name", v) for v in (known[0], value)]
            raise ShapeError(
                f"Incompatible values for attribute {label}", found=f"{shown[0]} and {shown[1]}"
            )
    return known[0] if known else None


def _by_shape(x: Any, shape: tuple[int, ...]) -> tuple[Kind, Any]:
    """What an array of three axes or more is indexed by, and the array as a fold wants it."""
    rows, columns = shape[-3], shape[-2]
    if rows == 1 and columns == 1:
        return Kind.PARAMETER, x[..., 0, 0, :]
    if columns == 1:
        return Kind.I, x[..., 0, :]
    if rows == 1:
        return Kind.J, x[..., 0, :, :]
    raise ShapeError(
        "an array with three axes or more must be indexed by i or by j, not by both",
        found=f"shape {shape}",
        hint="x[:, None, :] for i, of shape (M, 1, D); y[None, :, :] for j, of shape (1, N, D)",
    )


def _by_axis(shape: tuple[int, ...], axis: int | None) -> Kind:
    if len(shape) == 2:
        if axis not in (0, 1, 2):
            raise OptionError(
                "an array with two axes needs axis=0 (indexed by i) or axis=1 (by j)",
                found=f"axis={axis!r}, shape {shape}",
                hint="LazyTensor(x, axis=0), Vi(x) or x[:, None, :]",
            )
        if axis == 2 and shape[0] != 1:
            raise ShapeError(
                "a parameter is one vector", found=f"axis=2, shape {shape}", hint="x[0]"
            )
        return Kind(axis)
    if axis not in (None, 2):
        raise OptionError("a vector is a parameter (axis=2)", found=f"axis={axis!r}, shape {shape}")
    return Kind.PARAMETER


def adapter_for(x: object) -> Any:
    """The adapter of an array's library, None for what is not an array."""
    return next((adapter for adapter in ADAPTERS if adapter.owns(x)), None)


def number_leaf(values: Sequence[float]) -> Leaf:
    """A parameter made of numbers, which take the dtype of the arrays they meet."""
    return Leaf(Kind.PARAMETER, len(values), values=values)


def plain_number(x: object) -> bool:
    """Whether x is a real number other than a truth value."""
    return isinstance(x, (int, float, np.integer, np.floating)) and not isinstance(x, bool)


def check_kind(x: object) -> None:
    """Refuse what cannot become a lazy tensor.

    Raises:
        ArrayTypeError: always.
    """
    kind = type(x)
    raise ArrayTypeError(
        "this data type cannot become a LazyTensor",
        found=f"a {kind.__module__}.{kind.__qualname__}",
        hint="an array, a number, a list of numbers, or (position, dim, category)",
    )


def symbol_leaf(x: tuple[Any, ...]) -> Leaf:
    """The leaf of (position, dim, category).

    Raises:
        ArgumentError: another tuple.
    """
    whole = len(x) == 3 and all(isinstance(n, (int, np.integer)) for n in x)
    if not whole or x[0] < 0 or x[1] < 1 or x[2] not in (0, 1, 2):
        raise ArgumentError(
            "a symbol is a tuple (position, dim, category)",
            found=repr(x),
            hint="(0, 3, 0): argument 0, dimension 3, indexed by i; category 1: by j; 2: parameter",
        )
    return Leaf(Kind(x[2]), int(x[1]), symbol=int(x[0]))
