"""The floating types that arrays may have: what is known of their numbers, by name."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DType:
    """Numbers of one floating type, as IEEE 754 describes them.

    Args:
        name: as NumPy and torch call it.
        computed: the name of the type that its numbers are computed in, on the way in and back.
        bytes: of a number in memory.
        fraction_bits: bits of the fraction that are stored.
        smallest: the exponent of the smallest number above 0, which is subnormal.
        overflow: the exponent of the first power of two that is too large.

    >>> float32 = DTYPES["float32"]
    >>> float32.eps == 2.0**-23, float32.largest
    (True, 3.4028234663852886e+38)
    """

    name: str
    computed: str
    bytes: int
    fraction_bits: int
    smallest: int
    overflow: int

    @property
    def half(self) -> bool:
        """Whether it is of half precision, which is for storage only."""
        return self.computed != self.name

    @property
    def eps(self) -> float:
        """The distance from 1 to the next number."""
        return 2.0**-self.fraction_bits

    @property
    def largest(self) -> float:
        """The largest finite number."""
        return (2 - self.eps) * 2.0 ** (self.overflow - 1)


DTYPES = {
    each.name: each
    for each in (
        DType("float32", "float32", 4, 23, -149, 128),
        DType("float64", "float64", 8, 52, -1074, 1024),
        DType("float16", "float32", 2, 10, -24, 16),
        DType("bfloat16", "float32", 2, 7, -133, 128),
    )
}

# What results are that are not of the data's dtype: by their kind, the dtype and its bytes.
RESULTS = {"index": "int64", "truth": "bool", "state": "float64"}
_RESULT_BYTES = {"index": 8, "truth": 1, "state": 8}


def result_bytes(kind: str, dtype: str) -> int:
    """Bytes of an entry of a result of a kind, for data of a dtype.

    >>> result_bytes("value", "float16"), result_bytes("index", "float16")
    (2, 8)
    """
    return _RESULT_BYTES.get(kind) or DTYPES[dtype].bytes
