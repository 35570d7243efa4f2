"""Random programs over the public interface: formulas, arguments, reductions and options.

`draw(seed)` makes a `Program`. Four seeds in a row share a formula, and so machine code: compiling
takes most of the time. What a formula means is said in `dense_torch.py`, and nowhere here.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from dense_torch import Dense, Expr, Rounding, table, words

Rng = np.random.Generator
DIMS = (1, 1, 1, 2, 3, 3, 2, 4, 5, 8, 16, 17, 20, 40)
SIZES = (17, 23, 1, 2, 5, 16, 33, 0, 64, 130)
NUMBERS = (2, 0.5, -1, 3, -1.25, 0.25, 10, 0.1, 1.5)
BATCHES = ((), (2,), (1,), (2, 1), (1, 3), (2, 3), (3,))


@dataclass(frozen=True)
class Argument:
    """One array: what indexes it, its shape, what its numbers are and how they lie in memory.

    `same`: the argument whose array it is, instead of one of its own.
    """

    kind: str
    dim: int
    batch: tuple[int, ...]
    numbers: str
    layout: str
    seed: int
    is_complex: bool = False
    same: int | None = None


@dataclass(frozen=True)
class Program:
    """A reduction of a formula over arrays, and how it is asked for."""

    seed: int
    arguments: tuple[Argument, ...]
    rows: int
    columns: int
    formula: Expr
    weight: Expr | None
    reduction: str
    axis: int
    length: int
    dtype: str
    library: str
    order: int = 0
    settings: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    blocks: int = 0
    symbols: bool = False
    ways: tuple[str, ...] = ("string", "lazy")
    style: int = 0


# ----- reductions --------------------------------------------------------------------------------

PLAIN = ("Sum", "Mean", "Prod", "Count", "Any", "All", "Min", "Max", "ArgMin", "ArgMax")
PLAIN += ("Min_ArgMin", "Max_ArgMax", "KMin", "ArgKMin", "KMin_ArgKMin", "LogSumExp")
SCALAR = ("LogSumExpWeight", "SumSoftMaxWeight", "Max_SumShiftExp", "Max_SumShiftExpWeight")
WEIGHTED = ("LogSumExpWeight", "SumSoftMaxWeight", "Max_SumShiftExpWeight")
ADDITIVE = ("Sum", "Mean", "Count", "LogSumExp", *SCALAR)
SELECTING = ("Min", "Max", "Min_ArgMin", "Max_ArgMax", "KMin", "KMin_ArgKMin")
NO_GRADIENT = ("Count", "Any", "All", "ArgMin", "ArgMax", "ArgKMin")

SETTINGS: tuple[dict[str, Any], ...] = (
    {"screen": "always"},
    {"screen": "never"},
    {"threads": 1},
    {"threads": 3},
    {"rules": "exact"},
    {"lanes": "row"},
    {"lanes": "column"},
    {"splits": 3},
    {"block": 8},
    {"row_vectors": 1},
    {"row_vectors": 4, "column_jam": 3},
    {"unroll": 1},
    {"unroll": 2, "unroll_pairs": 1},
    {"output_jam": 2, "row_tiles": 2},
    {"fused": "separate"},
    {"target": "avx2"},
    {"target": "baseline"},
    {"check": 1},
)

ACCURACY = (("dtype_acc", "float64"), ("use_double_acc", True), ("sum_scheme", "direct_sum"))
ACCURACY += (("sum_scheme", "kahan_scheme"), ("sum_scheme", "block_sum"))

# ----- formulas ----------------------------------------------------------------------------------

ANYWHERE = words("""
    Minus Square Sin Cos Tanh Abs Atan ReLU Exp Sign Step Floor SinXDivX Minus Square Exp
    Sin Sigmoid Softplus Erf Asinh""")
POSITIVE = ("Sqrt", "Rsqrt", "Log", "Inv", "XLogX")
TWO = words("""
    Add Subtract Mult Add Subtract Mult Divide LessThan LessOrEqual Equal NotEqual Atan2
    Powf Maximum Minimum""")
FLAT = ("Sign", "Step", "Floor", "Round", "LessThan", "LessOrEqual", "Equal", "NotEqual")


def leaves_of(f: Expr | None) -> set[int]:
    """The numbers of the arguments in a formula."""
    if f is None:
        return set()
    return set(f.params[:1]) if f.op == "Leaf" else set().union(*map(leaves_of, f.args), set())


class Drawing:
    """Random formulas of given variables; values are looked at, and tamed where they are large."""

    def __init__(self, rng: Rng, leaves: list[Expr], probe: list[Any], wild: bool) -> None:
        self.rng, self.leaves, self.wild = rng, leaves, wild
        self.dense = Dense(probe, Rounding())
        self.made: list[Expr] = []

    def pick(self, options: Any) -> Any:
        return options[int(self.rng.integers(len(options)))]

    def chance(self, share: float) -> bool:
        return bool(self.rng.random() < share)

    def make(self, op: str, *args: Expr, params: tuple[Any, ...] = (), dim: int = 0) -> Expr:
        """An operation; values above 20 are replaced by their sines, unless the drawing is wild."""
        dim = dim or max(x.dim for x in args)
        found = Expr(op, args, params, dim)
        values = self.dense(found)
        assert values.shape[-1] == dim, (op, params, dim, values.shape)
        if not self.wild and not bool((values.abs() < 20).all()):
            found = Expr("Sin", (found,), (), dim)
            if not bool(self.dense(found).isfinite().all()):
                return self.variable(dim)
        self.made.append(found)
        return found

    def variable(self, dim: int) -> Expr:
        """A variable of this dimension, or one cut, padded or repeated."""
        fitting = [x for x in self.leaves if x.dim == dim and not x.is_complex]
        real = [x for x in self.leaves if not x.is_complex]
        return self.resized(self.pick(fitting or real), dim)

    def resized(self, x: Expr, dim: int) -> Expr:
        if x.dim == dim:
            return x
        if dim == 1:
            return self.make("Sum", x, dim=1)
        if x.dim == 1:
            return self.make("SumT", x, params=(dim,), dim=dim)
        if x.dim > dim:
            start = int(self.rng.integers(x.dim - dim + 1))
            return self.make("Extract", x, params=(start, dim), dim=dim)
        start = int(self.rng.integers(dim - x.dim + 1))
        return self.make("ExtractT", x, params=(start, dim), dim=dim)

    def term(self, depth: int, dim: int) -> Expr:
        """A formula of this dimension."""
        if depth <= 0 or self.chance(0.1):
            return self.variable(dim)
        known = [x for x in self.made if x.dim == dim]
        if known and self.chance(0.08):
            return self.pick(known)
        kinds = [self.one, self.two, self.two, self.special]
        kinds += [self.scalar, self.scalar] if dim == 1 else [self.vector]
        return self.pick(kinds)(depth - 1, dim)

    def positive(self, x: Expr) -> Expr:
        square = self.make("Square", x)
        square = square if square.op == "Square" else self.make("Square", square)
        return self.make("Add", square, Expr("Number", params=(0.5,)))

    def inside(self, x: Expr, by: float) -> Expr:
        return self.make("Mult", self.make("Sin", x), Expr("Number", params=(by,)))

    def one(self, depth: int, dim: int) -> Expr:
        """A function of one operand."""
        rng = self.rng
        x = self.term(depth, dim)
        op = self.pick(
            (*ANYWHERE, *POSITIVE, "Asin", "Acos", "Pow", "Round", "ClampInt", "BesselDivX")
        )
        if op in POSITIVE and not self.wild:
            return self.make(op, self.positive(x))
        if op in ("Asin", "Acos"):
            return self.make(op, self.inside(x, 0.75))
        if op == "Pow":
            m = int(self.pick((3, 2, -1, 0, 1, -2, 5)))
            return self.make(op, x if m >= 0 or self.wild else self.positive(x), params=(m,))
        if op == "Round":
            return self.make(op, x, params=(int(rng.integers(-1, 3)),))
        if op == "ClampInt":
            low = int(rng.integers(-2, 2))
            return self.make(op, x, params=(low, low + int(rng.integers(0, 3))))
        if op == "BesselDivX":
            return self.make(op, self.inside(x, 5.0), params=(int(rng.integers(0, 4)),))
        return self.make(op, x)

    def operand(self, depth: int, dim: int) -> Expr:
        """An operand that may be a scalar beside vectors."""
        return self.term(depth, 1 if self.chance(0.25) else dim)

    def two(self, depth: int, dim: int) -> Expr:
        """A function of two operands, one of them perhaps a number or a scalar."""
        x = self.term(depth, dim)
        op = self.pick(TWO)
        number = self.chance(0.2) and op not in ("Equal", "Atan2", "Powf")
        y = Expr("Number", params=(self.pick(NUMBERS),)) if number else self.operand(depth, dim)
        if op == "Divide" and not number and not self.wild:
            y = self.positive(y)
        if op == "Powf":
            return self.make(op, x if self.wild else self.positive(x), self.inside(y, 1.5))
        swap = self.chance(0.3) and op != "Divide"
        return self.make(op, *((y, x) if swap else (x, y)), dim=dim)

    def scalar(self, depth: int, dim: int) -> Expr:
        """A scalar from vectors."""
        wide = self.pick([x.dim for x in self.leaves if not x.is_complex])
        op = self.pick(
            words("""
                Sum SqNorm2 Norm2 Scalprod SqDist SqDist SqDist Gauss Max Min ArgMax ArgMin Elem
    WeightedSqDist WeightedSqNorm SoftDTW_SqDist Divergence Laplacian""")
        )
        if op in ("Divergence", "Laplacian"):
            return self.derivative(op, depth)
        x = self.term(depth, wide)
        if op in ("Scalprod", "SqDist", "Gauss"):
            y = self.operand(depth, wide)
            if op != "Gauss":
                return self.make(op, x, y, dim=1)
            return self.make("Exp", self.make("Minus", self.make("SqDist", x, y, dim=1)))
        if op.startswith("Weighted"):
            count = self.pick((1, wide, wide * wide if wide < 6 else 1))
            operands = [self.term(depth, count), x]
            operands += [self.term(depth, wide)] if op == "WeightedSqDist" else []
            return self.make(op, *operands, dim=1)
        if op == "SoftDTW_SqDist":
            x, y = self.term(depth, self.pick((2, 3))), self.term(depth, self.pick((2, 4)))
            return self.make(op, x, y, self.positive(self.term(0, 1)), dim=1)
        if op == "Elem":
            return self.make(op, x, params=(int(self.rng.integers(wide)),), dim=1)
        return self.make(op, x, dim=1)

    def vector(self, depth: int, dim: int) -> Expr:
        """A vector from parts, repetitions or products."""
        rng = self.rng
        options = ["Concat", "ExtractT", "SumT", "ElemT", "OneHot", "Normalize", "Extract"]
        options += ["MatVecMult", "VecMatMult", "Grad", "Diff"]
        divisors = [n for n in range(2, dim) if dim % n == 0]
        options += ["Tile", "Stretch", "TensorProd", "TensorProd"] if divisors else []
        if int(dim**0.5) ** 2 == dim:
            options.append("Diag")
        op = self.pick(options)
        if op in ("Grad", "Diff"):
            return self.derivative(op, depth, dim)
        if op == "Concat":
            cut = int(rng.integers(1, dim))
            return self.make(op, self.term(depth, cut), self.term(depth, dim - cut), dim=dim)
        if op in ("SumT", "OneHot"):
            return self.make(op, self.term(depth, 1), params=(dim,), dim=dim)
        if op == "ElemT":
            place = int(rng.integers(dim))
            return self.make(op, self.term(depth, 1), params=(dim, place), dim=dim)
        if op in ("ExtractT", "Extract"):
            other = int(rng.integers(1, dim)) if op == "ExtractT" else dim + int(rng.integers(1, 5))
            start = int(rng.integers(abs(dim - other) + 1))
            return self.make(op, self.term(depth, other), params=(start, dim), dim=dim)
        if op in ("MatVecMult", "VecMatMult"):
            inner = self.pick((1, 2, 3)) if dim > 5 else self.pick((1, 2, 3, 4, 8))
            matrix, x = self.term(depth, inner * dim), self.term(depth, inner)
            return self.make(op, *((matrix, x) if op == "MatVecMult" else (x, matrix)), dim=dim)
        if op in ("Tile", "Stretch", "TensorProd"):
            n = self.pick(divisors)
            x = self.term(depth, dim // n)
            if op == "TensorProd":
                return self.make(op, x, self.term(depth, n), dim=dim)
            return self.make(op, x, params=(n,), dim=dim)
        x = self.term(depth, int(dim**0.5) if op == "Diag" else dim)
        return self.make(op, x, dim=dim)

    def special(self, depth: int, dim: int) -> Expr:
        """Selections, remainders, sums of blocks, tensors."""
        op = self.pick(
            words("""
                IfElse Where Clamp Mod BlockSums SumOfBlocks Diagonal Kron TensorDot""")
        )
        if op in ("IfElse", "Where"):
            condition = self.operand(depth, dim)
            if self.chance(0.5):
                name = self.pick(("LessThan", "LessOrEqual"))
                other = self.operand(0, condition.dim)
                condition = self.make(name, condition, other, dim=max(condition.dim, other.dim))
            operands = [condition, self.term(depth, dim), self.operand(depth, dim)]
            return self.make(op, *operands, dim=dim)
        if op == "Clamp":
            low = self.pick((-0.5, 0.25))
            limits = [Expr("Number", params=(low,)), Expr("Number", params=(low + 0.5,))]
            if self.chance(0.4):
                limits = [self.operand(depth, dim), self.operand(depth, dim)]
            return self.make(op, self.term(depth, dim), *limits, dim=dim)
        if op == "Mod":
            modulus = self.positive(self.operand(0, dim))
            offset = Expr("Number", params=(self.pick((0, -0.5)),))
            return self.make(op, self.term(depth, dim), modulus, offset, dim=dim)
        if op in ("BlockSums", "SumOfBlocks"):
            n = self.pick((2, 3))
            params = (n,) if op == "SumOfBlocks" else (dim,)
            return self.make(op, self.term(depth, n * dim), params=params, dim=dim)
        if op == "Diagonal" and dim <= 5:
            return self.make(op, self.term(depth, dim * dim), dim=dim)
        if op == "Kron" and dim % 2 == 0:
            x, y = self.term(depth, 2), self.term(depth, dim // 2)
            return self.make(op, x, y, params=((1, 2), (dim // 2, 1)), dim=dim)
        if op == "TensorDot" and dim <= 8:
            x, y = self.term(depth, 6), self.term(depth, 3 * dim)
            params = ((2, 3), (3, dim), (1,), (0,), (0, 1))
            return self.resized(self.make(op, x, y, params=params, dim=2 * dim), dim)
        return self.two(depth, dim)

    def derivative(self, op: str, depth: int, dim: int = 1) -> Expr:
        """A derivative of a formula with respect to a variable of fitting dimension."""
        variables = [x for x in self.leaves if not x.is_complex and x.dim < 9]
        if op == "Grad":
            variables = [x for x in variables if x.dim == dim]
        if not variables or depth < 1 or self.wild:
            return self.term(depth - 1, dim)
        v = self.pick(variables)
        if op == "Laplacian":
            return self.make(op, self.term(depth - 1, 1), v, dim=1)
        if op == "Divergence":
            return self.make(op, self.term(depth, v.dim), v, dim=1)
        width = dim if op == "Diff" else int(self.pick((1, 2, 3)))
        f = self.term(depth, width)
        other = self.variable(v.dim if op == "Diff" else width)
        return self.make(op, f, v, other, dim=dim)

    def of_pairs(self, f: Expr, given: Any) -> Expr:
        """The formula, with a variable of each index that it lacks."""
        kinds = {given[k].kind for k in leaves_of(f)}
        for k, argument in enumerate(given):
            if argument.kind not in kinds and argument.kind != "p" and not argument.is_complex:
                kinds.add(argument.kind)
                g = self.resized(self.leaves[k], f.dim if self.chance(0.5) else 1)
                f = self.make(self.pick(("Add", "Mult", "Subtract")), f, g, dim=f.dim)
        return f

    def whole(self, depth: int, dim: int, given: Any) -> Expr:
        """The formula of a program: most have both indices."""
        if any(x.is_complex for x in self.leaves):
            f = self.from_complex(depth, min(dim, 5))
            f = self.resized(f, dim) if dim == 1 else f
        else:
            f = self.term(depth, dim)
        return self.of_pairs(f, given) if self.chance(0.8) else f

    # -- complex numbers ------------------------------------------------------------------------

    def complex_term(self, depth: int, n: int) -> Expr:
        """A vector of n complex numbers."""
        fitting = [x for x in self.leaves if x.is_complex and x.dim == 2 * n]
        if depth <= 0 or self.chance(0.1):
            return self.pick(fitting) if fitting else self.to_complex("Real2Complex", depth, n)
        op = self.pick(
            words("""
                ComplexAdd ComplexSubtract ComplexMult ComplexMult ComplexDivide Conj ComplexExp
    ComplexExp1j Real2Complex Imag2Complex ComplexRealScal Leaf""")
        )
        if op == "Leaf":
            return self.complex_term(0, n)
        if op in ("ComplexExp1j", "Real2Complex", "Imag2Complex"):
            return self.to_complex(op, depth - 1, n)
        x = self.complex_term(depth - 1, n)
        if op == "ComplexRealScal":
            return self.complex_made(op, self.term(depth - 1, 1), x)
        if op in ("Conj", "ComplexExp"):
            return self.complex_made(op, x)
        y = self.complex_term(depth - 1, n)
        if op == "ComplexDivide":
            one = self.complex_made("Real2Complex", self.positive(self.variable(n)))
            y = self.complex_made(
                "ComplexAdd", one, self.complex_made("Imag2Complex", self.variable(n))
            )
        return self.complex_made(op, x, y)

    def to_complex(self, op: str, depth: int, n: int) -> Expr:
        return self.complex_made(op, self.term(depth, n))

    def complex_made(self, op: str, *args: Expr) -> Expr:
        n = max(x.dim if x.is_complex else 2 * x.dim for x in args)
        found = Expr(op, args, (), n, True)
        values = self.dense(found)
        if not self.wild and not bool((values.abs() < 20).all()):
            real = Expr("Sin", (Expr("ComplexReal", (found,), (), n // 2),), (), n // 2)
            return Expr("Real2Complex", (real,), (), n, True)
        return found

    def from_complex(self, depth: int, n: int) -> Expr:
        """A vector of n real numbers from complex ones."""
        op = self.pick(
            ("ComplexReal", "ComplexImag", "ComplexAbs", "ComplexSquareAbs", "ComplexAngle")
        )
        z = self.complex_term(depth, n)
        if self.chance(0.3):
            z = Expr("ComplexSum", (z,), (), 2, True)
        return self.make(op, z, dim=z.dim // 2)


# ----- arguments ---------------------------------------------------------------------------------

SPECIAL = (np.inf, -np.inf, np.nan, 0.0, -0.0, 1e-40, -1e-310, 3e38, -1e300, 65504.0, 1e-7)
LAYOUTS = ("plain", "plain", "fortran", "sliced", "reversed", "repeated", "offset")


def drawn_variables(rng: Rng, reach: str) -> tuple[Argument, ...]:
    """Kinds and dimensions: at least one argument of each index."""
    kinds = ["i", "j", *(str(rng.choice(list("ijp"))) for _ in range(rng.integers(0, 4)))]
    kinds = [kinds[k] for k in rng.permutation(len(kinds))]
    common = DIMS[rng.integers(len(DIMS))]
    with_complex = rng.random() < 0.08
    found: list[Argument] = []
    for kind in kinds:
        dim = common if rng.random() < 0.6 else DIMS[rng.integers(len(DIMS))]
        is_complex = with_complex and len(found) > 0 and rng.random() < 0.6
        dim = min(dim, 5) * 2 if is_complex else dim
        found.append(Argument(kind, dim, (), reach, "plain", int(rng.integers(2**31)), is_complex))
    return tuple(found)


def drawn_arguments(rng: Rng, given: tuple[Argument, ...], reach: str) -> tuple[Argument, ...]:
    """Arrays for these variables: batches, numbers, layouts; some are the same array."""
    whole = BATCHES[rng.integers(len(BATCHES))] if rng.random() < 0.25 else ()
    first = next(k for k, argument in enumerate(given) if argument.kind != "p")
    common = [reach, "whole", "special"] if reach != "large" else [reach, "far", "unit"]
    common_kind = str(rng.choice(common, p=[0.65, 0.15, 0.2]))
    found: list[Argument] = []
    for k, argument in enumerate(given):
        cut = 0 if k == first else int(rng.integers(len(whole) + 1))
        batch = tuple(1 if k != first and rng.random() < 0.3 else n for n in whole[cut:])
        kind = "unit" if common_kind == "special" and rng.random() < 0.4 else common_kind
        layout = LAYOUTS[rng.integers(len(LAYOUTS))]
        fields: dict[str, Any] = {"batch": batch, "numbers": kind, "layout": layout}
        new = dataclasses.replace(argument, **fields, seed=int(rng.integers(2**31)))
        like = [n for n, a in enumerate(found) if a.same is None and _shape(a) == _shape(new)]
        if like and rng.random() < 0.08:
            new = dataclasses.replace(found[like[0]], same=like[0])
        found.append(new)
    return tuple(found)


def _shape(a: Argument) -> tuple[Any, ...]:
    return a.kind, a.dim, a.batch, a.is_complex


def numbers(argument: Argument, count: int, dtype: str) -> Any:
    """The values of an argument, (..., count, dim) or (..., dim), in float64."""
    rng = np.random.default_rng(argument.seed)
    shape = (*argument.batch, *(() if argument.kind == "p" else (count,)), argument.dim)
    kind = argument.numbers
    if kind == "whole":
        return rng.integers(-3, 4, shape).astype(float)
    found = rng.uniform(-1, 1, shape)
    if kind == "large":
        found = found * 30
    if kind == "far":
        found = found + (8 if dtype in ("float16", "bfloat16") else 100)
    if kind == "special":
        where = rng.random(shape) < rng.choice([0.02, 0.2, 0.5])
        chosen = rng.choice(SPECIAL if rng.random() < 0.7 else [0.0, -0.0], shape)
        found = np.where(where, chosen, found)
    if argument.layout == "repeated" and argument.kind != "p" and count:
        found = np.broadcast_to(found[..., :1, :], shape).copy()
    return found


def laid_out(x: Any, layout: str, library: str) -> Any:
    """The array with other strides, and the same values."""
    if layout == "fortran" and x.ndim > 1:
        order = tuple(range(x.ndim))[::-1]
        return (
            x.permute(order).contiguous().permute(order)
            if library == "torch"
            else np.ascontiguousarray(x.transpose(order)).transpose(order)
        )
    if layout in ("sliced", "offset"):
        step, start = (3, 1) if layout == "sliced" else (1, 2)
        shape = (*x.shape[:-1], x.shape[-1] * step + 3)
        wide = (
            torch.full(shape, 7.0, dtype=x.dtype)
            if library == "torch"
            else np.full(shape, 7.0, x.dtype)
        )
        view = wide[..., start : start + x.shape[-1] * step : step]
        view[...] = x
        return view
    if layout == "reversed" and library == "numpy":
        return x[..., ::-1].copy()[..., ::-1]
    if layout == "reversed":
        return torch.cat([x, x], -1)[..., x.shape[-1] :]
    if layout == "repeated" and x.ndim > 1 and x.shape[-2]:
        row = x[..., :1, :]
        return row.expand(x.shape) if library == "torch" else np.broadcast_to(row, x.shape)
    return x


def arrays(program: Program) -> list[Any]:
    """The arguments as the program's library holds them, real ones in any layout."""
    found: list[Any] = []
    for argument in program.arguments:
        if argument.same is not None:
            found.append(found[argument.same])
            continue
        count = program.rows if argument.kind == "i" else program.columns
        values = numbers(argument, count, program.dtype)
        with np.errstate(over="ignore"):
            if program.library == "torch":
                x = torch.from_numpy(values).to(getattr(torch, program.dtype))
            else:
                x = values.astype(program.dtype)
        plain = argument.kind == "p" or argument.is_complex
        layout = "plain" if plain and argument.layout == "repeated" else argument.layout
        found.append(x if argument.is_complex else laid_out(x, layout, program.library))
    return found


