"""Plan: how a kernel's loops are cut for a machine, and how sizes are cut into tasks.

A plan fixes what the machine code needs to know (what lanes hold, how many vectors, block length,
accumulators); `cost` chooses among plans. A partition cuts given sizes into tasks. Both depend on
the sizes alone, so that results do not depend on the threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..core.dtypes import DTYPES
from ..core.primitives import PRIMITIVES
from ..core.scalars import Value, reachable
from ..settings import Settings
from .distance import Distance, distance
from .kernel import COLUMN, PAIR, ROW, Kernel

_CACHE = 24 * 1024
_LARGE_CACHE = 384 * 1024
TASKS = 64
_SMALL_ROWS = 8
_SHORT_LOOP = 16
_LONG_SHARED = 64
_CODE = 1000
_MUCH = 2**27
_COSTLY = 6
_COSTLY_VALUES = 3
_CHEAP = {"add", "sub", "mul", "neg"}
# Distances of fewer components are evaluated as fast as bounded; sums of more leave 32 bits.
# Of many places in a list, most are taken by pairs that do not stay: fewer bounds decide.
_LEAST_SCREENED, _MOST_SCREENED = 16, 4096
_LEAST_FOR_MANY, _MANY = 32, 32
_SCREENED_SHORT = 32
# What multiplies vectors of short integers, for each number of lanes. On request, bounds are also
# computed elsewhere, one product after the other.
SHORT_PRODUCTS = {16: {"avx512bw"}, 8: {"avx2"}, 4: {"avx2", "sse2", "neon"}, 2: {"sse2", "neon"}}
_SCREENED = 144
_MASKED = 64
_SCREENED_TASKS = 16
_SCREEN_CACHE = 512 * 1024


@dataclass(frozen=True)
class Accumulation:
    """How a sum is carried: per pair in `inner`, block after block in `outer`.

    `compensated` keeps the rounding errors of the outer additions; `every` flushes that often.
    `rtol`: the part of a sum that pairs which are left out may be, all together; 0: none are.
    """

    inner: str
    outer: str
    compensated: bool = False
    every: int = 0
    rtol: float = 0.0


@dataclass(frozen=True)
class Machine:
    """What plans need to know of a CPU: its name for LLVM, features, vector bytes, registers.

    `triple` names another system than this one, whose code can be looked at but not run.
    """

    name: str
    cpu: str
    features: str
    has: frozenset[str]
    vector_bytes: int
    registers: int
    triple: str = ""


@dataclass(frozen=True)
class Plan:
    """The shape of the machine code; hashable, so compiled kernels are kept by (kernel, plan).

    `relaxed`: an exponential may add a fraction of the rounding error that its argument has.
    `stored`: the dtype of arrays, where it is not that of the computation.
    `screen`: the distance that bounds are computed of first, to evaluate few pairs. `pruned`:
    rows and columns come in an order of their own, and blocks of columns are met by their bounds;
    `counted`: the dtype has the numbers of all columns.
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
    pruned: bool = False
    counted: bool = True

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
    """Tasks = batches x row blocks (blocks of rows) x splits of the reduced axis."""

    rows_per_task: int
    row_blocks: int
    splits: int
    columns_per_split: int
    batches: int

    @property
    def tasks(self) -> int:
        """How many tasks there are, which run independently."""
        return self.batches * self.row_blocks * self.splits


def power_of_two_below(n: int) -> int:
    """The largest power of two that is at most n, or 1."""
    return 1 << max(0, n.bit_length() - 1)


def frontier(kernel: Kernel) -> list[Value]:
    """For long outputs: the pair values that all components share, computed once per pair."""
    if kernel.fused:
        return _costly(kernel)
    if kernel.output_loop is None:
        return []
    measured = _measured(kernel)

    def shared(value: Value) -> bool:
        return _is_shared(value) and value not in measured

    found = reachable(kernel.outputs, lambda value: shared(value) or kernel.is_leaf(value, PAIR))
    return [value for value in found if shared(value) and not kernel.is_leaf(value, PAIR)]


def _measured(kernel: Kernel) -> set[Value]:
    """What is measured from maxima that components have one each of: no two share it."""
    found: set[Value] = set()
    if kernel.maxima and kernel.only.folded.weight is None:
        for value in reachable(kernel.outputs):
            if value.what == "placeholder" or not found.isdisjoint(value.args):
                found.add(value)
    return found


