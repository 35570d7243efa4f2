"""Parts of the code generator, each written, compiled and called alone, against NumPy."""

from __future__ import annotations

import ctypes
import math
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import llvmlite.binding as llvm
import numpy as np
import pytest
from checks import assert_close

from pairfold.backends.llvm import native
from pairfold.backends.llvm.abi import (
    ARRAYS,
    BAILED_OUT,
    FILL_WORDS,
    FIRST_RESULT,
    OFFSETS,
    WORDS_PER_ARRAY,
)
from pairfold.backends.llvm.block import Slots, open_block
from pairfold.backends.llvm.context import Code, Context
from pairfold.backends.llvm.copying import copy, moderate, pack, split
from pairfold.backends.llvm.empty import empty_states, reset
from pairfold.backends.llvm.flow import BYTES, I64, i64
from pairfold.backends.llvm.forms import Forms
from pairfold.backends.llvm.fused import ColumnStates
from pairfold.backends.llvm.loops import block_loop
from pairfold.backends.llvm.machine import machine, new_target_machine, target_machine
from pairfold.backends.llvm.native import object_code, optimized, shared_code
from pairfold.backends.llvm.outputs import Outputs
from pairfold.backends.llvm.packing import Packing, packing_list
from pairfold.backends.llvm.program import tile_function
from pairfold.backends.llvm.runtime import Format
from pairfold.backends.llvm.screening import Screen
from pairfold.backends.llvm.shifted import MaxShifted
from pairfold.backends.llvm.states import Running
from pairfold.backends.llvm.topk import TopK
from pairfold.core.node import Axis
from pairfold.frontends.accuracy import Accuracy
from pairfold.frontends.genred import Genred
from pairfold.frontends.parse import parse
from pairfold.lower.kernel import COLUMN, ROW, Kernel, lower
from pairfold.lower.schedule import Plan, make_plan
from pairfold.ops.reductions import REDUCTIONS
from pairfold.settings import current, settings

DTYPES = ["float32", "float64"]
ALIASES = ["x = Vi({d})", "y = Vj({d})"]


def context_of(
    formula: str, reduction: str = "Sum", dim: int = 3, dtype: str = "float64", **options: Any
) -> Context:
    """The context of a kernel under the plan that these settings lead to."""
    length = options.pop("length", 0)
    parsed = parse(formula, [alias.format(d=dim) for alias in ALIASES])
    kernel: Kernel = lower(parsed.node, REDUCTIONS[reduction], Axis.I, 16, length=length)
    with settings(**options):
        accumulation = Accuracy().for_dtype(dtype, kernel.only.rule)
        found = machine(current().target)
        plan: Plan = make_plan(kernel, found, dtype, accumulation, current())
    return Context(kernel, plan)


class Machine:
    """The functions of a module as functions of Python; addresses are those of arrays."""

    def __init__(self, context: Context) -> None:
        for function in context.module.globals.values():
            function.linkage = ""
        plan = context.plan
        module = optimized(str(context.module), plan.machine)
        code = [
            target_machine(plan.machine).emit_object(module),
            *shared_code(context.runtime),
        ]
        self._engine: Any = llvm.create_mcjit_compiler(
            llvm.parse_assembly(""), new_target_machine(plan.machine)
        )
        for each in code:
            self._engine.add_object_file(llvm.ObjectFileRef.from_data(each))
        self._engine.finalize_object()

    def __call__(self, name: str, *given: Any) -> int:
        """Call a function with arrays (their addresses) and integers."""
        values = [g.ctypes.data if isinstance(g, np.ndarray) else int(g) for g in given]
        kind = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * len(values))
        return kind(self._engine.get_function_address(name))(*values)


def aligned(size: int, dtype: Any = np.uint8) -> Any:
    """Zeros that begin at a multiple of 64 bytes."""
    item = np.dtype(dtype).itemsize
    raw = np.zeros(size * item + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size * item].view(dtype)


