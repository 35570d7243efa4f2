"""Kernels of several accumulators: each gives what its reduction gives alone, on every backend."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from checks import assert_close, assert_same_bits
from products import every_pair, some

from pairfold import Genred
from pairfold.arrays.numpy import NumpyArrays
from pairfold.arrays.torch import DeviceTensors
from pairfold.arrays.torch_device import TorchDevice
from pairfold.backends.chosen import TRITON
from pairfold.backends.llvm.fused_launch import FusedLauncher
from pairfold.backends.llvm.program import write
from pairfold.backends.reference import interpreter
from pairfold.cluster import from_matrix
from pairfold.core.node import Axis
from pairfold.core.scalars import reachable
from pairfold.errors import InternalError, UnsupportedError
from pairfold.frontends import partial
from pairfold.frontends.devices import OnGpu
from pairfold.frontends.fused import MOST_TOGETHER, FusedReductions, Several
from pairfold.frontends.ranges import Ranges
from pairfold.frontends.reduction import FormulaReduction
from pairfold.lower.accumulators import Folded
from pairfold.lower.distance import distance as distance_of
from pairfold.lower.kernel import COLUMN, ROW, Kernel, lower_all
from pairfold.lower.schedule import Accumulation
from pairfold.ops.reductions import REDUCTIONS
from pairfold.ops.states import states_of
from pairfold.ops.table import OPERATIONS
from pairfold.settings import current, settings

Array = Any
ALIASES = ["x = Vi(3)", "y = Vj(3)", "b = Vj(1)", "p = Pm(1)"]
DISTANCE, GAUSSIAN, EXPONENT = "SqDist(x,y)", "Exp(-p*SqDist(x,y))", "-p*SqDist(x,y)"


def distance(x: Array, y: Array, b: Array, p: Array) -> Array:
    return np.square(x[..., :, None, :] - y[..., None, :, :]).sum(-1)[..., None]


def gaussian(x: Array, y: Array, b: Array, p: Array) -> Array:
    return np.exp(-p * distance(x, y, b, p))


def near(x: Array, y: Array, b: Array, p: Array) -> Array:
    return (x[..., :, None, :] - y[..., None, :, :] >= 0.5) * 1.0


def exponent(x: Array, y: Array, b: Array, p: Array) -> Array:
    return -p * distance(x, y, b, p)


def weighted(x: Array, y: Array, b: Array, p: Array) -> Array:
    """F, followed by a weight that is y."""
    f = exponent(x, y, b, p)
    weight = np.broadcast_to(y[..., None, :, :], (*f.shape[:-1], 3))
    return np.concatenate([f, weight], -1)


def weighted_by_squares(*given: Array) -> Array:
    return weighted(*given) * np.array([1.0, 0, 0, 0]) + np.square(weighted(*given)) * [0, 1, 1, 1]


def apart(x: Array, y: Array, b: Array, p: Array) -> Array:
    return x[..., :, None, :] - y[..., None, :, :]


# A reduction, its formula, what every pair's values are.
PARTS: dict[str, tuple[str, Any]] = {
    "Sum": (f"{GAUSSIAN}*y", lambda x, y, b, p: gaussian(x, y, b, p) * y[..., None, :, :]),
    "Max": (DISTANCE, distance),
    "ArgMin": (DISTANCE, distance),
    "Count": ("Step(x-y-0.5)", near),
    "Mean": (f"{GAUSSIAN}*b", lambda x, y, b, p: gaussian(x, y, b, p) * b[..., None, :, :]),
    "Any": ("Step(x-y-0.5)", near),
    "Prod": (f"{DISTANCE}/4", lambda *given: distance(*given) / 4),
    "All": ("Step(x-y-0.5)", near),
    "Min_ArgMin": (DISTANCE, distance),
    "Max_ArgMax": (f"{GAUSSIAN}*b", lambda x, y, b, p: gaussian(x, y, b, p) * b[..., None, :, :]),
}
RUNNING = tuple(PARTS)
PARTS |= {
    "LogSumExp": ("x-y", apart),
    "LogSumExpWeight": (EXPONENT, weighted_by_squares),
    "SumSoftMaxWeight": (EXPONENT, weighted),
    "Max_SumShiftExp": (EXPONENT, exponent),
    "Max_SumShiftExpWeight": (EXPONENT, weighted),
    "KMin": ("x-y", apart),
    "ArgKMin": (DISTANCE, distance),
    "KMin_ArgKMin": (DISTANCE, distance),
}
MAX_SHIFTED = tuple(PARTS)[len(RUNNING) : -3]
TOP_K = tuple(PARTS)[-3:]
FG = "Max_SumShiftExpWeight"
# What they take besides; lists of more than 16 places are filled in another way.
OPTIONS: dict[str, dict[str, Any]] = {
    "LogSumExpWeight": {"formula2": "Square(y)"},
    "SumSoftMaxWeight": {"formula2": "y"},
    "Max_SumShiftExpWeight": {"formula2": "y"},
    "KMin": {"opt_arg": 4},
    "ArgKMin": {"opt_arg": 3},
    "KMin_ArgKMin": {"opt_arg": 20},
}


def shifted(f: Array, weight: Array | float = 1.0) -> list[Array]:
    """m = max F, and sum e^(F - m) G."""
    top = f.max(0, initial=-np.inf)
    return [top, (np.exp(f - top) * weight).sum(0)]


def smallest(f: Array, count: int) -> list[Array]:
    """The first values and their columns, place after place, padded with inf and 0."""
    order = f.argsort(0, kind="stable")[:count]
    padding = [(0, count - len(order))] + [(0, 0)] * (f.ndim - 1)
    values = np.pad(np.take_along_axis(f, order, 0), padding, constant_values=np.inf)
    found = [np.moveaxis(part, 0, -2) for part in (values, np.pad(order, padding))]
    return [part.reshape((*part.shape[:-2], count * part.shape[-1])) for part in found]


MEANT: dict[str, Any] = {
    "Sum": lambda f: [f.sum(0)],
    "Max": lambda f: [f.max(0, initial=-np.inf)],
    "ArgMin": lambda f: [f.argmin(0) if len(f) else np.zeros(f.shape[1:])],
    "Count": lambda f: [(f != 0).sum(0)],
    "Mean": lambda f: [f.sum(0) / len(f)],
    "Any": lambda f: [(f != 0).any(0)],
    "Prod": lambda f: [f.prod(0)],
    "All": lambda f: [(f != 0).all(0)],
    "Min_ArgMin": lambda f: [f.min(0, initial=np.inf), *MEANT["ArgMin"](f)],
    "Max_ArgMax": lambda f: [f.max(0, initial=-np.inf), *MEANT["ArgMin"](-f)],
    "LogSumExp": lambda f: [shifted(f)[0] + np.log(shifted(f)[1])],
    "LogSumExpWeight": lambda f: [f[..., :1].max(0, initial=-np.inf) + np.log(MEANT[FG](f)[1])],
    "SumSoftMaxWeight": lambda f: [MEANT[FG](f)[1] / shifted(f[..., :1])[1]],
    "Max_SumShiftExp": shifted,
    "Max_SumShiftExpWeight": lambda f: shifted(f[..., :1], f[..., 1:]),
    "KMin": lambda f: smallest(f, 4)[:1],
    "ArgKMin": lambda f: smallest(f, 3)[1:],
    "KMin_ArgKMin": lambda f: smallest(f, 20),
}
# Those of one form, sums alone (whose factors leave them), and those without a sum.
MIXTURES = {
    "running": RUNNING,
    "max-shifted": MAX_SHIFTED,
    "top-k": TOP_K,
    "sums": ("Sum", "Mean", "Sum"),
    "selected": ("ArgMin", "Max", "Min_ArgMin", "Max_ArgMax"),
    "pair": ("Min_ArgMin", "Sum"),
    "nearest": ("ArgKMin", "Sum"),
    "shifted": ("Max", "LogSumExp", "SumSoftMaxWeight", "Max_SumShiftExp"),
    "three": ("SumSoftMaxWeight", "KMin_ArgKMin", "Count", "KMin"),
}
SEVERAL = list(MIXTURES)
MIXTURES["all"] = tuple(PARTS)
SIZES = [(17, 23), (1, 1), (17, 0), (0, 23), (70, 300)]


def fold_of(name: str, axis: int, **options: Any) -> FormulaReduction:
    options = {**OPTIONS.get(name, {}), **options}
    return Genred(PARTS[name][0], ALIASES, name, axis=axis, **options)._fold


def folds_of(mixture: str, axis: int = 1, **options: Any) -> list[FormulaReduction]:
    return [fold_of(name, axis, **options) for name in MIXTURES[mixture]]


def draw(
    rows: int, columns: int, dtype: str = "float32", batches: Any = ((),) * 4, seed: int = 0
) -> list[Array]:
    random = np.random.default_rng(seed)
    shapes = [(rows, 3), (columns, 3), (columns, 1), (1,)]
    *found, scale = (
        random.standard_normal((*batch, *shape)).astype(dtype)
        for batch, shape in zip(batches, shapes, strict=True)
    )
    return [*found, np.abs(scale) / 8 + scale.dtype.type(0.125)]


def compare(folds: list[FormulaReduction], got: Any, want: Any, dtype: str, terms: int) -> None:
    """Selections, counts and truth values are the same; sums up to rounding."""
    assert len(got) == len(want)
    rows = [(fold.row, result) for fold in folds for result in fold.row.results]
    for one, other, (row, result) in zip(got, want, rows, strict=True):
        one, other = np.asarray(one), np.asarray(other)
        assert (one.shape, one.dtype) == (other.shape, other.dtype)
        if row.selects or result.kind in ("index", "truth"):
            assert_same_bits(one, other, formula=row.name)
        else:
            rtol = 40 * np.finfo(dtype).eps * max(1, terms) ** 0.5
            assert_close(one, other, rtol=rtol, formula=row.name)


def oracle(name: str, given: list[Array], axis: int) -> list[Array]:
    wide = [array.astype(np.float64) for array in given]
    pairs = np.moveaxis(PARTS[name][1](*wide), -3 + axis, 0)
    with np.errstate(all="ignore"):
        return MEANT[name](pairs)


def check(
    mixture: str,
    given: list[Array],
    axis: int = 1,
    ranges: Ranges | None = None,
    library: Any = NumpyArrays,
    **options: Any,
) -> list[Array]:
    """One pass equals separate folds, and (over all pairs) what NumPy says."""
    folds = folds_of(mixture, axis)
    dtype = str(given[0].dtype).removeprefix("torch.")
    terms = given[axis].shape[-2]
    with settings(**options):
        got = Several(folds).run(library, given, ranges)
        want = [result for fold in folds for result in fold.run(library, given, ranges)]
    got, want = ([np.asarray(result) for result in found] for found in (got, want))
    compare(folds, got, want, dtype, terms)
    if ranges is None:
        plain = [np.asarray(array) for array in given]
        meant = [result for name in MIXTURES[mixture] for result in oracle(name, plain, axis)]
        for one, other in zip(got, meant, strict=True):
            with np.errstate(over="ignore"):
                other = other.astype(one.dtype)
            rtol = 100 * np.finfo(dtype).eps * max(1, terms)
            one, other = (array.astype(np.float64) for array in (one, other))
            assert_close(one, other, rtol=rtol, atol=rtol, formula=mixture)
    return got


@every_pair(
    ("mixture", SEVERAL),
    ("size", SIZES),
    ("dtype", ["float32", "float64", "float16"]),
    ("axis", [0, 1]),
    ids=str,
)
def test_each_accumulator_gives_what_its_reduction_gives(
    mixture: str, size: tuple[int, int], dtype: str, axis: int
) -> None:
    check(mixture, draw(*size, dtype), axis)


PLANS: list[dict[str, Any]] = [
    {"lanes": "row"},
    {"lanes": "column"},
    {"lanes": "row", "splits": 3, "block": 32},
    {"lanes": "column", "splits": 2, "block": 64, "row_vectors": 1},
    {"row_vectors": 1, "column_jam": 4},
    {"row_vectors": 4, "column_jam": 2, "row_tiles": 1},
    {"rules": "exact"},
    {"rules": "all", "unroll": 2},
    {"target": "avx2"},
    {"target": "baseline", "lanes": "column"},
    {"threads": 1},
]


PLANNED, DTYPES = ("running", "sums", "shifted", "three"), ("float32", "float64")


def every_other(entry: tuple[dict[str, Any], str, str, int]) -> bool:
    """Half of the mixtures with each plan, the other half with the next; one dtype and axis."""
    plan, mixture = PLANS.index(entry[0]), PLANNED.index(entry[1])
    own = DTYPES[(plan + mixture) // 2 % 2], (plan + mixture // 2) % 2
    return (plan + mixture) % 2 == 0 and entry[2:] == own


@some(
    "plan,mixture,dtype,axis",
    list(itertools.product(PLANS, PLANNED, DTYPES, (0, 1))),
    every_other,
    ids=str,
)
def test_every_plan(plan: dict[str, Any], mixture: str, dtype: str, axis: int) -> None:
    check(mixture, draw(70, 300, dtype), axis, **plan)


BATCHES = [((2,),) * 4, ((2, 1), (3,), (1, 3), ()), ((0,), (), (), ())]


@some(
    "mixture,batches,axis",
    list(itertools.product(SEVERAL, BATCHES, (0, 1))),
    lambda entry: entry[2] == len(entry[0]) % 2,
)
def test_batches(mixture: str, batches: Any, axis: int) -> None:
    folds = folds_of(mixture, axis)
    given = draw(17, 23, "float32", batches)
    got = Several(folds).run(NumpyArrays, given)
    want = [result for fold in folds for result in fold.run(NumpyArrays, given)]
    compare(folds, got, want, "float32", 23)


def ranges_of(rows: int, columns: int) -> Ranges:
    """Three blocks of rows, four of columns; the second block of rows meets none."""
    cuts = [np.linspace(0, size, n + 1).astype(int) for size, n in ((rows, 3), (columns, 4))]
    keep = np.array([[1, 0, 1, 1], [0, 0, 0, 0], [0, 1, 0, 0]], bool)
    return Ranges(from_matrix(*(np.stack([cut[:-1], cut[1:]], 1) for cut in cuts), keep))


@some(
    "mixture,lanes",
    list(itertools.product(SEVERAL, ("row", "column"))),
    lambda entry: (entry[1] == "row") == (SEVERAL.index(entry[0]) % 2 == 0),
)
def test_ranges(mixture: str, lanes: str) -> None:
    for axis, backend in ((0, "llvm"), (1, "llvm"), (1, "reference")):
        given = draw(70, 90)
        check(mixture, given, axis, ranges_of(70, 90), lanes=lanes, backend=backend)


def test_arrays_of_any_strides() -> None:
    x, y, b, p = draw(70, 80)
    views = [x[::-2], np.asfortranarray(y)[5:], np.broadcast_to(b[:1], (75, 1)), p]
    check("three", views)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("size", [(17, 23), (3, 0), (1, 1)], ids=str)
def test_the_interpreter_takes_any_list(size: tuple[int, int], axis: int) -> None:
    for mixture in SEVERAL:
        check(mixture, draw(*size, "float64"), axis, backend="reference")


@pytest.mark.parametrize("backend", ["llvm", "reference"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_states_are_accumulators_like_others(backend: str, dtype: str) -> None:
    names = ("Sum", "Min_ArgMin", "Prod", "Mean", "KMin", "SumSoftMaxWeight", "LogSumExp")
    folds = [fold_of(name, 1).variant(states_of(name)) for name in names]
    given = draw(40, 61, dtype)
    with settings(backend=backend, splits=2):
        got = Several(folds).run(NumpyArrays, given)
        want = [result for fold in folds for result in fold.run(NumpyArrays, given)]
    compare(folds, got, want, dtype, 61)
    assert [result.dtype for result in got] == [np.dtype("float64")] * 12


@every_pair(
    ("mixture", SEVERAL),
    ("backend", ["llvm", "reference"]),
    ("dtype", ["float32", "float64"]),
    ids=str,
)
def test_columns_in_parts(mixture: str, backend: str, dtype: str) -> None:
    """Any cut of the columns, one part of them empty, merged in another order."""
    folds, given = folds_of(mixture), draw(17, 61, dtype)
    together = Several(folds)
    x, y, b, p = given
    with settings(backend=backend):
        parts = [
            partial.partial(together, NumpyArrays, [x, y[low:high], b[low:high], p], low)
            for low, high in ((0, 5), (5, 5), (5, 40), (40, 61))
        ]
    whole = parts[2]
    for other in (parts[0], parts[3], parts[1]):
        whole = partial.merged(together, NumpyArrays, other, whole)
    assert [part.shape for part in whole] == [(17, width) for width in partial.widths(together)]
    got = partial.finished(together, NumpyArrays, whole, 61, dtype)
    meant = [result for name in MIXTURES[mixture] for result in oracle(name, given, 1)]
    for one, other in zip(got, meant, strict=True):
        bound = 100 * np.finfo(dtype).eps * 61
        assert_close(one.astype(np.float64), other, rtol=bound, atol=bound, formula=mixture)


def test_rows_and_columns_in_one_pass_leave_no_states() -> None:
    together = FusedReductions([fold_of("Max", 1), fold_of("Sum", 0)], Axis.I)
    with pytest.raises(UnsupportedError, match="no partial states"):
        partial.partial(together, NumpyArrays, draw(17, 23))


@pytest.mark.parametrize(
    ("dtype", "options"),
    [
        ("float32", {"sum_scheme": "kahan_scheme"}),
        ("float64", {"sum_scheme": "kahan_scheme"}),
        ("float32", {"dtype_acc": "float64"}),
        ("float64", {"dtype_acc": "float64"}),
        ("float32", {"dtype_acc": "float32"}),  # for float64 it would be narrower: refused
    ],
    ids=str,
)
def test_accumulation_is_accurate_enough_for_each(dtype: str, options: dict[str, Any]) -> None:
    folds = [fold_of(name, 1, **options) for name in ("Sum", "Mean")]
    folds += [fold_of(name, 1) for name in ("ArgMin", "Prod", "Count")]
    given = draw(40, 700, dtype)
    for plan in ({}, {"lanes": "column"}, {"splits": 3}):
        with settings(**plan):
            got = Several(folds).run(NumpyArrays, given)
            want = [result for fold in folds for result in fold.run(NumpyArrays, given)]
        compare(folds, got, want, dtype, 700)


def test_compensation_is_for_sums_alone() -> None:
    """Sums that cancel: 1, a small number and -1, in another order in each split."""
    small, count = 2.0**-60, 3 * 64
    y = np.zeros((count, 1))
    y[0], y[64], y[128] = 1.0, small, -1.0
    x = np.zeros((5, 1))
    aliases = ["x = Vi(1)", "y = Vj(1)"]
    folds = [
        Genred("x+y", aliases, name, axis=1)._fold for name in ("Max", "Sum", "Prod", "ArgMin")
    ]
    with settings(splits=3, block=8):
        top, total, product, place = Several(folds).run(NumpyArrays, [x, y])
    assert_same_bits(total, np.full((5, 1), small))
    assert_same_bits(top, np.full((5, 1), 1.0))
    assert_same_bits(product, np.zeros((5, 1)))
    assert_same_bits(place, np.full((5, 1), 128))


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("where", [0, 1, 2])
def test_values_that_are_not_finite(where: int, value: float) -> None:
    given = draw(40, 61)
    given[where][3, 0] = value
    folds = folds_of("all")
    got = Several(folds).run(NumpyArrays, given)
    want = [result for fold in folds for result in fold.run(NumpyArrays, given)]
    compare(folds, got, want, "float32", 61)


def test_results_are_compared_with_the_reference() -> None:
    check("all", draw(17, 23), check=2)


FORMS = ("Sum", "ArgMin", "LogSumExp", "SumSoftMaxWeight", "ArgKMin", "KMin_ArgKMin")
FEW: list[dict[str, Any]] = [{}, {"lanes": "column"}, {"splits": 3, "block": 32}]


@pytest.mark.parametrize(
    ("names", "plan"),
    [(names, FEW[n % 3]) for n, names in enumerate(itertools.permutations(FORMS, 2))],
    ids=str,
)
def test_every_pair_of_forms(names: tuple[str, str], plan: dict[str, Any]) -> None:
    """In either order, with few rows and many columns, too."""
    folds = [fold_of(name, 1) for name in names]
    given = draw(5, 700, "float64" if "LogSumExp" in names else "float32")
    with settings(check=1, **plan):
        got = Several(folds).run(NumpyArrays, given)
    meant = [result for name in names for result in oracle(name, given, 1)]
    for one, other in zip(got, meant, strict=True):
        assert_close(one.astype(np.float64), other, rtol=1e-3, atol=1e-3, formula=str(names))


@pytest.mark.parametrize("lanes", ["row", "column"])
def test_exponents_that_no_sum_could_hold(lanes: str) -> None:
    """Each accumulator has maxima of its own: of F, and of 500 F, which differ by far."""
    x, y, b, p = draw(19, 61, "float64")
    folds = [
        Genred(f"{scale}*{EXPONENT}", ALIASES, name, axis=1, **OPTIONS.get(name, {}))._fold
        for scale in (1, 500)
        for name in ("LogSumExp", "SumSoftMaxWeight")
    ]
    with settings(lanes=lanes):
        got = Several([*folds[:3], fold_of("ArgKMin", 1), folds[3]]).run(NumpyArrays, [x, y, b, p])
    found = exponent(x, y, b, p)
    weights = np.exp(500 * (found - found.max(1, keepdims=True)))
    assert_close(got[2], 500 * found.max(1) + np.log(weights.sum(1)), rtol=1e-9)
    assert_close(got[4], (weights * y).sum(1) / weights.sum(1), rtol=1e-9)
    assert_close(got[0], np.log(np.exp(found).sum(1)), rtol=1e-9)


def test_results_as_users_see_them() -> None:
    folds = folds_of("pair")
    given = draw(17, 23)
    (value, index), total = Several(folds)(NumpyArrays, given)
    (smallest, place), whole = (fold(NumpyArrays, given) for fold in folds)
    for one, other in ((value, smallest), (index, place)):
        assert_same_bits(one, other)
    assert_close(total, whole, terms=23)


# -- the kernel -----------------------------------------------------------------------------------


def pair_values(kernel: Kernel) -> int:
    """Values that are computed for each pair, those of the reductions' rules apart."""
    return len([v for v in reachable(kernel.outputs) if v.kind == "real"])


