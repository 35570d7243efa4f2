"""
Several results from one pass
=============================

Density, mean, spread and the nearest sample are different folds of the same distances. ``together``
computes them in one pass over the pairs, so that distances and exponentials are computed once. From
scattered measurements b_j we make a map of a quantity, of how far it varies, and of where nothing
is known,

.. math::

    m_i = \\sum_j w_{ij} b_j, \\quad v_i = \\sum_j w_{ij} b_j^2 - m_i^2, \\quad
    w_{ij} \\propto e^{-|x_i - y_j|^2 / 2 \\sigma^2}.
"""

# %%
# Setup
# -----
# Measurements along a few tracks, as of ships.

import time

import matplotlib.pyplot as plt
import numpy as np

from pairfold import Vi, Vj, together

SIDE, TRACKS, LENGTH, SIGMA = 200, 14, 250, 0.07
rng = np.random.default_rng(4)
turns = np.cumsum(0.12 * rng.standard_normal((TRACKS, LENGTH)), 1)
turns += rng.uniform(0, 2 * np.pi, (TRACKS, 1))
steps = 0.008 * np.stack([np.cos(turns), np.sin(turns)], -1)
y = (rng.uniform(-1, 1, (TRACKS, 1, 2)) + np.cumsum(steps, 1)).reshape(-1, 2)
y = (np.abs((y + 1) % 4 - 2) - 1).astype("float32")  # tracks turn back at the border
noise = np.where(y[:, :1] > 0, 0.35, 0.05) * rng.standard_normal((len(y), 1))
b = (np.sin(4 * y[:, :1]) * np.cos(3 * y[:, 1:]) + noise).astype("float32")
ticks = np.linspace(-1, 1, SIDE, dtype="float32")
x = np.stack(np.meshgrid(ticks, ticks), -1).reshape(-1, 2)
N = len(y)

# %%
# Four reductions
# ---------------
# ``call=False`` leaves them waiting; they are made of the same lazy tensor.

squared = Vi(x).sqdist(Vj(y))
scores = -squared / (2 * SIGMA**2)
both = np.concatenate([b, b**2], 1)
waiting = (
    scores.logsumexp(axis=1, call=False),
    scores.sumsoftmaxweight(Vj(both), axis=1, call=False),
    squared.min_argmin(axis=1, call=False),
)


def timed(function):
    """The results, and the least of five times of a call."""
    times = []
    for _ in range(6):
        start = time.perf_counter()
        found = function()
        times.append(time.perf_counter() - start)
    return found, min(times[1:])


names = ("density", "mean, spread", "nearest")
alone = {name: timed(reduction)[1] for name, reduction in zip(names, waiting)}
joint = together(*waiting, call=False)
(density, means, (nearest, which)), seconds = timed(joint)
for name, value in alone.items():
    print(f"{name + ' alone:':20} {1e3 * value:.0f} ms")
print(f"{'together:':20} {1e3 * seconds:.0f} ms")

# %%
# From the tables, in double precision:

some = np.arange(0, len(x), 301)
table = ((x[some, None].astype(float) - y) ** 2).sum(-1)
weights = np.exp(-table / (2 * SIGMA**2))
assert np.abs(density[some, 0] - np.log(weights.sum(1))).max() < 1e-3
assert np.abs(means[some] - weights @ both / weights.sum(1, keepdims=True)).max() < 1e-3
assert np.abs(nearest[some, 0] - table.min(1)).max() < 1e-5
held = sum(array.nbytes for array in (x, y, b, density, means, nearest, which))
print(
    f"{len(x)} x {N} pairs in {seconds:.3f} s; arrays of {held / 1e6:.1f} MB; the table alone "
    f"would take {4 * len(x) * N / 1e6:.0f} MB"
)

# %%
# Figure
# ------

plt.rcParams.update({"font.size": 13, "axes.spines.top": False, "axes.spines.right": False})
figure = plt.figure(figsize=(7.2, 9), layout="constrained")
grid = figure.add_gridspec(3, 2, height_ratios=[1, 1, 0.5])
spread = np.sqrt((means[:, 1] - means[:, 0] ** 2).clip(0))
maps = (
    ("measurements", None, "PuOr", 1),
    ("mean", means[:, 0], "PuOr", 1),
    ("spread", spread, "viridis", None),
    ("distance to the nearest", np.sqrt(nearest[:, 0]), "cividis", None),
)
for number, (title, values, colours, limit) in enumerate(maps):
    axis = figure.add_subplot(grid[number // 2, number % 2])
    look = {"cmap": colours, "vmin": None if limit is None else -limit, "vmax": limit}
    if values is None:
        shown = axis.scatter(*y.T, c=b[:, 0], s=3, linewidths=0, rasterized=True, **look)
    else:
        image = values.reshape(SIDE, SIDE)
        shown = axis.imshow(image, origin="lower", extent=(-1, 1, -1, 1), **look)
    figure.colorbar(shown, ax=axis, shrink=0.75)
    axis.set(aspect="equal", xlim=(-1, 1), ylim=(-1, 1), xticks=[], yticks=[])
    axis.set_title(title, fontsize=13)
axis = figure.add_subplot(grid[2, :])
lefts = np.cumsum([0, *alone.values()])
for left, (name, value), colour in zip(lefts, alone.items(), ("#0072B2", "#E69F00", "#009E73")):
    axis.barh(0, 1e3 * value, left=1e3 * left, color=colour, label=name)
axis.barh(1, 1e3 * seconds, color="0.4")
axis.set_yticks([0, 1], ["one by one", "together"])
axis.invert_yaxis()
axis.set(xlabel="milliseconds")
axis.legend(loc="lower right", frameon=False, fontsize=12)
plt.show()
