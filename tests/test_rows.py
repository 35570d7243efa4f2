"""Every row keeps its promises: value against oracle, known points, refusals, words."""

from __future__ import annotations

import re
import zlib

import numpy as np
import pytest
from checks import assert_close
from formulas import dense, formulas, operand_values, random_formula, variable_term
from hypothesis import given, settings
from hypothesis import strategies as st
from products import every_pair

from pairfold.backends.reference import interpreter as reference
from pairfold.core.node import Axis, topological
from pairfold.errors import DimError, FormulaError
from pairfold.frontends.methods import is_for_complex
from pairfold.lower.kernel import lower
from pairfold.ops.reductions import REDUCTIONS
from pairfold.ops.table import OPERATIONS, build, constant, variable

ROWS, COLUMNS = 17, 23
LEAVES = ("Var", "Constant")
KINDS = (Axis.I, Axis.J, Axis.PARAMETER)
COMPARISONS = [op.name for op in OPERATIONS.values() if op.symbol and op.symbol.binds == 10]

CASES = [
    (op, dims)
    for op in OPERATIONS.values()
    if op.name not in LEAVES and op.like is not None
    for dims in (op.samples if op.args else ((),))
]


def case_id(value):
    if isinstance(value, tuple):
        return "x".join(map(str, value)) or "none"
    return getattr(value, "name", repr(value))


def seed_of(*what):
    return zlib.crc32(repr(what).encode())


def sample_params(op):
    return tuple(param.sample for param in op.params)


def random_arrays(op, variables, rng):
    """Arguments inside the row's domain; whole numbers for comparisons, so that ties happen."""
    arrays = {}
    for name, v in zip(op.args, variables, strict=True):
        position, dim, kind = v.params
        shape = {Axis.I: (ROWS, dim), Axis.J: (COLUMNS, dim), Axis.PARAMETER: (dim,)}[kind]
        if op.name in COMPARISONS or name == "condition":
            arrays[position] = rng.integers(-2, 3, shape).astype(float)
        else:
            arrays[position] = operand_values(op, name, rng, shape)
    return arrays


def evaluate(formula, arrays, unroll=16, kept=Axis.I):
    kernel = lower(formula, REDUCTIONS["Sum"], kept, unroll=unroll)
    rows, columns = (ROWS, COLUMNS) if kept == Axis.I else (COLUMNS, ROWS)
    used = {v.params[0] for v in topological([formula]) if v.op.name == "Var"}
    given = {position: array for position, array in arrays.items() if position in used}
    return reference.evaluate(kernel, given, rows, columns)


def spread(array, kind):
    if kind == Axis.PARAMETER:
        return array[None, None]
    return array[:, None] if kind == Axis.I else array[None]


@every_pair(("op,dims", CASES), ("unroll", [16, 2, 1]), ("shift", range(3)), ids=case_id)
def test_a_row_computes_what_its_oracle_says(op, dims, unroll, shift):
    """`shift` is the kind of the first operand, `unroll` the longest vector without a loop."""
    rng = np.random.default_rng(seed_of(op.name, dims))
    kinds = [KINDS[(place + shift) % 3] for place in range(len(dims))]
    variables = [variable(p, dim, kinds[p]) for p, dim in enumerate(dims)]
    formula = build(op, *variables, *sample_params(op))
    arrays = random_arrays(op, variables, rng)
    operands = [spread(arrays[p], kinds[p]) for p in range(len(dims))]
    pairs = dense(op, operands, sample_params(op))
    assert pairs.shape[-1] == formula.dim
    pairs = np.broadcast_to(pairs, (ROWS, COLUMNS, formula.dim))
    for kept, axis in ((Axis.I, 1), (Axis.J, 0)):
        assert_close(
            evaluate(formula, arrays, unroll, kept),
            pairs.sum(axis=axis),
            terms=pairs.shape[axis],
            scale=float(np.abs(pairs).sum(axis=axis).max()),
            formula=formula,
        )


