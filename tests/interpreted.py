"""Triton's interpreter as the tests use it: programs for GPUs on tensors of the CPU.

Triton decides when it is imported whether its own functions (sums, maxima ...) are interpreted, and
torch may import it during any test. So this module, which conftest.py imports before all tests,
imports it as for the interpreter and then unsets the variable: only what runs within `repaired`
sees backend="GPU" as a process with TRITON_INTERPRET=1 does, all else sees what users see. What is
compiled for a real GPU needs a process of its own.
"""

from __future__ import annotations

import functools
import os
import types
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

SWITCH = "TRITON_INTERPRET"
_before = os.environ.get(SWITCH)
os.environ[SWITCH] = "1"
os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")  # as pairfold sets it; else triton warns
try:
    import triton
    import triton.runtime.interpreter as interpreter

    # The interpreter of those before rounds twice in fma, on which exact products rely; before 3.7
    # there are no products of float64 matrices either.
    if tuple(map(int, triton.__version__.split(".")[:2])) < (3, 9):
        interpreter = None
except ImportError:
    interpreter = None
if _before is None:
    del os.environ[SWITCH]
else:
    os.environ[SWITCH] = _before

_execute = None if interpreter is None else interpreter.GridExecutor.__call__
_splat = None if interpreter is None else interpreter.InterpreterBuilder.create_splat
_dot = None if interpreter is None else interpreter.InterpreterBuilder.create_dot
_patch = None if interpreter is None else interpreter._patch_lang
ran = 0
# The modules of the language that the program that runs has replaced functions of.
_replaced: set[str] | None = None


def repair(replace: Callable[[Any, str, Any], None] = setattr) -> None:
    """Make the interpreter fast enough for tests, quiet, and right about masks and bfloat16."""
    assert interpreter is not None
    replace(interpreter.ReduceOps, "generic_reduce", _reduce)
    replace(interpreter.GridExecutor, "__call__", _run)
    replace(interpreter.InterpreterBuilder, "create_splat", _mask_too)
    replace(interpreter.InterpreterBuilder, "create_dot", _dot_too)
    replace(interpreter, "_patch_lang", _patch_once)


def _run(self: Any, *given: Any, **named: Any) -> None:
    """Run a program; infinities, NaN and overflow are computed with on purpose, by NumPy."""
    global ran, _replaced
    ran += 1
    assert _execute is not None
    _replaced = set()
    try:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # extremes of rows of NaN alone
            _execute(self, *given, **named)
    finally:
        _replaced = None


def _patch_once(function: Any) -> Any:
    """Replace the language's functions by interpreted ones, once in each run of a program.

    The interpreter does so again whenever a program calls a function, which is a third of its time.
    """
    assert _patch is not None
    language = _languages(function)
    if _replaced is None:
        return _patch(function)
    if language <= _replaced:
        return interpreter._LangPatchScope()
    _replaced.update(language)
    return _patch(function)


@functools.cache
def _languages(function: Any) -> frozenset[str]:
    """The modules of the language that a function sees."""
    seen = [v for v in function.__globals__.values() if isinstance(v, types.ModuleType)]
    names = (interpreter.tl.__name__, interpreter.tl.core.__name__)
    return frozenset(module.__name__ for module in seen if module.__name__ in names)


def _mask_too(self: Any, kind: Any, number: Any) -> Any:
    """One number in all places; of a mask the interpreter forgets that it is one."""
    assert _splat is not None
    if number.data.dtype == np.bool_:
        number = interpreter.TensorHandle(number.data, interpreter.tl.int1)
    return _splat(self, kind, number)


def _dot_too(self: Any, a: Any, b: Any, *rest: Any) -> Any:
    """A product of matrices; those of bfloat16 are patterns, which the interpreter forgets."""
    assert _dot is not None
    return _dot(self, _widened(a), _widened(b), *rest)


def _widened(handle: Any) -> Any:
    language = interpreter.tl
    if handle.dtype.scalar != language.bfloat16:
        return handle
    wide = (handle.data.astype(np.uint32) << 16).view(np.float32)
    return interpreter.TensorHandle(wide, language.float32)


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
