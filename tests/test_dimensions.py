"""Points and outputs of many dimensions: loops over components, products, packing of long rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from checks import assert_close, assert_same_bits
from targets import crossed
from test_backends import views
from test_reductions import check, oracle

from pairfold.core.node import Axis
from pairfold.frontends.parse import parse
from pairfold.frontends.reduction import FormulaReduction
from pairfold.lower.schedule import frontier
from pairfold.numpy import Genred
from pairfold.ops.reductions import REDUCTIONS
from pairfold.settings import settings

SIZES = ((1, 1), (17, 23), (100, 37), (65, 131))


def points(dim: int, *counts: int, dtype: str = "float64") -> list[Any]:
    """Arrays of points at distances of about one, whatever the dimension."""
    rng = np.random.default_rng([dim, *counts])
    return [(rng.uniform(-1, 1, (n, dim)) / dim**0.5).astype(dtype) for n in counts]


def gaussian(x: Any, y: Any) -> Any:
    """exp(-|x_i - y_j|^2) in float64."""
    x, y = np.asarray(x, "float64"), np.asarray(y, "float64")
    return np.exp(-((x[:, None] - y) ** 2).sum(-1))


def fold(formula: str, *aliases: str, axis: int = 1, **options: Any) -> Genred:
    """A reduction of a formula."""
    return Genred(formula, list(aliases), axis=axis, **options)


@pytest.mark.parametrize(("dim", "dtype", "target"), crossed([4, 5, 9, 10, 16, 17, 31, 64, 100]))
def test_points_of_any_dimension(dim: int, dtype: str, target: str) -> None:
    aliases = f"x = Vi({dim})", f"y = Vj({dim})", "b = Vj(1)"
    sums = fold("Exp(-SqDist(x,y))*b", *aliases)
    products = fold("Square(x|y)*b", *aliases)
    for (rows, columns), lanes in zip(SIZES, ("row", "column", "column", "row"), strict=True):
        x, y = points(dim, rows, columns, dtype=dtype)
        (b,) = points(1, columns, dtype=dtype)
        with settings(target=target, lanes=lanes):
            got = sums(x, y, b), products(x, y, b)
        about: dict[str, Any] = {"terms": columns, "formula": (rows, columns, lanes)}
        assert_close(got[0], gaussian(x, y) @ b.astype("float64"), **about)
        dots = (x.astype("float64") @ y.astype("float64").T) ** 2
        assert_close(got[1], dots @ b.astype("float64"), **about)


@pytest.mark.parametrize(("dim", "dtype", "target"), crossed([1, 3, 4, 5, 7, 10, 16, 17, 31, 100]))
def test_outputs_of_any_dimension(dim: int, dtype: str, target: str) -> None:
    product = fold("Exp(-SqDist(x,y))*b", "x = Vi(3)", "y = Vj(3)", f"b = Vj({dim})")
    for (rows, columns), lanes in zip(SIZES, ("row", "column", "column", "row"), strict=True):
        x, y = points(3, rows, columns, dtype=dtype)
        (b,) = points(dim, columns, dtype=dtype)
        with settings(target=target, lanes=lanes):
            got = product(x, y, b)
        want = gaussian(x, y) @ b.astype("float64")
        assert_close(got, want, terms=columns, formula=(rows, columns, lanes))


@pytest.mark.parametrize(("dim", "dtype", "target"), crossed([4, 10, 17, 64]))
def test_attention_of_any_dimension(dim: int, dtype: str, target: str) -> None:
    aliases = f"x = Vi({dim})", f"y = Vj({dim})", f"b = Vj({dim})"
    attention = fold(
        "(x|y)*4", *aliases, reduction_op="SumSoftMaxWeight", formula2="b", dtype_acc=dtype
    )
    for (rows, columns), lanes in zip(SIZES, ("row", "column", "column", "row"), strict=True):
        x, y, b = points(dim, rows, columns, columns, dtype=dtype)
        with settings(target=target, lanes=lanes):
            got = attention(x, y, b)
        logits = 4 * (x.astype("float64") @ y.astype("float64").T)
        weights = np.exp(logits - logits.max(1, keepdims=True))
        want = weights @ b.astype("float64") / weights.sum(1, keepdims=True)
        assert_close(got, want, terms=columns, formula=(rows, columns, lanes))


PLANS = [
    {"row_vectors": v, "column_jam": j, "output_jam": o, "row_tiles": t, "block": b, "lanes": lanes}
    for lanes in ("row", "column")
    for v, j, o, t, b in ((1, 1, 1, 1, 8), (2, 5, 3, 2, 24), (4, 3, 7, 3, 0), (4, 6, 4, 1, 16))
]


@pytest.mark.parametrize("unroll_pairs", [1, 3, 16])
@pytest.mark.parametrize("plan", PLANS, ids=lambda p: "-".join(map(str, p.values())))
def test_every_plan_gives_the_same_sums(plan: dict[str, Any], unroll_pairs: int) -> None:
    x, y = points(11, 70, 101)
    (b,) = points(13, 101)
    (g,) = points(1, 70)
    sums = fold("Exp(-SqDist(x,y))*b", "x = Vi(11)", "y = Vj(11)", "b = Vj(13)")
    gradients = fold("Grad(Exp(-SqDist(x,y)),x,g)", "x = Vi(11)", "y = Vj(11)", "g = Vi(1)", axis=1)
    with settings(unroll_pairs=unroll_pairs, **plan):
        got = sums(x, y, b), gradients(x, y, g)
    kernel = gaussian(x, y)
    assert_close(got[0], kernel @ b, terms=101)
    want = -2 * g * (kernel.sum(1, keepdims=True) * x - kernel @ y)
    assert_close(got[1], want, terms=101)


def kernel_of(formula: str, *aliases: str, reduction: str = "Sum", **options: Any) -> Any:
    """The kernel of a formula, summed over j."""
    parsed = parse(formula, list(aliases))
    with settings(**options):
        return FormulaReduction(
            parsed.node, parsed.variables, reduction, Axis.I, parsed.names
        ).kernel()


def loops(kernel: Any) -> int:
    """How many component loops a pair's value needs."""
    values = kernel.needed(kernel.outputs, 3)
    return len({v.data[0] for v in values if v.what == "result"})


