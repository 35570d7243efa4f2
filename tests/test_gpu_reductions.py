"""Every reduction as a Triton program, in Triton's interpreter, against the oracles of the table."""

from __future__ import annotations

from typing import Any

import pytest
from test_reductions import arrays, case, check, oracle, pairs, program

from pairfold.settings import settings

pytestmark = pytest.mark.usefixtures("interpreter")
Array = Any
TILE = "16x16x1"


@pytest.mark.parametrize(
    ("axis", "dtype", "dim", "splits"),
    [(1, "float32", 3, 1), (0, "float64", 1, 3), (1, "float64", 20, 1), (0, "float32", 20, 3)],
)
@case
def test_every_reduction_equals_numpy(
    name: str, weighted: bool, axis: int, dtype: str, dim: int, splits: int
) -> None:
    genred = program(name, weighted, dim, axis)
    sizes = (17, 70) if axis == 1 else (70, 17)
    given = arrays(name, dim, *sizes, dtype)
    want = oracle(name, *pairs(name, weighted, given, axis))
    with settings(tile=TILE, splits=splits):
        got = genred(*given, backend="GPU")
    check(name, got, want, dtype, (axis, dim, splits), terms=70)
