"""Formulas and reductions as dense torch programs on the tables of all pairs.

An oracle for whole programs: it shares nothing with pairfold but the names of operations, and torch
differentiates it. `Rounding` multiplies every value by 1 + a small random number, in derivatives
too: how far results then spread is how far rounding may take a program that is right.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

Tensor = Any


@dataclass(frozen=True, eq=False)
class Expr:
    """A formula: an operation, its operands and whole numbers; `dim` counts real components.

    "Leaf" has the number of an argument as parameter, "Number" its value.
    """

    op: str
    args: tuple[Expr, ...] = ()
    params: tuple[Any, ...] = ()
    dim: int = 1
    is_complex: bool = False


def words(text: str) -> list[str]:
    """The words of a text."""
    return text.split()


class Rounding:
    """Random relative changes of at most `size`; none of what is exact on whole numbers."""

    def __init__(
        self, size: float = 0.0, seed: int = 0, whole: bool = False, order: Tensor | None = None
    ) -> None:
        self.size, self.whole = size, whole
        self.order = order  # of the selected columns, if not the one of the rounded values
        self.overflow: Tensor = torch.tensor(
            False
        )  # the pairs (..., M, N) where a number does not fit
        self.source = torch.Generator().manual_seed(seed)

    def __call__(self, x: Tensor) -> Tensor:
        if not self.size:
            return x
        return x * (1 + self.slight(x))

    def slope(self, x: Tensor) -> Tensor:
        """The same values, whose derivatives are changed."""
        if not self.size:
            return x
        return torch.where(x.isfinite(), x + self.slight(x) * (x - x.detach()), x)

    def total(self, x: Tensor) -> Tensor:
        """The sum over columns: terms that are alike may all be rounded to the same side."""
        found = self(x).sum(-2)
        if not self.size or (self.whole and bool((x == x.round()).all())):
            return found
        terms = torch.where(x.isfinite(), x, 0.0).detach().abs().sum(-2)
        return found + self.slight(found) * terms * min(x.shape[-2] / 256, 1.0)

    def slight(self, x: Tensor) -> Tensor:
        """Small numbers of either sign, of the shape of x."""
        u = torch.rand(x.shape, generator=self.source, dtype=torch.float64) * 2 - 1
        return (self.size * (u + u.sign()) / 2).to(x.dtype)


# ----- operations --------------------------------------------------------------------------------


def _where_zero(x: Tensor, function: Callable[[Tensor], Tensor], at_zero: float) -> Tensor:
    """A function whose value at 0 is given, and whose derivatives there are 0."""
    zero = x == 0
    return torch.where(zero, at_zero, function(torch.where(zero, 1.0, x)))


def _sqrt(x: Tensor) -> Tensor:
    return _where_zero(x, torch.sqrt, 0.0)


def _first(x: Tensor, sign: int) -> Tensor:
    """The number of the largest component of sign * x: a NaN in front stays, others never win."""
    found = torch.zeros_like(x[..., :1], dtype=torch.int64)
    best = sign * x[..., :1].detach()
    for k in range(1, x.shape[-1]):
        more = sign * x[..., k : k + 1].detach() > best
        found = torch.where(more, k, found)
        best = torch.where(more, sign * x[..., k : k + 1].detach(), best)
    return found


def _powf(x: Tensor, y: Tensor) -> Tensor:
    return torch.pow(*torch.broadcast_tensors(x, y))


def _atan2(r: Rounding, y: Tensor, x: Tensor) -> Tensor:
    """The angle, whose derivative at the origin is NaN: torch takes 0.

    The sign of a zero, and so of an angle of 180 degrees, is a matter of rounding.
    """
    if r.size:
        x, y = torch.broadcast_tensors(x, y)
        origin, side = (y == 0) & (x == 0), r.slight(x)
        y = torch.where((y == 0) & (x <= 0), (side * x + 0.0 * side).detach(), y)
        x = torch.where(origin, 0.0 * r.slight(x), x)
    origin = (y == 0) & (x == 0)
    nothing = torch.where(origin, 0.0 * (y * y + x * x).sqrt(), 0.0)
    return torch.atan2(*torch.broadcast_tensors(y, x)) + nothing.to(y.dtype)


def _round(x: Tensor, digits: int) -> Tensor:
    scale = 10.0**digits
    return x.sign() * (x.abs() * scale + 0.5).floor() / scale


def _number(x: Tensor) -> Tensor:
    """The same values, NaN among them a constant."""
    return torch.where(x.isnan(), x.detach(), x)


def _clamp(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return _where(x < a, a, _where(x > b, b, _number(x)))


def _mod(r: Rounding, x: Tensor, n: Tensor, o: Tensor) -> Tensor:
    """The remainder in [o, o+n): where rounding leads out of it, it is o.

    Of numbers so large that rounding moves them by more than n it may be any number in there.
    """
    count = (x - o) / n
    inside = x - n * count.floor()
    place = (inside - o) / n
    found = inside + torch.where((place < 0) | (place >= 1), o - inside, 0.0).detach()
    if not r.size:
        return found
    anywhere = o + n * (r.slight(found) / r.size + 1) / 2
    return found + torch.where(r.size * count.abs() > 1, anywhere - found, 0.0).detach()


class _Tanh(torch.autograd.Function):
    """The hyperbolic tangent, whose slope is 1 less a rounded square."""

    @staticmethod
    def forward(ctx: Any, r: Rounding, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        ctx.rounding = r
        return x.tanh()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[None, Tensor]:
        (x,) = ctx.saved_tensors
        r = ctx.rounding
        return None, r(g * (1 - r(_Tanh.apply(r, x) ** 2)))


def _angle(r: Rounding, z: Tensor) -> Tensor:
    return _atan2(r, z[..., 1::2], z[..., ::2])


def _complex_exp(z: Tensor) -> Tensor:
    size, angle = z[..., ::2].exp(), z[..., 1::2]
    return torch.stack([size * angle.cos(), size * angle.sin()], -1).flatten(-2)


def _complex_abs(r: Rounding, z: Tensor) -> Tensor:
    return _sqrt(r.slope(r(z[..., ::2] ** 2) + r(z[..., 1::2] ** 2)))


def _sinc(x: Tensor) -> Tensor:
    small = x.abs() < 1
    far = torch.where(small, 1.0, x)
    return torch.where(small, _bessel(torch.where(small, x, 0.0), 0), far.sin() / far)


def _bessel(x: Tensor, n: int) -> Tensor:
    """The power series of the spherical Bessel function over x^n; for |x| of at most about 10."""
    term = torch.ones_like(x) / math.prod(range(1, 2 * n + 2, 2))
    found = term
    for k in range(1, 40):
        term = term * (-0.5 * x * x) / (k * (2 * n + 2 * k + 1))
        found = found + term
    return found


def _lead(*tensors: Tensor) -> list[Tensor]:
    """All axes but the last made to agree."""
    shape = torch.broadcast_shapes(*(x.shape[:-1] for x in tensors))
    return [x.expand(*shape, x.shape[-1]) for x in tensors]


def _concat(x: Tensor, y: Tensor) -> Tensor:
    return torch.cat(_lead(x, y), -1)


def _placed(x: Tensor, start: int, n: int) -> Tensor:
    return torch.nn.functional.pad(x, (start, n - start - x.shape[-1]))


def _sum(r: Rounding, x: Tensor, axis: int = -1) -> Tensor:
    """A sum of rounded terms, the axis kept."""
    return r(x).sum(axis, keepdim=True)


def _matvec(r: Rounding, a: Tensor, b: Tensor) -> Tensor:
    return _sum(r, a.unflatten(-1, (-1, b.shape[-1])) * b.unsqueeze(-2)).squeeze(-1)


def _vecmat(r: Rounding, b: Tensor, a: Tensor) -> Tensor:
    return _sum(r, a.unflatten(-1, (b.shape[-1], -1)) * b.unsqueeze(-1), -2).squeeze(-2)


def _outer(f: Tensor, g: Tensor) -> Tensor:
    return (f.unsqueeze(-1) * g.unsqueeze(-2)).flatten(-2)


def _kron(f: Tensor, g: Tensor, dimf: Sequence[int], dimg: Sequence[int]) -> Tensor:
    f, g = f.unflatten(-1, tuple(dimf)), g.unflatten(-1, tuple(dimg))
    rank = len(dimf)
    left, right = "abcdef"[:rank], "uvwxyz"[:rank]
    out = "".join(a + b for a, b in zip(left, right, strict=True))
    return torch.einsum(f"...{left},...{right}->...{out}", f, g).flatten(-2 * rank)


def _tensordot(
    r: Rounding,
    f: Tensor,
    g: Tensor,
    dimf: Sequence[int],
    dimg: Sequence[int],
    contf: Sequence[int],
    contg: Sequence[int],
    permute: Sequence[int] = (),
) -> Tensor:
    names = iter("abcdefghijklmnop")
    left = [next(names) for _ in dimf]
    right = [next(names) for _ in dimg]
    for a, b in zip(contf, contg, strict=True):
        right[b] = left[a]
    kept = [s for k, s in enumerate(left) if k not in contf]
    kept += [s for k, s in enumerate(right) if k not in contg]
    out = list(kept)
    for place, to in enumerate(permute):
        out[to] = kept[place]
    f, g = f.unflatten(-1, tuple(dimf)), g.unflatten(-1, tuple(dimg))
    out += [left[a] for a in contf]
    found = torch.einsum(f"...{''.join(left)},...{''.join(right)}->...{''.join(out)}", f, g)
    for _ in contf:
        found = _sum(r, found).squeeze(-1)
        out.pop()
    return found.flatten(-len(out)) if out else found.unsqueeze(-1)


def _weighted(r: Rounding, s: Tensor, x: Tensor) -> Tensor:
    return _sum(r, s * x * x if s.shape[-1] in (1, x.shape[-1]) else x * _matvec(r, s, x))


def _soft_dtw(r: Rounding, x: Tensor, y: Tensor, c: Tensor) -> Tensor:
    x, y, c = _lead(x, y, c)
    n, m, c = x.shape[-1], y.shape[-1], c[..., 0]
    best: dict[tuple[int, int], Tensor] = {}
    for k in range(n):
        for j in range(m):
            cost = r(r(x[..., k] - y[..., j]) ** 2)
            before = [best[p] for p in ((k - 1, j), (k, j - 1), (k - 1, j - 1)) if p in best]
            if before:
                lengths = torch.stack(before, -1).detach()
                near = torch.where(c < 0, lengths.amax(-1), lengths.amin(-1))
                stack = r(torch.stack([(near - b) / c for b in before], -1))
                cost = cost + near - r(c * stack.logsumexp(-1))
            best[k, j] = cost
    return best[n - 1, m - 1].unsqueeze(-1)


def _where(condition: Tensor, x: Tensor, y: Tensor) -> Tensor:
    return torch.where(condition, *torch.broadcast_tensors(x, y))


def _truth(x: Tensor, like: Tensor) -> Tensor:
    return x.to(like.dtype)


def _split(z: Tensor) -> Tensor:
    return z.unflatten(-1, (-1, 2))


def _halves(z: Tensor) -> Tensor:
    return torch.view_as_complex(_split(z).contiguous())


def _pairs(z: Tensor) -> Tensor:
    return torch.view_as_real(z).flatten(-2)


def _on_complex(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda *z: _pairs(function(*map(_halves, z)))


OPERATIONS: dict[str, Callable[..., Tensor]] = {
    "Add": lambda x, y: x + y,
    "Subtract": lambda x, y: x - y,
    "Minus": lambda x: -x,
    "Mult": lambda x, y: x * y,
    "Divide": lambda x, y: x / y,
    "Inv": lambda x: 1 / x,
    "Square": lambda x: x * x,
    "Sqrt": _sqrt,
    "Rsqrt": lambda x: _where_zero(x, torch.rsqrt, 0.0),
    "Pow": lambda x, m: torch.pow(x, m),
    "Powf": _powf,
    "Exp": torch.exp,
    "Log": torch.log,
    "Sin": torch.sin,
    "Cos": torch.cos,
    "Tanh": _Tanh.apply,
    "Abs": torch.abs,
    "Sigmoid": torch.sigmoid,
    "Softplus": lambda x: torch.logaddexp(x, torch.zeros_like(x)),
    "Erf": torch.erf,
    "Asinh": torch.asinh,
    "Maximum": lambda x, y: torch.maximum(*torch.broadcast_tensors(x, y)),
    "Minimum": lambda x, y: torch.minimum(*torch.broadcast_tensors(x, y)),
    "Sign": lambda x: torch.where(x.isnan(), 0.0, x.sign()),
    "Step": lambda x: torch.where(x < 0, 0.0, 1.0).to(x.dtype),
    "ReLU": lambda x: torch.where(x < 0, 0.0, x),
    "LessThan": lambda x, y: _truth(x < y, x),
    "LessOrEqual": lambda x, y: _truth(x <= y, x),
    "Equal": lambda x, y: _truth(x == y, x),
    "NotEqual": lambda x, y: _truth(x != y, x),
    "IfElse": lambda c, x, y: _where(c >= 0, x, y),
    "Where": lambda m, x, y: _where(m != 0, x, y),
    "Clamp": _clamp,
    "ClampInt": lambda x, a, b: torch.where(x < a, float(a), torch.where(x > b, float(b), x)),
    "Asin": torch.asin,
    "Acos": torch.acos,
    "Atan": torch.atan,
    "Atan2": _atan2,
    "Floor": torch.floor,
    "Round": _round,
    "Mod": _mod,
    "SinXDivX": _sinc,
    "BesselDivX": _bessel,
    "XLogX": lambda x: _where_zero(x, lambda x: x * x.log(), 0.0),
    "Sum": _sum,
    "SumT": lambda x, n: x.expand(*x.shape[:-1], n),
    "Scalprod": lambda r, x, y: _sum(r, x * y),
    "SqNorm2": lambda r, x: _sum(r, x * x),
    "Norm2": lambda r, x: _sqrt(r.slope(_sum(r, x * x))),
    "SqDist": lambda r, x, y: _sum(r, r(x - y) ** 2),
    "Normalize": lambda r, x: x * _where_zero(r.slope(_sum(r, x * x)), torch.rsqrt, 0.0),
    "WeightedSqNorm": _weighted,
    "WeightedSqDist": lambda r, s, x, y: _weighted(r, s, r(x - y)),
    "Concat": _concat,
    "Extract": lambda x, start, n: x[..., start : start + n],
    "ExtractT": _placed,
    "Elem": lambda x, m: x[..., m : m + 1],
    "ElemT": lambda x, n, m: _placed(x, m, n),
    "Max": lambda x: x.gather(-1, _first(x, 1)),
    "Min": lambda x: x.gather(-1, _first(x, -1)),
    "ArgMax": lambda x: _first(x, 1).to(x.dtype),
    "ArgMin": lambda x: _first(x, -1).to(x.dtype),
    "OneHot": lambda x, n: ((x + 0.5).floor() == torch.arange(n, dtype=x.dtype)).to(x.dtype),
    "MatVecMult": _matvec,
    "VecMatMult": _vecmat,
    "TensorProd": _outer,
    "TensorDot": _tensordot,
    "Kron": _kron,
    "Tile": lambda x, n: x.repeat(*[1] * (x.dim() - 1), n),
    "Stretch": lambda x, n: x.repeat_interleave(n, -1),
    "SumOfBlocks": lambda r, x, n: r(x).unflatten(-1, (n, -1)).sum(-2),
    "BlockSums": lambda r, x, n: r(x).unflatten(-1, (n, -1)).sum(-1),
    "Diag": lambda x: torch.diag_embed(x).flatten(-2),
    "Diagonal": lambda x: x.unflatten(-1, (math.isqrt(x.shape[-1]), -1)).diagonal(dim1=-2, dim2=-1),
    "SoftDTW_SqDist": _soft_dtw,
    "Complex": lambda x, y: torch.stack(_lead(x, y), -1).flatten(-2),
    "ComplexReal": lambda z: z[..., ::2],
    "ComplexImag": lambda z: z[..., 1::2],
    "Real2Complex": lambda x: torch.stack([x, torch.zeros_like(x)], -1).flatten(-2),
    "Imag2Complex": lambda x: torch.stack([torch.zeros_like(x), x], -1).flatten(-2),
    "ComplexExp1j": lambda x: torch.stack([x.cos(), x.sin()], -1).flatten(-2),
    "Conj": _on_complex(torch.conj_physical),
    "ComplexExp": _complex_exp,
    "ComplexAdd": lambda x, y: (_split(x) + _split(y)).flatten(-2),
    "ComplexSubtract": lambda x, y: (_split(x) - _split(y)).flatten(-2),
    "ComplexMult": _on_complex(torch.multiply),
    "ComplexDivide": _on_complex(lambda x, y: x * y.conj() / (y * y.conj()).real),
    "ComplexRealScal": lambda x, z: x * z,
    "ComplexSum": lambda r, z: r(z).unflatten(-1, (-1, 2)).sum(-2),
    "ComplexAbs": _complex_abs,
    "ComplexSquareAbs": lambda r, z: r(z[..., ::2] ** 2) + r(z[..., 1::2] ** 2),
    "ComplexAngle": _angle,
}

# What gives whole numbers, or operands themselves, for operands that are whole numbers.
_WHOLE = set(
    words("""
        Number Leaf Add Subtract Minus Mult Square Abs Sign Step ReLU Maximum Minimum LessThan
    LessOrEqual Equal
    NotEqual IfElse Where Clamp ClampInt Floor Sum SumT Scalprod SqNorm2 SqDist Concat Extract
    ExtractT Elem ElemT Max Min ArgMax ArgMin OneHot MatVecMult VecMatMult TensorProd
    TensorDot Kron Tile Stretch SumOfBlocks BlockSums Diag Diagonal WeightedSqNorm
    WeightedSqDist""")
)
_ROUNDLESS = set(
    words("""
        Leaf Minus Abs Sign Step ReLU Maximum Minimum LessThan LessOrEqual Equal NotEqual IfElse
    Where Clamp
        ClampInt
    Floor SumT Concat Extract ExtractT Elem ElemT Max Min ArgMax ArgMin OneHot Tile Stretch
    Diag Diagonal Complex ComplexReal ComplexImag Real2Complex Imag2Complex Conj""")
)
# Sums, angles and others that are told how to round what is inside.
_SUMS = set(
    words("""
        Sum Scalprod SqNorm2 Norm2 SqDist Normalize WeightedSqNorm WeightedSqDist MatVecMult
    VecMatMult TensorDot SumOfBlocks BlockSums ComplexSum ComplexAbs ComplexSquareAbs ComplexAngle
    Atan2 SoftDTW_SqDist Tanh Mod""")
)
DERIVATIVES = ("Grad", "Diff", "GradMatrix", "Divergence", "Laplacian")


_COMPARISONS = set(words("LessThan LessOrEqual Equal NotEqual OneHot Step"))
_OF_TRUTHS = set(words("SumT Elem Extract Concat Max Min Square Abs Mult"))


def counts(f: Expr) -> bool:
    """Whether a formula is made of truth values and sums of them: as a condition it is not 0."""
    if f.op in ("Add", "Sum"):
        return all(map(counts, f.args))
    return _is_truth(f)


def _is_truth(f: Expr) -> bool:
    if f.op == "Subtract" and f.args[0].op == "Number":
        return f.args[0].params[0] == 1 and _is_truth(f.args[1])
    if f.op == "IfElse":
        return all((x.op == "Number" and x.params[0] in (0, 1)) or _is_truth(x) for x in f.args[1:])
    return f.op in _COMPARISONS or (f.op in _OF_TRUTHS and all(map(_is_truth, f.args)))


# ----- formulas ----------------------------------------------------------------------------------


class Dense:
    """Formulas on arguments of shape (..., M or 1, N or 1, D), each part computed once."""

    def __init__(self, leaves: Sequence[Tensor], rounding: Rounding) -> None:
        self.leaves, self.rounding = list(leaves), rounding
        self.known: dict[int, tuple[Expr, Tensor]] = {}  # the formula too: numbers are used again
        self.exact: dict[int, bool] = {}

    def __call__(self, f: Expr) -> Tensor:
        if id(f) not in self.known:
            self.known[id(f)] = f, self._value(f)
        return self.known[id(f)][1]

    def is_exact(self, f: Expr) -> bool:
        """Whether every number on the way to f is a whole one, small enough for any dtype."""
        if id(f) not in self.exact:
            whole = self._on_whole(f)
            if whole:
                values = self(f).detach()
                whole = bool((values.round() == values).all() and (values.abs() < 2**20).all())
            self.exact[id(f)] = whole
        return self.exact[id(f)]

    def _value(self, f: Expr) -> Tensor:
        if f.op == "Leaf":
            return self.leaves[f.params[0]]
        if f.op == "Number":
            like = self.leaves[0]
            return torch.full((1,) * like.dim(), float(f.params[0]), dtype=like.dtype)
        if f.op in DERIVATIVES:
            return self.rounding(self._derivative(f))
        exact = f.op in _ROUNDLESS or (self.rounding.whole and self._on_whole(f))
        rounding = Rounding() if exact else self.rounding
        told = (rounding,) if f.op in _SUMS else ()
        operands = [self(x) for x in f.args]  # derivatives by each are rounded on their own
        operands = [rounding.slope(x) if x.requires_grad else x for x in operands]
        name = "Where" if f.op == "IfElse" and counts(f.args[0]) else f.op
        found = rounding(OPERATIONS[name](*told, *operands, *f.params))
        if not self.rounding.size and bool(found.isinf().any()):
            made = found.isinf().any(-1)
            given = torch.stack([x.isinf().any(-1).expand(made.shape) for x in operands]).any(0)
            self.rounding.overflow = self.rounding.overflow | (made & ~given)
        return found

    def _on_whole(self, f: Expr) -> bool:
        return f.op in _WHOLE and all(map(self.is_exact, f.args))

    def _derivative(self, f: Expr) -> Tensor:
        """A derivative with respect to a variable: every pair has a copy of its own."""
        inner, variable = f.args[0], f.args[1]
        place = variable.params[0]
        shape = torch.broadcast_shapes(*(x.shape[:-1] for x in self.leaves))
        own = self.leaves[place].expand(*shape, variable.dim)
        own = own.clone() if own.requires_grad else own.clone().requires_grad_()
        leaves = [own if k == place else x for k, x in enumerate(self.leaves)]
        value = Dense(leaves, self.rounding)(inner).expand(*shape, inner.dim)

        def pulled(e: Tensor) -> Tensor:
            return _grad(value, own, e.expand(value.shape))

        units = [
            torch.eye(inner.dim, dtype=own.dtype)[k].expand(value.shape) for k in range(inner.dim)
        ]
        if f.op == "Grad":
            return pulled(self(f.args[2]))
        if f.op == "Diff":
            e = torch.zeros_like(value).requires_grad_()
            return _grad(pulled(e), e, self(f.args[2]).expand(own.shape))
        if f.op == "GradMatrix":
            return torch.cat([pulled(unit) for unit in units], -1)
        if f.op == "Divergence":
            return sum(pulled(unit)[..., k : k + 1] for k, unit in enumerate(units))
        first = pulled(units[0])
        ones = torch.ones_like(first[..., 0])
        parts = [_grad(first[..., k], own, ones)[..., k : k + 1] for k in range(own.shape[-1])]
        return sum(parts)


def _grad(y: Tensor, x: Tensor, e: Tensor) -> Tensor:
    if not y.requires_grad:
        return torch.zeros_like(x)
    (found,) = torch.autograd.grad(y, x, e, create_graph=True, allow_unused=True)
    return torch.zeros_like(x) if found is None else found


# ----- reductions --------------------------------------------------------------------------------
# Of F (..., R, C, D) over C; `met` (R, C) says which pairs count.


def _selected(r: Rounding, f: Tensor, met: Tensor, sign: int, length: int) -> tuple[Tensor, Tensor]:
    """The first `length` values of sign * F in order, and their columns; inf and 0 where none is.

    NaN and pairs that do not count are never selected.
    """
    bad = f.isnan() | ~met.unsqueeze(-1)
    rank = torch.where(bad, math.inf, sign * f.detach())
    if r.order is None:
        r.order = rank.sort(dim=-2, stable=True).indices[..., :length, :]
    order = r.order
    values, taken = f.gather(-2, order), rank.gather(-2, order) != math.inf
    values = torch.where(taken, values, sign * math.inf)
    places = torch.where(taken, order, 0)
    missing = (*f.shape[:-2], length - order.shape[-2], f.shape[-1])
    return (
        torch.cat([values, values.new_full(missing, sign * math.inf)], -2),
        torch.cat([places, places.new_zeros(missing)], -2),
    )


def _extreme(r: Rounding, f: Tensor, met: Tensor, sign: int) -> tuple[Tensor, Tensor]:
    values, places = _selected(r, f, met, sign, 1)
    return values.squeeze(-2), places.squeeze(-2)


def _listed(pair: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
    return tuple(x.squeeze(-1) if x.shape[-1] == 1 else x for x in pair)


def _terms(r: Rounding, f: Tensor, g: Tensor | None, met: Tensor) -> tuple[Tensor, Tensor]:
    """The largest exponent, kept finite and without derivative, and sum e^(F - top) G."""
    met = met.unsqueeze(-1)
    f = torch.where(met, f, -math.inf)
    if f.shape[-2] == 0:
        width = (f if g is None else g).shape[-1]
        top = f.new_full((*f.shape[:-2], f.shape[-1]), -math.inf)
        return top, f.new_zeros((*f.shape[:-2], width))
    top = torch.where(f.isnan(), -math.inf, f).detach().amax(-2)
    limit = torch.finfo(f.dtype).max
    wide = f if g is None else f.expand(torch.broadcast_shapes(f.shape, g.shape))
    share = (r.slope(wide) - top.clamp(-limit, limit).unsqueeze(-2)).exp()
    if g is not None:
        share = share * torch.where(met, g, 0.0)
    return top, r.slope(r.total(share))


def _log_sum_exp(r: Rounding, f: Tensor, g: Tensor | None, met: Tensor) -> Tensor:
    top, total = _terms(r, f, g, met)
    limit = torch.finfo(f.dtype).max
    return torch.where(total == 0, -math.inf, top.clamp(-limit, limit) + total.log())


def _soft_max(r: Rounding, f: Tensor, g: Tensor, met: Tensor) -> Tensor:
    return _terms(r, f, g, met)[1] / _terms(r, f, None, met)[1]


def _shifted(r: Rounding, f: Tensor, g: Tensor | None, met: Tensor) -> Tensor:
    top = _extreme(r, f, met, -1)[0]
    if f.shape[-2] == 0:
        return torch.cat([top, _terms(r, f, g, met)[1]], -1)
    limit = torch.finfo(f.dtype).max
    f = torch.where(met.unsqueeze(-1), f, -math.inf)
    if g is not None:
        f, top_of = (x.expand(*x.shape[:-1], g.shape[-1]) for x in (f, top))
    else:
        top_of = top
    terms = (r.slope(f) - r.slope(top_of).clamp(-limit, limit).unsqueeze(-2)).exp()
    if g is not None:
        terms = terms * torch.where(met.unsqueeze(-1), g, 0.0)
    return torch.cat([top, r.total(terms)], -1)


def _kept(f: Tensor, met: Tensor, neutral: float) -> Tensor:
    return torch.where(met.unsqueeze(-1), f, neutral)


def _product(r: Rounding, f: Tensor, met: Tensor) -> Tensor:
    """The product; rounding changes its slopes as quotients of it by every factor."""
    f = _kept(f, met, 1.0)
    found = f.prod(-2)
    if not r.size:
        return found
    usual = f.isfinite() & (f != 0)
    logs = torch.where(usual, f, 1.0).abs().log()
    return found * (1 + (r.slope(logs) - logs).sum(-2))


def _mean(r: Rounding, f: Tensor, met: Tensor) -> Tensor:
    return r.total(_kept(f, met, 0.0)) / met.sum(-1).to(f.dtype).unsqueeze(-1)


REDUCTIONS: dict[str, Callable[..., tuple[Tensor, ...]]] = {
    "Sum": lambda r, f, g, k, met: (r.total(_kept(f, met, 0.0)),),
    "Mean": lambda r, f, g, k, met: (_mean(r, f, met),),
    "Prod": lambda r, f, g, k, met: (_product(r, f, met),),
    "Count": lambda r, f, g, k, met: ((_kept(f, met, 0.0) != 0).sum(-2),),
    "Any": lambda r, f, g, k, met: ((_kept(f, met, 0.0) != 0).any(-2),),
    "All": lambda r, f, g, k, met: ((_kept(f, met, 1.0) != 0).all(-2),),
    "Min": lambda r, f, g, k, met: _extreme(r, f, met, 1)[:1],
    "Max": lambda r, f, g, k, met: _extreme(r, f, met, -1)[:1],
    "ArgMin": lambda r, f, g, k, met: _extreme(r, f, met, 1)[1:],
    "ArgMax": lambda r, f, g, k, met: _extreme(r, f, met, -1)[1:],
    "Min_ArgMin": lambda r, f, g, k, met: _extreme(r, f, met, 1),
    "Max_ArgMax": lambda r, f, g, k, met: _extreme(r, f, met, -1),
    "KMin": lambda r, f, g, k, met: _listed(_selected(r, f, met, 1, k))[:1],
    "ArgKMin": lambda r, f, g, k, met: _listed(_selected(r, f, met, 1, k))[1:],
    "KMin_ArgKMin": lambda r, f, g, k, met: _listed(_selected(r, f, met, 1, k)),
    "LogSumExp": lambda r, f, g, k, met: (_log_sum_exp(r, f, g, met),),
    "LogSumExpWeight": lambda r, f, g, k, met: (_log_sum_exp(r, f, g, met),),
    "SumSoftMaxWeight": lambda r, f, g, k, met: (_soft_max(r, f, g, met),),
    "Max_SumShiftExp": lambda r, f, g, k, met: (_shifted(r, f, g, met),),
    "Max_SumShiftExpWeight": lambda r, f, g, k, met: (_shifted(r, f, g, met),),
}


def table(x: Tensor, kind: str) -> Tensor:
    """An argument (..., M, D), (..., N, D) or (..., D) as (..., M or 1, N or 1, D)."""
    if kind == "p":
        return x.unsqueeze(-2).unsqueeze(-2)
    return x.unsqueeze(-2) if kind == "i" else x.unsqueeze(-3)


def pairs(
    formulas: Sequence[Expr | None],
    leaves: Sequence[Tensor],
    rounding: Rounding,
    axis: int,
    each: bool = False,
) -> list[Any]:
    """The tables (..., R, C, D) of formulas of the same arguments, which are tables themselves.

    With `each`, what one row or column alone makes is made, and rounded, for every pair.
    """
    shape = torch.broadcast_shapes(*(x.shape[:-1] for x in leaves))
    if each:
        leaves = [x.expand(*shape, x.shape[-1]) for x in leaves]
    dense = Dense(leaves, rounding)
    found: list[Any] = []
    for f in formulas:
        if f is None:
            found.append(None)
            continue
        whole = rounding.whole and dense.is_exact(f)
        values = dense(f).expand(*shape, f.dim)
        values = values if whole else rounding(values)
        found.append(values.transpose(-2, -3) if axis == 0 else values)
    return found