def test_what_formulas_share_is_computed_once() -> None:
    folds = [
        Genred(f, ALIASES, name, axis=1)._fold
        for name, f in (("Max", GAUSSIAN), ("ArgMin", DISTANCE), ("Sum", f"{GAUSSIAN}*b"))
    ]
    whole, (largest, nearest, summed) = Several(folds).kernel(), (f.kernel() for f in folds)
    assert pair_values(whole) < pair_values(largest) + pair_values(nearest)
    exponentials = [v for v in reachable(whole.outputs) if v.what == "exp"]
    assert len(exponentials) == 1
    assert whole.outputs[1] in reachable(whole.outputs[:1])
    assert summed.dim == 1
    twice = Several([folds[0], folds[0]]).kernel()
    assert pair_values(twice) == pair_values(largest)


def test_components_results_and_places_of_accumulators() -> None:
    kernel = Several(folds_of("running")).kernel()
    names = [each.rule.name for each in kernel.accumulators]
    assert names == list(RUNNING)
    assert [each.first for each in kernel.accumulators][:4] == [0, 3, 4, 5]
    assert kernel.dim == kernel.places == sum(each.count for each in kernel.accumulators)
    assert kernel.parts == kernel.dim + 3  # three have an index beside each value
    assert kernel.results == (3, 1, 1, 3, 1, 3, 1, 3, 1, 1, 1, 1)
    assert kernel.kinds[2] == "index"
    assert kernel.owner(4).rule.name == "ArgMin"


