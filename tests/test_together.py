"""together: what each reduction gives alone and dense programs mean, from few passes."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from checks import assert_close, assert_same_bits
from products import every_pair
from tape import TapeArrays, Taped, apply, grad

import pairfold.numpy
import pairfold.torch
from pairfold import Genred, LazyTensor, Pm, Vi, Vj, errors, explain, settings, together
from pairfold.arrays.opaque import follows_operators
from pairfold.arrays.torch import DeviceTensors
from pairfold.cluster import from_matrix
from pairfold.core.scalars import reachable
from pairfold.frontends.derivatives import differentiable
from pairfold.frontends.ranges import Ranges
from pairfold.frontends.reduced import filled_from

torch = pytest.importorskip("torch")

from torch.fx.experimental.proxy_tensor import make_fx  # noqa: E402

Array = Any
F = torch.func


# ----- programs ----------------------------------------------------------------------------------


def tensors(x: Array, y: Array, b: Array) -> tuple[Any, Any, Any]:
    return (
        LazyTensor(x[..., :, None, :]),
        LazyTensor(y[..., None, :, :]),
        LazyTensor(b[..., None, :, :]),
    )


def lazy(name: str, axis: int, first: Any, second: Any, weight: Any, **options: Any) -> Any:
    """A reduction that waits for its call; axis 1 is over j, after those of batches."""
    D = ((first - second) ** 2).sum(-1)
    K, G = -D, (-D / 2).exp()
    given = {"axis": axis + D.nbatchdims, "call": False, **options}
    made: dict[str, Callable[[], Any]] = {
        "sum": lambda: G.sum(**given),
        "sums": lambda: (G * weight).sum(**given),
        "mean": lambda: (G * weight).reduction("Mean", **given),
        "prod": lambda: (1 + G / 8).reduction("Prod", **given),
        "count": lambda: (D - 2).step().reduction("Count", **given),
        "any": lambda: (D - 9).step().reduction("Any", **given),
        "max": lambda: (first - second).max(**given),
        "argmin": lambda: D.argmin(**given),
        "min_argmin": lambda: D.min_argmin(**given),
        "lse": lambda: K.logsumexp(**given),
        "lses": lambda: (first - second).logsumexp(**given),
        "weighted lse": lambda: K.logsumexp(weight=weight**2 + 0.1, **given),
        "soft": lambda: K.sumsoftmaxweight(weight, **given),
        "kmin": lambda: (first - second).Kmin(4, **given),
        "argkmin": lambda: D.argKmin(3, **given),
        "kmin_argkmin": lambda: D.Kmin_argKmin(5, **given),
    }
    return made[name]()


def dense(name: str, axis: int, x: Array, y: Array, b: Array) -> list[Array]:
    """Its results by torch, with all pairs in memory; for reductions over i, moved over j."""
    apart = x[..., :, None, :] - y[..., None, :, :]
    weight = b[..., None, :, :].expand(*apart.shape[:-1], b.shape[-1])
    if axis == 0:
        apart, weight = apart.transpose(-2, -3), weight.transpose(-2, -3)
    D = (apart**2).sum(-1, keepdim=True)
    G = (-D / 2).exp()
    if name == "kmin_argkmin":
        values, places = D.sort(dim=-2, stable=True)
        return [values[..., :5, 0], places[..., :5, 0]]
    if name == "min_argmin":
        return [D.min(-2).values, D.min(-2).indices]
    made: dict[str, Callable[[], Array]] = {
        "sum": lambda: G.sum(-2),
        "sums": lambda: (G * weight).sum(-2),
        "mean": lambda: (G * weight).mean(-2),
        "prod": lambda: (1 + G / 8).prod(-2),
        "count": lambda: (D >= 2).sum(-2),
        "any": lambda: (D >= 9).any(-2),
        "max": lambda: apart.max(-2).values,
        "argmin": lambda: D.argmin(-2),
        "lse": lambda: (-D).logsumexp(-2),
        "lses": lambda: apart.logsumexp(-2),
        "weighted lse": lambda: ((-D).exp() * (weight**2 + 0.1)).sum(-2).log(),
        "soft": lambda: ((-D).softmax(-2) * weight).sum(-2),
        "kmin": lambda: apart.sort(dim=-2).values[..., :4, :],
        "argkmin": lambda: D[..., 0].sort(dim=-1, stable=True).indices[..., :3],
    }
    return [made[name]()]


Names = Sequence[tuple[str, int]]
# What is one pass in machine code, and what is not.
MIXTURES: dict[str, Names] = {
    "running": [("sums", 1), ("max", 1), ("min_argmin", 1), ("count", 1), ("mean", 1)],
    "shifted": [("soft", 1), ("lse", 1), ("weighted lse", 1), ("lses", 1)],
    "columns": [("lse", 0), ("sum", 0), ("any", 0)],
    "lists": [("argkmin", 1), ("kmin", 1), ("kmin_argkmin", 1), ("argmin", 1)],
    "all forms": [("soft", 1), ("argkmin", 1), ("sums", 1), ("prod", 1), ("any", 1)],
    "both indices": [("sums", 0), ("soft", 1), ("kmin", 1), ("max", 0), ("mean", 1)],
    "swapped": [("argmin", 0), ("sum", 1), ("lse", 0)],
    "twice": [("sum", 1), ("sum", 1)],
    "one": [("soft", 1)],
    "two passes": [("lse", 1), ("lse", 0), ("sum", 1), ("kmin_argkmin", 0)],
}
PASSES = dict.fromkeys(MIXTURES, 1) | {"two passes": 2}


def waiting(names: Names, x: Array, y: Array, b: Array, **options: Any) -> list[Any]:
    given = tensors(x, y, b)
    return [lazy(name, axis, *given, **options) for name, axis in names]


def meant(names: Names, *given: Array) -> list[Array]:
    return [result for name, axis in names for result in dense(name, axis, *given)]


def flat(results: Any) -> list[Array]:
    """All arrays of nested tuples, in order."""
    if isinstance(results, tuple):
        return [array for part in results for array in flat(part)]
    return [results]


def points(rows: int, columns: int, dtype: str = "float64", batch: Any = ((), (), ())) -> list[Any]:
    random = np.random.default_rng(rows + columns)
    shapes = [(rows, 3), (columns, 3), (columns, 2)]
    return [
        random.standard_normal((*own, *shape)).astype(dtype)
        for own, shape in zip(batch, shapes, strict=True)
    ]


def jax_arrays(given: Sequence[Array]) -> list[Array]:
    jax = pytest.importorskip("jax", reason="JAX is not installed")
    return [jax.numpy.asarray(np.asarray(array, "float32")) for array in given]


LIBRARIES: dict[str, Callable[[Sequence[Array]], list[Array]]] = {
    "numpy": list,
    "torch": lambda given: [torch.from_numpy(array.copy()) for array in given],
    "graph": lambda given: [torch.from_numpy(array.copy()).requires_grad_() for array in given],
    "jax": jax_arrays,
}


def numbers(array: Array) -> Array:
    return np.asarray(array.detach() if isinstance(array, torch.Tensor) else array)


def compare(got: Sequence[Array], want: Sequence[Array], rtol: float) -> None:
    """Whole numbers and truth values are the same, others near."""
    assert len(got) == len(want)
    for one, other in zip(map(numbers, got), map(numbers, want), strict=True):
        assert one.shape == other.shape
        if one.dtype.kind == "f":
            assert_close(one.astype("float64"), other.astype("float64"), rtol=rtol, atol=rtol)
        else:
            assert_same_bits(one, other.astype(one.dtype))


# ----- values ------------------------------------------------------------------------------------


@every_pair(
    ("mixture", list(MIXTURES)),
    ("size", [(17, 23), (200, 23), (1, 9), (9, 5)]),
    ("library", list(LIBRARIES)),
)
def test_values_are_those_of_dense_programs(
    mixture: str, size: tuple[int, int], library: str
) -> None:
    names, plain = MIXTURES[mixture], points(*size)
    given = LIBRARIES[library](plain)
    with settings(check=1):
        results = together(*waiting(names, *given))
    assert isinstance(results, tuple)
    assert len(results) == len(names)
    wide = [torch.from_numpy(numbers(array).astype("float64")) for array in given]
    if min(size) > 4:
        compare(flat(results), meant(names, *wide), 1e-4 if library == "jax" else 1e-10)
    for result, alone in zip(results, waiting(names, *given), strict=True):
        compare(flat(result), flat(alone()), 1e-5 if library == "jax" else 1e-12)


@every_pair(
    ("mixture", list(MIXTURES)),
    ("size", [(0, 23), (17, 0), (0, 0)]),
    ("library", ["numpy", "graph", "jax"]),
    ("dtype", ["float32", "float16"]),
)
def test_nothing_to_reduce(mixture: str, size: tuple[int, int], library: str, dtype: str) -> None:
    given = LIBRARIES[library](points(*size, dtype))
    results = together(*waiting(MIXTURES[mixture], *given))
    for result, alone in zip(results, waiting(MIXTURES[mixture], *given), strict=True):
        compare(flat(result), flat(alone()), 0)


@every_pair(
    ("mixture", ["running", "shifted", "both indices", "two passes"]),
    ("batch", [((2,), (2,), (2,)), ((2, 1), (3,), (1, 1)), ((), (4,), (1,)), ((0,), (1,), (1,))]),
    ("library", list(LIBRARIES)),
)
def test_batches(mixture: str, batch: Any, library: str) -> None:
    plain = points(17, 23, "float64", batch)
    given = LIBRARIES[library](plain)
    depth = max(map(len, batch))
    lifted = [array.reshape((1,) * (depth + 2 - array.ndim) + array.shape) for array in given]
    reductions = waiting(MIXTURES[mixture], *lifted)
    results = together(*reductions)
    compare(flat(results), flat(tuple(r() for r in reductions)), 1e-5)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("mixture", ["shifted", "all forms", "both indices"])
def test_dtypes(mixture: str, dtype: str) -> None:
    for graph in (False, True):
        given = [torch.tensor(array).to(getattr(torch, dtype)) for array in points(17, 23)]
        given = [array.requires_grad_(graph) for array in given]
        results = together(*waiting(MIXTURES[mixture], *given))
        for result, alone in zip(results, waiting(MIXTURES[mixture], *given), strict=True):
            for one, other in zip(flat(result), flat(alone()), strict=True):
                assert one.dtype == other.dtype
                atol = {"float32": 1e-5, "float16": 2e-3, "bfloat16": 2e-2}[dtype]
                found, wanted = (part.detach().double().numpy() for part in (one, other))
                assert_close(found, wanted, rtol=atol, atol=atol)


def test_arrays_of_any_strides() -> None:
    x, y, b = points(34, 46)
    views = [x[::-2], np.asfortranarray(y)[::2], np.broadcast_to(b[:1], (23, 2))]
    for mixture, names in MIXTURES.items():
        compare(
            flat(together(*waiting(names, *views))),
            meant(names, *(torch.from_numpy(view.copy()) for view in views)),
            1e-10 if mixture else 0,
        )


def test_formulas_of_other_arrays() -> None:
    """What each reads may differ; sizes, and batch axes, of one may be others' alone."""
    random = np.random.default_rng(0)
    x, y, z = (random.standard_normal(shape) for shape in ((17, 3), (23, 3), (23, 2)))
    many = random.standard_normal((4, 17, 1, 3))
    reductions = [
        Vi(x).sqdist(Vj(y)).sum(axis=1, call=False),
        Vj(z).sum(axis=1, call=False),  # of one row
        LazyTensor(many).sqdist(LazyTensor(y[None])).max(axis=2, call=False),
        (Vi(x) * Pm(2.0)).sqdist(Vj(y)).sum(axis=0, call=False),
        (Vj(y) | Pm(np.ones(3))).exp().sum(axis=0, call=False),
    ]
    results = together(*reductions)
    for result, alone in zip(results, reductions, strict=True):
        assert result.shape == alone().shape
        assert_close(result, alone(), rtol=1e-12)
    shown = together(*reductions, call=False).explain()
    assert shown.numbers[0] == (2,)
    assert "other sizes" in shown.reasons[1]