ALIASES = "x = Vi(6)", "y = Vj(6)", "b = Vj(6)", "c = Vj(1)"


def test_plain_sums_of_pairs_are_loops() -> None:
    assert loops(kernel_of("Exp(-SqDist(x,y))*c", *ALIASES)) == 1
    assert loops(kernel_of("Exp(-SqDist(x,y))*c", *ALIASES, unroll_pairs=6)) == 0
    # Exponentials of components, or components that must be searched for, are written out.
    assert loops(kernel_of("Sum(Exp(x*y))", *ALIASES)) == 0
    assert loops(kernel_of("(Concat(x,c)|Concat(y,c))", *ALIASES)) == 0


def test_outputs_that_are_products_are_loops() -> None:
    product = kernel_of("Exp(-SqDist(x,y))*b", *ALIASES)
    assert product.output_loop is not None
    assert len(frontier(product)) == 1
    for formula in ("Exp(x*y)", "Concat(Exp(-SqDist(x,y))*b,c)", "x*b"):
        assert kernel_of(formula, *ALIASES).output_loop is None
    assert kernel_of("Exp(-SqDist(x,y))*b", *ALIASES, reduction="Max").output_loop is None


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("dim", [9, 10, 16, 17, 33])
def test_long_rows_are_packed_whatever_their_strides(dim: int, dtype: str) -> None:
    x, y = points(dim, 37, 83, dtype=dtype)
    (b,) = points(dim, 83, dtype=dtype)
    product = fold("(x|y)*b", f"x = Vi({dim})", f"y = Vj({dim})", f"b = Vj({dim})")
    want = product(x, y, b)
    assert_close(want, (x.astype("float64") @ y.T.astype("float64")) @ b, terms=83 * dim)
    for kind in views(x):
        given = [views(array)[kind] for array in (x, y, b)]
        assert_same_bits(product(*given), want)


@pytest.mark.parametrize("dim", [9, 10, 17, 64])
def test_long_rows_of_half_precision(dim: int) -> None:
    x, y = points(dim, 37, 83, dtype="float16")
    (b,) = points(1, 83, dtype="float16")
    aliases = f"x = Vi({dim})", f"y = Vj({dim})", "b = Vj(1)"
    got = fold("Exp(-SqDist(x,y))*b", *aliases)(x, y, b)
    assert got.dtype == np.float16
    want = (gaussian(x, y) @ b.astype("float64")).astype("float16")
    assert_close(got, want, rtol=2.0**-10)


