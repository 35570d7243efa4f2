"""Our operators in linear_operator, the library below GPyTorch, where it is installed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from agreement import numbers
from checks import assert_close

torch = pytest.importorskip("torch")
linear_operator = pytest.importorskip("linear_operator")

from pairfold import Vi, Vj  # noqa: E402
from pairfold.linalg import block, identity  # noqa: E402

M, N = 17, 23


def both(x: Any, y: Any, s: Any) -> tuple[Any, Any]:
    """A positive definite operator, and its table."""
    kernel = (-((Vi(x) - Vj(y)) ** 2).sum(-1)).exp()
    dense = (-((x[:, None] - y[None]) ** 2).sum(-1)).exp()
    return (
        (kernel @ kernel.T + s * identity(M)).to_linear_operator(),
        dense @ dense.T + s * torch.eye(M, dtype=x.dtype),
    )


def test_products_solutions_and_determinants_with_gradients():
    x, y, b = (torch.tensor(each, requires_grad=True) for each in numbers((M, 3), (N, 3), (M, 2)))
    s = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    results = []
    for matrix in both(x, y, s):
        dense = isinstance(matrix, torch.Tensor)
        solved = torch.linalg.solve(matrix, b) if dense else matrix.solve(b)
        logdet = matrix.logdet() if not dense else torch.logdet(matrix)
        found = [matrix @ b, solved, logdet, matrix.mT @ b, torch.diagonal(matrix)]
        slopes = torch.autograd.grad(sum(each.sin().sum() for each in found), (x, y, b, s))
        results.append([*found, *slopes])
    for got, want in zip(*results, strict=True):
        assert_close(got.detach(), want.detach(), rtol=1e-6)


def test_sizes_tables_and_blocks():
    x, y = (torch.tensor(each) for each in numbers((M, 3), (N, 3)))
    kernel = (-((Vi(x) - Vj(y)) ** 2).sum(-1)).exp()
    ours = block([[None, kernel], [kernel.T, 2 * identity(N)]])
    found = ours.to_linear_operator()
    assert (found.shape, found.dtype, found.device.type) == ((M + N, M + N), torch.float64, "cpu")
    assert_close(found.to_dense(), ours.dense(), terms=M + N)
    assert_close(found.T.to_dense(), ours.dense().T, terms=M + N)
    assert_close(torch.diagonal(found), np.diag(ours.toarray()), terms=M + N)
