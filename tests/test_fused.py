"""Gradients from one pass over the pairs, against dense float64 and against separate calls."""

from __future__ import annotations

import numpy as np
import pytest
from checks import assert_close, assert_same_bits
from products import every_pair, some

torch = pytest.importorskip("torch")

from pairfold.core.node import Axis  # noqa: E402
from pairfold.frontends.fused import FusedReductions  # noqa: E402
from pairfold.settings import settings  # noqa: E402
from pairfold.torch import Genred  # noqa: E402


def squares(x, y):
    return ((x[..., :, None, :] - y[..., None, :, :]) ** 2).sum(-1)


def totals(x, y):
    return x.sum(-1)[..., :, None] + y.sum(-1)[..., None, :]


def kernel_of(values):
    """Sum_j k_ij b_j of a dense kernel matrix."""
    return lambda x, y, b, p: values(x, y, p[..., 0, None, None]) @ b


def linear(x, y, b, p):
    """A row factor, a column factor, and parameters inside and outside the exponential."""
    table = torch.exp(-squares(x, y) * p[..., 0, None, None]) * y.sum(-1)[..., None, :]
    return (table @ b) * x[..., :, :1] * p[..., None, 1:]


# formula, its dense meaning
FORMULAS = {
    "gaussian": ("Exp(-SqDist(x,y))*b", kernel_of(lambda x, y, s: torch.exp(-squares(x, y)))),
    "laplacian": ("Exp(-Sqrt(SqDist(x,y)))*b",
                  kernel_of(lambda x, y, s: torch.exp(-squares(x, y).sqrt()))),
    "cauchy": ("Inv(1+Elem(p,0)*SqDist(x,y))*b",
               kernel_of(lambda x, y, s: 1 / (1 + s * squares(x, y)))),
    "product": ("(x|y)*b", kernel_of(lambda x, y, s: x @ y.transpose(-1, -2))),
    "separable": ("Exp(Sum(x)+Sum(y))*b",
                  kernel_of(lambda x, y, s: torch.exp(totals(x, y)))),
    "mixed": ("Exp(-SqDist(x,y)*Elem(p,0))*Sum(y)*b*Elem(x,0)*Elem(p,1)", linear),
}  # fmt: skip


@pytest.fixture
def passes(monkeypatch):
    """How often a fused pass was run."""
    calls: list[Axis] = []
    run = FusedReductions.in_one_pass

    def counted(self, *given):
        calls.append(self.kept)
        return run(self, *given)

    monkeypatch.setattr(FusedReductions, "in_one_pass", counted)
    return calls


def draw(rows, columns, dim=3, outputs=1, dtype=torch.float32, batches=((), (), (), ()), seed=0):
    """x, y, b, p as leaves of a graph."""
    make = torch.Generator().manual_seed(seed)
    shapes = [(*batches[0], rows, dim), (*batches[1], columns, dim),
              (*batches[2], columns, outputs), (*batches[3], 2)]  # fmt: skip
    found = [torch.rand(shape, generator=make, dtype=torch.float64) for shape in shapes]
    return [tensor.to(dtype).requires_grad_() for tensor in found]


def reduction(text, tensors, **options):
    x, _, b, _ = tensors
    dims = (x.shape[-1], b.shape[-1])
    names = [f"x = Vi({dims[0]})", f"y = Vj({dims[0]})", f"b = Vj({dims[1]})", "p = Pm(2)"]
    return Genred(text, names, axis=1, **options)


def gradients(text, tensors, wanted=(0, 1, 2, 3), seed=1, **options):
    """The gradients, and those of the dense meaning in float64."""
    out = reduction(text, tensors)(*tensors)
    make = torch.Generator().manual_seed(seed)
    upstream = torch.rand(out.shape, generator=make, dtype=torch.float64).to(out.dtype)
    with settings(**options):
        got = torch.autograd.grad(out, [tensors[n] for n in wanted], upstream)
    return got, upstream


def dense_gradients(meaning, tensors, upstream, wanted=(0, 1, 2, 3)):
    exact = [tensor.detach().double().requires_grad_() for tensor in tensors]
    out = meaning(*exact)
    return torch.autograd.grad(
        out, [exact[n] for n in wanted], upstream.double(), allow_unused=True
    )


