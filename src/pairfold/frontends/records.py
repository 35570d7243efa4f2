"""Lazy tensors in programs that torch.compile traces: their calls are recorded, and made later.

The tracer follows operations on tensors, and takes text as it is. So a lazy tensor that is made
while it looks on holds a record: the calls that make it, as text, and the tensors that these are
given. A call whose result is tensors becomes one function of the graph, which makes the recorded
calls; it is run on tensors without values first, so that checks, shapes and derivatives are those
of plain calls. What a traced program asks of a lazy tensor before that is found on stand-ins.
"""

# Records are parts of the objects that they make.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import importlib
import json
import operator
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias, cast

import torch
from torch import Tensor
from torch._dynamo.exc import UnspecializeRestartAnalysis
from torch._dynamo.variables import builtin
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import has_static_value

from ..arrays.opaque import constant
from ..core.node import Axis, Node
from ..ops.steps import Steps, graphs_of, read, steps_of, written
from .foreign import applied
from .genred import Genred
from .lazy import Tensor as Lazy
from .lazytensor import LazyTensor, where
from .leaves import Leaf, array_leaf
from .masks import band, causal, exclude_self, mask, radius, same
from .recording import Recorded
from .reduced import Reduced
from .softmax import SoftMax, multiplied
from .traced import checked_in_graph

_SIZE = 9973  # of every axis of a stand-in that is not 1 and whose size is no part of a formula
_ELSEWHERE = -2  # a size that no tensor has: that of some of its rows
# Operands of these are vectors of numbers for rows: their last axis is no dimension of a formula.
_OF_ROWS = {
    *("__matmul__", "__rmatmul__", "matvec", "rmatvec", "matmat", "rmatmat", "solve"),
    *("matmul", "rmatmul", "dot", "mv", "mm", "bmm", "same"),
}
_CHANGED = ("ranges", "backend")  # what programs set of a lazy tensor
_FUNCTIONS = {"where": where, "applied": applied, "multiplied": multiplied} | {
    function.__name__: function for function in (causal, band, exclude_self, mask, radius, same)
}

_RECORDED = (Lazy, Reduced, SoftMax, Genred)  # what may have a record
_Operand = tuple[object, ...]  # what it is, and what that needs
_Spec = tuple[torch.dtype, str, tuple[int, ...]]  # a stand-in
_Made: TypeAlias = Any  # what calls take and give
_Code: TypeAlias = list[_Made]  # an operand in a record: JSON


class Record(NamedTuple):
    """The calls that make an object, what they are given, and stand-ins for it.

    Calls are JSON: lists of a name and operands; these are values, tensors by their numbers, and
    results of earlier calls by theirs. The last call makes the object.
    """

    calls: str
    tensors: tuple[Tensor, ...]
    specs: tuple[_Spec, ...]


# ----- while a program is traced -----------------------------------------------------------------


class _Operands:
    """The operands of a call to be recorded: their tensors, and the records that they bring."""

    def __init__(self, rows: bool) -> None:
        self.tensors: list[Tensor] = []
        self.specs: list[_Spec] = []
        self.parts: list[tuple[str, tuple[int, ...]]] = []
        self.rows, self.lost = rows, False
        self.classes: list[type] = []  # of the lazy tensors among them

    def tensor(self, x: Tensor, spec: _Spec | None = None) -> int:
        """The number of a tensor."""
        for place, known in enumerate(self.tensors):
            if known is x:
                if spec is not None:
                    self.specs[place] = spec
                return place
        self.tensors.append(x)
        self.specs.append(_spec(x, self.rows) if spec is None else spec)
        return len(self.tensors) - 1

    def part(self, record: Record | None) -> _Operand:
        """The result of a record."""
        if record is None:
            return self.none()
        places: list[int] = []
        for place, x in enumerate(record.tensors):
            places.append(self.tensor(x, record.specs[place]))
        self.parts.append((record.calls, tuple(places)))
        return "result", len(self.parts) - 1

    def of(self, x: object) -> _Operand:
        """An operand in the words of a record."""
        if isinstance(x, Tensor):
            return "tensor", self.tensor(x)
        if isinstance(x, _RECORDED):
            self.classes.append(type(x))
            return self.part(_record_of(x))
        if isinstance(x, (list, tuple)):
            return type(x).__name__, tuple([self.of(part) for part in x])
        if isinstance(x, dict):
            return "dict", tuple([(key, self.of(part)) for key, part in x.items()])
        if x is None or x is Ellipsis or isinstance(x, (bool, str, complex, slice)):
            return "value", x
        if isinstance(x, (int, float)):
            if not self.tensors and isinstance(x, int):
                return "value", operator.index(x)  # a part of the formula, as sizes of vectors are
            if has_static_value(x):
                return "value", x
            if self.tensors:  # a number that is known when the graph runs
                like = self.tensors[0]
                number = torch.full((1,), x, dtype=like.dtype, device=like.device)
                return "tensor", self.tensor(number)
        return self.none()

    def none(self) -> _Operand:
        """What has no place in a record."""
        self.lost = True
        return "lost", None

    def kinds(self) -> list[type]:
        """The classes of what a call makes of lazy tensors."""
        first = self.classes[0] if self.classes else LazyTensor
        if not issubclass(first, Lazy):
            return [first]
        return [first, first.class_for(False), first.class_for(True), Reduced, SoftMax]

    def record(self, name: str, *operands: _Operand) -> Record | None:
        """The call of these operands; None where one of them has no place in a record."""
        if self.lost:
            return None
        calls = extended(name, operands, tuple(self.parts))
        return Record(calls, tuple(self.tensors), tuple(self.specs))