# ----- what each was told ------------------------------------------------------------------------


def test_each_keeps_its_options() -> None:
    given = points(17, 23)
    out = np.empty((17, 2))
    indices = np.empty((17, 1)), np.empty((17, 1), np.int64)
    found = together(
        lazy("lse", 1, *tensors(*given), keepdim=True),
        lazy("soft", 1, *tensors(*given), out=out),
        lazy("min_argmin", 1, *tensors(*given), out=indices),
        lazy("sum", 0, *tensors(*given), keepdim=True),
    )
    assert found[0].shape == (17, 1, 1)
    assert found[3].shape == (1, 23, 1)
    assert found[1] is out
    assert found[2][0] is indices[0]
    wide = list(map(torch.from_numpy, given))
    compare([out, *indices], meant([("soft", 1), ("min_argmin", 1)], *wide), 1e-10)
    with pytest.raises(errors.ShapeError, match="out"):
        together(
            lazy("lse", 1, *tensors(*given)), lazy("sum", 1, *tensors(*given), out=np.empty((3, 1)))
        )


def test_tensors_are_filled_with_their_graph() -> None:
    given = LIBRARIES["graph"](points(17, 23))
    out = torch.empty(17, 2, dtype=torch.float64)
    _, filled = together(
        lazy("lse", 1, *tensors(*given)), lazy("soft", 1, *tensors(*given), out=out)
    )
    assert filled is out
    alone = lazy("soft", 1, *tensors(*given))()
    for got, want in zip(
        torch.autograd.grad(filled.sin().sum(), given),
        torch.autograd.grad(alone.sin().sum(), given),
        strict=True,
    ):
        assert_close(got.numpy(), want.numpy(), rtol=1e-10)
    leaf = torch.empty(17, 2, dtype=torch.float64, requires_grad=True)
    with pytest.raises(errors.DerivativeError, match="out"):
        together(lazy("lse", 1, *tensors(*given)), lazy("soft", 1, *tensors(*given), out=leaf))


