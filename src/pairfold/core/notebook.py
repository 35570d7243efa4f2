"""What notebooks show of a value: a title, what is known as a table, longer texts to unfold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape

_CELL = 'style="text-align: left; vertical-align: top; padding: 0 1em 0 0"'
_TEXT = 'style="white-space: pre-wrap; font-family: monospace"'  # columns stay in line


def page(
    title: str, rows: Iterable[tuple[str, str]], unfolded: Mapping[str, str] | None = None
) -> str:
    """HTML of a value; all texts are escaped, those of rows and of what unfolds keep their lines.

    >>> page("x<y", [("rows", "3")])[:20]
    '<div><b>x&lt;y</b><t'
    """
    cells = "".join(
        f"<tr><th {_CELL}>{escape(name)}</th>"
        f"<td {_CELL}><span {_TEXT}>{escape(value)}</span></td></tr>"
        for name, value in rows
    )
    below = "".join(
        f"<details><summary>{escape(name)}</summary><pre>{escape(text)}</pre></details>"
        for name, text in (unfolded or {}).items()
    )
    return f"<div><b>{escape(title)}</b><table>{cells}</table>{below}</div>"


def in_bytes(count: float) -> str:
    """A number of bytes for people.

    >>> in_bytes(8e10), in_bytes(24)
    ('80 GB', '24 bytes')
    """
    for size, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count:.0f} bytes"
