"""Reductions over the entries of sparse matrices, against NumPy on each row's own pairs, and torch.

The oracles are those of masks: what is no entry is nowhere in them.
"""

from __future__ import annotations

import pickle
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from checks import assert_close, assert_same_bits
from test_masks import CASES, K, check, oracle

import pairfold as pf
from pairfold import LazyTensor, Vi, Vij, Vj
from pairfold.errors import (
    ArgumentError,
    ArrayTypeError,
    DTypeError,
    OptionError,
    ShapeError,
)
from pairfold.settings import settings

M, N = 17, 23
Array = Any
# What torch says of tensors in compressed rows.
pytestmark = pytest.mark.filterwarnings("ignore:Sparse CSR tensor support:UserWarning")


def entries(m: int = M, n: int = N, seed: int = 0) -> Array:
    """A table (m, n) of truth values, with rows and columns where none is true."""
    rng = np.random.default_rng(seed)
    found = rng.random((m, n)) < 0.25
    found[3::5] = False
    found[:, 4::7] = False
    return found


def points(dtype: str = "float64", m: int = M, n: int = N, *batch: int) -> tuple[Array, Array]:
    rng = np.random.default_rng(1)
    return (
        rng.random((*batch, m, 2)).astype(dtype),
        rng.random((*batch, n, 2)).astype(dtype),
    )


def shuffled(table: Array, dtype: Any = "float64") -> Any:
    """The entries in disorder, each twice, the second time with the opposite number; and zeros."""
    rng = np.random.default_rng(2)
    i, j = np.nonzero(table)
    far, off = np.nonzero(~table)
    rows, columns = np.concatenate([i, i, far[::3]]), np.concatenate([j, j, off[::3]])
    values = np.concatenate([np.ones(len(i)), -np.ones(len(i)), np.zeros(len(far[::3]))])
    order = rng.permutation(len(rows))
    given = values.astype(dtype)[order], (rows[order], columns[order])
    return sp.coo_array(given, shape=table.shape)


FORMS: dict[str, Callable[[Array], Any]] = {
    **{
        name: lambda table, name=name: sp.coo_array(table).asformat(name)
        for name in ("csr", "csc", "coo", "lil", "dok", "dia")
    },
    "bsr": lambda table: sp.bsr_array(np.pad(table, ((0, 0), (0, 1))), blocksize=(1, 4)),
    "matrix": lambda table: sp.csr_matrix(table.astype("int8") * 3),
    "nan": lambda table: sp.csr_array(np.where(table, np.nan, 0)),
    "shuffled": shuffled,
    "torch coo": lambda table: torch.as_tensor(table).to_sparse_coo(),
    "torch csr": lambda table: torch.as_tensor(table * -2.5).to_sparse_csr(),
    "torch csc": lambda table: torch.as_tensor(table.astype("uint8")).to_sparse_csc(),
    "torch shuffled": lambda table: (
        lambda coo: torch.sparse_coo_tensor(
            np.stack([coo.row, coo.col]), coo.data, table.shape, check_invariants=True
        )
    )(shuffled(table)),
}


def turned(table: Array, axis: int) -> Array:
    """A table of pairs (..., M, N, D) or (M, N) with the reduced axis second."""
    return np.swapaxes(table, 0, 1) if axis == 0 else table


# -- what is taken --------------------------------------------------------------------------------


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("form", list(FORMS))
def test_every_format_means_its_entries(form: str, axis: int) -> None:
    table = entries()
    matrix = FORMS[form](table)
    table = np.pad(table, [(0, m - k) for m, k in zip(matrix.shape, table.shape)])
    x, y = points("float64", *matrix.shape)
    values = ((x[:, None] - y) ** 2).sum(-1)
    lazy = ((Vi(x) - Vj(y)) ** 2).sum(-1)
    assert_close(
        lazy.sum(axis=axis, where=matrix)[:, 0], np.where(table, values, 0).sum(axis), terms=N
    )
    assert_same_bits(
        lazy.argmin(axis=axis, where=matrix)[:, 0], np.where(table, values, np.inf).argmin(axis)
    )


