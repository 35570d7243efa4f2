"""LazyTensor: what it is made from, its attributes, how tensors combine, operators, indexing."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import pytest
import torch
from checks import assert_close, assert_same_bits

from pairfold.errors import (
    ArgumentError,
    ArrayTypeError,
    DTypeError,
    OptionError,
    PairfoldError,
    ReducedError,
    ShapeError,
)
from pairfold.numpy import ComplexLazyTensor, LazyTensor, Pm, Var, Vi, Vj

pytestmark = pytest.mark.usefixtures("interpreted_kernels")

RNG = np.random.default_rng(5)
M, N, D = 17, 23, 3
X, Y = RNG.uniform(0.5, 1.5, (M, 1, D)), RNG.uniform(0.5, 1.5, (1, N, D))
S, T, P = RNG.uniform(0.5, 1.5, (M, 1, 1)), RNG.normal(size=(1, N, 1)), RNG.normal(size=(1, 1, D))

libraries = pytest.mark.parametrize("make", [np.asarray, torch.as_tensor], ids=["numpy", "torch"])


def agree(lazy: Any, dense: Any, what: object = None) -> None:
    """The lazy tensor's shape and both its sums are those of the dense array (..., M, N, D)."""
    assert lazy._shape == dense.shape, (what, lazy._shape, dense.shape)
    batches = dense.ndim - 3
    for axis in (batches, batches + 1):
        assert_close(
            lazy.sum(axis=axis), dense.sum(axis), terms=dense.shape[axis], formula=(what, axis)
        )


# -- what it is made from --------------------------------------------------------------------------

# name: (what is given, its axis, _shape, what it is as an array (M, N, D))
MADE: dict[str, tuple[Any, int | None, tuple[int, ...], Any]] = {
    "indexed by i": (X, None, (M, 1, D), X),
    "indexed by j": (Y, None, (1, N, D), Y),
    "parameter": (P, None, (1, 1, D), P),
    "batches of i": (np.stack([X, 2 * X]), None, (2, M, 1, D), np.stack([X, 2 * X])),
    "batches of j": (np.stack([Y, 2 * Y]), None, (2, 1, N, D), np.stack([Y, 2 * Y])),
    "batches of parameters": (np.stack([P, 2 * P]), None, (2, 1, 1, D), np.stack([P, 2 * P])),
    "axis 0": (X[:, 0], 0, (M, 1, D), X),
    "axis 1": (Y[0], 1, (1, N, D), Y),
    "axis 2": (P[0], 2, (1, 1, D), P),
    "vector": (P[0, 0], None, (1, 1, D), P),
    "vector, axis 2": (P[0, 0], 2, (1, 1, D), P),
    "no axes": (np.array(2.5), None, (1, 1, 1), np.full((1, 1, 1), 2.5)),
    "steps": (X[::-1, :, ::2], None, (M, 1, 2), X[::-1, :, ::2]),
}


@libraries
@pytest.mark.parametrize("name", MADE)
def test_arrays(name: str, make: Any) -> None:
    given, axis, shape, dense = MADE[name]
    if make is torch.as_tensor and name == "steps":
        given, dense = X[:, :, ::2], X[:, :, ::2]
    lazy = LazyTensor(make(given), axis=axis)
    assert lazy._shape == shape
    assert lazy.dtype == "float64"
    agree(lazy, np.asarray(dense))


# name: (a number or a list, its vector, whether it is a constant of the formula)
NUMBERS: dict[str, tuple[Any, list[float], bool]] = {
    "float": (0.1, [0.1], False),
    "numpy float64": (np.float64(0.1), [0.1], False),
    "numpy float32": (np.float32(0.5), [0.5], False),
    "list": ([0.1, 0.2, 3], [0.1, 0.2, 3.0], False),
    "int": (3, [3.0], True),
    "large int": (2**40 + 1, [2.0**40 + 1], True),
    "numpy int": (np.int64(-7), [-7.0], True),
}


@libraries
@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_are_exact_and_have_no_dtype(name: str, make: Any) -> None:
    given, wanted, constant = NUMBERS[name]
    lazy = LazyTensor(given)
    assert (lazy._shape, lazy.dtype, lazy.device) == ((1, 1, len(wanted)), None, None)
    assert (not lazy.leaves) == constant
    zeros = LazyTensor(make(np.zeros((4, 1, 1))))
    assert_same_bits((lazy + zeros).sum(axis=1), np.tile(wanted, (4, 1)))


