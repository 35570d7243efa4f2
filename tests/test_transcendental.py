"""Functions of one and two numbers: accuracy, ends of domains, in every library."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import pytest
import torch
from checks import assert_close
from libraries import evaluated, per_library
from torch import Tensor

from pairfold import LazyTensor
from pairfold.errors import ArrayTypeError, DimError, OptionError
from pairfold.numpy import Genred
from pairfold.settings import settings

INF, NAN = np.inf, np.nan
DTYPES = pytest.mark.parametrize("dtype", ["float32", "float64"])


def at(text: str, *numbers: Any, dtype: str = "float64", by: str = "Sum") -> Any:
    """A formula in x and y, at each of some numbers, by machine code.

    `by` is a reduction of one number; a sum begins at 0, and leaves zeros no sign.
    """
    arrays = [np.array(x, dtype)[:, None] for x in numbers]
    names = [f"{name} = Vi(1)" for name, _ in zip("xy", arrays)]
    found = Genred(f"({text})*o", [*names, "o = Vj(1)"], by, axis=1)
    return found(*arrays, np.ones((1, 1), dtype))[:, 0]


# -- accuracy --------------------------------------------------------------------------------------


def spread(low: float, high: float, count: int = 40) -> Any:
    return np.geomspace(low, high, count) * (1 + 0.3 * np.sin(np.arange(count)))


def both(positive: Any) -> Any:
    return np.concatenate([positive, -positive])


def ranges(dtype: str) -> dict[str, Any]:
    huge, exponent = (1e38, 88.0) if dtype == "float32" else (1e300, 709.0)
    far = [exponent, 1.005 * exponent]
    return {
        "all": both(np.concatenate([spread(1e-30, huge / 2), spread(1e-2, 30)])),
        "exponents": both(np.concatenate([spread(1e-30, 1), spread(0.1, exponent / 1.4), far])),
        "from 1": np.concatenate([1 + spread(1e-6, 10), spread(2, huge / 2)]),
        "inside 1": both(np.concatenate([spread(1e-30, 0.7), 1 - spread(1e-6, 0.5)])),
        "positive": spread(1e-20, 1e6),
        "any": np.concatenate([spread(1e-9, 1e5), -spread(0.01, 20) - 0.003]),
    }


ACCURATE: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "Expm1(x)": ("exponents", mpmath.expm1),
    "Log1p(x)": ("positive", mpmath.log1p),
    "Sigmoid(x)": ("exponents", lambda x: 1 / (1 + mpmath.exp(-x))),
    "SigmoidSlope(x)": ("exponents", lambda x: 1 / (2 + mpmath.exp(x) + mpmath.exp(-x))),
    "Softplus(x)": ("exponents", lambda x: mpmath.log1p(mpmath.exp(x))),
    "Tan(x)": ("all", mpmath.tan),
    "Sinh(x)": ("exponents", mpmath.sinh),
    "Cosh(x)": ("exponents", mpmath.cosh),
    "Asinh(x)": ("all", mpmath.asinh),
    "Acosh(x)": ("from 1", mpmath.acosh),
    "Atanh(x)": ("inside 1", mpmath.atanh),
    "Erf(x)": ("exponents", mpmath.erf),
    "Erfc(x)": ("exponents", mpmath.erfc),
    "Lgamma(x)": ("positive", mpmath.loggamma),
    "Digamma(x)": ("any", lambda x: mpmath.psi(0, x)),
    "Polygamma(x,1)": ("any", lambda x: mpmath.psi(1, x)),
    "Polygamma(x,2)": ("any", lambda x: mpmath.psi(2, x)),
    "Polygamma(x,3)": ("positive", lambda x: mpmath.psi(3, x)),
}
# Differences of numbers of this size, and zeros between poles: errors are relative to 1 there.
WITH_ZEROS = {"Digamma(x)", "Polygamma(x,2)"}


@DTYPES
@pytest.mark.parametrize("text", ACCURATE)
def test_functions_keep_their_digits_everywhere(text: str, dtype: str) -> None:
    name, exact = ACCURATE[text]
    x = ranges(dtype)[name].astype(dtype)
    got = at(text, x, dtype=dtype)
    info = np.finfo(dtype)
    largest, least = mpmath.mpf(float(info.max)), mpmath.mpf(float(info.tiny))
    with mpmath.workprec(120):
        for number, found in zip(x.tolist(), got.tolist()):
            want = mpmath.mpf(exact(mpmath.mpf(number)))
            if abs(want) > largest:
                assert found == INF * mpmath.sign(want), (number, found)
                continue
            size = max(abs(want), 1 if text in WITH_ZEROS else least)
            error = abs(found - want) / (size * float(info.eps))
            assert error < 6, f"{text} at {number}: {found}, off by {float(error):.1f} units"


@DTYPES
def test_lengths_of_pairs_neither_overflow_nor_underflow(dtype: str) -> None:
    info = np.finfo(dtype)
    sizes = [float(info.max) / 2, float(info.tiny) * 8, 1.0, 1e-10, 0.0]
    x, y = (a.ravel() for a in np.meshgrid(sizes, sizes))
    got = at("Hypot(x,-y)", x, y, dtype=dtype)
    assert_close(got, np.hypot(x.astype(dtype), y.astype(dtype)), rtol=4 * info.eps, atol=0)


# -- ends of domains -------------------------------------------------------------------------------

ENDS = [0.0, -0.0, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5, -1.5, 1e4, -1e4, INF, -INF, NAN]
LIKE_TORCH: dict[str, Callable[[Tensor], Tensor]] = {
    "Expm1(x)": torch.expm1,
    "Log1p(x)": torch.log1p,
    "Sigmoid(x)": torch.sigmoid,
    "Softplus(x)": lambda x: torch.nn.functional.softplus(x),
    "Tan(x)": torch.tan,
    "Sinh(x)": torch.sinh,
    "Cosh(x)": torch.cosh,
    "Asinh(x)": torch.asinh,
    "Acosh(x)": torch.acosh,
    "Atanh(x)": torch.atanh,
    "Erf(x)": torch.erf,
    "Erfc(x)": torch.erfc,
    "Lgamma(x)": torch.lgamma,
    "Digamma(x)": torch.digamma,
}
# Outside of domains, and at poles, where torch's own rounding decides what is infinite.
EXCEPT = {
    "Lgamma(x)": {-INF, -1.0, -2.0, -1e4},
    "Digamma(x)": {-INF, -1.0, -2.0, -1e4},
    "Acosh(x)": {-INF, -1.0},
}


@DTYPES
@pytest.mark.parametrize("text", LIKE_TORCH)
def test_special_values_and_derivatives_are_torchs(text: str, dtype: str) -> None:
    x = torch.tensor(ENDS, dtype=getattr(torch, dtype), requires_grad=True)
    want = LIKE_TORCH[text](x)
    (slope,) = torch.autograd.grad(want.sum(), x)
    kept = np.array([not any(v == end for end in EXCEPT.get(text, ())) for v in ENDS])
    got = at(text, ENDS, dtype=dtype)
    want, slope = want.detach().numpy(), slope.numpy()
    tolerance = 8 * np.finfo(dtype).eps
    assert_close(got, want, rtol=tolerance, atol=tolerance, formula=text)
    zeros = (want == 0) & np.isin(ENDS, (0.0, INF, -INF))
    signs = np.signbit(at(text, ENDS, dtype=dtype, by="Max"))
    assert (signs == np.signbit(want))[zeros].all()
    if text == "Digamma(x)":  # torch's trigamma has half of the digits
        tolerance = max(tolerance, 1e-8)
    assert_close(
        at(f"Grad({text},x,o)", ENDS, dtype=dtype)[kept],
        slope[kept],
        rtol=tolerance,
        atol=tolerance,
        formula=f"slope of {text}",
    )


PAIRS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "Maximum(x,y)": torch.maximum,
    "Minimum(x,y)": torch.minimum,
    "Hypot(x,y)": torch.hypot,
}


@pytest.mark.parametrize("text", PAIRS)
def test_special_values_of_pairs_are_torchs(text: str) -> None:
    x, y = (a.ravel() for a in np.meshgrid([1.0, -2.0, 0.0, INF, -INF, NAN], [1.0, 0.0, INF, NAN]))
    got = at(text, x, y)
    given = [torch.tensor(a, requires_grad=True) for a in (x, y)]
    want = PAIRS[text](*given)
    assert_close(got, want.detach().numpy(), formula=text)
    slopes = torch.autograd.grad(want.sum(), given)
    # The length's slope is 0 at the origin, as that of every norm here; torch has NaN.
    kept = (x != 0) | (y != 0)
    for name, slope in zip("xy", slopes):
        found = at(f"Grad({text},{name},o)", x, y)
        assert_close(found[kept], slope.numpy()[kept], formula=f"slope of {text} in {name}")
    assert at(f"Grad({text},x,o)", [0.0], [0.0]) == (0 if "Hypot" in text else 0.5)


def test_what_is_not_taken_does_not_poison_gradients() -> None:
    assert at("Grad(Maximum(Log(x),y),x,o)", [0.0], [1.0]) == 0
    assert at("Grad(Minimum(Sqrt(x),y),x,o)", [4.0], [-1.0]) == 0
    assert at("Grad(Maximum(Sqrt(x),y),y,o)", [-1.0], [1.0]) == 1


def test_derivatives_of_the_gamma_function_do_not_end() -> None:
    text = "Lgamma(x)"
    for order in range(5):
        want = float(mpmath.psi(order - 1, 1.3) if order else mpmath.loggamma(1.3))
        assert_close(at(text, [1.3]), np.array([want]), rtol=1e-14, formula=text)
        text = f"Grad({text},x,1)"
    with pytest.raises(DimError, match="Digamma"):
        at("Polygamma(x,0)", [1.0])


# -- in every library ------------------------------------------------------------------------------

Program = Callable[[Any, Any], Any]
# Of lazy tensors x (..., M, 1, 2) and y (..., 1, N, 2), and of dense arrays.
PROGRAMS: dict[str, tuple[Program, Program]] = {
    "expm1": (lambda x, y: (x + y).expm1(), lambda x, y: (x + y).expm1()),
    "log1p": (lambda x, y: (x * x + y * y).log1p(), lambda x, y: (x * x + y * y).log1p()),
    "sigmoid": (lambda x, y: (x * y).sigmoid(), lambda x, y: (x * y).sigmoid()),
    "softplus": (
        lambda x, y: (x - y).softplus(),
        lambda x, y: torch.nn.functional.softplus(x - y),
    ),
    "tan": (lambda x, y: (0.2 * (x - y)).tan(), lambda x, y: (0.2 * (x - y)).tan()),
    "sinh": (lambda x, y: (x - y).sinh(), lambda x, y: (x - y).sinh()),
    "cosh": (lambda x, y: (x - y).cosh(), lambda x, y: (x - y).cosh()),
    "asinh": (lambda x, y: (x - y).asinh(), lambda x, y: (x - y).asinh()),
    "acosh": (lambda x, y: (1 + (x - y).exp()).acosh(), lambda x, y: (1 + (x - y).exp()).acosh()),
    "atanh": (
        lambda x, y: (0.9 * (x - y).sin()).atanh(),
        lambda x, y: (0.9 * (x - y).sin()).atanh(),
    ),
    "erf": (lambda x, y: (x - y).erf(), lambda x, y: (x - y).erf()),
    "erfc": (lambda x, y: (x - y).erfc(), lambda x, y: (x - y).erfc()),
    "lgamma": (lambda x, y: (x - y).exp().lgamma(), lambda x, y: (x - y).exp().lgamma()),
    "lgamma below zero": (
        lambda x, y: (0.45 * y.sin() * x.sin() - 1.5).lgamma(),
        lambda x, y: (0.45 * y.sin() * x.sin() - 1.5).lgamma(),
    ),
    "digamma": (lambda x, y: (x - y).exp().digamma(), lambda x, y: (x - y).exp().digamma()),
    "polygamma": (
        lambda x, y: (1 + (x - y).exp()).polygamma(2),
        lambda x, y: torch.polygamma(2, 1 + (x - y).exp()),
    ),
    "maximum": (lambda x, y: x.maximum(y), torch.maximum),
    "minimum": (lambda x, y: x.minimum(0.3 * y), lambda x, y: torch.minimum(x, 0.3 * y)),
    "maximum of a number": (lambda x, y: (x * y).maximum(0.1), lambda x, y: (x * y).clamp(min=0.1)),
    "hypot": (lambda x, y: x.hypot(y), torch.hypot),
    "pow": (lambda x, y: x.exp().pow(y), lambda x, y: x.exp().pow(y)),
    "clamp": (lambda x, y: (x * y).clamp(-0.2, 0.3), lambda x, y: (x * y).clamp(-0.2, 0.3)),
    "clamp from below": (lambda x, y: (x * y).clamp(min=0.1), lambda x, y: (x * y).clamp(min=0.1)),
    "clamp from above": (lambda x, y: x.clamp(max=0.5 * y), lambda x, y: torch.minimum(x, 0.5 * y)),
    "clip": (lambda x, y: (x * y).clip(None, 1), lambda x, y: (x * y).clip(None, 1)),
    "or": (
        lambda x, y: (x > 0).logical_or(y > 0) * x,
        lambda x, y: ((x > 0) | (y > 0)) * x,
    ),
    "and, not": (
        lambda x, y: ((x > 0).logical_and(y > 0)).logical_not() * y,
        lambda x, y: ~((x > 0) & (y > 0)) * y,
    ),
}


def numbers(batch: tuple[int, ...], m: int, n: int) -> list[Any]:
    rng = np.random.default_rng(3)
    return [rng.normal(size=(*batch, m, 1, 2)), rng.normal(size=(*batch[-1:], 1, n, 2))]


# Batch axes, rows, columns, dtype: each is tried with a quarter of the programs.
SHAPES = [((), 5, 4, "float32"), ((2,), 3, 4, "float64"), ((3, 2), 1, 3, "float32")]
SHAPES += [((), 4, 0, "float64")]


@per_library
@pytest.mark.parametrize("place", range(len(SHAPES)))
def test_methods_and_their_gradients_in_every_library(place: int, library: str) -> None:
    batch, m, n, dtype = SHAPES[place % 2 if library == "jax" else place]
    names = list(PROGRAMS)[place :: len(SHAPES)]
    arrays = numbers(batch, m, n)

    def lazily(x: Any, y: Any) -> Any:
        """All of them in one formula, whose components they are."""
        parts = [PROGRAMS[name][0](LazyTensor(x), LazyTensor(y)) for name in names]
        whole = parts[0]
        for part in parts[1:]:
            whole = whole.concat(part)
        return whole.sum(axis=len(batch) + 1)

    def densely(x: Any, y: Any) -> Any:
        return torch.cat([PROGRAMS[name][1](x, y).sum(-2) for name in names], -1)

    with settings(backend="auto" if library == "jax" else "reference"):
        got, slopes = evaluated(library, lazily, arrays, dtype)
    want, wanted = evaluated("torch", densely, arrays, "float64")
    rtol = 2e-5 if dtype == "float32" else 1e-11
    assert got.dtype == np.dtype(dtype)
    for k, name in enumerate(names):
        assert_close(
            got[..., 2 * k : 2 * k + 2], want[..., 2 * k : 2 * k + 2], rtol=rtol, formula=name
        )
    for slope, each in zip(slopes or (), wanted or ()):
        assert_close(slope, each, rtol=rtol, formula=f"gradients of {names}")


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_functions_of_libraries_are_methods(backend: str) -> None:
    x = np.random.default_rng(0).uniform(0.1, 0.9, (4, 1, 2))
    lib: Any = np if backend == "numpy" else torch
    make = np.asarray if backend == "numpy" else torch.as_tensor
    k = LazyTensor(make(x)) * LazyTensor(make(np.ones((1, 3, 1))))
    names = ["expm1", "log1p", "tan", "sinh", "cosh", "arcsinh", "arctanh"]
    if backend == "torch":
        names += ["sigmoid", "erf", "erfc", "lgamma", "digamma", "asinh", "atanh"]
    for name in names:
        want = getattr(lib, name)(make(x)).sum(-1) * 3
        assert_close(
            np.asarray(getattr(lib, name)(k).sum(-1).sum(axis=1))[:, 0], np.asarray(want)[:, 0]
        )
    want = np.asarray(lib.hypot(make(x), make(2 * x))).sum((1, 2)) * 3
    assert_close(np.asarray(lib.hypot(k, 2 * k).sum(-1).sum(axis=1))[:, 0], want)


def test_limits_that_are_missing_or_given_twice_are_refused() -> None:
    k = LazyTensor(np.ones((2, 1, 1)))
    with pytest.raises(OptionError, match="needs a limit"):
        k.clamp()
    with pytest.raises(OptionError, match="min is given twice"):
        k.clamp(0, min=1)
    with pytest.raises(ArrayTypeError, match="truth values"):
        _ = (k > 0) & k
    assert (k.logical_or(0) | (k > 3)).sum(axis=0) == 2
