"""What holds of every kernel: its values follow the tables of primitives, its slots their places.

A backend takes for granted what is checked here; with the setting `check` at 1 or more every
kernel is verified as it is made. Each check relies on those before it, so the first that finds
faults is the last that runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING

from ..core.primitives import INDEX_OPERATIONS, PRIMITIVES, STRUCTURES, Structure, ValueKind
from ..core.scalars import (
    COLUMN,
    ONCE,
    PAIR,
    ROW,
    Carried,
    Index,
    Load,
    Loop,
    Placeholder,
    Value,
    reachable,
)
from ..core.show import formula_text
from ..errors import KernelError

if TYPE_CHECKING:
    from .accumulators import Accumulator
    from .kernel import Kernel, Stage

# How many faults an error lists.
_LISTED = 4

_DATA: Mapping[str, Callable[[object], bool]] = {
    "": lambda data: data is None,
    "number": lambda data: isinstance(data, (Fraction, str)),
    "load": lambda data: isinstance(data, Load),
    "placeholder": lambda data: isinstance(data, Placeholder),
    "loop": lambda data: isinstance(data, Loop),
    "carried": lambda data: isinstance(data, Carried),
    "integer": lambda data: isinstance(data, int),
}
_INDEX_RULES = {row.what: row for row in INDEX_OPERATIONS.values()}

Faults = Iterator[str]


def verify(kernel: Kernel) -> None:
    """Raise unless the kernel is well formed.

    Raises:
        KernelError: with its first faults.
    """
    found = faults(kernel)
    if found:
        more = len(found) - _LISTED
        raise KernelError(
            "this is a bug in pairfold: a kernel is not well formed",
            where=", ".join(formula_text(each.folded.formula) for each in kernel.accumulators),
            found="\n".join([*found[:_LISTED], *([f"and {more} more"] if more > 0 else [])]),
        )


def faults(kernel: Kernel) -> list[str]:
    """What is wrong with a kernel, as the first check says that finds anything."""
    values = _values(kernel)
    for check in (_rows, _order, _loops, _dependence, _indices):
        found = [fault for value in values for fault in check(value, kernel)]
        if found:
            return found
    for whole in (_counts, _outputs, _rules, _placeholders, _arguments, _slots, _reads):
        found = list(whole(kernel))
        if found:
            return found
    return []


def _values(kernel: Kernel) -> list[Value]:
    """Every value of a kernel, operands first."""
    targets = [*kernel.pair_values]
    for each in kernel.accumulators:
        targets += [*each.logits, *each.merges, *each.finished]
        targets += [value for step in each.steps for value in step]
    targets += [factor for factor in kernel.factors if factor is not None]
    targets += [value for stage in kernel.stages.values() for value in stage.computed]
    return reachable(targets)


# -- each value ------------------------------------------------------------------------------------


def _rows(value: Value, kernel: Kernel) -> Faults:
    """Its row exists, and operands, kind and data are the row's."""
    kinds = tuple(arg.kind for arg in value.args)
    row = PRIMITIVES.get(value.what) or STRUCTURES.get(value.what)
    if row is None:
        yield f"{value} is no primitive"
        return
    if value.kind != row.kind:
        yield f"{value} is of kind {value.kind}, not {row.kind}"
    if isinstance(row, Structure):
        allowed, wanted = row.operands, row.data
        if row.data == "integer or operand":
            wanted = "integer" if len(kinds) == 1 else ""
    else:
        allowed, wanted = (row.operands,), ""
    if allowed is not None and kinds not in allowed:
        yield f"{value} has operands of kinds {_listed(kinds)}, not {_either(allowed)}"
    elif not _DATA[wanted](value.data):
        yield f"{value} is made of {value.data!r}, not of {_named(wanted)}"
    elif value.what == "load" and (value.loaded.component is None) != bool(value.args):
        yield f"{value} loads a component that is not one number or one operand"


def _order(value: Value, kernel: Kernel) -> Faults:
    """It belongs to this kernel, and its operands were there before it."""
    if value.builder is not kernel.scalars:
        yield f"{value} is a value of another kernel"
    elif value not in kernel.scalars:
        yield f"{value} was not made by the kernel's builder, or was changed afterwards"
    for arg in value.args:
        if arg.id >= value.id:
            yield f"{value} uses {arg}, which comes after it"


