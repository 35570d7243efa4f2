"""
Eigenvectors by SciPy
=====================

A lazy tensor is a linear operator: SciPy's iterative methods multiply with it and ask for nothing
else. The eigenvectors of

.. math::

    S = D^{-1/2} K D^{-1/2}, \\qquad K_{ij} = e^{-|x_i - x_j|^2 / 2 \\sigma^2}, \\qquad
    D = \\mathrm{diag}(K 1),

are the vibrations of a cloud of points: the slow ones tell its parts, and its shape. S is a
lazy tensor, too: a formula of points and numbers.
"""

# %%
# Setup
# -----
# Points on the outline of a spiral with thickness.

import time

import matplotlib.pyplot as plt
import numpy as np
from scipy.sparse.linalg import eigsh

from pairfold import Vi, Vj
from pairfold.linalg import aslinearoperator

N, SIGMA, COUNT = 5000, 0.05, 6
rng = np.random.default_rng(0)
turn = np.sqrt(rng.uniform(0.02, 1, N))
x = turn[:, None] * np.stack([np.cos(3.4 * np.pi * turn), np.sin(3.4 * np.pi * turn)], 1)
x += 0.035 * rng.standard_normal((N, 2))

# %%
# The operator
# ------------

kernel = (-Vi(x).sqdist(Vj(x)) / (2 * SIGMA**2)).exp()
scale = kernel.sum(axis=1) ** -0.5
operator = aslinearoperator(Vi(scale) * kernel * Vj(scale))
print(operator)

start = time.perf_counter()
values, vectors = eigsh(operator, COUNT, tol=1e-6)
seconds = time.perf_counter() - start
order = np.argsort(-values)
values, vectors = values[order], vectors[:, order] * scale
print("eigenvalues:", " ".join(f"{value:.5f}" for value in values))
assert abs(values[0] - 1) < 1e-6

# %%
# What is found holds for the whole matrix, of which a part is made here:

part = np.exp(-((x[:200, None] - x) ** 2).sum(-1) / (2 * SIGMA**2)) * scale[:200] * scale[:, 0]
gap = np.abs(part @ (vectors / scale) - values * (vectors / scale)[:200]).max()
print(f"largest residual: {gap:.1e}")
assert gap < 1e-5
print(
    f"{N} x {N} pairs, {COUNT} eigenvectors in {seconds:.2f} s, into {vectors.nbytes / 1e3:.0f} "
    f"kB; the table alone would take {8 * N * N / 1e6:.0f} MB"
)

# %%
# Figure
# ------
# The first vibration is constant. The next have one, two, three ... changes of sign along the
# spiral, although only distances in the plane were given.

plt.rcParams.update({"font.size": 13})
figure, axes = plt.subplots(2, 2, figsize=(7.2, 7.2), layout="constrained")
for number, axis in enumerate(axes.flat, 1):
    shade = vectors[:, number] / np.abs(vectors[:, number]).max()
    shade *= np.sign(shade[turn.argmax()])
    axis.scatter(*x.T, c=shade, s=4, cmap="PuOr", vmin=-1, vmax=1, linewidths=0, rasterized=True)
    axis.set_title(f"vibration {number}: {values[number]:.4f}", fontsize=13)
    axis.set(aspect="equal", facecolor="0.85", xticks=[], yticks=[])
plt.show()