def test_places_of_totals_lists_and_maxima() -> None:
    names = ("Sum", "SumSoftMaxWeight", "LogSumExp", "ArgKMin")
    kernel = Several([fold_of(name, 1) for name in names]).kernel()
    mean, logarithm, nearest = kernel.accumulators[1:]
    assert [each.first for each in kernel.accumulators] == [0, 3, 7, 10]
    assert (mean.last, kernel.outputs[6]) == (6, mean.total)
    assert (mean.top, logarithm.top, kernel.maxima, len(kernel.logits)) == (0, 1, 4, 4)
    assert (kernel.dim, kernel.places, len(kernel.outputs)) == (10, 11, 11)
    assert (kernel.lists, nearest.kept) == ((nearest,), 2 * 4)
    assert kernel.owner(6) is mean
    assert kernel.owner(7) is logarithm


def test_the_same_exponents_have_the_same_maxima() -> None:
    """Terms are then the same, too: one exponential for both, and a number more to add up."""
    names = ("LogSumExp", "SumSoftMaxWeight", "Max_SumShiftExp", "Max_SumShiftExpWeight")
    kernel = Several([fold_of(name, 1) for name in names]).kernel()
    assert [each.top for each in kernel.accumulators] == [0, 3, 3, 3]
    assert [each.shares for each in kernel.accumulators] == [False, False, True, True]
    assert (kernel.maxima, len(kernel.logits)) == (4, 4)
    exponentials = [v for v in reachable(kernel.outputs) if v.what == "exp"]
    assert len(exponentials) == 4
    log = [fold_of("SumSoftMaxWeight", 1).variant("LogSumExp").folded()[0] for _ in range(2)]
    part = Folded(OPERATIONS["Elem"](fold_of("LogSumExp", 1).formula, 2), REDUCTIONS["LogSumExp"])
    kernel = lower_all([fold_of("LogSumExp", 1).folded()[0], *log, part], Axis.I, 16)
    assert [each.top for each in kernel.accumulators] == [0, 3, 3, 2]
    assert kernel.maxima == 4


