"""
Clusters of written digits
==========================

K-means goes back and forth between two steps: every picture x_i takes the label of the nearest
centre, and every centre becomes the mean of its pictures,

.. math::

    l_i = \\operatorname{argmin}_k |x_i - c_k|^2, \\quad c_k = \\mathrm{mean} \\{ x_i : l_i = k \\}.

The first is a reduction over all pairs of pictures and centres, ``argmin``. No labels are given;
at the end we look at what the clusters have found.
"""

# %%
# Setup
# -----
# scikit-learn's digits, 8 x 8 pixels each.

import time

import matplotlib.pyplot as plt
import numpy as np
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits

from pairfold import Vi, Vj

CLUSTERS, LIMIT = 24, 200
digits = load_digits()
x = digits.data.astype("float32")
N = len(x)

# %%
# The two steps
# -------------
# They end when no label changes.


def labelled(centres):
    """The nearest centre of each picture, (N,)."""
    return Vi(x).sqdist(Vj(centres)).argmin(axis=1)[:, 0]


begin = x[np.random.default_rng(0).choice(N, CLUSTERS, replace=False)]
labelled(begin)  # code is made in the first call
start = time.perf_counter()
centres, labels = begin, np.full(N, -1)
before, steps = None, 0
while not np.array_equal(before, labels):
    before, labels = labels, labelled(centres)
    centres = np.stack([x[labels == k].mean(0) for k in range(CLUSTERS)])
    steps += 1
seconds = time.perf_counter() - start
assert steps < LIMIT

# %%
# scikit-learn's K-means from the same beginning:

spread = float(((x - centres[labels]) ** 2).sum())
peer = KMeans(CLUSTERS, init=begin, n_init=1, max_iter=LIMIT, tol=0, algorithm="lloyd").fit(x)
print(f"sum of squared distances {spread:.5e}, scikit-learn {peer.inertia_:.5e}")
assert abs(spread / peer.inertia_ - 1) < 1e-3

# %%
# Which digit each cluster is, and how much of it:

counts = np.stack([np.bincount(digits.target[labels == k], minlength=10) for k in range(CLUSTERS)])
name, share = counts.argmax(1), counts.max(1) / counts.sum(1)
right = counts.max(1).sum() / N
print(f"{100 * right:.0f} % of the pictures are in a cluster that is mostly their own digit")
assert right > 0.6
print(
    f"{N} x {CLUSTERS} pairs of {x.shape[1]} numbers, {steps} times in {seconds:.2f} s; arrays of "
    f"{(x.nbytes + labels.nbytes) / 1e6:.1f} MB, where the array of all differences would take "
    f"{x.nbytes * CLUSTERS / 1e6:.0f} MB"
)

# %%
# Figure
# ------
# The centres, in the order of their digits. Below each, the share of its pictures that are that
# digit.

plt.rcParams.update({"font.size": 13})
figure, axes = plt.subplots(4, 6, figsize=(7.2, 6.0), layout="constrained")
for k, axis in zip(np.lexsort((-share, name)), axes.flat):
    axis.imshow(centres[k].reshape(8, 8), cmap="cividis", interpolation="bicubic")
    colour = "#D55E00" if share[k] < 0.6 else "black"
    axis.set_xlabel(f"{name[k]}: {100 * share[k]:.0f} %", color=colour)
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_visible(False)
plt.show()
