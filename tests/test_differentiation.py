"""Derivatives of every reduction in a library that is neither NumPy nor torch: `tape.py`.

The oracle is a dense program in complex numbers, which each reduction's definition is continued to:
f(x + ih v) = f(x) + ih f'(x) v, without cancellation. Second derivatives are differences of first.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checks import assert_close
from tape import TapeArrays, Taped, apply, grad, push_through

import pairfold
from pairfold.arrays.numpy import NumpyArrays
from pairfold.arrays.torch import TorchArrays
from pairfold.cluster import from_matrix
from pairfold.core.library import OperationsOn
from pairfold.errors import DerivativeError
from pairfold.frontends.derivatives import batched, differentiable, gradients
from pairfold.frontends.fused import computed_gradients
from pairfold.frontends.ranges import Ranges
from pairfold.frontends.reduction import FormulaReduction
from pairfold.ops import reductions
from pairfold.ops.differentiation import Composition, PullBack, Selection
from pairfold.ops.reductions import REDUCTIONS, Reduction, Result
from pairfold.settings import settings

pytestmark = pytest.mark.usefixtures("interpreted_kernels")

ALIASES = ["x = Vi(2)", "y = Vj(2)", "b = Vj(3)", "c = Vi(1)", "p = Pm(1)"]
K = 3
ROWS, COLUMNS = 4, 5


def _largest(f: Any, g: Any) -> Any:
    return np.take_along_axis(f, f.real.argmax(0)[None], 0)[0]


def _log_sum(f: Any, g: Any) -> Any:
    top = f.real.max(0)
    return top + np.log((np.exp(f - top) * (1 if g is None else g)).sum(0))


def _first(f: Any, g: Any) -> Any:
    found = np.take_along_axis(f, f.real.argsort(0, kind="stable")[:K], 0)
    return np.concatenate([found, np.full((K - len(found), f.shape[1]), math.inf)]).reshape(-1)


def _shifted(f: Any, g: Any) -> Any:
    top = _largest(f, g)
    return np.concatenate([top, (np.exp(f - top) * (1 if g is None else g)).sum(0)])


def _soft(f: Any, g: Any) -> Any:
    weights = np.exp(f - f.real.max(0))
    return (weights * g).sum(0) / weights.sum(0)


# The values of one row, from F (columns, D) and G (columns, E); all as one vector.
DENSE: dict[str, Callable[..., Any]] = {
    "Sum": lambda f, g: f.sum(0),
    "Mean": lambda f, g: f.mean(0),
    "Prod": lambda f, g: f.prod(0),
    "Min": lambda f, g: -_largest(-f, g),
    "Max": _largest,
    "Min_ArgMin": lambda f, g: -_largest(-f, g),
    "Max_ArgMax": _largest,
    "KMin": _first,
    "KMin_ArgKMin": _first,
    "LogSumExp": _log_sum,
    "LogSumExpWeight": _log_sum,
    "SumSoftMaxWeight": _soft,
    "Max_SumShiftExp": _shifted,
    "Max_SumShiftExpWeight": _shifted,
}
PUBLIC = [row for row in REDUCTIONS.values() if not row.internal]
CASES = [
    (row.name, weighted)
    for row in PUBLIC
    for weighted in (False, True)
    if row.differentiated is not None
    and (weighted or row.weighted != "must")
    and not (weighted and row.weighted == "no")
]
case = pytest.mark.parametrize(("name", "weighted"), CASES)


def fold_of(name: str, weighted: bool, axis: int = 1) -> FormulaReduction:
    """The reduction of vectors, or of a scalar where that is asked for."""
    row = REDUCTIONS[name]
    options: dict[str, Any] = {"opt_arg": K} if row.top_k else {}
    if weighted:
        options["formula2"] = "b*c"
    vector = "Sin(p*x-y)+x*y"
    formula = f"Sum({vector})" if weighted or row.scalar else vector
    return pairfold.Genred(formula, ALIASES, name, axis=axis, **options)._fold


def dense(name: str, weighted: bool, axis: int, given: Sequence[Any], met: Any = None) -> Any:
    """The values of every row, of real or complex arguments; `met`: which pairs there are."""
    x, y, b, c, p = given
    f = np.sin(p * x[:, None] - y) + x[:, None] * y
    if weighted or REDUCTIONS[name].scalar:
        f = f.sum(-1, keepdims=True)
    g = b * c[:, None] if weighted else None
    met = np.ones(f.shape[:2], bool) if met is None else met
    if axis == 0:
        f, met = f.swapaxes(0, 1), met.T
        g = None if g is None else g.swapaxes(0, 1)
    rows = [DENSE[name](f[n, m], None if g is None else g[n, m]) for n, m in enumerate(met)]
    return np.array(rows)


def arguments(rows: int = ROWS, columns: int = COLUMNS, seed: int = 0) -> list[Any]:
    """x, y, b, c, p."""
    shapes = [(rows, 2), (columns, 2), (columns, 3), (rows, 1), (1,)]
    source = np.random.default_rng(seed)
    return [source.uniform(0.2, 1.2, shape) for shape in shapes]


def values_of(
    fold: FormulaReduction, given: Sequence[Taped], ranges: Ranges | None = None
) -> Taped:
    """The values among the results, side by side."""
    found = differentiable(fold, TapeArrays, given, ranges, apply)
    assert [TapeArrays.dtype(part) == "int64" for part in found] == [
        result.kind == "index" for result in fold.row.results
    ]
    kinds = zip(fold.row.results, found, strict=True)
    return TapeArrays.concatenated([part for result, part in kinds if result.kind == "value"])


def on_tape(given: Sequence[Any], followed: Sequence[int] = range(5)) -> list[Taped]:
    """The arguments; derivatives go to some of them."""
    return [Taped(array, followed=n in followed) for n, array in enumerate(given)]


def along(name: str, weighted: bool, axis: int, given: Any, moving: Any, met: Any = None) -> Any:
    """The derivative of the dense program, by a complex step."""
    step = 1e-30
    moved = [a + 1j * step * t for a, t in zip(given, moving, strict=True)]
    return dense(name, weighted, axis, moved, met).imag / step


def paired(one: Sequence[Any], other: Sequence[Any]) -> float:
    return float(sum((a * b).sum() for a, b in zip(one, other, strict=True)))


def second_along(name: str, weighted: bool, axis: int, sent: Any, ways: Any) -> float:
    """The derivative along one way of <sent, that along the other>, by differences."""
    given, one, other = ways
    total, step = 0.0, 1e-3
    for k, factor in ((1, 8), (-1, -8), (2, -1), (-2, 1)):
        moved = [a + k * step * t for a, t in zip(given, other, strict=True)]
        total += factor * float((sent * along(name, weighted, axis, moved, one)).sum())
    return total / (12 * step)


def check(name: str, weighted: bool, axis: int) -> None:
    """Value, gradient and tangent."""
    fold = fold_of(name, weighted, axis)
    given, moving = arguments(), arguments(seed=1)
    taped = on_tape(given)
    out = values_of(fold, taped)
    assert_close(out.value, dense(name, weighted, axis, given))
    want = along(name, weighted, axis, given, moving)
    ways = dict(zip(taped, map(Taped, moving), strict=True))
    assert_close(push_through(out, ways).value, want, rtol=1e-12, formula=name)
    sent = np.random.default_rng(3).standard_normal(out.shape)
    found = grad(out, Taped(sent), taped)
    assert_close(paired([g.value for g in found], moving), (sent * want).sum(), rtol=1e-12)


@case
def test_derivatives_of_a_library_that_is_not_torch(name: str, weighted: bool) -> None:
    """Along axis 0; along axis 1 below, in a process without torch."""
    check(name, weighted, 0)


@case
def test_second_derivatives_of_a_library_that_is_not_torch(name: str, weighted: bool) -> None:
    """Those of <gradient, one> along `other`, of two arguments, in reverse and forward mode."""
    followed = (0, 2) if weighted else (0, 1)
    given = arguments()
    one, other = (
        [a if n in followed else 0 * a for n, a in enumerate(arguments(seed=k))] for k in (1, 2)
    )
    taped = on_tape(given, followed)
    out = values_of(fold_of(name, weighted), taped)
    sent = np.random.default_rng(3).standard_normal(out.shape)
    total = Taped(0.0)
    for g, way in zip(grad(out, Taped(sent), taped), one, strict=True):
        total = total + TapeArrays.sum((g * Taped(way)).reshape((way.size, 1)), 0).reshape(())
    want = second_along(name, weighted, 1, sent, (given, one, other))
    second = grad(total, Taped(1.0), taped)
    assert_close(paired([g.value for g in second], other), want, rtol=1e-9)
    tangent = push_through(total, {taped[n]: Taped(other[n]) for n in followed})
    assert_close(tangent.value, want, rtol=1e-9)


def test_every_derivative_is_there_without_torch() -> None:
    program = (
        "import sys; sys.modules['torch'] = None; sys.path.insert(0, sys.argv[1])\n"
        "import test_differentiation as here\n"
        "for name, weighted in here.CASES: here.check(name, weighted, 1)\n"
        "print(len(here.CASES), sys.modules['torch'])"
    )
    folder = str(Path(__file__).parent)
    command = [sys.executable, "-c", program, folder]
    here = {**os.environ, "PAIRFOLD_BACKEND": "reference"}  # what is asked, not machine code
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=here)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(len(CASES)), "None"]
    assert len(CASES) >= len(DENSE)


@pytest.mark.parametrize("axis", [0, 1])
@case
def test_derivatives_of_block_sparse_reductions(name: str, weighted: bool, axis: int) -> None:
    i, j = (np.array([[0, 2], [2, 6]]), np.array([[0, 3], [3, 4], [4, 7]]))
    keep = np.array([[True, False, True], [True, True, False]])
    met = keep.repeat([2, 4], 0).repeat([3, 1, 3], 1)
    ranges = Ranges(from_matrix(i, j, keep))
    fold = fold_of(name, weighted, axis)
    given, moving = arguments(6, 7), arguments(6, 7, seed=1)
    taped = on_tape(given)
    out = values_of(fold, taped, ranges)
    want = dense(name, weighted, axis, given, met)
    assert_close(out.value, want)
    sent = np.where(np.isinf(want), 0.0, np.random.default_rng(3).standard_normal(out.shape))
    got = paired([g.value for g in grad(out, Taped(sent), taped)], moving)
    with np.errstate(invalid="ignore"):  # places without a pair
        slope = along(name, weighted, axis, given, moving, met)
    assert_close(got, (sent * np.where(np.isinf(want), 0, slope)).sum(), rtol=1e-12)


@case
def test_a_batch_axis_is_as_many_calls(name: str, weighted: bool) -> None:
    fold = fold_of(name, weighted)

    def run(part: FormulaReduction, library: Any, arrays: Any, ranges: Any) -> tuple[Any, ...]:
        return part.run(library, arrays, ranges)

    given = arguments()
    beside = [np.stack([given[0], given[0] / 2]), *given[1:]]  # the rows have a batch axis already
    for arrays, axes, size in (
        (given, (0, None, None, None, None), 3),
        (given, (1, 0, None, 2, 0), 3),
        (given, (None, None, None, None, 1), 3),
        (given, (None, None, None, None, 0), 1),
        (beside, (None, 0, 0, None, None), 3),
    ):
        many = [
            a if n is None else np.stack([a * k for k in (0.5, 1, 1.5)[:size]], n)
            for a, n in zip(arrays, axes, strict=True)
        ]
        alone = [
            [a if n is None else a.take(k, n) for a, n in zip(many, axes, strict=True)]
            for k in range(size)
        ]
        for part in _parts(fold):
            got = batched(part, NumpyArrays, many, axes, size, None, run)
            want = zip(*(run(part, NumpyArrays, each, None) for each in alone), strict=True)
            for a, b in zip(got, want, strict=True):
                assert_close(a, np.stack(b))


def _parts(fold: FormulaReduction) -> Iterator[FormulaReduction]:
    """What is called: reductions with a pull-back, or that are constants."""
    how = fold.row.differentiated
    if isinstance(how, Composition):
        for name in how.parts:
            yield from _parts(fold.variant(name))
    else:
        yield fold.variant(how.located) if isinstance(how, Selection) else fold


@case
def test_axes_without_columns_have_gradients_of_zero(name: str, weighted: bool) -> None:
    with np.errstate(divide="ignore", invalid="ignore"):
        taped = on_tape(arguments(columns=0))
        out = values_of(fold_of(name, weighted), taped)
        found = grad(out, Taped(np.where(np.isinf(out.value), 0.0, 1.0)), taped)
    for array, gradient in zip(taped, found, strict=True):
        assert gradient.shape == array.shape
        assert not gradient.value.any()


@pytest.mark.parametrize("name", ["Min", "Max", "KMin"])
def test_places_that_no_pair_took_send_nothing(name: str) -> None:
    sign = -1.0 if name == "Max" else 1.0
    options = {"opt_arg": 6} if name == "KMin" else {}
    x = Taped(np.zeros((2, 1)), followed=True)
    y = Taped(sign * np.array([[3], [math.inf], [math.nan], [1]]), followed=True)
    fold = pairfold.Genred("x+2*y", ["x = Vi(1)", "y = Vj(1)"], name, axis=1, **options)._fold
    out = values_of(fold, [x, y])
    to_x, to_y = grad(out, Taped(np.where(np.isinf(out.value), 0.0, 1.0)), [x, y])
    listed = name == "KMin"
    assert_close(to_x.value, np.full((2, 1), 2.0 if listed else 1.0))
    assert_close(to_y.value, np.array([[4.0 if listed else 0.0], [0], [0], [4]]))


@case
def test_half_precision_is_rounded_once(name: str, weighted: bool) -> None:
    fold = fold_of(name, weighted)
    half = [array.astype("float16") for array in arguments()]
    wide = [array.astype("float32") for array in half]
    results: list[list[Any]] = []
    for given in (half, wide):
        taped = on_tape(given)
        out = values_of(fold, taped)
        sent = Taped(np.ones(out.shape, given[0].dtype))
        results.append([out.value, *(g.value for g in grad(out, sent, taped))])
    for got, want in zip(*results, strict=True):
        assert got.dtype == np.float16
        assert_close(got.astype("float32"), want, rtol=1.02 * 2.0**-11, atol=2e-6)


@settings(backend="llvm")
def test_gradients_from_one_pass_are_those_of_separate_sums() -> None:
    fold = fold_of("Sum", False)
    given = arguments(130, 140)
    incoming = [np.random.default_rng(3).standard_normal((130, 2))]
    calls: list[FormulaReduction] = []

    def run(part: FormulaReduction, library: Any, arrays: Any, ranges: Any) -> tuple[Any, ...]:
        calls.append(part)
        return part.run(library, arrays, ranges)

    both = [
        gradients(fold, NumpyArrays, (0, 1, 4), given, incoming, None, run, sweep)
        for sweep in (None, computed_gradients)
    ]
    assert len(calls) == 3  # the fused pass calls none
    for one, other in zip(*both, strict=True):
        assert_close(one, other, terms=130 * 140)


# -- array libraries ------------------------------------------------------------------------------

OPERATED: dict[str, tuple[Any, ...]] = {
    "dtype": (),
    "cast": ("float32",),
    "detached": (),
    "exp": (),
    "clamped": (-0.25, 0.5),
    "sum": (-2,),
    "sum_to": ((1, 4),),
    "expanded": ((5, 2, 3, 4),),
    "repeated": (3, -2),
    "moved": (-1, 0),
}


@pytest.mark.parametrize("library", ["torch", "tape"])
def test_operations_mean_the_same_in_every_library(library: str) -> None:
    """As NumPy has them; those of the protocol are there, and no test is left out."""
    made: Callable[[Any], Any] = Taped
    adapter: Any = TapeArrays
    if library == "torch":
        torch = pytest.importorskip("torch")
        adapter, made = TorchArrays, torch.from_numpy

    def same(operation: str, arrays: Sequence[Any], *rest: Any, joined: bool = False) -> None:
        both: list[Any] = []
        for of, make in ((NumpyArrays, np.asarray), (adapter, made)):
            given = [make(array) for array in arrays]
            found = getattr(of, operation)(*([given] if joined else given), *rest)
            both.append(found.value if isinstance(found, Taped) else found)
        one, other = map(np.asarray, both)
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        if operation != "dtype":
            assert_close(one, other)
        seen.add(operation)

    seen: set[str] = set()
    source = np.random.default_rng(0)
    x, y = source.standard_normal((2, 2, 3, 4))
    for operation, rest in OPERATED.items():
        same(operation, [x], *rest)
    same("sum_to", [x], (2, 3, 4))
    constants = adapter.constants(x, made(y))
    assert_close(np.asarray(getattr(constants, "value", constants)), x)
    seen.add("constants")
    same("where", [x < y, x, y])
    same("larger", [x, y])
    same("log", [abs(x)])
    same("order", [x.round(), source.permutation(x.size).reshape(x.shape)])
    for dtype in ("float16", "float32"):  # at the bounds of the dtype it stays what it is
        most = float(np.finfo(dtype).max)
        same("clamped", [x.astype(dtype)], -most, most)
    same("stacked", [x, y], joined=True)
    same("concatenated", [x, y[..., :2]], joined=True)
    places = source.integers(0, 3, (2, 7, 1))
    same("taken", [x, places], -2)
    same("taken", [x[:1], places], -2)  # batch axes of either broadcast
    same("taken", [x, places[:1]], -2)
    same("taken", [x[:1, :, :1], places], -2)
    same("selected", [x, np.array([2, 0, 2, 1])], -2)
    same("selected", [x, np.zeros(0, np.int64)], -1)
    wanted = {name for name in vars(OperationsOn) if not name.startswith("_")}
    assert seen == wanted


# -- what rows say ---------------------------------------------------------------------------------


@pytest.mark.parametrize("row", REDUCTIONS.values(), ids=lambda row: row.name)
def test_rows_say_one_way_that_ends_in_pull_backs(row: Reduction) -> None:
    assert row.constant == (row.differentiated is None)
    if not row.internal:
        assert row.derivative.startswith("none") == row.constant
        assert row.constant or row.name in DENSE
    todo = [(row, 0)]
    while todo:
        found, depth = todo.pop()
        assert depth < 5, "a circle"
        how = found.differentiated
        if isinstance(how, Composition):
            todo += [(REDUCTIONS[name], depth + 1) for name in how.parts]
        elif isinstance(how, Selection):
            located = REDUCTIONS[how.located]
            assert [result.kind for result in located.results] == ["value", "index"]
            assert located.identity[0] == found.identity[0]
            assert found.selects
        else:
            assert isinstance(how, PullBack) or row is found


@pytest.fixture
def wrong_row(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], FormulaReduction]:
    """A fold whose row, a copy of the sum's, says something else."""

    def make(how: Any, **fields: Any) -> FormulaReduction:
        row = replace(REDUCTIONS["Sum"], name="Wrong", differentiated=how, **fields)
        monkeypatch.setitem(reductions.REDUCTIONS, "Wrong", row)
        return FormulaReduction(*_parts_of(fold_of("Sum", False)))

    return make


