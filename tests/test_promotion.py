"""Operands of other dtypes and libraries beside lazy tensors: promoted, or refused by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from checks import assert_close

from pairfold import Genred
from pairfold import numpy as ours
from pairfold.errors import ArrayTypeError, DTypeError

X = np.random.default_rng(0).normal(size=(17, 3))
Y = np.random.default_rng(1).normal(size=(23, 3))
SQUARED = Genred("p*SqDist(x,y)", ["p = Pm(1)", "x = Vi(3)", "y = Vj(3)"], axis=1)
LIBRARIES = ["numpy", "torch", "jax"]


def given(library: str, array: Any) -> Any:
    if library == "numpy":
        return np.asarray(array)
    found = pytest.importorskip("jax.numpy" if library == "jax" else library)
    return found.asarray(array)


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("dtype", ["bool", "uint8", "int32"])
def test_whole_numbers_and_truth_values_take_the_dtype_of_a_tensor(library: str, dtype: str):
    x, y = (given(library, array.astype("float32")) for array in (X, Y))
    products = ours.Vi(x) | ours.Vj(y)
    numbers = np.abs(3 * Y[:, :1]).astype(dtype)
    weights = given(library, numbers)[None]
    dense = (X @ Y.T).astype("float32")
    for found, want in [
        (products * weights, dense * numbers.T),
        (weights + products, dense + numbers.T),
        (products - (weights > 1), dense - (numbers > 1).T),
        (ours.where(weights > 0, products, 1), np.where(numbers.T > 0, dense, 1)),
    ]:
        result = found.sum(axis=1)
        assert "float32" in str(result.dtype)
        assert_close(np.asarray(result)[:, 0], want.sum(1), terms=23, scale=np.abs(want).sum(1))


@pytest.mark.parametrize("library", LIBRARIES)
def test_arrays_without_axes_are_numbers(library: str):
    x, y = (given(library, array.astype("float32")) for array in (X, Y))
    products = ours.Vi(x) | ours.Vj(y)
    dense = (X @ Y.T).astype("float32").sum(1)
    scale = np.abs(X @ Y.T).sum(1)
    for number in (np.array(2.0), np.array(2.0, "float16"), np.array(2)):
        each = given(library, number)
        for found in (products * each, each * products):
            result = np.asarray(found.sum(axis=1))
            assert str(result.dtype) == "float32"
            assert_close(result[:, 0], 2 * dense, terms=23, scale=2 * scale)
        found = np.asarray(SQUARED(each, x, y))
        assert str(found.dtype) == "float32"
        want = 2 * ((X[:, None] - Y[None]) ** 2).sum((1, 2))
        assert_close(found[:, 0], want.astype("float32"), terms=69)
    for one in (True, np.True_, np.float64(1), np.int64(1)):
        same = np.asarray((products * one).sum(axis=1))
        assert str(same.dtype) == "float32"
        assert_close(same[:, 0], dense, terms=23, scale=scale)


def test_derivatives_pass_numbers_of_another_dtype():
    torch = pytest.importorskip("torch")
    scale = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    x, y = (torch.tensor(array.astype("float32")) for array in (X, Y))
    ((ours.Vi(x) | ours.Vj(y)) * scale).sum(1).sum().backward()
    assert scale.grad is not None
    assert scale.grad.dtype == torch.float64
    assert_close(scale.grad.numpy(), (X @ Y.T).sum(), rtol=1e-5)


def test_other_dtypes_are_not_promoted():
    x, y = X.astype("float32"), Y
    with pytest.raises(DTypeError, match="astype"):
        ours.Vi(x) - ours.Vj(y)
    with pytest.raises(DTypeError, match="astype"):
        ours.Vi((10 * X).astype(int))


class Interface:
    """An array of a library that nobody knows, but for one protocol."""

    def __init__(self, **names: object) -> None:
        self.__dict__.update(names)


CASES = [
    ({"__array_interface__": {}}, r"numpy\.asarray\(x\)"),
    ({"__dlpack__": 0}, r"numpy\.from_dlpack\(x\)"),
    ({"__dlpack__": 0, "__dlpack_device__": lambda: (2, 0)}, r"torch\.from_dlpack\(x\)"),
    ({"__cuda_array_interface__": {}}, r"torch\.as_tensor\(x, device='cuda'\)"),
    ({"to_numpy": 0}, r"x\.to_numpy\("),
]


@pytest.mark.parametrize(("names", "hint"), CASES)
def test_arrays_of_other_libraries_are_refused_with_what_takes_them(
    names: dict[str, object], hint: str
):
    with pytest.raises(ArrayTypeError, match=hint):
        SQUARED(1.0, Interface(**names), Y)
    with pytest.raises(ArrayTypeError, match=hint):
        ours.Vi(Interface(**names))


def test_lazy_tensors_are_no_numbers_and_contain_none():
    products = ours.Vi(X) | ours.Vj(Y)
    with pytest.raises(ArrayTypeError, match="does not contain"):
        print(1 in products)
    for kind in (float, int, complex):
        with pytest.raises(ArrayTypeError, match="is no number"):
            kind(products)
