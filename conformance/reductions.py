"""Compare every reduction with PyKeOps: the same formulas, weights, arrays, and gradients.

    python conformance/reductions.py --pykeops-python OTHER/bin/python \\
        --write conformance/reductions.md

Formulas are drawn as in `formulas.py`. Those for extrema and lists are exact on whole numbers, and
are folded once on real and once on whole data, where ties abound and must be told the same way.
Where pairfold means to differ, a line of `MEANT` says how, and is checked, too.
"""

from __future__ import annotations

import argparse
import collections
import re
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from conformance import language
from conformance.formulas import Peer
from pairfold.errors import PairfoldError
from pairfold.numpy import Genred
from pairfold.ops.reductions import ALIASES, REDUCTIONS

# Operations that give whole numbers for whole numbers, and those that both libraries differentiate.
_EXACT = "Add Subtract Mult Minus Square Abs ReLU Scalprod Sum SqNorm2 SqDist Concat Elem Extract"
_WRITTEN = "Add Subtract Mult Divide Exp Cos Sin Square Scalprod SqDist Sqrt Abs"
EXACT, WRITTEN = frozenset(_EXACT.split()), frozenset(_WRITTEN.split())
SMOOTH = WRITTEN - {"Abs", "Sqrt"}
LENGTHS = (1, 3, 30)
TOLERANCE = {"float64": (1e-12, 1e-13), "float32": (3e-6, 3e-7)}


@dataclass
class Case:
    """One kernel: what is folded, and on which data."""

    name: str
    axis: int
    formula: str
    weight: str | None = None
    length: int | None = None
    dtype: str = "float64"
    data: tuple[str, ...] = ("real",)
    wrt: tuple[str, ...] = ()

    @property
    def args(self) -> list[Any]:
        """Arguments of Genred, by position."""
        return [self.formula, list(language.ALIASES), self.name, self.axis]

    @property
    def options(self) -> dict[str, Any]:
        """Arguments of Genred, by name."""
        given = {"opt_arg": self.length, "formula2": self.weight}
        return {name: value for name, value in given.items() if value is not None}

    def __str__(self) -> str:
        rest = "".join(f", {name}={value}" for name, value in self.options.items())
        wrt = f", gradient to {', '.join(self.wrt)}" if self.wrt else ""
        return f"{self.formula}{rest}{wrt}"


@dataclass
class Outcome:
    """How one case compares on one set of data."""

    case: Case
    data: str
    verdict: str
    detail: str = ""
    ties: int = field(default=0)


# -- cases -----------------------------------------------------------------------------------------


def _formula(rng: np.random.Generator, names: frozenset[str], dim: int, depth: int) -> str:
    """A formula with variables of both indices."""
    while True:
        text = language.Draw(rng, names).term(dim, depth)
        if all(re.search(rf"\b[{letters}]\b", text) for letters in ("xau", "ycz")):
            return text


def cases(seed: int) -> list[Case]:
    """Every reduction over both axes; the same seed gives the same cases."""
    rng = np.random.default_rng(seed)
    found: list[Case] = []
    extrema = ("Min", "Max", "ArgMin", "ArgMax", "Min_ArgMin", "Max_ArgMax")
    lists = [(name, k) for name in ("KMin", "ArgKMin", "KMin_ArgKMin") for k in LENGTHS]
    for number, (name, length) in enumerate([*((name, None) for name in extrema), *lists]):
        for axis in (0, 1):
            dim = (1, 3)[(number + axis) % 2]
            formula = _formula(rng, EXACT, dim, 3)
            dtype = "float32" if (number + axis) % 4 == 3 else "float64"
            found.append(Case(name, axis, formula, None, length, dtype, ("real", "whole")))
    for axis in (0, 1):
        for dim in (1, 3):
            found.append(Case("Sum", axis, _formula(rng, WRITTEN, dim, 3)))
        for name in ("LogSumExp", "Max_SumShiftExp"):
            found.append(Case(name, axis, _formula(rng, WRITTEN, 1, 3)))
        weighted = (*("LogSumExp", "LogSumExpWeight"), *("SumSoftMaxWeight", "SoftMax"))
        for number, name in enumerate((*weighted, "Max_SumShiftExpWeight")):
            weight = _formula(rng, WRITTEN, (1, 3)[(number + axis) % 2], 2)
            if name.startswith("Log"):
                weight = f"(1+Square({weight}))"
            found.append(Case(name, axis, _formula(rng, WRITTEN, 1, 3), weight))
    for name in ("Sum", "LogSumExp", "SumSoftMaxWeight"):
        weight = "Exp(y)" if name.startswith("SumS") else None
        formula = _formula(rng, WRITTEN, 1, 3)
        found.append(Case(name, 1, formula, weight, None, "float32"))
    return found + _gradients(rng)


