"""Entries of the matrix of a system: some of its columns, its diagonal, each by one reduction."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from ..arrays.library import ArrayLibrary
from ..calculus.substitute import substitute
from ..core.library import Array
from ..core.node import Axis, Node, depends_on
from ..errors import UnsupportedError
from ..ops.table import variable
from .devices import CallOptions
from .genred import call_fold
from .preconditioners import LowRank, Matrix, factor
from .reduction import FormulaReduction

Operator = Callable[[Array], Array]


class Entries:
    """The matrix of a sum that is linear in the argument at `position`.

    Args:
        fold: the sum.
        position: the place of the unknown among its arguments.
        apart: whether each component of the unknown is a system of its own.

    Raises:
        UnsupportedError: the unknown has the index that the sum keeps: there is no matrix; or the
            formula reads numbers of rows or columns.
    """

    def __init__(self, fold: FormulaReduction, position: int, apart: bool) -> None:
        if fold.counts_pairs:
            raise UnsupportedError(
                "preconditioners with a name take entries of the matrix, by rows and columns of "
                "its arrays: the numbers of these are others then",
                found=f"index variables in {fold.formula}",
                hint="preconditioner=None, or an array of the numbers in their place",
            )
        self.fold, self.position, self.apart = fold, position, apart
        self.unknown = fold.variables[position]
        if self.unknown.params[2] == fold.kept:
            raise UnsupportedError(
                "preconditioners with a name need an unknown with the index of the sum",
                found=f"an unknown with the index that is kept, in {fold.formula}",
                hint="preconditioner=None, or a function r -> z",
            )
        self.alike = apart and _alike(fold.formula, self.unknown)

    def inverse(
        self,
        library: ArrayLibrary,
        args: Sequence[Array],
        b: Array,
        alpha: Array | None,
        name: str,
        rank: int | None,
        call: CallOptions,
    ) -> Inverse:
        """An approximate inverse of alpha Id + K, for vectors of b's shape.

        Raises:
            UnsupportedError: the sum is over ranges.
        """
        if call.get("ranges") is not None:
            raise UnsupportedError(
                "preconditioners with a name need all pairs",
                found=f'preconditioner="{name}" and ranges',
                hint="preconditioner=None, or a function r -> z",
            )
        together = self.alike and (alpha is None or not alpha.shape or alpha.shape[-1] == 1)
        layout = "together" if together else "each" if self.apart else "flat"
        low_rank = factor(name, self._matrix(library, args, b, layout, call), rank)
        return Inverse(library, low_rank, alpha, b, layout)

    def _matrix(
        self,
        library: ArrayLibrary,
        args: Sequence[Array],
        b: Array,
        layout: str,
        call: CallOptions,
    ) -> Matrix:
        xp = library.functions()
        rows, width = b.shape[-2:]
        size = rows * width if layout == "flat" else rows

        def columns(places: Sequence[int]) -> Array:
            found = self._columns(library, args, b, places, call)
            if layout == "together":
                found = found[..., 0]
            elif layout == "each":
                found = xp.swapaxes(found, -1, -2)
            else:
                found = found.reshape(*found.shape[:-2], size)
            return xp.moveaxis(library.cast(found, "float64"), 0, -1)

        def diagonal() -> Array:
            found = library.cast(self._diagonal(library, args, b, call), "float64")
            if layout == "together":
                return found[..., 0]
            return (
                xp.swapaxes(found, -1, -2)
                if layout == "each"
                else found.reshape(*found.shape[:-2], size)
            )

        return Matrix(library, size, columns, diagonal, float(xp.finfo(b.dtype).eps))

    def _columns(
        self,
        library: ArrayLibrary,
        args: Sequence[Array],
        b: Array,
        places: Sequence[int],
        call: CallOptions,
    ) -> Array:
        """Columns as arrays (k, ..., M, E), each a sum over one point."""
        xp = library.functions()
        depth, width = len(b.shape) - 2, self.unknown.dim
        points = list(places) if self.apart else [place // width for place in places]

        moved = self.unknown.variable.kind

        def picked(array: Array, kind: Axis) -> Array:
            axis = -3 if kind == Axis.PAIR and moved == Axis.I else -2
            rest = [slice(None)] * (-1 - axis)
            found = xp.moveaxis(array[(..., points, *rest)], axis, 0)
            batch = found.shape[1 : 1 + len(array.shape) - kind.axes]
            own = [*found.shape[1 + len(batch) :]]
            own.insert(len(own) + 1 + axis, 1)
            missing = [1] * (depth - len(batch))
            return found.reshape(len(points), *missing, *batch, *own)

        given = [
            picked(array, v.variable.kind) if v.variable.kind in (moved, Axis.PAIR) else array
            for v, array in zip(self.fold.variables, args, strict=True)
        ]
        if self.apart:
            vectors = xp.ones_like(b[..., :1, :]).reshape(-1, width)[:1]
        else:
            components = [place % width for place in places]
            vectors = _units(library, b)[components].reshape(len(points), *[1] * depth, 1, width)
        given[self.position] = vectors
        found = call_fold(self.fold, given, library.name, **call)
        return xp.broadcast_to(found, (len(points), *b.shape))

    def _diagonal(
        self, library: ArrayLibrary, args: Sequence[Array], b: Array, call: CallOptions
    ) -> Array:
        """The diagonal (..., M, E), as a sum over the unknown alone."""
        xp = library.functions()
        depth, width = len(b.shape) - 2, self.unknown.dim
        given = [
            xp.moveaxis(xp.diagonal(array, 0, -3, -2), -1, -2)
            if v.variable.kind == Axis.PAIR
            else array
            for v, array in zip(self.fold.variables, args, strict=True)
        ]
        if self.apart:
            given[self.position] = xp.ones_like(b[..., :1, :]).reshape(-1, width)[:1]
            return xp.broadcast_to(call_fold(self._own(), given, library.name, **call), b.shape)
        given[self.position] = _units(library, b).reshape(width, *[1] * depth, 1, width)
        found = call_fold(self._own(), given, library.name, **call)
        return xp.diagonal(xp.broadcast_to(found, (width, *b.shape)), 0, 0, -1)

    def _own(self) -> FormulaReduction:
        """The sum where every variable but the unknown has the index that is kept."""

        def make() -> FormulaReduction:
            moved, kept = self.unknown.params[2], self.fold.kept
            variables = [
                variable(v.params[0], v.dim, kept)
                if v.variable.kind in (moved, Axis.PAIR) and n != self.position
                else v
                for n, v in enumerate(self.fold.variables)
            ]
            replaced = dict(zip(self.fold.variables, variables, strict=True))
            formula = substitute(self.fold.formula, replaced)
            return self.fold.with_formula(formula, variables, "Sum", Axis(kept))

        return self.fold.derived(("diagonal", self.position), make)


class Inverse:
    """A low-rank inverse on arrays of b's shape, whatever the layout of the systems in it."""

    def __init__(
        self, library: ArrayLibrary, low_rank: Array, alpha: Array | None, b: Array, layout: str
    ) -> None:
        self.library, self.layout = library, layout
        self.xp = xp = library.functions()
        self.weight: Array | None = None
        shift = 0.0
        if alpha is not None and not alpha.shape:
            shift = max(0.0, float(alpha))
        elif alpha is not None and bool((alpha > 0).all()):
            wide = library.cast(alpha, "float64")
            ones = xp.ones_like(b if layout != "together" else b[..., :1], dtype=xp.float64)
            weight = self._arranged(ones / xp.sqrt(wide))
            self.weight, low_rank, shift = weight, weight * low_rank, 1.0
        self.inner = LowRank(library, low_rank, shift)

    @property
    def gain(self) -> float:
        """By how much the condition falls."""
        return self.inner.gain

    def fits(self, shape: Sequence[int]) -> bool:
        """Whether it can be applied to vectors of that shape."""
        arranged = tuple(shape)
        if self.layout == "each":
            arranged = (*shape[:-2], shape[-1], shape[-2], 1)
        elif self.layout == "flat":
            arranged = (*shape[:-2], math.prod(shape[-2:]), 1)
        return self.inner.fits(arranged)

    def _arranged(self, r: Array) -> Array:
        if self.layout == "together":
            return r
        if self.layout == "each":
            return self.xp.swapaxes(r, -1, -2)[..., None]
        return r.reshape(*r.shape[:-2], -1, 1)

    def __call__(self, r: Array) -> Array:
        """z, of the shape and dtype of r."""
        given = self._arranged(r)
        if self.weight is None:
            found = self.inner(given)
        else:
            found = self.library.cast_like(self.weight * self.inner(self.weight * given), r)
        if self.layout == "each":
            return self.xp.swapaxes(found[..., 0], -1, -2)
        return found.reshape(r.shape)


def _units(library: ArrayLibrary, b: Array) -> Array:
    """Unit vectors of b's components."""
    return library.functions().eye(b.shape[-1], dtype=b.dtype, **library.place(b))


def _alike(formula: Node, unknown: Node) -> bool:
    """Whether all components have the same matrix: what multiplies the unknown is a number."""
    moving = set(depends_on([formula], [unknown]))
    return all(
        operand.dim == 1 or operand in moving or operand is unknown
        for node in moving
        for operand in node.args
    )
