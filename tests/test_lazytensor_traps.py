"""Natural Python on lazy tensors: what the same program says of dense arrays, or an error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from checks import assert_close

from pairfold import Genred
from pairfold.errors import ArrayTypeError, DimError, OptionError, PairfoldError, ShapeError
from pairfold.frontends import lazytensor
from pairfold.numpy import LazyTensor, Pm, Vi, Vj, where
from pairfold.ops.table import OPERATIONS

pytestmark = pytest.mark.usefixtures("interpreted_kernels")

RNG = np.random.default_rng(11)
M, N = 13, 17
# Some coordinates are shared, so that comparisons meet equal numbers.
X, Y = RNG.integers(0, 4, (M, 1, 2)) / 4.0, RNG.integers(0, 4, (1, N, 2)) / 4.0
DENSE = ((X - Y) ** 2).sum(-1, keepdims=True)
DTYPES = ("float32", "float64")
libraries = pytest.mark.parametrize("make", [np.asarray, torch.as_tensor], ids=["numpy", "torch"])


def agree(lazy: Any, dense: Any, what: object = None) -> None:
    """Both sums of a lazy tensor are those of a dense array (..., M, N, D)."""
    dense = np.broadcast_to(dense, np.broadcast_shapes(dense.shape, (M, N, 1)))
    for axis in (dense.ndim - 3, dense.ndim - 2):
        found, wanted = np.asarray(lazy.sum(axis=axis)), dense.sum(axis)
        for part in (np.real, np.imag):
            assert_close(part(found), part(wanted), terms=dense.shape[axis], formula=(what, axis))


# -- conditions that are truth values --------------------------------------------------------------

# A formula, the condition as a string, on lazy tensors, and on dense arrays.
Condition = Callable[[Any, Any, Any], Any]
TRUTHS: dict[str, tuple[str, Condition, Condition]] = {
    "less": ("SqDist(x,y) < 0.25", lambda x, y, k: k < 0.25, lambda x, y, k: k < 0.25),
    "at most": ("SqDist(x,y) <= 0.25", lambda x, y, k: k <= 0.25, lambda x, y, k: k <= 0.25),
    "more": ("SqDist(x,y) > 0.25", lambda x, y, k: k > 0.25, lambda x, y, k: k > 0.25),
    "at least": ("SqDist(x,y) >= 0.25", lambda x, y, k: k >= 0.25, lambda x, y, k: k >= 0.25),
    "equal": ("SqDist(x,y) == 0", lambda x, y, k: k == 0, lambda x, y, k: k == 0),
    "different": ("SqDist(x,y) != 0", lambda x, y, k: k != 0, lambda x, y, k: k != 0),
    "and": (
        "(SqDist(x,y) < 0.5) * (SqDist(x,y) > 0.1)",
        lambda x, y, k: (k < 0.5) & (k > 0.1),
        lambda x, y, k: (k < 0.5) & (k > 0.1),
    ),
    "or": (
        "(SqDist(x,y) < 0.1) + (SqDist(x,y) > 0.5)",
        lambda x, y, k: (k < 0.1) | (k > 0.5),
        lambda x, y, k: (k < 0.1) | (k > 0.5),
    ),
    "not": ("1 - (SqDist(x,y) < 0.5)", lambda x, y, k: ~(k < 0.5), lambda x, y, k: ~(k < 0.5)),
    "vectors": ("x < y", lambda x, y, k: x < y, lambda x, y, k: x < y),
    "all of a vector": (
        "Min(x < y)",
        lambda x, y, k: (x < y).min(-1),
        lambda x, y, k: (x < y).all(-1, keepdims=True),
    ),
    "any of a vector": (
        "Sum(x < y)",
        lambda x, y, k: (x < y).sum(-1),
        lambda x, y, k: (x < y).any(-1, keepdims=True),
    ),
    "a choice": (
        "IfElse(x - y, 1, 0)",
        lambda x, y, k: (x - y).ifelse(1, 0),
        lambda x, y, k: x >= y,
    ),
    "of a choice": (
        "IfElse(SqDist(x,y) < 0.5, x < y, y < x)",
        lambda x, y, k: where(k < 0.5, x < y, y < x),
        lambda x, y, k: np.where(k < 0.5, x < y, y < x),
    ),
    "a number": ("SqDist(x,y) - 0.25", lambda x, y, k: k - 0.25, lambda x, y, k: k >= 0.25),
    "a difference": ("(x<y) - (y<x)", lambda x, y, k: (x < y) - (y < x), lambda x, y, k: x <= y),
}


@libraries
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", TRUTHS)
def test_a_truth_value_is_a_condition_as_it_stands(name: str, dtype: str, make: Any) -> None:
    text, lazy, dense = TRUTHS[name]
    x, y = X.astype(dtype), Y.astype(dtype)
    i, j = LazyTensor(make(x)), LazyTensor(make(y))
    k = i.sqdist(j)
    wanted = np.where(dense(X, Y, DENSE), X + 1, -2 * Y)
    condition = lazy(i, j, k)
    agree(condition.ifelse(i + 1, -2 * j), wanted, name)
    for axis in (0, 1):
        formula = Genred(f"IfElse({text}, x+1, -2*y)", ["x = Vi(2)", "y = Vj(2)"], axis=axis)
        found = np.asarray(formula(make(x[:, 0]), make(y[0])))
        assert_close(found, wanted.sum(axis), terms=wanted.shape[axis], formula=(name, axis))


@libraries
@pytest.mark.parametrize("name", [name for name in TRUTHS if not name.startswith("a ")])
def test_where_selects_by_what_is_not_zero(name: str, make: Any) -> None:
    text, lazy, dense = TRUTHS[name]
    i, j = LazyTensor(make(X)), LazyTensor(make(Y))
    condition = lazy(i, j, i.sqdist(j))
    wanted = np.where(dense(X, Y, DENSE), X + 1, -2 * Y)
    agree(where(condition, i + 1, -2 * j), wanted, name)
    agree((i + 1).where(condition, -2 * j), wanted, name)
    formula = Genred(f"Where({text}, x+1, -2*y)", ["x = Vi(2)", "y = Vj(2)"], axis=1)
    assert_close(np.asarray(formula(make(X[:, 0]), make(Y[0]))), wanted.sum(1), terms=N)


def test_where_takes_numbers_for_masks_and_never_looks_at_the_rest() -> None:
    i, j = LazyTensor(X), LazyTensor(Y)
    agree(where(i - j, 3, i), np.where(X - Y, 3, X))
    agree(where(i == j, np.inf, 1 / (i - j)) < 0, np.where(X < Y, 1, 0))
    agree(where(i != j, (i - j).log(), np.nan) < -0.6, (X - Y > 0) & (X - Y < 0.55))
    batches = np.stack([X, 1 - X, X / 2])
    many = LazyTensor(batches)
    agree(where(many < j, many, 2), np.where(batches < Y, batches, 2))


def test_where_of_complex_numbers() -> None:
    i, j, z = LazyTensor(X), LazyTensor(Y), X - 2j * X
    k, w = i.sqdist(j), LazyTensor(z)
    agree(where(k < 0.5, w, j), np.where(DENSE < 0.5, z, Y))
    agree(where(i < j, w, 1j), np.where(X < Y, z, 1j))
    agree(w.where(i < j, 2), np.where(X < Y, z, 2))


def test_gradients_go_to_what_was_selected_alone() -> None:
    made = []
    for dense in (False, True):
        x = torch.tensor(X, requires_grad=True)
        y = torch.tensor(Y, requires_grad=True)
        if dense:
            k = ((x - y) ** 2).sum(-1, keepdim=True)
            root = torch.where(k > 0, k, 1.0).sqrt()
            total = torch.where(k > 0.1, root, 3 * k).sum(1)
        else:
            i, j = LazyTensor(x), LazyTensor(y)
            k = i.sqdist(j)
            total = where(k > 0.1, k**0.5, 3 * k).sum(axis=1)
        first = torch.autograd.grad((total**2).sum(), [x, y], create_graph=True)
        second = torch.autograd.grad((first[0] * first[1].sum()).sum(), [x, y])
        made.append([g.detach().numpy() for g in (*first, *second)])
    for found, wanted in zip(*made, strict=True):
        assert_close(found, wanted, terms=40 * N)


def test_what_is_no_truth_value_says_so() -> None:
    i, j = Vi(X[:, 0]), Vj(Y[0])
    for wrong in (lambda: i & (i < j), lambda: ~i, lambda: (i < j) & i, lambda: where(1, 2, 3)):
        with pytest.raises(ArrayTypeError):
            wrong()
    with pytest.raises(ArrayTypeError, match=r"x.logical_or\(y\) for or"):
        _ = (i < j) | (j < i)
    with pytest.raises(ArrayTypeError, match="cannot be complex"):
        where(i.real2complex(), i, j)
    with pytest.raises(DimError, match="Where: operands must have the same dimension"):
        where(i < j, i, i.concat(j))


# -- variables that are made anew ------------------------------------------------------------------

POINTS, COLUMNS = RNG.normal(size=(M, 2)), RNG.normal(size=(N, 2))
Made = Callable[[Any], Any]
# How a variable is made each time that it is asked for, of the array (M, 2).
ANEW: dict[str, Made] = {
    "Vi": Vi,
    "a view": lambda x: LazyTensor(x[:, None, :]),
    "another view": lambda x: Vi(x[:]),
    "batches": lambda x: LazyTensor(x[None, :, None, :]),
    "transposed": lambda x: Vj(x).t(),
}


def derivatives(f: Any, v: Any) -> dict[str, Any]:
    """Derivatives of a formula, and of it as a vector."""
    both = f.concat(2 * f)
    return {
        "grad": f.grad(v, 1),
        "diff": f.diff(v, LazyTensor([1.0, 2.0])),
        "grad_matrix": both.grad_matrix(v),
        "divergence": both.divergence(v),
        "laplacian": f.laplacian(v),
    }


@libraries
@pytest.mark.parametrize("name", ANEW)
def test_a_variable_made_anew_is_the_same_variable(name: str, make: Any) -> None:
    x, y, new = make(POINTS), make(COLUMNS), ANEW[name]
    once = new(x)
    kept = (-once.sqdist(Vj(y))).exp() * once.sqdist(Vj(y))
    made = (-new(x).sqdist(Vj(y))).exp() * new(x).sqdist(Vj(y))
    for wanted, found in zip(
        derivatives(kept, once).items(), derivatives(made, new(x)).items(), strict=True
    ):
        for axis in (kept.nbatchdims, kept.nbatchdims + 1):
            sums = [np.asarray(tensor.sum(axis=axis)) for _, tensor in (wanted, found)]
            assert np.abs(sums[0]).max() > 0.1
            assert_close(sums[1], sums[0], terms=N, formula=(name, wanted[0]))
    t = torch.tensor(POINTS, requires_grad=True)
    square = ((t[:, None] - torch.tensor(COLUMNS)) ** 2).sum(-1)
    (dense,) = torch.autograd.grad((square * (-square).exp()).sum(), t)
    total = made.grad(new(x), 1).sum(axis=made.nbatchdims + 1)
    assert_close(np.asarray(total).reshape(M, 2), dense.numpy(), terms=N)


def test_symbols_and_parameters_made_anew() -> None:
    p, y = np.array([0.5, 2.0]), Vj(COLUMNS)
    for make, given in ((lambda: Vi(0, 2), [POINTS]), (lambda: Pm(p), []), (lambda: Pm(0, 2), [p])):
        x = make()
        f = (make() * y).exp().sum().grad(make(), 1)
        g = (x * y).exp().sum().grad(x, 1)
        found, wanted = (h.sum_reduction(axis=1, call=False)(*given) for h in (f, g))
        assert np.abs(wanted).max() > 0.1
        assert_close(found, wanted, terms=N)


def test_equal_numbers_and_detached_tensors_are_variables_of_their_own() -> None:
    a, b = Pm([2.0]), Pm([2.0])
    found = (a**2 * b * Vi(POINTS)).grad(a, Vi(POINTS)).sum(axis=1)
    assert_close(found, 8 * (POINTS**2).sum(-1, keepdims=True), terms=2)
    x = torch.tensor(POINTS, requires_grad=True)
    once = (Vi(x) * Vi(x.detach())).grad(Vi(x), LazyTensor([1.0, 1.0])).sum(axis=0)
    assert_close(once.detach().numpy(), POINTS.sum(0)[None], terms=M)
    both = (Vi(x) * Vi(x)).grad(Vi(x), LazyTensor([1.0, 1.0])).sum(axis=0)
    assert_close(both.detach().numpy(), 2 * POINTS.sum(0)[None], terms=M)


# -- Python, NumPy and torch -----------------------------------------------------------------------

VALUES, WEIGHTS = RNG.normal(size=N), RNG.normal(size=(3, M))
# What holds for a lazy tensor as for the array: lib is numpy or torch, k the squared distance
# (M, N), v the difference (M, N, 2), a the first operand (M, 1, 2).
PROGRAMS: dict[str, Callable[..., Any]] = {
    "exp": lambda lib, k, v, a: lib.exp(k),
    "log": lambda lib, k, v, a: lib.log(k + 1),
    "sqrt": lambda lib, k, v, a: lib.sqrt(k),
    "square": lambda lib, k, v, a: lib.square(v),
    "abs": lambda lib, k, v, a: lib.abs(v),
    "sin": lambda lib, k, v, a: lib.sin(v),
    "tanh": lambda lib, k, v, a: lib.tanh(v),
    "floor": lambda lib, k, v, a: lib.floor(3 * v),
    "ceil": lambda lib, k, v, a: lib.ceil(3 * v),
    "sign": lambda lib, k, v, a: lib.sign(v),
    "arctan2": lambda lib, k, v, a: lib.arctan2(v, v * v + 1),
    "log2": lambda lib, k, v, a: lib.log2(k + 1),
    "exp2": lambda lib, k, v, a: lib.exp2(k),
    "reciprocal": lambda lib, k, v, a: lib.reciprocal(k + 1),
    "isnan": lambda lib, k, v, a: lib.isnan(lib.sqrt(v)),
    "isfinite": lambda lib, k, v, a: lib.isfinite(1 / k),
    "isinf": lambda lib, k, v, a: lib.isinf(1 / k),
    "clip": lambda lib, k, v, a: lib.clip(k, 0.1, 0.5),
    "clip below": lambda lib, k, v, a: lib.clip(k, 0.1, None),
    "clip the wrong way round": lambda lib, k, v, a: lib.clip(k, 0.5, 0.1),
    "clip whole": lambda lib, k, v, a: lib.clip(3 * v, -1, 1),
    "where": lambda lib, k, v, a: lib.where(k < 0.5, k, 2.0 * k),
    "where, numbers": lambda lib, k, v, a: lib.where(k < 0.5, 1.0, 2.0),
    "maximum": lambda lib, k, v, a: lib.maximum(k, 0.3 * k + 0.2),
    "minimum": lambda lib, k, v, a: lib.minimum(v, v * v),
    "power": lambda lib, k, v, a: a**2 * v,
    "power of a lazy tensor": lambda lib, k, v, a: (a + 1) ** v,
    "remainder": lambda lib, k, v, a: lib.remainder(v, 0.3),
    "%": lambda lib, k, v, a: v % 0.3,
    "//": lambda lib, k, v, a: v // 0.3,
    "array // lazy": lambda lib, k, v, a: (a + 1) // (v * v + 0.3),
    "+": lambda lib, k, v, a: +v,
    "array + lazy": lambda lib, k, v, a: a + v,
    "array - lazy": lambda lib, k, v, a: a - v,
    "array * lazy": lambda lib, k, v, a: a * v,
    "array / lazy": lambda lib, k, v, a: a / (v + 5),
    "array < lazy": lambda lib, k, v, a: a < v,
    "array >= lazy": lambda lib, k, v, a: a >= v,
    "array == lazy": lambda lib, k, v, a: a == v,
    "array != lazy": lambda lib, k, v, a: a != v,
    "scalar * lazy": lambda lib, k, v, a: np.float64(2) * k,
    "scalar < lazy": lambda lib, k, v, a: np.float64(0.2) < k,
    "scalar - lazy": lambda lib, k, v, a: np.float64(2) - v,
    "and": lambda lib, k, v, a: lib.logical_and(k < 0.5, k > 0.1),
    "or": lambda lib, k, v, a: lib.logical_or(k > 0.5, k < 0.1),
    "not": lambda lib, k, v, a: lib.logical_not(k < 0.5),
    "sum": lambda lib, k, v, a: lib.sum(k, 1),
    "sum of components": lambda lib, k, v, a: lib.sum(v, -1),
    "sum over i": lambda lib, k, v, a: lib.sum(v, 0),
    "mean": lambda lib, k, v, a: lib.mean(k, 1),
    "prod": lambda lib, k, v, a: lib.prod(k + 0.5, 1),
    "any": lambda lib, k, v, a: lib.any(k < 0.1, 1),
    "all": lambda lib, k, v, a: lib.all(k < 0.1, 1),
    "argmin": lambda lib, k, v, a: lib.argmin(k, 1),
    "argmax": lambda lib, k, v, a: lib.argmax(k, 1),
    "amin": lambda lib, k, v, a: lib.amin(k, 1),
    "amax": lambda lib, k, v, a: lib.amax(k, 1),
    "count": lambda lib, k, v, a: lib.count_nonzero(k, 1),
    "sum of all": lambda lib, k, v, a: lib.sum(k),
    "sum over both": lambda lib, k, v, a: lib.sum(v, (0, 1)),
    "max of all": lambda lib, k, v, a: lib.max(k),
    "mean of all": lambda lib, k, v, a: lib.mean(v),
    "var": lambda lib, k, v, a: lib.var(k, 1),
    "norm": lambda lib, k, v, a: lib.linalg.norm(v, None, -1) if lib is np else lib.norm(v, dim=-1),
    "joined": lambda lib, k, v, a: lib.concatenate((v, v), -1),
}


def numbers(found: Any) -> Any:
    """The numbers of an array, or the sums over j of a lazy tensor."""
    return np.asarray(found.sum(axis=1) if isinstance(found, LazyTensor) else found, dtype=float)


@libraries
@pytest.mark.parametrize("name", PROGRAMS)
def test_functions_of_numpy_and_torch(name: str, make: Any) -> None:
    lib = np if make is np.asarray else torch
    program = PROGRAMS[name]
    x, y = make(X), make(Y)
    i, j = LazyTensor(x), LazyTensor(y)
    with np.errstate(all="ignore"):
        wanted = np.asarray(program(lib, make(DENSE[..., 0]), x - y, x), dtype=float)
    lazy = program(lib, i.sqdist(j), i - j, x)
    if isinstance(lazy, LazyTensor):
        wanted = wanted.sum(1)
    found = numbers(lazy)
    assert found.size == wanted.size, (found.shape, wanted.shape)
    assert_close(found.reshape(wanted.shape), wanted, terms=N, formula=name)


@libraries
def test_vectors_and_rows_times_a_matrix(make: Any) -> None:
    k, dense = (
        Vi(make(POINTS)).sqdist(Vj(make(COLUMNS))),
        ((POINTS[:, None] - COLUMNS) ** 2).sum(-1),
    )
    for found, wanted in (
        (k @ make(VALUES), dense @ VALUES),
        (make(WEIGHTS[0]) @ k, WEIGHTS[0] @ dense),
        (make(WEIGHTS) @ k, WEIGHTS @ dense),
        ((np.matmul if make is np.asarray else torch.matmul)(k, make(VALUES)), dense @ VALUES),
    ):
        assert_close(np.asarray(found), wanted, terms=N)


# What has to raise, and a part of what the message tries.
BAILED_OUT: dict[str, tuple[Callable[[Any], Any], str]] = {
    "max": (lambda k: max(k, 0), r"K.maximum\(0\)"),
    "min": (lambda k: min([k, k + 1]), "K.maximum"),
    "sorted": (lambda k: sorted([k, k + 1]), "where"),
    "chain": (lambda k: 0.5 < k < 2, r"\(0.5 < K\) & \(K < 2\)"),
    "in": (lambda k: k in [k + 1], "K is L"),
    "and": (lambda k: k > 1 and k < 2, "&"),
    "or": (lambda k: k > 1 or k < 2, "neither true nor false"),
    "not": (lambda k: not k, r"~\(K > 0\)"),
    "if": (lambda k: 1 if k < 1 else 0, r"where\(K > 0, K, 0\)"),
    "None": (lambda k: k == None, "K is None"),  # noqa: E711
    "asarray": (np.asarray, "reduce it"),
    "array of several": (lambda k: np.array([k, k]), "reduce it"),
    "as_tensor": (torch.as_tensor, "reduce it"),
    "take": (lambda k: np.take(k, 0), r"where\(mask, K, 0\)"),
    "argmax": (np.argmax, "0 over i, 1 over j"),
    "sum of the last axis": (lambda k: np.sum(k, axis=-1), "0 over i, 1 over j"),
    "max of the last axes": (lambda k: np.max(k, axis=(-2, -1)), "axes from the start"),
    "sort": (np.sort, "argKmin"),
    "topk": (lambda k: torch.topk(k, 3), "argKmin"),
    "softmax": (lambda k: torch.softmax(k, 1).exp(), "multiplied and summed"),
    "log_softmax": (lambda k: torch.log_softmax(k, 1), "logsumexp"),
    "reduce": (np.add.reduce, "axis=1"),
    "out": (lambda k: np.exp(k, out=np.zeros(3)), "out="),
    "inverse": (np.linalg.inv, "linalg.inv"),
    "norm": (np.linalg.norm, "axis=-1"),
    "round": (np.round, "halves away from zero"),
    "einsum": (lambda k: np.einsum("ij->i", k), "sum"),
    "median": (np.median, "reduce it"),
    "stack": (lambda k: torch.stack([k, k]), "reduce it"),
    "allclose": (lambda k: np.allclose(k, k), "reduce it"),
    "len": (len, "K.shape"),
    "std": (lambda k: k.std(1), r"K.var\(1\)"),
    "reshape": (lambda k: k.reshape(3, -1), "x\\[:, None, :\\]"),
    "a slip of the pen": (lambda k: k.sqdits(k), "sqdist"),
    "truth of a reduction": (lambda k: bool(k.sum(axis=1, call=False)), "a result to come"),
    "array of a reduction": (lambda k: np.asarray(k.sum(axis=1, call=False)), "a result to come"),
}


@libraries
@pytest.mark.parametrize("name", BAILED_OUT)
def test_what_has_no_meaning_says_what_works(name: str, make: Any) -> None:
    program, hint = BAILED_OUT[name]
    k = Vi(make(POINTS)).sqdist(Vj(make(COLUMNS)))
    with pytest.raises(PairfoldError, match=hint):
        program(k)


# -- axes that are left out, shapes that happen to fit ---------------------------------------------


def table(make: Any, batches: int = 0) -> Any:
    x = make(POINTS[(None,) * batches])
    return LazyTensor(x[..., :, None, :]).sqdist(LazyTensor(make(COLUMNS)[..., None, :, :]))


@libraries
@pytest.mark.parametrize("batches", [0, 1])
@pytest.mark.parametrize("name", ["sum", "min", "max", "argmin", "argmax", "norm"])
def test_a_scalar_needs_an_axis(name: str, batches: int, make: Any) -> None:
    k = table(make, batches)
    for scalar in (k, (-k).exp() * 2, 1 + k / Pm(2.0), k.sqrt() * LazyTensor(make(X)).max()):
        with pytest.raises(OptionError, match=rf"K.{name}\(axis="):
            getattr(scalar, name)()
        assert getattr(scalar, name)(-1).shape == scalar.shape
        assert getattr(scalar, name)(dim=batches + 2).shape == scalar.shape
    # Points, and what may be vectors of one component, are summed as ever.
    one = LazyTensor(make(X[..., :1])) - LazyTensor(make(Y[..., :1]))
    for vector in (one, one**2, LazyTensor(make(X)), k * LazyTensor(make(X)), k * one):
        assert getattr(vector, name)().ndim == 1


@libraries
def test_a_key_alone_is_rows_of_a_scalar(make: Any) -> None:
    """Not of what is a scalar for these sizes only."""
    k = table(make)
    with pytest.raises(ShapeError, match=r"K\[0:1\]"):
        _ = k[0]
    assert k[:5].shape == (5, N)
    assert k[:].shape == k[:, :, 0].shape == k.shape
    one = LazyTensor(make(X[..., :1])) - LazyTensor(make(Y[..., :1]))
    assert one[0].shape == k.shape


@libraries
def test_a_vector_beside_a_matrix(make: Any) -> None:
    k, w = table(make), np.arange(1.0, N + 1)
    for vector, names in ((w, r"Vj\(w\[:, None\]\)"), (w[:M], r"Vi\(w\[:, None\]\)")):
        vector = make(vector)
        for wrong in (
            lambda k, v: k * v,
            lambda k, v: v * k,
            lambda k, v: k + v,
            lambda k, v: v - k,
            lambda k, v: k / v,
            lambda k, v: k < v,
            lambda k, v: v <= k,
            lambda k, v: k == v,
        ):
            with pytest.raises(ShapeError, match=names):
                wrong(k, vector)
    assert (k * Pm(make(w))).shape == (M, N, N)
    assert (k * make(w[:3])).shape == (M, N, 3)
    assert (LazyTensor(make(X)) * make(w[:2])).shape == (M, 1, 2)
    assert (LazyTensor(make(X))[0] * make(w[:M])).shape == (M, 1, M)
    dense = ((POINTS[:, None] - COLUMNS) ** 2).sum(-1)
    assert_close(
        np.asarray((k * Vj(make(w[:, None]))).sum(axis=1))[:, 0], (dense * w).sum(1), terms=N
    )


@libraries
def test_the_length_of_what_a_matrix_is_multiplied_with(make: Any) -> None:
    k, v = table(make), np.arange(1.0, N + 1)
    alone = LazyTensor(make(POINTS[:, None])).sqdist(LazyTensor(make(COLUMNS[:1, None])))
    for matrix, wrong in ((k, v[:-1]), (k, v[None]), (alone, v), (alone, np.stack([v, v], 1))):
        with pytest.raises(ShapeError, match="the matrix has"):
            _ = matrix @ make(wrong)
    first = ((POINTS - COLUMNS[:1]) ** 2).sum(-1)
    assert_close(np.asarray(alone @ make(v[1:2])), 2 * first, terms=2)
    with pytest.raises(ShapeError, match=r"the columns of v\.T"):
        _ = k @ make(np.ones((3, N)))


# -- neighbours that are not the point itself ------------------------------------------------------


@libraries
@pytest.mark.parametrize("dtype", DTYPES)
def test_nearest_neighbours_other_than_the_point_itself(dtype: str, make: Any) -> None:
    points = RNG.normal(size=(40, 3)).astype(dtype)
    index = np.arange(40, dtype=dtype)[:, None]
    x, y = Vi(make(points)), Vj(make(points))
    i, j = Vi(make(index)), Vj(make(index))
    dense = ((points[:, None] - points) ** 2).sum(-1)
    np.fill_diagonal(dense, np.inf)
    wanted = np.argsort(dense, axis=1, kind="stable")[:, :5]
    for distance in (where(i == j, np.inf, x.sqdist(y)), x.sqdist(y).where(i != j, np.inf)):
        assert (np.asarray(distance.argKmin(5, axis=1)) == wanted).all()
        assert (np.asarray(distance.argmin(axis=0))[:, 0] == wanted[:, 0]).all()
    for wrong in (
        lambda: (i == j) * np.inf,
        lambda: np.inf * (i == j),
        lambda: x.sqdist(y) + (i == j) * float("inf"),
        lambda: (i != j) * -np.inf,
    ):
        with pytest.raises(ArrayTypeError, match=r"where\(i == j, inf, D\)"):
            wrong()
    values, places = where(i == j, np.inf, x.sqdist(y)).Kmin_argKmin(45, axis=1)
    values, places = np.asarray(values), np.asarray(places)
    assert np.isinf(values[:, 39:]).all() & np.isfinite(values[:, :39]).all()
    assert (np.where(np.isinf(values), -1, places)[:, 39:] == -1).all()


def test_axes_and_keywords_are_suggested() -> None:
    k, square = Vi(POINTS).sqdist(Vj(COLUMNS)), 1 + Vi(POINTS).sqdist(Vj(POINTS))
    for program, error, hint in (
        (lambda: k.argKmin(3), TypeError, r"axis=0 \(over i\) or 1 \(over j\)"),
        (lambda: k.sum_reduction(), PairfoldError, r"axis=0 \(over i\) or 1 \(over j\)"),
        (lambda: k.norm(dim=1), OptionError, r"\(K\*\*2\).sum\(axis=1\)"),
        (lambda: square.solve(POINTS, lam=1), TypeError, "did you mean alpha"),
        (lambda: square.solve(POINTS, max_iter=1), TypeError, "did you mean maxiter"),
        (lambda: square.solve(POINTS, precond=1), TypeError, "did you mean preconditioner"),
        (lambda: k.sum(1, bakend="CPU"), TypeError, "did you mean backend"),
        (lambda: k.sum(-1, bakend="CPU"), TypeError, "did you mean backend"),
        (lambda: Vi(POINTS[:, 0]), OptionError, r"x\[:, None\]"),
    ):
        with pytest.raises(error, match=hint):
            program()


def test_long_formulas_are_shown_in_short() -> None:
    k = Vi(POINTS).sqdist(Vj(COLUMNS))
    for _ in range(30):
        k = (k + 1).exp() * k.sqrt()
    assert len(repr(k)) < 260
    assert " ... " in repr(k)


def test_the_rows_that_take_a_variable_are_known() -> None:
    rows = {op.name for op in OPERATIONS.values() if op.args[1:2] == ("v",)}
    assert rows == lazytensor._OF_VARIABLES
