"""torch.compile: a program that calls reductions compiles, with the same values and gradients."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from products import some  # noqa: E402

from pairfold.torch import Genred, KernelSolve, LazyTensor  # noqa: E402

# torch looks at `.grad` of tensors that its own traces made.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
ALIASES = ["x = Vi(3)", "y = Vj(3)", "b = Vj(1)"]
gaussian = Genred("Exp(-SqDist(x,y))*b", ALIASES, axis=1)
solver = KernelSolve("Exp(-SqDist(x,y))*b", ALIASES, "b", axis=1)


def genred(x, y, b):
    return (gaussian(x.sin(), y, b) * 2).tanh()


def lazy(x, y, b):
    x_i, y_j = LazyTensor(x[:, None, :].cos()), LazyTensor(y[None])
    weights = (-((x_i - y_j) ** 2).sum(-1) / 2.5).exp()
    return (weights @ b).square()


def system(x, y, b):
    return solver(y.sin(), y.sin(), b, alpha=1.0).cos()


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@some(
    "program,backend,sizes",
    [(genred, "aot_eager", (17, 19)), (lazy, "eager", (17,)), (system, "eager", (17,))],
    lambda entry: entry[0] is not system,
)
def test_programs_compile(program, backend, sizes):
    compiled = torch.compile(program, backend=backend)
    for rows in sizes:
        torch.manual_seed(rows)
        tensors = [torch.randn(*shape, requires_grad=True) for shape in ((rows, 3), (23, 3))]
        tensors.append(torch.randn(23, 1, requires_grad=True))
        got, want = compiled(*tensors), program(*tensors)
        assert torch.equal(got, want)
        gradients = [
            torch.autograd.grad(out.sum(), tensors, allow_unused=True) for out in (got, want)
        ]
        for one, other in zip(*gradients, strict=True):
            assert (one is None) == (other is None)
            assert one is None or torch.allclose(one, other)
    with torch.no_grad():
        assert torch.equal(compiled(*tensors), program(*tensors))


def test_errors_in_compiled_programs_are_those_of_plain_calls():
    from pairfold.errors import ShapeError

    compiled = torch.compile(genred, backend="eager")
    with pytest.raises(ShapeError, match="argument 1"):
        compiled(torch.zeros(17, 3), torch.zeros(23, 4), torch.zeros(23, 1))
