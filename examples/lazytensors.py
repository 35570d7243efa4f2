"""
Lazy tensors: clusters, a fit, blocks
=====================================

A lazy tensor is an array that is a formula of arrays: it has a shape (M, N), operators and methods,
and is computed only when it is reduced. With it we take noisy samples b_j of a function at points
y_j of a square, and

- *cluster* the points by K-means, with ``argmin``;
- *fit* a smooth function to them by kernel ridge regression, :math:`(\\alpha + K) a = b` with
  :math:`K_{ij} = e^{-|y_i - y_j|^2 / 2 s^2}`, with ``solve``;
- *evaluate* it on a grid, :math:`f_i = \\sum_j K(x_i, y_j) a_j`, with ``@``: with all pairs, and
  with near blocks of pairs alone.

The table of all M x N pairs is never stored. At the end it is, by NumPy, and everything is computed
once more.

The program exits with status 1 if the two differ by more than 1e-6.
"""

# %%
# Setup
# -----
# ``pykeops`` is provided by pairfold here; PyKeOps itself runs this program, too.

import sys
import time
from pathlib import Path

import numpy as np
import torch
from pykeops.torch import LazyTensor
from pykeops.torch.cluster import (
    cluster_ranges_centroids,
    from_matrix,
    grid_cluster,
    sort_clusters,
)

SIDE, N, CLASSES, ALPHA, SIGMA, NOISE = 100, 2000, 12, 0.5, 0.06, 0.1

torch.manual_seed(1)
y = torch.rand(N, 2, dtype=torch.float64)
signal = (9 * y[:, :1]).sin() * (7 * y[:, 1:]).cos()
b = signal + NOISE * torch.randn_like(signal)
ticks = torch.linspace(0, 1, SIDE, dtype=torch.float64)
x = torch.cartesian_prod(ticks, ticks)


def squared_distances(these, those):
    """|these_i - those_j|^2, a lazy tensor of shape (M, N)."""
    return ((LazyTensor(these[:, None, :]) - LazyTensor(those[None, :, :])) ** 2).sum(-1)


def gaussian(these, those):
    """The kernel, a lazy tensor of shape (M, N)."""
    return (-squared_distances(these, those) / (2 * SIGMA**2)).exp()


# %%
# Clusters
# --------
# ``argmin`` over j gives each point the nearest of the centres, which then move to the means.

centres = y[:CLASSES].clone()
for _ in range(20):
    label = squared_distances(y, centres).argmin(dim=1).view(-1)
    counts = torch.bincount(label, minlength=CLASSES).clamp_min(1)
    centres = torch.zeros_like(centres).index_add_(0, label, y) / counts[:, None]
label = squared_distances(y, centres).argmin(dim=1).view(-1)
print(f"clusters: {CLASSES}, of {int(counts.min())} to {int(counts.max())} points")

# %%
# A fit
# -----
# Conjugate gradients; the matrix (N, N) is only ever multiplied with vectors.

K_yy = gaussian(y, y)
print(repr(K_yy))
a = K_yy.solve(LazyTensor(b[:, None, :]), alpha=ALPHA, eps=1e-9)
f = gaussian(x, y) @ a

# %%
# Blocks
# ------
# Points are put into the cells of a grid and sorted by cell; of the pairs of cells we keep those
# whose centres are near. The rest of the sum is left out, which is exact to about 1e-5 here.

cell = 2 * SIGMA
x_label, y_label = grid_cluster(x, cell), grid_cluster(y, cell)
x_ranges, x_centres, _ = cluster_ranges_centroids(x, x_label)
y_ranges, y_centres, _ = cluster_ranges_centroids(y, y_label)
(x_sorted, order), _ = sort_clusters((x, torch.arange(len(x))), x_label)
(y_sorted, a_sorted), _ = sort_clusters((y, a), y_label)
near = torch.cdist(x_centres, y_centres) < 4.5 * SIGMA + 2 * cell * 0.5**0.5
K_blocks = gaussian(x_sorted, y_sorted)
K_blocks.ranges = from_matrix(x_ranges, y_ranges, near)
f_blocks = torch.empty_like(f)
f_blocks[order] = K_blocks @ a_sorted
left_out = (f_blocks - f).abs().max() / f.abs().max()
print(f"blocks: {int(near.sum())} of {near.numel()}; left out: {left_out:.1e} of the largest value")

# %%
# The same with all pairs in memory
# ---------------------------------


def table(these, those):
    """All squared distances, by NumPy."""
    return ((these[:, None, :] - those[None, :, :]) ** 2).sum(-1)


X, Y, B = x.numpy(), y.numpy(), b.numpy()
dense_yy = np.exp(-table(Y, Y) / (2 * SIGMA**2))
dense_a = np.linalg.solve(dense_yy + ALPHA * np.eye(N), B)
dense_f = np.exp(-table(X, Y) / (2 * SIGMA**2)) @ dense_a
distances = table(Y, centres.numpy())
checks = {
    "distances to centres": (distances[np.arange(N), label.numpy()], distances.min(1)),
    "fit": (a.numpy(), dense_a),
    "values on the grid": (f.numpy(), dense_f),
}
difference = 0.0
for name, (ours, dense) in checks.items():
    relative = np.abs(ours - dense).max() / np.abs(dense).max()
    print(f"{name + ':':<22}{relative:.2e}")
    difference = max(difference, relative)
print(f"max relative difference: {difference:.2e}")

# %%
# Timings
# -------
# Medians of five more runs.


def milliseconds(routine, repeats=5):
    """Median time of a call."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        routine()
        times.append(1e3 * (time.perf_counter() - start))
    return sorted(times)[repeats // 2]


print(f"all pairs:       {milliseconds(lambda: gaussian(x, y) @ a):8.2f} ms")
print(f"near blocks:     {milliseconds(lambda: K_blocks @ a_sorted):8.2f} ms")
dense_ms = milliseconds(lambda: np.exp(-table(X, Y) / (2 * SIGMA**2)) @ dense_a, 1)
print(f"the dense table: {dense_ms:8.2f} ms (NumPy)")
size = len(x) * len(y) * x.element_size() / 1e6
print(f"{len(x)} x {len(y)} pairs; the table alone would take {size:.0f} MB")

# %%
# A picture
# ---------
# Left: clusters. Middle: the samples. Right: the fit.

try:
    import matplotlib.pyplot as plt
except ImportError:
    print("no figure: matplotlib is not installed")
else:
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(15, 5), layout="constrained")
    left.scatter(*Y.T, c=label, s=6, cmap="tab20")
    left.scatter(*centres.T, c="black", marker="+")
    left.set_title(f"{N} points in {CLASSES} clusters")
    middle.scatter(*Y.T, c=B[:, 0], s=6, vmin=-1.2, vmax=1.2)
    middle.set_title("noisy samples")
    image = f.view(SIDE, SIDE).T
    shown = right.imshow(image, origin="lower", extent=(0, 1, 0, 1), vmin=-1.2, vmax=1.2)
    figure.colorbar(shown, ax=right, shrink=0.8)
    right.set_title("the function that was fitted")
    for axis in (left, middle, right):
        axis.set_aspect("equal")
    if plt.get_backend().lower() in ("agg", "cairo", "pdf", "pgf", "ps", "svg", "template"):
        place = Path(sys.argv[0]).with_suffix(".png")
        figure.savefig(place, dpi=120)
        print(f"no window can be shown here; the figure is {place.name}, beside this program")
    else:
        plt.show()

if not difference < 1e-6:
    sys.exit("lazy tensors differ from the dense table")
