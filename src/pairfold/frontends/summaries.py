"""Products, truth, variances and soft-max of lazy tensors of real numbers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ..arrays.registry import TORCH
from ..core.dtypes import DTYPES
from ..errors import OptionError
from ..ops.table import OPERATIONS, constant
from .masks import checked_mask
from .reducing import COMPONENTS, Axes, Reducing
from .softmax import SoftMax
from .typed import MethodOptions, Result

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

    from .foreign import Lazy
    from .lazytensor import LazyTensor


class Summaries(Reducing):
    """A lazy tensor of real numbers, with what complex ones have no order or no meaning for."""

    def prod(
        self, axis: Axes = COMPONENTS, dim: Axes = None, **options: Unpack[MethodOptions]
    ) -> Result:
        """The product of the components (the default), or over i, j or several axes: an array."""
        return self._either(self._product_of_components, "Prod", axis, dim, options)

    def any(
        self, axis: Axes = COMPONENTS, dim: Axes = None, **options: Unpack[MethodOptions]
    ) -> Result:
        """Whether some number is not 0: of the components (the default), or over i, j or both.

        Over pairs, an array of truth values; over the components, a lazy one.
        """
        return self._either(lambda: self._truths().max(-1), "Any", axis, dim, options)

    def all(
        self, axis: Axes = COMPONENTS, dim: Axes = None, **options: Unpack[MethodOptions]
    ) -> Result:
        """Whether no number is 0: of the components (the default), or over i, j or both.

        Over pairs, an array of truth values; over the components, a lazy one.
        """
        return self._either(lambda: self._truths().min(-1), "All", axis, dim, options)

    def count(
        self, axis: Axes = COMPONENTS, dim: Axes = None, **options: Unpack[MethodOptions]
    ) -> Result:
        """How many numbers are not 0: of the components (the default), or over i, j or both."""
        return self._either(lambda: self._truths().sum(-1), "Count", axis, dim, options)

    def var(
        self,
        axis: Axes = COMPONENTS,
        dim: Axes = None,
        *,
        ddof: float | None = None,
        correction: float | None = None,
        **options: Unpack[MethodOptions],
    ) -> Result:
        """The variance of the components (the default), or over i, j or several axes: an array.

        Args:
            axis, dim: the axes; two names of one argument.
            ddof, correction: what is taken from the number of values that the sum of squared
                deviations is divided by; NumPy's and the array API's name. By default that of the
                library of the tensor's arrays: 1 for torch, else 0.
            options: as for `reduction`.

        Deviations are from means that a first pass computes, so nothing cancels.

        Raises:
            OptionError: two corrections; symbols, which cannot wait for two passes; ranges with a
                correction.
        """
        if ddof is not None and correction is not None:
            raise OptionError(
                "ddof and correction are two names of one argument",
                found=f"ddof={ddof}, correction={correction}",
            )
        less = ddof if correction is None else correction
        less = float(self.library is TORCH) if less is None else less
        axis = dim if dim is not None else axis
        self._check_components(axis, "var")
        if axis is not None and not isinstance(axis, (tuple, list)) and self._place(axis) == 2:
            mean: Lazy = self.mean(-1)
            return (self - mean).square().sum(-1) * _over(1, self.ndim, less)
        if self.symbols or options.get("out") is not None or not options.get("call", True):
            raise OptionError(
                "a variance takes two passes: it cannot wait for symbols, nor fill an array",
                found=repr(self),
                hint="with arrays; of the mean's deviations, ((x - m)**2).mean(axis=1)",
            )
        if less and not (self.ranges is None and options.get("ranges") is None):
            raise OptionError("with ranges, a variance has no correction", hint="ddof=0")
        once: MethodOptions = {**options, "keepdim": True}
        once.pop("keepdims", None)
        deviations = self - self._made(self.mean(axis, **once))
        found = deviations.square().mean(axis, **options)
        if less and options.get("where") is not None:
            return found * self._corrected(axis, less, options)
        count = self._number_along(axis)
        return found * _over(count, count, less) if less else found

    def _corrected(self, axis: Axes, less: float, options: MethodOptions) -> Result:
        """count / (count - less) for the pairs of each row that a mask leaves."""
        counts = self._like(constant(1)).reduction("Count", axis=axis, **options)
        assert self.library is not None
        assert self.real_dtype is not None
        wide = self.library.cast(counts, DTYPES[self.real_dtype].computed)
        left = self.library.where(wide > less, wide - less, wide * math.nan)
        return self.library.cast(wide / left, self.real_dtype)

    def _number_along(self, axis: Axes) -> int:
        """How many numbers a reduction over these axes is of."""
        sizes = (self.ni or 1, self.nj or 1, self.ndim)
        if axis is None:
            return math.prod((*self.batch, *sizes))
        listed = axis if isinstance(axis, (tuple, list)) else [axis]
        return math.prod(sizes[place] for a in listed if (place := self._place(a)) is not None)

    def softmax(
        self, axis: int | None = None, dim: int | None = None, *, where: object = None
    ) -> SoftMax:
        """The soft-max along i or j: weights e^self / sum e^self, which are never computed.

        `K.softmax(1) @ v` is their mean of v, `(K.softmax(1) * V).sum(1)` that of a lazy tensor V,
        whose values may depend on both i and j. Of vectors, each component has weights of its own.
        With a mask, `where=`, weights are of the pairs where it holds alone: rows without any have
        the mean 0.

        Raises:
            OptionError, AxisError: no such axis.
            ArrayTypeError, ShapeError: no mask.
        """
        axis = dim if axis is None else axis
        kept = self._kept(axis)
        mask = None if where is None else checked_mask(where)
        return SoftMax(self, kept, None, mask)  # pyright: ignore[reportArgumentType] (real)

    # -- components -----------------------------------------------------------------------------

    def _product_of_components(self) -> LazyTensor:
        """The product of the components: of halves, of quarters ..."""
        found = self._as_real()
        while found.ndim > 1:
            half = found.ndim // 2
            product = found.extract(0, half) * found.extract(half, half)
            odd = found.ndim % 2
            found = product.concat(found.elem(2 * half)) if odd else product
        return found

    def _truths(self) -> Self:
        """1 where a number is not 0, else 0."""
        truth = OPERATIONS["LogicalNot"]
        return self._like(truth(truth(self.node)))


def _over(number: float, count: float, less: float) -> float:
    """number / (count - less), NaN where nothing is left."""
    return number / (count - less) if count > less else math.nan
