"""The table of operations: what a row is, what every row owes, and `build`, which makes nodes.

A row says everything the package knows about one operation. Parsing, printing, dims errors,
machine code, derivatives, documentation and tests all follow from it. Rows of the *elementwise*
kind give only the scalar rule and the slopes; broadcasting (1 against d) and the pull-back come
from here, once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, TypedDict, cast

from ..core.node import Axis, Node, Variable, intern_node
from ..core.numbers import number
from ..core.scalars import Index, Reader, Scalars, Value
from ..errors import DimError, FormulaError, InternalError, Refusal, refuse
from ..settings import current

if TYPE_CHECKING:
    from typing_extensions import Unpack

EXACT, ROUNDING, DOMAIN = "exact", "rounding", "domain"
MOST_COMPONENTS = 2**31 - 1
_ALLOWED = {"exact": {EXACT}, "rounding": {EXACT, ROUNDING}, "all": {EXACT, ROUNDING, DOMAIN}}


@dataclass(frozen=True)
class Param:
    """A compile-time argument of an operation: a whole number, a list of them, or an axis."""

    name: str
    sample: int | Fraction | Sequence[int]
    kind: str = "int"
    default: int | Sequence[int] | None = None


@dataclass(frozen=True)
class Rule:
    """One simplification: its algebra in words, how far it may change a number, and how.

    `apply(*args, *params)` returns the simpler node, or None where the rule does not match.
    `changes` is `exact` (bit for bit, up to the sign of zero), `rounding`, or `domain` (may hide a
    NaN or infinity, or overflow elsewhere; off by default).
    """

    says: str
    apply: Callable[..., Node | None]
    changes: str = EXACT


@dataclass(frozen=True)
class Symbol:
    """How an operation is written between its operands; higher `binds` binds tighter."""

    text: str
    binds: int
    right: bool = False


@dataclass(frozen=True, eq=False)
class Op:
    """Everything the package knows about one operation.

    `rereads`: its value reads components of an operand more than once, so those that have to be
    computed are kept. `moves`: a component of it is one of its operand's.
    The last `optional` operands may be left out; those named in `tuples` may be several in
    parentheses, which are joined. Only rows with an `expand` have either.
    `internal`: written by the library itself, so the page of operations leaves it out.
    `takes`: the operands as they are meant, where that depends on how they are made.
    """

    name: str
    args: tuple[str, ...]
    says: str
    dims: Callable[..., int]
    value: Callable[..., Value] | None
    pullback: Callable[..., Sequence[Node | None]] | None
    params: tuple[Param, ...] = ()
    rules: tuple[Rule, ...] = ()
    symbol: Symbol | None = None
    method: str | None = None
    like: Callable[..., object] | None = None
    known: tuple[tuple[object, ...], ...] = ()
    domain: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    refuses: tuple[tuple[tuple[int, ...], tuple[object, ...], str], ...] = ()
    elementwise: bool = False
    slopes: Callable[..., Sequence[Node | None]] | None = None
    expand: Callable[..., Node] | None = None
    derivative: str = ""
    conventions: str = ""
    samples: tuple[tuple[int, ...], ...] = ((1,), (3,))
    sized: Callable[[int], tuple[tuple[int, ...], tuple[object, ...]] | None] | None = None
    rereads: bool = False
    moves: bool = False
    optional: int = 0
    tuples: tuple[str, ...] = ()
    internal: bool = False
    takes: Callable[..., tuple[Node, ...]] | None = None

    def at_size(self, d: int) -> tuple[tuple[int, ...], tuple[object, ...]] | None:
        """Dimensions of operands, and parameters, to try the row at about dimension `d`.

        None where the row cannot have that size.
        """
        if self.sized is not None:
            return self.sized(d)
        return (d,) * len(self.args), tuple(param.sample for param in self.params)

    def __call__(self, *operands: object) -> Node:
        return build(self, *operands)

    def __repr__(self) -> str:
        return f"<operation {self.name}>"


class Marks(TypedDict, total=False):
    """What may be said of a row of any kind beside its name, operands and words: see `Op`."""

    params: Sequence[Param]
    rules: Sequence[Rule]
    symbol: Symbol | None
    method: str | None
    known: Sequence[tuple[object, ...]]
    domain: Mapping[str, tuple[float, float]]
    conventions: str
    rereads: bool
    moves: bool
    internal: bool


class Parts(Marks, total=False):
    """What may be said of a row that acts component by component."""

    dims: Callable[..., int]
    pullback: Callable[..., Sequence[Node | None]] | None
    like: Callable[..., object] | None
    refuses: Sequence[tuple[tuple[int, ...], tuple[object, ...], str]]
    expand: Callable[..., Node] | None
    derivative: str
    samples: Sequence[tuple[int, ...]]
    sized: Callable[[int], tuple[tuple[int, ...], tuple[object, ...]] | None] | None
    optional: int
    tuples: tuple[str, ...]
    takes: Callable[..., tuple[Node, ...]] | None


class Fields(Parts, total=False):
    """What may be said of any row."""

    value: Callable[..., Value] | None
    elementwise: bool
    slopes: Callable[..., Sequence[Node | None]] | None


OPERATIONS: dict[str, Op] = {}


def _register(op: Op) -> Op:
    known = OPERATIONS.get(op.name)
    # The same row once more: an import was interrupted, and is done again.
    if known is not None and (known.says, known.args) != (op.says, op.args):
        raise InternalError(f"operation {op.name} has two rows")
    if (op.value is None) == (op.expand is None) and op.name != "Var":
        raise InternalError(f"operation {op.name} needs either a value or an expansion")
    OPERATIONS[op.name] = op
    return op


_row: Callable[..., Op] = Op


def operation(name: str, args: str, says: str, **fields: Unpack[Fields]) -> Op:
    """Add a row whose components are not simply those of its arguments."""
    fields.setdefault("value", None)
    fields.setdefault("pullback", None)
    given = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
    return _register(_row(name, tuple(args.split()), says, **given))


def elementwise(
    name: str,
    args: str,
    says: str,
    *,
    value: Callable[..., Value],
    slopes: Callable[..., Sequence[Node | None]] | None,
    **fields: Unpack[Parts],
) -> Op:
    """Add a row that acts component by component; operands of dimension 1 are repeated.

    `value(s, x, y, ..., *params)` gives one component from one component of each operand;
    `slopes(out, x, y, ..., *params)` the partial derivatives (None: zero everywhere).
    """
    arity = len(args.split())

    def component(s: Scalars, k: Index, *rest: object) -> Value:
        readers, params = cast("tuple[Reader, ...]", rest[:arity]), rest[arity:]
        return value(s, *(read(k) for read in readers), *params)

    def pullback(g: Node, out: Node, *rest: object) -> list[Node | None]:
        assert slopes is not None
        operands = cast("tuple[Node, ...]", rest[:arity])
        return [
            None if slope is None else fit(scaled(g, slope), operand.dim)
            for slope, operand in zip(slopes(out, *rest), operands, strict=True)
        ]

    if arity > 1:
        fields.setdefault("samples", ((1,) * arity, (3,) * arity, (1, *(3,) * (arity - 1))))
    if slopes is not None:
        fields["pullback"] = pullback
    fields.setdefault("dims", lambda *rest: broadcast_dims(*rest[:arity]))
    return operation(
        name,
        args,
        says,
        value=component,
        elementwise=True,
        slopes=slopes,
        **fields,
    )


def broadcast_dims(*dims: object) -> int:
    """The common dimension of operands of which some may have dimension 1."""
    sizes = [dim for dim in dims if isinstance(dim, int)]
    largest = max(sizes)
    if any(size not in (1, largest) for size in sizes):
        raise Refusal(
            "operands must have the same dimension, or dimension 1",
            "Extract(x, start, n) keeps n components; Concat(x, y) joins vectors",
        )
    return largest


def fit(node: Node, dim: int) -> Node:
    """`node` summed to dimension 1 when its operand had been repeated, or repeated when not.

    A selection stays outermost: where it selects no component, the sum is 0 whatever follows.
    """
    if node.dim == dim:
        return node
    if dim != 1:
        return OPERATIONS["SumT"](node, dim)
    guard = guard_of(node)
    if guard is None:
        return OPERATIONS["Sum"](node)
    condition, value, chosen = guard
    if condition.dim == 1:
        return guarded(condition, OPERATIONS["Sum"](value), chosen)
    return guarded(any_selected(condition, chosen), OPERATIONS["Sum"](node))


def scaled(g: Node, slope: Node) -> Node:
    """g * slope, where a selection in g stays outermost.

    The derivative of IfElse(c, x, y) sends IfElse(c, g, 0) into x. Multiplying inside the
    selection keeps a NaN slope of the branch that was not selected out of the result.
    """
    guard = guard_of(g)
    if guard is not None:
        condition, value, chosen = guard
        return guarded(condition, scaled(value, slope), chosen)
    if slope.op.name == "Inv":
        return g / slope.args[0]
    return g * slope


Guard = tuple[Node, Node, bool]


def guard_of(g: Node) -> Guard | None:
    """(c, x, True) for IfElse(c, x, 0), (c, x, False) for IfElse(c, 0, x), else None."""
    if g.op.name == "IfElse":
        condition, chosen, other = g.args
        if other.op.name == "Zero":
            return condition, chosen, True
        if chosen.op.name == "Zero":
            return condition, other, False
    return None


def any_selected(condition: Node, chosen: bool) -> Node:
    """A number that is >= 0 where a condition selects some component of a vector."""
    taken = OPERATIONS["IfElse"](condition, *((1, 0) if chosen else (0, 1)))
    return OPERATIONS["Sum"](taken) - 1


def holds(condition: Node, chosen: bool) -> Node:
    """A number that is >= 0 where the condition selects (or, unless `chosen`, does not)."""
    return condition if chosen else OPERATIONS["IfElse"](condition, -1, 1)


def guarded(condition: Node, value: Node, chosen: bool = True) -> Node:
    """`value` where the condition holds, else 0: one selection, even if `value` is one too."""
    select = OPERATIONS["IfElse"]
    dim = broadcast_dims(condition.dim, value.dim)
    inner = guard_of(value)
    if inner is not None:
        if inner[0] is condition:
            return value if inner[2] == chosen else OPERATIONS["Zero"](dim)
        condition = select(holds(condition, chosen), holds(inner[0], inner[2]), -1)
        value, chosen = inner[1], True
    nothing = OPERATIONS["Zero"](dim)
    return select(condition, value, nothing) if chosen else select(condition, nothing, value)


def sum_of_gradients(x: Node, y: Node) -> Node:
    """x + y, under one selection where both are selections: 0 where neither holds.

    Gradients to real and imaginary parts stay parts of one complex vector.
    """
    if x.op.name == y.op.name == "Complex":
        return x.op(*map(sum_of_gradients, x.args, y.args))
    first, second = guard_of(x), guard_of(y)
    if first is None or second is None or first[0] is second[0]:
        return x + y
    either = holds(first[0], first[2])
    return guarded(OPERATIONS["IfElse"](either, either, holds(second[0], second[2])), x + y)


def constant(value: int | float | Fraction | str) -> Node:
    """The node of a number (dimension 1)."""
    return OPERATIONS["Constant"](number(value))


def is_constant(node: Node, value: int) -> bool:
    """Whether the node is this number, or, for 0, a vector of zeros."""
    if node.op.name == "Constant":
        found = node.params[0]
        return found == Fraction(value) or (value == 0 and found == "-0.0")
    return value == 0 and node.op.name == "Zero"


def variable(position: int, dim: int, kind: Axis) -> Node:
    """The node of an argument: its position in the call, its dimension, its index."""
    return OPERATIONS["Var"](position, dim, Axis(kind))


def as_node(operand: object) -> Node:
    """A node itself; a number as a constant.

    Raises:
        FormulaError: for anything else.
    """
    if isinstance(operand, Node):
        return operand
    if isinstance(operand, (int, float, Fraction)):
        return constant(operand)
    raise FormulaError(f"a formula cannot contain a {type(operand).__name__}", found=repr(operand))


def build(op: Op, *operands: object) -> Node:
    """The node of `op` applied to nodes (or numbers) and parameters, checked and simplified.

    Raises:
        FormulaError: wrong number of operands or a parameter of the wrong type.
        DimError: dimensions that the operation cannot combine.
    """
    arity = len(op.args)
    if op.optional:
        arity = min(arity, max(len(operands), arity - op.optional))
    args = tuple(as_node(operand) for operand in operands[:arity])
    params = _params_of(op, operands[arity:])
    if len(args) != arity or len(params) != len(op.params):
        raise FormulaError(f"{op.name} takes {signature(op)}", found=f"{len(operands)} arguments")
    if op.takes is not None:
        args = op.takes(*args)
    try:
        if op.expand is not None:
            return op.expand(*args, *params)
        dim = op.dims(*(arg.dim for arg in args), *params)
        if dim > MOST_COMPONENTS:
            refuse(f"a vector has at most {MOST_COMPONENTS} components, not {dim}")
    except Refusal as refusal:
        raise DimError(
            f"{op.name}: {refusal.why}", found=_describe(op, args, params), hint=refusal.hint
        ) from None
    allowed = _ALLOWED[current().rules]
    for rule in op.rules:
        if rule.changes in allowed:
            simpler = rule.apply(*args, *params)
            if simpler is not None:
                return simpler
    kinds = 0
    for arg in args:
        kinds |= arg.kinds
    if op.name == "Var":
        params = Variable(*cast("tuple[int, int, Axis]", params))  # as the row says
        kinds = Axis(params.kind).bits
    elif op.name == "Ind":
        params = (Axis(params[0]),)
        kinds = 1 << params[0]
    return intern_node(op, args, params, dim, kinds)


def _params_of(op: Op, given: Sequence[object]) -> tuple[object, ...]:
    """The parameters in their one form: lists as tuples, those left out by their defaults."""
    missing = op.params[len(given) :]
    if missing and all(param.default is not None for param in missing):
        given = [*given, *(param.default for param in missing)]
    return tuple(tuple(value) if isinstance(value, list) else value for value in given)


def signature(op: Op) -> str:
    """How the operation is called, for messages and docs: `Extract(x, start, n)`."""
    words = [*op.args, *(param.name for param in op.params)]
    needed = len(words) - op.optional
    return f"{op.name}({', '.join(words[:needed])}{''.join(f'[, {w}]' for w in words[needed:])})"


def _describe(op: Op, args: tuple[Node, ...], params: tuple[object, ...]) -> str:
    parts = [f"{name} has dimension {arg.dim}" for name, arg in zip(op.args, args, strict=False)]
    parts += [f"{param.name} = {value}" for param, value in zip(op.params, params, strict=True)]
    return "; ".join(parts)


def install_operators() -> None:
    """Give `Node` the infix operators that rows declare, so that derivatives read as maths."""
    for op in OPERATIONS.values():
        if op.symbol is not None and len(op.args) == 2:
            Node.operators[op.symbol.text] = op
    Node.operators["neg"] = OPERATIONS["Minus"]
    Node.operators["**"] = power


def power(base: object, exponent: object) -> Node:
    """base ** exponent: a whole-number constant gives Pow, anything else Powf."""
    exponent = as_node(exponent)
    if exponent.op.name == "Constant" and isinstance(exponent.params[0], Fraction):
        value = exponent.params[0]
        if value.denominator == 1 and abs(value) <= 2**31:
            return OPERATIONS["Pow"](base, int(value))
    return OPERATIONS["Powf"](base, exponent)