@pytest.mark.parametrize("shape", [(1, 1), (0, 5), (5, 0), (0, 0), (4, 6)], ids=str)
@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("axis", [0, 1])
def test_small_and_empty_matrices(shape: tuple[int, int], full: bool, axis: int) -> None:
    x, y = points("float64", *shape)
    table = np.full(shape, full)
    lazy, matrix = Vi(x) - Vj(y), sp.csr_array(table)
    values = turned(x[:, None] - y, axis)
    for name in ("Sum", "Mean", "Min_ArgMin", "LogSumExp"):
        got = lazy.reduction(name, axis=axis, where=matrix)
        check(name, got, oracle(name, values, None, turned(table, axis)), "float64", terms=6)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize(("name", "weighted"), CASES)
@pytest.mark.parametrize("lanes", ["row", "column"])
def test_every_reduction(name: str, weighted: bool, axis: int, lanes: str) -> None:
    table, (x, y) = entries(), points()
    scalar = weighted or "Max_Sum" in name
    lazy, values = Vi(x) - 2 * Vj(y), x[:, None] - 2 * y
    if scalar:
        lazy, values = lazy.sum(-1), values.sum(-1, keepdims=True)
    if name in ("Any", "All", "Count"):
        lazy, values = lazy > 0, (values > 0).astype(float)
    weight, g = ((Vi(x) + Vj(y)), x[:, None] + y) if weighted else (None, None)
    how = {"opt_arg": K} if name.startswith(("KMin", "ArgKMin")) else {}
    public = name.removesuffix("Weight") if name == "LogSumExpWeight" else name
    with settings(lanes=lanes):
        got = lazy.reduction(public, weight, axis=axis, where=FORMS["csr"](table), **how)
    g = None if g is None else turned(g, axis)
    want = oracle(name, turned(values, axis), g, turned(table, axis))
    check(name, got, want, "float64", terms=N)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_numbers_of_rows_are_those_of_the_matrix(dtype: str, axis: int) -> None:
    """Also those that the dtype cannot count to, in formulas, weights and masks."""
    shape = (3, 2**17) if axis == 1 else (2**17, 3)
    rng = np.random.default_rng(3)
    rows, columns = (np.sort(rng.integers(0, n, 200)) for n in shape)
    matrix = sp.coo_array((np.ones(200), (rows, columns)), shape=shape)
    x, y = (np.zeros((n, 1), dtype) for n in shape)
    number = columns if axis == 1 else rows
    own = rows if axis == 1 else columns
    index = pf.j if axis == 1 else pf.i
    wanted = number[150]
    mask = (Vi(x) == Vj(y)) & (index == int(wanted))
    got = (Vi(x) + Vj(y) + (index >= int(wanted))).sum(axis=axis, where=matrix)[:, 0]
    pairs = np.unique(np.stack([own, number]), axis=1)
    count = np.bincount(pairs[0], pairs[1] >= wanted, 3)
    assert_same_bits(got, count.astype(dtype))
    found = (Vi(x) + Vj(y)).argmax(axis=axis, where=(matrix, mask))[:, 0]
    assert found.max() == wanted
    assert found.dtype == np.int64


@pytest.mark.parametrize("axis", [0, 1])
def test_other_masks_beside_it(axis: int) -> None:
    table, (x, y) = entries(), points()
    lazy, values = Vi(x) - Vj(y), x[:, None] - y
    keep = table & (np.arange(N) <= np.arange(M)[:, None]) & (values[..., 0] < 0.2)
    masks = (pf.causal(), sp.csr_array(table), (Vi(x) - Vj(y))[0] < 0.2)
    for name in ("Sum", "Mean", "ArgKMin", "SumSoftMaxWeight"):
        if name == "SumSoftMaxWeight":
            got = lazy[0].reduction(name, lazy, axis=axis, where=masks)
            want = oracle(name, *(turned(v, axis) for v in (values[..., :1], values, keep)))
        else:
            got = lazy.reduction(name, None, K if "K" in name else None, axis, where=list(masks))
            want = oracle(name, turned(values, axis), None, turned(keep, axis))
        check(name, got, want, "float64", terms=N)


