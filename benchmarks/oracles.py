"""The data of the cases, and the float64 oracles that results are compared with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from benchmarks.case import KEPT, Array, Arrays, sample_rows

_TABLE = 10_000_000  # pairs whose values are held at once

# Functions of the squared distance, for the oracles.
RADIAL: dict[str, Callable[[Array], Array]] = {
    "gaussian": lambda d2: np.exp(-d2),
    "laplacian": lambda d2: np.exp(-np.sqrt(d2)),
    "cauchy": lambda d2: 1 / (1 + d2),
    "coulomb": lambda d2: np.where(d2 == 0, 0, 1 / np.sqrt(np.where(d2 == 0, 1, d2))),
    "matern": lambda d2: (1 + np.sqrt(d2) + d2 / 3) * np.exp(-np.sqrt(d2)),
}


def distances(x: Array, y: Array) -> Array:
    """|x_i - y_j|^2 from differences, or, for many components, from products in float64."""
    if x.shape[1] <= 16:
        return sum(np.square(a[:, None] - b) for a, b in zip(x.T, y.T))  # type: ignore
    d2 = np.square(x).sum(1)[:, None] + np.square(y).sum(1) - 2 * x @ y.T
    return np.maximum(d2, 0)


def _parts(v: Arrays) -> Iterator[Array]:
    """The squared distances of the sampled rows to all columns, some rows at a time."""
    chosen = sample_rows(len(v["x"]))
    for some in np.array_split(chosen, max(1, len(chosen) * len(v["y"]) // _TABLE)):
        yield distances(v["x"][some], v["y"])


def radial(kernel: str) -> Callable[[Arrays], list[Array]]:
    def oracle(v: Arrays) -> list[Array]:
        return [np.concatenate([RADIAL[kernel](d2) @ v["b"] for d2 in _parts(v)])]

    return oracle


def gaussian_gradients(v: Arrays) -> list[Array]:
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


def seed_forward(v: Arrays) -> list[Array]:
    weight = np.square(v["p"] - v["a"])
    rows = [(weight * np.exp(v["x"][i] + v["y"])).sum(0) for i in sample_rows(len(v["x"]))]
    return [np.stack(rows)]


def seed_gradient(v: Arrays) -> list[Array]:
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
    return PAIRS[formula](np.concatenate(list(_parts(v))))


def reduction(name: str, formula: str) -> Callable[[Arrays], list[Array]]:
    def oracle(v: Arrays) -> list[Array]:
        weight = v["b"] if "b" in v else np.ones((len(v["y"]), 1))
        results = FOLDS[name](_pair_values(formula, v), weight)
        return [np.asarray(result, np.float64) for result in results]

    return oracle


def reader(name: str, formula: str) -> Callable[[Arrays, Sequence[Array]], Sequence[Array]] | None:
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


def points(
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


def weighted_points(outputs: int) -> Callable[[np.random.Generator, int, int], Arrays]:
    """The same points, with positive weights b, or none."""
    plain = points(3, outputs)

    def draw(rng: np.random.Generator, rows: int, columns: int) -> Arrays:
        found = plain(rng, rows, columns)
        weights = np.exp(found.pop("b"))
        return {**found, "b": weights} if outputs else found

    return draw


def seed_data(rng: np.random.Generator, rows: int, columns: int) -> Arrays:
    shapes = {"x": (rows, 3), "y": (columns, 3), "a": (columns, 1), "p": (1,), "e": (rows, 3)}
    return {name: rng.standard_normal(shape) for name, shape in shapes.items()}


def sinkhorn(v: Arrays) -> list[Array]:
    """log sum_j exp(100 (b_j - |x_i - y_j|^2)), a step of Sinkhorn's algorithm."""
    parts = (100 * (v["b"][:, 0] - d2) for d2 in _parts(v))
    return [np.concatenate([_top(f) + np.log(np.exp(f - _top(f)).sum(1, keepdims=True))
                            for f in parts])]  # fmt: skip


def _softmax(f: Array) -> Array:
    weights = np.exp(f - _top(f))
    return weights / weights.sum(1, keepdims=True)


