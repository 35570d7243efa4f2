"""All entries of lazy tensors as arrays, their diagonals and traces, against dense programs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from agreement import agree, numbers
from checks import assert_close

pytest.importorskip("torch")
pytest.importorskip("jax")
import torch

from pairfold import LazyTensor, Pm, Vi, Vj, where
from pairfold.cluster import from_matrix
from pairfold.errors import ArgumentError, MemoryLimitError, OptionError, ShapeError

M, N = 17, 23


def gauss(x: Any, y: Any) -> Any:
    return (-((Vi(x) - Vj(y)) ** 2).sum(-1)).exp()


def dense_gauss(x: Any, y: Any) -> Any:
    return (-((x[..., :, None, :] - y[..., None, :, :]) ** 2).sum(-1)).exp()


# -- all entries -----------------------------------------------------------------------------------


def test_dense_of_scalars_and_vectors():
    def ours(x: Any, y: Any, p: Any) -> Any:
        return (gauss(x, y) * Pm(p[:1])).dense(), ((Vi(x) - Vj(y)) * Pm(p)).dense()

    def theirs(x: Any, y: Any, p: Any) -> Any:
        return dense_gauss(x, y) * p[0], (x[:, None] - y[None]) * p

    agree(ours, theirs, numbers((M, 3), (N, 3), (3,)), double_jax=True)


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, N), (M, 1), (0, N), (M, 0), (0, 0)])
def test_dense_of_few_rows(rows: int, columns: int):
    def ours(x: Any, y: Any) -> Any:
        return gauss(x, y).dense(), (Vi(x) * Vj(y)).dense()

    def theirs(x: Any, y: Any) -> Any:
        return dense_gauss(x, y), x[:, None] * y[None]

    agree(ours, theirs, numbers((rows, 3), (columns, 3)))


def test_dense_of_batches():
    """Batch axes of different sizes in each part, and transposed."""

    def ours(x: Any, y: Any, p: Any) -> Any:
        left, right = LazyTensor(x[..., :, None, :]), LazyTensor(y[..., None, :, :])
        kernel = (-((left - right) ** 2).sum(-1) * LazyTensor(p[..., None, None, :])).exp()
        return kernel.dense(), kernel.T.dense(), (left * right).dense()

    def theirs(x: Any, y: Any, p: Any) -> Any:
        apart = x[..., :, None, :] - y[..., None, :, :]
        kernel = torch.exp(-(apart**2).sum(-1) * p[..., None])
        return kernel, kernel.mT, x[..., :, None, :] * y[..., None, :, :]

    agree(ours, theirs, numbers((2, 1, M, 3), (4, N, 3), (2, 1, 1)))


def test_dense_of_complex_numbers():
    def ours(z: Any, y: Any) -> Any:
        product = LazyTensor(z[:, None, :]) * Vj(y)
        return product.dense(), product.sum(-1).dense(), product.T.dense()

    def theirs(z: Any, y: Any) -> Any:
        product = z[:, None] * y[None]
        return product, product.sum(-1), product.transpose(0, 1)

    x, y, w = numbers((M, 3), (N, 3), (M, 3))
    agree(ours, theirs, [x + 1j * w, y])


def test_dense_of_formulas_of_one_index():
    """An axis that the formula does not depend on has size 1, as in `shape`."""
    x, y = numbers((M, 3), (N, 3))
    for tensor, wanted in (
        (Vi(x), x[:, None]),
        (Vj(y).norm2(), np.sqrt((y**2).sum(-1))[None]),
        (Pm(x[0]) * 2, 2 * x[:1, None]),
        ((Vi(x) - Vi(x)).sum(-1), np.zeros((M, 1))),
    ):
        found = tensor.dense()
        assert found.shape == tensor.shape
        assert_close(found, wanted)


def test_dense_of_one_array_in_several_places():
    def ours(x: Any) -> Any:
        return (gauss(x, x) * (Vi(x) | Vj(x)) + Vi(x)[0] * Vj(x)[1]).dense()

    def theirs(x: Any) -> Any:
        return dense_gauss(x, x) * (x @ x.T) + x[:, :1] * x[:, 1]

    agree(ours, theirs, numbers((M, 3)))


def test_dense_of_views():
    """Arrays that are not contiguous, of one of the shapes that lazy tensors take."""

    def ours(x: Any, y: Any) -> Any:
        return gauss(x[::2], y.T).dense(), (LazyTensor(x[:, None, ::2]) | Vj(y.T[:, ::2])).dense()

    def theirs(x: Any, y: Any) -> Any:
        return dense_gauss(x[::2], y.T), x[:, ::2] @ y[::2]

    agree(ours, theirs, numbers((M, 3), (3, N)))


def test_second_derivatives_of_dense():
    x, y = (torch.tensor(each, requires_grad=True) for each in numbers((4, 2), (5, 2)))
    assert torch.autograd.gradgradcheck(lambda x, y: gauss(x, y).dense(), (x, y))


def test_toarray_is_of_numpy_whatever_the_library():
    import jax.numpy as jnp

    x, y = (each.astype("float32") for each in numbers((M, 3), (N, 3)))
    wanted = dense_gauss(torch.tensor(x), torch.tensor(y)).numpy()
    for made in (np.asarray, lambda x: torch.tensor(x, requires_grad=True), jnp.asarray):
        found = gauss(made(x), made(y)).toarray()
        assert type(found) is np.ndarray
        assert_close(found, wanted)


def test_halves_are_dense_too():
    x, y = (torch.tensor(each, dtype=torch.bfloat16) for each in numbers((M, 3), (N, 3)))
    found = gauss(x, y).dense()
    assert found.dtype == torch.bfloat16
    assert_close(found.float(), dense_gauss(x.double(), y.double()), rtol=0.01)
    assert gauss(x, y).toarray().dtype == np.float32


def test_dense_has_a_limit():
    x, y = numbers((M, 3), (N, 3))
    kernel = gauss(x, y)
    assert kernel.dense(limit=8 * M * N).shape == (M, N)
    with pytest.raises(MemoryLimitError, match=rf"{8 * M * N} bytes.*\n.*\n.*K\[:1000\].dense"):
        kernel.dense(limit=8 * M * N - 1)
    with pytest.raises(MemoryLimitError):  # a MemoryError, before anything is computed
        gauss(np.zeros((10**6, 3)), np.zeros((10**6, 3))).toarray()
    assert issubclass(MemoryLimitError, MemoryError)
    for limit in ("1 GB", float("nan"), None):
        with pytest.raises(OptionError, match="a number of bytes"):
            kernel.dense(limit=limit)  # pyright: ignore


def test_dense_needs_arrays():
    for tensor, message in ((Vi(0, 3) - Vj(1, 3), "waits for arguments"), (Pm(2.0), "no dtype")):
        for method in ("dense", "toarray", "diag", "trace"):
            with pytest.raises(ArgumentError, match=message):
                getattr(tensor, method)()


# -- diagonals -------------------------------------------------------------------------------------


def test_diagonals_and_traces():
    def ours(x: Any, y: Any, p: Any) -> Any:
        kernel, vectors = gauss(x, y) * Pm(p[:1]), (Vi(x) - Vj(y)) * Pm(p)
        return kernel.diag(), kernel.trace(), vectors.diag(), vectors.trace(), kernel.T.trace()

    def theirs(x: Any, y: Any, p: Any) -> Any:
        kernel, vectors = torch.diagonal(dense_gauss(x, y)) * p[0], (x - y) * p
        return kernel, kernel.sum(), vectors, vectors.sum(0), kernel.sum()

    agree(ours, theirs, numbers((M, 3), (M, 3), (3,)))


@pytest.mark.parametrize("rows", [0, 1])
def test_diagonals_of_few_rows(rows: int):
    def ours(x: Any, y: Any) -> Any:
        return gauss(x, y).diag(), gauss(x, y).trace(), (Vi(x) * Vj(y)).trace()

    def theirs(x: Any, y: Any) -> Any:
        kernel = dense_gauss(x, y).diagonal()
        return kernel, kernel.sum(), (x * y).sum(0)

    agree(ours, theirs, numbers((rows, 3), (rows, 3)))


def test_diagonals_of_batches_and_of_complex_numbers():
    def ours(x: Any, z: Any) -> Any:
        product = LazyTensor(x[..., :, None, :]) * LazyTensor(z[..., None, :, :])
        return product.diag(), product.trace(), product.sum(-1).diag(), product.sum(-1).trace()

    def theirs(x: Any, z: Any) -> Any:
        product = x * z
        return product, product.sum(-2), product.sum(-1), product.sum((-1, -2))

    x, y, w = numbers((2, 1, M, 3), (4, M, 3), (4, M, 3))
    agree(ours, theirs, [x, y + 1j * w])


def test_diagonals_are_of_square_matrices():
    x, y = numbers((M, 3), (N, 3))
    for tensor in (gauss(x, y), gauss(y, x), Vi(x), Vj(x), Vi(x[:0]), gauss(x[:0], y[:1])):
        for method in ("diag", "trace"):
            with pytest.raises(ShapeError, match=rf"{method}\(\) is of a square matrix"):
                getattr(tensor, method)()
    assert_close((Pm(x[0]) * 2).diag(), 2 * x[:1])


def test_functions_of_numpy_and_torch():
    (x,) = numbers((M, 3))
    kernel = gauss(x, x) * 2
    assert_close(np.trace(kernel), 2.0 * M)
    assert_close(np.diagonal(kernel), np.full(M, 2.0))
    assert_close(torch.trace(gauss(torch.tensor(x), torch.tensor(x))), np.array(M))


# -- ranges ----------------------------------------------------------------------------------------


def blocks(rows: int, columns: int) -> tuple[Any, Any]:
    """Ranges of some pairs of blocks, and the mask that they mean."""
    of_i = np.array([[0, 5], [5, 6], [6, 11], [12, rows]])  # row 11 is in no block
    of_j = np.array([[0, 4], [4, 9], [9, columns]])
    keep = np.array([[1, 0, 1], [0, 0, 0], [1, 1, 0], [0, 1, 1]], bool)
    mask = np.zeros((rows, columns), bool)
    for (i, stop_i), kept in zip(of_i, keep, strict=True):
        for (j, stop_j), wanted in zip(of_j, kept, strict=True):
            mask[i:stop_i, j:stop_j] = wanted
    return from_matrix(of_i, of_j, keep), mask


def test_entries_outside_of_ranges_are_zero():
    """Also where they are infinite; products with vectors are those of the table."""
    ranges, mask = blocks(M, N)
    held = torch.tensor(mask)

    def ours(x: Any, y: Any, b: Any) -> Any:
        kernel, vectors = gauss(x, y), Vi(x) - Vj(y)
        kernel.ranges = vectors.ranges = ranges
        return kernel.dense(), kernel.T.dense(), vectors.dense(), kernel @ b

    def theirs(x: Any, y: Any, b: Any) -> Any:
        kernel = dense_gauss(x, y) * held
        return kernel, kernel.T, (x[:, None] - y[None]) * held[..., None], kernel @ b

    agree(ours, theirs, numbers((M, 3), (N, 3), (N, 2)), libraries=("numpy", "torch"))
    x = np.ones((M, 1))
    infinite = where(Vi(x) > 0, 1 / (Vi(x) - Vj(np.ones((N, 1)))), 0)
    infinite.ranges = ranges
    assert (np.isinf(infinite.dense()) == mask).all()


def test_diagonals_of_ranges():
    ranges, mask = blocks(M, M)
    held = torch.tensor(mask)

    def ours(x: Any, z: Any) -> Any:
        kernel, product = gauss(x, x) * (Vi(x) | Vj(x)), LazyTensor(z[:, None]) * Vj(x)
        kernel.ranges = product.ranges = ranges
        return kernel.diag(), kernel.trace(), product.diag(), product.dense()

    def theirs(x: Any, z: Any) -> Any:
        kernel = torch.diagonal(dense_gauss(x, x) * (x @ x.T) * held)
        product = z[:, None] * x[None] * held[..., None]
        return kernel, kernel.sum(), product.diagonal().T, product

    x, w = numbers((M, 3), (M, 3))
    agree(ours, theirs, [x, x + 1j * w], libraries=("numpy", "torch"))
