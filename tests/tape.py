"""A small array library that differentiates: NumPy's arrays, and a tape of how they were made.

It stands for any library that is neither NumPy nor torch. What such a library needs is here: an
adapter of its arrays (`TapeArrays`), a function that calls folds (`apply`) and one that solves
systems (`solve`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pairfold.arrays.numpy import NumpyArrays
from pairfold.arrays.registry import NUMPY
from pairfold.frontends import solvederivatives
from pairfold.frontends.derivatives import all_tangents, gradients
from pairfold.frontends.ranges import Ranges
from pairfold.frontends.reduction import FormulaReduction
from pairfold.frontends.solve import Request, System

_numbers = itertools.count()


class Taped:
    """An array; `step` made it, `followed` says whether a derivative may go through it."""

    __array_ufunc__ = None  # NumPy's arrays leave arithmetic to this class

    def __init__(self, value: Any, followed: bool = False) -> None:
        self.value = np.asarray(value)
        self.step: Step | None = None
        self.followed = followed

    @property
    def shape(self) -> tuple[int, ...]:
        return self.value.shape

    def reshape(self, shape: Sequence[int]) -> Taped:
        before = self.shape
        return _made(self.value.reshape(shape), [self], lambda g: [g.reshape(before)])

    def __getitem__(self, where: Any) -> Taped:
        assert not self.followed, "only whole numbers are cut"
        return Taped(self.value[where])

    def __eq__(self, other: object) -> Any:
        return Taped(self.value == other)

    __hash__ = object.__hash__

    def __add__(self, other: Any) -> Taped:
        one, two = self, _beside(self, other)
        return _made(one.value + two.value, [one, two], lambda g: [_like(g, one), _like(g, two)])

    def __neg__(self) -> Taped:
        return _made(-self.value, [self], lambda g: [-g])

    def __sub__(self, other: Any) -> Taped:
        return self + -_beside(self, other)

    def __mul__(self, other: Any) -> Taped:
        one, two = self, _beside(self, other)

        def pull(g: Taped) -> list[Taped]:
            return [_like(g * two, one), _like(g * one, two)]

        return _made(one.value * two.value, [one, two], pull)

    def __truediv__(self, other: Any) -> Taped:
        return self * Taped(1 / _beside(self, other).value)  # only constants divide


@dataclass(eq=False)
class Step:
    """One operation: gradients of its outputs to gradients of its inputs, and maybe tangents."""

    inputs: Sequence[Taped]
    outputs: Sequence[Taped]
    pull: Callable[[list[Taped]], Sequence[Taped | None]]
    push: Callable[[list[Taped | None]], Sequence[Taped | None]] | None
    number: int


def _beside(array: Taped, x: Any) -> Taped:
    """An operand; plain numbers are of the other's dtype."""
    return x if isinstance(x, Taped) else Taped(np.asarray(x, array.value.dtype))


def _recorded(outputs: Sequence[Taped], inputs: Sequence[Taped], pull: Any, push: Any) -> None:
    if any(x.followed for x in inputs):
        step = Step(list(inputs), list(outputs), pull, push, next(_numbers))
        for x in outputs:
            x.step, x.followed = step, True


def _made(value: Any, inputs: Sequence[Taped], pull: Callable[[Taped], Sequence[Taped]]) -> Taped:
    out = Taped(value)
    _recorded([out], inputs, lambda incoming: pull(incoming[0]), None)
    return out


def _zeros(x: Taped) -> Taped:
    return Taped(np.zeros_like(x.value))


def _steps(outputs: Sequence[Taped]) -> list[Step]:
    """All steps that outputs were made by, in the order they were taken."""
    found: set[Step] = set()
    todo = list(outputs)
    while todo:
        step = todo.pop().step
        if step is not None and step not in found:
            found.add(step)
            todo.extend(step.inputs)
    return sorted(found, key=lambda step: step.number)


def _like(g: Taped, operand: Taped) -> Taped:
    """What flows to an operand: in its shape and dtype."""
    if g.shape != operand.shape:
        g = TapeArrays.sum_to(g, operand.shape)
    return TapeArrays.cast(g, TapeArrays.dtype(operand))


class Functions:
    """What derivatives of solutions ask of the library's module of functions."""

    zeros_like = staticmethod(_zeros)


