"""What every part of the code generator is given: the module, and the function being written.

A `Context` belongs to a module and does not change while it is written, but that it gathers the
shared functions which are to be linked to it. A `Code` is made for each of its functions: the
arguments, the builder, loops and vector arithmetic on it, and the addresses that all parts compute
alike. Parts of the code generator are made from one of the two.
"""

from __future__ import annotations

from collections.abc import Mapping

from ...core.dtypes import DTYPES
from ...errors import InternalError
from ...lower.kernel import PAIR, Argument, Kernel
from ...lower.schedule import Plan, code_size
from . import ir
from .abi import FIRST_RESULT, OFFSETS, WORDS_PER_ARRAY
from .emitter import Emitter, Key, operands
from .flow import I64, i64
from .runtime import CALLED, Body, Format, RuntimeFunction, bail_out, begun, quickly_compiled
from .scratch import Layout
from .simd import Simd
from .tables import TableMemory

_LONG_CODE = 500

# Addresses of the parts of scratch memory, by their names in the layout.
Places = Mapping[str, ir.Value]


class Context:
    """The module of one kernel under one plan."""

    def __init__(self, kernel: Kernel, plan: Plan) -> None:
        self.kernel, self.plan = kernel, plan
        self.layout = Layout(kernel, plan)
        self.module = ir.Module("pairfold")
        self.runtime: dict[RuntimeFunction, None] = {}
        self.bails_out = False
        self.order = {a.position: place for place, a in enumerate(kernel.arguments)}
        self.item = DTYPES[plan.dtype].bytes
        self.format = Format(plan.machine, plan.dtype, plan.stored or plan.dtype, plan.width)
        self.storage = self.format.storage
        self.row_major = plan.lanes == "row"
        self.spread = operands(kernel, plan)

    def function(self, name: str, *kinds: ir.Type, returns: ir.Type | None = None) -> Code:
        """Begin a function of the module alone; its builder stands at the entry."""
        found = Code(self, begun(self.module, name, *kinds, returns=returns))
        found.function.linkage = "internal"
        return found

    def entry(self, name: str) -> Code:
        """Begin a function that a driver calls by its name."""
        return Code(self, begun(self.module, name, *CALLED[name]))

    def slow_entry(self, name: str) -> Code:
        """The same, where it is entered once per task: quick to compile matters most."""
        code = self.entry(name)
        quickly_compiled(code.function)
        return code

    def link(self, own: RuntimeFunction) -> RuntimeFunction:
        """Have a shared function, and what it calls, linked to the module."""
        for each in (own, *own.parts):
            self.runtime[each] = None
        return own

    def shared(self, own: RuntimeFunction) -> ir.Function:
        """A shared function, for functions of the module to call."""
        self.link(own)
        return own.declared(self.module)


