"""
A density and its contours
==========================

The density of points y_j in a plane is estimated by a small hill on each of them:

.. math::

    p(x_i) = \\frac{1}{2 \\pi h^2 N} \\sum_j e^{-|x_i - y_j|^2 / 2 h^2}.

A hill is felt nearby alone, so that most pairs do not matter. ``rtol=`` says how much of each sum
may be missing. Blocks of pairs that are provably less than that are not computed.
"""

# %%
# Setup
# -----
# Points y in two arms of a spiral, and a grid of places x. The width h of a hill must not be too
# small beside the distances of points, nor too large beside the shapes that are looked for.

import time

import matplotlib.pyplot as plt
import numpy as np

from pairfold import Vi, Vj

N, SIDE, WIDTH, MISSING = 30_000, 180, 0.045, 1e-3
rng = np.random.default_rng(0)
turn = 3.2 * np.pi * np.sqrt(rng.uniform(0.01, 1, N))
angle = turn + rng.choice([0, np.pi], N) + 0.22 * rng.standard_normal(N)
radius = turn / (3.2 * np.pi) + 0.03 * rng.standard_normal(N)
y = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)
ticks = np.linspace(-1.15, 1.15, SIDE)
x = np.stack(np.meshgrid(ticks, ticks), -1).reshape(-1, 2)

# %%
# The estimate
# ------------

hills = (-Vi(x).sqdist(Vj(y)) / (2 * WIDTH**2)).exp() / (2 * np.pi * WIDTH**2)
hills.mean(axis=1, rtol=MISSING)  # code is made in the first call
start = time.perf_counter()
density = hills.mean(axis=1, rtol=MISSING)[:, 0]
seconds = time.perf_counter() - start
met, blocks = hills.explain("Mean", axis=1, rtol=MISSING).subject.searched
print(f"{100 * met / blocks:.1f} % of {blocks} blocks of pairs are computed")
assert met < 0.2 * blocks

# %%
# Some of the places again, from the table. What is missing is less than was allowed.

some = rng.choice(len(x), 200, replace=False)
table = np.exp(-((x[some, None] - y) ** 2).sum(-1) / (2 * WIDTH**2)) / (2 * np.pi * WIDTH**2)
right = table.mean(1)
worst = np.max((right - density[some]) / right)
print(f"at most {worst:.1e} of a sum is missing, {MISSING:.0e} were allowed")
assert -1e-9 < worst < MISSING

# %%
# Contours
# --------
# Levels are such that the region above has a part of the probability. The highest places of the
# grid are counted until they have it.

cell = (ticks[1] - ticks[0]) ** 2
falling = np.sort(density)[::-1]
parts = np.cumsum(falling) * cell
print(f"the whole grid has {parts[-1]:.4f} of the probability")
assert 0.98 < parts[-1] < 1.001
regions = {f"{part} %": falling[np.searchsorted(parts, part / 100)] for part in (95, 70, 30)}

print(
    f"{len(x)} x {N} pairs in {seconds:.2f} s; arrays of "
    f"{(x.nbytes + y.nbytes + density.nbytes) / 1e6:.1f} MB, where the table alone would take "
    f"{8 * len(x) * N / 1e9:.1f} GB"
)

# %%
# Figure
# ------

plt.rcParams.update({"font.size": 13})
figure, axis = plt.subplots(figsize=(6.6, 6.8), layout="constrained")
picture = density.reshape(SIDE, SIDE)
axis.imshow(
    picture,
    origin="lower",
    extent=[ticks[0], ticks[-1]] * 2,
    cmap="cividis",
    interpolation="bicubic",
)
levels = list(regions.values())
drawn = axis.contour(ticks, ticks, picture, levels, colors="white", linewidths=[1, 1.5, 2])
axis.clabel(drawn, fmt=dict(zip(levels, regions)), fontsize=11)
axis.set_title(f"regions with a part of the probability of {N} points", fontsize=13)
axis.set(xticks=[], yticks=[])
plt.show()
