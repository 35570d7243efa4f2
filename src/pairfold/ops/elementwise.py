"""Operations that act component by component: arithmetic, functions, comparison, selection.

Each row gives the scalar rule and the slopes; broadcasting and the pull-back are the kind's
(`table.elementwise`). Conventions at kinks and singular points are those of the formula language:
Rsqrt and the derivatives of Sqrt, Rsqrt, Abs and the norms are 0 at 0; ReLU has slope 1 at 0.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from ..core.node import Node
from ..core.scalars import Operand, Scalars, Value
from .table import Param, Rule, Symbol, broadcast_dims, elementwise, fit, guarded, is_constant
from .truth import condition_of, holds, is_count
from .vectors import make_constant, zero


def _is(x: Node, name: str) -> bool:
    return x.op.name == name


def _numbers(*nodes: Node) -> list[Fraction] | None:
    """The exact values of constant nodes, or None if one is not a finite constant."""
    values: list[Fraction] = []
    for node in nodes:
        if not _is(node, "Constant") or not isinstance(node.params[0], Fraction):
            return None
        if node.params[0].denominator.bit_length() + node.params[0].numerator.bit_length() > 4096:
            return None
        values.append(node.params[0])
    return values


def _moderate(value: Fraction) -> bool:
    """Whether neither a number nor its inverse is infinite or 0 in any dtype."""
    return Fraction(1, 2**100) <= abs(value) <= 2**100


def _one(x: Node) -> Node:
    return make_constant(1)


# ----- arithmetic --------------------------------------------------------------------------------


def _fold_add(x: Node, y: Node) -> Node | None:
    values = _numbers(x, y)
    return make_constant(values[0] + values[1]) if values else None


def _add_zero(x: Node, y: Node) -> Node | None:
    dim = broadcast_dims(x.dim, y.dim)
    if is_constant(y, 0) and x.dim == dim:
        return x
    if is_constant(x, 0) and y.dim == dim:
        return y
    return None


def _add_minus(x: Node, y: Node) -> Node | None:
    if _is(y, "Minus"):
        return x - y.args[0]
    if _is(x, "Minus"):
        return y - x.args[0]
    return None


def _add_selections(x: Node, y: Node) -> Node | None:
    """Both halves of a selection's gradient, joined again."""
    if _is(x, "IfElse") and _is(y, "IfElse") and x.args[0] is y.args[0]:
        condition = x.args[0]
        if condition.dim in (1, x.dim) and x.dim == y.dim:
            return if_else(condition, x.args[1] + y.args[1], x.args[2] + y.args[2])
    return None


add = elementwise(
    "Add",
    "x y",
    "Sum of two vectors.",
    value=lambda s, x, y: x + y,
    slopes=lambda out, x, y: [_one(x), _one(y)],
    rules=[
        Rule("number + number", _fold_add, "rounding"),
        Rule("x + 0 -> x", _add_zero),
        Rule("x + (-y) -> x - y", _add_minus),
        Rule("x + x -> 2*x", lambda x, y: make_constant(2) * x if x is y else None),
        Rule("IfElse(c,a,b) + IfElse(c,d,e) -> IfElse(c,a+d,b+e)", _add_selections),
    ],
    symbol=Symbol("+", 30),
    like=lambda x, y: x + y,
    refuses=[((3, 2), (), "same dimension")],
    derivative="1 and 1",
)


def _fold_subtract(x: Node, y: Node) -> Node | None:
    values = _numbers(x, y)
    return make_constant(values[0] - values[1]) if values else None


def _subtract_zero(x: Node, y: Node) -> Node | None:
    dim = broadcast_dims(x.dim, y.dim)
    if is_constant(y, 0) and x.dim == dim:
        return x
    if is_constant(x, 0) and y.dim == dim:
        return -y
    return None


subtract = elementwise(
    "Subtract",
    "x y",
    "Difference of two vectors.",
    value=lambda s, x, y: x - y,
    slopes=lambda out, x, y: [_one(x), make_constant(-1)],
    rules=[
        Rule("number - number", _fold_subtract, "rounding"),
        Rule("x - 0 -> x; 0 - x -> -x", _subtract_zero),
        Rule("x - (-y) -> x + y", lambda x, y: x + y.args[0] if _is(y, "Minus") else None),
        Rule("x - x -> 0", lambda x, y: zero(x.dim) if x is y else None, "domain"),
    ],
    symbol=Symbol("-", 30),
    like=lambda x, y: x - y,
    refuses=[((3, 2), (), "same dimension")],
    derivative="1 and -1",
)


