"""
A wave among scatterers
=======================

A plane wave meets many small scatterers y_j in a plane. Each answers with a spherical wave, of a
strength c_j that follows from the wave that arrives there, which has the waves of all others in it:

.. math::

    c_i = a \\Big( e^{ik y_i^1} + \\sum_{j \\ne i} G(y_i, y_j) c_j \\Big), \\qquad
    G(x, y) = e^{ik|x - y|} / |x - y|.

It is a linear system of complex numbers. SciPy solves it by GMRES, which needs nothing but products
with the matrix G; pairfold computes these from a complex lazy tensor. One more product with G gives
the wave everywhere. No energy is lost if 1/a has the imaginary part -k.
"""

# %%
# Setup
# -----
# A crystal of scatterers with a channel in it.

import time

import matplotlib.pyplot as plt
import numpy as np
from scipy.sparse.linalg import LinearOperator, gmres

from pairfold import Vi, Vj, where

SIDE, WAVES = 260, 14
k = 2 * np.pi * WAVES
STRENGTH = 1 / (k * (2 - 1j))
p, q = (axis.ravel() for axis in np.meshgrid(np.arange(34), np.arange(46)))
y = 0.0225 * np.stack([p + 0.5 * (q % 2), q * 3**0.5 / 2], 1)
y -= y.mean(0)
y = y[(np.abs(y[:, 1] - 0.12 * np.sin(5 * y[:, 0])) > 0.045) & (np.hypot(*y.T) < 0.42)]
N = len(y)

# %%
# Green's function
# ----------------
# Times the real tensor r the number k is an angle; ``exp1j`` makes a point of the unit circle of
# it. Pairs of a point with itself are left out.


def waves(x, y):
    """exp(ik|x - y|) / |x - y|, 0 where x = y: a complex lazy tensor (M, N)."""
    squared = Vi(x).sqdist(Vj(y))
    inverse = where(squared > 1e-12, squared.rsqrt(), 0)
    return (k * squared.sqrt()).exp1j() * inverse


G = waves(y, y)
arriving = np.exp(1j * k * y[:, 0])
table = np.sqrt(((y[:, None] - y) ** 2).sum(-1)) + np.eye(N)
dense = np.exp(1j * k * table) / table * (1 - np.eye(N))
gap = np.abs(G @ arriving[:, None] - dense @ arriving[:, None]).max()
assert gap < 1e-9 * np.abs(dense @ arriving).max()

# %%
# Strengths
# ---------

calls = 0


def system(c):
    """c - a G c."""
    global calls
    calls += 1
    return c - STRENGTH * (G @ c.reshape(-1, 1))[:, 0]


start = time.perf_counter()
c, failed = gmres(
    LinearOperator((N, N), system, dtype=complex),
    STRENGTH * arriving,
    rtol=1e-8,
    restart=100,
    maxiter=5,
)
solved = time.perf_counter() - start
assert not failed
direct = np.linalg.solve(np.eye(N) - STRENGTH * dense, STRENGTH * arriving)
print(f"{N} scatterers: {calls} products in {solved:.2f} s")
print(f"relative difference to a dense solver: {np.abs(c - direct).max() / np.abs(c).max():.1e}")
assert np.abs(c - direct).max() < 1e-5 * np.abs(c).max()

# %%
# The wave
# --------

ticks = np.linspace(-0.7, 0.7, SIDE)
x = np.stack(np.meshgrid(ticks, ticks), -1).reshape(-1, 2)
start = time.perf_counter()
wave = np.exp(1j * k * x[:, 0]) + (waves(x, y) @ c[:, None])[:, 0]
seconds = time.perf_counter() - start
print(
    f"{len(x)} x {N} complex pairs in {seconds:.2f} s, into {wave.nbytes / 1e6:.1f} MB; the table "
    f"alone would take {16 * len(x) * N / 1e9:.1f} GB"
)

# %%
# Figure
# ------

plt.rcParams.update({"font.size": 13})
figure, axes = plt.subplots(2, 1, figsize=(6.2, 10.4), layout="constrained")
extent = (-0.7, 0.7, -0.7, 0.7)
pictures = {
    "the wave, its real part": (wave.real, "RdBu", -2.2, 2.2),
    "its modulus": (np.abs(wave), "magma", 0, 2.6),
}
for axis, (title, (values, colours, low, high)) in zip(axes, pictures.items()):
    shown = axis.imshow(
        values.reshape(SIDE, SIDE),
        origin="lower",
        extent=extent,
        cmap=colours,
        vmin=low,
        vmax=high,
        interpolation="bilinear",
    )
    axis.plot(*y.T, ".", markersize=1.6, color="0.5")
    axis.set_title(title, fontsize=13)
    axis.set_axis_off()
    figure.colorbar(shown, ax=axis, shrink=0.8)
plt.show()
