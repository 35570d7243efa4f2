"""What a benchmark case is: formula, sizes, data, a float64 oracle, and what must be reached.

Only NumPy is needed, so that every peer's process can read the same table.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]
Arrays = dict[str, Array]

_HEAVY = 3e9  # numbers that the pairs hold, counted with the dimensions
SAMPLE = 300  # rows of each result that are compared with the oracle
KEPT = 10  # the K of the lists of the K smallest

SEED = "Seed formula, Square(p-a)*Exp(x+y)"
POINTS = "Sums over points in 3 dimensions"
DIMS = "Larger dimensions"
SOFT = "Log-sum-exp and attention"
NEAR = "Nearest neighbours"
MEANS = "Assignment to the nearest of some centroids"
THIN = "One row, one column"
CALLS = "Calls on small arrays"
REDUCED = "Every reduction, points in 3 dimensions"
PROGRAM = "Programs: lazy tensors, batches, blocks, systems"
BEYOND = "Reductions that PyKeOps does not have, points in 3 dimensions"


@dataclass(frozen=True)
class Bar:
    """What a case must reach.

    Args:
        kind: "ratio": `value` times faster than `of`; "seconds": in less than `value` seconds;
            "multiple": in at most `value` times what the case `of` takes; "limit": within
            `value` times the bound of its inner loops (one thread).
        of: a peer; or the first letters of several, of which the fastest counts; or "Python" for
            every brute-force peer in Python besides PyKeOps.
    """

    kind: str
    value: float
    of: str = ""


def faster(value: float, *of: str) -> tuple[Bar, ...]:
    """Faster than these peers, by that factor."""
    return tuple(Bar("ratio", value, name) for name in of)


def below(seconds: float) -> tuple[Bar, ...]:
    """In less than so many seconds."""
    return (Bar("seconds", seconds),)


def limit(factor: float) -> tuple[Bar, ...]:
    """Within that factor of the bound of the inner loops."""
    return (Bar("limit", factor),)


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
        floor, aim: what must be reached, what should be.
        rules: our setting `rules`; "exact" forbids rearrangements that change rounding.
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
    floor: tuple[Bar, ...] = ()
    aim: tuple[Bar, ...] = ()
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

    def heavy(self, rows: int, columns: int) -> bool:
        """Whether a slow peer should be tried on a part of it first."""
        return rows * columns * sum(self.dims.values()) > _HEAVY

    def exact(self, arrays: Arrays) -> list[Array]:
        """The oracle's results for these arrays."""
        return self.oracle({name: a.astype(np.float64) for name, a in arrays.items()})

    def error(self, arrays: Arrays, sampled: Sequence[Array], exact: Sequence[Array]) -> float:
        """max|out - ref| / max|ref| over the sampled rows; the worst of the results."""
        found = sampled
        if self.read is not None:
            found = self.read({name: a.astype(np.float64) for name, a in arrays.items()}, sampled)
        worst = 0.0
        for got, want in zip(found, exact, strict=True):
            got = np.asarray(got, np.float64).reshape(want.shape)
            gap = np.abs(got - want).max() / np.abs(want).max()
            worst = max(worst, float(gap) if np.isfinite(gap) else float("inf"))
        return worst


def sample_rows(length: int) -> NDArray[np.int64]:
    """The rows of a result of this length that are compared with the oracle."""
    if length <= SAMPLE:
        return np.arange(length)
    return np.sort(np.random.default_rng(0).choice(length, SAMPLE, replace=False))
