"""Pull-backs against difference quotients of the oracles, forward against reverse, and torch."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from checks import assert_close
from formulas import dense, operand_values

from pairfold.backends.reference import interpreter as reference
from pairfold.calculus.derive import pull_back, push_forward
from pairfold.core.node import Axis, topological
from pairfold.errors import DerivativeError
from pairfold.frontends.parse import parse
from pairfold.lower.kernel import lower
from pairfold.ops.reductions import REDUCTIONS
from pairfold.ops.table import OPERATIONS, Op, build, variable
from pairfold.ops.vectors import zero

POINTS = 41
STEP = 2.0**-7
STENCIL = ((1, 3 / 4), (2, -3 / 20), (3, 1 / 60))

CASES = [
    (op, dims)
    for op in OPERATIONS.values()
    if op.args and op.like is not None and (op.pullback is not None or op.expand is not None)
    for dims in op.samples
]


def case_id(value):
    return getattr(value, "name", None) or "x".join(map(str, value))


def at_points(node, arrays):
    """A formula of i-variables at each point: (POINTS, dim)."""
    used = {v.params[0] for v in topological([node]) if v.op.name == "Var"}
    kernel = lower(node, REDUCTIONS["Sum"], Axis.I, 16)
    count = next(iter(arrays.values())).shape[0]
    given = {position: array for position, array in arrays.items() if position in used}
    return reference.evaluate(kernel, given, count, 1)


class Row:
    """A row applied to variables 0..n-1, with gradient n and further variables after it."""

    def __init__(self, op, dims):
        self.op, self.dims = op, dims
        self.operands = [variable(p, dim, Axis.I) for p, dim in enumerate(dims)]
        self.params = tuple(param.sample for param in op.params)
        self.node = build(op, *self.operands, *self.params)
        self.rng = np.random.default_rng(zlib.crc32(repr((op.name, dims)).encode()))
        self.arrays = {
            p: operand_values(op, name, self.rng, (POINTS, dims[p]))
            for p, name in enumerate(op.args)
        }

    def extra(self, dim):
        """Another variable, with random values."""
        position = len(self.arrays)
        self.arrays[position] = self.rng.uniform(-1, 1, (POINTS, dim))
        return variable(position, dim, Axis.I)

    def oracle(self, arrays):
        """The row's own `like` at each point."""
        operands = [arrays[p][:, None, :] for p in range(len(self.dims))]
        return dense(self.op, operands, self.params)[:, 0, :]


def differences(function, arrays, position, weight):
    """J^T weight by central differences, and where two step sizes agree (no kink nearby).

    The moved arguments of both step sizes are one long list of points for `function`.
    """
    points, dim = arrays[position].shape
    ways = [(steps * sign, sign * factor) for steps, factor in STENCIL for sign in (1, -1)]
    sizes = np.array([STEP, STEP / 2])
    moves = sizes[:, None] * np.array([steps for steps, _ in ways])
    by = moves[:, :, None, None, None] * np.eye(dim)[:, None, :]  # size, way, component, 1, dim
    moved = arrays[position] + by
    count = moved.size // arrays[position].size
    every = {p: np.tile(array, (count, 1)) for p, array in arrays.items()}
    every[position] = moved.reshape(-1, dim)
    values = function(every).reshape(*moved.shape[:3], points, -1)
    factors = np.array([factor for _, factor in ways])
    slopes = np.einsum("w,swkpd->skpd", factors, values) / sizes[:, None, None, None]
    coarse, fine = (slopes * weight).sum(-1).swapaxes(1, 2)
    agree = np.isclose(coarse, fine, rtol=1e-5, atol=1e-5)
    return fine, agree


@pytest.mark.parametrize(("op", "dims"), CASES, ids=case_id)
def test_a_pull_back_is_the_slope_of_the_oracle(op, dims):
    row = Row(op, dims)
    g = row.extra(row.node.dim)
    for v, back in zip(row.operands, pull_back(row.node, row.operands, g), strict=True):
        back = zero(v.dim) if back is None else back
        assert back.dim == v.dim
        position = v.params[0]
        want, agree = differences(row.oracle, row.arrays, position, row.arrays[g.params[0]])
        assert agree.mean() > 0.85
        got = at_points(back, row.arrays)
        assert_close(got[agree], want[agree], rtol=1e-8, atol=1e-8, formula=back)


