"""What is computed, bit by bit, and the code that computes it: to compare before and after changes.

    python tests/record.py before.txt      (then change the code)
    python tests/record.py after.txt && diff before.txt after.txt

One line for each call: its name, a hash of its results' bits, and one of the LLVM IR that was
written for it, before LLVM's own passes. Calls are those of every reduction, both axes, formulas of
several dimensions, four dtypes, settings that force plans, three targets, ranges and batches, and
gradients. Further lines hash the text of the programs for GPUs. Results are those of this machine.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Iterator
from typing import Any

import dense
import programs
import torch

import pairfold
from pairfold.backends.llvm import native

TARGETS: tuple[dict[str, Any], ...] = ({}, {"target": "avx2"}, {"target": "baseline"})
FORCED = [s for s in programs.SETTINGS if "target" not in s and "check" not in s]
SHAPES = ((17, 23), (130, 700))
_texts: list[str] = []


def hashed(parts: list[bytes]) -> str:
    """A short hash."""
    return hashlib.sha256(b"|".join(parts)).hexdigest()[:16]


def values(dim: int, rows: int, columns: int, dtype: str) -> list[Any]:
    """x, y, b, p as in `dense.py`."""
    source = torch.Generator().manual_seed(dim + rows)
    shapes = [(rows, dim), (columns, dim), (columns, 1), (dim,)]
    return [
        torch.rand(s, generator=source, dtype=torch.float64).to(getattr(torch, dtype))
        for s in shapes
    ]


def calls() -> Iterator[tuple[str, Any, dict[str, Any], list[Any], bool]]:
    """Name, reduction, settings, arguments, and whether gradients are asked for."""
    plain = [(name, f) for name in dense.NAMES for f in dense.FORMULAS if dense.takes(name, f)]
    for k, (name, f) in enumerate(plain):
        dim, axis = (1, 3, 2, 17)[k % 4], k % 2
        dtype = ("float32", "float64", "float32", "float16", "bfloat16")[k % 5]
        for settings in (TARGETS[k % 3], FORCED[k % len(FORCED)]):
            genred = pairfold.Genred(
                f.text, dense.aliases(dim), name, axis=axis, **dense.options(name)
            )
            given = values(dim, *SHAPES[k % 7 == 0], dtype)
            label = f"{name} {f.text} D={dim} axis={axis} {dtype} {settings}"
            yield label, genred, settings, given, False
    slopes = [n for n in dense.NAMES if n not in programs.NO_GRADIENT]
    for k, name in enumerate(slopes):
        f = dense.FORMULAS[k % 4]
        dtype = ("float32", "float64")[k % 2]
        for dim in (2, 5):
            genred = pairfold.Genred(
                f.text, dense.aliases(dim), name, axis=1, **dense.options(name)
            )
            given = values(dim, 17, 23, dtype)
            yield f"gradients {name} {f.text} D={dim} {dtype}", genred, {}, given, True
    for accuracy in programs.ACCURACY:
        genred = pairfold.Genred(
            "Exp(-SqDist(x,y))*b", dense.aliases(3), axis=1, **dict([accuracy])
        )
        yield f"accuracy {accuracy}", genred, {}, values(3, 130, 700, "float32"), False


def results(genred: Any, settings: dict[str, Any], given: list[Any], slopes: bool) -> list[bytes]:
    """The bits of the results, and of gradients of their sum."""
    with pairfold.settings(**settings):
        if slopes:
            given = [x.requires_grad_() for x in given]
        found = genred(*given)
        arrays = list(found) if isinstance(found, tuple) else [found]
        if slopes:
            total = sum((a.sin().sum() for a in arrays if a.is_floating_point()), torch.zeros(()))
            arrays += torch.autograd.grad(total, given, allow_unused=True)
    arrays = [x for x in arrays if x is not None]
    return [x.detach().contiguous().view(torch.uint8).numpy().tobytes() for x in arrays]


def lines() -> Iterator[str]:
    """One line for each call, then one for each program for GPUs."""
    for label, genred, settings, given, slopes in calls():
        _texts.clear()
        found = hashed(results(genred, settings, given, slopes))
        yield f"{label}: {found} {hashed([t.encode() for t in _texts])}"
    from gpu_code import folds
    from gpu_code import programs as of_gpu

    for label, fold, dtype in folds():
        texts = [p.source.text.encode() for p in of_gpu(fold, dtype) if p is not None]
        yield f"GPU {label}: {hashed(texts)}"


def main() -> None:
    """Write the lines to a file."""
    parser = argparse.ArgumentParser()
    parser.add_argument("file")
    options = parser.parse_args()
    inside = native.optimized

    def optimized(text: str, machine: Any) -> Any:
        _texts.append(text)
        return inside(text, machine)

    native.optimized = optimized
    torch.set_num_threads(1)
    with open(options.file, "w") as file:
        for line in lines():
            print(line, file=file)


if __name__ == "__main__":
    main()
