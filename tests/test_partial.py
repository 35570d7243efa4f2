"""Reductions in parts: any cut of the columns, merged in any order, gives the whole result."""

from __future__ import annotations

import itertools

import every_reduction
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from products import some

import pairfold
from pairfold import Genred
from pairfold.arrays.numpy import NumpyArrays
from pairfold.arrays.torch import TorchArrays
from pairfold.cluster import from_matrix
from pairfold.frontends.devices import DeviceTensors
from pairfold.frontends.partial import finished, merged, partial, widths
from pairfold.frontends.ranges import checked_ranges
from pairfold.ops.reductions import REDUCTIONS
from pairfold.ops.states import row_of, states_of

ALIASES = ["x = Vi(2)", "y = Vj(2)", "b = Vj(1)", "p = Pm(1)"]
DISTANCE = "SqDist(x,y)"
CASES = [
    *every_reduction.CASES,
    ("Min_ArgMin", "Round(x-y,0)", {}),  # ties, also between parts
    ("Max_ArgMax", "Round(x-y,0)", {}),
    ("ArgKMin", "Round(x-y,0)", {"opt_arg": 4}),
    ("KMin_ArgKMin", "x-y", {"opt_arg": 30}),  # longer than there are columns
    ("KMin", DISTANCE, {"opt_arg": 1}),
    ("ArgKMin", "x-y", {"opt_arg": 1}),
    ("LogSumExp", DISTANCE, {"formula2": "y"}),
    ("LogSumExpWeight", DISTANCE, {"formula2": "Square(y)+1"}),
]
# What derivatives are made of: internal rows, as variants of public ones.
INTERNAL = {"Prod": "ProdParts", "LogSumExp": "LogParts", "SumSoftMaxWeight": "SoftMaxParts"}
TOLERANCE = {"float64": 1e-14, "float32": 3e-6, "float16": 2e-3}


def reduced(name, formula, options, axis=1):
    return Genred(formula, ALIASES, reduction_op=name, axis=axis, **options)._fold


def data(m=17, n=23, dtype="float32", seed=0, batch=()):
    random = np.random.default_rng(seed)
    shapes = ((*batch, m, 2), (*batch, n, 2), (n, 1))
    return [random.standard_normal(shape).astype(dtype) for shape in shapes] + [
        np.array([0.5], dtype)
    ]


def part_of(arrays, low, high, axis=1):
    x, y, b, p = arrays
    if axis == 1:
        return [x, y[..., low:high, :], b[low:high], p]
    return [x[..., low:high, :], y, b, p]


def in_parts(fold, arrays, cuts, order, axis=1, library=NumpyArrays):
    """The results from parts between the cuts, merged in an order."""
    size = arrays[axis].shape[-2] if axis == 1 else arrays[0].shape[-2]
    ends = [0, *cuts, size]
    parts = [
        partial(fold, library, part_of(arrays, low, high, axis), low)
        for low, high in itertools.pairwise(ends)
    ]
    whole = parts[order[0]]
    for n in order[1:]:
        whole = merged(fold, library, whole, parts[n])
    return finished(fold, library, whole, size, library.dtype(arrays[0]))


def check_same(fold, got, want, dtype):
    got, want = ([np.asarray(x) for x in found] for found in (got, want))
    assert len(got) == len(want) == len(fold.row.results)
    for one, other, result in zip(got, want, fold.row.results, strict=True):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        if fold.row.selects or result.kind != "value":
            np.testing.assert_array_equal(one, other)
        else:
            scale = max(1.0, np.abs(other[np.isfinite(other)]).max(initial=0.0))
            np.testing.assert_allclose(
                one, other, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype] * scale
            )


every_case = pytest.mark.parametrize(("name", "formula", "options"), CASES)


