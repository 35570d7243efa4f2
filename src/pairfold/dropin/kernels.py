"""Kernel matrices that programs compare with: `pykeops.numpy.utils` and `pykeops.torch.utils`.

A kernel is a function of the squared distance in units of the scale, t = |x_i - y_j|^2 / s^2. The
functions take NumPy arrays or torch tensors, points as rows, and make the whole matrix (M, N).
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..errors import OptionError

if TYPE_CHECKING:
    import torch
    from typing_extensions import Self


class _Matrix(Protocol):
    """What the arrays of both libraries do alike."""

    @property
    def T(self) -> Self: ...
    def __neg__(self) -> Self: ...
    def __add__(self, other: Self | float, /) -> Self: ...
    def __radd__(self, other: float, /) -> Self: ...
    def __sub__(self, other: Self | float, /) -> Self: ...
    def __mul__(self, other: Self | float, /) -> Self: ...
    def __rmul__(self, other: float, /) -> Self: ...
    def __truediv__(self, other: Self | float, /) -> Self: ...
    def __rtruediv__(self, other: float, /) -> Self: ...
    def __pow__(self, other: float, /) -> Self: ...
    def __matmul__(self, other: Self, /) -> Self: ...
    def __getitem__(self, where: tuple[slice | None, ...], /) -> Self: ...
    def sum(self, axis: int, /) -> Self: ...
    def clip(self, least: float, /) -> Self: ...


A = TypeVar("A", bound=_Matrix)


def squared_distances(x: A, y: A) -> A:
    """|x_i - y_j|^2 for all pairs of rows: (M, N).

    >>> squared_distances(np.zeros((1, 2)), np.array([[3.0, 4.0], [1.0, 0.0]])).tolist()
    [[25.0, 1.0]]
    """
    return (x**2).sum(1)[:, None] + (y**2).sum(1)[None, :] - 2 * (x @ y.T)


def differences(x: A, y: A) -> A:
    """x_i - y_j for all pairs of rows, coordinate by coordinate: (D, M, N)."""
    return x.T[:, :, None] - y.T[:, None, :]


def _library(x: object) -> ModuleType:
    return np if isinstance(x, np.ndarray) else importlib.import_module("torch")


def _unknown(kernel: str, known: str) -> OptionError:
    return OptionError(f"the kernel must be one of {known}", found=f"kernel={kernel!r}")


_RADIAL = "gaussian, laplacian, cauchy, inverse_multiquadric"


def _scaled(x: A, y: A, s: float) -> A:
    """Squared distances in units of the scale, without the rounding below zero."""
    return (squared_distances(x, y) / s**2).clip(0)


def log_np_kernel(x: A, y: A, s: float, kernel: str) -> A:
    """The logarithm of a kernel: (M, N).

    Raises:
        OptionError: an unknown kernel.
    """
    t, library = _scaled(x, y, s), _library(x)
    if kernel == "gaussian":
        return -t
    if kernel == "laplacian":
        return -library.sqrt(t)
    if kernel == "cauchy":
        return -library.log1p(t)
    if kernel == "inverse_multiquadric":
        return -0.5 * library.log1p(t)
    raise _unknown(kernel, _RADIAL)


def np_kernel(x: A, y: A, s: float, kernel: str) -> A:
    """A kernel: "gaussian" e^-t, "laplacian" e^-sqrt(t), "cauchy" 1/(1+t) or
    "inverse_multiquadric" 1/sqrt(1+t): (M, N).

    >>> np_kernel(np.zeros((1, 1)), np.ones((1, 1)), 1.0, "cauchy").tolist()
    [[0.5]]

    Raises:
        OptionError: an unknown kernel.
    """
    t, library = _scaled(x, y, s), _library(x)
    if kernel == "gaussian":
        return library.exp(-t)
    if kernel == "laplacian":
        return library.exp(-library.sqrt(t))
    if kernel == "cauchy":
        return 1 / (1 + t)
    if kernel == "inverse_multiquadric":
        return 1 / library.sqrt(1 + t)
    raise _unknown(kernel, _RADIAL)


torch_kernel = np_kernel


def grad_np_kernel(x: A, y: A, s: float, kernel: str) -> A:
    """The derivative of a kernel with respect to the squared distance: (M, N).

    Raises:
        OptionError: an unknown kernel.
    """
    t, library = _scaled(x, y, s), _library(x)
    if kernel == "gaussian":
        return -library.exp(-t) / s**2
    if kernel == "laplacian":
        with np.errstate(divide="ignore"):
            return -library.exp(-library.sqrt(t)) / (2 * s**2 * library.sqrt(t))
    if kernel == "cauchy":
        return -((1 + t) ** -2) / s**2
    if kernel == "inverse_multiquadric":
        return -0.5 * (1 + t) ** -1.5 / s**2
    raise _unknown(kernel, _RADIAL)


def np_kernel_sphere(nalpha: A, nbeta: A, s: float, kernel: str) -> A:
    """A kernel of unit vectors, by their scalar products p: "linear" p, "binet" p^2,
    "gaussian_oriented" e^((2p-2)/s^2), "gaussian_unoriented" e^((2p^2-2)/s^2): (M, N).

    Raises:
        OptionError: an unknown kernel.
    """
    p, library = nalpha @ nbeta.T, _library(nalpha)
    if kernel == "linear":
        return p
    if kernel == "binet":
        return p**2
    if kernel == "gaussian_oriented":
        return library.exp((2 * p - 2) / s**2)
    if kernel == "gaussian_unoriented":
        return library.exp((2 * p**2 - 2) / s**2)
    raise _unknown(kernel, "linear, binet, gaussian_oriented, gaussian_unoriented")


def log_sum_exp(mat: NDArray[np.float64], axis: int = 0) -> NDArray[np.float64]:
    """log sum e^mat along an axis, which disappears.

    >>> log_sum_exp(np.array([[1000.0, 1000.0]]), axis=1).round(3).tolist()
    [1000.693]
    """
    highest = mat.max(axis, keepdims=True)
    return (highest + np.log(np.exp(mat - highest).sum(axis, keepdims=True))).squeeze(axis)


def chain_rules(q: A, ax: A, by: A, Aa: A, p: A) -> A:
    """The gradient, with respect to the points ax, of sum_ij k(|ax_i - by_j|^2) (q_i | p_j), where
    Aa is the matrix of derivatives of k: (M, D).
    """
    weights = 2 * Aa * (q @ p.T)
    return weights.sum(1)[:, None] * ax - weights @ by


def is_on_device(x: torch.Tensor) -> bool:
    """Whether a tensor is on a GPU."""
    return bool(x.is_cuda)


def torchsolve(A: torch.Tensor, B: torch.Tensor) -> torch.Tensor:
    """The solution of A X = B."""
    return importlib.import_module("torch").linalg.solve(A, B)


def WarmUpGpu() -> None:
    """Do nothing: pairfold computes on the processor."""
