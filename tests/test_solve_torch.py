"""Solutions of kernel systems as functions of torch tensors: gradients of any order."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import pairfold.torch  # noqa: E402
from pairfold.errors import SolveError  # noqa: E402
from pairfold.torch import KernelSolve, LazyTensor  # noqa: E402

FORMULA = "Exp(-g*SqDist(x,y))*b"
ALIASES = ["x = Vi(3)", "y = Vj(3)", "b = Vj(2)", "g = Pm(1)"]
ROWS = 23


def leaf(*shape, seed, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    found = torch.randn(shape, dtype=torch.float64, generator=generator) * scale
    return found.requires_grad_()


def arguments():
    """x, b, g, alpha, all asking for gradients."""
    g = torch.tensor([0.7], dtype=torch.float64, requires_grad=True)
    alpha = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
    return leaf(ROWS, 3, seed=0), leaf(ROWS, 2, seed=1), g, alpha


def dense(x, y, b, g, alpha):
    squared = ((x[..., :, None, :] - y[..., None, :, :]) ** 2).sum(-1)
    diagonal = alpha * torch.eye(x.shape[-2], dtype=x.dtype)
    return torch.linalg.solve(torch.exp(-g * squared) + diagonal, b)


solver = KernelSolve(FORMULA, ALIASES, "b", axis=1)


def solved(x, y, b, g, alpha, tol=1e-13):
    return solver(x, y, b, g, alpha=alpha, tol=tol)


def loss_of(a):
    weights = torch.linspace(-1, 2, a.numel(), dtype=a.dtype).reshape(a.shape)
    return (weights * torch.sin(a)).sum()


def assert_close(got, want, rtol=1e-8):
    for one, other in zip(got, want, strict=True):
        other = other.detach()
        torch.testing.assert_close(
            one.detach(), other, rtol=rtol, atol=rtol * float(other.abs().max())
        )


def test_gradients_are_those_of_the_dense_system():
    x, b, g, alpha = arguments()
    wrt = (x, b, g, alpha)
    got = torch.autograd.grad(loss_of(solved(x, x, b, g, alpha)), wrt)
    want = torch.autograd.grad(loss_of(dense(x, x, b, g, alpha)), wrt)
    assert_close(got, want)


def test_points_of_either_side_have_gradients_of_their_own():
    x, b, g, alpha = arguments()
    y = x.detach().clone().requires_grad_()
    wrt = (x, y, b, g, alpha)
    found = []
    for solve in (solved, dense):
        first = torch.autograd.grad(loss_of(solve(x, y, b, g, alpha)), wrt, create_graph=True)
        second = torch.autograd.grad(sum((f**2).sum() for f in first), wrt)
        found.append((*first, *second))
    assert_close(*found, rtol=1e-7)


@pytest.mark.parametrize(("axis", "mixed"), [(0, False), (1, True)])
def test_gradcheck_passes(axis, mixed):
    """All of b, alpha (a number, or one per row), points, weights of rows, a parameter."""
    rows = 4
    aliases = ["x = Vi(2)", "y = Vj(2)", f"b = V{'j' if axis else 'i'}(2)"]
    aliases += ["w = Vi(1)", "v = Vj(1)", "A = Pm(4)"]
    formula = "w*v*Exp(-SqDist(x,y))*" + ("MatVecMult(A,b)" if mixed else "Elem(A,0)*b")
    solve = KernelSolve(formula, aliases, "b", axis=axis)
    alpha = leaf(rows, 1, seed=5, scale=0.1) if mixed else leaf(1, seed=5, scale=0.1)
    matrix = torch.tensor([2.0, 0.9, 0.9, 1.0], dtype=torch.float64, requires_grad=True)
    points, right, weights = leaf(rows, 2, seed=0), leaf(rows, 2, seed=1), leaf(rows, 1, seed=2)

    def function(x, b, w, A, alpha):
        return solve(x, x, b, w, w, A, alpha=alpha + 2, tol=1e-14)

    given = (points, right, weights, matrix, alpha)
    assert torch.autograd.gradcheck(function, given, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(function, given, fast_mode=True)


def test_errors_have_the_best_iterate_as_a_tensor():
    x, b, g, alpha = arguments()
    with pytest.raises(SolveError) as caught:
        solver(x, x, b, g, alpha=alpha, maxiter=3)
    found = caught.value.solution.detach()
    assert isinstance(found, torch.Tensor)
    matrix = dense_kernel(x, g) + alpha * torch.eye(ROWS, dtype=torch.float64)
    norms = (matrix @ found - b).norm(dim=0, keepdim=True)
    assert_close([caught.value.residuals], [norms])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_solved_in_single(dtype):
    tensors = [t.detach().to(getattr(torch, dtype)).requires_grad_() for t in arguments()]
    wide = [t.detach().double().requires_grad_() for t in tensors]
    x, b, g, alpha = tensors
    got = solver(x, x, b, g, alpha=alpha)
    got.float().sin().sum().backward()
    x, b, g, alpha = wide
    want = dense(x, x, b, g, alpha)
    want.sin().sum().backward()
    assert got.dtype == tensors[0].grad.dtype == getattr(torch, dtype)
    rtol = 4 * torch.finfo(got.dtype).eps
    assert_close([got.double()], [want], rtol=rtol)
    assert_close([t.grad.double() for t in tensors], [t.grad for t in wide], rtol=rtol)


def test_gradients_of_the_third_order():
    x, b, g, alpha = arguments()
    found = []
    for solve in (solved, dense):
        value = loss_of(solve(x, x, b, g, alpha))
        (first,) = torch.autograd.grad(value, g, create_graph=True)
        (second,) = torch.autograd.grad(first.sum(), alpha, create_graph=True)
        found.append(torch.autograd.grad(second, (x, b, g, alpha)))
    assert_close(*found, rtol=1e-7)


def test_gradients_of_batches_are_summed_over_what_was_broadcast():
    x = leaf(2, 1, ROWS, 3, seed=2)
    b = leaf(3, ROWS, 2, seed=3)
    g = leaf(2, 1, 1, seed=4).detach().abs().add(0.5).requires_grad_()
    alpha = torch.tensor([[[0.5]]], dtype=torch.float64, requires_grad=True)
    wrt = (x, b, g, alpha)
    got = solved(x, x, b, g, alpha)
    want = dense(x, x, b.expand(2, 3, ROWS, 2), g[..., None], alpha)
    assert got.shape == (2, 3, ROWS, 2)
    assert_close([got], [want])
    assert_close(*(torch.autograd.grad(loss_of(a), wrt) for a in (got, want)))


def test_alpha_may_be_a_diagonal():
    x, b, g, _ = arguments()
    alpha = torch.linspace(0.3, 2, ROWS, dtype=torch.float64)[:, None].requires_grad_()
    found = []
    for solve in (
        lambda: solved(x, x, b, g, alpha),
        lambda: torch.linalg.solve(dense_kernel(x, g) + torch.diag(alpha[:, 0]), b),
    ):
        found.append(torch.autograd.grad(loss_of(solve()), (x, b, alpha)))
    assert_close(*found)


def dense_kernel(x, g):
    return torch.exp(-g * ((x[:, None, :] - x[None, :, :]) ** 2).sum(-1))


def test_formulas_that_mix_components_have_gradients():
    x, b, _, alpha = arguments()
    mix = torch.tensor([2.0, 0.9, 0.9, 1.0], dtype=torch.float64, requires_grad=True)
    aliases = ["x = Vi(3)", "y = Vj(3)", "b = Vj(2)", "A = Pm(4)"]
    solve = KernelSolve("Exp(-SqDist(x,y))*MatVecMult(A,b)", aliases, "b", axis=1)
    wrt = (x, b, mix, alpha)
    matrix = torch.kron(dense_kernel(x, 1.0), mix.reshape(2, 2))
    matrix = matrix + alpha * torch.eye(2 * ROWS, dtype=torch.float64)
    want = torch.linalg.solve(matrix, b.reshape(-1)).reshape(b.shape)
    found = []
    for a in (solve(x, x, b, mix, alpha=alpha, tol=1e-13), want):
        first = torch.autograd.grad(loss_of(a), wrt, create_graph=True)
        found.append((*first, *torch.autograd.grad(sum((f**2).sum() for f in first), wrt)))
    assert_close(*found, rtol=1e-7)


@pytest.mark.parametrize("places", [(0,), (1,), (2,), (3,), (0, 1, 2, 3)])
def test_forward_mode(places):
    tensors = [t.detach() for t in arguments()]
    tangents = [leaf(*tensors[n].shape, seed=n + 7).detach() for n in places]

    def function(solve):
        def of(*moved):
            given = list(tensors)
            for n, tensor in zip(places, moved, strict=True):
                given[n] = tensor
            x, b, g, alpha = given
            return solve(x, x, b, g, alpha)

        return of

    primals = tuple(tensors[n] for n in places)
    got = torch.func.jvp(function(solved), primals, tuple(tangents))
    want = torch.func.jvp(function(dense), primals, tuple(tangents))
    assert_close(got, want)


def test_gradients_of_functions():
    x, b, g, alpha = (t.detach() for t in arguments())
    found = []
    for solve in (solved, dense):

        def of(x, solve=solve):
            return loss_of(solve(x, x, b, g, alpha))

        found.append([torch.func.grad(of)(x)])
    assert_close(*found)


@pytest.mark.parametrize("place", range(4))
def test_one_of_the_arguments_may_be_mapped(place):
    tensors = [t.detach() for t in arguments()]
    shape = tensors[place].shape
    tensors[place] = 0.1 + leaf(*shape, 3, seed=place).detach().abs()

    def of(solve):
        return lambda x, b, g, alpha: solve(x, x, b, g, alpha)

    dims = [len(shape) if n == place else None for n in range(4)]
    got = torch.func.vmap(of(solved), in_dims=tuple(dims))(*tensors)
    want = []
    for k in range(3):
        x, b, g, alpha = (t[..., k] if n == place else t for n, t in enumerate(tensors))
        want.append(dense(x, x, b, g, alpha))
    assert got.shape == (3, ROWS, 2)
    assert_close(got, want)


@pytest.mark.parametrize("place", [1, 2, 3])
def test_jacobians_and_hessians_of_functions(place):
    tensors = [t.detach() for t in arguments()]
    found = []
    for solve in (solved, dense):

        def of(moved, solve=solve):
            x, b, g, alpha = (moved if n == place else t for n, t in enumerate(tensors))
            return solve(x, x, b, g, alpha)[:3]

        found.append([torch.func.jacrev(of)(tensors[place]), torch.func.jacfwd(of)(tensors[place])])
        if place != 1:
            found[-1].append(torch.func.hessian(lambda t, of=of: loss_of(of(t)))(tensors[place]))
    assert_close(*found, rtol=1e-7)


def test_small_gradients_are_not_taken_for_zero():
    x, b, g, alpha = arguments()
    value = 1e-12 * loss_of(solver(x, x, b, g, alpha=alpha))
    got = torch.autograd.grad(value, (x, b, g, alpha))
    want = torch.autograd.grad(1e-12 * loss_of(dense(x, x, b, g, alpha)), (x, b, g, alpha))
    assert_close(got, want, rtol=1e-4)


def test_gradients_in_single_precision():
    tensors = arguments()
    single = [t.detach().float().requires_grad_() for t in tensors]
    x, b, g, alpha = single
    got = torch.autograd.grad(loss_of(solver(x, x, b, g, alpha=alpha)), single)
    x, b, g, alpha = tensors
    want = torch.autograd.grad(loss_of(dense(x, x, b, g, alpha)), tensors)
    assert all(t.dtype == torch.float32 for t in got)
    assert_close([t.double() for t in got], want, rtol=1e-3)


def test_nothing_is_recorded_for_tensors_that_ask_for_nothing():
    x, b, g, alpha = (t.detach() for t in arguments())
    got = solved(x, x, b, g, alpha)
    assert not got.requires_grad
    assert_close([got], [dense(x, x, b, g, alpha)])
    kept = b.clone().requires_grad_()
    with torch.no_grad():
        assert not solved(x, x, kept, g, alpha).requires_grad


def test_an_alpha_of_another_dtype_or_library_is_converted():
    x, b, g, _ = (t.detach() for t in arguments())
    want = dense(x, x, b, g, 0.5)
    for given in (torch.tensor([0.5]), np.float64(0.5), 0.5):
        assert_close([solved(x, x, b, g, given)], [want])


def test_a_gradient_that_is_not_finite_is_an_error():
    x, b, g, alpha = arguments()
    with pytest.raises(SolveError, match="not finite"):
        (solved(x, x, b, g, alpha).sum() * float("nan")).backward()


def test_a_lazy_tensor_solves_and_has_gradients():
    x, b, g, alpha = arguments()
    i, j = LazyTensor(x[:, None, :]), LazyTensor(x[None, :, :])
    K = (-LazyTensor(g) * ((i - j) ** 2).sum(-1)).exp()
    found = []
    for a in (K.solve(b, alpha=alpha, tol=1e-13), dense(x, x, b, g, alpha)):
        first = torch.autograd.grad(loss_of(a), (x, b, g, alpha), create_graph=True)
        second = torch.autograd.grad(sum((f**2).sum() for f in first), (x, b, g, alpha))
        found.append((*first, *second))
    assert_close(*found, rtol=1e-7)


def test_every_name_of_the_class():
    from pairfold import dropin

    for place in ("pykeops.torch", "pykeops.torch.operations"):
        assert dropin.MODULES[place]["KernelSolve"] == "dropin.torch"
    assert pairfold.torch.KernelSolve.library == "torch"


@pytest.mark.parametrize("name", ["nystrom", "pivoted-cholesky"])
@pytest.mark.parametrize("rows", [True, False])
def test_gradients_share_the_preconditioner(name, rows, monkeypatch):
    from pairfold.frontends.entries import Entries

    made: list[str] = []
    inverse = Entries.inverse
    monkeypatch.setattr(Entries, "inverse", lambda *args: made.append(args[5]) or inverse(*args))
    x, b, g, alpha = arguments()
    if rows:
        alpha = torch.linspace(0.3, 2, ROWS, dtype=torch.float64)[:, None].requires_grad_()
    counts: list[int] = []
    options = {"preconditioner": name, "callback": lambda n, norms: counts.append(n)}
    a = solver(x, x, b, g, alpha=alpha, tol=1e-13, rank=15, **options)
    got = torch.autograd.grad(loss_of(a), (x, b, g, alpha), create_graph=True)
    squared = ((x[:, None, :] - x[None, :, :]) ** 2).sum(-1)
    shifted = torch.exp(-g * squared) + torch.diag(alpha.expand(ROWS, 1)[:, 0])
    want = torch.autograd.grad(
        loss_of(torch.linalg.solve(shifted, b)), (x, b, g, alpha), create_graph=True
    )
    assert_close(got, want)
    found = [torch.autograd.grad(sum((f**2).sum() for f in f), (x, b, g)) for f in (got, want)]
    assert_close(*found, rtol=1e-7)
    assert made == [name]
    assert len(counts) < 20


@pytest.mark.parametrize("name", ["nystrom", "pivoted-cholesky"])
def test_functions_of_systems_with_a_preconditioner(name):
    x, b, g, alpha = (t.detach() for t in arguments())

    def solve(x, b):
        return solver(x, x, b, g, alpha=alpha, tol=1e-13, preconditioner=name, rank=9)

    points = torch.stack([x, 2 * x])
    got = torch.func.vmap(solve, in_dims=(0, None))(points, b)
    want = torch.stack([dense(p, p, b, g, alpha) for p in points])
    assert_close([got], [want])
    got = torch.func.jacrev(lambda b: solve(x, b)[:3])(b)
    want = torch.func.jacrev(lambda b: dense(x, x, b, g, alpha)[:3])(b)
    assert_close([got], [want])
    sums = [
        torch.func.vmap(torch.func.grad(lambda x, f=f: loss_of(f(x))))(points)
        for f in (lambda x: solve(x, b), lambda x: dense(x, x, b, g, alpha))
    ]
    assert_close([sums[0]], [sums[1]])
