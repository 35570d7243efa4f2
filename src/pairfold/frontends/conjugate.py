"""Conjugate gradients for many right-hand sides at once, in lock-step.

The method is that of Hestenes and Stiefel (Methods of conjugate gradients for solving linear
systems, 1952), with a preconditioner as in Saad (Iterative methods for sparse linear systems,
algorithm 9.1). Every right-hand side has step sizes of its own; one that has converged is frozen
while the others go on. Step sizes are computed in float64, whatever the dtype of the vectors.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import SupportsIndex

import numpy as np

from ..arrays.library import ArrayLibrary
from ..core.library import Array, NumpyArray
from ..errors import OptionError, ShapeError, SolveError, attempted
from ..settings import current
from .lanczos import CHECK, STANDING, Outlook, extremes, tridiagonal

Operator = Callable[[Array], Array]
_LEAST = 1000


@dataclass(frozen=True)
class Later:
    """Preconditioners that are made when iterations turn out to be many.

    Args:
        wait: the iterations before one is considered; the next after four times as many.
        make: one, from the number of iterations so far, or None where it would not pay.
    """

    wait: int
    make: Callable[[int], Operator | None]


@dataclass(frozen=True)
class Stop:
    """When iterations end.

    A right-hand side b of n numbers is solved when its residual r satisfies |r|^2 <= n eps^2,
    PyKeOps' criterion, or if `tol` is given |r| <= tol |b| instead. After `maxiter` iterations it
    is an error; None stands for 10 n, and no fewer than 1000.
    """

    eps: float = 1e-6
    tol: float | None = None
    maxiter: int | None = None

    def limit(self, squared: Array, count: int) -> Array:
        """The squared residual to reach, from |b|^2 and how many numbers b has."""
        if self.tol is not None:
            return squared * self.tol**2
        return squared * 0 + count * self.eps**2

    def most(self, count: int) -> int:
        """The number of iterations allowed for `count` unknowns."""
        return max(_LEAST, 10 * count) if self.maxiter is None else self.maxiter


def checked_stop(
    eps: float = 1e-6, tol: float | None = None, maxiter: SupportsIndex | None = None
) -> Stop:
    """When to stop, from what a user gave.

    >>> checked_stop(tol=1e-3).limit(4.0, 7)
    4e-06

    Raises:
        OptionError: a tolerance below 0, or a number of iterations that is none.
    """
    for name, value in (("eps", eps), ("tol", 0.0 if tol is None else tol)):
        if not attempted(float, value, -1.0) >= 0:
            raise OptionError(
                f"{name} must be a number from 0", found=f"{name}={value!r}", hint=f"{name}=1e-6"
            )
    most = None if maxiter is None else attempted(operator.index, maxiter, -1)
    if isinstance(maxiter, bool) or (most is not None and most < 0):
        raise OptionError(
            "maxiter must be a whole number from 0",
            found=f"maxiter={maxiter!r}",
            hint="maxiter=1000, or None",
        )
    return Stop(float(eps), None if tol is None else float(tol), most)


def conjugate_gradients(
    library: ArrayLibrary,
    apply: Operator,
    b: Array,
    axes: Sequence[int],
    stop: Stop,
    preconditioner: Operator | Later | None = None,
    callback: Callable[[int, Array], object] | None = None,
    shift: float | None = None,
) -> Array:
    """The solution a of apply(a) = b, starting from 0.

    Args:
        library: that of the arrays.
        apply: a linear operator on arrays of b's shape, symmetric and positive definite.
        b: the right-hand sides, of any shape and a floating dtype.
        axes: the axes that together make one right-hand side; along the others `apply` must act
            on each place by itself.
        stop: the criterion.
        preconditioner: r -> z, symmetric and positive definite, an approximate inverse; or one
            that is made later.
        callback: called with the number of each iteration, from 1, and the norms of the
            residuals, in an array shaped like b with the `axes` of length 1.
        shift: a likely lower bound of the operator's eigenvalues, for forecasts.

    Returns:
        An array of b's shape and dtype; 0 where b is within the tolerance.

    >>> from ..arrays.registry import NUMPY
    >>> A, b = np.diag([1.0, 4.0]), np.array([[2.0], [2.0]])
    >>> conjugate_gradients(NUMPY, lambda a: A @ a, b, (-2,), Stop()).round(6).tolist()
    [[2.0], [0.5]]

    Raises:
        SolveError: no convergence, no progress in many iterations, an operator that is not
            positive, numbers that are not finite; with the best iterate so far.
        ShapeError: a preconditioner that changes the shape.
    """
    block = Block(library, b, axes, stop, shift)
    try:
        _iterate(block, apply, preconditioner, stop.most(block.count), callback)
    except SolveError as error:
        error.solution, error.iterations = block.best, block.iteration
        error.residuals = library.functions().sqrt(block.least)
        raise
    return block.solution


def _iterate(
    block: Block,
    apply: Operator,
    preconditioner: Operator | Later | None,
    most: int,
    callback: Callable[[int, Array], object] | None,
) -> None:
    """Iterate until every right-hand side is solved."""
    if isinstance(preconditioner, Later):
        later, ready = preconditioner, None
    else:
        later, ready = None, preconditioner
    precondition = checked_shape(ready, block.residual)
    wait = later.wait if later else 0
    if block.going:
        block.start(precondition(block.residual))
    with progress() as show:
        while block.going:
            if block.iteration == most:
                block.give_up()
            block.iteration += 1
            product = apply(block.direction)
            with quiet():
                block.move(product)
            show(block.largest)
            if callback is not None:
                callback(block.iteration, block.norms)
            if block.going and block.iteration % CHECK == 0:
                block.watch(apply)
            found = None
            if later is not None and block.going and block.iteration == wait:
                found, wait = None if block.nearly() else later.make(wait), 4 * wait
            if found is not None:
                precondition = checked_shape(found, block.residual)
            if block.going:
                z = precondition(block.residual)
                with quiet():
                    block.turn(z) if found is None else block.start(z)


class Block:
    """The state of all iterations; sums over a right-hand side keep its axes, of length 1."""

    method = "conjugate gradients"  # in messages

    def __init__(
        self,
        library: ArrayLibrary,
        b: Array,
        axes: Sequence[int],
        stop: Stop,
        shift: float | None = None,
    ) -> None:
        self.library, self.axes, self.shift = library, tuple(axes), shift
        self.xp = xp = library.functions()
        self.rounding = float(xp.finfo(b.dtype).eps) / 2
        self.count = math.prod(b.shape[axis] for axis in self.axes)
        self.solution: Array = xp.zeros_like(b)
        self.residual = b
        self.iteration = 0
        with quiet():
            self.squared = self.dot(b, b)
            self.limit = stop.limit(self.squared, self.count)
            self.active = self.squared > self.limit
        self._check_finite(self.squared, xp.ones_like(self.active))
        self.going = bool(self.active.any())
        # Residuals may grow on the way: for errors, the best iterate so far.
        self.best, self.least = self.solution, self.squared
        self.steps: list[Array] = []
        self.ratios: list[Array] = []
        # For `watch`: where progress was last seen, and when to read the coefficients.
        self.first = self.seen = self._host(self.squared)
        self.since, self.due = np.zeros(self.seen.shape, np.int64), STANDING
        self.size, self.paced = 0.0, (self.first, 0)

    def dot(self, x: Array, y: Array) -> Array:
        """Products of vectors, in float64."""
        return (self.library.cast(x, "float64") * y).sum(axis=self.axes, keepdims=True)

    def _host(self, x: Array) -> NumpyArray:
        """An array's values in NumPy."""
        return np.asarray(self.library.to_numpy(x))

    def start(self, z: Array) -> None:
        """The first directions: the preconditioned residuals."""
        self.gain = self.dot(self.residual, z)
        self._check_positive(self.gain, _PRECONDITIONER, "r.z")
        self.direction = self.xp.where(self.active, z, self.xp.zeros_like(z))
        self.steps.clear()
        self.ratios.clear()
        self.since[...] = self.iteration

    def move(self, product: Array) -> None:
        """To the minimum along the directions."""
        curvature = self.dot(self.direction, product)
        self._check_positive(curvature, _OPERATOR, "p.Ap")
        self.steps.append(self._ratio(self.gain, curvature))
        if self.iteration <= CHECK // 4 or self.iteration % CHECK == 0:
            self.size = max(self.size, self._stretch(product))
        self.go(self.steps[-1], self.direction, product)

    def go(self, step: Array, direction: Array, product: Array) -> None:
        """Some steps along directions, whose products with the operator are known."""
        where = self.xp.where
        step = self.library.cast_like(step, product)
        self.solution = where(self.active, self.solution + step * direction, self.solution)
        self.residual = where(self.active, self.residual - step * product, self.residual)
        self.squared = where(self.active, self.dot(self.residual, self.residual), self.squared)
        self._check_finite(self.squared, self.active)
        better = self.active & (self.squared < self.least)
        self.best = where(better, self.solution, self.best)
        self.least = where(better, self.squared, self.least)
        self.active = self.active & (self.squared > self.limit)
        self.going = bool(self.active.any())

    def turn(self, z: Array) -> None:
        """The next directions, conjugate to all before."""
        gain = self.dot(self.residual, z)
        self._check_positive(gain, _PRECONDITIONER, "r.z")
        self.ratios.append(self._ratio(gain, self.gain))
        turned = z + self.library.cast_like(self.ratios[-1], z) * self.direction
        self.direction = self.xp.where(self.active, turned, self.xp.zeros_like(turned))
        self.gain = gain

    def _ratio(self, x: Array, y: Array) -> Array:
        """x / y where iterations go on."""
        return x / self.xp.where(self.active, y, self.xp.ones_like(y))

    # -- progress -------------------------------------------------------------------------------

    def nearly(self) -> bool:
        """Whether no more than twice the iterations so far are left, at the pace of the last."""
        active, squared, limit = map(self._host, (self.active, self.squared, self.limit))
        before, since = self.paced
        self.paced = squared, self.iteration
        with quiet():
            done = np.log(before[active] / squared[active]) / (self.iteration - since)
            left = np.log(squared[active] / limit[active])
        return bool((left <= 2 * self.iteration * done).all())

    def watch(self, apply: Operator) -> None:
        """Look at progress.

        Raises:
            SolveError: residuals have grown beyond what any condition explains, or stand still
                with no hope.
            SolveError: there is no progress, and the operator turns out not to be symmetric.
        """
        active, squared, least = map(self._host, (self.active, self.squared, self.least))
        grown = active & (squared * self.rounding > self.first)
        if grown.any():
            self.check_symmetric(apply)
            self._fail(f"{self.method} diverge", _first(grown))
        better = least < 0.81 * self.seen  # by a tenth, as |r|
        self.seen = np.where(better, least, self.seen)
        self.since[better] = self.iteration
        stalled = self.iteration - int(self.since[active].max())
        if stalled < STANDING:
            self.due = STANDING
        if stalled < self.due:
            return
        self.due = 2 * stalled
        self.check_symmetric(apply)
        if all(self.outlook(place, stalled).hopeless for place in self._ends()):
            what = f"{self.method} have made no progress in {stalled} iterations"
            self._fail(what, self._ends()[0])

    def check_symmetric(self, apply: Operator) -> None:
        """Compare p.Ar with r.Ap, r and p being residuals and directions."""
        with quiet():
            one = self.dot(self.direction, apply(self.residual))
            other = self.dot(self.residual, apply(self.direction))
            scale = self.squared * self.dot(self.direction, self.direction)
            wrong = self.active & (abs(one - other) > self.size * self.xp.sqrt(scale) * 1e-2)
        if bool(wrong.any()):
            place = _first(self._host(wrong))
            pair = (float(self._host(x)[place]) for x in (one, other))
            what, hint = _UNSYMMETRIC
            found = "p.Ar = {:.3g}, r.Ap = {:.3g} ".format(*pair) + self._at(place)
            raise SolveError(what.format(self.method), found=found, hint=hint)

    def outlook(self, place: tuple[int, ...], stalled: int = 0) -> Outlook:
        """What the coefficients of one right-hand side say."""
        with quiet():
            low, high = self._spectrum(place)
            length = float(np.sqrt(self._host(self.dot(self.solution, self.solution))[place]))
            numbers = (self._host(self.least), self.first, self._host(self.limit))
            least, begun, wanted = (float(x[place]) ** 0.5 for x in numbers)
        rounding = self.rounding * self.size
        forecast = rounding * least / self.shift if self.shift else 0.0
        floor, condition = rounding * length, high / low
        return Outlook(stalled, condition, floor, forecast, begun, wanted, self.rounding)

    @property
    def narrow(self) -> bool:
        """Whether a wider dtype would help."""
        return self.rounding > 1e-10

    def _condition(self, place: tuple[int, ...]) -> str:
        return f"the condition is at least {self.outlook(place).condition:.1g}"

    def _stretch(self, product: Array) -> float:
        """By how much the operator lengthens directions: a lower bound of its norm."""
        pushed = self._host(self.dot(product, product))
        moved = self._host(self.dot(self.direction, self.direction))
        return float(np.max(pushed / np.where(moved > 0, moved, np.inf), initial=0.0) ** 0.5)

    def _spectrum(self, place: tuple[int, ...]) -> tuple[float, float]:
        """The extreme eigenvalues of the preconditioned operator, as one right-hand side met it."""
        steps = [float(step[place]) for step in self.steps]
        return extremes(*tridiagonal(steps, [float(ratio[place]) for ratio in self.ratios]))

    def _ends(self) -> list[tuple[int, ...]]:
        """The places that are farthest from their tolerance, and nearest to it."""
        active, least, limit = map(self._host, (self.active, self.least, self.limit))
        excess = least / np.maximum(limit, np.finfo(np.float64).tiny)
        far = np.argmax(np.where(active, excess, -1.0))
        near = np.argmin(np.where(active, excess, np.inf))
        return [tuple(int(n) for n in np.unravel_index(at, excess.shape)) for at in (far, near)]

    # -- what may go wrong ----------------------------------------------------------------------

    @property
    def norms(self) -> Array:
        """The norms of the residuals."""
        return self.xp.sqrt(self.squared)

    @property
    def largest(self) -> float:
        """The largest norm among iterations that go on, else among all."""
        values = self._host(self.norms)
        going = values[self._host(self.active)]
        return float(going.max() if going.size else values.max(initial=0.0))

    def _check_positive(self, values: Array, fault: tuple[str, str], name: str) -> None:
        self._check_finite(values, self.active, name)
        wrong = self.active & ~(values > 0)
        if bool(wrong.any()):
            place = _first(self._host(wrong))
            what, hint = fault
            value = float(self._host(values)[place])
            found = f"{name} = {value:.3g} {self._at(place)}"
            if fault is _OPERATOR and self.size:
                length = float(self._host(self.dot(self.direction, self.direction))[place])
                if -value < 1e3 * self.rounding * self.size * length:
                    found += ", which may be rounding"
                    found += f"; {self._condition(place)}" if self.steps else ""
                    hint = "a larger alpha" + (", or float64 arrays" if self.narrow else "")
            raise SolveError(what, found=found, hint=hint)

    def _check_finite(self, values: Array, among: Array, name: str = "|r|^2") -> None:
        wrong = among & ~self.xp.isfinite(values)
        if bool(wrong.any()):
            place, begun = _first(self._host(wrong)), getattr(self, "best", None)
            raise SolveError(
                "b is not finite" if begun is None else "the iterations left the finite numbers",
                found=f"{name} = {float(self._host(values)[place])} {self._at(place)}",
                hint="a right-hand side and arguments that are finite; a larger alpha",
            )

    def _at(self, place: tuple[int, ...]) -> str:
        return f"in iteration {self.iteration}, right-hand side {place}"

    def give_up(self) -> None:
        """Say which right-hand side is farthest from its tolerance, and how far.

        Raises:
            SolveError: always.
        """
        what = f"{self.method} did not converge in {self.iteration} iterations"
        self._fail(what, self._ends()[0])

    def fail(self, what: str, wrong: Array) -> None:
        """Say what is wrong with the first of some right-hand sides.

        Raises:
            SolveError: always.
        """
        self._fail(what, _first(self._host(wrong)))

    def check_preconditioned(self, values: Array, least: Array | float = 0.0) -> None:
        """Raise where products of residuals and preconditioned ones are below -`least`.

        Raises:
            SolveError: the preconditioner is not positive definite.
        """
        self._check_finite(values, self.active, "r.z")
        wrong = self.active & (values < -least)
        if bool(wrong.any()):
            what, hint = _PRECONDITIONER
            place = _first(self._host(wrong))
            found = f"r.z = {float(self._host(values)[place]):.3g} {self._at(place)}"
            raise SolveError(what, found=found, hint=hint)

    def _fail(self, what: str, place: tuple[int, ...]) -> None:
        """Say how far one right-hand side is, and what helps.

        Raises:
            SolveError: always.
        """
        active, squared, least, limit = (
            self._host(x) for x in (self.active, self.squared, self.least, self.limit)
        )
        norms = [float(x[place]) ** 0.5 for x in (squared, limit, least)]
        found = [
            f"|r| = {norms[0]:.3g}, more than {norms[1]:.3g} (at best it was {norms[2]:.3g}; "
            f"|b| = {float(self.first[place]) ** 0.5:.3g}), {self._at(place)}",
            f"{int(active.sum())} of {active.size} are not solved",
        ]
        hints = ['a larger maxiter, eps or alpha; a preconditioner, such as "nystrom" with a rank']
        if self.steps:
            outlook = self.outlook(place)
            found.append(self._condition(place))
            if max(outlook.floor, outlook.forecast) > outlook.wanted:
                reach = max(outlook.floor, outlook.forecast)
                found.append(f"rounding alone may leave |r| = {reach:.1g}")
                hints = ["a larger alpha or eps" + (", or float64 arrays" if self.narrow else "")]
        hints.append("the error's `solution` has what was found")
        raise SolveError(what, found="; ".join(found), hint="; ".join(hints))


