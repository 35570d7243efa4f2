"""Reductions of JAX arrays under JAX's transformations, against dense programs in JAX."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

pytest.importorskip("jax", reason="JAX is not installed")
import jax
import jax.numpy as jnp
from dense_jax import GAUSS, M, N, check, data, dense, loss, squares, three
from jax.sharding import Mesh, PartitionSpec

from pairfold import errors, settings
from pairfold.jax import Genred, target_names
from pairfold.numpy import Genred as NumpyGenred

gauss = Genred(*GAUSS, axis=1)


@pytest.fixture
def wide() -> Iterator[None]:
    """64-bit numbers, which JAX leaves out unless it is told."""
    with jax.enable_x64(True):
        yield


# -- values ----------------------------------------------------------------------------------------

REDUCTIONS = {
    "Sum": lambda F: F.sum(1, keepdims=True),
    "Mean": lambda F: F.mean(1, keepdims=True),
    "Max": lambda F: F.max(1, keepdims=True),
    "LogSumExp": lambda F: jax.nn.logsumexp(F, 1, keepdims=True),
    "ArgMin": lambda F: F.argmin(1, keepdims=True),
    "Max_ArgMax": lambda F: (F.max(1, keepdims=True), F.argmax(1, keepdims=True)),
    "KMin_ArgKMin": lambda F: (jnp.sort(F, 1)[:, :3], jnp.argsort(F, 1)[:, :3]),
    "Any": lambda F: (F != 0).any(1, keepdims=True),
}


@pytest.mark.parametrize(
    ("name", "bits"),
    [*((name, 32) for name in REDUCTIONS), ("Sum", 64), ("Max_ArgMax", 64), ("KMin_ArgKMin", 64)],
)
def test_reductions_agree_with_dense_programs_and_give_the_indices_that_jax_has(name, bits):
    with jax.enable_x64(bits == 64):
        x, y, _ = three(f"float{bits}")
        given = {"opt_arg": 3} if name.startswith("K") else {}
        reduce = Genred("SqDist(x,y)", GAUSS[1][:2], name, axis=1, **given)
        wanted = REDUCTIONS[name](squares(x, y))
        assert {f"int{bits}"} >= {
            str(w.dtype) for w in jax.tree.leaves(wanted) if w.dtype.kind == "i"
        }
        check(jax.jit(reduce)(x, y), wanted)
        check(reduce(x, y), wanted)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_stored_and_comes_back(dtype):
    given = three(dtype)
    exact = dense(*(a.astype("float32") for a in given))
    found = jax.jit(gauss)(*given)
    check(found, exact.astype(dtype), 2e-2)
    if dtype == "float16":
        return
    slope = jax.grad(lambda *a: loss(gauss)(*a).astype("float32"))(*given)
    assert str(slope.dtype) == dtype
    wanted = jax.grad(loss(dense))(*(a.astype("float32") for a in given))
    check(slope.astype("float32"), wanted, 3e-2)


def test_the_bits_are_those_of_numpy():
    given = data((2500, 3), (3500, 3), (3500, 2))
    with settings(threads=2):
        found = jax.jit(gauss)(*given)
        again = NumpyGenred(*GAUSS, axis=1)(*map(np.asarray, given))
    np.testing.assert_array_equal(np.asarray(found), again)


def test_nothing_of_python_is_in_the_program():
    text = jax.jit(jax.grad(loss(gauss), (0, 1))).lower(*three()).compile().as_text()
    assert "callback" not in text
    assert sum(name in text for name in target_names()) >= 2


def test_batches_broadcast():
    scaled = Genred("Exp(-p*SqDist(x,y))*b", ["p=Pm(1)", *GAUSS[1]], axis=1)
    p, x, y, b = data((5, 1, 1), (4, M, 3), (5, 1, N, 3), (N, 2))

    def plain(p: Any, x: Any, y: Any, b: Any) -> Any:
        return jnp.exp(-p[..., None] * squares(x, y)) @ b

    check(jax.jit(scaled)(p, x, y, b), plain(p, x, y, b))
    every = (0, 2)
    check(
        jax.jit(jax.grad(loss(scaled), every))(p, x, y, b), jax.grad(loss(plain), every)(p, x, y, b)
    )


@pytest.mark.parametrize("rows", [1, M])
def test_a_split_axis_is_merged(rows):
    x, y, b = data((rows, 3), (3 * N, 3), (3 * N, 2))
    with settings(splits=3, threads=2):
        check(jax.jit(gauss)(x, y, b), dense(x, y, b))
        best = Genred("SqDist(x,y)", GAUSS[1][:2], "ArgKMin", axis=1, opt_arg=4)
        check(jax.jit(best)(x, y), jnp.argsort(squares(x, y), 1)[:, :4])


@pytest.mark.parametrize("empty", ["rows", "columns", "batch"])
def test_sizes_of_nothing(empty):
    x, y, b = three()
    if empty == "rows":
        x = x[:0]
    if empty == "columns":
        y, b = y[:0], b[:0]
    if empty == "batch":
        x = x[None][:0]
    check(jax.jit(gauss)(x, y, b), dense(x, y, b))
    slopes = jax.jit(jax.grad(loss(gauss), (0, 1, 2)))
    check(slopes(x, y, b), jax.grad(loss(dense), (0, 1, 2))(x, y, b))


@pytest.mark.parametrize("batch", [(), (3,)])
def test_where_a_kernel_bails_out_the_literal_one_is_run(batch):
    outer = Genred("a*Exp(x+y)", ["a=Vi(1)", "x=Vi(1)", "y=Vj(1)"], axis=1)
    given = [
        jnp.full((*batch, rows, 1), value) for rows, value in ((M, 1.0), (M, 95.0), (N, -95.0))
    ]
    check(jax.jit(outer)(*given), jnp.full((*batch, M, 1), float(N)))
    huge = Genred("Exp(-SqDist(x,y))", GAUSS[1][:2], axis=1)
    x = jnp.full((*batch, M, 3), 1e30)
    found = jax.jit(huge)(x, -x)
    np.testing.assert_array_equal(np.asarray(found), np.zeros((*batch, M, 1)))
    found = jax.jit(huge)(x.at[..., 3, :].set(jnp.nan), x)
    assert np.isnan(np.asarray(found)).sum() == max(1, *batch, 1)


def test_threads_may_lower_and_call_at_once():
    from concurrent.futures import ThreadPoolExecutor

    given, wanted = three(), dense(*three())
    with ThreadPoolExecutor(6) as pool:
        for found in pool.map(lambda _: jax.jit(lambda *a: gauss(*a))(*given), range(24)):
            check(found, wanted)


# -- derivatives -----------------------------------------------------------------------------------


@pytest.mark.parametrize("which", [1, (0, 1, 2)])
def test_gradients(which):
    check(jax.jit(jax.grad(loss(gauss), which))(*three()), jax.grad(loss(dense), which)(*three()))


@pytest.mark.parametrize("name", ["LogSumExp", "KMin_ArgKMin"])
def test_gradients_of_other_reductions(name):
    given = {"opt_arg": 3} if name.startswith("K") else {}
    reduce = Genred("SqDist(x,y)", GAUSS[1][:2], name, axis=1, **given)
    x, y, _ = three()

    def ours(x: Any, y: Any) -> Any:
        return jnp.sin(jax.tree.leaves(reduce(x, y))[0]).sum()

    def theirs(x: Any, y: Any) -> Any:
        return jnp.sin(jax.tree.leaves(REDUCTIONS[name](squares(x, y)))[0]).sum()

    check(jax.jit(jax.grad(ours, (0, 1)))(x, y), jax.grad(theirs, (0, 1))(x, y))


TRANSFORMED: dict[str, Callable[..., Any]] = {
    "jvp": lambda f, x, y, b: jax.jvp(f, (x, y, b), (y[:M], x[:1] + y, b))[1],
    "linearize": lambda f, x, y, b: jax.linearize(lambda t: f(t, y, b), x)[1](x),
    "grad of grads": lambda f, *a: jax.grad(
        lambda *a: sum((g**2).sum() for g in jax.grad(loss(f), (0, 1, 2))(*a)), (0, 1, 2)
    )(*a),
    "forward over reverse": lambda f, x, y, b: jax.jvp(
        lambda t: jax.grad(loss(f), (0, 1))(t, y, b), (x,), (x,)
    )[1],
    "hessian": lambda f, x, y, b: jax.hessian(loss(f))(x[:3], y[:5], b[:5]),
    "transpose of a gradient": lambda f, x, y, b: jax.linear_transpose(
        jax.vjp(f, x, y, b)[1], b[:M]
    )((x, y, b)),
    "vmap": lambda f, x, y, b: jax.vmap(f, (0, None, None))(jnp.stack([x, 2 * x]), y, b),
    "vmap of vmap": lambda f, x, y, b: jax.vmap(
        lambda t: jax.vmap(lambda u: f(u, y, t))(jnp.stack([x, 2 * x, -x]))
    )(jnp.stack([b, -b])),
    "vmap of grad": lambda f, x, y, b: jax.vmap(jax.grad(loss(f), (0, 1, 2)), (0, None, None))(
        jnp.stack([x, 2 * x]), y, b
    ),
    "grad of vmap": lambda f, x, y, b: jax.grad(
        lambda *a: loss(jax.vmap(f, (0, None, None)))(*a), (0, 1, 2)
    )(jnp.stack([x, 2 * x]), y, b),
    "scan": lambda f, x, y, b: jax.lax.scan(
        lambda c, _: (c - 0.1 * jax.grad(loss(f))(c, y, b), None), x, None, 3
    )[0],
    "checkpoint": lambda f, *a: jax.grad(jax.checkpoint(loss(f)), (0, 1))(*a),
    "cond": lambda f, x, y, b: jax.lax.cond(
        x[0, 0] > 9, lambda t: t, lambda t: f(t, y, b)[:, :1] + t, x
    ),
}


@pytest.mark.parametrize("name", TRANSFORMED)
def test_transformations_compose(name):
    transformed = TRANSFORMED[name]
    given = three()
    wanted = jax.jit(lambda *a: transformed(dense, *a))(*given)
    check(jax.jit(lambda *a: transformed(gauss, *a))(*given), wanted, 1e-4)


def test_transformations_of_64_bits(wide):
    name = "jvp"
    given = three("float64")
    check(TRANSFORMED[name](gauss, *given), TRANSFORMED[name](dense, *given), 1e-12)


def test_buffers_may_be_given_away():
    def program(f: Any) -> Any:
        return jax.jit(lambda x, y, b: x + f(x, y, b)[:, :1], donate_argnums=0)

    x, y, b = three()
    check(program(gauss)(jnp.array(x), y, b), program(dense)(jnp.array(x), y, b))


def test_what_is_constant_has_no_derivative():
    nearest = Genred("SqDist(x,y)", GAUSS[1][:2], "ArgMin", axis=1)
    x, y, _ = three()
    slope = jax.grad(lambda x: (nearest(x, y) * x).sum())(x)
    check(slope, jnp.broadcast_to(nearest(x, y), x.shape).astype(x.dtype))


def test_settings_hold_where_the_program_is_traced():
    with settings(rules="exact", fused="separate"):
        jaxpr = jax.make_jaxpr(jax.grad(loss(gauss), (0, 1)))(*three())
    found = [e.params["options"] for e in jaxpr.eqns if e.primitive.name == "pairfold"]
    assert len(found) == 3
    assert {(each.rules, each.fused) for each in found} == {("exact", "separate")}
    (fused,) = [
        e
        for e in jax.make_jaxpr(jax.grad(loss(gauss), (0, 1)))(*three()).eqns
        if e.primitive.name == "pairfold" and len(e.outvars) == 2
    ]
    assert fused.params["options"].fused == "auto"


# -- several devices -------------------------------------------------------------------------------


@pytest.mark.parametrize("checked", [False, True])
def test_devices_may_have_parts_of_rows_or_columns(checked, two_devices):
    P = PartitionSpec
    rows, columns = (P("d"), P(), P()), (P(), P("d"), P("d"))

    def mapped(f: Any, given: Any, results: Any) -> Any:
        options = {"mesh": two_devices, "in_specs": given, "out_specs": results}
        return jax.jit(jax.shard_map(f, check_vma=checked, **options))

    x, y, b = data((2 * M, 3), (2 * N, 3), (2 * N, 2))
    by_rows = mapped(gauss, rows, P("d"))
    by_columns = mapped(lambda *a: jax.lax.psum(gauss(*a), "d"), columns, P())
    for program in (by_rows, by_columns)[checked:]:
        check(program(x, y, b), dense(x, y, b))
        check(
            jax.grad(loss(program), (0, 1, 2))(x, y, b), jax.grad(loss(dense), (0, 1, 2))(x, y, b)
        )


@pytest.fixture
def two_devices() -> Any:
    """A mesh of two devices."""
    if len(jax.devices()) < 2:
        pytest.skip("JAX was started with one device")  # nothing can be cut in two
    return Mesh(np.array(jax.devices()[:2]), ("d",))


# -- what is refused -------------------------------------------------------------------------------


def test_programs_for_gpus_are_refused():
    with pytest.raises(errors.DeviceError, match="cuda"):
        jax.jit(gauss).trace(*three()).lower(lowering_platforms=("cuda",))


def test_what_does_not_fit_is_said_while_tracing():
    x, y, b = three()
    with pytest.raises(errors.ShapeError, match="same number of rows"):
        jax.jit(gauss)(x, y, b[:-1])
    with pytest.raises(errors.DTypeError, match="dtype int32"):
        jax.jit(gauss)(x, y, b.astype("int32"))
    with pytest.raises(errors.DTypeError, match="same dtype"):
        jax.jit(gauss)(x, y, b.astype("bfloat16"))
    with pytest.raises(errors.ArrayTypeError, match=r"jax\.numpy\.asarray"):
        jax.jit(lambda x: gauss(x, np.asarray(y), b))(x)
    with pytest.raises(errors.UnsupportedError, match="cannot be filled"):
        gauss(x, y, b, out=jnp.zeros((M, 2)))
    with settings(backend="reference"), pytest.raises(errors.UnsupportedError, match="reference"):
        gauss(x, y, b)


def test_sizes_must_be_known():
    rows = jax.ShapeDtypeStruct(jax.export.symbolic_shape("m, 3"), "float32")
    with pytest.raises(errors.UnsupportedError, match="sizes that are known"):
        jax.export.export(jax.jit(gauss))(rows, *three()[1:])


def test_numbers_and_last_axes_may_be_left_out():
    scaled = Genred("p*Exp(-SqDist(x,y))*b", ["p=Pm(1)", "x=Vi(3)", "y=Vj(3)", "b=Vj(1)"], axis=1)
    x, y, b = three()
    wanted = 2 * dense(x, y, b[:, :1])
    check(scaled(2.0, x, y, b[:, 0]), wanted)
    check(jax.jit(scaled)(2.0, x, y, b[:, 0]), wanted)
