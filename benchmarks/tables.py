"""Numbers and Markdown tables as text."""

from __future__ import annotations

import math
from collections.abc import Sequence


def seconds(value: float, estimated: bool = False) -> str:
    """A time with three digits; `~` before one that was estimated."""
    return "-" if math.isnan(value) else ("~" if estimated else "") + f"{value:.3g}"


def ratio(value: float) -> str:
    """A ratio with three digits, without exponents."""
    if math.isnan(value):
        return "-"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"


def without_empty(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table without columns that have nothing to say."""
    kept = [k for k in range(len(head)) if any(row[k] != "-" for row in rows)]
    return table([head[k] for k in kept], [[row[k] for k in kept] for row in rows])


def yes(met: bool) -> str:
    """A verdict."""
    return "yes" if met else "**no**"
