"""What a reduction knows of arrays that it was called with: all but their addresses."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING

from ..arrays.checks import Sizes
from ..arrays.library import Need
from ..backends.interface import Call, Launcher
from ..core.library import Device
from ..core.node import Axis
from ..settings import Settings

if TYPE_CHECKING:
    from .separated import Separated


class Binding:
    """What a fold knows about arrays of given shapes, strides and dtypes."""

    __slots__ = (
        "bound",
        "calls",
        "checked",
        "columns",
        "count",
        "device",
        "dtype",
        "launcher",
        "needs",
        "options",
        "out_shapes",
        "positions",
        "ready",
        "rows",
        "separated",
        "sizes",
    )

    launcher: Launcher
    bound: object
    calls: dict[Hashable, Call]
    device: Device | None
    options: Settings
    checked: bool
    sizes: Sizes
    rows: int
    columns: int
    count: int
    dtype: str
    out_shapes: tuple[tuple[int, ...], ...]
    positions: tuple[tuple[int, Axis], ...]
    # Whether memory holds the values of all arguments as they are; what they need of it, after
    # the results: see `torch_gate.addresses`.
    ready: bool
    needs: tuple[Need | None, ...]
    separated: Separated | None
