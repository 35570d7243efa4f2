"""
Many small problems in one call
===============================

Axes in front of the pairs are batches: x of shape (B, M, 1, D) and y of shape (B, 1, N, D) make B
tables of M x N pairs, none of which is stored. Batch axes broadcast as in NumPy, so that parameters
may add axes of their own. We fit a curve to each of several data sets, for each of several widths
of a kernel,

.. math::

    f_i = \\sum_j e^{-(x_i - y_j)^2 / 2 w^2} b_j \\Big/ \\sum_j e^{-(x_i - y_j)^2 / 2 w^2},

and choose the width of each by leaving out one sample at a time: three reductions in all.
"""

# %%
# Setup
# -----
# B sets of N noisy samples each, of waves that become shorter, and W widths.

import time

import matplotlib.pyplot as plt
import numpy as np

from pairfold import LazyTensor, exclude_self

B, W, M, N = 6, 24, 200, 300
rng = np.random.default_rng(0)
waves = 2.0 ** np.arange(B)[:, None] / 2
y = np.sort(rng.random((B, N)), 1)
b = np.sin(2 * np.pi * waves * y) + 0.3 * rng.standard_normal((B, N))
x = np.linspace(0, 1, M)
widths = np.geomspace(0.003, 0.3, W)

# %%
# Broadcasting
# ------------
# Axes are (widths, sets, rows, columns, components).


def fitted(x, widths, **mask):
    """The curves (widths, sets, M) at places x (sets or 1, M)."""
    x_i, y_j = LazyTensor(x[None, :, :, None, None]), LazyTensor(y[None, :, None, :, None])
    scale = LazyTensor((0.5 / widths**2)[:, None, None, None, None])
    scores = -((x_i - y_j) ** 2).sum(-1) * scale
    return (scores.softmax(-2, **mask) @ b[None, :, :, None])[..., 0]


start = time.perf_counter()
curves = fitted(x[None], widths)
left_out = fitted(y, widths, where=exclude_self())
seconds = time.perf_counter() - start
errors = ((left_out - b) ** 2).mean(-1) ** 0.5
best = errors.argmin(0)
for number in range(B):
    print(f"set {number}: width {widths[best[number]]:.3f}, error {errors[:, number].min():.3f}")

# %%
# One of them from its table:

table = np.exp(-((x[:, None] - y[3]) ** 2) / (2 * widths[9] ** 2))
assert np.abs(curves[9, 3] - table @ b[3] / table.sum(1)).max() < 1e-10
print(
    f"{W} x {B} batches of {M} x {N} and of {N} x {N} pairs in {seconds:.2f} s, into "
    f"{(curves.nbytes + left_out.nbytes) / 1e6:.1f} MB; the tables alone would take "
    f"{8 * W * B * N * (M + N) / 1e6:.0f} MB"
)

# %%
# Figure
# ------
# Samples, and the curve of the width that was chosen; the narrowest and the widest in grey.

plt.rcParams.update({"font.size": 13})
figure, axes = plt.subplots(
    3, 2, figsize=(7.2, 7.6), layout="constrained", sharex=True, sharey=True
)
for number, axis in enumerate(axes.flat):
    axis.plot(y[number], b[number], ".", markersize=3, color="#56B4E9")
    axis.plot(x, curves[[0, -1], number].T, color="0.65", linewidth=0.8)
    axis.plot(x, curves[best[number], number], color="#D55E00", linewidth=2)
    axis.set_title(f"width {widths[best[number]]:.3f}", fontsize=13)
    axis.set_ylim(-2, 2)
    axis.spines[["top", "right"]].set_visible(False)
plt.show()
