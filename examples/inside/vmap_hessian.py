"""
Second derivatives at many places
=================================

``torch.func`` composes derivatives: ``hessian`` of a function of one point, and ``vmap`` to have it
at thousands of places in one call. Here the function is the logarithm of a density of samples y_j,

.. math::

    f(x) = \\log \\frac1N \\sum_j e^{-|x - y_j|^2 / 2 \\sigma^2},

whose Hessian has a large negative eigenvalue where the samples lie along a line. That finds ridges,
such as filaments in a map of galaxies or vessels in a picture.
"""

# %%
# Setup
# -----
# Samples along a few random curves, and others anywhere; a grid of places.

import math
import time

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch.func import hessian, vmap

from pairfold import Vi, Vj

SIDE, N, CURVES, SIGMA = 100, 4000, 6, 0.045
rng = np.random.default_rng(6)
along = rng.random((N, 1))
ends = rng.uniform(-1, 1, (3, CURVES, 2))
a, b, c = ends[:, rng.integers(0, CURVES, N)]
samples = (1 - along) ** 2 * a + 2 * along * (1 - along) * b + along**2 * c
samples += 0.015 * rng.standard_normal((N, 2))
samples[: N // 5] = rng.uniform(-1, 1, (N // 5, 2))
y = torch.tensor(samples)
ticks = torch.linspace(-1, 1, SIDE, dtype=torch.float64)
x = torch.cartesian_prod(ticks, ticks)

# %%
# One point, then all
# -------------------


def log_density(point):
    """f at a point (2,), a number."""
    squared = Vi(point[None]).sqdist(Vj(y))
    return (-squared / (2 * SIGMA**2)).logsumexp(axis=1)[0, 0] - math.log(N)


start = time.perf_counter()
second = vmap(hessian(log_density))(x)  # (places, 2, 2)
values = vmap(log_density)(x)
seconds = time.perf_counter() - start
least = torch.linalg.eigvalsh(second)[:, 0]

# %%
# By hand, from the table of weights: the covariance of the differences over sigma^4, less a
# multiple of the identity.

some = torch.arange(0, len(x), 97)
apart = y - x[some, None]
weights = torch.softmax(-(apart**2).sum(-1) / (2 * SIGMA**2), 1)
mean = (weights[..., None] * apart).sum(1)
spread = torch.einsum("mn,mni,mnj->mij", weights, apart, apart)
spread = spread - mean[:, :, None] * mean[:, None]
by_hand = spread / SIGMA**4 - torch.eye(2, dtype=torch.float64) / SIGMA**2
gap = float((second[some] - by_hand).abs().max() / by_hand.abs().max())
print(f"relative difference to derivatives by hand: {gap:.1e}")
assert gap < 1e-8
print(
    f"{len(x)} Hessians over {N} samples each in {seconds:.2f} s, into {second.nbytes / 1e3:.0f} "
    f"kB; the table of weights alone would take {8 * len(x) * N / 1e6:.0f} MB"
)

# %%
# Figure
# ------
# Ridges are where the density falls off fast to both sides.

plt.rcParams.update({"font.size": 13})
figure, axes = plt.subplots(2, 1, figsize=(5.8, 10.6), layout="constrained")
extent = (-1, 1, -1, 1)
axes[0].plot(*samples.T, ".", markersize=1.5, color="#0072B2", rasterized=True)
axes[0].set_title(f"{N} samples", fontsize=13)
ridges = (-least * SIGMA**2).clamp(min=0) * (values > values.quantile(0.6))
image = ridges.view(SIDE, SIDE).T.numpy()
axes[1].imshow(image, origin="lower", extent=extent, cmap="magma", interpolation="bilinear")
axes[1].set_title("ridges of their density", fontsize=13)
for axis in axes:
    axis.set(aspect="equal", xlim=(-1, 1), ylim=(-1, 1), xticks=[], yticks=[])
plt.show()
