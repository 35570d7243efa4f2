"""The function being written, for parts of the code generator that are not yet given it."""

from __future__ import annotations

from llvmlite import ir

from ..lower.kernel import ONCE, ROW, Kernel
from ..lower.schedule import Plan, frontier
from .context import Code, Context, Places
from .emitter import Key, Leaf
from .flow import I64, Flow, i64
from .packing import Packing
from .simd import Simd


class Writer:
    """Holds the function being written.

    `places` are the parts of scratch memory and `row_buffer` the packed rows, as addresses in
    the function being written; `column_buffers` the packed columns, as each vector of rows sees
    them. `vectors` are handled at once there; `picked`, if it is not None, is the address of the
    numbers of the columns that are folded, else all are.
    """

    code: Code
    packing: Packing
    places: Places
    row_buffer: ir.Value
    column_buffers: list[ir.Value]

    def __init__(self, kernel: Kernel, plan: Plan) -> None:
        self.context = Context(kernel, plan)
        self.kernel, self.plan = kernel, plan
        self.layout, self.module = self.context.layout, self.context.module
        self.shared = frontier(kernel)
        self.item, self.storage = self.context.item, self.context.storage
        self.row_major = plan.lanes == "row"
        self.vectors = plan.vectors
        self.picked: ir.Value | None = None

    @property
    def builder(self) -> ir.IRBuilder:
        """That of the function being written."""
        return self.code.builder

    @property
    def flow(self) -> Flow:
        """That of the function being written."""
        return self.code.flow

    @property
    def simd(self) -> Simd:
        """That of the function being written."""
        return self.code.simd

    @property
    def outer(self) -> Simd:
        """That of the function being written."""
        return self.code.outer

    @property
    def inner(self) -> Simd:
        """That of the function being written."""
        return self.code.inner

    def _function(
        self, name: str, *kinds: ir.Type, returns: ir.Type | None = None
    ) -> list[ir.Value]:
        self.code = self.context.function(name, *kinds, returns=returns)
        return self.code.given

    def _enter(self, scratch: ir.Value) -> None:
        self.places = self.code.places(scratch)

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
                address = flow.at(self.row_buffer, b.add(place, i64(self.code.vector(key))))
                return flow.load(self.simd.type, address, 4)
            place = flow.times(slot, plan.block * item)
            if self.row_major:
                column = self._column(at, key[0])
                base = self.column_buffers[key[1]]
                address = flow.at(base, b.add(place, flow.times(column, item)))
                return self.simd.splat(flow.load(self.simd.scalar, address, item))
            shift = b.add(flow.times(at, item), i64(self.code.vector(key)))
            return flow.load(
                self.simd.type, flow.at(self.places["columns"], b.add(place, shift)), 4
            )

        return leaf
