"""Differential operators against torch.func at every pair, and what they refuse."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from checks import assert_close
from products import some

from pairfold.arrays.numpy import NumpyArrays
from pairfold.backends.reference import interpreter as reference
from pairfold.calculus.derive import pull_back
from pairfold.calculus.operators import LINEAR_IN
from pairfold.core.node import Axis, Node, topological
from pairfold.errors import FormulaError
from pairfold.frontends.parse import parse
from pairfold.frontends.reduction import FormulaReduction
from pairfold.lower.kernel import lower
from pairfold.ops.reductions import REDUCTIONS
from pairfold.ops.table import OPERATIONS, variable
from pairfold.settings import settings

ROWS, COLUMNS, DIM = 17, 23, 3
ALIASES = ["x = Vi(3)", "y = Vj(3)", "b = Vj(2)", "p = Pm(1)", "c = Vj(1)", "A = Pm(9)"]
SHAPES = {"x": (ROWS, 3), "y": (COLUMNS, 3), "b": (COLUMNS, 2), "p": (1,), "c": (COLUMNS, 1)}
SHAPES["A"] = (9,)
KINDS = [Axis.I, Axis.J, Axis.J, Axis.PARAMETER, Axis.J, Axis.PARAMETER]

Torch = Any


def arrays_of(seed: int) -> list[Any]:
    rng = np.random.default_rng(seed)
    return [rng.uniform(-1, 1, SHAPES[name]) for name in "xybpcA"]


VARIABLES = [variable(n, SHAPES[name][-1], KINDS[n]) for n, name in enumerate("xybpcA")]


def folded(node: Node, arrays: list[Any], **options: Any) -> Any:
    """The sum over j by machine code, checked against the interpreter."""
    with settings(check=2, **options):
        return FormulaReduction(node, VARIABLES, "Sum", Axis.I)(NumpyArrays, arrays)


def over_pairs(torch: Torch, function: Callable[..., Any], arrays: list[Any]) -> Any:
    """The sum over j of a function of one pair's vectors."""
    x, y, b, p, c, A = (torch.tensor(a) for a in arrays)
    one = lambda x, y, b, c: torch.atleast_1d(function(x, y, b, p, c, A)).reshape(-1)  # noqa: E731
    pairs = torch.func.vmap(torch.func.vmap(one, (None, 0, 0, 0)), (0, None, None, None))
    return pairs(x, y, b, c).sum(1).detach().numpy()


def select(torch: Torch, c: Any, x: Any, y: Any) -> Any:
    return torch.where(c >= 0, x, y)


# Fields f(x, ...) of dimension 3, as text and as functions of one pair
FIELDS: dict[str, Callable[..., Any]] = {
    "Sin(x)*y": lambda t, x, y, b, p, c, A: t.sin(x) * y,
    "x*Exp(-SqDist(x,y))": lambda t, x, y, b, p, c, A: x * t.exp(-((x - y) ** 2).sum()),
    "(x-y)*Inv(1+SqDist(x,y))*p": lambda t, x, y, b, p, c, A: (
        (x - y) / (1 + ((x - y) ** 2).sum()) * p
    ),
    "Concat(Elem(x,2)*Sin(x|y),b*Sum(x))": lambda t, x, y, b, p, c, A: t.cat(
        [(x[2] * t.sin((x * y).sum()))[None], b * x.sum()]
    ),
    "ExtractT(Square(Extract(x,1,2)),0,3)": lambda t, x, y, b, p, c, A: t.cat(
        [x[1:] ** 2, 0 * x[:1]]
    ),
    "IfElse(c,Sin(x),x*y)": lambda t, x, y, b, p, c, A: select(t, c, t.sin(x), x * y),
    "IfElse(y,x*Sum(x),Square(x))": lambda t, x, y, b, p, c, A: select(t, y, x * x.sum(), x**2),
    "SumT(Norm2(x-y),3)/(2+Cos(x))": lambda t, x, y, b, p, c, A: (
        ((x - y) ** 2).sum().sqrt() / (2 + t.cos(x))
    ),
    "ComplexSquareAbs(ComplexAdd(ComplexExp1j(y*x),Real2Complex(x)))*x": lambda t, x, *r: (
        (1 + x**2 + 2 * x * t.cos(r[0] * x)) * x
    ),
    "y*c": lambda t, x, y, b, p, c, A: y * c + 0 * x,
    "x": lambda t, x, y, b, p, c, A: x,
    "Tanh(y-x)": lambda t, x, y, b, p, c, A: t.tanh(y - x),
}


