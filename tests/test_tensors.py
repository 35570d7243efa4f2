"""Products of tensors and soft time warping: machine code against dense NumPy and torch."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from checks import assert_close
from products import covering, some

from pairfold.arrays.numpy import NumpyArrays
from pairfold.calculus.derive import pull_back
from pairfold.core.node import Axis, Node
from pairfold.frontends.parse import parse
from pairfold.frontends.reduction import FormulaReduction
from pairfold.numpy import Genred
from pairfold.ops.table import OPERATIONS, build, variable
from pairfold.settings import settings

PLANS = [("row", 1), ("row", 16), ("column", 4), ("column", 16)]
COUNT = {Axis.I: 17, Axis.J: 23}


def compute(node: Node, variables: list[Node], given: list[Any], kept: Axis, **options: Any) -> Any:
    """Sum by machine code, checked against the interpreter."""
    with settings(**{"check": 2, **options}):
        return FormulaReduction(node, variables, "Sum", kept)(NumpyArrays, given)


def case(*dims: int, seed: int = 0) -> tuple[list[Node], list[Any]]:
    """Variables alternately indexed by i and j, and arrays for them."""
    rng = np.random.default_rng(seed)
    kinds = [(Axis.I, Axis.J)[place % 2] for place in range(len(dims))]
    variables = [variable(p, dim, kind) for p, (dim, kind) in enumerate(zip(dims, kinds))]
    return variables, [rng.normal(size=(COUNT[v.params[2]], v.dim)) for v in variables]


def over_pairs(variables: list[Node], given: list[Any]) -> list[Any]:
    """The arrays at every pair."""
    return [
        np.broadcast_to(a[:, None] if v.params[2] == Axis.I else a[None], (17, 23, v.dim))
        for v, a in zip(variables, given, strict=True)
    ]


def check(node: Node, variables: list[Node], given: list[Any], pairs: Any) -> None:
    """Sums over both axes, in both dtypes, under several plans.

    The interpreter knows of no lanes and computes in float64: it looks once at every unrolling.
    """
    scale = float(np.abs(pairs).sum((0, 1)).max())
    known: set[int] = set()
    for dtype, axis, place in sorted(covering([2, 2, len(PLANS)])):
        lanes, unroll = PLANS[place]
        cast = [array.astype(("float64", "float32")[dtype]) for array in given]
        options = {"lanes": lanes, "unroll": unroll, "check": 0 if unroll in known else 2}
        known.add(unroll)
        got = compute(node, variables, cast, (Axis.J, Axis.I)[axis], **options)
        assert_close(got, pairs.sum(axis), terms=23, scale=scale, formula=node)


SIZES = [(2, 3), (3, 17), (17, 3), (1, 20)]


@some(
    "n,p,inner",
    [(*size, inner) for size in SIZES for inner in ("Sin", None)],
    lambda entry: (entry[2] is None) == SIZES.index(entry[:2]) % 2,
)
def test_products_of_matrices_and_vectors(n: int, p: int, inner: str | None) -> None:
    (a, b, c), given = case(n * p, p, n)
    function = OPERATIONS[inner] if inner else lambda x: x
    dense = [np.sin(v) if inner else v for v in over_pairs([a, b, c], given)]
    matrix = dense[0].reshape(17, 23, n, p)
    fa, fb, fc = function(a), function(b), function(c)
    for name, operands, subscripts, parts in (
        ("MatVecMult", (fa, fb), "...np,...p->...n", (matrix, dense[1])),
        ("VecMatMult", (fc, fa), "...n,...np->...p", (dense[2], matrix)),
        ("TensorProd", (fc, fb), "...n,...p->...np", (dense[2], dense[1])),
    ):
        pairs = np.einsum(subscripts, *parts).reshape(17, 23, -1)
        check(OPERATIONS[name](*operands), [a, b, c], given, pairs)


def test_matrices_of_pairs_times_matrices_of_pairs() -> None:
    (a, b, x), given = case(19 * 18, 18 * 20, 20)
    da, db, dx = over_pairs([a, b, x], given)
    sin, times = OPERATIONS["Sin"], OPERATIONS["MatVecMult"]
    node = times(a, sin(times(sin(b), x)))
    inner = np.einsum("...np,...p->...n", np.sin(db.reshape(17, 23, 18, 20)), dx)
    pairs = np.einsum("...np,...p->...n", da.reshape(17, 23, 19, 18), np.sin(inner))
    check(node, [a, b, x], given, pairs)


DOTS = [
    ((2, 3), (3, 4), (1,), (0,), ()),
    ((2, 3), (3, 4), (1,), (0,), (1, 0)),
    ((3, 2, 5), (2, 7), (1,), (0,), (2, 0, 1)),
    ((3, 5), (7,), (), (), (2, 0, 1)),
    ((2, 3, 4), (4, 2, 3), (0, 2), (1, 0), (1, 0)),
    ((2, 3), (3, 2), (0, 1), (1, 0), ()),
    ((4, 1, 5), (5, 4), (2,), (0,), (0, 2, 1)),
    ((6,), (6,), (), (), ()),
]


@pytest.mark.parametrize("params", DOTS, ids=str)
def test_tensor_products_have_the_axes_of_numpy(params: tuple[Any, ...]) -> None:
    dimf, dimg, contf, contg, permute = params
    variables, given = case(int(np.prod(dimf)), int(np.prod(dimg)))
    node = build(OPERATIONS["TensorDot"], *variables, *params)
    rows = []
    for f, g in zip(*(a.reshape(-1, a.shape[-1]) for a in over_pairs(variables, given))):
        found = np.tensordot(f.reshape(dimf), g.reshape(dimg), (contf, contg))
        rows.append((np.transpose(found, np.argsort(permute)) if permute else found).ravel())
    pairs = np.array(rows).reshape(17, 23, -1)
    check(node, variables, given, pairs)
    if permute:
        kept = [dimf[a] for a in range(len(dimf)) if a not in contf]
        kept += [dimg[a] for a in range(len(dimg)) if a not in contg]
        sizes = np.transpose(np.empty(kept), np.argsort(permute)).shape
        assert [sizes[at] for at in permute] == kept


@pytest.mark.parametrize("params", DOTS[2:7], ids=str)
def test_derivatives_of_tensor_products_are_tensor_products(params: tuple[Any, ...]) -> None:
    torch = pytest.importorskip("torch")
    dimf, dimg, contf, contg, permute = params
    (f, g), given = case(int(np.prod(dimf)), int(np.prod(dimg)))
    node = build(OPERATIONS["TensorDot"], OPERATIONS["Sin"](f), g, *params)
    e = variable(2, node.dim, Axis.I)
    given.append(np.random.default_rng(1).normal(size=(17, node.dim)))
    tf, tg, te = (torch.tensor(a, requires_grad=True) for a in given)
    total = 0.0
    for i, j in itertools.product(range(17), range(23)):
        pair = torch.tensordot(tf[i].reshape(dimf).sin(), tg[j].reshape(dimg), (contf, contg))
        if permute:
            pair = pair.permute(*np.argsort(permute).tolist())
        total = total + (pair.reshape(-1) * te[i]).sum()
    slopes = torch.autograd.grad(total, [tf, tg], create_graph=True)
    second = torch.autograd.grad(slopes[0].square().sum(), tg)[0]
    back = pull_back(node, [f, g], e)
    for v, part, want in zip((f, g), back, slopes, strict=True):
        assert part is not None
        kept = v.params[2]
        for unroll in (1, 16):
            got = compute(part, [f, g, e], given, kept, unroll=unroll)
            assert_close(got, want.detach().numpy(), terms=100)
    h = variable(3, f.dim, Axis.I)
    (again,) = pull_back(back[0], [g], h)  # type: ignore[arg-type]
    assert again is not None
    weights = 2 * slopes[0].detach().numpy()
    got = compute(again, [f, g, e, h], [*given, weights], Axis.J)
    assert_close(got, second.numpy(), terms=1000)


def test_kronecker_products_are_those_of_numpy() -> None:
    variables, given = case(6, 20)
    node = build(OPERATIONS["Kron"], *variables, (2, 3), (5, 4))
    f, g = (a.reshape(-1, a.shape[-1]) for a in over_pairs(variables, given))
    rows = [np.kron(a.reshape(2, 3), b.reshape(5, 4)).ravel() for a, b in zip(f, g)]
    check(node, variables, given, np.array(rows).reshape(17, 23, -1))


def test_parameters_may_be_lists_and_left_out() -> None:
    aliases = ["x = Vi(6)", "y = Vj(12)"]
    x, y = parse("x", aliases).variables
    short = parse("TensorDot(x,y,[2,3],(3,4),[1],[0])", aliases).node
    assert short is build(OPERATIONS["TensorDot"], x, y, [2, 3], [3, 4], [1], [0])
    assert short is parse("TensorDot(x,y,[2,3],[3,4],[1],[0],[])", aliases).node
    assert parse(str(short), aliases).node is short
    moved = parse("TensorDot(x,y,[2,3],[3,4],[1],[0],[1,0])", aliases).node
    assert moved.dim == 8
    assert moved is not short


# ----- soft time warping -------------------------------------------------------------------------


def warped(torch: Any, x: Any, y: Any, c: Any) -> Any:
    """The recurrence on torch tensors, cell by cell."""
    cells: dict[tuple[int, int], Any] = {}
    for i, j in itertools.product(range(x.shape[-1]), range(y.shape[-1])):
        before = [cells[at] for at in ((i - 1, j - 1), (i - 1, j), (i, j - 1)) if at in cells]
        cost = (x[..., i] - y[..., j]) ** 2
        if before:
            cost = cost - c * torch.logsumexp(torch.stack([-a / c for a in before]), 0)
        cells[i, j] = cost
    return cells[x.shape[-1] - 1, y.shape[-1] - 1]


LENGTHS = [(1, 1), (3, 2), (1, 5), (20, 1), (6, 4)]


@some(
    "n,m,lanes",
    [(*size, lanes) for size in LENGTHS for lanes in ("row", "column")],
    lambda entry: (entry[2] == "row") == LENGTHS.index(entry[:2]) % 2,
)
def test_time_warping_and_its_derivatives_equal_torch(n: int, m: int, lanes: str) -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(n + m)
    variables = [variable(0, n, Axis.I), variable(1, m, Axis.J), variable(2, 1, Axis.I)]
    given = [rng.normal(size=(17, n)), rng.normal(size=(23, m)), rng.uniform(0.5, 2, (17, 1))]
    node = build(OPERATIONS["SoftDTW_SqDist"], *variables)
    tensors = [torch.tensor(a, requires_grad=True) for a in given]
    value = warped(torch, tensors[0][:, None], tensors[1], tensors[2])
    options = {"lanes": lanes}
    want = value.detach().numpy().sum(1)[:, None]
    assert_close(compute(node, variables, given, Axis.I, **options), want, terms=23)
    total, wrt = value, variables
    for order, dim in ((1, 1), (2, n), (3, 1)):
        e = variable(len(given), dim, Axis.I)
        given.append(rng.normal(size=(17, dim)))
        weights = torch.tensor(given[-1])
        scalar = (total.sum(1, keepdim=True) if order == 1 else total) * weights
        slopes = torch.autograd.grad(
            scalar.sum(), tensors, create_graph=True, allow_unused=True, materialize_grads=True
        )
        back = pull_back(node, wrt, e)
        variables = [*variables, e]
        for v, part, slope in zip(wrt, back, slopes, strict=True):
            if part is None:
                assert not slope.any()
                continue
            narrow = order == 1 or v.dim == 1
            want = slope.detach().numpy()
            with settings(check=2 if narrow else 0, **options):
                got = FormulaReduction(part, variables, "Sum", v.params[2])(NumpyArrays, given)
            # One unit in the last place of the arguments moves third derivatives by 6e-11.
            assert_close(got, want, terms=100, scale=100.0 * order, formula=(order, v))
        place = 0 if order == 1 else 2
        node, total = back[place], slopes[place]  # type: ignore[assignment]
        if node is None or not total.requires_grad:
            return


def test_time_warping_at_its_limits() -> None:
    aliases = ["x = Vi(3)", "y = Vj(4)", "c = Pm(1)"]
    x, y = np.array([[0.0, 1, 2], [0, np.inf, 2]]), np.array([[0.0, 1, 1, 2]])
    for dtype, unroll in itertools.product(("float32", "float64"), (1, 16)):
        genred = Genred("SoftDTW_SqDist(x,y,c)", aliases, axis=1)
        slope = Genred("Grad(SoftDTW_SqDist(x,y,c),x,c/c)", aliases, axis=1)
        for c in (0.0, 1e-30, 1e-8):
            given = [x.astype(dtype), y.astype(dtype), np.array([c], dtype)]
            with settings(unroll=unroll):
                assert_close(genred(*given), np.array([[0.0], [np.inf]], dtype), atol=1e-6)
                if c:
                    assert_close(slope(*given)[:1], np.zeros((1, 3), dtype), atol=1e-6)


def longest(x: Any, y: Any, c: float) -> float:
    """The recurrence of soft time warping, with c of either sign."""
    length: dict[tuple[int, int], float] = {}
    for i, j in itertools.product(range(len(x)), range(len(y))):
        earlier = [length[p] for p in ((i - 1, j - 1), (i - 1, j), (i, j - 1)) if p in length]
        soft = -c * np.logaddexp.reduce([-found / c for found in earlier]) if earlier else 0.0
        length[i, j] = (x[i] - y[j]) ** 2 + soft
    return length[len(x) - 1, len(y) - 1]


@pytest.mark.parametrize("c", [-0.5, -30.0, 0.5])
def test_time_warping_takes_a_negative_smoothing_as_the_longest_path(c: float) -> None:
    rng = np.random.default_rng(0)
    x, y, cs = rng.normal(size=(5, 3)) * 4, rng.normal(size=(6, 4)) * 4, np.array([c])
    aliases = ["x = Vi(3)", "y = Vj(4)", "c = Pm(1)"]
    text = "SoftDTW_SqDist(x,y,c)"
    want = sum(np.array([longest(a, b, c) for a in x]) for b in y)
    assert_close(Genred(text, aliases, axis=1)(x, y, cs)[:, 0], want, terms=100)
    got = Genred(f"Grad({text},x,1)", aliases, axis=1)(x, y, cs)
    for k, step in enumerate(np.eye(3) * 1e-5):
        up, down = (
            sum(np.array([longest(a, b, c) for a in z]) for b in y) for z in (x + step, x - step)
        )
        np.testing.assert_allclose(got[:, k], (up - down) / 2e-5, rtol=1e-7)  # differences


def test_long_series_are_warped_by_loops() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 150)), rng.normal(size=(3, 140))
    aliases = ["x = Vi(150)", "y = Vj(140)", "c = Pm(1)"]
    got = Genred("SoftDTW_SqDist(x,y,c)", aliases, axis=1)(x, y, np.ones(1))
    like: Any = OPERATIONS["SoftDTW_SqDist"].like
    pairs = like(
        np.broadcast_to(x[:, None], (2, 3, 150)),
        np.broadcast_to(y, (2, 3, 140)),
        np.ones((2, 3, 1)),
    )
    assert_close(got, pairs.sum(1), terms=300)
