"""Fused kernels, whose results for rows and for columns come from one pass over the pairs.

Some are folded over columns, for each row; others may be folded *across* them, over rows, for
each column. Such a kernel is lowered like any other of several accumulators; here it gets its plan
and its partition.
"""

from __future__ import annotations

from dataclasses import replace

from ..core.dtypes import DTYPES
from ..ops.reductions import Reduction
from ..settings import Settings
from .kernel import COLUMN, PAIR, ROW, Kernel
from .schedule import (
    TASKS,
    Accumulation,
    Machine,
    Partition,
    Plan,
    code_size,
    make_plan,
    pair_loops,
    power_of_two_below,
)

# Components of all results: more would not leave registers for the formula.
MOST_COMPONENTS = 48
# The sums of a block of columns should stay in the L2 cache, with much beside them.
_BLOCK_BYTES = 48 * 1024
_PAIR_BYTES = 32 * 1024  # of what a tile reads of arrays of pairs for a block
# Operations written out in the inner loops: each vector of rows has its own copy of the formula.
_MOST_CODE = 1000
# Rows that are packed at a time.
_ROW_BYTES = 256 * 1024
# Terms of a lane's sum for a column, which is in the data's dtype, before it is added to a wider.
_LANE_TERMS = 256
_PARTIAL_BYTES = 2**26
# What a task has at least, where there are several.
_ROWS = 1024
_BLOCKS = 2


def can_fuse(kernel: Kernel) -> bool:
    """Whether columns may keep what they keep, and all that is folded are numbers without loops."""
    columns = all(may_keep_columns(each.rule) for each in kernel.kept_on(COLUMN))
    return columns and kernel.dim <= MOST_COMPONENTS and not pair_loops(kernel)


def may_keep_columns(rule: Reduction) -> bool:
    """Whether states of columns are numbers: neither lists, nor measured, nor numbers of rows."""
    return rule.form == "running" and rule.kinds == ("value",)


def fused_plan(
    kernel: Kernel,
    machine: Machine,
    dtype: str,
    accumulation: Accumulation,
    options: Settings,
    stored: str,
) -> Plan:
    """The plan of a fused pass: lanes hold rows, whose sums stay in registers over a block.

    The sums of columns are read and written once for all vectors of rows that are handled together.
    """
    by_rows = replace(options, lanes="row")
    plan = make_plan(kernel, machine, dtype, accumulation, by_rows, stored)
    vectors = power_of_two_below(options.row_vectors)
    if not options.row_vectors:
        vectors = 4 if 8 * kernel.places <= machine.registers else 2
        while vectors > 1 and code_size(kernel) * vectors > _MOST_CODE:
            vectors //= 2
    block = options.block
    if not block:
        column = kernel.across * plan.width * DTYPES[accumulation.inner].bytes
        block = max(32, min(256, _BLOCK_BYTES // max(1, column)))
        pairs = kernel.stages[PAIR].size * vectors * plan.width * DTYPES[dtype].bytes
        block = min(block, max(16, _PAIR_BYTES // pairs)) if pairs else block
    unit = max(plan.width, 8)
    row = max(1, kernel.stages[ROW].size) * vectors * plan.width * DTYPES[dtype].bytes
    return replace(
        plan,
        vectors=vectors,
        jam=1,
        block=max(unit, block // unit * unit),
        tiles=max(1, min(_LANE_TERMS // vectors, _ROW_BYTES // row)),
    )


def fused_partition(
    plan: Plan,
    kernel: Kernel,
    sizes: tuple[int, int, int],
    work: float,
    options: Settings,
) -> Partition:
    """Cut (rows, columns, batches) into blocks of rows and splits of columns, about as many.

    Every task leaves partial sums of its rows and of its columns, so there are no more tasks than
    balance needs, and fewer where their sums would take much memory.
    """
    rows, columns, batches = sizes
    units, blocks = -(-rows // plan.lane_count), -(-columns // plan.block)
    useful = int(rows * columns * batches * work // 2_000_000)
    wanted = min(TASKS // batches, useful)
    most_row_blocks, most_splits = rows // _ROWS, blocks // _BLOCKS
    of_rows, of_columns = rows * kernel.places, columns * kernel.across
    most = max(_PARTIAL_BYTES // (8 * batches), 8 * (of_rows + of_columns))
    row_blocks, splits = 1, min(options.splits or 1, blocks)
    while row_blocks * splits < wanted and row_blocks * of_columns + splits * of_rows < most:
        if row_blocks < most_row_blocks and (row_blocks <= splits or splits >= most_splits):
            row_blocks += 1
        elif splits < most_splits and not options.splits:
            splits += 1
        else:
            break
    per_row_block, per_split = -(-units // row_blocks), -(-blocks // splits)
    return Partition(
        per_row_block * plan.lane_count,
        -(-units // per_row_block),
        -(-blocks // per_split),
        per_split * plan.block,
        batches,
    )