def test_numbers_take_the_dtype_of_what_they_meet() -> None:
    x = LazyTensor(np.zeros((2, 1, 1), "float32"))
    assert_same_bits((x + 0.1).sum(axis=1), np.full((2, 1), 0.1, "float32"))


@libraries
def test_vi_vj_pm_and_var(make: Any) -> None:
    x, y, p = make(X[:, 0]), make(Y[0]), make(P[0, 0])
    agree(Vi(x), X)
    agree(Vj(y), Y)
    agree(Pm(p), P)
    agree(Var(y, cat=1), Y)
    agree(Pm(0.5) * Vi(x), 0.5 * X)
    agree(Pm([1.0, 2.0, 3.0]) * Vi(x), np.array([1.0, 2.0, 3.0]) * X)
    agree(Vi(2) * Vi(x), 2 * X)


def test_symbols() -> None:
    for made, wanted in ((Vi(0, 3), 0), (Vj(1, 3), 1), (Pm(2, 3), 2), (Var(4, 3, 1), 1)):
        (leaf,) = made.symbols
        assert (leaf.dim, leaf.kind) == (3, wanted)
        assert (made.axis, made._shape, made.dtype) == (wanted, (1, 1, 3), None)
    assert [leaf.symbol for leaf in LazyTensor((4, 3, 1)).symbols] == [4]
    assert LazyTensor(X).symbols == []


def test_an_empty_shell_is_zero() -> None:
    assert (LazyTensor()._shape, LazyTensor().dtype) == ((1, 1, 1), None)


BAILED_OUT: dict[str, tuple[Any, int | None, type[Exception]]] = {
    "axis of three axes": (X, 0, OptionError),
    "no axis of two": (X[:, 0], None, OptionError),
    "axis 3": (X[:, 0], 3, OptionError),
    "two parameters": (X[:2, 0], 2, ShapeError),
    "vector of i": (P[0, 0], 0, OptionError),
    "number of i": (0.5, 0, ArrayTypeError),
    "list of j": ([1.0], 1, ArrayTypeError),
    "no components": (np.zeros((3, 1, 0)), None, ShapeError),
    "whole numbers": (np.zeros((3, 1, 2), int), None, DTypeError),
    "long doubles": (np.zeros((3, 1, 2), "longdouble"), None, DTypeError),
    "bool": (True, None, ArrayTypeError),
    "str": ("x", None, ArrayTypeError),
    "dict": ({}, None, ArrayTypeError),
    "empty list": ([], None, ArrayTypeError),
    "list of lists": ([[1.0]], None, ArrayTypeError),
    "list with bool": ([True], None, ArrayTypeError),
    "masked array": (np.ma.zeros((3, 1, 2)), None, ArrayTypeError),
    "tuple of two": ((0, 3), None, ArgumentError),
    "category 4": ((0, 3, 4), None, ArgumentError),
    "dimension 0": ((0, 0, 1), None, ArgumentError),
    "negative position": ((-1, 3, 1), None, ArgumentError),
    "symbol with axis": ((0, 3, 1), 1, OptionError),
    "real as complex": (X, None, DTypeError),
}


@libraries
@pytest.mark.parametrize("name", BAILED_OUT)
def test_what_cannot_be_one(name: str, make: Any) -> None:
    given, axis, error = BAILED_OUT[name]
    strange = isinstance(given, np.ma.MaskedArray) or getattr(given, "dtype", None) == "longdouble"
    if isinstance(given, np.ndarray) and not strange:
        given = make(given)
    with pytest.raises(error) as caught:
        LazyTensor(given, axis=axis, is_complex=name == "real as complex")
    assert isinstance(caught.value, ValueError)  # what PyKeOps raises
    assert isinstance(caught.value, PairfoldError)


# -- attributes ------------------------------------------------------------------------------------


