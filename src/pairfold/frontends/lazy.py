"""LazyTensor: an array that is a formula of arrays, computed only when it is reduced.

One class for every array library. A lazy tensor holds a graph, the leaves that its variables stand
for, and sizes; operators and methods build larger graphs by the rows of the table of operations,
and a reduction over i or j folds the graph. Data are held by reference, never copied.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, NoReturn, TypeVar, overload

import numpy as np

from ..arrays.advice import kind_name, to_array, to_dtype, to_one_dtype
from ..arrays.library import COMPLEX, SUPPORTED, WHOLE, ArrayLibrary
from ..arrays.registry import LIBRARIES
from ..core.cache import cached
from ..core.dtypes import DTYPES
from ..core.library import Array
from ..core.node import Axis, Node
from ..core.notebook import in_bytes, page
from ..core.show import formula_text
from ..errors import (
    ArgumentError,
    ArrayTypeError,
    DTypeError,
    OptionError,
    ReducedError,
    ShapeError,
)
from ..ops.steps import Steps
from ..ops.table import OPERATIONS, build
from ..settings import current
from .copies import converted, copied, packed, unpacked, with_owners
from .foreign import LAZY, Foreign
from .given import plain_number
from .leaves import Leaf, array_leaf, is_array, joined, library_from, numbered
from .ranges import same_ranges

if TYPE_CHECKING:
    from typing_extensions import Self

    from .complextensor import ComplexLazyTensor
    from .foreign import Lazy
    from .lazytensor import LazyTensor

_T = TypeVar("_T", bound="Tensor")
# What a result has in common with all operands, None where an operand does not know.
_SHARED = ("library", "real_dtype", "ni", "nj", "backend", "ranges")

_LONG = 160  # characters of a formula that are shown in one line
# Numbers beside which a formula stays what it is: one for all pairs, or for each.
_BESIDE = (Axis.PARAMETER, Axis.PAIR)
# Operations whose result has one component, whatever their operand has.
_ENDS = {"Sum", "Max", "Min", "ArgMax", "ArgMin"}


class Tensor(Foreign):
    """What real and complex lazy tensors share: leaves, sizes, joining, printing.

    `ni`, `nj`: sizes of the axes, None where the formula does not depend on them; `batch`: the
    sizes of batch axes; `dtype`: that of the arrays, None where only numbers are known.
    """

    __hash__ = None  # type: ignore[assignment]
    is_complex = False

    node: Node
    leaves: tuple[Leaf, ...]
    batch: tuple[int, ...]
    ni: int | None
    nj: int | None
    library: ArrayLibrary | None
    real_dtype: str | None
    axis: int | None
    ranges: Sequence[object] | None
    backend: str | None

    # Attributes that a reduction of a tensor has, too, while it waits for its call.
    _shown: ClassVar[frozenset[str]] = frozenset(
        ("symbols", "shape", "dtype", "ndim", "ni", "nj", "batchdims", "nbatchdims")
    ) | {"is_complex", "device", "ranges", "backend"}

    @classmethod
    def class_for(cls, is_complex: bool) -> type[Lazy]:
        """The class of results: of complex, or of real, numbers.

        Classes that derive from these overrule it, so that results are of theirs again.
        """
        raise NotImplementedError

    # -- construction ---------------------------------------------------------------------------

    def _blank(self) -> None:
        self.leaves, self.batch = (), ()
        self.ni = self.nj = self.library = self.real_dtype = None
        self.axis = self.ranges = self.backend = None

    def _set_leaf(self, leaf: Leaf) -> None:
        self.leaves, self.node = (leaf,), leaf.node
        self.axis = int(leaf.kind)

    def _set_array(self, x: Array, axis: int | None) -> None:
        """A leaf from an array: of three axes or more by its shape, else by `axis`."""
        try:
            shape = tuple(x.shape)
        except RuntimeError:  # a tensor without one
            library_from(x).check_kind(x, "x")
            raise
        if len(shape) >= 3:
            if axis is not None:
                raise OptionError(
                    "axis is told by the shape of an array with three axes",
                    found=f"axis={axis!r} and shape {shape}",
                    hint="LazyTensor(x) without axis",
                )
            kind = _by_shape(shape)
        else:
            kind = _by_axis(shape, axis)
        self._set_owner(x, kind)

    def _set_owner(self, x: Array, kind: Axis) -> None:
        """A leaf from an array of this kind."""
        self.library = library_from(x)
        self.real_dtype = self._checked_dtype(x, self.is_complex)
        if x.shape and not x.shape[-1]:
            raise ShapeError("a vector has at least one component", found=f"shape {tuple(x.shape)}")
        self._set_array_leaf(array_leaf(x, kind))

    def _set_array_leaf(self, leaf: Leaf) -> None:
        """The leaf of an array, and the sizes of that."""
        shape = tuple(leaf.array.shape)
        self.batch = shape[: -leaf.kind.axes]
        if leaf.kind == Axis.I:
            self.ni = shape[-2]
        elif leaf.kind == Axis.J:
            self.nj = shape[-2]
        elif leaf.kind == Axis.PAIR:
            self.ni, self.nj = shape[-3:-1]
        self._set_leaf(leaf)

    def _checked_dtype(self, x: Array, pairs: bool) -> str:
        """The dtype of an array's numbers: of real and imaginary parts where it has `pairs`."""
        given = library_from(x).dtype(x)
        found = COMPLEX.get(given, given)
        if found not in SUPPORTED:
            raise DTypeError(
                "a lazy tensor holds float32, float64, float16 or bfloat16 numbers",
                found=f"an array of dtype {given}",
                hint=to_dtype(x, "x", given),
            )
        if pairs != (given in COMPLEX):
            raise DTypeError(
                f"expected {'complex' if pairs else 'real'} numbers",
                found=f"an array of dtype {given}",
                hint="LazyTensor(x).real2complex()" if pairs else "x.real",
            )
        return found

    def _made(self, x: object) -> Lazy:
        """x as a lazy tensor; one of this tensor's classes where it is none yet.

        Raises:
            ArrayTypeError, ShapeError, OptionError ...: it cannot be one.
        """
        if x is None:
            check_kind(x)
        return x if isinstance(x, LAZY) else self.class_for(False)(self._promoted(x))

    def _promoted(self, x: object) -> object:
        """x in the dtype of this tensor where it is to follow it.

        Truth values and whole numbers do, and so do arrays without axes, as plain numbers.
        """
        if isinstance(x, (bool, np.bool_)):
            return int(x)
        if self.real_dtype is None or isinstance(x, np.generic) or not is_array(x):
            return x
        library = library_from(x)
        dtype = library.dtype(x)
        weak = dtype in SUPPORTED and not len(x.shape)
        if dtype != self.real_dtype and (weak or dtype == "bool" or dtype in WHOLE):
            x = library.cast(x, self.real_dtype)
        # Beside numbers (M, N), an array (M, N) is one of pairs, as it is everywhere.
        alike = not self.batch and self.ndim == 1 and tuple(x.shape) == (self.ni, self.nj)
        return x[:, :, None] if alike else x

    # -- sizes ----------------------------------------------------------------------------------

    @property
    def ndim(self) -> int:
        """The dimension of the vector at each pair (not a number of axes)."""
        return self.node.dim

    @property
    def _shape(self) -> tuple[int, ...]:
        """(..., M, N, D), with 1 for an axis that the formula does not depend on."""
        return (*self.batch, *(1 if n is None else n for n in (self.ni, self.nj)), self.ndim)

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
    def device(self) -> object:
        """The device of the arrays, "cpu" for NumPy; None where there is no array."""
        array = next((leaf.owner for leaf in self.leaves if leaf.given), None)
        return None if array is None else getattr(array, "device", "cpu")

    # -- joining --------------------------------------------------------------------------------

    def _like(self, node: Node, *others: Tensor) -> Self:
        """A tensor of this class with a graph of this tensor's leaves and those of others."""
        found = object.__new__(type(self))
        found._blank()
        found.node, found.leaves, found.batch = node, self.leaves, self.batch
        for name in _SHARED:
            setattr(found, name, getattr(self, name))
        for other in others:
            found._join(other)
        return found

    @classmethod
    def _of_leaves(cls, node: Node, leaves: Sequence[Leaf]) -> Self:
        """A tensor with a graph of these leaves."""
        found = object.__new__(cls)
        found._blank()
        found.node = node
        for leaf in leaves:
            part = object.__new__(cls.class_for(leaf.pairs))
            part._blank()
            if leaf.form is None:
                part._set_leaf(leaf)
            elif leaf.coded or leaf.truth:
                part._set_array_leaf(leaf)
            else:
                part.library = library_from(leaf.owner)
                part.real_dtype = part._checked_dtype(leaf.owner, leaf.pairs)
                part._set_array_leaf(leaf)
            found._join(part)
        return found

    def _join(self, other: Tensor) -> None:
        """Take in the leaves and the sizes of another tensor."""
        self.leaves = joined(self.leaves, other.leaves)
        for name in _SHARED:
            mine, its = getattr(self, name), getattr(other, name)
            if mine is None:
                setattr(self, name, its)
            elif its is not None and mine is not its:
                _check_common(name, self, other)
        if self.batch == other.batch:
            return
        try:
            self.batch = tuple(np.broadcast_shapes(self.batch, other.batch))
        except ValueError:
            raise ShapeError(
                "Incompatible batch dimensions", found=f"{self.batch}, {other.batch}"
            ) from None

    @overload
    @classmethod
    def concatenate(cls, tuple_of_lt: Sequence[LazyTensor], axis: int = -1) -> LazyTensor: ...
    @overload
    @classmethod
    def concatenate(cls, tuple_of_lt: Sequence[object], axis: int = -1) -> Lazy: ...
    @classmethod
    def concatenate(cls, tuple_of_lt: Sequence[object], axis: int = -1) -> Lazy:
        """The components of several tensors, one after the other (the last axis)."""
        real = cls.class_for(False)
        tensors: list[Lazy] = [x if isinstance(x, LAZY) else real(x) for x in tuple_of_lt]
        if not tensors:
            raise ArgumentError("nothing to concatenate", found=repr(tuple_of_lt))
        if any(x.is_complex for x in tensors):
            tensors = [
                x if x.is_complex else x._apply("Real2Complex", x)._as_complex() for x in tensors
            ]
        found = tensors[0]
        for part in tensors[1:]:
            found = found.concat(part)
        if axis not in (-1, found.nbatchdims + 2):
            raise OptionError(
                "only the last axis, that of components, can be concatenated", found=f"axis={axis}"
            )
        return found

    @overload
    @classmethod
    def cat(cls, tuple_of_lt: Sequence[LazyTensor], dim: int = -1) -> LazyTensor: ...
    @overload
    @classmethod
    def cat(cls, tuple_of_lt: Sequence[object], dim: int = -1) -> Lazy: ...
    @classmethod
    def cat(cls, tuple_of_lt: Sequence[object], dim: int = -1) -> Lazy:
        """`concatenate`, with torch's name for the axis."""
        return cls.concatenate(tuple_of_lt, axis=dim)

    def _apply(self, name: str, *operands: object) -> Self:
        """An operation on tensors of this class, nodes and parameters, in the row's order."""
        tensors = [operand for operand in operands if isinstance(operand, Tensor)]
        nodes = [o.node if isinstance(o, Tensor) else o for o in operands]
        others = [tensor for tensor in tensors if tensor is not self]
        try:
            node = _built(current().rules, name, *nodes)
        except TypeError:  # what cannot be hashed is no parameter: the row refuses it
            node = build(OPERATIONS[name], *nodes)
        return self._like(node, *others)

    def _operand(self, x: object) -> Lazy:
        """x as a tensor that this one can be joined with."""
        raise NotImplementedError

    def _binary(self, name: str, other: object) -> Lazy:
        """What `+`, `-`, `*` and `/` call, for operands that are not answered by themselves."""
        raise NotImplementedError

    def _as(self, kind: type[_T]) -> _T:
        """The same graph as a tensor of another class."""
        if type(self) is kind:
            return self
        found = object.__new__(kind)
        found.__dict__.update(self.__dict__)
        return found

    def _as_real(self) -> LazyTensor:
        """The same graph as a tensor of real numbers."""
        return self._as(self.class_for(False))  # pyright: ignore (that one of the two)

    def _as_complex(self) -> ComplexLazyTensor:
        """The same graph as a tensor of complex numbers."""
        return self._as(self.class_for(True))  # pyright: ignore (that one of the two)

    # -- text -----------------------------------------------------------------------------------

    def __str__(self) -> str:
        (node,), order = numbered([self.node], self.leaves)
        assert node is not None
        lines = ["KeOps LazyTensor", f"    formula: {formula_text(node)}"]
        if self.symbols:
            numbers = enumerate(leaf for leaf in order if leaf.symbol is not None)
            listed = ", ".join(f"Var({n}, {x.dim}, {int(x.kind)})" for n, x in numbers)
            lines.append(f"    symbolic variables: {listed}")
        lines.append(f"    shape: {self.shape}")
        return "\n".join(lines)

    def __repr__(self) -> str:
        (node,), _ = numbered([self.node], self.leaves)
        assert node is not None
        place = "" if self.device is None else f", device {self.device}"
        kind = type(self).__name__
        text = formula_text(node)
        return f"<{kind} {_in_one_line(text)}, shape {self.shape}, dtype {self.dtype}{place}>"

    def _repr_html_(self) -> str:
        """What notebooks show; nothing is computed."""
        (node,), _ = numbered([self.node], self.leaves)
        assert node is not None
        text = formula_text(node)
        short = _in_one_line(text)
        rows = [("formula", short), ("shape", " x ".join(map(str, self.shape)))]
        if self.dtype is not None:
            assert self.real_dtype is not None
            each = DTYPES[self.real_dtype].bytes * (2 if self.is_complex else 1)
            rows += [("dtype", self.dtype), ("device", str(self.device))]
            rows.append(("as a table", f"{in_bytes(math.prod(self.shape) * each)}, never made"))
        for leaf in self.symbols:
            rows.append(("to be given", f"Var({leaf.symbol}, {leaf.dim}, {int(leaf.kind)})"))
        return page(type(self).__name__, rows, {"whole formula": text} if short != text else {})

    def __call__(self, *arrays: object, **options: object) -> NoReturn:
        """Only reductions can be called.

        Raises:
            ArgumentError: always.
        """
        raise ArgumentError(
            "only a reduction can be called, and this LazyTensor is not reduced",
            found=repr(self),
            hint="x.sum(axis=1, call=False)",
        )

    # -- copies ---------------------------------------------------------------------------------

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        return self.with_arrays(lambda array: copied(array, memo))

    def to(self, *args: object, **options: object) -> Self:
        """The same formula of arrays on another device or of another dtype: torch's `to` of each.

        NumPy arrays take a dtype.
        """
        return self.with_arrays(lambda array: converted(array, *args, **options))

    def with_arrays(self, change: Callable[[Array], Array]) -> Self:
        """The same formula of other arrays: what `change` makes of each, once."""
        (node,), leaves = with_owners([self.node], self.leaves, change)
        return self.on_leaves(node, leaves)

    def on_leaves(self, node: Node, leaves: Sequence[Leaf]) -> Self:
        """A tensor like this one with another graph on other leaves of the same shapes."""
        found = self._like(node)
        found.leaves, found.axis = tuple(leaves), self.axis
        for leaf in leaves:
            if leaf.form is not None and not leaf.coded and not leaf.truth:
                found.real_dtype = found._checked_dtype(leaf.owner, leaf.pairs)
        return found

    def __reduce__(self) -> tuple[object, ...]:
        names = ("batch", "ni", "nj", "library", "real_dtype", "axis", "ranges", "backend")
        state = {name: getattr(self, name) for name in names}
        return self.restored, (packed([self.node], self.leaves), self.leaves, state)

    @classmethod
    def restored(cls, steps: Steps, leaves: tuple[Leaf, ...], state: Mapping[str, object]) -> Self:
        """A tensor as it was when it was pickled."""
        found = object.__new__(cls)
        found._blank()
        found.leaves = leaves
        (found.node,) = unpacked(steps, leaves)
        for name, value in state.items():
            setattr(found, name, value)
        return found


