"""Formula text: what is accepted and means what, what is refused and where the carets stand."""

from __future__ import annotations

import warnings
from fractions import Fraction

import numpy as np
import pytest
from formulas import random_formula
from hypothesis import given, settings
from hypothesis import strategies as st

from pairfold.core.node import Axis
from pairfold.core.show import formula_text
from pairfold.errors import DerivativeError, DimError, FormulaError, UnknownNameError
from pairfold.frontends import parse as parser_module
from pairfold.frontends.declarations import parse_aliases
from pairfold.frontends.parse import parse, parse_many
from pairfold.ops.table import OPERATIONS, build, constant, power, variable

ALIASES = ["x = Vi(3)", "y = Vj(3)", "a = Vj(1)", "p = Pm(1)"]
X, Y = variable(0, 3, Axis.I), variable(1, 3, Axis.J)
A, P = variable(2, 1, Axis.J), variable(3, 1, Axis.PARAMETER)


def op(name, *operands):
    return build(OPERATIONS[name], *operands)


def less(x, y):
    return op("LessThan", x, y)


ACCEPTED = {
    "x": X,
    "  x  ": X,
    "(x)": X,
    "((x))": X,
    "+x": X,
    "-+-x": X,
    "x\n + \t y": X + Y,
    "Square(p-a)*Exp(x+y)": op("Square", P - A) * op("Exp", X + Y),
    "Exp(x,)": op("Exp", X),
    "Exp ( x )": op("Exp", X),
    "Concat(x,Concat(y,a),)": op("Concat", X, op("Concat", Y, A)),
    "Extract(x,1,2)": op("Extract", X, 1, 2),
    "Extract(x,+1,2,)": op("Extract", X, 1, 2),
    "Elem(x,-0)": op("Elem", X, 0),
    "Pow(x,-3)": op("Pow", X, -3),
    "Zero(3)": op("Zero", 3),
    "IntCst(2)": constant(2),
    "IntCst(-2)": constant(-2),
    "IntInv(3)": constant(Fraction(1, 3)),
    "RatCst(1,3)": constant(Fraction(1, 3)),
    "RatCst(-1,-3)": constant(Fraction(1, 3)),
    "SumT(p,4)": op("SumT", P, 4),
    "Clamp(x,0,1)": op("Clamp", X, constant(0), constant(1)),
    "Powf(x,2)": op("Powf", X, constant(2)),
    "IfElse(x,1,-1)": op("IfElse", X, constant(1), constant(-1)),
    "Grad(Exp(x),x,y)": Y * op("Exp", X),
    "Diff(Exp(x),x,y)": Y * op("Exp", X),
    "Var(0,3,0)": X,
    "Var(0,3,0)*Var(1,3,1)": X * Y,
    "SqDist(x,y)": op("SqDist", X, Y),
    "3*x": constant(3) * X,
    "1.5*x": constant(Fraction(3, 2)) * X,
    ".5*x": constant(Fraction(1, 2)) * X,
    "2.*x": constant(2) * X,
    "0.1*x": constant(Fraction(1, 10)) * X,
    "1e-3*x": constant(Fraction(1, 1000)) * X,
    "2.5E+1*x": constant(25) * X,
    "1/2": constant(Fraction(1, 2)),
    "1/3+1/6": constant(Fraction(1, 2)),
    "007": constant(7),
    "1e308": constant(Fraction("1e308")),
    "1e309": constant("inf"),
    "-1e999": constant("-inf"),
    "1e999999999": constant("inf"),
    "1e-999999999": constant(0),
    "0e999999999": constant(0),
    "-0.0": constant("-0.0"),
    "0/0.": constant("nan"),
    "1" * 5000: constant("inf"),
    "0." + "3" * 5000: constant(Fraction(1 / 3)),
}

