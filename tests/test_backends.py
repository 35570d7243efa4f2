"""Machine code against the NumPy interpreter and the dense oracle, for every plan and target."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import hypothesis
import numpy as np
import pytest
from checks import allow, assert_close, assert_same_bits, tolerance
from formulas import Formula, formulas, random_formula
from hypothesis import strategies as st
from products import some
from sweep_math import exact_reference, ulp_error, wide_reference
from targets import NAMES, crossed, left_out

import pairfold
from pairfold.arrays.numpy import NumpyArrays
from pairfold.backends.llvm.native import write_module
from pairfold.backends.reference.interpreter import evaluate
from pairfold.core.node import Axis, topological
from pairfold.frontends.accuracy import Accuracy
from pairfold.frontends.parse import parse
from pairfold.frontends.reduction import FormulaReduction
from pairfold.numpy import Genred
from pairfold.ops.reductions import REDUCTIONS
from pairfold.ops.table import OPERATIONS
from pairfold.settings import current, settings

JUMPS = {"IfElse", "Abs", "ReLU", "Mod"}
JUMPS |= {op.name for op in OPERATIONS.values() if op.args and op.derivative == "0"}
ALIASES = ["x = Vi(3)", "y = Vj(3)", "a = Vj(1)", "p = Pm(1)"]
FORMULAS = {
    "seed": "Square(p-a)*Exp(x+y)",
    "gaussian": "Exp(-SqDist(x,y))*a",
    "row factor": "x*(p*a)",
    "no j": "Sin(x)+p",
    "no i": "a*Cos(y)",
    "parameters only": "Exp(p)",
    "branches": "IfElse(x-y, Sqrt(Abs(x)), Tanh(y)*a)",
    "gradient": "Grad(Exp(-SqDist(x,y))*a, x, p)",
    "joined": "Concat(x*a, Exp(y))",
}


def arrays(rows: int, columns: int, dtype: str, dim: int = 3, seed: int = 0) -> list[Any]:
    """Arguments x, y, a, p of moderate size."""
    rng = np.random.default_rng(seed)
    shapes = [(rows, dim), (columns, dim), (columns, 1), (1,)]
    return [rng.uniform(-1, 1, shape).astype(dtype) for shape in shapes]


def fold_of(formula: str, axis: int, aliases: list[str] | None = None) -> FormulaReduction:
    """The fold of a formula."""
    parsed = parse(formula, aliases or ALIASES)
    kept = Axis.I if axis == 1 else Axis.J
    return FormulaReduction(parsed.node, parsed.variables, "Sum", kept, parsed.names)


def check(fold: FormulaReduction, given: list[Any], **options: Any) -> None:
    """Machine code equals the reference, under some settings."""
    with settings(**options):
        got = fold(NumpyArrays, given)
        _, sizes, _ = fold.check(given)
        want = fold.reference(NumpyArrays, given)[0]
    terms = max(sizes.i, sizes.j)
    assert_close(got, want, terms=terms, formula=(fold.formula, options))


@pytest.mark.any_target
@pytest.mark.parametrize(
    ("entry", "dtype", "target"), crossed(list(itertools.product(FORMULAS, (0, 1))))
)
def test_every_target_equals_the_reference(entry: tuple[str, int], dtype: str, target: str) -> None:
    name, axis = entry
    fold = fold_of(FORMULAS[name], axis)
    for lanes in ("row", "column"):
        check(fold, arrays(17, 23, dtype), target=target, lanes=lanes)


@pytest.mark.any_target
@pytest.mark.parametrize("target", [target for target in NAMES if left_out(target)])
def test_a_target_that_is_left_out_writes_the_code_of_native(target: str) -> None:
    aliases = ["x = Vi(19)", "y = Vj(19)", "b = Vj(17)"]
    folds = [fold_of(FORMULAS[name], 1) for name in ("seed", "branches", "joined")]
    folds.append(fold_of("Exp(-SqDist(x,y))*b", 1, aliases))
    for fold, lanes, dtype in itertools.product(folds, ("row", "column"), ("float32", "float64")):
        code = []
        for name in (target, "native"):
            with settings(target=name, lanes=lanes):
                launcher = fold.launcher(dtype, current())
                plan = launcher.plan(100, 100, current())
                code.append((plan.width, str(write_module(launcher.kernel, plan))))
        assert code[0] == code[1]


@pytest.mark.parametrize("unroll", [1, 2, 16])
@pytest.mark.parametrize("name", FORMULAS)
def test_component_loops_equal_unrolled_components(name: str, unroll: int) -> None:
    for axis, lanes in itertools.product((0, 1), ("row", "column")):
        check(fold_of(FORMULAS[name], axis), arrays(17, 23, "float64"), unroll=unroll, lanes=lanes)


PLANS = [
    {"lanes": lanes, "row_vectors": vectors, "column_jam": jam, "block": block, "splits": splits}
    for lanes in ("row", "column")
    for vectors in (1, 2, 4)
    for jam, block, splits in ((1, 8, 1), (3, 16, 3), (6, 0, 0), (4, 24, 7))
]


@some("plan", PLANS, lambda p: PLANS.index(p) % 2 == 0, lambda p: "-".join(map(str, p.values())))
def test_every_plan_equals_the_reference(plan: dict[str, Any]) -> None:
    aliases = ["x = Vi(19)", "y = Vj(19)", "b = Vj(2)"]
    rng = np.random.default_rng(3)
    given = [rng.uniform(-0.5, 0.5, shape) for shape in ((37, 19), (101, 19), (101, 2))]
    check(fold_of("Exp(-SqDist(x,y))*b", 1, aliases), given, **plan)
    check(fold_of("Exp(-SqDist(x,y))*(y-x)", 1, aliases), given, **plan)
    check(fold_of("Exp(-SqDist(x,y))*(y|x)", 0, aliases), given, **plan)


@pytest.mark.parametrize("rows", [0, 1, 2, 15, 16, 17, 63, 64, 65, 129])
@pytest.mark.parametrize("columns", [0, 1, 7, 8, 31, 257, 1025])
def test_every_size_of_tail_is_right(rows: int, columns: int) -> None:
    for lanes in ("auto", "row", "column"):
        check(fold_of(FORMULAS["gaussian"], 1), arrays(rows, columns, "float64"), lanes=lanes)


DIMS = [1, 2, 5, 8, 9, 16, 17, 100, 1000]


@some(
    "dim,dtype",
    [(dim, dtype) for dim in DIMS for dtype in ("float32", "float64")],
    lambda entry: (entry[1] == "float32") == DIMS.index(entry[0]) % 2,
)
def test_every_dimension_of_points_is_right(dim: int, dtype: str) -> None:
    aliases = [f"x = Vi({dim})", f"y = Vj({dim})", "a = Vj(1)", "p = Pm(1)"]
    given = arrays(17, 23, dtype, dim)
    given[0] /= dim**0.5
    given[1] /= dim**0.5
    x, y, a, p = (array.astype("float64") for array in given)
    differences = x[:, None] - y
    pairs = {
        "Exp(-SqDist(x,y))*a": np.exp(-(differences**2).sum(-1))[..., None] * a,
        "p*Exp(x|y)*(x-y)": p * np.exp(x @ y.T)[..., None] * differences,
    }
    for formula, dense in pairs.items():
        for axis in (0, 1):
            fold = fold_of(formula, axis, aliases)
            about = {"terms": dense.shape[axis], "formula": (formula, axis)}
            assert_close(fold(NumpyArrays, given), dense.sum(axis), **about)
            if dim < 1000:  # the interpreter takes every component of a component's sum
                check(fold, given)


def views(array: Any) -> dict[str, Any]:
    """The same values with other strides."""
    wide = np.repeat(np.repeat(array, 2, axis=0), 3, axis=1)
    return {
        "contiguous": np.ascontiguousarray(array),
        "fortran": np.asfortranarray(array),
        "sliced": wide[::2, ::3],
        "reversed": np.ascontiguousarray(array[::-1, ::-1])[::-1, ::-1],
        "unaligned": np.frombuffer(b"\0" + array.tobytes(), array.dtype, offset=1).reshape(
            array.shape
        ),
    }


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", list(views(np.ones((2, 3)))))
def test_any_strides_give_the_same_bits(kind: str, dtype: str) -> None:
    given = arrays(37, 83, dtype)
    want = Genred(FORMULAS["seed"], ALIASES, axis=1)(*given)
    others = [views(array)[kind] for array in given[:3]] + [given[3]]
    assert_same_bits(Genred(FORMULAS["seed"], ALIASES, axis=1)(*others), want)


def test_zero_strides_are_read_as_repetition() -> None:
    x, y, a, p = arrays(37, 83, "float64")
    x, a = np.broadcast_to(x[:1], (37, 3)), np.broadcast_to(a[:1], (83, 1))
    got = Genred(FORMULAS["seed"], ALIASES, axis=1)(x, y, a, p)
    assert_close(got, ((p - a) ** 2 * np.exp(x[:, None] + y)).sum(1), terms=83)


def test_the_output_array_may_have_any_strides() -> None:
    given = arrays(37, 83, "float64")
    genred = Genred(FORMULAS["seed"], ALIASES, axis=1)
    out = np.full((74, 6), np.nan)
    view = out[::2, 1::2]
    assert genred(*given, out=view) is view
    assert_same_bits(view, genred(*given))
    assert np.isnan(out[1::2]).all()
    assert np.isnan(out[:, ::2]).all()


@some("seed", range(60), lambda seed: seed % 2 == 0)
def test_random_formulas_equal_reference_and_oracle(seed: int) -> None:
    run_random(seed)


def run_random(seed: int, call: Callable[..., Any] = FormulaReduction.__call__) -> None:
    """One random formula under a random plan, in both dtypes, against interpreter and oracle.

    `call`: computes a fold of arrays, as (fold, adapter, arrays).

    What a dtype can reach depends on the formula (the sine of a large power, say). In float64
    machine code may err 64 times as far as the interpreter moves when the arguments do by 2^-51;
    in float32, 50 times as far as the interpreter run in float32. A formula with jumps
    (comparisons, signs) may land on the other side of one in float32, so those are compared in
    float64 only.
    """
    rng = np.random.default_rng(seed)
    drawn = random_formula(rng)
    rows, columns = (int(n) for n in rng.choice([1, 2, 5, 17, 23, 40], 2))
    given = drawn.arrays(rng, rows, columns)
    kept = (Axis.I, Axis.J)[rng.integers(2)]
    fold = FormulaReduction(drawn.node, drawn.variables, "Sum", kept)
    options: dict[str, Any] = {
        "lanes": str(rng.choice(["auto", "row", "column"])),
        "unroll": int(rng.choice([1, 2, 16])),
        "splits": int(rng.choice([0, 2])),
        "column_jam": int(rng.choice([0, 1, 5])),
        "row_vectors": int(rng.choice([0, 1])),
        "block": int(rng.choice([0, 8])),
        "row_tiles": int(rng.choice([0, 1, 3])),
        "output_jam": int(rng.choice([0, 1, 3])),
        "unroll_pairs": int(rng.choice([1, 3, 16])),
    }
    count = (rows, columns) if kept == Axis.I else (columns, rows)
    about = {"formula": (drawn, options), "seed": seed}
    pairs = np.abs(drawn.pairs(given, rows, columns))
    scale = float(pairs[np.isfinite(pairs)].max(initial=1.0)) * count[1]
    with settings(**options):
        kernel = fold.kernel()
        narrow = {position: array.astype("float32") for position, array in given.items()}
        narrow_want = evaluate(kernel, narrow, *count)
        in_float32 = evaluate(kernel, narrow, *count, "float32")
        spread = np.abs(in_float32 - narrow_want)
        spread = float(spread[np.isfinite(spread)].max(initial=0.0))

        want = evaluate(kernel, given, *count)
        got = call(fold, NumpyArrays, list(given.values()))
        noise = max(_change(kernel, given, count, want, sign) for sign in (1, -1))
        atol = 64 * noise + tolerance("float64", count[1]) * scale
        assert_close(got, want, atol=atol, **about)
        if not drawn.differentiates:
            assert_close(want, drawn.oracle(given, rows, columns, kept), atol=atol, **about)
        names = {node.op.name for node in topological([drawn.node])}
        if not names & JUMPS and np.isfinite(in_float32).all():
            got = call(fold, NumpyArrays, list(narrow.values()))
            atol = 50 * spread + tolerance("float32", count[1]) * scale
            assert_close(got, narrow_want, atol=atol, **about)


def _change(kernel: Any, given: Any, count: Any, want: Any, sign: int) -> float:
    """How far the interpreter's result moves when every argument does by a unit in 2^51."""
    moved = {position: array * (1 + sign * 2.0**-51) for position, array in given.items()}
    change = np.abs(evaluate(kernel, moved, *count) - want)
    return float(change[np.isfinite(change)].max(initial=0.0))


