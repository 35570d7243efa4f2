"""Explanations of a reduction: what is reduced, for which sizes; backends say how."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypedDict, cast

from ..arrays.checks import Sizes, truths_of
from ..arrays.library import SUPPORTED, ArrayLibrary
from ..arrays.numpy import stand_in
from ..arrays.registry import JAX, NUMPY
from ..backends.chosen import TRITON, asked
from ..backends.interface import MaskedCall, SearchingCall
from ..backends.shown import Explained, Subject
from ..core.dtypes import DTYPES
from ..core.library import Array, Device
from ..core.node import Axis, topological
from ..core.show import formula_text, tree_text
from ..errors import ArgumentError, ArrayTypeError, check_option
from ..lower.pattern import Pattern
from ..ops.states import as_asked
from ..settings import current
from .devices import BACKENDS
from .farfield import FarReduction
from .farplan import Planned
from .given import checked
from .passes import Joint
from .ranges import Ranges, checked_ranges
from .reduction import FormulaReduction
from .separated import Work, told

_LARGE = 100_000


class ExplainOptions(TypedDict, total=False):
    """For what a reduction is explained: see `Genred.explain`."""

    dtype: str
    backend: str
    ranges: object


class Explainable(Protocol):
    """What has a method `explain`."""

    @property
    def explain(self) -> Callable[..., Explained]:
        """The explanation, for arrays or sizes."""
        ...


def explain_fold(
    fold: FormulaReduction,
    arrays: Sequence[object] = (),
    dtype: str = "float32",
    text: str | None = None,
    backend: str = "auto",
    ranges: object = None,
) -> Explained:
    """Explain a fold for arrays, or for large sizes of a dtype; `text` is what was written.

    Raises:
        OptionError: an unknown dtype or backend.
        ArgumentError: ranges without arrays.
        ArrayTypeError, DTypeError, DeviceError, ShapeError, RangeError: what does not fit.
    """
    check_option("dtype", dtype, SUPPORTED)
    check_option("backend", backend, BACKENDS)
    pairs = None if ranges is None else checked_ranges(ranges)
    if pairs is not None and not arrays:
        raise ArgumentError(
            "ranges are explained for the arrays that they cut", hint="explain(x, y, ranges=...)"
        )
    options, device, pattern, blocks, found = current(), None, None, None, ""
    truths = frozenset[int]()
    library, sizes = NUMPY, Sizes(_LARGE, _LARGE, ())
    given: Sequence[Array] = ()
    if arrays:
        fold, given, (library, sizes, dtype) = checked(fold, arrays, None)
        device = library.device(given[0])
        truths = truths_of(library, fold.variables, given)
        pattern = None if pairs is None else fold.pattern(pairs, sizes)
        if pairs is None and device is None:
            blocks, found = _blocks(fold, library, given)
    if isinstance(fold, FarReduction):
        return _explain_far(fold, given, library, dtype, text, backend, pairs)
    runs = asked(options, device, backend)
    launcher = fold.launcher(dtype, options, runs, truths)
    subject = _subject(fold, sizes, device, pattern, text)
    size = (subject.rows, subject.columns, subject.batches)
    why = "only some pairs count" if pairs is not None else ""
    if arrays and library is JAX:
        why = "programs of JAX go over pairs"
    if device is None and runs is TRITON:
        why = "arrays are copied to a GPU"
    work = Work(*size, dtype, device, launcher.kernel, why)
    told_of = told(fold, work, options)
    subject = replace(subject, blocks=blocks, searched=found, separable=told_of)
    return runs.explain(subject, launcher, options)


@dataclass(frozen=True, repr=False, eq=False)
class ExplainedFar(Explained):
    """How a treecode is computed; print it, or read its fields.

    `exact` explains the fold that it is computed by: over the columns that are left to be met, or
    over all pairs. `plan` says the order of the proxies, the columns that a row meets, and the
    error that was measured; None without arrays, on which they depend.
    """

    exact: Explained
    plan: Planned | None
    rtol: float

    def _section(self) -> list[str]:
        """The plan, and the fold."""
        asked = f"treecode   rtol {self.rtol:g}"
        plan, columns = self.plan, self.subject.columns
        if plan is None:
            lines = [f"{asked}, planned for the arrays of a call"]
        elif plan.far is None:
            lines = [f"{asked}, all pairs are met: {plan.why}"]
        else:
            share = 100 * plan.columns / columns
            lines = [
                f"{asked}, polynomials of order {plan.order} in each coordinate",
                f"columns    {plan.columns:.0f} met by a row, {share:.3g} % of {columns}",
                f"error      {plan.error:.1e}, measured at some rows, which bounds no other",
            ]
        return [*lines, *self.exact._section()]


def _explain_far(
    fold: FarReduction,
    arrays: Sequence[Array],
    library: ArrayLibrary,
    dtype: str,
    text: str | None,
    backend: str,
    ranges: Ranges | None,
) -> ExplainedFar:
    plan = fold.planned(library, arrays, ranges) if arrays else None
    given, pairs = arrays, None
    if plan is not None and plan.far is not None:
        given, pairs = plan.far.arrays, plan.far.ranges
    exact = explain_fold(fold.exact, given, dtype, text, backend, pairs)
    sizes = fold.check(arrays, library.name)[1] if arrays else Sizes(_LARGE, _LARGE, ())
    assert fold.accuracy.rtol is not None
    subject = _subject(fold, sizes, None, None, text)
    return ExplainedFar(subject, exact, plan, fold.accuracy.rtol)


def _subject(
    fold: FormulaReduction,
    sizes: Sizes,
    device: Device | None,
    pattern: Pattern | None,
    text: str | None = None,
) -> Subject:
    """What is explained; formulas of several reductions are told one after the other, each once."""
    formulas = [part.formula for part in fold.apart]
    weights = [part.weight for part in fold.apart if part.weight is not None]
    simplified = "; ".join(dict.fromkeys(formula_text(f, fold.names) for f in formulas))
    return Subject(
        formula=text or simplified,
        simplified=simplified,
        reduction="; ".join(map(_reduction, fold.apart)),
        dim=sum(part.dim for part in fold.apart),
        nodes=len(topological([*formulas, *weights])),
        tree="\n".join(dict.fromkeys(tree_text(f, fold.names) for f in formulas)),
        names=fold.names,
        rows=sizes.of(fold.kept),
        columns=sizes.of(fold.kept.other),
        batches=max(1, math.prod(sizes.batch)),
        pattern=pattern,
        device=device,
        where="" if fold.where is None else formula_text(fold.where, fold.names),
    )


def _blocks(
    fold: FormulaReduction, library: ArrayLibrary, arrays: Sequence[Array]
) -> tuple[tuple[int, int, int] | None, tuple[int, int] | str]:
    """What becomes of blocks of pairs: those of the mask, if that is asked, those of a search.

    Of a mask: how many are skipped, tested, and met whole. Of a search, which is made: how many are
    met, and of how many, or why all are.
    """
    if fold.joint or library.elsewhere is not None:
        return None, ""
    binding = fold.binding(library, arrays)
    if not binding.rows or not binding.columns or not binding.count:
        return None, ""
    if fold.where is None and not fold.row.selects and fold.accuracy.rtol is None:
        return None, ""
    results = fold.empty(library, arrays, binding)
    call, alive = fold.call(library, arrays, results, binding)
    given = library.addresses(alive, binding.needs), alive
    found = call.searched(*given) if isinstance(call, SearchingCall) else ""
    return call.blocks(*given) if isinstance(call, MaskedCall) else None, found


def _reduction(fold: FormulaReduction) -> str:
    kept, reduced = ("i", "j") if fold.kept == Axis.I else ("j", "i")
    return f"out_{kept} = {as_asked(fold.reduction)}_{reduced} F(x_{kept}, y_{reduced})"


@dataclass(frozen=True, repr=False, eq=False)
class ExplainedPasses(Explained):
    """How several reductions are computed; print it, or read its fields.

    `passes` are explanations of each pass over the pairs, `numbers` the reductions that it gives,
    and `reasons` say why these are not in the first pass.
    """

    passes: tuple[Explained, ...]
    numbers: tuple[tuple[int, ...], ...]
    reasons: tuple[str, ...]

    @property
    def _cost(self) -> str:
        """The passes."""
        return f" in {len(self.passes)} pass{'es' * (len(self.passes) > 1)}"

    def _section(self) -> list[str]:
        """Each pass."""
        lines: list[str] = []
        each = zip(self.passes, self.numbers, self.reasons, strict=True)
        for n, (explained, numbers, reason) in enumerate(each, 1):
            why = f", since {reason}" if reason else ""
            which = ", ".join(map(str, numbers))
            lines += ["", f"pass {n} of {len(self.passes)}: reductions {which}{why}", ""]
            lines += [f"  {line}".rstrip() for line in str(explained).splitlines()]
        return lines


def explain_joint(
    fold: Joint,
    arrays: Sequence[object] = (),
    dtype: str = "float32",
    backend: str = "auto",
    ranges: object = None,
) -> ExplainedPasses:
    """Explain several reductions for arrays, or for large sizes of a dtype.

    Raises:
        OptionError: an unknown dtype or backend.
        ArgumentError: ranges without arrays.
        ArrayTypeError, DTypeError, DeviceError, ShapeError, RangeError: what does not fit.
    """
    check_option("dtype", dtype, SUPPORTED)
    check_option("backend", backend, BACKENDS)
    pairs = None if ranges is None else checked_ranges(ranges)
    given: Sequence[Array] = [
        stand_in(
            [_LARGE] * (v.variable.kind.axes - 1) + [v.dim],
            "float16" if DTYPES[dtype].half else dtype,
        )
        for v in fold.variables
    ]
    library, sizes = NUMPY, Sizes(_LARGE, _LARGE, ())
    if arrays:
        found, given, (library, sizes, dtype) = checked(fold, arrays, None)
        fold = cast("Joint", found)  # as of every reduction: of the same class
    device = library.device(given[0])
    copied = device is None and asked(current(), device, backend) is TRITON
    plan = fold.plan(library, given, pairs, copied)
    explained: list[Explained] = []
    for each in plan:
        own = given if each.positions is None else [given[n] for n in each.positions]
        explained.append(
            explain_fold(each.fold, own if arrays else [], dtype, None, backend, ranges)
        )
    return ExplainedPasses(
        _subject(fold, sizes, device, None),
        tuple(explained),
        tuple(each.numbers for each in plan),
        tuple(each.why for each in plan),
    )


def explain(reduction: Explainable, *args: object, **options: object) -> Explained:
    """How a reduction is computed; the same as its `explain` method. Nothing is computed.

    Args:
        reduction: a `Genred` or what `generic_sum` and its like give, a `KernelSolve` (its
            products with vectors are explained), a reduction or a system of a lazy tensor that
            waits for its call (`K.sum(axis=1, call=False)`), several that wait
            (`together(..., call=False)`), or a lazy tensor itself.
        args, options: those of its method `explain`: arrays for which it is to be explained; of a
            lazy tensor the name of a reduction, by default "Sum", and its axis, by default j.

    >>> from pairfold import Genred, Vi, Vj, explain
    >>> plan = explain(Genred("Exp(-SqDist(x,y))", ["x = Vi(3)", "y = Vj(3)"], axis=1))
    >>> plan.flops_per_pair
    11.0
    >>> explain((-Vi(0, 3).sqdist(Vj(1, 3))).exp(), "LogSumExp").reduction
    'out_i = LogSumExp_j F(x_i, y_j)'

    Raises:
        ArrayTypeError: something that is no reduction.
    """
    if not hasattr(type(reduction), "explain"):
        raise ArrayTypeError(
            "only a reduction can be explained",
            found=f"a {type(reduction).__module__}.{type(reduction).__qualname__}",
            hint="a Genred, a KernelSolve, or a LazyTensor before it is reduced",
        )
    return reduction.explain(*args, **options)
