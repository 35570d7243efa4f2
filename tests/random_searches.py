"""Random searches for extrema, met by bounds and met in full: results are the same, bit for bit.

    python tests/random_searches.py 10000

compares so many layouts of data; the suite compares a few (`test_pruning.py`).
"""

from __future__ import annotations

import sys

import numpy as np

from pairfold import Genred, settings

# Formulas of x (rows), y (columns), a (weights of columns), p (parameters): with their dimensions.
FORMULAS = {
    "SqDist(x,y)": None,
    "Norm2(x-y)": None,
    "Sum(p*Abs(x-y))": None,
    "(x|y)": None,
    "Exp(-SqDist(x,y))*a": None,
    "Inv(p0+SqDist(x,y))": None,
    "Max(Concat(x-y,y-x))": None,
    "Square(Elem(x,0)-Elem(y,0))-a": None,
    "Log(p0+SqDist(x,y))+a": None,
    "Sin(Elem(x,0)-Elem(y,0))*Cos(Elem(x,0))": None,
    "Asin(Sqrt(Square(Sin((Elem(x,0)-Elem(y,0))/2))))": None,
    "IfElse(Elem(x,0)-Elem(y,0),SqDist(x,y),a)": None,
    "Step(Elem(x,0)-Elem(y,0))": None,
    "Clamp(SqDist(x,y),p0,2*p0)": None,
    "Rsqrt(p0+SqDist(x,y))*Tanh(a)": None,
    "Sqrt(SqDist(x,y))/(p0+Square(a))": None,
    "SqNorm2(x)-2*(x|y)+SqNorm2(y)": None,
}
REDUCTIONS = {
    "Min": {}, "Max": {}, "ArgMin": {}, "ArgMax": {}, "Min_ArgMin": {}, "Max_ArgMax": {},
    "KMin": {"opt_arg": 3}, "ArgKMin": {"opt_arg": 1}, "KMin_ArgKMin": {"opt_arg": 20},
}  # fmt: skip
MASKS = (None, None, "Ind(j)-Ind(i)", "a", "Ind(i)-Ind(j)-3", "0.3-Abs(Elem(x,0)-Elem(y,0))")
SPECIAL = (np.nan, np.inf, -np.inf, 0.0, -0.0, 1e30, -1e38, 1e-40)


def points(rng: np.random.Generator, count: int, dim: int, dtype: str) -> np.ndarray:
    """Points of some kind: spread, in clusters, on a grid, alike, shifted, with special numbers."""
    kind = rng.integers(8)
    found = rng.normal(size=(count, dim))
    if kind == 1:
        found = rng.integers(-3, 4, size=(count, dim)).astype(float)
    elif kind == 2:
        found = found * 0.01 + rng.integers(0, 5, size=(count, 1)) * 3
    elif kind == 3:
        found[:] = found[:1]
    elif kind == 4:
        found[:, rng.integers(dim)] = 1.5
    elif kind == 5:
        found += 1e4
    elif kind == 6:
        found *= 10.0 ** rng.integers(-25, 25)
    if kind == 7 or rng.integers(4) == 0:
        places = rng.random((count, dim)) < rng.choice([0.3, 0.01])
        found[places] = rng.choice(SPECIAL, size=int(places.sum()))
    return found.astype(dtype)


def layout(rng: np.random.Generator, dim: int, dtype: str) -> list[np.ndarray]:
    """Rows, columns, weights and parameters, some of them in batches, some not contiguous."""
    rows, columns = (int(rng.choice([1, 17, 64, 65, 300, 700, 3000])) for _ in range(2))
    batch = [(), (), (2,), (3, 1)][rng.integers(4)]
    found: list[np.ndarray] = []
    for count, width in ((rows, dim), (columns, dim), (columns, 1)):
        own = batch if rng.integers(3) else ()
        size = int(np.prod(own, dtype=int))
        flat = np.concatenate([points(rng, count, width, dtype) for _ in range(size)])
        array = flat.reshape(*own, count, width)
        if rng.integers(3) == 0:
            array = np.repeat(array, 2, axis=-2)[..., ::2, :]
        found.append(array)
    if rng.integers(5) == 0 and rows == columns:
        found[1] = found[0]
    found += [np.abs(points(rng, 1, dim, dtype))[0], np.asarray([0.5], dtype)]
    return found


def differs(which: int, rng: np.random.Generator) -> str:
    """A search under some layout; what differs, in words, or nothing."""
    formula = list(FORMULAS)[which % len(FORMULAS)]
    name = list(REDUCTIONS)[which // len(FORMULAS) % len(REDUCTIONS)]
    dim = (1, 2, 3, 6, 16)[which % 5]
    dtype = ("float32", "float64")[which // 7 % 2]
    aliases = [
        f"x = Vi(0,{dim})",
        f"y = Vj(1,{dim})",
        "a = Vj(2,1)",
        f"p = Pm(3,{dim})",
        "p0 = Pm(4,1)",
    ]
    axis = which // 3 % 2
    where = MASKS[which // 5 % len(MASKS)]
    options = {} if where is None else {"where": where}
    fold = Genred(formula, aliases, name, axis=1 - axis, **REDUCTIONS[name], **options)
    data = layout(rng, dim, dtype)
    with np.errstate(all="ignore"):
        with settings(prune="never"):
            full = fold(*data)
        with settings(prune="always"):
            pruned = fold(*data)
    pairs = zip(full, pruned) if isinstance(full, (tuple, list)) else [(full, pruned)]
    for one, other in pairs:
        # The sign of a zero is that of the first one met, unless its column is asked for.
        if not np.array_equal(one, other, equal_nan=True):
            shapes = [array.shape for array in data]
            return f"{formula} {name} where {where} {dtype} {dim} axis {1 - axis}: {shapes}"
    return ""


def compare(count: int, seed: int = 0, kinds: int = 0) -> list[str]:
    """Compare so many layouts of so many searches (0: all); those that differ."""
    rng = np.random.default_rng(seed)
    kinds = kinds or len(FORMULAS) * len(REDUCTIONS)
    found = [differs(n % kinds, rng) for n in range(count)]
    return [each for each in found if each]


if __name__ == "__main__":
    wrong = compare(int(sys.argv[1]))
    print("\n".join(wrong[:20]))
    print(f"{len(wrong)} of {sys.argv[1]} differ")
    sys.exit(bool(wrong))