def test_symbols_are_given_in_the_order_of_their_positions() -> None:
    D = Vi(1, 3).sqdist(Vj(0, 3))
    G = (-D * Pm(2, 1)).exp()
    waits = together(D.min(axis=1, call=False), G.sum(axis=0, call=False))
    x, y, _ = points(17, 23)
    table = ((x[:, None] - y) ** 2).sum(-1)
    for _ in range(2):
        nearest, sums = waits(y, x, 0.5)
        assert_close(nearest, table.min(1, keepdims=True), rtol=1e-12)
        assert_close(sums, np.exp(-table / 2).sum(0)[:, None], rtol=1e-12)
    assert "waits" not in repr(waits)
    assert len(waits) == 2
    with pytest.raises(errors.ArgumentError, match="takes 3 arrays"):
        waits(y, x)
    assert waits.explain().passes


def test_plans_are_pickled_and_copied() -> None:
    given = points(17, 23)
    waits = together(*waiting(MIXTURES["both indices"], *given), call=False)
    for other in (pickle.loads(pickle.dumps(waits)), copy.deepcopy(waits)):
        compare(flat(other()), flat(waits()), 0)
    assert repr(waits).startswith("<5 reductions together: Sum over axis 0, SumSoftMaxWeight")


def test_sums_of_complex_numbers() -> None:
    random = np.random.default_rng(0)
    x, y = (random.standard_normal((n, 2)) + 1j * random.standard_normal((n, 2)) for n in (17, 23))
    products = LazyTensor(x[:, None, :]) * LazyTensor(y[None])
    out = np.empty((23, 2), np.complex128)
    real, both, filled = together(
        products.abs().max(axis=1, call=False),
        products.sum(axis=1, call=False, keepdim=True),
        products.sum(axis=0, call=False, out=out),
    )
    table = x[:, None] * y
    assert_close(real, np.abs(table).max(1), rtol=1e-12)
    np.testing.assert_allclose(both, table.sum(1, keepdims=True), rtol=1e-12)
    assert filled is out
    np.testing.assert_allclose(out, table.sum(0), rtol=1e-12)


