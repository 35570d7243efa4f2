"""Structured loops on an IRBuilder, with carried values as phi nodes.

Loops are emitted in the rotated form (guard, then do-while), so no later pass has to find it out.
All integers are 64 bits wide.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Sequence

from ...core.cache import cached
from . import ir

I64 = ir.IntType(64)
I8 = ir.IntType(8)
BYTES = ir.PointerType()


@cached("integers in machine code", 4096)
def i64(value: int) -> ir.Constant:
    """A 64-bit constant."""
    return ir.Constant(I64, value)


class Carried:
    """A loop being emitted: its index and carried values; set `next`, then read `results`."""

    def __init__(self, index: ir.Value, values: Sequence[ir.Value]) -> None:
        self.index = index
        self.values = list(values)
        self.next: list[ir.Value] = list(values)
        self.results: list[ir.Value] = []


class Flow:
    """Loops, branches and byte-addressed memory on one builder."""

    def __init__(self, builder: ir.IRBuilder) -> None:
        self.builder = builder

    @contextlib.contextmanager
    def loop(
        self,
        start: ir.Value,
        stop: ir.Value,
        step: int | ir.Value = 1,
        carried: Sequence[ir.Value] = (),
        name: str = "loop",
    ) -> Generator[Carried, None, None]:
        """for index in range(start, stop, step), with carried values."""
        b = self.builder
        before = b.block
        body = b.append_basic_block(name)
        after = b.append_basic_block(f"{name}.end")
        b.cbranch(b.icmp_signed("<", start, stop), body, after)
        b.position_at_end(body)
        index = b.phi(I64)
        index.add_incoming(start, before)
        phis = [b.phi(value.type) for value in carried]
        for phi, value in zip(phis, carried, strict=True):
            phi.add_incoming(value, before)
        state = Carried(index, phis)
        yield state
        following = b.add(index, i64(step) if isinstance(step, int) else step)
        index.add_incoming(following, b.block)
        for phi, value in zip(phis, state.next, strict=True):
            phi.add_incoming(value, b.block)
        last = b.block
        b.cbranch(b.icmp_signed("<", following, stop), body, after)
        b.position_at_end(after)
        for value, initial in zip(state.next, carried, strict=True):
            result = b.phi(initial.type)
            result.add_incoming(initial, before)
            result.add_incoming(value, last)
            state.results.append(result)

    @contextlib.contextmanager
    def when(self, condition: ir.Value, rare: bool = False) -> Generator[None, None, None]:
        """Emit code that runs only if the condition holds; `rare`: seldom, says the author."""
        b = self.builder
        inside = b.append_basic_block("when")
        after = b.append_basic_block("when.end")
        b.cbranch(condition, inside, after, (1, 1000) if rare else None)
        b.position_at_end(inside)
        yield
        b.branch(after)
        b.position_at_end(after)

    def at(self, base: ir.Value, offset: ir.Value) -> ir.Value:
        """The address `offset` bytes after `base`."""
        return self.builder.gep(base, offset)

    def opaque(self, address: ir.Value) -> ir.Value:
        """The same address, without the compiler knowing: what is read there is read again."""
        same = ir.InlineAsm(ir.FunctionType(BYTES, [BYTES]), "", "=r,0")
        return self.builder.call(same, [address])

    def prefetch(self, address: ir.Value) -> None:
        """Ask for the cache line of an address, which may lie outside of all arrays: no read."""
        word = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [BYTES, word, word, word])
        function = self.builder.module.declared("llvm.prefetch.p0", kind)
        read, near, data = (ir.Constant(word, n) for n in (0, 2, 1))
        self.builder.call(function, [address, read, near, data])

    def load(self, kind: ir.Type, address: ir.Value, align: int = 1) -> ir.Value:
        """Read a value of this type."""
        return self.builder.load(address, kind, align)

    def store(self, value: ir.Value, address: ir.Value, align: int = 1) -> None:
        """Write a value."""
        self.builder.store(value, address, align)

    def word(self, base: ir.Value, place: int) -> ir.Value:
        """Word number `place` of a table of 64-bit integers."""
        return self.load(I64, self.at(base, i64(8 * place)), 8)

    def pointer(self, base: ir.Value, place: int) -> ir.Value:
        """Word number `place` of a table, as an address."""
        return self.builder.inttoptr(self.word(base, place), BYTES)

    def sum(self, *terms: ir.Value) -> ir.Value:
        """Sum of integers."""
        total = terms[0]
        for term in terms[1:]:
            total = self.builder.add(total, term)
        return total

    def times(self, x: ir.Value, factor: int) -> ir.Value:
        """Product with a constant."""
        return x if factor == 1 else self.builder.mul(x, i64(factor))

    def minimum(self, x: ir.Value, y: ir.Value) -> ir.Value:
        """The smaller of two signed integers."""
        return self.builder.select(self.builder.icmp_signed("<", x, y), x, y)
