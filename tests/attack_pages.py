"""Arrays at the ends of pages, beside pages that may not be read: nothing reads or writes there.

    python tests/attack_pages.py --kernels 1200 --seed 0

Every kernel (reduction, formula, dtype, dimension, axis) is called with some sizes, each argument
and the result in a layout and at an end of its own. Gaps between elements hold NaN. A process of
its own does this, since a mistake ends it; its last line says where.
"""

from __future__ import annotations

import argparse
import ctypes
import mmap
import random
import sys
from typing import Any

import numpy as np
from checks import run_alone
from dense import EPS, FORMULAS, NAMES, Formula, aliases, complaint, options, takes

SIZES = [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 64, 65, 100, 129, 257]
LAYOUTS = [
    *("rows", "columns", "apart", "spread", "backwards", "flipped", "one row", "one component"),
    *("sliding", "records"),
]
_STORED = {"float16": np.float16, "bfloat16": np.uint16, "float32": np.float32}
_alive: list[Any] = []


def fenced(size: int, at_end: bool) -> Any:
    """Bytes that end before a page that may not be touched, or begin behind one."""
    page = mmap.PAGESIZE
    inside = -(-max(size, 1) // page) * page
    memory = mmap.mmap(-1, inside + 2 * page)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    libc = ctypes.CDLL(None, use_errno=True)
    for fence in (start, start + page + inside):
        if libc.mprotect(ctypes.c_void_p(fence), ctypes.c_size_t(page), 0):
            raise OSError(ctypes.get_errno(), "mprotect")
    _alive.append(memory)
    first = page + (inside - size if at_end else 0)
    return np.frombuffer(memory, np.uint8)[first : first + size]


def placed(values: Any, dtype: str, layout: str, at_end: bool) -> tuple[Any, Any]:
    """A fenced view of a layout that holds the values, and all of its memory as elements."""
    stored = np.dtype(_STORED.get(dtype, np.float64))
    rows, dim = values.shape
    item = stored.itemsize
    whole: dict[str, tuple[int, int, int, int]] = {  # first element, strides, elements
        "rows": (0, dim, 1, rows * dim),
        "columns": (0, 1, rows, rows * dim),
        "apart": (0, dim + 3, 1, (rows - 1) * (dim + 3) + dim),
        "spread": (0, 3 * dim, 3, (rows * dim - 1) * 3 + 1),
        "backwards": ((rows - 1) * dim, -dim, 1, rows * dim),
        "flipped": (dim - 1, dim, -1, rows * dim),
        "one row": (0, 0, 1, dim),
        "one component": (0, 1, 0, rows),
        "sliding": (0, 1, 1, rows + dim - 1),
    }
    if layout == "records":
        step = dim * item + 1
        memory = fenced((rows - 1) * step + dim * item, at_end)
        strides, first = (step, item), 0
    else:
        first, row, component, count = whole[layout]
        memory = fenced(count * item, at_end)
        strides = (row * item, component * item)
        memory.view(stored)[:] = 0x7FC0 if dtype == "bfloat16" else np.nan
    view = np.ndarray((rows, dim), stored, memory, first * item, strides)
    view[...] = _rounded(values, dtype)
    return view, memory


def _rounded(values: Any, dtype: str) -> Any:
    if dtype != "bfloat16":
        return values
    return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)


def seen(view: Any, dtype: str) -> Any:
    """The values of a view in float64."""
    if dtype != "bfloat16":
        return view.astype(np.float64)
    return (np.array(view).astype(np.uint32) << 16).view(np.float32).astype(np.float64)


def argument(view: Any, dtype: str, torch: Any) -> Any:
    """The view as an argument, of NumPy where torch is None."""
    if torch is None:
        return view
    if dtype != "bfloat16":
        return torch.from_numpy(view)
    return torch.from_numpy(view.view(np.int16)).view(torch.bfloat16)


def kernel(rng: random.Random, number: int) -> tuple[str, Formula, str, int, int]:
    """A reduction, formula, dtype, dimension and axis; all but the formula go round in turn."""
    name = NAMES[number % len(NAMES)]
    formula = rng.choice([formula for formula in FORMULAS if takes(name, formula)])
    dim = rng.randrange(1, 131) if number % 3 else rng.choice([1, 2, 3, 4, 8, 16, 64, 128, 129])
    return name, formula, rng.choice(list(EPS)), dim, rng.randrange(2)


