"""What tasks have in common: the columns of a task, block after block, and the entry points.

run(args, scratch, control)      takes tasks off a shared counter until none is left
combine(args, scratch, control)  likewise, tasks that merge what those of `run` have left
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from llvmlite import ir

from .abi import (
    ACTIVE,
    AT_ONCE,
    CHUNK,
    DONE,
    NEXT,
    PANELS,
    REFUSED,
    ROWS,
    ROWS_PER_TASK,
    STOP,
    TOTAL,
)
from .context import Code, Context
from .flow import BYTES, I64, i64
from .packing import Packing
from .screening import Screen

# Folds the block that was packed, (number of columns, first of them), into the rows of a task.
Fold = Callable[[ir.Value, ir.Value], None]


@dataclass(frozen=True)
class Task:
    """A task of `run`, in the function that does it: what it was given, its batch element."""

    args: ir.Value
    scratch: ir.Value
    control: ir.Value
    batch: ir.Value


def task_parts(
    code: Code, args: ir.Value, which: ir.Value, splits: ir.Value
) -> tuple[ir.Value, ir.Value, ir.Value, ir.Value]:
    """(batch, first row, rows, split) of a task."""
    flow, b = code.flow, code.builder
    split = b.srem(which, splits)
    panel_of_all = b.sdiv(which, splits)
    panels = flow.word(args, PANELS)
    batch = b.sdiv(panel_of_all, panels)
    first = b.mul(b.srem(panel_of_all, panels), flow.word(args, ROWS_PER_TASK))
    count = flow.minimum(flow.word(args, ROWS_PER_TASK), b.sub(flow.word(args, ROWS), first))
    return batch, first, count, split


class Walk:
    """How tasks of a module go through columns: blocks are packed, and screened where there is a
    screen, then folded into the rows of the task.
    """

    def __init__(self, context: Context, packing: Packing, screen: Screen | None = None) -> None:
        self.plan, self.packing, self.screen = context.plan, packing, screen

    def rows_packed(self, code: Code, scratch: ir.Value, units: ir.Value) -> None:
        """What else a task does with its rows."""
        if self.screen is not None:
            self.screen.rows_packed(code, scratch, units)

    def columns(self, code: Code, task: Task, start: ir.Value, stop: ir.Value, fold: Fold) -> None:
        """Fold columns from start to stop, block after block, unless the task is to stop."""
        flow, b, pack = code.flow, code.builder, self.packing.pack_columns
        columns = code.part(task.scratch, "columns")
        with flow.loop(start, stop, self.plan.block, name="blocks") as block:
            halt = b.load_atomic(flow.at(task.control, i64(8 * STOP)), "monotonic", 8, typ=I64)
            refused = b.load_atomic(flow.at(task.args, i64(8 * REFUSED)), "monotonic", 8, typ=I64)
            going = b.icmp_signed("==", b.or_(b.and_(halt, i64(AT_ONCE)), refused), i64(0))
            with flow.when(going):
                width = flow.minimum(i64(self.plan.block), b.sub(stop, block.index))
                if pack is not None:
                    given = [task.args, task.scratch, task.batch, block.index, width, columns]
                    b.call(pack, given)
                if self.screen is not None:
                    self.screen.columns_packed(code, task.scratch, width)
                fold(width, block.index)


def entry_point(context: Context, name: str, task: ir.Function) -> None:
    """While not stopped: take the next tasks off the counter and do them.

    Returns how many tasks are not done; once they are stopped at once, how many other threads
    are inside. Either way 0 says that nobody will touch the arrays any more, and that what was
    written to them is to be seen. Without scratch memory it only looks.
    """
    code = context.function(name, BYTES, BYTES, BYTES, returns=I64)
    args, scratch, control = code.given
    b, flow = code.builder, code.flow
    take, work, leave = (b.append_basic_block(part) for part in ("take", "work", "leave"))
    active, done = flow.at(control, i64(8 * ACTIVE)), flow.at(control, i64(8 * DONE))
    stop_word = flow.at(control, i64(8 * STOP))
    b.atomic_rmw("add", active, i64(1), "acq_rel")
    # Whoever stops the tasks passes this, too, before counting who is inside: either is seen.
    b.fence("seq_cst")
    stop = b.load_atomic(stop_word, "monotonic", 8, typ=I64)
    looks = b.icmp_signed("==", scratch, ir.Constant(BYTES, None))
    b.cbranch(b.or_(looks, b.icmp_signed("==", stop, i64(AT_ONCE))), leave, take)
    b.position_at_end(take)
    chunk = flow.word(control, CHUNK)
    total = flow.word(control, TOTAL)
    first = b.atomic_rmw("add", flow.at(control, i64(8 * NEXT)), chunk, "monotonic")
    b.cbranch(b.icmp_signed("<", first, total), work, leave)
    b.position_at_end(work)
    last = flow.minimum(b.add(first, chunk), total)
    with flow.loop(first, last, name="tasks") as tasks:
        b.call(task, [args, scratch, control, tasks.index])
    b.atomic_rmw("add", done, b.sub(last, first), "acq_rel")
    stop = b.load_atomic(stop_word, "monotonic", 8, typ=I64)
    b.cbranch(b.icmp_signed("==", stop, i64(0)), take, leave)
    b.position_at_end(leave)
    others = b.sub(b.atomic_rmw("sub", active, i64(1), "acq_rel"), i64(1))
    stop = b.load_atomic(stop_word, "monotonic", 8, typ=I64)
    left = b.sub(flow.word(control, TOTAL), b.load_atomic(done, "acquire", 8, typ=I64))
    b.ret(b.select(b.icmp_signed("==", stop, i64(AT_ONCE)), others, left))
