"""together: several reductions in one call, and in one pass over the pairs where that can be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Generic, Literal, TypeVar, overload

from ..arrays.advice import kind_name
from ..arrays.opaque import traced_as
from ..arrays.registry import library_for
from ..calculus.substitute import substitute
from ..core.cache import Cache, Limit
from ..core.node import Node
from ..errors import ArgumentError, ArrayTypeError, FormulaError, OptionError, unexpected
from ..ops.table import variable
from .devices import ANY_DEVICE, AUTO
from .genred import CALL_OPTIONS, Genred, call_fold
from .leaves import numbered
from .passes import Alone, Joint
from .ranges import all_pairs, same_ranges
from .reduced import Reduced, filled_from, fold_of, symbols_of_call
from .reduction import FormulaReduction
from .typed import CallOptions, Result

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .explain import Explained, ExplainOptions
    from .lazy import Tensor

R = TypeVar("R", Reduced, Genred)
_joints: Cache[Joint] = Cache(Limit("reductions of one call", 256))
_WANTED = "together takes reductions that wait for their call"
_HINT = "K.sum(axis=1, call=False), or a Genred"


class Together(Generic[R]):
    """Several reductions that are computed in one call; see `together`."""

    reductions: tuple[R, ...]
    fold: Joint

    def __call__(self, *arrays: object) -> tuple[Result, ...]:
        """Compute: a tuple of what each reduction gives.

        Args:
            arrays: one for each symbol of lazy tensors, in the order of their positions, or for
                each variable of `Genred`s.

        Raises:
            ArgumentError, ArrayTypeError, ShapeError, DTypeError, DeviceError, OptionError,
                RangeError: what does not fit, before anything is computed.
        """
        raise NotImplementedError

    def explain(self, *arrays: object, **options: Unpack[ExplainOptions]) -> Explained:
        """How they are computed: which of them in which pass, and each pass; nothing is computed.

        Args:
            arrays: as in a call, to explain the plan for their sizes; none for large sizes.
            options: `dtype`, where no arrays are known; `backend` and `ranges`, as in a call.

        Raises:
            ArgumentError, ArrayTypeError, ShapeError, DTypeError, DeviceError, OptionError,
                RangeError: what a call would refuse.
        """
        raise NotImplementedError

    def __len__(self) -> int:
        return len(self.reductions)

    def __repr__(self) -> str:
        listed = (f"{r.reduction_op} over axis {r.axis}" for r in self.reductions)
        return f"<{len(self)} reductions together: {', '.join(listed)}>"

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.reductions,)


# ----- lazy tensors ------------------------------------------------------------------------------


class ReducedTogether(Together[Reduced]):
    """Reductions of lazy tensors; what each was told (`out`, `keepdim` ...) holds for it."""

    def __init__(self, reductions: Sequence[Reduced]) -> None:
        self.reductions = tuple(reductions)
        self.options = _common_options(self.reductions)
        first, *others = (reduced.tensor for reduced in self.reductions)
        joined: Tensor = first._like(first.node, *others)  # pyright: ignore[reportPrivateUsage]
        self.symbols, self.library = joined.symbols, joined.library
        nodes = [node for r in self.reductions for node in (r.tensor.node, r.weight, r.where)]
        graphs, self.order = numbered(nodes, joined.leaves)
        places = {leaf.key: place for place, leaf in enumerate(self.order)}
        folds: list[FormulaReduction] = []
        alone: list[Alone] = []
        for n, r in enumerate(self.reductions):
            own = graphs[3 * n : 3 * n + 3]
            given = (r.reduction_op, r.kept, r.length, r.accuracy)
            folds.append(fold_of(own, self.order, *given))
            alone.append(Alone(r.fold, tuple(places[leaf.key] for leaf in r.order)))
        self.fold = _joint(folds, alone)

    @property
    def ready(self) -> bool:
        """Whether no array is missing."""
        return self.library is not None and not self.symbols

    def __call__(self, *arrays: object) -> tuple[Result, ...]:
        """Compute: a tuple of what each reduction gives; see `Together`."""
        return _computed(self, *arrays)

    def compute(self, *arrays: object) -> tuple[Result, ...]:
        """The same, where nothing traces."""
        library, filled = filled_from(self.order, self.symbols, arrays)
        targets = [None if r.tensor.is_complex else r.options.get("out") for r in self.reductions]
        options = self.options.copy()
        if any(target is not None for target in targets):
            options["out"] = tuple(targets)
        found = call_fold(self.fold, filled, None, **options)
        pairs = zip(self.reductions, found, strict=True)
        return tuple(reduced.as_users_see(library, result) for reduced, result in pairs)

    def explain(self, *arrays: object, **options: Unpack[ExplainOptions]) -> Explained:
        """How they are computed; see `Together`."""
        from .explain import explain_joint

        given: ExplainOptions = {**_explained(self.options), **options}
        if not arrays and not self.ready:
            return explain_joint(self.fold, [], **given)
        return explain_joint(self.fold, filled_from(self.order, self.symbols, arrays)[1], **given)


def _one_by_one(what: ReducedTogether, *arrays: object) -> tuple[Result, ...]:
    """One reduction after the other, as programs have them that torch.compile traces."""
    return tuple(r(*arrays[: symbols_of_call(r.tensor.symbols)]) for r in what.reductions)


@traced_as(_one_by_one)
def _computed(what: ReducedTogether, *arrays: object) -> tuple[Result, ...]:
    return what.compute(*arrays)


def _common_options(reductions: Sequence[Reduced]) -> CallOptions:
    """Where all compute, and over which pairs.

    Raises:
        OptionError: they do not agree.
    """
    first, *others = (reduced.call_options() for reduced in reductions)
    for number, other in enumerate(others, 1):
        for name, default in (("backend", AUTO), ("device_id", ANY_DEVICE)):
            one, two = first.get(name, default), other.get(name, default)
            if one != two:
                raise _differ(name, number, f"{one!r} and {two!r}")
        one, two = first.get("ranges"), other.get("ranges")
        if one is not two and not _same_pairs(one, two):
            raise _differ("ranges", number, "other pairs")
    found: CallOptions = {
        "backend": first.get("backend", AUTO),
        "device_id": first.get("device_id", ANY_DEVICE),
        "ranges": first.get("ranges"),
    }
    return found


def _same_pairs(one: object, two: object) -> bool:
    if all_pairs(one) or all_pairs(two):
        return all_pairs(one) and all_pairs(two)
    return same_ranges(one, two)


def _differ(name: str, number: int, found: str) -> OptionError:
    return OptionError(
        f"reductions that are computed together have the same {name}",
        where=f"reductions 0 and {number}",
        found=found,
        hint=f"{name}= the same for all, or calls of their own",
    )


def _explained(options: CallOptions) -> ExplainOptions:
    return {"backend": options.get("backend", AUTO), "ranges": options.get("ranges")}


def _joint(folds: Sequence[FormulaReduction], alone: Sequence[Alone]) -> Joint:
    """The reduction of these; equal ones are one, with what it learnt of sizes."""
    return _joints.of((*folds, *alone), lambda: Joint(folds, alone))


# ----- Genreds -----------------------------------------------------------------------------------


class GenredTogether(Together[Genred]):
    """`Genred`s of variables that have the same meaning wherever they have the same name.

    Arrays of a call are those of the first, then those that later ones have besides, in the order
    of their aliases.
    """

    def __init__(self, reductions: Sequence[Genred]) -> None:
        self.reductions = tuple(reductions)
        libraries = dict.fromkeys(r.library for r in self.reductions)
        if len(libraries) > 1:
            raise ArrayTypeError(
                "reductions that are computed together are of arrays of one library",
                found=" and ".join(str(name or "any") for name in libraries),
                hint="Genred from one module",
            )
        (self.library,) = libraries
        self.fold = _joint_of([reduction._fold for reduction in self.reductions])  # pyright: ignore

    def __call__(self, *arrays: object, **options: Unpack[CallOptions]) -> tuple[Result, ...]:
        """Compute: a tuple of what each reduction gives; see `Together`.

        Args:
            arrays: one for each variable.
            options: `backend`, `device_id` and `ranges` as for `Genred`, for all; `out`: a tuple
                with an array (or a tuple) or None for each reduction.
        """
        error = unexpected(options, CALL_OPTIONS)
        if error is not None:
            raise error
        out = options.get("out")
        if out is not None and (not isinstance(out, tuple) or len(out) != len(self)):
            raise OptionError(
                f"out must be a tuple of {len(self)}, an array or None for each reduction",
                found=kind_name(out),
                hint="out=(first, None)",
            )
        return _computed_from(self, *arrays, **options)

    def compute(self, *arrays: object, **options: Unpack[CallOptions]) -> tuple[Result, ...]:
        """The same, where nothing traces."""
        return call_fold(self.fold, arrays, self.library, **options)

    def explain(self, *arrays: object, **options: Unpack[ExplainOptions]) -> Explained:
        """How they are computed; see `Together`."""
        from .explain import explain_joint

        return explain_joint(self.fold, arrays, **options)


def _each(
    what: GenredTogether, *arrays: object, **options: Unpack[CallOptions]
) -> tuple[Result, ...]:
    """One after the other, as programs have them that torch.compile traces."""
    out = options.pop("out", None)
    found: list[Result] = []
    for n, reduction in enumerate(what.reductions):
        own = [arrays[place] for place in what.fold.alone[n].positions]
        options["out"] = out[n] if isinstance(out, tuple) else None
        found.append(reduction(*own, **options))
    return tuple(found)


@traced_as(_each)
def _computed_from(
    what: GenredTogether, *arrays: object, **options: Unpack[CallOptions]
) -> tuple[Result, ...]:
    return what.compute(*arrays, **options)


def _joint_of(folds: Sequence[FormulaReduction]) -> Joint:
    """The reduction of these over the variables of all, which are told apart by their names.

    Raises:
        FormulaError: variables of one name that differ, or that have none.
    """
    known: dict[str, Node] = {}
    where: list[tuple[int, ...]] = []
    for number, fold in enumerate(folds):
        if all(fold.variables == other.variables and fold.names == other.names for other in folds):
            positions = tuple(range(len(fold.variables)))
            return _joint(folds, [Alone(each, positions) for each in folds])
        places: list[int] = []
        for v in fold.variables:
            position, dim, kind = v.params
            name = fold.names.get(position)
            if name is None:
                raise FormulaError(
                    "variables of reductions with different aliases need names",
                    where=f"reduction {number}",
                    found=f"argument {position} has none",
                    hint='"x = Vi(3)"',
                )
            own = known.setdefault(name, variable(len(known), dim, kind))
            if own.params[1:] != v.params[1:]:
                raise FormulaError(
                    f"{name} is declared twice, and differently",
                    where=f"reduction {number}",
                    found=f"{_alias(v)} after {_alias(own)}",
                    hint="another name for one of them",
                )
            places.append(own.params[0])
        where.append(tuple(places))
    variables = list(known.values())
    names = dict(enumerate(known))
    moved = [_moved(fold, variables, own, names) for fold, own in zip(folds, where, strict=True)]
    return _joint(moved, [Alone(*each) for each in zip(folds, where, strict=True)])


def _moved(
    fold: FormulaReduction,
    variables: Sequence[Node],
    own: Sequence[int],
    names: dict[int, str],
) -> FormulaReduction:
    """The same reduction, of the variables of all."""
    new = {old: variables[place] for old, place in zip(fold.variables, own, strict=True)}
    formula = substitute(fold.formula, new)
    weight = None if fold.weight is None else substitute(fold.weight, new)
    where = None if fold.where is None else substitute(fold.where, new)
    rest = (fold.reduction, fold.kept, names, fold.accuracy, weight, fold.length, None, where)
    return FormulaReduction(formula, variables, *rest)


def _alias(v: Node) -> str:
    _, dim, kind = v.params
    return f"{('Vi', 'Vj', 'Pm', 'Vij')[int(kind)]}({dim})"


# ----- the function ------------------------------------------------------------------------------


def _in_trace(*reductions: object, call: bool = True) -> object:
    """What a program has that torch.compile traces: each reduction by itself."""
    found: list[object] = []
    for reduction in reductions:
        if not call or not isinstance(reduction, Reduced):
            return NotImplemented
        # What the program itself has made is a record, which is called in any case.
        if reduction._record is None and not reduction.ready:  # pyright: ignore
            return NotImplemented
        found.append(reduction())
    return tuple(found)


@overload
def together(*reductions: Reduced, call: Literal[False]) -> ReducedTogether: ...
@overload
def together(*reductions: Reduced, call: bool = True) -> Result: ...
@overload
def together(first: Genred, /, *others: Genred, call: bool = True) -> GenredTogether: ...
@traced_as(_in_trace)
def together(*reductions: object, call: bool = True) -> object:
    """Several reductions in one call, from one pass over the pairs where that can be.

    What their formulas make of the same arrays (distances, exponentials) is then computed once;
    views that are made anew, as `x[:, None, :]`, are other arrays. The reductions may be over the
    same axis or over different ones; what cannot be one pass is several, and `explain` says why.

    Args:
        reductions: reductions of lazy tensors that wait for their call, as
            `K.sum(axis=1, call=False)`: of the same arrays, or of others of the same library,
            dtype, device and numbers of rows. Each keeps what it was told, `out=` and `keepdim=`;
            `backend`, `device_id` and `ranges` are the same for all. Or `Genred`s, whose variables
            are the same where their names are.
        call: compute at once; False gives a callable.

    Returns:
        A tuple of what each reduction gives: an array (..., M, D) or (..., N, D), or for some a
        tuple, of the dtype that it has alone (indices int64, truth values bool). torch and JAX
        differentiate them as they do each. Where arrays are missing, and without `call`, a
        callable with a method `explain`: it takes an array for each symbol, in the order of their
        positions, or for each variable of the `Genred`s: those of the first, then what others have
        besides.

    >>> import numpy as np
    >>> from pairfold import Vi, Vj, together
    >>> x, y = np.array([[0.0], [3.0]]), np.array([[1.0], [5.0], [2.0]])
    >>> D = Vi(x).sqdist(Vj(y))
    >>> nearest, furthest = together(D.argmin(axis=1, call=False), D.max(axis=1, call=False))
    >>> nearest.tolist(), furthest.tolist()
    ([[0], [2]], [[25.0], [4.0]])

    Raises:
        ArgumentError, ArrayTypeError: nothing, or what is no reduction.
        ShapeError, DTypeError, DeviceError, OptionError, FormulaError: reductions that do not fit
            each other, before anything is computed.
    """
    if not reductions:
        raise ArgumentError(_WANTED, found="none", hint=_HINT)
    lazy = [r for r in reductions if isinstance(r, Reduced)]
    named = [r for r in reductions if isinstance(r, Genred)]
    if len(named) == len(reductions):
        return GenredTogether(named)
    if len(lazy) < len(reductions):
        raise _no_reductions(reductions)
    found = ReducedTogether(lazy)
    return found() if call and found.ready else found


def _no_reductions(reductions: Sequence[object]) -> ArrayTypeError:
    kinds = [isinstance(r, (Reduced, Genred)) for r in reductions]
    if all(kinds):
        return ArrayTypeError(
            "reductions of lazy tensors and Genreds are not computed together",
            found=", ".join(kind_name(r) for r in reductions),
            hint="one kind of them",
        )
    number = kinds.index(False)
    wrong = reductions[number]
    hint = _HINT
    if library_for(wrong) is not None:
        hint = "call=False: K.sum(axis=1, call=False)"
    return ArrayTypeError(_WANTED, where=f"argument {number}", found=kind_name(wrong), hint=hint)
