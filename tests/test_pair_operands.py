"""Arrays with a vector for every pair as operands: against NumPy and torch on whole tables."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checks import assert_close, assert_same_bits, run_alone
from targets import NAMES, available

import pairfold
import pairfold.torch as pt
from pairfold import Genred, LazyTensor, Vi, Vij, Vj, causal, settings
from pairfold.arrays.registry import library_for
from pairfold.core.node import Axis
from pairfold.errors import (
    ArgumentError,
    ArrayTypeError,
    FormulaError,
    OptionError,
    PairfoldError,
    ShapeError,
)
from pairfold.frontends.fused import fused_pass
from pairfold.lower.kernel import PAIR

Array = Any
ALIASES = ["x = Vi(2)", "y = Vj(2)", "b = Vij({dim})"]
FORMULA = "Exp(b - SqDist(x,y))"
SIZES = [(17, 23), (1, 1), (300, 1100)]
LANES = pytest.mark.parametrize("lanes", ["row", "column"])


def points(rows: int, columns: int, dtype: str = "float64", seed: int = 0) -> list[Array]:
    """x and y, in what the dtype can hold."""
    rng = np.random.default_rng((seed, rows, columns))
    return [rng.uniform(0, 1, (n, 2)).astype(dtype) for n in (rows, columns)]


def layout(name: str, rows: int, columns: int, dim: int, dtype: str) -> Array:
    """An array (rows, columns, dim) of one layout."""
    rng = np.random.default_rng((rows, columns, dim))

    def values(*shape: int) -> Array:
        return rng.uniform(-1, 1, shape).astype(dtype)

    made: dict[str, Callable[[], Array]] = {
        "rows": lambda: values(rows, columns, dim),
        "columns": lambda: values(columns, rows, dim).swapaxes(0, 1),
        "components": lambda: values(dim, rows, columns).transpose(1, 2, 0),
        "flipped": lambda: values(dim, columns, rows).T,
        "backwards": lambda: values(rows, columns, dim)[::-1, ::-1, ::-1],
        "one row": lambda: np.broadcast_to(values(1, columns, dim), (rows, columns, dim)),
        "one column": lambda: np.broadcast_to(values(rows, 1, dim), (rows, columns, dim)),
        "one number": lambda: np.broadcast_to(values(1, 1, 1), (rows, columns, dim)),
        "apart": lambda: values(rows, 2 * columns, 3 * dim)[:, ::2, ::3][:, :columns, :dim],
        "part": lambda: values(rows + 3, columns + 5, dim + 1)[3:, 5:, 1:],
    }
    return made[name]()


LAYOUTS = ["rows", "columns", "components", "flipped", "backwards", "one row"]
LAYOUTS += ["one column", "one number", "apart", "part"]


def table(x: Array, y: Array, b: Array) -> Array:
    """The formula at every pair, in float64."""
    x, y, b = (array.astype(np.float64) for array in (x, y, b))
    squares = ((x[..., :, None, :] - y[..., None, :, :]) ** 2).sum(-1, keepdims=True)
    return np.exp(b - squares)


def reduced(name: str, values: Array, axis: int) -> Array:
    """A reduction of tables (..., M, N, D)."""
    along = axis - 3
    if name == "Sum":
        return values.sum(along)
    if name == "LogSumExp":
        return np.log(np.exp(values).sum(along))
    if name == "Min":
        return values.min(along)
    if name == "ArgMin":
        return values.argmin(along)
    assert name == "KMin"
    found = np.sort(values, along)
    return np.moveaxis(np.take(found, [0, 1], along), along, -2)


def genred(name: str = "Sum", dim: int = 1, axis: int = 1, formula: str = FORMULA) -> Any:
    aliases = [alias.format(dim=dim) for alias in ALIASES]
    return Genred(formula, aliases, name, axis=axis, opt_arg=2 if name == "KMin" else None)


# -- values ----------------------------------------------------------------------------------------


@LANES
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("name", ["Sum", "LogSumExp", "Min", "ArgMin", "KMin"])
def test_reductions_of_all_forms_read_them(name, axis, lanes):
    for (rows, columns), dim in itertools.product(SIZES, (1, 3)):
        if name == "KMin" and columns == 1:
            continue
        x, y = points(rows, columns)
        b = layout("rows", rows, columns, dim, "float64")
        with settings(lanes=lanes):
            got = genred(name, dim, axis)(x, y, b)
        want = reduced(name, table(x, y, b), axis)
        if name == "ArgMin":
            assert got.tolist() == want.tolist()
            continue
        assert_close(got.reshape(want.shape), want, terms=max(rows, columns))


@LANES
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_any_strides_and_dtypes_are_read(dtype, lanes):
    for kind, dim, axis in itertools.product(LAYOUTS, (1, 2, 11), (0, 1)):
        for rows, columns in [(17, 23), (70, 300)] if dim < 11 else [(17, 23)]:
            x, y = points(rows, columns, dtype)
            b = layout(kind, rows, columns, dim, dtype)
            before = b.copy()
            with settings(lanes=lanes):
                got = genred("Sum", dim, axis)(x, y, b)
            want = table(x, y, b).sum(axis)
            assert_close(got, want.astype(dtype), terms=columns, formula=(kind, dim, axis, rows))
            assert_same_bits(b, before)


def test_bfloat16_is_read_as_it_is_stored():
    x, y = (torch.tensor(array).bfloat16() for array in points(17, 70))
    b = torch.tensor(layout("rows", 17, 70, 1, "float64")).bfloat16()
    wide = [tensor.float().numpy() for tensor in (x, y, b)]
    got = pt.Genred(FORMULA, [a.format(dim=1) for a in ALIASES], axis=1)(x, y, b)
    assert_close(got.float().numpy(), table(*wide).sum(1), rtol=2**-7)


@LANES
def test_all_targets_compute_the_same(lanes):
    x, y = points(40, 90, "float32")
    b = layout("rows", 40, 90, 2, "float32")
    for target in filter(available, NAMES):
        with settings(lanes=lanes, target=target):
            assert_close(genred("Sum", 2)(x, y, b), table(x, y, b).sum(1), terms=90, rtol=2e-5)


@pytest.mark.parametrize("axis", [0, 1])
def test_empty_axes_have_the_empty_results(axis):
    for rows, columns in [(0, 5), (5, 0), (0, 0)]:
        x, y = points(rows, columns)
        got = genred("Sum", 2, axis)(x, y, np.ones((rows, columns, 2)))
        assert got.shape == (columns if axis == 0 else rows, 2)
        assert not got.any()


def test_a_split_axis_gives_each_part_its_columns():
    x, y = points(3, 5000)
    b = layout("rows", 3, 5000, 1, "float64")
    for lanes, splits in itertools.product(("row", "column"), (1, 4)):
        with settings(lanes=lanes, splits=splits):
            assert_close(genred()(x, y, b), table(x, y, b).sum(1), terms=5000)


def test_several_of_them_have_places_of_their_own():
    x, _ = points(70, 40)
    a, b = (layout(kind, 70, 40, dim, "float64") for kind, dim in (("rows", 3), ("columns", 2)))
    c = layout("apart", 70, 40, 1, "float64")
    given = ["x=Vi(2)", "a=Vij(3)", "b=Vij(2)", "c=Vij(1)"]
    want = ((a.sum(-1) * b[..., 1] + c[..., 0] ** 2)[..., None] * x[:, None, :]).sum(1)
    for lanes in ("row", "column"):
        with settings(lanes=lanes):
            got = Genred("(Sum(a)*Elem(b,1) + Square(c))*x", given, axis=1)(x, a, b, c)
        assert_close(got, want, terms=40)


@LANES
def test_long_outputs_read_them_component_by_component(lanes):
    x, y = points(30, 45, "float64")
    b, v = layout("rows", 30, 45, 1, "float64"), np.random.default_rng(1).random((45, 40))
    wide = layout("rows", 30, 45, 40, "float64")
    given = ["x=Vi(2)", "y=Vj(2)", "b=Vij(1)", "v=Vj(40)", "w=Vij(40)"]
    with settings(lanes=lanes):
        got = Genred("Exp(b-SqDist(x,y))*v*w", given, axis=1)(x, y, b, v, wide)
        soft = Genred("b-SqDist(x,y)", given[:4], "SumSoftMaxWeight", axis=1, formula2="v")
        assert_close(got, (table(x, y, b) * v * wide).sum(1), terms=45)
        weights = table(x, y, b) / table(x, y, b).sum(1, keepdims=True)
        assert_close(soft(x, y, b, v), (weights * v).sum(1), terms=45)


def test_a_formula_of_them_alone_takes_its_sizes_from_them():
    b = layout("rows", 7, 5, 2, "float64")
    assert_close(Genred("Square(b)", ["b=Vij(2)"], axis=1)(b), (b**2).sum(1), terms=5)
    assert_close(Genred("Square(b)", ["b=Vij(0,2)"], axis=0)(b), (b**2).sum(0), terms=7)
    assert_close(Genred("Square(Var(0,2,3))", [], axis=0)(b), (b**2).sum(0), terms=7)


@pytest.mark.parametrize("axis", [0, 1])
def test_batches_broadcast(axis):
    rng = np.random.default_rng(0)
    shapes = [((4, 6, 2), (5, 2), (3, 1, 6, 5, 1)), ((6, 2), (3, 1, 5, 2), (6, 5, 1))]
    shapes += [((6, 2), (5, 2), (2, 6, 5, 1)), ((3, 4, 6, 2), (4, 5, 2), (1, 4, 6, 5, 1))]
    for shape in shapes:
        x, y, b = (rng.random(each) for each in shape)
        want = table(x, y, b).sum(axis - 3)
        assert_close(genred("Sum", 1, axis)(x, y, b), want, terms=6)


def test_what_depends_on_masks_reads_them():
    x, y = points(20, 31)
    b = layout("rows", 20, 31, 1, "float64")
    inside = (np.arange(31) <= np.arange(20)[:, None])[..., None]
    given = [alias.format(dim=1) for alias in ALIASES]
    for lanes in ("row", "column"):
        with settings(lanes=lanes):
            got = Genred(FORMULA, given, axis=1, where="Ind(j) <= Ind(i)")(x, y, b)
            assert_close(got, (table(x, y, b) * inside).sum(1), terms=31)
            got = Genred(FORMULA, given, axis=1, where="0 < b")(x, y, b)
            assert_close(got, (table(x, y, b) * (b > 0)).sum(1), terms=31)
    got = (Vij(b) - Vi(x[:, :1])).min(axis=1, where=causal())
    assert_close(got, np.where(inside, b - x[:, None, :1], np.inf).min(1))


@LANES
def test_blocks_that_masks_skip_are_skipped(lanes):
    x, y = points(300, 1100)
    b = layout("columns", 300, 1100, 2, "float64")
    inside = (np.arange(1100) <= np.arange(300)[:, None])[..., None]
    given = [alias.format(dim=2) for alias in ALIASES]
    for where, kept in (
        ("Ind(j) <= Ind(i)", inside),
        ("(Ind(j) <= Ind(i))*(Elem(b,1) < 0)", inside & (b[..., 1:] < 0)),
    ):
        fold = Genred(FORMULA, given, axis=1, where=where)
        for blocks in ("auto", "test"):
            with settings(lanes=lanes, blocks=blocks):
                assert_close(fold(x, y, b), (table(x, y, b) * kept).sum(1), terms=1100)


def test_ranges_read_them_at_the_numbers_of_rows_and_columns():
    rows, columns = 40, 90
    x, y = points(rows, columns)
    b = layout("columns", rows, columns, 2, "float64")
    blocks_i, blocks_j = np.array([[3, 17], [20, 40]]), np.array([[5, 30], [41, 90]])
    ranges = (
        *(blocks_i, np.array([1, 3]), np.array([[5, 30], [5, 30], [41, 90]])),
        *(blocks_j, np.array([2, 3]), np.array([[3, 17], [20, 40], [20, 40]])),
    )
    inside = np.zeros((rows, columns, 1))
    inside[3:17, 5:30] = inside[20:, 5:30] = inside[20:, 41:] = 1
    for axis, lanes in itertools.product((0, 1), ("row", "column")):
        with settings(lanes=lanes):
            got = genred("Sum", 2, axis)(x, y, b, ranges=ranges)
        assert_close(got, (table(x, y, b) * inside).sum(axis), terms=columns)
    given = [torch.tensor(array, requires_grad=True) for array in (x, y, np.ascontiguousarray(b))]
    slopes = torch.autograd.grad(genred("Sum", 2)(*given, ranges=ranges).sum(), given)
    assert_close(slopes[2].numpy(), table(x, y, b) * inside)


def test_nothing_outside_of_them_is_read():
    assert run_alone(str(Path(__file__).with_name("attack_pairs.py")), calls=40, seed=0) == 0


# -- derivatives -----------------------------------------------------------------------------------


def torch_table(x: Array, y: Array, b: Array) -> Array:
    squares = ((x[..., :, None, :] - y[..., None, :, :]) ** 2).sum(-1, keepdim=True)
    return torch.exp(b - squares)


def torch_reduced(name: str, values: Array, axis: int) -> Array:
    along = axis - 3
    if name == "LogSumExp":
        return torch.logsumexp(values, along)
    if name == "Min":
        return values.min(along).values
    if name == "KMin":
        return values.topk(2, along, largest=False).values.movedim(along, -2)
    return values.mean(along) if name == "Mean" else values.sum(along)


def tensors(rows: int, columns: int, dim: int, *batch: int) -> list[Any]:
    source = torch.Generator().manual_seed(rows)
    shapes = [(rows, 2), (columns, 2), (*batch, rows, columns, dim)]
    return [
        torch.rand(s, generator=source, dtype=torch.float64, requires_grad=True) for s in shapes
    ]


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("name", ["Sum", "Mean", "LogSumExp", "Min", "KMin"])
def test_derivatives_of_first_and_second_order(name, axis):
    given, fold = tensors(6, 5, 2), genred(name, 2, axis, "Exp(b - SqDist(x,y))*b")

    def dense(*arrays: Any) -> Any:
        return torch_reduced(name, torch_table(*arrays) * arrays[2], axis)

    orders = []
    for function in (fold, dense):
        result = function(*given)
        weights = torch.sin(torch.arange(result.numel(), dtype=torch.float64) + 1)
        value = (result * weights.reshape(result.shape)).sum()
        first = torch.autograd.grad(value, given, create_graph=True)
        assert [slope.shape for slope in first] == [x.shape for x in given]
        second = torch.autograd.grad(sum(slope.pow(2).sum() for slope in first), given)
        orders.append((result, *first, *second))
    for got, want in zip(*orders, strict=True):
        assert_close(got.detach().numpy(), want.detach().numpy(), terms=30, scale=10)
    along = tuple(torch.cos(x.detach()) for x in given)
    (_, got), (_, want) = (torch.func.jvp(f, tuple(given), along) for f in (fold, dense))
    assert_close(got.detach().numpy(), want.detach().numpy(), terms=30)


def test_gradients_pass_torch_s_own_check():
    given = tensors(3, 4, 1)
    assert torch.autograd.gradcheck(genred("LogSumExp"), given)
    assert torch.autograd.gradgradcheck(genred("Sum"), given)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 1), (2, 3)])
def test_gradients_are_sums_over_the_batches_that_share_them(shape, axis):
    """What is summed over is not written first: each batch element is one more column."""
    _, y, b = tensors(6, 5, 1, *shape)
    source = torch.Generator().manual_seed(1)
    shapes = [(2, 3, 6, 2), (2, 1, 6, 5, 1)] if len(shape) == 2 else [(3, 6, 2), (3, 6, 5, 1)]
    x, c = (
        torch.rand(each, generator=source, dtype=torch.float64, requires_grad=True)
        for each in shapes
    )
    given = [x, y, b, c]
    fold = Genred(
        "Exp(b - SqDist(x,y))*c*(1 + Ind(i))",
        ["x = Vi(2)", "y = Vj(2)", "b = Vij(1)", "c = Vij(1)"],
        "LogSumExp",
        axis=axis,
    )

    def dense(x: Any, y: Any, b: Any, c: Any) -> Any:
        rows = 1 + torch.arange(6, dtype=torch.float64)[:, None, None]
        return torch.logsumexp(torch_table(x, y, b) * c * rows, axis - 3)

    found = []
    for function in (fold, dense):
        first = torch.autograd.grad(function(*given).sin().sum(), given, create_graph=True)
        assert [slope.shape for slope in first] == [array.shape for array in given]
        second = torch.autograd.grad(sum(slope.pow(2).sum() for slope in first), given)
        found.append((*first, *second))
    for got, want in zip(*found, strict=True):
        scale = 100 * max(1.0, float(want.detach().abs().max()))
        assert_close(got.detach().numpy(), want.detach().numpy(), terms=30, scale=scale)


def test_vmap_and_its_gradients():
    x, y, b = tensors(6, 5, 1, 4)
    fold = genred()
    got = torch.func.vmap(torch.func.grad(lambda c: fold(x, y, c).sin().sum()))(b.detach())
    want = torch.func.grad(lambda c: torch_table(x, y, c).sum(-2).sin().sum())(b.detach())
    assert_close(got.detach().numpy(), want.detach().numpy(), terms=6)


def test_gradients_of_masked_reductions_are_zero_where_the_mask_is():
    x, y, b = tensors(9, 7, 1)
    inside = (torch.arange(7) <= torch.arange(9)[:, None])[..., None]
    given = [alias.format(dim=1) for alias in ALIASES]
    fold = Genred(FORMULA + "*Ind(i)", given, "LogSumExp", axis=1, where="Ind(j) <= Ind(i)")
    (got,) = torch.autograd.grad(fold(x, y, b).sin().sum(), b)
    values = torch_table(x, y, b) * torch.arange(9.0)[:, None, None]
    dense = torch.logsumexp(torch.where(inside, values, -torch.inf), 1)
    (want,) = torch.autograd.grad(dense.sin().sum(), b)
    assert_close(got.numpy(), want.numpy(), terms=7)
    assert not got[~inside].any()


def test_gradients_in_half_precision_are_rounded_once():
    given = [x.detach().half().requires_grad_() for x in tensors(17, 40, 1)]
    slopes = torch.autograd.grad(genred()(*given).sum(), given)
    wide = [x.detach().double().requires_grad_() for x in given]
    want = torch.autograd.grad(torch_table(*wide).sum(), wide)
    for slope, x in zip(slopes, want, strict=True):
        assert slope.dtype == torch.float16
        assert_close(slope.double().numpy(), x.numpy(), rtol=2e-3, scale=10)


# -- lazy tensors ----------------------------------------------------------------------------------


def lazy(library: str) -> tuple[Any, ...]:
    """x, y, a bias (M, N) and vectors (M, N, 2), and the arrays of NumPy that they are."""
    x, y = points(7, 5)
    arrays = [x, y, layout("rows", 7, 5, 1, "float64")[..., 0], layout("rows", 7, 5, 2, "float64")]
    given = arrays if library == "numpy" else [torch.tensor(array) for array in arrays]
    return (*given, *arrays)


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_lazy_tensors_take_arrays_of_pairs(library):
    x, y, bias, b, *arrays = lazy(library)
    squares = ((arrays[0][:, None] - arrays[1][None]) ** 2).sum(-1)
    K = -((Vi(x) - Vj(y)) ** 2).sum(-1)
    vectors = LazyTensor(b)
    assert vectors.shape == (7, 5, 2)
    assert Vij(bias).shape == (7, 5)
    for found in (K + bias, bias + K if library == "torch" else Vij(bias) + K, K - (-bias)):
        assert_close(np.asarray(found.sum(axis=1)), (arrays[2] - squares).sum(1)[:, None], terms=5)
        assert_close(found.toarray(), arrays[2] - squares)
        assert_close(found.T.toarray(), (arrays[2] - squares).T)
        assert_close(found.T.T.toarray(), arrays[2] - squares)
        assert_close(np.asarray(found[2:6, :].sum(axis=0)).ravel(), found.toarray()[2:6].sum(0))
        assert_close(found[:, [0, 3, 3]].toarray(), found.toarray()[:, [0, 3, 3]])
        assert_close(np.asarray(found @ y), (arrays[2] - squares) @ arrays[1], terms=5)
        assert_close(np.asarray(found[:5, :].diag()), np.diag(found.toarray()))
    want = np.exp(-squares)[..., None] * arrays[3]
    assert_close((K.exp() * vectors).toarray(), want)
    assert_close(np.asarray((K.exp() * vectors).sum(axis=0)), want.sum(0), terms=7)


def test_lazy_gradients_reach_a_bias():
    x, y, bias, _, *_ = lazy("torch")
    bias.requires_grad_()
    K = -((Vi(x) - Vj(y)) ** 2).sum(-1) + bias
    weights = torch.softmax(-((x[:, None] - y[None]) ** 2).sum(-1) + bias, 1)
    for got, want in (
        (K.sumsoftmaxweight(Vj(y), axis=1), weights @ y),
        (K.dense(), -((x[:, None] - y[None]) ** 2).sum(-1) + bias),
    ):
        slopes = [
            torch.autograd.grad(f.sin().sum(), bias, retain_graph=True)[0] for f in (got, want)
        ]
        assert_close(slopes[0].numpy(), slopes[1].numpy(), terms=7)


@pytest.mark.parametrize("preconditioner", [None, "pivoted-cholesky", "nystrom"])
def test_systems_with_them_are_solved(preconditioner):
    source = torch.Generator().manual_seed(0)
    x, a = (torch.rand((20, n), generator=source, dtype=torch.float64) for n in (2, 20))
    b = (a @ a.T / 20).requires_grad_()
    right = torch.rand((20, 1), generator=source, dtype=torch.float64)
    K = (-((Vi(x) - Vj(x)) ** 2).sum(-1)).exp() + b
    dense = torch.exp(-((x[:, None] - x[None]) ** 2).sum(-1)) + b
    found = []
    for solution in (
        K.solve(right, alpha=0.1, eps=1e-12, preconditioner=preconditioner),
        torch.linalg.solve(dense + 0.1 * torch.eye(20, dtype=torch.float64), right),
    ):
        found.append((solution, *torch.autograd.grad(solution.sin().sum(), b)))
    for got, want in zip(*found, strict=True):
        assert_close(got.detach().numpy(), want.detach().numpy(), rtol=1e-7, scale=10)


def test_traced_programs_read_them():
    _, y, bias, _, *_ = lazy("torch")
    bias.requires_grad_()
    fold = pt.Genred("Sum(y)*b", ["y = Vj(2)", "b = Vij(1)"], axis=1)

    def program(y: Any, bias: Any) -> Any:
        rows = fold(y, bias[:, :1, None])
        return (Vij(bias) - (Vj(y) ** 2).sum(-1) + bias[..., None]).logsumexp(axis=1) + rows

    found = []
    for function in (program, torch.compile(program, backend="aot_eager", fullgraph=True)):
        result = function(y, bias)
        found.append((result, *torch.autograd.grad(result.sin().sum(), bias)))
    for got, want in zip(*found, strict=True):
        assert_close(got.detach().numpy(), want.detach().numpy(), terms=5)


def test_symbols_stand_for_arrays_of_pairs():
    _, y, _, b, *_ = lazy("numpy")
    waiting = (Vij(0, 2) * Vj(1, 2)).sum(axis=1, call=False)
    assert_close(waiting(b, y), (b * y).sum(1), terms=5)
    with pytest.raises(ArgumentError, match=r"array 0 of shape \(\.\.\., M, N, 2\)"):
        waiting(b)


def test_complex_arrays_of_pairs():
    rng = np.random.default_rng(0)
    z, w = rng.random((7, 5)) + 1j * rng.random((7, 5)), rng.random((5, 1)) + 2j
    assert_close(np.abs((Vij(z) * Vj(w)).sum(axis=1)[:, 0] - z @ w[:, 0]), np.zeros(7))


def test_copies_keep_them():
    import copy
    import pickle

    x, y, bias, _, *_ = lazy("numpy")
    K = -((Vi(x) - Vj(y)) ** 2).sum(-1) + bias
    for same in (copy.deepcopy(K), pickle.loads(pickle.dumps(K))):
        assert_same_bits(same.sum(axis=1), K.sum(axis=1))
    fold = genred("LogSumExp", 2)
    b = layout("rows", 7, 5, 2, "float64")
    assert_same_bits(pickle.loads(pickle.dumps(fold))(x, y, b), fold(x, y, b))


def test_several_reductions_in_one_call():
    x, y, bias, *_ = lazy("torch")
    bias.requires_grad_()
    K = -((Vi(x) - Vj(y)) ** 2).sum(-1) + bias
    waiting = K.sum(axis=1, call=False), K.sum(axis=0, call=False), K.min(axis=1, call=False)
    found = pairfold.together(*waiting)
    alone = K.sum(axis=1), K.sum(axis=0), K.min(axis=1)
    for got, want in zip(found, alone, strict=True):
        assert_close(got.detach().numpy(), want.detach().numpy())
    slopes = [torch.autograd.grad(sum(f.sin().sum() for f in fs), bias)[0] for fs in (found, alone)]
    assert_close(slopes[0].numpy(), slopes[1].numpy(), terms=5)


# -- other backends --------------------------------------------------------------------------------


@pytest.mark.parametrize("axis", [0, 1])
def test_the_interpreter_agrees(axis):
    x, y = points(9, 7)
    b = layout("apart", 9, 7, 2, "float64")
    with settings(backend="reference"):
        got = genred("LogSumExp", 2, axis)(x, y, b)
    assert_close(got, reduced("LogSumExp", table(x, y, b), axis), terms=9)
    with settings(check=2):
        assert_close(genred("LogSumExp", 2, axis)(x, y, b), got, terms=9)


@pytest.mark.usefixtures("interpreter")
@pytest.mark.parametrize("axis", [0, 1])
def test_programs_for_gpus(axis):
    rng = np.random.default_rng(0)
    given = [alias.format(dim=1) for alias in ALIASES] + ["v = Vj(20)"]
    for shape, kind, dim in [((), "columns", 1), ((2,), "rows", 3)]:
        x, y = (rng.random((*shape, n, 2)) for n in (19, 35))
        b = np.stack([layout(kind, 19, 35, dim, "float64")] * 2) if shape else None
        b = layout(kind, 19, 35, dim, "float64") if b is None else b
        for name in ("Sum", "LogSumExp", "ArgMin"):
            with settings(tile="16x16x1"):
                got = genred(name, dim, axis)(x, y, b, backend="GPU")
            want = reduced(name, table(x, y, b), axis)
            assert_close(got.astype(float), want.astype(float), terms=35)
    v = rng.random((35, 20))
    with settings(tile="16x16x1", splits=2 if axis else 0):
        got = Genred("b*v", given[2:], axis=1)(
            layout("rows", 19, 35, 1, "float64"), v, backend="GPU"
        )
    assert_close(got, layout("rows", 19, 35, 1, "float64")[..., 0] @ v, terms=35)


def test_jax_calls_and_differentiates():
    jax = pytest.importorskip("jax")
    import jax.numpy as jnp

    from pairfold.jax import Genred as JaxGenred

    x, y = points(7, 5, "float32")
    b = layout("rows", 7, 5, 1, "float32")
    fold = JaxGenred(FORMULA, [alias.format(dim=1) for alias in ALIASES], axis=1)

    def dense(x: Any, y: Any, b: Any) -> Any:
        squares = ((x[:, None, :] - y[None]) ** 2).sum(-1, keepdims=True)
        return jnp.exp(b - squares).sum(1)

    assert_close(np.asarray(jax.jit(fold)(x, y, b)), table(x, y, b).sum(1), terms=5)
    for order in (1, 2):
        slopes = []
        for function in (fold, dense):

            def value(*arrays: Any, function: Any = function) -> Any:
                return jnp.sin(function(*arrays)).sum()

            if order == 2:
                value = lambda *a, f=value: sum(  # noqa: E731
                    (s**2).sum() for s in jax.grad(f, (0, 1, 2))(*a)
                )
            slopes.append(jax.jit(jax.grad(value, (0, 1, 2)))(x, y, b))
        for got, want in zip(*slopes, strict=True):
            assert_close(np.asarray(got), np.asarray(want), terms=35, scale=10)


# -- kernels, messages -----------------------------------------------------------------------------


def test_kernels_hold_them_at_the_stage_of_pairs():
    fold = genred("Sum", 3)._fold
    kernel = fold.kernel()
    (argument,) = [a for a in kernel.arguments if a.stage == PAIR]
    assert (argument.position, argument.dim) == (2, 3)
    assert fold.variables[2].variable.kind == Axis.PAIR
    assert fold.variables[2].kinds == 0b11
    explained = str(genred("Sum", 3).explain())
    assert "pair   b[3]" in explained


def test_bounds_of_distances_do_not_decide_about_them():
    fold = Genred("SqDist(x,y)+b", ["x=Vi(20)", "y=Vj(20)", "b=Vij(1)"], "KMin", axis=1, opt_arg=3)
    rng = np.random.default_rng(0)
    p, q, b = rng.random((40, 20)), rng.random((90, 20)), rng.random((40, 90, 1))
    with settings(screen="always"):
        got = fold(p, q, b)
    want = np.sort(((p[:, None] - q[None]) ** 2).sum(-1) + b[..., 0], 1)[:, :3]
    assert_close(got.reshape(want.shape), want, terms=20)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_passes_that_keep_rows_and_columns_read_them(dtype):
    for rows, columns, dim in [(300, 1100, 1), (37, 21, 3), (1100, 40, 2)]:
        given = [x.detach().to(dtype).requires_grad_() for x in tensors(rows, columns, dim)]
        fold = genred("Sum", dim)
        arrays = [*(x.detach() for x in given), torch.ones((rows, dim), dtype=dtype)]
        assert fused_pass(fold._fold, [0, 1], library_for(arrays[0]), arrays) is not None
        slopes = torch.autograd.grad(fold(*given).sin().sum(), given)
        wide = [x.detach().double().requires_grad_() for x in given]
        wanted = torch.autograd.grad(torch_table(*wide).sum(-2).sin().sum(), wide)
        for got, want in zip(slopes, wanted, strict=True):
            scale = float(want.abs().max()) * 10
            assert_close(
                got.numpy(), want.numpy().astype(got.numpy().dtype), terms=columns, scale=scale
            )
    with settings(fused="separate"):
        alone = torch.autograd.grad(fold(*given).sin().sum(), given)
    for got, want in zip(slopes, alone, strict=True):
        assert_close(got.numpy(), want.numpy(), terms=columns, scale=100)


def refused(call: Callable[[], Any], kind: type[PairfoldError]) -> str:
    with pytest.raises(kind) as caught:
        call()
    return str(caught.value)


def test_wrong_sizes_say_what_where_and_what_to_try():
    x, y = points(7, 5)
    b = np.ones((7, 5, 1))
    said = refused(lambda: genred()(x, y, b.swapaxes(0, 1)), ShapeError)
    assert "argument 2 (b) has 5 (shape (5, 7, 1)), argument 0 (x) has 7" in said
    assert "b.swapaxes(-3, -2)" in said
    said = refused(lambda: genred()(x, y, np.ones((7, 5, 2))), ShapeError)
    assert "argument 2 (b) must have shape (..., M, N, 1)" in said
    assert "found: shape (7, 5, 2)" in said
    said = refused(lambda: genred()(x, y, np.ones(7)), ShapeError)
    assert "(..., M, N, 1)" in said
    # Without its last axis it is complete.
    assert_same_bits(genred()(x, y, b[..., 0]), genred()(x, y, b))


def test_wrong_declarations_are_refused():
    assert "Vij takes a dimension" in refused(lambda: Genred("b", ["b = Vij(1,2,3)"]), FormulaError)
    assert "(i, j)" in refused(lambda: Genred("b", ["b = Var(0,1,4)"]), FormulaError)
    assert "and 3 (by both)" in refused(lambda: Genred("Var(0,1,4)", []), FormulaError)
    assert "(..., M, N, D)" in refused(lambda: Vij(np.ones(3)), ShapeError)
    refused(lambda: Vij("x"), ArrayTypeError)
    refused(lambda: Vij(0, 0), ArgumentError)
    refused(lambda: (Vij(0, 1) + Vi(np.ones((3, 1)))).T, ArgumentError)


def test_lazy_arrays_that_do_not_fit_are_refused():
    x, y = points(7, 5)
    K = ((Vi(x) - Vj(y)) ** 2).sum(-1)
    said = refused(lambda: K + np.ones((7, 6)), OptionError)
    assert "Vij(x), if they are i and j" in said
    said = refused(lambda: K + np.ones((3, 7, 5)), ShapeError)
    assert "b[..., None], if its last two axes are i and j" in said
    assert_close(
        (K + np.ones((3, 7, 5))[..., None]).sum(axis=2), (K + 1.0).sum(axis=1) + np.zeros((3, 1, 1))
    )


if sys.platform == "win32":
    del test_nothing_outside_of_them_is_read  # pages there are protected in another way
