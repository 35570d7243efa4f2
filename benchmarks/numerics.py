"""Errors of elementary functions, of sums against their length, and of squared distances.

    python benchmarks/numerics.py --write docs/understand/numerics.md

Writes the tables between two marks of the page. Functions are measured by the programs of
`tests/sweep_math.py`, float32 at every `--stride`th of all 2^32 numbers, float64 at random numbers
against mpmath. Sums have exact terms, so that what is measured is the addition: the exact sum is
`math.fsum`. They are added up as they are for many rows. Nothing is timed.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pairfold import Genred
from pairfold.settings import settings

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
import sweep_math

BEGIN, END = "<!-- measured:begin -->", "<!-- measured:end -->"
ROUNDOFF = {"float16": 2.0**-11, "bfloat16": 2.0**-8, "float32": 2.0**-24, "float64": 2.0**-53}
Array = NDArray[Any]


# -- elementary functions --------------------------------------------------------------------------


def positive_or_any(name: str, x: Array) -> Array:
    """Numbers where a function is real."""
    if name in ("log", "rsqrt"):
        return np.abs(x)
    if name == "log1p":
        return np.where(x < -1, -x, x)
    return np.clip(x, -1, 1) if name in ("asin", "acos") else x


def pairs_of_numbers(name: str, count: int) -> tuple[Array, Array]:
    """Arguments of `pow`, whose powers are neither infinite nor 0, and of `atan2`."""
    rng = np.random.default_rng(0)
    if name == "pow":
        x = 2.0 ** rng.uniform(-120, 120, count)
        return x, rng.uniform(-120, 120, count) / np.log2(x)
    sizes = 2.0 ** rng.uniform(-60, 60, (2, count))
    x, y = sizes * rng.choice([-1.0, 1.0], (2, count))
    return x, y


def float32_error(name: str, stride: int) -> float:
    """The worst error of a function in float32, in units in the last place."""
    if name not in sweep_math.TWO_ARGUMENTS:
        return max(error for error, _ in sweep_math.sweep(name, "native", stride))
    given = [a.astype(np.float32) for a in pairs_of_numbers(name, 2**32 // stride // 16)]
    run = sweep_math.kernel(name, "float32", "native")
    return float(sweep_math.ulp_error(run(*given), sweep_math.wide_reference(name, *given)).max())


def float64_error(name: str, count: int) -> float:
    """The same in float64, at random numbers of every size."""
    rng = np.random.default_rng(1)
    spread = rng.standard_normal(count) * 10.0 ** rng.uniform(-8, 2.5, count)
    given: tuple[Array, ...] = (positive_or_any(name, spread),)
    if name in sweep_math.TWO_ARGUMENTS:
        given = pairs_of_numbers(name, count)
    run = sweep_math.kernel(name, "float64", "native")
    return float(sweep_math.ulp_error(run(*given), sweep_math.exact_reference(name, *given)).max())


def functions(stride: int, count: int) -> str:
    """The table of functions."""
    lines = ["| function | float32 | float64 | stated bound |", "|---|---|---|---|"]
    for name in sweep_math.FUNCTIONS:
        errors = float32_error(name, stride), float64_error(name, count)
        bound = sweep_math.BOUND_ULP[name]
        cells = [f"{error:.2f}" if error <= bound else f"**{error:.2f}**" for error in errors]
        lines.append(f"| `{name}` | {' | '.join(cells)} | {bound:g} |")
    return "\n".join(lines)


# -- sums ------------------------------------------------------------------------------------------


def numbers(kind: str, count: int, dtype: str) -> Array:
    """Terms, as float64 numbers that the dtype holds exactly."""
    rng = np.random.default_rng(count)
    drawn = rng.random(count) if kind == "positive" else rng.standard_normal(count)
    return torch.from_numpy(drawn).to(getattr(torch, dtype)).double().numpy()


def one_after_the_other(terms: Array, dtype: str) -> float:
    """Added up in the dtype, one after the other."""
    if dtype == "bfloat16":
        total = torch.zeros((), dtype=torch.bfloat16)
        for term in torch.from_numpy(terms).bfloat16():
            total = total + term
        return float(total)
    return float(np.add.accumulate(terms.astype(dtype))[-1])


def ours(terms: Array, dtype: str, reduction: str = "Sum", **options: Any) -> float:
    """Reduced by pairfold, over pairs: one row of ones."""
    one = torch.ones((1, 1), dtype=getattr(torch, dtype))
    given = torch.from_numpy(terms).to(one.dtype)[:, None]
    with settings(separable="never", lanes="row"):
        reduced = Genred("x*b", ["x = Vi(1)", "b = Vj(1)"], reduction, axis=1, **options)
        return float(reduced(one, given)[0, 0])


def units(found: float, terms: Array, dtype: str, parts: int = 1) -> str:
    """An error, relative to the sum of absolute terms, in units of the dtype's rounding."""
    error = abs(math.fsum([found, *(-terms / parts)])) * parts / math.fsum(np.abs(terms))
    units = error / ROUNDOFF[dtype]
    return f"{units:.2g}" if units < 10 else f"{units:.0f}"


