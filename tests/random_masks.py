"""Random masks, formulas and layouts of data, to compare what skips blocks with what does not.

As a program it compares as many layouts as it is told: `python tests/random_masks.py 100000`.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np

from pairfold import Genred, settings

ALIASES = ["x = Vi(2)", "y = Vj(2)", "p = Pm(1)"]
_UNARY = ["Square({})", "Abs({})", "Exp(-Abs({}))", "Sqrt(Abs({}))", "Sin({})", "-({})", "Step({})"]
_BINARY = ["({})+({})", "({})-({})", "({})*({})", "({})/(1+Square({}))", "Maximum({},{})"]
_COMPARED = ["<", "<=", "==", "!=", ">", ">="]
_REDUCTIONS = {
    "Sum": {},
    "Mean": {},
    "Min_ArgMin": {},
    "ArgMax": {},
    "LogSumExp": {},
    "Count": {},
    "SumSoftMaxWeight": {"formula2": "y"},
    "KMin_ArgKMin": {"opt_arg": 3},
}


class Maker:
    """Makes formulas and data from a seed; with `runs`, rows repeat and masks read no indices."""

    def __init__(self, seed: int, runs: bool = False) -> None:
        self.rng, self.runs = np.random.default_rng(seed), runs

    def one(self, choices):
        """One of several."""
        return choices[int(self.rng.integers(len(choices)))]

    def leaf(self) -> str:
        """A variable, a number, or the number of a row."""
        parts = ["Elem(x,0)", "Elem(x,1)", "Elem(y,0)", "Elem(y,1)", "p", "Ind(i)", "Ind(j)"]
        parts = parts[:5] if self.runs else parts
        return self.one([*parts, "SqDist(x,y)", "(x|y)", f"{self.rng.normal():.3f}"])

    def number(self, depth: int) -> str:
        """A formula of one component."""
        if depth == 0 or self.rng.random() < 0.2:
            return self.leaf()
        if self.rng.random() < 0.4:
            return self.one(_UNARY).format(self.number(depth - 1))
        return self.one(_BINARY).format(self.number(depth - 1), self.number(depth - 1))

    def mask(self, depth: int) -> str:
        """A formula that says which pairs count."""
        kind = self.rng.random()
        if depth and kind < 0.2:
            return f"LogicalNot({self.mask(depth - 1)})"
        if depth and kind < 0.6:
            joined = self.one(["LogicalAnd({},{})", "LogicalOr({},{})"])
            return joined.format(self.mask(depth - 1), self.mask(depth - 1))
        known = [
            "Ind(j) <= Ind(i)",
            f"Abs(Ind(i)-Ind(j)) <= {int(self.rng.integers(40))}",
            f"Abs(2*Ind(i)-3*Ind(j)+5) < {int(self.rng.integers(90))}",
            f"SqDist(x,y) <= {self.rng.random():.3f}",
            "Elem(x,0) == Elem(y,0)",
            "Elem(x,1) < Elem(y,1)",
            "Ind(i) != Ind(j)",
        ]
        if self.runs:
            known = [text for text in known if "Ind" not in text]
        if kind < 0.85:
            return self.one(known)
        return f"({self.number(2)}) {self.one(_COMPARED)} ({self.number(2)})"

    def reduction(self) -> Genred:
        """A reduction with a mask."""
        name = self.one(list(_REDUCTIONS))
        formula = self.number(3) if self.rng.random() < 0.7 else "x*y+p"
        if name == "SumSoftMaxWeight" or "KMin" in name:
            formula = self.number(2)
        axis = int(self.rng.integers(2))
        mask = self.mask(2)
        return Genred(formula, ALIASES, name, axis=axis, where=mask, **_REDUCTIONS[name])

    def rows(self, count: int, dtype: str, extreme: bool) -> np.ndarray:
        """Points: spread, in order, in clusters, on few values, in runs; far away, not finite."""
        x = self.rng.normal(size=(count, 2))
        how = self.rng.integers(8 if extreme else 5)
        how = 4 + extreme * how % 2 if self.runs else how
        if how == 1:
            x = x[np.argsort(x[:, 0])]
        elif how == 2:
            x = 0.01 * x + np.sort(self.rng.integers(4, size=(count, 1)), axis=0)
        elif how == 3:
            x = np.sort(np.round(x), axis=0)
        elif how in (4, 5):
            x = np.round(x, int(how == 5))
            if how == 5 and count:
                x[0] = self.one([np.nan, np.inf, -0.0, 1e-40])
            x = x[np.sort(self.rng.integers(min(count, 6), size=count))]
        elif how == 6:
            x = x * 10.0 ** self.rng.integers(-20, 20)
        elif how == 7 and count:
            x[self.rng.integers(count, size=3)] = self.one([np.nan, np.inf, -np.inf, 0.0, -0.0])
        return x.astype(dtype)

    def arrays(self, dtype: str, extreme: bool) -> list[np.ndarray]:
        """Arguments of some size; some are `extreme`."""
        sizes = self.rng.integers(1, 150, size=2)
        x, y = (self.rows(int(size), dtype, extreme) for size in sizes)
        return [x, y, self.rng.normal(size=1).astype(dtype)]


@dataclass
class Difference:
    """Where results with skipped blocks differ from those without."""

    seed: int
    reduction: Genred
    arrays: list[np.ndarray]
    options: dict[str, object]

    def __str__(self) -> str:
        shapes = [array.shape for array in self.arrays]
        where = self.reduction.where
        return f"seed {self.seed}: {self.reduction!r} where {where}, {shapes}, {self.options}"


def compare(seed: int, layouts: int, runs: bool = False) -> tuple[list[Difference], int]:
    """One reduction on several layouts: what differs, and how many there were."""
    make = Maker(seed, runs)
    reduction = make.reduction()
    dtype = make.one(["float32", "float64"])
    options = {
        "lanes": make.one(["row", "column"]),
        "block": make.one([16, 32]),
        "row_tiles": make.one([1, 2, 3]),
        "row_vectors": make.one([1, 2]),
        # Where sums are rearranged, data are checked as they are packed, which skipped ones are
        # not; those that fail are folded as they are written, and rounded otherwise.
        "rules": make.one(["exact", "rounding"]),
    }
    found: list[Difference] = []
    with np.errstate(all="ignore"), settings(**options):
        for _ in range(layouts):
            arrays = make.arrays(dtype, options["rules"] == "exact")
            with settings(blocks="always"):
                skipped = reduction(*arrays)
            with settings(blocks="test"):
                tested = reduction(*arrays)
            pairs = zip(_each(skipped), _each(tested), strict=True)
            if not all(np.array_equal(a, b, equal_nan=True) for a, b in pairs):
                found.append(Difference(seed, reduction, arrays, options))
    return found, layouts


def _each(result):
    return result if isinstance(result, tuple) else (result,)


if __name__ == "__main__":
    wanted = int(sys.argv[1])
    done = differ = seed = 0
    while done < wanted:
        differences, count = compare(seed, 200, seed % 2 == 1)
        done, differ, seed = done + count, differ + len(differences), seed + 1
        for difference in differences[:1]:
            print(difference, flush=True)
        if seed % 50 == 0:
            print(f"{done} layouts of {seed} formulas, {differ} differ", flush=True)
    print(f"{done} layouts of {seed} formulas, {differ} differ")
    sys.exit(bool(differ))
