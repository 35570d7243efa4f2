"""Numbers as arrays store them, by the name of their dtype."""

from __future__ import annotations

# What is computed with: numbers of half precision become float32 on the way in, and back.
STORED = {"float16": "float32", "bfloat16": "float32", "float32": "float32", "float64": "float64"}
BYTES_STORED = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}
