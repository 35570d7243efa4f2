"""Index variables and masks in the rest of lazy tensors: parts, tables, summaries, soft-max."""

from __future__ import annotations

import math
import re
import runpy
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checks import assert_close, assert_same_bits

import pairfold as pf
from pairfold import LazyTensor, Vi, Vj
from pairfold.errors import (
    ArrayTypeError,
    OptionError,
    ShapeError,
    UnsupportedError,
)
from pairfold.settings import settings

M, N = 17, 23
ROW, COLUMN = np.arange(M)[:, None], np.arange(N)[None]
CAUSAL = COLUMN <= ROW


def points() -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    return rng.random((M, 2)), rng.random((N, 2))


def kernel() -> tuple[Any, Any]:
    """A lazy tensor with index variables, and its table."""
    x, y = points()
    lazy = ((Vi(x) - Vj(y)) ** 2).sum(-1) + 10 * pf.i - pf.j * pf.i
    return lazy, ((x[:, None] - y) ** 2).sum(-1) + 10 * ROW - ROW * COLUMN


# -- parts, tables, diagonals ---------------------------------------------------------------------

SLICES = [slice(3, 11), slice(None, None, -1), slice(15, 2, -3), slice(-4, None), slice(1, None, 5)]


@pytest.mark.parametrize("part", SLICES, ids=str)
def test_slices_keep_the_numbers_of_what_they_choose(part: slice) -> None:
    k, table = kernel()
    assert_close(k[part].dense(), table[part])
    assert_close(k[:, part].dense(), table[:, part])
    assert_close(k[part, part].sum(axis=1)[:, 0], table[part, part].sum(1), terms=N)
    mask = (pf.i - 2 * pf.j < 3) & (k > 0)
    assert_same_bits(mask[part].dense(), ((ROW - 2 * COLUMN < 3) & (table > 0))[part].astype(float))
    assert_close(k[part][1:3].dense(), table[part][1:3])
    assert_close(k.T[part].dense(), table.T[part])


def test_slices_of_long_axes_are_exact() -> None:
    n = 2**24 + 40
    y = np.zeros((n, 1), "float32")
    y[-3:] = [[1], [2], [4]]
    part = (Vj(y) * (pf.j >= n - 2))[:, -10:]
    assert part.sum(axis=1).tolist() == [[6]]
    assert (Vj(y) + 0 * pf.j)[:, -3:].sum(axis=1).tolist() == [[7]]


def test_arrays_choose_no_rows_whose_numbers_are_read() -> None:
    k, _ = kernel()
    for key in ([1, 2], np.array([3]), np.arange(M) > 3):
        with pytest.raises(UnsupportedError, match="numbers"):
            k[key]
    x, y = points()
    rows = ((Vi(x) - Vj(y)) ** 2).sum(-1) + pf.i
    assert_close(rows[:, [2, 0]].dense(), (((x[:, None] - y) ** 2).sum(-1) + ROW)[:, [2, 0]])


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_tables_of_index_variables_are_exact(dtype: str) -> None:
    m, n = 2100, 3
    x, y = np.zeros((m, 1), dtype), np.zeros((n, 1), dtype)
    table = np.arange(m)[:, None] - np.arange(n)[None]
    mask = (Vi(x) == Vj(y)) & (pf.i - pf.j == 2049)
    assert_same_bits(mask.dense(), (table == 2049).astype(dtype))
    assert_same_bits((Vi(x) + Vj(y) + pf.i - pf.j).dense(), table.astype(dtype))


def test_tables_of_batches_vectors_and_their_gradients() -> None:
    x = torch.randn(2, M, 2, dtype=torch.float64, requires_grad=True)
    y = torch.randn(N, 2, dtype=torch.float64, requires_grad=True)
    i, j = torch.as_tensor(ROW), torch.as_tensor(COLUMN)
    k = (LazyTensor(x[:, :, None, :]) - Vj(y)) * pf.i + pf.j
    want = (x[:, :, None] - y) * i[..., None] + j[..., None]
    assert_close(k.dense().detach(), want.detach())
    for a, b in zip(*(torch.autograd.grad(t.sin().sum(), (x, y)) for t in (k.dense(), want))):
        assert_close(a, b, terms=N)


def test_diagonals_and_traces() -> None:
    k, table = kernel()
    assert_close(k[:, :M].diag(), np.diag(table[:, :M]))
    assert_close(k[:, :M].trace(), np.trace(table[:, :M]), terms=M)
    assert_close(k[:, 3:20].diag(), np.diag(table[:, 3:20]))
    assert_close(k.T.dense(), table.T)


