"""Masks under the transformations of JAX, against dense programs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("jax", reason="JAX is not installed")
import jax
import jax.numpy as jnp
from dense_jax import check, data

import pairfold as pf
from pairfold import Genred, Vi, Vj

M, N = 9, 12
ALIASES = ["x=Vi(3)", "y=Vj(3)"]
REDUCTIONS = ["Sum", "Mean", "LogSumExp", "Min", "Prod"]


def labels() -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    return jnp.asarray(rng.integers(-2, 2, M)), jnp.asarray(rng.integers(-2, 2, N))


def table(x: Any, y: Any) -> Any:
    return ((x[:, None] - y) ** 2).sum(-1)


def reduced(name: str, f: Any, keep: Any) -> Any:
    """Over j, of (M, N); what is empty is 0."""
    some = keep.any(1, keepdims=True)
    fill = {"LogSumExp": -1e30, "Min": 1e30, "Prod": 1.0}.get(name, 0.0)
    f = jnp.where(keep, f, fill)
    how = {"LogSumExp": jax.nn.logsumexp, "Min": jnp.min, "Prod": jnp.prod}.get(name, jnp.sum)
    found = how(f, axis=1, keepdims=True)
    if name == "Mean":
        found = found / jnp.maximum(keep.sum(1, keepdims=True), 1)
    return jnp.where(some, found, 1.0 if name == "Prod" else 0.0)


def filled(x: Any) -> Any:
    return jnp.where(jnp.isfinite(x), x, 0.0)


def both(name: str, mask: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The reduction of distances under a mask, and the dense program."""
    i, j = jnp.arange(M)[:, None], jnp.arange(N)
    a, b = labels()

    def lazy(x: Any, y: Any) -> Any:
        where = {
            "causal": pf.causal,
            "joined": lambda: (pf.i >= 3) & (pf.band(2) | pf.radius(x, y, 1.0)),
            "same": lambda: pf.same(a, b),
        }[mask]()
        return filled((Vi(x).sqdist(Vj(y)) / 4).reduction(name, axis=1, where=where))

    def dense(x: Any, y: Any) -> Any:
        keep = {
            "causal": j <= i,
            "joined": (i >= 3) & ((abs(i - j) <= 2) | (table(x, y) <= 1)),
            "same": a[:, None] == b,
        }[mask]
        return reduced(name, table(x, y) / 4, keep)

    return lazy, dense


def loss(f: Callable[..., Any]) -> Callable[..., Any]:
    return lambda x, y: jnp.sin(f(x, y)).sum()


@pytest.mark.parametrize(
    ("name", "mask"),
    list(zip(REDUCTIONS, ("joined", "same", "causal", "causal", "joined"))),
)
def test_transformations_are_those_of_dense_programs(name: str, mask: str) -> None:
    ours, theirs = both(name, mask)
    x, y = data((M, 3), (N, 3))
    check(ours(x, y), theirs(x, y))
    check(jax.jit(ours)(x, y), theirs(x, y))
    slopes = jax.jit(jax.grad(loss(ours), (0, 1)))(x, y)
    check(slopes, jax.grad(loss(theirs), (0, 1))(x, y))
    check(jax.jvp(ours, (x, y), (y[:M], x[:1] + y)), jax.jvp(theirs, (x, y), (y[:M], x[:1] + y)))
    many = jnp.stack([x, -x, 2 * x])
    for axes, given in (((0, None), (many, y)), ((0, 0), (many, jnp.stack([y, y, -y])))):
        check(jax.jit(jax.vmap(ours, axes))(*given), jax.vmap(theirs, axes)(*given))
    found = jax.vmap(jax.grad(loss(ours)), (0, None))(many, y)
    check(found, jax.vmap(jax.grad(loss(theirs)), (0, None))(many, y))
    if (name, mask) == ("LogSumExp", "causal"):
        check(jax.hessian(loss(ours))(x, y), jax.hessian(loss(theirs))(x, y), 2e-4)


@pytest.mark.parametrize("axis", [0, 1])
def test_formulas_with_masks(axis: int) -> None:
    x, y = data((M, 3), (N, 3))
    keep = jnp.arange(N) <= jnp.arange(M)[:, None]
    kernel = Genred("SqDist(x,y)", ALIASES, "Sum", axis=axis, where="Ind(j) <= Ind(i)")
    want = jnp.where(keep, table(x, y), 0).sum(axis)[:, None]
    check(kernel(x, y), want)
    check(jax.jit(kernel)(x, y), want)
    both = jax.jit(jax.vmap(kernel))(jnp.stack([x, x]), jnp.stack([y, y]))
    check(both, jnp.stack([want, want]))
    lists = Genred("SqDist(x,y)", ALIASES, "ArgKMin", axis=1, opt_arg=2, where="Ind(j) > Ind(i)")
    order = jnp.argsort(jnp.where(keep, jnp.inf, table(x, y)), axis=1)[:, :2]
    assert (jax.jit(lists)(x, y) == order).all()


def test_attention_to_documents_under_jit() -> None:
    q, k, v = data((M, 4), (M, 4), (M, 5))
    ids = labels()[0]

    @jax.jit
    def ours(q: Any, k: Any, v: Any, ids: Any) -> Any:
        mask = pf.same(ids, ids) & pf.causal() & pf.exclude_self()
        return (Vi(q) | Vj(k)).sumsoftmaxweight(Vj(v), axis=1, where=mask)

    def theirs(q: Any, k: Any, v: Any, ids: Any) -> Any:
        i = jnp.arange(M)
        keep = (ids[:, None] == ids) & (i[None] < i[:, None])
        return (jax.nn.softmax(jnp.where(keep, q @ k.T, -1e30), axis=1) * keep) @ v

    check(ours(q, k, v, ids), theirs(q, k, v, ids))

    def sent(f: Callable[..., Any]) -> Any:
        return jax.grad(lambda *a: jnp.sin(f(*a, ids)).sum(), (0, 1, 2))(q, k, v)

    found = sent(ours)
    check(found, sent(theirs))
    assert all(jnp.isfinite(g).all() for g in found)


def test_numbers_are_exact_and_values_of_formulas() -> None:
    x, y = jnp.zeros((9, 1), jnp.float16), jnp.ones((9, 1), jnp.float16)
    text = "Ind(j) + 16777216 <= Ind(i) + 16777217"
    kernel = jax.jit(Genred("y+x", ["x=Vi(1)", "y=Vj(1)"], "Sum", axis=1, where=text))
    assert kernel(x, y)[:, 0].tolist() == [2, 3, 4, 5, 6, 7, 8, 9, 9]
    weighted = jax.jit(lambda y: (Vj(y) * pf.j + Vi(x) * pf.i).sum(axis=1))
    assert weighted(y)[:, 0].tolist() == [36] * 9
