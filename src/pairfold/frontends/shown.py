"""Objects that print as several lines: short where they are one value among others, whole on
request and in notebooks."""

from __future__ import annotations

import html

_LONGEST = 60


class Shown:
    """Something whose `str` is a text of several lines and whose `repr` is its summary."""

    @property
    def summary(self) -> str:
        """What it is, in one line."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.summary}; print() shows all>"

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"


def shortened(text: str) -> str:
    """A text that fits into a line, its middle left out where it is long.

    >>> shortened("x+" * 100 + "x")
    'x+x+x+x+x+x+x+x+x+x+x+x+x+x+... ...x+x+x+x+x+x+x+x+x+x+x+x+x'
    """
    if len(text) <= _LONGEST:
        return text
    half = (_LONGEST - 5) // 2
    return f"{text[: half + 1]}... ...{text[-half + 1 :]}"