KNOWN = [(op, point) for op in OPERATIONS.values() for point in op.known]


@pytest.mark.parametrize(("op", "point"), KNOWN, ids=case_id)
def test_a_row_has_its_known_values(op, point):
    inputs = point[: len(op.args)]
    params, want = point[len(op.args) : -1], point[-1]
    operands = [variable(p, np.size(x), Axis.I) for p, x in enumerate(inputs)]
    formula = build(op, *operands, *params)
    arrays = {p: np.atleast_1d(np.asarray(x, float))[None] for p, x in enumerate(inputs)}
    got = reference.evaluate(lower(formula, REDUCTIONS["Sum"], Axis.I, 16), arrays, 1, 1)
    assert_close(got, np.atleast_1d(np.asarray(want, float))[None], formula=formula)


REFUSALS = [(op, *case) for op in OPERATIONS.values() for case in op.refuses]


@pytest.mark.parametrize(("op", "dims", "params", "words"), REFUSALS, ids=case_id)
def test_a_row_refuses_in_words_what_it_cannot_do(op, dims, params, words):
    x = [variable(p, dim, Axis.I) for p, dim in enumerate(dims)]
    if "respect to a variable" in words:
        x[1] = x[1] + constant(1)
    with pytest.raises(DimError) as caught:
        build(op, *x, *params)
    message = str(caught.value)
    assert words in message
    assert message.startswith(op.name) or op.expand is not None
    assert caught.value.found


@pytest.mark.parametrize("op", OPERATIONS.values(), ids=case_id)
def test_a_row_refuses_a_wrong_number_of_operands(op):
    operands = [variable(p, 1, Axis.I) for p in range(len(op.args) + 1)]
    with pytest.raises(FormulaError, match=f"{op.name} takes"):
        build(op, *operands, *sample_params(op), 1)


@pytest.mark.parametrize("op", OPERATIONS.values(), ids=case_id)
def test_a_row_says_what_it_is(op):
    assert op.says.endswith(".")
    assert op.says[0].isupper() or not op.says[0].isalpha() or op.says[0] in op.args
    if op.args:
        assert op.derivative
    if op.name != "Var" and op.samples:
        assert op.like is not None or op.known
    assert op.value is None or op.pullback is not None or "none" in op.derivative.lower()
    assert set(op.domain) <= set(op.args)
    for dims in op.samples if op.args else ():
        assert len(dims) == len(op.args)


def test_names_methods_and_symbols_are_unique():
    rows = list(OPERATIONS.values())
    methods = [(op.method, is_for_complex(op)) for op in rows if op.method]  # exp of either kind
    symbols = [op.symbol.text for op in rows if op.symbol]
    assert len(set(methods)) == len(methods)
    assert len(set(symbols)) == len(symbols)
    assert all(re.fullmatch("[A-Za-z][A-Za-z0-9_]*", op.name) for op in rows)
    assert all(method.isidentifier() for method, _ in methods)
    assert len({name.lower() for name in OPERATIONS}) == len(OPERATIONS)


@pytest.mark.parametrize("name", COMPARISONS)
def test_a_comparison_with_nan_is_false_but_for_not_equal(name):
    x = variable(0, 1, Axis.I)
    got = evaluate_one(build(OPERATIONS[name], x, constant(1)), np.nan)
    assert got == (1.0 if name == "NotEqual" else 0.0)


