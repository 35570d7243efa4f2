"""Lazy tensors copied, pickled and moved; modules of parameters; printing."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from checks import assert_close, assert_same_bits
from test_lazytensor import D, M, N, X, Y, agree

from pairfold.errors import (
    ArrayTypeError,
    DTypeError,
)
from pairfold.numpy import LazyTensor, Pm, Vi, Vj

RNG = np.random.default_rng(8)
Z = X - Y
libraries = pytest.mark.parametrize("make", [np.array, torch.tensor], ids=["numpy", "torch"])
roundtrip = pytest.mark.parametrize(
    "again", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["deepcopy", "pickle"]
)


# -- copies ----------------------------------------------------------------------------------------


def tensors(make: Any) -> dict[str, Any]:
    x, y = LazyTensor(make(X)), Vj(make(Y[0]))
    squares = x.sqdist(y) * 0.5 + Pm([0.25]) / 3
    return {
        "variable": x,
        "formula": squares.exp().concat(x - y),
        "long formula": sum([(squares + k) / (k + 1) for k in range(60)], squares),
        "transposed": (x.exp() - y).t(),
        "batches": LazyTensor(make(np.stack([X, 2 * X]))) * y,
        "tensor product": x.keops_tensordot(y, (3,), (3,), (), (), (1, 0)),
        "complex": LazyTensor(make(X + 1j)) * y,
        "complex transposed": (LazyTensor(make(X + 1j)) * y).t(),
        "matrix column": (x | y)._column_variable(make(np.ones((N, 2)))) + y[:2],
    }


@libraries
@roundtrip
@pytest.mark.parametrize("name", tensors(np.array))
def test_copies_are_equal(name: str, again: Any, make: Any) -> None:
    lazy = tensors(make)[name]
    found = again(lazy)
    assert type(found) is type(lazy)
    for attribute in ("_shape", "dtype", "ni", "nj", "batchdims", "axis", "device", "library"):
        assert getattr(found, attribute) == getattr(lazy, attribute)
    for axis in (lazy.nbatchdims, lazy.nbatchdims + 1):
        one, other = found.sum(axis=axis), lazy.sum(axis=axis)
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


@libraries
@roundtrip
def test_copies_have_arrays_of_their_own(again: Any, make: Any) -> None:
    x = make(X)
    lazy = LazyTensor(x) + 1
    found = again(lazy)
    x[:] = 0
    agree(found, X + 1)
    agree(lazy, 0 * X + 1)


@libraries
@roundtrip
def test_what_was_shared_stays_shared(again: Any, make: Any) -> None:
    x, y = make(X), make(Y)
    one, two = LazyTensor(x) * 2, LazyTensor(x) - LazyTensor(y)
    kept = again([one, two, x])
    assert kept[0].leaves[0].owner is kept[1].leaves[0].owner is kept[2]
    kept[2][:] = 1
    agree(kept[0], 0 * X + 2)
    agree(kept[1], 1 - Y + 0 * X)
    assert len((kept[0] + kept[1]).leaves) == 3  # x, 2, y


@roundtrip
def test_symbols_ranges_and_backends_are_kept(again: Any) -> None:
    f = (Vi(0, 3) - Vj(1, 3)).exp()
    f.ranges = tuple(np.array(a) for a in ([[0, M]], [1], [[1, 3]], [[0, N]], [1], [[0, M]]))
    f.backend = "CPU"
    found = again(f)
    assert ([leaf.symbol for leaf in found.symbols], found.backend) == ([0, 1], "CPU")
    assert_close(found.sum(axis=1)(X[:, 0], Y[0]), np.exp(Z)[:, 1:3].sum(1))


@libraries
@roundtrip
def test_reductions_are_copied(again: Any, make: Any) -> None:
    weight = LazyTensor(make(Y[..., :2]))
    square = LazyTensor(make(X)).sqdist(LazyTensor(make(Y)))
    f = square.logsumexp(axis=1, weight=weight, call=False)
    f.options["keepdim"] = True
    found = again(f)
    assert str(found) == str(f)
    np.testing.assert_array_equal(np.asarray(found()), np.asarray(f()))
    assert found().shape == (M, 1, 2)


@libraries
@roundtrip
def test_systems_are_copied(again: Any, make: Any) -> None:
    x = Vi(make(X[:, 0]))
    k = (-4 * x.sqdist(x.t())).exp()
    system = k.solve(make(X[:, 0]), call=False, alpha=0.5)
    np.testing.assert_array_equal(np.asarray(again(system)()), np.asarray(system()))
    waiting = again((-4 * Vi(0, 3).sqdist(Vj(1, 3))).exp().solve(Vi(2, 3), alpha=0.5))
    assert_close(waiting(*[make(X[:, 0])] * 3), system(), rtol=1e-12)


def test_shallow_copies_share_their_arrays() -> None:
    x = X.copy()
    lazy = LazyTensor(x) * 2
    found = copy.copy(lazy)
    found.backend = "CPU"
    assert (found.node, lazy.backend) == (lazy.node, None)
    x[:] = 1
    agree(found, 0 * X + 2)


@roundtrip
def test_deep_graphs(again: Any) -> None:
    lazy = x = LazyTensor(X)
    for _ in range(1100):
        lazy = (lazy + x) * 0.5
    assert_close(again(lazy).sum(axis=1), X.sum(1))


def test_numbers_stay_exact_in_pickles() -> None:
    lazy = LazyTensor(np.zeros((1, 1, 1))) + 1 / LazyTensor(3) + 0.1 + (2**60 + 1)
    found = pickle.loads(pickle.dumps(lazy))
    assert found.node.dim == 1
    assert str(found) == str(lazy)
    assert_same_bits(found.sum(axis=1), lazy.sum(axis=1))


def test_zeros_of_both_signs_are_different_numbers() -> None:
    x = LazyTensor(np.ones((1, 1, 1)))
    positive, negative = (x / LazyTensor(zero) for zero in (0.0, -0.0))
    assert positive.concat(negative).sum(axis=1).tolist() == [[np.inf, -np.inf]]


# -- dtypes ----------------------------------------------------------------------------------------


def test_to_changes_the_dtype() -> None:
    lazy = LazyTensor(torch.tensor(X)) * 2 - Vj(torch.tensor(Y[0]))
    found = lazy.to(torch.float32)
    assert (lazy.dtype, found.dtype) == ("float64", "float32")
    assert found.sum(axis=1).dtype == torch.float32
    assert_close(found.sum(axis=1), (2 * X - Y).sum(1), terms=N)
    assert (LazyTensor(X) * 2).to("float32").sum(axis=1).dtype == np.float32
    assert (LazyTensor(X) * 2).to(dtype=np.float32).dtype == "float32"
    assert lazy.to("cpu").dtype == "float64"
    assert LazyTensor(X + 1j).to("complex64").dtype == "complex64"
    assert lazy.sum(axis=1, call=False).to(torch.float32)().dtype == torch.float32


def test_to_keeps_gradients() -> None:
    x = torch.tensor(X, requires_grad=True)
    LazyTensor(x).exp().to(torch.float32).sum(axis=1).sum().backward()
    assert x.grad is not None
    assert_close(x.grad, np.exp(X), rtol=1e-5)


def test_what_to_refuses() -> None:
    with pytest.raises(DTypeError):
        LazyTensor(X).to("int64")
    with pytest.raises(DTypeError):
        LazyTensor(X).to("complex128")
    with pytest.raises(DTypeError):
        LazyTensor(torch.tensor(X)).to(torch.int64)
    with pytest.raises(ArrayTypeError):
        LazyTensor(X).to("float32", "float64")


# -- modules ---------------------------------------------------------------------------------------


class Kernel(torch.nn.Module):
    """A Gaussian kernel with centres and a width as parameters, held in lazy tensors."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.centres = torch.nn.Parameter(torch.tensor(Y[0]))
        self.width = torch.nn.Parameter(torch.tensor([0.7], dtype=torch.float64))
        if form == "Vj":
            self.y, self.s = Vj(self.centres), Pm(self.width)
        elif form == "view":
            self.y, self.s = LazyTensor(self.centres[None, :, :]), LazyTensor(self.width)
        else:
            self.y = LazyTensor(self.centres.view(1, N, D)) * 1.0
            self.s = LazyTensor(self.width[None, None, :])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (-Vi(x).sqdist(self.y) * self.s).exp().sum(axis=1)


