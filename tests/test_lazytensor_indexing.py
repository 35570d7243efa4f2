"""Rows, columns and components of lazy tensors, against those of dense arrays."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from agreement import agree, numbers
from checks import assert_close

pytest.importorskip("torch")
pytest.importorskip("jax")
import jax.numpy as jnp
import torch

from pairfold import LazyTensor, Pm, Vi, Vj
from pairfold.errors import ArgumentError, ShapeError, UnsupportedError

M, N = 17, 23
MASK = np.arange(M) % 3 == 1
# What is the same index of dense tensors.
KEYS: dict[str, Any] = {
    "rows": np.s_[3:9],
    "every other": np.s_[::2],
    "from the end": np.s_[-5:-1],
    "beyond": np.s_[10:99],
    "columns": np.s_[:, 2:5],
    "both": np.s_[-4:, 1:20:3],
    "list": [4, 0, -1, 4],
    "list of columns": np.s_[:, [2, 1, 2, -23]],
    "array": np.array([16, 3]),
    "array and slice": np.s_[np.array([16, 3], "int32"), 5:],
    "mask": MASK,
    "mask of columns": np.s_[:, np.arange(N) > 20],
    "list of truth": np.s_[MASK.tolist(), 3:4],
    "one row": np.s_[3:4],
    "none": np.s_[5:5],
    "no list": np.s_[:, []],
    "dots": np.s_[..., 4:7],
    "dots before": np.s_[4:7, ...],
    "all": np.s_[...],
    "long": np.s_[2:4, 3:5, 0],
}


def gauss(x: Any, y: Any) -> Any:
    return (-((Vi(x) - Vj(y)) ** 2).sum(-1)).exp()


def dense_gauss(x: Any, y: Any) -> Any:
    return (-((x[..., :, None, :] - y[..., None, :, :]) ** 2).sum(-1)).exp()


@pytest.mark.parametrize("name", KEYS)
def test_rows_and_columns_of_numpy(name: str):
    x, y = numbers((M, 3), (N, 3))
    key, part = KEYS[name], gauss(x, y)[KEYS[name]]
    wanted = gauss(x, y).dense()[key[:2] if name == "long" else key]
    assert part.shape == wanted.shape
    assert_close(part.dense(), wanted)
    assert_close(part.T.dense(), wanted.T)


def test_backward_steps():
    def ours(x: Any, y: Any) -> Any:
        kernel = gauss(x, y)
        return kernel[::-2, -2:2:-3].dense(), kernel.T[::-1].dense()

    def theirs(x: Any, y: Any) -> Any:
        kernel = dense_gauss(x, y)
        rows, columns = torch.arange(M - 1, -1, -2), torch.arange(N - 2, 2, -3)
        return kernel[rows][:, columns], kernel.T.flip(0)

    agree(ours, theirs, numbers((M, 3), (N, 3)))


def test_parts_in_every_library_and_their_gradients():
    def ours(x: Any, y: Any, b: Any) -> Any:
        kernel = gauss(x, y) * (Vi(x) | Vj(y))
        return (
            *(kernel[3:9] @ b, kernel[:, [2, 1, 2, -1]] @ b[:4], kernel[MASK, 4:6].sum(1)),
            *(kernel.T[2:7].dense(), kernel[2:7, 3:8].trace().reshape(1)),
            (LazyTensor(x[:, None, :]) - LazyTensor(y[None]))[4:6, ::5, ::-1].dense(),
        )

    def theirs(x: Any, y: Any, b: Any) -> Any:
        kernel = dense_gauss(x, y) * (x @ y.T)
        return (
            *(kernel[3:9] @ b, kernel[:, [2, 1, 2, -1]] @ b[:4]),
            *(kernel[MASK, 4:6].sum(1, keepdim=True), kernel.T[2:7]),
            *(kernel[2:7, 3:8].trace().reshape(1), (x[4:6, None] - y[None, ::5]).flip(-1)),
        )

    agree(ours, theirs, numbers((M, 3), (N, 3), (N, 2)))


@pytest.mark.parametrize("make", [np.asarray, torch.as_tensor, jnp.asarray])
def test_arrays_of_indices_of_any_library(make: Any):
    x, y = (each.astype("float32") for each in numbers((M, 3), (N, 3)))
    wanted = gauss(x, y).dense()
    kernel = gauss(make(x), make(y))
    for other in (np.asarray, torch.as_tensor, jnp.asarray):
        for dtype in ("int32", "uint8"):
            rows = other(np.array([16, 3, 3], dtype))
            assert_close(kernel[rows].toarray(), wanted[[16, 3, 3]])
        assert_close(kernel[:, other(np.array([-1, 0]))].toarray(), wanted[:, [-1, 0]])
        assert_close(kernel[other(MASK)].toarray(), wanted[MASK])
        vectors = (Vi(make(x)) - Vj(make(y)))[..., other(np.array([2, 0]))]
        assert_close(vectors.toarray(), (x[:, None] - y)[..., [2, 0]])


def test_parts_of_batches_and_of_complex_numbers():
    def ours(x: Any, z: Any, p: Any) -> Any:
        product = LazyTensor(x[..., :, None, :]) * LazyTensor(z[..., None, :, :]) * Pm(p)
        part = product[..., 3:5, [1, -1], :]
        return part.dense(), part.sum(-1)[:, :, 1:].dense(), product[:, :, 2:3, 4:, 1:].sum(3)

    def theirs(x: Any, z: Any, p: Any) -> Any:
        product = x[..., :, None, :] * z[..., None, :, :] * p
        part = product[..., 3:5, [1, -1], :]
        return part, part[..., 1:, :, :].sum(-1), product[..., 2:3, 4:, 1:].sum(-2)

    x, y, w, p = numbers((2, 1, M, 3), (4, N, 3), (4, N, 3), (3,))
    agree(ours, theirs, [x, y + 1j * w, p])


def test_parts_are_lazy_tensors_like_any_other():
    """Pickles, copies, repeated indices, and arrays that one formula shares."""
    (x,) = numbers((M, 3))
    kernel = gauss(x, x)[2:9][:, [1, 0, 5]]
    wanted = dense_gauss(torch.tensor(x), torch.tensor(x)).numpy()[2:9][:, [1, 0, 5]]
    for part in (kernel, pickle.loads(pickle.dumps(kernel)), kernel.to("float64")):
        assert_close(part.dense(), wanted)
    assert kernel.dtype == "float64"
    backed = gauss(x, x)
    backed.backend = "CPU"
    assert backed[:2].backend == "CPU"
    assert Vi(x)[3:5, :].shape == (2, 1, 3)
    assert Vi(x)[3:5, :].axis == 0
    assert Vi(x)[:, :, 0].sum(0).shape == (1, 1)
    assert Vi(x)[:, 0:1].shape == (M, 1, 3)  # all of the axis that the formula lacks


def refused(key: Any) -> Any:
    x, y = numbers((M, 3), (N, 3))
    return lambda: gauss(x, y)[key]


def of_vectors(key: Any) -> Any:
    x, y = numbers((M, 3), (N, 3))
    return lambda: (Vi(x) - Vj(y))[key]


@pytest.mark.parametrize(
    ("use", "error", "message"),
    [
        (refused(3), ShapeError, r"K\[3:4\]"),
        (refused(-1), ShapeError, r"K\[-1:\]"),
        (refused(np.s_[:, np.int64(3)]), ShapeError, r"K\[:, 3:4\]"),
        (refused(True), ShapeError, "chosen by a slice"),
        (refused(None), ShapeError, "whole numbers or truth values"),
        (refused(np.s_[None, 1:]), ShapeError, "new axes"),
        (refused(np.s_[:, :, :, :]), ShapeError, "3 axes to index"),
        (refused(np.s_[..., ..., 1:]), ShapeError, "once in an index"),
        (refused([M]), ShapeError, "there are 17 rows"),
        (refused([-M - 1]), ShapeError, "there are 17 rows"),
        (refused(np.s_[:, [N]]), ShapeError, "there are 23 columns"),
        (refused(np.ones(M - 1, bool)), ShapeError, "one truth value for each of the 17 rows"),
        (refused(torch.ones(M - 1, dtype=torch.bool)), ShapeError, "one truth value for each"),
        (refused([[1, 2]]), ShapeError, r"arrays \(k,\)"),
        (refused([[1], [2, 3]]), ShapeError, r"arrays \(k,\)"),
        (refused([0.5]), ShapeError, "dtype float64"),
        (refused(np.s_[::0]), ShapeError, "cannot be 0"),
        (refused(np.s_[0.5:]), ShapeError, "whole numbers"),
        (refused(([1, 2], [3, 4])), UnsupportedError, r"K\[rows\]\[:, columns\]"),
        (of_vectors(np.s_[:, [1], [0]]), UnsupportedError, "one axis at a time"),
        (of_vectors(np.s_[1, :, 0]), ShapeError, r"K\[1:2\]"),
        (lambda: Vi(np.ones((M, 3)))[:, 1:2], ShapeError, "does not depend on j"),
        (lambda: Vi(np.ones((M, 3)))[:, [0]], ShapeError, "does not depend on j"),
        (lambda: (Vi(0, 3) - Vj(1, 3))[2:5, :], ArgumentError, "that is to come"),
        (lambda: (Vi(np.ones((M, 1))) - Vj(np.ones((N, 1))))[2:5], ShapeError, r"K\[a:b, :\]"),
    ],
)
def test_what_cannot_be_chosen(use: Any, error: Any, message: str):
    with pytest.raises(error, match=message):
        use()


def test_parts_of_batch_axes_and_of_ranges_are_refused():
    x, y = numbers((2, M, 1, 3), (2, 1, N, 3))
    kernel = (LazyTensor(x) - LazyTensor(y)).norm2()
    with pytest.raises(UnsupportedError, match="batch axes"):
        kernel[:1, :, :]
    with pytest.raises(ShapeError, match=r"K\[\.\.\., 1:3, :\]"):
        (LazyTensor(x) | LazyTensor(y))[1:3]
    kernel = gauss(x[0, :, 0], y[0, 0])
    kernel.ranges = [[[0, 5]], [1], [[0, 5]], [[0, 5]], [1], [[0, 5]]]
    assert kernel[...].ranges is kernel.ranges
    with pytest.raises(UnsupportedError, match="ranges"):
        kernel[:5]


def test_parts_under_jax_transformations():
    import jax

    x, y, b = (jnp.asarray(each, "float32") for each in numbers((M, 3), (N, 3), (N, 2)))
    rows = jnp.array([3, 1])
    found = jax.jit(lambda x, y, rows: gauss(x, y)[rows] @ b)(x, y, rows)
    assert_close(np.asarray(found), np.asarray((gauss(x, y) @ b)[rows]))
    found = jax.vmap(lambda x, rows: gauss(x, y)[rows] @ b)(
        jnp.stack([x, -x]), jnp.stack([rows] * 2)
    )
    assert_close(np.asarray(found[0]), np.asarray((gauss(x, y) @ b)[rows]))
