"""Plan: how a kernel's loops are cut for a machine, and how sizes are cut into tasks.

A plan fixes what the machine code needs to know (what lanes hold, how many vectors, block length,
accumulators); it never depends on the number of rows, columns, batches or threads. A partition
cuts given sizes into tasks, by the sizes alone, so that results do not depend on the threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..core.scalars import PRIMITIVES, Value, reachable
from ..settings import Settings
from .distance import Distance, distance
from .kernel import COLUMN, ONCE, PAIR, ROW, Kernel

ITEM = {"float32": 4, "float64": 8}
_CACHE = 24 * 1024
TASKS = 64
_SMALL_ROWS = 8
_LONG_SHARED = 64
_CODE = 1000
_MUCH = 2**27
# Distances of fewer components are evaluated as fast as bounded; sums of more leave 32 bits.
# Of many places in a list, most are taken by pairs that do not stay: fewer bounds decide.
_LEAST_SCREENED, _MOST_SCREENED = 16, 4096
_LEAST_FOR_MANY, _MANY = 32, 32
_SCREENED_SHORT = 32
# What multiplies vectors of short integers, for each number of lanes.
_SHORT_PRODUCTS = {16: {"avx512bw"}, 8: {"avx2"}, 4: {"avx2", "sse2"}}
_SCREENED = 144
_SCREENED_TASKS = 16
_SCREEN_CACHE = 512 * 1024


@dataclass(frozen=True)
class Accumulation:
    """How a sum is carried: per pair in `inner`, block after block in `outer`.

    `compensated` keeps the rounding errors of the outer additions; `every` flushes that often.
    """

    inner: str
    outer: str
    compensated: bool = False
    every: int = 0


@dataclass(frozen=True)
class Machine:
    """What plans need to know of a CPU: its name for LLVM, features, vector bytes, registers."""

    name: str
    cpu: str
    features: str
    has: frozenset[str]
    vector_bytes: int
    registers: int


@dataclass(frozen=True)
class Plan:
    """The shape of the machine code; hashable, so compiled kernels are kept by (kernel, plan).

    `relaxed`: an exponential may add a fraction of the rounding error that its argument has.
    `stored`: the dtype of arrays, where it is not that of the computation.
    `screen`: the distance that bounds are computed of first, to evaluate few pairs.
    """

    machine: Machine
    dtype: str
    lanes: str
    width: int
    vectors: int
    jam: int
    block: int
    tiles: int
    output_jam: int
    accumulation: Accumulation
    relaxed: bool = True
    stored: str = ""
    screen: Distance | None = None

    @property
    def lane_count(self) -> int:
        """Lanes handled at once: width times vectors."""
        return self.width * self.vectors

    @property
    def row_group(self) -> int:
        """Rows packed together."""
        return self.lane_count if self.lanes == "row" else self.tiles

    @property
    def rows_per_task(self) -> int:
        """The most rows one task may hold."""
        return self.lane_count * self.tiles if self.lanes == "row" else self.tiles


@dataclass(frozen=True)
class Partition:
    """Tasks = batches x panels of rows x splits of the reduced axis."""

    rows_per_task: int
    panels: int
    splits: int
    columns_per_split: int
    batches: int

    @property
    def tasks(self) -> int:
        """Independent pieces of work."""
        return self.batches * self.panels * self.splits


def _power_of_two_below(n: int) -> int:
    return 1 << max(0, n.bit_length() - 1)


def frontier(kernel: Kernel) -> list[Value]:
    """For long outputs: the pair values that all components share, computed once per pair."""
    if kernel.output_loop is None:
        return []
    found = reachable(kernel.folded, lambda value: _is_shared(value) or kernel.is_leaf(value, PAIR))
    return [value for value in found if _is_shared(value) and not kernel.is_leaf(value, PAIR)]


def _is_shared(value: Value) -> bool:
    whole = value.kind in ("real", "table") and value.what != "hole"
    return whole and value.stage == PAIR and not value.loops


def cells(value: Value) -> int:
    """Numbers that a value consists of."""
    return value.data.n if value.what == "table" else 1


def tables(kernel: Kernel, at: int) -> list[Value]:
    """The tables that are computed at a stage."""
    return [value for value in _computed_at(kernel, at) if value.what == "table"]


def _computed_at(kernel: Kernel, at: int) -> list[Value]:
    targets: list[Value] = []
    if at == PAIR:
        targets += [value for step in kernel.steps for value in step]
        targets += [factor for factor in kernel.factors if factor is not None]
        targets += kernel.scores
    else:
        targets += kernel.stages[at].computed
    return kernel.needed(targets, at)


def _instances_that_fit(
    kernel: Kernel, width: int, item: int, vectors: int, jam: int
) -> tuple[int, int]:
    """(vectors, jam), cut down to what is worth while for pairs in lock-step.

    Their tables should fit the cache; and each has its own copy of the code, so that of long
    formulas is written fewer times.
    """
    size = sum(map(cells, tables(kernel, PAIR))) * width * item
    code = code_size(kernel)
    while jam > 1 and (size * vectors * jam > _CACHE or code * vectors * (jam + 1) > _CODE):
        jam //= 2
    while vectors > 1 and (size * vectors > _CACHE or code * vectors > _CODE):
        vectors //= 2
    return vectors, jam


def code_size(kernel: Kernel, at: int = PAIR) -> float:
    """Rough operations that a stage's code consists of, however often it runs them."""
    return sum(
        PRIMITIVES[value.what].cost
        for value in _computed_at(kernel, at)
        if value.what in PRIMITIVES and not kernel.is_leaf(value, at)
    )


