"""Linear operators made of lazy tensors and arrays, against dense matrices."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from agreement import agree, numbers
from checks import assert_close

pytest.importorskip("torch")
pytest.importorskip("jax")
import torch

from pairfold import LazyTensor, Vi, Vj
from pairfold.errors import (
    ArgumentError,
    ArrayTypeError,
    DTypeError,
    MemoryLimitError,
    OptionError,
    ShapeError,
    UnsupportedError,
)
from pairfold.linalg import (
    LinearOperator,
    aslinearoperator,
    block,
    hstack,
    identity,
    matrix_power,
    vstack,
)

M, N = 17, 23


def gauss(x: Any, y: Any) -> Any:
    return (-((Vi(x) - Vj(y)) ** 2).sum(-1)).exp()


def dense_gauss(x: Any, y: Any) -> Any:
    return (-((x[..., :, None, :] - y[..., None, :, :]) ** 2).sum(-1)).exp()


def eye(n: int) -> Any:
    return torch.eye(n, dtype=torch.float64)


def test_products_of_lazy_tensors():
    def ours(x: Any, y: Any, b: Any) -> Any:
        kernel = gauss(x, y)
        return (
            (kernel.T @ kernel) @ b,
            (kernel @ kernel.T @ kernel) @ b[:, 0],
            (kernel @ kernel.T) @ x,
        )

    def theirs(x: Any, y: Any, b: Any) -> Any:
        kernel = dense_gauss(x, y)
        return kernel.T @ kernel @ b, kernel @ kernel.T @ kernel @ b[:, 0], kernel @ kernel.T @ x

    agree(ours, theirs, numbers((M, 3), (N, 3), (N, 2)), terms=M * N)


def test_shifted_matrices_with_gradients_in_the_shift():
    def ours(x: Any, b: Any, s: Any) -> Any:
        kernel = gauss(x, x)
        shifted = kernel + s * identity(M)
        return (
            *(shifted @ b, (kernel - 2 * identity(M)) @ b, (identity(M) * 0.5 - kernel) @ b),
            *((identity(M) + kernel @ kernel / 3) @ b, (-shifted).T @ b, b.T @ shifted),
        )

    def theirs(x: Any, b: Any, s: Any) -> Any:
        kernel, one = dense_gauss(x, x), eye(M)
        shifted = kernel + s * one
        return (
            *(shifted @ b, (kernel - 2 * one) @ b, (one * 0.5 - kernel) @ b),
            *((one + kernel @ kernel / 3) @ b, -shifted.T @ b, b.T @ shifted),
        )

    x, b = numbers((M, 3), (M, 2))
    agree(ours, theirs, [x, b, np.array(0.3)], terms=M * N)


def test_arrays_beside_lazy_tensors():
    """An array times a lazy tensor is an array; times an operator, too; as a part, it is one."""

    def ours(x: Any, y: Any, a: Any, b: Any) -> Any:
        kernel = gauss(x, y)
        both = kernel @ kernel.T
        return (
            *(a @ kernel, a @ (both @ kernel), a[0] @ (both @ kernel), (both + a.T @ a) @ b),
            *((aslinearoperator(a) @ kernel) @ y, (kernel.T @ aslinearoperator(a.T)).dense()),
        )

    def theirs(x: Any, y: Any, a: Any, b: Any) -> Any:
        kernel = dense_gauss(x, y)
        both = kernel @ kernel.T
        return (
            *(a @ kernel, a @ both @ kernel, a[0] @ both @ kernel, (both + a.T @ a) @ b),
            *(a @ kernel @ y, kernel.T @ a.T),
        )

    agree(ours, theirs, numbers((M, 3), (N, 3), (5, M), (M, 2)), terms=M * N)


def test_powers():
    def ours(x: Any, b: Any) -> Any:
        kernel = gauss(x, x)
        powers = [matrix_power(kernel, n) @ b for n in range(4)]
        return *powers, (kernel**2) @ b, matrix_power(kernel + identity(M), 2) @ b

    def theirs(x: Any, b: Any) -> Any:
        kernel = dense_gauss(x, x)
        powers = [torch.linalg.matrix_power(kernel, n) @ b for n in range(4)]
        return *powers, (kernel**2) @ b, torch.linalg.matrix_power(kernel + eye(M), 2) @ b

    agree(ours, theirs, numbers((M, 3), (M, 2)), terms=M**2)


def test_blocks():
    def ours(x: Any, y: Any, b: Any, c: Any) -> Any:
        kernel, mine = gauss(x, y), gauss(x, x)
        saddle = block([[mine + identity(M), kernel], [kernel.T, None]])
        both = vstack([b, c])  # arrays are matrices, too
        return (
            *(saddle @ (both @ b[:2]), saddle.T @ (both @ b[:2]), saddle.dense(), saddle.H.dense()),
            *(hstack([mine, kernel]) @ (both @ b[0]), vstack([mine, kernel.T]) @ b),
            *((b[:, 0] @ hstack([mine, kernel])), block([[None, kernel], [mine, None]]).dense()),
        )

    def theirs(x: Any, y: Any, b: Any, c: Any) -> Any:
        kernel, mine = dense_gauss(x, y), dense_gauss(x, x)
        none = torch.zeros(N, N, dtype=torch.float64)
        saddle = torch.cat([torch.cat([mine + eye(M), kernel], 1), torch.cat([kernel.T, none], 1)])
        both, wide = torch.cat([b, c]), torch.cat([mine, kernel], 1)
        zero = torch.zeros(M, M, dtype=torch.float64)
        upper = torch.cat([zero, kernel], 1)
        lower = torch.cat([mine, torch.zeros(M, N, dtype=torch.float64)], 1)
        return (
            *(saddle @ both @ b[:2], saddle.T @ both @ b[:2], saddle, saddle.T),
            *(wide @ both @ b[0], torch.cat([mine, kernel.T]) @ b, b[:, 0] @ wide),
            torch.cat([upper, lower]),
        )

    agree(ours, theirs, numbers((M, 3), (N, 3), (M, 2), (N, 2)), terms=M * N)


def test_entries_and_diagonals():
    def ours(x: Any, y: Any, a: Any) -> Any:
        kernel, mine = gauss(x, y), gauss(x, x)
        square = 2 * (kernel @ kernel.T) + 0.5 * identity(M) - mine
        blocks = block([[mine, kernel], [kernel.T, 3 * aslinearoperator(a)]])
        arrays = aslinearoperator(a) @ aslinearoperator(a.T)
        return (
            *(square.dense(), square.diag(), square.trace().reshape(1)),
            *(blocks.diag(), arrays.diag(), arrays.dense(), (kernel @ arrays).dense()),
            (aslinearoperator(a[:3]) @ kernel.T).dense(),  # from its smaller end
        )

    def theirs(x: Any, y: Any, a: Any) -> Any:
        kernel, mine = dense_gauss(x, y), dense_gauss(x, x)
        square = 2 * kernel @ kernel.T + 0.5 * eye(M) - mine
        return (
            *(square, square.diagonal(), square.trace().reshape(1)),
            torch.cat([mine.diagonal(), 3 * a.diagonal()]),
            *((a @ a.T).diagonal(), a @ a.T, kernel @ a @ a.T, a[:3] @ kernel.T),
        )

    agree(ours, theirs, numbers((M, 3), (N, 3), (N, N)), terms=M * N)


def test_batches():
    """Batch axes of lazy tensors, arrays, shifts and vectors join."""

    def ours(x: Any, y: Any, s: Any, b: Any) -> Any:
        left, right = LazyTensor(x[..., :, None, :]), LazyTensor(y[..., None, :, :])
        kernel = (-((left - right) ** 2).sum(-1)).exp()
        square = kernel @ kernel.T + s * identity(M)
        tall = vstack([square, kernel.T])
        assert square.shape == (2, 4, M, M)
        return square @ b, square.dense(), square.diag(), square.trace(), tall @ b, tall.dense()

    def theirs(x: Any, y: Any, s: Any, b: Any) -> Any:
        kernel = dense_gauss(x, y)
        square = kernel @ kernel.mT + s[..., None, None] * eye(M)
        diagonal = square.diagonal(dim1=-2, dim2=-1)
        tall = torch.cat([square, kernel.mT], -2)
        return square @ b, square, diagonal, diagonal.sum(-1), tall @ b, tall

    agree(ours, theirs, numbers((2, 1, M, 3), (4, N, 3), (2, 1), (4, M, 2)), terms=M * N)


def test_complex_numbers():
    def ours(z: Any, y: Any, b: Any) -> Any:
        matrix = (LazyTensor(z[:, None, :]) * Vj(y)).sum(-1)
        square = matrix.T @ matrix + 1j * identity(N)
        real = (Vj(y) | Vi(y)) - 2j * identity(N)  # complex by its multiple alone
        assert real.dtype == square.dtype == str(z.dtype).removeprefix("torch.")
        return (
            real @ b,
            real.H @ b,
            square @ b,
            square.H @ b,
            square.T @ b,
            square.dense(),
            square.rmatvec(b[:, 0]),
        )

    def theirs(z: Any, y: Any, b: Any) -> Any:
        matrix = z @ y.T.to(z.dtype)
        square = matrix.T @ matrix + 1j * eye(N)
        c = b.to(z.dtype)
        real = y @ y.T - 2j * eye(N)
        return (
            real @ c,
            real.mH @ c,
            square @ c,
            square.mH @ c,
            square.T @ c,
            square,
            square.mH @ c[:, 0],
        )

    x, w, y, b = numbers((M, 3), (M, 3), (N, 3), (N, 2))
    agree(ours, theirs, [x + 1j * w, y, b], terms=M * N)


@pytest.mark.parametrize("rows", [0, 1])
def test_few_rows(rows: int):
    def ours(x: Any, y: Any, b: Any) -> Any:
        kernel = gauss(x, y)
        square = kernel @ kernel.T + 2 * identity(rows)
        return square @ b, square.dense(), (kernel.T @ kernel) @ y, vstack([kernel, kernel]) @ y

    def theirs(x: Any, y: Any, b: Any) -> Any:
        kernel = dense_gauss(x, y)
        square = kernel @ kernel.T + 2 * eye(rows)
        return square @ b, square, kernel.T @ kernel @ y, torch.cat([kernel, kernel]) @ y

    agree(ours, theirs, numbers((rows, 3), (N, 3), (rows, 2)), terms=M * N)


def test_views():
    def ours(x: Any, y: Any, b: Any) -> Any:
        kernel = gauss(x[::2], y.T)
        return (kernel.T @ kernel) @ b.T, (kernel.T @ kernel + identity(N)) @ b[0]

    def theirs(x: Any, y: Any, b: Any) -> Any:
        kernel = dense_gauss(x[::2], y.T)
        return kernel.T @ kernel @ b.T, (kernel.T @ kernel + eye(N)) @ b[0]

    agree(ours, theirs, numbers((M, 3), (3, N), (2, N)), terms=M * N)


def test_ranges_of_parts_are_kept():
    x, b = numbers((M, 3), (M, 2))
    kernel = gauss(x, x)
    half = [[[0, 9], [9, M]], [1, 2], [[0, 5], [5, M]]]
    kernel.ranges = (*half, [[0, 5], [5, M]], [1, 2], [[0, 9], [9, M]])
    table = kernel.dense()
    assert 0 < (table == 0).sum() < M * M
    square = kernel.T @ kernel + identity(M)
    assert_close(square @ b, table.T @ (table @ b) + b, terms=M)
    assert_close(square.dense(), table.T @ table + np.eye(M), terms=M)


def test_operators_of_scipy():
    linalg = pytest.importorskip("scipy.sparse.linalg")
    x, y, b = numbers((M, 3), (N, 3), (M, 2))
    kernel, table = gauss(x, y), dense_gauss(*map(torch.tensor, (x, y))).numpy()
    square, dense = kernel @ kernel.T + 0.3 * identity(M), table @ table.T + 0.3 * np.eye(M)
    for solve in (linalg.cg, linalg.gmres, linalg.minres):
        found, failed = solve(square, b[:, 0], rtol=1e-10)
        assert not failed
        assert_close(found, np.linalg.solve(dense, b[:, 0]), rtol=1e-6)
    values = linalg.eigsh(square, k=3)[0]
    assert_close(values, np.linalg.eigvalsh(dense)[-3:], rtol=1e-8)
    tall = vstack([kernel, 2 * kernel])
    assert_close(linalg.svds(tall, k=2)[1], np.linalg.svd(np.vstack([table, 2 * table]))[1][1::-1])
    scipys = linalg.aslinearoperator(tall)
    both = np.concatenate([b, b])
    assert_close(scipys.matmat(y), np.vstack([table, 2 * table]) @ y, terms=N)
    assert_close(scipys.rmatmat(both), 3 * table.T @ b, terms=2 * M)
    assert_close((scipys.H @ both[:, 0]), 3 * table.T @ b[:, 0], terms=2 * M)


@pytest.mark.parametrize("name", ["torch", "jax"])
def test_operators_of_other_libraries_in_scipy(name: str):
    linalg = pytest.importorskip("scipy.sparse.linalg")
    if name == "torch":
        make: Any = lambda x: torch.tensor(x, requires_grad=True)  # noqa: E731
    else:
        from jax.numpy import asarray as make
    x, b = (each.astype("float32") for each in numbers((M, 3), (M, 2)))
    square = gauss(make(x), make(x)) + 0.5 * identity(M)
    dense = dense_gauss(*[torch.tensor(x)] * 2).numpy() + 0.5 * np.eye(M, dtype="float32")
    found = square.matmat(b)
    assert type(found) is np.ndarray
    assert_close(found, dense @ b, terms=M)
    assert_close(square.toarray(), dense)
    solved, failed = linalg.cg(square, b[:, 0].astype("float64"), rtol=1e-5)
    assert not failed
    assert_close(solved, np.linalg.solve(dense, b[:, 0]), rtol=1e-3)


def test_numbers_and_tensors_on_the_left():
    x, b = (torch.tensor(each) for each in numbers((M, 3), (M, 2)))
    square = aslinearoperator(gauss(x, x))
    dense = dense_gauss(x, x)
    for factor in (2, 0.5, np.float64(3), np.array(3.0), torch.tensor(0.5), torch.tensor([[2.0]])):
        for each in (factor * square, square * factor):
            assert isinstance(each, LinearOperator)
            if not isinstance(factor, np.ndarray):
                scaled = torch.as_tensor(factor, dtype=torch.float64).reshape(-1, 1) * (dense @ b)
                assert_close((each @ b).reshape(M, 2), scaled, terms=M)
    assert isinstance(dense + square, LinearOperator)
    assert_close((dense - square) @ b, 0 * b, atol=1e-12)
    assert (identity(M) @ b) is not b
    assert_close((torch.matmul(gauss(x, x), gauss(x, x)) @ b), dense @ dense @ b, terms=M * M)


def test_what_operators_say():
    (x,) = numbers((M, 3))
    square = 2.0 * (gauss(x, x) @ aslinearoperator(x) @ aslinearoperator(x.T) + identity(M))
    text = "2.0 * (lazy @ array @ array + I), shape (17, 17), dtype float64"
    assert repr(square) == f"<LinearOperator {text}>"
    assert (square.ndim, square.dtype, identity(3).dtype) == (2, "float64", None)
    assert aslinearoperator(square) is square


def of(use: Any) -> Any:
    x, y = numbers((M, 3), (N, 3))
    return lambda: use(gauss(x, y), aslinearoperator(gauss(x, x)))


@pytest.mark.parametrize(
    ("use", "error", "message"),
    [
        (of(lambda k, a: k @ k), ShapeError, "23 columns times one of 17 rows"),
        (of(lambda k, a: k + a), ShapeError, "different shapes"),
        (of(lambda k, a: a + 2.0), ArrayTypeError, r"2\.0 \* pairfold\.linalg\.identity"),
        (of(lambda k, a: a - np.ones(M)), ArrayTypeError, "only matrices"),
        (of(lambda k, a: a * a), ArrayTypeError, "A @ B"),
        (of(lambda k, a: k * a), ArrayTypeError, "cannot become a LazyTensor"),
        (of(lambda k, a: a**2), UnsupportedError, "matrix_power"),
        (of(lambda k, a: a @ np.ones(N)), ShapeError, "17 columns"),
        (of(lambda k, a: a @ 2.0), ArrayTypeError, "multiplied with an array"),
        (of(lambda k, a: np.ones(N) @ a), ShapeError, "17 columns"),
        (of(lambda k, a: bool(a)), ArrayTypeError, "neither true nor false"),
        (of(lambda k, a: matrix_power(k, 2)), ShapeError, "square"),
        (of(lambda k, a: matrix_power(a, -1)), OptionError, "whole number"),
        (of(lambda k, a: matrix_power(a, 0.5)), OptionError, "whole number"),
        (of(lambda k, a: identity(True)), OptionError, "whole number"),
        (of(lambda k, a: (a @ a @ a).diag()), UnsupportedError, "all of its entries"),
        (of(lambda k, a: block([[k, a], [a, k]]).diag()), ShapeError, "row of blocks|square|size"),
        (of(lambda k, a: block([[None, k], [k.T, None]]).diag()), UnsupportedError, "entries"),
        (of(lambda k, a: (a @ k).diag()), ShapeError, "square"),
        (of(lambda k, a: (a @ k).dense(limit=8 * M * N - 1)), MemoryLimitError, "limit="),
        (of(lambda k, a: (a + identity(M)).dense(limit=100)), MemoryLimitError, "limit="),
        (of(lambda k, a: a.dense(limit="much")), OptionError, "number of bytes"),
        (of(lambda k, a: identity(3).dense()), ArgumentError, "no dtype"),
        (of(lambda k, a: vstack([k, a])), ShapeError, "column of blocks has one size"),
        (of(lambda k, a: block([[k], [None]])), ShapeError, "zeros needs another"),
        (of(lambda k, a: block([[k, k], [k]])), ShapeError, "equal lengths"),
        (of(lambda k, a: block([])), ShapeError, "equal lengths"),
        (of(lambda k, a: aslinearoperator(np.ones(3))), ArrayTypeError, "no matrix"),
        (of(lambda k, a: aslinearoperator("k")), ArrayTypeError, "no matrix"),
        (lambda: aslinearoperator(Vi(np.ones((M, 3)))), ShapeError, "matrix of scalars"),
        (lambda: aslinearoperator(Vi(0, 3) | Vj(1, 3)), ArgumentError, "waits for some"),
        (of(lambda k, a: a + np.eye(M, dtype="float32")), DTypeError, "float64 and float32"),
        (of(lambda k, a: a + torch.eye(M)), ArrayTypeError, "NumPy arrays and torch tensors"),
    ],
)
def test_what_is_refused(use: Any, error: Any, message: str):
    with pytest.raises(error, match=message):
        use()


def test_compiled_programs_call_operators_as_they_are():
    x, b = (torch.tensor(each, requires_grad=True) for each in numbers((M, 3), (M, 2)))

    def program(x: Any, b: Any) -> Any:
        kernel = gauss(x, x)
        return (kernel @ kernel + 0.5 * identity(M)) @ b

    found = torch.compile(program, backend="eager")(x, b)
    wanted = (dense_gauss(x, x) @ dense_gauss(x, x) + 0.5 * eye(M)) @ b
    assert_close(found.detach(), wanted.detach(), terms=M)
    slopes = [torch.autograd.grad(each.sum(), (x, b)) for each in (found, wanted)]
    for one, other in zip(*slopes, strict=True):
        assert_close(one, other, terms=M * M)
