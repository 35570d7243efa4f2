"""Formula text and aliases to graphs: tokens with spans, then operators by how tightly they bind.

The text is parsed, never evaluated. Operations, their operands and parameters, and the infix
symbols all come from the table of rows; an alias hides an operation of the same name. All stacks
are explicit, so nesting may be thousands of levels deep, and the time is linear in the text.
Every fault is a FormulaError that shows the formula with carets under what is wrong. Simplifying
is not done here: `ops.table.build` does it while the graph is made.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import NamedTuple, NoReturn

from ..calculus.operators import ELSEWHERE  # and registers Grad, Diff ...
from ..core.node import Axis, Node
from ..errors import DimError, FormulaError, PairfoldError, UnknownNameError, brief, closest
from ..ops import table
from ..ops.table import OPERATIONS, Op, Param
from .declarations import KINDS, LEGACY, Scope, parse_aliases, where_in

_AXES = {"i": Axis.I, "j": Axis.J}
_HIDDEN = frozenset({"Constant"})
_UNARY, _POWER, _COMPARISON = 50, 60, 10


@dataclass(frozen=True)
class ParsedFormula:
    """A formula read from text: its graph, and the arguments that a call must supply.

    `scope` includes the arguments that `Var(...)` literals added, so a second formula that is
    parsed in it shares them.
    """

    node: Node
    text: str
    scope: Scope

    @property
    def variables(self) -> tuple[Node, ...]:
        """The variable at each position of the call."""
        return self.scope.variables

    @property
    def names(self) -> Mapping[int, str]:
        """The alias at each position that has one, for printing."""
        return self.scope.names


def parse(formula: str, aliases: Sequence[str] | Scope = ()) -> ParsedFormula:
    """The graph of a formula, read in the scope of its aliases.

    >>> parsed = parse("Exp(-SqDist(x,y)) * b", ["x = Vi(3)", "y = Vj(3)", "b = Vj(2)"])
    >>> parsed.node.dim, len(parsed.variables), parsed.names[2]
    (2, 3, 'b')

    Raises:
        FormulaError: text that is not a formula (UnknownNameError: an undeclared name; DimError:
            vectors that an operation cannot combine), showing where.
        DerivativeError: a symbolic derivative of something that has none.
    """
    return parse_many([formula], aliases)[0]


@brief
def parse_many(
    formulas: Sequence[str], aliases: Sequence[str] | Scope = ()
) -> tuple[ParsedFormula, ...]:
    """The graphs of several formulas in one scope, for reductions that fold two of them.

    >>> weight, value = parse_many(["x*y", "Var(2,1,1)"], ["x = Vi(1)", "y = Vj(1)"])
    >>> weight.scope is value.scope, len(weight.variables)
    (True, 3)

    Raises:
        FormulaError: as `parse` does.
    """
    scope = aliases if isinstance(aliases, Scope) else parse_aliases(aliases)
    literals = _Literals(scope)
    nodes = [_Parser(formula, scope, literals).parse() for formula in formulas]
    scope = literals.extended()
    return tuple(ParsedFormula(n, t, scope) for n, t in zip(nodes, formulas, strict=True))


class _Literals:
    """The arguments that `Var(...)` literals add behind those of the aliases."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.added: dict[int, tuple[Node, str, tuple[int, int]]] = {}

    def variable(self, values: Sequence[int], text: str, span: tuple[int, int]) -> Node:
        """The variable of one literal; it must agree with what is already declared."""
        position, dim, category = values
        why = None
        if position < 0:
            why = "the position of an argument is at least 0"
        elif dim < 1:
            why = "a vector has at least one component"
        elif category not in (0, 1, 2, 3):
            why = "categories are 0 (indexed by i), 1 (by j), 2 (parameter) and 3 (by both)"
        if why is not None:
            raise FormulaError(
                why, where=where_in(text, [span]), hint="Var(position, dim, category)"
            )
        node = table.variable(position, dim, Axis(category))
        if position < len(self.scope.variables):
            known = self.scope.variables[position]
        else:
            known = self.added.setdefault(position, (node, text, span))[0]
        if known is not node:
            raise FormulaError(
                f"argument {position} is declared differently elsewhere",
                where=where_in(text, [span]),
                found=f"Var({position},{known.dim},{int(known.params[2])}) elsewhere",
                hint="give each argument one dimension and one category",
            )
        return node

    def extended(self) -> Scope:
        """The scope with the literals' arguments behind the aliases'."""
        scope = self.scope
        if not self.added:
            return scope
        first = len(scope.variables)
        last = max(self.added)
        if last != first + len(self.added) - 1:
            missing = next(p for p in range(first, last) if p not in self.added)
            raise FormulaError(
                f"argument {missing} is not declared, but argument {last} is used",
                where=where_in(self.added[last][1], [self.added[last][2]]),
                hint=f"positions after the aliases count from {first} without placeholders",
            )
        more = tuple(self.added[position][0] for position in range(first, last + 1))
        return Scope(scope.variables + more, scope.by_name, scope.names)


