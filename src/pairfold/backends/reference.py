"""The NumPy interpreter of a kernel: slow, obvious, float64. It is what a kernel means.

Rows are axis 0, columns axis 1; a value of the row stage is an array of shape (M, 1), of the
column stage (1, N), of the pair stage (M, N). Batches are handled by the caller, one at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..core.scalars import PRIMITIVES, Loop, Value, reachable, to_float
from ..errors import InternalError
from ..lower.kernel import COLUMN, ONCE, ROW, Kernel

Array = Any


class _Interpreter:
    def __init__(self, kernel: Kernel, arrays: Mapping[int, Array], dtype: str) -> None:
        self.dtype = np.dtype(dtype)
        self.loads: dict[int, Array] = {}
        for argument in kernel.arguments:
            array = np.asarray(arrays[argument.position], dtype=self.dtype)
            if argument.stage == ONCE:
                array = array[None, None, :]
            self.loads[argument.position] = {
                ONCE: lambda a: a,
                ROW: lambda a: a[:, None, :],
                COLUMN: lambda a: a[None, :, :],
            }[argument.stage](array)

    def run(self, targets: Sequence[Value], known: dict[Value, Array]) -> list[Array]:
        """Values of the targets, given those of holes, carries and loop indices."""
        inside = {value.data for value in known if value.what == "index_loop"}
        for value in reachable(targets, lambda value: value in known):
            if value not in known and value.loops <= inside:
                known[value] = self._value(value, known)
        return [known[target] for target in targets]

    def _value(self, value: Value, known: dict[Value, Array]) -> Array:
        what = value.what
        args = list(value.args)
        if what == "const":
            return self.dtype.type(to_float(value.data, self.dtype.name))
        if what == "load":
            position, k = value.data
            return self.loads[position][..., known[args[0]] if k is None else k]
        if what in PRIMITIVES:
            return PRIMITIVES[what].numpy(*(known[arg] for arg in args))
        if what == "result":
            return self._loop(value.data[0], known)[value.data[1]]
        if what == "table":
            return self._table(value, known)
        if what == "entry":
            cells, k = known[args[0]], value.data if len(args) == 1 else known[args[1]]
            return cells[k] if k < len(cells) else self.dtype.type(np.nan)
        if what == "position":
            return self.dtype.type(known[args[0]])
        if what == "index_below":
            return np.asarray(known[args[0]] < value.data)
        if value.kind == "index":
            right = known[args[1]] if len(args) > 1 else value.data
            return _INDEX[what](known[args[0]], right)
        raise InternalError(f"the reference cannot evaluate {value}")

    def _loop(self, loop: Loop, known: dict[Value, Array]) -> list[Array]:
        state = [known[init] for init in loop.inits]
        for k in range(loop.n):
            inside = dict(known)
            inside[loop.index] = k
            inside.update(zip(loop.carries, state, strict=True))
            state = self.run(loop.nexts, inside)
        return state

    def _table(self, table: Value, known: dict[Value, Array]) -> list[Array]:
        """The components in order; what is read before it is there is NaN."""
        loop: Loop = table.data
        computed: list[Array] = []
        for k in range(loop.n):
            inside = {**known, loop.index: k, loop.carries[0]: computed}
            computed.append(self.run(loop.nexts, inside)[0])
        return computed


_INDEX: dict[str, Any] = {
    "index_add": lambda a, b: a + b,
    "index_sub": lambda a, b: a - b,
    "index_mul": lambda a, b: a * b,
    "index_floordiv": lambda a, b: a // b,
    "index_mod": lambda a, b: a % b,
    "index_min": min,
    "index_max": max,
}


def evaluate(
    kernel: Kernel, arrays: Mapping[int, Array], rows: int, columns: int, dtype: str = "float64"
) -> Array:
    """The reduction's result, shape (rows, dim), for one batch element.

    `arrays[position]`: (rows, dim), (columns, dim) or (dim,) by the argument's stage.
    """
    interpreter = _Interpreter(kernel, arrays, dtype)
    out = np.empty((rows, kernel.dim), dtype=dtype)
    with np.errstate(all="ignore"):
        for component in range(kernel.dim):
            place = component if kernel.output_loop is None else 0
            known: dict[Value, Array] = {}
            if kernel.output_loop is not None:
                known[kernel.output_loop.index] = component
            out[:, component] = _fold(kernel, interpreter, place, known, rows, columns)
    return out


def _fold(
    kernel: Kernel,
    interpreter: _Interpreter,
    place: int,
    known: dict[Value, Array],
    rows: int,
    columns: int,
) -> Array:
    output, factor = kernel.outputs[place], kernel.factors[place]
    pairs = np.broadcast_to(interpreter.run([output], dict(known))[0], (rows, columns))
    state: list[Array] = [np.full(rows, value) for value in kernel.reduction.identity]
    steps, finished = kernel.steps[place], kernel.finished
    for j in range(columns):
        given = {**known, output: pairs[:, j], **_holes(steps, state)}
        state = interpreter.run(steps, given)
    result = interpreter.run([finished], _holes([finished], state))[0]
    if factor is not None and columns:
        scale = np.broadcast_to(interpreter.run([factor], dict(known))[0], (rows, 1))
        result = result * scale[:, 0]
    return result


def _holes(targets: Sequence[Value], state: Sequence[Array]) -> dict[Value, Array]:
    return {value: state[value.data[1]] for value in reachable(targets) if value.what == "hole"}