@every_case
@pytest.mark.parametrize("backend", ["llvm", "reference"])
def test_any_order_of_parts_gives_the_whole(name, formula, options, backend):
    with pairfold.settings(backend=backend):
        fold, arrays = reduced(name, formula, options), data()
        want = fold.run(NumpyArrays, arrays)
        for order in itertools.permutations(range(4)):
            got = in_parts(fold, arrays, (7, 7, 18), order)  # the second part is empty
            check_same(fold, got, want, "float32")


@every_case
def test_programs_for_gpus_leave_the_same_states(interpreter, name, formula, options):
    torch = pytest.importorskip("torch")

    fold = reduced(name, formula, options)
    arrays = [torch.from_numpy(array) for array in data()]
    with pairfold.settings(backend="triton", tile="16x16x1"):
        got = in_parts(fold, arrays, (7, 18), (1, 0, 2), library=DeviceTensors)
        want = fold.run(DeviceTensors, arrays)
    check_same(fold, got, want, "float32")


@some(
    "name,formula,options,axis,dtype",
    [(*case, axis, dtype) for case in CASES for axis in (0, 1) for dtype in ("float64", "float16")],
    lambda entry: (CASES.index(entry[:3]) + entry[3]) % 2 == (entry[4] == "float16"),
)
def test_both_axes_and_other_dtypes(name, formula, options, axis, dtype):
    fold, arrays = reduced(name, formula, options, axis), data(dtype=dtype)
    got = in_parts(fold, arrays, (5, 11), (2, 0, 1), axis)
    check_same(fold, got, fold.run(NumpyArrays, arrays), dtype)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("options", [{"dtype_acc": "float32"}, {"dtype_acc": "float64"}], ids=str)
@pytest.mark.parametrize(("name", "formula"), [("Sum", "x*b"), ("LogSumExp", "x-y")])
def test_sums_accumulated_as_asked_leave_states_of_float64(name, formula, options, dtype):
    fold, arrays = reduced(name, formula, options), data(n=211, dtype=dtype)
    states = partial(fold, NumpyArrays, arrays)
    assert {state.dtype for state in states} == {np.dtype("float64")}
    got = in_parts(fold, arrays, (64, 130), (2, 0, 1))
    check_same(fold, got, fold.run(NumpyArrays, arrays), dtype)


