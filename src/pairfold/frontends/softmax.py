"""The soft-max along an axis of a lazy tensor: weights that are multiplied and summed."""

# A soft-max is made of the parts of the tensor that it is of.
# pyright: reportPrivateUsage=false

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NoReturn

from ..core.node import Axis
from ..errors import ArrayTypeError, OptionError, ReducedError, ShapeError
from .foreign import name_of
from .leaves import is_array
from .recording import made_now, record_calls, recorded_as
from .typed import ReductionOptions, Result

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .foreign import Lazy
    from .records import Record
    from .summaries import Summaries


class SoftMax:
    """Soft-max weights along one axis of a lazy tensor: they multiply, and are summed.

    `kept` is the index that is not summed over. Sums are `SumSoftMaxWeight`, over the pairs for
    which the mask `where` holds.
    """

    _record: Record | None = None  # where torch.compile traces: the calls that make it
    __array_ufunc__ = None  # NumPy leaves operators to us
    __hash__ = None  # type: ignore[assignment]

    def __init__(
        self,
        tensor: Summaries,
        kept: Axis,
        weight: Lazy | None = None,
        where: Summaries | None = None,
    ) -> None:
        self._tensor, self._kept, self._weight, self._where = tensor, kept, weight, where

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the weights, or of what they are multiplied with."""
        shown = self._tensor if self._weight is None else self._tensor * self._weight
        return shown.shape

    @property
    def axis(self) -> int:
        """The axis that the weights add up to 1 along."""
        return self._tensor.nbatchdims + (self._kept == Axis.I)

    @property
    def T(self) -> SoftMax:
        """The transposed weights: i and j trade places."""
        other = Axis.J if self._kept == Axis.I else Axis.I
        weight = None if self._weight is None else self._weight.t()
        where = None if self._where is None else self._where.t()
        return SoftMax(self._tensor.t(), other, weight, where)

    def __matmul__(self, v: Result) -> Result:
        """The means of a vector (N,) or of vectors (..., N, E), by weights along j."""
        if self._weight is not None or not is_array(v):
            raise _unknown("@ of this operand", self)
        if self._kept != Axis.I:
            raise ArrayTypeError(
                "these weights add up to 1 along i, and a product sums over j",
                found=repr(self),
                hint="u @ K.softmax(0) sums over i; (K - Vj(K.logsumexp(axis=0))).exp() @ v over j",
            )
        if self._tensor.ndim != 1:
            raise ShapeError(
                "only weights that are one for each pair can be multiplied with vectors",
                found=repr(self),
                hint="(K.softmax(1) * V).sum(1) takes each component by its own weights",
            )
        flat = len(v.shape) == 1
        columns = v.reshape(-1, 1) if flat else v
        found = (self * self._tensor._column_variable(columns)).sum(self.axis)
        return found.reshape(-1) if flat else found

    def __rmatmul__(self, v: Result) -> Result:
        """The means of a vector (M,) or of rows (..., E, M), by weights along i."""
        rows: Result = v
        if not is_array(v) or len(v.shape) < 2:
            return self.T @ rows
        return (self.T @ rows.swapaxes(-1, -2)).swapaxes(-1, -2)

    def __mul__(self, other: object) -> SoftMax:
        """The weights times a lazy tensor, to be summed along their axis."""
        weight = self._tensor._operand(other)
        if weight.is_complex:
            raise ArrayTypeError("a weight cannot be complex", hint="weight.real, weight.imag")
        product = weight if self._weight is None else self._weight * weight
        return SoftMax(self._tensor, self._kept, product, self._where)

    __rmul__ = __mul__

    def sum(
        self, axis: int | None = None, dim: int | None = None, **options: Unpack[ReductionOptions]
    ) -> Result:
        """The sum along the axis of the weights: a soft-max weighted mean.

        Raises:
            ArrayTypeError: along another axis.
            OptionError: over some pairs only, of weights that add up to 1 over others.
        """
        if "where" in options:
            raise OptionError(
                "a mask belongs to the soft-max: its weights add up to 1 over the pairs that count",
                found="sum(..., where=...)",
                hint="(K.softmax(1, where=mask) * V).sum(1)",
            )
        axis = self.axis if axis is None and dim is None else axis if dim is None else dim
        if axis is None or self._tensor._kept(axis) != self._kept:
            raise _unknown(f"sum over axis {axis}", self)
        weight = self._weight
        if weight is None:
            weight = self._tensor._operand(1.0)
        options["where"] = self._where
        return self._tensor.reduction("SumSoftMaxWeight", weight, axis=axis, **options)

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., object],
        types: object,
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        """Operators of tensors, which leave it to us."""
        return multiplied("torch", name_of(func), args)

    def __bool__(self) -> NoReturn:
        raise _unknown("truth", self)

    # Type checkers would take any name for an attribute.
    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> object:
            if self._record is not None and name in ("_tensor", "_kept", "_weight", "_where"):
                return made_now(self, name)
            if name.startswith("_"):
                raise AttributeError(name)
            raise _unknown(name, self)

    def __repr__(self) -> str:
        return f"<soft-max along axis {self.axis} of {self._tensor!r}>"


record_calls(SoftMax)


@recorded_as("multiplied")
def multiplied(library: str, name: str, args: Sequence[object]) -> object:
    """A function of two operands, one of which is a soft-max, by its operators.

    Raises:
        ReducedError: another one than a product of matrices.
    """
    found = next(x for x in args if isinstance(x, SoftMax))
    if name not in ("matmul", "rmatmul") or len(args) != 2:
        raise _unknown(f"{library}.{name}", found)
    other = args[args[0] is found]
    reflected = (name == "matmul") != (args[0] is found)
    return found.__rmatmul__(other) if reflected else found @ other


def _unknown(what: str, found: SoftMax) -> ReducedError:
    return ReducedError(
        f"{what}: the weights of a soft-max are not computed, but multiplied and summed",
        found=repr(found),
        hint="K.softmax(1) @ v, (K.softmax(1) * V).sum(1); "
        "(K - Vi(K.logsumexp(axis=1))).exp() is a lazy tensor of the weights",
    )


def _refusing(name: str) -> Callable[..., NoReturn]:
    def method(self: SoftMax, *operands: object) -> NoReturn:
        raise _unknown(name, self)

    return method


for _name in ("add", "sub", "truediv", "pow"):
    for _side in (f"__{_name}__", f"__r{_name}__"):
        setattr(SoftMax, _side, _refusing(_side))
for _name in ("neg", "abs", "lt", "le", "gt", "ge", "getitem", "iter", "len", "array"):
    setattr(SoftMax, f"__{_name}__", _refusing(f"__{_name}__"))
