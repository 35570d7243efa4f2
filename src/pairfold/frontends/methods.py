"""Methods from rows: a row with a `method` name becomes a method, with its signature and help.

The first operand is the tensor itself; the others, and then the parameters, are the arguments.
Their names are PyKeOps' where PyKeOps has the method, since programs may give them by name.
"""

# Methods are part of the classes that they are made for.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn, SupportsIndex

from ..errors import ArrayTypeError, OptionError
from ..ops.table import OPERATIONS, Op, Param

if TYPE_CHECKING:
    from .reducing import Reducing

_NAMES = {
    "atan2": "other",
    "clamp": "other1 other2",
    "concat": "other",
    "diff": "other diffin",
    "divergence": "var",
    "elem": "i",
    "extract": "i d",
    "factorize": "other",
    "grad": "other gradin",
    "hypot": "other",
    "grad_matrix": "other",
    "ifelse": "other1 other2",
    "keops_kron": "other dimfself dimfother",
    "keops_tensordot": "other dimfa dimfb contfa contfb permute",
    "laplacian": "var",
    "logical_and": "other",
    "logical_or": "other",
    "matvecmult": "other",
    "maximum": "other",
    "minimum": "other",
    "one_hot": "D",
    "softdtw_sqdist": "other gamma",
    "sqdist": "other",
    "tensorprod": "other",
    "trace_operator": "var w",
    "vecmatmult": "other",
}


def is_for_complex(op: Op) -> bool:
    """Whether the row's first operand is a vector of complex numbers."""
    return op.args[:1] == ("z",)


def signature_of(op: Op) -> inspect.Signature:
    """The signature of a row's method."""
    words = [*op.args[1:], *(param.name for param in op.params)]
    words = _NAMES.get(str(op.method), " ".join(words)).split()
    operands = len(op.args) - 1
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    found = [inspect.Parameter("self", kind)]
    for place, word in enumerate(words):
        default: object = inspect.Parameter.empty
        if operands - op.optional <= place < operands:
            default = None
        elif place >= operands and op.params[place - operands].default is not None:
            default = op.params[place - operands].default
        found.append(inspect.Parameter(word, kind, default=default))
    return inspect.Signature(found)


def method_of(op: Op) -> Callable[..., Reducing]:
    """The method of a row."""
    signature = signature_of(op)
    operands = len(op.args) - 1
    names = list(signature.parameters)[1:]

    def method(self: Reducing, *args: object, **named: object) -> Reducing:
        given: list[Any] = list(args)  # of the types that the row says
        if named or len(args) != len(names):
            try:
                bound = signature.bind(self, *args, **named)
            except TypeError as error:
                raise TypeError(f"{op.method}{signature}: {error}") from None
            bound.apply_defaults()
            given = [bound.arguments[name] for name in names]
        optional = op.optional
        while optional and given[operands - 1 : operands] == [None]:
            del given[operands - 1]
            optional -= 1
        first = given[: len(given) - len(op.params)]
        rest = given[len(given) - len(op.params) :]
        checked = [checked_parameter(p, v) for p, v in zip(op.params, rest, strict=True)]
        return self._call(op.name, self, *first, *checked)

    return described(method, op, signature)


def described(
    method: Callable[..., Reducing], op: Op, signature: inspect.Signature
) -> Callable[..., Reducing]:
    """A function with a row's name, words and signature."""
    words = [*op.args, *(param.name for param in op.params)]
    lines = [
        op.says,
        "",
        f"The operation `{op.name}({', '.join(words)})`, {op.args[0]} being self.",
    ]
    if op.derivative:
        lines.append(f"Derivative: {op.derivative}.")
    if op.conventions:
        lines.append(f"Conventions: {op.conventions}.")
    method.__name__ = method.__qualname__ = str(op.method)
    method.__doc__ = "\n".join(lines)
    method.__signature__ = signature  # pyright: ignore (Python lets functions have it)
    return method


def checked_parameter(param: Param, value: Any) -> int | tuple[int, ...]:
    """A parameter of a row: a whole number, or a tuple of them.

    Raises:
        OptionError: it is none.
    """
    if param.kind == "list":
        try:
            return tuple(whole(param.name, item) for item in value)
        except TypeError:
            raise OptionError(
                f"{param.name} must be a list of whole numbers", found=f"{param.name}={value!r}"
            ) from None
    return whole(param.name, value)


def whole(name: str, value: SupportsIndex) -> int:
    """The value as a whole number.

    Raises:
        OptionError: it is none.
    """
    try:
        if isinstance(value, bool):
            raise TypeError
        return operator.index(value)
    except TypeError:
        raise OptionError(f"{name} must be a whole number", found=f"{name}={value!r}") from None


def add_methods(cls: type[Reducing], for_complex: bool) -> None:
    """Give a class a method for every row that has one, unless it has its own."""
    for op in OPERATIONS.values():
        own = op.method is not None and op.method in vars(cls)
        inherited = op.method is not None and hasattr(cls, op.method)
        if op.method and not own and not inherited and is_for_complex(op) == for_complex:
            setattr(cls, op.method, method_of(op))


def add_refusals(cls: type[Reducing], names: set[str], why: str, hint: str) -> None:
    """Give a class methods that refuse, saying why and what to do instead."""
    for name in sorted(names):
        setattr(cls, name, _refusal(name, why, hint))


def _refusal(name: str, why: str, hint: str) -> Callable[..., NoReturn]:
    def method(self: Reducing, *args: object, **named: object) -> NoReturn:
        raise ArrayTypeError(f"{name} {why}", found=repr(self), hint=hint)

    method.__name__ = method.__qualname__ = name
    method.__doc__ = f"{name} {why}: {hint}."
    return method
