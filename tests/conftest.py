"""What tests share: Triton's interpreter, which runs the programs of GPUs on the CPU.

Triton decides when it is imported whether its own functions (sums, maxima ...) are interpreted, and
torch may import it during any test. So it is imported here, before all tests, as for the
interpreter, and the variable is unset again: only tests that use the fixture `interpreter` see
backend="GPU" as a process with TRITON_INTERPRET=1 does; all others see what users see. Programs are
compiled for real in processes of their own.
"""

from __future__ import annotations

import os
import warnings
from typing import Any

import numpy as np
import pytest

_SWITCH = "TRITON_INTERPRET"
_before = os.environ.get(_SWITCH)
os.environ[_SWITCH] = "1"
os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")  # as pairfold sets it; else triton warns
try:
    import triton.runtime.interpreter as interpreted
except ImportError:
    interpreted = None
if _before is None:
    del os.environ[_SWITCH]
else:
    os.environ[_SWITCH] = _before


@pytest.fixture
def interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    """backend="GPU" runs printed programs in Triton's interpreter, on tensors of the CPU."""
    pytest.importorskip("torch", reason="tensors of GPUs are torch's, which is not installed")
    if interpreted is None:
        pytest.skip("Triton is not installed: pip install triton")
    monkeypatch.setenv(_SWITCH, "1")
    monkeypatch.setattr(interpreted.ReduceOps, "generic_reduce", _reduce)
    monkeypatch.setattr(interpreted.GridExecutor, "__call__", _quietly)


_execute = None if interpreted is None else interpreted.GridExecutor.__call__


def _quietly(self: Any, *given: Any, **named: Any) -> None:
    """Run a program; infinities, NaN and overflow are computed with on purpose, by NumPy."""
    assert _execute is not None
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # extremes of rows of NaN alone
        _execute(self, *given, **named)


def _reduce(self: Any, given: Any) -> list[Any]:
    """`tl.reduce` with a function of the program's own, by halves, as lanes of a GPU do it.

    The interpreter takes one number after another; a test would take minutes.
    """
    axis = self.axis
    assert axis is not None
    parts = [(tensor.handle.data, tensor.dtype) for tensor in given]
    while (size := parts[0][0].shape[axis]) > 1:
        assert size % 2 == 0
        halves = [np.split(data, 2, axis) for data, _ in parts]
        sides = [
            self.to_tensor(half[side], dtype)
            for side in (0, 1)
            for half, (_, dtype) in zip(halves, parts, strict=True)
        ]
        found = self.combine_fn.fn(*sides)
        found = found if isinstance(found, tuple) else (found,)
        parts = [
            (np.asarray(tensor.handle.data, data.dtype), dtype)
            for tensor, (data, dtype) in zip(found, parts, strict=True)
        ]
    if not self.keep_dims:
        parts = [(data.squeeze(axis), dtype) for data, dtype in parts]
    return [self.to_tensor(data, dtype) for data, dtype in parts]
