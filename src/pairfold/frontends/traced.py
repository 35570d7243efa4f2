"""Calls of reductions as torch.compile traces them: each is one function of its graph.

The tracer goes through `call_traced` and puts `_reduce_in_graph` into the graph, which it only
runs, on tensors without values: there every check of a call is made, and operators of torch are
called. Compilers that go on from there see these operators and the operations around them. What a
traced program makes itself, and then calls, is in `records.py`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from ..arrays.opaque import constant, follows_operators
from ..arrays.torch_gate import recorder
from ..core.library import Array
from ..errors import PairfoldError
from .filling import targets_of
from .genred import call_fold
from .ranges import Ranges, all_pairs, six
from .torchops import named, text_of

if TYPE_CHECKING:
    from .reduction import FormulaReduction


def call_traced(
    fold: FormulaReduction,
    args: Sequence[object],
    name: str | None,
    backend: str = "auto",
    device_id: int | None = -1,
    ranges: object = None,
    out: Tensor | tuple[Tensor, ...] | None = None,
) -> object:
    """What `call_fold` gives, as torch.compile sees it; NotImplemented for other than tensors, and
    for tracers that it was not tried with.
    """
    if not follows_operators() or fold.far:
        return NotImplemented
    given, like = list(args), None
    for x in given:
        if isinstance(x, Tensor) and like is None:
            like = x
    if like is None or name not in (None, "torch"):
        return NotImplemented
    for place, x in enumerate(given):
        if isinstance(x, (int, float, torch.SymInt, torch.SymFloat)):
            number = cast(float, x)  # as far as torch.full goes
            given[place] = torch.full((1,), number, dtype=like.dtype, device=like.device)
        elif not isinstance(x, Tensor):
            return NotImplemented
    pairs: Sequence[object] = ()
    if not all_pairs(ranges):
        parts = ranges.arrays if isinstance(ranges, Ranges) else six(ranges)
        pairs = [torch.as_tensor(part) for part in parts]
    targets = () if out is None else out if isinstance(out, tuple) else (out,)
    counts = len(given), len(pairs)
    found = _reduce_in_graph(_text(fold), backend, device_id, counts, *given, *pairs, *targets)
    if out is not None:
        for target, result in zip(targets, found, strict=True):
            target.copy_(result)
        return out
    return found[0] if len(found) == 1 else found


@constant
def _text(fold: FormulaReduction) -> str:
    """The text of a reduction, which is a part of the graph."""
    return text_of(fold)


def _reduce(
    text: str,
    backend: str,
    device_id: int | None,
    counts: tuple[int, int],
    *given: Array,
) -> tuple[Array, ...]:
    """A reduction of its text, called as users do; `out` is checked, and filled by the graph."""
    fold, _, library = named(text)
    count, end = counts[0], sum(counts)
    tensors, pairs, out = given[:count], given[count:end], given[end:]
    found = call_fold(fold, tensors, "torch", backend, device_id, pairs or None)
    if out:
        targets_of(library, out, found, fold)
    return found if isinstance(found, tuple) else (found,)


def checked_in_graph(function: Callable[..., object]) -> Callable[..., tuple[Tensor, ...]]:
    """The function as one of a graph, which is run on tensors without values first."""

    @functools.wraps(function)
    def call(*args: object) -> object:
        try:
            return function(*args)
        except PairfoldError as error:
            if recorder() is None:
                raise
            # The tracer gives up where an operation says this of its arguments, and the program is
            # run as it is: a plain call then raises the error itself.
            raise TypeError(f"an argument does not fit: {error}") from None

    # Where a trace was given up it is called with values, and nobody is to look into it then.
    hidden = torch.compiler.disable(call)
    return cast("Callable[..., tuple[Tensor, ...]]", torch.compiler.allow_in_graph(hidden))


_reduce_in_graph = checked_in_graph(_reduce)