def dense_kernel(x: Any, y: Any, s: Any) -> Any:
    return (-((x[:, None] - y[None]) ** 2).sum(-1) * s).exp().sum(1, keepdim=True)


@pytest.mark.parametrize("form", ["Vj", "view", "other views"])
def test_modules_are_copied_with_their_lazy_tensors(form: str) -> None:
    x = torch.tensor(X[:, 0])
    module = Kernel(form)
    twin = copy.deepcopy(module)
    with torch.no_grad():
        twin.centres.add_(0.5)
        twin.width.mul_(2.0)
    for one in (module, twin, copy.deepcopy(twin)):
        for _ in range(2):
            one.zero_grad()
            one(x).square().sum().backward()
            y, s = (p.detach().clone().requires_grad_() for p in (one.centres, one.width))
            dense = dense_kernel(x, y, s)
            assert_close(one(x).detach(), dense.detach(), terms=N)
            wanted = torch.autograd.grad(dense.square().sum(), (y, s))
            for parameter, gradient in zip((one.centres, one.width), wanted, strict=True):
                assert parameter.grad is not None
                assert_close(parameter.grad, gradient, terms=M * N)
    assert list(twin.state_dict()) == ["centres", "width"]


def test_modules_are_saved_whole() -> None:
    module, file = Kernel("Vj"), io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    found = torch.load(file, weights_only=False)
    assert found.y.leaves[0].owner is found.centres
    x = torch.tensor(X[:, 0])
    assert_close(found(x).detach(), module(x).detach())


