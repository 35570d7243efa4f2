"""The objects by which `pykeops.config` and `keopscore` describe an installation.

Each fact `x` of an object is an attribute, and has functions `get_x`, `set_x` and `print_x`, as in
keopscore. Facts say what is true of pairfold: no compiler, no files; GPUs are those of torch.
"""

from __future__ import annotations

import os
import platform
import sys
import sysconfig
from collections.abc import Callable

from . import config as _install

Fact = Callable[[], object]


class Described:
    """Facts by name; see the module."""

    def __init__(self, title: str, facts: dict[str, object]) -> None:
        self._title, self._facts = title, facts

    def _fact(self, name: str) -> object:
        found = self._facts[name]
        return found() if callable(found) else found

    def __getattr__(self, name: str) -> object:
        facts: dict[str, object] = self.__dict__.get("_facts", {})
        if name in facts:
            return self._fact(name)
        what, _, fact = name.partition("_")
        if fact in facts and what in ("get", "set", "print"):
            if what == "get":
                return lambda *_, **__: self._fact(fact)
            if what == "print":
                return lambda: self._write([fact])
            return lambda value=None, **__: facts.update({fact: value})
        raise AttributeError(f"{self._title} has no {name!r}")

    def __dir__(self) -> list[str]:
        prefixes = ("", "get_", "set_", "print_")
        return sorted({*super().__dir__(), *(p + name for p in prefixes for name in self._facts)})

    def print_all(self) -> None:
        """Print all facts."""
        self._write(list(self._facts))

    def _write(self, names: list[str]) -> None:
        lines = [f"{self._title} {name}: {self._fact(name)}" for name in names]
        sys.stdout.write("\n".join(lines) + "\n")  # asked for: this is the program's output

    def __repr__(self) -> str:
        return f"<{self._title} of pairfold>"


class Config(Described):
    """Folders and compilers: names of folders, and no compiler."""

    def set_different_build_folder(self, path: str | None = None, **_: object) -> None:
        """See `pykeops.set_build_folder`."""
        _install.set_build_folder(path)


def _home() -> str:
    return os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


_NO_COMPILER = dict.fromkeys(
    ("compile_options", "cpp_env_flags", "cpp_flags", "cxx_compiler", "brew_prefix"), ""
)

config = Config(
    "configuration",
    {
        **_NO_COMPILER,
        "base_dir_path": _home,
        "bindings_source_dir": _home,
        "build_folder": _install.get_build_folder,
        "default_build_folder_name": lambda: os.path.basename(_install.default_build_folder()),
        "default_build_path": _install.default_build_folder,
        "disable_pragma_unrolls": True,
        "environment_variables": lambda: {name: os.environ.get(name) for name in _install.READ},
        "jit_binary": _install.get_build_folder,
        "keops_cache_folder": lambda: os.path.dirname(_install.default_build_folder()),
        "os": platform.platform,
        "use_Apple_clang": False,
    },
)
cuda_config = Described(
    "CUDA",
    {
        "build_folder": _install.get_build_folder,
        "cuda_block_size": _install.cuda_block_size,
        "cuda_include_path": None,
        "cuda_message": lambda: f"{_install.gpu_count()} GPU(s), by torch and Triton",
        "cuda_version": None,
        "gpu_compile_flags": "",
        "gpu_props": (0, ""),
        "include_file_abspath": None,
        "libcuda_folder": None,
        "libnvrtc_folder": None,
        "n_gpus": _install.gpu_count,
        "nvrtc_flags": None,
        "specific_gpus": None,
        "use_cuda": lambda: _install.gpu_count() > 0,
    },
)
openmp_config = Described(
    "OpenMP", {"openmp_lib_path": None, "os": platform.system, "use_OpenMP": False}
)
platform_detector = Described(
    "platform",
    {
        "env_type": lambda: "virtualenv" if sys.prefix != sys.base_prefix else "system",
        "os": platform.platform,
        "python_version": platform.python_version,
    },
)
pykeops_base, pykeops_cuda, pykeops_openmp = config, cuda_config, openmp_config
show_gpu_config = cuda_config

# Headers that compiled bindings would need: there are none.
python_includes = ""


def get_config() -> Config:
    """The description of folders."""
    return config


def get_cuda_config() -> Described:
    """The description of GPUs."""
    return cuda_config


def get_openmp_config() -> Described:
    """The description of OpenMP, which is not used: pairfold has threads of its own."""
    return openmp_config


def get_platform_config() -> Described:
    """The description of Python and the system."""
    return platform_detector


def pykeops_nvrtc_name(type: str = "src") -> str:
    """Where PyKeOps would keep its GPU binder, as source or compiled; nothing is there."""
    ending = ".cpp" if type == "src" else str(sysconfig.get_config_var("EXT_SUFFIX") or ".so")
    return os.path.join(_install.get_build_folder(), "pykeops_nvrtc" + ending)


def pykeops_cpp_name(tag: str = "", extension: str = "") -> str:
    """Where PyKeOps would keep a compiled formula; nothing is there."""
    return os.path.join(_install.get_build_folder(), f"pykeops_cpp_{tag}{extension}")
