"""The same program in NumPy, torch and, where it is installed, JAX: arrays, results, gradients."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch

try:
    import jax
except ImportError:  # an extra
    jax = None

NAMES = ("numpy", "torch", "jax")
per_library = pytest.mark.parametrize("library", NAMES)


def evaluated(
    library: str, program: Callable[..., Any], arrays: Sequence[Any], dtype: str
) -> tuple[Any, list[Any] | None]:
    """What a program gives for arrays of a library, and the gradients of the sum of its sines.

    NumPy has no gradients: None in their place.
    """
    if library == "numpy":
        return np.asarray(program(*(array.astype(dtype) for array in arrays))), None
    if library == "torch":
        given = [torch.tensor(array.astype(dtype), requires_grad=True) for array in arrays]
        found = program(*given)
        if not found.requires_grad:
            return found.numpy(), None
        gradients = torch.autograd.grad(found.sin().sum(), given, allow_unused=True)
        filled = [torch.zeros_like(x) if g is None else g for x, g in zip(given, gradients)]
        return found.detach().numpy(), [g.numpy() for g in filled]
    if jax is None:
        pytest.skip("JAX is not installed")  # an extra
    with jax.enable_x64(True) if dtype == "float64" else contextlib.nullcontext():
        given = [jax.numpy.asarray(array.astype(dtype)) for array in arrays]

        def loss(*args: Any) -> Any:
            found = program(*args)
            sines = jax.numpy.sin(found).sum() if found.dtype.kind == "f" else 0.0
            return sines, found

        gradients, found = jax.grad(loss, tuple(range(len(given))), has_aux=True)(*given)
        kept = np.asarray(found).dtype.kind == "f"
        return np.asarray(found), [np.asarray(g) for g in gradients] if kept else None
