"""FormulaReduction: a checked reduction of a graph, callable on arrays; its derivatives likewise.

This is the one path from arrays to machine code for every library and front end. It holds no
data: only the graph, the reduction and the options, and what it learnt about sizes seen before.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..arrays.advice import label_of
from ..arrays.checks import (
    Sizes,
    aligned_strides,
    batch_offsets,
    check_count,
    check_dtypes,
    check_out,
    check_shapes,
    kernel_strides,
    overlap,
    truths_of,
)
from ..arrays.library import ArrayLibrary, Need
from ..arrays.registry import NUMPY, library_of
from ..backends.chosen import REFERENCE, chosen
from ..backends.interface import Backend, Call, Launcher, Strides
from ..calculus.derive import pull_back, push_forward
from ..core.cache import Cache, Limit
from ..core.dtypes import RESULTS
from ..core.library import Array, NumpyArray, Results
from ..core.node import Axis, Node, topological
from ..errors import (
    DerivativeError,
    MemoryLimitError,
)
from ..lower.accumulators import Folded
from ..lower.bounds import assume_moderate
from ..lower.kernel import Kernel, lower_all, with_truths
from ..lower.pattern import Pattern
from ..lower.schedule import Accumulation
from ..ops.differentiation import PullBack
from ..ops.reductions import Reduction, Result
from ..ops.states import masked, row_of, states_of
from ..ops.table import OPERATIONS, constant, fit, variable
from ..ops.vectors import zero
from ..settings import Settings, current, settings
from .accuracy import Accuracy
from .against import compare
from .binding import Binding
from .filling import fill
from .foldable import check_formulas
from .ranges import Ranges
from .separated import separated

T = TypeVar("T")

_MANY = 2**24  # results that there may be no memory for
_CALLS = 8
# Kernels are kept by their formula, the rest with each reduction. What holds a kernel counts it.
_KERNEL_BYTES = 64 * 2**20
_launchers: Cache[Launcher] = Cache(Limit("kernels", 512, _KERNEL_BYTES))
_BINDINGS = Limit("bindings", 512, _KERNEL_BYTES)
_DERIVED = Limit("derived reductions", 4096)


class FormulaReduction:
    """`reduction` of `formula` over the index that is not `kept`, for arrays `variables`.

    `weight` multiplies the terms of a max-shifted reduction; `length` is the K of a list; `asked`
    is the index that the results of the user's reduction are kept on, whose derivative this may be.
    Pairs for which the formula `where` is 0 are absent.
    """

    # What the kernel folds beside the formula: see Several.
    beside: tuple[Hashable, ...] = ()
    # Whether the kernel is a fused one: see FusedReductions.
    fused = False
    # Reductions that results are those of, one for each component: see Componentwise.
    by_component: tuple[FormulaReduction, ...] = ()
    # Whether far columns are met as proxies, by other folds: see FarReduction.
    far = False

    if not TYPE_CHECKING:

        def __new__(cls, formula: Node, *args: object, **named: object) -> FormulaReduction:
            """Of vectors of exponents with weights, a `Componentwise` one; of treecodes, theirs."""
            weight = named.get("weight", args[5] if len(args) > 5 else None)
            accuracy = named.get("accuracy", args[4] if len(args) > 4 else None)
            if cls is FormulaReduction and isinstance(accuracy, Accuracy) and accuracy.far:
                from .farfield import FarReduction

                return object.__new__(FarReduction)
            if cls is FormulaReduction and weight is not None and formula.dim > 1:
                from .componentwise import Componentwise as cls
            return object.__new__(cls)

    # Whether it is several reductions, whose results are those of each: see Several.
    joint = False

    def __init__(
        self,
        formula: Node,
        variables: Sequence[Node],
        reduction: str,
        kept: Axis,
        names: Mapping[int, str] | None = None,
        accuracy: Accuracy | None = None,
        weight: Node | None = None,
        length: int = 0,
        asked: Axis | None = None,
        where: Node | None = None,
    ) -> None:
        self.formula = formula
        self.variables = tuple(variables)
        self.where = where
        self.reduction = reduction if where is None else masked(reduction)
        self.row = row_of(self.reduction)
        self.results: tuple[Result, ...] = self.row.results
        self.kept = kept
        self.names = dict(names or {})
        self.accuracy = accuracy or Accuracy()
        self.weight = weight
        self.length = length
        self.asked = kept if asked is None else asked
        self._bindings: Cache[Binding] = Cache(_BINDINGS)
        self._derived: Cache[Any] = Cache(_DERIVED)
        check_formulas(self.row, formula, weight, self.names, where)

    def __reduce__(self) -> tuple[object, ...]:
        from .identity import identity, rebuilt

        return rebuilt, (identity(self),)

    @property
    def dim(self) -> int:
        """Components that are folded."""
        return self.formula.dim if self.weight is None else self.weight.dim

    @property
    def widths(self) -> tuple[int, ...]:
        """The number of components of each result, as machine code writes it."""
        maxima = self.dim if self.weight is None else 1
        sizes = {"component": self.dim, "maximum": maxima, "list": self.dim * self.length}
        return tuple(sizes[result.per] for result in self.row.results)

    def reads(self, position: int) -> bool:
        """Whether a formula has that variable."""
        return self.variables[position] in self.derived("read", self._read)

    def _read(self) -> frozenset[Node]:
        roots = [root for f in self.apart for root in (f.formula, f.weight, f.where)]
        return frozenset(topological([root for root in roots if root is not None]))

    @cached_property
    def counted_axes(self) -> frozenset[Axis]:
        """The axes whose numbers of rows a formula has, which parts of arrays would change."""
        read = self.derived("read", self._read)
        return frozenset(node.params[0] for node in read if node.op.name == "Ind")

    @property
    def counts_pairs(self) -> bool:
        """Whether a formula has numbers of rows or columns."""
        return bool(self.counted_axes)

    @cached_property
    def has_derivatives(self) -> bool:
        """Whether gradients and tangents are to be asked for, be it to say that there are none.

        Compositions and selections call their parts instead, at constants for selected values.
        Of several reductions, some may have none.
        """
        ways = ((part.row.differentiated, part.row.constant) for part in self.apart)
        return any(isinstance(how, PullBack) or (how is None and not rest) for how, rest in ways)

    # -- derived folds --------------------------------------------------------------------------

    def variant(self, reduction: str) -> FormulaReduction:
        """Another reduction of the same formula, with the weight and the length that it takes."""
        return self.derived(("variant", reduction), lambda: self._variant(row_of(reduction)))

    def _variant(self, row: Reduction) -> FormulaReduction:
        weight = self.weight if row.weighted != "no" else None
        length = self.length if row.top_k else 0
        return self.with_formula(self.formula, self.variables, row.name, self.kept, weight, length)

    @property
    def apart(self) -> tuple[FormulaReduction, ...]:
        """The reductions that its results are those of."""
        return (self,)

    @property
    def saves(self) -> bool:
        """Whether derivatives read its results."""
        return self.row.saves

    def count(self) -> FormulaReduction:
        """The fold that counts the pairs of each row that its mask leaves."""
        given = (constant(1), self.variables, "Count", self.kept)
        return self.derived("count", lambda: self.with_formula(*given))

    def of_states(self) -> FormulaReduction:
        """The fold whose results are the states of this one, see `ops.states`."""
        return self.variant(states_of(self.reduction))

    def with_formula(
        self,
        formula: Node,
        variables: Sequence[Node],
        reduction: str,
        kept: Axis,
        weight: Node | None = None,
        length: int = 0,
    ) -> FormulaReduction:
        """A fold of another formula over the same pairs, with this one's names and accuracy."""
        given = (self.names, self.accuracy, weight, length, self.asked, self.where)
        return FormulaReduction(formula, variables, reduction, kept, *given)

    def derived(self, key: Hashable, make: Callable[[], T]) -> T:
        """What `make` gives, kept with this fold."""
        return self._derived.of(key, make)

    def _like_results(self, start: int, step: int = 1) -> list[Node]:
        """Variables of the form of the results, from a position on."""
        return [variable(start + step * n, w, self.kept) for n, w in enumerate(self.widths)]

    def _saved(self, start: int) -> list[Node]:
        """Variables for the results, where derivatives read them: passed after the arguments."""
        return self._like_results(start) if self.saves else []

    def _sent(self, saved: Sequence[Node], incoming: Sequence[Node]) -> list[tuple[Node, Node]]:
        """(formula, what a gradient sends into it) for the formula and the weight."""
        how = self.row.differentiated
        if not isinstance(how, PullBack):
            raise DerivativeError(f"{self.reduction} has no derivative")
        sent = how.rule(self.formula, self.weight, saved, incoming)
        pairs = zip((self.formula, self.weight), sent, strict=True)
        return [(f, fit(g, f.dim)) for f, g in pairs if f is not None and g is not None]

    def pull_back(self, position: int) -> FormulaReduction:
        """The fold of the gradient to one argument: takes the arguments, the results where the
        reduction saves them, then the incoming gradients, one per result.

        Rows of the result belong to the argument; for a parameter they are kept as those of this
        fold and must be summed. For an argument of pairs, its formula is the gradient.
        """
        return self.derived(("pull", position), lambda: self._pull_back(position))

    def _pull_back(self, position: int) -> FormulaReduction:
        target = self.variables[position]
        saved = self._saved(len(self.variables))
        incoming = self._like_results(len(self.variables) + len(saved))
        total: Node | None = None
        for formula, gradient in self._sent(saved, incoming):
            part = pull_back(formula, [target], gradient)[0]
            if part is not None:
                total = part if total is None else total + part
        kind = target.variable.kind
        kept = kind if kind in (Axis.I, Axis.J) else self.kept
        formula = zero(target.dim) if total is None else total
        return self.with_formula(formula, (*self.variables, *saved, *incoming), "Sum", kept)

    def push_forward(self, positions: tuple[int, ...]) -> tuple[FormulaReduction, ...]:
        """Folds of the derivatives of the results along tangents of these arguments.

        They take the arguments, the results where the reduction saves them, then the tangents.
        """
        return self.derived(("push", positions), lambda: self._push_forward(positions))

    def _push_forward(self, positions: tuple[int, ...]) -> tuple[FormulaReduction, ...]:
        saved = self._saved(len(self.variables))
        start = len(self.variables) + len(saved)
        moved: dict[Node, Node] = {}
        for place, position in enumerate(positions):
            _, dim, kind = self.variables[position].params
            moved[self.variables[position]] = variable(start + place, dim, kind)
        # A gradient's path is linear in it: transposed, it is the path of tangents.
        incoming = self._like_results(-2, -1)
        paired: Node | None = None
        for formula, gradient in self._sent(saved, incoming):
            part = _dot(gradient, push_forward(formula, moved))
            paired = part if paired is None else paired + part
        assert paired is not None
        found: list[FormulaReduction] = []
        for n, node in enumerate(pull_back(paired, incoming, constant(1))):
            _, width, kept = incoming[n].params
            formula = zero(width) if node is None else node
            variables = (*self.variables, *saved, *moved.values())
            found.append(self.with_formula(formula, variables, "Sum", kept))
        return tuple(found)

    # -- kernels --------------------------------------------------------------------------------

    def kernel(
        self, options: Settings | None = None, truths: frozenset[int] = frozenset()
    ) -> Kernel:
        """The lowered kernel, for arrays of truth values at some positions."""
        options = options or current()
        rearrange = options.rules != "exact"
        pairs = None if self.fused else options.unroll_pairs
        kernel = lower_all(self.folded(), self.kept, options.unroll, rearrange, pairs, self.fused)
        if rearrange:
            assume_moderate(kernel)
        return with_truths(kernel, truths)

    def folded(self) -> list[Folded]:
        """The reductions that the kernel has."""
        row, length = self.row, self.length
        if length == 1:
            row, length = row_of(row.single), 0
        return [Folded(self.formula, row, self.weight, length, where=self.where)]

    def accumulation(self, dtype: str) -> Accumulation:
        """How sums are accumulated for data of a dtype."""
        return self.accuracy.for_dtype(dtype, self.row)

    def launcher(
        self,
        dtype: str,
        options: Settings,
        backend: Backend | None = None,
        truths: frozenset[int] = frozenset(),
    ) -> Launcher:
        """The launcher for a dtype; folds of the same graph share it.

        By default that of the backend for arrays of the host. At the positions `truths` arrays
        hold truth values.
        """
        backend = backend or chosen(options, None)
        options = backend.lowering(options)
        accumulation = self.accumulation(dtype)
        key = (
            self.formula,
            self.weight,
            self.where,
            self.length,
            self.reduction,
            self.kept,
            dtype,
            accumulation,
            options.unroll,
            options.unroll_pairs,
            options.rules,
            self.beside,
            backend.name,
            truths,
        )
        found = _launchers.get(key)
        if found is None:
            kernel = self.kernel(options, truths)
            made = backend.launcher(kernel, dtype, accumulation)
            found = _launchers.put(key, made, kernel.bytes)
        return found

    # -- calls ----------------------------------------------------------------------------------

    def check(
        self, arrays: Sequence[Array], name: str | None = None
    ) -> tuple[ArrayLibrary, Sizes, str]:
        """The library, sizes and dtype of a call's arrays.

        Raises:
            ArgumentError, ArrayTypeError, DTypeError, DeviceError, ShapeError: what does not fit.
        """
        check_count(len(self.variables), len(arrays), self.names)
        library = library_of(arrays, self.names, name)
        dtype = check_dtypes(library, arrays, self.names, self.variables)
        for position, array in enumerate(arrays):
            library.check_memory(array, label_of(position, self.names))
        shapes = [tuple(array.shape) for array in arrays]
        return library, check_shapes(self.variables, shapes, self.names), dtype

    def out_shapes(self, sizes: Sizes) -> tuple[tuple[int, ...], ...]:
        """The shapes of the results as machine code writes them: (..., rows, components)."""
        return tuple((*sizes.batch, sizes.of(self.kept), width) for width in self.widths)

    def shaped(self, library: ArrayLibrary, results: Sequence[Array]) -> Results:
        """Results as users see them: lists with an axis for their places, joined parts joined."""
        found = list(results)
        if self.row.top_k:
            for n, array in enumerate(found):
                shape = (*array.shape[:-1], self.length, self.dim)
                found[n] = array.reshape(shape[:-1] if self.dim == 1 else shape)
        if self.row.joined:
            found = [library.concatenated(found)]
        return found[0] if len(found) == 1 else tuple(found)

    def __call__(
        self,
        library: ArrayLibrary,
        arrays: Sequence[Array],
        out: Results | None = None,
        ranges: Ranges | None = None,
    ) -> Results:
        """Run on arrays of one library; what was not seen before is checked first.

        With `ranges`, only over their pairs: their half for the kept index.

        Raises:
            ArgumentError, ArrayTypeError, DTypeError, DeviceError, ShapeError, RangeError: what
                does not fit.
        """
        if out is None:
            results = self.run(library, arrays, ranges)
            return results[0] if self.simple else self.shaped(library, results)
        binding = self.binding(library, arrays)
        if self.simple:
            self._check_out(library, out, binding, arrays[0])
        apart = library.elsewhere is not None or (binding.separated is not None and ranges is None)
        if apart or not self.simple or isinstance(out, tuple):
            return fill(library, out, self(library, arrays, None, ranges), self)
        if any(overlap(library, array, out) for array in arrays):
            out[...] = self.run(library, arrays, ranges)[0]
            return out
        self._run(library, arrays, (out,), binding, ranges, foreign=True)
        if binding.checked:
            compare(self, library, arrays, (out,), binding, ranges)
        return out

    @property
    def simple(self) -> bool:
        """Whether the one array that machine code writes is what users see."""
        row = self.row
        return len(row.results) == 1 and not row.top_k and not row.joined

    def run(
        self, library: ArrayLibrary, arrays: Sequence[Array], ranges: Ranges | None = None
    ) -> tuple[Array, ...]:
        """New arrays of the results, as machine code writes them."""
        return self.run_bound(library, arrays, self.binding(library, arrays), ranges)

    def run_bound(
        self,
        library: ArrayLibrary,
        arrays: Sequence[Array],
        binding: Binding,
        ranges: Ranges | None = None,
    ) -> tuple[Array, ...]:
        """The same for arrays of which all is known."""
        results = None
        if binding.separated is not None and ranges is None:
            results = binding.separated(library, arrays, binding)
        if results is None:
            results = self._over_pairs(library, arrays, binding, ranges)
        if binding.checked:
            compare(self, library, arrays, results, binding, ranges)
        return results

    def _over_pairs(
        self,
        library: ArrayLibrary,
        arrays: Sequence[Array],
        binding: Binding,
        ranges: Ranges | None,
    ) -> tuple[Array, ...]:
        results = self.empty(library, arrays, binding)
        if library.elsewhere is not None:
            library.elsewhere(self, arrays, results, binding, ranges)
        else:
            self._run(library, arrays, results, binding, ranges)
        return results

    def empty(
        self, library: ArrayLibrary, arrays: Sequence[Array], binding: Binding
    ) -> tuple[Array, ...]:
        """New arrays for the results, beside the arguments.

        Raises:
            MemoryLimitError: the host has no memory for them.
        """
        try:
            return tuple(
                [
                    library.empty(shape, arrays[0], result.kind)
                    for shape, result in zip(binding.out_shapes, self.results, strict=True)
                ]
            )
        except (MemoryError, ValueError, RuntimeError) as error:
            most = max(map(math.prod, binding.out_shapes))
            if binding.device is not None or most < _MANY:
                raise
            raise MemoryLimitError(
                "there is no memory for the results",
                found=f"results of shape {' and '.join(map(str, binding.out_shapes))}, "
                f"of dtype {binding.dtype}",
            ) from error

    def sizes(self, library: ArrayLibrary, arrays: Sequence[Array]) -> Sizes:
        """The sizes of a call's arrays.

        Raises:
            ArgumentError, ArrayTypeError, DTypeError, DeviceError, ShapeError: what does not fit.
        """
        return self.binding(library, arrays).sizes

    def binding(self, library: ArrayLibrary, arrays: Sequence[Array]) -> Binding:
        """What is known of such arrays, under the settings in force."""
        options = current()
        try:
            key = (options, *map(library.key, arrays))
        except Exception:
            self._bind(library, arrays, options)  # says which is no array, or has no strides
            raise
        binding = self._bindings.get(key)
        if binding is None:
            binding = self._bind(library, arrays, options)
            size = binding.launcher.kernel.bytes
            binding = self._bindings.put(key, binding, size)
        return binding

    def _bind(self, library: ArrayLibrary, arrays: Sequence[Array], options: Settings) -> Binding:
        _, sizes, dtype = self.check(arrays, library.name)
        binding = Binding()
        binding.sizes, binding.dtype = sizes, dtype
        binding.checked = options.check >= 2
        binding.rows = sizes.of(self.kept)
        binding.columns = sizes.of(Axis.J if self.kept == Axis.I else Axis.I)
        binding.count = math.prod(sizes.batch)
        binding.out_shapes = self.out_shapes(sizes)
        binding.device = library.device(arrays[0])
        truths = truths_of(library, self.variables, arrays)
        binding.launcher = self.launcher(dtype, options, chosen(options, binding.device), truths)
        binding.positions = tuple(
            (a.position, self.variables[a.position].variable.kind)
            for a in binding.launcher.kernel.arguments
        )
        binding.ready = all(map(library.is_ready, arrays))
        binding.needs = (
            *[None] * len(binding.out_shapes),
            *(self._need(library, arrays, n, binding.ready) for n, _ in binding.positions),
        )
        binding.bound, binding.calls, binding.options = None, {}, options
        binding.separated = separated(self, binding, library, options)
        return binding

    def _need(
        self, library: ArrayLibrary, arrays: Sequence[Array], position: int, ready: bool
    ) -> Need | None:
        return library.need(arrays[position], label_of(position, self.names)) if ready else None

    def bound(self, binding: Binding, ranges: Ranges | None) -> object:
        """What the launcher makes for the sizes; that for all pairs is kept with the binding."""
        launcher, options, device = binding.launcher, binding.options, binding.device
        if ranges is not None:
            pattern = self.pattern(ranges, binding.sizes)
            return launcher.bind_sparse(binding.rows, binding.count, options, pattern, device)
        if binding.bound is None:
            sizes = (binding.rows, binding.columns, binding.count)
            binding.bound = launcher.bind(*sizes, options, device)
        return binding.bound

    def pattern(self, ranges: Ranges, sizes: Sizes) -> Pattern:
        """The half of ranges that is read; a derivative's other half must mean the same pairs."""
        found = ranges.pattern(self.kept, sizes.i, sizes.j)
        if self.kept != self.asked:
            ranges.check_halves(sizes.i, sizes.j)
        return found

    def _run(
        self,
        library: ArrayLibrary,
        arrays: Sequence[Array],
        results: Sequence[Array],
        binding: Binding,
        ranges: Ranges | None,
        foreign: bool = False,
    ) -> None:
        """Fold; `foreign` results are not new arrays, so that their strides may be any."""
        if ranges is not None:
            self.pattern(ranges, binding.sizes)
        if not binding.rows or not binding.count:
            return
        # `alive` holds copies, where there are some, until the call is over.
        call, alive = self.call(library, arrays, results, binding, ranges, foreign)
        call(library.addresses(alive, binding.needs), alive)

    def call(
        self,
        library: ArrayLibrary,
        arrays: Sequence[Array],
        results: Sequence[Array],
        binding: Binding,
        ranges: Ranges | None = None,
        foreign: bool = False,
    ) -> tuple[Call, list[Array]]:
        """A call for such arrays, and what it takes: results, then arguments in its order."""
        alive = [arrays[position] for position, _ in binding.positions]
        if not binding.ready:
            for position, _ in binding.positions:
                library.check_memory(arrays[position], label_of(position, self.names))
            alive = list(map(library.ready, alive))
        given = [*results, *alive]
        # What is on a GPU is kept there: offsets, for results of the same strides.
        key = tuple(map(library.strides, results)) if foreign else ()
        if ranges is not None:
            return self._call(library, results, alive, binding, ranges), given
        found = binding.calls.get(key)
        if found is None:
            found = self._call(library, results, alive, binding, None)
            if len(binding.calls) >= _CALLS:
                binding.calls.clear()
            binding.calls[key] = found
        return found, given

    def _call(
        self,
        library: ArrayLibrary,
        results: Sequence[Array],
        alive: Sequence[Array],
        binding: Binding,
        ranges: Ranges | None,
    ) -> Call:
        """A call with the strides of these arrays, the arguments in the kernel's order."""
        strides, along = self.strides(library, results, alive, binding)
        offsets = None
        if binding.count > 1:
            offsets = self._offsets(binding, along)
        bound = self.bound(binding, ranges)
        return binding.launcher.call(bound, binding.rows, binding.columns, strides, offsets)

    def strides(
        self,
        library: ArrayLibrary,
        results: Sequence[Array],
        alive: Sequence[Array],
        binding: Binding,
    ) -> tuple[list[Strides], list[tuple[int, ...]]]:
        """Byte strides of results, then arguments: those of `Strides`, and of batch axes."""
        batch = binding.sizes.batch
        found: list[Strides] = []
        along: list[tuple[int, ...]] = []
        for array in results:
            own = library.strides(array)
            found.append((own[-2], own[-1]))
            along.append(own[: len(batch)])
        for array, (_, kind) in zip(alive, binding.positions, strict=True):
            own = library.strides(array)
            found.append(kernel_strides(kind, own, self.kept))
            if not batch:  # as in most calls, which take microseconds
                along.append(())
                continue
            along.append(aligned_strides(tuple(array.shape), own, kind.axes, batch))
        return found, along

    def _offsets(self, binding: Binding, along: Sequence[tuple[int, ...]]) -> NDArray[np.int64]:
        try:
            return batch_offsets(binding.sizes.batch, along)
        except (MemoryError, ValueError) as error:
            raise MemoryLimitError(
                "there is no memory for the places of the batch elements",
                found=f"{binding.count} batch elements",
                hint="a loop over the first axis",
            ) from error

    def _check_out(self, library: ArrayLibrary, out: object, binding: Binding, like: Array) -> None:
        wanted = RESULTS.get(self.row.results[0].kind, binding.dtype)
        check_out(library, out, binding.out_shapes[0], wanted, like)

    def reference(
        self, library: ArrayLibrary, arrays: Sequence[Array], ranges: Ranges | None = None
    ) -> Sequence[NumpyArray]:
        """The results as the interpreter of kernels has them, as NumPy arrays."""
        given: list[Array] = [
            np.asarray(library.to_numpy(library.ready(array))) for array in arrays
        ]
        with settings(backend=REFERENCE.name, check=0, separable="never"):
            return [NUMPY.to_numpy(array) for array in self.run(NUMPY, given, ranges)]


def _dot(x: Node, y: Node) -> Node:
    return OPERATIONS["Sum"](x * y)
