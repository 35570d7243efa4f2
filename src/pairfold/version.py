"""The version of the library: that of its distribution, which takes it from a tag of git."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def installed() -> str:
    """The version that is installed; where the files are used as they lie, none is known.

    >>> installed() == __version__
    True
    """
    try:
        return version("pairfold")
    except PackageNotFoundError:
        return "0+unknown"


__version__ = installed()
