"""What tests of JAX share: two devices, data, dense programs, comparison."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

jax.config.update("jax_num_cpu_devices", 2)  # an error where JAX was started before

M, N = 17, 23
GAUSS = ("Exp(-SqDist(x,y))*b", ["x=Vi(3)", "y=Vj(3)", "b=Vj(2)"])


def squares(x: Any, y: Any) -> Any:
    """All squared distances."""
    return ((x[..., :, None, :] - y[..., None, :, :]) ** 2).sum(-1)


def dense(x: Any, y: Any, b: Any) -> Any:
    """What `GAUSS` means."""
    return jnp.exp(-squares(x, y)) @ b


def data(*shapes: tuple[int, ...], dtype: str = "float32") -> list[Any]:
    """Arrays of normal numbers, the same at each call."""
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.standard_normal(shape) / 2, dtype) for shape in shapes]


def three(dtype: str = "float32") -> list[Any]:
    """Arguments of `GAUSS`."""
    return data((M, 3), (N, 3), (N, 2), dtype=dtype)


def loss(f: Callable[..., Any]) -> Callable[..., Any]:
    """A number that is made of all results."""
    return lambda *args: jnp.sin(f(*args)).sum()


def check(found: Any, wanted: Any, tolerance: float = 2e-5) -> None:
    """Raise unless trees of arrays agree: shapes, dtypes, values."""
    ours, theirs = jax.tree.leaves(found), jax.tree.leaves(wanted)
    assert len(ours) == len(theirs) > 0
    for one, other in zip(ours, theirs, strict=True):
        assert one.shape == other.shape
        assert one.dtype == other.dtype
        got, want = (np.asarray(each).astype(complex) for each in (one, other))
        scale = max(1.0, float(abs(want).max(initial=0)))
        np.testing.assert_allclose(got, want, 0, tolerance * scale)
