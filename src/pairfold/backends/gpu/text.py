"""Python text of a Triton function: lines, names, and the arithmetic of elementary functions in
words.

Every value of `Printed` is the name of a Triton tensor: so the
elementary functions that were written for vectors of a CPU are printed by the same code. A tensor
may be a number, a column of rows, a row of columns or a tile; Triton broadcasts them.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Generator

from ..functions.arithmetic import Arithmetic, Number, round_to_format

# Both are exact: integers of these widths hold the patterns of floats.
_INTEGER = {"float32": "tl.int32", "float64": "tl.int64"}
_UNSIGNED = {"float32": "tl.uint32", "float64": "tl.uint64"}
_FUSED = frozenset({"fma"})


class Text:
    """Lines of Python; constants are collected, to be printed before everything else."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._constants: dict[str, str] = {}
        self._count = 0
        self._depth = 1

    def line(self, text: str) -> None:
        """Add a line at the present depth."""
        self.lines.append("    " * self._depth + text)

    def name(self, stem: str = "v") -> str:
        """A name that was not used before."""
        self._count += 1
        return f"{stem}{self._count}"

    def let(self, expression: str, stem: str = "v") -> str:
        """A new name for what an expression gives."""
        name = self.name(stem)
        self.line(f"{name} = {expression}")
        return name

    def constant(self, expression: str) -> str:
        """The name of a constant, one for each expression."""
        return self._constants.setdefault(expression, f"c{len(self._constants)}")

    @contextlib.contextmanager
    def block(self, header: str) -> Generator[None, None, None]:
        """Lines inside a loop or a branch."""
        self.line(header)
        self._depth += 1
        before = len(self.lines)
        yield
        if len(self.lines) == before:
            self.line("pass")
        self._depth -= 1

    def whole(self) -> str:
        """All lines, constants first."""
        known = [f"    {name} = {text}" for text, name in self._constants.items()]
        return "\n".join([*known, *self.lines]) + "\n"


def literal(value: float) -> str:
    """A number as Python writes it, inf and nan included."""
    return repr(value) if math.isfinite(value) else f'float("{value}")'


