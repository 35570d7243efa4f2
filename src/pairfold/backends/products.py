"""Long outputs: what all components share is computed once per pair, then multiplied out.

Shared pair values go to a buffer that stays in the first-level cache; the components follow, a few
at a time, as a product of that buffer with what columns hold.
"""

from __future__ import annotations

from collections.abc import Sequence

from llvmlite import ir

from ..core.scalars import Loop, Value
from ..lower.kernel import COLUMN, PAIR
from .emitter import Key, Known
from .flow import Carried, i64
from .folds import Folds


class Products(Folds):
    """Writes the loops over a block whose outputs have many components."""

    def _fold_long(self) -> None:
        """Shared pair values to a buffer, then the components, a few at a time, as a product."""
        kernel, loop = self.kernel, self.kernel.output_loop
        assert loop is not None
        weighted = kernel.weight is not None
        if kernel.anchors and weighted:
            self._fold_scores([i64(0)], {})
        self._fill_shared(weighted)
        jam = min(self.plan.output_jam, loop.n)
        if kernel.reduction.listed or (kernel.anchors and not weighted):
            jam = 1
        whole = loop.n // jam * jam
        with self.flow.loop(i64(0), i64(whole), jam, name="outputs") as outputs:
            self._fold_components(outputs.index, jam)
        if whole < loop.n:
            self._fold_components(i64(whole), loop.n - whole)
        if kernel.total is not None:
            self._fold_total()

    def _fill_shared(self, weighted: bool) -> None:
        if not self.shared:
            return
        known: Known = {}
        if weighted:
            self._holes(known, [i64(0)])
        self._invariant(self.shared, self._instances(self.plan.jam), known)

        def body(columns: Carried, jam: int) -> None:
            instances = self._instances(jam)
            local = dict(known)
            if weighted:
                self._recall_scores(local, instances, columns.index)
            places = dict(self._shared_places(columns.index))
            self.emitter.emit(self.shared, instances, local, self._pair_leaf(columns.index))
            for value, place in places.items():
                keys = {self.emitter.key(value, instance) for instance in instances}
                for key in sorted(keys if value.kind == "real" else ()):
                    self.flow.store(local[value, key], place(key), 4)

        self._columns([], body)

    def _fold_components(self, first: ir.Value, jam: int) -> None:
        """Components first ... first+jam-1 of every pair of the block, then flush them."""
        kernel, loop = self.kernel, self.kernel.output_loop
        assert loop is not None
        output, instances = kernel.outputs[0], self._instances()
        inside = frozenset((loop,))
        places = [self.builder.add(first, i64(extra)) for extra in range(jam)]
        starts: list[Known] = []
        for place in places:
            known: Known = {(loop.index, (0, 0)): place}
            self._invariant_component([output, *kernel.scores], loop, instances, known)
            starts.append(known)
        own_anchor = kernel.anchors > 0 and kernel.weight is None
        if own_anchor:
            self._fold_scores(places, starts[0], inside)
            self._holes(starts[0], places)
        per_output = self._carried()
        step = 1 if self.row_major else self.plan.lane_count
        stop = self.count if self.row_major else self.code.round_up(self.count, step)
        starting = self._starting(places)
        with self.flow.loop(i64(0), stop, step, starting, name="product") as columns:
            shared: Known = {}
            self._recall_shared(shared, instances, columns.index)
            if own_anchor:
                self._recall_scores(shared, instances, columns.index)
            columns.next = []
            for extra in range(jam):
                local = {**shared, **starts[extra]}
                leaf = self._pair_leaf(columns.index)
                self.emitter.emit([output], instances, local, leaf, inside)
                states = columns.values[extra * per_output : (extra + 1) * per_output]
                columns.next += self._step(
                    0, places[extra], states, instances, local, columns.index
                )
        self._flush_all(places, columns.results)

    def _fold_total(self) -> None:
        """The terms without weights, read from the buffer of shared values."""
        total, instances = self.kernel.total, self._instances()
        assert total is not None
        step = 1 if self.row_major else self.plan.lane_count
        stop = self.count if self.row_major else self.code.round_up(self.count, step)
        with self.flow.loop(i64(0), stop, step, self._initial(), name="total") as columns:
            local: Known = {}
            self._recall_shared(local, instances, columns.index)
            columns.next = self._step(
                len(self.kernel.outputs), i64(0), columns.values, instances, local, columns.index
            )
        self._flush_all([i64(self.kernel.dim)], columns.results)

    def _invariant_component(
        self, targets: Sequence[Value], loop: Loop, instances: Sequence[Key], known: Known
    ) -> None:
        """What depends on the component and the row, but not on the column."""
        leaf = self._pair_leaf(i64(0))
        kernel = self.kernel
        for value in kernel.needed(targets, PAIR):
            if value.kind == "index" or value.stage & COLUMN or not value.loops <= {loop}:
                continue
            if kernel.is_leaf(value, PAIR):
                self.emitter.emit([value], instances, known, leaf, frozenset((loop,)))