def _loops(value: Value, kernel: Kernel) -> Faults:
    """The loop that it is a part of begins, goes on and ends with as many values."""
    if not isinstance(value.data, (Loop, Carried)):
        return
    loop = value.loop
    if loop.n < 1 or loop.index.what != "index_loop" or loop.index.loop is not loop:
        yield f"the loop of {value} has no index of its own"
    elif value.what in ("carry", "result"):
        place = value.carried.place
        if not len(loop.inits) == len(loop.carries) == len(loop.nexts):
            yield (
                f"the loop of {value} starts with {len(loop.inits)} values, carries "
                f"{len(loop.carries)} and goes on with {len(loop.nexts)}"
            )
        elif not 0 <= place < len(loop.inits):
            yield f"{value} is part {place} of a state of {len(loop.inits)}"
        elif value.what == "carry" and loop.carries[place] is not value:
            yield f"{value} is not what its loop carries"
        elif value.what == "result" and value.args != (*loop.inits, *loop.nexts):
            yield f"{value} has other operands than its loop"
    elif value.what == "memory" and loop.carries != (value,):
        yield f"{value} is not what the loop of its table carries"
    elif value.what == "table":
        if value.args != loop.nexts:
            yield f"{value} has other entries than its loop"
        if [(v.what, v.data) for v in loop.carries] != [("memory", loop)]:
            yield f"{value} has a loop that carries no memory, or more"


def _dependence(value: Value, kernel: Kernel) -> Faults:
    """It depends on whatever its operands depend on, but for the loop that ends with it."""
    below, ended = value.args, frozenset[Loop]()
    if value.what == "result" or value.what == "table":
        ended = frozenset((value.loop,))
    if value.what == "carry":
        place = value.carried.place
        for arg in (value.loop.inits[place], value.loop.nexts[place]):
            yield from _stage(value, arg)
    for arg in below:
        yield from _stage(value, arg)
        for name, own, theirs in (
            ("inside", value.loops, arg.loops),
            ("in the state of", value.running, arg.running),
        ):
            if not theirs - ended <= own:
                yield f"{value} is not {name} a loop that its operand {arg} is"
    own_loop = value.what in ("index_loop", "carry", "memory")
    if own_loop and value.loop not in value.loops:
        yield f"{value} is not inside its own loop"


def _stage(value: Value, arg: Value) -> Faults:
    if arg.stage & ~value.stage:
        yield f"{value} is of stage {value.stage}, its operand {arg} of stage {arg.stage}"


def _indices(value: Value, kernel: Kernel) -> Faults:
    """What it reads is within its vector."""
    if value.what == "index_loop" and value.bounds != (0, value.loop.n - 1):
        yield f"{value} is said to lie in {_interval(value.bounds)} of {value.loop.n}"
    elif value.what in _INDEX_RULES:
        two = len(value.args) == 2
        right = value.args[1].bounds if two else (value.integer, value.integer)
        if value.bounds != _INDEX_RULES[value.what].bounds(value.args[0].bounds, right):
            yield f"{value} is said to lie in {_interval(value.bounds)}, where it may not"
    elif value.what == "entry":
        index: Index = value.integer if len(value.args) == 1 else value.args[1]
        yield from _within(value, index, value.args[0].loop.n)
    elif value.what == "load":
        position, component = value.loaded
        found = [arg for arg in kernel.arguments if arg.position == position]
        if len(found) != 1:
            yield f"{value} reads argument {position}, of which there are {len(found)}"
            return
        index = value.args[0] if component is None else component
        yield from _within(value, index, found[0].dim)
        if value.stage != found[0].stage | (0 if isinstance(index, int) else index.stage):
            yield f"{value} is of stage {value.stage}, its argument of stage {found[0].stage}"


def _within(value: Value, index: Index, dim: int) -> Faults:
    low, high = _bounds(index)
    if not 0 <= low <= high < dim:
        yield f"{value} reads components {_interval((low, high))} of a vector of {dim}"


