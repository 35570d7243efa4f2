"""Shapes that calls take: variables of dimension 1 without their last axis, plain numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from checks import assert_close

from pairfold import Genred, KernelSolve, LazyTensor, Pm, Vi, Vj
from pairfold.dropin import numpy as dropin
from pairfold.errors import ArrayTypeError, DTypeError, PairfoldError, ShapeError

RNG = np.random.default_rng(4)
M, N, B = 5, 7, 3
GAUSS = "s*Exp(-SqDist(x,y))*b*a"
ALIASES = ["x = Vi(2)", "y = Vj(2)", "s = Pm(1)", "b = Vj(1)", "a = Vi(1)"]


def data(*batch: int) -> list[Any]:
    """x, y, s, b, a, each complete."""
    shapes = [(M, 2), (N, 2), (1,), (N, 1), (M, 1)]
    return [RNG.uniform(0.5, 1.5, (*batch, *shape)) for shape in shapes]


def dense(x: Any, y: Any, s: Any, b: Any, a: Any) -> Any:
    """The formula on all pairs: (..., M, N)."""
    squared = ((x[..., :, None, :] - y[..., None, :, :]) ** 2).sum(-1)
    return s[..., None] * np.exp(-squared) * b[..., None, :, 0] * a


def libraries(arrays: list[Any], library: str) -> list[Any]:
    if library == "numpy":
        return arrays
    torch = pytest.importorskip("torch")
    return [torch.tensor(array) for array in arrays]


def assert_complex(got: Any, want: Any) -> None:
    got, want = np.asarray(got), np.asarray(want)
    assert got.dtype.kind == "c"
    assert_close(got.real, want.real, terms=N)
    assert_close(got.imag, want.imag, terms=N)


both = pytest.mark.parametrize("library", ["numpy", "torch"])


@both
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("batch", [(), (B,), (2, B)])
def test_variables_of_dimension_1_need_no_last_axis(
    batch: tuple[int, ...], axis: int, library: str
) -> None:
    arrays = data(*batch)
    want = dense(*arrays).sum(-1 if axis == 1 else -2)[..., None]
    x, y, *rest = libraries(arrays, library)
    sums = Genred(GAUSS, ALIASES, axis=axis)
    for lacking in range(1, 8):
        given = [v[..., 0] if lacking >> k & 1 else v for k, v in enumerate(rest)]
        assert_close(sums(x, y, *given), want, terms=N)


@both
def test_the_readings_of_one_call(library: str) -> None:
    x, y, s, b, _ = data(B)
    sums = Genred("s*Exp(-SqDist(x,y))*b", ALIASES[:4], axis=1)
    one = (M, 1)

    def check(want: Any, *given: Any) -> None:
        assert_close(sums(*libraries(list(given), library)), want.sum(-1)[..., None], terms=N)

    ones = np.ones(one)
    # Batches of a variable alone, as many rows as another has; broadcast against those of others.
    check(dense(x[0], y[0], s[0], b, ones), x[0], y[0], s[0], b[..., 0])
    check(dense(x[0], y[0], s, b, ones), x[0], y[0], s[:, 0], b)
    check(dense(x, y, s[0], b, ones), x, y, np.array(s[0, 0]), b[..., 0])
    check(dense(x, y, s, b[0], ones), x, y, s[:, 0], b[0, :, 0])
    # One row each, and a batch: (B, 1) can only be without its last axis.
    check(dense(x, y[:, :1], s, b[:, :1], ones), x, y[:, :1], s, b[:, :1, 0])
    # Batches (2, B): (2, 1) is a parameter for each of the first axis.
    x, y, s, b, _ = data(2, B)
    check(dense(x, y, s[:, :1], b, ones), x, y, s[:, :1, 0], b)
    check(dense(x[:1, :1], y[:1, :1], s[:, :1], b, ones), x[:1, :1], y[:1, :1], s[:, :1, 0], b)
    # A complete array is what it is, even where another reading exists.
    check(dense(x, y, s[0], b, ones), x, y, s[0], b)


@pytest.mark.parametrize("rows", [(1, 1), (1, 7), (5, 1)])
def test_one_row_is_no_exception(rows: tuple[int, int]) -> None:
    x, y, s, b, a = (v[: rows[k]] for v, k in zip(data(), [0, 1, 0, 1, 0], strict=True))
    want = dense(x, y, s, b, a).sum(-1)[:, None]
    sums = Genred(GAUSS, ALIASES, axis=1)
    for given in ((s[0], b[:, 0], a[:, 0]), (s, b[:, 0], a), (s[0], b, a[:, 0])):
        assert_close(sums(x, y, *given), want, terms=N)


def test_what_only_looks_like_it_is_refused_as_before() -> None:
    x, y, s, b, _ = data()
    sums = Genred("s*Exp(-SqDist(x,y))*b", ALIASES[:4], axis=1)
    with pytest.raises(ShapeError, match=r"argument 3 \(b\) has 6 \(shape \(6,\)\)"):
        sums(x, y, s, b[:-1, 0])
    with pytest.raises(ShapeError, match=r"argument 3 \(b\) must have shape \(..., N, 1\)"):
        sums(x, y, s, np.ones((N, 3)))  # three weights per column: not seven batches of three
    with pytest.raises(ShapeError, match="argument 3"):
        sums(x, y[:1], s, np.ones((4, 1)))  # four rows beside one, without any batch
    with pytest.raises(ShapeError, match="argument 2"):
        sums(x, y, np.ones(3), b)  # three components: not three batch elements
    with pytest.raises(ShapeError, match='"a = Vi\\(2\\)"'):
        Genred("a*b", ["a = Vi(1)", "b = Vj(1)"])(np.ones((4, 2)), b)
    with pytest.raises(ShapeError, match=r"argument 0 \(x\) must have shape \(..., M, 2\)"):
        sums(x[:, 0], y, s, b)
    with pytest.raises(ShapeError, match="argument 3"):
        sums(x, y, s, np.array(1.0))
    with pytest.raises(ShapeError, match="out must have shape"):
        sums(x, y, s, b[:, 0], out=np.empty(M))


@pytest.mark.parametrize("axis", [0, 1])
def test_every_reduction_takes_them(axis: int) -> None:
    from pairfold.ops.reductions import REDUCTIONS

    a, b = RNG.normal(size=M), RNG.normal(size=N)
    rows = [row for row in REDUCTIONS.values() if not row.internal]
    assert len(rows) > 15
    for row in rows:
        options: dict[str, Any] = {"axis": axis}
        if row.top_k:
            options["opt_arg"] = 2
        if row.weighted == "must":
            options["formula2"] = "b"
        fold = Genred("Square(a-b)", ["a = Vi(1)", "b = Vj(1)"], row.name, **options)
        got, want = fold(a, b), fold(a[:, None], b[:, None])
        for one, other in zip(*[x if isinstance(x, tuple) else (x,) for x in (got, want)]):
            assert one.dtype == other.dtype
            assert_close(one, other, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_other_dtypes_and_results_to_fill(dtype: str) -> None:
    a, b = RNG.normal(size=M).astype(dtype), RNG.normal(size=N).astype(dtype)
    fold = Genred("a*b", ["a = Vi(1)", "b = Vj(1)"], axis=1)
    out = np.empty((M, 1), dtype)
    assert fold(a, b, out=out) is out
    assert out.tolist() == fold(a[:, None], b[:, None]).tolist()
    ends = Genred("a*b", ["a = Vi(1)", "b = Vj(1)"], "LogSumExp", axis=1)
    raw = np.empty((M, 2), dtype)  # PyKeOps' layout
    inside = dropin.Genred("a*b", ["a = Vi(1)", "b = Vj(1)"], "LogSumExp", axis=1)
    assert inside(a, b, out=raw).shape == (M, 1)
    assert ends.explain(a, b).rows == M


def test_gradients_have_the_shape_of_the_argument() -> None:
    torch = pytest.importorskip("torch")
    arrays = [torch.tensor(v) for v in data(B)]
    x, y, s, b, a = arrays
    given = [x, y, s[:, 0], b[..., 0], a[..., 0]]
    given = [v.detach().clone().requires_grad_() for v in given]
    sums = Genred(GAUSS, ALIASES, axis=1)
    assert torch.autograd.gradcheck(sums, given)
    assert torch.autograd.gradcheck(
        lambda *v: sums(x[0], y[0], *v),
        [
            torch.tensor(1.3, dtype=torch.float64, requires_grad=True),
            torch.rand(N, dtype=torch.float64, requires_grad=True),
            torch.rand(M, dtype=torch.float64, requires_grad=True),
        ],
    )
    # In the transforms of torch.func, where shapes are those of one batch element.
    mapped = torch.func.vmap(sums)(x, y, s[:, 0], b[..., 0], a[..., 0])
    assert_close(mapped, sums(*arrays), rtol=0, atol=0)
    slope = torch.func.grad(lambda v: sums(x[0], y[0], v, b[0, :, 0], a[0]).sum())
    assert_close(slope(s[0, 0]), sums(*arrays)[0].sum() / s[0, 0])
    one = torch.func.jvp(lambda v: sums(x[0], y[0], 1.0, v, a[0]), (b[0, :, 0],), (b[0, :, 0],))
    assert_close(one[1], one[0])


@both
def test_systems_take_right_hand_sides_of_one_axis(library: str) -> None:
    x = RNG.uniform(-1, 1, (M, 2))
    b = RNG.normal(size=M)
    solve = KernelSolve(
        "Exp(-g*SqDist(x,y))*b", ["x=Vi(2)", "y=Vj(2)", "b=Vj(1)", "g=Pm(1)"], "b", axis=1
    )
    matrix = np.exp(-2 * ((x[:, None] - x) ** 2).sum(-1)) + 0.5 * np.eye(M)
    x_, b_ = libraries([x, b], library)
    found = solve(x_, x_, b_, 2.0, alpha=0.5, eps=1e-10)
    assert_close(found, np.linalg.solve(matrix, b)[:, None], rtol=1e-8)


# -- numbers ---------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("number", [2.0, 2, np.float32(2), np.float64(2), np.int64(2)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_parameters_of_dimension_1_may_be_numbers(number: Any, dtype: str, library: str) -> None:
    x, y = libraries([v.astype(dtype) for v in data()[:2]], library)
    for aliases, order in (("x y s", [0, 1, 2]), ("s x y", [2, 0, 1])):
        kinds = {"x": "x = Vi(2)", "y": "y = Vj(2)", "s": "s = Pm(1)"}
        sums = Genred("s*SqDist(x,y)", [kinds[name] for name in aliases.split()], axis=1)
        got = sums(*[[x, y, number][k] for k in order])
        assert str(got.dtype).removeprefix("torch.") == dtype
        assert_close(
            got, 2 * ((np.asarray(x)[:, None] - np.asarray(y)) ** 2).sum(-1).sum(1)[:, None]
        )


def test_numbers_are_taken_nowhere_else() -> None:
    x, y, s, b, _ = data()
    sums = Genred("s*Exp(-SqDist(x,y))*b", ALIASES[:4], axis=1)
    for bad in (True, "1", None, [1.0], 1j):
        with pytest.raises(ArrayTypeError, match="argument 2"):
            sums(x, y, bad, b)
    with pytest.raises(ArrayTypeError, match="argument 3"):
        sums(x, y, s, 2.0)
    with pytest.raises(ArrayTypeError, match="argument 0"):
        Genred("s", ["s = Pm(1)"])(2.0)
    with pytest.raises(ArrayTypeError, match="argument 0"):
        Genred("Sum(s)*x", ["s = Pm(2)", "x = Vi(1)"])(2.0, x[:, :1])
    with pytest.raises(DTypeError, match="argument 2"):
        sums(x, y, np.array([1.0], "float32"), b)


@both
def test_symbols_take_numbers_and_arrays_without_their_last_axis(library: str) -> None:
    x, y, _, b, _ = data()
    x_, y_, b_ = libraries([x, y, b[:, 0]], library)
    kernel = (-Pm(0, 1) * Vi(x_).sqdist(Vj(y_))).exp()
    want = np.exp(-2 * ((x[:, None] - y) ** 2).sum(-1))
    for number in (2, 2.0, np.float32(2), np.float64(2), b_.sum() * 0 + 2):
        assert_close(kernel.sum(axis=1)(number), want.sum(1)[:, None])
    weights = np.stack([b[:, 0], b[:, 0] ** 2])
    (weights_,) = libraries([weights], library)
    means = kernel.log().sumsoftmaxweight(Vj(1, 1), axis=1)
    soft = want / want.sum(1, keepdims=True)
    assert_close(means(2.0, b_), (soft @ b[:, 0])[:, None])
    assert_close(means(2.0, weights_), np.einsum("mn,pn->pm", soft, weights)[..., None])
    with pytest.raises(PairfoldError, match="numbers alone"):
        (Pm(0, 1) * 2.5).sum(axis=1)(2.0)


@both
def test_symbols_of_complex_numbers_take_numbers(library: str) -> None:
    x = RNG.normal(size=(M, 1)) + 1j * RNG.normal(size=(M, 1))
    (x_,) = libraries([x], library)
    for number in (2.0, 1 - 2j, np.complex128(1 - 2j)):
        symbol = LazyTensor((0, 1, 2), is_complex=True)
        assert_complex((Vi(x_) * symbol).sum(axis=0)(number), number * x.sum(0)[None])


@both
def test_lists_of_arrays_of_one_number_are_lists_of_numbers(library: str) -> None:
    x, y = (v.astype("float32") for v in data()[:2])
    x_, y_, one, none, single = libraries(
        [x, y, np.array([3.14]), np.array(2.0), np.array([[7]])], library
    )
    for values in ([one, none], [one, 2.0], [3.14, none], [np.float32(3.14), np.int64(2)]):
        found = (Vi(x_) * Pm(values) - Vj(y_)).sum(axis=1)
        assert str(found.dtype).endswith("float32")
        assert_close(found, (x[:, None] * np.array([3.14, 2], "float32") - y).sum(1), terms=N)
    assert_close((Vi(x_[:, :1]) * Pm([single])).sum(axis=0), 7 * x[:, :1].sum(0)[None])
    z = Vi(x_) * Pm([one * 1j, 1 + 1j])
    assert_complex(z.sum(axis=0), (x * np.array([3.14j, 1 + 1j], "complex64")).sum(0)[None])
    for bad, match in (
        ([], "empty"),
        ([x_[0]], "element 0"),
        ([1.0, "2"], "element 1"),
        ([1.0, None], "element 1"),
        ([True], "element 0"),
        ([one > 0], "element 0"),
    ):
        with pytest.raises(ArrayTypeError, match=match):
            Pm(bad)


def test_gradients_reach_tensors_in_lists() -> None:
    torch = pytest.importorskip("torch")
    x = torch.rand(M, 2, dtype=torch.float64)
    s = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    (Vi(x) * Pm([s, 1.0])).sum(axis=0).sum().backward()
    assert_close(s.grad, x[:, 0].sum())


@both
def test_the_device_of_no_number_is_that_of_the_arrays(library: str) -> None:
    x, y = libraries(data()[:2], library)
    sums = Genred("SqDist(x,y)", ALIASES[:2], axis=1)
    want = sums(x, y)
    assert_close(sums(x, y, device_id=None), want)
    assert_close(sums(x, y, backend="CPU", device_id=None), want)
    assert_close(Vi(x).sqdist(Vj(y)).sum(axis=1, device_id=None), want)
