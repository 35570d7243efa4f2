"""Bounds over boxes hold for whatever a backend may compute, and are tight where they should be.

Random values over random boxes are computed at points of the boxes in ways that backends may take:
in float64 or in the dtype, with products fused into sums, quotients as products with inverses,
functions that are off by as much as they may be, subnormal results that are zero; some also by
machine code. `python tests/test_intervals.py --count 100000` runs as many random graphs.
"""

from __future__ import annotations

import argparse
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import sweep_math
from formulas import Formula, random_formula
from numpy.typing import NDArray

from pairfold.arrays.numpy import NumpyArrays
from pairfold.backends.functions.approximations import FUNCTIONS
from pairfold.backends.reference.interpreter import pair_values
from pairfold.core.node import Axis, Node
from pairfold.core.numbers import to_float
from pairfold.core.primitives import INDEX_OPERATIONS, PRIMITIVES
from pairfold.core.scalars import COLUMN, ROW, Scalars, Value, reachable
from pairfold.core.wholes import whole_of
from pairfold.errors import InternalError
from pairfold.frontends.parse import parse
from pairfold.frontends.reduction import FormulaReduction
from pairfold.lower.intervalrules import RULES, Interval, Truth
from pairfold.lower.intervals import bounds
from pairfold.lower.kernel import Kernel, lower
from pairfold.ops.reductions import REDUCTIONS
from pairfold.ops.table import OPERATIONS

Array = NDArray[Any]
INF, NAN = math.inf, math.nan
DTYPES = ("float32", "float64")
CELLS, POINTS = 8, 24

_RNG = np.random.default_rng(0)

per_dtype = pytest.mark.parametrize("dtype", DTYPES)
per_primitive = pytest.mark.parametrize("name", PRIMITIVES)


# ---- boxes and points ----------------------------------------------------------------------------

_NUMBERS = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, math.pi / 2, math.pi, 5.0, 7.0, 20.0, 90.0, 750.0, INF]


@np.errstate(all="ignore")
def _some_numbers(rng: np.random.Generator, dtype: str, shape: tuple[int, ...]) -> Array:
    """Numbers of every size, some of them special, many of them ordinary."""
    info = np.finfo(dtype)
    special = np.array([*_NUMBERS, info.max, info.tiny, info.smallest_subnormal, info.eps])
    kinds = rng.integers(0, 10, shape)
    found = rng.normal(size=shape)
    found = np.where(kinds == 0, rng.choice(special, shape), found)
    wide = 2.0 ** rng.uniform(math.log2(info.smallest_subnormal), math.log2(info.max), shape)
    found = np.where(kinds == 1, wide, found)
    found = np.where(kinds == 2, rng.integers(-4, 5, shape), found)
    found = np.where(kinds == 3, found * 30, found)
    return (found * rng.choice([-1.0, 1.0], shape)).astype(dtype)


@np.errstate(all="ignore")
def some_boxes(rng: np.random.Generator, dtype: str, cells: int = CELLS) -> Interval:
    """Intervals of numbers of a dtype: points, narrow and wide ones, with or without NaN."""
    first, second = _some_numbers(rng, dtype, (2, cells))
    kinds = rng.integers(0, 6, cells)
    with np.errstate(all="ignore"):
        near = (first * (1 + rng.uniform(-1, 1, cells) * 0.1)).astype(dtype)
        around = (first + rng.uniform(-1, 1, cells)).astype(dtype)
    other = np.choose(kinds, [first, near, near, around, around, second])
    low, high = np.minimum(first, other), np.maximum(first, other)
    nan = rng.random(cells) < 0.1
    return Interval(low.astype(np.float64), high.astype(np.float64), nan)


@np.errstate(all="ignore")
def some_points(rng: np.random.Generator, box: Interval, dtype: str, points: int = POINTS) -> Array:
    """Numbers of a dtype in each interval: its ends, and what is special between them."""
    low, high = box.low[:, None], box.high[:, None]
    info = np.finfo(dtype)
    with np.errstate(all="ignore"):
        finite = np.clip(low, -info.max, info.max), np.clip(high, -info.max, info.max)
        share = rng.random((len(box.low), points))
        found = finite[0] * (1 - share) + finite[1] * share
        # Of all sizes, towards 0 or towards an end.
        scaled = found * 2.0 ** -rng.uniform(0, 40, found.shape)
        scaled = np.where(rng.random(found.shape) < 0.5, scaled, low + (high - low) * 2.0**-20)
        found = np.where(rng.random(found.shape) < 0.5, found, scaled)
        special = rng.choice([0.0, -0.0, 1.0, -1.0, 0.5, INF, -INF, 2, -2, 3], found.shape)
        found = np.where(rng.random(found.shape) < 0.4, special, found)
    found = np.where((found >= low) & (found <= high), found, np.broadcast_to(low, found.shape))
    found[:, 0], found[:, 1] = box.low, box.high
    found = np.where(np.isnan(found), low, found).astype(dtype)
    found[box.nan, 2] = NAN
    return found