def _gradients(rng: np.random.Generator) -> list[Case]:
    """Sums and exponentials, differentiated for a variable of i, one of j and the parameter."""
    found: list[Case] = []
    for axis, name, weight in (
        (1, "Sum", None),
        (0, "LogSumExp", None),
        (1, "LogSumExp", "(2+Sin(y*a))"),
        (0, "SumSoftMaxWeight", "(y*x)"),
    ):
        text = _formula(rng, SMOOTH, 3 if name == "Sum" else 1, 3)
        text = f"(p|{text})" if name == "Sum" else f"Sin(x|y)+{text}"
        found.append(Case(name, axis, text, weight, wrt=("x", "y", "p")[: 2 + (name == "Sum")]))
    return found


# -- comparison of numbers -------------------------------------------------------------------------


def _close(got: Any, want: Any, allowed: Any) -> bool:
    with np.errstate(invalid="ignore"):
        near = np.abs(got - want) <= allowed
    return bool((near | (got == want) | (np.isnan(got) & np.isnan(want))).all())


# -- where the two part on purpose -----------------------------------------------------------------

_INF = "Exp(ReLU(100*c)*100)"  # inf where c > 0.08, 1 where c <= 0


Test = Callable[[Any, dict[str, Any]], bool]


@dataclass(frozen=True)
class Meant:
    """A difference that is meant: tests of what PyKeOps gives and of what pairfold gives."""

    case: Case
    reason: str
    there: Test
    here: Test


def _refused(*words: str) -> Test:
    return lambda found, _: isinstance(found, str) and any(word in found for word in words)


def _some_nan(found: Any, _: Any) -> bool:
    return not isinstance(found, str) and bool(np.isnan(found[0]).any())


def _finite(found: Any, _: Any) -> bool:
    return not isinstance(found, str) and bool(np.isfinite(found[0]).all())


def _all(value: float) -> Test:
    wanted = np.array(value)
    return lambda found, _: not isinstance(found, str) and _close(found[0], wanted, 0)


def _whole_gradient(found: Any, arrays: dict[str, Any]) -> bool:
    """Whether this is the gradient of max a*c and sum e^(a*c - max) for a, the maximum's included.

    The results are weighed by cos 0, cos 1, cos 2 ... in C order.
    """
    if isinstance(found, str):
        return False
    a, c = arrays["a"], arrays["c"][:, 0]
    top = (a * c).max(1, keepdims=True)
    to_top = c[(a * c).argmax(1)][:, None]
    to_sum = (np.exp(a * c - top) * (c - to_top)).sum(1, keepdims=True)
    weights = np.cos(np.arange(2.0 * len(a))).reshape(-1, 2)
    wanted = weights[:, :1] * to_top + weights[:, 1:] * to_sum
    return _close(found[0], wanted, 1e-12 * np.abs(wanted).max())


def _sum_of_squares(found: Any, arrays: dict[str, Any]) -> bool:
    """Whether this is the sum of |a - z|^2: one number and a series have one path only."""
    wanted = ((arrays["a"][:, None] - arrays["z"]) ** 2).sum((1, 2))[:, None]
    return not isinstance(found, str) and _close(found[0], wanted, 1e-12 * wanted.max())


