"""The NumPy interpreter of a kernel: slow, obvious, float64. It is what a kernel means.

Rows are axis 0, columns axis 1; a value of the row stage is an array of shape (M, 1), of the
column stage (1, N), of the pair stage (M, N). Batches are handled by the caller, one at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ...core.dtypes import RESULTS
from ...core.numbers import number, to_float
from ...core.primitives import INDEX_OPERATIONS, PRIMITIVES, Numbers, PlaceholderName
from ...core.scalars import Loop, Value, reachable
from ...errors import InternalError
from ...lower.accumulators import Accumulator
from ...lower.kernel import COLUMN, ONCE, PAIR, ROW, Kernel
from ...lower.pattern import Pattern

Floats = NDArray[np.float64]
Array = NDArray[np.generic]
# What a value is: numbers, the number of a component, or the components of a table.
Cell = Numbers | int | list[Numbers]
# What computes some values from those that are known, to which it adds.
Program = Callable[[dict[Value, Cell]], list[Numbers]]


class _Interpreter:
    """Computes values; `rows` and `columns` are the numbers of those that there are."""

    def __init__(
        self,
        kernel: Kernel,
        arrays: Mapping[int, Array],
        dtype: str,
        rows: Array,
        columns: Array,
    ) -> None:
        self.dtype = np.dtype(dtype)
        self.numbers = {"row_number": rows[:, None], "column_number": columns[None, :]}
        self.loads: dict[int, Array] = {}
        for argument in kernel.arguments:
            array = np.asarray(arrays[argument.position], dtype=self.dtype)
            if argument.stage == ONCE:
                array = array[None, None, :]
            self.loads[argument.position] = {
                ONCE: lambda a: a,
                ROW: lambda a: a[:, None, :],
                COLUMN: lambda a: a[None, :, :],
                PAIR: lambda a: a,
            }[argument.stage](array)

    def run(self, targets: Sequence[Value], known: dict[Value, Cell]) -> list[Numbers]:
        """Values of the targets, given those of placeholders, carries and loop indices."""
        return self.prepared(targets, known)(known)

    def prepared(self, targets: Sequence[Value], given: Collection[Value]) -> Program:
        """The same for any values of those that are given: what to compute is found once."""
        inside = {value.loop for value in given if value.what == "index_loop"}
        needed = reachable(targets, lambda value: value in given)
        order = [value for value in needed if value not in given and value.loops <= inside]

        def run(known: dict[Value, Cell]) -> list[Numbers]:
            for value in order:
                known[value] = self._value(value, known)
            return [_numbers(known[target]) for target in targets]

        return run

    def _value(self, value: Value, known: dict[Value, Cell]) -> Cell:
        what, args = value.what, list(value.args)
        primitive = PRIMITIVES.get(what)
        if primitive is not None:
            return primitive.numpy(*[known[arg] for arg in args])
        if what in self.numbers:
            return self.numbers[what]
        if what == "whole":
            return np.int64(value.integer)
        if what == "const":
            return self.dtype.type(to_float(value.number, self.dtype.name))
        if what == "load":
            position, k = value.loaded
            return self.loads[position][..., _integer(known[args[0]]) if k is None else k]
        if what == "result":
            loop, place = value.carried
            return self._loop(loop, known)[place]
        if what == "table":
            return self._table(value, known)
        if what == "entry":
            cells, k = known[args[0]], value.integer if len(args) == 1 else _integer(known[args[1]])
            assert isinstance(cells, list)
            return cells[k] if k < len(cells) else self.dtype.type(np.nan)
        if what == "position":
            return self.dtype.type(_integer(known[args[0]]))
        if what == "index_below":
            return np.asarray(_integer(known[args[0]]) < value.integer)
        if value.kind == "index":
            right = _integer(known[args[1]]) if len(args) > 1 else value.integer
            return _INDEX[what](_integer(known[args[0]]), right)
        raise InternalError(f"the reference cannot evaluate {value}")

    def _loop(self, loop: Loop, known: dict[Value, Cell]) -> list[Numbers]:
        state = [_numbers(known[init]) for init in loop.inits]
        step = self.prepared(loop.nexts, {*known, loop.index, *loop.carries})
        for k in range(loop.n):
            inside = {**known, loop.index: k}
            inside.update(zip(loop.carries, state, strict=True))
            state = step(inside)
        return state

    def _table(self, table: Value, known: dict[Value, Cell]) -> list[Numbers]:
        """The components in order; what is read before it is there is NaN."""
        loop = table.loop
        computed: list[Numbers] = []
        step = self.prepared(loop.nexts, {*known, loop.index, loop.carries[0]})
        for k in range(loop.n):
            computed.append(step({**known, loop.index: k, loop.carries[0]: computed})[0])
        return computed


def _numbers(cell: Cell) -> Numbers:
    assert not isinstance(cell, (int, list))
    return cell


def _integer(cell: Cell) -> int:
    assert isinstance(cell, int)
    return cell


_INDEX = {row.what: row.meaning for row in INDEX_OPERATIONS.values()}


def evaluate(
    kernel: Kernel, arrays: Mapping[int, Array], rows: int, columns: int, dtype: str = "float64"
) -> Array:
    """The reduction's first result, shape (rows, components), for one batch element.

    `arrays[position]`: (rows, dim), (columns, dim), (dim,) or (rows, columns, dim) by the
    argument's stage.
    """
    return evaluate_all(kernel, arrays, rows, columns, dtype)[0]


def evaluate_all(
    kernel: Kernel,
    arrays: Mapping[int, Array],
    rows: int,
    columns: int,
    dtype: str = "float64",
    numbers: Array | None = None,
    first: int = 0,
) -> list[Array]:
    """All results of all accumulators, each (rows, components), for one batch element.

    Those that are kept on columns have columns for rows. Components of a list are ordered by place,
    then by the formula's component. `numbers` are those of the columns, where they are not 0, 1, 2
    and so on; `first` is that of the first row.
    """
    numbers = np.arange(columns) if numbers is None else numbers
    own = np.arange(first, first + rows)
    interpreter = _Interpreter(kernel, arrays, dtype, own, numbers)
    found: list[Array] = []
    with np.errstate(all="ignore"):
        for each in kernel.accumulators:
            outside: dict[Value, Cell] = {}
            folds = [
                _Fold(kernel, each, interpreter, component, (rows, columns), outside)
                for component in range(each.count)
            ]
            found += _results(each, folds)
        return [
            array.astype(RESULTS.get(kind, dtype))
            for array, kind in zip(found, kernel.kinds, strict=True)
        ]


def _results(accumulator: Accumulator, folds: Sequence[_Fold]) -> list[Array]:
    """The results of an accumulator, each (rows, components), from its folded components."""
    rule, folded = accumulator.rule, accumulator.folded
    found: list[Array] = [np.empty((folds[0].rows, size)) for size in folded.results]
    for component, fold in enumerate(folds):
        for result, array, values in zip(rule.results, found, fold.finished(), strict=True):
            if result.per == "list":
                array[:, component :: accumulator.count] = values.T
            elif result.per == "component" or component < folded.maxima:
                array[:, component] = values
    return found


class _Fold:
    """One component of an accumulator, folded over all columns, one column after the other.

    Where it is kept on columns, those are its rows: pairs are transposed. `outside` are values of
    the accumulator that are the same for all its components, as far as they are known.
    """

    def __init__(
        self,
        kernel: Kernel,
        accumulator: Accumulator,
        interpreter: _Interpreter,
        component: int,
        sizes: tuple[int, int],
        outside: dict[Value, Cell],
    ) -> None:
        self.kernel, self.accumulator, self.interpreter = kernel, accumulator, interpreter
        self.across = accumulator.axis == COLUMN
        self.rows, self.columns = sizes[::-1] if self.across else sizes
        which = "row_number" if self.across else "column_number"
        self.numbers: Array = interpreter.numbers[which].reshape(-1)
        self.place = accumulator.first + component if kernel.output_loop is None else 0
        self.index: dict[Value, Cell] = {}
        if kernel.output_loop is not None:
            self.index[kernel.output_loop.index] = component
        self.outside = outside
        self.keep = None if kernel.keep is None else self.pairs(kernel.keep)

    def pairs(self, value: Value) -> Array:
        """A value of every pair: (rows, columns)."""
        return self._spread(value, self.columns)

    def _spread(self, value: Value, columns: int) -> Array:
        known = {**self.outside, **self.index}
        found = self.interpreter.run([value], known)[0]
        self.outside.update((v, cell) for v, cell in known.items() if not v.loops)
        return np.broadcast_to(found.T if self.across else found, (self.rows, columns))

    def finished(self) -> list[Numbers]:
        """One component of every result: (rows,), or (places, rows) for a list."""
        kernel, rule = self.kernel, self.accumulator.rule
        top = np.zeros(self.rows)
        if rule.max_shifted:
            top = self._maximum(component=self.place - self.accumulator.first)
        if rule.top_k:
            return self._finish(self._list(), top, np.zeros(self.rows))
        state = self._state(self.place)
        factor = kernel.factors[self.place]
        if factor is not None and self.columns:
            scale = self._spread(factor, 1)[:, 0]
            state = [np.multiply(part, scale) for part in state]
        total = np.zeros(self.rows)
        if self.accumulator.total is not None:
            total = self._state(self.accumulator.last)[0]
        return self._finish(state, top, total)

    def _finish(self, state: Sequence[Numbers], top: Numbers, total: Numbers) -> list[Numbers]:
        names: dict[PlaceholderName, Sequence[Numbers]] = {
            "a": state, "top": [top], "total": [total], "count": [np.float64(self.columns)]
        }  # fmt: skip
        targets = self.accumulator.finished
        return self.interpreter.run(targets, _supplied(_placeholders(targets, names), names))

    def _maximum(self, component: int) -> Array:
        """The largest exponent of every row, NaN apart, within the finite numbers."""
        which = component if self.accumulator.folded.weight is None else 0
        logit = self.accumulator.logits[which]
        absent = np.isnan(self.pairs(logit))
        if self.keep is not None:
            absent = absent | ~self.keep.astype(bool)
        values = np.where(absent, -np.inf, self.pairs(logit))
        limit = np.finfo(self.interpreter.dtype).max
        top = np.clip(values.max(axis=1, initial=-np.inf), -limit, limit)
        maximum = self.kernel.scalars.placeholder("top", self.accumulator.top + which)
        self.outside[maximum] = top[:, None]
        return top

    def _state(self, place: int) -> list[Numbers]:
        state: list[Numbers] = [
            np.full(self.rows, to_float(number(part))) for part in self.accumulator.rule.identity
        ]
        step = self._step(place)
        for j in range(self.columns):
            state = step(j, state)
        return state

    def _step(self, place: int) -> Callable[[int, Sequence[Numbers]], list[Numbers]]:
        """What makes of a state the one after column j."""
        output = self.kernel.outputs[place]
        steps = self.accumulator.steps[place - self.accumulator.first]
        pairs = self.pairs(output)
        placeholders = _placeholders(steps, ("acc", "column"))
        run = self.interpreter.prepared(steps, {*self.index, output, *placeholders})

        def step(j: int, state: Sequence[Numbers]) -> list[Numbers]:
            given: dict[PlaceholderName, Sequence[Numbers]] = {
                "acc": state, "column": [np.float64(self.numbers[j])]
            }  # fmt: skip
            after = run({**self.index, output: pairs[:, j], **_supplied(placeholders, given)})
            if self.keep is None:
                return after
            before = state[-len(after) :]  # of a list, what the place holds itself
            keep = self.keep[:, j]
            return [np.where(keep, new, old) for new, old in zip(after, before, strict=True)]

        return step

    def _list(self) -> list[Numbers]:
        """The two parts of a sorted list: (places, rows) each."""
        kept: list[Numbers] = [
            np.full((self.accumulator.folded.length, self.rows), part) for part in (np.inf, 0.0)
        ]
        first = [np.full((1, self.rows), part) for part in (-np.inf, -1.0)]
        step = self._step(self.place)
        for j in range(self.columns):
            before = [np.concatenate([f, k])[:-1] for f, k in zip(first, kept, strict=True)]
            kept = step(j, [*before, *kept])
        return kept


def evaluate_sparse(
    kernel: Kernel, arrays: Mapping[int, Array], rows: int, pattern: Pattern
) -> list[Array]:
    """The same over the pairs of a pattern alone: block after block, the columns it meets."""
    found: list[list[Array]] = []
    for row_block in pattern.whole(rows):
        own = slice(row_block[0], row_block[0] + row_block[1])
        columns = pattern.column_numbers(row_block)
        parts: dict[int, Array] = {}
        for argument in kernel.arguments:
            whole = np.asarray(arrays[argument.position])
            which = {ONCE: ..., ROW: own, COLUMN: columns, PAIR: own}[argument.stage]
            parts[argument.position] = whole[which]
            if argument.stage == PAIR:
                parts[argument.position] = whole[own][:, columns]
        count = len(columns)
        sizes = int(row_block[1]), count
        found.append(evaluate_all(kernel, parts, *sizes, "float64", columns, int(row_block[0])))
    if not found:
        return evaluate_all(kernel, arrays, rows, 0)
    return [np.concatenate(parts) for parts in zip(*found, strict=True)]


def pair_values(
    kernel: Kernel, arrays: Mapping[int, Array], rows: int, columns: int, dtype: str = "float64"
) -> Array:
    """The formula at every pair, shape (rows, columns, dim): the table that is never stored."""
    interpreter = _Interpreter(kernel, arrays, dtype, np.arange(rows), np.arange(columns))
    with np.errstate(all="ignore"):
        outside: dict[Value, Cell] = {}
        parts = [
            fold.pairs(kernel.outputs[fold.place])
            for fold in (
                _Fold(kernel, kernel.only, interpreter, component, (rows, columns), outside)
                for component in range(kernel.dim)
            )
        ]
    return np.stack(parts, axis=-1)


def _placeholders(targets: Sequence[Value], names: Collection[PlaceholderName]) -> list[Value]:
    """Those of these names that the targets are made of."""
    return [
        value
        for value in reachable(targets)
        if value.what == "placeholder" and value.supplied.name in names
    ]


def _supplied(
    placeholders: Sequence[Value], given: Mapping[PlaceholderName, Sequence[Numbers]]
) -> dict[Value, Cell]:
    return {value: given[value.supplied.name][value.supplied.place] for value in placeholders}