def test_threads_do_not_change_a_single_bit() -> None:
    given = arrays(3001, 2003, "float32")
    genred = Genred(FORMULAS["seed"], ALIASES, axis=1)
    with settings(threads=1):
        one = genred(*given)
    for threads in (2, 3, 5):
        with settings(threads=threads):
            assert_same_bits(genred(*given), one)


def test_long_sums_keep_their_accuracy_in_float32() -> None:
    x, y = np.zeros((1, 1), "float32"), np.full((3_000_001, 1), 0.1, "float32")
    got = Genred("y+0*x", ["x = Vi(1)", "y = Vj(1)"], axis=1)(x, y)
    # Equal terms round alike, so a lane may be off by half a unit per term of a block: with four
    # lanes of float32, 64 terms or 4e-6 at worst. One running sum is off by 1e-2.
    assert_close(got, [[3_000_001 * float(np.float32(0.1))]], rtol=4e-6)


def test_float64_blocks_are_added_with_compensation() -> None:
    rng = np.random.default_rng(0)
    y = rng.normal(size=(200_000, 1)) * 10.0 ** rng.integers(0, 12, (200_000, 1))
    y = np.concatenate([y, -y[::-1], [[1.0]]])
    x = np.zeros((70, 1))
    import math

    want = math.fsum(y[:, 0])
    plain = abs(np.cumsum(y[:, 0])[-1] - want)
    for scheme in ("auto", "kahan_scheme"):
        genred = Genred("y+0*x", ["x = Vi(1)", "y = Vj(1)"], axis=1, sum_scheme=scheme)
        assert abs(genred(x, y)[0, 0] - want) < max(plain / 4, 1e-2)


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_infinities_and_nan_are_those_of_the_dense_program(bad: float) -> None:
    x, y, a, p = arrays(37, 700, "float64")
    y[3, 1] = bad
    a[400] = bad
    x[5, 2] = bad
    x[6] = 0
    y[30] = 0
    with np.errstate(all="ignore"):
        for formula, dense in (
            ("Exp(x+y)*a", lambda: np.exp(x[:, None] + y) * a),
            ("(x-y)*a", lambda: (x[:, None] - y) * a),
            ("(p-x)*y", lambda: (p - x[:, None]) * y),
            ("x*Exp(y)*a", lambda: x[:, None] * (np.exp(y) * a)),
            ("-p*Square(y)", lambda: np.broadcast_to(-p * y**2, (37, 700, 3))),
            ("Exp(-SqDist(x,y))", lambda: np.exp(-((x[:, None] - y) ** 2).sum(-1))[..., None]),
        ):
            want = dense().sum(1)
            for lanes in ("row", "column"):
                with settings(lanes=lanes):
                    got = Genred(formula, ALIASES, axis=1)(x, y, a, p)
                assert_close(got, want, terms=700, formula=formula)


