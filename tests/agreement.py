"""Programs of NumPy, torch and JAX against one dense program of torch: values and gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from checks import assert_close

Program = Callable[..., Any]
LIBRARIES = ("numpy", "torch", "jax")


def numbers(*shapes: tuple[int, ...], seed: int = 0) -> list[Any]:
    """NumPy arrays of normal numbers."""
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape) / 2 for shape in shapes]


def agree(
    ours: Program,
    theirs: Program,
    arrays: Sequence[Any],
    libraries: Sequence[str] = LIBRARIES,
    gradients: bool = True,
    terms: int = 64,
    double_jax: bool = False,
) -> None:
    """Raise unless `ours` gives in every library, of float32 and float64, what `theirs` gives.

    Gradients are those of the sum of the sines of all results, in every array. Those of float32 are
    JAX's, where it is tried, and torch's are of float64: each dtype compiles all of them anew.

    Args:
        ours: a program of arrays of any library; it gives an array or several.
        theirs: the same of tensors, by dense torch.
        arrays: NumPy arrays.
        libraries: the libraries to try.
        gradients: whether to compare gradients.
        terms: how many numbers were added up.
        double_jax: whether to try JAX with float64, too, which compiles all anew.
    """
    wanted, slopes = _of_torch(theirs, arrays, "float64", gradients)
    for name in libraries:
        for dtype in ("float32", "float64")[: 1 if name == "jax" and not double_jax else 2]:
            own = gradients and (name, dtype, "jax" in libraries) != ("torch", "float32", True)
            for got, want in zip(_OF[name](ours, arrays, dtype, own), (wanted, slopes)):
                assert got is None or len(got) == len(want), (name, len(got), len(want))
                for one, other in zip(got or (), want or ()):
                    assert one.dtype.name in (dtype, _COMPLEX[dtype]), (name, one.dtype)
                    _compare(one, other, dtype, terms, name)


_COMPLEX = {"float32": "complex64", "float64": "complex128"}


def _compare(one: Any, other: Any, dtype: str, terms: int, name: str) -> None:
    assert one.shape == other.shape, (name, one.shape, other.shape)
    for got, want in ((one.real, other.real), (one.imag, other.imag)):
        assert_close(got.astype(dtype), want, terms=terms, formula=name)


def _cast(array: Any, dtype: str) -> Any:
    return array.astype(_COMPLEX[dtype] if array.dtype.kind == "c" else dtype)


def _listed(found: Any) -> list[Any]:
    return list(found) if isinstance(found, (tuple, list)) else [found]


def _of_numpy(f: Program, arrays: Sequence[Any], dtype: str, gradients: bool) -> Any:
    return [np.asarray(each) for each in _listed(f(*(_cast(x, dtype) for x in arrays)))], None


def _of_torch(f: Program, arrays: Sequence[Any], dtype: str, gradients: bool) -> Any:
    import torch

    given = [torch.tensor(_cast(x, dtype), requires_grad=gradients) for x in arrays]
    found = _listed(f(*given))
    slopes = None
    if gradients:
        loss = sum((torch.view_as_real(x) if x.is_complex() else x).sin().sum() for x in found)
        assert isinstance(loss, torch.Tensor)
        slopes = torch.autograd.grad(loss, given, allow_unused=True, materialize_grads=True)
        slopes = [x.numpy() for x in slopes]
    return [x.detach().numpy() for x in found], slopes


def _of_jax(f: Program, arrays: Sequence[Any], dtype: str, gradients: bool) -> Any:
    import jax
    import jax.numpy as jnp

    def loss(*given: Any) -> Any:
        found = _listed(f(*given))
        parts = [
            x for each in found for x in ((each.real, each.imag) if _is_complex(each) else (each,))
        ]
        return sum(jnp.sin(x).sum() for x in parts), found

    with jax.enable_x64(dtype == "float64"):
        given = [jnp.asarray(_cast(x, dtype)) for x in arrays]
        if not gradients:
            return [np.asarray(x) for x in jax.jit(lambda *a: _listed(f(*a)))(*given)], None
        slopes, found = jax.jit(jax.grad(loss, tuple(range(len(given))), has_aux=True))(*given)
        # JAX has the conjugates of torch's gradients of complex numbers.
        return [np.asarray(x) for x in found], [np.asarray(x).conj() for x in slopes]


def _is_complex(x: Any) -> bool:
    return "complex" in str(x.dtype)


_OF: dict[str, Callable[..., Any]] = {"numpy": _of_numpy, "torch": _of_torch, "jax": _of_jax}
