"""Minimal residuals for many right-hand sides at once: symmetric systems that need not be definite.

The method is MINRES of Paige and Saunders (Solution of sparse indefinite systems of linear
equations, 1975), with a preconditioner as in Elman, Silvester and Wathen (Finite elements and fast
iterative solvers, algorithm 4.1). Lanczos vectors v make the operator a tridiagonal matrix, which
rotations bring to triangular form as it grows; directions w follow, and each step makes the
residual as short as it can be. The products A w are kept as w are, so that residuals are those of
the iterates, whatever the preconditioner. Right-hand sides are independent, in lock-step; numbers
of the recurrences are float64.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..arrays.library import ArrayLibrary
from ..core.library import Array
from ..errors import SolveError
from .conjugate import Block, Operator, Stop, checked_shape, progress, quiet


def minimal_residuals(
    library: ArrayLibrary,
    apply: Operator,
    b: Array,
    axes: Sequence[int],
    stop: Stop,
    preconditioner: Operator | None = None,
    callback: Callable[[int, Array], object] | None = None,
) -> Array:
    """The solution a of apply(a) = b, starting from 0; arguments as for `conjugate_gradients`.

    Args:
        library, b, axes, stop, callback: as there.
        apply: a linear operator on arrays of b's shape, symmetric.
        preconditioner: r -> z, symmetric and positive definite.

    Returns:
        An array of b's shape and dtype; 0 where b is within the tolerance.

    >>> import numpy as np
    >>> from ..arrays.registry import NUMPY
    >>> A, b = np.diag([1.0, -4.0]), np.array([[2.0], [2.0]])
    >>> minimal_residuals(NUMPY, lambda a: A @ a, b, (-2,), Stop()).round(6).tolist()
    [[2.0], [-0.5]]

    Raises:
        SolveError: no convergence, an operator that is singular, numbers that are not finite; with
            the best iterate so far.
        ShapeError: a preconditioner that changes the shape.
    """
    block = _Rotated(library, b, axes, stop)
    precondition = checked_shape(preconditioner, b)
    most = stop.most(block.count)
    try:
        if block.going:
            block.begin(precondition(b))
        with progress() as show:
            while block.going:
                if block.iteration == most:
                    block.check_symmetric(apply)
                    block.give_up()
                block.iteration += 1
                product = apply(block.direction)
                with quiet():
                    block.extend(product)
                z = precondition(block.vector)
                with quiet():
                    block.shorten(z)
                show(block.largest)
                if callback is not None:
                    callback(block.iteration, block.norms)
    except SolveError as error:
        error.solution, error.iterations = block.best, block.iteration
        error.residuals = library.functions().sqrt(block.least)
        raise
    return block.solution


class _Rotated(Block):
    """The state of all iterations."""

    method = "minimal residuals"

    def begin(self, z: Array) -> None:
        """The first Lanczos vectors: residuals, and preconditioned residuals `z`."""
        xp = self.xp
        nothing = xp.zeros_like(self.residual)
        self.vector, self.before = self.residual, nothing
        # The last two directions, and their products with the operator.
        self.directions, self.products = [nothing, nothing], [nothing, nothing]
        squared = self.dot(self.vector, z)
        self.check_preconditioned(squared)
        self.length = xp.sqrt(squared)
        zero, one = xp.zeros_like(squared), xp.ones_like(squared)
        self.previous, self.rest, self.scale = one, self.length, zero
        self.cosines, self.sines = [one, one], [zero, zero]
        self.direction = self._scaled(z, self.length)

    def _scaled(self, x: Array, by: Array) -> Array:
        """Vectors divided by numbers, where iterations go on and these are not 0."""
        usable = self.active & (by > 0)
        factor = self.xp.where(usable, 1 / self.xp.where(usable, by, by * 0 + 1), by * 0)
        return self.library.cast_like(factor, x) * x

    def _times(self, number: Array, x: Array) -> Array:
        return self.library.cast_like(number, x) * x

    def extend(self, product: Array) -> None:
        """The next Lanczos vectors, from the operator's products with `direction`."""
        self.product = product
        self.middle = self.dot(product, self.direction)
        self._check_finite(self.middle, self.active, "z.Az")
        self.size = max(self.size, self._stretch(product))
        last, before = (
            self._ratio(self.middle, self.length),
            self._ratio(self.length, self.previous),
        )
        found = product - self._times(last, self.vector) - self._times(before, self.before)
        self.vector, self.before = self.xp.where(self.active, found, found * 0), self.vector

    def shorten(self, z: Array) -> None:
        """Rotate the new column of the tridiagonal matrix, and go along its direction."""
        xp = self.xp
        squared = self.dot(self.vector, z)
        # What is left where all that b has to do with is spanned: rounding errors.
        middle = abs(self.middle)
        self.scale = xp.where(self.scale < middle, middle, self.scale)
        nothing = 8 * self.rounding * self.scale
        self.check_preconditioned(squared, nothing**2)
        following = xp.sqrt(xp.where(squared > nothing**2, squared, squared * 0))
        self.scale = xp.where(self.scale < following, following, self.scale)
        (older, cosine), (oldest, sine) = self.cosines, self.sines
        head = cosine * self.middle - older * sine * self.length
        diagonal = xp.sqrt(head**2 + following**2)
        self._check_singular(diagonal > nothing)
        above = sine * self.middle + older * cosine * self.length
        higher = oldest * self.length
        turned: list[Array] = []
        for new, (first, second) in (
            (self.direction, self.directions),
            (self.product, self.products),
        ):
            found = new - self._times(higher, first) - self._times(above, second)
            turned.append(self._scaled(found, diagonal))
        self.directions = [self.directions[1], turned[0]]
        self.products = [self.products[1], turned[1]]
        new_cosine, new_sine = self._ratio(head, diagonal), self._ratio(following, diagonal)
        self.go(new_cosine * self.rest, *turned)
        self.rest = -new_sine * self.rest
        self.cosines, self.sines = [cosine, new_cosine], [sine, new_sine]
        self.previous, self.length = self.length, following
        self.direction = self._scaled(z, following)
        ended = self.active & ~(following > 0)
        if bool(ended.any()):
            self.fail("minimal residuals have come to an end before the tolerance", ended)

    def _check_singular(self, some: Array) -> None:
        """Raise where there is no direction: the operator is singular, and b beyond its range.

        Raises:
            SolveError: naming the right-hand side.
        """
        wrong = self.active & ~some
        if bool(wrong.any()):
            self.fail("the system is singular, and has no solution", wrong)
