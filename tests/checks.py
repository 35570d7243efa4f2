"""Assertions that always raise, and say which element is worst, of which formula, with which seed.

Tolerances follow from the dtype and from how many terms were summed: c * eps * sqrt(n), relative
to the largest magnitude that took part. A test that needs another tolerance states it.
"""

from __future__ import annotations

import ctypes
import subprocess
import sys
from typing import Any

import numpy as np

_ULPS = 64.0


def tolerance(dtype: Any, terms: int = 1) -> float:
    """Relative error allowed after summing `terms` numbers of this dtype.

    >>> f"{tolerance('float32', 4):.2g}"
    '1.5e-05'
    """
    return _ULPS * float(np.finfo(dtype).eps) * float(np.sqrt(max(terms, 1)))


def assert_close(
    got: Any,
    want: Any,
    *,
    terms: int = 1,
    scale: float | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    formula: object = None,
    seed: object = None,
) -> None:
    """Raise AssertionError unless |got - want| <= atol + rtol * |want| everywhere.

    `rtol` is `tolerance(dtype of got, terms)` unless given; `atol` is `rtol * scale`, where scale
    is the largest finite |want|, or 1 if that is less. NaN must meet NaN, infinities their like.
    """
    got, want = np.asarray(got), np.asarray(want)
    about = f"\n  formula: {formula}" * (formula is not None) + f"\n  seed: {seed}" * (
        seed is not None
    )
    if got.shape != want.shape:
        raise AssertionError(f"shape {got.shape}, expected {want.shape}{about}")
    if got.size == 0:
        return
    dtype = got.dtype if got.dtype.kind == "f" else np.dtype("float64")
    rtol = tolerance(dtype, terms) if rtol is None else rtol
    finite = np.isfinite(want)
    if atol is None:
        largest = float(np.abs(want[finite]).max(initial=0.0))
        atol = rtol * (max(largest, 1.0) if scale is None else scale)
    with np.errstate(invalid="ignore", divide="ignore"):
        error = np.abs(np.where(finite, got, 0).astype(float) - np.where(finite, want, 0))
        allowed = atol + rtol * np.abs(np.where(finite, want, 0))
        same = (got == want) | (np.isnan(got) & np.isnan(want))
        excess = np.where(same, 0.0, np.where(finite & np.isfinite(got), error / allowed, np.inf))
    worst = np.unravel_index(np.argmax(excess), got.shape)
    if excess[worst] > 1:
        raise AssertionError(
            f"{int((excess > 1).sum())} of {got.size} elements differ; the worst is "
            f"{tuple(int(k) for k in worst)}\n"
            f"  got:  {got[worst]!r}\n  want: {want[worst]!r}\n"
            f"  error {error[worst]:.3g}, allowed {np.broadcast_to(allowed, got.shape)[worst]:.3g}"
            f"{about}"
        )


def assert_same_bits(got: Any, want: Any, *, formula: object = None, seed: object = None) -> None:
    """Raise AssertionError unless the arrays are equal bit for bit, up to the sign of zero."""
    assert_close(got, want, rtol=0.0, atol=0.0, formula=formula, seed=seed)


def allow(address: int, size: int, reading: bool) -> None:
    """Let the process read and write whole pages of its memory, or neither."""
    where, length = ctypes.c_void_p(address), ctypes.c_size_t(size)
    if sys.platform == "win32":
        before = ctypes.c_uint32()
        access = 0x04 if reading else 0x01
        kernel = ctypes.windll.kernel32
        assert kernel.VirtualProtect(where, length, access, ctypes.byref(before))
    else:
        assert ctypes.CDLL(None).mprotect(where, length, 3 if reading else 0) == 0


def run_alone(script: str, **options: object) -> int:
    """Run a script in a process of its own, which a mistake may end; its last line is printed.

    Its options are given as --name value, besides --here, which says that this is the process.
    Returns the exit status.
    """
    command = [sys.executable, "-W", "ignore", "-X", "faulthandler", script, "--here"]
    for name, value in options.items():
        command += [f"--{name}", str(value)]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    print(found.stdout.splitlines()[-1] if found.stdout else "nothing ran")
    print(found.stderr[-4000:], file=sys.stderr, end="")
    return found.returncode