def sinkhorn_gradient(v: Arrays) -> list[Array]:
    """What e sends through `sinkhorn` to x."""
    chosen = sample_rows(len(v["x"]))
    shares = np.concatenate([_softmax(100 * (v["b"][:, 0] - d2)) for d2 in _parts(v)])
    return [-200 * v["e"][chosen] * (v["x"][chosen] - shares @ v["y"])]


def attention(v: Arrays) -> list[Array]:
    """Weights exp(x_i . y_j), divided by their sum, times b_j."""
    return [_softmax(v["x"][sample_rows(len(v["x"]))] @ v["y"].T) @ v["b"]]


def attention_gradient(v: Arrays) -> list[Array]:
    """What e sends through `attention` to x."""
    chosen = sample_rows(len(v["x"]))
    shares = _softmax(v["x"][chosen] @ v["y"].T)
    to_b = v["e"][chosen] @ v["b"].T
    return [(shares * (to_b - (shares * to_b).sum(1, keepdims=True))) @ v["y"]]


def nearest(v: Arrays, count: int) -> Array:
    """The squared distances to that many nearest columns, in order, from differences."""
    chosen, found = sample_rows(len(v["x"])), []
    for i, d2 in zip(chosen, (row for part in _parts(v) for row in part)):
        near = np.argpartition(d2, count - 1)[:count] if count < len(d2) else np.arange(len(d2))
        found.append(np.sort(np.square(v["x"][i] - v["y"][near]).sum(1)))
    return np.stack(found)


def neighbours(count: int) -> Callable[[Arrays], list[Array]]:
    """An index is right where its squared distance is the right one: their quotient is 1."""
    return lambda v: [np.ones((len(sample_rows(len(v["x"]))), min(count, len(v["y"]))))]


def read_neighbours(count: int) -> Callable[[Arrays, Sequence[Array]], Sequence[Array]]:
    """Indices as quotients of squared distances; NaN where they are no indices, or twice there."""

    def quotients(v: Arrays, found: Sequence[Array]) -> Sequence[Array]:
        chosen = sample_rows(len(v["x"]))
        index = np.asarray(found[-1], np.float64).reshape(len(chosen), -1)
        right = nearest(v, min(count, len(v["y"])))
        valid = (index >= 0) & (index < len(v["y"])) & (index == np.floor(index))
        at = np.where(valid, index, 0).astype(np.int64)
        twice = np.array([len(set(row)) < len(row) for row in at])
        d2 = np.square(v["x"][chosen][:, None] - v["y"][at]).sum(-1)
        return [np.where(valid & ~twice[:, None], d2 / right, np.nan)]

    return quotients


def with_upstream(
    draw: Callable[[np.random.Generator, int, int], Arrays], outputs: int
) -> Callable[[np.random.Generator, int, int], Arrays]:
    """The same data, with a gradient e of the results."""

    def drawn(rng: np.random.Generator, rows: int, columns: int) -> Arrays:
        return {**draw(rng, rows, columns), "e": rng.standard_normal((rows, outputs))}

    return drawn


def cube(rng: np.random.Generator, rows: int, columns: int) -> Arrays:
    """Points in the unit cube and small potentials, for Sinkhorn's algorithm."""
    b = 0.01 * rng.standard_normal((columns, 1))
    return {"x": rng.random((rows, 3)), "y": rng.random((columns, 3)), "b": b}


def queries(dim: int) -> Callable[[np.random.Generator, int, int], Arrays]:
    """Queries and keys whose products have the standard deviation 2, and values."""

    def draw(rng: np.random.Generator, rows: int, columns: int) -> Arrays:
        x = 2 / np.sqrt(dim) * rng.standard_normal((rows, dim))
        y, b = rng.standard_normal((2, columns, dim))
        return {"x": x, "y": y, "b": b}

    return draw


def normal(dim: int) -> Callable[[np.random.Generator, int, int], Arrays]:
    """Normal points, nothing else."""

    def draw(rng: np.random.Generator, rows: int, columns: int) -> Arrays:
        return {"x": rng.standard_normal((rows, dim)), "y": rng.standard_normal((columns, dim))}

    return draw
