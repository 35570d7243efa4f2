"""Objects of every kind in every place of a call: results, or errors of ours that name the place.

    python tests/attack_objects.py --count 10000 --seed 0

One or two arguments or options of a call that would be good are replaced by objects that people
pass by mistake: numbers, containers, arrays of other dtypes and libraries, tensors of other kinds,
objects whose methods raise. What Python itself says of a wrong keyword is not tried.
"""

from __future__ import annotations

import argparse
import array
import datetime
import decimal
import fractions
import random
import sys
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from pairfold import Genred, KernelSolve, LazyTensor, Pm, Vi, Vj
from pairfold.errors import InternalError, PairfoldError

ALIASES = ["x = Vi(2)", "y = Vj(2)", "s = Pm(1)", "b = Vj(1)"]
FORMULA = "s*Exp(-SqDist(x,y))*b"
SUMS = [
    Genred(FORMULA, ALIASES, name, axis=axis, opt_arg=2 if "KMin" in name else None)
    for name in ("Sum", "LogSumExp", "ArgKMin", "Min_ArgMin", "Prod")
    for axis in (0, 1)
]
SOLVE = KernelSolve("Exp(-SqDist(x,y))*b", ["x = Vi(2)", "y = Vj(2)", "b = Vj(1)"], "b", axis=1)


class Raising:
    """Whatever is asked of it fails."""

    def _raise(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("no")

    __array__ = __len__ = __bool__ = __eq__ = __index__ = __float__ = __iter__ = _raise
    __hash__ = None  # type: ignore[assignment]


class Shaped:
    shape, ndim, dtype = (4, 2), 2, "float64"


def objects() -> list[Any]:
    """What is passed."""
    z = np.zeros((4, 2))
    found: list[Any] = [
        None,
        True,
        3,
        2.5,
        float("nan"),
        1j,
        "x",
        b"x",
        [],
        [1.0],
        [[1.0, 2.0]],
        (),
    ]
    found += [(1, 2), {}, {1}, object(), Raising(), Shaped(), Shaped, range(3), iter([]), np.random]
    found += [lambda: 0, 10**400, -(10**30), slice(0, 1), ..., memoryview(b"abcd"), np.float64]
    found += [array.array("d", [1.0]), decimal.Decimal(1), fractions.Fraction(1, 2)]
    found += [datetime.date(2000, 1, 1), np.float32(2), np.int64(3), np.bool_(True), np.array(2.0)]
    found += [np.array([]), z[:0], z[:, :0], z.T, z[None], np.broadcast_to(0.0, (4, 2)), z > 0]
    found += [
        z.astype(t) for t in (">f4", "longdouble", object, "datetime64[s]", "f2", int, complex)
    ]
    found += [np.array(["a"]), np.zeros(4, [("a", "f8")]), np.ma.masked_array(z), np.matrix(z)]
    found += [np.zeros((1,) * 20), np.zeros((1,) * 32), Vi(z), Vi(0, 2).sum(axis=0), Vj(z) + 1]
    try:
        import torch
    except ImportError:
        return found
    t = torch.zeros(4, 2)
    found += [torch.zeros(()), t, t.bfloat16(), t.int(), t.cfloat(), t.to("meta"), t.to_sparse()]
    found += [torch.nn.Parameter(t), torch.zeros(1).expand(4, 2), torch.zeros((1,) * 30)]
    found += [torch.nested.nested_tensor([t[0], t[:, 0]]), torch.float32, torch.device("cpu")]
    if torch.backends.mkldnn.is_available():
        found.append(t.to_mkldnn())
    return [*found, torch.Size([4, 2])]


def arrays(rng: random.Random) -> list[Any]:
    dtype = rng.choice(["float32", "float64"])
    found = [np.ones(shape, dtype) for shape in ((4, 2), (5, 2), (1,), (5, 1))]
    if rng.random() < 0.5 and "torch" in sys.modules:
        return [sys.modules["torch"].tensor(x) for x in found]
    return found


def draw(rng: random.Random, pool: list[Any]) -> tuple[str, Callable[[], Any]]:
    """Where an object is put, and the call."""
    x, given, fold = rng.choice(pool), arrays(rng), rng.choice(SUMS)
    kind = rng.choice(["argument"] * 4 + ["option", "build", "leaf", "list", "symbol", "solve"])
    if kind == "argument":
        for _ in range(rng.choice([1, 2])):
            given[rng.randrange(4)] = rng.choice(pool)
        return kind, lambda: fold(*given)
    if kind == "option":
        name = rng.choice(["backend", "device_id", "ranges", "out"])
        return name, lambda: fold(*given, **{name: x})
    if kind == "build":
        name = rng.choice(["axis", "opt_arg", "formula2", "dtype_acc", "sum_scheme", "formula"])
        name = rng.choice([name, "reduction_op", "aliases", "use_double_acc"])
        return name, lambda: Genred(**{"formula": FORMULA, "aliases": ALIASES, name: x})
    if kind == "leaf":
        make = rng.choice([Vi, Vj, Pm, LazyTensor])
        return kind, lambda: make(x)
    if kind == "list":
        return kind, lambda: Pm([1.0, x])
    if kind == "symbol":
        return kind, lambda: (Vi(np.ones((4, 2))) * Pm(0, 1)).sum(axis=0)(x)
    name = rng.choice(["alpha", "eps", "tol", "maxiter"])
    return name, lambda: SOLVE(given[1], given[1], given[3], **{name: x})


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=10000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    rng, pool = random.Random(options.seed), objects()
    counts: Counter[str] = Counter()
    for number in range(options.count):
        place, call = draw(rng, pool)
        try:
            call()
            counts["results"] += 1
        except PairfoldError as error:
            counts["errors of ours"] += 1
            if isinstance(error, InternalError):
                raise
        except Exception:
            counts["others"] += 1
            print(f"call {number}, {place}:\n{traceback.format_exc(limit=-3)}")
    print(", ".join(f"{count} {what}" for what, count in sorted(counts.items())))
    sys.exit(bool(counts["others"]))


if __name__ == "__main__":
    main()
