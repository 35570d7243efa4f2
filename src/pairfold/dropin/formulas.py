"""`keopscore.formulas.maths`: the operations by name, with what it takes to try each of them.

An object says how to call its operation in a formula, as the classes of keopscore do: the number
and dimensions of operands, parameters, the values that operands may have.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable

from ..ops.table import OPERATIONS, Op
from .utilities import MATHS

# Operations that torch has as a function of the same operands.
_SAME_NAME = """
    Abs Acos Add Asin Atan Atan2 Cos Divide Exp Floor Log Pow ReLU Rsqrt Sign Sin Sqrt Square
    Subtract
"""
_IN_TORCH = {
    **{name: name.lower() for name in _SAME_NAME.split()},
    "Inv": "reciprocal",
    "Minus": "neg",
    "Mult": "mul",
    "Powf": "pow",
}


class Operation:
    """An operation of formulas, and operands to try it on.

    Attributes:
        string_id: its name.
        nargs: how many operands it takes; `test_argdims` are dimensions that fit them.
        test_params: parameters to try, as they are written in formulas.
        test_ranges: the least and largest value of each operand, where not every number will do.
        enable_test, disable_testgrad: whether it can be tried so, and whether without gradient.
    """

    def __init__(self, op: Op) -> None:
        self.string_id = op.name
        fitting = op.at_size(3) if op.args and not op.tuples else None
        self.enable_test = fitting is not None
        self.disable_testgrad = False
        self.no_torch_grad = False
        self.test_argdims, params = fitting or ((), ())
        self.nargs = len(op.args)
        self.test_params = tuple(map(_written, params))
        if op.domain:
            self.test_ranges = [op.domain.get(name, (-1, 1)) for name in op.args]

    def torch_op(self) -> Callable[..., object] | None:
        """The same function of torch, None where it has none."""
        name = _IN_TORCH.get(self.string_id)
        return None if name is None else getattr(importlib.import_module("torch"), name)

    def __repr__(self) -> str:
        return f"<operation {self.string_id} of formulas>"


def _written(param: object) -> object:
    """A parameter as formulas have it: whole numbers as they are, lists in brackets."""
    return list(param) if isinstance(param, tuple) else param


def __getattr__(name: str) -> Operation:
    if name not in MATHS:
        raise AttributeError(f"there is no operation {name!r} in keopscore.formulas.maths")
    importlib.import_module("..calculus.operators", __package__)  # it has operations of its own
    return globals().setdefault(name, Operation(OPERATIONS[name]))