# -- the kernel ------------------------------------------------------------------------------------


def _counts(kernel: Kernel) -> Faults:
    """Every component is defined once."""
    loop = kernel.output_loop
    dim = sum(each.count for each in kernel.accumulators)
    wanted = sum(_own(kernel, each) for each in kernel.accumulators)
    if len(kernel.outputs) != wanted:
        yield f"{len(kernel.outputs)} outputs for {wanted} components and totals"
    if len(kernel.factors) != len(kernel.outputs):
        yield f"{len(kernel.factors)} factors for {len(kernel.outputs)} outputs"
    if loop is not None and loop.n != dim:
        yield f"the loop over outputs has {loop.n} turns for {dim} components"
    first = top = end = 0
    for each in kernel.accumulators:
        if each.first != first or each.count != each.folded.dim:
            yield f"{each.folded} has states {each.first}.. of {each.count}, not {first}.."
        if not each.shares and each.top != top:
            yield f"{each.folded} has maxima {each.top}.., not {top}.."
        if each.shares and kernel.logits[each.top : each.top + len(each.logits)] != each.logits:
            yield f"{each.folded} shares maxima {each.top}.. of other exponents"
        top += 0 if each.shares else len(each.logits)
        first, end = each.stop, end + _own(kernel, each)
        if each.total is not None and each.total not in kernel.outputs[end - 1 : end]:
            yield f"the total of {each.folded} is not folded after its components"
        logits = min(each.folded.maxima, 1 if loop is not None else each.count)
        if len(each.logits) != logits:
            yield f"{len(each.logits)} exponents for {logits} maxima"


def _own(kernel: Kernel, accumulator: Accumulator) -> int:
    """How many values an accumulator folds: one per component or one for all, and the total."""
    components = accumulator.count if kernel.output_loop is None else 1
    return components + (accumulator.total is not None)


def _outputs(kernel: Kernel) -> Faults:
    """Outputs are numbers that no loop is around but that over outputs."""
    loop = kernel.output_loop
    around = frozenset[Loop]() if loop is None else frozenset((loop,))
    factors = [factor for factor in kernel.factors if factor is not None]
    for value in (*kernel.outputs, *kernel.logits, *factors):
        if value.kind != "real":
            yield f"the output {value} is no number"
        if not value.loops <= around or value.running:
            yield f"the output {value} is inside a loop"
    keep = kernel.keep
    if keep is not None and (keep.kind != "mask" or keep.loops or keep.running):
        yield f"the mask {keep} is none, or is inside a loop"
    over = [
        ROW if each.axis == COLUMN else COLUMN
        for each in kernel.accumulators
        for _ in range(_own(kernel, each))
    ]
    for factor, stage in zip(kernel.factors, over, strict=True):
        if factor is not None and factor.stage & stage:
            yield f"the factor {factor} depends on what is folded over"


def _rules(kernel: Kernel) -> Faults:
    """Each reduction's rules have one value for each part of a state, and for each result."""
    for each in kernel.accumulators:
        size = len(each.rule.identity)
        if len(each.steps) != _own(kernel, each):
            yield f"{len(each.steps)} steps for {_own(kernel, each)} outputs of {each.folded}"
        for name, rule, wanted in (
            *(("step", step, size) for step in each.steps),
            ("merge", each.merges, size),
            ("finish", each.finished, len(each.rule.results)),
        ):
            if len(rule) != wanted:
                yield f"a {name} has {len(rule)} values, not {wanted}"
            for value in rule:
                if value.kind != "real":
                    yield f"{value} of a {name} is no number"


def _placeholders(kernel: Kernel) -> Faults:
    """Each rule reads only what it is given."""
    tops = {"top": len(kernel.logits)}
    yield from _given("an exponent", kernel.logits, {})
    yield from _given("an output", kernel.outputs, tops)
    yield from _given("a mask", () if kernel.keep is None else (kernel.keep,), {})
    for each in kernel.accumulators:
        size = len(each.rule.identity)
        own = 2 * size if each.rule.top_k else size
        steps = [value for step in each.steps for value in step]
        yield from _given("a step", steps, {**tops, "acc": own, "column": 1})
        yield from _given("a merge", each.merges, {"a": own, "b": size})
        ends = {"a": own, "top": 1, "total": 1, "count": 1}
        yield from _given("a finish", each.finished, ends)