MEANT = (
    Meant(
        Case("LogSumExp", 1, f"a-{_INF}"),
        "LogSumExp where F is -inf",
        _some_nan,
        _finite,
    ),
    Meant(Case("LogSumExp", 1, f"a+{_INF}"), "LogSumExp where F is inf", _some_nan, _all(np.inf)),
    Meant(
        Case("SumSoftMaxWeight", 1, f"a-{_INF}", "y"),
        "SumSoftMaxWeight where F is -inf",
        _some_nan,
        _finite,
    ),
    Meant(
        Case("LogSumExp", 1, "a+c", data=("empty",)),
        "LogSumExp without columns",
        _all(np.nan),
        _all(-np.inf),
    ),
    Meant(
        Case("LogSumExp", 1, "x*y"),
        "LogSumExp of a vector",
        _refused("ValueError"),
        _finite,
    ),
    Meant(
        Case("Min", 1, "a*c", wrt=("a", "c")),
        "gradient of extrema and lists",
        _refused("NotImplementedError", "not implemented"),
        _finite,
    ),
    Meant(
        Case("Max_SumShiftExp", 1, "a*c", wrt=("a",)),
        "gradient of Max_SumShiftExp",
        lambda found, arrays: not _whole_gradient(found, arrays),
        _whole_gradient,
    ),
    Meant(
        Case("Sum", 1, "SoftDTW_SqDist(a,z,IntCst(1))"),
        "SoftDTW_SqDist of variables",
        lambda found, arrays: not _sum_of_squares(found, arrays),
        _sum_of_squares,
    ),
)


def raw_logarithm(arrays: list[Any]) -> list[Any]:
    """PyKeOps' LogSumExpWeight is left at (m, sum e^(F - m) G): finish it."""
    (raw,) = arrays
    return [raw[..., :1] + np.log(raw[..., 1:])]


# -- comparison ------------------------------------------------------------------------------------


def here(case: Case, arrays: list[Any]) -> list[Any]:
    """What pairfold gives."""
    if case.wrt:
        return _gradients_here(case, arrays)
    found = Genred(*case.args, **case.options)(*arrays)
    return list(found) if isinstance(found, tuple) else [found]


def _gradients_here(case: Case, arrays: list[Any]) -> list[Any]:
    import torch

    from pairfold.torch import Genred as TorchGenred

    tensors = [torch.from_numpy(a.copy()) for a in arrays]
    wanted = [tensors[place] for place in places(case)]
    for tensor in wanted:
        tensor.requires_grad_()
    found = TorchGenred(*case.args, **case.options)(*tensors)
    steps = torch.arange(found.numel(), dtype=found.dtype).reshape(found.shape)
    return [g.numpy() for g in torch.autograd.grad((found * torch.cos(steps)).sum(), wanted)]


def places(case: Case) -> list[int]:
    """The positions of the variables that gradients are asked for."""
    return [list(language.DIMS).index(name) for name in case.wrt]


def pairs(case: Case, arrays: list[Any]) -> Any:
    """The formula at every pair: (rows, columns, D), column by column."""
    fold = Genred(case.formula, list(language.ALIASES), "Sum", case.axis)
    kind = "Vj" if case.axis == 1 else "Vi"
    reduced = [alias[4:6] == kind for alias in language.ALIASES]
    count = language.COLUMNS if case.axis == 1 else language.ROWS
    columns = (
        fold(*(a[n : n + 1] if cut else a for a, cut in zip(arrays, reduced, strict=True)))
        for n in range(count)
    )
    return np.stack(list(columns), axis=1)