def _spec(x: Tensor, rows: bool) -> _Spec:
    shape = [operator.index(size) if size in (0, 1) else _SIZE for size in x.shape]
    if shape and not rows and x.dtype != torch.bool:  # truth values (..., M, N)
        shape[-1] = operator.index(x.shape[-1])
    return x.dtype, x.device.type, tuple(shape)


def record_call(
    name: str, function: Callable[..., object], args: tuple[object, ...], options: dict[str, object]
) -> object:
    """What a call gives, as torch.compile sees it; NotImplemented where it cannot be recorded."""
    first: _Made = args[0] if args else None
    by_torch = name in ("applied", "multiplied")
    rows = (args[1] if by_torch else name) in _OF_ROWS
    if by_torch and rows:
        _tell_sides()
    operands = _Operands(rows)
    if name == "__init__":
        made = ("name", type(first)), ("name", function)
        record = operands.record("new", *made, operands.of(args[1:]), operands.of(options))
    else:
        record = operands.record(name, operands.of(args), operands.of(options))
    if record is None:
        return NotImplemented
    kind = _kind(record.calls, record.specs)
    if kind in ("tensor", "tensors"):
        results = _run_in_graph(record.calls, *record.tensors)
        return results[0] if kind == "tensor" else results
    if kind == "value":
        return _value(record.calls, record.specs)
    if kind == "lost":
        return NotImplemented
    if name == "__init__":
        first._record = record
        return None
    for cls in operands.kinds():
        if cls.__name__ == kind:
            found = object.__new__(cls)
            found._record = record
            return found
    return NotImplemented


def _record_of(x: Recorded) -> Record | None:
    """The record of an object: its own, with what was set since, or one of the graph it has."""
    record = x._record
    if not isinstance(x, Lazy):
        return record
    operands = _Operands(False)
    if record is None:
        leaves = [operands.of(_parts_of(leaf)) for leaf in x.leaves]
        text = _steps(x.node, *[leaf.node for leaf in x.leaves])
        kind = ("name", type(x))
        record = operands.record("lifted", kind, ("value", text), ("list", tuple(leaves)))
    for name in _CHANGED:
        if name in x.__dict__ and getattr(x, name) is not None:
            operands = _Operands(False)
            part = operands.part(record)
            given = operands.of(getattr(x, name))
            record = operands.record("set", part, ("value", name), given)
    return record


def _parts_of(leaf: Leaf) -> tuple[object, ...]:
    """What a leaf is made of again."""
    kind = int(leaf.kind)
    if leaf.form is not None:
        return kind, int(leaf.form), leaf.owner
    return kind, leaf.dim, leaf.values, leaf.symbol, leaf.pairs


