"""
The potential of a galaxy
=========================

Stars y_j of masses b_j in the plane, in two spiral arms, and their potential at every star:

.. math::

    s_i = \\sum_j b_j \\, / \\sqrt{|x_i - y_j|^2 + \\epsilon^2}.

All pairs are met by ``K @ b``. With ``method="treecode"`` far stars are met as proxies: a box of
stars that is far from a star becomes a few weighted points on a grid, as many as the relative error
``rtol`` needs. The error is measured at some stars, whose sums are computed exactly.

The program exits with status 1 if the error is larger than what was asked for.
"""

# %%
# Setup
# -----

import argparse
import sys
import time
from pathlib import Path

import numpy as np

from pairfold import Vi, Vj
from pairfold.frontends.halving import halved
from pairfold.frontends.meeting import met

options = argparse.ArgumentParser(description="The potential of a galaxy, by a treecode.")
options.add_argument("--stars", type=int, default=40_000)
options.add_argument("--dtype", choices=["float32", "float64"], default="float32")
chosen = options.parse_args()

N, EPSILON = chosen.stars, 1e-2
rng = np.random.default_rng(0)
turns = rng.exponential(0.4, N)
angle = 2 * np.pi * turns + np.pi * rng.integers(0, 2, N)
arms = turns[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)
stars = (arms + 0.06 * rng.standard_normal((N, 2))).astype(chosen.dtype)
masses = rng.random((N, 1)).astype(chosen.dtype)

# %%
# Potentials
# ----------

kernel = 1 / (((Vi(stars) - Vj(stars)) ** 2).sum(-1) + EPSILON**2).sqrt()
terms = kernel * Vj(masses)


def timed(**method):
    start = time.perf_counter()
    found = terms.sum(axis=1, **method)
    return found, time.perf_counter() - start


right = terms.sum(axis=1)
terms.sum(axis=1, method="treecode")  # code is made in the first turn
exact, seconds = timed()
print(f"all {N} x {N} pairs: {1e3 * seconds:.0f} ms")
worst = 0.0
for rtol in (1e-2, 1e-4, 1e-6):
    found, seconds = timed(method="treecode", rtol=rtol)
    gap = found.astype(float) - right.astype(float)
    error = np.linalg.norm(gap) / np.linalg.norm(right)
    worst = max(worst, error / rtol)
    print(f"rtol {rtol:.0e}: {1e3 * seconds:4.0f} ms, relative error {error:.1e}")
print(f"max relative difference: {np.abs(gap).max() / right.max():.2e}")
print(f"{N} x {N} pairs; the table alone would take {N * N * exact.itemsize / 1e9:.1f} GB")

# %%
# Figure
# ------
# The stars and their potential; and what the stars of one small box meet: points of boxes that are
# near, and boxes that are far, each as a grid of proxies.

try:
    import matplotlib.pyplot as plt
    from matplotlib.patches import Rectangle
except ImportError:
    print("no figure: matplotlib is not installed")
else:
    tree = halved(stars, 256)
    own = len(tree.levels[-1].low) // 3
    box = tree.levels[-1].low[[own]], tree.levels[-1].high[[own]]
    found = met(*box, tree.levels, 0.75, range(1, len(tree.levels)), 25)
    figure, axes = plt.subplots(1, 2, figsize=(12, 5.6), layout="constrained")
    shown = rng.permutation(N)[:20_000]
    axes[0].scatter(*stars[shown].T, c=right[shown, 0], s=0.6, cmap="magma", rasterized=True)
    axes[0].set_title("stars, by their potential")
    grid = np.cos(np.pi * np.arange(5) / 4)
    place = N
    near = [slice(*interval) for interval in found.intervals if interval[0] < N]
    for level in tree.levels[1:]:
        for start in found.intervals[:, 0]:
            k = (start - place) // 25
            if not 0 <= k < len(level.low):
                continue
            low, sides = level.low[k], level.high[k] - level.low[k]
            axes[1].add_patch(Rectangle(low, *sides, fill=False, lw=0.5, color="0.6"))
            p, q = np.meshgrid(*(level.centers[k][:, None] + level.halves[k][:, None] * grid))
            axes[1].plot(p.ravel(), q.ravel(), ".", ms=1.6, color="tab:blue")
        place += 25 * len(level.low)
    for points in near:
        axes[1].plot(*tree.points[points].T, ".", ms=1, color="tab:orange")
    axes[1].add_patch(Rectangle(box[0][0], *(box[1] - box[0])[0], color="k", zorder=3))
    meets = int(found.columns().sum())
    axes[1].set_title(f"{meets} columns, not {N}, for the black box: proxies, and near stars")
    for axis in axes:
        axis.set_aspect("equal")
        axis.set_xlim(-1.6, 1.6)
        axis.set_ylim(-1.6, 1.6)
    if plt.get_backend().lower() in ("agg", "cairo", "pdf", "pgf", "ps", "svg", "template"):
        figure_place = Path(sys.argv[0]).with_suffix(".png")
        figure.savefig(figure_place, dpi=80)
        print(
            f"no window can be shown here; the figure is {figure_place.name}, beside this program"
        )
    else:
        plt.show()

if not worst < 1:
    sys.exit("the errors are larger than what was asked for")
