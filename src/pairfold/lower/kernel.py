"""Kernel: a formula and a reduction as scalar values with a place for each.

Every value has a stage: *once* (parameters only), *row* (the kept index), *column* (the reduced
index) or *pair*. Values below the pair stage that pairs need are *exported*: computed once per
batch, row or column into numbered slots, so the inner loop holds pair work only. The kernel is the
common text of all backends; `backends.reference.interpreter` is what it means. What pairs read of
arrays of pairs has slots, too: one of its own for each pair.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, reduce
from itertools import islice

from ..core.node import Axis, Node, topological
from ..core.scalars import (
    COLUMN,
    ONCE,
    PAIR,
    ROW,
    Index,
    Loop,
    Scalars,
    Table,
    Value,
    reachable,
    reachable_through,
)
from ..core.truths import mask_of
from ..errors import InternalError, UnsupportedError
from ..ops.reductions import Reduction
from ..ops.table import OPERATIONS
from ..settings import current
from .accumulators import Accumulator, Folded, rules_of
from .factors import take_factors
from .verify import verify

# What compiles within some tens of seconds.
_MOST_NODES = 50_000

# What a kernel takes of memory, and each of its values, with what is kept beside them.
_KERNEL_BYTES, _VALUE_BYTES = 24 * 1024, 640

# Levels of a formula that are lowered at once, where what they read is short, and anywhere.
_SHALLOW, _DEEP = 16, 32

# Values that are read or made where they are needed.
_NEVER_KEPT = {"const", "load", "placeholder", "carry", "row_number", "column_number", "whole"}

_BOTH = 1 << Axis.I | 1 << Axis.J
# The stage that is folded over, by the one that is kept.
_OTHER = {ROW: COLUMN, COLUMN: ROW}


@dataclass(frozen=True)
class Argument:
    """A variable of the formula: where it stands in the call, its dimension, its stage.

    `truth`: whether arrays hold truth values, a byte for every pair, which are read as 0 and 1.
    """

    position: int
    dim: int
    stage: int
    truth: bool = False


@dataclass(frozen=True)
class Slot:
    """A computed value kept for later stages; with a loop, one slot per component."""

    offset: int
    loop: Loop | None


@dataclass
class Stage:
    """What one stage holds: raw components of its arguments, then computed values."""

    raw: dict[int, int] = field(default_factory=dict)
    computed: dict[Value, Slot] = field(default_factory=dict)
    raw_size: int = 0
    size: int = 0


@dataclass(frozen=True)
class Bounds:
    """Exponentials of pairs whose arguments are of bounded magnitude, and under which condition.

    `slots`: by stage, the slots whose values must then be moderate (see `lower.bounds`), as
    (first, the one after the last).
    """

    exponentials: frozenset[Value] = frozenset()
    slots: Mapping[int, tuple[tuple[int, int], ...]] = field(default_factory=dict)


@dataclass
class Kernel:
    """Loops over scalar values, ready for a backend; see the module's text.

    `outputs` is all that is folded, accumulator after accumulator: one value per component, or one
    for all with `output_loop`, then the total, where a reduction wants one. Each has a factor that
    has left its sum, or None, in `factors`. Accumulators that are kept on rows come first. Pairs
    for which the mask `keep` does not hold are absent, where there is one. `fused`: the code and
    the tasks are those of `lower.fused`, by which columns may be kept, too.
    """

    accumulators: tuple[Accumulator, ...]
    kept: Axis
    scalars: Scalars
    arguments: tuple[Argument, ...]
    stages: dict[int, Stage]
    outputs: tuple[Value, ...]
    factors: tuple[Value | None, ...]
    output_loop: Loop | None
    keep: Value | None = None
    fused: bool = False
    bounds: Bounds = Bounds()

    def __str__(self) -> str:
        return "; ".join(str(each.folded) for each in self.accumulators)

    @property
    def bytes(self) -> int:
        """About how much memory it takes."""
        return _KERNEL_BYTES + _VALUE_BYTES * self.scalars.size

    @cached_property
    def read_at(self) -> dict[int, int]:
        """The stage of the argument at each position."""
        return {argument.position: argument.stage for argument in self.arguments}

    # -- accumulators ---------------------------------------------------------------------------

    @property
    def only(self) -> Accumulator:
        """The accumulator of a kernel that has one."""
        (found,) = self.accumulators
        return found

    def owner(self, number: int) -> Accumulator:
        """The accumulator that folds value `number` of `outputs`."""
        return next(each for each in self.accumulators if number < each.stop)

    def kept_on(self, axis: int) -> list[Accumulator]:
        """The accumulators whose results belong to rows, or to columns."""
        return [each for each in self.accumulators if each.axis == axis]

    @cached_property
    def dim(self) -> int:
        """Components of all accumulators."""
        return sum(each.count for each in self.accumulators)

    @cached_property
    def across(self) -> int:
        """Components that are kept on columns: the last ones."""
        return sum(each.count for each in self.kept_on(COLUMN))

    @cached_property
    def places(self) -> int:
        """States kept per row."""
        return sum(each.places for each in self.kept_on(ROW))

    @cached_property
    def parts(self) -> int:
        """Numbers of all states kept per row; of lists, those of one entry each."""
        return sum(each.places * each.parts for each in self.kept_on(ROW))

    @cached_property
    def results(self) -> tuple[int, ...]:
        """The number of components of each result."""
        return tuple(size for each in self.accumulators for size in each.folded.results)

    @cached_property
    def kinds(self) -> tuple[str, ...]:
        """The kind of each result: value, index, truth or state."""
        return tuple(result.kind for each in self.accumulators for result in each.rule.results)

    @cached_property
    def maxima(self) -> int:
        """Maxima kept per row: those of the same exponents are one."""
        return sum(each.folded.maxima for each in self.accumulators if not each.shares)

    @cached_property
    def lists(self) -> tuple[Accumulator, ...]:
        """The accumulators whose states are lists."""
        return tuple(each for each in self.accumulators if each.rule.top_k)

    @property
    def logits(self) -> tuple[Value, ...]:
        """The exponents that terms measured from maxima are made of, one for each maximum."""
        own = (each for each in self.accumulators if not each.shares)
        return tuple(logit for each in own for logit in each.logits)

    # -- values ---------------------------------------------------------------------------------

    @property
    def pair_values(self) -> tuple[Value, ...]:
        """All that is computed of a pair before it is folded: outputs, exponents, the mask."""
        keep = () if self.keep is None else (self.keep,)
        return (*self.outputs, *self.logits, *keep)

    @cached_property
    def numbers(self) -> tuple[Value, ...]:
        """The numbers of rows and columns that pairs are computed from."""
        found = reachable(self.pair_values)
        return tuple(value for value in found if value.what in ("row_number", "column_number"))

    @property
    def guarded(self) -> set[Value]:
        """Exponentials whose exponents must be near zero."""
        return self.scalars.guarded

    def slot(self, value: Value, at: int) -> tuple[int, int, Index] | None:
        """(stage, offset, index) where `value` is read from when computing at stage `at`."""
        if value.what == "load":
            position, k = value.loaded
            stage = self.read_at[position]
            index: Index = k if k is not None else value.args[0]
            return stage, self.stages[stage].raw[position], index
        if value.what == "entry":
            return self._entry_slot(value, at)
        found = self.stages[value.stage].computed.get(value) if value.stage != PAIR else None
        if found is None or value.stage == at:
            return None
        index = 0 if found.loop is None else found.loop.index
        return value.stage, found.offset, index

    def _entry_slot(self, value: Value, at: int) -> tuple[int, int, Index] | None:
        """Where a component of a table that is kept as a whole is read from."""
        table = value.args[0]
        if table.stage in (at, PAIR):
            return None
        found = self.stages[table.stage].computed.get(table)
        if found is None:
            found = self.stages[table.stage].computed.get(value)
            if found is None:
                return None
            return table.stage, found.offset, 0 if found.loop is None else found.loop.index
        index: Index = value.integer if len(value.args) == 1 else value.args[1]
        return table.stage, found.offset, index

    def needed(self, targets: Iterable[Value], at: int) -> list[Value]:
        """Values to compute (or read) at a stage for the targets, arguments first."""
        return reachable_through(targets, lambda value: self.below(value, at))

    def below(self, value: Value, at: int) -> Sequence[Value]:
        """What a value is made from at a stage: what is read from a slot needs an index only."""
        if not self.is_leaf(value, at):
            return value.args
        if value.what == "load":
            return value.args
        return value.args[1:] if value.what == "entry" else ()

    def is_leaf(self, value: Value, at: int) -> bool:
        """Whether the value is read from a slot at this stage rather than computed."""
        return self.slot(value, at) is not None


class _Reader:
    """Reads components of a node; what operations' rows are given for their operands."""

    __slots__ = ("dim", "lowering", "node")

    def __init__(self, lowering: _Lowering, node: Node) -> None:
        self.lowering, self.node, self.dim = lowering, node, node.dim

    def __call__(self, k: Index) -> Value:
        return self.lowering.component(self.node, 0 if self.dim == 1 else k)


