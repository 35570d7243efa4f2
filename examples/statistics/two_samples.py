"""
Are two samples from one distribution?
======================================

The maximum mean discrepancy of samples x and y compares the mean similarities within them and
between them,

.. math::

    \\mathrm{MMD}^2 = \\sum_{i,j} s_i s_j K(z_i, z_j), \\qquad z = (x, y), \\qquad
    s_i = \\tfrac1M \\text{ in } x, \\; -\\tfrac1N \\text{ in } y.

How large it is by chance is found by mixing the samples up, which changes the signs s alone. So
hundreds of permutations are the columns of one product with the matrix K, which is not stored.
"""

# %%
# Setup
# -----
# Two samples with the same mean and the same covariance: a round one, and three overlapping hills.

import time

import matplotlib.pyplot as plt
import numpy as np

from pairfold import Vi, Vj

M, N, MIXED, RADIUS = 1500, 1500, 400, 1.05
rng = np.random.default_rng(0)
x = rng.standard_normal((M, 2))
angle = np.pi / 2 + 2 * np.pi / 3 * rng.integers(3, size=N)
hills = RADIUS * np.stack([np.cos(angle), np.sin(angle)], 1)
y = hills + np.sqrt(1 - RADIUS**2 / 2) * rng.standard_normal((N, 2))
z = np.concatenate([x, y]).astype("float32")

# %%
# The width of the kernel is half the median of some of the distances.

some = z[rng.choice(M + N, (2, 1000))]
width = float(np.median(np.linalg.norm(some[0] - some[1], axis=1))) / 2
print(f"width {width:.2f}")


def kernel(x, y):
    """A lazy tensor (M, N)."""
    return (-Vi(x).sqdist(Vj(y)) / (2 * width**2)).exp()


# %%
# All permutations at once
# ------------------------
# Column 0 has the signs as they are.

signs = np.concatenate([np.full(M, 1 / M), np.full(N, -1 / N)]).astype("float32")
columns = np.stack([signs, *(rng.permutation(signs) for _ in range(MIXED))], 1)  # (M + N, 401)
start = time.perf_counter()
products = kernel(z, z) @ columns
discrepancies = (columns * products).sum(0)
seconds = time.perf_counter() - start
found, chance = discrepancies[0], discrepancies[1:]
probability = (1 + (chance >= found).sum()) / (1 + MIXED)
print(f"MMD^2 = {found:.5f}, p = {probability:.4f}")
assert probability < 0.05

# %%
# Tests of means do not see it. The same signs give the difference of means of each permutation:

means = np.linalg.norm(columns.T @ z, axis=1)
of_means = (1 + (means[1:] >= means[0]).sum()) / (1 + MIXED)
print(f"difference of means {means[0]:.3f}, p = {of_means:.2f}")
assert of_means > 0.05

# %%
# From the table, in double precision:

table = np.exp(-((z[:, None].astype(float) - z) ** 2).sum(-1) / (2 * width**2))
right = (columns * (table @ columns)).sum(0)
gap = np.abs(discrepancies - right).max() / found
print(f"largest difference from the dense program: {gap:.1e} of MMD^2")
assert gap < 1e-3
print(
    f"{M + N} x {M + N} pairs, {MIXED} permutations in {seconds:.2f} s; signs of "
    f"{columns.nbytes / 1e6:.1f} MB, where the table alone would take "
    f"{4 * (M + N) ** 2 / 1e6:.0f} MB"
)

# %%
# Figure
# ------
# Above: where there is more of the first or of the second sample, the product of K with the signs
# at the places of a grid.

ticks = np.linspace(-3, 3, 150, dtype="float32")
grid = np.stack(np.meshgrid(ticks, ticks), -1).reshape(-1, 2)
witness = (kernel(grid, z) @ signs[:, None]).reshape(150, 150)

plt.rcParams.update({"font.size": 13, "axes.spines.top": False, "axes.spines.right": False})
figure, (upper, lower) = plt.subplots(
    2, 1, figsize=(6.6, 8.6), layout="constrained", height_ratios=[2, 1]
)
high = np.abs(witness).max()
upper.contourf(ticks, ticks, witness, np.linspace(-high, high, 15), cmap="PuOr")
for sample, marker, colour, name in ((x, "x", "#5e3c99", "first"), (y, "+", "#b35806", "second")):
    upper.plot(*sample[:400].T, marker, markersize=5, color=colour, label=f"of the {name} sample")
upper.set(aspect="equal", xlim=(-3, 3), ylim=(-3, 3), xticks=[], yticks=[])
upper.legend(loc="upper left", fontsize=12)
lower.hist(1e3 * chance, 40, color="0.7", label="samples mixed up")
lower.axvline(
    1e3 * found, color="#D55E00", linewidth=3, label=f"as they are, p = {probability:.4f}"
)
lower.set(xlabel="MMD$^2$, in 1/1000", ylabel="permutations")
lower.legend(frameon=False, fontsize=12)
plt.show()
