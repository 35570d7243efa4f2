"""Loops over a packed block of columns: accumulators in registers, states merged after it.

A loop evaluates the formula for a few columns and vectors of rows in lock-step. With few
components all are carried at once; long outputs are computed a few components at a time, from what
all of them share.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Protocol

from ...core.scalars import Loop, Value
from ...lower.kernel import COLUMN, PAIR
from . import ir
from .block import Block
from .context import Places
from .emitter import Key, Known
from .flow import Carried, i64
from .logits import Logits
from .masks import Mask
from .shared import Shared
from .states import Form


def alike(values: Sequence[ir.Value], lists: Sequence[Sequence[ir.Value]]) -> list[list[ir.Value]]:
    """Values that are those of such lists, joined, apart again."""
    left = iter(values)
    return [list(itertools.islice(left, len(each))) for each in lists]


class BlockLoop(Protocol):
    """A loop over the pairs of a block and the rows of one tile, in the function being written."""

    def fold(self) -> None:
        """Write the loop, and what merges its accumulators into the states."""
        ...


def block_loop(block: Block, form: Form, places: Places) -> BlockLoop:
    """The loop that suits the outputs of a kernel."""
    short = block.code.kernel.output_loop is None
    mask = Mask(block, places)
    kind = ShortOutputs if short else LongOutputs
    return kind(mask.fill(), form, places, mask)


class ShortOutputs:
    """All components at once, their accumulators in registers."""

    def __init__(self, block: Block, form: Form, places: Places, mask: Mask) -> None:
        self.block, self.form, self.code, self.mask = block, form, block.code, mask
        self.logits = Logits(block, places, mask) if block.code.kernel.maxima else None

    def fold(self) -> None:
        """Write the loop."""
        kernel, block, form, logits = self.code.kernel, self.block, self.form, self.logits
        known: Known = {}
        if logits is not None:
            logits.begin(known)
        block.invariant(kernel.outputs, block.instances(self.code.plan.jam), known)
        outputs = [(number, i64(number)) for number in range(len(kernel.outputs))]
        begin = form.begin(block, outputs)

        def body(columns: Carried, jam: int) -> None:
            instances = block.instances(jam)
            local = dict(known)
            if logits is not None:
                logits.recall(local, instances, columns.index)
            block.emit(kernel.outputs, instances, local, columns.index)
            self.mask.recall(local, instances, columns.index)
            columns.next = []
            for output, carried in zip(outputs, alike(columns.values, begin), strict=True):
                columns.next += form.step(block, output, carried, instances, local, columns.index)

        form.end(block, outputs, alike(block.columns(sum(begin, list[ir.Value]()), body), begin))


class LongOutputs:
    """Shared pair values to a buffer, then the components, a few at a time, as a product."""

    def __init__(self, block: Block, form: Form, places: Places, mask: Mask) -> None:
        self.block, self.form, self.code, self.kernel = block, form, block.code, block.code.kernel
        loop = self.kernel.output_loop
        assert loop is not None
        self.loop: Loop = loop
        self.shared, self.mask = Shared(block, places), mask
        # Exponents of all components, or one for each of them.
        logits = Logits(block, places, self.mask) if self.kernel.maxima else None
        weighted = self.kernel.only.folded.weight is not None
        self.common = logits if weighted else None
        self.own = None if weighted else logits

    def fold(self) -> None:
        """Write the loops."""
        known: Known = {}
        if self.common is not None:
            self.common.fill([i64(0)], {})
            if self.shared.values:
                self.common.enter_maxima(known, [i64(0)])
        self.shared.fill(known, None if self.common is None else self.common.recall)
        jam, n = min(self.code.plan.output_jam, self.loop.n), self.loop.n
        if self.kernel.lists or self.own is not None:
            jam = 1
        whole = n // jam * jam
        with self.code.flow.loop(i64(0), i64(whole), jam, name="outputs") as outputs:
            self._components(outputs.index, jam)
        if whole < n:
            self._components(i64(whole), n - whole)
        if self.kernel.only.total is not None:
            self._total()

    def _components(self, first: ir.Value, jam: int) -> None:
        """Components first ... first+jam-1 of every pair of the block."""
        block, form, loop, own = self.block, self.form, self.loop, self.own
        output, instances = self.kernel.outputs[0], block.instances()
        inside = frozenset((loop,))
        components = [self.code.builder.add(first, i64(extra)) for extra in range(jam)]
        starts: list[Known] = []
        for component in components:
            known: Known = {(loop.index, (0, 0)): component}
            self._invariant([output, *self.kernel.logits], instances, known)
            starts.append(known)
        if own is not None:
            own.fill(components, starts[0], self.shared, inside)
            own.enter_maxima(starts[0], components)
        outputs = [(0, component) for component in components]
        stop, begin = block.stop(), form.begin(block, outputs)
        carried = sum(begin, list[ir.Value]())
        with self.code.flow.loop(
            block.first, stop, block.step(), carried, name="product"
        ) as columns:
            shared: Known = {}
            self.shared.recall(shared, instances, columns.index)
            if own is not None:
                own.recall(shared, instances, columns.index)
            columns.next = []
            self.mask.recall(shared, instances, columns.index)
            each = zip(outputs, starts, alike(columns.values, begin), strict=True)
            for component, start, own in each:
                local = {**shared, **start}
                block.emit([output], instances, local, columns.index, inside)
                columns.next += form.step(block, component, own, instances, local, columns.index)
        form.end(block, outputs, alike(columns.results, begin))

    def _total(self) -> None:
        """The terms without weights, read from the buffer of shared values."""
        block, form, instances = self.block, self.form, self.block.instances()
        outputs = [(self.kernel.only.last, i64(self.kernel.dim))]
        stop, (begin,) = block.stop(), form.begin(block, outputs)
        with self.code.flow.loop(block.first, stop, block.step(), begin, name="total") as columns:
            local: Known = {}
            self.shared.recall(local, instances, columns.index)
            self.mask.recall(local, instances, columns.index)
            columns.next = form.step(
                block, outputs[0], columns.values, instances, local, columns.index
            )
        form.end(block, outputs, [columns.results])

    def _invariant(self, targets: Sequence[Value], instances: Sequence[Key], known: Known) -> None:
        """What depends on the component and the row, but not on the column."""
        kernel, loop = self.kernel, self.loop
        leaf = self.block.leaf(i64(0))
        for value in kernel.needed(targets, PAIR):
            if value.kind == "index" or value.stage & COLUMN or not value.loops <= {loop}:
                continue
            if kernel.is_leaf(value, PAIR):
                self.block.emitter.emit([value], instances, known, leaf, frozenset((loop,)))
