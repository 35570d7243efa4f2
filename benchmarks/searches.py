"""Nearest neighbours by several distances, beside trees and beside the fold of all pairs.

    python -m benchmarks.searches --write benchmarks/searches.md

Trees are built and asked within each measured call. In each round every program runs once, in
turn, so that what else the machine does meets all; the figures are medians of the rounds, of
seconds by the clock and of CPU seconds of all threads. pykdtree and scikit-learn are peers where
they are installed; nothing else here needs them.
"""

from __future__ import annotations

import argparse
import importlib
import os
import statistics
import time
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

import pairfold
from benchmarks.environment import machine
from pairfold import Genred, settings
from pairfold.settings import available_cpus

Floats = NDArray[np.float32]
Program = Callable[[], Any]

# A program that takes longer runs once; peers and folds of so many pairs are timed on fewer rows.
SLOW_SECONDS = 4.0
MANY_PAIRS = 2e10
FEW_ROWS = 20_000
TREE_ROWS, FEW_DIMENSIONS = 200, 8

SQUARED = "SqDist(x,y)"
WEIGHTED = "Sum(w * Abs(x-y))"
HAVERSINE = (
    "Square(Sin((Elem(x,0)-Elem(y,0))/2))"
    " + Cos(Elem(x,0))*Cos(Elem(y,0))*Square(Sin((Elem(x,1)-Elem(y,1))/2))"
)
WEIGHTS = np.array([1, 2, 0.5], np.float32)

HEAD = """# Searches for nearest neighbours

Written by `python -m benchmarks.searches --write benchmarks/searches.md` on {cpus} CPUs
({machine}): NumPy {numpy}, SciPy {scipy}, pykdtree {pykdtree}, scikit-learn {sklearn}; float32,
interleaved rounds, medians. The load of the machine was {load:.1f} at the start: figures by the
clock count what others took of its CPUs, CPU seconds (all threads, second in each pair) do not.
Trees are built in every call. "~": measured on fewer rows and scaled, or in a single run.
"met": the share of blocks of pairs that pairfold computed; where none is given, it folds all pairs.
Distances of the first 100 rows were compared with those of each peer (5e-6 relative), and results
of pairfold with those of prune="never", bit for bit: all rows, or of 1e6 the first 20 000.
scikit-learn's trees compute in float64. No tree takes weights for L1: it gets scaled components.

"""

COLUMNS = """| Points | K | met | pairfold | all pairs | {peers} | {ratios} |
|---|---|---|---|---|{lines}|
"""

LOSS = """
## Where pruning does not pay

Points that are uniform in many dimensions, rows x columns; {rounds} rounds. `auto`: the share of
the time with prune="auto" in that with prune="never", the median of the rounds, by the clock and
of CPU seconds. Most of these calls do not ask whether it pays: after a refusal the next 4, 8, 16
... calls of a formula go without, so this is what repeated calls lose, not the first.

| Points | K | auto / never | CPU | why all pairs are met |
|---|---|---|---|---|
"""


class Case(NamedTuple):
    """Rows, columns and what is nearest; peers by name, each from rows, columns and K."""

    name: str
    x: Floats
    y: Floats
    formula: str
    peers: dict[str, Callable[[Floats, Floats, int], Any]]
    distance: Callable[[Any], Any]
    parameters: tuple[Floats, ...] = ()
    many_dimensions: bool = False


class Spent(NamedTuple):
    """Seconds by the clock and of all threads, in each round."""

    clock: list[float]
    threads: list[float]
    estimated: bool

    def median(self) -> tuple[float, float]:
        """Of all rounds."""
        return statistics.median(self.clock), statistics.median(self.threads)

    def text(self) -> str:
        """The two medians."""
        clock, threads = self.median()
        return f"{'~' * self.estimated}{clock:.3g} / {threads:.3g}"


def installed(name: str) -> str:
    """The version of a package."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"


# ---- peers ---------------------------------------------------------------------------------------


def by_pykdtree(x: Floats, y: Floats, k: int) -> Any:
    """Distances by pykdtree."""
    tree: Any = importlib.import_module("pykdtree.kdtree").KDTree(y)
    return tree.query(x, k=k)[0]


def by_scipy(x: Floats, y: Floats, k: int) -> Any:
    """Distances by SciPy's tree."""
    return cKDTree(y).query(x, k=k, workers=available_cpus())[0]