PRECEDENCE = {
    "-x**2": -op("Square", X),
    "x**-2": op("Pow", X, -2),
    "x**+2": op("Square", X),
    "x**1": X,
    "x**2.0": op("Square", X),
    "x**0.5": op("Powf", X, constant(Fraction(1, 2))),
    "x**p": op("Powf", X, P),
    "x**y**p": op("Powf", X, op("Powf", Y, P)),
    "x**-y**2": op("Powf", X, -op("Square", Y)),
    "x**-p*y": op("Powf", X, -P) * Y,
    "x*y**2": X * op("Square", Y),
    "(x*y)**2": op("Square", X * Y),
    "x+y*p": X + Y * P,
    "(x+y)*p": (X + Y) * P,
    "x-y-p": (X - Y) - P,
    "x-(y-p)": X - (Y - P),
    "x/y/p": (X / Y) / P,
    "x/y*p": (X / Y) * P,
    "x/(y*p)": X / (Y * P),
    "x*-y": X * -Y,
    "x--y": X + Y,
    "-x*y": -X * Y,
    "-x+y": Y - X,
    "-x-y": -X - Y,
    "x|y+x": op("Scalprod", X, Y + X),
    "x+y|x*p": op("Scalprod", X + Y, X * P),
    "x|y|p": op("Scalprod", op("Scalprod", X, Y), P),
    "a|p<2": less(op("Scalprod", A, P), constant(2)),
    "-a|p": op("Scalprod", -A, P),
    "x<y": less(X, Y),
    "x>y": less(Y, X),
    "x<=y": op("LessOrEqual", X, Y),
    "x>=y": op("LessOrEqual", Y, X),
    "x==y": op("Equal", X, Y),
    "x!=y": op("NotEqual", X, Y),
    "x+1>-y*2": less(-Y * 2, X + 1),
    "(x<y)<a": less(less(X, Y), A),
    "x<(y<a)": less(X, less(Y, A)),
    "(x<y)*(y<a)": less(X, Y) * less(Y, A),
}


@pytest.mark.parametrize("text", ACCEPTED, ids=lambda text: text[:30])
def test_an_accepted_text_means_the_node_built_by_hand(text):
    assert parse(text, ALIASES).node is ACCEPTED[text]


@pytest.mark.parametrize("text", PRECEDENCE)
def test_operators_bind_as_in_python(text):
    assert parse(text, ALIASES).node is PRECEDENCE[text]


def test_the_literal_operands_of_two_conditions_compare_as_numbers():
    node = parse("1<2", ALIASES).node
    assert node is less(constant(1), constant(2))


@pytest.mark.parametrize("text", [*ACCEPTED, *PRECEDENCE], ids=lambda text: text[:30])
def test_printed_text_parses_back_to_the_same_node(text):
    parsed = parse(text, ALIASES)
    printed = formula_text(parsed.node, parsed.names, limit=10**6)
    assert parse(printed, ALIASES).node is parsed.node


@pytest.mark.parametrize("seed", range(40))
def test_a_random_formula_prints_and_parses_back(seed):
    formula = random_formula(np.random.default_rng(seed), depth=5)
    printed = formula_text(formula.node, limit=10**7)
    assert parse(printed, [f"Var({p},{d},{int(k)})" for p, d, k in formula.declared]).node is (
        formula.node
    )


@pytest.mark.parametrize(
    "value",
    ["nan", "inf", "-inf", "-0.0", Fraction(1, 3), 0.1, 0.5, 10**400, 2**60, -7, 1e-30],
    ids=lambda value: repr(value)[:30],
)
def test_every_constant_prints_and_parses_back(value):
    node = constant(value) * X
    assert parse(formula_text(node, limit=10**4), ALIASES).node is node


def test_a_number_is_the_same_node_however_it_is_given():
    assert constant(2) is constant(Fraction(2)) is constant(2.0)
    assert type(constant(2).params[0]) is Fraction


# ----- refused -----------------------------------------------------------------------------------