def compared(case: Case, data: str, stored: dict[str, Any], there: Any) -> Outcome:
    """The verdict on one case."""
    arrays = [stored[f"{data}/{name}"].astype(case.dtype) for name in language.DIMS]
    try:
        got = here(case, arrays)
    except PairfoldError as error:
        return Outcome(case, data, "pairfold refuses", str(error).splitlines()[0])
    if isinstance(there, str):
        return Outcome(case, data, "PyKeOps refuses", there.splitlines()[0][:120])
    if case.name == "LogSumExpWeight":
        there = raw_logarithm(there)
    moved = _moved(case, arrays, got)
    note, ties = "", 0
    for a, b, shift in zip(got, there, moved, strict=True):
        if a.shape != b.shape or (not case.wrt and a.dtype != b.dtype):
            return Outcome(case, data, "differ", f"{a.dtype}{a.shape}, {b.dtype}{b.shape}")
        if a.dtype == np.int64:
            verdict, ties = _indices(case, data, arrays, a, b)
            if verdict == "differ":
                return Outcome(case, data, verdict, f"{(a != b).sum()} indices of {a.size}", ties)
            note = note or verdict
            continue
        relative, inputs = TOLERANCE[case.dtype]
        scale = float(np.abs(b[np.isfinite(b)]).max(initial=1e-300))
        exact = data == "whole"
        if not _close(a, b, 0 if exact else relative * scale + inputs / 1e-10 * shift):
            with np.errstate(invalid="ignore"):
                return Outcome(
                    case, data, "differ", f"{np.nanmax(np.abs(a - b)):.2g} of {scale:.2g}"
                )
    return Outcome(case, data, "agree", note, ties)


def _moved(case: Case, arrays: list[Any], got: list[Any]) -> list[Any]:
    """How far inputs moved by 1e-10 of themselves move values, in float64."""
    rng = np.random.default_rng(0)
    exact = [a.astype(np.float64) for a in arrays]
    shifted = [a * (1 + 1e-10 * rng.choice([-1.0, 1.0], a.shape)) for a in exact]
    with np.errstate(invalid="ignore"):
        shifts = [
            np.abs(a - b) for a, b in zip(here(case, shifted), here(case, exact), strict=True)
        ]
    return [np.where(np.isfinite(s), s, 0) for s in shifts]


def _indices(case: Case, data: str, arrays: list[Any], a: Any, b: Any) -> tuple[str, int]:
    """Verdict on indices, and how many rows have ties at what was selected."""
    table = pairs(case, arrays)
    rows, _, dim = table.shape
    a, b = (n.reshape(rows, -1, dim) for n in (a, b))
    first, second = (np.take_along_axis(table, n, 1) for n in (a, b))
    best = first[:, :1]
    ties = int(((table == best).sum(1) > 1).sum())
    if (a == b).all():
        return "", ties
    scale = float(np.abs(table).max())
    close = _close(first, second, TOLERANCE[case.dtype][0] * scale)
    tied = bool(((first == second) & (a != b)).any())
    return ("near ties" if close and not tied else "differ"), ties


# -- the program -----------------------------------------------------------------------------------


def data_sets(seed: int) -> dict[str, Any]:
    """Arrays by "set/alias": real, whole numbers from -2 to 2, and real without columns."""
    rng = np.random.default_rng(seed)
    stored: dict[str, Any] = {}
    for name, array, alias in zip(
        language.DIMS, language.arrays(seed), language.ALIASES, strict=True
    ):
        stored[f"real/{name}"] = array
        stored[f"whole/{name}"] = rng.integers(-2, 3, array.shape).astype(np.float64)
        stored[f"empty/{name}"] = array[:0] if "Vj" in alias else array
    return stored


def asked(peer: Peer, case: Case, data: str) -> Any:
    """What PyKeOps gives: arrays, or a text."""
    request: dict[str, Any] = {
        "args": case.args,
        "options": case.options,
        "dtype": case.dtype,
        "arrays": [f"{data}/{name}" for name in language.DIMS],
    }
    if case.wrt:
        request["wrt"] = places(case)
    answer = peer.send(request)
    if answer is None:
        return "the process died"
    if isinstance(answer, str):
        return answer
    return [np.array(a["data"], a["dtype"] or case.dtype) for a in answer]


