"""
A cloud of points flows to another
==================================

The Sinkhorn divergence of two clouds x and y is a transport cost, smoothed at the length
:math:`\\sqrt\\epsilon` and freed of its bias:

.. math::

    S(x, y) = W(x, y) - W(x, x) / 2 - W(y, y) / 2.

Each W needs a potential g on the points, which is found by repeating one reduction over all pairs:

.. math::

    g_j \\leftarrow -\\epsilon \\log \\frac1M \\sum_i e^{(f_i - |x_i - y_j|^2 / 2) / \\epsilon}.

We move the points x against the gradient of S. They become points of y.
"""

# %%
# Setup
# -----
# A crescent of points, and two rings.

import math
import time

import matplotlib.pyplot as plt
import numpy as np
import torch

from pairfold import Vi, Vj

M, N, EPSILON, STEPS, PACE = 1400, 1000, 0.008, 14, 0.35
COOLING = np.geomspace(2, EPSILON, 16).tolist() + 2 * [EPSILON]
rng = np.random.default_rng(0)


def ring(count, low, high, inner, outer):
    """Points (count, 2) between two radii and two angles, evenly by area."""
    radius = np.sqrt(rng.uniform(inner**2, outer**2, count))
    angle = rng.uniform(low, high, count)
    return radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)


crescent = ring(M, 0.5 * np.pi, 1.5 * np.pi, 0.5, 0.9) + np.array([0.4, 0])
rings = ring(N, 0, 2 * np.pi, 0.25, 0.45) + rng.choice([-0.5, 0.5], (N, 1)) * [1.1, 0.9]
x = torch.tensor(crescent, dtype=torch.float32)
y = torch.tensor(rings, dtype=torch.float32)

# %%
# Potentials
# ----------
# ``smallest`` is a soft minimum over j of the costs minus the potential of y. Smoothing begins at
# the size of the whole picture and goes down to EPSILON, so that few iterations are enough.


def smallest(x, y, g, epsilon):
    """-epsilon log mean_j exp((g_j - cost_ij) / epsilon), of shape (M, 1)."""
    costs = Vi(x).sqdist(Vj(y)) / 2
    mean = ((Vj(g) - costs) / epsilon).logsumexp(axis=1) - math.log(len(y))
    return -epsilon * mean


def potentials(x, y):
    """Those of x and of y, each (..., 1), by averaged iterations."""
    f, g = torch.zeros(len(x), 1), torch.zeros(len(y), 1)
    for epsilon in COOLING:
        f, g = (f + smallest(x, y, g, epsilon)) / 2, (g + smallest(y, x, f, epsilon)) / 2
    return f, g


def divergence(x, y, of_y):
    """S(x, y), with a gradient to x; `of_y` is the potential of y against itself.

    Potentials are optimal, so that the gradient flows through the last soft minimum alone.
    """
    f, g = potentials(x.detach(), y)
    own, _ = potentials(x.detach(), x.detach())
    to_x, itself = smallest(x, y, g, EPSILON), smallest(x, x.detach(), own, EPSILON)
    return (to_x - itself).mean() + (smallest(y, x.detach(), f, EPSILON) - of_y).mean()


# %%
# The flow
# --------

of_y, _ = potentials(y, y)
shown, values = [], []
start = time.perf_counter()
for _ in range(STEPS + 1):
    x.requires_grad_()
    value = divergence(x, y, of_y)
    (slope,) = torch.autograd.grad(value, x)
    values.append(float(value.detach()))
    shown.append(x.detach())
    x = (x - PACE * M * slope).detach()
seconds = time.perf_counter() - start
assert 0 < values[-1] < 0.05 * values[0]
print(f"divergence {values[0]:.4f} -> {values[-1]:.6f} in {STEPS} steps")

# %%
# The same soft minimum from a table, of some of the points, in double precision:

few = x[:200].double()
table = ((few[:, None] - y.double()) ** 2).sum(-1) / 2
dense = -EPSILON * (torch.logsumexp(-table / EPSILON, 1) - math.log(N))
ours = smallest(x[:200], y, torch.zeros(N, 1), EPSILON)[:, 0]
assert (ours - dense).abs().max() < 1e-5

held = sum(array.nbytes for array in (x, y, of_y, slope))
print(
    f"{M} x {N} pairs and more, {STEPS} steps in {seconds:.2f} s; arrays of {held / 1e3:.0f} kB, "
    f"where the tables of costs alone would take {4 * (M * N + M * M) / 1e6:.0f} MB"
)

# %%
# Figure
# ------
# Colours are the height at which points began: the flow keeps neighbours together.

plt.rcParams.update({"font.size": 13})
figure, axes = plt.subplots(2, 2, figsize=(7.2, 6.4), layout="constrained")
for axis, step in zip(axes.flat, (0, 2, 6, STEPS)):
    axis.scatter(*rings.T, s=6, color="0.85", rasterized=True)
    axis.scatter(*shown[step].T.numpy(), s=6, c=crescent[:, 1], cmap="viridis", rasterized=True)
    axis.set_title(f"step {step}, divergence {values[step]:.1g}", fontsize=13)
    axis.set_aspect("equal")
    axis.set_axis_off()
plt.show()