def field(torch: Torch, text: str) -> Callable[..., Any]:
    return lambda *values: FIELDS[text](torch, *values)


@some(
    "text,unroll",
    [(text, unroll) for text in FIELDS for unroll in (16, 2)],
    lambda entry: (entry[1] == 2) == list(FIELDS).index(entry[0]) % 2,
)
def test_jacobians_divergences_and_laplacians_are_those_of_torch(text: str, unroll: int) -> None:
    torch = pytest.importorskip("torch")
    arrays = arrays_of(1)
    f = field(torch, text)
    jacobian = torch.func.jacrev(f)

    def laplacian(x: Any, *rest: Any) -> Any:
        scalar = lambda x: (f(x, *rest) * rest[0]).sum()  # noqa: E731
        return torch.trace(torch.func.hessian(scalar)(x))

    wanted = {
        f"GradMatrix({text},x)": jacobian,
        f"Divergence({text},x)": lambda *v: torch.trace(jacobian(*v)),
        f"Laplacian({text}|y,x)": laplacian,
        f"Divergence(GradMatrix(Sum({text}),x)*x,x)": lambda x, *v: torch.trace(
            torch.func.jacrev(lambda u: torch.func.grad(lambda w: f(w, *v).sum())(u) * u)(x)
        ),
    }
    for formula, function in wanted.items():
        got = folded(parse(formula, ALIASES).node, arrays, unroll=unroll)
        assert_close(got, over_pairs(torch, function, arrays), rtol=1e-11, formula=formula)


@pytest.mark.parametrize("text", FIELDS)
def test_operators_are_differentiable_again(text: str) -> None:
    torch = pytest.importorskip("torch")
    arrays = arrays_of(2)
    f = field(torch, text)
    jacobian = torch.func.jacrev(f)

    def weighted(x: Any, y: Any, *rest: Any) -> Any:
        return (jacobian(x, y, *rest).reshape(-1) * rest[-1]).sum()

    wanted = {
        f"Grad(GradMatrix({text},x)|A,x,1)": torch.func.grad(weighted, 0),
        f"Grad(GradMatrix({text},x)|A,y,1)": torch.func.grad(weighted, 1),
        f"Grad(Divergence({text},x),x,1)": torch.func.grad(lambda *v: torch.trace(jacobian(*v))),
        f"GradMatrix(GradMatrix({text},x),x)": torch.func.jacrev(jacobian),
        f"Diff(GradMatrix({text},x),x,y)": lambda x, y, *r: torch.func.jvp(
            lambda u: jacobian(u, y, *r), (x,), (y,)
        )[1],
        f"Laplacian(Divergence({text},x),x)": lambda x, *r: torch.trace(
            torch.func.hessian(lambda u: torch.trace(jacobian(u, *r)))(x)
        ),
    }
    for formula, function in wanted.items():
        got = folded(parse(formula, ALIASES).node, arrays)
        assert_close(got, over_pairs(torch, function, arrays), rtol=1e-10, formula=formula)


