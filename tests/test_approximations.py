"""The SIMD elementary functions keep their promised accuracy and special values.

Turns every function of `approximations.FUNCTIONS` into kernels for each target that this
machine can run, and compares them with float64 NumPy (for float32) or mpmath (for
float64).  The float32 sweep here is strided; `sweep_math.py` run as a script does all
2**32 inputs.  Speed is not tested.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import sweep_math
from numpy.typing import NDArray
from products import every_pair
from sweep_math import BOUND_ULP, TWO_ARGUMENTS, Reference, kernel, ulp_error

from pairfold.backends.functions.approximations import FUNCTIONS
from pairfold.backends.functions.arithmetic import round_to_format
from pairfold.backends.functions.numerics import LN2, LOG2E, PI
from pairfold.backends.llvm import ir
from pairfold.backends.llvm.simd import Simd

Array = NDArray[Any]

TARGETS = list(sweep_math.available_targets())
DTYPES = ["float32", "float64"]
ONE_ARGUMENT = [name for name in FUNCTIONS if name not in TWO_ARGUMENTS]
INF, NAN = math.inf, math.nan

per_target = pytest.mark.parametrize("target", TARGETS)
per_dtype = pytest.mark.parametrize("dtype", DTYPES)
per_function = pytest.mark.parametrize("function", ONE_ARGUMENT)


# ---- inputs ------------------------------------------------------------------------------

# Where the algorithms change regime, or results over- or underflow.
_CENTRES = [
    *(0.25, 1 / 3, 0.41421356, 0.5, 0.75, 1.0, 1.5, 2.0, 2.41421356, 3.0, 4.0, 6.0),
    *(2.5, 3.5, 4.5, 5.5, 6.5, 7.5, 8.0, 9.3, 26.5, 27.2),
    *(1.25, 1.4616321, 1.4878243958003574),
    *(8.31, 9.01, 10.0, 17.3, 19.06, 22.0, 36.7, 37.5, 20.0, 50.0),
    *(87.33, 88.3762, 88.7228, 89.0, 103.2789, 103.9721, 104.0),
    *(126.0, 127.0, 128.0, 149.0, 149.5, 150.0, 151.0),
    *(708.396, 709.4361, 709.7827, 710.0, 744.44, 745.1332, 746.0),
    *(1021.0, 1022.0, 1023.0, 1024.0, 1074.0, 1074.5, 1075.0, 1076.0),
    *(1e5, 2.0**20, 2.0**22, 2.0**23, 2.0**24, 2.0**52, 2.0**53, 2.0**60, 2.0**63, 2.0**64),
    *(1e-5, 2.0**-12, 2.0**-24, 2.0**-26, 2.0**-53, 2.0**-54, 2.0**-60),
]


def neighbours(centres: Array, steps: int) -> Array:
    """The centres with their nearest values on both sides."""
    found, up, down = [centres], centres, centres
    for _ in range(steps):
        up, down = (np.nextafter(v, v.dtype.type(end)) for v, end in ((up, 1e38), (down, 0)))
        found += [up, down]
    return np.concatenate(found)


@cache
def hard_points(dtype: str) -> Array:
    """Neighbourhoods of all boundaries, multiples of pi/2 and ln 2, and special values."""
    info = np.finfo(dtype)
    extremes = [info.tiny, info.tiny * 2, info.max, info.smallest_subnormal * 3]
    rng = np.random.default_rng(1)
    quarters = np.concatenate([np.arange(1, 40), rng.integers(40, 600_000, 150)])
    multiples = [*(quarters * (math.pi / 2)), *(np.arange(1, 60) * math.log(2) / 32)]
    centres = np.array([*_CENTRES, *extremes], dtype)
    near = neighbours(centres, 3), np.array(multiples, dtype)
    specials = np.array([0.0, INF, NAN, info.smallest_subnormal, 1e30], dtype)
    positive = np.concatenate([*near, specials])
    return np.concatenate([positive, -positive])


@cache
def float64_points() -> Array:
    """Random float64 values of every magnitude, besides the hard ones."""
    rng = np.random.default_rng(2)
    anything = rng.integers(0, 1 << 64, 200, dtype=np.uint64).view(np.float64)
    moderate = rng.standard_normal(250) * 10.0 ** rng.integers(-8, 3, 250)
    chunks = [anything, moderate, rng.uniform(-1, 1, 200), rng.uniform(-750, 750, 150)]
    return np.concatenate([*chunks, hard_points("float64")])


@cache
def float32_points() -> Array:
    """Every 100003rd float32 pattern, besides the hard ones."""
    some = sweep_math.float32_patterns(0, 1 << 32, 100_003)
    return np.concatenate([some, hard_points("float32")])


@cache
def one_argument_case(function: str, dtype: str) -> tuple[Array, Reference]:
    """Inputs and references, computed once for all targets."""
    if dtype == "float32":
        x = float32_points()
        return x, sweep_math.wide_reference(function, x)
    x = float64_points()
    return x, sweep_math.exact_reference(function, x)


def power_inputs(dtype: str, count: int, seed: int) -> tuple[Array, Array]:
    """Pairs whose powers cover the range of the format, a third of them moderate."""
    rng = np.random.default_rng(seed)
    low, high = (-149, 128) if dtype == "float32" else (-1074, 1024)
    near_one = 1 + rng.uniform(-1, 1, count) * 2.0 ** rng.integers(-22, 0, count)
    x = np.concatenate([2.0 ** rng.uniform(low, high, count), near_one]).astype(dtype)
    with np.errstate(all="ignore"):
        y = rng.uniform(low - 3, high + 1, 2 * count) / np.log2(x.astype(np.float64))
    moderate = rng.random(2 * count) < 0.3
    y[moderate] = rng.standard_normal(moderate.sum()) * 3
    return x[np.isfinite(y)], y[np.isfinite(y)].astype(dtype)


@cache
def two_argument_case(function: str, dtype: str) -> tuple[Array, Array, Reference]:
    """Pairs of inputs and references, computed once for all targets."""
    count = 50_000 if dtype == "float32" else 500
    if function == "pow":
        x, y = power_inputs(dtype, count, 3)
    else:
        rng = np.random.default_rng(4)
        magnitude = 2.0 ** rng.uniform(-120, 120, 2 * count)
        ratio = 2.0 ** (rng.standard_normal(2 * count) * 2)
        signs = rng.choice([-1.0, 1.0], (2, 2 * count))
        x, y = (signs * [magnitude, magnitude * ratio]).astype(dtype)
    oracle = sweep_math.wide_reference if dtype == "float32" else sweep_math.exact_reference
    return x, y, oracle(function, x, y)


# ---- accuracy ----------------------------------------------------------------------------


def assert_within(function: str, errors: Array, *inputs: Array) -> None:
    """Fail with the worst case when an error is above the bound of the function."""
    at = int(np.argmax(errors))
    where = [float(x[at]).hex() for x in inputs]
    assert errors[at] <= BOUND_ULP[function], f"{errors[at]:.3f} ulp at {where}"


@per_target
@per_dtype
@per_function
def test_errors_stay_within_the_bound(function: str, dtype: str, target: str) -> None:
    x, reference = one_argument_case(function, dtype)
    got = kernel(function, dtype, target)(x)
    assert_within(function, ulp_error(got, reference), x)


@per_target
@per_function
def test_every_4001st_float32_stays_within_the_bound(function: str, target: str) -> None:
    error, at = max(sweep_math.sweep(function, target, stride=4001))
    assert error <= BOUND_ULP[function], f"{error:.3f} ulp at {at.hex()}"


@per_target
@per_dtype
@pytest.mark.parametrize("function", TWO_ARGUMENTS)
def test_errors_of_pairs_stay_within_the_bound(function: str, dtype: str, target: str) -> None:
    x, y, reference = two_argument_case(function, dtype)
    got = kernel(function, dtype, target)(x, y)
    assert_within(function, ulp_error(got, reference), x, y)


@per_dtype
@pytest.mark.parametrize("width_bytes", [16, 32, 64])
@pytest.mark.parametrize("function", list(FUNCTIONS))
def test_any_vector_width_keeps_the_bound(function: str, width_bytes: int, dtype: str) -> None:
    width = width_bytes // np.dtype(dtype).itemsize
    if function in TWO_ARGUMENTS:
        x, y, reference = two_argument_case(function, dtype)
        inputs = (x, y)
    else:
        x, reference = one_argument_case(function, dtype)
        inputs = (x,)
    got = kernel(function, dtype, "native", width)(*inputs)
    assert_within(function, ulp_error(got, reference), *inputs)


@pytest.mark.parametrize("function", ["tanh", "erf"])
@per_target
@per_dtype
def test_bounded_functions_stay_within_one(function: str, dtype: str, target: str) -> None:
    got = kernel(function, dtype, target)(one_argument_case(function, dtype)[0])
    assert np.nanmax(np.abs(got)) <= 1


# ---- special values ----------------------------------------------------------------------

# (input, result), results exact with the sign of zero.
SPECIAL = {
    "exp": [(0.0, 1), (-0.0, 1), (INF, INF), (-INF, 0.0), (NAN, NAN)],
    "exp2": [(0.0, 1), (-0.0, 1), (10, 1024), (-3, 0.125), (INF, INF), (-INF, 0.0)],
    "expm1": [(0.0, 0.0), (-0.0, -0.0), (INF, INF), (-INF, -1), (NAN, NAN)],
    "log": [(1, 0.0), (0.0, -INF), (-0.0, -INF), (INF, INF), (-1, NAN), (-INF, NAN)],
    "log1p": [(0.0, 0.0), (-0.0, -0.0), (-1, -INF), (INF, INF), (-2, NAN), (-INF, NAN)],
    "sin": [(0.0, 0.0), (-0.0, -0.0), (INF, NAN), (-INF, NAN), (NAN, NAN)],
    "cos": [(0.0, 1), (-0.0, 1), (INF, NAN), (-INF, NAN), (NAN, NAN)],
    "tanh": [(0.0, 0.0), (-0.0, -0.0), (INF, 1), (-INF, -1), (NAN, NAN), (60, 1)],
    "rsqrt": [(0.0, INF), (-0.0, -INF), (INF, 0.0), (-1, NAN), (-INF, NAN), (4, 0.5)],
    "atan": [(0.0, 0.0), (-0.0, -0.0), (INF, math.pi / 2), (-INF, -math.pi / 2)],
    "asin": [(0.0, 0.0), (-0.0, -0.0), (1, math.pi / 2), (1.5, NAN), (-2, NAN)],
    "acos": [(1, 0.0), (-1, math.pi), (0.0, math.pi / 2), (1.5, NAN), (-INF, NAN)],
    "erf": [(0.0, 0.0), (-0.0, -0.0), (INF, 1), (-INF, -1), (NAN, NAN), (9, 1)],
    "erfc": [(0.0, 1), (-0.0, 1), (INF, 0.0), (-INF, 2), (NAN, NAN), (-9, 2), (30, 0.0)],
    "lgamma": [
        *((0.0, INF), (-0.0, INF), (1, 0.0), (2, 0.0), (INF, INF), (-INF, INF), (NAN, NAN)),
        *((-1, INF), (-2, INF), (-1e8, INF)),
    ],
}

# (x, y, x^y): C99 F.9.4.4, then signs and exact powers.
POWERS = [
    *((0.0, -3, INF), (-0.0, -3, -INF), (0.0, -2, INF), (-0.0, -2, INF), (-0.0, -0.5, INF)),
    *((0.0, 3, 0.0), (-0.0, 3, -0.0), (-0.0, 2, 0.0), (-0.0, 0.5, 0.0), (0.0, 0.5, 0.0)),
    *((-1, INF, 1), (-1, -INF, 1), (1, NAN, 1), (1, INF, 1), (1, -INF, 1), (1, 5.5, 1)),
    *((NAN, 0.0, 1), (NAN, -0.0, 1), (0.0, 0.0, 1), (INF, 0.0, 1), (-INF, -0.0, 1)),
    *((-2, 0.5, NAN), (-2.5, 1.5, NAN), (-1, 0.5, NAN), (NAN, 1, NAN), (-1, NAN, NAN)),
    *((0.5, -INF, INF), (-0.5, -INF, INF), (0.0, -INF, INF), (-0.0, -INF, INF)),
    *((2, -INF, 0.0), (-2, -INF, 0.0), (INF, -INF, 0.0), (-INF, -INF, 0.0)),
    *((0.5, INF, 0.0), (-0.5, INF, 0.0), (0.0, INF, 0.0), (-0.0, INF, 0.0)),
    *((2, INF, INF), (-2, INF, INF), (INF, INF, INF), (-INF, INF, INF)),
    *((-INF, -3, -0.0), (-INF, -2, 0.0), (-INF, -0.5, 0.0), (-INF, 3, -INF)),
    *((-INF, 2, INF), (-INF, 0.5, INF), (INF, -1, 0.0), (INF, -0.5, 0.0), (INF, 0.5, INF)),
    *((-2, 3, -8), (-2, 2, 4), (-2, -1, -0.5), (-1, 1e30, 1), (-1, 3, -1), (-3, 0.0, 1)),
    *((2, 10, 1024), (9, 0.5, 3), (10, 2, 100), (2, -149, 2.0**-149), (NAN, NAN, NAN)),
    *((-(2.0**-49), 3, -(2.0**-147)), (-2, 1e30, INF), (-0.5, 1e30, 0.0), (3, 0.0, 1)),
    *((-2, 8388607, -INF), (-0.5, 8388607, -0.0), (-1, 8388609, -1), (-1, 16777216, 1)),
]

# (y, x, atan2(y, x)): C99 F.9.1.4.
ANGLES = [
    *((0.0, -0.0, math.pi), (-0.0, -0.0, -math.pi), (0.0, 0.0, 0.0), (-0.0, 0.0, -0.0)),
    *((0.0, -1, math.pi), (-0.0, -1, -math.pi), (0.0, 1, 0.0), (-0.0, 1, -0.0)),
    *((-1, 0.0, -math.pi / 2), (-1, -0.0, -math.pi / 2), (1, 0.0, math.pi / 2)),
    *((1, -INF, math.pi), (-1, -INF, -math.pi), (1, INF, 0.0), (-1, INF, -0.0)),
    *((INF, 1, math.pi / 2), (-INF, -1, -math.pi / 2), (INF, -INF, 3 * math.pi / 4)),
    *((-INF, -INF, -3 * math.pi / 4), (INF, INF, math.pi / 4), (-INF, INF, -math.pi / 4)),
    *((NAN, 1, NAN), (1, NAN, NAN), (NAN, INF, NAN), (3e38, 3e38, math.pi / 4)),
    *((3e38, INF, 0.0), (1e-45, 0.0, math.pi / 2), (0.0, 1e-45, 0.0), (1, -1, 3 * math.pi / 4)),
]


def assert_identical(got: Array, expected: Array, *inputs: Array) -> None:
    """Equal, including the signs of zeros, with NaN equal to NaN."""
    same = (got == expected) & (np.signbit(got) == np.signbit(expected))
    wrong = ~(same | (np.isnan(got) & np.isnan(expected)))
    rows = [tuple(column[wrong]) for column in (*inputs, got, expected)]
    assert not wrong.any(), f"(inputs, got, expected) = {rows}"


@per_target
@per_dtype
@per_function
def test_special_values_follow_c99(function: str, dtype: str, target: str) -> None:
    x, expected = np.array(SPECIAL[function], dtype).T
    assert_identical(kernel(function, dtype, target)(x), expected, x)


@per_target
@per_dtype
def test_powers_follow_c99(dtype: str, target: str) -> None:
    x, y, expected = np.array(POWERS, dtype).T
    assert_identical(kernel("pow", dtype, target)(x, y), expected, x, y)


@per_target
@per_dtype
def test_angles_follow_c99(dtype: str, target: str) -> None:
    y, x, expected = np.array(ANGLES, dtype).T
    got = kernel("atan2", dtype, target)(y, x)
    assert_identical(np.isnan(got), np.isnan(expected), y, x)
    np.testing.assert_allclose(got, expected, rtol=2 * np.finfo(dtype).eps, atol=0)
    assert_identical(np.signbit(got), np.signbit(expected), y, x)


@per_target
@per_dtype
@pytest.mark.parametrize("function", ["sin", "tanh", "expm1", "log1p", "atan", "asin", "erf"])
def test_subnormal_inputs_keep_their_sign_and_size(function: str, dtype: str, target: str) -> None:
    x = np.finfo(dtype).smallest_subnormal * np.array([1, 2, 3, 1000, -1, -7], dtype)
    got = kernel(function, dtype, target)(x)
    factor = 2 / math.sqrt(math.pi) if function == "erf" else 1.0
    units = (got / np.finfo(dtype).smallest_subnormal).astype(np.float64)
    np.testing.assert_allclose(units, factor * np.array([1, 2, 3, 1000, -1, -7]), atol=0.5)


# ---- lanes -------------------------------------------------------------------------------


@per_target
@per_dtype
@pytest.mark.parametrize("function", list(FUNCTIONS))
def test_a_lane_does_not_depend_on_its_neighbours(function: str, dtype: str, target: str) -> None:
    rng = np.random.default_rng(5)
    wild = rng.permutation(hard_points(dtype))[:997]
    calm = rng.uniform(-3, 3, 997).astype(dtype)
    # Mostly calm vectors with few wild lanes, so that both paths meet in a vector.
    x = np.where(rng.random(997) < 0.1, wild, calm)
    inputs = (x, rng.permutation(x)) if function in TWO_ARGUMENTS else (x,)
    run, order = kernel(function, dtype, target), rng.permutation(997)
    integer = f"u{np.dtype(dtype).itemsize}"
    shuffled = run(*[a[order] for a in inputs])
    np.testing.assert_array_equal(run(*inputs)[order].view(integer), shuffled.view(integer))


# ---- the measure and the layer below -----------------------------------------------------


@per_dtype
def test_the_error_measure_sees_a_wrong_last_bit(dtype: str) -> None:
    x = np.array([-80.0, 0.5, 1.0, 2.0, 80.0], dtype)
    oracle = sweep_math.wide_reference if dtype == "float32" else sweep_math.exact_reference
    reference = oracle("exp", x)
    assert np.all(ulp_error(reference.nearest, reference) <= 0.5)
    off = np.nextafter(reference.nearest, np.array(INF, dtype))
    for _ in range(2):
        off = np.nextafter(off, np.array(INF, dtype))
    assert np.all(ulp_error(off, reference) > BOUND_ULP["exp"])


def test_the_error_measure_sees_missing_infinities_and_nan() -> None:
    reference = sweep_math.wide_reference("exp", np.array([1e3, 1e3, 1.0], "float32"))
    got = np.array([np.finfo("float32").max, NAN, INF], "float32")
    errors = ulp_error(got, reference)
    assert errors[0] == 1.0
    assert errors[1] == INF
    assert errors[2] > 1e6


def test_the_strided_sweep_agrees_with_the_plain_measure() -> None:
    x = sweep_math.float32_patterns(0, 1 << 32, 300_007)
    plain = ulp_error(kernel("tanh", "float32", "native")(x), sweep_math.wide_reference("tanh", x))
    quick = max(error for error, _ in sweep_math.sweep("tanh", "native", stride=300_007))
    assert quick == pytest.approx(plain.max(), rel=1e-6)


@pytest.mark.parametrize("value", [LN2, PI, LOG2E, 1 + 2**-24, 2.0**128 - 2.0**103, 1e-46])
def test_constants_round_once(value: Any) -> None:
    with np.errstate(over="ignore"):
        expected = np.float32(float(value))
    assert round_to_format(value, "float32") == expected
    assert round_to_format(value, "float64") == float(value)


def test_a_constant_that_would_round_twice_does_not() -> None:
    # Just above the middle of 1 and its successor, though float64 cannot tell.
    value = 1 + LN2 / 2**100 + PI / PI / 2**24
    assert round_to_format(value, "float32") == 1 + 2.0**-23


def run_once(emit: Callable[..., ir.Value], target: str, x: Array) -> Array:
    """Compile and run an emitter that is not one of the library's functions."""
    FUNCTIONS["temporary"] = emit
    try:
        return sweep_math.Kernel("temporary", x.dtype.name, target)(x)
    finally:
        del FUNCTIONS["temporary"]