apart = elementwise(
    "Apart",
    "x y",
    "Difference of two vectors, x being rounded: what exponents are measured from a maximum by.",
    value=lambda s, x, y: s.apart(x, y),
    slopes=lambda out, x, y: [_one(x), make_constant(-1)],
    like=lambda x, y: x - y,
    refuses=[((3, 2), (), "same dimension")],
    derivative="1 and -1",
    internal=True,
)


_OPPOSITE = {"inf": "-inf", "-inf": "inf", "nan": "nan", "-0.0": 0}


def _minus_number(x: Node) -> Node | None:
    if not _is(x, "Constant"):
        return None
    value = x.params[0]
    if isinstance(value, str):
        return make_constant(_OPPOSITE[value])
    return make_constant(-value if value else "-0.0")


def _minus_product(x: Node) -> Node | None:
    return (-x.args[0]) * x.args[1] if _is(x, "Mult") and _numbers(x.args[0]) else None


minus = elementwise(
    "Minus",
    "x",
    "The opposite.",
    value=lambda s, x: -x,
    slopes=lambda out, x: [make_constant(-1)],
    rules=[
        Rule("-number", _minus_number),
        Rule("-0 -> 0", lambda x: x if x.op is zero else None),
        Rule("--x -> x", lambda x: x.args[0] if _is(x, "Minus") else None),
        Rule("-(n*x) -> (-n)*x", _minus_product),
        Rule("-(x-y) -> y-x", lambda x: x.args[1] - x.args[0] if _is(x, "Subtract") else None),
    ],
    like=lambda x: -x,
    derivative="-1",
)


def _fold_mult(x: Node, y: Node) -> Node | None:
    values = _numbers(x, y)
    return make_constant(values[0] * values[1]) if values else None


def _mult_unit(x: Node, y: Node) -> Node | None:
    dim = broadcast_dims(x.dim, y.dim)
    for unit, other in ((x, y), (y, x)):
        if unit.dim == 1 and other.dim == dim:
            if is_constant(unit, 1):
                return other
            if is_constant(unit, -1):
                return -other
    return None


def _mult_zero(x: Node, y: Node) -> Node | None:
    return zero(max(x.dim, y.dim)) if is_constant(x, 0) or is_constant(y, 0) else None


def _mult_repeated(x: Node, y: Node) -> Node | None:
    """A repeated scalar needs no repeating next to a vector of that dimension."""
    if _is(x, "SumT") and x.dim == y.dim:
        return x.args[0] * y
    if _is(y, "SumT") and x.dim == y.dim:
        return x * y.args[0]
    return None


def _mult_minus(x: Node, y: Node) -> Node | None:
    """Signs move outwards, where they meet and cancel; a number absorbs them."""
    for one, other, swap in ((x, y, False), (y, x, True)):
        if _is(one, "Minus"):
            inner = one.args[0]
            if _is(other, "Constant"):
                return (-other) * inner
            return -(other * inner if swap else inner * other)
    return None


def _gather_numbers(x: Node, y: Node) -> Node | None:
    """m*(n*x) -> (m n)*x"""
    for one, other in ((x, y), (y, x)):
        if _is(one, "Constant") and _is(other, "Mult") and _is(other.args[0], "Constant"):
            values = _numbers(one, other.args[0])
            if values and _moderate(values[0] * values[1]):
                return make_constant(values[0] * values[1]) * other.args[1]
    return None


def _number_outside(x: Node, y: Node) -> Node | None:
    """x*(n*y) -> n*(x*y): numbers move outwards, where they meet."""
    if _is(y, "Constant"):
        return None if _is(x, "Constant") else y * x
    if _is(x, "Constant"):
        return None
    for one, other in ((x, y), (y, x)):
        if _is(other, "Mult") and _is(other.args[0], "Constant"):
            return other.args[0] * (one * other.args[1])
    return None


mult = elementwise(
    "Mult",
    "x y",
    "Product, component by component.",
    value=lambda s, x, y: x * y,
    slopes=lambda out, x, y: [y, x],
    rules=[
        Rule("number * number", _fold_mult, "rounding"),
        Rule("0*x -> 0", _mult_zero, "domain"),
        Rule("1*x -> x; -1*x -> -x", _mult_unit),
        Rule("x*x -> Square(x)", lambda x, y: square(x) if x is y else None),
        Rule("SumT(x, dim y)*y -> x*y", _mult_repeated),
        Rule("x*(-y) -> -(x*y)", _mult_minus),
        Rule("m*(n*x) -> (m*n)*x", _gather_numbers, "rounding"),
        Rule("x*(n*y) -> n*(x*y)", _number_outside, "rounding"),
    ],
    symbol=Symbol("*", 40),
    like=lambda x, y: x * y,
    refuses=[((3, 2), (), "same dimension")],
    derivative="y and x",
)


