"""What PyKeOps' modules `pykeops`, `pykeops.config` and `keopscore` say about an installation.

pairfold compiles in memory and keeps nothing on disk, so there is no build folder to clean; the
functions that name one work on a name alone.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile

from ..errors import check_option

default_device_id = 0
numpy_found = True
torch_found = importlib.util.find_spec("torch") is not None
show_cuda_status = False


def gpu_count() -> int:
    """The number of GPUs that reductions can run on: those of torch, which it is asked for."""
    if not torch_found or importlib.util.find_spec("triton") is None:
        return 0
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def __getattr__(name: str) -> bool:
    if name == "gpu_available":  # found when it is read: importing does nothing
        return gpu_count() > 0
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


# Flags of keopscore that programs set; pairfold shares common parts of formulas in any case.
auto_factorize = debug_ops = debug_ops_at_exec = False
cuda_block_size = 192

_chosen: list[str] = []

# Environment variables of PyKeOps that are read. Those that name compilers and CUDA have no effect;
# OMP_NUM_THREADS has the same as in PyKeOps (see `pairfold.settings`).
READ = ("PYKEOPS_VERBOSE", "KEOPS_VERBOSE", "KEOPS_CACHE_FOLDER")


def verbose_at_start(package: str) -> bool:
    """The flag `verbose` of `pykeops` or `keopscore`: True unless a variable says "0"."""
    names = READ[:1] if package == "pykeops" else READ[:2]
    return all(os.environ.get(name) != "0" for name in names)


def default_build_folder() -> str:
    """A name in KEOPS_CACHE_FOLDER, or in the temporary folder; nothing is there."""
    cache = os.environ.get("KEOPS_CACHE_FOLDER") or tempfile.gettempdir()
    return os.path.join(cache, "pairfold-build")


def get_build_folder() -> str:
    """The name given to `set_build_folder`, or the default; nothing is there."""
    return _chosen[-1] if _chosen else default_build_folder()


def set_build_folder(path: str | None = None, *_: object, **__: object) -> None:
    """Remember a name for `get_build_folder`; None forgets it. No folder is made."""
    _chosen.clear()
    if path is not None:
        _chosen.append(os.fspath(path))
    if "keopscore" in sys.modules:
        vars(sys.modules["keopscore"])["build_folder"] = get_build_folder()


def clean_pykeops(recompile_jit_binaries: bool = True) -> None:
    """Do nothing: there are no files to delete."""


def clean_keops(recompile_jit_binary: bool = True, verbose: bool = True) -> None:
    """Do nothing: there are no files to delete."""


def check_health(config_type: str = "all") -> None:
    """Print what `python -m pairfold doctor` prints.

    Args:
        config_type: the part that PyKeOps would print: "all", "base", "cuda", "openmp" or
            "platform"; pairfold always prints all.

    Raises:
        OptionError: another part.
    """
    from ..doctor import report

    check_option("config_type", config_type, ("all", "base", "cuda", "openmp", "platform"))
    lines, _ = report()
    sys.stdout.write("\n".join(lines) + "\n")  # asked for: this is the program's output


keops_get_build_folder = get_build_folder
