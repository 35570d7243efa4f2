"""Derivatives of solutions in a library that is neither NumPy nor torch: `tape.py`.

The oracle is LAPACK on dense matrices of complex numbers: a complex step has no cancellation.
Second derivatives are differences of first. Points of both sides are equal, since the operator has
to be symmetric, but they are arguments of their own: their derivatives leave the symmetric ones.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checks import assert_close
from tape import CALLS, TapeArrays, Taped, grad, push_through, solve

import pairfold
from pairfold.arrays.registry import NUMPY
from pairfold.cluster import from_matrix
from pairfold.frontends.conjugate import Stop
from pairfold.frontends.ranges import Ranges
from pairfold.frontends.solve import Request, System
from pairfold.frontends.solvederivatives import Calls, batched, gradients

pytestmark = pytest.mark.usefixtures("interpreted_kernels")

ROWS, DIM = 5, 2
# The unknown is indexed by what is reduced, or (as of systems that are transposed) by what is kept.
FORMULAS = {
    "apart": ("w*v*Exp(-Elem(p,0)*SqDist(x,y))*b", 1, "j"),
    "axis 0": ("w*v*Exp(-Elem(p,0)*SqDist(x,y))*b", 0, "i"),
    "mixed": ("w*v*Exp(-SqDist(x,y))*MatVecMult(p,b)", 1, "j"),
}
ALPHAS = {"none": None, "number": (), "rows": (ROWS, 1), "all": (ROWS, DIM)}
CASES = [
    *(("apart", alpha) for alpha in ALPHAS),
    *(("axis 0", alpha) for alpha in ("number", "rows")),
    *(("mixed", alpha) for alpha in ("number", "all")),
]
case = pytest.mark.parametrize(("name", "alpha"), CASES)
# Of what a solution is made from: alpha, then the arguments of the formula.
ALPHA, X, Y, W, V, P, B = range(7)
REQUEST = Request(Stop(tol=1e-14))


def system_of(name: str) -> System:
    formula, axis, index = FORMULAS[name]
    aliases = ["x = Vi(2)", "y = Vj(2)", "w = Vi(1)", "v = Vj(1)", "p = Pm(4)"]
    return pairfold.KernelSolve(formula, [*aliases, f"b = V{index}({DIM})"], "b", axis)._system


def arguments(alpha: str, seed: int = 0) -> list[Any]:
    """alpha (None: 0), x, y, w, v, p, b; the system is symmetric and positive."""
    source = np.random.default_rng(seed)
    x, w = source.standard_normal((ROWS, 2)), source.uniform(0.5, 1, (ROWS, 1))
    shape = ALPHAS[alpha]
    diagonal = None if shape is None else source.uniform(0.5, 1, shape)
    p = np.array([2.0, 0.9, 0.9, 1.0])
    return [diagonal, x, x.copy(), w, w.copy(), p, source.standard_normal((ROWS, DIM))]


def ways(given: Sequence[Any], seed: int) -> list[Any]:
    """A direction for each argument."""
    source = np.random.default_rng(seed)
    return [None if a is None else source.standard_normal(a.shape) for a in given]


def dense(name: str, given: Sequence[Any], met: Any = True) -> Any:
    """The solution by LAPACK, of real or complex arguments; `met`: which pairs there are."""
    alpha, x, y, w, v, p, b = given
    squared = ((x[..., :, None, :] - y[..., None, :, :]) ** 2).sum(-1)
    scale = 1 if name == "mixed" else p[..., :1, None]
    kernel = w * v.swapaxes(-1, -2) * np.exp(-scale * squared) * met
    if name == "axis 0":
        kernel = kernel.swapaxes(-1, -2)
    mixing = p.reshape(DIM, DIM) if name == "mixed" else np.eye(DIM)
    rows = kernel.shape[-1]
    matrix = kernel[..., :, None, :, None] * mixing[:, None, :]
    matrix = matrix.reshape(*kernel.shape[:-2], rows * DIM, rows * DIM)
    if alpha is not None:
        lead = np.broadcast_shapes(alpha.shape, b.shape)[:-2]
        diagonal = np.broadcast_to(alpha, (*lead, rows, DIM)).reshape(*lead, rows * DIM)
        matrix = matrix + diagonal[..., None] * np.eye(rows * DIM)
    found = np.linalg.solve(matrix, b.reshape(*b.shape[:-2], rows * DIM, 1))
    return found.reshape(*found.shape[:-2], rows, DIM)


def along(name: str, given: Sequence[Any], moving: Sequence[Any], met: Any = True) -> Any:
    """The derivative of the dense program."""
    step = 1e-30
    pairs = zip(given, moving, strict=True)
    moved = [a if t is None else a + 1j * step * t for a, t in pairs]
    return dense(name, moved, met).imag / step


def dense_gradients(
    name: str, given: Sequence[Any], sent: Any, met: Any = True
) -> Iterator[tuple[int, Any]]:
    """The gradient of <sent, solution> to each argument, entry by entry."""
    for n, array in enumerate(given):
        if array is None:
            continue
        found = np.empty(array.shape)
        for place in np.ndindex(*array.shape):
            moving: list[Any] = [None] * len(given)
            moving[n] = np.zeros(array.shape)
            moving[n][place] = 1
            found[place] = (sent * along(name, given, moving, met)).sum()
        yield n, found


def on_tape(given: Sequence[Any], followed: Sequence[int] = range(7)) -> list[Taped | None]:
    return [None if a is None else Taped(a, n in followed) for n, a in enumerate(given)]


def present(given: Sequence[Any]) -> list[Any]:
    """All but an alpha that is not there."""
    return [a for a in given if a is not None]


def sending(out: Taped) -> Any:
    return np.random.default_rng(3).standard_normal(out.shape).astype(out.value.dtype)


def check(name: str, alpha: str, met: Any = True, request: Request = REQUEST) -> None:
    """Value, gradients and tangent."""
    given = arguments(alpha)
    taped = on_tape(given)
    out = solve(system_of(name), request, TapeArrays, taped)
    assert_close(out.value, dense(name, given, met), rtol=1e-11)
    sent = sending(out)
    found = grad(out, Taped(sent), present(taped))
    for got, (n, want) in zip(found, dense_gradients(name, given, sent, met), strict=True):
        assert_close(got.value, want, rtol=1e-10, formula=(name, n))
    moving = ways(given, 1)
    directions = dict(zip(present(taped), map(Taped, present(moving)), strict=True))
    assert_close(push_through(out, directions).value, along(name, given, moving, met), rtol=1e-10)


@case
def test_derivatives_of_a_library_that_is_not_torch(name: str, alpha: str) -> None:
    check(name, alpha)


def test_derivatives_are_there_without_torch() -> None:
    program = (
        "import sys; sys.modules['torch'] = None; sys.path.insert(0, sys.argv[1])\n"
        "import test_solve_derivatives as here\n"
        "here.check('apart', 'number'); here.check('mixed', 'all')\n"
        "print(sys.modules['torch'])"
    )
    command = [sys.executable, "-c", program, str(Path(__file__).parent)]
    here = {**os.environ, "PAIRFOLD_BACKEND": "reference"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=here)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["None"]


@pytest.mark.parametrize("followed", range(7))
def test_one_argument_alone_may_be_differentiated(followed: int) -> None:
    """Forward and backward; a product with K is differentiated only where it has to be."""
    given = arguments("rows")
    taped = on_tape(given, [followed])
    out = solve(system_of("apart"), REQUEST, TapeArrays, taped)
    sent, argument = sending(out), present(taped)[followed]
    (got,) = grad(out, Taped(sent), [argument])
    want = dict(dense_gradients("apart", given, sent))[followed]
    assert_close(got.value, want, rtol=1e-10)
    moving: list[Any] = [None] * 7
    moving[followed] = way = ways(given, 1)[followed]
    tangent = push_through(out, {argument: Taped(way)})
    assert_close(tangent.value, along("apart", given, moving), rtol=1e-10)
    products: list[Any] = []

    def apply(*call: Any) -> Any:
        products.append(call)
        return CALLS.apply(*call)

    wanted = [n == followed for n in range(7)]
    arrays = [Taped(a) for a in given]
    incoming, calls = Taped(sent), Calls(apply, solve)
    sent_on = gradients(
        system_of("apart"), REQUEST, TapeArrays, arrays, out, incoming, wanted, calls
    )
    assert [g is not None for g in sent_on] == wanted
    assert len(products) == (followed not in (ALPHA, B))


def total(parts: Sequence[Taped], weights: Sequence[Any]) -> Taped:
    """The sum of products, on the tape."""
    found = Taped(np.zeros(()))
    for part, weight in zip(parts, weights, strict=True):
        flat = (part * Taped(weight)).reshape((weight.size, 1))
        found = found + TapeArrays.sum(flat, 0).reshape(())
    return found


def of_gradient(name: str, alpha: str) -> tuple[Taped, list[Any], list[Any], float]:
    """<gradient, some> of a solution on the tape, its arguments, a way for each, and its slope."""
    given = arguments(alpha)
    some, other = ways(given, 1), ways(given, 2)
    taped = on_tape(given)
    out = solve(system_of(name), REQUEST, TapeArrays, taped)
    sent = sending(out)
    first = grad(out, Taped(sent), present(taped))
    slope, step = 0.0, 1e-3
    for k, factor in ((1, 8), (-1, -8), (2, -1), (-2, 1)):
        pairs = zip(given, other, strict=True)
        moved = [a if t is None else a + k * step * t for a, t in pairs]
        slope += factor * float((sent * along(name, moved, some)).sum()) / (12 * step)
    return total(first, present(some)), present(taped), present(other), slope


@case
def test_second_derivatives_of_a_library_that_is_not_torch(name: str, alpha: str) -> None:
    product, taped, other, want = of_gradient(name, alpha)
    second = grad(product, Taped(1.0), taped)
    got = sum((g.value * t).sum() for g, t in zip(second, other, strict=True))
    assert_close(got, want, rtol=1e-8)


@case
def test_second_derivatives_in_forward_mode(name: str, alpha: str) -> None:
    """Of a library that knows no tangents of pulling back: they are the transpose of pulling."""
    product, taped, other, want = of_gradient(name, alpha)
    directions = dict(zip(taped, map(Taped, other), strict=True))
    assert_close(push_through(product, directions).value, want, rtol=1e-8)


def test_gradients_of_batches_are_summed_over_what_was_broadcast() -> None:
    _, x, _, w, _, _, _ = arguments("none")
    source = np.random.default_rng(5)
    x = np.stack([x, x[::-1] / 2])[:, None]  # (2, 1, rows, 2)
    p = source.uniform(0.5, 1.5, (2, 1, 4))
    alpha = source.uniform(0.5, 1, (3, 1, 1))
    b = source.standard_normal((2, 3, ROWS, DIM))
    given = [alpha, x, x.copy(), w, w.copy(), p, b]
    taped = on_tape(given)
    out = solve(system_of("apart"), REQUEST, TapeArrays, taped)
    assert_close(out.value, dense("apart", given), rtol=1e-11)
    sent = sending(out)
    found = grad(out, Taped(sent), present(taped))
    for got, (n, want) in zip(found, dense_gradients("apart", given, sent), strict=True):
        assert_close(got.value, want, rtol=1e-10, formula=n)


def test_derivatives_of_block_sparse_systems() -> None:
    ends, keep = np.array([[0, 2], [2, ROWS]]), np.array([[True, False], [False, True]])
    met = keep.repeat([2, 3], 0).repeat([2, 3], 1)
    ranges = Ranges(from_matrix(ends, ends, keep))
    check("apart", "rows", met, Request(REQUEST.stop, call={"ranges": ranges}))


def test_single_precision_stays() -> None:
    given = arguments("rows")
    taped = on_tape([a.astype("float32") for a in given])
    out = solve(system_of("apart"), Request(Stop(tol=1e-6)), TapeArrays, taped)
    sent = sending(out)
    assert out.value.dtype == np.float32
    found = grad(out, Taped(sent), present(taped))  # it looks at dtypes itself
    for got, (n, want) in zip(found, dense_gradients("apart", given, sent), strict=True):
        assert_close(got.value, want, rtol=1e-4, formula=n)


@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_systems_of_derivatives_are_solved_at_any_scale(scale: float) -> None:
    """To a share of their right-hand side, and without telling the caller of their iterations."""
    counts: list[int] = []
    request = Request(Stop(eps=1e-7), callback=lambda count, residuals: counts.append(count))
    given = arguments("rows")
    taped = on_tape(given)
    out = solve(system_of("apart"), request, TapeArrays, taped)
    sent, before = scale * sending(out), len(counts)
    found = grad(out, Taped(sent), present(taped))
    for got, (n, want) in zip(found, dense_gradients("apart", given, sent), strict=True):
        assert_close(got.value, want, rtol=1e-5, scale=scale, formula=n)
    moving = [None if t is None else scale * t for t in ways(given, 1)]
    directions = dict(zip(present(taped), map(Taped, present(moving)), strict=True))
    tangent = push_through(out, directions).value
    assert_close(tangent, along("apart", given, moving), rtol=1e-5, scale=scale)
    assert before
    assert len(counts) == before


def test_systems_without_rows_have_gradients_of_zero() -> None:
    given = [np.array(0.5), *(np.zeros((0, n)) for n in (2, 2, 1, 1)), np.ones(4), np.zeros((0, 2))]
    taped = on_tape(given)
    out = solve(system_of("apart"), REQUEST, TapeArrays, taped)
    assert out.shape == (0, DIM)
    for array, got in zip(given, grad(out, Taped(sending(out)), present(taped)), strict=True):
        assert got.shape == array.shape
        assert not got.value.any()


@case
def test_gradients_are_those_of_torch(name: str, alpha: str) -> None:
    torch = pytest.importorskip("torch")
    import pairfold.torch

    given = arguments(alpha)
    formula, axis, index = FORMULAS[name]
    aliases = ["x = Vi(2)", "y = Vj(2)", "w = Vi(1)", "v = Vj(1)", "p = Pm(4)"]
    solver = pairfold.torch.KernelSolve(formula, [*aliases, f"b = V{index}({DIM})"], "b", axis)
    tensors = [None if a is None else torch.tensor(a, requires_grad=True) for a in given]
    found = solver(*tensors[1:], alpha=tensors[0], tol=REQUEST.stop.tol)
    taped = on_tape(given)
    out = solve(system_of(name), REQUEST, TapeArrays, taped)
    sent = sending(out)
    assert_close(out.value, found.detach().numpy(), rtol=1e-12)
    want = torch.autograd.grad(found, present(tensors), torch.tensor(sent))
    for one, other in zip(grad(out, Taped(sent), present(taped)), want, strict=True):
        assert_close(one.value, other.numpy(), rtol=1e-11)


# -- one more axis ---------------------------------------------------------------------------------


def run(system: System, request: Request, library: Any, given: Sequence[Any]) -> Any:
    """A solution without derivatives."""
    return system.solution(library, given[1:], given[0], request)


@pytest.mark.parametrize(
    "axes",
    [
        {B: 0},
        {B: 2, X: 1, Y: 1},
        {P: 1},
        {ALPHA: 0},
        {ALPHA: -1, P: 0, W: 2, V: 2},
        {X: 0, Y: 0, W: 0, V: 0, B: 0, P: 0, ALPHA: 0},
    ],
)
@pytest.mark.parametrize("alpha", ALPHAS)
def test_a_batch_axis_is_as_many_solutions(alpha: str, axes: dict[int, int]) -> None:
    given = arguments(alpha)
    size = 3
    many: list[Any] = list(given)
    for n, axis in axes.items():
        if given[n] is not None:
            factors = (1, 1.5, 0.75)
            many[n] = np.stack([given[n] * k for k in factors], axis)
    places = [axes.get(n) if given[n] is not None else None for n in range(7)]
    system = system_of("apart")
    calls = Calls(lambda *call: pytest.fail("no product is asked for"), run)
    got = batched(system, REQUEST, NUMPY, many, places, size, calls)
    assert got.shape == (size, ROWS, DIM)
    for k in range(size):
        alone = [a if n is None else a.take(k, n) for a, n in zip(many, places, strict=True)]
        assert_close(got[k], dense("apart", alone), rtol=1e-11)


def test_a_batch_axis_stands_before_others() -> None:
    given = arguments("number")
    given[B] = np.stack([given[B], 2 * given[B]])
    given[ALPHA] = np.array([0.5, 0.7])  # one more axis than its own
    given[P] = np.stack([given[P], given[P] / 2])
    places: list[Any] = [0, None, None, None, None, 0, None]
    calls = Calls(lambda *call: pytest.fail("no product is asked for"), run)
    got = batched(system_of("apart"), REQUEST, NUMPY, given, places, 2, calls)
    assert got.shape == (2, 2, ROWS, DIM)
    for k, alpha in enumerate(given[ALPHA]):
        for m in range(2):
            alone = [alpha, *given[1:P], given[P][k], given[B][m]]
            assert_close(got[k, m], dense("apart", alone), rtol=1e-11)