@pytest.mark.parametrize("axis", [0, 1])
def test_arrays_of_pairs_labels_and_formulas_of_one_index(axis: int) -> None:
    table, (x, y) = entries(), points()
    matrix, bias = sp.csr_array(table), np.random.default_rng(4).random((M, N, 2))
    ids = np.arange(M) % 3, np.arange(N) % 3
    keep = table & (ids[0][:, None] == ids[1])
    cases = [
        (Vij(bias) * Vi(x) + pf.j, bias * x[:, None] + np.arange(N)[:, None]),
        (Vi(x) + 0, np.repeat(x[:, None], N, 1)),
        (Vj(y) * 2, np.repeat(2 * y[None], M, 0)),
    ]
    for lazy, values in cases:
        got = lazy.sum(axis=axis, where=(matrix, pf.same(*ids)))
        assert_close(got, np.where(keep[..., None], values, 0).sum(axis), terms=N)


@pytest.mark.parametrize("axis", [1, 2])
def test_batches_share_the_entries(axis: int) -> None:
    table, (x, y) = entries(), points("float64", M, N, 3)
    lazy = LazyTensor(x[:, :, None]) - LazyTensor(y[:, None])
    values = x[:, :, None] - y[:, None]
    got = lazy.sum(axis=axis, where=sp.csr_array(table))
    assert_close(got, np.where(table[..., None], values, 0).sum(axis), terms=N)
    found = lazy.argmin(axis=axis, where=sp.csr_array(table))
    assert_same_bits(found, np.where(table[..., None], values, np.inf).argmin(axis))


def test_complex_numbers_and_products() -> None:
    table, (x, y) = entries(), points()
    matrix, z = sp.csr_array(table), np.exp(1j * y)
    got = (Vi(x) * LazyTensor(z[None])).sum(axis=1, where=matrix)
    want = np.where(table[..., None], x[:, None] * z, 0).sum(1)
    assert_close(got.real, want.real, terms=N)
    assert_close(got.imag, want.imag, terms=N)
    lazy, values = ((Vi(x) - Vj(y)) ** 2).sum(-1), ((x[:, None] - y) ** 2).sum(-1)
    product = lazy.__matmul__(y, where=matrix)
    assert_close(product, np.where(table, values, 0) @ y, terms=N)
    total = lazy.sum(axis=(0, 1), where=matrix)
    assert_close(np.ravel(total), [values[table].sum()], terms=M * N)


# -- derivatives ----------------------------------------------------------------------------------


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("name", ["Sum", "Mean", "Min", "KMin", "LogSumExp", "SumSoftMaxWeight"])
def test_first_and_second_derivatives(name: str, axis: int) -> None:
    table = torch.as_tensor(entries())
    x, y = (torch.as_tensor(v).requires_grad_() for v in points())
    lazy = ((Vi(x) - 2 * Vj(y)) ** 2).sum(-1) * Vi(x)[0]
    values = ((x[:, None] - 2 * y) ** 2).sum(-1) * x[:, :1]
    other = Vj(y) if name == "SumSoftMaxWeight" else None
    length = 2 if name == "KMin" else None
    got = lazy.reduction(name, other, length, axis, where=table.to_sparse_coo())
    least = 2 if name == "KMin" else 1
    oracles: dict[str, Callable[[Any, Any], Any]] = {
        "Sum": lambda f, g: f.sum(0)[None],
        "Mean": lambda f, g: f.mean(0)[None],
        "Min": lambda f, g: f.min()[None],
        "KMin": lambda f, g: f.sort()[0][:2],
        "LogSumExp": lambda f, g: f.logsumexp(0)[None],
        "SumSoftMaxWeight": lambda f, g: (f.softmax(0)[:, None] * g).sum(0),
    }
    weights = y.expand(M, N, 2) if axis else y[:, None].expand(N, M, 2)
    pairs = zip(values if axis else values.T, weights, table if axis else table.T, strict=True)
    rows = [oracles[name](f[keep], g[keep]) for f, g, keep in pairs if keep.sum() >= least]
    enough = table.sum(axis) >= least
    got = got.reshape(len(enough), -1)[enough]
    want = torch.stack(rows)
    assert_close(got.detach(), want.detach(), terms=N)
    slopes = []
    for result in (got, want):
        first = torch.autograd.grad(result.sin().sum(), (x, y), create_graph=True)
        second = torch.autograd.grad(sum(part.cos().sum() for part in first), (x, y))
        slopes.append([*(part.detach() for part in first), *second])
    for a, b in zip(*slopes, strict=True):
        assert_close(a, b, terms=M * N, scale=100)


