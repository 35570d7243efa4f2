"""Which calls on lazy tensors are recorded where torch.compile traces a program."""

# Records are parts of the objects that they make.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, TypeVar

from ..arrays.opaque import follows_operators, traced_as
from ..errors import Function

if TYPE_CHECKING:
    from .records import Record


class Recorded(Protocol):
    """What can be made while a program is traced, and then has a record until it is asked for."""

    _record: Record | None


_C = TypeVar("_C", bound=type)
# Special methods that make nothing lazy, or that Python calls on classes.
_PLAIN = {"__new__", "__getattr__", "__repr__", "__str__", "__bool__", "__len__", "__iter__"} | {
    *("__array__", "__array_ufunc__", "__array_function__", "__torch_function__"),
    *("__deepcopy__", "__reduce__", "class_for", "restored", "dim"),
}
_LAZY = ("real", "imag", "T")  # properties that can be operands again


def recorded_as(name: str) -> Callable[[Function], Function]:
    """The function; where torch.compile traces a program, a call of this name in a record."""

    def watched(function: Function) -> Function:
        def traced(*args: Recorded, **options: object) -> object:
            if name == "__call__" and args[0]._record is None:
                return function(*args, **options)
            if not follows_operators():
                return NotImplemented
            from .records import record_call

            return record_call(name, function, args, options)

        return traced_as(traced)(function)

    return watched


def record_calls(cls: _C) -> _C:
    """Let calls of a class's own public methods and operators be recorded."""
    for name, method in list(vars(cls).items()):
        if name in _PLAIN or (name.startswith("_") and not name.endswith("__")):
            continue
        if inspect.isfunction(method):
            setattr(cls, name, recorded_as(name)(method))
        elif isinstance(method, property) and name in _LAZY and method.fget is not None:
            setattr(cls, name, property(recorded_as(name)(method.fget)))
    return cls


def _told(tensor: Recorded, name: str) -> object:
    from .records import told

    return told(tensor, name)


@traced_as(_told)
def made_now(tensor: Recorded, name: str) -> object:
    """An attribute of an object that a record makes, which is made now."""
    from .records import complete

    complete(tensor)
    return getattr(tensor, name)
