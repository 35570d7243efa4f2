"""Memory of the host as arrays of NumPy: what calls are given are addresses."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .interface import Strides

Floats = NDArray[np.float64]
Stored = NDArray[np.generic]


def view_of(address: int, shape: tuple[int, ...], strides: Strides, dtype: str) -> Stored:
    """The memory of one batch element as an array, bfloat16 as the bits it has."""
    bits = np.dtype({"bfloat16": "uint16"}.get(dtype, dtype))
    if not all(shape):
        return np.empty(shape, bits)
    where = {
        "data": (address, False),
        "shape": shape,
        "strides": strides,
        "typestr": bits.str,
        "version": 3,
    }
    return np.asarray(type("Memory", (), {"__array_interface__": where})())


def widened(view: Stored) -> Floats:
    """Values in float64; of bfloat16, whose bits are the upper half of a float32."""
    if view.dtype != np.uint16:
        return view.astype(np.float64)
    return (view.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
