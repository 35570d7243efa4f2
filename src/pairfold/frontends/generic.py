"""generic_sum and its like: a reduction told by an alias for its result, instead of an axis."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypedDict

from ..core.node import Axis
from ..errors import FormulaError, UnknownNameError
from .declarations import parse_aliases
from .genred import Genred

if TYPE_CHECKING:
    from typing_extensions import Unpack

Generic = Callable[..., Genred]


class Options(TypedDict, total=False):
    """Further arguments of `Genred`."""

    dtype: object
    opt_arg: int | None
    formula2: str | None
    cuda_type: object
    dtype_acc: str
    use_double_acc: bool
    sum_scheme: str
    enable_chunks: bool
    rec_multVar_highdim: object
    use_fast_math: bool


# Name -> reduction, what it computes, whether the result's dimension is K.
_GENERIC = {
    "generic_sum": ("Sum", "sum", False),
    "generic_logsumexp": ("LogSumExp", "logarithm of the sum of exponentials", False),
    "generic_argmin": ("ArgMin", "index of the smallest value", False),
    "generic_argkmin": ("ArgKMin", "indices of the K smallest values", True),
}
NAMES = tuple(_GENERIC)


def generic(name: str, kind: Callable[..., Genred]) -> Generic:
    """The function of that name, for one kind of `Genred`.

    >>> import numpy as np
    >>> generic_argmin = generic("generic_argmin", Genred)
    >>> nearest = generic_argmin("SqDist(x,y)", "a = Vi(1)", "x = Vi(1)", "y = Vj(1)")
    >>> nearest(np.array([[0.9], [3.2]]), np.array([[3.0], [1.0]])).tolist()
    [[1], [0]]
    """
    reduction, says, listed = _GENERIC[name]

    def function(formula: str, output: str, *aliases: str, **options: Unpack[Options]) -> Genred:
        category, dim = _category(output)
        if listed:
            options["opt_arg"] = dim
        try:
            return kind(formula, list(aliases), reduction, axis=1 - category, **options)
        except UnknownNameError as error:
            if error.what == f"there is no variable called {output.partition('=')[0].strip()}":
                error.hint = f"the second argument is the alias of the result; {output!r} after it"
            raise

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"""A `Genred` of the {says}, one row per i or per j as `output` says.

    Args:
        formula: what to reduce.
        output: an alias for the result: `"a = Vi(3)"` reduces over j, `"a = Vj(3)"` over i. Its
            dimension is {"K" if listed else "not read"}.
        aliases: one declaration per array.
        options: further arguments of `Genred`.

    Raises:
        FormulaError: `output` is not an alias of the form Vi or Vj.
    """
    return function


def _category(output: str) -> tuple[int, int]:
    """(0 for i or 1 for j, dimension) of the alias of a result."""
    (declared,) = parse_aliases([output]).variables
    _, dim, kind = declared.params
    if kind not in (Axis.I, Axis.J):
        raise FormulaError(
            "a result is indexed by i or by j",
            where=output,
            found=kind.says,
            hint=f"Vi({dim}), one row per i, or Vj({dim})",
        )
    return int(kind), dim


generic_sum, generic_logsumexp, generic_argmin, generic_argkmin = (
    generic(name, Genred) for name in NAMES
)
