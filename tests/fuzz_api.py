"""Random programs over the public interface: `python tests/fuzz_api.py --count 20000 --seed 0`.

Every seed draws a program: a formula, arrays of any strides, batches, dtype and library, a
reduction over either index, settings, ranges, derivatives of first and second order. It is computed
as a string and from lazy tensors, and compared with dense torch in float64. What rounding may do is
measured: the dense program again with random relative changes of every value, and in float32.
Prints each mismatch or unexpected error as a program in Python text, reduced as far as possible,
and ends with the counts; exits 1 if there was one. Programs run in processes of their own: one that
hangs or dies is reported by its seed. `--seed S --count 1` runs one again.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import math
import multiprocessing
import os
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import programs
import spellings
import torch
from dense_torch import DERIVATIVES, REDUCTIONS, Expr, Rounding, pairs, table
from programs import Program

import pairfold
from pairfold.cluster import from_matrix

Array = Any
TIMEOUT = 120.0
_UNIT = {"float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}
_LEAST = {"float64": 3e-308, "float32": 2e-38, "float16": 1e-7, "bfloat16": 2e-38}
_MOST = {"float64": 1e300, "float32": 1e38, "float16": 6e4, "bfloat16": 1e38}


class Mismatch(AssertionError):
    """Numbers that rounding does not explain, or another shape or dtype."""


# ----- the dense program -------------------------------------------------------------------------


class Wanted:
    """What a program should give: results, then gradients, then gradients of a sum of these."""

    def __init__(self, program: Program, given: list[Array]) -> None:
        self.program = program
        self.given = [_double(x) for x in given]
        self.met = _met(program)
        self.incoming: list[Array] = []
        self.second: list[Array] = []

    def run(
        self, rounding: Rounding, dtype: Any = torch.float64, each: bool = False
    ) -> list[Array]:
        """All of it as float64 NumPy arrays."""
        program = self.program
        tensors = [x.to(dtype).requires_grad_(program.order > 0) for x in self.given]
        for k, argument in enumerate(program.arguments):
            if argument.same is not None:
                tensors[k] = tensors[argument.same]
        tables = [table(x, a.kind) for x, a in zip(tensors, program.arguments, strict=True)]
        f, g = pairs([program.formula, program.weight], tables, rounding, program.axis, each)
        self.values = (f.detach(), None if g is None else g.detach())
        results = REDUCTIONS[program.reduction](rounding, f, g, program.length, self.met)
        found = [x.detach() for x in results]
        if program.order and results[0].requires_grad:
            found += self._gradients(results[0], _distinct(tensors), dtype)
        return [x.double().numpy(force=True) if x.is_floating_point() else x.numpy() for x in found]

    def _gradients(self, result: Any, tensors: list[Any], dtype: Any) -> list[Any]:
        if not self.incoming:
            source = torch.Generator().manual_seed(self.program.seed)
            shapes = [result.shape, *(x.shape for x in tensors)]
            drawn = [torch.randint(-8, 9, shape, generator=source) / 8 for shape in shapes]
            self.incoming, self.second = drawn[:1], drawn[1:]
        return gradients(result, tensors, self.program.order, self.incoming, self.second)


def gradients(
    result: Any, tensors: list[Any], order: int, incoming: list[Any], second: list[Any]
) -> list[Any]:
    """Gradients of a result, and those of a weighted sum of them."""
    weight = incoming[0].to(result.dtype).reshape(result.shape)
    options = {"create_graph": order > 1, "allow_unused": True}
    found = torch.autograd.grad(result, tensors, weight, **options)
    first = [torch.zeros_like(x) if g is None else g for g, x in zip(found, tensors, strict=True)]
    if order < 2:
        return first
    again = [torch.zeros_like(x) for x in tensors]
    moving = [(g, w.to(g.dtype)) for g, w in zip(first, second, strict=True) if g.requires_grad]
    if moving:
        values, weights = zip(*moving, strict=True)
        found = torch.autograd.grad(values, tensors, weights, allow_unused=True)
        again = [z if g is None else g for g, z in zip(found, again, strict=True)]
    return [x.detach() for x in (*first, *again)]


def _distinct(tensors: list[Any]) -> list[Any]:
    return list({id(x): x for x in tensors}.values())


def _double(x: Array) -> Any:
    found = (
        torch.from_numpy(np.array(x, float, order="C").copy()) if isinstance(x, np.ndarray) else x
    )
    return found.detach().double().clone()


def _clusters(program: Program) -> tuple[Array, Array, Array]:
    """Cuts of rows and columns into clusters, and which of them meet."""
    rng = np.random.default_rng(program.blocks)
    tables = []
    for size in (program.rows, program.columns):
        inner = np.sort(rng.integers(0, size + 1, int(rng.integers(0, 4))))
        cuts = np.concatenate([[0], inner, [size]]).astype(np.int64)
        tables.append(np.stack([cuts[:-1], cuts[1:]], 1))
    keep = rng.random((len(tables[0]), len(tables[1]))) < rng.choice([0.3, 0.7])
    return tables[0], tables[1], keep


def _met(program: Program) -> Any:
    """Which pairs count: (kept rows, reduced columns)."""
    met = np.ones((program.rows, program.columns), bool)
    if program.blocks:
        rows, columns, keep = _clusters(program)
        met[:] = False
        for a, (start, stop) in enumerate(rows):
            for b, (left, right) in enumerate(columns):
                met[start:stop, left:right] = keep[a, b]
    return torch.from_numpy(met.T.copy() if program.axis == 0 else met)


# ----- pairfold's program ------------------------------------------------------------------------


def call_options(program: Program) -> dict[str, Any]:
    """What the call of a reduction is given."""
    if not program.blocks:
        return {}
    tables = _clusters(program)
    if program.library == "torch":
        return {"ranges": from_matrix(*map(torch.from_numpy, tables))}
    return {"ranges": from_matrix(*tables)}


def as_string(program: Program) -> Callable[..., Any]:
    """The program as a Genred."""
    options = dict(program.options)
    if program.weight is not None:
        options["formula2"] = spellings.text(program.weight, program.style // 3)
    if program.length:
        options["opt_arg"] = program.length
    genred = pairfold.Genred(
        spellings.text(program.formula, program.style),
        spellings.aliases(program.arguments),
        program.reduction,
        axis=program.axis,
        **options,
    )
    return lambda given: genred(*given, **call_options(program))


def as_lazy(program: Program) -> Callable[..., Any]:
    """The program with lazy tensors; its arrays may be given later."""
    used = [program.arguments[k] for k in _used(program)]
    if not {"i", "j"} <= {a.kind for a in used}:
        raise spellings.NotLazy("a formula of one index")
    if _batch(used) != _batch(program.arguments):
        raise spellings.NotLazy("batches of an argument that is not used")
    if _has(program, lambda f: f.op in DERIVATIVES) and any(
        a.same is not None for a in program.arguments
    ):
        raise spellings.NotLazy("derivatives by an array that is two arguments")

    def run(given: list[Array]) -> Any:
        leaves = _leaves(program, given)
        f = spellings.lazy(program.formula, leaves, {})
        g = None if program.weight is None else spellings.lazy(program.weight, leaves, {})
        if not isinstance(f, pairfold.LazyTensor) or isinstance(g, (int, float)):
            raise spellings.NotLazy("a number")
        options = {**program.options, **call_options(program)}
        if program.length:
            options["opt_arg"] = program.length
        axis = (
            len(f.batchdims or ()) if g is None else len((f * g).batchdims or ())
        ) + program.axis
        if axis != (f.nbatchdims + program.axis):
            raise spellings.NotLazy("batches of the weight alone")
        if program.symbols:
            reduced = f.reduction(program.reduction, other=g, axis=axis, call=False, **options)
            order = [k for k in range(len(given)) if k in _used(program)]
            return reduced(*(given[k] for k in order))
        return f.reduction(program.reduction, other=g, axis=axis, **options)

    return run


def _batch(arguments: Sequence[Any]) -> tuple[int, ...]:
    return np.broadcast_shapes(*(a.batch for a in arguments))


def _used(program: Program) -> set[int]:
    return programs.leaves_of(program.formula) | programs.leaves_of(program.weight)


def _leaves(program: Program, given: list[Array]) -> list[Any]:
    """Lazy tensors of all arguments, or symbols of those that the formula has."""
    order = [k for k in range(len(given)) if k in _used(program)]
    if program.symbols and any(program.arguments[k].batch for k in order):
        raise spellings.NotLazy("symbols have no batches")
    found = []
    for k, (argument, x) in enumerate(zip(program.arguments, given, strict=True)):
        if k not in order:
            found.append(None)
        elif not program.symbols:
            found.append(
                spellings.leaf(
                    _complex(x) if argument.is_complex else x, argument.kind, program.style >> k
                )
            )
        elif argument.is_complex:
            raise spellings.NotLazy("complex symbols")
        else:
            found.append(spellings.symbol(order.index(k), argument.dim, argument.kind))
    return found


def _complex(x: Array) -> Array:
    if isinstance(x, np.ndarray):
        if x.dtype == np.float16:
            raise spellings.NotLazy("complex numbers of half precision")
        return np.ascontiguousarray(x).view(
            {"float32": "complex64", "float64": "complex128"}[x.dtype.name]
        )
    if x.dtype in (torch.float16, torch.bfloat16):
        raise spellings.NotLazy("complex numbers of half precision")
    return torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())


def run_ours(program: Program, way: Callable[..., Any], want: Wanted) -> list[Array]:
    """Results and gradients, as NumPy arrays of the dtypes they have."""
    given = programs.arrays(program)
    with pairfold.settings(**program.settings):
        call = way(program)
        if program.order:
            given = [
                x.detach().requires_grad_() if a.same is None else x
                for x, a in zip(given, program.arguments, strict=True)
            ]
            for k, argument in enumerate(program.arguments):
                given[k] = given[k] if argument.same is None else given[argument.same]
        results = call(given)
        results = results if isinstance(results, tuple) else (results,)
        found = list(results)
        if program.order and want.incoming:
            tensors = _distinct(given)
            if results[0].requires_grad:
                found += gradients(results[0], tensors, program.order, want.incoming, want.second)
            else:
                found += [torch.zeros_like(x) for x in tensors] * program.order
    return [_array(x) for x in found]


def _array(x: Any) -> tuple[str, Array]:
    name = str(x.dtype).removeprefix("torch.")
    if isinstance(x, np.ndarray):
        return name, x.astype(np.float64) if name == "float16" else x
    x = x.detach()
    return name, (x.double() if x.is_floating_point() else x).numpy()


# ----- comparison --------------------------------------------------------------------------------


class Judge:
    """What a program should give, and how far rounding may take it."""

    def __init__(self, program: Program) -> None:
        self.program, self.unclear, self.numbers = program, 0, 0
        given = programs.arrays(program)
        self.want = Wanted(program, given)
        own = zip(self.want.given, program.arguments, strict=True)
        self.inputs = [x.numpy() for x, a in own if a.same is None]
        with np.errstate(all="ignore"):
            plain = Rounding()
            self.exact = self.want.run(plain)
            # Infinities times parts of complex numbers that are 0 may be left out.
            self.order, self.hides = plain.order, _has(program, lambda f: f.is_complex)
            # Angles at the origin have no derivative: NaN, also times 0. Nor has what is 0 times a
            # slope that is infinite: torch selects where others multiply by 0 or 1.
            self.turns = _has(program, lambda f: f.op in NOT_SMOOTH)
            whole = program.axis or not plain.overflow.ndim  # one answer for all pairs
            over = plain.overflow if whole else plain.overflow.mT
            over = over.expand(self.want.values[0].shape[:-1])
            if self.hides:
                over = over | self.want.values[0].isnan().any(-1)
            self.overflows = over.any(-1).numpy()
            if program.reduction == "Prod":  # of the factors that are not 0, in any order
                f = self.want.values[0].abs()
                logs = torch.where(f.isfinite() & (f != 0), f, 1.0).log()
                self.overflows |= (logs.clamp_min(0).sum(-2) > 700).any(-1).numpy()
                least = math.log(_LEAST["float64" if program.dtype == "float64" else "float32"])
                self.overflows |= (logs.clamp_max(0).sum(-2) < least).any(-1).numpy()
            self.values = self.want.values
            if self.values[1] is not None and not bool(self.values[1].isfinite().all()):
                self.hides = True  # e^F may be 0
            self.spread: list[Array] = [np.zeros(x.shape) for x in self.exact]
            self.vague: list[Array] = [np.zeros(x.shape, bool) for x in self.exact]
            self.table: Array = np.zeros(self.values[0].shape)
            unit = _UNIT["float64" if program.dtype == "float64" else "float32"]
            for seed in range(4):
                self._take(Rounding(8 * unit, seed, whole=program.order == 0), torch.float64)
            if program.dtype != "float64":
                self._take(Rounding(), torch.float32)
            self.unit, self.parts = unit, self._parts()

    def _parts(self) -> list[Array] | None:
        """How large the gradients are that are added up to one, of an array that is several
        arguments: each is rounded to the arrays' dtype."""
        program = self.program
        if program.order != 1 or all(a.same is None for a in program.arguments):
            return None
        alone = tuple(dataclasses.replace(a, same=None) for a in program.arguments)
        apart = Wanted(dataclasses.replace(program, arguments=alone), self.want.given)
        apart.met, apart.incoming = self.want.met, self.want.incoming
        results = len(self.exact) - sum(a.same is None for a in program.arguments)
        found = apart.run(Rounding(order=self.order))[results:]
        if len(found) != len(alone):
            return None
        sums = {k: np.abs(x) for k, x in enumerate(found) if program.arguments[k].same is None}
        for x, argument in zip(found, program.arguments, strict=True):
            if argument.same is not None:
                sums[argument.same] = sums[argument.same] + np.abs(x)
        return [np.zeros(x.shape) for x in self.exact[:results]] + list(sums.values())

    def more(self) -> None:
        """More samples, of smaller and larger changes: to be sure of a mismatch.

        In half of them the columns that are selected are the exact ones, also among equal values.
        """
        whole = self.program.order == 0
        with np.errstate(all="ignore"):
            for seed in range(4, 28):
                size = self.unit * (1, 8, 32)[seed % 3]
                order = self.order if seed % 2 else None
                self._take(Rounding(size, seed, whole, order), torch.float64, each=seed > 9)
            if self.program.order == 2:
                for seed in range(4):
                    self._take_second(seed)

    def _take_second(self, seed: int) -> None:
        """What rounding does to second derivatives where its first effects cancel.

        That is of its second order, which changes by the square root of it show: as half the sum of
        what two opposite changes do.
        """
        size = (8 * self.unit) ** 0.5
        one, two = (
            self.want.run(Rounding(change, seed, order=self.order), each=True)
            for change in (size, -size)
        )
        for k, (a, b, y) in enumerate(zip(one, two, self.exact, strict=True)):
            if y.dtype == np.float64:
                moved = np.abs((a - y) + (b - y)) / 2
                np.fmax(self.spread[k], np.where(np.isfinite(moved), moved, 0), out=self.spread[k])

    def _take(self, rounding: Rounding, dtype: Any, each: bool = False) -> None:
        found = self.want.run(rounding, dtype, each)
        _, moved = _apart(self.want.values[0].double().numpy(), self.values[0].numpy())
        np.maximum(self.table, moved, out=self.table)
        for k, (x, y) in enumerate(zip(found, self.exact, strict=True)):
            vague, moved = _apart(x, y)
            self.vague[k] |= vague
            np.maximum(self.spread[k], moved, out=self.spread[k])

    def check(self, found: list[tuple[str, Array]]) -> None:
        """Raise Mismatch where results are not what they should be."""
        results = len(REDUCTIONS_RESULTS.get(self.program.reduction, (0,)))
        if len(found) != len(self.exact):
            raise Mismatch(f"{len(found)} arrays, expected {len(self.exact)}")
        names = ["result"] * results + ["gradient"] * (len(found) - results)
        for k, (name, (dtype, got), want) in enumerate(zip(names, found, self.exact, strict=True)):
            label = f"{name} {k if name == 'result' else k - results}"
            got = _batched(got, want, label)
            if want.dtype == np.float64:
                self._values(k, label, dtype, got, want, results if name == "gradient" else 0)
            elif want.dtype == bool or self.program.reduction == "Count":
                wanted = "bool" if want.dtype == bool else "int64"
                self._same(k, label, dtype, wanted, got, want)
            else:
                self._places(label, dtype, got, want)

    def _values(
        self, k: int, label: str, dtype: str, got: Array, want: Array, results: int
    ) -> None:
        if dtype != self.program.dtype:
            raise Mismatch(f"{label}: dtype {dtype}, expected {self.program.dtype}")
        unit, least = _UNIT[dtype], _LEAST[dtype]
        with np.errstate(all="ignore"):
            same = (got == want) | (np.isnan(got) & np.isnan(want))
            size = np.abs(want) if self.parts is None else np.maximum(abs(want), self.parts[k])
            allowed = 4 * self.spread[k] + 8 * unit * size + least
            close = np.isfinite(got) & np.isfinite(want) & (np.abs(got - want) <= allowed)
        vague = self.vague[k] | self._overflows(got, results > 0)
        with np.errstate(all="ignore"):
            vague |= np.abs(want) + allowed > _MOST[dtype]
        if self.hides:
            vague |= ~np.isfinite(want)
        if results:  # gradients, whose NaN is a matter of taste, but no number may become one
            vague |= ~np.isfinite(want) | ~np.isfinite(
                self.inputs[(k - results) % len(self.inputs)]
            )
            before = len(self.inputs) if k >= results + len(self.inputs) else 0
            sources = range(results + before)  # results, for second derivatives the first
            whole = [np.abs(self.exact[n]).max(initial=0) < _MOST[dtype] for n in sources]
            whole += [not self.vague[n].any() for n in sources]
            vague |= ~np.isfinite(got) & (not all(whole) or self.turns)
            vague |= self._is_arbitrary()
        self.numbers, self.unclear = self.numbers + want.size, self.unclear + int(vague.sum())
        ranked = False if results else self._ranked(got, got, unit)
        self._raise(label, got, want, same | close | vague | ranked, allowed)

    def _is_arbitrary(self) -> bool:
        """Whether rounding may make results of weights anything: their gradients use them."""
        if self.program.reduction != "SumSoftMaxWeight":
            return False
        with np.errstate(all="ignore"):
            return bool((self.spread[0] > 0.01 + 0.1 * np.abs(self.exact[0])).any())

    def _ranked(self, got: Array, values: Array, unit: float = 0.0) -> Array:
        """Whether values, shaped like the selected ones, may stand where they do in the order.

        The k-th smallest number lies between the k-th smallest lower and the k-th smallest upper
        bound of all.
        """
        if self.program.reduction not in SELECTIONS:
            return np.False_
        sign = -1.0 if "Max" in self.program.reduction else 1.0
        f, length = sign * self.values[0].numpy(), self.program.length or 1
        with np.errstate(all="ignore"):
            room = 4 * self.table + 8 * unit * np.abs(f)
            vague = np.isinf(self.table)
            low = np.where(vague, -np.inf, f - room)
            high = np.where(vague, np.inf, f + room)
        out = (np.isnan(f) & ~vague) | ~np.asarray(self.want.met)[..., None]
        low[out] = high[out] = np.inf
        placed = sign * values.reshape(*f.shape[:-2], length, f.shape[-1])
        good = (placed >= _smallest(low, length)) & (placed <= _smallest(high, length))
        if self.program.order:  # values are computed once more, and may be other roundings
            inside = placed[..., :, None, :] >= low[..., None, :, :]
            inside &= placed[..., :, None, :] <= high[..., None, :, :]
            good |= (inside & (room[..., None, :, :] > 1e-6)).any(-2)
        return good.reshape(got.shape)

    def _same(self, k: int, label: str, dtype: str, wanted: str, got: Array, want: Array) -> None:
        if dtype != wanted:
            raise Mismatch(f"{label}: dtype {dtype}, expected {wanted}")
        near = np.abs(got.astype(float) - want.astype(float)) <= 2 * self.spread[k]
        good = (got == want) | near | self._overflows(got)
        self._raise(label, got, want, good, self.spread[k])

    def _places(self, label: str, dtype: str, got: Array, want: Array) -> None:
        """Indices are right where the values they point at are, but for rounding, those wanted."""
        if dtype != "int64":
            raise Mismatch(f"{label}: dtype {dtype}, expected int64")
        f = self.values[0].numpy()
        columns = f.shape[-2]
        if not columns or not got.size:
            self._raise(label, got, want, got == want, 0 * want)
            return
        if got.min(initial=0) < 0 or got.max(initial=0) >= columns:
            raise Mismatch(f"{label}: index {got.min()} or {got.max()} of {columns} columns")
        shape = (*f.shape[:-2], -1, f.shape[-1])
        a, b = got.reshape(shape), want.reshape(shape)
        with np.errstate(all="ignore"):
            at = [np.take_along_axis(f, p, -2) for p in (a, b)]
            room = [np.take_along_axis(self.table, p, -2) for p in (a, b)]
            close = np.abs(at[0] - at[1]) <= 4 * (room[0] + room[1])
            close &= (room[0] > 0) | (room[1] > 0) | np.isnan(room[0]) | np.isnan(room[1])
            rounded = (self.table > 0).any(-2, keepdims=True)
            close |= rounded & self._ranked(at[0], at[0])
        vague = ~np.isfinite(at[0] + at[1] + room[0] + room[1])
        vague &= (room[0] + room[1]) != 0
        vague |= (np.isinf(self.table) & np.isfinite(f)).any(-2, keepdims=True)
        good = (got == want) | (close | vague).reshape(got.shape) | self._overflows(got)
        self._raise(label, got, want, good, 0 * want)

    def _overflows(self, got: Array, anywhere: bool = False) -> Array:
        """Where float64 itself is too small: who multiplies and adds in one step gets along."""
        if anywhere:
            return self.overflows.any()
        rows = self.overflows.shape
        return self.overflows.reshape(*rows, *[1] * (got.ndim - len(rows)))

    def _raise(self, label: str, got: Array, want: Array, good: Array, allowed: Array) -> None:
        if good.all():
            return
        bad = ~good
        where = tuple(int(n) for n in np.argwhere(bad)[0])
        raise Mismatch(
            f"{label}: {int(bad.sum())} of {bad.size} differ, first {where}: got {got[where]!r}, "
            f"want {want[where]!r}, allowed {np.broadcast_to(allowed, got.shape)[where]:.3g}"
        )


