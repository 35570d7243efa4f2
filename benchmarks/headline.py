"""The table of speed in the README and the longer one in docs/performance.md, from results.md:

python -m benchmarks.headline
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.tables import ratio, table

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results.md"
BEGIN, END = "<!-- speed:begin -->\n", "<!-- speed:end -->\n"
HEAD = ("Case", "pairfold", "PyKeOps 2.3", "tuned", "Python", "C++")

# What each case of results.md is called, in the order of the longer table.
LABELS = {
    "seed.forward": "`Square(p-a)*Exp(x+y)`, 3000 x 5000",
    "seed.forward.exact": 'the same with `rules="exact"`',
    "seed.gradient.autograd": "`Square(p-a)*Exp(x+y)`: the gradient for y, through torch",
    "gaussian.float32": "Gaussian sum, D = 3, 20000 x 20000",
    "gaussian.float64": "the Gaussian sum in float64",
    "gaussian.backward": "gradients of the Gaussian sum for x, y and b together",
    "gaussian.1k": "Gaussian sum, 1000 x 1000",
    "gaussian.100k": "Gaussian sum, 100000 x 100000",
    "laplacian.float32": "exp(-r), 20000 x 20000",
    "matern.float32": "Matern 5/2, 20000 x 20000",
    "matern.1k": "Matern 5/2, 1000 x 1000",
    "coulomb.float32": "Coulomb, 1/r, 20000 x 20000",
    "coulomb.1k": "Coulomb, 1/r, 1000 x 1000",
    "cauchy.float32": "Cauchy, 1/(1+r^2), 20000 x 20000",
    "cauchy.float64": "Cauchy in float64",
    "cauchy.1k": "Cauchy, 1000 x 1000",
    "gaussian.dim10": "Gaussian, D = 10, 10000 x 10000",
    "gaussian.dim64": "Gaussian, D = 64, 10000 x 10000",
    "gaussian.dim100": "Gaussian, D = 100, 10000 x 10000",
    "gaussian.dim784": "Gaussian, D = 784, 10000 x 10000",
    "gaussian.outputs100": "Gaussian, D = 3, b of dimension 100, 10000 x 10000",
    "sinkhorn": "log-sum-exp (Sinkhorn), 20000 x 20000",
    "attention": "soft-max attention, 8192 x 8192, D = 64",
    "knn.dim3.k1": "nearest neighbour, D = 3, 10000 x 10000",
    "knn.dim3.k10": "10 nearest neighbours, D = 3",
    "knn.dim16.k10": "10 nearest neighbours, D = 16",
    "knn.dim64.k10": "10 nearest neighbours, D = 64",
    "knn.dim128.k10": "10 nearest neighbours, D = 128",
    "knn.dim128.k100": "100 nearest neighbours, D = 128",
    "kmeans.2x1000": "k-means, 10^6 points, 1000 centroids, D = 2",
    "kmeans.100x1000": "k-means, 10^5 points, 1000 centroids, D = 100",
    "lazytensor.gaussian": "the Gaussian sum as a lazy tensor, `K @ b`",
    "batch.64x500": "64 Gaussian sums of 500 x 500, in one call",
    "ranges.gaussian": "Gaussian sum over a quarter of the pairs, in blocks (`ranges`)",
    "solve.gaussian": "`K.solve(b)`, 5000 x 5000, float64",
    "reduction.Min": "`Min`, D = 3, 20000 x 20000",
    "reduction.ArgMin": "`ArgMin`, D = 3, 20000 x 20000",
    "reduction.SumSoftMaxWeight": "`SumSoftMaxWeight`, 20000 x 20000, weights of dimension 3",
    "thin.one-row": "1 row x 10^7 columns",
    "call.numpy": "a call with M = N = 100, NumPy",
    "call.torch": "a call with M = N = 100, torch",
    "call.torch-backward": "a call and its gradient with M = N = 100, torch",
    "lazytensor.call": "a call with M = N = 100, lazy tensors made anew",
}
SHORT = (
    "lazytensor.call",
    "call.torch",
    "knn.dim3.k1",
    "coulomb.float32",
    "gaussian.dim784",
    "gaussian.float32",
    "gaussian.backward",
    "gaussian.100k",
    "sinkhorn",
    "attention",
    "knn.dim16.k10",
    "kmeans.100x1000",
    "solve.gaussian",
)


@dataclass(frozen=True)
class Row:
    """One case of the summary: seconds, NaN where there are none."""

    case: str
    ours: float
    pykeops: float
    tuned: float
    python: float
    cpp: float
    peer: str
    faster: float
    about: frozenset[str]

    @property
    def worst(self) -> float:
        """Our time over that of the fastest program; infinite where there is no other."""
        others = [t for t in (self.pykeops, self.tuned, self.python, self.cpp) if t == t]
        return self.ours / min(others) if others else -math.inf


def summary(text: str) -> dict[str, Row]:
    """The rows of the summary of results.md that have a peer."""
    part = text.partition("\n## Summary\n")[2].partition("\n## ")[0]
    lines = [line.strip("|\n ").split(" | ") for line in part.splitlines() if line.startswith("|")]
    names, found = lines[0], dict[str, Row]()
    for cells in lines[2:]:
        given = dict(zip(names, cells, strict=True))
        times = {
            key: _number(given[f"{key} s"]) for key in ("ours", "PyKeOps", "tuned", "best C++")
        }
        python = _number(given["its s"])
        row = Row(
            given["case"], times["ours"], times["PyKeOps"], times["tuned"], python,
            times["best C++"], given["best other peer in Python"], _number(given["x PyKeOps"]),
            frozenset(name for name, cell in given.items() if cell.startswith("~")),
        )  # fmt: skip
        if row.worst > 0 and not row.case.startswith(("first-call", "import")):
            found[row.case] = row
    return found


def _number(cell: str) -> float:
    """A time with or without `~`, and without what stands behind it."""
    found = re.match(r"~?([\d.e+-]*\d)", cell)
    return float(found[1]) if found else math.nan


def duration(value: float) -> str:
    """Seconds in the unit that suits them, with three digits."""
    scale, unit = next(
        (s, u) for s, u in ((1, "s"), (1e-3, "ms"), (1e-6, "us")) if value >= 0.9995 * s or s < 1e-5
    )
    return f"{value / scale:.3g} {unit}"


def _cells(row: Row) -> list[str]:
    """The row as it stands in the table; a peer that is faster is in bold."""

    def peer(value: float, column: str, behind: str = "") -> str:
        if value != value:
            return ""
        text = ("about " if column in row.about else "") + duration(value) + behind
        return f"**{text}**" if value < row.ours else text

    return [
        LABELS[row.case],
        duration(row.ours),
        peer(row.pykeops, "PyKeOps s", f" ({ratio(row.faster)} x)"),
        peer(row.tuned, "tuned s"),
        peer(row.python, "its s", f" ({row.peer})"),
        peer(row.cpp, "best C++ s"),
    ]


def losses_first(rows: Sequence[Row]) -> list[Row]:
    """Rows where another program is faster come first, the worst of them at the top."""
    return sorted(rows, key=lambda row: -row.worst if row.worst > 1 else 0)


def short(rows: Mapping[str, Row]) -> str:
    """The table of the README, with a sentence that counts."""
    slower = sum(row.worst > 1 for row in rows.values())
    cases = losses_first([rows[case] for case in SHORT])
    return (
        f"In {slower} of the {len(rows)} cases that have a peer, the fastest of all is another "
        "program. In bold:\nwhere a peer is faster; these cases come first.\n\n"
        + table(HEAD, [_cells(row) for row in cases])
    )


def long(rows: Mapping[str, Row]) -> str:
    """The table of docs/performance.md."""
    return table(HEAD, [_cells(rows[case]) for case in LABELS])


PAGES: dict[Path, Callable[[Mapping[str, Row]], str]] = {
    ROOT / "README.md": short,
    ROOT / "docs" / "performance.md": long,
}


def written(page: Path, rows: Mapping[str, Row]) -> str:
    """The page with its table made anew.

    Raises:
        ValueError: the page has no marks.
    """
    before, mark, rest = page.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not mark or not end:
        raise ValueError(f"{page} has no marks {BEGIN.strip()} and {END.strip()}")
    return f"{before}{BEGIN}{PAGES[page](rows)}{END}{after}"


def main() -> None:
    """Writes both pages."""
    rows = summary(RESULTS.read_text())
    for page in PAGES:
        page.write_text(written(page, rows))


if __name__ == "__main__":
    main()
