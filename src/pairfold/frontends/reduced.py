"""A reduction of a lazy tensor that waits for its call."""

# A reduction is a part of the tensor that it reduces.
# pyright: reportPrivateUsage=false

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NoReturn

import numpy as np

from ..arrays.checks import check_out
from ..arrays.library import COMPLEX, ArrayLibrary
from ..arrays.opaque import traced_as
from ..arrays.registry import TORCH
from ..core.cache import Cache, Limit
from ..core.library import Array, NumpyArray
from ..core.node import Axis, Node
from ..errors import ArgumentError, DTypeError, OptionError, ReducedError, unexpected
from ..ops.reductions import REDUCTIONS
from ..ops.steps import Steps
from .accuracy import Accuracy
from .copies import converted, copied, packed, unpacked, with_owners
from .genred import CALL_OPTIONS
from .given import as_float, plain_number
from .leaves import Leaf, is_array, library_from, numbered, placed_variable
from .recording import made_now, recorded_as
from .reduction import FormulaReduction
from .typed import CallOptions, ReducedOptions, Result

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .explain import Explained
    from .records import Record
    from .reducing import Reducing

_folds: Cache[FormulaReduction] = Cache(Limit("reductions of lazy tensors", 512))


class Reduced:
    """A reduction that waits for its call: for symbols, for a dtype, or because it was asked to.

    Call it with one array per symbol, in the order of their positions: (M, D) or (N, D), or (D,)
    for a parameter. It has the attributes of the tensor that it reduces, but no operations.
    """

    _record: Record | None = None  # where torch.compile traces: the calls that make it
    __array_ufunc__ = None  # NumPy leaves operators to us, who refuse
    __hash__ = None  # type: ignore[assignment]
    # What users call each of the numbers that the fold counts along the reduced axis, if not that.
    columns: NumpyArray | None = None

    def __init__(
        self,
        tensor: Reducing,
        weight: Node | None,
        name: str,
        kept: Axis,
        length: int,
        accuracy: Accuracy,
        options: ReducedOptions,
        where: Node | None = None,
    ) -> None:
        self.tensor, self.weight, self.reduction_op, self.kept = tensor, weight, name, kept
        self.length, self.accuracy, self.options = length, accuracy, options.copy()
        self.where = where
        nodes, self.order = numbered([tensor.node, weight, where], tensor.leaves)
        self.fold = fold_of(nodes, self.order, name, kept, length, accuracy)
        checked_keepdim(name, self.options.get("keepdim"))

    @property
    def ready(self) -> bool:
        """Whether nothing is missing."""
        return self.tensor.library is not None and not self.tensor.symbols

    @property
    def axis(self) -> int:
        """The axis that is reduced."""
        return self.tensor.nbatchdims + (0 if self.kept == Axis.J else 1)

    @property
    def formula2(self) -> str | None:
        """The weight, None without one."""
        return None if self.weight is None else str(self.weight)

    @property
    def opt_arg(self) -> int | None:
        """The length of lists, None without them."""
        return self.length or None

    # -- calls ----------------------------------------------------------------------------------

    @recorded_as("__call__")
    def __call__(self, *arrays: object, **options: Unpack[ReducedOptions]) -> Result:
        """Compute; options (`backend`, `ranges`, `out` ...) are remembered for later calls.

        Raises:
            ArgumentError, ArrayTypeError, ShapeError, DTypeError, DeviceError, OptionError,
                RangeError: what does not fit.
        """
        checked_call(options)
        self.options.update(options)
        checked_keepdim(self.reduction_op, self.options.get("keepdim"))
        library, filled = filled_from(self.order, self.tensor.symbols, arrays)
        call = self.call_options()
        if self.tensor.is_complex:
            call["out"] = None
        return self.as_users_see(library, self.tensor._compute(self.fold, filled, None, **call))

    def as_users_see(self, library: ArrayLibrary, result: Result) -> Result:
        """What the fold gives, with the axes and in the place that the options ask for."""
        if self.columns is not None:
            result = self._renumbered(library, result, self.columns)
        keep, out = bool(self.options.get("keepdim")), self.options.get("out")
        if self.tensor.is_complex:
            result = self._shaped(library.as_complex(result), keep)
            return result if out is None else _filled(library, out, result)
        return result if out is not None else self._shaped(result, keep)

    def _renumbered(self, library: ArrayLibrary, result: Result, columns: NumpyArray) -> Result:
        """Results whose indices are numbers of columns, in the place where they are."""
        row = REDUCTIONS[self.reduction_op]
        if "index" not in row.kinds or not len(columns):
            return result
        found: list[Array] = []
        parts = result if isinstance(result, tuple) else (result,)
        for kind, part in zip((part.kind for part in row.results), parts, strict=True):
            if kind == "index":
                numbers = library.constants(columns, part)[part]
                if self.options.get("out") is None:
                    part = library.cast(numbers, library.dtype(part))
                else:
                    part[...] = numbers
            found.append(part)
        return tuple(found) if isinstance(result, tuple) else found[0]

    def call_options(self) -> CallOptions:
        """The options of a call, with what the tensor says of ranges and backend."""
        call = self.options.copy()
        call.pop("keepdim", None)
        if call.get("ranges") is None:
            call["ranges"] = self.tensor.ranges
        if call.get("backend") is None:
            call["backend"] = self.tensor.backend or "auto"
        return call

    def explain(
        self, *arrays: object, dtype: str = "float32", **options: Unpack[CallOptions]
    ) -> Explained:
        """How the reduction is computed; nothing is.

        Args:
            arrays: one per symbol, to explain the plan for their sizes; none for large sizes.
            dtype: the dtype to explain where no arrays are known.
            options: `backend` and `ranges`, as in a call.

        Raises:
            TypeError: an unknown option.
            ArgumentError, ArrayTypeError, ShapeError, DTypeError, DeviceError, OptionError,
                RangeError: what does not fit.
        """
        from .explain import explain_fold

        checked_call(options)
        call = self.call_options()
        call.update(options)
        waits = not arrays and not self.ready
        filled = [] if waits else filled_from(self.order, self.tensor.symbols, arrays)[1]
        ranges = None if waits else call.get("ranges")
        return explain_fold(self.fold, filled, dtype, None, call.get("backend", "auto"), ranges)

    def _shaped(self, result: Result, keep: bool) -> Result:
        """Results with all batch axes, and with the reduced axis where it is to be kept."""
        if isinstance(result, tuple):
            return tuple(self._shaped(array, keep) for array in result)
        lists = REDUCTIONS[self.reduction_op].top_k and self.fold.dim > 1
        missing = self.tensor.nbatchdims + 2 + lists - len(result.shape)
        if missing > 0:
            result = result.reshape((1,) * missing + tuple(result.shape))
        if not keep:
            return result
        return result[..., :, None, :] if self.kept == Axis.I else result[..., None, :, :]

    # -- copies ---------------------------------------------------------------------------------

    def __deepcopy__(self, memo: dict[int, object]) -> Reduced:
        return self.with_arrays(lambda array: copied(array, memo))

    def to(self, *args: object, **options: object) -> Reduced:
        """The same reduction of arrays on another device or of another dtype."""
        return self.with_arrays(lambda array: converted(array, *args, **options))

    def with_arrays(self, change: Callable[[Array], Array]) -> Reduced:
        """The same reduction of other arrays: what `change` makes of each, once."""
        return self._on(*with_owners(self._nodes(), self.tensor.leaves, change))

    def _nodes(self) -> list[Node]:
        given = (self.tensor.node, self.weight, self.where)
        return [node for node in given if node is not None]

    def _on(self, nodes: Sequence[Node], leaves: Sequence[Leaf]) -> Reduced:
        left = iter(nodes)
        tensor = self.tensor.on_leaves(next(left), leaves)
        weight = None if self.weight is None else next(left)
        where = None if self.where is None else next(left)
        rest = (self.reduction_op, self.kept, self.length, self.accuracy, self.options)
        return Reduced(tensor, weight, *rest, where).with_columns(self.columns)

    def with_columns(self, columns: NumpyArray | None) -> Reduced:
        """This reduction, whose indices are to be these numbers of columns."""
        self.columns = columns
        return self

    def __reduce__(self) -> tuple[object, ...]:
        weight, where = (
            None if node is None else packed([node], self.tensor.leaves)
            for node in (self.weight, self.where)
        )
        rest = (self.reduction_op, self.kept, self.length, self.accuracy, self.options)
        return _unpickled, (self.tensor, weight, *rest, where, self.columns)

    # -- what it is not -------------------------------------------------------------------------

    def __bool__(self) -> bool:
        raise _refused("if, and, or, not", self)

    def __array__(self, *args: object, **options: object) -> NoReturn:
        raise _refused("__array__", self)

    def __getattr__(self, name: str) -> object:
        if self._record is not None:
            return made_now(self, name)
        tensor = self.__dict__.get("tensor")
        if tensor is None or name.startswith("_") or not hasattr(type(tensor), name):
            if tensor is not None and name in tensor._shown:
                return getattr(tensor, name)
            raise AttributeError(f"a reduction has no attribute {name!r}")
        if name in tensor._shown:
            return getattr(tensor, name)
        raise _refused(name, self)

    # -- text -----------------------------------------------------------------------------------

    def __str__(self) -> str:
        lines = [str(self.tensor), f"    reduction: {self.reduction_op} (axis={self.axis})"]
        if self.weight is not None:
            (_, weight), _ = numbered([self.tensor.node, self.weight], self.tensor.leaves)
            lines.append(f"        formula2: {weight}")
        if self.where is not None:
            nodes, _ = numbered([self.tensor.node, self.weight, self.where], self.tensor.leaves)
            lines.append(f"        where: {nodes[2]}")
        if self.length:
            lines.append(f"        opt_arg: {self.length}")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"<reduction {self.reduction_op} over axis {self.axis} of {self.tensor!r}>"