@libraries
def test_attributes(make: Any) -> None:
    x, y = LazyTensor(make(X)), LazyTensor(make(Y))
    k = x.sqdist(y)
    assert (k.shape, k._shape, k.dim(), k.ndim) == ((M, N), (M, N, 1), 3, 1)
    assert ((x - y).shape, (x - y).dim(), (x - y).ndim) == ((M, N, D), 3, D)
    assert (x.ni, x.nj, y.ni, y.nj, k.ni, k.nj) == (M, None, None, N, M, N)
    assert (x.axis, y.axis, LazyTensor(make(P)).axis, k.axis) == (0, 1, 2, None)
    assert (k.batchdims, k.nbatchdims) == (None, 0)
    assert (k.dtype, np.dtype(k.dtype), k.is_complex) == ("float64", np.dtype("float64"), False)
    assert k.device == (make(X).device if make is torch.as_tensor else "cpu")
    assert (k.ranges, k.backend) == (None, None)
    b = LazyTensor(make(np.stack([X, X])))
    assert (b.batchdims, b.nbatchdims, b.dim(), (b * y).shape) == ((2,), 1, 4, (2, M, N, D))


def test_hash_iteration_and_length() -> None:
    x = LazyTensor(X)
    with pytest.raises(TypeError):
        hash(x)
    with pytest.raises(TypeError):
        iter(x)
    with pytest.raises(TypeError):
        len(x)


def test_backend_and_ranges_are_handed_on_and_used() -> None:
    x, y = LazyTensor(X[:4]), LazyTensor(Y[:, :4])
    ranges = tuple(np.array(a) for a in ([[0, 4]], [1], [[1, 3]], [[0, 4]], [1], [[0, 4]]))
    x.ranges, x.backend = ranges, "CPU"
    k = x.sqdist(y).exp()
    assert (k.ranges, k.backend) == (ranges, "CPU")
    dense = np.exp(((X[:4] - Y[:, :4]) ** 2).sum(-1, keepdims=True))
    assert_close(k.sum(axis=1), dense[:, 1:3].sum(1))
    assert all((a == b).all() for a, b in zip(k.t().ranges, ranges[3:] + ranges[:3], strict=True))
    x.backend = "GPU"
    with pytest.raises(PairfoldError, match="GPU"):
        x.sum(axis=1)


# -- how they combine ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("other", "error", "hint"),
    [
        (Vi(RNG.normal(size=(M + 1, D))), ShapeError, r"did you mean Vj\(\.\.\.\)"),
        (Vi(X[:, 0].astype("float32")), DTypeError, r"b\.astype\('float64'\)"),
        (Vj(Y[0].astype("float32")), DTypeError, r"y\.astype\('float64'\)"),
        (Vj(torch.as_tensor(Y[0])), ArrayTypeError, r"torch\.as_tensor\(x\).*y\.numpy\(\)"),
        (Pm(torch.ones(D)), ArrayTypeError, r"torch\.as_tensor\(x\).*p\.numpy\(\)"),
    ],
)
def test_what_does_not_join_is_named_and_says_what_to_do(
    other: Any, error: type[Exception], hint: str
) -> None:
    for program in (operator.add, operator.lt, lambda x, y: x.sqdist(y)):
        with pytest.raises(error, match=hint) as caught:
            program(Vi(X[:, 0]), other)
        assert isinstance(caught.value, ValueError)  # what PyKeOps raises
        assert f"shape ({M}, {D})" in str(caught.value)
    with pytest.raises(error):
        _ = other - Vi(X[:, 0])


def test_sizes_ranges_and_backends_must_agree() -> None:
    x, y = LazyTensor(X), LazyTensor(X)
    x.backend, y.backend = "CPU", "GPU"
    with pytest.raises(ValueError, match="the backend of two tensors"):
        _ = x + y
    ranges = tuple(np.array(a) for a in ([[0, 4]], [1], [[1, 3]], [[0, 4]], [1], [[0, 4]]))
    others = (*ranges[:2], np.array([[0, 3]]), *ranges[3:])
    longer = (*ranges[:2], np.array([[1, 3], [3, 4]]), *ranges[3:])
    for wrong in (others, longer):
        x, y = LazyTensor(X), LazyTensor(X)
        x.ranges, y.ranges = ranges, wrong
        with pytest.raises(ValueError, match="the ranges of two tensors"):
            _ = x + y
    y.ranges = tuple(a.copy() for a in ranges)
    assert (x + y).ranges is not None
    with pytest.raises(ValueError, match="Incompatible batch dimensions"):
        _ = LazyTensor(np.stack([X] * 2)) + LazyTensor(np.stack([Y] * 3))
    with pytest.raises(ValueError, match="Add"):
        operator.add(LazyTensor(X), [1.0, 2.0])