@cached("operations of lazy tensors", 4096, typed=True)
def _in_one_line(formula: str) -> str:
    """A formula whose middle is left out where it is long."""
    return formula if len(formula) <= _LONG else f"{formula[: _LONG - 40]} ... {formula[-35:]}"


def _built(rules: str, name: str, *operands: object) -> Node:
    """The node of an operation; programs make the same lazy tensors again and again."""
    return build(OPERATIONS[name], *operands)


def _check_common(name: str, first: Tensor, second: Tensor) -> None:
    """Raise unless two tensors have the same size, dtype, library, ranges or backend.

    Raises:
        ShapeError, DTypeError, ArrayTypeError: what differs, and of which arrays.
    """
    values = getattr(first, name), getattr(second, name)
    if same_ranges(*values) if name == "ranges" else values[0] == values[1]:
        return
    leaves = [_example(tensor, name) for tensor in (first, second)]
    found = " and ".join(
        str(value) if leaf is None else _array_text(leaf)
        for value, leaf in zip(values, leaves, strict=True)
    )
    arrays = [leaf.owner for leaf in leaves if leaf is not None]
    names = [_named(leaf) for leaf in leaves if leaf is not None]
    if len(set(names)) < len(names):
        names = ["a", "b"]
    if name in ("ni", "nj"):
        rows, index, other = ("rows", "i", "Vj") if name == "ni" else ("columns", "j", "Vi")
        pairs = next((leaf for leaf in leaves if leaf and leaf.kind == Axis.PAIR), None)
        raise ShapeError(
            f"{values[0]} and {values[1]} {rows} cannot be combined: both are indexed by {index}",
            found=found,
            hint=f"did you mean {other}(...) for one of them? Vi(x) and Vj(y) make all pairs"
            if pairs is None
            else "mask.T, or a view that repeats a row or column: it has a value for every pair"
            if pairs.truth
            else f"{_named(pairs)}[..., None], if its last two axes are i and j",
        )
    if name == "real_dtype":
        raise DTypeError(
            f"arrays of dtype {values[0]} and {values[1]} cannot be combined",
            found=found,
            hint=to_one_dtype(arrays, values, names) if len(arrays) == 2 else None,
        )
    if name == "library":
        by_library = sorted(zip(values, names, strict=True), key=lambda x: LIBRARIES.index(x[0]))
        (one, first_name), (other, second_name) = by_library
        raise ArrayTypeError(
            f"{one.words.many} and {other.words.many} cannot be combined",
            found=found,
            hint=f"{other.words.made.format(name=first_name)} for the array, or "
            f"{other.words.numpy.format(name=second_name)}",
        )
    raise ShapeError(
        f"the {name} of two tensors that are combined differ",
        found=found,
        hint=f"set .{name} of one of them to None, or give {name}= to the reduction",
    )