def test_an_optimiser_moves_what_a_lazy_tensor_holds() -> None:
    module, x = Kernel("view"), torch.tensor(X[:, 0])
    optimiser = torch.optim.SGD(module.parameters(), lr=1e-3)
    losses = []
    for _ in range(3):
        optimiser.zero_grad()
        loss = module(x).sum()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[0] > losses[1] > losses[2]


def test_computed_tensors_are_not_copied_with_their_history() -> None:
    p = torch.nn.Parameter(torch.tensor(X))
    with pytest.raises(ArrayTypeError, match="computed from others"):
        copy.deepcopy(LazyTensor(p * 2))
    found = pickle.loads(pickle.dumps(LazyTensor(p[::2].detach())))
    agree(found, X[::2])


# -- printing --------------------------------------------------------------------------------------


def test_printing() -> None:
    f = (LazyTensor(X) - LazyTensor(Y)).sqnorm2().exp()
    lines = str(f).splitlines()
    assert lines[0] == "KeOps LazyTensor"
    assert lines[1].strip().startswith("formula: Exp(")
    assert "Var(0,3,0)" in lines[1]
    assert "Var(1,3,1)" in lines[1]
    assert lines[-1].strip() == f"shape: ({M}, {N})"
    text = repr(f)
    for part in ("LazyTensor", "Exp(", f"shape ({M}, {N})", "dtype float64", "device cpu"):
        assert part in text


def test_printing_symbols_and_reductions() -> None:
    f = (Vi(0, 3) | Vj(1, 3)).reduction("ArgKMin", opt_arg=4, axis=1)
    text = str(f)
    assert "symbolic variables: Var(0, 3, 0), Var(1, 3, 1)" in text
    assert "reduction: ArgKMin (axis=1)" in text
    assert "opt_arg: 4" in text
    g = LazyTensor(X).sqdist(LazyTensor(Y)).logsumexp(axis=1, weight=LazyTensor(Y), call=False)
    assert "formula2: Var(1,3,1)" in str(g)
    assert repr(g).startswith("<reduction LogSumExp over axis 1 of <LazyTensor ")


def test_printing_of_deep_formulas_is_short() -> None:
    lazy = x = LazyTensor(X)
    for _ in range(50):
        lazy = (lazy * x + lazy).sin()
    assert len(str(lazy)) < 5000
