"""Kernels are well formed, and faults that are planted in them are found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pairfold.core.node import Axis, Node
from pairfold.core.primitives import PRIMITIVES, STRUCTURES
from pairfold.core.scalars import Load, Loop, Value, reachable
from pairfold.errors import InternalError, KernelError
from pairfold.frontends.parse import parse
from pairfold.lower import kernel as lowering
from pairfold.lower.accumulators import Folded
from pairfold.lower.kernel import COLUMN, ONCE, PAIR, ROW, Argument, Kernel, lower, lower_all
from pairfold.lower.verify import faults, verify
from pairfold.numpy import Genred
from pairfold.ops.reductions import REDUCTIONS
from pairfold.ops.table import OPERATIONS, build, variable
from pairfold.settings import settings

ALIASES = ["x = Vi(20)", "y = Vj(20)", "b = Vj(2)", "p = Pm(2)"]
FORMULA = "Exp(-SqDist(x,y)*Exp(Elem(p,0)))*b*Elem(x,0)"


def node_of(text: str) -> Node:
    return parse(text, ALIASES).node


def kernel_of(text: str = FORMULA, reduction: str = "Sum", **options: Any) -> Kernel:
    return lower(node_of(text), REDUCTIONS[reduction], Axis.I, 16, **options)


def values_of(kernel: Kernel, what: str) -> list[Value]:
    return [
        v for v in reachable([*kernel.outputs, *kernel.accumulators[0].logits]) if v.what == what
    ]


def some(kernel: Kernel, what: str) -> Value:
    return values_of(kernel, what)[0]


# -- what is well formed ---------------------------------------------------------------------------


@pytest.mark.parametrize("unroll", [16, 1])
def test_kernels_of_every_operation_are_well_formed(unroll: int) -> None:
    kinds = (Axis.I, Axis.J, Axis.PARAMETER)
    for op in OPERATIONS.values():
        if op.name in ("Var", "Constant") or op.like is None:
            continue
        for n, dims in enumerate(op.samples if op.args else ((),)):
            args = [variable(place, dim, kinds[(place + n) % 3]) for place, dim in enumerate(dims)]
            node = build(op, *args, *(param.sample for param in op.params))
            for rearrange in (False, True):
                kernel = lower(node, REDUCTIONS["Sum"], (Axis.I, Axis.J)[n % 2], unroll, rearrange)
                assert faults(kernel) == [], op.name


@pytest.mark.parametrize("unroll", [16, 1])
def test_kernels_of_every_reduction_are_well_formed(unroll: int) -> None:
    scalar, vector = node_of("Exp((x|y)*Elem(p,0))"), node_of("x*y")
    for row in REDUCTIONS.values():
        weights = {"no": [None], "may": [None, vector], "must": [vector]}[row.weighted]
        for formula in (scalar, vector):
            for weight in weights:
                if formula.dim > 1 and (row.scalar or weight is not None):
                    continue
                length = 5 if row.top_k else 0
                for rearrange in (False, True):
                    kernel = lower(formula, row, Axis.I, unroll, rearrange, weight, length)
                    assert faults(kernel) == [], row.name


def test_kernels_of_fused_gradients_are_well_formed() -> None:
    total, weighted = REDUCTIONS["Sum"], "Exp(-SqDist(x,y))*Extract(x,0,2)*Elem(y,1)"
    asked = [
        Folded(node_of("Exp(-SqDist(x,y))*b"), total),
        Folded(node_of(weighted), total, axis=COLUMN),
    ]
    kernel = lower_all(asked, Axis.I, 16, True, fused=True)
    assert faults(kernel) == []


def test_kernels_of_several_reductions_are_well_formed() -> None:
    names = ("Sum", "ArgMin", "Mean", "Any", "Max_ArgMax")
    asked = [Folded(node_of("Extract(x-y,0,2)*b"), REDUCTIONS[name]) for name in names]
    for rearrange in (False, True):
        assert faults(lower_all(asked, Axis.I, 16, rearrange)) == []


def test_kernels_of_several_forms_are_well_formed() -> None:
    logit, weight = node_of("-SqDist(x,y)"), node_of("Extract(y,0,3)")
    asked = [
        Folded(logit, REDUCTIONS["SumSoftMaxWeight"], weight),
        Folded(logit, REDUCTIONS["KMin"], length=5),
        Folded(node_of("b*Elem(x,0)"), REDUCTIONS["LogSumExp"]),
        Folded(logit, REDUCTIONS["Sum"]),
        Folded(logit, REDUCTIONS["SumSoftMaxWeight"], node_of("b")),
    ]
    for rearrange in (False, True):
        for order in (asked, asked[::-1]):
            assert faults(lower_all(order, Axis.I, 16, rearrange)) == []
    kernel = lower_all(asked, Axis.I, 16)
    assert [each.top for each in kernel.accumulators] == [0, 1, 1, 3, 0]
    changes = [(2, {"top": 2}), (4, {"top": 1}), (4, {"total": None})]
    for number, change in changes:
        broken = [*kernel.accumulators]
        broken[number] = replace(broken[number], **change)
        found = faults(replace(kernel, accumulators=tuple(broken)))
        assert found, change


def test_every_primitive_has_one_row() -> None:
    assert not PRIMITIVES.keys() & STRUCTURES.keys()
    assert all(name == row.name for name, row in (PRIMITIVES | STRUCTURES).items())


# -- what is not -----------------------------------------------------------------------------------


def unknown_primitive(kernel: Kernel) -> None:
    object.__setattr__(some(kernel, "exp"), "what", "expm2")


def operand_of_another_kind(kernel: Kernel) -> None:
    exp = some(kernel, "exp")
    exp.args = (some(kernel, "index_loop"),)


def operand_too_many(kernel: Kernel) -> None:
    exp = some(kernel, "exp")
    exp.args = (*exp.args, *exp.args)


def result_of_another_kind(kernel: Kernel) -> None:
    some(kernel, "exp").kind = "mask"


def constant_without_number(kernel: Kernel) -> None:
    some(kernel, "const").data = None


def load_of_no_component(kernel: Kernel) -> None:
    load = next(v for v in values_of(kernel, "load") if not v.args)
    load.data = Load(load.loaded.position, None)


def value_of_another_kernel(kernel: Kernel) -> None:
    kernel.outputs = (kernel_of("b*Elem(x,1)").outputs[0], *kernel.outputs[1:])


def value_changed_afterwards(kernel: Kernel) -> None:
    product = next(v for v in values_of(kernel, "mul") if v.args[0] is not v.args[1])
    product.args = product.args[::-1]


def use_before_definition(kernel: Kernel) -> None:
    exp = some(kernel, "exp")
    exp.id, exp.args[0].id = exp.args[0].id, exp.id


def stage_that_shrinks(kernel: Kernel) -> None:
    kernel.outputs[0].stage = COLUMN


def loop_that_starts_with_nothing(kernel: Kernel) -> None:
    some(kernel, "result").loop.inits = ()


def loop_that_goes_on_otherwise(kernel: Kernel) -> None:
    loop = some(kernel, "result").loop
    loop.nexts = loop.inits


def loop_forgotten(kernel: Kernel) -> None:
    term = next(v for v in values_of(kernel, "sub") if v.loops)
    term.loops = frozenset()


def component_outside_its_argument(kernel: Kernel) -> None:
    kernel.arguments = tuple(replace(a, dim=min(a.dim, 19)) for a in kernel.arguments)


def argument_unknown(kernel: Kernel) -> None:
    kernel.arguments = kernel.arguments[1:]


def index_said_to_be_smaller(kernel: Kernel) -> None:
    some(kernel, "index_loop").bounds = (0, 3)


def output_missing(kernel: Kernel) -> None:
    kernel.outputs, kernel.factors = kernel.outputs[1:], kernel.factors[1:]


def output_twice(kernel: Kernel) -> None:
    kernel.outputs = (kernel.outputs[0], *kernel.outputs)


def output_inside_a_loop(kernel: Kernel) -> None:
    term = next(v for v in values_of(kernel, "sub") if v.loops)
    kernel.outputs = (term, *kernel.outputs[1:])


def factor_that_varies(kernel: Kernel) -> None:
    varying = next(v for v in values_of(kernel, "exp") if v.stage == PAIR)
    kernel.factors = (varying, *kernel.factors[1:])


def with_rules(kernel: Kernel, **rules: Any) -> None:
    kernel.accumulators = (replace(kernel.accumulators[0], **rules),)


def step_of_no_value(kernel: Kernel) -> None:
    with_rules(kernel, steps=((), *kernel.accumulators[0].steps[1:]))


def merge_that_reads_columns(kernel: Kernel) -> None:
    s = kernel.scalars
    with_rules(kernel, merges=(s.placeholder("a", 0) + s.placeholder("column", 0),))


def components_of_another_accumulator(kernel: Kernel) -> None:
    with_rules(kernel, first=1)


def output_that_reads_states(kernel: Kernel) -> None:
    kernel.outputs = (kernel.outputs[0] + kernel.scalars.placeholder("acc", 0), *kernel.outputs[1:])


def arguments_that_overlap(kernel: Kernel) -> None:
    raw = kernel.stages[COLUMN].raw
    raw.update(dict.fromkeys(raw, 0))


def arguments_without_place(kernel: Kernel) -> None:
    kernel.stages[ROW].raw.clear()


def slots_that_overlap(kernel: Kernel) -> None:
    computed = kernel.stages[ONCE].computed
    value, slot = next(iter(computed.items()))
    computed[value] = replace(slot, offset=0)


def slots_beyond_the_last(kernel: Kernel) -> None:
    kernel.stages[ONCE].size = kernel.stages[ONCE].raw_size


def slots_at_another_stage(kernel: Kernel) -> None:
    once, column = kernel.stages[ONCE], kernel.stages[COLUMN]
    value, slot = once.computed.popitem()
    column.computed[value] = replace(slot, offset=column.size)
    column.size += 1


def slots_for_another_loop(kernel: Kernel) -> None:
    computed = kernel.stages[ONCE].computed
    value, slot = next(iter(computed.items()))
    computed[value] = replace(slot, loop=Loop(1))


FAULTS: list[tuple[Callable[[Kernel], None], str]] = [
    (unknown_primitive, "is no primitive"),
    (operand_of_another_kind, r"operands of kinds \(index\), not \(real\)"),
    (operand_too_many, r"operands of kinds \(real, real\), not \(real\)"),
    (result_of_another_kind, "is of kind mask, not real"),
    (constant_without_number, "is made of None, not of a number"),
    (load_of_no_component, "loads a component that is not one number or one operand"),
    (value_of_another_kernel, "is a value of another kernel"),
    (value_changed_afterwards, "was changed afterwards"),
    (use_before_definition, "which comes after it"),
    (stage_that_shrinks, r"is of stage 2, its operand .* of stage 3"),
    (loop_that_starts_with_nothing, "starts with 0 values, carries 1 and goes on with 1"),
    (loop_that_goes_on_otherwise, "has other operands than its loop"),
    (loop_forgotten, "is not inside a loop that its operand"),
    (component_outside_its_argument, r"reads components 0\.\.19 of a vector of 19"),
    (argument_unknown, "reads argument 0, of which there are 0"),
    (index_said_to_be_smaller, r"is said to lie in 0\.\.3 of 20"),
    (output_missing, "1 outputs for 2 components"),
    (output_twice, "3 outputs for 2 components"),
    (output_inside_a_loop, "is inside a loop"),
    (factor_that_varies, "depends on what is folded over"),
    (step_of_no_value, "a step has 0 values, not 1"),
    (components_of_another_accumulator, r"has states 1\.\. of 2, not 0\.\."),
    (merge_that_reads_columns, "a merge reads .*column.* which it is not given"),
    (output_that_reads_states, "an output reads .*acc.* which it is not given"),
    (arguments_that_overlap, "belong to something else"),
    (arguments_without_place, r"stage 1 holds arguments \(\), not \(0\)"),
    (slots_that_overlap, "belong to something else"),
    (slots_beyond_the_last, "beyond its"),
    (slots_at_another_stage, "is kept at stage 2"),
    (slots_for_another_loop, "is kept for another loop than its own"),
]


@pytest.mark.parametrize(("plant", "words"), FAULTS, ids=[plant.__name__ for plant, _ in FAULTS])
def test_a_planted_fault_is_found(plant: Callable[[Kernel], None], words: str) -> None:
    kernel = kernel_of()
    verify(kernel)
    plant(kernel)
    with pytest.raises(KernelError, match=words) as caught:
        verify(kernel)
    assert isinstance(caught.value, InternalError)
    assert caught.value.where is not None
    assert caught.value.found is not None


def test_faults_of_tables_are_found() -> None:
    def made() -> tuple[Kernel, Value]:
        node = parse("MatVecMult(A, Exp(x-y))", [*ALIASES[:2], "A = Pm(400)"]).node
        kernel = lower(node, REDUCTIONS["Sum"], Axis.I, 16)
        verify(kernel)
        return kernel, some(kernel, "table")

    kernel, table = made()
    table.loop.nexts = table.loop.nexts[0].args
    assert any("has other entries than its loop" in fault for fault in faults(kernel))
    kernel, table = made()
    table.loop.carries = ()
    assert any("has a loop that carries no memory" in fault for fault in faults(kernel))
    kernel, table = made()
    table.loop.n = 19
    assert any("is said to lie in 0..19 of 19" in fault for fault in faults(kernel))


def test_what_a_stage_needs_of_a_later_one_is_found() -> None:
    """A value of the columns that is said to be one of the rows."""
    kernel = kernel_of("Exp(Elem(y,0))*b")
    value, slot = kernel.stages[COLUMN].computed.popitem()
    kernel.stages[ROW].computed[value] = replace(slot, offset=kernel.stages[ROW].size)
    kernel.stages[ROW].size += 1
    assert any("is kept at stage 1" in fault for fault in faults(kernel))


def test_an_error_lists_the_first_faults_alone() -> None:
    kernel = kernel_of("Extract(x*y,0,5)")
    kernel.arguments = tuple(Argument(a.position, 1, a.stage) for a in kernel.arguments)
    with pytest.raises(KernelError, match="and 4 more") as caught:
        verify(kernel)
    assert caught.value.found is not None
    assert len(caught.value.found.splitlines()) == 5


# -- when it runs ----------------------------------------------------------------------------------


def test_the_setting_verifies_every_kernel_that_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = np.ones((3, 1)), np.ones((4, 1))

    def misplaced(kernel: Kernel) -> None:
        place(kernel)
        with_rules(kernel, steps=())

    def call(text: str) -> Any:
        return Genred(text, ["x = Vi(1)", "y = Vj(1)"], axis=1)(x, y)

    place = lowering._place
    with settings(check=1):
        assert (call("x*y*0.25") == 1).all()
        monkeypatch.setattr(lowering, "_place", misplaced)
        with pytest.raises(KernelError, match="0 steps for 1 outputs"):
            call("x*y*0.125")
    monkeypatch.setattr(lowering, "_place", place)
    verified: list[Kernel] = []
    monkeypatch.setattr(lowering, "verify", verified.append)
    with settings(check=0):
        call("x*y*0.375")
    assert verified == []
    with settings(check=2):
        call("x*y*0.625")
    assert len(verified) >= 1
    assert all(kernel.stages[at] for kernel in verified for at in (ONCE, ROW, COLUMN, PAIR))
    assert not verified[0].stages[PAIR].size
