"""What torch.compile does with our functions: it traces operators and calls the rest as it is.

These are the calls of users, too: errors of bad input leave them without our frames below.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable

from ..errors import Function, PairfoldError, shortened


def opaque(function: Function) -> Function:
    """The function; where torch.compile traces a program, the trace is interrupted for its call.

    Values and gradients are then those of a plain call.
    """
    return _watched(function, None)


def traced_as(traced: Callable[..., object]) -> Callable[[Function], Function]:
    """The function; where torch.compile traces a program, `traced` with the same arguments.

    Where that gives NotImplemented, the trace is interrupted. What a trace was interrupted for, or
    gave up on, is called as it is.
    """
    return lambda function: _watched(function, traced)


def constant(function: Function) -> Function:
    """The function; where torch.compile traces a program, it is called once, then.

    Its arguments must be the same at every call that the compiled program stands for: names,
    dimensions and graphs, not arrays.
    """
    function._dynamo_marked_constant = True  # pyright: ignore
    return function


@constant
def follows_operators() -> bool:
    """Whether torch.compile follows operators on objects of ours, and takes objects for constants.

    It does from 2.13 on. Older versions are not known to: 2.8 stops at some operators, as `|`.
    """
    version: str = sys.modules["torch"].__version__
    major, minor = version.split(".")[:2]
    return (int(major), int(minor)) >= (2, 13)


def _watched(function: Function, traced: Callable[..., object] | None) -> Function:
    hidden: Function | None = None

    @functools.wraps(function)
    def call(*args: object, **options: object) -> object:
        nonlocal hidden
        try:
            torch = sys.modules.get("torch")
            if torch is None or "torch._dynamo" not in sys.modules:
                return function(*args, **options)
            # Frames that a trace was interrupted for, or gave up on, are looked into when they run.
            tracing = torch.compiler.is_dynamo_compiling()
            if tracing and traced is not None:
                found = traced(*args, **options)
                if found is not NotImplemented:
                    return found
            if not tracing and torch._C._dynamo.eval_frame.get_eval_frame_callback() is None:
                return function(*args, **options)
            if hidden is None:
                hidden = torch.compiler.disable(function)
            return hidden(*args, **options)  # pyright: ignore
        except PairfoldError as error:
            raise shortened(error)  # noqa: B904

    return call  # pyright: ignore