@pytest.mark.parametrize(("op", "expected"), [("<", 1), ("<=", 3), ("==", 2), ("!=", 13), (">", 4)])
def test_comparisons_treat_nan_as_unequal(op: str, expected: int) -> None:
    def emit(s: Simd, x: ir.Value) -> ir.Value:
        return s.select(s.compare(op, x, s.constant(2)), s.constant(1), s.constant(0))

    got = run_once(emit, "native", np.array([1, 2, 3, NAN], "float64"))
    assert int(got @ [1, 2, 4, 8]) == expected


@every_pair(
    ("name,op", [("lesser", np.less), ("greater", np.greater)]),
    ("number", [2.0, -3.0, 0.0, INF, NAN]),
    ("target", TARGETS),
)
def test_the_second_is_the_result_beside_nan(name, op, number, target) -> None:
    x = np.array([1, 3, NAN, -INF, INF, -0.0, 0.0, 7.5, -3.0, 2.0], "float64")
    c = np.full_like(x, number)
    first = run_once(lambda s, x: getattr(s, name)(x, s.constant(number)), target, x)
    np.testing.assert_array_equal(first, np.where(op(x, c), x, c))
    second = run_once(lambda s, x: getattr(s, name)(s.constant(number), x), target, x)
    np.testing.assert_array_equal(second, np.where(op(c, x), c, x))


@per_target
@per_dtype
@pytest.mark.parametrize("name", ["floor", "rint", "sqrt", "abs"])
def test_exact_operations_agree_with_numpy(name: str, dtype: str, target: str) -> None:
    x = hard_points(dtype)
    got = run_once(lambda s, x: getattr(s, name)(x), target, x)
    with np.errstate(invalid="ignore"):
        assert_identical(got, getattr(np, name)(x), x)


@per_dtype
def test_splat_copies_a_scalar_into_every_lane(dtype: str) -> None:
    def emit(s: Simd, x: ir.Value) -> ir.Value:
        lane = s.builder.extract_element(x, ir.Constant(ir.IntType(32), 1))
        return s.add(s.splat(lane), s.splat(ir.Constant(s.scalar, 0.5)))

    x = np.arange(64, dtype=dtype)
    width = sweep_math.find_target("native").vector_bytes // x.itemsize
    np.testing.assert_array_equal(run_once(emit, "native", x), x // width * width + 1.5)
