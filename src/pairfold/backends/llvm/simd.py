"""Arithmetic on vectors: a thin typed layer over an IRBuilder.

Turns calls such as ``s.fma(a, b, c)`` into vector instructions of one element
type ("float32" or "float64") and one lane count.  The invariant: every value
that goes in or comes out is a vector of ``width`` lanes, and no instruction
carries a fast-math flag, so that what is written is what is computed, lane by
lane.  It does not choose targets, lay out memory or build loops.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..functions.arithmetic import Arithmetic, Number, round_to_format
from . import ir


def _is_plain(value: ir.Value) -> bool:
    """Whether a value is one constant in all lanes, neither NaN nor zero."""
    number = value.number if isinstance(value, ir.Constant) else None
    return bool(number) and number == number


_CURRENT_ROUNDING = 4
_PERMUTED = "llvm.x86.avx512.permvar.sf.512"


def _i32(value: int) -> ir.Value:
    return ir.Constant(ir.IntType(32), value)


class Simd(Arithmetic[ir.Value]):
    """Arithmetic on vectors of `width` lanes of `dtype`, emitted through `builder`.

    `builder` is a plain attribute: reassign it, or move it, at will.
    """

    def __init__(
        self, builder: ir.IRBuilder, dtype: str, width: int, features: frozenset[str]
    ) -> None:
        super().__init__(dtype, features)
        self.builder = builder
        self.width = width
        self.scalar = ir.FloatType() if dtype == "float32" else ir.DoubleType()
        self.scalar_int = ir.IntType(self.bits)
        self.type = ir.VectorType(self.scalar, width)
        self.int_type = ir.VectorType(self.scalar_int, width)
        self.mask_type = ir.VectorType(ir.IntType(1), width)

    @property
    def module(self) -> ir.Module:
        """The module that the builder currently writes into."""
        return self.builder.module

    @property
    def has_avx512(self) -> bool:
        """Whether vectors of this shape are whole AVX-512 registers."""
        return "avx512f" in self.features and self.bits * self.width == 512

    @property
    def has_root_steps(self) -> bool:
        """Whether vectors of this shape are registers of AArch64."""
        return self.has_neon and self.bits * self.width == 128

    def resized(self, dtype: str) -> Simd:
        """The same lanes with another element type, sharing the current builder."""
        return Simd(self.builder, dtype, self.width, self.features)

    # ---- constants -----------------------------------------------------------------

    def constant(self, value: Number) -> ir.Value:
        """A vector with every lane equal to `value`, correctly rounded."""
        rounded = round_to_format(value, self.dtype)
        return ir.Constant(self.type, rounded)

    def lanes(self, values: Sequence[Number]) -> ir.Value:
        """A vector constant with one value per lane, each correctly rounded."""
        rounded = [round_to_format(value, self.dtype) for value in values]
        return ir.Constant(self.type, rounded)

    def int_constant(self, value: int) -> ir.Value:
        """A vector of integers as wide as the floats, every lane equal to `value`."""
        half = 1 << (self.bits - 1)
        wrapped = (value + half) % (2 * half) - half
        return ir.Constant(self.int_type, wrapped)

    def splat(self, value: ir.Value) -> ir.Value:
        """Copy one scalar IR value into every lane."""
        vector_type = ir.VectorType(value.type, self.width)
        if isinstance(value, ir.Constant):
            return ir.Constant(vector_type, value.number)
        undefined = ir.Undefined(vector_type)
        first = self.builder.insert_element(undefined, value, ir.Constant(ir.IntType(32), 0))
        lanes = ir.Constant(ir.VectorType(ir.IntType(32), self.width), None)
        return self.builder.shuffle_vector(first, undefined, lanes)

    # ---- intrinsics ----------------------------------------------------------------

    def intrinsic(self, name: str, result: ir.Type, *arguments: ir.Value) -> ir.Value:
        """Call the intrinsic with this full (mangled) name, declaring it once."""
        function = self.module.globals.get(name)
        if function is None:
            signature = ir.FunctionType(result, [a.type for a in arguments])
            function = ir.Function(self.module, signature, name)
        return self.builder.call(function, arguments)

    def float_intrinsic(self, name: str, *arguments: ir.Value) -> ir.Value:
        """Call ``llvm.<name>`` overloaded on the float vector type."""
        suffix = f"v{self.width}f{self.bits}"
        return self.intrinsic(f"llvm.{name}.{suffix}", self.type, *arguments)

    # ---- float arithmetic ------------------------------------------------------------

    def add(self, a: ir.Value, b: ir.Value) -> ir.Value:
        """a + b, rounded once."""
        return self.builder.fadd(a, b)

    def sub(self, a: ir.Value, b: ir.Value) -> ir.Value:
        """a - b, rounded once."""
        return self.builder.fsub(a, b)

    def mul(self, a: ir.Value, b: ir.Value) -> ir.Value:
        """a * b, rounded once; never fused with a later addition."""
        return self.builder.fmul(a, b)

    def div(self, a: ir.Value, b: ir.Value) -> ir.Value:
        """a / b, rounded once."""
        return self.builder.fdiv(a, b)

    def neg(self, a: ir.Value) -> ir.Value:
        """Flip the sign bit (of NaN and zero too)."""
        return self.builder.fneg(a)

    def fma(self, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
        """a * b + c: one fused instruction where the target has it, two elsewhere.

        Never a library call.  Where the fused rounding is essential, test
        `has_fma` first.
        """
        return self.float_intrinsic("fmuladd", a, b, c)

    def fused(self, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
        """a * b + c, rounded once; only where `has_fma`."""
        return self.float_intrinsic("fma", a, b, c)

    def abs(self, a: ir.Value) -> ir.Value:
        """Clear the sign bit."""
        return self.float_intrinsic("fabs", a)

    def sqrt(self, a: ir.Value) -> ir.Value:
        """The correctly rounded square root; NaN below zero."""
        return self.float_intrinsic("sqrt", a)

    # SSE2 has no rounding; LLVM would call the C library for every lane.

    def floor(self, a: ir.Value) -> ir.Value:
        """The largest integer not above a."""
        if not self._lacks_rounding:
            return self.float_intrinsic("floor", a)
        nearest = self.rint(a)
        below = self.sub(nearest, self.constant(1))
        return self.copysign(self.select(self.compare(">", nearest, a), below, nearest), a)

    def rint(self, a: ir.Value) -> ir.Value:
        """The nearest integer, ties to even."""
        if not self._lacks_rounding:
            return self.float_intrinsic("rint", a)
        # From 2^23 (2^52) on there are integers only; adding it leaves no room for fractions.
        size, anchor = self.abs(a), self.constant(1 << self.fraction_bits)
        small = self.sub(self.add(size, anchor), anchor)
        return self.copysign(self.select(self.compare("<", size, anchor), small, size), a)

    @property
    def _lacks_rounding(self) -> bool:
        with_rounding = {"sse4.1", "avx2", "avx512f"}
        return "sse2" in self.features and not self.features & with_rounding

    def copysign(self, magnitude: ir.Value, sign: ir.Value) -> ir.Value:
        """The magnitude of the one with the sign bit of the other."""
        return self.float_intrinsic("copysign", magnitude, sign)

    # `lesser` and `greater` are single instructions on x86 with the semantics of MINPS/MAXPS;
    # the order of the operands decides what a NaN does.  AArch64 has FMIN, of which NaN is the
    # result, and FMINNM, of which it is not: beside a number that is neither NaN nor zero, one
    # or the other does the same.

    def lesser(self, a: ir.Value, b: ir.Value) -> ir.Value:
        """a if a < b else b: the result is b when either is NaN; of two zeros, either."""
        return self._extreme("<", "min", a, b)

    def greater(self, a: ir.Value, b: ir.Value) -> ir.Value:
        """a if a > b else b: the result is b when either is NaN; of two zeros, either."""
        return self._extreme(">", "max", a, b)

    def _extreme(self, op: str, name: str, a: ir.Value, b: ir.Value) -> ir.Value:
        if self.has_neon and _is_plain(a):
            return self.float_intrinsic(f"{name}imum", a, b)
        if self.has_neon and _is_plain(b):
            return self.float_intrinsic(f"{name}num", a, b)
        return self.select(self.compare(op, a, b), a, b)

    # ---- masks -----------------------------------------------------------------------

    def compare(self, op: str, a: ir.Value, b: ir.Value) -> ir.Value:
        """A mask from "<", "<=", ">", ">=", "==" (false on NaN) or "!=" (true on NaN)."""
        if op == "!=":
            return self.builder.fcmp_unordered(op, a, b)
        return self.builder.fcmp_ordered(op, a, b)

    def int_compare(self, op: str, a: ir.Value, b: ir.Value) -> ir.Value:
        """A mask from a signed comparison of integer vectors."""
        return self.builder.icmp_signed(op, a, b)

    def select(self, mask: ir.Value, a: ir.Value, b: ir.Value) -> ir.Value:
        """a where the mask is set, b elsewhere."""
        return self.builder.select(mask, a, b)

    def mask_and(self, a: ir.Value, b: ir.Value) -> ir.Value:
        """Both masks."""
        return self.builder.and_(a, b)

    def mask_or(self, a: ir.Value, b: ir.Value) -> ir.Value:
        """Either mask."""
        return self.builder.or_(a, b)

    def mask_not(self, a: ir.Value) -> ir.Value:
        """The lanes that the mask leaves out."""
        return self.builder.xor(a, ir.Constant(self.mask_type, 1))

    def isnan(self, a: ir.Value) -> ir.Value:
        """A mask of the NaN lanes."""
        return self.builder.fcmp_unordered("uno", a, a)

    def any(self, mask: ir.Value) -> ir.Value:
        """A scalar i1: whether any lane of the mask is set."""
        name = f"llvm.vector.reduce.or.v{self.width}i1"
        return self.intrinsic(name, ir.IntType(1), mask)

    # ---- other types -----------------------------------------------------------------

    def widened(self, a: ir.Value) -> ir.Value:
        """float32 values as those of `resized("float64")`."""
        return self.builder.fpext(a, self.resized("float64").type)

    def narrowed(self, a: ir.Value) -> ir.Value:
        """Values of `resized("float64")` as float32, rounded."""
        return self.builder.fptrunc(a, self.type)

    # ---- bits and integers -----------------------------------------------------------

    def to_bits(self, a: ir.Value) -> ir.Value:
        """The bit patterns of the floats, as integers of the same size."""
        return self.builder.bitcast(a, self.int_type)

    def from_bits(self, a: ir.Value) -> ir.Value:
        """The floats with these bit patterns."""
        return self.builder.bitcast(a, self.type)

    def to_int(self, a: ir.Value) -> ir.Value:
        """Convert values (not bits), truncating; poison outside the integer range."""
        return self.builder.fptosi(a, self.int_type)

    def to_float(self, a: ir.Value) -> ir.Value:
        """Convert signed integer values (not bits) to floats."""
        return self.builder.sitofp(a, self.type)

    def int_add(self, a: ir.Value, b: ir.Value) -> ir.Value:
        """a + b modulo the integer size."""
        return self.builder.add(a, b)

    def int_sub(self, a: ir.Value, b: ir.Value) -> ir.Value:
        """a - b modulo the integer size."""
        return self.builder.sub(a, b)

    def int_and(self, a: ir.Value, b: ir.Value) -> ir.Value:
        """Bitwise and."""
        return self.builder.and_(a, b)

    def int_or(self, a: ir.Value, b: ir.Value) -> ir.Value:
        """Bitwise or."""
        return self.builder.or_(a, b)

    def int_xor(self, a: ir.Value, b: ir.Value) -> ir.Value:
        """Bitwise exclusive or."""
        return self.builder.xor(a, b)

    def shift_left(self, a: ir.Value, count: int) -> ir.Value:
        """Shift every lane left by the same count."""
        return self.builder.shl(a, self.int_constant(count))

    def shift_right(self, a: ir.Value, count: int) -> ir.Value:
        """Shift every lane right, copying the sign bit in."""
        return self.builder.ashr(a, self.int_constant(count))

    def shift_right_zero(self, a: ir.Value, count: int) -> ir.Value:
        """Shift every lane right, moving zeros in."""
        return self.builder.lshr(a, self.int_constant(count))

    # ---- instructions of some processors ---------------------------------------------

    def low_bits(self, wide: ir.Value) -> ir.Value:
        """The lower halves of integers of 64 bits."""
        return self.builder.trunc(wide, self.int_type)

    def scaled(self, a: ir.Value, n: ir.Value) -> ir.Value:
        """a 2^floor(n)."""
        return self._masked("scalef", a, n)

    def limited(self, a: ir.Value, bound: ir.Value) -> ir.Value:
        """The one of smaller magnitude, with the sign of the first."""
        return self._masked("range", a, bound, _i32(2))

    def exponent(self, a: ir.Value) -> ir.Value:
        """floor(log2 |a|)."""
        return self._masked("getexp", a)

    def mantissa(self, a: ir.Value) -> ir.Value:
        """a over a power of two, in [3/4, 3/2); NaN of negative numbers: immediate 11."""
        return self._masked("getmant", a, _i32(11))

    def lookup(self, index: ir.Value, table: Sequence[Number]) -> ir.Value:
        """table[index] from one register or two; only the low bits of the index count."""
        if len(table) == self.width:
            return self.intrinsic(_PERMUTED, self.type, self.lanes(table), index)
        name = f"llvm.x86.avx512.vpermi2var.{self._suffix}"
        first, second = self.lanes(table[: self.width]), self.lanes(table[self.width :])
        return self.intrinsic(name, self.type, first, index, second)

    def root_estimate(self, a: ir.Value) -> ir.Value:
        """About 1 / sqrt(a)."""
        if self.has_neon:
            return self.intrinsic(f"llvm.aarch64.neon.frsqrte.{self._shape}", self.type, a)
        name = f"llvm.x86.avx512.rsqrt14.{self._suffix}"
        return self.intrinsic(name, self.type, a, self.constant(0), self._all_lanes)

    def root_step(self, a: ir.Value, b: ir.Value) -> ir.Value:
        """(3 - a b) / 2."""
        return self.intrinsic(f"llvm.aarch64.neon.frsqrts.{self._shape}", self.type, a, b)

    def _masked(self, name: str, *arguments: ir.Value) -> ir.Value:
        """A masked AVX-512 instruction, with no mask and no rounding override."""
        full = f"llvm.x86.avx512.mask.{name}.{self._suffix}"
        tail = (self.constant(0), self._all_lanes, _i32(_CURRENT_ROUNDING))
        return self.intrinsic(full, self.type, *arguments, *tail)

    @property
    def _suffix(self) -> str:
        return "ps.512" if self.dtype == "float32" else "pd.512"

    @property
    def _shape(self) -> str:
        return f"v{self.width}f{self.bits}"

    @property
    def _all_lanes(self) -> ir.Value:
        """The write mask that makes a masked instruction an unmasked one."""
        return ir.Constant(ir.IntType(self.width), -1)

    # ---- calls -----------------------------------------------------------------------

    def rescue(self, name: str, x: ir.Value, fast: ir.Value, far: ir.Value) -> ir.Value:
        """`fast`, but the library's function in the lanes of `far`, in a cold branch.

        The choice is made lane by lane: which path a lane's value comes from depends on that
        lane only.
        """
        b = self.builder
        before, function = b.block, b.function
        cold = function.append_basic_block(f"{name}.far")
        after = function.append_basic_block(f"{name}.end")
        b.cbranch(self.any(far), cold, after, (1, 1 << 20))
        b.position_at_end(cold)
        exact = b.call(self._library_function(name), [x])
        rescued = self.select(far, exact, fast)
        b.branch(after)
        b.position_at_end(after)
        result = b.phi(self.type)
        result.add_incoming(fast, before)
        result.add_incoming(rescued, cold)
        return result

    def _library_function(self, name: str) -> ir.Function:
        """An internal function that calls libm for every lane, one per module and shape."""
        full = f"pairfold.{name}.v{self.width}f{self.bits}"
        found = self.module.globals.get(full)
        if found is not None:
            return found
        function = ir.Function(self.module, ir.FunctionType(self.type, [self.type]), full)
        function.linkage = "internal"
        for attribute in ("noinline", "cold", "nounwind"):
            function.attributes.add(attribute)
        builder = ir.IRBuilder(function.append_basic_block())
        inner = Simd(builder, self.dtype, self.width, self.features)
        inner.builder.ret(inner.float_intrinsic(name, function.args[0]))
        return function
