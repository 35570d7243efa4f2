"""What pairfold finds on this machine and what it will use, as lines of text.

`report` looks, compiles one small formula, checks its numbers and times it. Nothing here prints,
and torch is imported only on request: its version is read from its metadata.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import statistics
import textwrap
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from . import __version__
from .core.notebook import page
from .errors import PairfoldError
from .settings import (
    current,
    describe,
    environment_variable,
    thread_count,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.floating]

_FORMULA = "Exp(-SqDist(x,y))*b"
_ALIASES = ["x = Vi(3)", "y = Vj(3)", "b = Vj(1)"]
_PAIRS_SIDE = 8192
_MATTERING = (
    *("avx512f", "avx512dq", "avx512bw", "avx512vl", "avx512vnni", "avxvnni", "avx2", "fma"),
    *("sse4.1", "sse2", "neon", "dotprod", "lse", "sve", "sve2"),
)
_DRIVERS = {
    "/proc/driver/nvidia/version": "an NVIDIA driver",
    "/dev/nvidiactl": "an NVIDIA driver",
    "/dev/kfd": "an AMD driver",
}


class Report(NamedTuple):
    """What was found: lines of text, and whether pairfold works here."""

    lines: list[str]
    works: bool

    def __str__(self) -> str:
        return "\n".join(self.lines)

    def __repr__(self) -> str:
        return f"<Report {self.lines[-1]}; print() shows all>"

    def _repr_html_(self) -> str:
        """What notebooks show: a table of the sections."""
        *sections, verdict = "\n".join(self.lines).split("\n\n")
        parts = [section.partition("\n") for section in sections]
        return page(verdict, [(title, textwrap.dedent(text)) for title, _, text in parts])


def report(*, ask_torch: bool = False) -> Report:
    """Look, and try a kernel.

    Args:
        ask_torch: import torch and ask it for GPUs; otherwise only its version is looked up.

    >>> report().works
    True
    """
    lines: list[str] = []
    works = True
    sections: dict[str, Callable[[], list[str]]] = {
        "versions": _versions,
        "processor": _processor,
        "threads": _threads,
        "settings": _settings,
        "GPU": lambda: _gpu(ask_torch),
        "a kernel": _kernel,
    }
    for title, section in sections.items():
        try:
            found = section()
        except PairfoldError as error:
            found = str(error).split("\n")
            works = False
        except Exception:  # whatever is broken here is what the report is for
            found = ["FAILED:", *traceback.format_exc().rstrip().split("\n")]
            works = False
        lines += [title, *(f"  {line}" for line in found), ""]
    lines.append("pairfold works here" if works else "pairfold does NOT work here: see above")
    return Report(lines, works)


def _table(rows: Mapping[str, str]) -> list[str]:
    width = max(map(len, rows), default=0)
    return [f"{name:<{width}}  {value}" for name, value in rows.items()]


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _versions() -> list[str]:
    rows = {
        "pairfold": __version__,
        "Python": f"{platform.python_version()} ({platform.python_implementation()})",
        "system": f"{platform.system()} {platform.machine()}",
        "numpy": _version("numpy") or "MISSING",
    }
    rows["llvmlite"] = _version("llvmlite") or "MISSING"
    if rows["llvmlite"] != "MISSING":
        import llvmlite.binding as llvm

        rows["llvmlite"] += f" (LLVM {'.'.join(map(str, llvm.llvm_version_info))})"
    for optional in ("torch", "triton", "matplotlib", "tqdm", "pykeops", "pairfold-pykeops"):
        rows[optional] = _version(optional) or "not installed (optional)"
    return _table(rows)


def _processor() -> list[str]:
    from .backends.llvm.machine import machine

    which = machine(current().target)
    bits = 8 * which.vector_bytes
    features = [name for name in _MATTERING if name in which.has]
    return _table(
        {
            "name": _processor_name(),
            "to LLVM": which.cpu,
            "target": which.name,
            "features": " ".join(features) or "none of those that matter",
            "vectors": f"{bits} bits: {bits // 32} float32 or {bits // 64} float64, "
            f"{which.registers} registers",
        }
    )


def _processor_name() -> str:
    """The maker's name of the CPU, where the system tells it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() in ("model name", "Model", "cpu model"):
                return value.strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _threads() -> list[str]:
    count = thread_count()
    variable = environment_variable("threads")
    if current().threads:
        by_variable = os.environ.get(variable, "") == str(count)
        why = f"{variable}={count}" if by_variable else "the setting `threads`"
    elif thread_count(cpus=lambda: 0):
        why = f"OMP_NUM_THREADS={os.environ['OMP_NUM_THREADS']}"
    else:
        why = "the CPUs that this process may run on"
    return [f"{count}, from {why}; the machine has {os.cpu_count() or 'an unknown number'}"]