# ----- tokens ------------------------------------------------------------------------------------

_TOKEN = re.compile(
    r"(?P<number>(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)"
    r"|(?P<name>[^\W\d]\w*)"
    r"|(?P<symbol>\*\*|//|<=|>=|==|!=|<<|>>|[^\s])"
)

_NOT_HERE = {
    "@": "write x|y for a scalar product, MatVecMult(A, x) for a matrix",
    "//": "write x/y; formulas have no whole-number division",
    "%": "formulas have no % operator; Mod(x, n, 0) is the remainder",
    "~": "for a condition c that is 0 or 1, write 1 - c",
    "&": "for conditions that are 0 or 1, write their product",
    "^": "write x**2 for a power",
    "[": "write Elem(x, 0) for one component, Extract(x, start, n) for several",
    "]": "brackets hold lists of whole numbers only",
    "=": "write == to compare",
    ".": "write Sum(x), not x.sum(); a number such as 0.5 has no blank in it",
}


class _Token(NamedTuple):
    kind: str
    text: str
    start: int
    end: int


def _tokens(text: str) -> list[_Token]:
    found = [_Token(m.lastgroup or "", m[0], *m.span()) for m in _TOKEN.finditer(text)]
    found.append(_Token("end", "", len(text), len(text)))
    return found


def _literal(text: str) -> Fraction | str:
    """The number as written, exactly: 0.1 is the fraction 1/10.

    What float64 can only hold as infinity or 0 is that; past 400 characters a number is rounded.
    """
    wide = float(text)
    if math.isinf(wide):
        return "inf"
    return Fraction(text) if wide and len(text) <= 400 else Fraction(wide)


# ----- the parser --------------------------------------------------------------------------------


class _Part(NamedTuple):
    """A node and the text it came from."""

    node: Node
    start: int
    end: int


class _Pending(NamedTuple):
    """An operator that waits for its right operand."""

    token: _Token
    binds: int
    apply: Callable[..., Node]
    name: str


@dataclass
class _Frame:
    """One level of parentheses: a group (no operation), or the operands of a call."""

    opened: _Token
    op: Op | None = None
    start: int = 0
    operands: list[_Part] = field(default_factory=list)
    pending: list[_Pending] = field(default_factory=list)
    args: list[_Part] = field(default_factory=list)
    params: list[int | tuple[int, ...]] = field(default_factory=list)


def _swapped(op: Op) -> Callable[..., Node]:
    return lambda x, y: table.build(op, y, x)


def _infix() -> dict[str, tuple[int, Callable[..., Node], str]]:
    """The infix operators: how tightly they bind, what builds them, the operation's name."""
    found: dict[str, tuple[int, Callable[..., Node], str]] = {}
    for op in OPERATIONS.values():
        if op.symbol is not None and len(op.args) == 2:
            found[op.symbol.text] = (op.symbol.binds, op, op.name)
    for text, mirrored in ((">", "<"), (">=", "<=")):
        op = next(op for op in OPERATIONS.values() if op.symbol and op.symbol.text == mirrored)
        found[text] = (_COMPARISON, _swapped(op), op.name)
    found["**"] = (_POWER, table.power, "**")
    return found