def applied(s: Scalars, name: str, *operands: Value) -> Value:
    """The primitive of a name, as rows of operations come by it."""
    if name == "whole_of":
        return whole_of(s, *operands)
    return s.apply(name.removeprefix("whole_"), *operands)


def some_whole_boxes(rng: np.random.Generator, cells: int = CELLS) -> Interval:
    """Blocks of numbers of rows or columns."""
    low = rng.integers(0, 2 ** rng.integers(1, 40, cells))
    high = low + rng.integers(0, 2 ** rng.integers(0, 20, cells))
    return Interval(low, high, np.zeros((), bool))


def some_whole_points(rng: np.random.Generator, box: Interval, points: int = POINTS) -> Array:
    low, high = (end.astype(np.int64)[:, None] for end in (box.low, box.high))
    found = rng.integers(low, high + 1, (len(low), points))
    found[:, :1], found[:, 1:2] = low, high
    return found


# ---- what backends may compute -------------------------------------------------------------------

HOW = ("plain", "wide", "fused", "rough", "flushed")
_EXACT = {"neg", "abs", "floor", "select", "real"}
_FUNCTIONS = {"div", "sqrt", "rsqrt", *FUNCTIONS}


def computed(
    targets: Sequence[Value],
    points: Mapping[Value, Array],
    dtype: str,
    how: str,
    rng: np.random.Generator,
) -> list[Array]:
    """Values at points; `how` is one of `HOW`.

    wide: float64 throughout, as the interpreter may compute. fused: products are not rounded before
    sums, quotients are products with inverses, exponents are off as they may be. rough: functions
    are off by 4 units in the last place. flushed: subnormal results are zero.
    """
    working = np.float64 if how == "wide" else np.dtype(dtype).type
    info = np.finfo(dtype)
    eps, tiny = info.eps, info.tiny
    known: dict[Value, Array] = {}
    exact: dict[Value, Array] = {}
    with np.errstate(all="ignore"):
        for value in reachable(targets, lambda value: value in points):
            if value in points:
                found = points[value]
                known[value] = found if value.kind == "whole" else found.astype(working)
                continue
            if value.what == "const":
                known[value] = np.asarray(working(to_float(value.number, dtype)))
                continue
            if value.what == "whole":
                known[value] = np.asarray(value.integer)
                continue
            args = [known[arg] for arg in value.args]
            if how == "flushed" and value.what in ("sqrt", "rsqrt"):
                args = [np.where(np.abs(args[0]) < tiny, args[0] * 0, args[0])]
            found = np.asarray(PRIMITIVES[value.what].numpy(*args))
            if value.kind == "real":
                if how == "fused" and value.what in ("mul", "add", "sub"):
                    wide = [exact.get(a, known[a]).astype(np.float64) for a in value.args]
                    found = np.asarray(PRIMITIVES[value.what].numpy(*wide))
                    if value.what == "mul":
                        exact[value] = found
                if how == "fused" and value.what == "div":
                    inverse = (1 / args[1]).astype(working)
                    usual = (np.abs(inverse) > tiny) & (np.abs(inverse) < 1 / tiny)
                    found = np.where(usual, args[0] * inverse, found)
                if how == "fused" and value.what == "exp":
                    off = rng.uniform(-2, 2, found.shape) * eps
                    found = np.exp(args[0].astype(np.float64) * (1 + off))
                if how == "rough" and value.what in _FUNCTIONS:
                    off = rng.choice([-4, 4], found.shape) * eps
                    found = found.astype(np.float64) * (1 + off)
                    if value.what in ("exp", "pow", "erfc"):  # as they may underflow
                        least = rng.integers(-4, 5, found.shape) * info.smallest_subnormal
                        least *= args[0] != 0
                        found = np.copysign(np.maximum(np.abs(found) + least, 0), found)
                    if value.what in ("tanh", "erf"):
                        found = np.clip(found, -1, 1)
                found = found.astype(working)
                if how == "flushed" and value.what not in _EXACT:
                    found = np.where(np.abs(found) < tiny, found * 0, found)
            known[value] = found
    return [known[target] for target in targets]


def assert_bounded(
    cell: Interval | Truth, found: Array, about: Callable[[int, int], object] | str = ""
) -> None:
    """Fail unless what was computed at points (cells, points) is what the bounds say."""
    if isinstance(cell, Truth):
        possible, certain = (np.broadcast_to(b, len(found))[:, None] for b in cell)
        wrong = (found & ~possible) | (~found & certain)
    else:
        low, high, nan = (np.broadcast_to(b, len(found))[:, None] for b in cell)
        assert (low <= high).all(), (low, high, about)
        wrong = np.where(np.isnan(found), ~nan, ~((low <= found) & (found <= high)))
    if wrong.any():
        at, point = (int(k) for k in np.argwhere(wrong)[0])
        ends = [np.broadcast_to(b, len(found))[at] for b in cell]
        told = about(at, point) if callable(about) else about
        raise AssertionError(f"{found[at, point]!r} is not within {ends}: {told}")


# ---- every primitive -----------------------------------------------------------------------------


def test_every_primitive_has_a_rule() -> None:
    assert list(RULES) == list(PRIMITIVES)


