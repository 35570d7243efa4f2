"""The writer of LLVM IR, its text read, compiled and run by LLVM, against NumPy and Python."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Iterator
from typing import Any

import llvmlite.binding as llvm
import numpy as np
import pytest

from pairfold.backends.llvm import ir
from pairfold.backends.llvm.machine import machine, new_target_machine

I1, I8, I32, I64 = (ir.IntType(bits) for bits in (1, 8, 32, 64))
FLOAT, DOUBLE, POINTER = ir.FloatType(), ir.DoubleType(), ir.PointerType()
ALIGNED = 8

Emit = Callable[[ir.IRBuilder, ir.Value, ir.Value], ir.Value]


def run(module: ir.Module, name: str, *given: Any) -> int:
    """Call a function of a module with integers and addresses of arrays."""
    engine = llvm.create_mcjit_compiler(
        llvm.parse_assembly(str(module), llvm.create_context()), new_target_machine(machine())
    )
    engine.finalize_object()
    values = [g.ctypes.data if isinstance(g, np.ndarray) else int(g) for g in given]
    kind = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * len(values))
    return kind(engine.get_function_address(name))(*values)


def begin(returns: ir.Type, *kinds: ir.Type) -> tuple[ir.Module, ir.Function, ir.IRBuilder]:
    """A module with a function `f`, and a builder in it."""
    module = ir.Module("example")
    function = ir.Function(module, ir.FunctionType(returns, kinds), "f")
    return module, function, ir.IRBuilder(function.append_basic_block())


def of_two(emit: Emit, a: int, b: int) -> int:
    """What an instruction makes of two integers of 64 bits; truth values are 0 and 1."""
    module, function, builder = begin(I64, I64, I64)
    builder.ret(builder.zext(emit(builder, *function.args), I64))
    return run(module, "f", a, b)


INTEGERS = [
    ("add", lambda a, b: a + b),
    ("sub", lambda a, b: a - b),
    ("mul", lambda a, b: a * b),
    ("sdiv", lambda a, b: int(a / b)),
    ("srem", lambda a, b: int(math.fmod(a, b))),
    ("shl", lambda a, b: a << b),
    ("ashr", lambda a, b: a >> b),
    ("lshr", lambda a, b: (a % 2**64) >> b),
    ("and_", lambda a, b: a & b),
    ("or_", lambda a, b: a | b),
    ("xor", lambda a, b: a ^ b),
]


@pytest.mark.parametrize(("name", "meaning"), INTEGERS, ids=[name for name, _ in INTEGERS])
@pytest.mark.parametrize(("a", "b"), [(23, 5), (-23, 5), (7, 7)])
def test_integers(name: str, meaning: Callable[[int, int], int], a: int, b: int) -> None:
    assert of_two(lambda w, x, y: getattr(w, name)(x, y), a, b) == meaning(a, b)


def test_the_opposite_and_the_complement_of_an_integer() -> None:
    assert of_two(lambda w, x, y: w.neg(w.sub(x, y)), 23, 5) == -18
    assert of_two(lambda w, x, y: w.not_(x), 23, 5) == ~23


COMPARISONS = {
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
}


@pytest.mark.parametrize("op", COMPARISONS)
@pytest.mark.parametrize(("a", "b"), [(-3, 5), (5, -3), (4, 4)])
def test_comparisons_of_integers(op: str, a: int, b: int) -> None:
    assert of_two(lambda w, x, y: w.icmp_signed(op, x, y), a, b) == COMPARISONS[op](a, b)
    unsigned = COMPARISONS[op](a % 2**64, b % 2**64)
    assert of_two(lambda w, x, y: w.icmp_unsigned(op, x, y), a, b) == unsigned


def test_a_choice_takes_the_first_where_the_condition_holds() -> None:
    larger: Emit = lambda w, x, y: w.select(w.icmp_signed(">", x, y), x, y)  # noqa: E731
    assert [of_two(larger, a, b) for a, b in [(2, 9), (9, 2)]] == [9, 9]


def vectors(emit: Emit, x: Any, y: Any, out: Any) -> Any:
    """What an instruction makes of two vectors of all numbers of the arrays."""
    kinds = {"f": {4: FLOAT, 8: DOUBLE}, "i": {1: I8, 4: I32, 8: I64}, "u": {1: I8}}
    module, function, builder = begin(ir.VoidType(), *[POINTER] * 3)
    given = []
    for array, address in zip((x, y), function.args[:2], strict=True):
        kind = ir.VectorType(kinds[array.dtype.kind][array.itemsize], array.size)
        given.append(builder.load(address, kind, array.itemsize))
    builder.store(emit(builder, *given), function.args[2], out.itemsize)
    builder.ret_void()
    run(module, "f", x, y, out)
    return out


REALS = [("fadd", np.add), ("fsub", np.subtract), ("fmul", np.multiply), ("fdiv", np.divide)]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("name", "meaning"), REALS, ids=[name for name, _ in REALS])
def test_real_arithmetic(name: str, meaning: Any, dtype: str) -> None:
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(2, 8)).astype(dtype)
    got = vectors(lambda w, a, b: getattr(w, name)(a, b), x, y, np.zeros(8, dtype))
    np.testing.assert_array_equal(got, meaning(x, y))
    got = vectors(lambda w, a, b: w.fneg(a), x, y, np.zeros(8, dtype))
    np.testing.assert_array_equal(got, -x)


@pytest.mark.parametrize("op", COMPARISONS)
def test_comparisons_of_reals(op: str) -> None:
    nan = math.nan
    x, y = np.array([[1, 2, 3, nan], [2, 2, 2, 2]], "float64")
    ordered = [bool(COMPARISONS[op](a, b)) and a == a for a, b in zip(x, y, strict=True)]
    out = np.zeros(4, "uint8")

    def wide(compare: str) -> Emit:
        kind = ir.VectorType(I8, 4)
        return lambda w, a, b: w.zext(getattr(w, compare)(op, a, b), kind)

    np.testing.assert_array_equal(vectors(wide("fcmp_ordered"), x, y, out), ordered)
    np.testing.assert_array_equal(vectors(wide("fcmp_unordered"), x, y, out), [*ordered[:3], True])


def test_a_comparison_that_finds_nan_only() -> None:
    x = np.array([1.0, math.nan, math.inf, 0.0])
    kind = ir.VectorType(I8, 4)
    emit: Emit = lambda w, a, b: w.zext(w.fcmp_unordered("uno", a, b), kind)  # noqa: E731
    np.testing.assert_array_equal(vectors(emit, x, x, np.zeros(4, "uint8")), np.isnan(x))


CONVERSIONS = [
    ("sitofp", "int32", "float64", [-3, 2, 7, 0]),
    ("uitofp", "int32", "float64", [3, 2, 7, 0]),
    ("fptosi", "float32", "int32", [-3.7, 2.5, 7, 0]),
    ("fptoui", "float32", "int32", [3.7, 2.5, 7, 0]),
    ("fpext", "float32", "float64", [0.1, -2, 3, 4]),
    ("fptrunc", "float64", "float32", [0.1, -2, 3, 4]),
    ("trunc", "int64", "int32", [-3, 2**31 - 1, 5, 6]),
]


@pytest.mark.parametrize(("name", "before", "after", "values"), CONVERSIONS)
def test_conversions(name: str, before: str, after: str, values: list[float]) -> None:
    kinds = {"int32": I32, "int64": I64, "float32": FLOAT, "float64": DOUBLE}
    x, out = np.array(values, before), np.zeros(4, after)
    to = ir.VectorType(kinds[after], 4)
    got = vectors(lambda w, a, b: getattr(w, name)(a, to), x, x, out)
    np.testing.assert_array_equal(got, x.astype(after))


def test_bits_stay_the_same() -> None:
    x = np.array([1.5, -0.0, math.inf, 3e-310])
    kind = ir.VectorType(I64, 4)
    got = vectors(lambda w, a, b: w.bitcast(a, kind), x, x, np.zeros(4, "int64"))
    np.testing.assert_array_equal(got, x.view("int64"))


def test_what_has_the_type_already_is_not_converted() -> None:
    _, function, builder = begin(I64, I64)
    assert builder.trunc(function.args[0], I64) is function.args[0]


# -- constants ----------------------------------------------------------------------------------

NUMBERS = [0.0, -0.0, 1.0, 0.1, -1e300, math.inf, -math.inf, 5e-324, math.nan, 1e-40]


@pytest.mark.parametrize(("kind", "dtype"), [(FLOAT, "float32"), (DOUBLE, "float64")])
def test_constants_have_all_their_bits(kind: ir.Type, dtype: str) -> None:
    numbers = [float(v) for v in np.array([n for n in NUMBERS if abs(n) != 1e300], dtype)]
    each = ir.VectorType(kind, len(numbers))
    none = np.zeros(len(numbers), dtype)
    got = vectors(lambda w, a, b: ir.Constant(each, numbers), none, none, none.copy())
    np.testing.assert_array_equal(got, np.array(numbers, dtype))
    assert (np.signbit(got) == np.signbit(numbers)).all()
    for number in numbers:
        got = vectors(lambda w, a, b, n=number: ir.Constant(each, n), none, none, none.copy())
        np.testing.assert_array_equal(got, np.full_like(none, number))
    got = vectors(lambda w, a, b: ir.Constant(each, None), none, none, none + 1)
    np.testing.assert_array_equal(got, none)


def test_the_one_number_of_a_constant() -> None:
    four = ir.VectorType(DOUBLE, 4)
    assert ir.Constant(four, 2.5).number == 2.5
    assert ir.Constant(four, None).number == 0
    assert ir.Constant(four, [1, 2, 3, 4]).number is None


@pytest.mark.parametrize("kind", [ir.VoidType(), POINTER, ir.FunctionType(I64, [I64])])
def test_no_numbers_of_types_that_have_none(kind: ir.Type) -> None:
    with pytest.raises(TypeError, match="no constants"):
        ir.Constant(kind, 1)


def test_an_address_of_nothing() -> None:
    module, function, builder = begin(I64, POINTER)
    none = builder.icmp_signed("==", function.args[0], ir.Constant(POINTER, None))
    builder.ret(builder.zext(none, I64))
    assert (run(module, "f", 0), run(module, "f", 8)) == (1, 0)


def test_types_are_equal_when_their_spelling_is() -> None:
    assert ir.VectorType(DOUBLE, 4) == ir.VectorType(ir.DoubleType(), 4)
    assert len({I64, ir.IntType(64), I32}) == 2
    assert I64 != "i64"


# -- elements, memory, ways on ------------------------------------------------------------------


def test_elements_are_put_taken_and_mixed() -> None:
    x, y = np.arange(4.0), np.arange(4.0) + 10
    place = ir.Constant(I32, 2)

    def emit(w: ir.IRBuilder, a: ir.Value, b: ir.Value) -> ir.Value:
        third = w.extract_element(b, place)
        changed = w.insert_element(a, third, ir.Constant(I32, 0))
        return w.shuffle_vector(changed, b, ir.Constant(ir.VectorType(I32, 5), [0, 1, 4, 7, 3]))

    np.testing.assert_array_equal(vectors(emit, x, y, np.zeros(5)), [12, 1, 10, 13, 3])
    undefined = ir.Undefined(ir.VectorType(DOUBLE, 4))
    every = ir.Constant(ir.VectorType(I32, 4), None)
    got = vectors(lambda w, a, b: w.shuffle_vector(b, undefined, every), x, y, np.zeros(4))
    np.testing.assert_array_equal(got, np.full(4, 10.0))


def test_a_loop_sums_words_of_memory() -> None:
    """Phi nodes, branches, addresses: what `i` and the sum are depends on where one comes from."""
    module, function, builder = begin(I64, POINTER, I64)
    words, count = function.args
    before, loop, after = builder.block, *map(builder.append_basic_block, ("loop", "after"))
    zero, one = ir.Constant(I64, 0), ir.Constant(I64, 1)
    builder.cbranch(builder.icmp_signed(">", count, zero), loop, after, (1000, 1))
    builder.position_at_end(loop)
    i, total = builder.phi(I64), builder.phi(I64)
    here = builder.gep(words, builder.mul(i, ir.Constant(I64, 8)))
    more, following = builder.add(total, builder.load(here, I64, 8)), builder.add(i, one)
    for phi, first, following_ in ((i, zero, following), (total, zero, more)):
        phi.add_incoming(first, before)
        phi.add_incoming(following_, loop)
    builder.cbranch(builder.icmp_signed("<", following, count), loop, after)
    builder.position_at_end(after)
    result = builder.phi(I64)
    result.add_incoming(zero, before)
    result.add_incoming(more, loop)
    builder.ret(result)
    assert '!"branch_weights", i32 1000, i32 1' in str(module)
    assert run(module, "f", np.arange(17), 17) == 136
    assert run(module, "f", np.arange(17), 0) == 0


def test_words_that_threads_share() -> None:
    module, function, builder = begin(I64, POINTER)
    word = function.args[0]
    before = builder.atomic_rmw("add", word, ir.Constant(I64, 5), "acq_rel")
    builder.fence("seq_cst")
    after = builder.load_atomic(word, "acquire", 8, I64)
    builder.ret(builder.add(builder.mul(before, ir.Constant(I64, 1000)), after))
    memory = np.array([7])
    assert (run(module, "f", memory), memory[0]) == (7012, 12)


def test_an_integer_as_an_address() -> None:
    module, function, builder = begin(I64, POINTER)
    table = builder.inttoptr(builder.load(function.args[0], I64, 8), POINTER)
    builder.ret(builder.load(table, I64, 8))
    data = np.array([77])
    assert run(module, "f", np.array([data.ctypes.data])) == 77


# -- modules ------------------------------------------------------------------------------------


def test_functions_call_each_other() -> None:
    module, function, builder = begin(I64, I64)
    helper = ir.Function(module, ir.FunctionType(I64, [I64]), "helper.of.f")
    helper.linkage = "internal"
    helper.attributes.update(("noinline", "nounwind"))
    inside = ir.IRBuilder(helper.append_basic_block("entry"))
    inside.ret(inside.mul(helper.args[0], helper.args[0]))
    intrinsic = module.declared("llvm.ctpop.i64", ir.FunctionType(I64, [I64]))
    assert module.declared("llvm.ctpop.i64", ir.FunctionType(I64, [I64])) is intrinsic
    builder.ret(builder.call(intrinsic, [builder.call(helper, function.args)]))
    assert "define internal i64 @helper.of.f(i64 %a0) noinline nounwind" in str(module)
    assert run(module, "f", 11) == bin(121).count("1")


def test_a_call_that_returns_nothing() -> None:
    module, function, builder = begin(ir.VoidType(), POINTER)
    kind = ir.FunctionType(ir.VoidType(), [POINTER])
    put = ir.Function(module, kind, "put")
    inside = ir.IRBuilder(put.append_basic_block())
    inside.store(ir.Constant(I64, 5), put.args[0], 8)
    inside.ret_void()
    assert builder.call(put, function.args).type == ir.VoidType()
    builder.ret_void()
    memory = np.zeros(1, np.int64)
    run(module, "f", memory)
    assert memory[0] == 5


def test_a_name_is_given_once() -> None:
    module, function, _ = begin(I64, I64)
    with pytest.raises(ValueError, match="two functions named f"):
        ir.Function(module, function.function_type, "f")


def test_assembly_is_called_and_its_text_is_quoted() -> None:
    module, function, builder = begin(I64, I64)
    same = ir.InlineAsm(ir.FunctionType(I64, [I64]), "", "=r,0")
    builder.ret(builder.call(same, function.args))
    assert run(module, "f", -9) == -9
    odd = ir.InlineAsm(ir.FunctionType(ir.VoidType(), []), 'a "b"\\\n', "", side_effect=True)
    assert odd.name == r'asm sideeffect "a \22b\22\5c\0a", ""'


def lines(module: ir.Module) -> Iterator[str]:
    """The lines of a module's text, without spaces around."""
    return map(str.strip, str(module).splitlines())


