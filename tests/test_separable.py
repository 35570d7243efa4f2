"""Sums without pairs: which formulas have them, what they give, and when pairs are gone over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from checks import assert_close, assert_same_bits
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from pairfold import Genred, explain, together
from pairfold.calculus.separable import NotSeparable, separate
from pairfold.core.node import Axis
from pairfold.frontends import separated
from pairfold.frontends.reduction import FormulaReduction
from pairfold.numpy import LazyTensor, Vi, Vj
from pairfold.settings import settings

Array = Any
XYB = ("x = Vi(3)", "y = Vj(3)", "b = Vj(1)")
SEED = ("p = Vi(1)", "a = Vj(1)", "x = Vi(3)", "y = Vj(3)")


def made(formula: str, aliases: Sequence[str], axis: int = 1, **options: Any) -> Genred:
    """A sum."""
    return Genred(formula, list(aliases), options.pop("reduction_op", "Sum"), axis=axis, **options)


def of(genred: Genred) -> FormulaReduction:
    """What a reduction computes."""
    return genred._fold  # pyright: ignore[reportPrivateUsage]


@pytest.fixture
def rows_over_pairs(monkeypatch: Any) -> list[int]:
    """The numbers of rows that are reduced over pairs, of each call of that."""
    found: list[int] = []
    whole = FormulaReduction._over_pairs  # pyright: ignore[reportPrivateUsage]

    def noted(self: Any, library: Any, arrays: Any, binding: Any, ranges: Any) -> Any:
        kinds = {v.variable.kind for v in self.variables}
        if {Axis.I, Axis.J} <= kinds:
            found.append(binding.rows)
        return whole(self, library, arrays, binding, ranges)

    monkeypatch.setattr(FormulaReduction, "_over_pairs", noted)
    return found


def data(seed: int = 0, rows: int = 17, columns: int = 23, dtype: str = "float64") -> Any:
    """x, y, b, p, a of two sizes."""
    rng = np.random.default_rng(seed)
    shapes = (rows, 3), (columns, 3), (columns, 1), (rows, 1), (columns, 1)
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


# -- which formulas --------------------------------------------------------------------------------

RANKS = {
    "SqDist(x,y)*b": (5, 5),
    "SqDist(x,y)": (5, 5),
    "Square((x|y)+1)": (10, 10),
    "((x|y)+1)**3*b": (20, 20),
    "Square(SqDist(x,y))": (15, 15),
    "Square(p-a)*Exp(x+y)": (3, 9),
    "(u|v)*w": (16, 128),
    "(x-y)*b": (2, 4),
    "(x|y)/Exp(x+y)": (3, 9),
    "Concat(x-y,SqDist(x,y))": (6, 9),
    "x+b": (2, 2),
    "x": (1, 1),
    "MatVecMult(q,y)": (3, 3),
    "VecMatMult(x,z)": (3, 6),
    "TensorProd(x,y)": (3, 27),
    "Extract(x*y,1,2)": (1, 2),
    "Cos(p-a)*b": (2, 2),
    "ComplexExp1j(x-y)": (2, 12),
}
REFUSED = {
    "Exp(-SqDist(x,y))*b": "Exp of a product",
    "Exp((x|y))": "Exp of a product",
    "Cos((x|y))": "Cos of a product",
    "Norm2(x-y)": "Sqrt of both",
    "b/(1+SqDist(x,y))": "a quotient by a sum",
    "Abs(x-y)": "Abs of both",
    "((x|y)+1)**7": "more than 64 products",
    "Ind(j)*x": "numbers of rows or columns",
    "(x|y)*m": "arrays of pairs",
    "IfElse(x,y,b)": "IfElse of both",
}
NAMES = [*XYB, "p = Vi(1)", "a = Vj(1)", "u = Vi(16)", "v = Vj(16)", "w = Vj(8)"]
NAMES += ["q = Vi(9)", "z = Vj(6)", "m = Vij(1)"]


@pytest.mark.parametrize("formula", RANKS)
def test_ranks(formula: str) -> None:
    found = separate(of(made(formula, NAMES)).formula, Axis.I, len(NAMES))
    assert (found.rank, found.count) == RANKS[formula], formula


@pytest.mark.parametrize("formula", REFUSED)
def test_refused(formula: str) -> None:
    with pytest.raises(NotSeparable, match=REFUSED[formula]):
        separate(of(made(formula, NAMES)).formula, Axis.I, len(NAMES))


def test_gradients_are_separable_too() -> None:
    for formula in ("SqDist(x,y)*b", "Square(p-a)*Exp(x+y)", "Square((x|y)+1)*b", "(u|v)*w"):
        fold = of(made(formula, NAMES[:8]))
        for position in range(8):
            pulled = fold.pull_back(position)
            found = separate(pulled.formula, pulled.kept, len(pulled.variables))
            assert found.rank <= 40, (formula, position)


def test_differences_are_found() -> None:
    def centred(formula: str) -> list[list[int]]:
        found = separate(of(made(formula, NAMES)).formula, Axis.I, len(NAMES)).centred
        return [[v.variable.position for v in group] for group in found]

    assert centred("SqDist(x,y)*b") == [[0, 1]]
    assert centred("Square(p-a)*SqDist(x,y)") == [[3, 4], [0, 1]]
    assert centred("Square(Elem(x,0)-Elem(y,0))") == [[0, 1]]
    for formula in ("SqDist(x,y)*Sum(x)", "(x|y)*(p-a)*p", "Square(Elem(x,0)-Elem(y,1))", "x+y"):
        assert centred(formula) == [], formula


# -- what they give --------------------------------------------------------------------------------


def seed_formula(p: Array, a: Array, x: Array, y: Array) -> Array:
    """Square(p-a)*Exp(x+y), summed over j, in float64."""
    p, a, x, y = (np.asarray(each, np.float64) for each in (p, a, x, y))
    terms = (p[..., :, None, :] - a[..., None, :, :]) ** 2
    return (terms * np.exp(x[..., :, None, :] + y[..., None, :, :])).sum(-2)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_the_formula_of_the_documentation(dtype: str, rows_over_pairs: list[int]) -> None:
    x, y, _, p, a = data(dtype=dtype)
    with settings(separable="always"):
        got = made("Square(p-a)*Exp(x+y)", SEED)(p, a, x, y)
    assert got.dtype == dtype
    assert rows_over_pairs == []
    rtol = {"float32": 1.2e-7, "float64": 1e-14, "float16": 1e-3}[dtype]
    assert_close(got, seed_formula(p, a, x, y), rtol=rtol, atol=0)


def test_either_axis_batches_and_strides(rows_over_pairs: list[int]) -> None:
    rng = np.random.default_rng(3)
    x = rng.standard_normal((4, 1, 17, 6))[..., ::2]
    y = rng.standard_normal((3, 23, 3))[:, ::-1]
    b = rng.standard_normal((23, 2)).T[1:].T ** 2
    terms = ((x[..., :, None, :] - y[..., None, :, :]) ** 2).sum(-1, keepdims=True) * b
    with settings(separable="always"):
        for axis in (0, 1):
            got = made("SqDist(x,y)*b", XYB, axis)(x, y, b)
            assert_close(got, terms.sum(-2 - (axis == 0)), rtol=1e-13)
        out = np.empty((17, 4, 3, 1)).transpose(1, 2, 0, 3)
        mean = made("SqDist(x,y)*b", XYB, reduction_op="Mean")
        assert mean(x, y, b, out=out) is out
    assert_close(out, terms.mean(-2), rtol=1e-13)
    assert rows_over_pairs == []


def test_results_are_compared_with_those_of_pairs() -> None:
    x, y, b, _, _ = data(2, dtype="float32")
    with settings(separable="always", check=2):
        made("SqDist(x,y)*b", XYB)(x, y, b)


def test_long_scalar_products_stay_one(rows_over_pairs: list[int]) -> None:
    rng = np.random.default_rng(4)
    u, v, w = (rng.standard_normal(shape) for shape in ((17, 16), (3, 23, 16), (23, 8)))
    attention = made("(Exp(u)|Exp(v))*w*w+Elem(w,0)", NAMES[5:8])
    with settings(separable="always"):
        got = attention(u, v, w)
    want = np.exp(u) @ np.exp(v).swapaxes(1, 2) @ (w * w) + w[:, 0].sum()
    assert_close(got, want, rtol=1e-13)
    assert rows_over_pairs == [16, 16]  # those of the table of moments, and of their magnitudes


def test_parameters_and_what_depends_on_one_index(rows_over_pairs: list[int]) -> None:
    x, y, _, _, _ = data()
    s, t = np.array([0.5, 2.0, 1.5]), np.arange(1.0, 13).reshape(2, 2, 3)
    aliases = ["s = Pm(3)", *XYB[:2]]
    weighted = made("WeightedSqDist(s,x,y)", aliases)
    squares = (x[:, None, :] - y[None, :, :]) ** 2
    with settings(separable="always"):
        assert_close(weighted(s, x, y), (squares * s).sum(-1).sum(1)[:, None], rtol=1e-13)
        many = (squares * t[:, :, None, None, :]).sum(-1).sum(-1)[..., None]
        assert_close(weighted(t, x, y), many, rtol=1e-13)
        only = made("Exp(y)+0*s", aliases)(s, x, y)
        assert_close(only, np.broadcast_to(np.exp(y).sum(0), (17, 3)), rtol=1e-13)
        assert_close(made("Square(x)", aliases)(s, x, y), 23 * x**2, rtol=1e-13)
        got = made("Square(s-y)", ["s = Pm(3)", "y = Vj(3)"], reduction_op="Mean")(s, y)
        assert_close(got, ((s - y) ** 2).mean(0)[None], rtol=1e-13)
    assert rows_over_pairs == []


def test_waves(rows_over_pairs: list[int]) -> None:
    x, y, _, p, a = data(19)
    waves = np.exp(1j * (x[:, None, :] - y[None, :, :])).sum(1)
    with settings(separable="always"):
        got = made("ComplexExp1j(x-y)", XYB[:2])(x, y)
        assert_close(got[:, ::2], waves.real, atol=1e-13, rtol=0)
        assert_close(got[:, 1::2], waves.imag, atol=1e-13, rtol=0)
        got = made("Sin(p-a)*Cos(p+a)", SEED[:2])(p, a)
    assert_close(got, (np.sin(p - a.T) * np.cos(p + a.T)).sum(1)[:, None], atol=1e-13, rtol=0)
    assert rows_over_pairs == []


factors = st.sampled_from(["p", "a", "(x|y)", "SqDist(x,y)", "Exp(p-a)", "Sum(x)", "b", "(p-a)"])


@examples(max_examples=8, deadline=None, derandomize=True, database=None)
@given(st.lists(st.tuples(factors, st.sampled_from("+-*"), factors), min_size=2, max_size=2))
def test_random_formulas(parts: list[tuple[str, str, str]]) -> None:
    formula = "*".join(f"({one}{sign}{other})" for one, sign, other in parts)
    x, y, b, p, a = data(11)
    i = {"p": p, "Sum(x)": x.sum(1, keepdims=True)}
    j = {"a": a, "b": b}
    known = {name: np.broadcast_to(each, (17, 23)) for name, each in i.items()}
    known |= {name: np.broadcast_to(each.T, (17, 23)) for name, each in j.items()}
    known["(p-a)"], known["(x|y)"] = p - a.T, x @ y.T
    known["Exp(p-a)"], known["SqDist(x,y)"] = np.exp(p - a.T), ((x[:, None] - y) ** 2).sum(-1)
    do = {"+": np.add, "-": np.subtract, "*": np.multiply}
    terms = np.prod([do[sign](known[m], known[n]) for m, sign, n in parts], axis=0)
    genred = made(formula, [*XYB, "p = Vi(1)", "a = Vj(1)"])
    assert of(genred).formula.kinds or formula
    with settings(separable="always", backend="reference"):
        got = genred(x, y, b, p, a)
    assert_close(got, terms.sum(1)[:, None], atol=1e-11 * np.abs(terms).sum(1).max())


# -- digits ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("formula", ["SqDist(x,y)*b", "Square(SqDist(x,y))*b"])
def test_shifted_data_keep_their_digits(formula: str, rows_over_pairs: list[int]) -> None:
    x, y, b, _, _ = data(5, dtype="float32")
    x, y, b = x + np.float32(1e4), y + np.float32(1e4), np.abs(b)
    genred = made(formula, XYB)
    squares = ((x[:, None, :].astype(np.float64) - y) ** 2).sum(-1)
    want = (squares ** (2 if "Square" in formula else 1) * b.T.astype(np.float64)).sum(1)[:, None]
    errors = []
    for separable in ("always", "never"):
        with settings(separable=separable):
            errors.append(np.max(np.abs(genred(x, y, b) - want) / want))
    assert rows_over_pairs == [17]  # of "never"
    assert errors[0] < 1e-7, errors


def test_what_is_not_centred_goes_over_pairs(rows_over_pairs: list[int]) -> None:
    # x is also alone, so that no centre may be taken off.
    x, y, b, _, _ = data(6, dtype="float32")
    x, y, b = x + np.float32(1e6), y + np.float32(1e6), np.abs(b)
    genred = made("Square(SqDist(x,y))*b+0.001*Elem(x,0)", XYB)
    got: list[Array] = []
    for separable in ("always", "never"):
        with settings(separable=separable):
            got.append(genred(x, y, b))
    assert rows_over_pairs == [17, 17]
    assert_same_bits(got[0], got[1])


def test_rows_that_cancel_go_over_pairs_alone(rows_over_pairs: list[int]) -> None:
    # Row 4 sums what cancels but for one part in 10^9 of it; the others nothing that cancels.
    rng = np.random.default_rng(7)
    y = np.abs(rng.standard_normal((23, 1)))
    y[0] = 40.0
    x = np.linspace(2.0, 3.0, 17)[:, None] * y.mean()
    x[4] = y.mean() * (1 + 1e-9)
    genred = made("x-y", ["x = Vi(1)", "y = Vj(1)"])
    with settings(separable="always"):
        got = genred(x, y)
    assert rows_over_pairs == [1]
    want = (x - y.T).sum(1)[:, None]
    assert_close(got, want, rtol=1e-13, atol=1e-13)


def test_moments_that_cancel_are_noticed(rows_over_pairs: list[int]) -> None:
    p, a = np.linspace(1.0, 2.0, 17)[:, None], np.array([[1e10], [-1e10], [1.0]])
    with settings(separable="always"):
        got = made("p*a", SEED[:2])(p, a)
    assert rows_over_pairs == [17]
    assert_close(got, p, rtol=1e-5)


def test_products_that_cancel_are_noticed(rows_over_pairs: list[int]) -> None:
    # The sum of 2 b^2; but of the squares of rows 3 and 4, pairs keep no digits or no number.
    _, _, b, p, a = data(17)
    p[3:5, 0] = np.inf, 1e12
    genred = made("(p+a)*(p-a)+Square(a)-Square(p)+2*Square(b)", [*SEED[:2], "b = Vj(1)"])
    with settings(separable="always"):
        got = genred(p, a, b)
    assert rows_over_pairs == [2]
    assert np.isnan(got[3])
    assert_close(np.delete(got, [3, 4], 0), np.full((15, 1), 2 * (b * b).sum()), rtol=1e-13)


def test_rows_and_columns_in_parts(monkeypatch: Any, rows_over_pairs: list[int]) -> None:
    monkeypatch.setattr(separated, "_AT_ONCE", 10)
    monkeypatch.setattr(separated, "_LEAST", 1)
    x, y, b, _, _ = data(20)
    x, b = np.stack([x, 2 * x]), np.abs(b)
    x[:, 3] = y.T @ b[:, 0] / b.sum()  # the sum of (x - y) b is 0 there, in one batch element
    x[1, 3], x[1, 11] = 7, x[0, 3]
    genred = made("Concat((x-y)*b,SqDist(x,y)*b)", XYB)
    with settings(separable="always"):
        got = genred(x, y, b)
    differences = x[:, :, None] - y
    both = np.concatenate([differences, (differences**2).sum(-1, keepdims=True)], -1)
    assert_close(got, (both * b).sum(2), rtol=1e-13)
    assert rows_over_pairs == [2]


def test_zeros_need_no_pairs(rows_over_pairs: list[int]) -> None:
    for dtype in ("float32", "float64"):
        x, y, b, _, _ = data(8, dtype=dtype)
        x[3] = 0
        with settings(separable="always"):
            assert made("(x|y)*b*b", XYB)(x, y, b)[3] == 0
            assert not made("(x|y)*b*b", XYB)(x, y, 0 * b).any()
    assert rows_over_pairs == []


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("where", ["row", "column", "weight"])
@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_what_is_not_finite(dtype: str, where: str, value: float) -> None:
    x, y, b, _, _ = data(9, dtype=dtype)
    array = {"row": x, "column": y, "weight": b}[where]
    array[5] = value
    genred = made("SqDist(x,y)*b", XYB)
    got: list[Array] = []
    for separable in ("always", "never"):
        with settings(separable=separable):
            got.append(genred(x, y, b))
    assert_close(got[0], got[1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_exponentials_far_from_zero(dtype: str) -> None:
    # Of p + a, neither e^p nor e^a has to be a number, and sums may leave the dtype's range.
    genred = made("Exp(p+a)", SEED[:2])
    rng = np.random.default_rng(10)
    for shift, other in ((60, -60), (700, -700), (-745, 745), (-400, 390), (50, 50), (-90, -90)):
        p = (rng.standard_normal((17, 1)) + shift).astype(dtype)
        a = (rng.standard_normal((23, 1)) + other).astype(dtype)
        with np.errstate(over="ignore", under="ignore"):
            want = np.exp(p.astype("f8") + a.T.astype("f8")).sum(1)[:, None].astype(dtype)
        with settings(separable="always"):
            got = genred(p, a)
        # float32 exponents of 700 are rounded to 2^-15 when they are added.
        rtol = (700 if abs(shift) > 100 else 2) * 2.0 ** (-24 if dtype == "float32" else -52)
        assert_close(got, want, rtol=8 * rtol, atol=1e-44)


# -- when ------------------------------------------------------------------------------------------


def test_pairs_where_nothing_is_gained_or_allowed(rows_over_pairs: list[int]) -> None:
    _, _, _, p, a = data(16, 3000, 4000, "float32")
    genred = made("Square(p-a)*Exp(p+a)", SEED[:2])
    assert "over pairs" not in genred.explain(p, a).separable
    assert "rank 3, 3 moments" in str(genred.explain(p, a))
    assert "since they cost less" in genred.explain(p[:17], a).separable
    genred(p, a)
    assert rows_over_pairs == []
    genred(p[:17], a)
    assert rows_over_pairs == [17]
    for options in ({"separable": "never"}, {"rules": "exact"}):
        with settings(**options):
            assert next(iter(options)) in genred.explain(p, a).separable
            genred(p, a)
    assert rows_over_pairs == [17, 3000, 3000]


def test_pairs_of_ranges_masks_and_other_reductions(rows_over_pairs: list[int]) -> None:
    x, y, _, _, _ = data()
    one, other = np.array([[0, 17]]), np.array([[0, 23]])
    whole = (one, np.array([1]), other, other, np.array([1]), one)
    squares = ((x[:, None, :] - y) ** 2).sum(-1)
    with settings(separable="always"):
        genred = made("SqDist(x,y)", XYB[:2])
        assert_close(genred(x, y, ranges=whole), squares.sum(1)[:, None], rtol=1e-13)
        assert "some pairs" in genred.explain(x, y, ranges=whole).separable
        masked = made("SqDist(x,y)", XYB[:2], where="SqDist(x,y)<=4")
        want = np.where(squares <= 4, squares, 0).sum(1)[:, None]
        assert_close(masked(x, y), want, rtol=1e-13)
        least = made("SqDist(x,y)", XYB[:2], reduction_op="Min")
        assert_close(least(x, y), squares.min(1)[:, None], rtol=1e-13)
        assert least.explain(x, y).separable == ""
        assert made("Exp(-SqDist(x,y))", XYB[:2]).explain(x, y).separable.startswith("no: Exp of")
    assert rows_over_pairs == [17, 17, 17]


def test_sizes_without_pairs() -> None:
    genred = made("SqDist(x,y)", XYB[:2])
    with settings(separable="always"):
        for rows, columns in ((0, 5), (5, 0), (1, 5), (5, 1), (0, 0)):
            x, y = np.ones((rows, 3)), np.zeros((columns, 3))
            assert_close(genred(x, y), np.full((rows, 1), 3.0 * columns))


def test_lazy_tensors_and_several_reductions() -> None:
    x, y, b, _, _ = data()
    with settings(separable="always"):
        products = (Vi(x) * Vj(y)).sum(-1) + 1
        assert isinstance(products, LazyTensor)
        assert_close((products**2) @ b, (x @ y.T + 1) ** 2 @ b, rtol=1e-12, atol=1e-12)
        total, least = together(products.sum(1, call=False), products.min(1, call=False))
    assert_close(total, (x @ y.T + 1).sum(1)[:, None], rtol=1e-12, atol=1e-12)
    assert_close(least, (x @ y.T + 1).min(1)[:, None], rtol=1e-13)
    assert explain(products).separable.startswith("rank 4")


# -- derivatives -----------------------------------------------------------------------------------


def test_derivatives_go_without_pairs(rows_over_pairs: list[int]) -> None:
    torch = pytest.importorskip("torch")
    x, y, _, p, a = data(12)
    given = [torch.tensor(each, requires_grad=True) for each in (p, a, x, y)]

    def dense(p: Any, a: Any, x: Any, y: Any) -> Any:
        return ((p[:, None] - a[None]) ** 2 * torch.exp(x[:, None] + y[None])).sum(1)

    ours = made("Square(p-a)*Exp(x+y)", SEED)
    sent = torch.tensor(np.random.default_rng(13).standard_normal((17, 3)))
    with settings(separable="always", backend="reference"):
        found = torch.autograd.grad(ours(*given), given, sent, create_graph=True)
        twice = torch.autograd.grad(sum((g * g).sum() for g in found), given)
    wanted = torch.autograd.grad(dense(*given), given, sent, create_graph=True)
    again = torch.autograd.grad(sum((g * g).sum() for g in wanted), given)
    for got, want in zip((*found, *twice), (*wanted, *again), strict=True):
        assert_close(got.detach().numpy(), want.detach().numpy(), rtol=1e-10, atol=1e-9)
    assert rows_over_pairs == []


def test_gradients_from_one_pass_are_separated(rows_over_pairs: list[int]) -> None:
    torch = pytest.importorskip("torch")
    x, y, b, _, _ = data(14)
    given = [torch.tensor(each, requires_grad=True) for each in (x, y, b * b)]
    with settings(separable="always"):
        made("SqDist(x,y)*b", XYB)(*given).sum().backward()
    x, y, b = (each.detach().numpy() for each in given)
    squares = ((x[:, None, :] - y) ** 2).sum(-1)
    wanted = [
        2 * (x * b.sum() - (y * b).sum(0)),
        -2 * b * (x.sum(0) - 17 * y),
        squares.sum(0)[:, None],
    ]
    for tensor, want in zip(given, wanted, strict=True):
        assert_close(tensor.grad.numpy(), want, rtol=1e-11, atol=1e-11)
    assert rows_over_pairs == []


def test_forward_mode_and_transforms() -> None:
    torch = pytest.importorskip("torch")
    x, y, b, _, _ = (torch.tensor(each) for each in data(15))
    ours = made("SqDist(x,y)*b", XYB)

    def dense(x: Any, y: Any, b: Any) -> Any:
        return ((x[..., :, None, :] - y) ** 2).sum(-1) @ b

    with settings(separable="always", backend="reference"):
        along = torch.func.jvp(lambda x: ours(x, y, b), (x,), (x + 1,))[1]
        many = torch.func.vmap(lambda x: ours(x, y, b))(torch.stack([x, 2 * x]))
    want = torch.func.jvp(lambda x: dense(x, y, b), (x,), (x + 1,))[1]
    assert_close(along.numpy(), want.numpy(), rtol=1e-11, atol=1e-11)
    want = dense(torch.stack([x, 2 * x]), y, b)
    assert_close(many.numpy(), want.numpy(), rtol=1e-11, atol=1e-11)


# -- GPUs ------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("on_gpu")
def test_as_programs_for_gpus(rows_over_pairs: list[int]) -> None:
    torch = pytest.importorskip("torch")
    from pairfold.arrays.torch import DeviceTensors

    x, y, _, p, a = data(18, dtype="float32")
    p[4] = np.nan
    given = [torch.tensor(each) for each in (p, a, x, y)]
    with settings(separable="always"):
        got = of(made("Square(p-a)*Exp(x+y)", SEED))(DeviceTensors, given)
    assert_close(got.numpy(), seed_formula(p, a, x, y), rtol=1e-6)
    assert rows_over_pairs == [1]
