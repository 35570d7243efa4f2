"""Memory of tables: vectors that are computed once and then read at any component.

A table lies in its task's scratch memory as [component][vector of lanes], one vector for each of
the instances in lock-step that it differs for. Tables live no longer than the function that
computes them, so the tables of all stages share one region.
"""

from __future__ import annotations

from collections.abc import Callable

from ...core.dtypes import DTYPES
from ...core.scalars import Loop, Value
from ...errors import InternalError
from ...lower.kernel import COLUMN, ONCE, PAIR, ROW, Kernel
from ...lower.schedule import Plan, frontier, tables
from . import ir
from .flow import Flow, i64

Key = tuple[int, int]
Home = Callable[[Key], ir.Value]


class TablePlaces:
    """Where each table lies in the region, in bytes, and how far its components are apart."""

    def __init__(self, kernel: Kernel, plan: Plan) -> None:
        self.vector = plan.width * DTYPES[plan.dtype].bytes
        self.start: dict[tuple[int, Loop], int] = {}
        self.vectors: dict[tuple[int, Loop], tuple[int, int]] = {}
        self.total = 0
        shared = set(frontier(kernel))
        for at in (ONCE, ROW, COLUMN, PAIR):
            size = 0
            for table in tables(kernel, at):
                if table in shared and not kernel.logits:
                    continue
                place = at, table.loop
                columns, lanes = self._instances(table, plan) if at == PAIR else (1, 1)
                self.start[place], self.vectors[place] = size, (columns, lanes)
                size += table.loop.n * columns * lanes * self.vector
            self.total = max(self.total, size)

    @staticmethod
    def _instances(table: Value, plan: Plan) -> tuple[int, int]:
        """Columns of a jam and vectors of lanes that a table of pairs differs for."""
        if plan.lanes == "row":
            jam, vectors = plan.jam, plan.vectors
            return jam if table.stage & COLUMN else 1, vectors if table.stage & ROW else 1
        return 1, plan.vectors if table.stage & COLUMN else 1

    def stride(self, at: int, loop: Loop) -> int:
        """Bytes from one component to the next."""
        columns, lanes = self.vectors[at, loop]
        return columns * lanes * self.vector

    def offset(self, at: int, loop: Loop, key: Key) -> int:
        """Where component 0 of one instance lies."""
        return self.start[at, loop] + (key[0] * self.vectors[at, loop][1] + key[1]) * self.vector


class TableMemory:
    """The tables that one function computes: their addresses.

    A table that outlives the loop it is computed in has a `home` elsewhere.
    """

    def __init__(self, places: TablePlaces, flow: Flow, region: ir.Value, at: int) -> None:
        self.places, self.flow, self.region, self.at = places, flow, region, at
        self.homes: dict[Loop, tuple[Home, int]] = {}

    def address(self, loop: Loop, key: Key) -> ir.Value:
        """The address of component 0 of a table, for one instance."""
        if loop in self.homes:
            return self.homes[loop][0](key)
        if (self.at, loop) not in self.places.start:
            raise InternalError("a table has no place in memory")
        return self.flow.at(self.region, i64(self.places.offset(self.at, loop, key)))

    def component(self, start: ir.Value, loop: Loop, k: ir.Value) -> ir.Value:
        """The address of component k, given that of component 0."""
        if loop in self.homes:
            stride = self.homes[loop][1]
        else:
            stride = self.places.stride(self.at, loop)
        return self.flow.at(start, self.flow.times(k, stride))