def pair_loops(kernel: Kernel) -> bool:
    """Whether one pair's value needs a component loop."""
    return any(
        value.what in ("result", "table") and not kernel.is_leaf(value, PAIR)
        for value in kernel.needed((*kernel.outputs, *kernel.scores), PAIR)
    )


def operations(kernel: Kernel, stage: int = PAIR) -> float:
    """Rough machine operations per evaluation of a stage (vector instructions, when in lanes)."""
    targets: Sequence[Value] = (
        kernel.folded if stage == PAIR else list(kernel.stages[stage].computed)
    )
    count = 0.0
    for value in kernel.needed(targets, stage):
        if value.what in PRIMITIVES and not kernel.is_leaf(value, stage):
            times = 1
            for loop in value.loops:
                times *= loop.n
            count += PRIMITIVES[value.what].cost * times
    return count + (kernel.dim if stage == PAIR else 0)


def _vectors(kernel: Kernel, machine: Machine, jam: int) -> int:
    """Vectors of lanes that fit the registers beside the temporaries of one evaluation."""
    accumulators = 1 if kernel.output_loop else kernel.places
    if kernel.reduction.listed:
        # The components of rows should stay in registers, where they are written out.
        wanted = 64 // kernel.length
        if not pair_loops(kernel) and kernel.output_loop is None:
            wanted = min(wanted, machine.registers * 5 // 8 // max(1, kernel.stages[ROW].size))
        return min(4, _power_of_two_below(max(1, wanted)))
    accumulators *= len(kernel.reduction.identity)
    if pair_loops(kernel):
        accumulators = max(accumulators, jam)
    budget = machine.registers * 3 // 4
    return max(1, min(4, _power_of_two_below(budget // max(1, accumulators))))


def _lanes(shared: int, few_rows: bool, options: Settings) -> str:
    """What lanes hold; `shared`: bytes that lanes of rows keep at least for long outputs.

    Lanes of rows keep what components share for each column and lane, lanes of columns for each
    column.
    """
    if options.lanes != "auto":
        return options.lanes
    return "column" if few_rows or shared > _MUCH else "row"


def make_plan(
    kernel: Kernel,
    machine: Machine,
    dtype: str,
    accumulation: Accumulation,
    few_rows: bool,
    options: Settings,
    stored: str = "",
) -> Plan:
    """The plan for a kernel: from the register and cache budget, or as the settings force it."""
    item = ITEM[dtype]
    width = max(1, machine.vector_bytes // item)
    kept = sum(map(cells, frontier(kernel)))
    shared = kept + len(kernel.scores)
    lanes = _lanes(shared * width * max(width, 8) * item, few_rows, options)
    loops = pair_loops(kernel)
    jam = options.column_jam or ((6 if machine.registers >= 32 else 3) if loops else 1)
    if lanes == "column":
        jam = 1
    vectors = _power_of_two_below(options.row_vectors) if options.row_vectors else 0
    if not vectors:
        vectors = _vectors(kernel, machine, jam)
        vectors, jam = _instances_that_fit(kernel, width, item, vectors, jam)
    screen = _screen(kernel, machine, width, lanes, options)
    if screen is not None:
        vectors, jam = _screened_instances(screen, loops, options)
    count = width * vectors
    slots = max(1, kernel.stages[COLUMN].size)
    if options.block or accumulation.every:
        block = options.block or accumulation.every
    elif screen is not None:
        block = _SCREENED
    elif shared and lanes == "row":
        most = min(64 if kept else 256, _CACHE // (shared * count * item))
        block = max(16 if shared < _LONG_SHARED else 1, most)
    else:
        block = max(32, min(256 if lanes == "row" else 1024, _CACHE // (slots * item)))
        block = min(block, _MUCH // (shared * item)) if shared else block
    unit = count if lanes == "column" else max(width, 8)
    block = max(unit, block // unit * unit)
    tiles = _tiles(kernel, lanes, width, vectors, item, screen)
    output_jam = 4 if machine.registers >= 32 else 2
    if code_size(kernel) * vectors * output_jam > _CODE:
        output_jam = 1
    return Plan(
        machine,
        dtype,
        lanes,
        width,
        vectors,
        jam,
        block,
        tiles,
        output_jam,
        accumulation,
        options.rules != "exact",
        stored,
        screen,
    )


def _tiles(
    kernel: Kernel, lanes: str, width: int, vectors: int, item: int, screen: Distance | None
) -> int:
    """Units of a task: what the caches hold of rows and states."""
    if lanes == "column":
        return max(width, _SMALL_ROWS)
    count = width * vectors
    row_bytes = max(1, kernel.stages[ROW].size) * count * item
    words = len(kernel.reduction.identity) * (kernel.length + 1)
    state_bytes = (kernel.places * words + kernel.anchors) * count * 8
    room = 2 * _CACHE if screen is None else _SCREEN_CACHE
    return max(1, min(8, room // (row_bytes + state_bytes)))


def _screen(
    kernel: Kernel, machine: Machine, width: int, lanes: str, options: Settings
) -> Distance | None:
    """The distance to compute bounds of, where that is possible and said to be worth while."""
    if options.screen == "never" or lanes != "row":
        return None
    if not machine.has & _SHORT_PRODUCTS.get(width, set()):
        return None
    found = distance(kernel)
    least = 1
    if options.screen == "auto":
        least = _LEAST_SCREENED if kernel.length <= _MANY else _LEAST_FOR_MANY
    return found if found is not None and least <= found.dim <= _MOST_SCREENED else None


def _screened_instances(screen: Distance, loops: bool, options: Settings) -> tuple[int, int]:
    """(vectors of rows with bounds together, columns evaluated together)."""
    usual = 2 if screen.dim <= _SCREENED_SHORT else 4
    vectors = min(4, _power_of_two_below(options.row_vectors or usual))
    return vectors, _power_of_two_below(options.column_jam or (4 if loops else 1))


def few_rows(rows: int, columns: int, machine: Machine, dtype: str) -> bool:
    """Whether lanes should hold columns: a tile of rows would be mostly empty."""
    width = machine.vector_bytes // ITEM[dtype]
    return rows <= max(_SMALL_ROWS, 2 * width) and columns > rows


def partition(
    plan: Plan, rows: int, columns: int, batches: int, work: float, options: Settings
) -> Partition:
    """Cut sizes into tasks: enough to balance threads, never so small that packing dominates.

    `work` is the rough number of operations per pair.
    """
    unit = plan.lane_count if plan.lanes == "row" else 1
    units = -(-rows // unit)
    most = plan.tiles
    wanted = TASKS if plan.screen is None else _SCREENED_TASKS
    per_task = max(1, min(most, units * batches // wanted))
    panels = -(-units // per_task)
    tasks = panels * batches
    splits = options.splits
    if not splits:
        pairs = rows * columns * batches
        useful = int(pairs * max(work, 4) // 2_000_000)
        splits = max(1, min(-(-32 // tasks), useful, columns // (4 * plan.block)))
    blocks = max(1, -(-columns // plan.block))
    splits = min(splits, blocks)
    per_split = -(-blocks // splits) * plan.block
    splits = max(1, -(-columns // per_split))
    return Partition(per_task * unit, panels, splits, per_split, batches)


def stage_sizes(kernel: Kernel) -> dict[str, int]:
    """Slots per stage, for explanations."""
    names = {ONCE: "once", ROW: "row", COLUMN: "column"}
    return {names[stage]: kernel.stages[stage].size for stage in names}