def _refused(what: str, reduced: Reduced) -> ReducedError:
    return ReducedError(
        f"{what}: a reduction is a result to come, and no formula can contain it",
        found=repr(reduced),
        hint="call it, and make a LazyTensor of the array that it gives",
    )


def _refusing(name: str) -> Callable[..., NoReturn]:
    def method(self: Reduced, *operands: object) -> NoReturn:
        raise _refused(name, self)

    return method


for _name in ["add", "sub", "mul", "truediv", "or", "pow", "matmul"]:
    setattr(Reduced, f"__{_name}__", _refusing(f"__{_name}__"))
    setattr(Reduced, f"__r{_name}__", _refusing(f"__r{_name}__"))
for _name in ["neg", "abs", "eq", "ne", "lt", "le", "gt", "ge", "getitem"]:
    setattr(Reduced, f"__{_name}__", _refusing(f"__{_name}__"))


def _unpickled(
    tensor: Reducing,
    steps: Steps | None,
    name: str,
    kept: Axis,
    length: int,
    accuracy: Accuracy,
    options: ReducedOptions,
    mask: Steps | None = None,
    columns: NumpyArray | None = None,
) -> Reduced:
    weight = None if steps is None else unpacked(steps, tensor.leaves)[0]
    where = None if mask is None else unpacked(mask, tensor.leaves)[0]
    found = Reduced(tensor, weight, name, kept, length, accuracy, options, where)
    return found.with_columns(columns)


