"""Every reduction of the table: a monoid by its rules, and NumPy's own answer from machine code.

Most tests run over the table itself, so a new row is tested as soon as it is there; it only has to
bring an oracle of its own.
"""

from __future__ import annotations

import itertools
import math
import pickle
from collections.abc import Callable, Sequence
from typing import Any

import hypothesis
import numpy as np
import pytest
import scipy.special
from checks import assert_close, assert_same_bits
from hypothesis import strategies as st
from products import every_pair, some
from targets import TARGETS

from pairfold.errors import DimError, DTypeError, OptionError, PairfoldError, ShapeError
from pairfold.numpy import Genred
from pairfold.ops.reductions import ALIASES, REDUCTIONS, Ends, Reduction
from pairfold.settings import settings

Array = Any
K = 5
PUBLIC = [row for row in REDUCTIONS.values() if not row.internal]
# Every reduction, without a weight and with one, as far as it takes one.
CASES = [(row.name, False) for row in PUBLIC if row.weighted != "must"]
CASES += [(row.name, True) for row in PUBLIC if row.weighted != "no"]
case = pytest.mark.parametrize(
    ("name", "weighted"), CASES, ids=[f"{name}{'+weight' * w}" for name, w in CASES]
)
LISTED = [row.name for row in PUBLIC if row.top_k]
SELECTING = [row.name for row in PUBLIC if row.selects]
ADDITIVE = [entry for entry in CASES if REDUCTIONS[entry[0]].additive]


# -- oracles ---------------------------------------------------------------------------------------
# From the table of all pairs F (..., rows, columns, D), and of the weight G, in float64.


def _smallest(f: Array, sign: int, length: int) -> tuple[Array, Array]:
    """The first `length` values in order and their columns; NaN last, inf and 0 where none is."""
    n = f.shape[-2]
    f = np.where(np.isnan(f), math.inf, sign * f)
    order = np.argsort(f, axis=-2, kind="stable")[..., :length, :]
    values = np.full((*f.shape[:-2], length, f.shape[-1]), math.inf)
    places = np.zeros(values.shape, np.int64)
    values[..., : min(n, length), :] = np.take_along_axis(f, order, -2)
    places[..., : min(n, length), :] = order
    return sign * values, np.where(values == math.inf, 0, places)


def _extreme(f: Array, sign: int) -> tuple[Array, Array]:
    values, places = _smallest(f, sign, 1)
    return values[..., 0, :], places[..., 0, :]


def _listed(array: Array) -> Array:
    """As users see a list: without the axis of components where there is one component."""
    return array[..., 0] if array.shape[-1] == 1 else array


def _log_sum_exp(f: Array, g: Array | None) -> Array:
    if not f.shape[-2]:
        return np.full((*f.shape[:-2], (f if g is None else g).shape[-1]), -math.inf)
    return scipy.special.logsumexp(f if g is None else f + np.log(g), axis=-2)


def _soft_max(f: Array, g: Array) -> Array:
    if not f.shape[-2]:
        return np.full((*f.shape[:-2], g.shape[-1]), math.nan)
    return (scipy.special.softmax(f, axis=-2) * g).sum(-2)


def _shifted(f: Array, g: Array | None) -> Array:
    top = f.max(-2, initial=-math.inf, keepdims=True)
    terms = np.exp(f - np.where(np.isinf(top), 0, top)) * (1 if g is None else g)
    return np.concatenate([top[..., 0, :], terms.sum(-2)], -1)


ORACLES: dict[str, Callable[..., Any]] = {
    "Sum": lambda f, g, k: f.sum(-2),
    "Mean": lambda f, g, k: f.sum(-2) / f.shape[-2] if f.shape[-2] else f.sum(-2) * math.nan,
    "Count": lambda f, g, k: np.count_nonzero(f, axis=-2),
    "Prod": lambda f, g, k: f.prod(-2),
    "Any": lambda f, g, k: f.any(-2),
    "All": lambda f, g, k: f.all(-2),
    "Min": lambda f, g, k: _extreme(f, 1)[0],
    "Max": lambda f, g, k: _extreme(f, -1)[0],
    "ArgMin": lambda f, g, k: _extreme(f, 1)[1],
    "ArgMax": lambda f, g, k: _extreme(f, -1)[1],
    "Min_ArgMin": lambda f, g, k: _extreme(f, 1),
    "Max_ArgMax": lambda f, g, k: _extreme(f, -1),
    "KMin": lambda f, g, k: _listed(_smallest(f, 1, k)[0]),
    "ArgKMin": lambda f, g, k: _listed(_smallest(f, 1, k)[1]),
    "KMin_ArgKMin": lambda f, g, k: tuple(map(_listed, _smallest(f, 1, k))),
    "LogSumExp": lambda f, g, k: _log_sum_exp(f, g),
    "LogSumExpWeight": lambda f, g, k: _log_sum_exp(f, g),
    "SumSoftMaxWeight": lambda f, g, k: _soft_max(f, g),
    "Max_SumShiftExp": lambda f, g, k: _shifted(f, g),
    "Max_SumShiftExpWeight": lambda f, g, k: _shifted(f, g),
}


def oracle(name: str, f: Array, g: Array | None = None, length: int = K) -> Any:
    """What the reduction of these pairs is."""
    name = ALIASES.get(name, name)
    with np.errstate(all="ignore"):
        return ORACLES[name](f, g, length)