@pytest.mark.parametrize("text", FIELDS)
def test_several_variables_in_parentheses_are_one(text: str) -> None:
    torch = pytest.importorskip("torch")
    arrays = arrays_of(3)
    f = field(torch, text)

    def pushed(x: Any, y: Any, b: Any, *r: Any) -> Any:
        moving = lambda x, y: f(x, y, b, *r)  # noqa: E731
        return torch.func.jvp(moving, (x, y), (y * y, torch.sin(x)))[1]

    def jacobians(*v: Any) -> Any:
        return torch.cat(torch.func.jacrev(f, (0, 1))(*v), -1)

    wanted = {
        f"Diff({text},(x,y),(Square(y),Sin(x)))": pushed,
        f"Diff({text},x,Square(y))+Diff({text},(y),(Sin(x)))": pushed,
        f"GradMatrix({text},(x,y,))": jacobians,
        f"Grad({text},(x,y),y)": lambda x, y, *r: jacobians(x, y, *r).T @ y,
    }
    for formula, function in wanted.items():
        got = folded(parse(formula, ALIASES).node, arrays)
        assert_close(got, over_pairs(torch, function, arrays), rtol=1e-11, formula=formula)


LINEAR: dict[str, Callable[..., Any]] = {
    "x*y": lambda t, x, y, b, p, c, A: x * y,
    "x/Exp(y)+Sum(x)*y": lambda t, x, y, b, p, c, A: x / t.exp(y) + x.sum() * y,
    "y*(x|y)*p": lambda t, x, y, b, p, c, A: y * (x * y).sum() * p,
    "IfElse(y,x*c,0)": lambda t, x, y, b, p, c, A: select(t, y, x * c, 0 * x),
    "Concat(Extract(x,1,2),Elem(x,0)*c)": lambda t, x, y, b, p, c, A: t.cat([x[1:], x[:1] * c]),
    "ComplexImag(ComplexMult(Real2Complex(x),Concat(y,y)))": lambda t, x, y, b, p, c, A: (
        x * t.stack([y[1], y[0], y[2]])
    ),
    "Zero(3)": lambda t, x, y, b, p, c, A: 0 * x,
    "-x": lambda t, x, y, b, p, c, A: -x,
}


@pytest.mark.parametrize("text", LINEAR)
def test_linear_formulas_have_traces_adjoints_and_sums(text: str) -> None:
    torch = pytest.importorskip("torch")
    arrays = arrays_of(4)
    matrix = torch.func.jacrev(lambda *v: LINEAR[text](torch, *v))
    wanted = {
        f"TraceOperator({text},x)": lambda *v: torch.trace(matrix(*v)),
        f"TraceOperator({text},x,y)": lambda *v: (torch.diag(matrix(*v)) * v[1]).sum(),
        f"TraceOperator({text},x,c)": lambda *v: torch.trace(matrix(*v)) * v[4],
        f"AdjointOperator({text},x,Sin(y))": lambda *v: matrix(*v).T @ torch.sin(v[1]),
        f"SumLinOperator({text},x)": lambda *v: matrix(*v).sum(),
        f"SumLinOperator({text},x,y)": lambda *v: v[1] @ matrix(*v).sum(-1),
        f"SumLinOperator({text},x,y,Square(y))": lambda *v: v[1] @ matrix(*v) @ (v[1] ** 2),
        f"SumLinOperator({text},x,c,p)": lambda *v: matrix(*v).sum() * v[4] * v[3],
    }
    for formula, function in wanted.items():
        got = folded(parse(formula, ALIASES).node, arrays)
        assert_close(got, over_pairs(torch, function, arrays), rtol=1e-11, formula=formula)


NOT_LINEAR = [
    "Square(x)",
    "x*x",
    "x+y",
    "x+1",
    "Sin(x)",
    "Sign(x)",
    "y",
    "IfElse(x,x,0)",
    "IfElse(y,x,y)",
    "Concat(Extract(x,0,2),c)",
    "y/x",
    "Abs(x)",
    "Step(x)*x",
    "x*(x|y)",
]