def symbols_wanted(symbols: Sequence[Leaf]) -> str:
    """What a call takes: the shape of the array for each symbol."""
    rows = {Axis.I: "M, ", Axis.J: "N, ", Axis.PARAMETER: "", Axis.PAIR: "M, N, "}
    parts = [
        f"array {leaf.symbol} of shape (..., {rows[leaf.kind]}{leaf.dim // (1 + leaf.pairs)})"
        for leaf in symbols
    ]
    return ", ".join(parts)


def checked_call(options: Mapping[str, object]) -> None:
    """Raise unless these are options of a reduction's call.

    Raises:
        TypeError: naming those that are not.
    """
    error = unexpected(options, [*CALL_OPTIONS, "keepdim"])
    if error is not None:
        raise error


def checked_keepdim(reduction_op: str, keepdim: object) -> None:
    """Raise unless keepdim can be had.

    Raises:
        OptionError: another value than True or False, or lists.
    """
    if keepdim not in (None, True, False):
        raise OptionError("keepdim is True or False", found=f"keepdim={keepdim!r}")
    if keepdim and REDUCTIONS[reduction_op].top_k:
        raise OptionError(
            f"{reduction_op} cannot keep the reduced axis: that of the list stands in its place",
            found="keepdim=True",
            hint="result[..., None]",
        )