# text: (column of the first caret, words of the message)
BAILED_OUT = {
    "": (None, "empty"),
    "   ": (None, "empty"),
    "Exp(": (4, "operand is missing", "end of the formula"),
    "x+": (2, "operand is missing after '+'"),
    "*x": (0, "operand is missing at the start"),
    "x+*y": (2, "operand is missing", "'*'"),
    "()": (1, "operand is missing"),
    "Exp(,x)": (4, "operand is missing"),
    "Exp(-)": (5, "operand is missing after '-'"),
    "x y": (2, "operator is missing after 'x'"),
    "2x": (1, "operator is missing after '2'", "write *"),
    "(x)(y)": (3, "operator is missing after ')'"),
    "1_000*x": (1, "operator is missing"),
    "1.2.3": (3, "operator is missing"),
    "x)": (1, "never opened"),
    ")(": (0, "operand is missing"),
    "((x)": (0, "never closed"),
    "Exp((x)": (3, "never closed"),
    "Extract(x,0": (7, "never closed"),
    "Extract(x,0,2": (7, "never closed"),
    "(x,y)": (2, "comma"),
    "x,y": (1, "comma"),
    "Exp()": (0, "Exp takes Exp(x)", "0 arguments"),
    "Exp(x,y)": (0, "Exp takes Exp(x)", "more than 1 argument"),
    "Concat(x)": (0, "Concat takes Concat(x, y)", "found: 1 argument"),
    "Elem(x)": (0, "Elem takes Elem(x, m)", "1 argument"),
    "Elem(x,0,1)": (0, "Elem takes Elem(x, m)", "more than 2 arguments"),
    "Elem(x,y)": (7, "m must be a whole number", "'y'"),
    "Elem(x,1.5)": (7, "m must be a whole number", "'1.5'"),
    "Elem(x,)": (0, "1 argument"),
    "Elem(x,": (7, "m must be a whole number", "end of the formula"),
    "Elem(x,0 1)": (9, "comma or ) is missing"),
    "Elem(x,[0])": (7, "m must be a whole number", "'['"),
    "Zero()": (0, "Zero takes Zero(n)"),
    "Zero(0)": (0, "at least one component"),
    "RatCst(1,0)": (0, "1/0"),
    "x<y<x": (3, "cannot be chained"),
    "x<y==x": (3, "cannot be chained"),
    "x@y": (1, "'@'", "MatVecMult"),
    "x//y": (1, "'//'", "x/y"),
    "x%y": (1, "'%'", "Mod"),
    "~x": (0, "'~'", "1 - c"),
    "x&y": (1, "'&'", "product"),
    "x^2": (1, "'^'", "x**2"),
    "x[0]": (1, "'['", "Elem"),
    "Exp([1,2])": (4, "'['", "lists of whole numbers"),
    "x=y": (1, "'='", "=="),
    "x.sum()": (1, "'.'", "Sum(x)"),
    "x!y": (1, "'!'"),
    "x'y": (1, '"\'"'),
    "x;y": (1, "';'"),
    "é$": (0, "no variable called é"),
    "Exp": (0, "needs its operands", "Exp(x)"),
    "x(3)": (0, "x is a variable, not an operation"),
    "Vi(3)*x": (0, "declares a variable", "'x = Vi(3)'"),
    "x*Vy(3)": (2, "declares a variable"),
    "Sqare(x)": (0, "no operation called Sqare", "did you mean Square or"),
    "Exp(z)": (4, "no variable called z", "the variables are x, y, a, p"),
    "Constant(3)": (0, "no operation called Constant"),
    "__import__(x)": (0, "no operation called __import__"),
    "SqDist(x,Concat(x,y))": (7, "SqDist: operands", "Concat(x,y) has dimension 6"),
    "1 + Concat(x,a)|y": (0, "Scalprod: needs two vectors", "y has dimension 3 (argument 1"),
    "Exp(-(Concat(x,a)+y))": (6, "Add:", "(argument 1, indexed by j)"),
    "Concat(x,p) ** y": (0, "**:", "Concat(x,p) has dimension 4"),
    "Elem(x,3)": (5, "outside a vector of dimension 3", "m = 3"),
    "Elem(x,-1)": (5, "outside a vector", "m = -1"),
    "Grad(x,x*y,x)": (5, "with respect to a variable", "x*y has dimension 3"),
    "Grad(x,y,p)": (5, "dimension of the formula, 3", "a parameter"),
    "Var(5,3,1)": (0, "argument 4 is not declared, but argument 5 is used"),
    "Var(4,3,1)*Var(6,3,1)": (11, "argument 5 is not declared"),
    "x+Var(99999999999999,3,1)": (2, "argument 4 is not declared"),
    "Var(0,2,0)": (0, "declared differently", "Var(0,3,0) elsewhere"),
    "Var(0,3,1)": (0, "declared differently"),
    "Var(4,1,1)+Var(4,1,0)": (11, "declared differently", "Var(4,1,1) elsewhere"),
    "Var(-1,3,0)": (0, "position of an argument is at least 0"),
    "Var(4,0,0)": (0, "at least one component"),
    "Var(4,3,4)": (0, "categories"),
    "Var(4,3)": (0, "Var takes Var(position, dim, kind)"),
    "Var(4,x,0)": (6, "dim must be a whole number"),
}


