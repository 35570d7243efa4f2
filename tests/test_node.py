"""Graphs: the same formula is the same object, sharing stays sharing, depth needs no recursion."""

from __future__ import annotations

import gc
import pickle
import threading

import pytest

from pairfold.calculus.derive import pull_back, push_forward
from pairfold.core import node as node_module
from pairfold.core.node import Axis, depends_on, topological
from pairfold.core.scalars import Scalars
from pairfold.core.show import formula_text, kinds_text, tree_text
from pairfold.errors import DimError, FormulaError, InternalError
from pairfold.frontends.parse import parse
from pairfold.lower.kernel import lower
from pairfold.ops.reductions import REDUCTIONS
from pairfold.ops.table import OPERATIONS, build, constant, variable

DEPTH = 10_000
X, Y = variable(0, 3, Axis.I), variable(1, 3, Axis.J)


def op(name, *operands):
    return build(OPERATIONS[name], *operands)


def sines(depth, x=X):
    for _ in range(depth):
        x = op("Sin", x)
    return x


def test_the_same_formula_is_the_same_object():
    assert op("Exp", X - Y) is op("Exp", X - Y)
    assert variable(0, 3, Axis.I) is X
    assert op("Extract", X, 1, 2) is op("Extract", X, 1, 2)


def test_different_formulas_are_different_objects():
    different = [X - Y, Y - X, op("Extract", X, 0, 2), op("Extract", X, 1, 2), X + 1, X + 2]
    different += [variable(0, 3, Axis.J), variable(0, 2, Axis.I), variable(1, 3, Axis.I)]
    assert len({id(node) for node in different}) == len(different)


def test_formulas_built_in_many_threads_are_still_one_object():
    made, start = [], threading.Barrier(8)

    def work():
        start.wait()
        made.append([op("Cos", X * n + Y) for n in range(2, 60)])

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(a is b for other in made for a, b in zip(made[0], other, strict=True))


def test_the_table_of_nodes_forgets_what_nobody_uses():
    gc.collect()
    before = len(node_module._interned)
    formula = sines(50, X * 17 + Y)
    assert len(node_module._interned) >= before + 50
    del formula
    gc.collect()
    assert len(node_module._interned) == before


def test_a_node_knows_its_dimension_and_what_it_depends_on():
    p = variable(2, 1, Axis.PARAMETER)
    assert [kinds_text(n) for n in (X, Y, X * Y, p, constant(1), p * Y)] == [
        "i", "j", "i,j", "-", "-", "j",
    ]  # fmt: skip
    assert (op("SqDist", X, Y) * p).dim == 1


def test_arithmetic_on_nodes_takes_numbers_on_either_side():
    assert 2 - X is op("Subtract", constant(2), X)
    assert 2 / X is op("Divide", constant(2), X)
    assert 2 + X is op("Add", constant(2), X)
    assert 2 * X is op("Mult", constant(2), X)
    assert X | Y is op("Scalprod", X, Y)
    assert X**3 is op("Pow", X, 3)
    assert -X is op("Minus", X)


@pytest.mark.parametrize("wrong", ["x", None, [1], 1j], ids=repr)
def test_a_formula_refuses_what_is_neither_node_nor_number(wrong):
    with pytest.raises(FormulaError, match="a formula cannot contain"):
        X + wrong


def test_dimensions_are_checked_when_the_node_is_made():
    with pytest.raises(DimError, match="same dimension"):
        X + variable(2, 2, Axis.I)


def test_nodes_refuse_pickling_but_show_their_text():
    with pytest.raises(TypeError, match=r"pickle the text instead: Exp\(Var\(0,3,0\)\)"):
        pickle.dumps(op("Exp", X))


def test_topological_order_puts_arguments_before_users_once():
    shared = op("Exp", X)
    root = shared * op("Sin", shared + Y)
    order = topological([root, shared])
    assert len(order) == len(set(order)) == 6
    place = {node: k for k, node in enumerate(order)}
    assert all(place[arg] < place[node] for node in order for arg in node.args)


def test_depends_on_finds_the_nodes_above_a_leaf():
    u, v = op("Exp", X), op("Sin", Y)
    assert depends_on([u * v], [X]) == {X, u, u * v}


def test_a_chain_of_ten_thousand_levels_is_built_walked_and_dropped():
    chain = sines(DEPTH)
    assert len(topological([chain])) == DEPTH + 1
    assert len(depends_on([chain], [X])) == DEPTH + 1
    del chain
    gc.collect()


def test_a_deep_chain_prints():
    chain = sines(DEPTH)
    assert len(formula_text(chain)) < 100 * DEPTH
    assert tree_text(chain).count("\n") == DEPTH


def test_a_deep_chain_has_a_gradient_and_a_derivative():
    chain, g = sines(2000), variable(2, 3, Axis.I)
    gradient = pull_back(chain, [X], g)[0]
    assert len(topological([gradient])) < 5 * 2000
    forward = push_forward(chain, {X: g})
    assert len(topological([forward])) < 10 * 2000


def test_the_gradient_of_ten_thousand_levels_needs_no_recursion():
    gradient = pull_back(sines(DEPTH), [X], Y)[0]
    assert gradient.dim == 3


@pytest.mark.parametrize("unroll", [16, 1], ids=["unrolled", "looped"])
def test_a_deep_chain_is_lowered(unroll):
    kernel = lower(sines(DEPTH, X + Y), REDUCTIONS["Sum"], Axis.I, unroll)
    assert kernel.dim == 3


