"""KernelSolve: linear systems (alpha Id + K) a = b whose operator K is a reduction.

K is never stored: conjugate gradients need its products with vectors only. Solutions are functions
of b, of alpha and of every argument of the formula; their derivatives are solutions of the
transposed system (see `solvederivatives`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, cast

import numpy as np

from ..arrays.advice import kind_name
from ..arrays.checks import Sizes
from ..arrays.library import SUPPORTED, WHOLE, ArrayLibrary
from ..arrays.opaque import opaque
from ..arrays.registry import LIBRARIES, NUMPY, library_for
from ..calculus.operators import check_linear
from ..calculus.substitute import substitute
from ..core.dtypes import DTYPES
from ..core.library import Array, UserArray
from ..core.node import Axis, Node, depends_on
from ..errors import (
    ArrayTypeError,
    DimError,
    DTypeError,
    FormulaError,
    OptionError,
    ShapeError,
    check_option,
)
from ..ops.reductions import REDUCTIONS
from ..ops.table import variable
from .conjugate import Later, Stop, checked_stop, conjugate_gradients
from .devices import CallOptions
from .entries import Entries, Inverse, Operator
from .genred import call_fold, check_axis, checked_accuracy, listed_aliases
from .given import checked
from .hooks import hooks_of
from .minres import minimal_residuals
from .parse import parse_many
from .preconditioners import NAMES, checked_preconditioner
from .ranges import checked_ranges
from .reduction import FormulaReduction

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .explain import Explained, ExplainOptions

_VARIABLE = re.compile(r"\bVar\((\d+),\d+,\d\)")
# A preconditioner that nobody asked for: no sooner, no fewer columns, no more bytes, no smaller
# effect on the condition than these.
_WAIT, _LEAST_RANK, _MEMORY, _GAIN = 4, 32, 2**29, 16.0
# Operations that act on each component by itself, where dimensions stay the same.
_COMPONENTWISE = ("Var", "Add", "Subtract", "Minus", "Mult", "Divide")


# Of iterations; or a function of K's product and b.
Method = str | Callable[[Operator, Array], Array]
METHODS = ("cg", "minres")


@dataclass(frozen=True)
class Request:
    """How to solve: when to stop, what helps, and the options of each product with K."""

    stop: Stop = field(default_factory=Stop)
    preconditioner: Callable[[Array], Array] | str | None = "auto"
    callback: Callable[[int, Array], object] | None = None
    call: CallOptions = field(default_factory=CallOptions)
    rank: int | None = None
    method: Method = "cg"
    # A preconditioner that was made is kept here for the systems of derivatives.
    made: dict[str, Inverse] = field(default_factory=dict[str, Inverse])

    def __post_init__(self) -> None:
        if self.callback is not None and not callable(self.callback):
            raise OptionError(
                "callback must be a function of an iteration's number and its residuals",
                found=f"callback={self.callback!r}",
                hint="lambda number, residuals: ...",
            )

    def derived(self) -> Request:
        """The request for systems of derivatives, whose right-hand sides have any scale."""
        tol = self.stop.eps if self.stop.tol is None else self.stop.tol
        return replace(self, stop=replace(self.stop, tol=tol), callback=None)


class System:
    """A sum, linear in the argument at `position`, as the operator of linear systems.

    Raises:
        FormulaError: the formula is not linear in that argument, or it is a parameter.
        DimError: the formula has another dimension than the argument.
    """

    def __init__(self, fold: FormulaReduction, position: int, text: str | None = None) -> None:
        self.fold, self.position = fold, position
        self.unknown = fold.variables[position]
        self._transposed: System | None = None
        _check_unknown(fold.formula, self.unknown, text, fold.names)
        self.apart = _acts_apart(fold.formula, self.unknown)

    @property
    def axes(self) -> tuple[int, ...]:
        """The axes of one right-hand side: rows, and components unless K acts on each of them."""
        return (-2,) if self.apart else (-2, -1)

    def of(self, fold: FormulaReduction) -> System:
        """The system of its reduction as arguments need it: see `given.completed`."""
        if fold is self.fold:
            return self
        return fold.derived(("system", self.position), lambda: System(fold, self.position))

    def transposed(self) -> System:
        """The system of the transposed operator; its unknown has the same position."""
        if self._transposed is None:
            pulled = self.fold.pull_back(self.position)
            moved = variable(self.position, self.unknown.dim, self.fold.kept)
            formula = substitute(pulled.formula, {pulled.variables[-1]: moved})
            variables = list(self.fold.variables)
            variables[self.position] = moved
            fold = self.fold.with_formula(formula, variables, "Sum", pulled.kept)
            found = System(fold, self.position)
            found.apart, found._transposed = self.apart, self
            self._transposed = found
        return self._transposed

    def shape(self, sizes: Sizes) -> tuple[int, ...]:
        """The shape of solutions: (..., M, D).

        Raises:
            ShapeError: the operator is not square.
        """
        if self.unknown.params[2] != self.fold.kept and sizes.i != sizes.j:
            raise ShapeError(
                "a system must have as many equations as unknowns",
                found=f"{sizes.i} rows of i and {sizes.j} rows of j",
                hint="the same points as variables of i and of j",
            )
        return (*sizes.batch, sizes.of(self.fold.kept), self.unknown.dim)

    def with_vector(self, args: Sequence[Array], vector: Array) -> list[Array]:
        """The arguments, with a vector at the place of the unknown."""
        return [*args[: self.position], vector, *args[self.position + 1 :]]

    def product(
        self, library: ArrayLibrary, args: Sequence[Array], vector: Array, request: Request
    ) -> Array:
        """K times a vector."""
        return call_fold(self.fold, self.with_vector(args, vector), library.name, **request.call)

    def solution(
        self, library: ArrayLibrary, args: Sequence[Array], alpha: Array | None, request: Request
    ) -> Array:
        """a with (alpha Id + K) a = b, without derivatives; b stands at `position`.

        Raises:
            SolveError: see `conjugate_gradients`.
        """

        def apply(vector: Array) -> Array:
            found = self.product(library, args, vector, request)
            return found if alpha is None else found + alpha * vector

        b = args[self.position]
        if callable(request.method):
            return _checked_solution(library, request.method(apply, b), b)
        given = library, apply, b, self.axes, request.stop
        if request.method == "minres":
            asked = request.preconditioner
            helping = None if isinstance(asked, str) else asked
            return minimal_residuals(*given, helping, request.callback)
        helping = self._preconditioner(library, args, b, alpha, request)
        return conjugate_gradients(*given, helping, request.callback, _least(alpha))

    def _preconditioner(
        self,
        library: ArrayLibrary,
        args: Sequence[Array],
        b: Array,
        alpha: Array | None,
        request: Request,
    ) -> Operator | Later | None:
        """What a request asks for: a function r -> z, one that is made later, or None.

        Raises:
            UnsupportedError: a preconditioner with a name, where there can be none.
        """
        asked = request.preconditioner
        if not isinstance(asked, str):
            return asked
        if not math.prod(b.shape):
            return None
        kept = request.made.get("inverse")
        if kept is not None and kept.fits(b.shape):
            return kept
        if asked in NAMES:
            given = (library, args, b, alpha)
            found = self._entries().inverse(*given, asked, request.rank, request.call)
            request.made["inverse"] = found
            return found
        known = self.unknown.params[2] != self.fold.kept and request.call.get("ranges") is None
        return Later(_WAIT, self._choice(library, args, b, alpha, request)) if known else None

    def _choice(
        self,
        library: ArrayLibrary,
        args: Sequence[Array],
        b: Array,
        alpha: Array | None,
        request: Request,
    ) -> Callable[[int], Inverse | None]:
        """A preconditioner for a system that has taken some iterations, if it is likely to pay.

        Making one of rank k takes about as long as 2 k^2 / n products, so that k follows from the
        iterations so far: it takes no longer than they did. Where the eigenvalues found do not
        decay it is not tried again.
        """
        size = math.prod(b.shape[axis] for axis in self.axes)
        most = min(size // 2, _MEMORY // (8 * max(1, math.prod(b.shape))))
        last, gain = _LEAST_RANK // 2, _GAIN / 2

        def make(count: int) -> Inverse | None:
            nonlocal last, gain, most
            rank = min(most, math.isqrt(count * size // 2))
            if rank < 2 * last:
                return None
            given = (library, args, b, alpha)
            found = self._entries().inverse(*given, NAMES[0], rank, request.call)
            if found.gain < 2 * gain:
                most = most if found.gain > _GAIN / 4 else 0
                return None
            last, gain = rank, found.gain
            request.made["inverse"] = found
            return found

        return make

    def _entries(self) -> Entries:
        return Entries(self.fold, self.position, self.apart)


def _check_unknown(
    formula: Node, unknown: Node, text: str | None, names: Mapping[int, str]
) -> None:
    if unknown.params[2] == Axis.PARAMETER:
        raise FormulaError(
            "the unknown of a system is indexed by i or by j",
            found="a parameter",
            hint=f"Vi({unknown.dim}) or Vj({unknown.dim})",
        )
    try:
        check_linear(formula, unknown, "a system")
    except FormulaError as error:
        what, found = (
            _VARIABLE.sub(lambda m: names.get(int(m[1]), m[0]), part or "")
            for part in (error.what, error.found)
        )
        hint = "Exp(-SqDist(x,y)) * b is linear in b"
        raise FormulaError(what, where=text, found=found, hint=hint) from None
    if formula.dim != unknown.dim:
        raise DimError(
            "the formula of a system must have the dimension of its unknown",
            where=text,
            found=f"dimension {formula.dim}, the unknown has {unknown.dim}",
            hint="a scalar kernel times the unknown, or MatVecMult(K, b) of a matrix K",
        )


def _acts_apart(formula: Node, unknown: Node) -> bool:
    """Whether each component of the formula depends on the same component of the unknown only.

    Sound, not complete: where it is False, all components make one right-hand side.
    """
    moving = depends_on([formula], [unknown])
    return all(
        node.op.name in _COMPONENTWISE and node.dim == unknown.dim for node in (formula, *moving)
    )


def _checked_solution(library: ArrayLibrary, found: object, b: Array) -> Array:
    """What a method of a user gave.

    Raises:
        ArrayTypeError, ShapeError: it is not like b.
    """
    if not library.owns(found):
        raise ArrayTypeError(
            "a method must give an array like b", found=kind_name(found), hint="method=f, f(K, b)"
        )
    if tuple(found.shape) != tuple(b.shape):
        raise ShapeError(
            "a method must give an array of b's shape",
            found=f"{tuple(found.shape)} from {tuple(b.shape)}",
        )
    return library.cast_like(found, b)


def checked_method(method: object, preconditioner: object) -> Method:
    """How iterations go.

    Raises:
        OptionError: an unknown name, or a preconditioner that does not go with it.
    """
    if not callable(method):
        check_option("method", method, METHODS)
    named = isinstance(preconditioner, str) and preconditioner != "auto"
    if callable(method) and preconditioner not in (None, "auto"):
        raise OptionError(
            "a preconditioner belongs to a method of ours",
            found=f"method={method!r} and preconditioner={preconditioner!r}",
            hint="one inside of the function",
        )
    if method == "minres" and named:
        raise OptionError(
            "preconditioners with names are made for positive definite matrices",
            found=f"method='minres' and preconditioner={preconditioner!r}",
            hint="None, or a function r -> z that is positive definite",
        )
    return cast(Method, method)


@opaque
def solve_system(
    system: System, args: Sequence[object], name: str | None, alpha: object, request: Request
) -> Array:
    """Solve for arrays of either library; see `KernelSolve.__call__`.

    Raises:
        ArgumentError, ArrayTypeError, ShapeError, DTypeError, DeviceError, OptionError,
        SolveError: what does not fit, or cannot be solved.
    """
    for library in LIBRARIES:
        if any(map(library.owns, args)):
            library.check_recording()
    fold, taken, (library, sizes, dtype) = checked(system.fold, args, name)
    system = system.of(fold)
    shape = system.shape(sizes)
    ranges = checked_ranges(request.call.get("ranges"))
    if ranges is not None:
        ranges.pattern(system.fold.kept, sizes.i, sizes.j)
    request = replace(request, call={**request.call, "ranges": ranges})
    half = DTYPES[dtype].half
    if half:  # as sums are: half precision is storage only
        taken = [library.cast(array, DTYPES[dtype].computed) for array in taken]
    b = library.functions().broadcast_to(taken[system.position], shape)
    given, shift = system.with_vector(taken, b), _checked_alpha(library, alpha, b)
    if library.differentiates:
        found = hooks_of(library.name).solve(system, library, given, shift, request)
    else:
        found = system.solution(library, given, shift, request)
    return library.cast(found, dtype) if half else found


def _checked_alpha(library: ArrayLibrary, alpha: object, b: Array) -> Array | None:
    """alpha as an array of b's dtype that multiplies vectors, None for a plain 0."""
    if alpha is None or (isinstance(alpha, (int, float)) and alpha == 0):
        return None
    given = cast("Array", alpha)
    owner = library_for(given)
    if owner is not None and owner is not NUMPY:
        owner.check_kind(given, "alpha")
        owner.check_memory(given, "alpha")
        real = owner.dtype(given) in (*SUPPORTED, *WHOLE)
    else:
        real = not isinstance(alpha, complex) and not str(getattr(given, "dtype", "")).startswith(
            "c"
        )
    if not real:
        raise DTypeError(
            "alpha must be real", found=f"alpha of dtype {getattr(given, 'dtype', complex)}"
        )
    try:
        if owner is library and owner is not NUMPY:
            found = library.matched(given, b)
        else:
            values = given if owner is None else owner.to_numpy(given)
            found = library.functions().asarray(
                np.asarray(values, np.float64), dtype=b.dtype, **library.place(b)
            )
    except MemoryError:
        raise
    except Exception:  # what is no number, in whichever way it says so
        raise OptionError(
            "alpha must be a number or an array", found=f"alpha={alpha!r}", hint="alpha=0.1"
        ) from None
    shape = tuple(found.shape)
    if all(size == 1 for size in shape):
        return found.reshape(())
    try:
        fits = np.broadcast_shapes(shape, tuple(b.shape)) == tuple(b.shape)
    except ValueError:
        fits = False
    if not fits:
        raise ShapeError(
            "alpha must be a number, or broadcast to the shape of b",
            found=f"alpha of shape {shape}, b of shape {tuple(b.shape)}",
            hint="alpha[:, None] for one number per row"
            if shape == tuple(b.shape[-2:-1])
            else None,
        )
    return found