def _example(tensor: Tensor, name: str) -> Leaf | None:
    """An array of a tensor that gave it a size, dtype or library."""
    kinds = {"ni": (Axis.I, Axis.PAIR), "nj": (Axis.J, Axis.PAIR)}.get(name, tuple(Axis))
    if name in ("ranges", "backend"):
        return None
    return next((leaf for leaf in tensor.leaves if leaf.given and leaf.kind in kinds), None)


def _named(leaf: Leaf) -> str:
    return {Axis.I: "x", Axis.J: "y", Axis.PARAMETER: "p", Axis.PAIR: "b"}[leaf.kind]


def _array_text(leaf: Leaf) -> str:
    library = library_from(leaf.owner)
    dtype, shape = library.dtype(leaf.owner), tuple(leaf.owner.shape)
    return f"{library.words.one} of shape {shape}, {dtype}, {leaf.kind.says}"


def is_scalar(node: Node) -> bool:
    """Whether a formula is a scalar by the way it is made, whatever its variables' dimensions.

    Its parts that are not numbers or parameters are then whole numbers, or end in a sum or an
    extreme of components.
    """
    ends = False
    seen, todo = {node}, [node]
    while todo:
        found = todo.pop()
        if found.op.name in ("Ind", "Digits") or (found.op.name in _ENDS and found.args[0].dim > 1):
            ends = True
        elif found.op.name == "Var" and found.dim == 1 and found.variable.kind in _BESIDE:
            continue
        elif found.op.elementwise or found.op.name == "Constant":
            todo += [arg for arg in found.args if arg not in seen]
            seen.update(found.args)
        else:
            return False
    return ends


