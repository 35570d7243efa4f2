"""Explanations of a reduction: what is reduced, for which sizes; backends say how."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol, TypedDict

from ..arrays.library import SUPPORTED
from ..backends.chosen import asked
from ..backends.shown import Explained, Subject
from ..core.node import Axis, topological
from ..core.show import formula_text, tree_text
from ..errors import ArgumentError, ArrayTypeError, check_option
from ..settings import current
from .devices import BACKENDS
from .given import checked
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
    options, device, pattern = current(), None, None
    rows = columns = _LARGE
    batches = 1
    if arrays:
        given, (library, sizes, dtype) = checked(fold, arrays, None)
        device = library.device(given[0])
        rows = sizes.of(fold.kept)
        columns = sizes.of(Axis.J if fold.kept == Axis.I else Axis.I)
        batches = max(1, math.prod(sizes.batch))
        pattern = None if pairs is None else fold.pattern(pairs, sizes)
    kept, reduced = ("i", "j") if fold.kept == Axis.I else ("j", "i")
    simplified = formula_text(fold.formula, fold.names)
    subject = Subject(
        formula=text or simplified,
        simplified=simplified,
        reduction=f"out_{kept} = {fold.reduction}_{reduced} F(x_{kept}, y_{reduced})",
        dim=fold.dim,
        nodes=len(topological([fold.formula, *([fold.weight] if fold.weight else [])])),
        tree=tree_text(fold.formula, fold.names),
        names=fold.names,
        rows=rows,
        columns=columns,
        batches=batches,
        pattern=pattern,
        device=device,
    )
    runs = asked(options, device, backend)
    return runs.explain(subject, fold.launcher(dtype, options, runs), options)


def explain(reduction: Explainable, *args: object, **options: object) -> Explained:
    """How a reduction is computed; the same as its `explain` method. Nothing is computed.

    Args:
        reduction: a `Genred` or what `generic_sum` and its like give, a `KernelSolve` (its
            products with vectors are explained), a reduction or a system of a lazy tensor that
            waits for its call (`K.sum(axis=1, call=False)`), or a lazy tensor itself.
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