def fused_kernel(columns: tuple[str, ...]) -> Kernel:
    """Sums and others kept on rows, the same kept on columns."""
    asked = [
        Folded(fold_of(name, 1).formula, REDUCTIONS[name], axis=axis)
        for axis, names in ((ROW, ("Sum", "Max")), (COLUMN, columns))
        for name in names
    ]
    return lower_all(asked, Axis.I, 16, True, fused=True)


def test_the_interpreter_keeps_rows_and_columns() -> None:
    names = ("ArgMin", "Sum", "Count", "Mean", "Min_ArgMin")
    kernel = fused_kernel(names)
    given = draw(17, 23, "float64")
    got = interpreter.evaluate_all(kernel, dict(enumerate(given)), 17, 23)
    want = [r for name in ("Sum", "Max") for r in oracle(name, given, 1)]
    want += [r for name in names for r in oracle(name, given, 0)]
    for one, other in zip(got, want, strict=True):
        assert_close(one, other, terms=23)


ROWS_OF = [("Max", "Mean"), ("LogSumExp",), ("SumSoftMaxWeight", "ArgKMin"), ("KMin_ArgKMin",)]
ROWS_OF += [("Count", "KMin", "Max_SumShiftExpWeight", "LogSumExp", "Sum")]


@every_pair(
    ("names", ROWS_OF),
    ("axis", [0, 1]),
    ("dtype", ["float32", "float64", "float16"]),
    ("plan", [{}, {"splits": 3, "block": 32}, {"row_vectors": 1}, {"target": "baseline"}]),
    ("size", [(17, 23), (300, 70), (1, 1), (0, 23), (17, 0)]),
    (
        "across",
        [("Sum",), ("Max", "Mean"), ("Sum", "Prod", "Count", "Sum"), ("All", "Any", "Mean")],
    ),
    ids=str,
)
def test_rows_of_any_form_and_columns_in_one_pass(
    names: tuple[str, ...],
    axis: int,
    dtype: str,
    plan: dict[str, Any],
    size: tuple[int, int],
    across: tuple[str, ...],
) -> None:
    kept = (Axis.J, Axis.I)[axis]
    given = draw(*size, dtype)
    folds = [fold_of(name, 1 - axis) for name in across]
    folds += [fold_of(name, axis) for name in names]
    together = FusedReductions(folds, kept)
    assert together.order == [*range(len(across), len(folds)), *range(len(across))]
    meant = [result for name in names for result in oracle(name, given, axis)]
    meant += [result for name in across for result in oracle(name, given, 1 - axis)]
    with settings(check=1, **plan):
        assert together.fuses(NumpyArrays, given) == (0 not in size)
        got = together.run(NumpyArrays, given)
    assert len(got) == len(meant)
    for one, other in zip(got, meant, strict=True):
        bound = 100 * np.finfo(dtype).eps * max(size)
        assert one.shape == other.shape
        with np.errstate(over="ignore"):
            other = other.astype(one.dtype).astype(np.float64)
        assert_close(one.astype(np.float64), other, rtol=bound, atol=bound, formula=str(names))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_many_blocks_of_rows_and_of_columns(dtype: str) -> None:
    names, across, given = ("SumSoftMaxWeight", "ArgKMin"), ("Max", "Mean"), draw(3000, 900, dtype)
    together = FusedReductions(
        [fold_of(n, 1) for n in names] + [fold_of(n, 0) for n in across], Axis.I
    )
    assert together.fuses(NumpyArrays, given)
    parts = together.binding(NumpyArrays, given).launcher.bind(3000, 900, 1, current()).parts
    assert parts.row_blocks > 1
    got = together.run(NumpyArrays, given)
    meant = [result for name in names for result in oracle(name, given, 1)]
    meant += [result for name in across for result in oracle(name, given, 0)]
    for one, other in zip(got, meant, strict=True):
        bound = 2000 * np.finfo(dtype).eps
        assert_close(one.astype(np.float64), other, rtol=bound, atol=bound)


