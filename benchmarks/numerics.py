"""Errors of elementary functions and of sums, measured.

    python -m benchmarks.numerics --write benchmarks/numerics.md

Functions are applied to numbers over their range, by sums of one term each; their errors are in
units in the last place of the exact result, which float64 (of float32) or mpmath (of float64)
gives. Sums are of N numbers, beside the exact sum of the same numbers (math.fsum).
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import mpmath
import numpy as np
from numpy.typing import NDArray
from scipy import special

from benchmarks.environment import machine
from pairfold import Genred, settings

Floats = NDArray[np.floating[Any]]


class Measured(NamedTuple):
    """A function: its operation, where it is measured, what it is in float64 and in mpmath."""

    name: str
    low: float
    high: float
    wide: Callable[[Any], Any]
    exact: Callable[[Any], Any]


FUNCTIONS = [
    Measured("Exp", -85, 88, np.exp, mpmath.exp),
    Measured("Expm1", -5, 5, np.expm1, mpmath.expm1),
    Measured("Log", 1e-30, 1e30, np.log, mpmath.log),
    Measured("Log1p", -0.9, 1e3, np.log1p, mpmath.log1p),
    Measured("Sqrt", 1e-30, 1e30, np.sqrt, mpmath.sqrt),
    Measured("Rsqrt", 1e-30, 1e30, lambda x: 1 / np.sqrt(x), lambda x: 1 / mpmath.sqrt(x)),
    Measured("Sin", -1e4, 1e4, np.sin, mpmath.sin),
    Measured("Cos", -1e4, 1e4, np.cos, mpmath.cos),
    Measured("Tan", -100, 100, np.tan, mpmath.tan),
    Measured("Asin", -1, 1, np.arcsin, mpmath.asin),
    Measured("Acos", -1, 1, np.arccos, mpmath.acos),
    Measured("Atan", -1e4, 1e4, np.arctan, mpmath.atan),
    Measured("Sinh", -80, 80, np.sinh, mpmath.sinh),
    Measured("Tanh", -10, 10, np.tanh, mpmath.tanh),
    Measured("Sigmoid", -80, 80, special.expit, lambda x: 1 / (1 + mpmath.exp(-x))),
    Measured("Softplus", -80, 80, lambda x: np.logaddexp(0, x),
             lambda x: mpmath.log1p(mpmath.exp(x))),
    Measured("Erf", -4, 4, special.erf, mpmath.erf),
    Measured("Erfc", -4, 9, special.erfc, mpmath.erfc),
    Measured("Lgamma", 0.1, 1e4, special.gammaln, mpmath.loggamma),
]  # fmt: skip
MANY, FEW = 400_000, 2_000
SUMS = (10**3, 10**4, 10**5, 10**6, 10**7)

HEAD = """# Errors of functions and of sums

Written by `python -m benchmarks.numerics --write benchmarks/numerics.md`
on {machine}; NumPy {numpy}.

## Elementary functions

The largest and the mean error in units in the last place (ulp) of the exact result, over numbers
between the two ends (half of them spread by magnitude): {many} of float32, {few} of float64. Half a
ulp is what correct rounding leaves. `make check-math` tries all numbers of float32.

| operation | from | to | float32: largest | mean | float64: largest | mean |
|---|---|---|---|---|---|---|
"""
SUMMED = """
## Sums

The relative error of a sum of N numbers, uniform in [0, 1) and the same for all columns of a table;
"one by one" adds each number to the sum so far, as a plain loop does. Numbers of float16 are
computed with in float32; what is left is the rounding of the result, at most 4.9e-4. 0: the nearest
number.