# ----- whole programs ----------------------------------------------------------------------------


VARIANTS = 4


def draw(seed: int) -> Program:
    """The program of a seed: `VARIANTS` seeds share a formula, on other arrays."""
    rng = np.random.default_rng([seed // VARIANTS, 1])
    reach = str(rng.choice(["unit", "large"], p=[0.75, 0.25]))
    variables = drawn_variables(rng, reach)
    probe = [table(torch.from_numpy(numbers(a, 4, "float64")), a.kind) for a in variables]
    leaves = [Expr("Leaf", (), (k,), a.dim, a.is_complex) for k, a in enumerate(variables)]
    drawing = Drawing(rng, leaves, probe, wild=rng.random() < 0.15)
    reduction = str(rng.choice(PLAIN + SCALAR))
    if rng.random() < 0.25:
        reduction = str(rng.choice(["Sum", "LogSumExp", "SumSoftMaxWeight", "Min", "KMin"]))
    weighted = reduction in WEIGHTED or (reduction == "LogSumExp" and rng.random() < 0.4)
    dim = 1 if weighted or reduction in SCALAR else DIMS[rng.integers(len(DIMS))]
    depth = int(rng.choice([1, 2, 3, 4], p=[0.2, 0.35, 0.35, 0.1]))
    formula = drawing.whole(depth, dim, variables)
    weight = None
    if weighted:
        weight = drawing.term(min(depth, 2), DIMS[rng.integers(len(DIMS))])
        if reduction == "LogSumExp" or rng.random() < 0.7:
            weight = drawing.positive(weight)
    common = _common(rng, reduction, formula.dim)
    rng = np.random.default_rng([seed, 2])
    given = drawn_arguments(rng, variables, reach)
    return Program(
        seed=seed, arguments=given, formula=formula, weight=weight, reduction=reduction,
        **{**common, **_own(rng, common)},
    )  # fmt: skip


def _common(rng: Rng, reduction: str, dim: int) -> dict[str, Any]:
    """What machine code depends on: dtype, settings, derivatives."""
    dtype = str(
        rng.choice(["float32", "float64", "float16", "bfloat16"], p=[0.45, 0.4, 0.09, 0.06])
    )
    settings: dict[str, Any] = {}
    for _ in range(int(rng.choice([0, 1, 2], p=[0.6, 0.3, 0.1]))):
        settings |= SETTINGS[rng.integers(len(SETTINGS))]
    options: dict[str, Any] = {}
    if reduction in ADDITIVE and rng.random() < 0.15:
        options = dict([ACCURACY[rng.integers(len(ACCURACY))]])
    order = int(rng.choice([0, 1, 2], p=[0.45, 0.35, 0.2]))
    if reduction in NO_GRADIENT or (reduction in SELECTING and dim > 4):
        order = 0  # selections compile a kernel for each component
    if dtype in ("float16", "bfloat16"):
        order = min(order, 1)
    return {
        "axis": int(rng.integers(2)),
        "length": int(rng.choice([1, 2, 3, 5, 9, 20, 33])) if "KMin" in reduction else 0,
        "dtype": dtype,
        "order": order,
        "settings": settings,
        "options": options,
        "ways": (("string",), ("lazy",), ("string", "lazy"))[rng.choice(3, p=[0.4, 0.45, 0.15])],
        "style": int(rng.integers(2**31)),
    }


def _own(rng: Rng, common: dict[str, Any]) -> dict[str, Any]:
    """What machine code is told at a call: sizes, library, ranges."""
    numpy = common["dtype"] != "bfloat16" and rng.random() < (0.2 if common["order"] else 0.5)
    few = rng.integers(len(SIZES), size=(2, 2)).min(0)
    sizes = [int(SIZES[k]) for k in few]
    if rng.random() < 0.04:
        sizes = [int(rng.choice([1, 3, 7])), int(rng.choice([700, 2500]))]
        sizes = sizes[:: 1 if common["axis"] else -1]
    return {
        "rows": sizes[0],
        "columns": sizes[1],
        "library": "numpy" if numpy else "torch",
        "blocks": int(rng.integers(1, 2**31)) if rng.random() < 0.1 else 0,
        "symbols": bool(rng.random() < 0.15),
        **({"order": 0} if numpy else {}),
    }
