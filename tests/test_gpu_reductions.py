"""Every reduction as a Triton program, in Triton's interpreter, against the table's oracles."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from checks import assert_close, assert_same_bits
from products import some
from test_reductions import (
    CASES,
    LISTED,
    SELECTING,
    SPECIAL,
    arrays,
    check,
    everywhere,
    oracle,
    pairs,
    parts,
    program,
    views,
)
from test_reductions import _joined_by_hand as joined_by_hand

import pairfold.torch
from pairfold.frontends.devices import DeviceTensors
from pairfold.numpy import Genred
from pairfold.ops.reductions import REDUCTIONS
from pairfold.settings import settings

pytestmark = pytest.mark.usefixtures("interpreter")
Array = Any
TILE = "16x16x1"
# A reduction of each form, which all tests run by default; others, which every other test runs.
FORMS = [("Sum", False), ("Min_ArgMin", False), ("KMin_ArgKMin", False), ("LogSumExp", True)]
OTHERS = [
    *[("Count", False), ("LogSumExp", False), ("Any", False)],
    *[("Max_SumShiftExp", False), ("Max", False), ("SumSoftMaxWeight", True)],
]


def brief(turn: int) -> pytest.MarkDecorator:
    """All reductions: lists are slow here, and the three reductions of lists have one program."""
    default = [*FORMS, *OTHERS[turn % 2 :: 2]]
    entries = [entry for entry in CASES if entry[0] not in ("KMin", "ArgKMin")]
    return some("name,weighted", entries, lambda entry: entry in default)


def compare(
    name: str, weighted: bool, dim: int, axis: int, sizes: tuple[int, int], dtype: str, **how: Any
) -> None:
    """A reduction of so many pairs equals the oracle; `sizes` are (kept, reduced)."""
    genred = program(name, weighted, dim, axis)
    batch = how.pop("batch", ((),) * 5)
    given = arrays(name, dim, *(sizes if axis == 1 else sizes[::-1]), dtype, batch)
    want = oracle(name, *pairs(name, weighted, given, axis))
    if dtype == "float16" and name == "Prod":
        with np.errstate(over="ignore"):
            want = want.astype(dtype)
    with settings(**{"tile": TILE, **how}):
        got = genred(*given, backend="GPU")
    check(name, got, want, dtype, (axis, dim, sizes, batch, how), terms=sizes[1])


OPTIONS = [(1, "float32", 3, 1), (0, "float64", 1, 3), (0, "float32", 20, 3), (1, "float64", 20, 1)]


@some(
    "name,weighted,axis,dtype,dim,splits",
    [(*entry, *options) for entry in CASES for options in OPTIONS],
    lambda entry: (CASES.index(entry[:2]) + OPTIONS.index(entry[2:])) % 2 == 0,
)
def test_every_reduction_equals_numpy(
    name: str, weighted: bool, axis: int, dtype: str, dim: int, splits: int
) -> None:
    sizes = (17, 37) if dim < 20 else (3, 23)
    compare(name, weighted, dim, axis, sizes, dtype, splits=splits)


@brief(0)
def test_sizes_without_rows_or_columns_and_of_one(name: str, weighted: bool) -> None:
    for sizes, axis, dim, splits in (
        ((17, 0), 1, 3, 1),
        ((0, 23), 0, 1, 2),
        ((1, 1), 1, 20, 1),
        ((17, 1), 0, 3, 2),
        ((1, 23), 1, 1, 2),
        ((3, 16), 0, 3, 1),
    ):
        compare(name, weighted, dim, axis, sizes, "float32", splits=splits)


@brief(1)
def test_halves_are_read_and_written_as_stored(name: str, weighted: bool) -> None:
    compare(name, weighted, 3, 1, (17, 23), "float16", splits=2)
    compare(name, weighted, 20, 0, (3, 19), "float16")


@brief(2)
def test_batches_broadcast(name: str, weighted: bool) -> None:
    for batch, axis, dim, splits in (
        (((2,), (2,), (2,), (2,), (2,)), 1, 1, 1),
        (((2, 1), (3,), (1, 1), (), (2, 3)), 0, 3, 2),
        (((0,), (), (), (), ()), 1, 3, 1),
    ):
        how = {"splits": splits, "batch": batch}
        compare(name, weighted, dim, axis, (7, 19), "float64", **how)


@brief(3)
def test_any_strides_give_the_same_bits_and_so_do_repeated_calls(name: str, weighted: bool) -> None:
    given = arrays(name, 3, 7, 23, "float64")
    genred = program(name, weighted, 3, 1)
    with settings(tile=TILE, splits=2):
        want = genred(*given, backend="GPU")
        for others in ([views(array)[n % 3] for n, array in enumerate(given)], given):
            for a, b in zip(parts(genred(*others, backend="GPU")), parts(want), strict=True):
                assert_same_bits(a, b, formula=name)
        repeated = [np.broadcast_to(array[:1], array.shape) for array in given]  # steps of zero
        again = genred(*repeated, backend="GPU")
    want = oracle(name, *pairs(name, weighted, repeated, 1))
    check(name, again, want, "float64", "repeated", terms=23)


@brief(4)
def test_results_of_any_strides_are_filled(name: str, weighted: bool) -> None:
    given = [torch.as_tensor(array) for array in arrays(name, 3, 17, 23, "float64")]
    genred = program(name, weighted, 3, 1)
    want = parts(genred._fold(DeviceTensors, given))
    bases = [np.zeros([2 * n for n in w.shape], w.numpy().dtype) for w in want]
    outs = [
        torch.as_tensor(base)[tuple(slice(None, None, 2) for _ in base.shape)] for base in bases
    ]
    genred._fold(DeviceTensors, given, outs[0] if len(outs) == 1 else tuple(outs))
    for a, base, b in zip(outs, bases, want, strict=True):
        assert_same_bits(a, b, formula=name)
        assert not base[1::2].any()
        assert not base[:, 1::2].any()


# -- values that are not finite ------------------------------------------------------------------


@brief(5)
def test_values_that_are_not_finite_are_treated_as_documented(name: str, weighted: bool) -> None:
    row = REDUCTIONS[name]
    options: dict[str, Any] = {"opt_arg": 3} if row.top_k else {}
    if weighted:
        options["formula2"] = "Exp(0*x)+0*b"
    genred = Genred("x+y", ["x = Vi(1)", "y = Vj(1)", "b = Vj(1)"], name, axis=1, **options)
    x = np.array([[0.0], [1.0], [-1.0]])
    tables = [everywhere(19, around)[7::31] for around in (0.0, -math.inf, math.inf, math.nan)]
    few = itertools.product([1.0, *SPECIAL], repeat=2)
    tables += [np.array(list(few)), np.array([[value] for value in SPECIAL])]
    for table in tables:
        y = table[:, :, None]
        f = x[:, None, :] + y[:, None, :, :]
        want = oracle(name, f, np.ones_like(f) if weighted else None, 3)
        if row.joined:
            want = joined_by_hand(f)
        splits = 2 if table.shape[1] > 16 else 1
        with settings(tile="4x16x1", splits=splits):
            got = genred(x, y, np.ones((table.shape[1], 1)), backend="GPU")
        check(name, got, want, "float64", (table.shape, splits), terms=41)


ANCHORED = [entry for entry in CASES if REDUCTIONS[entry[0]].max_shifted]


@some(
    "entry,dtype",
    [(entry, dtype) for entry in ANCHORED for dtype in ("float32", "float64")],
    lambda given: (given[1] == "float32") == ANCHORED.index(given[0]) % 2,
)
def test_exponents_of_any_magnitude_stay_accurate(entry: tuple[str, bool], dtype: str) -> None:
    (name, weighted), columns = entry, 41
    rng = np.random.default_rng(0)
    base = np.round(rng.uniform(-3, 3, (columns, 1)) * 64) / 64
    weights = rng.uniform(0.5, 1.5, (columns, 4))
    ramp = np.linspace(-1, 1, columns)[:, None]
    alternating = np.where(np.arange(columns) % 2, 1.0, -1.0)[:, None]
    tables = [base + at for at in (1e4, -1e4, 88.0, -104.0, 709.0, -745.0)]
    tables += [ramp * scale for scale in (300.0, 1e4, -1e4, 1e30, -1e30)]
    tables += [alternating * 1e4, np.full((columns, 1), 1e30), np.full((columns, 1), -1e30)]
    y = np.stack(tables).astype(dtype)
    b = weights.astype(dtype)
    options = {"formula2": "b"} if weighted else {}
    genred = Genred("x+y", ["x = Vi(1)", "y = Vj(1)", "b = Vj(4)"], name, axis=1, **options)
    with settings(tile="1x16x1", splits=2):
        got = genred(np.zeros((1, 1), dtype), y, b, backend="GPU")
    f = y[:, None].astype("float64")
    g = np.broadcast_to(b.astype("float64"), (*f.shape[:-1], 4)) if weighted else None
    want = oracle(name, f, g)
    # Row by row: a large one must not hide the error of a small one.
    for one, other, table in zip(got, want, tables, strict=True):
        assert_close(one, other, terms=columns, formula=(name, table[0]))


# -- ties, lists, indices ------------------------------------------------------------------------


@pytest.mark.parametrize("name", [n for n in SELECTING if n not in ("KMin", "ArgKMin")])
def test_the_lowest_index_wins_across_lanes_blocks_and_splits(name: str) -> None:
    rng = np.random.default_rng(1)
    columns = 83
    rare = rng.choice([-3, 0, 1, 2, 5], (3, columns), p=[0.02, 0.3, 0.4, 0.26, 0.02])
    late = np.where(np.arange(columns) < 70, 1, 0)
    table = np.stack([*rare, np.zeros(columns), late, -late, np.arange(columns)[::-1] // 30])
    y = table[:, :, None].astype("float32")
    x = np.zeros((2, 1), "float32")
    want = oracle(name, np.broadcast_to(y[:, None], (7, 2, columns, 1)), length=12)
    options = {"opt_arg": 12} if REDUCTIONS[name].top_k else {}
    genred = Genred("x+y", ["x = Vi(1)", "y = Vj(1)"], name, axis=1, **options)
    for splits in (1, 3):
        with settings(tile="2x16x1", splits=splits):
            check(name, genred(x, y, backend="GPU"), want, "float32", splits)


@some(
    "name,length,splits",
    [(name, *how) for name in LISTED for how in ((1, 3), (10, 1), (26, 2))],
    lambda given: given[0] == "KMin_ArgKMin" or given[:2] in (("KMin", 1), ("ArgKMin", 10)),
)
def test_lists_of_any_length_are_ascending_and_padded(name: str, length: int, splits: int) -> None:
    for dim in (1, 3):
        given = arrays(name, dim, 5, 23, "float32")
        genred = program(name, False, dim, 1, length)
        want = oracle(name, *pairs(name, False, given, 1), length)
        with settings(tile="8x8x1", splits=splits):
            got = genred(*given, backend="GPU")
        check(name, got, want, "float32", (dim, length))


@some(
    "name",
    [name for name in SELECTING if "Arg" in name],
    lambda name: name in ("Max_ArgMax", "ArgKMin"),
)
def test_indices_beyond_float32_are_exact(name: str) -> None:
    columns, far = 17_000_003, 2**24 + 1
    y = np.zeros((columns, 1), "float32")
    y[far], y[columns - 2] = 1, -1
    x = np.ones((1, 1), "float32")
    options = {"opt_arg": 1} if REDUCTIONS[name].top_k else {}
    genred = Genred("x*y", ["x = Vi(1)", "y = Vj(1)"], name, axis=1, **options)
    with settings(tile="1x262144x1", splits=2):
        got = parts(genred(x, y, backend="GPU"))[-1]
    assert_same_bits(got, np.array([[columns - 2 if "Min" in name else far]]), formula=name)


@pytest.mark.parametrize("name", ["Max_ArgMax", "Min_ArgMin", "ArgKMin"])
def test_columns_are_counted_on_from_one_chunk_to_the_next(name: str) -> None:
    """A chunk is 64 blocks of columns; lanes count columns from where it begins."""
    y = np.zeros((300, 1), "float32")
    y[259], y[283] = 1, -1
    options = {"opt_arg": 1} if REDUCTIONS[name].top_k else {}
    genred = Genred("x*y", ["x = Vi(1)", "y = Vj(1)"], name, axis=1, **options)
    with settings(tile="1x4x1", splits=1):
        got = parts(genred(np.ones((1, 1), "float32"), y, backend="GPU"))[-1]
    assert_same_bits(got, np.array([[283 if "Min" in name else 259]]), formula=name)


# -- sums ----------------------------------------------------------------------------------------


def test_errors_of_sums_do_not_grow_with_the_number_of_terms() -> None:
    columns = 300_007
    x, y = np.zeros((1, 1), "float32"), np.full((columns, 1), 0.1, "float32")
    genred = Genred("y+0*x", ["x = Vi(1)", "y = Vj(1)"], axis=1)
    for splits in (1, 3):
        with settings(tile="1x256x1", splits=splits):
            got = genred(x, y, backend="GPU")
        # As on the CPU: equal terms round alike within the block that a lane adds up.
        assert_close(got, [[columns * float(np.float32(0.1))]], rtol=4e-6)


@pytest.mark.parametrize("scheme", ["block_sum", "kahan_scheme"])
def test_sums_of_float64_are_compensated_where_asked(scheme: str) -> None:
    rng = np.random.default_rng(0)
    y = rng.normal(size=(3000, 1)) * 10.0 ** rng.integers(0, 12, (3000, 1))
    y = np.concatenate([y, -y[::-1], [[1.0]]])
    genred = Genred("y+0*x", ["x = Vi(1)", "y = Vj(1)"], axis=1, sum_scheme=scheme)
    with settings(tile="4x64x1"):
        got = genred(np.zeros((3, 1)), y, backend="GPU")
    plain = abs(np.cumsum(y[:, 0])[-1] - math.fsum(y[:, 0]))
    assert np.abs(got - math.fsum(y[:, 0])).max() < max(plain / 4, 1e-2)


def test_what_totals_of_float64_round_off_is_added_in_the_end() -> None:
    """Of chunks of 8 blocks, whose sums are 1e16, 1, 1, 1 and -1e16, a plain total is 0."""
    y = np.zeros((5 * 8 * 16, 1))
    y[[5, 130, 260, 390, 520], 0] = 1e16, 1, 1, 1, -1e16
    genred = Genred("y+0*x", ["x = Vi(1)", "y = Vj(1)"], axis=1, sum_scheme="kahan_scheme")
    with settings(tile="4x16x1", splits=1):
        got = genred(np.zeros((3, 1)), y, backend="GPU")
    assert_same_bits(got, np.full((3, 1), 3.0))


@pytest.mark.parametrize("components", [False, True])
@pytest.mark.parametrize("axis", [0, 1])
def test_offsets_beyond_32_bits_are_read_and_written(axis: int, components: bool) -> None:
    """Rows, or components, that lie 2^30 numbers apart; of 12 GB a few pages are touched."""
    step = 2**30
    memory = [torch.empty(2 * step + 8, dtype=torch.float16) for _ in range(3)]
    shape, strides = ((2, 3), (1, step)) if components else ((3, 1), (step, 1))
    x, y, out = (whole.as_strided(shape, strides) for whole in memory)
    x[:] = torch.tensor([1.0, 2.0, 3.0, 4.0, 6.0, 8.0])[: x.numel()].reshape(shape)
    y[:] = torch.tensor([0.5, 4.0, -1.0, 3.0, 2.0, 5.0])[: x.numel()].reshape(shape)
    aliases = [f"x = Vi({shape[1]})", f"y = Vj({shape[1]})"]
    genred = pairfold.torch.Genred("x*y+x", aliases, axis=axis)
    with settings(tile=TILE):
        genred(x, y, backend="GPU", out=out)
    tall, wide = x.double()[:, None], y.double()[None]
    assert torch.equal(out.double(), (tall * wide + tall).sum(axis))