def symbols_of_call(symbols: Sequence[Leaf]) -> int:
    """How many arrays a call takes."""
    # As torch.compile traces it: without `default`.
    return 1 + max([-1, *(leaf.symbol for leaf in symbols if leaf.symbol is not None)])


def filled_from(
    order: Sequence[Leaf], symbols: Sequence[Leaf], arrays: Sequence[object]
) -> tuple[ArrayLibrary, list[object]]:
    """The library of a call's arrays, and one for every variable.

    Raises:
        ArgumentError: another number of arrays than there are symbols.
    """
    wanted = symbols_of_call(symbols)
    if len(arrays) != wanted:
        raise ArgumentError(
            f"this reduction takes {wanted} array{'s' * (wanted != 1)}, one for each symbol",
            found=f"{len(arrays)} arrays",
            hint=symbols_wanted(symbols) if wanted else "call it without arrays",
        )
    given = [_array(leaf, arrays) for leaf in order]
    codes = [leaf.coded for leaf in order]
    numbers = (not coded and not leaf.truth for leaf, coded in zip(order, codes, strict=True))
    library, like = _library([x for x, own in zip(given, numbers, strict=True) if own])
    found = [library.numbers(x, like) if isinstance(x, tuple) else x for x in given]
    if any(codes):
        found = [
            leaf.codes_like(library, like) if leaf.coded else x
            for x, leaf in zip(found, order, strict=True)
        ]
    return library, found


def _array(leaf: Leaf, arrays: Sequence[object]) -> object:
    """The array of a leaf, or its numbers, as a tuple."""
    if leaf.symbol is None:
        return leaf.array if leaf.values is None else leaf.values
    array = arrays[leaf.symbol]
    if leaf.kind == Axis.PARAMETER and leaf.dim == 1 + leaf.pairs:
        if plain_number(array):
            return (as_float(array), 0.0)[: leaf.dim]
        if leaf.pairs and isinstance(array, (complex, np.complexfloating)):
            return (float(array.real), float(array.imag))
    if not leaf.pairs or not is_array(array):
        return array
    library = library_from(array)
    if library.dtype(array) not in COMPLEX:
        raise DTypeError(
            f"argument {leaf.symbol} must be an array of complex numbers",
            found=f"dtype {library.dtype(array)}",
        )
    return library.as_real(array)


def _library_traced(arrays: Sequence[object]) -> object:
    """What `_library` gives, without a look at what is known of classes, which would be guarded."""
    for array in arrays:
        if TORCH.owns(array):
            return TORCH, array
    return NotImplemented


@traced_as(_library_traced)
def _library(arrays: Sequence[object]) -> tuple[ArrayLibrary, Array]:
    """The library of the first array, and that array: its dtype and device are the result's."""
    first = next(filter(is_array, arrays), None)
    if first is None:
        raise ArgumentError(
            "a formula of numbers alone has no dtype: there is nothing to compute with",
            hint="make one of them an array",
        )
    return library_from(first), first


def _filled(library: ArrayLibrary, out: object, result: Array) -> object:
    """`out`, with a result copied into it."""
    check_out(library, out, tuple(result.shape), library.dtype(result), result)
    assert library.owns(out)
    out[...] = result
    return out


def fold_of(
    nodes: Sequence[Node | None],
    order: Sequence[Leaf],
    name: str,
    kept: Axis,
    length: int,
    accuracy: Accuracy,
) -> FormulaReduction:
    """The fold of numbered graphs; equal ones are one, with what it learnt of sizes."""
    formula, weight, where = nodes
    assert formula is not None
    variables = tuple(placed_variable(k, leaf.dim, leaf.kind) for k, leaf in enumerate(order))
    key = (formula, weight, where, variables, name, kept, length, accuracy)
    rest = (name, kept, None, accuracy, weight, length, None, where)
    return _folds.of(key, lambda: FormulaReduction(formula, variables, *rest))
