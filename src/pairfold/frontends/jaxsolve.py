"""Solutions of linear systems as differentiable functions of JAX arrays.

What the derivatives are is said in `solvederivatives.py`, for any library; here JAX's
transformations are told of them. Conjugate gradients decide after each product how to go on, so
they run in Python, on NumPy arrays: at once outside of compiled programs, as a callback in them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, TypedDict

import jax
import jax.core
import numpy as np
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from ..arrays.library import ArrayLibrary
from ..arrays.registry import JAX, NUMPY
from ..core.library import Array, NumpyArray
from ..errors import UnsupportedError
from ..settings import Settings, current
from .jax import Linear, apply_with, in_force, undefined, varying
from .solve import Request, System
from .solvederivatives import Calls, batched, gradients, tangents

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Asked:
    """A system, how it is solved, and the settings in force; equal to itself alone."""

    def __init__(self, system: System, request: Request, options: Settings) -> None:
        self.system, self.request, self.options = system, request, options
        self.calls = Calls(partial(apply_with, options=options), partial(_solved, options=options))


class Params(TypedDict):
    """What a program knows of a solution beside its arrays."""

    asked: Asked
    shifted: bool  # whether alpha comes before the arrays


solve_p = Primitive("pairfold_solve")


def solve_arrays(
    system: System,
    library: ArrayLibrary,
    arrays: Sequence[Array],
    alpha: Array | None,
    request: Request,
) -> Array:
    """The solution of a system; it is differentiable.

    Raises:
        UnsupportedError: a preconditioner or a method that is a function.
        SolveError: see `conjugate_gradients`; in a compiled program it is an error of JAX.
    """
    if callable(request.method):
        raise UnsupportedError(
            "with JAX arrays, methods are chosen by name",
            found="a function",
            hint='method="minres"',
        )
    if callable(request.preconditioner):
        raise UnsupportedError(
            "with JAX arrays, preconditioners are chosen by name",
            found="a function",
            hint='preconditioner="nystrom"',
        )
    return _solved(system, request, library, [alpha, *arrays], options=current())


def _solved(
    system: System,
    request: Request,
    library: ArrayLibrary,
    given: Sequence[Array | None],
    options: Settings,
) -> Array:
    arrays = [array for array in given if array is not None]
    params = Params(asked=Asked(system, request, options), shifted=given[0] is not None)
    return solve_p.bind(*varying(arrays), **params)


def _given(arrays: Sequence[Array], shifted: bool) -> list[Array | None]:
    """alpha or None, then the arrays of the formula."""
    return list(arrays) if shifted else [None, *arrays]


def _computed(*arrays: Array, **params: Unpack[Params]) -> NumpyArray:
    """The solution, of arrays with values."""
    asked = params["asked"]
    rest: list[Array] = [np.asarray(array) for array in arrays]
    alpha = rest.pop(0) if params["shifted"] else None
    with in_force(asked.options):
        found = asked.system.solution(NUMPY, rest, alpha, asked.request)
    return NUMPY.to_numpy(found)


def _at_once(*arrays: Array, **params: Unpack[Params]) -> Array:
    return jax.numpy.asarray(_computed(*arrays, **params))


def _abstract(*avals: jax.core.ShapedArray, **params: Unpack[Params]) -> object:
    """A solution is like its right-hand side."""
    return avals[params["asked"].system.position + params["shifted"]].update(weak_type=False)


def _called(*arrays: Array, **params: Unpack[Params]) -> Array:
    """The solution in a compiled program."""
    b = arrays[params["asked"].system.position + params["shifted"]]
    like = jax.ShapeDtypeStruct(b.shape, b.dtype)
    return jax.pure_callback(partial(_computed, **params), like, *arrays)


def _jvp(
    primals: Sequence[Array], along: Sequence[Array], **params: Unpack[Params]
) -> tuple[Array, Array]:
    """The solution, and its derivative along tangents."""
    asked = params["asked"]
    solution = solve_p.bind(*primals, **params)
    moving = [None if type(tangent) is ad.Zero else tangent for tangent in along]
    moving = moving if params["shifted"] else [None, *moving]
    given = _given(primals, params["shifted"])
    where = (asked.system, asked.request, JAX)
    return solution, tangents(*where, given, solution, moving, asked.calls)


def _transpose(incoming: Array, *args: Linear, **params: Unpack[Params]) -> list[object]:
    """The gradient to the right-hand side, which is all that a solution is linear in."""
    asked, shifted = params["asked"], params["shifted"]
    if type(incoming) is ad.Zero:
        return [ad.Zero(a.aval) if ad.is_undefined_primal(a) else None for a in args]
    known = undefined(args)
    wanted = [ad.is_undefined_primal(a) for a in args]
    where = (asked.system, asked.request, JAX)
    wanted = wanted if shifted else [False, *wanted]
    found = gradients(*where, _given(known, shifted), incoming, incoming, wanted, asked.calls)
    return list(found if shifted else found[1:])


def _batch(
    args: Sequence[Array], axes: Sequence[int | None], **params: Unpack[Params]
) -> tuple[Array, int]:
    """The solutions for one more batch axis."""
    asked, shifted = params["asked"], params["shifted"]
    size = next(a.shape[axis] for a, axis in zip(args, axes, strict=True) if axis is not None)
    where = (asked.system, asked.request, JAX)
    axes = axes if shifted else [None, *axes]
    return batched(*where, _given(args, shifted), axes, size, asked.calls), 0


solve_p.def_abstract_eval(_abstract)  # JAX's name for shapes; no text is evaluated
solve_p.def_impl(_at_once)
ad.primitive_jvps[solve_p] = _jvp
ad.primitive_transposes[solve_p] = _transpose
batching.primitive_batchers[solve_p] = _batch
mlir.register_lowering(solve_p, mlir.lower_fun(_called, multiple_results=False))