NOT_SMOOTH = ("Atan2", "ComplexAngle", "ReLU", "Clamp", "ClampInt", "Maximum", "Minimum")
SELECTIONS = {*programs.SELECTING, "ArgMin", "ArgMax", "ArgKMin"}
REDUCTIONS_RESULTS = {"Min_ArgMin": (0, 1), "Max_ArgMax": (0, 1), "KMin_ArgKMin": (0, 1)}


def _smallest(x: Array, length: int) -> Array:
    """The smallest numbers along the last axis but one, in order; inf where there are no more."""
    missing = max(length - x.shape[-2], 0)
    pad = [(0, 0)] * (x.ndim - 2) + [(0, missing), (0, 0)]
    return np.pad(np.sort(x, axis=-2), pad, constant_values=np.inf)[..., :length, :]


def _has(program: Program, what: Callable[[Expr], bool]) -> bool:
    """Whether some part of the formulas is such."""

    def inside(f: Expr | None) -> bool:
        return f is not None and (what(f) or any(map(inside, f.args)))

    return inside(program.formula) or inside(program.weight)


def _apart(x: Array, y: Array) -> tuple[Array, Array]:
    """Where two arrays are not finite in the same way, and how far apart they are elsewhere."""
    same = (x == y) | (np.isnan(x) & np.isnan(y)) if x.dtype == np.float64 else x == y
    apart = np.where(same, 0.0, np.abs(x.astype(float) - y.astype(float)))
    vague = ~np.isfinite(apart)
    return vague, np.where(vague, np.inf, apart)