@pytest.mark.parametrize("text", NOT_LINEAR)
def test_formulas_that_are_not_linear_are_refused(text: str) -> None:
    for call in ("TraceOperator({},x)", "AdjointOperator({},x,y)", "SumLinOperator({},x)"):
        with pytest.raises(FormulaError, match="linear in"):
            parse(call.format(text), ALIASES)


@pytest.mark.parametrize("name", [n for n, op in OPERATIONS.items() if op.like and op.samples])
def test_the_operations_said_to_be_linear_are_and_no_other(name: str) -> None:
    op = OPERATIONS[name]
    if op.value is None or op.derivative == "0":
        assert name not in LINEAR_IN
        return
    params = tuple(param.sample for param in op.params)
    samples = op.samples if op.args else ()
    groups = LINEAR_IN.get(name, ())
    for group in groups:
        for dims in samples:
            assert is_linear(name, dims, params, group), (dims, group)
    for place in range(len(op.args)):
        if not any(place in group for group in groups):
            assert not all(is_linear(name, dims, params, (place,)) for dims in samples), place


def is_linear(name: str, dims: Any, params: Any, group: tuple[int, ...]) -> bool:
    """Whether the oracle is linear in these operands, at random points."""
    op = OPERATIONS[name]
    rng = np.random.default_rng(5)
    assert op.like is not None
    fixed = [
        rng.uniform(*op.domain.get(a, (-2, 2)), (9, d)) for a, d in zip(op.args, dims, strict=True)
    ]

    def at(moved: list[Any]) -> Any:
        given = [moved[n] if n in group else a for n, a in enumerate(fixed)]
        with np.errstate(all="ignore"):
            return np.asarray(op.like(*given, *params), float)  # type: ignore[misc]

    u, v = ([rng.uniform(-2, 2, a.shape) for a in fixed] for _ in range(2))
    whole = at([2 * a - 3 * b for a, b in zip(u, v)])
    with np.errstate(invalid="ignore"):  # outside an operation's domain
        return bool(np.allclose(whole, 2 * at(u) - 3 * at(v), equal_nan=False))


def test_long_vectors_do_not_make_large_graphs() -> None:
    sizes = []
    for dim in (100, 1000):
        aliases = [f"x = Vi({dim})", f"y = Vj({dim})"]
        node = parse("Laplacian(Exp(-SqDist(x,y)),x)", aliases).node
        sizes.append(len(topological([node])))
    assert sizes[0] == sizes[1] < 60


@pytest.mark.parametrize("dim", [100, 1000])
def test_operators_of_long_vectors_are_computed_in_loops(dim: int) -> None:
    rng = np.random.default_rng(6)
    x, y = rng.normal(size=(5, dim)) / dim**0.5, rng.normal(size=(7, dim)) / dim**0.5
    aliases = [f"x = Vi({dim})", f"y = Vj({dim})"]
    variables = [variable(0, dim, Axis.I), variable(1, dim, Axis.J)]
    d2 = ((x[:, None] - y[None]) ** 2).sum(-1)
    laplacian = (np.exp(-d2) * (4 * d2 - 2 * dim)).sum(1)[:, None]
    divergence = (np.exp(-d2) * (dim - 2 * ((x[:, None] - y) * x[:, None]).sum(-1))).sum(1)
    wanted = {
        "Laplacian(Exp(-SqDist(x,y)),x)": laplacian,
        "Divergence(x*Exp(-SqDist(x,y)),x)": divergence[:, None],
        "TraceOperator(y*Sum(x)+2*x,x)": (y.sum(-1)[None] + 2 * dim + 0 * d2).sum(1)[:, None],
    }
    for text, want in wanted.items():
        fold = FormulaReduction(parse(text, aliases).node, variables, "Sum", Axis.I)
        assert_close(fold(NumpyArrays, [x, y]), want, rtol=1e-11, formula=text)