def by_sklearn(x: Floats, y: Floats, k: int, tree: str, metric: str) -> Any:
    """Distances by a tree of scikit-learn."""
    made: Any = importlib.import_module("sklearn.neighbors").NearestNeighbors(
        n_neighbors=k, algorithm=tree, metric=metric, n_jobs=available_cpus()
    )
    return made.fit(y).kneighbors(x)[0]


def peers_of(metric: str) -> dict[str, Callable[[Floats, Floats, int], Any]]:
    """Those that are here and have the metric."""
    if metric == "euclidean":
        own = {"pykdtree": by_pykdtree, "scipy": by_scipy}
    elif metric == "manhattan":
        # No tree takes weights: components are multiplied by them before it is built.
        own = {
            "scikit-learn": lambda x, y, k: by_sklearn(
                x * WEIGHTS, y * WEIGHTS, k, "kd_tree", metric
            )
        }
    else:
        own = {"scikit-learn": lambda x, y, k: by_sklearn(x, y, k, "ball_tree", metric)}
    for name in [name for name in own if installed(name) == "absent"]:
        print(f"no {name}: it is not installed")
        del own[name]
    return own


# ---- points --------------------------------------------------------------------------------------


def uniform(random: np.random.Generator, count: int, dim: int) -> Floats:
    return random.random((count, dim), np.float32)


def clusters(random: np.random.Generator, count: int, centres: Floats) -> Floats:
    """Points that are normal about centres, with a hundredth of their spread."""
    chosen = centres[random.integers(0, len(centres), count)]
    return chosen + 0.01 * random.standard_normal((count, centres.shape[1]), np.float32)


def on_manifold(random: np.random.Generator, count: int) -> Floats:
    """Points of a bent surface of three dimensions in sixteen."""
    along = random.random((count, 3), np.float32)
    directions = np.random.default_rng(7).standard_normal((3, 16)).astype(np.float32)
    return np.sin(along @ directions).astype(np.float32)


def on_sphere(random: np.random.Generator, count: int) -> Floats:
    """Latitudes and longitudes of points that are uniform on the sphere."""
    latitude = np.arcsin(2 * random.random((count, 1)) - 1)
    longitude = 2 * np.pi * random.random((count, 1)) - np.pi
    return np.concatenate([latitude, longitude], 1).astype(np.float32)