Operands = tuple[list[Value], dict[Value, Interval], dict[Value, Array]]


def some_operands(s: Scalars, name: str, rng: np.random.Generator, dtype: str, n: int) -> Operands:
    """Operands of a primitive, their boxes, and points in these."""
    operands: list[Value] = []
    boxes: dict[Value, Interval] = {}
    points: dict[Value, Array] = {}

    def number() -> Value:
        value = s.load(0, 99, ROW, len(boxes))
        boxes[value] = some_boxes(rng, dtype, n)
        points[value] = some_points(rng, boxes[value], dtype)
        return value

    for kind in PRIMITIVES[name].operands:
        if kind == "real":
            operands.append(number())
        elif kind == "mask":
            operands.append(s.lt(number(), number()))
        else:
            axis = Axis.J if any(v.kind == "whole" for v in operands) else Axis.I
            value = s.number_along(axis)
            boxes[value] = some_whole_boxes(rng, n)
            points[value] = some_whole_points(rng, boxes[value])
            operands.append(value)
    if name == "whole_mul":  # of two numbers of rows it could be too large
        operands[1] = s.constant(-7)
    return operands, boxes, points


@per_dtype
@per_primitive
def test_a_rule_bounds_what_is_computed(name: str, dtype: str) -> None:
    rng = np.random.default_rng(len(name))
    s = Scalars()
    n = 60 if name in ("erf", "erfc", "lgamma", "pow") else 400
    operands, boxes, points = some_operands(s, name, rng, dtype, n)
    value = applied(s, name, *operands)
    if name == "real":
        value = s.as_real(operands[0])
    assert value.what == name
    (cell,) = bounds([value], boxes, dtype)
    for how in HOW:
        (found,) = computed([value], points, dtype, how, rng)
        assert_bounded(
            cell,
            np.broadcast_to(found, (n, POINTS)),
            lambda at, k, how=how: (name, how, [points[v][at, k] for v in points]),
        )


@per_dtype
@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name in PRIMITIVES])
def test_a_rule_bounds_what_machine_code_computes(name: str, dtype: str) -> None:
    rng = np.random.default_rng(1)
    s = Scalars()
    n = 60 if name in ("erf", "erfc", "lgamma", "pow") else 400
    operands, boxes, points = some_operands(s, name, rng, dtype, n)
    (cell,) = bounds([s.apply(name, *operands)], boxes, dtype)
    given = [np.ascontiguousarray(points[v]).ravel() for v in operands]
    found = sweep_math.kernel(name, dtype, "native")(*given).reshape(n, POINTS)
    assert_bounded(cell, found, lambda at, k: (name, [points[v][at, k] for v in operands]))


OF_ONE = ("mul", "lt", "le", "eq", "ne", "add", "sub", "div", "pow", "atan2")


@per_dtype
@pytest.mark.parametrize("name", OF_ONE)
def test_a_rule_bounds_operations_on_one_value(name: str, dtype: str) -> None:
    rng = np.random.default_rng(2)
    s = Scalars()
    x = s.load(0, 1, ROW, 0)
    boxes = {x: some_boxes(rng, dtype, 200)}
    points = {x: some_points(rng, boxes[x], dtype)}
    value = s.apply(name, x, x)
    (cell,) = bounds([value], boxes, dtype)
    for how in HOW:
        (found,) = computed([value], points, dtype, how, rng)
        assert_bounded(cell, found, f"{name} {how}")


@pytest.mark.parametrize("exponent", [-3, -2, -1, 0, 1, 2, 3, 0.5, -0.5, 2.5, INF, -INF, 1e30])
@per_dtype
def test_powers_with_a_constant_exponent(exponent: float, dtype: str) -> None:
    rng = np.random.default_rng(3)
    s = Scalars()
    x = s.load(0, 1, ROW, 0)
    boxes = {x: some_boxes(rng, dtype, 200)}
    points = {x: some_points(rng, boxes[x], dtype)}
    value = s.pow(x, exponent)
    (cell,) = bounds([value], boxes, dtype)
    for how in HOW:
        (found,) = computed([value], points, dtype, how, rng)
        assert_bounded(cell, found, lambda at, k: (points[x][at, k], exponent))


@pytest.mark.parametrize("name", ["sin", "cos"])
def test_sines_far_out_take_every_value(name: str) -> None:
    s = Scalars()
    x = s.load(0, 1, ROW, 0)
    low = 10.0 ** np.random.default_rng(0).uniform(4, 15.5, 1000)
    width = np.array([[0.1], [1], [3], [5]])
    boxes = {x: Interval((low + 0 * width).ravel(), (low + width).ravel(), np.zeros((), bool))}
    points = {x: np.linspace(boxes[x].low, boxes[x].high, 400, axis=1)}
    (cell,) = bounds([s.apply(name, x)], boxes, "float64")
    assert_bounded(cell, computed([s.apply(name, x)], points, "float64", "plain", _RNG)[0], name)
    exact = Interval(low, low, np.zeros((), bool))  # points keep their values
    (cell,) = bounds([s.apply(name, x)], {x: exact}, "float64")
    assert isinstance(cell, Interval)
    assert (cell.high - cell.low < 1e-13).all()