def _by_shape(shape: tuple[int, ...]) -> Axis:
    """What an array of three axes or more is indexed by."""
    rows, columns = shape[-3], shape[-2]
    if rows == 1 and columns == 1:
        return Axis.PARAMETER
    if columns == 1:
        return Axis.I
    return Axis.J if rows == 1 else Axis.PAIR


def _by_axis(shape: tuple[int, ...], axis: int | None) -> Axis:
    if len(shape) == 2:
        if axis not in (0, 1, 2):
            raise OptionError(
                "an array with two axes needs axis=0 (indexed by i) or axis=1 (by j)",
                found=f"axis={axis!r}, shape {shape}",
                hint="LazyTensor(x, axis=0), Vi(x) or x[:, None, :]; Vij(x), if they are i and j",
            )
        if axis == 2 and shape[0] != 1:
            raise ShapeError(
                "a parameter is one vector", found=f"axis=2, shape {shape}", hint="x[0]"
            )
        return Axis(axis)
    if axis not in (None, 2):
        raise OptionError(
            f"a variable indexed by {'i' if axis == 0 else 'j'} needs two axes: rows, components",
            found=f"axis={axis!r}, shape {shape}",
            hint="x[:, None] for one number per row, x[None, :] for one row, or Pm(x)"
            if shape
            else "Pm(x): a number is a parameter",
        )
    return Axis.PARAMETER