@pytest.mark.parametrize(("op", "dims"), CASES, ids=case_id)
def test_a_second_pull_back_is_the_slope_of_the_first(op, dims):
    row = Row(op, dims)
    g = row.extra(row.node.dim)
    for v, first in zip(row.operands, pull_back(row.node, row.operands, g), strict=True):
        if first is None:
            continue
        h = row.extra(first.dim)
        wrt = [*row.operands, g]
        for u, second in zip(wrt, pull_back(first, wrt, h), strict=True):
            second = zero(u.dim) if second is None else second
            want, agree = differences(
                lambda arrays, first=first: at_points(first, arrays),
                row.arrays,
                u.params[0],
                row.arrays[h.params[0]],
            )
            assert agree.mean() > 0.7
            got = at_points(second, row.arrays)
            assert_close(
                got[agree], want[agree], rtol=1e-6, atol=1e-6, formula=f"{v} then {u}: {second}"
            )


@pytest.mark.parametrize(("op", "dims"), CASES, ids=case_id)
def test_forward_and_reverse_are_transposes(op, dims):
    row = Row(op, dims)
    g = row.extra(row.node.dim)
    tangents = {v: row.extra(v.dim) for v in row.operands}
    forward = push_forward(row.node, tangents)
    assert forward.dim == row.node.dim
    left = (at_points(forward, row.arrays) * row.arrays[g.params[0]]).sum(-1)
    right = np.zeros(POINTS)
    for v, back in zip(row.operands, pull_back(row.node, row.operands, g), strict=True):
        if back is not None:
            right += (at_points(back, row.arrays) * row.arrays[tangents[v].params[0]]).sum(-1)
    assert_close(left, right, rtol=1e-12, atol=1e-12, formula=forward)


# ----- conventions -------------------------------------------------------------------------------

INF, NAN = np.inf, np.nan

# formula in x, y (dimension 1): values of x and y, gradient for x, gradient for y
AT_KINKS = [
    ("Abs(x)", 0, 0, 0, 0),
    ("Sqrt(x)", 0, 0, 0, 0),
    ("Rsqrt(x)", 0, 0, 0, 0),
    ("Norm2(x)", 0, 0, 0, 0),
    ("ReLU(x)", 0, 0, 1, 0),
    ("ReLU(x)", -1, 0, 0, 0),
    ("Sign(x)", 0, 0, 0, 0),
    ("Step(x)", 0, 0, 0, 0),
    ("Square(x)", 0, 0, 0, 0),
    ("Norm2(x-y)", 2, 2, 0, 0),
    ("Abs(x-y)", 2, 2, 0, 0),
    ("Clamp(x,y,5)", 2, 2, 1, 0),
    ("Clamp(x,y,5)", 1, 2, 0, 1),
    ("Clamp(x,-5,y)", 2, 2, 1, 0),
    ("Clamp(x,-5,y)", 3, 2, 0, 1),
    ("Clamp(x,y,y)", 2, 2, 1, 0),
    ("IfElse(x,x,y)", 0, 2, 1, 0),
    ("IfElse(x,x*y,y)", -1, 2, 0, 1),
    ("IfElse(x,Square(x),x*y)", NAN, 2, 2, NAN),
    ("Powf(x,y)", 0, 2, 0, 0),
    ("Powf(x,y)", 0, 1, 1, 0),
    ("Powf(x,y)", 0, 0, 0, 0),
    ("Powf(x,y)", -2, 0, 0, NAN),
    ("Powf(x,2)", -3, 0, -6, 0),
    ("Pow(x,3)", 0, 0, 0, 0),
    ("Pow(x,0)", 0, 0, 0, 0),
    ("x<y", 1, 1, 0, 0),
    ("x==y", 1, 1, 0, 0),
    ("Log(x)", 0, 0, INF, 0),
    ("Inv(x)", 0, 0, -INF, 0),
    ("Asin(x)", 1, 0, 0, 0),
    ("Asin(x)", -1, 0, 0, 0),
    ("Acos(x)", 1, 0, 0, 0),
    ("Asin(x)", 2, 0, NAN, 0),
    ("Atan(x)", INF, 0, 0, 0),
    ("Atan2(x,y)", 0, 0, NAN, NAN),
    ("Floor(x)", 1, 0, 0, 0),
    ("Round(x,0)", 0.5, 0, 0, 0),
    ("SinXDivX(x)", 0, 0, 0, 0),
    ("XLogX(x)", 0, 0, 0, 0),
    ("XLogX(x)", -1, 0, NAN, 0),
    ("XLogX(x)", 1, 0, 1, 0),
    ("ClampInt(x,0,1)", 0, 0, 1, 0),
    ("ClampInt(x,0,1)", 1, 0, 1, 0),
    ("ClampInt(x,0,1)", 2, 0, 0, 0),
    ("DiffClampInt(x,0,1)", 0.5, 0, 0, 0),
    ("Mod(x,y,0)", 3.5, 1, 1, -3),
    ("Mod(x,2,y)", 3.5, 1, 1, 0),
    ("Max(Concat(x,y))", 2, 2, 1, 0),
    ("Min(Concat(x,y))", 2, 2, 1, 0),
    ("Max(Concat(x,y))", NAN, 2, 1, 0),
    ("Max(Concat(x,y))", 2, NAN, 1, 0),
    ("ArgMax(Concat(x,y))", 1, 2, 0, 0),
    ("Sum(OneHot(x,3))", 1, 0, 0, 0),
    ("Sum(Normalize(x))", 0, 0, 0, 0),
]