def check(name: str, got: Any, want: Any, dtype: str, about: object = None, **how: Any) -> None:
    """Results have the kinds that the table tells, and the values of the oracle."""
    row = REDUCTIONS[ALIASES.get(name, name)]
    single = len(row.results) == 1 or row.joined
    assert isinstance(got, tuple) != single
    gots = (got,) if single else got
    wants = (want,) if single else want
    kinds = {"value": np.dtype(dtype), "index": np.dtype("int64"), "truth": np.dtype("bool")}
    for result, a, b in zip(row.results, gots, wants, strict=not row.joined):
        assert a.dtype == kinds[result.kind]
        if result.kind == "value":
            assert_close(a, b, formula=(name, about), **how)
        else:
            assert_same_bits(a, b, formula=(name, about))


# -- programs and data -----------------------------------------------------------------------------


def program(name: str, weighted: bool, dim: int, axis: int, length: int = K, **how: Any) -> Genred:
    """A reduction of p*x*y, or of the scalar p*(x|y), with a weight from both sides."""
    row = REDUCTIONS[ALIASES.get(name, name)]
    wide = {1: 1, 3: 4}.get(dim, dim)
    aliases = [f"x = Vi({dim})", f"y = Vj({dim})", f"b = Vj({wide})", "c = Vi(1)", "p = Pm(1)"]
    if weighted:
        how["formula2"] = "b*c"
    if row.top_k:
        how["opt_arg"] = length
    formula = "p*(x|y)" if row.scalar or weighted else "p*x*y"
    return Genred(formula, aliases, name, axis=axis, **how)


def arrays(
    name: str,
    dim: int,
    rows: int,
    columns: int,
    dtype: str,
    batch: Sequence[tuple[int, ...]] = ((),) * 5,
) -> list[Array]:
    """x, y, b, c, p: whole numbers with many ties, so that every order is exact; weights > 0."""
    rng = np.random.default_rng(dim + rows + columns)
    whole = [-2, -1, 0, 1, 2]
    x = rng.choice(whole, (*batch[0], rows, dim))
    y = rng.choice(whole, (*batch[1], columns, dim))
    y[..., 0] = rng.choice([-2, -1, 1, 2], y.shape[:-1])
    p = rng.choice([-1, 2], (*batch[4], 1))
    if name == "Prod":  # stays within the numbers of float32
        x, y = (rng.choice([-1, 1, 1], v.shape) * 2.0 ** np.sign(v) for v in (x, y))
        x, p = np.sign(x), np.sign(p)
    wide = {1: 1, 3: 4}.get(dim, dim)
    b = rng.uniform(0.5, 1.5, (*batch[2], columns, wide))
    c = rng.uniform(0.5, 1.5, (*batch[3], rows, 1))
    return [v.astype(dtype) for v in (x, y, b, c, p)]


def pairs(
    name: str, weighted: bool, given: Sequence[Array], axis: int
) -> tuple[Array, Array | None]:
    """F and G of all pairs in float64, the reduced axis being the last but one."""
    x, y, b, c, p = (v.astype("float64") for v in given)
    x, c = x[..., :, None, :], c[..., :, None, :]
    y, b, p = y[..., None, :, :], b[..., None, :, :], p[..., None, None, :]
    f = p * x * y
    if REDUCTIONS[name].scalar or weighted:
        f = p * (x * y).sum(-1, keepdims=True)
    g = b * c if weighted else None
    # Axes that only the weight or only the formula has belong to both.
    full = np.broadcast_shapes(*(v.shape[:-1] for v in (x, y, b, c, p)))
    f = np.broadcast_to(f, (*full, f.shape[-1]))
    g = None if g is None else np.broadcast_to(g, (*full, g.shape[-1]))
    if axis == 0:
        f, g = np.swapaxes(f, -2, -3), None if g is None else np.swapaxes(g, -2, -3)
    return f, g


SIZES = [(17, 23), (23, 17), (1, 1), (17, 1), (1, 23), (17, 0), (0, 23), (0, 0), (5, 1000)]


def test_every_reduction_has_an_oracle() -> None:
    assert set(ORACLES) == {row.name for row in PUBLIC}


NAMES = [
    *("Sum", "Max_SumShiftExp", "Max_SumShiftExpWeight", "LogSumExp", "LogSumExpWeight"),
    *("SumSoftMaxWeight", "SoftMax", "Min", "Max", "ArgMin", "ArgMax", "Min_ArgMin", "Max_ArgMax"),
    *("KMin", "ArgKMin", "KMin_ArgKMin"),
    *("Mean", "Prod", "Any", "All", "Count"),  # PyKeOps lacks these
]


@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_known(name: str) -> None:
    true = ALIASES.get(name, name)
    weighted = REDUCTIONS[true].weighted == "must"
    given = arrays(true, 1, 17, 23, "float32")
    want = oracle(name, *pairs(true, weighted, given, 1))
    check(name, program(name, weighted, 1, 1)(*given), want, "float32", terms=23)


@every_pair(
    ("name,weighted", CASES),
    ("dim", [1, 3, 20]),
    ("axis,dtype", [(1, "float32"), (0, "float64")]),
    ("lanes", ["row", "column"]),
)
def test_reductions_of_any_size_equal_numpy(
    name: str, weighted: bool, dim: int, axis: int, dtype: str, lanes: str
) -> None:
    genred = program(name, weighted, dim, axis)
    with settings(lanes=lanes, block=64):
        for rows, columns in SIZES:
            sizes = (rows, columns) if axis == 1 else (columns, rows)
            given = arrays(name, dim, *sizes, dtype)
            want = oracle(name, *pairs(name, weighted, given, axis))
            for splits in (1, 3) if columns > 64 else (0,):
                with settings(splits=splits):
                    got = genred(*given)
                check(name, got, want, dtype, (rows, columns, splits), terms=columns)


