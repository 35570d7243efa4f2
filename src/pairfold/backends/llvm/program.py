"""Kernel and plan to LLVM IR: the parts of the code generator, put together.

A task holds some rows (a panel) and a stretch of columns. Rows and blocks of columns are packed
into component-major buffers ([slot][lane]), strides and tails being dealt with there and nowhere
else; the inner loop over a block reads only these buffers, keeps its accumulators in registers and
merges them into wider states block after block. User arrays are read only at packing, at indices
below the counts given; all other memory is the task's own scratch.
"""

from __future__ import annotations

from llvmlite import ir

from ...errors import UnsupportedError
from ...lower.kernel import COLUMN, ROW, Kernel
from ...lower.pattern import PANEL_WORDS
from ...lower.schedule import Plan
from ...lower.sweep import may_keep_columns
from .abi import (
    COLUMN_COUNT,
    COLUMNS,
    COLUMNS_PER_SPLIT,
    FIRST_INTERVAL,
    FIRST_ROW,
    INTERVALS,
    LAST_INTERVAL,
    OWN_INTERVAL,
    PANELS,
    PARTIALS,
    ROW_COUNT,
    SPARSE_PANELS,
    SPLITS,
)
from .block import open_block
from .context import Code, Context
from .flow import BYTES, I64, i64
from .forms import Forms
from .fused import FusedTasks
from .loops import block_loop
from .outputs import finish_function
from .packing import Packing
from .screening import Screen
from .tasks import Task, Walk, entry_point, task_parts


def write(kernel: Kernel, plan: Plan, entry: str) -> ir.Module:
    """The module with one of the entry points, `run` or `combine`.

    Fused tasks have both: every call needs both, and they share the packing.

    Raises:
        UnsupportedError: columns are to keep more than a number for each component.
    """
    context = Context(kernel, plan)
    if kernel.fused:
        for each in kernel.kept_on(COLUMN):
            if not may_keep_columns(each.rule):
                raise UnsupportedError(
                    "in a pass that keeps rows, columns keep one number for each component",
                    found=each.rule.name,
                    hint=f"a call of its own for {each.rule.name}",
                )
        packing = Packing(context, (ROW, COLUMN))
        tasks = FusedTasks(context, packing, Walk(context, packing))
        entry_point(context, "run", tasks.run())
        entry_point(context, "combine", tasks.combine())
    elif entry == "run":
        packing = Packing(context, (ROW, COLUMN))
        forms = Forms(context)
        finish = finish_function(context, forms)
        screen = None if plan.screen is None else Screen(context, plan.screen)
        unit = unit_function(context, forms, screen)
        walk = Walk(context, packing, screen)
        entry_point(context, "run", task_function(context, walk, forms, unit, finish))
    else:
        refactored = any(factor is not None for factor in kernel.factors)
        packing = Packing(context, (ROW,) if refactored else ())
        forms = Forms(context)
        finish = finish_function(context, forms)
        entry_point(context, "combine", combine_function(context, packing, forms, finish))
    return context.module


def unit_function(context: Context, forms: Forms, screen: Screen | None = None) -> ir.Function:
    """unit(scratch, rows, state, count, base): fold a packed block into one unit's states.

    A unit is a tile of rows (lanes are rows) or a single row (lanes are columns; `rows` then
    points at its lane in the group). The block begins with column number `base`.
    """
    code = context.function("unit", BYTES, BYTES, BYTES, I64, I64)
    scratch, *given = code.given
    places = code.places(scratch)
    block, form = open_block(code, places, scratch, given), forms.form(code, places)
    if screen is None:
        block_loop(block, form, places).fold()
    else:
        screen.loop(block, form, places).fold()
    return code.done()