def gradients(text, *values, dim=1):
    """Gradients of the sum of a formula in x, y, ... at one point."""
    names = "xyzw"[: len(values)]
    node = parse(text, [f"{name} = Vi({np.size(v)})" for name, v in zip(names, values)]).node
    arrays = {p: np.atleast_1d(np.asarray(v, float))[None] for p, v in enumerate(values)}
    arrays[len(values)] = np.ones((1, node.dim))
    variables = [variable(p, np.size(v), Axis.I) for p, v in enumerate(values)]
    ones = variable(len(values), node.dim, Axis.I)
    found = pull_back(node, variables, ones)
    return [
        np.zeros(v.dim) if back is None else at_points(back, arrays)[0]
        for v, back in zip(variables, found, strict=True)
    ]


@pytest.mark.parametrize(("text", "x", "y", "by_x", "by_y"), AT_KINKS)
def test_the_slope_at_a_kink_is_the_declared_one(text, x, y, by_x, by_y):
    got_x, got_y = gradients(text, x, y)
    assert_close(got_x, np.array([float(by_x)]), formula=text)
    assert_close(got_y, np.array([float(by_y)]), formula=text)


def test_the_gradient_of_a_norm_is_zero_at_zero_in_every_component():
    got = gradients("Norm2(x)", [0, 0, 0])[0]
    assert_close(got, np.zeros(3))


def test_the_second_derivative_of_a_root_is_zero_at_zero():
    x, g, h = (variable(p, 1, Axis.I) for p in range(3))
    first = pull_back(build(OPERATIONS["Sqrt"], x), [x], g)[0]
    second = pull_back(first, [x], h)[0]
    arrays = {0: np.zeros((1, 1)), 1: np.ones((1, 1)), 2: np.ones((1, 1))}
    assert_close(at_points(second, arrays), np.zeros((1, 1)))


