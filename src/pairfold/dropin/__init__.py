"""PyKeOps' module names, each filled with what pairfold has under that name.

The table `MODULES` is the only list; `utilities.py` has a part of it. The distribution in
`dropin/` fills itself from it; `install()` does the same for one process, where the real PyKeOps
may also be installed.
Submodules are made by an import hook when they are first imported, so nothing imports torch for
a program that does not ask for it. A module of PyKeOps that is not here says so.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, cast

from .. import __version__
from . import config
from .utilities import UTILITIES

if TYPE_CHECKING:
    from importlib.abc import Loader

PYKEOPS_VERSION = "2.3"
_ROOT = "pykeops"
_ROOTS = (_ROOT, "keopscore")
_MARK = "__pairfold__"

_CLASSES = ("Genred", "KernelSolve")
_LAZY = ("LazyTensor", "ComplexLazyTensor", "Vi", "Vj", "Pm")
# Submodule of pykeops.numpy.cluster and its like -> names there.
_CLUSTER = {
    "grid_cluster": "grid_cluster",
    "matrix": "from_matrix",
    "utils": "sort_clusters cluster_ranges cluster_centroids cluster_ranges_centroids swap_axes",
}
_GENERIC = ("generic_sum", "generic_logsumexp", "generic_argmin", "generic_argkmin")

# Module -> name there -> the pairfold module that has it under the same name, or module:name.
MODULES: dict[str, dict[str, str]] = {
    "pykeops": {
        "set_verbose": "dropin",
        "test_numpy_bindings": "dropin",
        "test_torch_bindings": "dropin",
    },
    "pykeops.common": {},
    "pykeops.numpy": dict.fromkeys((*_CLASSES, *_GENERIC, *_LAZY), "dropin.numpy"),
    "pykeops.numpy.generic": {},
    "pykeops.numpy.generic.generic_ops": dict.fromkeys(_GENERIC, "dropin.numpy"),
    "pykeops.numpy.operations": {"KernelSolve": "dropin.numpy"},
    "pykeops.torch": dict.fromkeys((*_CLASSES, *_GENERIC, *_LAZY), "dropin.torch"),
    "pykeops.torch.generic": {},
    "pykeops.torch.generic.generic_ops": dict.fromkeys(_GENERIC, "dropin.torch"),
}
for _where in ("pykeops.numpy.cluster", "pykeops.torch.cluster"):
    MODULES[_where] = dict.fromkeys(" ".join(_CLUSTER.values()).split(), "frontends.cluster")
    for _part, _names in _CLUSTER.items():
        MODULES[f"{_where}.{_part}"] = dict.fromkeys(_names.split(), "frontends.cluster")

for _module, _names in UTILITIES.items():
    MODULES[_module] = {**MODULES.get(_module, {}), **_names}


def install() -> ModuleType:
    """The package `pykeops` as pairfold provides it, for this process; calling it again is fine.

    Call it before anything imports PyKeOps. It takes precedence over an installed PyKeOps.

    >>> install().__version__
    '2.3'

    Raises:
        ImportError: the real PyKeOps was imported already.
    """
    present = sys.modules.get(_ROOT)
    if present is not None and not hasattr(present, _MARK):
        where = getattr(present, "__file__", None) or "an unknown place"
        raise ImportError(
            f"cannot provide pykeops: another package of that name is already imported\n"
            f"  found: {where}\n"
            f"  try:   pairfold.dropin.install() before the first import of pykeops, or "
            f"python -m pairfold.dropin script.py",
            name=_ROOT,
        )
    _hook()
    return importlib.import_module(_ROOT)


def provide(module: ModuleType) -> None:
    """Make a module that is being imported under a name of `MODULES` what the table says."""
    _hook()
    names = MODULES[module.__name__]
    children = _children(module.__name__)
    given = {name: _find(place, name) for name, place in names.items()}
    setattr(module, _MARK, __version__)
    module.__path__ = []  # nothing below it is looked for on disk
    for child in set(children) & set(names):  # imported later, it would take the name's place
        importlib.import_module(f"{module.__name__}.{child}")
    vars(module).update(given)
    if module.__name__ in _ROOTS:
        vars(module)["__version__"] = PYKEOPS_VERSION
        vars(module)["verbose"] = config.verbose_at_start(module.__name__)
    if module.__name__ == "keopscore":
        vars(module)["build_folder"] = config.get_build_folder()
    vars(module)["__all__"] = sorted(names)
    vars(module)["__getattr__"] = _attribute_of(module.__name__)
    vars(module)["__dir__"] = lambda: sorted({*vars(module), *children})


def _find(place: str, name: str) -> object:
    module, _, other = place.partition(":")
    return getattr(importlib.import_module(f"..{module}", __name__), other or name)


def _children(module: str) -> list[str]:
    """Last parts of the names of the modules directly below one."""
    prefix = module + "."
    return [
        name.removeprefix(prefix)
        for name in MODULES
        if name.startswith(prefix) and "." not in name.removeprefix(prefix)
    ]


def _attribute_of(module: str) -> Callable[[str], ModuleType]:
    """What a module does for a name that it does not hold: import a submodule of that name."""

    def attribute(name: str) -> ModuleType:
        full = f"{module}.{name}"
        if full in MODULES:
            return importlib.import_module(full)
        raise AttributeError(f"module {module!r} has no attribute {name!r}")

    return attribute


def _not_there(full: str) -> str:
    have = sorted(f"{place}.{name}" for place, names in MODULES.items() for name in names)
    return (
        f"pairfold {__version__}, which provides pykeops here, does not have {full}\n"
        f"  it has: {', '.join(have)}"
    )


class _Hook:
    """Finds and loads the modules of the table; first on `sys.meta_path`."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """The spec of a module of the table; an error for any other module below its roots."""
        if name.partition(".")[0] not in _ROOTS:
            return None
        if name not in MODULES:
            raise ModuleNotFoundError(_not_there(name), name=name)
        return ModuleSpec(name, _as_loader(), origin="pairfold.dropin", is_package=True)

    @staticmethod
    def create_module(spec: ModuleSpec) -> ModuleType | None:
        """None: an ordinary module object will do."""
        return None

    @staticmethod
    def exec_module(module: ModuleType) -> None:
        """Fill a new module."""
        module.__doc__ = f"The names of `{module.__name__}`, provided by pairfold."
        provide(module)


_loader = _Hook()


def _as_loader() -> Loader:
    return cast("Loader", _loader)  # it does what a loader does, without the base class


def _hook() -> None:
    if _loader not in sys.meta_path:
        sys.meta_path.insert(0, _loader)


# -- what the package `pykeops` itself holds -------------------------------------------------------


def set_verbose(value: bool) -> None:
    """Set the flag `verbose` of `pykeops` and `keopscore`, by which their printing functions are
    silent; pairfold itself never prints, whatever its value.
    """
    for root in _ROOTS:
        vars(importlib.import_module(root))["verbose"] = bool(value)


def test_numpy_bindings() -> None:
    """Compute a small sum with NumPy arrays and print whether the numbers are right."""
    import numpy as np

    _try_binding("numpy", np.array)


def test_torch_bindings() -> None:
    """Compute a small sum with torch tensors and print whether the numbers are right."""
    _try_binding("torch", importlib.import_module("torch").tensor)


def _try_binding(library: str, array: Callable[[list[list[float]]], object]) -> None:
    """Sum over i of |x_i - y_j|^2 for nine and six numbers: 63 and 90."""
    x = array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]])
    y = array([[3.0, 4.0, 5.0], [6.0, 7.0, 8.0]])
    genred = importlib.import_module(f".{library}", __name__).Genred
    got = genred("SqNorm2(x - y)", ["x = Vi(3)", "y = Vj(3)"], axis=0)(x, y).reshape(-1).tolist()
    if got == [63.0, 90.0]:
        verdict = f"pairfold computes the right numbers with {library}."
    else:
        verdict = f"pairfold computes WRONG numbers with {library}: {got} instead of [63.0, 90.0]."
    sys.stdout.write(verdict + "\n")  # asked for: this is the program's output