def _costly(kernel: Kernel) -> list[Value]:
    """For fused passes: what takes long to compute, and of which sums and products are made.

    Two loops, one that ends with it and one that begins with it, are faster than one: each has
    shorter chains of dependent operations. Where it is much, there is one loop.
    """
    long: set[Value] = set()
    for value in kernel.needed(kernel.outputs, PAIR):
        if value.what not in PRIMITIVES or kernel.is_leaf(value, PAIR):
            continue
        if PRIMITIVES[value.what].cost >= _COSTLY or not long.isdisjoint(value.args):
            long.add(value)
    found = reachable(kernel.outputs, lambda value: value not in long or value.what not in _CHEAP)
    kept = [value for value in found if value in long and value.what not in _CHEAP]
    return kept if len(kept) <= _COSTLY_VALUES else []


def _is_shared(value: Value) -> bool:
    whole = value.kind in ("real", "table") and value.what != "placeholder"
    return whole and value.stage == PAIR and not value.loops


def cells(value: Value) -> int:
    """Numbers that a value consists of."""
    return value.loop.n if value.what == "table" else 1


def tables(kernel: Kernel, at: int) -> list[Value]:
    """The tables that are computed at a stage."""
    return [value for value in _computed_at(kernel, at) if value.what == "table"]


def _computed_at(kernel: Kernel, at: int) -> list[Value]:
    targets: list[Value] = []
    if at == PAIR:
        steps = [step for each in kernel.accumulators for step in each.steps]
        targets += [value for step in steps for value in step]
        targets += [factor for factor in kernel.factors if factor is not None]
        targets += kernel.pair_values
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


def pair_loops(kernel: Kernel) -> int:
    """The components of the longest component loop that one pair's value needs; 0: none."""
    return max(
        (
            value.loop.n
            for value in kernel.needed(kernel.pair_values, PAIR)
            if value.what in ("result", "table") and not kernel.is_leaf(value, PAIR)
        ),
        default=0,
    )


def _jam(loops: int, machine: Machine) -> int:
    """Columns that share what rows read in a component loop; short loops are better short code."""
    if loops <= 1:
        return 1
    return 4 if machine.registers >= 32 and loops > _SHORT_LOOP else 2


