"""Tables: vectors computed once and read at any component, in every stage and under every plan."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from checks import assert_close
from products import some

from pairfold.arrays.numpy import NumpyArrays
from pairfold.backends.llvm.launch import Launcher
from pairfold.backends.llvm.machine import machine
from pairfold.backends.llvm.scratch import Layout
from pairfold.core.node import Axis
from pairfold.core.scalars import Scalars
from pairfold.errors import InternalError, MemoryLimitError, PairfoldError
from pairfold.frontends.accuracy import Accuracy
from pairfold.frontends.reduction import FormulaReduction
from pairfold.lower.kernel import COLUMN, ONCE, PAIR, ROW, lower
from pairfold.lower.schedule import frontier, operations, tables
from pairfold.ops.reductions import REDUCTIONS
from pairfold.ops.table import OPERATIONS, Op, build, operation, variable
from pairfold.settings import current, settings

ROWS, COLUMNS = 17, 23


def row(name: str, args: str, **fields: Any) -> Op:
    """A row of the table that stays out of the table."""
    op = operation(f"Trial{name}", args, "A trial.", **fields)
    del OPERATIONS[op.name]
    return op


# Component k is that of x, plus half of the one before it, plus 0.3 of the one 5 before.
echo = row(
    "Echo",
    "x",
    dims=lambda d: d,
    value=lambda s, k, x: _echo(s, x)(k),
)
# Reads every component of x for every component of the result, in reverse order.
reverse_sums = row(
    "ReverseSums",
    "x",
    dims=lambda d: d,
    rereads=True,
    value=lambda s, k, x: s.sum(x.dim, lambda n: x(x.dim - 1 + n * -1) * s.position(n)) + x(k),
)


def _echo(s: Scalars, x: Any) -> Callable[[Any], Any]:
    def entry(k: Any, read: Any) -> Any:
        before = s.choose(k, 1, lambda: s.constant(0), lambda: read(s.at_least(k + -1, 0)))
        longer = s.choose(k, 5, lambda: s.constant(0), lambda: read(s.at_least(k + -5, 0)))
        return x(k) + before * 0.5 + longer * 0.3

    return s.table(x.dim, entry)


def dense_echo(x: Any) -> Any:
    out = np.zeros(x.shape)
    for k in range(x.shape[-1]):
        out[..., k] = x[..., k]
        if k >= 1:
            out[..., k] += 0.5 * out[..., k - 1]
        if k >= 5:
            out[..., k] += 0.3 * out[..., k - 5]
    return out


def dense_reverse_sums(x: Any) -> Any:
    weights = np.arange(x.shape[-1])[::-1]
    return x + (x * weights).sum(-1, keepdims=True)


MEANINGS = {echo: dense_echo, reverse_sums: dense_reverse_sums}
UNROLL = (1, 4, 16, 64)
PLANS = ({}, {"splits": 2}, {"row_vectors": 2, "column_jam": 3})


def options_of(stage: str, kept: Axis) -> Iterator[dict[str, Any]]:
    """Settings of every unrolling and plan (of pairs; otherwise the first), with rows or columns
    in lanes alternately: where one index is kept, what the other has not.

    Beside the first plan every second unrolling. The interpreter, which knows of no plan, looks at
    the first plan only.
    """
    plans = PLANS if stage == "pair" else PLANS[:1]
    for (u, unroll), (m, more) in itertools.product(enumerate(UNROLL), enumerate(plans)):
        if more and (u // 2 + m + (kept == Axis.J)) % 2:
            continue
        lanes = ("row", "column")[(u + m + (kept == Axis.J)) % 2]
        yield {"lanes": lanes, "unroll": unroll, **more, "check": 0 if more else 2}


def compute(node: Any, variables: list[Any], given: list[Any], kept: Axis, **options: Any) -> Any:
    """Sum by machine code, checked against the interpreter."""
    with settings(**{"check": 2, **options}):
        return FormulaReduction(node, variables, "Sum", kept)(NumpyArrays, given)


def operand(stage: str, dim: int) -> tuple[Any, list[Any], list[Any], Any]:
    """A computed vector of a stage: node, variables, arrays, and its dense values (M, N, dim)."""
    rng = np.random.default_rng(dim)
    x, y, p = rng.normal(size=(ROWS, dim)), rng.normal(size=(COLUMNS, dim)), rng.normal(size=dim)
    vx, vy, vp = (
        variable(0, dim, Axis.I),
        variable(1, dim, Axis.J),
        variable(2, dim, Axis.PARAMETER),
    )
    sin = OPERATIONS["Sin"]
    node, dense = {
        "once": (sin(vp), np.sin(p)[None, None]),
        "row": (sin(vx), np.sin(x)[:, None]),
        "column": (sin(vy), np.sin(y)[None]),
        "pair": (sin(vx - vy), np.sin(x[:, None] - y)),
    }[stage]
    return node, [vx, vy, vp], [x, y, p], np.broadcast_to(dense, (ROWS, COLUMNS, dim))


STAGES = ("once", "row", "column", "pair")


@some(
    "op,stage,dim",
    list(itertools.product(MEANINGS, STAGES, (3, 19))),
    lambda entry: (STAGES.index(entry[1]) + (entry[0] is echo) + (entry[2] == 3)) % 2,
    ids=lambda value: getattr(value, "name", None),
)
def test_tables_of_every_stage_equal_their_meaning(op: Op, stage: str, dim: int) -> None:
    inner, variables, given, dense = operand(stage, dim)
    node = build(op, inner)
    pairs = MEANINGS[op](dense)
    scale = float(np.abs(pairs).sum((0, 1)).max())
    for kept, axis in ((Axis.I, 1), (Axis.J, 0)):
        for options in options_of(stage, kept):
            got = compute(node, variables, given, kept, **options)
            assert_close(got, pairs.sum(axis), terms=23, scale=scale, formula=(node, options))
            if options["check"] == 0:  # another plan of what the first was asked of
                continue
            few = compute(OPERATIONS["Sum"](node), variables, given, kept, **options)
            assert_close(few, pairs.sum((2, axis))[:, None], terms=23, scale=20 * scale)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("unroll", [1, 16])
def test_tables_of_tables(unroll: int, dtype: str) -> None:
    for stage in ("once", "row", "column", "pair"):
        inner, variables, given, dense = operand(stage, 19)
        given = [array.astype(dtype) for array in given]
        node = build(reverse_sums, build(echo, build(reverse_sums, build(echo, inner))))
        pairs = dense_reverse_sums(dense_echo(dense_reverse_sums(dense_echo(dense))))
        for kept, axis in ((Axis.I, 1), (Axis.J, 0)):
            lanes = ("row", "column")[(axis + (stage in ("once", "column"))) % 2]
            got = compute(node, variables, given, kept, unroll=unroll, lanes=lanes)
            assert_close(got, pairs.sum(axis), terms=23 * 19, formula=(node, stage, lanes))


def test_a_table_inside_a_loop_is_computed_for_each_round() -> None:
    """Component k is the sum over m of a table that depends on k."""

    def value(s: Scalars, k: Any, x: Any) -> Any:
        powers = s.table(
            19, lambda m, read: x(k) * s.choose(m, 1, lambda: s.constant(1), lambda: read(
                s.at_least(m + -1, 0)) * 0.5)
        )  # fmt: skip
        return s.sum(19, lambda m: powers(m) * s.exp(powers(18 + m * -1)))

    nested = row("Nested", "x", dims=lambda d: d, value=value)

    def meaning(x: Any) -> Any:
        cells = [x]
        for _ in range(18):
            cells.append(x * cells[-1] * 0.5)
        return sum(a * np.exp(b) for a, b in zip(cells, reversed(cells), strict=True))

    for stage, dim, unroll in itertools.product(
        ("once", "row", "column", "pair"), (3, 19), (1, 16)
    ):
        inner, variables, given, dense = operand(stage, dim)
        lanes = ("row", "column")[(dim + unroll + (stage in ("once", "pair"))) % 2]
        got = compute(build(nested, inner), variables, given, Axis.I, unroll=unroll, lanes=lanes)
        assert_close(got, meaning(dense).sum(1), terms=23 * 19, formula=(stage, dim, lanes))


def kernel_of(node: Any, unroll: int = 16) -> Any:
    return lower(node, REDUCTIONS["Sum"], Axis.I, unroll)


def test_a_table_is_computed_once_and_at_its_own_stage() -> None:
    for stage, at in (("once", ONCE), ("row", ROW), ("column", COLUMN), ("pair", PAIR)):
        inner, *_ = operand(stage, 100)
        kernel = kernel_of(build(reverse_sums, inner))
        assert {where: len(tables(kernel, where)) for where in (ONCE, ROW, COLUMN, PAIR)} == {
            ONCE: 0, ROW: 0, COLUMN: 0, PAIR: 0, at: 1
        }  # fmt: skip
        assert operations(kernel) < 100 * 40
    inner, *_ = operand("pair", 100)
    assert sum(value.what == "table" for value in frontier(kernel_of(reverse_sums(inner)))) == 1


def test_a_variable_or_a_part_of_one_needs_no_table() -> None:
    x = variable(0, 40, Axis.I)
    for node in (
        x,
        OPERATIONS["Extract"](x, 3, 30),
        OPERATIONS["SumT"](variable(1, 1, Axis.J), 30),
    ):
        kernel = kernel_of(build(reverse_sums, node))
        assert not any(tables(kernel, at) for at in (ONCE, ROW, COLUMN, PAIR))


def test_a_read_outside_a_table_is_caught_before_any_code_exists() -> None:
    wrong = row("Wrong", "x", dims=lambda d: d, value=lambda s, k, x: _wrong(s, x)(k))

    def _wrong(s: Scalars, x: Any) -> Any:
        return s.table(x.dim, lambda k, read: x(k) + read(k + 1))

    with pytest.raises(InternalError, match="a table of 40"):
        kernel_of(build(wrong, variable(0, 40, Axis.I)))


def test_long_tables_work_and_absurd_ones_are_refused() -> None:
    n = 200_000
    x, y = variable(0, n, Axis.I), variable(1, 1, Axis.J)
    rng = np.random.default_rng(0)
    given = [rng.uniform(-1, 1, (3, n)), rng.uniform(-1, 1, (4, 1))]
    node = OPERATIONS["Sum"](build(reverse_sums, OPERATIONS["Sin"](x * y)))
    with settings(rules="all"):
        got = FormulaReduction(node, [x, y], "Sum", Axis.I)(NumpyArrays, given)
    want = dense_reverse_sums(np.sin(given[0][:, None] * given[1])).sum((1, 2))[:, None]
    assert_close(got, want, terms=n, scale=float(np.abs(want).max()))
    huge = build(reverse_sums, OPERATIONS["Sin"](variable(0, 10**8, Axis.I) * y))
    launcher = Launcher(
        kernel_of(huge), "float64", Accuracy().for_dtype("float64", REDUCTIONS["Sum"])
    )
    with pytest.raises(MemoryLimitError, match="GiB of working memory") as caught:
        Layout(launcher.kernel, launcher.plan(17, 23, current()))
    assert isinstance(caught.value, (PairfoldError, MemoryError))
    assert machine("native").vector_bytes > 0