@per_dtype
def test_a_product_that_overflows_may_be_fused_with_a_sum(dtype: str) -> None:
    s = Scalars()
    x, y, z = (s.load(0, 3, ROW, k) for k in range(3))
    largest = float(np.finfo(dtype).max)
    given = {x: 2.0, y: largest * 0.75, z: largest * 0.75}
    known = {
        v: Interval(np.asarray(n), np.asarray(n), np.zeros((), bool)) for v, n in given.items()
    }
    for value, fused in ((x * y - z, largest * 0.75), (z - x * y, -largest * 0.75)):
        (cell,) = bounds([value], known, dtype)
        infinite = math.copysign(INF, fused)
        assert_bounded(cell, np.array([[fused, infinite]]), "fused, or not")


def test_a_cell_without_bounds_does_not_change_the_others() -> None:
    s = Scalars()
    x, y = (s.load(0, 2, ROW, k) for k in range(2))
    tiny = 3e-39  # subnormal, so that the sum may be computed as 0
    known = {
        x: Interval(np.array([tiny, -INF]), np.array([tiny, INF]), np.zeros((), bool)),
        y: Interval(np.array([0.0, -INF]), np.array([0.0, INF]), np.zeros((), bool)),
    }
    (cell,) = bounds([x + y], known, "float32")
    assert isinstance(cell, Interval)
    assert cell.low.tolist() == [0, -INF]
    assert cell.nan.tolist() == [False, True]


# ---- random graphs -------------------------------------------------------------------------------

# How often each primitive is drawn: arithmetic most of all.
_WEIGHTS = dict.fromkeys(PRIMITIVES, 1.0) | {
    **dict.fromkeys(("add", "sub", "mul"), 8.0),
    **dict.fromkeys(("div", "abs", "neg", "sqrt", "exp", "select", "lt", "le", "both"), 3.0),
    **dict.fromkeys(("erf", "erfc", "lgamma"), 0.2),
}
_NAMES = list(_WEIGHTS)
_SHARES = np.array(list(_WEIGHTS.values())) / sum(_WEIGHTS.values())
_CONSTANTS = (0, 1, 2, -1, 3, 0.5, -2.25, 1e-3, 100, INF, -INF, NAN, "largest", "-0.0")


class Graph:
    """A random graph of scalar values over some loads and the numbers of rows and columns."""

    def __init__(self, rng: np.random.Generator, dtype: str, size: int) -> None:
        self.rng, self.dtype = rng, dtype
        s = Scalars()
        loads = [s.load(0, 9, ROW, k) for k in range(3)]
        wholes = [s.number_along(axis) for axis in (Axis.I, Axis.J)]
        self.boxes = {v: some_boxes(rng, dtype) for v in loads}
        self.points = {v: some_points(rng, self.boxes[v], dtype) for v in loads}
        self.boxes |= {v: some_whole_boxes(rng) for v in wholes}
        self.points |= {v: some_whole_points(rng, self.boxes[v]) for v in wholes}
        self.made: dict[str, list[Value]] = {"real": loads, "whole": wholes, "mask": []}
        self.made["mask"].append(s.lt(*loads[:2]))
        self.scalars = s
        self.targets: list[Value] = []
        for name in rng.choice(_NAMES, size, p=_SHARES):
            self._add(str(name))

    def _add(self, name: str) -> None:
        operands = [self._operand(kind) for kind in PRIMITIVES[name].operands]
        if name == "real":
            value = self.scalars.as_real(operands[0])
        else:
            value = applied(self.scalars, name, *operands)
        if value not in self.made[value.kind]:
            self.made[value.kind].append(value)
            self.targets.append(value)

    def _operand(self, kind: str) -> Value:
        rng, made = self.rng, self.made[kind]
        if kind == "real" and rng.random() < 0.15:
            return self.scalars.constant(_CONSTANTS[rng.integers(len(_CONSTANTS))])
        if kind == "whole" and rng.random() < 0.3:
            return self.scalars.constant(int(rng.integers(-70, 70)))
        # The latest most often, so that graphs are deep.
        back = int(rng.integers(1, 5)) if rng.random() < 0.7 else len(made)
        return made[int(rng.integers(max(0, len(made) - back), len(made)))]

    def check(self) -> None:
        """Compare the bounds of every value with what is computed."""
        cells = bounds(self.targets, self.boxes, self.dtype)
        for how in HOW:
            found = computed(self.targets, self.points, self.dtype, how, self.rng)
            for value, cell, numbers in zip(self.targets, cells, found, strict=True):
                assert_bounded(
                    cell,
                    np.broadcast_to(numbers, (CELLS, POINTS)),
                    lambda at, k, value=value, how=how: self._about(value, how, at, k),
                )

    def _about(self, value: Value, how: str, at: int, k: int) -> str:
        lines = [how, self.dtype]
        values = reachable([value])
        cells = bounds([v for v in values if v not in self.boxes], self.boxes, self.dtype)
        rest = iter(cells)
        for v in values:
            cell = self.boxes[v] if v in self.boxes else next(rest)
            ends = [np.broadcast_to(b, CELLS)[at] for b in cell]
            point = self.points[v][at, k] if v in self.points else ""
            lines.append(f"{v} of {list(v.args)}: {ends} {point}")
        return "\n".join(lines)


