"""
Averages of shapes
==================

The Wasserstein barycentre of shapes y^1 ... y^S with weights w is the cloud x that is nearest to
all of them by the cost of transport. Every point of x goes to one place of each shape, its image,
and x is a barycentre when each point is the weighted mean of its own images:

.. math::

    x_i = \\sum_s w_s T^s_i, \\qquad
    T^s_i = \\sum_j e^{(g^s_j - |x_i - y^s_j|^2 / 2) / \\epsilon} y^s_j \\Big/
            \\sum_j e^{(g^s_j - |x_i - y^s_j|^2 / 2) / \\epsilon}.

Potentials g come from Sinkhorn's iterations, images from a soft-max mean. All weights and all
shapes are computed at once, as two batch axes.
"""

# %%
# Setup
# -----
# Four shapes of N points, and weights for a square of 5 x 5 barycentres whose corners they are.

import math
import time

import matplotlib.pyplot as plt
import numpy as np

from pairfold import LazyTensor

N, SIDE, EPSILON, ROUNDS = 500, 5, 0.04**2, 3
rng = np.random.default_rng(0)


def shape(inside):
    """N points of the square [-1, 1]^2 for which `inside` holds."""
    points = rng.uniform(-1, 1, (200_000, 2))
    return points[inside(*points.T)][:N].astype("float32")


def star(p, q):
    return np.hypot(p, q) < 0.62 + 0.3 * np.sin(5 * np.arctan2(q, p) + np.pi / 2)


def heart(p, q):
    return (1.4 * p**2 + 1.4 * q**2 - 0.8) ** 3 < 2.2 * p**2 * (q + 0.1) ** 3


def ring(p, q):
    return (np.hypot(p, q) < 0.85) & (np.hypot(p, q) > 0.5)


def cross(p, q):
    return (np.minimum(abs(p), abs(q)) < 0.24) & (np.maximum(abs(p), abs(q)) < 0.85)


shapes = np.stack([shape(inside) for inside in (star, heart, ring, cross)])  # (4, N, 2)
u, v = (axis.ravel() for axis in np.meshgrid(np.linspace(0, 1, SIDE), np.linspace(0, 1, SIDE)))
weights = np.stack([(1 - u) * (1 - v), u * (1 - v), (1 - u) * v, u * v], 1).astype("float32")

# %%
# Transport of a batch
# --------------------
# x has shape (25, 1, N, 2), y has (1, 4, N, 2): reductions of their pairs have shape (25, 4, N, 1).


def exponents(x, y, potential, epsilon):
    """(potential of j - cost of i, j) / epsilon, a lazy tensor (25, 4, N, N)."""
    x_i, y_j = LazyTensor(x[..., :, None, :]), LazyTensor(y[..., None, :, :])
    return (LazyTensor(potential[..., None, :, :]) - ((x_i - y_j) ** 2).sum(-1) / 2) / epsilon


def images(x, y):
    """Where each point of x is carried in each shape, (25, 4, N, 2)."""
    f = np.zeros((len(x), len(shapes), N, 1), "float32")
    g = np.zeros_like(f)
    for epsilon in np.geomspace(1, EPSILON, 8).tolist():
        to_x = -epsilon * (exponents(x, y, g, epsilon).logsumexp(axis=-2) - math.log(N))
        to_y = -epsilon * (exponents(y, x, f, epsilon).logsumexp(axis=-2) - math.log(N))
        f, g = (f + to_x) / 2, (g + to_y) / 2
    weighted = LazyTensor(y[..., None, :, :])
    return exponents(x, y, g, EPSILON).sumsoftmaxweight(weighted, axis=-2)


# %%
# Barycentres
# -----------
# They begin as one cloud in a disc. Two or three rounds are enough for the eye.

disc = shape(lambda p, q: np.hypot(p, q) < 0.8)
x = np.broadcast_to(disc, (SIDE**2, 1, N, 2))
start = time.perf_counter()
for _ in range(ROUNDS):
    moved = (weights[:, :, None, None] * images(x, shapes[None])).sum(1)  # (25, N, 2)
    change = np.abs(moved - x[:, 0]).mean()
    x = moved[:, None]
    print(f"mean change of coordinates: {change:.4f}")
seconds = time.perf_counter() - start

# %%
# A soft-max mean of one batch element from its table:

zero = np.zeros((1, 1, N, 1), "float32")
lazy = exponents(x[:1], shapes[None, :1], zero, 0.1)
ours = lazy.sumsoftmaxweight(LazyTensor(shapes[None, :1, None]), axis=-2)[0, 0]
table = np.exp(-((x[0, 0, :, None].astype(float) - shapes[0]) ** 2).sum(-1) / 0.2)
assert np.abs(ours - table @ shapes[0] / table.sum(1, keepdims=True)).max() < 1e-5

reductions = ROUNDS * 17
print(
    f"{SIDE**2} x 4 batches of {N} x {N} pairs, {reductions} reductions in {seconds:.2f} s; the "
    f"table of one would take {4 * SIDE**2 * 4 * N * N / 1e6:.0f} MB, its result takes "
    f"{4 * SIDE**2 * 4 * N / 1e3:.0f} kB"
)

# %%
# Figure
# ------

figure, axes = plt.subplots(SIDE, SIDE, figsize=(7.2, 7.2))
figure.subplots_adjust(0, 0, 1, 1, 0, 0)
corners = np.array([[0.0, 0.45, 0.70], [0.84, 0.37, 0.0], [0.0, 0.62, 0.45], [0.90, 0.62, 0.0]])
for axis, cloud, weight in zip(axes.flat, x[:, 0], weights):
    axis.scatter(*cloud.T, s=5, color=tuple(weight @ corners), linewidths=0)
    axis.set(aspect="equal", xlim=(-1, 1), ylim=(-1, 1))
    axis.set_axis_off()
plt.show()