@pytest.mark.parametrize("name", ["Sum", "SumSoftMaxWeight"])
def test_rows_without_entries_have_no_gradient(name: str) -> None:
    table = entries()
    x, y = (torch.as_tensor(v).requires_grad_() for v in points())
    other = Vj(y) if name == "SumSoftMaxWeight" else None
    found = (Vi(x) * Vj(y)).sum(-1).reduction(name, other, axis=1, where=sp.csr_array(table))
    empty = torch.as_tensor(~table.any(1))
    assert (found[empty] == 0).all()
    for slope, kept in zip(torch.autograd.grad(found.sum(), (x, y)), (table.any(1), table.any(0))):
        assert slope.isfinite().all()
        assert ((slope == 0).all(1) | torch.as_tensor(kept)).all()


def test_transforms_of_torch() -> None:
    table = torch.as_tensor(entries())
    x, y = (torch.as_tensor(v) for v in points())
    dense = (((x[:, None] - y) ** 2).sum(-1) * table).sum(1)
    for matrix in (table.to_sparse_coo(), table.to_sparse_csr(), sp.csr_array(table.numpy())):

        def total(x: Any, matrix: Any = matrix) -> Any:
            return ((Vi(x) - Vj(y)) ** 2).sum(-1).sum(axis=1, where=matrix)

        assert_close(torch.func.vmap(total)(torch.stack([x, x]))[1, :, 0], dense, terms=N)
        slope = torch.func.grad(lambda x, total=total: total(x).sum())(x)
        want = 2 * ((x[:, None] - y) * table[..., None]).sum(1)
        assert_close(slope, want, terms=N)


def test_jax_too() -> None:
    jax = pytest.importorskip("jax")
    table, (x, y) = entries(), points("float32")
    matrix = sp.csr_array(table)

    def lazy(x: Any, y: Any) -> Any:
        return ((Vi(x) - Vj(y)) ** 2).sum(-1).sum(axis=1, where=matrix)

    def dense(x: Any, y: Any) -> Any:
        return (((x[:, None] - y) ** 2).sum(-1) * table).sum(1, keepdims=True)

    x, y = jax.numpy.asarray(x), jax.numpy.asarray(y)
    assert_close(np.asarray(jax.jit(lazy)(x, y)), np.asarray(dense(x, y)), terms=N)
    slopes = (jax.grad(lambda *v, f=f: (f(*v) ** 2).sum(), (0, 1))(x, y) for f in (lazy, dense))
    for a, b in zip(*slopes):
        assert_close(np.asarray(a), np.asarray(b), terms=M * N)
    found = ((Vi(x) - Vj(y)) ** 2).sum(-1).argmin(axis=1, where=matrix)
    values = ((np.asarray(x)[:, None] - np.asarray(y)) ** 2).sum(-1)
    assert np.asarray(found)[:, 0].tolist() == np.where(table, values, np.inf).argmin(1).tolist()


# -- calls ----------------------------------------------------------------------------------------