def _divide_by_number(x: Node, y: Node) -> Node | None:
    values = _numbers(y)
    if not values or not _moderate(values[0]):
        return None
    return make_constant(1 / values[0]) * x


def _divide_by_zero(x: Node, y: Node) -> Node | None:
    values = _numbers(x, y)
    if not values or values[1]:
        return None
    return make_constant("nan" if not values[0] else "inf" if values[0] > 0 else "-inf")


divide = elementwise(
    "Divide",
    "x y",
    "Quotient, component by component.",
    value=lambda s, x, y: x / y,
    slopes=lambda out, x, y: [inv(y), -(out / y)],
    rules=[
        Rule("x/n -> (1/n)*x", _divide_by_number, "rounding"),
        Rule("n/0 -> infinite or NaN", _divide_by_zero),
        Rule("1/x -> Inv(x)", lambda x, y: inv(y) if x.dim == 1 and is_constant(x, 1) else None),
    ],
    symbol=Symbol("/", 40),
    like=lambda x, y: x / y,
    domain={"y": (0.5, 3)},
    refuses=[((3, 2), (), "same dimension")],
    derivative="1/y and -x/y^2",
    conventions="x/0 is infinite or NaN, as IEEE 754 has it",
)

inv = elementwise(
    "Inv",
    "x",
    "The inverse 1/x.",
    value=lambda s, x: 1 / x,
    slopes=lambda out, x: [-square(out)],
    method="inv",
    like=lambda x: 1 / x,
    domain={"x": (0.5, 3)},
    known=((2, 0.5), (-4, -0.25)),
    derivative="-1/x^2",
    conventions="1/0 is infinite",
)

# ----- powers and roots --------------------------------------------------------------------------

square = elementwise(
    "Square",
    "x",
    "The square.",
    value=lambda s, x: x * x,
    slopes=lambda out, x: [make_constant(2) * x],
    rules=[
        Rule("Square(-x) -> Square(x)", lambda x: square(x.args[0]) if _is(x, "Minus") else None)
    ],
    method="square",
    like=lambda x: x * x,
    known=((3, 9), (-2, 4)),
    derivative="2*x",
)

sqrt = elementwise(
    "Sqrt",
    "x",
    "The square root.",
    value=lambda s, x: s.sqrt(x),
    slopes=lambda out, x: [make_constant(Fraction(1, 2)) * rsqrt(x)],
    method="sqrt",
    like=np.sqrt,
    domain={"x": (0.1, 10)},
    known=((4, 2), (0, 0)),
    derivative="1/(2*Sqrt(x))",
    conventions="the derivative is 0 at 0; NaN below 0",
)


def _rsqrt(s: Scalars, x: Value) -> Value:
    return s.select(s.eq(x, 0), 0, s.rsqrt(x))


rsqrt = elementwise(
    "Rsqrt",
    "x",
    "The inverse of the square root, 0 at 0.",
    value=_rsqrt,
    slopes=lambda out, x: [make_constant(Fraction(-1, 2)) * pow_(out, 3)],
    method="rsqrt",
    like=lambda x: np.where(x == 0, 0, 1 / np.sqrt(np.where(x == 0, 1, x))),
    domain={"x": (0.1, 10)},
    known=((4, 0.5), (0, 0)),
    derivative="-Rsqrt(x)^3 / 2",
    conventions="value and derivative are 0 at 0; NaN below 0",
)


def whole_power(s: Scalars, x: Value, m: int) -> Value:
    """x^m by repeated squaring for small m (at most 5 roundings), else the power function."""
    if abs(m) > 16:
        return s.pow(x, m)
    result: Value | None = None
    factor, rest = x, abs(m)
    while rest:
        if rest & 1:
            result = factor if result is None else result * factor
        rest >>= 1
        if rest:
            factor = factor * factor
    if result is None:
        return s.constant(1)
    return result if m > 0 else 1 / result


