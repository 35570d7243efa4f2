"""The text of results.md: who is faster, floors and aims, tables of times and errors."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.case import Bar, Case
from benchmarks.cases import CASES
from benchmarks.harness import CAP, OURS, Result
from benchmarks.tables import ratio, seconds, table, without_empty, yes

if TYPE_CHECKING:
    from benchmarks.bound import Bound

SHIPPED, TUNED, CPP = "PyKeOps", "PyKeOps tuned", "C++"
TREE, MEMORY = "SciPy cKDTree", "memory"
Results = Mapping[str, Mapping[str, Result]]

PEERS_TEXT = f"""\
Peers:

- *PyKeOps* 2.3 as shipped; *PyKeOps tuned*: with `CXXFLAGS="-march=native -ffast-math"` and
  `sum_scheme="direct_sum"`.
- *torch products*: chunks of rows of 16 MB with preallocated buffers, squared distances from one
  matrix product: fast, but it cancels, see the errors; gradients are derived by hand.
- *torch differences*: the same, coordinate by coordinate; for small arrays the dense program
  through autograd.
- *torch compiled*: `torch.compile` of a chunk of rows, differences up to 10 dimensions, products
  above; gradients through autograd, so forward and backward of each chunk.
- *torch attention*: `scaled_dot_product_attention`.
- *JAX chunks*: `jit`, `lax.map` over chunks of rows with a matrix product, checkpointed for
  gradients. *JAX fused*: `jit` of the whole table, coordinate by coordinate, which XLA fuses.
- *numba*: loops under `njit(parallel=True, fastmath=True)`.
- *scikit-learn*: `NearestNeighbors(algorithm="brute")`, `pairwise_distances_argmin`. *faiss*:
  `IndexFlatL2`. Points that are searched are indexed beforehand, centroids are not.
- *SciPy cKDTree*: a tree, built beforehand. It does not look at all pairs, so it is shown here and
  compared with nothing.
- *C++*: `reference.cpp`, g++ with `-O3 -march=native -ffast-math -fopenmp`; *512-bit*: with
  `-mprefer-vector-width=512` in addition.
- *memory*: reading the inputs and writing the outputs, nothing else.