@pytest.mark.parametrize(("axis", "dtype"), [(0, "float32"), (1, "float64")])
@case
def test_batches_broadcast(name: str, weighted: bool, axis: int, dtype: str) -> None:
    genred = program(name, weighted, 3, axis)
    for batch in (
        ((2,), (2,), (2,), (2,), (2,)),
        ((), (3,), (), (), ()),
        ((2, 1), (3,), (1, 1), (), (2, 3)),
        ((), (), (), (), (2,)),
        ((0,), (), (), (), ()),
    ):
        given = arrays(name, 3, 17, 23, dtype, batch)
        if not any(batch[:4]):
            given[0] = np.broadcast_to(given[0], (1, *given[0].shape))
        want = oracle(name, *pairs(name, weighted, given, axis))
        check(name, genred(*given), want, dtype, batch, terms=23)


def views(array: Array) -> list[Array]:
    """The same values with other strides."""
    wide = np.repeat(np.repeat(array, 2, axis=0), 3, axis=-1)
    return [
        np.asfortranarray(array),
        wide[::2, ::3] if array.ndim > 1 else wide[::6][:1],
        array[::-1].copy()[::-1],
    ]


@case
def test_any_strides_give_the_same_bits(name: str, weighted: bool) -> None:
    given = arrays(name, 3, 17, 23, "float64")
    genred = program(name, weighted, 3, 1)
    want = genred(*given)
    for others in zip(*map(views, given), strict=True):
        for a, b in zip(parts(genred(*others)), parts(want), strict=True):
            assert_same_bits(a, b, formula=name)


def parts(results: Any) -> tuple[Array, ...]:
    """One or two results as a tuple."""
    return results if isinstance(results, tuple) else (results,)


@case
def test_out_is_filled_whatever_its_strides(name: str, weighted: bool) -> None:
    given = arrays(name, 3, 17, 23, "float64")
    genred = program(name, weighted, 3, 1)
    want = parts(genred(*given))
    bases = [np.zeros([2 * n for n in w.shape], w.dtype) for w in want]
    outs = [base[tuple(slice(None, None, 2) for _ in base.shape)] for base in bases]
    out = outs[0] if len(outs) == 1 else tuple(outs)
    assert genred(*given, out=out) is out
    for a, base, b in zip(outs, bases, want, strict=True):
        assert_same_bits(a, b, formula=name)
        assert not base[1::2].any()
    for wrong, error in (
        ([w[:-1].copy() for w in want], ShapeError),
        ([w.astype("float32") for w in want], DTypeError),
    ):
        with pytest.raises(error, match="out"):
            genred(*given, out=wrong[0] if len(wrong) == 1 else tuple(wrong))
    if len(want) == 2:
        with pytest.raises(ShapeError, match="out"):
            genred(*given, out=want[0].copy())


@pytest.mark.parametrize("lanes", ["row", "column"])
@case
def test_results_pass_the_comparison_with_the_reference(
    name: str, weighted: bool, lanes: str
) -> None:
    given = arrays(name, 3, 17, 23, "float64")
    genred = program(name, weighted, 3, 1)
    adapter, *_ = genred._fold.check(given)
    with settings(check=2, lanes=lanes):
        checked = parts(genred(*given))
        got = [
            array.reshape(array.shape[0], -1) for array in genred._fold.reference(adapter, given)
        ]
    if REDUCTIONS[name].joined:
        got = [np.concatenate(got, -1)]
    for a, b in zip(checked, got, strict=True):
        assert_close(a.reshape(b.shape), b, terms=23, formula=name)


# -- plans -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", TARGETS[1:])  # native is that of the other tests
@every_pair(("name,weighted", CASES), ("dtype,lanes", [("float32", "row"), ("float64", "column")]))
def test_every_target_equals_numpy(
    name: str, weighted: bool, dtype: str, lanes: str, target: str
) -> None:
    given = arrays(name, 3, 70, 300, dtype)
    want = oracle(name, *pairs(name, weighted, given, 1))
    with settings(target=target, lanes=lanes):
        got = program(name, weighted, 3, 1)(*given)
    check(name, got, want, dtype, (target, lanes), terms=300)


PLANS: list[dict[str, Any]] = [
    {"unroll": 2, "row_vectors": 4},
    {"unroll": 1, "rules": "exact", "lanes": "column", "row_vectors": 2},
    {"row_vectors": 4, "column_jam": 3, "block": 8, "lanes": "row"},
]


@some(
    "name,weighted,options",
    [(*entry, options) for entry in CASES for options in PLANS],
    lambda entry: CASES.index(entry[:2]) % len(PLANS) == PLANS.index(entry[2]),
)
def test_every_plan_equals_numpy(name: str, weighted: bool, options: dict[str, Any]) -> None:
    given = arrays(name, 3, 70, 300, "float64")
    want = oracle(name, *pairs(name, weighted, given, 1))
    with settings(**options):
        got = program(name, weighted, 3, 1)(*given)
    check(name, got, want, "float64", options, terms=300)