def _batched(got: Array, want: Array, label: str) -> Array:
    """Lazy tensors of parameters with batches may have results of more axes of size 1."""
    if got.shape != want.shape:
        raise Mismatch(f"{label}: shape {got.shape}, expected {want.shape}")
    return got


# ----- one program -------------------------------------------------------------------------------

WAYS = {"string": as_string, "lazy": as_lazy}


def failure(program: Program) -> tuple[str, str, collections.Counter[str]] | None:
    """The way and the message of what goes wrong, None if nothing does."""
    counts: collections.Counter[str] = collections.Counter()
    judge = Judge(program)
    ways = list(program.ways)
    for name in ways:
        try:
            found = run_ours(program, WAYS[name], judge.want)
        except spellings.NotLazy as reason:
            totals[f"not lazy: {reason}"] += 1
            ways += ["string"] * (len(ways) == 1)
            continue
        except Exception as error:
            return (
                name,
                f"{type(error).__name__}: {error}\n{traceback.format_exc(limit=-4)}",
                counts,
            )
        counts[name] += 1
        try:
            judge.check(found)
        except Mismatch:
            judge.more()
            try:
                judge.check(found)
            except Mismatch as mismatch:
                return name, f"Mismatch: {mismatch}", counts
    counts["numbers"], counts["unclear"] = judge.numbers, judge.unclear
    totals.update(counts)
    return None


