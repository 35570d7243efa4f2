"""
Near blocks of pairs
====================

A narrow kernel is practically 0 for most pairs. If points are sorted into clusters, then pairs of
clusters that are far apart may be left out as a whole: ``ranges`` are the blocks of pairs that
count,

.. math::

    s_i = \\sum_{j \\in J(i)} e^{-|x_i - y_j|^2 / 2 \\sigma^2} b_j.

The module ``pairfold.cluster`` makes them: cells of a grid, their centres, and from a table of
truth values, one for each pair of cells, the ranges.
"""

# %%
# Setup
# -----
# Points around a circle with loops, and numbers to smooth.

import time

import matplotlib.pyplot as plt
import numpy as np

from pairfold import Vi, Vj
from pairfold.cluster import cluster_ranges_centroids, from_matrix, grid_cluster, sort_clusters

N, SIGMA, CELL = 40_000, 0.02, 0.1
rng = np.random.default_rng(0)
turn = 2 * np.pi * rng.random(N)
radius = 1 + 0.25 * np.sin(7 * turn)
x = radius[:, None] * np.stack([np.cos(turn), np.sin(turn)], 1)
x = (x + 0.03 * rng.standard_normal((N, 2))).astype("float32")
b = (np.sin(5 * turn)[:, None] + rng.standard_normal((N, 1))).astype("float32")

# %%
# Blocks
# ------
# Cells are met if points of them can be nearer than five widths of the kernel: a point is at most
# half a diagonal from the middle of its cell. Cells are cut at multiples of their side.

labels = grid_cluster(x, CELL)
ranges, centres, _ = cluster_ranges_centroids(x, labels)
(x, b, turn), labels = sort_clusters((x, b, turn), labels)
middles = (np.floor(centres / CELL) + 0.5) * CELL
gaps = np.linalg.norm(middles[:, None] - middles, axis=-1)
keep = gaps < 5 * SIGMA + 2**0.5 * CELL
blocks = from_matrix(ranges, ranges, keep)
sizes = np.diff(ranges, axis=1)[:, 0]
share = float((sizes @ keep @ sizes) / N**2)
print(f"{len(ranges)} cells; {int(keep.sum())} of {keep.size} blocks, {100 * share:.1f} % of pairs")

# %%
# Sums
# ----

kernel = (-Vi(x).sqdist(Vj(x)) / (2 * SIGMA**2)).exp()


def timed(**options):
    """A sum (N, 1), and the seconds that it took, in a second run."""
    for _ in range(2):
        start = time.perf_counter()
        found = (kernel * Vj(b)).sum(axis=1, **options)
    return found, time.perf_counter() - start


everything, slow = timed()
near, fast = timed(ranges=blocks)
scale = float(np.abs(everything).max())
gap = float(np.abs(near - everything).max()) / scale
some = np.arange(0, N, 500)
table = np.exp(-((x[some, None].astype(float) - x) ** 2).sum(-1) / (2 * SIGMA**2))
assert np.abs(everything[some] - table @ b).max() < 1e-4 * scale
assert gap < 1e-4
print(f"all pairs {1e3 * slow:.0f} ms, near blocks {1e3 * fast:.0f} ms, difference {gap:.0e}")
print(
    f"{N} x {N} pairs in {fast:.3f} s; arrays of {(x.nbytes + 2 * b.nbytes) / 1e6:.1f} MB, ranges "
    f"of {sum(part.nbytes for part in blocks) / 1e6:.2f} MB; the table alone would take "
    f"{4 * N * N / 1e9:.1f} GB"
)

# %%
# Figure
# ------
# Blocks that are met, as wide and high as they have columns and rows; and the points that one cell
# meets, which is red.

plt.rcParams.update({"font.size": 13})
figure, (upper, lower) = plt.subplots(2, 1, figsize=(6.2, 11), layout="constrained")
edges = np.append(ranges[:, 0], N) / 1000
upper.pcolormesh(edges, edges, keep, cmap="Blues", vmax=1.3, rasterized=True)
upper.set(aspect="equal", xlabel="columns, in 1000", ylabel="rows, in 1000")
upper.invert_yaxis()
upper.set_title(f"{100 * share:.1f} % of all pairs", fontsize=13)
cell = len(ranges) // 3
shades = np.where(keep[cell], 1, 0)[labels]
for value, colour in ((0, "0.8"), (1, "#56B4E9")):
    lower.plot(*x[shades == value].T, ",", color=colour, rasterized=True)
lower.plot(*x[labels == cell].T, ",", color="#D55E00", rasterized=True)
corner = np.floor(x[labels == cell][0] / CELL) * CELL
lower.add_patch(plt.Rectangle(corner, CELL, CELL, fill=False, linewidth=1.5))
lower.set(aspect="equal")
lower.set_axis_off()
lower.set_title("what one cell meets", fontsize=13)
plt.show()