def test_a_jacobian_of_a_long_vector_is_one_loop() -> None:
    x, y = np.random.default_rng(7).normal(size=(2, 3, 40))
    node = parse("GradMatrix(Sin(x)*(x|y),x)", ["x = Vi(40)", "y = Vj(40)"]).node
    with settings(check=2):
        fold = FormulaReduction(
            node, [variable(0, 40, Axis.I), variable(1, 40, Axis.J)], "Sum", Axis.I
        )
        got = fold(NumpyArrays, [x, y])
    dots = (x[:, None] * y).sum(-1)
    cosines = np.cos(x)[:, None, :, None] * np.eye(40) * dots[..., None, None]
    want = cosines + np.sin(x)[:, None, :, None] * y[None, :, None, :]
    assert_close(got, want.sum(1).reshape(3, -1), rtol=1e-11)


def test_a_matrix_of_zero_derivatives_is_zero() -> None:
    for text in ("GradMatrix(Floor(x),x)", "GradMatrix(y,x)", "GradMatrix(Sign(x),x)"):
        if "Floor" in text and "Floor" not in OPERATIONS:
            continue
        node = parse(text, ALIASES).node
        assert node is OPERATIONS["Zero"](9)
    assert parse("Divergence(y,x)", ALIASES).node is OPERATIONS["Zero"](1)
    assert parse("Laplacian(Sum(x),x)", ALIASES).node is OPERATIONS["Zero"](1)


def test_nan_of_a_branch_not_selected_stays_out_of_second_derivatives() -> None:
    node = parse("Laplacian(Sum(IfElse(x,Sqrt(x),Square(x))),x)", ["x = Vi(3)"]).node
    kernel = lower(node, REDUCTIONS["Sum"], Axis.I, 16)
    x = np.array([[-1.0, 4.0, -2.0]])
    got = reference.evaluate(kernel, {0: x}, 1, 1)
    assert_close(got, np.array([[2 + 2 - 0.25 * 4**-1.5]]))


def test_factorizing_changes_nothing() -> None:
    plain = parse("Exp(x*y)*Sum(x*y)", ALIASES).node
    assert parse("Factorize(Exp(x*y)*Sum(x*y),x*y)", ALIASES).node is plain
    assert parse("AutoFactorize(Exp(x*y)*Sum(x*y))", ALIASES).node is plain


BAILED_OUT = {
    "Grad(x*y,x)": "Grad takes Grad",
    "Grad(x*y,(x,x),y)": "same variable twice",
    "Grad(x*y,(x,y+1),y)": "with respect to a variable",
    "Diff(x*y,(x,y),y)": "dimension of the variable, 6",
    "Divergence(b,x)": "dimension of the variable",
    "Laplacian(x,x)": "must be a scalar",
    "Sin((x,y))": "a comma only separates",
    "Grad((x,y),x,y)": "a comma only separates",
    "TraceOperator(x,x,b)": "weights must be one number or as many",
    "SumLinOperator(x,x,y,b)": "weights must be one number or as many",
    "TraceOperator(x)": "TraceOperator takes TraceOperator(f, v[, w])",
    "Grad_WithSavedForward(x,y,x,y)": "acts on a whole reduction",
    "Diff_WithSavedForward(x,y,x,y)": "acts on a whole reduction",
}


@pytest.mark.parametrize("text", BAILED_OUT)
def test_what_cannot_be_done_is_refused_in_words(text: str) -> None:
    with pytest.raises(FormulaError) as caught:
        parse(text, ALIASES)
    assert BAILED_OUT[text] in str(caught.value)
    assert "^" in str(caught.value)


def test_the_gradient_of_a_jacobian_goes_through_every_row() -> None:
    x, e = variable(0, 3, Axis.I), variable(2, 27, Axis.I)
    node = parse(
        "GradMatrix(ExtractT(Extract(Concat(x,Sin(x)),2,3),1,9)*SumT(Norm2(x),9),x)", ALIASES
    )
    back = pull_back(node.node, [x], e)[0]
    assert back is not None
    assert back.dim == 3
