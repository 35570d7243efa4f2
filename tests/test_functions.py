"""Rows with conventions of their own: rounding, remainders, sin(x)/x, extremes, splines, norms."""

from __future__ import annotations

import math
from decimal import ROUND_HALF_UP, Decimal

import numpy as np
import pytest
from checks import assert_close, assert_same_bits

from pairfold.arrays.numpy import NumpyArrays
from pairfold.calculus.derive import pull_back
from pairfold.core.node import Axis
from pairfold.core.scalars import Scalars, reachable
from pairfold.errors import DimError
from pairfold.frontends.parse import parse
from pairfold.frontends.reduction import FormulaReduction
from pairfold.lower.kernel import lower
from pairfold.numpy import Genred
from pairfold.ops.reductions import REDUCTIONS
from pairfold.ops.table import OPERATIONS, build, constant, variable

INF, NAN = np.inf, np.nan
DTYPES = pytest.mark.parametrize("dtype", ["float32", "float64"])


def values(text, *arrays, dtype="float64"):
    """A formula in x, y, z (indexed by i) at each row, by machine code: (rows, dim)."""
    given = [np.array(a, dtype=dtype) for a in arrays]
    given = [a[:, None] if a.ndim == 1 else a for a in given]
    names = [f"{n} = Vi({a.shape[1]})" for n, a in zip("xyz", given)]
    parsed = parse(f"({text})*o", [*names, "o = Vj(1)"])
    fold = FormulaReduction(parsed.node, parsed.variables, "Sum", Axis.I)
    return fold(NumpyArrays, [*given, np.ones((1, 1), dtype)])


# ----- rounding ----------------------------------------------------------------------------------


@DTYPES
def test_halves_are_rounded_away_from_zero(dtype):
    x = [0.5, -0.5, 1.5, 2.5, -2.5, 0.4, -0.4, 0.0, 3.0, -1.0, INF, -INF, NAN]
    want = [1, -1, 2, 3, -3, 0, 0, 0, 3, -1, INF, -INF, NAN]
    assert_same_bits(values("Round(x,0)", x, dtype=dtype)[:, 0], np.array(want, dtype))


@DTYPES
def test_rounding_to_whole_numbers_is_exact_just_below_a_half_and_for_large_numbers(dtype):
    half = np.array(0.5, dtype)
    digits = np.finfo(dtype).nmant
    large = [2.0**digits + 1, 2.0 ** (digits + 1) + 2, 2.0 ** (digits - 1) + 0.5, 1e30]
    below = np.nextafter(half, np.zeros((), dtype))
    x = np.array([below, -below, *large], dtype)
    want = np.array([0, 0, x[2], x[3], 2.0 ** (digits - 1) + 1, x[5]], dtype)
    assert_same_bits(values("Round(x,0)", x, dtype=dtype)[:, 0], want)


@pytest.mark.parametrize("d", [1, 2, 3, 5, 8, -1, -2, -5])
def test_rounding_to_digits_is_that_of_decimal_numbers(d):
    rng = np.random.default_rng(3)
    x = rng.uniform(-1, 1, 500) * 10.0 ** (rng.integers(-3, 4, 500) - min(d, 0))
    unit = Decimal(1).scaleb(-d)
    want = [float(Decimal(float(v)).quantize(unit, ROUND_HALF_UP)) for v in x]
    assert_close(values(f"Round(x,{d})", x)[:, 0], np.array(want), rtol=1e-15, atol=1e-300)


@DTYPES
@pytest.mark.parametrize("d", [-60, -7, 2, 7, 60, 400])
def test_numbers_without_such_digits_stay_and_small_ones_become_zero(dtype, d):
    large = np.array([3.4e37, -1.2345e30, 0.0, INF, -INF, NAN], dtype)
    small = np.array([1e-3, -1e-3], dtype)
    got = values(f"Round(x,{d})", large, dtype=dtype)[:, 0]
    want = large if d > -38 else np.array([0, 0, 0, INF, -INF, NAN], dtype)
    assert_close(got, np.where(np.isinf(large) & (d < -38) & (dtype == "float32"), got, want))
    if d < 3:
        assert_same_bits(values(f"Round(x,{d})", small, dtype=dtype)[:, 0], 0 * small)