def _parts_of(fold: FormulaReduction) -> tuple[Any, ...]:
    return fold.formula, fold.variables, "Wrong", fold.kept, fold.names


@pytest.mark.parametrize(
    ("how", "found"),
    [
        (Composition(("Nothing",)), "no reduction Nothing"),
        (Composition(("Sum",), lambda library, parts, count: []), "0 results of Sum"),
        (Selection("Nothing"), "no reduction Nothing"),
        (Selection("Sum"), "results of Sum: value"),
        (Selection("ArgMin"), "results of ArgMin: index"),
    ],
)
def test_rows_that_cannot_work_are_errors(wrong_row: Any, how: Any, found: str) -> None:
    with pytest.raises(DerivativeError, match=found):
        values_of(wrong_row(how), on_tape(arguments()))


def test_other_results_of_selections_are_errors(wrong_row: Any) -> None:
    fold = wrong_row(Selection("Min_ArgMin"), results=(Result("truth"),))
    with pytest.raises(DerivativeError, match="results of Min_ArgMin: value, index"):
        differentiable(fold, TapeArrays, on_tape(arguments()), None, apply)


def test_values_without_a_derivative_are_computed_and_not_differentiated(wrong_row: Any) -> None:
    fold = wrong_row(None)
    taped = on_tape(arguments())
    out = values_of(fold, taped)
    assert_close(out.value, dense("Sum", False, 1, arguments()))
    with pytest.raises(DerivativeError, match="Wrong has no derivative"):
        grad(out, Taped(np.ones(out.shape)), taped)
    with pytest.raises(DerivativeError, match="Wrong has no derivative"):
        push_through(out, {taped[0]: taped[0]})


def test_torch_says_so_too(wrong_row: Any) -> None:
    torch = pytest.importorskip("torch")
    from pairfold.frontends.torch import call

    fold = wrong_row(None)
    tensors = [torch.tensor(array, requires_grad=True) for array in arguments()]
    adapter = TorchArrays
    out = call(fold, adapter, tensors, None)
    assert_close(out.detach().numpy(), dense("Sum", False, 1, arguments()))
    with pytest.raises(DerivativeError, match="Wrong has no derivative"):
        out.sum().backward()
    with pytest.raises(DerivativeError, match="no reduction Nothing"):
        call(wrong_row(Composition(("Nothing",))), adapter, tensors, None)


@pytest.mark.parametrize("name", [row.name for row in PUBLIC if row.constant])
def test_whole_numbers_are_constants(name: str) -> None:
    fold = fold_of(name, False)
    (out,) = differentiable(fold, TapeArrays, on_tape(arguments()), None, apply)
    assert not out.followed
    assert out.value.dtype == (np.bool_ if name in ("Any", "All") else np.int64)