def _settings() -> list[str]:
    in_force = current()
    rows: dict[str, str] = {}
    for name, variable, default, _ in describe():
        value = getattr(in_force, name)
        rows[name] = repr(value) + (" (default)" if value == default else "")
        if os.environ.get(variable):
            rows[name] += f"  {variable}={os.environ[variable]}"
    known = {variable for _, variable, _, _ in describe()}
    unknown = sorted(n for n in os.environ if n.startswith("PAIRFOLD_") and n not in known)
    return _table(rows) + [f"{name} is set, but no setting reads it" for name in unknown]


def _gpu(ask_torch: bool) -> list[str]:
    drivers = sorted({says for path, says in _DRIVERS.items() if os.path.exists(path)})
    lines = [" and ".join(drivers) if drivers else "no driver found"]
    lines.append(f"Triton {_version('triton') or 'is not installed, which GPUs need'}")
    if not ask_torch:
        return [*lines, "not tried: `python -m pairfold doctor --torch` asks torch for GPUs"]
    if not _version("torch"):
        return [*lines, "not used: torch, which owns the memory of GPUs, is not installed"]
    from torch import cuda

    count = cuda.device_count() if cuda.is_available() else 0
    lines.append(f"torch sees {count or 'no'} GPU(s)")
    for number in range(count):
        found = cuda.get_device_properties(number)
        lines.append(
            f"  cuda:{number}  {found.name}, {found.total_memory >> 20} MB, "
            f"{found.multi_processor_count} multiprocessors"
        )
    if not count or not _version("triton"):
        return [*lines, "not used: tensors on a GPU need one, a driver, and Triton"]
    return [*lines, f"a kernel ran there: error {_gpu_error():.1e}, relative to NumPy in float64"]


def _gpu_error() -> float:
    """The error of a small sum on the first GPU."""
    from .numpy import Genred

    gaussian = Genred(_FORMULA, _ALIASES, axis=1)
    arrays = _points(177, 203)
    return _checked_error(gaussian(*arrays, backend="GPU"), arrays)


def _kernel() -> list[str]:
    """Compile a formula, compare it with NumPy in float64, and time a larger sum."""
    from .backends.llvm.explained import Explanation
    from .numpy import Genred

    gaussian = Genred(_FORMULA, _ALIASES, axis=1)
    arrays = _points(177, 203)
    start = time.perf_counter()
    got = gaussian(*arrays)
    first = time.perf_counter() - start
    error = _checked_error(got, arrays)
    plan = gaussian.explain(*arrays)
    assert isinstance(plan, Explanation)  # that of machine code
    lines = {
        "formula": f"sum over j of {_FORMULA}, 3 dimensions, float32",
        "error": f"{error:.1e}, relative to NumPy in float64",
        "compiled": f"in {1e3 * plan.native.seconds:.0f} ms "
        f"(the whole first call: {1e3 * first:.0f} ms)",
        "speed": f"{_speed(gaussian, _points(_PAIRS_SIDE, _PAIRS_SIDE)):.2f} Gpairs/s for "
        f"{_PAIRS_SIDE} x {_PAIRS_SIDE} pairs (an estimate: three runs)",
    }
    return _table(lines)


def _points(rows: int, columns: int) -> list[Floats]:
    """Arguments of the formula that is tried."""
    import numpy as np

    random = np.random.default_rng(0)
    shapes = ((rows, 3), (columns, 3), (columns, 1))
    return [random.standard_normal(shape).astype(np.float32) for shape in shapes]


def _checked_error(got: Floats, arrays: Sequence[Floats]) -> float:
    """The largest error of sums, relative to NumPy in float64.

    Raises:
        ArithmeticError: it is not a small one.
    """
    import numpy as np

    x, y, b = (array.astype(np.float64) for array in arrays)
    table = np.exp(-((x[:, None, :] - y[None, :, :]) ** 2).sum(-1))
    error = float(np.abs(got - table @ b).max() / (table @ np.abs(b)).max())
    if not error < 1e-5:
        raise ArithmeticError(f"the kernel's numbers are wrong: relative error {error:.1e}")
    return error


def _speed(reduction: Callable[..., object], arrays: Sequence[object]) -> float:
    reduction(*arrays)
    times: list[float] = []
    for _ in range(3):
        start = time.perf_counter()
        reduction(*arrays)
        times.append(time.perf_counter() - start)
    return 1e-9 * _PAIRS_SIDE**2 / statistics.median(times)
