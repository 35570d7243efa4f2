"""The table of dtypes says what NumPy and torch say of them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pairfold.arrays.library import SUPPORTED
from pairfold.backends.functions.arithmetic import round_to_format
from pairfold.core.dtypes import DTYPES, RESULTS, result_bytes
from pairfold.core.numbers import to_float

IN_NUMPY = [name for name in DTYPES if name != "bfloat16"]
every_dtype = pytest.mark.parametrize("name", DTYPES)


@pytest.mark.parametrize("name", IN_NUMPY)
def test_numbers_are_those_of_numpy(name):
    found, info = DTYPES[name], np.finfo(name)
    assert found.name == name
    assert found.bytes == np.dtype(name).itemsize
    assert found.eps == info.eps
    assert found.largest == info.max
    assert 2.0**found.smallest == info.smallest_subnormal
    assert found.fraction_bits == info.nmant


@every_dtype
def test_numbers_are_those_of_torch(name):
    torch = pytest.importorskip("torch")
    found, dtype = DTYPES[name], getattr(torch, name)
    assert found.bytes == torch.finfo(dtype).bits // 8
    assert found.eps == torch.finfo(dtype).eps
    assert found.largest == torch.finfo(dtype).max
    assert 2.0**found.smallest == torch.finfo(dtype).smallest_normal * found.eps


@every_dtype
def test_half_precision_is_computed_in_float32(name):
    found = DTYPES[name]
    computed = DTYPES[found.computed]
    assert found.half == (found.bytes == 2)
    assert found.computed == ("float32" if found.half else name)
    assert not computed.half
    # Whatever is stored is a number of what it is computed in.
    assert computed.fraction_bits >= found.fraction_bits
    assert computed.smallest <= found.smallest
    assert computed.overflow >= found.overflow


@every_dtype
def test_all_dtypes_of_the_table_are_taken(name):
    assert name in SUPPORTED
    assert len(SUPPORTED) == len(DTYPES)


@pytest.mark.parametrize("name", ["float32", "float64"])
def test_rounding_ends_where_the_table_says(name):
    found = DTYPES[name]
    assert round_to_format(found.largest, name) == found.largest
    assert round_to_format(2 * int(found.largest), name) == math.inf
    assert round_to_format(1 + found.eps, name) == 1 + found.eps
    assert round_to_format(1 + found.eps / 4, name) == 1
    assert round_to_format(2.0**found.smallest, name) == 2.0**found.smallest
    assert to_float("largest", name) == -to_float("lowest", name) == found.largest


@pytest.mark.parametrize("kind", RESULTS)
def test_results_have_the_bytes_of_their_dtype(kind):
    assert result_bytes(kind, "float16") == np.dtype(RESULTS[kind]).itemsize


@every_dtype
def test_values_have_the_bytes_of_the_data(name):
    assert result_bytes("value", name) == DTYPES[name].bytes
