"""From printed text to Triton functions; machine code for any GPU, without one.

The text lives in a module of its own, under a file name that debuggers and tracebacks find.
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import linecache
import os
import re
import sys
import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import CodeType, ModuleType
from typing import Protocol

from ...core.cache import cached
from ...errors import DeviceError, InternalError
from ...lower.kernel import PAIR, Kernel
from ...lower.tiling import Tiling, longest_list
from .source import Source, source
from .values import LETTERS

_POINTERS = {
    "float32": "*fp32", "float64": "*fp64", "float16": "*fp16", "bfloat16": "*bf16",
}  # fmt: skip
_RESULTS = {"index": "*i64", "truth": "*i1", "state": "*fp64"}


class Launched(Protocol):
    """A Triton function, which is launched on a grid."""

    def __getitem__(self, grid: tuple[int, int], /) -> Callable[..., object]: ...


class _Made(Protocol):
    """What Triton compiled."""

    @property
    def asm(self) -> Mapping[str, str]: ...


def triton() -> ModuleType:
    """The module triton.

    Raises:
        DeviceError: it is not installed.
    """
    # Said once per process, of a default that will change: products and sums may be fused here.
    os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")
    try:
        import triton as module
    except ImportError:
        raise DeviceError(
            "reductions on a GPU need Triton, which is not installed",
            hint="pip install torch triton",
        ) from None
    return module


def interpreting() -> bool:
    """Whether Triton interprets its programs on the CPU (TRITON_INTERPRET=1)."""
    return os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "on", "yes")


class _Loader(importlib.abc.InspectLoader):
    def __init__(self, text: str, filename: str) -> None:
        self.text, self.filename = text, filename

    def get_source(self, fullname: str) -> str:
        """The printed text."""
        return self.text

    def get_code(self, fullname: str) -> CodeType:
        """Its code."""
        return self.source_to_code(self.text, self.filename)


class _Printed:
    """A module, and the places where Python and its debuggers find it, until it is dropped."""

    def __init__(self, module: ModuleType, filename: str) -> None:
        self.module = module
        dropped = weakref.finalize(self, _forget, module.__name__, filename)
        dropped.atexit = False


def _forget(name: str, filename: str) -> None:
    sys.modules.pop(name, None)
    linecache.cache.pop(filename, None)


@cached("GPU modules", 1024)
def _printed(text: str, name: str, interpreted: bool) -> _Printed:
    triton()
    kind = ".interpreted" if interpreted else ""
    full = f"pairfold.kernels.{name}.{abs(hash(text)):x}{kind}"
    filename = f"<{full}>"
    lines = text.splitlines(keepends=True)
    linecache.cache[filename] = (len(text), None, lines, filename)
    spec = importlib.util.spec_from_loader(full, _Loader(text, filename), origin=filename)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[full] = module
    spec.loader.exec_module(module)
    return _Printed(module, filename)


def module_of(text: str, name: str, interpreted: bool) -> ModuleType:
    """The module that a printed text is; `interpreted` tells apart what Triton made of it."""
    return _printed(text, name, interpreted).module


class Program:
    """A kernel under a tiling, printed and ready to be launched."""

    def __init__(self, kernel: Kernel, tiling: Tiling, guarded: bool = False) -> None:
        self.kernel, self.tiling = kernel, tiling
        self.source: Source = source(kernel, tiling, guarded)
        self.constants = {
            "ROWS": tiling.rows,
            "COLUMNS": tiling.columns,
            "CHUNK": tiling.chunk,
            "PLACES": longest_list(kernel),
        }

    def _module(self) -> ModuleType:
        return module_of(self.source.text, self.source.name, interpreting())

    @property
    def main(self) -> Launched:
        """The Triton function that folds."""
        return getattr(self._module(), self.source.name)

    @property
    def combine(self) -> Launched:
        """The Triton function that merges the parts of a split axis."""
        return getattr(self._module(), f"{self.source.name}_combine")

    def _signature(self, arguments: tuple[str, ...]) -> dict[str, str]:
        """Types of arguments, for compilation without any."""
        stored = _POINTERS[self.tiling.stored or self.tiling.dtype]
        found: dict[str, str] = {}
        truths = {f"{LETTERS[PAIR]}{a.position}" for a in self.kernel.arguments if a.truth}
        for name in arguments:
            if name in truths:
                found[name] = "*i1"
            elif re.fullmatch(r"[xypz]\d+", name):
                found[name] = stored
            elif re.fullmatch(r"o\d+", name):
                found[name] = _RESULTS.get(self.kernel.kinds[int(name[1:])], stored)
            else:
                found[name] = "*fp32" if name.startswith("centre") else _OTHERS.get(name, "i64")
        found["scratch"] = _POINTERS[self.tiling.dtype]
        return {name: found[name] for name in arguments}

    def compiled(self, target: str, combine: bool = False) -> Compiled:
        """Machine code for a GPU: "sm_80", "sm_90", "gfx942" ...; none needs to be there."""
        module = triton()
        from triton.backends.compiler import GPUTarget  # pyright: ignore
        from triton.compiler import ASTSource  # pyright: ignore

        arguments = self.source.combine_arguments if combine else self.source.arguments
        # Strides of components are 1 and those of rows anything, as in most programs.
        ones = {name: 1 for name in arguments if re.fullmatch(r"[xypzo]\d+_c", name)}
        constants = {**self.constants, **ones}
        signature = {**self._signature(arguments), **dict.fromkeys(constants, "constexpr")}
        which = (
            GPUTarget("cuda", int(target.removeprefix("sm_")), 32)
            if target.startswith("sm_")
            else GPUTarget("hip", target, 64)
        )
        start = time.perf_counter()
        made = module.compile(
            ASTSource(self.combine if combine else self.main, signature, constants),
            target=which,
            options={"num_warps": self.tiling.warps, "num_stages": 1},
        )
        return Compiled(target, made, time.perf_counter() - start)


_OTHERS = {
    "offsets": "*i64", "table": "*i64", "intervals": "*i64", "partial": "*fp64", "flag": "*i32",
}  # fmt: skip


def _jump(instruction: str, labels: dict[str, int]) -> int:
    """The instruction that one may jump to, -1 if it does not: a label, or a near call's address.

    NVIDIA's instructions take 16 bytes each.
    """
    near = re.search(r"CALL\.REL\.NOINC (0x\w+)", instruction)
    if near:
        return int(near[1], 16) // 16
    found = re.search(r"(?:BRA|branch)\S*\s+(?:.*\s)?`?\(?\.?(L\w+)", instruction)
    return labels.get(found[1], -1) if found else -1


@dataclass(frozen=True)
class Compiled:
    """Machine code for one GPU."""

    target: str
    made: _Made
    seconds: float

    @property
    def assembly(self) -> str:
        """The disassembly: SASS for NVIDIA, GCN for AMD."""
        return self.made.asm["sass" if self.target.startswith("sm_") else "amdgcn"]

    def instructions(self) -> tuple[list[str], dict[str, int]]:
        """Instructions in order, and where labels stand among them."""
        found: list[str] = []
        labels: dict[str, int] = {}
        for line in self.assembly.splitlines():
            label = re.match(r"\s*\.?(L\w+):", line)
            if label:
                labels[label[1]] = len(found)
            elif self.target.startswith("sm_"):
                if "\t" in line:
                    found.append(line.split("\t")[1].strip())
            elif re.match(r"\s+[a-z]_?\w+", line) and not line.strip().startswith((".", ";")):
                found.append(line.strip())
        return found, labels

    def loops(self) -> list[tuple[int, int]]:
        """First and last instruction of every loop, in order."""
        found, labels = self.instructions()
        starts = ((_jump(text, labels), place) for place, text in enumerate(found))
        return sorted({(start, place) for start, place in starts if 0 <= start <= place})

    def main_loop(self) -> tuple[int, int]:
        """The loop over whole blocks of columns: the first within the largest of all."""
        spans = self.loops()
        first, last = max(spans, key=lambda span: span[1] - span[0])
        within = [(a, b) for a, b in spans if first <= a and b < last]
        return min(within)

    def turn(self, loop: tuple[int, int]) -> int:
        """Instructions of one turn of a loop on its shortest way, past whatever may be skipped."""
        found, labels = self.instructions()
        first, last = loop
        steps, reached = {first: 1}, [first]
        for place in reached:
            if place == last:
                return steps[last]
            target = _jump(found[place], labels)
            ways = [target] if target >= 0 else []
            if target < 0 or re.match(r"@|s_cbranch", found[place]):
                ways.append(place + 1)
            for way in ways:
                if way not in steps and way < len(found):
                    steps[way] = steps[place] + 1
                    reached.append(way)
        raise InternalError("no way through a loop of machine code", found=str(loop))

    def spills(self) -> int:
        """Instructions that use local (scratch) memory: registers that did not fit."""
        names = ("LDL", "STL") if self.target.startswith("sm_") else ("scratch_",)
        found, _ = self.instructions()
        return sum(name in text for text in found for name in names)