def test_ranges() -> None:
    given = points(40, 60)
    cuts = [np.linspace(0, size, n + 1).astype(int) for size, n in ((40, 3), (60, 4))]
    keep = np.array([[1, 0, 1, 1], [0, 0, 0, 0], [0, 1, 0, 0]], bool)
    pairs = from_matrix(*(np.stack([cut[:-1], cut[1:]], 1) for cut in cuts), keep)
    for library, mixture in (("numpy", "running"), ("graph", "shifted"), ("graph", "two passes")):
        arrays = LIBRARIES[library](given)
        reductions = waiting(MIXTURES[mixture], *arrays, ranges=pairs)
        results = flat(together(*reductions))
        compare(results, flat(tuple(r() for r in reductions)), 1e-10)
        if library == "graph":
            same_gradients(results, flat(tuple(r() for r in reductions)), arrays)
    shown = together(*waiting(MIXTURES["both indices"], *given, ranges=pairs), call=False).explain()
    assert len(shown.passes) == 2


# ----- passes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("mixture", list(MIXTURES))
def test_what_is_one_pass_is_said(mixture: str) -> None:
    given = points(170, 230)
    waits = together(*waiting(MIXTURES[mixture], *given), call=False)
    for shown in (
        waits.explain(),
        explain(waits),
        together(*waiting(MIXTURES[mixture], *given), call=False).explain(),
    ):
        assert len(shown.passes) == PASSES[mixture]
        assert sorted(n for own in shown.numbers for n in own) == [*range(len(waits))]
        assert [bool(reason) for reason in shown.reasons] == [False, True][: len(shown.passes)]
    text = str(shown)
    assert f"pass 1 of {PASSES[mixture]}" in text
    assert all(row.reduction_op in text for row in waits.reductions)
    assert "pass" in repr(shown)


def test_why_there_are_several_passes() -> None:
    x, y, _ = points(170, 230)
    D = Vi(x).sqdist(Vj(y))
    wide = Vj(np.ones((230, 70)))

    def reasons(*reductions: Any) -> list[str]:
        return list(together(*reductions, call=False).explain().reasons)

    sums, least = D.sum(axis=1, call=False), D.min(axis=1, call=False)
    long = (D * wide).sum(axis=1, call=False)
    assert ["more components" in why for why in reasons(sums, long, least)] == [False, True]
    exact = D.sum(axis=1, call=False, sum_scheme="kahan_scheme")
    assert ["accumulated" in why for why in reasons(sums, exact, least)] == [False, True]
    other = D.argmin(axis=0, call=False)
    lowest = D.argmin(axis=1, call=False)
    assert ["other index" in why for why in reasons(other, lowest)] == [False, True]
    with settings(lanes="column"):
        assert len(reasons(sums, D.sum(axis=0, call=False))) == 2
    one = together(sums, long, least, exact, other, lowest)
    for got, alone in zip(one, (sums, long, least, exact, other, lowest), strict=True):
        assert_close(got, alone(), rtol=1e-11)


def test_more_components_than_a_pass_has() -> None:
    x, y, _ = points(19, 37)
    wide = np.random.default_rng(0).standard_normal((37, 70))
    D = Vi(x).sqdist(Vj(y))
    given = [torch.tensor(array, requires_grad=True) for array in (x, y, wide)]

    def all_of(x: Array, y: Array, wide: Array) -> list[Any]:
        D = Vi(x).sqdist(Vj(y))
        return [
            (D * Vj(wide)).sum(axis=1, call=False),
            (-D).sumsoftmaxweight(Vj(wide), axis=1, call=False),
            D.min(axis=1, call=False),
            (-D).logsumexp(axis=1, call=False),
        ]

    results = together(*all_of(*given))
    alone = tuple(r() for r in all_of(*given))
    compare(flat(results), flat(alone), 1e-10)
    same_gradients(flat(results), flat(alone), given)
    assert len(together(*all_of(x, y, wide), call=False).explain().passes) == 3
    assert D.nj == 37


