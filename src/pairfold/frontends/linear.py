"""Solvers for linear operators that are given as functions, under PyKeOps' names."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from ..arrays.library import ArrayLibrary
from ..arrays.registry import LIBRARIES
from ..core.library import Array, UserArray
from ..errors import ArrayTypeError, OptionError, check_option
from .conjugate import checked_stop, conjugate_gradients
from .genred import Genred
from .preconditioners import LowRank, Matrix, factor

Kernel = Callable[[Array, Array, Array], Array]
_LIBRARIES = {"numpy": "numpy", "torch": "torch", "pytorch": "torch"}


def ConjugateGradientSolver(
    binding: str,
    linop: Callable[[UserArray], UserArray],
    b: UserArray,
    eps: float = 1e-6,
    *,
    tol: float | None = None,
    maxiter: int | None = None,
    preconditioner: Callable[[UserArray], UserArray] | None = None,
) -> UserArray:
    """The solution a of linop(a) = b by conjugate gradients, b being one right-hand side.

    Args:
        binding: "numpy" or "torch".
        linop: a function of arrays like b: linear, symmetric and positive definite.
        b: an array of any shape; tensors are treated as constants.
        eps, tol, maxiter, preconditioner: as for the call of `KernelSolve`.

    Returns:
        An array of b's shape and dtype.

    >>> import numpy as np
    >>> ConjugateGradientSolver("numpy", lambda a: 4 * a, np.array([2.0, 8.0])).tolist()
    [0.5, 2.0]

    Raises:
        SolveError: no convergence, or an operator that is not positive definite.
        OptionError, ArrayTypeError: another binding, b of another library.
    """
    library = _library(binding, b)
    stop = checked_stop(eps, tol, maxiter)
    if preconditioner is not None and not callable(preconditioner):
        raise OptionError(
            "the preconditioner of an operator that is a function must be one, too",
            found=f"preconditioner={preconditioner!r}",
            hint="r -> z, an approximate inverse; names go with KernelSolve and LazyTensor.solve",
        )
    with library.no_graph():
        axes = tuple(range(len(b.shape)))
        return conjugate_gradients(library, linop, b, axes, stop, preconditioner)


def KernelLinearSolver(
    binding: str,
    K: Kernel | tuple[str, int, int, float],
    x: UserArray,
    b: UserArray,
    alpha: float = 0,
    eps: float = 1e-6,
    precond: bool = False,
    precondKernel: Callable[[UserArray, UserArray], UserArray] | None = None,
    *,
    tol: float | None = None,
    maxiter: int | None = None,
) -> UserArray:
    """The solution a of (alpha Id + K(x, x)) a = b, each column of b by itself.

    Args:
        binding: "numpy" or "torch".
        K: a function K(x, y, b) from arrays (M, D), (N, D), (N, E) to (M, E), a product with a
            symmetric positive kernel matrix; or `("gaussian", D, E, sigma)` for the kernel
            exp(-|x-y|^2 / sigma^2).
        x: points (M, D).
        b: right-hand sides (M, E); tensors are treated as constants.
        alpha: what is added to the diagonal.
        eps, tol, maxiter: as for the call of `KernelSolve`; with a preconditioner a column is
            solved when |r| <= eps.
        precond: precondition with the columns of about sqrt(M) landmarks among the points; needs
            an alpha above 0.
        precondKernel: a function of arrays (M, D), (N, D) to the matrix (M, N) of the kernel;
            without it, the matrix is made by K.

    Returns:
        An array (M, E).

    >>> import numpy as np
    >>> x = np.array([[0.0], [1.0]])
    >>> b = np.ones((2, 1))
    >>> KernelLinearSolver("numpy", ("gaussian", 1, 1, 1.0), x, b, alpha=1.0).round(4).tolist()
    [[0.4223], [0.4223]]

    Raises:
        SolveError: no convergence, or an operator that is not positive definite.
        OptionError, ArrayTypeError: another binding, arrays of another library, an unknown kernel.
    """
    library = _library(binding, x, b)
    product = _gaussian(K) if isinstance(K, tuple) else K

    def apply(a: Array) -> Array:
        found = product(x, x, a)
        return found + alpha * a if alpha else found

    with library.no_graph():
        preconditioner = None
        if precond:
            preconditioner = nystrom(library, product, x, float(alpha), precondKernel)
            eps = eps / math.sqrt(max(1, b.shape[-2]))
        stop = checked_stop(eps, tol, maxiter)
        return conjugate_gradients(library, apply, b, (-2,), stop, preconditioner)


def nystrom(
    library: ArrayLibrary,
    product: Kernel,
    x: Array,
    alpha: float,
    matrix: Callable[[Array, Array], Array] | None = None,
) -> Callable[[Array], Array]:
    """An approximate inverse r -> z of alpha Id + K(x, x), from landmarks u among the points x.

    The same landmarks are drawn at every call, about sqrt(M) of them.

    Args:
        library: that of the arrays.
        product: K(x, y, b), for arrays (M, D), (N, D), (N, E).
        x: points (M, D).
        alpha: above 0.
        matrix: K(x, y) as a matrix, made by `product` if it is None.

    Raises:
        OptionError: an alpha of 0 or less.
        SolveError: numbers that are not finite.
    """
    if not alpha > 0:
        raise OptionError("this preconditioner needs alpha above 0", found=f"alpha={alpha!r}")
    xp = library.functions()

    def columns(places: Sequence[int]) -> Array:
        u = x[list(places)]
        if matrix is not None:
            return library.cast(matrix(x, u), "float64")
        # Columns of the matrix one by one: a product may know one width only.
        unit = xp.eye(u.shape[0], dtype=x.dtype, **library.place(x))
        found = [product(x, u, unit[:, n : n + 1]) for n in range(len(u))]
        return library.cast(xp.concatenate(found, 1), "float64")

    count, rounding = x.shape[0], float(xp.finfo(x.dtype).eps)
    known = Matrix(library, count, columns, None, rounding)
    return LowRank(library, factor("nystrom", known, max(1, math.isqrt(count))), alpha, exact=True)


def _gaussian(K: tuple[str, int, int, float]) -> Kernel:
    """exp(-|x-y|^2 / sigma^2) from ("gaussian", D, E, sigma), for right-hand sides of any width."""
    if len(K) != 4 or K[0] != "gaussian":
        raise OptionError(
            "a kernel is a function or a tuple", found=repr(K), hint='("gaussian", D, E, sigma)'
        )
    _, points, _, sigma = K
    made: dict[int, Genred] = {}

    def product(x: Array, y: Array, b: Array) -> Array:
        width = b.shape[-1]
        if width not in made:
            aliases = [f"x = Vi({points})", f"y = Vj({points})", f"b = Vj({width})"]
            made[width] = Genred("Exp(-SqDist(x,y)) * b", aliases, axis=1)
        return made[width](x / sigma, y / sigma, b)

    return product


def _library(binding: str, *arrays: object) -> ArrayLibrary:
    """The library of arrays, by the name of a binding."""
    check_option("binding", binding, _LIBRARIES)
    name = _LIBRARIES[binding]
    library = next(library for library in LIBRARIES if library.name == name)
    for array in arrays:
        if not library.owns(array):
            raise ArrayTypeError(
                f"with binding {binding!r} arrays are those of {name}",
                found=f"a {type(array).__module__}.{type(array).__name__}",
            )
    return library