Each peer is one warm process; peers take turns, one at a time. Before each sample the driver waits
for the machine to be quiet. Times are medians, in seconds, of the samples that others did not
disturb; `†`: fewer than three were undisturbed (the best follows). `~`: estimated from a part of
the pairs, since the whole would take more than {CAP:g} s. Error: max|out - exact| / max|exact|
against float64 on 300 rows, the worst over results; an index counts as the value of the pair that
it points at, for nearest neighbours as the quotient of that and the right one (an index that comes
twice is an infinite error). Gradients are the backward pass alone unless the case says otherwise.
"""


@dataclass(frozen=True)
class Fresh:
    """A row about fresh processes: its name, what it is, and what it must stay below."""

    name: str
    says: str
    floor: tuple[Bar, ...]
    aim: tuple[Bar, ...]


def _of(results: Mapping[str, Result], peer: str) -> float:
    return results[peer].median if peer in results else math.nan


def _brute(name: str) -> bool:
    """Whether a peer does the same work as we do."""
    return name not in (OURS, TREE, MEMORY)


def _family(name: str, of: str) -> bool:
    """Whether a peer is meant by `of` (see `Bar`)."""
    if of == SHIPPED:
        return name == SHIPPED
    if of == "Python":
        return _brute(name) and not name.startswith((CPP, SHIPPED))
    return _brute(name) and name.startswith(of)


def fastest(results: Mapping[str, Result], of: str) -> str:
    """The peer with the shortest median among those that are meant; "" for none."""
    able = [n for n, r in results.items() if _family(n, of) and not math.isnan(r.median)]
    return min(able, key=lambda name: results[name].median, default="")


def _time(results: Mapping[str, Result], peer: str) -> str:
    if peer not in results:
        return "-"
    result = results[peer]
    if result.failure:
        return "failed"
    mark = f" † ({seconds(result.best)})" if result.noisy else ""
    return seconds(result.median, not result.samples) + mark


def case_title(case: Case, size: tuple[int, int]) -> str:
    """What a case computes, in a line."""
    more = [f"K={case.opt_arg}"] if case.opt_arg else []
    more += [f"weight={case.formula2}"] if case.formula2 else []
    formula = case.formula
    if case.reduction_op != "Sum" or more:
        formula = f"{case.reduction_op}({', '.join([formula, *more])})"
    what = {"forward": "", "gradient": ", backward pass", "both": ", forward and backward"}
    wrt = f" for {', '.join(case.wrt)}" if case.wrt else ""
    return (
        f"- **{case.name}**: `{formula}`, M = {size[0]}, N = {size[1]}, {case.dtype}, "
        f"{', '.join(f'{k}: {d}' for k, d in case.dims.items())}, through {case.front}"
        f"{what[case.what]}{wrt}"
    )


def peer_tables(results: Results, pairs: Mapping[str, int]) -> str:
    """Some cases beside all peers: a table of times and one of errors."""
    names = dict.fromkeys(peer for found in results.values() for peer in found)
    times, errors = [], []
    for case, found in results.items():
        rate = pairs[case] / _of(found, OURS) / 1e9 if case in pairs else math.nan
        times.append([case, ratio(rate), *(_time(found, peer) for peer in names)])
        errors.append([case, *(_error(found, peer) for peer in names)])
    text = without_empty(["seconds", "our Gpairs/s", *names], times)
    if any(cell != "-" for row in errors for cell in row[1:]):
        text += "\n" + without_empty(["error", *names], errors)
    return text


def _error(results: Mapping[str, Result], peer: str) -> str:
    error = results[peer].error if peer in results else None
    return "-" if error is None else f"{error:.1e}"


def summary(results: Results) -> str:
    """One row per case: ours against the others."""
    rows = []
    for name, found in results.items():
        ours, shipped = _of(found, OURS), _of(found, SHIPPED)
        peer, cpp = fastest(found, "Python"), fastest(found, CPP)
        rows.append(
            [name, *(_time(found, p) for p in (OURS, SHIPPED, TUNED)), peer or "-",
             *(_time(found, p) for p in (peer, cpp, TREE, MEMORY)), ratio(shipped / ours),
             ratio(_of(found, TUNED) / ours), ratio(_of(found, peer) / ours),
             ratio(_of(found, cpp) / ours), _error(found, OURS)]
        )  # fmt: skip
    head = [
        "case", "ours s", "PyKeOps s", "tuned s", "best other peer in Python", "its s",
        "best C++ s", "tree s", "memory s", "x PyKeOps", "x tuned", "x best peer", "x C++", "error",
    ]  # fmt: skip
    return without_empty(head, rows)


def findings(results: Results, verdicts: Sequence[tuple[str, str, bool]]) -> str:
    """What a reader wants to know first: where we are slower, what is missed, the largest error."""
    slower = []
    for name, found in results.items():
        peer = min(
            (p for p in found if _brute(p) and not math.isnan(found[p].median)),
            key=lambda p: found[p].median,
            default="",
        )
        if peer and _of(found, peer) < _of(found, OURS):
            times = ratio(_of(found, OURS) / _of(found, peer))
            slower.append(f"{name} ({peer}, {times} x)")
    missed = [f"{name} ({what})" for name, what, met in verdicts if not met]
    failed = [f"{n} ({p})" for n, found in results.items() for p, r in found.items() if r.failure]
    errors = {}
    for name, found in results.items():
        error = found[OURS].error if OURS in found else None
        if error is not None:
            errors.setdefault(CASES[name].dtype, []).append((error, name))
    lines = [
        f"- Slower than a brute-force peer: {', '.join(slower) or 'nowhere'}.",
        f"- Floors not reached: {', '.join(missed) or 'none'}.",
        *(f"- Our largest error in {dtype}: {max(found)[0]:.1e} ({max(found)[1]})."
          for dtype, found in errors.items()),
    ]  # fmt: skip
    if failed:
        lines.append(f"- Failed: {', '.join(failed)}.")
    return "\n".join(lines) + "\n"


def _judge(
    bar: Bar, name: str, results: Results, bounds: Mapping[str, Bound]
) -> tuple[str, bool] | None:
    """(the bar and what was reached, whether it is met); None where nothing was measured."""
    found = results[name]
    ours = _of(found, OURS)
    if bar.kind == "ratio":
        peer = fastest(found, bar.of)
        value = _of(found, peer) / ours
        text, met = f"{bar.value:g} x {bar.of}", value >= bar.value
        reached = ratio(value) + (f" {peer}" if peer != bar.of else "")
    elif bar.kind == "seconds":
        value, text, met = ours, f"< {1e3 * bar.value:g} ms", ours < bar.value
        reached = f"{1e3 * ours:.3g} ms"
    elif bar.kind == "multiple":
        value = ours / _of(results.get(bar.of, {}), OURS)
        text, met, reached = f"<= {bar.value:g} x {bar.of}", value <= bar.value, ratio(value)
    else:
        bound = bounds.get(name)
        value = math.nan if bound is None or bound.ratio is None else bound.ratio
        text, met, reached = f"<= {bar.value:g} x limit", value <= bar.value, ratio(value)
    return None if math.isnan(value) else (f"{text} ({reached})", met)


def verdicts(
    results: Results, bounds: Mapping[str, Bound], fresh: Sequence[Fresh], aims: bool
) -> list[tuple[str, str, bool]]:
    """(case, bar and what was reached, met?) of all floors, or of all aims."""
    others = {row.name: row for row in fresh}
    found = []
    for name in results:
        goals: Case | Fresh = CASES[name] if name in CASES else others[name]
        for bar in goals.aim if aims else goals.floor:
            judged = _judge(bar, name, results, bounds)
            if judged is not None:
                found.append((name, *judged))
    return found


def bars(floors: Sequence[tuple[str, str, bool]], aims: Sequence[tuple[str, str, bool]]) -> str:
    """Floors and aims, a row per case; what was reached is in brackets."""
    names = dict.fromkeys(name for name, _, _ in [*floors, *aims])

    def cells(found: Sequence[tuple[str, str, bool]], name: str) -> list[str]:
        own = [(text if met else f"**{text}**", met) for n, text, met in found if n == name]
        if not own:
            return ["-", "-"]
        return ["; ".join(text for text, _ in own), yes(all(met for _, met in own))]

    rows = [[name, *cells(floors, name), *cells(aims, name)] for name in names]
    return table(["case", "floor (reached)", "met?", "aim (reached)", "met?"], rows)


def flatness(rows: Sequence[Mapping[str, float]]) -> str:
    """Time per pair at several lengths."""
    each = [1e9 * row["seconds"] / row["length"] ** 2 for row in rows]
    cells = [
        [f"{row['length']:.0f}", seconds(row["seconds"]), f"{ns:.4f}"]
        for row, ns in zip(rows, each)
    ]
    worst = max(each) / min(each)
    about = (
        "Gaussian sum, D = 3, float32, the shortest of the calls of a second.\n\n"
        f"Longest time per pair over the shortest: {worst:.2f} (at most 1.25: {yes(worst <= 1.25)})"
    )
    return f"{about}\n\n{table(['M = N', 'seconds', 'ns per pair'], cells)}"


def threads(rows: Sequence[Mapping[str, float | str | bool]]) -> str:
    """One thread against two."""
    cells = []
    for row in rows:
        one, two = float(row["one"]), float(row["two"])
        cells.append(
            [str(row["case"]), seconds(one), seconds(two), f"{one / two:.2f}",
             yes(one >= 1.8 * two), yes(bool(row["equal"]))]
        )  # fmt: skip
    head = ["case", "1 thread s", "2 threads s", "ratio", "at least 1.8?", "bitwise equal?"]
    about = "Cases of at least 10^8 pairs, the shortest of several calls taken in turn.\n"
    return f"{about}\n{table(head, cells)}"


def memory(row: Mapping[str, float]) -> str:
    """Peak memory of a large sum."""
    first, later = max(0.0, row["first"]), max(0.0, row["later"])
    return (
        "Resident memory at its peak during a Gaussian sum, D = 3, M = N = 100000, float32, beyond "
        f"what was there before: {later:.1f} MB (below 50 MB: {yes(later < 50)}); at the first "
        f"call of the process, LLVM and compilation included, {first:.0f} MB.\n"
    )


def compilation(rows: Sequence[Mapping[str, float | str]]) -> str:
    """Compile times of large formulas."""
    cells = [
        [str(row["formula"]), *(f"{1e3 * float(row[d]):.0f}" for d in ("float32", "float64")),
         yes(max(float(row["float32"]), float(row["float64"])) < 1)]
        for row in rows
    ]  # fmt: skip
    about = "Milliseconds of the first call of a formula, less those of a later call.\n"
    head = ["formula", "float32 ms", "float64 ms", "below 1 s?"]
    return f"{about}\n{table(head, cells)}"
