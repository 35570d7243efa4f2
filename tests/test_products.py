"""The part of a product of options that runs by default."""

from __future__ import annotations

import itertools

import products
import pytest
from hypothesis import given
from hypothesis import strategies as st
from products import covering, every_pair, some


@given(st.lists(st.integers(1, 6), min_size=2, max_size=4))
def test_every_pair_of_options_meets(sizes):
    found = covering(sizes)
    for a, b in itertools.combinations(range(len(sizes)), 2):
        met = {(combo[a], combo[b]) for combo in found}
        assert met == set(itertools.product(range(sizes[a]), range(sizes[b])))


def test_few_of_a_long_product_run():
    assert len(covering([24, 3, 2, 2])) <= 80


def test_the_rest_is_marked(monkeypatch):
    monkeypatch.setattr(products, "asked_for", True)
    mark = every_pair(("a", [0, 1]), ("b,c", [(0, 0), (0, 1)]), ("d", "xy")).mark
    names, params = mark.args
    assert names == "a,b,c,d"
    assert len(params) == 8
    assert 4 <= sum(not param.marks for param in params) < 8
    assert params[0].values == (0, 0, 0, "x")


def test_some_values_run(monkeypatch):
    monkeypatch.setattr(products, "asked_for", True)
    _, params = some("n", [1, 2, 3], lambda n: n > 1).mark.args
    assert [bool(param.marks) for param in params] == [True, False, False]
    assert params[0].marks[0].name == pytest.mark.product.name


def test_those_that_are_not_asked_for_are_not_made(monkeypatch):
    monkeypatch.setattr(products, "asked_for", False)
    _, params = some("n", [1, 2, 3], lambda n: n > 1).mark.args
    assert [param.values for param in params] == [(2,), (3,)]
    _, params = every_pair(("a", [0, 1]), ("b", [0, 1]), ("c", [0, 1])).mark.args
    assert len(params) == len(covering([2, 2, 2])) < 8
