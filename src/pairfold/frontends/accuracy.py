"""Accuracy: how sums are accumulated, as users ask for it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..core.dtypes import DTYPES
from ..errors import DTypeError
from ..lower.schedule import Accumulation
from ..ops.reductions import Reduction

SCHEMES = ("auto", "block_sum", "direct_sum", "kahan_scheme")
ACCUMULATORS = ("auto", "float16", "float32", "float64")
METHODS = ("exact", "treecode")
# What reductions take of it by name; and hints to other implementations, which change nothing here.
OPTIONS = ("dtype_acc", "use_double_acc", "sum_scheme")
HINTS = ("enable_chunks", "use_fast_math")
# What sums take besides, where solvers have a `method` of their own.
FAR = ("method", "rtol")
DEFAULT_RTOL = 1e-5


def may_leave_out(reduction: Reduction) -> bool:
    """Whether a reduction adds terms up, and gives nothing but their sum or what is made of it."""
    return reduction.max_shifted or (reduction.additive and reduction.linear)


@dataclass(frozen=True)
class Accuracy:
    """How sums are accumulated, as the user asked: dtype ("auto" or a name) and scheme.

    `rtol` is the relative error that a treecode is to have or, where the method is "exact", the
    part of a sum that pairs which are left out may be; None: all pairs are met.
    """

    dtype: str = "auto"
    scheme: str = "auto"
    rtol: float | None = None
    method: str = "exact"

    @property
    def far(self) -> bool:
        """Whether far columns are met as proxies."""
        return self.method == "treecode"

    def for_dtype(self, dtype: str, reduction: Reduction) -> Accumulation:
        """The accumulation for data of a dtype, and what may be left out.

        Raises:
            DTypeError: an accumulator narrower than the data.
        """
        found = self._for_dtype(dtype, reduction)
        if self.rtol is None or self.far or not may_leave_out(reduction):
            return found
        return replace(found, rtol=self.rtol)

    def _for_dtype(self, dtype: str, reduction: Reduction) -> Accumulation:
        """The accumulation for data of a dtype.

        Only sums are accumulated in another dtype than the data's. By default float32 terms are
        summed in float32 over a block of columns and blocks are added in float64; float64 blocks
        are added with compensation (Knuth's TwoSum). A Kahan
        scheme compensates every eight terms.

        Raises:
            DTypeError: an accumulator narrower than the data.
        """
        wanted = self.dtype
        half = DTYPES[dtype].half
        if not reduction.additive:
            inner = "float64" if reduction.wide or dtype == "float64" else "float32"
            return Accumulation(inner, "float64")
        if dtype == "float64" and wanted not in ("auto", "float64"):
            raise DTypeError(
                f"float64 data cannot be accumulated in {wanted}",
                found=f"dtype_acc={wanted!r}",
                hint="'auto' or 'float64'",
            )
        if wanted == "float16" and half:
            wanted = "float32"  # half precision is storage only
        if wanted == "float16":
            raise DTypeError(
                "float32 data cannot be accumulated in float16", hint="'auto', 'float32', 'float64'"
            )
        every = 8 if self.scheme == "kahan_scheme" else 0
        if dtype == "float64":
            return Accumulation("float64", "float64", True, every)
        if self.scheme == "direct_sum" and wanted == "float64":
            return Accumulation("float64", "float64")
        if wanted == "float32":
            return Accumulation("float32", "float32", bool(every), every)
        return Accumulation("float32", "float64", False, every)