# -- methods --------------------------------------------------------------------------------------

NUMPY: dict[str, Any] = {
    "sum": np.sum, "prod": np.prod, "any": np.any, "all": np.all, "mean": np.mean, "var": np.var,
    "min": lambda a, axis, where: np.min(a, axis, where=where, initial=math.inf),
    "max": lambda a, axis, where: np.max(a, axis, where=where, initial=-math.inf),
    "count": lambda a, axis, where: np.count_nonzero(np.where(where, a, 0), axis),
}  # fmt: skip


@pytest.mark.parametrize("name", list(NUMPY))
def test_methods_take_masks(name: str) -> None:
    k, table = kernel()
    k, table = k / 50, table / 50
    for axis in (0, 1, (0, 1), None):
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")  # of nothing
            want = NUMPY[name](table, axis=axis, where=CAUSAL)
        if name in ("mean", "var") and axis in ((0, 1), None):
            with pytest.raises(OptionError, match="mask"):
                getattr(k, name)(axis=axis, where=pf.causal())
            continue
        got = getattr(k, name)(axis=axis, where=pf.causal())
        assert_close(np.ravel(got), np.ravel(want), terms=M * N, formula=(name, axis))
    if name not in ("count", "min", "max"):
        got = getattr(np, name)(k, axis=1, where=pf.causal())
        assert_same_bits(got, getattr(k, name)(axis=1, where=pf.causal()))


@pytest.mark.parametrize("name", ["argmin", "argmax", "Kmin", "argKmin", "min_argmin", "logsumexp"])
def test_other_methods_pass_masks_on(name: str) -> None:
    k, _ = kernel()
    given = (2,) if "K" in name else ()
    full = {"argmin": "ArgMin", "argmax": "ArgMax", "Kmin": "KMin", "argKmin": "ArgKMin",
            "min_argmin": "Min_ArgMin", "logsumexp": "LogSumExp"}[name]  # fmt: skip
    how = {"opt_arg": 2} if given else {}
    got = getattr(k, name)(*given, axis=1, where=pf.band(3))
    want = k.reduction(full, axis=1, where=pf.band(3), **how)
    for a, b in zip(*(r if isinstance(r, tuple) else (r,) for r in (got, want)), strict=True):
        assert_same_bits(a, b)


@pytest.mark.parametrize("axis", [0, 1])
def test_variances_are_corrected_by_the_pairs_that_count(axis: int) -> None:
    k, table = kernel()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of nothing
        want = np.var(table, axis=axis, where=CAUSAL, ddof=1)
    got = k.var(axis=axis, where=pf.causal(), ddof=1)
    assert_close(got[:, 0], want, terms=N)
    kept = k.var(axis=axis, where=pf.causal(), ddof=1, keepdim=True)
    assert_same_bits(kept.ravel(), got.ravel())
    x, y = (torch.as_tensor(v) for v in points())
    lazy = ((Vi(x) - Vj(y)) ** 2).sum(-1).var(axis=axis, where=pf.band(2))  # torch's correction
    dense = ((x[:, None] - y) ** 2).sum(-1).numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        want = np.var(dense, axis=axis, where=abs(ROW - COLUMN) <= 2, ddof=1)
    assert_close(lazy[:, 0], want, terms=N)


@pytest.mark.parametrize("mask", ["causal", "late"])
def test_soft_max_over_the_pairs_of_a_mask(mask: str) -> None:
    k, table = kernel()
    where, keep = {"causal": (pf.causal(), CAUSAL), "late": (pf.j < pf.i - 4, COLUMN < ROW - 4)}[
        mask
    ]
    v, u = np.random.default_rng(1).random((N, 3)), np.random.default_rng(2).random((M,))
    for axis in (0, 1):
        low = np.where(keep, table, -1e300)
        weights = np.exp(low - low.max(axis, keepdims=True)) * keep
        weights /= np.maximum(weights.sum(axis, keepdims=True), 1e-300)
        soft = k.softmax(axis, where=where)
        if axis == 1:
            assert_close(soft @ v, weights @ v, terms=N)
            assert_close((soft * Vj(v)).sum(1), weights @ v, terms=N)
            assert_close(soft.T.__rmatmul__(v.T), (weights @ v).T, terms=N)
        else:
            assert_close(u @ soft, u @ weights, terms=M)
    with pytest.raises(OptionError, match="soft-max"):
        (k.softmax(1) * Vj(v)).sum(1, where=where)
    with pytest.raises(ArrayTypeError, match="a mask is"):
        k.softmax(1, where=True)


