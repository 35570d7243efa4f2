"""What PyKeOps' modules `pykeops`, `pykeops.config` and `keopscore` say about an installation.

pairfold compiles in memory and keeps nothing on disk, so there is no build folder to clean; the
functions that name one work on a name alone.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile

default_device_id = 0
numpy_found = True
torch_found = importlib.util.find_spec("torch") is not None
gpu_available = False
show_cuda_status = False

# Flags of keopscore that programs set; pairfold shares common parts of formulas in any case.
auto_factorize = debug_ops = debug_ops_at_exec = False
cuda_block_size = 192

_chosen: list[str] = []


def get_build_folder() -> str:
    """The name given to `set_build_folder`, or one in the temporary folder; nothing is there."""
    return _chosen[-1] if _chosen else os.path.join(tempfile.gettempdir(), "pairfold-build")


def set_build_folder(path: str | None = None, *_: object, **__: object) -> None:
    """Remember a name for `get_build_folder`; None forgets it. No folder is made."""
    _chosen.clear()
    if path is not None:
        _chosen.append(os.fspath(path))


def clean_pykeops(recompile_jit_binaries: bool = True) -> None:
    """Do nothing: there are no files to delete."""


def clean_keops(recompile_jit_binary: bool = True, verbose: bool = True) -> None:
    """Do nothing: there are no files to delete."""


def check_health(config_type: str = "all") -> None:
    """Print what `python -m pairfold doctor` prints.

    Args:
        config_type: which part PyKeOps would print; pairfold always prints all.
    """
    from ..doctor import report

    lines, _ = report()
    sys.stdout.write("\n".join(lines) + "\n")  # asked for: this is the program's output


keops_get_build_folder = get_build_folder
