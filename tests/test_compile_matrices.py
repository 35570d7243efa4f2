"""torch.compile of programs that take lazy tensors for matrices: one graph, dense values."""

from __future__ import annotations

from typing import Any

import pytest
from test_compile import points, same

torch = pytest.importorskip("torch")

from pairfold.torch import Vi, Vj  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def test_entries_and_parts_are_in_one_graph():
    """Entries, diagonals, and rows and columns by slices, lists and tensors of indices."""

    def ours(x: Any, y: Any, b: Any, rows: Any) -> tuple[Any, ...]:
        kernel = (-((Vi(x) - Vj(y)) ** 2).sum(-1)).exp()
        square = Vi(y) - Vj(2 * y)
        return (
            *(kernel.dense(), square.diag(), square.trace(), square[..., -1].dense(limit=10**9)),
            *(kernel[2:9] @ b, kernel[::-2].sum(1), kernel[:, [3, 1]].sum(1), kernel[rows] @ b),
            kernel[:, 4:, 0].T[rows].dense(),
        )

    def theirs(x: Any, y: Any, b: Any, rows: Any) -> tuple[Any, ...]:
        kernel = (-((x[:, None] - y[None]) ** 2).sum(-1)).exp()
        square = y[:, None] - 2 * y[None]
        total = kernel.sum(1, keepdim=True)
        return (
            *(kernel, -y, -y.sum(0), square[..., -1], kernel[2:9] @ b, total.flip(0)[::2]),
            *(kernel[:, 3:4] + kernel[:, 1:2], kernel[rows] @ b, kernel[:, 4:].T[rows]),
        )

    compiled = torch.compile(ours, fullgraph=True, backend="eager")
    rows = torch.tensor([4, 0, 2])
    for given in (points(17, 23), points(11, 12)):
        want = theirs(*given, rows)
        found = compiled(*given, rows)
        same(found, want)
        slopes = [
            torch.autograd.grad(sum(each.sin().sum() for each in results), given)
            for results in (found, want)
        ]
        same(*slopes)


def test_sizes_of_parts_end_the_graph():
    """A trace knows the sizes of tensors alone."""

    def ours(x: Any, y: Any) -> Any:
        part = (Vi(x) | Vj(y))[2:6]
        return part.sum(1) * part.shape[0]

    x, y = points(17, 23)[:2]
    found = torch.compile(ours, backend="eager")(x, y)
    same(found, 4 * (x[2:6] @ y.T).sum(1, keepdim=True))
