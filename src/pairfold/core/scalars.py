"""Scalar values: what an operation's row says about one component, as an interned graph.

A row's `value` is called with a `Scalars` builder and writes ordinary arithmetic on `Value`s. A
value knows its *stage* (bit 1: depends on i, bit 2: on j), the component loops it is inside of,
and, for an index, the interval it lies in: a read that could leave its vector is refused here,
before any machine code exists. Ids grow with creation, so sorting by id sorts arguments first.

A *table* is a vector whose components are computed once, in order, and then read any number of
times, at any index; a component may be computed from earlier ones of the same table.

What a value is made of is said by its row in `core.primitives`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Iterable, Sequence
from fractions import Fraction
from typing import NamedTuple, Protocol, TypeVar, cast

from ..errors import InternalError
from .node import Axis
from .numbers import Number, number
from .primitives import INDEX_OPERATIONS, PRIMITIVES, PlaceholderName, ValueKind, What
from .wholes import on_wholes

T = TypeVar("T")

# Stages: what a value depends on, bit by bit. *Row* is the index that is kept.
ONCE, ROW, COLUMN, PAIR = 0, 1, 2, 3
STAGES = {ONCE: "once", ROW: "row", COLUMN: "column", PAIR: "pair"}

# Numbers of rows and columns are below.
_MOST_ROWS = 2**48


class Loop:
    """A loop over components 0..n-1 with carried values: state = step(k, state).

    The loop of a table carries the memory of what it has computed so far, and nothing else.
    """

    __slots__ = ("carries", "index", "inits", "n", "nexts", "results")

    index: Value
    carries: tuple[Value, ...]
    inits: tuple[Value, ...]
    nexts: tuple[Value, ...]
    results: tuple[Value, ...]

    def __init__(self, n: int) -> None:
        self.n = n


class Load(NamedTuple):
    """A component of an argument; None: the operand says which."""

    position: int
    component: int | None


class Placeholder(NamedTuple):
    """What a backend supplies: number `place` of its kind."""

    name: PlaceholderName
    place: int


class Carried(NamedTuple):
    """Part `place` of the state of a loop."""

    loop: Loop
    place: int


# What a value is made of besides its operands. An integer is the second operand of an operation on
# indices, or the component of a table, where that is no value.
Data = Number | Load | Placeholder | Carried | Loop | int | None


class Value:
    """One scalar (per pair), mask, component index or table; made only by `Scalars`.

    `what` is the name of its row in `core.primitives`, which says what `args` and `data` are.
    `running`: the loops whose state so far it depends on (beyond their index).
    """

    __slots__ = (
        "args",
        "bounds",
        "builder",
        "data",
        "id",
        "kind",
        "loops",
        "running",
        "stage",
        "what",
    )

    builder: Scalars
    id: int
    what: What
    args: tuple[Value, ...]
    data: Data
    kind: ValueKind
    stage: int
    loops: frozenset[Loop]
    running: frozenset[Loop]
    bounds: tuple[int, int]

    def __repr__(self) -> str:
        return f"<{self.what} {self.data if self.data is not None else ''} #{self.id}>"

    def _data_as(self, kind: type[T]) -> T:
        if not isinstance(self.data, kind):
            raise InternalError(f"{self!r} has no {kind.__name__}")
        return self.data

    @property
    def number(self) -> Number:
        """The number that a constant is."""
        return self.data if isinstance(self.data, str) else self._data_as(Fraction)

    @property
    def loaded(self) -> Load:
        """Which component of which argument is loaded."""
        return self._data_as(Load)

    @property
    def supplied(self) -> Placeholder:
        """What is to be supplied."""
        return self._data_as(Placeholder)

    @property
    def carried(self) -> Carried:
        """Which part of which loop's state a value is, inside the loop or after it."""
        return self._data_as(Carried)

    @property
    def loop(self) -> Loop:
        """The loop that a value is the index, the memory, the table or a part of the state of."""
        return self.data.loop if isinstance(self.data, Carried) else self._data_as(Loop)

    @property
    def integer(self) -> int:
        """The limit of an index, the component of a table: what is known when it is compiled."""
        return self._data_as(int)

    def _binary(self, name: str, other: Operand, swap: bool = False) -> Value:
        if self.kind == "index":
            if swap:
                return self.builder.index_op("mul", self, -1) + other
            return self.builder.index_op(name, self, other)
        left, right = (other, self) if swap else (self, other)
        return self.builder.apply(name, left, right)

    def __add__(self, other: Operand) -> Value:
        return self._binary("add", other)

    def __sub__(self, other: Operand) -> Value:
        return self._binary("sub", other)

    def __rsub__(self, other: Operand) -> Value:
        return self._binary("sub", other, swap=True)

    def __mul__(self, other: Operand) -> Value:
        return self._binary("mul", other)

    def __truediv__(self, other: Operand) -> Value:
        return self._binary("div", other)

    def __rtruediv__(self, other: Operand) -> Value:
        return self._binary("div", other, swap=True)

    def __floordiv__(self, other: int) -> Value:
        return self.builder.index_op("floordiv", self, other)

    def __mod__(self, other: int) -> Value:
        return self.builder.index_op("mod", self, other)

    def __neg__(self) -> Value:
        return self.builder.apply("neg", self)

    __radd__ = __add__
    __rmul__ = __mul__