@case
def test_threads_do_not_change_a_single_bit(name: str, weighted: bool) -> None:
    genred = program(name, weighted, 3, 1)
    for rows, columns in ((301, 2003), (3, 30_011)):
        given = arrays(name, 3, rows, columns, "float32")
        found = []
        for threads in (1, 3):
            with settings(threads=threads):
                found.append(parts(genred(*given)))
        for a, b in zip(*found, strict=True):
            assert_same_bits(a, b, formula=name)


CONSTANT = ["p", "x", "y", "IntCst(2)"]


@some(
    "name,weighted,formula",
    [(*entry, formula) for entry in CASES for formula in CONSTANT],
    lambda entry: (CASES.index(entry[:2]) + CONSTANT.index(entry[2])) % 2 == 0,
)
def test_formulas_that_lack_an_index_equal_numpy(name: str, weighted: bool, formula: str) -> None:
    """One value of all pairs, of a row or of a column."""
    row = REDUCTIONS[name]
    options: dict[str, Any] = {"opt_arg": K} if row.top_k else {}
    aliases = ["x = Vi(1)", "y = Vj(1)", "p = Pm(1)"]
    given = [np.arange(1.0, 18)[:, None], np.array([3.0, -1, 2, -1, 3])[:, None], np.array([3.0])]
    table = {"p": given[2], "x": given[0][:, None], "y": given[1][None], "IntCst(2)": np.array(2.0)}
    for axis, weight in ((1, "p"), (0, "p"), (1, "Square(y)"), (0, "Square(x)")):
        f = np.broadcast_to(table[formula], (17, 5, 1))
        g = {"p": given[2], "Square(y)": given[1][None] ** 2, "Square(x)": given[0][:, None] ** 2}
        g = np.broadcast_to(g[weight], f.shape)
        if axis == 0:
            f, g = f.swapaxes(0, 1), g.swapaxes(0, 1)
        if weighted:
            options["formula2"] = weight
        want = oracle(name, f, g if weighted else None)
        got = Genred(formula, aliases, name, axis=axis, **options)(*given)
        check(name, got, want, "float64", (formula, axis, weight), terms=17)
    # Without an array of one side there is one row, or one column.
    if weighted:
        options["formula2"] = "p"
    got = Genred("y+p", ["y = Vj(1)", "p = Pm(1)"], name, axis=1, **options)(*given[1:])
    f = (given[1] + given[2])[None]
    check(name, got, oracle(name, f, 0 * f + 3 if weighted else None), "float64", terms=5)
    got = Genred("y+p", ["y = Vj(1)", "p = Pm(1)"], name, axis=0, **options)(*given[1:])
    f = f.swapaxes(0, 1)
    check(name, got, oracle(name, f, 0 * f + 3 if weighted else None), "float64", terms=5)


@pytest.mark.parametrize("name", ["LogSumExp", "LogSumExpWeight", "SumSoftMaxWeight"])
def test_weights_may_have_any_sign_and_be_zero(name: str) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.uniform(-1, 1, (17, 1)), rng.uniform(-1, 1, (23, 1))
    b = np.concatenate([rng.uniform(-0.2, 1, (23, 1)), np.zeros((23, 1)), -np.ones((23, 1))], 1)
    terms = np.exp(x[:, None] + y) * b
    with np.errstate(all="ignore"):
        want = terms.sum(1)
        if name == "SumSoftMaxWeight":
            want = want / np.exp(x + y[:, 0]).sum(1, keepdims=True)
        else:
            want = np.log(want)
    aliases = ["x = Vi(1)", "y = Vj(1)", "b = Vj(3)"]
    for lanes in ("row", "column"):
        with settings(lanes=lanes):
            got = Genred("x+y", aliases, name, axis=1, formula2="b")(x, y, b)
        assert_close(got, want, terms=23, formula=(name, lanes))


@case
def test_every_reduction_can_be_explained(name: str, weighted: bool) -> None:
    genred = program(name, weighted, 3, 1)
    given = arrays(name, 3, 17, 23, "float32")
    for explanation in (genred.explain(), genred.explain(*given)):
        assert name in str(explanation)
    assert name in repr(genred)


# -- ties, lists, indices --------------------------------------------------------------------------


