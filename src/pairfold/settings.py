"""Every option of the library: its type, its default, its environment variable, its meaning.

Settings are immutable values held in a context variable: `with settings(threads=1):` changes them
for the enclosed code of this thread (or task) only. Environment variables are read once, at the
first use, never at import.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Generator, Mapping
from contextvars import ContextVar
from typing import Any

from .errors import OptionError, check_option, closest


def _option(default: Any, says: str, *, valid: tuple[Any, ...] = (), least: int = 0) -> Any:
    meta = {"says": says, "valid": valid, "least": least}
    return dataclasses.field(default=default, metadata=meta)


@dataclasses.dataclass(frozen=True)
class Settings:
    """The options in force; read them with `current()`."""

    threads: int = _option(
        0,
        "Threads a reduction may use; 0: OMP_NUM_THREADS, else the CPUs this process may run on.",
    )
    target: str = _option(
        "native",
        "Instruction set of the CPU kernels; the narrower ones serve tests.",
        valid=("native", "avx512", "avx2", "baseline"),
    )
    lanes: str = _option(
        "auto",
        "What SIMD lanes hold: rows of the result, or columns of the reduced axis.",
        valid=("auto", "row", "column"),
    )
    splits: int = _option(
        0, "Pieces the reduced axis is cut into when there are few rows; 0: by size."
    )
    row_vectors: int = _option(0, "Vectors of lanes kept in registers at once; 0: by register use.")
    column_jam: int = _option(0, "Columns handled together in component loops; 0: by plan.")
    block: int = _option(0, "Columns summed before a partial sum is flushed; 0: by cache size.")
    row_tiles: int = _option(0, "Tiles of rows that share a block of columns; 0: by cache size.")
    output_jam: int = _option(0, "Components of long outputs handled together; 0: by register use.")
    unroll: int = _option(16, "Longest vector whose components are unrolled.", least=1)
    unroll_pairs: int = _option(
        3,
        "Longest sum over components, or product as an output, that is unrolled where a loop is "
        "as good.",
        least=1,
    )
    screen: str = _option(
        "auto",
        "Whether bounds decide which distances are evaluated in a search for the smallest; "
        "results are the same.",
        valid=("auto", "always", "never"),
    )
    rules: str = _option(
        "rounding",
        "Simplifications allowed: bit-exact ones, those that only change rounding, or also those "
        "that may hide NaN, infinities or overflow.",
        valid=("exact", "rounding", "all"),
    )
    sweep: str = _option(
        "auto",
        "Gradients to several arguments: in one pass over the pairs where it can be, or separate.",
        valid=("auto", "separate"),
    )
    tile: str = _option(
        "",
        "Pairs that a program on a GPU handles at a time, and its warps, as in 64x32x4; empty: by "
        "register use.",
    )
    dot: str = _option(
        "ieee",
        "How GPUs multiply float32 matrices: exactly to float32, by three products of 11 bits "
        "(tf32x3), by one (tf32), or by one of 8 bits (bf16).",
        valid=("ieee", "tf32x3", "tf32", "bf16"),
    )
    autotune: bool = _option(
        False, "Time several tiles at the first call of a size on a GPU, and keep the fastest."
    )
    progress: bool = _option(False, "Show a progress bar (tqdm) while a long reduction runs.")
    check: int = _option(
        0, "1: verify every kernel's structure; 2: also compare each result with the reference."
    )


_FIELDS = {field.name: field for field in dataclasses.fields(Settings)}


def environment_variable(name: str) -> str:
    """The environment variable that sets an option.

    >>> environment_variable("threads")
    'PAIRFOLD_NUM_THREADS'
    """
    return "PAIRFOLD_NUM_THREADS" if name == "threads" else f"PAIRFOLD_{name.upper()}"


def _convert(name: str, value: Any, source: str) -> Any:
    field = _FIELDS[name]
    kind = type(field.default)
    try:
        if kind is bool and isinstance(value, str):
            value = {"0": False, "1": True, "false": False, "true": True}[value.lower()]
        elif kind is int and (isinstance(value, (bool, float))):
            raise ValueError(value)
        value = kind(value)
    except (KeyError, ValueError, TypeError):
        raise OptionError(f"{source} must be of type {kind.__name__}", found=repr(value)) from None
    if field.metadata["valid"]:
        check_option(source, value, field.metadata["valid"])
    if kind is int and value < field.metadata["least"]:
        least = field.metadata["least"]
        raise OptionError(f"{source} must be at least {least}", found=repr(value))
    return value


def _from_environment(environment: Mapping[str, str]) -> Settings:
    found: dict[str, Any] = {}
    for name in _FIELDS:
        variable = environment_variable(name)
        if environment.get(variable, "") != "":
            found[name] = _convert(name, environment[variable], variable)
    return Settings(**found)


_override: ContextVar[Settings | None] = ContextVar("pairfold_settings", default=None)
_process: Settings | None = None


def current() -> Settings:
    """The settings in force here: those of the innermost `with settings(...)`, else the process'.

    Raises:
        OptionError: when an environment variable `PAIRFOLD_...` has a value it cannot have.
    """
    global _process
    override = _override.get()
    if override is not None:
        return override
    if _process is None:
        _process = _from_environment(os.environ)
    return _process


@contextlib.contextmanager
def settings(**options: Any) -> Generator[Settings, None, None]:
    """Use other options inside a `with` block.

    >>> with settings(threads=1) as inside:
    ...     inside.threads
    1

    Raises:
        OptionError: for an option that does not exist or a value that it cannot have.
    """
    for name in options:
        if name not in _FIELDS:
            hint = closest(name, _FIELDS) or "one of " + ", ".join(_FIELDS)
            raise OptionError(f"there is no setting called {name!r}", hint=hint)
    changed = {name: _convert(name, value, name) for name, value in options.items()}
    token = _override.set(dataclasses.replace(current(), **changed))
    try:
        yield current()
    finally:
        _override.reset(token)


def describe() -> list[tuple[str, str, Any, str]]:
    """Rows (name, environment variable, default, meaning) of all options, for docs and `doctor`."""
    return [
        (name, environment_variable(name), field.default, field.metadata["says"])
        for name, field in _FIELDS.items()
    ]


def thread_count(cpus: Callable[[], int] | None = None) -> int:
    """Threads a reduction may use now: setting, then OMP_NUM_THREADS, then the affinity mask."""
    wanted = current().threads
    if wanted:
        return wanted
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if first.isdigit() and int(first) > 0:
        return int(first)
    return (cpus or available_cpus)()


def available_cpus() -> int:
    """CPUs that this process may run on (its affinity mask where the system has one)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
