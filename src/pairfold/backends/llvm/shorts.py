"""Scalar products of short integers, several components per lane and instruction.

A word of 32 bits per lane holds `group` components: four signed bytes where the processor
multiplies and adds those (on x86 those of rows are raised by an offset, since one factor must be
unsigned there), else two halves. Sums are exact.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ...core.dtypes import DTYPES
from ...lower.distance import Distance
from ...lower.schedule import SHORT_PRODUCTS, Plan
from . import ir
from .simd import Simd

I32 = ir.IntType(32)
_HALVES = {16: "llvm.x86.avx512.pmaddw.d.512", 8: "llvm.x86.avx2.pmadd.wd"}
_HALVES[4] = "llvm.x86.sse2.pmadd.wd"


class Product(NamedTuple):
    """How words of components are multiplied: components per word, their range, their offset.

    `by` names the instructions.
    """

    group: int
    most: int
    offset: int
    by: str

    def dot(self, simd: Simd, sum_: ir.Value, x: ir.Value, y: ir.Value) -> ir.Value:
        """sum + x . y, lane by lane; x has the offset."""
        return _WAYS[self.by](simd, sum_, x, y)


def product(plan: Plan, distance: Distance) -> Product:
    """The products that the plan's machine is best at."""
    has, width = plan.machine.has, plan.width
    if {"avx512vnni", "avx512vl"} <= has or ("avxvnni" in has and width <= 8):
        return Product(4, 127, 128, "vpdpbusd")
    if "neon" in has:
        return Product(4, 127, 0, "sdot" if "dotprod" in has else "smull")
    most = min(4000, int((2**29 / distance.dim) ** 0.5))
    known = has & SHORT_PRODUCTS.get(width, set())
    return Product(2, most, 0, "pmaddwd" if known else "integers")


def _vectors(bits: int, count: int) -> ir.VectorType:
    return ir.VectorType(ir.IntType(bits), count)


def _some(simd: Simd, value: ir.Value, places: range) -> ir.Value:
    """Some elements of a vector; those past its end are undefined."""
    mask = ir.Constant(_vectors(32, len(places)), list(places))
    return simd.builder.shuffle_vector(value, ir.Undefined(value.type), mask)


def _vpdpbusd(simd: Simd, sum_: ir.Value, x: ir.Value, y: ir.Value) -> ir.Value:
    """Four unsigned bytes times four signed ones."""
    name = f"llvm.x86.avx512.vpdpbusd.{32 * simd.width}"
    return simd.intrinsic(name, sum_.type, sum_, x, y)


def _pmaddwd(simd: Simd, sum_: ir.Value, x: ir.Value, y: ir.Value) -> ir.Value:
    """Two halves; two lanes are half a register."""
    b, width = simd.builder, simd.width
    lanes = max(4, width)
    if width < lanes:
        x, y = (_some(simd, value, range(lanes)) for value in (x, y))
    x, y = (b.bitcast(value, _vectors(16, 2 * lanes)) for value in (x, y))
    products = simd.intrinsic(_HALVES[lanes], _vectors(32, lanes), x, y)
    return b.add(sum_, products if width == lanes else _some(simd, products, range(width)))


def _sdot(simd: Simd, sum_: ir.Value, x: ir.Value, y: ir.Value) -> ir.Value:
    """Four signed bytes."""
    b, width = simd.builder, simd.width
    x, y = (b.bitcast(value, _vectors(8, 4 * width)) for value in (x, y))
    name = f"llvm.aarch64.neon.sdot.v{width}i32.v{4 * width}i8"
    return simd.intrinsic(name, sum_.type, sum_, x, y)


def _smull(simd: Simd, sum_: ir.Value, x: ir.Value, y: ir.Value) -> ir.Value:
    """Four signed bytes: sums of two products fit into 16 bits, of four into 32."""
    b, width = simd.builder, simd.width
    x, y = (b.bitcast(value, _vectors(8, 4 * width)) for value in (x, y))
    sixteen, halves = _vectors(16, 8), []
    for start in range(0, 4 * width, 8):
        parts = (_some(simd, value, range(start, start + 8)) for value in (x, y))
        halves.append(simd.intrinsic("llvm.aarch64.neon.smull.v8i16", sixteen, *parts))
    twos = simd.intrinsic("llvm.aarch64.neon.addp.v8i16", sixteen, halves[0], halves[-1])
    twos = _some(simd, twos, range(2 * width))
    name = f"llvm.aarch64.neon.saddlp.v{width}i32.v{2 * width}i16"
    return b.add(sum_, simd.intrinsic(name, sum_.type, twos))


def _integers(simd: Simd, sum_: ir.Value, x: ir.Value, y: ir.Value) -> ir.Value:
    """Two halves, on any processor."""
    b = simd.builder
    sixteen = simd.splat(ir.Constant(I32, 16))
    high = b.mul(b.ashr(x, sixteen), b.ashr(y, sixteen))
    x, y = (b.ashr(b.shl(value, sixteen), sixteen) for value in (x, y))
    return b.add(sum_, b.add(high, b.mul(x, y)))


_WAYS: dict[str, Callable[[Simd, ir.Value, ir.Value, ir.Value], ir.Value]] = {
    "vpdpbusd": _vpdpbusd,
    "pmaddwd": _pmaddwd,
    "sdot": _sdot,
    "smull": _smull,
    "integers": _integers,
}


class ScreenPlaces:
    """Where the parts of a screen lie: behind the packed rows of a tile, and in scratch memory.

    `row` is measured from the packed rows; `sizes` are those of the parts of scratch memory.
    """

    def __init__(self, plan: Plan, row_bytes: int) -> None:
        self.row: dict[str, int] = {}
        self.sizes: dict[str, int] = {}
        self.row_bytes = row_bytes
        if plan.screen is None:
            return
        lanes, item, dim = plan.lane_count, DTYPES[plan.dtype].bytes, plan.screen.dim
        self.words = -(-dim // product(plan, plan.screen).group)
        parts = {
            "words": 4 * self.words * lanes,
            "norm": 4 * lanes,
            "rounding": item * lanes,
            "whole": item * lanes,
            "rest": 64,
        }
        for name, size in parts.items():
            self.row[name] = self.row_bytes
            self.row_bytes += -(-size // 64) * 64
        self.sizes = {
            "screen words": 4 * self.words * plan.block,
            "screen starts": 4 * plan.block,
            "screen errors": 2 * item,
            "screen centre": item * dim,
            "screen scale": item,
            "screen sums": 4 * plan.block * lanes,
            "screen tops": 4 * lanes,
            "screen picks": 8 * (plan.block + plan.jam),
            "screen count": 8,
        }