def meant(peer: Peer, stored: dict[str, Any]) -> list[tuple[Meant, str]]:
    """Whether the differences that are meant are there."""
    found: list[tuple[Meant, str]] = []
    for entry in MEANT:
        (data,) = entry.case.data
        arrays = {name: stored[f"{data}/{name}"] for name in language.DIMS}
        if not entry.here(here(entry.case, list(arrays.values())), arrays):
            found.append((entry, "pairfold is not as meant"))
        elif not entry.there(asked(peer, entry.case, data), arrays):
            found.append((entry, "PyKeOps is not as said"))
        else:
            found.append((entry, "as meant"))
    return found


def table(outcomes: list[Outcome], on_purpose: list[tuple[Meant, str]], seed: int) -> str:
    """Markdown: counts for each reduction, what differs, and what is meant to."""
    kernels = len({id(o.case) for o in outcomes})
    lines = [
        f"{len(outcomes)} comparisons of {kernels} folds, seed {seed}, M = {language.ROWS}, "
        f"N = {language.COLUMNS}, K = {', '.join(map(str, LENGTHS))}.",
        "",
        "| reduction | float64 | float32 | gradients | results with ties | outcome |",
        "|---|---|---|---|---|---|",
    ]
    for name in dict.fromkeys(o.case.name for o in outcomes):
        mine = [o for o in outcomes if o.case.name == name]
        counts = collections.Counter("gradient" if o.case.wrt else o.case.dtype for o in mine)
        verdicts = collections.Counter(o.verdict for o in mine)
        verdict = ", ".join(f"{v} {n}" for v, n in verdicts.items())
        ties = sum(o.ties for o in mine) or ""
        numbers = [counts[key] or "" for key in ("float64", "float32", "gradient")]
        lines.append(f"| {name} | {' | '.join(map(str, numbers))} | {ties} | {verdict} |")
    lines += ["", "| meant to differ | fold | outcome |", "|---|---|---|"]
    for entry, verdict in on_purpose:
        fold = f"{entry.case.name} of {entry.case}"
        lines.append(f"| {entry.reason} | `{fold}` | {verdict} |")
    rest = [o for o in outcomes if o.verdict != "agree" or o.detail]
    if rest:
        lines += ["", "| reduction | axis | dtype | data | outcome | detail | fold |"]
        lines += ["|---|---|---|---|---|---|---|"]
    for o in rest:
        words = [o.case.name, o.case.axis, o.case.dtype, o.data, o.verdict, o.detail, f"`{o.case}`"]
        cells = (str(word).replace("|", "\\|").replace("\n", " ") for word in words)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Draw, ask, compare, print; the exit status is 1 if something differs that is not meant to."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pykeops-python", required=True, help="Python that has pykeops")
    parser.add_argument("--cache", help="folder for what PyKeOps compiles")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="part of the names of reductions")
    parser.add_argument("--write", type=Path, help="file for the table")
    chosen = parser.parse_args()
    drawn = [case for case in cases(chosen.seed) if chosen.only in case.name]
    missing = {row.name for row in REDUCTIONS.values() if not row.internal} | set(ALIASES)
    missing -= {case.name for case in drawn} | {"Mean", "Prod", "Any", "All", "Count"}
    outcomes: list[Outcome] = []
    stored = data_sets(chosen.seed)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "arrays.npz"
        np.savez(place, **stored)
        peer = Peer(chosen.pykeops_python, chosen.cache, place)
        for number, case in enumerate(drawn, 1):
            for data in case.data:
                outcomes.append(compared(case, data, stored, asked(peer, case, data)))
            sys.stderr.write(f"{number} of {len(drawn)}: {case.name}, {outcomes[-1].verdict}\n")
        on_purpose = meant(peer, stored)
        peer.close()
    text = table(outcomes, on_purpose, chosen.seed)
    if missing and not chosen.only:
        text += f"\nNot compared: {', '.join(sorted(missing))}.\n"
    sys.stdout.write(text)
    if chosen.write:
        chosen.write.write_text(text)
    bad = [o for o in outcomes if o.verdict != "agree"]
    return int(bool(bad) or any(verdict != "as meant" for _, verdict in on_purpose))


if __name__ == "__main__":
    sys.exit(main())
