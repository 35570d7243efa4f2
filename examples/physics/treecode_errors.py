"""
Fields to an error that you name
================================

The electric potential of many charges of both signs,

.. math::

    s_i = \\sum_j q_j \\, / \\sqrt{|x_i - y_j|^2 + \\epsilon^2},

at all places of a grid. ``method="treecode"`` meets far charges as few weighted points, as many as
the relative error ``rtol`` needs. The error is measured at some rows; here we compute all of them
exactly, too, and look where the errors are.
"""

# %%
# Setup
# -----
# Charges on two spirals, one of each sign, and a grid of places.

import time

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import LogNorm

from pairfold import Vi, Vj

SIDE, N, SOFT = 220, 40_000, 1e-2
rng = np.random.default_rng(0)
sign = np.where(np.arange(N) % 2, 1.0, -1.0)
turn = 0.15 + 1.2 * rng.random(N) ** 0.7
angle = 2 * np.pi * turn + np.where(sign > 0, 0, np.pi)
y = 0.7 * turn[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)
y = (y + 0.02 * rng.standard_normal((N, 2))).astype("float32")
q = (sign[:, None] / N).astype("float32")
ticks = np.linspace(-1.1, 1.1, SIDE, dtype="float32")
x = np.stack(np.meshgrid(ticks, ticks), -1).reshape(-1, 2)

# %%
# Potentials
# ----------

terms = (Vi(x).sqdist(Vj(y)) + SOFT**2).rsqrt() * Vj(q)


def timed(**options):
    """A potential (M, 1), and the seconds that it took, in a second run."""
    for _ in range(2):
        start = time.perf_counter()
        found = terms.sum(axis=1, **options)
    return found, time.perf_counter() - start


exact, exactly = timed()
apart = ((x[::997, None].astype(float) - y) ** 2).sum(-1)
dense = (apart + SOFT**2) ** -0.5 @ q
assert np.abs(exact[::997] - dense).max() < 1e-4 * np.abs(dense).max()
print(f"all {len(x)} x {N} pairs: {exactly:.2f} s")
errors, times, asked = {}, [], (1e-2, 1e-3, 1e-4, 1e-5)
for rtol in asked:
    found, seconds = timed(method="treecode", rtol=rtol)
    gap = np.abs(found - exact)
    errors[rtol] = gap.reshape(SIDE, SIDE)
    times.append(seconds)
    reached = float(np.linalg.norm(gap) / np.linalg.norm(exact))
    print(f"rtol {rtol:.0e}: {seconds:.2f} s, relative error {reached:.1e}")
    assert reached < rtol
arrays = x.nbytes + y.nbytes + q.nbytes + exact.nbytes
print(
    f"{len(x)} x {N} pairs; arrays of {arrays / 1e6:.1f} MB; the table alone would take "
    f"{4 * len(x) * N / 1e9:.1f} GB"
)

# %%
# Figure
# ------
# Errors are small everywhere, and lie in boxes: places of one box meet the same weighted points.

plt.rcParams.update({"font.size": 13})
figure, axes = plt.subplots(2, 2, figsize=(7.2, 6.6), layout="constrained")
extent = (-1.1, 1.1, -1.1, 1.1)
limit = float(np.abs(exact).max())
image = exact.reshape(SIDE, SIDE)
shown = axes[0, 0].imshow(
    image, origin="lower", extent=extent, cmap="PuOr", vmin=-limit, vmax=limit
)
axes[0, 0].set_title(f"potential, {exactly:.2f} s", fontsize=13)
figure.colorbar(shown, ax=axes[0, 0], shrink=0.8)
scale = float(np.sqrt((exact**2).mean()))
for axis, rtol, seconds in zip(axes.flat[1:], asked[::1], times):
    shown = axis.imshow(
        np.maximum(errors[rtol] / scale, 1e-9),
        origin="lower",
        extent=extent,
        cmap="viridis",
        norm=LogNorm(1e-7, 1e-1),
    )
    axis.set_title(f"error, rtol {rtol:g}, {seconds:.2f} s", fontsize=13)
figure.colorbar(shown, ax=axes[:, 1], shrink=0.8)
for axis in axes.flat:
    axis.set_xticks([])
    axis.set_yticks([])
plt.show()