# The branch that is not selected at x < 0 has a NaN value, slope, or both.
SELECTIONS = [
    "IfElse(x, Sqrt(x), 0)",
    "IfElse(x, Log(x), 0)",
    "IfElse(-x, 0, Log(x))",
    "IfElse(x, Exp(Sqrt(x)), 0)",
    "IfElse(x, Sin(Log(Sqrt(x))), 0)",
    "IfElse(x, Sqrt(x)*Log(x), 0)",
    "IfElse(x, 1/Sqrt(x), 0)",
    "IfElse(x, -Sqrt(x), 0)",
    "IfElse(x, 2*Sqrt(x)-Log(x), 0)",
    "IfElse(x, Powf(x,0.5), 0)",
    "IfElse(x, Clamp(Sqrt(x),0,1), 0)",
    "3*IfElse(x, Sqrt(x), 0)",
    "Square(IfElse(x, Sqrt(x), 1))",
    "Exp(-IfElse(x, Sqrt(x), 1))",
    "IfElse(x, Sqrt(x), 0) + IfElse(x, Log(x), 0)",
    "IfElse(x, IfElse(x-1, Log(x-1), Sqrt(x)), 0)",
    "IfElse(x, Rsqrt(x), 0)",
    "IfElse(x, Sqrt(x), 0)*Square(y)",
    "IfElse(x, Norm2(Log(x)), 0)",
]


@pytest.mark.parametrize("text", SELECTIONS)
@pytest.mark.parametrize("dim", [1, 3])
def test_a_branch_that_is_not_selected_never_poisons_the_gradient(text, dim):
    x = [-0.5] * dim
    if "Norm2" in text and dim == 3:
        text = text.replace("IfElse(x", "IfElse(Elem(x,0)")
    got = gradients(text, x, [2.0] * dim)
    assert_close(got[0], np.zeros(dim), formula=text)
    assert np.isfinite(got[1]).all()


VECTOR_SELECTIONS = [
    "IfElse(c, Sum(Sqrt(x)), 0)",
    "IfElse(c, Norm2(Log(x)), 0)",
    "IfElse(c, SqDist(Sqrt(x),y), 0)",
    "IfElse(c, Sqrt(x)|y, 0)",
    "IfElse(c, Concat(Sqrt(x),Log(x)), 0)",
    "IfElse(c, Extract(Sqrt(x),1,2), 0)",
    "IfElse(c, Elem(Sqrt(x),1), 0)",
    "IfElse(c, ExtractT(Sqrt(x),1,5), 0)",
    "IfElse(c, SumT(Sqrt(Sum(Log(x))),4), 0)",
    "IfElse(c, Sqrt(x), y)",
    "IfElse(c, Exp(Sum(Sqrt(x))), 0)",
    "Sum(IfElse(c, Sqrt(x), y))",
    "IfElse(x, Sqrt(x), 0)|y",
    "Extract(IfElse(x, Sqrt(x), 0),1,2)",
    "IfElse(Extract(x,1,2), Extract(Sqrt(x),1,2), 0)",
    "Concat(IfElse(x, Sqrt(x), 0),y)",
]


@pytest.mark.parametrize("text", VECTOR_SELECTIONS)
def test_a_scalar_condition_guards_a_branch_of_vectors(text):
    text = text.replace("(c,", "(z,")
    got = gradients(text, [-0.5, -1.0, -2.0], [2.0, 1.0, 3.0], -1.0)
    assert_close(got[0], np.zeros(3), formula=text)


# The condition is a vector, the branch a scalar, or a mixture of components, with a NaN slope.
SCALAR_BRANCHES = [
    "IfElse(z, Sqrt(Sum(x)), y)",
    "IfElse(z, Sqrt(Elem(x,0)), y)",
    "IfElse(z, SumT(Sqrt(Sum(x)),3), y)",
    "IfElse(z, y*Log(Sum(x)), 0)",
    "IfElse(z, y+Exp(Sqrt(Elem(x,1))), 0)",
    "IfElse(-z-1, y, Norm2(Sqrt(x))*y)",
    "IfElse(z, Concat(Sqrt(x)|y, y), 0)",
    "Square(IfElse(z, Powf(Elem(x,2),y), y))",
    "IfElse(z, IfElse(y, Sqrt(Sum(x)), 1), y)",
    "IfElse(z, Max(Sqrt(x)), y)",
    "IfElse(z, MatVecMult(Concat(Concat(x,x),x),Sqrt(x)), y)",
    "IfElse(z, VecMatMult(Sqrt(x),Concat(Concat(y,y),y)), y)",
    "IfElse(Concat(z,z), Extract(TensorProd(Log(x),y),1,6), y|y)",
]