@pytest.mark.parametrize("name", INTERNAL)
def test_states_of_what_derivatives_read(name):
    _, formula, options = next(case for case in CASES if case[0] == name)
    fold, arrays = reduced(name, formula, options).variant(INTERNAL[name]), data()
    if name == "Prod":
        arrays[1][3] = arrays[0][2]  # one factor that is 0
        arrays[1][[8, 9]] = arrays[0][5]
    got = in_parts(fold, arrays, (4, 9), (1, 2, 0))
    want = fold.run(NumpyArrays, arrays)
    if name != "Prod":
        # The maximum may be another where sums were cut otherwise; what it is for may not.
        got, want = (with_sums(fold, found) for found in (got, want))
    for one, other in zip(got, want, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def with_sums(fold, found):
    out, top, whole = (np.asarray(part, np.float64) for part in found)
    return out, whole * np.exp(top)


@every_case
def test_tensors_are_merged_as_arrays_are(name, formula, options):
    torch = pytest.importorskip("torch")
    fold, arrays = reduced(name, formula, options), data(batch=(2, 1))
    got = in_parts(fold, [torch.from_numpy(x) for x in arrays], (6,), (1, 0), library=TorchArrays)
    want = in_parts(fold, arrays, (6,), (1, 0))
    for one, other in zip(got, want, strict=True):
        assert isinstance(one, torch.Tensor)
        np.testing.assert_allclose(one.numpy(), other, rtol=1e-6, atol=1e-7)


@every_case
def test_nan_infinities_and_rows_that_select_nothing(name, formula, options):
    fold, arrays = reduced(name, formula, options), data()
    arrays[1][[2, 9]] = np.nan
    arrays[1][4, 0] = np.inf
    arrays[1][20, 1] = -np.inf
    arrays[0][3] = np.nan
    got = in_parts(fold, arrays, (3, 10), (2, 1, 0))
    check_same(fold, got, fold.run(NumpyArrays, arrays), "float32")


@every_case
def test_no_columns_in_any_part(name, formula, options):
    fold, arrays = reduced(name, formula, options), data(n=0)
    got = in_parts(fold, arrays, (0,), (1, 0))
    check_same(fold, got, fold.run(NumpyArrays, arrays), "float32")


@pytest.mark.parametrize(("name", "formula", "options"), [CASES[0], CASES[23], CASES[18]])
def test_block_sparse_parts(name, formula, options):
    fold, (x, y, b, p) = reduced(name, formula, options), data(17, 24)
    rows = np.array([[0, 6], [6, 11], [11, 17]])
    columns = np.array([[0, 5], [5, 12], [12, 24]])
    keep = np.array([[1, 0, 1], [0, 1, 1], [1, 1, 0]], bool)
    both = checked_ranges(from_matrix(rows, columns, keep))
    want = fold.run(NumpyArrays, [x, y, b, p], both)
    first = checked_ranges(from_matrix(rows, columns[:2], keep[:, :2]))
    last = checked_ranges(from_matrix(rows, columns[2:] - 12, keep[:, 2:]))
    a = partial(fold, NumpyArrays, [x, y[:12], b[:12], p], 0, first)
    c = partial(fold, NumpyArrays, [x, y[12:], b[12:], p], 12, last)
    got = finished(fold, NumpyArrays, merged(fold, NumpyArrays, c, a), 24, "float32")
    check_same(fold, got, want, "float32")


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_random_cuts_in_random_trees(draw):
    name, formula, options = draw.draw(st.sampled_from(CASES))
    n = draw.draw(st.integers(1, 30))
    cuts = sorted(draw.draw(st.lists(st.integers(0, n), max_size=6)))
    fold, arrays = reduced(name, formula, options), data(n=n, seed=draw.draw(st.integers(0, 99)))
    ends = [0, *cuts, n]
    parts = [
        partial(fold, NumpyArrays, part_of(arrays, low, high), low)
        for low, high in itertools.pairwise(ends)
    ]
    while len(parts) > 1:
        one = parts.pop(draw.draw(st.integers(0, len(parts) - 1)))
        other = parts.pop(draw.draw(st.integers(0, len(parts) - 1)))
        parts.append(merged(fold, NumpyArrays, one, other))
    got = finished(fold, NumpyArrays, parts[0], n, "float32")
    check_same(fold, got, fold.run(NumpyArrays, arrays), "float32")


def test_the_layout_is_that_of_the_row():
    sizes = {
        ("Sum", 2): (2,),
        ("ArgMin", 2): (2, 2),
        ("KMin", 2): (6, 6),
        ("LogSumExp", 2): (2, 2),
        ("SumSoftMaxWeight", 2): (2, 1, 1),
    }
    for (name, _), want in sizes.items():
        options = {"opt_arg": 3} if REDUCTIONS[name].top_k else {}
        formula = "x-y"
        if REDUCTIONS[name].weighted == "must":
            options, formula = {"formula2": "y"}, DISTANCE
        fold = reduced(name, formula, options)
        states = partial(fold, NumpyArrays, data())
        assert widths(fold) == want
        assert [state.shape for state in states] == [(17, width) for width in want]
        assert {state.dtype for state in states} == {np.dtype("float64")}


def test_columns_are_numbered_from_any_start():
    fold, arrays = reduced("ArgMin", DISTANCE, {}), data()
    plain = fold.run(NumpyArrays, arrays)[0]
    states = partial(fold, NumpyArrays, arrays, 2**40)
    assert np.array_equal(finished(fold, NumpyArrays, states, 23, "float32")[0], plain + 2**40)


def test_rows_of_states_are_not_in_the_table():
    assert states_of("KMin") == "KMin (states)"
    row = row_of("KMin (states)")
    assert (row.name, row.single, row.internal) == ("KMin (states)", "Min_ArgMin (states)", True)
    assert row.name not in REDUCTIONS