class TapeArrays(NumpyArrays):
    """The adapter: what derivatives of reductions ask of the library."""

    name = "tape"

    @staticmethod
    def dtype(array: Taped) -> str:
        return array.value.dtype.name

    @staticmethod
    def cast(array: Taped, dtype: str) -> Taped:
        if TapeArrays.dtype(array) == dtype:
            return array
        before = TapeArrays.dtype(array)
        return _made(array.value.astype(dtype), [array], lambda g: [TapeArrays.cast(g, before)])

    @staticmethod
    def detached(array: Taped) -> Taped:
        return Taped(array.value)

    @staticmethod
    def constants(values: Any, like: Taped) -> Taped:
        return Taped(values)

    @staticmethod
    def exp(array: Taped) -> Taped:
        out: Taped = _made(np.exp(array.value), [array], lambda g: [g * out])
        return out

    @staticmethod
    def log(array: Taped) -> Taped:
        return _made(np.log(array.value), [array], lambda g: [g / array])

    @staticmethod
    def larger(one: Taped, other: Taped) -> Taped:
        return TapeArrays.where(Taped(one.value > other.value), one, other)

    @staticmethod
    def order(values: Taped, indices: Taped) -> Taped:
        pairs = np.stack([values.value, indices.value], -1)
        found = np.empty(values.shape, np.int64)
        for row in np.ndindex(*values.shape[:-1]):
            found[row] = sorted(range(values.shape[-1]), key=lambda n: tuple(pairs[row][n]))
        return Taped(found)

    @staticmethod
    def clamped(array: Taped, low: float, high: float) -> Taped:
        inside = Taped((low <= array.value) & (array.value <= high))
        number = array.value.dtype.type  # NumPy 1 would widen the array
        value = array.value.clip(number(low), number(high))
        return _made(value, [array], lambda g: [TapeArrays.where(inside, g, _zeros(g))])

    @staticmethod
    def where(condition: Taped, one: Taped, other: Taped) -> Taped:
        def pull(g: Taped) -> list[Taped]:
            parts = ((g, _zeros(g)), (_zeros(g), g))
            taken = [TapeArrays.where(condition, *part) for part in parts]
            return [_like(t, x) for t, x in zip(taken, (one, other), strict=True)]

        return _made(np.where(condition.value, one.value, other.value), [one, other], pull)

    @staticmethod
    def sum(array: Taped, axis: int) -> Taped:
        before = array.shape
        kept = [1 if n == axis % len(before) else size for n, size in enumerate(before)]
        return _made(
            array.value.sum(axis),
            [array],
            lambda g: [TapeArrays.expanded(g.reshape(kept), before)],
        )

    @staticmethod
    def sum_to(array: Taped, shape: Sequence[int]) -> Taped:
        before = array.shape
        value = NumpyArrays.sum_to(array.value, shape)
        return _made(value, [array], lambda g: [TapeArrays.expanded(g, before)])

    @staticmethod
    def expanded(array: Taped, shape: Sequence[int]) -> Taped:
        value = np.broadcast_to(array.value, shape)
        return _made(value, [array], lambda g: [_like(g, array)])

    @staticmethod
    def repeated(array: Taped, count: int, axis: int) -> Taped:
        before = array.shape
        place = axis % len(before) + 1
        apart = (*before[:place], count, *before[place:])
        value = np.repeat(array.value, count, axis)
        return _made(value, [array], lambda g: [TapeArrays.sum(g.reshape(apart), place)])

    @staticmethod
    def taken(array: Taped, places: Taped, axis: int) -> Taped:
        assert axis == -2
        lead = np.broadcast_shapes(array.shape[:-2], places.shape[:-2])
        whole = TapeArrays.expanded(array, (*lead, *array.shape[-2:]))
        return _taken(whole, np.broadcast_to(places.value, (*lead, *places.shape[-2:])))

    @staticmethod
    def selected(array: Taped, places: Taped, axis: int) -> Taped:
        column = Taped(places.value[:, None])
        found = TapeArrays.taken(TapeArrays.moved(array, axis, -2), column, -2)
        return TapeArrays.moved(found, -2, axis)

    @staticmethod
    def stacked(arrays: Sequence[Taped]) -> Taped:
        return TapeArrays.concatenated([array.reshape((*array.shape, 1)) for array in arrays])

    @staticmethod
    def concatenated(arrays: Sequence[Taped]) -> Taped:
        ends = list(itertools.accumulate((array.shape[-1] for array in arrays), initial=0))
        return _made(
            np.concatenate([array.value for array in arrays], -1),
            arrays,
            lambda g: [_cut(g, *part) for part in itertools.pairwise(ends)],
        )

    @staticmethod
    def moved(array: Taped, source: int, target: int) -> Taped:
        value = np.moveaxis(array.value, source, target)
        return _made(value, [array], lambda g: [TapeArrays.moved(g, target, source)])

    @staticmethod
    def functions() -> Any:
        return Functions


def _cut(array: Taped, start: int, stop: int) -> Taped:
    """Components start to stop."""

    def pull(g: Taped) -> list[Taped]:
        before, after = array.value[..., :start], array.value[..., stop:]
        return [TapeArrays.concatenated([_zeros(Taped(before)), g, _zeros(Taped(after))])]

    return _made(array.value[..., start:stop], [array], pull)


def _taken(array: Taped, places: Any) -> Taped:
    value = np.take_along_axis(array.value, places, -2)
    return _made(value, [array], lambda g: [_put(g, places, array.shape[-2])])


