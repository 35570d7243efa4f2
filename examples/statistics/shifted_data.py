"""
Data that are far from zero
===========================

Many programs compute squared distances as a product of matrices,

.. math::

    |x - y|^2 = |x|^2 - 2 (x | y) + |y|^2,

which is fast, and loses digits where points are far from zero and near to each other: large numbers
are subtracted. pairfold computes differences first. We shift the same cloud farther and farther and
look at sums of Gaussians and at nearest neighbours, all in single precision.
"""

# %%
# Setup
# -----
# Peers are the formula above in NumPy, cut off below zero, ``torch.cdist`` as it is by default, and
# scikit-learn, which computes blocks of single precision in double precision.

import time

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.metrics.pairwise import euclidean_distances

from pairfold import Vi, Vj

M, N, WIDTH = 1000, 2000, 0.2
SHIFTS = [0.0, *np.geomspace(1, 1e5, 11).tolist()]
rng = np.random.default_rng(0)
clouds = rng.random((M, 3)), rng.random((N, 3))


def expanded(x, y):
    return np.maximum((x**2).sum(1)[:, None] - 2 * x @ y.T + (y**2).sum(1), 0)


peers = {
    "NumPy, expanded": expanded,
    "torch.cdist": lambda x, y: torch.cdist(torch.tensor(x), torch.tensor(y)).numpy() ** 2,
    "scikit-learn": lambda x, y: euclidean_distances(x, y, squared=True),
}

# %%
# What is right
# -------------
# Shifted points are rounded to single precision first. All programs get these same points, and what
# is right of them is computed from differences in double precision.


def judged(squared, sums, places):
    """The median relative error of sums, and the share of rows with a wrong neighbour."""
    right = np.exp(-squared / (2 * WIDTH**2)).sum(1)
    chosen = np.take_along_axis(squared, places[:, None], 1)[:, 0]
    error = np.median(np.abs(sums / right - 1))
    return float(error), float(np.mean(chosen > squared.min(1)))


found = {name: [] for name in ("pairfold", *peers)}
seconds = 0.0
for shift in SHIFTS:
    x, y = ((cloud + shift).astype("float32") for cloud in clouds)
    squared = ((x[:, None].astype(float) - y) ** 2).sum(-1)
    start = time.perf_counter()
    lazy = Vi(x).sqdist(Vj(y))
    sums = (-lazy / (2 * WIDTH**2)).exp().sum(axis=1)[:, 0]
    places = lazy.argmin(axis=1)[:, 0]
    seconds += time.perf_counter() - start
    found["pairfold"].append(judged(squared, sums, places))
    for name, peer in peers.items():
        table = peer(x, y)
        sums = np.exp(-table.astype("float32") / np.float32(2 * WIDTH**2)).sum(1)
        found[name].append(judged(squared, sums, table.argmin(1)))
for name, values in found.items():
    error, wrong = values[SHIFTS.index(1e3)]
    print(f"{name + ':':17} at 1000, error {error:.1e}, {100 * wrong:5.1f} % wrong neighbours")
assert max(error for error, _ in found["pairfold"]) < 1e-5
assert max(wrong for _, wrong in found["pairfold"]) < 0.01
print(
    f"{M} x {N} pairs, {2 * len(SHIFTS)} reductions in {seconds:.2f} s; arrays of "
    f"{(x.nbytes + y.nbytes) / 1e3:.0f} kB, where a table of distances takes "
    f"{4 * M * N / 1e6:.0f} MB"
)

# %%
# Figure
# ------

plt.rcParams.update({"font.size": 13, "axes.spines.top": False, "axes.spines.right": False})
figure, axes = plt.subplots(2, 1, figsize=(7.0, 8.2), layout="constrained", sharex=True)
styles = zip(("#0072B2", "#D55E00", "black", "#009E73"), "osD^")
for (name, values), (colour, marker) in zip(found.items(), styles):
    errors, wrong = np.array(values).T
    look = {"color": colour, "marker": marker, "label": name}
    look |= {"linewidth": 3 if name == "pairfold" else 1.5}
    look |= {"linestyle": ":", "zorder": 3, "markersize": 3} if name == "torch.cdist" else {}
    axes[0].plot(SHIFTS, errors.clip(1e-8, 10), **look)
    axes[1].plot(SHIFTS, 100 * wrong, **look)
axes[0].set_yscale("log")
axes[0].set_xscale("symlog", linthresh=1)
axes[0].set_xlim(-0.1, 1.2 * SHIFTS[-1])
axes[0].set_ylabel("relative error\nof sums of Gaussians")
axes[0].legend(frameon=False, loc="upper left")
axes[1].set(xlabel="distance of the cloud from zero", ylabel="% of nearest\nneighbours wrong")
plt.show()