pow_ = elementwise(
    "Pow",
    "x",
    "x to the whole power m.",
    params=[Param("m", 3)],
    value=whole_power,
    slopes=lambda out, x, m: [make_constant(m) * pow_(x, m - 1) if m else None],
    rules=[
        Rule("Pow(x, 1) -> x", lambda x, m: x if m == 1 else None),
        Rule("Pow(x, 2) -> Square(x)", lambda x, m: square(x) if m == 2 else None),
        Rule("Pow(x, -1) -> Inv(x)", lambda x, m: inv(x) if m == -1 else None),
    ],
    method="power",
    like=lambda x, m: np.power(x, float(m)),
    known=((2, 3, 8), (0, 3, 0)),
    domain={"x": (0.3, 2)},
    derivative="m*Pow(x, m-1)",
    conventions="Pow(x, 0) is 1 even for x = 0 or NaN",
)


def _powf_slopes(out: Node, x: Node, y: Node) -> list[Node | None]:
    """y x^(y-1) and x^y log x, with the limits 0 at y = 0 and at x = 0 <= y.

    -|y| >= 0 only at y = 0; and [x = 0][0 <= y] - 1 >= 0 only where both hold.
    """
    dim = out.dim
    nothing = zero(dim)
    at_zero = equal(x, make_constant(0)) * less_or_equal(make_constant(0), y) - make_constant(1)
    by_x = if_else(-absolute(y), nothing, y * powf(x, y - make_constant(1)))
    by_y = if_else(at_zero, nothing, out * log(x))
    return [by_x, by_y]


powf = elementwise(
    "Powf",
    "x y",
    "x to the power y.",
    value=lambda s, x, y: s.pow(x, y),
    slopes=_powf_slopes,
    method="powf",
    like=np.power,
    domain={"x": (0.2, 4), "y": (-2, 2)},
    known=((4, 0.5, 2), (2, 3, 8), (-2, 3, -8)),
    derivative="y*x^(y-1) and x^y*Log(x)",
    conventions="special values as in C99; the gradient is 0 for y at x = 0 <= y, for x at y = 0",
)

# ----- functions ---------------------------------------------------------------------------------

exp = elementwise(
    "Exp",
    "x",
    "The exponential.",
    value=lambda s, x: s.exp(x),
    slopes=lambda out, x: [out],
    method="exp",
    like=np.exp,
    known=((0, 1), (1, 2.718281828459045)),
    derivative="Exp(x)",
)

log = elementwise(
    "Log",
    "x",
    "The natural logarithm.",
    value=lambda s, x: s.log(x),
    slopes=lambda out, x: [inv(x)],
    rules=[Rule("Log(Exp(x)) -> x", lambda x: x.args[0] if _is(x, "Exp") else None, "domain")],
    method="log",
    like=np.log,
    domain={"x": (0.1, 10)},
    known=((1, 0), (2.718281828459045, 1)),
    derivative="1/x",
    conventions="-inf at 0, NaN below",
)

sin = elementwise(
    "Sin",
    "x",
    "The sine (radians).",
    value=lambda s, x: s.sin(x),
    slopes=lambda out, x: [cos(x)],
    method="sin",
    like=np.sin,
    known=((0, 0), (1.5707963267948966, 1)),
    derivative="Cos(x)",
)

cos = elementwise(
    "Cos",
    "x",
    "The cosine (radians).",
    value=lambda s, x: s.cos(x),
    slopes=lambda out, x: [-sin(x)],
    method="cos",
    like=np.cos,
    known=((0, 1), (3.141592653589793, -1)),
    derivative="-Sin(x)",
)

tanh = elementwise(
    "Tanh",
    "x",
    "The hyperbolic tangent.",
    value=lambda s, x: s.tanh(x),
    slopes=lambda out, x: [make_constant(1) - square(out)],
    method="tanh",
    like=np.tanh,
    known=((0, 0), (1, 0.7615941559557649)),
    derivative="1 - Tanh(x)^2",
)

absolute = elementwise(
    "Abs",
    "x",
    "The absolute value.",
    value=lambda s, x: s.abs(x),
    slopes=lambda out, x: [sign(x)],
    method="abs",
    like=np.abs,
    domain={"x": (0.2, 3)},
    known=((-2, 2), (0, 0)),
    derivative="Sign(x)",
    conventions="the derivative is 0 at 0",
)


def _sign(s: Scalars, x: Value) -> Value:
    return s.select(s.lt(0, x), 1, s.select(s.lt(x, 0), -1, 0))


sign = elementwise(
    "Sign",
    "x",
    "-1, 0 or 1 by the sign of x.",
    value=_sign,
    slopes=lambda out, x: [None],
    method="sign",
    like=np.sign,
    known=((-3, -1), (0, 0), (2, 1)),
    derivative="0",
    conventions="Sign(0) and Sign(NaN) are 0",
)

