"""What a run needs and says of its surroundings: the peers' Pythons, C++, the machine."""

from __future__ import annotations

import datetime
import importlib
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
PYKEOPS = "pykeops==2.3"
PEERS = ("jax", "numba", "scikit-learn", "faiss-cpu", "scipy")
PYKEOPS_FLAGS = "-march=native -ffast-math"
CPP_FLAGS = ("-O3", "-march=native", "-ffast-math", "-fopenmp", "-std=c++17", "-shared", "-fPIC")
_FLAGS = ("avx2", "fma", "avx512f", "avx512dq", "avx512bw", "avx512vl", "avx512_bf16", "asimd")


def pykeops_python(given: str | None, cache: Path, log: Path) -> tuple[str | None, str]:
    """A Python that has PyKeOps and torch, and a note; None and the reason where there is none.

    Without `given`, a virtual environment in `cache` is used, and made when missing.
    """
    if given:
        return (given, "") if _imports(given) else (None, "the given Python has no PyKeOps")
    if shutil.which("g++") is None:
        return None, "no C++ compiler, which PyKeOps needs"
    wanted = [PYKEOPS, "torch", "setuptools", "-c", str(ROOT / "constraints.txt")]
    return _installed(cache / "pykeops-2.3", wanted, "pykeops", log)


def peers_python(given: str | None, cache: Path, log: Path) -> tuple[str | None, str]:
    """A Python that has JAX and the other libraries, and a note; made like that of PyKeOps.

    Of a given Python nothing is asked: the peers whose library is missing say so.
    """
    if given:
        return (given, "") if _imports(given, "numpy") else (None, "the given Python has no NumPy")
    return _installed(cache / "peers", PEERS, "jax", log)


def _installed(
    place: Path, wanted: Sequence[str], module: str, log: Path
) -> tuple[str | None, str]:
    """The Python of a virtual environment that has these packages, and a note."""
    python = place / ("Scripts" if os.name == "nt" else "bin") / "python"
    if python.exists() and _imports(str(python), module):
        return str(python), ""
    commands = [
        [sys.executable, "-m", "venv", str(place)],
        [str(python), "-m", "pip", "install", *wanted],
    ]
    with log.open("a") as stream:
        for command in commands:
            if subprocess.run(command, stdout=stream, stderr=stream).returncode:
                shutil.rmtree(place, ignore_errors=True)
                return None, "it could not be installed (pip failed)"
    return (str(python), "") if _imports(str(python), module) else (None, "it does not start")


def _imports(python: str, module: str = "pykeops") -> bool:
    code = f"import importlib.util as u, sys; sys.exit(not (u.find_spec('{module}')))"
    try:
        return subprocess.run([python, "-c", code], capture_output=True).returncode == 0
    except OSError:
        return False


def cpp_libraries(folder: Path) -> tuple[dict[str, str], str]:
    """reference.cpp compiled, by peer name; with why not, where it cannot be."""
    compiler = shutil.which("g++")
    if compiler is None:
        return {}, "no g++"
    variants = {"C++": []}
    if "avx512f" in cpu_flags():
        variants["C++ 512-bit"] = ["-mprefer-vector-width=512"]
    found = {}
    for name, flags in variants.items():
        target = folder / f"reference{len(flags)}.so"
        source = str(ROOT / "benchmarks" / "reference.cpp")
        command = [compiler, *CPP_FLAGS, *flags, source, "-o", str(target)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            return {}, f"g++ failed: {done.stderr.splitlines()[0]}"
        found[name] = str(target)
    return found, ""


def _cpuinfo(key: str) -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(key)), "")


def cpu_flags() -> list[str]:
    """The CPU's features, where the system tells."""
    return (_cpuinfo("flags") or _cpuinfo("Features")).split()


def machine() -> dict[str, str]:
    """The machine and system, without its name."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    flags = [flag for flag in _FLAGS if flag in cpu_flags()]
    try:
        system = platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    except (OSError, AttributeError):
        system = platform.system()
    kernel = ".".join(platform.release().split("-")[0].split(".")[:2])
    family = _cpuinfo("cpu family")
    model = f" (family {family}, model {_cpuinfo('model')})" if family else ""
    return {
        "CPU": (_cpuinfo("model name") or platform.processor() or platform.machine()) + model,
        "LLVM calls it": _llvm_name(),
        "cores": str(cores),
        "vector features": ", ".join(flags) or "unknown",
        "system": f"{system}, {platform.system()} {kernel}, {platform.machine()}",
    }


def _llvm_name() -> str:
    import llvmlite.binding as llvm

    return str(llvm.get_host_cpu_name())


def versions(extra: dict[str, str]) -> dict[str, str]:
    """Versions of Python, the libraries and the compiler; `extra` comes from the peers."""
    import llvmlite
    import llvmlite.binding as llvm

    found = {
        "Python": platform.python_version(),
        "NumPy": np.__version__,
        "llvmlite": f"{llvmlite.__version__} (LLVM {'.'.join(map(str, llvm.llvm_version_info))})",
        **extra,
    }
    compiler = shutil.which("g++")
    if compiler:
        done = subprocess.run([compiler, "-dumpfullversion"], capture_output=True, text=True)
        found["g++"] = done.stdout.strip()
    return found


def accelerator(torch: Any, device: Any) -> dict[str, str]:
    """The device that torch computes on, and the versions of what makes programs for it."""
    found = {"device": _cpuinfo("model name") or platform.machine(), "revision": revision()}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found |= {
            "device": properties.name,
            "capability": f"{properties.major}.{properties.minor}",
            "multiprocessors": str(properties.multi_processor_count),
            "memory": f"{properties.total_memory / 2**30:.1f} GiB",
            "driver": _driver(),
        }
    try:
        triton = str(importlib.import_module("triton").__version__)
    except ImportError:
        triton = "none"
    runtimes = {"CUDA": torch.version.cuda, "HIP": torch.version.hip}
    runtime = "".join(f", {name} {number}" for name, number in runtimes.items() if number)
    found["versions"] = (
        f"Python {platform.python_version()}, NumPy {np.__version__}, torch {torch.__version__}, "
        f"triton {triton}{runtime}"
    )
    return found


def _driver() -> str:
    """The version of the GPU's driver."""
    try:
        first = Path("/proc/driver/nvidia/version").read_text().splitlines()[0]
    except (OSError, IndexError):
        return "unknown"
    found = re.search(r"\d+\.\d+(\.\d+)?", first)
    return found[0] if found else "unknown"


def revision() -> str:
    """The git revision and its title, which a rebase keeps; marked where the library differs."""
    try:
        head = _git("log", "-1", "--format=%h, %s")
        return head + (" with changes" if _git("status", "--porcelain", "src") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def today() -> str:
    """The date, in universal time."""
    return datetime.datetime.now(datetime.timezone.utc).date().isoformat()
