"""Packing: arguments of any strides into component-major buffers, and what is computed from them.

Rows and blocks of columns become [slot][lane] buffers in the task's scratch memory. User arrays
are read here and nowhere else, at rows below the count given. Lanes past the end repeat the last
row, up to whole vectors. Which arguments there are is data, a list (`abi`); what is computed from
them is code of the kernel.
"""

from __future__ import annotations

from collections.abc import Callable

from ...core.dtypes import DTYPES
from ...lower.kernel import COLUMN, ONCE, PAIR, ROW, Kernel
from ...lower.schedule import Plan
from . import ir
from .abi import ARGUMENT_WORDS, FIRST_RESULT, LIST_HEAD, RANGE_WORDS, WORDS_PER_ARRAY
from .context import Code, Context
from .copying import excessive, moderate, pack
from .emitter import Emitter, Key, Known, Leaf
from .flow import i64
from .pairs import pack_pairs, pack_truths


def packing_list(kernel: Kernel, plan: Plan, stage: int) -> list[int]:
    """The list of what is packed of a stage: see `abi`."""
    item, width = DTYPES[plan.dtype].bytes, plan.width
    group, whole = 1, 1
    if stage != ONCE:
        group = plan.row_group if stage == ROW else plan.block
        whole = plan.lane_count if (stage == ROW) == (plan.lanes == "row") else width
    spacing, held = group * item, kernel.stages[stage]
    arrays = len(kernel.results)
    found: list[int] = []
    for place, argument in enumerate(kernel.arguments, arrays):
        if argument.stage == stage:
            word = FIRST_RESULT + WORDS_PER_ARRAY * place
            found += [word, place, argument.dim, held.raw[argument.position] * spacing]
    ranges = () if stage == ONCE else kernel.bounds.slots.get(stage, ())
    for first, end in ranges:
        found += [first * spacing, end - first]
    words = (len(found) - RANGE_WORDS * len(ranges)) // ARGUMENT_WORDS
    assert LIST_HEAD == 4
    return [spacing, whole, words, len(ranges), *found]


class Packing:
    """What tasks of a kernel pack, and the functions of its module that compute from it.

    `stages`: which of rows and columns are packed; parameters always are.
    """

    def __init__(self, context: Context, stages: tuple[int, ...]) -> None:
        self.context, self.kernel, self.plan = context, context.kernel, context.plan
        self.item, self.format, self.stages = context.item, context.format, stages
        own = [a for a in self.kernel.arguments if a.stage in (ONCE, *stages)]
        self.pack = context.link(pack(self.format, [a.dim for a in own]))
        checked = any(self.kernel.bounds.slots.get(stage, ()) for stage in stages)
        self.check = context.link(moderate(self.format)) if checked else None
        context.bails_out |= checked
        self.pairs = None
        if COLUMN in stages and self.kernel.stages[PAIR].size:
            self.pairs = context.link(pack_pairs(self.format, self.kernel, context.row_major))
            if any(argument.truth for argument in self.kernel.arguments):
                context.link(pack_truths(self.format, context.row_major))
        self.compute_once = self._once_function()
        self.compute_rows = self._compute_function(ROW)
        self.compute_columns = self._compute_function(COLUMN)

    def _compute_function(self, stage: int) -> ir.Function | None:
        """compute(args, scratch, destination, padded): what later stages read of packed slots.

        A vector of lanes at a time; None where nothing is computed.
        """
        if stage not in self.stages or not self.kernel.stages[stage].computed:
            return None
        code = self.context.entry("compute_rows" if stage == ROW else "compute_columns")
        args, scratch, destination, padded = code.given
        group = self.plan.row_group if stage == ROW else self.plan.block
        flow, item = code.flow, self.item
        emitter = code.emitter(stage, scratch)
        emitter.report = lambda mask: code.bail_out(args, mask)
        once = code.part(scratch, "once")
        with flow.loop(i64(0), padded, self.plan.width, name="computed") as lane:
            shift = flow.times(lane.index, item)

            def leaf(where: int, offset: int, index: ir.Value, key: Key) -> ir.Value:
                place = flow.times(code.builder.add(i64(offset), index), item)
                if where == ONCE:
                    return code.simd.splat(flow.load(code.simd.scalar, flow.at(once, place), item))
                address = flow.at(destination, code.builder.add(flow.times(place, group), shift))
                return flow.load(code.simd.type, address, 4)

            def keep(value: ir.Value, slot: ir.Value) -> None:
                place = code.builder.add(flow.times(slot, group * item), shift)
                flow.store(value, flow.at(destination, place), 4)

            self._each_computed(code, stage, emitter, leaf, keep)
        return code.done()

    def _each_computed(
        self,
        code: Code,
        stage: int,
        emitter: Emitter,
        leaf: Leaf,
        keep: Callable[[ir.Value, ir.Value], None],
    ) -> None:
        known: Known = {}
        for value, slot in self.kernel.stages[stage].computed.items():
            if slot.loop is None:
                emitter.emit([value], [(0, 0)], known, leaf)
                keep(known[value, (0, 0)], i64(slot.offset))
                continue
            # What does not vary with the component is computed once, and so is a table.
            emitter.emit([value], [(0, 0)], known, leaf)
            with code.flow.loop(i64(0), i64(slot.loop.n), name="table") as body:
                local = {**known, (slot.loop.index, (0, 0)): body.index}
                component = value
                if value.what == "table":
                    component = self.kernel.scalars.entry(value, slot.loop.index)
                emitter.emit([component], [(0, 0)], local, leaf, frozenset((slot.loop,)))
                keep(local[component, (0, 0)], code.builder.add(i64(slot.offset), body.index))

    def _once_function(self) -> ir.Function | None:
        """compute_once(args, scratch): what depends on parameters alone, a number per slot."""
        ranges = self.kernel.bounds.slots.get(ONCE, ())
        if not self.kernel.stages[ONCE].computed and not ranges:
            return None
        code = self.context.slow_entry("compute_once")
        args, scratch = code.given
        flow, b, item = code.flow, code.builder, self.item
        once = code.part(scratch, "once")
        emitter = code.emitter(ONCE, scratch)

        def leaf(where: int, offset: int, index: ir.Value, key: Key) -> ir.Value:
            place = flow.times(b.add(i64(offset), index), item)
            return code.simd.splat(flow.load(code.simd.scalar, flow.at(once, place), item))

        def keep(value: ir.Value, slot: ir.Value) -> None:
            first = b.extract_element(value, ir.Constant(ir.IntType(32), 0))
            flow.store(first, flow.at(once, flow.times(slot, item)), item)

        self._each_computed(code, ONCE, emitter, leaf, keep)
        for first, end in ranges:
            with flow.loop(i64(first), i64(end), name="checked") as slot:
                place = flow.at(once, flow.times(slot.index, item))
                value = code.simd.splat(flow.load(code.simd.scalar, place, item))
                code.bail_out(args, excessive(code.simd, value))
        return code.done()
