"""torch.compile and torch.export: programs that call reductions are one graph, of the same values.

Compilation is slow, so a program here makes many calls, and few programs are compiled.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from checks import assert_close

torch = pytest.importorskip("torch")

from torch.utils.checkpoint import checkpoint  # noqa: E402

from pairfold.arrays.opaque import follows_operators  # noqa: E402
from pairfold.errors import ShapeError  # noqa: E402
from pairfold.frontends.ranges import Ranges  # noqa: E402
from pairfold.torch import Genred, KernelSolve, Vi, Vj  # noqa: E402

# torch looks at `.grad` of tensors that its own traces made, and warns of its own names.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
NAMES = ["x = Vi(3)", "y = Vj(3)", "b = Vj(1)"]
GAUSSIAN = Genred("Exp(-SqDist(x,y))*b", NAMES, axis=1)
SCALED = Genred("Exp(-p*SqDist(x,y))*b", [*NAMES, "p = Pm(1)"], "Mean", axis=1)
SOFT = ((Vi(0, 3) - Vj(1, 3)) ** 2).sum(-1).logsumexp(axis=0, call=False)
NEAREST = Genred("SqDist(x,y)", NAMES[:2], "Min_ArgMin", axis=1)
SYSTEM = KernelSolve("Exp(-SqDist(x,y))*b", NAMES, "b", axis=1)
F = torch.func


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def reductions(x: Any, y: Any, b: Any) -> Any:
    """Reductions of every kind of derivative, one after the other."""
    first = (checkpoint(GAUSSIAN, x.sin(), y, b, use_reentrant=False) * 2).tanh()
    second = SCALED(x, y, b[:, 0], 0.5)
    third = SOFT(x, y)
    nearest, places = NEAREST(x, y)
    return first.sum() + second.cos().sum() + (third * b).sum() + (nearest * places).sum()


def dense(x: Any, y: Any, b: Any) -> Any:
    def pairs(x: Any) -> Any:
        return ((x[:, None] - y[None]) ** 2).sum(-1)

    first = ((-pairs(x.sin())).exp() @ b * 2).tanh()
    second = (-0.5 * pairs(x)).exp() @ b / y.shape[0]
    third = pairs(x).logsumexp(0)[:, None]
    nearest, places = pairs(x).min(1, keepdim=True)
    return first.sum() + second.cos().sum() + (third * b).sum() + (nearest * places).sum()


def points(rows: int, columns: int, seed: int = 0) -> list[Any]:
    drawn = torch.Generator().manual_seed(seed)
    sizes = (rows, 3), (columns, 3), (columns, 1)
    return [
        torch.randn(size, generator=drawn, dtype=torch.float64).requires_grad_() for size in sizes
    ]


def same(got: Any, want: Any) -> None:
    if isinstance(want, (tuple, list)):
        for one, other in zip(got, want, strict=True):
            same(one, other)
    else:
        assert_close(got.detach().numpy(), want.detach().numpy(), rtol=1e-9)


def gradients(program: Callable[..., Any], given: list[Any]) -> Any:
    return torch.autograd.grad(program(*given), given)


class Counter:
    """A backend that counts the graphs it is given."""

    def __init__(self, backend: str) -> None:
        self.graphs = 0
        self.backend = torch._dynamo.lookup_backend(backend)

    def __call__(self, graph: Any, given: Any) -> Any:
        self.graphs += 1
        return self.backend(graph, given)


BACKENDS = ["eager", "aot_eager"]
FOLLOWED = pytest.mark.skipif(not follows_operators(), reason="torch cuts such programs in parts")
NO_COMPILER = not (shutil.which("g++") or shutil.which("clang++") or sys.platform == "win32")


@pytest.mark.parametrize("backend", BACKENDS)
@FOLLOWED
def test_programs_are_one_graph_for_all_sizes(backend: str):
    counter = Counter(backend)
    compiled = torch.compile(reductions, fullgraph=True, dynamic=True, backend=counter)
    for rows, columns in ((17, 23), (5, 9)):
        given = points(rows, columns)
        same(compiled(*given), dense(*given))
        same(gradients(compiled, given), gradients(dense, given))
    assert counter.graphs == 1
    with torch.no_grad():
        same(compiled(*given), dense(*given))


@pytest.mark.product  # it takes a minute
@pytest.mark.skipif(NO_COMPILER, reason="inductor writes C++, and no compiler is here")
@FOLLOWED
def test_inductor():
    test_programs_are_one_graph_for_all_sizes("inductor")


@FOLLOWED
def test_transforms_inside_compiled_programs():
    x, y, b = (tensor.detach() for tensor in points(4, 5))
    stack = torch.stack([x, 2 * x])

    def transforms(kernel: Callable[..., Any]) -> Callable[..., Any]:
        def value(x: Any) -> Any:
            return kernel(x, y, b).sin().sum()

        def run(x: Any, stack: Any) -> Any:
            along = F.jvp(lambda x: kernel(x, y, b), (x,), (x,))
            return (
                *(F.grad(value)(x), F.hessian(value)(x), F.vmap(F.grad(value))(stack)),
                *(F.jacrev(F.jacrev(value))(x), *along),
            )

        return run

    def theirs(x: Any, y: Any, b: Any) -> Any:
        return (-((x[:, None] - y[None]) ** 2).sum(-1)).exp() @ b

    want = transforms(theirs)(x, stack)
    for backend in BACKENDS:
        same(torch.compile(transforms(GAUSSIAN), fullgraph=True, backend=backend)(x, stack), want)


@FOLLOWED
def test_ranges_and_out_in_compiled_programs():
    def program(x: Any, y: Any, b: Any, out: Any, *ranges: Any) -> Any:
        found = GAUSSIAN(x, y, b, ranges=ranges)
        assert GAUSSIAN(x, y, b, out=out) is out
        return found, out + 1

    x, y, b = (tensor.detach() for tensor in points(4, 5))
    counter = Counter("aot_eager")
    compiled = torch.compile(program, fullgraph=True, backend=counter)
    out = torch.zeros(4, 1, dtype=x.dtype)
    for stop in (2, 5):
        both = [torch.tensor(part) for part in ([[0, 4]], [1], [[0, stop]])]
        both += [torch.tensor(part) for part in ([[0, stop]], [1], [[0, 4]])]
        found, other = compiled(x, y, b, out, *both)
        same(found, GAUSSIAN(x, y[:stop], b[:stop]))
        same((out, other), (GAUSSIAN(x, y, b), out + 1))
    assert counter.graphs == 1
    kept = Ranges(both)
    found = torch.compile(lambda x: GAUSSIAN(x, y, b, ranges=kept), fullgraph=True, backend="eager")
    same(found(x), GAUSSIAN(x, y, b))


@FOLLOWED
def test_second_derivatives_are_those_of_torch_or_refused():
    given = points(4, 5)

    def second(program: Callable[..., Any]) -> Any:
        first = torch.autograd.grad(program(*given), given, create_graph=True)
        return torch.autograd.grad(sum(part.square().sum() for part in first), given)

    same(second(torch.compile(reductions, fullgraph=True, backend="eager")), second(dense))
    with pytest.raises(RuntimeError, match=r"create_graph|double backward"):
        second(torch.compile(reductions, fullgraph=True, backend="aot_eager"))


# ----- programs of several graphs ----------------------------------------------------------------


def system(x: Any, y: Any, b: Any) -> Any:
    return SYSTEM(y.sin(), y.sin(), b, alpha=1.0).cos().sum()


def test_solutions_interrupt_a_trace():
    compiled, given = torch.compile(system, backend="eager"), points(17, 23)
    same(compiled(*given), system(*given))
    found, wanted = (
        torch.autograd.grad(each(*given), given, allow_unused=True) for each in (compiled, system)
    )
    for one, other in zip(found, wanted, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            same(one, other)


def test_arrays_of_numpy_interrupt_a_trace():
    from pairfold.numpy import Genred as OfNumpy

    kernel = OfNumpy("SqDist(x,y)", NAMES[:2], axis=1)
    x, y = (tensor.detach() for tensor in points(4, 5)[:2])
    compiled = torch.compile(lambda x, y: kernel(x.numpy(), y.numpy()), backend="eager")
    assert_close(compiled(x, y), kernel(x.numpy(), y.numpy()), terms=4)


def test_errors_in_compiled_programs_are_those_of_plain_calls():
    compiled = torch.compile(reductions, backend="eager")
    with pytest.raises(ShapeError, match="argument 1"):
        compiled(torch.zeros(17, 3), torch.zeros(23, 4), torch.zeros(23, 1))


# ----- export ------------------------------------------------------------------------------------


class Module(torch.nn.Module):
    """A model with a reduction in it."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = GAUSSIAN
        self.scale = torch.nn.Parameter(torch.tensor(2.0, dtype=torch.float64))

    def forward(self, x: Any, y: Any, b: Any) -> Any:
        return self.kernel(self.scale * x, y, b)


LOADING = """
import sys, torch
import pairfold.torch
pairfold.torch.register_operators()
programs = [torch.export.load(name).module() for name in sys.argv[1:3]]
given = torch.load(sys.argv[3])
torch.save([program(*given) for program in programs], sys.argv[4])
"""


@FOLLOWED
def test_exported_programs_run_in_another_process(tmp_path: Path):
    module = Module()
    given = [tensor.detach() for tensor in points(6, 7)]
    rows, columns = torch.export.Dim("rows"), torch.export.Dim("columns")
    shapes = ({0: rows}, {0: columns}, {0: columns})
    files = [str(tmp_path / name) for name in ("strict.pt2", "other.pt2", "given.pt", "found.pt")]
    for file, strict in zip(files, (True, False), strict=False):
        program = torch.export.export(module, tuple(given), dynamic_shapes=shapes, strict=strict)
        assert "pairfold.reduce" in program.graph_module.code
        torch.export.save(program, file)
    others = [tensor.detach() for tensor in points(9, 4, seed=1)]
    torch.save(others, files[2])
    subprocess.run([sys.executable, "-W", "ignore", "-c", LOADING, *files], check=True)
    same(torch.load(files[3]), [module(*others)] * 2)