class Code(Body):
    """A function of a kernel being written."""

    def __init__(self, context: Context, function: ir.Function) -> None:
        super().__init__(function)
        self.context = context
        self.kernel, self.plan, self.layout = context.kernel, context.plan, context.layout
        self.item, self.row_major = context.item, context.row_major
        self.simd = Simd(self.builder, self.plan.dtype, self.plan.width, self.plan.machine.has)
        self.outer = self.simd.resized(self.plan.accumulation.outer)
        self.inner = self.simd.resized(self.plan.accumulation.inner)

    # -- scratch memory -------------------------------------------------------------------------

    def places(self, scratch: ir.Value) -> Places:
        """The parts of this scratch memory."""
        return {
            name: self.flow.at(scratch, i64(offset)) for name, offset in self.layout.offset.items()
        }

    def part(self, scratch: ir.Value, name: str) -> ir.Value:
        """One part of this scratch memory."""
        return self.flow.at(scratch, i64(self.layout.offset[name]))

    def tiles(self, count: ir.Value) -> ir.Value:
        """How many tiles that many rows are: as many as there are lanes each, or one."""
        if not self.row_major:
            return count
        lanes = self.plan.lane_count
        return self.builder.sdiv(self.builder.add(count, i64(lanes - 1)), i64(lanes))

    def tile_rows(self, rows: ir.Value, tile: ir.Value) -> ir.Value:
        """The packed rows of a tile."""
        size = self.layout.row_group if self.row_major else self.item
        return self.flow.at(rows, self.flow.times(tile, size))

    def tile_state(self, state: ir.Value, tile: ir.Value) -> ir.Value:
        """The states of a tile."""
        return self.flow.at(state, self.flow.times(tile, self.layout.tile_state))

    # -- arrays ---------------------------------------------------------------------------------

    def argument(
        self, argument: Argument, args: ir.Value, batch: ir.Value
    ) -> tuple[ir.Value, ir.Value, ir.Value]:
        """Address of an argument's batch element, its row stride and its component stride."""
        place = len(self.kernel.results) + self.context.order[argument.position]
        return self.array(place, args, batch)

    def array(
        self, place: int, args: ir.Value, batch: ir.Value
    ) -> tuple[ir.Value, ir.Value, ir.Value]:
        """Address and strides of array number `place`: results first, then arguments."""
        flow, b = self.flow, self.builder
        word = FIRST_RESULT + WORDS_PER_ARRAY * place
        width = len(self.kernel.results) + len(self.kernel.arguments)
        cell = b.add(flow.times(batch, width), i64(place))
        offset = flow.load(I64, flow.at(flow.pointer(args, OFFSETS), flow.times(cell, 8)), 8)
        base = flow.at(flow.pointer(args, word), offset)
        return base, flow.word(args, word + 1), flow.word(args, word + 2)

    def bail_out(self, args: ir.Value, mask: ir.Value) -> None:
        """Tell the caller, if the mask holds in any lane, to fold again without rearranging."""
        self.context.bails_out = True
        bail_out(self, args, self.simd.any(mask))

    # -- values ---------------------------------------------------------------------------------

    def emitter(self, at: int, scratch: ir.Value, simd: Simd | None = None) -> Emitter:
        """What emits the values of a stage, with all that long code and tables need."""
        emitter = self.rules(at, simd or self.simd)
        emitter.spread = self.context.spread if at == PAIR else frozenset()
        emitter.tables = TableMemory(
            self.layout.tables, self.flow, self.part(scratch, "tables"), at
        )
        emitter.calls = code_size(self.kernel, at) > _LONG_CODE
        return emitter

    def rules(self, at: int, simd: Simd) -> Emitter:
        """What emits the rules of a reduction, which are short and have no tables."""
        return Emitter(self.kernel, self.plan, simd, self.flow, at)

    def vector(self, key: Key) -> int:
        """Bytes from a packed slot to an instance's vector of lanes."""
        return key[1] * self.plan.width * self.item

    def round_up(self, count: ir.Value, unit: int) -> ir.Value:
        """The next multiple of a power of two."""
        b = self.builder
        return b.and_(b.add(count, i64(unit - 1)), i64(-unit))

    def to_outer(self, value: ir.Value) -> ir.Value:
        """A vector in the dtype of states."""
        if value.type == self.outer.type:
            return value
        return self.builder.fpext(value, self.outer.type)

    def to_inner(self, value: ir.Value) -> ir.Value:
        """A vector in the dtype of accumulators."""
        if self.inner.type == value.type:
            return value
        return self.builder.fpext(value, self.inner.type)

    def rotated(self, value: ir.Value, shift: int) -> ir.Value:
        """Lane n takes the value of lane n + shift."""
        word, width = ir.IntType(32), self.plan.width
        places = [(lane + shift) % width for lane in range(width)]
        mask = ir.Constant(ir.VectorType(word, width), places)
        return self.builder.shuffle_vector(value, ir.Undefined(value.type), mask)

    def lane_numbers(self) -> ir.Value:
        """0, 1, 2 ... lane by lane."""
        word, width = ir.IntType(32), self.plan.width
        return ir.Constant(ir.VectorType(word, width), range(width))


def no_leaf(where: int, offset: int, index: ir.Value, key: Key) -> ir.Value:
    """What rules of reductions read, that have nothing to read."""
    raise InternalError("a reduction's rule reads an argument")