def _least(alpha: Array | None) -> float | None:
    """The least number on the diagonal; None where there is none above 0."""
    least = 0.0 if alpha is None or 0 in alpha.shape else float(alpha.min())
    return least if least > 0 else None


class KernelSolve:
    """Solutions of (alpha Id + K) a = b, where K a is the sum of a formula, linear in a.

    The operator must be symmetric and positive definite, a kernel of the same points on both sides,
    unless a call asks for another method. It is solved by conjugate gradients; every component of b
    and every batch element has step sizes of its own, unless the formula mixes components (a
    matrix-valued kernel): then they are one right-hand side.

    Args:
        formula: the sum's formula, for example `"Exp(-g*SqDist(x,y))*b"`.
        aliases: one declaration per array, as for `Genred`.
        varinvalias: the variable to solve for: its alias, `"b"`, or `"Var(2,1,1)"`.
        axis: the index of the sum: 0 for i, 1 for j.
        dtype_acc, use_double_acc, sum_scheme: accuracy of sums, as for `Genred`.

    >>> import numpy as np
    >>> solve = KernelSolve("Exp(-SqDist(x,y))*b", ["x=Vi(1)", "y=Vj(1)", "b=Vj(1)"], "b", axis=1)
    >>> x = np.array([[0.0], [1.0]])
    >>> solve(x, x, np.ones((2, 1)), alpha=1.0).round(4).tolist()
    [[0.4223], [0.4223]]

    Raises:
        FormulaError: the formula or an alias cannot be read, or the formula is not linear.
        OptionError: an option has a value that it cannot have.
    """

    library: str | None = None

    def __init__(
        self,
        formula: str,
        aliases: Sequence[str],
        varinvalias: str,
        axis: int = 0,
        *,
        dtype_acc: str = "auto",
        use_double_acc: bool = False,
        sum_scheme: str = "auto",
    ) -> None:
        check_axis(axis)
        accuracy = checked_accuracy(REDUCTIONS["Sum"], dtype_acc, use_double_acc, sum_scheme)
        aliases = listed_aliases(aliases)
        if not isinstance(varinvalias, str):
            raise OptionError(
                "varinvalias must be the alias of a variable",
                found=f"varinvalias={varinvalias!r}",
                hint='"b", the name of what K is multiplied with',
            )
        parsed, unknown = parse_many([formula, varinvalias], aliases)
        if unknown.node not in unknown.variables:
            raise FormulaError(
                "varinvalias must be the alias of a variable",
                found=f"varinvalias={varinvalias!r}",
                hint='"b", the name of what K is multiplied with',
            )
        self.formula, self.aliases, self.varinvalias = formula, aliases, varinvalias
        self.axis, self.accuracy, self.nargs = axis, accuracy, len(parsed.variables)
        kept = Axis.I if axis == 1 else Axis.J
        fold = FormulaReduction(parsed.node, parsed.variables, "Sum", kept, parsed.names, accuracy)
        self._system = System(fold, unknown.variables.index(unknown.node), formula)

    def __call__(
        self,
        *args: UserArray,
        backend: str = "auto",
        device_id: int | None = -1,
        alpha: object = 1e-10,
        eps: float = 1e-6,
        ranges: object = None,
        tol: float | None = None,
        maxiter: int | None = None,
        preconditioner: Callable[[UserArray], UserArray] | str | None = "auto",
        callback: Callable[[int, UserArray], object] | None = None,
        rank: int | None = None,
        method: str | Callable[[Callable[[UserArray], UserArray], UserArray], UserArray] = "cg",
    ) -> UserArray:
        """Solve.

        Args:
            args: as for `Genred`; at the place of the unknown stands b, of shape (..., M, D).
            backend, device_id, ranges: as for `Genred`.
            alpha: what is added to the diagonal: a number, or an array that broadcasts to b (the
                variances of noise, one per row, say).
            eps: a right-hand side of n numbers is solved when its residual r has |r|^2 <= n eps^2:
                eps bounds its root mean square, as in PyKeOps.
            tol, maxiter: |r| <= tol |b| instead; the most iterations, None: 10 n, at least 1000.
            preconditioner: "nystrom" or "pivoted-cholesky", for kernels whose eigenvalues decay;
                a function r -> z, a symmetric and positive definite approximate inverse; None;
                "auto" makes "nystrom" where iterations are many.
            callback: f(number of an iteration, from 1, norms of residuals (..., 1, D or 1)).
            rank: how many columns a preconditioner with a name takes; None: up to 200.
            method: "cg" for positive definite systems, "minres" for symmetric ones, or a function
                f(product, b); derivatives call it with transposed products.

        Returns:
            (..., M, D), in the arrays' library and dtype (half precision is solved in float32); 0
            where b itself is within the tolerance. Of torch tensors and JAX arrays it is
            differentiable (to any order, forward mode too) in b, alpha and every other argument;
            systems of derivatives are solved to |r| <= eps |b|.

        Raises:
            SolveError: no convergence, a system that is not what its method solves, numbers that
                are not finite; its `solution` is the best iterate so far.
            ArgumentError, ArrayTypeError, ShapeError, DTypeError, DeviceError, OptionError: what
                does not fit, before anything is computed.
            UnsupportedError: a preconditioner with a name for a sum over ranges.

        >>> import numpy as np
        >>> solve = KernelSolve("Exp(-SqDist(x,y))*b", ["x=Vi(1)", "y=Vj(1)", "b=Vj(1)"], "b", 1)
        >>> x = np.linspace(0, 1, 500)[:, None]
        >>> given = (x, x, np.sin(9 * x))
        >>> a = solve(*given, alpha=1e-6, preconditioner="nystrom", rank=20, maxiter=9)
        >>> a.shape
        (500, 1)
        """
        call: CallOptions = {"backend": backend, "device_id": device_id, "ranges": ranges}
        stop = checked_stop(eps, tol, maxiter)
        chosen, columns = checked_preconditioner(preconditioner, rank)
        request = Request(stop, chosen, callback, call, columns, checked_method(method, chosen))
        return solve_system(self._system, args, self.library, alpha, request)

    def explain(self, *args: UserArray, **options: Unpack[ExplainOptions]) -> Explained:
        """How the products K a are computed, one for each iteration; see `Genred.explain`.

        Args:
            args: arrays as in a call, to explain the plan for their sizes; none for large sizes.
            options: `dtype`, `backend`, `ranges` as for `Genred.explain`.
        """
        from .explain import explain_fold

        return explain_fold(self._system.fold, args, text=self.formula, **options)

    def __repr__(self) -> str:
        reduced = "j" if self.axis == 1 else "i"
        return (
            f"<KernelSolve: (alpha Id + K) a = {self.varinvalias}, K = Sum_{reduced} "
            f"{self.formula}, {', '.join(map(str, self.aliases))}>"
        )

    def __reduce__(self) -> tuple[object, ...]:
        options = {n: getattr(self, n) for n in ("formula", "aliases", "varinvalias", "axis")}
        accuracy = {"dtype_acc": self.accuracy.dtype, "sum_scheme": self.accuracy.scheme}
        return _rebuild, (type(self), {**options, **accuracy})


def _rebuild(kind: Callable[..., KernelSolve], options: dict[str, object]) -> KernelSolve:
    return kind(**options)