@pytest.mark.parametrize("text", BAILED_OUT)
def test_a_refused_text_says_what_and_shows_where(text):
    column, *words = BAILED_OUT[text]
    with pytest.raises(FormulaError) as caught:
        parse(text, ALIASES)
    message = str(caught.value)
    for word in words:
        assert word in message
    if column is not None:
        line, carets = caught.value.where.split("\n")
        assert line == text
        assert carets.index("^") == column


def test_carets_stand_under_every_operand_of_a_wrong_pair():
    with pytest.raises(DimError) as caught:
        parse("a * Concat(x, y) + Square(x)", ALIASES)
    assert caught.value.where.split("\n") == [
        "a * Concat(x, y) + Square(x)",
        "^^^^^^^^^^^^^^^^   ^^^^^^^^^",
    ]


def test_a_long_formula_is_cut_around_the_fault():
    text = "+".join(["Exp(x)"] * 200) + "+Exq(x)+" + "+".join(["Exp(x)"] * 200)
    with pytest.raises(UnknownNameError) as caught:
        parse(text, ALIASES)
    line, carets = caught.value.where.split("\n")
    assert len(line) < 100
    assert line.startswith("...")
    assert line.endswith("...")
    assert line[carets.index("^") : carets.rindex("^") + 1] == "Exq"


def test_line_breaks_do_not_break_the_caret_line():
    with pytest.raises(FormulaError) as caught:
        parse("x +\n Exq(y)", ALIASES)
    assert caught.value.where == "x +  Exq(y)\n     ^^^"


def test_an_unknown_name_can_be_caught_as_name_error_or_value_error():
    for expected in (NameError, ValueError):
        with pytest.raises(expected):
            parse("Sqare(x)", ALIASES)


@pytest.mark.parametrize("formula", [None, 3, b"x", ["x"]], ids=repr)
def test_a_formula_that_is_not_a_string_is_refused(formula):
    with pytest.raises(FormulaError, match="must be a string"):
        parse(formula, ALIASES)


def test_a_list_parameter_is_read_in_brackets_or_parentheses(monkeypatch):
    seen = []
    row = OPERATIONS["Extract"]
    param = parser_module.Param("axes", (0,), kind="list")
    stand_in = type(row)(
        "Axes", ("x",), "", lambda d, axes: d, None, None, params=(param,),
        expand=lambda x, axes: seen.append(axes) or x,
    )  # fmt: skip
    monkeypatch.setitem(OPERATIONS, "Axes", stand_in)
    for text in ("[1,-2]", "(1,-2)", "[1,-2,]", "[]", "(3,)"):
        assert parse(f"Axes(x,{text})", ALIASES).node is X
    assert seen == [(1, -2), (1, -2), (1, -2), (), (3,)]
    for text in ("3", "[x]", "[1", "[1 2]", "[,]", "[1.5]", "[1)"):
        with pytest.raises(FormulaError, match="axes must be a list of whole numbers"):
            parse(f"Axes(x,{text})", ALIASES)