def test_exponentials_are_shared() -> None:
    given = points(170, 230)
    both = together(*waiting([("lse", 1), ("soft", 1)], *given), call=False).explain()
    (shown,) = both.passes
    alone = lazy("soft", 1, *tensors(*given)).explain()
    assert shown.flops_per_pair == alone.flops_per_pair + 1
    assert shown.stages == alone.stages


# ----- derivatives in torch ----------------------------------------------------------------------


def loss(results: Sequence[Array]) -> Array:
    """A number of all values."""
    values = [r for r in results if r.is_floating_point()]
    return sum((r * (1 + n)).cos().sum() for n, r in enumerate(values))


def same_gradients(got: Sequence[Array], want: Sequence[Array], given: list[Array]) -> None:
    """Gradients of all results, and of each."""
    pairs = [(loss(got), loss(want))]
    pairs += [(loss([a]), loss([b])) for a, b in zip(got, want, strict=True) if a.requires_grad]
    for one, other in pairs:
        kept = {"allow_unused": True, "retain_graph": True}
        found, wanted = (torch.autograd.grad(each, given, **kept) for each in (one, other))
        for a, b, array in zip(found, wanted, given, strict=True):
            a, b = (torch.zeros_like(array) if g is None else g for g in (a, b))
            assert_close(a.numpy(), b.numpy(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("mixture", list(MIXTURES))
@pytest.mark.parametrize("size", [(17, 23), (200, 9), (6, 5)], ids=str)
def test_gradients(mixture: str, size: tuple[int, int]) -> None:
    given = LIBRARIES["graph"](points(*size))
    results = flat(together(*waiting(MIXTURES[mixture], *given)))
    same_gradients(results, meant(MIXTURES[mixture], *given), given)
    for result in results:
        whole = not result.is_floating_point()
        assert result.requires_grad == (not whole)


def of_all(mixture: str, f: Callable[..., Any]) -> Callable[..., Any]:
    """The values of a program, as one function of the arrays."""
    return lambda *given: [r for r in flat(f(MIXTURES[mixture], *given)) if r.is_floating_point()]


def ours(names: Names, *given: Array) -> Any:
    return together(*waiting(names, *given))


def theirs(names: Names, *given: Array) -> Any:
    return tuple(meant(names, *given))


@pytest.mark.parametrize("mixture", ["shifted", "all forms", "both indices"])
def test_gradients_in_batches_and_half_precision(mixture: str) -> None:
    given = [
        a.requires_grad_() for a in map(torch.from_numpy, points(17, 23, "float64", ((2,), (), ())))
    ]
    x, y, b = given

    def lifted(x: Array, y: Array, b: Array) -> tuple[Array, ...]:
        return x, y[None], b[None]

    got = flat(together(*waiting(MIXTURES[mixture], *lifted(x, y, b))))
    same_gradients(got, meant(MIXTURES[mixture], *lifted(x, y, b)), given)
    half = [array.detach().to(torch.float16).requires_grad_() for array in given]
    found = torch.autograd.grad(
        loss(flat(together(*waiting(MIXTURES[mixture], *lifted(*half))))), half
    )
    alone = tuple(r() for r in waiting(MIXTURES[mixture], *lifted(*half)))
    for a, c in zip(found, torch.autograd.grad(loss(flat(alone)), half), strict=True):
        assert a.dtype == torch.float16
        assert_close(a.double().numpy(), c.double().numpy(), rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("mixture", ["running", "shifted", "both indices"])
def test_second_derivatives(mixture: str) -> None:
    given = LIBRARIES["graph"](points(7, 6))
    found: list[list[Array]] = []
    for program in (ours, theirs):
        first = torch.autograd.grad(
            loss(of_all(mixture, program)(*given)), given, create_graph=True
        )
        number = sum((g * g.detach().sin()).sum() for g in first)
        found.append(list(torch.autograd.grad(number, given)))
    for a, b in zip(*found, strict=True):
        assert_close(a.numpy(), b.numpy(), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("mixture", ["running", "shifted", "both indices"])
def test_transforms_of_torch(mixture: str) -> None:
    given = LIBRARIES["torch"](points(7, 6))
    along = tuple(torch.full_like(array, 0.3) for array in given)
    found: list[list[Array]] = []
    for program in (ours, theirs):
        f = of_all(mixture, program)

        def number(*arrays: Array, f: Any = f) -> Array:
            return loss(f(*arrays))

        many = torch.stack([given[0], -given[0]])
        found.append([
            *F.jvp(lambda *a, f=f: tuple(f(*a)), tuple(given), along)[1],
            *F.grad(number, (0, 1, 2))(*given),
            *F.vmap(lambda x, f=f: tuple(f(x, *given[1:])))(many),
            *F.vmap(F.grad(number), (0, None, None))(many, *given[1:])[None],
            F.hessian(number)(*given),
        ])  # fmt: skip
    for a, b in zip(*found, strict=True):
        assert_close(a.numpy(), b.numpy(), rtol=1e-8, atol=1e-8)


def test_one_backward_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradients of all results to one argument are one sum."""
    from pairfold.backends.llvm.launch import Call

    passes: list[int] = []  # exponentials of each
    plain = Call.__call__

    def counted(self: Any, *given: Any) -> None:
        values = reachable(self.launcher.kernel.outputs)
        passes.append(sum(value.what == "exp" for value in values))
        plain(self, *given)

    monkeypatch.setattr(Call, "__call__", counted)
    x, y, b = LIBRARIES["graph"](points(170, 230))
    results = together(*waiting([("lse", 1), ("soft", 1), ("sums", 1)], x, y.detach(), b.detach()))
    assert passes == [2]
    loss(results).backward()
    assert passes == [2, 2]
    results = together(*waiting([("lse", 1), ("soft", 1), ("sums", 1)], x, y, b))
    loss(results).backward()
    assert len(passes) == 4  # gradients to x, y and b are fused


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
def test_compiled_programs_of_torch() -> None:
    given = LIBRARIES["graph"](points(17, 23))
    sums = together(*(Vi(0, 3).sqdist(Vj(1, 3)).sum(axis=n, call=False) for n in (0, 1)))
    named = together(*GENREDS)

    def program(x: Array, y: Array, b: Array) -> Array:
        first = ours(MIXTURES["both indices"], x, y, b)
        second = sums(x.sin(), y)
        return loss(flat(first)) + loss(flat(second)) + loss(flat(named(x, y, b)))

    torch._dynamo.reset()
    compiled = torch.compile(program, backend="aot_eager", fullgraph=follows_operators())
    for a, b in zip(
        (compiled(*given), *torch.autograd.grad(compiled(*given), given)),
        (program(*given), *torch.autograd.grad(program(*given), given)),
        strict=True,
    ):
        assert_close(a.detach().numpy(), b.detach().numpy(), rtol=1e-9)
    torch._dynamo.reset()


def test_tensors_without_values_and_symbolic_sizes() -> None:
    given = LIBRARIES["torch"](points(17, 23))
    names = MIXTURES["both indices"]
    meta = [array.to("meta") for array in given]
    shapes = [tuple(array.shape) for array in flat(ours(names, *given))]
    assert [tuple(array.shape) for array in flat(ours(names, *meta))] == shapes
    for mode in ("real", "symbolic"):
        traced = make_fx(lambda *a: flat(ours(names, *a)), tracing_mode=mode)(*given)
        compare(traced(*given), flat(ours(names, *given)), 1e-12)
    x, y, _ = given
    both = [Vi(x).sqdist(Vj(y)).sum(axis=1, call=False), Vj(meta[1]).sum(axis=0, call=False)]
    with pytest.raises(errors.DeviceError, match="device"):
        together(*both)


# ----- derivatives in JAX ------------------------------------------------------------------------


# Each compiles a dozen programs; what the others add are forms that have tests without JAX.
@pytest.mark.parametrize(
    "mixture",
    [
        "shifted",
        *(
            pytest.param(name, marks=pytest.mark.product)
            for name in ("running", "both indices", "two passes")
        ),
    ],
)
def test_transforms_of_jax(mixture: str) -> None:
    jax = pytest.importorskip("jax", reason="JAX is not installed")
    jnp, names = jax.numpy, MIXTURES[mixture]
    plain = points(17, 23)
    given = jax_arrays(plain)

    def values(*arrays: Array) -> list[Array]:
        return [r for r in flat(ours(names, *arrays)) if r.dtype == jnp.float32]

    def number(*arrays: Array) -> Array:
        return sum(jnp.cos(r * (1 + n)).sum() for n, r in enumerate(values(*arrays)))

    wide = [torch.tensor(array, requires_grad=True) for array in plain]
    wanted = torch.autograd.grad(
        loss(meant(names, *wide)), wide, allow_unused=True, materialize_grads=True
    )
    for slopes in (jax.grad(number, (0, 1, 2)), jax.jit(jax.grad(number, (0, 1, 2)))):
        for got, want in zip(slopes(*given), wanted, strict=True):
            assert_close(np.asarray(got, "float64"), want.numpy(), rtol=2e-4, atol=2e-4)
    many = jnp.stack([given[0], -given[0]])
    mapped = jax.jit(jax.vmap(lambda x: values(x, *given[1:])))(many)
    each = [values(x, *given[1:]) for x in many]
    for place, got in enumerate(mapped):
        compare([got[0], got[1]], [each[0][place], each[1][place]], 1e-4)
    along = [jnp.full_like(array, 0.3) for array in given]
    moved = F.jvp(
        lambda *a: tuple(r for r in meant(names, *a) if r.is_floating_point()),
        tuple(array.detach() for array in wide),
        tuple(torch.full_like(array, 0.3) for array in wide),
    )[1]
    for got, want in zip(jax.jvp(values, given, along)[1], moved, strict=True):
        assert_close(np.asarray(got, "float64"), want.numpy(), rtol=2e-4, atol=2e-4)
    with pytest.raises(errors.UnsupportedError, match="filled"):
        together(lazy("lse", 1, *tensors(*given), out=np.empty((17, 1), "float32")))


# ----- Genreds -----------------------------------------------------------------------------------

ALIASES = ["x = Vi(3)", "y = Vj(3)", "b = Vj(2)"]
GENREDS = [
    Genred("Exp(-SqDist(x,y))*b", ALIASES, axis=1),
    Genred("-SqDist(x,y)", ALIASES, "LogSumExp", axis=1),
    Genred("SqDist(x,y)", ALIASES, "ArgMin", axis=1),
]


def test_genreds_of_the_same_variables() -> None:
    given = points(17, 23)
    for library in ("numpy", "graph", "jax"):
        arrays = LIBRARIES[library](given)
        found = together(*GENREDS)(*arrays)
        compare(flat(found), [g(*arrays) for g in GENREDS], 1e-5)
    out = np.empty((17, 2)), None, np.empty((17, 1), np.int64)
    found = together(*GENREDS)(*given, out=out, backend="CPU")
    assert found[0] is out[0]
    assert found[2] is out[2]
    compare(found, [g(*given) for g in GENREDS], 1e-12)
    assert len(together(*GENREDS).explain(*given).passes) == 1
    assert pickle.loads(pickle.dumps(together(*GENREDS)))(*given)[1].shape == (17, 1)


def test_genreds_tell_variables_by_their_names() -> None:
    x, y, b = points(17, 23)
    first = Genred("SqDist(x,y)", ["y = Vj(3)", "x = Vi(3)"], axis=1)
    second = Genred("Exp(-p*SqDist(x,y))*b", [*ALIASES, "p = Pm(1)"], axis=0)
    both = together(first, second)
    for p in (0.5, np.array([0.5])):
        one, two = both(y, x, b, p)
        assert_close(one, first(y, x), rtol=1e-12)
        assert_close(two, second(x, y, b, 0.5), rtol=1e-12)
    with pytest.raises(errors.FormulaError, match="x is declared twice"):
        together(first, Genred("x", ["x = Vi(2)"], axis=1))
    with pytest.raises(errors.FormulaError, match="need names"):
        together(first, Genred("Var(0,3,0)", ["Var(0,3,0)"], axis=1))
    unnamed = Genred("Var(0,3,0)*Var(1,3,1)", ["Var(0,3,0)", "Var(1,3,1)"], axis=1)
    compare(together(unnamed, unnamed)(x, y), [unnamed(x, y)] * 2, 1e-12)
    with pytest.raises(errors.OptionError, match="tuple of 2"):
        both(y, x, b, 0.5, out=np.empty((17, 1)))
    with pytest.raises(TypeError, match="backend"):
        both(y, x, b, 0.5, bakend="CPU")
    with pytest.raises(errors.ArrayTypeError, match="one library"):
        together(pairfold.numpy.Genred("x", ["x = Vi(2)"]), first)


# ----- what does not fit -------------------------------------------------------------------------


def test_what_does_not_fit_is_refused_before_anything_runs() -> None:
    x, y, _ = points(17, 23)
    D = Vi(x).sqdist(Vj(y))
    sums = D.sum(axis=1, call=False)
    tensors = Vi(torch.from_numpy(x)).sqdist(Vj(torch.from_numpy(y)))
    single = Vi(x.astype("float32")).sqdist(Vj(y.astype("float32")))
    out = np.full((17, 1), 7.0)
    filled = D.sum(axis=1, call=False, out=out)
    cases: list[tuple[Any, type[Exception], str]] = [
        (tensors.sum(axis=1, call=False), errors.ArrayTypeError, "cannot be combined"),
        (single.sum(axis=1, call=False), errors.DTypeError, "float32"),
        (Vi(x[:5]).sqdist(Vj(y)).sum(axis=1, call=False), errors.ShapeError, "17 and 5 rows"),
        (Vi(x).sqdist(Vj(y[:9])).sum(axis=1, call=False), errors.ShapeError, "23 and 9 columns"),
        (D.sum(axis=1, call=False, backend="GPU"), errors.OptionError, "the same backend"),
        (D.sum(axis=1, call=False, device_id=1), errors.OptionError, "the same device_id"),
        (D.sum(axis=1, call=False, ranges=pairs(17, 23)), errors.OptionError, "the same ranges"),
        (D.sum(axis=1, call=False, dtype_acc="float32"), errors.DTypeError, "float32"),
        (D, errors.ArrayTypeError, "wait for their call"),
        (D.sum(axis=1), errors.ArrayTypeError, "call=False"),
        (GENREDS[0], errors.ArrayTypeError, "not computed together"),
        (3, errors.ArrayTypeError, "wait for their call"),
    ]
    for wrong, kind, says in cases:
        with pytest.raises(kind, match=says):
            together(filled, wrong)
        with pytest.raises(kind, match=says):
            together(sums, sums, wrong, filled)
        assert (out == 7).all()
    with pytest.raises(errors.ArgumentError, match="wait for their call"):
        together()
    many = LazyTensor(np.ones((2, 17, 1, 3))) - LazyTensor(np.ones((2, 1, 23, 3)))
    more = LazyTensor(np.ones((3, 17, 1, 3))) - LazyTensor(np.ones((3, 1, 23, 3)))
    with pytest.raises(errors.ShapeError, match="batch"):
        together(many.sum(axis=2, call=False), more.sum(axis=2, call=False))


def pairs(rows: int, columns: int) -> Any:
    both = np.array([[0, rows]]), np.array([[0, columns]])
    return from_matrix(*both, np.ones((1, 1), bool))


def test_the_same_pairs_may_be_told_twice() -> None:
    x, y, _ = points(17, 23)
    D = Vi(x).sqdist(Vj(y))
    one, other = (D.sum(axis=1, call=False, ranges=pairs(17, 23)) for _ in range(2))
    assert_close(together(one, other)[0], D.sum(axis=1), rtol=1e-12)
    assert Ranges(pairs(17, 23)).arrays


def test_the_function_is_in_every_module() -> None:
    assert pairfold.numpy.together is together
    assert pairfold.torch.together is together
    assert "together" in dir(pairfold)


@pytest.mark.usefixtures("interpreter")
def test_programs_for_gpus() -> None:
    """Tensors on a GPU: one index at a time; host arrays are copied for each reduction."""
    given = points(17, 23, "float32")
    for mixture in ("shifted", "both indices"):
        reductions = waiting(MIXTURES[mixture], *given, backend="GPU")
        with settings(tile="16x16x1"):
            results = together(*reductions)
        compare(flat(results), flat(together(*waiting(MIXTURES[mixture], *given))), 1e-4)
        shown = together(*reductions, call=False).explain()
        assert len(shown.passes) == len(reductions)
        assert "copied to a GPU" in shown.reasons[-1]


@pytest.mark.usefixtures("interpreter")
@pytest.mark.parametrize("mixture", ["shifted", "lists", "both indices"])
def test_tensors_on_a_gpu(mixture: str) -> None:
    given = points(17, 23, "float32")
    waits = together(*waiting(MIXTURES[mixture], *given), call=False)
    _, arrays = filled_from(waits.order, [], [])
    with settings(tile="16x16x1"):
        on_gpu = list(map(torch.from_numpy, arrays))
        plan = waits.fold.plan(DeviceTensors, on_gpu)
        results = waits.fold(DeviceTensors, on_gpu)
    assert len(plan) == len({axis for _, axis in MIXTURES[mixture]})
    compare(flat(results), flat(waits()), 1e-4)


# ----- the rest ----------------------------------------------------------------------------------


def test_libraries_that_are_none_of_ours() -> None:
    names = [("soft", 1), ("kmin", 1), ("sums", 0), ("argmin", 1), ("mean", 1)]
    given = LIBRARIES["graph"](points(17, 23))
    waits = together(*waiting(names, *given), call=False)
    _, arrays = filled_from(waits.order, [], [])
    taped = [Taped(array.detach().numpy(), True) for array in arrays]
    results = waits()
    found = flat(differentiable(waits.fold, TapeArrays, taped, None, apply))
    wanted = torch.autograd.grad(loss(results), given)
    total: list[Any] = [0.0, 0.0, 0.0]
    for n, (own, result) in enumerate(zip(found, results, strict=True)):
        assert_close(own.value.reshape(result.shape), result.detach().numpy(), rtol=1e-10)
        if result.is_floating_point():
            number = n - (n > 3)  # as `loss` counts them
            slope = -(number + 1) * np.sin(own.value * (number + 1))
            for place, part in enumerate(grad(own, Taped(slope), taped)):
                total[place] = total[place] + part.value
    for got, want in zip(total, wanted, strict=True):
        assert_close(got.reshape(want.shape), want.numpy(), rtol=1e-9)


def test_the_benchmark_runs() -> None:
    from benchmarks.together_passes import report

    text = report(40, 3, 3)
    assert "log-sum-exp, its weighted mean (vectors), with gradients" in text
    assert all(line.count("|") == 8 for line in text.splitlines() if line.startswith("|"))


def test_weighted_reductions_of_vectors_beside_others():
    drawn = torch.Generator().manual_seed(3)
    x, y, w = (
        torch.randn(n, 3, generator=drawn, dtype=torch.float64).requires_grad_()
        for n in (17, 23, 23)
    )
    products, dense = Vi(x) * Vj(y), x[:, None] * y[None]
    mean = products.sumsoftmaxweight(Vj(w), axis=1, call=False)
    found = together(mean, products.sum(axis=1, call=False), products.logsumexp(1, call=False))
    want = (dense.softmax(1) * w).sum(1), dense.sum(1), dense.logsumexp(1)
    for one, other in zip(found, want, strict=True):
        assert_close(one.detach().numpy(), other.detach().numpy(), rtol=1e-12)
    ours, theirs = (
        torch.autograd.grad(sum(each.sin().sum() for each in results), (x, y, w))
        for results in (found, want)
    )
    for one, other in zip(ours, theirs, strict=True):
        assert_close(one.numpy(), other.numpy(), rtol=1e-10)
    several = together(mean, products.sum(axis=1, call=False), call=False)
    assert "a maximum of its own" in str(several.explain())