def sums(kind: str, dtype: str, sizes: Sequence[int]) -> str:
    """The table of sums of one kind of terms."""
    ways: dict[str, Callable[[Array, str], float]] = {
        "pairfold": ours,
        '`"kahan_scheme"`': lambda terms, dtype: ours(terms, dtype, sum_scheme="kahan_scheme"),
        "`numpy.sum`": lambda terms, dtype: float(terms.astype(dtype).sum()),
        "one after the other": one_after_the_other,
    }
    lines = [f"| N, {dtype} | {' | '.join(ways)} |", "|---" * (1 + len(ways)) + "|"]
    for count in sizes:
        terms = numbers(kind, count, dtype)
        cells = [units(way(terms, dtype), terms, dtype) for way in ways.values()]
        lines.append(f"| {power(count)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def power(count: int) -> str:
    """A power of ten."""
    return f"10^{round(math.log10(count))}"


def half_means(sizes: Sequence[int]) -> str:
    """The table of means of stored float16 and bfloat16."""
    heads = "float16: pairfold | one after the other | bfloat16: pairfold | one after the other"
    lines = [f"| N | {heads} |", "|---|---|---|---|---|"]
    for count in sizes:
        cells = [power(count)]
        for dtype in ("float16", "bfloat16"):
            terms = numbers("positive", count, dtype)
            cells.append(units(ours(terms, dtype, "Mean"), terms, dtype, count))
            cells.append(units(one_after_the_other(terms, dtype) / count, terms, dtype, count))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


# -- distances -------------------------------------------------------------------------------------


def distances(shifts: Sequence[float]) -> str:
    """The table of Gaussian sums of points that are far from the origin."""
    lines = ["| shift | from differences (pairfold) | from one matrix product |", "|---|---|---|"]
    rng = np.random.default_rng(0)
    x, y, b = rng.random((300, 3)), rng.random((1000, 3)), rng.random((1000, 1))
    aliases = ["x = Vi(3)", "y = Vj(3)", "b = Vj(1)"]
    gaussian = Genred("Exp(-SqDist(x,y))*b", aliases, axis=1)
    for shift in shifts:
        given = [(each + shift).astype(np.float32) for each in (x, y)]
        weights = b.astype(np.float32)
        p, q, w = (each.astype(np.float64) for each in (*given, weights))
        exact = np.exp(-((p[:, None] - q) ** 2).sum(-1)) @ w
        found = gaussian(*given, weights)
        p, q = given
        squares = (p * p).sum(1)[:, None] - 2 * p @ q.T + (q * q).sum(1)
        expanded = np.exp(-squares) @ weights
        errors = [np.abs(each - exact).max() / exact.max() for each in (found, expanded)]
        lines.append(f"| {shift:g} | {errors[0]:.1e} | {errors[1]:.1e} |")
    return "\n".join(lines)


def measured(stride: int, count: int, longest: int) -> str:
    """Everything between the marks."""
    sizes = [10**k for k in range(2, 8) if 10**k <= longest]
    return f"""\
Errors in units in the last place, the largest of every {stride}th of all float32 numbers (of
`pow` and `atan2`, of {2**32 // stride // 16} random pairs), and of {count} random float64
numbers; bold: above the stated bound:

{functions(stride, count)}

Errors of sums of N positive terms, uniform in [0, 1), relative to the sum, in units of half a
last place (2^-24 in float32, 2^-53 in float64):

{sums("positive", "float32", sizes)}

{sums("positive", "float64", sizes)}

The same of normal terms of both signs, relative to the sum of their absolute values:

{sums("of both signs", "float32", sizes)}

{sums("of both signs", "float64", sizes)}

Means of N terms stored in half precision, in the same units (2^-11, 2^-8); the result is rounded to
half precision, which is up to one unit:

{half_means([size for size in sizes if size <= 100_000])}

Gaussian sums of points in the unit cube, moved away from the origin, in float32; the largest error,
relative to the largest sum:

{distances([0, 1, 10, 100, 1000])}
"""


def main() -> None:
    """Measure, print, and write where that was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stride", type=int, default=257, help="of float32 numbers")
    parser.add_argument("--count", type=int, default=5000, help="of float64 numbers")
    parser.add_argument("--longest", type=int, default=10_000_000, help="sum")
    parser.add_argument("--write", type=Path, help="page with the two marks")
    given = parser.parse_args()
    text = measured(given.stride, given.count, given.longest)
    print(text)
    if given.write:
        page = given.write.read_text()
        before, rest = page.split(BEGIN)
        given.write.write_text(f"{before}{BEGIN}\n\n{text}\n{END}{rest.split(END)[1]}")


if __name__ == "__main__":
    main()
