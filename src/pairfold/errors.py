"""Every error a user can meet, and the one way to word it.

A message says *what* is wrong, *where* (the formula with a caret, or the argument), what was
*found*, and what to *try*. Each class also derives from the builtin exception that code written
for PyKeOps would catch. Nothing here prints: front ends raise, tests read the fields.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


class PairfoldError(Exception):
    """Base class of all errors raised on purpose by pairfold.

    Fields `what`, `where`, `found` and `hint` hold the four parts of the message.
    """

    def __init__(
        self,
        what: str,
        *,
        where: str | None = None,
        found: str | None = None,
        hint: str | None = None,
    ) -> None:
        self.what, self.where, self.found, self.hint = what, where, found, hint
        super().__init__(self._message())

    def _message(self) -> str:
        lines = [self.what]
        for label, text in (("where", self.where), ("found", self.found), ("try", self.hint)):
            if text:
                head, *rest = text.split("\n")
                lines.append(f"  {label + ':':<7}{head}")
                lines.extend(" " * 9 + line for line in rest)
        return "\n".join(lines)

    def __str__(self) -> str:
        return self._message()


class FormulaError(PairfoldError, ValueError):
    """The text of a formula or of an alias cannot be read."""


class UnknownNameError(FormulaError, NameError):
    """A formula uses a name that is neither an operation nor a declared variable."""


class DimError(FormulaError):
    """An operation was given vectors of dimensions that it cannot combine."""


class DerivativeError(PairfoldError, NotImplementedError):
    """A derivative was asked of an operation that has none."""


class ArgumentError(PairfoldError, ValueError):
    """A reduction was called with the wrong number of arrays."""


class ReducedError(ArgumentError, AttributeError):
    """Something that only formulas have was asked of a reduction."""


class ArrayTypeError(PairfoldError, TypeError, ValueError):
    """An argument is not an array of the expected library."""


class ShapeError(PairfoldError, ValueError):
    """The shapes of the arrays do not fit the formula or each other."""


class DTypeError(PairfoldError, ValueError, TypeError):
    """The dtypes of the arrays are not supported or differ from each other."""


class DeviceError(PairfoldError, ValueError):
    """The arrays live on different devices, or on one that cannot be used."""


class OptionError(PairfoldError, ValueError):
    """An option has a value that is not among the valid ones."""


class RangeError(PairfoldError, ValueError):
    """Block-sparse ranges go beyond the arrays, run backwards, or overlap."""


class UnsupportedError(PairfoldError, NotImplementedError):
    """Something that is defined for some sizes or in some contexts only was asked in others."""


class MemoryLimitError(PairfoldError, MemoryError):
    """Results, or a formula's working memory, need more memory than there is."""


class SolveError(PairfoldError, ArithmeticError):
    """A linear system could not be solved: no convergence, or an operator that is not positive.

    What was found until then is kept: `solution`, an array like b, has for each right-hand side
    the iterate with the smallest residual, `residuals` the norms of these residuals, and
    `iterations` how many iterations were done. They are None where none was begun.
    """

    solution: Any = None
    residuals: Any = None
    iterations: int | None = None


class InternalError(PairfoldError, RuntimeError):
    """Something that should be impossible: a bug in pairfold, not in the user's program."""


class Refusal(Exception):
    """Raised inside an operation's row to refuse its arguments; front ends add the rest."""

    def __init__(self, why: str, hint: str | None = None) -> None:
        super().__init__(why)
        self.why, self.hint = why, hint


def refuse(why: str, hint: str | None = None) -> int:
    """Refuse the arguments of an operation; typed as int so that rows may end in it.

    Raises:
        Refusal: always.
    """
    raise Refusal(why, hint)


def closest(word: str, known: Iterable[str]) -> str | None:
    """Words among `known` that resemble `word`, as a suggestion, or None.

    >>> closest("Sqare", ["Square", "Sqrt", "Exp"])
    'did you mean Square or Sqrt?'
    """
    by_lower = {name.lower(): name for name in known}
    near = difflib.get_close_matches(word.lower(), by_lower, n=3, cutoff=0.55)
    return f"did you mean {' or '.join(by_lower[name] for name in near)}?" if near else None


def check_option(name: str, value: object, valid: Iterable[object]) -> None:
    """Raise unless `value` is one of the `valid` values of option `name`.

    Raises:
        OptionError: naming the option, the value found and the valid ones.
    """
    choices = list(valid)
    if value not in choices:
        listed = ", ".join(map(repr, choices))
        raise OptionError(
            f"{name} has an unknown value", found=f"{name}={value!r}", hint=f"one of {listed}"
        )
