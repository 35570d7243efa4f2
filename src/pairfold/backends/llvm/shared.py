"""What all components of long outputs share: computed once per pair, kept for a block."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from ...core.scalars import Value
from ...lower.schedule import cells, frontier
from . import ir
from .block import Block
from .context import Places
from .emitter import Key, Known
from .flow import Carried

# Enters in `known` what was kept of some instances, at a column (or vector of columns).
Recall = Callable[[Known, Sequence[Key], ir.Value], None]


class Shared:
    """The shared values of the pairs of a block, in a buffer that stays in the cache."""

    def __init__(self, block: Block, places: Places) -> None:
        self.block, self.code = block, block.code
        self.buffer = places["shared"]
        self.values = frontier(block.code.kernel)

    def _places(self, at: ir.Value) -> Iterator[tuple[Value, Callable[[Key], ir.Value]]]:
        """The shared values of one column (or vector of columns), and where each is kept.

        A table is computed where it is kept, its components a whole block apart.
        """
        tables, vector = self.block.emitter.tables, self.code.layout.shared_vector
        assert tables is not None
        start = 0
        for value in self.values:
            place = partial(self.block.cell, self.buffer, start, at)
            if value.what == "table":
                tables.homes[value.loop] = place, vector
            yield value, place
            start += cells(value) * vector

    def recall(self, local: Known, instances: Sequence[Key], at: ir.Value) -> None:
        """Shared values as they were kept; of a table, its address."""
        for value, place in self._places(at):
            for instance in instances:
                key = self.block.key(value, instance)
                local[value, key] = place(key)
                if value.kind == "real":
                    local[value, key] = self.code.flow.load(self.code.simd.type, place(key), 4)

    def fill(self, known: Known, recall: Recall | None = None) -> None:
        """Compute them for all pairs of the block.

        `known` is what does not vary with columns; `recall` adds what was kept of each before.
        """
        if not self.values:
            return
        block = self.block
        block.invariant(self.values, block.instances(self.code.plan.jam), known)

        def body(columns: Carried, jam: int) -> None:
            instances = block.instances(jam)
            local = dict(known)
            if recall is not None:
                recall(local, instances, columns.index)
            places = dict(self._places(columns.index))
            block.emit(self.values, instances, local, columns.index)
            for value, place in places.items():
                keys = {block.key(value, instance) for instance in instances}
                for key in sorted(keys if value.kind == "real" else ()):
                    self.code.flow.store(local[value, key], place(key), 4)

        block.columns([], body)
