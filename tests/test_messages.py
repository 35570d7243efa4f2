"""Messages as their readers need them: the advice in them works when it is followed."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checks import assert_close

import pairfold
import pairfold.numpy
from pairfold import Genred, KernelSolve, LazyTensor, Pm, Vi, Vj
from pairfold.errors import (
    ArgumentError,
    ArrayTypeError,
    DimError,
    DTypeError,
    FormulaError,
    InternalError,
    OptionError,
    PairfoldError,
    ShapeError,
    UnknownNameError,
)

RNG = np.random.default_rng(3)
X, Y, B = RNG.integers(0, 9, (5, 3)) / 8.0, RNG.integers(0, 9, (7, 3)) / 8.0, np.ones((7, 1))
ALIASES = ["x = Vi(3)", "y = Vj(3)", "b = Vj(1)"]
GAUSS = "Exp(-SqDist(x,y))*b"
WANT = np.exp(-((X[:, None] - Y) ** 2).sum(-1)).sum(1)[:, None]


def gauss(*args: Any, **options: Any) -> Any:
    return Genred(GAUSS, ALIASES, axis=1)(*args, **options)


# Each: a call that fails, its error, what its advice begins with, and the call as advised.
Case = tuple[Callable[[], Any], type[PairfoldError], str, Callable[[], Any]]


def _arrays() -> dict[str, Case]:
    masked = np.ma.masked_array(X, np.zeros(X.shape, bool))
    big, long = X.astype(">f8"), X.astype(np.longdouble)
    whole, f32 = (8 * X).astype("int64"), [v.astype("float32") for v in (X, Y, B)]
    huge = whole + 2**25

    class Frame:
        """As data frames are: an array on request, but none."""

        def to_numpy(self, dtype: Any = None) -> Any:
            return X.astype(dtype)

        def __array__(self, *args: Any, **options: Any) -> Any:
            raise NotImplementedError

    g = gauss
    return {
        "list": (
            lambda: g(X.tolist(), Y, B),
            ArrayTypeError,
            "numpy.array(x, 'float64')",
            lambda: g(np.array(X.tolist(), "float64"), Y, B),
        ),
        "list, float32": (
            lambda: g(f32[0], f32[1].tolist(), f32[2]),
            ArrayTypeError,
            "numpy.array(y, 'float32')",
            lambda: g(f32[0], np.array(f32[1].tolist(), "float32"), f32[2]),
        ),
        "masked": (
            lambda: g(masked, Y, B),
            ArrayTypeError,
            "x.filled(0)",
            lambda: g(masked.filled(0), Y, B),
        ),
        "frame": (
            lambda: g(Frame(), Y, B),
            ArrayTypeError,
            "x.to_numpy('float64')",
            lambda: g(Frame().to_numpy("float64"), Y, B),
        ),
        "memory": (
            lambda: g(X, memoryview(Y), B),
            ArrayTypeError,
            "numpy.asarray(y)",
            lambda: g(X, np.asarray(memoryview(Y)), B),
        ),
        "byte order": (
            lambda: g(big, Y, B),
            DTypeError,
            "x.astype('float64')",
            lambda: g(big.astype("float64"), Y, B),
        ),
        "byte order, float32": (
            lambda: g(big, *f32[1:]),
            DTypeError,
            "x.astype('float32')",
            lambda: g(big.astype("float32"), *f32[1:]),
        ),
        "long double": (
            lambda: g(long, Y, B),
            DTypeError,
            "x.astype('float64')",
            lambda: g(long.astype("float64"), Y, B),
        ),
        "integers": (
            lambda: g(whole, Y, B),
            DTypeError,
            "x.astype('float64')",
            lambda: g(whole.astype("float64") / 8, Y, B),
        ),
        "integers, float32": (
            lambda: g(whole, f32[1], f32[2]),
            DTypeError,
            "x.astype('float32')",
            lambda: g(whole.astype("float32") / 8, f32[1], f32[2]),
        ),
        "large integers, float32": (
            lambda: g(huge, f32[1], f32[2]),
            DTypeError,
            "x.astype('float64'), and all other arrays too: float32 would round x",
            lambda: g(
                (huge.astype("float64") - 2**25) / 8, *[v.astype("float64") for v in f32[1:]]
            ),
        ),
        "objects": (
            lambda: g(X.astype(object), Y, B),
            DTypeError,
            "x.astype('float64'), if",
            lambda: g(X.astype(object).astype("float64"), Y, B),
        ),
        "words": (
            lambda: g(X.astype(str), Y, B),
            DTypeError,
            "x.astype('float64'), if",
            lambda: g(X.astype(str).astype("float64"), Y, B),
        ),
        "two dtypes": (
            lambda: g(X, Y.astype("float32"), B),
            DTypeError,
            "y.astype('float64')",
            lambda: g(X, Y.astype("float32").astype("float64"), B),
        ),
        "two dtypes, the first": (
            lambda: g(X, *f32[1:]),
            DTypeError,
            "x.astype('float32')",
            lambda: g(X.astype("float32"), *f32[1:]),
        ),
        "transposed": (lambda: g(X.T, Y, B), ShapeError, "x.T", lambda: g(X.T.T, Y, B)),
        "transposed batches": (
            lambda: g(X[None].swapaxes(1, 2), Y, B),
            ShapeError,
            "x.swapaxes(-1, -2)",
            lambda: g(X[None].swapaxes(1, 2).swapaxes(-1, -2), Y, B)[0],
        ),
        "flat": (
            lambda: g(X.ravel(), Y, B),
            ShapeError,
            "x.reshape(-1, 3)",
            lambda: g(X.ravel().reshape(-1, 3), Y, B),
        ),
        "one row": (
            lambda: g(X[0], Y, B),
            ShapeError,
            "x[None, :]",
            lambda: np.concatenate([g(row[None, :], Y, B) for row in X]),
        ),
        "declared too narrow": (
            lambda: Genred("Exp(-SqDist(x,y))*b", ["x = Vi(2)", "y = Vj(2)", ALIASES[2]])(X, Y, B),
            ShapeError,
            'the alias "x = Vi(3)"',
            lambda: g(X, Y, B),
        ),
        "the other index": (
            lambda: Genred("Exp(-SqDist(x,y))*a", [*ALIASES[:2], "a = Vj(1)"], axis=1)(X, Y, B[:5]),
            ShapeError,
            'the alias "a = Vi(1)"',
            lambda: Genred("Exp(-SqDist(x,y))*a", [*ALIASES[:2], "a = Vi(1)"], axis=1)(X, Y, B[:5]),
        ),
        "a number": (
            lambda: g(X, Y, 1.0),
            ArrayTypeError,
            "numpy.array([b], 'float64')",
            lambda: g(X, Y, B),
        ),
        "arrays left out": (
            lambda: g(X, Y),
            ArgumentError,
            "pass argument 0 (x), argument 1 (y)",
            lambda: g(X, Y, B),
        ),
        "out, one axis": (
            lambda: g(X, Y, B, out=np.empty(5)),
            ShapeError,
            "out[..., None]",
            lambda: g(X, Y, B, out=np.empty(5)[..., None]),
        ),
        "out, dtype": (
            lambda: g(X, Y, B, out=np.empty((5, 1), "float32")),
            DTypeError,
            "numpy.empty((5, 1), 'float64')",
            lambda: g(X, Y, B, out=np.empty((5, 1), "float64")),
        ),
        "out, repeated": (
            lambda: g(X, Y, B, out=np.broadcast_to(0.0, (5, 1))),
            ShapeError,
            "numpy.empty((5, 1), 'float64')",
            lambda: g(X, Y, B),
        ),
    }


def _options() -> dict[str, Case]:
    def good() -> Any:
        return gauss(X, Y, B)

    def build(**options: Any) -> Any:
        return Genred(GAUSS, ALIASES, **{"axis": 1, **options})

    return {
        "backend cuda": (
            lambda: gauss(X, Y, B, backend="cuda"),
            OptionError,
            "backend='GPU'; ",
            good,
        ),
        "backend cuda:0": (
            lambda: gauss(X, Y, B, backend="cuda:0"),
            OptionError,
            "backend='GPU'; ",
            good,
        ),
        "backend cpu": (
            lambda: gauss(X, Y, B, backend="cpu"),
            OptionError,
            "backend='CPU'; ",
            lambda: gauss(X, Y, B, backend="CPU"),
        ),
        "device": (lambda: gauss(X, Y, B, device_id="cuda:0"), OptionError, "device_id=0", good),
        "dtype_acc": (
            lambda: build(dtype_acc="double"),
            OptionError,
            "dtype_acc='float64'; ",
            lambda: build(dtype_acc="float64")(X, Y, B),
        ),
        "dtype_acc, a type": (
            lambda: build(dtype_acc=np.float64),
            OptionError,
            "dtype_acc='float64'; ",
            lambda: build(dtype_acc="float64")(X, Y, B),
        ),
        "sum_scheme": (
            lambda: build(sum_scheme="Kahan"),
            OptionError,
            "sum_scheme='kahan_scheme'; ",
            lambda: build(sum_scheme="kahan_scheme")(X, Y, B),
        ),
        "accuracy twice": (
            lambda: build(dtype_acc="float64", use_double_acc=True),
            OptionError,
            "dtype_acc='float64', which",
            lambda: build(dtype_acc="float64")(X, Y, B),
        ),
        "reduction": (
            lambda: build(reduction_op="sum"),
            OptionError,
            "did you mean Sum?",
            lambda: build(reduction_op="Sum")(X, Y, B),
        ),
        "other word": (
            lambda: build(reduction_op="average"),
            OptionError,
            "did you mean Mean?",
            lambda: 7 * build(reduction_op="Mean")(X, Y, B),
        ),
        "axis": (lambda: build(axis=-1), OptionError, "axis=1 for one result per row of i", good),
        "aliases": (
            lambda: Genred(GAUSS, "x = Vi(3), y = Vj(3);b=Vj(1)"),
            FormulaError,
            "['x = Vi(3)', 'y = Vj(3)', 'b=Vj(1)']",
            lambda: Genred(GAUSS, ["x = Vi(3)", "y = Vj(3)", "b=Vj(1)"], axis=1)(X, Y, B),
        ),
        "aliases with positions": (
            lambda: Genred(GAUSS, "x = Vi(0,3), y = Vj(1,3), b = Vj(2,1)"),
            FormulaError,
            "['x = Vi(0,3)', 'y = Vj(1,3)', 'b = Vj(2,1)']",
            lambda: Genred(GAUSS, ["x = Vi(0,3)", "y = Vj(1,3)", "b = Vj(2,1)"], axis=1)(X, Y, B),
        ),
        "operation": (
            lambda: Genred("exp(-SqDist(x,y))*b", ALIASES),
            UnknownNameError,
            "did you mean Exp?",
            good,
        ),
        "weight": (
            lambda: build(formula2="b"),
            OptionError,
            'the product in the formula: "(b)*',
            lambda: Genred("(b)*Exp(-SqDist(x,y))", ALIASES, axis=1)(X, Y, B),
        ),
        "no weight": (
            lambda: build(reduction_op="SumSoftMaxWeight"),
            OptionError,
            'formula2="b"',
            good,
        ),
        "weighted vectors": (
            lambda: Genred("x-y", ALIASES, "LogSumExp", axis=1, formula2="Concat(b,b)"),
            DimError,
            "Sum(f), SqNorm2(f) or Elem(f, m) make a scalar of a vector",
            lambda: np.exp(
                Genred("-SqNorm2(x-y)", ALIASES, "LogSumExp", axis=1, formula2="b")(X, Y, B)
            ),
        ),
        "setting": (
            lambda: pairfold.settings(thread=1),
            OptionError,
            "did you mean threads?",
            good,
        ),
        "generic": (
            lambda: pairfold.numpy.generic_sum(GAUSS, *ALIASES),
            UnknownNameError,
            "the second argument is the alias of the result",
            lambda: pairfold.numpy.generic_sum(GAUSS, "out = Vi(1)", *ALIASES)(X, Y, B),
        ),
        "ranges": (
            lambda: gauss(X, Y, B, ranges=(np.array([[0.0, 5]]), [1], [[0, 7]]) * 2),
            DTypeError,
            "ranges_i.astype('int64')",
            lambda: gauss(
                X,
                Y,
                B,
                ranges=(
                    np.array([[0.0, 5]]).astype("int64"),
                    [1],
                    [[0, 7]],
                    [[0, 7]],
                    [1],
                    [[0, 5]],
                ),
            ),
        ),
    }


def _lazy() -> dict[str, Case]:
    v, w = X[:, 0], Y[:, 0]
    want = np.exp(-((v[:, None] - w) ** 2)).sum(1)[:, None]

    def kernel(x: Any, y: Any) -> Any:
        return (-((x - y) ** 2)).exp().sum(axis=1) - want + WANT

    whole = (8 * v).astype("int64")
    return {
        "one axis": (
            lambda: Vi(v),
            OptionError,
            "x[:, None]",
            lambda: kernel(Vi(v[:, None]), Vj(w[:, None])),
        ),
        "one axis, j": (
            lambda: Vj(w),
            OptionError,
            "x[:, None]",
            lambda: kernel(Vi(v[:, None]), Vj(w[:, None])),
        ),
        "a list": (
            lambda: Vi(v.tolist()),
            ArrayTypeError,
            "numpy.array(x, 'float64')[:, None]",
            lambda: kernel(Vi(np.array(v.tolist(), "float64")[:, None]), Vj(w[:, None])),
        ),
        "lists": (
            lambda: Vi(X.tolist()),
            ArrayTypeError,
            "numpy.array(x, 'float64')",
            lambda: (-Vi(np.array(X.tolist(), "float64")).sqdist(Vj(Y))).exp().sum(axis=1),
        ),
        "a number": (
            lambda: Vi(2.0),
            ArrayTypeError,
            "Pm(x)",
            lambda: ((-Vi(X).sqdist(Vj(Y))).exp() * Pm(2.0)).sum(axis=1) / 2,
        ),
        "masked": (
            lambda: Vi(np.ma.masked_array(X)),
            ArrayTypeError,
            "x.filled(0)",
            lambda: (-Vi(np.ma.masked_array(X).filled(0)).sqdist(Vj(Y))).exp().sum(axis=1),
        ),
        "integers": (
            lambda: Vi(whole[:, None]),
            DTypeError,
            "x.astype('float",
            lambda: kernel(Vi(whole[:, None].astype("float64") / 8), Vj(w[:, None])),
        ),
        "two axes": (
            lambda: LazyTensor(X),
            OptionError,
            "LazyTensor(x, axis=0)",
            lambda: (-LazyTensor(X, axis=0).sqdist(Vj(Y))).exp().sum(axis=1),
        ),
        "no array for a symbol": (
            lambda: (-Vi(0, 3).sqdist(Vj(Y))).exp().sum(axis=1)(),
            ArgumentError,
            "array 0 of shape (..., M, 3)",
            lambda: (-Vi(0, 3).sqdist(Vj(Y))).exp().sum(axis=1)(X),
        ),
        "vectors in a list": (
            lambda: Pm([X[0], X[1]]),
            ArrayTypeError,
            "Pm(numpy.concatenate(x))",
            lambda: WANT * Pm(np.concatenate([X[0], X[1]])).ndim / 6,
        ),
    }


CASES = {**_arrays(), **_options(), **_lazy()}


@pytest.mark.parametrize("name", CASES)
def test_the_advice_works(name: str) -> None:
    wrong, error, advice, advised = CASES[name]
    with pytest.raises(error) as caught:
        wrong()
    assert str(caught.value.hint).startswith(advice), str(caught.value)
    assert_close(np.asarray(advised(), "float64"), WANT, rtol=1e-5)


def test_advice_for_tensors() -> None:
    torch = pytest.importorskip("torch")
    x, y, b = map(torch.tensor, (X, Y, B))
    asking = x.clone().requires_grad_()

    def check(advice: str, given: list[Any], then: list[Any]) -> None:
        with pytest.raises((ArrayTypeError, DTypeError)) as caught:
            gauss(*given)
        assert str(caught.value.hint).startswith(advice), str(caught.value)
        assert_close(np.asarray(gauss(*then).detach()), WANT, rtol=1e-5)

    check("torch.as_tensor(y)", [x, Y, b], [x, torch.as_tensor(Y), b])
    check(
        "torch.tensor(y, dtype=torch.float64)",
        [x, Y.tolist(), b],
        [x, torch.tensor(Y.tolist(), dtype=torch.float64), b],
    )
    check("y.numpy(force=True), or tensors", [X, asking[:3], B], [x, y, b])
    check(
        "x.to(torch.float64)", [(8 * x).long(), y, b], [(8 * x).long().to(torch.float64) / 8, y, b]
    )
    check(
        "x.to(torch.float32)",
        [x, y.float(), b.float()],
        [x.to(torch.float32), y.float(), b.float()],
    )
    check("x.to_dense()", [x.to_sparse(), y, b], [x.to_sparse().to_dense(), y, b])
    check("x.real and x.imag", [x + 0j, y, b], [(x + 0j).real, y, b])


def test_advice_for_sparse_matrices() -> None:
    sparse = pytest.importorskip("scipy.sparse")
    for make in (sparse.csr_matrix, sparse.coo_array):
        with pytest.raises(ArrayTypeError, match=r"x\.toarray\(\)"):
            gauss(make(X), Y, B)
        with pytest.raises(ArrayTypeError, match=r"x\.toarray\(\)"):
            Vi(make(X))
        assert_close(gauss(make(X).toarray(), Y, B), WANT)


def test_no_advice_loses_a_mask_or_a_part() -> None:
    masked = np.ma.masked_array(X, X > 0.5)
    for call in (lambda: gauss(masked, Y, B), lambda: Vi(masked), lambda: gauss(X + 0j, Y, B)):
        with pytest.raises((ArrayTypeError, DTypeError)) as caught:
            call()
        assert not {"asarray", "astype"} & set(str(caught.value).replace("(", ".").split("."))


def test_a_weighted_reduction_says_what_the_weight_asks_for() -> None:
    for name in ("LogSumExp", "SumSoftMaxWeight"):
        with pytest.raises(DimError, match=f"{name} needs .* or of its weight's") as caught:
            Genred("x-y", ALIASES, name, formula2="Concat(b,b)")
        # In the words of the formula.
        assert "x-y has dimension 3, the weight 2" in str(caught.value)


def test_words_of_other_programs() -> None:
    for wrong, word in (("bakend", "backend"), ("device", "device_id"), ("keepdims", "keepdim")):
        with pytest.raises(TypeError, match=f"'{wrong}': did you mean {word}"):
            Vi(X).sqdist(Vj(Y)).sum(axis=1, call=False)(**{wrong: 1})


def test_systems_call_variables_by_their_names() -> None:
    for formula, words in (("SqDist(x,y)", "linear in b"), ("SqDist(x,y)*b*b", "*b*b")):
        with pytest.raises(FormulaError) as caught:
            KernelSolve(formula, ALIASES, "b")
        assert words in str(caught.value)
        assert "Var(" not in str(caught.value)
    solve = KernelSolve(GAUSS, ALIASES, "b", axis=1)
    noise = np.linspace(1, 2, 7)
    with pytest.raises(ShapeError, match=r"alpha\[:, None\]"):
        solve(Y, Y, B, alpha=noise)
    matrix = np.exp(-((Y[:, None] - Y) ** 2).sum(-1)) + np.diag(noise)
    found = solve(Y, Y, B, alpha=noise[:, None], eps=1e-10)
    assert_close(found, np.linalg.solve(matrix, B), rtol=1e-8)


def test_options_that_are_arrays_or_other_objects_are_refused_by_name() -> None:
    class Bad:
        def __bool__(self) -> bool:
            raise RuntimeError("no")

        def __eq__(self, other: object) -> bool:
            raise RuntimeError("no")

        __hash__ = None  # type: ignore[assignment]

    for value in (np.ones(2), np.ones((2, 0)), np.zeros(1, [("a", "f8")]), Bad(), [1, 2], {}):
        for name in ("backend", "device_id"):
            with pytest.raises(OptionError, match=name):
                gauss(X, Y, B, **{name: value})
        for name in ("axis", "dtype_acc", "sum_scheme", "reduction_op"):
            with pytest.raises(OptionError, match=name.removesuffix("_op")):
                Genred(GAUSS, ALIASES, **{name: value})
    for value in (np.ones(2), Bad()):
        with pytest.raises(OptionError, match="opt_arg"):
            Genred(GAUSS, ALIASES, opt_arg=value)
        with pytest.raises(OptionError, match="formula2"):
            Genred(GAUSS, ALIASES, formula2=value)
        with pytest.raises(FormulaError, match="string"):
            Genred(GAUSS, ALIASES, "LogSumExp", formula2=value)
        with pytest.raises(OptionError, match="KMin needs opt_arg"):
            Genred(GAUSS, ALIASES, "KMin", opt_arg=value)
    for value in (None, 3, iter("x"), Bad()):
        with pytest.raises(FormulaError, match="alias"):
            Genred("x", value)
    assert Genred("x", (alias for alias in ALIASES)).aliases == ALIASES
    with pytest.raises(OptionError, match="callback"):
        KernelSolve(GAUSS, ALIASES, "b", axis=1)(Y, Y, B, callback=[1])
    with pytest.raises(DTypeError, match="3322 bits"):
        Genred("s*x", ["s = Pm(1)", "x = Vi(3)"])(10**1000, X)
    with pytest.raises(DTypeError, match="3322 bits"):
        Pm([1.0, 10**1000])


# -- frames ----------------------------------------------------------------------------------------

PACKAGE = str(Path(pairfold.__file__).parent)


def ours(error: BaseException) -> int:
    """How many frames of its traceback are of the package."""
    frames = traceback.extract_tb(error.__traceback__)
    return sum(frame.filename.startswith(PACKAGE) for frame in frames)


def test_errors_of_input_show_few_frames_of_ours() -> None:
    torch = pytest.importorskip("torch")
    mapped = torch.func.vmap(lambda x: gauss(x, torch.tensor(Y), torch.tensor(B)))
    solve = KernelSolve(GAUSS, ALIASES, "b", axis=1)
    cases: list[tuple[Callable[[], Any], int]] = [
        (lambda: gauss(X[:, :2], Y, B), 2),
        (lambda: gauss(X, Y, B.astype("float32")), 2),
        (lambda: gauss(X, Y, B, backend="cuda"), 2),
        (lambda: gauss(X, Y, B, ranges=(1, 2)), 2),
        (lambda: gauss(X, Y, B, out=np.empty(3)), 2),
        (lambda: gauss(*map(torch.tensor, (X[:, :2], Y, B))), 2),
        (lambda: gauss(torch.tensor(X[:, :2], requires_grad=True), *map(torch.tensor, (Y, B))), 2),
        (lambda: mapped(torch.ones(2, 5, 2)), 2),
        (lambda: Genred("Exp(-SqDist(x,z))", ALIASES), 2),
        (lambda: Genred("x", ["x = Vk(3)"]), 2),
        (lambda: Genred("x", ALIASES, "Summ"), 2),
        (lambda: solve(Y, Y, B[:3]), 2),
        (lambda: Vi(0, 3).sqdist(Vj(Y)).sum(axis=1)(X[:, :2]), 3),
        (lambda: Vi(X).sqdist(Vj(Y)).sum(axis=1, backend="cuda"), 3),
        (lambda: Vi(X) + Vi(Y), 4),
        (lambda: Vi(X) + Vj(Y[:, :2]), 4),
        (lambda: Vi(X[:, 0]), 2),
    ]
    for wrong, most in cases:
        with pytest.raises(PairfoldError) as caught:
            wrong()
        assert 1 <= ours(caught.value) <= most, "".join(traceback.format_exception(caught.value))


def test_frames_of_the_program_and_those_of_a_bug_are_kept(monkeypatch: Any) -> None:
    def preconditioner(r: Any) -> Any:
        return gauss(r, r, r)

    solve = KernelSolve(GAUSS, ALIASES, "b", axis=1)
    with pytest.raises(PairfoldError) as caught:
        solve(Y, Y, B, preconditioner=preconditioner)
    names = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert "preconditioner" in names
    assert "conjugate_gradients" in names

    def broken(*_: Any) -> None:
        raise InternalError("broken")

    monkeypatch.setattr("pairfold.frontends.reduction.check_shapes", broken)
    with pytest.raises(InternalError) as caught:
        Genred(GAUSS, ALIASES, axis=1)(X[:3], Y, B)
    names = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert "check" in names
    assert names[-1] == "broken"


class Exhausting:
    """An object that memory does not suffice to look at."""

    def __index__(self, *_: object, **__: object) -> Any:
        raise MemoryError

    __float__ = __bool__ = __eq__ = __iter__ = __array__ = __index__  # type: ignore[assignment]
    __hash__ = object.__hash__


@pytest.mark.parametrize(
    "call",
    [
        lambda it: Genred("x+y", ["x = Vi(1)", "y = Vj(1)"], axis=it),
        lambda it: Genred("x+y", it, axis=1),
        lambda it: Genred("x+y", ["x = Vi(1)", "y = Vj(1)"], "KMin", axis=1, opt_arg=it),
        lambda it: Genred("x+y", ["x = Vi(1)", "y = Vj(1)"], axis=1)(ONES, ONES, device_id=it),
        lambda it: Genred("x+y", ["x = Vi(1)", "y = Vj(1)"], axis=1)(ONES, ONES, backend=it),
        lambda it: SYSTEM(ONES, ONES, ONES, alpha=it),
        lambda it: SYSTEM(ONES, ONES, ONES, alpha=1.0, eps=it),
        lambda it: SYSTEM(ONES, ONES, ONES, alpha=1.0, maxiter=it),
    ],
)
def test_lack_of_memory_is_not_taken_for_a_bad_argument(call: Any) -> None:
    with pytest.raises(MemoryError):
        call(Exhausting())


ONES = np.ones((3, 1))
SYSTEM = pairfold.KernelSolve(
    "Exp(-SqDist(x,y))*b", ["x = Vi(1)", "y = Vj(1)", "b = Vj(1)"], "b", axis=1
)