step = elementwise(
    "Step",
    "x",
    "0 where x < 0, else 1.",
    value=lambda s, x: s.select(s.lt(x, 0), 0, 1),
    slopes=lambda out, x: [None],
    method="step",
    like=lambda x: np.where(x < 0, 0.0, 1.0),
    known=((-3, 0), (0, 1), (2, 1)),
    derivative="0",
    conventions="Step(0) and Step(NaN) are 1",
)

relu = elementwise(
    "ReLU",
    "x",
    "0 where x < 0, else x.",
    value=lambda s, x: s.select(s.lt(x, 0), 0, x),
    slopes=lambda out, x: [step(x)],
    method="relu",
    like=lambda x: np.where(x < 0, 0.0, x),
    known=((-3, 0), (0, 0), (2, 2)),
    domain={"x": (0.2, 3)},
    derivative="Step(x)",
    conventions="the derivative is 1 at 0, and a factor: 0 times an infinite one is NaN; NaN stays "
    "NaN",
)

# ----- comparison and selection ------------------------------------------------------------------


def _truth(s: Scalars, mask: Value) -> Value:
    return s.select(mask, 1, 0)


def _comparison(name: str, primitive: str, text: str, says: str, like: np.ufunc) -> object:
    return elementwise(
        name,
        "x y",
        says,
        value=lambda s, x, y: _truth(s, s.apply(primitive, x, y)),
        slopes=lambda out, x, y: [None, None],
        symbol=Symbol(text, 10),
        like=lambda x, y: like(x, y).astype(float),
        derivative="0",
    )


_comparison("LessThan", "lt", "<", "1 where x < y, else 0.", np.less)
_comparison("LessOrEqual", "le", "<=", "1 where x <= y, else 0.", np.less_equal)
_comparison("Equal", "eq", "==", "1 where x = y, else 0.", np.equal)
_comparison("NotEqual", "ne", "!=", "1 where x differs from y, else 0.", np.not_equal)


def equal(x: Node, y: Node) -> Node:
    """1 where x = y, else 0."""
    from .table import OPERATIONS

    return OPERATIONS["Equal"](x, y)


def less_than(x: Node, y: Node) -> Node:
    """1 where x < y, else 0."""
    from .table import OPERATIONS

    return OPERATIONS["LessThan"](x, y)


def less_or_equal(x: Node, y: Node) -> Node:
    """1 where x <= y, else 0."""
    from .table import OPERATIONS

    return OPERATIONS["LessOrEqual"](x, y)


def _selected(s: Scalars, condition: Value, x: Operand, y: Operand) -> Value:
    return s.select(holds(s, condition), x, y)


if_else = elementwise(
    "IfElse",
    "condition x y",
    "x where condition >= 0, else y; a comparison is a condition as it stands.",
    value=_selected,
    slopes=None,
    pullback=lambda g, out, c, x, y: [
        None,
        fit(guarded(c, g), x.dim),
        fit(guarded(c, g, False), y.dim),
    ],
    rules=[
        Rule(
            "IfElse(c, 0, 0) -> 0",
            lambda c, x, y: (
                zero(max(c.dim, x.dim, y.dim)) if x.op is zero and y.op is zero else None
            ),
        ),
    ],
    takes=lambda c, x, y: (condition_of(c) if is_count(c) else c, x, y),
    method="ifelse",
    like=lambda c, x, y: np.where(c >= 0, x, y),
    known=((0, 5, 7, 5), (-1, 5, 7, 7)),
    derivative="the incoming gradient to the selected branch, 0 to the other and to the condition",
    conventions="a NaN condition selects y; the branch not selected never poisons the gradient; "
    "truth values (comparisons, products and sums of them, 1 minus one) are true where not 0",
)


def _clamped(s: Scalars, x: Value, low: Value, high: Value) -> Value:
    return s.select(s.lt(x, low), low, s.select(s.lt(high, x), high, x))


clamp = elementwise(
    "Clamp",
    "x low high",
    "x limited to the interval from low to high.",
    value=_clamped,
    slopes=lambda out, x, low, high: [
        less_or_equal(low, x) * less_or_equal(x, high),
        less_than(x, low),
        less_or_equal(low, x) * less_than(high, x),
    ],
    method="clamp",
    like=lambda x, low, high: np.where(x < low, low, np.where(x > high, high, x)),
    known=((3, 0, 1, 1), (-3, 0, 1, 0), (0.5, 0, 1, 0.5)),
    domain={"low": (-0.6, -0.4), "high": (0.4, 0.6)},
    derivative="1 to the operand that was taken",
    conventions="1 to x on the closed interval; where low > high, low wins; NaN stays NaN",
)