@pytest.mark.parametrize("text", SCALAR_BRANCHES)
def test_a_vector_condition_guards_a_branch_that_mixes_components(text):
    size = 4 if "Concat(Sqrt(x)|y" in text else 3
    got = gradients(text, [-0.5, -1.0, -2.0], [2.0, 1.0, 3.0], [-1.0] * size)
    assert_close(got[0], np.zeros(3), formula=text)
    assert np.isfinite(got[1]).all()


def test_a_scalar_branch_keeps_its_slope_where_one_component_selects_it():
    got = gradients("IfElse(z, Sqrt(Sum(x)), y)", [1.0, 2.0, 6.0], [1.0, 1.0, 1.0], [-1.0, 0, 2])
    assert_close(got[0], np.full(3, 2 / 6.0))
    assert_close(got[1], np.array([1.0, 0, 0]))


def test_forward_mode_and_second_derivatives_keep_the_guard_of_a_scalar_branch():
    x, c = variable(0, 3, Axis.I), variable(1, 3, Axis.I)
    g, t = variable(2, 3, Axis.I), variable(3, 3, Axis.I)
    f = build(OPERATIONS["IfElse"], c, OPERATIONS["Sqrt"](OPERATIONS["Sum"](x)), x)
    arrays = {p: np.full((1, 3), v) for p, v in enumerate((-2.0, -1.0, 5.0, 7.0))}
    assert_close(at_points(push_forward(f, {x: t}), arrays), np.full((1, 3), 7.0))
    first = pull_back(f, [x], g)[0]
    assert_close(at_points(first, arrays), np.full((1, 3), 5.0))
    assert_close(at_points(pull_back(first, [x], t)[0], arrays), np.zeros((1, 3)))
    arrays[1] = np.array([[1.0, -1.0, -1.0]])
    arrays[0] = np.full((1, 3), 3.0)
    want = np.array([[5.0 / 6, 5 + 5.0 / 6, 5 + 5.0 / 6]])
    assert_close(at_points(first, arrays), want)


def test_the_selected_branch_keeps_its_slope_beside_one_that_is_not():
    got = gradients("IfElse(x, Sqrt(x), 0)", [4.0, -4.0, 16.0])[0]
    assert_close(got, np.array([0.25, 0.0, 0.125]))


def test_two_selections_of_one_function_keep_it_guarded():
    got = gradients("IfElse(x, Sqrt(x), 0)*2 + IfElse(x-1, Sqrt(x), 0)", [-4.0, 0.25, 4.0])[0]
    assert_close(got, np.array([0.0, 2.0, 0.75]))


# ----- other routes ------------------------------------------------------------------------------


def test_an_operation_without_derivative_is_refused_only_when_it_is_asked():
    row = Op("Opaque", ("x",), "", dims=lambda d: d, value=lambda s, k, x: x(k), pullback=None)
    x, g = variable(0, 3, Axis.I), variable(1, 3, Axis.I)
    f = build(row, x) + x
    with pytest.raises(DerivativeError, match="Opaque has no derivative"):
        pull_back(f, [x], g)
    assert pull_back(build(row, g) + x, [x], g) == [g]


def test_a_formula_does_not_depend_on_other_variables():
    x, y, g = (variable(p, 3, Axis.I) for p in range(3))
    assert pull_back(x * x, [y], g) == [None]
    assert push_forward(x * x, {y: g}) is zero(x.dim)


def test_the_gradient_of_a_variable_is_the_incoming_one():
    x, g = variable(0, 3, Axis.I), variable(1, 3, Axis.J)
    assert pull_back(x, [x], g) == [g]


