"""Fold: a checked reduction of a graph, callable on arrays, and its derivatives as folds.

This is the one path from arrays to machine code for every library and front end. It holds no
data: only the graph, the reduction and the options, and what it learnt about sizes seen before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..backends import reference
from ..backends.launch import Bound, Launcher
from ..calculus.derive import pull_back, push_forward
from ..core.locks import fork_safe_lock
from ..core.node import Kind, Node
from ..errors import DTypeError, InternalError, ShapeError
from ..lower.kernel import Kernel, lower
from ..lower.schedule import Accumulation
from ..ops.reductions import REDUCTIONS
from ..ops.table import variable
from ..settings import Settings, current
from .arrays import (
    Sizes,
    adapter_of,
    aligned_strides,
    batch_offsets,
    check_count,
    check_dtypes,
    check_shapes,
    overlap,
)

_KEPT = 64
_LAUNCHERS = 1024
_launchers: dict[Any, Launcher] = {}
_lock = fork_safe_lock()


@dataclass(frozen=True)
class Accuracy:
    """How sums are accumulated, as the user asked: dtype ("auto" or a name) and scheme."""

    dtype: str = "auto"
    scheme: str = "auto"

    def for_dtype(self, dtype: str) -> Accumulation:
        """The accumulation for data of a dtype.

        By default float32 terms are summed in float32 over a block of columns and blocks are
        added in float64; float64 blocks are added with compensation (Knuth's TwoSum). A Kahan
        scheme compensates every eight terms.

        Raises:
            DTypeError: an accumulator narrower than the data.
        """
        wanted = self.dtype
        if dtype == "float64" and wanted not in ("auto", "float64"):
            raise DTypeError(
                f"float64 data cannot be accumulated in {wanted}",
                found=f"dtype_acc={wanted!r}",
                hint="'auto' or 'float64'",
            )
        if wanted == "float16":
            raise DTypeError(
                "float32 data cannot be accumulated in float16", hint="'auto', 'float32', 'float64'"
            )
        every = 8 if self.scheme == "kahan_scheme" else 0
        if dtype == "float64":
            return Accumulation("float64", "float64", True, every)
        if self.scheme == "direct_sum" and wanted == "float64":
            return Accumulation("float64", "float64")
        if wanted == "float32":
            return Accumulation("float32", "float32", bool(every), every)
        return Accumulation("float32", "float64", False, every)


class Binding:
    """What a fold knows about arrays of given shapes and dtypes."""

    __slots__ = (
        "bound",
        "checked",
        "columns",
        "count",
        "dtype",
        "launcher",
        "out_shape",
        "positions",
        "rows",
        "sizes",
    )

    launcher: Launcher
    bound: Bound | None
    checked: bool
    sizes: Sizes
    rows: int
    columns: int
    count: int
    dtype: str
    out_shape: tuple[int, ...]
    positions: tuple[tuple[int, bool], ...]


class Fold:
    """`reduction` of `formula` over the index that is not `kept`, for arrays `variables`."""

    def __init__(
        self,
        formula: Node,
        variables: Sequence[Node],
        reduction: str,
        kept: Kind,
        names: Mapping[int, str] | None = None,
        accuracy: Accuracy | None = None,
    ) -> None:
        self.formula = formula
        self.variables = tuple(variables)
        self.reduction = reduction
        self.kept = kept
        self.names = dict(names or {})
        self.accuracy = accuracy or Accuracy()
        self._bindings: dict[Any, Binding] = {}
        self._derived: dict[Any, Fold] = {}

    # -- derivatives ----------------------------------------------------------------------------

    def pull_back(self, position: int) -> Fold:
        """The fold of the gradient to one argument: takes the arguments, then the incoming one.

        Rows of the result belong to the argument; for a parameter they are kept on i and must
        be summed.
        """
        key = ("pull", position)
        if key not in self._derived:
            incoming = variable(len(self.variables), self.formula.dim, self.kept)
            target = self.variables[position]
            node = pull_back(self.formula, [target], incoming)[0]
            kind = target.params[2]
            kept = Kind.I if kind == Kind.PARAMETER else kind
            self._derived[key] = self._again(node, target.dim, [incoming], kept)
        return self._derived[key]

    def push_forward(self, positions: tuple[int, ...]) -> Fold:
        """The fold of the derivative along tangents of these arguments (passed after all)."""
        key = ("push", positions)
        if key not in self._derived:
            start = len(self.variables)
            tangents: list[Node] = []
            moved: dict[Node, Node] = {}
            for place, position in enumerate(positions):
                _, dim, kind = self.variables[position].params
                tangents.append(variable(start + place, dim, kind))
                moved[self.variables[position]] = tangents[-1]
            node = push_forward(self.formula, moved)
            self._derived[key] = self._again(node, self.formula.dim, tangents, self.kept)
        return self._derived[key]

    def _again(self, node: Node | None, dim: int, extra: Sequence[Node], kept: Kind) -> Fold:
        from ..ops.vectors import zero

        if self.reduction != "Sum":
            raise InternalError(f"no derivative of {self.reduction} yet")
        formula = zero(dim) if node is None else node
        variables = (*self.variables, *extra)
        return Fold(formula, variables, "Sum", kept, self.names, self.accuracy)

    # -- kernels --------------------------------------------------------------------------------

    def kernel(self, options: Settings | None = None) -> Kernel:
        """The lowered kernel."""
        options = options or current()
        rearrange = options.rules != "exact"
        reduction = REDUCTIONS[self.reduction]
        return lower(self.formula, reduction, self.kept, options.unroll, rearrange)

    def launcher(self, dtype: str, options: Settings) -> Launcher:
        """The launcher for a dtype; folds of the same graph share it."""
        accumulation = self.accuracy.for_dtype(dtype)
        key = (
            self.formula,
            self.reduction,
            self.kept,
            dtype,
            accumulation,
            options.unroll,
            options.rules,
        )
        with _lock:
            found = _launchers.get(key)
            if found is None:
                found = Launcher(self.kernel(options), dtype, accumulation)
                if len(_launchers) >= _LAUNCHERS:
                    del _launchers[next(iter(_launchers))]  # folds in use hold on to theirs
                _launchers[key] = found
        return found

    # -- calls ----------------------------------------------------------------------------------

    def check(self, arrays: Sequence[Any], library: str | None = None) -> tuple[Any, Sizes, str]:
        """The adapter, sizes and dtype of a call's arrays.

        Raises:
            ArgumentError, ArrayTypeError, DTypeError, DeviceError, ShapeError: what does not fit.
        """
        check_count(len(self.variables), len(arrays), self.names)
        adapter = adapter_of(arrays, self.names, library)
        dtype = check_dtypes(adapter, arrays, self.names)
        shapes = [tuple(array.shape) for array in arrays]
        return adapter, check_shapes(self.variables, shapes, self.names), dtype

    def out_shape(self, sizes: Sizes) -> tuple[int, ...]:
        """The shape of the result: (..., rows, dim)."""
        return (*sizes.batch, sizes.of(self.kept), self.formula.dim)

    def __call__(self, adapter: Any, arrays: Sequence[Any], out: Any = None) -> Any:
        """Run on arrays of one library; what was not seen before is checked first.

        Raises:
            ArgumentError, ArrayTypeError, DTypeError, DeviceError, ShapeError: what does not fit.
        """
        binding = self.binding(adapter, arrays)
        if out is None:
            out = adapter.empty(binding.out_shape, arrays[0])
        else:
            self._check_out(adapter, out, binding)
            if any(overlap(adapter, array, out) for array in arrays):
                out[...] = self(adapter, arrays)
                return out
        self._run(adapter, arrays, out, binding)
        if binding.checked:
            self._compare(adapter, arrays, out, binding)
        return out

    def binding(self, adapter: Any, arrays: Sequence[Any]) -> Binding:
        """What is known of such arrays, under the settings in force."""
        options = current()
        try:
            key = (options, *map(adapter.key, arrays))
            binding = self._bindings.get(key)
        except AttributeError:
            key, binding = None, None
        if binding is None:
            binding = self._bind(arrays, options, adapter.name)
            if len(self._bindings) >= _KEPT:
                self._bindings.clear()
            self._bindings[key] = binding
        return binding

    def _bind(self, arrays: Sequence[Any], options: Settings, library: str) -> Binding:
        _, sizes, dtype = self.check(arrays, library)
        binding = Binding()
        binding.sizes, binding.dtype = sizes, dtype
        binding.checked = options.check >= 2
        binding.rows = sizes.of(self.kept)
        binding.columns = sizes.of(Kind.J if self.kept == Kind.I else Kind.I)
        binding.count = int(np.prod(sizes.batch, dtype=np.int64))
        binding.out_shape = self.out_shape(sizes)
        binding.launcher = self.launcher(dtype, options)
        binding.positions = tuple(
            (a.position, self.variables[a.position].params[2] == Kind.PARAMETER)
            for a in binding.launcher.kernel.arguments
        )
        binding.bound = None
        if binding.rows and binding.columns and binding.count:
            binding.bound = binding.launcher.bind(
                binding.rows, binding.columns, binding.count, options
            )
        return binding

    def _run(self, adapter: Any, arrays: Sequence[Any], out: Any, binding: Binding) -> None:
        if binding.bound is None:
            if binding.rows and binding.count:
                out[...] = REDUCTIONS[self.reduction].empty
            return
        addresses: list[tuple[int, int, int]] = []
        alive: list[Any] = []
        for position, parameter in binding.positions:
            array = adapter.ready(arrays[position])
            alive.append(array)
            strides = adapter.strides(array)
            row = 0 if parameter else strides[-2]
            addresses.append((adapter.address(array), row, strides[-1]))
        strides = adapter.strides(out)
        target = (adapter.address(out), strides[-2], strides[-1])
        offsets = None
        if binding.count > 1:
            offsets = self._offsets(adapter, alive, out, binding)
        binding.launcher.run(
            binding.bound, binding.rows, binding.columns, addresses, target, offsets
        )

    def _offsets(self, adapter: Any, arrays: Sequence[Any], out: Any, binding: Binding) -> Any:
        batch = binding.sizes.batch
        strides = [
            aligned_strides(
                tuple(array.shape), adapter.strides(array), 1 if parameter else 2, batch
            )
            for array, (_, parameter) in zip(arrays, binding.positions, strict=True)
        ]
        strides.append(adapter.strides(out)[: len(batch)])
        return batch_offsets(batch, strides)

    def _check_out(self, adapter: Any, out: Any, binding: Binding) -> None:
        if not adapter.owns(out) or adapter.dtype(out) != binding.dtype:
            raise DTypeError(
                f"out must be a {adapter.name} array of dtype {binding.dtype}",
                found=f"{type(out).__name__} of dtype {getattr(out, 'dtype', None)}",
            )
        adapter.check_device(out, "out")
        repeated = any(
            stride == 0 and size > 1
            for size, stride in zip(out.shape, adapter.strides(out), strict=True)
        )
        if repeated or not adapter.writable(out):
            raise ShapeError(
                "out must be an array that can be written, each element in a place of its own",
                found="a repeated view" if repeated else "a read-only array",
                hint="numpy.empty or torch.empty of that shape",
            )
        if tuple(out.shape) != binding.out_shape:
            raise ShapeError(
                f"out must have shape {binding.out_shape}", found=f"shape {tuple(out.shape)}"
            )

    def _compare(self, adapter: Any, arrays: Sequence[Any], out: Any, binding: Binding) -> None:
        """With `check=2`: every batch element against the reference interpreter."""
        want = self.reference(adapter, arrays, binding.sizes)
        got = np.asarray(adapter.to_numpy(out), np.float64)
        scale = np.nanmax(np.abs(want), initial=0) or 1.0
        eps = float(np.finfo(binding.dtype).eps)
        bound = 100 * eps * (binding.columns**0.5 + 1) * scale
        same = np.isclose(got, want, rtol=0, atol=bound, equal_nan=True)
        if not same.all():
            where = tuple(int(n[0]) for n in np.nonzero(~same))
            raise InternalError(
                "this is a bug in pairfold: machine code and reference differ",
                where=str(self.formula),
                found=f"{got[where]} instead of {want[where]} at {where}, dtype {binding.dtype}",
            )

    def reference(self, adapter: Any, arrays: Sequence[Any], sizes: Sizes) -> Any:
        """The result as the NumPy interpreter has it, in float64."""
        kernel = lower(self.formula, REDUCTIONS[self.reduction], self.kept, current().unroll)
        views: dict[int, Any] = {}
        for argument in kernel.arguments:
            array = np.asarray(adapter.to_numpy(adapter.ready(arrays[argument.position])))
            own = 1 if self.variables[argument.position].params[2] == Kind.PARAMETER else 2
            lead = array.ndim - own
            tail = array.shape[lead:]
            head = array.shape[:lead][-len(sizes.batch) :] if sizes.batch else ()
            array = array.reshape((*head, *tail))
            views[argument.position] = np.broadcast_to(array, (*sizes.batch, *tail))
        want = np.empty(self.out_shape(sizes))
        columns = sizes.of(Kind.J if self.kept == Kind.I else Kind.I)
        for index in np.ndindex(*sizes.batch):
            batch = {position: view[index] for position, view in views.items()}
            want[index] = reference.evaluate(kernel, batch, sizes.of(self.kept), columns)
        return want