def operations(kernel: Kernel, stage: int = PAIR) -> float:
    """Rough machine operations per evaluation of a stage (vector instructions, when in lanes)."""
    targets: Sequence[Value] = (
        kernel.pair_values if stage == PAIR else list(kernel.stages[stage].computed)
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
    most = 4
    if kernel.lists:
        # The components of rows should stay in registers, where they are written out.
        wanted = 64 // max(each.folded.length for each in kernel.lists)
        if not pair_loops(kernel) and kernel.output_loop is None:
            wanted = min(wanted, machine.registers * 5 // 8 // max(1, kernel.stages[ROW].size))
        most = min(4, power_of_two_below(max(1, wanted)))
    others = [each for each in kernel.kept_on(ROW) if not each.rule.top_k]
    accumulators = sum(each.places * each.parts for each in others)
    if not others and kernel.lists:
        return most
    if kernel.output_loop is not None:
        accumulators = kernel.only.parts
    if pair_loops(kernel):
        accumulators = max(accumulators, jam)
    budget = machine.registers * 3 // 4
    return max(1, min(most, power_of_two_below(budget // max(1, accumulators))))


def _output_jam(kernel: Kernel, machine: Machine, vectors: int) -> int:
    """Components of a long output handled together: best a divisor, so that none are left over."""
    most = 6 if machine.registers >= 32 else 2
    if kernel.output_loop is None or code_size(kernel) * vectors * most > _CODE:
        return 1
    n = kernel.output_loop.n
    even = [jam for jam in range(most, most // 2, -1) if n % jam == 0]
    return even[0] if even else -(-n // -(-n // most))


def _lanes(shared: int, options: Settings) -> str:
    """What lanes hold, unless it is chosen; `shared`: bytes that rows keep for long outputs.

    Lanes of rows keep what components share for each column and lane, lanes of columns for each
    column.
    """
    if options.lanes != "auto":
        return options.lanes
    return "column" if shared > _MUCH else "row"


def _block(
    kernel: Kernel,
    accumulation: Accumulation,
    lanes: str,
    lane: tuple[int, int, int],
    options: Settings,
) -> int:
    """Columns of a block. `lane`: lanes of a vector, of all vectors, and bytes of a number."""
    width, count, item = lane
    kept, pairs = sum(map(cells, frontier(kernel))), kernel.stages[PAIR].size
    shared = kept + len(kernel.logits) + pairs
    slots = max(1, kernel.stages[COLUMN].size + pairs)
    if options.block or accumulation.every:
        block = options.block or accumulation.every
    elif shared and lanes == "row":
        longest, cache = (128, 2 * _CACHE) if kept else (256, _CACHE)
        most = min(longest, cache // (shared * count * item))
        block = max(16 if shared < _LONG_SHARED else 1, most)
    else:
        longest, cache = (256, 2 * _CACHE) if lanes == "row" else (1024, _CACHE)
        if kernel.keep is not None:
            longest = _MASKED  # smaller blocks are skipped more often
        block = max(32, min(longest, cache // (slots * item)))
        block = min(block, _MUCH // (shared * item)) if shared else block
    unit = count if lanes == "column" else max(width, 8)
    return max(unit, block // unit * unit)


def _tiles(kernel: Kernel, lanes: int, states: int, room: int) -> int:
    """Tiles of rows that share packed columns. `lanes`, `states`: bytes of a tile's numbers."""
    kept = sum(each.kept for each in kernel.kept_on(ROW))
    rows = max(1, kernel.stages[ROW].size) * lanes
    return max(1, min(8, room // (rows + kept * states)))


def make_plan(
    kernel: Kernel,
    machine: Machine,
    dtype: str,
    accumulation: Accumulation,
    options: Settings,
    stored: str = "",
) -> Plan:
    """The plan for many rows and columns, by register and cache budget or as settings force it."""
    item = DTYPES[dtype].bytes
    width = max(1, machine.vector_bytes // item)
    shared = sum(map(cells, frontier(kernel))) + len(kernel.logits) + kernel.stages[PAIR].size
    lanes = _lanes(shared * width * max(width, 8) * item, options)
    loops = pair_loops(kernel)
    jam = options.column_jam or _jam(loops, machine)
    if lanes == "column":
        jam = 1
    vectors = power_of_two_below(options.row_vectors) if options.row_vectors else 0
    if not vectors:
        vectors = _vectors(kernel, machine, jam)
        vectors, jam = _instances_that_fit(kernel, width, item, vectors, jam)
    screen = _screen(kernel, machine, width, lanes, options)
    if screen is not None:
        vectors, jam = _screened_instances(screen, loops, options)
    count = width * vectors
    lane = (width, count, item)
    block = _SCREENED // max(width, 8) * max(width, 8)
    if screen is None or options.block:
        block = _block(kernel, accumulation, lanes, lane, options)
    tiles = max(width, _SMALL_ROWS)
    if lanes == "row":
        room = _LARGE_CACHE if screen is None else _SCREEN_CACHE
        tiles = options.row_tiles or _tiles(kernel, count * item, count * 8, room)
    output_jam = options.output_jam or _output_jam(kernel, machine, vectors)
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


def _screen(
    kernel: Kernel, machine: Machine, width: int, lanes: str, options: Settings
) -> Distance | None:
    """The distance to compute bounds of, where that is possible and said to be worth while."""
    if options.screen == "never" or lanes != "row" or kernel.numbers or kernel.keep is not None:
        return None  # a screen knows neither
    found = distance(kernel)
    least = 1
    if options.screen == "auto":
        if not machine.has & SHORT_PRODUCTS.get(width, set()):
            return None
        many = any(each.folded.length > _MANY for each in kernel.lists)
        least = _LEAST_FOR_MANY if many else _LEAST_SCREENED
    return found if found is not None and least <= found.dim <= _MOST_SCREENED else None


def _screened_instances(screen: Distance, loops: int, options: Settings) -> tuple[int, int]:
    """(vectors of rows with bounds together, columns evaluated together)."""
    usual = 2 if screen.dim <= _SCREENED_SHORT else 4
    vectors = min(4, power_of_two_below(options.row_vectors or usual))
    return vectors, power_of_two_below(options.column_jam or (4 if loops else 1))


def partition(
    plan: Plan, rows: int, columns: int, batches: int, work: float, options: Settings
) -> Partition:
    """Cut sizes into tasks: enough to balance threads, never so small that packing dominates.

    `work` is the rough number of operations per pair. Where lanes hold columns, each task packs its
    own for few rows: it takes all of them that fit, and columns are cut instead.
    """
    unit = plan.lane_count if plan.lanes == "row" else 1
    units = -(-rows // unit)
    most_splits = max(1, columns // (4 * plan.block))
    wanted = TASKS if plan.screen is None else _SCREENED_TASKS
    if plan.lanes == "column":
        wanted = max(1, TASKS // (4 * most_splits))
    per_task = max(1, min(plan.tiles, units * batches // wanted))
    row_blocks = -(-units // per_task)
    tasks = row_blocks * batches
    splits = options.splits
    if not splits:
        pairs = rows * columns * batches
        useful = int(pairs * max(work, 4) // 2_000_000)
        splits = max(1, min(-(-32 // tasks), useful, most_splits))
    blocks = max(1, -(-columns // plan.block))
    splits = min(splits, blocks)
    per_split = -(-blocks // splits) * plan.block
    splits = max(1, -(-columns // per_split))
    return Partition(per_task * unit, row_blocks, splits, per_split, batches)
