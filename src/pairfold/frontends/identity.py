"""A reduction as a line of text, from which any process rebuilds the same one.

The text says everything that results depend on: the graphs of the formula and of its weight, the
variables and their names, the reduction, its index, its length and its accuracy. Two reductions are
the same if and only if their texts are equal. It is read, never evaluated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypedDict, cast

from ..core.node import Axis, Node
from ..errors import FormulaError, PairfoldError
from ..ops.states import row_of
from ..ops.steps import Steps, graphs_of, read, steps_of, written
from ..ops.table import variable
from .accuracy import ACCUMULATORS, METHODS, SCHEMES, Accuracy
from .reduction import FormulaReduction

_VERSION = 2


class _Written(TypedDict):
    """What a text says of a reduction."""

    version: int
    formulas: Steps
    variables: Sequence[tuple[int, int, int]]
    names: Mapping[str, str]
    reduction: str
    kept: int
    asked: int
    length: int
    accuracy: tuple[str, str] | tuple[str, str, float, str]
    masked: bool


def identity(fold: FormulaReduction) -> str:
    """The text of a reduction.

    >>> from pairfold import Genred
    >>> text = identity(Genred("x*y", ["x = Vi(1)", "y = Vj(1)"], axis=1)._fold)
    >>> rebuilt(text).reduction
    'Sum'
    """
    return fold.derived("identity", lambda: _identity(fold))


def _identity(fold: FormulaReduction) -> str:
    given = (fold.formula, fold.weight, fold.where)
    roots = [root for root in given if root is not None]
    return written(
        {
            "version": _VERSION,
            "formulas": steps_of(roots, {node: n for n, node in enumerate(fold.variables)}),
            "variables": [node.params for node in fold.variables],
            "names": {str(position): name for position, name in fold.names.items()},
            "reduction": fold.reduction,
            "kept": fold.kept,
            "asked": fold.asked,
            "length": fold.length,
            "accuracy": _of_accuracy(fold.accuracy),
            "masked": fold.where is not None,
        }
    )


def _of_accuracy(accuracy: Accuracy) -> tuple[str, str] | tuple[str, str, float, str]:
    """How sums are accumulated, and their error where they may have one."""
    plain = accuracy.dtype, accuracy.scheme
    return plain if accuracy.rtol is None else (*plain, accuracy.rtol, accuracy.method)


def rebuilt(text: str) -> FormulaReduction:
    """The reduction of a text that `identity` wrote.

    Raises:
        FormulaError: other text, or that of another version.
    """
    found = cast("_Written", read(text))  # what is amiss is found where it is used
    try:
        if found["version"] != _VERSION:
            raise FormulaError(
                "the text of a reduction is of another version",
                found=f"version {found['version']}, this one writes {_VERSION}",
            )
        return _rebuilt(found)
    except PairfoldError:
        raise
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise FormulaError(
            "this is no reduction as `identity` writes it", found=repr(error)
        ) from error


def _rebuilt(found: _Written) -> FormulaReduction:
    variables: list[Node] = [
        variable(position, dim, Axis(kind)) for position, dim, kind in found["variables"]
    ]
    formula, *weight = graphs_of(found["formulas"], variables)
    where = weight.pop() if found["masked"] else None
    row, length = row_of(found["reduction"]), found["length"]
    dtype, scheme, rtol, method = (*found["accuracy"], None, "exact")[:4]
    if dtype not in ACCUMULATORS or scheme not in SCHEMES or method not in METHODS:
        raise ValueError(f"accuracy {dtype}, {scheme}, {method}")
    if (rtol is not None or method == "treecode") and not (type(rtol) is float and 0 < rtol < 1):
        raise ValueError(f"rtol {rtol}")
    if type(length) is not int or length < 0 or bool(length) != row.top_k:
        raise ValueError(f"length {length} of {row.name}")
    if len(weight) > 1 or bool(weight) not in {"no": (False,), "must": (True,)}.get(
        row.weighted, (False, True)
    ):
        raise ValueError(f"{len(weight)} weights of {row.name}")
    return FormulaReduction(
        formula,
        variables,
        found["reduction"],
        Axis(found["kept"]),
        {int(position): name for position, name in found["names"].items()},
        Accuracy(dtype, scheme, rtol, method),
        weight[0] if weight else None,
        length,
        Axis(found["asked"]),
        where,
    )
