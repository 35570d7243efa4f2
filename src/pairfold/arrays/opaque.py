"""What torch.compile calls, and does not look into: it would trace our own compiler.

These are the calls of users, too: errors of bad input leave them without our frames below.
"""

from __future__ import annotations

import functools
import sys

from ..errors import Function, PairfoldError, shortened


def opaque(function: Function) -> Function:
    """The function; where torch.compile traces a program, the trace is interrupted for its call.

    Values and gradients are then those of a plain call.
    """
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
            if not tracing and torch._C._dynamo.eval_frame.get_eval_frame_callback() is None:
                return function(*args, **options)
            if hidden is None:
                hidden = torch.compiler.disable(function)
            return hidden(*args, **options)  # pyright: ignore
        except PairfoldError as error:
            raise shortened(error)  # noqa: B904

    return call  # pyright: ignore
