"""Scalar products of short integers, several components per lane and instruction.

A word of 32 bits per lane holds `group` components: four signed bytes where the processor
multiplies and adds those (those of rows are raised by an offset, since one factor must be
unsigned there), else two halves. Sums are exact.
"""

from __future__ import annotations

from dataclasses import dataclass

from llvmlite import ir

from ..lower.distance import Distance
from ..lower.schedule import ITEM, Plan
from .simd import Simd

I32 = ir.IntType(32)
_HALVES = {16: "llvm.x86.avx512.pmaddw.d.512", 8: "llvm.x86.avx2.pmadd.wd"}
_HALVES[4] = "llvm.x86.sse2.pmadd.wd"


@dataclass(frozen=True)
class Product:
    """How words of components are multiplied: components per word, their range, their offset."""

    group: int
    most: int
    offset: int

    def dot(self, simd: Simd, sum_: ir.Value, x: ir.Value, y: ir.Value) -> ir.Value:
        """sum + x . y, lane by lane; x has the offset."""
        width = simd.width
        kind = ir.VectorType(I32, width)
        if self.group == 4:
            name = f"llvm.x86.avx512.vpdpbusd.{32 * width}"
            return simd.intrinsic(name, kind, sum_, x, y)
        b, halves = simd.builder, ir.VectorType(ir.IntType(16), 2 * width)
        x, y = b.bitcast(x, halves), b.bitcast(y, halves)
        return b.add(sum_, simd.intrinsic(_HALVES[width], kind, x, y))


def product(plan: Plan, distance: Distance) -> Product:
    """The products that the plan's machine is best at."""
    has, width = plan.machine.has, plan.width
    wide = {"avx512vnni", "avx512vl"} <= has or ("avxvnni" in has and width <= 8)
    if wide:
        return Product(4, 127, 128)
    return Product(2, min(4000, int((2**29 / distance.dim) ** 0.5)), 0)


class ScreenPlaces:
    """Where the parts of a screen lie: behind the packed rows of a unit, and in scratch memory.

    `row` is measured from the packed rows; `sizes` are those of the parts of scratch memory.
    """

    def __init__(self, plan: Plan, row_bytes: int) -> None:
        self.row: dict[str, int] = {}
        self.sizes: dict[str, int] = {}
        self.row_bytes = row_bytes
        if plan.screen is None:
            return
        lanes, item, dim = plan.lane_count, ITEM[plan.dtype], plan.screen.dim
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