| | N = {sizes} |
|---|{bars}|
"""


def points(of: Measured, count: int, dtype: str) -> Floats:
    """Numbers between the two ends: half of them uniform, half by magnitude."""
    rng = np.random.default_rng(0)
    even = rng.uniform(of.low, of.high, count // 2)
    most = max(abs(of.low), abs(of.high))
    sizes = np.exp(rng.uniform(math.log(max(of.low, most * 1e-12)), math.log(most), count // 2))
    signs = rng.choice([-1.0, 1.0] if of.low < 0 else [1.0], count // 2)
    found = np.concatenate([even, sizes * signs]).astype(dtype)
    return found[(found >= of.low) & (found <= of.high)]


def errors(of: Measured, dtype: str) -> tuple[float, float]:
    """The largest and the mean error in ulp."""
    x = points(of, MANY if dtype == "float32" else FEW, dtype)
    fold = Genred(f"{of.name}(x) * y", ["x = Vi(1)", "y = Vj(1)"], axis=1)
    with settings(separable="never"):
        found = np.asarray(fold(x[:, None], np.ones((1, 1), dtype)))[:, 0]
    if dtype == "float32":
        exact = np.asarray(of.wide(x.astype(np.float64)))
        error = np.abs(found - exact)
    else:
        with mpmath.workdps(40):
            values = [of.exact(mpmath.mpf(float(each))) for each in x]
            error = np.array([float(abs(mpmath.mpf(float(f)) - v)) for f, v in zip(found, values)])
            exact = np.array([float(v) for v in values])
    unit = np.spacing(np.abs(exact).astype(dtype)).astype(np.float64)
    return float((error / unit).max()), float((error / unit).mean())


def summed(dtype: str, reduction: str = "Sum", **options: Any) -> Callable[[Floats], float]:
    """A sum by pairfold."""
    fold = Genred("b", ["x = Vi(1)", "b = Vj(1)"], reduction, axis=1, **options)

    def total(numbers: Floats) -> float:
        with settings(separable="never"):
            return float(fold(np.zeros((1, 1), dtype), numbers[:, None])[0, 0])

    return total


def sums() -> list[tuple[str, str, Callable[[Floats], float]]]:
    """What adds up: its name, the dtype of the numbers, and the sum."""
    found: list[tuple[str, str, Callable[[Floats], float]]] = []
    for dtype in ("float32", "float64"):
        found += [
            (f"pairfold, {dtype}", dtype, summed(dtype)),
            ('the same, `sum_scheme="direct_sum"`', dtype, summed(dtype, sum_scheme="direct_sum")),
            (f"NumPy, {dtype}", dtype, lambda numbers: float(numbers.sum())),
            (f"one by one, {dtype}", dtype, lambda numbers: float(np.cumsum(numbers)[-1])),
        ]
    found.append(("pairfold, the mean of float16", "float16", summed("float16", "Mean")))
    return found


def report() -> str:
    """The page."""
    lines = [HEAD.format(machine=machine()["CPU"], numpy=np.__version__, many=MANY, few=FEW).rstrip("\n")]
    for of in FUNCTIONS:
        single, double = errors(of, "float32"), errors(of, "float64")
        figures = " | ".join(f"{value:.2f}" for value in (*single, *double))
        lines.append(f"| `{of.name}` | {of.low:g} | {of.high:g} | {figures} |")
        print(lines[-1], flush=True)
    sizes = " | ".join(f"{n:.0e}".replace("e+0", "e") for n in SUMS)
    lines.append(SUMMED.format(sizes=sizes, bars="|".join(["---"] * len(SUMS))).rstrip("\n"))
    rng = np.random.default_rng(1)
    for name, dtype, total in sums():
        shares: list[str] = []
        for n in SUMS:
            numbers = rng.random(n).astype(dtype)
            exact = math.fsum(numbers.astype(np.float64).tolist())
            if dtype == "float16":
                exact /= n
            shares.append(f"{abs(total(numbers) - exact) / exact:.1e}")
        lines.append(f"| {name} | {' | '.join(shares)} |")
        print(lines[-1], flush=True)
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, and write the page where `--write` says."""
    parser = argparse.ArgumentParser(description="Errors of elementary functions and of sums.")
    parser.add_argument("--write", type=Path, help="the file for the page")
    chosen = parser.parse_args()
    page = report()
    if chosen.write:
        chosen.write.write_text(page)


if __name__ == "__main__":
    main()
