"""Whole reductions as Triton programs, in Triton's interpreter.

Random formulas, dimensions, refused data, ranges, gradients, symbolic tensors, systems.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.special
import test_ranges
import test_reductions_torch as derivatives
import torch
from checks import assert_close
from products import every_pair, some
from test_backends import run_random

import pairfold.torch
from pairfold.arrays.torch_device import TorchDevice
from pairfold.frontends.devices import OnGpu
from pairfold.numpy import Genred, KernelSolve, LazyTensor, Vi, Vj
from pairfold.settings import settings

pytestmark = pytest.mark.usefixtures("on_gpu")
Array = Any

# ----- random formulas ----------------------------------------------------------------------------


def as_program(fold: Any, adapter: Any, arrays: Any) -> Any:
    """A fold of NumPy arrays by its Triton program."""
    tile = ("16x16x1", "16x32x1", "32x16x1", "8x64x1")[len(str(fold.formula)) % 4]
    with settings(tile=tile):
        return fold(OnGpu(adapter, TorchDevice(torch.device("cpu"))), arrays)


def run_random_as_program(seed: int) -> None:
    """`run_random` of test_backends, with tiles in the place of vectors."""
    run_random(seed, as_program)


@some("seed", range(25), lambda seed: seed % 3 == 0)
def test_random_formulas_equal_reference_and_oracle(seed: int) -> None:
    run_random_as_program(seed)


# ----- dimensions ---------------------------------------------------------------------------------


def points(rows: int, columns: int, dim: int, wide: int, dtype: str) -> list[Array]:
    """x, y, b of moderate size: distances are about 1 whatever the dimension."""
    rng = np.random.default_rng(dim + wide)
    x, y = (rng.uniform(-1, 1, (n, dim)) / dim**0.5 for n in (rows, columns))
    return [v.astype(dtype) for v in (x, y, rng.uniform(-1, 1, (columns, wide)))]


def squares(x: Array, y: Array) -> Array:
    """Squared distances of all pairs."""
    return ((x[:, None] - y[None]) ** 2).sum(-1)


DENSE: dict[str, Any] = {
    "Exp(-SqDist(x,y))*b": lambda x, y, b: np.exp(-squares(x, y)) @ b,
    "(x|y)*b": lambda x, y, b: (x @ y.T) @ b,
    "Exp(x|y)*(x-y)": lambda x, y, b: (np.exp(x @ y.T)[..., None] * (x[:, None] - y)).sum(1),
    "Sqrt(SqDist(x,y)+b*b)": lambda x, y, b: np.sqrt(squares(x, y)[..., None] + b * b).sum(1),
}


SHAPES = [
    (1, 1, "float32", "16x16x1", 2),
    (3, 17, "float64", "8x16x1", 1),
    (16, 3, "float32", "16x32x1", 1),
    (17, 40, "float32", "32x16x1", 2),
    (17, 17, "float64", "16x16x1", 2),
    (40, 130, "float32", "16x16x1", 1),
    (100, 1, "float32", "16x16x1", 2),
    (100, 33, "float64", "32x32x1", 1),
]


@some(
    "dim,wide,dtype,tile,splits,formula",
    [(*shape, formula) for shape in SHAPES for formula in DENSE],
    lambda entry: (SHAPES.index(entry[:5]) // 2 + list(DENSE).index(entry[5])) % 2 == 0,
)
def test_points_and_outputs_of_any_dimension(
    dim: int, wide: int, dtype: str, tile: str, splits: int, formula: str
) -> None:
    slow = dim * wide > 400 and "Sqrt" in formula
    given = points(5 if slow else 17, 19 if slow else 37, dim, wide, dtype)
    aliases = [f"x = Vi({dim})", f"y = Vj({dim})", f"b = Vj({wide})"]
    want = DENSE[formula](*(v.astype("float64") for v in given))
    count = 3 if "b" in formula else 2
    with settings(tile=tile, splits=splits):
        got = Genred(formula, aliases[:count], axis=1)(*given[:count])
    assert_close(got, want, terms=37, formula=formula)


@every_pair(
    ("name", ["LogSumExp", "SumSoftMaxWeight", "Max_SumShiftExpWeight"]),
    ("dtype", ["float32", "float64", "float16"]),
    ("dim,wide,splits", [(3, 40, 1), (20, 130, 2), (3, 5, 2)]),
)
def test_weighted_exponentials_of_long_outputs(
    name: str, dtype: str, dim: int, wide: int, splits: int
) -> None:
    x, y, b = points(17, 37, dim, wide, dtype)
    b = np.abs(b) + b.dtype.type(0.5)
    x *= b.dtype.type(5)
    aliases = [f"x = Vi({dim})", f"y = Vj({dim})", f"b = Vj({wide})"]
    with settings(tile="16x16x1", splits=splits):
        got = Genred("20*(x|y)", aliases, name, axis=1, formula2="b")(x, y, b)
    f = 20 * (x.astype("float64") @ y.astype("float64").T)
    terms = b.astype("float64")
    if name == "LogSumExp":
        want = scipy.special.logsumexp(f[..., None], axis=1, b=terms[None])
    elif name == "SumSoftMaxWeight":
        want = scipy.special.softmax(f, axis=1) @ terms
    else:
        top = f.max(1, keepdims=True)
        want = np.concatenate([top, np.exp(f - top) @ terms], 1)
    assert_close(got, want, terms=37, formula=name)


@pytest.mark.parametrize(
    ("dot", "rtol"), [("ieee", 1e-5), ("tf32x3", 1e-4), ("tf32", 1e-2), ("bf16", 3e-2)]
)
def test_products_of_matrices_may_be_less_exact_where_asked(dot: str, rtol: float) -> None:
    for dtype in ("float32", "float16"):
        x, y, b = points(17, 37, 40, 40, dtype)
        aliases = ["x = Vi(40)", "y = Vj(40)", "b = Vj(40)"]
        with settings(tile="16x16x1", dot=dot):
            got = Genred("Exp(x|y)*b", aliases, axis=1)(x, y, b)
        x, y, b = (v.astype("float64") for v in (x, y, b))
        assert_close(got, np.exp(x @ y.T) @ b, rtol=max(rtol, 3e-3 * (dtype == "float16")))


def test_distances_of_near_points_are_as_exact_as_those_of_far_ones() -> None:
    """Products of components would round off what is small beside the points' norms."""
    rng = np.random.default_rng(0)
    x, y = (rng.normal(size=(n, 17)).astype("float32") for n in (17, 23))
    x[::2] += 100
    y[::2] += 100
    with settings(tile="16x16x1"):
        got = Genred("SqDist(x,y)", ["x = Vi(17)", "y = Vj(17)"], "Min", axis=1)(x, y)
    want = squares(x.astype("float64"), y.astype("float64")).min(1, keepdims=True)
    assert_close(got, want, rtol=1e-5)


