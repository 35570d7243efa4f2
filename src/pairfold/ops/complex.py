"""Complex numbers: a vector of n complex numbers has 2n components, real and imaginary in turn.

Every operation is written on real and imaginary parts, which are put together by `Complex` and
taken apart by `ComplexReal` and `ComplexImag`; taking apart what was just put together is a rule.
So a chain of complex operations is real arithmetic, and interleaving happens once, at its end.
The gradient to real and imaginary part, put together, is the conjugate convention of torch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..core.node import Node
from ..core.scalars import Index, Reader, Scalars, Value
from ..errors import refuse
from .table import OPERATIONS, Marks, Op, Param, Rule, broadcast_dims, operation
from .vectors import make_constant, summed, zero

if TYPE_CHECKING:
    from typing_extensions import Unpack

Pairs = NDArray[np.float64]
Complexes = NDArray[np.complex128]


def _row(name: str, *operands: object) -> Node:
    return OPERATIONS[name](*operands)


# ----- what oracles share ------------------------------------------------------------------------


def as_complex(x: Pairs) -> Complexes:
    """The complex numbers of an array of pairs.

    >>> as_complex(np.array([1.0, 2.0, 3.0, 4.0]))
    array([1.+2.j, 3.+4.j])
    """
    return x[..., 0::2] + 1j * x[..., 1::2]


def as_pairs(z: Complexes) -> Pairs:
    """Real and imaginary parts in turn.

    >>> as_pairs(np.array([1 + 2j, 3 + 4j]))
    array([1., 2., 3., 4.])
    """
    return np.stack([z.real, z.imag], axis=-1).reshape(*z.shape[:-1], -1)


def _on_pairs(function: Callable[..., Complexes]) -> Callable[..., Pairs]:
    """A function of complex arrays as one of arrays of pairs."""
    return lambda *operands: as_pairs(function(*map(as_complex, operands)))


# ----- putting together and taking apart ---------------------------------------------------------


def _alternating(s: Scalars, k: Index, x: Reader, y: Reader) -> Value:
    if isinstance(k, int):
        return (y if k % 2 else x)(k // 2)
    return s.select(s.eq(s.position(k % 2), 0), x(k // 2), y(k // 2))


def _repeated(x: Node, dim: int) -> Node:
    return x if x.dim == dim else _row("SumT", x, dim)


def joined(x: Node, y: Node) -> Node:
    """x + iy; a scalar part is repeated."""
    dim = broadcast_dims(x.dim, y.dim)
    return complex_(_repeated(x, dim), _repeated(y, dim))


def _put_back(x: Node, y: Node) -> Node | None:
    """Complex(ComplexReal(z), ComplexImag(z)) -> z"""
    if x.op.name == "ComplexReal" and y.op.name == "ComplexImag" and x.args[0] is y.args[0]:
        return x.args[0]
    return None


complex_ = operation(
    "Complex",
    "x y",
    "The complex vector with real part x and imaginary part y.",
    dims=lambda dx, dy: 2 * dx if dx == dy else refuse("both parts must have the same dimension"),
    value=_alternating,
    pullback=lambda g, out, x, y: [real(g), imag(g)],
    rules=[
        Rule(
            "Complex(0, 0) -> 0",
            lambda x, y: zero(2 * x.dim) if x.op is zero and y.op is zero else None,
        ),
        Rule("Complex(ComplexReal(z), ComplexImag(z)) -> z", _put_back),
    ],
    like=lambda x, y: as_pairs(x + 1j * y),
    refuses=[((3, 2), (), "same dimension")],
    derivative="real and imaginary part of the incoming gradient",
    samples=((1, 1), (3, 3), (17, 17)),
)


def _half(d: int) -> int:
    if d % 2:
        refuse(
            "a complex vector has an even number of components",
            "Real2Complex(x) makes complex numbers of real ones",
        )
    return d // 2


_LINEAR = {"Add", "Subtract", "Minus"}


def _part_rules(name: str, place: int) -> tuple[Rule, ...]:
    """Rules of ComplexReal (place 0) and ComplexImag (place 1)."""

    def taken(z: Node) -> Node | None:
        return z.args[place] if z.op is complex_ else None

    def inside(z: Node) -> Node | None:
        joins = any(_is_joined(arg) for arg in z.args)
        if z.op.name in _LINEAR and joins and all(arg.dim == z.dim for arg in z.args):
            return z.op(*(OPERATIONS[name](arg) for arg in z.args))
        if z.op.name in ("Mult", "Divide") and joins:
            x, y = z.args
            if y.dim == 1:
                return z.op(OPERATIONS[name](x), y)
            if x.dim == 1 and z.op.name == "Mult":
                return z.op(x, OPERATIONS[name](y))
        if z.op.name == "IfElse" and joins and z.args[0].dim == 1:
            condition, x, y = z.args
            if x.dim == y.dim == z.dim:
                return z.op(condition, OPERATIONS[name](x), OPERATIONS[name](y))
        return None

    return (
        Rule(f"{name}(0) -> 0", lambda z: zero(z.dim // 2) if z.op is zero else None),
        Rule(f"{name}(Complex(x, y)) -> {'xy'[place]}", taken),
        Rule(f"{name} of a sum or a real multiple -> the same of the parts", inside),
    )


def _is_joined(z: Node) -> bool:
    """Whether a vector is made of parts, so that taking it apart costs nothing."""
    while z.op.name == "Minus":
        z = z.args[0]
    if z.op is complex_:
        return True
    if z.op.name in ("Add", "Subtract", "Mult", "Divide", "IfElse"):
        return any(arg.dim == z.dim and arg.op is complex_ for arg in z.args)
    return False


def _part(name: str, place: int, says: str, like: Callable[[Complexes], Pairs], method: str) -> Op:
    def pullback(g: Node, out: Node, z: Node) -> list[Node | None]:
        nothing = zero(g.dim)
        return [complex_(nothing, g) if place else complex_(g, nothing)]

    return operation(
        name,
        "z",
        says,
        dims=_half,
        value=lambda s, k, z: z(2 * k + place),
        pullback=pullback,
        rules=_part_rules(name, place),
        method=method,
        like=lambda z: like(as_complex(z)),
        refuses=[((3,), (), "even number")],
        derivative=f"the incoming gradient as {'imaginary' if place else 'real'} part",
        samples=((2,), (6,)),
        sized=_pairs(1),
    )


def _pairs(
    count: int, *params: object
) -> Callable[[int], tuple[tuple[int, ...], tuple[object, ...]]]:
    """Complex operands of about d components."""
    return lambda d: ((d + d % 2,) * count, params)


real = _part("ComplexReal", 0, "The real parts.", np.real, "real")
imag = _part("ComplexImag", 1, "The imaginary parts.", np.imag, "imag")

real_to_complex = operation(
    "Real2Complex",
    "x",
    "Real numbers as complex ones: x + 0i.",
    dims=lambda d: 2 * d,
    expand=lambda x: complex_(x, zero(x.dim)),
    method="real2complex",
    like=lambda x: as_pairs(x + 0j),
    derivative="real part of the incoming gradient",
    samples=((1,), (3,), (17,)),
)

imag_to_complex = operation(
    "Imag2Complex",
    "x",
    "Real numbers as imaginary ones: 0 + ix.",
    dims=lambda d: 2 * d,
    expand=lambda x: complex_(zero(x.dim), x),
    method="imag2complex",
    like=lambda x: as_pairs(1j * x),
    derivative="imaginary part of the incoming gradient",
    samples=((1,), (3,), (17,)),
)

# ----- functions of one complex vector -----------------------------------------------------------


def _complex(
    name: str,
    says: str,
    expand: Callable[[Node], Node],
    like: Callable[..., Pairs],
    derivative: str,
    **fields: Unpack[Marks],
) -> Op:
    """A row with one complex operand, written on its parts."""
    return operation(
        name,
        "z",
        says,
        dims=lambda d: d,
        expand=lambda z: expand(z) if _half(z.dim) else z,
        like=like,
        derivative=derivative,
        refuses=[((3,), (), "even number")],
        samples=((2,), (6,)),
        sized=_pairs(1),
        **fields,
    )


def _square_abs(z: Node) -> Node:
    square = OPERATIONS["Square"]
    return square(real(z)) + square(imag(z))


def _angle(z: Node) -> Node:
    """atan2 of the parts, kept away from 0, where its slopes are not finite."""
    x, y, nothing = real(z), imag(z), make_constant(0)
    at_zero = _row("Equal", x, nothing) * _row("Equal", y, nothing) - make_constant(1)
    return _row("IfElse", at_zero, zero(x.dim), _row("Atan2", y, x))


def _exp(z: Node) -> Node:
    size = _row("Exp", real(z))
    return complex_(size * _row("Cos", imag(z)), size * _row("Sin", imag(z)))


conj = _complex(
    "Conj",
    "The complex conjugates.",
    lambda z: complex_(real(z), -imag(z)),
    _on_pairs(np.conj),
    "the conjugate of the incoming gradient",
    method="conj",
)

square_abs = _complex(
    "ComplexSquareAbs",
    "The squared moduli.",
    _square_abs,
    lambda z: np.abs(as_complex(z)) ** 2,
    "2*z",
)

modulus = _complex(
    "ComplexAbs",
    "The moduli.",
    lambda z: _row("Sqrt", _square_abs(z)),
    lambda z: np.abs(as_complex(z)),
    "z / |z|",
    domain={"z": (0.2, 3)},
    conventions="the derivative is 0 at z = 0",
    method="abs",
)

angle = _complex(
    "ComplexAngle",
    "The arguments, between -pi and pi.",
    _angle,
    lambda z: np.angle(as_complex(z)),
    "i z / |z|^2",
    domain={"z": (0.5, 3)},
    conventions="value and derivative are 0 at z = 0",
    method="angle",
)

exponential = _complex(
    "ComplexExp",
    "The complex exponential.",
    _exp,
    _on_pairs(np.exp),
    "Conj(ComplexExp(z)), times the incoming gradient",
    method="exp",
)

exp1j = operation(
    "ComplexExp1j",
    "x",
    "The points e^(ix) of the unit circle, for real x.",
    dims=lambda d: 2 * d,
    expand=lambda x: complex_(_row("Cos", x), _row("Sin", x)),
    method="exp1j",
    like=lambda x: as_pairs(np.exp(1j * x)),
    derivative="imaginary part of the incoming gradient times e^(-ix)",
    samples=((1,), (3,), (17,)),
)

# ----- arithmetic --------------------------------------------------------------------------------


def _check(x: Node, y: Node) -> None:
    if _half(x.dim) != _half(y.dim) and 2 not in (x.dim, y.dim):
        refuse(
            "complex operands must have the same dimension, or dimension 2",
            "Extract(z, 2*start, 2*n) keeps n complex numbers",
        )


def _add(x: Node, y: Node) -> Node:
    _check(x, y)
    if x.dim == y.dim and not (_is_joined(x) or _is_joined(y)):
        return x + y
    return joined(real(x) + real(y), imag(x) + imag(y))


def _subtract(x: Node, y: Node) -> Node:
    _check(x, y)
    if x.dim == y.dim and not (_is_joined(x) or _is_joined(y)):
        return x - y
    return joined(real(x) - real(y), imag(x) - imag(y))


def _times(x: Node, y: Node) -> Node:
    """x*y; a part that is no number but the absence of one costs nothing."""
    return zero(broadcast_dims(x.dim, y.dim)) if x.op is zero or y.op is zero else x * y


def _mult(x: Node, y: Node) -> Node:
    _check(x, y)
    return joined(
        _times(real(x), real(y)) - _times(imag(x), imag(y)),
        _times(real(x), imag(y)) + _times(imag(x), real(y)),
    )


def _divide(x: Node, y: Node) -> Node:
    _check(x, y)
    size = _square_abs(y)
    return joined(
        (_times(real(x), real(y)) + _times(imag(x), imag(y))) / size,
        (_times(imag(x), real(y)) - _times(real(x), imag(y))) / size,
    )


def _arithmetic(
    name: str,
    says: str,
    expand: Callable[[Node, Node], Node],
    like: Callable[[Complexes, Complexes], Complexes],
    derivative: str,
    **fields: Unpack[Marks],
) -> Op:
    """A row with two complex operands, of which a single number is repeated."""
    return operation(
        name,
        "x y",
        says,
        dims=lambda dx, dy: max(dx, dy),
        expand=expand,
        like=_on_pairs(like),
        derivative=derivative,
        refuses=[((3, 3), (), "even number"), ((4, 6), (), "same dimension, or dimension 2")],
        samples=((2, 2), (6, 6), (2, 6), (6, 2)),
        sized=_pairs(2),
        **fields,
    )


add = _arithmetic("ComplexAdd", "Sum of two complex vectors.", _add, lambda x, y: x + y, "1 and 1")

subtract = _arithmetic(
    "ComplexSubtract",
    "Difference of two complex vectors.",
    _subtract,
    lambda x, y: x - y,
    "1 and -1",
)

mult = _arithmetic(
    "ComplexMult",
    "Product of complex numbers, one by one.",
    _mult,
    lambda x, y: x * y,
    "Conj(y) and Conj(x), times the incoming gradient",
)

divide = _arithmetic(
    "ComplexDivide",
    "Quotient of complex numbers, one by one.",
    _divide,
    lambda x, y: x / y,
    "1/Conj(y) and -Conj(x/y^2), times the incoming gradient",
    domain={"y": (0.5, 3)},
    conventions="x Conj(y) / |y|^2; NaN for y = 0",
)


def _real_scaled(x: Node, y: Node) -> Node:
    if 1 not in (x.dim, y.dim):
        refuse("one operand must be a real scalar, the other a complex vector")
    scalar, z = (x, y) if x.dim == 1 else (y, x)
    if _half(z.dim) and _is_joined(z):
        return complex_(scalar * real(z), scalar * imag(z))
    return x * y


real_scal = operation(
    "ComplexRealScal",
    "x y",
    "A real scalar times a complex vector, in either order.",
    dims=lambda dx, dy: max(dx, dy),
    expand=_real_scaled,
    like=lambda x, y: x * y,
    derivative="y and x, times the incoming gradient",
    refuses=[((4, 6), (), "a real scalar"), ((1, 3), (), "even number")],
    samples=((1, 2), (1, 6), (6, 1)),
    sized=lambda d: ((1, d + d % 2), ()),
)


def _sum(z: Node) -> Node:
    return complex_(summed(real(z)), summed(imag(z)))


complex_sum = _complex(
    "ComplexSum",
    "Sum of the complex numbers of a vector.",
    _sum,
    lambda z: as_pairs(as_complex(z).sum(-1, keepdims=True)),
    "the incoming gradient, repeated",
)


def _sum_t(z: Node, n: int) -> Node:
    if z.dim != 2:
        refuse("only a single complex number can be repeated")
    if n < 2 or n % 2:
        refuse("n counts components, two for each complex number", "n = 2, 4, 6 ...")
    return complex_(_row("SumT", real(z), n // 2), _row("SumT", imag(z), n // 2))


complex_sum_t = operation(
    "ComplexSumT",
    "z",
    "A complex number repeated: n components, n/2 numbers.",
    params=[Param("n", 6)],
    dims=lambda d, n: n,
    expand=_sum_t,
    like=lambda z, n: np.tile(z, n // 2),
    derivative="sum of the incoming gradient",
    refuses=[((4,), (6,), "single complex number"), ((2,), (3,), "two for each")],
    samples=((2,),),
    sized=lambda d: ((2,), (d + d % 2,)),
)