def table(context: Context, arrays: Sequence[Any]) -> Any:
    """The table of a call with these arrays: results, then arguments."""
    size = FIRST_RESULT + WORDS_PER_ARRAY * len(arrays)
    words = np.zeros(size + len(arrays), np.int64)
    words[OFFSETS], words[ARRAYS] = words[size:].ctypes.data, len(arrays)
    for place, array in enumerate(arrays):
        start = FIRST_RESULT + WORDS_PER_ARRAY * place
        words[start : start + 3] = array.ctypes.data, *array.strides
    return words


def strided(kind: str, rows: int, dim: int, dtype: str) -> Any:
    """An array of numbers from 1 on, of some strides."""
    numbers = np.arange(1, rows * dim + 1, dtype=dtype).reshape(rows, dim)
    if kind == "transposed":
        return np.asfortranarray(numbers)
    if kind == "every other":
        wide = np.zeros((2 * rows, 3 * dim), dtype)
        wide[::2, ::3] = numbers
        return wide[::2, ::3]
    if kind == "backwards":
        return np.ascontiguousarray(numbers[::-1, ::-1])[::-1, ::-1]
    return numbers


# -- packing ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["contiguous", "transposed", "every other", "backwards"])
@pytest.mark.parametrize("dim", [1, 3, 20])
def test_packing_transposes_rows_of_any_strides(dim, kind, dtype):
    context = context_of("x * y", dim=dim, dtype=dtype, lanes="row")
    packing = Packing(context, (ROW,))
    assert packing.compute_rows is packing.compute_columns is None
    listed = np.array(packing_list(context.kernel, context.plan, ROW))
    lanes, call = context.plan.lane_count, Machine(context)
    x = strided(kind, 3 * lanes, dim, dtype)
    given = table(context, [x, x, x])
    for start, count in ((0, lanes), (1, lanes - 1), (lanes + 2, 1)):
        packed = aligned(dim * lanes, dtype)
        call("pack", given, 0, start, count, count, packed, 0, listed)
        want = x[start + np.minimum(np.arange(lanes), count - 1)].T
        assert np.array_equal(packed.reshape(dim, lanes), want)