def test_weights_beyond_the_last_column_may_be_infinite() -> None:
    """Absent columns are read as 0, where a point of the rows is too."""
    x, y, b = points(17, 23, 3, 40, "float32")
    x[4], y = 0, y + np.float32(2)
    aliases = ["x = Vi(3)", "y = Vj(3)", "b = Vj(40)"]
    with settings(tile="16x16x1"):
        got = Genred("Inv(SqDist(x,y))*b", aliases, axis=1)(x, y, b)
    assert_close(got, (1 / squares(x, y)) @ b, terms=23)


@pytest.mark.parametrize("rules", ["all", "exact"])
def test_infinite_factors_and_huge_exponents(rules: str) -> None:
    """A program that makes assumptions bails out of such data, and the plain one follows."""
    x = np.array([[np.inf], [1e30], [-300.0], [0.0], [np.nan], [2.0]])
    y = np.concatenate([np.linspace(-2, 2, 36), [300.0]])[:, None]
    aliases = ["x = Vi(1)", "y = Vj(1)", "p = Pm(1)"]
    with np.errstate(all="ignore"), settings(tile="8x16x1", rules=rules):
        for splits in (1, 2):
            for formula, table in (
                ("x*y", x * y.T),
                ("Exp(x+y)", np.exp(x + y.T)),
                ("p*Exp(y-x)*x", np.exp(y.T - x) * x),
                ("y/x", y.T / x),
                ("Sin(y)/(x*0)", np.sin(y.T) / (x * 0)),
            ):
                given = (x, y, np.ones(1))[: 3 if "p*" in formula else 2]
                with settings(splits=splits):
                    got = Genred(formula, aliases[: len(given)], axis=1)(*given)
                for one, other in zip(got, table.sum(1, keepdims=True), strict=True):
                    assert_close(one, other, terms=37, formula=(formula, other))


# ----- ranges -------------------------------------------------------------------------------------


@some(
    "name,weighted,axis,dtype,dim",
    [
        (*entry, *how)
        for entry in test_ranges.plain.CASES
        for how in ((1, "float32", 3), (0, "float64", 20))
    ],
    lambda entry: test_ranges.plain.CASES.index(entry[:2]) % 2 == entry[2],
)
def test_ranges_equal_numpy_on_the_pairs_that_are_left(
    name: str, weighted: bool, axis: int, dtype: str, dim: int
) -> None:
    with settings(tile="8x16x1" if dim == 3 else "16x16x1"):
        batch = ((2, 1), (3,), (1, 1), (), (2, 3)) if name == "Mean" and dim == 3 else ((),) * 5
        sizes = (23, 31) if dim == 3 else (3, 9)
        test_ranges.check_masked(name, weighted, dim, sizes, axis, dtype, batch)