def check_last(tensor: Tensor, axis: int | None) -> None:
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


def number_leaf(values: Sequence[float]) -> Leaf:
    """A parameter made of numbers, which take the dtype of the arrays they meet."""
    return Leaf(Axis.PARAMETER, len(values), values=values)


def check_kind(x: object) -> None:
    """Refuse what cannot become a lazy tensor.

    Raises:
        ArrayTypeError, ReducedError: always.
    """
    if hasattr(x, "reduction_op"):
        raise ReducedError(
            "a reduction is a result to come, and no formula can contain it",
            found=repr(x),
            hint="call it, and make a LazyTensor of the array that it gives",
        )
    hint = to_array(x, "x", "numpy or torch")
    if x is None:
        hint = "`K is None`, not `K == None`"
    elif plain_number(x):
        hint = "Pm(x): a number is a parameter"
    elif isinstance(x, list) and not any(isinstance(part, (list, tuple)) for part in x):
        hint = f"{hint}[:, None] for one number per row, or Pm(x)"
    raise ArrayTypeError(
        "this data type cannot become a LazyTensor",
        found=kind_name(x),
        hint=hint or "an array, a number, a list of numbers, or (position, dim, category)",
    )


def symbol_leaf(x: tuple[int, ...], pairs: bool = False) -> Leaf:
    """The leaf of (position, dim, category); of dim complex numbers with `pairs`.

    Raises:
        ArgumentError: another tuple.
    """
    whole = len(x) == 3 and all(isinstance(n, (int, np.integer)) for n in x)
    if not whole or x[0] < 0 or x[1] < 1 or x[2] not in (0, 1, 2, 3):
        raise ArgumentError(
            "a symbol is a tuple (position, dim, category)",
            found=repr(x),
            hint="(0, 3, 0): argument 0, dimension 3, indexed by i; category 1: by j; 2: "
            "parameter; 3: indexed by i and j",
        )
    return Leaf(Axis(x[2]), int(x[1]) * (2 if pairs else 1), symbol=int(x[0]), pairs=pairs)
