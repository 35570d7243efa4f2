"""Products of options, of which a part runs by default: every pair of values meets somewhere.

Most faults show with one option or with two that meet (Kuhn, Wallace and Gallo, "Software fault
interactions and implications for software testing", IEEE TSE 30(6), 2004). The rest of a product
has the mark `product`; `make test-all` runs it too. Thousands of tests that do not run would be
made for nothing, so they are only where they are asked for.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest

_PRODUCT = pytest.mark.product
asked_for = True  # conftest.py says
Axis = tuple[str, Sequence[Any]]


def covering(sizes: Sequence[int]) -> set[tuple[int, ...]]:
    """Few combinations of numbers below the sizes, such that every pair of numbers is in one.

    >>> sorted(covering([2, 2]))
    [(0, 0), (0, 1), (1, 0), (1, 1)]
    >>> len(covering([2, 2, 2, 2, 2])) < 10
    True
    """
    every = list(itertools.product(*map(range, sizes)))
    random.Random(0).shuffle(every)
    places = list(itertools.combinations(range(len(sizes)), 2))
    missing = {(a, b, combo[a], combo[b]) for combo in every for a, b in places}
    found: set[tuple[int, ...]] = set()
    for wanted in range(len(places), 0, -1):  # those first that bring the most new pairs
        for combo in every:
            new = missing.intersection((a, b, combo[a], combo[b]) for a, b in places)
            if len(new) >= wanted:
                found.add(combo)
                missing -= new
    return found


def every_pair(*axes: Axis, ids: Callable[[Any], str] | None = None) -> pytest.MarkDecorator:
    """Parametrize by the product of axes: (names of parameters, values), as pytest takes them."""
    names = ",".join(name for name, _ in axes)
    values = [list(axis) for _, axis in axes]
    run = covering([len(axis) for axis in values])
    params = []
    for combo in itertools.product(*(range(len(axis)) for axis in values)):
        flat: list[Any] = []
        for (name, _), axis, n in zip(axes, values, combo, strict=True):
            flat += axis[n] if "," in name else [axis[n]]
        marks = () if combo in run or len(axes) == 1 else _PRODUCT
        params.append(pytest.param(*flat, marks=marks))
    return _parametrize(names, params, ids)


def some(
    name: str,
    values: Sequence[Any],
    runs: Callable[[Any], bool],
    ids: Callable[[Any], str] | None = None,
) -> pytest.MarkDecorator:
    """Parametrize by values, of which those run by default for which `runs` holds."""
    many = "," in name
    params = [
        pytest.param(*(value if many else (value,)), marks=() if runs(value) else _PRODUCT)
        for value in values
    ]
    return _parametrize(name, params, ids)


def _parametrize(
    names: str, params: Sequence[Any], ids: Callable[[Any], str] | None
) -> pytest.MarkDecorator:
    made = [param for param in params if asked_for or not param.marks]
    return pytest.mark.parametrize(names, made, ids=ids)
