"""
t-SNE without a table
=====================

Pictures x_i of digits become points y_i of a plane. Those that are alike attract each other, and
all push each other away:

.. math::

    \\dot y_i = \\sum_j (y_j - y_i) \\, w_{ij}
    \\Bigl( p_{ij} - \\frac{w_{ij}}{\\sum_{k \\ne l} w_{kl}} \\Bigr), \\qquad
    w_{ij} = \\frac{1}{1 + |y_i - y_j|^2}, \\qquad
    p_{ij} = \\frac{e^{-\\beta_i |x_i - x_j|^2 - z_i} + e^{-\\beta_j |x_i - x_j|^2 - z_j}}{2 N}.

Each beta is such that a picture has about 30 neighbours. Neither p nor w is stored, nor are far
pairs approximated: every step sums over all of them.
"""

# %%
# Setup
# -----

import math
import time

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits

from pairfold import Vi, Vj, exclude_self

NEIGHBOURS, STEPS, EARLY, PACE = 30, 260, 90, 300.0
digits = load_digits()
x = torch.tensor(digits.data / 16, dtype=torch.float32)
N, D = x.shape

# %%
# As many neighbours for each
# ---------------------------
# z is the logarithm of a sum of exponentials, and its derivative by beta, which torch knows, gives
# the entropy of each row. Halving finds where it is that of 30 equal neighbours.


def normalised(beta):
    """z and the entropy of each row, (N, 1) both."""
    beta = beta.detach().requires_grad_()
    z = (-Vi(beta) * Vi(x).sqdist(Vj(x))).logsumexp(axis=1, where=exclude_self())
    (slope,) = torch.autograd.grad(z.sum(), beta)
    return z.detach(), z.detach() - beta.detach() * slope


start = time.perf_counter()
low, high = torch.full((N, 1), math.log(1e-2)), torch.full((N, 1), math.log(1e2))
for _ in range(20):
    middle = (low + high) / 2
    _, entropy = normalised(middle.exp())
    wide = entropy > math.log(NEIGHBOURS)
    low, high = torch.where(wide, middle, low), torch.where(wide, high, middle)
beta = middle.exp()
z, entropy = normalised(beta)
print(f"neighbours: {float(entropy.exp().min()):.2f} to {float(entropy.exp().max()):.2f}")
assert (entropy.exp() / NEIGHBOURS - 1).abs().max() < 0.01

# %%
# Forces
# ------

squared = Vi(x).sqdist(Vj(x))
alike = ((-Vi(beta) * squared - Vi(z)).exp() + (-Vj(beta) * squared - Vj(z)).exp()) / (2 * N)


def forces(y):
    """Attraction and repulsion, (N, 2) both, and the sum of all w."""
    apart = Vj(y) - Vi(y)
    w = 1 / (1 + (apart**2).sum(-1))
    total = float(w.sum(axis=1).double().sum()) - N
    return (alike * w * apart).sum(axis=1), (w**2 * apart).sum(axis=1) / total, total


# %%
# The flow begins with the two main directions of the data. At first attraction is stronger than it
# should be, so that groups find together.

centred = x - x.mean(0)
y = centred @ torch.linalg.svd(centred, full_matrices=False)[2][:2].T
y = 1e-2 * y / y.std()
speed = torch.zeros_like(y)
for step in range(STEPS):
    towards, away, _ = forces(y)
    strength, friction = (12, 0.5) if step < EARLY else (1, 0.8)
    speed = friction * speed + 4 * PACE * (strength * towards - away)
    y = y + speed
seconds = time.perf_counter() - start

# %%
# The forces on some of the points, from tables, in double precision:

few = torch.arange(0, N, 20)
apart = y.double() - y[few, None].double()
w = 1 / (1 + (apart**2).sum(-1))
table = ((x[few, None].double() - x.double()) ** 2).sum(-1)
rows, columns = (-beta[few] * table - z[few]).exp(), (-beta.T * table - z.T).exp()
towards, away, total = forces(y)
dense = (((rows + columns) / (2 * N) * w)[..., None] * apart).sum(1)
assert (towards[few] - dense).abs().max() < 1e-3 * dense.abs().max()
dense = ((w**2)[..., None] * apart).sum(1) / total
assert (away[few] - dense).abs().max() < 1e-3 * dense.abs().max()

# %%
# Labels were not used. How often is the nearest point one of the same digit?

labels = torch.tensor(digits.target)
nearest = Vi(y).sqdist(Vj(y)).argmin(axis=1, where=exclude_self())[:, 0]
right = float((labels[nearest.long()] == labels).double().mean())
print(f"the nearest point is the same digit for {100 * right:.1f} % of {N}")
assert right > 0.9
print(
    f"{N} x {N} pairs, {STEPS} steps of three sums in {seconds:.2f} s; pictures and points take "
    f"{(x.nbytes + y.nbytes) / 1e6:.1f} MB, tables of p and w would take {8 * N * N / 1e6:.0f} MB"
)

# %%
# Figure
# ------

plt.rcParams.update({"font.size": 13})
figure, axis = plt.subplots(figsize=(7.2, 7.2), layout="constrained")
shades = plt.get_cmap("viridis")(np.linspace(0, 1, 10))[[0, 5, 9, 2, 7, 4, 8, 1, 6, 3]]
for digit in range(10):
    group = y[labels == digit].numpy()
    axis.plot(*group.T, ".", markersize=5, color=shades[digit], rasterized=True)
    look = {"ha": "center", "va": "center", "fontsize": 20, "fontweight": "bold"}
    box = {"facecolor": "white", "edgecolor": shades[digit], "boxstyle": "circle,pad=0.15"}
    axis.text(*np.median(group, 0), str(digit), bbox=box, **look)
axis.set_aspect("equal")
axis.set_axis_off()
plt.show()
