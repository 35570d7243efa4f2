"""pairfold and PyKeOps: the same program for both."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

from benchmarks.case import BEYOND, Arrays, Case
from benchmarks.peers.base import Skip, Work, tensors
from benchmarks.programs import PROGRAMS


class GenredPeer:
    """pairfold, or PyKeOps: the same program for both."""

    def __init__(self, library: str, **options: Any) -> None:
        self.library = library
        self.options = options

    def prepare(self, case: Case, arrays: Arrays) -> Work:
        """The case as a user writes it."""
        if self.library != "pairfold" and case.group == BEYOND:
            raise Skip
        module = importlib.import_module(f"{self.library}.{case.front}")
        if self.library == "pairfold" and case.rules != "rounding":
            work = self._prepare(case, arrays, module)
            settings = importlib.import_module("pairfold").settings

            def under_rules() -> Sequence[Any]:
                with settings(rules=case.rules):
                    return work()

            return under_rules
        return self._prepare(case, arrays, module)

    def _prepare(self, case: Case, arrays: Arrays, module: Any) -> Work:
        if case.program:
            return PROGRAMS[case.program](module, arrays, self.options)
        fold = module.Genred(
            case.formula,
            list(case.aliases),
            reduction_op=case.reduction_op,
            axis=case.axis,
            opt_arg=case.opt_arg,
            formula2=case.formula2,
            **self.options,
        )
        if case.front == "numpy":
            args: list[Any] = [arrays[name] for name in case.variables]
            return lambda: (fold(*args),)
        torch = importlib.import_module("torch")
        placed = tensors(arrays)
        args = [placed[name] for name in case.variables]
        if case.what == "forward":
            return lambda: (fold(*args),)
        wrt = [placed[name].requires_grad_() for name in case.wrt]
        upstream = placed["e"]
        if case.what == "both":
            return lambda: torch.autograd.grad(fold(*args), wrt, upstream)
        result = fold(*args)
        return lambda: torch.autograd.grad(result, wrt, upstream, retain_graph=True)

    def versions(self) -> dict[str, str]:
        """The version of the library."""
        return {self.library: str(importlib.import_module(self.library).__version__)}
