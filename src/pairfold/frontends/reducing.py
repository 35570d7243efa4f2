"""Reductions of lazy tensors over i or j, and lazy tensors as linear operators."""

from __future__ import annotations

import collections
from collections.abc import Sequence
from typing import Any

from ..core.node import Kind, Node
from ..errors import ArgumentError, ArrayTypeError, OptionError, ShapeError
from ..ops.reductions import REDUCTIONS
from .fold import Accuracy, Fold
from .genred import call_fold, checked_accuracy, checked_length, checked_reduction, checked_weight
from .lazy import Tensor
from .leaves import Leaf, numbered, placed_variable

_INIT = ("dtype_acc", "use_double_acc", "sum_scheme", "enable_chunks", "use_fast_math")
_CALL = ("backend", "device_id", "ranges", "out")
_KEPT = 512
_folds: collections.OrderedDict[Any, Fold] = collections.OrderedDict()


class Reducing(Tensor):
    """A lazy tensor that can be reduced."""

    # -- the general form -----------------------------------------------------------------------

    def reduction(
        self,
        reduction_op: str,
        other: Any = None,
        opt_arg: Any = None,
        axis: int | None = None,
        dim: int | None = None,
        call: bool = True,
        is_complex: bool | None = None,
        **options: Any,
    ) -> Any:
        """Any reduction by its name, over i (axis = number of batch axes) or j (one more).

        Args:
            reduction_op: a name of the table of reductions.
            other: the weight, a lazy tensor, for those that take one.
            opt_arg: K, for lists of the smallest.
            axis, dim: the axis that is reduced; two names of one argument.
            call: compute at once; False gives a callable.
            options: `dtype_acc`, `use_double_acc`, `sum_scheme` as for `Genred`; `backend`,
                `device_id`, `ranges`, `out` as for its call.

        Raises:
            OptionError, ArgumentError, ShapeError: what does not fit.
        """
        kept = self._kept(axis if axis is not None else dim)
        accuracy = {name: options.pop(name) for name in _INIT if name in options}
        unknown = set(options) - set(_CALL)
        if unknown:
            raise TypeError(f"unexpected keyword arguments: {', '.join(sorted(unknown))}")
        name, row = checked_reduction(reduction_op)
        length = checked_length(row, opt_arg)
        if other is not None and not isinstance(other, Tensor):
            raise ArrayTypeError(
                "a weight is a LazyTensor", found=f"a {type(other).__name__}", hint="Vj(weights)"
            )
        checked_weight(row, other)
        joined = self if other is None else self._like(self.node, other)
        reduced = Reduced(
            joined,
            None if other is None else other.node,
            name,
            kept,
            length,
            checked_accuracy(row, **accuracy),
            options,
        )
        return reduced() if call and reduced.ready else reduced

    def _kept(self, axis: Any) -> Kind:
        """The index that a reduction over `axis` keeps."""
        batches = self.nbatchdims
        if isinstance(axis, bool) or axis not in (batches, batches + 1):
            where = f"{batches} (over i) or {batches + 1} (over j)"
            if axis is None:
                raise TypeError(f"a reduction needs an axis: {where}")
            raise OptionError(f"axis must be {where}", found=f"axis={axis!r}")
        return Kind.J if axis == batches else Kind.I

    def _finished(self, result: Any) -> Any:
        """A result as the numbers of this tensor: complex tensors overrule it."""
        return result

    # -- reductions by name ---------------------------------------------------------------------

    def _either(self, vector: str, name: str, axis: Any, dim: Any, options: dict[str, Any]) -> Any:
        """An operation on the components for the last axis, else a reduction."""
        axis = dim if dim is not None else axis
        if axis in (-1, self.nbatchdims + 2):
            return self._over_components(vector)
        return self.reduction(name, axis=axis, **options)

    def _over_components(self, name: str) -> Any:
        return self._apply(name, self)

    def sum(self, axis: Any = -1, dim: Any = None, **options: Any) -> Any:
        """The sum over the components (the default), or over i or j: an array."""
        return self._either("Sum", "Sum", axis, dim, options)

    def min(self, axis: Any = -1, dim: Any = None, **options: Any) -> Any:
        """The smallest of the components (the default), or over i or j: an array."""
        return self._either("Min", "Min", axis, dim, options)

    def max(self, axis: Any = -1, dim: Any = None, **options: Any) -> Any:
        """The largest of the components (the default), or over i or j: an array."""
        return self._either("Max", "Max", axis, dim, options)

    def argmin(self, axis: Any = -1, dim: Any = None, **options: Any) -> Any:
        """Where the smallest stands: among the components (the default), or over i or j."""
        return self._either("ArgMin", "ArgMin", axis, dim, options)

    def argmax(self, axis: Any = -1, dim: Any = None, **options: Any) -> Any:
        """Where the largest stands: among the components (the default), or over i or j."""
        return self._either("ArgMax", "ArgMax", axis, dim, options)

    def sum_reduction(self, axis: Any = None, dim: Any = None, **options: Any) -> Any:
        """The sum over i or j."""
        return self.reduction("Sum", axis=axis, dim=dim, **options)

    def min_reduction(self, axis: Any = None, dim: Any = None, **options: Any) -> Any:
        """The smallest value over i or j."""
        return self.reduction("Min", axis=axis, dim=dim, **options)

    def max_reduction(self, axis: Any = None, dim: Any = None, **options: Any) -> Any:
        """The largest value over i or j."""
        return self.reduction("Max", axis=axis, dim=dim, **options)

    def argmin_reduction(self, axis: Any = None, dim: Any = None, **options: Any) -> Any:
        """The index of the smallest value over i or j."""
        return self.reduction("ArgMin", axis=axis, dim=dim, **options)

    def argmax_reduction(self, axis: Any = None, dim: Any = None, **options: Any) -> Any:
        """The index of the largest value over i or j."""
        return self.reduction("ArgMax", axis=axis, dim=dim, **options)

    def min_argmin(self, axis: Any = None, dim: Any = None, **options: Any) -> Any:
        """The smallest value over i or j, and its index."""
        return self.reduction("Min_ArgMin", axis=axis, dim=dim, **options)

    def max_argmax(self, axis: Any = None, dim: Any = None, **options: Any) -> Any:
        """The largest value over i or j, and its index."""
        return self.reduction("Max_ArgMax", axis=axis, dim=dim, **options)

    def Kmin(self, K: int, axis: Any = None, dim: Any = None, **options: Any) -> Any:
        """The K smallest values over i or j."""
        return self.reduction("KMin", opt_arg=K, axis=axis, dim=dim, **options)

    def argKmin(self, K: int, axis: Any = None, dim: Any = None, **options: Any) -> Any:
        """The indices of the K smallest values over i or j."""
        return self.reduction("ArgKMin", opt_arg=K, axis=axis, dim=dim, **options)

    def Kmin_argKmin(self, K: int, axis: Any = None, dim: Any = None, **options: Any) -> Any:
        """The K smallest values over i or j, and their indices."""
        return self.reduction("KMin_ArgKMin", opt_arg=K, axis=axis, dim=dim, **options)

    def logsumexp(
        self, axis: Any = None, weight: Any = None, dim: Any = None, **options: Any
    ) -> Any:
        """log sum e^self over i or j; with a weight, a lazy tensor, log sum e^self weight."""
        weight = options.pop("other", weight)
        return self.reduction("LogSumExp", other=weight, axis=axis, dim=dim, **options)

    def sumsoftmaxweight(
        self, weight: Any = None, axis: Any = None, dim: Any = None, **options: Any
    ) -> Any:
        """sum e^self weight / sum e^self over i or j; the weight is a lazy tensor."""
        weight = options.pop("other", weight)
        return self.reduction("SumSoftMaxWeight", other=weight, axis=axis, dim=dim, **options)

    min_argmin_reduction, max_argmax_reduction = min_argmin, max_argmax
    Kmin_reduction, argKmin_reduction = Kmin, argKmin
    Kmin_argKmin_reduction = Kmin_argKmin
    logsumexp_reduction, sumsoftmaxweight_reduction = logsumexp, sumsoftmaxweight

    # -- linear operators -----------------------------------------------------------------------

    def t(self) -> Any:
        """The transposed matrix: i and j trade places."""
        from ..calculus.substitute import substitute

        found = self._like(self.node)
        swapped = {Kind.I: Kind.J, Kind.J: Kind.I, Kind.PARAMETER: Kind.PARAMETER}
        leaves = [_with_kind(leaf, swapped[leaf.kind]) for leaf in self.leaves]
        moved = {old.node: new.node for old, new in zip(self.leaves, leaves, strict=True)}
        found.leaves, found.node = tuple(leaves), substitute(self.node, moved)
        found.ni, found.nj = self.nj, self.ni
        if self.ranges is not None:
            found.ranges = (*self.ranges[3:], *self.ranges[:3])
        return found

    @property
    def T(self) -> Any:
        """The transposed matrix."""
        return self.t()

    def __matmul__(self, v: Any, **options: Any) -> Any:
        """The matrix (M, N) times a vector (N,) or vectors (..., N, E)."""
        if self._shape[-1] != 1:
            raise ShapeError(
                "only a matrix of scalars can be multiplied with vectors",
                found=f"shape {self.shape}",
                hint="x.sum(-1) makes scalars of vectors",
            )
        shape = tuple(v.shape)
        rows = shape[0] if len(shape) == 1 else shape[-2]
        if self.nj not in (None, rows):
            raise ShapeError(
                f"the matrix has {self.nj} columns", found=f"a vector of {rows} numbers"
            )
        columns = v.reshape(rows, 1) if len(shape) == 1 else v
        moved = self._column_variable(columns)
        product = self * moved
        result = product.reduction("Sum", axis=product.nbatchdims + 1, **options)
        return result.reshape(-1) if len(shape) == 1 else result

    def _column_variable(self, columns: Any) -> Any:
        """An array (..., N, E) indexed by j, also where N is 1."""
        if columns.shape[-2] != 1:
            return self.lt_constructor(columns[..., None, :, :])
        found = object.__new__(type(self))
        found._blank()
        from .lazy import adapter_for

        adapter = adapter_for(columns)
        found.adapter, found.real_dtype = adapter, adapter.dtype(columns)
        found.batch, found.nj = tuple(columns.shape[:-2]), 1
        found._set_leaf(Leaf(Kind.J, columns.shape[-1], columns, owner=columns))
        return found

    def solve(
        self, other: Any, var: Any = None, call: bool = True, alpha: Any = 1e-10, **options: Any
    ) -> Any:
        """Solve (alpha Id + K) a = b, K being this matrix, symmetric and positive definite.

        Args:
            other: b: an array (..., M, E) or (M,), or a variable, `Vi(b)`, `Vj(b)` or a symbol.
                An array is indexed by i.
            var: a symbol that this tensor is linear in: it is then all of the formula, and K a
                is its sum with the symbol set to a.
            call: compute at once; False gives a callable.
            alpha: what is added to the diagonal, as for `KernelSolve`.
            options: `eps`, `tol`, `maxiter`, `preconditioner`, `callback`, `backend`,
                `device_id`, `ranges` as for the call of `KernelSolve`; `dtype_acc`,
                `use_double_acc`, `sum_scheme` as for the class.

        Returns:
            An array of b's shape (with the batch axes of K); of torch tensors it is
            differentiable to any order. With symbols, a callable that takes an array for each of
            them but `var`, in the order of their positions.

        Raises:
            SolveError: no convergence, or a matrix that is not positive definite.
            ArgumentError, ArrayTypeError, ShapeError, DTypeError, OptionError: what does not fit.
        """
        from .lazysolve import Solved

        accuracy = {name: options.pop(name) for name in _INIT if name in options}
        solved = Solved(self, other, var, checked_accuracy(REDUCTIONS["Sum"], **accuracy))
        solved.set_options(alpha=alpha, **options)
        return solved() if call and solved.ready else solved

    def matvec(self, v: Any) -> Any:
        """The matrix times a vector, as SciPy's linear operators have it."""
        return self @ v

    def rmatvec(self, v: Any) -> Any:
        """The transposed matrix times a vector."""
        return self.T @ v

    def matmat(self, v: Any) -> Any:
        """The matrix times several vectors, the columns of v."""
        return self @ v

    def rmatmat(self, v: Any) -> Any:
        """The transposed matrix times several vectors."""
        return self.T @ v