def cases() -> list[Case]:
    """All that are timed beside trees."""
    random = np.random.default_rng(0)
    flat, root = peers_of("euclidean"), np.sqrt
    some, many = 100_000, 1_000_000
    centres = uniform(random, 100, 3)

    def plain(name: str, x: Floats, y: Floats, hard: bool = False) -> Case:
        return Case(name, x, y, SQUARED, flat, root, (), hard)

    found = [
        plain(f"uniform, D = {dim}, 1e5 x 1e5", *(uniform(random, some, dim) for _ in range(2)))
        for dim in (2, 3)
    ]
    found += [
        plain("clusters, D = 3, 1e5 x 1e5", *(clusters(random, some, centres) for _ in range(2))),
        plain(
            "3-dim. manifold in D = 16, 1e4 x 1e5",
            on_manifold(random, some // 10),
            on_manifold(random, some),
        ),
        plain(
            "3-dim. manifold in D = 16, 1e5 x 1e5",
            on_manifold(random, some),
            on_manifold(random, some),
        ),
    ]
    x, y = (uniform(random, some, 3) for _ in range(2))
    found += [
        Case(
            "weighted L1, D = 3, 1e5 x 1e5", x, y, WEIGHTED, peers_of("manhattan"), lambda d: d,
            (WEIGHTS,),
        ),
        Case(
            "great circles, 1e5 x 1e5", on_sphere(random, some), on_sphere(random, some),
            HAVERSINE, peers_of("haversine"), lambda h: 2 * np.arcsin(np.sqrt(h)),
        ),
    ]  # fmt: skip
    found += [plain("uniform, D = 3, 1e6 x 1e6", *(uniform(random, many, 3) for _ in range(2)))]
    found += [
        plain(
            f"uniform, D = {dim}, 1e4 x 1e5",
            uniform(random, some // 10, dim),
            uniform(random, some, dim),
            hard=True,
        )
        for dim in (8, 16, 64)
    ]
    return found


# ---- measuring -----------------------------------------------------------------------------------


def reduction(case: Case, k: int) -> Genred:
    """Distances and numbers of the K nearest; nothing is left of searches before."""
    pairfold.clear_cache()
    dim = case.x.shape[1]
    aliases = [f"x = Vi({dim})", f"y = Vj({dim})"]
    aliases += [f"w = Pm({len(each)})" for each in case.parameters]
    if k == 1:
        return Genred(case.formula, aliases, "Min_ArgMin", axis=1)
    return Genred(case.formula, aliases, "KMin_ArgKMin", axis=1, opt_arg=k)


def without_pruning(program: Program) -> Any:
    """What it gives from all pairs."""
    with settings(prune="never"):
        return program()


def timed(program: Program) -> tuple[float, float]:
    """Seconds by the clock, and of all threads."""
    clock, threads = time.perf_counter(), time.process_time()
    program()
    return time.perf_counter() - clock, time.process_time() - threads


class Part(NamedTuple):
    """A program that does a share of the work; what it does before, which is not shared."""

    program: Program
    share: float = 1.0
    before: Program | None = None

    def timed(self) -> tuple[float, float]:
        """Seconds for all of the work, by the clock and of all threads."""
        start = (0.0, 0.0) if self.before is None else timed(self.before)
        found = zip(start, timed(self.program), strict=True)
        clock, threads = (a + max(0.0, b - a) / self.share for a, b in found)
        return clock, threads


def measured(parts: Sequence[Part], rounds: int) -> list[Spent]:
    """What programs take, round by round; the slow ones run once."""
    first = [part.timed() for part in parts]
    once = [
        clock > SLOW_SECONDS * max(1.0, 1 / part.share - 1)
        for (clock, _), part in zip(first, parts, strict=True)
    ]
    found: list[list[tuple[float, float]]] = [
        [start] if single else [] for start, single in zip(first, once, strict=True)
    ]
    for _ in range(rounds):
        for samples, part, single in zip(found, parts, once, strict=True):
            if not single:
                samples.append(part.timed())
    return [
        Spent([c for c, _ in samples], [t for _, t in samples], single or part.share < 1)
        for samples, part, single in zip(found, parts, once, strict=True)
    ]


def same(ours: Any, all_pairs: Any) -> bool:
    """Whether values and numbers are the same bit for bit."""
    return all(
        np.array_equal(a[: len(b)].view(np.uint8), b.view(np.uint8))
        for a, b in zip(ours, all_pairs, strict=True)
    )


def compare(case: Case, k: int, rounds: int) -> dict[str, Any]:
    """A case with pairfold, with all pairs, and with every peer."""
    x, y, parameters = case.x, case.y, case.parameters
    fold = reduction(case, k)
    few = min(len(x), FEW_ROWS) if len(x) * len(y) > MANY_PAIRS else len(x)
    asked = TREE_ROWS if case.many_dimensions and x.shape[1] > FEW_DIMENSIONS else len(x)
    ours = lambda: fold(x, y, *parameters)  # noqa: E731
    every = lambda: without_pruning(lambda: fold(x[:few], y, *parameters))  # noqa: E731
    results = ours()
    assert same(results, every()), f"{case.name}: not the results of all pairs"
    wanted = case.distance(results[0][:asked].astype(np.float64))
    parts = [Part(ours), Part(every, few / len(x))]
    for name, peer in case.peers.items():
        run = lambda count, peer=peer: peer(x[:count], y, k)  # noqa: E731
        before = (lambda run=run: run(1)) if asked < len(x) else None
        parts.append(Part(lambda run=run: run(asked), asked / len(x), before))
        got = np.asarray(run(100), np.float64).reshape(100, k)
        np.testing.assert_allclose(wanted[:100], got, 5e-6, 1e-6, err_msg=f"{case.name}, {name}")
    spent = measured(parts, rounds)
    tally = fold.explain(x, y, *parameters).subject.searched
    met = tally if isinstance(tally, str) else f"{100 * tally.met / tally.all:.2f} %"
    return {"met": met, "spent": dict(zip(["pairfold", "all", *case.peers], spent, strict=True))}


def ratio(theirs: Spent, ours: Spent) -> str:
    """How many times as long another takes, by the clock and of CPU seconds."""
    return " / ".join(f"{a / b:.2g}" for a, b in zip(theirs.median(), ours.median(), strict=True))


def rows(chosen: Sequence[Case], names: Sequence[str], rounds: int) -> str:
    """The lines of a table."""
    text = ""
    for case in chosen:
        few = rounds if len(case.x) < 1_000_000 else min(rounds, 3)
        for k in (1, 10):
            found = compare(case, k, few)
            spent, met = found["spent"], found["met"]
            ours = spent.pop("pairfold")
            shown = met if met.endswith("%") else "all"
            cells = [case.name, str(k), shown, ours.text(), spent["all"].text()]
            cells += [spent[name].text() if name in spent else "-" for name in names]
            cells += [ratio(spent[n], ours) if n in spent else "-" for n in ["all", *names]]
            line = "| " + " | ".join(cells) + " |\n"
            print(line, end="", flush=True)
            text += line
    return text


def table(title: str, chosen: Sequence[Case], rounds: int) -> str:
    """A part with a table: seconds, and how many times as long as pairfold others take."""
    names = list(dict.fromkeys(name for case in chosen for name in case.peers))
    head = COLUMNS.format(
        peers=" | ".join(names),
        ratios=" | ".join(f"x {name}" for name in ["all pairs", *names]),
        lines="|".join(["---"] * (2 * len(names) + 1)),
    )
    return f"\n## {title}\n\nSeconds, clock / CPU.\n\n{head}{rows(chosen, names, rounds)}"


def loss_of(case: Case, k: int, rounds: int) -> str:
    """A line: what it costs a case to find out that pruning does not pay."""
    fold = reduction(case, k)

    def ours() -> Any:
        return fold(case.x, case.y)

    turns: list[Callable[[], tuple[float, float]]] = [
        lambda: timed(ours),
        lambda: without_pruning(lambda: timed(ours)),
    ]
    first = ours()
    assert same(first, without_pruning(ours))
    pairs: list[tuple[float, float]] = []
    for n in range(rounds):
        order = (0, 1) if n % 2 else (1, 0)
        spent = {which: turns[which]() for which in order}
        pairs.append((spent[0][0] / spent[1][0], spent[0][1] / spent[1][1]))
    clock, threads = (statistics.median(each) for each in zip(*pairs, strict=True))
    tally = fold.explain(case.x, case.y).subject.searched
    reason = tally if isinstance(tally, str) else f"{100 * tally.met / tally.all:.1f} % are met"
    return f"| {case.name} | {k} | {clock:.3f} | {threads:.3f} | {reason} |\n"


def loss(chosen: Sequence[Case], rounds: int) -> str:
    """The part on what does not pay."""
    text = LOSS.format(rounds=rounds)
    for case in chosen:
        for k in (1, 10):
            line = loss_of(case, k, rounds)
            print(line, end="", flush=True)
            text += line
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="cases whose names contain this")
    parser.add_argument("--write", type=Path)
    given = parser.parse_args()
    chosen = [case for case in cases() if given.only in case.name]
    text = HEAD.format(
        cpus=available_cpus(),
        machine=machine()["CPU"],
        numpy=np.__version__,
        load=os.getloadavg()[0],
        scipy=installed("scipy"),
        pykdtree=installed("pykdtree"),
        sklearn=installed("scikit-learn"),
    )
    hard = [case for case in chosen if case.many_dimensions]
    other = [c for c in chosen if c.formula != SQUARED]
    flat = [c for c in chosen if c.formula == SQUARED and not c.many_dimensions]
    parts: list[Callable[[], str]] = []
    if hard:
        parts.append(lambda: loss(hard, max(given.rounds, 9)))
    for title, part in (
        ("Euclidean distances", flat),
        ("Other distances", other),
        ("Many dimensions", hard),
    ):
        if part:
            parts.append(lambda title=title, part=part: table(title, part, given.rounds))
    for write in parts:
        text += write()
        if given.write:
            given.write.write_text(text)


if __name__ == "__main__":
    main()
