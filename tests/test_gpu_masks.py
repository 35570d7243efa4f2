"""Masks in programs for GPUs, in Triton's interpreter, against machine code of the CPU."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from checks import assert_close, assert_same_bits  # noqa: E402
from every_reduction import CASES  # noqa: E402
from products import some  # noqa: E402

import pairfold as pf  # noqa: E402
from pairfold import Genred, Vi, Vj  # noqa: E402
from pairfold.arrays.registry import NUMPY  # noqa: E402
from pairfold.cluster import from_matrix  # noqa: E402
from pairfold.errors import MemoryLimitError, UnsupportedError  # noqa: E402
from pairfold.frontends.partial import finished, merged, partial  # noqa: E402
from pairfold.frontends.slabs import Cut, Slabs  # noqa: E402
from pairfold.settings import settings  # noqa: E402

interpreted = pytest.mark.usefixtures("interpreter")
ALIASES = ["x = Vi(3)", "y = Vj(3)", "b = Vj(1)", "p = Pm(1)"]
MASKS = {
    "causal": "Ind(j) <= Ind(i)",
    "band": "Abs(Ind(i)-Ind(j)) <= 2",
    "radius": "SqDist(x,y) <= 4",
    "mixed": "LogicalOr(LogicalNot(3*Ind(j)-2 < Ind(i)), Elem(x,0) < -Elem(y,1))",
    "some rows": "Ind(i) >= 9",
    "some columns": "Elem(y,0) < 0",
    "nothing": "Ind(j) < 0",
    "fractions": "LogicalOr(Ind(j)*2 <= 3+Elem(x,0), Ind(i) == Ind(j)+Elem(y,1)*0)",
}


def data(m: int = 17, n: int = 23, dtype: str = "float32", batch: tuple[int, ...] = ()) -> Any:
    random = np.random.default_rng(0)
    shapes = ((*batch, m, 3), (n, 3), (n, 1), (1,))
    found = [random.standard_normal(shape).astype(dtype) for shape in shapes]
    found[3] = np.abs(found[3])
    return found


def range_of(count: int) -> Any:
    """Labels that are numbers of rows, but for their last bits."""
    return np.arange(count) // 4


def same(got: Any, want: Any, terms: int = 23) -> None:
    got, want = ((x if isinstance(x, tuple) else (x,)) for x in (got, want))
    for one, other in zip(got, want, strict=True):
        assert one.dtype == other.dtype
        if one.dtype in (np.int64, np.bool_):
            assert_same_bits(one, other)
        else:
            assert_close(one, other, terms=terms)


OPTIONS = [
    (mask, axis, dtype, splits)
    for mask in MASKS
    for axis, dtype, splits in ((1, "float32", 1), (0, "float64", 3))
]


@interpreted
@some(
    "reduction,formula,options,mask,axis,dtype,splits",
    [(*entry, *option) for entry in CASES for option in OPTIONS],
    lambda entry: (CASES.index(entry[:3]) * 3 - OPTIONS.index(entry[3:])) % 16 in (0, 5),
)
def test_masks_leave_the_pairs_that_they_do_on_the_cpu(
    reduction: str, formula: str, options: Any, mask: str, axis: int, dtype: str, splits: int
) -> None:
    reduce = Genred(formula, ALIASES, reduction, axis=axis, where=MASKS[mask], **options)
    for m, n in ((17, 23), (3, 33), (1, 1)):
        given = data(m, n, dtype)
        with settings(tile="16x16x1", splits=splits):
            same(reduce(*given, backend="GPU"), reduce(*given))


LONG = [
    ("Sum", "Exp(-SqDist(x,y))*v", {}),
    ("Sum", "SqDist(x,y)*v", {}),
    ("Mean", "x*y", {}),
    ("KMin", "x*y", {"opt_arg": 2}),
    ("SumSoftMaxWeight", "(x|y)", {"formula2": "v"}),
]


@interpreted
@pytest.mark.parametrize(
    ("reduction", "formula", "options", "splits"),
    [(*entry, splits) for entry, splits in zip(LONG, (1, 2, 1, 1, 2))],
)
def test_long_outputs_are_products_of_what_counts(
    reduction: str, formula: str, options: Any, splits: int
) -> None:
    rng = np.random.default_rng(0)
    x, y, v = (rng.standard_normal((n, 20)).astype("float32") / 4 for n in (17, 23, 23))
    aliases = ["x = Vi(20)", "y = Vj(20)", "v = Vj(20)"]
    reduce = Genred(formula, aliases, reduction, axis=1, where=MASKS["causal"], **options)
    with settings(tile="16x16x1", splits=splits):
        same(reduce(x, y, v, backend="GPU"), reduce(x, y, v), 23)
        for poison in (math.nan, math.inf):
            v[7:] = y[20:] = poison  # rows below 7 meet none of it
            same(reduce(x, y, v, backend="GPU")[:7], reduce(x, y, v)[:7], 23)
            assert np.isfinite(reduce(x, y, v, backend="GPU")[:7]).all() or options.get("opt_arg")


@interpreted
@pytest.mark.parametrize(("reduction", "formula", "options"), CASES[::3])
def test_data_at_absent_pairs_poisons_nothing(reduction: str, formula: str, options: Any) -> None:
    reduce = Genred(formula, ALIASES, reduction, axis=1, where="Ind(j) <= Ind(i)", **options)
    x, y, b, p = data(9, 23)
    with settings(tile="16x16x1"):
        want = reduce(x, y, b, p, backend="GPU")
        y[9:] = b[9:] = math.nan
        same(reduce(x, y, b, p, backend="GPU"), want)


@interpreted
def test_batches_halves_and_ranges() -> None:
    for reduction, formula, options in (CASES[0], CASES[3], CASES[16], CASES[20]):
        reduce = Genred(formula, ALIASES, reduction, axis=1, where=MASKS["mixed"], **options)
        ranges = from_matrix(
            np.array([[0, 5], [5, 17]]),
            np.array([[0, 9], [9, 23]]),
            np.array([[True, True], [False, True]]),
        )
        with settings(tile="16x16x1"):
            given = data(7, 19, "float64", (2,))
            same(reduce(*given, backend="GPU"), reduce(*given))
            given = data()
            same(reduce(*given, backend="GPU", ranges=ranges), reduce(*given, ranges=ranges))
            given = data(dtype="float16")
            same(reduce(*given, backend="GPU"), reduce(*given))


@interpreted
def test_numbers_are_exact() -> None:
    for dtype in ("float16", "float32"):
        for text in ("Ind(j) + 16777216 <= Ind(i) + 16777217", "Ind(j)*4294967296 == 8589934592"):
            reduce = Genred("y", ["x=Vi(1)", "y=Vj(1)"], "Sum", axis=1, where=text)
            given = np.zeros((9, 1), dtype), np.ones((9, 1), dtype)
            with settings(tile="16x16x1"):
                assert reduce(*given, backend="GPU").tolist() == reduce(*given).tolist()
    values = Genred("Ind(i)*10-Abs(Ind(j)-3)+0*x*y", ["x=Vi(1)", "y=Vj(1)"], "Sum", axis=1)
    given = np.zeros((9, 1)), np.zeros((18, 1))
    with settings(tile="16x16x1"):
        assert values(*given, backend="GPU").tolist() == values(*given).tolist()


@interpreted
def test_gradients_are_those_of_the_cpu() -> None:
    for name in ("Sum", "Mean", "LogSumExp", "Min"):
        found = []
        for backend in ("GPU", "CPU"):
            torch.manual_seed(0)
            x, y = (torch.randn(n, 2, requires_grad=True) for n in (7, 19))
            f = -((Vi(x) - Vj(y)) ** 2).sum(-1)
            mask = pf.causal() & (pf.i > 1) & pf.band(12) & pf.same(range_of(7), range_of(19))
            with settings(tile="16x16x1"):
                out = f.reduction(name, axis=1, where=mask, backend=backend)
                out = torch.where(out.isfinite(), out, torch.zeros_like(out))
                found.append(torch.autograd.grad(out.square().sum(), (x, y)))
        for a, b in zip(*found, strict=True):
            assert a.isfinite().all()
            assert_close(a, b, terms=19)


# -- slabs ----------------------------------------------------------------------------------------


def cut_of(where: str, free: int, axis: int = 1, ranges: Any = None) -> Cut:
    """How arrays of (300, 3) and (4000, 3) are cut for so much memory."""
    reduce = Genred("SqDist(x,y)", ALIASES[:2], "Sum", axis=axis, where=where)
    given = data(300, 4000)[:2]
    binding = reduce._fold.binding(NUMPY, given)
    slabs = Slabs(reduce._fold, given, binding, lambda x: x, lambda x, y: None, NUMPY)
    slabs._workspace = lambda cut, ranges: 0
    return slabs.cut(free, ranges)


def test_axes_whose_numbers_are_read_are_not_cut() -> None:
    assert cut_of("SqDist(x,y) <= 4", 4000).rows < 300
    found = cut_of("Ind(i) >= 3", 20_000)
    assert (found.rows, found.columns < 4000) == (300, True)
    found = cut_of("Ind(j) >= 3", 50_000)
    assert (found.rows < 300, found.columns) == (True, 4000)
    assert cut_of("Ind(i) >= Ind(j)", 60_000) == Cut((), 300, 4000)
    for where, free in (("Ind(i) >= Ind(j)", 50_000), ("Ind(i) >= 3", 1000), ("Ind(j) >= 3", 1000)):
        with pytest.raises(MemoryLimitError, match="numbers"):
            cut_of(where, free)


@interpreted
@pytest.mark.parametrize(
    ("where", "cut"),
    [("SqDist(x,y) <= 4", Cut((), 9, 10)), ("Ind(i) >= 3", Cut((), 17, 10)),
     ("Ind(j) >= 3", Cut((), 9, 23))],
)  # fmt: skip
def test_slabs_give_what_the_cpu_gives(
    monkeypatch: pytest.MonkeyPatch, where: str, cut: Cut
) -> None:
    monkeypatch.setattr(Slabs, "cut", lambda self, free, ranges: cut)
    for name in ("Sum", "Mean", "Min_ArgMin", "LogSumExp"):
        reduce = Genred("SqDist(x,y)", ALIASES[:2], name, axis=1, where=where)
        with settings(tile="16x16x1"):
            same(reduce(*data()[:2], backend="GPU"), reduce(*data()[:2]))


def test_states_of_some_columns_are_those_that_a_mask_leaves() -> None:
    x, y, *_ = data(dtype="float64")
    for name in ("Sum", "Mean", "Min_ArgMin", "LogSumExp"):
        fold = Genred("SqDist(x,y)", ALIASES[:2], name, axis=1, where="SqDist(x,y) <= 4")._fold
        first, second = partial(fold, NUMPY, [x, y[:9]]), partial(fold, NUMPY, [x, y[9:]], 9)
        states = merged(fold, NUMPY, first, second)
        got = finished(fold, NUMPY, states, 23, "float64")
        same(tuple(got), tuple(fold.run(NUMPY, [x, y])))
    rows = Genred("SqDist(x,y)", ALIASES[:2], "Sum", axis=1, where="Ind(i) >= 3")._fold
    parts = [partial(rows, NUMPY, [x, y[:9]]), partial(rows, NUMPY, [x, y[9:]], 9)]
    got = finished(rows, NUMPY, merged(rows, NUMPY, *parts), 23, "float64")
    same(tuple(got), tuple(rows.run(NUMPY, [x, y])))
    columns = Genred("SqDist(x,y)", ALIASES[:2], "Sum", axis=1, where="Ind(j) >= 3")._fold
    with pytest.raises(UnsupportedError, match="numbers"):
        partial(columns, NUMPY, [x, y[9:]], 9)