# ----- torch, symbolic tensors, systems -----------------------------------------------------------

DIFFERENTIATED = [
    ("Sum", False, 0, "broadcast", 1),
    ("Sum", False, 0, "broadcast", 2),
    ("Sum", False, 1, "plain", 2),
    ("SumSoftMaxWeight", True, 1, "plain", 2),
    ("SumSoftMaxWeight", True, 1, "plain", 1),
    ("Min_ArgMin", False, 1, "plain", 2),
    ("KMin", False, 1, "plain", 2),
    ("Prod", False, 0, "plain", 2),
    ("Prod", False, 0, "plain", 1),
]


@some(
    "name,weighted,axis,batch,orders",
    DIFFERENTIATED,
    lambda entry: DIFFERENTIATED.index(entry) % 2 == 0,
)
def test_first_and_second_derivatives_are_those_of_dense_torch(
    name: str, weighted: bool, axis: int, batch: str, orders: int
) -> None:
    with settings(tile="4x8x1"):
        derivatives.compare_derivatives(name, weighted, batch, axis, orders)


def test_symbolic_tensors_are_computed_there() -> None:
    x, y, b = points(17, 23, 3, 2, "float64")
    table = np.exp(-squares(x, y))
    with settings(tile="16x16x1"):
        kernel = (-((LazyTensor(x[:, None]) - LazyTensor(y[None])) ** 2).sum(-1)).exp()
        got = kernel.sum(1, backend="GPU")
        assert_close(got, table.sum(1, keepdims=True), terms=23)
        symbols = (-(Vi(0, 3).sqdist(Vj(1, 3)))).exp() * Vj(2, 2)
        assert_close(symbols.sum_reduction(axis=1)(x, y, b, backend="GPU"), table @ b, terms=23)
        waves = (1j * LazyTensor(x[:, None]) * LazyTensor(y[None])).exp()
        want = np.exp(1j * x[:, None] * y[None]).sum(1)
        got = waves.sum(1, backend="GPU")
        assert_close(got.real, want.real, terms=23)
        assert_close(got.imag, want.imag, terms=23)


def test_systems_are_solved_there() -> None:
    x, _, b = points(17, 17, 3, 2, "float64")
    aliases = ["x = Vi(3)", "y = Vj(3)", "b = Vj(2)"]
    solve = KernelSolve("Exp(-SqDist(x,y))*b", aliases, "b", axis=1)
    with settings(tile="32x16x1"):
        got = solve(x, x, b, alpha=0.5, tol=1e-10, backend="GPU")
    want = np.linalg.solve(np.exp(-squares(x, x)) + 0.5 * np.eye(17), b)
    assert_close(got, want, rtol=1e-7)


def test_gradients_of_systems_are_computed_there() -> None:
    """Of arrays of the host; one product that were not computed there would be an error."""
    x, _, b = (torch.from_numpy(a).requires_grad_() for a in points(17, 17, 3, 2, "float64"))
    aliases = ["x = Vi(3)", "y = Vj(3)", "b = Vj(2)"]
    solve = pairfold.torch.KernelSolve("Exp(-SqDist(x,y))*b", aliases, "b", axis=1)
    with settings(tile="32x16x1", backend="triton"):
        got = torch.autograd.grad(solve(x, x, b, alpha=0.5, tol=1e-10).sin().sum(), (x, b))
    distances = ((x[:, None] - x[None]) ** 2).sum(-1)
    dense = torch.exp(-distances) + 0.5 * torch.eye(17, dtype=x.dtype)
    want = torch.autograd.grad(torch.linalg.solve(dense, b).sin().sum(), (x, b))
    for one, other in zip(got, want, strict=True):
        assert_close(one.numpy(), other.numpy(), rtol=1e-7)


def test_bfloat16_is_read_and_written_as_stored() -> None:
    x, y, b = (torch.as_tensor(v) for v in points(17, 23, 20, 40, "float32"))
    aliases = ["x = Vi(20)", "y = Vj(20)", "b = Vj(40)"]
    given = [v.to(torch.bfloat16) for v in (x, y, b)]
    x, y, b = (v.to(torch.float64).numpy() for v in given)
    with settings(tile="16x16x1"):
        for formula, want in (
            ("Exp(x|y)*b", np.exp(x @ y.T) @ b),
            ("Exp(-SqDist(x,y))*b", np.exp(-squares(x, y)) @ b),
        ):
            got = pairfold.torch.Genred(formula, aliases, axis=1)(*given)
            assert got.dtype == torch.bfloat16
            assert_close(got.float().numpy(), want, rtol=2.0**-7, formula=formula)