@pytest.mark.parametrize("lanes", ["row", "column"])
@pytest.mark.parametrize("name", SELECTING)
def test_the_lowest_index_wins_across_lanes_blocks_and_splits(name: str, lanes: str) -> None:
    rng = np.random.default_rng(1)
    columns = 3001
    rare = rng.choice([-3, 0, 1, 2, 5], (12, columns), p=[0.002, 0.3, 0.4, 0.296, 0.002])
    late = np.where(np.arange(columns) < 2900, 1, 0)
    table = np.stack([*rare, np.zeros(columns), late, -late, np.arange(columns)[::-1] // 700])
    y = table[:, :, None].astype("float32")
    x = np.zeros((19, 1), "float32")
    want = oracle(name, np.broadcast_to(y[:, None], (16, 19, columns, 1)), length=40)
    options = {"opt_arg": 40} if REDUCTIONS[name].top_k else {}
    genred = Genred("x+y", ["x = Vi(1)", "y = Vj(1)"], name, axis=1, **options)
    for splits in (1, 4):
        with settings(lanes=lanes, splits=splits):
            check(name, genred(x, y), want, "float32", splits)


@pytest.mark.parametrize("lanes", ["row", "column"])
@pytest.mark.parametrize("length", [1, 5, 23, 26, 100])
@pytest.mark.parametrize("name", LISTED)
def test_lists_of_any_length_are_ascending_and_padded(name: str, length: int, lanes: str) -> None:
    for dim in (1, 3):
        given = arrays(name, dim, 17, 23, "float32")
        genred = program(name, False, dim, 1, length)
        want = oracle(name, *pairs(name, False, given, 1), length)
        with settings(lanes=lanes):
            got = genred(*given)
        check(name, got, want, "float32", (dim, length))
        shape = (17, length) if dim == 1 else (17, length, 3)
        assert {part.shape for part in parts(got)} == {shape}


@pytest.mark.parametrize("length", [np.int64(2), np.uint8(2)])
def test_lengths_may_be_numpy_integers(length: Any) -> None:
    genred = Genred("x+y", ["x = Vi(1)", "y = Vj(1)"], "KMin", axis=1, opt_arg=length)
    assert genred(np.ones((3, 1)), np.ones((4, 1))).shape == (3, 2)


@pytest.mark.parametrize("name", [name for name in SELECTING if "Arg" in name])
def test_indices_beyond_float32_are_exact(name: str) -> None:
    columns, far = 17_000_003, 2**24 + 1
    y = np.zeros((columns, 1), "float32")
    y[far], y[columns - 2] = 1, -1
    x = np.array([[1], [-1]], "float32")
    options = {"opt_arg": 1} if REDUCTIONS[name].top_k else {}
    genred = Genred("x*y", ["x = Vi(1)", "y = Vj(1)"], name, axis=1, **options)
    want = [[columns - 2], [far]] if "Min" in name else [[far], [columns - 2]]
    for lanes in ("row", "column"):
        with settings(lanes=lanes):
            assert_same_bits(parts(genred(x, y))[-1], np.array(want), formula=(name, lanes))


def test_counts_beyond_float32_are_exact() -> None:
    y = np.ones((17_000_003, 1), "float32")
    y[5] = 0
    got = Genred("x*y", ["x = Vi(1)", "y = Vj(1)"], "Count", axis=1)(np.ones((1, 1), "float32"), y)
    assert_same_bits(got, [[17_000_002]])


# -- values that are not finite --------------------------------------------------------------------

SPECIAL = [math.nan, math.inf, -math.inf]
FEW = [
    list(row)
    for n in (1, 2, 3)
    for row in itertools.product([1.0, 2.0, *SPECIAL], repeat=n)
]  # fmt: skip


def everywhere(columns: int, around: float) -> Array:
    """Rows of one value with each special value, alone and twice, at every position."""
    rows = np.full((columns * len(SPECIAL) * 2, columns), around)
    for n, (place, value, twice) in enumerate(
        itertools.product(range(columns), SPECIAL, (False, True))
    ):
        rows[n, place] = value
        if twice:
            rows[n, (place + columns // 2) % columns] = value
    return rows


@pytest.mark.parametrize("lanes", ["row", "column"])
@case
def test_values_that_are_not_finite_are_treated_as_documented(
    name: str, weighted: bool, lanes: str
) -> None:
    row = REDUCTIONS[name]
    options: dict[str, Any] = {"opt_arg": 3} if row.top_k else {}
    if weighted:
        options["formula2"] = "Exp(0*x)+0*b"
    genred = Genred("x+y", ["x = Vi(1)", "y = Vj(1)", "b = Vj(1)"], name, axis=1, **options)
    x = np.array([[0.0], [1.0], [-1.0]])
    tables = [everywhere(41, around) for around in (0.0, -math.inf, math.inf, math.nan)]
    tables += [np.array([r for r in FEW if len(r) == n]) for n in (1, 2, 3)]
    tables += [np.full((1, 300), value) for value in SPECIAL]
    for table in tables:
        y = table[:, :, None]
        f = x[:, None, :] + y[:, None, :, :]
        g = np.ones_like(f) if weighted else None
        want = oracle(name, f, g, 3)
        if row.joined:
            want = _joined_by_hand(f)
        with settings(lanes=lanes):
            got = genred(x, y, np.ones((table.shape[1], 1)))
        check(name, got, want, "float64", table.shape, terms=41)


def _joined_by_hand(f: Array) -> Array:
    """[m, sum e^(F - m)] where values are not finite: NaN is no maximum, and e^(inf - m) is inf."""
    top = np.where(np.isnan(f), -math.inf, f).max(-2, keepdims=True)
    kept = np.where(np.isinf(top), 0, top)
    with np.errstate(all="ignore"):
        sums = np.exp(f - kept).sum(-2)
    return np.concatenate([top[..., 0, :], sums], -1)


def test_log_sum_exp_is_the_mathematical_value() -> None:
    genred = Genred("x+y", ["x = Vi(1)", "y = Vj(1)"], "LogSumExp", axis=1)
    inf = math.inf
    for row, want in (
        ([1, -inf], 1),
        ([-inf, 1], 1),
        ([-inf, -inf], -inf),
        ([inf, 1], inf),
        ([inf, inf], inf),
        ([-inf, inf], inf),
        ([math.nan, 1], math.nan),
        ([0, 0], math.log(2)),
    ):
        for lanes in ("row", "column"):
            with settings(lanes=lanes):
                got = genred(np.zeros((1, 1)), np.array(row, float)[:, None])
            assert_close(got, [[want]], formula=row)


@pytest.mark.parametrize("lanes", ["row", "column"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("entry", [entry for entry in CASES if REDUCTIONS[entry[0]].max_shifted])
def test_exponents_of_any_magnitude_stay_accurate(
    entry: tuple[str, bool], dtype: str, lanes: str
) -> None:
    name, weighted = entry
    rng = np.random.default_rng(0)
    base = np.round(rng.uniform(-3, 3, (70, 1)) * 64) / 64
    weights = rng.uniform(0.5, 1.5, (70, 4))
    ramp = np.linspace(-1, 1, 70)[:, None]
    alternating = np.where(np.arange(70) % 2, 1.0, -1.0)[:, None]
    tables = [base + at for at in (1e4, -1e4, 88.0, -88.0, -104.0, 709.0, -745.0)]
    tables += [ramp * scale for scale in (1e4, -1e4, 1e30, -1e30)]
    tables += [alternating * scale for scale in (1e4, 1e30)]
    tables += [np.full((70, 1), at) for at in (1e30, -1e30)]
    y = np.stack(tables).astype(dtype)
    b = weights.astype(dtype)
    options = {"formula2": "b"} if weighted else {}
    genred = Genred("x+y", ["x = Vi(1)", "y = Vj(1)", "b = Vj(4)"], name, axis=1, **options)
    with settings(lanes=lanes):
        got = genred(np.zeros((1, 1), dtype), y, b)
    f = y[:, None].astype("float64")
    g = np.broadcast_to(b.astype("float64"), (*f.shape[:-1], 4)) if weighted else None
    want = oracle(name, f, g)
    # Row by row: a large one must not hide the error of a small one.
    for one, other, table in zip(got, want, tables, strict=True):
        assert_close(one, other, terms=70, formula=(name, table[0]))


# -- rules -----------------------------------------------------------------------------------------


class Numbers:
    """The scalar values of the rules as Python floats."""

    select = staticmethod(lambda condition, x, y: x if condition else y)
    lt = staticmethod(lambda x, y: x < y)
    le = staticmethod(lambda x, y: x <= y)
    eq = staticmethod(lambda x, y: x == y)
    ne = staticmethod(lambda x, y: x != y)
    both = staticmethod(lambda x, y: x and y)
    either = staticmethod(lambda x, y: x or y)
    exp = staticmethod(lambda x: float(np.exp(x)))
    log = staticmethod(lambda x: float(np.log(np.float64(x))))

    @staticmethod
    def constant(value: float | str) -> float:
        """A number by its name."""
        limits = np.finfo("float64")
        named = {"lowest": float(limits.min), "largest": float(limits.max)}
        return named.get(str(value), float(value) if str(value) not in named else 0.0)


S: Any = Numbers()
Column = tuple[int, float, float]


class Model:
    """A row's rules on columns (number, F, G): the state of one component, without any plan."""

    def __init__(self, row: Reduction, columns: Sequence[Column] = (), length: int = 3) -> None:
        self.row, self.length = row, length
        start = [float(value) for value in row.identity]
        self.states = [list(start) for _ in range(length if row.top_k else 1)]
        self.total = list(start)
        self.top = S.constant("lowest")
        self.count = 0
        self.add(columns)

    def add(self, columns: Sequence[Column]) -> None:
        """A block: first its maximum, then every column."""
        self.count += len(columns)
        if self.row.max_shifted:
            largest = max((f for _, f, _ in columns if f == f), default=-math.inf)
            self.move(min(max(largest, self.top), S.constant("largest")))
        for number, f, g in columns:
            if self.row.top_k:
                self.insert(lambda old, new: self.row.step(S, old, *new), [f, float(number)])
                continue
            term = S.exp(f - self.top) if self.row.max_shifted else f
            self.total = list(self.row.step(S, self.total, term, number))
            value = term * g if self.row.max_shifted else f
            self.states[0] = list(self.row.step(S, self.states[0], value, float(number)))

    def move(self, top: float) -> None:
        """Measure the sums from another maximum."""
        scale = S.exp(self.top - top)
        self.states = [[part * scale for part in state] for state in self.states]
        self.total = [part * scale for part in self.total]
        self.top = top

    def insert(self, rule: Callable[..., Any], new: list[float]) -> None:
        """Every place of the list from the one before and itself."""
        front = [[-math.inf, -1.0], *self.states]
        self.states = [
            list(rule([*before, *here], new)) for before, here in itertools.pairwise(front)
        ]

    def merged(self, other: Model) -> Model:
        """Another state that stands for the columns of both."""
        found = Model(self.row, length=self.length)
        found.count = self.count + other.count
        found.states, found.total, found.top = self.states, self.total, self.top
        if self.row.top_k:
            for entry in other.states:
                found.insert(lambda old, new: self.row.merge(S, old, new), list(entry))
            return found
        there = Model(self.row, length=self.length)
        there.states, there.total, there.top = other.states, other.total, other.top
        if self.row.max_shifted:
            top = max(self.top, other.top)
            found.move(top)
            there.move(top)
        found.states = [list(self.row.merge(S, found.states[0], there.states[0]))]
        found.total = list(self.row.merge(S, found.total, there.total))
        return found

    def finished(self) -> Array:
        """All results: (places, results)."""
        count = np.float64(self.count)
        return np.array(
            [
                self.row.finish(
                    S,
                    Ends(
                        [np.float64(v) for v in state],
                        self.top,
                        np.float64(self.total[0]),
                        count,
                    ),
                )
                for state in self.states
            ],
            dtype="float64",
        )


def model_of(row: Reduction, blocks: Sequence[Sequence[Column]]) -> Array:
    """What is finished after blocks were folded apart and merged, first to last."""
    found = Model(row)
    for block in blocks:
        found = found.merged(Model(row, block))
    return found.finished()


every_row = pytest.mark.parametrize("row", REDUCTIONS.values(), ids=list(REDUCTIONS))
values = st.lists(
    st.sampled_from([0.0, 1.0, 2.0, -1.0, 0.5, -2.0, 50.0, math.nan, math.inf, -math.inf]),
    max_size=12,
)


def cut(items: Sequence[Any], places: Sequence[int]) -> list[Sequence[Any]]:
    """Blocks between the places, some empty."""
    marks = [0, *sorted(place % (len(items) + 1) for place in places), len(items)]
    return [items[a:b] for a, b in itertools.pairwise(marks)]


@every_row
@hypothesis.settings(max_examples=40, deadline=None, derandomize=True)
@hypothesis.given(values, st.lists(st.integers(0, 12), max_size=4), st.randoms())
def test_rules_are_those_of_a_commutative_monoid(
    row: Reduction, given: list[float], places: list[int], rng: Any
) -> None:
    columns = [(n, f, 1.0 + n % 3) for n, f in enumerate(given)]
    with np.errstate(all="ignore"):
        blocks = cut(columns, places)
        whole = Model(row, columns).finished()
        same = {"rtol": 1e-12} if row.max_shifted else {"rtol": 0.0, "atol": 0.0}
        assert_close(model_of(row, blocks), whole, **same, formula=(row, blocks))
        rng.shuffle(blocks)
        assert_close(model_of(row, blocks), whole, **same, formula=(row, blocks))
        # Any tree of merges.
        states = [Model(row, block) for block in blocks]
        while len(states) > 1:
            n = rng.randrange(len(states) - 1)
            states[n : n + 2] = [states[n].merged(states[n + 1])]
        assert_close(states[0].finished(), whole, **same, formula=(row, blocks))
        empty, full = Model(row), Model(row, columns)
        for neutral in (empty.merged(full), full.merged(empty)):
            assert_same_bits(neutral.finished(), whole, formula=(row, columns))


@every_row
def test_rules_and_machine_code_agree(row: Reduction) -> None:
    if row.internal:
        return
    rng = np.random.default_rng(2)
    f = rng.choice([-1.0, 0.5, 1, 2], (23,))
    g = rng.uniform(0.5, 1.5, 23)
    columns = [(n, float(a), float(b)) for n, (a, b) in enumerate(zip(f, g, strict=True))]
    options: dict[str, Any] = {"opt_arg": 3} if row.top_k else {}
    weighted = row.weighted != "no"
    if weighted:
        options["formula2"] = "g"
    else:
        columns = [(n, a, 1.0) for n, a, _ in columns]
    genred = Genred("f", ["f = Vj(1)", "g = Vj(1)"], row.name, axis=1, **options)
    got = np.concatenate([np.reshape(part, -1) for part in parts(genred(f[:, None], g[:, None]))])
    assert_close(got.astype("float64"), Model(row, columns).finished().T.reshape(-1), terms=23)


# What the table's conventions promise of rows without columns.
EMPTY: dict[str, Any] = {
    "Sum": 0.0,
    "Mean": math.nan,
    "Count": 0,
    "Prod": 1.0,
    "Any": False,
    "All": True,
    "Min": math.inf,
    "Max": -math.inf,
    "ArgMin": 0,
    "ArgMax": 0,
    "Min_ArgMin": (math.inf, 0),
    "Max_ArgMax": (-math.inf, 0),
    "KMin": math.inf,
    "ArgKMin": 0,
    "KMin_ArgKMin": (math.inf, 0),
    "LogSumExp": -math.inf,
    "LogSumExpWeight": -math.inf,
    "SumSoftMaxWeight": math.nan,
    "Max_SumShiftExp": [-math.inf, 0],
    "Max_SumShiftExpWeight": [-math.inf, 0, 0, 0, 0],
}


@pytest.mark.parametrize("lanes", ["row", "column"])
@case
def test_rows_without_columns_have_the_documented_value(
    name: str, weighted: bool, lanes: str
) -> None:
    given = arrays(name, 3, 17, 0, "float32")
    with settings(lanes=lanes):
        got = parts(program(name, weighted, 3, 1)(*given))
    for array, value in zip(got, parts(EMPTY[name]), strict=True):
        assert array.shape[0] == 17
        assert array.size
        assert_same_bits(array, np.broadcast_to(value, array.shape), formula=name)
    want = np.ravel(EMPTY[name])
    with np.errstate(all="ignore"):
        found = np.unique(Model(REDUCTIONS[name]).finished(), axis=0)[0]
    assert_same_bits(found, want[: len(found)].astype("float64"), formula=name)


# -- options ---------------------------------------------------------------------------------------

XY = ["x = Vi(1)", "y = Vj(1)", "v = Vi(3)"]


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("Summ", {}, OptionError, "did you mean .*Sum"),
        ("ArgMim", {}, OptionError, "did you mean .*ArgMin"),
        ("xyzzy", {}, OptionError, "available: .*LogSumExp"),
        ("SoftMaxParts", {}, OptionError, "no reduction called"),
        ("ProdParts", {}, OptionError, "no reduction called"),
        (None, {}, OptionError, "no reduction called None"),
        *[
            (name, {"opt_arg": value}, OptionError, "needs opt_arg")
            for name in LISTED
            for value in (None, 0, -1, 1.5, True, "3")
        ],
        *[
            (row.name, {"opt_arg": 3, "formula2": "y"}, OptionError, "takes no opt_arg")
            for row in PUBLIC
            if not row.top_k
        ],
        *[
            (row.name, {"formula2": value}, OptionError, "needs formula2")
            for row in PUBLIC
            if row.weighted == "must"
            for value in (None, "")
        ],
        ("SoftMax", {}, OptionError, "needs formula2"),
        *[
            (row.name, {"formula2": "y", "opt_arg": 3 * row.top_k}, OptionError, "no formula2")
            for row in PUBLIC
            if row.weighted == "no"
        ],
        *[
            (row.name, {**option, "opt_arg": 3 * row.top_k}, OptionError, "adds nothing up")
            for row in PUBLIC
            if not row.additive
            for option in (
                {"sum_scheme": "kahan_scheme"},
                {"sum_scheme": "block_sum"},
                {"dtype_acc": "float64"},
                {"dtype_acc": "float32"},
                {"use_double_acc": True},
            )
        ],
        ("Sum", {"use_double_acc": True, "dtype_acc": "float32"}, OptionError, "either"),
        ("LogSumExp", {"sum_scheme": "kahan"}, OptionError, "sum_scheme"),
        ("LogSumExp", {"dtype_acc": "double"}, OptionError, "dtype_acc"),
    ],
)
def test_options_that_cannot_be_are_refused_at_construction(
    name: str, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        Genred("x+y", XY, name, axis=1, **options)
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, PairfoldError)


@pytest.mark.parametrize(("name", "weighted"), [c for c in CASES if c[1] or "Shift" in c[0]])
def test_formulas_that_must_be_scalars_are_checked_at_construction(
    name: str, weighted: bool
) -> None:
    options = {"formula2": "Concat(y,y)"} if weighted else {}
    with pytest.raises(DimError, match="dimension 1") as caught:
        Genred("v+y", XY, name, axis=1, **options)
    assert isinstance(caught.value, ValueError)
    assert "Sum(f)" in str(caught.value)


@case
def test_programs_can_be_pickled(name: str, weighted: bool) -> None:
    how = {"sum_scheme": "kahan_scheme"} if REDUCTIONS[name].additive else {}
    genred = program(name, weighted, 3, 0, 4, **how)
    again = pickle.loads(pickle.dumps(genred))
    for attribute in ("opt_arg", "formula2", "reduction_op", "axis", "formula", "accuracy"):
        assert getattr(again, attribute) == getattr(genred, attribute)
    assert again.opt_arg == (4 if REDUCTIONS[name].top_k else None)
    assert again.formula2 == ("b*c" if weighted else None)
    given = arrays(name, 3, 17, 23, "float32")
    for a, b in zip(parts(again(*given)), parts(genred(*given)), strict=True):
        assert_same_bits(a, b, formula=name)


@pytest.mark.parametrize("entry", ADDITIVE, ids=str)
def test_sums_are_accumulated_as_asked(entry: tuple[str, bool]) -> None:
    name, weighted = entry
    given = arrays(name, 3, 17, 1000, "float32")
    want = oracle(name, *pairs(name, weighted, given, 1))
    wide = [v.astype("float64") for v in given]
    for dtype, scheme in (
        ("float32", "direct_sum"),
        ("float32", "kahan_scheme"),
        ("float64", "direct_sum"),
        ("float64", "block_sum"),
        ("auto", "kahan_scheme"),
    ):
        genred = program(name, weighted, 3, 1, dtype_acc=dtype, sum_scheme=scheme)
        check(name, genred(*given), want, "float32", (dtype, scheme), terms=1000)
        if dtype == "float32":
            with pytest.raises(DTypeError, match="float32"):
                genred(*wide)
        else:
            check(name, genred(*wide), want, "float64", (dtype, scheme), terms=1000)
    check(
        name,
        program(name, weighted, 3, 1, use_double_acc=True)(*given),
        want,
        "float32",
        terms=1000,
    )


@pytest.mark.parametrize("name", ["SumSoftMaxWeight", "Max_SumShiftExpWeight"])
def test_the_accumulators_of_exponentials_matter(name: str) -> None:
    """Many terms: float32 blocks added in float32 lose digits, in float64 they do not."""
    rng = np.random.default_rng(0)
    y = rng.uniform(-1e-3, 1e-3, (6, 500_003, 1)).astype("float32")
    b = rng.uniform(0.5, 1.5, (6, 500_003, 1)).astype("float32")
    x = np.zeros((1, 1), "float32")
    want = oracle(name, y[:, None].astype("float64"), b[:, None].astype("float64"))
    aliases = ["x = Vi(1)", "y = Vj(1)", "b = Vj(1)"]

    def error(dtype: str, scheme: str) -> float:
        how = {"formula2": "b", "dtype_acc": dtype, "sum_scheme": scheme}
        with settings(lanes="row"):
            got = Genred("x+y", aliases, name, axis=1, **how)(x, y, b)
        return float(np.abs(got / want - 1).max())

    least = error("float64", "direct_sum")
    assert least < 1e-7
    assert error("auto", "auto") < 1.5 * least
    assert 4 * least < error("float32", "direct_sum") < 1e-4
    assert error("float32", "kahan_scheme") < error("float32", "direct_sum") / 2