@DTYPES
def test_a_remainder_lies_in_its_interval(dtype):
    rng = np.random.default_rng(0)
    n = np.array([0.1, 0.7, 3, 1e-3, -0.1, -2], dtype)
    o = np.array([0, -0.35, 0.5, 10, 0, 1], dtype)
    for n_, o_ in zip(n, o, strict=True):
        multiples = np.arange(-50, 50) * n_ + o_
        near = [np.nextafter(multiples, side).astype(dtype) for side in (-INF, INF)]
        x = np.concatenate([rng.uniform(-5, 5, 2000), multiples, *near]).astype(dtype)
        got = values("Mod(x,y,z)", x, np.full_like(x, n_), np.full_like(x, o_), dtype=dtype)[:, 0]
        low, high = (o_, o_ + n_) if n_ > 0 else (o_ + n_, o_)
        assert (got >= low).all()
        assert (got <= high).all()
        turns = (x - got) / n_
        allowed = 1e-3 if dtype == "float32" else 1e-9
        assert np.abs(turns - np.rint(turns)).max() < allowed


# ----- sin(x)/x ----------------------------------------------------------------------------------


def derivatives(text, order, x):
    """Derivatives 0 ... order of a formula in a scalar x, at the numbers x."""
    v = variable(0, 1, Axis.I)
    node = parse(text, ["x = Vi(1)"]).node
    found = []
    for _ in range(order + 1):
        fold = FormulaReduction(
            node * variable(1, 1, Axis.J), [v, variable(1, 1, Axis.J)], "Sum", Axis.I
        )
        found.append(fold(NumpyArrays, [np.asarray(x, float)[:, None], np.ones((1, 1))])[:, 0])
        node = pull_back(node, [v], constant(1))[0]
    return found