def _given(name: str, targets: Sequence[Value], given: Mapping[str, int]) -> Faults:
    for value in reachable(targets):
        if value.what != "placeholder":
            continue
        if value.stage != PAIR:
            yield f"{value} is of stage {value.stage}"
        if not 0 <= value.supplied.place < given.get(value.supplied.name, 0):
            yield f"{name} reads {value}, which it is not given"


def _arguments(kernel: Kernel) -> Faults:
    """Every argument has slots of its own at its stage."""
    for at, stage in kernel.stages.items():
        wanted = {arg.position: arg.dim for arg in kernel.arguments if arg.stage == at}
        if stage.raw.keys() != wanted.keys():
            yield f"stage {at} holds arguments {_listed(stage.raw)}, not {_listed(wanted)}"
            continue
        cells = [(stage.raw[position], dim, position) for position, dim in wanted.items()]
        yield from _apart(cells, 0, stage.raw_size, at)


def _slots(kernel: Kernel) -> Faults:
    """Every kept value has slots of its own, at its own stage."""
    for at, stage in kernel.stages.items():
        cells: list[tuple[int, int, object]] = []
        for value, slot in stage.computed.items():
            cells.append((slot.offset, 1 if slot.loop is None else slot.loop.n, value))
            loops = {value.loop} if value.what == "table" else set(value.loops)
            if value.stage != at:
                yield f"{value} of stage {value.stage} is kept at stage {at}"
            if value.kind not in ("real", "table") or value.running:
                yield f"{value} is kept, though it is no number or vector on its own"
            if loops != (set() if slot.loop is None else {slot.loop}):
                yield f"{value} is kept for another loop than its own"
        yield from _apart(cells, stage.raw_size, stage.size, at)


def _apart(cells: Iterable[tuple[int, int, object]], first: int, end: int, at: int) -> Faults:
    """Stretches (offset, length, whose) lie side by side from `first` to `end`."""
    for offset, length, whose in sorted(cells, key=lambda cell: cell[0]):
        if offset < first:
            yield f"slots {offset}.. of {whose} at stage {at} belong to something else"
        first = max(first, offset + length)
    if first > end:
        yield f"stage {at} has slots up to {first}, beyond its {end}"


def _reads(kernel: Kernel) -> Faults:
    """What is computed at a stage reads slots that were filled before, and nothing later."""
    for at in (ONCE, ROW, COLUMN, PAIR):
        targets: Sequence[Value] = kernel.pair_values
        if at != PAIR:
            targets = [*kernel.stages[at].computed]
        for value in kernel.needed(targets, at):
            if value.stage & ~at:
                yield f"{value} of stage {value.stage} is needed at stage {at}"
                continue
            slot = None if value.kind == "index" else kernel.slot(value, at)
            if slot is None:
                continue
            stage, offset, index = slot
            low, high = _bounds(index)
            first, end = _span(kernel.stages[stage], value)
            if stage & ~at or not first <= offset + low <= offset + high < end:
                yield f"{value} is read at stage {at} from slots that stage {stage} does not fill"


def _span(stage: Stage, value: Value) -> tuple[int, int]:
    return (0, stage.raw_size) if value.what == "load" else (stage.raw_size, stage.size)


# -- words -----------------------------------------------------------------------------------------


def _bounds(index: Index) -> tuple[int, int]:
    return (index, index) if isinstance(index, int) else index.bounds


def _interval(bounds: tuple[int, int]) -> str:
    return f"{bounds[0]}..{bounds[1]}"


def _listed(things: Iterable[object]) -> str:
    return "(" + ", ".join(map(str, things)) + ")"


def _either(allowed: Iterable[tuple[ValueKind, ...]]) -> str:
    return " or ".join(map(_listed, allowed))


def _named(data: str) -> str:
    return f"a {data}" if data else "its operands alone"