def test_a_deep_alternation_of_sums_and_elements_is_lowered():
    x = X + Y
    for _ in range(3000):
        x = op("Sin", x + op("Sum", x))
    assert lower(x, REDUCTIONS["Sum"], Axis.I, 16).dim == 3


def test_deep_nested_selections_have_a_gradient():
    x = X
    for _ in range(1500):
        x = op("IfElse", x - 1, op("Sqrt", x), Y)
    assert pull_back(x, [X], Y)[0].dim == 3


def test_a_deep_product_of_scalars_is_summed():
    a, x = variable(2, 1, Axis.I), X
    for _ in range(3000):
        x = op("Sin", a) * x
    assert op("Sum", x).dim == 1


def test_deep_numbers_move_outwards():
    x = X
    for k in range(1500):
        x = op("Cos", Y) * (constant(3 + k % 2) * x)
    assert x.dim == 3


# ----- sharing -----------------------------------------------------------------------------------


def doubled(levels):
    e = X - Y
    for _ in range(levels):
        e = op("Exp", e) + op("Sin", e)
    return e


def test_shared_parts_stay_shared_in_gradients_and_kernels():
    e = doubled(200)
    assert len(topological([e])) == 3 * 200 + 3
    gradient = pull_back(e, [X], variable(2, 3, Axis.I))[0]
    assert len(topological([gradient])) < 15 * 200
    kernel = lower(gradient, REDUCTIONS["Sum"], Axis.I, 16)
    assert len(kernel.needed(kernel.outputs, 3)) < 3 * 15 * 200


def test_the_text_of_a_shared_graph_stays_small():
    text = formula_text(doubled(200))
    assert len(text) < 200 * 200
    assert text.count(":=") > 10
    assert len(tree_text(doubled(200)).split("\n")) == 3 * 200 + 3


def test_selections_over_shared_branches_stay_small_in_the_gradient():
    e = X - Y
    for k in range(100):
        e = op("IfElse", X, op("Sin", e), 0) + op("IfElse", Y - k, op("Cos", e), e)
    gradient = pull_back(e, [X], variable(2, 3, Axis.I))[0]
    assert len(topological([gradient])) < 60 * 100


def test_a_second_derivative_of_a_shared_graph_stays_small():
    e, g, h = doubled(60), variable(2, 3, Axis.I), variable(3, 3, Axis.I)
    second = pull_back(pull_back(e, [X], g)[0], [X], h)[0]
    assert len(topological([second])) < 100 * 60


# ----- printing ----------------------------------------------------------------------------------

PRINTED = {
    "x-(y-x)": "x-(y-x)",
    "(x-y)-x": "x-y-x",
    "x*(y+x)": "x*(y+x)",
    "x/(y/x)": "x/(y/x)",
    "-(x+y)": "-(x+y)",
    "-(x*y)": "-(x*y)",
    "2*-x": "-2*x",
    "(x<y)<x": "(x<y)<x",
    "x<(y<x)": "x<(y<x)",
    "x>y": "y<x",
    "Extract(x,1,2)": "Extract(x,1,2)",
    "x/3": "RatCst(1,3)*x",
    "0.5*x": "0.5*x",
    "x|y": "Sum(x*y)",
}


@pytest.mark.parametrize("text", PRINTED)
def test_a_formula_prints_with_the_parentheses_it_needs(text):
    parsed = parse(text, ["x = Vi(3)", "y = Vj(3)"])
    assert formula_text(parsed.node, parsed.names) == PRINTED[text]


def test_repr_is_the_formula():
    assert repr(op("Exp", X)) == "Exp(Var(0,3,0))"


# ----- scalar values -----------------------------------------------------------------------------


@pytest.mark.parametrize("k", [-1, 3, 100])
def test_scalars_refuse_a_component_outside_the_vector(k):
    with pytest.raises(InternalError, match="argument 7, which has 3"):
        Scalars().load(7, 3, 1, k)


def test_scalars_refuse_a_loop_index_that_could_leave_the_vector():
    s = Scalars(unroll=1)
    with pytest.raises(InternalError, match=r"components 1\.\.5"):
        s.sum(5, lambda k: s.load(0, 5, 1, k + 1))
    assert s.sum(5, lambda k: s.load(0, 6, 1, k + 1)).stage == 1


def test_scalars_keep_an_index_inside_by_clamping():
    s = Scalars(unroll=1)
    assert s.sum(5, lambda k: s.load(0, 3, 1, s.at_most(k, 2))).stage == 1
    assert s.sum(5, lambda k: s.load(0, 3, 1, s.at_least(k - 2, 0))).stage == 1


@pytest.mark.parametrize(
    ("index", "bounds"),
    [
        (lambda k: k * 3 + 2, (2, 20)),
        (lambda k: k - 4, (-4, 2)),
        (lambda k: 3 - k, (-3, 3)),
        (lambda k: k // 2, (0, 3)),
        (lambda k: k % 3, (0, 2)),
        (lambda k: (k + 6) % 20, (6, 12)),
        (lambda k: k * -2, (-12, 0)),
        (lambda k: k * k, (0, 36)),
    ],
)
def test_the_interval_of_an_index_is_known(index, bounds):
    s = Scalars(unroll=1)
    seen = []

    def term(k):
        seen.append(index(k).bounds)
        return s.load(0, 7, 1, k)

    s.sum(7, term)
    assert seen[0] == bounds


def test_the_same_computation_is_the_same_value():
    s = Scalars()
    x, y = s.load(0, 3, 1, 0), s.load(1, 3, 2, 0)
    assert s.exp(x - y) is s.exp(x - y)
    assert s.exp(x - y) is not s.exp(y - x)
    assert (s.exp(x - y)).stage == 3