def test_the_derivatives_of_sin_x_over_x_at_zero_are_its_taylor_coefficients():
    for order, got in enumerate(derivatives("SinXDivX(x)", 8, [0.0, -0.0])):
        want = 0.0 if order % 2 else (-1) ** (order // 2) / (order + 1)
        assert_close(got, np.full(2, want), rtol=1e-15, atol=0, formula=order)


def test_the_derivatives_of_sin_x_over_x_are_accurate_everywhere():
    mpmath = pytest.importorskip("mpmath")
    x = [1e-300, 1e-9, 1e-4, 0.01, 0.3, 1, 1.9, 2.1, 2.9, 3.1, 4.4, 6.5, 12, -0.7, -30, 1e3]
    with mpmath.workdps(60):
        for order, got in enumerate(derivatives("SinXDivX(x)", 4, x)):
            want = [float(mpmath.diff(mpmath.sinc, mpmath.mpf(v), order)) for v in x]
            assert_close(got, np.array(want), rtol=2e-13, atol=4e-15, formula=f"order {order}")


@DTYPES
@pytest.mark.parametrize("n", [0, 1, 2, 3, 5, 8])
def test_bessel_functions_are_continuous_where_the_series_ends(n, dtype):
    limit = np.sqrt(max(4 * n, n * n, 1))
    x = limit * (1 + np.linspace(-1e-3, 1e-3, 41))
    got = values(f"BesselDivX(x,{n})", x, dtype=dtype)[:, 0]
    want = OPERATIONS["BesselDivX"].like(x.astype(dtype).astype(float), n)
    assert_close(got, want.astype(dtype), rtol=200 * np.finfo(dtype).eps, atol=0)


def test_derivatives_of_x_log_x_are_finite_at_zero():
    for got in derivatives("XLogX(x)", 3, [0.0]):
        assert_same_bits(got, np.zeros(1))


# ----- extremes and unit vectors -----------------------------------------------------------------

ROWS = {
    "ties": [1, 5, 5, 0],
    "negative": [-3, -1, -1, -7],
    "nan first": [NAN, 1, 2, 3],
    "nan later": [1, NAN, 3, NAN],
    "all nan": [NAN] * 4,
    "infinite": [-INF, INF, 0, INF],
    "same": [2, 2, 2, 2],
}


def extreme(name, x):
    """The loop that the convention describes."""
    best, place = x[0], 0
    for k, v in enumerate(x):
        if v > best if name.endswith("Max") else v < best:
            best, place = v, k
    return float(place) if name.startswith("Arg") else best


@DTYPES
@pytest.mark.parametrize("padding", [0, 40], ids=["short", "long"])
@pytest.mark.parametrize("name", ["Max", "Min", "ArgMax", "ArgMin"])
def test_extremes_compare_strictly_from_component_zero(name, padding, dtype):
    rows = [row + [row[-1]] * padding for row in ROWS.values()]
    got = values(f"{name}(x)", np.array(rows, float), dtype=dtype)[:, 0]
    assert_same_bits(got, np.array([extreme(name, row) for row in rows], dtype))


@pytest.mark.parametrize("name", ["Max", "Min"])
def test_the_gradient_of_an_extreme_goes_to_the_first_one(name):
    rows = np.array([row + [row[-1]] * 20 for row in ROWS.values()], float)
    x, g = variable(0, 24, Axis.I), variable(1, 1, Axis.J)
    node = pull_back(build(OPERATIONS[name], x), [x], g)[0]
    got = FormulaReduction(node, [x, g], "Sum", Axis.I)(NumpyArrays, [rows, np.full((1, 1), 3.0)])
    places = [int(extreme(f"Arg{name}", row)) for row in rows]
    assert_same_bits(got, 3.0 * np.eye(24)[places])


@DTYPES
@pytest.mark.parametrize("n", [1, 5, 20])
def test_a_one_hot_vector_is_of_the_nearest_component_or_none(n, dtype):
    x = [-1e30, -2, -1.5, -1.4, -0.6, -0.5, 0, 0.4, 0.5, 1.4, 1.5, n - 0.6, n - 0.5, n, 1e30]
    x += [NAN, INF, -INF]
    got = values(f"OneHot(x,{n})", x, dtype=dtype)
    want = [[float(np.floor(v + 0.5) == k) for k in range(n)] for v in x]
    assert_same_bits(got, np.array(want, dtype))


# ----- splines -----------------------------------------------------------------------------------


def spline(knots, x, j, k):
    """Basis function j of degree k, by its definition."""
    if k == 0:
        return float(knots[j] <= x < knots[j + 1])

    def ramp(top, bottom, n):
        return 0.0 if bottom == 0 else top / bottom * spline(knots, x, n, k - 1)

    rise = ramp(x - knots[j], knots[j + k] - knots[j], j)
    return rise + ramp(knots[j + k + 1] - x, knots[j + k + 1] - knots[j + 1], j + 1)


KNOTS = {
    "plain": [0, 1, 2.5, 3, 4, 5.5, 7],
    "clamped": [0, 0, 0, 1, 2, 2, 2],
    "repeated": [0, 1, 1, 1, 1, 2, 3],
    "all equal": [1] * 7,
}


@DTYPES
@pytest.mark.parametrize("k", [0, 1, 2, 3, 5])
@pytest.mark.parametrize("name", KNOTS)
def test_splines_are_the_recursion_of_their_definition(name, k, dtype):
    knots = KNOTS[name]
    x = [-1, 0, 0.25, 1, 1.75, 2, 2.9, 5, 7, 9]
    want = [[spline(knots, v, j, k) for j in range(len(knots) - k - 1)] for v in x]
    got = values(f"BSpline(x,y,{k})", [knots] * len(x), x, dtype=dtype)
    assert_close(got, np.array(want, dtype))


@pytest.mark.parametrize("name", KNOTS)
def test_derivatives_of_splines_are_never_nan(name):
    knots, x = variable(0, 7, Axis.I), variable(1, 1, Axis.I)
    one = variable(2, 1, Axis.J)
    node = build(OPERATIONS["BSpline"], knots, x, 3)
    points = np.array([-1, 0, 0.25, 1, 1.75, 2, 2.9, 5, 7, 9])[:, None]
    given = [np.array([KNOTS[name]] * 10, float), points, np.ones((1, 1))]
    first = pull_back(OPERATIONS["Sum"](node) * one, [knots, x], constant(1))
    nodes = [n for f in first for n in pull_back(OPERATIONS["Sum"](f), [knots, x], constant(1))]
    for n in [*first, *nodes]:
        if n is not None:
            got = FormulaReduction(n * one, [knots, x, one], "Sum", Axis.I)(NumpyArrays, given)
            assert np.isfinite(got).all(), n


def test_splines_sum_to_one_and_their_slopes_to_zero_between_the_inner_knots():
    knots = np.linspace(-1, 1, 1000)
    x = np.random.default_rng(0).uniform(-0.9, 0.9, 7)
    rows = np.repeat(knots[None], 7, axis=0)
    assert_close(values("Sum(BSpline(x,y,3))", rows, x), np.ones((7, 1)), rtol=1e-12)
    got = values("Grad(Sum(BSpline(x,y,3)),y,1)", rows, x)
    assert_close(got, np.zeros((7, 1)), rtol=0, atol=1e-9)


# ----- norms with weights ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["WeightedSqNorm", "SymSqNorm"])
def test_a_matrix_of_weights_need_not_be_symmetric(name):
    assert "MatVecMult" in OPERATIONS
    rng = np.random.default_rng(0)
    s, x = rng.normal(size=(7, 9)), rng.normal(size=(7, 3))
    matrix = s.reshape(7, 3, 3)
    want = np.einsum("ik,ikl,il->i", x, matrix, x)[:, None]
    assert_close(values(f"{name}(x,y)", s, x), want)
    want = np.einsum("ikl,il->ik", matrix + matrix.transpose(0, 2, 1), x)
    assert_close(values(f"Grad({name}(x,y),y,1)", s, x), want)
    want = np.einsum("ik,il->ikl", x, x).reshape(7, 9)
    assert_close(values(f"Grad({name}(x,y),x,1)", s, x), want)


def test_normalize_is_zero_at_zero():
    x = np.array([[0.0, 0, 0], [3, 0, 4]])
    assert_close(values("Normalize(x)", x), np.array([[0, 0, 0], [0.6, 0, 0.8]]))
    for axis in range(3):
        got = values(f"Grad(Elem(Normalize(x),{axis}),x,1)", x)
        assert_same_bits(got[0], np.zeros(3))


# ----- component indices -------------------------------------------------------------------------


def random_index(s, loop_index, rng, depth):
    """A random chain of shifts and limits, and the same on numbers."""
    value, meaning = loop_index, lambda k: k
    for _ in range(depth):
        n = int(rng.integers(-5, 6))
        what = ("add", "sub", "min", "max")[rng.integers(4)]
        value = s.index_op(what, value, n)
        apply = {"add": lambda a, b: a + b, "sub": lambda a, b: a - b, "min": min, "max": max}
        meaning = lambda k, f=apply[what], m=meaning, n=n: f(m(k), n)  # noqa: E731
    return value, meaning


def index_at(value, k):
    if value.what == "index_loop":
        return k
    left, right = index_at(value.args[0], k), value.data
    return {
        "index_add": lambda: left + right,
        "index_min": lambda: min(left, right),
        "index_max": lambda: max(left, right),
        "index_mul": lambda: left * right,
    }[value.what]()


def test_folded_component_indices_mean_what_was_written():
    rng = np.random.default_rng(0)
    for _ in range(500):
        s = Scalars(unroll=1)
        found = []

        def step(k, total, s=s, found=found):
            found.append(random_index(s, k, rng, int(rng.integers(1, 8))))
            return [total + s.position(k)]

        s.loop(12, [0], step)
        for value, meaning in found:
            assert [index_at(value, k) for k in range(12)] == [meaning(k) for k in range(12)]
            assert len(reachable([value])) <= 4
            low, high = value.bounds
            assert low <= min(meaning(k) for k in range(12))
            assert high >= max(meaning(k) for k in range(12))


def test_a_component_index_may_be_taken_from_a_number():
    s = Scalars(unroll=1)
    found = []
    s.loop(5, [0], lambda k, total: [found.append(4 - k) or total + s.position(4 - k)])
    assert found[-1].bounds == (0, 4)
    assert [index_at(found[-1], k) for k in range(5)] == [4, 3, 2, 1, 0]


@pytest.mark.parametrize("dims", [(50, 200)])
def test_the_work_of_a_spline_does_not_grow_with_the_number_of_knots(dims):
    sizes = []
    for dim in dims:
        knots, x, g = variable(0, dim, Axis.J), variable(1, 1, Axis.I), variable(2, 1, Axis.I)
        node = build(OPERATIONS["Sum"], build(OPERATIONS["BSpline"], knots, x, 3))
        for f in (node, *pull_back(node, [x], g)):
            kernel = lower(f, REDUCTIONS["Sum"], Axis.I, 16)
            sizes.append(len(reachable(kernel.outputs)))
    assert sizes[:2] == sizes[2:]
    assert max(sizes) < 600


@pytest.mark.parametrize(("k", "count"), [(0, 1), (2, 1), (2, 3)])
def test_too_few_knots_are_refused(k, count):
    knots, x = variable(0, min(count, k + 1), Axis.I), variable(1, 1, Axis.I)
    with pytest.raises(DimError, match="knots"):
        build(OPERATIONS["BSpline"], knots, x, k)


def test_the_order_of_a_derivative_of_sin_x_over_x_is_not_bounded():
    got = derivatives("SinXDivX(x)", 12, [0.5])
    assert math.isfinite(got[-1][0])


@pytest.mark.parametrize("name", ["Asin", "Acos"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_second_derivatives_of_arcs_keep_their_digits(name: str, dtype: str) -> None:
    """They are x / (1 - x^2)^1.5: near 0 as small as x itself, near 1 large."""
    x = np.array([[1e-20], [1e-7], [0.3], [0.99]], dtype)
    y = np.ones((1, 1), dtype)
    text = f"Grad(Grad({name}(x),x,y),x,y)"
    got = Genred(text, ["x = Vi(1)", "y = Vj(1)"], axis=1)(x, y)[:, 0]
    wide = x[:, 0].astype(np.float64)
    want = wide / (1 - wide**2) ** 1.5 * (1 if name == "Asin" else -1)
    np.testing.assert_allclose(got, want, rtol=64 * float(np.finfo(dtype).eps))