def test_batches_ranges_and_lanes_of_columns_in_passes() -> None:
    """Batches are one pass; there are no ranges, nor lanes of columns, in such."""
    folds = [fold_of("LogSumExp", 1), fold_of("ArgKMin", 1), fold_of("Sum", 0)]
    together, given = FusedReductions(folds, Axis.I), draw(17, 23, "float32", BATCHES[1])
    assert together.fuses(NumpyArrays, given)
    compare(folds, together.run(NumpyArrays, given), apart_of(folds, given), "float32", 23)
    given, ranges = draw(40, 60), ranges_of(40, 60)
    assert not together.fuses(NumpyArrays, given, ranges)
    for backend in ("llvm", "reference"):
        with settings(lanes="column", backend=backend):
            assert not together.fuses(NumpyArrays, given)
            got = together.run(NumpyArrays, given)
        compare(folds, got, apart_of(folds, given), "float32", 60)


def apart_of(folds: list[FormulaReduction], given: list[Array]) -> list[Array]:
    return [result for fold in folds for result in fold.run(NumpyArrays, given)]


@pytest.mark.parametrize("name", ["ArgMin", "Max_ArgMax"])
def test_columns_keep_no_numbers_of_rows_in_one_pass(name: str) -> None:
    kernel = fused_kernel(("Sum", name))
    folds, given = [fold_of("LogSumExp", 1), fold_of(name, 0)], draw(17, 23)
    together = FusedReductions(folds, Axis.I)
    assert not together.fuses(NumpyArrays, given)
    compare(folds, together.run(NumpyArrays, given), apart_of(folds, given), "float32", 23)
    launcher = FusedLauncher(kernel, "float32", Accumulation("float32", "float64"))
    assert not launcher.fuses
    with pytest.raises(UnsupportedError, match="columns keep one number"):
        write(kernel, launcher.plan(17, 23, current()), "run")


