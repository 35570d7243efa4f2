"""The table of benchmark cases: formula, sizes, data, and a float64 oracle for each.

Only NumPy is needed, so that every peer's process can read the same table.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import programs

Array = NDArray[np.floating]
Arrays = dict[str, Array]

SAMPLE = 300  # rows of each result that are compared with the oracle
KEPT = 10  # the K of the lists of the K smallest

SEED = "Seed formula, Square(p-a)*Exp(x+y)"
POINTS = "Sums over points in 3 dimensions"
DIMS = "Larger dimensions"
THIN = "One row, one column"
CALLS = "Calls on small arrays"
REDUCED = "Every reduction, points in 3 dimensions"
PROGRAM = "Programs: lazy tensors, batches, blocks, systems"
BEYOND = "Reductions that PyKeOps does not have, points in 3 dimensions"


@dataclass(frozen=True)
class Case:
    """One piece of work that every peer is asked to do.

    Args:
        name: what `--cases` matches.
        group: the table it appears in.
        kernel: the function of a pair, by name, for peers that do not read formulas.
        formula, aliases, axis: the arguments of `Genred`.
        rows, columns: M and N.
        draw: makes the arrays, by alias name, from a random generator, M and N.
        oracle: float64 arrays in, sampled rows of each result out (`sample_rows`).
        dtype: "float32" or "float64".
        what: "forward"; "gradient": the backward pass alone, through torch's autograd; or
            "both": forward and backward.
        wrt: the variables that a gradient is asked for.
        front: "numpy" or "torch", the front end of both libraries.
        floor: how many times faster than PyKeOps as shipped we must be.
        limit: the seconds we must stay below.
        relative: (case, factor): we must stay below that multiple of our time for that case.
        rules: our setting `rules`; "exact" forbids rearrangements that change rounding.
        passes: how often the innermost loop runs per pair (component loops: the dimension).
        reduction_op, opt_arg, formula2: the reduction, as in `Genred`.
        program: a program of `programs.py`, which `formula` then only describes.
        read: float64 arrays and sampled rows of a peer's results in; out come arrays that compare
            with the oracle's (an index becomes the value of the pair that it points at).
    """

    name: str
    group: str
    kernel: str
    formula: str
    aliases: tuple[str, ...]
    axis: int
    rows: int
    columns: int
    draw: Callable[[np.random.Generator, int, int], Arrays]
    oracle: Callable[[Arrays], list[Array]]
    dtype: str = "float32"
    what: str = "forward"
    wrt: tuple[str, ...] = ()
    front: str = "numpy"
    floor: float | None = None
    limit: float | None = None
    relative: tuple[str, float] | None = None
    passes: int = 1
    rules: str = "rounding"
    reduction_op: str = "Sum"
    opt_arg: int | None = None
    formula2: str | None = None
    program: str = ""
    read: Callable[[Arrays, Sequence[Array]], Sequence[Array]] | None = None

    @property
    def variables(self) -> list[str]:
        """The alias names, in the order of the call."""
        return [alias.split("=")[0].strip() for alias in self.aliases]

    @property
    def dims(self) -> dict[str, int]:
        """The dimension of each variable."""
        found = [re.findall(r"\d+", alias.split("=")[1]) for alias in self.aliases]
        return {name: int(numbers[0]) for name, numbers in zip(self.variables, found)}

    def arrays(self, seed: int, rows: int, columns: int) -> Arrays:
        """The data, in the case's dtype: the variables, and "e" for gradients."""
        drawn = self.draw(np.random.default_rng(seed), rows, columns)
        return {name: np.ascontiguousarray(a, self.dtype) for name, a in drawn.items()}

    def error(self, arrays: Arrays, sampled: Sequence[Array]) -> float:
        """max|out - ref| / max|ref| over the sampled rows; the worst of the results."""
        precise: Arrays = {name: a.astype(np.float64) for name, a in arrays.items()}
        found = sampled if self.read is None else self.read(precise, sampled)
        worst = 0.0
        for got, want in zip(found, self.oracle(precise), strict=True):
            got = np.asarray(got, np.float64).reshape(want.shape)
            gap = np.abs(got - want).max() / np.abs(want).max()
            worst = max(worst, float(gap) if np.isfinite(gap) else float("inf"))
        return worst


