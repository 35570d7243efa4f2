"""Thousands of random calls in one process, good and bad in turn: it survives, and each is right.

    python tests/attack_calls.py --count 5000 --seed 0

A good call is compared with dense NumPy in float64; a bad one must raise one of our errors. Few
reductions are called over and over, so that what is kept between calls is met by other arrays.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
from checks import run_alone
from dense import EPS, FORMULAS, NAMES, WEIGHT, aliases, complaint, options, takes

SIZES = [0, 1, 1, 2, 3, 5, 8, 17, 33, 64, 100, 130, 300]
_KEPT = 40


def _reductions(rng: random.Random) -> list[tuple[Any, ...]]:
    """Some reductions of some formulas: (name, formula, dim, axis, Genred)."""
    from pairfold import Genred

    found: list[tuple[Any, ...]] = []
    for number in range(_KEPT):
        name = NAMES[number % len(NAMES)]
        formula = rng.choice([formula for formula in FORMULAS if takes(name, formula)])
        dim, axis = rng.choice([1, 2, 3, 5, 17]), rng.randrange(2)
        genred = Genred(formula.text, aliases(dim), name, axis=axis, **options(name))
        found.append((name, formula, dim, axis, genred))
    return found


def _array(rng: random.Random, shape: tuple[int, ...], low: float) -> Any:
    """Random numbers with strides of some kind."""
    draw = np.random.default_rng(rng.randrange(2**32))
    kind = rng.randrange(6)
    if kind == 1:
        return draw.uniform(low, 1.2, shape[::-1]).T
    if kind == 2:
        return draw.uniform(low, 1.2, tuple(2 * size for size in shape))[
            (slice(None, None, 2),) * len(shape)
        ]
    if kind == 3 and shape[0]:
        return np.broadcast_to(draw.uniform(low, 1.2, (1, *shape[1:])), shape)
    if kind == 4:
        return draw.uniform(low, 1.2, shape)[::-1]
    return draw.uniform(low, 1.2, shape)


def _arguments(rng: random.Random, m: int, n: int, dim: int, dtype: str, torch: Any) -> Any:
    """Arguments of the library, and their values in float64."""
    batch = rng.choice([(), (), (), (2,), (2, 3), (0,)])
    shapes = {"x": (m, dim), "y": (n, dim), "b": (n, 1), "p": (dim,)}
    given: list[Any] = []
    values: dict[str, Any] = {}
    for name, shape in shapes.items():
        lead = batch if rng.random() < 0.7 else ()
        array = _array(rng, (*lead, *shape), 0.3)
        if torch is not None:
            array = torch.from_numpy(array.copy() if min(array.strides) < 0 else array)
            array = array.to(getattr(torch, dtype))
            values[name] = array.double().numpy()
        else:
            array = array.astype(dtype, copy=False)
            values[name] = array.astype(np.float64)
        given.append(array)
    # A parameter's axes beside those of rows and columns: NumPy's rule for all of them.
    deep = np.broadcast_shapes(*(values[k].shape[: -1 if k == "p" else -2] for k in values))
    for name, shape in shapes.items():
        values[name] = np.broadcast_to(values[name], (*deep, *shape))
    return given, values


def _numpy(got: Any) -> Any:
    if isinstance(got, tuple):
        return tuple(map(_numpy, got))
    if isinstance(got, np.ndarray):
        return got
    return (got.float() if got.is_floating_point() and got.element_size() == 2 else got).numpy()


# ----- bad calls ----------------------------------------------------------------------------------


def _freed(rng: random.Random, x: Any, torch: Any) -> Any:
    if torch is None or not x.numel():
        return x.astype("datetime64[s]") if torch is None else x.to("meta")
    x = x.clone()
    x.untyped_storage().resize_(rng.choice([0, 1, x.untyped_storage().nbytes() - 1]))
    return x


def _kind(rng: random.Random, x: Any, torch: Any) -> Any:
    """Something that is no dense array of numbers of the library."""
    if torch is None:
        other = [x.tolist(), None, "x", x.astype(object), np.ma.masked_array(x, x > 1), object()]
        return rng.choice(other)
    from torch._subclasses.fake_tensor import FakeTensorMode

    other = [
        lambda: x.numpy(force=True) if x.dtype != torch.bfloat16 else None,
        lambda: x.to("meta"),
        lambda: x.to_sparse(),
        lambda: FakeTensorMode().from_tensor(x),
        lambda: torch._to_functional_tensor(x),
        lambda: torch.nn.UninitializedParameter(),
        lambda: torch.nested.nested_tensor([x]),
        lambda: torch.nested.nested_tensor([x.contiguous()], layout=torch.jagged),
        lambda: x.to(torch.complex64),
        lambda: x.long(),
    ]
    return rng.choice(other)()


def _dtype(rng: random.Random, x: Any, torch: Any) -> Any:
    """Numbers that are not computed with."""
    names = ["int64", "int8", "bool", "complex64", "complex128"]
    return (
        x.to(getattr(torch, rng.choice(names)))
        if torch is not None
        else x.astype(rng.choice([*names, "longdouble", ">f8", "datetime64[s]"]))
    )


def _shape(rng: random.Random, x: Any, torch: Any) -> Any:
    """Components too many, or more axes; not where dimension 1 lets the last axis be left out."""
    if x.shape[-1] == 1:
        return _dtype(rng, x, torch)
    if rng.random() < 0.5:
        return (np if torch is None else torch).zeros(
            (*x.shape[:-1], x.shape[-1] + 3), dtype=x.dtype
        )
    return (np if torch is None else torch).zeros(
        (7, 5, 11, *x.shape[:-1], x.shape[-1] + 1), dtype=x.dtype
    )


def _out(rng: random.Random, found: Any, torch: Any) -> Any:
    """An array that cannot receive the result."""
    own = np if torch is None else torch
    other = [
        lambda: own.zeros((*found.shape, 2), dtype=found.dtype),
        lambda: own.zeros(found.shape, dtype=own.complex64),
        lambda: np.broadcast_to(np.zeros(1), (5, 5)),
        lambda: "out",
        lambda: object(),
    ]
    if torch is not None:
        other += [lambda: found.to("meta"), lambda: torch._to_functional_tensor(found)]
        if found.numel():
            other.append(lambda: _freed(rng, found, torch))
    return rng.choice(other)()


BAD: list[Callable[..., Any]] = [_freed, _kind, _dtype, _shape]


def one(rng: random.Random, known: list[tuple[Any, ...]], counts: Counter[str]) -> None:
    """One call, good or bad; raises where it is wrong."""
    from pairfold.errors import InternalError, PairfoldError

    name, formula, dim, axis, genred = rng.choice(known)
    dtype = rng.choice(list(EPS))
    torch = None
    if dtype == "bfloat16" or rng.random() < 0.5:
        import torch
    m, n = rng.choice(SIZES), rng.choice(SIZES)
    given, values = _arguments(rng, m, n, dim, dtype, torch)
    about = f"{name} {formula.text} dim {dim} axis {axis} {dtype} {m}x{n} {WEIGHT}"
    about += f" {[tuple(x.shape) for x in given]} {'NumPy' if torch is None else 'torch'}"
    bad = rng.random() < 0.4
    out: Any = None
    if bad:
        used = [k for k, letter in enumerate("xybp") if letter in formula.text or k < 2]
        if rng.random() < 0.15:
            out = _out(
                rng, genred(*given) if not isinstance(genred(*given), tuple) else given[0], torch
            )
            about += " with a bad out"
        else:
            place, spoil = rng.choice(used), rng.choice(BAD)
            given[place] = spoil(rng, given[place], torch)
            about += f" argument {place} by {spoil.__name__}"
    print(about, flush=True)
    try:
        got = genred(*given, out=out)
    except InternalError:
        raise
    except PairfoldError:
        if not bad:
            raise
        counts["refused"] += 1
        return
    if bad:
        raise AssertionError(f"{about}: this was computed")
    wrong = complaint(name, formula, axis, values, _numpy(got), dtype)
    if wrong:
        raise AssertionError(f"{about}: {wrong}")
    counts["right"] += 1


def main() -> int:
    """Make the calls in a process of its own."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--here", action="store_true", help="in this process")
    chosen = parser.parse_args()
    if chosen.here:
        rng = random.Random(chosen.seed)
        known, counts = _reductions(rng), Counter[str]()
        for _ in range(chosen.count):
            one(rng, known, counts)
        print(", ".join(f"{count} {kind}" for kind, count in counts.items()))
        return 0
    return run_alone(__file__, count=chosen.count, seed=chosen.seed)


if __name__ == "__main__":
    sys.exit(main())
