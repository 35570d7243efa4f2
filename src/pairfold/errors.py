"""Every error a user can meet, and the one way to word it.

A message says *what* is wrong, *where* (the formula with a caret, or the argument), what was
*found*, and what to *try*. Each class also derives from the builtin exception that code written
for PyKeOps would catch. Nothing here prints: front ends raise, tests read the fields.
"""

from __future__ import annotations

import difflib
import functools
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, NoReturn, TypeVar

if TYPE_CHECKING:
    from .core.library import Array

Function = TypeVar("Function", bound=Callable[..., object])
_T = TypeVar("_T")
_V = TypeVar("_V")


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


class UnknownAttributeError(PairfoldError, AttributeError):
    """A lazy tensor has no attribute or method of this name."""


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


class AxisError(OptionError, TypeError):
    """A reduction was not told the axis that it is over."""


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

    solution: Array | None = None
    residuals: Array | None = None
    iterations: int | None = None


class InternalError(PairfoldError, RuntimeError):
    """Something that should be impossible: a bug in pairfold, not in the user's program."""


class KernelError(InternalError):
    """A kernel is not well formed: some value or slot is not what backends take for granted."""


class Refusal(Exception):
    """Raised inside an operation's row to refuse its arguments; front ends add the rest."""

    def __init__(self, why: str, hint: str | None = None) -> None:
        super().__init__(why)
        self.why, self.hint = why, hint


def refuse(why: str, hint: str | None = None) -> NoReturn:
    """Refuse the arguments of an operation.

    Raises:
        Refusal: always.
    """
    raise Refusal(why, hint)


_PACKAGE = os.path.dirname(__file__)


def shortened(error: PairfoldError) -> PairfoldError:
    """The error without the frames below the caller's: those of this package and of torch.

    Where a frame of the user's program is among them, as that of a callback, and where the error
    is a bug of ours, all are kept.
    """
    torch = getattr(sys.modules.get("torch"), "__file__", None)
    ours = (_PACKAGE,) if torch is None else (_PACKAGE, os.path.dirname(torch))
    frames = error.__traceback__
    if isinstance(error, InternalError):
        return error
    while frames is not None:
        if not frames.tb_frame.f_code.co_filename.startswith(ours):
            return error
        frames = frames.tb_next
    return error.with_traceback(None)


def brief(function: Function) -> Function:
    """The function; its errors of bad input show no frames of what it calls."""

    @functools.wraps(function)
    def call(*args: object, **options: object) -> object:
        try:
            return function(*args, **options)
        except PairfoldError as error:
            raise shortened(error)  # noqa: B904

    return call  # pyright: ignore


def closest(word: str, known: Iterable[str]) -> str | None:
    """Words among `known` that resemble `word`, as a suggestion, or None.

    >>> closest("Sqare", ["Square", "Sqrt", "Exp"])
    'did you mean Square or Sqrt?'
    """
    by_lower = {name.lower(): name for name in known}
    if word.lower() in by_lower:
        return f"did you mean {by_lower[word.lower()]}?"
    near = difflib.get_close_matches(word.lower(), by_lower, n=3, cutoff=0.55)
    return f"did you mean {' or '.join(by_lower[name] for name in near)}?" if near else None


# What other programs call values of options.
_SYNONYMS = {
    "cuda": "GPU",
    "hip": "GPU",
    "rocm": "GPU",
    "host": "CPU",
    "double": "float64",
    "float": "float32",
    "single": "float32",
    "half": "float16",
    "kahan": "kahan_scheme",
}


def attempted(convert: Callable[[_V], _T], value: _V, otherwise: _T) -> _T:
    """What `convert` makes of a value; `otherwise` where it does not take it, in whichever way it
    says so. Arrays refuse to be compared, other objects anything; lack of memory is no refusal.

    >>> attempted(int, "three", -1)
    -1
    """
    try:
        return convert(value)
    except MemoryError:
        raise
    except Exception:
        return otherwise


def check_option(name: str, value: object, valid: Iterable[object]) -> None:
    """Raise unless `value` is one of the `valid` values of option `name`.

    >>> check_option("backend", "cuda", ["CPU", "GPU"])
    Traceback (most recent call last):
    ...
    pairfold.errors.OptionError: backend has an unknown value
      found: backend='cuda'
      try:   backend='GPU'; it is one of 'CPU', 'GPU'

    Raises:
        OptionError: naming the option, the value found and the valid ones.
    """
    choices = list(valid)
    if not attempted(choices.__contains__, value, False):
        listed = ", ".join(map(repr, choices))
        meant = _meant(value, [choice for choice in choices if isinstance(choice, str)])
        hint = f"one of {listed}" if meant is None else f"{name}={meant!r}; it is one of {listed}"
        raise OptionError(f"{name} has an unknown value", found=f"{name}={value!r}", hint=hint)


def _meant(value: object, choices: list[str]) -> str | None:
    """The choice that a value is another word for: "cuda:0", numpy.float64, torch.float64."""
    word = getattr(value, "__name__", None) or str(value)
    word = word.removeprefix("torch.").partition(":")[0].lower()
    word = _SYNONYMS.get(word, word)
    by_lower = {choice.lower(): choice for choice in choices}
    near = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.7)
    return by_lower[near[0]] if near else None


def unexpected(
    given: Iterable[str], known: Iterable[str], meant: Mapping[str, str] | None = None
) -> TypeError | None:
    """What Python raises for keywords that a function does not have, with suggestions.

    `meant`: other libraries' words for some of them.

    >>> unexpected(["bakend"], ["backend", "out"])
    TypeError("unexpected keyword argument 'bakend': did you mean backend?")
    """
    known = list(known)
    unknown = sorted(set(given) - set(known))
    if not unknown:
        return None
    words = meant or {}
    hints = [
        f"did you mean {words[name]}?" if name in words else closest(name, known)
        for name in unknown
    ]
    parts = [f"{n!r}: {hint}" if hint else f"{n!r}" for n, hint in zip(unknown, hints, strict=True)]
    return TypeError(f"unexpected keyword argument{'s' * (len(unknown) > 1)} {', '.join(parts)}")