def sample_rows(length: int) -> NDArray[np.int64]:
    """The rows of a result of this length that are compared with the oracle."""
    if length <= SAMPLE:
        return np.arange(length)
    return np.sort(np.random.default_rng(0).choice(length, SAMPLE, replace=False))


# Functions of the squared distance, for the oracles.
RADIAL: dict[str, Callable[[Array], Array]] = {
    "gaussian": lambda d2: np.exp(-d2),
    "laplacian": lambda d2: np.exp(-np.sqrt(d2)),
    "cauchy": lambda d2: 1 / (1 + d2),
    "coulomb": lambda d2: np.where(d2 == 0, 0, 1 / np.sqrt(np.where(d2 == 0, 1, d2))),
    "matern": lambda d2: (1 + np.sqrt(d2) + d2 / 3) * np.exp(-np.sqrt(d2)),
}


def _radial_oracle(kernel: str) -> Callable[[Arrays], list[Array]]:
    def oracle(v: Arrays) -> list[Array]:
        rows = [
            RADIAL[kernel](np.square(v["x"][i] - v["y"]).sum(1)) @ v["b"]
            for i in sample_rows(len(v["x"]))
        ]
        return [np.stack(rows)]

    return oracle


def _gaussian_gradients(v: Arrays) -> list[Array]:
    x, y, b, e = v["x"], v["y"], v["b"], v["e"]
    by_x: list[Array] = []
    by_y: list[Array] = []
    by_b: list[Array] = []
    for i in sample_rows(len(x)):
        weight = np.exp(-np.square(x[i] - y).sum(1)) * (b @ e[i])
        by_x.append(-2 * weight @ (x[i] - y))
    for j in sample_rows(len(y)):
        kernel = np.exp(-np.square(x - y[j]).sum(1))
        by_y.append(2 * (kernel * (e @ b[j])) @ (x - y[j]))
        by_b.append(kernel @ e)
    return [np.stack(by_x), np.stack(by_y), np.stack(by_b)]


def _seed_forward(v: Arrays) -> list[Array]:
    weight = np.square(v["p"] - v["a"])
    rows = [(weight * np.exp(v["x"][i] + v["y"])).sum(0) for i in sample_rows(len(v["x"]))]
    return [np.stack(rows)]


def _seed_gradient(v: Arrays) -> list[Array]:
    rows = [
        np.square(v["p"] - v["a"][j]) * (v["e"] * np.exp(v["x"] + v["y"][j])).sum(0)
        for j in sample_rows(len(v["y"]))
    ]
    return [np.stack(rows)]


# Functions of the squared distance by formula, for the cases of reductions.
PAIRS: dict[str, Callable[[Array], Array]] = {
    "SqDist(x,y)": lambda d2: d2,
    "-SqDist(x,y)": lambda d2: -d2,
    "1+SqDist(x,y)/20000": lambda d2: 1 + d2 / 20000,
    "LessThan(SqDist(x,y),0.01)": lambda d2: np.where(d2 < 0.01, 1.0, 0.0),
    "LessThan(SqDist(x,y),1)": lambda d2: np.where(d2 < 1, 1.0, 0.0),
    "LessThan(SqDist(x,y),9)": lambda d2: np.where(d2 < 9, 1.0, 0.0),
}


def _top(f: Array) -> Array:
    return f.max(1, keepdims=True)


def _shifted(f: Array, b: Array) -> Array:
    return np.exp(f - _top(f)) @ b


def _least(f: Array) -> Array:
    return np.sort(f, 1)[:, :KEPT]