def test_a_missing_parameter_takes_its_default(monkeypatch):
    row = OPERATIONS["Extract"]
    param = parser_module.Param("n", 2, default=7)
    stand_in = type(row)(
        "Again", ("x",), "", lambda d, n: d, None, None, params=(param,),
        expand=lambda x, n: x * n,
    )  # fmt: skip
    monkeypatch.setitem(OPERATIONS, "Again", stand_in)
    assert parse("Again(x)", ALIASES).node is X * 7
    assert parse("Again(x,2)", ALIASES).node is X * 2


# ----- aliases -----------------------------------------------------------------------------------

ALIAS_FORMS = {
    "x = Vi(3)": ("x", 3, 0),
    "x=Vi(3)": ("x", 3, 0),
    "  x  =  V j ( 3 ) ": ("x", 3, 1),
    "_x1 = Pm(17)": ("_x1", 17, 2),
    "été = Pm(1)": ("été", 1, 2),
    "x = Vi(0,3)": ("x", 3, 0),
    "x = Vj( 0 , 3 )": ("x", 3, 1),
    "x = Pm(0,3)": ("x", 3, 2),
    "Vi(3)": (None, 3, 0),
    "Vj(0,3)": (None, 3, 1),
    "Var(0,3,2)": (None, 3, 2),
    "x = Var(0,3,1)": ("x", 3, 1),
}


@pytest.mark.parametrize("alias", ALIAS_FORMS)
def test_an_alias_form_declares_the_variable(alias):
    name, dim, kind = ALIAS_FORMS[alias]
    scope = parse_aliases([alias])
    assert scope.variables == (variable(0, dim, Axis(kind)),)
    assert dict(scope.names) == ({} if name is None else {0: name})
    assert list(scope.by_name) == ([] if name is None else [name])


ALIAS_FAULTS = {
    "no-type": (["x"], "cannot be read"),
    "empty": ([""], "cannot be read"),
    "two-equals": (["x = y = Vi(3)"], "cannot be read"),
    "text-behind": (["x = Vi(3) * 2"], "cannot be read"),
    "unknown-type": (["x = Vk(3)"], "no category of variables called Vk"),
    "no-number": (["x = Vi()"], "whole numbers"),
    "negative": (["x = Vi(-3)"], "whole numbers"),
    "huge": (["x = Vi(1000000000000000000)"], "at most 18 digits"),
    "fraction": (["x = Vi(3.5)"], "whole numbers"),
    "foreign-digits": (["x = Vi(٣)"], "whole numbers"),
    "three-numbers": (["x = Vi(0,1,2)"], "a position and a dimension"),
    "var-of-two": (["x = Var(0,1)"], "Var takes Var(position, dim, category)"),
    "var-of-category-4": (["x = Var(0,1,4)"], "category"),
    "dim-zero": (["x = Vi(0)"], "at least one component"),
    "not-a-name": (["2x = Vi(3)"], "'2x' is not a name"),
    "no-name": (["= Vi(3)"], "'' is not a name"),
    "dashed-name": (["x-y = Vi(3)"], "'x-y' is not a name"),
    "not-a-string": ([3], "must be a string"),
    "none": ([None], "must be a string"),
    "same-name": (["x = Vi(3)", "x = Vj(3)"], "two aliases are called x"),
    "same-name-and-place": (["x = Vi(0,3)", "x = Vi(0,3)"], "two aliases are called x"),
    "same-place-other-dim": (["x = Vi(0,3)", "y = Vi(0,2)"], "declare argument 0 differently"),
    "same-place-other-kind": (["x = Vi(0,3)", "y = Vj(0,3)"], "declare argument 0 differently"),
    "hole": (["x = Vi(0,3)", "y = Vj(2,3)"], "no alias declares argument 1"),
    "far-hole": (["x = Vi(9999999999999,3)"], "no alias declares argument 0"),
    "one-string": ("x = Vi(3)", "must be a list of strings"),
    "no-list": (3, "must be a list of strings"),
}


