"""Sums whose far columns are met as proxies: a treecode, as one fold over block-sparse ranges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NoReturn

import numpy as np

from ..arrays.library import ArrayLibrary
from ..arrays.registry import NUMPY
from ..calculus.operators import check_linear
from ..core.library import Array
from ..core.node import Axis, Node, topological
from ..errors import FormulaError, OptionError, UnsupportedError
from .accuracy import Accuracy
from .farplan import Planned, planned
from .ranges import Ranges
from .reduction import FormulaReduction

# Proxies of a box grow as p^D: beyond, no number of points is far enough.
MOST_AXES = 4


@dataclass(frozen=True)
class Roles:
    """Numbers of the arguments: positions of rows and columns, and the weights of columns."""

    rows: int
    columns: int
    weights: int


class FarReduction(FormulaReduction):
    """A sum of K(x_i, y_j) b_j to the relative error `accuracy.rtol`, which some rows measure.

    The formula is smooth in y away from x, and linear in b. Its derivatives are such sums where
    they are linear in one variable of columns beside the positions, elsewhere sums over all pairs.

    Raises:
        FormulaError: the formula has no such positions or weights.
        OptionError: no sum, or pairs that are left out.
        UnsupportedError: positions of more than four coordinates.
    """

    far = True

    def __init__(
        self,
        formula: Node,
        variables: Sequence[Node],
        reduction: str,
        kept: Axis,
        names: Mapping[int, str] | None = None,
        accuracy: Accuracy | None = None,
        weight: Node | None = None,
        length: int = 0,
        asked: Axis | None = None,
        where: Node | None = None,
        positions: tuple[int, int] | None = None,
    ) -> None:
        rest = (weight, length, asked, where)
        super().__init__(formula, variables, reduction, kept, names, accuracy, *rest)
        if where is not None:
            _refuse_pairs("where=")
        self.roles = self._found(positions)
        exact = replace(self.accuracy, rtol=None, method="exact")
        self.exact = FormulaReduction(formula, variables, reduction, kept, names, exact)

    # -- what the arguments are -----------------------------------------------------------------

    def _found(self, positions: tuple[int, int] | None) -> Roles:
        read = set(topological([self.formula]))
        if any(node.op.name == "Ind" for node in read):
            self._refuse("formulas without numbers of rows or columns", "it reads i or j")
        own = [n for n, v in enumerate(self.variables) if v in read]
        kinds = {kind: [n for n in own if self._kind(n) == kind] for kind in Axis}
        if kinds[Axis.PAIR]:
            self._refuse("formulas without arrays of pairs", self._listed(kinds[Axis.PAIR]))
        columns = kinds[self.kept.other]
        if positions is not None:
            rows, place = positions
            rest = [n for n in columns if n != place]
            if place not in columns or len(rest) != 1 or not self._is_linear(rest[0]):
                self._refuse("one variable of weights", self._listed(rest))
            return Roles(rows, place, rest[0])
        weights, place = self._columns(columns)
        rows = self._rows(kinds[self.kept], self.variables[place].dim)
        return Roles(rows, place, weights)

    def _columns(self, columns: list[int]) -> tuple[int, int]:
        """The weights and the positions of the columns."""
        letter = "j" if self.kept == Axis.I else "i"
        if len(columns) != 2:
            self._refuse(
                f"two variables indexed by {letter}, positions and weights",
                self._listed(columns),
                f"K*b, with weights b = V{letter}(1), which may be ones"
                if len(columns) < 2
                else "products of weights as one array, Concat of positions as another",
            )
        linear = [n for n in columns if self._is_linear(n)]
        if not linear:
            self._refuse(
                f"a formula that is linear in weights indexed by {letter}",
                f"neither {self._listed(columns, ' nor ')} is read by linear operations alone",
                "K*b, with weights b",
            )
        weights = linear[-1]
        return weights, columns[1 - columns.index(weights)]

    def _rows(self, rows: list[int], dim: int) -> int:
        """The positions of the rows, of the dimension of those of the columns."""
        if dim > MOST_AXES:
            raise UnsupportedError(
                f"a treecode is for positions of at most {MOST_AXES} coordinates",
                found=f"{dim} coordinates",
                hint="method='exact'",
            )
        fitting = [n for n in rows if self.variables[n].dim == dim]
        if len(fitting) > 1:
            fitting = [n for n in fitting if not self._is_linear(n)]
        if len(fitting) != 1:
            letter = "i" if self.kept == Axis.I else "j"
            what = f"one variable of positions indexed by {letter}, of dimension {dim} as the other"
            self._refuse(what, self._listed(rows))
        return fitting[0]

    def _kind(self, position: int) -> Axis:
        return self.variables[position].variable.kind

    def _is_linear(self, position: int) -> bool:
        try:
            check_linear(self.formula, self.variables[position], "A treecode")
        except FormulaError:
            return False
        return True

    def _listed(self, positions: Sequence[int], joint: str = ", ") -> str:
        names = (self.names.get(n, f"argument {n}") for n in positions)
        return joint.join(names) or "none"

    def _refuse(self, wanted: str, found: str, hint: str = "method='exact'") -> NoReturn:
        raise FormulaError(f"a treecode needs {wanted}", found=found, hint=hint)

    # -- derivatives ----------------------------------------------------------------------------

    def with_formula(
        self,
        formula: Node,
        variables: Sequence[Node],
        reduction: str,
        kept: Axis,
        weight: Node | None = None,
        length: int = 0,
    ) -> FormulaReduction:
        """A fold of another formula: a treecode if it is a sum with the same positions."""
        exact = replace(self.accuracy, rtol=None, method="exact")
        rest = (weight, length, self.asked)
        if reduction == "Sum":
            rows, columns = self.roles.rows, self.roles.columns
            positions = (rows, columns) if kept == self.kept else (columns, rows)
            given = (formula, variables, reduction, kept, self.names, self.accuracy, *rest)
            try:
                return FarReduction(*given, positions=positions)
            except FormulaError:
                pass
        return FormulaReduction(formula, variables, reduction, kept, self.names, exact, *rest)

    # -- calls ----------------------------------------------------------------------------------

    @property
    def simple(self) -> bool:
        """Results are made by other folds."""
        return False

    def run(
        self, library: ArrayLibrary, arrays: Sequence[Array], ranges: Ranges | None = None
    ) -> tuple[Array, ...]:
        """New arrays of the results; the fold over all pairs where proxies do not pay."""
        found = self.planned(library, arrays, ranges)
        if found.far is None:
            return self.exact.run(library, arrays)
        rows = NUMPY.to_numpy(self.exact.run(NUMPY, found.far.arrays, found.far.ranges)[0])
        result = np.empty_like(rows)
        result[found.far.order] = rows
        return (library.constants(result, arrays[0]),)

    def planned(
        self, library: ArrayLibrary, arrays: Sequence[Array], ranges: Ranges | None = None
    ) -> Planned:
        """What is to be folded for these arrays, and its measured error.

        Raises:
            UnsupportedError: batches, half precision, or arrays of a GPU.
            OptionError: ranges.
            ArgumentError, ArrayTypeError, DTypeError, DeviceError, ShapeError: what does not fit.
        """
        if ranges is not None:
            _refuse_pairs("ranges=")
        binding = self.binding(library, arrays)
        if binding.sizes.batch:
            _refuse_arrays("without batch axes", f"batch axes {binding.sizes.batch}")
        if binding.dtype not in ("float32", "float64"):
            _refuse_arrays("of float32 or float64", binding.dtype)
        if library.elsewhere is not None or binding.device is not None:
            _refuse_arrays("of the host, computed there", "a GPU")
        given = [np.asarray(library.to_numpy(library.ready(array))) for array in arrays]
        assert self.accuracy.rtol is not None
        return planned(self.exact, self.roles, given, self.accuracy.rtol)


def _refuse_pairs(found: str) -> NoReturn:
    raise OptionError(
        "a treecode is of all pairs", found=f"method='treecode' and {found}", hint="method='exact'"
    )


def _refuse_arrays(wanted: str, found: str) -> NoReturn:
    raise UnsupportedError(f"a treecode is for arrays {wanted}", found=found, hint="method='exact'")
