"""Compare pairfold with PyKeOps on random formulas: the same text, the same arrays, float64.

    python conformance/formulas.py --pykeops-python OTHER/bin/python --write conformance/results.md

PyKeOps runs in its own environment, as a subprocess; `--cache` is where it keeps what it compiles.
Formulas are scalars and are folded some at a time, joined by Concat, since every kernel costs
PyKeOps seconds of C++ compiler. `--seed` and `--first` name formulas: number k of a seed is always
the same formula.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from conformance import language
from pairfold.calculus import operators as operators  # registers Grad, Diff ...
from pairfold.errors import PairfoldError
from pairfold.numpy import Genred
from pairfold.ops.table import OPERATIONS

ROOT = Path(__file__).resolve().parents[1]

_SINGLE = {
    "Powf": "PyKeOps computes Powf in single precision",
    "SoftDTW_SqDist": "PyKeOps takes the minimum of SoftDTW in single precision",
}

_DERIVATIVE = r"(Grad|Diff|GradMatrix|Divergence|Laplacian)\("

# Known reasons: what the formula contains, what PyKeOps says (patterns), and the reason.
REASONS = (
    ("", "not implemented for Zero", "Divergence and Laplacian of a zero derivative"),
    ("", "not linear|not implemented for|AdjointOperator", "Diff through this operation"),
    ("Complex", "ComplexScalarOp|even", "gradient of complex numbers to a real variable"),
    (f"{_DERIVATIVE}.*IfElse", "", "gradient of IfElse"),
    (f"{_DERIVATIVE}.*Atan2", "", "gradient of Atan2 to a repeated operand"),
    (f"{_DERIVATIVE}.*SinXDivX", "", "derivative of SinXDivX at 0"),
    ("", "RecursionError", "no end to the simplifications"),
    ("", "has no attribute 'dim'|unsupported operand", "a number where a formula is wanted"),
    ("", "CompileError|compil", "C++ that does not compile"),
)


@dataclass(frozen=True)
class Outcome:
    """One formula: how the two compare."""

    number: int
    axis: int
    formula: str
    verdict: str
    detail: str = ""


class Peer:
    """PyKeOps in a process of its own, started again when it dies."""

    def __init__(self, python: str, cache: str | None, arrays: Path) -> None:
        self.command = [python, str(ROOT / "conformance" / "peer.py"), str(arrays)]
        self.environment = {**os.environ, "PYKEOPS_VERBOSE": "0", "OMP_NUM_THREADS": "1"}
        self.environment.pop("PYTHONPATH", None)
        if cache:
            self.environment["KEOPS_CACHE_FOLDER"] = cache
        self.process: subprocess.Popen[str] | None = None

    def send(self, request: dict[str, Any]) -> list[Any] | None:
        """The peer's answer to one request, or None if it dies of it."""
        if self.process is None:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=self.environment,
                text=True,
            )
        assert self.process.stdin
        assert self.process.stdout
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if answer:
            return json.loads(answer)
        self.close()
        return None

    def ask(self, formulas: list[str], axis: int) -> list[Any]:
        """Sums of formulas; one by one where the peer dies of several."""
        request = {"formulas": formulas, "aliases": list(language.ALIASES), "axis": axis}
        answer = self.send(request)
        if answer is not None:
            return answer
        if len(formulas) == 1:
            return ["the process died"]
        return [self.ask([formula], axis)[0] for formula in formulas]

    def close(self) -> None:
        """End the process."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait()
            self.process = None


def here(formula: str, axis: int, arrays: list[Any]) -> tuple[Any, Any]:
    """The sums as pairfold has them, and how far inputs moved by 1e-10 move them."""
    fold = Genred(formula, list(language.ALIASES), reduction_op="Sum", axis=axis)
    rng = np.random.default_rng(0)
    got = fold(*arrays)[:, 0]
    moved = [a * (1 + 1e-10 * rng.choice([-1.0, 1.0], a.shape)) for a in arrays]
    return got, np.abs(fold(*moved)[:, 0] - got)


def compared(number: int, axis: int, formula: str, arrays: list[Any], there: Any) -> Outcome:
    """The verdict on one formula."""

    def outcome(verdict: str, detail: str = "") -> Outcome:
        return Outcome(number, axis, formula, verdict, detail)

    try:
        got, moved = here(formula, axis, arrays)
    except PairfoldError as error:
        said = str(error).splitlines()[0]
        if isinstance(there, str):
            return outcome("both refuse", f"{said} / {_short(there)}")
        return outcome("pairfold refuses", said)
    if isinstance(there, str):
        return outcome(f"PyKeOps refuses: {reason(formula, there)}", _short(there))
    want = np.asarray(there, float)
    single = next((name for name in _SINGLE if name in formula), None)
    if np.array_equal(np.isfinite(got), np.isfinite(want)):
        finite = np.isfinite(want)
        scale = float(np.abs(want[finite]).max(initial=1e-300))
        with np.errstate(all="ignore"):
            error = np.where(finite, np.abs(got - want), 0)
            allowed = 1e-12 * scale + 1e-3 * np.where(finite, moved, 0)
        if (error <= allowed).all():
            return outcome("agree")
        if single and error.max() <= 1e-4 * scale:
            return outcome("agree to single precision", _SINGLE[single])
        says = f"largest difference {error.max():.2g} of {scale:.2g}"
    else:
        says = f"finite here {np.isfinite(got).sum()}, there {np.isfinite(want).sum()}"
    return outcome(f"differ: {reason(formula, '')}", says)


def _short(said: str) -> str:
    """What PyKeOps says, without where in its own files."""
    return " ".join(said.partition("(error at")[0].split())[:120]


def reason(formula: str, said: str) -> str:
    """The first known reason that fits, or that there is none."""
    for contains, words, why in REASONS:
        if re.search(contains, formula) and (re.search(words, said) if said else not words):
            return why
    return "no known reason"


def table(outcomes: list[Outcome], names: frozenset[str], seed: int) -> str:
    """Markdown: counts, then every formula that is not simply agreed upon."""
    counts = collections.Counter(outcome.verdict for outcome in outcomes)
    missing = sorted({t.name for t in language.TEMPLATES} - names)
    lines = [
        f"{len(outcomes)} sums of {len({o.number for o in outcomes})} formulas, seed {seed}, "
        f"M = {language.ROWS}, N = {language.COLUMNS}, float64; {len(names)} operations.",
        "",
        "| outcome | sums |",
        "|---|---|",
        *(f"| {verdict} | {count} |" for verdict, count in counts.most_common()),
        "",
    ]
    if missing:
        lines += [f"Not drawn, for want of a row: {', '.join(missing)}.", ""]
    rest = [o for o in outcomes if not o.verdict.startswith("agree")]
    if rest:
        lines += ["| number | axis | outcome | detail | formula |", "|---|---|---|---|---|"]
    for o in rest:
        cells = [str(o.number), str(o.axis), o.verdict, o.detail, f"`{o.formula}`"]
        lines.append(
            "| " + " | ".join(c.replace("|", "\\|").replace("\n", " ") for c in cells) + " |"
        )
    return "\n".join(lines).rstrip() + "\n"


def main() -> int:
    """Draw, ask, compare, print; the exit status is 1 if something differs without a reason."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pykeops-python", required=True, help="Python that has pykeops")
    parser.add_argument("--cache", help="folder for what PyKeOps compiles")
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--first", type=int, default=0, help="number of the first formula")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pack", type=int, default=10, help="formulas for each kernel")
    parser.add_argument("--axes", default="01", help="0, 1, or 01 for both")
    parser.add_argument("--write", type=Path, help="file for the table")
    chosen = parser.parse_args()
    names = frozenset(t.name for t in language.TEMPLATES) & frozenset(OPERATIONS)
    names -= frozenset(language.NOT_THERE)
    if "Atan2" not in OPERATIONS:
        names -= {"ComplexAngle"}
    arrays = language.arrays(chosen.seed)
    numbers = range(chosen.first, chosen.first + chosen.count)
    drawn = [(n, language.draw(chosen.seed, n, names)) for n in numbers]
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory() as folder:
        stored = Path(folder) / "arrays.npz"
        np.savez(stored, *arrays)
        peer = Peer(chosen.pykeops_python, chosen.cache, stored)
        for start in range(0, len(drawn), chosen.pack):
            pack = drawn[start : start + chosen.pack]
            for axis in map(int, chosen.axes):
                answers = peer.ask([formula for _, formula in pack], axis)
                for (number, formula), there in zip(pack, answers, strict=True):
                    outcomes.append(compared(number, axis, formula, arrays, there))
            sys.stderr.write(f"{start + len(pack)} of {len(drawn)}\n")
        peer.close()
    text = table(outcomes, names, chosen.seed)
    sys.stdout.write(text)
    if chosen.write:
        chosen.write.write_text(text)
    return int(any("no known reason" in o.verdict for o in outcomes))


if __name__ == "__main__":
    sys.exit(main())