def test_rows_come_first() -> None:
    formula = fold_of("Sum", 1).formula
    asked = [Folded(formula, REDUCTIONS["Sum"], axis=axis) for axis in (COLUMN, ROW)]
    with pytest.raises(InternalError, match="rows come first"):
        lower_all(asked, Axis.I, 16, fused=True)
    with pytest.raises(InternalError, match="fused kernels"):
        lower_all(asked[::-1], Axis.I, 16)


NEAREST = {"Min": 0, "ArgKMin": 3, "KMin_ArgKMin": 20, "Min_ArgMin": 0, "KMin": 5}


def near_ones(dtype: str = "float32", rows: int = 90, columns: int = 3000) -> list[Array]:
    """Clusters of points, so that most pairs are far apart."""
    random = np.random.default_rng(0)
    centres = 30 * random.standard_normal((40, 24))
    found = [centres[random.integers(0, 40, n)] for n in (rows, columns)]
    found = [points + random.standard_normal(points.shape) for points in found]
    return [points.astype(dtype) for points in (*found, random.standard_normal((columns, 1)))]


@every_pair(
    ("formula", ["SqDist(x,y)", "Norm2(x-y)"]),
    ("dtype", ["float32", "float64"]),
    ("names", [("Min", "ArgKMin"), ("KMin_ArgKMin", "Min_ArgMin", "KMin"), tuple(NEAREST)]),
    ("plan", [{}, {"splits": 2}, {"target": "avx2"}, {"row_vectors": 1, "column_jam": 4}]),
    ids=str,
)
def test_bounds_rule_out_pairs_that_matter_to_none(
    formula: str, dtype: str, names: tuple[str, ...], plan: dict[str, Any]
) -> None:
    aliases = ["x = Vi(24)", "y = Vj(24)"]
    folds = [Genred(formula, aliases, n, axis=1, opt_arg=NEAREST[n])._fold for n in names]
    given = near_ones(dtype)[:2]
    together = Several(folds)
    with settings(screen="always", **plan):
        launcher = together.launcher(dtype, current())
        assert launcher.plan(90, 3000, current()).screen is not None
        got = together.run(NumpyArrays, given)
    wide = [points.astype(np.float64) for points in given]
    found = np.square(wide[0][:, None] - wide[1]).sum(-1)
    found = np.sqrt(found) if formula.startswith("Norm") else found
    order = found.argsort(1, kind="stable")[:, :20]
    values = np.take_along_axis(found, order, 1)
    meant = {
        "Min": [values[:, :1]],
        "ArgKMin": [order[:, :3]],
        "KMin_ArgKMin": [values, order],
        "Min_ArgMin": [values[:, :1], order[:, :1]],
        "KMin": [values[:, :5]],
    }
    want = [result for name in names for result in meant[name]]
    for one, other in zip(got, want, strict=True):
        assert_close(one.astype(np.float64), other.astype(np.float64), rtol=1e-5)


