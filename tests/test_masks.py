"""Reductions over the pairs that a mask leaves, against NumPy on each row's own pairs, and torch.

The oracles take the pairs of a row out of the table before they reduce it: what a mask leaves out
is nowhere in them, so that nothing of it can be in a result either.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import scipy.special
import torch
from checks import assert_close, assert_same_bits
from products import every_pair

import pairfold as pf
from pairfold import Vi, Vj
from pairfold.errors import ArrayTypeError, DimError, DTypeError, OptionError, ShapeError
from pairfold.numpy import Genred
from pairfold.ops.reductions import REDUCTIONS
from pairfold.settings import settings

Array = Any
K = 5
PUBLIC = [row for row in REDUCTIONS.values() if not row.internal]
CASES = [(row.name, False) for row in PUBLIC if row.weighted != "must"]
CASES += [(row.name, True) for row in PUBLIC if row.weighted != "no"]

# Every reduction, one after the other in lanes of rows and of columns.
turning = pytest.mark.parametrize(
    ("name", "weighted", "lanes"),
    [(*entry, ("row", "column")[n % 2]) for n, entry in enumerate(CASES)],
)


# -- oracles: one row's pairs, f (n, D) and g (n, E), and the numbers of their columns ------------


def _smallest(f: Array, places: Array, sign: int, length: int) -> tuple[Array, Array]:
    order = np.argsort(sign * f, axis=0, kind="stable")[:length]
    values = np.full((length, f.shape[1]), math.inf)
    found = np.zeros(values.shape, np.int64)
    values[: len(order)] = np.take_along_axis(sign * f, order, 0)
    found[: len(order)] = places[order]
    return sign * values, found


def _shifted(f: Array, g: Array | None) -> Array:
    top = f.max(0, initial=-math.inf)
    return np.concatenate([top, (np.exp(f - top) * (1 if g is None else g)).sum(0)])


def _log_sum_exp(f: Array, g: Array | None) -> Array:
    if not len(f):
        return np.full((f if g is None else g).shape[1], -math.inf)
    return scipy.special.logsumexp(f if g is None else f + np.log(g), axis=0)


def _soft_max(f: Array, g: Array) -> Array:
    return (scipy.special.softmax(f, axis=0) * g).sum(0) if len(f) else np.zeros(g.shape[1])


ORACLES: dict[str, Callable[..., Any]] = {
    "Sum": lambda f, g, c: f.sum(0),
    "Mean": lambda f, g, c: f.sum(0) / np.float64(len(f)),
    "Count": lambda f, g, c: np.count_nonzero(f, axis=0),
    "Prod": lambda f, g, c: f.prod(0),
    "Any": lambda f, g, c: f.any(0),
    "All": lambda f, g, c: f.all(0),
    "Min": lambda f, g, c: f.min(0, initial=math.inf),
    "Max": lambda f, g, c: f.max(0, initial=-math.inf),
    "ArgMin": lambda f, g, c: _smallest(f, c, 1, 1)[1][0],
    "ArgMax": lambda f, g, c: _smallest(f, c, -1, 1)[1][0],
    "Min_ArgMin": lambda f, g, c: tuple(part[0] for part in _smallest(f, c, 1, 1)),
    "Max_ArgMax": lambda f, g, c: tuple(part[0] for part in _smallest(f, c, -1, 1)),
    "KMin": lambda f, g, c: _smallest(f, c, 1, K)[0],
    "ArgKMin": lambda f, g, c: _smallest(f, c, 1, K)[1],
    "KMin_ArgKMin": lambda f, g, c: _smallest(f, c, 1, K),
    "LogSumExp": lambda f, g, c: _log_sum_exp(f, g),
    "LogSumExpWeight": lambda f, g, c: _log_sum_exp(f, g),
    "SumSoftMaxWeight": lambda f, g, c: _soft_max(f, g),
    "Max_SumShiftExp": lambda f, g, c: _shifted(f, g),
    "Max_SumShiftExpWeight": lambda f, g, c: _shifted(f, g),
}


def oracle(name: str, f: Array, g: Array | None, keep: Array) -> tuple[Array, ...]:
    """Results for F (..., R, C, D) and G (..., R, C, E) over the pairs of keep (..., R, C)."""
    batch = f.shape[:-3]
    keep = np.broadcast_to(keep, f.shape[:-1])
    rows: list[Any] = []
    if not f.shape[-3]:
        f, keep = np.zeros((*batch, 1, 0, f.shape[-1])), np.zeros((*batch, 1, 0), bool)
        g = None if g is None else np.zeros((*batch, 1, 0, g.shape[-1]))
        return tuple(part[..., :0, :] for part in oracle(name, f, g, keep))
    for place in np.ndindex(f.shape[:-2]):
        which = keep[place]
        own = None if g is None else g[place][which]
        with np.errstate(all="ignore"):
            found = ORACLES[name](f[place][which], own, np.flatnonzero(which))
        rows.append(found if isinstance(found, tuple) else (found,))
    results = []
    for part in zip(*rows, strict=True):
        array = np.stack(part).reshape(*batch, f.shape[-3], *part[0].shape)
        lists = REDUCTIONS[name].top_k and f.shape[-1] == 1
        results.append(array[..., 0] if lists else array)
    return tuple(results)


def check(name: str, got: Any, want: tuple[Array, ...], dtype: str, **how: Any) -> None:
    """Results have the kinds that the table tells, and the values of the oracle."""
    gots = got if isinstance(got, tuple) else (got,)
    results = REDUCTIONS[name].results
    kinds = {"value": np.dtype(dtype), "index": np.dtype("int64"), "truth": np.dtype("bool")}
    for result, a, b in zip(results, gots, want, strict=not REDUCTIONS[name].joined):
        assert a.dtype == kinds[result.kind]
        if result.kind == "value":
            assert_close(a, b, **how)
        else:
            assert_same_bits(a, b, formula=how.get("formula"))


# -- masks: the text of a formula, and what it says of numbers and of data ------------------------

MASKS: dict[str, tuple[str, Callable[..., Array]]] = {
    "causal": ("Ind(j) <= Ind(i)", lambda i, j, x, y: j <= i),
    "band": ("Abs(Ind(i)-Ind(j)) <= 2", lambda i, j, x, y: abs(i - j) <= 2),
    "others": ("Ind(i) != Ind(j)", lambda i, j, x, y: i != j),
    "radius": ("SqDist(x,y) <= 4", lambda i, j, x, y: ((x - y) ** 2).sum(-1) <= 4),
    "same": ("Elem(x,0) == Elem(y,0)", lambda i, j, x, y: x[..., 0] == y[..., 0]),
    "mixed": (
        "LogicalAnd(Ind(j) >= 3, LogicalOr(Ind(i) < 2*Ind(j)-5, Elem(x,0) > Elem(y,0)))",
        lambda i, j, x, y: (j >= 3) & ((i < 2 * j - 5) | (x[..., 0] > y[..., 0])),
    ),
    "opposite": (
        "LogicalNot(LogicalAnd(Ind(j) <= Ind(i), Elem(x,0) == Elem(y,0)))",
        lambda i, j, x, y: ~((j <= i) & (x[..., 0] == y[..., 0])),
    ),
    "some rows": ("Ind(i) >= 12", lambda i, j, x, y: (i >= 12) & (j >= 0)),
    "numbers": ("Elem(x,0) - 1", lambda i, j, x, y: (x[..., 0] != 1) & (j >= 0)),
    "nothing": ("Ind(i) < 0", lambda i, j, x, y: (i < 0) & (j < 0)),
}


def kept(mask: str, given: Sequence[Array], axis: int) -> Array:
    """Which pairs count: (..., rows, columns), the reduced axis being the last."""
    x, y = (v.astype("float64") for v in given[:2])
    i, j = np.arange(x.shape[-2])[:, None], np.arange(y.shape[-2])[None]
    keep = MASKS[mask][1](i, j, x[..., :, None, :], y[..., None, :, :])
    return np.swapaxes(keep, -1, -2) if axis == 0 else keep


def program(name: str, weighted: bool, dim: int, axis: int, mask: str, **how: Any) -> Genred:
    """A reduction of x*y, or of the scalar (x|y), with a weight from both sides."""
    row = REDUCTIONS[name]
    aliases = [f"x = Vi({dim})", f"y = Vj({dim})", "b = Vj(2)", "c = Vi(1)"]
    if weighted:
        how["formula2"] = "b*c"
    if row.top_k:
        how["opt_arg"] = K
    formula = "(x|y)" if row.scalar or weighted else "x*y"
    return Genred(formula, aliases, name, axis=axis, where=MASKS[mask][0], **how)


def arrays(
    name: str, dim: int, rows: int, columns: int, dtype: str, batch: Sequence[int] = ()
) -> list[Array]:
    """x, y, b, c: whole numbers with many ties, so that every order is exact; weights > 0."""
    rng = np.random.default_rng(dim + rows + columns)
    x = rng.choice([-1, 0, 1, 2], (*batch, rows, dim))
    y = rng.choice([-1, 1, 2], (columns, dim))
    if name == "Prod":  # stays within the numbers of float16
        x, y = np.sign(x), np.sign(y)
    b = rng.integers(2, 6, (columns, 2)) / 4
    c = rng.integers(2, 6, (rows, 1)) / 4
    return [v.astype(dtype) for v in (x, y, b, c)]


def pairs(
    name: str, weighted: bool, given: Sequence[Array], axis: int
) -> tuple[Array, Array | None]:
    """F and G of all pairs in float64, the reduced axis being the last but one."""
    x, y, b, c = (v.astype("float64") for v in given)
    f = x[..., :, None, :] * y[..., None, :, :]
    if REDUCTIONS[name].scalar or weighted:
        f = f.sum(-1, keepdims=True)
    g = np.broadcast_to(b * c[:, None, :], (*f.shape[:-1], 2)) if weighted else None
    if axis == 0:
        f, g = np.swapaxes(f, -2, -3), None if g is None else np.swapaxes(g, -2, -3)
    return f, g


def compared(
    name: str,
    weighted: bool,
    dim: int,
    axis: int,
    mask: str,
    dtype: str,
    sizes: Sequence[tuple[int, int]],
    batch: Sequence[int] = (),
) -> None:
    """One program at several sizes, beside the oracle."""
    genred = program(name, weighted, dim, axis, mask)
    for rows, columns in sizes:
        given = arrays(name, dim, rows, columns, dtype, batch)
        keep = kept(mask, given, axis)
        want = oracle(name, *pairs(name, weighted, given, axis), keep)
        about = (name, mask, axis, rows, columns, batch)
        check(name, genred(*given), want, dtype, terms=max(rows, columns), formula=about)


SIZES = [(17, 23), (23, 17), (1, 1), (17, 0), (0, 23), (11, 150)]


def test_every_reduction_has_an_oracle() -> None:
    assert set(ORACLES) == {row.name for row in PUBLIC}


@every_pair(
    ("name,weighted", CASES),
    ("mask", ["causal", "mixed", "opposite"]),
    ("axis,dtype", [(1, "float32"), (0, "float64"), (1, "float16"), (0, "float32")]),
    ("lanes", ["row", "column"]),
)
def test_reductions_take_the_pairs_of_a_mask(
    name: str, weighted: bool, mask: str, axis: int, dtype: str, lanes: str
) -> None:
    sizes = SIZES[:4] if dtype == "float16" else SIZES  # whole numbers up to 2048
    with settings(lanes=lanes, block=64):
        compared(name, weighted, 1, axis, mask, dtype, sizes)


@every_pair(
    ("name,weighted", CASES),
    ("mask", ["causal"]),
    ("dim", [3, 40]),
    ("axis,lanes", [(1, "row"), (0, "column")]),
)
def test_long_outputs_and_batches(
    name: str, weighted: bool, mask: str, dim: int, axis: int, lanes: str
) -> None:
    with settings(lanes=lanes):
        compared(name, weighted, dim, axis, mask, "float64", [(17, 23), (20, 80)])
        compared(name, weighted, dim, axis, mask, "float64", [(7, 9)], (2,))


@pytest.mark.parametrize(("name", "weighted"), CASES)
def test_parts_of_the_columns_are_counted_from_the_first(name: str, weighted: bool) -> None:
    with settings(splits=3, block=64, threads=2):
        compared(name, weighted, 1, 1, "some rows", "float32", [(20, 400)])


@every_pair(("mask", list(MASKS)), ("axis,lanes", [(1, "row"), (0, "row"), (1, "column")]))
def test_every_mask_at_sizes_that_fill_blocks(mask: str, axis: int, lanes: str) -> None:
    with settings(lanes=lanes):
        compared("Mean", False, 3, axis, mask, "float32", [(17, 23), (70, 300)])


@turning
def test_results_pass_the_comparison_with_the_reference(
    name: str, weighted: bool, lanes: str
) -> None:
    with settings(check=2, lanes=lanes):
        compared(name, weighted, 3, 1, "mixed", "float32", [(17, 23)])


def test_ranges_and_masks_leave_the_pairs_that_both_do() -> None:
    given = arrays("Sum", 1, 40, 60, "float64")
    rows = np.array([[0, 10], [10, 40]])
    ends, columns = np.array([1, 3]), np.array([[5, 25], [0, 10], [30, 60]])
    nothing = np.zeros((0, 2), int), np.zeros(0, int), np.zeros((0, 2), int)
    pattern = (rows, ends, columns, *nothing)
    met = np.zeros((40, 60), bool)
    met[:10, 5:25] = met[10:, :10] = met[10:, 30:] = True
    for name in ("Sum", "Mean", "ArgMin", "KMin_ArgKMin", "LogSumExp"):
        got = program(name, False, 1, 1, "causal")(*given, ranges=pattern)
        keep = met & kept("causal", given, 1)
        check(name, got, oracle(name, *pairs(name, False, given, 1), keep), "float64", terms=60)


# -- numbers are exact ----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("lanes", ["row", "column"])
def test_numbers_are_exact_beyond_those_of_the_dtype(dtype: str, lanes: str) -> None:
    # The neighbours of 2^24 are one number in float32; those of 2^11 are in float16.
    for offset in (2**24, 2**40 + 1):
        text = f"Ind(j) + {offset} <= Ind(i) + {offset + 1}"
        genred = Genred("y", ["x=Vi(1)", "y=Vj(1)"], "Sum", axis=1, where=text)
        with settings(lanes=lanes):
            got = genred(np.zeros((9, 1), dtype), np.ones((9, 1), dtype))
        assert got[:, 0].tolist() == [2, 3, 4, 5, 6, 7, 8, 9, 9]
    for lower in (2049, 3001):
        text = f"Ind(j) == {lower}"
        first = Genred("y", ["y=Vj(1)"], "ArgMax", axis=1, where=text)
        with settings(lanes=lanes):
            assert first(np.ones((4000, 1), dtype)).tolist() == [[lower]]


def test_numbers_of_long_axes_are_exact() -> None:
    n = 2**24 + 40
    y = np.zeros((n, 1), "float32")
    y[-3:] = [[1], [2], [4]]
    total = Genred("y", ["y=Vj(1)"], "Sum", axis=1, where=f"Ind(j) >= {n - 2}")
    assert total(y).tolist() == [[6]]
    each = Genred("y*x", ["x=Vi(1)", "y=Vj(1)"], "Sum", axis=1, where=f"Ind(i) - Ind(j) == {n - 4}")
    assert each(y, np.array([[5], [6], [7]], "float32"))[-3:, 0].tolist() == [6, 14, 0]


def test_numbers_are_values_of_formulas() -> None:
    x, y = np.zeros((5, 1)), np.zeros((7, 1))
    i, j = np.arange(5.0)[:, None], np.arange(7.0)[None]
    for text, want in (
        ("Ind(j)+0*x*y", j + 0 * i),
        ("Exp(-Square(Ind(i)-Ind(j))/2)+0*x*y", np.exp(-((i - j) ** 2) / 2)),
        ("Ind(i)*Ind(j)/4+x+y", i * j / 4),
    ):
        for axis in (0, 1):
            got = Genred(text, ["x=Vi(1)", "y=Vj(1)"], "Sum", axis=axis)(x, y)
            assert_close(got[:, 0], want.sum(axis), terms=7, formula=text)


# -- masks by name --------------------------------------------------------------------------------


def clouds() -> tuple[Array, Array, Array, Array]:
    rng = np.random.default_rng(3)
    return (
        rng.normal(size=(17, 2)),
        rng.normal(size=(23, 2)),
        rng.integers(0, 4, 17),
        rng.integers(0, 4, 23),
    )


def test_masks_by_name_and_what_joins_them() -> None:
    x, y, a, b = clouds()
    i, j = np.arange(17)[:, None], np.arange(23)[None]
    apart = ((x[:, None] - y) ** 2).sum(-1)
    sizes = ([5, 0, 12], [3, 4, 16])
    of = [np.repeat(range(3), n) for n in sizes]
    x_i, y_j = Vi(x), Vj(y)
    near, close = pf.radius(x, y, 1.2), apart <= 1.44
    for mask, keep in (
        (pf.causal(), j <= i),
        (pf.band(3), abs(i - j) <= 3),
        (pf.band(2.5), abs(i - j) <= 2),
        (pf.exclude_self(), i != j),
        (near, close),
        (pf.radius(x_i, y_j, 1.2), close),
        (pf.radius(x, y, Vi(np.full((17, 1), 1.2))), close),
        (pf.same(a, b), a[:, None] == b),
        (pf.same(a * 1000 - 7, b * 1000 - 7), a[:, None] == b),
        (pf.same(np.arange(17) % 300, np.arange(23)), i == j),
        (pf.same(a > 1, b > 1), (a[:, None] > 1) == (b > 1)),
        (pf.lengths(*sizes), of[0][:, None] == of[1]),
        (pf.causal() & (pf.i >= 3), (j <= i) & (i >= 3)),
        (~pf.causal() | near, (j > i) | close),
        (pf.causal() & ~pf.same(a, b) & (x_i[0] < y_j[1]),
         (j <= i) & (a[:, None] != b) & (x[:, :1] < y[:, 1])),
        (abs(2 * pf.i - pf.j) <= 4, abs(2 * i - j) <= 4),
        ((pf.j - pf.i) % 3 == 0, (j - i) % 3 == 0),
    ):  # fmt: skip
        for axis in (0, 1):
            want = np.where(keep, apart, 0).sum(axis)
            got = ((x_i - y_j) ** 2).sum(-1).sum(axis=axis, where=mask)
            assert_close(got[:, 0], want, terms=23, formula=str(mask))


def test_many_labels_and_labels_in_batches() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.permutation(70_000)[:900], rng.permutation(70_000)[:1000]
    a[:50] = b[100:150]
    x, y = np.ones((900, 1), "float16"), np.ones((1000, 1), "float16")
    got = (Vi(x) * Vj(y)).sum(axis=1, where=pf.same(a, b))
    assert got[:, 0].tolist() == (a[:, None] == b).sum(1).tolist()
    labels = rng.integers(0, 3, (2, 9))
    both = (Vi(np.ones((9, 1))) * Vj(np.ones((9, 1)))).sum(axis=-2, where=pf.same(labels, labels))
    assert both[..., 0].tolist() == (labels[..., :, None] == labels[:, None]).sum(-1).tolist()


def test_ragged_batches_are_those_of_each_cloud() -> None:
    rng = np.random.default_rng(1)
    li, lj = rng.integers(0, 30, 12), rng.integers(0, 30, 12)
    x, y = rng.normal(size=(li.sum(), 3)), rng.normal(size=(lj.sum(), 3))
    got = (-((Vi(x) - Vj(y)) ** 2).sum(-1)).logsumexp(axis=1, where=pf.lengths(li, lj))
    ends = np.cumsum(li)[:-1], np.cumsum(lj)[:-1]
    for own, a, b in zip(np.split(got, ends[0]), np.split(x, ends[0]), np.split(y, ends[1])):
        if len(a):
            want = _log_sum_exp(-((a[None] - b[:, None]) ** 2).sum(-1), None)
            assert_close(own[:, 0], want if len(b) else np.full(len(a), -math.inf), terms=30)


# -- NaN and infinite data at absent pairs --------------------------------------------------------


@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
@turning
def test_data_at_absent_pairs_poisons_nothing(
    name: str, weighted: bool, lanes: str, poison: float
) -> None:
    genred = program(name, weighted, 1, 1, "causal")
    given = arrays(name, 1, 9, 12, "float32")
    with settings(lanes=lanes):
        want = genred(*given)
        given[1][9:] = given[2][9:] = poison  # columns that no row meets
        got = genred(*given)
        few = program(name, weighted, 1, 1, "some rows")  # none of these
        given = arrays(name, 1, 12, 9, "float32")
        nothing = few(*given)
        given[0][:] = given[3][:] = poison
        same = few(*given)
    results = (same, got), (nothing, want)
    got, want = ([p for r in rs for p in (r if isinstance(r, tuple) else (r,))] for rs in results)
    for a, b in zip(got, want, strict=True):
        assert_same_bits(a, b, formula=name)


@pytest.mark.parametrize(
    ("name", "poison"),
    [("Sum", math.inf), *((n, math.nan) for n in ("Mean", "KMin", "LogSumExp", "Prod", "Soft"))],
)
def test_data_at_absent_pairs_poisons_no_gradient(name: str, poison: float) -> None:
    x, y = torch.randn(9, 2, dtype=torch.float64), torch.randn(12, 2, dtype=torch.float64)

    def gradients(tail: float) -> list[Any]:
        u, v = x.clone().requires_grad_(), y.clone()
        v[9:] = tail
        v.requires_grad_()
        f = -((Vi(u) - Vj(v)) ** 2).sum(-1).sqrt()
        how = {"opt_arg": 2} if name == "KMin" else {"other": Vj(v)} if name == "Soft" else {}
        named = "SumSoftMaxWeight" if name == "Soft" else name
        mask = pf.causal() & pf.exclude_self()
        found = f.reduction(named, axis=1, where=mask & (pf.i > 2), **how)
        finite = torch.where(found.isfinite(), found, torch.zeros_like(found))
        first = torch.autograd.grad(finite.square().sum(), (u, v), create_graph=True)
        if name in ("Min", "KMin"):
            return list(first)
        return [*first, *torch.autograd.grad(sum(g.square().sum() for g in first), (u, v))]

    poisoned = gradients(poison)
    for a, b in zip(poisoned, gradients(0.0), strict=True):
        assert a.isfinite().all()
        assert_close(a.detach(), b.detach())
    assert not poisoned[1][9:].any()


# -- derivatives against dense programs of torch --------------------------------------------------


def dense(name: str, f: Any, keep: Any, g: Any) -> Any:
    """The reduction of f (..., R, C, D) over the pairs of keep (..., R, C), differentiable."""
    keep = keep[..., None]
    zero = torch.zeros((), dtype=f.dtype)
    if name in ("Sum", "Mean"):
        total = torch.where(keep, f, zero).sum(-2)
        return total if name == "Sum" else total / keep.sum(-2)
    if name in ("Min", "Max"):
        sign = 1 if name == "Min" else -1
        return sign * torch.where(keep, sign * f, zero + math.inf).amin(-2)
    if name == "KMin":
        return torch.where(keep, f, zero + math.inf).sort(-2)[0][..., :K, 0]
    if name == "Prod":
        return torch.where(keep, f, zero + 1).prod(-2)
    low = torch.where(keep, f, zero - 1e30)  # finite, so that rows of nothing have no NaN
    if name == "LogSumExp":
        return torch.where(keep.any(-2), torch.logsumexp(low, -2), zero - math.inf)
    if name == "SumSoftMaxWeight":
        return (torch.softmax(low, -2) * keep * g).sum(-2)
    top = low.amax(-2, keepdim=True)
    own = torch.where(keep.any(-2), top[..., 0, :], zero - math.inf)
    top = torch.where(keep.any(-2, keepdim=True), top, zero)
    return torch.cat([own, torch.where(keep, (f - top).exp(), zero).sum(-2)], -1)


DIFFERENTIATED = [
    *("Sum", "Mean", "Min", "Max", "KMin", "Prod", "LogSumExp", "SumSoftMaxWeight"),
    "Max_SumShiftExp",
]


def of_points(x: Any, y: Any, b: Any, axis: int, mask: str) -> tuple[Any, Any, Any, Any, Any]:
    """The lazy formula and mask, the same as dense tensors, of points x (..., M, 3), y (N, 3)."""
    masks = {
        "causal": lambda: pf.causal(),
        "radius": lambda: pf.radius(x, y, 1.5),
        "some rows": lambda: (pf.i >= 3) & (pf.j >= 3),
    }
    i, j = torch.arange(x.shape[-2])[:, None], torch.arange(y.shape[-2])[None]
    apart = ((x[..., :, None, :] - y) ** 2).sum(-1)
    keeps = {"causal": j <= i, "radius": apart <= 2.25, "some rows": (i >= 3) & (j >= 3)}
    keep = keeps[mask]
    x_i = pf.LazyTensor(x[..., :, None, :])
    f = -((x_i - Vj(y)) ** 2).sum(-1) / 2
    table = -apart[..., None] / 2
    if axis == 0:
        table, keep = table.transpose(-2, -3), keep.transpose(-1, -2)
    weight = torch.ones_like(table) * b if axis == 1 else b
    return f, masks[mask](), table, keep, weight


@every_pair(
    ("name", DIFFERENTIATED),
    ("mask,axis,batch", [("causal", 0, (2,)), ("radius", 1, ())]),
)
def test_derivatives_of_both_orders_are_those_of_dense_programs(
    name: str, mask: str, axis: int, batch: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    x = torch.randn(*batch, 8, 3, dtype=torch.float64, requires_grad=True)
    y = torch.randn(11, 3, dtype=torch.float64, requires_grad=True)
    b = torch.randn(8 if axis == 0 else 11, 2, dtype=torch.float64, requires_grad=True)
    f, where, table, keep, weight = of_points(x, y, b, axis, mask)
    other = (Vi(b) if axis == 0 else Vj(b)) if name == "SumSoftMaxWeight" else None
    how: dict[str, Any] = {"opt_arg": K} if name == "KMin" else {}
    got = f.reduction(name, other=other, axis=axis + len(batch), where=where, **how)
    want = dense(name, table, keep, weight)
    finite = want.isfinite()
    shown = [r.detach().numpy() for r in (got, want)]
    assert_close(*shown, formula=(name, mask))
    given = [x, y] if other is None else [x, y, b]
    send = torch.randn_like(want)
    firsts = []
    for result in (got, want):
        loss = (torch.where(finite, result, torch.zeros_like(result)) * send).sum()
        firsts.append(torch.autograd.grad(loss, given, create_graph=True))
    for a, e in zip(*firsts, strict=True):
        assert a.isfinite().all()
        assert_close(a.detach(), e.nan_to_num().detach(), rtol=1e-8, atol=1e-8, formula=name)
    if name in ("Min", "Max", "KMin"):  # the dense program's second ones are those of its sorting
        return
    seconds = [torch.autograd.grad(sum((g * g).sum() for g in own), [x, y]) for own in firsts]
    for a, e in zip(*seconds, strict=True):
        assert a.isfinite().all()
        assert_close(a, e.nan_to_num(), rtol=1e-6, atol=1e-6, formula=name)


@pytest.mark.parametrize("name", [n for n in DIFFERENTIATED if n != "Prod"])
def test_forward_mode_is_that_of_dense_programs(name: str) -> None:
    torch.manual_seed(0)
    x, y, b, dx, dy = (torch.randn(n, d, dtype=torch.float64) for n, d in
                       ((8, 3), (11, 3), (11, 2), (8, 3), (11, 3)))  # fmt: skip
    how: dict[str, Any] = {"opt_arg": K} if name == "KMin" else {}

    def lazy(u: Any, v: Any) -> Any:
        f = -((Vi(u) - Vj(v)) ** 2).sum(-1) / 2
        other = Vj(b) if name == "SumSoftMaxWeight" else None
        return f.reduction(name, other=other, axis=1, where=pf.causal() & (pf.i >= 3), **how)

    def full(u: Any, v: Any) -> Any:
        _, _, table, _, weight = of_points(u, v, b, 1, "causal")
        i, j = torch.arange(8)[:, None], torch.arange(11)[None]
        return dense(name, table, (j <= i) & (i >= 3), weight)

    got = torch.func.jvp(lazy, (x, y), (dx, dy))
    want = torch.func.jvp(full, (x, y), (dx, dy))
    some = want[0].isfinite()
    assert_close(got[0], want[0])
    assert_close(got[1][some], want[1][some], rtol=1e-8)
    if name == "SumSoftMaxWeight":
        assert not got[1][:3].any()


@pytest.mark.parametrize("name", DIFFERENTIATED)
def test_rows_without_pairs_have_empty_results_and_no_gradient(name: str) -> None:
    x = torch.randn(6, 2, dtype=torch.float64, requires_grad=True)
    y = torch.randn(9, 2, dtype=torch.float64, requires_grad=True)
    other = Vj(y) if name == "SumSoftMaxWeight" else None
    how: dict[str, Any] = {"opt_arg": K} if name == "KMin" else {}
    f = ((Vi(x) - Vj(y)) ** 2).sum(-1)
    found = f.reduction(name, other=other, axis=1, where=pf.i >= 6, **how)
    empty = {"Sum": 0.0, "Mean": math.nan, "Min": math.inf, "Max": -math.inf, "KMin": math.inf,
             "Prod": 1.0, "LogSumExp": -math.inf, "SumSoftMaxWeight": 0.0}  # fmt: skip
    want = torch.full_like(found, empty.get(name, 0.0))
    if name == "Max_SumShiftExp":
        want[:, 0] = -math.inf
    assert_same_bits(found.detach(), want)
    for gradient in torch.autograd.grad(found, (x, y), torch.ones_like(found)):
        if name != "Mean":  # NaN: 0/0, as of NumPy
            assert_same_bits(gradient, torch.zeros_like(gradient))


# -- several reductions, copies, words ------------------------------------------------------------


def test_reductions_together_with_one_mask_and_with_several() -> None:
    x, y, a, b = clouds()
    f = ((Vi(x) - Vj(y)) ** 2).sum(-1)
    one = pf.same(a, b) & pf.causal()
    for masks in ((one, one, one), (one, pf.causal(), None), (None, None, one)):
        waiting = [
            f.reduction(name, axis=axis, call=False, where=mask)
            for name, axis, mask in zip(("Sum", "ArgMin", "LogSumExp"), (1, 1, 0), masks)
        ]
        alone = [reduced() for reduced in waiting]
        for got, want in zip(pf.together(*waiting), alone, strict=True):
            assert_close(got, want, terms=23)


def test_gradients_of_reductions_together_are_those_of_each() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(17, 2, requires_grad=True), torch.randn(23, 2, requires_grad=True)
    f = -((Vi(x) - Vj(y)) ** 2).sum(-1)
    waiting = [f.reduction(n, axis=1, call=False, where=pf.band(4)) for n in ("Sum", "LogSumExp")]
    finite = [torch.where(r.isfinite(), r, torch.zeros_like(r)) for r in pf.together(*waiting)]
    alone = [torch.where(r.isfinite(), r, torch.zeros_like(r)) for r in (w() for w in waiting)]
    got, want = (torch.autograd.grad(sum(r.sum() for r in rs), (x, y)) for rs in (finite, alone))
    for a, b in zip(got, want, strict=True):
        assert_close(a, b, terms=23)


def test_masks_survive_pickling() -> None:
    x, y, a, b = clouds()
    genred = Genred("SqDist(x,y)", ["x=Vi(2)", "y=Vj(2)"], "Mean", axis=1, where="Ind(j)<=Ind(i)")
    assert_same_bits(pickle.loads(pickle.dumps(genred))(x, y), genred(x, y))
    by_name = Genred("SqDist(x,y)", ["x=Vi(2)", "y=Vj(2)"], "Mean", axis=1, where=pf.causal())
    assert_same_bits(pickle.loads(pickle.dumps(by_name))(x, y), genred(x, y))
    f = ((Vi(x) - Vj(y)) ** 2).sum(-1)
    mask = pf.same(a, b) & (f < 3) & pf.causal()
    waiting = f.reduction("Sum", axis=1, call=False, where=mask)
    assert_same_bits(pickle.loads(pickle.dumps(waiting))(), waiting())
    again = pickle.loads(pickle.dumps(mask))
    assert_same_bits(f.sum(axis=1, where=again), waiting())


def test_identity_says_the_mask_and_is_read_back() -> None:
    from pairfold.frontends.identity import identity, rebuilt

    texts = {}
    for where in (None, "Ind(j) <= Ind(i)", "Ind(j) < Ind(i)", "SqDist(x,y) <= 1"):
        aliases = ["x=Vi(2)", "y=Vj(2)"]
        for weight in (None, "y"):
            name = "LogSumExp"
            fold = Genred("SqDist(x,y)", aliases, name, axis=1, formula2=weight, where=where)._fold
            texts[identity(fold)] = fold
            again = rebuilt(identity(fold))
            assert (again.formula, again.weight, again.where) == (
                fold.formula,
                fold.weight,
                fold.where,
            )
    assert len(texts) == 8


def test_explanations_show_the_mask() -> None:
    x, y = np.ones((17, 2)), np.ones((23, 2))
    genred = Genred("SqDist(x,y)", ["x=Vi(2)", "y=Vj(2)"], "Min", axis=1, where="Ind(j)<=Ind(i)")
    assert "Ind(j)<=Ind(i)" in str(genred.explain(x, y)).replace(" ", "")
    lazy = ((Vi(x) - Vj(y)) ** 2).sum(-1).reduction("Min", axis=1, call=False, where=pf.causal())
    assert "Ind(j)<=Ind(i)" in str(lazy.explain()).replace(" ", "")
    assert "Ind(j)<=Ind(i)" in str(lazy).replace(" ", "")


def test_transposed_tensors_trade_their_numbers() -> None:
    x, y, _, _ = clouds()
    k = ((Vi(x) - Vj(y)) ** 2).sum(-1) + 10 * pf.i - pf.j
    table = ((x[:, None] - y) ** 2).sum(-1) + 10 * np.arange(17)[:, None] - np.arange(23)
    assert_close(k.T.sum(axis=1)[:, 0], table.sum(0), terms=23)
    assert_close(k.T.sum(axis=0)[:, 0], table.sum(1), terms=23)
    mask = pf.causal()
    i, j = np.arange(23)[:, None], np.arange(17)[None]
    assert_close(k.T.sum(axis=1, where=mask)[:, 0], np.where(j <= i, table.T, 0).sum(1), terms=23)


# -- errors ---------------------------------------------------------------------------------------


def test_errors_say_what_a_mask_is() -> None:
    x, y, a, b = clouds()
    x_i, y_j = Vi(x), Vj(y)
    f = ((x_i - y_j) ** 2).sum(-1)
    z = x_i.exp1j()
    for where, error, words in (
        (3, ArrayTypeError, "a mask is a LazyTensor"),
        (True, ArrayTypeError, "a mask is a LazyTensor"),
        ("i < j", ArrayTypeError, "a mask is a LazyTensor"),
        (x_i < y_j, ShapeError, "one component"),
        (z[0], ArrayTypeError, "complex"),
        (pf.same(a[:-1], b), ShapeError, "17|16"),
    ):
        with pytest.raises(error, match=words):
            f.sum(axis=1, where=where)
    aliases = ["x=Vi(2)", "y=Vj(2)"]
    for where, error, words in (
        ("x <= y", DimError, "one component"),
        (3, ArrayTypeError, "a mask is a LazyTensor"),
        (x_i < y_j, ShapeError, "one component"),
    ):
        with pytest.raises(error, match=words):
            Genred("SqDist(x,y)", aliases, "Sum", axis=1, where=where)
    with pytest.raises(Exception, match="i or j"):
        Genred("SqDist(x,y)", aliases, "Sum", axis=1, where="Ind(k) < 3")
    for make, error, words in (
        (lambda: pf.band(-1), OptionError, "width"),
        (lambda: pf.band("3"), OptionError, "width"),
        (lambda: pf.band(math.nan), OptionError, "width"),
        (lambda: pf.radius(x, y, "3"), OptionError, "radius"),
        (lambda: pf.same(a + 0.5, b), DTypeError, "whole numbers"),
        (lambda: pf.same(3, b), ArrayTypeError, "ids_i"),
        (lambda: pf.lengths([3, -1]), ShapeError, "sizes"),
        (lambda: pf.lengths([[3]]), ShapeError, "sizes"),
        (lambda: pf.lengths([3], [3, 4]), ShapeError, "one size for each cloud"),
    ):
        with pytest.raises(error, match=words):
            make()
