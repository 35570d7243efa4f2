"""Genred on NumPy arrays: values, shapes, batches, options, and errors before anything runs."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from checks import assert_close, assert_same_bits
from hypothesis import given, settings
from hypothesis import strategies as st

import pairfold
import pairfold.numpy
import pairfold.torch
from pairfold import Genred
from pairfold.arrays.numpy import NumpyArrays
from pairfold.errors import (
    ArgumentError,
    ArrayTypeError,
    DeviceError,
    DimError,
    DTypeError,
    FormulaError,
    OptionError,
    ShapeError,
    UnknownNameError,
)

SEED = "Square(p-a)*Exp(x+y)"
ALIASES = ["x = Vi(3)", "y = Vj(3)", "a = Vj(1)", "p = Pm(1)"]


def data(*batch: int, rows: int = 17, columns: int = 23, dtype: str = "float64") -> list[Any]:
    """x, y, a, p with leading batch axes."""
    rng = np.random.default_rng(1)
    shapes = [(*batch, rows, 3), (*batch, columns, 3), (*batch, columns, 1), (*batch, 1)]
    return [rng.uniform(-1, 1, shape).astype(dtype) for shape in shapes]


def dense(x: Any, y: Any, a: Any, p: Any) -> Any:
    """The seed formula on all pairs."""
    pairs = np.exp(x[..., :, None, :] + y[..., None, :, :])
    return (p[..., None, None, :] - a[..., None, :, :]) ** 2 * pairs


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("axis", [0, 1])
def test_the_seed_formula_is_the_dense_sum(axis: int, dtype: str) -> None:
    arrays = data(dtype=dtype)
    got = Genred(SEED, ALIASES, reduction_op="Sum", axis=axis)(*arrays)
    want = dense(*[v.astype("float64") for v in arrays]).sum(-2 if axis == 1 else -3)
    assert got.dtype == dtype
    assert isinstance(got, np.ndarray)
    assert_close(got, want, terms=23)


def test_the_default_axis_reduces_over_i() -> None:
    x, y = np.zeros((3, 2)), np.ones((4, 2))
    assert Genred("SqDist(x,y)", ["x = Vi(2)", "y = Vj(2)"])(x, y).shape == (4, 1)


def test_a_formula_without_i_has_one_row_and_without_j_one_column() -> None:
    y, p = np.arange(4.0)[:, None], np.array([2.0])
    only_j = ["y = Vj(1)", "p = Pm(1)"]
    assert_close(Genred("p*y", only_j, axis=1)(y, p), [[12.0]])
    assert_close(Genred("p*y", only_j, axis=0)(y, p), 2 * y)
    assert_close(Genred("p", ["p = Pm(1)"], axis=1)(p), [[2.0]])
    assert_close(Genred("p", ["p = Pm(1)"], axis=0)(p), [[2.0]])


def test_a_variable_that_the_formula_drops_still_counts_and_is_still_checked() -> None:
    aliases = ["x = Vi(3)", "y = Vj(3)"]
    x, y = np.ones((5, 3)), np.ones((7, 3))
    assert_close(Genred("x", aliases, axis=1)(x, y), 7 * x)
    with pytest.raises(ShapeError, match="argument 1"):
        Genred("x", aliases, axis=1)(x, np.ones((7, 2)))


@pytest.mark.parametrize(("rows", "columns"), [(0, 5), (5, 0), (0, 0), (1, 1)])
def test_empty_axes_give_empty_or_zero_results(rows: int, columns: int) -> None:
    arrays = data(rows=rows, columns=columns)
    for axis in (0, 1):
        got = Genred(SEED, ALIASES, axis=axis)(*arrays)
        assert_close(got, dense(*arrays).sum(-2 if axis == 1 else -3))


@st.composite
def batches(draw: Any) -> tuple[list[tuple[int, ...]], tuple[int, ...]]:
    """Batch shapes of four arguments: each axis n, 1 or (leading) absent."""
    whole = draw(st.lists(st.integers(1, 3), max_size=3))
    shapes: list[tuple[int, ...]] = []
    for _ in range(4):
        own = [draw(st.sampled_from([size, 1])) for size in whole]
        shapes.append(tuple(own[draw(st.integers(0, len(own))) :]))
    return shapes, tuple(whole)


@settings(max_examples=60, deadline=None)
@given(batches(), st.sampled_from([0, 1]))
def test_batch_axes_broadcast_as_in_numpy(
    drawn: tuple[list[tuple[int, ...]], tuple[int, ...]], axis: int
) -> None:
    shapes, _ = drawn
    rng = np.random.default_rng(0)
    tails = [(5, 3), (7, 3), (7, 1), (1,)]
    arrays = [rng.uniform(-1, 1, (*s, *t)) for s, t in zip(shapes, tails, strict=True)]
    got = Genred(SEED, ALIASES, axis=axis)(*arrays)
    depth = max(len(s) for s in shapes[:3])
    while arrays[3].ndim - 1 > depth and arrays[3].shape[0] == 1:
        arrays[3] = arrays[3][0]  # leading axes of size 1 that only a parameter has are dropped
    assert_close(got, dense(*arrays).sum(-2 if axis == 1 else -3), terms=7)


def test_batches_of_strided_views_are_read_in_place() -> None:
    x, y, a, p = data(4, 2)
    x = np.asfortranarray(x)[::2, ::-1]
    got = Genred(SEED, ALIASES, axis=1)(x, y[::2], a[:1], p[0, 0])
    assert_close(got, dense(x, y[::2], a[:1], p[0, 0]).sum(-2), terms=23)
    out = np.full((2, 2, 17, 6), np.nan)[..., ::2]
    assert_same_bits(Genred(SEED, ALIASES, axis=1)(x, y[::2], a[:1], p[0, 0], out=out), got)


def test_an_output_that_shares_memory_with_an_argument_is_right() -> None:
    x = np.random.default_rng(0).normal(size=(700, 3))
    genred = Genred("Exp(-SqDist(x,y))*y", ["x = Vi(3)", "y = Vj(3)"], axis=1)
    want = genred(x.copy(), x.copy())
    assert genred(x, x, out=x) is x
    assert_same_bits(x, want)
    y = np.random.default_rng(1).normal(size=(1400, 3))
    want = genred(y[:700].copy(), y[700:].copy())
    assert_same_bits(genred(y[:700], y[700:], out=y[350:1050]), want)
    y = np.zeros((3, 1400)).T
    assert_same_bits(genred(y[::2], y[::2], out=y[1::2]), genred(y[::2], y[::2]))


def test_an_output_that_cannot_be_written_is_refused() -> None:
    import torch

    x = np.ones((5, 3))
    genred = Genred("Exp(-SqDist(x,y))*y", ["x = Vi(3)", "y = Vj(3)"], axis=1)
    fixed = np.zeros((5, 3))
    fixed.flags.writeable = False
    for out in (fixed, np.broadcast_to(np.zeros(3), (5, 3))):
        with pytest.raises(ShapeError, match="written"):
            genred(x, x, out=out)
    t = torch.ones(5, 3)
    with pytest.raises(ShapeError, match="written"):
        genred(t, t, out=torch.zeros(3).expand(5, 3))


def test_a_parameter_may_have_a_leading_axis_of_size_one() -> None:
    x, y, a, p = data()
    want = Genred(SEED, ALIASES, axis=1)(x, y, a, p)
    assert_same_bits(Genred(SEED, ALIASES, axis=1)(x, y, a, p[None]), want)


def test_floats_and_large_integers_in_a_formula_are_exact_in_float64() -> None:
    x = np.array([[3.0]])
    for text, want in (("x/3", 1.0), ("0.1*x", 0.1 * 3), ("x+16777217", 16777220.0)):
        got = Genred(text, ["x = Vi(1)"], axis=1)(x)
        assert_close(got, [[want]], rtol=2.3e-16, atol=0)


def test_genred_survives_pickling() -> None:
    arrays = data()
    genred = pairfold.numpy.Genred(
        SEED, tuple(ALIASES), axis=1, sum_scheme="kahan_scheme", enable_chunks=False
    )
    again = pickle.loads(pickle.dumps(genred))
    assert type(again) is pairfold.numpy.Genred
    assert again.accuracy == genred.accuracy
    assert again.hints == genred.hints
    assert_same_bits(again(*arrays), genred(*arrays))


def test_attributes_tell_what_was_built() -> None:
    genred = Genred(SEED, ALIASES, axis=1)
    assert (genred.nargs, genred.axis, genred.reduction_op) == (4, 1, "Sum")
    assert SEED in genred.formula
    assert "Sum_j" in repr(genred)
    assert SEED in repr(genred)


def test_deprecated_arguments_are_accepted_with_a_warning() -> None:
    with pytest.warns(DeprecationWarning, match="dtype") as seen:
        pairfold.numpy.Genred(SEED, ALIASES, dtype="float32")
    assert seen[0].filename == __file__


@pytest.mark.parametrize("name", ["enable_chunks", "use_fast_math", "rec_multVar_highdim"])
def test_hints_change_nothing_and_are_pykeops_own(name: str) -> None:
    arrays = data()
    hinted = pairfold.numpy.Genred(SEED, ALIASES, axis=1, **{name: False})
    assert_same_bits(hinted(*arrays), Genred(SEED, ALIASES, axis=1)(*arrays))
    with pytest.raises(TypeError, match=name):
        Genred(SEED, ALIASES, axis=1, **{name: False})


def test_the_values_of_arrays_are_read_at_the_call() -> None:
    x, y = np.ones((3, 1)), np.ones((4, 1))
    genred = Genred("x*y", ["x = Vi(1)", "y = Vj(1)"], axis=1)
    before = genred(x, y)
    y[:] = 2
    assert_close(genred(x, y), 2 * before)


BUILDING = [
    (("Sqare(x)", ["x = Vi(3)"]), {}, UnknownNameError, "Square"),
    (("x+y", ["x = Vi(3)", "y = Vj(2)"]), {}, DimError, "dimension"),
    (("x+", ["x = Vi(3)"]), {}, FormulaError, "x+"),
    (("x", ["x = Vz(3)"]), {}, FormulaError, "Vz"),
    (("x", ["x = Vi(3)"]), {"axis": 2}, OptionError, "axis"),
    (("x", ["x = Vi(3)"]), {"reduction_op": "Summ"}, OptionError, "Sum"),
    (("x", ["x = Vi(3)"]), {"sum_scheme": "fast"}, OptionError, "kahan_scheme"),
    (("x", ["x = Vi(3)"]), {"dtype_acc": "int8"}, OptionError, "float64"),
    (("x", ["x = Vi(3)"]), {"dtype_acc": "float64", "use_double_acc": True}, OptionError, "either"),
    (("x", ["x = Vi(3)"]), {"opt_arg": 3}, OptionError, "opt_arg"),
    (("x", ["x = Vi(3)"]), {"formula2": "x"}, OptionError, "formula2"),
]


@pytest.mark.parametrize(("args", "options", "error", "words"), BUILDING)
def test_wrong_reductions_fail_where_they_are_built(
    args: Any, options: Any, error: type[Exception], words: str
) -> None:
    with pytest.raises(error) as raised:
        Genred(*args, **options)
    assert words in str(raised.value)


def _calls() -> list[Any]:
    import torch

    x, y, a, p = data()
    f32 = x.astype("float32")
    return [
        ((x, y, a), {}, ArgumentError, "4 arrays, but 3"),
        ((x[:, :2], y, a, p), {}, ShapeError, "argument 0 (x)"),
        ((x, y[:5], a, p), {}, ShapeError, "number of rows"),
        ((x[0], y, a, p), {}, ShapeError, "x[None, :]"),
        ((x, y.T, a, p), {}, ShapeError, "y.T"),
        ((x, y, np.tile(a, 3), p), {}, ShapeError, "argument 2 (a)"),
        ((np.stack([x, x]), np.stack([y, y, y]), a, p), {}, ShapeError, "broadcast"),
        ((f32, y, a, p), {}, DTypeError, "float32"),
        ((x.astype("int64"), y, a, p), {}, DTypeError, "int64"),
        ((x.astype("float16"), y, a, p), {}, DTypeError, "float16"),
        ((x.astype(">f8"), y, a, p), {}, DTypeError, "byte order"),
        ((x.tolist(), y, a, p), {}, ArrayTypeError, "list"),
        ((x, torch.tensor(y), a, p), {}, ArrayTypeError, "Tensor"),
        ((np.ma.masked_array(x, x > 0), y, a, p), {}, ArrayTypeError, "MaskedArray"),
        ((x, y, a, p), {"backend": "TPU"}, OptionError, "backend"),
        ((x, y, a, p), {"backend": "GPU"}, DeviceError, "GPU"),
        ((x, y, a, p), {"ranges": (1,) * 5}, OptionError, "six arrays"),
        ((x, y, a, p), {"device_id": "0"}, OptionError, "device_id"),
        ((x, y, a, p), {"out": np.zeros((17, 2))}, ShapeError, "out"),
        ((x, y, a, p), {"out": np.zeros((17, 3), "float32")}, DTypeError, "out"),
    ]


@pytest.mark.parametrize("case", range(20))
def test_wrong_calls_fail_before_anything_runs(case: int) -> None:
    arrays, options, error, words = _calls()[case]
    with pytest.raises(error) as raised:
        Genred(SEED, ALIASES, axis=1)(*arrays, **options)
    assert words in str(raised.value)
    good = data()
    Genred(SEED, ALIASES, axis=1)(*good)  # a sound call of the same shapes does not hide it
    with pytest.raises(error):
        Genred(SEED, ALIASES, axis=1)(*arrays, **options)


def test_a_sound_call_does_not_make_a_wrong_one_pass() -> None:
    genred = Genred(SEED, ALIASES, axis=1)
    x, y, a, p = data()
    genred(x, y, a, p)
    with pytest.raises(DTypeError):
        genred(x, y, a.astype("float32"), p)
    with pytest.raises(ArrayTypeError):
        genred(x, y, a, p.tolist())
    with pytest.raises(ArrayTypeError):
        genred(x, y, np.ma.masked_array(a), p)


def test_each_namespace_takes_its_own_arrays() -> None:
    import torch

    x, y, a, p = data()
    with pytest.raises(ArrayTypeError, match="torch"):
        pairfold.torch.Genred(SEED, ALIASES)(x, y, a, p)
    tensors = [torch.tensor(v) for v in (x, y, a, p)]
    with pytest.raises(ArrayTypeError, match="numpy"):
        pairfold.numpy.Genred(SEED, ALIASES)(*tensors)
    assert isinstance(Genred(SEED, ALIASES)(*tensors), torch.Tensor)


def test_errors_are_the_builtins_that_other_code_catches() -> None:
    for error, builtin in (
        (DimError, ValueError),
        (UnknownNameError, NameError),
        (ArrayTypeError, TypeError),
        (ShapeError, ValueError),
        (ArgumentError, ValueError),
    ):
        assert issubclass(error, builtin)
        assert issubclass(error, pairfold.PairfoldError)


def test_memory_of_a_large_sum_stays_linear() -> None:
    import tracemalloc

    rng = np.random.default_rng(0)
    x = rng.random((20_000, 3)).astype("float32")
    genred = Genred("Exp(-SqDist(x,y))", ["x = Vi(3)", "y = Vj(3)"], axis=1)
    genred(x[:10], x)
    tracemalloc.start()
    genred(x, x)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3e6


def test_arrays_of_equal_shape_and_other_strides_are_read_by_their_own() -> None:
    rng = np.random.default_rng(8)
    fold = Genred("Exp(-SqDist(x,y))*b", ["x = Vi(3)", "y = Vj(3)", "b = Vj(1)"], axis=1)
    whole = rng.normal(size=(40, 6))
    x, b = rng.normal(size=(17, 3)), rng.normal(size=(20, 1))
    views = [whole[:20, :3], whole[::2, ::2], whole[::-2, 3:], whole.T[:3, :20].T, whole[20:, 2:5]]
    for y in (*views, *(np.ascontiguousarray(view) for view in views)):
        want = np.exp(-np.square(x[:, None] - y).sum(-1)) @ b
        assert_close(fold(x, y, b), want, terms=20)
        batched = fold(np.stack([x, 2 * x]), y, b)
        assert_close(batched[0], want, terms=20)


def test_addresses_are_those_of_the_arrays() -> None:
    base = np.arange(24.0).reshape(4, 6)
    for array in (base, base[1:], base[:, ::-1], base.T, np.empty((0, 3)), base.view(np.matrix)):
        assert NumpyArrays.address(array) == array.ctypes.data