totals: collections.Counter[str] = collections.Counter()


def simpler(program: Program) -> Iterator[Program]:
    """Programs that ask for less, the largest steps first; none that this one is simpler than."""
    change = lambda **fields: dataclasses.replace(program, **fields)  # noqa: E731
    for order in range(program.order):
        yield change(order=order)
    for fields in ({"settings": {}}, {"options": {}}, {"blocks": 0}, {"symbols": False}):
        if getattr(program, next(iter(fields))):
            yield change(**fields)
    for rows, columns in (
        (2, 2),
        (1, 2),
        (2, 1),
        (1, 1),
        (program.rows // 2, program.columns),
        (program.rows, program.columns // 2),
        (program.rows - 1, program.columns),
        (program.rows, program.columns - 1),
    ):
        if (
            rows <= program.rows
            and columns <= program.columns
            and (rows, columns) != (program.rows, program.columns)
            and min(rows, columns) >= 0
        ):
            yield change(rows=rows, columns=columns)
    given = program.arguments
    plain = tuple(dataclasses.replace(a, batch=(), layout="plain") for a in given)
    if plain != given:
        yield change(arguments=plain)
    wide = max((len(a.batch) for a in given if a.kind == "p"), default=0)
    tall = max((k for k, a in enumerate(given) if a.kind != "p"), key=lambda k: len(given[k].batch))
    for k, argument in enumerate(given):
        for fields in (
            {"batch": ()},
            {"layout": "plain"},
            {"numbers": "whole"},
            {"numbers": argument.numbers if argument.numbers == "whole" else "unit"},
        ):
            new = dataclasses.replace(argument, **fields)
            if k == tall and len(new.batch) < wide:
                continue  # batches of parameters alone: which axes are results'?
            if new != argument:
                yield change(arguments=(*given[:k], new, *given[k + 1 :]))
    if program.weight is not None:
        for f in shorter(program.weight):
            yield change(weight=f)
    for f in shorter(program.formula):
        yield change(formula=f)
    for dtype in ("float64", "float32"):
        if program.dtype == dtype:
            break
        yield change(dtype=dtype)


def shorter(f: Expr) -> Iterator[Expr]:
    """Formulas of the same dimension with an operation less."""
    for x in f.args:
        if x.dim == f.dim and x.is_complex == f.is_complex and x.op != "Number":
            yield x
    if f.op in ("Grad", "Diff", "Divergence", "Laplacian"):
        return
    for k, x in enumerate(f.args):
        for y in shorter(x):
            yield Expr(f.op, (*f.args[:k], y, *f.args[k + 1 :]), f.params, f.dim, f.is_complex)


def reduced(program: Program, kind: str, seconds: float = 20.0) -> Program:
    """The simplest program found that fails in the same way."""
    end = time.perf_counter() + seconds
    found = True
    while found and time.perf_counter() < end:
        found = False
        for candidate in simpler(program):
            if time.perf_counter() > end:
                break
            try:
                wrong = failure(candidate)
            except Exception:
                continue
            if wrong is not None and _kind(wrong[1]) == kind:
                program, found = candidate, True
                break
    return program


def _kind(message: str) -> str:
    """What an error is, and for a mismatch whether of results or gradients, numbers or shapes."""
    name, _, rest = message.partition(":")
    if name != "Mismatch":
        return name
    return " ".join([name, rest.split()[0], *(w for w in ("shape", "dtype") if w in rest)])


def reproduction(program: Program, way: str) -> str:
    """The program as Python text that can be run."""
    torches = program.library == "torch"
    lines = ["import numpy as np, torch, pairfold"]
    for k, argument in enumerate(program.arguments):
        if argument.same is not None:
            lines.append(f"v{k} = v{argument.same}")
            continue
        x = programs.arrays(program)[k]
        values = x.double().numpy() if torches else x
        form = f"  # {argument.layout}, {argument.numbers}, {tuple(values.shape)}"
        made = spellings.literal(values) if values.size <= 60 else f"programs.arrays(program)[{k}]"
        made = f"torch.from_numpy({made}).to(torch.{program.dtype})" if torches else made
        grad = ".requires_grad_()" * bool(program.order)
        lines.append(f"v{k} = {made}{grad}{form}")
    options = {**program.options, **({"opt_arg": program.length} if program.length else {})}
    if program.weight is not None:
        options["formula2"] = spellings.text(program.weight, program.style // 3)
    extra = "".join(f", {name}={value!r}" for name, value in options.items())
    text = spellings.text(program.formula, program.style)
    names = spellings.aliases(program.arguments)
    call = f"pairfold.Genred({text!r}, {names}, {program.reduction!r}, axis={program.axis}{extra})"
    called = ", ".join(f"v{k}" for k in range(len(program.arguments)))
    ranges = ", ranges=..." * bool(program.blocks)
    lines.append(
        f"with pairfold.settings(**{program.settings}):  # as {way}, order {program.order}"
    )
    lines.append(f"    print({call}({called}{ranges}))")
    return "\n".join(lines)


def one(seed: int, reduce: bool = True) -> str | None:
    """What goes wrong with the program of a seed, as text."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    program = programs.draw(seed)
    try:
        wrong = failure(program)
    except Exception:
        return f"seed {seed}: the dense program fails\n{traceback.format_exc(limit=-6)}"
    if wrong is None:
        return None
    way, message, _ = wrong
    if reduce:
        program = reduced(program, _kind(message))
        way, message, _ = failure(program) or wrong
    return f"seed {seed}, {way}: {message}\n{reproduction(program, way)}\n"


# ----- many programs -----------------------------------------------------------------------------


def _serve(pipe: Any) -> None:
    while (seed := pipe.recv()) is not None:
        totals.clear()
        pipe.send((one(seed), dict(totals)))


class Worker:
    """A process that runs one program after the other."""

    def __init__(self) -> None:
        self.pipe, other = multiprocessing.Pipe()
        context = multiprocessing.get_context("spawn")
        self.process = context.Process(target=_serve, args=(other,), daemon=True)
        self.process.start()
        other.close()
        self.seed: int | None = None
        self.seeds: list[int] = []
        self.done = 0
        self.since = 0.0

    def give(self, seed: int) -> None:
        self.seed, self.since = seed, time.monotonic()
        self.pipe.send(seed)

    def answer(self) -> tuple[str | None, dict[str, int]] | None:
        """What became of the program; None while it runs."""
        try:
            if self.pipe.poll(0):
                self.done += 1
                return self.pipe.recv()
        except (EOFError, ConnectionResetError):
            self.process.join()
            return f"seed {self.seed}: the process ends, {self.process.exitcode}\n", {}
        if time.monotonic() - self.since > TIMEOUT:
            self.process.kill()
            self.process.join()
            return f"seed {self.seed}: no answer within {TIMEOUT:.0f} s\n", {}
        return None

    def end(self) -> None:
        if self.process.is_alive():
            self.pipe.send(None)
            self.process.join(10)


def main() -> int:
    """Run the seeds over some processes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=20000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    start, failures, done = time.perf_counter(), 0, 0
    counts: collections.Counter[str] = collections.Counter()
    first, end, step = options.seed, options.seed + options.count, programs.VARIANTS
    groups = iter(range(first - first % step, end, step))
    workers: list[Worker] = [Worker() for _ in range(min(options.jobs, options.count))]

    def following(k: int) -> None:
        """The next program of a worker, from the group it works on or from a new one."""
        worker = workers[k]
        if not worker.seeds:
            if worker.done > 400:
                worker.end()
                workers[k] = worker = Worker()
            group = next(groups, None)
            stop = 0 if group is None else group + step
            worker.seeds = [s for s in range(group or 0, stop) if first <= s < end]
        if worker.seeds:
            worker.give(worker.seeds.pop(0))

    for k in range(len(workers)):
        following(k)
    while any(worker.seed is not None for worker in workers):
        multiprocessing.connection.wait([w.pipe for w in workers if w.seed is not None], 1.0)
        for k, worker in enumerate(workers):
            if worker.seed is None or (found := worker.answer()) is None:
                continue
            message, more = found
            done, failures = done + 1, failures + (message is not None)
            counts.update(more)
            if message is not None:
                print(message, flush=True)
            if done % 500 == 0 or done == options.count:
                seconds = time.perf_counter() - start
                print(
                    f"{done} programs, {failures} failures, {seconds:.0f} s",
                    dict(counts),
                    flush=True,
                )
            worker.seed = None
            if not worker.process.is_alive():
                replaced, workers[k] = worker, Worker()
                workers[k].seeds = replaced.seeds
            following(k)
    for worker in workers:
        worker.end()
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
