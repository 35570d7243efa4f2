"""The runtime: functions that all kernels share, compiled once and linked to the code of each.

They are what does not depend on a formula: drivers, which take tasks and go through rows and
columns, and functions that move numbers between arrays and packed memory. A kernel's own module
declares those it calls, and defines what its drivers call, under names that all agree on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from ...core.dtypes import DTYPES
from ...lower.schedule import Machine
from . import ir
from .abi import BAILED_OUT
from .flow import BYTES, I64, Flow, i64
from .storage import Storage, Truths

# What a kernel defines for its drivers, by name: the types of arguments.
CALLED: dict[str, tuple[ir.Type, ...]] = {
    # compute_once(args, scratch): from packed parameters.
    "compute_once": (BYTES, BYTES),
    # compute(args, scratch, destination, padded): from packed rows or columns, whole vectors.
    "compute_rows": (BYTES, BYTES, BYTES, I64),
    "compute_columns": (BYTES, BYTES, BYTES, I64),
    # screen_rows(scratch, tiles), screen_columns(scratch, count)
    "screen_rows": (BYTES, I64),
    "screen_columns": (BYTES, I64),
    # tile(scratch, rows, state, count, base): a packed block of columns and one tile.
    "tile": (BYTES, BYTES, BYTES, I64, I64),
    # The same of a block where a mask holds for every pair.
    "tile_whole": (BYTES, BYTES, BYTES, I64, I64),
    # largest(scratch, count), again(scratch, rows, state, columns): see `underflow`.
    "largest": (BYTES, I64),
    "again": (BYTES, BYTES, BYTES, I64),
    # merge(scratch, into, other, tiles): the states of another split.
    "merge": (BYTES, BYTES, BYTES, I64),
    # finish(args, scratch, batch, first, count, columns, state)
    "finish": (BYTES, BYTES, I64, I64, I64, I64, BYTES),
    # (args, scratch, control, which): tasks, of kernels that have their own.
    "task": (BYTES, BYTES, BYTES, I64),
    "combine_task": (BYTES, BYTES, BYTES, I64),
}


class Body:
    """A function being written, its builder at the entry. `given`: its arguments."""

    def __init__(self, function: ir.Function) -> None:
        self.function = function
        self.given: list[ir.Value] = list(function.args)
        self.builder = ir.IRBuilder(function.append_basic_block("entry"))
        self.flow = Flow(self.builder)

    def done(self, result: ir.Value | None = None) -> ir.Function:
        """End the function."""
        if result is None:
            self.builder.ret_void()
        else:
            self.builder.ret(result)
        return self.function


class Format(NamedTuple):
    """Vectors of numbers: what they are computed in, how arrays store them, how many lanes."""

    machine: Machine
    dtype: str
    stored: str
    width: int

    @property
    def item(self) -> int:
        """Bytes of a number that is computed with."""
        return DTYPES[self.dtype].bytes

    @property
    def storage(self) -> Storage:
        """How arrays store numbers."""
        return Truths(self.dtype) if self.stored == "bool" else Storage(self.stored)

    @property
    def suffix(self) -> str:
        """What tells functions of truth values from those of numbers, which a kernel has, too."""
        return "_truths" if self.stored == "bool" else ""


class RuntimeFunction(NamedTuple):
    """A function, and what writes it into a module.

    It depends on the machine, on the format of numbers if it handles any, and on `detail`. `parts`
    are others that it calls. `rare`: it is entered once per task or call, so that it matters more
    that it compiles quickly than that it is quick.
    """

    name: str
    kinds: tuple[ir.Type, ...]
    returns: ir.Type
    write: Callable[[Body, RuntimeFunction], None]
    machine: Machine
    format: Format | None = None
    detail: tuple[int, ...] = ()
    parts: tuple[RuntimeFunction, ...] = ()
    rare: bool = False

    def declared(self, module: ir.Module) -> ir.Function:
        """The function, for a module that calls it."""
        return module.declared(self.name, ir.FunctionType(self.returns, self.kinds))


def shared_module(functions: Iterable[RuntimeFunction]) -> ir.Module:
    """A module with these functions."""
    module = ir.Module("runtime")
    for own in functions:
        own.write(Body(begun(module, own.name, *own.kinds, returns=own.returns)), own)
    return module


def begun(
    module: ir.Module, name: str, *kinds: ir.Type, returns: ir.Type | None = None
) -> ir.Function:
    """A function that returns a value, or nothing, and raises no exceptions."""
    function = ir.Function(module, ir.FunctionType(returns or ir.VoidType(), kinds), name)
    function.attributes.add("nounwind")
    return function


def quickly_compiled(function: ir.Function) -> None:
    """Have LLVM not optimise a function: it is entered once per task, or call."""
    function.attributes.add("noinline")
    function.attributes.add("optnone")


def called(body: Body, name: str) -> ir.Function:
    """What the kernel that a driver is linked to defines."""
    return declared(body, name, CALLED[name])


def declared(body: Body, name: str, kinds: tuple[ir.Type, ...]) -> ir.Function:
    """A function that returns nothing, for a function that calls it; it may be declared before."""
    return body.function.module.declared(name, ir.FunctionType(ir.VoidType(), kinds))


def bail_out(body: Body, args: ir.Value, condition: ir.Value) -> None:
    """Tell the caller, if the condition holds, to fold again without rearranging."""
    with body.flow.when(condition):
        word = body.flow.at(args, i64(8 * BAILED_OUT))
        body.builder.atomic_rmw("xchg", word, i64(1), "monotonic")