def test_llvm_says_which_line_is_wrong() -> None:
    module, function, builder = begin(I64, I64)
    builder.ret(builder.add(function.args[0], ir.Constant(DOUBLE, 1.0)))
    assert any(line.startswith("%v1 = add i64 %a0, 0x3ff") for line in lines(module))
    with pytest.raises(RuntimeError, match="floating point constant invalid for type"):
        llvm.parse_assembly(str(module))


def test_blocks_of_one_name_get_numbers() -> None:
    _, function, builder = begin(I64, I64)
    names = [builder.append_basic_block("loop").name for _ in range(3)]
    assert names[0] == "loop"
    assert len({block.name for block in function.blocks}) == 4


def test_code_that_nothing_gets_to() -> None:
    module, _, builder = begin(I64, I64)
    there = builder.append_basic_block("never")
    builder.ret(ir.Constant(I64, 4))
    builder.position_at_end(there)
    builder.unreachable()
    assert run(module, "f", 1) == 4


def test_functions_are_called_by_their_addresses():
    module, function, builder = begin(I64, I64, I64)
    square = ir.Function(module, ir.FunctionType(I64, [I64]), "square")
    inside = ir.IRBuilder(square.append_basic_block())
    inside.ret(inside.mul(square.args[0], square.args[0]))
    address = builder.ptrtoint(ir.Value(POINTER, square.name), I64)
    same = ir.Pointed(square.function_type, builder.inttoptr(address, POINTER))
    builder.ret(builder.call(same, [function.args[0]]))
    assert run(module, "f", 12, 0) == 144
