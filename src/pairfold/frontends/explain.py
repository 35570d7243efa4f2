"""Explanations of a reduction: what is reduced, for which sizes; backends say how."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypedDict, cast

from ..arrays.checks import Sizes, truths_of
from ..arrays.library import SUPPORTED, ArrayLibrary
from ..arrays.numpy import stand_in
from ..arrays.registry import NUMPY
from ..backends.chosen import TRITON, asked
from ..backends.interface import MaskedCall
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
from .given import checked
from .passes import Joint
from .ranges import checked_ranges
from .reduction import FormulaReduction

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
    options, device, pattern, blocks = current(), None, None, None
    truths = frozenset[int]()
    sizes = Sizes(_LARGE, _LARGE, ())
    if arrays:
        fold, given, (library, sizes, dtype) = checked(fold, arrays, None)
        device = library.device(given[0])
        truths = truths_of(library, fold.variables, given)
        pattern = None if pairs is None else fold.pattern(pairs, sizes)
        if pairs is None and device is None:
            blocks = _blocks(fold, library, given)
    subject = replace(_subject(fold, sizes, device, pattern, text), blocks=blocks)
    runs = asked(options, device, backend)
    return runs.explain(subject, fold.launcher(dtype, options, runs, truths), options)


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
) -> tuple[int, int, int] | None:
    """How many blocks of the mask are skipped, tested, and met whole, if that is asked at all."""
    if fold.where is None or fold.joint or library.elsewhere is not None:
        return None
    binding = fold.binding(library, arrays)
    if not binding.rows or not binding.columns or not binding.count:
        return None
    results = fold.empty(library, arrays, binding)
    call, alive = fold.call(library, arrays, results, binding)
    if not isinstance(call, MaskedCall):
        return None
    return call.blocks(library.addresses(alive, binding.needs), alive)


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
