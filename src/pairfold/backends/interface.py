"""What a backend is: what makes, of a kernel and sizes, something to call with arrays.

A `Launcher` belongs to a kernel and a dtype and fits any sizes; `bind` fixes the sizes, or the
pattern of pairs, and `call` the strides: what is then called takes arrays and fills the results
among them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ..core.library import Array, Device
from ..lower.kernel import Kernel
from ..lower.pattern import Pattern
from ..lower.schedule import Accumulation
from ..settings import Settings
from .shown import Explained, Subject

# Of rows and of components; of what every pair has, of columns, too.
Strides = tuple[int, ...]


class Call(Protocol):
    """A reduction with everything bound but its arrays."""

    def __call__(self, addresses: Sequence[int], arrays: Sequence[Array], /) -> None:
        """Reduce arrays: results, which are filled, then the arguments in the kernel's order.

        `addresses` are those of their first elements; `arrays` keeps the memory there.
        """
        ...


class XlaTarget(Protocol):
    """What XLA calls: `entry`, a C function, under a name that means the same in all processes."""

    name: str
    entry: object


@runtime_checkable
class MaskedCall(Protocol):
    """A call of a reduction with a mask that knows blocks of pairs where none, or all, count."""

    def blocks(self, addresses: Sequence[int], arrays: object, /) -> tuple[int, int, int] | None:
        """How many blocks are skipped, tested, and met whole; None where all are tested."""
        ...


class Tally(NamedTuple):
    """Blocks of columns that tiles of rows have met, and all that there are."""

    met: int
    all: int


@runtime_checkable
class SearchingCall(Protocol):
    """A call of a search for extrema that may meet blocks of pairs by their bounds."""

    def searched(self, addresses: Sequence[int], arrays: object, /) -> Tally | str:
        """Fold the arrays and say how many blocks were met; or say why that does not pay."""
        ...


class CallForXla(Call, Protocol):
    """A call that XLA can make by itself."""

    def for_xla(
        self, batch: Sequence[int], strides: Sequence[Sequence[int]]
    ) -> tuple[XlaTarget, NDArray[np.int64]]:
        """What XLA calls, and the attribute `words` of the call.

        `batch`: the sizes of batch axes; `strides`: those of each array along them, in bytes.
        """
        ...


class Launcher(Protocol):
    """Runs one kernel on arrays of one dtype and any size."""

    kernel: Kernel

    def bind(
        self,
        rows: int,
        columns: int,
        batches: int,
        options: Settings,
        device: Device | None = None,
    ) -> object:
        """What is made for such sizes, to be given to `call`."""
        ...

    def bind_sparse(
        self,
        rows: int,
        batches: int,
        options: Settings,
        pattern: Pattern,
        device: Device | None = None,
    ) -> object:
        """The same for the pairs of a pattern."""
        ...

    def call(
        self,
        bound: Any,
        rows: int,
        columns: int,
        strides: Sequence[Strides],
        offsets: NDArray[np.int64] | None = None,
    ) -> Call:
        """A reduction of these sizes.

        `strides`: (of rows, of components) in bytes, of the results, then of the arguments in the
        order of `kernel.arguments`; what every pair has has one of columns, too. `offsets`: int64
        array (batches, arrays) of byte offsets, or None for a single batch element.
        """
        ...


class Fused(Launcher, Protocol):
    """Runs several sums of one kernel, of rows and of columns, in one pass over the pairs."""

    @property
    def fuses(self) -> bool:
        """Whether it can, and as accurately as the separate sums would."""
        ...


class Backend(Protocol):
    """One way of running kernels."""

    @property
    def name(self) -> str:
        """What `settings(backend=...)` calls it."""
        ...

    @property
    def on_devices(self) -> bool:
        """Whether arrays have to be on a device, or in the host's memory."""
        ...

    @property
    def fuses(self) -> bool:
        """Whether sums of rows and of columns may come from one pass over the pairs."""
        ...

    def lowering(self, options: Settings) -> Settings:
        """The settings under which kernels are lowered for it."""
        ...

    def launcher(self, kernel: Kernel, dtype: str, accumulation: Accumulation) -> Launcher:
        """A launcher of a kernel; a `Fused` one, where it fuses, of a kernel of several sums."""
        ...

    def explain(self, subject: Subject, launcher: Any, options: Settings) -> Explained:
        """How one of its launchers runs its kernel for some sizes; nothing is computed."""
        ...
