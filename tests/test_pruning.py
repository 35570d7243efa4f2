"""Searches for extrema that meet few blocks of pairs: bounds, results, when they pay."""

from __future__ import annotations

import dataclasses
import os

import numpy as np
import pytest
from random_searches import FORMULAS, compare

import pairfold
from pairfold import Genred, Vi, Vj, settings
from pairfold.backends.llvm import pruned_launch
from pairfold.backends.llvm.curves import keys
from pairfold.backends.llvm.machine import machine
from pairfold.backends.reference.interpreter import _Interpreter
from pairfold.core.node import Axis
from pairfold.core.numbers import to_float
from pairfold.core.primitives import PRIMITIVES
from pairfold.core.scalars import reachable
from pairfold.frontends.parse import parse_many
from pairfold.lower.boxes import boxes_of
from pairfold.lower.curve import BITS, ordered, principal, sorted_in_blocks
from pairfold.lower.kernel import COLUMN, ONCE, ROW, lower
from pairfold.ops.reductions import REDUCTIONS

# Layouts that searches are compared on, and how many of the kinds of searches.
LAYOUTS = int(os.environ.get("PAIRFOLD_LAYOUTS", "200"))
KINDS = 20
DISTANCE = ["x = Vi(3)", "y = Vj(3)"]


def test_random_searches_are_the_same_bit_for_bit() -> None:
    assert compare(LAYOUTS, seed=1, kinds=KINDS) == []


# ---- bounds --------------------------------------------------------------------------------------


def value_of(targets, known, dtype):
    """What scalar values are, given those of placeholders, computed by NumPy in a dtype."""
    found = dict(known)
    for value in reachable(targets):
        if value.what == "const":
            found[value] = np.asarray(to_float(value.number, dtype), dtype)
        elif value not in found:
            args = [found[arg] for arg in value.args]
            result = np.asarray(PRIMITIVES[value.what].numpy(*args))
            found[value] = result if value.kind == "mask" else result.astype(dtype)
    return [found[target] for target in targets]


def interpreted(kernel, value, arrays) -> np.ndarray:
    """What a value of a kernel is for five rows and columns, in float64."""
    five = np.arange(5)
    (found,) = _Interpreter(kernel, arrays, "float64", five, five).run([value], {})
    return np.asarray(found)


def slots_of(kernel, arrays) -> dict[tuple[int, int], np.ndarray]:
    """The numbers of all slots of once, rows and columns, as the interpreter has them."""
    found: dict[tuple[int, int], np.ndarray] = {}
    for argument in kernel.arguments:
        start = kernel.stages[argument.stage].raw[argument.position]
        for k in range(argument.dim):
            found[argument.stage, start + k] = arrays[argument.position][..., k]
    for stage in (ONCE, ROW, COLUMN):
        for value, slot in kernel.stages[stage].computed.items():
            if slot.loop is None:
                found[stage, slot.offset] = interpreted(kernel, value, arrays)
    return found


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("dim", [1, 3, 6])
@pytest.mark.parametrize("text", [text for text in FORMULAS if "Step" not in text])
def test_bounds_hold_for_all_pairs_of_boxes(text: str, dim: int, dtype: str) -> None:
    """A formula at some points, in float64, lies between the bounds of their boxes."""
    aliases = [f"x = Vi(0,{dim})", f"y = Vj(1,{dim})", "a = Vj(2,1)"]
    (one,) = parse_many([text], [*aliases, f"p = Pm(3,{dim})", "p0 = Pm(4,1)"])
    kernel = lower(one.node, REDUCTIONS["Min"], Axis.I, 16, unroll_pairs=3)
    boxes = boxes_of(kernel, dtype)
    assert boxes is not None
    rng = np.random.default_rng(3)
    for scale in (1e-3, 1.0, 30.0):
        arrays = {
            position: (rng.normal(size=(5, width)) * scale).astype(dtype)
            for position, width in ((0, dim), (1, dim), (2, 1))
        }
        arrays[3] = abs(rng.normal(size=dim)).astype(dtype)
        arrays[4] = np.asarray([0.7], dtype)
        known = {}
        slots = slots_of(kernel, arrays)
        with np.errstate(all="ignore"):
            for end, (low, high) in boxes.ends.items():
                known[low], known[high] = slots[end].min(), slots[end].max()
            known = {value: np.asarray(number, dtype) for value, number in known.items()}
            low, high = value_of([boxes.low, boxes.high], known, dtype)
            values = interpreted(kernel, kernel.outputs[0], arrays)
        values = values[~np.isnan(values)]
        slack = 64 * np.finfo(dtype).eps * abs(values) + 1e-30
        assert not (values + slack < low).any()
        assert not (values - slack > high).any()
        if scale < 1 and "IfElse" not in text:
            assert np.isfinite(low)
            assert np.isfinite(high)


