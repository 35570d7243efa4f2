"""Places of points along a Hilbert curve, as machine code: a vector of points at a time.

Reference: J. Skilling, "Programming the Hilbert curve", AIP Conference Proceedings 707 (2004).
"""

from __future__ import annotations

import ctypes

import numpy as np
from numpy.typing import NDArray

from ...core.cache import Cache, Limit
from ...lower.curve import BITS
from ...lower.schedule import Machine
from . import ir, pool
from .flow import I64, i64
from .native import Code, Engine, entry_of, object_code, optimized, shared_code, without_interrupts
from .runtime import CALLED, Body, begun
from .simd import Simd
from .tasks import own_driver

# The table of a call: cells, bytes from a component to the next, points, keys.
_CELLS, _APART, _COUNT, _KEYS = range(4)
_PER_TASK = 2**14
_SECONDS_PER_POINT = 3e-9

_engines: Cache[pool.Entry] = Cache(Limit("curves", 16))


def keys(cells: NDArray[np.float32], count: int, machine: Machine) -> NDArray[np.uint64]:
    """For each point, its place along the curve in the upper half, its number in the lower.

    `cells`: (dim, room), a number from 0 to 2^bits - 1 for each of `count` points along each axis.
    There is room for whole vectors.
    """
    dim, room = cells.shape
    entry = _engines.of((machine, dim), lambda: _entry(machine, dim))
    found = np.empty(room, np.uint64)
    table = (ctypes.c_int64 * 4)(cells.ctypes.data, cells.strides[0], count, found.ctypes.data)
    tasks = -(-count // _PER_TASK)
    pool.run(entry, table, 64, tasks, count * _SECONDS_PER_POINT, (cells, found))
    return found[:count]


def _entry(machine: Machine, dim: int) -> pool.Entry:
    """The entry point for points of so many components."""

    def compiled() -> pool.Entry:
        module = ir.Module("curve")
        _write(Body(begun(module, "task", *CALLED["task"])), machine, dim)
        own = object_code(optimized(str(module), machine), machine)
        driver = own_driver(machine, "run")
        engine: Engine = Code((own, *shared_code([driver])), own, False).linked(machine)
        return entry_of(engine, "run")

    return without_interrupts(compiled)


def _write(body: Body, machine: Machine, dim: int) -> None:
    """task(args, scratch, control, which): the keys of some points."""
    flow, b = body.flow, body.builder
    args, _, _, which = body.given
    width = max(1, machine.vector_bytes // 4)
    words, wide = ir.VectorType(ir.IntType(32), width), ir.VectorType(I64, width)
    cells, apart, count, keys = (
        flow.pointer(args, _CELLS), flow.word(args, _APART),
        flow.word(args, _COUNT), flow.pointer(args, _KEYS),
    )  # fmt: skip
    first = flow.times(which, _PER_TASK)
    last = flow.minimum(b.add(first, i64(_PER_TASK)), count)
    lanes = ir.Constant(wide, range(width))
    simd = Simd(b, "float32", width, machine.has)
    with flow.loop(first, last, width, name="points") as point:
        place = flow.times(point.index, 4)
        axes: list[ir.Value] = []
        for axis in range(dim):
            start = flow.at(cells, b.mul(apart, i64(axis)))
            value = flow.load(simd.type, flow.at(start, place), 4)
            axes.append(b.fptoui(value, words))
        code = _interleaved(b, _transposed(b, axes, BITS[dim]), BITS[dim])
        number = b.add(simd.splat(point.index), lanes)
        key = b.or_(b.shl(b.zext(code, wide), ir.Constant(wide, 32)), number)
        flow.store(key, flow.at(keys, flow.times(point.index, 8)), 8)
    body.done()


def _transposed(b: ir.IRBuilder, axes: list[ir.Value], bits: int) -> list[ir.Value]:
    """Cells to their place along the curve, whose bits they have in turn."""
    if len(axes) == 1:
        return axes
    kind = axes[0].type

    def constant(value: int) -> ir.Value:
        return ir.Constant(kind, value)

    zero = constant(0)
    found = list(axes)
    for bit in range(bits - 1, 0, -1):
        top, below = constant(1 << bit), constant((1 << bit) - 1)
        for axis in range(len(found)):
            held = b.icmp_unsigned("!=", b.and_(found[axis], top), zero)
            swapped = b.and_(b.xor(found[0], found[axis]), below)
            swapped = b.select(held, zero, swapped)
            first = b.xor(found[0], b.select(held, below, swapped))
            if axis:
                found[axis] = b.xor(found[axis], swapped)
            found[0] = first
    for axis in range(1, len(found)):
        found[axis] = b.xor(found[axis], found[axis - 1])
    flips = zero
    for bit in range(bits - 1, 0, -1):
        held = b.icmp_unsigned("!=", b.and_(found[-1], constant(1 << bit)), zero)
        flips = b.xor(flips, b.select(held, constant((1 << bit) - 1), zero))
    return [b.xor(each, flips) for each in found]


def _interleaved(b: ir.IRBuilder, axes: list[ir.Value], bits: int) -> ir.Value:
    """The bits of all axes in turn, the highest first."""
    if len(axes) == 1:
        return axes[0]
    kind, dim = axes[0].type, len(axes)
    code: ir.Value = ir.Constant(kind, 0)
    for axis, each in enumerate(axes):
        spread = _spread(b, each, dim, bits)
        code = b.or_(code, b.shl(spread, ir.Constant(kind, dim - 1 - axis)))
    return code


def _spread(b: ir.IRBuilder, value: ir.Value, apart: int, bits: int) -> ir.Value:
    """Bits moved `apart` from each other, halving what stays together."""
    kind = value.type
    together = 1 << (bits - 1).bit_length() - 1
    while together:
        shift = together * (apart - 1)
        mask = 0
        for bit in range(bits):
            mask |= 1 << (bit // together * together * apart + bit % together)
        value = b.or_(value, b.shl(value, ir.Constant(kind, shift)))
        value = b.and_(value, ir.Constant(kind, mask & 0xFFFFFFFF))
        together //= 2
    return value