def test_numbers_that_change_nothing() -> None:
    x = LazyTensor(X)
    for same in (x + 0, 0 + x, x - 0, x * 1, 1 * x, x / 1, x * 1.0, x + 0.0, x + np.float64(0)):
        assert same is x
    for nothing in (x * 0, 0 * x, 0 / x, 0.0 * x):
        assert nothing == 0
        assert isinstance(nothing, int)
    for opposite in (x * -1, -1 * x, 0 - x):
        assert opposite.node is (-x).node
    assert (1 / x).node is x.inv().node
    agree(sum([x, LazyTensor(Y), x]), X + Y + X)
    k: Any = 0
    k += x
    assert k is x


@libraries
def test_arrays_join_from_either_side(make: Any) -> None:
    x, y = LazyTensor(make(X)), make(Y)
    agree(x - y, X - Y)
    agree(y - x, Y - X)
    agree(y * x, Y * X)
    agree(y / x, Y / X)
    agree(x * make(P[0, 0]), X * P)
    with pytest.raises(ValueError):
        _ = x + make(Y[0])
    with pytest.raises(ValueError):
        _ = x + None
    with pytest.raises(ValueError):
        _ = x == None  # noqa: E711


def test_only_reductions_can_be_called() -> None:
    with pytest.raises(ArgumentError, match="not reduced"):
        LazyTensor(X)()


@pytest.mark.parametrize(
    "use",
    [
        lambda r, x: r + x,
        lambda r, x: x + r,
        lambda r, x: 2 * r,
        lambda r, x: X * r,
        lambda r, x: -r,
        lambda r, x: r**2,
        lambda r, x: r == x,
        lambda r, x: r[0],
        lambda r, x: abs(r),
        lambda r, x: r.exp(),
        lambda r, x: r.sum(axis=1),
        lambda r, x: x.concat(r),
        lambda r, x: x.ifelse(1, r),
        lambda r, x: LazyTensor(r),
    ],
)
def test_nothing_is_applied_to_a_reduction(use: Any) -> None:
    x = LazyTensor(X)
    reduced = x.sum(axis=1, call=False)
    with pytest.raises(ValueError, match="reduction"):
        use(reduced, x)
    assert not hasattr(reduced, "exp")
    assert not hasattr(reduced, "no_such_thing")
    assert isinstance(ReducedError("x"), AttributeError)


# -- operators -------------------------------------------------------------------------------------

BINARY = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "==": lambda a, b: (a == b) * 1.0,
    "!=": lambda a, b: (a != b) * 1.0,
    "<": lambda a, b: (a < b) * 1.0,
    "<=": lambda a, b: (a <= b) * 1.0,
    ">": lambda a, b: (a > b) * 1.0,
    ">=": lambda a, b: (a >= b) * 1.0,
    "**": operator.pow,
}
# Ties, so that equality is met.
A, B = np.round(X * 4) / 4, np.round(Y * 4) / 4
AS, BS = np.round(S * 4) / 4, np.round(Y[..., :1] * 4) / 4
OPERANDS = {
    "vectors": (A, B),
    "vector and scalar": (A, BS),
    "scalar and vector": (AS, B),
    "with a parameter": (A, np.abs(P)),
}


@pytest.mark.parametrize("name", BINARY)
@pytest.mark.parametrize("operands", OPERANDS)
def test_binary_operators(name: str, operands: str) -> None:
    a, b = OPERANDS[operands]
    op = BINARY[name]
    agree(op(LazyTensor(a), LazyTensor(b)), np.asarray(op(a, b)), name)
    agree(op(LazyTensor(a), b), np.asarray(op(a, b)), name)
    agree(op(a, LazyTensor(b)), np.asarray(op(a, b)), name)


@pytest.mark.parametrize("name", BINARY)
@pytest.mark.parametrize("number", [2, 0.25, 1.75, np.float64(1.5), np.float32(0.5), np.int64(3)])
def test_operators_with_numbers(name: str, number: Any) -> None:
    op, y = BINARY[name], LazyTensor(Y)
    agree(op(LazyTensor(A), number), op(A, number), name)
    agree(op(number, LazyTensor(A)), op(number, A), name)
    agree(op(LazyTensor(A) * y, number), op(A * Y, number), name)


def test_tenths_are_tenths() -> None:
    x = LazyTensor(np.ones((1, 1, 1)))
    assert (x * 0.1).sum(axis=1).item() == 0.1
    assert (x / 3).sum(axis=1).item() == 1 / 3
    assert (x + 0.1).sum(axis=1).item() == 1.1
    assert (x * 16777217).sum(axis=1).item() == 16777217.0