def test_nothing_is_ruled_out_that_others_need() -> None:
    aliases = ["x = Vi(24)", "y = Vj(24)", "b = Vj(1)"]
    nearest = Genred("SqDist(x,y)", aliases, "ArgKMin", axis=1, opt_arg=3)._fold
    given = near_ones()
    for formula, name in (
        ("Exp(-SqDist(x,y)/99)*b", "Sum"),
        ("SqDist(x,y)", "Max"),
        ("-SqDist(x,y)", "LogSumExp"),
        ("SqDist(2*x,y)", "Min"),
    ):
        other = Genred(formula, aliases, name, axis=1)._fold
        together = Several([nearest, other])
        with settings(screen="always"):
            assert together.launcher("float32", current()).plan(90, 3000, current()).screen is None
            got = together.run(NumpyArrays, given)
            want = [fold.run(NumpyArrays, given)[0] for fold in (nearest, other)]
        compare([nearest, other], got, want, "float32", 3000)


def test_fused_kernels_are_not_screened() -> None:
    asked = [
        Folded(fold_of("Max", 1).formula, REDUCTIONS[name], axis=axis)
        for name, axis in (("Min", ROW), ("Min", COLUMN))
    ]
    assert distance_of(lower_all(asked, Axis.I, 16, fused=True)) is None
    assert distance_of(lower_all(asked[:1], Axis.I, 16)) is not None


def test_a_list_of_one_place_is_none() -> None:
    nearest = Genred(DISTANCE, ALIASES, "KMin", axis=1, opt_arg=1)._fold
    given = draw(17, 23)
    got = Several([nearest, fold_of("Sum", 1)]).run(NumpyArrays, given)
    assert_same_bits(got[0], nearest.run(NumpyArrays, given)[0])


def test_long_outputs() -> None:
    """Written out up to a limit."""
    half = MOST_TOGETHER // 2
    aliases = [f"x = Vi({half})", f"y = Vj({half})"]
    folds = [Genred(f, aliases, n, axis=1)._fold for f, n in (("x*y", "Sum"), ("x-y", "ArgMax"))]
    random = np.random.default_rng(0)
    given = [random.standard_normal((n, half)).astype("float32") for n in (19, 37)]
    for plan in ({}, {"lanes": "column", "splits": 2}):
        with settings(**plan):
            got = Several(folds).run(NumpyArrays, given)
            want = [fold.run(NumpyArrays, given)[0] for fold in folds]
        compare(folds, got, want, "float32", 37)
    assert Several(folds).passes() == [[0, 1]]