Operand = Value | int | float | Fraction
Index = Value | int
Entries = Callable[[Index], Value]


class Reader(Protocol):
    """What reads the components of an operand; see `Op.value`."""

    @property
    def dim(self) -> int:
        """How many components there are."""
        ...

    def __call__(self, k: Index, /) -> Value: ...


_NO_LOOPS: frozenset[Loop] = frozenset()


class Scalars:
    """Builds values, one object per distinct computation.

    Loops of at most `unroll` components are written out; longer ones stay loops, and so do sums
    of pairs over more than `unroll_pairs` components that read nothing but those components. With
    `separate`, exponentials of a sum of a row value and a column value become products; with
    `invert`, what divides pairs without being a pair's value itself is inverted beforehand. Rows
    are those of the axis that is `kept`.
    """

    def __init__(
        self,
        unroll: int = 16,
        separate: bool = False,
        invert: bool = False,
        unroll_pairs: int | None = None,
        kept: Axis = Axis.I,
    ) -> None:
        self.unroll, self.separate, self.invert = unroll, separate, invert
        self.kept = kept
        self.unroll_pairs = unroll if unroll_pairs is None else unroll_pairs
        self.guarded: set[Value] = set()
        self.inverses: set[Value] = set()
        self._known: dict[tuple[str, tuple[Value, ...], Data], Value] = {}
        self._remembered: dict[Hashable, object] = {}
        self._ids = itertools.count()

    @property
    def size(self) -> int:
        """How many values there are."""
        return len(self._known)

    def __contains__(self, value: Value) -> bool:
        """Whether the value was made here."""
        return self._known.get((value.what, value.args, value.data)) is value

    def make(
        self,
        what: What,
        args: tuple[Value, ...] = (),
        data: Data = None,
        *,
        kind: ValueKind = "real",
        stage: int | None = None,
        loops: frozenset[Loop] | None = None,
        running: frozenset[Loop] | None = None,
        bounds: tuple[int, int] = (0, 0),
    ) -> Value:
        """The value of a row of `core.primitives`, made once."""
        key = (what, args, data)
        value = self._known.get(key)
        if value is None:
            value = Value()
            value.builder, value.id = self, next(self._ids)
            value.what, value.args, value.data, value.kind = what, args, data, kind
            value.bounds = bounds
            if stage is None:
                stage = 0
                for arg in args:
                    stage |= arg.stage
            value.stage = stage
            if loops is None:
                loops = _NO_LOOPS.union(*(arg.loops for arg in args)) if args else _NO_LOOPS
            if running is None:
                running = _NO_LOOPS.union(*(arg.running for arg in args)) if args else _NO_LOOPS
            value.loops, value.running = loops, running
            self._known[key] = value
        return value

    # -- leaves ---------------------------------------------------------------------------------

    def constant(self, value: float | Fraction | str) -> Value:
        """A constant, exact until it is rounded to the kernel's dtype."""
        return self.make("const", data=number(value))

    def load(self, position: int, dim: int, stage: int, k: Index) -> Value:
        """Component `k` of the argument at `position`."""
        low, high = (k, k) if isinstance(k, int) else k.bounds
        if not 0 <= low <= high < dim:
            raise InternalError(
                f"a formula reads components {low}..{high} of argument {position}, which has {dim}"
            )
        if isinstance(k, int):
            return self.make("load", data=Load(position, k), stage=stage)
        return self.make("load", (k,), Load(position, None), stage=stage | k.stage)

    def placeholder(self, name: PlaceholderName, place: int) -> Value:
        """A value that the backend supplies, number `place` of its kind; see `PlaceholderName`."""
        return self.make("placeholder", data=Placeholder(name, place), stage=PAIR)

    def number_along(self, axis: Axis) -> Value:
        """The number of the pair's row or column, a whole number.

        It counts as a value of pairs: backends know it there, and nothing keeps it.
        """
        what: What = "row_number" if axis == self.kept else "column_number"
        return self.make(what, kind="whole", stage=PAIR, bounds=(0, _MOST_ROWS))

    def as_value(self, operand: Operand) -> Value:
        """The operand itself, or the constant it stands for."""
        return operand if isinstance(operand, Value) else self.constant(operand)

    # -- arithmetic -----------------------------------------------------------------------------

    def apply(self, name: str, *operands: Operand) -> Value:
        """A primitive applied to values or plain numbers."""
        row = PRIMITIVES[name]
        args = tuple(self.as_value(operand) for operand in operands)
        if any(arg.kind == "whole" for arg in args):
            whole = on_wholes(self, name, args)
            if whole is not None:
                return whole
            args = tuple(map(self.as_real, args))
        if name == "exp" and self.separate and args[0].stage == PAIR:
            separated = self._separated(args[0])
            if separated is not None:
                return separated
        if name == "div" and self.invert and args[0].stage == PAIR:
            inverse = self._inverse(args[1])
            if inverse is not None:
                return args[0] * inverse
        if len(args) != row.arity:
            raise InternalError(f"primitive {name} takes {row.arity} operands, got {len(args)}")
        return self.make(row.name, args, kind=row.kind)

    def as_real(self, value: Value) -> Value:
        """A whole number rounded to the kernel's dtype; any other value itself."""
        return self.make("real", (value,)) if value.kind == "whole" else value

    def _inverse(self, divisor: Value) -> Value | None:
        """1/divisor, where that is computed once per row, per column or in all.

        Backends must check that it is of moderate size: z/c is finite where 1/c may not be.
        """
        if divisor.stage == PAIR or divisor.loops or divisor.running or divisor.what == "const":
            return None
        inverse = self.make("div", (self.constant(1), divisor))
        self.inverses.add(inverse)
        return inverse

    def _separated(self, exponent: Value) -> Value | None:
        """e^(x_i + y_j) as e^(x_i) e^(y_j), when no term of the exponent depends on both.

        Backends must check the exponents of the `guarded` halves: far from zero the product
        could overflow where the sum does not.
        """
        groups: dict[int, Value] = {}
        todo = [(exponent, False)]
        while todo:
            value, negative = todo.pop()
            if value.what in ("add", "sub"):
                flipped = negative != (value.what == "sub")
                todo += [(value.args[1], flipped), (value.args[0], negative)]
            elif value.what == "neg":
                todo.append((value.args[0], not negative))
            elif value.stage == PAIR or len(value.loops) > 1 or value.running:
                return None
            else:
                term = -value if negative else value
                side = value.stage & 2
                groups[side] = groups[side] + term if side in groups else term
        halves = [self.make("exp", (groups[side],)) for side in sorted(groups)]
        self.guarded.update(halves)
        return halves[0] * halves[1]

    def select(self, mask: Value, x: Operand, y: Operand) -> Value:
        """x where the mask holds, else y; the other one is never looked at."""
        return self.apply("select", mask, x, y)

    def __getattr__(self, name: str) -> Callable[..., Value]:
        if name not in PRIMITIVES:
            raise AttributeError(name)
        return lambda *operands: self.apply(name, *operands)

    # -- component indices ----------------------------------------------------------------------

    def index_op(self, name: str, left: Value, right: Operand) -> Value:
        """Integer arithmetic on a component index, with its interval."""
        if isinstance(right, int):
            simpler = self._shifted(name, left, right)
            if simpler is not None:
                return simpler
        row = INDEX_OPERATIONS[name]
        if isinstance(right, Value):
            bounds = row.bounds(left.bounds, right.bounds)
            return self.make(row.what, (left, right), kind="index", bounds=bounds)
        if not isinstance(right, int):
            raise InternalError(f"component indices are integers, not {right!r}")
        bounds = row.bounds(left.bounds, (right, right))
        return self.make(row.what, (left,), right, kind="index", bounds=bounds)

    def _shifted(self, name: str, left: Value, right: int) -> Value | None:
        """An index in the one form min(max(i + shift, low), high), bounds only where they act.

        Cutting and joining vectors over and over then reads few distinct components, each of which
        is computed once.
        """
        if name == "sub":
            return self.index_op("add", left, -right)
        low, high = left.bounds
        what, inner, data = "", left, 0
        if isinstance(left.data, int):
            what, inner, data = left.what, left.args[0], left.data
        if name == "add":
            if what == "index_add":
                return self.index_op("add", inner, data + right)
            if what in ("index_min", "index_max"):
                moved = self.index_op("add", inner, right)
                return self.index_op(what.removeprefix("index_"), moved, data + right)
            return left if right == 0 else None
        if name in ("min", "max"):
            if (low >= right) if name == "max" else (high <= right):
                return left
            if (high <= right) if name == "max" else (low >= right):
                while left.args:
                    left = left.args[0]
                return self.index_op("add", self.index_op("mul", left, 0), right)
            if what == f"index_{name}":
                return self.index_op(name, inner, (min if name == "min" else max)(data, right))
            if what == "index_min":
                return self.index_op("min", self.index_op("max", inner, right), data)
        unchanged = right == 1 and name in ("mul", "floordiv")
        return left if unchanged or (name == "mod" and 0 <= low <= high < right) else None

    def at_most(self, k: Index, limit: int) -> Index:
        """min(k, limit)"""
        return min(k, limit) if isinstance(k, int) else self.index_op("min", k, limit)

    def at_least(self, k: Index, limit: int) -> Index:
        """max(k, limit)"""
        return max(k, limit) if isinstance(k, int) else self.index_op("max", k, limit)

    def position(self, k: Index) -> Value:
        """A component index as a number, to compare or compute with."""
        return self.constant(k) if isinstance(k, int) else self.make("position", (k,))

    def choose(
        self, k: Index, limit: int, below: Callable[[], Value], otherwise: Callable[[], Value]
    ) -> Value:
        """below() if k < limit else otherwise(); both must be readable when k is a loop index."""
        low, high = (k, k) if isinstance(k, int) else k.bounds
        if high < limit:
            return below()
        if low >= limit:
            return otherwise()
        assert isinstance(k, Value)
        return self.select(self.is_below(k, limit), below(), otherwise())

    def is_below(self, k: Value, limit: int) -> Value:
        """Whether a component index is below a limit."""
        if k.what == "index_add" and isinstance(k.data, int):
            k, limit = k.args[0], limit - k.data
        return self.make("index_below", (k,), limit, kind="mask")

    # -- component loops ------------------------------------------------------------------------

    def loop(
        self,
        n: int,
        inits: Sequence[Operand],
        step: Callable[..., Sequence[Value]],
    ) -> tuple[Value, ...]:
        """State after n steps: state = step(k, *state), k = 0..n-1."""
        state = tuple(self.as_real(self.as_value(init)) for init in inits)
        if n <= self.unroll:
            for k in range(n):
                state = tuple(step(k, *state))
            return state
        return self._looped(n, state, step)

    def _looped(
        self, n: int, state: tuple[Value, ...], step: Callable[..., Sequence[Value]]
    ) -> tuple[Value, ...]:
        stage = 0
        for value in state:
            stage |= value.stage
        while True:
            loop = self._traced(n, state, step, stage)
            reached = stage
            for value in loop.nexts:
                reached |= value.stage
            if reached == stage:
                break
            stage = reached
        return self._results(loop, stage)

    def _traced(
        self, n: int, inits: tuple[Value, ...], step: Callable[..., Sequence[Value]], stage: int
    ) -> Loop:
        loop = Loop(n)
        inside = frozenset((loop,))
        loop.index = self.loop_index(loop)
        loop.inits = inits
        loop.carries = tuple(
            self.make("carry", data=Carried(loop, place), stage=stage, loops=inside, running=inside)
            for place in range(len(inits))
        )
        loop.nexts = tuple(map(self.as_real, step(loop.index, *loop.carries)))
        return loop

    def _results(self, loop: Loop, stage: int) -> tuple[Value, ...]:
        args = (*loop.inits, *loop.nexts)
        loops = _NO_LOOPS.union(*(arg.loops for arg in args)) - {loop}
        running = _NO_LOOPS.union(*(arg.running for arg in args)) - {loop}
        loop.results = tuple(
            self.make(
                "result", args, Carried(loop, place), stage=stage, loops=loops, running=running
            )
            for place in range(len(loop.inits))
        )
        return loop.results

    def loop_index(self, loop: Loop) -> Value:
        """The running index of a component loop."""
        return self.make(
            "index_loop",
            data=loop,
            kind="index",
            stage=0,
            loops=frozenset((loop,)),
            bounds=(0, loop.n - 1),
        )

    def sum(self, n: int, term: Callable[[Index], Value]) -> Value:
        """term(0) + ... + term(n-1), in that order."""
        if n <= self.unroll and (n <= self.unroll_pairs or not self._is_plain(n, term)):
            total = term(0)
            for k in range(1, n):
                total = total + term(k)
            return total
        return self._looped(n, (self.constant(0),), lambda k, total: [total + term(k)])[0]

    def _is_plain(self, n: int, term: Callable[[Index], Value]) -> bool:
        """Whether a term of pairs is arithmetic on component k of some arguments, no more."""
        loop = Loop(n)
        loop.index = self.loop_index(loop)
        value = term(loop.index)
        inside = [v for v in reachable([value]) if loop in v.loops]
        return value.stage == PAIR and all(
            v is loop.index
            or (v.what == "load" and v.args == (loop.index,))
            or (v.what in PRIMITIVES and PRIMITIVES[v.what].cost == 1)
            for v in inside
        )

    # -- tables ---------------------------------------------------------------------------------

    def table(
        self, n: int, entry: Callable[[Index, Entries], Value], most: int | None = None
    ) -> Table:
        """A vector of n components that are computed once: component k is entry(k, read).

        `read(m)` is an earlier component of the same table; at an m that is not below k it is an
        undefined number, to be selected away. At most `most` components are written out, by
        default as many as those of a loop.
        """
        return Table(self, n, entry, self.unroll if most is None else min(most, self.unroll))

    def remembered(self, key: Hashable, make: Callable[[], T]) -> T:
        """What `make()` returned the first time: tables that all components of a row share."""
        if key not in self._remembered:
            self._remembered[key] = make()
        return cast("T", self._remembered[key])  # a key is remembered for one kind of thing

    def tabulated(self, n: int, entry: Callable[[Index, Entries], Value]) -> Value:
        """The table itself, as a value that `entry` reads."""
        stage = 0
        while True:
            loop = Loop(n)
            inside = frozenset((loop,))
            loop.index = self.loop_index(loop)
            memory = self.make(
                "memory", data=loop, kind="table", stage=stage, loops=inside, running=inside
            )
            value = self.as_real(entry(loop.index, lambda k, memory=memory: self.entry(memory, k)))
            if value.stage | stage == stage or loop not in value.running:
                break
            stage |= value.stage
        loop.inits, loop.results = (), ()
        loop.carries, loop.nexts = (memory,), (value,)
        return self.make(
            "table",
            (value,),
            loop,
            kind="table",
            loops=value.loops - inside,
            running=value.running - inside,
        )

    def entry(self, table: Value, k: Index) -> Value:
        """Component k of a table."""
        low, high = (k, k) if isinstance(k, int) else k.bounds
        n = table.loop.n
        if not 0 <= low <= high < n:
            raise InternalError(f"a formula reads components {low}..{high} of a table of {n}")
        if isinstance(k, int):
            return self.make("entry", (table,), k)
        return self.make("entry", (table, k))