def compare(got, want, terms):
    for ours, theirs in zip(got, want, strict=True):
        theirs = torch.zeros_like(ours, dtype=torch.float64) if theirs is None else theirs
        eps = torch.finfo(ours.dtype).eps
        assert_close(ours.double().numpy(), theirs.numpy(), rtol=40 * eps * terms**0.5)


def check(name, tensors, wanted=(0, 1, 2, 3), **options):
    text, meaning = FORMULAS[name]
    got, upstream = gradients(text, tensors, wanted, **options)
    want = dense_gradients(meaning, tensors, upstream, wanted)
    compare(got, want, max(tensors[0].shape[-2], tensors[1].shape[-2]))
    return got


SIZES = [(17, 23), (100, 37), (1, 1), (1, 40), (40, 1), (64, 16), (33, 300)]


@every_pair(
    ("name", list(FORMULAS)), ("size", SIZES), ("dtype", [torch.float32, torch.float64]), ids=str
)
def test_every_gradient_at_once(name, size, dtype, passes):
    check(name, draw(*size, dtype=dtype))
    assert len(passes) == 1


@some(
    "dim,outputs",
    [(dim, outputs) for dim in (1, 2, 4, 5, 10, 16) for outputs in (1, 2, 3)],
    lambda entry: sum(entry) % 2 == 0 or entry == (16, 3),
)
def test_dimensions(dim, outputs, passes):
    check("mixed", draw(45, 70, dim, outputs))
    assert len(passes) == 1


@pytest.mark.parametrize(("dim", "outputs"), [(17, 1), (3, 17), (16, 16)])
def test_long_vectors_are_folded_one_by_one(dim, outputs, passes):
    check("gaussian", draw(45, 70, dim, outputs), (0, 1, 2))
    assert not passes


@pytest.mark.parametrize("wanted", [(0, 1), (1, 2), (0, 3), (2, 0), (1,), (0, 1, 2)], ids=str)
def test_some_of_the_gradients(wanted, passes):
    tensors = draw(50, 61)
    for n, tensor in enumerate(tensors):
        tensor.requires_grad_(n in wanted)
    check("mixed", tensors, wanted)
    assert len(passes) == (len(wanted) > 1)


def test_the_longer_axis_is_in_lanes(passes):
    check("gaussian", draw(300, 40), (0, 1, 2))
    check("gaussian", draw(40, 300), (0, 1, 2))
    assert passes == [Axis.I, Axis.J]


def test_it_can_be_refused(passes):
    check("gaussian", draw(500, 400), (0, 1, 2), fused="separate")
    check("gaussian", draw(500, 400), (0, 1, 2), lanes="column")
    assert not passes
    check("gaussian", draw(500, 400), (0, 1, 2))
    assert len(passes) == 1


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (0, 0)], ids=str)
def test_nothing_to_sum(size, passes):
    got = check("gaussian", draw(*size), (0, 1, 2))
    assert all(not tensor.any() for tensor in got)
    assert not passes


BATCHES = [
    ((2,), (2,), (2,), (2,)),
    ((2,), (), (), ()),
    ((2, 1), (3,), (1, 3), ()),
    ((1,), (3,), (), (3,)),
]


@pytest.mark.parametrize("batches", BATCHES, ids=str)
@pytest.mark.parametrize("name", ["gaussian", "mixed"])
def test_batches(name, batches, passes):
    check(name, draw(37, 52, batches=batches))
    assert len(passes) == 1


def test_no_batch_element(passes):
    check("gaussian", draw(37, 52, batches=((0,), (0,), (0,), ())), (0, 1, 2))
    assert not passes


def test_arrays_of_any_strides(passes):
    x, y, b, p = draw(80, 120, 6, 2)
    views = [x[::2, ::2], y.flip(0)[:, 1:4], b[:1].expand(120, 2), p.flip(0)]
    leaves = [view.detach().requires_grad_() for view in views]
    assert not leaves[0].is_contiguous()
    check("mixed", leaves)
    assert len(passes) == 1


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_storage_in_half_precision(name, dtype, passes):
    check(name, draw(50, 61, dtype=dtype))
    assert len(passes) == 1


