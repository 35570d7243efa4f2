"""Treecodes: errors below what was asked for, derivatives, what is refused, and their parts."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

import pairfold as pf
from pairfold import Genred, Vi, Vj
from pairfold.arrays.registry import NUMPY
from pairfold.errors import FormulaError, OptionError, PairfoldError, UnsupportedError
from pairfold.frontends import farplan
from pairfold.frontends.halving import halved
from pairfold.frontends.meeting import met
from pairfold.frontends.proxies import moments, proxies

RTOL = 1e-4
# A formula, its value and its derivative by the squared distance.
KERNELS = {
    "gaussian": ("Exp(-SqDist(x,y))", lambda s: np.exp(-s), lambda s: -np.exp(-s)),
    "exponential": (
        "Exp(-Norm2(x-y))",
        lambda s: np.exp(-np.sqrt(s)),
        lambda s: -np.exp(-np.sqrt(s)) / (2 * np.sqrt(s)),
    ),
    "coulomb": (
        "Rsqrt(SqDist(x,y)+0.01)",
        lambda s: (s + 0.01) ** -0.5,
        lambda s: -0.5 * (s + 0.01) ** -1.5,
    ),
}


@pytest.fixture(autouse=True)
def always(monkeypatch):
    """Proxies at any size, and boxes as small as the clouds."""
    for name, value in {"FIXED_PAIRS": 0, "PAIRS_PER_POINT": 0, "ROWS": 32, "COLUMNS": 32}.items():
        monkeypatch.setattr(farplan, name, value)


def genred(kernel: str, dim: int, width: int = 1, axis: int = 1, **options):
    rows, columns = ("x", "y") if axis == 1 else ("y", "x")
    aliases = [f"{rows} = Vi({dim})", f"{columns} = Vj({dim})", f"b = V{'ji'[1 - axis]}({width})"]
    given = {"method": "treecode", "rtol": RTOL, **options}
    return Genred(f"{kernel}*b", aliases, axis=axis, **given)


def clouds(dim: int, width: int = 1, dtype: str = "float64", rows: int = 2000, columns: int = 3000):
    rng = np.random.default_rng(dim)
    shapes = (rows, dim), (columns, dim), (columns, width)
    return [array.astype(dtype) for array in (rng.random(s) for s in shapes)]


def table(x, y):
    return np.square(x[:, None].astype(float) - y[None].astype(float)).sum(-1)


def error(found, wanted) -> float:
    found, wanted = np.asarray(found, float), np.asarray(wanted, float)
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


def plan(reduction: Genred, *arrays):
    return reduction._fold.planned(NUMPY, arrays)


# ----- sums --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize(("dim", "dtype"), [(1, "float64"), (2, "float32"), (3, "float64")])
def test_sums_are_as_near_as_was_asked(name, dim, dtype):
    text, value, _ = KERNELS[name]
    x, y, b = clouds(dim, 2, dtype)
    b[:, 1] -= 0.5
    reduction = genred(text, dim, 2)
    found = reduction(x, y, b)
    assert found.dtype == dtype
    assert found.shape == (2000, 2)
    made = plan(reduction, x, y, b)
    assert made.far is not None
    assert made.columns < 0.95 * len(y)
    assert 1e-12 < error(found, value(table(x, y)) @ b) < RTOL
    assert made.error < RTOL


def test_four_coordinates():
    x, y, b = clouds(4, rows=500, columns=6000)
    # Far clouds of their own: boxes of more points than proxies, 3^4.
    y[:3000] += 2
    reduction = genred("Exp(-SqDist(x,y)/10)", 4, rtol=1e-2)
    assert plan(reduction, x, y, b).columns < 5000
    assert 0 < error(reduction(x, y, b), np.exp(-table(x, y) / 10) @ b) < 1e-2


def test_results_on_columns():
    text, value, _ = KERNELS["coulomb"]
    x, y, b = clouds(2)
    reduction = genred(text, 2, axis=0)
    assert plan(reduction, y, x, b).far is not None
    assert 0 < error(reduction(y, x, b), value(table(x, y)) @ b) < RTOL


def test_smaller_errors_take_higher_orders():
    text, value, _ = KERNELS["exponential"]
    x, y, b = clouds(2)
    wanted = value(table(x, y)) @ b
    orders = []
    for rtol in (1e-2, 1e-5, 1e-8):
        reduction = genred(text, 2, rtol=rtol)
        assert error(reduction(x, y, b), wanted) < rtol
        orders.append(plan(reduction, x, y, b).order)
    assert orders[0] < orders[1] < orders[2]


def clusters(count: int, rng) -> np.ndarray:
    """Points in six clusters of very different size, each many times smaller than all."""
    sizes = [count // 2, count // 4, count // 8, count // 16, count // 16]
    sizes.append(count - sum(sizes))
    return np.concatenate(
        [rng.random(2) + rng.standard_normal((n, 2)) * 10.0**-k for k, n in enumerate(sizes, 1)]
    )


def test_clusters_copies_and_flat_clouds():
    text, value, _ = KERNELS["coulomb"]
    reduction = genred(text, 2, 3)
    rng = np.random.default_rng(0)
    _, _, b = clouds(2, 3)
    flat = rng.random((3000, 2))
    flat[:, 1] = 0.3
    cases = {
        "clusters": (clusters(2000, rng), clusters(3000, rng)),
        "copies": (rng.random((20, 2)).repeat(100, 0), rng.random((30, 2)).repeat(100, 0)),
        "one point": (rng.random((2000, 2)), np.full((3000, 2), 0.7)),
        "flat": (rng.random((2000, 2)), flat),
        "far from the origin": (rng.random((2000, 2)) + 1e3, rng.random((3000, 2)) + 1e3),
    }
    for name, (x, y) in cases.items():
        for dtype in ("float64", "float32"):
            given = [array.astype(dtype) for array in (x, y, b)]
            assert plan(reduction, *given).far is not None, name
            wanted = value(table(*given[:2])) @ given[2].astype(float)
            assert error(reduction(*given), wanted) < RTOL, (name, dtype)


def test_the_pair_of_a_point_with_itself_is_what_the_formula_says():
    x, _, b = clouds(2, rows=3000)
    text = "IfElse(SqDist(x,y)-1e-20, Rsqrt(SqDist(x,y)+1e-300), 0)"
    reduction = genred(text, 2)
    s = table(x, x)
    np.fill_diagonal(s, np.inf)
    assert plan(reduction, x, x, b).far is not None
    assert 0 < error(reduction(x, x, b), s**-0.5 @ b) < RTOL


def test_parameters_and_numbers_of_rows():
    x, y, b = clouds(2)
    a = np.random.default_rng(1).random((2000, 1))
    given = ["x = Vi(2)", "y = Vj(2)", "b = Vj(1)", "a = Vi(1)", "p = Pm(1)"]
    reduction = Genred("a*Exp(-p*SqDist(x,y))*b", given, axis=1, method="treecode", rtol=RTOL)
    p = np.array([2.0])
    assert plan(reduction, x, y, b, a, p).far is not None
    assert 0 < error(reduction(x, y, b, a, p), a * (np.exp(-2 * table(x, y)) @ b)) < RTOL


def test_lazy_tensors():
    x, y, b = clouds(2, 2)
    kernel = (-((Vi(x) - Vj(y)) ** 2).sum(-1).sqrt()).exp()
    wanted = np.exp(-np.sqrt(table(x, y))) @ b
    options = {"method": "treecode", "rtol": RTOL}
    found = (kernel * Vj(b)).sum(axis=1, **options)
    assert 0 < error(found, wanted) < RTOL
    assert np.array_equal(kernel.__matmul__(b, **options), found)
    waiting = (kernel * Vj(b)).sum(axis=1, call=False, **options)
    assert np.array_equal(pickle.loads(pickle.dumps(waiting))(), found)
    transposed = (kernel.T * Vi(b)).sum(axis=0, **options)
    assert 0 < error(transposed, wanted) < RTOL
    both = (kernel * Vj(b)).sum(axis=(0, 1), **options)
    assert 0 < error(both, wanted.sum(0)) < RTOL


def test_complex_kernels():
    x, y, _ = clouds(2)
    rng = np.random.default_rng(0)
    b = rng.random((3000, 1)) + 1j * rng.random((3000, 1))
    kernel = (2j * ((Vi(x) - Vj(y)) ** 2).sum(-1)).exp()
    found = (kernel * Vj(b)).sum(axis=1, method="treecode", rtol=RTOL)
    wanted = np.exp(2j * table(x, y)) @ b
    assert 0 < error(found.view(float), wanted.view(float)) < RTOL


def test_views_out_and_copies():
    text, value, _ = KERNELS["gaussian"]
    x, y, b = clouds(2)
    reduction = genred(text, 2)
    found = reduction(x, y, b)
    views = np.asfortranarray(x), y[::-1], np.repeat(b[::-1], 2, 1)[:, ::2]
    assert error(reduction(*views), value(table(x, y)) @ b) < RTOL
    out = np.empty_like(found)
    assert reduction(x, y, b, out=out) is out
    assert np.array_equal(out, found)
    assert np.array_equal(pickle.loads(pickle.dumps(reduction))(x, y, b), found)
    assert pickle.loads(pickle.dumps(reduction._fold)).accuracy.rtol == RTOL
    exact = Genred(f"{text}*b", reduction.aliases, axis=1)
    far, near = pf.together(reduction, exact)(x, y, b)
    assert np.array_equal(far, found)
    assert np.array_equal(near, exact(x, y, b))


# ----- derivatives -------------------------------------------------------------------------------


def dense_gradients(name, x, y, b, g):
    """Gradients of sum g K b, in float64."""
    _, value, slope = KERNELS[name]
    s = table(x, y)
    moved = (slope(s) * (g @ b.T))[..., None] * 2 * (x[:, None] - y[None])
    return moved.sum(1), -moved.sum(0), value(s).T @ g


@pytest.mark.parametrize("name", KERNELS)
def test_gradients_are_treecodes(name):
    x, y, b = clouds(2, 2)
    g = np.random.default_rng(5).random((2000, 2))
    reduction = genred(KERNELS[name][0], 2, 2)
    given = [torch.tensor(a, requires_grad=True) for a in (x, y, b)]
    found = torch.autograd.grad(reduction(*given), given, torch.tensor(g))
    for place, (gradient, wanted) in enumerate(
        zip(found, dense_gradients(name, x, y, b, g), strict=True)
    ):
        pulled = reduction._fold.pull_back(place)
        assert pulled.planned(NUMPY, [x, y, b, g]).far is not None
        assert 0 < error(gradient, wanted) < RTOL


def test_derivatives_without_one_weight_are_exact():
    x, y, b = map(torch.tensor, clouds(2, rows=200, columns=300))
    far, exact = (genred("Exp(-SqDist(x,y))", 2, **o) for o in ({}, EXACT))

    def second(reduction):
        given = [t.clone().requires_grad_() for t in (x, y, b)]
        (first,) = torch.autograd.grad(reduction(*given).sum(), given[1], create_graph=True)
        return torch.autograd.grad(first.square().sum(), given)

    for found, wanted in zip(second(far), second(exact), strict=True):
        assert error(found, wanted) < 10 * RTOL
    moved = (y.flip(0), y.flip(0))
    tangents = [
        torch.func.jvp(lambda t, f=f: f(x, t, b), (y,), (moved[0],))[1] for f in (far, exact)
    ]
    assert torch.equal(*tangents)


EXACT = {"method": "exact", "rtol": None}


def test_gradients_of_several_reductions():
    given = [torch.tensor(a, requires_grad=True) for a in clouds(2, rows=400, columns=500)]
    far, exact = (genred("Exp(-SqDist(x,y))", 2, **o) for o in ({}, EXACT))
    largest = Genred("Exp(-SqDist(x,y))*b", far.aliases, "Max", axis=1)
    sums, maxima = pf.together(far, largest)(*given)
    found = torch.autograd.grad(sums.sum() + maxima.sum(), given)
    for gradient, wanted in zip(
        found, torch.autograd.grad(exact(*given).sum() + largest(*given).sum(), given), strict=True
    ):
        assert error(gradient, wanted) < RTOL


def test_compiled_programs_call_it():
    x, y, b = map(torch.tensor, clouds(2, rows=200, columns=300))
    reduction = genred("Exp(-SqDist(x,y))", 2)
    compiled = torch.compile(lambda x: (2 * reduction(x + 1, y, b)).sum(), backend="eager")
    assert torch.allclose(compiled(x), (2 * reduction(x + 1, y, b)).sum())


# ----- where it does not pay, what is refused ----------------------------------------------------


def test_few_pairs_are_met_exactly(monkeypatch):
    monkeypatch.undo()
    x, y, b = clouds(2)
    reduction = genred("Exp(-SqDist(x,y))", 2)
    assert plan(reduction, x, y, b).far is None
    exact = Genred("Exp(-SqDist(x,y))*b", reduction.aliases, axis=1)
    assert np.array_equal(reduction(x, y, b), exact(x, y, b))
    assert "soon met" in str(reduction.explain(x, y, b))


def test_what_proxies_cannot_do_is_exact():
    x, y, b = clouds(2)
    exact = genred("Cos(300*Norm2(x-y))", 2, **EXACT)
    wild = genred("Cos(300*Norm2(x-y))", 2)
    assert "error" in plan(wild, x, y, b).why
    assert np.array_equal(wild(x, y, b), exact(x, y, b))
    y[7, 1] = np.nan
    gaussian = genred("Exp(-SqDist(x,y))", 2)
    assert plan(gaussian, x, y, b).far is None
    assert np.isnan(gaussian(x, y, b)).all()


def test_empty_and_small_inputs():
    reduction = genred("Exp(-SqDist(x,y))", 2)
    x, y, b = clouds(2, rows=17, columns=23)
    assert reduction(x[:0], y, b).shape == (0, 1)
    assert np.array_equal(reduction(x, y[:0], b[:0]), np.zeros((17, 1)))
    wanted = np.exp(-table(x, y)) @ b
    assert np.allclose(reduction(x, y, b), wanted, rtol=1e-9)
    assert np.allclose(reduction(x[:1], y[:1], b[:1]), np.exp(-table(x[:1], y[:1])) @ b[:1])


def test_the_error_is_told():
    x, y, b = clouds(2)
    reduction = genred("Exp(-SqDist(x,y))", 2)
    made = reduction.explain(x, y, b)
    assert made.plan.columns == plan(reduction, x, y, b).columns
    assert made.plan.error < RTOL
    assert f"order {made.plan.order}" in str(made)
    assert "measured" in str(made)
    assert "planned for the arrays" in str(reduction.explain())


@pytest.mark.parametrize(
    ("formula", "aliases", "options", "kind", "part"),
    [
        ("Exp(-SqDist(x,y))", "x=Vi(2) y=Vj(2)", {}, FormulaError, "weights"),
        ("Exp(-SqDist(x,y))*b*b", "x=Vi(2) y=Vj(2) b=Vj(1)", {}, FormulaError, "linear"),
        ("Exp(-SqDist(x,y))*b*c", "x=Vi(2) y=Vj(2) b=Vj(1) c=Vj(1)", {}, FormulaError, "two"),
        ("Exp(-y)*b", "y=Vj(2) b=Vj(1)", {}, FormulaError, "indexed by i"),
        ("Exp(-SqDist(x,y))*b*k", "x=Vi(2) y=Vj(2) b=Vj(1) k=Vij(1)", {}, FormulaError, "pairs"),
        ("Exp(-SqDist(x,y))*b*Ind(i)", "x=Vi(2) y=Vj(2) b=Vj(1)", {}, FormulaError, "numbers"),
        ("SqDist(x,y)*b", "x=Vi(5) y=Vj(5) b=Vj(1)", {}, UnsupportedError, "four|4"),
        ("SqDist(x,y)*b", "x=Vi(2) y=Vj(2) b=Vj(1)", {"rtol": 0}, OptionError, "rtol"),
        ("SqDist(x,y)*b", "x=Vi(2) y=Vj(2) b=Vj(1)", {"rtol": 1.5}, OptionError, "rtol"),
        ("SqDist(x,y)*b", "x=Vi(2) y=Vj(2) b=Vj(1)", {"rtol": "a"}, OptionError, "rtol"),
        ("SqDist(x,y)*b", "x=Vi(2) y=Vj(2) b=Vj(1)", {"method": "fmm"}, OptionError, "method"),
        (
            "SqDist(x,y)",
            "x=Vi(2) y=Vj(2)",
            {"method": "exact", "reduction_op": "Min"},
            OptionError,
            "rtol",
        ),
        ("SqDist(x,y)*b", "x=Vi(2) y=Vj(2) b=Vj(1)", {"where": "x"}, OptionError, "where"),
        ("SqDist(x,y)*b", "x=Vi(2) y=Vj(2) b=Vj(1)", {"reduction_op": "Min"}, OptionError, "sum"),
    ],
)
def test_formulas_and_options_that_are_refused(formula, aliases, options, kind, part):
    given = {"axis": 1, "method": "treecode", "rtol": RTOL, **options}
    with pytest.raises(kind, match=part):
        Genred(formula, aliases.split(" "), **given)


def test_calls_that_are_refused():
    x, y, b = clouds(2, rows=17, columns=23)
    reduction = genred("Exp(-SqDist(x,y))", 2)
    some = ([[0, 1]], [1], [[0, 1]]) * 2
    calls = [
        (lambda: reduction(x[None], y, b), UnsupportedError, "batch"),
        (lambda: reduction(*(a.astype("float16") for a in (x, y, b))), UnsupportedError, "float16"),
        (lambda: reduction(x, y, b, ranges=some), OptionError, "ranges"),
        (lambda: Vi(x).sqdist(Vj(y)).max(axis=1, method="treecode"), OptionError, "sum"),
        (lambda: Vi(x).sqdist(Vj(y)).max(axis=1, rtol=1e-3), OptionError, "rtol"),
    ]
    for call, kind, part in calls:
        with pytest.raises(kind, match=part):
            call()


def test_jax_is_refused():
    jax = pytest.importorskip("jax")
    reduction = genred("Exp(-SqDist(x,y))", 2)
    with pytest.raises(PairfoldError, match="JAX"):
        reduction(*(jax.numpy.ones(shape) for shape in ((17, 2), (23, 2), (23, 1))))


# ----- parts -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [1, 2, 3, 4])
def test_proxies_are_exact_for_polynomials(dim):
    rng = np.random.default_rng(dim)
    points, weights = rng.standard_normal((391, dim)), rng.standard_normal((391, 2))
    if dim > 1:
        points[:, 1] = 0.25
    tree = halved(points, 50)
    assert np.array_equal(np.sort(tree.order), np.arange(391))
    assert np.array_equal(points[tree.order], tree.points)
    found = moments(tree, weights[tree.order], 5, range(1, len(tree.levels)))

    def value(p, order):
        return np.prod((0.3 + p.astype(float)) ** (order - 1), -1)

    for order in (3, 5):
        for number in range(1, len(tree.levels)):
            level = tree.levels[number]
            p, w = proxies(found, number, order, np.dtype("float64"))
            for k, (start, stop) in enumerate(
                zip(level.starts[:-1], level.starts[1:], strict=True)
            ):
                own = tree.points[start:stop]
                assert (own >= level.low[k]).all()
                assert (own <= level.high[k]).all()
                wanted = value(own, order) @ weights[tree.order][start:stop]
                scale = (np.abs(value(p[k], order))[:, None] * np.abs(w[k])).sum()
                assert np.abs(value(p[k], order) @ w[k] - wanted).max() < 1e-13 * scale


def test_every_column_is_met_once():
    rng = np.random.default_rng(0)
    rows, columns = halved(rng.random((300, 2)), 20), halved(rng.random((701, 2)), 20)
    level, size = rows.levels[-1], 9
    found = met(level.low, level.high, columns.levels, 0.8, range(2, 6), size)
    first = [len(columns.points)]
    for each in columns.levels[2:6]:
        first.append(first[-1] + size * (len(each.starts) - 1))
    counts = np.zeros((len(level.low), len(columns.points)), int)
    for box, (start, stop) in zip(found.boxes, found.intervals, strict=True):
        if start < first[0]:
            counts[box, start:stop] += 1
            continue
        place = int(np.searchsorted(first, start, side="right")) - 1
        far, k = columns.levels[2 + place], (start - first[place]) // size
        assert stop - start == size
        counts[box, far.starts[k] : far.starts[k + 1]] += 1
        gap = np.maximum(np.abs(far.centers[k] - level.centers[box]) - level.halves[box], 0)
        assert 0.8 * np.linalg.norm(gap) > np.linalg.norm(far.halves[k])
    assert (counts == 1).all()
    assert (found.intervals[:, 0] >= first[0]).any()
