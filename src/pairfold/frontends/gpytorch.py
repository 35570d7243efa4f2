"""Linear operators of tensors as operators of linear_operator, the library below GPyTorch.

Its functions differentiate by the tensors that an operator lists, and make the operator again from
others; so ours is taken apart into its tensors, and put together again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import linear_operator as theirs  # pyright: ignore[reportMissingImports]
import torch

from ..core.library import Array
from ..errors import UnsupportedError

if TYPE_CHECKING:
    from .linearoperators import LinearOperator


class PairfoldLinearOperator(theirs.LinearOperator):  # pyright: ignore
    """One of our operators, to linear_operator.

    Args:
        tensors: what it is made of.
        made: puts the operator together again from such tensors.
    """

    def __init__(
        self, *tensors: torch.Tensor, made: Callable[[Sequence[torch.Tensor]], LinearOperator]
    ) -> None:
        super().__init__(*tensors, made=made)
        self.ours = made(tensors)

    def _matmul(self, rhs: torch.Tensor) -> torch.Tensor:
        return self.ours @ rhs

    def _size(self) -> torch.Size:
        return torch.Size(self.ours.shape)

    def _transpose_nonbatch(self) -> PairfoldLinearOperator:
        return wrapped(self.ours.T)

    def _diagonal(self) -> torch.Tensor:
        try:
            return self.ours.diag()
        except UnsupportedError:
            return torch.diagonal(self.ours.dense(), dim1=-2, dim2=-1)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the tensors."""
        return getattr(torch, str(self.ours.dtype))


def wrapped(operator: LinearOperator) -> PairfoldLinearOperator:
    """One of our operators, of tensors, as one of linear_operator's."""
    found: dict[int, torch.Tensor] = {}

    def listed(x: Array) -> Array:
        assert isinstance(x, torch.Tensor)
        found[id(x)] = x
        return x

    operator.with_arrays(listed)
    places = {key: place for place, key in enumerate(found)}

    def made(tensors: Sequence[torch.Tensor]) -> LinearOperator:
        return operator.with_arrays(lambda x: tensors[places[id(x)]])

    return PairfoldLinearOperator(*found.values(), made=made)
