"""Reductions of lazy tensors over i or j, and lazy tensors as linear operators."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar, overload

import numpy as np

from ..arrays.library import COMPLEX
from ..arrays.registry import library_for
from ..calculus.substitute import substitute
from ..core.library import Array
from ..core.node import Axis
from ..errors import ArrayTypeError, AxisError, OptionError, ShapeError, brief, unexpected
from ..ops.reductions import REDUCTIONS
from .accuracy import FAR, HINTS, OPTIONS
from .genred import (
    CALL_OPTIONS,
    call_fold,
    checked_accuracy,
    checked_length,
    checked_reduction,
    checked_weight,
)
from .lazy import Tensor, is_scalar
from .leaves import is_array, library_from
from .linearoperators import LinearOperator, numpy_product, product_of
from .masks import checked_mask, index_node
from .reduced import Reduced, checked_call
from .sparsemasks import has_entries, over_entries
from .tables import Tabled
from .typed import (
    ExplainOptions,
    MethodOptions,
    ReductionOptions,
    Result,
    SystemOptions,
    WeightedOptions,
)

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

    from .explain import Explained
    from .foreign import Lazy

_V = TypeVar("_V")

# Reductions that may be reduced again, over one axis after the other; of truth values and counts
# by a method of arrays.
_REPEATED = {"Sum", "Mean", "Prod", "Min", "Max", "LogSumExp"}
_OF_WHOLE_NUMBERS = {"Any": "any", "All": "all", "Count": "sum"}

if TYPE_CHECKING:
    from .lazysolve import Solved


Axes: TypeAlias = int | Sequence[int] | None


class _Left(int):
    """An axis that was left out."""


COMPONENTS = _Left(-1)


class Reducing(Tabled):
    """A lazy tensor that can be reduced."""

    # How reductions are computed; a class that derives from these may fill `out` another way.
    _compute = staticmethod(call_fold)

    if TYPE_CHECKING:  # what both kinds have

        def conj(self) -> Self: ...
        def _call(self, name: str, *operands: object) -> Lazy: ...

    # -- the general form -----------------------------------------------------------------------

    @brief
    def reduction(  # pyright: ignore[reportIncompatibleMethodOverride] (takes more)
        self,
        reduction_op: str,
        other: object = None,
        opt_arg: int | None = None,
        axis: Axes = None,
        dim: Axes = None,
        call: bool = True,
        is_complex: bool | None = None,
        **options: Unpack[ReductionOptions],
    ) -> Result:
        """Any reduction by its name, over i (axis = number of batch axes) or j (one more).

        Args:
            reduction_op: a name of the table of reductions.
            other: the weight, a lazy tensor, for those that take one.
            opt_arg: K, for lists of the smallest.
            axis, dim: the axis that is reduced, also from the end: -3 is i, -2 is j. Two names of
                one argument. Sums, means, extrema and their like may be over several: (0, 1).
            call: compute at once; False gives a callable.
            options: `where`: which pairs count, a lazy tensor that is not 0 there, as `x < y`,
                `pairfold.causal()`; the others are absent, as with NumPy's. A sparse matrix (M, N)
                of SciPy or torch means its entries that are not 0, whatever their values, and is
                never made dense; `(matrix, mask)` those where a mask holds. `keepdim=True` keeps
                the reduced axis, with size 1: results are (..., M, 1, D) or (..., 1, N, D), what a
                LazyTensor is made of; `dtype_acc`, `use_double_acc`, `sum_scheme`, `method` and
                `rtol` as for `Genred`; `backend`, `device_id`, `ranges`, `out` as for its call.

        Returns:
            An array (..., M, D) or (..., N, D), or two; without call, for symbols, and for
            numbers alone, which have no dtype, a callable.

        Raises:
            OptionError, ArgumentError, ArrayTypeError, ShapeError: what does not fit.
        """
        axis = axis if axis is not None else dim
        if isinstance(axis, (tuple, list)):
            return self._over_several(reduction_op, axis, other=other, call=call, **options)
        kept = self._kept(axis)
        accuracy, rest = _separated(_keepdim(options), (*OPTIONS, *FAR))
        if has_entries(options.get("where")):
            return over_entries(self, reduction_op, other, opt_arg, kept, call, options)
        mask = checked_mask(rest.pop("where", None))
        checked_call(rest)
        name, row = checked_reduction(reduction_op)
        length = checked_length(row, opt_arg)
        weight = None if other is None else _real_weight(other)
        checked_weight(row, None if weight is None else "a lazy tensor")
        reduced = Reduced(
            self._joined_with(weight, mask),
            None if weight is None else weight.node,
            name,
            kept,
            length,
            checked_accuracy(row, **accuracy, masked=mask is not None),
            rest,  # pyright: ignore (checked)
            None if mask is None else mask.node,
        )
        return reduced() if call and reduced.ready else reduced

    def _joined_with(self, *others: Tensor | None) -> Self:
        """This tensor, with the leaves of others too."""
        given = [other for other in others if other is not None]
        return self._like(self.node, *given) if given else self

    def explain(
        self,
        reduction_op: str = "Sum",
        axis: int | None = None,
        dim: int | None = None,
        **options: Unpack[ExplainOptions],
    ) -> Explained:
        """How a reduction of this tensor would be computed; nothing is.

        Args:
            reduction_op, axis, dim: the reduction, by default the sum over j.
            options: the others of `reduction`: `other`, `opt_arg`, `backend`, `ranges` ...

        Raises:
            OptionError, ArgumentError, ArrayTypeError, ShapeError: what does not fit.
        """
        axis = dim if axis is None else axis
        axis = self.nbatchdims + 1 if axis is None else axis
        return self.reduction(reduction_op, axis=axis, call=False, **options).explain()

    def _kept(self, axis: object) -> Axis:
        """The index that a reduction over `axis` keeps."""
        place = self._place(axis)
        if place not in (0, 1):
            batches = self.nbatchdims
            where = f"{batches} (over i) or {batches + 1} (over j)"
            if axis is None:
                raise AxisError("a reduction needs an axis", hint=f"axis={where}")
            raise OptionError(f"axis must be {where}", found=f"axis={axis!r}")
        return Axis.J if place == 0 else Axis.I

    def _place(self, axis: object) -> int | None:
        """0 for the axis of i, 1 for j, 2 for components, from either end; None for no axis."""
        if isinstance(axis, bool) or not isinstance(axis, (int, np.integer)):
            return None
        place = int(axis) + 3 if axis < 0 else int(axis) - self.nbatchdims
        return place if place in range(3) else None

    # -- several axes ---------------------------------------------------------------------------

    def _over_several(
        self,
        name: str,
        axes: Sequence[int] | None,
        *,
        other: object = None,
        call: bool = True,
        **options: Unpack[ReductionOptions],
    ) -> Result:
        """A reduction over several axes, or over all (None): of results, one after the other.

        An axis of one component is dropped with the last of the others, as `shape` drops it.

        Raises:
            OptionError: axes that cannot be, a reduction that is no number to be reduced again,
                options that are for one pass.
        """
        name, _ = checked_reduction(name)
        places = self._places(name, axes)
        accuracy, rest = _separated(_keepdim(options))
        keepdim = rest.pop("keepdim", None)
        if self.symbols or self.library is None or not call or rest.get("out") is not None:
            raise OptionError(
                "several axes are reduced one after the other: nothing can wait, nor be filled",
                found=repr(self) if call else "call=False",
                hint="over one axis, then over the other of the result",
            )
        ranges = self.ranges if rest.get("ranges") is None else rest["ranges"]
        where = rest.pop("where", None)
        if (ranges is not None or where is not None) and name == "Mean" and {0, 1} <= places:
            what = "ranges" if where is None else "a mask"
            raise OptionError(f"a mean over both axes cannot have {what}", hint="Sum and Count")
        first = self.nbatchdims + max(places - {2})
        found = self.reduction(name, other, axis=first, where=where, **accuracy, **rest)
        dim = found.shape[-1]
        if {0, 1} <= places:
            found = self._again(name, found, accuracy)[..., None, :]
        if 2 in places:
            found = self._again(name, self.library.moved(found, -1, -2), accuracy)[..., None]
        if axes is None and self.batch:
            found = self._again(name, found.reshape(-1, 1), accuracy)
        sizes = [1 if axes is None else n for n in self.batch]
        pairs = [1 if k in places else (self.ni, self.nj)[k] or 1 for k in (0, 1)]
        last = [] if 2 in places or (dim == 1 and {0, 1} <= places) else [dim]
        if keepdim:
            return found.reshape((*sizes, *pairs, 1 if 2 in places else dim))
        kept = (
            [] if axes is None else [*sizes, *(n for k, n in enumerate(pairs) if k not in places)]
        )
        return found.reshape((*kept, *last))[()]

    def _places(self, name: str, axes: Sequence[int] | None) -> set[int]:
        """The numbers of several axes; all of them where they are left out.

        Raises:
            OptionError: no axis, one that does not exist, one that is named twice; a reduction of
                one axis.
        """
        found = [0, 1, 2] if axes is None else [self._place(axis) for axis in axes]
        places = {place for place in found if place is not None}
        first = self.nbatchdims
        if name not in _REPEATED and name not in _OF_WHOLE_NUMBERS:
            raise OptionError(
                f"{name} is over one axis",
                found=f"axis={axes!r}",
                hint=f"axis={first} (over i) or {first + 1} (over j)",
            )
        if not places or len(places) < len(found) or places == {2}:
            raise OptionError(
                f"several axes are some of {first} (i), {first + 1} (j), {first + 2} (components)",
                found=f"axis={axes!r}",
            )
        return places

    def _again(self, name: str, array: Array, accuracy: Mapping[str, Any]) -> Array:
        """The reduction of results (..., N, E) over their last axis but one: (..., E)."""
        if name in _OF_WHOLE_NUMBERS:
            return getattr(array, _OF_WHOLE_NUMBERS[name])(-2)
        column = self._column_variable(array)
        return column.reduction(name, axis=column.nbatchdims + 1, **accuracy)[..., 0, :]

    # -- reductions by name ---------------------------------------------------------------------

    def _either(
        self,
        vector: Callable[[], Result] | str,
        name: str,
        axis: Axes,
        dim: Axes,
        options: MethodOptions,
    ) -> Result:
        """An operation on the components for the last axis, else a reduction; None for all axes.

        The last axis is kept, with size 1, whatever `keepdim`: `shape` does not show it.
        """
        axis = dim if dim is not None else axis
        if axis is None:
            return self._over_several(name, None, **options)  # pyright: ignore (all of them)
        if isinstance(axis, (tuple, list)) or self._place(axis) != 2:
            return self.reduction(name, axis=axis, **options)
        if options:
            known = (*OPTIONS, *HINTS, *CALL_OPTIONS, "keepdim", "call", "axis", "dim")
            error = unexpected(_keepdim(options), known)
            if error is not None:
                raise error
        self._check_components(axis, name.lower())
        return self._over_components(vector) if isinstance(vector, str) else vector()

    def _check_components(self, axis: Axes, method: str) -> None:
        """Raise where an axis was left out and there is but one component, by the formula.

        Raises:
            OptionError: a method on the components is meant for pairs.
        """
        if axis is COMPONENTS and is_scalar(self.node):
            first = self.nbatchdims
            axes = f"K.{method}(axis={first}) over i, K.{method}(axis={first + 1}) over j"
            raise OptionError(
                f"{method}() is over the components, and this tensor has one for each pair",
                found=repr(self),
                hint=f"K.{method}(axis=-1) for that one"
                if method == "norm"
                else f"{axes}; K.{method}(axis=-1) is the tensor itself",
            )

    def _over_components(self, name: str) -> Lazy:
        return self._call(name, self)

    @overload
    def sum(
        self, axis: Literal[-1] = -1, dim: None = None, **options: Unpack[MethodOptions]
    ) -> Self: ...
    @overload
    def sum(
        self, axis: Axes = -1, dim: Axes = None, **options: Unpack[MethodOptions]
    ) -> Result: ...
    def sum(
        self, axis: Axes = COMPONENTS, dim: Axes = None, **options: Unpack[MethodOptions]
    ) -> Result:
        """The sum over the components (the default), or over i, j or several axes: an array.

        Options are those of `reduction`: `where`, `keepdim`, `rtol`, `out`, `call` ...

        >>> from pairfold import Vi, Vj
        >>> Vi(np.ones((3, 2))).sqdist(Vj(np.zeros((4, 2)))).sum(axis=1).tolist()
        [[8.0], [8.0], [8.0]]
        """
        return self._either("Sum", "Sum", axis, dim, options)

    @overload
    def min(
        self, axis: Literal[-1] = -1, dim: None = None, **options: Unpack[MethodOptions]
    ) -> Self: ...
    @overload
    def min(
        self, axis: Axes = -1, dim: Axes = None, **options: Unpack[MethodOptions]
    ) -> Result: ...
    def min(
        self, axis: Axes = COMPONENTS, dim: Axes = None, **options: Unpack[MethodOptions]
    ) -> Result:
        """The smallest of the components (the default), or over i, j or several axes: an array."""
        return self._either("Min", "Min", axis, dim, options)

    @overload
    def max(
        self, axis: Literal[-1] = -1, dim: None = None, **options: Unpack[MethodOptions]
    ) -> Self: ...
    @overload
    def max(
        self, axis: Axes = -1, dim: Axes = None, **options: Unpack[MethodOptions]
    ) -> Result: ...
    def max(
        self, axis: Axes = COMPONENTS, dim: Axes = None, **options: Unpack[MethodOptions]
    ) -> Result:
        """The largest of the components (the default), or over i, j or several axes: an array."""
        return self._either("Max", "Max", axis, dim, options)

    @overload
    def argmin(
        self, axis: Literal[-1] = -1, dim: None = None, **options: Unpack[MethodOptions]
    ) -> Self: ...
    @overload
    def argmin(
        self, axis: Axes = -1, dim: Axes = None, **options: Unpack[MethodOptions]
    ) -> Result: ...
    def argmin(
        self, axis: Axes = COMPONENTS, dim: Axes = None, **options: Unpack[MethodOptions]
    ) -> Result:
        """Where the smallest stands: among the components (the default), or over i or j."""
        return self._either("ArgMin", "ArgMin", axis, dim, options)

    @overload
    def argmax(
        self, axis: Literal[-1] = -1, dim: None = None, **options: Unpack[MethodOptions]
    ) -> Self: ...
    @overload
    def argmax(
        self, axis: Axes = -1, dim: Axes = None, **options: Unpack[MethodOptions]
    ) -> Result: ...
    def argmax(
        self, axis: Axes = COMPONENTS, dim: Axes = None, **options: Unpack[MethodOptions]
    ) -> Result:
        """Where the largest stands: among the components (the default), or over i or j."""
        return self._either("ArgMax", "ArgMax", axis, dim, options)

    def mean(
        self, axis: Axes = COMPONENTS, dim: Axes = None, **options: Unpack[MethodOptions]
    ) -> Result:
        """The mean of the components (the default), or over i, j or several axes: an array."""

        def of_components() -> Result:
            return self._over_components("Sum") * (1 / (self.ndim // (1 + self.is_complex)))

        return self._either(of_components, "Mean", axis, dim, options)

    def sum_reduction(
        self, axis: Axes = None, dim: Axes = None, **options: Unpack[MethodOptions]
    ) -> Result:
        """The sum over i or j."""
        return self.reduction("Sum", axis=axis, dim=dim, **options)

    def min_reduction(
        self, axis: Axes = None, dim: Axes = None, **options: Unpack[MethodOptions]
    ) -> Result:
        """The smallest value over i or j."""
        return self.reduction("Min", axis=axis, dim=dim, **options)

    def max_reduction(
        self, axis: Axes = None, dim: Axes = None, **options: Unpack[MethodOptions]
    ) -> Result:
        """The largest value over i or j."""
        return self.reduction("Max", axis=axis, dim=dim, **options)

    def argmin_reduction(
        self, axis: Axes = None, dim: Axes = None, **options: Unpack[MethodOptions]
    ) -> Result:
        """The index of the smallest value over i or j."""
        return self.reduction("ArgMin", axis=axis, dim=dim, **options)

    def argmax_reduction(
        self, axis: Axes = None, dim: Axes = None, **options: Unpack[MethodOptions]
    ) -> Result:
        """The index of the largest value over i or j."""
        return self.reduction("ArgMax", axis=axis, dim=dim, **options)

    def min_argmin(
        self, axis: Axes = None, dim: Axes = None, **options: Unpack[MethodOptions]
    ) -> Result:
        """The smallest value over i or j, and its index."""
        return self.reduction("Min_ArgMin", axis=axis, dim=dim, **options)

    def max_argmax(
        self, axis: Axes = None, dim: Axes = None, **options: Unpack[MethodOptions]
    ) -> Result:
        """The largest value over i or j, and its index."""
        return self.reduction("Max_ArgMax", axis=axis, dim=dim, **options)

    def Kmin(
        self,
        K: int,
        axis: int | None = None,
        dim: int | None = None,
        **options: Unpack[MethodOptions],
    ) -> Result:
        """The K smallest values over i or j."""
        return self.reduction("KMin", opt_arg=K, axis=axis, dim=dim, **options)

    def argKmin(
        self,
        K: int,
        axis: int | None = None,
        dim: int | None = None,
        **options: Unpack[MethodOptions],
    ) -> Result:
        """The indices of the K smallest values over i or j."""
        return self.reduction("ArgKMin", opt_arg=K, axis=axis, dim=dim, **options)

    def Kmin_argKmin(
        self,
        K: int,
        axis: int | None = None,
        dim: int | None = None,
        **options: Unpack[MethodOptions],
    ) -> Result:
        """The K smallest values over i or j, and their indices."""
        return self.reduction("KMin_ArgKMin", opt_arg=K, axis=axis, dim=dim, **options)

    def logsumexp(
        self,
        axis: Axes = None,
        dim: Axes = None,
        weight: object = None,
        **options: Unpack[WeightedOptions],
    ) -> Result:
        """log sum e^self over i or j; with a weight, a lazy tensor, log sum e^self weight."""
        options.setdefault("other", weight)
        if isinstance(dim, Tensor):
            dim, options["other"] = None, dim
        return self.reduction("LogSumExp", axis=axis, dim=dim, **options)

    def sumsoftmaxweight(
        self,
        weight: object = None,
        axis: int | None = None,
        dim: int | None = None,
        **options: Unpack[WeightedOptions],
    ) -> Result:
        """sum e^self weight / sum e^self over i or j; the weight is a lazy tensor."""
        options.setdefault("other", weight)
        return self.reduction("SumSoftMaxWeight", axis=axis, dim=dim, **options)

    min_argmin_reduction, max_argmax_reduction = min_argmin, max_argmax
    Kmin_reduction, argKmin_reduction = Kmin, argKmin
    Kmin_argKmin_reduction = Kmin_argKmin
    logsumexp_reduction, sumsoftmaxweight_reduction = logsumexp, sumsoftmaxweight
    __min__, __max__ = min, max

    # -- linear operators -----------------------------------------------------------------------

    def t(self) -> Self:
        """The transposed matrix: i and j trade places."""
        found = self._like(self.node)
        swapped = {**{kind: kind for kind in Axis}, Axis.I: Axis.J, Axis.J: Axis.I}
        leaves = [
            leaf.transposed() if leaf.kind == Axis.PAIR else leaf.of_kind(swapped[leaf.kind])
            for leaf in self.leaves
        ]
        moved = {old.node: new.node for old, new in zip(self.leaves, leaves, strict=True)}
        moved |= {index_node(axis): index_node(axis.other) for axis in (Axis.I, Axis.J)}
        found.leaves, found.node = tuple(leaves), substitute(self.node, moved)
        found.ni, found.nj = self.nj, self.ni
        found.axis = None if self.axis is None else int(swapped[Axis(self.axis)])
        if self.ranges is not None:
            found.ranges = (*self.ranges[3:], *self.ranges[:3])
        return found

    @property
    def T(self) -> Self:
        """The transposed matrix."""
        return self.t()

    @overload
    def __matmul__(  # pyright: ignore[reportOverlappingOverload]
        self, v: Tensor | LinearOperator, **options: Unpack[ReductionOptions]
    ) -> LinearOperator: ...
    @overload
    def __matmul__(self, v: _V, **options: Unpack[ReductionOptions]) -> _V: ...
    def __matmul__(self, v: Result, **options: Unpack[ReductionOptions]) -> Result:
        """The matrix (..., M, N) times a vector (N,) or vectors (..., N, E).

        Times another matrix, it is a linear operator, which is applied part by part.

        Raises:
            ShapeError, ArrayTypeError: what cannot be multiplied.
        """
        if self.ndim != (2 if self.is_complex else 1):
            raise ShapeError(
                "only a matrix of scalars can be multiplied with vectors",
                found=f"shape {self.shape}",
                hint="x.sum(-1) makes scalars of vectors",
            )
        if isinstance(v, (Tensor, LinearOperator)):
            return product_of(self, v)
        if not is_array(v) or not len(v.shape):
            raise ArrayTypeError(
                "a matrix can be multiplied with an array (N,) or (..., N, E), or with a matrix",
                found=f"a {type(v).__name__}",
            )
        flat = len(v.shape) == 1
        columns = v.reshape(-1, 1) if flat else v
        count = columns.shape[-2]
        if self.nj not in (None, count) or (self.nj is None and count != 1 and not self.symbols):
            depends = "" if self.nj is not None else ": the formula does not depend on j"
            raise ShapeError(
                f"the matrix has {self.nj or 1} columns{depends}",
                found=f"vectors of {count} numbers, shape {tuple(v.shape)}",
                hint=f"{v.shape[-1]} vectors are the columns of v.T"
                if len(v.shape) == 2 and v.shape[-1] == self.nj
                else f"vectors of {self.nj or 1} numbers, a matrix of shape {self.shape}",
            )
        product = self._binary("Mult", self._column_variable(columns))
        result = product.reduction("Sum", axis=product.nbatchdims + 1, **options)
        return result.reshape(-1) if flat else result

    def __rmatmul__(self, v: _V, **options: Unpack[ReductionOptions]) -> _V:
        """A vector (M,), or rows (..., E, M), times the matrix (..., M, N).

        Raises:
            ShapeError, ArrayTypeError: what cannot be multiplied.
        """
        rows: Result = v
        if library_for(v) is None or len(rows.shape) < 2:
            return self.t().__matmul__(v, **options)
        found: Result = self.t().__matmul__(rows.swapaxes(-1, -2), **options)
        return found.swapaxes(-1, -2)

    def _column_variable(self, columns: Array) -> Reducing:
        """An array (..., N, E) as a variable indexed by j, also where N is 1."""
        is_complex = library_from(columns).dtype(columns) in COMPLEX
        found = object.__new__(self.class_for(is_complex))
        found._blank()
        found._set_owner(columns[..., None, :, :], Axis.J)
        return found

    def solve(
        self,
        other: object,
        var: Tensor | None = None,
        call: bool = True,
        alpha: object = 1e-10,
        **options: Unpack[SystemOptions],
    ) -> Result:
        """Solve (alpha Id + K) a = b, K being this matrix, symmetric and positive definite.

        `method="minres"` solves symmetric systems, a function of one's own any.

        Args:
            other: b: an array (..., M, E) or (M,), or a variable, `Vi(b)`, `Vj(b)` or a symbol.
                An array is indexed by i.
            var: a symbol that this tensor is linear in: it is then all of the formula, and K a
                is its sum with the symbol set to a.
            call: compute at once; False gives a callable.
            alpha: what is added to the diagonal, as for `KernelSolve`.
            options: `eps`, `tol`, `maxiter`, `preconditioner`, `rank`, `method`, `callback`,
                `backend`, `device_id`, `ranges` as for the call of `KernelSolve`; `dtype_acc`,
                `use_double_acc`, `sum_scheme` as for the class.

        Returns:
            An array of b's shape (with the batch axes of K); of torch tensors it is
            differentiable to any order. With symbols, a callable that takes an array for each of
            them but `var`, in the order of their positions.

        Raises:
            SolveError: no convergence, or a matrix that is not positive definite.
            ArgumentError, ArrayTypeError, ShapeError, DTypeError, OptionError: what does not fit.
        """
        accuracy, rest = _separated(options)
        system = self._system_class()
        solved = system(self, other, var, checked_accuracy(REDUCTIONS["Sum"], **accuracy))
        solved.set_options(alpha=alpha, **rest)
        return solved() if call and solved.ready else solved

    @staticmethod
    def _system_class() -> type[Solved]:
        """The class of systems that wait for their call."""
        from .lazysolve import Solved

        return Solved

    def matvec(self, v: _V) -> _V:
        """The matrix times a vector, as SciPy's linear operators have it.

        A NumPy array gives a NumPy array, whatever library the tensor is of.
        """
        return self._product(self, v)

    def rmatvec(self, v: _V) -> _V:
        """The adjoint matrix times a vector: the transposed one, conjugate where it is complex."""
        return self._product(self.t().conj() if self.is_complex else self.t(), v)

    def matmat(self, v: _V) -> _V:
        """The matrix times several vectors, the columns of v."""
        return self.matvec(v)

    def rmatmat(self, v: _V) -> _V:
        """The adjoint matrix times several vectors, the columns of v."""
        return self.rmatvec(v)

    def _product(self, matrix: Self, v: object) -> Result:
        like = next((leaf.owner for leaf in self.leaves if leaf.given), None)
        return numpy_product(self.library, like, matrix, v)


def _real_weight(other: object) -> Tensor:
    """The weight of a reduction.

    Raises:
        ArrayTypeError: it is no lazy tensor of real numbers.
    """
    if not isinstance(other, Tensor):
        raise ArrayTypeError(
            "a weight is a LazyTensor", found=f"a {type(other).__name__}", hint="Vj(weights)"
        )
    if other.is_complex:
        raise ArrayTypeError(
            "a weight cannot be complex", found=repr(other), hint="weight.real, weight.imag"
        )
    return other


def _separated(
    options: Mapping[str, Any], names: Sequence[str] = OPTIONS
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options of accuracy, which have these names, and those of a call; hints are neither."""
    accuracy = {name: value for name, value in options.items() if name in names}
    rest = {name: value for name, value in options.items() if name not in (*names, *HINTS)}
    return accuracy, rest


def _keepdim(options: Mapping[str, object]) -> dict[str, object]:
    """Options with NumPy's `keepdims` by torch's name.

    Raises:
        OptionError: it is neither True nor False.
    """
    found = dict(options)
    if "keepdims" in found:
        found["keepdim"] = found.pop("keepdims")
    if found.get("keepdim", False) not in (True, False):
        raise OptionError("keepdim is True or False", found=f"keepdim={found['keepdim']!r}")
    return found