SEPARABLE = {
    "Exp(x+y)*a": lambda x, y, a, p: np.exp(x[:, None] + y) * a,
    "Exp(p-(x-y))": lambda x, y, a, p: np.exp(p - (x[:, None] - y)),
    "Square(p-a)*Exp(Sum(x)-Sum(y)+p)": lambda x, y, a, p: (
        (p - a) ** 2 * np.exp((x.sum(1)[:, None, None] - y.sum(1)[:, None]) + p)
    ),
}


@pytest.mark.parametrize("lanes", ["row", "column"])
@pytest.mark.parametrize("unroll", [2, 16])
@pytest.mark.parametrize("formula", SEPARABLE)
def test_separated_exponentials_are_those_of_the_sums(
    formula: str, unroll: int, lanes: str
) -> None:
    rng = np.random.default_rng(5)
    x, y, a, p = arrays(37, 700, "float64")
    genred = Genred(formula, ALIASES, axis=1)
    far = 300 + rng.uniform(-1, 1, (37, 3))  # e^300 fits in float64, e^300 in float32 does not
    data = {
        "near": (x, y),
        "opposite": (far, -far[rng.integers(37, size=700)] + y),
        "one row far": (np.where(np.arange(37)[:, None] == 5, 20 * x, x), y),
        "overflow": (far * 2, y + 400),
        "underflow": (-far, y - 500),
        "infinite": (np.where(x > 0.9, np.inf, x), y),
        "both infinities": (np.where(x > 0.9, np.inf, x), np.where(y < -0.99, -np.inf, y)),
        "nan": (x, np.where(y > 0.999, np.nan, y)),
    }
    with np.errstate(all="ignore"), settings(lanes=lanes, unroll=unroll):
        for what, (rows, columns) in data.items():
            for dtype in ("float64", "float32"):
                given = [v.astype(dtype) for v in (rows, columns, a, p)]
                want = SEPARABLE[formula](*given).sum(1, dtype="float64").astype(dtype)
                got = genred(*given)
                # An exponent of 300 is off by 300 * 2^-24 in float32, and its exponential so too.
                rtol = 2e-4 if dtype == "float32" else 1e-12
                assert_close(got, want, rtol=rtol, formula=(formula, what, dtype))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_exponentials_of_rounded_results_err_less_than_their_argument(dtype: str) -> None:
    """e^(x*1): 2 ulp for the function, and a quarter of what x would be off by if it were rounded.

    Relative error 2^-26.2 |x| in float32 (2^-55.9 in float64), with a unit in the last place of at
    least 2^-24 (2^-53): below 0.25 |x| units.
    """
    low, high = (-103.0, 88.7) if dtype == "float32" else (-744.0, 709.7)
    count = 300_001 if dtype == "float32" else 3_001
    x = np.linspace(low, high, count).astype(dtype)[:, None]
    one = np.ones((1, 1), dtype)
    genred = Genred("Exp(x*y)", ["x = Vi(1)", "y = Vj(1)"], axis=1)
    with settings(lanes="row"):
        got = genred(x, one)
        special = np.array([np.inf, -np.inf, np.nan, 3e38, -3e38, 1e6, -1e6, 0, -0.0])
        ends = genred(special.astype(dtype)[:, None], one)
    reference = wide_reference if dtype == "float32" else exact_reference
    error = ulp_error(got[:, 0], reference("exp", x[:, 0]))
    assert float((error - 0.25 * np.abs(x[:, 0])).max()) < 2
    assert_same_bits(ends[:, 0], [np.inf, 0, np.nan, np.inf, 0, np.inf, 0, 1, 1])


