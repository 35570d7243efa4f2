"""Every option of the library: its type, its default, its environment variable, its meaning.

Settings are immutable values held in a context variable: `settings(threads=1)` changes them from
there on, `with settings(threads=1):` for the enclosed code, both for this thread (or task) only.
Environment variables are read once, at the first use, never at import.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import reprlib
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, ParamSpec, TypedDict, TypeVar

from .errors import OptionError, check_option, closest

if TYPE_CHECKING:
    from typing_extensions import Unpack

_P = ParamSpec("_P")
_R = TypeVar("_R")
_T = TypeVar("_T", int, str, bool)


def _option(
    default: _T, says: str, *, valid: tuple[str, ...] = (), least: int = 0, most: int = 0
) -> _T:
    """`most`: of a whole number, beyond which it means hours of compilation or no memory."""
    meta = {"says": says, "valid": valid, "least": least, "most": most}
    return dataclasses.field(default=default, metadata=meta)


@dataclasses.dataclass(frozen=True)
class Settings:
    """The options in force; read them with `current()`."""

    threads: int = _option(
        0,
        "Threads a reduction may use; 0: OMP_NUM_THREADS, else the CPUs this process may run on.",
        most=4096,
    )
    backend: str = _option(
        "auto",
        "What runs kernels: LLVM's machine code on arrays of the host, Triton's programs on a GPU "
        "(arrays of the host are copied there), or NumPy's interpreter, which is slow and says "
        "what is right; auto: by the memory that holds the arrays.",
        valid=("auto", "llvm", "triton", "reference"),
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
        0, "Pieces the reduced axis is cut into when there are few rows; 0: by size.", most=2**20
    )
    row_vectors: int = _option(
        0, "Vectors of lanes kept in registers at once; 0: by register use.", most=64
    )
    column_jam: int = _option(
        0, "Columns handled together in component loops; 0: by plan.", most=64
    )
    block: int = _option(
        0, "Columns summed before a partial sum is flushed; 0: by cache size.", most=2**20
    )
    row_tiles: int = _option(
        0, "Tiles of rows that share a block of columns; 0: by cache size.", most=2**16
    )
    output_jam: int = _option(
        0, "Components of long outputs handled together; 0: by register use.", most=64
    )
    unroll: int = _option(16, "Longest vector whose components are unrolled.", least=1, most=1024)
    unroll_pairs: int = _option(
        3,
        "Longest sum over components, or product as an output, that is unrolled where a loop is "
        "as good.",
        least=1,
        most=1024,
    )
    screen: str = _option(
        "auto",
        "Whether bounds decide which distances are evaluated in a search for the smallest, where "
        "lanes are rows; results are the same.",
        valid=("auto", "always", "never"),
    )
    prune: str = _option(
        "auto",
        "Whether searches for extrema meet blocks of pairs by the bounds of their values, so that "
        "most are never computed: where it pays (auto), always, or never; results are the same.",
        valid=("auto", "always", "never"),
    )
    rules: str = _option(
        "rounding",
        "Simplifications allowed: bit-exact ones, those that only change rounding, or also those "
        "that may hide NaN, infinities or overflow.",
        valid=("exact", "rounding", "all"),
    )
    separable: str = _option(
        "auto",
        "Sums that are short sums of products of rows and columns: computed without pairs, which "
        "changes rounding only, where that is cheaper (auto), or always, unless `rules` is exact "
        "or digits would be lost; or never.",
        valid=("auto", "always", "never"),
    )
    fused: str = _option(
        "auto",
        "Gradients to several arguments: in one pass over the pairs where it can be, or separate.",
        valid=("auto", "separate"),
    )
    blocks: str = _option(
        "auto",
        "What is done with blocks of pairs under a mask: those where it surely holds nowhere are "
        "skipped, and those where it holds everywhere are not tested, where that is worth asking "
        "(auto) or always; or pairs are tested everywhere.",
        valid=("auto", "always", "test"),
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
        0,
        "1: verify the structure of every kernel that is made; 2: also compare each result with "
        "the reference.",
        most=2,
    )

    def __hash__(self) -> int:
        return self._hash

    @functools.cached_property
    def _hash(self) -> int:
        return hash(tuple(self.__dict__[name] for name in _FIELDS))

    def __reduce__(self) -> tuple[object, ...]:
        # Without the hash: those of texts differ from process to process.
        return Settings, tuple(self.__dict__[name] for name in _FIELDS)


class Options(TypedDict, total=False):
    """Arguments of `settings`, for type checkers; `Settings` says what they mean."""

    threads: int
    backend: str
    target: str
    lanes: str
    splits: int
    row_vectors: int
    column_jam: int
    block: int
    row_tiles: int
    output_jam: int
    unroll: int
    unroll_pairs: int
    screen: str
    prune: str
    rules: str
    separable: str
    fused: str
    blocks: str
    tile: str
    dot: str
    autotune: bool
    progress: bool
    check: int


_FIELDS = {field.name: field for field in dataclasses.fields(Settings)}


def environment_variable(name: str) -> str:
    """The environment variable that sets an option.

    >>> environment_variable("threads")
    'PAIRFOLD_NUM_THREADS'
    """
    return "PAIRFOLD_NUM_THREADS" if name == "threads" else f"PAIRFOLD_{name.upper()}"


def _convert(name: str, value: object, source: str) -> object:
    field = _FIELDS[name]
    kind = type(field.default)
    make: Callable[..., object] = kind
    try:
        if kind is bool and isinstance(value, str):
            value = {"0": False, "1": True, "false": False, "true": True}[value.lower()]
        elif kind is int and (isinstance(value, (bool, float))):
            raise ValueError(value)
        value = make(value)
    except (KeyError, ValueError, TypeError):
        found = reprlib.repr(value)
        raise OptionError(f"{source} must be of type {kind.__name__}", found=found) from None
    if field.metadata["valid"]:
        check_option(source, value, field.metadata["valid"])
    if isinstance(value, int) and kind is int:
        least, most = field.metadata["least"], field.metadata["most"]
        if not least <= value <= most:
            what = f"{source} must be a whole number from {least} to {most}"
            raise OptionError(what, found=reprlib.repr(value))
    return value


def _from_environment(environment: Mapping[str, str]) -> Settings:
    found: dict[str, object] = {}
    for name in _FIELDS:
        variable = environment_variable(name)
        if environment.get(variable, "") != "":
            found[name] = _convert(name, environment[variable], variable)
    return dataclasses.replace(Settings(), **found)


_override: ContextVar[Settings | None] = ContextVar("pairfold_settings", default=None)
_process: Settings | None = None


def current() -> Settings:
    """The settings in force here: those of the last `settings(...)`, else the process'.

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


