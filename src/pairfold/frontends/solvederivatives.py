"""Derivatives of solutions of linear systems, for any array library.

With A = alpha Id + K and A a = b, a small change gives A da = db - dA a (implicit
differentiation). So for a gradient g of a, w = A^-T g is the gradient of b, -<w, a> that of alpha,
and for any other argument it is that of -<w, K a> with w and a held fixed. w is again a solution,
of the transposed system, so gradients have gradients; da is one of the system itself.

What a solution is made from is given as one sequence: alpha (None: 0), then the arrays of the
formula, with b at the place of the unknown. A library needs what `derivatives.py` asks for, and a
function that solves one system and tells the library that its derivatives are `gradients` and
`tangents`, its batches `batched`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..arrays.library import ArrayLibrary
from ..core.library import Array
from . import derivatives
from .derivatives import Apply, batch_first
from .devices import ANY_DEVICE, AUTO, placed
from .ranges import Ranges, checked_ranges
from .solve import Request, System

# (system, request, library, given) -> the solution, differentiable in the library's way.
Solve = Callable[[System, Request, ArrayLibrary, Sequence[Array | None]], Array]


@dataclass(frozen=True)
class Calls:
    """What derivatives call: one reduction, one solution, both differentiable in turn."""

    apply: Apply
    solve: Solve


def gradients(
    system: System,
    request: Request,
    library: ArrayLibrary,
    given: Sequence[Array | None],
    solution: Array,
    incoming: Array,
    wanted: Sequence[bool],
    calls: Calls,
) -> list[Array | None]:
    """Gradients to those of `given` that are wanted, in their shapes; None to the others.

    Args:
        incoming: the gradient of the solution.

    Raises:
        SolveError: see `conjugate_gradients`.
        DerivativeError: an operation of the formula has no derivative.
    """
    alpha, arrays, request = given[0], _arrays(given), request.derived()
    adjoint = [alpha, *system.with_vector(arrays, incoming)]
    w = calls.solve(system.transposed(), request, library, adjoint)
    found: list[Array | None] = [None] * len(given)
    if alpha is not None and wanted[0]:
        found[0] = -library.sum_to(w * solution, alpha.shape)
    saved = system.with_vector(arrays, solution)
    where, ranges = _products(library, saved, request)
    for position, needed in enumerate(wanted[1:]):
        if needed and position == system.position:
            found[1 + position] = w
        elif needed:
            rest = ([position], saved, [-w], ranges, calls.apply, None)
            (found[1 + position],) = derivatives.gradients(system.fold, where, *rest)
    return found


def tangents(
    system: System,
    request: Request,
    library: ArrayLibrary,
    given: Sequence[Array | None],
    solution: Array,
    along: Sequence[Array | None],
    calls: Calls,
) -> Array:
    """The derivative of the solution along tangents of `given`; None: that one stands still.

    Raises:
        SolveError: see `conjugate_gradients`.
        DerivativeError: an operation of the formula has no derivative.
    """
    alpha, arrays, request = given[0], _arrays(given), request.derived()
    along_alpha, *moving = along
    along_b = moving[system.position]
    right = library.functions().zeros_like(solution) if along_b is None else along_b
    if along_alpha is not None:
        right = right - along_alpha * solution
    others = [
        (position, tangent)
        for position, tangent in enumerate(moving)
        if tangent is not None and position != system.position
    ]
    if others:
        saved = system.with_vector(arrays, solution)
        where, ranges = _products(library, saved, request)
        positions, pushed = zip(*others, strict=True)
        rest = (saved, pushed, ranges, calls.apply)
        (moved,) = derivatives.tangents(system.fold, where, positions, *rest)
        right = right - moved
    return calls.solve(system, request, library, [alpha, *system.with_vector(arrays, right)])


def batched(
    system: System,
    request: Request,
    library: ArrayLibrary,
    given: Sequence[Array | None],
    axes: Sequence[int | None],
    size: int,
    calls: Calls,
) -> Array:
    """The solution for arrays with an axis more (None: without it), which is its first axis."""
    alpha, arrays = given[0], _arrays(given)
    b, axis = arrays[system.position], axes[1 + system.position]
    depth = len(b.shape) - (axis is not None)  # b has every batch axis
    moved = [
        batch_first(library, array, axis, depth + v.variable.kind.axes - 2)
        for array, axis, v in zip(arrays, axes[1:], system.fold.variables, strict=True)
    ]
    if axis is None:
        moved[system.position] = library.expanded(b, (size, *b.shape))
    if alpha is not None:
        alpha = batch_first(library, alpha, axes[0], depth)
    return calls.solve(system, request, library, [alpha, *moved])


def _arrays(given: Sequence[Array | None]) -> list[Array]:
    """The arrays of the formula."""
    return [array for array in given[1:] if array is not None]


def _products(
    library: ArrayLibrary, arrays: Sequence[Array], request: Request
) -> tuple[ArrayLibrary, Ranges | None]:
    """Where products with K are computed, and over which pairs."""
    call = request.call
    where = call.get("backend", AUTO), call.get("device_id", ANY_DEVICE)
    return placed(library, arrays, *where), checked_ranges(call.get("ranges"))