def run_random(seed: int) -> None:
    """One random graph."""
    rng = np.random.default_rng(seed)
    Graph(rng, DTYPES[seed % 2], int(rng.integers(4, 14))).check()


@pytest.mark.parametrize("block", range(12))
def test_random_graphs_are_bounded(block: int) -> None:
    for seed in range(block * 100, block * 100 + 100):
        try:
            run_random(seed)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from None


# ---- formulas ------------------------------------------------------------------------------------

# Rows and columns of a cell, and how many cells there are along each axis.
_ROWS, _COLUMNS, _DOWN, _ACROSS = 5, 4, 3, 4


class Blocks:
    """Random points in boxes along both axes, and the boxes as leaves of a kernel."""

    def __init__(self, kernel: Kernel, rng: np.random.Generator, dtype: str, spread: float) -> None:
        self.kernel, self.arrays = kernel, dict[int, Array]()
        for argument in kernel.arguments:
            shapes = {ROW: (_DOWN, _ROWS), COLUMN: (_ACROSS, _COLUMNS)}
            cells, points = shapes.get(argument.stage, (1, 1))
            centre = rng.uniform(-1, 1, (cells, 1, argument.dim))
            found = centre + rng.uniform(-spread, spread, (cells, points, argument.dim))
            array = found.reshape(cells * points, argument.dim).astype(dtype)
            self.arrays[argument.position] = array[0] if argument.stage not in shapes else array

    def leaf(self, position: int, component: int) -> Interval:
        """The box of a component, in the shape of its axis."""
        stage = self.kernel.read_at[position]
        array = self.arrays[position].astype(np.float64)
        if stage not in (ROW, COLUMN):
            return Interval(array[component], array[component], np.zeros((), bool))
        points = array[:, component].reshape(_DOWN if stage == ROW else _ACROSS, -1)
        low, high = points.min(1), points.max(1)
        shape = (-1, 1) if stage == ROW else (1, -1)
        return Interval(low.reshape(shape), high.reshape(shape), np.zeros((), bool))

    def bounds(self, dtype: str) -> Interval:
        """Of the formula, for every cell."""
        (found,) = bounds(self.kernel.outputs, {}, dtype, self.leaf)
        assert isinstance(found, Interval)
        return Interval(*(np.broadcast_to(b, (_DOWN, _ACROSS)).ravel() for b in found))

    def check(self, found: Array, dtype: str, about: str) -> None:
        """Compare with the values of all pairs: (rows, columns)."""
        cells = found.reshape(_DOWN, _ROWS, _ACROSS, _COLUMNS).transpose(0, 2, 1, 3)
        assert_bounded(self.bounds(dtype), cells.reshape(_DOWN * _ACROSS, -1), about)


def one_component(formula: Formula) -> Node:
    """The sum of what a formula computes, where that is a vector."""
    return formula.node if formula.node.dim == 1 else OPERATIONS["Sum"](formula.node)


@pytest.mark.parametrize("block", range(6))
def test_formulas_are_bounded_by_boxes_of_what_they_read(block: int) -> None:
    for seed in range(block * 25, block * 25 + 25):
        rng = np.random.default_rng(seed)
        node = one_component(random_formula(rng, depth=4, derivatives=seed % 5 == 0))
        # Those of even seeds have loops and tables, the others are written out.
        kernel = lower(node, REDUCTIONS["Sum"], Axis.I, unroll=(1, 16)[seed % 2])
        for dtype, spread in itertools.product(DTYPES, (0.0, 0.02, 0.5)):
            blocks = Blocks(kernel, rng, dtype, spread)
            sizes = _DOWN * _ROWS, _ACROSS * _COLUMNS
            for working in {dtype, "float64"}:
                found = pair_values(kernel, blocks.arrays, *sizes, working)[..., 0]
                blocks.check(found, dtype, f"seed {seed}: {node} in {working} for {dtype}")


@pytest.mark.parametrize("seed", range(40))
def test_machine_code_stays_within_the_bounds_of_a_formula(seed: int) -> None:
    rng = np.random.default_rng(1000 + seed)
    drawn = random_formula(rng, depth=4, derivatives=False)
    while drawn.node.kinds & 3 != 3:
        drawn = random_formula(rng, depth=4, derivatives=False)
    node, dtype = one_component(drawn), DTYPES[seed % 2]
    blocks = Blocks(lower(node, REDUCTIONS["Sum"], Axis.I, unroll=16), rng, dtype, 0.1)
    low, high, nan = (end.reshape(_DOWN, _ACROSS) for end in blocks.bounds(dtype))
    sizes = {Axis.I: (_DOWN * _ROWS,), Axis.J: (_COLUMNS,), Axis.PARAMETER: ()}
    folds = [FormulaReduction(node, drawn.variables, name, Axis.I) for name in ("Min", "Max")]
    for across in range(_ACROSS):
        given: list[Array] = []
        for position, dim, kind in drawn.declared:
            array = blocks.arrays.get(position)
            if array is None:  # not used
                array = np.zeros((*sizes[kind], dim), dtype)
            elif kind == Axis.J:
                array = array[across * _COLUMNS : (across + 1) * _COLUMNS]
            given.append(array)
        for fold in folds:
            found = fold(NumpyArrays, given).reshape(_DOWN, _ROWS)
            missing = np.isinf(found) & nan[:, across : across + 1]  # nothing but NaN
            assert_bounded(
                Interval(low[:, across], high[:, across], nan[:, across]),
                np.where(missing, NAN, found),
                f"{drawn} by machine code",
            )


