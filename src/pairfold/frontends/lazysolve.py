"""Linear systems whose matrix is a lazy tensor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, cast

from ..arrays.registry import library_for
from ..core.library import Array, UserArray
from ..core.node import Axis
from ..errors import ArgumentError, ArrayTypeError, OptionError, SolveError, unexpected
from .accuracy import Accuracy
from .conjugate import Stop, checked_stop
from .devices import CallOptions
from .lazy import Tensor
from .leaves import Leaf, numbered
from .preconditioners import checked_preconditioner
from .reduced import fold_of
from .solve import Request, System, checked_method, solve_system

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .explain import Explained
    from .reducing import Reducing

_STOP = ("eps", "tol", "maxiter")
_CALL = ("backend", "device_id", "ranges")
_HELP = ("preconditioner", "callback", "rank", "method")
_MEANT = {
    **dict.fromkeys(
        ("lam", "lamb", "lambda_", "lmbda", "ridge", "reg", "noise", "jitter"), "alpha"
    ),
    **dict.fromkeys(("rtol", "tolerance"), "tol"),
    **dict.fromkeys(("max_iter", "maxit", "max_iterations", "n_iter"), "maxiter"),
    **dict.fromkeys(("precond", "M", "preconditioning"), "preconditioner"),
}


class SolveOptions(CallOptions, total=False):
    """How a system is solved: see `LazyTensor.solve`."""

    alpha: object
    eps: float
    tol: float | None
    maxiter: int | None
    preconditioner: Callable[[UserArray], UserArray] | str | None
    callback: Callable[[int, UserArray], object] | None
    rank: int | None
    method: str | Callable[[Callable[[UserArray], UserArray], UserArray], UserArray]


class Solved:
    """A system (alpha Id + K) a = b that waits for its call; see `LazyTensor.solve`.

    Call it with one array per symbol but the unknown's, in the order of their positions, and with
    any options of `LazyTensor.solve`, which are remembered for later calls.
    """

    def __init__(self, tensor: Reducing, other: object, var: object, accuracy: Accuracy) -> None:
        if tensor.is_complex or getattr(other, "is_complex", False) is True:
            raise ArrayTypeError("systems of complex numbers cannot be solved yet")
        self._made_of = (tensor, other, var, accuracy)
        self.right, self.flat = _right_hand_side(other)
        kept = self.right.kind
        if var is None:
            moved = Axis.J if kept == Axis.I else Axis.I
            unknown = Leaf(moved, self.right.dim, owner=object())
            node = tensor.node * unknown.node
            leaves = (*tensor.leaves, unknown)
        else:
            unknown = _symbol_of(tensor, var)
            node, leaves = tensor.node, tensor.leaves
        (formula,), self.order = numbered([node], leaves)
        self.place = next(n for n, leaf in enumerate(self.order) if leaf.same(unknown))
        fold = fold_of([formula, None, None], self.order, "Sum", kept, 0, accuracy)
        self.system = fold.derived(("system", self.place), lambda: System(fold, self.place))
        self.tensor = tensor
        self.options: SolveOptions = {}
        waiting = [leaf for n, leaf in enumerate(self.order) if n != self.place]
        found = {leaf.symbol for leaf in (*waiting, self.right) if leaf.symbol is not None}
        self.positions = sorted(found)

    @property
    def ready(self) -> bool:
        """Whether nothing is missing."""
        return not self.positions

    def set_options(self, **options: Unpack[SolveOptions]) -> None:
        """Remember options for calls.

        Raises:
            TypeError: an unknown one.
        """
        error = unexpected(options, ("alpha", *_STOP, *_CALL, *_HELP), _MEANT)
        if error is not None:
            raise error
        self.options.update(options)

    def __call__(self, *arrays: UserArray, **options: Unpack[SolveOptions]) -> UserArray:
        """Solve; see `LazyTensor.solve` for options, results and errors."""
        self.set_options(**options)
        filled = self._filled(arrays)
        alpha = self.options.get("alpha", 1e-10)
        try:
            result = solve_system(self.system, filled, None, alpha, self._request())
        except SolveError as error:
            if self.flat and error.solution is not None:
                error.solution = error.solution[..., 0]
            raise
        return result[..., 0] if self.flat else result

    def explain(self, *arrays: UserArray, dtype: str = "float32") -> Explained:
        """How the products K a are computed, one for each iteration; see `Genred.explain`.

        Args:
            arrays: one per symbol, as in a call; none for large sizes.
            dtype: the dtype to explain where no arrays are known.

        Raises:
            ArgumentError, ArrayTypeError, ShapeError, DTypeError: what does not fit.
        """
        from .explain import explain_fold

        waits = not arrays and not self.ready
        filled = [] if waits else self._filled(arrays)
        call = self._request().call
        ranges = None if waits else call.get("ranges")
        return explain_fold(
            self.system.fold, filled, dtype, None, call.get("backend", "auto"), ranges
        )

    def _filled(self, arrays: Sequence[Array]) -> list[Array]:
        """An array for every variable, b in the place of the unknown.

        Raises:
            ArgumentError, ArrayTypeError: another number of arrays, or b is none.
        """
        if len(arrays) != len(self.positions):
            raise ArgumentError(
                f"this system takes {len(self.positions)} arrays", found=f"{len(arrays)} arrays"
            )
        by_symbol = dict(zip(self.positions, arrays, strict=True))
        b = self.right.array if self.right.symbol is None else by_symbol[self.right.symbol]
        given = [
            b if n == self.place else leaf.array if leaf.symbol is None else by_symbol[leaf.symbol]
            for n, leaf in enumerate(self.order)
        ]
        library = library_for(b)
        if library is None:
            raise ArrayTypeError("b must be an array", found=f"a {type(b).__name__}")
        found: list[Array] = []
        for leaf, array in zip(self.order, given, strict=True):
            number = library.numbers(leaf.values, b) if leaf.values is not None else array
            found.append(leaf.codes_like(library, b) if leaf.coded else number)
        return found

    def _request(self) -> Request:
        chosen = self.options
        given = dict(chosen.items())
        call = cast(
            "CallOptions", {name: given[name] for name in _CALL if given.get(name) is not None}
        )
        if self.tensor.ranges is not None:
            call.setdefault("ranges", self.tensor.ranges)
        if self.tensor.backend is not None:
            call.setdefault("backend", self.tensor.backend)
        stop = checked_stop(chosen.get("eps", Stop.eps), chosen.get("tol"), chosen.get("maxiter"))
        helper, rank = chosen.get("preconditioner", "auto"), chosen.get("rank")
        preconditioner, rank = checked_preconditioner(helper, rank)
        method = checked_method(chosen.get("method", "cg"), preconditioner)
        return Request(stop, preconditioner, chosen.get("callback"), call, rank, method)

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), self._made_of, {"options": self.options}

    def __repr__(self) -> str:
        return f"<system (alpha Id + K) a = b, K = {self.system.fold.formula}>"


def _right_hand_side(other: object) -> tuple[Leaf, bool]:
    """b as a leaf indexed by i or j, and whether it was a plain vector."""
    if isinstance(other, Tensor):
        leaf = other.leaves[0] if len(other.leaves) == 1 else None
        if leaf is None or other.node is not leaf.node or leaf.kind not in (Axis.I, Axis.J):
            raise ArrayTypeError(
                "b must be an array or a variable", found=repr(other), hint="Vi(b) or Vj(b)"
            )
        return leaf, False
    library, array = library_for(other), cast("Array", other)
    if library is None or not len(array.shape):
        raise ArrayTypeError(
            "b must be an array or a variable",
            found=f"a {type(other).__name__}",
            hint="an array (M, E), or Vi(b)",
        )
    flat = len(array.shape) == 1
    b = array.reshape(-1, 1) if flat else array
    return Leaf(Axis.I, b.shape[-1], b, owner=array), flat


def _symbol_of(tensor: Tensor, var: object) -> Leaf:
    """The leaf of a tensor that a symbol stands for."""
    wanted = var.leaves[0] if isinstance(var, Tensor) and len(var.leaves) == 1 else None
    if wanted is None or wanted.symbol is None or not isinstance(var, Tensor):
        raise OptionError("var must be a symbol", found=repr(var), hint="Vj(0, 3)")
    found = next((leaf for leaf in tensor.leaves if leaf.same(wanted)), None)
    if found is None:
        raise OptionError("var must be a symbol of the formula", found=repr(var))
    return found
