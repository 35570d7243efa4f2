"""
Nearest neighbours that meet few pairs
======================================

For each point x_i of a cloud, the K nearest of many points y_j, by a distance that is a formula:

.. math::

    \\operatorname{argmin}_{j}^{(K)} \\, F(x_i, y_j), \\qquad F = |x - y|^2, \\quad
    F = \\textstyle\\sum_d w_d |x_d - y_d|, \\quad ...

Rows and columns are put in order along a curve that keeps what is near together. Bounds of the
formula over a box of rows and a box of columns tell which blocks of pairs may hold a neighbour; the
others are never computed. What is found is that of all pairs, bit for bit.

At the end some rows are computed again from dense tables, by NumPy in double precision.

The program exits with status 1 if the two differ by more than 1e-5.
"""

# %%
# Setup
# -----
# Points along a spiral, of which each has many near it.

import argparse
import sys
import time
from pathlib import Path

import numpy as np

from pairfold import Genred, settings

options = argparse.ArgumentParser(description="Nearest neighbours by several distances.")
options.add_argument("--dtype", choices=["float32", "float64"], default="float32")
chosen = options.parse_args()

M, N, K = 20_000, 40_000, 5
random = np.random.default_rng(0)


def spiral(count):
    angle = 3 * np.pi * np.sqrt(random.random((count, 1)))
    place = angle / 10 * np.concatenate([np.cos(angle), np.sin(angle)], 1)
    return (place + 0.05 * random.standard_normal((count, 2))).astype(chosen.dtype)


x, y = spiral(M), spiral(N)
w = np.array([1, 3], chosen.dtype)

# %%
# Distances
# ---------
# A formula of a distance is all that a search needs. ``explain`` makes the search and says how many
# blocks of pairs it met.

aliases = ["x = Vi(2)", "y = Vj(2)", "w = Pm(2)"]
formulas = {
    "squared distance": "SqDist(x,y)",
    "weighted L1": "Sum(w * Abs(x-y))",
    "Gaussian, the largest": "-Exp(-WeightedSqDist(w,x,y))",
}
found = {}
for name, formula in formulas.items():
    used = aliases if "w" in formula else aliases[:2]
    arrays = (x, y, w)[: len(used)]
    search = Genred(formula, used, "KMin_ArgKMin", axis=1, opt_arg=K)
    search(*arrays)  # code is made in the first call
    start = time.perf_counter()
    found[name] = search(*arrays)
    spent = time.perf_counter() - start
    with settings(prune="never"):
        search(*arrays)
        start = time.perf_counter()
        all_pairs = search(*arrays)
        longer = (time.perf_counter() - start) / spent
    same = all(np.array_equal(ours, theirs) for ours, theirs in zip(found[name], all_pairs))
    text = str(search.explain(*arrays))
    met = next(line[11:] for line in text.splitlines() if line.startswith("search"))
    print(f"{name:22} {1e3 * spent:6.1f} ms, all pairs {longer:.1f} x; {met}")
    if not same:
        sys.exit("the results are not those of all pairs")
print(f"{M} x {N} pairs; the table alone would take {M * N * x.itemsize / 1e9:.1f} GB")

# %%
# The same from dense tables
# --------------------------

some = np.arange(0, M, M // 100)
apart = x[some, None].astype(float) - y.astype(float)
tables = {
    "squared distance": (apart**2).sum(-1),
    "weighted L1": (w * np.abs(apart)).sum(-1),
    "Gaussian, the largest": -np.exp(-(w * apart**2).sum(-1)),
}
difference = 0.0
for name, table in tables.items():
    least = np.sort(np.partition(table, K, 1)[:, :K], 1)
    there = np.take_along_axis(table, found[name][1][some].astype(int), 1)
    scale = np.abs(least).max()
    for ours in (found[name][0][some], there):
        difference = max(difference, float(np.abs(ours - least).max() / scale))
print(f"max relative difference: {difference:.2e}")

# %%
# Figure
# ------
# Blocks of 64 points in their order, and those that one tile of 32 rows meets: the nearest point of
# a box is at most as far as the K-th neighbour that some row has. Programs need none of this: the
# library does it in every search.

try:
    import matplotlib.pyplot as plt
    from matplotlib.patches import Rectangle
except ImportError:
    print("no figure: matplotlib is not installed")
else:
    from pairfold.backends.llvm.curves import keys
    from pairfold.backends.llvm.machine import machine
    from pairfold.lower.curve import ordered

    def in_order(points):
        return points[ordered(points, lambda cells, count: keys(cells, count, machine()))]

    def ends(points):
        return points.min(0), points.max(0)

    columns = in_order(spiral(3000))
    rows = in_order(spiral(1500))[640:672]
    blocks = [columns[start : start + 64] for start in range(0, len(columns), 64)]
    (low, high), boxes = ends(rows), [ends(block) for block in blocks]
    farthest = np.sort(((rows[:, None] - columns) ** 2).sum(-1), 1)[:, K - 1].max()
    gaps = [np.maximum(0, np.maximum(box[0] - high, low - box[1])) for box in boxes]
    met = [(gap**2).sum() <= farthest for gap in gaps]
    figure, axes = plt.subplots(1, 3, figsize=(13, 4.5), layout="constrained")

    def box(axis, corners, **look):
        start, end = corners
        axis.add_patch(Rectangle(start, *(end - start), **look))

    axes[0].plot(*columns.T, linewidth=0.4, color="tab:gray")
    axes[0].scatter(*columns.T, s=2, c=np.arange(len(columns)), cmap="viridis")
    axes[0].set_title("points in order along a curve")
    for corners, block in zip(boxes, range(len(blocks))):
        box(axes[1], corners, fill=False, linewidth=0.7, color=plt.cm.viridis(block / len(blocks)))
    axes[1].scatter(*columns.T, s=1, color="tab:gray")
    axes[1].set_title(f"boxes of {len(blocks)} blocks")
    for corners, meets in zip(boxes, met):
        look = {"color": "tab:orange", "alpha": 0.4} if meets else {"color": "0.85", "fill": False}
        box(axes[2], corners, linewidth=0.7, **look)
    axes[2].scatter(*columns.T, s=1, color="0.7")
    axes[2].scatter(*rows.T, s=6, color="tab:red", zorder=3)
    box(axes[2], (low, high), fill=False, color="tab:red")
    axes[2].set_title(f"{sum(met)} of them may hold neighbours of these rows")
    for axis in axes:
        axis.set_aspect("equal")
        axis.set_xticks([])
        axis.set_yticks([])
    if plt.get_backend().lower() in ("agg", "cairo", "pdf", "pgf", "ps", "svg", "template"):
        place = Path(sys.argv[0]).with_suffix(".png")
        figure.savefig(place, dpi=75)
        print(f"no window can be shown here; the figure is {place.name}, beside this program")
    else:
        plt.show()

if not difference < 1e-5:
    sys.exit("the results differ from the dense tables")