class _Parser:
    """Reads one formula; `at` is the next token, the last frame the innermost parentheses."""

    def __init__(self, text: str, scope: Scope, literals: _Literals) -> None:
        if not isinstance(text, str):
            raise FormulaError("a formula must be a string", found=repr(text))
        self.text, self.scope, self.literals = text, scope, literals
        self.tokens = _tokens(text)
        self.at = 0
        self.infix = _infix()
        self.frames: list[_Frame] = []

    def parse(self) -> Node:
        """The graph of the whole text."""
        outer = _Frame(_Token("start", "", 0, 0))
        self.frames.append(outer)
        if self.tokens[0].kind == "end":
            raise FormulaError("the formula is empty", found=repr(self.text), hint="Exp(x+y)*b")
        wants_operand = True
        while True:
            token = self.tokens[self.at]
            if not wants_operand and token.kind == "end":
                break
            self.at += 1
            wants_operand = self._operand(token) if wants_operand else self._operator(token)
        if len(self.frames) > 1:
            opened = self.frames[-1].opened
            self._fault("this parenthesis is never closed", opened, hint="add a )")
        return self._complete(outer).node

    # -- where an operand is expected; these return whether one is still expected ---------------

    def _operand(self, token: _Token) -> bool:
        frame = self.frames[-1]
        if token.kind == "number":
            self._push(table.constant(_literal(token.text)), token)
            return False
        if token.kind == "name":
            return self._name(token)
        if token.text == "-":
            minus = OPERATIONS["Minus"]
            frame.pending.append(_Pending(token, _UNARY, minus, minus.name))
            return True
        if token.text == "+":
            return True
        if token.text == "(":
            self.frames.append(_Frame(token, start=token.start))
            return True
        after_comma = not frame.operands and not frame.pending
        if token.text == ")" and after_comma and self.tokens[self.at - 2].text in ("(", ","):
            if frame.op is not None:
                return self._close_call(token)
            if frame.args:
                return self._close_group(frame, token)
        return self._no_operand(token)

    def _no_operand(self, token: _Token) -> NoReturn:
        previous = self.tokens[self.at - 2] if self.at > 1 else None
        if token.text in _NOT_HERE:
            hint = _NOT_HERE["]" if token.text == "[" else token.text]
            self._fault(f"{token.text!r} cannot stand here", token, hint=hint)
        found = "the end of the formula" if token.kind == "end" else repr(token.text)
        after = f"after {previous.text!r}" if previous else "at the start"
        self._fault(f"an operand is missing {after}", token, found=found)

    def _name(self, token: _Token) -> bool:
        called = self.tokens[self.at].text == "("
        op = OPERATIONS.get(token.text) if token.text not in _HIDDEN else None
        if token.text in self.scope.by_name:
            if called:
                hint = f"an alias hides the operation {token.text}; rename it" if op else None
                self._fault(f"{token.text} is a variable, not an operation", token, hint=hint)
            self._push(self.scope.by_name[token.text], token)
            return False
        if op is None:
            self._unknown(token, called)
        if not called:
            hint = f"write {table.signature(op)}"
            self._fault(f"{op.name} is an operation and needs its operands", token, hint=hint)
        self.frames.append(_Frame(self.tokens[self.at], op, start=token.start))
        self.at += 1
        return True if op.args else self._params()

    def _unknown(self, token: _Token, called: bool) -> NoReturn:
        name = token.text
        if name in (*KINDS, *LEGACY):
            self._fault(
                f"{name}(...) declares a variable and cannot stand inside a formula",
                token,
                hint=f"declare an alias such as 'x = {name}(3)' and write x here",
                error=UnknownNameError,
            )
        if name in ELSEWHERE:
            self._fault(
                f"{name} stands in no formula: it acts on a whole reduction",
                token,
                hint=f"write {ELSEWHERE[name]}",
                error=UnknownNameError,
            )
        known = {*OPERATIONS, *self.scope.by_name} - _HIDDEN
        declared = ", ".join(list(self.scope.by_name)[:8])
        hint = closest(name, known) or (f"the variables are {declared}" if declared else None)
        what = "operation" if called else "variable"
        self._fault(f"there is no {what} called {name}", token, hint=hint, error=UnknownNameError)

    # -- where an operator is expected -----------------------------------------------------------

    def _operator(self, token: _Token) -> bool:
        frame = self.frames[-1]
        if token.text == ")":
            if len(self.frames) == 1:
                self._fault("this parenthesis was never opened", token, hint="remove it")
            if frame.op is not None:
                self._argument(frame)
                return self._close_call(token)
            self._argument(frame)
            return self._close_group(frame, token)
        if token.text == "," and frame.op is not None:
            self._argument(frame)
            return self._params() if len(frame.args) == len(frame.op.args) else True
        if token.text == "," and self._takes_tuple():
            self._argument(frame)
            return True
        if token.text not in self.infix:
            self._no_operator(token)
        binds, apply, name = self.infix[token.text]
        least = binds + 1 if token.text == "**" else binds
        while frame.pending and frame.pending[-1].binds >= least:
            if binds == _COMPARISON == frame.pending[-1].binds:
                hint = f"write (x {frame.pending[-1].token.text} y) * (y {token.text} z)"
                self._fault("comparisons cannot be chained", token, hint=hint)
            self._apply_top(frame)
        frame.pending.append(_Pending(token, binds, apply, name))
        return True

    def _no_operator(self, token: _Token) -> NoReturn:
        previous = self.tokens[self.at - 2]
        if token.kind in ("number", "name") or token.text == "(":
            self._fault(
                f"an operator is missing after {previous.text!r}",
                token,
                found=repr(token.text),
                hint="write * between factors",
            )
        if token.text == ",":
            hint = "give an operation such as Concat its operands, or remove the comma"
            self._fault("a comma only separates the operands of an operation", token, hint=hint)
        hint = _NOT_HERE.get(token.text)
        self._fault(f"there is no operator {token.text!r} in formulas", token, hint=hint)

    # -- calls -----------------------------------------------------------------------------------

    def _takes_tuple(self) -> bool:
        """Whether the innermost parentheses are an operand that may be several, joined."""
        if len(self.frames) < 2 or self.frames[-1].op is not None:
            return False
        outer = self.frames[-2]
        if outer.op is None or outer.operands or outer.pending:
            return False
        place = len(outer.args)
        return place < len(outer.op.args) and outer.op.args[place] in outer.op.tuples

    def _close_group(self, frame: _Frame, token: _Token) -> bool:
        """What stood in parentheses becomes one operand: vectors after commas are joined."""
        self.frames.pop()
        parts = list(frame.args)
        joined = parts.pop()
        while parts:
            part = parts.pop()
            node = self._build(OPERATIONS["Concat"], "Concat", [part, joined], [], (0, 0))
            joined = _Part(node, part.start, joined.end)
        self._push(joined.node, _Token("", "", frame.start, token.end))
        return False

    def _argument(self, frame: _Frame) -> None:
        """The operand just read becomes an argument of the call."""
        frame.args.append(self._complete(frame))
        frame.operands.clear()

    def _params(self) -> bool:
        """Parameters up to the end of the call, once its operands are complete."""
        frame = self.frames[-1]
        assert frame.op is not None
        while self.tokens[self.at].text != ")":
            if len(frame.params) == len(frame.op.params):
                self._count(frame, "more")
            frame.params.append(self._param(frame.op, frame.op.params[len(frame.params)]))
            if self.tokens[self.at].text == ",":
                self.at += 1
            elif self.tokens[self.at].text != ")":
                token = self.tokens[self.at]
                if token.kind == "end":
                    self._fault("this parenthesis is never closed", frame.opened, hint="add a )")
                self._fault("a comma or ) is missing", token, found=repr(token.text))
        token = self.tokens[self.at]
        self.at += 1
        return self._close_call(token)

    def _param(self, op: Op, param: Param) -> int | tuple[int, ...]:
        """A whole number or a list of them, as the row asks."""
        token = self.tokens[self.at]
        if param.kind == "int":
            return self._whole(op, param, "a whole number")
        if param.kind == "axis":
            return self._axis(op, param)
        if token.text not in ("[", "("):
            self._bad_param(op, param, "a list of whole numbers such as [2,3]")
        close = "]" if token.text == "[" else ")"
        self.at += 1
        values: list[int] = []
        while self.tokens[self.at].text != close:
            values.append(self._whole(op, param, "a list of whole numbers such as [2,3]"))
            if self.tokens[self.at].text == ",":
                self.at += 1
            elif self.tokens[self.at].text != close:
                self._bad_param(op, param, "a list of whole numbers such as [2,3]")
        self.at += 1
        return tuple(values)

    def _axis(self, op: Op, param: Param) -> Axis:
        name = self.tokens[self.at].text
        if name not in _AXES:
            self._bad_param(op, param, "i or j")
        self.at += 1
        return _AXES[name]

    def _whole(self, op: Op, param: Param, wanted: str) -> int:
        sign = 1
        while self.tokens[self.at].text in ("-", "+"):
            sign = -sign if self.tokens[self.at].text == "-" else sign
            self.at += 1
        token = self.tokens[self.at]
        if token.kind != "number" or not token.text.isdigit() or len(token.text) > 4000:
            self._bad_param(op, param, wanted)
        self.at += 1
        return sign * int(token.text)

    def _bad_param(self, op: Op, param: Param, wanted: str) -> NoReturn:
        token = self.tokens[self.at]
        found = repr(token.text) if token.text else "the end of the formula"
        hint = f"write {table.signature(op)}"
        self._fault(f"{op.name}: {param.name} must be {wanted}", token, found=found, hint=hint)

    def _close_call(self, token: _Token) -> bool:
        """Build the operation of the innermost call, which ends at `token`."""
        frame = self.frames[-1]
        op = frame.op
        assert op is not None
        missing = op.params[len(frame.params) :]
        if len(frame.args) < len(op.args) - op.optional or any(
            param.default is None for param in missing
        ):
            self._count(frame, None)
        self.frames.pop()
        span = (frame.start, token.end)
        if op.name == "Var":
            node = self.literals.variable(frame.params, self.text, span)  # type: ignore[arg-type]
        else:
            params = [*frame.params, *(param.default for param in missing)]
            node = self._build(op, op.name, frame.args, params, span)
        self._push(node, _Token("", "", *span))
        return False

    def _count(self, frame: _Frame, more: str | None) -> NoReturn:
        assert frame.op is not None
        given = len(frame.args) + len(frame.params)
        found = f"{more or ''} {'than ' if more else ''}{given} argument{'s' * (given != 1)}"
        takes = table.signature(frame.op)
        name = _Token("name", frame.op.name, frame.start, frame.start + len(frame.op.name))
        self._fault(f"{frame.op.name} takes {takes}", name, found=found.strip())

    # -- building --------------------------------------------------------------------------------

    def _push(self, node: Node, token: _Token) -> None:
        self.frames[-1].operands.append(_Part(node, token.start, token.end))

    def _complete(self, frame: _Frame) -> _Part:
        while frame.pending:
            self._apply_top(frame)
        return frame.operands[-1]

    def _apply_top(self, frame: _Frame) -> None:
        """Apply the last pending operator of a frame to the operands it waited for."""
        token, _, apply, name = frame.pending.pop()
        prefix = name == "Minus"
        parts = [frame.operands.pop() for _ in range(1 if prefix else 2)][::-1]
        node = self._build(apply, name, parts, [], (token.start, token.end))
        start = token.start if prefix else parts[0].start
        frame.operands.append(_Part(node, start, parts[-1].end))

    def _build(
        self,
        apply: Callable[..., Node],
        name: str,
        parts: Sequence[_Part],
        params: Sequence[object],
        span: tuple[int, int],
    ) -> Node:
        try:
            return apply(*(part.node for part in parts), *params)
        except PairfoldError as error:
            spans = [(part.start, part.end) for part in parts] or [span]
            what, found = error.what, error.found
            if isinstance(error, DimError):
                raised_by, _, why = error.what.partition(": ")
                what = f"{name}: {why}" if raised_by in OPERATIONS else what
                found = self._dims(parts, params, OPERATIONS.get(name))
            raised = type(error)(
                what, where=where_in(self.text, spans), found=found, hint=error.hint
            )
        raise raised from None

    def _dims(self, parts: Sequence[_Part], params: Sequence[object], op: Op | None) -> str:
        """What the operands are, in the words of the formula."""
        found: list[str] = []
        for node, start, end in parts:
            text = " ".join(self.text[start:end].split())
            text = text if len(text) <= 40 else text[:37] + "..."
            said = f"{text} has dimension {node.dim}"
            if node.op.name == "Var":
                position, _, kind = node.params
                said += f" (argument {position}, {kind.says})"
            found.append(said)
        if op is not None:
            found += [f"{param.name} = {v}" for param, v in zip(op.params, params, strict=False)]
        return "; ".join(found)

    def _fault(
        self,
        what: str,
        token: _Token,
        *,
        found: str | None = None,
        hint: str | None = None,
        error: type[FormulaError] = FormulaError,
    ) -> NoReturn:
        where = where_in(self.text, [(token.start, token.end)])
        raise error(what, where=where, found=found, hint=hint)