_OPERATOR = (
    "the system is not positive definite: conjugate gradients cannot solve it",
    "a symmetric positive kernel of the same points on both sides; a larger alpha if rounding "
    "errors make it singular",
)
_UNSYMMETRIC = (
    "the operator is not symmetric: {} cannot solve the system",
    "the same points on both sides, and a kernel with F(x, y) = F(y, x)",
)
_PRECONDITIONER = ("the preconditioner is not positive definite", "an approximate inverse, r -> z")


def _first(wrong: NumpyArray) -> tuple[int, ...]:
    return tuple(int(n) for n in np.argwhere(wrong)[0])


def quiet() -> AbstractContextManager[None]:
    """NumPy without warnings: what is not finite is found by checks."""
    return np.errstate(all="ignore")


def checked_shape(preconditioner: Operator | None, b: Array) -> Operator:
    """A preconditioner that says so where it changes the shape; without one, residuals.

    Raises:
        ShapeError: when it is called.
    """
    if preconditioner is None:
        return lambda r: r

    def precondition(r: Array) -> Array:
        z = preconditioner(r)
        if tuple(getattr(z, "shape", ())) != tuple(b.shape):
            raise ShapeError(
                "a preconditioner must keep the shape of residuals",
                found=f"{getattr(z, 'shape', type(z).__name__)} from {tuple(b.shape)}",
            )
        return z

    return precondition


@contextmanager
def progress() -> Generator[Callable[[float], None]]:
    """A tqdm bar over iterations, where the setting `progress` asks for one and tqdm is there."""
    bar = None
    if current().progress:
        try:
            from tqdm.auto import tqdm
        except ImportError:
            pass
        else:
            bar = tqdm(desc="pairfold solve", unit="iteration", leave=False)

    def show(residual: float) -> None:
        if bar is not None:
            bar.set_postfix(residual=f"{residual:.2e}", refresh=False)
            bar.update()

    try:
        yield show
    finally:
        if bar is not None:
            bar.close()
