"""Reductions of dense arrays in float64, for formulas of any dimension: oracles of attacks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

EPS = {"float16": 2.0**-10, "bfloat16": 2.0**-7, "float32": 2.0**-23, "float64": 2.0**-52}
PLACES = 3  # K of lists


@dataclass(frozen=True)
class Formula:
    """A formula of x = Vi(dim), y = Vj(dim), b = Vj(1), p = Pm(dim), with its dense values."""

    text: str
    values: Callable[..., Any]
    scalar: bool


def _squares(x: Any, y: Any) -> Any:
    return ((x[..., :, None, :] - y[..., None, :, :]) ** 2).sum(-1, keepdims=True)


FORMULAS = [
    Formula("SqDist(x,y)", lambda x, y, b, p: _squares(x, y), True),
    Formula("(x|y)+b", lambda x, y, b, p: _dots(x, y) + b[..., None, :, :], True),
    Formula(
        "Exp(-SqDist(x,y))*b",
        lambda x, y, b, p: np.exp(-_squares(x, y)) * b[..., None, :, :],
        True,
    ),
    Formula(
        "Sum(p*Square(x-y))",
        lambda x, y, b, p: (p[..., None, None, :] * _differences(x, y) ** 2).sum(-1, keepdims=True),
        True,
    ),
    Formula("x-y", lambda x, y, b, p: _differences(x, y), False),
    Formula(
        "x*y+p*b",
        lambda x, y, b, p: (
            x[..., :, None, :] * y[..., None, :, :] + p[..., None, None, :] * b[..., None, :, :]
        ),
        False,
    ),
    Formula("y", lambda x, y, b, p: 0 * x[..., :, None, :] + y[..., None, :, :], False),
    Formula("x", lambda x, y, b, p: x[..., :, None, :] + 0 * y[..., None, :, :], False),
]


def _differences(x: Any, y: Any) -> Any:
    return x[..., :, None, :] - y[..., None, :, :]


def _dots(x: Any, y: Any) -> Any:
    return (x[..., :, None, :] * y[..., None, :, :]).sum(-1, keepdims=True)


def aliases(dim: int) -> list[str]:
    """The declarations of the variables of every formula."""
    return [f"x = Vi({dim})", f"y = Vj({dim})", "b = Vj(1)", f"p = Pm({dim})"]


NAMES = [
    *("Sum", "Mean", "Prod", "Min", "Max", "ArgMin", "ArgMax", "Min_ArgMin", "Max_ArgMax"),
    *("KMin", "ArgKMin", "KMin_ArgKMin", "LogSumExp", "LogSumExpWeight", "SumSoftMaxWeight"),
    *("Max_SumShiftExp", "Max_SumShiftExpWeight", "Any", "All", "Count"),
]
WEIGHT = "y*b"


def options(name: str) -> dict[str, Any]:
    """What Genred needs besides."""
    found: dict[str, Any] = {"opt_arg": PLACES} if "KMin" in name else {}
    return {**found, "formula2": WEIGHT} if "Weight" in name else found


def takes(name: str, formula: Formula) -> bool:
    """Whether a reduction folds such formulas."""
    return formula.scalar or not ("Weight" in name or "ShiftExp" in name)


def complaint(
    name: str, formula: Formula, axis: int, given: Mapping[str, Any], got: Any, dtype: str
) -> str | None:
    """What is wrong with a result, or None; `given` are the arrays in float64."""
    values = formula.values(**given)
    values = np.moveaxis(values, -2 if axis == 1 else -3, -2)  # (..., kept, reduced, component)
    weight = None
    if "Weight" in name:
        weight = given["y"] * given["b"]
        weight = weight[..., None, :, :] if axis == 1 else weight[..., :, None, :]
    eps = EPS[dtype]
    scale = np.abs(values).max(initial=1e-30)
    count, dim = values.shape[-2:]
    # Each component is a sum of products of up to 130 rounded numbers, each row one of columns.
    near = {"scale": scale, "bound": 400 * eps * max(1.0, scale), "count": count}
    results = got if isinstance(got, tuple) else (got,)
    results = [np.asarray(result) for result in results]
    if "KMin" in name:
        results = [r[..., None] if dim == 1 else r for r in results]
    check = _KINDS[name]
    with np.errstate(all="ignore"):
        return check(name, values, weight, results, near)


def _worst(got: Any, want: Any, bound: Any, kind: str) -> str | None:
    if got.shape != want.shape:
        return f"{kind} of shape {got.shape}, expected {want.shape}"
    same = (got == want) | (np.isnan(got) & np.isnan(want)) | (np.abs(got - want) <= bound)
    if same.all():
        return None
    where = tuple(int(k[0]) for k in np.nonzero(~same))
    return f"{kind} {got[where]} at {where}, expected {want[where]}"


def _sums(name: str, values: Any, weight: Any, results: Any, near: Any) -> str | None:
    folded: Any = {"Sum": np.sum, "Mean": np.mean, "Prod": np.prod}[name]
    want, bound = folded(values, axis=-2), near["bound"] * (near["count"] if name == "Sum" else 1)
    if name == "Mean" and not near["count"]:
        want = np.full(want.shape, np.nan)
    if name == "Prod":
        logs = np.log(np.maximum(np.abs(values), 1e-300)).sum(-2)
        errors = near["bound"] / np.maximum(np.abs(values).min(-2, initial=np.inf), 1e-300)
        bound = np.minimum(errors * near["count"], 1e6) * np.exp(np.minimum(logs, 500)) + 1e-30
        small = 2.0**-14 if near["bound"] > 1e-2 else 1e-36
        big = results[0].dtype.type(np.inf) if results[0].dtype == np.float16 else np.inf
        bound = np.where(np.abs(want) > min(float(big), 6e4), np.inf, bound + small)
    return _worst(results[0].astype(float), want, bound, "value")


def _extreme(name: str, values: Any, weight: Any, results: Any, near: Any) -> str | None:
    sign = -1 if "Max" in name else 1
    length = results[0].shape[-2] if "KMin" in name else 1
    results = list(results) if "KMin" in name else [r[..., None, :] for r in results]
    ordered = np.sort(sign * values, axis=-2)[..., :length, :]
    kept = ordered.shape[-2]
    numbers = [r[..., :kept, :] for r in results]
    if not name.startswith("Arg") and "_" not in name:
        return _worst(numbers[0].astype(float), sign * ordered, near["bound"], "value")
    indices = numbers[-1]
    if indices.size and (indices.min() < 0 or indices.max() >= values.shape[-2]):
        return f"index {indices.min()} or {indices.max()} of {values.shape[-2]}"
    at = np.take_along_axis(sign * values, indices.astype(int), -2)
    wrong = _worst(at, ordered, near["bound"], "value at an index")
    if wrong or name.startswith("Arg"):
        return wrong
    return _worst(numbers[0].astype(float), sign * ordered, near["bound"], "value")


def _exponentials(name: str, values: Any, weight: Any, results: Any, near: Any) -> str | None:
    top = values.max(-2, keepdims=True, initial=-np.inf)
    maximum = np.where(np.isfinite(top), top, 0)
    terms = np.exp(values - maximum)
    largest = np.abs(weight).max(initial=1e-30) if weight is not None else 1.0
    bound = near["bound"] * max(1.0, largest)
    if name == "SumSoftMaxWeight":
        want = (terms * weight).sum(-2) / terms.sum(-2)
        return _worst(results[0].astype(float), want, 2 * bound, "value")
    sums = (terms if weight is None else terms * weight).sum(-2)
    if name.startswith("LogSumExp"):
        # Weights may cancel: the error of the sum, carried through the logarithm.
        spread = terms.sum(-2) * largest / np.maximum(np.abs(sums), 1e-300)
        want = np.log(sums) + maximum[..., 0, :]
        clear = (spread < 0.1 / near["bound"]) & (np.abs(sums) > 0)
        wide = np.where(clear, bound * (1 + 2 * spread), np.inf)
        got = np.where(clear, results[0].astype(float), want)
        return _worst(got, want, wide, "value")
    m, s = np.split(results[0].astype(float), [1], axis=-1)
    wrong = _worst(m, np.broadcast_to(top[..., 0, :], m.shape), near["bound"], "maximum")
    return wrong or _worst(s, sums, bound * near["count"] * 2, "sum")


def _truths(name: str, values: Any, weight: Any, results: Any, near: Any) -> str | None:
    folded: Any = {"Any": np.any, "All": np.all, "Count": np.count_nonzero}[name]
    want = folded(values != 0, axis=-2)
    return _worst(results[0].astype(float), want.astype(float), 0, "value")


_KINDS: dict[str, Any] = {
    **dict.fromkeys(("Sum", "Mean", "Prod"), _sums),
    **dict.fromkeys(("Min", "Max", "ArgMin", "ArgMax", "Min_ArgMin", "Max_ArgMax"), _extreme),
    **dict.fromkeys(("KMin", "ArgKMin", "KMin_ArgKMin"), _extreme),
    **dict.fromkeys(("LogSumExp", "LogSumExpWeight", "SumSoftMaxWeight"), _exponentials),
    **dict.fromkeys(("Max_SumShiftExp", "Max_SumShiftExpWeight"), _exponentials),
    **dict.fromkeys(("Any", "All", "Count"), _truths),
}