def _put(array: Taped, places: Any, size: int) -> Taped:
    """Rows added up at their places: the transpose of taking them there."""
    found = np.zeros((*array.shape[:-2], size, array.shape[-1]))
    for lead in np.ndindex(*array.shape[:-2]):
        np.add.at(found[lead], places[lead][:, 0], array.value[lead])
    return _made(found.astype(array.value.dtype), [array], lambda g: [_taken(g, places)])


# ----- the hooks ---------------------------------------------------------------------------------


def apply(
    fold: FormulaReduction, library: Any, arrays: Sequence[Taped], ranges: Ranges | None
) -> tuple[Taped, ...]:
    """The results of one fold, on the tape."""
    found = fold.run(NumpyArrays, [array.value for array in arrays], ranges)
    results = tuple(map(Taped, found))
    if not fold.has_derivatives:
        return results
    saved = [*arrays, *results] if fold.saves else list(arrays)
    followed = [n for n, array in enumerate(arrays) if array.followed]

    def pull(incoming: list[Taped]) -> list[Taped | None]:
        sent: list[Taped | None] = [None] * len(arrays)
        rest = (saved, incoming, ranges, apply, None)
        for n, gradient in zip(followed, gradients(fold, library, followed, *rest), strict=True):
            sent[n] = gradient
        return sent

    def push(moving: list[Taped | None]) -> Sequence[Taped | None]:
        positions = [n for n, tangent in enumerate(moving) if tangent is not None]
        along = [tangent for tangent in moving if tangent is not None]
        return all_tangents(fold, library, positions, saved, along, ranges, apply)

    _recorded(results, arrays, pull, push)
    return results


def solve(system: System, request: Request, library: Any, given: Sequence[Taped | None]) -> Taped:
    """The solution of one system, on the tape; `given`: alpha or None, then the arrays."""
    alpha, *values = (None if x is None else x.value for x in given)
    solution = Taped(system.solution(NUMPY, values, alpha, request))
    asked = (system, request, library, given, solution)
    there = [n for n, x in enumerate(given) if x is not None]
    wanted = [x is not None and x.followed for x in given]

    def pull(incoming: list[Taped]) -> list[Taped | None]:
        sent = solvederivatives.gradients(*asked, incoming[0], wanted, CALLS)
        assert [g is not None for g in sent] == wanted
        return [sent[n] for n in there]

    def push(moving: list[Taped | None]) -> list[Taped]:
        along: list[Taped | None] = [None] * len(given)
        for n, tangent in zip(there, moving, strict=True):
            along[n] = tangent
        return [solvederivatives.tangents(*asked, along, CALLS)]

    _recorded([solution], [x for x in given if x is not None], pull, push)
    return solution


CALLS = solvederivatives.Calls(apply, solve)


def grad(output: Taped, incoming: Taped, inputs: Sequence[Taped]) -> list[Taped]:
    """Gradients of <incoming, output> to inputs; they are on the tape, too."""
    sent: dict[Taped, Taped] = {output: incoming}
    between, steps = set(inputs), _steps([output])
    for step in steps:
        if not between.isdisjoint(step.inputs):
            between.update(step.outputs)
    for step in reversed(steps):
        given = [sent.get(x) for x in step.outputs]
        if between.isdisjoint(step.outputs) or all(g is None for g in given):
            continue
        full = [_zeros(x) if g is None else g for x, g in zip(step.outputs, given, strict=True)]
        for x, part in zip(step.inputs, step.pull(full), strict=True):
            if part is not None and x.followed and x in between:
                assert part.shape == x.shape
                assert part.value.dtype == x.value.dtype
                sent[x] = sent[x] + part if x in sent else part
    return [sent.get(x, _zeros(x)) for x in inputs]


def push_through(output: Taped, moving: dict[Taped, Taped]) -> Taped:
    """The tangent of an output for tangents of inputs."""
    found: dict[Taped, Taped] = dict(moving)
    for step in _steps([output]):
        given = [found.get(x) for x in step.inputs]
        if all(t is None for t in given):
            continue
        pushed = _transposed(step, given) if step.push is None else step.push(given)
        found.update(zip(step.outputs, pushed, strict=True))
    return found.get(output, _zeros(output))


def _transposed(step: Step, along: Sequence[Taped | None]) -> list[Taped]:
    """The tangents of outputs: pulling back is linear, so this is its transpose."""
    incoming = [Taped(np.zeros_like(x.value), followed=True) for x in step.outputs]
    total = Taped(np.zeros(()))
    for part, tangent in zip(step.pull(incoming), along, strict=True):
        if part is not None and tangent is not None:
            flat = (part * tangent).reshape((math.prod(part.shape), 1))
            total = total + TapeArrays.sum(flat, 0).reshape(())
    return grad(total, Taped(np.ones(())), incoming)
