"""Names inside PyKeOps' LazyTensor that other libraries read, call or override.

Formulas are text here, for those who write it: every variable is called `Var(n,dim,category)` by a
number n of its own, so texts of different tensors can be put together after `join`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from ..calculus.substitute import substitute
from ..core.show import formula_text
from ..errors import ShapeError, UnknownNameError, check_option, closest
from ..frontends.accuracy import HINTS, OPTIONS
from ..frontends.lazy import Tensor
from ..frontends.lazysolve import Solved
from ..frontends.parse import parse
from ..frontends.reducing import Reducing
from ..ops.table import OPERATIONS, Op, variable
from ..ops.vectors import zero
from .genred import Genred, KernelSolve
from .layouts import call_raw

_VARIABLE = re.compile(r"\bVar\(\s*(\d+)\s*,")
_SYMBOLS = {
    op.symbol.text: op.name
    for op in OPERATIONS.values()
    if op.symbol is not None and len(op.args) == 2
}


# What the operators call, which other classes may overrule.
_HOOKS = {"Add": "addop", "Subtract": "subop", "Mult": "mulop", "Divide": "divop"}


class System(Solved):
    """A system that waits for its call."""

    @property
    def callfun(self) -> Solved:
        """What computes: the system itself."""
        return self


class Internals(Reducing):
    """The internal names of PyKeOps' class, and raw results in `out=`."""

    __GenericLazyTensor__ = True
    _shown = Reducing._shown | {"formula", "variables", "symbolic_variables", "tools"}
    _compute = staticmethod(call_raw)
    Genred, KernelSolve = Genred, KernelSolve
    formula2: str | None = None

    # -- attributes -----------------------------------------------------------------------------

    @property
    def formula(self) -> str:
        """The formula as text, with a number of its own for every variable."""
        return formula_text(self.node)

    @formula.setter
    def formula(self, text: str) -> None:
        """Replace the formula by another of the same variables."""
        places = {leaf.node.params[0]: place for place, leaf in enumerate(self.leaves)}
        local = _VARIABLE.sub(lambda m: f"Var({places.get(int(m[1]), m[1])},", text)
        aliases = [f"Var({n},{x.dim},{int(x.kind)})" for n, x in enumerate(self.leaves)]
        own = {variable(n, x.dim, x.kind): x.node for n, x in enumerate(self.leaves)}
        self.node = substitute(parse(local, aliases).node, own)
        self.axis = None

    @property
    def variables(self) -> tuple[Any, ...]:
        """The arrays and lists of numbers of the formula: (..., M, D), (..., N, D) or (..., D)."""
        known = {leaf.key: leaf for leaf in self.leaves if leaf.symbol is None}
        return tuple(x.array if x.given else list(x.values or ()) for x in known.values())

    @property
    def symbolic_variables(self) -> tuple[tuple[int, int, int], ...]:
        """(position, dimension, category) of every argument that is to be given later."""
        return tuple((int(x.symbol or 0), x.dim, int(x.kind)) for x in self.symbols)

    @property
    def ind(self) -> int:
        """The position of a symbol; other tensors have none."""
        if len(self.leaves) != 1 or self.leaves[0].symbol is None:
            raise AttributeError("only a symbol has a position: Vi(0, 3)")
        return self.leaves[0].symbol

    @property
    def tools(self) -> Any:
        """What pairfold needs of the arrays' library; None where there is no array yet."""
        return self.library

    def get_tools(self) -> None:
        """Nothing: `tools`, `Genred` and `KernelSolve` are there from the start."""

    # -- building by hand -----------------------------------------------------------------------

    def init(self, is_complex: bool = False) -> Any:
        """A tensor of the same variables, sizes and options, with nothing as its formula."""
        return self._typed(self._like(zero(2 if is_complex else 1)), is_complex)

    def promote(self, other: Tensor, props: Sequence[str], is_complex: bool = False) -> Any:
        """`init`, with these attributes of both tensors: ni, nj, dtype, tools, ranges, backend.

        Raises:
            ShapeError: they differ.
        """
        found = self.init(is_complex)
        names = {"dtype": "real_dtype", "_dtype": "real_dtype", "tools": "library"}
        wanted = {names.get(name, name) for name in props}
        if wanted - {"Genred", "KernelSolve", "batchdims", "variables", "symbolic_variables"}:
            both = found._like(found.node, other)
            for name in wanted & {"ni", "nj", "real_dtype", "library", "backend", "ranges"}:
                setattr(found, name, getattr(both, name))
        return found

    def join(self, other: Tensor, is_complex: bool = False) -> Any:
        """`init`, with the variables, sizes and options of both tensors.

        Raises:
            ShapeError: sizes or options that differ.
        """
        found = self.init(is_complex)
        return self._typed(found._like(found.node, other), is_complex)

    def lt_constructor(
        self, x: Any = None, axis: int | None = None, is_complex: bool = False
    ) -> Any:
        """A lazy tensor of x."""
        real: Any = self.class_for(False)
        return real(x, axis, is_complex)

    @staticmethod
    def _typed(tensor: Any, is_complex: bool) -> Any:
        """A tensor as one of real, or of complex, numbers."""
        return tensor._as(tensor.class_for(is_complex))

    def fixvariables(self) -> None:
        """Nothing: variables have numbers of their own, and are counted from 0 when reduced."""

    def new_variable_index(self) -> int:
        """The position after the last symbol's."""
        return max((position for position, _, _ in self.symbolic_variables), default=-1) + 1

    @staticmethod
    def separate_kwargs(kwargs: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Options of `Genred`, and all others: those of its call."""
        first = {name: value for name, value in kwargs.items() if name in (*OPTIONS, *HINTS)}
        return first, {name: value for name, value in kwargs.items() if name not in first}

    # -- arithmetic -----------------------------------------------------------------------------

    def _binary(self, name: str, other: Any) -> Any:
        return getattr(self, _HOOKS[name])(other)

    def addop(self, other: Any, **options: Any) -> Any:
        """The sum; what `+` calls."""
        return super()._binary("Add", other)

    def subop(self, other: Any, **options: Any) -> Any:
        """The difference; what `-` calls."""
        return super()._binary("Subtract", other)

    def mulop(self, other: Any, **options: Any) -> Any:
        """The product; what `*` calls."""
        return super()._binary("Mult", other)

    def divop(self, other: Any, **options: Any) -> Any:
        """The quotient; what `/` calls."""
        return super()._binary("Divide", other)

    # -- systems --------------------------------------------------------------------------------

    @staticmethod
    def _system_class() -> type[Solved]:
        return System

    # -- any operation --------------------------------------------------------------------------

    def _named(
        self, operation: str, dimres: int | None, operands: Sequence[Any], is_complex: bool | None
    ) -> Any:
        """An operation by its name; `dimres`, where given, must be the result's dimension."""
        row = checked_operation(operation)
        tensors = [self._operand(x) for x in operands[: len(row.args)]]
        found = tensors[0]._apply(row.name, *tensors, *operands[len(row.args) :])
        if dimres is not None and dimres != found.ndim:
            raise ShapeError(
                f"{operation} gives vectors of dimension {found.ndim}", found=f"dimres={dimres}"
            )
        return self._typed(found, self.is_complex if is_complex is None else is_complex)

    def unary(
        self,
        operation: str,
        dimres: int | None = None,
        opt_arg: Any = None,
        opt_arg2: Any = None,
        is_complex: bool | None = None,
    ) -> Any:
        """Any operation of one operand, by its name, with up to two parameters.

        Raises:
            UnknownNameError, DimError, ShapeError: what does not exist or does not fit.
        """
        parameters = [x for x in (opt_arg, opt_arg2) if x is not None]
        return self._named(operation, dimres, [self, *parameters], is_complex)

    def binary(
        self,
        other: Any,
        operation: str,
        is_operator: bool = False,
        dimres: int | None = None,
        dimcheck: str | None = "sameor1",
        opt_arg: Any = None,
        opt_pos: str = "last",
        rversion: bool = False,
        is_complex: bool | None = None,
    ) -> Any:
        """Any operation of two operands, by its name, or by its symbol.

        Args:
            other: the second operand; the first, with `rversion`.
            operation: `"Add"` or `"+"`.
            dimres: the dimension of the result, to be checked.
            dimcheck: what dimensions must be: "same", "sameor1", "vecand1" (other's is 1) or None.
            opt_arg: a parameter.
            opt_pos: where PyKeOps would write it: "last" or "middle".
            rversion: swap the operands.

        Raises:
            UnknownNameError, DimError, ShapeError, OptionError: what does not exist or fit.
        """
        check_option("dimcheck", dimcheck, ("same", "sameor1", "vecand1", None))
        check_option("opt_pos", opt_pos, ("last", "middle"))
        other = self._operand(other)
        check_dims(operation, dimcheck, self, other)
        operands = [other, self] if rversion else [self, other]
        name = _SYMBOLS.get(operation, operation)
        operands += [] if opt_arg is None else [opt_arg]
        return self._named(name, dimres, operands, is_complex)

    def ternary(
        self,
        other1: Any,
        other2: Any,
        operation: str,
        dimres: int | None = None,
        dimcheck: str | None = "sameor1",
        opt_arg: Any = None,
    ) -> Any:
        """Any operation of three operands, by its name; options as for `binary`.

        Raises:
            UnknownNameError, DimError, ShapeError, OptionError: what does not exist or fit.
        """
        check_option("dimcheck", dimcheck, ("same", "sameor1", None))
        operands = [self, self._operand(other1), self._operand(other2)]
        check_dims(operation, dimcheck, *operands)
        operands += [] if opt_arg is None else [opt_arg]
        return self._named(operation, dimres, operands, None)


def checked_operation(name: str) -> Op:
    """The row of an operation.

    Raises:
        UnknownNameError: there is none.
    """
    found = OPERATIONS.get(name)
    if found is None or name == "Var":
        raise UnknownNameError(
            f"there is no operation called {name!r}",
            hint=closest(str(name), OPERATIONS) or "docs/operations.md lists all of them",
        )
    return found


def check_dims(operation: str, dimcheck: str | None, *tensors: Any) -> None:
    """Raise unless the dimensions of operands are as `dimcheck` wants them.

    Raises:
        ShapeError: naming the operation.
    """
    dims = [tensor.ndim // (2 if tensor.is_complex else 1) for tensor in tensors]
    fits = {
        None: True,
        "same": len(set(dims)) == 1,
        "sameor1": len(set(dims) - {1}) <= 1,
        "vecand1": dims[-1] == 1,
    }[dimcheck]
    if not fits:
        words = {"same": "equal", "sameor1": "equal or 1", "vecand1": "1 for the last"}
        raise ShapeError(
            f"{operation}: dimensions must be {words[str(dimcheck)]}",
            found=", ".join(map(str, dims)),
        )
