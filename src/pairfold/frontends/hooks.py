"""Where array libraries differentiate: folds and solutions as functions with derivatives.

The hooks of a library are functions of the module here that has its name, which is imported when
it is first needed, since it imports the library. A library without hooks is called directly.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, cast

from ..arrays.library import ArrayLibrary
from ..core.library import Array

if TYPE_CHECKING:
    from .reduction import FormulaReduction
    from .solve import Request, System


class Hooks(Protocol):
    """What a library that differentiates is asked for."""

    def call(
        self,
        fold: FormulaReduction,
        library: ArrayLibrary,
        arrays: Sequence[Array],
        out: object,
        ranges: object = None,
    ) -> object:
        """What `fold(library, arrays, out, ranges)` gives, differentiable; ranges as they came."""
        ...

    def solve(
        self,
        system: System,
        library: ArrayLibrary,
        arrays: Sequence[Array],
        alpha: Array | None,
        request: Request,
    ) -> Array:
        """What `system.solution(library, arrays, alpha, request)` gives, differentiable."""
        ...


@functools.cache
def hooks_of(name: str) -> Hooks:
    """The hooks of a library of that name."""
    return cast(Hooks, importlib.import_module(f".{name}", __package__))
