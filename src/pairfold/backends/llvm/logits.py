"""The exponents of a block, whose maxima terms are measured from: computed first, and kept."""

from __future__ import annotations

from collections.abc import Sequence

from ...core.scalars import Loop, reachable
from . import ir
from .block import Block
from .context import Places
from .emitter import Key, Known
from .flow import Carried, i64
from .masks import Mask
from .shared import Shared
from .shifted import Maxima


class Logits:
    """The exponents of the pairs of a block, one per component or one for all."""

    def __init__(self, block: Block, places: Places, mask: Mask) -> None:
        self.block, self.code, self.kernel = block, block.code, block.code.kernel
        self.mask = mask
        self.buffer = places["logits"]
        self.values = self.kernel.logits
        self.maxima = Maxima(block.code, places)

    def _place(self, number: int, at: ir.Value, instance: Key) -> ir.Value:
        """Where exponent `number` of one column (or vector of columns) is kept."""
        plan, lanes = self.code.plan, self.code.plan.lane_count if self.code.row_major else 1
        start = number * plan.block * lanes * self.code.item
        return self.block.cell(self.buffer, start, at, instance)

    def fill(
        self,
        maxima: Sequence[ir.Value],
        given: Known,
        shared: Shared | None = None,
        loops: frozenset[Loop] = frozenset(),
    ) -> None:
        """Compute the exponents; `maxima` (their numbers) grow to the largest of them.

        `given` is what is known beforehand, inside component loops `loops`; shared values are
        read where there are any.
        """
        block, simd, logits = self.block, self.code.simd, self.values
        vectors, known = block.vectors, dict(given)
        if not loops:
            block.invariant(logits, block.instances(self.code.plan.jam), known)
        lowest = simd.constant(self.maxima.lowest)

        def body(columns: Carried, jam: int) -> None:
            instances = block.instances(jam)
            local = dict(known)
            if shared is not None:
                shared.recall(local, instances, columns.index)
            block.emit(logits, instances, local, columns.index, loops)
            self.mask.recall(local, instances, columns.index)
            columns.next = list(columns.values)
            for n, logit in enumerate(logits):
                for instance in instances:
                    value = local[logit, block.key(logit, instance)]
                    self.code.flow.store(value, self._place(n, columns.index, instance), 4)
                    place = n * vectors + instance[1]
                    before = columns.next[place]
                    larger = simd.select(simd.compare("<", before, value), value, before)
                    columns.next[place] = block.only_counted(
                        larger, before, columns.index, instance, local
                    )

        largest = block.columns([lowest] * (len(logits) * vectors), body)
        for n, which in enumerate(maxima):
            self.maxima.grow(block.state, which, largest[n * vectors : (n + 1) * vectors])

    def begin(self, known: Known) -> None:
        """Compute all exponents, and enter the maxima that terms are measured from."""
        self.fill([i64(place) for place in range(len(self.values))], {})
        self.enter_maxima(known, [i64(place) for place in range(self.kernel.maxima)])

    def enter_maxima(self, known: Known, maxima: Sequence[ir.Value]) -> None:
        """The maxima of the block, for the terms that are measured from them."""
        placeholders = [v for v in reachable(self.kernel.outputs) if v.what == "placeholder"]
        for placeholder in placeholders:
            for instance in self.block.instances(self.code.plan.jam):
                number = maxima[placeholder.supplied.place]
                known[placeholder, instance] = self.maxima.load_narrow(number, instance[1])

    def recall(self, local: Known, instances: Sequence[Key], at: ir.Value) -> None:
        """The exponents as they were kept."""
        for n, logit in enumerate(self.values):
            for instance in instances:
                where = self._place(n, at, instance)
                value = self.code.flow.load(self.code.simd.type, where, 4)
                local[logit, self.block.key(logit, instance)] = value