def told(x: Recorded, name: str) -> object:
    """An attribute of a lazy tensor with a record, as torch.compile sees it."""
    assert x._record is not None
    calls, tensors, specs = x._record
    if name in ("node", "real_dtype"):
        return _attribute(calls, specs, name)
    if name in ("ni", "nj"):
        place = _axis(calls, specs, name)
        if place == _ELSEWHERE:
            return NotImplemented
        return None if place < 0 else tensors[place // 4].shape[-(place % 4)]
    if name == "batch":
        return tuple(torch.broadcast_shapes(*[x.shape[:-3] for x in tensors]))
    return NotImplemented


@constant
def _tell_sides() -> None:
    """See to it that K @ b is told from b @ K.

    The tracer asks an object on the left of an operator as it asks one on the right: with both
    operands swapped, and the function that its table has for that. For products of matrices the
    table has none, and both are one call. With an entry for it, the trace begins anew.

    Raises:
        UnspecializeRestartAnalysis: the entry has just been made.
    """
    reflected = builtin.BUILTIN_TO_TENSOR_RFN_MAP
    if operator.matmul not in reflected:
        reflected[operator.matmul] = Tensor.__rmatmul__
        raise UnspecializeRestartAnalysis(
            restart_reason="products of matrices whose sides are not told"
        )


# ----- records -----------------------------------------------------------------------------------


@constant
def extended(
    name: str, operands: Sequence[_Operand], parts: Sequence[tuple[str, Sequence[int]]]
) -> str:
    """The calls of some records, and one more, on their results."""
    calls: dict[str, int] = {}  # each once, by its text: 1 is not 1.0
    ends: list[int] = []
    for text, tensors in parts:
        places: list[int] = []
        for call in json.loads(text):
            moved = [call[0], *(_moved(code, tensors, places) for code in call[1:])]
            places.append(calls.setdefault(json.dumps(moved), len(calls)))
        ends.append(places[-1])
    last = [name, *(_coded(operand, ends) for operand in operands)]
    return f"[{', '.join([*calls, json.dumps(last)])}]"


def _moved(code: _Code, tensors: Sequence[int], results: Sequence[int]) -> _Code:
    """An operand of a call with other numbers for tensors and results."""
    kind, *rest = code
    if kind in ("tensor", "result"):
        return [kind, (tensors if kind == "tensor" else results)[rest[0]]]
    if kind in ("list", "tuple"):
        return [kind, [_moved(part, tensors, results) for part in rest[0]]]
    if kind == "dict":
        return [kind, [[key, _moved(part, tensors, results)] for key, part in rest[0]]]
    return code


def _coded(operand: _Made, results: Sequence[int]) -> _Code:
    kind, value = operand
    if kind == "result":
        return [kind, results[value]]
    if kind in ("list", "tuple"):
        return [kind, [_coded(part, results) for part in value]]
    if kind == "dict":
        return [kind, [[key, _coded(part, results)] for key, part in value]]
    if kind == "name":
        return [kind, f"{value.__module__}:{value.__qualname__}"]
    if isinstance(value, complex):
        return ["complex", [value.real, value.imag]]
    if isinstance(value, slice):
        return ["slice", [value.start, value.stop, value.step]]
    return ["ellipsis"] if value is Ellipsis else [kind, value]


def _given(code: _Code, tensors: Sequence[Tensor], results: Sequence[object]) -> _Made:
    """An operand of a call that is made."""
    kind, *rest = code
    if kind == "tensor":
        return tensors[rest[0]]
    if kind == "result":
        return results[rest[0]]
    if kind in ("list", "tuple"):
        found = [_given(part, tensors, results) for part in rest[0]]
        return found if kind == "list" else tuple(found)
    if kind == "dict":
        return {key: _given(part, tensors, results) for key, part in rest[0]}
    if kind == "name":
        module, _, name = rest[0].partition(":")
        return operator.attrgetter(name)(importlib.import_module(module))
    if kind in ("complex", "slice"):
        return (complex if kind == "complex" else slice)(*rest[0])
    return Ellipsis if kind == "ellipsis" else rest[0]


def _made(calls: str, tensors: Sequence[Tensor]) -> _Made:
    """What the last call of a record gives."""
    results: list[_Made] = []
    for name, *codes in json.loads(calls):
        given = [_given(code, tensors, results) for code in codes]
        results.append(_called(name, *given))
    return results[-1]


def _called(name: str, *given: _Made) -> object:
    if name == "new":
        kind, begin, args, options = given
        found = object.__new__(kind)
        begin(found, *args, **options)
        return found
    if name == "lifted":
        return _lifted(*given)
    if name == "set":
        tensor, attribute, value = given
        found = tensor._like(tensor.node)
        setattr(found, attribute, value)
        return found
    args, options = given
    if name in _FUNCTIONS:
        return _FUNCTIONS[name](*args, **options)
    found = getattr(args[0], name)
    return found(*args[1:], **options) if callable(getattr(type(args[0]), name)) else found


def _lifted(kind: type[Lazy], text: str, parts: Sequence[tuple[_Made, ...]]) -> Lazy:
    """A lazy tensor of a graph and its leaves."""
    leaves: list[Leaf] = []
    for part in parts:
        axis = Axis(part[0])
        if len(part) == 3:
            leaves.append(array_leaf(part[2], Axis(part[1])).of_kind(axis))
        else:
            _, dim, values, symbol, pairs = part
            leaves.append(Leaf(axis, dim, None, values, symbol, pairs=pairs))
    steps = cast(Steps, read(text))
    (node,) = graphs_of(steps, [leaf.node for leaf in leaves])
    return kind._of_leaves(node, leaves)


@constant
def _steps(node: Node, *leaves: Node) -> str:
    """A graph as text, its leaves by their numbers."""
    return written(steps_of([node], {leaf: place for place, leaf in enumerate(leaves)}))


# ----- stand-ins ---------------------------------------------------------------------------------


def _stand_ins(specs: Sequence[_Spec]) -> list[Tensor]:
    return [torch.empty(shape, dtype=dtype, device=device) for dtype, device, shape in specs]


@constant
def _kind(calls: str, specs: Sequence[_Spec]) -> str:
    """What a record makes: "tensor", "tensors", "value", or the name of a class; "lost" where it
    fails.
    """
    with FakeTensorMode():
        try:
            found = _made(calls, _stand_ins(specs))
        except Exception:  # the program is run as it is, and a plain call raises it again
            return "lost"
    if isinstance(found, _RECORDED):
        return type(found).__name__
    if isinstance(found, Tensor):
        return "tensor"
    if isinstance(found, tuple) and all(isinstance(part, Tensor) for part in found):
        return "tensors"
    known = found is None or isinstance(found, (bool, int, float, str))
    return "value" if known else "lost"


def _stand_in(calls: str, specs: Sequence[_Spec]) -> _Made:
    with FakeTensorMode():
        return _made(calls, _stand_ins(specs))


@constant
def _value(calls: str, specs: Sequence[_Spec]) -> object:
    return _stand_in(calls, specs)


@constant
def _attribute(calls: str, specs: Sequence[_Spec], name: str) -> object:
    return getattr(_stand_in(calls, specs), name)


@constant
def _axis(calls: str, specs: Sequence[_Spec], name: str) -> int:
    """Where the size `ni` or `nj` stands: 4 times the number of a tensor, plus the axis from the
    end; -1 where there is no such size, `_ELSEWHERE` where it is that of no tensor.
    """
    with FakeTensorMode():
        tensors = _stand_ins(specs)
        found = _made(calls, tensors)
    if getattr(found, name) is None:
        return -1
    wanted = Axis.I if name == "ni" else Axis.J
    for leaf in found.leaves:
        for number, x in enumerate(tensors):
            if leaf.kind in (wanted, Axis.PAIR) and leaf.owner is x:
                third = leaf.form == Axis.I or (leaf.kind == Axis.PAIR and wanted == Axis.I)
                return 4 * number + (3 if third and x.dim() > 2 else 2)
    return _ELSEWHERE


# ----- graphs ------------------------------------------------------------------------------------


def complete(x: Recorded) -> None:
    """Make an object what its record says, where nobody traces any more."""
    assert x._record is not None
    calls, tensors, _ = x._record
    mine = {name: value for name, value in x.__dict__.items() if name != "_record"}
    found = _made(calls, tensors)
    x.__dict__.clear()
    x.__dict__.update(found.__dict__)
    x.__dict__.update(mine)


def _run(calls: str, *tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors that the last call of a record gives."""
    found = _made(calls, tensors)
    return found if isinstance(found, tuple) else (found,)


_run_in_graph = checked_in_graph(_run)