@pytest.mark.parametrize("case", ALIAS_FAULTS)
def test_a_wrong_alias_is_refused_in_words(case):
    aliases, words = ALIAS_FAULTS[case]
    with pytest.raises(FormulaError) as caught:
        parse_aliases(aliases)
    assert words in str(caught.value)
    assert caught.value.where or caught.value.found
    assert caught.value.hint


def test_explicit_positions_may_come_in_any_order():
    parsed = parse("x*y", ("y = Vj(1,3)", "x = Vi(0,3)"))
    assert parsed.variables == (X, Y)
    assert dict(parsed.names) == {0: "x", 1: "y"}


def test_two_names_may_share_a_position():
    scope = parse_aliases(["x = Vi(0,3)", "z = Vi(0,3)", "y = Vj(1,3)"])
    assert scope.by_name["x"] is scope.by_name["z"]
    assert dict(scope.names) == {0: "x", 1: "y"}


def test_an_unnamed_alias_is_reached_by_a_var_literal():
    parsed = parse("Var(1,3,1)-x", ["x = Vi(3)", "Vj(3)"])
    assert parsed.node is Y - X
    assert len(parsed.variables) == 2


def test_an_alias_hides_the_operation_of_its_name():
    aliases = ["Exp = Vi(3)", "y = Vj(3)"]
    assert parse("Exp*y", aliases).node is X * Y
    with pytest.raises(FormulaError, match="hides the operation Exp"):
        parse("Exp(y)", aliases)


def test_legacy_categories_work_with_a_warning():
    with pytest.warns(DeprecationWarning, match="Vx is deprecated, write Vi"):
        scope = parse_aliases(["x = Vx(3)"])
    assert scope.variables == (X,)
    with pytest.warns(DeprecationWarning, match="Vy is deprecated, write Vj"):
        parse_aliases(["x = Vi(3)", "y = Vy(3)"])


def test_current_categories_do_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        parse_aliases(ALIASES)


def test_a_literal_adds_an_argument_behind_the_aliases():
    parsed = parse("x*Var(5,1,2)+Var(4,3,1)", ALIASES)
    assert [(v.params[0], v.dim) for v in parsed.variables[4:]] == [(4, 3), (5, 1)]
    assert 4 not in parsed.names


def test_aliases_are_not_changed_by_literals():
    aliases = list(ALIASES)
    parse("x*Var(4,1,2)", aliases)
    assert aliases == ALIASES


def test_a_second_formula_shares_the_arguments_of_the_first():
    first = parse("x*Var(4,1,2)", ALIASES)
    second = parse("Var(4,1,2)+Var(5,2,1)", first.scope)
    assert len(second.variables) == 6
    with pytest.raises(FormulaError, match="declared differently"):
        parse("Var(4,2,2)", first.scope)


def test_formulas_parsed_together_may_share_out_the_positions():
    first, second = parse_many(["x*Var(5,1,2)", "Var(4,2,1)"], ALIASES)
    assert first.variables == second.variables
    assert len(first.variables) == 6
    with pytest.raises(FormulaError, match="argument 4 is not declared"):
        parse_many(["x*Var(5,1,2)", "y"], ALIASES)


# ----- depth, length, chance ---------------------------------------------------------------------

DEEP = {
    "parentheses": "(" * 5000 + "x" + ")" * 5000,
    "minuses": "-" * 5001 + "x",
    "calls": "Sin(" * 5000 + "x" + ")" * 5000,
    "powers": "x**" * 5000 + "x",
    "right-sum": "(x-" * 5000 + "y" + ")" * 5000,
    "mixed": "-(x*Sin(" * 2000 + "y" + "))" * 2000,
    "selections": "IfElse(x,y," * 3000 + "x" + ")" * 3000,
}


@pytest.mark.parametrize("case", DEEP)
def test_deep_nesting_needs_no_deep_python_stack(case):
    node = parse(DEEP[case], ALIASES).node
    assert node.dim == 3


