"""What all parts of the code generator share: the module, its functions, memory and addresses.

A writer holds the function being written (its builder, flow and vector arithmetic). The parts
that build on it, in this order: packing, states, and the code generator itself.
"""

from __future__ import annotations

from llvmlite import ir

from ..errors import InternalError, MemoryLimitError
from ..lower.kernel import COLUMN, ONCE, ROW, Argument, Kernel
from ..lower.schedule import ITEM, Plan, cells, code_size, frontier
from .emitter import Emitter, Key, Leaf
from .flow import I64, Flow, i64
from .shorts import ScreenPlaces
from .simd import Simd
from .storage import Storage
from .tables import TableMemory, TablePlaces
from .words import FIRST_RESULT, OFFSETS, PANEL, REFUSED, WORDS_PER_ARRAY

_MOST_MEMORY = 2**30
_LONG_CODE = 500
_LONG_LIST = 16


class Layout:
    """Where the parts of a task's scratch memory lie, in bytes."""

    def __init__(self, kernel: Kernel, plan: Plan) -> None:
        self.item = ITEM[plan.dtype]
        self.outer_item = ITEM[plan.accumulation.outer]
        self.components = 2 if plan.accumulation.compensated else 1
        lanes = plan.lane_count
        words = len(kernel.reduction.identity) * self.components
        self._lay_out_lists(kernel.length)
        # Values and indices, what was put aside of both, how much, and room for one vector.
        rows = 2 * (self.list_places + self.list_aside) + 2
        listed = -(-rows * self.item // self.outer_item)
        self.place_words = listed if kernel.reduction.listed else words
        self.state_words = kernel.places * self.place_words
        self.unit_state = (self.state_words + kernel.anchors) * lanes * self.outer_item
        groups = plan.tiles if plan.lanes == "row" else 1
        self.screen = ScreenPlaces(plan, kernel.stages[ROW].size * plan.row_group * self.item)
        self.row_group = self.screen.row_bytes
        self.shared_vector = plan.block * (lanes if plan.lanes == "row" else 1) * self.item
        self.across = kernel.across * plan.block * plan.width * ITEM[plan.accumulation.inner]
        self.tables = TablePlaces(kernel, plan)
        sizes = {
            "panel": 8 * PANEL,
            "once": kernel.stages[ONCE].size * self.item,
            "rows": groups * self.row_group,
            "columns": kernel.stages[COLUMN].size * plan.block * self.item,
            "shared": sum(map(cells, frontier(kernel))) * self.shared_vector,
            "tables": self.tables.total,
            "scores": len(kernel.scores) * self.shared_vector,
            "tops": kernel.anchors * lanes * self.item,
            "rescale": kernel.anchors * lanes * self.outer_item,
            "rescale other": kernel.anchors * lanes * self.outer_item,
            "across": self.across,
            "state": 0 if kernel.pieces else plan.tiles * self.unit_state,
            **self.screen.sizes,
        }
        for number, (result, size) in enumerate(
            zip(kernel.reduction.results, kernel.results, strict=True)
        ):
            item = self.item if result.kind == "value" else 8
            sizes[f"result {number}"] = size * lanes * item
        self.offset: dict[str, int] = {}
        self.total = 0
        for name, size in sizes.items():
            self.offset[name] = self.total
            self.total += -(-size // 64) * 64
        self.state_bytes = sizes["state"]
        if self.total > _MOST_MEMORY:
            raise MemoryLimitError(
                "this formula is too large to be computed",
                where=str(kernel.formula),
                found=f"{self.total / 2**30:.1f} GiB of working memory for each thread",
                hint=f"smaller dimensions: each thread may use {_MOST_MEMORY >> 30} GiB",
            )

    def _lay_out_lists(self, length: int) -> None:
        """Places of a list, how many are gone through at a time, and how many pairs wait for it."""
        self.list_long = length > _LONG_LIST
        self.list_step = 4 if self.list_long else max(1, length - 1)
        self.list_places = 1 + -(-(length - 1) // self.list_step) * self.list_step
        self.list_aside = 32


class Writer:
    """The module of one kernel under one plan, and the function being written into it.

    `places` are the parts of scratch memory and `row_buffer` the packed rows, as addresses in
    the function being written; `column_buffers` the packed columns, as each vector of rows sees
    them. `vectors` are handled at once there; `picked`, if it is not None, is the address of the
    numbers of the columns that are folded, else all are.
    """

    builder: ir.IRBuilder
    flow: Flow
    simd: Simd
    outer: Simd
    inner: Simd
    places: dict[str, ir.Value]
    row_buffer: ir.Value
    column_buffers: list[ir.Value]

    def __init__(self, kernel: Kernel, plan: Plan) -> None:
        self.kernel, self.plan = kernel, plan
        self.layout = Layout(kernel, plan)
        self.module = ir.Module("pairfold")
        self.order = {a.position: place for place, a in enumerate(kernel.arguments)}
        self.shared = frontier(kernel)
        self.item = ITEM[plan.dtype]
        self.storage = Storage(plan.stored or plan.dtype)
        self.row_major = plan.lanes == "row"
        self.vectors = plan.vectors
        self.picked: ir.Value | None = None

    def _function(
        self, name: str, *kinds: ir.Type, returns: ir.Type | None = None
    ) -> list[ir.Value]:
        """Begin a function: its arguments; the builder stands at its entry."""
        kind = ir.FunctionType(returns or ir.VoidType(), kinds)
        function = ir.Function(self.module, kind, name)
        if name not in ("run", "combine"):
            function.linkage = "internal"
        if name in ("run", "combine", "task", "combine_task"):
            # Entered once per task: quick to compile matters more than quick to run.
            function.attributes.add("noinline")
            function.attributes.add("optnone")
        function.attributes.add("nounwind")
        builder = ir.IRBuilder(function.append_basic_block("entry"))
        self.builder, self.flow = builder, Flow(builder)
        self.simd = Simd(builder, self.plan.dtype, self.plan.width, self.plan.machine.has)
        self.outer = self.simd.resized(self.plan.accumulation.outer)
        self.inner = self.simd.resized(self.plan.accumulation.inner)
        return list(function.args)

    def _enter(self, scratch: ir.Value) -> None:
        """Take the parts of this scratch memory as the places of the function being written."""
        self.places = {
            name: self.flow.at(scratch, i64(offset)) for name, offset in self.layout.offset.items()
        }

    def _equipped(self, emitter: Emitter, scratch: ir.Value) -> Emitter:
        """An emitter with what long code and vectors kept in memory need."""
        region = self.flow.at(scratch, i64(self.layout.offset["tables"]))
        emitter.tables = TableMemory(self.layout.tables, self.flow, region, emitter.at)
        emitter.calls = code_size(self.kernel, emitter.at) > _LONG_CODE
        return emitter

    def refuse(self, args: ir.Value, mask: ir.Value) -> None:
        """Tell the caller, if the mask holds in any lane, to fold again without rearranging."""
        with self.flow.when(self.simd.any(mask)):
            word = self.flow.at(args, i64(8 * REFUSED))
            self.builder.atomic_rmw("xchg", word, i64(1), "monotonic")

    def _round_up(self, count: ir.Value, unit: int) -> ir.Value:
        b = self.builder
        return b.and_(b.add(count, i64(unit - 1)), i64(-unit))

    def _argument(
        self, argument: Argument, args: ir.Value, batch: ir.Value
    ) -> tuple[ir.Value, ir.Value, ir.Value]:
        """Address of an argument's batch element, its row stride and its component stride."""
        return self._array(len(self.kernel.results) + self.order[argument.position], args, batch)

    def _array(
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

    def _vector(self, key: Key) -> int:
        return key[1] * self.plan.width * self.item

    def _column(self, at: ir.Value, u: int) -> ir.Value:
        """The number in the block of column u of a jam, where lanes are rows."""
        column = self.builder.add(at, i64(u))
        if self.picked is None:
            return column
        return self.flow.load(I64, self.flow.at(self.picked, self.flow.times(column, 8)), 8)

    def _pair_leaf(self, at: ir.Value) -> Leaf:
        """Reads slots for column (or vector of columns) number `at` of the block."""
        flow, b, item, plan = self.flow, self.builder, self.item, self.plan

        def leaf(where: int, offset: int, index: ir.Value, key: Key) -> ir.Value:
            slot = b.add(i64(offset), index)
            if where == ONCE:
                address = flow.at(self.places["once"], flow.times(slot, item))
                return self.simd.splat(flow.load(self.simd.scalar, address, item))
            if where == ROW:
                place = flow.times(slot, plan.row_group * item)
                if not self.row_major:
                    address = flow.at(self.row_buffer, place)
                    return self.simd.splat(flow.load(self.simd.scalar, address, item))
                address = flow.at(self.row_buffer, b.add(place, i64(self._vector(key))))
                return flow.load(self.simd.type, address, 4)
            place = flow.times(slot, plan.block * item)
            if self.row_major:
                column = self._column(at, key[0])
                base = self.column_buffers[key[1]]
                address = flow.at(base, b.add(place, flow.times(column, item)))
                return self.simd.splat(flow.load(self.simd.scalar, address, item))
            shift = b.add(flow.times(at, item), i64(self._vector(key)))
            return flow.load(
                self.simd.type, flow.at(self.places["columns"], b.add(place, shift)), 4
            )

        return leaf

    def _units(self, count: ir.Value) -> ir.Value:
        if not self.row_major:
            return count
        lanes = self.plan.lane_count
        return self.builder.sdiv(self.builder.add(count, i64(lanes - 1)), i64(lanes))

    def _unit_rows(self, rows: ir.Value, unit: ir.Value) -> ir.Value:
        size = self.layout.row_group if self.row_major else self.item
        return self.flow.at(rows, self.flow.times(unit, size))

    def _unit_state(self, state: ir.Value, unit: ir.Value) -> ir.Value:
        return self.flow.at(state, self.flow.times(unit, self.layout.unit_state))

    @staticmethod
    def _no_leaf(where: int, offset: int, index: ir.Value, key: Key) -> ir.Value:
        raise InternalError("a reduction's rule reads an argument")