@pytest.mark.parametrize("kind", ["contiguous", "transposed", "every other", "backwards"])
@pytest.mark.parametrize("dim", [1, 3, 20])
def test_groups_of_rows_are_packed_one_after_the_other(dim, kind):
    context = context_of("x * y", dim=dim, dtype="float32", lanes="row")
    Packing(context, (ROW,))
    listed = np.array(packing_list(context.kernel, context.plan, ROW))
    lanes, call = context.plan.lane_count, Machine(context)
    x, apart = strided(kind, 4 * lanes, dim, "float32"), dim + 1
    given = table(context, [x, x, x])
    for count in (3 * lanes, 2 * lanes + 5, lanes - 1):
        packed = aligned(3 * apart * lanes, "float32").reshape(3, apart, lanes)
        call("pack", given, 0, 1, count, lanes, packed, 4 * apart * lanes, listed)
        for group in range(-(-count // lanes)):
            rows = np.minimum(np.arange(lanes) + group * lanes, count - 1)
            assert np.array_equal(packed[group, :dim], x[1 + rows].T)
        assert not packed[:, dim].any()


@pytest.mark.parametrize("dim", [1, 3, 20])
def test_a_single_row_is_packed_without_room_for_others(dim):
    context = context_of("x * y", dim=dim, lanes="row")
    Packing(context, (ROW,))
    call, x = Machine(context), strided("contiguous", 3, dim, "float64")
    given, packed = table(context, [x, x, x]), aligned(dim + 1, "float64")
    listed = np.array([8, 1, 1, 0, FIRST_RESULT + WORDS_PER_ARRAY, 1, dim, 0])
    call("pack", given, 0, 2, 1, 1, packed, 0, listed)
    assert packed.tolist() == [*x[2], 0]


def test_numbers_that_are_too_large_are_noticed_in_the_lanes_of_rows_alone():
    context = context_of("x * y", dtype="float32", lanes="row")
    context.link(moderate(context.format))
    lanes, width, call = context.plan.lane_count, context.plan.width, Machine(context)
    given, count = table(context, []), lanes + width - 1  # two groups; the last is padded
    for group, slot, lane, noticed in (
        (0, 0, 0, True),
        (0, 2, lanes - 1, True),
        (1, 1, width - 1, True),
        (1, 1, width, False),
        (1, 3, 0, False),  # slots that are not asked for
        (2, 0, 0, False),
    ):
        packed = aligned(3 * 4 * lanes, "float32").reshape(3, 4, lanes)
        packed[group, slot, lane], given[BAILED_OUT] = -np.inf, 0
        where = count, lanes, width, packed, packed[0].nbytes
        call("moderate", given, 3, packed[0, 0].nbytes, *where)
        assert given[BAILED_OUT] == noticed, (group, slot, lane)


def test_packing_computes_what_depends_on_a_column_alone():
    context = context_of("Sum(x * Sin(y))", dtype="float64", lanes="row")
    Packing(context, (COLUMN,))
    block, stage = context.plan.block, context.kernel.stages[COLUMN]
    y = np.linspace(-2, 2, 3 * block).reshape(block, 3)
    packed = aligned(stage.size * block, "float64")
    given = table(context, [y, y, y])
    call, scratch = Machine(context), aligned(context.layout.total)
    listed = np.array(packing_list(context.kernel, context.plan, COLUMN))
    call("pack", given, 0, 0, block, block, packed, 0, listed)
    call("compute_columns", given, scratch, packed, block)
    rows = {tuple(row) for row in np.round(packed.reshape(stage.size, block), 12)}
    for component in np.round(np.sin(y).T, 12):
        assert tuple(component) in rows


# -- forms of states -------------------------------------------------------------------------------


def empty(context: Context) -> Any:
    """The states of a unit and no columns; what no pattern fills is not to be read."""
    state = aligned(context.layout.tile_state)
    state[:] = 0xAB
    fills = empty_states(context.kernel, context.plan, context.layout)
    for first, words, pattern in np.reshape(fills, (-1, FILL_WORDS)).tolist():
        state[first : first + 8 * words].view("int64")[:] = pattern
    return state


def form_module(context: Context) -> Machine:
    """join_units(scratch, into, other), unit(scratch, rows, state, count, base) and
    finish_unit(scratch, state, columns), which keeps results in scratch memory.
    """
    forms = Forms(context)
    code = context.function("join_units", BYTES, BYTES, BYTES)
    scratch, into, other = code.given
    forms.form(code, code.places(scratch)).merge(into, other)
    code.done()
    tile_function(context, forms)
    code = context.function("finish_unit", BYTES, BYTES, I64)
    scratch, state, columns = code.given
    places = code.places(scratch)
    slots = Slots(code, places["once"], places["rows"])
    Outputs(code, scratch, scratch, places).take(forms.form(code, places), state, columns, slots)
    code.done()
    return Machine(context)


class Unit:
    """The states of a tile of rows (or of one row, where lanes are columns), called part by part.

    The kernel is of x = Vi(d), y = Vj(d).
    """

    def __init__(self, context: Context, call: Machine) -> None:
        self.context, self.call, self.columns, self.rows = context, call, 0, 0
        self.scratch = aligned(context.layout.total)
        self.state = empty(context)

    def part(self, name: str, size: int, dtype: Any) -> Any:
        """A part of scratch memory."""
        start = self.context.layout.offset[name]
        return self.scratch[start : start + size * np.dtype(dtype).itemsize].view(dtype)

    def fold(self, x: Any, y: Any, base: int) -> None:
        """Fold a block of columns, which begins with column number `base`."""
        plan, dim = self.context.plan, x.shape[1]
        columns = self.part("columns", dim * plan.block, y.dtype).reshape(dim, plan.block)
        columns[:, : len(y)] = y.T
        rows = aligned(dim * plan.row_group, x.dtype).reshape(dim, plan.row_group)
        rows[:, : len(x)] = x.T
        self.rows = len(x)
        self.call("tile", self.scratch, rows, self.state, len(y), base)
        self.columns += len(y)

    def join(self, other: Unit) -> None:
        """Merge the states of another unit."""
        self.call("join_units", self.scratch, self.state, other.state)
        self.columns += other.columns
        self.rows = max(self.rows, other.rows)

    def results(self) -> list[Any]:
        """Finished rows, an array (rows, components) per result."""
        self.call("finish_unit", self.scratch, self.state, self.columns)
        found: list[Any] = []
        kernel, lanes = self.context.kernel, self.context.plan.lane_count
        for n, (kind, size) in enumerate(zip(kernel.kinds, kernel.results, strict=True)):
            dtype = self.context.plan.dtype if kind == "value" else "int64"
            kept = self.part(f"result {n}", size * lanes, dtype).reshape(size, lanes)
            found.append(kept[:, : self.rows].T.copy())
        return found


FORMS = {
    "Sum": (Running, lambda f: [f.sum(1)]),
    "Max": (Running, lambda f: [f.max(1)]),
    "Min_ArgMin": (Running, lambda f: [f.min(1), f.argmin(1)]),
    "LogSumExp": (MaxShifted, lambda f: [np.log(np.exp(f - 700).sum(1)) + 700]),
    "KMin_ArgKMin": (
        TopK,
        lambda f: [np.sort(f, 1)[:, :5].reshape(len(f), -1), np.argsort(f, 1, "stable")[:, :5]],
    ),
}


@pytest.mark.parametrize("reduction", FORMS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("lanes", ["row", "column"])
def test_a_form_of_states_folds_merges_and_finishes(reduction, dtype, lanes):
    kind, oracle = FORMS[reduction]
    length = 5 if reduction.startswith("KMin") else 0
    formula = "SqDist(x,y)" if reduction != "LogSumExp" else "700 - SqDist(x,y)"
    options = {"lanes": lanes, "screen": "never", "length": length}
    other = context_of(formula, reduction, 2, dtype, **options)
    code = other.function("asked", BYTES)
    assert isinstance(Forms(other).form(code, code.places(*code.given)), kind)
    context = context_of(formula, reduction, 2, dtype, **options)
    call, plan = form_module(context), context.plan
    rng = np.random.default_rng(3)
    rows = plan.lane_count if lanes == "row" else 1
    x = rng.uniform(-1, 1, (rows, 2)).astype(dtype)
    y = rng.uniform(-1, 1, (plan.block + 7, 2)).astype(dtype)
    first, second = Unit(context, call), Unit(context, call)
    first.fold(x, y[:5], 0)
    first.fold(x, y[5:11], 5)
    second.fold(x, y[11 : plan.block], 11)
    second.fold(x, y[plan.block :], plan.block)
    first.join(second)
    pairs = ((x[:, None].astype(float) - y[None].astype(float)) ** 2).sum(-1)
    pairs = 700 - pairs if reduction == "LogSumExp" else pairs
    for got, want in zip(first.results(), oracle(pairs), strict=True):
        want = want.reshape(len(x), -1)
        if got.dtype == np.int64:
            assert np.array_equal(got, want)
        else:
            assert_close(got, want.astype(dtype), terms=len(y))


@pytest.mark.parametrize("reduction", FORMS)
@pytest.mark.parametrize("accuracy", ["float32", "float64"])
def test_the_states_of_all_tiles_are_reset(reduction, accuracy):
    options = {"length": 5} if reduction == "KMin_ArgKMin" else {}
    context = context_of("x * y", reduction, dtype=accuracy, lanes="row", **options)
    context.link(reset(context.format))
    size = context.layout.tile_state
    states, fills = aligned(4 * size), empty_states(context.kernel, context.plan, context.layout)
    states[:] = 0xAB
    want, count = states.reshape(4, size).copy(), len(fills) // FILL_WORDS
    want[:3] = empty(context)
    Machine(context)("reset", np.array(fills), count, states, 3, size)
    assert np.array_equal(states.reshape(4, size), want)


def test_states_that_are_alike_are_filled_at_once():
    """One fill for all components, and for corrections beside them; not where numbers differ."""
    for reduction, dtype, count in (
        ("Sum", "float32", 1),
        ("Sum", "float64", 1),
        ("Max", "float64", 1),
        ("Min_ArgMin", "float64", 2 * 7),
    ):
        context = context_of("x * y", reduction, dim=7, dtype=dtype, lanes="row")
        fills = empty_states(context.kernel, context.plan, context.layout)
        assert len(fills) == FILL_WORDS * count


@pytest.mark.parametrize("reduction", FORMS)
def test_states_without_columns_change_nothing(reduction):
    length = 5 if reduction.startswith("KMin") else 0
    context = context_of("SqDist(x,y)", reduction, 2, lanes="row", screen="never", length=length)
    call, lanes = form_module(context), context.plan.lane_count
    x, y = np.linspace(0, 1, 2 * lanes).reshape(lanes, 2), np.linspace(-1, 2, 18).reshape(9, 2)
    unit, alone = Unit(context, call), Unit(context, call)
    unit.fold(x, y, 0)
    alone.fold(x, y, 0)
    unit.join(Unit(context, call))
    for got, want in zip(unit.results(), alone.results(), strict=True):
        assert np.array_equal(got, want)


def test_compensated_sums_keep_what_roundings_lose():
    context = context_of("x * y", "Sum", 1, "float64", lanes="row")
    call, lanes = form_module(context), context.plan.lane_count
    x = np.ones((lanes, 1))
    total = Unit(context, call)
    for value in (1.0, 2.0**60, 3.0, -(2.0**60)):
        part = Unit(context, call)
        part.fold(x, np.array([[value]]), 0)
        total.join(part)
    assert np.array_equal(total.results()[0], 4 * x)


def test_a_shifted_sum_does_not_overflow_when_its_maximum_grows():
    context = context_of("x * y", "LogSumExp", 1, "float64", lanes="row")
    call, lanes = form_module(context), context.plan.lane_count
    x, unit = np.ones((lanes, 1)), Unit(context, call)
    for base, value in enumerate((-1e5, 0.0, 1e5, 1e5)):
        unit.fold(x, np.array([[value]]), base)
    assert_close(unit.results()[0], x * (1e5 + math.log(2)))


# -- loops and outputs -----------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [2, 40])
def test_a_block_loop_leaves_columns_behind_the_count_alone(dim):
    context = context_of("Exp(-SqDist(x,y)) * y", "Sum", dim, "float64", lanes="row")
    assert (context.kernel.output_loop is None) == (dim == 2)
    call, plan = form_module(context), context.plan
    rng = np.random.default_rng(dim)
    x, y = rng.uniform(0, 0.3, (plan.lane_count, dim)), rng.uniform(0, 0.3, (plan.block, dim))
    unit = Unit(context, call)
    unit.part("columns", dim * plan.block, "float64")[:] = np.nan
    unit.fold(x, y[: plan.block - 3], 0)
    weights = np.exp(-((x[:, None] - y[None, :-3]) ** 2).sum(-1))
    assert_close(unit.results()[0], weights @ y[:-3], terms=plan.block)


def test_a_loop_is_written_into_any_function():
    context = context_of("x * y", "Sum", 1, "float64", lanes="row")
    forms = Forms(context)
    code: Code = context.function("two", BYTES, BYTES, BYTES, I64)
    scratch, rows, state, count = code.given
    places = code.places(scratch)
    form = forms.form(code, places)
    for _ in range(2):
        block = open_block(code, places, scratch, [rows, state, count, i64(0)])
        block_loop(block, form, places).fold()
    code.done()
    call, lanes = Machine(context), context.plan.lane_count
    scratch, rows = aligned(context.layout.total), aligned(lanes, "float64")
    start = context.layout.offset["columns"]
    scratch[start : start + 24].view("float64")[:] = 1, 2, 3
    rows[:] = np.arange(lanes)
    state = empty(context)
    call("two", scratch, rows, state, 3)
    assert np.array_equal(state[: 8 * lanes].view("float64"), 12.0 * rows)


@pytest.mark.parametrize("kind", ["contiguous", "transposed", "every other", "backwards"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_outputs_are_written_to_any_strides(kind, dtype):
    context = context_of("x * y", "Sum", 3, dtype, lanes="row")
    code = context.function("write", BYTES, BYTES, I64, I64)
    args, scratch, first, count = code.given
    Outputs(code, args, scratch, code.places(scratch)).write(i64(0), 0, first, count)
    code.done()
    lanes = context.plan.lane_count
    out = strided(kind, lanes + 4, 3, dtype)
    out[:] = -1
    scratch, start = aligned(context.layout.total), context.layout.offset["result 0"]
    kept = scratch[start : start + 3 * lanes * out.itemsize].view(dtype).reshape(3, lanes)
    kept[:] = np.arange(3 * lanes).reshape(3, lanes)
    Machine(context)("write", table(context, [out, out, out]), scratch, 2, lanes - 1)
    want = np.full((lanes + 4, 3), -1, dtype)
    want[2 : lanes + 1] = kept.T[:-1]
    assert np.array_equal(out, want)


def test_a_factor_that_is_not_finite_is_reported():
    context = context_of("x", "Sum", 1, "float64", lanes="row")
    code = context.function("report", BYTES, BYTES)
    args, values = code.given
    value = code.flow.load(code.simd.type, values, 8)
    code.bail_out(args, code.simd.isnan(value))
    code.done()
    call, words = Machine(context), table(context, [])
    call("report", words, aligned(context.plan.width, "float64"))
    assert words[BAILED_OUT] == 0
    values = aligned(context.plan.width, "float64")
    values[-1] = np.nan
    call("report", words, values)
    assert words[BAILED_OUT] == 1


# -- the screen ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dim", [3, 17])
def test_points_on_the_grid_are_no_farther_apart_than_points_and_errors_say(dim, dtype):
    context = context_of("SqDist(x,y)", "ArgMin", dim, dtype, screen="always")
    assert context.plan.screen is not None
    Screen(context, context.plan.screen)
    plan, layout = context.plan, context.layout
    call, lanes = Machine(context), plan.lane_count
    rng = np.random.default_rng(dim)
    x = rng.normal(size=(lanes, dim)).astype(dtype)
    y = (3 * rng.normal(size=(plan.block, dim))).astype(dtype)
    scratch = aligned(layout.total)
    unit = Unit.__new__(Unit)
    unit.context, unit.scratch = context, scratch
    unit.part("rows", dim * lanes, dtype)[:] = x.T.ravel()
    unit.part("columns", dim * plan.block, dtype)[:] = y.T.ravel()
    call("screen_rows", scratch, 1)
    call("screen_columns", scratch, plan.block)
    scale = unit.part("screen scale", 1, dtype)[0]
    centre = unit.part("screen centre", dim, dtype).astype(float)
    errors = unit.part("screen errors", 2, dtype).astype(float)
    rows = scratch[layout.offset["rows"] :]
    parts = {
        name: rows[layout.screen.row[name] :][: np.dtype(kind).itemsize * lanes].view(kind)
        for name, kind in (("norm", "int32"), ("rounding", dtype), ("whole", dtype))
    }
    near = (x.astype(float) - centre) * float(scale)
    grid = np.rint(near)
    assert np.array_equal(parts["norm"], (grid**2).sum(1).astype(int))
    assert (parts["rounding"] >= np.sqrt(((near - grid) ** 2).sum(1))).all()
    far = (y.astype(float) - centre) * float(scale)
    largest = np.abs(grid).max()
    inside = np.clip(far, -largest, largest)
    assert errors[0] <= np.sqrt(dim)
    assert errors[1] >= errors[0]
    assert errors[1] >= np.sqrt(((far - np.rint(inside)) ** 2).sum(1)).max() - np.sqrt(dim)


# -- fused sums ------------------------------------------------------------------------------------


def test_sums_of_columns_lie_output_after_output():
    context = context_of("x * y", "Sum", 1, "float64", lanes="row")
    code = context.function("add", BYTES, I64, I64, BYTES)
    sums, stride, column, values = code.given
    part = code.flow.load(code.outer.type, values, 8), None
    columns = ColumnStates(code, stride, code.layout.runs[0])
    columns.add(part, *columns.addresses(sums, column, i64(1)))
    code.done()
    width, call = context.plan.width, Machine(context)
    sums, values = aligned(4 * 3 * width, "float64"), aligned(width, "float64")
    values[:] = np.arange(width)
    for _ in range(2):
        call("add", sums, 8 * 3 * width, width, values)
    want = np.zeros((4, 3, width))
    want[2, 1] = 2 * values  # of each output, sums and their corrections
    assert np.array_equal(sums.reshape(4, 3, width), want)


def test_a_module_is_closed_when_its_code_cannot_be_written(monkeypatch) -> None:
    """The garbage collector might free its context first, which ends the process."""
    module = optimized("define void @f() {\n  ret void\n}\n", machine())

    def fails(self: Any, module: Any) -> bytes:
        raise MemoryError

    monkeypatch.setattr(llvm.TargetMachine, "emit_object", fails)
    with pytest.raises(MemoryError):
        object_code(module, machine())
    assert module.closed


# -- shared functions ------------------------------------------------------------------------------


def test_shared_functions_of_a_format_are_compiled_together_and_once(monkeypatch):
    written: list[list[str]] = []
    inside = native.shared_object

    def shared_object(functions):
        written.append([own.name for own in functions])
        return inside(functions)

    monkeypatch.setattr(native, "shared_object", shared_object)
    format = Format(machine(), "float32", "float32", 2)  # no plan has vectors so short
    packing = pack(format, [2, 3])
    first = shared_code([packing, *packing.parts])
    assert written == [["pack"], ["copy", "split2", "split3"]]
    assert len(first) == 2
    others = split(format, 4), copy(format)
    again = shared_code([packing, *packing.parts, *others])
    assert written[2:] == [["split4"]]
    assert again[:2] == first
    assert len(again) == 3


def test_objects_may_have_a_function_in_common():
    """One that was dropped from the cache is compiled again, with others than before."""
    format = Format(machine(), "float32", "float32", 2)
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), new_target_machine(machine()))
    for dim in (2, 3):
        code = native.shared_object([copy(format), split(format, dim)])
        engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    assert all(map(engine.get_function_address, ("copy", "split2", "split3")))


def test_a_compilation_is_logged(caplog):
    caplog.set_level("DEBUG", "pairfold")
    x = np.ones((3, 1))
    Genred("x - y * IntCst(91)", ["x = Vi(1)", "y = Vj(1)"], axis=1)(x, x)
    assert [record.levelname for record in caplog.records] == ["DEBUG"]
    assert caplog.messages[0].startswith("compiled")


def test_a_first_call_imports_what_it_needs_alone():
    program = """
import sys, numpy as np
from pairfold.numpy import Genred
Genred("x - y", ["x = Vi(1)", "y = Vj(1)"], axis=1)(*np.ones((2, 3, 1)))
unused = ("logging", *("pairfold.backends.llvm." + name for name in ("fused", "screening")))
assert not set(unused) & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True)
