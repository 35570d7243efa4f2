"""From states to results: factors that had left a sum, and output arrays of any strides."""

from __future__ import annotations

from ...core.scalars import Loop
from ...lower.kernel import PAIR
from . import ir
from .abi import ORDER_OF_ROWS
from .block import Slots
from .context import Code, Context, Places
from .copying import put
from .emitter import Known, Leaf
from .flow import I64, i64
from .forms import Forms
from .states import Form


class Outputs:
    """Results of a tile, in one function being written: kept in scratch memory, then written out.

    `args` is the table of the call, `scratch` the task's memory with its `places`.
    """

    def __init__(self, code: Code, args: ir.Value, scratch: ir.Value, places: Places) -> None:
        self.code, self.kernel = code, code.kernel
        self.args, self.scratch, self.places = args, scratch, places

    def times_factor(
        self, value: ir.Value, output: int, component: ir.Value, leaf: Leaf
    ) -> ir.Value:
        """A finished value times the factor that had left its sum; `leaf` reads what that needs.

        inf * sum is not the sum of inf * terms: a factor that is not finite is reported, and the
        caller folds again with the factor inside.
        """
        code, simd = self.code, self.code.simd
        factor = self.kernel.factors[output]
        if factor is None:
            return value
        emitter = code.emitter(PAIR, self.scratch)
        known: Known = {}
        inside: frozenset[Loop] = frozenset()
        if self.kernel.output_loop is not None:
            known[self.kernel.output_loop.index, (0, 0)] = component
            inside = frozenset((self.kernel.output_loop,))
        emitter.emit([factor], [(0, 0)], known, leaf, inside)
        found = known[factor, emitter.key(factor, (0, 0))]
        code.bail_out(self.args, simd.isnan(simd.sub(found, found)))
        return code.builder.fmul(code.to_outer(found), value)

    def take(self, form: Form, state: ir.Value, columns: ir.Value, slots: Slots) -> None:
        """Keep the results of a tile after so many columns; factors read its slots.

        Vectors of rows are finished in a loop: written out, this was half of the code of a kernel.
        """
        code = self.code
        form.gather(state)
        if not code.row_major:
            self._take(form, state, columns, slots, i64(0))
            return
        with code.flow.loop(i64(0), i64(code.plan.lane_count), code.plan.width) as lane:
            shift = code.flow.times(lane.index, code.item)
            own = slots._replace(rows=code.flow.at(slots.rows, shift))
            narrowed, there = form.narrowed(state, lane.index)
            self._take(narrowed, there, columns, own, lane.index)

    def _take(
        self, form: Form, state: ir.Value, columns: ir.Value, slots: Slots, lane: ir.Value
    ) -> None:
        leaf = slots.leaf(i64(0))
        for part in form.finish(state, columns):
            value = part.value
            if part.output is not None:
                value = self.times_factor(value, *part.output, leaf)
            self.keep(part.number, part.at, lane, value)

    def _element(self, number: int) -> tuple[ir.Type, int]:
        """The type of a result while it is kept, and its bytes."""
        kind = self.kernel.kinds[number]
        if kind == "value":
            return self.code.simd.scalar, self.code.item
        return ir.DoubleType() if kind == "state" else I64, 8

    def keep(self, number: int, component: ir.Value, lane: ir.Value, value: ir.Value) -> None:
        """Keep a component of a result, of a vector of rows of a tile from a lane on.

        It is written when the tile is finished.
        """
        code, b, width = self.code, self.code.builder, self.code.plan.width
        kind = self.kernel.kinds[number]
        element, item = self._element(number)
        if kind == "index":
            value = b.fptosi(value, ir.VectorType(element, width))
        elif kind == "truth":
            value = b.zext(
                code.outer.compare("!=", value, code.outer.constant(0)),
                ir.VectorType(element, width),
            )
        elif kind == "state":
            wide = ir.VectorType(element, width)
            value = value if value.type == wide else b.fpext(value, wide)
        elif value.type != code.simd.type:
            value = b.fptrunc(value, code.simd.type)
        start = code.flow.times(component, code.plan.lane_count * item)
        place = b.add(start, code.flow.times(lane, item))
        code.flow.store(value, code.flow.at(self.places[f"result {number}"], place), 4)

    def write(self, batch: ir.Value, number: int, first: ir.Value, count: ir.Value) -> None:
        """Copy finished rows to an output array, whatever its strides."""
        code, flow, b = self.code, self.code.flow, self.code.builder
        base, stride, step = code.array(number, self.args, batch)
        _, item = self._element(number)
        function = code.context.shared(put(code.context.format, self.kernel.kinds[number]))
        source, spacing = self.places[f"result {number}"], i64(code.plan.lane_count * item)
        dim = i64(self.kernel.results[number])
        if not code.plan.pruned:
            target = flow.at(base, b.mul(first, stride))
            b.call(function, [source, spacing, target, stride, step, dim, count])
            return
        order = flow.at(flow.pointer(self.args, ORDER_OF_ROWS), flow.times(first, 4))
        with flow.loop(i64(0), count, name="rows") as row:
            number_of = flow.load(ir.IntType(32), flow.at(order, flow.times(row.index, 4)), 4)
            target = flow.at(base, b.mul(b.zext(number_of, I64), stride))
            own = flow.at(source, flow.times(row.index, item))
            b.call(function, [own, spacing, target, stride, step, dim, i64(1)])


def finish_function(context: Context, forms: Forms) -> ir.Function:
    """finish(args, scratch, batch, first, count, columns, state): states of rows to results.

    `columns` is how many of them were folded.
    """
    code = context.entry("finish")
    args, scratch, batch, first, count, columns, state = code.given
    flow, b, lanes = code.flow, code.builder, context.plan.lane_count
    places = code.places(scratch)
    form, outputs = forms.form(code, places), Outputs(code, args, scratch, places)
    with flow.loop(i64(0), code.tiles(count), name="tiles") as tile:
        slots = Slots(code, places["once"], code.tile_rows(places["rows"], tile.index))
        outputs.take(form, code.tile_state(state, tile.index), columns, slots)
        start = flow.times(tile.index, lanes if context.row_major else 1)
        here = i64(1)
        if context.row_major:
            here = flow.minimum(i64(lanes), b.sub(count, start))
        for number in range(len(context.kernel.results)):
            outputs.write(batch, number, b.add(first, start), here)
    return code.done()
