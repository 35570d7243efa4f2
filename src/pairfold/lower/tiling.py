"""Tiling: how a kernel's loops are cut for a GPU.

A program holds a tile of rows and walks over blocks of columns; every pair of a tile has a place of
its own in registers. Which tile is best depends on how many numbers a thread can hold.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..core.primitives import PRIMITIVES
from ..core.scalars import Value
from ..settings import Settings
from .accumulators import Accumulator
from .kernel import COLUMN, PAIR, ROW, Kernel
from .products import Product, output_product, scalar_product, squared_distance
from .schedule import Accumulation

# 32-bit registers of a thread that a plan may fill (255 exist; some hold addresses and loops).
_REGISTERS = 200
_LANES = 32
# Instructions of a block where all warps ask each other whether anything is to be done.
_ASKING = 64
# Columns whose products with weights are written out at a time: of max-shifted sums, and of plain
# ones, of which compilers have more in flight than registers hold.
_DEEPEST = {True: 32, False: 16}
# Rows and columns of a tile that can be multiplied.
_LEAST_MULTIPLIED = 16
# Pairs of a warp where products of components are followed by several outputs.
_GROUPED = 128
# Where a mask is between two products of tiles: the shape that spills nothing on sm_80 and sm_90.
_MASKED = (32, 64, 8)
# Registers per pair on the way of tiles of components to the multiplication.
_STAGED = 8
# Blocks whose terms a lane adds up before its sum joins a wider one.
_BLOCKS = 64
# Components of a long output that one program computes where it cannot be a product.
_GROUPS = (4, 8, 16)
# Programs that a GPU can use at once: its multiprocessors, times a few.
_PROGRAMS_EACH = 4
_SHAPES = (
    (64, 64, 4), (64, 32, 4), (32, 64, 4), (32, 32, 4), (16, 64, 4), (16, 32, 4), (16, 32, 2),
    (16, 16, 1), (16, 64, 1), (8, 128, 1), (8, 64, 1), (8, 32, 2), (8, 16, 1), (4, 16, 1),
)  # fmt: skip
# Where tiles of components are multiplied: instructions per component, from machine code.
_MULTIPLYING = {
    (64, 64, 8): 1.7, (64, 32, 8): 1.9, (64, 16, 8): 2.2, (32, 64, 8): 2.1, (32, 64, 4): 2.0,
    (64, 32, 4): 2.1, (32, 32, 4): 2.2, (16, 64, 4): 2.6, (16, 32, 4): 2.7, (16, 32, 2): 2.8,
    (16, 16, 1): 3.2,
}  # fmt: skip


@dataclass(frozen=True)
class Tiling:
    """The shape of a program; hashable, so that printed kernels are kept by (kernel, tiling).

    `rows` x `columns` pairs at a time by `warps` of 32 threads; sums of `chunk` columns are added
    to wider ones. `group`: components of a long output per program. `batched`, `sparse`, `split`:
    whether offsets, a pattern, or parts of the reduced axis are read. `product`: the long output
    is a product of matrices, of at most `group` components. `dot`: how such products are computed.
    """

    rows: int
    columns: int
    warps: int
    chunk: int
    group: int
    dtype: str
    stored: str
    accumulation: Accumulation
    relaxed: bool = True
    batched: bool = False
    sparse: bool = False
    split: bool = False
    product: Product | None = None
    dot: str = "ieee"

    @property
    def name(self) -> str:
        """The choices, in words."""
        return f"tiles of {self.rows} x {self.columns}, {self.warps} warps"


@dataclass(frozen=True)
class Grid:
    """Programs = batches x splits of the reduced axis x blocks of rows x groups of components."""

    row_blocks: int
    splits: int
    per_split: int
    batches: int
    groups: int

    @property
    def tasks(self) -> int:
        """Programs of one group."""
        return self.row_blocks * self.splits * self.batches


def power_of_two_above(n: int) -> int:
    """The smallest power of two that is at least n.

    >>> power_of_two_above(10), power_of_two_above(1)
    (16, 1)
    """
    return 1 << max(0, n - 1).bit_length()


def tilings(
    kernel: Kernel,
    dtype: str,
    stored: str,
    accumulation: Accumulation,
    options: Settings,
    rows: int,
    products: bool = True,
) -> list[Tiling]:
    """The tilings that settings leave open for so many rows, the one to use first.

    Without `products`, a long output is no product of matrices.
    """
    product = output_product(kernel) if products else None
    relaxed, every = options.rules != "exact", accumulation.every or _BLOCKS
    found: list[tuple[float, Tiling]] = []
    for shape in _shapes(options, multiplies(kernel, dtype) or product is not None):
        if not options.tile and not _is_open(shape, kernel, product, dtype):
            continue
        # Smaller tiles, which settings may ask for, are not multiplied.
        matrix = product if min(shape[:2]) >= _LEAST_MULTIPLIED else None
        for group in _groups(kernel, matrix, dtype):
            tiling = Tiling(
                *shape, every * shape[1], group, dtype, stored, accumulation, relaxed,
                product=matrix, dot=options.dot,
            )  # fmt: skip
            found.append((cost(kernel, tiling, rows), tiling))
    return [tiling for _, tiling in sorted(found, key=lambda pair: pair[0])]


def _is_open(
    shape: tuple[int, int, int], kernel: Kernel, product: Product | None, dtype: str
) -> bool:
    """Whether a shape may be used for a long output; for others, all may."""
    if product is not None and kernel.keep is not None and multiplies(kernel, dtype):
        return shape == _MASKED
    if product is not None:
        return shape[0] >= 16 and 16 <= shape[1] <= _DEEPEST[kernel.maxima > 0]
    grouped = kernel.output_loop is not None and multiplies(kernel, dtype)
    return not grouped or shape[0] * shape[1] <= _GROUPED * shape[2]


def _groups(kernel: Kernel, product: Product | None, dtype: str) -> tuple[int, ...]:
    """How many components of a long output one program may compute."""
    if kernel.output_loop is None:
        return (kernel.dim,)
    if product is None:
        return _GROUPS[:1] if multiplies(kernel, dtype) else _GROUPS
    return (min(128, max(16, power_of_two_above(kernel.dim))),)


def multiplies(kernel: Kernel, dtype: str) -> bool:
    """Whether pairs need sums over components that are products of tiles."""
    values = kernel.needed(kernel.pair_values, PAIR)
    found = (scalar_product(value) or squared_distance(value) for value in values)
    return dtype == "float32" and any(found)


def _shapes(options: Settings, multiplying: bool) -> Iterator[tuple[int, int, int]]:
    tile = options.tile
    if not tile:
        yield from _MULTIPLYING if multiplying else _SHAPES
        return
    rows, columns, warps = (int(part) for part in tile.split("x"))
    yield rows, columns, warps


def cost(kernel: Kernel, tiling: Tiling, rows: int) -> float:
    """Instructions per pair of a thread, roughly: the formula, what a block adds, spills, waste."""
    pairs, _, columns = threads_hold(tiling)
    words = 2 if tiling.dtype == "float64" else 1
    work = _work(kernel, tiling)
    if multiplies(kernel, tiling.dtype):
        work *= _MULTIPLYING.get((tiling.rows, tiling.columns, tiling.warps), 4.0) / 2
    block = 12 + columns * (3 * kernel.stages[COLUMN].size + 2)
    needed = registers(kernel, tiling)
    spilled = max(0.0, needed - _REGISTERS) * 6 / pairs * groups_of(kernel, tiling)
    waste = -(-rows // tiling.rows) * tiling.rows / max(1, rows)
    asks = kernel.maxima > 0 or bool(kernel.lists)
    block += _ASKING * (asks and tiling.warps > 1)
    return waste * (words * work + block / pairs + spilled)


def registers(kernel: Kernel, tiling: Tiling) -> float:
    """Roughly the 32-bit registers of one thread that are alive in the inner loop."""
    pairs, own, columns = threads_hold(tiling)
    words = 2 if tiling.dtype == "float64" else 1
    inner = 2 if tiling.accumulation.inner == "float64" else 1
    listed, states = 0.0, float(_words_of_states(kernel, tiling, inner))
    if tiling.product is not None:
        states = inner * (tiling.rows * tiling.group / (tiling.warps * _LANES * pairs))
    for each in kernel.lists:
        places = each.count if kernel.output_loop is None else tiling.group
        entries = tiling.rows * longest_list(kernel) / (tiling.warps * _LANES)
        listed += (words + 2) * places * max(1.0, entries)
        states += words * places
    totals = sum(each.total is not None for each in kernel.accumulators)
    held = min(_own(kernel, ROW), 64) + _of_components(kernel, tiling)
    alive = pairs * (states + totals * inner + words)
    read = own * (held + kernel.maxima) + columns * min(_own(kernel, COLUMN), 16)
    staged = _STAGED * pairs if multiplies(kernel, tiling.dtype) else 0
    return words * (32 + read) + listed + alive + staged


def longest_list(kernel: Kernel) -> int:
    """The places that lists have in registers: a power of two."""
    return power_of_two_above(max((each.folded.length for each in kernel.lists), default=1))


def _words_of_states(kernel: Kernel, tiling: Tiling, inner: int) -> int:
    """32-bit registers of the states of all components but lists, for each pair of a tile."""
    each_of = [each for each in kernel.accumulators if not each.rule.top_k]
    if kernel.output_loop is not None:
        return sum(tiling.group * _words(each, inner) for each in each_of)
    return sum(each.count * _words(each, inner) for each in each_of)


def _words(accumulator: Accumulator, inner: int) -> int:
    return sum(2 if kind == "index" else inner for kind in accumulator.rule.kinds)


def _of_components(kernel: Kernel, tiling: Tiling) -> int:
    """Numbers of a row that the components of a long output read, each its own."""
    if kernel.output_loop is None or tiling.product is not None:
        return 0
    values = kernel.needed(kernel.pair_values, PAIR)
    inside = (v for v in values if kernel.output_loop in v.loops and v.stage == ROW)
    return tiling.group * sum(v.kind == "real" for v in inside)


def _own(kernel: Kernel, stage: int) -> int:
    """Numbers of a stage that pairs read and that are not read again for each component."""
    values = kernel.needed(kernel.pair_values, PAIR)
    return sum(
        value.kind == "real" and value.stage == stage and not value.loops
        and value.what != "placeholder" and kernel.is_leaf(value, PAIR)
        for value in values
    )  # fmt: skip


def threads_hold(tiling: Tiling) -> tuple[int, int, int]:
    """(pairs, rows, columns) that one thread holds of a tile.

    Lanes lie along columns first, then along rows, and so do warps: Triton's default.
    """
    lanes = min(_LANES, tiling.columns)
    across = min(tiling.warps, max(1, tiling.columns // lanes))
    columns = max(1, tiling.columns // (lanes * across))
    rows = max(1, tiling.rows // ((_LANES // lanes) * (tiling.warps // across)))
    return rows * columns, rows, columns


def _work(kernel: Kernel, tiling: Tiling) -> float:
    """Instructions per pair of the formula and its fold.

    What the components of a long output share is computed once per group of them.
    """
    loop, groups = kernel.output_loop, groups_of(kernel, tiling)
    count = float(kernel.dim)
    for value in kernel.needed(kernel.pair_values, PAIR):
        if value.what in PRIMITIVES and not kernel.is_leaf(value, PAIR):
            count += _instructions(value) * (1 if loop in value.loops else groups)
    return count


def groups_of(kernel: Kernel, tiling: Tiling) -> int:
    """The programs that share the components of a long output."""
    loop = kernel.output_loop
    return 1 if loop is None else -(-loop.n // tiling.group)


def _instructions(value: Value) -> float:
    times = 1
    for loop in value.loops:
        times *= loop.n
    cheap = {"exp": 3.0, "rsqrt": 2.0, "sqrt": 3.0}
    return times * cheap.get(value.what, PRIMITIVES[value.what].cost)


def grid(
    tiling: Tiling, kernel: Kernel, sizes: tuple[int, int, int], processors: int, options: Settings
) -> Grid:
    """Programs for (rows, columns, batches) on a GPU of so many multiprocessors.

    Where there are few rows, the reduced axis is split: what its parts leave is merged in order.
    """
    rows, columns, batches = sizes
    row_blocks = -(-rows // tiling.rows)
    groups = groups_of(kernel, tiling)
    splits = options.splits
    if not splits:
        wanted = processors * _PROGRAMS_EACH // max(1, row_blocks * batches * groups)
        splits = max(1, min(wanted, columns // (4 * tiling.columns)))
    blocks = max(1, -(-columns // tiling.columns))
    per_split = -(-blocks // min(splits, blocks)) * tiling.columns
    return Grid(row_blocks, max(1, -(-columns // per_split)), per_split, batches, groups)