# What kernels have besides primitives, which the formulas of these tests must meet.
_STRUCTURES = {"const", "load", "result", "carry", "table", "entry", "index_loop", "position"}


def test_the_formulas_have_loops_and_tables() -> None:
    met: set[str] = set()
    for seed in range(0, 150, 2):  # those that are lowered to loops
        formula = random_formula(np.random.default_rng(seed), depth=4, derivatives=seed % 5 == 0)
        kernel = lower(one_component(formula), REDUCTIONS["Sum"], Axis.I, unroll=1)
        met |= {value.what for value in reachable(kernel.outputs)}
    assert met >= _STRUCTURES
    assert met & {row.what for row in INDEX_OPERATIONS.values()}


# ---- sums in any order ---------------------------------------------------------------------------


@pytest.mark.parametrize("formula", ["(x|y)", "SqDist(x,y)"])
def test_sums_of_products_are_bounded_in_any_order(formula: str) -> None:
    rng = np.random.default_rng(0)
    dim, rows = 100, 400
    node = parse(formula, [f"x=Vi({dim})", f"y=Vj({dim})"]).node
    kernel = lower(node, REDUCTIONS["Sum"], Axis.I, unroll=16)
    x, y = rng.normal(size=(2, rows, dim)).astype("float32")
    y = np.where(rng.random((rows, 1)) < 0.5, y, -x[:, rng.permutation(dim)])  # cancels

    def leaf(position: int, component: int) -> Interval:
        numbers = (x, y)[position][:, component].astype("float64")
        return Interval(numbers, numbers, np.zeros((), bool))

    (cell,) = bounds(kernel.outputs, {}, "float32", leaf)
    if formula == "(x|y)":
        terms = x * y
        others = [((x.astype("float64") * y).sum(1))]
    else:
        terms = (x - y) ** 2
        norms = [(v.astype("float64") ** 2).sum(1).astype("float32") for v in (x, y)]
        others = [norms[0] + norms[1] - 2 * np.sum(x * y, axis=1, dtype="float32")]
    for _ in range(5):
        order = rng.permutation(dim)
        others.append(np.cumsum(terms[:, order], axis=1, dtype="float32")[:, -1])
        others.append(terms[:, order].reshape(rows, 10, 10).sum(1).sum(1))
    assert_bounded(cell, np.stack(others, axis=1), formula)
    assert isinstance(cell, Interval)
    sizes = np.abs(terms).sum(1)
    assert ((cell.high - cell.low) / sizes < 5e-4).all()