CONVENTIONS = {
    "Sign": ((np.nan, 0.0), (-0.0, 0.0), (np.inf, 1.0), (-np.inf, -1.0)),
    "Step": ((np.nan, 1.0), (-0.0, 1.0), (-5e-324, 0.0)),
    "ReLU": ((np.nan, np.nan), (-0.0, 0.0), (np.inf, np.inf), (-np.inf, 0.0)),
    "Rsqrt": ((0.0, 0.0), (-0.0, 0.0), (-1.0, np.nan), (np.inf, 0.0)),
    "Sqrt": ((0.0, 0.0), (-1.0, np.nan), (np.inf, np.inf)),
    "Log": ((0.0, -np.inf), (-1.0, np.nan)),
    "Inv": ((0.0, np.inf), (-0.0, -np.inf)),
    "Abs": ((-np.inf, np.inf), (np.nan, np.nan)),
}


@pytest.mark.parametrize("name", CONVENTIONS)
def test_special_values_are_those_of_the_language(name):
    formula = build(OPERATIONS[name], variable(0, 1, Axis.I))
    for x, want in CONVENTIONS[name]:
        assert_close(evaluate_one(formula, x), want, formula=f"{name}({x})")


def evaluate_one(formula, *values):
    """The formula at one pair, for operands of dimension 1 indexed by i."""
    arrays = {p: np.array([[value]]) for p, value in enumerate(values)}
    kernel = lower(formula, REDUCTIONS["Sum"], Axis.I, 16)
    return reference.evaluate(kernel, arrays, 1, 1)[0, 0]


@pytest.mark.parametrize("m", [-20, -3, -2, -1, 0, 1, 2, 3, 7, 16, 17, 30])
def test_whole_powers_are_powers(m):
    formula = build(OPERATIONS["Pow"], variable(0, 1, Axis.I), m)
    for x in (-1.7, -1.0, 0.3, 2.0):
        got = evaluate_one(formula, x) if m else 1.0
        assert_close(got, x**m, formula=f"Pow({x}, {m})")


def test_pow_zero_is_one_even_for_nan():
    formula = build(OPERATIONS["Pow"], variable(0, 1, Axis.I), 0)
    for x in (0.0, np.nan, np.inf):
        kernel = lower(formula, REDUCTIONS["Sum"], Axis.I, 16)
        assert reference.evaluate(kernel, {0: np.array([[x]])}, 1, 1)[0, 0] == 1


@every_pair(("seed", range(60)), ("unroll", [16, 2]), ("kept", [Axis.I, Axis.J]))
def test_a_random_formula_computes_its_dense_meaning(seed, unroll, kept):
    rng = np.random.default_rng(seed)
    check_formula(random_formula(rng, depth=4), rng, unroll, kept, seed)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(formulas(depth=3), st.sampled_from([16, 1]), st.sampled_from([Axis.I, Axis.J]))
def test_a_drawn_formula_computes_its_dense_meaning(formula, unroll, kept):
    check_formula(formula, np.random.default_rng(5), unroll, kept, 5)


def check_formula(formula, rng, unroll, kept, seed):
    arrays = formula.arrays(rng, ROWS, COLUMNS)
    pairs = formula.pairs(arrays, ROWS, COLUMNS)
    axis = 1 if kept == Axis.I else 0
    assert_close(
        evaluate(formula.node, arrays, unroll, kept),
        formula.oracle(arrays, ROWS, COLUMNS, kept),
        rtol=1e-7 if formula.differentiates else 1e-11,
        atol=(1e-7 if formula.differentiates else 1e-11) * (1 + np.abs(pairs).sum(axis).max()),
        formula=formula,
        seed=seed,
    )


def test_random_formulas_are_varied():
    rng = np.random.default_rng(0)
    drawn = [random_formula(rng, depth=4) for _ in range(300)]
    used = {node.op.name for formula in drawn for node in topological([formula.node])}
    built = {op.name for op in OPERATIONS.values() if op.value is not None and op.like is not None}
    assert built - used <= {"Zero"}
    assert sum(formula.differentiates for formula in drawn) > 50


def test_the_same_seed_draws_the_same_formula():
    first, again = (random_formula(np.random.default_rng(3)) for _ in range(2))
    assert first.node is again.node
    assert variable_term(*first.declared[0]).node is first.variables[0]
