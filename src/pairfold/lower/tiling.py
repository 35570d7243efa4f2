"""Tiling: how a kernel's loops are cut for a GPU.

A program holds a tile of rows and walks over blocks of columns; every pair of a tile has a place of
its own in registers. Which tile is best depends on how many numbers a thread can hold.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

from ..core.scalars import PRIMITIVES, Value
from ..settings import Settings
from .kernel import COLUMN, PAIR, ROW, Kernel
from .products import Product, output_product
from .schedule import Accumulation

# 32-bit registers of a thread that a plan may fill (255 exist; some hold addresses and loops).
_REGISTERS = 200
_LANES = 32
# Blocks whose terms a lane adds up before its sum joins a wider one.
_BLOCKS = 64
# Components of a long output that one program computes where it cannot be a product.
_GROUP = 4
# Programs that a GPU can use at once: its multiprocessors, times a few.
_PROGRAMS_EACH = 4
_SHAPES = (
    (64, 64, 4), (64, 32, 4), (32, 64, 4), (32, 32, 4), (16, 64, 4), (16, 32, 4), (16, 32, 2),
    (16, 16, 1), (8, 32, 2), (8, 16, 1), (4, 16, 1),
)  # fmt: skip


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
    """Programs = batches x splits of the reduced axis x panels of rows x groups of components."""

    panels: int
    splits: int
    per_split: int
    batches: int
    groups: int

    @property
    def tasks(self) -> int:
        """Programs of one group."""
        return self.panels * self.splits * self.batches


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
) -> list[Tiling]:
    """The tilings that settings leave open for so many rows, the one to use first."""
    shapes = list(_shapes(options))
    fits = any(min(shape[:2]) >= 16 for shape in shapes)  # the least that matrices may be
    product = output_product(kernel) if fits else None
    group = kernel.dim if kernel.output_loop is None else _GROUP
    if product is not None:
        group = min(128, max(16, power_of_two_above(kernel.dim)))
    base = Tiling(
        0, 0, 0, 0, group, dtype, stored, accumulation, options.rules != "exact", product=product
    )
    found: list[tuple[float, Tiling]] = []
    for shape in shapes:
        tiling = dataclasses.replace(base, rows=shape[0], columns=shape[1], warps=shape[2])
        every = accumulation.every or _BLOCKS
        tiling = dataclasses.replace(tiling, chunk=every * tiling.columns, dot=options.dot)
        if product is not None and min(shape[:2]) < 16:
            continue
        found.append((cost(kernel, tiling, rows), tiling))
    return [tiling for _, tiling in sorted(found, key=lambda pair: pair[0])]


def _shapes(options: Settings) -> Iterator[tuple[int, int, int]]:
    tile = options.tile
    if not tile:
        yield from _SHAPES
        return
    rows, columns, warps = (int(part) for part in tile.split("x"))
    yield rows, columns, warps


def cost(kernel: Kernel, tiling: Tiling, rows: int) -> float:
    """Instructions per pair of a thread, roughly: the formula, what a block adds, spills, waste."""
    pairs, own, columns = threads_hold(tiling)
    words = 2 if tiling.dtype == "float64" else 1
    work = _work(kernel)
    block = 12 + columns * (3 * kernel.stages[COLUMN].size + 2)
    needed = registers(kernel, tiling)
    spilled = max(0.0, needed - _REGISTERS) * 6 / pairs
    waste = -(-rows // tiling.rows) * tiling.rows / max(1, rows)
    shared = 0.0 if work > 1 else own
    return waste * (words * work + (block + shared) / pairs + spilled)


def registers(kernel: Kernel, tiling: Tiling) -> float:
    """Roughly the 32-bit registers of one thread that are alive in the inner loop."""
    pairs, own, columns = threads_hold(tiling)
    words = 2 if tiling.dtype == "float64" else 1
    inner = 2 if tiling.accumulation.inner == "float64" else 1
    states = sum(2 if kind == "index" else inner for kind in kernel.reduction.kinds)
    places = tiling.group if kernel.output_loop is not None else kernel.dim
    if tiling.product is not None:
        places = tiling.rows * tiling.group / (tiling.warps * _LANES) / max(1, pairs)
    if kernel.reduction.listed:
        states = 0
    held = min(_own(kernel, ROW), 64)
    alive = pairs * (places * states + (kernel.total is not None) + 1) * 1.0
    return (
        32
        + alive * (words if kernel.reduction.listed else 1)
        + words * (own * held + columns * min(_own(kernel, COLUMN), 16) + own * kernel.anchors)
    )


def _own(kernel: Kernel, stage: int) -> int:
    """Numbers of a stage that pairs read and that are not read again for each component."""
    values = kernel.needed((*kernel.folded, *kernel.scores), PAIR)
    return sum(
        value.kind == "real" and value.stage == stage and not value.loops
        and value.what != "hole" and kernel.is_leaf(value, PAIR)
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


def _work(kernel: Kernel) -> float:
    """Instructions per pair of the formula and its fold."""
    count = float(kernel.dim)
    for value in kernel.needed((*kernel.folded, *kernel.scores), PAIR):
        if value.what in PRIMITIVES and not kernel.is_leaf(value, PAIR):
            count += _instructions(value)
    return count


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
    panels = -(-rows // tiling.rows)
    loop = kernel.output_loop
    groups = 1 if loop is None else -(-loop.n // tiling.group)
    splits = options.splits
    if not splits:
        wanted = processors * _PROGRAMS_EACH // max(1, panels * batches * groups)
        splits = max(1, min(wanted, columns // (4 * tiling.columns)))
    blocks = max(1, -(-columns // tiling.columns))
    per_split = -(-blocks // min(splits, blocks)) * tiling.columns
    return Grid(panels, max(1, -(-columns // per_split)), per_split, batches, groups)
