"""What a plan costs: cycles per pair on one thread, as a sum of parts that can be read.

A model of loops, not of one processor: two vector operations a cycle, two loads a cycle, four
cycles until a result is there. Its use is to rank plans for the same kernel.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ..core.scalars import Loop
from ..settings import Settings
from .kernel import COLUMN, PAIR, ROW, Kernel
from .schedule import Plan, frontier, operations, partition

# Vector operations, and loads, that start in a cycle; cycles until a sum can be added to again.
OPERATIONS_PER_CYCLE = 2.0
LOADS_PER_CYCLE = 2.0
LATENCY = 4.0
# Operations that merge one vector of a block's accumulators into a row's states.
_FLUSH = 8.0
# Operations that put one component of one vector of rows or columns where loops read it.
_PACK = 25.0
# The same for a vector of what every pair has: lanes of rows are transposed whatever the layout,
# lanes of columns come one by one where columns are apart.
_PACK_PAIRS = {"row": 4.0, "column": 16.0}
# Bounds take an operation for so many components (on AArch64 without scalar products, for one), and
# some more; so many pairs are evaluated.
_BOUNDED_TOGETHER, _BOUNDED_ALONE, _BOUND, _EVALUATED = 4.0, 1.0, 8.0, 0.15
# A plan that is not what the rules propose must be cheaper by this factor.
_CLEARLY = 1.1


@dataclass(frozen=True)
class Estimate:
    """Cycles per pair of one plan, part by part; `share` of the lanes hold pairs that count."""

    plan: Plan
    parts: dict[str, float]
    share: float

    @property
    def cycles(self) -> float:
        """Cycles per pair."""
        return sum(self.parts.values()) / self.share

    @property
    def name(self) -> str:
        """The choices that tell this plan from the others."""
        p = self.plan
        words = [f"lanes of {p.lanes}s", f"{p.vectors} vectors"]
        words += [f"{p.jam} columns at a time"] * (p.jam > 1)
        words += ["bounds first"] * (p.screen is not None)
        return ", ".join(words)

    def __str__(self) -> str:
        listed = ", ".join(f"{name} {value:.2g}" for name, value in self.parts.items() if value)
        used = f"; {100 * self.share:.0f} % of lanes used" if self.share < 0.995 else ""
        return f"{self.cycles:.3g} ({listed}{used})"


def registers(kernel: Kernel, plan: Plan) -> int:
    """Roughly the vectors alive in the innermost loop."""
    rows = kernel.kept_on(ROW)
    states = sum(each.places * (1 if each.rule.top_k else each.parts) for each in rows)
    if kernel.output_loop is not None:
        states = plan.output_jam * (1 if kernel.lists else kernel.only.parts)
    own, columns = _reads(kernel, ROW), _reads(kernel, COLUMN)
    if _component_loops(kernel):
        return plan.vectors * plan.jam + plan.vectors + 2
    if plan.lanes == "row":
        return plan.vectors * (states + min(own, 16)) + min(columns, 2) + 8
    return plan.vectors * states + min(own, 16) + 8


def estimate(kernel: Kernel, plan: Plan, rows: int, columns: int) -> Estimate:
    """The cost of a plan for these sizes."""
    width, instances = plan.width, plan.vectors * plan.jam
    work = operations(kernel) / OPERATIONS_PER_CYCLE
    loads = _loads(kernel, plan) / LOADS_PER_CYCLE
    if plan.screen is not None:
        evaluated = _EVALUATED * (work + loads)
        has = plan.machine.has
        alone = "neon" in has and "dotprod" not in has
        bound = plan.screen.dim / (_BOUNDED_ALONE if alone else _BOUNDED_TOGETHER) + _BOUND
        work, loads = evaluated + bound / OPERATIONS_PER_CYCLE, bound / plan.vectors
    spilled = max(0, registers(kernel, plan) - plan.machine.registers) / instances
    # The chain of dependent additions, which other instances fill.
    wait = max(0.0, LATENCY / instances - work - loads)
    flush = _FLUSH * kernel.parts / (plan.block if plan.lanes == "row" else plan.block / width)
    parts = {
        "operations": work / width,
        "loads": loads / width,
        "waiting": wait / width,
        "spills": spilled / LOADS_PER_CYCLE / width,
        "blocks": flush / OPERATIONS_PER_CYCLE / width,
        "packing": _packing(kernel, plan, rows, columns) / OPERATIONS_PER_CYCLE,
    }
    return Estimate(plan, parts, _share(plan, rows, columns))


def alternatives(
    kernel: Kernel, make: Callable[[Settings], Plan], options: Settings, rows: int, columns: int
) -> list[Estimate]:
    """The plans that settings leave open, each with its estimate; the one to use is the first.

    `make` gives the plan for settings. What it proposes for lanes of rows or of columns stands
    unless another is clearly cheaper: the model is not good enough to tell near equals apart.
    """
    proposed: dict[Plan, float] = {}
    for lanes in ("row", "column") if options.lanes == "auto" else (options.lanes,):
        forced = dataclasses.replace(options, lanes=lanes)
        best = make(forced)
        proposed.setdefault(best, 1.0)
        for plan in _variants(best, make, forced):
            proposed.setdefault(plan, _CLEARLY)
        if options.screen == "always" and best.screen is not None:
            break  # lanes of columns have no bounds
    found = [(estimate(kernel, plan, rows, columns), by) for plan, by in proposed.items()]
    return [e for e, _ in sorted(found, key=lambda pair: pair[0].cycles * pair[1])]


def _variants(best: Plan, make: Callable[[Settings], Plan], options: Settings) -> Iterator[Plan]:
    """Plans with fewer vectors or columns at a time, or without bounds, where that is open."""
    if best.screen is not None and options.screen == "auto":
        yield make(dataclasses.replace(options, screen="never"))
    for vectors in (4, 2, 1) if not options.row_vectors else ():
        if vectors < best.vectors:
            yield make(dataclasses.replace(options, row_vectors=vectors))
    for jam in (4, 2, 1) if not options.column_jam else ():
        if jam < best.jam:
            yield make(dataclasses.replace(options, column_jam=jam))


def _share(plan: Plan, rows: int, columns: int) -> float:
    """How many of the lanes hold pairs that count."""
    count, unit = (rows, plan.lane_count) if plan.lanes == "row" else (columns, plan.lane_count)
    return count / (-(-count // unit) * unit) if count else 1.0


def _component_loops(kernel: Kernel) -> bool:
    return any(value.loops for value in kernel.needed(kernel.outputs, PAIR))


def _reads(kernel: Kernel, stage: int) -> int:
    """Slots of a stage that one pair reads, components of loops included."""
    count = 0
    for value in kernel.needed(kernel.pair_values, PAIR):
        if value.kind == "real" and value.stage == stage and kernel.is_leaf(value, PAIR):
            count += _times(value.loops)
    return count


def _times(loops: frozenset[Loop]) -> int:
    times = 1
    for loop in loops:
        times *= loop.n
    return times


def _loads(kernel: Kernel, plan: Plan) -> float:
    """Loads per vector of pairs: what columns hold, rows in loops, and buffers."""
    own, columns = _reads(kernel, ROW), _reads(kernel, COLUMN)
    looped = _component_loops(kernel)
    kept = 2 * (len(frontier(kernel)) + len(kernel.logits)) + _reads(kernel, PAIR)
    if kernel.output_loop is not None:
        kept += len(frontier(kernel)) * kernel.output_loop.n / plan.output_jam
    if plan.lanes == "row":
        return columns / plan.vectors + (own / plan.jam if looped else 0) + kept
    return columns + (own / plan.vectors if looped else 0) + kept


def _packing(kernel: Kernel, plan: Plan, rows: int, columns: int) -> float:
    """Operations per pair that bring rows and columns to where the loops read them."""
    found = _PACK_PAIRS[plan.lanes] * kernel.stages[PAIR].size / plan.width
    parts = partition(plan, max(1, rows), columns, 1, operations(kernel), Settings())
    sharing = {ROW: max(1, columns), COLUMN: max(1, min(rows, parts.rows_per_task))}
    for stage, shared in sharing.items():
        computed = operations(kernel, stage) if kernel.stages[stage].computed else 0.0
        found += (_PACK * kernel.stages[stage].raw_size + computed) / plan.width / shared
    return found
