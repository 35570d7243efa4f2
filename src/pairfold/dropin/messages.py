"""Printing as PyKeOps' modules offer it to programs: silent where their flag `verbose` is off.

pairfold itself never prints through these; it raises errors, and warns by `warnings`.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, TextIO, TypedDict

if TYPE_CHECKING:
    from typing_extensions import Unpack

CHECK_MARK, CROSS_MARK = "\N{WHITE HEAVY CHECK MARK}", "\N{CROSS MARK}"


class Printing(TypedDict, total=False):
    """The options of `print` that the functions below have."""

    end: str
    file: TextIO | None
    flush: bool


def _verbose(package: str) -> bool:
    return bool(getattr(sys.modules.get(package), "verbose", True))


def _say(message: object, end: str = "\n", file: TextIO | None = None, flush: bool = False) -> None:
    stream = sys.stdout if file is None else file
    stream.write(f"{message}{end}")
    if flush:
        stream.flush()


def pyKeOps_Print(message: object, **kwargs: Unpack[Printing]) -> None:
    """Print, if `pykeops.verbose`; `end`, `file` and `flush` are those of `print`."""
    if _verbose("pykeops"):
        _say(message, **kwargs)


def pyKeOps_Message(message: object, use_tag: bool = True, **kwargs: Unpack[Printing]) -> None:
    """Print behind the tag [pyKeOps], if `pykeops.verbose`."""
    pyKeOps_Print(f"[pyKeOps] {message}" if use_tag else message, **kwargs)


def pyKeOps_Warning(message: object) -> None:
    """Print as a warning, if `pykeops.verbose`."""
    pyKeOps_Print(f"[pyKeOps] Warning : {message}")


def KeOps_Print(message: object, force_print: bool = False, **kwargs: Unpack[Printing]) -> None:
    """Print, if `keopscore.verbose` or if forced."""
    if force_print or _verbose("keopscore"):
        _say(message, **kwargs)


def KeOps_Message(message: object, use_tag: bool = True, **kwargs: Unpack[Printing]) -> None:
    """Print behind the tag [KeOps], if `keopscore.verbose`."""
    KeOps_Print(f"[KeOps] {message}" if use_tag else message, **kwargs)


def KeOps_Warning(message: object, newline: bool = False) -> None:
    """Print as a warning, after an empty line if asked, if `keopscore.verbose`."""
    KeOps_Print(f"{chr(10) * newline}[KeOps] Warning : {message}")


def KeOps_Error(message: object, show_line_number: bool = True) -> None:
    """Raise a ValueError with the message, and the line that asked for it.

    Raises:
        ValueError: always.
    """
    caller = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]
    place = f" (line {caller.f_lineno} of {caller.f_code.co_filename})" if show_line_number else ""
    raise ValueError(f"[KeOps] Error : {message}{place}")