def test_products_with_vectors_over_some_pairs() -> None:
    k, table = kernel()
    v = np.random.default_rng(1).random((N, 3))
    assert_close(k.__matmul__(v, where=pf.causal()), np.where(CAUSAL, table, 0) @ v, terms=N)
    assert_close((k * pf.causal()) @ v, np.where(CAUSAL, table, 0) @ v, terms=N)


def test_complex_numbers() -> None:
    x, y = points()
    z = (Vi(x)[0] * 1j + pf.i) * Vj(y)[1]
    table = (x[:, None, 0] * 1j + ROW) * y[None, :, 1]
    for axis in (0, 1):
        got = z.sum(axis=axis, where=pf.causal())[:, 0]
        assert_close(got.real, np.where(CAUSAL, table, 0).sum(axis).real, terms=N)
        assert_close(got.imag, np.where(CAUSAL, table, 0).sum(axis).imag, terms=N)
    assert_close(z.dense().real, table.real)
    assert_close(z[2:5, :].dense().real, table[2:5].real)


def test_the_page_of_masks_runs(tmp_path: Path) -> None:
    page = (Path(__file__).parents[1] / "docs" / "masks.md").read_text()
    program = tmp_path / "page.py"
    program.write_text("\n".join(re.findall(r"```python\n(.*?)```", page, re.DOTALL)))
    names = runpy.run_path(str(program))
    assert names["mean"].shape == (1000, 64)
    x, y = points()
    keep = np.random.default_rng(5).random((M, N)) > 0.5
    got = ((Vi(x) - Vj(y)) ** 2).sum(-1).sum(axis=1, where=pf.Vij(keep.astype(float)))
    assert_close(got[:, 0], np.where(keep, ((x[:, None] - y) ** 2).sum(-1), 0).sum(1), terms=N)


# -- systems, and what is refused -----------------------------------------------------------------


def test_systems_of_index_variables() -> None:
    x = np.random.default_rng(0).random((M, 2))
    k = (-((Vi(x) - Vj(x)) ** 2).sum(-1) - abs(pf.i - pf.j) / 4).exp()
    i = np.arange(M)
    table = np.exp(-((x[:, None] - x) ** 2).sum(-1) - abs(i[:, None] - i) / 4)
    b = np.random.default_rng(1).random((M, 1))
    want = np.linalg.solve(table + 0.1 * np.eye(M), b)
    assert_close(k.solve(b, alpha=0.1, eps=1e-12), want, rtol=1e-8)
    assert_close((k + 0.1 * (pf.i == pf.j)).solve(b, alpha=1e-300, eps=1e-12), want, rtol=1e-8)
    labels = i % 3
    blocks = (-((Vi(x) - Vj(x)) ** 2).sum(-1)).exp() * pf.same(labels, labels)
    full = np.exp(-((x[:, None] - x) ** 2).sum(-1)) * (labels[:, None] == labels)
    want = np.linalg.solve(full + 0.1 * np.eye(M), b)
    assert_close(blocks.solve(b, alpha=0.1, eps=1e-12), want, rtol=1e-8)
    with pytest.raises(UnsupportedError, match="numbers"):
        k.solve(b, alpha=0.1, preconditioner="pivoted-cholesky")


def test_what_takes_no_mask() -> None:
    k, _ = kernel()
    b = np.ones((M, 1))
    for call in (
        lambda: k.sum(axis=-1, where=pf.causal()),
        lambda: k[:, :M].solve(b, where=pf.causal()),
        lambda: pf.KernelSolve("x*y", ["x=Vi(1)", "y=Vj(1)"], "y", where="Ind(i)"),
        lambda: pf.together(where=pf.causal()),
    ):
        with pytest.raises(TypeError, match="where"):
            call()
    with pytest.raises(ShapeError, match="17"):
        k.sum(axis=1, where=pf.same(np.arange(M - 1), np.arange(N)))


@pytest.mark.parametrize("backend", ["llvm", "reference"])
def test_whole_numbers_joined_with_parameters(backend: str) -> None:
    x, y = points()
    with settings(backend=backend):
        for width in (2.0, 3.5):
            mask = abs(pf.i - pf.j) <= pf.Pm(width)
            got = ((Vi(x) - Vj(y)) ** 2).sum(-1).sum(axis=1, where=mask)
            keep = abs(ROW - COLUMN) <= width
            want = np.where(keep, ((x[:, None] - y) ** 2).sum(-1), 0).sum(1)
            assert_close(got[:, 0], want, terms=N)