class _KeepingReader(_Reader):
    """Reads components of a node that are read more than once: each is computed once."""

    __slots__ = ()

    def __call__(self, k: Index) -> Value:
        return super().__call__(k) if self.dim == 1 else self.lowering.table(self.node)(k)


def _moves_only(node: Node) -> bool:
    """Whether reading a component costs no more than finding out which."""
    while node.op.moves and node.args:
        node = node.args[0]
    return not node.args


class _Lowering:
    """Turns nodes into scalar values, each (node, component) once."""

    def __init__(
        self, scalars: Scalars, stage_of_kind: dict[Axis, int], roots: Iterable[Node]
    ) -> None:
        self.scalars = scalars
        self.stage_of_kind = stage_of_kind
        self.known: dict[tuple[Node, Index], Value] = {}
        self.tables: dict[Node, Table] = {}
        self.readers: dict[tuple[Node, type[_Reader]], _Reader] = {}
        self.kept: set[Node] = set()
        self._prepare(roots)

    def _prepare(self, roots: Iterable[Node]) -> None:
        """Lower what lies deep in a formula from below, a few levels at a time.

        Rules read their operands, whose rules read theirs: so no reading nests deeply. A long
        vector at such a level is kept in memory.
        """
        depth: dict[Node, int] = {}
        nodes = topological(roots)
        if len(nodes) > _MOST_NODES:
            raise UnsupportedError(
                "this formula is too long to be compiled",
                found=f"{len(nodes)} operations and variables; the limit is {_MOST_NODES}",
                hint="several reductions of parts of it",
            )
        for node in nodes:
            below = max((depth[arg] for arg in node.args), default=0)
            depth[node] = below + (bool(node.args) and not node.op.elementwise)
            short = node.dim <= self.scalars.unroll
            if depth[node] < (_SHALLOW if short else _DEEP):
                continue
            depth[node] = 0
            if short:
                for k in range(node.dim):
                    self.component(node, k)
            else:
                self.table(node)(0)
                self.kept.add(node)

    def component(self, node: Node, k: Index) -> Value:
        """Component k of a node; deep chains of elementwise operations use no recursion."""
        todo = [(node, k)]
        while todo:
            node_, k_ = todo[-1]
            if (node_, k_) not in self.known and node_ in self.kept:
                self.known[node_, k_] = self.table(node_)(k_)
            if (node_, k_) in self.known:
                todo.pop()
                continue
            missing = [
                (arg, place)
                for arg in node_.args
                for place in self._read_at(node_, arg, k_)
                if (arg, place) not in self.known
            ]
            if missing:
                todo.extend(missing)
                continue
            self.known[node_, k_] = self._evaluate(node_, k_)
            todo.pop()
        return self.known[node, k]

    def _read_at(self, node: Node, arg: Node, k: Index) -> Sequence[Index]:
        """Components of `arg` that surely will be read: known ahead for short vectors."""
        if node.op.elementwise:
            return (0 if arg.dim == 1 else k,)
        return range(arg.dim) if arg.dim <= self.scalars.unroll else ()

    def _reader(self, node: Node, rereads: bool) -> _Reader:
        """What reads a node, one per node: operations may remember what they made of it."""
        kind = _KeepingReader if rereads and not _moves_only(node) else _Reader
        if (node, kind) not in self.readers:
            self.readers[node, kind] = kind(self, node)
        return self.readers[node, kind]

    def table(self, node: Node) -> Table:
        """The components of a node as a table, one per node."""
        if node not in self.tables:
            self.tables[node] = self.scalars.table(node.dim, lambda k, _: self.component(node, k))
        return self.tables[node]

    def _evaluate(self, node: Node, k: Index) -> Value:
        if node.op.name == "Var":
            position, dim, kind = node.variable
            return self.scalars.load(position, dim, self.stage_of_kind[kind], k)
        if node.op.value is None:
            raise InternalError(f"{node.op.name} has no scalar rule")
        readers = (self._reader(arg, node.op.rereads) for arg in node.args)
        return node.op.value(self.scalars, k, *readers, *node.params)