def test_sums_that_drift_in_another_order_are_bounded() -> None:
    """First what adds up, then what takes it away: far from what the order of the formula loses."""
    dim = 1500
    node = parse("(x|y)", [f"x=Vi({dim})", f"y=Vj({dim})"]).node
    kernel = lower(node, REDUCTIONS["Sum"], Axis.I, unroll=16)
    x = np.full(dim, 0.1, "float32")
    y = np.tile(np.array([1, 1, -2], "float32"), dim // 3)

    def leaf(position: int, component: int) -> Interval:
        number = np.asarray((x, y)[position][component], np.float64)
        return Interval(number, number, np.zeros((), bool))

    (cell,) = bounds(kernel.outputs, {}, "float32", leaf)
    terms = (x * y)[np.argsort(-y, kind="stable")]
    assert_bounded(cell, np.cumsum(terms, dtype="float32")[None, -1:], "in another order")


# ---- how tight -----------------------------------------------------------------------------------

_A, _B = 7, 9


def some_cells(rng: np.random.Generator, dim: int, dtype: str) -> tuple[list[Array], list[Array]]:
    """Ends of boxes of rows, (dim, A, 1), and of columns, (dim, 1, B)."""
    found: list[list[Array]] = []
    for shape in ((dim, _A, 1), (dim, 1, _B)):
        low = rng.normal(size=shape).astype(dtype)
        high = (low + rng.uniform(0, 0.5, shape)).astype(dtype)
        found.append([low.astype("float64"), high.astype("float64")])
    return found[0], found[1]


@pytest.mark.parametrize("unroll", [16, 1])
@pytest.mark.parametrize("what", ["SqDist(x,y)", "Norm2(x-y)", "Sum(Abs(x-y))"])
@per_dtype
def test_distances_are_bounded_tightly(what: str, dtype: str, unroll: int) -> None:
    rng = np.random.default_rng(5)
    x, y = some_cells(rng, 3, dtype)
    node = parse(what, ["x=Vi(3)", "y=Vj(3)"]).node
    kernel = lower(node, REDUCTIONS["Sum"], Axis.I, unroll=unroll)

    def leaf(position: int, component: int) -> Interval:
        low, high = ((x, y)[position][end][component] for end in (0, 1))
        return Interval(low, high, np.zeros((), bool))

    near, far = (
        np.maximum(np.maximum(x[0] - y[1], y[0] - x[1]), 0),
        np.maximum(x[1] - y[0], y[1] - x[0]),
    )
    power = 1 if "Abs" in what else 2
    least, most = (near**power).sum(0), (far**power).sum(0)
    if what.startswith("Norm2"):
        least, most = np.sqrt(least), np.sqrt(most)
    number = float(np.quantile(most, 0.4).astype("float32"))
    limit = kernel.scalars.constant(number)
    masks = kernel.scalars.le(kernel.outputs[0], limit), kernel.scalars.lt(limit, kernel.outputs[0])
    cell, inside, outside = bounds((*kernel.outputs, *masks), {}, dtype, leaf)
    assert isinstance(cell, Interval)
    assert isinstance(inside, Truth)
    assert isinstance(outside, Truth)
    assert (cell.low <= least).all()
    assert (cell.low >= least / 1.01).all()
    assert (cell.high >= most).all()
    assert (cell.high <= most * 1.01).all()
    assert not cell.nan.any()
    clear = (np.abs(least / number - 1) > 0.01) & (np.abs(most / number - 1) > 0.01)
    np.testing.assert_array_equal(inside.possible[clear], (least <= number)[clear])
    np.testing.assert_array_equal(inside.certain[clear], (most <= number)[clear])
    np.testing.assert_array_equal(outside.possible[clear], (most > number)[clear])
    np.testing.assert_array_equal(outside.certain[clear], (least > number)[clear])
    assert clear.sum() > 50
    answers = inside.possible.astype(int) + inside.certain
    assert set(answers.ravel()) == {0, 1, 2}


@per_dtype
def test_differences_are_bounded_tightly(dtype: str) -> None:
    s = Scalars()
    x, y = s.load(0, 1, ROW, 0), s.load(1, 1, COLUMN, 0)
    rows, columns = some_cells(np.random.default_rng(6), 1, dtype)
    no = np.zeros((), bool)
    known = {x: Interval(rows[0][0], rows[1][0], no), y: Interval(columns[0][0], columns[1][0], no)}
    (cell,) = bounds([x - y], known, dtype)
    assert isinstance(cell, Interval)
    low, high = rows[0][0] - columns[1][0], rows[1][0] - columns[0][0]
    np.testing.assert_allclose(cell.low, low, rtol=1e-6)
    np.testing.assert_allclose(cell.high, high, rtol=1e-6)


WHOLE: dict[str, Callable[[Any, Any], Any]] = {
    "causal": lambda i, j: j <= i,
    "strictly": lambda i, j: j < i,
    "band": lambda i, j: abs(i - j) <= 12,
    "self": lambda i, j: i == j,
    "apart": lambda i, j: i != j,
    "scaled": lambda i, j: 3 * i - 2 * j < 40,
}


@pytest.mark.parametrize("name", WHOLE)
def test_masks_of_numbers_of_rows_and_columns_are_decided_exactly(name: str) -> None:
    s = Scalars()
    i, j = (s.number_along(axis) for axis in (Axis.I, Axis.J))
    texts = {
        "causal": lambda: s.le(j, i),
        "strictly": lambda: s.lt(j, i),
        "band": lambda: s.le(s.abs(i - j), 12),
        "self": lambda: s.eq(i, j),
        "apart": lambda: s.ne(i, j),
        "scaled": lambda: s.lt(3 * i - 2 * j, 40),
    }
    start = 2**40  # no float32 tells these apart
    rows, columns, height, width = 60, 84, 5, 7
    first, other = start + np.arange(0, rows, height), start + np.arange(0, columns, width)
    no = np.zeros((), bool)
    boxes = {
        i: Interval(first[:, None], first[:, None] + height - 1, no),
        j: Interval(other[None], other[None] + width - 1, no),
    }
    (truth,) = bounds([texts[name]()], boxes, "float32")
    assert isinstance(truth, Truth)
    pairs = WHOLE[name](start + np.arange(rows)[:, None], start + np.arange(columns)[None])
    cells = pairs.reshape(rows // height, height, columns // width, width)
    shape = cells.any((1, 3)).shape
    np.testing.assert_array_equal(np.broadcast_to(truth.possible, shape), cells.any((1, 3)))
    np.testing.assert_array_equal(np.broadcast_to(truth.certain, shape), cells.all((1, 3)))


@per_dtype
def test_equality_of_what_is_loaded_is_decided_exactly(dtype: str) -> None:
    s = Scalars()
    x, y = s.load(0, 1, ROW, 0), s.load(1, 1, COLUMN, 0)
    one, next_one = 1.0, float(np.nextafter(np.dtype(dtype).type(1), 2))
    first, second = np.array([one, one, one, INF]), np.array([one, next_one, one, INF])
    nan = np.array([False, False, True, False])
    known = {x: Interval(first, first, nan), y: Interval(second, second, np.zeros(4, bool))}
    equal, other = bounds([s.eq(x, y), s.ne(x, y)], known, dtype)
    assert isinstance(equal, Truth)
    assert isinstance(other, Truth)
    assert equal.possible.tolist() == [True, False, True, True]
    assert equal.certain.tolist() == [True, False, False, True]
    assert other.possible.tolist() == [False, True, True, False]
    assert other.certain.tolist() == [False, True, False, False]


# ---- what is given -------------------------------------------------------------------------------


def box(low: float, high: float, nan: bool = False) -> Interval:
    return Interval(np.asarray(low), np.asarray(high), np.asarray(nan))


def test_what_depends_on_rows_alone_keeps_the_shape_of_rows() -> None:
    s = Scalars()
    x, y = s.load(0, 1, ROW, 0), s.load(1, 1, COLUMN, 0)
    no = np.zeros((), bool)
    rows = Interval(np.zeros((5, 1)), np.ones((5, 1)), no)
    columns = Interval(np.zeros((1, 4)), np.ones((1, 4)), no)
    row, both = bounds([s.exp(-x), s.exp(-x) * y], {x: rows, y: columns}, "float32")
    assert row[0].shape == (5, 1)
    assert both[0].shape == (5, 4)


def test_given_values_are_not_looked_into() -> None:
    s = Scalars()
    x = s.load(0, 1, ROW, 0)
    inner = s.exp(x)
    (found,) = bounds([inner + 1], {inner: box(2, 3)}, "float64")
    np.testing.assert_allclose(found[:2], [3, 4], rtol=1e-15)


def test_what_is_not_given_is_said() -> None:
    s = Scalars()
    with pytest.raises(InternalError, match="argument 4 are not given"):
        bounds([s.load(4, 1, ROW, 0) + 1], {}, "float64")
    with pytest.raises(InternalError, match="row_number"):
        bounds([s.le(s.number_along(Axis.I), 3)], {}, "float64")


def test_placeholders_and_nan_have_no_bounds() -> None:
    s = Scalars()
    for value in (s.placeholder("top", 0), s.constant("nan")):
        (found,) = bounds([value], {}, "float64")
        assert [float(found[0]), float(found[1]), bool(found[2])] == [-INF, INF, True]


def test_a_nan_in_a_given_bound_is_one_where_nothing_is_known() -> None:
    s = Scalars()
    x = s.load(0, 1, ROW, 0)
    numbers = np.array([1.0, NAN])
    found, mask = bounds(
        [x + 1, s.lt(x, 3)], {x: Interval(numbers, numbers, np.isnan(numbers))}, "float64"
    )
    assert isinstance(found, Interval)
    assert (found.low[1], found.high[1]) == (-INF, INF)
    assert found.nan.tolist() == [False, True]
    assert isinstance(mask, Truth)
    assert mask.certain.tolist() == [True, False]


def test_constants_are_rounded_to_the_dtype_once_or_twice() -> None:
    s = Scalars()
    # Just above the middle of 1 and its successor in float32, which float64 cannot tell.
    tie = 1 + Fraction(1, 2**24) + Fraction(1, 2**90)
    (narrow,) = bounds([s.constant(tie)], {}, "float32")
    assert [float(narrow[0]), float(narrow[1])] == [1, 1 + 2.0**-23]
    for number in (Fraction(1, 3), Fraction(2, 1), Fraction(10) ** 60, -(Fraction(1, 10) ** 60)):
        for dtype in DTYPES:
            (found,) = bounds([s.constant(number)], {}, dtype)
            assert float(found[0]) == float(found[1]) == to_float(number, dtype)


def test_no_cells_have_no_bounds() -> None:
    s = Scalars()
    x = s.load(0, 1, ROW, 0)
    empty = Interval(np.zeros((0, 1)), np.zeros((0, 1)), np.zeros((0, 1), bool))
    targets = [
        s.lt(s.apply(name, *[x] * PRIMITIVES[name].arity), 1)
        for name in PRIMITIVES
        if PRIMITIVES[name].operands in (("real",), ("real", "real"))
        and PRIMITIVES[name].kind == "real"
    ]
    for found in bounds(targets, {x: empty}, "float32"):
        assert found[0].shape == (0, 1)


def main() -> int:
    """Random graphs by the thousand; prints those that fail, with their seeds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=10_000)
    options = parser.parse_args()
    failed = 0
    for seed in range(options.seed, options.seed + options.count):
        try:
            run_random(seed)
        except AssertionError as error:
            failed += 1
            print(f"seed {seed}: {error}", flush=True)
    print(f"{options.count} graphs of {CELLS} cells, {failed} wrong")
    return bool(failed)


if __name__ == "__main__":
    raise SystemExit(main())
