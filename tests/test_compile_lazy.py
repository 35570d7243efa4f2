"""torch.compile of programs that make lazy tensors and Genred inside: one graph, dense values.

Compilation is slow, so programs that are compiled do many things.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import pytest
from test_compile import FOLLOWED, Counter, gradients, points, same

torch = pytest.importorskip("torch")

from pairfold.arrays.opaque import constant  # noqa: E402
from pairfold.errors import ArrayTypeError, FormulaError, ShapeError  # noqa: E402
from pairfold.frontends import recording, traced  # noqa: E402
from pairfold.torch import Genred, LazyTensor, Pm, Vi, Vj, where  # noqa: E402

# torch looks at `.grad` of tensors that its own traces made, and warns of its own names.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
OUTER = points(17, 23, seed=3)
OUTSIDE = (Vi(OUTER[0]) | Vj(OUTER[1])) + 1
DENSE_OUTSIDE = OUTER[0] @ OUTER[1].T + 1


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def ours(x: Any, y: Any, b: Any) -> tuple[Any, ...]:
    """What programs do with lazy tensors, on pairs (x, y) and pairs of y."""
    squared = ((x[:, None, :] - LazyTensor(y[None])) ** 2).sum(-1)
    products = Vi(x) | Vj(y) * 2
    kernel = (-((Vi(y) - Vj(y)) ** 2).sum(-1) / y.shape[0]).exp()
    vector = b
    for _ in range(2):
        vector = kernel @ vector
        vector = vector / vector.norm()
    waits = squared.logsumexp(1, call=False)
    several = Vi(x) - Vj(y)
    phase = (1j * products).exp()
    values = LazyTensor(torch.complex(y, y.sin())[None])
    formula = Genred("Exp(-SqDist(x,y))*b", ["x = Vi(3)", "y = Vj(3)", "b = Vj(1)"], axis=1)
    symbols = (Vi(0, 3) | Vj(1, 3)).sum(1, call=False)
    return (
        *(vector, squared.min(dim=1), squared.argmin(dim=0), *squared.Kmin_argKmin(2, dim=1)),
        # Operators with tensors on either side; the functions of torch.
        *((b[:, 0] @ kernel), (Pm(b[:1]) - products).sum(1), (b[0, 0] * products).sum(1)),
        *(products.sum(1), (b[0] / (products.exp() + 5)).sum(0), products.T @ x),
        *(torch.exp(-squared).sum(1), torch.where(squared < 1, squared, 0.0).sum(1)),
        where((squared < 1) & (squared > 0.1), squared, 2.0).sum(1),
        # Components, lists, more than one class.
        (several[:, :, 0] * several[1] + several.elem(2) - several[0:2].sum()).sum(1),
        LazyTensor.cat((several, Vj(b)), dim=-1).norm2().sum(1),
        (Vi(x) * [1.0, 2.0, 3.0] - Vj(y) + Pm(2.5)).sum(1, keepdim=True)[:, 0],
        *(torch.view_as_real(phase.sum(1)), (phase * phase.conj()).real.sum(1)),
        torch.view_as_real((values * Vi(x)).sum(1)),
        # Results to come, formulas and symbols, sizes.
        *(waits(), products.sumsoftmaxweight(Vj(y), axis=1), formula(x, y, b), symbols(x, y)),
        products.sum(0) * products.shape[0] + products.ndim + squared.dim(),
    )


def theirs(x: Any, y: Any, b: Any) -> tuple[Any, ...]:
    """The same by dense torch."""
    several = x[:, None] - y[None]
    squared, products = (several**2).sum(-1), 2 * x @ y.T
    kernel = (-((y[:, None] - y[None]) ** 2).sum(-1) / y.shape[0]).exp()
    vector = b
    for _ in range(2):
        vector = kernel @ vector
        vector = vector / vector.norm()
    lists = squared.topk(2, dim=1, largest=False)
    angles = torch.stack([products.cos().sum(1), products.sin().sum(1)], -1)
    both = torch.cat([several, b[None].expand(*squared.shape, 1)], -1)
    moved = x[:, None] * torch.tensor([1.0, 2.0, 3.0], dtype=x.dtype) - y[None] + 2.5
    kept = torch.where((squared < 1) & (squared > 0.1), squared, 2.0)
    pairs = x[:, None] * torch.stack([y, y.sin()], 0)[:, None]
    components = several[..., 0] * several[..., 1] + several[..., 2] - several[..., :2].sum(-1)
    return (
        *(vector, squared.amin(1), squared.argmin(0), *lists),
        *(b[:, 0] @ kernel, (b[:1, 0] - products).sum(1), (b[0, 0] * products).sum(1)),
        *(products.sum(1), (b[0] / (products.exp() + 5)).sum(0), products.T @ x),
        *((-squared).exp().sum(1), torch.where(squared < 1, squared, 0.0).sum(1), kept.sum(1)),
        *(components.sum(1), both.norm(dim=-1).sum(1), moved.sum(1)),
        *(angles, torch.full_like(x[:, 0], y.shape[0]), pairs.sum(2).movedim(0, -1)),
        *(squared.logsumexp(1), products.softmax(1) @ y, (-squared).exp() @ b, (x @ y.T).sum(1)),
        products.sum(0) * x.shape[0] + 1 + 3,
    )


def flat(program: Callable[..., Any]) -> Callable[..., list[Any]]:
    """The results of a program without axes of size 1, of one kind of numbers."""
    return lambda *given: [found.squeeze().double() for found in program(*given)]


def total(program: Callable[..., Any]) -> Callable[..., Any]:
    """A number that depends on every other result: each derivative is code to be made."""
    return lambda *given: sum(found.sin().sum() for found in flat(program)(*given)[::2])


@pytest.mark.parametrize("backend", ["eager", pytest.param("aot_eager", marks=pytest.mark.product)])
@FOLLOWED
def test_lazy_tensors_in_compiled_programs_are_one_graph(backend: str):
    counter = Counter(backend)
    compiled = torch.compile(ours, fullgraph=True, dynamic=True, backend=counter)
    for rows, columns in ((17, 23), (5, 9)):
        given = points(rows, columns)
        same(flat(compiled)(*given), flat(theirs)(*given))
        same(gradients(total(compiled), given), gradients(total(theirs), given))
    assert counter.graphs == 1


def small(x: Any, y: Any, b: Any) -> Any:
    kernel = (Vi(x) - Vj(y)).sqnorm2().sqrt()
    return kernel @ b, kernel.sum(0)


@FOLLOWED
def test_soft_max_and_summaries_in_compiled_programs():
    def program(x: Any, y: Any, b: Any) -> Any:
        products = Vi(x) | Vj(y)
        weights = products.softmax(1)
        means = weights @ b, b[:, 0] @ products.T.softmax(0), (weights * Vj(y)).sum(1)
        return *means, products.mean(1), products.var(0), (products > 0).count(1)

    x, y, b = points(17, 23)
    dense = x @ y.T
    weights = dense.softmax(1)
    want = weights @ b, weights @ b[:, 0], weights @ y, dense.mean(1), dense.var(0), (dense > 0)
    found = torch.compile(program, fullgraph=True, backend="eager")(x, y, b)
    same(
        [each.squeeze() for each in found], [each.squeeze() for each in (*want[:5], want[5].sum(1))]
    )


@FOLLOWED
def test_gradients_and_sizes_of_one_and_none():
    compiled = torch.compile(small, fullgraph=True, backend="aot_eager", dynamic=True)
    for rows, columns in ((17, 23), (1, 23), (17, 1), (0, 5)):
        x, y, b = points(rows, columns)
        want = (x[:, None] - y[None]).norm(dim=-1)
        same(compiled(x, y, b), (want @ b, want.sum(0)[:, None]))
        mine, theirs = (
            torch.autograd.grad(z[0].sum(), (x, y, b)) for z in (compiled(x, y, b), (want @ b,))
        )
        same(mine, theirs)


@FOLLOWED
def test_lazy_tensors_and_ranges_of_other_places():
    halves = [[[0, 8], [8, 17]], [1, 2], [[0, 3], [3, 23]]]

    def program(x: Any, y: Any, b: Any, *parts: Any) -> Any:
        kernel = Vi(x) | Vj(y)
        kernel.ranges = parts
        more = kernel * 2 + kernel**2
        whole = OUTSIDE.sum(1), OUTSIDE @ y, b.T @ OUTSIDE.T, (OUTSIDE * Vj(b)).T.sum(1)
        return kernel.sum(1), more.sum(1), more.sum(0), *whole

    given = points(17, 23)
    parts = [torch.tensor(part) for part in [*halves, *halves[::-1]]]
    x, y, b = given
    block = torch.zeros(17, 23, dtype=x.dtype)
    block[:8, :3] = block[8:, 3:] = 1
    dense = x @ y.T * block
    more, outside = 2 * dense + dense**2, DENSE_OUTSIDE
    want = [dense.sum(1), more.sum(1), more.sum(0), outside.sum(1), outside @ y]
    want += [b.T @ outside.T, (outside * b.T).sum(0)]
    found = torch.compile(program, fullgraph=True, backend="eager")(*given, *parts)
    same([each.squeeze() for each in found], [each.squeeze() for each in want])


@FOLLOWED
def test_the_sides_of_products_are_told():
    """torch.compile calls both with the same arguments, unless its table tells them apart."""
    from torch._dynamo.variables import builtin

    builtin.BUILTIN_TO_TENSOR_RFN_MAP.pop(operator.matmul, None)
    x, y, b = points(6, 6)
    dense = x @ y.T

    def program(x: Any, y: Any, b: Any) -> Any:
        kernel = Vi(x) | Vj(y)
        return kernel @ b, b[:, 0] @ kernel, torch.matmul(kernel, b), kernel.matvec(b)

    found = torch.compile(program, fullgraph=True, backend="eager")(x, y, b)
    same(found, (dense @ b, b[:, 0] @ dense, dense @ b, dense @ b))


def test_lazy_tensors_outlive_their_trace():
    def program(x: Any, y: Any) -> Any:
        kernel = (Vi(x) | Vj(y)) + 1
        kernel.backend = "CPU"
        torch._dynamo.graph_break()
        twice = kernel * 2
        torch._dynamo.graph_break()
        waits = twice.sum(1, call=False)
        return twice, waits, twice.sum(1), Genred("(x|y)", ["x=Vi(3)", "y=Vj(3)"], axis=1)

    x, y, _ = points(17, 23)
    twice, waits, found, formula = torch.compile(program, backend="eager")(x, y)
    want = 2 * (x @ y.T + 1)
    assert isinstance(twice, LazyTensor)
    assert (twice.shape, twice.dtype, twice.backend) == ((17, 23), "float64", "CPU")
    assert repr(twice).startswith("<LazyTensor 2*(")
    assert formula.nargs == 2
    same([twice.sum(1)[:, 0], waits()[:, 0], found[:, 0]], [want.sum(1)] * 3)
    same(formula(x, y)[:, 0], (x @ y.T).sum(1))


def test_what_does_not_fit_is_refused_as_in_plain_calls():
    x, y, _ = points(17, 23)
    with pytest.raises(ShapeError, match="17 and 5 rows"):
        torch.compile(lambda x, y: (Vi(x) + Vi(y[:5])).sum(1), backend="eager")(x, y)
    with pytest.raises(FormulaError, match="Exq"):
        torch.compile(lambda x: Genred("Exq(x)", ["x = Vj(3)"], axis=1)(x), backend="eager")(x)
    solved = torch.compile(lambda x: (Vi(x) - Vj(x)).sqnorm2().exp().solve(x), backend="eager")
    same(solved(x * 0.0), torch.zeros_like(x))


def test_tracers_that_do_not_follow_cut_programs_in_parts(monkeypatch: pytest.MonkeyPatch):
    for module in (recording, traced):
        monkeypatch.setattr(module, "follows_operators", constant(lambda: False))
    given = points(6, 6)
    x, y, b = given
    want = (x[:, None] - y[None]).norm(dim=-1)
    same(torch.compile(small, backend="eager")(*given), (want @ b, want.sum(0)[:, None]))
    formula = Genred("(x|y)*b", ["x = Vi(3)", "y = Vj(3)", "b = Vj(1)"], axis=1)
    same(torch.compile(formula, backend="eager")(*given), x @ y.T @ b)


@FOLLOWED
def test_exported_programs_name_operators():
    class Module(torch.nn.Module):
        def forward(self, x: Any, y: Any, b: Any) -> Any:
            return small(x, y, b)

    given = tuple(tensor.detach() for tensor in points(6, 7))
    rows, columns = torch.export.Dim("rows"), torch.export.Dim("columns")
    shapes = ({0: rows}, {0: columns}, {0: columns})
    for strict in (True, False):
        program = torch.export.export(Module(), given, dynamic_shapes=shapes, strict=strict)
        assert program.graph_module.code.count("pairfold.reduce") == 2
        others = [tensor.detach() for tensor in points(9, 4, seed=1)]
        same(program.module()(*others), small(*others))


def test_sizes_that_are_symbols_are_no_numbers():
    def program(x: Any) -> Any:
        return ((Vi(x) | Vj(x)) / x.shape[0]).sum(1)

    make = torch.fx.experimental.proxy_tensor.make_fx(program, tracing_mode="symbolic")
    with pytest.raises(ArrayTypeError, match=r"torch\.full"):
        make(points(5, 5)[0])


@FOLLOWED
def test_records_name_each_call_once():
    from pairfold.frontends import records

    whole, real = (records.extended("f", [("tensor", 0), ("value", one)], []) for one in (1, 1.0))
    operands = ("result", 0), ("result", 1)

    def both(first: tuple[str, list[int]], second: tuple[str, list[int]]) -> str:
        return records.extended("g", operands, [first, second])

    assert both((whole, [0]), (whole, [0])).count('"f"') == 1
    assert both((whole, [0]), (whole, [1])).count('"f"') == 2
    assert both((whole, [0]), (real, [0])).count('"f"') == 2