def lower(
    formula: Node,
    reduction: Reduction,
    kept: Axis,
    unroll: int,
    rearrange: bool = False,
    weight: Node | None = None,
    length: int = 0,
    unroll_pairs: int | None = None,
    where: Node | None = None,
) -> Kernel:
    """The kernel that folds `formula` over the index that is not `kept`; see `lower_all`."""
    asked = Folded(formula, reduction, weight, length, where=where)
    return lower_all([asked], kept, unroll, rearrange, unroll_pairs)


def lower_all(
    asked: Sequence[Folded],
    kept: Axis,
    unroll: int,
    rearrange: bool = False,
    unroll_pairs: int | None = None,
    fused: bool = False,
) -> Kernel:
    """The kernel of reductions of the same variables, those that are kept on rows first.

    Rows are `kept`. Vectors of at most `unroll` components are written out, plain
    sums and products only up to `unroll_pairs`. `rearrange`: whether what depends on the kept index
    alone may leave a sum, exponentials of sums being separated for the purpose, and terms be
    multiplied by inverses. Backends report inputs for which that may not be done (infinite factors,
    exponents far from zero, huge inverses), and the caller folds again without.

    Raises:
        UnsupportedError: formulas that are too long.
    """
    axes = [folded.axis for folded in asked]
    if axes != sorted(axes) or (COLUMN in axes and not fused):
        raise InternalError("rows come first; columns are kept by fused kernels alone")
    stage_of_kind = {Axis.I: COLUMN, Axis.J: COLUMN, Axis.PARAMETER: ONCE, Axis.PAIR: PAIR}
    stage_of_kind[kept] = ROW
    # The formulas, one after the other, are one vector.
    formula = reduce(OPERATIONS["Concat"], [folded.formula for folded in asked])
    roots = _roots(asked, formula)
    linear = all(folded.rule.linear for folded in asked)
    invert = rearrange and all(folded.rule.linear or folded.rule.max_shifted for folded in asked)
    rearrange = rearrange and linear
    scalars = Scalars(unroll, rearrange and not _is_measured(formula), invert, unroll_pairs, kept)
    lowering = _Lowering(scalars, stage_of_kind, roots)
    output_loop = None
    if len(asked) == 1 and not fused:
        output_loop = _output_loop(scalars, asked[0])
    values = _all_values(lowering, asked, formula, output_loop)
    outputs = [output for own in values for output in own.outputs]
    taken: Sequence[Value | None] = (None,) * len(outputs)
    if rearrange:
        counted = zip(asked, values, strict=True)
        over = [_OTHER[folded.axis] for folded, own in counted for _ in own.outputs]
        outputs, taken = take_factors(outputs, over)
    where = asked[0].where
    kernel = Kernel(
        _accumulators(scalars, asked, values, outputs),
        kept,
        scalars,
        _arguments(roots, stage_of_kind),
        {stage: Stage() for stage in (ONCE, ROW, COLUMN, PAIR)},
        tuple(outputs),
        tuple(taken),
        output_loop,
        None if where is None else mask_of(lowering.component(where, 0)),
        fused,
    )
    return _placed(kernel)


