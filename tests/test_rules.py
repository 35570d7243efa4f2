"""Every simplification fires on something, is true, and changes numbers only as far as it says."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np
import pytest
from checks import assert_close, assert_same_bits
from formulas import formulas
from hypothesis import given
from hypothesis import settings as profile

from pairfold.arrays.numpy import NumpyArrays
from pairfold.backends.reference import interpreter as reference
from pairfold.core.node import Axis, Node, intern_node, topological
from pairfold.errors import Refusal
from pairfold.frontends.parse import parse
from pairfold.frontends.reduction import FormulaReduction
from pairfold.lower.kernel import lower
from pairfold.ops.reductions import REDUCTIONS
from pairfold.ops.table import OPERATIONS, build, constant, variable
from pairfold.settings import settings as options

LEVEL = {"exact": "exact", "rounding": "rounding", "domain": "all"}
RULES = [(op, rule) for op in OPERATIONS.values() for rule in op.rules]
SPECIAL = (0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 1e-300, -3.5, 2.0)

X, Y = variable(0, 3, Axis.I), variable(1, 3, Axis.I)
A, B = variable(2, 1, Axis.I), variable(3, 1, Axis.I)
Z = variable(4, 6, Axis.I)
VARIABLES = (X, Y, A, B, Z)


def rule_id(value):
    return getattr(value, "name", None) or getattr(value, "says", None)


def raw(op, args, params):
    """The node of an operation with no rule applied to it."""
    dim = op.dims(*(arg.dim for arg in args), *params)
    kinds = 0
    for arg in args:
        kinds |= arg.kinds
    return intern_node(op, args, params, dim, kinds)


def by_name(name, *operands, params=()):
    return raw(OPERATIONS[name], operands, params)


def operand_pool():
    """Operands of the shapes that simplifications look for."""
    numbers = [constant(n) for n in (0, 1, -1, 2, Fraction(1, 3), "-0.0", "inf", "nan")]
    zeros = [by_name("Zero", params=(n,)) for n in (1, 3, 4)]
    pair = by_name("Complex", X, Y)
    made = [
        by_name("Minus", X),
        by_name("Minus", A),
        by_name("Subtract", X, Y),
        by_name("Subtract", A, X),
        by_name("Mult", A, X),
        by_name("Mult", X, A),
        by_name("Mult", constant(3), X),
        by_name("Mult", constant(Fraction(1, 3)), A),
        by_name("Mult", constant(-2), Y),
        by_name("Exp", X),
        by_name("Exp", A),
        by_name("SumT", A, params=(3,)),
        by_name("Concat", X, Y),
        by_name("Extract", X, params=(1, 2)),
        by_name("IfElse", A, X, Y),
        by_name("IfElse", A, Y, zeros[1]),
        by_name("IfElse", B, A, zeros[0]),
        pair,
        by_name("Add", pair, Z),
        by_name("Mult", A, pair),
        by_name("ComplexReal", Z),
        by_name("ComplexImag", Z),
        by_name("Diag", X),
    ]
    return [*VARIABLES, *numbers, *zeros, *made]


@cache
def firings(op, rule, most=40):
    """Operands and parameters on which the rule applies, spread over all that were tried.

    For the same arguments it is called under the same settings.
    """
    pool = operand_pool()
    params = list(itertools.product(range(-2, 7), repeat=len(op.params)))
    found = []
    for args in itertools.product(pool, repeat=len(op.args)):
        for values in params:
            try:
                op.dims(*(arg.dim for arg in args), *values)
            except Refusal:
                continue
            if rule.apply(*args, *values) is not None:
                found.append((args, values))
    return found[:: max(1, len(found) // most)]


def at_points(node, arrays):
    used = {v.params[0] for v in topological([node]) if v.op.name == "Var"}
    kernel = lower(node, REDUCTIONS["Sum"], Axis.I, 16)
    count = next(iter(arrays.values())).shape[0]
    given = {position: array for position, array in arrays.items() if position in used}
    return reference.evaluate(kernel, given, count, 1)


def ordinary(rng, points=97):
    return {v.params[0]: rng.uniform(-2, 2, (points, v.dim)) for v in VARIABLES}


def special(rng, points=400):
    return {v.params[0]: rng.choice(SPECIAL, (points, v.dim)) for v in VARIABLES}


def assert_same(got, want, says):
    """The same bits; NumPy 1 computes exp of contiguous and of strided arrays by different code."""
    if np.__version__.startswith("1."):
        assert_close(got, want, rtol=2.3e-16, atol=0.0, formula=says)
    else:
        assert_same_bits(got, want, formula=says)


@pytest.mark.parametrize(("op", "rule"), RULES, ids=rule_id)
def test_a_rule_changes_numbers_only_as_it_declares(op, rule):
    rng = np.random.default_rng(7)
    with options(rules=LEVEL[rule.changes]):
        cases = firings(op, rule)
        assert cases, "no operands were found on which the rule applies"
        for args, params in cases:
            before, after = raw(op, args, params), rule.apply(*args, *params)
            assert isinstance(after, Node)
            assert after is not before
            assert after.dim == before.dim
            arrays = ordinary(rng)
            values = at_points(before, arrays), at_points(after, arrays)
            says = f"{before} -> {after}"
            if rule.changes == "exact":
                assert_same(values[1], values[0], says)
                arrays = special(rng)
                values = at_points(before, arrays), at_points(after, arrays)
                assert_same(values[1], values[0], says)
            else:
                finite = np.isfinite(values[0])
                got, want = values[1][finite], values[0][finite]
                assert_close(got, want, terms=9, formula=says)


@pytest.mark.parametrize(("op", "rule"), RULES, ids=rule_id)
def test_a_rule_applies_when_and_only_when_settings_allow_it(op, rule):
    with options(rules=LEVEL[rule.changes]):
        args, params = firings(op, rule)[0]
        assert build(op, *args, *params) is not raw(op, args, params)


def test_rules_that_change_rounding_are_off_when_asked():
    x = variable(0, 1, Axis.I)
    with options(rules="exact"):
        assert build(OPERATIONS["Divide"], x, constant(3)).op.name == "Divide"
        assert build(OPERATIONS["Add"], constant(1), constant(2)).op.name == "Add"
    assert build(OPERATIONS["Divide"], x, constant(3)).op.name == "Mult"
    assert build(OPERATIONS["Add"], constant(1), constant(2)) is constant(3)


def test_rules_that_hide_nan_are_off_by_default():
    x = variable(0, 1, Axis.I)
    for text in ("x-x", "0*x", "Log(Exp(x))"):
        kept = parse(text, ["x = Vi(1)"]).node
        assert x in topological([kept])
        with options(rules="all"):
            assert parse(text, ["x = Vi(1)"]).node is not kept


def test_a_quotient_by_an_extreme_number_is_not_turned_into_an_infinite_product():
    x = variable(0, 1, Axis.I)
    assert build(OPERATIONS["Divide"], x, constant(Fraction(1, 10**310))).op.name == "Divide"


@pytest.mark.parametrize(("op", "rule"), RULES, ids=rule_id)
def test_a_simplified_node_built_again_is_itself(op, rule):
    with options(rules="all"):
        for args, params in firings(op, rule, most=10):
            node = build(op, *args, *params)
            assert build(node.op, *node.args, *node.params) is node


@profile(max_examples=60, deadline=None, derandomize=True)
@given(formulas(depth=3, derivatives=False))
def test_a_random_formula_means_the_same_under_all_rules(formula):
    rng = np.random.default_rng(3)
    arrays = formula.arrays(rng, 17, 23)
    pairs = formula.pairs(arrays, 17, 23)
    names = [f"Var({p},{d},{int(kind)})" for p, d, kind in formula.declared]
    text = repr(formula.node)
    if ":=" in text:
        return
    for level in ("exact", "rounding", "all"):
        with options(rules=level):
            node = parse(text, names).node
            used = {v.params[0] for v in topological([node]) if v.op.name == "Var"}
            kernel = lower(node, REDUCTIONS["Sum"], Axis.I, 16)
            given_ = {p: array for p, array in arrays.items() if p in used}
            got = reference.evaluate(kernel, given_, 17, 23)
        scale = 1 + np.abs(pairs).sum(1).max()
        assert_close(got, pairs.sum(1), rtol=1e-11, atol=1e-11 * scale, formula=f"{level}: {node}")


# ----- what the formula language is known to hide -------------------------------------------------

# Formulas in x, u (indexed by i) and y, v (by j), all of dimension 1 or 2, and what they mean.
HIDING: dict[str, Callable[..., Any]] = {
    "0*x*y": lambda x, y, u, v: 0 * x * y,
    "x*y*0": lambda x, y, u, v: x * y * 0,
    "Zero(1)*x+y": lambda x, y, u, v: 0 * x + y,
    "x-x+y": lambda x, y, u, v: x - x + y,
    "(x+y)-(x+y)": lambda x, y, u, v: (x + y) - (x + y),
    "0+x*y": lambda x, y, u, v: x * y,
    "x*y-0": lambda x, y, u, v: x * y,
    "x/x*y": lambda x, y, u, v: x / x * y,
    "(x+y)/(x+y)": lambda x, y, u, v: (x + y) / (x + y),
    "x+x+y": lambda x, y, u, v: x + x + y,
    "1*x*y": lambda x, y, u, v: x * y,
    "-1*x*y": lambda x, y, u, v: -x * y,
    "(x*y)*(x*y)": lambda x, y, u, v: (x * y) * (x * y),
    "-(-(x*y))": lambda x, y, u, v: x * y,
    "2*(3*x)*y": lambda x, y, u, v: 2 * (3 * x) * y,
    "2+(3+x)+y": lambda x, y, u, v: 2 + (3 + x) + y,
    "x*(y/3)": lambda x, y, u, v: x * (y / 3),
    "x*y+x*v": lambda x, y, u, v: x * y + x * v,
    "x*y-x*v": lambda x, y, u, v: x * y - x * v,
    "2*x*y+x*y": lambda x, y, u, v: 2 * x * y + x * y,
    "2*x*y-x*y": lambda x, y, u, v: 2 * x * y - x * y,
    "x*y-2*(x*y)+x*y": lambda x, y, u, v: x * y - 2 * (x * y) + x * y,
    "(-x)*(-y)": lambda x, y, u, v: x * y,
    "Exp(x)*Exp(y)": lambda x, y, u, v: np.exp(x) * np.exp(y),
    "u*Exp(x)*Exp(y)": lambda x, y, u, v: u * np.exp(x) * np.exp(y),
    "u*Exp(x+y)": lambda x, y, u, v: u * np.exp(x + y),
    "Exp(x-y)*v": lambda x, y, u, v: np.exp(x - y) * v,
    "Log(Exp(x))*y": lambda x, y, u, v: np.log(np.exp(x)) * y,
    "Sum(x*Concat(y,v))": lambda x, y, u, v: x * y + x * v,
    "Sum(Concat(x,u)*Concat(y,v))": lambda x, y, u, v: x * y + u * v,
    "Concat(x,u)|Concat(y,v)": lambda x, y, u, v: x * y + u * v,
    "Concat(x,y)|Concat(x,y)": lambda x, y, u, v: x * x + y * y,
    "(u*Concat(x,x))|Concat(y,v)": lambda x, y, u, v: u * x * y + u * x * v,
    "Sum(x*y)": lambda x, y, u, v: x * y,
    "IfElse(x,0,0)+y": lambda x, y, u, v: 0 * (x == x) + y,
    "Inv(Inv(x))*y": lambda x, y, u, v: 1 / (1 / x) * y,
    "Square(Sqrt(x))*y": lambda x, y, u, v: np.sqrt(x) ** 2 * y,
    "RatCst(1,2)+1+x*y": lambda x, y, u, v: 1.5 + x * y,
}
HARD = (0.0, 1.0, -2.0, np.inf, -np.inf, np.nan, 800.0, -800.0)


@pytest.mark.parametrize("kept", [Axis.I, Axis.J], ids=["sum-over-j", "sum-over-i"])
@pytest.mark.parametrize("text", HIDING)
def test_no_simplification_hides_nan_or_infinity_by_default(text, kept):
    kinds = (Axis.I, Axis.J, Axis.I, Axis.J)
    aliases = [f"{n} = {('Vi', 'Vj')[kind]}(1)" for n, kind in zip("xyuv", kinds)]
    parsed = parse(text, aliases)
    fold = FormulaReduction(parsed.node, parsed.variables, "Sum", kept)
    first, second = np.meshgrid(HARD, (1.0, 0.0, np.inf, np.nan), indexing="ij")
    for y, v in itertools.product(HARD, (1.0, 0.0, np.inf, np.nan)):
        one = [np.array([[y]]), np.array([[v]])]
        many = [first.reshape(-1, 1), second.reshape(-1, 1)]
        x, u = many if kept == Axis.I else one
        y_, v_ = one if kept == Axis.I else many
        with np.errstate(all="ignore"):
            want = np.broadcast_to(HIDING[text](x, y_, u, v_), (32, 1))
        got = fold(NumpyArrays, [x, y_, u, v_])
        assert_close(got, want, formula=f"{parsed.node} for y = {y}, v = {v}")


def test_fractions_and_whole_numbers_add_in_either_order():
    for text in ("RatCst(1,2)+1", "1+RatCst(1,2)", "RatCst(5,2)-1", "2-RatCst(1,2)", "IntInv(2)+1"):
        assert parse(text).node is constant(Fraction(3, 2)), text


def test_numbers_are_not_gathered_into_one_that_is_infinite_or_zero():
    huge = Fraction(10) ** 200
    x, one = variable(0, 1, Axis.I), variable(1, 1, Axis.J)
    for number in (huge, 1 / huge):
        node = constant(number) * (constant(number) * x) * one
        got = FormulaReduction(node, [x, one], "Sum", Axis.I)(
            NumpyArrays, [np.zeros((1, 1)), np.ones((1, 1))]
        )
        assert_same_bits(got, np.zeros((1, 1)))
