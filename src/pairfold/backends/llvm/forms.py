"""Which forms the states of a kernel have, one for each run of them."""

from __future__ import annotations

from .context import Code, Context, Places
from .scratch import Run
from .shifted import MaxShifted
from .states import Form, Running, Together
from .topk import ListFunctions, TopK


class Forms:
    """Makes the form of a kernel's states for each function of a module that deals with them."""

    def __init__(self, context: Context) -> None:
        self._lists: dict[int, ListFunctions] = {}
        for number, each in enumerate(context.kernel.lists):
            self._lists[each.first] = ListFunctions(context, each, str(number or ""))

    def form(self, code: Code, places: Places | None = None) -> Form:
        """The form, in one function; merging and finishing need the places of scratch memory."""
        forms = [self._form(code, run, places or {}) for run in code.layout.runs]
        return forms[0] if len(forms) == 1 else Together(code, forms)

    def _form(self, code: Code, run: Run, places: Places) -> Form:
        if run.accumulator.rule.top_k:
            return TopK(code, run, self._lists[run.first])
        if run.accumulator.rule.max_shifted:
            return MaxShifted(code, run, places)
        return Running(code, run)