def _roots(asked: Sequence[Folded], formula: Node) -> list[Node]:
    """All formulas, those that are folded as one; the mask of all pairs is the last.

    Raises:
        InternalError: there are several masks.
    """
    if len({folded.where for folded in asked}) > 1:
        raise InternalError("a kernel has one mask for all that it folds")
    given = (formula, *(folded.weight for folded in asked), asked[0].where)
    return [root for root in given if root is not None]


def _accumulators(
    s: Scalars, asked: Sequence[Folded], values: Sequence[_Values], outputs: Sequence[Value]
) -> tuple[Accumulator, ...]:
    """The rules of all reductions, applied to those of `outputs` that each folds."""
    found: list[Accumulator] = []
    first = result = 0
    left = iter(outputs)
    for folded, own in zip(asked, values, strict=True):
        rules = rules_of(s, folded.rule, list(islice(left, len(own.outputs))))
        given = (folded, first, folded.dim, result, own.top, own.shares, own.logits, own.total)
        found.append(Accumulator(*given, *rules))
        first, result = found[-1].stop, result + len(folded.rule.results)
    return tuple(found)


def unrearranged(kernel: Kernel) -> Kernel:
    """A kernel of the same reductions, computed as they are written: nothing is rearranged."""
    found = lower_all(
        [each.folded for each in kernel.accumulators],
        kernel.kept,
        kernel.scalars.unroll,
        unroll_pairs=kernel.scalars.unroll_pairs,
        fused=kernel.fused,
    )
    return with_truths(found, {a.position for a in kernel.arguments if a.truth})


