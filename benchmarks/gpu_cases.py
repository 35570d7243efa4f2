"""The cases that are timed on a GPU, in order of importance, with the least work of their pairs.

They are the cases of `cases.py` at other sizes, through torch. The instructions of a pair are those
of a loop whose rows and columns are in registers and in shared memory: half an instruction for
everything that is not arithmetic, as compiled code of the Gaussian in 3 dimensions has.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks import oracles
from benchmarks.case import Array, Arrays, Case
from benchmarks.cases import CASES
from benchmarks.gpu_limits import Cost

SIZES = {"1e4": 10_000, "1e5": 100_000, "1e6": 1_000_000}
COMPILED = ("1e5",)  # sizes at which peers that compile for seconds take part
_REST = 0.5
_EXP64 = 20  # multiply-adds of an exponential in float64, about
BOUND = {"float32": 1e-4, "float64": 1e-11, "float16": 2e-3, "bfloat16": 1.6e-2}


@dataclass(frozen=True)
class Timed:
    """A case, the least work of a pair, and what is compared with the oracle.

    `of`: the index along which results are sampled: "x", "y", or "" for results along both.
    `smaller`: the name of the same case at the next smaller size.
    """

    case: Case
    cost: Cost
    of: str = "x"
    size: str = ""
    smaller: str = ""

    @property
    def kept(self) -> tuple[str, ...]:
        """The variables whose rows are sampled together with those of the result."""
        if not self.of:
            return ()
        kind = "Vi" if self.of == "x" else "Vj"
        names = [a.split("=")[0].strip() for a in self.case.aliases if kind in a]
        return (*names, *(("e",) if self.of == "x" and self.case.wrt else ()))


def gaussian(dim: int) -> Cost:
    """Differences, squares, a scale, the exponential, the weight."""
    return Cost(2 * dim + 2, 2 * dim + 3 + _REST, 1)


def gaussian_backward(dim: int) -> Cost:
    """The exponential once, times b and e; sums for x, y and b."""
    return Cost(4 * dim + 4, 4 * dim + 5 + _REST, 1)


def _wide(cost: Cost) -> Cost:
    """The same in float64, whose exponential is a polynomial."""
    return Cost(cost.fma + _EXP64, cost.issue + _EXP64 + 4, 0)


# The seed's exponential of a sum leaves the sum over pairs: what is left is one sum for each
# component. Log-sum-exp in 3 dimensions: a Gaussian with a maximum and the difference from it; its
# backward pass has the difference alone, and no b that multiplies.
_SEED, _LOG = Cost(3, 3 + _REST), Cost(9, 11 + _REST, 1)
_LOG_BACKWARD = Cost(16, 17 + _REST, 1)
# Attention: two products in 64 dimensions forward, five backward, as multiply-adds or, with far
# fewer instructions, on the tensor cores; a difference, an exponential, a maximum and a sum.
_ATTENTION = Cost(131, 4 + _REST, 1, 256)
_ATTENTION_BACKWARD = Cost(325, 6 + _REST, 1, 640)


def nearest(dim: int) -> Cost:
    """Differences, squares, a comparison; insertions are rare."""
    return Cost(2 * dim, 2 * dim + 1 + _REST)


def _case(base: str, **changes: Any) -> Case:
    return dataclasses.replace(CASES[base], front="torch", floor=(), aim=(), **changes)


def _first(oracle: Callable[[Arrays], list[Array]]) -> dict[str, Any]:
    """What compares the first of several results alone."""
    return {"oracle": lambda v: oracle(v)[:1], "read": lambda v, found: found[:1]}


def _backward(base: str, outputs: int, oracle: Callable[[Arrays], list[Array]]) -> Case:
    """The backward pass of a case for x, y and b; the gradient for x is compared."""
    draw = oracles.with_upstream(CASES[base].draw, outputs)
    return _case(base, what="gradient", wrt=("x", "y", "b"), draw=draw, **_first(oracle))


def _sizes(name: str, case: Case, cost: Cost, sizes: Sequence[str], of: str = "x") -> list[Timed]:
    """One case at several sizes."""
    found: list[Timed] = []
    for size in sizes:
        count = SIZES[size]
        sized = dataclasses.replace(case, name=f"{name}.{size}", rows=count, columns=count)
        smaller = found[-1].case.name if found else ""
        found.append(Timed(sized, cost, of, size, smaller))
    return found


def _gaussian_backward() -> list[Timed]:
    """All gradients are compared at the smallest size, that for x at the others."""
    case, cost, name = _case("gaussian.backward"), gaussian_backward(3), "gaussian.backward"
    whole = _sizes(name, case, cost, ["1e4"], of="")
    larger = dataclasses.replace(case, **_first(oracles.gaussian_gradients))
    later = _sizes(name, larger, cost, ["1e5", "1e6"])
    return [*whole, dataclasses.replace(later[0], smaller=whole[0].case.name), later[1]]


def _dims() -> list[Timed]:
    found: list[Timed] = []
    for dim in (10, 64, 100):
        name = f"gaussian.dim{dim}"
        found += _sizes(name, _case(name), gaussian(dim), ["1e4", "1e5"])
    dim = 64
    aliases = (f"x = Vi({dim})", f"y = Vj({dim})", "b = Vj(1)")
    case = _case("gaussian.backward", aliases=aliases, draw=oracles.points(dim, upstream=True),
                 group=CASES[f"gaussian.dim{dim}"].group,
                 **_first(oracles.gaussian_gradients))  # fmt: skip
    backward = _sizes(f"gaussian.dim{dim}.backward", case, gaussian_backward(dim), ["1e4", "1e5"])
    return found + backward


def _table() -> list[Timed]:
    all_sizes, two, one = list(SIZES), ["1e4", "1e5"], ["1e5"]
    plain, seed = _case("gaussian.float32"), _case("seed.forward")
    soft = _case("attention")
    log_backward = _backward("sinkhorn", 1, oracles.sinkhorn_gradient)
    soft_backward = _backward("attention", 64, oracles.attention_gradient)

    def typed(case: Case, dtype: str) -> Case:
        return dataclasses.replace(case, dtype=dtype)

    return [
        *_sizes("gaussian", plain, gaussian(3), all_sizes),
        *_gaussian_backward(),
        *_sizes("logsumexp", _case("sinkhorn"), _LOG, all_sizes),
        *_sizes("attention", soft, _ATTENTION, two),
        *_sizes("knn.dim3.k10", _case("knn.dim3.k10"), nearest(3), two),
        *_sizes("knn.dim64.k10", _case("knn.dim64.k10"), nearest(64), two),
        *_sizes("seed", seed, _SEED, all_sizes),
        *_sizes("seed.backward", _case("seed.gradient.autograd"), _SEED, all_sizes, of="y"),
        *_sizes("gaussian.shifted", _case("gaussian.shifted-by-100"), gaussian(3), one),
        *_dims(),
        *_sizes("logsumexp.backward", log_backward, _LOG_BACKWARD, two),
        *_sizes("attention.backward", soft_backward, _ATTENTION_BACKWARD, two),
        *_sizes("gaussian.float64", typed(plain, "float64"), _wide(gaussian(3)), two),
        *_sizes("gaussian.float16", typed(plain, "float16"), gaussian(3), one),
        *_sizes("gaussian.bfloat16", typed(plain, "bfloat16"), gaussian(3), one),
        *_sizes("attention.bfloat16", typed(soft, "bfloat16"), _ATTENTION, one),
    ]


TIMED = {timed.case.name: timed for timed in _table()}
