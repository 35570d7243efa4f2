"""Blocks of columns that no row of a tile can meet: machine code says so before it tests pairs.

Every block is to be tested here (`blocks="test"`), so that nothing else skips any.
"""

from __future__ import annotations

import numpy as np
import pytest

from pairfold import Genred, settings

ALIASES = ["x = Vi(2)", "y = Vj(2)", "p = Pm(1)"]
COMPARED = {
    "x0 < y1": lambda x, y, p: x[0] < y[1],
    "x0 <= y1": lambda x, y, p: x[0] <= y[1],
    "x1 == y0": lambda x, y, p: x[1] == y[0],
    "x1 > y0": lambda x, y, p: x[1] > y[0],
    "x0 >= y0": lambda x, y, p: x[0] >= y[0],
    "y1 <= p": lambda x, y, p: y[1] <= p,
    "x0 > 0.5": lambda x, y, p: x[0] > 0.5,
    "x0 != y0": lambda x, y, p: x[0] != y[0],
    "not(x0 < y0)": lambda x, y, p: ~(x[0] < y[0]),
    "Exp(x0) <= Exp(y0)": lambda x, y, p: np.exp(x[0]) <= np.exp(y[0]),
    "x0*y0 < p": lambda x, y, p: x[0] * y[0] < p,
}
JOINED = [
    ("both", "x0 < y1", "x1 == y0"),
    ("both", "x0*y0 < p", "x0 >= y0"),
    ("either", "x1 == y0", "x0 <= y1"),
    ("either", "x1 > y0", "x0 != y0"),
    ("both", "y1 <= p", "not(x0 < y0)"),
]


def spelled(text: str) -> str:
    for short in ("x0", "x1", "y0", "y1"):
        text = text.replace(short, f"Elem({short[0]},{short[1]})")
    return text.replace("not", "LogicalNot")


def points(rng: np.random.Generator, count: int, how: str, dtype: str) -> np.ndarray:
    x = rng.normal(size=(count, 2))
    if how != "spread":
        x = np.sort(np.round(2 * x), axis=0)
    if how == "not finite":
        x[rng.integers(count, size=6), rng.integers(2, size=6)] = [
            np.nan,
            np.inf,
            -np.inf,
            -0.0,
            0.0,
            np.nan,
        ]
        x[: count // 4, 1] = np.nan
    return x.astype(dtype)


@pytest.mark.parametrize("how", ["spread", "in order", "not finite"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_no_pair_is_left_out(dtype: str, how: str) -> None:
    rng = np.random.default_rng(5)
    masks = [(spelled(text), holds) for text, holds in COMPARED.items()]
    for join, one, other in JOINED:
        name = "LogicalAnd" if join == "both" else "LogicalOr"
        both = np.logical_and if join == "both" else np.logical_or
        masks.append(
            (
                f"{name}({spelled(one)},{spelled(other)})",
                lambda x, y, p, one=one, other=other, both=both: both(
                    COMPARED[one](x, y, p), COMPARED[other](x, y, p)
                ),
            )
        )
    for axis, (rows, columns) in ((0, (17, 23)), (1, (150, 61)), (1, (90, 133))):
        x, y = points(rng, rows, how, dtype), points(rng, columns, how, dtype)
        p = rng.normal(size=1).astype(dtype)
        given = x.T[:, :, None], y.T[:, None], p[0]
        for text, holds in masks:
            with np.errstate(all="ignore"):
                keep = np.broadcast_to(holds(*given), (rows, columns))
            reduce = Genred("p*p+1", ALIASES, "Count", axis=axis, where=text)
            with settings(blocks="test", lanes="row", block=16, row_vectors=1):
                found = reduce(x, y, p)
            np.testing.assert_array_equal(found[:, 0], keep.sum(axis), text)


@pytest.mark.parametrize(
    ("where", "known"),
    [
        ("Elem(x,0) == Elem(y,0)", True),
        ("LogicalAnd(SqDist(x,y) <= 1, Elem(x,0) < Elem(y,0))", True),
        ("LogicalOr(SqDist(x,y) <= 1, Elem(x,0) < Elem(y,0))", False),
        ("Elem(x,0) != Elem(y,0)", False),
        ("Ind(j) <= Ind(i)", False),
    ],
)
def test_which_masks_are_looked_at(where: str, known: bool) -> None:
    reduce = Genred("SqDist(x,y)", ALIASES[:2], axis=1, where=where)
    x = np.ones((40, 2), "float32")
    with settings(lanes="row"):
        text = reduce.explain(x, x).llvm()
    assert ("vector.reduce.fmin" in text) == known