@pytest.mark.parametrize("case", DEEP)
def test_deep_nesting_left_open_is_a_formula_error(case):
    with pytest.raises(FormulaError):
        parse(DEEP[case] + ")", ALIASES)
    with pytest.raises(FormulaError):
        parse(DEEP[case][:-1] + "*", ALIASES)


def _steps(text, monkeypatch):
    counts = {"tokens": 0, "builds": 0}

    def counted(method, key):
        def wrapper(self, *args):
            counts[key] += 1
            return method(self, *args)

        return wrapper

    parser = parser_module._Parser
    with monkeypatch.context() as patched:
        for name, key in (("_operand", "tokens"), ("_operator", "tokens"), ("_build", "builds")):
            patched.setattr(parser, name, counted(getattr(parser, name), key))
        parse(text, ALIASES)
    return counts


def test_a_sum_of_5000_terms_takes_two_steps_a_term(monkeypatch):
    terms = 5000
    counts = _steps("+".join(f"{k}*x" for k in range(terms)), monkeypatch)
    assert counts == {"tokens": 4 * terms - 1, "builds": 2 * terms - 1}


SYMBOLS = "- + * / ** | < >= == ( ) ( ) , [ ] . @ ^"
WORDS = "x y a p z 3 0.5 1e999 0 é ² ٣ Exp( Concat( Elem( Grad( Diff( IfElse( Zero( Var( Powf("
PIECES = st.sampled_from([*SYMBOLS.split(), *WORDS.split(), " ", "\n", "\x00"])


@settings(max_examples=400, deadline=None, derandomize=True)
@given(st.one_of(st.text(max_size=40), st.lists(PIECES, max_size=14).map("".join)))
def test_random_text_parses_or_is_a_formula_error(text):
    try:
        parsed = parse(text, ALIASES)
    except (FormulaError, DerivativeError):
        return
    assert parsed.node.dim >= 1


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.text(max_size=30), st.sampled_from(["{}", "x = {}", "x = Vi({})", "{} = Vi(3)"]))
def test_random_alias_text_is_read_or_is_a_formula_error(text, form):
    try:
        scope = parse_aliases([form.format(text)])
    except FormulaError:
        return
    assert len(scope.variables) == 1


def test_power_is_the_same_function_in_text_and_on_nodes():
    assert parse("x**p", ALIASES).node is power(X, P)
    assert parse("x**3", ALIASES).node is X**3


# -- which operator binds tighter ------------------------------------------------------------------

GROUPED = [
    ("x-y*z", "x-(y*z)", "(x-y)*z"),
    ("x+y*z", "x+(y*z)", "(x+y)*z"),
    ("x-y/z", "x-(y/z)", "(x-y)/z"),
    ("x*y-z", "(x*y)-z", "x*(y-z)"),
    ("x/y+z", "(x/y)+z", "x/(y+z)"),
    ("x-y-z", "(x-y)-z", "x-(y-z)"),
    ("x-y+z", "(x-y)+z", "x-(y+z)"),
    ("x/y/z", "(x/y)/z", "x/(y/z)"),
    ("x/y*z", "(x/y)*z", "x/(y*z)"),
    ("x|y+z", "x|(y+z)", "(x|y)+z"),
    ("x-y|z", "(x-y)|z", "x-(y|z)"),
    ("x|y*z", "x|(y*z)", "(x|y)*z"),
    ("x<y+z", "x<(y+z)", "(x<y)+z"),
    ("x+y<z", "(x+y)<z", "x+(y<z)"),
    ("x*y**2", "x*(y**2)", "(x*y)**2"),
    ("x-y**2", "x-(y**2)", "(x-y)**2"),
    ("-x**2", "-(x**2)", "(-x)**2"),
    ("-x-y", "(-x)-y", "-(x-y)"),
]


@pytest.mark.parametrize(("text", "meant", "other"), GROUPED)
def test_operators_are_grouped_as_in_python(text, meant, other):
    aliases = ["x = Vi(1)", "y = Vj(1)", "z = Vj(1)"]
    found, wanted, wrong = (parse(each, aliases).node for each in (text, meant, other))
    assert found is wanted
    assert found is not wrong
