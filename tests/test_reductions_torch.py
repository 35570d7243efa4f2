"""Derivatives of every reduction on torch tensors, against dense torch programs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from products import some  # noqa: E402
from torch.autograd import gradcheck, gradgradcheck  # noqa: E402

import pairfold.torch  # noqa: E402
from pairfold import settings  # noqa: E402
from pairfold.core.node import Axis, topological  # noqa: E402
from pairfold.errors import ShapeError  # noqa: E402
from pairfold.frontends.derivatives import component_at_pairs  # noqa: E402
from pairfold.frontends.reduction import FormulaReduction  # noqa: E402
from pairfold.ops.reductions import REDUCTIONS  # noqa: E402

Tensor = Any
K = 3
ROWS, COLUMNS = 4, 5


def _first(values: Tensor) -> Tensor:
    """The K smallest, ascending, padded with inf."""
    k = min(K, values.shape[-2])
    found = values.topk(k, dim=-2, largest=False, sorted=True).values
    pad = found.new_full((*found.shape[:-2], K - k, found.shape[-1]), math.inf)
    return torch.cat([found, pad], -2)


def _shifted(f: Tensor, g: Tensor | None) -> Tensor:
    top = f.amax(-2)
    terms = (f - top.unsqueeze(-2)).exp() * (1 if g is None else g)
    return torch.cat([top, terms.sum(-2)], -1)


# (reduction, formula2) -> the value part on the tables F (..., rows, columns, D) and G.
DENSE: dict[tuple[str, bool], Callable[..., Tensor]] = {
    ("Sum", False): lambda f, g: f.sum(-2),
    ("Mean", False): lambda f, g: f.mean(-2),
    ("Prod", False): lambda f, g: f.prod(-2),
    ("Min", False): lambda f, g: f.amin(-2),
    ("Max", False): lambda f, g: f.amax(-2),
    ("Min_ArgMin", False): lambda f, g: f.amin(-2),
    ("Max_ArgMax", False): lambda f, g: f.amax(-2),
    ("KMin", False): lambda f, g: _first(f),
    ("KMin_ArgKMin", False): lambda f, g: _first(f),
    ("LogSumExp", False): lambda f, g: f.logsumexp(-2),
    ("LogSumExp", True): lambda f, g: (f + g.log()).logsumexp(-2),
    ("LogSumExpWeight", True): lambda f, g: (f + g.log()).logsumexp(-2),
    ("SumSoftMaxWeight", True): lambda f, g: (f.softmax(-2) * g).sum(-2),
    ("Max_SumShiftExp", False): _shifted,
    ("Max_SumShiftExpWeight", True): _shifted,
}
case = pytest.mark.parametrize(
    ("name", "weighted"), list(DENSE), ids=[f"{name}{'+weight' * w}" for name, w in DENSE]
)
ALIASES = ["x = Vi(2)", "y = Vj(2)", "b = Vj(3)", "c = Vi(1)", "p = Pm(1)"]


def test_every_reduction_with_a_derivative_is_here() -> None:
    with_one = {
        (row.name, weighted)
        for row in REDUCTIONS.values()
        for weighted in (False, True)
        if not row.internal
        and not row.derivative.startswith("none")
        and (weighted or row.weighted != "must")
        and not (weighted and row.weighted == "no")
    }
    assert set(DENSE) == with_one


def program(name: str, weighted: bool, axis: int = 1) -> Callable[..., Tensor]:
    """The value part of a reduction of vectors, or of a scalar where that is asked for."""
    row = REDUCTIONS[name]
    options: dict[str, Any] = {"opt_arg": K} if row.top_k else {}
    if weighted:
        options["formula2"] = "b*c"
    scalar = weighted or row.scalar
    formula = "Sum(Sin(p*x-y)+x*y)" if scalar else "Sin(p*x-y)+x*y"
    genred = pairfold.torch.Genred(formula, ALIASES, name, axis=axis, **options)
    if len(row.results) == 1 or row.joined:
        return genred
    return lambda *tensors: genred(*tensors)[0]


def dense(name: str, weighted: bool, axis: int = 1) -> Callable[..., Tensor]:
    """The same on the tables of all pairs."""
    scalar = weighted or REDUCTIONS[name].scalar

    def run(x: Tensor, y: Tensor, b: Tensor, c: Tensor, p: Tensor) -> Tensor:
        x, c, p = x.unsqueeze(-2), c.unsqueeze(-2), p.unsqueeze(-2).unsqueeze(-2)
        y, b = y.unsqueeze(-3), b.unsqueeze(-3)
        f = (p * x - y).sin() + x * y
        f = f.sum(-1, keepdim=True) if scalar else f
        g = b * c if weighted else None
        lead = torch.broadcast_shapes(*(t.shape[:-1] for t in (x, y, b, c, p)))
        f = f.expand(*lead, f.shape[-1])
        g = None if g is None else g.expand(*lead, g.shape[-1])
        if axis == 0:
            f, g = f.transpose(-2, -3), None if g is None else g.transpose(-2, -3)
        return DENSE[name, weighted](f, g)

    return run


def arguments(
    batch: Sequence[tuple[int, ...]] = ((),) * 5,
    rows: int = ROWS,
    columns: int = COLUMNS,
    dtype: Any = torch.float64,
) -> list[Tensor]:
    """x, y, b, c, p, asking for gradients."""
    torch.manual_seed(0)
    shapes = [(rows, 2), (columns, 2), (columns, 3), (rows, 1), (1,)]
    return [
        (torch.rand(*lead, *shape, dtype=dtype) + 0.2).requires_grad_()
        for lead, shape in zip(batch, shapes, strict=True)
    ]


def gradients(out: Tensor, tensors: Sequence[Tensor], **how: Any) -> list[Tensor]:
    """Gradients, zeros where nothing flows."""
    found = torch.autograd.grad(out, tensors, allow_unused=True, **how)
    return [torch.zeros_like(t) if g is None else g for t, g in zip(tensors, found, strict=True)]


def finite(out: Tensor) -> Tensor:
    """Padded places count as 0."""
    return torch.where(torch.isinf(out), torch.zeros_like(out), out)


def compare(got: Sequence[Tensor], want: Sequence[Tensor], **how: Any) -> None:
    """Pairs of tensors, shapes included."""
    assert len(got) == len(want)
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, **how)


BATCHES = {
    "plain": ((), (), (), (), ()),
    "batch": ((2,), (2,), (2,), (2,), (2,)),
    "broadcast": ((2, 1), (3,), (1, 1), (), (2, 3)),
    "one side": ((), (3,), (3,), (), ()),
}


@some(
    "name,weighted,batch,axis",
    [(*entry, batch, axis) for entry in DENSE for batch in BATCHES for axis in (0, 1)],
    lambda entry: entry[3] != (list(DENSE).index(entry[:2]) + list(BATCHES).index(entry[2])) % 2,
)
def test_first_and_second_derivatives_are_those_of_dense_torch(
    name: str, weighted: bool, batch: str, axis: int
) -> None:
    # Machine code is tried by the first order, and by gradgradcheck.
    compare_derivatives(name, weighted, batch, axis, backend="reference")


def compare_derivatives(
    name: str, weighted: bool, batch: str, axis: int, orders: int = 2, **second: Any
) -> None:
    """Orders of derivatives of an entry of DENSE, the second under settings of its own."""
    tensors = arguments(BATCHES[batch])
    got, want = (make(name, weighted, axis)(*tensors) for make in (program, dense))
    lead = torch.broadcast_shapes(*BATCHES[batch])
    assert got.shape[: len(lead)] == lead
    torch.testing.assert_close(got, want)
    weight = torch.randn_like(got)
    first, other = (
        gradients((finite(out) * weight).sum(), tensors, create_graph=True) for out in (got, want)
    )
    compare(first, other)
    if batch == "batch" or orders == 1:
        return
    with settings(**second):
        slopes, slopes2 = (
            gradients(sum(g.sin().sum() for g in grads if g.requires_grad), tensors)
            for grads in (first, other)
        )
    compare(slopes, slopes2)


@case
def test_gradcheck_and_gradgradcheck_pass(name: str, weighted: bool) -> None:
    tensors = arguments(rows=3, columns=4)
    run = program(name, weighted)
    assert gradcheck(run, tensors, check_forward_ad=True)
    assert gradgradcheck(run, tensors, fast_mode=True)


@case
def test_forward_mode_equals_the_dense_program(name: str, weighted: bool) -> None:
    tensors = [t.detach() for t in arguments()]
    tangents = [torch.randn_like(t) for t in tensors]
    for moving in ((0, 1, 2, 3, 4), (0,), (1, 4), (2, 3)):

        def along(run: Callable[..., Tensor], moving: tuple[int, ...] = moving) -> Any:
            def of(*some: Tensor) -> Tensor:
                full = list(tensors)
                for n, tensor in zip(moving, some, strict=True):
                    full[n] = tensor
                return run(*full)

            primals = tuple(tensors[n] for n in moving)
            return torch.func.jvp(of, primals, tuple(tangents[n] for n in moving))

        compare(along(program(name, weighted)), along(dense(name, weighted)))


@case
def test_vmap_is_one_more_batch_axis(name: str, weighted: bool) -> None:
    tensors = [t.detach() for t in arguments()]
    for in_dims in ((0, None, None, None, None), (1, 0, None, -1, 0), (None, 1, 2, None, None)):
        many = [
            t if dim is None else torch.stack([t * k for k in (0.5, 1.0, 1.5)], dim)
            for t, dim in zip(tensors, in_dims, strict=True)
        ]
        got, want = (
            torch.func.vmap(make(name, weighted), in_dims)(*many) for make in (program, dense)
        )
        torch.testing.assert_close(got, want)


@pytest.mark.usefixtures("interpreted_here")
@pytest.mark.parametrize("transform", ["jacrev", "jacfwd", "hessian"])
@case
def test_jacobians_and_hessians_equal_the_dense_program(
    name: str, weighted: bool, transform: str
) -> None:
    tensors = [t.detach() for t in arguments(rows=3, columns=4)]

    def of(run: Callable[..., Tensor], place: int) -> Tensor:
        transformed = getattr(torch.func, transform)
        return transformed(lambda *a: run(*a).sin().sum((0, 1)), argnums=place)(*tensors)

    for place in (0, 1, 4):
        got, want = (of(make(name, weighted), place) for make in (program, dense))
        torch.testing.assert_close(got, want)


@case
def test_float32_gradients_are_accurate(name: str, weighted: bool) -> None:
    wide = arguments(rows=17, columns=23)
    narrow = [t.detach().float().requires_grad_() for t in wide]
    wide = [t.detach().double().requires_grad_() for t in narrow]
    got = gradients(finite(program(name, weighted)(*narrow)).sum(), narrow)
    want = gradients(finite(dense(name, weighted)(*wide)).sum(), wide)
    for a, b in zip(got, want, strict=True):
        assert a.dtype == torch.float32
        torch.testing.assert_close(a.double(), b, rtol=2e-5, atol=2e-5 * float(b.abs().max() + 1))


EMPTY = [(4, 0), (0, 5), (0, 0), (1, 1), (4, 1)]


@some(
    "name,weighted,axis,rows,columns",
    [(*entry, axis, *size) for entry in DENSE for axis in (0, 1) for size in EMPTY],
    lambda entry: (list(DENSE).index(entry[:2]) + EMPTY.index(entry[3:])) % 2 == entry[2],
)
def test_empty_and_single_axes_have_gradients(
    name: str, weighted: bool, axis: int, rows: int, columns: int
) -> None:
    if axis == 0:
        rows, columns = columns, rows
    tensors = arguments(rows=rows, columns=columns)
    out = program(name, weighted, axis)(*tensors)
    got = gradients(finite(out).sum(), tensors)
    if rows and columns:
        want = gradients(finite(dense(name, weighted, axis)(*tensors)).sum(), tensors)
        compare(got, want)
    for tensor, gradient in zip(tensors, got, strict=True):
        assert gradient.shape == tensor.shape
        if not (rows and columns):
            assert not gradient.any()


@pytest.mark.parametrize("batch", [((0,), (), (), (), ()), ((), (), (), (0,), (2, 1))])
@case
def test_empty_batches_have_gradients(name: str, weighted: bool, batch: Any) -> None:
    tensors = arguments(batch)
    out = program(name, weighted)(*tensors)
    want = dense(name, weighted)(*arguments(((0,) if batch[0] else (2, 0),) * 5))
    assert out.shape == want.shape
    for tensor, gradient in zip(tensors, gradients(out.sum(), tensors), strict=True):
        assert gradient.shape == tensor.shape
        assert not gradient.any()


@pytest.mark.usefixtures("interpreted_here")
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("formula", ["p*p", "Sin(y*p)", "Sin(x*p)"])
@case
def test_formulas_that_lack_an_index_have_gradients(
    name: str, weighted: bool, formula: str, axis: int
) -> None:
    """Without an array of one side there is one row, or one column."""
    row = REDUCTIONS[name]
    options: dict[str, Any] = {"opt_arg": K} if row.top_k else {}
    if weighted:
        options["formula2"] = "Exp(p)"
    letter = formula[4:5]
    aliases = {"x": ["x = Vi(1)"], "y": ["y = Vj(1)"]}.get(letter, [])
    torch.manual_seed(0)
    p = torch.rand(1, dtype=torch.float64, requires_grad=True)
    x = torch.rand(5, 1, dtype=torch.float64, requires_grad=True)
    tensors = [x, p] if aliases else [p]
    genred = pairfold.torch.Genred(formula, [*aliases, "p = Pm(1)"], name, axis=axis, **options)
    out = genred(*tensors)
    out = out[0] if isinstance(out, tuple) else out
    f = (x * p).sin() if aliases else (p * p)[None]
    f = f[None] if (letter == "y") == (axis == 1) else f[:, None]  # (rows, columns, 1)
    want = DENSE[name, weighted](f, p.exp().expand(f.shape) if weighted else None)
    want = want[..., 0] if row.top_k else want
    torch.testing.assert_close(out, want)
    compare(gradients(finite(out).sum(), tensors), gradients(finite(want).sum(), tensors))


@pytest.mark.parametrize(
    "name", [r.name for r in REDUCTIONS.values() if {p.kind for p in r.results} != {"value"}]
)
def test_whole_numbers_have_no_tangents(name: str) -> None:
    """Indices, counts and truth values pass through every transform as constants do."""
    options = {"opt_arg": K} if REDUCTIONS[name].top_k else {}
    genred = pairfold.torch.Genred("ReLU(x*y-0.3)", ALIASES[:2], name, axis=1, **options)
    x, y = (t.detach() for t in arguments()[:2])

    def whole(x: Tensor) -> Tensor:
        found = genred(x, y)
        return found[-1] if isinstance(found, tuple) else found

    want = whole(x)
    primal, tangent = torch.func.jvp(whole, (x,), (torch.ones_like(x),))
    torch.testing.assert_close(primal, want)
    assert not tangent.any()
    for transform in (torch.func.grad, torch.func.jacrev, torch.func.jacfwd):
        _, beside = transform(lambda x: ((x**2).sum(), whole(x)), has_aux=True)(x)
        torch.testing.assert_close(beside, want)
    many = torch.stack([x, -x, 2 * x], 1)
    got = torch.func.vmap(whole, 1)(many)
    torch.testing.assert_close(got, torch.stack([whole(many[:, n]) for n in range(3)]))


# -- products --------------------------------------------------------------------------------------


@pytest.mark.parametrize("zeros", [0, 1, 2, 3])
def test_gradients_of_products_with_zeros(zeros: int) -> None:
    torch.manual_seed(1)
    x = torch.ones(3, 1, dtype=torch.float64, requires_grad=True)
    y = torch.randn(6, 1, dtype=torch.float64)
    y[1 : 1 + 2 * zeros : 2] = 0
    y.requires_grad_()
    genred = pairfold.torch.Genred("x*y", ["x = Vi(1)", "y = Vj(1)"], "Prod", axis=1)
    got, want = genred(x, y), (x[:, None] * y).prod(1)
    torch.testing.assert_close(got, want)
    first, other = (gradients(out.sum(), [x, y], create_graph=True) for out in (got, want))
    compare(first, other)
    weights = torch.randn_like(x), torch.randn_like(y)
    moved = [sum((w * g).sum() for w, g in zip(weights, f, strict=True)) for f in (first, other)]
    compare(*(gradients(out, [x, y]) for out in moved))


# -- selections ------------------------------------------------------------------------------------

SELECTING = [row.name for row in REDUCTIONS.values() if row.selects]


@pytest.mark.parametrize(
    "name", [row.name for row in REDUCTIONS.values() if not row.internal and row.kinds]
)
def test_only_values_carry_a_graph(name: str) -> None:
    row = REDUCTIONS[name]
    options: dict[str, Any] = {"opt_arg": K} if row.top_k else {}
    if row.weighted == "must":
        options["formula2"] = "b"
    tensors = arguments()[:3]
    genred = pairfold.torch.Genred("Sum(x*y)", ALIASES[:3], name, axis=1, **options)
    out = genred(*tensors)
    out = out if isinstance(out, tuple) else (out,)
    for result, part in zip(row.results, out, strict=not row.joined):
        assert part.requires_grad == (result.kind == "value")
        wanted = {"value": torch.float64, "index": torch.int64, "truth": torch.bool}
        assert part.dtype == wanted[result.kind]


@pytest.mark.parametrize("name", [n for n in SELECTING if not n.startswith("Arg")])
def test_padded_places_send_nothing(name: str) -> None:
    """More places than columns, NaN and infinite columns: gradients only where a pair was taken."""
    x = torch.zeros(2, 1, dtype=torch.float64, requires_grad=True)
    sign = -1 if "Max" in name else 1
    y = (sign * torch.tensor([[math.inf], [3.0], [math.nan], [1.0]])).double().requires_grad_()
    options = {"opt_arg": 6} if REDUCTIONS[name].top_k else {}
    genred = pairfold.torch.Genred("x+2*y", ["x = Vi(1)", "y = Vj(1)"], name, axis=1, **options)
    out = genred(x, y)
    out = out[0] if isinstance(out, tuple) else out
    to_x, to_y = gradients(finite(out).sum(), [x, y])
    listed = REDUCTIONS[name].top_k
    torch.testing.assert_close(to_x, torch.full_like(x, 2.0 if listed else 1.0))
    want = torch.tensor([[0], [4 if listed else 0], [0], [4]], dtype=torch.float64)
    torch.testing.assert_close(to_y, want)


@pytest.mark.parametrize(("name", "sign"), [("Max", 1.0), ("Max_ArgMax", 1.0), ("Min", -1.0)])
def test_a_selected_infinity_is_a_pair_like_any(name: str, sign: float) -> None:
    """x/y with infinite x: the derivative by x is 1/y, at the pair that is selected."""
    x = torch.tensor([[sign * math.inf], [-sign * math.inf]], dtype=torch.float64)
    y = torch.tensor([[2.0], [4.0]], dtype=torch.float64)
    x.requires_grad_()
    found = pairfold.torch.Genred("x/y", ["x = Vi(1)", "y = Vj(1)"], name, axis=1)(x, y)
    value = found[0] if isinstance(found, tuple) else found
    assert value.flatten().tolist() == [sign * math.inf, -sign * math.inf]
    (gradient,) = torch.autograd.grad(value, x, torch.ones_like(value))
    assert gradient.flatten().tolist() == [0.5, 0.0]  # nothing was selected in the second row


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shared", ["batches", "rows"])
def test_gradients_summed_over_batches_and_rows_are_rounded_once(dtype: Any, shared: str) -> None:
    """To what is the same in all of them flow 1000, 1 and -999 times 1.3."""
    c = torch.ones(1, 1 if shared == "rows" else 2, dtype=dtype, requires_grad=True)
    c = torch.ones(1, dtype=dtype, requires_grad=True) if shared == "rows" else c
    x = torch.tensor([[1000.0, 0.7], [1.0, 0.7], [-999.0, 0.7]], dtype=dtype)
    if shared == "rows":
        aliases, given = ["c = Pm(1)", "x = Vi(1)", "y = Vj(1)"], x[:, :1]
    else:
        aliases, given = ["c = Vi(2)", "x = Pm(2)", "y = Vj(1)"], x
    out = pairfold.Genred("c*x + 0*y", aliases, "Sum", axis=1)(c, given, x[:1, :1])
    (got,) = torch.autograd.grad(out, [c], torch.full_like(out, 1.3))
    factor = torch.full((1,), 1.3, dtype=dtype).double()
    want = (given.double() * factor).sum(0).reshape(c.shape).to(dtype)
    assert got.dtype == dtype
    torch.testing.assert_close(got, want, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_gradients_of_selections_in_half_precision_are_rounded_once(dtype: Any) -> None:
    """The parts of the two components nearly cancel."""
    x, y = (torch.tensor([[n]], dtype=dtype) for n in (0.7, 1.2345))
    x.requires_grad_()
    value = pairfold.torch.Genred("Concat(x*y,x*y)", ["x = Vi(1)", "y = Vj(1)"], "Max", axis=1)(
        x, y
    )
    weights = torch.tensor([[1.234, -1.21]], dtype=dtype)
    (gradient,) = torch.autograd.grad(value, x, weights)
    want = y.double() * weights.double().sum()
    assert abs(gradient.double() - want) < torch.finfo(dtype).eps * abs(want)


@pytest.mark.parametrize("name", [n for n in SELECTING if not n.startswith("Arg")])
def test_selected_values_beyond_half_precision_have_gradients(name: str) -> None:
    """The infinity that stands for such a value is also the one that stands for no column."""
    sign = -1.0 if "Max" in name else 1.0
    x = torch.tensor([[sign * 6e4], [sign]], dtype=torch.float16, requires_grad=True)
    y = torch.tensor([[sign * 6e4], [sign * 5e4]], dtype=torch.float16)
    length = {"opt_arg": 2} if name.startswith("K") else {}
    genred = pairfold.torch.Genred("x+y", ["x = Vi(1)", "y = Vj(1)"], name, axis=1, **length)
    found = genred(x, y)
    value = found[0] if isinstance(found, tuple) else found
    assert value[0].tolist() == [sign * math.inf] * value.shape[1]
    (gradient,) = torch.autograd.grad(value, x, torch.ones_like(value))
    assert gradient.flatten().tolist() == [value.shape[1]] * 2


def test_ties_send_the_gradient_to_the_lowest_index() -> None:
    x = torch.zeros(2, 1, requires_grad=True)
    y = torch.tensor([[1.0], [0.0], [0.0], [2.0], [2.0]], requires_grad=True)
    for name, want in (("Min", [0, 2, 0, 0, 0]), ("Max", [0, 0, 0, 2, 0])):
        genred = pairfold.torch.Genred("x+y", ["x = Vi(1)", "y = Vj(1)"], name, axis=1)
        (got,) = torch.autograd.grad(genred(x, y).sum(), y)
        torch.testing.assert_close(got, torch.tensor(want).float()[:, None])


@pytest.mark.parametrize("name", [n for n in SELECTING if not n.startswith("Arg")])
def test_gradients_of_selections_cost_as_much_as_the_result(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No fold of a derivative has a reduced axis as long as the other argument."""
    rows, columns = 37, 41
    tensors = arguments(rows=rows, columns=columns)
    seen: list[tuple[str, int]] = []
    real = FormulaReduction.run

    def watched(self: FormulaReduction, adapter: Any, arrays: Sequence[Any], *rest: Any) -> Any:
        sizes = self.check(arrays)[1]
        pairs = sizes.i * sizes.j
        seen.append((self.reduction, pairs))
        return real(self, adapter, arrays, *rest)

    monkeypatch.setattr(FormulaReduction, "run", watched)
    out = program(name, False)(*tensors)
    taken = [pairs for reduction, pairs in seen if reduction in SELECTING]
    assert taken == [rows * columns]
    first = gradients(finite(out).sum(), tensors, create_graph=True)
    gradients(sum(g.sin().sum() for g in first if g.requires_grad), tensors)
    others = [pairs for reduction, pairs in seen if reduction not in SELECTING]
    length = K if REDUCTIONS[name].top_k else 1
    assert others
    assert max(others) <= rows * length
    fold = pairfold.torch.Genred("x*y", ALIASES, "Min", axis=1)._fold
    at = component_at_pairs(fold, 0)
    kinds = {n.params[2] for n in topological([at.formula]) if n.op.name == "Var"}
    assert Axis.J not in kinds