def test_what_has_no_bounds_is_met_in_full() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(300, 3)), rng.normal(size=(400, 3))
    fold = Genred("Lgamma(SqDist(x,y)+IntCst(1))", DISTANCE, "ArgMin", axis=1)
    with settings(prune="always"):
        assert "no bounds" in fold.explain(x, y).subject.searched
        found = fold(x, y)
    with settings(prune="never"):
        np.testing.assert_array_equal(found, fold(x, y))


# ---- orders --------------------------------------------------------------------------------------


def curve(points: np.ndarray) -> np.ndarray:
    which = machine("native")
    return ordered(points, lambda cells, count: keys(cells, count, which))


@pytest.mark.parametrize("dim", [2, 3])
def test_neighbours_along_the_curve_are_neighbours_on_a_grid(dim: int) -> None:
    """A Hilbert curve goes through all cells of a grid, from each to one beside it."""
    side = 8
    cells = np.stack(np.meshgrid(*[np.arange(side)] * dim, indexing="ij"), -1).reshape(-1, dim)
    shuffled = np.random.default_rng(0).permutation(len(cells))
    # The grid of the curve is finer by a power of two.
    points = (cells[shuffled] + 0.5) * 2.0 ** BITS[dim] / side
    corners = np.stack([np.zeros(dim), np.full(dim, 2.0 ** BITS[dim] - 1)])
    order = curve(np.concatenate([points, corners]))
    order = order[order < len(points)]
    steps = abs(np.diff(cells[shuffled][order], axis=0)).sum(1)
    np.testing.assert_array_equal(steps, 1)
    assert sorted(order) == list(range(len(points)))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("dim", [1, 2, 3, 5])
def test_orders_are_permutations_and_odd_points_come_last(dim: int, dtype: str) -> None:
    rng = np.random.default_rng(1)
    points = rng.normal(size=(201, dim)).astype(dtype)
    points[[3, 70], 0] = np.nan, np.inf
    for given in (points, 0 * points[4:9] + 7, 1e-30 * points, points[:1], points[::2]):
        order = curve(given)
        assert sorted(order) == list(range(len(given)))
    assert set(curve(points)[-2:]) == {3, 70}
    if dim == 1:
        inside = np.delete(points[:, 0], [3, 70])
        found = points[:, 0][curve(points)[:-2]]
        assert (np.diff(found) > -np.ptp(inside) * 1e-4).all()


def test_blocks_of_an_order_rise() -> None:
    found = sorted_in_blocks(np.arange(9, -1, -1).astype(np.uint32), 4)
    np.testing.assert_array_equal(found, [6, 7, 8, 9, 2, 3, 4, 5, 0, 1])


def test_principal_axes_tell_flat_clouds_from_others() -> None:
    rng = np.random.default_rng(2)
    flat = rng.normal(size=(500, 3)) @ rng.normal(size=(3, 12))
    assert principal(flat).share == pytest.approx(1)
    assert principal(rng.normal(size=(500, 12))).share < 0.45
    assert principal(flat[:, :3]) is None
    assert principal(np.full((4, 5), np.nan)).share == 1


# ---- when it pays --------------------------------------------------------------------------------


def searched(fold, *arrays):
    return fold.explain(*arrays).subject.searched


def test_what_is_met_is_told_and_why() -> None:
    rng = np.random.default_rng(3)
    near = Genred("SqDist(x,y)", DISTANCE, "ArgKMin", axis=1, opt_arg=3)
    x = rng.random((8000, 3)).astype("float32")
    met, every = searched(near, x, x)
    assert 0 < met < 0.2 * every
    assert "% of" in str(near.explain(x, x))
    assert "few pairs" in searched(near, x[:100], x[:100])
    assert "few pairs" in str(near.explain(x[:100], x[:100]))
    with settings(prune="never"):
        assert "settings" in searched(near, x, x)
    wide = Genred("SqDist(x,y)", ["x = Vi(8)", "y = Vj(8)"], "ArgMin", axis=1)
    y = rng.random((9000, 8)).astype("float32")
    assert "dimensions" in searched(wide, y, y)
    poor = Genred("SqNorm2(x)-2*(x|y)+SqNorm2(y)", DISTANCE, "ArgMin", axis=1)
    assert "too many" in searched(poor, x, x)


def test_what_did_not_pay_is_left_alone_for_some_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []
    fold = pruned_launch._Element.fold

    def told(self, share):
        tried.append("fold")
        return fold(self, share)

    monkeypatch.setattr(pruned_launch._Element, "fold", told)
    rng = np.random.default_rng(4)
    x = rng.random((6000, 3)).astype("float32")
    poor = Genred("SqNorm2(x)-2*(x|y)+SqNorm2(y)+IntCst(3)", DISTANCE, "ArgMin", axis=1)
    for _ in range(7):
        poor(x, x)
    assert len(tried) == 2


