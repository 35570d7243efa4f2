"""Numbers of results as arrays store them, as lines of Triton."""

from __future__ import annotations

from ...lower.kernel import Kernel
from ...lower.tiling import Tiling
from .text import Text


class Results:
    """Writes components of results, in the function being printed."""

    def __init__(self, text: Text, kernel: Kernel, tiling: Tiling) -> None:
        self.text, self.kernel, self.tiling = text, kernel, tiling

    def within(self, component: str) -> str:
        """The rows to write, if there is such a component: of a long output there may be none."""
        loop = self.kernel.output_loop
        return "own" if loop is None else f"own & ({component} < {loop.n})"

    @property
    def once(self) -> str:
        """The rows to write what all components have in common."""
        return "own" if self.kernel.output_loop is None else "own & (tl.program_id(1) == 0)"

    def write(self, n: int, component: str, value: str, mask: str) -> None:
        """Write a component of result number n."""
        at = f"o{n}_at + {component} * o{n}_c"
        self.text.line(f"tl.store({at}, {self._stored(n, value)}, mask={mask})")

    def _stored(self, n: int, value: str) -> str:
        kind = self.kernel.kinds[n]
        if kind == "index":
            return f"tl.cast({value}, tl.int64)"
        if kind == "truth":
            return f"{value} != 0"
        if kind == "state":
            return f"tl.cast({value}, tl.float64)"
        if self.tiling.stored not in ("", self.tiling.dtype):
            # Not every target, nor the interpreter, rounds float64 to half precision at once.
            value = f"tl.cast({value}, tl.float32)"
        return f"tl.cast({value}, o{n}.dtype.element_ty)"