POWERS = [0, 1, 2, 3, -1, -2, 7, 0.5, -0.5, 1.5, -2.5, 2.0]


@pytest.mark.parametrize("power", POWERS)
def test_powers(power: Any) -> None:
    agree(LazyTensor(X) ** power, X ** float(power), power)
    agree(LazyTensor(X).power(power), X ** float(power), power)


def test_powers_of_negative_numbers_and_zero() -> None:
    x = np.array([-2.0, -1.0, 0.0, 3.0]).reshape(4, 1, 1)
    for power in (0, 2, 3, 2.0, 3.0):
        agree(LazyTensor(x) ** power, x**power, power)


def test_scalar_products_minus_and_modulus() -> None:
    x, y = LazyTensor(X), LazyTensor(Y)
    agree(x | y, (X * Y).sum(-1, keepdims=True))
    agree(x | Y, (X * Y).sum(-1, keepdims=True))
    agree(X | y, (X * Y).sum(-1, keepdims=True))
    agree(-x, -X)
    agree(abs(LazyTensor(T)), np.abs(T))


# -- components ------------------------------------------------------------------------------------

INDICES: dict[str, tuple[Any, Any]] = {
    "one": (1, np.s_[..., 1:2]),
    "numpy": (np.int64(2), np.s_[..., 2:3]),
    "full slices": (np.s_[:, :, 2], np.s_[..., 2:3]),
    "start and stop": (np.s_[1:3], np.s_[..., 1:3]),
    "stop": (np.s_[:2], np.s_[..., :2]),
    "start": (np.s_[1:], np.s_[..., 1:]),
    "all": (np.s_[:], np.s_[..., :]),
    "slices": (np.s_[:, :, 0:2], np.s_[..., 0:2]),
    "step 1": (np.s_[0:3:1], np.s_[...]),
    "last": (-1, np.s_[..., -1:]),
    "from the end": (np.s_[-2:], np.s_[..., -2:]),
    "but the last": (np.s_[:-1], np.s_[..., :-1]),
    "every other": (np.s_[::2], np.s_[..., ::2]),
    "backwards": (np.s_[::-1], np.s_[..., ::-1]),
    "list": ([2, 0, 1], np.s_[..., [2, 0, 1]]),
    "array": (np.array([0, 2, 2, -1]), np.s_[..., [0, 2, 2, 2]]),
    "mask": (np.array([True, False, True]), np.s_[..., [0, 2]]),
    "dots": (np.s_[..., -1], np.s_[..., -1:]),
    "dots alone": (..., np.s_[...]),
}


@pytest.mark.parametrize("name", INDICES)
def test_components(name: str) -> None:
    lazy, dense = INDICES[name]
    agree((LazyTensor(X) * LazyTensor(Y))[lazy], (X * Y)[dense])


@pytest.mark.parametrize(
    "key",
    [
        *(-D - 1, D, 1.0, True, None, "k", [D], [[0]], [0.5], [], [True], np.s_[1:1], np.s_[:4]),
        *(np.s_[-4:], np.s_[::0], np.s_[2:1], np.s_[0, :, 0], np.s_[:, 0], np.s_[:, None, 0]),
        *(np.s_[..., ..., 0], np.s_[:, :, :, 0], np.s_[..., None]),
    ],
)
def test_other_indices_are_refused(key: Any) -> None:
    with pytest.raises(ValueError):
        _ = LazyTensor(X)[key]


def test_components_of_batches() -> None:
    x = np.stack([X, 2 * X])
    agree(LazyTensor(x)[:, :, :, 1], x[..., 1:2])
    with pytest.raises(ValueError):
        _ = LazyTensor(x)[:, :, 1]


# -- classes ---------------------------------------------------------------------------------------


def test_one_class_for_all_libraries_and_another_for_complex_numbers() -> None:
    import pairfold.torch

    assert pairfold.torch.LazyTensor is LazyTensor
    z = LazyTensor(X + 1j)
    assert type(z) is ComplexLazyTensor
    assert not isinstance(z, LazyTensor)
    assert type(LazyTensor(1j)) is type(LazyTensor([1, 2j])) is ComplexLazyTensor


@libraries
def test_arrays_are_held_not_copied(make: Any) -> None:
    x = make(X.copy())
    total = LazyTensor(x).sum(axis=0, call=False)
    before = total()
    x[0] += 1
    assert_close(total(), np.asarray(before) + 1)