def with_truths(kernel: Kernel, positions: Collection[int]) -> Kernel:
    """The kernel for arrays of truth values at some positions."""
    if positions:
        kernel.arguments = tuple(
            replace(argument, truth=argument.position in positions) for argument in kernel.arguments
        )
    return kernel


def _is_measured(formula: Node) -> bool:
    """Whether exponents are measured from a maximum, so that they must be rounded as it was."""
    return any(node.op.name == "Apart" for node in topological([formula]))


def _is_product(folded: Folded) -> bool:
    """Whether the components of an output share a number per pair, and little else remains.

    That number is the exponential that a weight is multiplied by or, in a sum, whatever has one
    component and is met on the way from the formula to variables.
    """
    formula, weight = folded.formula, folded.weight
    if weight is None and not folded.rule.linear:
        return False
    shared = weight is not None
    todo = [formula if weight is None else weight]
    seen = set(todo)
    while todo:
        node = todo.pop()
        if node.dim == 1:
            shared = shared or node.kinds & _BOTH == _BOTH
        elif node.op.elementwise:
            todo.extend(arg for arg in node.args if arg not in seen)
            seen.update(node.args)
        elif node.op.name != "Var":
            return False
    return shared


def _arguments(formulas: Sequence[Node], stage_of_kind: dict[Axis, int]) -> tuple[Argument, ...]:
    found = {
        node.variable.position: Argument(
            node.variable.position, node.variable.dim, stage_of_kind[node.variable.kind]
        )
        for node in topological(formulas)
        if node.op.name == "Var"
    }
    return tuple(found[position] for position in sorted(found))


def _output_loop(s: Scalars, folded: Folded) -> Loop | None:
    """The loop over the components of a long output."""
    if folded.dim <= (min(s.unroll, s.unroll_pairs) if _is_product(folded) else s.unroll):
        return None
    loop = Loop(folded.dim)
    loop.index = s.loop_index(loop)
    loop.inits = loop.carries = loop.nexts = ()
    return loop


@dataclass(frozen=True)
class _Values:
    """What an accumulator folds: exponents, one value per component, and the total after these.

    `top`: the number of the first maximum; whether it `shares` them with an accumulator before.
    """

    top: int
    shares: bool
    logits: tuple[Value, ...]
    outputs: tuple[Value, ...]
    total: Value | None


def _all_values(
    lowering: _Lowering, asked: Sequence[Folded], formula: Node, output_loop: Loop | None
) -> list[_Values]:
    """What all fold; `formula` is all of their formulas joined."""
    found: list[_Values] = []
    logits: list[Value] = []
    start = 0
    for folded in asked:
        own: Iterable[Index] = range(start, start + folded.formula.dim)
        if output_loop is not None and folded.weight is None:
            own = [output_loop.index]
        read = [lowering.scalars.as_real(lowering.component(formula, k)) for k in own]
        found.append(_values(lowering, folded, read, output_loop, logits))
        start += folded.formula.dim
        if not found[-1].shares:
            logits += found[-1].logits
    return found