@pytest.mark.parametrize("backend", ["llvm", "reference"])
def test_more_components_than_one_pass_has_are_several_passes(backend: str) -> None:
    dim = MOST_TOGETHER + 1
    aliases = [f"x = Vi({dim})", f"y = Vj({dim})", "b = Vj(1)"]
    folds = [
        Genred(f, aliases, name, axis=1, **options)._fold
        for f, name, options in (
            ("x|y", "Min_ArgMin", {}),
            ("x*y*b", "Sum", {}),
            ("(x|y)/9", "LogSumExp", {}),
            ("(x|y)/9", "SumSoftMaxWeight", {"formula2": "y"}),
            ("Extract(x-y,0,60)", "Max", {}),
            ("Extract(x-y,5,3)", "KMin", {"opt_arg": 2}),
        )
    ]
    together = Several(folds)
    assert together.passes() == [[0, 2, 4], [1], [3], [5]]
    random = np.random.default_rng(0)
    given = [random.standard_normal((n, d)) for n, d in ((19, dim), (37, dim), (37, 1))]
    with settings(backend=backend):
        got = together.run(NumpyArrays, given)
    x, y, b = given
    products, differences = x @ y.T, x[:, None] - y
    want = [products.min(1)[:, None], products.argmin(1)[:, None], x * (b * y).sum(0)]
    weights = np.exp(products / 9)
    want += [np.log(weights.sum(1))[:, None], weights @ y / weights.sum(1)[:, None]]
    want += [differences[..., :60].max(1), np.sort(differences[..., 5:8], 1)[:, :2].reshape(19, 6)]
    assert len(got) == len(want)
    for one, other in zip(got, want, strict=True):
        assert_close(np.asarray(one, np.float64), other, terms=37)


# -- programs for GPUs ----------------------------------------------------------------------------


def on_gpu(mixture: str, given: list[Array], axis: int = 1, **how: Any) -> list[Array]:
    """The same as `check` by Triton's interpreter."""
    torch = pytest.importorskip("torch")
    tensors = [torch.from_numpy(np.array(array)) for array in given]
    return check(mixture, tensors, axis, library=DeviceTensors, **{"tile": "16x16x1", **how})


@pytest.mark.usefixtures("interpreter")
@every_pair(
    ("mixture", ["running", "nearest", "shifted", "three"]),
    ("dtype", ["float32", "float64", "float16"]),
    ("axis", [0, 1]),
    ("splits", [1, 3]),
    ids=str,
)
def test_programs_for_gpus(mixture: str, dtype: str, axis: int, splits: int) -> None:
    for size in ((17, 23), (5, 0)):
        on_gpu(mixture, draw(*size, dtype), axis, splits=splits)


@pytest.mark.usefixtures("interpreter")
def test_programs_for_gpus_of_many_chunks_batches_and_ranges() -> None:
    torch = pytest.importorskip("torch")
    on_gpu("pair", draw(40, 70), tile="32x16x1", splits=2)
    on_gpu("shifted", draw(20, 31), 0, ranges=ranges_of(20, 31))
    on_gpu("nearest", draw(20, 31), 0, ranges=ranges_of(20, 31))
    folds = folds_of("nearest")
    tensors = [torch.from_numpy(array) for array in draw(9, 23, "float64", BATCHES[1])]
    with settings(tile="16x16x1", splits=2):
        got = Several(folds).run(DeviceTensors, tensors)
        want = [result for fold in folds for result in fold.run(DeviceTensors, tensors)]
    compare(folds, got, want, "float64", 23)


@pytest.mark.usefixtures("interpreter")
def test_states_and_compensated_sums_on_gpus() -> None:
    torch = pytest.importorskip("torch")
    folds = [fold_of(name, 1).variant(states_of(name)) for name in ("Min_ArgMin", "Sum", "Prod")]
    folds += [fold_of(name, 1, sum_scheme="kahan_scheme") for name in ("Sum", "Mean")]
    tensors = [torch.from_numpy(array) for array in draw(9, 61)]
    for splits in (1, 2):
        with settings(tile="16x16x1", splits=splits):
            got = Several(folds).run(DeviceTensors, tensors)
            want = [result for fold in folds for result in fold.run(DeviceTensors, tensors)]
        compare(folds, got, want, "float32", 61)


def test_programs_for_gpus_keep_rows_alone() -> None:
    with pytest.raises(UnsupportedError, match="rows alone"):
        TRITON.launcher(fused_kernel(("Sum",)), "float32", Accumulation("float32", "float64"))


@pytest.mark.usefixtures("interpreter")
def test_host_arrays_go_to_a_gpu_one_reduction_after_the_other() -> None:
    torch = pytest.importorskip("torch")
    folds, given = folds_of("pair"), draw(17, 23)
    library = OnGpu(NumpyArrays, TorchDevice(torch.device("cpu")))
    with settings(tile="16x16x1"):
        got = Several(folds).run(library, given)
        want = [result for fold in folds for result in fold.run(library, given)]
    compare(folds, got, want, "float32", 23)