# The results of each reduction for rows f of pair values and a weight b per column; for an index,
# the value of the pair that it points at.
FOLDS: dict[str, Callable[[Array, Array], list[Any]]] = {
    "Sum": lambda f, b: [f.sum(1)],
    "LogSumExp": lambda f, b: [_top(f) + np.log(_shifted(f, b))],
    "SumSoftMaxWeight": lambda f, b: [_shifted(f, b) / np.exp(f - _top(f)).sum(1, keepdims=True)],
    "Max_SumShiftExp": lambda f, b: [_top(f), _shifted(f, b)],
    "Max_SumShiftExpWeight": lambda f, b: [_top(f), _shifted(f, b)],
    "Min": lambda f, b: [f.min(1)],
    "Max": lambda f, b: [f.max(1)],
    "ArgMin": lambda f, b: [f.min(1)],
    "ArgMax": lambda f, b: [f.max(1)],
    "Min_ArgMin": lambda f, b: [f.min(1), f.min(1)],
    "Max_ArgMax": lambda f, b: [f.max(1), f.max(1)],
    "KMin": lambda f, b: [_least(f)],
    "ArgKMin": lambda f, b: [_least(f)],
    "KMin_ArgKMin": lambda f, b: [_least(f), _least(f)],
    "Mean": lambda f, b: [f.mean(1)],
    "Prod": lambda f, b: [f.prod(1)],
    "Any": lambda f, b: [f.any(1)],
    "All": lambda f, b: [f.all(1)],
    "Count": lambda f, b: [np.count_nonzero(f, 1)],
}


def _pair_values(formula: str, v: Arrays) -> Array:
    """The formula's value for the sampled rows and all columns."""
    distances = [np.square(v["x"][i] - v["y"]).sum(1) for i in sample_rows(len(v["x"]))]
    return PAIRS[formula](np.stack(distances))


def _reduction_oracle(name: str, formula: str) -> Callable[[Arrays], list[Array]]:
    def oracle(v: Arrays) -> list[Array]:
        weight = v["b"] if "b" in v else np.ones((len(v["y"]), 1))
        results = FOLDS[name](_pair_values(formula, v), weight)
        return [np.asarray(result, np.float64) for result in results]

    return oracle


def _reader(name: str, formula: str) -> Callable[[Arrays, Sequence[Array]], Sequence[Array]] | None:
    """How a reduction's results are read: indices as pair values, the maximum apart."""

    def values_at(v: Arrays, found: Sequence[Array]) -> Sequence[Array]:
        pairs = _pair_values(formula, v)
        index = np.asarray(found[-1], np.float64).reshape(len(pairs), -1)
        valid = (index >= 0) & (index < len(v["y"])) & (index == np.floor(index))
        at = np.take_along_axis(pairs, np.where(valid, index, 0).astype(np.int64), 1)
        return [*found[:-1], np.where(valid, at, np.nan)]

    if "Arg" in name:
        return values_at
    if name.startswith("Max_Sum"):
        return lambda v, found: [found[0][:, :1], found[0][:, 1:]]
    return None