def _place_in(logits: Sequence[Value], wanted: Sequence[Value]) -> int | None:
    """Where exponents stand, one after the other, among those that have maxima already."""
    places = range(len(logits) - len(wanted) + 1)
    return next((n for n in places if [*logits[n : n + len(wanted)]] == [*wanted]), None)


def _values(
    lowering: _Lowering,
    folded: Folded,
    formula: Sequence[Value],
    output_loop: Loop | None,
    logits: Sequence[Value],
) -> _Values:
    """What is folded: F or, measured from maxima, e^(F - top), times the weight if there is one.

    `formula`: the components of F; `logits`: the exponents that have maxima already. Terms of the
    same exponents are measured from the same maxima, so that they are the same terms.
    """
    s, weight = lowering.scalars, folded.weight
    if not folded.rule.max_shifted:
        return _Values(len(logits), False, (), tuple(formula), None)
    found = _place_in(logits, formula)
    top, shares = (len(logits), False) if found is None else (found, True)
    tops = [s.placeholder("top", top + place) for place in range(len(formula))]
    terms = [s.exp(s.apart(logit, top)) for logit, top in zip(formula, tops, strict=True)]
    if weight is None:
        return _Values(top, shares, tuple(formula), tuple(terms), None)
    (term,) = terms
    indices: Iterable[Index] = range(weight.dim) if output_loop is None else [output_loop.index]
    weighted = [term * s.as_real(lowering.component(weight, k)) for k in indices]
    total = (term,) if folded.rule.totals else ()
    return _Values(top, shares, tuple(formula), (*weighted, *total), term if total else None)


def _placed(kernel: Kernel) -> Kernel:
    """The kernel with slots for what is kept: it is complete."""
    _place(kernel)
    if current().check:
        verify(kernel)
    return kernel


def _place(kernel: Kernel) -> None:
    """Give every raw component and every exported value its slots."""
    for argument in kernel.arguments:
        stage = kernel.stages[argument.stage]
        stage.raw[argument.position] = stage.size
        stage.size += argument.dim
    for stage in kernel.stages.values():
        stage.raw_size = stage.size
    exported = _exported(kernel)
    for value in sorted(exported, key=lambda value: value.id):
        stage = kernel.stages[value.stage]
        loop = value.loop if value.what == "table" else next(iter(value.loops), None)
        stage.computed[value] = Slot(stage.size, loop)
        stage.size += 1 if loop is None else loop.n


def _can_be_kept(value: Value) -> bool:
    """Whether a value has slots of its own: one, one per component of a loop, or a whole table."""
    if value.running:
        return False
    if value.kind == "table":
        return not value.loops
    return value.kind == "real" and len(value.loops) <= 1


def _exported(kernel: Kernel) -> set[Value]:
    """Values below the pair stage that a later stage uses.

    A value inside two component loops, or a mask, is recomputed where it is used; what it is
    made of is exported instead. A table is exported as a whole. What a reduction's step makes of
    an output alone stays with the pairs, like the rest of the step: they compute the output itself.
    """
    exported: set[Value] = set()
    seen: set[tuple[Value, int]] = set()
    todo = [(value, PAIR) for value in kernel.pair_values]
    todo += [(factor, PAIR) for factor in kernel.factors if factor is not None]
    while todo:
        value, at = todo.pop()
        if (value, at) in seen:
            continue
        seen.add((value, at))
        if value.what in _NEVER_KEPT or value.kind == "index":
            if value.what == "load":
                todo.extend((arg, at) for arg in value.args)
            continue
        if value.stage != at and value.what == "entry" and not value.args[0].loops:
            value = value.args[0]
        if value.stage != at and _can_be_kept(value):
            exported.add(value)
            at = value.stage
        todo.extend((arg, at) for arg in value.args)
    return exported