def test_batches_of_long_rows() -> None:
    rng = np.random.default_rng(0)
    x, y = (rng.uniform(-0.3, 0.3, (3, n, 20)) for n in (37, 83))
    b = rng.uniform(-1, 1, (1, 83, 18))
    product = fold("Exp(-SqDist(x,y))*b", "x = Vi(20)", "y = Vj(20)", "b = Vj(18)")
    got = product(x, y, b)
    assert got.shape == (3, 37, 18)
    for n in range(3):
        assert_close(got[n], gaussian(x[n], y[n]) @ b[0], terms=83)


def test_threads_do_not_change_long_outputs() -> None:
    x, y = points(20, 501, 303, dtype="float32")
    (b,) = points(50, 303, dtype="float32")
    product = fold("Exp(-SqDist(x,y))*b", "x = Vi(20)", "y = Vj(20)", "b = Vj(50)")
    with settings(threads=1):
        one = product(x, y, b)
    with settings(threads=2):
        assert_same_bits(product(x, y, b), one)


def test_points_in_a_thousand_dimensions() -> None:
    x, y = points(1000, 70, 37, dtype="float32")
    (b,) = points(300, 37, dtype="float32")
    product = fold("Exp(-SqDist(x,y))*b", "x = Vi(1000)", "y = Vj(1000)", "b = Vj(300)")
    assert_close(product(x, y, b), gaussian(x, y) @ b.astype("float64"), terms=1000)


def test_the_axes_swapped() -> None:
    x, y = points(20, 70, 101)
    (b,) = points(18, 70)
    product = fold("Exp(-SqDist(x,y))*b", "x = Vi(20)", "y = Vj(20)", "b = Vi(18)", axis=0)
    for lanes in ("row", "column"):
        with settings(lanes=lanes):
            assert_close(product(x, y, b), gaussian(x, y).T @ b, terms=70)


def outer(a: Any, b: Any) -> Any:
    """The products of all components, those of `a` slowest."""
    products = a[..., :, None] * b[..., None, :]
    return products.reshape(*products.shape[:-2], -1)


# Long outputs that depend on one index only, or whose components are all the same value, or that
# are made of vectors in memory: (formula, what it is of x (rows, 1, 17) and y (1, columns, 17)).
LONG = {
    "x": lambda x, y: x,
    "y": lambda x, y: y,
    "TensorProd(Concat(u,u),u-1)": lambda x, y: outer(x[..., [0, 1, 2, 0, 1, 2]], x[..., :3] - 1),
    "MatVecMult(TensorProd(y,v),v)": lambda x, y: y * (y[..., :3] ** 2).sum(-1, keepdims=True),
    "SumT(Elem(x,1),40)": lambda x, y: x[..., [1] * 40],
    "SumT(Elem(x,1)-Elem(y,0),20)": lambda x, y: x[..., [1] * 20] - y[..., [0] * 20],
    "TensorProd(u,y/(1+Square(y)))": lambda x, y: outer(x[..., :3], y / (1 + y**2)),
}
UNWEIGHTED = [
    row.name
    for row in REDUCTIONS.values()
    if not row.internal and not row.scalar and row.weighted != "must"
]


@pytest.mark.parametrize("formula", LONG)
@pytest.mark.parametrize("name", UNWEIGHTED)
def test_long_outputs_of_every_reduction(name: str, formula: str) -> None:
    rng = np.random.default_rng(0)
    x, y = (rng.integers(-3, 4, (n, 17)).astype("float64") for n in (5, 7))
    options = {"opt_arg": 3} if REDUCTIONS[name].top_k else {}
    aliases = "x = Vi(17)", "y = Vj(17)", "u = Vi(3)", "v = Vj(3)"
    with np.errstate(all="ignore"):
        f = LONG[formula](x[:, None], y[None])
    f = np.broadcast_to(f, (5, 7, f.shape[-1]))
    axis = (UNWEIGHTED.index(name) + list(LONG).index(formula)) % 2
    dtype = ("float32", "float64")[axis]
    given = [v.astype(dtype) for v in (x, y, x[:, :3], y[:, :3])]
    got = fold(formula, *aliases, axis=axis, reduction_op=name, **options)(*given)
    want = oracle(name, f if axis == 1 else f.swapaxes(0, 1), length=3)
    check(name, got, want, dtype, formula, terms=7)
