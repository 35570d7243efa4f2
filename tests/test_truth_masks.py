"""Arrays of truth values as masks: against NumPy, torch and JAX on whole tables."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from checks import assert_close, assert_same_bits

import pairfold as pf
from pairfold import Genred, LazyTensor, Vi, Vij, Vj, settings
from pairfold.errors import ArgumentError, ArrayTypeError, DTypeError, ShapeError
from pairfold.lower.blocks import Grid, _Boxes
from pairfold.lower.kernel import COLUMN, ROW

Array = Any
SIZES = [(17, 23), (70, 300), (300, 1100), (1, 1), (1, 30), (30, 1)]
sizes = pytest.mark.parametrize(("rows", "columns"), SIZES)


def points(rows: int, columns: int, dtype: str = "float64") -> list[Array]:
    """x (M, 3), y (N, 3), v (N, 2)."""
    rng = np.random.default_rng((rows, columns))
    return [
        rng.normal(size=shape).astype(dtype) for shape in ((rows, 3), (columns, 3), (columns, 2))
    ]


def truths(rows: int, columns: int, seed: int = 0) -> Array:
    """Truth values in parts: all false, all true, both; with a row without any."""
    rng = np.random.default_rng((rows, columns, seed))
    found = rng.random((rows, columns)) < 0.4
    found[: rows // 2, : columns // 2] = False
    found[rows // 2 :, columns // 2 :] = True
    found[rows // 3] = found[rows // 3] & (rows == 1)
    return found


LAYOUTS: dict[str, Callable[[Array], Array]] = {
    "rows": lambda a: a,
    "columns": lambda a: np.asfortranarray(a),
    "backwards": lambda a: a[::-1, ::-1].copy()[::-1, ::-1],
    "every third": lambda a: np.repeat(np.repeat(a, 2, 0), 3, 1)[::2, ::3],
    "one row": lambda a: np.broadcast_to(a[-1:], a.shape),
    "one column": lambda a: np.broadcast_to(a[:, -1:], a.shape),
    "bytes": lambda a: a.astype(np.uint8) * 3,
}


def table(x: Array, y: Array) -> Array:
    """-|x - y|^2 in float64."""
    return -((x[..., :, None, :].astype(float) - y[..., None, :, :].astype(float)) ** 2).sum(-1)


def lazy(x: Array, y: Array) -> Any:
    return -(Vi(x) - Vj(y)).sqnorm2()


@pytest.mark.parametrize("lanes", ["row", "column"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@sizes
def test_sums_of_the_pairs_where_an_array_is_true(
    rows: int, columns: int, dtype: str, lanes: str
) -> None:
    x, y, v = points(rows, columns, dtype)
    kernel, exp = lazy(x, y).exp(), np.exp(table(x, y))
    causal = np.arange(columns) <= np.arange(rows)[:, None]
    for layout in LAYOUTS.values():
        where = layout(truths(rows, columns))
        keep = where != 0
        both, either = pf.mask(where) & pf.causal(), pf.causal() | ~pf.mask(where)
        with settings(lanes=lanes):
            assert_close((kernel * Vj(v)).sum(axis=1, where=where), (exp * keep) @ v, terms=columns)
            got = kernel.sum(axis=0, where=both)[:, 0]
            assert_close(got, (exp * (keep & causal)).sum(0), terms=rows)
            got = kernel.sum(axis=1, where=either)[:, 0]
            assert_close(got, (exp * (causal | ~keep)).sum(1), terms=columns)
            got = (kernel * pf.mask(where)).sum(axis=1)[:, 0]
            assert_close(got, (exp * keep).sum(1), terms=columns)


REDUCTIONS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in ("Sum", "Mean", "Prod", "Min", "ArgMax", "Min_ArgMin", "Count")),
    *((name, {}) for name in ("LogSumExp", "Any", "All", "Max")),
    ("KMin_ArgKMin", {"opt_arg": 3}),
    ("SumSoftMaxWeight", {"other": True}),
]


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize(("name", "options"), REDUCTIONS)
def test_every_reduction_skips_blocks_and_changes_no_bit(
    name: str, options: dict[str, Any], axis: int
) -> None:
    x, y, _ = points(70, 300, "float32")
    where = pf.mask(truths(70, 300)) & (pf.j >= 2)
    formula = lazy(x, y) / 30
    if name in ("Any", "All", "Count"):
        formula = formula > -0.1
    if "other" in options:
        options = {"other": Vj(y) if axis == 1 else Vi(x)}
    given = {**options, "axis": axis, "where": where}
    found: dict[str, Any] = {}
    for blocks in ("always", "test"):
        with settings(blocks=blocks):
            found[blocks] = formula.reduction(name, **given)
    want = formula.reduction(name, **given, backend="CPU")
    with settings(backend="reference"):
        exact = formula.reduction(name, **given)
    for one, other, third, fourth in zip(
        *([x if isinstance(x, tuple) else (x,) for x in (*found.values(), want, exact)])
    ):
        assert_same_bits(one, other)
        assert_same_bits(one, third)
        if one.dtype.kind == "f":
            assert_close(one, fourth.astype("float32"), terms=300)
        else:
            assert (one == fourth).all()


def test_absent_pairs_poison_nothing() -> None:
    x, y, v = points(17, 23)
    where = truths(17, 23)
    where[:, 7] = False
    y[7] = v[7] = np.nan
    got = lazy(x, y).sumsoftmaxweight(Vj(v), axis=1, where=where)
    assert np.isfinite(got).all()
    assert (got[17 // 3] == 0).all()
    rest = np.delete(np.arange(23), 7)
    assert_close(got, lazy(x, y[rest]).sumsoftmaxweight(Vj(v[rest]), axis=1, where=where[:, rest]))


@pytest.mark.parametrize("shape", [(4, 1, 17, 23), (5, 17, 23), (17, 23), (4, 5, 17, 23)])
@pytest.mark.parametrize("blocks", ["always", "auto"])
def test_batches(shape: tuple[int, ...], blocks: str) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(4, 1, 17, 3)), rng.normal(size=(5, 23, 3))
    where = rng.random(shape) < 0.3
    where[..., :9, :12] = False
    kernel = (-(LazyTensor(x[..., :, None, :]) - LazyTensor(y[:, None])).sqnorm2()).exp()
    with settings(blocks=blocks):
        got = kernel.sum(axis=3, where=where)[..., 0]
    assert_close(got, (np.exp(table(x, y)) * where).sum(-1), terms=23)


@pytest.mark.parametrize(("rows", "columns"), [(0, 5), (5, 0), (0, 0)])
def test_no_pairs(rows: int, columns: int) -> None:
    x, y = np.ones((rows, 3)), np.ones((columns, 3))
    for blocks in ("always", "auto"):
        with settings(blocks=blocks):
            got = lazy(x, y).min(axis=1, where=np.ones((rows, columns), bool))
            assert_same_bits(got, np.full((rows, 1), np.inf))


def test_blocks_are_told() -> None:
    x, y, _ = points(64, 4096)
    where = np.zeros((64, 4096), bool)
    where[:, :2048] = True
    with settings(blocks="always", block=512, lanes="row"):
        for own, want in ((where, (0.5, 0, 0.5)), (where.T.copy().T, (0.5, 0, 0.5))):
            found = lazy(x, y).explain("Sum", axis=1, where=own).subject.blocks
            assert tuple(n / sum(found) for n in found) == want
        where[5, 3000] = True
        skipped, tested, whole = lazy(x, y).explain("Sum", axis=1, where=where).subject.blocks
        assert tested == 1
        assert skipped == whole - 1
        # What is skipped by the array need not be known of the rest of the mask.
        other = lazy(x, y).explain("Sum", axis=1, where=pf.mask(where) & (lazy(x, y) < -0.001))
        assert other.subject.blocks[0] == skipped


@pytest.mark.parametrize("few", [1, 2**16])
def test_boxes_of_all_levels(few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pairfold.lower.blocks._FEW", few)
    monkeypatch.setattr("pairfold.lower.blocks._CACHED", 1000)
    where = truths(83, 517)
    fold = Genred("x", ["x=Vi(1)", "m=Vij(1)"], "Sum", axis=1, where="m")._fold
    kernel = fold.kernel(truths=frozenset([1]))
    for view in (where, np.asfortranarray(where), where[::-1]):
        grid = Grid(83, 517, 8, 2, 16, 2)
        boxes = _Boxes(kernel, lambda n, k, view=view: view.view(np.uint8), grid, "float32")
        assert (boxes.top > 1) == (few == 1)
        for level, box in enumerate(boxes._of_truths(1)):
            height, width = 8 * boxes._height(ROW, level), 16 * boxes._height(COLUMN, level)
            for r in range(len(box.low)):
                for c in range(len(box.low[0])):
                    cell = view[r * height : (r + 1) * height, c * width : (c + 1) * width]
                    assert (box.low[r, c], box.high[r, c]) == (cell.all(), cell.any())


def test_random_masks_skip_no_pair() -> None:
    rng = np.random.default_rng(0)
    reduce = Genred("SqDist(x,y)", ["x=Vi(3)", "y=Vj(3)", "m=Vij(1)"], "Min_ArgMin", where="m")
    for _ in range(20):
        rows, columns = rng.integers(1, 90), rng.integers(1, 700)
        x, y, _ = points(rows, columns, "float32")
        where = np.zeros((rows, columns), bool)
        for _ in range(rng.integers(5)):
            r, c = rng.integers(rows), rng.integers(columns)
            where[r : r + rng.integers(40), c : c + rng.integers(300)] ^= True
        found: list[Any] = []
        for blocks in ("always", "test"):
            with settings(blocks=blocks):
                found.append(reduce(x, y, where[..., None]))
        for one, other in zip(*found, strict=True):
            assert_same_bits(one, other)
        assert_same_bits(found[0][0], reduce(x, y, where[..., None].astype("float32"))[0])


def test_what_lazy_tensors_do() -> None:
    x, y, _ = points(17, 23)
    where = truths(17, 23)
    kernel, want = lazy(x, y).exp() * pf.mask(where), np.exp(table(x, y)) * where
    for same in (kernel, copy.deepcopy(kernel), pickle.loads(pickle.dumps(kernel))):
        assert_close(same.sum(axis=1)[:, 0], want.sum(1), terms=23)
    assert_close(kernel.T.sum(axis=1)[:, 0], want.sum(0), terms=17)
    assert_close(kernel[2:9, ::2].sum(axis=1)[:, 0], want[2:9, ::2].sum(1), terms=23)
    assert_close(pf.where(~pf.mask(where), 0, kernel).sum(axis=1)[:, 0], want.sum(1), terms=23)
    assert kernel.to("float32").sum(axis=1).dtype == np.float32
    square = pf.mask(where[:, :17]) * lazy(x, x).exp()
    assert_close(square.trace(), np.trace(where[:, :17]))
    assert pf.mask(where).shape == (17, 23)
    assert "1.75 bytes" in str(lazy(x, y).explain("Sum", axis=1, where=where))
    changed = where.copy()
    reduced = lazy(x, y).exp().sum(axis=1, where=pf.mask(changed) & pf.causal(), call=False)
    for _ in range(2):  # arrays are read in each call
        keep = changed & (np.arange(23) <= np.arange(17)[:, None])
        with settings(blocks="always"):
            assert_close(reduced()[:, 0], (np.exp(table(x, y)) * keep).sum(1), terms=23)
        changed[:] = ~changed
    with settings(check=2):
        kernel.sum(axis=1)
    both = pf.together(
        kernel.sum(axis=1, call=False), lazy(x, y).min(axis=1, where=where, call=False)
    )
    assert_close(both[0][:, 0], want.sum(1), terms=23)
    assert_close(both[1][:, 0], np.where(where, table(x, y), np.inf).min(1), terms=23)


def softmax(x: Array, y: Array, v: Array, where: Array) -> Array:
    return lazy(x, y).sumsoftmaxweight(Vj(v), axis=1, where=where)


def dense(x: Array, y: Array, v: Array, where: Array) -> Array:
    d = -((x[:, None] - y) ** 2).sum(-1)
    return (torch.softmax(torch.where(where, d, -1e30), 1) * where) @ v


def tensors() -> list[Any]:
    given = [torch.as_tensor(a).requires_grad_() for a in points(17, 23)]
    return [*given, torch.as_tensor(truths(17, 23))]


def test_gradients_of_torch() -> None:
    *given, where = tensors()
    assert not where[5].any()
    found: list[Any] = []
    for program in (softmax, dense):
        first = torch.autograd.grad((program(*given, where) ** 2).sum(), given, create_graph=True)
        second = torch.autograd.grad(sum((g**2).sum() for g in first), given)
        found.append([*first, *second])
    for one, other in zip(*found, strict=True):
        assert_close(one.detach(), other.detach(), terms=10**4)
    d = ((given[0][:, None] - given[1]) ** 2).sum(-1)
    nearest = torch.where(where, d, torch.inf).min(1).values
    some = where.any(1)
    ours = (Vi(given[0]) - Vj(given[1])).sqnorm2().min(axis=1, where=where)[some]
    (one,), (other,) = (torch.autograd.grad(f.sum(), given[0]) for f in (ours, nearest[some]))
    assert_close(one, other)


def test_gradients_to_arrays_of_pairs() -> None:
    x, y, _, where = tensors()
    where[5] = True
    bias = torch.randn(17, 23, 1, dtype=torch.float64, requires_grad=True)
    ours = (Vij(bias) + lazy(x, y)).logsumexp(axis=1, where=where)
    d = bias[..., 0] - ((x[:, None] - y) ** 2).sum(-1)
    want = torch.where(where, d, -torch.inf).logsumexp(1)
    (one,), (other,) = (torch.autograd.grad((f**2).sum(), bias) for f in (ours, want))
    assert_close(one, other, terms=23)


def test_half_precision() -> None:
    *given, where = tensors()
    short = [t.detach().to(torch.bfloat16).requires_grad_() for t in given]
    got = softmax(*short, where)
    got.sum().backward()
    assert (got - dense(*[t.double() for t in short], where)).abs().max() < 0.02
    assert short[0].grad.isfinite().all()


def test_transformations_of_torch() -> None:
    *given, where = tensors()
    x, y, v = (t.detach() for t in given)
    for how in (torch.func.jacrev, torch.func.jacfwd):
        assert_close(how(softmax)(x, y, v, where), how(dense)(x, y, v, where), terms=100)
    many = torch.rand(4, 17, 23) < 0.5
    got = torch.func.vmap(lambda own: softmax(x, y, v, own))(many)
    assert_close(got, torch.stack([dense(x, y, v, own) for own in many]), terms=23)


def test_compiled_programs_of_torch() -> None:
    *given, where = tensors()
    torch._dynamo.reset()
    compiled = torch.compile(
        lambda x, y, v, m: softmax(x, y, v, pf.mask(m) & pf.causal()) + softmax(x, y, v, m),
        fullgraph=True,
    )
    causal = torch.arange(23) <= torch.arange(17)[:, None]
    want = dense(*given, where & causal) + dense(*given, where)
    got = compiled(*given, where)
    assert_close(got.detach(), want.detach(), terms=23)
    for one, other in zip(
        torch.autograd.grad(got.sum(), given), torch.autograd.grad(want.sum(), given), strict=True
    ):
        assert_close(one, other, terms=100)


def test_programs_of_jax() -> None:
    jax = pytest.importorskip("jax", reason="JAX is not installed")
    from jax import numpy as jnp

    given = [jnp.asarray(a, "float32") for a in points(17, 23)]
    where = jnp.asarray(truths(17, 23))

    def ours(x: Any, y: Any, v: Any, m: Any) -> Any:
        return softmax(x, y, v, m)

    def want(x: Any, y: Any, v: Any, m: Any) -> Any:
        d = -((x[:, None] - y) ** 2).sum(-1)
        return (jax.nn.softmax(jnp.where(m, d, -1e30), 1) * m) @ v

    assert_close(ours(*given, where), want(*given, where), terms=23)
    assert_close(jax.jit(ours)(*given, where), want(*given, where), terms=23)
    assert_close(ours(*given, where.astype("uint8")), want(*given, where), terms=23)
    gradients = [
        jax.jit(jax.grad(lambda x, y, v, m, f=f: (f(x, y, v, m) ** 2).sum(), (0, 1, 2)))
        for f in (ours, want)
    ]
    for one, other in zip(*(g(*given, where) for g in gradients), strict=True):
        assert_close(one, other, terms=10**4)
    many = jnp.stack([where, ~where])
    mapped = [jax.vmap(lambda m, f=f: f(*given, m))(many) for f in (ours, want)]
    assert_close(*mapped, terms=23)


@pytest.mark.usefixtures("interpreter")
def test_programs_for_gpus() -> None:
    aliases = ["x=Vi(3)", "y=Vj(3)", "m=Vij(1)"]
    for dtype in ("float32", "float64", "float16"):
        x, y, _ = points(17, 23, dtype)
        for where in (truths(17, 23), np.asfortranarray(truths(17, 23))):
            for axis in (0, 1):
                reduce = Genred("SqDist(x,y)", aliases, "Min_ArgMin", axis=axis, where="m")
                with settings(tile="16x16x1"):
                    got = reduce(x, y, where[..., None], backend="GPU")
                for one, other in zip(got, reduce(x, y, where[..., None]), strict=True):
                    assert_close(one, other, terms=23)
    many = np.stack([where, ~where])[..., None]
    with settings(tile="16x16x1"):
        got = reduce(x, y, many, backend="GPU")
    for one, other in zip(got, reduce(x, y, many), strict=True):
        assert_close(one, other, terms=23)


def test_what_is_no_mask() -> None:
    x, y, _ = points(17, 23)
    where, kernel = truths(17, 23), lazy(x, y)
    for wrong, error, match in (
        (where.astype(float), DTypeError, "truth values"),
        (where.astype(int), DTypeError, "truth values"),
        (where[0], ShapeError, r"\(\.\.\., M, N\)"),
        (where.T, ShapeError, "cannot be combined"),
        (where[:, :1], ShapeError, "cannot be combined"),
        (where.tolist(), ArrayTypeError, "array of truth values"),
        (True, ArrayTypeError, "array of truth values"),
        (torch.as_tensor(where), ArrayTypeError, "cannot be combined"),
    ):
        with pytest.raises(error, match=match):
            kernel.sum(axis=1, where=wrong)
    with pytest.raises(ArgumentError, match="no dtype"):
        pf.mask(where).sum(axis=1)
    with pytest.raises(DTypeError):
        LazyTensor(where[..., None])
    with pytest.raises(DTypeError):
        Genred("x*y", ["x=Vi(1)", "y=Vj(1)"])(where, where)


def test_beside_sparse_masks() -> None:
    sparse = pytest.importorskip("scipy.sparse", reason="SciPy is not installed")
    x, y, _ = points(17, 23)
    where, other = truths(17, 23), truths(17, 23, seed=1)
    for axis in (0, 1):
        got = lazy(x, y).exp().sum(axis=axis, where=(sparse.csr_matrix(other), where))[:, 0]
        assert_close(got, (np.exp(table(x, y)) * (where & other)).sum(axis), terms=23)