def test_masks_that_leave_little_are_not_searched_by_bounds() -> None:
    rng = np.random.default_rng(5)
    x = rng.random((8000, 3)).astype("float32")
    cloud = ((Vi(x) - Vj(x)) ** 2).sum(-1)
    for mask, keep in (
        (pairfold.exclude_self(), lambda i, j: i != j),
        (pairfold.band(40), lambda i, j: abs(i - j) <= 40),
    ):
        found = cloud.argmin(axis=1, where=mask)[:500, 0]
        i, j = np.ogrid[:500, :8000]
        every = ((x[:500, None].astype("float64") - x[None]) ** 2).sum(-1)
        every[~keep(i, j)] = np.inf
        np.testing.assert_array_equal(found, every.argmin(1))


def test_nearest_of_what_a_mask_leaves_lie_far() -> None:
    """Along a line, all near columns are masked: bounds of whole blocks say nothing."""
    line = np.stack([np.arange(3000.0), np.zeros(3000), np.zeros(3000)], 1)
    cloud = ((Vi(line) - Vj(line)) ** 2).sum(-1)
    with settings(prune="always"):
        values, places = cloud.min_argmin(axis=1, where=~pairfold.band(499))
    rows = np.arange(3000)
    np.testing.assert_array_equal(values[:, 0], 500.0**2)
    np.testing.assert_array_equal(places[:, 0], np.where(rows >= 500, rows - 500, rows + 500))


def test_no_memory_means_all_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(self, share):
        raise MemoryError

    monkeypatch.setattr(pruned_launch._Element, "fold", none)
    rng = np.random.default_rng(6)
    x = rng.random((70, 3))
    with settings(prune="always"):
        found = Genred("SqDist(x,y)", DISTANCE, "ArgMin", axis=1)(x, x)
    np.testing.assert_array_equal(found[:, 0], np.arange(70))


# ---- results -------------------------------------------------------------------------------------


@pytest.mark.parametrize("reduction", ["Min_ArgMin", "KMin_ArgKMin"])
@pytest.mark.parametrize("dim", [1, 2])
def test_groups_that_are_left_out_hold_nothing(dim: int, reduction: str) -> None:
    """Columns of twenty groups of blocks, and a few far away, which rows find too few there."""
    rng = np.random.default_rng(8)
    y = rng.random((20 * 1024 + 3, dim), np.float32)
    y[-3:] += 5
    x = np.concatenate([rng.random((300, dim), np.float32), y[-3:].repeat(12, axis=0)])
    options = {"opt_arg": 10} if reduction.startswith("K") else {}
    aliases = [f"x = Vi({dim})", f"y = Vj({dim})"]
    fold = Genred("SqDist(x,y)", aliases, reduction, axis=1, **options)
    found = {}
    for prune in ("always", "never"):
        with settings(prune=prune, threads=1):
            found[prune] = fold(x, y)
    for own, other in zip(found["always"], found["never"], strict=True):
        np.testing.assert_array_equal(own, other)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_nearest_columns_are_those_of_a_sort(dtype: str) -> None:
    """Against float64, on points of a grid, where many distances are equal, and exact."""
    rng = np.random.default_rng(7)
    x, y = (rng.integers(-6, 7, size=(n, 3)).astype(dtype) for n in (517, 1423))
    every = ((x[:, None].astype("float64") - y[None]) ** 2).sum(-1)
    first = np.argsort(every, axis=1, kind="stable")[:, :7]
    with settings(prune="always"):
        values, places = Genred("SqDist(x,y)", DISTANCE, "KMin_ArgKMin", axis=1, opt_arg=7)(x, y)
        far = Genred("SqDist(x,y)", DISTANCE, "Max_ArgMax", axis=0)(x, y)
    np.testing.assert_array_equal(places, first)
    np.testing.assert_array_equal(values, np.take_along_axis(every, first, 1))
    np.testing.assert_array_equal(far[0][:, 0], every.max(0))
    np.testing.assert_array_equal(far[1][:, 0], every.argmax(0))


def test_numbers_that_a_dtype_cannot_count_are_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = pruned_launch.PrunedLauncher.pruned_plan

    def uncounted(self, options, columns):
        return dataclasses.replace(plan(self, options, columns), counted=False)

    monkeypatch.setattr(pruned_launch.PrunedLauncher, "pruned_plan", uncounted)
    rng = np.random.default_rng(8)
    x, y = (rng.integers(0, 9, size=(n, 3)).astype("float32") for n in (80, 333))
    every = ((x[:, None] - y[None]) ** 2).sum(-1)
    with settings(prune="always"):
        found = Genred("SqDist(x,y)+IntCst(0)", DISTANCE, "ArgMin", axis=1)(x, y)
    np.testing.assert_array_equal(found[:, 0], every.argmin(1))


def test_gradients_are_those_of_the_selected_pairs() -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(9)
    x, y = (torch.tensor(rng.normal(size=(n, 3)), requires_grad=True) for n in (90, 130))
    with settings(prune="always"):
        found = Genred("SqDist(x,y)", DISTANCE, "KMin", axis=1, opt_arg=3)(x, y)
        mine = torch.autograd.grad((found**2).sum(), (x, y))
    dense = ((x[:, None] - y[None]) ** 2).sum(-1).topk(3, largest=False).values
    theirs = torch.autograd.grad((dense**2).sum(), (x, y))
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b)
