"""The pairs of a block that a mask leaves: found in a loop of their own, one bit each, and kept.

The loops that fold then compute of a pair the very instructions that they do without a mask: a
product that a mask shares with a formula would else be rounded where it was not before.
"""

from __future__ import annotations

from collections.abc import Sequence

from . import ir
from .apart import may_hold
from .block import Block
from .context import Code, Places
from .emitter import Key, Known
from .flow import Carried, i64


class Mask:
    """Which pairs of a block count, in a buffer: a bit for each lane of each vector of pairs."""

    def __init__(self, block: Block, places: Places) -> None:
        self.block, self.code, self.keep = block, block.code, block.code.kernel.keep
        self.buffer = places["mask"]

    def _place(self, at: ir.Value, instance: Key) -> ir.Value:
        """The address of the bits of a vector of pairs."""
        flow, b, plan = self.code.flow, self.code.builder, self.code.plan
        u, r = instance
        if self.code.row_major:
            number = b.add(flow.times(b.add(at, i64(u)), plan.vectors), i64(r))
        else:
            number = b.add(b.sdiv(at, i64(plan.width)), i64(r))
        return flow.at(self.buffer, flow.times(number, self.code.layout.mask_vector))

    def fill(self) -> Block:
        """Find which pairs count; the block without the columns before and after all of them."""
        block, code, keep = self.block, self.code, self.keep
        if keep is None or not block.tested:
            return block
        known: Known = {}
        b, may = code.builder, may_hold(block, keep)
        if may is not None:
            block = block._replace(first=b.select(may, block.first, block.size))
        block.invariant([keep], block.instances(code.plan.jam), known)

        def body(columns: Carried, jam: int) -> None:
            instances = block.instances(jam)
            local = dict(known)
            block.emit([keep], instances, local, columns.index)
            some: dict[int, ir.Value] = {}
            for instance in instances:
                bits = _bits(code, local[keep, block.key(keep, instance)])
                code.flow.store(bits, self._place(columns.index, instance), 1)
                u = instance[0]
                some[u] = b.or_(some[u], bits) if u in some else bits
            first, stop = columns.values
            for u, bits in some.items():
                column = b.add(columns.index, i64(u))
                met = b.icmp_unsigned("!=", bits, ir.Constant(bits.type, 0))
                first = b.select(met, code.flow.minimum(first, column), first)
                stop = b.select(met, b.add(column, i64(block.step())), stop)
            columns.next = [first, stop]

        first, stop = block.columns([block.size, i64(0)], body)
        stop = code.flow.minimum(stop, block.size)
        return block._replace(first=code.flow.minimum(first, stop), size=stop)

    def recall(self, local: Known, instances: Sequence[Key], at: ir.Value) -> None:
        """The bits as they were kept."""
        block, code, keep = self.block, self.code, self.keep
        if keep is None or not block.tested:
            return
        b, kind = code.builder, ir.IntType(code.plan.width)
        stored = ir.IntType(8 * code.layout.mask_vector)
        for instance in instances:
            bits = code.flow.load(stored, self._place(at, instance), 1)
            bits = bits if stored == kind else b.trunc(bits, kind)
            local[keep, instance] = b.bitcast(bits, code.simd.mask_type)


def _bits(code: Code, mask: ir.Value) -> ir.Value:
    """A vector of truth values as an integer of whole bytes."""
    b, stored = code.builder, ir.IntType(8 * code.layout.mask_vector)
    bits = b.bitcast(mask, ir.IntType(code.plan.width))
    return bits if bits.type == stored else b.zext(bits, stored)
