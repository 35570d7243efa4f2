"""Exponents that are bounded on moderate data, inverses taken beforehand, and data that is not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import sweep_math
from checks import assert_close
from numpy.typing import NDArray

from pairfold import settings
from pairfold.backends.functions import exponentials
from pairfold.backends.functions.approximations import FUNCTIONS
from pairfold.backends.llvm.launch import Call, Launcher
from pairfold.lower.bounds import BOUNDED, MODERATE
from pairfold.lower.kernel import ROW
from pairfold.numpy import Genred

Array = NDArray[Any]

ALIASES = ["x=Vi(3)", "y=Vj(3)", "b=Vj(1)", "s=Vi(1)", "p=Pm(1)"]
INF, NAN = np.inf, np.nan

per_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])


def draw(dtype: str, rows: int = 17, columns: int = 23) -> dict[str, Array]:
    """Points, weights, a positive width per row and a parameter."""
    rng = np.random.default_rng(3)
    found = {
        "x": rng.normal(size=(rows, 3)),
        "y": rng.normal(size=(columns, 3)),
        "b": rng.normal(size=(columns, 1)),
        "s": rng.uniform(0.5, 2, size=(rows, 1)),
        "p": np.array([0.7]),
    }
    return {name: a.astype(dtype) for name, a in found.items()}


def exponents(v: dict[str, Array], kind: str) -> Array:
    """The exponents in float64, (rows, columns)."""
    w = {name: a.astype(np.float64) for name, a in v.items()}
    with np.errstate(all="ignore"):
        d2 = np.square(w["x"][:, None] - w["y"]).sum(-1)
        return {
            "-SqDist(x,y)": -d2,
            "-p*SqDist(x,y)": -w["p"] * d2,
            "SqDist(x,y)*p": w["p"] * d2,
            "-SqDist(x,y)/s": -d2 / w["s"],
            "-SqDist(x,y)/(p*s)": -d2 / (w["p"] * w["s"]),
            "-Norm2(x-y)/IntCst(2)": -np.sqrt(d2) / 2,
            "(x|y)": w["x"] @ w["y"].T,
        }[kind]


KINDS = [
    "-SqDist(x,y)",
    "-p*SqDist(x,y)",
    "SqDist(x,y)*p",
    "-SqDist(x,y)/s",
    "-SqDist(x,y)/(p*s)",
    "-Norm2(x-y)/IntCst(2)",
    "(x|y)",
]


def compare(v: dict[str, Array], kind: str, reduction: str = "Sum", axis: int = 1) -> None:
    """The sum, or the logarithm of the sum, against float64."""
    exponent = exponents(v, kind)
    args = [v[alias.split("=")[0]] for alias in ALIASES]
    with np.errstate(all="ignore"):
        if reduction == "Sum":
            table = np.exp(exponent)
            # A weight of zero times an infinite term is what the sum is, too.
            terms = table * v["b"].astype(np.float64).T
            want, scale = terms.sum(axis), float(np.abs(terms).sum(axis).max())
            got = Genred(f"Exp({kind})*b", ALIASES, axis=axis)(*args)
        else:
            top = exponent.max(axis, keepdims=True)
            top = np.where(np.isfinite(top), top, 0)
            want = np.log(np.exp(exponent - top).sum(axis)) + top.squeeze(axis)
            scale = None
            got = Genred(kind, ALIASES, reduction_op="LogSumExp", axis=axis)(*args)
    finite = scale if scale is not None and np.isfinite(scale) else None
    rounding = 1 + np.abs(np.where(np.isfinite(exponent), exponent, 0)).max()
    rtol = 16 * float(np.finfo(got.dtype).eps) * float(min(rounding, 1e4))
    assert_close(got.ravel(), want.ravel(), rtol=rtol, scale=finite, formula=(kind, reduction))


@per_dtype
@pytest.mark.parametrize("lanes", ["row", "column"])
@pytest.mark.parametrize("kind", KINDS)
def test_exponents_of_every_kind_on_moderate_data(kind: str, lanes: str, dtype: str) -> None:
    with settings(lanes=lanes):
        compare(draw(dtype), kind)
        compare(draw(dtype), kind, "LogSumExp")
        compare(draw(dtype, 100, 37), kind, axis=1)


@pytest.mark.parametrize("kind", ["-SqDist(x,y)", "-p*SqDist(x,y)", "-SqDist(x,y)/s"])
@pytest.mark.parametrize("value", [INF, -INF, NAN, 1e9, -1e18, 1e30, 3e38])
@pytest.mark.parametrize("name", ["x", "y", "p", "s"])
def test_data_that_is_not_moderate(name: str, value: float, kind: str) -> None:
    v = draw("float32")
    v[name][-1] = value
    if name == "s" and value < 0:
        v[name][-1] = -value
    if name == "p" and value < 0:
        kind = kind.removeprefix("-")
        if kind not in KINDS:
            kind = "SqDist(x,y)*p"
    compare(v, kind)


@pytest.mark.parametrize("value", [0.0, -0.0, 1e-40, 1e-30, 1e30, INF])
def test_divisors_whose_inverse_is_not_moderate(value: float) -> None:
    v = draw("float32")
    v["s"][5] = value
    v["x"][5] = v["y"][5] + np.float32(1e-3)
    args = [v[alias.split("=")[0]] for alias in ALIASES]
    got = Genred("Sqrt(SqDist(x,y)/s)*b", ALIASES, axis=1)(*args)
    with np.errstate(all="ignore"):
        table = np.square(v["x"][:, None] - v["y"]).sum(-1)
        want = np.sqrt(table / v["s"]) * v["b"].T
    finite = np.isfinite(want).all(1)
    total = want.astype(np.float64)[finite].sum(1)
    assert_close(got.ravel()[finite], total, terms=23, scale=float(np.abs(want[finite]).max()))
    assert finite.sum() >= 16
    with np.errstate(all="ignore"):
        assert np.array_equal(got.ravel()[~finite], want[~finite].sum(1), equal_nan=True)


def launched(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts the folds without assumptions."""
    found: list[int] = []
    plain = Launcher.unrearranged

    def counted(self: Launcher, call: Call) -> Call:
        found.append(1)
        return plain(self, call)

    monkeypatch.setattr(Launcher, "unrearranged", counted)
    return found