def test_waiting_reductions_results_in_place_and_several_together() -> None:
    table, (x, y) = entries(), points()
    lazy, matrix = Vi(x) - Vj(y), sp.csr_array(table)
    values = np.where(table[..., None], x[:, None] - y, np.inf)
    waiting = lazy.reduction("ArgMin", axis=1, where=matrix, call=False)
    for reduced in (waiting, pickle.loads(pickle.dumps(waiting)), waiting.to("float64")):
        assert_same_bits(reduced(), values.argmin(1))
    out = np.empty((M, 2), np.int64)
    assert lazy.argmin(axis=1, where=matrix, out=out) is out
    assert_same_bits(out, values.argmin(1))
    assert lazy.argmin(axis=1, where=matrix, keepdim=True).shape == (M, 1, 2)
    sums = lazy.reduction("Sum", axis=1, where=matrix, call=False)
    total, places = pf.together(sums, waiting)
    assert_close(total, np.where(table[..., None], x[:, None] - y, 0).sum(1), terms=N)
    assert_same_bits(places, values.argmin(1))
    assert "Sum" in str(sums)
    assert str(int(table.sum())) in str(lazy.explain(where=matrix))


def test_entries_are_never_made_dense() -> None:
    n, count = 10**5, 2 * 10**6
    rng = np.random.default_rng(5)
    given = np.ones(count, bool), (rng.integers(0, n, count), rng.integers(0, n, count))
    matrix = sp.coo_array(given, shape=(n, n))
    x = rng.random((n, 1)).astype("float32")
    lazy = Vi(x) * Vj(x)
    tracemalloc.start()
    got = lazy.sum(axis=1, where=matrix)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60 * (count + 2 * n)  # 10^10 pairs would have 600 times as many bytes
    once = matrix.tocsr().astype(bool).astype("float64")
    assert_close(got, x * (once @ x.astype("float64")), terms=60)


# -- errors ---------------------------------------------------------------------------------------


def test_errors_say_what_does_not_fit() -> None:
    x, y = points()
    lazy, matrix = Vi(x) - Vj(y), sp.csr_array(entries())
    refused: list[tuple[type[Exception], str, Callable[[], object]]] = [
        (ShapeError, r"\(17, 23\)", lambda: lazy.sum(axis=1, where=matrix[:5])),
        (ShapeError, r"matrix\.T", lambda: lazy.sum(axis=1, where=matrix.T)),
        (ShapeError, "two axes", lambda: lazy.sum(axis=1, where=sp.coo_array(np.ones(N)))),
        (DTypeError, "complex", lambda: lazy.sum(axis=1, where=matrix.astype(complex))),
        (OptionError, "multiply", lambda: lazy.sum(axis=1, where=(matrix, matrix))),
        (ArrayTypeError, "LazyTensor", lambda: lazy.sum(axis=1, where=(matrix, 3))),
        (OptionError, "ranges", lambda: lazy.sum(axis=1, where=matrix, ranges=[[]] * 6)),
        (ArgumentError, "symbol", lambda: (lazy * pf.Var(0, 1, 1)).sum(axis=1, where=matrix)),
        (ArrayTypeError, "reductions", lambda: lazy.softmax(axis=1, where=matrix)),
        (TypeError, "unknown", lambda: lazy.sum(axis=1, where=matrix, unknown=1)),
        (OptionError, "axis", lambda: lazy.reduction("Sum", axis=3, where=matrix)),
    ]  # fmt: skip
    for kind, words, program in refused:
        with pytest.raises(kind, match=words):
            program()
    values = torch.ones(2, M, N).to_sparse_coo()
    with pytest.raises(ShapeError, match="batches"):
        lazy.sum(axis=1, where=values)
    with pytest.raises(ShapeError, match="entries"):
        lazy.sum(axis=1, where=torch.ones(M, N).to_sparse(1))
    with pytest.raises(OptionError, match="mean over both axes"):
        lazy.mean(axis=(0, 1), where=matrix)