# -- exponentials ----------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [1, 2])
def test_rows_of_minus_infinity_have_no_gradient(order: int) -> None:
    inf = math.inf
    x = torch.tensor([[0.0], [-inf], [1.0]], dtype=torch.float64, requires_grad=True)
    y = torch.tensor([[1.0], [-inf], [2.0]], dtype=torch.float64, requires_grad=True)
    b = torch.tensor([[1.0, 2], [3, 4], [5, 7]], dtype=torch.float64, requires_grad=True)
    aliases = ["x = Vi(1)", "y = Vj(1)", "b = Vj(2)"]
    real = torch.tensor([[True], [False], [True]])
    tensors = [x, y, b]
    for weight in (None, "b"):
        genred = pairfold.torch.Genred("x+y", aliases, "LogSumExp", axis=1, formula2=weight)
        out = genred(*tensors)
        assert torch.isinf(out[1]).all()
        x2, y2, b2 = (t.detach()[real[:, 0]].requires_grad_() for t in tensors)
        table = x2[:, None] + y2
        want = (table if weight is None else table + b2.log()).logsumexp(1)
        torch.testing.assert_close(out[real[:, 0]], want)
        got = gradients(out[real[:, 0]].square().sum(), tensors, create_graph=order == 2)
        small = [x2, y2, b2]
        small_got = gradients(want.square().sum(), small, create_graph=order == 2)
        if order == 2:
            got = gradients(sum(g.square().sum() for g in got if g.requires_grad), tensors)
            small_got = gradients(
                sum(g.square().sum() for g in small_got if g.requires_grad), small
            )
        for whole, part in zip(got, small_got, strict=True):
            torch.testing.assert_close(whole[real[:, 0]], part)
            assert not whole[1].any()
        # The row itself: its value is -inf, and nothing flows from it.
        for g in gradients(genred(*tensors)[1].sum(), tensors):
            assert not g.any()