def task_function(
    context: Context, walk: Walk, forms: Forms, unit: ir.Function, finish: ir.Function
) -> ir.Function:
    """task(args, scratch, control, which): fold a panel of rows over intervals of columns."""
    code = context.function("task", BYTES, BYTES, BYTES, I64)
    args, scratch, control, which = code.given
    flow, b, form = code.flow, code.builder, forms.form(code)
    splits = flow.word(args, SPLITS)
    batch, *dense = task_parts(code, args, which, splits)
    panel = code.part(scratch, "panel")
    intervals = _panel(code, args, which, tuple(dense), panel)
    first, count = flow.word(panel, FIRST_ROW), flow.word(panel, ROW_COUNT)
    walk.packing.once(code, args, scratch, batch)
    walk.packing.rows(code, args, scratch, batch, first, count)
    units = code.units(count)
    walk.rows_packed(code, scratch, units)
    own = code.part(scratch, "state")
    partial = flow.at(flow.pointer(args, PARTIALS), flow.times(which, context.layout.state_bytes))
    alone = b.icmp_signed("==", splits, i64(1))
    state = b.select(alone, own, partial)
    with flow.loop(i64(0), units, name="units") as each:
        form.reset(code.unit_state(state, each.index))

    def fold(columns: ir.Value, base: ir.Value) -> None:
        rows = code.part(scratch, "rows")
        with flow.loop(i64(0), units, name="units") as each:
            here, there = code.unit_rows(rows, each.index), code.unit_state(state, each.index)
            b.call(unit, [scratch, here, there, columns, base])

    task = Task(args, scratch, control, batch)
    low, high = flow.word(panel, FIRST_INTERVAL), flow.word(panel, LAST_INTERVAL)
    with flow.loop(low, high, name="intervals") as each:
        interval = flow.at(intervals, flow.times(each.index, 16))
        start, stop = flow.word(interval, 0), flow.word(interval, 1)
        walk.columns(code, task, start, stop, fold)
    with flow.when(alone):
        columns = flow.word(panel, COLUMN_COUNT)
        b.call(finish, [args, scratch, batch, first, count, columns, state])
    return code.done()


def _panel(
    code: Code, args: ir.Value, which: ir.Value, dense: tuple[ir.Value, ...], panel: ir.Value
) -> ir.Value:
    """Write what a task knows of its panel of rows; returns the table of intervals.

    `dense`: (first row, rows, split), of a fold over all columns: one interval. The panels of
    a sparse fold, and their intervals, are read from tables.
    """
    flow, b = code.flow, code.builder
    first, count, split = dense
    start = b.mul(split, flow.word(args, COLUMNS_PER_SPLIT))
    stop = b.add(start, flow.word(args, COLUMNS_PER_SPLIT))
    stop = flow.minimum(stop, flow.word(args, COLUMNS))
    words = [first, count, i64(0), i64(1), flow.word(args, COLUMNS), start, stop]
    for place, word in enumerate(words):
        flow.store(word, flow.at(panel, i64(8 * place)), 8)
    sparse = b.icmp_signed("!=", flow.word(args, SPARSE_PANELS), i64(0))
    with flow.when(sparse):
        number = b.srem(which, flow.word(args, PANELS))
        source = flow.at(flow.pointer(args, SPARSE_PANELS), flow.times(number, 8 * PANEL_WORDS))
        for place in range(PANEL_WORDS):
            flow.store(flow.word(source, place), flow.at(panel, i64(8 * place)), 8)
    own = flow.at(panel, i64(8 * OWN_INTERVAL))
    return b.select(sparse, flow.pointer(args, INTERVALS), own)


def combine_function(
    context: Context, packing: Packing, forms: Forms, finish: ir.Function
) -> ir.Function:
    """combine_task(args, scratch, control, which): merge the splits of a panel, in order."""
    code = context.function("combine_task", BYTES, BYTES, BYTES, I64)
    args, scratch, _, which = code.given
    flow, b, size = code.flow, code.builder, context.layout.state_bytes
    batch, first, count, _ = task_parts(code, args, which, i64(1))
    splits = flow.word(args, SPLITS)
    form = forms.form(code, code.places(scratch))
    packing.once(code, args, scratch, batch)
    packing.rows(code, args, scratch, batch, first, count)
    partials = flow.pointer(args, PARTIALS)
    panel = flow.at(partials, flow.times(b.mul(which, splits), size))
    with flow.loop(i64(1), splits, name="splits") as split:
        other = flow.at(panel, flow.times(split.index, size))
        with flow.loop(i64(0), code.units(count), name="units") as unit:
            form.merge(code.unit_state(panel, unit.index), code.unit_state(other, unit.index))
    columns = flow.word(args, COLUMNS)
    b.call(finish, [args, scratch, batch, first, count, columns, panel])
    return code.done()
