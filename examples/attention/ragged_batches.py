"""
Clouds of different sizes in one call
=====================================

A batch of clouds with different numbers of points is often padded to the largest, and most of the
work is done for nothing. Here the clouds lie one after the other in one array, and
``lengths(sizes)`` lets the pairs of a cloud count alone,

.. math::

    a_i = \\sum_{j \\in C(i)} e^{-|x_i - x_j|^2 / 2 h^2} n_j \\Big/
    \\sum_{j \\in C(i)} e^{-|x_i - x_j|^2 / 2 h^2},

where C(i) is the cloud of point i. Such means smooth the noisy values n_j on each cloud.
``lengths`` of two lists lets the points of one batch look at those of another: here each cloud is
asked for its mean at a few places.
"""

# %%
# Setup
# -----
# Flowers with different numbers of petals and of points. On each a value is measured, with noise.

import time

import matplotlib.pyplot as plt
import numpy as np

from pairfold import Vi, Vj, lengths

CLOUDS, WIDTH, NOISE = 300, 0.08, 0.8
rng = np.random.default_rng(3)
sizes = (60 + rng.pareto(1.6, CLOUDS) * 60).astype(int).clip(max=3000)
petals = rng.integers(3, 9, CLOUDS)
cloud = np.repeat(np.arange(CLOUDS), sizes)
angle = rng.uniform(0, 2 * np.pi, len(cloud))
edge = 0.62 + 0.35 * np.cos(petals[cloud] * angle)
x = (edge * np.sqrt(rng.uniform(0.02, 1, len(cloud))))[:, None] * np.stack(
    [np.cos(angle), np.sin(angle)], 1
)
truth = np.sin(petals[cloud] * angle)[:, None] * np.linalg.norm(x, axis=1, keepdims=True)
noisy = truth + NOISE * rng.standard_normal(truth.shape)
N = len(x)
print(f"{CLOUDS} clouds of {sizes.min()} to {sizes.max()} points")

# %%
# One call for all clouds
# -----------------------

mask = lengths(sizes)
scores = -Vi(x).sqdist(Vj(x)) / (2 * WIDTH**2)
scores.softmax(1, where=mask) @ noisy  # code is made in the first call
start = time.perf_counter()
smooth = scores.softmax(1, where=mask) @ noisy
seconds = time.perf_counter() - start

# %%
# The same, cloud by cloud from tables, and in a padded batch:

start = time.perf_counter()
right = []
for points, values in zip(
    np.split(x, np.cumsum(sizes)[:-1]), np.split(noisy, np.cumsum(sizes)[:-1])
):
    table = np.exp(-((points[:, None] - points) ** 2).sum(-1) / (2 * WIDTH**2))
    right.append(table @ values / table.sum(1, keepdims=True))
by_tables = time.perf_counter() - start
gap = np.abs(smooth - np.concatenate(right)).max()
print(f"largest difference from tables: {gap:.1e}")
assert gap < 1e-10

pairs, padded = int((sizes**2).sum()), CLOUDS * int(sizes.max()) ** 2
print(f"{pairs / 1e6:.1f} million pairs count; padded to the largest there are {padded / 1e6:.0f}")
before, after = (float(np.sqrt(np.mean((each - truth) ** 2))) for each in (noisy, smooth))
print(f"error {before:.2f} before, {after:.2f} after")
assert after < 0.5 * before

# %%
# Two batches
# -----------
# Each cloud is asked at nine places of its own, the same for all here. There are as many rows as
# places, and ``lengths`` takes a list for rows and one for columns.

asked = np.tile(0.3 * np.stack(np.meshgrid([-1, 0, 1], [-1, 0, 1]), -1).reshape(-1, 2), (CLOUDS, 1))
nine = np.full(CLOUDS, 9)
across = -Vi(asked).sqdist(Vj(x)) / (2 * WIDTH**2)
means = across.softmax(1, where=lengths(nine, sizes)) @ noisy
first = np.exp(-((asked[:9, None] - x[: sizes[0]]) ** 2).sum(-1) / (2 * WIDTH**2))
assert np.allclose(means[:9], first @ noisy[: sizes[0]] / first.sum(1, keepdims=True))
print(
    f"{N} points in {CLOUDS} clouds in {seconds:.3f} s, {by_tables:.2f} s by tables; arrays of "
    f"{(x.nbytes + 2 * noisy.nbytes) / 1e6:.1f} MB, where padded tables would take "
    f"{8 * padded / 1e9:.1f} GB"
)

# %%
# Figure
# ------
# Above, sizes: the shaded part is what padding adds. Below, some clouds with noise, and smoothed.

plt.rcParams.update({"font.size": 13, "axes.spines.top": False, "axes.spines.right": False})
figure = plt.figure(figsize=(7.2, 6.4), layout="constrained")
grid = figure.add_gridspec(3, 4, height_ratios=[0.9, 1, 1])
axis = figure.add_subplot(grid[0, :])
falling = np.sort(sizes)[::-1]
axis.fill_between(np.arange(CLOUDS), falling, sizes.max(), color="0.88", step="post")
axis.fill_between(np.arange(CLOUDS), falling, color="#0072B2", step="post")
axis.text(0.5, 0.6, "padding", transform=axis.transAxes, ha="center", color="0.35")
axis.set(xlim=(0, CLOUDS), ylim=(0, sizes.max()), xlabel="clouds", ylabel="points")
starts = np.cumsum(sizes) - sizes
shown = np.argsort(-sizes)[[0, 4, 20, 60]]
for column, place in enumerate(shown):
    part = slice(starts[place], starts[place] + sizes[place])
    for row, values in ((1, noisy), (2, smooth)):
        axis = figure.add_subplot(grid[row, column])
        look = {"cmap": "PuOr", "vmin": -0.8, "vmax": 0.8, "s": 8, "linewidths": 0}
        axis.scatter(*x[part].T, c=values[part, 0], rasterized=True, **look)
        axis.set(aspect="equal", xlim=(-1, 1), ylim=(-1, 1), xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
        if row == 1:
            axis.set_title(f"{sizes[place]} points", fontsize=13)
        if column == 0:
            axis.set_ylabel("measured" if row == 1 else "smoothed")
plt.show()
