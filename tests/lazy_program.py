"""A program of a user that says the type of each value: to type checkers, and when it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

import numpy as np

import pairfold
from pairfold import ComplexLazyTensor, Genred, LazyTensor, Vi, Vj, together, where
from pairfold.core.library import NumpyArray

if TYPE_CHECKING:
    from typing_extensions import assert_type
else:

    def assert_type(value, kind):
        """Fail where a value is not what type checkers take it for."""
        if get_origin(kind) is Literal:
            assert type(value) is int
            assert value in get_args(kind)
        elif kind is not Any:
            assert isinstance(value, get_origin(kind) or kind)


def operators(x: LazyTensor, y: LazyTensor) -> None:
    """Operators of real numbers."""
    for found in (x + y, 1 + x, x - 1.5, 2 - x, x * y, 2 * x, x / y, 1 / x, x**2, x**0.5, 2**x):
        assert_type(found, LazyTensor)
    for found in (x % y, 1 % x, x // 2, 3 // x, -x, +x, abs(x), x | y, x[0], x[:1], x.T, x.t()):
        assert_type(found, LazyTensor)
    for truth in (x < y, x <= 1, x > y, x >= 1, x == y, x != 0, (x > 0) & (y > 0), ~(x > 0)):
        assert_type(truth, LazyTensor)
    w: NumpyArray = np.ones(2)
    for found in (x * w, x - w, x < w):
        assert_type(found, LazyTensor)
    for zero in (x * 0, 0 * x, 0 / x):
        assert_type(zero, Literal[0])
    assert_type(np.exp(x), Any)


def methods(x: LazyTensor, y: LazyTensor) -> None:
    """Methods of rows, and others."""
    assert_type(x.sqdist(y).exp().sqrt().clamp(0.0, 1.0).maximum(y).relu(), LazyTensor)
    assert_type(x.concat(y).elem(0) + x.extract(0, 1), LazyTensor)
    assert_type(LazyTensor.cat((x, y)), LazyTensor)
    assert_type(where(x > 0, x, 0), LazyTensor)
    assert_type(x.where(x > 0, y), LazyTensor)
    assert_type(Vi(0, 3).grad(Vi(0, 3), Vi(1, 3)), LazyTensor)
    assert_type(x.norm(-1) + x.max() + x.sum(-1), LazyTensor)
    assert_type(x.shape, tuple[int, ...])


def complex_numbers(x: LazyTensor, z: ComplexLazyTensor) -> None:
    """Operators and methods of complex numbers."""
    for found in (x * z, z * x, x - z, z**2, x * 1j, 1j + x, z.exp(), z.conj(), x.exp1j(), -z):
        assert_type(found, ComplexLazyTensor)
    for part in (z.real, z.imag, abs(z), z.abs(), z.angle(), z.sqnorm2(), z == z, z != x):
        assert_type(part, LazyTensor)
    assert_type(z * 0, Literal[0])


def reductions(K: LazyTensor) -> None:
    """Reductions: arrays of the library of the arrays that they are of."""
    b: NumpyArray = np.ones((4, 1))
    assert_type(K @ b, NumpyArray)
    assert_type(K.matvec(b), NumpyArray)
    assert_type(K.sum(axis=1), Any)
    assert_type(K.sum(dim=1, keepdim=True), Any)
    assert_type(K.min_argmin(axis=0, backend="CPU")[0], Any)
    assert_type(K.logsumexp(axis=1, weight=Vj(b)), Any)
    later = Vi(0, 2).sqdist(Vj(1, 2)).sum(axis=1)
    assert_type(later(np.ones((3, 2)), np.ones((4, 2))), Any)
    total, most = together(K.sum(axis=1, call=False), K.max(axis=0, call=False))
    assert_type(total, Any)
    assert_type(most + most, Any)
    scaled = Genred("2*x", ["x = Vi(2)"], axis=1)
    assert_type(together(scaled, scaled)(np.ones((3, 2))), tuple[Any, ...])


def others(d: LazyTensor) -> None:
    """Masks, settings and what is told of a call."""
    mask = pairfold.causal() & pairfold.band(2) | ~pairfold.exclude_self()
    assert_type(d.sum(axis=1, where=mask & (pairfold.j >= 1)), Any)
    with pairfold.settings(threads=1, rules="exact") as inside:
        assert_type(inside.threads, int)
    scaled = Genred("2*x", ["x = Vi(2)"], axis=1)
    assert_type(scaled.explain(np.ones((3, 2))).summary, str)
    assert_type(pairfold.explain(d.sum(axis=1, call=False)).rows, int)
    assert_type((d + pairfold.linalg.identity(4)).T.shape, tuple[int, ...])
    assert_type(pairfold.__version__, str)


def main() -> None:
    """All of it."""
    x, y = LazyTensor(np.ones((3, 1, 2))), LazyTensor(np.full((1, 4, 2), 0.5))
    operators(x, y)
    methods(x, y)
    complex_numbers(x, ComplexLazyTensor(np.full((3, 1, 2), 1j)))
    reductions((-((x - y) ** 2).sum(-1)).exp())
    square = np.ones((4, 2))
    others(Vi(square).sqdist(Vj(square)))


def refused(x: LazyTensor, z: ComplexLazyTensor) -> None:
    """What type checkers are to report, at each line that says so."""
    x.clmp(0, 1)  # error
    z.relu()  # error
    x.sqdist()  # error
    x.sum(axis=1, backnd="CPU")  # error
    x.sum(axis=1, keepdim="yes")  # error
    x.elem("first")  # error
    np.linalg.cholesky(x)  # error
    together(x)  # error
    together(x.sum(axis=1, call=False), backend="CPU")  # error
    Vi(np.ones((3, 1)), dim="3")  # error
    pairfold.settings(thread=1)  # error
    pairfold.settings(threads="many")  # error
    pairfold.band("wide")  # error
    print(pairfold.causl)  # error
