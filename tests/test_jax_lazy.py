"""Lazy tensors, ranges, clusters and linear systems of JAX arrays, against dense programs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("jax", reason="JAX is not installed")
import jax
import jax.numpy as jnp
from dense_jax import GAUSS, M, N, check, data, dense, loss, squares, three

from pairfold import errors
from pairfold.jax import Genred, KernelSolve, LazyTensor, Pm, Vi, Vj, cluster


def lazy(x: Any, y: Any, b: Any) -> Any:
    """The Gaussian sum as lazy tensors."""
    return (-((LazyTensor(x[:, None, :]) - LazyTensor(y[None])) ** 2).sum(-1)).exp() @ b


# -- lazy tensors ----------------------------------------------------------------------------------


def test_lazy_tensors_are_what_arrays_are_under_transformations():
    given = three()
    check(lazy(*given), dense(*given))
    with jax.checking_leaks():
        check(jax.jit(lambda *a: 2 * lazy(*a))(*given), 2 * dense(*given))
    slopes = jax.jit(jax.grad(loss(lazy), (0, 1, 2)))
    check(slopes(*given), jax.grad(loss(dense), (0, 1, 2))(*given))
    x, y, b = given
    both = jnp.stack([x, -x])
    check(jax.vmap(lazy, (0, None, None))(both, y, b), jax.vmap(dense, (0, None, None))(both, y, b))


def test_parameters_and_operands_of_lazy_tensors():
    x, y, b = three()

    def ours(p: Any) -> Any:
        return loss(lambda p: (-Vi(x).sqdist(Vj(y)) * Pm(p) * 0.5).exp() @ b)(p)

    def theirs(p: Any) -> Any:
        return loss(lambda p: jnp.exp(-squares(x, y) * p * 0.5) @ b)(p)

    p = jnp.array([1.5])
    check(jax.jit(jax.grad(ours))(p), jax.grad(theirs)(p))
    left = jnp.float32(2) * Vi(x).sqdist(Vj(y))  # JAX's own operators leave it to lazy tensors
    check(left.sum(1), 2 * squares(x, y).sum(1, keepdims=True))
    check((x[:, None, :] - LazyTensor(y[None])).sum(1), (x[:, None] - y[None]).sum(1))


def test_reductions_of_lazy_tensors():
    x, y, _ = three()
    distances, table = Vi(x).sqdist(Vj(y)), squares(x, y)
    check(jax.jit(lambda x: Vi(x).sqdist(Vj(y)).argmin(1))(x), table.argmin(1, keepdims=True))
    check(distances.logsumexp(1), jax.nn.logsumexp(table, 1, keepdims=True))
    best = (table.min(1, keepdims=True), table.argmin(1, keepdims=True))
    check(distances.min_argmin(1), best)


def test_complex_numbers():
    x, y, _ = three()
    z = x + 1j * x[::-1]
    found = (LazyTensor(z[:, None, :]) * LazyTensor(y[None])).sum(1)
    check(found, (z[:, None] * y[None]).sum(1))


def test_arrays_of_two_libraries_are_told_apart():
    x, y, _ = three()
    with pytest.raises(errors.ArrayTypeError, match=r"jax\.numpy\.asarray"):
        Vi(x) * Vj(np.asarray(y))
    with pytest.raises(errors.UnsupportedError, match="cannot be filled"):
        Vi(x).sqdist(Vj(y)).sum(1, out=jnp.zeros((M, 1)))


# -- ranges ----------------------------------------------------------------------------------------


def blocks() -> tuple[Any, Any, Any, Any]:
    """Sorted points of two clouds, ranges of near clusters, and the mask that they mean."""
    x, y = data((M, 3), (N, 3))
    found = []
    for points in (x, y):
        labels = cluster.grid_cluster(points, 0.7)
        ranges, centers, _ = cluster.cluster_ranges_centroids(points, labels)
        found.append((cluster.sort_clusters(points, labels)[0], ranges, centers))
    (x, of_x, at_x), (y, of_y, at_y) = found
    near = squares(at_x, at_y) < 1
    ranges = cluster.from_matrix(of_x, of_y, near)
    rows, columns = (np.diff(np.asarray(each), axis=1)[:, 0] for each in (of_x, of_y))
    mask = np.repeat(np.repeat(np.asarray(near), rows, 0), columns, 1)
    assert 0 < mask.sum() < mask.size
    return x, y, ranges, mask


def test_ranges_of_clusters():
    x, y, ranges, mask = blocks()
    (b,) = data((2, N, 2))
    gauss = Genred(*GAUSS, axis=1)

    def ours(x: Any, y: Any, b: Any) -> Any:
        return gauss(x, y, b, ranges=ranges)

    def theirs(x: Any, y: Any, b: Any) -> Any:
        return (jnp.exp(-squares(x, y)) * mask) @ b

    check(jax.jit(ours)(x, y, b), theirs(x, y, b))
    slopes = jax.jit(jax.grad(loss(ours), (0, 1, 2)))
    check(slopes(x, y, b), jax.grad(loss(theirs), (0, 1, 2))(x, y, b))


def test_ranges_need_values():
    x, y, ranges, _ = blocks()
    (b,) = data((N, 2))
    with pytest.raises(errors.ArrayTypeError, match=r"outside of jax\.jit"):
        jax.jit(lambda r: Genred(*GAUSS, axis=1)(x, y, b, ranges=r))(tuple(ranges))


# -- linear systems --------------------------------------------------------------------------------

solver = KernelSolve("Exp(-SqDist(x,y))*b", ["x=Vi(3)", "y=Vj(3)", "b=Vj(2)"], "b", axis=1)


def solved(x: Any, b: Any, alpha: Any) -> Any:
    return solver(x, x, b, alpha=alpha, eps=1e-7)


def solved_dense(x: Any, b: Any, alpha: Any) -> Any:
    return jnp.linalg.solve(jnp.exp(-squares(x, x)) + alpha * jnp.eye(M), b)


SYSTEMS: dict[str, Callable[..., Any]] = {
    "value": lambda f, *a: f(*a),
    "jit of grad": lambda f, *a: jax.jit(jax.grad(loss(f), (0, 1, 2)))(*a),
    "forward over reverse": lambda f, x, b, a: jax.jvp(
        lambda t: jax.grad(loss(f), 1)(x, t, a), (b,), (b,)
    )[1],
    "vmap": lambda f, x, b, a: jax.vmap(f, (None, 0, 0))(
        x, jnp.stack([b, -b]), jnp.stack([a, 2 * a])
    ),
}


@pytest.mark.parametrize("name", SYSTEMS)
def test_solutions_and_their_derivatives(name):
    x, b = data((M, 3), (M, 2))
    given = (x, b, jnp.float32(0.5))
    check(SYSTEMS[name](solved, *given), SYSTEMS[name](solved_dense, *given), 5e-4)


def test_systems_of_lazy_tensors():
    x, b = data((M, 3), (M, 2))
    found = (-Vi(x).sqdist(Vj(x))).exp().solve(b, alpha=0.5, eps=1e-7)
    check(found, solved_dense(x, b, 0.5), 5e-4)


def test_what_systems_refuse():
    x, b = data((M, 3), (M, 2))
    with pytest.raises(errors.UnsupportedError, match="by name"):
        solver(x, x, b, preconditioner=lambda r: r)
    with pytest.raises(errors.SolveError):
        solver(x, x, b, alpha=-3.0)
