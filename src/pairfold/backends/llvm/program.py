"""Kernel and plan to LLVM IR: the parts of the code generator, put together.

A task holds some rows (a row block) and some columns. Rows and blocks of columns are packed
into component-major buffers ([slot][lane]), strides and tails being dealt with there and nowhere
else; the inner loop over a block reads only these buffers, keeps its accumulators in registers and
merges them into wider states block after block. User arrays are read only at packing, at indices
below the counts given; all other memory is the task's own scratch.

A module has what depends on the formula. The rest (drivers, copying) are functions that all
kernels share, linked to it: see `runtime.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ...errors import UnsupportedError
from ...lower.fused import may_keep_columns
from ...lower.kernel import COLUMN, ROW, Kernel
from ...lower.schedule import Plan
from . import ir
from .block import open_block
from .context import Context
from .empty import reset
from .flow import i64
from .forms import Forms
from .loops import block_loop
from .outputs import finish_function
from .packing import Packing
from .runtime import RuntimeFunction
from .tasks import combine_driver, own_driver, parts_of, run_driver
from .underflow import write_checks

if TYPE_CHECKING:
    from .screening import Screen


class Program(NamedTuple):
    """A module, and the shared functions to be linked to it.

    `bails_out`: whether there are inputs for which it has the kernel run without rearrangement.
    """

    module: ir.Module
    runtime: tuple[RuntimeFunction, ...]
    bails_out: bool


def write(kernel: Kernel, plan: Plan, entry: str) -> Program:
    """What makes one of the entry points, `run` or `combine`.

    Fused tasks have both: every call needs both, and they share the packing.

    Raises:
        UnsupportedError: columns are to keep more than a number for each component.
    """
    context = Context(kernel, plan)
    machine = plan.machine
    if kernel.fused:
        for each in kernel.kept_on(COLUMN):
            if not may_keep_columns(each.rule):
                raise UnsupportedError(
                    "in a pass that keeps rows, columns keep one number for each component",
                    found=each.rule.name,
                    hint=f"a call of its own for {each.rule.name}",
                )
        from .fused import FusedTasks  # of few kernels

        FusedTasks(context, Packing(context, (ROW, COLUMN))).write()
        for name in ("run", "combine"):
            context.link(own_driver(machine, name))
    elif plan.pruned:
        if kernel.only.rule.selects:
            from .pruning import PrunedTasks as Tasks
        else:
            from .certified import CertifiedTasks as Tasks
        Tasks(context, Packing(context, (ROW, COLUMN))).write()
        for name in ("run", "combine"):
            context.link(own_driver(machine, name))
    elif entry == "run":
        packing = Packing(context, (ROW, COLUMN))
        forms = Forms(context)
        finish_function(context, forms)
        screen = None
        if plan.screen is not None:
            from .screening import Screen  # of few plans

            screen = Screen(context, plan.screen)
        tile_function(context, forms, screen)
        if kernel.keep is not None:
            tile_function(context, forms, None, tested=False)
        context.link(reset(context.format))
        flushes = write_checks(context)
        parts = parts_of(packing, screen is not None, kernel.keep is not None, flushes)
        context.link(run_driver(machine, parts))
    else:
        refactored = any(factor is not None for factor in kernel.factors)
        packing = Packing(context, (ROW,) if refactored else ())
        forms = Forms(context)
        merge_function(context, forms)
        finish_function(context, forms)
        context.link(combine_driver(machine, parts_of(packing)))
    return Program(context.module, tuple(context.runtime), context.bails_out)


def tile_function(
    context: Context, forms: Forms, screen: Screen | None = None, tested: bool = True
) -> ir.Function:
    """tile(scratch, rows, state, count, base): fold a packed block into one tile's states.

    A tile is as many rows as there are lanes, or a single row where lanes are columns (`rows` then
    points at its lane in the group). The block begins with column number `base`. Where a mask holds
    for all pairs it is not `tested`: that is a function of its own.
    """
    code = context.entry("tile" if tested else "tile_whole")
    scratch, *given = code.given
    places = code.places(scratch)
    block, form = open_block(code, places, scratch, given, tested), forms.form(code, places)
    if screen is None:
        block_loop(block, form, places).fold()
    else:
        screen.loop(block, form, places).fold()
    return code.done()


def merge_function(context: Context, forms: Forms) -> ir.Function:
    """merge(scratch, into, other, tiles): the states of another split joined to those of one."""
    code = context.entry("merge")
    scratch, into, other, tiles = code.given
    form = forms.form(code, code.places(scratch))
    with code.flow.loop(i64(0), tiles, name="tiles") as tile:
        form.merge(code.tile_state(into, tile.index), code.tile_state(other, tile.index))
    return code.done()
