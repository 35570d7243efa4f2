"""Numbers as arrays store them, by the name of their dtype."""

from __future__ import annotations

# What is computed with: numbers of half precision become float32 on the way in, and back.
STORED = {"float16": "float32", "bfloat16": "float32", "float32": "float32", "float64": "float64"}
BYTES_STORED = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}

# What results are that are not of the data's dtype: by their kind, the dtype and its bytes.
RESULTS = {"index": "int64", "truth": "bool", "state": "float64"}
BYTES_OF_RESULTS = {"index": 8, "truth": 1, "state": 8}
