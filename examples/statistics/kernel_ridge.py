"""
Kernel ridge regression
=======================

A function is known at N places y_j, with noise. The fit is a sum of hills, with weights that solve
a linear system:

.. math::

    f(x) = \\sum_j e^{-|x - y_j|^2 / 2 h^2} a_j, \\qquad (K + \\alpha) \\, a = b, \\qquad
    K_{ij} = e^{-|y_i - y_j|^2 / 2 h^2}.

The ridge alpha decides how much of the noise is believed. ``solve`` finds the weights by conjugate
gradients, from products with K alone. We try several ridges and keep what is best on samples that
were held back.
"""

# %%
# Setup
# -----

import time

import matplotlib.pyplot as plt
import numpy as np
from sklearn.kernel_ridge import KernelRidge

from pairfold import Vi, Vj

N, HELD, SIDE, NOISE, WIDTH = 2500, 1500, 100, 0.5, 0.07
ALPHAS = np.geomspace(1e-2, 1e3, 6).tolist()
rng = np.random.default_rng(0)


def truth(places):
    """Ripples around a point that end at a line, (...)."""
    p, q = places[..., 0], places[..., 1]
    return np.cos(22 * np.hypot(p - 0.25, q - 0.3)) / (1 + np.exp(12 * (p + 0.6 * q - 1)))


samples = rng.random((N + HELD, 2))
measured = truth(samples) + NOISE * rng.standard_normal(N + HELD)
(y, held), (b, kept) = np.split(samples, [N]), np.split(measured[:, None], [N])
ticks = np.linspace(0, 1, SIDE)
x = np.stack(np.meshgrid(ticks, ticks), -1).reshape(-1, 2)

# %%
# One system for each ridge
# -------------------------


def kernel(x, y):
    """A lazy tensor (M, N)."""
    return (-Vi(x).sqdist(Vj(y)) / (2 * WIDTH**2)).exp()


fits, errors = [], []
start = time.perf_counter()
for alpha in ALPHAS:
    a = kernel(y, y).solve(b, alpha=alpha)
    fits.append((kernel(x, y) @ a).reshape(SIDE, SIDE))
    errors.append(float(np.sqrt(np.mean((kernel(held, y) @ a - kept) ** 2))))
    print(f"alpha {alpha:8.3f}: error {errors[-1]:.3f} on samples that were held back")
seconds = time.perf_counter() - start
best = int(np.argmin(errors))
assert 0 < best < len(ALPHAS) - 1
assert errors[best] < 1.1 * NOISE

# %%
# The same by scikit-learn, which makes the matrix and factorises it, with some of the samples:

few = 1000
peer = KernelRidge(kernel="rbf", gamma=0.5 / WIDTH**2, alpha=ALPHAS[best]).fit(y[:few], b[:few])
ours = kernel(held, y[:few]) @ kernel(y[:few], y[:few]).solve(
    b[:few], alpha=ALPHAS[best], eps=1e-10
)
gap = np.abs(ours - peer.predict(held)).max()
print(f"largest difference from scikit-learn: {gap:.1e}")
assert gap < 1e-6
print(
    f"{len(ALPHAS)} systems of {N} x {N} in {seconds:.2f} s; arrays of "
    f"{(x.nbytes + y.nbytes + 2 * b.nbytes) / 1e6:.1f} MB, where the matrix alone would take "
    f"{8 * N * N / 1e6:.0f} MB"
)

# %%
# Figure
# ------
# With too small a ridge the fit follows the noise; too large a one leaves little of the ripples.

plt.rcParams.update({"font.size": 13, "axes.spines.top": False, "axes.spines.right": False})
figure = plt.figure(figsize=(7.0, 9.0), layout="constrained")
grid = figure.add_gridspec(3, 2, height_ratios=[1, 1, 0.6])
look = {"vmin": -1.2, "vmax": 1.2, "cmap": "PuOr"}
panels = {"samples": None} | {
    f"{name}, alpha = {ALPHAS[place]:.2g}": fits[place]
    for name, place in (("too small", 0), ("the best", best), ("too large", len(ALPHAS) - 1))
}
for place, (title, fit) in zip(np.ndindex(2, 2), panels.items()):
    axis = figure.add_subplot(grid[place])
    if fit is None:
        axis.scatter(*y.T, c=b[:, 0], s=6, linewidths=0, rasterized=True, **look)
    else:
        axis.imshow(fit, origin="lower", extent=(0, 1, 0, 1), **look)
    axis.set_title(title, fontsize=13)
    axis.set(aspect="equal", xlim=(0, 1), ylim=(0, 1), xticks=[], yticks=[])
axis = figure.add_subplot(grid[2, :])
axis.semilogx(ALPHAS, errors, "o-", color="#0072B2")
axis.plot(ALPHAS[best], errors[best], "o", markersize=11, color="#D55E00")
axis.axhline(NOISE, color="0.5", linestyle="--", linewidth=1)
axis.text(ALPHAS[-1], NOISE, "the noise itself", ha="right", va="bottom", color="0.35")
axis.set(xlabel="alpha", ylabel="error on samples\nheld back", ylim=(0.98 * NOISE, None))
plt.show()