@case
def test_infinite_exponents_have_the_same_values_with_a_graph(name: str, weighted: bool) -> None:
    if not REDUCTIONS[name].max_shifted:
        return
    inf = math.inf
    x = torch.tensor([[0.0], [-inf], [inf], [math.nan]])
    options = {"formula2": "b"} if weighted else {}
    aliases = ["x = Vi(1)", "y = Vj(1)", "b = Vj(2)"]
    genred = pairfold.torch.Genred("x+y", aliases, name, axis=1, **options)
    for y in (torch.tensor([[1.0], [2.0]]), torch.tensor([[-inf], [2.0], [-inf]])):
        b = torch.ones(len(y), 2)
        with_graph = genred(x.clone().requires_grad_(), y, b)
        torch.testing.assert_close(with_graph.detach(), genred(x, y, b), equal_nan=True)


@case
def test_large_exponents_have_finite_gradients(name: str, weighted: bool) -> None:
    if not REDUCTIONS[name].max_shifted:
        return
    tensors = arguments()
    shift = torch.full((ROWS, 1), 5e3, dtype=torch.float64)
    options = {"formula2": "b*c"} if weighted else {}
    genred = pairfold.torch.Genred(
        "h+Sum(Sin(p*x-y)+x*y)", [*ALIASES, "h = Vi(1)"], name, axis=1, **options
    )
    got = gradients(genred(*tensors, shift).sin().sum(), tensors)
    plain = dense("LogSumExp" if name == "LogSumExpWeight" else name, weighted)

    def moved(out: Tensor) -> Tensor:
        if name.startswith("LogSumExp"):
            return out + 5e3
        return torch.cat([out[:, :1] + 5e3, out[:, 1:]], 1) if "Shift" in name else out

    def wanted() -> Tensor:
        x, y, b, c, p = tensors
        table = ((p * x[:, None] - y).sin() + x[:, None] * y).sum(-1, keepdim=True)
        if name == "LogSumExp" and not weighted:
            return table.logsumexp(1)
        return plain(x, y, b, c, p)

    want = gradients(moved(wanted()).sin().sum(), tensors)
    compare(got, want, rtol=1e-6, atol=1e-9)


# -- out -------------------------------------------------------------------------------------------


@case
def test_out_is_filled_and_keeps_the_graph(name: str, weighted: bool) -> None:
    tensors = arguments()
    row = REDUCTIONS[name]
    options: dict[str, Any] = {"opt_arg": K} if row.top_k else {}
    if weighted:
        options["formula2"] = "b*c"
    genred = pairfold.torch.Genred("Sum(x*y)", ALIASES, name, axis=1, **options)
    want = genred(*tensors)
    wants = want if isinstance(want, tuple) else (want,)
    outs = [torch.empty_like(part) for part in wants]
    out = tuple(outs) if len(outs) > 1 else outs[0]
    assert genred(*tensors, out=out) is out
    compare([t.detach() for t in outs], [t.detach() for t in wants])
    got = gradients(finite(outs[0]).sum(), tensors)
    compare(got, gradients(finite(wants[0]).sum(), tensors))
    wrong = [torch.empty_like(part)[:-1] for part in wants]
    with pytest.raises(ShapeError, match="out"):
        genred(*tensors, out=tuple(wrong) if len(wrong) > 1 else wrong[0])