class Table:
    """Reads components of a table. Few components are written out where the index is known."""

    __slots__ = ("_compute", "_most", "_plain", "_scalars", "_value", "dim")

    def __init__(
        self, scalars: Scalars, n: int, entry: Callable[[Index, Entries], Value], most: int
    ) -> None:
        self.dim, self._scalars, self._compute, self._most = n, scalars, entry, most
        self._plain: list[Value] = []
        self._value: Value | None = None

    def __call__(self, k: Index) -> Value:
        if isinstance(k, int) and 0 <= k < self.dim <= self._most:
            while len(self._plain) <= k:
                self._plain.append(self._compute(len(self._plain), self._earlier))
            return self._plain[k]
        if self._value is None:
            self._value = self._scalars.tabulated(self.dim, self._compute)
        return self._scalars.entry(self._value, k)

    def _earlier(self, k: Index) -> Value:
        if not isinstance(k, int):
            raise InternalError("a short table reads itself at an index that is not known")
        return self._plain[k] if k < len(self._plain) else self._scalars.constant("nan")


def reachable(
    targets: Iterable[Value], is_leaf: Callable[[Value], bool] = lambda value: False
) -> list[Value]:
    """Values below `targets`, arguments first; arguments of leaves are not entered."""
    return reachable_through(targets, lambda value: () if is_leaf(value) else value.args)


def reachable_through(
    targets: Iterable[Value], below: Callable[[Value], Iterable[Value]]
) -> list[Value]:
    """Values below `targets`, arguments first; `below` says which arguments are entered."""
    found: set[Value] = set()
    stack = list(targets)
    while stack:
        value = stack.pop()
        if value not in found:
            found.add(value)
            stack.extend(below(value))
    return sorted(found, key=lambda value: value.id)