def test_only_data_that_is_not_moderate_is_folded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = launched(monkeypatch)
    fold = Genred("Exp(-SqDist(x,y))*b", ALIASES, axis=1)
    for value, times in ((MODERATE, 0), (2 * MODERATE, 1), (NAN, 0), (-INF, 1)):
        v = draw("float32")
        v["x"][3, 1] = value
        counted.clear()
        fold(*[v[alias.split("=")[0]] for alias in ALIASES])
        assert len(counted) == times, value


def test_weights_may_be_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = launched(monkeypatch)
    v = draw("float64")
    v["b"] *= 1e200
    compare(v, "-SqDist(x,y)")
    assert not counted


def bounded_exp(monkeypatch: pytest.MonkeyPatch, dtype: str, x: Array) -> Array:
    """`exp_of_bounded` on an array."""
    monkeypatch.setitem(FUNCTIONS, "exp_of_bounded", exponentials.exp_of_bounded)
    return sweep_math.Kernel("exp_of_bounded", dtype, "native")(x)


@per_dtype
def test_the_exponential_of_bounded_numbers(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    low, high = (-104, 89) if dtype == "float32" else (-746, 710)
    rng = np.random.default_rng(5)
    near = rng.uniform(-1, 1, 3000) * 2.0 ** rng.integers(-30, 1, 3000)
    x = np.concatenate([rng.uniform(low, high, 3000), near]).astype(dtype)
    reference = sweep_math.wide_reference if dtype == "float32" else sweep_math.exact_reference
    error = sweep_math.ulp_error(bounded_exp(monkeypatch, dtype, x), reference("exp", x))
    # 2 units in the last place, and what a log2(e) of one part adds: see `exp_of_rounded`.
    allowed = 2 + np.abs(x) * 0.25
    worst = int(np.argmax(error / allowed))
    assert error[worst] <= allowed[worst], (x[worst], error[worst])


@per_dtype
def test_far_out_it_is_zero_or_infinite(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(6)
    magnitude = np.concatenate([2.0 ** rng.uniform(10, 86, 20000), [BOUNDED]]).astype(dtype)
    assert np.array_equal(bounded_exp(monkeypatch, dtype, -magnitude), 0 * magnitude)
    assert np.all(bounded_exp(monkeypatch, dtype, magnitude) == INF)


def test_forcing_exact_rules_assumes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = launched(monkeypatch)
    v = draw("float32")
    v["x"][0] = INF
    with settings(rules="exact"):
        compare(v, "-SqDist(x,y)")
    assert not counted


@per_dtype
@pytest.mark.parametrize("dim", [5, 16, 40])
def test_bounds_reach_through_component_loops(dim: int, dtype: str) -> None:
    rng = np.random.default_rng(9)
    x, y = ((rng.normal(size=(n, dim)) / dim**0.5).astype(dtype) for n in (17, 23))
    fold = Genred("Exp(-SqDist(x,y))", [f"x=Vi({dim})", f"y=Vj({dim})"], axis=1)
    kernel = fold.explain(x, y).native.kernel
    assert len(kernel.bounds.exponentials) == 1
    assert sum(end - start for start, end in kernel.bounds.slots[ROW]) == dim
    for value in (0.0, INF, -1e30):
        x[3, dim - 1] = value
        with np.errstate(all="ignore"):
            d2 = np.square(x[:, None].astype(np.float64) - y).sum(-1)
        assert_close(fold(x, y).ravel(), np.exp(-d2).sum(1), terms=23)