def calls(rng: random.Random, number: int, count: int) -> int:
    """Call one kernel with some sizes and layouts; raises where a result is wrong."""
    from pairfold import Genred

    name, formula, dtype, dim, axis = kernel(rng, number)
    genred = Genred(formula.text, aliases(dim), name, axis=axis, **options(name))
    for _ in range(count):
        _alive.clear()
        m, n = rng.choice(SIZES), rng.choice(SIZES)
        library = None
        if dtype == "bfloat16" or rng.random() < 0.3:
            import torch as library
        draw = np.random.default_rng(rng.randrange(2**32))
        layouts = [rng.choice(LAYOUTS) for _ in range(4)]
        if library is not None:  # tensors have neither
            plain = {"backwards": "rows", "flipped": "columns", "records": "apart"}
            layouts = [plain.get(layout, layout) for layout in layouts]
        shapes = {"x": (m, dim), "y": (n, dim), "b": (n, 1), "p": (1, dim)}
        given: dict[str, Any] = {}
        passed: list[Any] = []
        for (variable, shape), layout in zip(shapes.items(), layouts, strict=True):
            numbers = draw.uniform(0.3, 1.2, shape) / (dim**0.5 if variable in "xy" else 1)
            view, _ = placed(numbers, dtype, layout, rng.random() < 0.7)
            view = view[0] if variable == "p" else view
            given[variable] = seen(view, dtype)
            passed.append(argument(view, dtype, library))
        about = f"{number} {name} {formula.text} {dtype} dim {dim} axis {axis} {m}x{n} {layouts} "
        print(about, "NumPy" if library is None else "torch", flush=True)
        got = genred(*passed)
        wrong = complaint(name, formula, axis, given, _numpy(got), dtype)
        if wrong is None:
            wrong = _written(rng, genred, passed, got, dtype, library)
        if wrong is not None:
            raise AssertionError(f"{about}: {wrong}")
    return count


def _numpy(got: Any) -> Any:
    if isinstance(got, tuple):
        return tuple(map(_numpy, got))
    if isinstance(got, np.ndarray):
        return got
    return (got.float() if got.is_floating_point() and got.element_size() == 2 else got).numpy()


def _written(
    rng: random.Random, genred: Any, passed: Any, got: Any, dtype: str, library: Any
) -> str | None:
    """Whether the same is written to a fenced `out`, and nothing into its gaps."""
    if isinstance(got, tuple) or len(got.shape) != 2 or str(got.dtype).split(".")[-1] != dtype:
        return None
    layout = rng.choice(["rows", "columns", "apart", "spread"])
    out, memory = placed(np.zeros(tuple(got.shape)), dtype, layout, rng.random() < 0.7)
    out[...] = 0
    elements = memory.view(out.dtype)
    gaps = np.ones(len(elements), bool)
    places = np.arange(len(elements), dtype=np.int64)
    steps = [stride // out.itemsize for stride in out.strides]
    index = np.add.outer(np.arange(out.shape[0]) * steps[0], np.arange(out.shape[1]) * steps[1])
    gaps[places[index.ravel()]] = False
    genred(*passed, out=argument(out, dtype, library))
    if not np.array_equal(seen(out, dtype), _numpy(got).astype(np.float64), equal_nan=True):
        return f"out of layout {layout} holds something else"
    if not np.isnan(seen(elements[gaps], dtype)).all():
        return f"something was written into the gaps of layout {layout}"
    return None


def main() -> int:
    """Run the kernels in a process of its own."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kernels", type=int, default=1200)
    parser.add_argument("--calls", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--here", action="store_true", help="in this process")
    chosen = parser.parse_args()
    if chosen.here:
        rng = random.Random(chosen.seed)
        done = sum(calls(rng, number, chosen.calls) for number in range(chosen.kernels))
        print(f"done: {done} calls of {chosen.kernels} kernels at the ends of pages")
        return 0
    asked = {"kernels": chosen.kernels, "calls": chosen.calls, "seed": chosen.seed}
    return run_alone(__file__, **asked)


if __name__ == "__main__":
    sys.exit(main())
