"""What formulas may use, as callers declare it: aliases, each with its dimension and its index."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NoReturn

from ..core.node import Axis, Node
from ..errors import FormulaError, closest
from ..ops import table

KINDS = {"Vi": Axis.I, "Vj": Axis.J, "Pm": Axis.PARAMETER, "Vij": Axis.PAIR}
LEGACY = {"Vx": "Vi", "Vy": "Vj"}
_FORMS = "'x = Vi(3)', 'y = Vj(3)', 'p = Pm(1)', 'b = Vij(1)', 'x = Vi(0,3)' or 'Var(0,3,0)'"
_WINDOW, _DIGITS = 88, 18


@dataclass(frozen=True)
class Scope:
    """The call arguments that formulas may use, by position and, if they have one, by name."""

    variables: tuple[Node, ...]
    by_name: Mapping[str, Node]
    names: Mapping[int, str]


_ALIAS = re.compile(r"(?:(?P<name>[^=]*)=)?(?P<type>[^\W\d]\w*)\((?P<numbers>[^()]*)\),?")


def parse_aliases(aliases: Sequence[str]) -> Scope:
    """The scope that a list of aliases declares.

    An alias is `x = Vi(3)` (its position is its place in the list), `x = Vi(0,3)` (explicit
    position), or either without a name; `Vj` and `Pm` likewise; or `Var(position,dim,category)`.

    >>> scope = parse_aliases(["x = Vi(3)", "y = Vj(3)", "p = Pm(1)"])
    >>> scope.names, scope.by_name["y"].dim
    (mappingproxy({0: 'x', 1: 'y', 2: 'p'}), 3)

    Raises:
        FormulaError: an alias of another form, a name or position declared twice, or a placeholder.
    """
    if isinstance(aliases, (str, bytes)) or not isinstance(aliases, Iterable):
        parts = re.split(r"[,;](?![^(]*\))", aliases) if isinstance(aliases, str) else []
        listed = [part.strip() for part in parts if part.strip()] or ["x = Vi(3)", "y = Vj(3)"]
        raise FormulaError(
            "aliases must be a list of strings", found=repr(aliases), hint=repr(listed)
        )
    by_name: dict[str, Node] = {}
    by_position: dict[int, Node] = {}
    names: dict[int, str] = {}
    declared: dict[int, str] = {}
    for place, alias in enumerate(aliases):
        name, position, node = _alias(alias, place)
        other = by_position.setdefault(position, node)
        if other is not node:
            raise FormulaError(
                f"two aliases declare argument {position} differently",
                where=f"{declared[position]}\n{alias}",
                hint="give each argument one dimension and one category",
            )
        declared.setdefault(position, alias)
        if name is None:
            continue
        if name in by_name:
            raise FormulaError(
                f"two aliases are called {name}", where=alias, hint="give each its own name"
            )
        by_name[name] = node
        names.setdefault(position, name)
    for position in range(len(by_position)):
        if position not in by_position:
            raise FormulaError(
                f"no alias declares argument {position}",
                where="\n".join(declared.values()),
                found=f"{len(by_position)} arguments, the last at position {max(by_position)}",
                hint="positions count from 0 without placeholders",
            )
    variables = tuple(by_position[position] for position in range(len(by_position)))
    return Scope(variables, MappingProxyType(by_name), MappingProxyType(names))


def _alias(alias: object, place: int) -> tuple[str | None, int, Node]:
    """Name, position and variable of one alias; blanks do not count."""
    if not isinstance(alias, str):
        raise FormulaError(
            "an alias must be a string",
            found=f"alias {place} is {alias!r}, a {type(alias).__name__}",
            hint=_FORMS,
        )
    text = "".join(alias.split())
    match = _ALIAS.fullmatch(text)
    if match is None:
        raise FormulaError("this alias cannot be read", found=repr(alias), hint=f"write {_FORMS}")

    def fault(group: str, what: str, hint: str) -> NoReturn:
        raise FormulaError(what, where=where_in(text, [match.span(group)]), hint=hint)

    name = match["name"]
    if name is not None and not name.isidentifier():
        fault("name", f"{name!r} is not a name", "letters, digits and _, not starting with a digit")
    category = match["type"]
    if category in LEGACY:
        warnings.warn(
            f"alias {alias!r}: {category} is deprecated, write {LEGACY[category]}",
            DeprecationWarning,
            stacklevel=3,
        )
        category = LEGACY[category]
    numbers = match["numbers"].split(",")
    if any(re.fullmatch("[0-9]+", number) is None for number in numbers):
        fault("numbers", "positions, dimensions and categories are whole numbers from 0", _FORMS)
    if max(map(len, numbers)) > _DIGITS:
        fault("numbers", f"positions and dimensions have at most {_DIGITS} digits", _FORMS)
    values = [int(number) for number in numbers]
    if category == "Var" and len(values) == 3 and values[2] <= Axis.PAIR:
        position, dim, kind = values[0], values[1], Axis(values[2])
    elif category == "Var":
        fault("numbers", "Var takes Var(position, dim, category)", "0 (i), 1 (j), 2, 3 (i, j)")
    elif category not in KINDS:
        hint = closest(category, [*KINDS, "Var"]) or f"write {_FORMS}"
        fault("type", f"there is no category of variables called {category}", hint)
    elif len(values) > 2:
        fault("numbers", f"{category} takes a dimension, or a position and a dimension", _FORMS)
    else:
        position, dim, kind = values[-2] if len(values) == 2 else place, values[-1], KINDS[category]
    if dim < 1:
        fault("numbers", "a vector has at least one component", f"{category}(3) for dimension 3")
    return name, position, table.variable(position, dim, kind)


def where_in(text: str, spans: Sequence[tuple[int, int]]) -> str:
    """The text (or, of a long one, the part around the fault) over a line of carets."""
    line = "".join(c if c.isprintable() else " " for c in text)
    start, mark = 0, ""
    if len(line) > _WINDOW:
        start = max(0, min(min(a for a, _ in spans) - _WINDOW // 2, len(line) - _WINDOW))
        mark = "..." if start else ""
        tail = "..." if start + _WINDOW < len(line) else ""
        line = mark + line[start : start + _WINDOW] + tail
    carets = [" "] * (len(line) + 1)
    for a, b in spans:
        low = max(a - start, 0) + len(mark)
        for place in range(low, max(low + 1, min(b - start + len(mark), len(line)))):
            carets[min(place, len(line))] = "^"
    return f"{line}\n{''.join(carets).rstrip()}"
