"""Random formulas in the language that PyKeOps and pairfold share, and arrays to fold them on.

Each operation has templates: the dimension it can give, and how it is written around drawn
operands. Operands are kept where an operation is defined (a logarithm gets 1 + a square). Numbers
are whole or dyadic, since PyKeOps rounds constants to single precision.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

ROWS, COLUMNS = 17, 23
ALIASES = (
    "x = Vi(3)",
    "y = Vj(3)",
    "a = Vi(1)",
    "c = Vj(1)",
    "u = Vi(2)",
    "z = Vj(6)",
    "p = Pm(3)",
    "q = Pm(1)",
)
DIMS = {"x": 3, "y": 3, "a": 1, "c": 1, "u": 2, "z": 6, "p": 3, "q": 1}


def arrays(seed: int) -> list[Any]:
    """One array per alias, in their order."""
    rng = np.random.default_rng(seed)
    found: list[Any] = []
    for alias in ALIASES:
        name, kind = alias[0], alias[4:6]
        count = {"Vi": (ROWS,), "Vj": (COLUMNS,), "Pm": ()}[kind]
        found.append(rng.uniform(-1, 1, (*count, DIMS[name])))
    return found


class Draw:
    """Draws one formula; the same numbers of the generator give the same formula."""

    def __init__(self, rng: np.random.Generator, names: frozenset[str]) -> None:
        self.rng, self.names = rng, names
        self.differentiates = False

    def below(self, n: int) -> int:
        """A number from 0 to n-1."""
        return int(self.rng.integers(n))

    def pick(self, items: Any) -> Any:
        """One of several."""
        return items[self.below(len(items))]

    def leaf(self, dim: int) -> str:
        """A variable, cut or joined where none has the dimension."""
        fitting = [name for name, have in DIMS.items() if have == dim]
        if fitting:
            return self.pick(fitting)
        if dim < 6:
            return f"Extract(z,{self.below(6 - dim)},{dim})"
        return f"Concat(z,{self.leaf(dim - 6)})"

    def term(self, dim: int, depth: int) -> str:
        """A formula of this dimension."""
        if depth == 0 or self.below(8) == 0:
            return self.leaf(dim)
        fitting = [t for t in TEMPLATES if t.gives(dim) and t.name in self.names]
        fitting = [t for t in fitting if not (t.once and self.differentiates)]
        chosen = self.pick(fitting)
        if chosen.once:
            self.differentiates = True
        return chosen.write(self, dim, depth - 1)

    def positive(self, dim: int, depth: int) -> str:
        """A formula that is at least 1."""
        return f"(1+Square({self.term(dim, depth)}))"

    def bounded(self, dim: int, depth: int) -> str:
        """A formula between -1 and 1."""
        return f"Sin({self.term(dim, depth)})"

    def smooth(self, dim: int, depth: int) -> str:
        """A formula that both libraries differentiate, along with its derivatives."""
        rest = self.names & SMOOTH
        inner = Draw(self.rng, rest)
        inner.differentiates = True
        return inner.term(dim, depth)

    def broadcast(self, dim: int, depth: int) -> str:
        """A formula of this dimension or, rarely, of dimension 1."""
        return self.term(dim if self.below(4) else 1, depth)


@dataclass(frozen=True)
class Template:
    """How an operation is written to give a vector of some dimension."""

    name: str
    gives: Callable[[int], bool]
    write: Callable[[Draw, int, int], str]
    once: bool = False


TEMPLATES: list[Template] = []
_SMOOTH = (
    "Add Subtract Mult Divide Minus Square Pow Exp Cos Sin Atan Scalprod Sum SumT SqNorm2 SqDist "
    "Inv Sqrt Log Elem Extract Concat"
)
SMOOTH = frozenset(_SMOOTH.split())


def any_dim(dim: int) -> bool:
    """Whatever dimension is wanted."""
    return True


def scalar(dim: int) -> bool:
    """Scalars only."""
    return dim == 1


def even(dim: int) -> bool:
    """Complex vectors."""
    return dim % 2 == 0


def add(
    name: str,
    gives: Callable[[int], bool],
    write: Callable[[Draw, int, int], str],
    once: bool = False,
) -> None:
    """Add a template."""
    TEMPLATES.append(Template(name, gives, write, once))


def _unary(names: str, operand: Callable[[Draw, int, int], str], tail: str = "") -> None:
    for name in names.split():
        add(name, any_dim, lambda d, n, k, name=name: f"{name}({operand(d, n, k)}{tail})")


def _infix(name: str, symbol: str) -> None:
    add(name, any_dim, lambda d, n, k: f"({d.term(n, k)}{symbol}{d.broadcast(n, k)})")
    add(name, any_dim, lambda d, n, k: f"{name}({d.broadcast(n, k)},{d.term(n, k)})")


def _arithmetic() -> None:
    _infix("Add", "+")
    _infix("Subtract", "-")
    _infix("Mult", "*")
    _infix("LessThan", "<")
    _infix("LessOrEqual", "<=")
    add("LessThan", any_dim, lambda d, n, k: f"({d.term(n, k)}>{d.term(n, k)})")
    add("LessOrEqual", any_dim, lambda d, n, k: f"({d.term(n, k)}>={d.term(n, k)})")
    add("Divide", any_dim, lambda d, n, k: f"({d.term(n, k)}/{d.positive(n, k)})")
    add("Divide", any_dim, lambda d, n, k: f"({d.term(n, k)}/{d.pick((2, 4, 8))})")
    add("Minus", any_dim, lambda d, n, k: f"(-{d.term(n, k)})")
    add("Mult", any_dim, lambda d, n, k: f"({d.pick((2, 3, 5))}*{d.term(n, k)})")
    add("Add", any_dim, lambda d, n, k: f"({d.term(n, k)}+{d.pick((1, 2, 3))})")
    add("Pow", any_dim, lambda d, n, k: f"Pow({d.bounded(n, k)},{d.pick((0, 1, 2, 3, 5))})")
    add("Pow", any_dim, lambda d, n, k: f"{d.bounded(n, k)}**{d.pick((2, 3))}")
    add("Pow", any_dim, lambda d, n, k: f"Pow({d.positive(n, k)},{d.pick((-1, -2, -3))})")
    add("Powf", any_dim, lambda d, n, k: f"Powf({d.positive(n, k)},{d.bounded(n, k)})")
    add("IntInv", scalar, lambda d, n, k: f"IntInv({d.pick((2, 4))})")
    add("IntCst", scalar, lambda d, n, k: f"IntCst({d.pick((1, 2, 3))})")
    add("RatCst", scalar, lambda d, n, k: f"RatCst({d.pick((1, 3, 5))},{d.pick((2, 8))})")
    add("Zero", any_dim, lambda d, n, k: f"({d.term(n, k)}+Zero({n}))")


def _functions() -> None:
    _unary("Abs Atan Cos Sin Floor ReLU Sign Step SinXDivX", Draw.term)
    _unary("Square", Draw.term)
    _unary("Acos Asin", lambda d, n, k: f"IntInv(2)*{d.bounded(n, k)}")
    _unary("Exp", Draw.bounded)
    _unary("Inv Log Rsqrt Sqrt XLogX", Draw.positive)
    _unary("Round", Draw.term, ",0")
    _unary("ClampInt DiffClampInt", Draw.term, ",-1,1")
    add(
        "Clamp",
        any_dim,
        lambda d, n, k: f"Clamp({d.term(n, k)},{d.bounded(n, k)},{d.positive(n, k)})",
    )
    add("Atan2", any_dim, lambda d, n, k: f"Atan2({d.term(n, k)},{d.term(n, k)})")
    add("Mod", any_dim, lambda d, n, k: f"Mod({d.term(n, k)},{d.positive(n, k)},{d.leaf(n)})")
    add("IfElse", any_dim, lambda d, n, k: f"IfElse({d.term(n, k)},{d.term(n, k)},{d.term(n, k)})")
    add("IfElse", any_dim, lambda d, n, k: f"IfElse({d.term(1, k)},{d.term(n, k)},{d.term(n, k)})")
    for name in ("Equal", "NotEqual"):
        add(
            name,
            any_dim,
            lambda d, n, k, name=name: f"{name}(Sign({d.term(n, k)}),Sign({d.leaf(n)}))",
        )


def _norms() -> None:
    for name in ("Sum", "SqNorm2", "Norm2", "Max", "Min", "ArgMax", "ArgMin"):
        add(name, scalar, lambda d, n, k, name=name: f"{name}({d.term(3, k)})")
    add("Scalprod", scalar, lambda d, n, k: f"({d.term(3, k)}|{d.term(3, k)})")
    add("SqDist", scalar, lambda d, n, k: f"SqDist({d.term(3, k)},{d.term(3, k)})")
    add("Normalize", any_dim, lambda d, n, k: f"Normalize({d.term(n, k)})")
    add("SqNormIso", scalar, lambda d, n, k: f"SqNormIso({d.term(1, k)},{d.term(3, k)})")
    add("SqNormDiag", scalar, lambda d, n, k: f"SqNormDiag({d.term(3, k)},{d.term(3, k)})")
    add("SymSqNorm", scalar, lambda d, n, k: f"SymSqNorm({d.term(9, k)},{d.term(3, k)})")
    for size in (1, 3, 9):
        add(
            "WeightedSqNorm",
            scalar,
            lambda d, n, k, size=size: f"WeightedSqNorm({d.term(size, k)},{d.term(3, k)})",
        )
        add(
            "WeightedSqDist",
            scalar,
            lambda d, n, k, size=size: (
                f"WeightedSqDist({d.term(size, k)},{d.term(3, k)},{d.term(3, k)})"
            ),
        )
    add(
        "SoftDTW_SqDist",
        scalar,
        lambda d, n, k: f"SoftDTW_SqDist({d.bounded(3, k)},{d.bounded(2, k)},{d.positive(1, 0)})",
    )


def _parts() -> None:
    add("SumT", lambda n: n > 1, lambda d, n, k: f"SumT({d.term(1, k)},{n})")
    add("Elem", scalar, lambda d, n, k: f"Elem({d.term(3, k)},{d.below(3)})")
    add("ElemT", any_dim, lambda d, n, k: f"ElemT({d.term(1, k)},{n},{d.below(n)})")
    add("Extract", any_dim, lambda d, n, k: f"Extract({d.term(n + 2, k)},{d.below(3)},{n})")
    add(
        "ExtractT",
        lambda n: n > 1,
        lambda d, n, k: f"ExtractT({d.term(n - 1, k)},{d.below(2)},{n})",
    )
    add(
        "Concat",
        lambda n: n > 1,
        lambda d, n, k: f"Concat({d.term(1, k)},{d.term(n - 1, k)})",
    )
    add("OneHot", any_dim, lambda d, n, k: f"OneHot(ArgMax({d.term(n, k)}),{n})")
    add("Factorize", any_dim, lambda d, n, k: f"Factorize({d.term(n, k)},{d.leaf(1)})")
    add("AutoFactorize", any_dim, lambda d, n, k: f"AutoFactorize({d.term(n, k)})")


def _tensors() -> None:
    add("MatVecMult", any_dim, lambda d, n, k: f"MatVecMult({d.term(3 * n, k)},{d.term(3, k)})")
    add("VecMatMult", any_dim, lambda d, n, k: f"VecMatMult({d.term(2, k)},{d.term(2 * n, k)})")
    add("TensorProd", even, lambda d, n, k: f"TensorProd({d.term(2, k)},{d.term(n // 2, k)})")
    add(
        "TensorDot",
        even,
        lambda d, n, k: (
            f"TensorDot({d.term(6, k)},{d.term(3 * (n // 2), k)},[2,3],[3,{n // 2}],[1],[0])"
        ),
    )
    add(
        "TensorDot",
        lambda n: n == 6,
        lambda d, n, k: f"TensorDot({d.term(6, k)},{d.term(4, k)},[2,3],[2,2],[0],[1],[1,0])",
    )
    add("Kron", even, lambda d, n, k: f"Kron({d.term(2, k)},{d.term(n // 2, k)},[2],[{n // 2}])")


def _complex() -> None:
    half = lambda d, n, k: d.term(n // 2, k)  # noqa: E731
    for name in ("Real2Complex", "Imag2Complex", "ComplexExp1j"):
        add(name, even, lambda d, n, k, name=name: f"{name}({half(d, n, k)})")
    for name in ("ComplexReal", "ComplexImag", "ComplexSquareAbs", "ComplexAbs", "ComplexAngle"):
        add(name, any_dim, lambda d, n, k, name=name: f"{name}({d.term(2 * n, k)})")
    add("Conj", even, lambda d, n, k: f"Conj({d.term(n, k)})")
    add("ComplexExp", even, lambda d, n, k: f"ComplexExp({d.bounded(n, k)})")
    for name in ("ComplexAdd", "ComplexSubtract", "ComplexMult", "ComplexDivide"):
        for left in (0, 2):
            add(
                name,
                even,
                lambda d, n, k, name=name, left=left: (
                    f"{name}({d.term(left or n, k)},{d.term(n, k)})"
                ),
            )
    add("ComplexRealScal", even, lambda d, n, k: f"ComplexRealScal({d.term(1, k)},{d.term(n, k)})")
    add("ComplexSum", lambda n: n == 2, lambda d, n, k: f"ComplexSum({d.term(6, k)})")
    add("ComplexSumT", even, lambda d, n, k: f"ComplexSumT({d.term(2, k)},{n})")


def _operators() -> None:
    def of_var(n: int) -> list[str]:
        return [name for name, have in DIMS.items() if have == n]

    def has_var(n: int) -> bool:
        return bool(of_var(n))

    add(
        "Grad",
        has_var,
        lambda d, n, k: f"Grad({d.term(3, k + 1)},{d.pick(of_var(n))},{d.leaf(3)})",
        True,
    )
    add(
        "Grad",
        has_var,
        lambda d, n, k: f"Grad({d.term(1, k + 1)},{d.pick(of_var(n))},{d.leaf(1)})",
        True,
    )
    add("Diff", any_dim, lambda d, n, k: f"Diff({d.smooth(n, k + 1)},x,{d.leaf(3)})", True)
    add(
        "Diff",
        any_dim,
        lambda d, n, k: f"Diff({d.smooth(n, k + 1)},(x,a),({d.leaf(3)},{d.leaf(1)}))",
        True,
    )
    add(
        "GradMatrix",
        lambda n: n % 3 == 0,
        lambda d, n, k: f"GradMatrix({d.smooth(n // 3, k + 1)},x)",
        True,
    )
    add("Divergence", scalar, lambda d, n, k: f"Divergence({d.smooth(3, k + 1)},x)", True)
    add("Laplacian", scalar, lambda d, n, k: f"Laplacian({d.smooth(1, k + 1)},x)", True)
    fixed = ("y*x", "(x*Exp(y)+Sum(x)*y)", "(y*(x|p))", "(x-c*x)")
    add(
        "TraceOperator",
        scalar,
        lambda d, n, k: f"TraceOperator({d.pick(fixed)},x)*{d.leaf(1)}",
        True,
    )
    add(
        "AdjointOperator",
        lambda n: n == 3,
        lambda d, n, k: f"AdjointOperator({d.pick(fixed)},x,{d.term(3, 1)})",
        True,
    )
    add(
        "SumLinOperator",
        scalar,
        lambda d, n, k: f"SumLinOperator({d.pick(fixed)},x)*{d.leaf(1)}",
        True,
    )


for _group in (_arithmetic, _functions, _norms, _parts, _tensors, _complex, _operators):
    _group()

# Operations that PyKeOps cannot run on float64 arrays of a processor.
NOT_THERE = {"BSpline": "PyKeOps refuses it for float64"}


def draw(seed: int, number: int, names: frozenset[str]) -> str:
    """Formula `number`, a scalar; it starts from another operation than its neighbours."""
    rng = np.random.default_rng([seed, number])
    made = Draw(rng, names)
    first = [t for t in TEMPLATES if t.name in names]
    start = first[number % len(first)]
    dim = next(n for n in (3, 2, 6, 1) if start.gives(n))
    made.differentiates = start.once
    formula = start.write(made, dim, 1 + made.below(2))
    if not start.once and made.below(5) == 0:
        return f"Sum(Grad({formula},{made.pick('xya')},{made.leaf(dim)}))"
    return f"Sum({formula})"