def _with_kind(leaf: Leaf, kind: Kind) -> Leaf:
    if kind == leaf.kind:
        return leaf
    return Leaf(kind, leaf.dim, leaf.array, leaf.values, leaf.symbol, leaf.owner)


class Reduced:
    """A reduction that waits for its call: for symbols, for a dtype, or because it was asked to.

    Call it with one array per symbol, in the order of their positions: (M, D) or (N, D), or (D,)
    for a parameter.
    """

    def __init__(
        self,
        tensor: Any,
        weight: Node | None,
        name: str,
        kept: Kind,
        length: int,
        accuracy: Accuracy,
        options: dict[str, Any],
    ) -> None:
        self.tensor, self.weight, self.name, self.kept = tensor, weight, name, kept
        self.length, self.accuracy, self.options = length, accuracy, dict(options)
        nodes, self.order = numbered([tensor.node, weight], tensor.leaves)
        self.fold = fold_of(nodes, self.order, name, kept, length, accuracy)

    @property
    def ready(self) -> bool:
        """Whether nothing is missing."""
        return self.tensor.adapter is not None and not self.tensor.symbols

    @property
    def axis(self) -> int:
        """The axis that is reduced."""
        return self.tensor.nbatchdims + (0 if self.kept == Kind.J else 1)

    def __call__(self, *arrays: Any, **options: Any) -> Any:
        """Compute; options (`backend`, `ranges`, `out` ...) are remembered for later calls."""
        symbols = self.tensor.symbols
        wanted = max((leaf.symbol for leaf in symbols), default=-1) + 1
        if len(arrays) != wanted:
            raise ArgumentError(
                f"this reduction takes {wanted} arrays", found=f"{len(arrays)} arrays"
            )
        self.options.update(options)
        given = [self._array(leaf, arrays) for leaf in self.order]
        adapter, like = self._library(given)
        filled = [
            adapter.numbers(leaf.values, like) if array is None else array
            for leaf, array in zip(self.order, given, strict=True)
        ]
        given_options = dict(self.options)
        if given_options.get("ranges") is None:
            given_options["ranges"] = self.tensor.ranges
        if given_options.get("backend") is None:
            given_options["backend"] = self.tensor.backend or "auto"
        result = call_fold(self.fold, filled, None, **given_options)
        return self.tensor._finished(result)

    @staticmethod
    def _array(leaf: Leaf, arrays: Sequence[Any]) -> Any:
        return arrays[leaf.symbol] if leaf.symbol is not None else leaf.array

    @staticmethod
    def _library(arrays: Sequence[Any]) -> tuple[Any, Any]:
        """The adapter of the first array, and that array: its dtype and device are the result's."""
        from .lazy import adapter_for

        first = next((array for array in arrays if array is not None), None)
        adapter = adapter_for(first)
        if adapter is None:
            raise ArgumentError(
                "a formula of numbers alone has no dtype: there is nothing to compute with",
                hint="make one of them an array",
            )
        return adapter, first

    def __str__(self) -> str:
        lines = [str(self.tensor), f"    reduction: {self.name} (axis={self.axis})"]
        if self.weight is not None:
            (_, weight), _ = numbered([self.tensor.node, self.weight], self.tensor.leaves)
            lines.append(f"        formula2: {weight}")
        if self.length:
            lines.append(f"        opt_arg: {self.length}")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"<reduction {self.name} over axis {self.axis} of {self.tensor!r}>"


def fold_of(
    nodes: Sequence[Node | None],
    order: Sequence[Leaf],
    name: str,
    kept: Kind,
    length: int,
    accuracy: Accuracy,
) -> Fold:
    """The fold of numbered graphs; equal ones are one, with what it learnt of sizes."""
    formula, weight = nodes
    assert formula is not None
    variables = tuple(placed_variable(k, leaf.dim, leaf.kind) for k, leaf in enumerate(order))
    key = (formula, weight, variables, name, kept, length, accuracy)
    found = _folds.get(key)
    if found is None:
        found = Fold(formula, variables, name, kept, None, accuracy, weight, length)
        _folds[key] = found
        if len(_folds) > _KEPT:
            _folds.popitem(last=False)
    return found