@some("rows", [2000, 3000], lambda rows: rows == 3000)
def test_sizes_that_cross_blocks_of_rows_and_columns(rows, passes):
    tensors = draw(rows, 2500)
    for options in ({}, {"block": 32, "row_vectors": 1}, {"row_vectors": 4}, {"splits": 3}):
        check("gaussian", tensors, (0, 1, 2), **options)
    assert len(passes) == 4


@pytest.mark.parametrize("name", ["gaussian", "mixed"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_threads_change_no_bit(name, dtype):
    tensors = draw(2100, 3000, dtype=dtype)
    text = FORMULAS[name][0]
    one, _ = gradients(text, tensors, threads=1)
    two, _ = gradients(text, tensors, threads=2)
    again, _ = gradients(text, tensors, threads=2)
    for a, b, c in zip(one, two, again, strict=True):
        assert_same_bits(b.numpy(), a.numpy())
        assert_same_bits(c.numpy(), a.numpy())


@pytest.mark.parametrize("target", ["avx2", "baseline"])
@pytest.mark.parametrize("name", FORMULAS)
def test_other_instruction_sets(name, target, passes):
    check(name, draw(50, 61), target=target)
    assert len(passes) == 1


@pytest.mark.parametrize("rules", ["exact", "all"])
def test_rules(rules, passes):
    check("mixed", draw(50, 61), rules=rules)
    assert len(passes) == 1


def test_fused_passes_are_compared_with_the_reference(passes):
    check("mixed", draw(50, 61), check=2)
    assert len(passes) == 1


@pytest.mark.parametrize("options", [{"dtype_acc": "float64"}, {"dtype_acc": "float32"},
                                     {"sum_scheme": "kahan_scheme"}], ids=str)  # fmt: skip
def test_accumulation_as_asked(options, passes):
    tensors = draw(700, 900)
    text, meaning = FORMULAS["gaussian"]
    out = reduction(text, tensors, **options)(*tensors)
    upstream = torch.ones_like(out)
    got = torch.autograd.grad(out, tensors[:3], upstream)
    compare(got, dense_gradients(meaning, tensors, upstream, (0, 1, 2)), 900)
    assert len(passes) == ("sum_scheme" not in options)


# -- values that are not finite -------------------------------------------------------------------


def spoilt(where, value, dtype=torch.float32):
    tensors = draw(47, 70, dtype=dtype)
    with torch.no_grad():
        tensors[where][-1, 0] = value
    return tensors


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan"), 1e30])
@pytest.mark.parametrize("where", [0, 1, 2])
@pytest.mark.parametrize("name", ["gaussian", "cauchy", "separable", "mixed"])
def test_values_that_are_not_finite_reach_what_they_reach_one_by_one(name, where, value, passes):
    tensors = spoilt(where, value)
    got, _ = gradients(FORMULAS[name][0], tensors)
    want, _ = gradients(FORMULAS[name][0], tensors, fused="separate", rules="exact")
    assert passes
    for ours, theirs in zip(got, want, strict=True):
        assert_close(ours.numpy(), theirs.numpy(), terms=70)


def test_exponents_that_may_not_be_separated(passes):
    tensors = draw(47, 70)
    with torch.no_grad():
        tensors[0] += 40
        tensors[1] -= 40
    check("separable", tensors)
    assert passes


def test_a_gradient_that_is_not_finite(passes):
    tensors = draw(47, 70)
    out = reduction(FORMULAS["mixed"][0], tensors)(*tensors)
    upstream = torch.ones_like(out)
    upstream[-1] = float("inf")
    found = []
    for option in ("auto", "separate"):
        with settings(fused=option):
            found.append(torch.autograd.grad(out, tensors, upstream, retain_graph=True))
    for ours, theirs in zip(*found, strict=True):
        assert_close(ours.numpy(), theirs.numpy(), terms=70)
    assert not np.isfinite(found[0][1].numpy()).all()


def test_points_that_coincide(passes):
    tensors = draw(47, 70)
    with torch.no_grad():
        tensors[1][:47] = tensors[0]
    for name in ("gaussian", "laplacian", "cauchy"):
        got, _ = gradients(FORMULAS[name][0], tensors)
        want, _ = gradients(FORMULAS[name][0], tensors, fused="separate")
        for ours, theirs in zip(got, want, strict=True):
            assert_close(ours.numpy(), theirs.numpy(), terms=70)
    assert len(passes) == 3


# -- other reductions, higher orders, other ways to differentiate ---------------------------------


def test_logsumexp(passes):
    x, y, b, _ = draw(70, 90, dtype=torch.float64)
    names = ["x = Vi(3)", "y = Vj(3)", "b = Vj(1)"]
    fold = Genred("b-SqDist(x,y)", names, "LogSumExp", axis=1)
    got = torch.autograd.grad(fold(x, y, b).sum(), (x, y, b))
    dense = torch.logsumexp(b[:, 0] - squares(x, y), -1)
    compare(got, torch.autograd.grad(dense.sum(), (x, y, b)), 90)
    assert len(passes) == 1


def test_soft_max_weights(passes):
    x, y, b, _ = draw(70, 90, outputs=2, dtype=torch.float64)
    names = ["x = Vi(3)", "y = Vj(3)", "b = Vj(2)"]
    fold = Genred("-SqDist(x,y)", names, "SumSoftMaxWeight", axis=1, formula2="b")
    got = torch.autograd.grad(fold(x, y, b).square().sum(), (x, y, b))
    dense = torch.softmax(-squares(x, y), -1) @ b
    compare(got, torch.autograd.grad(dense.square().sum(), (x, y, b)), 90)
    assert len(passes) == 1


def test_sums_over_i(passes):
    x, y, b, _ = draw(70, 90, dtype=torch.float64)
    fold = Genred("Exp(-SqDist(x,y))*b", ["x = Vi(3)", "y = Vj(3)", "b = Vj(1)"], axis=0)
    got = torch.autograd.grad(fold(x, y, b).square().sum(), (x, y, b))
    dense = torch.exp(-squares(x, y)).sum(0)[:, None] * b
    compare(got, torch.autograd.grad(dense.square().sum(), (x, y, b)), 90)
    assert len(passes) == 1


def test_gradients_of_gradients():
    tensors = draw(11, 14, dtype=torch.float64)
    fold = reduction(FORMULAS["mixed"][0], tensors)
    assert torch.autograd.gradcheck(fold, tensors)
    assert torch.autograd.gradgradcheck(fold, tensors, fast_mode=True)


def test_the_last_gradient_of_a_chain_is_from_one_pass(passes):
    tensors = draw(40, 50, dtype=torch.float64)
    text, meaning = FORMULAS["gaussian"]
    found = []
    for call in (reduction(text, tensors), meaning):
        out = call(*tensors)
        (inner,) = torch.autograd.grad(out.square().sum(), tensors[0], create_graph=True)
        found.append(torch.autograd.grad(inner.square().sum(), tensors[:3]))
    compare(*found, 50)
    assert passes


def test_functional_gradients_and_vmap():
    tensors = [t.detach() for t in draw(40, 50, dtype=torch.float64)]
    text, meaning = FORMULAS["mixed"]
    fold = reduction(text, tensors)
    got = torch.func.grad(lambda *t: fold(*t).sum(), argnums=(0, 1, 2, 3))(*tensors)
    many = torch.stack([tensors[0], 2 * tensors[0]])
    each = torch.func.vmap(torch.func.grad(lambda x: fold(x, *tensors[1:]).sum()))(many)
    want = torch.func.grad(lambda *t: meaning(*t).sum(), argnums=(0, 1, 2, 3))(*tensors)
    compare(got, want, 50)
    compare([each[0]], [want[0]], 50)


def test_gradients_accumulate_in_leaves(passes):
    tensors = draw(70, 90)
    fold = reduction(FORMULAS["gaussian"][0], tensors)
    for _ in range(2):
        fold(*tensors).sum().backward()
    out = FORMULAS["gaussian"][1](*(t.detach().double() for t in tensors))
    want = dense_gradients(FORMULAS["gaussian"][1], tensors, torch.ones_like(out), (0, 1, 2))
    compare([t.grad for t in tensors[:3]], [2 * w for w in want], 90)
    assert all(t.grad.is_contiguous() for t in tensors[:3])
    assert len(passes) == 2
