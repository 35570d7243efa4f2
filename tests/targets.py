"""The instruction sets that this processor can run, each once.

On a processor with AVX-512 the target `avx512` gives the code of `native`: it is left out there,
and runs wherever the two differ. `test_backends.py` compares the code of those left out.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

from pairfold.backends.llvm.machine import machine
from pairfold.errors import OptionError

NAMES = ("native", "avx512", "avx2", "baseline")
# What code generation asks of a processor beside vector bytes and registers; the last two only
# where products of short integers bound distances.
_FLOATS = {"avx512f", "avx512dq", "avx512bw", "avx2", "fma", "neon"}
_SHORTS = {"avx512vl", "avx512vnni", "avxvnni", "sse2"}


def available(target: str) -> bool:
    """Whether this processor can run a target."""
    try:
        machine(target)
    except OptionError:
        return False
    return True


@cache
def left_out(target: str, short: bool = False) -> bool:
    """Whether a named target gives the code of `native`, with short integers or without."""
    if target == "native" or not available(target):
        return False
    return _signature(target, short) == _signature("native", short)


def _signature(target: str, short: bool) -> tuple[Any, ...]:
    found = machine(target)
    asked = _FLOATS | (_SHORTS if short else set[str]())
    return found.has & asked, found.vector_bytes, found.registers


def _one_each(short: bool) -> list[Any]:
    return [
        pytest.param(
            target,
            marks=pytest.mark.skipif(
                not available(target), reason=f"this processor cannot run target {target}"
            ),
        )
        for target in NAMES
        if not left_out(target, short)
    ]


TARGETS = _one_each(False)
SHORT_TARGETS = _one_each(True)
NARROW = ("avx2", "baseline")


def crossed(values: Any, dtypes: tuple[str, str] = ("float32", "float64")) -> list[Any]:
    """Parameters (value, dtype, target): all pairs of values and dtypes, of values and targets,
    and of dtypes and targets.

    `native` has every dtype with every value; another target has each value with one dtype, which
    changes from value to value, and from target to target. Of these every second runs by default.
    """
    found = []
    for place, param in enumerate(TARGETS):
        (target,) = param.values
        for n, value in enumerate(values):
            some = dtypes if target == "native" else [dtypes[(n + place) % 2]]
            marks = list(param.marks)
            if target != "native" and (n + place) // 2 % 2:
                marks.append(pytest.mark.product)
            found += [pytest.param(value, dtype, target, marks=marks) for dtype in some]
    return found