class settings:
    """Use other options: from here on, or inside a `with` block only.

    They are in force at once, in this thread (or task), as with `torch.set_grad_enabled`; the end
    of a `with` block brings back what was before. As a decorator, `@settings(threads=1)`, they are
    in force while the function runs. For all threads there are the environment variables.

    >>> with settings(threads=1) as inside:
    ...     inside.threads
    1

    Raises:
        OptionError: for an option that does not exist or a value that it cannot have.
    """

    def __init__(self, **options: Unpack[Options]) -> None:
        self._entered = False
        for name in options:
            if name not in _FIELDS:
                hint = closest(name, _FIELDS) or "one of " + ", ".join(_FIELDS)
                raise OptionError(f"there is no setting called {name!r}", hint=hint)
        changed = {name: _convert(name, value, name) for name, value in options.items()}
        self._options, self._before = options, _override.get()
        self._inside = dataclasses.replace(current(), **changed)
        _override.set(self._inside)

    def __enter__(self) -> Settings:
        now = _override.get()
        if now is not self._inside:  # entered later, or somewhere else
            self._before = now
        self._entered = True
        _override.set(self._inside)
        return self._inside

    def __exit__(self, *_: object) -> None:
        _override.set(self._before)
        self._entered = False

    def __del__(self) -> None:
        # An interrupt may have come before the first line of `__exit__`.
        if self._entered and _override.get() is self._inside:
            _override.set(self._before)

    def __call__(self, function: Callable[_P, _R]) -> Callable[_P, _R]:
        _override.set(self._before)

        @functools.wraps(function)
        def inside(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            with settings(**self._options):
                return function(*args, **kwargs)

        return inside


def describe() -> list[tuple[str, str, object, str]]:
    """Rows (name, environment variable, default, meaning) of all options, for docs and `doctor`."""
    return [
        (name, environment_variable(name), field.default, field.metadata["says"])
        for name, field in _FIELDS.items()
    ]


def thread_count(cpus: Callable[[], int] | None = None) -> int:
    """Threads a reduction may use now: setting, then OMP_NUM_THREADS, then the affinity mask.

    OMP_NUM_THREADS is written for OpenMP: like there, what is no number of threads is passed over.
    """
    wanted = current().threads
    if wanted:
        return wanted
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if first.isascii() and first.isdigit() and len(first) < 10 and int(first) > 0:
        return min(int(first), _FIELDS["threads"].metadata["most"])
    return (cpus or available_cpus)()


def available_cpus() -> int:
    """CPUs that this process may run on (its affinity mask where the system has one).

    From Python 3.13 on, Windows and macOS are asked for the CPUs of the process, too.
    """
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    count = getattr(os, "process_cpu_count", os.cpu_count)
    return count() or 1