def test_exact_rules_leave_exponentials_of_sums_alone() -> None:
    genred = Genred("Exp(x+y)", ["x = Vi(1)", "y = Vj(1)"], axis=1)
    assert "exp x1" not in " ".join(genred.explain().stages["pair"])
    with settings(rules="exact"):
        assert "exp x1" in genred.explain().stages["pair"]


@hypothesis.settings(max_examples=40, deadline=None)
@hypothesis.given(formulas(), st.integers(0, 2**16), st.sampled_from(["row", "column"]))
def test_formulas_that_hypothesis_draws_equal_the_reference(
    drawn: Formula, seed: int, lanes: str
) -> None:
    rng = np.random.default_rng(seed)
    given = drawn.arrays(rng, 17, 23)
    fold = FormulaReduction(drawn.node, drawn.variables, "Sum", Axis.I)
    scale = float(np.nanmax(np.abs(drawn.pairs(given, 17, 23)), initial=1.0)) * 23
    with settings(lanes=lanes):
        got = fold(NumpyArrays, list(given.values()))
    want = evaluate(fold.kernel(), given, 17, 23)
    assert_close(got, want, scale=scale, rtol=1e-10, formula=drawn, seed=seed)


@pytest.mark.any_target
@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="reads memory from /proc")
def test_many_formulas_take_little_memory() -> None:
    program = """
import numpy as np
from pairfold.numpy import Genred
from pairfold.ops.table import OPERATIONS
def pages():
    return int(open("/proc/self/statm").read().split()[1])
x = np.ones((5, 3))
def call(number):
    Genred(f"Exp(-{number}*SqDist(x,y))", ["x = Vi(3)", "y = Vj(3)"], axis=1)(x, x)
for number in range(20):
    call(number)
before = pages()
for number in range(20, 120):
    call(number)
print((pages() - before) * 4096 // 100)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 300_000


@pytest.mark.any_target
def test_counts_beyond_32_bits_are_right() -> None:
    y = np.broadcast_to(np.ones((1, 1), "float32"), (2**32 + 5, 1))
    got = Genred("y*x", ["x = Vi(1)", "y = Vj(1)"], axis=1)(np.ones((1, 1), "float32"), y)
    assert_close(got, [[2.0**32 + 5]], rtol=1e-7)


@pytest.mark.any_target
def test_offsets_beyond_32_bits_are_right() -> None:
    y = np.zeros((2**29 + 3, 2), "float32")  # 4 GiB of pages that are never written
    y[-1] = 3, 4
    x = np.ones((1, 2), "float32")
    got = Genred("x*y", ["x = Vi(2)", "y = Vj(2)"], axis=1)(x, y)
    assert_close(got, [[3.0, 4.0]])
    assert_close(Genred("x*y", ["x = Vi(2)", "y = Vj(2)"], axis=0)(x, y[-1000:])[-1], [3.0, 4.0])


def test_nothing_is_read_past_the_end_of_an_array() -> None:
    """Arrays that end at a page the process may not read: one byte too far would crash."""
    import ctypes
    import mmap

    page = mmap.PAGESIZE
    for rows in (1, 17, 64, 100):
        for dim in (1, 3, 9, 20):
            block = mmap.mmap(-1, 8 * page)
            base = ctypes.addressof(ctypes.c_char.from_buffer(block))
            allow(base + 7 * page, page, reading=False)
            size = rows * dim * 4
            raw = np.frombuffer(block, np.uint8, 7 * page)
            x = raw[7 * page - size :].view("float32").reshape(rows, dim)
            x[:] = 0.5
            aliases = [f"x = Vi({dim})", f"y = Vj({dim})"]
            for lanes, axis in itertools.product(("row", "column"), (0, 1)):
                with settings(lanes=lanes):
                    got = Genred("Exp(-SqDist(x,y))", aliases, axis=axis)(x, x)
                assert_close(got, np.full((rows, 1), float(rows)), terms=rows)
            allow(base + 7 * page, page, reading=True)
            del raw, x


@pytest.mark.any_target
def test_a_kernel_that_disagrees_with_the_reference_is_reported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from pairfold.backends.reference import interpreter as reference

    real = reference.evaluate_all
    monkeypatch.setattr(reference, "evaluate_all", lambda *args: [a + 0.01 for a in real(*args)])
    with settings(check=2), pytest.raises(pairfold.PairfoldError, match="reference differ"):
        Genred("x*y", ["x = Vi(1)", "y = Vj(1)"], axis=1)(np.ones((3, 1)), np.ones((4, 1)))


def test_sums_may_be_accumulated_as_asked() -> None:
    given = arrays(70, 2000, "float32")
    want = Genred(FORMULAS["seed"], ALIASES, axis=1)(*[v.astype("float64") for v in given])
    errors: dict[Any, float] = {}
    for dtype, scheme in itertools.product(
        ("auto", "float32", "float64"), ("auto", "block_sum", "direct_sum", "kahan_scheme")
    ):
        got = Genred(FORMULAS["seed"], ALIASES, axis=1, dtype_acc=dtype, sum_scheme=scheme)(*given)
        assert got.dtype == np.float32
        assert_close(got, want, terms=2000)
        errors[dtype, scheme] = float(np.abs(got - want).max())
    wide = Accuracy("float64", "direct_sum").for_dtype("float32", REDUCTIONS["Sum"])
    assert wide.inner == "float64"
    assert errors["float64", "direct_sum"] <= errors["float32", "direct_sum"]