class Printed(Arithmetic[str]):
    """Arithmetic on tensors of one dtype; values are names."""

    def __init__(self, text: Text, dtype: str) -> None:
        super().__init__(dtype, _FUSED)
        self.text = text

    @property
    def triton(self) -> str:
        """The dtype as Triton calls it."""
        return f"tl.{self.dtype}"

    def resized(self, dtype: str) -> Printed:
        """The same text, another dtype."""
        return Printed(self.text, dtype)

    def let(self, expression: str) -> str:
        """A new name for what an expression gives."""
        return self.text.let(expression)

    def cast(self, a: str, dtype: str | None = None) -> str:
        """A number of any dtype as one of this (or another) dtype."""
        return self.let(f"tl.cast({a}, {'tl.' + dtype if dtype else self.triton})")

    # ---- constants -----------------------------------------------------------------

    def constant(self, value: Number) -> str:
        """A number, correctly rounded."""
        rounded = round_to_format(value, self.dtype)
        return self.text.constant(f"tl.full((), {literal(rounded)}, {self.triton})")

    def int_constant(self, value: int) -> str:
        """An integer as wide as the floats."""
        half = 1 << (self.bits - 1)
        wrapped = (value + half) % (2 * half) - half
        return self.text.constant(f"tl.full((), {wrapped}, {_INTEGER[self.dtype]})")

    def splat(self, value: str) -> str:
        """Numbers are broadcast by themselves."""
        return value

    # ---- float arithmetic ------------------------------------------------------------

    def add(self, a: str, b: str) -> str:
        """a + b"""
        return self.let(f"{a} + {b}")

    def sub(self, a: str, b: str) -> str:
        """a - b"""
        return self.let(f"{a} - {b}")

    def mul(self, a: str, b: str) -> str:
        """a * b; the compiler may fuse it with an addition."""
        return self.let(f"{a} * {b}")

    def div(self, a: str, b: str) -> str:
        """a / b, rounded once."""
        return self.let(f"tl.div_rn({a}, {b})" if self.dtype == "float32" else f"{a} / {b}")

    def neg(self, a: str) -> str:
        """-a"""
        return self.let(f"-{a}")

    def fma(self, a: str, b: str, c: str) -> str:
        """a * b + c, rounded once."""
        return self.let(f"tl.fma({a}, {b}, {c})")

    def fused(self, a: str, b: str, c: str) -> str:
        """a * b + c, rounded once."""
        return self.fma(a, b, c)

    def abs(self, a: str) -> str:
        """Clear the sign bit."""
        return self.let(f"tl.abs({a})")

    def sqrt(self, a: str) -> str:
        """The correctly rounded square root; that of float64 is in any case."""
        return self.let(f"tl.sqrt_rn({a})" if self.dtype == "float32" else f"tl.sqrt({a})")

    def floor(self, a: str) -> str:
        """The largest integer not above a."""
        return self.let(f"tl.floor({a})")

    def lesser(self, a: str, b: str) -> str:
        """a if a < b else b."""
        return self.select(self.compare("<", a, b), a, b)

    def greater(self, a: str, b: str) -> str:
        """a if a > b else b."""
        return self.select(self.compare(">", a, b), a, b)

    def copysign(self, magnitude: str, sign: str) -> str:
        """The magnitude of the one with the sign bit of the other."""
        lowest = self.int_constant(1 << (self.bits - 1))
        rest = self.int_constant((1 << (self.bits - 1)) - 1)
        bits = self.int_and(self.to_bits(magnitude), rest)
        return self.from_bits(self.int_or(bits, self.int_and(self.to_bits(sign), lowest)))

    # ---- masks -----------------------------------------------------------------------

    def compare(self, op: str, a: str, b: str) -> str:
        """A mask; all but != are false on NaN."""
        return self.let(f"{a} {op} {b}")

    def int_compare(self, op: str, a: str, b: str) -> str:
        """A mask from integers."""
        return self.let(f"{a} {op} {b}")

    def select(self, mask: str, a: str, b: str) -> str:
        """a where the mask is set, b elsewhere."""
        return self.let(f"tl.where({mask}, {a}, {b})")

    def mask_and(self, a: str, b: str) -> str:
        """Both masks."""
        return self.let(f"{a} & {b}")

    def mask_or(self, a: str, b: str) -> str:
        """Either mask."""
        return self.let(f"{a} | {b}")

    def mask_not(self, a: str) -> str:
        """What the mask leaves out."""
        return self.let(f"{a} == 0")

    def isnan(self, a: str) -> str:
        """A mask of NaN."""
        return self.let(f"{a} != {a}")

    # ---- other types -----------------------------------------------------------------

    def widened(self, a: str) -> str:
        """float32 as float64."""
        return self.cast(a, "float64")

    def narrowed(self, a: str) -> str:
        """float64 as float32, rounded."""
        return self.cast(a, "float32")

    # ---- bits and integers -----------------------------------------------------------

    def to_bits(self, a: str) -> str:
        """Patterns of floats as integers."""
        return self.let(f"tl.cast({a}, {_INTEGER[self.dtype]}, bitcast=True)")

    def from_bits(self, a: str) -> str:
        """Floats of these patterns."""
        return self.let(f"tl.cast({a}, {self.triton}, bitcast=True)")

    def to_int(self, a: str) -> str:
        """Values as integers, truncated."""
        return self.let(f"tl.cast({a}, {_INTEGER[self.dtype]})")

    def to_float(self, a: str) -> str:
        """Integers as floats."""
        return self.cast(a)

    def int_add(self, a: str, b: str) -> str:
        """a + b"""
        return self.let(f"{a} + {b}")

    def int_sub(self, a: str, b: str) -> str:
        """a - b"""
        return self.let(f"{a} - {b}")

    def int_and(self, a: str, b: str) -> str:
        """Bitwise and."""
        return self.let(f"{a} & {b}")

    def int_or(self, a: str, b: str) -> str:
        """Bitwise or."""
        return self.let(f"{a} | {b}")

    def int_xor(self, a: str, b: str) -> str:
        """Bitwise exclusive or."""
        return self.let(f"{a} ^ {b}")

    def shift_left(self, a: str, count: int) -> str:
        """Shift left."""
        return self.let(f"{a} << {self.int_constant(count)}")

    def shift_right(self, a: str, count: int) -> str:
        """Shift right, copying the sign bit in."""
        return self.let(f"{a} >> {self.int_constant(count)}")

    def shift_right_zero(self, a: str, count: int) -> str:
        """Shift right, moving zeros in."""
        unsigned = _UNSIGNED[self.dtype]
        number = self.text.constant(f"tl.full((), {count}, {unsigned})")
        shifted = self.let(f"tl.cast({a}, {unsigned}, bitcast=True) >> {number}")
        return self.let(f"tl.cast({shifted}, {_INTEGER[self.dtype]}, bitcast=True)")

    # ---- calls -----------------------------------------------------------------------

    def rescue(self, name: str, x: str, fast: str, far: str) -> str:
        """`fast`, but in float64 by the GPU's library in the places of `far`, if there are any."""
        result = self.let(fast)
        some = self.let(f"tl.max(tl.ravel(tl.cast({far}, tl.int32) + tl.zeros((1, 1), tl.int32)))")
        with self.text.block(f"if {some} > 0:"):
            exact = self.let(f"tl.{name}(tl.cast({x}, tl.float64))")
            self.text.line(f"{result} = tl.where({far}, tl.cast({exact}, {self.triton}), {result})")
        return result
