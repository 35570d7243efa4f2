"""When a value of a kernel is computed: once, for each row, for each column, or for each pair."""

from __future__ import annotations

ONCE, ROW, COLUMN, PAIR = 0, 1, 2, 3
STAGES = {ONCE: "once", ROW: "row", COLUMN: "column", PAIR: "pair"}
