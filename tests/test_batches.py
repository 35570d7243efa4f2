"""Batches: any number of batch axes on any operand, every reduction, value, shape and gradients.

Random formulas of four operands with random batch axes, against the same formula on all pairs in
torch, in float64.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from checks import assert_close
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pairfold.errors import ShapeError
from pairfold.ops.reductions import REDUCTIONS
from pairfold.torch import Genred, LazyTensor, Pm, Vi, Vj

M, N, D, K = 4, 5, 2, 3
SIZES = (2, 3, 2)  # of the common batch axes, from the last one

# Each takes an i-variable, a j-variable, a parameter and a scalar; either class of tensors.
FORMULAS: dict[str, Any] = {
    "of both": lambda x, y, p, s: ((x - y) * p).sin() + s * x,
    "of distances": lambda x, y, p, s: (-((x - y) ** 2) * s).exp() * p,
    "of i": lambda x, y, p, s: (x * p).cos() * s,
    "of j": lambda x, y, p, s: (y * p + s).sin(),
    "of neither": lambda x, y, p, s: (p * s).exp(),
    "without parameters": lambda x, y, p, s: (x * y).tanh() + x,
}
SMOOTH = {"Sum", "Mean", "Prod", "LogSumExp", "LogSumExpWeight", "SumSoftMaxWeight"}
SHIFTED = {"Max_SumShiftExp", "Max_SumShiftExpWeight"}
SELECTING = {"Min", "Max", "Min_ArgMin", "Max_ArgMax", "KMin", "KMin_ArgKMin"}
OTHERS = {"ArgMin", "ArgMax", "ArgKMin", "Count", "Any", "All"}


@dataclass
class Case:
    """Batch shapes of the operands, and which axis is reduced: 0 over i, 1 over j."""

    batches: list[tuple[int, ...]]
    axis: int
    seed: int

    def arrays(self) -> list[torch.Tensor]:
        """x (..., M, 1, D), y (..., 1, N, D), p (..., 1, 1, D) and s (..., 1, 1, 1)."""
        rng = np.random.default_rng(self.seed)
        shapes = [(M, 1, D), (1, N, D), (1, 1, D), (1, 1, 1)]
        return [
            torch.tensor(rng.uniform(0.3, 1.2, batch + shape), requires_grad=True)
            for batch, shape in zip(self.batches, shapes, strict=True)
        ]


def batch_shapes() -> Any:
    """Up to three axes, each 1 or the common size, for each of four operands."""
    ones = st.tuples(*[st.booleans()] * 3)
    one = st.tuples(st.integers(0, 3), ones).map(
        lambda drawn: tuple(1 if drawn[1][n] else SIZES[n] for n in reversed(range(drawn[0])))
    )
    return st.lists(one, min_size=4, max_size=4)


cases = st.builds(Case, batch_shapes(), st.integers(0, 1), st.integers(0, 10**6))
few = settings(
    max_examples=12,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)


def reduce_dense(name: str, f: Any, g: Any, axis: int) -> tuple[Any, ...]:
    """The results of a reduction over a (negative) axis of an array of all pairs."""
    one = {"Sum": torch.sum, "Mean": torch.mean, "Prod": torch.prod}
    if name in one:
        return (one[name](f, axis),)
    if name in ("LogSumExp", "LogSumExpWeight", "SumSoftMaxWeight"):
        if g is None:
            return (f.logsumexp(axis),)
        weights = f.exp() * g
        total = weights.sum(axis)
        return (total / f.exp().sum(axis) if name == "SumSoftMaxWeight" else total.log(),)
    if name in SHIFTED:
        top = f.max(axis, keepdim=True).values
        sums = ((f - top).exp() * (1 if g is None else g)).sum(axis)
        return (torch.cat([top.squeeze(axis).expand(*sums.shape[:-1], 1), sums], -1),)
    if name in ("Count", "Any", "All"):
        found = f != 0
        return ({"Count": torch.sum, "Any": torch.any, "All": torch.all}[name](found, axis),)
    if "K" in name:
        values, indices = f.sort(dim=axis, stable=True)
        kept = [a.narrow(axis, 0, min(K, f.shape[axis])) for a in (values, indices)]
        moved = [a.movedim(axis, -2) for a in kept]
    else:
        low = "Min" in name
        moved = list(f.min(axis) if low else f.max(axis))
    if name in ("Min", "Max", "KMin"):
        return (moved[0],)
    return (moved[1],) if name.startswith("Arg") else tuple(moved)


def check(name: str, formula: str, case: Case, second: bool = False) -> None:
    arrays = case.arrays()
    lazies = [LazyTensor(a) for a in arrays]
    lazy, dense = FORMULAS[formula](*lazies), FORMULAS[formula](*arrays)
    weight = dense_weight = None
    row = REDUCTIONS[name]
    if row.weighted != "no" or row.scalar:
        lazy, dense = lazy.sum(-1), dense.sum(-1, keepdim=True)
        if row.weighted == "must" or (row.weighted == "may" and case.axis):
            weight, dense_weight = lazies[1] * lazies[2], arrays[1] * arrays[2]
    options = {"opt_arg": K} if row.top_k else {}
    joined = dense
    if dense_weight is not None:
        joined = dense.expand(torch.broadcast_shapes(dense.shape, (*dense_weight.shape[:-1], 1)))
    axis = lazy.nbatchdims + case.axis  # counted by the axes of the formula, not of its weight
    found = lazy.reduction(name, other=weight, axis=axis, **options)
    wanted = reduce_dense(name, joined, dense_weight, case.axis - 3)
    found = found if isinstance(found, tuple) else (found,)
    for one, other in zip(found, wanted, strict=True):
        if row.top_k and lazy.ndim == 1:
            other = other[..., 0]
        if row.top_k and other.shape[-2 if lazy.ndim > 1 else -1] < K:
            continue  # padded: a formula without the reduced index
        assert one.dtype == other.dtype
        assert one.shape == other.shape
        assert_close(one.detach(), other.detach(), terms=N * M, formula=(name, formula, case))
    if name in OTHERS or (row.top_k and wanted[0].shape != found[0].shape):
        return
    gradients(found[0], wanted[0], arrays, (name, formula, case), second)


def gradients(found: Any, wanted: Any, arrays: Any, what: object, second: bool) -> None:
    """First, and perhaps second, derivatives of both results."""
    weight = torch.cos(torch.arange(float(math.prod(found.shape))).double()).reshape(found.shape)
    results = []
    for result in (found, wanted):
        loss = (result * weight).sum()
        first = torch.autograd.grad(loss, arrays, allow_unused=True, create_graph=second)
        both = list(first)
        if second:
            total = sum(g.square().sum() for g in first[:2] if g is not None)
            again = [None] * len(arrays)
            if isinstance(total, torch.Tensor) and total.requires_grad:
                again = torch.autograd.grad(total, arrays, allow_unused=True)
            both += again
        results.append(both)
    for place, (one, other) in enumerate(zip(*results, strict=True)):
        array = arrays[place % len(arrays)]
        zero = torch.zeros_like(array)
        assert one is None or one.shape == array.shape
        assert_close(
            (zero if one is None else one).detach(),
            (zero if other is None else other).detach(),
            rtol=1e-9,
            formula=what,
        )


def test_every_reduction_is_here() -> None:
    public = {name for name, row in REDUCTIONS.items() if not row.internal}
    assert public == SMOOTH | SHIFTED | SELECTING | OTHERS


NAMES = sorted(SMOOTH | SHIFTED | SELECTING | OTHERS)


@pytest.mark.parametrize("name", NAMES)
@few
@given(case=cases)
def test_reductions_of_batches(name: str, case: Case) -> None:
    # One formula for each axis, so that machine code is made once and many shapes are tried.
    others = [formula for formula in FORMULAS if formula != "of both"]
    formula = "of both" if case.axis else others[NAMES.index(name) % len(others)]
    check(name, formula, case)


@pytest.mark.parametrize("formula", FORMULAS)
@few
@given(case=cases)
def test_sums_of_batches(formula: str, case: Case) -> None:
    check("Sum", formula, case)


@pytest.mark.parametrize("name", ["Sum", "LogSumExp"])
@settings(few, max_examples=8)
@given(case=cases)
def test_second_derivatives_of_batches(name: str, case: Case) -> None:
    check(name, "of distances", case, second=True)


# -- products with vectors, and Genred -------------------------------------------------------------


@few
@given(case=cases, flat=st.booleans())
def test_products_with_batches_of_vectors(case: Case, flat: bool) -> None:
    x, y, _, s = case.arrays()
    k = (-LazyTensor(x).sqdist(LazyTensor(y)) * LazyTensor(s)).exp()
    dense = (-((x - y) ** 2).sum(-1) * s[..., 0]).exp()
    batch = () if flat else case.batches[2]
    v = torch.linspace(-1, 1, math.prod((*batch, N, 2)), dtype=torch.float64)
    v = v.reshape(*batch, N, 2).requires_grad_()
    gradients(k @ v, dense @ v, [x, y, s, v], case, False)
    assert_close((k @ v).detach(), (dense @ v).detach(), terms=N)
    sums = k.T @ torch.ones(M, 1).double()
    assert_close(sums.detach(), dense.sum(-2).detach()[..., None], terms=M)


GENRED = Genred("Sin((x-y)*p)*s", ["x = Vi(2)", "y = Vj(2)", "p = Pm(2)", "s = Pm(1)"], axis=1)


@few
@given(case=cases)
def test_batches_of_formula_strings(case: Case) -> None:
    arrays = case.arrays()
    x, y, p, s = arrays
    given_arrays = (x[..., 0, :], y[..., 0, :, :], p[..., 0, 0, :], s[..., 0, 0, :])
    found = GENRED(*given_arrays)
    wanted = (((x - y) * p).sin() * s).sum(-2)
    depth = max(len(x.shape), len(y.shape)) - 3
    if wanted.ndim - 2 > depth:  # leading axes that only parameters have, of size 1, are not kept
        wanted = wanted.reshape(wanted.shape[-found.ndim :])
    assert found.shape == wanted.shape
    assert_close(found.detach(), wanted.detach(), terms=N, formula=case)
    gradients(found, wanted, arrays, case, False)


def test_explicit_ones_and_missing_axes_are_the_same() -> None:
    rng = np.random.default_rng(3)
    x, y = (torch.tensor(rng.normal(size=s)) for s in ((2, 3, M, D), (N, D)))
    p, s = torch.tensor(rng.normal(size=D)), torch.tensor(rng.normal(size=1))
    wanted = GENRED(x, y, p, s)
    assert wanted.shape == (2, 3, M, D)
    for other in (
        GENRED(x, y.reshape(1, 1, N, D), p.reshape(1, 1, D), s.reshape(1, 1, 1)),
        GENRED(x, y.reshape(1, N, D), p.reshape(1, D), s),
        GENRED(x, y.expand(2, 3, N, D), p.expand(2, 1, D), s.expand(3, 1)),
    ):
        assert torch.equal(wanted, other)


def test_indices_are_local_to_the_batch_element() -> None:
    x, y = torch.zeros(2, M, 1, 1), torch.zeros(2, 1, N, 1)
    y[0, 0, 2], y[1, 0, 4] = -1, -1
    found = (LazyTensor(x) + LazyTensor(y)).argmin(axis=2)
    assert found[..., 0].tolist() == [[2] * M, [4] * M]


def test_ranks_are_padded_on_the_left() -> None:
    x, y = torch.randn(2, 5, 1, 3), torch.randn(4, 1, 1, 7, 3)
    found = (LazyTensor(x) * LazyTensor(y)).sum(axis=3)
    assert found.shape == (4, 2, 5, 3)
    assert_close(found, (x * y).sum(3), terms=7)
    assert (Vi(x[0, :, 0]) * LazyTensor(y) + Pm(2.0)).sum(axis=2).shape == (4, 1, 7, 3)
    assert (Vj(y[0, 0, 0]) * LazyTensor(x) * [1.0, 2.0, 3.0]).sum(axis=2).shape == (2, 5, 3)


def test_batches_that_do_not_broadcast() -> None:
    with pytest.raises(ShapeError, match="Incompatible batch dimensions"):
        LazyTensor(torch.zeros(2, M, 1, D)) - LazyTensor(torch.zeros(3, 1, N, D))
    with pytest.raises(ShapeError, match="broadcast"):
        GENRED(torch.zeros(2, M, D), torch.zeros(3, N, D), torch.zeros(D), torch.zeros(1))


def test_gradients_to_parameters_with_more_axes_than_all_others() -> None:
    x = torch.randn(M, 1, D, dtype=torch.float64)
    p = torch.randn(2, 1, 1, D, dtype=torch.float64, requires_grad=True)
    q = torch.randn(1, 3, 1, 1, 1, D, dtype=torch.float64, requires_grad=True)
    found = (LazyTensor(x) * LazyTensor(p) * LazyTensor(q)).sin().sum(axis=4)
    wanted = (x * p * q).sin().sum(4)
    assert_close(found.detach(), wanted.detach())
    gradients(found, wanted, [p, q], "sin(x p q)", True)
