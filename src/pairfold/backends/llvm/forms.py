"""Which form the states of a kernel have."""

from __future__ import annotations

from llvmlite import ir

from .context import Code, Context, Places
from .shifted import MaxShifted
from .states import Form, Running
from .topk import ListFunctions, TopK


class Forms:
    """Makes the form of a kernel's states for each function of a module that deals with them."""

    def __init__(self, context: Context) -> None:
        self.lists = ListFunctions(context) if context.kernel.listed else None

    def form(self, code: Code, places: Places | None = None) -> Form:
        """The form, in one function; merging and finishing need the places of scratch memory."""
        if self.lists is not None:
            return TopK(code, self.lists)
        if code.kernel.anchors:
            return MaxShifted(code, places or dict[str, ir.Value]())
        return Running(code)