def _points(
    dim: int, outputs: int = 1, shift: float = 0.0, upstream: bool = False, same: bool = False
) -> Callable[[np.random.Generator, int, int], Arrays]:
    """Normal points with |x-y|^2 of order one, moved by `shift`; normal b.

    `same` makes a tenth of the points y coincide with points x.
    """

    def draw(rng: np.random.Generator, rows: int, columns: int) -> Arrays:
        scale = 1 / np.sqrt(dim)
        found: Arrays = {
            "x": shift + scale * rng.standard_normal((rows, dim)),
            "y": shift + scale * rng.standard_normal((columns, dim)),
            "b": rng.standard_normal((columns, outputs)),
        }
        if same:
            count = max(1, min(rows, columns) // 10)
            found["y"][:count] = found["x"][:count]
        if upstream:
            found["e"] = rng.standard_normal((rows, outputs))
        return found

    return draw


def _weighted_points(outputs: int) -> Callable[[np.random.Generator, int, int], Arrays]:
    """The same points, with positive weights b, or none."""
    points = _points(3, outputs)

    def draw(rng: np.random.Generator, rows: int, columns: int) -> Arrays:
        found = points(rng, rows, columns)
        weights = np.exp(found.pop("b"))
        return {**found, "b": weights} if outputs else found

    return draw


def _seed_data(rng: np.random.Generator, rows: int, columns: int) -> Arrays:
    shapes = {"x": (rows, 3), "y": (columns, 3), "a": (columns, 1), "p": (1,), "e": (rows, 3)}
    return {name: rng.standard_normal(shape) for name, shape in shapes.items()}


_SEED = "Square(p-a)*Exp(x+y)"
_SEED_ALIASES = ("x = Vi(3)", "y = Vj(3)", "a = Vj(1)", "p = Pm(1)")
_GAUSSIAN = "Exp(-SqDist(x,y))*b"
_FORMULAS = {
    "gaussian": _GAUSSIAN,
    "laplacian": "Exp(-Norm2(x-y))*b",
    "cauchy": "b/(1+SqDist(x,y))",
    "coulomb": "Rsqrt(SqDist(x,y))*b",
    "matern": "(1+Norm2(x-y)+SqDist(x,y)/3)*Exp(-Norm2(x-y))*b",
}


def _aliases(dim: int, outputs: int) -> tuple[str, ...]:
    return (f"x = Vi({dim})", f"y = Vj({dim})", f"b = Vj({outputs})")


def _seed_cases() -> list[Case]:
    name, size = "seed.gradient", (3000, 5000)
    return [
        Case("seed.forward", SEED, "seed", _SEED, _SEED_ALIASES, 1, *size, _seed_data,
             _seed_forward, floor=40),
        Case("seed.forward.exact", SEED, "seed", _SEED, _SEED_ALIASES, 1, *size, _seed_data,
             _seed_forward, rules="exact"),
        Case(f"{name}.autograd", SEED, "seed-gradient", _SEED, _SEED_ALIASES, 1, *size,
             _seed_data, _seed_gradient, what="gradient", wrt=("y",), front="torch", floor=40),
        Case(f"{name}.formula", SEED, "seed-gradient", f"Grad({_SEED},y,e)",
             (*_SEED_ALIASES, "e = Vi(3)"), 0, *size, _seed_data, _seed_gradient, floor=40),
    ]  # fmt: skip


def _sum(
    name: str,
    kernel: str = "gaussian",
    group: str = POINTS,
    size: tuple[int, int] = (20_000, 20_000),
    dim: int = 3,
    outputs: int = 1,
    shift: float = 0.0,
    **options: object,
) -> Case:
    draw = _points(dim, outputs, shift, same=kernel == "coulomb")
    passes = dim if dim > 16 else 1
    return Case(
        name, group, kernel, _FORMULAS[kernel], _aliases(dim, outputs), 1, *size, draw,
        _radial_oracle(kernel), passes=passes, **options,  # type: ignore[arg-type]
    )  # fmt: skip


def _gradient(name: str, group: str, size: tuple[int, int], **options: object) -> Case:
    return Case(
        name, group, "gaussian-gradient", _GAUSSIAN, _aliases(3, 1), 1, *size,
        _points(3, upstream=True), _gaussian_gradients, wrt=("x", "y", "b"), front="torch",
        **options,  # type: ignore[arg-type]
    )  # fmt: skip


def _point_cases() -> list[Case]:
    others = ("laplacian", "cauchy", "coulomb", "matern")
    return [
        _sum("gaussian.float32", floor=40),
        _sum("gaussian.float64", dtype="float64", floor=20),
        _gradient("gaussian.backward", POINTS, (20_000, 20_000), what="gradient",
                  relative=("gaussian.float32", 2.0)),
        *(_sum(f"{kernel}.float32", kernel, floor=40) for kernel in others),
        _sum("gaussian.shifted-by-100", shift=100.0, floor=40),
    ]  # fmt: skip


def _other_cases() -> list[Case]:
    ten = (10_000, 10_000)
    small = (100, 100)
    return [
        *(_sum(f"gaussian.dim{d}", group=DIMS, size=ten, dim=d, floor=20) for d in (10, 64, 100)),
        *(_sum(f"gaussian.outputs{e}", group=DIMS, size=ten, outputs=e) for e in (10, 100)),
        _sum("thin.one-row", group=THIN, size=(1, 10_000_000)),
        _sum("thin.one-column", group=THIN, size=(10_000_000, 1)),
        _sum("call.numpy", group=CALLS, size=small, limit=30e-6),
        _sum("call.torch", group=CALLS, size=small, front="torch", limit=60e-6),
        _gradient("call.torch-backward", CALLS, small, what="both"),
    ]


def _reduction(
    name: str,
    formula: str = "SqDist(x,y)",
    weights: int = 0,
    suffix: str = "",
    group: str = REDUCED,
    **options: object,
) -> Case:
    kernel = f"squared-{name.replace('_', '-').lower()}{suffix.replace('.', '-')}"
    aliases = _aliases(3, weights) if weights else _aliases(3, 1)[:2]
    return Case(
        f"reduction.{name}{suffix}", group, kernel, formula, aliases, 1, 20_000, 20_000,
        _weighted_points(weights), _reduction_oracle(name, formula), reduction_op=name,
        formula2="b" if weights else None, read=_reader(name, formula),
        **options,  # type: ignore[arg-type]
    )  # fmt: skip


def _reduction_cases() -> list[Case]:
    minus = "-SqDist(x,y)"
    plain = ("Min", "Max", "ArgMin", "ArgMax", "Min_ArgMin", "Max_ArgMax")
    lists = ("KMin", "ArgKMin", "KMin_ArgKMin")
    beyond = {
        "Mean": "SqDist(x,y)",
        "Prod": "1+SqDist(x,y)/20000",
        "Any": "LessThan(SqDist(x,y),0.01)",
        "All": "LessThan(SqDist(x,y),9)",
        "Count": "LessThan(SqDist(x,y),1)",
    }
    return [
        _reduction("Sum", floor=20),
        _reduction("LogSumExp", minus, floor=20),
        _reduction("LogSumExp", minus, 3, ".weighted", floor=20),
        _reduction("SumSoftMaxWeight", minus, 3, floor=20),
        _reduction("Max_SumShiftExp", minus, floor=20),
        _reduction("Max_SumShiftExpWeight", minus, 3, floor=20),
        *(_reduction(name, floor=20) for name in plain),
        *(_reduction(name, opt_arg=KEPT, floor=10) for name in lists),
        *(_reduction(name, formula, group=BEYOND) for name, formula in beyond.items()),
    ]


def _program(name: str, program: str, says: str, size: tuple[int, int], **options: object) -> Case:
    return Case(
        name, PROGRAM, program, says, _aliases(3, 1), 1, *size, programs.draw(program),
        programs.oracle(program), program=program, **options,  # type: ignore[arg-type]
    )  # fmt: skip


def _program_cases() -> list[Case]:
    gaussian = "(-((x_i - y_j)**2).sum(-1)).exp()"
    large = (20_000, 20_000)
    return [
        _program("lazytensor.call", "lazy", f"{gaussian} @ b", (100, 100)),
        _program("lazytensor.gaussian", "lazy", f"{gaussian} @ b", large, floor=20),
        _program("batch.64x500", "batched", f"{gaussian} @ b, 64 problems", (32_000, 500)),
        _program("ranges.gaussian", "sparse", "Exp(-SqDist(x,y))*b over near blocks", large),
        _program("solve.gaussian", "system", f"{gaussian}.solve(b, alpha=1)", (5000, 5000),
                 dtype="float64"),
    ]  # fmt: skip


_GROUPS = (_seed_cases, _point_cases, _other_cases, _program_cases, _reduction_cases)
CASES = {case.name: case for group in _GROUPS for case in group()}