COMPOSITES = [
    "Exp(-SqDist(x,y)*Square(p))*b",
    "Sqrt(1+SqDist(x,y))*b",
    "Tanh((x|y)+p)*b",
    "Log(1+Exp(p*(x|y)))",
    "Exp(-Norm2(x-y))*Concat(b,Sin(x))",
    "Inv(1+SqNorm2(x-p*y))",
    "Powf(1+Square(x),p)*Cos(y)",
    "Square((x|y)+p)*b/(1+SqDist(x,y))",
    "Extract(x*y,1,2)*Elem(Exp(x-y),0)",
    "Rsqrt(2+Sin(x))*ExtractT(b,0,3)",
    "Clamp(x*y,-0.5,0.5)*p",
    "IfElse(x-y,Exp(x),Sin(y))*p",
]


def in_torch(torch, text, x, y, b, p):
    def pad(value, start, n):
        zeros = torch.zeros((*value.shape[:-1], n), dtype=value.dtype)
        zeros[..., start : start + value.shape[-1]] = value
        return zeros

    def total(value):
        return value.sum(-1, keepdim=True)

    def joined(u, v):
        leading = torch.broadcast_shapes(u.shape[:-1], v.shape[:-1])
        return torch.cat([u.expand(*leading, -1), v.expand(*leading, -1)], -1)

    formulas = {
        0: lambda: torch.exp(-total((x - y) ** 2) * p**2) * b,
        1: lambda: torch.sqrt(1 + total((x - y) ** 2)) * b,
        2: lambda: torch.tanh(total(x * y) + p) * b,
        3: lambda: torch.log(1 + torch.exp(p * total(x * y))),
        4: lambda: torch.exp(-torch.sqrt(total((x - y) ** 2))) * joined(b, torch.sin(x)),
        5: lambda: 1 / (1 + total((x - p * y) ** 2)),
        6: lambda: (1 + x**2) ** p * torch.cos(y),
        7: lambda: (total(x * y) + p) ** 2 * b / (1 + total((x - y) ** 2)),
        8: lambda: (x * y)[..., 1:3] * torch.exp(x - y)[..., :1],
        9: lambda: 1 / torch.sqrt(2 + torch.sin(x)) * pad(b, 0, 3),
        10: lambda: torch.clamp(x * y, -0.5, 0.5) * p,
        11: lambda: torch.where(x - y >= 0, torch.exp(x), torch.sin(y)) * p,
    }
    return formulas[COMPOSITES.index(text)]()


@pytest.mark.parametrize("text", COMPOSITES)
def test_gradients_are_those_of_torch(text):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(11)
    rows, columns = 17, 23
    shapes = {"x": (rows, 3), "y": (columns, 3), "b": (columns, 2), "p": (1,)}
    aliases = ["x = Vi(3)", "y = Vj(3)", "b = Vj(2)", "p = Pm(1)"]
    arrays = {n: rng.uniform(-1, 1, shape) for n, shape in shapes.items()}
    node = parse(text, aliases).node
    arrays["e"] = rng.uniform(-1, 1, (rows, node.dim))

    leaves = {n: torch.tensor(a, requires_grad=n != "e") for n, a in arrays.items()}
    x, y, b = leaves["x"][:, None], leaves["y"][None], leaves["b"][None]
    pairs = in_torch(torch, text, x, y, b, leaves["p"]).expand(rows, columns, node.dim)
    value = (pairs.sum(1) * leaves["e"]).sum()
    grads = torch.autograd.grad(value, [leaves[n] for n in "xybp"], allow_unused=True)

    for name, want in zip("xybp", grads, strict=True):
        parsed = parse(f"Grad({text},{name},e)", [*aliases, f"e = Vi({node.dim})"])
        kept = Axis.J if name in "yb" else Axis.I
        kernel = lower(parsed.node, REDUCTIONS["Sum"], kept, 16)
        used = {v.params[0] for v in topological([parsed.node]) if v.op.name == "Var"}
        given = {p: array for p, array in enumerate(arrays.values()) if p in used}
        count = (rows, columns) if kept == Axis.I else (columns, rows)
        got = reference.evaluate(kernel, given, *count)
        got = got.sum(0) if name == "p" else got
        want = torch.zeros_like(leaves[name]) if want is None else want
        assert_close(got, want.detach().numpy(), rtol=1e-11, atol=1e-11, formula=parsed.node)
